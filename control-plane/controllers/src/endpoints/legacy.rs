//! The Endpoints object of a service. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_client::projections::PodView;

use super::desired::{counts, hostname, is_headless, target_port};

/// Most addresses in an Endpoints object.
const MOST: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const HEADLESS: &str = "service.kubernetes.io/headless";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

fn wants_ipv6(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    match spec.and_then(|s| s.ip_families.as_ref()).and_then(|f| f.first()) {
        Some(family) => family == "IPv6",
        None => spec.and_then(|s| s.cluster_ip.as_deref()).is_some_and(|ip| ip.contains(':')),
    }
}

fn address(service: &Service, pod: &PodView) -> Option<EndpointAddress> {
    let ipv6 = wants_ipv6(service);
    let ip = pod.ips.iter().find(|ip| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6() == ipv6))?;
    Some(EndpointAddress {
        ip: ip.to_string(),
        hostname: hostname(pod, service.metadata.name.as_deref().unwrap_or_default()),
        node_name: pod.node.as_deref().map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.meta.namespace.to_string()),
            name: Some(pod.meta.name.to_string()),
            uid: Some(pod.meta.uid.to_string()),
            ..ObjectReference::default()
        }),
    })
}

/// Addresses by their place in a list, and whether they are ready.
type Members = BTreeSet<(usize, bool)>;

/// The addresses that ports lead to; ports that lead to the same addresses stand together (`RepackSubsets`).
fn subsets(service: &Service, pods: &[Arc<PodView>]) -> Vec<EndpointSubset> {
    let spec = service.spec.clone().unwrap_or_default();
    let publish = spec.publish_not_ready_addresses.unwrap_or(false);
    let service_ports = spec.ports.unwrap_or_default();
    let mut addresses: Vec<EndpointAddress> = Vec::new();
    // (name, port, protocol) to (address, ready)
    let mut by_port: BTreeMap<(String, i32, String), (Option<String>, Members)> = BTreeMap::new();
    let mut portless: Members = BTreeSet::new();
    for pod in pods.iter().filter(|p| counts(p, publish)) {
        let Some(address) = address(service, pod) else { continue };
        let entry = (addresses.len(), publish || pod.ready);
        addresses.push(address);
        if service_ports.is_empty() && is_headless(service) {
            portless.insert(entry);
        }
        for port in &service_ports {
            let Some(number) = target_port(pod, port) else { continue };
            let key = (
                port.name.clone().unwrap_or_default(),
                number,
                port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            );
            by_port
                .entry(key)
                .or_insert_with(|| (port.app_protocol.clone(), BTreeSet::new()))
                .1
                .insert(entry);
        }
    }
    let mut groups: Vec<(Members, Vec<EndpointPort>)> = Vec::new();
    for ((name, port, protocol), (app_protocol, members)) in by_port {
        let port = EndpointPort {
            name: Some(name).filter(|n| !n.is_empty()),
            port,
            protocol: Some(protocol),
            app_protocol,
        };
        match groups.iter_mut().find(|(m, _)| *m == members) {
            Some((_, ports)) => ports.push(port),
            None => groups.push((members, vec![port])),
        }
    }
    if !portless.is_empty() {
        groups.push((portless, Vec::new()));
    }
    let pick = |members: &Members, ready: bool| {
        let list: Vec<EndpointAddress> =
            members.iter().filter(|(_, r)| *r == ready).map(|(i, _)| addresses[*i].clone()).collect();
        Some(list).filter(|l| !l.is_empty())
    };
    groups
        .into_iter()
        .map(|(members, ports)| EndpointSubset {
            addresses: pick(&members, true),
            not_ready_addresses: pick(&members, false),
            ports: Some(ports).filter(|p| !p.is_empty()),
        })
        .collect()
}

/// Cuts what is too much, ready addresses last; true when something was cut.
fn truncate(subsets: &mut Vec<EndpointSubset>) -> bool {
    let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let ready: usize = subsets.iter().map(|s| count(&s.addresses)).sum();
    let not_ready: usize = subsets.iter().map(|s| count(&s.not_ready_addresses)).sum();
    if ready + not_ready <= MOST {
        return false;
    }
    let mut room_ready = ready.min(MOST);
    let mut room_not_ready = MOST - room_ready;
    for subset in subsets.iter_mut() {
        let cut = |list: &mut Option<Vec<EndpointAddress>>, room: &mut usize| {
            if let Some(addresses) = list {
                addresses.truncate(*room);
                *room -= addresses.len();
                if addresses.is_empty() {
                    *list = None;
                }
            }
        };
        cut(&mut subset.addresses, &mut room_ready);
        cut(&mut subset.not_ready_addresses, &mut room_not_ready);
    }
    subsets.retain(|s| s.addresses.is_some() || s.not_ready_addresses.is_some());
    true
}

/// The Endpoints a service should have.
pub fn of_service(service: &Service, pods: &[Arc<PodView>]) -> Endpoints {
    let mut subsets = subsets(service, pods);
    let truncated = truncate(&mut subsets);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), "endpoint-controller".to_owned());
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: truncated.then(|| [(OVER_CAPACITY.to_owned(), "truncated".to_owned())].into()),
            ..ObjectMeta::default()
        },
        subsets: Some(subsets).filter(|s| !s.is_empty()),
    }
}

/// Whether the standing object says what it should.
pub fn is_current(standing: &Endpoints, wanted: &Endpoints) -> bool {
    let over = |e: &Endpoints| e.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(OVER_CAPACITY));
    let empty = |s: &Option<Vec<EndpointSubset>>| s.as_ref().is_none_or(Vec::is_empty);
    standing.metadata.labels == wanted.metadata.labels
        && over(standing) == over(wanted)
        && (standing.subsets == wanted.subsets || (empty(&standing.subsets) && empty(&wanted.subsets)))
}
