//! What pods need from the API beside themselves: ConfigMaps, Secrets, tokens of service accounts.
//!
//! A kubelet may read only what its pods refer to. What volumes hold is watched ([`watched`]), so that a change is there
//! within seconds and nothing is asked while nothing changes; a pod that starts always reads anew. Variables of the
//! environment and credentials for images are read when they are used.
mod watched;

use self::watched::{Content, Watched};
use crate::plan::pod;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

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

impl Content for ConfigMap {
    const KIND: &'static str = "configmap";

    fn immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

impl Content for Secret {
    const KIND: &'static str = "secret";

    fn immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

struct Inner {
    client: Option<kube::Client>,
    config_maps: Watched<ConfigMap>,
    secrets: Watched<Secret>,
    tokens: Mutex<HashMap<TokenKey, Token>>,
}

/// Reads objects that pods refer to; cheap to clone.
#[derive(Clone)]
pub struct Objects {
    inner: Arc<Inner>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Objects {
    /// `keep`: how long what was read counts as current before its watch has come about.
    pub fn new(client: Option<kube::Client>, keep: Duration) -> Self {
        Objects {
            inner: Arc::new(Inner {
                config_maps: Watched::new(client.clone(), keep),
                secrets: Watched::new(client.clone(), keep),
                client,
                tokens: Mutex::default(),
            }),
        }
    }

    /// For a kubelet that runs static pods only.
    pub fn without_api() -> Self {
        Objects::new(None, Duration::ZERO)
    }

    /// From now on `wake` is told when an object in the pod's volumes changes, until [`Objects::forget`].
    pub fn refer(&self, pod: &Pod, wake: &Arc<Notify>) {
        let (namespace, uid) = (pod::namespace(pod), pod::uid(pod));
        let volumes = pod::spec(pod).volumes.iter().flatten();
        let mut config_maps: Vec<&str> = Vec::new();
        let mut secrets: Vec<&str> = Vec::new();
        for volume in volumes {
            config_maps.extend(volume.config_map.as_ref().map(|source| source.name.as_str()));
            secrets.extend(volume.secret.as_ref().and_then(|source| source.secret_name.as_deref()));
            for part in volume.projected.iter().flat_map(|source| source.sources.iter().flatten()) {
                config_maps.extend(part.config_map.as_ref().map(|source| source.name.as_str()));
                secrets.extend(part.secret.as_ref().map(|source| source.name.as_str()));
            }
        }
        config_maps.iter().for_each(|name| self.inner.config_maps.refer(namespace, name, uid, wake));
        secrets.iter().for_each(|name| self.inner.secrets.refer(namespace, name, uid, wake));
    }

    /// How many objects are watched.
    pub fn watches(&self) -> usize {
        self.inner.config_maps.watches() + self.inner.secrets.watches()
    }

    /// `None`: there is no such ConfigMap.
    pub async fn config_map(
        &self,
        namespace: &str,
        name: &str,
        fresh: bool,
    ) -> Result<Option<Arc<ConfigMap>>, ObjectError> {
        self.inner.config_maps.get(namespace, name, fresh).await
    }

    /// `None`: there is no such Secret.
    pub async fn secret(
        &self,
        namespace: &str,
        name: &str,
        fresh: bool,
    ) -> Result<Option<Arc<Secret>>, ObjectError> {
        self.inner.secrets.get(namespace, name, fresh).await
    }

    /// A token of the pod's service account, bound to the pod; renewed when 80 % of its life or a day has passed.
    pub async fn token(
        &self,
        pod: &Pod,
        audience: Option<&str>,
        seconds: i64,
    ) -> Result<String, ObjectError> {
        let account = pod::spec(pod).service_account_name.as_deref().unwrap_or("default");
        let audience = audience.unwrap_or("");
        let key = TokenKey {
            uid: pod::uid(pod).to_owned(),
            account: account.to_owned(),
            audience: audience.to_owned(),
            seconds,
        };
        let now = Instant::now();
        if let Some(token) = lock(&self.inner.tokens).get(&key).filter(|token| token.renew > now) {
            return Ok(token.text.clone());
        }
        match self.request_token(pod, account, audience, seconds).await {
            Ok((text, life)) => {
                let renew = now + (life * 4 / 5).min(Duration::from_secs(24 * 3600));
                let mut tokens = lock(&self.inner.tokens);
                tokens.retain(|_, token| token.ends > now);
                tokens.insert(key, Token { text: text.clone(), renew, ends: now + life });
                Ok(text)
            }
            // The old one still holds: a pod does not lose its token because the API server is away.
            Err(error) => match lock(&self.inner.tokens).get(&key).filter(|token| token.ends > now) {
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
        let client = self.inner.client.clone().ok_or_else(no_api)?;
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

    /// Forgets what belonged to a pod that is gone: its tokens, and watches that no other pod needs.
    pub fn forget(&self, uid: &str) {
        self.inner.config_maps.forget(uid);
        self.inner.secrets.forget(uid);
        lock(&self.inner.tokens).retain(|key, _| key.uid != uid);
    }
}
