//! Upstream's work queue (client-go `util/workqueue`): a key is held once however often it is added, is worked on by one
//! worker at a time, and is queued again when it was added while being worked on.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// First and longest delay of [`WorkQueue::add_rate_limited`] (client-go's item exponential failure limiter).
const FIRST_DELAY: Duration = Duration::from_millis(5);
const LONGEST_DELAY: Duration = Duration::from_secs(1000);

/// A queue of keys; clones share it.
pub struct WorkQueue<K> {
    inner: Arc<Inner<K>>,
}

struct Inner<K> {
    state: Mutex<State<K>>,
    /// Woken for one waiting worker.
    ready: Notify,
    /// Woken when the earliest delayed key changed.
    delayed: Notify,
}

struct State<K> {
    queue: VecDeque<K>,
    dirty: HashSet<K>,
    processing: HashSet<K>,
    /// Keys by the instant they are due; the number keeps keys apart.
    waiting: BTreeMap<(Instant, u64), K>,
    due: HashMap<K, (Instant, u64)>,
    sequence: u64,
    failures: HashMap<K, u32>,
    closed: bool,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        WorkQueue { inner: self.inner.clone() }
    }
}

impl<K: Clone + Eq + Hash + Send + 'static> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Eq + Hash + Send + 'static> WorkQueue<K> {
    /// An empty queue.
    pub fn new() -> WorkQueue<K> {
        let state = State {
            queue: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashSet::new(),
            waiting: BTreeMap::new(),
            due: HashMap::new(),
            sequence: 0,
            failures: HashMap::new(),
            closed: false,
        };
        let inner = Inner { state: Mutex::new(state), ready: Notify::new(), delayed: Notify::new() };
        WorkQueue { inner: Arc::new(inner) }
    }

    /// Queues a key unless it is queued already.
    pub fn add(&self, key: K) {
        if self.inner.state.lock().add(key) {
            self.inner.ready.notify_one();
        }
    }

    /// Queues a key after a delay; an earlier due time of the same key wins.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        self.inner.state.lock().wait_until(key, Instant::now() + delay);
        // Whoever waits in `get` must look at the earliest due time again.
        self.inner.delayed.notify_one();
    }

    /// Queues a key after a delay that doubles with each call until [`WorkQueue::forget`].
    pub fn add_rate_limited(&self, key: K) {
        let delay = {
            let mut state = self.inner.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let delay = FIRST_DELAY.saturating_mul(1 << (*failures).min(20)).min(LONGEST_DELAY);
            *failures += 1;
            delay
        };
        self.add_after(key, delay);
    }

    /// Forgets a key's failures.
    pub fn forget(&self, key: &K) {
        self.inner.state.lock().failures.remove(key);
    }

    /// How often a key was queued by [`WorkQueue::add_rate_limited`] since it was forgotten.
    pub fn failures(&self, key: &K) -> u32 {
        self.inner.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The next key, to be given back by [`WorkQueue::done`]; `None` when the queue is closed and empty.
    pub async fn get(&self) -> Option<K> {
        loop {
            let next_due = {
                let mut state = self.inner.state.lock();
                state.promote(Instant::now());
                if let Some(key) = state.take() {
                    if !state.queue.is_empty() {
                        self.inner.ready.notify_one();
                    }
                    return Some(key);
                }
                if state.closed {
                    self.inner.ready.notify_one();
                    return None;
                }
                state.waiting.keys().next().map(|(due, _)| *due)
            };
            tokio::select! {
                () = self.inner.ready.notified() => {}
                () = self.inner.delayed.notified() => {}
                () = sleep_until(next_due) => {}
            }
        }
    }

    /// Ends the work on a key; it is queued again when it was added meanwhile.
    pub fn done(&self, key: K) {
        if self.inner.state.lock().done(key) {
            self.inner.ready.notify_one();
        }
    }

    /// Lets workers finish what is queued and then end; later additions are dropped.
    pub fn close(&self) {
        self.inner.state.lock().closed = true;
        self.inner.ready.notify_one();
    }

    /// How many keys wait to be worked on now.
    pub fn len(&self) -> usize {
        self.inner.state.lock().queue.len()
    }

    /// Whether no key waits to be worked on now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    /// Whether a worker has something new to do.
    fn add(&mut self, key: K) -> bool {
        if self.closed || !self.dirty.insert(key.clone()) || self.processing.contains(&key) {
            return false;
        }
        self.queue.push_back(key);
        true
    }

    fn wait_until(&mut self, key: K, due: Instant) {
        match self.due.get(&key) {
            Some((earlier, _)) if *earlier <= due => return,
            Some(later) => {
                let later = *later;
                self.waiting.remove(&later);
            }
            None => {}
        }
        self.sequence += 1;
        self.due.insert(key.clone(), (due, self.sequence));
        self.waiting.insert((due, self.sequence), key);
    }

    fn promote(&mut self, now: Instant) {
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key);
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.queue.pop_front()?;
        self.dirty.remove(&key);
        self.processing.insert(key.clone());
        Some(key)
    }

    fn done(&mut self, key: K) -> bool {
        self.processing.remove(&key);
        let again = self.dirty.contains(&key);
        if again {
            self.queue.push_back(key);
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_added_while_it_is_worked_on_is_queued_again() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.get().await, Some("a"));
        queue.add("a");
        assert!(queue.is_empty());
        queue.done("a");
        assert_eq!(queue.get().await, Some("a"));
        queue.done("a");
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn delays_double_and_the_earlier_due_time_wins() {
        let queue = WorkQueue::new();
        queue.add_after("late", Duration::from_secs(60));
        queue.add_after("late", Duration::from_secs(5));
        queue.add_after("late", Duration::from_secs(70));
        let begun = Instant::now();
        assert_eq!(queue.get().await, Some("late"));
        assert_eq!(begun.elapsed().as_secs(), 5);
        for expected in [5, 10, 20] {
            let begun = Instant::now();
            queue.add_rate_limited("late");
            queue.done("late");
            assert_eq!(queue.get().await, Some("late"));
            assert_eq!(begun.elapsed().as_millis(), expected);
        }
        queue.forget(&"late");
        assert_eq!(queue.failures(&"late"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_queue_ends_every_worker() {
        let queue = WorkQueue::new();
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let queue: WorkQueue<u32> = queue.clone();
                tokio::spawn(async move {
                    let mut count = 0;
                    while let Some(key) = queue.get().await {
                        count += 1;
                        queue.done(key);
                    }
                    count
                })
            })
            .collect();
        (0..100).for_each(|key| queue.add(key));
        queue.close();
        let mut sum = 0;
        for worker in workers {
            sum += worker.await.unwrap();
        }
        assert_eq!(sum, 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_worker_sees_a_delayed_key() {
        let queue: WorkQueue<u32> = WorkQueue::new();
        let worker = tokio::spawn({
            let queue = queue.clone();
            async move { queue.get().await }
        });
        tokio::task::yield_now().await;
        queue.add_after(7, Duration::from_secs(3));
        assert_eq!(worker.await.unwrap(), Some(7));
    }
}
