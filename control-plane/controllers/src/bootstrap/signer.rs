//! Signs `kube-public/cluster-info` with every token that may sign, so that a machine that knows one of them can tell
//! the true document from a forged one.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use keelson_client::ObjectKey;
use keelson_client::projections::SharedInformers;
use keelson_daemon::Context;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};

use super::token;
use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{ReconcileError, gone_is_fine};

const NAMESPACE: &str = "kube-public";
const NAME: &str = "cluster-info";
const SIGNATURE: &str = "jws-kubeconfig-";

struct Controller(Base);

/// The bootstrap signer; the future ends with the drain.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "bootstrap-signer", shared, ctx);
    // One key, whatever changed.
    let queue = base.queue.clone();
    shared.bootstrap_tokens.on_change(move |_| queue.add(ObjectKey::new(NAMESPACE, NAME)));
    let queue = base.queue.clone();
    shared.cluster_info.on_change(move |_| queue.add(ObjectKey::new(NAMESPACE, NAME)));
    base.work(Controller, 1, |shared| async move {
        shared.bootstrap_tokens.synced().await;
        shared.cluster_info.synced().await;
    })
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        "bootstrap-signer"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(packed) = self.0.shared.cluster_info.get(key) else { return Ok(None) };
        let map = packed.unpack()?;
        let data = map.data.unwrap_or_default();
        let Some(document) = data.get("kubeconfig") else { return Ok(None) };
        let now = self.0.ctx.clock.now();
        let mut tokens = BTreeMap::new();
        for packed in self.0.shared.bootstrap_tokens.list() {
            tokens.extend(token::for_signing(&packed.unpack()?, now));
        }
        let mut signatures = BTreeMap::new();
        for (id, secret) in tokens {
            let signed = keelson_pki::detached_signature(document, &id, &secret)
                .map_err(|error| ReconcileError::Invalid(format!("cluster-info is not signed: {error}")))?;
            signatures.insert(format!("{SIGNATURE}{id}"), signed);
        }
        let Some(changes) = changes(&data, &signatures) else { return Ok(None) };
        let patch = json!({"metadata": {"resourceVersion": map.metadata.resource_version}, "data": changes});
        let api: Api<ConfigMap> = Api::namespaced(self.0.client.clone(), NAMESPACE);
        gone_is_fine(api.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await)
            .map_err(ReconcileError::api("sign cluster-info"))?;
        Ok(None)
    }
}

/// What of the signatures must be set or removed; `None` when they are right.
fn changes(data: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> Option<Map<String, Value>> {
    let gone = data.keys().filter(|key| key.starts_with(SIGNATURE) && !wanted.contains_key(*key));
    let mut changes: Map<String, Value> = gone.map(|key| (key.clone(), Value::Null)).collect();
    let new = wanted.iter().filter(|(key, text)| data.get(*key) != Some(*text));
    changes.extend(new.map(|(key, text)| (key.clone(), Value::from(text.as_str()))));
    (!changes.is_empty()).then_some(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_come_and_go() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let data = map(&[("kubeconfig", "x"), ("jws-kubeconfig-a", "1"), ("jws-kubeconfig-b", "2")]);
        let wanted = map(&[("jws-kubeconfig-b", "2"), ("jws-kubeconfig-c", "3")]);
        let changed = Value::Object(changes(&data, &wanted).unwrap());
        assert_eq!(changed, json!({"jws-kubeconfig-a": null, "jws-kubeconfig-c": "3"}));
        let same = map(&[("jws-kubeconfig-a", "1"), ("jws-kubeconfig-b", "2")]);
        assert_eq!(changes(&data, &same), None);
    }
}
