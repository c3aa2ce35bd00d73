//! Text goldens of plans and statuses: an input in few words, what comes of it in a few lines.
use super::observed::*;
use super::status::{StatusInput, Waiting, generate};
use super::*;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, PodStatus};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const S: i64 = 1_000_000_000;
const NOW: i64 = 1_000_000 * S;

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 1}, "spec": spec}))
    .unwrap()
}

fn sandbox(ready: bool) -> ObservedSandbox {
    ObservedSandbox {
        id: "sb".into(),
        attempt: 0,
        ready,
        created_at: NOW - 1000 * S,
        host_network: false,
        ips: vec!["10.0.0.9".into()],
    }
}

fn container(name: &str, state: RunState, exit_code: i32, attempt: u32) -> ObservedContainer {
    let ended = matches!(state, RunState::Exited);
    ObservedContainer {
        id: format!("{name}-{attempt}"),
        name: name.into(),
        sandbox_id: "sb".into(),
        restart_count: attempt,
        state,
        created_at: NOW - (100 - i64::from(attempt)) * S,
        started_at: NOW - 50 * S,
        finished_at: if ended { NOW - 5 * S } else { 0 },
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "i".into(),
        image_ref: "sha256:1".into(),
        hash: String::new(),
        log_path: String::new(),
    }
}

fn observed(ready: bool, containers: Vec<ObservedContainer>) -> ObservedPod {
    ObservedPod { sandboxes: vec![sandbox(ready)], containers }.sorted()
}

fn show(plan: &Plan) -> String {
    let mut out = match &plan.sandbox {
        SandboxAction::Keep { id } => format!("keep {id}"),
        SandboxAction::Create { attempt } => format!("create #{attempt}"),
        SandboxAction::Stop => "stop".to_owned(),
    };
    for kill in &plan.kill {
        let _ = write!(out, "; kill {} ({})", kill.id, kill.message);
    }
    for start in &plan.start {
        let wait = start.wait.map_or(String::new(), |w| format!(" in {}s", w.as_secs()));
        let _ = write!(out, "; start {:?} {} #{}{wait}", start.container.kind, start.name, start.attempt);
    }
    out
}

fn check(spec: serde_json::Value, observed: &ObservedPod, expected: &str) {
    check_with(spec, observed, &ProbeResults::new(), expected);
}

fn check_with(spec: serde_json::Value, observed: &ObservedPod, probes: &ProbeResults, expected: &str) {
    let plan = plan(&pod(spec), observed, probes, &Backoff::restarts(), NOW);
    assert_eq!(show(&plan), expected);
}

fn one(policy: &str) -> serde_json::Value {
    serde_json::json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}]})
}

#[test]
fn sandboxes() {
    let spec = || one("Always");
    check(spec(), &ObservedPod::default(), "create #0; start Main a #0");
    check(spec(), &observed(true, vec![]), "keep sb; start Main a #0");
    check(spec(), &observed(true, vec![container("a", RunState::Running, 0, 0)]), "keep sb");
    check(
        spec(),
        &observed(false, vec![container("a", RunState::Exited, 0, 0)]),
        "create #1; start Main a #1",
    );
    check(one("Never"), &observed(false, vec![container("a", RunState::Exited, 1, 0)]), "stop");
    check(one("OnFailure"), &observed(false, vec![container("a", RunState::Exited, 0, 0)]), "stop");
    check(one("Never"), &observed(false, vec![]), "create #1; start Main a #0");
}

#[test]
fn restart_policies() {
    let exited = |code| observed(true, vec![container("a", RunState::Exited, code, 2)]);
    check(one("Always"), &exited(0), "keep sb; start Main a #3");
    check(one("OnFailure"), &exited(0), "stop");
    check(one("OnFailure"), &exited(1), "keep sb; start Main a #3");
    check(one("Never"), &exited(1), "stop");
    let rules = serde_json::json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "i",
        "restartPolicy": "Never",
        "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}]});
    check(rules.clone(), &exited(42), "keep sb; start Main a #3");
    check(rules, &exited(1), "stop");
}

#[test]
fn back_off_delays_the_start_and_is_counted_from_the_end() {
    let p = pod(one("Always"));
    let mut backoff = Backoff::restarts();
    let key = backoff_key(&p, &pod::containers(&p)[0]);
    backoff.next(&key, NOW - 60 * S, NOW - 60 * S);
    backoff.next(&key, NOW - 30 * S, NOW - 30 * S);
    let seen = observed(true, vec![container("a", RunState::Exited, 1, 1)]);
    let plan = plan(&p, &seen, &ProbeResults::new(), &backoff, NOW);
    assert_eq!(show(&plan), "keep sb; start Main a #2 in 15s");
}

#[test]
fn init_containers_run_in_order_and_are_not_run_again_once_a_main_container_ran() {
    let spec = || {
        serde_json::json!({"restartPolicy": "Always",
            "initContainers": [{"name": "i1", "image": "i"}, {"name": "i2", "image": "i"}],
            "containers": [{"name": "a", "image": "i"}]})
    };
    let done = |name| container(name, RunState::Exited, 0, 0);
    check(spec(), &ObservedPod::default(), "create #0; start Init i1 #0");
    check(spec(), &observed(true, vec![]), "keep sb; start Init i1 #0");
    check(spec(), &observed(true, vec![container("i1", RunState::Running, 0, 0)]), "keep sb");
    check(spec(), &observed(true, vec![done("i1")]), "keep sb; start Init i2 #0");
    check(spec(), &observed(true, vec![done("i1"), done("i2")]), "keep sb; start Main a #0");
    // i1 was removed from the runtime: the last one tells.
    check(spec(), &observed(true, vec![done("i2")]), "keep sb; start Main a #0");
    check(spec(), &observed(true, vec![container("a", RunState::Running, 0, 0)]), "keep sb");
    let failed = || observed(true, vec![container("i1", RunState::Exited, 3, 0)]);
    check(spec(), &failed(), "keep sb; start Init i1 #1");
    let mut never = spec();
    never["restartPolicy"] = "Never".into();
    check(never, &failed(), "stop");
}

#[test]
fn sidecars_start_in_order_stay_and_restart() {
    let spec = || {
        serde_json::json!({"restartPolicy": "Never",
            "initContainers": [{"name": "s", "image": "i", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 1}}},
                               {"name": "i2", "image": "i"}],
            "containers": [{"name": "a", "image": "i"}]})
    };
    let running = container("s", RunState::Running, 0, 0);
    check(spec(), &observed(true, vec![running.clone()]), "keep sb");
    let mut probes = ProbeResults::new();
    probes.insert("s-0".into(), ContainerProbes { startup: Some(Outcome::Success), ..Default::default() });
    check_with(spec(), &observed(true, vec![running.clone()]), &probes, "keep sb; start Init i2 #0");
    let i2 = container("i2", RunState::Exited, 0, 0);
    check_with(
        spec(),
        &observed(true, vec![running.clone(), i2.clone()]),
        &probes,
        "keep sb; start Main a #0",
    );
    let dead = container("s", RunState::Exited, 1, 0);
    let a = container("a", RunState::Running, 0, 0);
    check_with(
        spec(),
        &observed(true, vec![dead.clone(), i2.clone(), a]),
        &probes,
        "keep sb; start Init s #1",
    );
    let ended = container("a", RunState::Exited, 0, 0);
    check_with(spec(), &observed(true, vec![running, i2, ended]), &probes, "stop");
}

#[test]
fn probes_and_changed_definitions_kill() {
    let running = || container("a", RunState::Running, 0, 0);
    let mut probes = ProbeResults::new();
    probes.insert("a-0".into(), ContainerProbes { liveness: Some(Outcome::Failure), ..Default::default() });
    check_with(
        one("Always"),
        &observed(true, vec![running()]),
        &probes,
        "keep sb; kill a-0 (Container a failed liveness probe, will be restarted); start Main a #1",
    );
    check_with(one("Never"), &observed(true, vec![running()]), &probes, "stop");
    let mut changed = running();
    changed.hash = "other".into();
    check(
        one("Never"),
        &observed(true, vec![changed]),
        "keep sb; kill a-0 (Container a definition changed, will be restarted); start Main a #1",
    );
}

#[test]
fn a_deleted_pod_starts_nothing() {
    let mut p = pod(one("Always"));
    p.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::from_second(1).unwrap()));
    let seen = observed(true, vec![container("a", RunState::Exited, 0, 0)]);
    let plan = plan(&p, &seen, &ProbeResults::new(), &Backoff::restarts(), NOW);
    assert_eq!(show(&plan), "stop");
}

struct Case<'a> {
    spec: serde_json::Value,
    observed: ObservedPod,
    previous: PodStatus,
    waiting: &'a [(&'a str, &'a str)],
    probes: ProbeResults,
    terminal: bool,
}

impl Default for Case<'_> {
    fn default() -> Self {
        Case {
            spec: one("Always"),
            observed: ObservedPod::default(),
            previous: PodStatus::default(),
            waiting: &[],
            probes: ProbeResults::new(),
            terminal: false,
        }
    }
}

fn state(state: Option<&ContainerState>) -> String {
    let Some(state) = state else { return "-".into() };
    if state.running.is_some() {
        "Running".into()
    } else if let Some(w) = &state.waiting {
        format!("Waiting:{}", w.reason.as_deref().unwrap_or(""))
    } else if let Some(t) = &state.terminated {
        format!("{}({})", t.reason.as_deref().unwrap_or(""), t.exit_code)
    } else {
        "-".into()
    }
}

fn status_of(case: &Case<'_>) -> (PodStatus, String) {
    let p = pod(case.spec.clone());
    let waiting: BTreeMap<String, Waiting> = case
        .waiting
        .iter()
        .map(|(name, reason)| ((*name).into(), Waiting { reason: (*reason).into(), message: String::new() }))
        .collect();
    let status = generate(&StatusInput {
        pod: &p,
        observed: &case.observed,
        previous: &case.previous,
        waiting: &waiting,
        probes: &case.probes,
        terminal: case.terminal,
        host_ips: &["192.0.2.1".into()],
        runtime: "containerd",
        now: Timestamp::from_second(NOW / S).unwrap(),
        kubelet_start: NOW - 10 * S,
    });
    let mut out =
        format!("{} ip={}", status.phase.as_deref().unwrap(), status.pod_ip.as_deref().unwrap_or("-"));
    for c in status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    {
        let _ = write!(
            out,
            "\n{} {} last={} restarts={} ready={} started={}",
            c.name,
            state(c.state.as_ref()),
            state(c.last_state.as_ref()),
            c.restart_count,
            c.ready,
            c.started.unwrap()
        );
    }
    for c in status.conditions.iter().flatten() {
        let _ = write!(out, "\n{}={}", c.type_, c.status);
        if let Some(reason) = &c.reason {
            let _ = write!(out, " {reason}");
        }
        if let Some(message) = &c.message {
            let _ = write!(out, " {message:?}");
        }
    }
    (status, out)
}

fn golden(case: Case<'_>, expected: &str) {
    let (_, text) = status_of(&case);
    let expected: Vec<&str> = expected.trim().lines().map(str::trim).collect();
    assert_eq!(text, expected.join("\n"));
}

#[test]
fn status_of_a_new_pod() {
    golden(
        Case::default(),
        "Pending ip=-
         a Waiting:ContainerCreating last=- restarts=0 ready=false started=false
         PodReadyToStartContainers=False
         Initialized=True
         Ready=False ContainersNotReady \"containers with unready status: [a]\"
         ContainersReady=False ContainersNotReady \"containers with unready status: [a]\"
         PodScheduled=True",
    );
}

#[test]
fn status_of_a_running_pod() {
    golden(
        Case { observed: observed(true, vec![container("a", RunState::Running, 0, 0)]), ..Case::default() },
        "Running ip=10.0.0.9
         a Running last=- restarts=0 ready=true started=true
         PodReadyToStartContainers=True
         Initialized=True
         Ready=True
         ContainersReady=True
         PodScheduled=True",
    );
}

#[test]
fn readiness_starts_false_and_startup_gates_it() {
    let spec = serde_json::json!({"containers": [{"name": "a", "image": "i",
        "readinessProbe": {"tcpSocket": {"port": 1}}, "startupProbe": {"tcpSocket": {"port": 1}}}]});
    let mut running = container("a", RunState::Running, 0, 0);
    running.started_at = NOW - S;
    let with = |startup, readiness| {
        let mut probes = ProbeResults::new();
        probes.insert("a-0".into(), ContainerProbes { startup, readiness, liveness: None });
        let case = Case {
            spec: spec.clone(),
            observed: observed(true, vec![running.clone()]),
            probes,
            ..Case::default()
        };
        let (status, _) = status_of(&case);
        let c = &status.container_statuses.unwrap()[0];
        (c.started.unwrap(), c.ready)
    };
    assert_eq!(with(None, None), (false, false));
    assert_eq!(with(Some(Outcome::Success), None), (true, false));
    assert_eq!(with(Some(Outcome::Success), Some(Outcome::Success)), (true, true));
    assert_eq!(with(Some(Outcome::Success), Some(Outcome::Failure)), (true, false));
    assert_eq!(with(Some(Outcome::Failure), Some(Outcome::Success)), (false, false));
}

#[test]
fn readiness_survives_a_restart_of_the_kubelet() {
    let spec = serde_json::json!({"containers": [{"name": "a", "image": "i",
        "readinessProbe": {"tcpSocket": {"port": 1}}}]});
    let mut probes = ProbeResults::new();
    probes.insert("a-0".into(), ContainerProbes { readiness: Some(Outcome::Success), ..Default::default() });
    let running = || observed(true, vec![container("a", RunState::Running, 0, 0)]);
    let before = Case { spec: spec.clone(), observed: running(), probes, ..Case::default() };
    let (previous, _) = status_of(&before);
    let after = Case { spec, observed: running(), previous, ..Case::default() };
    let (status, _) = status_of(&after);
    assert!(
        status.container_statuses.unwrap()[0].ready,
        "not probed yet since the restart, but it was ready"
    );
}

#[test]
fn crash_loops_show_the_last_end_and_the_pod_stays_running() {
    golden(
        Case {
            observed: observed(
                true,
                vec![container("a", RunState::Exited, 1, 3), container("a", RunState::Exited, 2, 2)],
            ),
            waiting: &[("a", "CrashLoopBackOff")],
            ..Case::default()
        },
        "Running ip=10.0.0.9
         a Waiting:CrashLoopBackOff last=Error(1) restarts=3 ready=false started=false
         PodReadyToStartContainers=True
         Initialized=True
         Ready=False ContainersNotReady \"containers with unready status: [a]\"
         ContainersReady=False ContainersNotReady \"containers with unready status: [a]\"
         PodScheduled=True",
    );
}

#[test]
fn a_pull_error_shows_as_waiting() {
    golden(
        Case { observed: observed(true, vec![]), waiting: &[("a", "ImagePullBackOff")], ..Case::default() },
        "Pending ip=10.0.0.9
         a Waiting:ImagePullBackOff last=- restarts=0 ready=false started=false
         PodReadyToStartContainers=True
         Initialized=True
         Ready=False ContainersNotReady \"containers with unready status: [a]\"
         ContainersReady=False ContainersNotReady \"containers with unready status: [a]\"
         PodScheduled=True",
    );
}

#[test]
fn a_finished_job_pod_succeeds() {
    golden(
        Case {
            spec: one("Never"),
            observed: observed(false, vec![container("a", RunState::Exited, 0, 0)]),
            terminal: true,
            ..Case::default()
        },
        "Succeeded ip=-
         a Completed(0) last=- restarts=0 ready=false started=false
         PodReadyToStartContainers=False
         Initialized=True PodCompleted
         Ready=False PodCompleted
         ContainersReady=False PodCompleted
         PodScheduled=True",
    );
}

#[test]
fn init_containers_keep_their_status_when_the_runtime_forgets_them() {
    let spec = serde_json::json!({"initContainers": [{"name": "i1", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}]});
    let first = Case {
        spec: spec.clone(),
        observed: observed(true, vec![container("i1", RunState::Exited, 0, 0)]),
        ..Case::default()
    };
    let (previous, text) = status_of(&first);
    assert!(text.starts_with("Pending"), "{text}");
    golden(
        Case {
            spec,
            observed: observed(true, vec![container("a", RunState::Running, 0, 0)]),
            previous,
            ..Case::default()
        },
        "Running ip=10.0.0.9
         i1 Completed(0) last=- restarts=0 ready=true started=false
         a Running last=- restarts=0 ready=true started=true
         PodReadyToStartContainers=True
         Initialized=True
         Ready=True
         ContainersReady=True
         PodScheduled=True",
    );
}

#[test]
fn an_init_container_that_fails_for_good_fails_the_pod() {
    let spec = serde_json::json!({"restartPolicy": "Never", "initContainers": [{"name": "i1", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}]});
    let case = Case {
        spec,
        observed: observed(true, vec![container("i1", RunState::Exited, 7, 0)]),
        ..Case::default()
    };
    let (_, text) = status_of(&case);
    assert!(text.starts_with("Failed ip=10.0.0.9\ni1 Error(7)"), "{text}");
}

#[test]
fn no_flicker_between_the_end_and_the_restart() {
    // The old container was removed and the new one is not there yet: still "it ran", never Pending.
    let running =
        Case { observed: observed(true, vec![container("a", RunState::Running, 0, 0)]), ..Case::default() };
    let (previous, _) = status_of(&running);
    let gone = Case { observed: observed(true, vec![]), previous, ..Case::default() };
    let (status, text) = status_of(&gone);
    assert_eq!(status.phase.as_deref(), Some("Running"), "{text}");
    assert!(
        text.contains("a Waiting:ContainerCreating last=ContainerStatusUnknown(137) restarts=1"),
        "{text}"
    );
}

#[test]
fn conditions_keep_their_transition_time() {
    let running = || observed(true, vec![container("a", RunState::Running, 0, 0)]);
    let (mut previous, _) = status_of(&Case { observed: running(), ..Case::default() });
    let old = Timestamp::from_second(5).unwrap();
    for c in previous.conditions.iter_mut().flatten() {
        c.last_transition_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(old));
    }
    let (status, _) = status_of(&Case { observed: running(), previous, ..Case::default() });
    assert!(status.conditions.unwrap().iter().all(|c| c.last_transition_time.as_ref().unwrap().0 == old));
}

#[test]
fn a_pod_that_ended_unseen_is_failed() {
    let (running, _) = status_of(&Case {
        observed: observed(true, vec![container("a", RunState::Running, 0, 0)]),
        ..Case::default()
    });
    let ended =
        super::status::terminated(&pod(one("Always")), running, Timestamp::from_second(NOW / S).unwrap());
    assert_eq!(ended.phase.as_deref(), Some("Failed"));
    let c = &ended.container_statuses.as_ref().unwrap()[0];
    assert_eq!(state(c.state.as_ref()), "ContainerStatusUnknown(137)");
    assert!(ended.conditions.unwrap().iter().all(|c| !c.type_.ends_with("Ready") || c.status == "False"));
}
