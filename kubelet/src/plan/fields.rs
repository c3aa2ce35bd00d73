//! Every field of a PodSpec and what this kubelet does with it.
//!
//! A field that is not honoured yet and would confine, route or mount makes the kubelet refuse the pod: a pod never
//! runs with less than it asked for. Fields that only others read (the scheduler, admission) are listed as theirs.
use super::pod;
use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SecurityContext, Volume};

/// What happens with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// Acted on here.
    Honoured,
    /// Acted on by another component; the kubelet has nothing to do.
    Elsewhere(&'static str),
    /// Not acted on, and harmless to a pod that names it.
    Harmless(&'static str),
    /// Not acted on, and refused.
    Refused(&'static str),
}

/// One row: path below the struct it belongs to, and what happens.
pub type Row = (&'static str, Care);

use Care::{Elsewhere, Harmless, Honoured, Refused};

/// Fields of `spec`.
#[rustfmt::skip]
pub static POD: &[Row] = &[
    ("activeDeadlineSeconds", Honoured),
    ("affinity", Elsewhere("scheduler")),
    ("automountServiceAccountToken", Elsewhere("admission")),
    ("containers", Honoured),
    ("dnsConfig", Honoured),
    ("dnsPolicy", Honoured),
    ("enableServiceLinks", Honoured),
    ("ephemeralContainers", Honoured),
    ("hostAliases", Honoured),
    ("hostIPC", Honoured),
    ("hostNetwork", Honoured),
    ("hostPID", Honoured),
    ("hostUsers", Refused("user namespaces are not there yet: hostUsers may not be false")),
    ("hostname", Honoured),
    ("hostnameOverride", Honoured),
    ("imagePullSecrets", Honoured),
    ("initContainers", Honoured),
    ("nodeName", Elsewhere("scheduler")),
    ("nodeSelector", Honoured),
    ("os", Honoured),
    ("overhead", Honoured),
    ("preemptionPolicy", Elsewhere("scheduler")),
    ("priority", Honoured),
    ("priorityClassName", Elsewhere("admission")),
    ("readinessGates", Honoured),
    ("resourceClaims", Refused("dynamic resource allocation is not there yet")),
    ("resources", Honoured),
    ("restartPolicy", Honoured),
    ("runtimeClassName", Refused("runtime classes are not there yet")),
    ("schedulerName", Elsewhere("scheduler")),
    ("schedulingGates", Elsewhere("scheduler")),
    ("securityContext", Honoured),
    ("serviceAccount", Elsewhere("admission")),
    ("serviceAccountName", Honoured),
    ("setHostnameAsFQDN", Honoured),
    ("shareProcessNamespace", Honoured),
    ("subdomain", Honoured),
    ("terminationGracePeriodSeconds", Honoured),
    ("tolerations", Elsewhere("scheduler")),
    ("topologySpreadConstraints", Elsewhere("scheduler")),
    ("volumes", Honoured),
    ("workloadRef", Elsewhere("scheduler")),
];

/// Fields of a container (init and ephemeral ones too).
#[rustfmt::skip]
pub static CONTAINER: &[Row] = &[
    ("args", Honoured),
    ("command", Honoured),
    ("env", Honoured),
    ("envFrom", Honoured),
    ("image", Honoured),
    ("imagePullPolicy", Honoured),
    ("lifecycle", Honoured),
    ("livenessProbe", Honoured),
    ("name", Honoured),
    ("ports", Honoured),
    ("readinessProbe", Honoured),
    ("resizePolicy", Harmless("in-place resize is not there yet; a changed request is not acted on")),
    ("resources", Honoured),
    ("restartPolicy", Honoured),
    ("restartPolicyRules", Honoured),
    ("securityContext", Honoured),
    ("startupProbe", Honoured),
    ("stdin", Honoured),
    ("stdinOnce", Honoured),
    ("terminationMessagePath", Honoured),
    ("terminationMessagePolicy", Honoured),
    ("tty", Honoured),
    ("volumeDevices", Refused("raw block volumes are not there yet")),
    ("volumeMounts", Honoured),
    ("workingDir", Honoured),
];

/// Fields of a pod's security context.
#[rustfmt::skip]
pub static POD_SECURITY: &[Row] = &[
    ("appArmorProfile", Honoured),
    ("fsGroup", Honoured),
    ("fsGroupChangePolicy", Honoured),
    ("runAsGroup", Honoured),
    ("runAsNonRoot", Honoured),
    ("runAsUser", Honoured),
    ("seLinuxChangePolicy", Harmless("no volume is relabelled")),
    ("seLinuxOptions", Honoured),
    ("seccompProfile", Honoured),
    ("supplementalGroups", Honoured),
    ("supplementalGroupsPolicy", Honoured),
    ("sysctls", Honoured),
    ("windowsOptions", Refused("this is a Linux node")),
];

/// Fields of a container's security context.
#[rustfmt::skip]
pub static CONTAINER_SECURITY: &[Row] = &[
    ("allowPrivilegeEscalation", Honoured),
    ("appArmorProfile", Honoured),
    ("capabilities", Honoured),
    ("privileged", Honoured),
    ("procMount", Honoured),
    ("readOnlyRootFilesystem", Honoured),
    ("runAsGroup", Honoured),
    ("runAsNonRoot", Honoured),
    ("runAsUser", Honoured),
    ("seLinuxOptions", Honoured),
    ("seccompProfile", Honoured),
    ("windowsOptions", Refused("this is a Linux node")),
];

/// Kinds of volume. All that are not honoured mount something, so all are refused.
#[rustfmt::skip]
pub static VOLUME: &[Row] = &[
    ("configMap", Honoured),
    ("downwardAPI", Honoured),
    ("emptyDir", Honoured),
    ("hostPath", Honoured),
    ("name", Honoured),
    ("projected", Honoured),
    ("secret", Honoured),
];

/// Safe sysctls, allowed without configuration (upstream's `SafeSysctlAllowlist`).
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
    let unsupported = |path: String, rows: &[Row], field: &str| {
        let why = rows.iter().find(|(name, _)| *name == field).map(|(_, care)| *care);
        let why = match why {
            Some(Refused(why)) => why,
            _ => "this kubelet does not act on it yet",
        };
        refusal("UnsupportedPodField", format!("{path}: {why}"))
    };
    if spec.host_users == Some(false) {
        return Err(unsupported("spec.hostUsers".into(), POD, "hostUsers"));
    }
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        return Err(unsupported("spec.resourceClaims".into(), POD, "resourceClaims"));
    }
    if spec.runtime_class_name.as_ref().is_some_and(|class| !class.is_empty()) {
        return Err(unsupported("spec.runtimeClassName".into(), POD, "runtimeClassName"));
    }
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        return Err(refusal(
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        ));
    }
    check_pod_security(spec.security_context.as_ref())?;
    for volume in spec.volumes.iter().flatten() {
        check_volume(volume)?;
    }
    let ephemeral: Vec<Container> =
        pod::ephemeral_containers(pod).iter().map(pod::ephemeral_as_container).collect();
    for container in pod::init_containers(pod).iter().chain(pod::containers(pod)).chain(&ephemeral) {
        if container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty()) {
            let path = format!("container {}: volumeDevices", container.name);
            return Err(unsupported(path, CONTAINER, "volumeDevices"));
        }
        for mount in container.volume_mounts.iter().flatten() {
            if mount.recursive_read_only.as_deref() == Some("Enabled") {
                let path =
                    format!("container {}: volumeMounts[{}].recursiveReadOnly", container.name, mount.name);
                return Err(unsupported(path, &[], ""));
            }
        }
        check_security(&container.name, container.security_context.as_ref())?;
    }
    Ok(())
}

fn check_pod_security(security: Option<&PodSecurityContext>) -> Result<(), Refusal> {
    let Some(security) = security else { return Ok(()) };
    if security.windows_options.is_some() {
        return Err(refusal(
            "UnsupportedPodField",
            "spec.securityContext.windowsOptions: this is a Linux node",
        ));
    }
    for sysctl in security.sysctls.iter().flatten() {
        if !SAFE_SYSCTLS.contains(&sysctl.name.replace('/', ".").as_str()) {
            return Err(refusal(
                "SysctlForbidden",
                format!("forbidden sysctl: {:?} not allowlisted", sysctl.name),
            ));
        }
    }
    Ok(())
}

fn check_security(name: &str, security: Option<&SecurityContext>) -> Result<(), Refusal> {
    if security.is_some_and(|s| s.windows_options.is_some()) {
        let message = format!("container {name}: securityContext.windowsOptions: this is a Linux node");
        return Err(refusal("UnsupportedPodField", message));
    }
    Ok(())
}

/// Refuses volumes of a kind that nothing mounts.
fn check_volume(volume: &Volume) -> Result<(), Refusal> {
    let name = &volume.name;
    let kind = serde_json::to_value(volume).ok().and_then(|value| {
        let object = value.as_object()?;
        object.keys().find(|key| key.as_str() != "name").cloned()
    });
    // A volume without a source is an emptyDir (the API server defaults it so).
    let Some(kind) = kind else { return Ok(()) };
    if !VOLUME.iter().any(|(row, _)| *row == kind) {
        return Err(refusal(
            "UnsupportedPodField",
            format!("volume {name}: volumes of type {kind} are not there yet"),
        ));
    }
    if volume.empty_dir.as_ref().is_some_and(|dir| {
        dir.medium.as_deref().is_some_and(|medium| !medium.is_empty() && medium != "Memory")
    }) {
        return Err(refusal("UnsupportedPodField", format!("volume {name}: huge pages are not there yet")));
    }
    for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
        if source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
            let message = format!(
                "volume {name}: projected clusterTrustBundle and podCertificate sources are not there yet"
            );
            return Err(refusal("UnsupportedPodField", message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Container;
    use std::collections::BTreeSet;

    /// The tables stand for the whole struct: each field of the generated type has a row and each row a field.
    #[test]
    fn every_field_has_a_row() {
        let source = |file: &str| -> Option<String> {
            let home = std::env::var("CARGO_HOME")
                .unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap_or_default()));
            let registries = std::fs::read_dir(format!("{home}/registry/src")).ok()?;
            registries.flatten().find_map(|registry| {
                let path = registry.path().join("k8s-openapi-0.29.0/src/v1_35/api/core/v1").join(file);
                std::fs::read_to_string(path).ok()
            })
        };
        let tables: [(&str, &[Row]); 4] = [
            ("pod_spec.rs", POD),
            ("container.rs", CONTAINER),
            ("pod_security_context.rs", POD_SECURITY),
            ("security_context.rs", CONTAINER_SECURITY),
        ];
        for (file, rows) in tables {
            let Some(text) = source(file) else {
                println!("SKIPPED: the sources of k8s-openapi are not in the registry folder");
                return;
            };
            let fields: BTreeSet<&str> = text
                .lines()
                .filter_map(|line| line.trim().split_once(" => Field::Key_")?.0.strip_prefix('"'))
                .map(|name| name.trim_end_matches('"'))
                .collect();
            assert!(fields.len() > 5, "{file}: fields were not found");
            let listed: BTreeSet<&str> = rows.iter().map(|(name, _)| *name).collect();
            assert_eq!(fields, listed, "{file}");
        }
    }

    #[test]
    fn a_pod_that_does_not_fit_is_refused() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {}, "spec": {"containers": [
            {"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "1Ki"}}}]}}))
        .unwrap();
        let room = Room { cpu: (1500, 2000), memory: (0, 1024), pods: (1, 2) };
        assert_eq!(check_room(&pod, &room), Ok(()));
        let refused = |room: Room| check_room(&pod, &room).unwrap_err();
        let cpu = refused(Room { cpu: (1501, 2000), ..room });
        assert_eq!(cpu.reason, "OutOfcpu");
        assert_eq!(
            cpu.message,
            "Node didn't have enough resource: cpu, requested: 500, used: 1501, capacity: 2000"
        );
        assert_eq!(refused(Room { memory: (1, 1024), ..room }).reason, "OutOfmemory");
        assert_eq!(refused(Room { pods: (2, 2), ..room }).reason, "OutOfpods");
    }

    #[test]
    fn what_is_not_there_yet_is_refused_with_its_path() {
        let cases = [
            (serde_json::json!({"hostUsers": false}), "spec.hostUsers"),
            (serde_json::json!({"runtimeClassName": "kata"}), "spec.runtimeClassName"),
            (
                serde_json::json!({"volumes": [{"name": "v", "nfs": {"path": "/", "server": "s"}}]}),
                "volume v",
            ),
            (
                serde_json::json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
                "volume v",
            ),
            (
                serde_json::json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
                "sysctl",
            ),
            (
                serde_json::json!({"containers": [{"name": "a", "volumeDevices": [{"name": "v", "devicePath": "/d"}]}]}),
                "volumeDevices",
            ),
        ];
        for (spec, expected) in cases {
            let mut spec = spec;
            if spec.get("containers").is_none() {
                spec["containers"] = serde_json::json!([{"name": "a"}]);
            }
            let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {}, "spec": spec})).unwrap();
            let refused = check(&pod).unwrap_err();
            assert!(refused.message.contains(expected), "{refused}");
        }
        let fine = Pod {
            spec: Some(k8s_openapi::api::core::v1::PodSpec {
                containers: vec![Container { name: "a".into(), ..Default::default() }],
                volumes: Some(vec![Volume { name: "v".into(), ..Default::default() }]),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(check(&fine), Ok(()));
    }
}
