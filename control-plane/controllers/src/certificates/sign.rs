//! Signs approved requests of the cluster's own signers.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use keelson_client::ObjectKey;
use keelson_client::projections::SharedInformers;
use keelson_daemon::Context;
use keelson_pki::{Authority, CertError};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::rules::{self, Request};
use super::{cached, has, is_issued, parsed};
use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{ReconcileError, gone_is_fine};

/// No certificate is issued for less (upstream's floor).
const SHORTEST: Duration = Duration::from_secs(600);

/// What requests are signed with.
#[derive(Clone)]
pub struct Signing {
    pub authority: Arc<Authority>,
    /// The longest life of what is signed, and the life of what asks for none (upstream's
    /// `--cluster-signing-duration`).
    pub life: Duration,
}

impl std::fmt::Debug for Signing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signing").field("life", &self.life).finish_non_exhaustive()
    }
}

struct Controller {
    base: Base,
    signing: Signing,
}

/// The signer; the future ends with the drain.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
    signing: Signing,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "csrsigning", shared, ctx);
    base.follow(&shared.certificate_requests);
    base.work(
        |base| Controller { base, signing },
        1,
        |shared| async move { shared.certificate_requests.synced().await },
    )
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        "csrsigning"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(request) = cached(&self.base.shared, key)? else { return Ok(None) };
        let approved = has(&request, "Approved") && !has(&request, "Denied");
        if !approved || is_issued(&request) || has(&request, "Failed") {
            return Ok(None);
        }
        let csr = parsed(&request)?;
        let usages = request.spec.usages.clone().unwrap_or_default();
        let username = request.spec.username.as_deref().unwrap_or_default();
        let view = Request { signer: &request.spec.signer_name, username, usages: &usages, csr: &csr };
        let status = match rules::signer_takes(view) {
            // Somebody else's signer.
            None => return Ok(None),
            Some(Err(why)) => failed(&request, &why),
            Some(Ok(usages)) => {
                let life = life(request.spec.expiration_seconds, self.signing.life);
                let now = self.base.ctx.clock.now();
                match self.signing.authority.sign_csr(&csr, &usages, now, life) {
                    Ok(pem) => json!({"certificate": STANDARD.encode(pem)}),
                    // What is asked for cannot be had, now or later.
                    Err(error @ (CertError::Subject | CertError::Names | CertError::Organizations(_))) => {
                        failed(&request, &error.to_string())
                    }
                    Err(error) => return Err(ReconcileError::Invalid(format!("not signed: {error}"))),
                }
            }
        };
        let patch =
            json!({"metadata": {"resourceVersion": request.metadata.resource_version}, "status": status});
        let api: Api<CertificateSigningRequest> = Api::all(self.base.client.clone());
        gone_is_fine(api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)
            .map_err(ReconcileError::api("write a certificate request's status"))?;
        Ok(None)
    }
}

/// The status of a request that this signer will never take.
fn failed(request: &CertificateSigningRequest, why: &str) -> Value {
    let mut conditions: Vec<Value> =
        request.status.iter().flat_map(|s| s.conditions.iter().flatten()).map(|c| json!(c)).collect();
    conditions.push(
        json!({"type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": why}),
    );
    json!({"conditions": conditions})
}

/// The life asked for, within upstream's bounds.
fn life(asked: Option<i32>, longest: Duration) -> Duration {
    match asked.and_then(|seconds| u64::try_from(seconds).ok()) {
        Some(seconds) => Duration::from_secs(seconds).max(SHORTEST).min(longest),
        None => longest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_bounded() {
        let year = Duration::from_secs(365 * 86_400);
        assert_eq!(life(None, year), year);
        assert_eq!(life(Some(60), year), SHORTEST);
        assert_eq!(life(Some(3600), year), Duration::from_secs(3600));
        assert_eq!(life(Some(i32::MAX), year), year);
        assert_eq!(life(Some(-1), year), year);
    }
}
