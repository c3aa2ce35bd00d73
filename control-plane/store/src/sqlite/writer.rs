//! The one connection that writes, and what happens between two fsyncs.
//!
//! What always holds: a turn is one SQLite transaction; its answers and events leave after the commit has returned, in the
//! order of the revisions. Compaction and vacuum run in bounded steps inside the turns, or as turns of their own when no
//! request waits. An error other than a full disk closes the store: what is on the disk is then known only to the next
//! start.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, params};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::read;
use super::schema::{self, Meta, is_deleted, last_id, row_id};
use super::site::Site;
use crate::hub::Hub;
use crate::{CommitError, Committed, Entry, Event, Expect, Revision, StoreError, Transaction, Write, keys};

/// Rows a compaction looks at beside writes, and when it has the turn to itself; few in tests, so that it takes several.
const COMPACT_BESIDE: usize = if cfg!(test) { 5 } else { 32 };
const COMPACT_ALONE: usize = if cfg!(test) { 19 } else { 256 };
/// Free pages given back beside writes, and alone.
const VACUUM_BESIDE: u32 = 8;
const VACUUM_ALONE: u32 = 64;
/// Free pages that are kept for coming writes: at least so many, and this part of the database.
const KEEP_FREE: u32 = if cfg!(test) { 4 } else { 64 };
const KEEP_PART: u32 = 16;
/// History is kept for the retention while it is smaller than half the live data or this.
const HISTORY_BYTES: u64 = 8 << 20;
/// Between two marks of time in the history: this part of the retention, or so many bytes.
const MARKS: u32 = 20;
const MARK_BYTES: u64 = 1 << 20;

/// What the store's users ask of the writer.
pub(super) enum Request {
    Commit {
        transaction: Transaction,
        answer: oneshot::Sender<Result<Committed, CommitError>>,
        permit: Option<OwnedSemaphorePermit>,
    },
    Compact {
        revision: Revision,
        answer: oneshot::Sender<Result<(), StoreError>>,
    },
}

/// How patient the writer is on a full disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Between attempts of writes.
    pub retry_full: Duration,
    /// After a failed step of housekeeping, unless somebody asks.
    pub rest: Duration,
}

/// A point of the history: when it was, and how much history had been written by then.
struct Mark {
    at: Instant,
    revision: u64,
    written: u64,
}

/// The settled answer to a commit, sent when the turn is durable.
type Settled = (oneshot::Sender<Result<Committed, CommitError>>, Result<Committed, CommitError>);

pub(super) struct Writer {
    connection: Connection,
    site: Arc<dyn Site>,
    hub: Arc<Hub>,
    meta: Meta,
    /// The compaction under way goes up to here (in the database's count).
    target: u64,
    waiting: Vec<oneshot::Sender<Result<(), StoreError>>>,
    /// Rows below the target are left to look at.
    sweeping: bool,
    vacuuming: bool,
    marks: VecDeque<Mark>,
    /// Bytes of superseded values written since the start.
    history_written: u64,
    retention: Duration,
    full: Option<Instant>,
    pace: Pace,
    /// After a failed turn nothing is done unasked until then.
    rest_until: Option<Instant>,
    closed: Arc<OnceLock<String>>,
    /// Pages in the WAL after the last commit.
    wal_pages: Arc<AtomicU64>,
}

/// How a turn changes the database.
struct Work {
    events: Vec<Event>,
    revision: u64,
    history: u64,
}

impl Writer {
    pub fn new(
        mut connection: Connection,
        site: Arc<dyn Site>,
        hub: Arc<Hub>,
        meta: Meta,
        retention: Duration,
        pace: Pace,
        closed: Arc<OnceLock<String>>,
    ) -> Writer {
        let wal_pages = Arc::new(AtomicU64::new(0));
        let told = wal_pages.clone();
        let hooked = connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: i32| {
            told.store(pages.max(0) as u64, Ordering::Relaxed);
            Ok(())
        }));
        if let Err(error) = hooked {
            tracing::warn!(error = %error, "the WAL's growth is not seen; it is copied at the end only");
        }
        let mut writer = Writer {
            connection,
            site,
            hub,
            target: meta.floor,
            meta,
            waiting: Vec::new(),
            // A compaction that a crash interrupted goes on.
            sweeping: meta.cursor < last_id(meta.floor),
            vacuuming: false,
            marks: VecDeque::new(),
            history_written: 0,
            retention,
            full: None,
            pace,
            rest_until: None,
            closed,
            wal_pages,
        };
        writer.mark();
        if writer.site.fill_reserve().is_err() {
            writer.go_full();
        }
        writer
    }

    pub fn wal_pages(&self) -> u64 {
        self.wal_pages.load(Ordering::Relaxed)
    }

    pub fn database_pages(&self) -> u64 {
        let pages = self.connection.prepare_cached("PRAGMA page_count").and_then(|mut pragma| {
            pragma.query_row([], |row| row.get::<_, i64>(0))
        });
        pages.map_or(0, |pages| pages.max(0) as u64)
    }

    /// Whether a turn without requests would do something.
    pub fn has_work(&self) -> bool {
        let asked = !self.waiting.is_empty();
        self.closed.get().is_none() && (self.sweeping || self.vacuuming) && (asked || !self.resting())
    }

    fn resting(&self) -> bool {
        self.rest_until.is_some_and(|until| Instant::now() < until)
    }

    /// When to take a turn although nobody asks.
    pub fn wakes_at(&self) -> Option<Instant> {
        self.rest_until.filter(|_| self.sweeping || self.vacuuming)
    }

    /// One transaction: all requests, a step of compaction, one fsync.
    pub fn turn(&mut self, requests: Vec<Request>) {
        let mut commits = Vec::with_capacity(requests.len());
        // Held until the answers are out: they bound what waits.
        let mut permits = Vec::with_capacity(requests.len());
        for request in requests {
            match request {
                Request::Commit { transaction, answer, permit } => {
                    permits.push(permit);
                    commits.push((transaction, answer));
                }
                Request::Compact { revision, answer } => self.ask_compaction(revision, answer),
            }
        }
        if let Some(reason) = self.closed.get() {
            refuse(commits, &StoreError::Closed(reason.clone()));
            return;
        }
        if self.full.is_some() && !commits.is_empty() && !self.try_leave_full() {
            refuse(commits, &StoreError::Full);
            commits = Vec::new();
        }
        if commits.is_empty() && !self.has_work() {
            return;
        }
        self.note_time();
        let alone = commits.is_empty();
        let mut settled = Vec::with_capacity(commits.len());
        let mut work = Work { events: Vec::new(), revision: self.meta.revision, history: 0 };
        let (before, sweeping, vacuuming) = (self.meta, self.sweeping, self.vacuuming);
        let result = self.run(commits, &mut settled, &mut work, alone);
        match result {
            Ok(()) => {
                self.rest_until = None;
                self.settle(settled, work);
            }
            Err(error) => {
                self.meta = before;
                // Whatever the step had finished is to do again.
                self.sweeping |= sweeping;
                self.vacuuming |= vacuuming;
                self.roll_back();
                let error = self.classify(error);
                for (answer, _) in settled {
                    let _ = answer.send(Err(CommitError::Store(error.clone())));
                }
            }
        }
        self.after_turn();
    }

    fn run(
        &mut self,
        commits: Vec<(Transaction, oneshot::Sender<Result<Committed, CommitError>>)>,
        settled: &mut Vec<Settled>,
        work: &mut Work,
        alone: bool,
    ) -> rusqlite::Result<()> {
        // From here on every answer is in `settled`, whatever fails.
        let mut transactions = Vec::with_capacity(commits.len());
        for (transaction, answer) in commits {
            settled.push((answer, Ok(Committed { revision: 0 })));
            transactions.push(transaction);
        }
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for (transaction, (_, result)) in transactions.into_iter().zip(settled.iter_mut()) {
            *result = self.apply(transaction, work)?;
        }
        // Large turns take a larger step with them: compaction keeps pace with the writes.
        let swept = if self.sweeping {
            let beside = COMPACT_BESIDE.max(2 * settled.len());
            self.compact_step(if alone { COMPACT_ALONE } else { beside }, work.revision)?;
            true
        } else if self.vacuuming {
            let beside = VACUUM_BESIDE.max(settled.len() as u32 / 4);
            self.vacuum_step(if alone { VACUUM_ALONE } else { beside })?;
            true
        } else {
            false
        };
        let wrote = swept || work.revision > self.meta.revision;
        #[cfg(test)]
        if self.site.answers_early() {
            let early = Work { events: std::mem::take(&mut work.events), ..*work };
            self.settle(std::mem::take(settled), early);
        }
        // A turn of conflicts alone has nothing to make durable.
        let end = if wrote { "COMMIT" } else { "ROLLBACK" };
        self.connection.prepare_cached(end)?.execute([])?;
        Ok(())
    }

    /// Answers and tells: the turn is durable.
    fn settle(&mut self, settled: Vec<Settled>, work: Work) {
        self.meta.revision = work.revision;
        self.history_written += work.history;
        if !work.events.is_empty() {
            self.hub.publish(work.events, work.revision + self.meta.base);
        }
        for (answer, result) in settled {
            let _ = answer.send(result);
        }
    }

    /// Applies one transaction within the turn; conflicts and refusals leave no trace.
    fn apply(
        &mut self,
        transaction: Transaction,
        work: &mut Work,
    ) -> rusqlite::Result<Result<Committed, CommitError>> {
        if let Err(error) = keys::check(&transaction) {
            return Ok(Err(CommitError::Store(error)));
        }
        let base = self.meta.base;
        let mut known: Vec<(String, Option<Entry>)> = Vec::with_capacity(transaction.guards.len());
        for (guard, (key, expect)) in transaction.guards.into_iter().enumerate() {
            let current = read::newest(&self.connection, base, &key, i64::MAX)?;
            let holds = match (&expect, &current) {
                (Expect::Absent, None) | (Expect::Present, Some(_)) => true,
                (Expect::Revision(wanted), Some(entry)) => entry.mod_revision == *wanted,
                _ => false,
            };
            if !holds {
                return Ok(Err(CommitError::Conflict { guard, current }));
            }
            known.push((key, current));
        }
        let revision = work.revision + 1;
        let mut index = 0;
        for write in transaction.writes {
            let prev = match known.iter_mut().find(|(key, _)| key == write.key()) {
                Some((_, entry)) => entry.take(),
                None => read::newest(&self.connection, base, write.key(), i64::MAX)?,
            };
            let (key, value) = match write {
                Write::Put { key, value } => (key, Some(value)),
                Write::Delete { .. } if prev.is_none() => continue,
                Write::Delete { key } => (key, None),
            };
            let created = prev.as_ref().map_or(revision, |prev| prev.create_revision - base);
            // Checked to be UTF-8 above; TEXT, so that an administrator reads it with sqlite3.
            let text = value.as_ref().and_then(|value| std::str::from_utf8(value).ok());
            let sql = "INSERT INTO log (id, created, key, value) VALUES (?1, ?2, ?3, ?4)";
            let id = row_id(revision, index, value.is_none());
            self.connection.prepare_cached(sql)?.execute(params![id, created as i64, key, text])?;
            work.history += prev.as_ref().map_or(0, |prev| (prev.value.len() + 2 * key.len() + 32) as u64);
            work.events.push(Event { revision: revision + base, key, value, prev });
            index += 1;
        }
        if index > 0 {
            work.revision = revision;
        }
        Ok(Ok(Committed { revision: work.revision + base }))
    }

    fn ask_compaction(&mut self, revision: Revision, answer: oneshot::Sender<Result<(), StoreError>>) {
        let current = self.meta.revision + self.meta.base;
        let refused = match self.closed.get() {
            Some(reason) => Some(StoreError::Closed(reason.clone())),
            None if revision > current => Some(StoreError::Future { requested: revision, current }),
            None => None,
        };
        if let Some(error) = refused {
            let _ = answer.send(Err(error));
            return;
        }
        self.compact_to(revision.saturating_sub(self.meta.base));
        self.waiting.push(answer);
        self.answer_compactions();
    }

    fn compact_to(&mut self, revision: u64) {
        if revision > self.target {
            self.target = revision;
            self.sweeping = true;
        }
    }

    fn answer_compactions(&mut self) {
        if !self.sweeping {
            for answer in self.waiting.drain(..) {
                let _ = answer.send(Ok(()));
            }
        }
    }

    /// Looks at the next rows below the target: each makes the older rows of its key garbage, a tombstone itself too.
    fn compact_step(&mut self, rows: usize, newest: u64) -> rusqlite::Result<()> {
        let end = last_id(self.target);
        let mut found: Vec<(i64, String)> = Vec::with_capacity(rows);
        {
            let sql = "SELECT id, key FROM log WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3";
            let mut statement = self.connection.prepare_cached(sql)?;
            let mut step = statement.query(params![self.meta.cursor, end, rows as i64])?;
            while let Some(row) = step.next()? {
                found.push((row.get(0)?, row.get(1)?));
            }
        }
        let mut cursor = if found.len() < rows { end } else { found.last().map_or(end, |(id, _)| *id) };
        for (id, key) in found {
            self.connection.prepare_cached("DELETE FROM log WHERE key = ?1 AND id < ?2")?.execute(params![key, id])?;
            if !is_deleted(id) {
                continue;
            }
            // The row of the newest revision stays, and is looked at again by the next compaction.
            if schema::revision_of(id) == newest {
                cursor = cursor.min(id - 1);
            } else {
                self.connection.prepare_cached("DELETE FROM log WHERE id = ?1")?.execute([id])?;
            }
        }
        let done = cursor >= end || schema::revision_of(end) == newest && cursor >= schema::first_id(newest) - 1;
        self.connection
            .prepare_cached("UPDATE meta SET floor = ?1, cursor = ?2")?
            .execute(params![self.target as i64, cursor])?;
        self.meta.floor = self.target;
        self.meta.cursor = cursor;
        if done {
            self.sweeping = false;
            self.vacuuming = true;
        }
        Ok(())
    }

    /// Gives pages at the end of the file back, but keeps some for coming writes.
    fn vacuum_step(&mut self, most: u32) -> rusqlite::Result<()> {
        let free: u32 = self.connection.prepare_cached("PRAGMA freelist_count")?.query_row([], |row| row.get(0))?;
        let pages: u32 = self.connection.prepare_cached("PRAGMA page_count")?.query_row([], |row| row.get(0))?;
        let keep = if self.full.is_some() { 0 } else { KEEP_FREE.max(pages / KEEP_PART) };
        let step = free.saturating_sub(keep).min(most);
        if step > 0 {
            let sql = format!("PRAGMA incremental_vacuum({step})");
            let mut statement = self.connection.prepare_cached(&sql)?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
        }
        self.vacuuming = free.saturating_sub(keep) > most;
        Ok(())
    }

    fn after_turn(&mut self) {
        if self.closed.get().is_none() {
            self.answer_compactions();
            self.bound_history();
        }
        if self.closed.get().is_none() && self.full.is_some() {
            self.relieve();
        }
    }

    fn mark(&mut self) {
        let mark = Mark { at: Instant::now(), revision: self.meta.revision, written: self.history_written };
        self.marks.push_back(mark);
    }

    fn note_time(&mut self) {
        let due = self.marks.back().is_none_or(|last| {
            last.revision != self.meta.revision
                && (last.at.elapsed() >= self.retention / MARKS || self.history_written - last.written >= MARK_BYTES)
        });
        if due {
            self.mark();
        }
    }

    /// Compacts what is older than the retention; called when it has passed once more.
    pub fn compact_by_time(&mut self) {
        self.note_time();
        let mut past = None;
        while self.marks.front().is_some_and(|mark| mark.at.elapsed() >= self.retention) {
            past = self.marks.pop_front();
        }
        if let Some(mark) = past {
            self.compact_to(mark.revision);
            // What was true then is true until the next mark.
            self.marks.push_front(mark);
        }
    }

    /// Writes faster than foreseen shorten the retention instead of filling the disk.
    fn bound_history(&mut self) {
        let kept_from = self.marks.iter().rfind(|mark| mark.revision <= self.target).map_or(0, |mark| mark.written);
        let history = self.history_written - kept_from;
        if history < HISTORY_BYTES || self.sweeping {
            return;
        }
        let count = |pragma: &str| -> rusqlite::Result<u64> {
            self.connection.prepare_cached(pragma)?.query_row([], |row| row.get::<_, i64>(0)).map(|n| n as u64)
        };
        let (Ok(pages), Ok(free)) = (count("PRAGMA page_count"), count("PRAGMA freelist_count")) else { return };
        let live = (pages.saturating_sub(free) * 4096).saturating_sub(history);
        if history < live / 2 {
            return;
        }
        let half = self.history_written - history / 2;
        let Some(mark) = self.marks.iter().find(|mark| mark.written >= half) else { return };
        tracing::info!(revision = mark.revision + self.meta.base, "much was written: history is kept for less long");
        let revision = mark.revision;
        self.compact_to(revision);
        while self.marks.len() > 1 && self.marks[1].revision <= self.target {
            self.marks.pop_front();
        }
    }

    fn roll_back(&mut self) {
        if !self.connection.is_autocommit() {
            // It fails only when the database is beyond use, which the error that led here has already told.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    fn classify(&mut self, error: rusqlite::Error) -> StoreError {
        if is_full(&error) {
            self.go_full();
            for answer in self.waiting.drain(..) {
                let _ = answer.send(Err(StoreError::Full));
            }
            return StoreError::Full;
        }
        let text = super::describe(&error);
        if is_busy(&error) {
            tracing::error!("another process holds the store's database; a write failed");
            return StoreError::Database(text);
        }
        tracing::error!(error = %text, "the store is closed: a write failed");
        self.close(&text);
        StoreError::Closed(text)
    }

    pub fn close(&mut self, reason: &str) {
        let error = StoreError::Closed(reason.to_owned());
        // The first reason stays.
        let _ = self.closed.set(reason.to_owned());
        self.hub.close(error.clone());
        for answer in self.waiting.drain(..) {
            let _ = answer.send(Err(error.clone()));
        }
    }

    /// Writes are refused; the reserve's space lets compaction, vacuum and checkpoints go on.
    fn go_full(&mut self) {
        if self.full.replace(Instant::now()).is_none() {
            tracing::error!("no space left for the store: writes are refused until space is freed");
        }
        self.site.free_reserve();
        self.compact_to(self.meta.revision);
        self.vacuuming = true;
        self.rest_until = Some(Instant::now() + self.pace.rest);
    }

    /// Copies the WAL and gives its space back: only then is what was compacted free to the file system.
    fn relieve(&mut self) {
        self.finish_checkpoint();
        if self.closed.get().is_none()
            && let Err(error) = super::checkpoint::truncate(&self.connection)
            && !is_full(&error)
            && !is_busy(&error)
        {
            self.close(&super::describe(&error));
        }
    }

    fn try_leave_full(&mut self) -> bool {
        if self.full.is_some_and(|since| since.elapsed() < self.pace.retry_full) {
            return false;
        }
        match self.site.fill_reserve() {
            Ok(()) => {
                tracing::info!("the store has space again");
                self.full = None;
                true
            }
            Err(_) => {
                self.full = Some(Instant::now());
                false
            }
        }
    }

    /// A checkpoint by the writer itself, when little is left to copy: then the WAL begins anew with the next write.
    pub fn finish_checkpoint(&mut self) {
        if let Err(error) = super::checkpoint::passive(&self.connection)
            && !is_full(&error)
            && !is_busy(&error)
        {
            let text = super::describe(&error);
            tracing::error!(error = %text, "the store is closed: a checkpoint failed");
            self.close(&text);
        }
    }

    /// Leaves one file without a WAL. All other connections are closed.
    pub fn end(self) -> Result<(), StoreError> {
        let failed = |error: rusqlite::Error| StoreError::Database(super::describe(&error));
        self.connection.flush_prepared_statement_cache();
        let mode: String =
            self.connection.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0)).map_err(failed)?;
        if mode != "delete" {
            tracing::warn!("the database stays in WAL mode: another process has it open");
        }
        self.connection.close().map_err(|(_, error)| failed(error))?;
        self.site.free_reserve();
        self.site.sync_folder().map_err(|error| StoreError::Database(format!("the folder's fsync failed: {error}")))
    }
}

fn refuse(commits: Vec<(Transaction, oneshot::Sender<Result<Committed, CommitError>>)>, error: &StoreError) {
    for (_, answer) in commits {
        let _ = answer.send(Err(CommitError::Store(error.clone())));
    }
}

/// Somebody else's lock: nothing was written, nothing is in doubt.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    // The index of the WAL is a file too, and says so in its own way when it cannot grow.
    let index_full = |code: i32| code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => {
            failure.code == ErrorCode::DiskFull || index_full(failure.extended_code)
        }
        _ => false,
    }
}
