//! The decisions of the kubelet, pure: what to do with a pod ([`plan`]), what its status says ([`status`]),
//! which fields are honoured ([`fields`]). No tokio, no clock, no entropy, no client: pod, observation and time are
//! arguments. The order of rules follows upstream's `computePodActions`, because pods' observable life does.
pub mod backoff;
pub mod fields;
pub mod hash;
pub mod observed;
pub mod pod;
pub mod qos;
pub mod quantity;
pub mod status;

#[cfg(test)]
mod golden_tests;

use backoff::Backoff;
use k8s_openapi::api::core::v1::{Container, Pod};
use observed::{ObservedContainer, ObservedPod, Outcome, ProbeResults, RunState};
use pod::{ContainerRef, Kind};
use std::time::Duration;

/// Why a running container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    DefinitionChanged,
    LivenessProbe,
    StartupProbe,
    UnknownState,
}

/// A container to stop.
#[derive(Clone, Debug, PartialEq)]
pub struct Kill {
    pub id: String,
    pub name: String,
    pub container: ContainerRef,
    pub reason: KillReason,
    pub message: String,
}

/// A container to create and start.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    pub container: ContainerRef,
    pub name: String,
    /// Number of the attempt: the restart count the new container gets.
    pub attempt: u32,
    /// It is not started before this has passed (restart back-off).
    pub wait: Option<Duration>,
}

/// What to do with the pod's sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxAction {
    /// The ready sandbox is used.
    Keep { id: String },
    /// All that is left of the pod is stopped, then a new sandbox is made.
    Create { attempt: u32 },
    /// The pod is done: containers and sandbox are stopped, nothing is started.
    Stop,
}

/// The next steps for one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub sandbox: SandboxAction,
    pub kill: Vec<Kill>,
    pub start: Vec<Start>,
}

/// The kubelet's key for a container's restart back-off: a changed definition starts over.
pub fn backoff_key(pod: &Pod, container: &Container) -> String {
    format!("{}/{}/{}", pod::uid(pod), container.name, hash::container_hash(container))
}

/// Whether a new sandbox is needed, and the attempt it would have.
pub fn sandbox_changed(pod: &Pod, observed: &ObservedPod) -> (bool, u32) {
    let Some(newest) = observed.sandboxes.first() else { return (true, 0) };
    let ready = observed.sandboxes.iter().filter(|s| s.ready).count();
    let changed = ready > 1
        || !newest.ready
        || newest.host_network != pod::host_network(pod)
        || (!pod::host_network(pod) && newest.ips.is_empty());
    (changed, if changed { newest.attempt + 1 } else { newest.attempt })
}

/// Decides the next steps. `now` is wall time in nanoseconds since 1970, as container times are.
pub fn plan(pod: &Pod, observed: &ObservedPod, probes: &ProbeResults, backoff: &Backoff, now: i64) -> Plan {
    let planner = Planner { pod, observed, probes, backoff, now };
    let (changed, attempt) = sandbox_changed(pod, observed);
    if changed { planner.new_sandbox(attempt) } else { planner.existing_sandbox() }
}

struct Planner<'a> {
    pod: &'a Pod,
    observed: &'a ObservedPod,
    probes: &'a ProbeResults,
    backoff: &'a Backoff,
    now: i64,
}

impl Planner<'_> {
    fn new_sandbox(&self, attempt: u32) -> Plan {
        let stop = Plan { sandbox: SandboxAction::Stop, kill: vec![], start: vec![] };
        let any_restarts = pod::restart_policy(self.pod) != "Never"
            || pod::containers(self.pod).iter().any(|c| pod::restarts_on_failure(self.pod, c));
        if !any_restarts && attempt != 0 && !self.observed.containers.is_empty() {
            return stop;
        }
        let mut start = Vec::new();
        for (index, container) in pod::containers(self.pod).iter().enumerate() {
            let once =
                container.restart_policy.as_deref().unwrap_or(pod::restart_policy(self.pod)) == "OnFailure";
            let succeeded = self
                .observed
                .latest(&container.name)
                .is_some_and(|c| c.state == RunState::Exited && c.exit_code == 0);
            if !(once && succeeded) {
                start.push(self.start(ContainerRef { kind: Kind::Main, index }, container));
            }
        }
        if start.is_empty() && self.any_main_created() {
            return stop;
        }
        if let Some(first) = pod::init_containers(self.pod).first() {
            start = vec![self.start(ContainerRef { kind: Kind::Init, index: 0 }, first)];
        }
        Plan { sandbox: SandboxAction::Create { attempt }, kill: vec![], start }
    }

    fn existing_sandbox(&self) -> Plan {
        let id = self.observed.sandboxes.first().map(|s| s.id.clone()).unwrap_or_default();
        let mut kill = Vec::new();
        let mut start = Vec::new();
        for (index, container) in pod::ephemeral_containers(self.pod).iter().enumerate() {
            if self.observed.latest(&container.name).is_none() {
                let reference = ContainerRef { kind: Kind::Ephemeral, index };
                start.push(self.start(reference, &pod::ephemeral_as_container(container)));
            }
        }
        let initialised = match self.init_containers(&mut kill) {
            Init::Failed => return Plan { sandbox: SandboxAction::Stop, kill: vec![], start: vec![] },
            Init::Progress { starts, done } => {
                start.extend(starts);
                done
            }
        };
        if initialised && !self.main_containers(&mut kill, &mut start) {
            return Plan { sandbox: SandboxAction::Stop, kill: vec![], start: vec![] };
        }
        Plan { sandbox: SandboxAction::Keep { id }, kill, start }
    }

    /// Adds the steps for the main containers; false when none runs and none will.
    fn main_containers(&self, kill: &mut Vec<Kill>, start: &mut Vec<Start>) -> bool {
        let mut keep = 0;
        let mut starting = 0;
        for (index, container) in pod::containers(self.pod).iter().enumerate() {
            let reference = ContainerRef { kind: Kind::Main, index };
            let Some(current) = self.observed.latest(&container.name) else {
                if !pod::is_deleted(self.pod) {
                    start.push(self.start(reference, container));
                    starting += 1;
                }
                continue;
            };
            if current.state != RunState::Running {
                if should_be_restarted(self.pod, container, Some(current)) {
                    if current.state == RunState::Unknown {
                        kill.push(self.kill(current, reference, KillReason::UnknownState, "Container"));
                    }
                    start.push(self.start(reference, container));
                    starting += 1;
                }
                continue;
            }
            let mut restart = pod::restarts_on_failure(self.pod, container);
            let reason = if !current.hash.is_empty() && current.hash != hash::container_hash(container) {
                restart = true;
                KillReason::DefinitionChanged
            } else if self.outcome(current).liveness == Some(Outcome::Failure) {
                KillReason::LivenessProbe
            } else if self.outcome(current).startup == Some(Outcome::Failure) {
                KillReason::StartupProbe
            } else {
                keep += 1;
                continue;
            };
            let mut step = self.kill(current, reference, reason, "Container");
            if restart {
                step.message.push_str(", will be restarted");
                start.push(self.start(reference, container));
                starting += 1;
            }
            kill.push(step);
        }
        keep + starting > 0
    }

    /// Upstream walks the init containers backwards, because completed ones may be gone from the runtime.
    fn init_containers(&self, kill: &mut Vec<Kill>) -> Init {
        let init = pod::init_containers(self.pod);
        if init.is_empty() {
            return Init::Progress { starts: vec![], done: true };
        }
        let main_started = pod::containers(self.pod).iter().any(|c| {
            self.observed
                .latest(&c.name)
                .is_some_and(|s| matches!(s.state, RunState::Created | RunState::Running))
        });
        let mut done = main_started;
        let mut seen_later = main_started;
        let mut indices = Vec::new();
        for (index, container) in init.iter().enumerate().rev() {
            let reference = ContainerRef { kind: Kind::Init, index };
            let sidecar = pod::is_sidecar(container);
            let Some(current) = self.observed.latest(&container.name) else {
                if seen_later && sidecar {
                    indices.push(index);
                }
                continue;
            };
            if seen_later && !sidecar {
                continue;
            }
            let last = index + 1 == init.len();
            match (current.state, sidecar) {
                (RunState::Created, _) => indices.push(index),
                (RunState::Running, false) => {}
                (RunState::Running, true) => match self.sidecar(container, current, reference) {
                    Sidecar::Wait => {}
                    Sidecar::Replace(step) => {
                        kill.push(step);
                        indices.push(index);
                    }
                    Sidecar::Started(replace) => {
                        if last {
                            done = true;
                        } else if !seen_later {
                            indices.push(index + 1);
                        }
                        if let Some(step) = replace {
                            kill.push(step);
                            indices.push(index);
                        }
                    }
                },
                (RunState::Exited, true) => indices.push(index),
                (RunState::Exited, false) if current.exit_code == 0 => {
                    if last {
                        done = true;
                    } else {
                        indices.push(index + 1);
                    }
                }
                (RunState::Exited, false) => {
                    if !should_be_restarted(self.pod, container, Some(current)) {
                        return Init::Failed;
                    }
                    indices.push(index);
                }
                (RunState::Unknown, sidecar) => {
                    if !sidecar && !pod::restarts_on_failure(self.pod, container) {
                        return Init::Failed;
                    }
                    kill.push(self.kill(current, reference, KillReason::UnknownState, "Init container"));
                    indices.push(index);
                }
            }
            seen_later = true;
        }
        if !seen_later {
            indices.push(0);
        }
        indices.sort_unstable();
        indices.dedup();
        let starts = indices
            .into_iter()
            .map(|index| self.start(ContainerRef { kind: Kind::Init, index }, &init[index]))
            .collect();
        Init::Progress { starts, done }
    }

    fn sidecar(
        &self,
        container: &Container,
        current: &ObservedContainer,
        reference: ContainerRef,
    ) -> Sidecar {
        let outcome = self.outcome(current);
        if container.startup_probe.is_some() {
            match outcome.startup {
                None => return Sidecar::Wait,
                Some(Outcome::Failure) => {
                    return Sidecar::Replace(self.kill(
                        current,
                        reference,
                        KillReason::StartupProbe,
                        "Init container",
                    ));
                }
                Some(Outcome::Success) => {}
            }
        }
        let replace = if !current.hash.is_empty() && current.hash != hash::container_hash(container) {
            Some(KillReason::DefinitionChanged)
        } else if outcome.liveness == Some(Outcome::Failure) {
            Some(KillReason::LivenessProbe)
        } else {
            None
        };
        Sidecar::Started(replace.map(|reason| self.kill(current, reference, reason, "Init container")))
    }

    fn outcome(&self, container: &ObservedContainer) -> observed::ContainerProbes {
        self.probes.get(&container.id).copied().unwrap_or_default()
    }

    fn any_main_created(&self) -> bool {
        pod::containers(self.pod).iter().any(|c| self.observed.latest(&c.name).is_some())
    }

    fn kill(
        &self,
        current: &ObservedContainer,
        container: ContainerRef,
        reason: KillReason,
        what: &str,
    ) -> Kill {
        let name = &current.name;
        let message = match reason {
            KillReason::DefinitionChanged => format!("{what} {name} definition changed"),
            KillReason::LivenessProbe => format!("{what} {name} failed liveness probe"),
            KillReason::StartupProbe => format!("{what} {name} failed startup probe"),
            KillReason::UnknownState => {
                format!("{what} is in \"unknown\" state, try killing it before restart")
            }
        };
        Kill { id: current.id.clone(), name: name.clone(), container, reason, message }
    }

    fn start(&self, reference: ContainerRef, container: &Container) -> Start {
        let latest = self.observed.latest(&container.name);
        let attempt = latest.map_or(self.previous_attempt(&container.name), |c| c.restart_count + 1);
        let ended = latest.filter(|c| c.state == RunState::Exited).map(|c| c.finished_at);
        let wait =
            ended.and_then(|at| self.backoff.remaining(&backoff_key(self.pod, container), at, self.now));
        Start { container: reference, name: container.name.clone(), attempt, wait }
    }

    /// Where the runtime forgot the container, its status still counts: restart counts never go back.
    fn previous_attempt(&self, name: &str) -> u32 {
        let status = pod::status(self.pod);
        let lists = [&status.container_statuses, &status.init_container_statuses];
        let known =
            lists.into_iter().flatten().flatten().find(|s| s.name == name && s.container_id.is_some());
        known.map_or(0, |s| u32::try_from(s.restart_count).unwrap_or(0) + 1)
    }
}

/// Whether a container that does not run is started (again).
pub fn should_be_restarted(pod: &Pod, container: &Container, latest: Option<&ObservedContainer>) -> bool {
    if pod::is_deleted(pod) {
        return false;
    }
    match latest.map(|c| (c.state, c.exit_code)) {
        None => true,
        Some((RunState::Running, _)) => false,
        Some((RunState::Unknown | RunState::Created, _)) => true,
        Some((RunState::Exited, code)) => pod::should_restart(pod, container, code),
    }
}

enum Init {
    /// One failed for good: the pod is done.
    Failed,
    Progress {
        starts: Vec<Start>,
        done: bool,
    },
}

enum Sidecar {
    Wait,
    Replace(Kill),
    Started(Option<Kill>),
}
