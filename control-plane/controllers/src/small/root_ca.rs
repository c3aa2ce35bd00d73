//! The API server's CA in a config map `kube-root-ca.crt` of every namespace.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use keelson_client::ObjectKey;
use keelson_client::projections::SharedInformers;
use keelson_daemon::Context;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{ReconcileError, gone_is_fine, is_already_exists, is_namespace_terminating, is_not_found};

const NAME: &str = "kube-root-ca.crt";
const DATA_KEY: &str = "ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

struct Controller {
    base: Base,
    pem: String,
}

/// The root CA publisher; the future ends with the drain.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
    pem: String,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "root-ca-cert-publisher", shared, ctx);
    let queue = base.queue.clone();
    shared.namespaces.on_change(move |change| {
        if change.old.is_none() {
            queue.add(change.key.clone());
        }
    });
    let queue = base.queue.clone();
    shared.root_cas.on_change(move |change| queue.add(ObjectKey::cluster(change.key.namespace.clone())));
    base.work(
        |base| Controller { base, pem },
        1,
        |shared| async move {
            shared.namespaces.synced().await;
            shared.root_cas.synced().await;
        },
    )
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        "root-ca-cert-publisher"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let shared = &self.base.shared;
        let Some(namespace) = shared.namespaces.get(key) else { return Ok(None) };
        if namespace.terminating || namespace.meta.deleted.is_some() {
            return Ok(None);
        }
        let api: Api<ConfigMap> = Api::namespaced(self.base.client.clone(), &key.name);
        let wanted = json!({
            "metadata": {"annotations": {"kubernetes.io/description": DESCRIPTION}},
            "data": {DATA_KEY: self.pem},
        });
        let Some(packed) = shared.root_cas.get(&ObjectKey::new(key.name.clone(), NAME)) else {
            let mut map: ConfigMap = serde_json::from_value(wanted)?;
            map.metadata.name = Some(NAME.to_owned());
            return match api.create(&PostParams::default(), &map).await {
                Ok(_) => Ok(None),
                Err(error)
                    if is_already_exists(&error)
                        || is_namespace_terminating(&error)
                        || is_not_found(&error) =>
                {
                    Ok(None)
                }
                Err(error) => Err(ReconcileError::api("create the root CA's config map")(error)),
            };
        };
        let map = packed.unpack()?;
        let data = map.data.unwrap_or_default();
        let described = map
            .metadata
            .annotations
            .iter()
            .flatten()
            .any(|(k, v)| k == "kubernetes.io/description" && v == DESCRIPTION);
        if data.len() == 1 && data.get(DATA_KEY) == Some(&self.pem) && described {
            return Ok(None);
        }
        let mut patch = wanted;
        for other in data.keys().filter(|k| *k != DATA_KEY) {
            patch["data"][other] = serde_json::Value::Null;
        }
        gone_is_fine(api.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await)
            .map_err(ReconcileError::api("update the root CA's config map"))?;
        Ok(None)
    }
}
