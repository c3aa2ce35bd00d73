//! Probes: one task per probe of a container, results by container id. The rules of when to probe, what to start
//! from and when to stop follow upstream's `prober.worker`.
mod grpc;
pub mod http;

use crate::cri::Cri;
use crate::events::{Events, Severity};
use crate::plan::observed::{Outcome, ProbeResults};
use crate::plan::pod;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Which of a container's three probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    fn name(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }

    /// What holds before the first settled result; a startup probe has none.
    fn initial(self) -> Option<Outcome> {
        match self {
            ProbeKind::Startup => None,
            ProbeKind::Liveness => Some(Outcome::Success),
            ProbeKind::Readiness => Some(Outcome::Failure),
        }
    }
}

/// The container as a probe sees it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Target {
    /// Empty while there is none.
    id: String,
    running: bool,
    started: bool,
    /// Seconds since 1970.
    started_at: i64,
    ip: String,
    /// It ran before this kubelet did.
    adopted: bool,
    /// The pod is being stopped.
    ending: bool,
}

struct Task {
    target: watch::Sender<Target>,
    handle: tokio::task::JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// What probing needs of the kubelet.
#[derive(Clone)]
pub struct ProbeTools {
    pub cri: Cri,
    pub events: Events,
    /// When this kubelet started (seconds since 1970).
    pub kubelet_start: i64,
}

/// The probes of one pod; dropped with its worker.
pub struct PodProbes {
    tools: ProbeTools,
    wake: Arc<Notify>,
    results: Arc<Mutex<ProbeResults>>,
    tasks: HashMap<(String, ProbeKind), Task>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl PodProbes {
    /// `wake` is told whenever a result changes.
    pub fn new(tools: ProbeTools, wake: Arc<Notify>) -> Self {
        PodProbes { tools, wake, results: Arc::default(), tasks: HashMap::new() }
    }

    pub fn results(&self) -> ProbeResults {
        lock(&self.results).clone()
    }

    /// Tells the probes what became of their containers; starts those that are missing.
    pub fn update(&mut self, pod: &Arc<Pod>, status: &PodStatus, ending: bool) {
        let sidecars = pod::init_containers(pod).iter().filter(|c| pod::is_sidecar(c));
        for container in pod::containers(pod).iter().chain(sidecars) {
            let all = status
                .container_statuses
                .iter()
                .flatten()
                .chain(status.init_container_statuses.iter().flatten());
            let found = all.into_iter().find(|s| s.name == container.name);
            let target = self.target(found, status, ending);
            for (kind, probe) in [
                (ProbeKind::Startup, &container.startup_probe),
                (ProbeKind::Liveness, &container.liveness_probe),
                (ProbeKind::Readiness, &container.readiness_probe),
            ] {
                let Some(probe) = probe else { continue };
                let key = (container.name.clone(), kind);
                match self.tasks.get(&key) {
                    Some(task) => {
                        task.target.send_if_modified(|now| {
                            let changed = *now != target;
                            *now = target.clone();
                            changed
                        });
                    }
                    None if !target.id.is_empty() => {
                        self.seed(kind, &target);
                        let task = self.start(pod, container, kind, probe, target.clone());
                        self.tasks.insert(key, task);
                    }
                    None => {}
                }
            }
        }
        let known: Vec<&str> = status
            .container_statuses
            .iter()
            .flatten()
            .chain(status.init_container_statuses.iter().flatten())
            .filter_map(|s| Some(s.container_id.as_deref()?.split_once("://")?.1))
            .collect();
        lock(&self.results).retain(|id, _| known.contains(&id.as_str()));
    }

    /// A startup probe that had succeeded before this kubelet started needs not succeed again.
    fn seed(&self, kind: ProbeKind, target: &Target) {
        if kind == ProbeKind::Startup && target.adopted && target.started {
            set(&self.results, &target.id, kind, Some(Outcome::Success));
        }
    }

    fn target(&self, status: Option<&ContainerStatus>, pod: &PodStatus, ending: bool) -> Target {
        let Some(status) = status else { return Target::default() };
        let id = status.container_id.as_deref().and_then(|id| id.split_once("://")).map_or("", |(_, id)| id);
        let running = status.state.as_ref().and_then(|s| s.running.as_ref());
        let started_at = running.and_then(|r| r.started_at.as_ref()).map_or(0, |t| t.0.as_second());
        Target {
            id: id.to_owned(),
            running: running.is_some(),
            started: status.started == Some(true),
            started_at,
            ip: pod.pod_ip.clone().unwrap_or_default(),
            adopted: started_at > 0 && started_at < self.tools.kubelet_start,
            ending,
        }
    }

    fn start(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        kind: ProbeKind,
        probe: &Probe,
        target: Target,
    ) -> Task {
        let (sender, receiver) = watch::channel(target);
        let run = Run {
            pod: pod.clone(),
            container: container.clone(),
            kind,
            probe: probe.clone(),
            tools: self.tools.clone(),
            results: self.results.clone(),
            wake: self.wake.clone(),
            target: receiver,
        };
        Task { target: sender, handle: tokio::spawn(run.run()) }
    }
}

/// Sets a result; says whether it changed.
fn set(results: &Mutex<ProbeResults>, id: &str, kind: ProbeKind, outcome: Option<Outcome>) -> bool {
    let mut results = lock(results);
    let entry = results.entry(id.to_owned()).or_default();
    let slot = match kind {
        ProbeKind::Startup => &mut entry.startup,
        ProbeKind::Liveness => &mut entry.liveness,
        ProbeKind::Readiness => &mut entry.readiness,
    };
    let changed = *slot != outcome;
    *slot = outcome;
    changed
}

struct Run {
    pod: Arc<Pod>,
    container: Container,
    kind: ProbeKind,
    probe: Probe,
    tools: ProbeTools,
    results: Arc<Mutex<ProbeResults>>,
    wake: Arc<Notify>,
    target: watch::Receiver<Target>,
}

/// Counts equal results in a row.
#[derive(Default)]
struct Streak {
    last: Option<Outcome>,
    length: i32,
}

impl Streak {
    /// Whether `outcome` has now come often enough to count.
    fn settles(&mut self, outcome: Outcome, probe: &Probe) -> bool {
        self.length = if self.last == Some(outcome) { self.length.saturating_add(1) } else { 1 };
        self.last = Some(outcome);
        let needed = match outcome {
            Outcome::Success => probe.success_threshold.unwrap_or(1),
            Outcome::Failure => probe.failure_threshold.unwrap_or(3),
        };
        self.length >= needed.max(1)
    }
}

impl Run {
    async fn run(mut self) {
        let period =
            Duration::from_secs(u64::try_from(self.probe.period_seconds.unwrap_or(10)).unwrap_or(10).max(1));
        let mut seen = String::new();
        let mut streak = Streak::default();
        let mut hold = false;
        // Whom this kubelet found running it does not probe all at once.
        if self.target.borrow().adopted {
            let spread = period.mul_f64(rand::random::<f64>());
            tokio::time::sleep(spread).await;
        }
        loop {
            let target = self.target.borrow_and_update().clone();
            if target.id != seen {
                seen = target.id.clone();
                streak = Streak::default();
                hold = false;
                if !seen.is_empty() && !target.adopted {
                    self.tell(&target.id, self.kind.initial());
                }
            }
            let begun = Instant::now();
            if self.may_probe(&target, hold) {
                if let Some(outcome) = self.attempt(&target).await
                    && streak.settles(outcome, &self.probe)
                {
                    self.tell(&target.id, Some(outcome));
                    hold = (self.kind == ProbeKind::Liveness && outcome == Outcome::Failure)
                        || self.kind == ProbeKind::Startup;
                }
            } else if !seen.is_empty() && !target.running {
                self.tell(&target.id, Some(Outcome::Failure));
            } else if target.ending && self.kind != ProbeKind::Readiness {
                self.tell(&target.id, Some(Outcome::Success));
                return;
            }
            let wait = self.next_wait(&target, hold, period).saturating_sub(begun.elapsed());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = self.target.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Whether the initial delay is over.
    fn due(&self, target: &Target) -> bool {
        let delay = i64::from(self.probe.initial_delay_seconds.unwrap_or(0));
        jiff::Timestamp::now().as_second() - target.started_at >= delay
    }

    fn may_probe(&self, target: &Target, hold: bool) -> bool {
        let gated = if self.kind == ProbeKind::Startup { target.started } else { !target.started };
        let ending = target.ending && self.kind != ProbeKind::Readiness;
        !hold && target.running && !gated && !ending && self.due(target)
    }

    /// Nothing to do until the target changes: sleep long. Else the period, or what is left of the initial delay.
    fn next_wait(&self, target: &Target, hold: bool, period: Duration) -> Duration {
        const LONG: Duration = Duration::from_secs(3600);
        let gated = if self.kind == ProbeKind::Startup { target.started } else { !target.started };
        if hold || !target.running || gated {
            return LONG;
        }
        let delay = i64::from(self.probe.initial_delay_seconds.unwrap_or(0));
        let left = target.started_at + delay - jiff::Timestamp::now().as_second();
        if left > 0 { Duration::from_secs(left.unsigned_abs()) } else { period }
    }

    fn tell(&self, id: &str, outcome: Option<Outcome>) {
        if set(&self.results, id, self.kind, outcome) {
            self.wake.notify_one();
        }
    }

    /// One probe, tried up to three times where it could not be made at all. `None`: no result.
    async fn attempt(&self, target: &Target) -> Option<Outcome> {
        let limit =
            Duration::from_secs(u64::try_from(self.probe.timeout_seconds.unwrap_or(1)).unwrap_or(1).max(1));
        let mut verdict = Err("not probed".to_owned());
        for _ in 0..3 {
            verdict = self.once(target, limit).await;
            if verdict.is_ok() {
                break;
            }
        }
        match verdict {
            Ok(Verdict::Success) => Some(Outcome::Success),
            Ok(Verdict::Failure(why)) => {
                let message = format!("{} probe failed: {why}", self.kind.name());
                let name = &self.container.name;
                self.tools.events.container(&self.pod, name, Severity::Warning, "Unhealthy", message);
                Some(Outcome::Failure)
            }
            Err(error) => {
                let message =
                    format!("{} probe errored and resulted in unknown state: {error}", self.kind.name());
                let name = &self.container.name;
                self.tools.events.container(&self.pod, name, Severity::Warning, "Unhealthy", message);
                None
            }
        }
    }

    async fn once(&self, target: &Target, limit: Duration) -> Result<Verdict, String> {
        if let Some(exec) = &self.probe.exec {
            let command = exec.command.clone().unwrap_or_default();
            return exec_probe(&self.tools.cri, &target.id, command, limit).await;
        }
        if let Some(get) = &self.probe.http_get {
            let request = http::Request::of(get, &self.container, &target.ip)?;
            return Ok(match http::get(&request, limit).await {
                Ok(answer) if (200..400).contains(&answer.status) => Verdict::Success,
                Ok(answer) => {
                    Verdict::Failure(format!("HTTP probe failed with statuscode: {}", answer.status))
                }
                Err(error) => Verdict::Failure(error.to_string()),
            });
        }
        if let Some(socket) = &self.probe.tcp_socket {
            let port = http::port(&socket.port, &self.container)?;
            let host = socket.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(&target.ip);
            return Ok(
                match tokio::time::timeout(limit, tokio::net::TcpStream::connect((host, port))).await {
                    Ok(Ok(_)) => Verdict::Success,
                    Ok(Err(error)) => Verdict::Failure(format!("dial tcp {host}:{port}: {error}")),
                    Err(_) => Verdict::Failure(format!("dial tcp {host}:{port}: i/o timeout")),
                },
            );
        }
        if let Some(check) = &self.probe.grpc {
            let port = http::port(&IntOrString::Int(check.port), &self.container)?;
            return Ok(grpc::check(&target.ip, port, check.service.as_deref().unwrap_or(""), limit).await);
        }
        Err("the probe names no handler".into())
    }
}

/// How one probe went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Success,
    Failure(String),
}

async fn exec_probe(cri: &Cri, id: &str, command: Vec<String>, limit: Duration) -> Result<Verdict, String> {
    match tokio::time::timeout(limit + Duration::from_secs(5), cri.exec_sync(id, command, limit)).await {
        Ok(Ok(answer)) if answer.exit_code == 0 => Ok(Verdict::Success),
        Ok(Ok(answer)) => {
            let mut output = answer.stdout;
            output.extend_from_slice(&answer.stderr);
            output.truncate(10 << 10);
            Ok(Verdict::Failure(String::from_utf8_lossy(&output).into_owned()))
        }
        Ok(Err(error)) if error.code() == Some(tonic::Code::DeadlineExceeded) => {
            Ok(Verdict::Failure(format!("command timed out after {}s", limit.as_secs())))
        }
        Ok(Err(error)) => Err(error.runtime_message()),
        Err(_) => Ok(Verdict::Failure(format!("command timed out after {}s", limit.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_need_results_in_a_row() {
        let probe = Probe { failure_threshold: Some(3), success_threshold: Some(2), ..Probe::default() };
        let mut streak = Streak::default();
        let mut settle = |outcome| streak.settles(outcome, &probe);
        assert!(!settle(Outcome::Failure) && !settle(Outcome::Failure));
        assert!(!settle(Outcome::Success), "the row was broken");
        assert!(!settle(Outcome::Failure) && !settle(Outcome::Failure) && settle(Outcome::Failure));
        assert!(!settle(Outcome::Success) && settle(Outcome::Success) && settle(Outcome::Success));
    }
}
