//! Claims, volumes and their classes of attributes stay while they are in use: their finalizers are put on and taken off
//! (upstream's `pkg/controller/volume/{pvcprotection,pvprotection,vacprotection}`; admission puts them on new objects).

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use keelson_client::ObjectKey;
use keelson_client::projections::{ClaimUse, Meta, PodView, SharedInformers, VolumeView};
use keelson_daemon::Context;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{ReconcileError, gone_is_fine};

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";
const CLASS_FINALIZER: &str = "kubernetes.io/vac-protection";

struct Claims(Base);

/// The controller of claims' finalizers; the future ends with the drain.
pub fn start_claims(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "pvc-protection-controller", shared, ctx);
    let queue = base.queue.clone();
    shared.volume_claims.on_change(move |change| {
        if change.new.as_ref().is_some_and(|claim| next(&claim.meta, CLAIM_FINALIZER) != Next::Nothing) {
            queue.add(change.key.clone());
        }
    });
    let queue = base.queue.clone();
    shared.pods.on_change(move |change| {
        let released = |pod: &PodView| {
            for claim in &pod.claims {
                queue.add(ObjectKey::new(pod.meta.namespace.clone(), claim.name.clone()));
            }
        };
        match (&change.old, &change.new) {
            (Some(old), None) => released(old),
            (old, Some(new)) => {
                // A pod may have been replaced by one of its name.
                if let Some(old) = old.as_ref().filter(|old| old.meta.uid != new.meta.uid) {
                    released(old);
                }
                if new.phase.is_terminal() || new.shut_down || new.node.is_none() {
                    released(new);
                }
            }
            (None, None) => {}
        }
    });
    base.work(Claims, 1, |shared| async move {
        shared.volume_claims.synced().await;
        shared.pods.synced().await;
    })
}

impl Claims {
    /// Whether a pod needs the claim; where the cache knows none the server is asked, for the cache may be behind.
    async fn in_use(&self, claim: &Meta) -> Result<bool, ReconcileError> {
        let known = self.0.shared.pods.list_namespace(&claim.namespace);
        if known.iter().any(|(_, pod)| uses(pod, claim)) {
            return Ok(true);
        }
        let api: Api<Pod> = Api::namespaced(self.0.client.clone(), &claim.namespace);
        let pods = api.list(&ListParams::default()).await;
        let pods = pods.map_err(ReconcileError::api("list the pods that may use a claim"))?;
        Ok(pods.items.iter().any(|pod| uses(&PodView::new(pod), claim)))
    }
}

impl Reconcile for Claims {
    fn name(&self) -> &'static str {
        "pvc-protection-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(claim) = self.0.shared.volume_claims.get(key) else { return Ok(None) };
        let next = next(&claim.meta, CLAIM_FINALIZER);
        if next == Next::Nothing || (next == Next::Remove && self.in_use(&claim.meta).await?) {
            return Ok(None);
        }
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.0.client.clone(), &key.namespace);
        write(&api, &claim.meta, CLAIM_FINALIZER, next).await.map(|()| None)
    }
}

struct Volumes(Base);

/// The controller of volumes' finalizers; the future ends with the drain.
pub fn start_volumes(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "pv-protection-controller", shared, ctx);
    let queue = base.queue.clone();
    shared.volumes.on_change(move |change| {
        if change.new.as_ref().is_some_and(|volume| next(&volume.meta, VOLUME_FINALIZER) != Next::Nothing) {
            queue.add(change.key.clone());
        }
    });
    base.work(Volumes, 1, |shared| async move { shared.volumes.synced().await })
}

impl Reconcile for Volumes {
    fn name(&self) -> &'static str {
        "pv-protection-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(volume) = self.0.shared.volumes.get(key) else { return Ok(None) };
        let next = next(&volume.meta, VOLUME_FINALIZER);
        if next == Next::Nothing || (next == Next::Remove && volume.bound) {
            return Ok(None);
        }
        let api: Api<PersistentVolume> = Api::all(self.0.client.clone());
        write(&api, &volume.meta, VOLUME_FINALIZER, next).await.map(|()| None)
    }
}

struct Classes(Base);

/// The controller of the finalizers of classes of volumes' attributes; the future ends with the drain.
pub fn start_classes(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "vac-protection-controller", shared, ctx);
    let queue = base.queue.clone();
    shared.volume_attributes_classes.on_change(move |change| {
        if change.new.as_ref().is_some_and(|class| next(&class.meta, CLASS_FINALIZER) != Next::Nothing) {
            queue.add(change.key.clone());
        }
    });
    // A class is looked at again when something names it no longer.
    let queue = base.queue.clone();
    shared.volume_claims.on_change(move |change| {
        let now = change.new.as_ref().map_or(&[][..], |claim| &claim.attributes_classes);
        for class in change.old.iter().flat_map(|claim| &claim.attributes_classes) {
            if !now.contains(class) {
                queue.add(ObjectKey::cluster(&**class));
            }
        }
    });
    let queue = base.queue.clone();
    shared.volumes.on_change(move |change| {
        let class = |volume: &Option<std::sync::Arc<VolumeView>>| {
            volume.as_ref().and_then(|volume| volume.attributes_class.clone())
        };
        let (old, new) = (class(&change.old), class(&change.new));
        if let Some(class) = old.filter(|class| new.as_ref() != Some(class)) {
            queue.add(ObjectKey::cluster(&*class));
        }
    });
    base.work(Classes, 1, |shared| async move {
        shared.volume_attributes_classes.synced().await;
        shared.volume_claims.synced().await;
        shared.volumes.synced().await;
    })
}

impl Classes {
    /// As upstream, by what the caches know.
    fn in_use(&self, class: &str) -> bool {
        let claims = self.0.shared.volume_claims.list();
        let volumes = self.0.shared.volumes.list();
        claims.iter().any(|claim| claim.attributes_classes.iter().any(|one| &**one == class))
            || volumes.iter().any(|volume| volume.attributes_class.as_deref() == Some(class))
    }
}

impl Reconcile for Classes {
    fn name(&self) -> &'static str {
        "vac-protection-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(class) = self.0.shared.volume_attributes_classes.get(key) else { return Ok(None) };
        let next = next(&class.meta, CLASS_FINALIZER);
        if next == Next::Nothing || (next == Next::Remove && self.in_use(&key.name)) {
            return Ok(None);
        }
        let api: Api<VolumeAttributesClass> = Api::all(self.0.client.clone());
        write(&api, &class.meta, CLASS_FINALIZER, next).await.map(|()| None)
    }
}

/// What is to be done about an object's finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Nothing,
    Add,
    /// Unless the object is in use.
    Remove,
}

fn next(meta: &Meta, finalizer: &str) -> Next {
    match (meta.deleted.is_some(), meta.has_finalizer(finalizer)) {
        (true, true) => Next::Remove,
        (false, false) => Next::Add,
        _ => Next::Nothing,
    }
}

/// Whether the pod holds the claim: a node may have mounted it. An ephemeral volume's claim is let go with its pod shut down,
/// for the pod's own finalizers may wait for the claim.
fn uses(pod: &PodView, claim: &Meta) -> bool {
    let holds = |volume: &ClaimUse| {
        let controlled = || claim.controller().is_some_and(|owner| owner.uid == pod.meta.uid);
        volume.name == claim.name && (!volume.ephemeral || (!pod.shut_down && controlled()))
    };
    pod.node.is_some() && pod.claims.iter().any(holds)
}

/// Writes the object's finalizers, unless it changed meanwhile.
async fn write<K>(api: &Api<K>, meta: &Meta, finalizer: &str, next: Next) -> Result<(), ReconcileError>
where
    K: kube::Resource + Clone + Debug + DeserializeOwned,
{
    let mut finalizers: Vec<&str> =
        meta.finalizers.iter().map(|one| &**one).filter(|one| *one != finalizer).collect();
    if next == Next::Add {
        finalizers.push(finalizer);
    }
    let version = meta.resource_version.to_string();
    let patch = json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}});
    let written = api.patch_metadata(&meta.name, &PatchParams::default(), &Patch::Merge(patch)).await;
    gone_is_fine(written).map_err(ReconcileError::api("write the finalizers of what is protected"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde_json::Value;

    fn meta(json: Value) -> Meta {
        Meta::new(&serde_json::from_value::<ObjectMeta>(json).unwrap())
    }

    /// The situations of upstream's pvc_protection_controller_test.go.
    #[test]
    fn a_claim_is_in_use_by_scheduled_pods_that_name_it() {
        let check = |pod: Value, claim: Value, expected: bool| {
            let view = PodView::new(&serde_json::from_value(pod.clone()).unwrap());
            assert_eq!(uses(&view, &meta(claim)), expected, "{pod}");
        };
        let claim = || json!({"namespace": "ns", "name": "c"});
        let pod = |node: Value, volume: Value| {
            json!({"metadata": {"namespace": "ns", "name": "p", "uid": "u"},
                "spec": {"containers": [], "nodeName": node, "volumes": [volume]}})
        };
        let named = |name: &str| json!({"name": "v", "persistentVolumeClaim": {"claimName": name}});
        check(pod(json!("n"), named("c")), claim(), true);
        check(pod(json!("n"), named("other")), claim(), false);
        check(pod(Value::Null, named("c")), claim(), false);
        check(pod(json!("n"), json!({"name": "v", "emptyDir": {}})), claim(), false);
        let mut ended = pod(json!("n"), named("c"));
        ended["status"] = json!({"phase": "Failed"});
        check(ended, claim(), true);

        let ephemeral = || json!({"name": "v", "ephemeral": {}});
        let owned = |uid: &str| {
            json!({"namespace": "ns", "name": "p-v", "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}]})
        };
        check(pod(json!("n"), ephemeral()), owned("u"), true);
        check(pod(json!("n"), ephemeral()), owned("other"), false);
        check(pod(json!("n"), ephemeral()), json!({"namespace": "ns", "name": "p-v"}), false);
        let mut shut = pod(json!("n"), ephemeral());
        shut["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        shut["metadata"]["deletionGracePeriodSeconds"] = 0.into();
        check(shut, owned("u"), false);
    }

    #[test]
    fn the_finalizer_comes_with_the_object_and_goes_with_its_end() {
        let check = |json: Value, expected: Next| assert_eq!(next(&meta(json), CLAIM_FINALIZER), expected);
        let deleted = "2026-01-01T00:00:00Z";
        check(json!({}), Next::Add);
        check(json!({"finalizers": [CLAIM_FINALIZER]}), Next::Nothing);
        check(json!({"finalizers": [CLAIM_FINALIZER], "deletionTimestamp": deleted}), Next::Remove);
        check(json!({"finalizers": ["other"], "deletionTimestamp": deleted}), Next::Nothing);
    }
}
