//! Clean-up of tracked UDP flows: which ones still go where no endpoint is.
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use keelson_sys::conntrack::{self, Flow};
use keelson_sys::nl::NlError;

use crate::plan::{Fragment, Target, UdpFront};

const UDP: u8 = 17;

/// UDP addresses whose flows must be looked at.
#[derive(Debug, Default)]
pub struct Stale {
    fronts: HashMap<(Option<IpAddr>, u16), BTreeSet<Target>>,
}

impl Stale {
    /// Notes the addresses of a service that lost an endpoint or got its first one. (A flow that began when there was
    /// none is tracked untranslated, and would stay so.)
    pub fn note(&mut self, old: Option<&Fragment>, new: Option<&Fragment>) {
        let fronts = |f: Option<&Fragment>| -> Vec<UdpFront> { f.map(|f| f.udp.clone()).unwrap_or_default() };
        let new = fronts(new);
        for front in &new {
            self.fronts.remove(&(front.ip, front.port));
        }
        for old in fronts(old) {
            let now = new.iter().find(|n| (n.ip, n.port) == (old.ip, old.port));
            let targets = now.map(|n| n.targets.clone()).unwrap_or_default();
            let lost = !old.targets.is_subset(&targets);
            let first = old.targets.is_empty() && !targets.is_empty();
            if lost || first {
                self.fronts.insert((old.ip, old.port), targets);
            }
        }
        // A new address: flows to it may have begun before it was one.
        for front in new.iter().filter(|n| !n.targets.is_empty()) {
            self.fronts.entry((front.ip, front.port)).or_insert_with(|| front.targets.clone());
        }
    }

    pub fn is_empty(&self) -> bool {
        self.fronts.is_empty()
    }

    /// Whether a flow goes to one of the addresses and is not translated to one of its endpoints.
    fn matches(&self, flow: &Flow, local: &[IpAddr]) -> bool {
        let (to, port) = (flow.original.dst, flow.original.dport);
        let targets = self
            .fronts
            .get(&(Some(to), port))
            .or_else(|| self.fronts.get(&(None, port)).filter(|_| local.contains(&to)));
        flow.original.proto == UDP
            && targets.is_some_and(|t| !t.contains(&(flow.reply.src, flow.reply.sport)))
    }

    /// Deletes the stale flows. Returns how many.
    pub fn clean(self, local: &[IpAddr]) -> Result<usize, NlError> {
        let mut socket = conntrack::open()?;
        let mut deleted = 0;
        for ipv6 in [false, true] {
            let concerned = self.fronts.keys().any(|(ip, _)| ip.is_none_or(|ip| ip.is_ipv6() == ipv6));
            if concerned {
                deleted += conntrack::delete(&mut socket, ipv6, |flow| self.matches(flow, local))?;
            }
        }
        Ok(deleted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keelson_sys::conntrack::Tuple;

    fn target(n: u8) -> Target {
        ([10, 244, 0, n].into(), 5353)
    }
    fn fragment(ip: Option<IpAddr>, targets: &[u8]) -> Fragment {
        let targets = targets.iter().map(|n| target(*n)).collect();
        Fragment { udp: vec![UdpFront { ip, port: 53, targets }], ..Fragment::default() }
    }
    fn flow(to: &str, from: Target) -> Flow {
        let (client, dst) = ("10.244.9.9".parse().expect("ip"), to.parse().expect("ip"));
        Flow {
            original: Tuple { src: client, dst, proto: UDP, sport: 999, dport: 53 },
            reply: Tuple { src: from.0, dst: client, proto: UDP, sport: from.1, dport: 999 },
        }
    }

    #[test]
    fn only_flows_to_lost_endpoints() {
        let vip: IpAddr = "10.96.0.53".parse().expect("ip");
        let check = |old: &[u8], new: &[u8], ep: u8, expected: bool| {
            let mut stale = Stale::default();
            stale.note(Some(&fragment(Some(vip), old)), Some(&fragment(Some(vip), new)));
            assert_eq!(stale.matches(&flow("10.96.0.53", target(ep)), &[]), expected, "{old:?} {new:?} {ep}");
        };
        check(&[1, 2], &[2], 1, true);
        check(&[1, 2], &[2], 2, false);
        check(&[1], &[], 1, true);
        let mut stale = Stale::default();
        stale.note(Some(&fragment(Some(vip), &[])), Some(&fragment(Some(vip), &[3])));
        assert!(stale.matches(&flow("10.96.0.53", (vip, 53)), &[]), "tracked before there was an endpoint");
        assert!(!stale.matches(&flow("10.96.0.54", (vip, 53)), &[]));
        let mut stale = Stale::default();
        stale.note(Some(&fragment(None, &[1])), None);
        let node = "192.0.2.1".parse().expect("ip");
        assert!(stale.matches(&flow("192.0.2.1", target(1)), &[node]));
        assert!(!stale.matches(&flow("192.0.2.1", target(1)), &[]), "another machine's port");
    }
}
