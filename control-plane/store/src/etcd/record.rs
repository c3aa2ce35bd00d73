//! What the store says of itself in the cluster: one record outside the keys it serves, checked at every open.

use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp};
use serde::{Deserialize, Serialize};

use super::members::{Failure, Members};
use super::{EtcdOptions, OpenError};
use crate::{Revision, StoreError};

/// Not below `/`, so that no list or watch shows it.
pub(super) const RECORD: &str = "keelson.store";
/// The format this code reads and writes.
const FORMAT: u32 = 1;

/// The record's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub format: u32,
    /// Added to etcd's revisions before they are told to the world.
    pub base: Revision,
    /// The oldest of etcd's revisions that is told: those before had another base.
    pub floor: i64,
}

/// What an open found.
pub(super) struct Found {
    pub record: Record,
    /// etcd's newest revision.
    pub revision: i64,
}

/// How the record stands in the cluster.
struct Stored {
    record: Record,
    mod_revision: i64,
    revision: i64,
}

/// Reads a record's bytes; refuses a format that is not known.
pub(super) fn parse(value: &[u8]) -> Result<Record, OpenError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } = serde_json::from_slice(value).map_err(|_| OpenError::NotOurs)?;
    if format != FORMAT {
        return Err(OpenError::Format { found: format, known: FORMAT });
    }
    serde_json::from_slice(value).map_err(|_| OpenError::NotOurs)
}

/// Finds the record, makes it in an empty cluster, and raises the base where the options ask for it.
pub(super) async fn prepare(members: &Members, options: &EtcdOptions) -> Result<Found, OpenError> {
    // Each round loses at most to one other process that opens the store at the same time.
    for _ in 0..8 {
        let Some(stored) = read(members).await? else {
            create(members).await?;
            continue;
        };
        let newest = stored.record.base + u64::try_from(stored.revision).unwrap_or(0);
        if newest >= options.min_revision {
            return Ok(Found { record: stored.record, revision: stored.revision });
        }
        let raised = Record {
            base: stored.record.base + (options.min_revision - newest),
            floor: stored.revision,
            ..stored.record
        };
        write(members, Compare::mod_revision(RECORD, CompareOp::Equal, stored.mod_revision), raised).await?;
    }
    Err(OpenError::Store(StoreError::Unavailable("others keep changing the store's record".to_owned())))
}

async fn read(members: &Members) -> Result<Option<Stored>, OpenError> {
    let answer = members.read(|member| async move { member.kv().get(RECORD, None).await }).await;
    let mut answer = answer.map_err(failed)?;
    let header = answer.0.header.take().unwrap_or_default();
    members.check_cluster(header.cluster_id).map_err(failed)?;
    match answer.0.kvs.pop() {
        None => Ok(None),
        Some(kv) => Ok(Some(Stored {
            record: parse(&kv.value)?,
            mod_revision: kv.mod_revision,
            revision: header.revision,
        })),
    }
}

async fn create(members: &Members) -> Result<(), OpenError> {
    let options = || Some(GetOptions::new().with_range("0").with_limit(1).with_keys_only());
    let answer = members.read(|member| async move { member.kv().get("/", options()).await }).await;
    if !answer.map_err(failed)?.0.kvs.is_empty() {
        return Err(OpenError::NotOurs);
    }
    let first = Record { format: FORMAT, base: 0, floor: 0 };
    write(members, Compare::create_revision(RECORD, CompareOp::Equal, 0), first).await
}

/// Writes the record if the comparison holds. An attempt in doubt is no harm: the next look tells.
async fn write(members: &Members, compare: Compare, record: Record) -> Result<(), OpenError> {
    let value = serde_json::to_vec(&record).map_err(|_| OpenError::NotOurs)?;
    let txn = Txn::new().when([compare]).and_then([TxnOp::put(RECORD, value, None)]);
    match members.once(|member| async move { member.kv().txn(txn).await }).await {
        Ok(_) | Err(Failure::NotDone(_) | Failure::InDoubt(_)) => Ok(()),
        Err(failure) => Err(failed(failure)),
    }
}

fn failed(failure: Failure) -> OpenError {
    OpenError::Store(super::read::unread(failure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_formats_it_does_not_know() {
        let good = parse(br#"{"format":1,"base":7,"floor":3}"#).unwrap();
        assert_eq!(good, Record { format: 1, base: 7, floor: 3 });
        assert!(matches!(
            parse(br#"{"format":2,"other":[]}"#),
            Err(OpenError::Format { found: 2, known: 1 })
        ));
        assert!(matches!(parse(b"k8s\0"), Err(OpenError::NotOurs)));
    }
}
