//! ConfigMaps or Secrets that pods have in their volumes: one watch per object, shared by all pods that refer to it.
//!
//! The rules are those of upstream's watch-based manager: a watch begins when the first pod that refers to the object
//! reads it, ends with the last pod, and an object that says of itself that it never changes is not watched. Unlike
//! there, a pod that starts reads anew, and its worker is woken by a change instead of finding it at its resync.
use super::ObjectError;
use futures::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// What can be in a volume.
pub(super) trait Content:
    kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + serde::de::DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// As messages name it.
    const KIND: &'static str;
    fn immutable(&self) -> bool;
}

type Key = (String, String);
type Items<T> = Arc<Mutex<HashMap<Key, Item<T>>>>;

/// All objects of one kind.
pub(super) struct Watched<T> {
    client: Option<kube::Client>,
    /// How long what was read counts as current while no watch keeps it so.
    keep: Duration,
    items: Items<T>,
}

struct Item<T> {
    /// Pods by uid, and what wakes their workers.
    users: HashMap<String, Arc<Notify>>,
    known: Option<Known<T>>,
    /// The watch has brought the object's state once.
    synced: bool,
    watch: Option<Watch>,
}

impl<T> Default for Item<T> {
    fn default() -> Self {
        Item { users: HashMap::new(), known: None, synced: false, watch: None }
    }
}

/// `object` is `None` where there is none of that name.
struct Known<T> {
    object: Option<Arc<T>>,
    version: u64,
    at: Instant,
}

/// Ends its task with it.
struct Watch(AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn lock<T>(items: &Mutex<T>) -> MutexGuard<'_, T> {
    items.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resource versions are numbers that grow; 0 where there is none.
fn version(object: &impl kube::Resource) -> u64 {
    object.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl<T: Content> Item<T> {
    /// What may be handed out without asking the API.
    fn current(&self, keep: Duration) -> Option<Option<Arc<T>>> {
        let known = self.known.as_ref()?;
        let fixed = known.object.as_deref().is_some_and(T::immutable);
        (self.synced || fixed || known.at.elapsed() < keep).then(|| known.object.clone())
    }

    /// Takes in what a read or the watch brought, unless something newer is known. Answers whether it is a change.
    fn take(&mut self, object: Option<Arc<T>>, version: u64) -> bool {
        let at = Instant::now();
        let (known, had) = self.known.as_ref().map_or((0, false), |k| (k.version, k.object.is_some()));
        if version < known {
            return false;
        }
        let changed = self.known.is_none() || version > known || had != object.is_some();
        if object.as_deref().is_some_and(T::immutable) {
            self.watch = None;
            self.synced = false;
        }
        self.known = Some(Known { object, version, at });
        changed
    }
}

impl<T: Content> Watched<T> {
    pub fn new(client: Option<kube::Client>, keep: Duration) -> Self {
        Watched { client, keep, items: Items::default() }
    }

    /// Notes that a pod has the object in a volume; `wake` is told when it changes.
    pub fn refer(&self, namespace: &str, name: &str, uid: &str, wake: &Arc<Notify>) {
        let mut items = lock(&self.items);
        let item = items.entry((namespace.to_owned(), name.to_owned())).or_default();
        item.users.insert(uid.to_owned(), wake.clone());
    }

    /// Forgets a pod; what no other pod refers to is watched no longer.
    pub fn forget(&self, uid: &str) {
        lock(&self.items).retain(|_, item| {
            item.users.remove(uid);
            !item.users.is_empty()
        });
    }

    /// The object; `None` where there is none. `fresh`: as the API has it now.
    pub async fn get(&self, namespace: &str, name: &str, fresh: bool) -> Result<Option<Arc<T>>, ObjectError> {
        let key = (namespace.to_owned(), name.to_owned());
        if !fresh && let Some(current) = lock(&self.items).get(&key).and_then(|item| item.current(self.keep))
        {
            return Ok(current);
        }
        let no_api = || ObjectError::NoApi { kind: T::KIND, name: name.to_owned() };
        let client = self.client.clone().ok_or_else(no_api)?;
        let api: Api<T> = Api::namespaced(client, namespace);
        let read = api.get_opt(name).await.map_err(|source| ObjectError::Read {
            kind: T::KIND,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            source: Box::new(source),
        })?;
        let object = read.map(Arc::new);
        let mut items = lock(&self.items);
        let Some(item) = items.get_mut(&key) else { return Ok(object) };
        match object {
            Some(object) => {
                let version = version(&*object);
                item.take(Some(object), version);
            }
            // A "not found" has no version: where a watch keeps the object, that knows better when it went.
            None if item.synced => return Ok(None),
            None => item.known = Some(Known { object: None, version: 0, at: Instant::now() }),
        }
        let known = item.known.as_ref().and_then(|known| known.object.clone());
        if item.watch.is_none() && !known.as_deref().is_some_and(T::immutable) {
            let task = tokio::spawn(keep_current(api, key, self.items.clone()));
            item.watch = Some(Watch(task.abort_handle()));
        }
        Ok(known)
    }

    /// How many objects are watched.
    pub fn watches(&self) -> usize {
        lock(&self.items).values().filter(|item| item.watch.is_some()).count()
    }
}

fn found<T: Content>(object: T) -> (Option<Arc<T>>, Option<u64>) {
    let version = version(&object);
    (Some(Arc::new(object)), Some(version))
}

/// Watches one object until its item is gone.
async fn keep_current<T: Content>(api: Api<T>, key: Key, items: Items<T>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={}", key.1)).streaming_lists();
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut listed = None;
    while let Some(event) = events.next().await {
        let (object, version) = match event {
            Ok(watcher::Event::Init) => {
                listed = None;
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed = Some(object);
                continue;
            }
            Ok(watcher::Event::InitDone) => match listed.take() {
                Some(object) => found(object),
                // The list says that it is not there now: as new as anything known.
                None => (None, None),
            },
            Ok(watcher::Event::Apply(object)) => found(object),
            Ok(watcher::Event::Delete(object)) => (None, Some(version(&object))),
            // What is known goes on being used: a pod does not lose its files because the API server is away.
            Err(error) => {
                tracing::debug!(kind = T::KIND, namespace = key.0, object = key.1, error = %error, "watch broken, trying again");
                continue;
            }
        };
        let mut items = lock(&items);
        let Some(item) = items.get_mut(&key) else { return };
        item.synced = true;
        let known = item.known.as_ref().map_or(0, |known| known.version);
        if item.take(object, version.unwrap_or(known)) {
            item.users.values().for_each(|wake| wake.notify_one());
        }
    }
}
