//! Feeds Deployments, ReplicaSets and pods to the plan and carries it out.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use keelson_client::projections::{HasMeta, Meta, Packed, Selector, SharedInformers};
use keelson_client::{EventRecorder, EventType, ObjectKey, WorkQueue};
use keelson_daemon::Context;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::annotations::REVISION;
use super::plan::{Action, Observed, plan, same_template};
use super::status;
use crate::kit::claims::{adoption, owner_reference, plan as plan_claims, release};
use crate::kit::patch::diff_of;
use crate::kit::pods::delete_exactly;
use crate::kit::worker::{Reconcile, work};
use crate::kit::{
    ReconcileError, gone_is_fine, is_already_exists, is_namespace_terminating, is_not_found, message,
    reference,
};

const WORKERS: usize = 5;
const API_VERSION: &str = "apps/v1";
const KIND: &str = "Deployment";

struct Controller {
    shared: SharedInformers,
    client: kube::Client,
    recorder: EventRecorder,
    ctx: Context,
    queue: WorkQueue<ObjectKey>,
}

/// The Deployment controller; the future ends with the drain.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let controller = Arc::new(Controller {
        recorder: EventRecorder::start(
            client.clone(),
            "deployment-controller",
            ctx.clock.clone(),
            ctx.drain.clone(),
        ),
        shared: shared.clone(),
        client,
        ctx: ctx.clone(),
        queue: WorkQueue::new(),
    });
    controller.watch();
    let (queue, drain) = (controller.queue.clone(), ctx.drain.clone());
    async move {
        let synced = async {
            controller.shared.deployments.synced().await;
            controller.shared.replica_sets.synced().await;
            controller.shared.pods.synced().await;
        };
        if drain.until(synced).await.is_some() {
            work(controller, queue, WORKERS, drain).await;
        }
    }
}

fn owner_of(meta: &Meta, kind: &str) -> Option<ObjectKey> {
    let owner = meta.controller().filter(|o| &*o.kind == kind)?;
    Some(ObjectKey::new(&*meta.namespace, &*owner.name))
}

impl Controller {
    fn watch(&self) {
        let queue = self.queue.clone();
        self.shared.deployments.on_change(move |change| queue.add(change.key.clone()));
        let (queue, deployments) = (self.queue.clone(), self.shared.deployments.clone());
        self.shared.replica_sets.on_change(move |change| {
            for set in change.old.iter().chain(&change.new) {
                if let Some(key) = owner_of(set.meta(), KIND) {
                    queue.add(key);
                }
            }
            // An orphan: whoever selects it may adopt it.
            if let Some(new) = change.new.as_ref().filter(|n| n.meta().controller().is_none()) {
                for (key, _) in deployments.list_namespace(&new.meta().namespace) {
                    queue.add(key);
                }
            }
        });
        // Recreate waits for the last pod of its old sets.
        let (queue, sets) = (self.queue.clone(), self.shared.replica_sets.clone());
        self.shared.pods.on_change(move |change| {
            let ended = |p: &keelson_client::projections::PodView| p.phase.is_terminal();
            let (Some(old), gone) = (&change.old, change.new.as_ref().is_none_or(|n| ended(n))) else {
                return;
            };
            if !gone || ended(old) && change.new.is_some() {
                return;
            }
            let owner = owner_of(&old.meta, "ReplicaSet").and_then(|key| sets.get(&key));
            if let Some(key) = owner.and_then(|set| owner_of(set.meta(), KIND)) {
                queue.add(key);
            }
        });
    }

    fn deployments(&self, namespace: &str) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn sets(&self, namespace: &str) -> Api<ReplicaSet> {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(packed) = self.shared.deployments.get(key) else { return Ok(None) };
        let d = packed.unpack()?;
        let meta = packed.meta();
        let Some(spec) = &d.spec else { return Ok(None) };
        let selector = Selector::from_label_selector(Some(&spec.selector))
            .map_err(|error| ReconcileError::Invalid(error.to_string()))?;
        if selector.is_everything() {
            self.recorder.record(
                reference(API_VERSION, KIND, meta),
                EventType::Warning,
                "SelectingAll",
                "This deployment is selecting all pods. A non-empty selector is required.",
            );
            return Ok(None);
        }
        let sets = self.claim(meta, &selector).await?;
        let now = self.ctx.clock.now();
        let index = &self.shared.pod_index;
        let plan = plan(Observed { deployment: &d, sets, pods: &|uid| index.controlled_by(uid), now });
        for action in plan.actions {
            self.carry_out(&d, meta, action).await?;
        }
        self.write_status(&d, meta, &plan.status).await?;
        Ok(status::deadline_check(&d, &plan.status, now))
    }

    async fn write_status(
        &self,
        d: &Deployment,
        meta: &Meta,
        status: &DeploymentStatus,
    ) -> Result<(), ReconcileError> {
        let current = d.status.clone().unwrap_or_default();
        let Some(patch) = diff_of(&current, status)? else { return Ok(()) };
        let body = Patch::Merge(json!({
            "metadata": {"uid": meta.uid, "resourceVersion": d.metadata.resource_version}, "status": patch}));
        let api = self.deployments(&meta.namespace);
        gone_is_fine(api.patch_status(&meta.name, &PatchParams::default(), &body).await)
            .map_err(ReconcileError::api("write the status"))
    }

    /// The sets the Deployment owns, after adopting and releasing.
    async fn claim(&self, meta: &Meta, selector: &Selector) -> Result<Vec<ReplicaSet>, ReconcileError> {
        let candidates: Vec<Arc<Packed<ReplicaSet>>> = self
            .shared
            .replica_sets
            .list_namespace(&meta.namespace)
            .into_iter()
            .map(|(_, set)| set)
            .collect();
        let claims = plan_claims(&meta.uid, meta.deleted.is_some(), selector, candidates);
        let mut owned = claims.owned;
        if !claims.adopt.is_empty() && self.still_lives(meta).await? {
            let owner = owner_reference(API_VERSION, KIND, meta);
            for set in claims.adopt {
                if self.patch_owner(set.meta(), adoption(&owner, set.meta())).await? {
                    owned.push(set);
                }
            }
        }
        for set in claims.release {
            self.patch_owner(set.meta(), release(&meta.uid, set.meta())).await?;
        }
        owned.iter().map(|set| set.unpack().map_err(Into::into)).collect()
    }

    async fn still_lives(&self, meta: &Meta) -> Result<bool, ReconcileError> {
        match self.deployments(&meta.namespace).get_metadata(&meta.name).await {
            Ok(fresh) => Ok(fresh.metadata.uid.as_deref() == Some(&meta.uid)
                && fresh.metadata.deletion_timestamp.is_none()),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(ReconcileError::api("read the deployment before adopting")(error)),
        }
    }

    async fn patch_owner(&self, set: &Meta, patch: Value) -> Result<bool, ReconcileError> {
        let api = self.sets(&set.namespace);
        match api.patch(&set.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => Ok(true),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(ReconcileError::api("adopt or release a replica set")(error)),
        }
    }

    fn event(&self, meta: &Meta, event: Option<String>) {
        if let Some(text) = event {
            self.recorder.record(
                reference(API_VERSION, KIND, meta),
                EventType::Normal,
                "ScalingReplicaSet",
                text,
            );
        }
    }

    async fn carry_out(&self, d: &Deployment, meta: &Meta, action: Action) -> Result<(), ReconcileError> {
        match action {
            Action::Create { set, event } => self.create(d, meta, &set, event).await,
            Action::Update {
                name,
                uid,
                resource_version,
                replicas,
                min_ready_seconds,
                annotations,
                event,
            } => {
                let mut body = json!({"metadata": {
                    "uid": uid, "resourceVersion": resource_version, "annotations": annotations}});
                if let Some(replicas) = replicas {
                    body["spec"]["replicas"] = json!(replicas);
                }
                if let Some(seconds) = min_ready_seconds {
                    body["spec"]["minReadySeconds"] = json!(seconds);
                }
                self.sets(&meta.namespace)
                    .patch(&name, &PatchParams::default(), &Patch::Merge(body))
                    .await
                    .map_err(ReconcileError::api("scale a replica set"))?;
                self.event(meta, event);
                Ok(())
            }
            Action::Delete { name, uid } => {
                gone_is_fine(self.sets(&meta.namespace).delete(&name, &delete_exactly(&uid)).await)
                    .map_err(ReconcileError::api("delete an old replica set"))
            }
            Action::SetRevision(revision) => {
                let body = json!({"metadata": {"uid": meta.uid, "annotations": {REVISION: revision}}});
                // Through the status, as upstream's: on the Deployment itself it would be a new generation.
                self.deployments(&meta.namespace)
                    .patch_status(&meta.name, &PatchParams::default(), &Patch::Merge(body))
                    .await
                    .map(drop)
                    .map_err(ReconcileError::api("write the revision"))
            }
        }
    }

    async fn create(
        &self,
        d: &Deployment,
        meta: &Meta,
        set: &ReplicaSet,
        event: Option<String>,
    ) -> Result<(), ReconcileError> {
        let api = self.sets(&meta.namespace);
        let error = match api.create(&PostParams::default(), set).await {
            Ok(_) => {
                self.event(meta, event);
                return Ok(());
            }
            Err(error) => error,
        };
        if is_namespace_terminating(&error) {
            return Err(ReconcileError::api("create the new replica set")(error));
        }
        if is_already_exists(&error) {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            let there =
                api.get(name).await.map_err(ReconcileError::api("read the replica set of the same name"))?;
            let ours = Meta::new(&there.metadata).controller().is_some_and(|owner| owner.uid == meta.uid);
            if ours && same_template(d, &there) {
                // Made by an earlier step that the cache has not seen yet.
                return Err(ReconcileError::Stale("the new replica set exists"));
            }
            let count = d.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
            let body = json!({"metadata": {"uid": meta.uid}, "status": {"collisionCount": count + 1}});
            self.deployments(&meta.namespace)
                .patch_status(&meta.name, &PatchParams::default(), &Patch::Merge(body))
                .await
                .map_err(ReconcileError::api("count a name collision"))?;
            return Err(ReconcileError::Stale("the new replica set's name is taken"));
        }
        let text = message(&error);
        self.recorder.record(
            reference(API_VERSION, KIND, meta),
            EventType::Warning,
            "ReplicaSetCreateError",
            format!(
                "Failed to create new replica set {:?}: {text}",
                set.metadata.name.as_deref().unwrap_or_default()
            ),
        );
        let mut failed = d.status.clone().unwrap_or_default();
        status::create_failed(d, &mut failed, &text, self.ctx.clock.now());
        self.write_status(d, meta, &failed).await?;
        Err(ReconcileError::api("create the new replica set")(error))
    }
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        self.sync(key).await
    }
}
