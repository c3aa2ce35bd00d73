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

use super::expiry;
use super::history::History;
use super::mark;
use super::read;
use super::schema::{Meta, last_id, row_id};
use super::site::Site;
use super::sweep::{self, Compaction};
use crate::hub::Hub;
use crate::{
    CommitError, Committed, Entry, Event, Expect, Revision, StoreError, Told, Transaction, Write, keys,
};

/// Rows a compaction looks at beside writes, and when it has the turn to itself; few in tests, so that it takes several.
const COMPACT_BESIDE: usize = if cfg!(test) { 5 } else { 32 };
const COMPACT_ALONE: usize = if cfg!(test) { 19 } else { 256 };
/// Free pages given back beside writes, and alone.
const VACUUM_BESIDE: u32 = 8;
const VACUUM_ALONE: u32 = 64;
/// A checkpoint that keeps writes waiting for longer is told of.
const SLOW: Duration = Duration::from_millis(200);

/// So long the wakes of watches may lie with whoever was answered; then the writer sees to it.
const LATE: Duration = Duration::from_millis(5);

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
        permit: Option<OwnedSemaphorePermit>,
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
    history: History,
    /// No key expires before this, in seconds since 1970; `None` while none does.
    expires: Option<i64>,
    full: Option<Instant>,
    pace: Pace,
    /// After a failed turn nothing is done unasked until then.
    rest_until: Option<Instant>,
    closed: Arc<OnceLock<String>>,
    /// The watches told lately; they are woken here when nobody else has done it in time.
    told: VecDeque<(Instant, Told)>,
    /// Pages in the WAL after the last commit.
    wal_pages: Arc<AtomicU64>,
}

/// Why a turn failed.
struct Failure {
    error: rusqlite::Error,
    /// The commit itself failed: its record may be in the WAL, and a start would take it for good.
    in_doubt: bool,
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        Failure { error, in_doubt: false }
    }
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
            history: History::new(retention, Instant::now(), meta.revision),
            expires: None,
            full: None,
            pace,
            rest_until: None,
            closed,
            told: VecDeque::new(),
            wal_pages,
        };
        if writer.site.fill_reserve().is_err() {
            writer.go_full();
        }
        writer
    }

    /// When the first key expires, as the database says at the start.
    pub fn expires(&mut self, at: Option<i64>) {
        self.expires = at;
    }

    fn is_due(&self) -> bool {
        self.expires.is_some_and(|at| at <= expiry::now())
    }

    pub fn wal_pages(&self) -> u64 {
        self.wal_pages.load(Ordering::Relaxed)
    }

    pub fn database_pages(&self) -> u64 {
        sweep::pages(&self.connection).map_or(0, |(pages, _)| u64::from(pages))
    }

    /// Whether a turn without requests would do something.
    pub fn has_work(&self) -> bool {
        let asked = !self.waiting.is_empty();
        let work = self.sweeping || self.vacuuming || self.is_due();
        self.closed.get().is_none() && work && (asked || !self.resting())
    }

    fn resting(&self) -> bool {
        self.rest_until.is_some_and(|until| Instant::now() < until)
    }

    /// When to take a turn although nobody asks.
    pub fn wakes_at(&self) -> Option<Instant> {
        let rests = self.rest_until.filter(|_| self.sweeping || self.vacuuming || self.is_due());
        // The clock may be set: whoever waits looks again after a while at most.
        let expires = self.expires.map(|at| {
            let seconds = at.saturating_sub(expiry::now()).clamp(0, 3600) as u64;
            Instant::now() + Duration::from_secs(seconds)
        });
        let late = self.told.front().map(|(since, _)| *since + LATE);
        [rests.or(expires), late].into_iter().flatten().min()
    }

    /// Wakes the watches that were left to others a while ago and have not looked; those that have are forgotten.
    fn catch_up(&mut self) {
        while let Some((since, told)) = self.told.front() {
            if since.elapsed() < LATE && !told.is_settled() {
                return;
            }
            self.told.pop_front();
        }
    }

    /// One transaction: all requests, a step of compaction, one fsync.
    pub fn turn(&mut self, requests: Vec<Request>) {
        self.catch_up();
        let mut commits = Vec::with_capacity(requests.len());
        // Held until the answers are out: they bound what waits.
        let mut permits = Vec::with_capacity(requests.len());
        for request in requests {
            match request {
                Request::Commit { transaction, answer, permit } => {
                    permits.push(permit);
                    commits.push((transaction, answer));
                }
                Request::Compact { revision, answer, permit } => {
                    permits.push(permit);
                    self.ask_compaction(revision, answer);
                }
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
        self.history.note(Instant::now(), self.meta.revision);
        let mut settled = Vec::with_capacity(commits.len());
        let mut work = Work { events: Vec::new(), revision: self.meta.revision, history: 0 };
        let (before, sweeping, vacuuming) = (self.meta, self.sweeping, self.vacuuming);
        let expires = self.expires;
        let result = self.run(commits, &mut settled, &mut work);
        match result {
            Ok(()) => {
                self.rest_until = None;
                self.settle(settled, work);
            }
            Err(failure) => {
                self.meta = before;
                self.expires = expires;
                // Whatever the step had finished is to do again.
                self.sweeping |= sweeping;
                self.vacuuming |= vacuuming;
                self.roll_back();
                let error = self.classify(failure);
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
    ) -> Result<(), Failure> {
        // From here on every answer is in `settled`, whatever fails.
        let mut transactions = Vec::with_capacity(commits.len());
        for (transaction, answer) in commits {
            settled.push((answer, Ok(Committed { revision: 0, told: Told::default() })));
            transactions.push(transaction);
        }
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for (transaction, (_, result)) in transactions.into_iter().zip(settled.iter_mut()) {
            *result = self.apply(transaction, work)?;
        }
        if self.is_due() {
            self.expire(work)?;
        }
        let swept = self.sweep(settled.len(), work.revision)?;
        let wrote = swept || work.revision > self.meta.revision;
        #[cfg(test)]
        if self.site.answers_early() {
            let early = Work { events: std::mem::take(&mut work.events), ..*work };
            self.settle(std::mem::take(settled), early);
        }
        // A turn of conflicts alone has nothing to make durable.
        let end = if wrote { "COMMIT" } else { "ROLLBACK" };
        self.connection
            .prepare_cached(end)?
            .execute([])
            .map_err(|error| Failure { error, in_doubt: wrote })?;
        Ok(())
    }

    /// Answers and tells: the turn is durable.
    fn settle(&mut self, settled: Vec<Settled>, work: Work) {
        self.meta.revision = work.revision;
        self.history.wrote(work.history);
        let told = match work.events.is_empty() {
            true => Told::default(),
            false => self.hub.publish(work.events, work.revision + self.meta.base),
        };
        // Nobody is answered who could look: dropped here.
        if settled.is_empty() {
            return;
        }
        for (answer, result) in settled {
            // An answer that nobody waits for any more is dropped, and wakes.
            let _ = answer.send(result.map(|committed| Committed { told: told.clone(), ..committed }));
        }
        if !told.is_settled() {
            self.told.push_back((Instant::now(), told));
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
            let (key, value, ttl) = match write {
                Write::Put { key, value } => (key, Some(value), None),
                Write::Expiring { key, value, ttl } => (key, Some(value), Some(ttl)),
                Write::Delete { .. } if prev.is_none() => continue,
                Write::Delete { key } => (key, None, None),
            };
            if let Some(ttl) = ttl {
                let at = expiry::set(&self.connection, &key, ttl)?;
                self.expires = Some(self.expires.map_or(at, |first| first.min(at)));
            } else if self.expires.is_some() && prev.is_some() {
                expiry::clear(&self.connection, &key)?;
            }
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
        Ok(Ok(Committed { revision: work.revision + base, told: Told::default() }))
    }

    /// Deletes keys whose time has come, each as a change of its own.
    fn expire(&mut self, work: &mut Work) -> rusqlite::Result<()> {
        for key in expiry::due(&self.connection, expiry::now())? {
            // A row whose key is gone must not be met again.
            expiry::clear(&self.connection, &key)?;
            let transaction = Transaction { guards: Vec::new(), writes: vec![Write::Delete { key }] };
            if let Err(error) = self.apply(transaction, work)? {
                tracing::error!(error = %error, "a key could not be expired");
            }
        }
        self.expires = expiry::next(&self.connection)?;
        Ok(())
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

    /// A step of what has to be done beside the requests; false if there is nothing.
    fn sweep(&mut self, requests: usize, newest: u64) -> rusqlite::Result<bool> {
        // Large turns take a larger step with them: compaction keeps pace with the writes.
        if self.sweeping {
            let rows = if requests == 0 { COMPACT_ALONE } else { COMPACT_BESIDE.max(2 * requests) };
            let step = Compaction {
                target: self.target,
                newest,
                rows,
                #[cfg(test)]
                takes_live: self.site.compacts_live(),
            };
            if sweep::compact(&self.connection, &mut self.meta, &step)? {
                self.sweeping = false;
                self.vacuuming = true;
            }
            return Ok(true);
        }
        if self.vacuuming {
            let most = if requests == 0 { VACUUM_ALONE } else { VACUUM_BESIDE.max(requests as u32 / 4) };
            self.vacuuming = sweep::vacuum(&self.connection, most, self.full.is_some())?;
            return Ok(true);
        }
        Ok(false)
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

    /// Compacts what is older than the retention; called now and then.
    pub fn compact_by_time(&mut self) {
        let now = Instant::now();
        self.history.note(now, self.meta.revision);
        if let Some(revision) = self.history.expired(now) {
            self.compact_to(revision);
        }
    }

    /// Writes faster than foreseen shorten the retention instead of filling the disk.
    fn bound_history(&mut self) {
        if self.sweeping || !self.history.is_large(self.target) {
            return;
        }
        let Ok((pages, free)) = sweep::pages(&self.connection) else { return };
        let used = u64::from(pages - free.min(pages)) * 4096;
        if let Some(revision) = self.history.excess(self.target, used) {
            tracing::info!(
                revision = revision + self.meta.base,
                "much was written: history is kept for less long"
            );
            self.compact_to(revision);
        }
    }

    fn roll_back(&mut self) {
        if !self.connection.is_autocommit() {
            // It fails only when the database is beyond use, which the error that led here has already told.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    fn classify(&mut self, failure: Failure) -> StoreError {
        let Failure { error, in_doubt } = failure;
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
        self.fail(&text);
        if in_doubt { StoreError::Unknown(text) } else { StoreError::Closed(text) }
    }

    /// Closes it because its disk has failed.
    pub fn fail(&mut self, reason: &str) {
        self.site.mark_in_doubt();
        self.close(reason);
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
            self.fail(&super::describe(&error));
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
        let began = Instant::now();
        let copied = super::checkpoint::passive(&self.connection);
        if began.elapsed() > SLOW {
            tracing::warn!(
                milliseconds = began.elapsed().as_millis() as u64,
                "writes waited for the store's disk"
            );
        }
        if let Err(error) = copied
            && !is_full(&error)
            && !is_busy(&error)
        {
            let text = super::describe(&error);
            tracing::error!(error = %text, "the store is closed: a checkpoint failed");
            self.fail(&text);
        }
    }

    /// Leaves one file without a WAL, with the mark of a clean end if it is `sound`. All other connections are closed.
    pub fn end(self, sound: bool) -> Result<(), StoreError> {
        let site = self.site.clone();
        let ended = self.leave_wal_mode(sound);
        if ended.is_err() {
            site.mark_in_doubt();
        }
        ended
    }

    fn leave_wal_mode(self, sound: bool) -> Result<(), StoreError> {
        let failed = |error: rusqlite::Error| StoreError::Database(super::describe(&error));
        // Without a mark the next start takes a little longer: no reason to fail.
        let mark = if sound { mark::write(&self.connection).ok() } else { None };
        self.connection.flush_prepared_statement_cache();
        let mode: String = self
            .connection
            .query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))
            .map_err(failed)?;
        if mode != "delete" {
            tracing::warn!("the database stays in WAL mode: another process has it open");
        }
        self.connection.close().map_err(|(_, error)| failed(error))?;
        self.site.free_reserve();
        if let Some(at) = mark
            && let Err(error) = self.site.set_changed(at)
        {
            tracing::warn!(error = %error, "the next start looks through the store's file");
        }
        self.site
            .sync_folder()
            .map_err(|error| StoreError::Database(format!("the folder's fsync failed: {error}")))
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
