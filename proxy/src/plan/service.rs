//! One service's part of the table.
//!
//! A service's address and port are keys of a verdict map whose verdict says how many endpoints there are:
//! `goto pick4-3`. That chain, shared by all services with three endpoints, looks up `address . protocol . port .
//! random number below 3` in the endpoints' map. So services are elements, not chains: a new endpoint is a few map
//! elements, whatever the number of services. (A chain and an anonymous map for each service took the kernel four
//! seconds for 5,000 of them, because it looks for a free name among all sets of the table.)
//!
//! Only client affinity and load balancer source ranges need chains of their own.
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
        // Inside: the cluster address.
        let internal = if self.service.internal_local { &self.local } else { &self.cluster };
        let verdict = if internal.is_empty() {
            // No endpoints at all: refuse. None on this node, but elsewhere: drop, the client may try again.
            out.elements.push((
                sets.no_endpoint_services,
                Element::verdict(self.tuple(self.cluster_ip), self.refusal()),
            ));
            None
        } else if self.sticky() {
            Some(self.sticky_chain(out, if self.service.internal_local { "local" } else { "cluster" }))
        } else {
            let front = [Some(self.cluster_ip)];
            Some(self.pick(out, self.service.internal_local, &front))
        };
        if let Some(chain) = verdict {
            out.elements.push((
                sets.service_ips,
                Element::verdict(self.tuple(self.cluster_ip), Verdict::Goto(chain)),
            ));
        }
        self.write_external(out);
        self.write_firewall(out);
        for ip in &self.here {
            out.elements.push((sets.hairpin, Element::key(Key::new().ip(*ip).ip(*ip).bytes())));
        }
        if self.sticky() {
            self.write_affinity(out);
        }
        if self.port.protocol == Protocol::Udp {
            self.write_udp(out);
        }
    }

    fn sticky(&self) -> bool {
        self.service.affinity_seconds.is_some()
    }
    fn refusal(&self) -> Verdict {
        if self.any { Verdict::Drop } else { Verdict::Goto(REJECT.into()) }
    }

    /// Writes the endpoints of a policy behind each front (None: the node port), and the shared chain that picks one.
    /// All fronts are of one kind: addresses or the node port. Returns the chain's name.
    fn pick(&self, out: &mut Fragment, local: bool, fronts: &[Option<IpAddr>]) -> String {
        let targets = if local { &self.local } else { &self.cluster };
        let by_address = fronts.iter().all(Option::is_some);
        let map = base::endpoint_map(self.ip, by_address, local);
        for front in fronts {
            for (n, (ip, port)) in targets.iter().enumerate() {
                let key = Key(self.front(*front)).number(n as u32).bytes();
                out.elements.push((map, Element::value(key, Key::new().ip(*ip).port(*port).bytes())));
            }
        }
        let name = |n: usize| {
            let kind = if local { "pick-local" } else { "pick" };
            format!("{}{kind}{}-{n}", if by_address { "" } else { "node-" }, self.ip.digit())
        };
        let dnat = |n: usize| Rule::new().dnat_pick(self.ip, map, by_address, n as u32);
        out.shared.insert(name(1), vec![dnat(1)]);
        if targets.len() > 1 {
            // A packet on its way while the number falls looks for an endpoint that is gone: then the first will do.
            out.shared.insert(name(targets.len()), vec![dnat(targets.len()), Rule::new().goto(&name(1))]);
        }
        name(targets.len())
    }

    /// The key of a front: address (None for the node port), protocol, port.
    fn front(&self, front: Option<IpAddr>) -> Vec<u8> {
        let proto = self.port.protocol.number();
        match front {
            Some(ip) => self.tuple(ip),
            None => Key::new().proto(proto).port(self.port.node_port.unwrap_or(0)).bytes(),
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
    fn write_external(&self, out: &mut Fragment) {
        let sets = base::sets(self.ip);
        let addresses: Vec<Option<IpAddr>> = self.externals().chain(self.balancers()).map(Some).collect();
        let node_port: Vec<Option<IpAddr>> = self.port.node_port.iter().map(|_| None).collect();
        let usable = if self.service.external_local { &self.local } else { &self.cluster };
        let kinds = [
            (addresses, sets.service_ips, sets.no_endpoint_services),
            (node_port, sets.node_ports, sets.no_endpoint_node_ports),
        ];
        for (fronts, map, refused) in kinds {
            if fronts.is_empty() {
                continue;
            }
            if self.any {
                let chain = self.external_chain(out, &fronts);
                for front in &fronts {
                    out.elements
                        .push((map, Element::verdict(self.front(*front), Verdict::Goto(chain.clone()))));
                }
            }
            if usable.is_empty() {
                for front in &fronts {
                    out.elements.push((refused, Element::verdict(self.front(*front), self.refusal())));
                }
            }
        }
    }

    fn external_chain(&self, out: &mut Fragment, fronts: &[Option<IpAddr>]) -> String {
        let sticky = self.sticky();
        let cluster = (!self.cluster.is_empty())
            .then(|| if sticky { self.sticky_chain(out, "cluster") } else { self.pick(out, false, fronts) });
        let masquerade = Rule::new().set_mark(MASQUERADE_MARK);
        if !self.service.external_local {
            // The endpoint may be on another node: the way back must come through this one.
            let cluster = cluster.unwrap_or_else(|| REJECT.into());
            let name = format!("masquerade-{cluster}");
            out.shared.insert(name.clone(), vec![masquerade.goto(&cluster)]);
            return name;
        }
        let local = (!self.local.is_empty())
            .then(|| if sticky { self.sticky_chain(out, "local") } else { self.pick(out, true, fronts) });
        let mut rules = Vec::new();
        if let Some(cluster) = &cluster {
            // Pods and the node itself reach all endpoints, as if they had gone out and come back in.
            rules.push(Rule::new().saddr_in(self.ip, base::sets(self.ip).pods, false).goto(cluster));
            rules.push(Rule::new().fib_local(true, false).set_mark(MASQUERADE_MARK).goto(cluster));
        }
        if let Some(local) = &local {
            rules.push(Rule::new().goto(local));
        }
        let name = if sticky {
            self.chain("external")
        } else {
            let kind = if fronts.iter().all(Option::is_some) { "" } else { "node-" };
            format!("{kind}external{}-{}-{}", self.ip.digit(), self.cluster.len(), self.local.len())
        };
        out.shared.insert(name.clone(), rules);
        name
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
        out.shared.insert(chain, rules);
    }

    /// The chain of a service with client affinity: known clients first. Returns its name.
    fn sticky_chain(&self, out: &mut Fragment, kind: &str) -> String {
        let targets = if kind == "local" { &self.local } else { &self.cluster };
        let mut rules: Vec<Rule> = targets
            .iter()
            .map(|t| {
                Rule::new().saddr_in(self.ip, &self.affinity(t), false).goto(&self.endpoint("endpoint", t))
            })
            .collect();
        let chains: Vec<String> = targets.iter().map(|t| self.endpoint("endpoint", t)).collect();
        rules.push(Rule::new().goto_random(&chains));
        let name = self.chain(kind);
        out.shared.insert(name.clone(), rules);
        name
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
            out.shared.insert(self.endpoint("endpoint", target), rules);
            out.sets.push(
                SetSpec::new(set, &[self.ip.field()], SetData::None).dynamic(seconds * 1000, AFFINITY_LIMIT),
            );
        }
    }
}
