//! Routes to other nodes' pods, and to service addresses.
//!
//! Nodes on one link reach each other's pod ranges by plain routes through the nodes' addresses, all others through a
//! tunnel ([`crate::tunnel`]). The service ranges are routed to the interface of cluster DNS, so that the node itself
//! reaches services without any default route; translation replaces the address before a packet would leave by it.
use std::collections::BTreeSet;
use std::net::IpAddr;

use keelson_base::cidr::Cidr;
use keelson_sys::nl::NlError;
use keelson_sys::rtnl::{Address, Batch, Link, ROUTE_PROTOCOL, Route, RouteSpec, Rtnl};

use crate::tunnel::{self, Peer, Tunnel, TunnelPlan};
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
    /// Through the tunnel: the gateway is on it, and the node itself speaks as this address.
    pub through: Option<IpAddr>,
}

/// What must be, and nodes that cannot be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoutePlan {
    /// Those that are not through the tunnel, sorted.
    pub routes: Vec<Wanted>,
    pub tunnel: Option<TunnelPlan>,
    /// Names and ranges, with the reason.
    pub unreachable: Vec<String>,
}

/// What the machine's own interfaces are.
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    pub links: &'a [Link],
    pub addresses: &'a [Address],
    /// The interface that service ranges are routed to.
    pub service_link: Option<u32>,
}

/// Decides the routes and the tunnel.
pub fn plan(
    nodes: &[&NodeView],
    own: &str,
    machine: &Machine<'_>,
    mode: Tunnel,
    service_cidrs: &[Cidr],
) -> RoutePlan {
    let mut plan = RoutePlan::default();
    let mut ends = nodes.iter().find(|n| n.name == own).and_then(|own| own_end(own, machine));
    for node in nodes.iter().filter(|n| n.name != own) {
        let mut far = Vec::new();
        for cidr in &node.pod_cidrs {
            match direct(node, cidr, machine.addresses).filter(|_| mode != Tunnel::Always) {
                Some((gateway, index)) => {
                    let route = Wanted { dst: *cidr, gateway: Some(gateway), index, through: None };
                    plan.routes.push(route);
                }
                None => far.push(*cidr),
            }
        }
        if far.is_empty() {
            continue;
        }
        let end = ends.as_mut().filter(|_| mode != Tunnel::Never);
        let reached = end.and_then(|end| {
            let address = node.internal_ips.iter().find(|ip| ip.is_ipv4() == end.local.is_ipv4())?;
            Some((end, *address))
        });
        match reached {
            Some((end, address)) => end.peers.push(Peer { address, ranges: far }),
            None => {
                let why = if mode == Tunnel::Never {
                    "network.tunnel is never"
                } else {
                    "the two have no addresses of one family"
                };
                plan.unreachable.extend(far.iter().map(|cidr| format!("{} ({cidr}): {why}", node.name)));
            }
        }
    }
    plan.tunnel = ends.filter(|end| !end.peers.is_empty());
    if let Some(tunnel) = &mut plan.tunnel {
        tunnel.peers.sort();
    }
    if let Some(index) = machine.service_link {
        let service = |dst: &Cidr| Wanted { dst: *dst, gateway: None, index, through: None };
        plan.routes.extend(service_cidrs.iter().map(service));
    }
    plan.routes.sort();
    plan
}

/// This node's end of the tunnels: its first address that an interface has.
fn own_end(own: &NodeView, machine: &Machine<'_>) -> Option<TunnelPlan> {
    let held = |ip: &IpAddr| machine.addresses.iter().find(|a| a.ip == *ip);
    let address = own.internal_ips.iter().find_map(held)?;
    let link = machine.links.iter().find(|l| l.index == address.index)?;
    Some(TunnelPlan {
        local: address.ip,
        // Loopback's MTU is no network's.
        mtu: link.mtu.clamp(1280, 9216) - tunnel::overhead(address.ip),
        addresses: own.pod_cidrs.iter().filter_map(tunnel::first).collect(),
        peers: Vec::new(),
    })
}

/// The node's address and the interface on whose link it is.
fn direct(node: &NodeView, cidr: &Cidr, addresses: &[Address]) -> Option<(IpAddr, u32)> {
    let family = |ip: &&IpAddr| ip.is_ipv4() == cidr.network().is_ipv4();
    let mut all = node.internal_ips.iter().filter(family);
    all.find_map(|ip| on_link(*ip, addresses).map(|index| (*ip, index)))
}

impl RoutePlan {
    /// All routes, with those through the tunnel's device.
    fn all(&self, device: Option<u32>) -> Vec<Wanted> {
        let mut all = self.routes.clone();
        if let (Some(tunnel), Some(index)) = (&self.tunnel, device) {
            for dst in tunnel.peers.iter().flat_map(|peer| &peer.ranges) {
                let same = |ip: &&IpAddr| ip.is_ipv4() == dst.network().is_ipv4();
                let through = tunnel.addresses.iter().find(same).copied();
                all.push(Wanted { dst: *dst, gateway: tunnel::first(dst), index, through });
            }
        }
        all
    }
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
    let through = route.src.filter(|_| route.onlink);
    Some(Wanted { dst: Cidr::new(ip, prefix).ok()?, gateway: route.gateway, index: route.index, through })
}

fn spec(wanted: &Wanted) -> RouteSpec {
    RouteSpec {
        dst: Some((wanted.dst.network(), wanted.dst.prefix())),
        gateway: wanted.gateway,
        index: wanted.index,
        onlink: wanted.through.is_some(),
        src: wanted.through,
        ..RouteSpec::default()
    }
}

/// Makes the kernel's routes of ours the planned ones, those of the tunnel through `device`. Returns how many changed.
pub fn apply(plan: &RoutePlan, device: Option<u32>) -> Result<usize, RouteError> {
    // Sets: with thousands of nodes, one node's change compares no route with all others.
    let wanted: BTreeSet<Wanted> = plan.all(device).into_iter().collect();
    let targets: BTreeSet<Cidr> = wanted.iter().map(|route| route.dst).collect();
    let failed = |step| move |source| RouteError { step, source };
    let mut rtnl = Rtnl::open().map_err(failed("open rtnetlink for routes"))?;
    let held: BTreeSet<Wanted> =
        rtnl.routes().map_err(failed("list routes"))?.iter().filter_map(ours).collect();
    let mut batch = Batch::new();
    let mut changes = 0;
    for old in held.difference(&wanted) {
        // A replaced gateway is replaced below, without a moment in between.
        if !targets.contains(&old.dst) {
            batch.delete_route(&spec(old));
            changes += 1;
        }
    }
    for new in wanted.difference(&held) {
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
    fn nodes_on_a_link_have_routes_and_others_a_tunnel() {
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
        let links = [Link { index: 2, mtu: 1500, ..Link::default() }];
        let machine = Machine { links: &links, addresses: &addresses, service_link: Some(7) };
        let texts = |plan: &RoutePlan| -> Vec<String> {
            plan.routes.iter().map(|r| format!("{} {:?} {}", r.dst, r.gateway, r.index)).collect()
        };
        let decided = plan(&nodes, "here", &machine, Tunnel::Auto, &[service]);
        assert_eq!(
            texts(&decided),
            ["10.96.0.0/12 None 7", "10.244.1.0/24 Some(192.0.2.2) 2", "fd00:3::/64 Some(2001:db8::3) 2"]
        );
        assert_eq!(decided.unreachable, [""; 0]);
        let tunnel = decided.tunnel.expect("a tunnel");
        assert_eq!((tunnel.local.to_string(), tunnel.mtu), ("192.0.2.1".to_owned(), 1450));
        assert_eq!(tunnel.addresses, ["10.244.0.1".parse::<IpAddr>().expect("ip")]);
        let peers = |tunnel: &TunnelPlan| -> Vec<String> {
            tunnel.peers.iter().map(|p| format!("{} {}", p.address, p.ranges[0])).collect()
        };
        assert_eq!(peers(&tunnel), ["198.51.100.2 10.244.2.0/24"]);

        let always = plan(&nodes, "here", &machine, Tunnel::Always, &[service]);
        assert_eq!(texts(&always), ["10.96.0.0/12 None 7"]);
        assert_eq!(
            peers(&always.tunnel.expect("a tunnel")),
            ["192.0.2.2 10.244.1.0/24", "198.51.100.2 10.244.2.0/24"]
        );
        assert_eq!(always.unreachable, ["six (fd00:3::/64): the two have no addresses of one family"]);

        let never = plan(&nodes, "here", &machine, Tunnel::Never, &[service]);
        assert_eq!((texts(&never).len(), never.tunnel), (3, None));
        assert_eq!(never.unreachable, ["far (10.244.2.0/24): network.tunnel is never"]);
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
                let machine =
                    Machine { links: &[], addresses: std::slice::from_ref(&own), service_link: Some(index) };
                plan(&[n], "here", &machine, Tunnel::Auto, &["10.96.0.0/12".parse().expect("cidr")])
            };
            assert_eq!(apply(&decide(&near), None).expect("set"), 2);
            assert_eq!(apply(&decide(&near), None).expect("same"), 0);
            near.internal_ips = vec!["192.0.2.3".parse().expect("ip")];
            assert_eq!(apply(&decide(&near), None).expect("moved"), 1);
            let routes = rtnl.routes().expect("routes");
            let via = routes.iter().find(|r| r.gateway.is_some()).expect("route");
            assert_eq!(via.gateway, Some("192.0.2.3".parse().expect("ip")));
            assert_eq!(apply(&RoutePlan::default(), None).expect("none"), 2);
            let left = rtnl.routes().expect("routes");
            assert_eq!(left.iter().filter(|r| r.protocol == ROUTE_PROTOCOL).count(), 1, "the pod's");
        });
    }
}
