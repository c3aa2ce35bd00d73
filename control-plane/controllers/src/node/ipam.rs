//! Gives every node its range of pod addresses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use keelson_base::cidr::Cidr;
use keelson_client::projections::SharedInformers;
use keelson_client::{EventType, ObjectKey};
use keelson_daemon::Context;
use kube::Api;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;

use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{ReconcileError, gone_is_fine, reference};

/// The first free range of `prefix` bits.
fn allocate(cluster: Cidr, prefix: u8, used: &[Cidr]) -> Option<Cidr> {
    let mut n = 0;
    loop {
        let candidate = cluster.subnet(prefix, n)?;
        match used.iter().find(|range| range.overlaps(&candidate)) {
            None => return Some(candidate),
            Some(_) => n += 1,
        }
    }
}

struct Controller {
    base: Base,
    clusters: Vec<(Cidr, u8)>,
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
    shared.nodes.on_change(move |change| {
        if change.new.as_ref().is_none_or(|n| n.pod_cidrs.is_empty()) {
            queue.add(change.key.clone());
        }
    });
    let controller = Arc::new(Controller { base: base.clone(), clusters, given: Mutex::default() });
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
            self.given.lock().remove(&key.name);
            return Ok(None);
        };
        if !node.pod_cidrs.is_empty() || node.meta.deleted.is_some() {
            return Ok(None);
        }
        let ranges = {
            let given = self.given.lock();
            match given.get(&key.name) {
                Some(ranges) => Some(ranges.clone()),
                None => {
                    let mut used: Vec<Cidr> = given.values().flatten().copied().collect();
                    nodes.for_each(|_, n| {
                        used.extend(n.pod_cidrs.iter().filter_map(|c| c.parse::<Cidr>().ok()))
                    });
                    self.clusters.iter().map(|(cluster, prefix)| allocate(*cluster, *prefix, &used)).collect()
                }
            }
        };
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

    #[test]
    fn ranges_never_overlap_and_run_out() {
        let cluster: Cidr = "10.244.0.0/22".parse().unwrap();
        let mut used: Vec<Cidr> = vec!["10.244.1.0/25".parse().unwrap()];
        let mut given = Vec::new();
        while let Some(range) = allocate(cluster, 24, &used) {
            used.push(range);
            given.push(range.to_string());
        }
        assert_eq!(given, ["10.244.0.0/24", "10.244.2.0/24", "10.244.3.0/24"]);
    }
}
