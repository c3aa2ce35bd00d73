//! Watches leases and conditions; marks silent nodes, taints unhealthy ones, marks their pods not ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ahash::AHashMap;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_client::projections::{NodeView, SharedInformers, Taint};
use keelson_client::{EventType, ObjectKey};
use keelson_daemon::Context;
use kube::Api;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::health::{Readiness, grace as grace_of, readiness, taints, unknown_conditions};
use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{ReconcileError, gone_is_fine, reference};

/// The last sign of life of a node: what it said, and when that was seen (monotonic, so that no clock can be wrong).
struct Sign {
    renewed: Option<Timestamp>,
    heartbeat: Option<Timestamp>,
    seen: Instant,
}

/// How many nodes are healthy: counted as they change, for every node's turn asks whether one is.
#[derive(Default)]
struct Healthy(AtomicUsize);

impl Healthy {
    /// Whether the change makes the first one healthy, or leaves none.
    fn change(&self, old: Option<&NodeView>, new: Option<&NodeView>) -> bool {
        let ready = |node: Option<&NodeView>| node.is_some_and(|node| readiness(node) == Readiness::Ready);
        match (ready(old), ready(new)) {
            (false, true) => self.0.fetch_add(1, Ordering::Relaxed) == 0,
            (true, false) => self.0.fetch_sub(1, Ordering::Relaxed) == 1,
            _ => false,
        }
    }

    fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

struct Controller {
    base: Base,
    grace: Duration,
    healthy: Arc<Healthy>,
    signs: Mutex<AHashMap<Box<str>, Sign>>,
    /// Nodes whose pods were marked not ready since they were last ready.
    marked: Mutex<AHashMap<Box<str>, bool>>,
}

/// The node lifecycle controller; a node may be silent for `grace`. The future ends with the drain.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
    grace: Duration,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "node-controller", shared, ctx);
    let (queue, nodes) = (base.queue.clone(), shared.nodes.clone());
    let healthy = Arc::new(Healthy::default());
    let counted = healthy.clone();
    shared.nodes.on_change(move |change| {
        queue.add(change.key.clone());
        // Whether any node is healthy decides about all.
        if counted.change(change.old.as_deref(), change.new.as_deref()) {
            nodes.for_each(|key, _| queue.add(key.clone()));
        }
    });
    // A renewed lease only matters now to a node that was given up; the others are looked at when their grace ends.
    let (queue, nodes) = (base.queue.clone(), shared.nodes.clone());
    shared.node_leases.on_change(move |change| {
        let key = ObjectKey::cluster(change.key.name.clone());
        if nodes.get(&key).is_some_and(|n| readiness(&n) == Readiness::Unknown) {
            queue.add(key);
        }
    });
    let (signs, marked) = (Mutex::default(), Mutex::default());
    let controller = Arc::new(Controller { base: base.clone(), grace, healthy, signs, marked });
    async move {
        let shared = base.shared.clone();
        let synced = async move {
            shared.nodes.synced().await;
            shared.node_leases.synced().await;
            shared.pods.synced().await;
        };
        base.run(controller, 4, synced).await;
    }
}

fn taint_json(taint: &Taint, now: Timestamp) -> Value {
    use keelson_client::projections::TaintEffect;
    let effect = match taint.effect {
        TaintEffect::NoSchedule => "NoSchedule",
        TaintEffect::PreferNoSchedule => "PreferNoSchedule",
        TaintEffect::NoExecute | TaintEffect::Unknown => "NoExecute",
    };
    let mut json = json!({"key": taint.key, "effect": effect});
    if !taint.value.is_empty() {
        json["value"] = json!(taint.value);
    }
    if let Some(added) = taint.added {
        json["timeAdded"] = json!(Time(added));
    } else if taint.effect == TaintEffect::NoExecute {
        json["timeAdded"] = json!(Time(now));
    }
    json
}

impl Controller {
    /// How long ago the node last gave a sign.
    fn silence(&self, node: &NodeView) -> Duration {
        let key = ObjectKey::new("kube-node-lease", node.meta.name.clone());
        let renewed = self.base.shared.node_leases.get(&key).and_then(|lease| lease.renewed);
        let heartbeat = node.condition("Ready").and_then(|c| c.heartbeat);
        let now = Instant::now();
        let mut signs = self.signs.lock();
        let sign = signs.entry(node.meta.name.clone()).or_insert(Sign { renewed, heartbeat, seen: now });
        // Our own Unknown is not a sign of life: it leaves the heartbeat as it is.
        if sign.renewed != renewed || sign.heartbeat != heartbeat {
            *sign = Sign { renewed, heartbeat, seen: now };
        }
        now.duration_since(sign.seen)
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(node) = self.base.shared.nodes.get(key) else {
            self.signs.lock().remove(&key.name);
            self.marked.lock().remove(&key.name);
            return Ok(None);
        };
        if node.meta.deleted.is_some() {
            return Ok(None);
        }
        let api: Api<Node> = Api::all(self.base.client.clone());
        let (silence, grace) = (self.silence(&node), grace_of(&node, self.grace));
        if silence >= grace {
            self.give_up(&api, &node).await?;
        }
        let may_evict = self.healthy.any();
        if let Some(wanted) = taints(&node, may_evict) {
            let now = self.base.ctx.clock.now();
            let list: Vec<Value> = wanted.iter().map(|t| taint_json(t, now)).collect();
            let patch = json!({
                "metadata": {"uid": node.meta.uid, "resourceVersion": node.meta.resource_version.to_string()},
                "spec": {"taints": if list.is_empty() { Value::Null } else { json!(list) }},
            });
            gone_is_fine(api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)
                .map_err(ReconcileError::api("taint the node"))?;
        }
        self.mark_pods(&node).await?;
        Ok((silence < grace).then(|| grace - silence + Duration::from_secs(1)))
    }

    async fn give_up(&self, api: &Api<Node>, node: &NodeView) -> Result<(), ReconcileError> {
        let conditions = unknown_conditions(node);
        if conditions.is_empty() {
            return Ok(());
        }
        let now = Time(self.base.ctx.clock.now());
        let list: Vec<Value> = conditions
            .iter()
            .map(|(kind, reason, message)| {
                json!({"type": kind, "status": "Unknown", "reason": reason, "message": message, "lastTransitionTime": now})
            })
            .collect();
        let patch = json!({"metadata": {"uid": node.meta.uid}, "status": {"conditions": list}});
        gone_is_fine(
            api.patch_status(&node.meta.name, &PatchParams::default(), &Patch::Strategic(patch)).await,
        )
        .map_err(ReconcileError::api("mark the silent node"))?;
        if readiness(node) == Readiness::Ready {
            self.base.recorder.record(
                reference("v1", "Node", &node.meta),
                EventType::Normal,
                "NodeNotReady",
                format!("Node {} status is now: NodeNotReady", node.meta.name),
            );
        }
        Ok(())
    }

    /// Endpoints leave out pods of unhealthy nodes by their Ready condition, which the kubelet can no longer write.
    async fn mark_pods(&self, node: &NodeView) -> Result<(), ReconcileError> {
        if readiness(node) == Readiness::Ready {
            self.marked.lock().insert(node.meta.name.clone(), false);
            return Ok(());
        }
        // Only nodes that were seen ready: a new node's pods never were.
        if self.marked.lock().get(&node.meta.name) != Some(&false) {
            return Ok(());
        }
        for pod in self.base.shared.pod_index.on_node(&node.meta.name) {
            if !pod.ready {
                continue;
            }
            let api: Api<Pod> = Api::namespaced(self.base.client.clone(), &pod.meta.namespace);
            let patch = json!({"metadata": {"uid": pod.meta.uid}, "status": {"conditions": [{
                "type": "Ready", "status": "False", "lastTransitionTime": Time(self.base.ctx.clock.now()),
            }]}});
            gone_is_fine(
                api.patch_status(&pod.meta.name, &PatchParams::default(), &Patch::Strategic(patch)).await,
            )
            .map_err(ReconcileError::api("mark a pod of the unhealthy node"))?;
            let about = reference("v1", "Pod", &pod.meta);
            self.base.recorder.record(about, EventType::Warning, "NodeNotReady", "Node is not ready");
        }
        self.marked.lock().insert(node.meta.name.clone(), true);
        Ok(())
    }
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        "node-lifecycle-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        self.sync(key).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_and_the_last_healthy_node_decide_about_all() {
        let node = |status: &str| {
            let conditions = json!([{ "type": "Ready", "status": status }]);
            let node = json!({ "metadata": { "name": "n" }, "status": { "conditions": conditions } });
            NodeView::new(&serde_json::from_value(node).expect("a node"))
        };
        let (ready, silent) = (node("True"), node("Unknown"));
        let healthy = Healthy::default();
        for (old, new, decides, any) in [
            (None, Some(&silent), false, false),
            (None, Some(&ready), true, true),
            (None, Some(&ready), false, true),
            (Some(&ready), Some(&ready), false, true),
            (Some(&silent), Some(&ready), false, true),
            (Some(&ready), Some(&silent), false, true),
            (Some(&ready), None, false, true),
            (Some(&ready), None, true, false),
            (Some(&silent), None, false, false),
        ] {
            assert_eq!((healthy.change(old, new), healthy.any()), (decides, any));
        }
    }
}
