//! Reads: single keys, lists in pages at one revision, and the cluster's newest revision for many askers at once.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::GetOptions;
use etcd_client::proto::PbRangeResponse;
use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Shared;
use super::convert::range;
use super::members::Failure;
use super::record::RECORD;
use crate::hub::Reach;
use crate::{Entry, Page, Revision, StoreError};

/// Keys of the first page of a list; small in tests, so that lists have several.
const PAGE: i64 = if cfg!(test) { 11 } else { 500 };
/// Pages grow and shrink with what they held, towards this.
const PAGE_BYTES: usize = 2 << 20;
const PAGE_MOST: i64 = if cfg!(test) { 23 } else { 5000 };
/// How often a list of the newest state begins anew when a compaction overtook it.
const LIST_ATTEMPTS: usize = 3;
/// A watch that is so late is given up for one at another member.
const STALLED: Duration = Duration::from_secs(1);
/// How long a reader waits for the changes it knows to exist.
const REACH: Duration = Duration::from_secs(6);

/// What a failed read is to the world.
pub(super) fn unread(failure: Failure) -> StoreError {
    match failure {
        Failure::NotDone(why) | Failure::InDoubt(why) => StoreError::Unavailable(why),
        Failure::Final(error) => error,
        Failure::Compacted | Failure::Future | Failure::NoLease => {
            StoreError::Database("etcd gave an answer that does not fit the question".to_owned())
        }
    }
}

/// Askers of the newest revision: one request at a time, each answers all who asked before it was sent.
#[derive(Default)]
pub(super) struct Rounds {
    state: Mutex<RoundState>,
}

#[derive(Default)]
struct RoundState {
    running: bool,
    waiting: Vec<oneshot::Sender<Result<i64, StoreError>>>,
}

impl Shared {
    /// etcd's newest revision, by a linearizable read that begins after this call.
    pub async fn newest(self: &Arc<Self>) -> Result<i64, StoreError> {
        let (answer, answered) = oneshot::channel();
        let begins = {
            let mut state = self.rounds.state.lock();
            state.waiting.push(answer);
            !std::mem::replace(&mut state.running, true)
        };
        if begins {
            let shared = self.clone();
            self.runtime.spawn(async move { shared.run_rounds().await });
        }
        answered.await.unwrap_or_else(|_| Err(StoreError::Closed("it was shut down".to_owned())))
    }

    async fn run_rounds(self: Arc<Self>) {
        loop {
            let waiting = {
                let mut state = self.rounds.state.lock();
                let waiting = std::mem::take(&mut state.waiting);
                state.running = !waiting.is_empty();
                waiting
            };
            if waiting.is_empty() {
                return;
            }
            let options = || Some(GetOptions::new().with_count_only());
            let read = self.members.read(|member| async move { member.kv().get(RECORD, options()).await });
            let answer = match read.await {
                Ok(answer) => self.header(&answer.0),
                Err(failure) => Err(unread(failure)),
            };
            for asker in waiting {
                // An asker that no longer waits needs no answer.
                let _ = asker.send(answer.clone());
            }
        }
    }

    /// An answer's revision, if it is of the right cluster.
    pub fn header(&self, answer: &PbRangeResponse) -> Result<i64, StoreError> {
        let header = answer.header.as_ref();
        let header = header.ok_or_else(|| StoreError::Database("etcd sent no header".to_owned()))?;
        self.members.check_cluster(header.cluster_id).map_err(unread)?;
        Ok(header.revision)
    }

    pub async fn get_entry(&self, key: &str) -> Result<(Option<Entry>, Revision), StoreError> {
        self.check_open()?;
        let read = self.members.read(|member| async move { member.kv().get(key, None).await });
        let mut answer = read.await.map_err(unread)?.0;
        let revision = self.base.out(self.header(&answer)?);
        let entry = answer.kvs.pop().map(|kv| self.base.entry(kv)).transpose()?;
        Ok((entry, revision))
    }

    /// What is wrong with a revision that etcd does not give: it is compacted, and from where on there is history.
    pub async fn compacted(self: &Arc<Self>, requested: Revision) -> StoreError {
        let oldest = super::watch::oldest(self).await.map_or(requested + 1, |oldest| self.base.out(oldest));
        StoreError::Compacted { requested, oldest: oldest.max(requested + 1) }
    }

    async fn future(self: &Arc<Self>, requested: Revision) -> StoreError {
        match self.newest().await {
            Ok(current) => StoreError::Future { requested, current: self.base.out(current) },
            Err(error) => error,
        }
    }

    /// A revision as etcd is asked for it; 0 for the newest.
    async fn readable(self: &Arc<Self>, at: Option<Revision>) -> Result<i64, StoreError> {
        let Some(at) = at else { return Ok(0) };
        let oldest = self.base.out(self.floor);
        if at < oldest {
            return Err(StoreError::Compacted { requested: at, oldest });
        }
        // etcd takes 0 for the newest. Its first revision is 1, and is as empty.
        Ok(self.base.inward(at).max(1))
    }

    pub async fn list_keys(
        self: &Arc<Self>,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        for _ in 1..LIST_ATTEMPTS {
            match self.list_once(prefix, after, limit, at).await {
                Err(StoreError::Compacted { .. }) if at.is_none() => {}
                result => return result,
            }
        }
        self.list_once(prefix, after, limit, at).await
    }

    async fn list_once(
        self: &Arc<Self>,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        self.check_open()?;
        let mut revision = self.readable(at).await?;
        let (first, end) = range(prefix);
        let mut from = match after {
            Some(after) if after.as_bytes() >= first.as_slice() => above(after.as_bytes()),
            _ => first,
        };
        let goal = if limit == 0 { i64::MAX } else { limit as i64 };
        let mut page = Page { entries: Vec::new(), revision: at.unwrap_or(0), more: false, count: 0 };
        let mut size = PAGE;
        loop {
            let wanted = size.min(goal - page.entries.len() as i64);
            let options =
                GetOptions::new().with_range(end.clone()).with_limit(wanted).with_revision(revision);
            let (from_key, options) = (&from, &options);
            let read = self.members.read(|member| async move {
                member.pages().get(from_key.clone(), Some(options.clone())).await
            });
            let answer = match read.await {
                Ok(answer) => answer.0,
                Err(Failure::Compacted) => {
                    let requested = at.unwrap_or_else(|| self.base.out(revision));
                    return Err(self.compacted(requested).await);
                }
                Err(Failure::Future) => return Err(self.future(at.unwrap_or(0)).await),
                Err(failure) => return Err(unread(failure)),
            };
            if page.entries.is_empty() {
                let newest = self.header(&answer)?;
                if revision == 0 {
                    revision = newest;
                    page.revision = self.base.out(newest);
                }
                page.count = u64::try_from(answer.count).unwrap_or(0);
            }
            let more = answer.more;
            let bytes: usize = answer.kvs.iter().map(|kv| kv.value.len() + kv.key.len()).sum();
            size = next_size(wanted, bytes);
            if let Some(last) = answer.kvs.last() {
                from = above(&last.key);
            }
            for kv in answer.kvs {
                page.entries.push(self.base.entry(kv)?);
            }
            if !more || page.entries.len() as i64 >= goal {
                page.more = more;
                return Ok(page);
            }
        }
    }

    /// Waits until everything that is acknowledged now has been published here.
    async fn reach_newest(self: &Arc<Self>) -> Result<Revision, StoreError> {
        self.check_open()?;
        let known = self.hub.published();
        let newest = self.base.out(self.newest().await?);
        if newest < known {
            let why =
                format!("etcd went back from revision {known} to {newest}: it was restored; start anew");
            self.close(&why);
            return Err(StoreError::Closed(why));
        }
        let mut told = self.told.subscribe();
        let reached = tokio::time::timeout(STALLED, told.wait_for(|told| *told >= newest)).await.is_ok();
        if !reached {
            self.stalled.notify_one();
            let waited = tokio::time::timeout(REACH - STALLED, told.wait_for(|told| *told >= newest)).await;
            if waited.is_err() {
                return Err(StoreError::Unavailable(format!(
                    "the changes up to revision {newest} do not arrive"
                )));
            }
        }
        self.check_open()?;
        Ok(newest)
    }
}

/// How many keys the next page asks for, by the bytes of the last.
fn next_size(keys: i64, bytes: usize) -> i64 {
    let scaled = if bytes > PAGE_BYTES {
        (keys as i128 * PAGE_BYTES as i128 / bytes as i128) as i64
    } else {
        keys.saturating_mul(2)
    };
    scaled.clamp(1, PAGE_MOST)
}

/// The least key above a key.
fn above(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

/// [`Reach`] needs the shared state behind its own pointer.
pub(super) struct Reacher(pub Arc<Shared>);

impl Reach for Reacher {
    fn reach(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        self.0.reach_newest().boxed()
    }
}
