//! Deletes bootstrap tokens that have expired.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use keelson_client::ObjectKey;
use keelson_client::projections::SharedInformers;
use keelson_daemon::Context;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::token;
use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{ReconcileError, gone_is_fine, is_conflict};

/// A far deadline is looked at again after this long: the clock may have been corrected meanwhile.
const LONGEST: i64 = 3600;

struct Controller(Base);

/// The token cleaner; the future ends with the drain.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "token-cleaner", shared, ctx);
    base.follow(&shared.bootstrap_tokens);
    base.work(Controller, 1, |shared| async move { shared.bootstrap_tokens.synced().await })
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        "token-cleaner"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(packed) = self.0.shared.bootstrap_tokens.get(key) else { return Ok(None) };
        let secret = packed.unpack()?;
        let Some(end) = token::expiration(&secret) else { return Ok(None) };
        let left = end.as_second().saturating_sub(self.0.ctx.clock.now().as_second());
        if left > 0 {
            return Ok(Some(Duration::from_secs(left.min(LONGEST).unsigned_abs())));
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: secret.metadata.uid, resource_version: None }),
            ..DeleteParams::default()
        };
        let api: Api<Secret> = Api::namespaced(self.0.client.clone(), &key.namespace);
        match gone_is_fine(api.delete(&key.name, &params).await) {
            Err(error) if is_conflict(&error) => Ok(None),
            other => other.map_err(ReconcileError::api("delete an expired bootstrap token")).map(|()| None),
        }
    }
}
