//! Deletes pods that do not tolerate their node's NoExecute taints, when their time has come.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_client::projections::{PodView, SharedInformers, Taint, TaintEffect};
use keelson_client::{EventType, ObjectKey};
use keelson_daemon::Context;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::kit::pods::delete_exactly;
use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{ReconcileError, gone_is_fine, reference};

/// When a pod has to go.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Stays,
    GoesAt(Timestamp),
}

/// The earliest end of what the pod's tolerations allow, counted from the moment a taint was added.
fn fate(pod: &PodView, taints: &[Taint], now: Timestamp) -> Fate {
    let mut at: Option<Timestamp> = None;
    for taint in taints.iter().filter(|t| t.effect == TaintEffect::NoExecute) {
        let mut tolerations = pod.tolerations.iter().filter(|t| t.tolerates(taint)).peekable();
        if tolerations.peek().is_none() {
            return Fate::GoesAt(now);
        }
        let seconds = tolerations.filter_map(|t| t.seconds).min();
        if let Some(seconds) = seconds {
            let from = taint.added.unwrap_or(now);
            let end = Timestamp::from_second(from.as_second().saturating_add(seconds.max(0)))
                .unwrap_or(Timestamp::MAX);
            at = Some(at.map_or(end, |a| a.min(end)));
        }
    }
    at.map_or(Fate::Stays, Fate::GoesAt)
}

struct Controller(Base);

/// The taint eviction controller; the future ends with the drain.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "taint-eviction-controller", shared, ctx);
    let (queue, index) = (base.queue.clone(), shared.pod_index.clone());
    let no_execute = |taints: &[Taint]| {
        taints.iter().filter(|t| t.effect == TaintEffect::NoExecute).cloned().collect::<Vec<_>>()
    };
    shared.nodes.on_change(move |change| {
        let of = |n: &Option<Arc<keelson_client::projections::NodeView>>| {
            n.as_ref().map(|n| no_execute(&n.taints)).unwrap_or_default()
        };
        let after = of(&change.new);
        if of(&change.old) != after && !after.is_empty() {
            for pod in index.on_node(&change.key.name) {
                queue.add(ObjectKey::new(pod.meta.namespace.clone(), pod.meta.name.clone()));
            }
        }
    });
    let (queue, nodes) = (base.queue.clone(), shared.nodes.clone());
    shared.pods.on_change(move |change| {
        let Some(new) = &change.new else { return };
        let same =
            change.old.as_ref().is_some_and(|o| o.node == new.node && o.tolerations == new.tolerations);
        let Some(node) = new.node.as_ref().filter(|_| !same) else { return };
        let tainted =
            nodes.get(&ObjectKey::cluster(node.clone())).is_some_and(|n| !no_execute(&n.taints).is_empty());
        if tainted {
            queue.add(change.key.clone());
        }
    });
    let controller = Arc::new(Controller(base.clone()));
    async move {
        let shared = base.shared.clone();
        let synced = async move {
            shared.nodes.synced().await;
            shared.pods.synced().await;
        };
        base.run(controller, 4, synced).await;
    }
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        "taint-eviction-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let base = &self.0;
        let Some(pod) = base.shared.pods.get(key).filter(|p| p.is_active()) else { return Ok(None) };
        let node = pod.node.as_ref().and_then(|n| base.shared.nodes.get(&ObjectKey::cluster(n.clone())));
        let Some(node) = node else { return Ok(None) };
        let now = base.ctx.clock.now();
        match fate(&pod, &node.taints, now) {
            Fate::Stays => return Ok(None),
            Fate::GoesAt(at) if at > now => {
                let left = u64::try_from(at.as_second() - now.as_second()).unwrap_or(0);
                return Ok(Some(Duration::from_secs(left.max(1))));
            }
            Fate::GoesAt(_) => {}
        }
        let about = reference("v1", "Pod", &pod.meta);
        let text = format!("Marking for deletion Pod {key}");
        base.recorder.record(about, EventType::Normal, "TaintManagerEviction", text);
        let api: Api<Pod> = Api::namespaced(base.client.clone(), &key.namespace);
        let patch = json!({"metadata": {"uid": pod.meta.uid}, "status": {"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": Time(now),
        }]}});
        gone_is_fine(api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await)
            .map_err(ReconcileError::api("mark the pod as disrupted"))?;
        gone_is_fine(api.delete(&key.name, &delete_exactly(&pod.meta.uid)).await)
            .map_err(ReconcileError::api("evict the pod"))?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    // Facts: pkg/controller/tainteviction/taint_eviction_test.go.
    #[test]
    fn pods_go_when_their_tolerance_ends() {
        let at = |s: &str| s.parse::<Timestamp>().unwrap();
        let now = at("2026-01-01T00:01:00Z");
        let check = |tolerations: Value, taints: Value, expected: Fate| {
            let pod = PodView::new(
                &serde_json::from_value(
                    json!({"metadata": {}, "spec": {"containers": [], "tolerations": tolerations}}),
                )
                .unwrap(),
            );
            let node = keelson_client::projections::NodeView::new(
                &serde_json::from_value(json!({"metadata": {}, "spec": {"taints": taints}})).unwrap(),
            );
            assert_eq!(fate(&pod, &node.taints, now), expected);
        };
        let taint = json!([{"key": "k", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}]);
        check(json!([]), json!([]), Fate::Stays);
        check(json!([]), json!([{"key": "k", "effect": "NoSchedule"}]), Fate::Stays);
        check(json!([]), taint.clone(), Fate::GoesAt(now));
        check(json!([{"key": "k", "operator": "Exists"}]), taint.clone(), Fate::Stays);
        check(
            json!([{"key": "k", "operator": "Exists", "tolerationSeconds": 300}]),
            taint.clone(),
            Fate::GoesAt(at("2026-01-01T00:05:00Z")),
        );
        check(
            json!([{"key": "k", "operator": "Exists"}, {"operator": "Exists", "tolerationSeconds": 10}]),
            taint,
            Fate::GoesAt(at("2026-01-01T00:00:10Z")),
        );
    }
}
