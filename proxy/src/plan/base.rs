//! The part of the table that does not depend on services: hooks, shared maps, masquerade, DNS guard.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use keelson_base::consts::nft::SERVICES_TABLE;
use keelson_sys::nft::{Base, ChainKind, Element, Field, Hook, Ip, Key, Rule, SetData, SetSpec, Verdict};

use super::ruleset::TableSpec;
use super::{Fragment, NodeFacts};

/// Packets with this mark are masqueraded on their way out (upstream's bit).
pub const MASQUERADE_MARK: u32 = 0x4000;
/// Changes with the layout of shared sets and base chains: then the table is replaced in one batch.
const LAYOUT: &[u8] = &[65, 1, 1];

/// Names of the shared sets of an address family.
pub struct Sets {
    pub cluster_ips: &'static str,
    pub service_ips: &'static str,
    pub node_ports: &'static str,
    pub no_endpoint_services: &'static str,
    pub no_endpoint_node_ports: &'static str,
    pub firewall_ips: &'static str,
    pub hairpin: &'static str,
    pub pods: &'static str,
    pub service_ranges: &'static str,
    pub dns_ips: &'static str,
    pub endpoints: &'static str,
    pub local_endpoints: &'static str,
    pub node_endpoints: &'static str,
    pub node_local_endpoints: &'static str,
}

macro_rules! names {
    ($digit:literal) => {
        Sets {
            cluster_ips: concat!("cluster-ips", $digit),
            service_ips: concat!("service-ips", $digit),
            node_ports: concat!("node-ports", $digit),
            no_endpoint_services: concat!("no-endpoint-services", $digit),
            no_endpoint_node_ports: concat!("no-endpoint-node-ports", $digit),
            firewall_ips: concat!("firewall-ips", $digit),
            hairpin: concat!("hairpin", $digit),
            pods: concat!("pods", $digit),
            service_ranges: concat!("service-ranges", $digit),
            dns_ips: concat!("dns-ips", $digit),
            endpoints: concat!("endpoints", $digit),
            local_endpoints: concat!("local-endpoints", $digit),
            node_endpoints: concat!("node-endpoints", $digit),
            node_local_endpoints: concat!("node-local-endpoints", $digit),
        }
    };
}
static SETS4: Sets = names!("4");
static SETS6: Sets = names!("6");

/// The shared sets' names for a family.
pub fn sets(ip: Ip) -> &'static Sets {
    match ip {
        Ip::V4 => &SETS4,
        Ip::V6 => &SETS6,
    }
}

/// The map that holds endpoints: by address or node port, for policy Local or Cluster.
pub(super) fn endpoint_map(ip: Ip, by_address: bool, local: bool) -> &'static str {
    let sets = sets(ip);
    match (by_address, local) {
        (true, false) => sets.endpoints,
        (true, true) => sets.local_endpoints,
        (false, false) => sets.node_endpoints,
        (false, true) => sets.node_local_endpoints,
    }
}

/// The chain that rejects.
pub(super) const REJECT: &str = "reject";

const FAMILIES: [Ip; 2] = [Ip::V4, Ip::V6];

fn add_sets(table: &mut TableSpec, ip: Ip, node: &NodeFacts) {
    let names = sets(ip);
    let tuple = [ip.field(), Field::Proto, Field::Port];
    let port = [Field::Proto, Field::Port];
    let of_family = |cidr: &&keelson_base::cidr::Cidr| Ip::of(cidr.network()) == ip;
    let ranges = |cidrs: &[keelson_base::cidr::Cidr]| -> Vec<Element> {
        cidrs.iter().filter(of_family).map(|c| Element::prefix(c.network(), c.prefix())).collect()
    };
    for name in [names.service_ips, names.no_endpoint_services, names.firewall_ips] {
        table.set(SetSpec::new(name, &tuple, SetData::Verdict), vec![]);
    }
    for name in [names.node_ports, names.no_endpoint_node_ports] {
        table.set(SetSpec::new(name, &port, SetData::Verdict), vec![]);
    }
    let target = || SetData::Value(vec![ip.field(), Field::Port]);
    for name in [names.endpoints, names.local_endpoints] {
        let key = [ip.field(), Field::Proto, Field::Port, Field::Mark];
        table.set(SetSpec::new(name, &key, target()), vec![]);
    }
    for name in [names.node_endpoints, names.node_local_endpoints] {
        table.set(SetSpec::new(name, &[Field::Proto, Field::Port, Field::Mark], target()), vec![]);
    }
    table.set(SetSpec::new(names.cluster_ips, &[ip.field()], SetData::None), vec![]);
    table.set(SetSpec::new(names.hairpin, &[ip.field(), ip.field()], SetData::None), vec![]);
    let dns = node.dns_ips.iter().filter(|a| Ip::of(**a) == ip);
    let dns = dns.map(|a| Element::key(Key::new().ip(*a).bytes())).collect();
    table.set(SetSpec::new(names.dns_ips, &[ip.field()], SetData::None), dns);
    table.set(SetSpec::new(names.pods, &[ip.field()], SetData::None).intervals(), ranges(&node.pod_cidrs));
    table.set(
        SetSpec::new(names.service_ranges, &[ip.field()], SetData::None).intervals(),
        ranges(&node.service_cidrs),
    );
}

fn localhost(ip: Ip) -> (IpAddr, u8) {
    match ip {
        Ip::V4 => (Ipv4Addr::new(127, 0, 0, 0).into(), 8),
        Ip::V6 => (Ipv6Addr::LOCALHOST.into(), 128),
    }
}

/// The table without any service.
pub fn base(node: &NodeFacts) -> TableSpec {
    let mut table =
        TableSpec { name: SERVICES_TABLE.into(), userdata: LAYOUT.to_vec(), ..TableSpec::default() };
    FAMILIES.iter().for_each(|ip| add_sets(&mut table, *ip, node));
    let hook = |kind, hook, priority| Some(Base { kind, hook, priority });
    let new = || Rule::new().ct_new();

    // Translation.
    let mut services = Vec::new();
    for ip in FAMILIES {
        let names = sets(ip);
        // From outside the pods' ranges: the way back must come through this node.
        services.push(
            Rule::new()
                .daddr_in(ip, names.cluster_ips)
                .saddr_in(ip, names.pods, true)
                .set_mark(MASQUERADE_MARK),
        );
        services.push(Rule::new().vmap_daddr_proto_port(ip, names.service_ips));
    }
    services.push(Rule::new().fib_local(false, false).jump("node-ports"));
    table.chain("services", None, services);
    let mut node_ports = Vec::new();
    for ip in FAMILIES {
        let (net, prefix) = localhost(ip);
        // Never on loopback addresses: that would need route_localnet, which opens them to the link.
        node_ports.push(Rule::new().daddr_net(net, prefix, false).verdict(Verdict::Return));
    }
    for ip in FAMILIES {
        node_ports.push(Rule::new().nfproto(ip).vmap_proto_port(sets(ip).node_ports));
    }
    table.chain("node-ports", None, node_ports);
    for (name, at) in [("nat-prerouting", Hook::Prerouting), ("nat-output", Hook::Output)] {
        table.chain(name, hook(ChainKind::Nat, at, -100), vec![Rule::new().jump("services")]);
    }

    // Masquerade of what the translation marked, and of pods that reach themselves through a service.
    let mut masquerade = vec![Rule::new().marked(MASQUERADE_MARK).clear_mark(MASQUERADE_MARK).masquerade()];
    for ip in FAMILIES {
        masquerade.push(Rule::new().ct_dnat().saddr_daddr_in(ip, sets(ip).hairpin).masquerade());
    }
    table.chain("nat-postrouting", hook(ChainKind::Nat, Hook::Postrouting, 100), masquerade);

    add_checks(&mut table);
    for (name, at) in
        [("check-input", Hook::Input), ("check-forward", Hook::Forward), ("check-output", Hook::Output)]
    {
        let mut rules = Vec::new();
        if at != Hook::Forward {
            rules.push(new().fib_local(false, false).jump("node-port-endpoints"));
        }
        rules.push(new().jump("service-endpoints"));
        if at != Hook::Input {
            rules.push(new().jump("cluster-ips"));
        }
        table.chain(name, hook(ChainKind::Filter, at, 0), rules);
    }
    // Before translation, where the load balancer's address still stands in the packet.
    for (name, at) in [("firewall-prerouting", Hook::Prerouting), ("firewall-output", Hook::Output)] {
        table.chain(name, hook(ChainKind::Filter, at, -110), vec![new().jump("firewall")]);
    }
    table.chain("dns-guard", hook(ChainKind::Filter, Hook::Prerouting, -150), dns_guard());
    table
}

/// Services without endpoints, and addresses of the service ranges that no service has.
fn add_checks(table: &mut TableSpec) {
    let (mut endpoints, mut ports, mut cluster, mut firewall) = (vec![], vec![], vec![], vec![]);
    for ip in FAMILIES {
        let names = sets(ip);
        let (net, prefix) = localhost(ip);
        endpoints.push(Rule::new().vmap_daddr_proto_port(ip, names.no_endpoint_services));
        ports.push(Rule::new().daddr_net(net, prefix, false).verdict(Verdict::Return));
        ports.push(Rule::new().nfproto(ip).vmap_proto_port(names.no_endpoint_node_ports));
        cluster.push(Rule::new().daddr_in(ip, names.dns_ips).verdict(Verdict::Return));
        cluster.push(Rule::new().daddr_in(ip, names.cluster_ips).reject());
        cluster.push(Rule::new().daddr_in(ip, names.service_ranges).drop());
        firewall.push(Rule::new().vmap_daddr_proto_port(ip, names.firewall_ips));
    }
    table.chain("service-endpoints", None, endpoints);
    table.chain("node-port-endpoints", None, ports);
    table.chain("cluster-ips", None, cluster);
    table.chain("firewall", None, firewall);
    table.chain(REJECT, None, vec![Rule::new().reject()]);
}

/// The DNS address is this node's own: only the node and pods may use it, by the interface they belong to.
fn dns_guard() -> Vec<Rule> {
    let mut rules = Vec::new();
    for ip in FAMILIES {
        let names = sets(ip);
        let dns = || Rule::new().daddr_in(ip, names.dns_ips);
        rules.push(dns().fib_local(true, false).accept());
        rules.push(dns().saddr_in(ip, names.pods, true).drop());
        rules.push(dns().reverse_path_missing().drop());
    }
    rules
}

/// Masquerade of pod traffic that leaves the cluster's pod ranges: its own table, one concern.
pub fn masquerade_table(node: &NodeFacts) -> TableSpec {
    let mut table = TableSpec {
        name: keelson_base::consts::nft::MASQUERADE_TABLE.into(),
        userdata: LAYOUT.to_vec(),
        ..TableSpec::default()
    };
    let mut rules = Vec::new();
    for ip in FAMILIES {
        let cidrs = node.pod_cidrs.iter().filter(|c| Ip::of(c.network()) == ip);
        let elements = cidrs.map(|c| Element::prefix(c.network(), c.prefix())).collect();
        let name = sets(ip).pods;
        table.set(SetSpec::new(name, &[ip.field()], SetData::None).intervals(), elements);
        let (multicast, prefix): (IpAddr, u8) = match ip {
            Ip::V4 => (Ipv4Addr::new(224, 0, 0, 0).into(), 4),
            Ip::V6 => (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(), 8),
        };
        rules.push(
            Rule::new()
                .saddr_in(ip, name, false)
                .daddr_not_in(ip, name)
                .daddr_net(multicast, prefix, true)
                .masquerade(),
        );
    }
    let base = Base { kind: ChainKind::Nat, hook: Hook::Postrouting, priority: 100 };
    table.chain("postrouting", Some(base), rules);
    table
}

impl Fragment {
    /// Whether the service has no part in the table.
    pub fn is_empty(&self) -> bool {
        *self == Fragment::default()
    }
}
