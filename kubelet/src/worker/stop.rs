//! Ending containers: hooks, grace, order; and a pod as a whole.
use super::Want;
use super::actor::Worker;
use crate::cri::CriError;
use crate::events::Severity;
use crate::hooks;
use crate::plan::observed::{ObservedContainer, RunState};
use crate::plan::{Kill, KillReason, pod};
use k8s_openapi::api::core::v1::Container;
use std::collections::HashSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A container whose hook used up its grace still has this long.
const MIN_GRACE: Duration = Duration::from_secs(2);
/// After so many tries dead containers of a pod that is gone are left to the collector.
const REMOVALS: usize = 5;

impl Worker {
    /// Stops one container that is to be replaced.
    pub(super) async fn kill(&mut self, kill: &Kill) -> Result<(), CriError> {
        let container = pod::container(&self.pod, kill.container);
        let grace = self.kill_grace(kill, container.as_ref());
        self.kubelet.events.container(
            &self.pod,
            &kill.name,
            Severity::Normal,
            "Killing",
            kill.message.clone(),
        );
        self.stop_container(&kill.id, container.as_ref(), grace).await
    }

    fn kill_grace(&self, kill: &Kill, container: Option<&Container>) -> Duration {
        let probe = match kill.reason {
            KillReason::LivenessProbe => container.and_then(|c| c.liveness_probe.as_ref()),
            KillReason::StartupProbe => container.and_then(|c| c.startup_probe.as_ref()),
            _ => None,
        };
        let seconds =
            probe.and_then(|p| p.termination_grace_period_seconds).unwrap_or(pod::grace_seconds(&self.pod));
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1))
    }

    /// Runs the hook before the end, then stops; both within the grace.
    async fn stop_container(
        &self,
        id: &str,
        container: Option<&Container>,
        grace: Duration,
    ) -> Result<(), CriError> {
        let begun = Instant::now();
        let hook = container.and_then(|c| c.lifecycle.as_ref()).and_then(|l| l.pre_stop.as_ref());
        if let (Some(hook), Some(container)) = (hook, container)
            && grace > Duration::ZERO
        {
            let ip = self.observed.ips().first().cloned().unwrap_or_default();
            let ip = if pod::host_network(&self.pod) {
                self.kubelet.host_ips.first().cloned().unwrap_or_default()
            } else {
                ip
            };
            let run = hooks::run(&self.kubelet.cri, hook, container, id, &ip);
            match tokio::time::timeout(grace, run).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let message = format!("PreStopHook failed: {error}");
                    let name = &container.name;
                    self.kubelet.events.container(
                        &self.pod,
                        name,
                        Severity::Warning,
                        "FailedPreStopHook",
                        message,
                    );
                }
                Err(_) => tracing::debug!(pod = pod::name(&self.pod), "pre-stop hook outlived the grace"),
            }
        }
        let left = grace.saturating_sub(begun.elapsed()).max(MIN_GRACE.min(grace));
        self.kubelet.cri.stop_container(id, left).await
    }

    /// Grace for the whole pod: the API's word, else the spec's, at least one second.
    fn pod_grace(&self) -> Duration {
        if self.eviction().is_some() {
            return Duration::from_secs(1);
        }
        Duration::from_secs(u64::try_from(pod::grace_seconds(&self.pod)).unwrap_or(0).max(1))
    }

    /// Stops all containers, main ones first, sidecars after them in reverse order, then the sandboxes. A shorter
    /// grace that arrives meanwhile counts at once.
    pub(super) async fn stop_everything(&mut self, want: &mut watch::Receiver<Want>) -> Result<(), CriError> {
        loop {
            let grace = self.pod_grace();
            let done = tokio::select! {
                result = self.stop_containers(grace) => Some(result),
                shorter = shorter_grace(want, grace) => {
                    if let Some(pod) = shorter {
                        self.pod = pod;
                    }
                    None
                }
            };
            if let Some(result) = done {
                result?;
                break;
            }
        }
        for sandbox in self.observed.sandboxes.iter().filter(|s| s.ready) {
            self.kubelet.cri.stop_sandbox(&sandbox.id).await?;
        }
        Ok(())
    }

    async fn stop_containers(&self, grace: Duration) -> Result<(), CriError> {
        let begun = Instant::now();
        let alive = |c: &&ObservedContainer| matches!(c.state, RunState::Running | RunState::Unknown);
        let is_sidecar =
            |name: &str| pod::init_containers(&self.pod).iter().any(|c| c.name == name && pod::is_sidecar(c));
        let running: Vec<&ObservedContainer> = self.observed.containers.iter().filter(alive).collect();
        let (mut sidecars, main): (Vec<_>, Vec<_>) = running.into_iter().partition(|c| is_sidecar(&c.name));
        let stops = main.into_iter().map(|container| self.stop_for_end(container, grace));
        for result in futures::future::join_all(stops).await {
            result?;
        }
        let position = |name: &str| pod::init_containers(&self.pod).iter().position(|c| c.name == name);
        sidecars.sort_by_key(|c| std::cmp::Reverse(position(&c.name)));
        for container in sidecars {
            let left = grace.saturating_sub(begun.elapsed()).max(MIN_GRACE.min(grace));
            self.stop_for_end(container, left).await?;
        }
        Ok(())
    }

    async fn stop_for_end(&self, container: &ObservedContainer, grace: Duration) -> Result<(), CriError> {
        let definition = pod::find(&self.pod, &container.name).and_then(|r| pod::container(&self.pod, r));
        let message = format!("Stopping container {}", container.name);
        self.kubelet.events.container(&self.pod, &container.name, Severity::Normal, "Killing", message);
        self.stop_container(&container.id, definition.as_ref(), grace).await
    }

    /// Removes dead containers and sandboxes from the runtime. What does not go stays observed, to be tried again, and is
    /// collected later in any case.
    pub(super) async fn remove_containers(&mut self) {
        let mut stay = HashSet::new();
        for container in self.observed.containers.iter().filter(|c| c.state != RunState::Running) {
            if let Err(error) = self.kubelet.cri.remove_container(&container.id).await {
                tracing::debug!(container = container.id, error = %error, "container was not removed");
                stay.insert(container.id.clone());
            }
        }
        for sandbox in self.observed.sandboxes.iter().filter(|s| !s.ready) {
            if let Err(error) = self.kubelet.cri.remove_sandbox(&sandbox.id).await {
                tracing::debug!(sandbox = sandbox.id, error = %error, "sandbox was not removed");
                stay.insert(sandbox.id.clone());
            }
        }
        self.observed.containers.retain(|c| c.state == RunState::Running || stay.contains(&c.id));
        self.observed.sandboxes.retain(|s| s.ready || stay.contains(&s.id));
    }

    /// As [`Worker::remove_containers`], a few times while something stays: a busy runtime refuses now and then.
    pub(super) async fn remove_all(&mut self) {
        for _ in 0..REMOVALS {
            self.remove_containers().await;
            if self.observed.containers.is_empty() && self.observed.sandboxes.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// Resolves when the pod shall end sooner than `grace`.
async fn shorter_grace(
    want: &mut watch::Receiver<Want>,
    grace: Duration,
) -> Option<std::sync::Arc<k8s_openapi::api::core::v1::Pod>> {
    loop {
        if want.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        let wanted = want.borrow_and_update().clone();
        let pod = match wanted {
            Want::Run { pod, .. } => pod,
            // Force-deleted: the caller stops with what grace the pod last had; the API says no less.
            Want::Gone => continue,
        };
        let asked = Duration::from_secs(u64::try_from(pod::grace_seconds(&pod)).unwrap_or(0).max(1));
        if pod::is_deleted(&pod) && asked < grace {
            return Some(pod);
        }
    }
}
