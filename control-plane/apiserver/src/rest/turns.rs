//! Turns among writers of one object: who lost a race is next, before those that come after it.
//!
//! A writer that starts over reads the store, which takes longer than the cache that a newcomer reads: without turns a
//! steady stream of newcomers makes it lose for ever, and its client is told of a conflict though nothing in the request
//! was out of date. Writes that meet no other never take a turn.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Mutex, MutexGuard};

/// More than writers that are likely to be in a race at one time.
const LANES: usize = 64;

/// Lanes to queue in, chosen by the object's key.
#[derive(Debug)]
pub struct Turns {
    lanes: Vec<Lane>,
    /// Writers in all lanes: while there is none, nobody looks for its lane.
    waiting: AtomicUsize,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Lane {
    turn: Mutex<()>,
    waiting: AtomicUsize,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns {
            lanes: (0..LANES).map(|_| Lane::default()).collect(),
            waiting: AtomicUsize::new(0),
            hasher: RandomState::new(),
        }
    }
}

/// A place in a lane, from asking for a turn to its end.
#[derive(Debug)]
struct Place<'a>(&'a Turns, &'a Lane);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.1.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Held while its owner writes.
#[derive(Debug)]
pub struct Turn<'a> {
    _turn: MutexGuard<'a, ()>,
    _place: Place<'a>,
}

impl Turns {
    /// The turn of a writer before its attempt `attempt` (from 0): always one after a lost race, and at first only while
    /// others have lost one.
    pub async fn before(&self, attempt: usize, key: impl FnOnce() -> String) -> Option<Turn<'_>> {
        if attempt == 0 && self.waiting.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let lane = &self.lanes[self.hasher.hash_one(key()) as usize % LANES];
        if attempt == 0 && lane.waiting.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        lane.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Place(self, lane);
        Some(Turn { _turn: lane.turn.lock().await, _place: place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn newcomers_wait_for_who_lost_a_race() {
        let turns = Turns::default();
        let key = || "/registry/leases/a/b".to_owned();
        let first = |attempt| turns.before(attempt, key).now_or_never();
        assert!(matches!(first(0), Some(None)), "nobody waits for nothing");
        let loser = first(1).expect("at once");
        assert!(loser.is_some());
        assert!(first(0).is_none(), "a newcomer waits");
        assert!(first(1).is_none(), "and another loser");
        drop(loser);
        assert!(matches!(first(0), Some(None)), "whoever stopped waiting is not waited for");
    }
}
