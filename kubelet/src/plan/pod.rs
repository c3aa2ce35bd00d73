//! Small readings of a Pod that many places need: identity, kinds of containers, restart rules.
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, PodStatus};

/// Annotation that says where a pod came from (`file` for static pods, `api` for the rest).
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// Annotation that carries a static pod's hash; its mirror pod repeats it as [`CONFIG_MIRROR`].
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Annotation that marks a mirror pod.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotation with the time the kubelet first saw the pod.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";

/// Grace when the spec names none.
pub const DEFAULT_GRACE_SECONDS: i64 = 30;

/// Which list of the spec a container stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Init,
    Main,
    Ephemeral,
}

/// A container of a pod's spec, whatever list it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContainerRef {
    pub kind: Kind,
    pub index: usize,
}

pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or("")
}

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or("")
}

pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// `namespace/name`, for logs and messages.
pub fn full_name(pod: &Pod) -> String {
    format!("{}/{}", namespace(pod), name(pod))
}

pub fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, CONFIG_SOURCE).is_some_and(|source| source != "api")
}

pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, CONFIG_MIRROR).is_some()
}

pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::OnceLock<PodSpec> = std::sync::OnceLock::new();
    pod.spec.as_ref().unwrap_or_else(|| EMPTY.get_or_init(PodSpec::default))
}

pub fn status(pod: &Pod) -> &PodStatus {
    static EMPTY: std::sync::OnceLock<PodStatus> = std::sync::OnceLock::new();
    pod.status.as_ref().unwrap_or_else(|| EMPTY.get_or_init(PodStatus::default))
}

pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or(&[])
}

pub fn containers(pod: &Pod) -> &[Container] {
    &spec(pod).containers
}

pub fn ephemeral_containers(pod: &Pod) -> &[EphemeralContainer] {
    spec(pod).ephemeral_containers.as_deref().unwrap_or(&[])
}

pub fn host_network(pod: &Pod) -> bool {
    spec(pod).host_network.unwrap_or(false)
}

pub fn is_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

pub fn restart_policy(pod: &Pod) -> &str {
    spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

/// A restartable init container.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

pub fn is_terminal_phase(phase: Option<&str>) -> bool {
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The common part of an ephemeral container as an ordinary container.
pub fn ephemeral_as_container(container: &EphemeralContainer) -> Container {
    let c = container.clone();
    Container {
        args: c.args,
        command: c.command,
        env: c.env,
        env_from: c.env_from,
        image: c.image,
        image_pull_policy: c.image_pull_policy,
        lifecycle: c.lifecycle,
        liveness_probe: c.liveness_probe,
        name: c.name,
        ports: c.ports,
        readiness_probe: c.readiness_probe,
        resize_policy: c.resize_policy,
        resources: c.resources,
        restart_policy: c.restart_policy,
        restart_policy_rules: c.restart_policy_rules,
        security_context: c.security_context,
        startup_probe: c.startup_probe,
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        termination_message_path: c.termination_message_path,
        termination_message_policy: c.termination_message_policy,
        tty: c.tty,
        volume_devices: c.volume_devices,
        volume_mounts: c.volume_mounts,
        working_dir: c.working_dir,
    }
}

/// The container that `reference` names, if the spec still has it.
pub fn container(pod: &Pod, reference: ContainerRef) -> Option<Container> {
    match reference.kind {
        Kind::Init => init_containers(pod).get(reference.index).cloned(),
        Kind::Main => containers(pod).get(reference.index).cloned(),
        Kind::Ephemeral => ephemeral_containers(pod).get(reference.index).map(ephemeral_as_container),
    }
}

/// Finds a container by name in any of the three lists.
pub fn find(pod: &Pod, name: &str) -> Option<ContainerRef> {
    let position = |kind, index: Option<usize>| index.map(|index| ContainerRef { kind, index });
    position(Kind::Main, containers(pod).iter().position(|c| c.name == name))
        .or_else(|| position(Kind::Init, init_containers(pod).iter().position(|c| c.name == name)))
        .or_else(|| position(Kind::Ephemeral, ephemeral_containers(pod).iter().position(|c| c.name == name)))
}

/// Whether a container that ended with `exit_code` is started again: its own rules, its own policy, the pod's policy.
pub fn should_restart(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    for rule in container.restart_policy_rules.as_deref().unwrap_or(&[]) {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.as_ref().is_some_and(|values| values.contains(&exit_code));
        let matches = match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        if matches && rule.action == "Restart" {
            return true;
        }
    }
    policy_restarts(container.restart_policy.as_deref().unwrap_or(restart_policy(pod)), exit_code)
}

/// Whether a container that is stopped for a failed probe is started again (rules need an exit code, so only policies count).
pub fn restarts_on_failure(pod: &Pod, container: &Container) -> bool {
    container.restart_policy.as_deref().unwrap_or(restart_policy(pod)) != "Never"
}

fn policy_restarts(policy: &str, exit_code: i32) -> bool {
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// Whether anything changed that the kubelet acts on: all but the status it writes itself.
pub fn differs(old: &Pod, new: &Pod) -> bool {
    let foreign = |pod: &Pod| {
        let conditions = status(pod).conditions.iter().flatten();
        let foreign = conditions.filter(|c| !super::status::OWNED_CONDITIONS.contains(&c.type_.as_str()));
        foreign.map(|c| (c.type_.clone(), c.status.clone())).collect::<Vec<_>>()
    };
    let terminal = |pod: &Pod| is_terminal_phase(status(pod).phase.as_deref());
    let (a, b) = (&old.metadata, &new.metadata);
    old.spec != new.spec
        || a.generation != b.generation
        || a.labels != b.labels
        || a.annotations != b.annotations
        || a.deletion_timestamp != b.deletion_timestamp
        || a.deletion_grace_period_seconds != b.deletion_grace_period_seconds
        || foreign(old) != foreign(new)
        || terminal(old) != terminal(new)
}

/// The grace the pod is stopped with when nothing shortens it.
pub fn grace_seconds(pod: &Pod) -> i64 {
    let spec_grace = spec(pod).termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS);
    pod.metadata.deletion_grace_period_seconds.unwrap_or(spec_grace).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelets_own_status_is_no_news() {
        let pod = |extra: serde_json::Value| -> Pod {
            let mut value = serde_json::json!({"metadata": {"name": "p", "resourceVersion": "1"},
                "spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Pending"}});
            for (key, part) in extra.as_object().unwrap() {
                value[key].as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
            }
            serde_json::from_value(value).unwrap()
        };
        let old = pod(serde_json::json!({}));
        let news = |extra| differs(&old, &pod(extra));
        let conditions = |type_: &str| serde_json::json!([{"type": type_, "status": "True"}]);
        assert!(!news(serde_json::json!({"metadata": {"resourceVersion": "2"},
            "status": {"phase": "Running", "conditions": conditions("Ready")}})));
        assert!(news(serde_json::json!({"status": {"conditions": conditions("example.org/gate")}})));
        assert!(news(serde_json::json!({"status": {"phase": "Failed"}})));
        assert!(news(serde_json::json!({"metadata": {"labels": {"a": "b"}}})));
        assert!(news(serde_json::json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}})));
        assert!(news(serde_json::json!({"spec": {"activeDeadlineSeconds": 1}})));
    }
}
