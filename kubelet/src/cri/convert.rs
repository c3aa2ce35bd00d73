//! CRI messages to our own words, and the labels and annotations that tie containers to pods (upstream's names, so
//! that tools which read them keep working).
use super::api;
use crate::plan::hash::container_hash;
use crate::plan::observed::{ObservedContainer, ObservedSandbox, RunState};
use crate::plan::pod;
use k8s_openapi::api::core::v1::{Container, Lifecycle, LifecycleHandler, Pod};
use std::collections::HashMap;

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

const HASH: &str = "io.kubernetes.container.hash";
const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
const PORTS: &str = "io.kubernetes.container.ports";
const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
/// Not upstream's: what the end of a machine needs beside those.
const PRIORITY: &str = "keelson.dev/priority";
const TURN: &str = "keelson.dev/ends-in-turn";

/// Annotations a container is created with: what a restarted kubelet needs to know of it.
pub fn container_annotations(
    pod: &Pod,
    container: &Container,
    restart_count: u32,
) -> HashMap<String, String> {
    let mut annotations = HashMap::from([
        (HASH.to_owned(), container_hash(container)),
        (RESTART_COUNT.to_owned(), restart_count.to_string()),
        (
            MESSAGE_PATH.to_owned(),
            container.termination_message_path.clone().unwrap_or_else(|| "/dev/termination-log".into()),
        ),
        (
            MESSAGE_POLICY.to_owned(),
            container.termination_message_policy.clone().unwrap_or_else(|| "File".into()),
        ),
    ]);
    if let Some(grace) = pod::spec(pod).termination_grace_period_seconds {
        annotations.insert(GRACE.to_owned(), grace.to_string());
    }
    if let Some(ports) = container.ports.as_ref().filter(|ports| !ports.is_empty())
        && let Ok(text) = serde_json::to_string(ports)
    {
        annotations.insert(PORTS.to_owned(), text);
    }
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    if let Some(text) = hook.and_then(|hook| serde_json::to_string(hook).ok()) {
        annotations.insert(PRE_STOP.to_owned(), text);
    }
    if let Some(priority) = pod::spec(pod).priority.filter(|priority| *priority != 0) {
        annotations.insert(PRIORITY.to_owned(), priority.to_string());
    }
    let sidecars: Vec<&Container> = pod::init_containers(pod).iter().filter(|c| pod::is_sidecar(c)).collect();
    if let Some(at) = sidecars.iter().position(|sidecar| sidecar.name == container.name) {
        annotations.insert(TURN.to_owned(), (sidecars.len() - at).to_string());
    }
    annotations
}

/// How a container is to end, as its annotations say: for whoever ends it without its pod at hand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ending {
    pub pod_uid: String,
    /// The pod's grace in seconds; `None` where it says none.
    pub grace: Option<u64>,
    /// The pod's priority.
    pub priority: i32,
    /// 0: among the first of its pod; sidecars come one after the other, the last first.
    pub turn: usize,
    /// What the hook before its end needs of the container: its name, its ports and the hook.
    pub container: Container,
}

impl Ending {
    /// `None` for a container that is no pod's.
    pub fn of(container: &api::Container) -> Option<Ending> {
        let text = |name: &str| container.annotations.get(name).map(String::as_str).unwrap_or_default();
        let hook: Option<LifecycleHandler> = serde_json::from_str(text(PRE_STOP)).ok();
        Some(Ending {
            pod_uid: container.labels.get(POD_UID)?.clone(),
            grace: text(GRACE).parse().ok(),
            priority: text(PRIORITY).parse().unwrap_or(0),
            turn: text(TURN).parse().unwrap_or(0),
            container: Container {
                name: container.labels.get(CONTAINER_NAME).cloned().unwrap_or_default(),
                ports: serde_json::from_str(text(PORTS)).ok(),
                lifecycle: hook
                    .map(|pre_stop| Lifecycle { pre_stop: Some(pre_stop), ..Lifecycle::default() }),
                ..Container::default()
            },
        })
    }

    /// The hook before its end.
    pub fn hook(&self) -> Option<&LifecycleHandler> {
        self.container.lifecycle.as_ref()?.pre_stop.as_ref()
    }
}

pub fn state(state: i32) -> RunState {
    match api::ContainerState::try_from(state) {
        Ok(api::ContainerState::ContainerCreated) => RunState::Created,
        Ok(api::ContainerState::ContainerRunning) => RunState::Running,
        Ok(api::ContainerState::ContainerExited) => RunState::Exited,
        _ => RunState::Unknown,
    }
}

pub fn container(status: api::ContainerStatus, sandbox_id: String) -> ObservedContainer {
    let annotation = |name: &str| status.annotations.get(name).cloned().unwrap_or_default();
    let metadata = status.metadata.unwrap_or_default();
    let image = status.image.unwrap_or_default();
    ObservedContainer {
        hash: annotation(HASH),
        restart_count: annotation(RESTART_COUNT).parse().unwrap_or(metadata.attempt),
        id: status.id,
        name: metadata.name,
        sandbox_id,
        state: state(status.state),
        created_at: status.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image: if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image },
        image_ref: status.image_ref,
        log_path: status.log_path,
    }
}

pub fn sandbox(status: api::PodSandboxStatus) -> ObservedSandbox {
    let options = status.linux.and_then(|l| l.namespaces).and_then(|n| n.options).unwrap_or_default();
    let network = status.network.unwrap_or_default();
    let additional = network.additional_ips.into_iter().map(|ip| ip.ip);
    ObservedSandbox {
        id: status.id,
        attempt: status.metadata.unwrap_or_default().attempt,
        ready: status.state == api::PodSandboxState::SandboxReady as i32,
        created_at: status.created_at,
        host_network: options.network == api::NamespaceMode::Node as i32,
        ips: std::iter::once(network.ip).chain(additional).filter(|ip| !ip.is_empty()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_container_ends_is_read_from_its_annotations() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {
            "terminationGracePeriodSeconds": 7, "priority": 2_000_000_000,
            "initContainers": [{"name": "setup"}, {"name": "first", "restartPolicy": "Always"},
                {"name": "second", "restartPolicy": "Always"}],
            "containers": [{"name": "main", "ports": [{"name": "web", "containerPort": 80}],
                "lifecycle": {"preStop": {"httpGet": {"path": "/bye", "port": "web"}}}}]}}))
        .expect("a pod");
        let ending = |container: &Container| {
            let mut made = api::Container {
                annotations: container_annotations(&pod, container, 0),
                ..api::Container::default()
            };
            assert_eq!(Ending::of(&made), None, "nobody's pod");
            made.labels.insert(POD_UID.to_owned(), "u".to_owned());
            made.labels.insert(CONTAINER_NAME.to_owned(), container.name.clone());
            Ending::of(&made).expect("a pod's")
        };
        let main = ending(&pod::spec(&pod).containers[0]);
        assert_eq!((main.grace, main.priority, main.turn), (Some(7), 2_000_000_000, 0));
        assert_eq!(main.container.name, "main");
        let get = main.hook().and_then(|hook| hook.http_get.as_ref()).expect("its hook");
        let request = crate::probe::http::Request::of(get, &main.container, "192.0.2.1").expect("a request");
        assert_eq!((request.port, request.path.as_str()), (80, "/bye"));
        let turns: Vec<usize> = pod::init_containers(&pod).iter().map(|one| ending(one).turn).collect();
        assert_eq!(turns, [0, 2, 1], "the last sidecar ends first, after the others");
    }
}
