//! A resource's cache: its state, the feed from the store that fills it, and what reads need to be consistent.
//!
//! The feed has a task of its own, which sleeps while another one reads it: whoever has written, or wants to read what was
//! written, takes in what the store has brought so far ([`WatchCache::pull`]) instead of waking that task and waiting.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ahash::AHashMap;
use futures::Stream;
use keelson_store::{Event as StoreEvent, Frontier, Revision, Store, StoreError, WatchItem as StoreItem};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch::{Receiver, Sender, channel};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::chunks::Chunks;
use super::object::{Fields, Object};
use super::watch::{Event, Watcher};
use super::{ReadAt, Scope};

/// How long a read waits for a revision, as upstream does.
const WAIT: Duration = Duration::from_secs(3);
/// Between attempts to read a store that failed.
const RETRY: Duration = Duration::from_secs(1);
/// A revision that was the newest one within this time is not asked after in the store, however short history is kept.
const RECENT: Duration = Duration::from_secs(60);
/// Objects per read while the cache fills.
const LOAD_PAGE: usize = 500;
/// Items of the store's watch applied under one lock.
const APPLY: usize = 64;
/// The window of recent events: at most so many, and so many bytes of objects that only it holds, at least.
const WINDOW_EVENTS: usize = 4096;
const WINDOW_BYTES: usize = 1 << 20;

/// What a cache is told of its resource.
pub struct Settings {
    /// The store's prefix, `/registry/pods/`, slash at its end.
    pub prefix: String,
    pub namespaced: bool,
    pub fields: Arc<dyn Fields>,
}

/// Why a read or a watch failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CacheError {
    /// 410 Expired: the revision is compacted.
    #[error("too old resource version: {requested} ({oldest})")]
    Expired { requested: Revision, oldest: Revision },
    /// 504 with a cause: the revision lies in the future and did not come in time.
    #[error("Too large resource version: {requested}, current: {current}")]
    TooLarge { requested: Revision, current: Revision },
    /// The cache did not reach the store's revision in time.
    #[error("the cache of {prefix} did not reach revision {wanted} in time")]
    Behind { prefix: String, wanted: Revision },
    /// The cache starts anew or its resource is no longer served; the client must list again.
    #[error("the cache of {prefix} restarts")]
    Restarted { prefix: String },
    /// The resource is no longer served: watches end.
    #[error("{prefix} is no longer served")]
    Gone { prefix: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CacheError {
    pub(super) fn from_store(error: StoreError) -> CacheError {
        match error {
            StoreError::Compacted { requested, oldest } => CacheError::Expired { requested, oldest },
            StoreError::Future { requested, current } => CacheError::TooLarge { requested, current },
            other => CacheError::Store(other),
        }
    }
}

/// What the lock guards. Held for copying pointers only, never across I/O or an await.
pub(super) struct State {
    pub objects: Chunks,
    /// Every item of the store's watch up to here is applied and handed to the watchers.
    pub applied: Revision,
    /// The newest change of this resource that is applied; the objects are the same ever since.
    pub changed: Revision,
    /// The newest events; all with a revision above `window_floor`.
    pub window: VecDeque<Arc<Event>>,
    pub window_floor: Revision,
    window_bytes: usize,
    pub watchers: Vec<Arc<Watcher>>,
    /// False while the cache (re)fills.
    pub ready: bool,
}

/// How far the cache is, for those who wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    ready: bool,
    applied: Revision,
}

/// The store's newest revision now and then: what is above `before` was so within twice [`RECENT`].
struct Recent {
    since: Instant,
    then: Revision,
    before: Revision,
}

pub(super) struct Inner {
    pub settings: Settings,
    pub store: Arc<dyn Store>,
    pub state: Mutex<State>,
    frontier: Mutex<Option<Arc<dyn Frontier>>>,
    progress: Sender<Progress>,
    failure: Mutex<Option<StoreError>>,
    recent: Mutex<Option<Recent>>,
    feed: Mutex<Feed>,
    /// The feed's task was woken while somebody else had the feed.
    wanted: AtomicBool,
}

/// Sees every change of a resource in order, before those do who read the cache.
pub trait Observer: Send + Sync + 'static {
    /// An object's new state under its key; `None` when it is gone.
    fn change(&self, key: &str, object: Option<&Object>);
}

/// The store's watch and those who see each of its items: one reader at a time, whichever task that is.
#[derive(Default)]
struct Feed {
    /// `None` while the cache (re)fills and after the watch's end.
    watch: Option<keelson_store::Watch>,
    /// The feed's own task.
    waker: Option<Waker>,
    /// Why the watch ended.
    ended: Option<StoreError>,
    observers: Vec<Arc<dyn Observer>>,
}

/// The cache of one resource. Cheap to make; it fills at the first use.
pub struct WatchCache {
    pub(super) inner: Arc<Inner>,
    follower: OnceLock<AbortHandle>,
}

impl WatchCache {
    pub fn new(store: Arc<dyn Store>, settings: Settings) -> WatchCache {
        let state = State {
            objects: Chunks::default(),
            applied: 0,
            changed: 0,
            window: VecDeque::new(),
            window_floor: 0,
            window_bytes: 0,
            watchers: Vec::new(),
            ready: false,
        };
        let inner = Inner {
            settings,
            store,
            state: Mutex::new(state),
            frontier: Mutex::new(None),
            progress: channel(Progress { ready: false, applied: 0 }).0,
            failure: Mutex::new(None),
            recent: Mutex::new(None),
            feed: Mutex::default(),
            wanted: AtomicBool::new(false),
        };
        WatchCache { inner: Arc::new(inner), follower: OnceLock::new() }
    }

    /// The index of a selectable field for [`Object::field`]; `None` where the resource does not offer it.
    pub fn field_index(&self, label: &str) -> Option<usize> {
        self.inner.settings.fields.labels().iter().position(|known| &**known == label)
    }

    /// One object (`namespace/name` or `name`), and the revision the answer is true at.
    pub async fn get(&self, key: &str, at: ReadAt) -> Result<(Option<Arc<Object>>, Revision), CacheError> {
        if let ReadAt::Exact(revision) = at
            && !self.serves_exactly(revision).await?
        {
            let list = self.list_stored(&Scope::Key(key.into()), None, None, 1, revision).await?;
            return Ok((list.objects.into_iter().next(), revision));
        }
        let newest = self.reach(at).await?;
        let state = self.inner.state.lock();
        Ok((state.objects.get(key).cloned(), newest.max(state.applied)))
    }

    /// What the cache holds for a key now, without waiting; `None` too while the cache has not filled. For readers that
    /// tolerate stale answers.
    pub fn peek(&self, key: &str) -> Option<Arc<Object>> {
        self.start();
        self.inner.state.lock().objects.get(key).cloned()
    }

    /// As [`WatchCache::peek`], all objects of a namespace (of all, where it is empty) in key order.
    pub fn peek_all(&self, namespace: &str) -> Vec<Arc<Object>> {
        self.start();
        let objects = self.inner.state.lock().objects.clone();
        objects
            .iter()
            .filter(|object| namespace.is_empty() || object.namespace() == namespace)
            .cloned()
            .collect()
    }

    /// Takes in what the store has brought by now, unless another task is at it.
    pub fn pull(&self) {
        self.inner.pull();
    }

    /// Adds an observer. It first sees what the cache holds already.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        self.inner.with_feed(|feed| {
            let objects = self.inner.state.lock().objects.clone();
            objects.iter().for_each(|object| observer.change(object.key(), Some(object)));
            feed.observers.push(observer);
        });
    }

    /// How many objects there are and how many bytes they hold, for metrics; walks all objects.
    pub fn footprint(&self) -> (usize, usize) {
        let objects = self.inner.state.lock().objects.clone();
        (objects.len(), objects.iter().map(|object| object.footprint()).sum())
    }

    /// Starts following the store, once.
    pub(super) fn start(&self) {
        self.follower.get_or_init(|| tokio::spawn(follow(self.inner.clone())).abort_handle());
    }

    /// Stops following the store; what is read from now on is not.
    fn stop(&self) {
        if let Some(follower) = self.follower.get() {
            follower.abort();
        }
        self.inner.with_feed(|feed| feed.watch = None);
    }

    /// Waits until the cache can answer a read of `at` and returns a revision it is true at then (it may have moved on).
    pub(super) async fn reach(&self, at: ReadAt) -> Result<Revision, CacheError> {
        self.start();
        let mut progress = self.inner.progress.subscribe();
        if !progress.borrow().ready {
            self.inner.wait_ready(&mut progress).await?;
        }
        match at {
            ReadAt::Any => Ok(0),
            ReadAt::Newest => self.inner.catch_up(&mut progress).await,
            ReadAt::NotOlderThan(wanted) | ReadAt::Exact(wanted) => {
                if progress.borrow().applied >= wanted {
                    return Ok(0);
                }
                self.inner.wait_for_store(wanted).await?;
                self.inner.catch_up(&mut progress).await
            }
        }
    }

    /// Whether the objects as they are now are those of `revision`. One that is compacted has expired, here as in every other
    /// server and whatever has changed since: clients wait for just that.
    pub(super) async fn serves_exactly(&self, revision: Revision) -> Result<bool, CacheError> {
        self.reach(ReadAt::Exact(revision)).await?;
        if self.inner.state.lock().changed > revision {
            return Ok(false);
        }
        if !self.inner.is_recent(revision) {
            let prefix = &self.inner.settings.prefix;
            self.inner.store.list(prefix, None, 1, Some(revision)).await.map_err(CacheError::from_store)?;
        }
        Ok(true)
    }
}

impl Drop for WatchCache {
    fn drop(&mut self) {
        self.stop();
        let error = CacheError::Restarted { prefix: self.inner.settings.prefix.clone() };
        self.inner.cut_watchers(&error);
    }
}

impl Inner {
    /// Whether a revision was the newest one a short while ago, so that no compaction by time has reached it.
    fn is_recent(&self, revision: Revision) -> bool {
        let Some(newest) = self.frontier.lock().as_ref().map(|frontier| frontier.now().0) else {
            return false;
        };
        let now = Instant::now();
        let mut recent = self.recent.lock();
        let recent = recent.get_or_insert(Recent { since: now, then: newest, before: newest });
        let age = now.duration_since(recent.since);
        if age >= RECENT {
            let before = if age < 2 * RECENT { recent.then } else { newest };
            *recent = Recent { since: now, then: newest, before };
        }
        revision >= recent.before
    }

    async fn wait_ready(&self, progress: &mut Receiver<Progress>) -> Result<(), CacheError> {
        // Filling is bounded by the store's speed, not by a wait; a store that fails says so.
        let ready = progress.wait_for(|progress| progress.ready || self.failure.lock().is_some());
        let ready = ready.await.map(|progress| progress.ready).unwrap_or(false);
        match self.failure.lock().clone() {
            Some(error) if !ready => Err(CacheError::from_store(error)),
            _ => Ok(()),
        }
    }

    /// Waits until everything the store has published is applied.
    async fn catch_up(&self, progress: &mut Receiver<Progress>) -> Result<Revision, CacheError> {
        let frontier = self.frontier.lock().clone();
        let (newest, needed) = match frontier {
            Some(frontier) => frontier.latest().await.map_err(CacheError::from_store)?,
            None => {
                let newest = self.store.revision().await.map_err(CacheError::from_store)?;
                (newest, newest)
            }
        };
        self.pull();
        let has_reached = |progress: &Progress| progress.ready && progress.applied >= needed;
        if has_reached(&progress.borrow()) {
            return Ok(newest);
        }
        let reached = progress.wait_for(has_reached);
        match tokio::time::timeout(WAIT, reached).await {
            Ok(Ok(_)) => Ok(newest),
            Ok(Err(_)) => Err(CacheError::Restarted { prefix: self.settings.prefix.clone() }),
            Err(_) => Err(CacheError::Behind { prefix: self.settings.prefix.clone(), wanted: needed }),
        }
    }

    /// Waits until the store itself has reached a revision; any resource's write brings it.
    async fn wait_for_store(&self, wanted: Revision) -> Result<(), CacheError> {
        let mut current = self.store.revision().await.map_err(CacheError::from_store)?;
        let deadline = tokio::time::Instant::now() + WAIT;
        // Clients ask for the future only after a restore or when they are wrong: a slow poll is enough.
        while current < wanted {
            if tokio::time::Instant::now() >= deadline {
                return Err(CacheError::TooLarge { requested: wanted, current });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            current = self.store.revision().await.map_err(CacheError::from_store)?;
        }
        Ok(())
    }

    /// The newest revision up to which every event has been handed to the watchers.
    pub fn delivered(&self) -> Revision {
        let told = self.frontier.lock().as_ref().map(|frontier| frontier.now());
        let state = self.state.lock();
        match told {
            Some((newest, needed)) if state.applied >= needed && state.ready => newest.max(state.applied),
            _ => state.applied,
        }
    }

    fn cut_watchers(&self, error: &CacheError) {
        let watchers = std::mem::take(&mut self.state.lock().watchers);
        for watcher in watchers {
            watcher.cut(error.clone());
        }
    }

    fn announce(&self) {
        let (ready, applied) = {
            let state = self.state.lock();
            (state.ready, state.applied)
        };
        self.progress.send_if_modified(|progress| {
            let next = Progress { ready, applied };
            std::mem::replace(progress, next) != next
        });
    }

    pub fn object(&self, key: &str, value: &[u8], revision: Revision) -> Option<Arc<Object>> {
        let key = key.strip_prefix(self.settings.prefix.as_str())?;
        match Object::new(key, value, revision, self.settings.namespaced, &*self.settings.fields) {
            Ok(object) => Some(Arc::new(object)),
            Err(error) => {
                tracing::error!(error = %error, "record left out: it was not written by an API server");
                None
            }
        }
    }

    /// Reads all objects and opens the watch that goes on from there.
    pub(super) async fn load(&self) -> Result<(), StoreError> {
        let mut objects = Vec::new();
        let mut after: Option<String> = None;
        let mut at = None;
        let revision = loop {
            let page = self.store.list(&self.settings.prefix, after.as_deref(), LOAD_PAGE, at).await?;
            at = Some(page.revision);
            objects.extend(page.entries.iter().filter_map(|e| self.object(&e.key, &e.value, e.mod_revision)));
            match page.entries.into_iter().next_back() {
                Some(last) if page.more => after = Some(last.key),
                _ => break page.revision,
            }
        };
        let watch = self.store.watch(&self.settings.prefix, revision).await?;
        let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
        objects.shrink_to_fit();
        let objects = Chunks::from_sorted(objects);
        *self.frontier.lock() = Some(watch.frontier());
        *self.failure.lock() = None;
        self.with_feed(|feed| {
            self.observe_anew(feed, &objects);
            feed.watch = Some(watch);
            feed.waker = Some(waker);
            feed.ended = None;
            self.fill(objects, revision);
        });
        self.announce();
        Ok(())
    }

    /// Shows the observers a state that replaces the one before.
    fn observe_anew(&self, feed: &Feed, objects: &Chunks) {
        if feed.observers.is_empty() {
            return;
        }
        let before = self.state.lock().objects.clone();
        for observer in &feed.observers {
            let gone = before.iter().filter(|object| objects.get(object.key()).is_none());
            gone.for_each(|object| observer.change(object.key(), None));
            objects.iter().for_each(|object| observer.change(object.key(), Some(object)));
        }
    }

    fn fill(&self, objects: Chunks, revision: Revision) {
        let mut state = self.state.lock();
        state.objects = objects;
        state.applied = revision;
        state.changed = revision;
        state.window.clear();
        state.window_bytes = 0;
        state.window_floor = revision;
        state.ready = true;
    }

    /// Works on the feed, when it is free.
    fn with_feed<T>(&self, work: impl FnOnce(&mut Feed) -> T) -> T {
        let mut feed = self.feed.lock();
        let done = work(&mut feed);
        self.let_go(feed);
        done
    }

    /// Ends the work on the feed; its task goes on where it was kept from it.
    fn let_go(&self, feed: MutexGuard<'_, Feed>) {
        let waker = feed.waker.clone();
        drop(feed);
        if self.wanted.swap(false, Ordering::SeqCst)
            && let Some(waker) = waker
        {
            waker.wake();
        }
    }

    fn pull(&self) {
        if let Some(mut feed) = self.feed.try_lock() {
            self.take_in(&mut feed);
            let ended = feed.ended.is_some();
            if ended && let Some(waker) = &feed.waker {
                waker.wake_by_ref();
            }
            self.let_go(feed);
        }
    }

    /// The feed's task: resolves when the store's watch has ended.
    fn poll_feed(&self) -> Poll<StoreError> {
        let mut free = self.feed.try_lock();
        if free.is_none() {
            // Whoever has it sees this when he lets it go, or has let it go before.
            self.wanted.store(true, Ordering::SeqCst);
            free = self.feed.try_lock();
        }
        let Some(mut feed) = free else { return Poll::Pending };
        self.take_in(&mut feed);
        let ended = feed.ended.take();
        self.let_go(feed);
        ended.map_or(Poll::Pending, Poll::Ready)
    }

    /// Applies what the watch has. Whoever reads it, the feed's task is the one that is woken for what comes later.
    fn take_in(&self, feed: &mut Feed) {
        let Some(waker) = feed.waker.clone() else { return };
        let mut context = Context::from_waker(&waker);
        while let Some(watch) = &mut feed.watch {
            let mut items = Vec::new();
            let mut more = true;
            while more && items.len() < APPLY {
                match Pin::new(&mut *watch).poll_next(&mut context) {
                    Poll::Ready(Some(item)) => items.push(item),
                    Poll::Ready(None) => {
                        items.push(Err(StoreError::Closed("its watch ended".to_owned())));
                        more = false;
                    }
                    Poll::Pending => more = false,
                }
            }
            if items.is_empty() {
                return;
            }
            if let Err(error) = self.apply(&feed.observers, items) {
                feed.watch = None;
                feed.ended = Some(error);
            }
            self.announce();
            if !more {
                return;
            }
        }
    }

    fn apply(
        &self,
        observers: &[Arc<dyn Observer>],
        items: Vec<Result<StoreItem, StoreError>>,
    ) -> Result<(), StoreError> {
        let mut result = Ok(());
        // Built before the lock is taken: it scans the JSON.
        let mut prepared = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Ok(StoreItem::Progress(revision)) => prepared.push((revision, None)),
                Ok(StoreItem::Event(event)) => {
                    let object =
                        event.value.as_ref().and_then(|v| self.object(&event.key, v, event.revision));
                    if let Some(key) = event.key.strip_prefix(self.settings.prefix.as_str()) {
                        observers.iter().for_each(|observer| observer.change(key, object.as_deref()));
                    }
                    prepared.push((event.revision, Some((event, object))));
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        let mut state = self.state.lock();
        for (revision, change) in prepared {
            if let Some((event, object)) = change {
                state.change(&self.settings.prefix, event, object);
            }
            state.applied = state.applied.max(revision);
        }
        result
    }
}

impl State {
    fn change(&mut self, prefix: &str, event: StoreEvent, object: Option<Arc<Object>>) {
        let prev = match &object {
            Some(object) => self.objects.insert(object.clone()),
            None => event.key.strip_prefix(prefix).and_then(|key| self.objects.remove(key)),
        };
        self.changed = event.revision;
        if object.is_none() && prev.is_none() {
            return;
        }
        let event = Arc::new(Event::new(event.revision, object, prev));
        self.watchers.retain(|watcher| watcher.offer(&event));
        self.window_bytes += event.held_bytes();
        self.window.push_back(event);
        while self.window.len() > WINDOW_EVENTS || (self.window_bytes > WINDOW_BYTES && self.window.len() > 1)
        {
            let Some(oldest) = self.window.pop_front() else { break };
            self.window_bytes -= oldest.held_bytes();
            self.window_floor = oldest.revision();
        }
    }
}

/// Follows the store until it closes; a watch that is cut is begun anew from a fresh list.
async fn follow(inner: Arc<Inner>) {
    loop {
        let error = match inner.load().await {
            Ok(()) => poll_fn(|_| inner.poll_feed()).await,
            Err(error) => error,
        };
        tracing::warn!(prefix = %inner.settings.prefix, error = %error, "the watch cache lost the store");
        *inner.failure.lock() = Some(error);
        *inner.frontier.lock() = None;
        inner.state.lock().ready = false;
        inner.announce();
        inner.progress.send_modify(|_| {});
        inner.cut_watchers(&CacheError::Restarted { prefix: inner.settings.prefix.clone() });
        tokio::time::sleep(RETRY).await;
    }
}

/// All resources' caches by prefix.
pub struct WatchCaches {
    store: Arc<dyn Store>,
    caches: Mutex<AHashMap<String, Arc<WatchCache>>>,
}

impl WatchCaches {
    pub fn new(store: Arc<dyn Store>) -> WatchCaches {
        WatchCaches { store, caches: Mutex::new(AHashMap::new()) }
    }

    /// The cache of a prefix, made (not filled) at the first call.
    pub fn resource(&self, prefix: &str, settings: impl FnOnce() -> Settings) -> Arc<WatchCache> {
        let mut caches = self.caches.lock();
        if let Some(cache) = caches.get(prefix) {
            return cache.clone();
        }
        let cache = Arc::new(WatchCache::new(self.store.clone(), settings()));
        caches.insert(prefix.to_owned(), cache.clone());
        cache
    }

    /// How many objects each resource has whose cache is filled, by prefix.
    pub fn counts(&self) -> AHashMap<String, usize> {
        let caches: Vec<_> =
            self.caches.lock().iter().map(|(prefix, cache)| (prefix.clone(), cache.clone())).collect();
        let count = |cache: &WatchCache| {
            let state = cache.inner.state.lock();
            state.ready.then(|| state.objects.len())
        };
        caches.into_iter().filter_map(|(prefix, cache)| Some((prefix, count(&cache)?))).collect()
    }

    /// Forgets a resource that is no longer served: its watches end.
    pub fn remove(&self, prefix: &str) {
        self.forget(prefix, CacheError::Gone { prefix: prefix.to_owned() });
    }

    /// Forgets a resource whose selectable fields changed: its watchers must list again.
    pub fn restart(&self, prefix: &str) {
        self.forget(prefix, CacheError::Restarted { prefix: prefix.to_owned() });
    }

    fn forget(&self, prefix: &str, error: CacheError) {
        let cache = self.caches.lock().remove(prefix);
        if let Some(cache) = cache {
            cache.inner.cut_watchers(&error);
        }
    }

    /// Stops following the store, whose user is about to close it; requests are over.
    pub fn stop(&self) {
        for cache in self.caches.lock().values() {
            cache.stop();
        }
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }
}
