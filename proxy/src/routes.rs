//! Routes to other nodes' pods, and to service addresses.
//!
//! Nodes on one link reach each other's pod ranges by plain routes through the nodes' addresses. A node that shares no
//! link with this one is reported and has no route: VXLAN is not there yet. The service ranges are routed to the
//! interface of cluster DNS, so that the node itself reaches services without any default route; translation replaces
//! the address before a packet would leave by it.
use std::net::IpAddr;

use keelson_base::cidr::Cidr;
use keelson_sys::nl::NlError;
use keelson_sys::rtnl::{Address, Batch, Link, ROUTE_PROTOCOL, Route, RouteSpec, Rtnl};

use crate::views::NodeView;

/// Why routes could not be set.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub struct RouteError {
    step: &'static str,
    #[source]
    source: NlError,
}

/// A wanted route: range, gateway (None: straight to the interface), interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    pub dst: Cidr,
    pub gateway: Option<IpAddr>,
    pub index: u32,
}

/// What must be, and nodes that cannot be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoutePlan {
    pub routes: Vec<Wanted>,
    pub unreachable: Vec<String>,
}

/// Decides the routes. `service_link` is the interface that service ranges are routed to.
pub fn plan(
    nodes: &[&NodeView],
    own: &str,
    addresses: &[Address],
    service_cidrs: &[Cidr],
    service_link: Option<u32>,
) -> RoutePlan {
    let mut plan = RoutePlan::default();
    for node in nodes.iter().filter(|n| n.name != own) {
        for cidr in &node.pod_cidrs {
            let family = |ip: &&IpAddr| ip.is_ipv4() == cidr.network().is_ipv4();
            let via = node
                .internal_ips
                .iter()
                .filter(family)
                .find_map(|ip| on_link(*ip, addresses).map(|i| (*ip, i)));
            match via {
                Some((gateway, index)) => {
                    plan.routes.push(Wanted { dst: *cidr, gateway: Some(gateway), index });
                }
                None => plan.unreachable.push(format!("{} ({cidr})", node.name)),
            }
        }
    }
    if let Some(index) = service_link {
        plan.routes.extend(service_cidrs.iter().map(|dst| Wanted { dst: *dst, gateway: None, index }));
    }
    plan.routes.sort();
    plan
}

/// The interface whose subnet holds the address.
fn on_link(ip: IpAddr, addresses: &[Address]) -> Option<u32> {
    addresses
        .iter()
        .filter(|a| a.ip.is_ipv4() == ip.is_ipv4() && a.prefix < if ip.is_ipv4() { 32 } else { 128 })
        .find(|a| a.ip != ip && Cidr::new(a.ip, a.prefix).is_ok_and(|c| c.contains(ip)))
        .map(|a| a.index)
}

/// Routes of ours that this module made: pods' own routes go to one address each.
fn ours(route: &Route) -> Option<Wanted> {
    let (ip, prefix) = route.dst?;
    let host = prefix == if ip.is_ipv4() { 32 } else { 128 };
    if route.protocol != ROUTE_PROTOCOL || (host && route.gateway.is_none()) {
        return None;
    }
    Some(Wanted { dst: Cidr::new(ip, prefix).ok()?, gateway: route.gateway, index: route.index })
}

fn spec(wanted: &Wanted) -> RouteSpec {
    RouteSpec {
        dst: Some((wanted.dst.network(), wanted.dst.prefix())),
        gateway: wanted.gateway,
        index: wanted.index,
        ..RouteSpec::default()
    }
}

/// Makes the kernel's routes of ours the planned ones. Returns how many changed.
pub fn apply(plan: &RoutePlan) -> Result<usize, RouteError> {
    let failed = |step| move |source| RouteError { step, source };
    let mut rtnl = Rtnl::open().map_err(failed("open rtnetlink for routes"))?;
    let held: Vec<Wanted> = rtnl.routes().map_err(failed("list routes"))?.iter().filter_map(ours).collect();
    let mut batch = Batch::new();
    let mut changes = 0;
    for old in held.iter().filter(|h| !plan.routes.contains(h)) {
        // A replaced gateway is replaced below, without a moment in between.
        if !plan.routes.iter().any(|w| w.dst == old.dst) {
            batch.delete_route(&spec(old));
            changes += 1;
        }
    }
    for new in plan.routes.iter().filter(|w| !held.contains(w)) {
        batch.replace_route(&spec(new));
        changes += 1;
    }
    batch.send(&mut rtnl).map_err(failed("set routes to other nodes' pods"))?;
    Ok(changes)
}

/// Links and addresses, for [`plan`] and for the pods' MTU.
pub fn observe() -> Result<(Vec<Link>, Vec<Address>), RouteError> {
    let failed = |step| move |source| RouteError { step, source };
    let mut rtnl = Rtnl::open().map_err(failed("open rtnetlink"))?;
    let links = rtnl.links().map_err(failed("list interfaces"))?;
    Ok((links, rtnl.addresses().map_err(failed("list addresses"))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::isolated;

    fn node(name: &str, cidr: &str, ip: &str) -> NodeView {
        NodeView {
            name: name.into(),
            pod_cidrs: vec![cidr.parse().expect("cidr")],
            internal_ips: vec![ip.parse().expect("ip")],
            zone: None,
        }
    }
    fn address(index: u32, ip: &str, prefix: u8) -> Address {
        Address { index, ip: ip.parse().expect("ip"), prefix, scope: 0 }
    }

    #[test]
    fn only_nodes_on_a_link_have_routes() {
        let nodes = [
            node("here", "10.244.0.0/24", "192.0.2.1"),
            node("near", "10.244.1.0/24", "192.0.2.2"),
            node("far", "10.244.2.0/24", "198.51.100.2"),
            node("six", "fd00:3::/64", "2001:db8::3"),
        ];
        let nodes: Vec<&NodeView> = nodes.iter().collect();
        let addresses =
            [address(1, "127.0.0.1", 8), address(2, "192.0.2.1", 24), address(2, "2001:db8::1", 64)];
        let service: Cidr = "10.96.0.0/12".parse().expect("cidr");
        let plan = plan(&nodes, "here", &addresses, &[service], Some(7));
        let texts: Vec<String> =
            plan.routes.iter().map(|r| format!("{} {:?} {}", r.dst, r.gateway, r.index)).collect();
        assert_eq!(
            texts,
            ["10.96.0.0/12 None 7", "10.244.1.0/24 Some(192.0.2.2) 2", "fd00:3::/64 Some(2001:db8::3) 2"]
        );
        assert_eq!(plan.unreachable, ["far (10.244.2.0/24)"]);
    }

    #[test]
    fn the_kernel_follows_the_plan() {
        isolated(|| {
            let mut rtnl = Rtnl::open().expect("rtnl");
            Batch::new().add_link("up0", "bridge").set_up_by_name("up0").send(&mut rtnl).expect("link");
            let index = rtnl.link("up0").expect("read").expect("there").index;
            let own = address(index, "192.0.2.1", 24);
            Batch::new().add_address(index, own.ip, own.prefix).send(&mut rtnl).expect("address");
            // A pod's own route stays whatever the plan says.
            let pod = RouteSpec {
                dst: Some(("10.244.0.9".parse().expect("ip"), 32)),
                index,
                ..RouteSpec::default()
            };
            Batch::new().replace_route(&pod).send(&mut rtnl).expect("pod");
            let mut near = node("near", "10.244.1.0/24", "192.0.2.2");
            let decide = |n: &NodeView| {
                plan(
                    &[n],
                    "here",
                    std::slice::from_ref(&own),
                    &["10.96.0.0/12".parse().expect("cidr")],
                    Some(index),
                )
            };
            assert_eq!(apply(&decide(&near)).expect("set"), 2);
            assert_eq!(apply(&decide(&near)).expect("same"), 0);
            near.internal_ips = vec!["192.0.2.3".parse().expect("ip")];
            assert_eq!(apply(&decide(&near)).expect("moved"), 1);
            let routes = rtnl.routes().expect("routes");
            let via = routes.iter().find(|r| r.gateway.is_some()).expect("route");
            assert_eq!(via.gateway, Some("192.0.2.3".parse().expect("ip")));
            assert_eq!(apply(&RoutePlan::default()).expect("none"), 2);
            let left = rtnl.routes().expect("routes");
            assert_eq!(left.iter().filter(|r| r.protocol == ROUTE_PROTOCOL).count(), 1, "the pod's");
        });
    }
}
