//! Slices for Endpoints that somebody made by hand for a service without a selector. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};

use super::slices::{Desired, Group};

pub const MANAGED_BY: &str = "endpointslicemirroring-controller.k8s.io";
/// Most addresses taken from one subset.
const MOST: usize = 1000;

/// Whether these Endpoints are to be mirrored.
pub fn is_mirrored(endpoints: &Endpoints, service: &Service) -> bool {
    let label = |key: &str| endpoints.metadata.labels.as_ref().and_then(|l| l.get(key)).map(String::as_str);
    let leader = endpoints
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|a| a.contains_key("control-plane.alpha.kubernetes.io/leader"));
    let selects = service.spec.as_ref().and_then(|s| s.selector.as_ref()).is_some_and(|s| !s.is_empty());
    label("endpointslice.kubernetes.io/skip-mirror") != Some("true") && !leader && !selects
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Option<(&'static str, Endpoint)> {
    let ip: IpAddr = address.ip.parse().ok()?;
    Some((
        if ip.is_ipv6() { "IPv6" } else { "IPv4" },
        Endpoint {
            addresses: vec![ip.to_string()],
            conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
            hostname: address.hostname.clone(),
            node_name: address.node_name.clone(),
            target_ref: address.target_ref.clone(),
            ..Endpoint::default()
        },
    ))
}

/// The endpoints of hand-made Endpoints.
pub fn desired(endpoints: &Endpoints) -> Desired {
    let mut desired = Desired::default();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset
            .ports
            .iter()
            .flatten()
            .map(|p| EndpointPort {
                name: Some(p.name.clone().unwrap_or_default()),
                port: Some(p.port),
                protocol: p.protocol.clone(),
                app_protocol: p.app_protocol.clone(),
            })
            .collect();
        let ready = subset.addresses.iter().flatten().map(|a| (a, true));
        let not_ready = subset.not_ready_addresses.iter().flatten().map(|a| (a, false));
        for (address, ready) in ready.chain(not_ready).take(MOST) {
            if let Some((family, endpoint)) = endpoint(address, ready) {
                if !desired.families.contains(&family) {
                    desired.families.push(family);
                }
                desired.add(Group::new(family, ports.clone()), endpoint);
            }
        }
    }
    desired
}

/// The labels of mirrored slices.
pub fn labels(endpoints: &Endpoints) -> BTreeMap<String, String> {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels
        .insert("kubernetes.io/service-name".to_owned(), endpoints.metadata.name.clone().unwrap_or_default());
    labels.insert("endpointslice.kubernetes.io/managed-by".to_owned(), MANAGED_BY.to_owned());
    labels
}

/// The annotations of mirrored slices.
pub fn annotations(endpoints: &Endpoints) -> BTreeMap<String, String> {
    let left_out = [
        "endpoints.kubernetes.io/last-change-trigger-time",
        "kubectl.kubernetes.io/last-applied-configuration",
    ];
    let all = endpoints.metadata.annotations.iter().flatten();
    all.filter(|(k, _)| !left_out.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}
