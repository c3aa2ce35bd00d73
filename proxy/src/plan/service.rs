//! One service's part of the table.
//!
//! Chains of a port, by address family (the names end in `<digit>-<namespace>/<service>/<protocol>/<port name>`):
//! `cluster` and `local` translate to the endpoints of that traffic policy, `external` decides between them for
//! traffic from outside, `firewall` holds the load balancer's source ranges; with client affinity an `endpoint` chain
//! and an `affinity` set for each endpoint.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use keelson_sys::nft::{Element, Ip, Key, Rule, SetData, SetSpec, Verdict};

use super::base::{self, MASQUERADE_MARK, REJECT};
use super::endpoints::{Categories, categorize};
use super::{Fragment, NodeFacts};
use crate::views::{Endpoint, Protocol, ServicePort, ServiceView, SliceView};

/// Clients remembered per endpoint at most.
const AFFINITY_LIMIT: u32 = 65_536;
/// Port of cluster DNS, which the node's own server answers.
const DNS_PORT: u16 = keelson_base::consts::DNS_PORT;

/// A health check port that the node answers for a load balancer (externalTrafficPolicy Local).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    pub port: u16,
    /// Ready endpoints on this node.
    pub local_endpoints: usize,
}

/// Plans a service from its slices. An ignored or headless one has no part.
pub fn plan_service(service: &ServiceView, slices: &[&SliceView], node: &NodeFacts) -> Fragment {
    let mut fragment = Fragment::default();
    if service.ignored || service.headless || service.cluster_ips.is_empty() {
        return fragment;
    }
    for ip in [Ip::V4, Ip::V6] {
        let Some(cluster_ip) = service.cluster_ips.iter().find(|a| Ip::of(**a) == ip) else { continue };
        let is_dns = node.dns_ips.contains(cluster_ip);
        if !is_dns {
            let key = Key::new().ip(*cluster_ip).bytes();
            fragment.elements.push((base::sets(ip).cluster_ips, Element::key(key)));
        }
        for port in &service.ports {
            // The node answers cluster DNS itself.
            if is_dns && port.port == DNS_PORT {
                continue;
            }
            PortPlan::new(service, port, slices, node, ip, *cluster_ip).write(&mut fragment);
        }
    }
    // Several endpoints of one pod claim the same hairpin pair.
    let mut seen = BTreeSet::new();
    fragment.elements.retain(|(set, e)| seen.insert((*set, e.key.clone())));
    fragment.health = service.health_check_port.map(|port| HealthCheck {
        port,
        local_endpoints: slices
            .iter()
            .flat_map(|s| &s.endpoints)
            .filter(|e| e.ready && e.node.as_deref() == Some(node.name.as_str()))
            .map(|e| e.ip)
            .collect::<BTreeSet<_>>()
            .len(),
    });
    fragment
}

/// An endpoint's address and port.
pub type Target = (IpAddr, u16);

/// A UDP address of a service (a node port has no address) and where its flows may be translated to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpFront {
    pub ip: Option<IpAddr>,
    pub port: u16,
    pub targets: BTreeSet<Target>,
}

struct PortPlan<'a> {
    service: &'a ServiceView,
    port: &'a ServicePort,
    node: &'a NodeFacts,
    ip: Ip,
    cluster_ip: IpAddr,
    /// End of every chain name of this port.
    suffix: String,
    cluster: Vec<Target>,
    local: Vec<Target>,
    any: bool,
    /// Endpoints on this node that are reachable.
    here: BTreeSet<IpAddr>,
}

/// Endpoints that offer the port, in address order: an unchanged set gives an unchanged rule.
fn targets<'a>(
    port: &ServicePort,
    slices: &[&'a SliceView],
    ip: Ip,
) -> (Vec<&'a Endpoint>, BTreeMap<IpAddr, BTreeSet<u16>>) {
    let mut endpoints: BTreeMap<IpAddr, &Endpoint> = BTreeMap::new();
    let mut numbers: BTreeMap<IpAddr, BTreeSet<u16>> = BTreeMap::new();
    for slice in slices {
        let offered: Vec<u16> = slice
            .ports
            .iter()
            .filter(|(name, protocol, _)| *name == port.name && *protocol == port.protocol)
            .map(|(_, _, number)| *number)
            .collect();
        for endpoint in slice.endpoints.iter().filter(|e| Ip::of(e.ip) == ip && !offered.is_empty()) {
            // The same address may stand in two slices while it moves; the one that is ready counts.
            let old = endpoints.get(&endpoint.ip);
            if old.is_none_or(|old| (endpoint.ready, endpoint.serving) > (old.ready, old.serving)) {
                endpoints.insert(endpoint.ip, endpoint);
            }
            numbers.entry(endpoint.ip).or_default().extend(&offered);
        }
    }
    (endpoints.into_values().collect(), numbers)
}

impl<'a> PortPlan<'a> {
    fn new(
        service: &'a ServiceView,
        port: &'a ServicePort,
        slices: &[&SliceView],
        node: &'a NodeFacts,
        ip: Ip,
        cluster_ip: IpAddr,
    ) -> PortPlan<'a> {
        let (endpoints, numbers) = targets(port, slices, ip);
        let of_family = |a: &&IpAddr| Ip::of(**a) == ip;
        let accessible = port.node_port.is_some()
            || service.external_ips.iter().any(|a| of_family(&a))
            || service.load_balancer_ips.iter().any(|a| of_family(&a));
        // Even with policy Local outside, traffic from inside goes to all endpoints.
        let uses_cluster = !service.internal_local || accessible;
        let uses_local = service.internal_local || (service.external_local && accessible);
        let Categories { cluster, local, any } =
            categorize(&endpoints, uses_cluster, uses_local, &node.name, node.zone.as_deref());
        let here = cluster
            .iter()
            .chain(&local)
            .filter(|e| e.node.as_deref() == Some(node.name.as_str()))
            .map(|e| e.ip)
            .collect();
        let expand = |list: Vec<&Endpoint>| -> Vec<Target> {
            list.iter().flat_map(|e| numbers[&e.ip].iter().map(|n| (e.ip, *n))).collect()
        };
        let suffix = format!(
            "{}-{}/{}/{}/{}",
            ip.digit(),
            service.namespace,
            service.name,
            port.protocol.name(),
            port.name
        );
        PortPlan {
            service,
            port,
            node,
            ip,
            cluster_ip,
            suffix,
            cluster: expand(cluster),
            local: expand(local),
            any,
            here,
        }
    }

    fn chain(&self, kind: &str) -> String {
        format!("{kind}{}", self.suffix)
    }
    fn tuple(&self, ip: IpAddr) -> Vec<u8> {
        Key::new().ip(ip).proto(self.port.protocol.number()).port(self.port.port).bytes()
    }
    fn externals(&self) -> impl Iterator<Item = IpAddr> {
        self.service.external_ips.iter().copied().filter(|a| Ip::of(*a) == self.ip)
    }
    fn balancers(&self) -> impl Iterator<Item = IpAddr> {
        self.service.load_balancer_ips.iter().copied().filter(|a| Ip::of(*a) == self.ip)
    }

    fn write(&self, out: &mut Fragment) {
        let sets = base::sets(self.ip);
        let refuse = |any: bool| if any { Verdict::Drop } else { Verdict::Goto(REJECT.into()) };
        let mut used = BTreeSet::new();

        // Inside: the cluster address.
        let internal = if self.service.internal_local { &self.local } else { &self.cluster };
        if internal.is_empty() {
            // No endpoints at all: refuse. None on this node, but elsewhere: drop, the client may try again.
            out.elements.push((
                sets.no_endpoint_services,
                Element::verdict(self.tuple(self.cluster_ip), refuse(self.any)),
            ));
        } else {
            let kind = if self.service.internal_local { "local" } else { "cluster" };
            used.insert(kind);
            out.elements.push((
                sets.service_ips,
                Element::verdict(self.tuple(self.cluster_ip), Verdict::Goto(self.chain(kind))),
            ));
        }

        self.write_external(out, &mut used);
        self.write_firewall(out);
        for kind in used {
            self.write_endpoints(out, kind, if kind == "local" { &self.local } else { &self.cluster });
        }
        for ip in &self.here {
            out.elements.push((sets.hairpin, Element::key(Key::new().ip(*ip).ip(*ip).bytes())));
        }
        if self.service.affinity_seconds.is_some() {
            self.write_affinity(out);
        }
        if self.port.protocol == Protocol::Udp {
            self.write_udp(out);
        }
    }

    fn write_udp(&self, out: &mut Fragment) {
        let targets: BTreeSet<Target> = self.cluster.iter().chain(&self.local).copied().collect();
        let fronts = [self.cluster_ip].into_iter().chain(self.externals()).chain(self.balancers());
        for ip in fronts {
            out.udp.push(UdpFront { ip: Some(ip), port: self.port.port, targets: targets.clone() });
        }
        if let Some(port) = self.port.node_port {
            out.udp.push(UdpFront { ip: None, port, targets });
        }
    }

    /// External addresses, load balancer addresses, the node port.
    fn write_external(&self, out: &mut Fragment, used: &mut BTreeSet<&'static str>) {
        let sets = base::sets(self.ip);
        let addresses: Vec<IpAddr> = self.externals().chain(self.balancers()).collect();
        if addresses.is_empty() && self.port.node_port.is_none() {
            return;
        }
        let usable = if self.service.external_local { &self.local } else { &self.cluster };
        let refusal = if self.any { Verdict::Drop } else { Verdict::Goto(REJECT.into()) };
        let node_port =
            self.port.node_port.map(|port| Key::new().proto(self.port.protocol.number()).port(port).bytes());
        if self.any {
            let goto = || Verdict::Goto(self.chain("external"));
            for ip in &addresses {
                out.elements.push((sets.service_ips, Element::verdict(self.tuple(*ip), goto())));
            }
            if let Some(key) = &node_port {
                out.elements.push((sets.node_ports, Element::verdict(key.clone(), goto())));
            }
            out.chains.push((self.chain("external"), self.external_rules(used)));
        }
        if usable.is_empty() {
            for ip in &addresses {
                let element = Element::verdict(self.tuple(*ip), refusal.clone());
                out.elements.push((sets.no_endpoint_services, element));
            }
            if let Some(key) = node_port {
                out.elements.push((sets.no_endpoint_node_ports, Element::verdict(key, refusal)));
            }
        }
    }

    fn external_rules(&self, used: &mut BTreeSet<&'static str>) -> Vec<Rule> {
        let mut rules = Vec::new();
        let mut goto = |rule: Rule, kind: &'static str| {
            used.insert(kind);
            rule.goto(&self.chain(kind))
        };
        if !self.service.external_local {
            // The endpoint may be on another node: the way back must come through this one.
            let rule = Rule::new().set_mark(MASQUERADE_MARK);
            return vec![goto(rule, "cluster")];
        }
        if !self.cluster.is_empty() {
            // Pods and the node itself reach all endpoints, as if they had gone out and come back in.
            rules.push(goto(Rule::new().saddr_in(self.ip, base::sets(self.ip).pods, false), "cluster"));
            let local = Rule::new().fib_local(true, false).set_mark(MASQUERADE_MARK);
            rules.push(goto(local, "cluster"));
        }
        if !self.local.is_empty() {
            rules.push(goto(Rule::new(), "local"));
        }
        rules
    }

    fn write_firewall(&self, out: &mut Fragment) {
        let ranges: Vec<_> =
            self.service.source_ranges.iter().filter(|c| Ip::of(c.network()) == self.ip).collect();
        let balancers: Vec<IpAddr> = self.balancers().collect();
        if balancers.is_empty() || ranges.is_empty() || ranges.iter().any(|c| c.prefix() == 0) {
            return;
        }
        let chain = self.chain("firewall");
        let mut rules: Vec<Rule> = ranges
            .iter()
            .map(|c| Rule::new().saddr_net(c.network(), c.prefix(), false).verdict(Verdict::Return))
            .collect();
        let node_allowed = self.node.node_ips.iter().any(|ip| ranges.iter().any(|c| c.contains(*ip)));
        for ip in &balancers {
            if node_allowed {
                // A node that dials an address it holds itself sends from that address.
                let bits = if ip.is_ipv4() { 32 } else { 128 };
                rules.push(Rule::new().saddr_net(*ip, bits, false).verdict(Verdict::Return));
            }
            let element = Element::verdict(self.tuple(*ip), Verdict::Goto(chain.clone()));
            out.elements.push((base::sets(self.ip).firewall_ips, element));
        }
        // Without a family statement a rule would drop the other family too, which never comes here.
        rules.push(Rule::new().drop());
        out.chains.push((chain, rules));
    }

    fn write_endpoints(&self, out: &mut Fragment, kind: &str, targets: &[Target]) {
        let rules = if self.service.affinity_seconds.is_none() {
            vec![Rule::new().l4proto(self.port.protocol.number()).dnat_random(self.ip, targets)]
        } else {
            let mut rules: Vec<Rule> = targets
                .iter()
                .map(|t| {
                    Rule::new()
                        .saddr_in(self.ip, &self.affinity(t), false)
                        .goto(&self.endpoint("endpoint", t))
                })
                .collect();
            let chains: Vec<String> = targets.iter().map(|t| self.endpoint("endpoint", t)).collect();
            rules.push(Rule::new().goto_random(&chains));
            rules
        };
        out.chains.push((self.chain(kind), rules));
    }

    /// A name for one endpoint; colons are not allowed in nft(8)'s names.
    fn endpoint(&self, kind: &str, (ip, port): &Target) -> String {
        format!("{kind}{}-{}/{port}", self.suffix, ip.to_string().replace(':', "."))
    }

    /// The timeout is part of the name: a set cannot change its own.
    fn affinity(&self, target: &Target) -> String {
        self.endpoint(&format!("affinity-{}s-", self.service.affinity_seconds.unwrap_or(0)), target)
    }

    fn write_affinity(&self, out: &mut Fragment) {
        let seconds = u64::from(self.service.affinity_seconds.unwrap_or(0));
        let targets: BTreeSet<&Target> = self.cluster.iter().chain(&self.local).collect();
        for target in targets {
            let set = self.affinity(target);
            let rules = vec![
                Rule::new().update_saddr(self.ip, &set),
                Rule::new().l4proto(self.port.protocol.number()).dnat_random(self.ip, &[*target]),
            ];
            out.chains.push((self.endpoint("endpoint", target), rules));
            out.sets.push(
                SetSpec::new(set, &[self.ip.field()], SetData::None).dynamic(seconds * 1000, AFFINITY_LIMIT),
            );
        }
    }
}
