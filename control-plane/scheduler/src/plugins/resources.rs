//! NodeResourcesFit (with the LeastAllocated score) and NodeResourcesBalancedAllocation.

use std::borrow::Cow;

use keelson_client::projections::{NodeView, PodView, Resources};

use crate::framework::*;

/// Whether a node has the resources.
pub struct NodeResourcesFit;

fn asks_nothing(request: &Resources) -> bool {
    request.milli_cpu == 0
        && request.memory == 0
        && request.ephemeral_storage == 0
        && request.scalars.is_empty()
}

/// Every shortage, with whether the node could ever have enough.
fn shortages(pod: &PodView, node: &NodeInfo) -> (Vec<Cow<'static, str>>, bool) {
    let mut reasons = Vec::new();
    let mut resolvable = true;
    if node.pods.len() as i64 + 1 > node.node.allowed_pods {
        reasons.push(Cow::Borrowed("Too many pods"));
    }
    let request = &pod.requests;
    if asks_nothing(request) {
        return (reasons, true);
    }
    let (allocatable, used) = (&node.node.allocatable, &node.requested);
    let mut check = |reason: &dyn Fn() -> Cow<'static, str>, wanted: i64, allocatable: i64, used: i64| {
        if wanted > 0 && wanted > allocatable - used {
            reasons.push(reason());
            resolvable &= wanted <= allocatable;
        }
    };
    check(&|| "Insufficient cpu".into(), request.milli_cpu, allocatable.milli_cpu, used.milli_cpu);
    check(&|| "Insufficient memory".into(), request.memory, allocatable.memory, used.memory);
    check(
        &|| "Insufficient ephemeral-storage".into(),
        request.ephemeral_storage,
        allocatable.ephemeral_storage,
        used.ephemeral_storage,
    );
    for (name, wanted) in &request.scalars {
        check(
            &|| format!("Insufficient {name}").into(),
            *wanted,
            allocatable.scalar(name),
            used.scalar(name),
        );
    }
    (reasons, resolvable)
}

fn empty_node_fits(pod: &PodView, node: &NodeView) -> bool {
    let info = NodeInfo { node: std::sync::Arc::new(node.clone()), ..NodeInfo::default() };
    shortages(pod, &info).0.is_empty()
}

fn shares_a_resource(pod: &Resources, other: &Resources) -> bool {
    (pod.milli_cpu > 0 && other.milli_cpu > 0)
        || (pod.memory > 0 && other.memory > 0)
        || (pod.ephemeral_storage > 0 && other.ephemeral_storage > 0)
        || pod.scalars.iter().any(|(name, amount)| *amount > 0 && other.scalar(name) > 0)
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn may_help(&self, pod: &PodView, event: &ClusterEvent) -> bool {
        match event {
            ClusterEvent::NodeAdded(node) => empty_node_fits(pod, node),
            ClusterEvent::NodeUpdated(old, new) => {
                (old.allocatable != new.allocatable || old.allowed_pods != new.allowed_pods)
                    && empty_node_fits(pod, new)
            }
            // One place less is taken on the node even if the pod asked for nothing.
            ClusterEvent::AssignedPodGone(gone) => {
                asks_nothing(&pod.requests)
                    || asks_nothing(&gone.requests)
                    || shares_a_resource(&pod.requests, &gone.requests)
            }
            _ => false,
        }
    }
}

impl PreFilter for NodeResourcesFit {
    fn pre_filter(
        &self,
        _: &mut CycleState,
        _: &PodView,
        _: &Snapshot,
    ) -> Result<PreFilterResult, Rejection> {
        Ok(PreFilterResult::All)
    }
}

impl Filter for NodeResourcesFit {
    fn filter(&self, _: &CycleState, pod: &PodView, node: &NodeInfo) -> Result<(), Rejection> {
        let (reasons, resolvable) = shortages(pod, node);
        if reasons.is_empty() {
            return Ok(());
        }
        Err(Rejection { plugin: self.name(), reasons, resolvable })
    }
}

impl Score for NodeResourcesFit {
    fn score(&self, _: &CycleState, pod: &PodView, node: &NodeInfo) -> i64 {
        let free = |wanted: i64, used: i64, allocatable: i64| {
            let total = used + wanted;
            if allocatable == 0 || total > allocatable {
                return 0;
            }
            ((i128::from(allocatable - total) * i128::from(MAX_NODE_SCORE)) / i128::from(allocatable)) as i64
        };
        let allocatable = &node.node.allocatable;
        let mut weight = 0;
        let mut score = 0;
        if allocatable.milli_cpu > 0 {
            score += free(pod.nonzero.0, node.nonzero.0, allocatable.milli_cpu);
            weight += 1;
        }
        if allocatable.memory > 0 {
            score += free(pod.nonzero.1, node.nonzero.1, allocatable.memory);
            weight += 1;
        }
        if weight == 0 { 0 } else { score / weight }
    }
}

/// Prefers nodes whose CPU and memory are used evenly.
pub struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }
}

impl Score for BalancedAllocation {
    fn pre_score(&self, _: &mut CycleState, pod: &PodView, _: &Snapshot, _: &[usize]) -> bool {
        pod.requests.milli_cpu > 0 || pod.requests.memory > 0
    }

    fn score(&self, _: &CycleState, pod: &PodView, node: &NodeInfo) -> i64 {
        let allocatable = &node.node.allocatable;
        let fraction = |wanted: i64, used: i64, of: i64| ((wanted + used) as f64 / of as f64).min(1.0);
        let mut fractions = [0.0; 2];
        let mut count = 0;
        if allocatable.milli_cpu > 0 {
            fractions[count] =
                fraction(pod.requests.milli_cpu, node.requested.milli_cpu, allocatable.milli_cpu);
            count += 1;
        }
        if allocatable.memory > 0 {
            fractions[count] = fraction(pod.requests.memory, node.requested.memory, allocatable.memory);
            count += 1;
        }
        // For two resources the standard deviation is half their distance.
        let deviation = if count == 2 { (fractions[0] - fractions[1]).abs() / 2.0 } else { 0.0 };
        ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
    }
}
