//! Watches: initial events, the past, the live feed, bookmarks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::poll_fn;
use futures::task::AtomicWaker;
use futures::{Stream, StreamExt};
use keelson_store::{Event as StoreEvent, Revision, StoreError, WatchItem as StoreItem};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::task::Poll;
use tokio::time::{Instant, sleep_until};

use super::chunks::{Chunks, Cursor};
use super::core::{CacheError, Inner, WatchCache};
use super::object::Object;
use super::{Filter, ReadAt, Scope};

/// Events a live watcher may have waiting; beyond that it reads from the window again.
const QUEUE: usize = 256;
/// Events taken from the window under one lock.
const WINDOW_STEP: usize = 128;
/// How often a watcher that asked for bookmarks gets one, as upstream.
const BOOKMARKS: Duration = Duration::from_secs(60);

/// What happened to an object, as one watcher sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    Added,
    Modified,
    Deleted,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the changes after a revision (a future one is waited for).
    After(Revision),
    /// With the changes after now.
    Now,
    /// With an ADDED for each object of a state as fresh as said, then the changes after it.
    State {
        at: ReadAt,
        /// `sendInitialEvents=true`: [`WatchItem::InitialEventsEnd`] follows the last of them.
        end_bookmark: bool,
    },
}

/// What a watch asks for.
#[derive(Clone)]
pub struct WatchQuery {
    pub scope: Scope,
    pub filter: Option<Filter>,
    pub start: Start,
    /// `allowWatchBookmarks`: a bookmark a minute.
    pub bookmarks: bool,
}

/// One thing a watcher is told.
#[derive(Debug)]
pub enum WatchItem {
    Event(Delivery),
    /// The bookmark with `k8s.io/initial-events-end: "true"`.
    InitialEventsEnd(Revision),
    Bookmark(Revision),
}

/// One change as it happened, shared by all who are told of it.
pub(super) struct Event {
    revision: Revision,
    object: Option<Arc<Object>>,
    prev: Option<Arc<Object>>,
    encodings: Mutex<SmallVec<[(u64, EventKind, Bytes); 1]>>,
}

impl Event {
    pub fn new(revision: Revision, object: Option<Arc<Object>>, prev: Option<Arc<Object>>) -> Event {
        Event { revision, object, prev, encodings: Mutex::new(SmallVec::new()) }
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Bytes that live only because the window holds this event.
    pub fn held_bytes(&self) -> usize {
        std::mem::size_of::<Event>() + self.prev.as_ref().map_or(0, |prev| prev.footprint())
    }

    /// What the event is to a watcher; `None` if nothing.
    fn kind_for(&self, scope: &Scope, filter: Option<&Filter>) -> Option<EventKind> {
        let holds = |object: &Option<Arc<Object>>| {
            object.as_ref().is_some_and(|o| scope.holds(o) && filter.is_none_or(|filter| filter(o)))
        };
        match (holds(&self.prev), holds(&self.object)) {
            (false, true) => Some(EventKind::Added),
            (true, true) => Some(EventKind::Modified),
            (true, false) => Some(EventKind::Deleted),
            (false, false) => None,
        }
    }
}

/// An event as one watcher gets it.
#[derive(Clone)]
pub struct Delivery {
    kind: EventKind,
    event: Arc<Event>,
}

impl Delivery {
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// The event's revision: what is written as the object's resourceVersion, also where that is the last state of an
    /// object that is gone or no longer matches.
    pub fn revision(&self) -> Revision {
        self.event.revision
    }

    /// The object to send: the new state, or for a DELETED the last state that the watcher may see.
    pub fn object(&self) -> &Arc<Object> {
        let object = match self.kind {
            EventKind::Added | EventKind::Modified => &self.event.object,
            EventKind::Deleted => &self.event.prev,
        };
        object.as_ref().expect("a delivery's kind names a state the event has")
    }

    /// The encoded event, made by the first watcher that asks for this encoding. `encoding` names version, media type
    /// and part; the caller gives equal bytes equal numbers.
    pub fn encoded(&self, encoding: u64, encode: impl FnOnce(&Delivery) -> Bytes) -> Bytes {
        let known = |encodings: &[(u64, EventKind, Bytes)]| {
            encodings
                .iter()
                .find(|(id, kind, _)| (*id, *kind) == (encoding, self.kind))
                .map(|(.., b)| b.clone())
        };
        if let Some(bytes) = known(&self.event.encodings.lock()) {
            return bytes;
        }
        // Encoded outside the lock: two watchers may both do it once, none waits for the other.
        let bytes = encode(self);
        let mut encodings = self.event.encodings.lock();
        if let Some(bytes) = known(&encodings) {
            return bytes;
        }
        encodings.push((encoding, self.kind, bytes.clone()));
        bytes
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {} @ {}", self.kind, self.object().key(), self.event.revision)
    }
}

/// A watcher on the live feed.
pub(super) struct Watcher {
    scope: Scope,
    filter: Option<Filter>,
    /// Events up to here are not for it.
    after: Revision,
    queue: Mutex<Queue>,
    waker: AtomicWaker,
}

struct Queue {
    deliveries: VecDeque<Delivery>,
    phase: Phase,
}

enum Phase {
    Live,
    /// Off the feed: events above the revision are to be read from the window.
    Lagging(Revision),
    Cut(CacheError),
    /// The reader is gone.
    Left,
}

impl Watcher {
    /// Hands an event to the watcher; false takes it off the feed.
    pub fn offer(&self, event: &Arc<Event>) -> bool {
        if event.revision <= self.after {
            return true;
        }
        let kind = event.kind_for(&self.scope, self.filter.as_ref());
        let mut queue = self.queue.lock();
        if !matches!(queue.phase, Phase::Live) {
            return false;
        }
        let Some(kind) = kind else { return true };
        if queue.deliveries.len() >= QUEUE {
            queue.phase = Phase::Lagging(event.revision - 1);
        } else {
            queue.deliveries.push_back(Delivery { kind, event: event.clone() });
        }
        let live = matches!(queue.phase, Phase::Live);
        drop(queue);
        self.waker.wake();
        live
    }

    pub fn cut(&self, error: CacheError) {
        self.queue.lock().phase = Phase::Cut(error);
        self.waker.wake();
    }
}

/// Where a watch's reader stands.
enum Mode {
    /// Sending the objects of a snapshot.
    Initial {
        objects: Chunks,
        cursor: Cursor,
        revision: Revision,
        end_bookmark: bool,
    },
    /// Everything up to the revision is sent; what follows comes from the window.
    Window(Revision),
    /// The window begins later: the store's rows.
    History(keelson_store::Watch, Revision),
    Live(Arc<Watcher>),
    Ended,
}

/// A watch. Read it with [`WatchStream::next`], or as a stream.
pub struct WatchStream {
    inner: Arc<Inner>,
    scope: Scope,
    filter: Option<Filter>,
    mode: Mode,
    pending: VecDeque<Delivery>,
    /// The revision of the last item sent.
    sent: Revision,
    next_bookmark: Option<Instant>,
}

impl WatchCache {
    /// Opens a watch. Fails for a revision that is compacted; for one that is only about to be, the stream does.
    pub async fn watch(&self, query: WatchQuery) -> Result<WatchStream, CacheError> {
        let mode = match query.start {
            Start::After(revision) => {
                self.reach(ReadAt::Any).await?;
                Mode::Window(revision)
            }
            Start::Now => {
                let newest = self.reach(ReadAt::Newest).await?;
                Mode::Window(newest)
            }
            Start::State { at, end_bookmark } => {
                let newest = self.reach(at).await?;
                let state = self.inner.state.lock();
                let revision = newest.max(state.applied);
                let objects = state.objects.clone();
                let cursor = objects.seek(
                    &match &query.scope {
                        Scope::All => String::new(),
                        Scope::Namespace(namespace) => format!("{namespace}/"),
                        Scope::Key(key) => key.to_string(),
                    },
                    false,
                );
                Mode::Initial { objects, cursor, revision, end_bookmark }
            }
        };
        let mut watch = WatchStream {
            inner: self.inner.clone(),
            scope: query.scope,
            filter: query.filter,
            mode,
            pending: VecDeque::new(),
            sent: 0,
            next_bookmark: query.bookmarks.then(|| Instant::now() + BOOKMARKS),
        };
        // So that a compacted revision is an answer, not an event.
        if let Mode::Window(after) = watch.mode {
            watch.read_window(after).await?;
        }
        Ok(watch)
    }
}

impl WatchStream {
    /// The next item; `None` after an error. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<WatchItem, CacheError>> {
        loop {
            if let Some(delivery) = self.pending.pop_front() {
                self.sent = self.sent.max(delivery.revision());
                return Some(Ok(WatchItem::Event(delivery)));
            }
            let step = match &mut self.mode {
                Mode::Initial { .. } => Ok(self.step_initial()),
                Mode::Window(after) => {
                    let after = *after;
                    self.read_window(after).await.map(|()| None)
                }
                Mode::History(..) => self.step_history().await,
                Mode::Live(watcher) => {
                    let watcher = watcher.clone();
                    self.step_live(&watcher).await
                }
                Mode::Ended => return None,
            };
            match step {
                Ok(None) => {}
                Ok(Some(item)) => return Some(Ok(item)),
                Err(error) => {
                    self.leave();
                    return Some(Err(error));
                }
            }
        }
    }

    /// As a stream, for bodies.
    pub fn into_stream(self) -> impl Stream<Item = Result<WatchItem, CacheError>> + Send + 'static {
        futures::stream::unfold(self, |mut watch| async move { watch.next().await.map(|item| (item, watch)) })
    }

    fn step_initial(&mut self) -> Option<WatchItem> {
        let Mode::Initial { objects, cursor, revision, end_bookmark } = &mut self.mode else { return None };
        while let Some(object) = objects.next_ahead(cursor, self.filter.is_some()) {
            if !self.scope.holds(object) {
                // The scope is one run of keys, and the cursor began at its head.
                break;
            }
            if self.filter.as_ref().is_none_or(|filter| filter(object)) {
                let event = Arc::new(Event::new(object.revision(), Some(object.clone()), None));
                return Some(WatchItem::Event(Delivery { kind: EventKind::Added, event }));
            }
        }
        let (revision, end_bookmark) = (*revision, *end_bookmark);
        self.mode = Mode::Window(revision);
        self.sent = revision;
        end_bookmark.then_some(WatchItem::InitialEventsEnd(revision))
    }

    /// Takes the next events from the window and goes live at its end; turns to the store where the window is too young.
    async fn read_window(&mut self, after: Revision) -> Result<(), CacheError> {
        {
            let mut state = self.inner.state.lock();
            if !state.ready {
                return Err(CacheError::Restarted { prefix: self.inner.settings.prefix.clone() });
            }
            if after >= state.window_floor {
                let from = state.window.partition_point(|event| event.revision <= after);
                let until = state.window.len().min(from + WINDOW_STEP);
                for event in state.window.range(from..until) {
                    if let Some(kind) = event.kind_for(&self.scope, self.filter.as_ref()) {
                        self.pending.push_back(Delivery { kind, event: event.clone() });
                    }
                }
                if until < state.window.len() {
                    self.mode = Mode::Window(state.window[until - 1].revision);
                    return Ok(());
                }
                let watcher = Arc::new(Watcher {
                    scope: self.scope.clone(),
                    filter: self.filter.clone(),
                    after: after.max(state.applied),
                    queue: Mutex::new(Queue { deliveries: VecDeque::new(), phase: Phase::Live }),
                    waker: AtomicWaker::new(),
                });
                state.watchers.push(watcher.clone());
                self.mode = Mode::Live(watcher);
                return Ok(());
            }
        }
        let history = self.inner.store.watch(&self.inner.settings.prefix, after).await;
        self.mode = Mode::History(history.map_err(CacheError::from_store)?, after);
        Ok(())
    }

    async fn step_history(&mut self) -> Result<Option<WatchItem>, CacheError> {
        let Mode::History(stream, seen) = &mut self.mode else { return Ok(None) };
        match stream.next().await {
            Some(Ok(StoreItem::Event(event))) => {
                *seen = event.revision;
                let event = Arc::new(past_event(&self.inner, event));
                let kind = event.kind_for(&self.scope, self.filter.as_ref());
                self.pending.extend(kind.map(|kind| Delivery { kind, event }));
                Ok(None)
            }
            // The past is read: what came since is in the window, unless the reader was very slow.
            Some(Ok(StoreItem::Progress(revision))) => {
                let seen = revision.max(*seen);
                self.mode = Mode::Window(seen);
                Ok(None)
            }
            Some(Err(error)) => Err(CacheError::from_store(error)),
            None => Err(CacheError::Store(StoreError::Closed("its watch ended".to_owned()))),
        }
    }

    async fn step_live(&mut self, watcher: &Watcher) -> Result<Option<WatchItem>, CacheError> {
        let queued = poll_fn(|context| {
            watcher.waker.register(context.waker());
            let mut queue = watcher.queue.lock();
            if let Phase::Cut(error) = &queue.phase {
                return Poll::Ready(Err(error.clone()));
            }
            if !queue.deliveries.is_empty() {
                return Poll::Ready(Ok((std::mem::take(&mut queue.deliveries), None)));
            }
            match queue.phase {
                Phase::Lagging(after) => Poll::Ready(Ok((VecDeque::new(), Some(after)))),
                _ => Poll::Pending,
            }
        });
        let due = self.next_bookmark;
        let bookmark = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            queued = queued => {
                let (deliveries, lagging) = queued?;
                self.pending = deliveries;
                if let Some(after) = lagging {
                    self.mode = Mode::Window(after);
                }
                Ok(None)
            }
            () = bookmark => {
                self.next_bookmark = Some(Instant::now() + BOOKMARKS);
                Ok(self.bookmark(watcher))
            }
        }
    }

    /// A bookmark, if there is a revision to tell that the watcher does not know.
    fn bookmark(&mut self, watcher: &Watcher) -> Option<WatchItem> {
        // First the revision, then the queue: whatever was handed over before the revision was read is seen here.
        let revision = self.inner.delivered();
        let queue = watcher.queue.lock();
        let quiet = queue.deliveries.is_empty() && matches!(queue.phase, Phase::Live);
        (quiet && revision > self.sent).then(|| {
            self.sent = revision;
            WatchItem::Bookmark(revision)
        })
    }

    fn leave(&mut self) {
        if let Mode::Live(watcher) = std::mem::replace(&mut self.mode, Mode::Ended) {
            watcher.queue.lock().phase = Phase::Left;
            self.inner.state.lock().watchers.retain(|other| !Arc::ptr_eq(other, &watcher));
        }
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.leave();
    }
}

/// An event of the store's history with its objects.
fn past_event(inner: &Inner, event: StoreEvent) -> Event {
    let object = event.value.as_ref().and_then(|value| inner.object(&event.key, value, event.revision));
    let prev = event.prev.as_ref().and_then(|prev| inner.object(&event.key, &prev.value, prev.mod_revision));
    Event::new(event.revision, object, prev)
}
