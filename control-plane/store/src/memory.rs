//! The store in memory: for unit tests, under the same contract as the durable ones.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, ready};
use parking_lot::Mutex;

use crate::hub::{Changes, History, Hub};
use crate::{
    CommitError, Committed, Entry, Event, Expect, Page, Revision, Store, StoreError, Told, Transaction,
    Watch, Write, hub, keys,
};

/// Changes handed out in one stretch.
const STRETCH: usize = if cfg!(test) { 13 } else { 512 };

/// A value of a key, or its absence, from a revision on.
#[derive(Clone)]
struct Version {
    mod_revision: Revision,
    create_revision: Revision,
    value: Option<Bytes>,
}

#[derive(Default)]
struct State {
    keys: BTreeMap<String, Vec<Version>>,
    /// The keys written at each revision.
    log: BTreeMap<Revision, Vec<String>>,
    revision: Revision,
    floor: Revision,
    closed: bool,
}

struct Inner {
    state: Mutex<State>,
    hub: Arc<Hub>,
}

/// A store that forgets everything with the process. Cheap to clone: clones are the same store. Keys that expire need a
/// tokio runtime.
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

impl MemoryStore {
    pub fn new() -> MemoryStore {
        let state = State { revision: 1, ..State::default() };
        MemoryStore { inner: Arc::new(Inner { state: Mutex::new(state), hub: Hub::new(1) }) }
    }
}

impl State {
    fn check_open(&self) -> Result<(), StoreError> {
        if self.closed { Err(StoreError::Closed("it was shut down".to_owned())) } else { Ok(()) }
    }

    /// The version of a key at a revision; `None` where it is absent then.
    fn entry_at(&self, key: &str, at: Revision) -> Option<Entry> {
        entry_of(key, self.keys.get(key)?, at)
    }

    fn check_revision(&self, at: Revision) -> Result<(), StoreError> {
        if at < self.floor {
            return Err(StoreError::Compacted { requested: at, oldest: self.floor });
        }
        if at > self.revision {
            return Err(StoreError::Future { requested: at, current: self.revision });
        }
        Ok(())
    }

    fn commit(&mut self, transaction: Transaction) -> Result<(Vec<Event>, Revision), CommitError> {
        self.check_open()?;
        keys::check(&transaction)?;
        for (guard, (key, expect)) in transaction.guards.iter().enumerate() {
            let current = self.entry_at(key, self.revision);
            let holds = match (expect, &current) {
                (Expect::Absent, None) | (Expect::Present, Some(_)) => true,
                (Expect::Revision(wanted), Some(entry)) => entry.mod_revision == *wanted,
                _ => false,
            };
            if !holds {
                return Err(CommitError::Conflict { guard, current });
            }
        }
        let revision = self.revision + 1;
        let mut events = Vec::new();
        for write in transaction.writes {
            let prev = self.entry_at(write.key(), self.revision);
            let (key, value) = match write {
                Write::Put { key, value } | Write::Expiring { key, value, .. } => (key, Some(value)),
                Write::Delete { .. } if prev.is_none() => continue,
                Write::Delete { key } => (key, None),
            };
            let create_revision = prev.as_ref().map_or(revision, |prev| prev.create_revision);
            let version = Version { mod_revision: revision, create_revision, value: value.clone() };
            self.keys.entry(key.clone()).or_default().push(version);
            self.log.entry(revision).or_default().push(key.clone());
            events.push(Event { revision, key, value, prev });
        }
        if !events.is_empty() {
            self.revision = revision;
        }
        Ok((events, self.revision))
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        self.check_open()?;
        let revision = at.unwrap_or(self.revision);
        self.check_revision(revision)?;
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut page = Page { entries: Vec::new(), revision, more: false, count: 0 };
        for (key, versions) in self.keys.range::<str, _>((from, Bound::Unbounded)) {
            if !key.starts_with(prefix) {
                break;
            }
            let Some(entry) = entry_of(key, versions, revision) else { continue };
            page.count += 1;
            if limit == 0 || page.entries.len() < limit {
                page.entries.push(entry);
            } else {
                page.more = true;
            }
        }
        Ok(page)
    }

    fn changes(&self, prefix: &str, after: Revision) -> Result<Changes, StoreError> {
        self.check_open()?;
        if after < self.floor {
            return Err(StoreError::Compacted { requested: after, oldest: self.floor });
        }
        let mut changes = Changes { events: Vec::new(), upto: self.revision };
        if after >= self.revision {
            return Ok(changes);
        }
        for (&revision, keys) in self.log.range(after + 1..) {
            if changes.events.len() >= STRETCH {
                changes.upto = revision - 1;
                break;
            }
            for key in keys.iter().filter(|key| key.starts_with(prefix)) {
                let value = self.entry_at(key, revision).map(|entry| entry.value);
                let prev = self.entry_at(key, revision - 1);
                changes.events.push(Event { revision, key: key.clone(), value, prev });
            }
        }
        Ok(changes)
    }

    fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        self.check_open()?;
        if revision > self.revision {
            return Err(StoreError::Future { requested: revision, current: self.revision });
        }
        if revision <= self.floor {
            return Ok(());
        }
        self.floor = revision;
        let kept = self.log.split_off(&(revision + 1));
        let forgotten = std::mem::replace(&mut self.log, kept);
        for key in forgotten.into_values().flatten() {
            let Some(versions) = self.keys.get_mut(&key) else { continue };
            let newest_old = versions.partition_point(|version| version.mod_revision <= revision);
            let gone = match newest_old {
                0 => 0,
                n if versions[n - 1].value.is_none() => n,
                n => n - 1,
            };
            versions.drain(..gone);
            if versions.is_empty() {
                self.keys.remove(&key);
            }
        }
        Ok(())
    }
}

fn entry_of(key: &str, versions: &[Version], at: Revision) -> Option<Entry> {
    let index = versions.partition_point(|version| version.mod_revision <= at).checked_sub(1)?;
    let version = &versions[index];
    Some(Entry {
        key: key.to_owned(),
        value: version.value.clone()?,
        create_revision: version.create_revision,
        mod_revision: version.mod_revision,
    })
}

fn expiring(write: &Write) -> Option<(String, Duration)> {
    match write {
        Write::Expiring { key, ttl, .. } => Some((key.clone(), *ttl)),
        Write::Put { .. } | Write::Delete { .. } => None,
    }
}

/// Deletes a key after a time unless it was written anew.
async fn expire(inner: Weak<Inner>, key: String, written: Revision, ttl: Duration) {
    tokio::time::sleep(ttl).await;
    if let Some(inner) = inner.upgrade() {
        let guards = vec![(key.clone(), Expect::Revision(written))];
        // Lost only to a newer write, or to the store's end.
        let _ = inner.commit(Transaction { guards, writes: vec![Write::Delete { key }] });
    }
}

impl Inner {
    fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        let mut state = self.state.lock();
        let (events, revision) = state.commit(transaction)?;
        // Under the state's lock: published in revision order.
        if !events.is_empty() {
            drop(self.hub.publish(events, revision));
        }
        Ok(Committed { revision, told: Told::default() })
    }
}

impl History for Inner {
    fn changes(&self, prefix: &str, after: Revision) -> BoxFuture<'static, Result<Changes, StoreError>> {
        ready(self.state.lock().changes(prefix, after)).boxed()
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<Entry>, Revision), StoreError>> {
        let state = self.inner.state.lock();
        let answer = state.check_open().map(|()| (state.entry_at(key, state.revision), state.revision));
        ready(answer).boxed()
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        ready(self.inner.state.lock().list(prefix, after, limit, at)).boxed()
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Committed, CommitError>> {
        let expiring: Vec<(String, Duration)> = transaction.writes.iter().filter_map(expiring).collect();
        let answer = self.inner.commit(transaction);
        if let Ok(committed) = &answer {
            for (key, ttl) in expiring {
                tokio::spawn(expire(Arc::downgrade(&self.inner), key, committed.revision, ttl));
            }
        }
        ready(answer).boxed()
    }

    fn watch(&self, prefix: &str, after: Revision) -> BoxFuture<'_, Result<Watch, StoreError>> {
        let prefix = prefix.to_owned();
        async move { hub::watch(self.inner.hub.clone(), self.inner.clone(), None, &prefix, after).await }
            .boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        let state = self.inner.state.lock();
        ready(state.check_open().map(|()| state.revision)).boxed()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(self.inner.state.lock().compact(revision)).boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.state.lock().closed = true;
        self.inner.hub.close(StoreError::Closed("it was shut down".to_owned()));
        ready(Ok(())).boxed()
    }
}
