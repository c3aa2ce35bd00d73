//! The SQLite store without threads, for tests that replay: what is asked waits until [`SqliteStore::step`].

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keelson_faultfs::Disk;
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::checkpoint::{Trigger, catch_up};
use super::site::{DATABASE, Site, keep_wal_at_close};
use super::writer::{Pace, Request, Writer, is_busy, is_full};
use super::{
    Message, OpenError, Opened, QUEUED, Reads, Shared, SqliteOptions, SqliteStore, Writes, describe,
    open_writer,
};
use super::{open_reader, schema};
use crate::StoreError;

/// Tries at once, and does nothing twice unasked: time plays no part.
const PACE: Pace = Pace { retry_full: Duration::ZERO, rest: Duration::from_secs(3600) };

/// What a store is made wrong by, to show that the suite sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mutant {
    #[default]
    None,
    SynchronousNormal,
    AnswersEarly,
    CompactsLive,
    LeavesWalInDoubt,
    CopiesAtClose,
    RewritesInPlace,
}

/// A folder on a disk that fails.
#[derive(Clone)]
pub(crate) struct FaultSite {
    pub disk: Disk,
    pub reserve: u64,
    pub mutant: Mutant,
    in_doubt: Arc<AtomicBool>,
}

impl FaultSite {
    pub fn new(disk: Disk, reserve: u64, mutant: Mutant) -> FaultSite {
        FaultSite { disk, reserve, mutant, in_doubt: Arc::default() }
    }
}

impl Site for FaultSite {
    fn connect(&self, write: bool) -> rusqlite::Result<Connection> {
        let access = if write {
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
        } else {
            OpenFlags::SQLITE_OPEN_READ_ONLY
        };
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags_and_vfs(DATABASE, flags, self.disk.vfs())?;
        if self.mutant != Mutant::CopiesAtClose {
            keep_wal_at_close(&connection)?;
        }
        Ok(connection)
    }

    fn settle(&self) -> io::Result<()> {
        let wal = format!("{DATABASE}-wal");
        if self.mutant == Mutant::LeavesWalInDoubt {
            return Ok(());
        }
        if !self.in_doubt.load(Ordering::Relaxed) || self.mutant == Mutant::RewritesInPlace {
            return self.disk.rewrite(&wal).map_err(io::Error::other);
        }
        self.disk.renew(DATABASE).map_err(io::Error::other)?;
        self.disk.renew(&wal).map_err(io::Error::other)?;
        self.in_doubt.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn mark_in_doubt(&self) {
        self.in_doubt.store(true, Ordering::Relaxed);
    }

    fn has_wal(&self) -> bool {
        false
    }

    fn changed(&self) -> Option<i64> {
        None
    }

    fn set_changed(&self, _: i64) -> io::Result<()> {
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.disk.sync_folder().map_err(io::Error::other)
    }

    fn fill_reserve(&self) -> io::Result<()> {
        if self.disk.reserve(self.reserve) { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn free_reserve(&self) {
        self.disk.reserve(0);
    }

    fn synchronous(&self) -> &'static str {
        if self.mutant == Mutant::SynchronousNormal { "NORMAL" } else { "FULL" }
    }

    fn compacts_live(&self) -> bool {
        self.mutant == Mutant::CompactsLive
    }

    fn answers_early(&self) -> bool {
        self.mutant == Mutant::AnswersEarly
    }
}

pub(super) struct Inline {
    writer: Option<Writer>,
    queue: VecDeque<Message>,
    trigger: Trigger,
    copier: Option<Connection>,
    site: Arc<dyn Site>,
}

impl Inline {
    pub fn receive(&mut self, message: Message) -> Result<(), StoreError> {
        if self.writer.is_none() {
            return Err(StoreError::Closed("it was shut down".to_owned()));
        }
        self.queue.push_back(message);
        Ok(())
    }
}

impl SqliteStore {
    pub(crate) fn open_inline(site: FaultSite) -> Result<SqliteStore, OpenError> {
        let site: Arc<dyn Site> = Arc::new(site);
        let options = SqliteOptions { retention: Duration::from_secs(3600), ..SqliteOptions::new("") };
        let Opened { writer, hub, closed } = open_writer(&site, &options, PACE)?;
        let reads = Reads::Inline(Mutex::new(open_reader(&*site)));
        let shared = Arc::new(Shared { hub, closed, damaged: Arc::default(), reads });
        let inline = Inline {
            writer: Some(writer),
            queue: VecDeque::new(),
            trigger: Trigger::new(),
            copier: None,
            site,
        };
        Ok(SqliteStore {
            shared,
            writes: Writes::Inline(Box::new(Mutex::new(inline))),
            permits: Arc::new(Semaphore::new(QUEUED)),
            ended: AtomicBool::new(true),
        })
    }

    fn inline(&self) -> &Mutex<Inline> {
        match &self.writes {
            Writes::Inline(inline) => inline,
            Writes::Thread(_) => panic!("the store has threads"),
        }
    }

    /// One turn with at most so many of what is queued; false when there was nothing to do.
    pub(crate) fn step(&self, most: usize) -> bool {
        let mut inline = self.inline().lock();
        let inline = &mut *inline;
        let Some(writer) = &mut inline.writer else { return false };
        let mut requests: Vec<Request> = Vec::new();
        while requests.len() < most && matches!(inline.queue.front(), Some(Message::Request(_))) {
            if let Some(Message::Request(request)) = inline.queue.pop_front() {
                requests.push(request);
            }
        }
        let idle = requests.is_empty() && !writer.has_work();
        writer.turn(requests);
        if inline.trigger.observe(writer.wal_pages(), || writer.database_pages()) {
            Self::copy(inline);
            inline.trigger.done();
        }
        !idle
    }

    /// What the checkpoint thread does when it is woken.
    pub(crate) fn checkpoint(&self) {
        Self::copy(&mut self.inline().lock());
    }

    fn copy(inline: &mut Inline) {
        let Some(writer) = &mut inline.writer else { return };
        if inline.copier.is_none() {
            inline.copier =
                inline.site.connect(true).and_then(|new| schema::set_up(&new, -256).map(|()| new)).ok();
        }
        let Some(copier) = &inline.copier else { return };
        match catch_up(copier) {
            Ok(true) => writer.finish_checkpoint(),
            Ok(false) => {}
            Err(error) if is_full(&error) || is_busy(&error) => {}
            Err(error) => writer.fail(&format!("a checkpoint failed: {}", describe(&error))),
        }
    }

    /// Ends as a clean close does (`clean`), or as a process that is gone.
    pub(crate) fn end_inline(&self, clean: bool) -> Result<(), StoreError> {
        let mut inline = self.inline().lock();
        inline.queue.clear();
        inline.copier = None;
        if let Reads::Inline(reader) = &self.shared.reads {
            reader.lock().take();
        }
        let Some(mut writer) = inline.writer.take() else { return Ok(()) };
        let failed = self.shared.closed_error();
        writer.close("it was shut down");
        match failed {
            None if clean => writer.end(true),
            _ => Ok(()),
        }
    }

    /// A reader in the middle of something: while it is there, what is written meanwhile cannot be copied.
    pub(crate) fn hold_snapshot(&self) -> Option<Connection> {
        let connection = self.inline().lock().site.connect(false).ok()?;
        connection.execute_batch("BEGIN; SELECT count(*) FROM meta").ok()?;
        Some(connection)
    }

    /// Reads the database with SQL.
    pub(crate) fn query_number(&self, sql: &str) -> i64 {
        match &self.shared.reads {
            Reads::Inline(reader) => {
                let reader = reader.lock();
                reader.as_ref().expect("open").query_row(sql, [], |row| row.get(0)).expect("a number")
            }
            Reads::Threads(_) => panic!("the store has threads"),
        }
    }
}
