//! Preemption: which pods of lower priority would have to go for a pod to fit. Pure.

use std::sync::Arc;

use keelson_client::projections::{PodView, Selector};

use crate::cycle::{Diagnosis, filter, prepare};
use crate::framework::*;

/// What is read of a PodDisruptionBudget.
#[derive(Clone, Debug)]
pub struct Budget {
    pub namespace: Box<str>,
    pub selector: Selector,
    pub allowed: i32,
    /// Pods whose eviction is under way; they are counted already.
    pub disrupted: Vec<Box<str>>,
}

/// What has to go, from where.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub node: usize,
    /// The most important first.
    pub victims: Vec<Arc<PodView>>,
    pub violations: usize,
}

const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";

fn more_important(a: &PodView, b: &PodView) -> std::cmp::Ordering {
    b.priority
        .cmp(&a.priority)
        .then_with(|| a.started.is_none().cmp(&b.started.is_none()))
        .then(a.started.cmp(&b.started))
}

/// Pods whose removal would break a budget, and the others, both in order.
fn split_by_budget(pods: Vec<Arc<PodView>>, budgets: &[Budget]) -> (Vec<Arc<PodView>>, Vec<Arc<PodView>>) {
    let mut left: Vec<i32> = budgets.iter().map(|b| b.allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut violates = false;
        for (budget, left) in budgets.iter().zip(&mut left) {
            let applies = budget.namespace == pod.meta.namespace
                && !pod.meta.labels.is_empty()
                && !budget.selector.is_everything()
                && budget.selector.matches(&pod.meta.labels)
                && !budget.disrupted.contains(&pod.meta.name);
            if applies {
                *left -= 1;
                violates |= *left < 0;
            }
        }
        violates
    })
}

fn victims_on(
    profile: &Profile,
    pod: &PodView,
    snapshot: &Snapshot,
    index: usize,
    budgets: &[Budget],
) -> Result<Candidate, Rejection> {
    let none = || Rejection::unresolvable("DefaultPreemption", NO_VICTIMS);
    let fits = |node: &NodeInfo| -> Result<(), Rejection> {
        let changed = snapshot.with_node(index, node.clone());
        let prepared = prepare(profile, pod, &changed)?;
        filter(profile, &prepared, pod, &changed.nodes[index])
    };
    let mut node = NodeInfo::clone(&snapshot.nodes[index]);
    let mut lower: Vec<Arc<PodView>> =
        node.pods.iter().filter(|p| p.priority < pod.priority).cloned().collect();
    if lower.is_empty() {
        return Err(none());
    }
    for victim in &lower {
        node.remove(&victim.meta.uid);
    }
    fits(&node)?;
    lower.sort_by(|a, b| more_important(a, b));
    let (violating, others) = split_by_budget(lower, budgets);
    let mut victims = Vec::new();
    let mut violations = 0;
    for (pods, counts) in [(violating, true), (others, false)] {
        for candidate in pods {
            node.add(candidate.clone());
            if fits(&node).is_err() {
                node.remove(&candidate.meta.uid);
                violations += usize::from(counts);
                victims.push(candidate);
            }
        }
    }
    victims.sort_by(|a, b| more_important(a, b));
    Ok(Candidate { node: index, victims, violations })
}

/// Fewest broken budgets, then the lowest highest priority, the lowest sum, the fewest victims, the latest start of the
/// highest victims, the first.
fn best(candidates: Vec<Candidate>) -> Option<Candidate> {
    candidates.into_iter().min_by(|a, b| {
        let highest = |c: &Candidate| c.victims.first().map_or(i32::MIN, |v| v.priority);
        let sum = |c: &Candidate| {
            c.victims.iter().map(|v| i64::from(v.priority) - i64::from(i32::MIN) + 1).sum::<i64>()
        };
        let start = |c: &Candidate| {
            c.victims.iter().filter(|v| v.priority == highest(c)).filter_map(|v| v.started).min()
        };
        a.violations
            .cmp(&b.violations)
            .then_with(|| highest(a).cmp(&highest(b)))
            .then_with(|| sum(a).cmp(&sum(b)))
            .then_with(|| a.victims.len().cmp(&b.victims.len()))
            .then_with(|| start(b).cmp(&start(a)))
    })
}

/// Looks for a node that takes the pod once pods of lower priority are gone; the error is the text for the condition.
pub fn preempt(
    profile: &Profile,
    pod: &PodView,
    snapshot: &Snapshot,
    diagnosis: &Diagnosis,
    budgets: &[Budget],
) -> Result<Candidate, String> {
    let pending = pod.pending.as_deref();
    if pending.is_some_and(|p| !p.may_preempt) {
        return Err("preemption: not eligible due to preemptionPolicy=Never.".to_owned());
    }
    if let Some(index) = pending.and_then(|p| p.nominated_node.as_deref()).and_then(|n| snapshot.position(n))
    {
        let hopeless = diagnosis.rejections.iter().any(|(i, r)| *i == index && !r.resolvable);
        let leaving = snapshot.nodes[index]
            .pods
            .iter()
            .any(|p| p.priority < pod.priority && p.meta.deleted.is_some() && p.disruption_target);
        if !hopeless && leaving {
            return Err("preemption: not eligible due to a terminating pod on the nominated node.".to_owned());
        }
    }
    let mut failed = Diagnosis {
        total: snapshot.nodes.len(),
        absent: Some(NOT_HELPFUL.to_owned()),
        ..Diagnosis::default()
    };
    let mut candidates = Vec::new();
    for (index, rejection) in &diagnosis.rejections {
        if !rejection.resolvable {
            continue;
        }
        match victims_on(profile, pod, snapshot, *index, budgets) {
            Ok(candidate) => candidates.push(candidate),
            Err(rejection) => failed.rejections.push((*index, rejection)),
        }
    }
    best(candidates).ok_or_else(|| format!("preemption: {}", failed.message()))
}
