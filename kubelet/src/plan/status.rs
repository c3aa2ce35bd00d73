//! The status of a pod, pure: container statuses, phase and conditions from what the runtime and the probes say and
//! from what was said before. Follows upstream's `generateAPIPodStatus`; a status never flickers, because what the
//! runtime no longer tells is taken from the previous status.
use super::observed::{ContainerProbes, ObservedContainer, ObservedPod, Outcome, ProbeResults, RunState};
use super::{pod, qos, sandbox_changed, should_be_restarted};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;

/// Why a container is not started: the waiting reason and message it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

/// All a status is made of.
pub struct StatusInput<'a> {
    pub pod: &'a Pod,
    pub observed: &'a ObservedPod,
    /// The last status that was generated; before the first, the API's.
    pub previous: &'a PodStatus,
    /// Containers that could not be started, by name.
    pub waiting: &'a BTreeMap<String, Waiting>,
    pub probes: &'a ProbeResults,
    /// The pod is done for good: no container will run again.
    pub terminal: bool,
    /// Addresses of the node, primary first.
    pub host_ips: &'a [String],
    /// Prefix of container ids, as `containerd`.
    pub runtime: &'a str,
    pub now: Timestamp,
    /// When this kubelet started (nanoseconds since 1970): what ran before keeps its readiness until probed.
    pub kubelet_start: i64,
}

/// Exit code and reason for a container whose end nobody saw.
const STATUS_UNKNOWN: &str = "ContainerStatusUnknown";
const STATUS_UNKNOWN_EXIT: i32 = 137;

/// Condition types this kubelet owns; all others are left as they are.
pub const OWNED_CONDITIONS: &[&str] =
    &["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// Makes the pod's status.
pub fn generate(input: &StatusInput<'_>) -> PodStatus {
    let pod = input.pod;
    let previous = input.previous;
    let has_init = !pod::init_containers(pod).is_empty();
    let ephemeral: Vec<Container> =
        pod::ephemeral_containers(pod).iter().map(pod::ephemeral_as_container).collect();
    let list = |containers: &[Container], old: &Option<Vec<ContainerStatus>>, init| {
        container_statuses(input, containers, old.as_deref().unwrap_or(&[]), has_init, init)
    };
    let mut init = list(pod::init_containers(pod), &previous.init_container_statuses, true);
    let mut main = list(pod::containers(pod), &previous.container_statuses, false);
    let ephemeral = list(&ephemeral, &previous.ephemeral_container_statuses, false);
    let all: Vec<ContainerStatus> = main.iter().chain(&init).cloned().collect();
    let mut phase = phase(input, &all);
    for terminal in [previous.phase.as_deref(), pod::status(pod).phase.as_deref()] {
        if pod::is_terminal_phase(terminal) {
            phase = terminal.unwrap_or_default().to_owned();
        }
    }
    readiness(input, &mut main, pod::containers(pod), &previous.container_statuses);
    readiness(input, &mut init, pod::init_containers(pod), &previous.init_container_statuses);
    let keep = previous.phase.as_deref() == Some(&phase);
    let ips = pod_ips(input);
    let mut status = PodStatus {
        conditions: None,
        container_statuses: Some(main),
        init_container_statuses: (!init.is_empty()).then_some(init),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        host_ip: input.host_ips.first().cloned(),
        host_ips: (!input.host_ips.is_empty())
            .then(|| input.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        message: if keep { previous.message.clone() } else { None },
        reason: if keep { previous.reason.clone() } else { None },
        nominated_node_name: previous.nominated_node_name.clone(),
        observed_generation: pod.metadata.generation,
        phase: Some(phase),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        qos_class: Some(qos::class(pod).as_str().to_owned()),
        start_time: previous.start_time.clone().or(Some(Time(seconds(input.now)))),
        ..PodStatus::default()
    };
    status.conditions = Some(conditions(input, &status));
    status
}

/// The status of a pod that ended without its containers' ends being known: nothing is left running or waiting in it.
pub fn terminated(pod: &Pod, mut status: PodStatus, now: Timestamp) -> PodStatus {
    let unknown = || ContainerStateTerminated {
        exit_code: STATUS_UNKNOWN_EXIT,
        reason: Some(STATUS_UNKNOWN.into()),
        message: Some("The container could not be located when the pod was terminated".into()),
        ..Default::default()
    };
    let mut end = |containers: &mut Vec<ContainerStatus>| {
        for container in containers {
            if container.state.as_ref().is_none_or(|s| s.terminated.is_none()) {
                container.state =
                    Some(ContainerState { terminated: Some(unknown()), ..ContainerState::default() });
            }
            container.ready = false;
            container.started = Some(false);
        }
    };
    let initialised = has_initialised(pod, &status);
    if initialised {
        status.container_statuses.iter_mut().for_each(&mut end);
    }
    if let Some(init) = &mut status.init_container_statuses {
        let begun = init.iter().rposition(|s| s.container_id.is_some()).map_or(0, |last| last + 1);
        let mut head: Vec<ContainerStatus> = init[..begun].to_vec();
        for container in &mut head {
            let ended = container.state.as_ref().is_some_and(|s| s.terminated.is_some());
            if !ended {
                container.state =
                    Some(ContainerState { terminated: Some(unknown()), ..ContainerState::default() });
                container.ready = false;
                container.started = Some(false);
            }
        }
        init.splice(..begun, head);
    }
    if !pod::is_static(pod) && !pod::is_terminal_phase(status.phase.as_deref()) {
        status.phase = Some("Failed".into());
    }
    if pod::is_terminal_phase(status.phase.as_deref()) {
        not_ready_when_terminal(&mut status, now);
    }
    status
}

/// Whether a main container ever ran, or the last init container ever did its work.
fn has_initialised(pod: &Pod, status: &PodStatus) -> bool {
    let ended_before = |s: &ContainerStatus| exit_of(s.last_state.as_ref());
    let moved = |s: &ContainerStatus| {
        ended_before(s).is_some() || s.state.as_ref().is_some_and(|state| state.waiting.is_none())
    };
    if status.container_statuses.iter().flatten().any(moved) {
        return true;
    }
    let Some(container) = pod::init_containers(pod).last() else { return false };
    let last = status.init_container_statuses.iter().flatten().find(|s| s.name == container.name);
    last.is_some_and(|last| match pod::is_sidecar(container) {
        true => last.started == Some(true),
        false => exit_of(last.state.as_ref()) == Some(0) || ended_before(last) == Some(0),
    })
}

/// While containers may still run, a pod is not shown as finished: what held before stays.
pub fn delay_terminal(status: &mut PodStatus, previous: &PodStatus) {
    if pod::is_terminal_phase(status.phase.as_deref()) && !pod::is_terminal_phase(previous.phase.as_deref()) {
        status.phase = previous.phase.clone().or(Some("Pending".into()));
        status.reason = previous.reason.clone();
        status.message = previous.message.clone();
    }
}

fn not_ready_when_terminal(status: &mut PodStatus, now: Timestamp) {
    let reason = if status.phase.as_deref() == Some("Succeeded") { "PodCompleted" } else { "PodFailed" };
    for condition in status.conditions.iter_mut().flatten() {
        if matches!(condition.type_.as_str(), "Ready" | "ContainersReady") {
            if condition.status != "False" {
                condition.last_transition_time = Some(Time(seconds(now)));
            }
            condition.status = "False".into();
            condition.reason = Some(reason.into());
            condition.message = None;
        }
    }
}

/// The same instant in whole seconds: what the API keeps.
pub fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn time(nanos: i64) -> Option<Time> {
    (nanos != 0)
        .then(|| Timestamp::from_nanosecond(i128::from(nanos)).ok().map(|t| Time(seconds(t))))
        .flatten()
}

fn pod_ips(input: &StatusInput<'_>) -> Vec<String> {
    if pod::host_network(input.pod) {
        let known: Vec<String> = input.previous.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
        return if known.is_empty() { input.host_ips.to_vec() } else { known };
    }
    let ips = input.observed.ips();
    if ips.is_empty() && !input.observed.sandboxes.iter().any(|s| s.ready) {
        // The sandbox is down: the address stays visible until the pod has another one.
        return input.previous.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
    }
    ips.to_vec()
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref().filter(|mounts| !mounts.is_empty())?;
    let status = |m: &k8s_openapi::api::core::v1::VolumeMount| VolumeMountStatus {
        name: m.name.clone(),
        mount_path: m.mount_path.clone(),
        read_only: m.read_only.filter(|read_only| *read_only),
        recursive_read_only: m.read_only.unwrap_or(false).then(|| "Disabled".to_owned()),
    };
    Some(mounts.iter().map(status).collect())
}

fn container_statuses(
    input: &StatusInput<'_>,
    containers: &[Container],
    old: &[ContainerStatus],
    has_init: bool,
    init: bool,
) -> Vec<ContainerStatus> {
    let mut statuses: Vec<ContainerStatus> =
        containers.iter().map(|c| container_status(input, c, old, has_init, init)).collect();
    if !init {
        statuses.sort_by(|a, b| a.name.cmp(&b.name));
    }
    statuses
}

fn container_status(
    input: &StatusInput<'_>,
    container: &Container,
    old: &[ContainerStatus],
    has_init: bool,
    init: bool,
) -> ContainerStatus {
    let old = old.iter().find(|s| s.name == container.name);
    let mut seen = input.observed.containers.iter().filter(|c| c.name == container.name);
    let latest = seen.next();
    let mut status = match latest {
        Some(latest) => {
            let mut status = observed_status(input, latest, old);
            let before = seen.find(|c| c.state == RunState::Exited);
            status.last_state = match before {
                Some(before) => Some(ContainerState {
                    terminated: Some(ended(input.runtime, before)),
                    ..ContainerState::default()
                }),
                None => carried_last_state(&status, old),
            };
            status
        }
        None => forgotten_status(input.pod, container, old, has_init),
    };
    status.volume_mounts = volume_mounts(container);
    if latest.is_some() {
        status.resources = container.resources.clone().or_else(|| Some(Default::default()));
        status.allocated_resources = container.resources.as_ref().and_then(|r| r.requests.clone());
    }
    overlay_waiting(input, container, latest, init, &mut status);
    status
}

/// The runtime forgot the previous container: its end is still known from the previous status.
fn carried_last_state(status: &ContainerStatus, old: Option<&ContainerStatus>) -> Option<ContainerState> {
    let old = old?;
    let old_end = old.state.as_ref().and_then(|s| s.terminated.clone());
    if old.container_id != status.container_id && old_end.is_some() {
        return Some(ContainerState { terminated: old_end, ..ContainerState::default() });
    }
    old.last_state.clone()
}

fn observed_status(
    input: &StatusInput<'_>,
    container: &ObservedContainer,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let was_running = old.and_then(|o| o.state.as_ref()).is_some_and(|s| s.running.is_some());
    let mut restart_count = i32::try_from(container.restart_count).unwrap_or(i32::MAX);
    let state = match container.state {
        RunState::Running => ContainerState {
            running: Some(ContainerStateRunning { started_at: time(container.started_at) }),
            ..ContainerState::default()
        },
        RunState::Exited => {
            ContainerState { terminated: Some(ended(input.runtime, container)), ..ContainerState::default() }
        }
        RunState::Unknown if was_running => {
            restart_count = old.map_or(0, |o| o.restart_count) + 1;
            ContainerState {
                terminated: Some(ContainerStateTerminated {
                    exit_code: STATUS_UNKNOWN_EXIT,
                    reason: Some(STATUS_UNKNOWN.into()),
                    message: Some("The container could not be located when the pod was terminated".into()),
                    ..Default::default()
                }),
                ..ContainerState::default()
            }
        }
        RunState::Created | RunState::Unknown => {
            ContainerState { waiting: Some(ContainerStateWaiting::default()), ..ContainerState::default() }
        }
    };
    ContainerStatus {
        name: container.name.clone(),
        restart_count,
        image: container.image.clone(),
        image_id: container.image_ref.clone(),
        container_id: Some(format!("{}://{}", input.runtime, container.id)),
        state: Some(state),
        ..ContainerStatus::default()
    }
}

fn ended(runtime: &str, container: &ObservedContainer) -> ContainerStateTerminated {
    let reason = match container.reason.as_str() {
        "" if container.exit_code == 0 => "Completed",
        "" => "Error",
        reason => reason,
    };
    ContainerStateTerminated {
        exit_code: container.exit_code,
        reason: Some(reason.to_owned()),
        message: (!container.message.is_empty()).then(|| container.message.clone()),
        started_at: time(container.started_at),
        finished_at: time(container.finished_at),
        container_id: Some(format!("{runtime}://{}", container.id)),
        signal: None,
    }
}

/// The runtime knows no such container: it never ran, or it was removed.
fn forgotten_status(
    pod: &Pod,
    container: &Container,
    old: Option<&ContainerStatus>,
    has_init: bool,
) -> ContainerStatus {
    let reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(ContainerState {
            waiting: Some(ContainerStateWaiting { reason: Some(reason.into()), message: None }),
            ..ContainerState::default()
        }),
        ..ContainerStatus::default()
    };
    let Some(old) = old else { return status };
    let state = old.state.as_ref();
    if state.is_some_and(|s| s.terminated.is_some()) {
        return old.clone();
    }
    status.restart_count = old.restart_count;
    status.last_state = old.last_state.clone();
    if state.is_some_and(|s| s.running.is_some())
        && status.last_state.as_ref().is_none_or(|s| s.terminated.is_none())
    {
        status.last_state = Some(ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: STATUS_UNKNOWN_EXIT,
                reason: Some(STATUS_UNKNOWN.into()),
                message: Some(
                    "The container could not be located when the pod was deleted.  The container used to be Running"
                        .into(),
                ),
                ..Default::default()
            }),
            ..ContainerState::default()
        });
        if !pod::is_deleted(pod) {
            status.restart_count += 1;
        }
    }
    status
}

/// Containers that are to be started and cannot show why.
fn overlay_waiting(
    input: &StatusInput<'_>,
    container: &Container,
    latest: Option<&ObservedContainer>,
    init: bool,
    status: &mut ContainerStatus,
) {
    let completed = latest.is_some_and(|c| c.state == RunState::Exited && c.exit_code == 0);
    if init && completed && !pod::is_sidecar(container) {
        return;
    }
    if input.terminal || !should_be_restarted(input.pod, container, latest) {
        return;
    }
    let Some(waiting) = input.waiting.get(&container.name) else { return };
    if let Some(end) = status.state.take().and_then(|s| s.terminated) {
        status.last_state = Some(ContainerState { terminated: Some(end), ..ContainerState::default() });
    }
    status.state = Some(ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(waiting.reason.clone()),
            message: (!waiting.message.is_empty()).then(|| waiting.message.clone()),
        }),
        ..ContainerState::default()
    });
}

/// Sets `started` and `ready` from probe results.
fn readiness(
    input: &StatusInput<'_>,
    statuses: &mut [ContainerStatus],
    containers: &[Container],
    old: &Option<Vec<ContainerStatus>>,
) {
    for status in statuses {
        let Some(container) = containers.iter().find(|c| c.name == status.name) else { continue };
        let init = pod::init_containers(input.pod).iter().any(|c| c.name == status.name);
        let old =
            old.iter().flatten().find(|o| o.name == status.name && o.container_id == status.container_id);
        let running = status.state.as_ref().and_then(|s| s.running.as_ref());
        let id = status.container_id.as_deref().and_then(|id| id.split_once("://")).map_or("", |(_, id)| id);
        let probes: ContainerProbes = input.probes.get(id).copied().unwrap_or_default();
        let started = running.is_some()
            && match (probes.startup, &container.startup_probe) {
                (Some(outcome), _) => outcome == Outcome::Success,
                (None, Some(_)) => old.is_some_and(|o| o.started == Some(true)),
                (None, None) => true,
            };
        let ran_before = running
            .and_then(|r| r.started_at.as_ref())
            .is_some_and(|at| at.0.as_nanosecond() < i128::from(input.kubelet_start));
        status.started = Some(started);
        if init && !pod::is_sidecar(container) {
            status.ready =
                status.state.as_ref().and_then(|s| s.terminated.as_ref()).is_some_and(|t| t.exit_code == 0);
            continue;
        }
        status.ready = started
            && match (probes.readiness, &container.readiness_probe) {
                (Some(outcome), _) => outcome == Outcome::Success,
                (None, Some(_)) => ran_before && old.is_some_and(|o| o.ready),
                (None, None) => true,
            };
    }
}

#[derive(Default)]
struct Counts {
    unknown: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    stopped_for_good: usize,
    succeeded: usize,
    pending_init: usize,
    pending_sidecars: usize,
    failed_init: usize,
}

fn exit_of(state: Option<&ContainerState>) -> Option<i32> {
    Some(state?.terminated.as_ref()?.exit_code)
}

fn phase(input: &StatusInput<'_>, all: &[ContainerStatus]) -> String {
    let pod = input.pod;
    let counts = count(pod, all);
    let newest = input.observed.sandboxes.first().map(|s| s.id.as_str());
    let main_started = pod::containers(pod).iter().any(|c| {
        input.observed.latest(&c.name).is_some_and(|s| {
            matches!(s.state, RunState::Running | RunState::Exited) && Some(s.sandbox_id.as_str()) == newest
        })
    });
    let phase = if counts.failed_init > 0 {
        "Failed"
    } else if counts.pending_init > 0 || (counts.pending_sidecars > 0 && !main_started) || counts.waiting > 0
    {
        "Pending"
    } else if counts.running > 0 && counts.unknown == 0 {
        "Running"
    } else if counts.running == 0 && counts.stopped > 0 && counts.unknown == 0 {
        let ended = if counts.stopped == counts.succeeded { "Succeeded" } else { "Failed" };
        if input.terminal && !pod::is_static(pod) || counts.stopped == counts.stopped_for_good {
            ended
        } else {
            "Running"
        }
    } else {
        "Pending"
    };
    phase.to_owned()
}

fn count(pod: &Pod, all: &[ContainerStatus]) -> Counts {
    let mut counts = Counts::default();
    let find = |name: &str| all.iter().find(|s| s.name == name);
    for container in pod::init_containers(pod) {
        let status = find(&container.name);
        let state = status.and_then(|s| s.state.as_ref());
        let ended = exit_of(state);
        let waits = state.is_some_and(|s| s.waiting.is_some());
        let ended_before = exit_of(status.and_then(|s| s.last_state.as_ref()));
        if pod::is_sidecar(container) {
            if state.is_some_and(|s| s.running.is_some()) {
                counts.pending_sidecars += usize::from(status.is_none_or(|s| s.started != Some(true)));
                counts.running += 1;
            } else if ended.is_none() && waits && ended_before.is_none() {
                counts.pending_sidecars += 1;
                counts.waiting += 1;
            } else if status.is_none() {
                counts.unknown += 1;
            }
            continue;
        }
        match ended.or(if waits { ended_before } else { None }) {
            Some(0) => {}
            Some(code) => counts.failed_init += usize::from(!pod::should_restart(pod, container, code)),
            None => counts.pending_init += 1,
        }
        if waits && ended_before == Some(0) {
            counts.pending_init += 1;
        }
    }
    for container in pod::containers(pod) {
        let Some(status) = find(&container.name) else {
            counts.unknown += 1;
            continue;
        };
        let state = status.state.as_ref();
        if state.is_some_and(|s| s.running.is_some()) {
            counts.running += 1;
        } else if let Some(code) = exit_of(state) {
            counts.stopped += 1;
            counts.stopped_for_good += usize::from(!pod::should_restart(pod, container, code));
            counts.succeeded += usize::from(code == 0);
        } else if state.is_some_and(|s| s.waiting.is_some()) {
            match exit_of(status.last_state.as_ref()) {
                Some(code) => {
                    counts.stopped += 1;
                    counts.stopped_for_good += usize::from(!pod::should_restart(pod, container, code));
                }
                None => counts.waiting += 1,
            }
        } else {
            counts.unknown += 1;
        }
    }
    counts
}

struct Verdict {
    status: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn yes() -> Self {
        Verdict { status: true, reason: None, message: None }
    }

    fn no(reason: &'static str, message: impl Into<Option<String>>) -> Self {
        Verdict { status: false, reason: Some(reason), message: message.into() }
    }
}

/// A list of names as Go prints a string slice.
fn go_list(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn conditions(input: &StatusInput<'_>, status: &PodStatus) -> Vec<PodCondition> {
    let pod = input.pod;
    let foreign = pod::status(pod).conditions.iter().flatten();
    let mut conditions: Vec<PodCondition> =
        foreign.filter(|c| !OWNED_CONDITIONS.contains(&c.type_.as_str())).cloned().collect();
    let containers_ready = containers_ready(pod, status);
    let ready = if containers_ready.status {
        gates_ready(pod, &conditions)
    } else {
        Verdict { message: containers_ready.message.clone(), ..containers_ready }
    };
    let owned = [
        ("PodReadyToStartContainers", ready_to_start(input)),
        ("Initialized", initialised(pod, status)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Verdict::yes()),
    ];
    for (type_, verdict) in owned {
        let text = if verdict.status { "True" } else { "False" };
        let old = input.previous.conditions.iter().flatten().find(|c| c.type_ == type_);
        let changed = old.is_none_or(|old| old.status != text);
        let at = old.filter(|_| !changed).and_then(|old| old.last_transition_time.clone());
        conditions.push(PodCondition {
            type_: type_.to_owned(),
            status: text.to_owned(),
            reason: verdict.reason.map(str::to_owned),
            message: verdict.message,
            last_probe_time: None,
            last_transition_time: at.or(Some(Time(seconds(input.now)))),
            observed_generation: pod.metadata.generation,
        });
    }
    conditions
}

fn ready_to_start(input: &StatusInput<'_>) -> Verdict {
    let (changed, _) = sandbox_changed(input.pod, input.observed);
    if changed { Verdict { status: false, reason: None, message: None } } else { Verdict::yes() }
}

fn containers_ready(pod: &Pod, status: &PodStatus) -> Verdict {
    let all =
        || status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let mut unknown = Vec::new();
    let mut unready = Vec::new();
    let sidecars = pod::init_containers(pod).iter().filter(|c| pod::is_sidecar(c));
    for container in sidecars.chain(pod::containers(pod)) {
        match all().find(|s| s.name == container.name) {
            Some(status) if !status.ready => unready.push(container.name.as_str()),
            Some(_) => {}
            None => unknown.push(container.name.as_str()),
        }
    }
    match status.phase.as_deref() {
        Some("Succeeded") if unknown.is_empty() => return Verdict::no("PodCompleted", None),
        Some("Failed") => return Verdict::no("PodFailed", None),
        _ => {}
    }
    let mut messages = Vec::new();
    if !unknown.is_empty() {
        messages.push(format!("containers with unknown status: {}", go_list(&unknown)));
    }
    if !unready.is_empty() {
        messages.push(format!("containers with unready status: {}", go_list(&unready)));
    }
    if messages.is_empty() { Verdict::yes() } else { Verdict::no("ContainersNotReady", messages.join(", ")) }
}

fn gates_ready(pod: &Pod, conditions: &[PodCondition]) -> Verdict {
    let mut messages = Vec::new();
    for gate in pod::spec(pod).readiness_gates.iter().flatten() {
        let type_ = &gate.condition_type;
        match conditions.iter().find(|c| &c.type_ == type_) {
            None => messages
                .push(format!("corresponding condition of pod readiness gate {type_:?} does not exist.")),
            Some(c) if c.status != "True" => messages.push(format!(
                "the status of pod readiness gate {type_:?} is not \"True\", but {}",
                c.status
            )),
            Some(_) => {}
        }
    }
    if messages.is_empty() {
        Verdict::yes()
    } else {
        Verdict::no("ReadinessGatesNotReady", messages.join(", "))
    }
}

fn initialised(pod: &Pod, status: &PodStatus) -> Verdict {
    let init = status.init_container_statuses.as_deref().unwrap_or(&[]);
    let mut unknown = Vec::new();
    let mut incomplete = Vec::new();
    for container in pod::init_containers(pod) {
        match init.iter().find(|s| s.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(s) if pod::is_sidecar(container) && s.started != Some(true) => {
                incomplete.push(container.name.as_str());
            }
            Some(s) if !pod::is_sidecar(container) && !s.ready => incomplete.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    if status.phase.as_deref() == Some("Succeeded") && unknown.is_empty() {
        return Verdict { status: true, reason: Some("PodCompleted"), message: None };
    }
    let main_started = status.container_statuses.iter().flatten().any(|s| {
        s.started == Some(true)
            || exit_of(s.state.as_ref()).is_some()
            || exit_of(s.last_state.as_ref()).is_some()
    });
    if main_started {
        return Verdict::yes();
    }
    let mut messages = Vec::new();
    if !unknown.is_empty() {
        messages.push(format!("containers with unknown status: {}", go_list(&unknown)));
    }
    if !incomplete.is_empty() {
        messages.push(format!("containers with incomplete status: {}", go_list(&incomplete)));
    }
    if messages.is_empty() {
        Verdict::yes()
    } else {
        Verdict::no("ContainersNotInitialized", messages.join(", "))
    }
}

/// Phase, containers (name, ready, restarts) and conditions (type, status) of a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparable {
    phase: Option<String>,
    containers: Vec<(String, bool, i32)>,
    conditions: Vec<(String, String)>,
}

/// The part of a status that only the kubelet writes, for telling whether somebody wrote over it.
pub fn comparable(status: Option<&PodStatus>) -> Option<Comparable> {
    let status = status?;
    let all =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let containers = all.map(|c| (c.name.clone(), c.ready, c.restart_count)).collect();
    let owned = status.conditions.iter().flatten().filter(|c| OWNED_CONDITIONS.contains(&c.type_.as_str()));
    let mut conditions: Vec<(String, String)> = owned.map(|c| (c.type_.clone(), c.status.clone())).collect();
    conditions.sort();
    Some(Comparable { phase: status.phase.clone(), containers, conditions })
}
