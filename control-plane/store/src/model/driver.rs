//! One run: makes operations from a seed, gives them to a store, compares.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::truth::{Outcome, Truth};
use crate::{
    CommitError, Committed, Entry, Expect, Page, Revision, Store, StoreError, Transaction, Watch, WatchItem,
    Write,
};

/// What a back end offers beside the trait.
pub(super) trait Backend {
    fn store(&self) -> &dyn Store;
    /// Lets what is queued happen, at most `most` requests in one group; false when nothing was left.
    fn step(&self, most: usize) -> bool;
    /// Housekeeping that a store does by itself at times it chooses.
    fn tend(&mut self) {}
    /// Ends the store cleanly and opens it anew; false where the back end cannot.
    fn reopen(&mut self) -> bool {
        false
    }
    /// Arms a fault that will hit soon.
    fn arm(&mut self, _random: &mut StdRng) {}
    /// True if the store is beyond use and must be brought back.
    fn down(&self) -> bool {
        false
    }
    /// Brings the store back after a fault; true if there was one.
    fn recover(&mut self, _random: &mut StdRng) -> bool {
        false
    }
    /// A full disk lets the store forget history that nobody told it to.
    fn compacts_unasked(&self) -> bool {
        false
    }
    /// Whether what can be read can be read at once, or other threads work on it.
    fn is_instant(&self) -> bool {
        true
    }
    /// Whether commits that are under way together are made in the order they were given.
    fn keeps_order(&self) -> bool {
        true
    }
    /// Looks at the back end's own invariants while nothing is under way.
    fn examine(&self, _rows_at_most: Option<usize>) -> Result<(), String> {
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stats {
    pub operations: u64,
    pub commits: u64,
    pub conflicts: u64,
    pub events: u64,
    pub lists: u64,
    pub compactions: u64,
    pub recoveries: u64,
    pub reopens: u64,
    pub expired: u64,
    pub full: u64,
    pub unknown: u64,
}

/// How a run differs from others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub seed: u64,
    pub operations: u64,
    /// A fault is armed about every so many operations; 0: never.
    pub faults_every: u64,
}

struct Watcher {
    prefix: String,
    stream: Watch,
    /// The place of the last event received, and what progress has covered.
    place: (Revision, usize),
    /// The newest revision it was told of.
    seen: Revision,
}

pub(super) struct Driver<'a, B> {
    backend: &'a mut B,
    truth: Truth,
    random: StdRng,
    watchers: Vec<Watcher>,
    plan: Plan,
    stats: Stats,
    serial: u64,
}

type Violation = String;
type CommitFuture<'a> = BoxFuture<'a, Result<Committed, CommitError>>;

const PREFIXES: [&str; 6] =
    ["/registry/pods/", "/registry/pods/a/", "/registry/leases/", "/keelson/", "/", "/none/"];

fn poll<T>(future: &mut BoxFuture<'_, T>) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// A read: answered at once by back ends without threads, waited for otherwise.
fn wait<T>(future: BoxFuture<'_, T>) -> T {
    futures::executor::block_on(future)
}

/// A bounded wait for what another thread must bring.
fn within_ten_seconds<T>(future: impl Future<Output = T>) -> Result<Poll<T>, Violation> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let limit = std::time::Duration::from_secs(10);
    let waited = runtime.block_on(async { tokio::time::timeout(limit, future).await });
    waited.map(Poll::Ready).map_err(|_| "nothing came for ten seconds".to_owned())
}

impl<'a, B: Backend> Driver<'a, B> {
    pub fn run(backend: &'a mut B, plan: Plan) -> Result<Stats, Violation> {
        let random = StdRng::seed_from_u64(plan.seed);
        let start = wait(backend.store().revision()).map_err(|error| format!("at the start: {error}"))?;
        let truth = Truth::new(start);
        let stats = Stats::default();
        let mut driver = Driver { backend, truth, random, watchers: Vec::new(), plan, stats, serial: 0 };
        while driver.stats.operations < plan.operations {
            let at = driver.stats.operations;
            driver.operation().map_err(|what| format!("seed {} operation {at}: {what}", plan.seed))?;
        }
        driver.settle().map_err(|what| format!("seed {} at the end: {what}", plan.seed))?;
        Ok(driver.stats)
    }

    fn operation(&mut self) -> Result<(), Violation> {
        if self.plan.faults_every > 0 && self.random.random_range(0..self.plan.faults_every) < 8 {
            self.backend.arm(&mut self.random);
        }
        match self.random.random_range(0..1000) {
            0..500 => self.commit_group(),
            500..600 => self.get(),
            600..690 => self.list(),
            690..720 => self.pages(),
            720..780 => self.open_watch(),
            780..960 => self.read_watch(),
            960..980 => self.compact(),
            980..992 => {
                self.backend.tend();
                self.check_down()
            }
            992..997 => self.refused(),
            _ => self.reopen(),
        }
    }

    fn key(&mut self) -> String {
        let n = self.random.random_range(0..14);
        match self.random.random_range(0..10) {
            0..5 => format!("/registry/pods/{}/p{n}", ["a", "b", "a-b"][n % 3]),
            5..8 => format!("/registry/leases/l{n}"),
            _ => format!("/keelson/k{n}"),
        }
    }

    fn value(&mut self) -> Bytes {
        self.serial += 1;
        let size = match self.random.random_range(0..100) {
            0..80 => self.random.random_range(0..200),
            80..98 => self.random.random_range(200..3000),
            _ => self.random.random_range(3000..20_000),
        };
        Bytes::from(format!(r#"{{"n":{},"p":"{}"}}"#, self.serial, "é".repeat(size / 2)))
    }

    fn expect(&mut self, key: &str) -> Expect {
        let current = self.truth.get(key, self.truth.revision);
        let right = self.random.random_bool(0.85);
        match (&current, self.random.random_range(0..3)) {
            (Some(entry), 0 | 1) if right => Expect::Revision(entry.mod_revision),
            (Some(_), _) if right => Expect::Present,
            (None, _) if right => Expect::Absent,
            (_, 0) => Expect::Absent,
            (_, 1) => Expect::Present,
            _ => Expect::Revision(self.truth.revision.saturating_sub(3)),
        }
    }

    fn transaction(&mut self) -> Transaction {
        let mut transaction = Transaction::default();
        let key = self.key();
        if self.random.random_bool(0.7) {
            transaction.guards.push((key.clone(), self.expect(&key)));
        }
        if self.random.random_bool(0.1) {
            let other = self.key();
            transaction.guards.push((other.clone(), self.expect(&other)));
        }
        if self.random.random_bool(0.02) {
            return transaction;
        }
        let write = if self.random.random_bool(0.25) {
            Write::Delete { key }
        } else {
            Write::Put { key, value: self.value() }
        };
        transaction.writes.push(write);
        for n in 0..self.random.random_range(0..8usize).saturating_sub(5) {
            let key = format!("/keelson/beside{n}");
            let value = self.value();
            let deletes = self.random.random_bool(0.2);
            transaction.writes.push(if deletes { Write::Delete { key } } else { Write::Put { key, value } });
        }
        transaction
    }

    /// Several transactions at once: they share fsyncs as the back end likes, and answer in order.
    fn commit_group(&mut self) -> Result<(), Violation> {
        let count = if self.random.random_bool(0.5) { 1 } else { self.random.random_range(1..12) };
        let group: Vec<Transaction> = (0..count).map(|_| self.transaction()).collect();
        let most = self.random.random_range(1..16);
        self.stats.operations += count as u64;
        let answers = self.submit(&group, most);
        if self.backend.down() {
            return self.recover(&group, answers);
        }
        for (transaction, answer) in group.iter().zip(answers) {
            self.compare_commit(transaction, answer)?;
        }
        Ok(())
    }

    fn submit(&mut self, group: &[Transaction], most: usize) -> Vec<Result<Committed, CommitError>> {
        let store = self.backend.store();
        if !self.backend.keeps_order() {
            return group.iter().map(|one| wait(store.commit(one.clone()))).collect();
        }
        let mut futures: Vec<CommitFuture<'_>> = group.iter().map(|one| store.commit(one.clone())).collect();
        let mut answers: Vec<_> = futures.iter_mut().map(poll).collect();
        while self.backend.step(most) {}
        for (future, answer) in futures.into_iter().zip(&mut answers) {
            if answer.is_pending() {
                *answer = Poll::Ready(wait(future));
            }
        }
        answers
            .into_iter()
            .map(|answer| match answer {
                Poll::Ready(answer) => answer,
                Poll::Pending => unreachable!("it was waited for"),
            })
            .collect()
    }

    fn compare_commit(
        &mut self,
        transaction: &Transaction,
        answer: Result<Committed, CommitError>,
    ) -> Result<(), Violation> {
        if matches!(answer, Err(CommitError::Store(StoreError::Full))) && self.plan.faults_every > 0 {
            self.stats.full += 1;
            return Ok(());
        }
        if self.plan.faults_every > 0 && self.settled_by_reading(transaction, &answer)? {
            return Ok(());
        }
        let expected = self.truth.apply(transaction);
        let got = match answer {
            Ok(committed) => Outcome::Committed(committed.revision),
            Err(CommitError::Conflict { guard, current }) => Outcome::Conflict { guard, current },
            Err(CommitError::Store(error)) => return Err(format!("commit failed: {error}")),
        };
        match &got {
            Outcome::Committed(_) => self.stats.commits += 1,
            Outcome::Conflict { .. } => self.stats.conflicts += 1,
        }
        if got != expected {
            return Err(format!("commit answered {got:?}, expected {expected:?} for {transaction:?}"));
        }
        Ok(())
    }

    /// Whether an answer leaves open what happened: then the store is asked, and the answer must be true of that.
    fn settled_by_reading(
        &mut self,
        transaction: &Transaction,
        answer: &Result<Committed, CommitError>,
    ) -> Result<bool, Violation> {
        let (Err(CommitError::Store(StoreError::Unknown(why)))
        | Err(CommitError::Store(StoreError::Unavailable(why)))) = answer
        else {
            return Ok(false);
        };
        self.stats.unknown += 1;
        let found = wait(self.backend.store().revision())
            .map_err(|error| format!("after an unknown outcome ({why}): {error}"))?;
        if found > self.truth.revision {
            if matches!(answer, Err(CommitError::Store(StoreError::Unavailable(_)))) {
                return Err(format!("a write that was not made was made: {why}"));
            }
            self.truth.apply(transaction);
        }
        if found != self.truth.revision {
            let expected = self.truth.revision;
            return Err(format!("after an unknown outcome at revision {found}, expected {expected}"));
        }
        Ok(true)
    }

    /// After a fault: the store comes back with a prefix of the group that was under way, all that was answered in it, and
    /// nothing of what was refused as closed.
    fn recover(
        &mut self,
        group: &[Transaction],
        answers: Vec<Result<Committed, CommitError>>,
    ) -> Result<(), Violation> {
        let seen = self.watchers.iter().map(|watcher| watcher.seen).max().unwrap_or(0);
        let places: Vec<_> =
            std::mem::take(&mut self.watchers).into_iter().map(|w| (w.prefix, w.place)).collect();
        if !self.backend.recover(&mut self.random) {
            return Err("the back end is down without a fault".to_owned());
        }
        self.stats.recoveries += 1;
        let found =
            wait(self.backend.store().revision()).map_err(|error| format!("after a fault: {error}"))?;
        let unknown = |answer: &Result<Committed, CommitError>| {
            matches!(answer, Err(CommitError::Store(StoreError::Unknown(_) | StoreError::Full)))
        };
        for (transaction, answer) in group.iter().zip(answers) {
            if matches!(answer, Err(CommitError::Store(StoreError::Closed(_)))) {
                continue;
            }
            if !unknown(&answer) {
                self.compare_commit(transaction, answer)?;
            } else if self.truth.revision < found {
                self.truth.apply(transaction);
            }
        }
        if self.truth.revision != found {
            let expected = self.truth.revision;
            return Err(format!(
                "acknowledged write lost: came back at revision {found}, expected {expected}"
            ));
        }
        if seen > found {
            return Err(format!("a watcher saw revision {seen}, a crash took it back to {found}"));
        }
        self.backend.examine(None)?;
        self.check_all()?;
        for (prefix, place) in places {
            self.watch_from(prefix, place.0, (place.0, usize::MAX))?;
        }
        Ok(())
    }

    fn check_down(&mut self) -> Result<(), Violation> {
        if self.backend.down() { self.recover(&[], Vec::new()) } else { Ok(()) }
    }

    /// Whether an error of a read is one the fault explains; then the store is brought back.
    fn excuse<T>(&mut self, answer: Result<T, StoreError>) -> Result<Option<T>, Violation> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(StoreError::Database(_) | StoreError::Closed(_) | StoreError::Unavailable(_))
                if self.plan.faults_every > 0 =>
            {
                self.check_down()?;
                Ok(None)
            }
            Err(error) => Err(format!("a read failed: {error}")),
        }
    }

    fn get(&mut self) -> Result<(), Violation> {
        self.stats.operations += 1;
        let key = self.key();
        let answer = wait(self.backend.store().get(&key));
        let Some((entry, revision)) = self.excuse(answer)? else { return Ok(()) };
        let expected = self.truth.get(&key, self.truth.revision);
        if (&entry, revision) != (&expected, self.truth.revision) {
            let at = self.truth.revision;
            return Err(format!("get {key} gave {entry:?} at {revision}, expected {expected:?} at {at}"));
        }
        Ok(())
    }

    /// A revision to read at: the newest, an old one, sometimes one that is compacted or in the future.
    fn past(&mut self) -> Option<Revision> {
        let (newest, floor) = (self.truth.revision, self.truth.floor);
        match self.random.random_range(0..10) {
            0..4 => None,
            4..8 => Some(self.random.random_range(floor..=newest)),
            8 => Some(self.random.random_range(0..=newest)),
            _ => Some(newest + self.random.random_range(0..2)),
        }
    }

    /// The newest revision up to which history may be gone.
    fn floor_most(&self) -> Revision {
        if self.backend.compacts_unasked() { self.truth.revision } else { self.truth.floor_most }
    }

    /// Whether an old revision may be refused as compacted; what is learned narrows the doubt.
    fn refusal(&mut self, error: &StoreError, requested: Revision) -> Result<(), Violation> {
        let floor_most = self.floor_most();
        match error {
            StoreError::Compacted { requested: named, oldest }
                if *named == requested && requested < *oldest && *oldest <= floor_most =>
            {
                self.truth.compacted(*oldest);
                self.stats.expired += 1;
                Ok(())
            }
            StoreError::Future { current, .. } if requested > *current && *current == self.truth.revision => {
                Ok(())
            }
            error => {
                Err(format!("revision {requested} refused wrongly: {error} (floor {})", self.truth.floor))
            }
        }
    }

    fn compare_page(
        &mut self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        page: &Page,
    ) -> Result<(), Violation> {
        let expected = self.truth.list(prefix, after, page.revision);
        let shown = if limit == 0 { expected.len() } else { limit.min(expected.len()) };
        let same = page.entries[..] == expected[..shown]
            && page.more == (shown < expected.len())
            && page.count == expected.len() as u64;
        if !same {
            let name = |entries: &[Entry]| -> Vec<_> {
                entries.iter().map(|e| (e.key.clone(), e.create_revision, e.mod_revision)).collect()
            };
            return Err(format!(
                "list {prefix} after {after:?} limit {limit} at {}: {:?} more {} count {}, expected {:?}",
                page.revision,
                name(&page.entries),
                page.more,
                page.count,
                name(&expected)
            ));
        }
        Ok(())
    }

    fn list(&mut self) -> Result<(), Violation> {
        self.stats.operations += 1;
        self.stats.lists += 1;
        let prefix = PREFIXES[self.random.random_range(0..PREFIXES.len())];
        let after = self.random.random_bool(0.3).then(|| self.key());
        let limit = if self.random.random_bool(0.5) { 0 } else { self.random.random_range(1..10) };
        let at = self.past();
        let answer = wait(self.backend.store().list(prefix, after.as_deref(), limit, at));
        match (answer, at) {
            (Err(error @ (StoreError::Compacted { .. } | StoreError::Future { .. })), Some(at)) => {
                self.refusal(&error, at)
            }
            (answer, at) => {
                let Some(page) = self.excuse(answer)? else { return Ok(()) };
                if page.revision != at.unwrap_or(self.truth.revision) || page.revision < self.truth.floor {
                    return Err(format!("list at {at:?} answered revision {}", page.revision));
                }
                self.compare_page(prefix, after.as_deref(), limit, &page)
            }
        }
    }

    /// A whole list page by page at the first page's revision, with writes between.
    fn pages(&mut self) -> Result<(), Violation> {
        let prefix = PREFIXES[self.random.random_range(0..3)];
        let limit = self.random.random_range(1..6);
        let mut after: Option<String> = None;
        let mut at = None;
        let mut all = Vec::new();
        loop {
            self.stats.operations += 1;
            self.stats.lists += 1;
            let answer = wait(self.backend.store().list(prefix, after.as_deref(), limit, at));
            if let (Err(error @ StoreError::Compacted { .. }), Some(at)) = (&answer, at) {
                return self.refusal(error, at);
            }
            let recoveries = self.stats.recoveries;
            let Some(page) = self.excuse(answer)? else { return Ok(()) };
            self.compare_page(prefix, after.as_deref(), limit, &page)?;
            if *at.get_or_insert(page.revision) != page.revision {
                return Err(format!("a page at {at:?} answered revision {}", page.revision));
            }
            let more = page.more;
            all.extend(page.entries);
            after = all.last().map(|entry| entry.key.clone());
            if !more {
                break;
            }
            if self.random.random_bool(0.5) {
                self.commit_group()?;
            }
            // A crash may have taken back the revision the pages are read at.
            if self.stats.recoveries != recoveries && at.is_some_and(|at| at > self.truth.revision) {
                return Err(format!("revision {at:?} was shown and then lost"));
            }
        }
        let at = at.unwrap_or_default();
        if at >= self.truth.floor && all != self.truth.list(prefix, None, at) {
            return Err(format!("the pages of {prefix} at {at} are not the list"));
        }
        Ok(())
    }

    fn open_watch(&mut self) -> Result<(), Violation> {
        self.stats.operations += 1;
        if self.watchers.len() >= 6 {
            let index = self.random.random_range(0..self.watchers.len());
            self.watchers.swap_remove(index);
        }
        let prefix = PREFIXES[self.random.random_range(0..PREFIXES.len())].to_owned();
        let after = self.past().unwrap_or(self.truth.revision);
        self.watch_from(prefix, after, (after, usize::MAX))
    }

    fn watch_from(
        &mut self,
        prefix: String,
        after: Revision,
        place: (Revision, usize),
    ) -> Result<(), Violation> {
        let answer = wait(self.backend.store().watch(&prefix, after));
        if let Err(error @ StoreError::Compacted { .. }) = &answer {
            return self.refusal(error, after);
        }
        if let Some(stream) = self.excuse(answer)? {
            if after < self.truth.floor {
                return Err(format!("a watch after {after} was opened, {} is compacted", self.truth.floor));
            }
            self.watchers.push(Watcher { prefix, stream, place, seen: 0 });
        }
        Ok(())
    }

    /// Reads some items of one watcher, or all it has.
    fn read_watch(&mut self) -> Result<(), Violation> {
        self.stats.operations += 1;
        if self.watchers.is_empty() {
            return Ok(());
        }
        let index = self.random.random_range(0..self.watchers.len());
        // Some are read seldom, so that they fall behind.
        if index == 0 && self.random.random_bool(0.9) {
            return Ok(());
        }
        let most = if self.random.random_bool(0.3) { usize::MAX } else { self.random.random_range(1..40) };
        for _ in 0..most {
            if !self.read_item(index)? {
                break;
            }
        }
        Ok(())
    }

    /// One item; false when there is none now.
    fn read_item(&mut self, index: usize) -> Result<bool, Violation> {
        let watcher = &mut self.watchers[index];
        let mut item = Pin::new(&mut watcher.stream).poll_next(&mut Context::from_waker(Waker::noop()));
        if item.is_pending() && !self.backend.is_instant() {
            // Only where something must come.
            let due = self.truth.next_event(&watcher.prefix, watcher.place).is_some();
            let needed = watcher.stream.frontier().now().1 > watcher.place.0;
            if due || needed && watcher.place.0 < self.truth.revision {
                item = within_ten_seconds(watcher.stream.next())?;
            }
        }
        let item = match item {
            Poll::Pending => return self.check_drained(index).map(|()| false),
            Poll::Ready(item) => item,
        };
        let expected = self.truth.next_event(&watcher.prefix, watcher.place);
        match item {
            Some(Ok(WatchItem::Event(event))) => {
                self.stats.operations += 1;
                self.stats.events += 1;
                match expected {
                    Some((place, expected)) if *expected == event => {
                        watcher.place = place;
                        watcher.seen = place.0;
                    }
                    expected => {
                        let (prefix, place) = (&watcher.prefix, watcher.place);
                        return Err(format!(
                            "watch {prefix} at {place:?} gave {} {}, expected {:?}",
                            event.revision,
                            event.key,
                            expected.map(|(place, event)| (place, event.key.clone()))
                        ));
                    }
                }
                Ok(true)
            }
            Some(Ok(WatchItem::Progress(revision))) => {
                if let Some((place, event)) = expected.filter(|(place, _)| place.0 <= revision) {
                    return Err(format!("progress to {revision} skipped {} at {place:?}", event.key));
                }
                watcher.seen = watcher.seen.max(revision);
                watcher.place = watcher.place.max((revision.min(self.truth.revision), usize::MAX));
                Ok(true)
            }
            Some(Err(StoreError::Compacted { requested, oldest })) => {
                let watcher = self.watchers.swap_remove(index);
                self.stats.expired += 1;
                if requested >= oldest || oldest > self.floor_most() || watcher.place.0 >= oldest {
                    return Err(format!("watch at {:?} cut at {oldest} wrongly", watcher.place));
                }
                Ok(false)
            }
            Some(Err(error)) => {
                let watcher = self.watchers.swap_remove(index);
                let place = watcher.place;
                let _: Option<()> = self.excuse(Err(error))?;
                self.watch_from(watcher.prefix, place.0, (place.0, usize::MAX))?;
                Ok(false)
            }
            None => Err("a watch ended without an error".to_owned()),
        }
    }

    /// Nothing waits for a watcher: it must have seen all there is.
    fn check_drained(&mut self, index: usize) -> Result<(), Violation> {
        let watcher = &self.watchers[index];
        if !self.backend.down()
            && let Some((place, event)) = self.truth.next_event(&watcher.prefix, watcher.place)
        {
            return Err(format!("watch {} misses {} at {place:?}", watcher.prefix, event.key));
        }
        let (newest, needed) = watcher.stream.frontier().now();
        let seen = watcher.place.0;
        // Where changes arrive by themselves, one may be queued that is not yet published.
        let needed_most = if self.backend.is_instant() { newest } else { self.truth.revision };
        if newest > self.truth.revision
            || needed > needed_most
            || (needed > seen && seen < self.truth.revision)
        {
            let prefix = &watcher.prefix;
            return Err(format!("frontier of {prefix} is {newest}/{needed}, seen {seen}"));
        }
        Ok(())
    }

    fn compact(&mut self) -> Result<(), Violation> {
        self.stats.operations += 1;
        self.stats.compactions += 1;
        let newest = self.truth.revision;
        let revision = match self.random.random_range(0..4) {
            0 => newest,
            1 => newest + 1,
            _ => self.random.random_range(self.truth.floor..=newest),
        };
        self.truth.floor_most = self.truth.floor_most.max(revision.min(newest));
        let answer = self.submit_compaction(revision);
        if self.backend.down() {
            return self.check_down();
        }
        match answer {
            Ok(()) if revision <= newest => self.truth.compacted(revision),
            Err(StoreError::Future { current, .. }) if revision > newest && current == newest => {
                return Ok(());
            }
            Err(StoreError::Full | StoreError::Unavailable(_)) if self.plan.faults_every > 0 => {
                self.stats.full += 1;
                return Ok(());
            }
            answer => return Err(format!("compact {revision} at {newest} answered {answer:?}")),
        }
        // A watcher that is slow may still be handed what it had been queued.
        let slowest = self
            .watchers
            .iter()
            .map(|watcher| watcher.place.0.saturating_sub(1))
            .min()
            .unwrap_or(Revision::MAX);
        self.truth.told(self.truth.floor.min(slowest));
        // The rows that may be left: live ones, later versions, and what the newest revision of a compaction deleted.
        let later = self.truth.versions_after(self.truth.floor);
        let live = self.truth.list("", None, self.truth.floor).len();
        self.backend.examine(Some(live + later + 4))?;
        self.check_all()
    }

    fn submit_compaction(&self, revision: Revision) -> Result<(), StoreError> {
        let mut future = self.backend.store().compact(revision);
        match poll(&mut future) {
            Poll::Ready(answer) => answer,
            Poll::Pending => {
                while self.backend.step(1) {}
                wait(future)
            }
        }
    }

    /// What breaks the rules is refused and changes nothing.
    fn refused(&mut self) -> Result<(), Violation> {
        let put = |key: &str, value: &'static [u8]| Write::Put {
            key: key.to_owned(),
            value: Bytes::from_static(value),
        };
        let writes = match self.random.random_range(0..3) {
            0 => vec![put("/registry/pods/a/p0", b"{}"), put("/registry/pods/a/p3", b"{}")],
            1 => vec![put("/keelson/k0", b"{}"), put("/keelson/k0", b"[]")],
            _ => vec![put("/keelson/k0", b"\xff")],
        };
        self.stats.operations += 1;
        let answers = self.submit(&[Transaction { guards: Vec::new(), writes }], 1);
        match &answers[..] {
            [Err(CommitError::Store(StoreError::Refused(_) | StoreError::Full))] => Ok(()),
            _ if self.backend.down() => self.check_down(),
            answers => Err(format!("a bad transaction was answered {answers:?}")),
        }
    }

    fn reopen(&mut self) -> Result<(), Violation> {
        let places: Vec<_> =
            std::mem::take(&mut self.watchers).into_iter().map(|w| (w.prefix, w.place)).collect();
        if !self.backend.reopen() {
            return if self.backend.down() { self.check_down() } else { Ok(()) };
        }
        self.stats.operations += 1;
        self.stats.reopens += 1;
        self.check_all()?;
        for (prefix, place) in places {
            self.watch_from(prefix, place.0, (place.0, usize::MAX))?;
        }
        Ok(())
    }

    /// The whole newest state.
    fn check_all(&mut self) -> Result<(), Violation> {
        let answer = wait(self.backend.store().list("", None, 0, None));
        let Some(page) = self.excuse(answer)? else { return Ok(()) };
        if page.revision != self.truth.revision {
            return Err(format!("the store is at {}, expected {}", page.revision, self.truth.revision));
        }
        self.compare_page("", None, 0, &page)
    }

    /// At the end every watcher is read dry, and the state compared.
    fn settle(&mut self) -> Result<(), Violation> {
        for index in (0..self.watchers.len()).rev() {
            while index < self.watchers.len() && self.read_item(index)? {}
        }
        self.check_all()
    }
}
