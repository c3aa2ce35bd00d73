//! InterPodAffinity: a pod's affinity and anti-affinity to pods, and other pods' anti-affinity to it.

use std::sync::Arc;

use ahash::AHashMap;
use keelson_client::projections::pod::{PodAffinity, PodTerm};
use keelson_client::projections::{Labels, PodView};

use crate::framework::*;

/// Places pods near or away from other pods.
pub struct InterPodAffinity;

const EXISTING_ANTI: &str = "node(s) didn't satisfy existing pods anti-affinity rules";
const AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI: &str = "node(s) didn't match pod anti-affinity rules";
/// Weight that an existing pod's required affinity has in the score (`HardPodAffinityWeight`).
const HARD_AFFINITY_WEIGHT: i64 = 1;

type Namespaces = AHashMap<Box<str>, Labels>;
/// Counts by (topology key, value).
type Pairs = AHashMap<(Box<str>, Box<str>), i64>;

fn term_matches(term: &PodTerm, pod: &PodView, namespaces: &Namespaces) -> bool {
    let in_namespace = term.namespaces.contains(&pod.meta.namespace)
        || namespaces.get(&pod.meta.namespace).is_some_and(|labels| term.namespace_selector.matches(labels));
    in_namespace && term.selector.matches(&pod.meta.labels)
}

fn all_match(terms: &[PodTerm], pod: &PodView, namespaces: &Namespaces) -> bool {
    !terms.is_empty() && terms.iter().all(|t| term_matches(t, pod, namespaces))
}

fn count(pairs: &mut Pairs, node: &NodeInfo, term: &PodTerm, by: i64) {
    if let Some(value) = node.node.meta.labels.get(&term.topology_key) {
        *pairs.entry((term.topology_key.clone(), value.into())).or_default() += by;
    }
}

fn get(pairs: &Pairs, node: &NodeInfo, key: &str) -> i64 {
    let Some(value) = node.node.meta.labels.get(key) else { return 0 };
    pairs.get(&(Box::from(key), Box::from(value))).copied().unwrap_or(0)
}

struct FilterState {
    existing_anti: Pairs,
    affinity: Pairs,
    anti: Pairs,
    /// The pod matches its own affinity terms: the first of a group may go anywhere.
    self_match: bool,
}

struct ScoreState(Pairs);
const SCORE_STATE: &str = "InterPodAffinity/score";

fn affinity(pod: &PodView) -> Option<&PodAffinity> {
    pod.affinity.as_deref()
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn may_help(&self, _: &PodView, event: &ClusterEvent) -> bool {
        match event {
            ClusterEvent::NodeUpdated(old, new) => old.meta.labels != new.meta.labels,
            ClusterEvent::NodeRemoved => false,
            _ => true,
        }
    }
}

impl PreFilter for InterPodAffinity {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodView,
        snapshot: &Snapshot,
    ) -> Result<PreFilterResult, Rejection> {
        let empty = PodAffinity::default();
        let own = affinity(pod).unwrap_or(&empty);
        let namespaces = &snapshot.namespaces;
        let mut existing_anti = Pairs::new();
        let (mut near, mut away) = (Pairs::new(), Pairs::new());
        let has_own = !own.required.is_empty() || !own.anti_required.is_empty();
        for node in &snapshot.nodes {
            if node.with_affinity == 0 && !has_own {
                continue;
            }
            for existing in &node.pods {
                for term in affinity(existing).iter().flat_map(|a| &a.anti_required) {
                    if term_matches(term, pod, namespaces) {
                        count(&mut existing_anti, node, term, 1);
                    }
                }
                if all_match(&own.required, existing, namespaces) {
                    own.required.iter().for_each(|t| count(&mut near, node, t, 1));
                }
                for term in own.anti_required.iter().filter(|t| term_matches(t, existing, namespaces)) {
                    count(&mut away, node, term, 1);
                }
            }
        }
        if existing_anti.is_empty() && !has_own {
            return Ok(PreFilterResult::Skip);
        }
        let self_match = all_match(&own.required, pod, namespaces);
        state.write(self.name(), FilterState { existing_anti, affinity: near, anti: away, self_match });
        Ok(PreFilterResult::All)
    }
}

impl Filter for InterPodAffinity {
    fn filter(&self, state: &CycleState, pod: &PodView, node: &NodeInfo) -> Result<(), Rejection> {
        let Some(state) = state.read::<FilterState>(self.name()) else { return Ok(()) };
        let empty = PodAffinity::default();
        let own = affinity(pod).unwrap_or(&empty);
        let mut near = true;
        for term in &own.required {
            if node.node.meta.labels.get(&term.topology_key).is_none() {
                return Err(Rejection::unresolvable(self.name(), AFFINITY));
            }
            near &= get(&state.affinity, node, &term.topology_key) > 0;
        }
        let may_be_first = state.affinity.is_empty() && state.self_match;
        if !near && !may_be_first {
            return Err(Rejection::unresolvable(self.name(), AFFINITY));
        }
        if own.anti_required.iter().any(|term| get(&state.anti, node, &term.topology_key) > 0) {
            return Err(Rejection::unschedulable(self.name(), ANTI));
        }
        let repelled = state
            .existing_anti
            .iter()
            .any(|((key, value), count)| *count > 0 && node.node.meta.labels.get(key) == Some(value));
        if repelled {
            return Err(Rejection::unschedulable(self.name(), EXISTING_ANTI));
        }
        Ok(())
    }
}

fn score_pod(
    pairs: &mut Pairs,
    pod: &PodView,
    own: &PodAffinity,
    existing: &Arc<PodView>,
    node: &NodeInfo,
    namespaces: &Namespaces,
) {
    for term in own.preferred.iter().filter(|t| term_matches(t, existing, namespaces)) {
        count(pairs, node, term, i64::from(term.weight));
    }
    for term in own.anti_preferred.iter().filter(|t| term_matches(t, existing, namespaces)) {
        count(pairs, node, term, -i64::from(term.weight));
    }
    let Some(theirs) = affinity(existing) else { return };
    for term in theirs.required.iter().filter(|t| term_matches(t, pod, namespaces)) {
        count(pairs, node, term, HARD_AFFINITY_WEIGHT);
    }
    for term in theirs.preferred.iter().filter(|t| term_matches(t, pod, namespaces)) {
        count(pairs, node, term, i64::from(term.weight));
    }
    for term in theirs.anti_preferred.iter().filter(|t| term_matches(t, pod, namespaces)) {
        count(pairs, node, term, -i64::from(term.weight));
    }
}

impl Score for InterPodAffinity {
    fn pre_score(&self, state: &mut CycleState, pod: &PodView, snapshot: &Snapshot, _: &[usize]) -> bool {
        let empty = PodAffinity::default();
        let own = affinity(pod).unwrap_or(&empty);
        let has_own = !own.preferred.is_empty() || !own.anti_preferred.is_empty();
        let mut pairs = Pairs::new();
        for node in snapshot.nodes.iter().filter(|n| has_own || n.with_affinity > 0) {
            for existing in &node.pods {
                score_pod(&mut pairs, pod, own, existing, node, &snapshot.namespaces);
            }
        }
        if pairs.is_empty() {
            return false;
        }
        state.write(SCORE_STATE, ScoreState(pairs));
        true
    }

    fn score(&self, state: &CycleState, _: &PodView, node: &NodeInfo) -> i64 {
        let Some(ScoreState(pairs)) = state.read(SCORE_STATE) else { return 0 };
        pairs
            .iter()
            .filter(|((key, value), _)| node.node.meta.labels.get(key) == Some(value))
            .map(|(_, weight)| weight)
            .sum()
    }

    fn normalize(&self, _: &CycleState, scores: &mut [i64]) {
        let min = scores.iter().copied().min().unwrap_or(0);
        let max = scores.iter().copied().max().unwrap_or(0);
        for score in scores {
            *score = if max == min { 0 } else { MAX_NODE_SCORE * (*score - min) / (max - min) };
        }
    }
}
