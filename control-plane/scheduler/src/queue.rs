//! The scheduling queue: active, backing off, waiting for an event, gated. Pure; time comes in as an argument.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use keelson_client::projections::PodView;

use crate::framework::{ClusterEvent, Profile};

/// First and longest wait after a failed attempt.
pub const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
/// See [`INITIAL_BACKOFF`].
pub const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// After this long a waiting pod is tried again whatever happened.
pub const MAX_WAIT: Duration = Duration::from_secs(300);

/// Highest priority first, then the one that waits longest.
type Order = (Reverse<i32>, Duration, u64);

#[derive(Clone, Debug, PartialEq)]
enum Place {
    Active(Order),
    /// Until this time.
    Backoff(Duration),
    /// Since this time, for one of these plugins to change its mind.
    Waiting(Duration, Vec<&'static str>),
    Gated,
    /// Given out by `pop`.
    InFlight,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<PodView>,
    place: Place,
    attempts: u32,
    /// When it entered the queue first.
    since: Duration,
    sequence: u64,
    backoff_until: Duration,
}

/// The queue; keys are pod uids.
#[derive(Debug, Default)]
pub struct SchedulingQueue {
    entries: AHashMap<Box<str>, Entry>,
    active: BTreeMap<Order, Box<str>>,
    /// (until, sequence) of pods backing off.
    backing_off: BTreeSet<(Duration, Box<str>)>,
    /// (since, uid) of pods that wait for an event.
    waiting: BTreeSet<(Duration, Box<str>)>,
    sequence: u64,
}

fn backoff(attempts: u32) -> Duration {
    INITIAL_BACKOFF.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(MAX_BACKOFF)
}

impl SchedulingQueue {
    /// Whether the pod is held.
    pub fn contains(&self, uid: &str) -> bool {
        self.entries.contains_key(uid)
    }

    /// The pod as it was last seen.
    pub fn pod(&self, uid: &str) -> Option<&Arc<PodView>> {
        self.entries.get(uid).map(|e| &e.pod)
    }

    /// Takes a new pod in, or a pod that changed in a way that may make it schedulable.
    pub fn add(&mut self, profile: &Profile, pod: Arc<PodView>, now: Duration) {
        let uid = pod.meta.uid.clone();
        let gated = profile.pre_enqueue.iter().any(|p| p.pre_enqueue(&pod).is_err());
        self.sequence += 1;
        let sequence = self.sequence;
        let entry = self.entries.entry(uid.clone()).or_insert_with(|| Entry {
            pod: pod.clone(),
            place: Place::Gated,
            attempts: 0,
            since: now,
            sequence,
            backoff_until: Duration::ZERO,
        });
        entry.pod = pod;
        if entry.place == Place::InFlight {
            return;
        }
        if gated {
            self.move_to(&uid, Place::Gated);
        } else {
            self.activate(&uid, now);
        }
    }

    /// Replaces the pod without moving it.
    pub fn refresh(&mut self, pod: Arc<PodView>) {
        if let Some(entry) = self.entries.get_mut(&pod.meta.uid) {
            entry.pod = pod;
        }
    }

    /// Forgets a pod.
    pub fn remove(&mut self, uid: &str) {
        self.move_to(uid, Place::InFlight);
        self.entries.remove(uid);
    }

    /// Gives out the next pod; it stays known until `remove`, `park` or `retry`.
    pub fn pop(&mut self, now: Duration) -> Option<Arc<PodView>> {
        self.promote(now);
        let (_, uid) = self.active.pop_first()?;
        let entry = self.entries.get_mut(&uid)?;
        entry.place = Place::InFlight;
        entry.attempts += 1;
        Some(entry.pod.clone())
    }

    /// Puts a pod back that no node takes, to wait for what may help `plugins`.
    pub fn park(&mut self, uid: &str, plugins: Vec<&'static str>, now: Duration) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.backoff_until = now + backoff(entry.attempts);
        }
        self.move_to(uid, Place::Waiting(now, plugins));
    }

    /// Puts a pod back after an error, to be tried again after its back-off.
    pub fn retry(&mut self, uid: &str, now: Duration) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.backoff_until = now + backoff(entry.attempts);
            let until = entry.backoff_until;
            self.move_to(uid, Place::Backoff(until));
        }
    }

    /// Moves the waiting pods that the event may help.
    pub fn on_event(&mut self, profile: &Profile, event: &ClusterEvent, now: Duration) {
        let helps = |entry: &Entry| match &entry.place {
            Place::Waiting(_, plugins) => {
                plugins.is_empty()
                    || plugins
                        .iter()
                        .any(|name| profile.plugin(name).is_some_and(|p| p.may_help(&entry.pod, event)))
            }
            _ => false,
        };
        let helped: Vec<Box<str>> = self
            .waiting
            .iter()
            .filter(|(_, uid)| self.entries.get(uid).is_some_and(helps))
            .map(|(_, uid)| uid.clone())
            .collect();
        for uid in helped {
            self.activate(&uid, now);
        }
    }

    /// When something is due next: `Some(now)` or earlier means at once.
    pub fn next_due(&self) -> Option<Duration> {
        if !self.active.is_empty() {
            return Some(Duration::ZERO);
        }
        let backoff = self.backing_off.first().map(|(until, _)| *until);
        let waiting = self.waiting.first().map(|(since, _)| *since + MAX_WAIT);
        backoff.into_iter().chain(waiting).min()
    }

    fn promote(&mut self, now: Duration) {
        while let Some((until, uid)) = self.backing_off.first().cloned() {
            if until > now {
                break;
            }
            self.activate(&uid, now);
        }
        while let Some((since, uid)) = self.waiting.first().cloned() {
            if since + MAX_WAIT > now {
                break;
            }
            self.activate(&uid, now);
        }
    }

    fn activate(&mut self, uid: &str, now: Duration) {
        let Some(entry) = self.entries.get(uid) else { return };
        let place = if entry.backoff_until > now {
            Place::Backoff(entry.backoff_until)
        } else {
            Place::Active((Reverse(entry.pod.priority), entry.since, entry.sequence))
        };
        self.move_to(uid, place);
    }

    fn move_to(&mut self, uid: &str, place: Place) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        match &entry.place {
            Place::Active(order) => {
                self.active.remove(order);
            }
            Place::Backoff(until) => {
                self.backing_off.remove(&(*until, uid.into()));
            }
            Place::Waiting(since, _) => {
                self.waiting.remove(&(*since, uid.into()));
            }
            _ => {}
        }
        match &place {
            Place::Active(order) => {
                self.active.insert(*order, uid.into());
            }
            Place::Backoff(until) => {
                self.backing_off.insert((*until, uid.into()));
            }
            Place::Waiting(since, _) => {
                self.waiting.insert((*since, uid.into()));
            }
            _ => {}
        }
        entry.place = place;
    }
}
