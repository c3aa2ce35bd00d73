//! CertificateSigningRequests: kubelets' are approved ([`approve`]), approved ones are signed ([`sign`]), old ones go
//! ([`clean`]). What a request is and whether a signer takes it is decided in [`rules`], without a client.
//!
//! Upstream approves kubelets' client certificates alone. Here a node's serving certificate is approved too when its
//! names and addresses are those of the Node object, and the certificate of a node's proxy when the node asks for it.

mod approve;
mod clean;
mod rules;
mod sign;

pub use approve::start as start_approver;
pub use clean::start as start_cleaner;
pub use sign::{Signing, start as start_signer};

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use keelson_client::ObjectKey;
use keelson_client::projections::SharedInformers;
use keelson_pki::CsrInfo;

use crate::kit::ReconcileError;

/// The request under the key, as the cache holds it.
fn cached(
    shared: &SharedInformers,
    key: &ObjectKey,
) -> Result<Option<CertificateSigningRequest>, ReconcileError> {
    Ok(shared.certificate_requests.get(key).map(|packed| packed.unpack()).transpose()?)
}

/// What the request asks for; its own signature is checked.
fn parsed(request: &CertificateSigningRequest) -> Result<CsrInfo, ReconcileError> {
    let pem = String::from_utf8_lossy(&request.spec.request.0);
    keelson_pki::parse_csr(&pem)
        .map_err(|error| ReconcileError::Invalid(format!("the certificate request cannot be read: {error}")))
}

/// Whether a condition of this type stands on the request and is true.
fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    let conditions = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == kind && condition.status != "False")
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    let certificate = request.status.as_ref().and_then(|status| status.certificate.as_ref());
    certificate.is_some_and(|certificate| !certificate.0.is_empty())
}
