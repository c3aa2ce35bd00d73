//! Looks at what the graph names, asks the API server, and deletes, waits or orphans.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ahash::AHashSet;
use futures::future::join_all;
use keelson_client::ObjectKey;
use keelson_client::projections::{Meta, Owner, SharedInformers};
use keelson_daemon::Context;
use kube::Api;
use kube::api::{
    DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, Preconditions, PropagationPolicy,
};
use parking_lot::Mutex;
use serde_json::json;

use super::graph::{FOREGROUND, Identity, ORPHAN};
use super::monitors::{Monitors, Shared, follow_informers, informers_synced};
use crate::kit::worker::{Reconcile, work};
use crate::kit::{ReconcileError, gone_is_fine, is_not_found};

const WORKERS: usize = 10;
/// Uids known to be gone; a uid never comes back.
const REMEMBERED_GONE: usize = 4096;

struct Collector {
    client: kube::Client,
    shared: Shared,
    gone: Mutex<AHashSet<Box<str>>>,
}

/// The garbage collector; the future ends with the drain.
pub fn start(
    client: kube::Client,
    informers: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let shared = Shared::new();
    let covered = follow_informers(&shared, informers);
    let monitors =
        Monitors { client: client.clone(), shared: shared.clone(), covered, drain: ctx.drain.clone() };
    let collector = Arc::new(Collector { client, shared: shared.clone(), gone: Mutex::default() });
    let (informers, drain) = (informers.clone(), ctx.drain.clone());
    async move {
        let (ready, discovered) = tokio::sync::oneshot::channel();
        let monitoring = tokio::spawn(monitors.run(ready));
        let synced = async {
            informers_synced(&informers).await;
            // An error means that the monitors ended: the drain began.
            let _ = discovered.await;
        };
        if drain.until(synced).await.is_some() {
            work(collector, shared.queue.clone(), WORKERS, drain).await;
        }
        let _ = monitoring.await; // a panic there was logged by the runtime; nothing is left to collect
    }
}

/// What the owners of an object are by now.
#[derive(Default)]
struct Classes {
    solid: Vec<Box<str>>,
    dangling: Vec<Box<str>>,
    waiting: Vec<Box<str>>,
}

fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

impl Collector {
    /// The API of a kind; `None` when it is not served.
    fn api(&self, api_version: &str, kind: &str, namespace: &str) -> Option<(Api<DynamicObject>, bool)> {
        let mapping = self.shared.mapping.read();
        let (resource, namespaced) = mapping.get(&(group_of(api_version).to_owned(), kind.to_owned()))?;
        let api = match (namespaced, namespace.is_empty()) {
            (true, false) => Api::namespaced_with(self.client.clone(), namespace, resource),
            _ => Api::all_with(self.client.clone(), resource),
        };
        Some((api, *namespaced))
    }

    async fn read(&self, identity: &Identity) -> Result<Option<ObjectMeta>, ReconcileError> {
        let Some((api, namespaced)) = self.api(&identity.api_version, &identity.kind, &identity.namespace)
        else {
            return Err(ReconcileError::Stale("the kind is not served (yet)"));
        };
        if namespaced && identity.namespace.is_empty() {
            // A cluster-scoped object named a namespaced owner: there is no such object.
            return Ok(None);
        }
        match api.get_metadata(&identity.name).await {
            Ok(object) => Ok(Some(object.metadata)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(ReconcileError::api("read the object")(error)),
        }
    }

    async fn classify(&self, owners: &[Owner], namespace: &str) -> Result<Classes, ReconcileError> {
        let mut classes = Classes::default();
        for owner in owners {
            if self.gone.lock().contains(&owner.uid) {
                classes.dangling.push(owner.uid.clone());
                continue;
            }
            let Some((_, namespaced)) = self.api(&owner.api_version, &owner.kind, namespace) else {
                return Err(ReconcileError::Stale("the owner's kind is not served (yet)"));
            };
            if namespaced && namespace.is_empty() {
                // Invalid, as upstream: never collected for it.
                classes.solid.push(owner.uid.clone());
                continue;
            }
            let identity = Identity {
                api_version: owner.api_version.clone(),
                kind: owner.kind.clone(),
                namespace: if namespaced { namespace.into() } else { "".into() },
                name: owner.name.clone(),
            };
            match self.read(&identity).await? {
                Some(live) if live.uid.as_deref() == Some(&owner.uid) => {
                    let finalizers = live.finalizers.unwrap_or_default();
                    let waits =
                        live.deletion_timestamp.is_some() && finalizers.iter().any(|f| f == FOREGROUND);
                    if waits {
                        classes.waiting.push(owner.uid.clone())
                    } else {
                        classes.solid.push(owner.uid.clone())
                    }
                }
                _ => {
                    self.remember_gone(&owner.uid);
                    classes.dangling.push(owner.uid.clone());
                }
            }
        }
        Ok(classes)
    }

    fn remember_gone(&self, uid: &str) {
        let mut gone = self.gone.lock();
        if gone.len() >= REMEMBERED_GONE {
            gone.clear();
        }
        gone.insert(uid.into());
    }

    async fn attempt_delete(&self, uid: &str) -> Result<Option<Duration>, ReconcileError> {
        let node = self.shared.graph.lock().get(uid).cloned();
        let Some(node) = node else { return Ok(None) };
        if node.deleting && !node.deleting_dependents {
            return Ok(None);
        }
        let mut identity = node.identity.clone();
        if !node.observed
            && let Some((_, false)) = self.api(&identity.api_version, &identity.kind, &identity.namespace)
        {
            identity.namespace = "".into(); // a cluster-scoped owner of a namespaced object
        }
        let live = self.read(&identity).await?.filter(|live| live.uid.as_deref() == Some(uid));
        let Some(live) = live else {
            self.remember_gone(uid);
            self.shared.remove(uid);
            return Ok(None);
        };
        let meta = Meta::new(&live);
        // The read is newer than the graph: what it says of links and finalizers counts.
        self.shared.observe(&identity.api_version, &identity.kind, &meta);
        if meta.deleted.is_some() {
            if meta.has_finalizer(FOREGROUND) {
                return self.wait_for_dependents(&identity, &live, uid).await;
            }
            return Ok(None);
        }
        if meta.owners.is_empty() {
            return Ok(None);
        }
        let classes = self.classify(&meta.owners, &meta.namespace).await?;
        if !classes.solid.is_empty() {
            let drop: Vec<Box<str>> = classes.dangling.into_iter().chain(classes.waiting).collect();
            if !drop.is_empty() {
                self.drop_owners(&identity, &live, &drop).await?;
            }
            return Ok(None);
        }
        let policy = if !classes.waiting.is_empty() && !node.dependents.is_empty() {
            self.break_cycle(&identity, &live, &node.dependents).await?;
            PropagationPolicy::Foreground
        } else if meta.has_finalizer(ORPHAN) {
            PropagationPolicy::Orphan
        } else if meta.has_finalizer(FOREGROUND) {
            PropagationPolicy::Foreground
        } else {
            PropagationPolicy::Background
        };
        self.delete(&identity, &live, policy).await?;
        Ok(None)
    }

    async fn delete(
        &self,
        identity: &Identity,
        live: &ObjectMeta,
        policy: PropagationPolicy,
    ) -> Result<(), ReconcileError> {
        let Some((api, _)) = self.api(&identity.api_version, &identity.kind, &identity.namespace) else {
            return Err(ReconcileError::Stale("the kind is not served (yet)"));
        };
        let params = DeleteParams {
            propagation_policy: Some(policy),
            // Just the object whose owners were looked at: a changed one is looked at again.
            preconditions: Some(Preconditions {
                uid: live.uid.clone(),
                resource_version: live.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        gone_is_fine(api.delete(&identity.name, &params).await)
            .map_err(ReconcileError::api("delete the object"))
    }

    /// Patches metadata of the object as it was read, refused when it changed since.
    async fn patch(
        &self,
        identity: &Identity,
        live: &ObjectMeta,
        mut change: serde_json::Value,
    ) -> Result<(), ReconcileError> {
        let Some((api, _)) = self.api(&identity.api_version, &identity.kind, &identity.namespace) else {
            return Err(ReconcileError::Stale("the kind is not served (yet)"));
        };
        change["uid"] = json!(live.uid);
        change["resourceVersion"] = json!(live.resource_version);
        let body = Patch::Merge(json!({"metadata": change}));
        let result = api.patch_metadata(&identity.name, &PatchParams::default(), &body).await;
        gone_is_fine(result).map_err(ReconcileError::api("patch the object's metadata"))
    }

    async fn drop_owners(
        &self,
        identity: &Identity,
        live: &ObjectMeta,
        uids: &[Box<str>],
    ) -> Result<(), ReconcileError> {
        let left: Vec<_> = live
            .owner_references
            .iter()
            .flatten()
            .filter(|o| !uids.iter().any(|uid| **uid == *o.uid))
            .collect();
        self.patch(identity, live, json!({"ownerReferences": left})).await
    }

    /// An object whose own dependent waits for dependents may be its own grandchild: it no longer blocks.
    async fn break_cycle(
        &self,
        identity: &Identity,
        live: &ObjectMeta,
        dependents: &AHashSet<Box<str>>,
    ) -> Result<(), ReconcileError> {
        let cycle = {
            let graph = self.shared.graph.lock();
            dependents.iter().any(|uid| graph.get(uid).is_some_and(|n| n.deleting_dependents))
        };
        let blocks = live.owner_references.iter().flatten().any(|o| o.block_owner_deletion == Some(true));
        if !cycle || !blocks {
            return Ok(());
        }
        let mut owners = live.owner_references.clone().unwrap_or_default();
        owners.iter_mut().for_each(|o| o.block_owner_deletion = Some(false));
        self.patch(identity, live, json!({"ownerReferences": owners})).await?;
        Err(ReconcileError::Stale("the object was changed to break a cycle of owners"))
    }

    async fn wait_for_dependents(
        &self,
        identity: &Identity,
        live: &ObjectMeta,
        uid: &str,
    ) -> Result<Option<Duration>, ReconcileError> {
        // Dependents of kinds that are still being listed would be missed.
        if self.shared.pending.load(Ordering::SeqCst) > 0 {
            return Ok(Some(Duration::from_secs(1)));
        }
        let blocking = self.shared.graph.lock().blocking(uid);
        if blocking.is_empty() {
            self.drop_finalizer(identity, live, FOREGROUND).await?;
            return Ok(None);
        }
        let graph = self.shared.graph.lock();
        for dependent in blocking {
            if graph.get(&dependent).is_some_and(|n| !n.deleting_dependents && !n.deleting) {
                self.shared.queue.add(ObjectKey::new("delete", dependent));
            }
        }
        Ok(None)
    }

    async fn drop_finalizer(
        &self,
        identity: &Identity,
        live: &ObjectMeta,
        finalizer: &str,
    ) -> Result<(), ReconcileError> {
        let left: Vec<_> = live.finalizers.iter().flatten().filter(|f| *f != finalizer).collect();
        self.patch(identity, live, json!({"finalizers": left})).await
    }

    async fn orphan(&self, uid: &str) -> Result<Option<Duration>, ReconcileError> {
        if self.shared.pending.load(Ordering::SeqCst) > 0 {
            return Ok(Some(Duration::from_secs(1)));
        }
        let (node, dependents) = {
            let graph = self.shared.graph.lock();
            let dependents: Vec<(Box<str>, Identity)> = graph
                .dependents(uid)
                .into_iter()
                .filter_map(|d| graph.get(&d).map(|n| n.identity.clone()).map(|i| (d, i)))
                .collect();
            (graph.get(uid).cloned(), dependents)
        };
        let Some(node) = node else { return Ok(None) };
        let results = join_all(dependents.iter().map(|(dependent, identity)| async move {
            let Some(live) = self.read(identity).await? else { return Ok(()) };
            if live.uid.as_deref() != Some(dependent) {
                return Ok(());
            }
            self.drop_owners(identity, &live, &[uid.into()]).await
        }))
        .await;
        results.into_iter().collect::<Result<Vec<()>, ReconcileError>>()?;
        let live = self.read(&node.identity).await?.filter(|live| live.uid.as_deref() == Some(uid));
        if let Some(live) = live {
            self.drop_finalizer(&node.identity, &live, ORPHAN).await?;
        }
        Ok(None)
    }
}

impl Reconcile for Collector {
    fn name(&self) -> &'static str {
        "garbage-collector-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        match &*key.namespace {
            "orphan" => self.orphan(&key.name).await,
            _ => self.attempt_delete(&key.name).await,
        }
    }
}
