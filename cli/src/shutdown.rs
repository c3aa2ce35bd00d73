//! The end of a node's containers when the machine goes down: each gets its stop signal and its pod's grace, while the runtime
//! still runs. `keelson-shutdown.service` calls it after the kubelet has stopped, which would start them anew. The pods stay
//! the node's: with the next boot the kubelet starts what is to be restarted.

use anyhow::{Context as _, Result};
use futures::future::join_all;
use keelson_daemon::config::Config;
use keelson_kubelet::cri::api::{Container, ContainerState};
use keelson_kubelet::cri::{Cri, POD_UID};
use std::time::Duration;

/// A pod's grace where it says none, and the longest that a shutdown waits (upstream's `shutdownGracePeriod` has no default;
/// this leaves time within the unit's own limit).
const GRACE: Duration = Duration::from_secs(30);
/// Where the kubelet notes a pod's grace.
const NOTED: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Ends them where the machine is going down; nothing else stops pods.
pub async fn work(config: &Config) -> Result<()> {
    // `is-system-running` fails for every state but "running".
    let state = std::process::Command::new("systemctl").arg("is-system-running").output();
    let state = state.context("systemd cannot be asked whether the machine goes down")?;
    if state.stdout.trim_ascii() != b"stopping" {
        return Ok(());
    }
    let cri = Cri::new(&config.kubelet.cri_socket)?;
    let containers = cri.list_containers(None).await.context("the containers cannot be listed")?;
    let ours = containers.iter().filter(|one| runs(one));
    let ended = join_all(ours.map(|one| cri.stop_container(&one.id, grace(one)))).await;
    let failed: Vec<String> =
        ended.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
    anyhow::ensure!(failed.is_empty(), "some containers did not end: {}", failed.join("; "));
    Ok(())
}

/// A container of a pod's that runs.
fn runs(container: &Container) -> bool {
    container.state() == ContainerState::ContainerRunning && container.labels.contains_key(POD_UID)
}

fn grace(container: &Container) -> Duration {
    let noted = container.annotations.get(NOTED).and_then(|text| text.parse().ok());
    noted.map_or(GRACE, Duration::from_secs).min(GRACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_containers_get_their_grace_within_the_limit() {
        let container = |grace: &str, pod: bool, state: ContainerState| {
            let mut container = Container { state: state.into(), ..Container::default() };
            container.annotations.insert(NOTED.to_owned(), grace.to_owned());
            if pod {
                container.labels.insert(POD_UID.to_owned(), "u".to_owned());
            }
            container
        };
        for (text, seconds) in [("5", 5), ("600", 30), ("0", 0), ("", 30)] {
            let one = container(text, true, ContainerState::ContainerRunning);
            assert_eq!(grace(&one), Duration::from_secs(seconds), "{text:?}");
            assert!(runs(&one));
        }
        assert!(!runs(&container("5", true, ContainerState::ContainerExited)));
        assert!(!runs(&container("5", false, ContainerState::ContainerRunning)), "somebody else's");
    }
}
