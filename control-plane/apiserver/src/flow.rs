//! Flow control: a bounded number of requests in flight, apart for reads and writes; watches and relays are exempt.
//! A request that finds no place waits a bounded time in a bounded queue, first come, first served.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// How long a request waits for a place before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many may wait for each place.
const WAITING_PER_SEAT: usize = 8;

struct Lane {
    seats: Semaphore,
    limit: usize,
    waiting: AtomicUsize,
}

impl Lane {
    fn new(limit: usize) -> Lane {
        Lane { seats: Semaphore::new(limit), limit, waiting: AtomicUsize::new(0) }
    }

    async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(permit) = self.seats.try_acquire() {
            return Some(permit);
        }
        let place = Waiting::take(&self.waiting, self.limit * WAITING_PER_SEAT)?;
        let permit = tokio::time::timeout(PATIENCE, self.seats.acquire()).await;
        drop(place);
        permit.ok()?.ok()
    }
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
}

/// A place among the requests in flight; given back on drop.
pub struct Seat<'a>(#[allow(dead_code, reason = "held for its drop")] Option<SemaphorePermit<'a>>);

impl FlowControl {
    /// `reads` and `writes` at once.
    pub fn new(reads: usize, writes: usize) -> FlowControl {
        FlowControl { reads: Lane::new(reads), writes: Lane::new(writes) }
    }

    /// A seat, or `None` when as many requests are in flight and waiting as may be, or the wait was too long.
    pub async fn enter(&self, verb: &str, exempt: bool) -> Option<Seat<'_>> {
        if exempt {
            return Some(Seat(None));
        }
        let lane = match verb {
            "create" | "update" | "patch" | "delete" | "deletecollection" | "post" | "put" => &self.writes,
            _ => &self.reads,
        };
        lane.enter().await.map(|permit| Seat(Some(permit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn lanes_are_apart_bounded_and_watches_exempt() {
        let flow = Arc::new(FlowControl::new(1, 1));
        let read = flow.enter("list", false).await;
        assert!(read.is_some());
        assert!(flow.enter("watch", true).await.is_some());
        assert!(flow.enter("create", false).await.is_some());
        let queue: Vec<_> = (0..WAITING_PER_SEAT)
            .map(|_| {
                let flow = flow.clone();
                tokio::spawn(async move { flow.enter("get", false).await.is_some() })
            })
            .collect();
        tokio::task::yield_now().await;
        let started = tokio::time::Instant::now();
        assert!(flow.enter("get", false).await.is_none(), "the queue is full");
        assert_eq!(started.elapsed(), Duration::ZERO);
        drop(read);
        for waiter in queue {
            assert!(waiter.await.unwrap(), "who waits gets the place that is given back");
        }
        let _held = flow.enter("get", false).await;
        assert!(flow.enter("get", false).await.is_none());
        assert!(started.elapsed() >= PATIENCE, "patience ends");
    }
}
