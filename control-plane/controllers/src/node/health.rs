//! What a node's condition means for its taints and conditions. Pure.

use std::time::Duration;

use keelson_client::projections::{NodeView, Taint, TaintEffect};

/// How long a new node may take to report first (`node-startup-grace-period`).
pub const STARTUP_GRACE: Duration = Duration::from_secs(60);

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The node's Ready condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    NotReady,
    Unknown,
}

/// Reads the Ready condition; a node without one is not ready.
pub fn readiness(node: &NodeView) -> Readiness {
    match node.condition("Ready").map(|c| &*c.status) {
        Some("True") => Readiness::Ready,
        Some("Unknown") => Readiness::Unknown,
        _ => Readiness::NotReady,
    }
}

/// The grace a node has: more until it first reported.
pub fn grace(node: &NodeView, usual: Duration) -> Duration {
    if node.condition("Ready").is_some() { usual } else { usual.max(STARTUP_GRACE) }
}

/// The conditions to write for a silent node: (type, reason, message), all Unknown.
pub fn unknown_conditions(node: &NodeView) -> Vec<(&'static str, &'static str, &'static str)> {
    ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"]
        .into_iter()
        .filter_map(|kind| match node.condition(kind) {
            None => Some((kind, "NodeStatusNeverUpdated", "Kubelet never posted node status.")),
            Some(c) if &*c.status != "Unknown" => {
                Some((kind, "NodeStatusUnknown", "Kubelet stopped posting node status."))
            }
            Some(_) => None,
        })
        .collect()
}

fn managed(taint: &Taint) -> bool {
    match taint.effect {
        TaintEffect::NoExecute => matches!(&*taint.key, NOT_READY | UNREACHABLE),
        TaintEffect::NoSchedule => matches!(
            &*taint.key,
            NOT_READY
                | UNREACHABLE
                | UNSCHEDULABLE
                | "node.kubernetes.io/memory-pressure"
                | "node.kubernetes.io/disk-pressure"
                | "node.kubernetes.io/pid-pressure"
                | "node.kubernetes.io/network-unavailable"
        ),
        _ => false,
    }
}

/// The taints the node should have; `None` when it has them. `may_evict` is false while every node is unhealthy: then
/// the fault is likelier here than there, and nothing is evicted.
pub fn taints(node: &NodeView, may_evict: bool) -> Option<Vec<Taint>> {
    let mut wanted: Vec<(&str, TaintEffect)> = Vec::new();
    match readiness(node) {
        Readiness::Ready => {}
        Readiness::NotReady => wanted.push((NOT_READY, TaintEffect::NoSchedule)),
        Readiness::Unknown => wanted.push((UNREACHABLE, TaintEffect::NoSchedule)),
    }
    for (kind, key) in [
        ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
        ("DiskPressure", "node.kubernetes.io/disk-pressure"),
        ("PIDPressure", "node.kubernetes.io/pid-pressure"),
        ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
    ] {
        if node.condition(kind).is_some_and(|c| &*c.status == "True") {
            wanted.push((key, TaintEffect::NoSchedule));
        }
    }
    if node.unschedulable {
        wanted.push((UNSCHEDULABLE, TaintEffect::NoSchedule));
    }
    if may_evict {
        match readiness(node) {
            Readiness::Ready => {}
            Readiness::NotReady => wanted.push((NOT_READY, TaintEffect::NoExecute)),
            Readiness::Unknown => wanted.push((UNREACHABLE, TaintEffect::NoExecute)),
        }
    }
    let mut result: Vec<Taint> = node
        .taints
        .iter()
        .filter(|t| !managed(t) || wanted.iter().any(|(key, effect)| *key == &*t.key && *effect == t.effect))
        .cloned()
        .collect();
    let missing: Vec<Taint> = wanted
        .into_iter()
        .filter(|(key, effect)| !result.iter().any(|t| &*t.key == *key && t.effect == *effect))
        .map(|(key, effect)| Taint { key: key.into(), value: "".into(), effect, added: None })
        .collect();
    result.extend(missing);
    (result != node.taints).then_some(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(conditions: Value, spec: Value) -> NodeView {
        NodeView::new(
            &serde_json::from_value(
                json!({"metadata": {"name": "n"}, "spec": spec, "status": {"conditions": conditions}}),
            )
            .unwrap(),
        )
    }

    fn text(taints: Option<Vec<Taint>>) -> String {
        let Some(taints) = taints else { return "same".to_owned() };
        let short = |t: &Taint| format!("{}:{:?}", t.key.trim_start_matches("node.kubernetes.io/"), t.effect);
        taints.iter().map(short).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn taints_follow_conditions() {
        let ready = |status: &str| json!([{"type": "Ready", "status": status}]);
        let check = |conditions: Value, spec: Value, may_evict: bool, expected: &str| {
            assert_eq!(text(taints(&node(conditions, spec), may_evict)), expected);
        };
        check(ready("True"), json!({}), true, "same");
        check(ready("False"), json!({}), true, "not-ready:NoSchedule not-ready:NoExecute");
        check(ready("Unknown"), json!({}), true, "unreachable:NoSchedule unreachable:NoExecute");
        check(ready("Unknown"), json!({}), false, "unreachable:NoSchedule");
        check(json!([]), json!({}), true, "not-ready:NoSchedule not-ready:NoExecute");
        let own = json!([{"key": "mine", "effect": "NoExecute"}, {"key": UNREACHABLE, "effect": "NoExecute"}, {"key": NOT_READY, "effect": "NoSchedule"}]);
        check(ready("True"), json!({"taints": own}), true, "mine:NoExecute");
        check(ready("True"), json!({"unschedulable": true}), true, "unschedulable:NoSchedule");
        check(
            json!([{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}]),
            json!({}),
            true,
            "disk-pressure:NoSchedule",
        );
    }

    #[test]
    fn silence_makes_all_conditions_unknown() {
        let silent = node(
            json!([{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "Unknown"}]),
            json!({}),
        );
        let reasons: Vec<_> = unknown_conditions(&silent).into_iter().map(|c| (c.0, c.1)).collect();
        assert_eq!(
            reasons,
            [
                ("Ready", "NodeStatusUnknown"),
                ("MemoryPressure", "NodeStatusNeverUpdated"),
                ("PIDPressure", "NodeStatusNeverUpdated"),
            ]
        );
    }
}
