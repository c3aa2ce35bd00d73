//! Feeds Jobs and their pods to the plan and carries it out.

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use futures::future::join_all;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use keelson_client::projections::{HasMeta, Meta, PodView, Selector, SharedInformers};
use keelson_client::{EventType, ObjectKey};
use keelson_daemon::Context;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::FINALIZER;
use super::plan::{Plan, is_finished, plan};
use super::pods::{Wanted, pod};
use crate::kit::claims::{adoption, owner_reference, plan as plan_claims, release};
use crate::kit::expectations::Expectations;
use crate::kit::patch::diff_of;
use crate::kit::pods::{delete_exactly, slow_start};
use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{ReconcileError, gone_is_fine, is_namespace_terminating, is_not_found, message, reference};

const WORKERS: usize = 5;
const API_VERSION: &str = "batch/v1";
const KIND: &str = "Job";
/// Events of one Job's pods are gathered for this long.
const BATCH: Duration = Duration::from_millis(50);
/// Queue entries under this namespace-less prefix are pods whose Job is gone.
const ORPHAN: char = '!';

struct Controller {
    base: Base,
    expectations: Arc<Expectations>,
    /// The resource version of the status written last, by Job: an older cache is not believed.
    written: Mutex<AHashMap<ObjectKey, u64>>,
}

/// The Job controller; the future ends with the drain.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "job-controller", shared, ctx);
    let expectations = Arc::<Expectations>::default();
    let queue = base.queue.clone();
    shared.jobs.on_change(move |change| queue.add(change.key.clone()));
    let (queue, expected, jobs) = (base.queue.clone(), expectations.clone(), shared.jobs.clone());
    let owner_of = |pod: &PodView| {
        let owner =
            pod.meta.controller().filter(|o| &*o.kind == KIND && o.api_version.starts_with("batch/"))?;
        Some((ObjectKey::new(pod.meta.namespace.clone(), owner.name.clone()), owner.uid.clone()))
    };
    shared.pods.on_change(move |change| {
        let old_owner = change.old.as_deref().and_then(owner_of);
        let new_owner = change.new.as_deref().and_then(owner_of);
        if let (Some((key, _)), Some(new)) = (&new_owner, &change.new) {
            if change.old.is_none() {
                expected.created(key);
            }
            if new.meta.deleted.is_some() {
                expected.deleted(key, &new.meta.uid);
            }
        }
        if let (Some((key, _)), Some(old), None) = (&old_owner, &change.old, &change.new) {
            expected.deleted(key, &old.meta.uid);
        }
        for (key, uid) in old_owner.iter().chain(&new_owner) {
            if jobs.get(key).is_some_and(|job| job.meta().uid == *uid) {
                queue.add_after(key.clone(), BATCH);
            } else if let Some(new) = change.new.as_ref().filter(|n| n.meta.has_finalizer(FINALIZER)) {
                queue.add_after(orphan_key(&new.meta), BATCH);
            }
        }
        // A selector is the Job's own by its uid: pods without an owner are adopted when their Job is looked at anyway.
        if let Some(new) =
            change.new.as_ref().filter(|n| n.meta.controller().is_none() && n.meta.has_finalizer(FINALIZER))
        {
            queue.add_after(orphan_key(&new.meta), BATCH);
        }
    });
    let controller = Arc::new(Controller { base: base.clone(), expectations, written: Mutex::default() });
    async move {
        let shared = base.shared.clone();
        let synced = async move {
            shared.jobs.synced().await;
            shared.pods.synced().await;
        };
        base.run(controller, WORKERS, synced).await;
    }
}

fn orphan_key(meta: &Meta) -> ObjectKey {
    ObjectKey::new(format!("{ORPHAN}{}", meta.namespace), meta.name.clone())
}

impl Controller {
    fn jobs(&self, namespace: &str) -> Api<Job> {
        Api::namespaced(self.base.client.clone(), namespace)
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.base.client.clone(), namespace)
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(packed) = self.base.shared.jobs.get(key) else {
            self.expectations.forget(key);
            self.written.lock().remove(key);
            return Ok(None);
        };
        let meta = packed.meta();
        if self.written.lock().get(key).is_some_and(|written| *written > meta.resource_version) {
            return Err(ReconcileError::Stale("the job's status was written since"));
        }
        let job = packed.unpack()?;
        let managed_elsewhere = job
            .spec
            .as_ref()
            .and_then(|s| s.managed_by.as_deref())
            .is_some_and(|m| m != "kubernetes.io/job-controller");
        if managed_elsewhere {
            return Ok(None);
        }
        let may_manage = self.expectations.satisfied(key);
        let pods = self.claim(&job, meta).await?;
        let plan = plan(&job, &pods, may_manage, self.base.ctx.clock.now());
        self.carry_out(key, &job, meta, plan).await
    }

    async fn claim(&self, job: &Job, meta: &Meta) -> Result<Vec<Arc<PodView>>, ReconcileError> {
        let selector = Selector::from_label_selector(job.spec.as_ref().and_then(|s| s.selector.as_ref()))
            .map_err(|error| ReconcileError::Invalid(error.to_string()))?;
        let mut candidates = self.base.shared.pod_index.controlled_by(&meta.uid);
        if !is_finished(job) {
            let orphans =
                self.base.shared.pod_index.orphans(&meta.namespace, |p| selector.matches(&p.meta.labels));
            candidates.extend(orphans);
        }
        let claims = plan_claims(&meta.uid, meta.deleted.is_some(), &selector, candidates);
        let mut owned = claims.owned;
        if !claims.adopt.is_empty() && self.still_lives(meta).await? {
            let owner = owner_reference(API_VERSION, KIND, meta);
            for pod in claims.adopt {
                let mut patch = adoption(&owner, &pod.meta);
                patch["metadata"]["finalizers"] = json!([FINALIZER]);
                if self.patch_pod(&pod, patch).await? {
                    owned.push(pod);
                }
            }
        }
        for pod in claims.release {
            self.patch_pod(&pod, release(&meta.uid, &pod.meta)).await?;
        }
        Ok(owned)
    }

    async fn still_lives(&self, meta: &Meta) -> Result<bool, ReconcileError> {
        match self.jobs(&meta.namespace).get_metadata(&meta.name).await {
            Ok(fresh) => Ok(fresh.metadata.uid.as_deref() == Some(&meta.uid)
                && fresh.metadata.deletion_timestamp.is_none()),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(ReconcileError::api("read the job before adopting")(error)),
        }
    }

    async fn patch_pod(&self, pod: &PodView, patch: Value) -> Result<bool, ReconcileError> {
        let api = self.pods(&pod.meta.namespace);
        match api.patch_metadata(&pod.meta.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => Ok(true),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(ReconcileError::api("patch a pod")(error)),
        }
    }

    async fn carry_out(
        &self,
        key: &ObjectKey,
        job: &Job,
        meta: &Meta,
        plan: Plan,
    ) -> Result<Option<Duration>, ReconcileError> {
        let deleted = self.delete_pods(key, meta, &plan.delete).await;
        let created = self.create_pods(key, job, meta, &plan.create).await;
        let mut status = plan.status;
        let missing = plan.create.len() - created.as_ref().map_or_else(|(made, _)| *made, |made| *made);
        if missing > 0 {
            let active = status.active.unwrap_or(0) - i32::try_from(missing).unwrap_or(0);
            status.active = Some(active).filter(|n| *n > 0);
        }
        self.write_status(key, job, meta, &status).await?;
        for (warning, reason, message) in plan.events {
            let kind = if warning { EventType::Warning } else { EventType::Normal };
            self.base.recorder.record(reference(API_VERSION, KIND, meta), kind, reason, message);
        }
        // Only now: what the status says of these pods is durable.
        let results = join_all(plan.release.iter().map(|pod| self.remove_finalizer(&pod.meta))).await;
        results.into_iter().collect::<Result<Vec<()>, ReconcileError>>()?;
        deleted?;
        match created {
            Ok(_) => Ok(plan.again),
            Err((_, error)) => Err(error),
        }
    }

    async fn remove_finalizer(&self, pod: &Meta) -> Result<(), ReconcileError> {
        let patch = json!({"metadata": {"uid": pod.uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
        let api = self.pods(&pod.namespace);
        let result = api.patch_metadata(&pod.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        match result {
            // Another pod of the name: ours is gone.
            Err(error) if crate::kit::is_conflict(&error) => Ok(()),
            other => gone_is_fine(other).map_err(ReconcileError::api("remove a pod's tracking finalizer")),
        }
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        job: &Job,
        meta: &Meta,
        status: &JobStatus,
    ) -> Result<(), ReconcileError> {
        let current = job.status.clone().unwrap_or_default();
        let Some(patch) = diff_of(&current, status)? else { return Ok(()) };
        let body = json!({
            "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version.to_string()},
            "status": patch,
        });
        let result = self
            .jobs(&key.namespace)
            .patch_status(&key.name, &PatchParams::default(), &Patch::Merge(body))
            .await;
        match result {
            Ok(written) => {
                let version = written.metadata.resource_version.and_then(|v| v.parse().ok()).unwrap_or(0);
                self.written.lock().insert(key.clone(), version);
                Ok(())
            }
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(ReconcileError::api("write the status")(error)),
        }
    }

    async fn delete_pods(
        &self,
        key: &ObjectKey,
        meta: &Meta,
        pods: &[Arc<PodView>],
    ) -> Result<(), ReconcileError> {
        if pods.is_empty() {
            return Ok(());
        }
        self.expectations.expect_deletions(key, pods.iter().map(|p| &*p.meta.uid));
        let api = self.pods(&key.namespace);
        let results = join_all(pods.iter().map(|pod| async {
            match api.delete(&pod.meta.name, &delete_exactly(&pod.meta.uid)).await {
                Ok(_) => {
                    let text = format!("Deleted pod: {}", pod.meta.name);
                    self.base.recorder.record(
                        reference(API_VERSION, KIND, meta),
                        EventType::Normal,
                        "SuccessfulDelete",
                        text,
                    );
                    Ok(())
                }
                Err(error) => {
                    self.expectations.deleted(key, &pod.meta.uid);
                    if is_not_found(&error) { Ok(()) } else { Err(error) }
                }
            }
        }))
        .await;
        let total = results.len();
        let mut errors: Vec<kube::Error> = results.into_iter().filter_map(Result::err).collect();
        match errors.pop() {
            None => Ok(()),
            Some(error) => {
                Err(ReconcileError::Writes { failed: errors.len() + 1, total, source: Box::new(error) })
            }
        }
    }

    /// How many were made; on an error also why not more.
    async fn create_pods(
        &self,
        key: &ObjectKey,
        job: &Job,
        meta: &Meta,
        wanted: &[Wanted],
    ) -> Result<usize, (usize, ReconcileError)> {
        if wanted.is_empty() {
            return Ok(0);
        }
        self.expectations.expect_creations(key, wanted.len());
        let api = self.pods(&key.namespace);
        let (made, _, error) = slow_start(wanted.len(), |at| {
            let pod = pod(job, meta, wanted[at]);
            let api = &api;
            async move {
                let created = api.create(&PostParams::default(), &pod).await;
                let about = reference(API_VERSION, KIND, meta);
                match &created {
                    Ok(created) => {
                        let name = created.metadata.name.as_deref().unwrap_or_default();
                        self.base.recorder.record(
                            about,
                            EventType::Normal,
                            "SuccessfulCreate",
                            format!("Created pod: {name}"),
                        );
                    }
                    Err(error) if is_namespace_terminating(error) => {}
                    Err(error) => {
                        self.base.recorder.record(
                            about,
                            EventType::Warning,
                            "FailedCreate",
                            format!("Error creating: {}", message(error)),
                        );
                    }
                }
                created
            }
        })
        .await;
        for _ in made..wanted.len() {
            self.expectations.created(key);
        }
        match error {
            None => Ok(made),
            Some(error) if is_namespace_terminating(&error) => Ok(made),
            Some(source) => {
                let failed = wanted.len() - made;
                Err((made, ReconcileError::Writes { failed, total: wanted.len(), source: Box::new(source) }))
            }
        }
    }

    /// A pod that still waits to be counted by a Job that is gone is let go.
    async fn sync_orphan(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(pod) = self.base.shared.pods.get(key) else { return Ok(None) };
        if !pod.meta.has_finalizer(FINALIZER) {
            return Ok(None);
        }
        if let Some(owner) = pod.meta.controller() {
            // Asked of the server: the cache may not have the Job yet.
            match self.jobs(&key.namespace).get_metadata(&owner.name).await {
                Ok(job) if job.metadata.uid.as_deref() == Some(&owner.uid) => return Ok(None),
                Ok(_) => {}
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(ReconcileError::api("read the pod's job")(error)),
            }
        }
        self.remove_finalizer(&pod.meta).await?;
        Ok(None)
    }
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        "job-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        match key.namespace.strip_prefix(ORPHAN) {
            Some(namespace) => self.sync_orphan(&ObjectKey::new(namespace, key.name.clone())).await,
            None => self.sync(key).await,
        }
    }
}
