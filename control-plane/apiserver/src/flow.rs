//! Flow control: a bounded number of requests in flight, apart for reads and writes; watches and relays are exempt.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Limits of requests in flight (upstream's --max-requests-inflight and --max-mutating-requests-inflight).
pub struct FlowControl {
    reads: Semaphore,
    writes: Semaphore,
}

/// A place among the requests in flight; given back on drop.
pub struct Seat<'a>(#[allow(dead_code, reason = "held for its drop")] Option<SemaphorePermit<'a>>);

impl FlowControl {
    /// `reads` and `writes` at once.
    pub fn new(reads: usize, writes: usize) -> FlowControl {
        FlowControl { reads: Semaphore::new(reads), writes: Semaphore::new(writes) }
    }

    /// A seat, or `None` when as many requests are in flight as may be.
    pub fn enter(&self, verb: &str, long_running: bool) -> Option<Seat<'_>> {
        if long_running {
            return Some(Seat(None));
        }
        let lane = match verb {
            "create" | "update" | "patch" | "delete" | "deletecollection" | "post" | "put" => &self.writes,
            _ => &self.reads,
        };
        lane.try_acquire().ok().map(|permit| Seat(Some(permit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_apart_and_watches_exempt() {
        let flow = FlowControl::new(1, 1);
        let read = flow.enter("list", false);
        assert!(read.is_some());
        assert!(flow.enter("get", false).is_none());
        assert!(flow.enter("watch", true).is_some());
        let write = flow.enter("patch", false);
        assert!(write.is_some());
        assert!(flow.enter("create", false).is_none());
        drop(read);
        assert!(flow.enter("get", false).is_some());
    }
}
