//! Two nodes behind a router, each in a network namespace of its own, with a pod: what goes through the tunnel, and what
//! does not come out of it.
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use keelson_sys::netns::{Netns, unshare_net};
use keelson_sys::rtnl::{RouteSpec, VethSpec};
use keelson_sys::sysctl;

use super::*;
use crate::apply::{Applier, isolated, remove_table};
use crate::routes::{self, Machine, RoutePlan};
use crate::views::NodeView;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("ip")
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn namespace() -> Netns {
    let thread = std::thread::spawn(|| {
        unshare_net().expect("namespace");
        for (name, value) in [("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")] {
            sysctl::ensure(name, value).expect("forwarding");
        }
        Batch::new().set_up_by_name("lo").send(&mut Rtnl::open().expect("rtnl")).expect("lo");
        Netns::current().expect("own")
    });
    thread.join().expect("made")
}

/// In a namespace, with a socket there.
fn within<T: Send>(netns: &Netns, work: impl FnOnce(&mut Rtnl) -> T + Send) -> T {
    netns.run(|| work(&mut Rtnl::open().expect("rtnl"))).expect("namespace")
}

/// Joins two namespaces by a pair of interfaces with addresses; their indexes.
fn join(a: (&Netns, &str, &[(IpAddr, u8)]), b: (&Netns, &str, &[(IpAddr, u8)])) -> (u32, u32) {
    within(a.0, |rtnl| {
        let spec = VethSpec { name: a.1, alias: "a test", peer: b.1, peer_netns: b.0.as_fd(), mtu: None };
        Batch::new().add_veth(&spec).send(rtnl).expect("pair");
    });
    let up = |(netns, name, addresses): (&Netns, &str, &[(IpAddr, u8)]), local: &str| {
        within(netns, |rtnl| {
            let index = rtnl.link(name).expect("read").expect("there").index;
            let mut batch = Batch::new();
            // Without one a router asks for no neighbour.
            batch.no_auto_link_local(index).set_up(index).add_address(index, ip(local), 64);
            for (ip, prefix) in addresses {
                batch.add_address(index, *ip, *prefix);
            }
            batch.send(rtnl).expect("up");
            index
        })
    };
    (up(a, "fe80::a"), up(b, "fe80::b"))
}

fn route(netns: &Netns, dst: Option<IpAddr>, gateway: Option<IpAddr>, index: u32) {
    let ipv6 = gateway.or(dst).is_some_and(|ip| ip.is_ipv6());
    let dst = dst.map(|dst| (dst, width(dst)));
    let spec = RouteSpec { dst, gateway, index, ipv6, ..RouteSpec::default() };
    within(netns, |rtnl| Batch::new().replace_route(&spec).send(rtnl).expect("route"));
}

struct Node {
    netns: Netns,
    view: NodeView,
    pod: Netns,
    /// The pod's, one per family.
    pods: [IpAddr; 2],
}

/// A node behind the router, with a pod that has an address of each family.
fn node(router: &Netns, n: u8, below: &str) -> Node {
    let (netns, pod) = (namespace(), namespace());
    let (address, prefix, gateway) = match below {
        "four" => (IpAddr::from([198, 51, n, 1]), 24, IpAddr::from([198, 51, n, 254])),
        _ => (ip(&format!("2001:db8:{n}::1")), 64, ip(&format!("2001:db8:{n}::254"))),
    };
    let (_, up) =
        join((router, &format!("r{n}"), &[(gateway, prefix)]), (&netns, "up0", &[(address, prefix)]));
    route(&netns, None, Some(gateway), up);
    let ranges =
        [format!("10.244.{n}.0/24"), format!("fd00:{n}::/64")].map(|c| c.parse::<Cidr>().expect("cidr"));
    let (inner, outer) = join((&pod, "eth0", &[]), (&netns, "klpod", &[]));
    let pods = ranges.map(|range| {
        let (address, own) = (range.nth(9).expect("address"), first(&range).expect("address"));
        within(&netns, |rtnl| Batch::new().add_address(outer, own, width(own)).send(rtnl).expect("gateway"));
        within(&pod, |rtnl| {
            Batch::new().add_address(inner, address, width(address)).send(rtnl).expect("pod")
        });
        route(&netns, Some(address), None, outer);
        route(&pod, Some(own), None, inner);
        route(&pod, None, Some(own), inner);
        address
    });
    let name = format!("n{n}");
    let view = NodeView { name, pod_cidrs: ranges.to_vec(), internal_ips: vec![address], zone: None };
    Node { netns, view, pod, pods }
}

impl Node {
    /// As the proxy's loop does.
    fn sync(&self, nodes: &[&NodeView]) -> RoutePlan {
        let work = || {
            let (links, addresses) = routes::observe().expect("observed");
            let machine = Machine { links: &links, addresses: &addresses, service_link: None };
            let plan = routes::plan(nodes, &self.view.name, &machine, Tunnel::Auto, &[]);
            if let Some(tunnel) = &plan.tunnel {
                let mut applier = Applier::open().expect("nft");
                applier.apply(&guard(tunnel), &Dirty::default(), false).expect("guard");
            }
            let device = apply(plan.tunnel.as_ref()).expect("device");
            routes::apply(&plan, device).expect("routes");
            plan
        };
        self.netns.run(work).expect("namespace")
    }

    fn neighbours(&self) -> usize {
        within(&self.netns, |rtnl| {
            let link = rtnl.link(INTERFACE).expect("read").expect("there");
            rtnl.neighbours(link.index).expect("neighbours").len()
        })
    }
}

const LARGE: usize = 300_000;

/// Tells each client as whom it sees it, and then much more than a packet holds.
fn serve(node: &Node, address: IpAddr) {
    let listener = node.pod.run(|| TcpListener::bind((address, 8080)).expect("bound")).expect("namespace");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().expect("peer").ip();
            let _ = stream.write_all(format!("{peer}\n").as_bytes());
            let _ = stream.write_all(&[b'x'; LARGE]);
        }
    });
}

/// As whom the server sees a client in this namespace.
fn seen_as(netns: &Netns, to: IpAddr) -> String {
    let go = || {
        let mut stream = TcpStream::connect_timeout(&(to, 8080).into(), Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok::<String, std::io::Error>(text)
    };
    let text = netns.run(go).expect("namespace").expect("an answer");
    let (peer, rest) = text.split_once('\n').expect("a line");
    assert_eq!(rest.len(), LARGE);
    peer.to_owned()
}

fn pods_reach_each_other(below: &'static str) {
    isolated(move || {
        let router = namespace();
        let (a, b) = (node(&router, 1, below), node(&router, 2, below));
        let views = [&a.view, &b.view];
        for node in [&a, &b] {
            let plan = node.sync(&views);
            assert_eq!(plan.unreachable, [""; 0]);
            assert_eq!(plan.routes, []);
        }
        for (pod, here) in b.pods.iter().zip(&a.pods) {
            serve(&b, *pod);
            assert_eq!(seen_as(&a.pod, *pod), here.to_string(), "a pod keeps its address");
            let range = a.view.pod_cidrs.iter().find(|c| c.contains(*here)).expect("range");
            assert_eq!(seen_as(&a.netns, *pod), first(range).expect("first").to_string(), "the node itself");
        }
        // The same again changes nothing, and what another version or a crash left is replaced.
        let link = |node: &Node| within(&node.netns, |rtnl| rtnl.link(INTERFACE).expect("read"));
        let before = link(&a).expect("there");
        a.sync(&views);
        assert_eq!(link(&a).as_ref(), Some(&before));
        within(&a.netns, |rtnl| {
            Batch::new().set_alias(before.index, "keelson vxlan of old").send(rtnl).expect("alias");
        });
        a.sync(&views);
        assert_ne!(link(&a).expect("there").index, before.index);
        assert_eq!(seen_as(&a.pod, b.pods[0]), a.pods[0].to_string());
        // A node comes and goes.
        let third = NodeView {
            name: "n3".into(),
            pod_cidrs: vec!["10.244.3.0/24".parse().expect("cidr")],
            internal_ips: vec![if below == "four" { ip("203.0.113.3") } else { ip("2001:db8:ff::3") }],
            zone: None,
        };
        assert_eq!(a.neighbours(), 3);
        a.sync(&[&a.view, &b.view, &third]);
        assert_eq!(a.neighbours(), 5);
        a.sync(&views);
        assert_eq!(a.neighbours(), 3);
        a.sync(&[&a.view]);
        assert_eq!(link(&a), None);
    });
}

#[test]
fn pods_of_both_families_reach_each_other_over_ipv4() {
    pods_reach_each_other("four");
}

#[test]
fn pods_of_both_families_reach_each_other_over_ipv6() {
    pods_reach_each_other("six");
}

/// A UDP datagram in a frame in VXLAN.
fn frame(to: &Node, source: [u8; 4]) -> Vec<u8> {
    let IpAddr::V4(pod) = to.pods[0] else { panic!("a pod's first address") };
    let mut packet = vec![0x45, 0, 0, 29, 0, 0, 0, 0, 64, UDP, 0, 0];
    packet.extend(source);
    packet.extend(pod.octets());
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&folded.to_be_bytes());
    packet.extend([0x30, 0x39, 0x1e, 0x61, 0, 9, 0, 0, b'!']);
    let mut frame = vec![8, 0, 0, 0, 0, 0, 1, 0];
    frame.extend(mac(to.view.internal_ips[0]));
    frame.extend([0x0a, 0, 0, 0, 0, 1, 8, 0]);
    frame.extend(packet);
    frame
}

#[test]
fn what_does_not_come_from_a_node_or_of_its_pods_is_dropped() {
    isolated(|| {
        let router = namespace();
        let (a, b) = (node(&router, 1, "four"), node(&router, 2, "four"));
        for node in [&a, &b] {
            node.sync(&[&a.view, &b.view]);
        }
        let heard = a.pod.run(|| UdpSocket::bind((a.pods[0], 7777)).expect("bound")).expect("namespace");
        heard.set_read_timeout(Some(Duration::from_millis(300))).expect("timeout");
        let hears = |from: &Netns, source| {
            let to = (a.view.internal_ips[0], VXLAN_PORT);
            let send = || UdpSocket::bind(("0.0.0.0", 0))?.send_to(&frame(&a, source), to);
            from.run(send).expect("namespace").expect("sent");
            heard.recv(&mut [0; 8]).is_ok()
        };
        let (pod, stranger) = ([10, 244, 2, 9], [10, 244, 7, 7]);
        assert!(hears(&b.netns, pod), "a node's packet of its pod");
        assert!(!hears(&router, pod), "not from a node");
        assert!(!hears(&b.netns, stranger), "not of a node's pods");
        // It is the table that keeps them out.
        a.netns.run(|| remove_table(TUNNEL_TABLE)).expect("namespace").expect("removed");
        assert!(hears(&router, pod), "the test's packets are good ones");
    });
}
