//! TaintToleration.

use keelson_client::projections::{NodeView, PodView, TaintEffect, Toleration};

use crate::framework::*;

/// Filters by NoSchedule and NoExecute taints, scores by PreferNoSchedule.
pub struct TaintToleration;

fn tolerated(pod: &PodView, node: &NodeView) -> bool {
    node.taints
        .iter()
        .filter(|t| matches!(t.effect, TaintEffect::NoSchedule | TaintEffect::NoExecute))
        .all(|taint| pod.tolerations.iter().any(|t| t.tolerates(taint)))
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn may_help(&self, pod: &PodView, event: &ClusterEvent) -> bool {
        match event {
            ClusterEvent::NodeAdded(node) => tolerated(pod, node),
            ClusterEvent::NodeUpdated(old, new) => !tolerated(pod, old) && tolerated(pod, new),
            _ => false,
        }
    }
}

impl Filter for TaintToleration {
    fn filter(&self, _: &CycleState, pod: &PodView, node: &NodeInfo) -> Result<(), Rejection> {
        if tolerated(pod, &node.node) {
            return Ok(());
        }
        Err(Rejection::unresolvable(self.name(), "node(s) had untolerated taint(s)"))
    }
}

impl Score for TaintToleration {
    fn score(&self, _: &CycleState, pod: &PodView, node: &NodeInfo) -> i64 {
        let relevant = |t: &&Toleration| t.effect.is_none_or(|e| e == TaintEffect::PreferNoSchedule);
        let intolerable = node
            .node
            .taints
            .iter()
            .filter(|t| t.effect == TaintEffect::PreferNoSchedule)
            .filter(|taint| !pod.tolerations.iter().filter(relevant).any(|t| t.tolerates(taint)))
            .count();
        intolerable as i64
    }

    fn normalize(&self, _: &CycleState, scores: &mut [i64]) {
        default_normalize(scores, true);
    }
}
