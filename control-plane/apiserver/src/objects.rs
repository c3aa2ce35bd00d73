//! Objects as bytes: reading, listing, watching and writing what the store keeps.
//!
//! What always holds: what is handed out carries the revision it is true at; a write names what it expects to find.

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use keelson_api::status::Status;
use keelson_store::{CommitError, Entry, Event, Expect, Store, StoreError, Transaction, WatchItem, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::filter::Filter;
use crate::options::{ListOptions, Match, Version};

/// One object as the store keeps it.
#[derive(Clone, Debug)]
pub struct Stored {
    pub key: Arc<str>,
    pub value: Bytes,
    pub revision: u64,
}

impl From<Entry> for Stored {
    fn from(entry: Entry) -> Stored {
        Stored { key: entry.key.into(), value: entry.value, revision: entry.mod_revision }
    }
}

/// A page of objects.
#[derive(Debug)]
pub struct Listing {
    pub items: Vec<Stored>,
    /// The snapshot's revision.
    pub revision: u64,
    /// Where the next page starts.
    pub token: Option<String>,
    /// How many follow this page, where that is known.
    pub remaining: Option<u64>,
}

/// What a watch sees.
#[derive(Clone, Debug)]
pub enum Change {
    Added(Stored),
    Modified(Stored),
    /// The last state that matched, at the revision of the change.
    Deleted(Stored),
    /// Everything up to the revision was seen.
    Progress(u64),
}

/// Why a write did not happen.
#[derive(Debug)]
pub enum WriteError {
    /// What stands there is not what was expected; `None`: nothing stands there.
    Conflict(Option<Stored>),
    Failed(Status),
}

impl From<Status> for WriteError {
    fn from(status: Status) -> WriteError {
        WriteError::Failed(status)
    }
}

/// How long a read of a future revision waits, as upstream's watch cache does.
const FUTURE_WAIT: Duration = Duration::from_secs(3);
/// Keys read from the store at once while filtering.
const CHUNK: usize = 2000;

/// Turns a failure of the store into an answer.
pub fn store_status(error: StoreError) -> Status {
    match error {
        StoreError::Compacted { requested, oldest } => {
            Status::expired(format!("too old resource version: {requested} ({oldest})"))
        }
        StoreError::Future { requested, current } => Status::too_large_resource_version(requested, current),
        StoreError::Refused(why) => Status::request_entity_too_large(why),
        full @ StoreError::Full => Status::service_unavailable(full.to_string()),
        closed @ StoreError::Closed(_) => Status::service_unavailable(closed.to_string()),
        StoreError::Database(text) => {
            tracing::error!(error = text, "the store failed");
            Status::internal("the store failed; the server's log says why")
        }
    }
}

/// The store, seen as objects.
#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn Store>,
}

impl Objects {
    pub fn new(store: Arc<dyn Store>) -> Objects {
        Objects { store }
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The newest state.
    pub async fn get(&self, key: &str) -> Result<Option<Stored>, Status> {
        let (entry, _) = self.store.get(key).await.map_err(store_status)?;
        Ok(entry.map(Stored::from))
    }

    /// A state at least as new as `version`.
    pub async fn get_not_older(&self, key: &str, version: Version) -> Result<Option<Stored>, Status> {
        if let Version::At(revision) = version {
            self.wait_for(revision).await?;
        }
        self.get(key).await
    }

    /// Waits until the store has reached a revision; a bounded time.
    async fn wait_for(&self, revision: u64) -> Result<(), Status> {
        let deadline = tokio::time::Instant::now() + FUTURE_WAIT;
        loop {
            let current = self.store.revision().await.map_err(store_status)?;
            if current >= revision {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(Status::too_large_resource_version(revision, current));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Lists what lies under `scope` and passes the filter.
    pub async fn list(&self, scope: &str, filter: &Filter, options: &ListOptions) -> Result<Listing, Status> {
        let mut after = None;
        let mut at = None;
        match (&options.token, options.version) {
            (Some(token), version) => {
                if version != Version::Newest && version != Version::Any {
                    return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
                }
                let (revision, start) = decode_token(token)?;
                at = revision;
                after = Some(format!("{scope}{start}"));
            }
            (None, Version::At(revision)) => {
                let exact = options.version_match == Some(Match::Exact)
                    || (options.version_match.is_none() && options.limit > 0);
                self.wait_for(revision).await?;
                at = exact.then_some(revision);
            }
            (None, _) => {}
        }
        self.pages(scope, filter, options.limit, after, at).await
    }

    async fn pages(
        &self,
        scope: &str,
        filter: &Filter,
        limit: usize,
        mut after: Option<String>,
        mut at: Option<u64>,
    ) -> Result<Listing, Status> {
        let mut items = Vec::new();
        loop {
            let want = if limit > 0 && filter.passes_all() { limit - items.len() } else if limit > 0 { CHUNK } else { 0 };
            let page = self.store.list(scope, after.as_deref(), want, at).await.map_err(|error| expired_token(error, scope, after.as_deref()))?;
            at = Some(page.revision);
            let count = page.entries.len() as u64;
            let mut taken = 0u64;
            for entry in page.entries {
                taken += 1;
                let key = entry.key.clone();
                let stored = Stored::from(entry);
                if filter.matches(&stored) {
                    items.push(stored);
                }
                after = Some(key);
                if limit > 0 && items.len() == limit {
                    break;
                }
            }
            let more = page.more || taken < count;
            if !more {
                return Ok(Listing { items, revision: page.revision, token: None, remaining: None });
            }
            if limit > 0 && items.len() == limit {
                let token = encode_token(page.revision, after.as_deref().unwrap_or_default().strip_prefix(scope).unwrap_or_default());
                let remaining = filter.passes_all().then(|| page.count.saturating_sub(taken));
                return Ok(Listing { items, revision: page.revision, token: Some(token), remaining });
            }
        }
    }

    /// The newest revision.
    pub async fn revision(&self) -> Result<u64, Status> {
        self.store.revision().await.map_err(store_status)
    }

    /// Changes under `scope` after a revision that concern the filter.
    pub async fn watch(
        &self,
        scope: &str,
        filter: Arc<Filter>,
        after: u64,
    ) -> Result<BoxStream<'static, Result<Change, Status>>, Status> {
        let stream = self.store.watch(scope, after).await.map_err(store_status)?;
        Ok(stream
            .filter_map(move |item| {
                let change = match item {
                    Ok(WatchItem::Event(event)) => see(event, &filter).map(Ok),
                    Ok(WatchItem::Progress(revision)) => Some(Ok(Change::Progress(revision))),
                    Err(error) => Some(Err(store_status(error))),
                };
                std::future::ready(change)
            })
            .boxed())
    }

    /// Commits one write with what it expects of its key, and further guards and unserved writes.
    pub async fn commit(&self, transaction: Transaction) -> Result<u64, WriteError> {
        match self.store.commit(transaction).await {
            Ok(committed) => Ok(committed.revision),
            Err(CommitError::Conflict { current, .. }) => Err(WriteError::Conflict(current.map(Stored::from))),
            Err(CommitError::Store(error)) => Err(WriteError::Failed(store_status(error))),
        }
    }

    /// Makes a key that must not exist.
    pub async fn create(&self, key: &str, value: Bytes) -> Result<u64, WriteError> {
        self.commit(Transaction {
            guards: vec![(key.to_owned(), Expect::Absent)],
            writes: vec![Write::Put { key: key.to_owned(), value }],
        })
        .await
    }

    /// Replaces the state of this revision.
    pub async fn replace(&self, key: &str, revision: u64, value: Bytes) -> Result<u64, WriteError> {
        self.commit(Transaction {
            guards: vec![(key.to_owned(), Expect::Revision(revision))],
            writes: vec![Write::Put { key: key.to_owned(), value }],
        })
        .await
    }

    /// Deletes the state of this revision.
    pub async fn delete(&self, key: &str, revision: u64) -> Result<u64, WriteError> {
        self.commit(Transaction {
            guards: vec![(key.to_owned(), Expect::Revision(revision))],
            writes: vec![Write::Delete { key: key.to_owned() }],
        })
        .await
    }
}

/// What a change is to a watcher with this filter: objects that start or stop matching appear and disappear.
fn see(event: Event, filter: &Filter) -> Option<Change> {
    let Event { revision, key, value, prev } = event;
    let key: Arc<str> = key.into();
    let new = value.map(|value| Stored { key: key.clone(), value, revision });
    let old = prev.map(|entry| Stored { key, value: entry.value, revision });
    let new = new.filter(|stored| filter.matches(stored));
    let old = old.filter(|stored| filter.matches(stored));
    match (new, old) {
        (Some(new), Some(_)) => Some(Change::Modified(new)),
        (Some(new), None) => Some(Change::Added(new)),
        (None, Some(old)) => Some(Change::Deleted(old)),
        (None, None) => None,
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Token {
    v: String,
    rv: i64,
    start: String,
}

fn encode_token(revision: u64, last: &str) -> String {
    let token = Token {
        v: "meta.k8s.io/v1".to_owned(),
        rv: i64::try_from(revision).unwrap_or(-1),
        start: format!("{last}\0"),
    };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

/// The revision (none: the newest) and the key after which the next page starts, relative to the scope.
fn decode_token(text: &str) -> Result<(Option<u64>, String), Status> {
    let bad = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
    let raw = URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(text)).map_err(|error| bad(&error.to_string()))?;
    let token: Token = serde_json::from_slice(&raw).map_err(|error| bad(&error.to_string()))?;
    if token.v != "meta.k8s.io/v1" {
        return Err(bad(&format!("server does not recognize this encoded version {:?}", token.v)));
    }
    let start = token.start.strip_suffix('\0').unwrap_or(&token.start);
    if token.start.is_empty() {
        return Err(bad("encoded start key empty (version meta.k8s.io/v1)"));
    }
    if start.split('/').any(|part| part == "..") {
        return Err(bad(&token.start));
    }
    if token.rv == 0 {
        return Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
    }
    Ok((u64::try_from(token.rv).ok(), start.trim_start_matches('/').to_owned()))
}

const INCONSISTENT: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// An expired page answers with a token that continues at the newest revision.
fn expired_token(error: StoreError, scope: &str, after: Option<&str>) -> Status {
    match (error, after) {
        (StoreError::Compacted { .. }, Some(after)) => {
            let token = Token { v: "meta.k8s.io/v1".to_owned(), rv: -1, start: format!("{}\0", after.strip_prefix(scope).unwrap_or_default()) };
            let mut status = Status::expired(INCONSISTENT);
            status.continue_token = Some(URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default()));
            status
        }
        (StoreError::Compacted { .. }, None) => Status::expired(
            "The resourceVersion for the provided list is too old.",
        ),
        (error, _) => store_status(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_hold_revision_and_key() {
        let token = encode_token(17, "default/a");
        assert_eq!(decode_token(&token).unwrap(), (Some(17), "default/a".to_owned()));
        for bad in ["", "!", "e30", &URL_SAFE_NO_PAD.encode(br#"{"v":"meta.k8s.io/v1","rv":1,"start":"../../secrets/x"}"#)] {
            assert_eq!(decode_token(bad).unwrap_err().code, 400, "{bad}");
        }
        let expired = expired_token(StoreError::Compacted { requested: 1, oldest: 5 }, "/registry/pods/", Some("/registry/pods/default/a"));
        assert_eq!((expired.code, decode_token(&expired.continue_token.unwrap()).unwrap()), (410, (None, "default/a".to_owned())));
    }
}
