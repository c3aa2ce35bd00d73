//! Feeds the graph: from the shared informers where there is one, else by watching metadata alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ahash::{AHashMap, AHashSet};
use futures::StreamExt;
use keelson_client::projections::{HasMeta, Meta, SharedInformers};
use keelson_client::{Informer, Lean, ObjectKey, Projection, WorkQueue};
use keelson_daemon::DrainWatcher;
use kube::Api;
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::discovery::{ApiResource, Discovery, Scope, verbs};
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::{Mutex, RwLock};
use tokio::task::AbortHandle;

use super::graph::{Graph, Wake};
use crate::kit::worker::chain;

/// Kinds whose objects own nothing, are owned by nothing and change often.
const IGNORED: &[(&str, &str)] = &[("", "Event"), ("events.k8s.io", "Event")];
/// After custom resource definitions changed, discovery is given this long to follow.
const SETTLE: Duration = Duration::from_secs(2);

/// Resources by (group, kind), and whether they are namespaced.
pub type Mapping = AHashMap<(String, String), (ApiResource, bool)>;

/// The graph with its queue.
#[derive(Clone)]
pub struct Shared {
    pub graph: Arc<Mutex<Graph>>,
    pub queue: WorkQueue<ObjectKey>,
    /// What is served, by (group, kind).
    pub mapping: Arc<RwLock<Mapping>>,
    /// Watches that have not listed everything yet.
    pub pending: Arc<AtomicUsize>,
}

impl Shared {
    pub fn new() -> Self {
        Shared {
            graph: Arc::default(),
            queue: WorkQueue::new(),
            mapping: Arc::default(),
            pending: Arc::default(),
        }
    }

    /// Queues what the graph wants looked at.
    pub fn wake(&self, wakes: Vec<Wake>) {
        for wake in wakes {
            self.queue.add(match wake {
                Wake::Delete(uid) => ObjectKey::new("delete", uid),
                Wake::Orphan(uid) => ObjectKey::new("orphan", uid),
            });
        }
    }

    pub fn observe(&self, api_version: &str, kind: &str, meta: &Meta) {
        let wakes = self.graph.lock().observe(api_version, kind, meta);
        self.wake(wakes);
    }

    pub fn remove(&self, uid: &str) {
        let wakes = self.graph.lock().remove(uid);
        self.wake(wakes);
    }
}

fn follow<P>(shared: &Shared, informer: &Informer<P>, kinds: &mut AHashSet<(String, String)>)
where
    P: Projection + HasMeta,
    P::Object: kube::Resource<DynamicType = ()>,
{
    use kube::Resource;
    let (group, kind) = (P::Object::group(&()).into_owned(), P::Object::kind(&()).into_owned());
    let api_version = P::Object::api_version(&()).into_owned();
    kinds.insert((group, kind.clone()));
    let shared = shared.clone();
    informer.on_change(move |change| match (&change.old, &change.new) {
        (Some(old), Some(new)) => {
            let (old, new) = (old.meta(), new.meta());
            if old.uid != new.uid {
                shared.remove(&old.uid);
            }
            let same = old.uid == new.uid
                && old.owners == new.owners
                && old.finalizers == new.finalizers
                && old.deleted.is_some() == new.deleted.is_some();
            if !same {
                shared.observe(&api_version, &kind, new);
            }
        }
        (None, Some(new)) => shared.observe(&api_version, &kind, new.meta()),
        (Some(old), None) => shared.remove(&old.meta().uid),
        (None, None) => {}
    });
}

/// Follows the shared informers; returns the kinds they cover whole.
pub fn follow_informers(shared: &Shared, informers: &SharedInformers) -> AHashSet<(String, String)> {
    let mut kinds = AHashSet::new();
    follow(shared, &informers.pods, &mut kinds);
    follow(shared, &informers.nodes, &mut kinds);
    follow(shared, &informers.namespaces, &mut kinds);
    follow(shared, &informers.service_accounts, &mut kinds);
    follow(shared, &informers.services, &mut kinds);
    follow(shared, &informers.endpoints, &mut kinds);
    follow(shared, &informers.endpoint_slices, &mut kinds);
    follow(shared, &informers.deployments, &mut kinds);
    follow(shared, &informers.replica_sets, &mut kinds);
    follow(shared, &informers.replication_controllers, &mut kinds);
    follow(shared, &informers.stateful_sets, &mut kinds);
    follow(shared, &informers.daemon_sets, &mut kinds);
    follow(shared, &informers.controller_revisions, &mut kinds);
    follow(shared, &informers.jobs, &mut kinds);
    follow(shared, &informers.cron_jobs, &mut kinds);
    follow(shared, &informers.budgets, &mut kinds);
    follow(shared, &informers.quotas, &mut kinds);
    follow(shared, &informers.cluster_roles, &mut kinds);
    kinds
}

/// Resolves when the shared informers have listed everything.
pub async fn informers_synced(informers: &SharedInformers) {
    informers.pods.synced().await;
    informers.nodes.synced().await;
    informers.services.synced().await;
    informers.endpoints.synced().await;
    informers.endpoint_slices.synced().await;
    informers.deployments.synced().await;
    informers.replica_sets.synced().await;
    informers.replication_controllers.synced().await;
    informers.stateful_sets.synced().await;
    informers.daemon_sets.synced().await;
    informers.controller_revisions.synced().await;
    informers.jobs.synced().await;
    informers.cron_jobs.synced().await;
}

/// Watches the metadata of every other kind that can be deleted, and follows changes of what is served.
pub struct Monitors {
    pub client: kube::Client,
    pub shared: Shared,
    pub covered: AHashSet<(String, String)>,
    pub drain: DrainWatcher,
}

impl Monitors {
    /// Runs until the drain begins. `ready` is told when the first discovery is done.
    pub async fn run(self, ready: tokio::sync::oneshot::Sender<()>) {
        let drain = self.drain.clone();
        drain.until(self.follow_discovery(ready)).await;
    }

    async fn follow_discovery(self, ready: tokio::sync::oneshot::Sender<()>) {
        let mut ready = Some(ready);
        let mut running: AHashMap<(String, String), AbortHandle> = AHashMap::new();
        let definitions = ApiResource {
            group: "apiextensions.k8s.io".to_owned(),
            version: "v1".to_owned(),
            api_version: "apiextensions.k8s.io/v1".to_owned(),
            kind: "CustomResourceDefinition".to_owned(),
            plural: "customresourcedefinitions".to_owned(),
        };
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.client.clone(), &definitions);
        let mut changes = watcher(api, watcher::Config::default()).default_backoff().boxed();
        let mut delay = Duration::from_millis(200);
        loop {
            match self.discover(&mut running).await {
                Ok(()) => {
                    delay = Duration::from_millis(200);
                    if let Some(ready) = ready.take() {
                        let _ = ready.send(()); // the collector may be gone: the drain began
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "discovery failed, trying again");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(Duration::from_secs(30));
                    continue;
                }
            }
            // A definition that comes, changes or goes changes what is served.
            loop {
                match changes.next().await {
                    Some(Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_))) => break,
                    Some(_) => {}
                    None => return,
                }
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    async fn discover(
        &self,
        running: &mut AHashMap<(String, String), AbortHandle>,
    ) -> Result<(), kube::Error> {
        let discovery = Discovery::new(self.client.clone()).run_aggregated().await?;
        let mut served: AHashMap<(String, String), (ApiResource, bool)> = AHashMap::new();
        let mut watched = AHashSet::new();
        for group in discovery.groups() {
            for (resource, capabilities) in group.resources_by_stability() {
                let key = (resource.group.clone(), resource.kind.clone());
                let usable = [verbs::LIST, verbs::WATCH, verbs::DELETE]
                    .iter()
                    .all(|v| capabilities.supports_operation(v));
                if usable && !IGNORED.iter().any(|(g, k)| *g == key.0 && *k == key.1) {
                    watched.insert(key.clone());
                }
                served.insert(key, (resource, capabilities.scope == Scope::Namespaced));
            }
        }
        running.retain(|key, task| {
            let stays = watched.contains(key);
            if !stays {
                task.abort();
            }
            stays
        });
        for key in watched {
            if self.covered.contains(&key) || running.contains_key(&key) {
                continue;
            }
            let Some((resource, _)) = served.get(&key) else { continue };
            let task = tokio::spawn(monitor(
                self.client.clone(),
                resource.clone(),
                self.shared.clone(),
                self.drain.clone(),
            ));
            running.insert(key, task.abort_handle());
        }
        *self.shared.mapping.write() = served;
        Ok(())
    }
}

/// Counts a watch as pending until it has listed everything or is gone.
struct Pending(Option<Arc<AtomicUsize>>);

impl Pending {
    fn done(&mut self) {
        if let Some(count) = self.0.take() {
            count.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.done();
    }
}

async fn monitor(client: kube::Client, resource: ApiResource, shared: Shared, drain: DrainWatcher) {
    shared.pending.fetch_add(1, Ordering::SeqCst);
    let mut pending = Pending(Some(shared.pending.clone()));
    let api: Api<Lean<PartialObjectMeta<DynamicObject>>> = Api::all_with(client, &resource);
    let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
    let mut held: AHashSet<Box<str>> = AHashSet::new();
    let mut listed: Option<AHashSet<Box<str>>> = None;
    while let Some(Some(event)) = drain.until(events.next()).await {
        match event {
            Ok(watcher::Event::Init) => listed = Some(AHashSet::new()),
            Ok(watcher::Event::InitApply(Lean(object))) => {
                let meta = Meta::new(&object.metadata);
                if let Some(listed) = &mut listed {
                    listed.insert(meta.uid.clone());
                }
                held.insert(meta.uid.clone());
                shared.observe(&resource.api_version, &resource.kind, &meta);
            }
            Ok(watcher::Event::InitDone) => {
                if let Some(listed) = listed.take() {
                    for uid in held.difference(&listed) {
                        shared.remove(uid);
                    }
                    held = listed;
                }
                pending.done();
            }
            Ok(watcher::Event::Apply(Lean(object))) => {
                let meta = Meta::new(&object.metadata);
                held.insert(meta.uid.clone());
                shared.observe(&resource.api_version, &resource.kind, &meta);
            }
            Ok(watcher::Event::Delete(Lean(object))) => {
                let uid = object.metadata.uid.unwrap_or_default();
                held.remove(uid.as_str());
                shared.remove(&uid);
            }
            Err(error) => {
                tracing::debug!(kind = %resource.kind, error = %error, "watch broken, trying again");
            }
        }
    }
}
