//! Compaction by time, shared with every other API server on the cluster, upstream's too: they agree through one key of
//! upstream's name, by compare-and-swap on its version, so that one of them compacts each time.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::PbTxnOpResponse;
use etcd_client::{Compare, CompareOp, Txn, TxnOp};

use super::Shared;
use super::members::Failure;
use crate::{Revision, StoreError};

const KEY: &str = "compact_rev_key";

/// What this process knows of the shared key.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    /// The key's version: how often it was written.
    version: i64,
    /// etcd's revision at the last look; an interval later it is old enough.
    revision: i64,
}

/// Compacts what is older than an interval until the store closes.
pub(super) async fn run(shared: Arc<Shared>, interval: Duration) {
    let mut turn = Turn::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = shared.stop.cancelled() => return,
        }
        match take_turn(&shared, turn).await {
            Ok(next) => turn = next,
            Err(error) => tracing::warn!(error = %error, "etcd could not be compacted; tried again later"),
        }
    }
}

async fn take_turn(shared: &Arc<Shared>, turn: Turn) -> Result<Turn, StoreError> {
    let txn = Txn::new()
        .when([Compare::version(KEY, CompareOp::Equal, turn.version)])
        .and_then([TxnOp::put(KEY, turn.revision.to_string(), None)])
        .or_else([TxnOp::get(KEY, None)]);
    let answer = shared.members.once(|member| async move { member.kv().txn(txn).await }).await;
    let answer = answer.map_err(super::read::unread)?.0;
    let revision = answer.header.as_ref().map_or(0, |header| header.revision);
    if !answer.succeeded {
        // Somebody else's turn.
        let kv = answer.responses.into_iter().find_map(|answer| match answer.response {
            Some(PbTxnOpResponse::ResponseRange(mut range)) => range.kvs.pop(),
            _ => None,
        });
        return Ok(Turn { version: kv.map_or(0, |kv| kv.version), revision });
    }
    if turn.revision > 0 {
        shared.compact_to(turn.revision).await?;
        tracing::debug!(revision = turn.revision, "compacted etcd");
    }
    Ok(Turn { version: turn.version + 1, revision })
}

impl Shared {
    /// Compacts at one of etcd's revisions; what others have compacted already is fine.
    async fn compact_to(&self, revision: i64) -> Result<(), StoreError> {
        let compact = self
            .members
            .read(|member| async move { member.client().kv_client().compact(revision, None).await });
        match compact.await {
            Ok(_) | Err(Failure::Compacted) => Ok(()),
            Err(failure) => Err(super::read::unread(failure)),
        }
    }

    pub async fn compact(self: &Arc<Self>, revision: Revision) -> Result<(), StoreError> {
        self.check_open()?;
        let newest = self.base.out(self.newest().await?);
        if revision > newest {
            return Err(StoreError::Future { requested: revision, current: newest });
        }
        match self.base.inward(revision) {
            inner if inner > 0 => self.compact_to(inner).await,
            _ => Ok(()),
        }
    }
}
