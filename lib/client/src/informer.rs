//! Shared informers: one list and watch per type, decoded once, of which a small projection is kept.
//!
//! What always holds: handlers run in the order of the changes, on the informer's task, after the store holds the
//! change; after [`Informer::synced`] the store held a complete list once. A watch that breaks is taken up again, and a
//! new list replaces the store with changes for what differs.

use crate::{Lean, ObjectKey};
use futures::StreamExt;
use k8s_openapi::serde::de::DeserializeOwned;
use keelson_daemon::DrainWatcher;
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::sync::{Arc, Weak};
use tokio::sync::watch;

/// What a component keeps of an object.
pub trait Projection: Send + Sync + Sized + 'static {
    /// The API type that is watched.
    type Object: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static;

    /// Takes what is needed and lets the rest go.
    fn project(object: Self::Object) -> Self;
}

/// What is read of an object of type `K`: the whole or less.
pub trait Reading<K>:
    kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static
{
    /// The object, as far as it was read.
    fn into_object(self) -> K;
}

impl<K> Reading<K> for Lean<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    fn into_object(self) -> K {
        self.0
    }
}

/// One change of one key: created (no old), updated, or deleted (no new).
pub struct Change<P> {
    pub key: ObjectKey,
    pub old: Option<Arc<P>>,
    pub new: Option<Arc<P>>,
}

/// Which objects are watched; empty texts select all.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    pub labels: Option<String>,
    pub fields: Option<String>,
}

type Handler<P> = Box<dyn Fn(&Change<P>) + Send + Sync>;

/// How long the handlers of one run of a component live: they are gone when this is dropped, however the run ended, so
/// that a component that is started again does not find its former self at work.
#[derive(Debug, Default)]
pub struct HandlerScope(Arc<()>);

struct Registered<P> {
    /// `None`: as long as the informer.
    scope: Option<Weak<()>>,
    handler: Handler<P>,
}

impl<P> Registered<P> {
    fn lives(&self) -> bool {
        self.scope.as_ref().is_none_or(|scope| scope.strong_count() > 0)
    }
}

/// A handle on one shared informer; clones share it.
pub struct Informer<P> {
    inner: Arc<Inner<P>>,
    /// Handlers added through this handle live as long as that.
    scope: Option<Weak<()>>,
}

struct Inner<P> {
    objects: RwLock<BTreeMap<ObjectKey, Arc<P>>>,
    handlers: RwLock<Vec<Registered<P>>>,
    synced: watch::Sender<bool>,
}

impl<P> Clone for Informer<P> {
    fn clone(&self) -> Self {
        Informer { inner: self.inner.clone(), scope: self.scope.clone() }
    }
}

impl<P: Projection> Informer<P> {
    /// Starts listing and watching through `api` until the drain begins.
    pub fn start(api: kube::Api<Lean<P::Object>>, selector: Selector, drain: DrainWatcher) -> Informer<P> {
        Informer::start_reading(api, selector, drain)
    }

    /// As [`Informer::start`], with objects of which no more is read than `R` does.
    pub fn start_reading<R: Reading<P::Object>>(
        api: kube::Api<R>,
        selector: Selector,
        drain: DrainWatcher,
    ) -> Informer<P> {
        let informer = Informer::detached();
        let inner = informer.inner.clone();
        tokio::spawn(async move { drain.until(inner.run(api, selector)).await });
        informer
    }

    /// An informer that nothing feeds but [`Informer::apply`] and [`Informer::delete`]; for tests of components.
    pub fn detached() -> Informer<P> {
        let inner = Inner {
            objects: RwLock::default(),
            handlers: RwLock::default(),
            synced: watch::Sender::new(false),
        };
        Informer { inner: Arc::new(inner), scope: None }
    }

    /// The same informer; handlers added through what is returned live as long as `scope`.
    pub fn within(&self, scope: &HandlerScope) -> Informer<P> {
        Informer { inner: self.inner.clone(), scope: Some(Arc::downgrade(&scope.0)) }
    }

    /// The projection under this key.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<P>> {
        self.inner.objects.read().get(key).cloned()
    }

    /// All projections, ordered by key.
    pub fn list(&self) -> Vec<Arc<P>> {
        self.inner.objects.read().values().cloned().collect()
    }

    /// All keys with their projections of one namespace.
    pub fn list_namespace(&self, namespace: &str) -> Vec<(ObjectKey, Arc<P>)> {
        let objects = self.inner.objects.read();
        objects
            .range(ObjectKey::new(namespace, "")..)
            .take_while(|(key, _)| &*key.namespace == namespace)
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect()
    }

    /// Visits every object under the read lock: `visit` must be quick and must not call back.
    pub fn for_each(&self, mut visit: impl FnMut(&ObjectKey, &Arc<P>)) {
        for (key, object) in self.inner.objects.read().iter() {
            visit(key, object);
        }
    }

    /// How many objects are held.
    pub fn len(&self) -> usize {
        self.inner.objects.read().len()
    }

    /// Whether no object is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a handler. It first sees what the store holds already (as creations), then every change in order. It must
    /// only enqueue keys: it runs on the informer's task.
    pub fn on_change(&self, handler: impl Fn(&Change<P>) + Send + Sync + 'static) {
        // Registered under the handlers' lock, which every change takes first: none is missed or seen twice.
        let mut handlers = self.inner.handlers.write();
        let held: Vec<_> = self.inner.objects.read().iter().map(|(k, o)| (k.clone(), o.clone())).collect();
        for (key, object) in held {
            handler(&Change { key, old: None, new: Some(object) });
        }
        handlers.retain(Registered::lives);
        handlers.push(Registered { scope: self.scope.clone(), handler: Box::new(handler) });
    }

    /// How many handlers see a change.
    pub fn handlers(&self) -> usize {
        self.inner.handlers.read().iter().filter(|registered| registered.lives()).count()
    }

    /// Resolves when a complete list was taken in once.
    pub async fn synced(&self) {
        let mut synced = self.inner.synced.subscribe();
        // The sender lives as long as `self`.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Whether a complete list was taken in once.
    pub fn is_synced(&self) -> bool {
        *self.inner.synced.borrow()
    }

    /// Takes in an object, as if it had been watched; with [`Informer::detached`] in tests.
    pub fn apply(&self, object: P::Object) {
        self.inner.apply(object);
    }

    /// Takes in a deletion; with [`Informer::detached`] in tests.
    pub fn delete(&self, key: &ObjectKey) {
        self.inner.remove(key);
    }

    /// Says that the list is complete; with [`Informer::detached`] in tests.
    pub fn set_synced(&self) {
        self.inner.synced.send_replace(true);
    }
}

impl<P: Projection> Inner<P> {
    async fn run<R: Reading<P::Object>>(&self, api: kube::Api<R>, selector: Selector) {
        let config = watcher::Config {
            label_selector: selector.labels,
            field_selector: selector.fields,
            ..watcher::Config::default()
        };
        let kind = <P::Object as kube::Resource>::kind(&());
        let mut stream = watcher(api, config).default_backoff().boxed();
        let mut listed: Option<HashSet<ObjectKey>> = None;
        while let Some(event) = stream.next().await {
            match event {
                Ok(watcher::Event::Init) => listed = Some(HashSet::new()),
                Ok(watcher::Event::InitApply(read)) => {
                    let object = read.into_object();
                    if let Some(listed) = &mut listed {
                        listed.insert(ObjectKey::of(&object));
                    }
                    self.apply(object);
                }
                Ok(watcher::Event::InitDone) => {
                    if let Some(listed) = listed.take() {
                        self.retain(&listed);
                    }
                    self.synced.send_replace(true);
                }
                Ok(watcher::Event::Apply(read)) => self.apply(read.into_object()),
                Ok(watcher::Event::Delete(read)) => self.remove(&ObjectKey::of(&read.into_object())),
                Err(error) => tracing::warn!(%kind, error = %error, "watch broken, trying again"),
            }
        }
    }

    fn apply(&self, object: P::Object) {
        let key = ObjectKey::of(&object);
        let new = Arc::new(P::project(object));
        let handlers = self.handlers.read();
        let old = self.objects.write().insert(key.clone(), new.clone());
        tell(&handlers, &Change { key, old, new: Some(new) });
    }

    fn remove(&self, key: &ObjectKey) {
        let handlers = self.handlers.read();
        let Some(old) = self.objects.write().remove(key) else { return };
        tell(&handlers, &Change { key: key.clone(), old: Some(old), new: None });
    }

    /// Removes what a complete list no longer holds.
    fn retain(&self, listed: &HashSet<ObjectKey>) {
        let gone: Vec<ObjectKey> =
            self.objects.read().keys().filter(|key| !listed.contains(key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(key));
    }
}

fn tell<P>(handlers: &[Registered<P>], change: &Change<P>) {
    handlers
        .iter()
        .filter(|registered| registered.lives())
        .for_each(|registered| (registered.handler)(change));
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use parking_lot::Mutex;

    struct Name(String);

    impl Projection for Name {
        type Object = ConfigMap;

        fn project(object: ConfigMap) -> Self {
            Name(object.metadata.resource_version.unwrap_or_default())
        }
    }

    fn config_map(name: &str, version: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.into());
        object.metadata.namespace = Some("ns".into());
        object.metadata.resource_version = Some(version.into());
        object
    }

    #[test]
    fn handlers_see_what_is_held_and_then_every_change() {
        let informer = Informer::<Name>::detached();
        informer.apply(config_map("a", "1"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        informer.on_change({
            let seen = seen.clone();
            move |change| {
                let version = |p: &Option<Arc<Name>>| p.as_ref().map_or("-".to_owned(), |p| p.0.clone());
                seen.lock().push(format!("{} {}>{}", change.key, version(&change.old), version(&change.new)));
            }
        });
        informer.apply(config_map("a", "2"));
        informer.apply(config_map("b", "3"));
        informer.inner.retain(&HashSet::from([ObjectKey::new("ns", "b")]));
        informer.delete(&ObjectKey::new("ns", "absent"));
        assert_eq!(*seen.lock(), ["ns/a ->1", "ns/a 1>2", "ns/b ->3", "ns/a 2>-"]);
        assert_eq!(informer.list_namespace("ns").len(), 1);
        assert!(informer.list_namespace("n").is_empty());
    }

    #[test]
    fn handlers_go_with_their_scope_and_others_stay() {
        let informer = Informer::<Name>::detached();
        let calls = Arc::new(Mutex::new([0; 2]));
        let count = |informer: &Informer<Name>, which: usize| {
            let calls = calls.clone();
            informer.on_change(move |_| calls.lock()[which] += 1);
        };
        count(&informer, 0);
        for start in 1..=3 {
            // One run of a component; its clones of the informer may outlive it.
            let scope = HandlerScope::default();
            let scoped = informer.within(&scope);
            count(&scoped.clone(), 1);
            informer.apply(config_map("a", &start.to_string()));
            assert_eq!(informer.handlers(), 2);
            drop(scope);
            drop(scoped);
        }
        informer.delete(&ObjectKey::new("ns", "a"));
        // The lasting handler saw all four; each run saw its own change, and from the second on what was held at its start.
        assert_eq!(*calls.lock(), [4, 3 + 2]);
        assert_eq!(informer.handlers(), 1);
    }
}
