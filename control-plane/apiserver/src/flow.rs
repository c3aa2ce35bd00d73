//! Flow control: a bounded number of requests in flight, apart for reads and writes; watches and relays are exempt.
//! A request that finds no place waits a bounded time in a bounded queue, first come, first served. One user has at most
//! a part of the places and of the queue: who sends bodies slowly, or too much, keeps nobody else waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ahash::AHashMap;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// How long a request waits for a place before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many may wait for each place.
const WAITING_PER_SEAT: usize = 8;
/// One user has at most this part of a lane.
const USERS_PART: usize = 2;
/// Users that are remembered without a request.
const REMEMBERED: usize = 1024;

/// One user's part of a lane.
struct Share {
    seats: Arc<Semaphore>,
    waiting: AtomicUsize,
}

struct Lane {
    seats: Semaphore,
    limit: usize,
    waiting: AtomicUsize,
    users: Mutex<AHashMap<String, Arc<Share>>>,
}

impl Lane {
    fn new(limit: usize) -> Lane {
        let users = Mutex::new(AHashMap::new());
        Lane { seats: Semaphore::new(limit), limit, waiting: AtomicUsize::new(0), users }
    }

    fn share(&self, user: &str) -> Arc<Share> {
        let mut users = self.users.lock();
        if let Some(share) = users.get(user) {
            return share.clone();
        }
        if users.len() >= REMEMBERED {
            // Whoever has a request holds a share or a permit of it.
            users.retain(|_, share| Arc::strong_count(share) > 1 || Arc::strong_count(&share.seats) > 1);
        }
        let seats = Arc::new(Semaphore::new(self.limit.div_ceil(USERS_PART)));
        let share = Arc::new(Share { seats, waiting: AtomicUsize::new(0) });
        users.insert(user.to_owned(), share.clone());
        share
    }

    async fn enter(&self, user: &str) -> Option<Taken<'_>> {
        let share = self.share(user);
        if let Ok(own) = share.seats.clone().try_acquire_owned()
            && let Ok(seat) = self.seats.try_acquire()
        {
            return Some(Taken { _seat: seat, _own: own });
        }
        let most = self.limit * WAITING_PER_SEAT;
        let place = Waiting::take(&self.waiting, most)?;
        let own_place = Waiting::take(&share.waiting, most.div_ceil(USERS_PART))?;
        let both = async {
            let own = share.seats.clone().acquire_owned().await.ok()?;
            let seat = self.seats.acquire().await.ok()?;
            Some(Taken { _seat: seat, _own: own })
        };
        let taken = tokio::time::timeout(PATIENCE, both).await;
        drop((place, own_place));
        taken.ok()?
    }
}

/// A place of the lane and of the user's part of it.
struct Taken<'l> {
    _seat: SemaphorePermit<'l>,
    _own: OwnedSemaphorePermit,
}

/// A place in the queue; given back on drop, also when the client goes away.
struct Waiting<'l>(&'l AtomicUsize);

impl<'l> Waiting<'l> {
    fn take(count: &'l AtomicUsize, limit: usize) -> Option<Waiting<'l>> {
        let place = Waiting(count);
        (count.fetch_add(1, Ordering::Relaxed) < limit).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Limits of requests in flight (upstream's --max-requests-inflight and --max-mutating-requests-inflight).
pub struct FlowControl {
    reads: Lane,
    writes: Lane,
    watches: Arc<Watches>,
}

/// Watches of one user that may be open at once: many times what a busy component has, and bounded memory. Upstream's priority
/// and fairness bounds how many begin at once, and nothing how many are open.
const MAX_WATCHES: usize = 10_000;

/// How many watches each user has open.
#[derive(Default)]
struct Watches(Mutex<AHashMap<String, usize>>);

/// An open watch; given back on drop.
pub struct OpenWatch {
    of: Arc<Watches>,
    user: String,
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        let mut users = self.of.0.lock();
        if let Some(open) = users.get_mut(&self.user) {
            *open -= 1;
            if *open == 0 {
                users.remove(&self.user);
            }
        }
    }
}

/// A place among the requests in flight; given back on drop.
pub struct Seat<'a>(#[allow(dead_code, reason = "held for its drop")] Option<Taken<'a>>);

impl FlowControl {
    /// `reads` and `writes` at once.
    pub fn new(reads: usize, writes: usize) -> FlowControl {
        FlowControl { reads: Lane::new(reads), writes: Lane::new(writes), watches: Arc::default() }
    }

    /// A place for a watch as long as it is open, or `None` when its user has as many as may be.
    pub fn watch(&self, user: &str) -> Option<OpenWatch> {
        let mut users = self.watches.0.lock();
        match users.get_mut(user) {
            Some(open) if *open >= MAX_WATCHES => return None,
            Some(open) => *open += 1,
            None => drop(users.insert(user.to_owned(), 1)),
        }
        Some(OpenWatch { of: self.watches.clone(), user: user.to_owned() })
    }

    /// A seat, or `None` when as many requests are in flight and waiting as may be, or the wait was too long.
    pub async fn enter(&self, user: &str, verb: &str, exempt: bool) -> Option<Seat<'_>> {
        if exempt {
            return Some(Seat(None));
        }
        let lane = match verb {
            "create" | "update" | "patch" | "delete" | "deletecollection" | "post" | "put" => &self.writes,
            _ => &self.reads,
        };
        lane.enter(user).await.map(|taken| Seat(Some(taken)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lanes_are_apart_bounded_and_watches_exempt() {
        let flow = Arc::new(FlowControl::new(1, 1));
        let read = flow.enter("a", "list", false).await;
        assert!(read.is_some());
        assert!(flow.enter("a", "watch", true).await.is_some());
        assert!(flow.enter("a", "create", false).await.is_some());
        let queue: Vec<_> = (0..WAITING_PER_SEAT)
            .map(|number| {
                let flow = flow.clone();
                // No one of them has more than his part.
                let user = format!("user{}", number % 2);
                tokio::spawn(async move { flow.enter(&user, "get", false).await.is_some() })
            })
            .collect();
        tokio::task::yield_now().await;
        let started = tokio::time::Instant::now();
        assert!(flow.enter("b", "get", false).await.is_none(), "the queue is full");
        assert_eq!(started.elapsed(), Duration::ZERO);
        drop(read);
        for waiter in queue {
            assert!(waiter.await.unwrap(), "who waits gets the place that is given back");
        }
        let _held = flow.enter("a", "get", false).await;
        assert!(flow.enter("b", "get", false).await.is_none());
        assert!(started.elapsed() >= PATIENCE, "patience ends");
    }

    #[tokio::test(start_paused = true)]
    async fn one_user_leaves_places_to_the_others() {
        let flow = Arc::new(FlowControl::new(8, 8));
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(flow.enter("slow", "create", false).await.expect("a place"));
        }
        // His further requests wait, whatever is free, and fill his part of the queue only.
        let mut waiting = Vec::new();
        for _ in 0..40 {
            let flow = flow.clone();
            waiting.push(tokio::spawn(async move { flow.enter("slow", "create", false).await.is_some() }));
        }
        tokio::task::yield_now().await;
        let started = tokio::time::Instant::now();
        for _ in 0..4 {
            held.push(flow.enter("other", "create", false).await.expect("a place at once"));
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
        drop(held);
        let mut served = 0;
        for waiter in waiting {
            served += usize::from(waiter.await.unwrap());
        }
        assert_eq!(served, 8 * WAITING_PER_SEAT / USERS_PART, "the rest was refused at once");
    }

    #[test]
    fn one_user_has_only_so_many_watches() {
        let flow = FlowControl::new(1, 1);
        let mut open: Vec<_> = (0..MAX_WATCHES).map(|_| flow.watch("many").expect("a place")).collect();
        assert!(flow.watch("many").is_none());
        assert!(flow.watch("other").is_some());
        open.pop();
        assert!(flow.watch("many").is_some());
        drop(open);
        assert!(flow.watches.0.lock().is_empty());
    }

    #[tokio::test]
    async fn users_without_requests_are_forgotten() {
        let flow = FlowControl::new(4, 4);
        let _held = flow.enter("held", "get", false).await;
        for number in 0..2 * REMEMBERED {
            assert!(flow.enter(&number.to_string(), "get", false).await.is_some());
        }
        let users = flow.reads.users.lock();
        assert!(users.len() <= REMEMBERED + 1 && users.contains_key("held"));
    }
}
