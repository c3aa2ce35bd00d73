//! Commits, and what is done when the connection broke under one.
//!
//! An attempt that was never sent is made again at another member. One whose end is unknown is made again only where
//! that is safe: the transaction expects a key that it writes to be absent or at a revision (its pivot), so that of all
//! attempts at most one takes effect. What the pivot's history shows then decides: a change that is ours is the first
//! attempt's. Without a pivot, or when the history does not tell, the answer is [`StoreError::Unknown`]; a failure is
//! never reported for what may have been done.
//!
//! Two writers that make the very same change from the same revision cannot be told apart; both are then told that it
//! was made, which is so.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::{PbTxnOpResponse, PbTxnResponse};
use futures::StreamExt;
use tokio::time::Instant;

use super::Shared;
use super::members::{Failure, Pause};
use super::watch::Past;
use crate::hub::Reach;
use crate::{
    CommitError, Committed, Entry, Expect, Revision, StoreError, Told, Transaction, WatchItem, Write, hub,
    keys,
};

/// All attempts of one commit; below the time a request may take.
const BUDGET: Duration = Duration::from_secs(20);
/// How long the pivot's history may take to arrive.
const HISTORY: Duration = Duration::from_secs(10);

/// How a transaction's own write is recognised.
struct Pivot<'t> {
    key: &'t str,
    value: Option<&'t [u8]>,
    /// Our change is the first after this revision, if the key existed.
    after: Revision,
    existed: bool,
}

impl Pivot<'_> {
    fn of(transaction: &Transaction, published: Revision) -> Option<Pivot<'_>> {
        transaction.guards.iter().find_map(|(key, expect)| {
            let write = transaction.writes.iter().find(|write| write.key() == key)?;
            let value = match write {
                Write::Put { value, .. } | Write::Expiring { value, .. } => Some(value.as_ref()),
                Write::Delete { .. } => None,
            };
            match expect {
                Expect::Revision(revision) => Some(Pivot { key, value, after: *revision, existed: true }),
                // To delete what is absent changes nothing, and leaves nothing to find.
                Expect::Absent if value.is_some() => {
                    Some(Pivot { key, value, after: published, existed: false })
                }
                Expect::Absent | Expect::Present => None,
            }
        })
    }
}

impl Shared {
    pub async fn commit(self: &Arc<Self>, transaction: Transaction) -> Result<Committed, CommitError> {
        keys::check(&transaction)?;
        self.check_open()?;
        let pivot = Pivot::of(&transaction, self.hub.published());
        let until = Instant::now() + BUDGET;
        let mut pause = Pause::new(self.members.len());
        let mut doubt: Option<String> = None;
        loop {
            let why = match self.attempt(&transaction).await {
                Ok(Ok(committed)) => return Ok(committed),
                Ok(Err(conflict)) => match (&doubt, &pivot) {
                    (Some(why), Some(pivot)) => {
                        return match self.find(pivot).await {
                            Ok(Some(revision)) => Ok(Committed { revision, told: Told::default() }),
                            Ok(None) => Err(conflict),
                            Err(_) => Err(StoreError::Unknown(why.clone()).into()),
                        };
                    }
                    _ => return Err(conflict),
                },
                Err(Failure::NotDone(why)) => why,
                Err(Failure::NoLease) => {
                    self.leases.forget().await;
                    "the lease it was to live on is gone".to_owned()
                }
                Err(Failure::InDoubt(why)) => {
                    let Some(pivot) = &pivot else { return Err(StoreError::Unknown(why).into()) };
                    // Before it is tried again: what was made and is gone since must not be made anew.
                    if let Ok(Some(revision)) = self.find(pivot).await {
                        return Ok(Committed { revision, told: Told::default() });
                    }
                    doubt.get_or_insert(why).clone()
                }
                Err(failure) => {
                    return Err(match doubt {
                        Some(why) => StoreError::Unknown(why).into(),
                        None => super::read::unread(failure).into(),
                    });
                }
            };
            if Instant::now() >= until {
                return Err(match doubt {
                    Some(why) => StoreError::Unknown(why).into(),
                    None => StoreError::Unavailable(why).into(),
                });
            }
            pause.rest().await;
        }
    }

    /// One attempt: committed, a guard that does not hold, or a failure.
    async fn attempt(
        self: &Arc<Self>,
        transaction: &Transaction,
    ) -> Result<Result<Committed, CommitError>, Failure> {
        let ttl = transaction.writes.iter().find_map(|write| match write {
            Write::Expiring { ttl, .. } => Some(*ttl),
            _ => None,
        });
        let lease = match ttl {
            Some(ttl) => Some(self.leases.take(&self.members, ttl).await?),
            None => None,
        };
        let txn = self.base.txn(transaction, lease);
        let answer = self.members.once(|member| async move { member.kv().txn(txn).await }).await?.0;
        let header = answer.header.clone().unwrap_or_default();
        self.members.check_cluster(header.cluster_id)?;
        if answer.succeeded {
            return Ok(Ok(Committed { revision: self.base.out(header.revision), told: Told::default() }));
        }
        self.conflict(transaction, answer).map(Err).map_err(Failure::Final)
    }

    /// Which guard does not hold, by what was read at the same revision.
    fn conflict(&self, transaction: &Transaction, answer: PbTxnResponse) -> Result<CommitError, StoreError> {
        let mut answers = answer.responses.into_iter();
        for (guard, (_, expect)) in transaction.guards.iter().enumerate() {
            let current = match answers.next().and_then(|answer| answer.response) {
                Some(PbTxnOpResponse::ResponseRange(mut range)) => range.kvs.pop(),
                _ => return Err(StoreError::Database("etcd left out a part of its answer".to_owned())),
            };
            let current = current.map(|kv| self.base.entry(kv)).transpose()?;
            if !holds(expect, current.as_ref()) {
                return Ok(CommitError::Conflict { guard, current });
            }
        }
        Err(StoreError::Database("etcd refused a transaction whose guards hold".to_owned()))
    }

    /// The revision at which an earlier attempt made the pivot's change, if one did; by the changes up to now.
    async fn find(self: &Arc<Self>, pivot: &Pivot<'_>) -> Result<Option<Revision>, StoreError> {
        let look = async {
            super::read::Reacher(self.clone()).reach().await?;
            let past = Arc::new(Past(self.clone()));
            let mut watch = hub::watch(self.hub.clone(), past, None, pivot.key, pivot.after).await?;
            while let Some(item) = watch.next().await {
                match item? {
                    WatchItem::Event(event) if event.key == pivot.key => {
                        let ours = event.value.as_deref() == pivot.value;
                        if ours && pivot.existed == event.prev.is_some() {
                            return Ok(Some(event.revision));
                        }
                        if pivot.existed {
                            return Ok(None);
                        }
                    }
                    WatchItem::Event(_) => {}
                    // The past is over.
                    WatchItem::Progress(_) => return Ok(None),
                }
            }
            Err(StoreError::Closed("its watch ended".to_owned()))
        };
        let timeout = || StoreError::Unavailable("the history does not arrive".to_owned());
        tokio::time::timeout(HISTORY, look).await.unwrap_or_else(|_| Err(timeout()))
    }
}

fn holds(expect: &Expect, current: Option<&Entry>) -> bool {
    match (expect, current) {
        (Expect::Absent, None) | (Expect::Present, Some(_)) => true,
        (Expect::Revision(wanted), Some(entry)) => entry.mod_revision == *wanted,
        _ => false,
    }
}
