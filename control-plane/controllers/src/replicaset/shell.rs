//! Feeds sets and pods to the plan and carries it out.

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use futures::future::join_all;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use keelson_client::projections::{HasMeta, Packed, PodView, Selector, SharedInformers};
use keelson_client::{EventRecorder, EventType, Informer, ObjectKey, WorkQueue};
use keelson_daemon::Context;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use parking_lot::RwLock;
use serde_json::{Value, json};

use super::plan::{self, Failure, Set};
use crate::kit::claims::{adoption, owner_reference, plan as plan_claims, release};
use crate::kit::expectations::Expectations;
use crate::kit::patch::diff_of;
use crate::kit::pods::{delete_exactly, from_template, slow_start};
use crate::kit::worker::{Reconcile, work};
use crate::kit::{ReconcileError, gone_is_fine, is_namespace_terminating, is_not_found, message, reference};

const WORKERS: usize = 5;

/// What differs between the two kinds.
trait Kind: Send + Sync + 'static {
    const API_VERSION: &'static str;
    const KIND: &'static str;
    const CONTROLLER: &'static str;
    type Object: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + k8s_openapi::Metadata<Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>
        + serde::Serialize
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug
        + Send
        + Sync
        + 'static;
    fn set(object: Self::Object) -> Result<Set, ReconcileError>;
    /// Whether status tells of pods that are going away.
    const COUNTS_TERMINATING: bool;
}

struct ReplicaSets;
struct ReplicationControllers;

impl Kind for ReplicaSets {
    const API_VERSION: &'static str = "apps/v1";
    const KIND: &'static str = "ReplicaSet";
    const CONTROLLER: &'static str = "replicaset-controller";
    const COUNTS_TERMINATING: bool = true;
    type Object = ReplicaSet;
    fn set(object: ReplicaSet) -> Result<Set, ReconcileError> {
        Set::from_replica_set(object).map_err(|error| ReconcileError::Invalid(error.to_string()))
    }
}

impl Kind for ReplicationControllers {
    const API_VERSION: &'static str = "v1";
    const KIND: &'static str = "ReplicationController";
    const CONTROLLER: &'static str = "replication-controller";
    const COUNTS_TERMINATING: bool = false;
    type Object = ReplicationController;
    fn set(object: ReplicationController) -> Result<Set, ReconcileError> {
        Ok(Set::from_replication_controller(object))
    }
}

struct Controller<K: Kind> {
    sets: Informer<Packed<K::Object>>,
    shared: SharedInformers,
    client: kube::Client,
    recorder: EventRecorder,
    ctx: Context,
    queue: WorkQueue<ObjectKey>,
    expectations: Arc<Expectations>,
    selectors: Arc<RwLock<AHashMap<ObjectKey, Selector>>>,
}

/// The ReplicaSet controller; the future ends with the drain.
pub fn start_replica_sets(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    start::<ReplicaSets>(client, shared.replica_sets.clone(), shared, ctx)
}

/// The ReplicationController controller; the future ends with the drain.
pub fn start_replication_controllers(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    start::<ReplicationControllers>(client, shared.replication_controllers.clone(), shared, ctx)
}

fn start<K: Kind>(
    client: kube::Client,
    sets: Informer<Packed<K::Object>>,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<K>
where
    Packed<K::Object>: keelson_client::Projection<Object = K::Object>,
{
    let controller = Arc::new(Controller::<K> {
        recorder: EventRecorder::start(client.clone(), K::CONTROLLER, ctx.clock.clone(), ctx.drain.clone()),
        sets,
        shared: shared.clone(),
        client,
        ctx: ctx.clone(),
        queue: WorkQueue::new(),
        expectations: Arc::default(),
        selectors: Arc::default(),
    });
    controller.watch_sets();
    controller.watch_pods();
    let (queue, drain) = (controller.queue.clone(), ctx.drain.clone());
    async move {
        let synced = async {
            controller.sets.synced().await;
            controller.shared.pods.synced().await;
        };
        if drain.until(synced).await.is_some() {
            work(controller, queue, WORKERS, drain).await;
        }
    }
}

impl<K: Kind> Controller<K>
where
    Packed<K::Object>: keelson_client::Projection<Object = K::Object>,
{
    fn watch_sets(&self) {
        let (queue, selectors) = (self.queue.clone(), self.selectors.clone());
        self.sets.on_change(move |change| {
            let selector =
                change.new.as_ref().and_then(|n| K::set(n.unpack().ok()?).ok()).map(|s| s.selector);
            match selector {
                Some(selector) => drop(selectors.write().insert(change.key.clone(), selector)),
                None => drop(selectors.write().remove(&change.key)),
            }
            queue.add(change.key.clone());
        });
    }

    fn watch_pods(&self) {
        let (queue, expectations, selectors) =
            (self.queue.clone(), self.expectations.clone(), self.selectors.clone());
        let owner_of = |pod: &PodView| {
            pod.meta
                .controller()
                .filter(|o| &*o.kind == K::KIND && &*o.api_version == K::API_VERSION)
                .map(|o| ObjectKey::new(&*pod.meta.namespace, &*o.name))
        };
        self.shared.pods.on_change(move |change| {
            let old_owner = change.old.as_deref().and_then(owner_of);
            let new_owner = change.new.as_deref().and_then(owner_of);
            let going = |pod: &Option<Arc<PodView>>| pod.as_ref().is_none_or(|p| p.meta.deleted.is_some());
            if let Some(key) = &new_owner {
                if change.old.is_none() {
                    expectations.created(key);
                }
                if let (Some(new), true) = (&change.new, going(&change.new)) {
                    expectations.deleted(key, &new.meta.uid);
                }
                queue.add(key.clone());
            }
            if let (Some(key), Some(old)) = (&old_owner, &change.old)
                && old_owner != new_owner
            {
                expectations.deleted(key, &old.meta.uid);
                queue.add(key.clone());
            }
            // An orphan may be adopted by whoever selects it.
            let Some(new) = change.new.as_ref().filter(|n| n.meta.controller().is_none()) else { return };
            let unchanged = change
                .old
                .as_ref()
                .is_some_and(|o| o.meta.labels == new.meta.labels && o.meta.controller().is_none());
            if !unchanged && new.meta.deleted.is_none() {
                let selectors = selectors.read();
                let matching = selectors.iter().filter(|(key, selector)| {
                    key.namespace == new.meta.namespace && selector.matches(&new.meta.labels)
                });
                matching.for_each(|(key, _)| queue.add(key.clone()));
            }
        });
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn api(&self, namespace: &str) -> Api<K::Object> {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(packed) = self.sets.get(key) else {
            self.expectations.forget(key);
            return Ok(None);
        };
        let set = K::set(packed.unpack()?)?;
        let may_manage = self.expectations.satisfied(key) && set.meta.deleted.is_none();
        let pods = self.claim(&set).await?;
        let terminating = pods.iter().filter(|p| p.meta.deleted.is_some() && !p.phase.is_terminal()).count();
        let active: Vec<Arc<PodView>> = pods.into_iter().filter(|p| p.is_active()).collect();
        let (failure, error) = if may_manage { self.manage(key, &set, &active).await } else { (None, None) };
        let now = self.ctx.clock.now();
        let failure = failure.or_else(|| if may_manage { None } else { standing_failure(&set.status) });
        let status = plan::status(&set, &active, K::COUNTS_TERMINATING.then_some(terminating), failure, now);
        if let Some(patch) = diff_of(&set.status, &status)? {
            let body = Patch::Merge(json!({
                "metadata": {"uid": set.meta.uid, "resourceVersion": set.meta.resource_version.to_string()}, "status": patch}));
            let written =
                self.api(&key.namespace).patch_status(&key.name, &PatchParams::default(), &body).await;
            gone_is_fine(written).map_err(ReconcileError::api("write the status"))?;
        }
        match error {
            Some(error) => Err(error),
            None => Ok(plan::available_later(&set, &status, &active, now)),
        }
    }

    /// Pods the set owns, after adopting and releasing.
    async fn claim(&self, set: &Set) -> Result<Vec<Arc<PodView>>, ReconcileError> {
        let meta = &set.meta;
        let mut candidates = self.shared.pod_index.controlled_by(&meta.uid);
        candidates.extend(
            self.shared
                .pod_index
                .orphans(&meta.namespace, |p| p.is_active() && set.selector.matches(&p.meta.labels)),
        );
        let claims = plan_claims(&meta.uid, meta.deleted.is_some(), &set.selector, candidates);
        let mut owned = claims.owned;
        if !claims.adopt.is_empty() && self.still_lives(meta).await? {
            let owner = owner_reference(K::API_VERSION, K::KIND, meta);
            for pod in claims.adopt {
                if self.patch_owner(&pod, adoption(&owner, &pod.meta)).await? {
                    owned.push(pod);
                }
            }
        }
        for pod in claims.release {
            self.patch_owner(&pod, release(&meta.uid, &pod.meta)).await?;
        }
        Ok(owned)
    }

    /// Asks the server, not the cache, whether the owner may still adopt.
    async fn still_lives(&self, meta: &keelson_client::projections::Meta) -> Result<bool, ReconcileError> {
        match self.api(&meta.namespace).get_metadata(&meta.name).await {
            Ok(fresh) => Ok(fresh.metadata.uid.as_deref() == Some(&meta.uid)
                && fresh.metadata.deletion_timestamp.is_none()),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(ReconcileError::api("read the owner before adopting")(error)),
        }
    }

    async fn patch_owner(&self, pod: &PodView, patch: Value) -> Result<bool, ReconcileError> {
        let api = self.pods(&pod.meta.namespace);
        match api.patch(&pod.meta.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => Ok(true),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(ReconcileError::api("adopt or release a pod")(error)),
        }
    }

    async fn manage(
        &self,
        key: &ObjectKey,
        set: &Set,
        active: &[Arc<PodView>],
    ) -> (Option<Failure>, Option<ReconcileError>) {
        let related = self.related(set);
        let scaling = plan::scaling(set, active, &related, self.ctx.clock.now());
        if scaling.create > 0 {
            return self.create(key, set, scaling.create).await;
        }
        if !scaling.delete.is_empty() {
            return self.delete(key, set, scaling.delete).await;
        }
        (None, None)
    }

    /// Active pods of all sets of the same owner.
    fn related(&self, set: &Set) -> Vec<Arc<PodView>> {
        let mut uids = vec![set.meta.uid.clone()];
        if let Some(owner) = set.meta.controller() {
            let siblings = self.sets.list_namespace(&set.meta.namespace);
            uids = siblings
                .iter()
                .filter(|(_, s)| s.meta().controller().is_some_and(|o| o.uid == owner.uid))
                .map(|(_, s)| s.meta().uid.clone())
                .collect();
        }
        uids.iter()
            .flat_map(|uid| self.shared.pod_index.controlled_by(uid))
            .filter(|p| p.is_active())
            .collect()
    }

    async fn create(
        &self,
        key: &ObjectKey,
        set: &Set,
        count: usize,
    ) -> (Option<Failure>, Option<ReconcileError>) {
        self.expectations.expect_creations(key, count);
        let pod = from_template(&set.template, K::API_VERSION, K::KIND, &set.meta);
        let api = self.pods(&key.namespace);
        let about = || reference(K::API_VERSION, K::KIND, &set.meta);
        let (succeeded, _, error) = slow_start(count, |_| async {
            let created = api.create(&PostParams::default(), &pod).await;
            match &created {
                Ok(created) => {
                    let name = created.metadata.name.as_deref().unwrap_or_default();
                    self.recorder.record(
                        about(),
                        EventType::Normal,
                        "SuccessfulCreate",
                        format!("Created pod: {name}"),
                    );
                }
                Err(error) if is_namespace_terminating(error) => {}
                Err(error) => {
                    self.recorder.record(
                        about(),
                        EventType::Warning,
                        "FailedCreate",
                        format!("Error creating: {}", message(error)),
                    );
                }
            }
            created
        })
        .await;
        for _ in succeeded..count {
            self.expectations.created(key);
        }
        outcome("FailedCreate", count - succeeded, count, error)
    }

    async fn delete(
        &self,
        key: &ObjectKey,
        set: &Set,
        pods: Vec<Arc<PodView>>,
    ) -> (Option<Failure>, Option<ReconcileError>) {
        self.expectations.expect_deletions(key, pods.iter().map(|p| &*p.meta.uid));
        let api = self.pods(&key.namespace);
        let results = join_all(pods.iter().map(|pod| async {
            let result = api.delete(&pod.meta.name, &delete_exactly(&pod.meta.uid)).await;
            let about = || reference(K::API_VERSION, K::KIND, &set.meta);
            match result {
                Ok(_) => {
                    let text = format!("Deleted pod: {}", pod.meta.name);
                    self.recorder.record(about(), EventType::Normal, "SuccessfulDelete", text);
                    Ok(())
                }
                Err(error) => {
                    self.expectations.deleted(key, &pod.meta.uid);
                    if is_not_found(&error) {
                        return Ok(());
                    }
                    self.recorder.record(
                        about(),
                        EventType::Warning,
                        "FailedDelete",
                        format!("Error deleting: {}", message(&error)),
                    );
                    Err(error)
                }
            }
        }))
        .await;
        let total = results.len();
        let mut errors: Vec<kube::Error> = results.into_iter().filter_map(Result::err).collect();
        let failed = errors.len();
        let first = if errors.is_empty() { None } else { Some(errors.swap_remove(0)) };
        outcome("FailedDelete", failed, total, first)
    }
}

fn outcome(
    reason: &'static str,
    failed: usize,
    total: usize,
    error: Option<kube::Error>,
) -> (Option<Failure>, Option<ReconcileError>) {
    let Some(error) = error else { return (None, None) };
    if is_namespace_terminating(&error) {
        return (None, None); // everything in it goes; trying again would only make noise
    }
    (Some((reason, message(&error))), Some(ReconcileError::Writes { failed, total, source: Box::new(error) }))
}

/// The failure in the status as it is, kept while nothing was tried.
fn standing_failure(status: &ReplicaSetStatus) -> Option<Failure> {
    let condition = status.conditions.iter().flatten().find(|c| c.type_ == "ReplicaFailure")?;
    let reason = match condition.reason.as_deref() {
        Some("FailedDelete") => "FailedDelete",
        _ => "FailedCreate",
    };
    Some((reason, condition.message.clone().unwrap_or_default()))
}

impl<K: Kind> Reconcile for Controller<K>
where
    Packed<K::Object>: keelson_client::Projection<Object = K::Object>,
{
    fn name(&self) -> &'static str {
        K::CONTROLLER
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        self.sync(key).await
    }
}
