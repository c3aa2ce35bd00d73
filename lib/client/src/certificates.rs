//! Asks the cluster for a certificate: a key made here, a CertificateSigningRequest, and the wait for its certificate.

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_pki::{CertError, Profile};
use kube::Api;
use kube::api::PostParams;
use std::time::Duration;

/// First and last wait between two looks at the request.
const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// What is asked for.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    /// `kubernetes.io/kube-apiserver-client-kubelet`, say.
    pub signer: &'static str,
    pub profile: Profile,
    /// `client auth` or `server auth`.
    pub purpose: &'static str,
    /// The life asked for; the signer's own when `None`.
    pub life: Option<Duration>,
}

/// A certificate with its key, as PEM texts.
#[derive(Clone)]
pub struct Issued {
    pub cert_pem: String,
    pub key_pem: String,
}

/// Why no certificate was had.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("the certificate request cannot be made")]
    Make(#[from] CertError),
    #[error("the API server refused the certificate request")]
    Create(#[source] Box<kube::Error>),
    #[error("the certificate request {name} cannot be read")]
    Read { name: String, source: Box<kube::Error> },
    #[error("the certificate request {name} was {verdict}: {message}")]
    Refused { name: String, verdict: &'static str, message: String },
    #[error(
        "the certificate request {name} was not answered within {} s; look at it with `kubectl describe csr {name}`, \
         approve it with `kubectl certificate approve {name}`", limit.as_secs()
    )]
    TooLate { name: String, limit: Duration },
}

/// Asks, and waits for the certificate at most `limit`.
pub async fn request_certificate(
    client: &kube::Client,
    wanted: &CertificateRequest,
    limit: Duration,
) -> Result<Issued, RequestError> {
    let (request, key_pem) = keelson_pki::make_request(&wanted.profile)?;
    let usages = ["digital signature", "key encipherment", wanted.purpose];
    let object = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("csr-".into()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.into_bytes()),
            signer_name: wanted.signer.to_owned(),
            usages: Some(usages.map(str::to_owned).into()),
            expiration_seconds: wanted.life.and_then(|life| i32::try_from(life.as_secs()).ok()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let made = api
        .create(&PostParams::default(), &object)
        .await
        .map_err(|error| RequestError::Create(Box::new(error)))?;
    let name = made.metadata.name.unwrap_or_default();
    let waited = tokio::time::timeout(limit, certificate(&api, &name)).await;
    let cert_pem = waited.unwrap_or(Err(RequestError::TooLate { name, limit }))?;
    Ok(Issued { cert_pem, key_pem })
}

async fn certificate(api: &Api<CertificateSigningRequest>, name: &str) -> Result<String, RequestError> {
    let mut wait = LOOKS.0;
    loop {
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LOOKS.1);
        let read = |error| RequestError::Read { name: name.to_owned(), source: Box::new(error) };
        let status = api.get(name).await.map_err(read)?.status.unwrap_or_default();
        for condition in status.conditions.into_iter().flatten() {
            let verdict = match condition.type_.as_str() {
                "Denied" => "denied",
                "Failed" => "not signed",
                _ => continue,
            };
            let message = condition.message.unwrap_or_default();
            return Err(RequestError::Refused { name: name.to_owned(), verdict, message });
        }
        if let Some(certificate) = status.certificate.filter(|bytes| !bytes.0.is_empty()) {
            return Ok(String::from_utf8_lossy(&certificate.0).into_owned());
        }
    }
}
