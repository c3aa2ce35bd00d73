//! What the node's packet rules must be: a pure function of services, endpoint slices and the node.
//!
//! One table. Service addresses and ports are keys of verdict maps, so a packet costs the same whatever their number;
//! behind each key stands one small chain. A service's part is a [`Fragment`]: chains of its own, and elements of
//! shared maps. Two services may claim one element (the same external address and port); the first by name has it.
//!
//! No clock, no randomness, no I/O.
mod base;
mod endpoints;
mod ruleset;
mod service;

pub use base::{MASQUERADE_MARK, base, masquerade_table};
pub use endpoints::{Categories, categorize};
pub use ruleset::{ChainSpec, Dirty, Fragment, Ruleset, SetEntry, TableSpec};
pub use service::{HealthCheck, Target, UdpFront, plan_service};

use std::collections::BTreeMap;
use std::net::IpAddr;

use keelson_base::cidr::Cidr;

use crate::views::{ServiceView, SliceView};

#[cfg(test)]
mod goldens;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod sim_tests;

/// What the plan must know of the node and the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    pub name: String,
    pub zone: Option<String>,
    pub node_ips: Vec<IpAddr>,
    /// The cluster's pod ranges.
    pub pod_cidrs: Vec<Cidr>,
    /// The cluster's service ranges.
    pub service_cidrs: Vec<Cidr>,
    /// Addresses on which this node's own DNS server answers; services never translate their port 53.
    pub dns_ips: Vec<IpAddr>,
}

/// Namespace and name of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    pub namespace: String,
    pub name: String,
}

impl ServiceName {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> ServiceName {
        ServiceName { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for ServiceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The whole ruleset.
pub fn plan<'a>(
    services: impl IntoIterator<Item = &'a ServiceView>,
    slices: impl IntoIterator<Item = &'a SliceView>,
    node: &NodeFacts,
) -> Ruleset {
    let mut by_service: BTreeMap<ServiceName, Vec<&SliceView>> = BTreeMap::new();
    for slice in slices {
        by_service.entry(ServiceName::new(&slice.namespace, &slice.service)).or_default().push(slice);
    }
    let mut ruleset = Ruleset::new(base(node));
    for service in services {
        let name = ServiceName::new(&service.namespace, &service.name);
        let slices = by_service.get(&name).map_or(&[][..], Vec::as_slice);
        ruleset.set(name, plan_service(service, slices, node));
    }
    ruleset
}
