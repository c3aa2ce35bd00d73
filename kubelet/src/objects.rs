//! What pods need from the API beside themselves: ConfigMaps, Secrets, tokens of service accounts.
//!
//! A kubelet may read only what its pods refer to. What was read is kept for about one resync, so that pods that share
//! an object share the call; a pod that starts always reads anew.
use crate::plan::pod;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// The same for objects that say of themselves that they never change.
const IMMUTABLE: Duration = Duration::from_secs(3600);

/// A read from the API that failed.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("{kind} {name:?} cannot be read: this kubelet has no API server")]
    NoApi { kind: &'static str, name: String },
    #[error("cannot read {kind} {namespace}/{name}: {source}")]
    Read { kind: &'static str, namespace: String, name: String, source: Box<kube::Error> },
    #[error("failed to fetch token: {0}")]
    Token(Box<kube::Error>),
    #[error("failed to fetch token: the answer holds none")]
    NoToken,
}

struct Entry<T> {
    until: Instant,
    object: Option<Arc<T>>,
}

type Kept<T> = Mutex<HashMap<(String, String), Entry<T>>>;

#[derive(Clone, Hash, PartialEq, Eq)]
struct TokenKey {
    uid: String,
    account: String,
    audience: String,
    seconds: i64,
}

struct Token {
    text: String,
    renew: Instant,
    ends: Instant,
}

#[derive(Default)]
struct Cache {
    config_maps: Kept<ConfigMap>,
    secrets: Kept<Secret>,
    tokens: Mutex<HashMap<TokenKey, Token>>,
}

/// Reads objects that pods refer to; cheap to clone.
#[derive(Clone)]
pub struct Objects {
    client: Option<kube::Client>,
    /// How long an object that was read counts as current.
    keep: Duration,
    cache: Arc<Cache>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Objects {
    /// `keep`: how long what was read counts as current.
    pub fn new(client: Option<kube::Client>, keep: Duration) -> Self {
        Objects { client, keep, cache: Arc::default() }
    }

    /// For a kubelet that runs static pods only.
    pub fn without_api() -> Self {
        Objects::new(None, Duration::ZERO)
    }

    /// `None`: there is no such ConfigMap.
    pub async fn config_map(
        &self,
        namespace: &str,
        name: &str,
        fresh: bool,
    ) -> Result<Option<Arc<ConfigMap>>, ObjectError> {
        let immutable = |map: &ConfigMap| map.immutable == Some(true);
        self.get("configmap", &self.cache.config_maps, namespace, name, fresh, immutable).await
    }

    /// `None`: there is no such Secret.
    pub async fn secret(&self, namespace: &str, name: &str, fresh: bool) -> Result<Option<Arc<Secret>>, ObjectError> {
        let immutable = |secret: &Secret| secret.immutable == Some(true);
        self.get("secret", &self.cache.secrets, namespace, name, fresh, immutable).await
    }

    async fn get<T>(
        &self,
        kind: &'static str,
        kept: &Kept<T>,
        namespace: &str,
        name: &str,
        fresh: bool,
        immutable: fn(&T) -> bool,
    ) -> Result<Option<Arc<T>>, ObjectError>
    where
        T: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let key = (namespace.to_owned(), name.to_owned());
        let now = Instant::now();
        if !fresh && let Some(entry) = lock(kept).get(&key).filter(|entry| entry.until > now) {
            return Ok(entry.object.clone());
        }
        let client = self.client.clone().ok_or_else(|| ObjectError::NoApi { kind, name: name.to_owned() })?;
        let api: Api<T> = Api::namespaced(client, namespace);
        let object = api.get_opt(name).await.map_err(|source| ObjectError::Read {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            source: Box::new(source),
        })?;
        let object = object.map(Arc::new);
        let keep = if object.as_deref().is_some_and(immutable) { IMMUTABLE } else { self.keep };
        let mut kept = lock(kept);
        kept.retain(|_, entry| entry.until > now);
        kept.insert(key, Entry { until: now + keep, object: object.clone() });
        Ok(object)
    }

    /// A token of the pod's service account, bound to the pod; renewed when 80 % of its life or a day has passed.
    pub async fn token(&self, pod: &Pod, audience: Option<&str>, seconds: i64) -> Result<String, ObjectError> {
        let account = pod::spec(pod).service_account_name.as_deref().unwrap_or("default");
        let audience = audience.unwrap_or("");
        let key = TokenKey {
            uid: pod::uid(pod).to_owned(),
            account: account.to_owned(),
            audience: audience.to_owned(),
            seconds,
        };
        let now = Instant::now();
        if let Some(token) = lock(&self.cache.tokens).get(&key).filter(|token| token.renew > now) {
            return Ok(token.text.clone());
        }
        match self.request_token(pod, account, audience, seconds).await {
            Ok((text, life)) => {
                let renew = now + (life * 4 / 5).min(Duration::from_secs(24 * 3600));
                let mut tokens = lock(&self.cache.tokens);
                tokens.retain(|_, token| token.ends > now);
                tokens.insert(key, Token { text: text.clone(), renew, ends: now + life });
                Ok(text)
            }
            // The old one still holds: a pod does not lose its token because the API server is away.
            Err(error) => match lock(&self.cache.tokens).get(&key).filter(|token| token.ends > now) {
                Some(token) => Ok(token.text.clone()),
                None => Err(error),
            },
        }
    }

    async fn request_token(
        &self,
        pod: &Pod,
        account: &str,
        audience: &str,
        seconds: i64,
    ) -> Result<(String, Duration), ObjectError> {
        let no_api = || ObjectError::NoApi { kind: "serviceaccount token", name: account.to_owned() };
        let client = self.client.clone().ok_or_else(no_api)?;
        let api: Api<ServiceAccount> = Api::namespaced(client, pod::namespace(pod));
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: if audience.is_empty() { vec![] } else { vec![audience.to_owned()] },
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            },
            ..TokenRequest::default()
        };
        let answer = api
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .map_err(|error| ObjectError::Token(Box::new(error)))?;
        let status = answer.status.ok_or(ObjectError::NoToken)?;
        let left = status.expiration_timestamp.0.as_second() - jiff::Timestamp::now().as_second();
        Ok((status.token, Duration::from_secs(u64::try_from(left).unwrap_or(0).max(1))))
    }

    /// Forgets the tokens of a pod that is gone.
    pub fn forget(&self, uid: &str) {
        lock(&self.cache.tokens).retain(|key, _| key.uid != uid);
    }
}
