//! Lists: snapshots, pages and bodies.

use std::sync::Arc;

use bytes::Bytes;
use keelson_store::Revision;

use super::chunks::Chunks;
use super::core::{CacheError, WatchCache};
use super::object::{Form, Object};
use super::{Filter, ReadAt, Scope};

/// A body's chunk: large enough that a list is few frames, small enough that many lists at once cost little.
const BODY_CHUNK: usize = 64 << 10;
/// Rows per read where the store answers.
const STORE_PAGE: usize = 500;

/// What a list asks for.
#[derive(Clone)]
pub struct ListQuery {
    pub scope: Scope,
    pub filter: Option<Filter>,
    /// At most so many objects; 0: all.
    pub limit: usize,
    /// The key after which a continued list goes on.
    pub after: Option<String>,
    /// With `after`: [`ReadAt::Exact`] of the token's revision, or [`ReadAt::Newest`] for an inconsistent token.
    pub at: ReadAt,
}

/// A list's answer: a snapshot at `revision`.
#[derive(Debug)]
pub struct List {
    pub objects: Vec<Arc<Object>>,
    /// The list's resourceVersion; that of the first page for all pages.
    pub revision: Revision,
    /// The key for the continue token where more objects follow.
    pub continue_after: Option<String>,
    /// How many follow; known only without a filter.
    pub remaining: Option<u64>,
}

impl WatchCache {
    /// Lists from the cache; a revision of the past that the cache no longer has comes from the store's history.
    pub async fn list(&self, query: ListQuery) -> Result<List, CacheError> {
        if let ReadAt::Exact(revision) = query.at
            && !self.serves_exactly(revision).await?
        {
            return self
                .list_stored(
                    &query.scope,
                    query.filter.as_ref(),
                    query.after.as_deref(),
                    query.limit,
                    revision,
                )
                .await;
        }
        let newest = self.reach(query.at).await?;
        // The guard must not live across the await below.
        let snapshot = {
            let state = self.inner.state.lock();
            match query.at {
                ReadAt::Exact(revision) if state.changed > revision => Err(revision),
                ReadAt::Exact(revision) => Ok((state.objects.clone(), revision)),
                _ => Ok((state.objects.clone(), newest.max(state.applied))),
            }
        };
        let (objects, revision) = match snapshot {
            Ok(snapshot) => snapshot,
            // A write came in between; the store still knows.
            Err(revision) => {
                return self
                    .list_stored(
                        &query.scope,
                        query.filter.as_ref(),
                        query.after.as_deref(),
                        query.limit,
                        revision,
                    )
                    .await;
            }
        };
        Ok(page(&objects, &query, revision))
    }

    /// A page at a past revision from the store's rows.
    pub(super) async fn list_stored(
        &self,
        scope: &Scope,
        filter: Option<&Filter>,
        after: Option<&str>,
        limit: usize,
        revision: Revision,
    ) -> Result<List, CacheError> {
        let prefix = &self.inner.settings.prefix;
        let under = match scope {
            Scope::All => prefix.clone(),
            Scope::Namespace(namespace) => format!("{prefix}{namespace}/"),
            Scope::Key(key) => format!("{prefix}{key}"),
        };
        let mut list = List { objects: Vec::new(), revision, continue_after: None, remaining: None };
        let mut after = after.map(|key| format!("{prefix}{key}"));
        // One more than the limit tells whether more follow, also behind a filter.
        let wanted = if limit == 0 { usize::MAX } else { limit };
        loop {
            let rows = if filter.is_none() { wanted.min(STORE_PAGE) } else { STORE_PAGE };
            let page = self.inner.store.list(&under, after.as_deref(), rows, Some(revision)).await;
            let page = page.map_err(CacheError::from_store)?;
            let mut left = page.count;
            for entry in &page.entries {
                let object = self.inner.object(&entry.key, &entry.value, entry.mod_revision);
                let matched = object.filter(|o| scope.holds(o) && filter.is_none_or(|filter| filter(o)));
                if let Some(object) = matched {
                    if list.objects.len() == wanted {
                        list.continue_after = list.objects.last().map(|last| last.key().to_owned());
                        return Ok(list);
                    }
                    list.objects.push(object);
                }
                left -= 1;
            }
            if list.objects.len() == wanted && filter.is_none() {
                if left > 0 {
                    list.continue_after = list.objects.last().map(|last| last.key().to_owned());
                    list.remaining = Some(left);
                }
                return Ok(list);
            }
            match page.entries.into_iter().next_back() {
                Some(last) if page.more => after = Some(last.key),
                _ => return Ok(list),
            }
        }
    }
}

/// Picks a page from a snapshot.
fn page(objects: &Chunks, query: &ListQuery, revision: Revision) -> List {
    let mut list = List { objects: Vec::new(), revision, continue_after: None, remaining: None };
    let (start, prefix) = match &query.scope {
        Scope::All => (String::new(), String::new()),
        Scope::Namespace(namespace) => (format!("{namespace}/"), format!("{namespace}/")),
        Scope::Key(key) => {
            let matched = objects.get(key).filter(|o| query.filter.as_ref().is_none_or(|filter| filter(o)));
            let later = query.after.as_deref().is_some_and(|after| after >= &**key);
            list.objects.extend(matched.filter(|_| !later).cloned());
            return list;
        }
    };
    let mut cursor = match query.after.as_deref() {
        Some(after) if after >= start.as_str() => objects.seek(after, true),
        _ => objects.seek(&start, false),
    };
    let limit = if query.limit == 0 { usize::MAX } else { query.limit };
    if query.filter.is_none() && query.scope == Scope::All {
        list.objects.reserve_exact(limit.min(objects.len()));
    }
    loop {
        let before = cursor;
        let Some(object) = objects.next_ahead(&mut cursor, query.filter.is_some()) else { break };
        if !object.key().starts_with(&prefix) {
            break;
        }
        if query.filter.as_ref().is_some_and(|filter| !filter(object)) {
            continue;
        }
        if list.objects.len() == limit {
            list.continue_after = list.objects.last().map(|last| last.key().to_owned());
            if query.filter.is_none() {
                // The first key that cannot be in the namespace: '0' follows '/'.
                let end = match &query.scope {
                    Scope::Namespace(namespace) => objects.seek(&format!("{namespace}0"), false),
                    _ => objects.seek("\u{10ffff}", false),
                };
                list.remaining = Some(objects.between(before, end) as u64);
            }
            break;
        }
        list.objects.push(object.clone());
    }
    list
}

impl List {
    /// The body: `head`, the items as `form` says with commas between, `tail`.
    pub fn into_body(self, head: Bytes, form: Form, tail: Bytes) -> ListBody {
        let items: usize =
            self.objects.iter().map(|object| object.written_len(object.revision(), &form) + 1).sum();
        let left = (head.len() + tail.len() + items.saturating_sub(1)) as u64;
        ListBody {
            objects: self.objects.into_iter(),
            head: Some(head),
            form,
            tail: Some(tail),
            first: true,
            left,
        }
    }
}

/// A list's body as chunks of about 64 KiB, written as they are pulled: however long the list, one chunk is in memory.
#[derive(Debug)]
pub struct ListBody {
    objects: std::vec::IntoIter<Arc<Object>>,
    head: Option<Bytes>,
    form: Form,
    tail: Option<Bytes>,
    first: bool,
    left: u64,
}

impl ListBody {
    /// How many bytes the chunks that are left hold together: the content length, before the first is taken.
    pub fn len(&self) -> u64 {
        self.left
    }

    pub fn is_empty(&self) -> bool {
        self.left == 0
    }
}

impl Iterator for ListBody {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        let mut chunk = Vec::with_capacity((BODY_CHUNK + (8 << 10)).min(self.left as usize));
        if let Some(head) = self.head.take() {
            chunk.extend_from_slice(&head);
        }
        while chunk.len() < BODY_CHUNK {
            let Some(object) = self.objects.next() else {
                if let Some(tail) = self.tail.take() {
                    chunk.extend_from_slice(&tail);
                }
                break;
            };
            if !std::mem::take(&mut self.first) {
                chunk.push(b',');
            }
            object.write(object.revision(), &self.form, &mut chunk);
        }
        self.left = self.left.saturating_sub(chunk.len() as u64);
        Some(Bytes::from(chunk))
    }
}
