//! PodTopologySpread: explicit constraints, and upstream's defaults for pods of one controller.

use std::sync::Arc;

use ahash::AHashMap;
use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use keelson_client::projections::{Meta, NodeView, PodView, Selector, TaintEffect};

use super::affinity::matches_required;
use crate::framework::*;

/// Spreads pods over topology domains.
pub struct PodTopologySpread;

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const MISMATCH: &str = "node(s) didn't match pod topology spread constraints";
const MISSING_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

/// Which pods a constraint counts.
#[derive(Clone)]
enum Counted {
    Selected(Selector),
    /// Pods of the same controller: upstream's default constraints select by the services and owners of the pod, which
    /// for the pods of one controller are these.
    Controller(Box<str>),
}

impl Counted {
    fn matches(&self, meta: &Meta) -> bool {
        match self {
            Counted::Selected(selector) => selector.matches(&meta.labels),
            Counted::Controller(uid) => meta.controller().is_some_and(|owner| owner.uid == *uid),
        }
    }

    fn on(&self, node: &NodeInfo, namespace: &str) -> i64 {
        if matches!(self, Counted::Selected(selector) if selector.is_everything()) {
            return 0;
        }
        let counts = |p: &&Arc<PodView>| {
            p.meta.deleted.is_none() && &*p.meta.namespace == namespace && self.matches(&p.meta)
        };
        node.pods.iter().filter(counts).count() as i64
    }
}

struct Constraint {
    max_skew: i64,
    key: Box<str>,
    counted: Counted,
    min_domains: usize,
    honor_affinity: bool,
    honor_taints: bool,
}

impl Constraint {
    fn new(constraint: &TopologySpreadConstraint, pod: &PodView) -> Option<Self> {
        let mut selector = Selector::from_label_selector(constraint.label_selector.as_ref()).ok()?;
        for key in constraint.match_label_keys.iter().flatten() {
            if let Some(value) = pod.meta.labels.get(key) {
                selector = selector.and_equal(key, value);
            }
        }
        Some(Constraint {
            max_skew: i64::from(constraint.max_skew),
            key: constraint.topology_key.as_str().into(),
            counted: Counted::Selected(selector),
            min_domains: constraint.min_domains.and_then(|d| usize::try_from(d).ok()).unwrap_or(1),
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        })
    }

    fn includes(&self, pod: &PodView, node: &NodeView) -> bool {
        let taints_ok = || {
            node.taints
                .iter()
                .filter(|t| matches!(t.effect, TaintEffect::NoSchedule | TaintEffect::NoExecute))
                .all(|taint| pod.tolerations.iter().any(|t| t.tolerates(taint)))
        };
        (!self.honor_affinity || matches_required(pod, node)) && (!self.honor_taints || taints_ok())
    }
}

fn has_all_keys(node: &NodeView, constraints: &[Constraint]) -> bool {
    constraints.iter().all(|c| node.meta.labels.get(&c.key).is_some())
}

struct FilterState {
    constraints: Vec<Constraint>,
    counts: Vec<AHashMap<Box<str>, i64>>,
}

struct ScoreState {
    constraints: Vec<Constraint>,
    counts: Vec<AHashMap<Box<str>, i64>>,
    weights: Vec<f64>,
    require_all: bool,
    ignored: Vec<bool>,
}

const SCORE_STATE: &str = "PodTopologySpread/score";

fn constraints_of(pod: &PodView, when: &str) -> Vec<Constraint> {
    let all = pod.pending.as_ref().map_or(&[][..], |p| &p.spread);
    all.iter().filter(|c| c.when_unsatisfiable == when).filter_map(|c| Constraint::new(c, pod)).collect()
}

fn default_constraints(pod: &PodView) -> Vec<Constraint> {
    let Some(controller) = pod.meta.controller() else { return Vec::new() };
    [(HOSTNAME, 3), (ZONE, 5)]
        .into_iter()
        .map(|(key, max_skew)| Constraint {
            max_skew,
            key: key.into(),
            counted: Counted::Controller(controller.uid.clone()),
            min_domains: 1,
            honor_affinity: true,
            honor_taints: false,
        })
        .collect()
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn may_help(&self, pod: &PodView, event: &ClusterEvent) -> bool {
        match event {
            ClusterEvent::NodeAdded(_) | ClusterEvent::NodeRemoved => true,
            ClusterEvent::NodeUpdated(old, new) => {
                old.meta.labels != new.meta.labels || old.taints != new.taints
            }
            ClusterEvent::AssignedPodChanged(other) | ClusterEvent::AssignedPodGone(other) => {
                other.meta.namespace == pod.meta.namespace
            }
            ClusterEvent::NamespaceChanged => false,
        }
    }
}

impl PreFilter for PodTopologySpread {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodView,
        snapshot: &Snapshot,
    ) -> Result<PreFilterResult, Rejection> {
        let asked = pod
            .pending
            .as_ref()
            .map_or(0, |p| p.spread.iter().filter(|c| c.when_unsatisfiable == "DoNotSchedule").count());
        let constraints = constraints_of(pod, "DoNotSchedule");
        if constraints.len() != asked {
            return Err(Rejection::unresolvable(
                self.name(),
                "invalid selector in a topology spread constraint",
            ));
        }
        if constraints.is_empty() {
            return Ok(PreFilterResult::Skip);
        }
        let mut counts: Vec<AHashMap<Box<str>, i64>> = vec![AHashMap::new(); constraints.len()];
        for node in snapshot.nodes.iter().filter(|n| has_all_keys(&n.node, &constraints)) {
            for (constraint, counts) in constraints.iter().zip(&mut counts) {
                if constraint.includes(pod, &node.node) {
                    let domain = node.node.meta.labels.get(&constraint.key).unwrap_or_default();
                    *counts.entry(domain.into()).or_default() +=
                        constraint.counted.on(node, &pod.meta.namespace);
                }
            }
        }
        state.write(self.name(), FilterState { constraints, counts });
        Ok(PreFilterResult::All)
    }
}

impl Filter for PodTopologySpread {
    fn filter(&self, state: &CycleState, pod: &PodView, node: &NodeInfo) -> Result<(), Rejection> {
        let Some(FilterState { constraints, counts }) = state.read(self.name()) else { return Ok(()) };
        for (constraint, counts) in constraints.iter().zip(counts) {
            let Some(domain) = node.node.meta.labels.get(&constraint.key) else {
                return Err(Rejection::unresolvable(self.name(), MISSING_LABEL));
            };
            // Fewer domains than asked for count as if an empty one existed.
            let minimum = if counts.len() < constraint.min_domains {
                0
            } else {
                counts.values().copied().min().unwrap_or(i64::from(i32::MAX))
            };
            let own = i64::from(constraint.counted.matches(&pod.meta));
            if counts.get(domain).copied().unwrap_or(0) + own - minimum > constraint.max_skew {
                return Err(Rejection::unschedulable(self.name(), MISMATCH));
            }
        }
        Ok(())
    }
}

impl Score for PodTopologySpread {
    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodView,
        snapshot: &Snapshot,
        feasible: &[usize],
    ) -> bool {
        let explicit = pod.pending.as_ref().is_some_and(|p| !p.spread.is_empty());
        let constraints =
            if explicit { constraints_of(pod, "ScheduleAnyway") } else { default_constraints(pod) };
        if constraints.is_empty() {
            return false;
        }
        let ignored: Vec<bool> = feasible
            .iter()
            .map(|i| explicit && !has_all_keys(&snapshot.nodes[*i].node, &constraints))
            .collect();
        let mut counts: Vec<AHashMap<Box<str>, i64>> = vec![AHashMap::new(); constraints.len()];
        let taking_part = || {
            feasible.iter().zip(&ignored).filter(|(_, ignored)| !**ignored).map(|(i, _)| &snapshot.nodes[*i])
        };
        for node in taking_part() {
            for (constraint, counts) in
                constraints.iter().zip(&mut counts).filter(|(c, _)| &*c.key != HOSTNAME)
            {
                counts
                    .entry(node.node.meta.labels.get(&constraint.key).unwrap_or_default().into())
                    .or_default();
            }
        }
        let hosts = taking_part().count();
        let weights = constraints
            .iter()
            .zip(&counts)
            .map(|(c, counts)| (if &*c.key == HOSTNAME { hosts } else { counts.len() } as f64 + 2.0).ln())
            .collect();
        for node in snapshot.nodes.iter().filter(|n| !explicit || has_all_keys(&n.node, &constraints)) {
            for (constraint, counts) in constraints.iter().zip(&mut counts) {
                let domain = node.node.meta.labels.get(&constraint.key).unwrap_or_default();
                if let Some(count) = counts.get_mut(domain).filter(|_| constraint.includes(pod, &node.node)) {
                    *count += constraint.counted.on(node, &pod.meta.namespace);
                }
            }
        }
        state.write(SCORE_STATE, ScoreState { constraints, counts, weights, require_all: explicit, ignored });
        true
    }

    fn score(&self, state: &CycleState, pod: &PodView, node: &NodeInfo) -> i64 {
        let Some(state) = state.read::<ScoreState>(SCORE_STATE) else { return 0 };
        if state.require_all && !has_all_keys(&node.node, &state.constraints) {
            return 0;
        }
        let mut score = 0.0;
        for ((constraint, counts), weight) in state.constraints.iter().zip(&state.counts).zip(&state.weights)
        {
            let Some(domain) = node.node.meta.labels.get(&constraint.key) else { continue };
            let count = if &*constraint.key == HOSTNAME {
                constraint.counted.on(node, &pod.meta.namespace)
            } else {
                counts.get(domain).copied().unwrap_or(0)
            };
            score += count as f64 * weight + (constraint.max_skew - 1) as f64;
        }
        score.round() as i64
    }

    fn normalize(&self, state: &CycleState, scores: &mut [i64]) {
        let Some(state) = state.read::<ScoreState>(SCORE_STATE) else { return };
        let part = || scores.iter().zip(&state.ignored).filter(|(_, ignored)| !**ignored).map(|(s, _)| *s);
        let (min, max) = (part().min().unwrap_or(0), part().max().unwrap_or(0));
        for (score, ignored) in scores.iter_mut().zip(&state.ignored) {
            *score = match (ignored, max) {
                (true, _) => 0,
                (false, 0) => MAX_NODE_SCORE,
                (false, max) => MAX_NODE_SCORE * (max + min - *score) / max,
            };
        }
    }
}
