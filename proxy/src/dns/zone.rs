//! The cluster's names. Pure: a question and a view of services in, an answer out.
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use keelson_base::cidr::Cidr;

use crate::index::Index;
use crate::plan::ServiceName;
use crate::views::{Endpoint, Protocol, ServiceView, SliceView};

/// Seconds that clients may keep an answer.
pub const TTL: u32 = 5;
/// The version of the specification, as `dns-version.<zone>` tells it.
const VERSION: &str = "1.1.0";

/// The zone's fixed part.
#[derive(Debug, Clone)]
pub struct Zone {
    pub domain: Name,
    /// The server's own addresses.
    pub dns_ips: Vec<IpAddr>,
    pub pod_cidrs: Vec<Cidr>,
    pub service_cidrs: Vec<Cidr>,
}

/// What the zone says to a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Found(Vec<Record>),
    /// The name exists, but not with this type.
    NoData,
    /// The name does not exist.
    NoName,
    /// Another name stands for it, outside the zone or in it.
    Alias(Name),
    /// Not ours: ask the node's resolvers.
    Elsewhere,
}

impl Zone {
    /// Answers a question. Labels are compared without regard to case; answers carry the name as it was asked.
    pub fn answer(&self, index: &Index, name: &Name, kind: RecordType) -> Answer {
        if self.domain.zone_of(name) {
            let depth = usize::from(self.domain.num_labels());
            let labels: Vec<String> =
                name.to_lowercase().iter().map(|l| String::from_utf8_lossy(l).into_owned()).collect();
            let inner: Vec<&str> = labels[..labels.len() - depth].iter().map(String::as_str).collect();
            return self.inside(index, name, &inner, kind);
        }
        match name.parse_arpa_name() {
            Ok(net) if net.prefix_len() == net.max_prefix_len() => {
                self.reverse(index, name, net.addr(), kind)
            }
            _ => Answer::Elsewhere,
        }
    }

    fn inside(&self, index: &Index, name: &Name, labels: &[&str], kind: RecordType) -> Answer {
        match labels {
            [] => self.apex(name, kind),
            ["dns-version"] => {
                only(kind, RecordType::TXT, || vec![record(name, RData::TXT(TXT::new(vec![VERSION.into()])))])
            }
            ["dns"] => Answer::NoData,
            ["ns", "dns"] => addresses(name, kind, self.dns_ips.iter().copied()),
            ["svc" | "pod"] => Answer::NoData,
            [ns, "svc"] => exists(index.has_namespace(ns)),
            [_ns, "pod"] => Answer::NoData,
            [ip, _ns, "pod"] => self.pod(name, ip, kind),
            [rest @ .., service, ns, "svc"] => {
                let key = ServiceName::new(*ns, *service);
                match index.get(&key) {
                    Some(view) => self.service(index, name, &key, &view, rest, kind),
                    None => Answer::NoName,
                }
            }
            _ => Answer::NoName,
        }
    }

    fn apex(&self, name: &Name, kind: RecordType) -> Answer {
        match kind {
            RecordType::SOA => Answer::Found(vec![self.soa()]),
            RecordType::NS => match self.server_name() {
                Some(server) => Answer::Found(vec![record(name, RData::NS(NS(server)))]),
                None => Answer::NoData,
            },
            _ => Answer::NoData,
        }
    }

    fn server_name(&self) -> Option<Name> {
        child(&["ns", "dns"], &self.domain)
    }

    /// For negative answers.
    pub fn soa(&self) -> Record {
        let server = self.server_name().unwrap_or_else(|| self.domain.clone());
        let master = child(&["hostmaster"], &self.domain).unwrap_or_else(|| self.domain.clone());
        // Nobody transfers the zone, so the serial number says nothing.
        let soa = SOA::new(server, master, 1, 7200, 1800, 86_400, TTL);
        Record::from_rdata(self.domain.clone(), TTL, RData::SOA(soa))
    }

    /// `10-244-0-7.<namespace>.pod`: the address in the name, where it is one of the cluster's.
    fn pod(&self, name: &Name, label: &str, kind: RecordType) -> Answer {
        match undash(label).filter(|ip| self.pod_cidrs.iter().any(|c| c.contains(*ip))) {
            Some(ip) => addresses(name, kind, [ip]),
            None => Answer::NoName,
        }
    }

    fn service(
        &self,
        index: &Index,
        name: &Name,
        key: &ServiceName,
        view: &ServiceView,
        rest: &[&str],
        kind: RecordType,
    ) -> Answer {
        if let Some(external) = &view.external_name {
            let target = Name::from_utf8(format!("{}.", external.trim_end_matches('.')));
            return match (rest, target) {
                ([], Ok(target)) if kind == RecordType::CNAME => {
                    Answer::Found(vec![record(name, RData::CNAME(CNAME(target)))])
                }
                ([], Ok(target)) => Answer::Alias(target),
                _ => Answer::NoName,
            };
        }
        match rest {
            [] if view.headless => {
                let slices = index.slices_of(key);
                let ips: BTreeSet<IpAddr> = ready(view, &slices).map(|(e, _)| e.ip).collect();
                // A headless service without endpoints exists no more than its endpoints do, upstream's DNS says;
                // "no data" lets a client try again without a negative name in its cache.
                addresses(name, kind, ips)
            }
            [] => addresses(name, kind, view.cluster_ips.iter().copied()),
            [port, protocol] if port.starts_with('_') && protocol.starts_with('_') => {
                self.srv(index, name, key, view, (&port[1..], &protocol[1..]), kind)
            }
            [protocol @ ("_tcp" | "_udp" | "_sctp")] => {
                exists(view.ports.iter().any(|p| p.protocol.name() == &protocol[1..]))
            }
            [host] => {
                let slices = index.slices_of(key);
                let ips: BTreeSet<IpAddr> =
                    ready(view, &slices).filter(|(e, _)| host_label(e) == *host).map(|(e, _)| e.ip).collect();
                if ips.is_empty() { Answer::NoName } else { addresses(name, kind, ips) }
            }
            _ => Answer::NoName,
        }
    }

    fn srv(
        &self,
        index: &Index,
        name: &Name,
        key: &ServiceName,
        view: &ServiceView,
        (port, protocol): (&str, &str),
        kind: RecordType,
    ) -> Answer {
        let Some(service) = child(&[&key.name, &key.namespace, "svc"], &self.domain) else {
            return Answer::NoName;
        };
        let mut targets: BTreeSet<(Name, u16)> = BTreeSet::new();
        let same = |p: Protocol, n: &str| p.name() == protocol && n == port;
        if view.headless {
            let slices = index.slices_of(key);
            for (endpoint, slice) in ready(view, &slices) {
                let Some(host) = child(&[&host_label(endpoint)], &service) else { continue };
                let ports = slice.ports.iter().filter(|(n, p, _)| same(*p, n));
                targets.extend(ports.map(|(_, _, number)| (host.clone(), *number)));
            }
        } else {
            let ports = view.ports.iter().filter(|p| same(p.protocol, &p.name));
            targets.extend(ports.map(|p| (service.clone(), p.port)));
        }
        if targets.is_empty() {
            return Answer::NoName;
        }
        let weight = (100 / targets.len().min(100)) as u16;
        only(kind, RecordType::SRV, || {
            targets
                .into_iter()
                .map(|(target, port)| record(name, RData::SRV(SRV::new(0, weight, port, target))))
                .collect()
        })
    }

    fn reverse(&self, index: &Index, name: &Name, ip: IpAddr, kind: RecordType) -> Answer {
        let mut targets: BTreeSet<Name> = BTreeSet::new();
        for key in index.by_cluster_ip(ip) {
            targets.extend(child(&[&key.name, &key.namespace, "svc"], &self.domain));
        }
        for key in index.by_endpoint(ip) {
            let Some(view) = index.get(&key).filter(|v| v.headless) else { continue };
            let slices = index.slices_of(&key);
            for (endpoint, _) in ready(&view, &slices).filter(|(e, _)| e.ip == ip) {
                targets
                    .extend(child(&[&host_label(endpoint), &key.name, &key.namespace, "svc"], &self.domain));
            }
        }
        if !targets.is_empty() {
            return only(kind, RecordType::PTR, || {
                targets.into_iter().map(|t| record(name, RData::PTR(PTR(t)))).collect()
            });
        }
        let ours = self.pod_cidrs.iter().chain(&self.service_cidrs).any(|c| c.contains(ip));
        if ours { Answer::NoName } else { Answer::Elsewhere }
    }
}

/// Endpoints that answer: ready ones, or all where the service says so.
fn ready<'a>(
    view: &'a ServiceView,
    slices: &'a [Arc<SliceView>],
) -> impl Iterator<Item = (&'a Endpoint, &'a SliceView)> {
    slices
        .iter()
        .flat_map(|s| s.endpoints.iter().map(move |e| (e, &**s)))
        .filter(|(e, _)| e.ready || view.publish_not_ready)
}

/// The endpoint's host name, else its address with dashes.
fn host_label(endpoint: &Endpoint) -> String {
    match &endpoint.hostname {
        Some(name) => name.to_ascii_lowercase(),
        None => endpoint.ip.to_string().replace(['.', ':'], "-"),
    }
}

fn undash(label: &str) -> Option<IpAddr> {
    let v4: Option<Ipv4Addr> = label.replace('-', ".").parse().ok();
    v4.map(IpAddr::V4).or_else(|| label.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6))
}

fn child(labels: &[&str], parent: &Name) -> Option<Name> {
    Name::from_labels(labels.iter().map(|l| l.as_bytes())).ok()?.append_domain(parent).ok()
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

fn exists(it: bool) -> Answer {
    if it { Answer::NoData } else { Answer::NoName }
}

fn only(asked: RecordType, has: RecordType, records: impl FnOnce() -> Vec<Record>) -> Answer {
    if asked == has || asked == RecordType::ANY { Answer::Found(records()) } else { Answer::NoData }
}

fn addresses(name: &Name, kind: RecordType, ips: impl IntoIterator<Item = IpAddr>) -> Answer {
    let records: Vec<Record> = ips
        .into_iter()
        .filter_map(|ip| match (ip, kind) {
            (IpAddr::V4(ip), RecordType::A | RecordType::ANY) => Some(record(name, RData::A(A(ip)))),
            (IpAddr::V6(ip), RecordType::AAAA | RecordType::ANY) => Some(record(name, RData::AAAA(AAAA(ip)))),
            _ => None,
        })
        .collect();
    if records.is_empty() { Answer::NoData } else { Answer::Found(records) }
}

#[cfg(test)]
#[path = "zone_tests.rs"]
mod tests;
