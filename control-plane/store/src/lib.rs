//! The store: keys to bytes under one 64-bit revision.
//!
//! What always holds: an answer to [`Store::commit`] leaves after the write is durable; a watcher sees a write only
//! after that, in revision order, each exactly once; a list is a snapshot at one revision. The store knows nothing of
//! Kubernetes: keys are strings that begin with `/`, values are bytes.

pub mod etcd;
pub mod floor;
mod hub;
mod keys;
mod memory;
#[cfg(test)]
mod model;
pub mod sqlite;

pub use etcd::{EtcdMember, EtcdMembership, EtcdOptions, EtcdStore, EtcdTls};
pub use hub::Told;
pub use keys::{MAX_KEY, MAX_VALUE, MAX_WRITES, SERVED};
pub use memory::MemoryStore;
pub use sqlite::{OpenError, ReopeningStore, SqliteOptions, SqliteReader, SqliteStore};

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

/// Orders every write; it is what clients see as `resourceVersion`.
pub type Revision = u64;

/// One key as it stands at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Bytes,
    /// The revision of the write that made the key exist.
    pub create_revision: Revision,
    /// The revision of the write that gave it this value.
    pub mod_revision: Revision,
}

/// What must hold of a key for a transaction to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key exists with this `mod_revision`.
    Revision(Revision),
    /// The key exists.
    Present,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Put {
        key: String,
        value: Bytes,
    },
    /// As `Put`, and the store deletes the key by itself some time after `ttl` unless it is written anew before: whole
    /// seconds, at least one. A deletion by age is a change as any other: a revision, an event.
    Expiring {
        key: String,
        value: Bytes,
        ttl: Duration,
    },
    Delete {
        key: String,
    },
}

/// Guards and writes that commit together or not at all, at one revision. At most one write is of a served key
/// (`/registry/…`); unserved records (`/keelson/…`) may be written beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    pub guards: Vec<(String, Expect)>,
    pub writes: Vec<Write>,
}

/// The result of a committed transaction.
#[derive(Clone, Debug)]
pub struct Committed {
    pub revision: Revision,
    /// Holds back the wakes of those who watch: whoever reads a watch of this store after its own commit does so first, and
    /// drops this then.
    pub told: Told,
}

/// Why a transaction did not commit.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The guard with this index did not hold; `current` is what stands there.
    #[error("guard {guard} does not hold")]
    Conflict { guard: usize, current: Option<Entry> },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the store could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The revision was compacted away.
    #[error("revision {requested} is compacted; the oldest kept is {oldest}")]
    Compacted { requested: Revision, oldest: Revision },
    /// The revision lies in the future.
    #[error("revision {requested} is in the future; the newest is {current}")]
    Future { requested: Revision, current: Revision },
    /// A request breaks the store's limits or rules; says which.
    #[error("refused: {0}")]
    Refused(String),
    /// No space is left: reads go on, writes are refused.
    #[error("no space left on the device; reads go on, writes are refused until space is freed")]
    Full,
    /// The store does not answer now; a write was not made.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// The connection broke or time ran out while a write was under way: it may have been made or not.
    #[error("it is not known whether the write was made: {0}")]
    Unknown(String),
    /// The store is closed after an I/O failure or at shutdown.
    #[error("the store is closed: {0}")]
    Closed(String),
    /// The database is damaged or of an unknown format.
    #[error("{0}")]
    Database(String),
}

/// A page of a prefix at one revision.
#[derive(Clone, Debug)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// The snapshot's revision, the same for all pages of one list.
    pub revision: Revision,
    /// More keys follow the last entry.
    pub more: bool,
    /// How many keys the prefix holds at the revision, counted from the first key of this page.
    pub count: u64,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub revision: Revision,
    pub key: String,
    /// The new value, `None` when the key was deleted.
    pub value: Option<Bytes>,
    /// What stood there before, `None` when the key was created.
    pub prev: Option<Entry>,
}

/// What a watch yields.
#[derive(Clone, Debug)]
pub enum WatchItem {
    Event(Event),
    /// Everything up to this revision was delivered.
    Progress(Revision),
}

/// How far a watch must have been read to be true at a revision, so that a reader of the watch can answer without
/// reading the store.
///
/// Both answers are `(revision, needed)`: once the watch's reader has seen an item (event or progress) of revision
/// `needed` or above, it has seen every change under the prefix up to and including `revision`.
pub trait Frontier: Send + Sync + 'static {
    /// The newest revision that is known here, at once.
    fn now(&self) -> (Revision, Revision);

    /// A revision that holds every write acknowledged anywhere before the call. Back ends with one process have it at
    /// hand; others ask the cluster, and wait until its changes are here.
    fn latest(&self) -> BoxFuture<'_, Result<(Revision, Revision), StoreError>>;
}

/// A stream of changes; ends after the first error.
pub struct Watch {
    items: BoxStream<'static, Result<WatchItem, StoreError>>,
    frontier: Arc<dyn Frontier>,
}

impl Watch {
    /// For back ends.
    pub fn new(
        items: BoxStream<'static, Result<WatchItem, StoreError>>,
        frontier: Arc<dyn Frontier>,
    ) -> Watch {
        Watch { items, frontier }
    }

    /// A handle that outlives the reading of the stream.
    pub fn frontier(&self) -> Arc<dyn Frontier> {
        self.frontier.clone()
    }
}

impl Stream for Watch {
    type Item = Result<WatchItem, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.items.as_mut().poll_next(context)
    }
}

/// The store's contract; every back end passes the same model-based test.
pub trait Store: Send + Sync + 'static {
    /// The value of a key, at the newest revision; with the revision the answer is true at.
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<Entry>, Revision), StoreError>>;

    /// The keys under `prefix` in order, at most `limit` (0: no limit) after key `after`, at revision `at` or the newest.
    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'_, Result<Page, StoreError>>;

    /// Commits durably: the answer comes after the fsync, when the changes are with the watches. Their readers are woken at
    /// the latest when the answer's [`Committed::told`] is dropped, or soon after where it is held for long.
    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Committed, CommitError>>;

    /// All changes under `prefix` with a revision above `after`, in order, then live ones. A slow reader blocks its own
    /// stream; when what it has not read yet is compacted it is cut with [`StoreError::Compacted`]. Nothing is skipped
    /// in silence. `after` may lie in the future: changes up to it are not delivered.
    fn watch(&self, prefix: &str, after: Revision) -> BoxFuture<'_, Result<Watch, StoreError>>;

    /// The newest durable revision.
    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// Forgets history before `revision` in bounded steps; live rows stay.
    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>>;

    /// How many bytes the database takes on its disk; `None` where there is no file.
    fn size(&self) -> BoxFuture<'_, Result<Option<u64>, StoreError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Ends the store cleanly: for SQLite one database file without a WAL remains.
    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}
