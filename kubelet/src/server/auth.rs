//! Who asks, and whether they may: certificates are read here, tokens and permissions are the API server's to judge.
use http::{HeaderMap, Method};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

const ALLOWED: Duration = Duration::from_secs(300);
const DENIED: Duration = Duration::from_secs(30);
const TOKEN: Duration = Duration::from_secs(10);
const MAX_KEPT: usize = 1000;

/// An authenticated client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    pub user: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// Common name and organisations of a certificate whose chain was verified by the handshake.
    pub fn of_certificate(der: &CertificateDer<'_>) -> Option<Identity> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            attribute.as_str().ok().map(str::to_owned)
        };
        let user = certificate.subject().iter_common_name().next().and_then(text)?;
        if user.is_empty() {
            return None;
        }
        let mut groups: Vec<String> = certificate.subject().iter_organization().filter_map(text).collect();
        groups.push(keelson_base::consts::identity::AUTHENTICATED.to_owned());
        Some(Identity { user, groups, ..Identity::default() })
    }
}

/// What is asked for, as upstream's kubelet maps requests to node subresources.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    pub verb: &'static str,
    /// Any of these being allowed is enough, tried in order.
    pub subresources: Vec<&'static str>,
}

impl Attributes {
    pub fn of(method: &Method, path: &str) -> Attributes {
        let below = |prefix: &str| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        // Running something in a container is a creation however the client dresses it: a WebSocket begins with GET.
        let runs = ["/exec", "/attach", "/portForward", "/run"].iter().any(|prefix| below(prefix));
        let verb = match *method {
            _ if runs => "create",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "get",
        };
        let subresources = if below("/stats") {
            vec!["stats"]
        } else if below("/metrics") {
            vec!["metrics"]
        } else if below("/logs") {
            vec!["log"]
        } else if below("/pods") || below("/runningpods") {
            vec!["pods", "proxy"]
        } else if below("/healthz") {
            vec!["healthz", "proxy"]
        } else if below("/configz") {
            vec!["configz", "proxy"]
        } else {
            vec!["proxy"]
        };
        Attributes { verb, subresources }
    }
}

/// A judgement that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("this kubelet has no API server to ask")]
    NoApi,
    #[error("the API server was not asked: {0}")]
    Api(Box<kube::Error>),
}

/// An answer that may have to be fetched.
pub type Judgement<'a, T> = Pin<Box<dyn Future<Output = Result<T, AccessError>> + Send + 'a>>;

/// Who may do what.
pub trait Access: Send + Sync {
    /// The client's identity; `None` refuses.
    fn authenticate<'a>(
        &'a self,
        certificate: Option<Identity>,
        headers: &'a HeaderMap,
    ) -> Judgement<'a, Option<Identity>>;

    fn authorize<'a>(
        &'a self,
        identity: &'a Identity,
        attributes: &'a Attributes,
        node: &'a str,
    ) -> Judgement<'a, bool>;
}

/// Lets nobody in: for a kubelet without an API server.
pub struct NoAccess;

impl Access for NoAccess {
    fn authenticate<'a>(
        &'a self,
        certificate: Option<Identity>,
        _: &'a HeaderMap,
    ) -> Judgement<'a, Option<Identity>> {
        Box::pin(async move { Ok(certificate) })
    }

    fn authorize<'a>(&'a self, _: &'a Identity, _: &'a Attributes, _: &'a str) -> Judgement<'a, bool> {
        Box::pin(async { Err(AccessError::NoApi) })
    }
}

/// By hash of the token.
type Tokens = HashMap<[u8; 32], (Option<Identity>, Instant)>;
type Verdicts = HashMap<(Identity, &'static str, &'static str), (bool, Instant)>;

/// Asks the API server, and keeps its answers for a while.
pub struct ApiAccess {
    client: kube::Client,
    tokens: Mutex<Tokens>,
    verdicts: Mutex<Verdicts>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl ApiAccess {
    pub fn new(client: kube::Client) -> Self {
        ApiAccess { client, tokens: Mutex::default(), verdicts: Mutex::default() }
    }

    async fn token(&self, token: &str) -> Result<Option<Identity>, AccessError> {
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let now = Instant::now();
        if let Some((identity, _)) = lock(&self.tokens).get(&key).filter(|(_, until)| *until > now) {
            return Ok(identity.clone());
        }
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), audiences: None },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let answer =
            api.create(&PostParams::default(), &review).await.map_err(|e| AccessError::Api(Box::new(e)))?;
        let status = answer.status.unwrap_or_default();
        let identity = status.user.filter(|_| status.authenticated == Some(true)).map(|user| Identity {
            user: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        });
        let mut tokens = lock(&self.tokens);
        if tokens.len() >= MAX_KEPT {
            tokens.retain(|_, (_, until)| *until > now);
        }
        if tokens.len() < MAX_KEPT {
            tokens.insert(key, (identity.clone(), now + TOKEN));
        }
        Ok(identity)
    }

    async fn allowed(
        &self,
        identity: &Identity,
        verb: &'static str,
        subresource: &'static str,
        node: &str,
    ) -> Result<bool, AccessError> {
        let key = (identity.clone(), verb, subresource);
        let now = Instant::now();
        if let Some((allowed, _)) = lock(&self.verdicts).get(&key).filter(|(_, until)| *until > now) {
            return Ok(*allowed);
        }
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(identity.user.clone()),
                uid: (!identity.uid.is_empty()).then(|| identity.uid.clone()),
                groups: Some(identity.groups.clone()),
                extra: (!identity.extra.is_empty()).then(|| identity.extra.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.into()),
                    group: Some(String::new()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some(subresource.into()),
                    name: Some(node.to_owned()),
                    ..ResourceAttributes::default()
                }),
                non_resource_attributes: None,
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer =
            api.create(&PostParams::default(), &review).await.map_err(|e| AccessError::Api(Box::new(e)))?;
        let allowed = answer.status.is_some_and(|status| status.allowed && status.denied != Some(true));
        let keep = if allowed { ALLOWED } else { DENIED };
        let mut verdicts = lock(&self.verdicts);
        if verdicts.len() >= MAX_KEPT {
            verdicts.retain(|_, (_, until)| *until > now);
        }
        if verdicts.len() < MAX_KEPT {
            verdicts.insert(key, (allowed, now + keep));
        }
        Ok(allowed)
    }
}

impl Access for ApiAccess {
    fn authenticate<'a>(
        &'a self,
        certificate: Option<Identity>,
        headers: &'a HeaderMap,
    ) -> Judgement<'a, Option<Identity>> {
        Box::pin(async move {
            if certificate.is_some() {
                return Ok(certificate);
            }
            let bearer = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
            match bearer
                .and_then(|value| value.strip_prefix("Bearer "))
                .map(str::trim)
                .filter(|t| !t.is_empty())
            {
                Some(token) => self.token(token).await,
                None => Ok(None),
            }
        })
    }

    fn authorize<'a>(
        &'a self,
        identity: &'a Identity,
        attributes: &'a Attributes,
        node: &'a str,
    ) -> Judgement<'a, bool> {
        Box::pin(async move {
            for subresource in &attributes.subresources {
                if self.allowed(identity, attributes.verb, subresource, node).await? {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_map_to_node_subresources() {
        let of = |method: Method, path: &str| {
            let a = Attributes::of(&method, path);
            format!("{} {}", a.verb, a.subresources.join(","))
        };
        assert_eq!(
            of(Method::GET, "/exec/ns/p/c"),
            "create proxy",
            "a WebSocket's GET runs a command all the same"
        );
        assert_eq!(of(Method::POST, "/portForward/ns/p"), "create proxy");
        assert_eq!(of(Method::GET, "/containerLogs/ns/p/c"), "get proxy");
        assert_eq!(of(Method::GET, "/metrics/resource"), "get metrics");
        assert_eq!(of(Method::GET, "/stats/summary"), "get stats");
        assert_eq!(of(Method::GET, "/pods"), "get pods,proxy");
        assert_eq!(of(Method::GET, "/podsx"), "get proxy");
        assert_eq!(of(Method::DELETE, "/x"), "delete proxy");
    }
}
