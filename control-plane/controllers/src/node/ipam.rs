//! Gives every node its range of pod addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use keelson_base::cidr::Cidr;
use keelson_client::projections::{NodeView, SharedInformers};
use keelson_client::{EventType, ObjectKey};
use keelson_daemon::Context;
use kube::Api;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;

use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{ReconcileError, gone_is_fine, reference};

/// The cluster's range of one family, and where free shares of it are to be looked for.
struct Family {
    cluster: Cidr,
    /// The prefix length of a node's share.
    prefix: u8,
    /// All shares before this one are in use, but for those that were given back.
    from: u128,
    given_back: BTreeSet<u128>,
}

/// The ranges that nodes have. What a node costs does not grow with the others.
#[derive(Default)]
struct Ranges {
    families: Vec<Family>,
    /// By how many nodes each is used: objects may say more than was given out.
    used: BTreeMap<Cidr, usize>,
    /// How many shares were looked at so far.
    looked: u64,
}

impl Ranges {
    fn new(clusters: Vec<(Cidr, u8)>) -> Ranges {
        let family = |(cluster, prefix)| Family { cluster, prefix, from: 0, given_back: BTreeSet::new() };
        Ranges { families: clusters.into_iter().map(family).collect(), ..Ranges::default() }
    }

    fn take(&mut self, range: Cidr) {
        *self.used.entry(range).or_default() += 1;
    }

    fn give_back(&mut self, range: Cidr) {
        let Some(count) = self.used.get_mut(&range) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.used.remove(&range);
        for family in self.families.iter_mut().filter(|family| family.cluster.overlaps(&range)) {
            let first = family.cluster.subnet_of(family.prefix, range.network()).unwrap_or(0);
            if first >= family.from {
                continue;
            }
            if range.prefix() >= family.prefix {
                family.given_back.insert(first);
            } else {
                // Nobody gives out what holds several shares: all from there on are looked at again.
                family.from = first;
            }
        }
    }

    fn is_used(&self, share: Cidr) -> bool {
        let holds_it = |prefix| {
            let wider = Cidr::new(share.network(), prefix);
            wider.is_ok_and(|wider| self.used.contains_key(&wider))
        };
        let last = Cidr::new(share.last(), if share.network().is_ipv4() { 32 } else { 128 });
        let within = last.is_ok_and(|last| self.used.range(share..=last).next().is_some());
        within || (0..=share.prefix()).any(holds_it)
    }

    /// The first free share of a family.
    fn find(&mut self, index: usize) -> Option<Cidr> {
        loop {
            let Family { cluster, prefix, from, given_back } = &self.families[index];
            let at = given_back.first().copied().unwrap_or(*from);
            let share = cluster.subnet(*prefix, at)?;
            self.looked += 1;
            if !self.is_used(share) {
                return Some(share);
            }
            // It is told of when whoever has it gives it back.
            let family = &mut self.families[index];
            if !family.given_back.remove(&at) {
                family.from += 1;
            }
        }
    }

    /// The first free share of each family; they are used then.
    fn allocate(&mut self) -> Option<Vec<Cidr>> {
        let found: Option<Vec<Cidr>> = (0..self.families.len()).map(|index| self.find(index)).collect();
        found.iter().flatten().for_each(|range| self.take(*range));
        found
    }
}

fn ranges_of(node: &NodeView) -> impl Iterator<Item = Cidr> {
    node.pod_cidrs.iter().filter_map(|text| text.parse::<Cidr>().ok())
}

struct Controller {
    base: Base,
    ranges: Arc<Mutex<Ranges>>,
    /// What was given out; the cache may not show it yet.
    given: Mutex<BTreeMap<Box<str>, Vec<Cidr>>>,
}

/// The node range allocator; `clusters` are the pod ranges (one per family) with the prefix length of a node's share.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
    clusters: Vec<(Cidr, u8)>,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "cidrAllocator", shared, ctx);
    let queue = base.queue.clone();
    let ranges = Arc::new(Mutex::new(Ranges::new(clusters)));
    let seen = ranges.clone();
    shared.nodes.on_change(move |change| {
        let cidrs = |node: &Option<Arc<NodeView>>| node.as_ref().map(|node| node.pod_cidrs.clone());
        if cidrs(&change.old) != cidrs(&change.new) {
            let mut ranges = seen.lock();
            change.new.iter().flat_map(|node| ranges_of(node)).for_each(|range| ranges.take(range));
            change.old.iter().flat_map(|node| ranges_of(node)).for_each(|range| ranges.give_back(range));
        }
        if change.new.as_ref().is_none_or(|n| n.pod_cidrs.is_empty()) {
            queue.add(change.key.clone());
        }
    });
    let controller = Arc::new(Controller { base: base.clone(), ranges, given: Mutex::default() });
    async move {
        let nodes = base.shared.nodes.clone();
        // One worker: two nodes must not be given the same range.
        base.run(controller, 1, async move { nodes.synced().await }).await;
    }
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        "node-ipam-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let nodes = &self.base.shared.nodes;
        let Some(node) = nodes.get(key) else {
            if let Some(given) = self.given.lock().remove(&key.name) {
                let mut ranges = self.ranges.lock();
                given.into_iter().for_each(|range| ranges.give_back(range));
            }
            return Ok(None);
        };
        if !node.pod_cidrs.is_empty() || node.meta.deleted.is_some() {
            return Ok(None);
        }
        let given = self.given.lock().get(&key.name).cloned();
        let ranges = given.or_else(|| self.ranges.lock().allocate());
        let Some(ranges) = ranges else {
            self.base.recorder.record(
                reference("v1", "Node", &node.meta),
                EventType::Normal,
                "CIDRNotAvailable",
                format!("Node {} status is now: CIDRNotAvailable", key.name),
            );
            return Err(ReconcileError::Invalid(
                "no pod range is left in the cluster's; enlarge the pod CIDR".to_owned(),
            ));
        };
        self.given.lock().insert(key.name.clone(), ranges.clone());
        let texts: Vec<String> = ranges.iter().map(Cidr::to_string).collect();
        let patch = json!({"metadata": {"uid": node.meta.uid}, "spec": {"podCIDR": texts.first(), "podCIDRs": texts}});
        let api: Api<Node> = Api::all(self.base.client.clone());
        let result = api.patch(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        gone_is_fine(result).map_err(ReconcileError::api("write the node's pod range"))?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_never_overlap_and_run_out() {
        let mut ranges = Ranges::new(vec![(range("10.244.0.0/22"), 24)]);
        ranges.take(range("10.244.1.0/25"));
        let mut given = Vec::new();
        while let Some(found) = ranges.allocate() {
            given.extend(found.iter().map(Cidr::to_string));
        }
        assert_eq!(given, ["10.244.0.0/24", "10.244.2.0/24", "10.244.3.0/24"]);
        // What two say is free when both have let go of it; what holds a share or lies in one is in its way.
        ranges.take(range("10.244.2.0/24"));
        ranges.give_back(range("10.244.2.0/24"));
        assert_eq!(ranges.allocate(), None);
        ranges.give_back(range("10.244.2.0/24"));
        ranges.take(range("10.244.2.128/32"));
        assert_eq!(ranges.allocate(), None);
        ranges.give_back(range("10.244.2.128/32"));
        ranges.take(range("10.244.2.0/23"));
        assert_eq!(ranges.allocate(), None);
        ranges.give_back(range("10.244.2.0/23"));
        assert_eq!(ranges.allocate(), Some(vec![range("10.244.2.0/24")]));
        ranges.give_back(range("10.0.0.0/8"));
        assert_eq!(ranges.allocate(), None, "what nobody had is not given back");
    }

    #[test]
    fn families_are_given_together_or_not_at_all() {
        let clusters = vec![(range("10.244.0.0/23"), 24), (range("fd00::/63"), 64)];
        let mut ranges = Ranges::new(clusters);
        ranges.take(range("fd00::/64"));
        assert_eq!(ranges.allocate(), Some(vec![range("10.244.0.0/24"), range("fd00:0:0:1::/64")]));
        assert_eq!(ranges.allocate(), None);
        ranges.give_back(range("fd00::/64"));
        assert_eq!(ranges.allocate(), Some(vec![range("10.244.1.0/24"), range("fd00::/64")]));
    }

    #[test]
    fn a_node_costs_the_same_however_many_there_are() {
        const NODES: u64 = 8192;
        let mut ranges = Ranges::new(vec![(range("10.0.0.0/11"), 24)]);
        let mut given: Vec<Cidr> =
            (0..NODES).flat_map(|_| ranges.allocate().expect("a free range")).collect();
        assert!(ranges.looked <= 2 * NODES, "{} candidates for {NODES} nodes", ranges.looked);
        // Nodes that come and go, and those that wait for a range.
        let before = ranges.looked;
        for _ in 0..NODES {
            assert_eq!(ranges.allocate(), None);
            let last = given.pop().expect("a range");
            ranges.give_back(last);
            assert_eq!(ranges.allocate(), Some(vec![last]));
        }
        assert!(ranges.looked - before <= 2 * NODES, "{} candidates", ranges.looked - before);
    }
}
