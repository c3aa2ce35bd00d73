//! Feeds CronJobs and their Jobs to the plan and carries it out.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use keelson_client::projections::{HasMeta, SharedInformers};
use keelson_client::{EventType, ObjectKey};
use keelson_daemon::Context;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams, PropagationPolicy};
use serde_json::json;

use super::plan::plan;
use crate::kit::patch::diff_of;
use crate::kit::pods::delete_exactly;
use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{
    ReconcileError, gone_is_fine, is_already_exists, is_namespace_terminating, message, reference,
};

struct Controller(Base);

/// The CronJob controller; the future ends with the drain.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "cronjob-controller", shared, ctx);
    let queue = base.queue.clone();
    shared.cron_jobs.on_change(move |change| queue.add(change.key.clone()));
    let queue = base.queue.clone();
    shared.jobs.on_change(move |change| {
        for job in change.old.iter().chain(&change.new) {
            if let Some(owner) = job.meta().controller().filter(|o| &*o.kind == "CronJob") {
                queue.add(ObjectKey::new(change.key.namespace.clone(), owner.name.clone()));
            }
        }
    });
    let controller = Arc::new(Controller(base.clone()));
    async move {
        let shared = base.shared.clone();
        let synced = async move {
            shared.cron_jobs.synced().await;
            shared.jobs.synced().await;
        };
        base.run(controller, 5, synced).await;
    }
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        "cronjob-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let base = &self.0;
        let Some(packed) = base.shared.cron_jobs.get(key) else { return Ok(None) };
        let cron = packed.unpack()?;
        let meta = packed.meta();
        let jobs: Result<Vec<Job>, _> = base
            .shared
            .jobs
            .list_namespace(&key.namespace)
            .iter()
            .filter(|(_, job)| job.meta().controller().is_some_and(|o| o.uid == meta.uid))
            .map(|(_, job)| job.unpack())
            .collect();
        let plan = plan(&cron, &jobs?, base.ctx.clock.now());
        let about = || reference("batch/v1", "CronJob", meta);
        for (warning, reason, text) in plan.events {
            base.recorder.record(
                about(),
                if warning { EventType::Warning } else { EventType::Normal },
                reason,
                text,
            );
        }
        let api: Api<Job> = Api::namespaced(base.client.clone(), &key.namespace);
        for (name, uid) in plan.delete {
            let mut params = delete_exactly(&uid);
            params.propagation_policy = Some(PropagationPolicy::Background);
            gone_is_fine(api.delete(&name, &params).await).map_err(ReconcileError::api("delete a job"))?;
            base.recorder.record(
                about(),
                EventType::Normal,
                "SuccessfulDelete",
                format!("Deleted job {name}"),
            );
        }
        if let Some(job) = plan.create {
            let name = job.metadata.name.clone().unwrap_or_default();
            match api.create(&PostParams::default(), &job).await {
                Ok(_) => base.recorder.record(
                    about(),
                    EventType::Normal,
                    "SuccessfulCreate",
                    format!("Created job {name}"),
                ),
                // Made before, and the status was not written: it is now.
                Err(error) if is_already_exists(&error) => {}
                Err(error) if is_namespace_terminating(&error) => return Ok(None),
                Err(error) => {
                    let text = format!("Error creating job: {}", message(&error));
                    base.recorder.record(about(), EventType::Warning, "FailedCreate", text);
                    return Err(ReconcileError::api("create a job")(error));
                }
            }
        }
        let current = cron.status.clone().unwrap_or_default();
        if let Some(patch) = diff_of(&current, &plan.status)? {
            let api: Api<CronJob> = Api::namespaced(base.client.clone(), &key.namespace);
            let body = json!({
                "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version.to_string()}, "status": patch});
            gone_is_fine(api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(body)).await)
                .map_err(ReconcileError::api("write the status"))?;
        }
        Ok(plan.again)
    }
}
