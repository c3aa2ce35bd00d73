//! CertificateApproval, CertificateSigning, CertificateSubjectRestriction: who may approve and sign for which signer, and
//! that nobody gets into system:masters by a request.

use super::{Admission, AdmissionAttributes, Operation};
use crate::authz::{Attributes, Authorizer};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keelson_api::doc::Doc;
use keelson_api::f::certificates_v1 as cert;
use keelson_api::field_errors::quoted;
use keelson_api::status::Status;
use keelson_base::consts::identity;
use std::sync::Arc;

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";
const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";

fn signer(csr: &Doc) -> &str {
    let spec = cert::certificate_signing_request::SPEC;
    csr.str(&[spec, cert::certificate_signing_request_spec::SIGNER_NAME])
}

/// Whether the user may use `verb` on the signer, by its name or by its domain's `/*`.
fn may(authorizer: &dyn Authorizer, a: &AdmissionAttributes<'_>, verb: &str, signer: &str) -> bool {
    let asks = |name: String| {
        let attributes = Attributes {
            user: a.user.clone(),
            verb: verb.to_owned(),
            api_group: GROUP.to_owned(),
            api_version: "*".to_owned(),
            resource: "signers".to_owned(),
            name,
            is_resource: true,
            ..Attributes::default()
        };
        authorizer.authorize(&attributes).allowed()
    };
    let domain = signer.split('/').next().unwrap_or_default();
    asks(signer.to_owned()) || asks(format!("{domain}/*"))
}

pub(super) struct CertificateApproval {
    authorizer: Arc<dyn Authorizer>,
}

impl CertificateApproval {
    pub(super) fn new(authorizer: Arc<dyn Authorizer>) -> CertificateApproval {
        CertificateApproval { authorizer }
    }
}

impl Admission for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn validate(
        &self,
        _object: Option<&Doc>,
        old: Option<&Doc>,
        a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        // The old object decides: the new one could name another signer.
        let Some(old) = old.filter(|_| a.is(GROUP, REQUESTS) && a.subresource == "approval") else {
            return Ok(());
        };
        let signer = signer(old);
        if a.operation != Operation::Update || may(self.authorizer.as_ref(), a, "approve", signer) {
            return Ok(());
        }
        let why = format!("user not permitted to approve requests with signerName {}", quoted(signer));
        Err(a.forbidden(Some(old), why))
    }
}

pub(super) struct CertificateSigning {
    authorizer: Arc<dyn Authorizer>,
}

impl CertificateSigning {
    pub(super) fn new(authorizer: Arc<dyn Authorizer>) -> CertificateSigning {
        CertificateSigning { authorizer }
    }
}

impl Admission for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn validate(
        &self,
        object: Option<&Doc>,
        old: Option<&Doc>,
        a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        let (Some(new), Some(old)) = (object, old) else { return Ok(()) };
        if !a.is(GROUP, REQUESTS) || a.subresource != "status" || a.operation != Operation::Update {
            return Ok(());
        }
        use cert::certificate_signing_request_status as s;
        let status = cert::certificate_signing_request::STATUS;
        let differs = |field| {
            let value = |doc: &Doc| doc.get(&[status, field]).filter(|v| !v.is_go_empty()).cloned();
            value(new) != value(old)
        };
        let signer = signer(old);
        if !(differs(s::CERTIFICATE) || differs(s::CONDITIONS))
            || may(self.authorizer.as_ref(), a, "sign", signer)
        {
            return Ok(());
        }
        let why = format!("user not permitted to sign requests with signerName {}", quoted(signer));
        Err(a.forbidden(Some(old), why))
    }
}

pub(super) struct CertificateSubjectRestriction;

impl Admission for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn validate(
        &self,
        object: Option<&Doc>,
        _old: Option<&Doc>,
        a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        let Some(csr) = object.filter(|_| a.is_main(GROUP, REQUESTS)) else { return Ok(()) };
        if a.operation != Operation::Create || signer(csr) != API_CLIENT {
            return Ok(());
        }
        let spec = cert::certificate_signing_request::SPEC;
        let request = csr.str(&[spec, cert::certificate_signing_request_spec::REQUEST]);
        let pem =
            STANDARD.decode(request).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        match keelson_pki::parse_csr(&pem) {
            Ok(parsed) if parsed.organizations.iter().any(|group| group == identity::MASTERS) => {
                let why = format!("use of {API_CLIENT} signer with system:masters group is not allowed");
                Err(a.forbidden(Some(csr), why))
            }
            Ok(_) => Ok(()),
            Err(e) => Err(a.forbidden(Some(csr), format!("failed to parse CSR: {e}"))),
        }
    }
}

#[cfg(test)]
#[path = "certificates_tests.rs"]
mod tests;
