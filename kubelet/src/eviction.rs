//! Pods the kubelet itself must end: those over their storage limits, and one at a time when the node runs out of
//! memory. Judged from the kernel's figures; the choice among pods is pure ([`rank`]).
use crate::cri::api;
use crate::events::Severity;
use crate::kubelet::Shared;
use crate::node::pressure;
use crate::plan::quantity::whole;
use crate::plan::{pod, qos};
use crate::worker::{Eviction, PodView, Workers};
use k8s_openapi::api::core::v1::Pod;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(10);
/// Pods of this priority and above are the node's own.
const CRITICAL: i32 = 2_000_000_000;

/// Watches until dropped.
pub async fn keep(kubelet: Shared, workers: Workers) {
    let mut timer = tokio::time::interval(PERIOD);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        enforce_limits(&kubelet, &workers).await;
        relieve_memory(&kubelet, &workers);
    }
}

fn evict(kubelet: &Shared, workers: &Workers, pod: &Pod, message: String, node_pressure: bool) {
    tracing::warn!(pod = pod::name(pod), namespace = pod::namespace(pod), message, "pod evicted");
    kubelet.events.pod(pod, Severity::Warning, "Evicted", message.clone());
    workers.evict(pod::uid(pod), Eviction { message, node_pressure });
}

/// Limits on storage that a pod names: emptyDir volumes by name, containers by name.
#[derive(Debug, Default, PartialEq, Eq)]
struct StorageLimits {
    volumes: Vec<(String, i64, String)>,
    containers: Vec<(String, i64, String)>,
}

fn limits(pod: &Pod) -> StorageLimits {
    let mut out = StorageLimits::default();
    for volume in pod::spec(pod).volumes.iter().flatten() {
        let Some(dir) = &volume.empty_dir else { continue };
        // One in memory is limited by its own file system.
        if dir.medium.as_deref().is_none_or(str::is_empty)
            && let Some(limit) = &dir.size_limit
            && let Some(bytes) = whole(&limit.0).filter(|bytes| *bytes > 0)
        {
            out.volumes.push((volume.name.clone(), bytes, limit.0.clone()));
        }
    }
    for container in pod::containers(pod) {
        let limit = container.resources.as_ref().and_then(|r| r.limits.as_ref()?.get("ephemeral-storage"));
        if let Some(limit) = limit
            && let Some(bytes) = whole(&limit.0).filter(|bytes| *bytes > 0)
        {
            out.containers.push((container.name.clone(), bytes, limit.0.clone()));
        }
    }
    out
}

async fn enforce_limits(kubelet: &Shared, workers: &Workers) {
    let limited: Vec<(PodView, StorageLimits)> = workers
        .views()
        .into_iter()
        .filter(|view| !view.finished && !pod::is_terminal_phase(view.status.phase.as_deref()))
        .map(|view| {
            let limits = limits(&view.pod);
            (view, limits)
        })
        .filter(|(_, limits)| *limits != StorageLimits::default())
        .collect();
    if limited.is_empty() {
        return;
    }
    let stats = kubelet.cri.container_stats().await.unwrap_or_default();
    let written: HashMap<String, u64> = stats
        .into_iter()
        .filter_map(|s: api::ContainerStats| Some((s.attributes?.id, s.writable_layer?.used_bytes?.value)))
        .collect();
    for (view, limits) in limited {
        let folder = kubelet.volumes.pod_folder(pod::uid(&view.pod)).join("volumes/kubernetes.io~empty-dir");
        let logs = crate::host::config::log_folder(&kubelet.config.pod_logs, &view.pod);
        let layers: HashMap<String, u64> =
            view.observed.running().filter_map(|c| Some((c.name.clone(), *written.get(&c.id)?))).collect();
        let found = tokio::task::spawn_blocking(move || over_limit(&limits, &folder, &logs, &layers)).await;
        if let Ok(Some(message)) = found {
            evict(kubelet, workers, &view.pod, message, false);
        }
    }
}

/// The first limit that is exceeded, in upstream's words.
fn over_limit(
    limits: &StorageLimits,
    empty_dirs: &Path,
    logs: &Path,
    layers: &HashMap<String, u64>,
) -> Option<String> {
    for (name, limit, text) in &limits.volumes {
        if disk_usage(&empty_dirs.join(name)) > limit.unsigned_abs() {
            return Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {text:?}. "));
        }
    }
    for (name, limit, text) in &limits.containers {
        let used = layers.get(name).copied().unwrap_or(0) + disk_usage(&logs.join(name));
        if used > limit.unsigned_abs() {
            return Some(format!("Container {name} exceeded its local ephemeral storage limit {text:?}. "));
        }
    }
    None
}

/// Bytes on disk below a folder, not crossing into other file systems; links are not followed.
fn disk_usage(folder: &Path) -> u64 {
    let Ok(root) = std::fs::symlink_metadata(folder) else { return 0 };
    let mut total = root.blocks() * 512;
    let mut pending: Vec<PathBuf> = vec![folder.to_path_buf()];
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != root.dev() {
                continue;
            }
            total += meta.blocks() * 512;
            if meta.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    total
}

fn relieve_memory(kubelet: &Shared, workers: &Workers) {
    let limit = kubelet.config.eviction.memory_available;
    let Some(available) = pressure::observe(&kubelet.config.root).memory_available else { return };
    if available >= limit {
        return;
    }
    let candidates: Vec<(PodView, Candidate)> = workers
        .views()
        .into_iter()
        .filter(|view| !view.finished && !pod::is_terminal_phase(view.status.phase.as_deref()))
        .filter(|view| !pod::is_static(&view.pod) && pod::spec(&view.pod).priority.unwrap_or(0) < CRITICAL)
        .map(|view| {
            let usage = kubelet.cgroups.pod_usage(qos::class(&view.pod), pod::uid(&view.pod));
            let candidate = Candidate {
                usage: i64::try_from(usage.working_set.unwrap_or(0)).unwrap_or(i64::MAX),
                request: qos::pod_resources(&view.pod).memory_request,
                priority: pod::spec(&view.pod).priority.unwrap_or(0),
            };
            (view, candidate)
        })
        .collect();
    if let Some((view, _)) = candidates.iter().min_by_key(|(_, candidate)| rank(candidate)) {
        let message = format!(
            "The node was low on resource: memory. Threshold quantity: {}Mi, available: {}Ki. ",
            limit >> 20,
            available >> 10
        );
        evict(kubelet, workers, &view.pod, message, true);
    }
}

/// What decides who goes first.
struct Candidate {
    usage: i64,
    request: i64,
    priority: i32,
}

/// Those over their request first, then the lower priority, then who is furthest over it.
fn rank(candidate: &Candidate) -> (bool, i32, i64) {
    let over = candidate.usage - candidate.request;
    (over <= 0, candidate.priority, -over)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_upstreams() {
        let candidate = |usage, request, priority| Candidate { usage, request, priority };
        let mut all =
            [candidate(10, 20, 0), candidate(50, 20, 10), candidate(30, 20, 0), candidate(90, 20, 0)];
        all.sort_by_key(rank);
        let order: Vec<i64> = all.iter().map(|c| c.usage).collect();
        assert_eq!(order, [90, 30, 50, 10]);
    }

    #[test]
    fn limits_are_measured_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("v/deep")).unwrap();
        std::fs::write(dir.path().join("v/deep/f"), vec![1; 200_000]).unwrap();
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {}, "spec": {
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "100Ki"}}, {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1"}}],
            "containers": [{"name": "c", "resources": {"limits": {"ephemeral-storage": "1Mi"}}}]}}))
        .unwrap();
        let limits = limits(&pod);
        assert_eq!((limits.volumes.len(), limits.containers.len()), (1, 1));
        let none = HashMap::new();
        assert_eq!(
            over_limit(&limits, dir.path(), Path::new("/nonexistent"), &none).unwrap(),
            "Usage of EmptyDir volume \"v\" exceeds the limit \"100Ki\". "
        );
        let layers = HashMap::from([("c".to_owned(), 2 << 20)]);
        let message =
            over_limit(&limits, Path::new("/nonexistent"), Path::new("/nonexistent"), &layers).unwrap();
        assert_eq!(message, "Container c exceeded its local ephemeral storage limit \"1Mi\". ");
        assert_eq!(over_limit(&limits, Path::new("/nonexistent"), Path::new("/nonexistent"), &none), None);
    }
}
