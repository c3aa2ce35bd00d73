//! What becomes of packets, for the situations of upstream's tables (`pkg/proxy/nftables/proxier_test.go`).
use std::collections::BTreeSet;
use std::net::IpAddr;

use super::sim::{Fate, Node, Packet};
use super::*;
use crate::views::{Endpoint, Protocol, ServicePort, ServiceView, SliceView};

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect("ip")
}

pub(super) fn facts() -> NodeFacts {
    NodeFacts {
        name: "here".into(),
        zone: None,
        node_ips: vec![ip("192.168.0.2"), ip("2001:db8::2")],
        pod_cidrs: vec!["10.0.0.0/8".parse().expect("cidr"), "fd00:10::/32".parse().expect("cidr")],
        service_cidrs: vec!["172.30.0.0/16".parse().expect("cidr"), "fd00:172::/108".parse().expect("cidr")],
        dns_ips: vec![ip("172.30.0.10")],
    }
}

pub(super) fn service(name: &str, cluster_ip: &str) -> ServiceView {
    ServiceView {
        namespace: "ns".into(),
        name: name.into(),
        cluster_ips: vec![ip(cluster_ip)],
        ports: vec![ServicePort { name: "p80".into(), protocol: Protocol::Tcp, port: 80, node_port: None }],
        ..ServiceView::default()
    }
}

/// `address@node`, with `!` for not ready and `~` for serving while terminating.
pub(super) fn slice(service: &str, endpoints: &[&str]) -> SliceView {
    let endpoints = endpoints.iter().map(|text| {
        let (state, text) = match text.split_at(1) {
            ("!", rest) => ('!', rest),
            ("~", rest) => ('~', rest),
            _ => (' ', *text),
        };
        let (address, node) = text.split_once('@').expect("address@node");
        Endpoint {
            ip: ip(address),
            ready: state == ' ',
            serving: state != '!',
            terminating: state == '~',
            node: Some(node.into()),
            hostname: None,
            zones: vec![],
            nodes: vec![],
        }
    });
    SliceView {
        namespace: "ns".into(),
        service: service.into(),
        ports: vec![("p80".into(), Protocol::Tcp, 80)],
        endpoints: endpoints.collect(),
    }
}

struct World {
    table: TableSpec,
    masquerade: TableSpec,
}

fn world(services: &[ServiceView], slices: &[SliceView]) -> World {
    let ruleset = plan(services, slices, &facts());
    World { table: ruleset.table().clone(), masquerade: masquerade_table(&facts()) }
}

const EXTERNAL: &str = "203.0.113.5";
const POD: &str = "10.0.0.7";
const NODE: &str = "192.168.0.2";

impl World {
    fn fates(&self, packet: &Packet) -> BTreeSet<Fate> {
        let node = Node {
            tables: vec![&self.table, &self.masquerade],
            local: [&facts().node_ips[..], &[ip("10.0.0.1"), ip("172.30.0.10"), ip("127.0.0.1"), ip("::1")]]
                .concat(),
            pods: "10.0.0.0/8".parse().expect("cidr"),
        };
        node.fates(packet)
    }

    /// `from` is a source address; expected is `drop`, `reject`, or targets with `+masq` at the end.
    fn check(&self, from: &str, to: &str, port: u16, expected: &str) {
        let mut packet = Packet::new(from, to, 6, port);
        packet.iif = match from {
            NODE | "127.0.0.1" | "2001:db8::2" => None,
            pod if pod.starts_with("10.") || pod.starts_with("fd00:10") => Some("kl0"),
            _ => Some("eth0"),
        };
        let fates = self.fates(&packet);
        let texts: BTreeSet<String> = fates
            .iter()
            .map(|f| match f {
                Fate::Drop => "drop".into(),
                Fate::Reject => "reject".into(),
                Fate::Delivered { to, masquerade } => {
                    format!("{to}{}", if *masquerade { "+masq" } else { "" })
                }
            })
            .collect();
        let texts: Vec<String> = texts.into_iter().collect();
        assert_eq!(texts.join(" "), expected, "{from} -> {to}:{port}\n{}", self.table);
    }
}

#[test]
fn cluster_ip() {
    let w = world(
        &[service("a", "172.30.0.41")],
        &[slice("a", &["10.180.0.1@here", "10.180.2.1@there", "!10.180.2.2@there"])],
    );
    w.check(POD, "172.30.0.41", 80, "10.180.0.1:80 10.180.2.1:80");
    w.check(NODE, "172.30.0.41", 80, "10.180.0.1:80+masq 10.180.2.1:80+masq");
    w.check(EXTERNAL, "172.30.0.41", 80, "10.180.0.1:80+masq 10.180.2.1:80+masq");
    w.check("10.180.0.1", "172.30.0.41", 80, "10.180.0.1:80+masq 10.180.2.1:80");
    // A port that the service does not have, and an address that no service has.
    w.check(POD, "172.30.0.41", 81, "reject");
    w.check(NODE, "172.30.0.41", 81, "reject");
    w.check(POD, "172.30.0.99", 80, "drop");
    w.check(POD, "10.180.2.1", 80, "10.180.2.1:80");
    w.check(POD, "8.8.8.8", 80, "8.8.8.8:80+masq");
    w.check(NODE, "8.8.8.8", 80, "8.8.8.8:80");
}

#[test]
fn no_endpoints_reject() {
    let mut a = service("a", "172.30.0.41");
    a.ports[0].node_port = Some(3001);
    a.external_ips = vec![ip("192.168.99.11")];
    a.load_balancer_ips = vec![ip("1.2.3.4")];
    let w = world(&[a], &[slice("a", &["!10.180.0.1@here"])]);
    for (to, port) in [("172.30.0.41", 80), (NODE, 3001), ("192.168.99.11", 80), ("1.2.3.4", 80)] {
        w.check(POD, to, port, "reject");
        w.check(EXTERNAL, to, port, "reject");
    }
    w.check(NODE, NODE, 3001, "reject");
}

#[test]
fn node_port_and_external_addresses() {
    let mut a = service("a", "172.30.0.41");
    a.ports[0].node_port = Some(3001);
    a.external_ips = vec![ip("192.168.99.11")];
    a.load_balancer_ips = vec![ip("1.2.3.4")];
    let w = world(&[a], &[slice("a", &["10.180.0.1@here", "10.180.2.1@there"])]);
    let both = "10.180.0.1:80+masq 10.180.2.1:80+masq";
    for (to, port) in [(NODE, 3001), ("192.168.99.11", 80), ("1.2.3.4", 80)] {
        w.check(EXTERNAL, to, port, both);
        w.check(POD, to, port, both);
        w.check(NODE, to, port, both);
    }
    w.check("127.0.0.1", "127.0.0.1", 3001, "127.0.0.1:3001");
    w.check(EXTERNAL, NODE, 80, "192.168.0.2:80");
    // A node port counts on this node's addresses only.
    w.check(POD, "192.168.0.3", 3001, "192.168.0.3:3001+masq");
}

#[test]
fn external_traffic_policy_local() {
    let mut a = service("a", "172.30.0.41");
    a.ports[0].node_port = Some(3001);
    a.external_local = true;
    a.load_balancer_ips = vec![ip("1.2.3.4")];
    let some = world(&[a.clone()], &[slice("a", &["10.180.0.1@here", "10.180.2.1@there"])]);
    let none = world(&[a], &[slice("a", &["10.180.2.1@there"])]);
    for (to, port) in [(NODE, 3001), ("1.2.3.4", 80)] {
        some.check(EXTERNAL, to, port, "10.180.0.1:80");
        some.check(POD, to, port, "10.180.0.1:80 10.180.2.1:80");
        some.check(NODE, to, port, "10.180.0.1:80+masq 10.180.2.1:80+masq");
        none.check(EXTERNAL, to, port, "drop");
        none.check(POD, to, port, "10.180.2.1:80");
        none.check(NODE, to, port, "10.180.2.1:80+masq");
    }
    none.check(POD, "172.30.0.41", 80, "10.180.2.1:80");
}

#[test]
fn internal_traffic_policy_local() {
    let mut a = service("a", "172.30.0.41");
    a.internal_local = true;
    let some = world(&[a.clone()], &[slice("a", &["10.180.0.1@here", "10.180.2.1@there"])]);
    some.check(POD, "172.30.0.41", 80, "10.180.0.1:80");
    let none = world(&[a.clone()], &[slice("a", &["10.180.2.1@there"])]);
    none.check(POD, "172.30.0.41", 80, "drop");
    none.check(NODE, "172.30.0.41", 80, "drop");
    let empty = world(&[a.clone()], &[]);
    empty.check(POD, "172.30.0.41", 80, "reject");
    // Outside is decided by the other policy.
    a.ports[0].node_port = Some(3001);
    let outside = world(&[a], &[slice("a", &["10.180.2.1@there"])]);
    outside.check(EXTERNAL, NODE, 3001, "10.180.2.1:80+masq");
    outside.check(POD, "172.30.0.41", 80, "drop");
}

#[test]
fn terminating_endpoints_serve_when_nothing_else_does() {
    let mut a = service("a", "172.30.0.41");
    a.ports[0].node_port = Some(3001);
    a.external_local = true;
    let w = world(&[a.clone()], &[slice("a", &["~10.180.0.1@here", "10.180.2.1@there"])]);
    w.check(POD, "172.30.0.41", 80, "10.180.2.1:80");
    w.check(EXTERNAL, NODE, 3001, "10.180.0.1:80");
    let w = world(&[a], &[slice("a", &["~10.180.0.1@here", "~10.180.2.1@there"])]);
    w.check(POD, "172.30.0.41", 80, "10.180.0.1:80 10.180.2.1:80");
}

#[test]
fn load_balancer_source_ranges() {
    let mut a = service("a", "172.30.0.41");
    a.load_balancer_ips = vec![ip("1.2.3.4")];
    a.ports[0].node_port = Some(3001);
    a.source_ranges = vec!["203.0.113.0/25".parse().expect("cidr"), "2001:db8::/32".parse().expect("cidr")];
    let endpoints = [slice("a", &["10.180.0.1@here"])];
    let w = world(&[a.clone()], &endpoints);
    w.check(EXTERNAL, "1.2.3.4", 80, "10.180.0.1:80+masq");
    w.check("203.0.113.130", "1.2.3.4", 80, "drop");
    w.check(POD, "1.2.3.4", 80, "drop");
    w.check("203.0.113.130", NODE, 3001, "10.180.0.1:80+masq");
    a.source_ranges.push("192.168.0.0/24".parse().expect("cidr"));
    let w = world(&[a.clone()], &endpoints);
    w.check(NODE, "1.2.3.4", 80, "10.180.0.1:80+masq");
    a.source_ranges.push("0.0.0.0/0".parse().expect("cidr"));
    world(&[a], &endpoints).check("203.0.113.130", "1.2.3.4", 80, "10.180.0.1:80+masq");
}

#[test]
fn session_affinity_offers_all_endpoints_to_new_clients() {
    let mut a = service("a", "172.30.0.41");
    a.affinity_seconds = Some(60);
    let w = world(&[a], &[slice("a", &["10.180.0.1@here", "10.180.2.1@there"])]);
    w.check(POD, "172.30.0.41", 80, "10.180.0.1:80 10.180.2.1:80");
}

#[test]
fn ipv6_and_other_protocols() {
    let mut a = service("a", "172.30.0.41");
    a.cluster_ips.push(ip("fd00:172::41"));
    a.ports.push(ServicePort { name: "s".into(), protocol: Protocol::Sctp, port: 99, node_port: Some(3002) });
    let mut six = slice("a", &["fd00:10:1::1@here", "fd00:10:2::1@there"]);
    six.ports.push(("s".into(), Protocol::Sctp, 100));
    let w = world(&[a], &[slice("a", &["10.180.0.1@here"]), six]);
    w.check("fd00:10::7", "fd00:172::41", 80, "[fd00:10:1::1]:80 [fd00:10:2::1]:80");
    w.check("2001:db8:1::9", "fd00:172::41", 80, "[fd00:10:1::1]:80+masq [fd00:10:2::1]:80+masq");
    w.check("fd00:10:1::1", "fd00:172::41", 80, "[fd00:10:1::1]:80+masq [fd00:10:2::1]:80");
    w.check("fd00:10::7", "fd00:172::99", 80, "drop");
    let sctp = Packet::new("2001:db8:1::9", "2001:db8::2", 132, 3002);
    assert_eq!(w.fates(&sctp).len(), 2);
    assert!(
        w.fates(&sctp)
            .iter()
            .all(|f| matches!(f, Fate::Delivered { to, masquerade: true } if to.port() == 100))
    );
    let tcp = Packet::new("2001:db8:1::9", "2001:db8::2", 6, 3002);
    assert!(w.fates(&tcp).iter().all(|f| matches!(f, Fate::Delivered { to, .. } if to.port() == 3002)));
}

#[test]
fn cluster_dns_is_the_nodes_own_and_closed_to_outsiders() {
    let mut dns = service("kube-dns", "172.30.0.10");
    dns.ports = vec![
        ServicePort { name: "dns".into(), protocol: Protocol::Udp, port: 53, node_port: None },
        ServicePort { name: "metrics".into(), protocol: Protocol::Tcp, port: 9153, node_port: None },
    ];
    let w = world(&[dns], &[]);
    for port in [53, 54] {
        w.check(POD, "172.30.0.10", port, &format!("172.30.0.10:{port}"));
        w.check(NODE, "172.30.0.10", port, &format!("172.30.0.10:{port}"));
        w.check(EXTERNAL, "172.30.0.10", port, "drop");
    }
    // A pod's address on the wrong interface.
    let mut packet = Packet::new(POD, "172.30.0.10", 17, 53);
    packet.iif = Some("eth0");
    assert_eq!(w.fates(&packet), BTreeSet::from([Fate::Drop]));
    w.check(POD, "172.30.0.10", 9153, "reject");
}

#[test]
fn services_for_others_and_headless_ones_have_no_part() {
    let mut ignored = service("a", "172.30.0.41");
    ignored.ignored = true;
    let mut headless = service("b", "172.30.0.42");
    (headless.headless, headless.cluster_ips) = (true, vec![]);
    let slices = [slice("a", &["10.180.0.1@here"]), slice("b", &["10.180.0.2@here"])];
    assert_eq!(plan(&[ignored, headless], &slices, &facts()).table(), &base(&facts()));
}

#[test]
fn two_services_with_one_external_address() {
    let mut a = service("a", "172.30.0.41");
    let mut b = service("b", "172.30.0.42");
    (a.external_ips, b.external_ips) = (vec![ip("9.9.9.9")], vec![ip("9.9.9.9")]);
    let slices = [slice("a", &["10.180.0.1@here"]), slice("b", &["10.180.0.2@here"])];
    let mut ruleset = plan(&[b, a.clone()], &slices, &facts());
    let w = |r: &Ruleset| World { table: r.table().clone(), masquerade: masquerade_table(&facts()) };
    w(&ruleset).check(EXTERNAL, "9.9.9.9", 80, "10.180.0.1:80+masq");
    ruleset.set(ServiceName::new("ns", "a"), Fragment::default());
    w(&ruleset).check(EXTERNAL, "9.9.9.9", 80, "10.180.0.2:80+masq");
    ruleset.set(ServiceName::new("ns", "a"), plan_service(&a, &[&slices[0]], &facts()));
    w(&ruleset).check(EXTERNAL, "9.9.9.9", 80, "10.180.0.1:80+masq");
}

#[test]
fn a_change_marks_only_its_own_service() {
    let services: Vec<ServiceView> =
        (0..20).map(|n| service(&format!("s{n}"), &format!("172.30.1.{n}"))).collect();
    let slices: Vec<SliceView> =
        (0..20).map(|n| slice(&format!("s{n}"), &[&format!("10.180.0.{n}@here")])).collect();
    let mut ruleset = plan(&services, &slices, &facts());
    ruleset.take_dirty();
    let name = ServiceName::new("ns", "s3");
    assert!(!ruleset.set(name.clone(), plan_service(&services[3], &[&slices[3]], &facts())));
    assert!(ruleset.take_dirty().is_empty());
    let more = slice("s3", &["10.180.0.3@here", "10.180.2.3@there"]);
    assert!(ruleset.set(name, plan_service(&services[3], &[&more], &facts())));
    let dirty = ruleset.take_dirty();
    assert_eq!(dirty.chains, BTreeSet::from(["pick4-2".to_owned()]));
    let names: Vec<&str> = dirty.elements.iter().map(|(set, _)| set.as_str()).collect();
    assert_eq!(names, ["endpoints4", "service-ips4"]);
    assert!(dirty.sets.is_empty());
}
