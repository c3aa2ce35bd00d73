//! Scheduling decisions and texts as tables; facts from upstream's plugin tests.

use std::sync::Arc;
use std::time::Duration;

use keelson_client::ObjectKey;
use keelson_client::projections::{Labels, NodeView, PodView, Selector};
use serde_json::{Value, json};

use crate::core::{Decision, Scheduler};
use crate::plugins::default_profile;
use crate::preemption::Budget;

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn node(name: &str, change: Value) -> Arc<NodeView> {
    let mut json = json!({
        "metadata": {"name": name, "uid": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}}});
    merge(&mut json, change);
    Arc::new(NodeView::new(&serde_json::from_value(json).unwrap()))
}

fn pod(name: &str, change: Value) -> Arc<PodView> {
    let mut json = json!({
        "metadata": {"namespace": "ns", "name": name, "uid": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    merge(&mut json, change);
    Arc::new(PodView::new(&serde_json::from_value(json).unwrap()))
}

fn cpu(amount: &str) -> Value {
    json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": amount}}}]}})
}

struct World {
    scheduler: Scheduler,
    now: Duration,
}

impl World {
    fn new(nodes: Vec<Arc<NodeView>>) -> Self {
        let mut world = World {
            scheduler: Scheduler::new(default_profile(), "default-scheduler", 7),
            now: Duration::ZERO,
        };
        world.scheduler.observe_namespace("ns", Some(Labels::new([("team", "a")])), world.now);
        for node in nodes {
            world.node(node);
        }
        world
    }

    fn node(&mut self, node: Arc<NodeView>) {
        self.scheduler.observe_node(&node.meta.name.clone(), Some(node), self.now);
    }

    fn pod(&mut self, pod: Arc<PodView>) {
        let key = ObjectKey::new(&*pod.meta.namespace, &*pod.meta.name);
        self.scheduler.observe_pod(&key, Some(pod), self.now);
    }

    /// The next decision as text.
    fn next(&mut self) -> String {
        match self.scheduler.next(self.now) {
            None => "-".to_owned(),
            Some(Decision::Bind { pod, node }) => format!("{} -> {node}", pod.meta.name),
            Some(Decision::Unschedulable { pod, message, preempt: None, .. }) => {
                format!("{}: {message}", pod.meta.name)
            }
            Some(Decision::Unschedulable { pod, preempt: Some((node, victims)), .. }) => {
                let names: Vec<&str> = victims.iter().map(|v| &*v.meta.name).collect();
                format!("{} preempts {} on {node}", pod.meta.name, names.join(","))
            }
        }
    }
}

fn check(nodes: Vec<Arc<NodeView>>, existing: Vec<Arc<PodView>>, pod: Arc<PodView>, expected: &str) {
    let mut world = World::new(nodes);
    existing.into_iter().for_each(|p| world.pod(p));
    world.pod(pod);
    assert_eq!(world.next(), expected);
}

const NO_HELP: &str = "no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
const NO_VICTIMS: &str = "no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";

#[test]
fn messages_are_upstreams() {
    let one = |change| vec![node("n", change)];
    check(vec![], vec![], pod("p", json!({})), "p: no nodes available to schedule pods");
    check(one(json!({})), vec![], pod("p", json!({})), "p -> n");
    check(
        one(json!({})),
        vec![],
        pod("p", cpu("3")),
        &format!("p: 0/1 nodes are available: 1 Insufficient cpu. {NO_HELP}"),
    );
    check(
        one(json!({})),
        vec![pod(
            "e",
            json!({"spec": {"nodeName": "n", "containers": [{"name": "c", "resources": {"requests": {"cpu": "1500m"}}}]}}),
        )],
        pod("p", cpu("1")),
        &format!("p: 0/1 nodes are available: 1 Insufficient cpu. {NO_VICTIMS}"),
    );
    check(
        one(json!({"status": {"allocatable": {"pods": "0"}}})),
        vec![],
        pod("p", cpu("3")),
        &format!("p: 0/1 nodes are available: 1 Insufficient cpu, 1 Too many pods. {NO_HELP}"),
    );
    check(
        one(json!({"spec": {"unschedulable": true}})),
        vec![],
        pod("p", json!({})),
        &format!("p: 0/1 nodes are available: 1 node(s) were unschedulable. {NO_HELP}"),
    );
    check(
        one(json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}})),
        vec![],
        pod("p", json!({})),
        &format!("p: 0/1 nodes are available: 1 node(s) had untolerated taint(s). {NO_HELP}"),
    );
    check(
        one(json!({})),
        vec![],
        pod("p", json!({"spec": {"nodeSelector": {"disk": "ssd"}}})),
        &format!(
            "p: 0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. {NO_HELP}"
        ),
    );
    check(
        one(json!({})),
        vec![pod(
            "e",
            json!({"spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]}}),
        )],
        pod(
            "p",
            json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 2, "hostPort": 80, "hostIP": "127.0.0.1"}]}]}}),
        ),
        &format!(
            "p: 0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. {NO_VICTIMS}"
        ),
    );
    check(
        one(json!({})),
        vec![],
        pod(
            "p",
            json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}}),
        ),
        &format!(
            "p: 0/1 nodes are available: scheduling is not implemented yet for: persistentvolumeclaim \"data\"."
        ),
    );
}

#[test]
fn required_node_affinity() {
    let nodes = || {
        vec![
            node("a", json!({"metadata": {"labels": {"zone": "1", "gen": "4"}}})),
            node("b", json!({"metadata": {"labels": {"zone": "2", "gen": "6"}}})),
        ]
    };
    let required = |term: Value| {
        pod(
            "p",
            json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}}}),
        )
    };
    let expressions = |key: &str, op: &str, values: Value| {
        required(json!({"matchExpressions": [{"key": key, "operator": op, "values": values}]}))
    };
    check(nodes(), vec![], expressions("zone", "In", json!(["2", "3"])), "p -> b");
    check(nodes(), vec![], expressions("zone", "NotIn", json!(["2"])), "p -> a");
    check(nodes(), vec![], expressions("gen", "Gt", json!(["5"])), "p -> b");
    check(nodes(), vec![], expressions("gen", "Lt", json!(["5"])), "p -> a");
    check(
        nodes(),
        vec![],
        required(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]})),
        "p -> b",
    );
    check(
        vec![node("a", json!({}))],
        vec![],
        required(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]})),
        &format!("p: 0/1 nodes are available: 1 node(s) didn't satisfy plugin(s) [NodeAffinity]. {NO_HELP}"),
    );
}

#[test]
fn scores_decide() {
    let preferred = json!({"spec": {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 10, "preference": {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["b"]}]}}]}}}});
    check(
        vec![node("a", json!({})), node("b", json!({})), node("c", json!({}))],
        vec![],
        pod("p", preferred),
        "p -> b",
    );
    let tainted = json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}});
    check(
        vec![node("a", tainted.clone()), node("b", json!({})), node("c", tainted)],
        vec![],
        pod("p", json!({})),
        "p -> b",
    );
    let busy = pod(
        "e",
        json!({"spec": {"nodeName": "a", "containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "2Gi"}}}]}}),
    );
    check(vec![node("a", json!({})), node("b", json!({}))], vec![busy], pod("p", cpu("100m")), "p -> b");
    let holds = json!({"status": {"images": [{"names": ["big:latest"], "sizeBytes": 900_000_000}]}});
    check(
        vec![node("a", json!({})), node("b", holds)],
        vec![],
        pod("p", json!({"spec": {"containers": [{"name": "c", "image": "big"}]}})),
        "p -> b",
    );
}

#[test]
fn pod_affinity_and_anti_affinity() {
    let term = |label: &str| json!({"labelSelector": {"matchLabels": {"app": label}}, "topologyKey": "kubernetes.io/hostname"});
    let nodes = || vec![node("a", json!({})), node("b", json!({}))];
    let web = |on: &str| pod("e", json!({"metadata": {"labels": {"app": "web"}}, "spec": {"nodeName": on}}));
    let near = json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term("web")]}}}});
    let away = json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term("web")]}}}});
    check(nodes(), vec![web("b")], pod("p", near.clone()), "p -> b");
    check(nodes(), vec![web("b")], pod("p", away.clone()), "p -> a");
    check(
        vec![node("a", json!({}))],
        vec![],
        pod("p", near.clone()),
        &format!("p: 0/1 nodes are available: 1 node(s) didn't match pod affinity rules. {NO_HELP}"),
    );
    // The first of a group that wants to be together may start it.
    let mut own = near;
    own["metadata"] = json!({"labels": {"app": "web"}});
    check(vec![node("a", json!({}))], vec![], pod("p", own), "p -> a");
    check(
        vec![node("a", json!({}))],
        vec![web("a")],
        pod("p", away.clone()),
        &format!("p: 0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules. {NO_VICTIMS}"),
    );
    // An existing pod's anti-affinity keeps others away, too.
    let mut repelling = away;
    repelling["spec"]["nodeName"] = json!("a");
    check(
        vec![node("a", json!({}))],
        vec![pod("e", repelling)],
        pod("p", json!({"metadata": {"labels": {"app": "web"}}})),
        &format!(
            "p: 0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules. {NO_VICTIMS}"
        ),
    );
}

#[test]
fn topology_spread() {
    let spread = |skew: u32, min: Value| {
        pod(
            "p",
            json!({"metadata": {"labels": {"app": "web"}}, "spec": {"topologySpreadConstraints": [
            {"maxSkew": skew, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "minDomains": min,
             "labelSelector": {"matchLabels": {"app": "web"}}}]}}),
        )
    };
    let zones = || {
        vec![
            node("a", json!({"metadata": {"labels": {"zone": "1"}}})),
            node("b", json!({"metadata": {"labels": {"zone": "2"}}})),
        ]
    };
    let web = |on: &str| pod("e", json!({"metadata": {"labels": {"app": "web"}}, "spec": {"nodeName": on}}));
    check(zones(), vec![web("a")], spread(1, Value::Null), "p -> b");
    check(
        zones(),
        vec![web("a"), pod("e2", json!({"metadata": {"labels": {"app": "web"}}, "spec": {"nodeName": "b"}}))],
        spread(1, json!(3)),
        "p: 0/2 nodes are available: 2 node(s) didn't match pod topology spread constraints. no new claims to deallocate, preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod.",
    );
    check(
        vec![node("a", json!({}))],
        vec![],
        spread(1, Value::Null),
        &format!(
            "p: 0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label). {NO_HELP}"
        ),
    );
}

#[test]
fn preemption_takes_the_least() {
    let on = |name: &str, node: &str, priority: i32, amount: &str| {
        let mut json = cpu(amount);
        merge(
            &mut json,
            json!({"metadata": {"labels": {"app": name}}, "spec": {"nodeName": node, "priority": priority}}),
        );
        pod(name, json)
    };
    let wants = |amount: &str, priority: i32| {
        let mut json = cpu(amount);
        merge(&mut json, json!({"spec": {"priority": priority}}));
        pod("p", json)
    };
    let nodes = || vec![node("a", json!({})), node("b", json!({}))];
    // Only what is needed goes, the less important first.
    check(
        vec![node("a", json!({}))],
        vec![on("x", "a", 1, "1"), on("y", "a", 2, "1")],
        wants("1", 10),
        "p preempts x on a",
    );
    // The node whose victims matter less.
    check(nodes(), vec![on("x", "a", 5, "2"), on("y", "b", 1, "2")], wants("2", 10), "p preempts y on b");
    // Equal priority is not preempted.
    check(
        vec![node("a", json!({}))],
        vec![on("x", "a", 10, "2")],
        wants("1", 10),
        &format!("p: 0/1 nodes are available: 1 Insufficient cpu. {NO_VICTIMS}"),
    );
    let mut never = cpu("1");
    merge(&mut never, json!({"spec": {"priority": 10, "preemptionPolicy": "Never"}}));
    check(
        vec![node("a", json!({}))],
        vec![on("x", "a", 1, "2")],
        pod("p", never),
        "p: 0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: not eligible due to preemptionPolicy=Never.",
    );
    // A budget turns the choice.
    let mut world = World::new(nodes());
    world.scheduler.set_budgets(vec![Budget {
        namespace: "ns".into(),
        selector: Selector::from_map(&[("app".to_owned(), "y".to_owned())].into()),
        allowed: 0,
        disrupted: Vec::new(),
    }]);
    world.pod(on("x", "a", 5, "2"));
    world.pod(on("y", "b", 1, "2"));
    world.pod(wants("2", 10));
    assert_eq!(world.next(), "p preempts x on a");
}

#[test]
fn decided_pods_count_at_once_and_failed_bindings_give_back() {
    let mut world = World::new(vec![node("a", json!({}))]);
    world.pod(pod("p1", cpu("2")));
    world.pod(pod("p2", cpu("2")));
    assert_eq!(world.next(), "p1 -> a");
    assert_eq!(world.next(), format!("p2: 0/1 nodes are available: 1 Insufficient cpu. {NO_VICTIMS}"));
    world.scheduler.bound("p1", false, world.now);
    assert_eq!(world.next(), "-", "both back off");
    world.now = Duration::from_secs(1);
    assert_eq!(world.next(), "p1 -> a");
}

#[test]
fn events_wake_only_whom_they_may_help() {
    let mut world = World::new(vec![node("a", json!({}))]);
    world.pod(pod("p", cpu("3")));
    assert!(world.next().contains("Insufficient cpu"));
    world.now = Duration::from_secs(20);
    world.node(node("a", json!({"metadata": {"labels": {"x": "y"}}})));
    assert_eq!(world.next(), "-", "a label does not make more CPU");
    world.node(node("a", json!({"status": {"allocatable": {"cpu": "4"}}})));
    assert_eq!(world.next(), "p -> a");
}

#[test]
fn a_freed_node_is_taken() {
    let mut world = World::new(vec![node("a", json!({}))]);
    let mut bound = cpu("2");
    merge(&mut bound, json!({"spec": {"nodeName": "a"}}));
    world.pod(pod("e", bound.clone()));
    world.pod(pod("p", cpu("1")));
    assert!(world.next().contains("Insufficient cpu"));
    world.now = Duration::from_secs(2);
    merge(&mut bound, json!({"status": {"phase": "Succeeded"}}));
    world.pod(pod("e", bound));
    assert_eq!(world.next(), "p -> a");
}

#[test]
fn own_status_writes_do_not_wake_the_pod() {
    let mut world = World::new(vec![node("a", json!({}))]);
    world.pod(pod("p", cpu("3")));
    assert!(world.next().contains("Insufficient cpu"));
    world.now = Duration::from_secs(20);
    let mut seen = cpu("3");
    merge(
        &mut seen,
        json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "m"}]}}),
    );
    world.pod(pod("p", seen));
    assert_eq!(world.next(), "-");
    assert_eq!(world.scheduler.next_due(), Some(Duration::from_secs(300)), "tried again in the end");
}

#[test]
fn gates_and_other_schedulers() {
    let mut world = World::new(vec![node("a", json!({}))]);
    world.pod(pod("g", json!({"spec": {"schedulingGates": [{"name": "example.com/wait"}]}})));
    world.pod(pod("o", json!({"spec": {"schedulerName": "other"}})));
    assert_eq!(world.next(), "-");
    world.pod(pod("g", json!({})));
    assert_eq!(world.next(), "g -> a");
}

#[test]
fn higher_priority_first_then_older() {
    let mut world = World::new(vec![node("a", json!({}))]);
    world.pod(pod("first", json!({})));
    world.pod(pod("second", json!({})));
    world.pod(pod("urgent", json!({"spec": {"priority": 5}})));
    assert_eq!([world.next(), world.next(), world.next()], ["urgent -> a", "first -> a", "second -> a"]);
}

#[test]
fn a_node_that_comes_back_has_its_pods() {
    let mut world = World::new(vec![]);
    let mut bound = cpu("2");
    merge(&mut bound, json!({"spec": {"nodeName": "a"}}));
    world.pod(pod("e", bound));
    world.node(node("a", json!({})));
    world.pod(pod("p", cpu("1")));
    assert!(world.next().contains("Insufficient cpu"));
}

#[test]
fn ten_thousand_waiting_pods_are_no_burden() {
    let mut world = World::new(vec![node("a", json!({}))]);
    for n in 0..10_000 {
        world.pod(pod(&format!("p{n:05}"), cpu("3")));
    }
    let mut waiting = 0;
    while world.next() != "-" {
        waiting += 1;
    }
    assert_eq!(waiting, 10_000);
    assert_eq!(world.scheduler.next_due(), Some(Duration::from_secs(300)));
}
