//! Rollouts step by step; facts from upstream's `rolling_test.go`, `sync_test.go` and `deployment_util_test.go`.

use std::fmt::Write;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::{Value, json};

use super::plan::{Action, Observed, Plan, plan};

fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().unwrap()
}

fn deployment(replicas: i32, surge: Value, unavailable: Value, image: &str) -> Value {
    json!({
        "metadata": {"namespace": "ns", "name": "web", "uid": "d", "generation": 1, "annotations": {"note": "x"}},
        "spec": {"replicas": replicas, "progressDeadlineSeconds": 600, "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn set(name: &str, image: &str, revision: u32, size: i32, up: i32, desired: i32) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": name, "uid": name, "resourceVersion": "1", "generation": 1,
            "creationTimestamp": format!("2026-01-01T00:0{revision}:00Z"),
            "annotations": {"note": "x", "deployment.kubernetes.io/revision": revision.to_string(),
                "deployment.kubernetes.io/desired-replicas": desired.to_string(),
                "deployment.kubernetes.io/max-replicas": (desired + 1).to_string()}},
        "spec": {"replicas": size, "minReadySeconds": 0, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web", "pod-template-hash": "h"}},
                "spec": {"containers": [{"name": "c", "image": image}]}}},
        "status": {"replicas": size, "readyReplicas": up, "availableReplicas": up, "observedGeneration": 1}}))
    .unwrap()
}

fn step(deployment: &Value, sets: Vec<ReplicaSet>) -> Plan {
    let deployment: Deployment = serde_json::from_value(deployment.clone()).unwrap();
    plan(Observed { deployment: &deployment, sets, pods: &|_| Vec::new(), now: now() })
}

/// Actions as text, without the hash.
fn text(plan: &Plan) -> String {
    let mut out = String::new();
    for action in &plan.actions {
        match action {
            Action::Create { set, event } => {
                let size = set.spec.as_ref().unwrap().replicas.unwrap();
                let _ = write!(out, "create {size} (event {}); ", event.is_some());
            }
            Action::Update { name, replicas, annotations, .. } => {
                let _ = match replicas {
                    Some(n) => write!(out, "{name}={n}; "),
                    None => write!(
                        out,
                        "annotate {name} revision {}; ",
                        annotations["deployment.kubernetes.io/revision"]
                    ),
                };
            }
            Action::Delete { name, .. } => drop(write!(out, "delete {name}; ")),
            Action::SetRevision(revision) => drop(write!(out, "revision {revision}; ")),
        }
    }
    out.trim_end_matches("; ").to_owned()
}

fn check(deployment: Value, sets: Vec<ReplicaSet>, expected: &str) {
    let deployment = {
        let mut d = deployment;
        if d["metadata"]["annotations"]["deployment.kubernetes.io/revision"].is_null() {
            let newest = sets.iter().map(super::annotations::revision).max().unwrap_or(0);
            let has_new = sets
                .iter()
                .any(|s| super::plan::same_template(&serde_json::from_value(d.clone()).unwrap(), s));
            if has_new {
                d["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!(newest.to_string());
            }
        }
        d
    };
    assert_eq!(text(&step(&deployment, sets)), expected);
}

#[test]
fn a_first_rollout_makes_one_full_set() {
    let plan = step(&deployment(3, json!("25%"), json!("25%"), "a"), vec![]);
    assert_eq!(text(&plan), "create 3 (event true); revision 1");
    let Action::Create { set, event } = &plan.actions[0] else { panic!() };
    let name = set.metadata.name.as_deref().unwrap();
    let hash = &set.metadata.labels.as_ref().unwrap()["pod-template-hash"];
    assert_eq!(name, format!("web-{hash}"));
    assert_eq!(event.as_deref(), Some(&*format!("Scaled up replica set {name} from 0 to 3")));
    let annotations = serde_json::to_value(&set.metadata.annotations).unwrap();
    assert_eq!(
        annotations,
        json!({"note": "x", "deployment.kubernetes.io/revision": "1",
            "deployment.kubernetes.io/desired-replicas": "3", "deployment.kubernetes.io/max-replicas": "4"})
    );
    let spec = set.spec.as_ref().unwrap();
    assert_eq!(spec.selector.match_labels.as_ref().unwrap()["pod-template-hash"], *hash);
    let status = serde_json::to_value(&plan.status).unwrap();
    assert_eq!(status["conditions"][0]["reason"], "NewReplicaSetCreated");
    assert_eq!(status["conditions"][0]["message"], format!("Created new replica set {name:?}"));
    assert_eq!(status["conditions"][1]["reason"], "MinimumReplicasUnavailable");
}

// Facts: TestDeploymentController_reconcileNewReplicaSet.
#[test]
fn the_new_set_grows_within_the_surge() {
    let sets = |old, new| vec![set("old", "a", 1, old, old, 10), set("new", "b", 2, new, 0, 10)];
    check(deployment(10, json!(0), json!(1), "b"), sets(10, 0), "old=9");
    check(deployment(10, json!(2), json!(0), "b"), sets(10, 0), "new=2");
    check(deployment(10, json!(2), json!(0), "b"), sets(5, 0), "new=7");
    check(deployment(10, json!(2), json!(0), "b"), sets(10, 2), "");
    check(deployment(10, json!(2), json!(0), "b"), vec![set("new", "b", 2, 11, 0, 10)], "new=10");
}

// Facts: TestDeploymentController_reconcileOldReplicaSets, _cleanupUnhealthyReplicas.
#[test]
fn old_sets_shrink_as_far_as_availability_allows() {
    let sets = |old, old_up, new, new_up| {
        vec![set("old", "a", 1, old, old_up, 10), set("new", "b", 2, new, new_up, 10)]
    };
    let two = || deployment(10, json!(0), json!(2), "b");
    check(two(), sets(10, 10, 0, 0), "old=8");
    check(two(), sets(10, 8, 0, 0), "old=8");
    check(two(), sets(8, 8, 2, 0), "");
    check(two(), sets(8, 8, 2, 2), "old=6");
    check(deployment(10, json!(3), json!(2), "b"), sets(8, 8, 5, 5), "old=3");
    check(deployment(10, json!(3), json!(2), "b"), sets(0, 0, 10, 10), "");
}

#[test]
fn percentages_round_surge_up_and_unavailability_down() {
    let sets = |old, new| vec![set("old", "a", 1, old, old, 3), set("new", "b", 2, new, 0, 3)];
    check(deployment(3, json!("25%"), json!("25%"), "b"), sets(3, 0), "new=1");
    check(deployment(3, json!("25%"), json!("25%"), "b"), sets(3, 1), "");
    check(deployment(3, json!("0%"), json!("25%"), "b"), sets(3, 0), "old=2"); // both zero: one may be missing
}

// Facts: TestScale in sync_test.go (name: deployment, old -> new sizes).
#[test]
fn scaling_is_proportional() {
    let check_scale = |replicas: i32, before: i32, surge: i32, sizes: &[i32], expected: &str| {
        let images = ["c", "b", "a"]; // newest first
        let sets = sizes
            .iter()
            .enumerate()
            .map(|(i, size)| set(images[i], images[i], 3 - i as u32, *size, 0, before))
            .map(|mut s| {
                let annotations = s.metadata.annotations.as_mut().unwrap();
                annotations
                    .insert("deployment.kubernetes.io/max-replicas".into(), (before + surge).to_string());
                s
            })
            .collect();
        let plan = step(&deployment(replicas, json!(surge), json!(0), "c"), sets);
        let text = text(&plan);
        let sized: Vec<&str> = text.split("; ").filter(|t| t.contains('=')).collect();
        assert_eq!(sized.join(" "), expected, "{sizes:?} to {replicas}");
    };
    check_scale(12, 10, 0, &[10], "c=12");
    check_scale(5, 10, 0, &[10], "c=5");
    check_scale(12, 10, 0, &[5, 5], "c=6 b=6");
    check_scale(6, 10, 0, &[5, 5], "b=3 c=3");
    check_scale(100, 10, 0, &[4, 6], "b=60 c=40");
    check_scale(0, 10, 0, &[4, 6], "b=0 c=0");
    check_scale(20, 12, 0, &[7, 5], "c=12 b=8"); // round(7*20/12)=12, round(5*20/12)=8
    check_scale(6, 10, 0, &[5, 3, 2], "c=3 b=2 a=1");
}

#[test]
fn pausing_stops_rollouts_but_not_scaling() {
    let mut paused = deployment(10, json!(2), json!(0), "b");
    paused["spec"]["paused"] = json!(true);
    check(paused.clone(), vec![set("old", "a", 1, 10, 10, 10)], "");
    let plan = step(&paused, vec![set("old", "a", 1, 10, 10, 10)]);
    let conditions = plan.status.conditions.unwrap();
    assert!(
        conditions
            .iter()
            .any(|c| c.type_ == "Progressing" && c.reason.as_deref() == Some("DeploymentPaused"))
    );
    paused["spec"]["replicas"] = json!(5);
    check(paused, vec![set("old", "a", 1, 10, 10, 10)], "old=5");
}

#[test]
fn recreate_waits_until_the_old_are_gone() {
    let mut d = deployment(3, json!(0), json!(0), "b");
    d["spec"]["strategy"] = json!({"type": "Recreate"});
    check(d.clone(), vec![set("old", "a", 1, 3, 3, 3)], "old=0");
    let mut leaving = set("old", "a", 1, 0, 0, 3);
    leaving.status.as_mut().unwrap().replicas = 1;
    check(d.clone(), vec![leaving], "");
    check(d, vec![set("old", "a", 1, 0, 0, 3)], "create 3 (event true); revision 2");
}

#[test]
fn a_rollback_takes_the_old_set_and_the_next_revision() {
    let d = deployment(1, json!(1), json!(0), "a");
    let mut d_at_2 = d;
    d_at_2["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!("2");
    let plan = step(&d_at_2, vec![set("one", "a", 1, 0, 0, 1), set("two", "b", 2, 1, 1, 1)]);
    assert_eq!(text(&plan), "one=1; revision 3");
    let Action::Update { annotations, .. } = &plan.actions[0] else { panic!() };
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "3");
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");
}

fn complete(mut d: Value, replicas: i32) -> Value {
    d["status"] = json!({"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas,
        "readyReplicas": replicas, "availableReplicas": replicas});
    d
}

#[test]
fn history_is_kept_to_its_limit() {
    let mut d = complete(deployment(1, json!(1), json!(0), "d"), 1);
    d["spec"]["revisionHistoryLimit"] = json!(1);
    d["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!("4");
    let sets = || {
        vec![
            set("r1", "a", 1, 0, 0, 1),
            set("r2", "b", 2, 0, 0, 1),
            set("r3", "c", 3, 0, 0, 1),
            set("r4", "d", 4, 1, 1, 1),
        ]
    };
    assert_eq!(text(&step(&d, sets())), "delete r1; delete r2");
    // One with pods stays.
    let mut busy = sets();
    busy[1].status.as_mut().unwrap().replicas = 1;
    assert_eq!(text(&step(&d, busy)), "delete r1");
}

#[test]
fn a_finished_rollout_writes_nothing() {
    let mut d = complete(deployment(2, json!(1), json!(0), "a"), 2);
    d["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!("1");
    let first = step(&d, vec![set("s", "a", 1, 2, 2, 2)]);
    let reasons: Vec<_> =
        first.status.conditions.iter().flatten().map(|c| c.reason.clone().unwrap()).collect();
    assert_eq!(reasons, ["MinimumReplicasAvailable", "NewReplicaSetAvailable"]);
    d["status"] = serde_json::to_value(&first.status).unwrap();
    let second = step(&d, vec![set("s", "a", 1, 2, 2, 2)]);
    assert!(second.actions.is_empty());
    assert_eq!(second.status, first.status);
}

#[test]
fn a_stuck_rollout_says_so_after_its_deadline() {
    let mut d = deployment(2, json!(1), json!(0), "a");
    d["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!("1");
    let with_progress_at = |d: &Value, at: &str| {
        let mut d = d.clone();
        d["status"] = json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "unavailableReplicas": 2, "conditions": [
            {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "lastUpdateTime": at, "lastTransitionTime": at}]});
        d
    };
    let reason = |d: Value| {
        let plan = step(&d, vec![set("s", "a", 1, 2, 0, 2)]);
        let progress =
            plan.status.conditions.unwrap().into_iter().find(|c| c.type_ == "Progressing").unwrap();
        (progress.status, progress.reason.unwrap(), progress.message.unwrap_or_default())
    };
    assert_eq!(reason(with_progress_at(&d, "2026-01-01T00:00:30Z")).1, "ReplicaSetUpdated");
    assert_eq!(
        reason(with_progress_at(&d, "2025-12-31T23:59:59Z")),
        (
            "False".into(),
            "ProgressDeadlineExceeded".into(),
            "ReplicaSet \"s\" has timed out progressing.".into()
        )
    );
}
