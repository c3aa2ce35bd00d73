//! NodeAffinity, with the plain node selector.

use keelson_client::projections::PodView;
pub(crate) use keelson_client::projections::affinity::matches_required;
use keelson_client::projections::affinity::term_matches;

use crate::framework::*;

/// Filters by node selector and required node affinity, scores by preferred node affinity.
pub struct NodeAffinity;

const REASON: &str = "node(s) didn't match Pod's node affinity/selector";

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn may_help(&self, pod: &PodView, event: &ClusterEvent) -> bool {
        match event {
            ClusterEvent::NodeAdded(node) => matches_required(pod, node),
            ClusterEvent::NodeUpdated(old, new) => !matches_required(pod, old) && matches_required(pod, new),
            _ => false,
        }
    }
}

impl PreFilter for NodeAffinity {
    fn pre_filter(
        &self,
        _: &mut CycleState,
        pod: &PodView,
        _: &Snapshot,
    ) -> Result<PreFilterResult, Rejection> {
        let Some(pending) = &pod.pending else { return Ok(PreFilterResult::Skip) };
        let required = pending
            .node_affinity
            .as_ref()
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        if required.is_none() && pending.node_selector.is_empty() {
            return Ok(PreFilterResult::Skip);
        }
        let terms = required.map_or(&[][..], |r| &r.node_selector_terms);
        let mut names: Vec<Box<str>> = Vec::new();
        for term in terms {
            // Every term must name nodes for the set to be closed; within a term the intersection counts.
            let mut of_term: Option<Vec<&str>> = None;
            for field in term.match_fields.iter().flatten() {
                if field.key == "metadata.name" && field.operator == "In" {
                    let named: Vec<&str> = field.values.iter().flatten().map(String::as_str).collect();
                    of_term = Some(match of_term {
                        Some(before) => before.into_iter().filter(|n| named.contains(n)).collect(),
                        None => named,
                    });
                }
            }
            match of_term {
                Some(named) => names.extend(named.into_iter().map(Into::into)),
                None => return Ok(PreFilterResult::All),
            }
        }
        if terms.is_empty() {
            return Ok(PreFilterResult::All);
        }
        if names.is_empty() {
            return Err(Rejection::unresolvable(self.name(), "pod affinity terms conflict"));
        }
        Ok(PreFilterResult::Nodes(names))
    }
}

impl Filter for NodeAffinity {
    fn filter(&self, _: &CycleState, pod: &PodView, node: &NodeInfo) -> Result<(), Rejection> {
        if matches_required(pod, &node.node) {
            Ok(())
        } else {
            Err(Rejection::unresolvable(self.name(), REASON))
        }
    }
}

impl Score for NodeAffinity {
    fn pre_score(&self, _: &mut CycleState, pod: &PodView, _: &Snapshot, _: &[usize]) -> bool {
        pod.pending.as_ref().and_then(|p| p.node_affinity.as_ref()).is_some_and(|a| {
            a.preferred_during_scheduling_ignored_during_execution.as_ref().is_some_and(|p| !p.is_empty())
        })
    }

    fn score(&self, _: &CycleState, pod: &PodView, node: &NodeInfo) -> i64 {
        pod.pending
            .iter()
            .filter_map(|p| p.node_affinity.as_ref())
            .flat_map(|a| a.preferred_during_scheduling_ignored_during_execution.iter().flatten())
            .filter(|p| term_matches(&p.preference, &node.node))
            .map(|p| i64::from(p.weight))
            .sum()
    }

    fn normalize(&self, _: &CycleState, scores: &mut [i64]) {
        default_normalize(scores, false);
    }
}
