//! The plugins of upstream's default profile, with upstream's names, reasons and weights.

mod affinity;
mod basic;
mod images;
mod interpod;
mod resources;
mod spread;
mod taints;
pub(crate) mod volumes;

use std::sync::Arc;

use crate::framework::{Filter, Plugin, PreEnqueue, PreFilter, Profile, Score};

/// Upstream's default profile, as far as it is there; what is missing is refused by `UnsupportedRequirements`.
pub fn default_profile() -> Profile {
    let mut profile = Profile::default();
    let gates = Arc::new(basic::SchedulingGates);
    let unschedulable = Arc::new(basic::NodeUnschedulable);
    let name = Arc::new(basic::NodeName);
    let taints = Arc::new(taints::TaintToleration);
    let affinity = Arc::new(affinity::NodeAffinity);
    let ports = Arc::new(basic::NodePorts);
    let fit = Arc::new(resources::NodeResourcesFit);
    let balanced = Arc::new(resources::BalancedAllocation);
    let spread = Arc::new(spread::PodTopologySpread);
    let interpod = Arc::new(interpod::InterPodAffinity);
    let images = Arc::new(images::ImageLocality);
    let volumes = Arc::new(volumes::UnsupportedRequirements);

    profile.pre_enqueue.push(gates.clone() as Arc<dyn PreEnqueue>);
    profile.pre_filter = vec![
        volumes.clone() as Arc<dyn PreFilter>,
        affinity.clone(),
        ports.clone(),
        fit.clone(),
        spread.clone(),
        interpod.clone(),
    ];
    profile.filter = vec![
        unschedulable.clone() as Arc<dyn Filter>,
        name.clone(),
        taints.clone(),
        affinity.clone(),
        ports.clone(),
        fit.clone(),
        spread.clone(),
        interpod.clone(),
    ];
    profile.score = vec![
        (taints.clone() as Arc<dyn Score>, 3),
        (affinity.clone(), 2),
        (fit.clone(), 1),
        (spread.clone(), 2),
        (interpod.clone(), 2),
        (balanced.clone(), 1),
        (images.clone(), 1),
    ];
    profile.all = vec![
        gates as Arc<dyn Plugin>,
        unschedulable,
        name,
        taints,
        affinity,
        ports,
        fit,
        balanced,
        spread,
        interpod,
        images,
        volumes,
    ];
    profile
}
