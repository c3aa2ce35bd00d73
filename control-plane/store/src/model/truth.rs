//! What a store must answer: the simplest thing that keeps every version of every key.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{Entry, Event, Expect, Revision, Transaction, Write};

#[derive(Clone, Debug)]
struct Version {
    at: Revision,
    created: Revision,
    value: Option<Bytes>,
}

/// What a transaction must answer.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    Committed(Revision),
    Conflict { guard: usize, current: Option<Entry> },
}

#[derive(Default)]
pub(super) struct Truth {
    versions: BTreeMap<String, Vec<Version>>,
    /// In the order of the writes.
    events: BTreeMap<(Revision, usize), Event>,
    pub revision: Revision,
    /// Revisions below are compacted for certain.
    pub floor: Revision,
    /// Revisions from here on are not.
    pub floor_most: Revision,
}

impl Truth {
    /// An empty store at a revision.
    pub fn new(revision: Revision) -> Truth {
        Truth { revision, ..Truth::default() }
    }

    pub fn get(&self, key: &str, at: Revision) -> Option<Entry> {
        let version = self.versions.get(key)?.iter().rev().find(|version| version.at <= at)?;
        let value = version.value.clone()?;
        Some(Entry { key: key.to_owned(), value, create_revision: version.created, mod_revision: version.at })
    }

    /// What a transaction answers, without doing it.
    pub fn check(&self, transaction: &Transaction) -> Option<Outcome> {
        for (guard, (key, expect)) in transaction.guards.iter().enumerate() {
            let current = self.get(key, self.revision);
            let holds = match expect {
                Expect::Absent => current.is_none(),
                Expect::Present => current.is_some(),
                Expect::Revision(wanted) => current.as_ref().map(|entry| entry.mod_revision) == Some(*wanted),
            };
            if !holds {
                return Some(Outcome::Conflict { guard, current });
            }
        }
        None
    }

    pub fn apply(&mut self, transaction: &Transaction) -> Outcome {
        if let Some(conflict) = self.check(transaction) {
            return conflict;
        }
        let revision = self.revision + 1;
        let mut changed = 0;
        for write in &transaction.writes {
            let (key, value) = match write {
                Write::Put { key, value } | Write::Expiring { key, value, .. } => (key, Some(value.clone())),
                Write::Delete { key } => (key, None),
            };
            let prev = self.get(key, self.revision);
            if value.is_none() && prev.is_none() {
                continue;
            }
            let created = prev.as_ref().map_or(revision, |prev| prev.create_revision);
            self.versions.entry(key.clone()).or_default().push(Version {
                at: revision,
                created,
                value: value.clone(),
            });
            self.events.insert((revision, changed), Event { revision, key: key.clone(), value, prev });
            changed += 1;
        }
        if changed > 0 {
            self.revision = revision;
        }
        Outcome::Committed(self.revision)
    }

    /// The live entries under a prefix after a key, in order.
    pub fn list(&self, prefix: &str, after: Option<&str>, at: Revision) -> Vec<Entry> {
        let keys = self.versions.keys().filter(|key| key.starts_with(prefix));
        keys.filter(|key| after.is_none_or(|after| key.as_str() > after))
            .filter_map(|key| self.get(key, at))
            .collect()
    }

    /// The first event under a prefix after a place in the order of writes.
    pub fn next_event(&self, prefix: &str, after: (Revision, usize)) -> Option<((Revision, usize), &Event)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut later = self.events.range((Excluded(after), Unbounded));
        later.find(|(_, event)| event.key.starts_with(prefix)).map(|(place, event)| (*place, event))
    }

    /// Nobody will be told of events up to a revision any more.
    pub fn told(&mut self, revision: Revision) {
        self.events = self.events.split_off(&(revision + 1, 0));
    }

    /// How many versions are younger than a revision.
    pub fn versions_after(&self, revision: Revision) -> usize {
        self.events.range((revision + 1, 0)..).count()
    }

    /// A compaction is confirmed: what is below can be forgotten here too.
    pub fn compacted(&mut self, revision: Revision) {
        self.floor = self.floor.max(revision);
        self.floor_most = self.floor_most.max(revision);
        self.versions.retain(|_, versions| {
            let old = versions.iter().filter(|version| version.at <= revision).count();
            versions.drain(..old.saturating_sub(1));
            !(versions.len() == 1 && versions[0].at <= revision && versions[0].value.is_none())
        });
    }
}
