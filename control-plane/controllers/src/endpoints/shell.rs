//! Feeds services, pods, nodes and Endpoints to the plans and carries them out.

use std::sync::Arc;
use std::time::Duration;

use ahash::{AHashMap, AHashSet};
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use keelson_client::projections::{HasMeta, PodView, Selector, SharedInformers};
use keelson_client::{ObjectKey, WorkQueue};
use keelson_daemon::Context;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use parking_lot::{Mutex, RwLock};
use serde_json::json;

use super::slices::{Ownership, SlicePlan, plan as plan_slices};
use super::{desired, legacy, mirror};
use crate::kit::pods::delete_exactly;
use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{ReconcileError, gone_is_fine, is_already_exists, is_namespace_terminating};

const MANAGED_BY: &str = "endpointslice-controller.k8s.io";
const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Most endpoints in a slice (`max-endpoints-per-slice`).
const MOST: usize = 100;
/// Pods often change several at once: a service is worked on when they have settled for this long.
const BATCH: Duration = Duration::from_millis(20);
const WORKERS: usize = 5;

type Selectors = Arc<RwLock<AHashMap<ObjectKey, Selector>>>;

/// Whether what endpoints show of a pod changed.
fn matters(old: &PodView, new: &PodView) -> bool {
    old.ips != new.ips
        || old.ready != new.ready
        || old.node != new.node
        || old.meta.labels != new.meta.labels
        || old.meta.deleted.is_some() != new.meta.deleted.is_some()
        || old.phase.is_terminal() != new.phase.is_terminal()
        || old.hostname != new.hostname
        || old.subdomain != new.subdomain
        || old.named_ports != new.named_ports
}

/// Queues services when they or their pods change.
fn watch_services(shared: &SharedInformers, queue: &WorkQueue<ObjectKey>) -> Selectors {
    let selectors = Selectors::default();
    let (by_key, services) = (selectors.clone(), queue.clone());
    shared.services.on_change(move |change| {
        let spec = change.new.as_ref().and_then(|s| s.unpack().ok()?.spec);
        match spec.and_then(|s| s.selector).filter(|s| !s.is_empty()) {
            Some(selector) => drop(by_key.write().insert(change.key.clone(), Selector::from_map(&selector))),
            None => drop(by_key.write().remove(&change.key)),
        }
        services.add(change.key.clone());
    });
    let (by_key, pods) = (selectors.clone(), queue.clone());
    shared.pods.on_change(move |change| {
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && !matters(old, new)
        {
            return;
        }
        // A pod that never had an address is in no endpoints.
        let unseen = |p: &Option<Arc<PodView>>| p.as_ref().is_none_or(|p| p.ips.is_empty());
        if unseen(&change.old) && unseen(&change.new) {
            return;
        }
        for (key, selector) in by_key.read().iter().filter(|(key, _)| key.namespace == change.key.namespace) {
            let selects =
                |p: &Option<Arc<PodView>>| p.as_ref().is_some_and(|p| selector.matches(&p.meta.labels));
            if selects(&change.old) || selects(&change.new) {
                pods.add_after(key.clone(), BATCH);
            }
        }
    });
    selectors
}

fn pods_of(shared: &SharedInformers, key: &ObjectKey, selector: &Selector) -> Vec<Arc<PodView>> {
    shared
        .pods
        .list_namespace(&key.namespace)
        .into_iter()
        .map(|(_, pod)| pod)
        .filter(|pod| selector.matches(&pod.meta.labels))
        .collect()
}

fn is_external_name(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.type_.as_deref()) == Some("ExternalName")
}

struct EndpointsController {
    base: Base,
    selectors: Selectors,
}

/// The Endpoints controller; the future ends with the drain.
pub fn start_endpoints(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "endpoint-controller", shared, ctx);
    let selectors = watch_services(shared, &base.queue);
    let queue = base.queue.clone();
    // Deleted or changed by hand: made again.
    shared.endpoints.on_change(move |change| {
        if change.old.is_some() {
            queue.add(change.key.clone());
        }
    });
    let controller = Arc::new(EndpointsController { base: base.clone(), selectors });
    async move {
        let shared = base.shared.clone();
        let synced = async move {
            shared.services.synced().await;
            shared.pods.synced().await;
            shared.endpoints.synced().await;
        };
        base.run(controller, WORKERS, synced).await;
    }
}

impl Reconcile for EndpointsController {
    fn name(&self) -> &'static str {
        "endpoint-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let shared = &self.base.shared;
        let api: Api<Endpoints> = Api::namespaced(self.base.client.clone(), &key.namespace);
        let standing = shared.endpoints.get(key);
        let Some(packed) = shared.services.get(key) else {
            // Only what this controller made goes with the service; Endpoints used otherwise stay.
            let Some(standing) = standing else { return Ok(None) };
            let ours = standing.meta().labels.get("endpoints.kubernetes.io/managed-by")
                == Some("endpoint-controller");
            if ours {
                gone_is_fine(api.delete(&key.name, &delete_exactly(&standing.meta().uid)).await)
                    .map_err(ReconcileError::api("delete the endpoints of a deleted service"))?;
            }
            return Ok(None);
        };
        let service = packed.unpack()?;
        let selector = self.selectors.read().get(key).cloned();
        let Some(selector) = selector.filter(|_| !is_external_name(&service)) else { return Ok(None) };
        let wanted = legacy::of_service(&service, &pods_of(shared, key, &selector));
        let Some(standing) = standing else {
            return match api.create(&PostParams::default(), &wanted).await {
                Ok(_) => Ok(None),
                Err(error) if is_already_exists(&error) => Err(ReconcileError::Stale("the endpoints exist")),
                Err(error) if is_namespace_terminating(&error) => Ok(None),
                Err(error) => Err(ReconcileError::api("create the endpoints")(error)),
            };
        };
        let current = standing.unpack()?;
        if legacy::is_current(&current, &wanted) {
            return Ok(None);
        }
        let patch = json!({
            "metadata": {
                "uid": current.metadata.uid, "resourceVersion": current.metadata.resource_version,
                "labels": replaced(&current.metadata.labels, &wanted.metadata.labels),
                "annotations": {"endpoints.kubernetes.io/over-capacity":
                    wanted.metadata.annotations.as_ref().map(|_| "truncated")},
            },
            "subsets": wanted.subsets,
        });
        gone_is_fine(api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)
            .map_err(ReconcileError::api("update the endpoints"))?;
        Ok(None)
    }
}

type Map = std::collections::BTreeMap<String, String>;

/// A merge patch that replaces a map: what is not wanted is null.
fn replaced(current: &Option<Map>, wanted: &Option<Map>) -> serde_json::Value {
    let mut patch = json!(wanted.clone().unwrap_or_default());
    for key in current.iter().flatten().map(|(k, _)| k) {
        if !wanted.as_ref().is_some_and(|w| w.contains_key(key)) {
            patch[key] = serde_json::Value::Null;
        }
    }
    patch
}

/// Slices that were made and are not in the cache yet: acting before they are would make them twice.
#[derive(Default)]
struct Unseen(Mutex<AHashMap<ObjectKey, AHashSet<Box<str>>>>);

impl Unseen {
    fn made(&self, key: &ObjectKey, uid: &str) {
        self.0.lock().entry(key.clone()).or_default().insert(uid.into());
    }

    fn seen(&self, key: &ObjectKey, uid: &str) {
        let mut map = self.0.lock();
        if let Some(uids) = map.get_mut(key) {
            uids.remove(uid);
            if uids.is_empty() {
                map.remove(key);
            }
        }
    }

    fn any(&self, key: &ObjectKey) -> bool {
        self.0.lock().contains_key(key)
    }
}

/// Writes a plan's slices.
async fn carry_out(
    base: &Base,
    unseen: &Unseen,
    key: &ObjectKey,
    plan: SlicePlan,
) -> Result<(), ReconcileError> {
    let api: Api<EndpointSlice> = Api::namespaced(base.client.clone(), &key.namespace);
    for slice in plan.create {
        match api.create(&PostParams::default(), &slice).await {
            Ok(made) => {
                let uid = made.metadata.uid.unwrap_or_default();
                unseen.made(key, &uid);
                // The watch may have been faster than the answer.
                let name = made.metadata.name.unwrap_or_default();
                if base.shared.endpoint_slices.get(&ObjectKey::new(key.namespace.clone(), name)).is_some() {
                    unseen.seen(key, &uid);
                }
            }
            Err(error) if is_namespace_terminating(&error) => return Ok(()),
            Err(error) => return Err(ReconcileError::api("create an endpoint slice")(error)),
        }
    }
    for slice in plan.update {
        let name = slice.metadata.name.clone().unwrap_or_default();
        let current = base.shared.endpoint_slices.get(&ObjectKey::new(key.namespace.clone(), name.clone()));
        let labels = current.map(|c| c.meta().labels.to_map());
        let patch = json!({
            "metadata": {
                "uid": slice.metadata.uid, "resourceVersion": slice.metadata.resource_version,
                "labels": replaced(&labels, &slice.metadata.labels),
            },
            "endpoints": slice.endpoints,
        });
        api.patch(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map_err(ReconcileError::api("update an endpoint slice"))?;
    }
    for slice in plan.delete {
        let name = slice.metadata.name.unwrap_or_default();
        gone_is_fine(api.delete(&name, &DeleteParams::default()).await)
            .map_err(ReconcileError::api("delete an endpoint slice"))?;
    }
    Ok(())
}

/// The slices of a service that `managed_by` made.
fn standing_slices(
    shared: &SharedInformers,
    key: &ObjectKey,
    managed_by: &str,
) -> Result<Vec<EndpointSlice>, ReconcileError> {
    shared
        .endpoint_slices
        .list_namespace(&key.namespace)
        .iter()
        .filter(|(_, slice)| {
            let labels = &slice.meta().labels;
            slice.meta().deleted.is_none()
                && labels.get(SERVICE_NAME_LABEL) == Some(&key.name)
                && labels.get(MANAGED_BY_LABEL) == Some(managed_by)
        })
        .map(|(_, slice)| slice.unpack().map_err(Into::into))
        .collect()
}

fn watch_slices(
    shared: &SharedInformers,
    queue: &WorkQueue<ObjectKey>,
    unseen: &Arc<Unseen>,
    managed_by: &'static str,
) {
    let (queue, unseen) = (queue.clone(), unseen.clone());
    shared.endpoint_slices.on_change(move |change| {
        for slice in change.old.iter().chain(&change.new) {
            let meta = slice.meta();
            if meta.labels.get(MANAGED_BY_LABEL) == Some(managed_by)
                && let Some(service) = meta.labels.get(SERVICE_NAME_LABEL)
            {
                let key = ObjectKey::new(meta.namespace.clone(), service);
                unseen.seen(&key, &meta.uid);
                queue.add(key);
            }
        }
    });
}

struct SliceController {
    base: Base,
    selectors: Selectors,
    unseen: Arc<Unseen>,
}

/// The EndpointSlice controller; the future ends with the drain.
pub fn start_slices(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "endpoint-slice-controller", shared, ctx);
    let selectors = watch_services(shared, &base.queue);
    let unseen = Arc::<Unseen>::default();
    watch_slices(shared, &base.queue, &unseen, MANAGED_BY);
    let (queue, by_key) = (base.queue.clone(), selectors.clone());
    shared.nodes.on_change(move |change| {
        let zone = |n: &Option<Arc<keelson_client::projections::NodeView>>| {
            n.as_ref().and_then(|n| n.meta.labels.get(ZONE_LABEL)).map(str::to_owned)
        };
        if zone(&change.old) != zone(&change.new) {
            by_key.read().keys().for_each(|key| queue.add(key.clone()));
        }
    });
    let controller = Arc::new(SliceController { base: base.clone(), selectors, unseen });
    async move {
        let shared = base.shared.clone();
        let synced = async move {
            shared.services.synced().await;
            shared.pods.synced().await;
            shared.nodes.synced().await;
            shared.endpoint_slices.synced().await;
        };
        base.run(controller, WORKERS, synced).await;
    }
}

impl Reconcile for SliceController {
    fn name(&self) -> &'static str {
        "endpointslice-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let shared = &self.base.shared;
        // A deleted service's slices are the garbage collector's.
        let Some(packed) = shared.services.get(key) else { return Ok(None) };
        let service = packed.unpack()?;
        let selector = self.selectors.read().get(key).cloned();
        let Some(selector) = selector.filter(|_| !is_external_name(&service)) else { return Ok(None) };
        if packed.meta().deleted.is_some() {
            return Ok(None);
        }
        if self.unseen.any(key) {
            return Err(ReconcileError::Stale("slices were made that the cache does not hold yet"));
        }
        let zone_of = |node: &str| {
            let node = shared.nodes.get(&ObjectKey::cluster(node))?;
            node.meta.labels.get(ZONE_LABEL).filter(|z| !z.is_empty()).map(str::to_owned)
        };
        let desired = desired::of_service(&service, &pods_of(shared, key, &selector), zone_of);
        let ownership = Ownership {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            owner: owner("v1", "Service", &key.name, &packed.meta().uid),
            labels: desired::slice_labels(&service, MANAGED_BY),
            annotations: Map::new(),
            most: MOST,
        };
        let plan = plan_slices(&ownership, desired, standing_slices(shared, key, MANAGED_BY)?);
        carry_out(&self.base, &self.unseen, key, plan).await?;
        Ok(None)
    }
}

fn owner(api_version: &str, kind: &str, name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

struct MirrorController {
    base: Base,
    unseen: Arc<Unseen>,
}

/// The controller that mirrors hand-made Endpoints; the future ends with the drain.
pub fn start_mirroring(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "endpoint-slice-mirroring-controller", shared, ctx);
    let unseen = Arc::<Unseen>::default();
    watch_slices(shared, &base.queue, &unseen, mirror::MANAGED_BY);
    let queue = base.queue.clone();
    shared.endpoints.on_change(move |change| queue.add(change.key.clone()));
    let queue = base.queue.clone();
    shared.services.on_change(move |change| queue.add(change.key.clone()));
    let controller = Arc::new(MirrorController { base: base.clone(), unseen });
    async move {
        let shared = base.shared.clone();
        let synced = async move {
            shared.services.synced().await;
            shared.endpoints.synced().await;
            shared.endpoint_slices.synced().await;
        };
        base.run(controller, 1, synced).await;
    }
}

impl Reconcile for MirrorController {
    fn name(&self) -> &'static str {
        "endpointslicemirroring-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let shared = &self.base.shared;
        if self.unseen.any(key) {
            return Err(ReconcileError::Stale("slices were made that the cache does not hold yet"));
        }
        let standing = standing_slices(shared, key, mirror::MANAGED_BY)?;
        let (service, endpoints) = (shared.services.get(key), shared.endpoints.get(key));
        let mirrored = match (&service, &endpoints) {
            (Some(service), Some(endpoints)) => {
                let endpoints = endpoints.unpack()?;
                mirror::is_mirrored(&endpoints, &service.unpack()?).then_some(endpoints)
            }
            _ => None,
        };
        let plan = match mirrored {
            Some(endpoints) => {
                let uid = endpoints.metadata.uid.clone().unwrap_or_default();
                let ownership = Ownership {
                    namespace: key.namespace.to_string(),
                    name: key.name.to_string(),
                    owner: owner("v1", "Endpoints", &key.name, &uid),
                    labels: mirror::labels(&endpoints),
                    annotations: mirror::annotations(&endpoints),
                    most: 1000,
                };
                plan_slices(&ownership, mirror::desired(&endpoints), standing)
            }
            None => SlicePlan { delete: standing, ..SlicePlan::default() },
        };
        carry_out(&self.base, &self.unseen, key, plan).await?;
        Ok(None)
    }
}
