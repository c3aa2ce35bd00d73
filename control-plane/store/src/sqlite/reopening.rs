//! A store that opens itself anew after its disk failed.
//!
//! What always holds: what was in doubt when a write or an fsync failed is settled by a new opening, as after a crash, and
//! by nothing else: the failed store answers nothing any more. Until then every call says so; no revision is handed out
//! twice, and none goes back. While nothing fails, nothing runs here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use parking_lot::RwLock;

use super::{OpenError, SqliteOptions, SqliteStore};
use crate::{CommitError, Committed, Entry, Page, Revision, Store, StoreError, Transaction, Watch};

/// Between attempts to open a store whose disk still fails.
const RETRY: Duration = Duration::from_secs(1);
/// Found damaged so many times in a row, it is: a disk that fails may also read badly for a while.
const DAMAGED: u32 = 3;

type OnDamage = Box<dyn Fn(&OpenError) + Send + Sync>;

/// See the module.
pub struct ReopeningStore {
    shared: Arc<Shared>,
}

struct Shared {
    options: SqliteOptions,
    current: RwLock<Arc<SqliteStore>>,
    /// A thread is opening the store anew.
    opening: AtomicBool,
    /// The user has closed it.
    ended: AtomicBool,
    on_damage: OnDamage,
}

impl ReopeningStore {
    /// Opens the store as [`SqliteStore::open`] does; the first opening's failure is the caller's. `on_damage` is told, once
    /// for each failure of the disk, when the database is found broken afterwards: no more opening mends that.
    pub fn open(
        options: SqliteOptions,
        on_damage: impl Fn(&OpenError) + Send + Sync + 'static,
    ) -> Result<ReopeningStore, OpenError> {
        let current = RwLock::new(Arc::new(SqliteStore::open(options.clone())?));
        let (opening, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(ReopeningStore {
            shared: Arc::new(Shared { options, current, opening, ended, on_damage: Box::new(on_damage) }),
        })
    }

    fn current(&self) -> Arc<SqliteStore> {
        self.shared.current.read().clone()
    }

    /// Passes an answer on; one that says that the store has failed begins its opening.
    fn heed<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Closed(_) | StoreError::Unknown(_)) = &answer {
            self.shared.clone().reopen();
        }
        answer
    }
}

impl Shared {
    fn reopen(self: Arc<Shared>) {
        if self.ended.load(Ordering::Acquire) || self.opening.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = self.clone();
        let thread = std::thread::Builder::new().name("store-reopen".to_owned()).spawn(move || shared.run());
        if let Err(error) = thread {
            tracing::error!(error = %error, "the store's opening cannot begin");
            self.opening.store(false, Ordering::Release);
        }
    }

    fn run(&self) {
        let failed = self.current.read().clone();
        if let Some(reason) = failed.failure() {
            tracing::warn!(reason, "the store is opened anew");
            // Ends its threads and its hold on the folder; that it cannot end cleanly is known.
            let _ = futures::executor::block_on(failed.close());
            // Whatever was acknowledged is below: the disk must not take it back unseen.
            let least = failed.published().max(self.options.min_revision);
            self.attempt(SqliteOptions { min_revision: least, ..self.options.clone() });
        }
        self.opening.store(false, Ordering::Release);
    }

    fn attempt(&self, options: SqliteOptions) {
        let (mut told, mut damaged) = (None, 0);
        while !self.ended.load(Ordering::Acquire) {
            match SqliteStore::open(options.clone()) {
                Ok(store) => {
                    tracing::info!("the store is open again");
                    let store = Arc::new(store);
                    *self.current.write() = store.clone();
                    // Its user closed the one before while this one was opened.
                    if self.ended.load(Ordering::Acquire) {
                        let _ = futures::executor::block_on(store.close());
                    }
                    return;
                }
                Err(error) => {
                    let text = error.to_string();
                    // The same reason is told once.
                    if told.as_ref() != Some(&text) {
                        tracing::error!(error = %text, "the store cannot be opened yet");
                        told = Some(text);
                    }
                    damaged = if error.is_damage() { damaged + 1 } else { 0 };
                    if damaged == DAMAGED {
                        (self.on_damage)(&error);
                    }
                    std::thread::park_timeout(RETRY);
                }
            }
        }
    }
}

impl Store for ReopeningStore {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<Entry>, Revision), StoreError>> {
        let (current, key) = (self.current(), key.to_owned());
        async move { self.heed(current.get(&key).await) }.boxed()
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        let (current, prefix, after) = (self.current(), prefix.to_owned(), after.map(str::to_owned));
        async move { self.heed(current.list(&prefix, after.as_deref(), limit, at).await) }.boxed()
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Committed, CommitError>> {
        let current = self.current();
        async move {
            match current.commit(transaction).await {
                Err(CommitError::Store(error)) => {
                    Err(CommitError::Store(self.heed::<()>(Err(error)).unwrap_err()))
                }
                answer => answer,
            }
        }
        .boxed()
    }

    fn watch(&self, prefix: &str, after: Revision) -> BoxFuture<'_, Result<Watch, StoreError>> {
        let (current, prefix) = (self.current(), prefix.to_owned());
        async move { self.heed(current.watch(&prefix, after).await) }.boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        let current = self.current();
        async move { self.heed(current.revision().await) }.boxed()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        let current = self.current();
        async move { self.heed(current.compact(revision).await) }.boxed()
    }

    fn size(&self) -> BoxFuture<'_, Result<Option<u64>, StoreError>> {
        let current = self.current();
        async move { self.heed(current.size().await) }.boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.shared.ended.store(true, Ordering::Release);
        let current = self.current();
        async move { current.close().await }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DATABASE, Message};
    use super::*;
    use std::sync::mpsc::channel;

    fn fail(store: &ReopeningStore) {
        store.current().send(Message::Fail("a test".to_owned())).unwrap();
    }

    async fn until(store: &ReopeningStore, works: bool) {
        let begun = std::time::Instant::now();
        while store.revision().await.is_ok() != works {
            assert!(begun.elapsed() < Duration::from_secs(30), "it works: {works}");
            tokio::task::yield_now().await;
        }
    }

    /// What is damaged is opened again in vain; whoever can do something about it is told.
    #[tokio::test]
    async fn damage_found_at_the_new_opening_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteOptions { check: true, ..SqliteOptions::new(folder.path()) };
        let (tell, told) = channel();
        let store = ReopeningStore::open(options, move |error| drop(tell.send(error.to_string()))).unwrap();
        fail(&store);
        until(&store, false).await;
        until(&store, true).await;
        assert!(told.try_recv().is_err(), "nothing was wrong with the file");
        // With a WAL that holds all of it the file would not be missed.
        std::fs::write(folder.path().join(format!("{DATABASE}-wal")), b"").unwrap();
        std::fs::write(folder.path().join(DATABASE), vec![7; 40_960]).unwrap();
        fail(&store);
        until(&store, false).await;
        let text = told.recv_timeout(Duration::from_secs(30)).expect("told");
        assert!(text.contains("database"), "{text}");
        store.close().await.ok();
    }
}
