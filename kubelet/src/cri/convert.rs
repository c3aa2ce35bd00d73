//! CRI messages to our own words, and the labels and annotations that tie containers to pods (upstream's names, so
//! that tools which read them keep working).
use super::api;
use crate::plan::hash::container_hash;
use crate::plan::observed::{ObservedContainer, ObservedSandbox, RunState};
use crate::plan::pod;
use k8s_openapi::api::core::v1::{Container, Pod};
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
    annotations
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
