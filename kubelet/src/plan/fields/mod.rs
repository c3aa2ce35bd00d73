//! Every field of a PodSpec and what this kubelet does with it.
//!
//! A field that is not honoured yet and would confine, route or mount makes the kubelet refuse the pod: a pod never
//! runs with less than it asked for. Fields that only others read (the scheduler, admission) are listed as theirs. The
//! tables decide: [`check`] walks the pod along them.
pub mod tables;

use super::pod;
use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::Value;
use tables::{Care, Row};

/// Safe sysctls, allowed without configuration (upstream's `SafeSysctlAllowlist`). Those of `kernel.` belong to the IPC
/// namespace, the others to the network's.
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Why a pod is not run: what `status.reason` and `status.message` say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub reason: &'static str,
    pub message: String,
}

fn refusal(reason: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { reason, message: message.into() }
}

/// What the node can still give to pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Thousandths of a CPU: used, and all.
    pub cpu: (i64, i64),
    /// Bytes: used, and all.
    pub memory: (i64, i64),
    pub pods: (i64, i64),
}

/// Checks that the pod fits beside those that are here (upstream's last line of defence behind the scheduler).
pub fn check_room(pod: &Pod, room: &Room) -> Result<(), Refusal> {
    let wanted = super::qos::pod_resources(pod);
    let rows = [
        ("OutOfpods", "pods", 1, room.pods),
        ("OutOfcpu", "cpu", wanted.cpu_request, room.cpu),
        ("OutOfmemory", "memory", wanted.memory_request, room.memory),
    ];
    for (reason, resource, requested, (used, capacity)) in rows {
        if requested > 0 && used + requested > capacity {
            let message = format!(
                "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
            );
            return Err(refusal(reason, message));
        }
    }
    Ok(())
}

/// Checks a pod against the tables: the first field that is asked for and refused.
pub fn check(pod: &Pod) -> Result<(), Refusal> {
    let spec = pod::spec(pod);
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        return Err(refusal(
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        ));
    }
    check_sysctls(pod)?;
    let refused = match serde_json::to_value(spec) {
        Ok(spec) => Walk { path: "spec".into() }.pod(&spec).err(),
        Err(error) => Some(format!("spec: {error}")),
    };
    refused.map_or(Ok(()), |message| Err(refusal("UnsupportedPodField", message)))
}

/// Checks one container by itself: an ephemeral one comes when its pod was admitted long ago.
pub fn check_container(container: &Container) -> Result<(), Refusal> {
    let walk = Walk { path: format!("container {}", container.name) };
    let checked = serde_json::to_value(container).map_err(|error| error.to_string());
    checked
        .and_then(|value| walk.container(&value))
        .map_err(|message| refusal("UnsupportedPodField", message))
}

/// What this node's kernel and runtime can confine with.
#[derive(Clone, Copy, Debug)]
pub struct Support {
    pub app_armor: bool,
    /// The runtime keeps `supplementalGroupsPolicy: Strict`.
    pub strict_groups: bool,
}

/// Checks what depends on the node, as upstream's admit handlers do.
pub fn check_support(pod: &Pod, support: Support) -> Result<(), Refusal> {
    let security = pod::spec(pod).security_context.as_ref();
    if security.and_then(|s| s.supplemental_groups_policy.as_deref()) == Some("Strict")
        && !support.strict_groups
    {
        return Err(refusal(
            "SupplementalGroupsPolicyNotSupported",
            "SupplementalGroupsPolicy=Strict is not supported in this node",
        ));
    }
    let ephemeral: Vec<_> = pod::ephemeral_containers(pod).iter().map(pod::ephemeral_as_container).collect();
    let all = pod::init_containers(pod).iter().chain(pod::containers(pod)).chain(&ephemeral);
    let of_containers = all.filter_map(|c| c.security_context.as_ref()?.app_armor_profile.as_ref());
    let profiles = security.and_then(|s| s.app_armor_profile.as_ref()).into_iter().chain(of_containers);
    if !support.app_armor && profiles.into_iter().any(|profile| profile.type_ != "Unconfined") {
        return Err(refusal("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"));
    }
    Ok(())
}

fn check_sysctls(pod: &Pod) -> Result<(), Refusal> {
    let spec = pod::spec(pod);
    for sysctl in spec.security_context.iter().flat_map(|s| s.sysctls.iter().flatten()) {
        let name = sysctl.name.replace('/', ".");
        let forbidden =
            |why: String| Err(refusal("SysctlForbidden", format!("forbidden sysctl: {name:?} {why}")));
        if !SAFE_SYSCTLS.contains(&name.as_str()) {
            return forbidden("not allowlisted".into());
        }
        let (host, namespace) = match name.starts_with("kernel.") {
            true => (spec.host_ipc, "ipc"),
            false => (spec.host_network, "net"),
        };
        if host == Some(true) {
            return forbidden(format!("not allowed with host {namespace} enabled"));
        }
    }
    Ok(())
}

/// A walk through a pod's spec, along the tables; an error is the path of a refused field and why.
struct Walk {
    path: String,
}

impl Walk {
    fn below(&self, step: &str) -> Walk {
        Walk { path: format!("{}.{step}", self.path) }
    }

    /// Checks the fields of one struct.
    fn fields(&self, value: &Value, rows: &[Row]) -> Result<(), String> {
        for (name, value) in value.as_object().into_iter().flatten() {
            let unset = value.is_null() || value == "" || value.as_array().is_some_and(Vec::is_empty);
            let care = rows.iter().find(|(row, _)| row == name).map(|(_, care)| *care);
            let why = match care {
                Some(Care::Refused(why)) => why,
                Some(Care::RefusedIf(refused, why)) if refused(value) => why,
                None => "this kubelet does not act on it yet",
                Some(_) => continue,
            };
            if !unset {
                return Err(format!("{}.{name}: {why}", self.path));
            }
        }
        Ok(())
    }

    fn each(
        &self,
        value: &Value,
        name: &str,
        check: impl Fn(&Walk, &Value) -> Result<(), String>,
    ) -> Result<(), String> {
        let list = value.get(name).and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .enumerate()
            .try_for_each(|(index, one)| check(&self.below(&format!("{name}[{index}]")), one))
    }

    fn one(
        &self,
        value: &Value,
        name: &str,
        check: impl Fn(&Walk, &Value) -> Result<(), String>,
    ) -> Result<(), String> {
        value.get(name).map_or(Ok(()), |one| check(&self.below(name), one))
    }

    fn pod(&self, spec: &Value) -> Result<(), String> {
        self.fields(spec, tables::POD)?;
        self.one(spec, "securityContext", |walk, value| walk.fields(value, tables::POD_SECURITY))?;
        self.one(spec, "resources", |walk, value| walk.fields(value, tables::RESOURCES))?;
        self.each(spec, "volumes", Walk::volume)?;
        for list in ["initContainers", "containers", "ephemeralContainers"] {
            self.each(spec, list, Walk::container)?;
        }
        Ok(())
    }

    fn volume(&self, volume: &Value) -> Result<(), String> {
        self.fields(volume, tables::VOLUME)?;
        self.one(volume, "emptyDir", |walk, value| walk.fields(value, tables::EMPTY_DIR))?;
        self.one(volume, "projected", |walk, value| {
            walk.each(value, "sources", |walk, source| walk.fields(source, tables::PROJECTION))
        })
    }

    fn container(&self, container: &Value) -> Result<(), String> {
        let mut plain = container.clone();
        if let Some(object) = plain.as_object_mut() {
            tables::EPHEMERAL.iter().for_each(|(name, _)| drop(object.remove(*name)));
        }
        self.fields(&plain, tables::CONTAINER)?;
        self.one(container, "securityContext", |walk, v| walk.fields(v, tables::CONTAINER_SECURITY))?;
        self.one(container, "resources", |walk, v| walk.fields(v, tables::RESOURCES))?;
        self.each(container, "volumeMounts", |walk, v| walk.fields(v, tables::MOUNT))?;
        self.each(container, "env", |walk, v| {
            walk.one(v, "valueFrom", |walk, v| walk.fields(v, tables::VARIABLE))
        })?;
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            self.one(container, probe, |walk, v| walk.fields(v, tables::PROBE))?;
        }
        self.one(container, "lifecycle", |walk, lifecycle| {
            walk.fields(lifecycle, tables::LIFECYCLE)?;
            for hook in ["postStart", "preStop"] {
                walk.one(lifecycle, hook, |walk, v| walk.fields(v, tables::HOOK))?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
