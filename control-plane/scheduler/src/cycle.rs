//! One scheduling cycle: pre-filter, filter, score, choose. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ahash::AHashMap;
use keelson_client::projections::PodView;

use crate::framework::*;

/// Below this many nodes all are looked at (`minFeasibleNodesToFind`).
const MIN_FEASIBLE: usize = 100;

/// What upstream's dynamic resources plugin says after the filters of a pod without resource claims; preemption comes next.
pub(crate) const NO_CLAIMS: &str = "no new claims to deallocate";

/// Pods that preemption made room for, by node.
pub type Nominated = AHashMap<Box<str>, Vec<Arc<PodView>>>;

/// Why no node was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diagnosis {
    /// How many nodes there are.
    pub total: usize,
    /// Why the pod as a whole was refused.
    pub pre_filter: Option<Rejection>,
    /// Why nodes were refused, by their index in the snapshot.
    pub rejections: Vec<(usize, Rejection)>,
    /// The reason for every node that is not in `rejections`.
    pub absent: Option<String>,
    /// What preemption said.
    pub post_filter: Option<String>,
    /// The plugins whose change of mind the pod waits for.
    pub plugins: BTreeSet<&'static str>,
}

impl Diagnosis {
    /// The text of event and condition (`framework.FitError.Error`).
    pub fn message(&self) -> String {
        if self.total == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut message = format!("0/{} nodes are available:", self.total);
        if let Some(rejection) = &self.pre_filter {
            message.push_str(&format!(" {}.", rejection.reasons.join(", ")));
        } else {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for reason in self.rejections.iter().flat_map(|(_, r)| &r.reasons) {
                *counts.entry(reason).or_default() += 1;
            }
            let absent = self.total - self.rejections.len();
            if let Some(reason) = self.absent.as_deref().filter(|_| absent > 0) {
                *counts.entry(reason).or_default() += absent;
            }
            let mut parts: Vec<String> =
                counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            parts.sort();
            if !parts.is_empty() {
                message.push_str(&format!(" {}.", parts.join(", ")));
            }
        }
        if let Some(post) = &self.post_filter {
            message.push(' ');
            message.push_str(post);
        }
        message
    }
}

/// What upstream's plugins say after a pre-filter has refused the pod as a whole: the one for dynamic resources finds nothing
/// that its own pre-filter left, and preemption is not asked. No plugin of upstream refuses what is not implemented here.
pub(crate) fn after_pre_filter(diagnosis: &Diagnosis) -> Option<String> {
    let refused = diagnosis.pre_filter.as_ref()?;
    (refused.plugin != crate::plugins::volumes::UNSUPPORTED).then(|| "not found".to_owned())
}

/// What the pre-filters left.
pub(crate) struct Prepared {
    pub state: CycleState,
    /// Filters that have no say on this pod.
    skipped: Vec<&'static str>,
    /// Nodes that may do; `None`: all.
    nodes: Option<BTreeSet<Box<str>>>,
    /// Plugins that restricted the nodes.
    restricting: Vec<&'static str>,
}

/// Runs all pre-filters.
pub(crate) fn prepare(profile: &Profile, pod: &PodView, snapshot: &Snapshot) -> Result<Prepared, Rejection> {
    let mut prepared =
        Prepared { state: CycleState::default(), skipped: Vec::new(), nodes: None, restricting: Vec::new() };
    for plugin in &profile.pre_filter {
        match plugin.pre_filter(&mut prepared.state, pod, snapshot)? {
            PreFilterResult::Skip => prepared.skipped.push(plugin.name()),
            PreFilterResult::All => {}
            PreFilterResult::Nodes(names) => {
                let names: BTreeSet<Box<str>> = names.into_iter().collect();
                prepared.nodes = Some(match prepared.nodes.take() {
                    Some(before) => before.intersection(&names).cloned().collect(),
                    None => names,
                });
                prepared.restricting.push(plugin.name());
            }
        }
    }
    Ok(prepared)
}

/// Runs all filters on a node as it is.
pub(crate) fn filter(
    profile: &Profile,
    prepared: &Prepared,
    pod: &PodView,
    node: &NodeInfo,
) -> Result<(), Rejection> {
    profile
        .filter
        .iter()
        .filter(|plugin| !prepared.skipped.contains(&plugin.name()))
        .try_for_each(|plugin| plugin.filter(&prepared.state, pod, node))
}

/// Runs the filters with the pods of at least equal priority that are nominated to the node counted in, and, when there
/// are any, without them too: they may never come.
fn filter_with_nominated(
    profile: &Profile,
    prepared: &Prepared,
    pod: &PodView,
    snapshot: &Snapshot,
    index: usize,
    nominated: &Nominated,
) -> Result<(), Rejection> {
    let node = &snapshot.nodes[index];
    let expected: Vec<&Arc<PodView>> = nominated
        .get(node.name())
        .into_iter()
        .flatten()
        .filter(|other| other.priority >= pod.priority && other.meta.uid != pod.meta.uid)
        .collect();
    if !expected.is_empty() {
        let mut with = NodeInfo::clone(node);
        expected.into_iter().for_each(|other| with.add(other.clone()));
        let changed = snapshot.with_node(index, with);
        let prepared = prepare(profile, pod, &changed)?;
        filter(profile, &prepared, pod, &changed.nodes[index])?;
    }
    filter(profile, prepared, pod, node)
}

/// How many feasible nodes are enough to choose from (upstream's adaptive percentage).
fn enough(nodes: usize) -> usize {
    if nodes < MIN_FEASIBLE {
        return nodes;
    }
    let percentage = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percentage / 100).max(MIN_FEASIBLE)
}

/// Chooses a node for the pod, or says why there is none. `start` is where the search begins (it moves on, so that all
/// nodes get their turn), `ties` decides among nodes of equal score.
pub fn schedule(
    profile: &Profile,
    pod: &PodView,
    snapshot: &Snapshot,
    nominated: &Nominated,
    start: &mut usize,
    ties: u64,
) -> Result<usize, Box<Diagnosis>> {
    let total = snapshot.nodes.len();
    let mut diagnosis = Box::new(Diagnosis { total, ..Diagnosis::default() });
    if total == 0 {
        return Err(diagnosis);
    }
    let prepared = match prepare(profile, pod, snapshot) {
        Ok(prepared) => prepared,
        Err(rejection) => {
            diagnosis.plugins.insert(rejection.plugin);
            diagnosis.absent = Some(rejection.reasons.join(", "));
            diagnosis.pre_filter = Some(rejection);
            return Err(diagnosis);
        }
    };
    let wanted = enough(total);
    let mut feasible = Vec::new();
    let first = *start % total;
    // A node that preemption freed is tried first and alone suffices.
    let preferred =
        pod.pending.as_ref().and_then(|p| p.nominated_node.as_deref()).and_then(|n| snapshot.position(n));
    if let Some(index) = preferred
        && prepared.nodes.as_ref().is_none_or(|names| names.contains(snapshot.nodes[index].name()))
        && filter_with_nominated(profile, &prepared, pod, snapshot, index, nominated).is_ok()
    {
        return Ok(index);
    }
    for step in 0..total {
        if feasible.len() >= wanted {
            break;
        }
        *start = (first + step + 1) % total;
        let index = (first + step) % total;
        if prepared.nodes.as_ref().is_some_and(|names| !names.contains(snapshot.nodes[index].name())) {
            continue;
        }
        match filter_with_nominated(profile, &prepared, pod, snapshot, index, nominated) {
            Ok(()) => feasible.push(index),
            Err(rejection) => {
                diagnosis.plugins.insert(rejection.plugin);
                diagnosis.rejections.push((index, rejection));
            }
        }
    }
    if feasible.is_empty() {
        if !prepared.restricting.is_empty() {
            diagnosis.plugins.extend(prepared.restricting.iter().copied());
            diagnosis.absent =
                Some(format!("node(s) didn't satisfy plugin(s) [{}]", prepared.restricting.join(" ")));
        }
        return Err(diagnosis);
    }
    Ok(choose(profile, prepared.state, pod, snapshot, &feasible, ties))
}

fn choose(
    profile: &Profile,
    mut state: CycleState,
    pod: &PodView,
    snapshot: &Snapshot,
    feasible: &[usize],
    ties: u64,
) -> usize {
    if let [only] = feasible {
        return *only;
    }
    let mut totals = vec![0i64; feasible.len()];
    for (plugin, weight) in &profile.score {
        if !plugin.pre_score(&mut state, pod, snapshot, feasible) {
            continue;
        }
        let mut scores: Vec<i64> =
            feasible.iter().map(|index| plugin.score(&state, pod, &snapshot.nodes[*index])).collect();
        plugin.normalize(&state, &mut scores);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += score * weight;
        }
    }
    let best = totals.iter().copied().max().unwrap_or(0);
    let tied: Vec<usize> =
        feasible.iter().zip(&totals).filter(|(_, t)| **t == best).map(|(i, _)| *i).collect();
    tied[(ties % tied.len() as u64) as usize]
}
