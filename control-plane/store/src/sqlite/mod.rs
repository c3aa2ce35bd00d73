//! The store on SQLite: one file, one machine.
//!
//! Threads: one writer that owns the writing connection and takes whatever is queued into one transaction
//! ([`writer`]); one that copies the WAL into the database ([`checkpoint`]); two that read in short transactions
//! ([`read`]). Nothing blocks a runtime's thread.
//!
//! What always holds: an answer and an event leave after the fsync; a failed fsync closes the store until it is opened
//! anew (which [`ReopeningStore`] does by itself); a full disk refuses writes while reads go on and compaction runs from a reserve; a second opener is refused; a
//! clean close leaves one file.

mod beside;
mod checkpoint;
mod expiry;
mod formats;
mod history;
#[cfg(test)]
pub(crate) mod inline;
mod mark;
mod read;
mod reopening;
mod schema;
mod site;
mod sweep;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt};
#[cfg(test)]
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::read::{ListRequest, ReadError};
use self::schema::Meta;
use self::site::{Folder, Site};
use self::writer::{Pace, Request, Writer};
use crate::hub::{Changes, History, Hub};
use crate::{
    CommitError, Committed, Entry, Page, Revision, Store, StoreError, Transaction, Watch, Write, hub,
};

pub use self::beside::SqliteReader;
pub use self::formats::{FORMAT, convert, format};
pub use self::reopening::ReopeningStore;
pub use self::site::DATABASE;

/// Commits that may wait; more wait outside for their turn.
const QUEUED: usize = 1024;
/// Commits and bytes of one fsync.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 4 << 20;
/// Reads that may wait.
const READS: usize = 256;
const READERS: usize = 2;
/// How often a list of the newest state begins anew when a compaction overtook it.
const LIST_ATTEMPTS: usize = 3;
/// On a full disk.
const PACE: Pace = Pace { retry_full: Duration::from_secs(1), rest: Duration::from_secs(1) };

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// Made (0700) if it is missing; holds nothing else.
    pub folder: PathBuf,
    /// How long history is kept at least, unless writes outgrow it.
    pub retention: Duration,
    /// Bytes kept aside for compaction on a full disk.
    pub reserve_bytes: u64,
    /// No revision up to this one is handed out (again): set after a restore or a migration. Raising it makes all
    /// earlier revisions compacted.
    pub min_revision: Revision,
    /// Whether the file's structure is looked through when it is opened (some 1 ms for each MiB), unless it is as a clean
    /// end left it.
    pub check: bool,
}

impl SqliteOptions {
    /// Five minutes of history, 8 MiB reserved.
    pub fn new(folder: impl Into<PathBuf>) -> SqliteOptions {
        SqliteOptions {
            folder: folder.into(),
            retention: Duration::from_secs(300),
            reserve_bytes: 8 << 20,
            min_revision: 0,
            check: false,
        }
    }
}

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the store's folder {} cannot be used", path.display())]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("the store in {} is in use by another process; stop that one first", path.display())]
    Locked { path: PathBuf },
    #[error(
        "the store's database has format {found}, this version of keelson knows format {known}: run the version that \
         wrote it, or restore a snapshot taken for this one"
    )]
    Format { found: i32, known: i32 },
    #[error("the store's database file was not made by keelson; move it away to begin with an empty store")]
    NotOurs,
    #[error(
        "the store's database cannot keep a write-ahead log where it lies; a local file system is needed"
    )]
    NoWal,
    #[error("the store's database cannot be opened ({})", describe(source))]
    Database { source: rusqlite::Error },
    #[error("the store's database is damaged ({found})")]
    Damaged { found: String },
    #[error("a thread of the store cannot be started")]
    Thread { source: std::io::Error },
}

impl OpenError {
    /// Whether the file itself is broken: opening it again cannot help.
    pub fn is_damage(&self) -> bool {
        match self {
            OpenError::Damaged { .. } => true,
            OpenError::Database { source } => is_damage(source),
            _ => false,
        }
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

/// An SQLite error with its extended code, which says what failed (a write, an fsync, a lock).
fn describe(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => {
            let code = failure.extended_code;
            format!("{error}; SQLite code {code}: {}", rusqlite::ffi::code_to_str(code))
        }
        other => other.to_string(),
    }
}

/// `None` ends the reader that takes it.
type ReadJob = Option<Box<dyn FnOnce(&Connection) + Send>>;

/// What the writer's thread is told.
enum Message {
    Request(Request),
    /// The checkpoint thread is done; little of the WAL is left to copy if `finish`.
    Copied {
        finish: bool,
    },
    /// Another thread's I/O failed.
    Fail(String),
    Close(Option<oneshot::Sender<Result<(), StoreError>>>),
}

/// What streams and the store share.
struct Shared {
    hub: Arc<Hub>,
    closed: Arc<OnceLock<String>>,
    /// A reader met damage: the next start looks through the file.
    damaged: Arc<AtomicBool>,
    reads: Reads,
}

enum Reads {
    Threads(mpsc::Sender<ReadJob>),
    /// In the caller's thread, for tests that replay.
    #[cfg(test)]
    Inline(Mutex<Option<Connection>>),
}

enum Writes {
    Thread(SyncSender<Message>),
    /// Until [`SqliteStore::step`] is called, for tests that replay.
    #[cfg(test)]
    Inline(Box<Mutex<inline::Inline>>),
}

/// See the module.
pub struct SqliteStore {
    shared: Arc<Shared>,
    writes: Writes,
    permits: Arc<Semaphore>,
    ended: AtomicBool,
}

impl SqliteStore {
    /// Opens the store, or makes an empty one. Blocks for the recovery of a WAL that a crash left.
    pub fn open(options: SqliteOptions) -> Result<SqliteStore, OpenError> {
        let folder = Arc::new(Folder::open(&options.folder, options.reserve_bytes)?);
        SqliteStore::start(folder, &options)
    }

    fn start(site: Arc<dyn Site>, options: &SqliteOptions) -> Result<SqliteStore, OpenError> {
        let Opened { writer, hub, closed } = open_writer(&site, options, PACE)?;
        let (jobs, queue) = mpsc::channel(READS);
        let queue = Arc::new(tokio::sync::Mutex::new(queue));
        let mut helpers = Vec::new();
        for index in 0..READERS {
            let (site, queue) = (site.clone(), queue.clone());
            helpers.push(spawn(format!("store-read-{index}"), move || serve_reads(&*site, &queue))?);
        }
        let reads = Reads::Threads(jobs);
        let shared = Arc::new(Shared { hub, closed, damaged: Arc::default(), reads });
        // Whoever sends holds a permit, but for the checkpoint's one message and the end.
        let (messages, inbox) = sync_channel(QUEUED + 16);
        let (wake, woken) = sync_channel(1);
        let tell = messages.clone();
        helpers.push(spawn("store-checkpoint".to_owned(), move || copy_wal(&*site, &woken, &tell))?);
        let threads = WriterThread {
            writer,
            inbox,
            wake: Some(wake),
            helpers,
            shared: shared.clone(),
            retention: options.retention,
        };
        spawn("store-write".to_owned(), move || threads.run())?;
        let permits = Arc::new(Semaphore::new(QUEUED));
        Ok(SqliteStore { shared, writes: Writes::Thread(messages), permits, ended: AtomicBool::new(false) })
    }

    /// Why it was closed, where its user did not close it.
    fn failure(&self) -> Option<String> {
        if self.ended.load(Ordering::Relaxed) { None } else { self.shared.closed.get().cloned() }
    }

    /// The newest revision that was acknowledged.
    fn published(&self) -> Revision {
        self.shared.hub.published()
    }

    fn closed(&self) -> StoreError {
        self.shared.closed_error().unwrap_or_else(|| StoreError::Closed("its writer has ended".to_owned()))
    }

    fn send(&self, message: Message) -> Result<(), StoreError> {
        match &self.writes {
            Writes::Thread(messages) => messages.try_send(message).map_err(|_| self.closed()),
            #[cfg(test)]
            Writes::Inline(inline) => inline.lock().receive(message),
        }
    }

    async fn list_from(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        let mut from = match after {
            Some(after) if after >= prefix => read::above(after),
            _ => prefix.to_owned(),
        };
        let mut page = Page { entries: Vec::new(), revision: 0, more: false, count: 0 };
        let mut at = at;
        let goal = if limit == 0 { usize::MAX } else { limit };
        loop {
            let wanted = goal - page.entries.len();
            let request = ListRequest { prefix: prefix.to_owned(), from, at, wanted };
            let chunk = self.shared.read(move |connection| read::list(connection, &request)).await?;
            page.more |= wanted == 0 && chunk.counted > 0;
            page.entries.extend(chunk.entries);
            page.count += chunk.counted;
            page.revision = chunk.revision;
            at = Some(chunk.revision);
            match chunk.next {
                Some(next) => from = next,
                None => return Ok(page),
            }
        }
    }
}

/// A writer and what it shares with the rest.
struct Opened {
    writer: Writer,
    hub: Arc<Hub>,
    closed: Arc<OnceLock<String>>,
}

fn open_writer(site: &Arc<dyn Site>, options: &SqliteOptions, pace: Pace) -> Result<Opened, OpenError> {
    let opened = open_settled(site, options, pace);
    if let Err(OpenError::Database { source }) = &opened
        && source.sqlite_error_code() == Some(rusqlite::ffi::ErrorCode::SystemIoFailure)
    {
        site.mark_in_doubt();
    }
    opened
}

fn open_settled(site: &Arc<dyn Site>, options: &SqliteOptions, pace: Pace) -> Result<Opened, OpenError> {
    let failed = |source| OpenError::Database { source };
    site.settle().map_err(|source| OpenError::Folder { path: options.folder.clone(), source })?;
    let of_file = mark::of_file(&**site);
    let mut connection = site.connect(true).map_err(failed)?;
    let mut meta = schema::prepare_writer(&mut connection, site.synchronous())?;
    let check = options.check && !mark::holds(&connection, of_file);
    if let Some(found) = check.then(|| beside::damage(&connection)).flatten() {
        return Err(OpenError::Damaged { found });
    }
    site.sync_folder().map_err(|source| OpenError::Folder { path: options.folder.clone(), source })?;
    raise(&connection, &mut meta, options.min_revision).map_err(failed)?;
    let hub = Hub::new(meta.revision + meta.base);
    let closed = Arc::new(OnceLock::new());
    let expires = expiry::next(&connection).map_err(failed)?;
    let mut writer =
        Writer::new(connection, site.clone(), hub.clone(), meta, options.retention, pace, closed.clone());
    writer.expires(expires);
    Ok(Opened { writer, hub, closed })
}

/// Raises the base so that the newest revision is at least `least`.
fn raise(connection: &Connection, meta: &mut Meta, least: Revision) -> rusqlite::Result<()> {
    let newest = meta.revision + meta.base;
    if newest >= least {
        return Ok(());
    }
    meta.base += least - newest;
    meta.floor = meta.revision;
    let sql = "UPDATE meta SET base = ?1, floor = ?2";
    connection.execute(sql, [meta.base as i64, meta.floor as i64]).map(drop)
}

/// Starts a thread of the store; a panic in one ends the process, because what it held is in doubt.
fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            if std::thread::panicking() {
                std::process::abort();
            }
        }
    }
    let body = move || {
        let _guard = Guard;
        run();
    };
    std::thread::Builder::new().name(name).spawn(body).map_err(|source| OpenError::Thread { source })
}

fn serve_reads(site: &dyn Site, queue: &tokio::sync::Mutex<mpsc::Receiver<ReadJob>>) {
    let mut connection = None;
    loop {
        // One thread waits on the queue, the others for that one.
        let job = queue.blocking_lock().blocking_recv();
        let Some(Some(job)) = job else { return };
        if connection.is_none() {
            connection = open_reader(site);
        }
        // Without a connection the job is dropped, and the reader is told that the store cannot be read.
        if let Some(connection) = &connection {
            job(connection);
        }
    }
}

fn open_reader(site: &dyn Site) -> Option<Connection> {
    let opened = site.connect(false).and_then(|connection| {
        schema::set_up(&connection, -1024)?;
        Ok(connection)
    });
    opened.inspect_err(|error| tracing::error!(error = %describe(error), "the store cannot be read")).ok()
}

fn copy_wal(site: &dyn Site, woken: &Receiver<()>, tell: &SyncSender<Message>) {
    let mut connection = None;
    while woken.recv().is_ok() {
        if connection.is_none() {
            connection = site.connect(true).and_then(|new| schema::set_up(&new, -256).map(|()| new)).ok();
        }
        let message = match connection.as_ref().map(checkpoint::catch_up) {
            Some(Ok(finish)) => Message::Copied { finish },
            Some(Err(error)) if !writer::is_full(&error) && !writer::is_busy(&error) => {
                Message::Fail(format!("a checkpoint failed: {}", describe(&error)))
            }
            // The next trigger tries again.
            _ => Message::Copied { finish: false },
        };
        if tell.send(message).is_err() {
            return;
        }
    }
}

/// The writer's thread and the ends of the others.
struct WriterThread {
    writer: Writer,
    inbox: Receiver<Message>,
    wake: Option<SyncSender<()>>,
    helpers: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
    retention: Duration,
}

impl WriterThread {
    fn run(mut self) {
        let mut trigger = checkpoint::Trigger::new();
        let period = self.retention / 2;
        let mut compact_at = Instant::now() + period;
        loop {
            let message = if self.writer.has_work() {
                self.inbox.try_recv().ok()
            } else {
                let until = self.writer.wakes_at().map_or(compact_at, |wakes| wakes.min(compact_at));
                match self.inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(message) => Some(message),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return self.end(None),
                }
            };
            if Instant::now() >= compact_at {
                compact_at = Instant::now() + period;
                self.writer.compact_by_time();
            }
            let (requests, other) = self.gather(message);
            self.writer.turn(requests);
            match other {
                Some(Message::Copied { finish }) => {
                    trigger.done();
                    if finish {
                        self.writer.finish_checkpoint();
                    }
                }
                Some(Message::Fail(reason)) => self.writer.fail(&reason),
                Some(Message::Close(answer)) => return self.end(answer),
                Some(Message::Request(_)) | None => {}
            }
            if trigger.observe(self.writer.wal_pages(), || self.writer.database_pages())
                && let Some(wake) = &self.wake
            {
                // Full means that it is awake.
                let _ = wake.try_send(());
            }
        }
    }

    /// What is queued, up to the first message that is not a request.
    fn gather(&self, first: Option<Message>) -> (Vec<Request>, Option<Message>) {
        let mut requests = Vec::new();
        let mut bytes = 0;
        let mut next = first;
        while let Some(message) = next.take() {
            match message {
                Message::Request(request) => {
                    bytes += size(&request);
                    requests.push(request);
                    if requests.len() < BATCH && bytes < BATCH_BYTES {
                        next = self.inbox.try_recv().ok();
                    }
                }
                other => return (requests, Some(other)),
            }
        }
        (requests, None)
    }

    fn end(mut self, answer: Option<oneshot::Sender<Result<(), StoreError>>>) {
        let failed = self.shared.closed_error();
        self.writer.close("it was shut down");
        match &self.shared.reads {
            // Not by dropping the sender: a reader that nobody polls any more may hold a clone of it.
            Reads::Threads(jobs) => (0..READERS).for_each(|_| drop(jobs.blocking_send(None))),
            #[cfg(test)]
            Reads::Inline(_) => {}
        }
        self.wake.take();
        for helper in self.helpers.drain(..) {
            // Its panic would have ended the process.
            let _ = helper.join();
        }
        let ended = match failed {
            None => self.writer.end(!self.shared.damaged.load(Ordering::Relaxed)),
            Some(error) => {
                // The folder is free for a new opening before anyone hears of the end.
                drop(self.writer);
                Err(error)
            }
        };
        match answer {
            Some(answer) => drop(answer.send(ended)),
            None => {
                if let Err(error) = ended {
                    tracing::error!(error = %error, "the store did not end cleanly");
                }
            }
        }
    }
}

fn size(request: &Request) -> usize {
    match request {
        Request::Commit { transaction, .. } => transaction
            .writes
            .iter()
            .map(|write| match write {
                Write::Put { key, value } | Write::Expiring { key, value, .. } => key.len() + value.len(),
                Write::Delete { key } => key.len(),
            })
            .sum(),
        Request::Compact { .. } => 0,
    }
}

impl Shared {
    fn closed_error(&self) -> Option<StoreError> {
        self.closed.get().map(|reason| StoreError::Closed(reason.clone()))
    }

    /// Runs one short read.
    fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, ReadError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        if let Some(error) = self.closed_error() {
            return std::future::ready(Err(error)).boxed();
        }
        let unread = || StoreError::Closed("its readers have ended".to_owned());
        match &self.reads {
            Reads::Threads(jobs) => {
                let jobs = jobs.clone();
                let (closed, damaged) = (self.closed.clone(), self.damaged.clone());
                async move {
                    let (answer, answered) = oneshot::channel();
                    let job: ReadJob = Some(Box::new(move |connection| {
                        let _ = answer.send(job(connection));
                    }));
                    jobs.send(job).await.map_err(|_| unread())?;
                    let result = answered.await.map_err(|_| unread())?;
                    read_result(&closed, &damaged, result)
                }
                .boxed()
            }
            #[cfg(test)]
            Reads::Inline(connection) => {
                let result = match &*connection.lock() {
                    Some(connection) => read_result(&self.closed, &self.damaged, job(connection)),
                    None => Err(unread()),
                };
                std::future::ready(result).boxed()
            }
        }
    }
}

fn read_result<T>(
    closed: &OnceLock<String>,
    damaged: &AtomicBool,
    result: Result<T, ReadError>,
) -> Result<T, StoreError> {
    // What is read after a failed fsync may never have reached the disk.
    if let Some(reason) = closed.get() {
        return Err(StoreError::Closed(reason.clone()));
    }
    result.map_err(|error| match error {
        ReadError::Store(error) => error,
        ReadError::Sqlite(error) => {
            if is_damage(&error) {
                damaged.store(true, Ordering::Relaxed);
            }
            StoreError::Database(describe(&error))
        }
    })
}

impl History for Shared {
    fn changes(&self, prefix: &str, after: Revision) -> BoxFuture<'static, Result<Changes, StoreError>> {
        let prefix = prefix.to_owned();
        self.read(move |connection| read::changes(connection, &prefix, after))
    }
}

impl Store for SqliteStore {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<Entry>, Revision), StoreError>> {
        let key = key.to_owned();
        self.shared.read(move |connection| read::get(connection, &key))
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        async move {
            for _ in 1..LIST_ATTEMPTS {
                match self.list_from(&prefix, after.as_deref(), limit, at).await {
                    Err(StoreError::Compacted { .. }) if at.is_none() => {}
                    result => return result,
                }
            }
            self.list_from(&prefix, after.as_deref(), limit, at).await
        }
        .boxed()
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Committed, CommitError>> {
        async move {
            let permit = self.permits.clone().acquire_owned().await.ok();
            let (answer, answered) = oneshot::channel();
            self.send(Message::Request(Request::Commit { transaction, answer, permit }))?;
            answered.await.unwrap_or_else(|_| Err(self.closed().into()))
        }
        .boxed()
    }

    fn watch(&self, prefix: &str, after: Revision) -> BoxFuture<'_, Result<Watch, StoreError>> {
        let prefix = prefix.to_owned();
        async move { hub::watch(self.shared.hub.clone(), self.shared.clone(), None, &prefix, after).await }
            .boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        let revision = match self.shared.closed_error() {
            Some(error) => Err(error),
            None => Ok(self.shared.hub.published()),
        };
        std::future::ready(revision).boxed()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let permit = self.permits.clone().acquire_owned().await.ok();
            let (answer, answered) = oneshot::channel();
            self.send(Message::Request(Request::Compact { revision, answer, permit }))?;
            answered.await.unwrap_or_else(|_| Err(self.closed()))
        }
        .boxed()
    }

    fn size(&self) -> BoxFuture<'_, Result<Option<u64>, StoreError>> {
        self.shared.read(|connection| {
            let page: u32 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
            Ok(Some(u64::from(sweep::pages(connection)?.0) * u64::from(page)))
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            self.ended.store(true, Ordering::Relaxed);
            let (answer, answered) = oneshot::channel();
            self.send(Message::Close(Some(answer)))?;
            answered.await.unwrap_or_else(|_| Err(self.closed()))
        }
        .boxed()
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        if !self.ended.load(Ordering::Relaxed) {
            // Not waited for: a drop must not block. Whoever needs the end awaits `close`.
            let _ = self.send(Message::Close(None));
        }
    }
}
