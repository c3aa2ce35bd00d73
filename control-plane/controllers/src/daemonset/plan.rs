//! Which nodes should run a DaemonSet's pod, what to make and delete, and the status. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodTemplateSpec,
    Toleration,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use keelson_client::projections::affinity::matches_required;
use keelson_client::projections::{Meta, NodeView, PodPhase, PodView, TaintEffect};

use crate::kit::history::REVISION_LABEL;
use crate::kit::pods::{BURST, from_template};

/// A pod that failed is replaced when it is this old.
const FAILED_WAIT: i64 = 10;

/// A step.
#[derive(Debug, Default)]
pub struct Plan {
    /// Nodes that get a pod.
    pub create: Vec<Box<str>>,
    pub delete: Vec<Arc<PodView>>,
    pub status: DaemonSetStatus,
    /// Pods that failed and go, for events.
    pub failed: Vec<Arc<PodView>>,
    pub again: Option<Duration>,
}

/// The template with the tolerations every daemon pod has.
pub fn template(ds: &DaemonSet) -> PodTemplateSpec {
    let mut template = ds.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let spec = template.spec.get_or_insert_default();
    let host_network = spec.host_network.unwrap_or(false);
    let tolerations = spec.tolerations.get_or_insert_default();
    let mut add = |key: &str, effect: &str| {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    };
    add("node.kubernetes.io/not-ready", "NoExecute");
    add("node.kubernetes.io/unreachable", "NoExecute");
    add("node.kubernetes.io/disk-pressure", "NoSchedule");
    add("node.kubernetes.io/memory-pressure", "NoSchedule");
    add("node.kubernetes.io/pid-pressure", "NoSchedule");
    add("node.kubernetes.io/unschedulable", "NoSchedule");
    if host_network {
        add("node.kubernetes.io/network-unavailable", "NoSchedule");
    }
    template
}

/// The pod for a node: the template, bound to the node by a node affinity that the scheduler honours.
pub fn pod(ds: &DaemonSet, meta: &Meta, hash: &str, node: &str) -> Pod {
    let mut template = template(ds);
    template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default()
        .insert(REVISION_LABEL.to_owned(), hash.to_owned());
    let field = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let spec = template.spec.get_or_insert_default();
    let affinity = spec
        .affinity
        .get_or_insert_with(Affinity::default)
        .node_affinity
        .get_or_insert_with(NodeAffinity::default);
    match &mut affinity.required_during_scheduling_ignored_during_execution {
        Some(selector) if !selector.node_selector_terms.is_empty() => {
            // Terms are alternatives: each is narrowed to the node.
            for term in &mut selector.node_selector_terms {
                term.match_fields = Some(vec![field.clone()]);
            }
        }
        other => {
            *other = Some(NodeSelector {
                node_selector_terms: vec![NodeSelectorTerm {
                    match_fields: Some(vec![field]),
                    match_expressions: None,
                }],
            });
        }
    }
    from_template(&template, "apps/v1", "DaemonSet", meta)
}

/// The node a pod is on, or is meant for.
fn node_of(pod: &PodView) -> Option<Box<str>> {
    if let Some(node) = &pod.node {
        return Some(node.clone());
    }
    let affinity = pod.pending.as_ref()?.node_affinity.as_ref()?;
    let selector = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = selector.node_selector_terms.iter().flat_map(|t| t.match_fields.iter().flatten());
    fields
        .filter(|f| f.key == "metadata.name")
        .find_map(|f| f.values.as_ref()?.first())
        .map(|n| n.as_str().into())
}

/// (should run, may go on running) (`NodeShouldRunDaemonPod`).
fn should_run(probe: &PodView, node: &NodeView) -> (bool, bool) {
    if !matches_required(probe, node) {
        return (false, false);
    }
    let tolerated = |effect: TaintEffect| {
        let mut taints = node.taints.iter().filter(|t| t.effect == effect);
        taints.all(|taint| probe.tolerations.iter().any(|t| t.tolerates(taint)))
    };
    let stays = tolerated(TaintEffect::NoExecute);
    (stays && tolerated(TaintEffect::NoSchedule), stays)
}

struct Planner<'a> {
    hash: &'a str,
    min_ready: i32,
    now: Timestamp,
    plan: Plan,
}

fn number(value: Option<&IntOrString>, default: i32, total: i32) -> i32 {
    match value {
        None => default,
        Some(value) => crate::deployment::scaled(value, total, true),
    }
}

/// Decides; `pods` are the DaemonSet's, `hash` its newest revision's.
pub fn plan(
    ds: &DaemonSet,
    pods: &[Arc<PodView>],
    nodes: &[Arc<NodeView>],
    hash: &str,
    may_manage: bool,
    now: Timestamp,
) -> Plan {
    let spec = ds.spec.clone().unwrap_or_default();
    let mut planner =
        Planner { hash, min_ready: spec.min_ready_seconds.unwrap_or(0), now, plan: Plan::default() };
    let template = template(ds);
    let probe =
        PodView::new(&Pod { metadata: Default::default(), spec: template.spec.clone(), status: None });
    let mut by_node: BTreeMap<Box<str>, Vec<Arc<PodView>>> = BTreeMap::new();
    for pod in pods {
        by_node.entry(node_of(pod).unwrap_or_default()).or_default().push(pod.clone());
    }
    let fates: Vec<(&Arc<NodeView>, (bool, bool))> =
        nodes.iter().map(|n| (n, should_run(&probe, n))).collect();
    planner.plan.status = planner.status(ds, &fates, &by_node);
    if may_manage && ds.metadata.deletion_timestamp.is_none() {
        let surge = {
            let rolling = spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
            let desired = planner.plan.status.desired_number_scheduled;
            number(rolling.and_then(|r| r.max_surge.as_ref()), 0, desired)
        };
        planner.manage(&fates, &by_node, surge > 0);
        // Pods on nodes that are gone go with the garbage collector.
        let rolls = spec
            .update_strategy
            .as_ref()
            .and_then(|s| s.type_.as_deref())
            .is_none_or(|t| t == "RollingUpdate");
        if rolls && planner.plan.create.is_empty() && planner.plan.delete.is_empty() {
            planner.roll(&spec, &fates, &by_node, surge);
        }
    }
    planner.plan.create.truncate(BURST);
    planner.plan.delete.truncate(BURST);
    planner.plan
}

impl Planner<'_> {
    fn is_new(&self, pod: &PodView) -> bool {
        pod.meta.labels.get(REVISION_LABEL) == Some(self.hash)
    }

    fn is_available(&self, pod: &PodView) -> bool {
        pod.is_available(self.min_ready, self.now)
    }

    fn status(
        &self,
        ds: &DaemonSet,
        fates: &[(&Arc<NodeView>, (bool, bool))],
        by_node: &BTreeMap<Box<str>, Vec<Arc<PodView>>>,
    ) -> DaemonSetStatus {
        let mut status = DaemonSetStatus {
            observed_generation: ds.metadata.generation,
            collision_count: ds.status.as_ref().and_then(|s| s.collision_count),
            conditions: ds.status.as_ref().and_then(|s| s.conditions.clone()),
            ..DaemonSetStatus::default()
        };
        let (mut updated, mut available) = (0, 0);
        for (node, (runs, _)) in fates {
            let pods = by_node.get(&node.meta.name).map_or(&[][..], Vec::as_slice);
            let scheduled = !pods.is_empty();
            if !runs {
                status.number_misscheduled += i32::from(scheduled);
                continue;
            }
            status.desired_number_scheduled += 1;
            if !scheduled {
                continue;
            }
            status.current_number_scheduled += 1;
            let mut ordered: Vec<&Arc<PodView>> = pods.iter().collect();
            ordered.sort_by_key(|p| p.meta.created);
            // The oldest counts, as upstream.
            if let Some(pod) = ordered.iter().find(|p| p.meta.deleted.is_none()).or(ordered.first()) {
                status.number_ready += i32::from(pod.ready);
                available += i32::from(self.is_available(pod));
                updated += i32::from(self.is_new(pod));
            }
        }
        let some = |n: i32| Some(n).filter(|n| *n != 0);
        status.updated_number_scheduled = some(updated);
        status.number_available = some(available);
        status.number_unavailable = some(status.desired_number_scheduled - available);
        status
    }

    fn later(&mut self, seconds: i64) {
        let delay = Duration::from_secs(u64::try_from(seconds.max(1)).unwrap_or(1));
        self.plan.again = Some(self.plan.again.map_or(delay, |a| a.min(delay)));
    }

    /// One pod per node that should run one; none where it must not.
    fn manage(
        &mut self,
        fates: &[(&Arc<NodeView>, (bool, bool))],
        by_node: &BTreeMap<Box<str>, Vec<Arc<PodView>>>,
        surges: bool,
    ) {
        for (node, (runs, stays)) in fates {
            let pods = by_node.get(&node.meta.name).map_or(&[][..], Vec::as_slice);
            if *runs && pods.is_empty() {
                self.plan.create.push(node.meta.name.clone());
                continue;
            }
            if !stays {
                self.plan.delete.extend(pods.iter().filter(|p| p.meta.deleted.is_none()).cloned());
                continue;
            }
            let mut running: Vec<Arc<PodView>> = Vec::new();
            for pod in pods.iter().filter(|p| p.meta.deleted.is_none()) {
                if pod.phase != PodPhase::Failed {
                    running.push(pod.clone());
                    continue;
                }
                let age = self.now.as_second() - pod.meta.created.as_second();
                if age < FAILED_WAIT {
                    self.later(FAILED_WAIT - age);
                } else {
                    self.plan.failed.push(pod.clone());
                    self.plan.delete.push(pod.clone());
                }
            }
            if !runs || running.len() <= 1 {
                continue;
            }
            running.sort_by_key(|p| p.meta.created);
            let one_each =
                surges && running.iter().filter(|p| self.is_new(p)).count() == 1 && running.len() == 2;
            if !one_each {
                self.plan.delete.extend(running.into_iter().skip(1));
            }
        }
    }

    /// Replaces old pods as far as availability, or surge, allows.
    fn roll(
        &mut self,
        spec: &k8s_openapi::api::apps::v1::DaemonSetSpec,
        fates: &[(&Arc<NodeView>, (bool, bool))],
        by_node: &BTreeMap<Box<str>, Vec<Arc<PodView>>>,
        surge: i32,
    ) {
        let rolling = spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        let desired = self.plan.status.desired_number_scheduled;
        let mut may_miss = number(rolling.and_then(|r| r.max_unavailable.as_ref()), 1, desired);
        if surge == 0 {
            may_miss = may_miss.max(1);
        }
        let (mut missing, mut surging) = (0, 0);
        let (mut at_once, mut candidates, mut new_on) = (Vec::new(), Vec::new(), Vec::new());
        for (node, (runs, _)) in fates {
            let pods = by_node.get(&node.meta.name).map_or(&[][..], Vec::as_slice);
            let pick =
                |new: bool| pods.iter().filter(|p| self.is_new(p) == new).min_by_key(|p| p.meta.created);
            let (new, old) = (pick(true), pick(false).filter(|p| p.meta.deleted.is_none()));
            let new_available = new.is_some_and(|p| self.is_available(p));
            match (old, new) {
                (None, _) => missing += i32::from(*runs && !new_available),
                (Some(old), None) if !self.is_available(old) => {
                    missing += i32::from(*runs);
                    if surge > 0 { new_on.push(node.meta.name.clone()) } else { at_once.push(old.clone()) }
                }
                (Some(old), None) if surge > 0 => candidates.push((old.clone(), node.meta.name.clone())),
                (Some(old), None) => candidates.push((old.clone(), node.meta.name.clone())),
                (Some(old), Some(_)) if new_available || !self.is_available(old) => at_once.push(old.clone()),
                (Some(_), Some(_)) => surging += 1,
            }
        }
        if surge > 0 {
            new_on.extend(candidates.into_iter().map(|(_, node)| node));
            let room = usize::try_from(surge - surging).unwrap_or(0);
            self.plan.create.extend(new_on.into_iter().take(room));
            self.plan.delete.extend(at_once);
            return;
        }
        let room = usize::try_from(may_miss - missing).unwrap_or(0);
        self.plan.delete.extend(at_once);
        self.plan.delete.extend(candidates.into_iter().take(room).map(|(pod, _)| pod));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn ds(spec: Value) -> DaemonSet {
        let mut json = json!({"metadata": {"namespace": "ns", "name": "d", "uid": "d", "generation": 1}, "spec": {
            "selector": {"matchLabels": {"app": "d"}}, "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c"}]}}}});
        for (key, value) in spec.as_object().unwrap() {
            json["spec"][key] = value.clone();
        }
        serde_json::from_value(json).unwrap()
    }

    fn node(name: &str, spec: Value) -> Arc<NodeView> {
        Arc::new(NodeView::new(
            &serde_json::from_value(json!({"metadata": {"name": name, "labels": {"n": name}}, "spec": spec}))
                .unwrap(),
        ))
    }

    fn daemon(name: &str, node: &str, hash: &str, ready: bool) -> Arc<PodView> {
        let ready = if ready { "True" } else { "False" };
        Arc::new(PodView::new(&serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": name, "uid": name, "labels": {"app": "d", "controller-revision-hash": hash}},
            "spec": {"containers": [], "nodeName": node},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})).unwrap()))
    }

    fn step(ds: &DaemonSet, pods: &[Arc<PodView>], nodes: &[Arc<NodeView>]) -> (String, Plan) {
        let plan = plan(ds, pods, nodes, "h2", true, "2026-01-01T01:00:00Z".parse().unwrap());
        let names: Vec<&str> = plan.delete.iter().map(|p| &*p.meta.name).collect();
        (format!("+{} -{}", plan.create.join(","), names.join(",")), plan)
    }

    #[test]
    fn a_pod_on_every_node_that_fits() {
        let nodes = [
            node("a", json!({})),
            node(
                "b",
                json!({"unschedulable": true, "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}),
            ),
            node("c", json!({"taints": [{"key": "own", "effect": "NoSchedule"}]})),
            node("d", json!({"taints": [{"key": "own", "effect": "NoExecute"}]})),
        ];
        let (text, first) = step(&ds(json!({})), &[], &nodes);
        assert_eq!(text, "+a,b -");
        assert_eq!(first.status.desired_number_scheduled, 2);
        let pods = [
            daemon("pa", "a", "h2", true),
            daemon("pb", "b", "h2", true),
            daemon("pc", "c", "h2", true),
            daemon("pd", "d", "h2", true),
        ];
        let (text, second) = step(&ds(json!({})), &pods, &nodes);
        assert_eq!(text, "+ -pd", "a NoSchedule taint does not drive away what runs");
        assert_eq!((second.status.number_misscheduled, second.status.number_ready), (2, 2));
        let selective = ds(
            json!({"template": {"metadata": {"labels": {"app": "d"}}, "spec": {"nodeSelector": {"n": "b"}, "containers": []}}}),
        );
        assert_eq!(step(&selective, &[], &nodes).0, "+b -");
    }

    #[test]
    fn the_pod_is_bound_by_affinity_and_tolerates() {
        let meta = Meta { namespace: "ns".into(), name: "d".into(), uid: "d".into(), ..Meta::default() };
        let json = serde_json::to_value(pod(&ds(json!({})), &meta, "h", "n1")).unwrap();
        let term = &json["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            ["nodeSelectorTerms"][0];
        assert_eq!(
            *term,
            json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]})
        );
        assert_eq!(json["spec"]["tolerations"].as_array().unwrap().len(), 6);
        assert_eq!(json["metadata"]["labels"]["controller-revision-hash"], "h");
        let view = PodView::new(&serde_json::from_value(json).unwrap());
        assert_eq!(node_of(&view).as_deref(), Some("n1"));
    }

    #[test]
    fn rolls_within_unavailability_and_surge() {
        let nodes = [node("a", json!({})), node("b", json!({})), node("c", json!({}))];
        let old = |ready: bool| {
            [daemon("pa", "a", "h1", ready), daemon("pb", "b", "h1", true), daemon("pc", "c", "h1", true)]
        };
        assert_eq!(step(&ds(json!({})), &old(true), &nodes).0, "+ -pa");
        assert_eq!(
            step(&ds(json!({})), &old(false), &nodes).0,
            "+ -pa",
            "what does not work goes first and uses the allowance"
        );
        let two =
            ds(json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}}));
        assert_eq!(step(&two, &old(true), &nodes).0, "+ -pa,pb");
        assert_eq!(step(&ds(json!({"updateStrategy": {"type": "OnDelete"}})), &old(true), &nodes).0, "+ -");
        let surge = ds(
            json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}),
        );
        assert_eq!(step(&surge, &old(true), &nodes).0, "+a -");
        let mut both = old(true).to_vec();
        both.push(daemon("na", "a", "h2", true));
        assert_eq!(step(&surge, &both, &nodes).0, "+b -pa");
    }
}
