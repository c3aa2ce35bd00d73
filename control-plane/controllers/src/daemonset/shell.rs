//! Feeds DaemonSets, pods, nodes and revisions to the plan and carries it out.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::Pod;
use keelson_client::projections::{HasMeta, Meta, PodView, Selector, SharedInformers};
use keelson_client::{EventType, ObjectKey};
use keelson_daemon::Context;
use kube::Api;
use kube::api::PostParams;

use super::plan::{Plan, plan, pod};
use crate::kit::expectations::Expectations;
use crate::kit::history;
use crate::kit::owned::Owner;
use crate::kit::patch::diff_of;
use crate::kit::pods::{delete_exactly, slow_start};
use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{ReconcileError, gone_is_fine, is_namespace_terminating, message, reference};

const API_VERSION: &str = "apps/v1";
const KIND: &str = "DaemonSet";

struct Controller {
    base: Base,
    expectations: Arc<Expectations>,
}

/// The DaemonSet controller; the future ends with the drain.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "daemonset-controller", shared, ctx);
    let expectations = Arc::<Expectations>::default();
    let queue = base.queue.clone();
    shared.daemon_sets.on_change(move |change| queue.add(change.key.clone()));
    let (queue, sets) = (base.queue.clone(), shared.daemon_sets.clone());
    shared.nodes.on_change(move |change| {
        let same = match (&change.old, &change.new) {
            (Some(old), Some(new)) => {
                old.meta.labels == new.meta.labels
                    && old.taints == new.taints
                    && old.unschedulable == new.unschedulable
            }
            _ => false,
        };
        if !same {
            sets.for_each(|key, _| queue.add(key.clone()));
        }
    });
    let (queue, expected) = (base.queue.clone(), expectations.clone());
    let owner_of = |pod: &PodView| {
        let owner = pod.meta.controller().filter(|o| &*o.kind == KIND)?;
        Some(ObjectKey::new(pod.meta.namespace.clone(), owner.name.clone()))
    };
    shared.pods.on_change(move |change| {
        let (old, new) = (change.old.as_deref().and_then(owner_of), change.new.as_deref().and_then(owner_of));
        if let (Some(key), Some(pod)) = (&new, &change.new) {
            if change.old.is_none() {
                expected.created(key);
            }
            if pod.meta.deleted.is_some() {
                expected.deleted(key, &pod.meta.uid);
            }
        }
        if let (Some(key), Some(pod), None) = (&old, &change.old, &new) {
            expected.deleted(key, &pod.meta.uid);
        }
        old.into_iter().chain(new).for_each(|key| queue.add(key));
    });
    let controller = Arc::new(Controller { base: base.clone(), expectations });
    async move {
        let shared = base.shared.clone();
        let synced = async move {
            shared.daemon_sets.synced().await;
            shared.pods.synced().await;
            shared.nodes.synced().await;
            shared.controller_revisions.synced().await;
        };
        base.run(controller, 2, synced).await;
    }
}

impl Controller {
    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.base.client.clone(), namespace)
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(packed) = self.base.shared.daemon_sets.get(key) else {
            self.expectations.forget(key);
            return Ok(None);
        };
        let ds = packed.unpack()?;
        let meta = packed.meta();
        let selector = Selector::from_label_selector(ds.spec.as_ref().map(|s| &s.selector))
            .map_err(|error| ReconcileError::Invalid(error.to_string()))?;
        if selector.is_everything() {
            return Ok(None);
        }
        let Some(spec) = &ds.spec else { return Ok(None) };
        let owner = Owner::<DaemonSet>::new(&self.base, meta);
        let revisions = owner.revisions()?;
        let collisions = ds.status.as_ref().and_then(|s| s.collision_count);
        let newest = owner.newest_revision(&spec.template, &revisions, collisions).await?;
        let Some(revision) = newest else { return Ok(None) };
        let pods = owner.claim_pods(&selector, |_| true).await?;
        let nodes = self.base.shared.nodes.list();
        let may_manage = self.expectations.satisfied(key);
        let hash = history::hash(&revision);
        let plan = plan(&ds, &pods, &nodes, hash, may_manage, self.base.ctx.clock.now());
        let result = self.carry_out(key, &ds, meta, hash, &plan).await;
        if let Some(patch) = diff_of(&ds.status.clone().unwrap_or_default(), &plan.status)? {
            owner.patch_status(patch).await?;
        }
        result?;
        let in_use = |revision: &ControllerRevision| {
            let held = history::hash(revision);
            held == hash || pods.iter().any(|p| p.meta.labels.get(history::REVISION_LABEL) == Some(held))
        };
        owner.trim_revisions(&revisions, in_use, spec.revision_history_limit).await?;
        Ok(plan.again)
    }

    async fn carry_out(
        &self,
        key: &ObjectKey,
        ds: &DaemonSet,
        meta: &Meta,
        hash: &str,
        plan: &Plan,
    ) -> Result<(), ReconcileError> {
        let about = || reference(API_VERSION, KIND, meta);
        for pod in &plan.failed {
            let node = pod.node.as_deref().unwrap_or_default();
            let text = format!(
                "Found failed daemon pod {}/{} on node {node}, will try to kill it",
                pod.meta.namespace, pod.meta.name
            );
            self.base.recorder.record(about(), EventType::Warning, "FailedDaemonPod", text);
        }
        let api = self.pods(&key.namespace);
        self.expectations.expect_creations(key, plan.create.len());
        self.expectations.expect_deletions(key, plan.delete.iter().map(|p| &*p.meta.uid));
        let (made, _, error) = slow_start(plan.create.len(), |at| {
            let pod = pod(ds, meta, hash, &plan.create[at]);
            let (api, about) = (&api, &about);
            async move {
                let made = api.create(&PostParams::default(), &pod).await;
                match &made {
                    Ok(made) => {
                        let text =
                            format!("Created pod: {}", made.metadata.name.as_deref().unwrap_or_default());
                        self.base.recorder.record(about(), EventType::Normal, "SuccessfulCreate", text);
                    }
                    Err(error) if is_namespace_terminating(error) => {}
                    Err(error) => {
                        let text = format!("Error creating: {}", message(error));
                        self.base.recorder.record(about(), EventType::Warning, "FailedCreate", text);
                    }
                }
                made
            }
        })
        .await;
        for _ in made..plan.create.len() {
            self.expectations.created(key);
        }
        let deletions = join_all(plan.delete.iter().map(|pod| async {
            let result = gone_is_fine(api.delete(&pod.meta.name, &delete_exactly(&pod.meta.uid)).await);
            match &result {
                Ok(()) => {
                    let text = format!("Deleted pod: {}", pod.meta.name);
                    self.base.recorder.record(about(), EventType::Normal, "SuccessfulDelete", text);
                }
                Err(_) => self.expectations.deleted(key, &pod.meta.uid),
            }
            result
        }))
        .await;
        let failed = plan.create.len() - made + deletions.iter().filter(|r| r.is_err()).count();
        let total = plan.create.len() + plan.delete.len();
        match error.into_iter().chain(deletions.into_iter().filter_map(Result::err)).next() {
            Some(error) if is_namespace_terminating(&error) => Ok(()),
            Some(error) => Err(ReconcileError::Writes { failed, total, source: Box::new(error) }),
            None => Ok(()),
        }
    }
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        "daemonset-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        self.sync(key).await
    }
}
