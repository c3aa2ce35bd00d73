//! Which endpoints a service's port uses on this node: readiness, terminating ones as a fallback, topology hints,
//! traffic policies. Upstream: `pkg/proxy/topology.go`.
use crate::views::Endpoint;

/// Endpoints by traffic policy.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Categories<'a> {
    /// For policy Cluster.
    pub cluster: Vec<&'a Endpoint>,
    /// For policy Local.
    pub local: Vec<&'a Endpoint>,
    /// Some endpoint exists somewhere in the cluster.
    pub any: bool,
}

enum Topology {
    Anywhere,
    SameNode,
    SameZone,
}

/// Sorts a port's endpoints. `uses_cluster` and `uses_local` say which policies the service has at all.
pub fn categorize<'a>(
    endpoints: &[&'a Endpoint],
    uses_cluster: bool,
    uses_local: bool,
    node: &str,
    zone: Option<&str>,
) -> Categories<'a> {
    let mut found = Categories::default();
    let fallback = |e: &Endpoint| e.serving && e.terminating;
    let here = |e: &Endpoint| e.node.as_deref() == Some(node);
    if uses_cluster {
        let topology = topology(endpoints, node, zone);
        found.cluster = pick(endpoints, |e| e.ready && available(e, &topology, node, zone));
        if found.cluster.is_empty() {
            found.cluster = pick(endpoints, fallback);
        }
        found.any = !found.cluster.is_empty();
    }
    if uses_local {
        found.any |= endpoints.iter().any(|e| e.ready || fallback(e));
        found.local = pick(endpoints, |e| here(e) && e.ready);
        if found.local.is_empty() {
            found.local = pick(endpoints, |e| here(e) && fallback(e));
        }
    }
    found
}

fn pick<'a>(endpoints: &[&'a Endpoint], keep: impl Fn(&Endpoint) -> bool) -> Vec<&'a Endpoint> {
    endpoints.iter().copied().filter(|e| keep(e)).collect()
}

/// Hints count only when every ready endpoint has them and one of them names this node or zone.
fn topology(endpoints: &[&Endpoint], node: &str, zone: Option<&str>) -> Topology {
    let ready: Vec<&&Endpoint> = endpoints.iter().filter(|e| e.ready).collect();
    if ready.is_empty() {
        return Topology::Anywhere;
    }
    let has = |list: &[String], name: &str| list.iter().any(|n| n == name);
    if ready.iter().all(|e| !e.nodes.is_empty()) && ready.iter().any(|e| has(&e.nodes, node)) {
        return Topology::SameNode;
    }
    match zone {
        Some(zone)
            if ready.iter().all(|e| !e.zones.is_empty()) && ready.iter().any(|e| has(&e.zones, zone)) =>
        {
            Topology::SameZone
        }
        _ => Topology::Anywhere,
    }
}

fn available(e: &Endpoint, topology: &Topology, node: &str, zone: Option<&str>) -> bool {
    match topology {
        Topology::Anywhere => true,
        Topology::SameNode => e.nodes.iter().any(|n| n == node),
        Topology::SameZone => zone.is_some_and(|zone| e.zones.iter().any(|z| z == zone)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ready,serving,terminating` as letters; `@node`; `~zone`; `>node` hints.
    fn endpoint(n: u8, text: &str) -> Endpoint {
        let mut e = Endpoint {
            ip: [10, 0, 0, n].into(),
            ready: false,
            serving: false,
            terminating: false,
            node: None,
            hostname: None,
            zones: vec![],
            nodes: vec![],
        };
        for word in text.split(' ') {
            match word.split_at(1) {
                ("@", node) => e.node = Some(node.into()),
                ("~", zone) => e.zones.push(zone.into()),
                (">", node) => e.nodes.push(node.into()),
                _ => {
                    e.ready = word.contains('r');
                    e.serving = word.contains('s');
                    e.terminating = word.contains('t');
                }
            }
        }
        e
    }

    fn check(endpoints: &[&str], cluster: &[u8], local: &[u8], any: bool) {
        let all: Vec<Endpoint> = endpoints.iter().zip(1..).map(|(text, n)| endpoint(n, text)).collect();
        let refs: Vec<&Endpoint> = all.iter().collect();
        let found = categorize(&refs, true, true, "here", Some("z1"));
        let numbers = |list: &[&Endpoint]| {
            list.iter()
                .map(|e| if let std::net::IpAddr::V4(ip) = e.ip { ip.octets()[3] } else { 0 })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (numbers(&found.cluster), numbers(&found.local), found.any),
            (cluster.to_vec(), local.to_vec(), any),
            "{endpoints:?}"
        );
    }

    #[test]
    fn by_readiness_and_node() {
        check(&["rs @here", "rs @there"], &[1, 2], &[1], true);
        check(&["rs @there"], &[1], &[], true);
        check(&["x @here", "x @there"], &[], &[], false);
        check(&[], &[], &[], false);
    }

    #[test]
    fn terminating_only_when_nothing_is_ready() {
        check(&["rs @here", "st @here", "rs @there"], &[1, 3], &[1], true);
        check(&["st @here", "rs @there"], &[2], &[1], true);
        check(&["st @here", "t @here", "st @there"], &[1, 3], &[1], true);
    }

    #[test]
    fn hints_need_all_ready_endpoints() {
        check(&["rs @a ~z1", "rs @b ~z2"], &[1], &[], true);
        check(&["rs @a ~z1", "rs @b"], &[1, 2], &[], true);
        check(&["rs @a ~z2", "rs @b ~z2"], &[1, 2], &[], true);
        check(&["rs @a ~z1", "rs @b ~z2", "st @b"], &[1], &[], true);
        check(&["rs @here >here ~z2", "rs @b >b ~z1"], &[1], &[1], true);
        check(&["rs @a >a ~z1", "rs @b >b ~z2"], &[1], &[], true);
    }
}
