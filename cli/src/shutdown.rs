//! The end of a node's containers when the machine goes down: each has its hook run, gets its stop signal and its pod's grace,
//! while the runtime still runs. Sidecars end after the others of their pod, critical pods after all others, as upstream's
//! graceful node shutdown has it. `keelson-shutdown.service` calls it after the kubelet has stopped, which would start them anew.
//! The pods stay the node's: with the next boot the kubelet starts what is to be restarted.

use anyhow::{Context as _, Result};
use futures::future::join_all;
use keelson_daemon::config::Config;
use keelson_kubelet::cri::api::{Container, ContainerState};
use keelson_kubelet::cri::{Cri, Ending};
use keelson_kubelet::hooks;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// The longest that a shutdown waits, and a pod's grace where it says none (upstream's `shutdownGracePeriod` has no default; this
/// leaves time within the unit's own limit).
const ALL: Duration = Duration::from_secs(30);
/// The part of a limit that is kept for critical pods, where there are any.
const CRITICAL: u32 = 3;
/// From this priority on a pod is critical.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;
/// A container whose hook used up its grace still has this long.
const LEAST: Duration = Duration::from_secs(2);

/// Ends them where the machine is going down; nothing else stops pods.
pub async fn work(config: &Config) -> Result<()> {
    // `is-system-running` fails for every state but "running".
    let state = std::process::Command::new("systemctl").arg("is-system-running").output();
    let state = state.context("systemd cannot be asked whether the machine goes down")?;
    if state.stdout.trim_ascii() != b"stopping" {
        return Ok(());
    }
    end_all(&Cri::new(&config.kubelet.cri_socket)?, config, ALL).await
}

/// Ends all containers of pods within `limit`.
pub async fn end_all(cri: &Cri, config: &Config, limit: Duration) -> Result<()> {
    let containers = cri.list_containers(None).await.context("the containers cannot be listed")?;
    let address = config.node.address.map(|address| address.to_string()).unwrap_or_default();
    let mut failed = Vec::new();
    for (pods, limit) in plan(&containers, limit) {
        let ended = join_all(pods.into_iter().map(|pod| end(cri, pod, limit, &address))).await;
        failed.extend(ended.into_iter().flatten());
    }
    anyhow::ensure!(failed.is_empty(), "some containers did not end: {}", failed.join("; "));
    Ok(())
}

/// A container that runs, and how it is to end.
#[derive(Clone, Debug, PartialEq)]
struct Ends {
    id: String,
    sandbox: String,
    how: Ending,
}

/// A pod's containers, in the order of their turns.
type PodEnds = Vec<Ends>;

/// The pods that end together, and how long they may take: the critical ones last.
fn plan(containers: &[Container], limit: Duration) -> Vec<(Vec<PodEnds>, Duration)> {
    let running = containers.iter().filter(|one| one.state() == ContainerState::ContainerRunning);
    let mut pods: BTreeMap<(bool, String), PodEnds> = BTreeMap::new();
    for container in running {
        let Some(how) = Ending::of(container) else { continue };
        let key = (how.priority >= CRITICAL_PRIORITY, how.pod_uid.clone());
        let ends = Ends { id: container.id.clone(), sandbox: container.pod_sandbox_id.clone(), how };
        pods.entry(key).or_default().push(ends);
    }
    for pod in pods.values_mut() {
        pod.sort_by_key(|one| one.how.turn);
    }
    let (critical, others): (Vec<_>, Vec<_>) = pods.into_iter().partition(|((critical, _), _)| *critical);
    let of = |pods: Vec<((bool, String), PodEnds)>| pods.into_iter().map(|(_, pod)| pod).collect::<Vec<_>>();
    let first = if critical.is_empty() { limit } else { limit - limit / CRITICAL };
    let last = if others.is_empty() { limit } else { limit / CRITICAL };
    [(of(others), first), (of(critical), last)].into_iter().filter(|(pods, _)| !pods.is_empty()).collect()
}

/// Ends a pod within its grace; those of one turn together. What did not end.
async fn end(cri: &Cri, pod: PodEnds, limit: Duration, node: &str) -> Vec<String> {
    let Some(first) = pod.first() else { return Vec::new() };
    let grace = first.how.grace.map_or(ALL, Duration::from_secs).min(limit);
    let begun = Instant::now();
    // The address is for hooks alone.
    let sandbox = match pod.iter().any(|one| one.how.hook().is_some()) {
        true => cri.sandbox_status(&first.sandbox).await.ok().flatten(),
        false => None,
    };
    let own = sandbox.as_ref().and_then(|sandbox| sandbox.ips.first()).cloned().unwrap_or_default();
    let address = if sandbox.is_some_and(|sandbox| sandbox.host_network) { node.to_owned() } else { own };
    let mut failed = Vec::new();
    for turn in pod.chunk_by(|one, other| one.how.turn == other.how.turn) {
        let left = grace.saturating_sub(begun.elapsed()).max(LEAST.min(grace));
        let ended = join_all(turn.iter().map(|one| stop(cri, one, left, &address))).await;
        failed.extend(ended.into_iter().filter_map(Result::err).map(|error| error.to_string()));
    }
    failed
}

async fn stop(
    cri: &Cri,
    one: &Ends,
    grace: Duration,
    address: &str,
) -> Result<(), keelson_kubelet::cri::CriError> {
    let begun = Instant::now();
    if let Some(hook) = one.how.hook().filter(|_| !grace.is_zero()) {
        let run = hooks::run(cri, hook, &one.how.container, &one.id, address);
        if let Ok(Err(error)) = tokio::time::timeout(grace, run).await {
            tracing::warn!(container = one.how.container.name, %error, "PreStopHook failed");
        }
    }
    cri.stop_container(&one.id, grace.saturating_sub(begun.elapsed()).max(LEAST.min(grace))).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use keelson_kubelet::cri::{CONTAINER_NAME, POD_UID};

    fn container(name: &str, pod: &str, annotations: &[(&str, &str)]) -> Container {
        let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        Container {
            id: name.to_owned(),
            state: ContainerState::ContainerRunning.into(),
            labels: [label(POD_UID, pod), label(CONTAINER_NAME, name)].into(),
            annotations: annotations.iter().map(text).collect(),
            ..Container::default()
        }
    }

    /// The names of what ends together, pod by pod, and the limits in seconds.
    fn planned(containers: &[Container]) -> Vec<(Vec<Vec<String>>, u64)> {
        let names = |pod: PodEnds| pod.into_iter().map(|one| one.id).collect();
        let group = |(pods, limit): (Vec<PodEnds>, Duration)| {
            (pods.into_iter().map(names).collect(), limit.as_secs())
        };
        plan(containers, ALL).into_iter().map(group).collect()
    }

    #[test]
    fn critical_pods_end_last_and_sidecars_after_the_others() {
        let critical = ("keelson.dev/priority", "2000000000");
        let turn = |turn| ("keelson.dev/ends-in-turn", turn);
        let all = [
            container("sidecar", "a", &[turn("2")]),
            container("late", "a", &[turn("1")]),
            container("main", "a", &[]),
            container("dns", "b", &[critical]),
            container("other", "c", &[("keelson.dev/priority", "1000")]),
        ];
        let groups = vec![
            (vec![vec!["main".into(), "late".into(), "sidecar".into()], vec!["other".into()]], 20),
            (vec![vec!["dns".into()]], 10),
        ];
        assert_eq!(planned(&all), groups);
        assert_eq!(planned(&all[4..]), [(vec![vec!["other".to_owned()]], 30)]);
        assert_eq!(planned(&all[3..4]), [(vec![vec!["dns".to_owned()]], 30)]);
    }

    #[test]
    fn what_is_no_pods_or_has_ended_stays() {
        let mut ended = container("ended", "a", &[]);
        ended.state = ContainerState::ContainerExited.into();
        let mut foreign = container("foreign", "b", &[]);
        foreign.labels.clear();
        assert_eq!(planned(&[ended, foreign]), []);
    }
}
