//! Putting objects into an empty database.

use super::file::Reader;
use anyhow::{Context as _, Result, bail};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use keelson_store::{CommitError, SqliteOptions, SqliteStore, Store, Transaction};
use std::path::Path;

/// Commits under way at once: the store makes one fsync of them.
const AT_ONCE: usize = 256;
/// How far above the snapshot's newest revision the database goes on: the cluster went on after the snapshot was taken, and
/// what clients have seen must not come again (etcd's own advice for restores).
pub const LEAP: u64 = 1_000_000_000;

/// Makes a database in `folder` with all objects of a snapshot, and closes it. How many there are.
pub async fn database(folder: &Path, mut snapshot: Reader) -> Result<u64> {
    let options =
        SqliteOptions { min_revision: snapshot.header.revision + LEAP, ..SqliteOptions::new(folder) };
    let store = SqliteStore::open(options).context("the new database cannot be made")?;
    let objects = std::iter::from_fn(|| snapshot.object().transpose());
    let put = all(&store, objects.map(|object| object.map_err(anyhow::Error::from))).await;
    let closed = store.close().await.context("the new database cannot be closed");
    let count = put?;
    closed?;
    Ok(count)
}

/// Commits objects to a store that has none of them.
pub async fn all(store: &dyn Store, objects: impl Iterator<Item = Result<(String, Vec<u8>)>>) -> Result<u64> {
    let commits = stream::iter(objects).map(|object| async move {
        let (key, value) = object?;
        let Some(write) = keelson_apiserver::put_back(key.clone(), value.into()) else { return Ok(0) };
        match store.commit(Transaction { guards: Vec::new(), writes: vec![write] }).await {
            Ok(_) => Ok(1),
            Err(CommitError::Store(error)) => Err(error).with_context(|| format!("cannot write {key}")),
            Err(CommitError::Conflict { .. }) => bail!("{key} was written by somebody else"),
        }
    });
    commits.buffer_unordered(AT_ONCE).try_fold(0, |sum, one| async move { Ok(sum + one) }).await
}
