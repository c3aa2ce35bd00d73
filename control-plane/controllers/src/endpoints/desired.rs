//! Which endpoints a service has, from its pods. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use keelson_client::projections::PodView;

use super::slices::{Desired, Group};

/// Whether a pod counts at all (`ShouldPodBeInEndpoints`).
pub fn counts(pod: &PodView, terminating_too: bool) -> bool {
    !pod.phase.is_terminal() && !pod.ips.is_empty() && (terminating_too || pod.meta.deleted.is_none())
}

/// The pod's host name within the service's subdomain.
pub fn hostname(pod: &PodView, service_name: &str) -> Option<String> {
    let within = pod.subdomain.as_deref() == Some(service_name);
    pod.hostname.as_deref().filter(|_| within).map(str::to_owned)
}

/// A service port's number on the pod; `None` when the pod has no port of that name (`FindPort`).
pub fn target_port(pod: &PodView, port: &ServicePort) -> Option<i32> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match &port.target_port {
        Some(IntOrString::Int(number)) if *number != 0 => Some(*number),
        Some(IntOrString::String(name)) if !name.is_empty() => {
            pod.named_ports.iter().find(|p| *p.name == **name && &*p.protocol == protocol).map(|p| p.port)
        }
        _ => Some(port.port),
    }
}

fn families(service: &Service) -> Vec<&'static str> {
    let spec = service.spec.as_ref();
    let asked: Vec<&str> = spec
        .iter()
        .flat_map(|s| s.ip_families.iter().flatten())
        .filter_map(|f| match f.as_str() {
            "IPv4" => Some("IPv4"),
            "IPv6" => Some("IPv6"),
            _ => None,
        })
        .map(|f| if f == "IPv6" { "IPv6" } else { "IPv4" })
        .collect();
    if !asked.is_empty() {
        return asked.into_iter().map(|f| if f == "IPv6" { "IPv6" } else { "IPv4" }).collect();
    }
    match spec.and_then(|s| s.cluster_ip.as_deref()) {
        Some(ip) if ip != "None" && !ip.is_empty() => vec![if ip.contains(':') { "IPv6" } else { "IPv4" }],
        _ => vec!["IPv4", "IPv6"],
    }
}

fn ports(service: &Service, pod: &PodView) -> Vec<EndpointPort> {
    service
        .spec
        .iter()
        .flat_map(|s| s.ports.iter().flatten())
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target_port(pod, port)?),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn hints(service: &Service, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
    let zones = zone.map(|z| vec![ForZone { name: z.to_owned() }]);
    match service.spec.as_ref()?.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => {
            zones.map(|zones| EndpointHints { for_zones: Some(zones), for_nodes: None })
        }
        "PreferSameNode" => node.map(|node| EndpointHints {
            for_nodes: Some(vec![ForNode { name: node.to_owned() }]),
            for_zones: zones,
        }),
        _ => None,
    }
}

/// The endpoints of a service with a selector, by address family and ports; `zone_of` tells a node's zone.
pub fn of_service(
    service: &Service,
    pods: &[Arc<PodView>],
    zone_of: impl Fn(&str) -> Option<String>,
) -> Desired {
    let mut desired = Desired::default();
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let publish = service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false);
    for family in families(service) {
        desired.families.push(family);
        for pod in pods.iter().filter(|p| counts(p, true)) {
            let addresses: Vec<String> = pod
                .ips
                .iter()
                .filter_map(|ip| ip.parse::<IpAddr>().ok())
                .filter(|ip| ip.is_ipv6() == (family == "IPv6"))
                .map(|ip| ip.to_string())
                .collect();
            if addresses.is_empty() {
                continue;
            }
            let terminating = pod.meta.deleted.is_some();
            let ready = publish || (pod.ready && !terminating);
            let zone = pod.node.as_deref().and_then(&zone_of);
            let endpoint = Endpoint {
                addresses,
                conditions: Some(EndpointConditions {
                    ready: Some(ready),
                    serving: Some(pod.ready),
                    terminating: Some(terminating),
                }),
                hints: if ready { hints(service, pod.node.as_deref(), zone.as_deref()) } else { None },
                hostname: hostname(pod, name),
                node_name: pod.node.as_deref().map(str::to_owned),
                target_ref: Some(ObjectReference {
                    kind: Some("Pod".to_owned()),
                    namespace: Some(pod.meta.namespace.to_string()),
                    name: Some(pod.meta.name.to_string()),
                    uid: Some(pod.meta.uid.to_string()),
                    ..ObjectReference::default()
                }),
                zone,
                ..Endpoint::default()
            };
            desired.add(Group::new(family, ports(service, pod)), endpoint);
        }
    }
    desired
}

/// The labels of a service's slices: the service's, and those by which they are found.
pub fn slice_labels(service: &Service, managed_by: &str) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove("service.kubernetes.io/headless");
    if is_headless(service) {
        labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    }
    labels.insert("kubernetes.io/service-name".to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert("endpointslice.kubernetes.io/managed-by".to_owned(), managed_by.to_owned());
    labels
}

/// No cluster address.
pub fn is_headless(service: &Service) -> bool {
    matches!(service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()), None | Some("" | "None"))
}
