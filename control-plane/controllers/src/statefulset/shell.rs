//! Feeds StatefulSets, pods and revisions to the plan and carries it out.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use keelson_client::projections::{HasMeta, Meta, Selector, SharedInformers};
use keelson_client::{EventType, ObjectKey};
use keelson_daemon::Context;
use kube::Api;
use kube::api::PostParams;

use super::plan::{Wanted, plan};
use super::pods::{claims, ordinal, pod};
use crate::kit::expectations::Expectations;
use crate::kit::history::{self, REVISION_LABEL};
use crate::kit::owned::Owner;
use crate::kit::patch::diff_of;
use crate::kit::pods::delete_exactly;
use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{
    ReconcileError, gone_is_fine, is_already_exists, is_namespace_terminating, message, reference,
};

const KIND: &str = "StatefulSet";

struct Controller {
    base: Base,
    expectations: Arc<Expectations>,
}

/// The StatefulSet controller; the future ends with the drain.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "statefulset-controller", shared, ctx);
    let expectations = Arc::<Expectations>::default();
    let queue = base.queue.clone();
    shared.stateful_sets.on_change(move |change| queue.add(change.key.clone()));
    let (queue, expected) = (base.queue.clone(), expectations.clone());
    shared.pods.on_change(move |change| {
        for pod in change.old.iter().chain(&change.new) {
            let Some(owner) = pod.meta.controller().filter(|o| &*o.kind == KIND) else { continue };
            let key = ObjectKey::new(pod.meta.namespace.clone(), owner.name.clone());
            if change.old.is_none() {
                expected.created(&key);
            }
            if change.new.as_ref().is_none_or(|n| n.meta.deleted.is_some()) {
                expected.deleted(&key, &pod.meta.uid);
            }
            queue.add(key);
        }
    });
    let controller = Arc::new(Controller { base: base.clone(), expectations });
    async move {
        let shared = base.shared.clone();
        let synced = async move {
            shared.stateful_sets.synced().await;
            shared.pods.synced().await;
            shared.controller_revisions.synced().await;
        };
        base.run(controller, 5, synced).await;
    }
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(packed) = self.base.shared.stateful_sets.get(key) else {
            self.expectations.forget(key);
            return Ok(None);
        };
        if !self.expectations.satisfied(key) {
            return Ok(None);
        }
        let set = packed.unpack()?;
        let meta = packed.meta();
        let Some(spec) = &set.spec else { return Ok(None) };
        let selector = Selector::from_label_selector(Some(&spec.selector))
            .map_err(|error| ReconcileError::Invalid(error.to_string()))?;
        let retention = spec.persistent_volume_claim_retention_policy.as_ref();
        if retention.and_then(|r| r.when_scaled.as_deref()) == Some("Delete")
            && spec.volume_claim_templates.is_some()
        {
            let text = "persistentVolumeClaimRetentionPolicy.whenScaled=Delete is not implemented yet: claims stay when the set is scaled down";
            self.base.recorder.record(
                reference("apps/v1", KIND, meta),
                EventType::Warning,
                "NotImplemented",
                text,
            );
        }
        let owner = Owner::<StatefulSet>::new(&self.base, meta);
        let revisions = owner.revisions()?;
        let before = set.status.clone().unwrap_or_default();
        let newest = owner.newest_revision(&spec.template, &revisions, before.collision_count).await?;
        let Some(updated) = newest else { return Ok(None) };
        let named = |name: &str| revisions.iter().find(|r| history::name(r) == name);
        let current = before.current_revision.as_deref().and_then(named).unwrap_or(&updated);
        let pods = owner.claim_pods(&selector, |p| ordinal(&meta.name, p).is_some()).await?;
        let now = self.base.ctx.clock.now();
        let plan = plan(&set, &pods, history::name(current), history::name(&updated), now);
        for pod in &plan.delete {
            self.delete(key, meta, pod).await?;
        }
        for wanted in &plan.create {
            let revision = if wanted.updated { &updated } else { current };
            self.create(key, &set, meta, revision, wanted).await?;
        }
        if let Some(patch) = diff_of(&before, &plan.status)? {
            owner.patch_status(patch).await?;
        }
        let in_use = |r: &ControllerRevision| {
            let name = history::name(r);
            name == history::name(current)
                || name == history::name(&updated)
                || pods.iter().any(|p| p.meta.labels.get(REVISION_LABEL) == Some(name))
        };
        owner.trim_revisions(&revisions, in_use, spec.revision_history_limit).await?;
        Ok(plan.again)
    }

    async fn delete(
        &self,
        key: &ObjectKey,
        meta: &Meta,
        pod: &keelson_client::projections::PodView,
    ) -> Result<(), ReconcileError> {
        let api: Api<Pod> = Api::namespaced(self.base.client.clone(), &key.namespace);
        self.expectations.expect_deletions(key, [&*pod.meta.uid]);
        let about = reference("apps/v1", KIND, meta);
        match gone_is_fine(api.delete(&pod.meta.name, &delete_exactly(&pod.meta.uid)).await) {
            Ok(()) => {
                let text = format!("delete Pod {} in StatefulSet {} successful", pod.meta.name, meta.name);
                self.base.recorder.record(about, EventType::Normal, "SuccessfulDelete", text);
                Ok(())
            }
            Err(error) => {
                self.expectations.deleted(key, &pod.meta.uid);
                Err(ReconcileError::api("delete a pod")(error))
            }
        }
    }

    async fn create(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        meta: &Meta,
        revision: &ControllerRevision,
        wanted: &Wanted,
    ) -> Result<(), ReconcileError> {
        let Some(template) = history::template_of(revision) else {
            return Err(ReconcileError::Invalid(format!(
                "revision {} holds no template",
                history::name(revision)
            )));
        };
        self.create_claims(key, set, meta, wanted.ordinal).await?;
        let pod = pod(set, meta, &template, history::name(revision), wanted.ordinal);
        let name = pod.metadata.name.clone().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.base.client.clone(), &key.namespace);
        self.expectations.expect_creations(key, 1);
        let about = || reference("apps/v1", KIND, meta);
        match api.create(&PostParams::default(), &pod).await {
            Ok(_) => {
                let text = format!("create Pod {name} in StatefulSet {} successful", meta.name);
                self.base.recorder.record(about(), EventType::Normal, "SuccessfulCreate", text);
                Ok(())
            }
            Err(error) => {
                self.expectations.created(key);
                if is_namespace_terminating(&error) {
                    return Ok(());
                }
                if !is_already_exists(&error) {
                    let text = format!(
                        "create Pod {name} in StatefulSet {} failed error: {}",
                        meta.name,
                        message(&error)
                    );
                    self.base.recorder.record(about(), EventType::Warning, "FailedCreate", text);
                }
                Err(ReconcileError::api("create a pod")(error))
            }
        }
    }

    async fn create_claims(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        meta: &Meta,
        ordinal: i32,
    ) -> Result<(), ReconcileError> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.base.client.clone(), &key.namespace);
        for claim in claims(set, meta, ordinal) {
            let name = claim.metadata.name.clone().unwrap_or_default();
            match api.create(&PostParams::default(), &claim).await {
                Ok(_) => {
                    let text = format!(
                        "create Claim {name} Pod {}-{ordinal} in StatefulSet {} success",
                        meta.name, meta.name
                    );
                    self.base.recorder.record(
                        reference("apps/v1", KIND, meta),
                        EventType::Normal,
                        "SuccessfulCreate",
                        text,
                    );
                }
                // A claim outlives its pod: the next pod of the name finds it again.
                Err(error) if is_already_exists(&error) || is_namespace_terminating(&error) => {}
                Err(error) => return Err(ReconcileError::api("create a claim")(error)),
            }
        }
        Ok(())
    }
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        "statefulset-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        self.sync(key).await
    }
}
