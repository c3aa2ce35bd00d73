//! Pods nobody else removes: on nodes that are gone, ended ones above a threshold, unscheduled ones being deleted.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_client::ObjectKey;
use keelson_client::projections::{NodeView, PodView, SharedInformers};
use keelson_daemon::Context;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::Notify;

use crate::kit::pods::delete_exactly;
use crate::kit::start::Base;
use crate::kit::{gone_is_fine, is_not_found};

/// Ended pods that may stay (`terminated-pod-gc-threshold`).
const THRESHOLD: usize = 12_500;
/// How long a node must be gone before its pods go.
const QUARANTINE: Duration = Duration::from_secs(40);

/// What is to be removed, and why.
#[derive(Debug, Default, PartialEq)]
struct Garbage {
    orphaned: Vec<Arc<PodView>>,
    unscheduled: Vec<Arc<PodView>>,
    ended: Vec<Arc<PodView>>,
}

fn plan(pods: &[Arc<PodView>], node_exists: impl Fn(&str) -> bool, threshold: usize) -> Garbage {
    let mut garbage = Garbage::default();
    let mut ended = Vec::new();
    for pod in pods {
        match &pod.node {
            Some(node) if !node_exists(node) => garbage.orphaned.push(pod.clone()),
            None if pod.meta.deleted.is_some() => garbage.unscheduled.push(pod.clone()),
            _ if pod.phase.is_terminal() => ended.push(pod.clone()),
            _ => {}
        }
    }
    ended.sort_by(|a, b| (a.meta.created, &a.meta.name).cmp(&(b.meta.created, &b.meta.name)));
    let surplus = ended.len().saturating_sub(threshold);
    garbage.ended = ended.into_iter().take(surplus).collect();
    garbage
}

struct Collector {
    base: Base,
    wake: Arc<Notify>,
}

/// The pod garbage collector; the future ends with the drain.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "pod-garbage-collector", shared, ctx);
    let wake = Arc::new(Notify::new());
    let notify = wake.clone();
    shared.nodes.on_change(move |change| {
        if change.new.is_none() {
            notify.notify_one();
        }
    });
    let (notify, nodes) = (wake.clone(), shared.nodes.clone());
    shared.pods.on_change(move |change| {
        let Some(new) = &change.new else { return };
        let bound_now = change.old.as_ref().is_none_or(|o| o.node != new.node);
        let nowhere = match &new.node {
            Some(node) => bound_now && nodes.get(&ObjectKey::cluster(node.clone())).is_none(),
            None => new.meta.deleted.is_some(),
        };
        let ended = new.phase.is_terminal() && change.old.as_ref().is_none_or(|o| !o.phase.is_terminal());
        if nowhere || ended {
            notify.notify_one();
        }
    });
    let collector = Collector { base, wake };
    async move { collector.run().await }
}

impl Collector {
    async fn run(self) {
        let (shared, drain) = (self.base.shared.clone(), self.base.ctx.drain.clone());
        let synced = async {
            shared.nodes.synced().await;
            shared.pods.synced().await;
        };
        if drain.until(synced).await.is_none() {
            return;
        }
        // Woken by what may leave garbage; then nothing happens for the quarantine, in which a node may come back.
        loop {
            let turn = async {
                self.wake.notified().await;
                tokio::time::sleep(QUARANTINE).await;
            };
            if drain.until(turn).await.is_none() {
                return;
            }
            self.collect().await;
        }
    }

    async fn collect(&self) {
        let nodes = &self.base.shared.nodes;
        let known = |name: &str| -> Option<Arc<NodeView>> { nodes.get(&ObjectKey::cluster(name)) };
        let garbage = plan(&self.base.shared.pods.list(), |name| known(name).is_some(), THRESHOLD);
        let mut gone: Vec<Box<str>> = Vec::new();
        for pod in garbage.orphaned {
            let Some(node) = &pod.node else { continue };
            // Asked of the server: the cache may be behind.
            if !gone.contains(node) {
                let api: Api<Node> = Api::all(self.base.client.clone());
                match api.get_metadata(node).await {
                    Err(error) if is_not_found(&error) => gone.push(node.clone()),
                    _ => continue,
                }
            }
            self.remove(&pod, Some("PodGC: node no longer exists")).await;
        }
        for pod in garbage.unscheduled.iter().chain(&garbage.ended) {
            self.remove(pod, None).await;
        }
    }

    async fn remove(&self, pod: &PodView, disrupted: Option<&str>) {
        let api: Api<Pod> = Api::namespaced(self.base.client.clone(), &pod.meta.namespace);
        let result = async {
            if !pod.phase.is_terminal() {
                let patch = fail_patch(pod, disrupted, self.base.ctx.clock.now());
                gone_is_fine(
                    api.patch_status(&pod.meta.name, &PatchParams::default(), &Patch::Strategic(patch)).await,
                )?;
            }
            let mut params = delete_exactly(&pod.meta.uid);
            params.grace_period_seconds = Some(0);
            gone_is_fine(api.delete(&pod.meta.name, &params).await)
        };
        if let Err(error) = result.await {
            tracing::warn!(namespace = %pod.meta.namespace, pod = %pod.meta.name, error = %error, "garbage pod not removed");
            self.wake.notify_one();
        }
    }
}

fn fail_patch(pod: &PodView, disrupted: Option<&str>, now: Timestamp) -> serde_json::Value {
    let mut patch = json!({"metadata": {"uid": pod.meta.uid}, "status": {"phase": "Failed"}});
    if let Some(message) = disrupted {
        patch["status"]["conditions"] = json!([{
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": message,
            "lastTransitionTime": Time(now),
        }]);
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: Option<&str>, phase: &str, deleted: bool) -> Arc<PodView> {
        Arc::new(PodView::new(
            &serde_json::from_value(json!({
                "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:0{}Z", name.len()),
                    "deletionTimestamp": deleted.then_some("2026-01-01T00:00:00Z")},
                "spec": {"containers": [], "nodeName": node}, "status": {"phase": phase}}))
            .unwrap(),
        ))
    }

    // Facts: pkg/controller/podgc/gc_controller_test.go.
    #[test]
    fn what_is_garbage() {
        let pods = [
            pod("a", Some("here"), "Running", true),
            pod("bb", Some("gone"), "Running", false),
            pod("ccc", None, "Pending", true),
            pod("dddd", Some("here"), "Succeeded", false),
            pod("eeeee", Some("here"), "Failed", false),
            pod("ffffff", None, "Pending", false),
        ];
        let names = |pods: &[Arc<PodView>]| {
            pods.iter().map(|p| p.meta.name.to_string()).collect::<Vec<_>>().join(" ")
        };
        let garbage = plan(&pods, |node| node == "here", 1);
        assert_eq!(
            (names(&garbage.orphaned), names(&garbage.unscheduled), names(&garbage.ended)),
            ("bb".into(), "ccc".into(), "dddd".into())
        );
        assert_eq!(plan(&pods, |_| true, 2).ended, []);
    }
}
