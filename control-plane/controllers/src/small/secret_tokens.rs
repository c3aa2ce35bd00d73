//! Tokens of service accounts that live in Secrets (upstream's tokens controller).
//!
//! A Secret of type `kubernetes.io/service-account-token` that names a service account is given the cluster's CA, its namespace and
//! a token without an end; it goes with its account, and an account's list of secrets forgets one that goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_client::ObjectKey;
use keelson_client::projections::SharedInformers;
use keelson_daemon::Context;
use keelson_pki::{SecretTokenClaims, ServiceAccountKeys};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{ReconcileError, gone_is_fine, is_conflict};

/// The service account that a token's Secret is for, and its UID.
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const CA: &str = "ca.crt";
const NAMESPACE: &str = "namespace";
const TOKEN: &str = "token";

struct Controller {
    base: Base,
    keys: ServiceAccountKeys,
    ca: String,
    /// Secrets that went, and the account each was for.
    gone: Arc<Mutex<BTreeMap<ObjectKey, String>>>,
}

/// The tokens controller: signs with `keys` and hands out `ca` (PEM); the future ends with the drain.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
    keys: ServiceAccountKeys,
    ca: String,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "tokens-controller", shared, ctx);
    let gone = Arc::new(Mutex::new(BTreeMap::new()));
    let (queue, went) = (base.queue.clone(), gone.clone());
    shared.account_tokens.on_change(move |change| {
        if change.new.is_none()
            && let Some(secret) = change.old.as_ref().and_then(|packed| packed.unpack().ok())
        {
            went.lock().insert(change.key.clone(), annotation(&secret.metadata, ACCOUNT_NAME).to_owned());
        }
        queue.add(change.key.clone());
    });
    // Of accounts only that they go, or are made anew, matters; tokens are few.
    let (queue, tokens) = (base.queue.clone(), shared.account_tokens.clone());
    shared.service_accounts.on_change(move |change| {
        let same =
            change.old.as_ref().zip(change.new.as_ref()).is_some_and(|(a, b)| a.meta.uid == b.meta.uid);
        if same {
            return;
        }
        for (token, _) in tokens.list_namespace(&change.key.namespace) {
            queue.add(token);
        }
    });
    base.work(
        |base| Controller { base, keys, ca, gone },
        2,
        |shared| async move {
            shared.service_accounts.synced().await;
            shared.account_tokens.synced().await;
        },
    )
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        "tokens-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(packed) = self.base.shared.account_tokens.get(key) else {
            let account = self.gone.lock().get(key).cloned();
            if let Some(account) = account {
                self.forget(key, &account).await?;
                self.gone.lock().remove(key);
            }
            return Ok(None);
        };
        self.gone.lock().remove(key);
        let secret = packed.unpack()?;
        let name = annotation(&secret.metadata, ACCOUNT_NAME);
        if name.is_empty() || secret.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let account = self.account(key, name, annotation(&secret.metadata, ACCOUNT_UID)).await?;
        let api: Api<Secret> = Api::namespaced(self.base.client.clone(), &key.namespace);
        let Some(account) = account else {
            let params = DeleteParams {
                preconditions: Some(Preconditions { uid: secret.metadata.uid, resource_version: None }),
                ..DeleteParams::default()
            };
            return match gone_is_fine(api.delete(&key.name, &params).await) {
                // Another of that name is there by now.
                Err(error) if is_conflict(&error) => Ok(None),
                other => other
                    .map_err(ReconcileError::api("delete the token of a service account that is gone"))
                    .map(|()| None),
            };
        };
        let Some(patch) = self.filled(&secret, &account)? else { return Ok(None) };
        match gone_is_fine(api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await) {
            // Who changed it meanwhile is heard of.
            Err(error) if is_conflict(&error) => Ok(None),
            other => other.map_err(ReconcileError::api("put a token into a secret")).map(|()| None),
        }
    }
}

impl Controller {
    /// The account of that name (and UID, unless it is empty): the live one where the cache has none, for a token goes without it.
    async fn account(
        &self,
        key: &ObjectKey,
        name: &str,
        uid: &str,
    ) -> Result<Option<ObjectMeta>, ReconcileError> {
        let wanted = |found: &str| uid.is_empty() || found == uid;
        let cached = self.base.shared.service_accounts.get(&ObjectKey::new(key.namespace.clone(), name));
        if let Some(account) = cached.filter(|account| wanted(&account.meta.uid)) {
            return Ok(Some(ObjectMeta {
                name: Some(name.to_owned()),
                uid: Some(account.meta.uid.to_string()),
                ..ObjectMeta::default()
            }));
        }
        let api: Api<ServiceAccount> = Api::namespaced(self.base.client.clone(), &key.namespace);
        let live = api.get_opt(name).await.map_err(ReconcileError::api("read a token's service account"))?;
        Ok(live
            .map(|account| account.metadata)
            .filter(|meta| wanted(meta.uid.as_deref().unwrap_or_default())))
    }

    /// What a Secret lacks, as a merge patch; `None` where it lacks nothing, or says that nothing of it may change.
    fn filled(&self, secret: &Secret, account: &ObjectMeta) -> Result<Option<Value>, ReconcileError> {
        let mut data = lacking(secret, &self.ca);
        if data.is_empty() || secret.immutable == Some(true) {
            return Ok(None);
        }
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let meta = &secret.metadata;
        let (namespace, name, uid) = (text(&meta.namespace), text(&account.name), text(&account.uid));
        if let Some(token) = data.get_mut(TOKEN) {
            let claims = SecretTokenClaims::new(&namespace, &name, &uid, &text(&meta.name));
            let signed = self.keys.sign(&claims);
            token.0 = signed
                .map_err(|error| ReconcileError::Invalid(format!("the token cannot be signed: {error}")))?
                .into_bytes();
        }
        Ok(Some(json!({
            "metadata": {
                "uid": meta.uid,
                "resourceVersion": meta.resource_version,
                "annotations": {ACCOUNT_NAME: name, ACCOUNT_UID: uid},
            },
            "data": data,
        })))
    }

    /// Takes a Secret that is gone from its account's list.
    async fn forget(&self, key: &ObjectKey, account: &str) -> Result<(), ReconcileError> {
        let api: Api<ServiceAccount> = Api::namespaced(self.base.client.clone(), &key.namespace);
        if self.base.shared.service_accounts.get(&ObjectKey::new(key.namespace.clone(), account)).is_none() {
            return Ok(());
        }
        let found =
            api.get_opt(account).await.map_err(ReconcileError::api("read a token's service account"))?;
        let Some(found) = found else { return Ok(()) };
        let mut secrets = found.secrets.unwrap_or_default();
        let before = secrets.len();
        secrets.retain(|secret| secret.name.as_deref() != Some(&*key.name));
        if secrets.len() == before {
            return Ok(());
        }
        let patch =
            json!({"metadata": {"resourceVersion": found.metadata.resource_version}, "secrets": secrets});
        gone_is_fine(api.patch(account, &PatchParams::default(), &Patch::Merge(patch)).await)
            .map_err(ReconcileError::api("take a secret from its service account's list"))
    }
}

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> &'a str {
    meta.annotations.as_ref().and_then(|all| all.get(key)).map_or("", String::as_str)
}

/// What must be put into a Secret; the token's place is empty.
fn lacking(secret: &Secret, ca: &str) -> BTreeMap<&'static str, ByteString> {
    let value = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map_or(&[][..], |v| &v.0);
    let mut lacks = BTreeMap::new();
    if !ca.is_empty() && value(CA) != ca.as_bytes() {
        lacks.insert(CA, ByteString(ca.as_bytes().to_vec()));
    }
    if value(NAMESPACE).is_empty() {
        let namespace = secret.metadata.namespace.clone().unwrap_or_default();
        lacks.insert(NAMESPACE, ByteString(namespace.into_bytes()));
    }
    if value(TOKEN).is_empty() {
        lacks.insert(TOKEN, ByteString(Vec::new()));
    }
    lacks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lacks_is_put_in() {
        let check = |data: Value, expected: &[&str]| {
            let secret = json!({"metadata": {"name": "t", "namespace": "team"}, "data": data});
            let secret: Secret = serde_json::from_value(secret).unwrap();
            let lacks: Vec<&str> = lacking(&secret, "pem").into_keys().collect();
            assert_eq!(lacks, expected, "{data}");
        };
        check(json!(null), &["ca.crt", "namespace", "token"]);
        // "pem", "team", "t".
        check(json!({"ca.crt": "cGVt", "namespace": "dGVhbQ==", "token": "dA=="}), &[]);
        check(json!({"ca.crt": "b2xk", "namespace": "dGVhbQ==", "token": "dA=="}), &["ca.crt"]);
        check(json!({"ca.crt": "cGVt", "namespace": "", "token": "dA=="}), &["namespace"]);
        check(json!({"ca.crt": "cGVt", "namespace": "eA==", "token": ""}), &["token"]);
    }
}
