//! What the proxy and DNS keep of services, endpoint slices and nodes.
use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use keelson_base::cidr::Cidr;
use keelson_client::Projection;

/// Label that gives a service to another proxy.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Label of services that proxies leave alone.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Label that ties a slice to its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const ZONE: &str = "topology.kubernetes.io/zone";

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// Unknown names are None; an absent one is TCP.
    pub fn parse(name: Option<&str>) -> Option<Protocol> {
        match name {
            None | Some("" | "TCP") => Some(Protocol::Tcp),
            Some("UDP") => Some(Protocol::Udp),
            Some("SCTP") => Some(Protocol::Sctp),
            Some(_) => None,
        }
    }
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// A service's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
}

/// A service as far as packets and names go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceView {
    pub namespace: String,
    pub name: String,
    /// Empty for headless services and external names.
    pub cluster_ips: Vec<IpAddr>,
    pub headless: bool,
    pub external_name: Option<String>,
    pub ports: Vec<ServicePort>,
    pub external_ips: Vec<IpAddr>,
    /// Addresses of the load balancer that are handled by the node itself (ipMode VIP).
    pub load_balancer_ips: Vec<IpAddr>,
    /// Sources that may use the load balancer; empty means all.
    pub source_ranges: Vec<Cidr>,
    pub affinity_seconds: Option<u32>,
    pub internal_local: bool,
    pub external_local: bool,
    pub health_check_port: Option<u16>,
    pub publish_not_ready: bool,
    /// Labelled for another proxy, or to be left alone.
    pub ignored: bool,
}

impl Projection for ServiceView {
    type Object = core::Service;

    fn project(object: core::Service) -> ServiceView {
        let labels = object.metadata.labels.unwrap_or_default();
        let spec = object.spec.unwrap_or_default();
        let status = object.status.unwrap_or_default();
        let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
        let external = matches!(kind, "NodePort" | "LoadBalancer");
        let cluster_ips = spec
            .cluster_ips
            .filter(|ips| !ips.is_empty())
            .unwrap_or_else(|| spec.cluster_ip.into_iter().collect());
        let headless = cluster_ips.first().is_some_and(|ip| ip == "None");
        let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
        let external_ips = ips(spec.external_ips.unwrap_or_default());
        let load_balancer_ips = ips(status
            .load_balancer
            .and_then(|lb| lb.ingress)
            .unwrap_or_default()
            .into_iter()
            .filter(|i| i.ip_mode.as_deref() != Some("Proxy"))
            .filter_map(|i| i.ip));
        let affinity_seconds = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            spec.session_affinity_config
                .and_then(|c| c.client_ip)
                .and_then(|c| c.timeout_seconds)
                .and_then(|s| u32::try_from(s).ok())
                .unwrap_or(10_800)
        });
        ServiceView {
            namespace: object.metadata.namespace.unwrap_or_default(),
            name: object.metadata.name.unwrap_or_default(),
            headless,
            external_name: spec.external_name.filter(|_| kind == "ExternalName"),
            cluster_ips: if kind == "ExternalName" { Vec::new() } else { ips(cluster_ips) },
            ports: spec.ports.unwrap_or_default().into_iter().filter_map(port).collect(),
            source_ranges: spec
                .load_balancer_source_ranges
                .unwrap_or_default()
                .iter()
                .filter_map(|text| text.trim().parse().ok())
                .collect(),
            affinity_seconds,
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: external_local && (external || !external_ips.is_empty()),
            health_check_port: spec
                .health_check_node_port
                .and_then(|p| u16::try_from(p).ok())
                .filter(|p| *p != 0 && kind == "LoadBalancer" && external_local),
            publish_not_ready: spec.publish_not_ready_addresses == Some(true),
            ignored: labels.contains_key(PROXY_NAME) || labels.contains_key(HEADLESS),
            external_ips,
            load_balancer_ips,
        }
    }
}

fn ips(texts: impl IntoIterator<Item = String>) -> Vec<IpAddr> {
    texts.into_iter().filter_map(|t| t.parse().ok()).collect()
}

fn port(port: core::ServicePort) -> Option<ServicePort> {
    Some(ServicePort {
        name: port.name.unwrap_or_default(),
        protocol: Protocol::parse(port.protocol.as_deref())?,
        port: u16::try_from(port.port).ok()?,
        node_port: port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0),
    })
}

/// An endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub ip: IpAddr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub node: Option<String>,
    pub hostname: Option<String>,
    pub zones: Vec<String>,
    pub nodes: Vec<String>,
}

/// An endpoint slice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SliceView {
    pub namespace: String,
    /// The service it belongs to; empty where none does.
    pub service: String,
    /// Name, protocol and number; a port without a number is left out.
    pub ports: Vec<(String, Protocol, u16)>,
    pub endpoints: Vec<Endpoint>,
}

impl Projection for SliceView {
    type Object = discovery::EndpointSlice;

    fn project(object: discovery::EndpointSlice) -> SliceView {
        let service = object.metadata.labels.and_then(|mut l| l.remove(SERVICE_NAME)).unwrap_or_default();
        let v4 = object.address_type == "IPv4";
        let ports = object.ports.unwrap_or_default().into_iter().filter_map(|p| {
            let protocol = Protocol::parse(p.protocol.as_deref())?;
            Some((p.name.unwrap_or_default(), protocol, u16::try_from(p.port?).ok()?))
        });
        let endpoints = object.endpoints.into_iter().filter_map(|e| {
            let ip: IpAddr = e.addresses.first()?.parse().ok().filter(|ip: &IpAddr| ip.is_ipv4() == v4)?;
            let conditions = e.conditions.unwrap_or_default();
            let ready = conditions.ready.unwrap_or(true);
            let hints = e.hints.unwrap_or_default();
            Some(Endpoint {
                ip,
                ready,
                serving: conditions.serving.unwrap_or(ready),
                terminating: conditions.terminating.unwrap_or(false),
                node: e.node_name,
                hostname: e.hostname.filter(|h| !h.is_empty()),
                zones: hints.for_zones.unwrap_or_default().into_iter().map(|z| z.name).collect(),
                nodes: hints.for_nodes.unwrap_or_default().into_iter().map(|n| n.name).collect(),
            })
        });
        SliceView {
            namespace: object.metadata.namespace.unwrap_or_default(),
            service,
            ports: ports.collect(),
            // FQDN slices carry names, which packets cannot go to.
            endpoints: endpoints.collect(),
        }
    }
}

/// A node as far as routes go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeView {
    pub name: String,
    pub pod_cidrs: Vec<Cidr>,
    pub internal_ips: Vec<IpAddr>,
    pub zone: Option<String>,
}

impl Projection for NodeView {
    type Object = core::Node;

    fn project(object: core::Node) -> NodeView {
        let spec = object.spec.unwrap_or_default();
        let cidrs =
            spec.pod_cidrs.filter(|c| !c.is_empty()).unwrap_or_else(|| spec.pod_cidr.into_iter().collect());
        let addresses = object.status.and_then(|s| s.addresses).unwrap_or_default();
        let labels: BTreeMap<String, String> = object.metadata.labels.unwrap_or_default();
        NodeView {
            name: object.metadata.name.unwrap_or_default(),
            pod_cidrs: cidrs.iter().filter_map(|c| c.parse().ok()).collect(),
            internal_ips: ips(addresses.into_iter().filter(|a| a.type_ == "InternalIP").map(|a| a.address)),
            zone: labels.get(ZONE).cloned(),
        }
    }
}
