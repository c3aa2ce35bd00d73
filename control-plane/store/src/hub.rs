//! Who is told of commits, and the watch stream that joins a back end's history to them.
//!
//! What always holds: [`Hub::publish`] is called once per durable commit group, in revision order. A subscriber's queue
//! is a contiguous run of the changes under its prefix; one that overflows ends with whole revisions and the stream reads
//! on from the history. Who was handed a change is woken when its [`Told`] is dropped, unless it has looked by then.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt, poll_fn};
use futures::task::AtomicWaker;
use parking_lot::Mutex;

use crate::{Event, Frontier, Revision, StoreError, Watch, WatchItem};

/// Changes that may wait for one watcher; few in tests, so that they overflow.
const QUEUE: usize = if cfg!(test) { 24 } else { 1024 };
/// `needed` of a subscriber that is off the live feed.
const OFF: u64 = u64::MAX;

/// A stretch of history: all changes under a prefix after some revision, up to and including `upto`.
pub(crate) struct Changes {
    pub events: Vec<Event>,
    pub upto: Revision,
}

/// Where a watch reads what it cannot get live.
pub(crate) trait History: Send + Sync + 'static {
    /// The next stretch after `after`, of bounded size. Whole revisions only. `upto` is above `after` unless `after`
    /// is the newest revision or lies in the future.
    fn changes(&self, prefix: &str, after: Revision) -> BoxFuture<'static, Result<Changes, StoreError>>;
}

struct Subscriber {
    prefix: String,
    queue: Mutex<Queue>,
    waker: AtomicWaker,
    /// The revision of the last event queued (or published when it subscribed); [`OFF`] while off the feed.
    needed: AtomicU64,
}

struct Queue {
    events: VecDeque<Arc<Event>>,
    overflown: bool,
    closed: Option<StoreError>,
}

/// Asks a cluster for its newest revision and waits until everything up to it is published.
pub(crate) trait Reach: Send + Sync + 'static {
    fn reach(&self) -> BoxFuture<'_, Result<Revision, StoreError>>;
}

struct State {
    subscribers: Vec<Arc<Subscriber>>,
    closed: Option<StoreError>,
}

/// The subscribers of one store.
pub(crate) struct Hub {
    state: Mutex<State>,
    published: AtomicU64,
}

impl Hub {
    pub fn new(revision: Revision) -> Arc<Hub> {
        let state = State { subscribers: Vec::new(), closed: None };
        Arc::new(Hub { state: Mutex::new(state), published: AtomicU64::new(revision) })
    }

    /// The newest revision that is durable and told.
    pub fn published(&self) -> Revision {
        self.published.load(Ordering::Acquire)
    }

    /// Hands changes that are durable to all whom they concern; they are woken with what is returned. `events` are in
    /// order, `revision` is the last of them.
    pub fn publish(&self, events: Vec<Event>, revision: Revision) -> Told {
        let mut told: Vec<Arc<Subscriber>> = Vec::new();
        let mut state = self.state.lock();
        for event in events {
            let event = Arc::new(event);
            state.subscribers.retain(|subscriber| {
                if !event.key.starts_with(&subscriber.prefix) {
                    return true;
                }
                if !told.iter().any(|known| Arc::ptr_eq(known, subscriber)) {
                    told.push(subscriber.clone());
                }
                subscriber.push(&event)
            });
        }
        // After the queues: who reads the new revision finds its events queued.
        self.published.store(revision, Ordering::Release);
        Told((!told.is_empty()).then(|| told.into()))
    }

    /// Ends the streams there are with an error: the changes up to `revision` cannot be told. Later ones go on from there.
    pub fn cut(&self, error: &StoreError, revision: Revision) {
        let mut state = self.state.lock();
        for subscriber in state.subscribers.drain(..) {
            subscriber.queue.lock().closed = Some(error.clone());
            subscriber.needed.store(OFF, Ordering::Release);
            subscriber.waker.wake();
        }
        self.published.fetch_max(revision, Ordering::AcqRel);
    }

    /// Ends all streams, present and future, with an error.
    pub fn close(&self, error: StoreError) {
        let mut state = self.state.lock();
        for subscriber in state.subscribers.drain(..) {
            subscriber.queue.lock().closed = Some(error.clone());
            subscriber.waker.wake();
        }
        state.closed = Some(error);
    }

    /// Puts a subscriber (back) on the live feed; gives the revision after which it gets everything.
    fn attach(&self, subscriber: &Arc<Subscriber>) -> Result<Revision, StoreError> {
        let mut state = self.state.lock();
        if let Some(error) = &state.closed {
            return Err(error.clone());
        }
        let published = self.published.load(Ordering::Acquire);
        subscriber.queue.lock().overflown = false;
        subscriber.needed.store(published, Ordering::Release);
        state.subscribers.push(subscriber.clone());
        Ok(published)
    }

    fn detach(&self, subscriber: &Arc<Subscriber>) {
        self.state.lock().subscribers.retain(|other| !Arc::ptr_eq(other, subscriber));
    }
}

impl Subscriber {
    /// False takes it off the feed. The caller wakes it.
    fn push(&self, event: &Arc<Event>) -> bool {
        let mut queue = self.queue.lock();
        if queue.events.len() >= QUEUE {
            while queue.events.back().is_some_and(|last| last.revision == event.revision) {
                queue.events.pop_back();
            }
            queue.overflown = true;
            self.needed.store(OFF, Ordering::Release);
        } else {
            queue.events.push_back(event.clone());
            self.needed.store(event.revision, Ordering::Release);
        }
        !queue.overflown
    }

    fn is_unread(&self) -> bool {
        let queue = self.queue.lock();
        !queue.events.is_empty() || queue.overflown
    }

    fn wake_unless_read(&self) {
        if self.is_unread() {
            self.waker.wake();
        }
    }
}

/// The watchers that were handed the changes of a commit. Those that have not looked at them by then are woken when this is
/// dropped, on the thread that drops it: a task that reads the watch itself, or that runs beside its reader, saves the
/// wake of another thread. Every clone does so.
#[derive(Clone, Default)]
pub struct Told(Option<Arc<[Arc<Subscriber>]>>);

impl Told {
    /// Whether nobody is left who has not looked.
    pub fn is_settled(&self) -> bool {
        self.0.iter().flat_map(|told| told.iter()).all(|subscriber| !subscriber.is_unread())
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.0.iter().flat_map(|told| told.iter()).for_each(|subscriber| subscriber.wake_unless_read());
    }
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Told({})", self.0.as_ref().map_or(0, |told| told.len()))
    }
}

struct WatchFrontier {
    hub: Arc<Hub>,
    subscriber: Arc<Subscriber>,
    reach: Option<Arc<dyn Reach>>,
}

impl Frontier for WatchFrontier {
    fn now(&self) -> (Revision, Revision) {
        // In this order: what is published has raised `needed` before.
        let newest = self.hub.published();
        match self.subscriber.needed.load(Ordering::Acquire) {
            OFF => (newest, newest),
            needed => (newest, needed),
        }
    }

    fn latest(&self) -> BoxFuture<'_, Result<(Revision, Revision), StoreError>> {
        async move {
            if let Some(reach) = &self.reach {
                reach.reach().await?;
            }
            Ok(self.now())
        }
        .boxed()
    }
}

/// What a watch's reader does next.
enum Mode {
    /// Reads the history until it meets the live feed, which began after `until`.
    Past {
        until: Revision,
    },
    Live,
    Ended,
}

struct Reader {
    hub: Arc<Hub>,
    history: Arc<dyn History>,
    subscriber: Arc<Subscriber>,
    mode: Mode,
    pending: VecDeque<WatchItem>,
    /// Everything up to here is in `pending` or read.
    position: Revision,
    /// Live events up to here were read from the history.
    skip: Revision,
}

/// Opens a watch over a hub and a history; `reach` where others write to the store too.
pub(crate) async fn watch(
    hub: Arc<Hub>,
    history: Arc<dyn History>,
    reach: Option<Arc<dyn Reach>>,
    prefix: &str,
    after: Revision,
) -> Result<Watch, StoreError> {
    let subscriber = Arc::new(Subscriber {
        prefix: prefix.to_owned(),
        queue: Mutex::new(Queue { events: VecDeque::new(), overflown: false, closed: None }),
        waker: AtomicWaker::new(),
        needed: AtomicU64::new(OFF),
    });
    let until = hub.attach(&subscriber)?;
    let frontier = Arc::new(WatchFrontier { hub: hub.clone(), subscriber: subscriber.clone(), reach });
    let mode = Mode::Past { until };
    let mut reader =
        Reader { hub, history, subscriber, mode, pending: VecDeque::new(), position: after, skip: after };
    // The first stretch at once, so that a compacted revision is an answer and not an event.
    reader.read_past(until).await?;
    let items = futures::stream::unfold(reader, |mut reader| async move {
        reader.next().await.map(|item| (item, reader))
    });
    Ok(Watch::new(items.boxed(), frontier))
}

impl Reader {
    async fn next(&mut self) -> Option<Result<WatchItem, StoreError>> {
        loop {
            if let Some(item) = self.pending.pop_front() {
                return Some(Ok(item));
            }
            let step = match self.mode {
                Mode::Past { until } => self.read_past(until).await,
                Mode::Live => self.read_live().await,
                Mode::Ended => return None,
            };
            if let Err(error) = step {
                self.mode = Mode::Ended;
                return Some(Err(error));
            }
        }
    }

    async fn read_past(&mut self, until: Revision) -> Result<(), StoreError> {
        if let Some(error) = self.subscriber.queue.lock().closed.clone() {
            return Err(error);
        }
        let changes = self.history.changes(&self.subscriber.prefix, self.position).await?;
        self.pending.extend(changes.events.into_iter().map(WatchItem::Event));
        self.position = self.position.max(changes.upto);
        if self.position >= until {
            self.pending.push_back(WatchItem::Progress(changes.upto));
            self.skip = self.position;
            self.mode = Mode::Live;
        }
        Ok(())
    }

    async fn read_live(&mut self) -> Result<(), StoreError> {
        let subscriber = self.subscriber.clone();
        let (events, overflown) = poll_fn(|context| {
            subscriber.waker.register(context.waker());
            let mut queue = subscriber.queue.lock();
            if queue.events.is_empty() && !queue.overflown {
                return match &queue.closed {
                    Some(error) => Poll::Ready(Err(error.clone())),
                    None => Poll::Pending,
                };
            }
            Poll::Ready(Ok((std::mem::take(&mut queue.events), queue.overflown)))
        })
        .await?;
        for event in events {
            if event.revision > self.skip {
                self.position = event.revision;
                self.pending.push_back(WatchItem::Event(Arc::unwrap_or_clone(event)));
            }
        }
        if overflown {
            self.mode = Mode::Past { until: self.hub.attach(&self.subscriber)? };
        }
        Ok(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.hub.detach(&self.subscriber);
    }
}
