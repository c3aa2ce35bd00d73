//! Deletes finished Jobs whose `ttlSecondsAfterFinished` has passed.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use keelson_client::ObjectKey;
use keelson_client::projections::SharedInformers;
use keelson_daemon::Context;
use kube::Api;
use kube::api::{DeleteParams, Preconditions, PropagationPolicy};

use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{ReconcileError, gone_is_fine, is_not_found};

struct Controller(Base);

/// The controller; the future ends with the drain.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "ttl-after-finished-controller", shared, ctx);
    base.follow(&shared.jobs);
    base.work(Controller, 1, |shared| async move { shared.jobs.synced().await })
}

/// Seconds until the Job expires; `None`: never (yet).
fn expires_in(job: &Job, now: Timestamp) -> Option<i64> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let finished = job
        .status
        .as_ref()?
        .conditions
        .iter()
        .flatten()
        .find(|c| (c.type_ == "Complete" || c.type_ == "Failed") && c.status == "True")?
        .last_transition_time
        .as_ref()?;
    Some(finished.0.as_second() + i64::from(ttl) - now.as_second())
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        "ttl-after-finished-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(packed) = self.0.shared.jobs.get(key) else { return Ok(None) };
        let now = self.0.ctx.clock.now();
        match expires_in(&packed.unpack()?, now) {
            None => return Ok(None),
            Some(left) if left > 0 => return Ok(Some(Duration::from_secs(left.unsigned_abs()))),
            Some(_) => {}
        }
        // The ttl may have been raised since: only the server knows.
        let api: Api<Job> = Api::namespaced(self.0.client.clone(), &key.namespace);
        let fresh = match api.get(&key.name).await {
            Ok(fresh) => fresh,
            Err(error) if is_not_found(&error) => return Ok(None),
            Err(error) => return Err(ReconcileError::api("read the job before deleting it")(error)),
        };
        match expires_in(&fresh, now) {
            None => return Ok(None),
            Some(left) if left > 0 => return Ok(Some(Duration::from_secs(left.unsigned_abs()))),
            Some(_) => {}
        }
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            preconditions: Some(Preconditions {
                uid: fresh.metadata.uid.clone(),
                resource_version: fresh.metadata.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        gone_is_fine(api.delete(&key.name, &params).await)
            .map_err(ReconcileError::api("delete the expired job"))?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_finished_jobs_with_a_ttl_expire() {
        let check = |spec: serde_json::Value, status: serde_json::Value, expected: Option<i64>| {
            let job =
                serde_json::from_value(json!({"metadata": {}, "spec": spec, "status": status})).unwrap();
            assert_eq!(expires_in(&job, "2026-01-01T00:01:00Z".parse().unwrap()), expected);
        };
        let finished = json!({"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:00:30Z"}]});
        let spec = json!({"ttlSecondsAfterFinished": 40, "template": {}});
        check(spec.clone(), finished.clone(), Some(10));
        check(spec, json!({}), None);
        check(json!({"template": {}}), finished, None);
    }
}
