//! Issuing service-account tokens (the `serviceaccounts/token` subresource).

use super::reads::{ClusterReads, HeadMeta, read};
use super::tokens::{Audience, Bound, Claims, Ref};
use super::{ObjectHead, service_account};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_pki::ServiceAccountKeys;
use serde::Deserialize;

/// The life of a token whose request names none.
const DEFAULT_SECONDS: i64 = 3600;
/// What the service-account admission's projected volumes ask for; such tokens outlive it for clients that read
/// their file only once, and count as stale meanwhile.
const PROJECTED_SECONDS: i64 = 60 * 60 + 7;
/// How long such a token is believed in the end.
const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;
const MIN_SECONDS: i64 = 10 * 60;
const MAX_SECONDS: i64 = 1 << 32;

/// Why no token was issued; texts are upstream's.
#[derive(Debug, thiserror::Error)]
pub enum TokenRequestError {
    #[error("{resource} \"{name}\" not found")]
    NotFound { resource: &'static str, name: String },
    #[error("{message}")]
    BadRequest { message: String },
    /// 422 with one cause.
    #[error("{field}: Invalid value: {value}: {detail}")]
    Invalid { field: &'static str, value: String, detail: &'static str },
    /// 409; `kind` and `name` go into the Status' details.
    #[error("{message}")]
    Conflict { kind: String, name: String, message: String },
    #[error("failed to generate token")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// Signs tokens for one issuer.
pub struct TokenIssuer {
    keys: ServiceAccountKeys,
    issuer: String,
    audiences: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodHead {
    metadata: HeadMeta,
    spec: PodHeadSpec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodHeadSpec {
    service_account_name: String,
    node_name: String,
}

#[derive(Default)]
struct Binding {
    pod: Option<Ref>,
    secret: Option<Ref>,
    node: Option<Ref>,
}

impl TokenIssuer {
    /// Signs as `issuer`; requests that name no audience get `audiences` (the API server's own).
    pub fn new(keys: ServiceAccountKeys, issuer: String, audiences: Vec<String>) -> TokenIssuer {
        TokenIssuer { keys, issuer, audiences }
    }

    /// Answers a TokenRequest for the service account `namespace`/`name`. `jti` is a fresh UUID.
    pub fn create_token(
        &self,
        mut request: TokenRequest,
        namespace: &str,
        name: &str,
        reads: &dyn ClusterReads,
        now: Timestamp,
        jti: String,
    ) -> Result<TokenRequest, TokenRequestError> {
        let account: ObjectHead = read(reads, "", "serviceaccounts", namespace, name).ok_or_else(|| {
            TokenRequestError::NotFound { resource: "serviceaccounts", name: name.to_owned() }
        })?;
        self.complete(&mut request, &account, namespace, name, now)?;
        let requested = request.spec.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
        let binding = match &request.spec.bound_object_ref {
            Some(reference) => bind(reference, namespace, name, reads)?,
            None => Binding::default(),
        };
        let ours = request.spec.audiences.iter().all(|a| self.audiences.contains(a));
        let extend = binding.pod.is_some() && requested == PROJECTED_SECONDS && ours;
        let (life, warnafter) =
            if extend { (EXTENDED_SECONDS, Some(now.as_second() + requested)) } else { (requested, None) };
        let claims = Claims {
            aud: Audience::Many(request.spec.audiences.clone()),
            exp: Some(now.as_second() + life),
            iat: Some(now.as_second()),
            iss: self.issuer.clone(),
            jti,
            kubernetes: Bound {
                namespace: namespace.to_owned(),
                node: binding.node,
                pod: binding.pod,
                secret: binding.secret,
                serviceaccount: Ref { name: name.to_owned(), uid: account.metadata.uid },
                warnafter,
            },
            nbf: Some(now.as_second()),
            sub: service_account::user_name(namespace, name),
        };
        let token = self.keys.sign(&claims).map_err(TokenRequestError::Sign)?;
        let expires = Timestamp::from_second(now.as_second() + requested).unwrap_or(Timestamp::MAX);
        request.status = Some(TokenRequestStatus { token, expiration_timestamp: Time(expires) });
        Ok(request)
    }

    /// Fills in and checks what the request says of itself.
    fn complete(
        &self,
        request: &mut TokenRequest,
        account: &ObjectHead,
        namespace: &str,
        name: &str,
        now: Timestamp,
    ) -> Result<(), TokenRequestError> {
        let invalid = |field, value: &str, detail| {
            Err(TokenRequestError::Invalid { field, value: format!("{value:?}"), detail })
        };
        let meta = &mut request.metadata;
        if let Some(given) = meta.name.as_deref().filter(|n| !n.is_empty() && *n != name) {
            return invalid("metadata.name", given, "must match the service account name if specified");
        }
        if let Some(given) = meta.namespace.as_deref().filter(|n| !n.is_empty() && *n != namespace) {
            return invalid(
                "metadata.namespace",
                given,
                "must match the service account namespace if specified",
            );
        }
        let uid = &account.metadata.uid;
        if let Some(given) = meta.uid.as_deref().filter(|u| !u.is_empty() && u != uid) {
            return Err(TokenRequestError::Conflict {
                kind: "TokenRequest".to_owned(),
                name: name.to_owned(),
                message: format!(
                    "the UID in the token request ({given}) does not match the UID of the service account ({uid})"
                ),
            });
        }
        meta.name = Some(name.to_owned());
        meta.namespace = Some(namespace.to_owned());
        meta.uid = Some(uid.clone());
        meta.creation_timestamp = Timestamp::from_second(now.as_second()).ok().map(Time);
        if request.spec.audiences.is_empty() {
            request.spec.audiences = self.audiences.clone();
        }
        let seconds = *request.spec.expiration_seconds.get_or_insert(DEFAULT_SECONDS);
        let field = "spec.expirationSeconds";
        let wrong = |detail| Err(TokenRequestError::Invalid { field, value: seconds.to_string(), detail });
        match seconds {
            ..MIN_SECONDS => wrong("may not specify a duration less than 10 minutes"),
            s if s > MAX_SECONDS => wrong("may not specify a duration larger than 2^32 seconds"),
            _ => Ok(()),
        }
    }
}

fn bind(
    reference: &BoundObjectReference,
    namespace: &str,
    account: &str,
    reads: &dyn ClusterReads,
) -> Result<Binding, TokenRequestError> {
    let version = reference.api_version.as_deref().unwrap_or_default();
    let kind = reference.kind.as_deref().unwrap_or_default();
    let name = reference.name.as_deref().unwrap_or_default();
    let missing = |resource| TokenRequestError::NotFound { resource, name: name.to_owned() };
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let mut binding = Binding::default();
    let uid = match (group, kind) {
        ("", "Pod") => {
            let pod: PodHead = read(reads, "", "pods", namespace, name).ok_or_else(|| missing("pods"))?;
            if pod.spec.service_account_name != account {
                return Err(TokenRequestError::BadRequest {
                    message: format!(
                        "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                    ),
                });
            }
            if !pod.spec.node_name.is_empty() {
                let node = read::<ObjectHead>(reads, "", "nodes", "", &pod.spec.node_name);
                let uid = node.map(|n| n.metadata.uid).unwrap_or_default();
                binding.node = Some(Ref { name: pod.spec.node_name, uid });
            }
            binding.pod = Some(Ref { name: name.to_owned(), uid: pod.metadata.uid.clone() });
            pod.metadata.uid
        }
        ("", "Node") => {
            let node: ObjectHead = read(reads, "", "nodes", "", name).ok_or_else(|| missing("nodes"))?;
            binding.node = Some(Ref { name: name.to_owned(), uid: node.metadata.uid.clone() });
            node.metadata.uid
        }
        ("", "Secret") => {
            let secret: ObjectHead =
                read(reads, "", "secrets", namespace, name).ok_or_else(|| missing("secrets"))?;
            binding.secret = Some(Ref { name: name.to_owned(), uid: secret.metadata.uid.clone() });
            secret.metadata.uid
        }
        _ => {
            return Err(TokenRequestError::BadRequest {
                message: format!("cannot bind token to object of type {group}/{version}, Kind={kind}"),
            });
        }
    };
    match reference.uid.as_deref() {
        Some(given) if !given.is_empty() && given != uid => Err(TokenRequestError::Conflict {
            kind: kind.to_owned(),
            name: name.to_owned(),
            message: format!(
                "the UID in the bound object reference ({given}) does not match the UID in record. The object might \
                 have been deleted and then recreated"
            ),
        }),
        _ => Ok(binding),
    }
}
