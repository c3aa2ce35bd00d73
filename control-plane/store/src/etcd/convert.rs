//! Between the store's words and etcd's: revisions with the base, keys, entries, events, transactions.

use bytes::Bytes;
use etcd_client::proto::{PbEvent, PbKeyValue};
use etcd_client::{Compare, CompareOp, EventType, Txn, TxnOp};

use crate::keys::prefix_end;
use crate::{Entry, Event, Expect, Revision, StoreError, Transaction, Write};

/// The offset between etcd's revisions and those told to the world.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base(pub Revision);

impl Base {
    /// etcd's revision as told to the world.
    pub fn out(self, revision: i64) -> Revision {
        self.0 + u64::try_from(revision).unwrap_or(0)
    }

    /// The world's revision in etcd's count; 0 or less for those before its first.
    pub fn inward(self, revision: Revision) -> i64 {
        let inner = i128::from(revision) - i128::from(self.0);
        i64::try_from(inner).unwrap_or(i64::MAX)
    }

    pub fn entry(self, kv: PbKeyValue) -> Result<Entry, StoreError> {
        let key = String::from_utf8(kv.key)
            .map_err(|_| StoreError::Database("etcd holds a key that is not UTF-8".to_owned()))?;
        Ok(Entry {
            key,
            value: Bytes::from(kv.value),
            create_revision: self.out(kv.create_revision),
            mod_revision: self.out(kv.mod_revision),
        })
    }

    /// An event, `None` where it needs a previous value that a compaction has taken.
    pub fn event(self, event: PbEvent) -> Result<Option<Event>, StoreError> {
        let deleted = event.r#type == EventType::Delete as i32;
        let Some(kv) = event.kv else {
            return Err(StoreError::Database("etcd sent an event without a key".to_owned()));
        };
        let revision = self.out(kv.mod_revision);
        let created = !deleted && kv.create_revision == kv.mod_revision;
        let prev = match event.prev_kv {
            Some(prev) if !created => Some(self.entry(prev)?),
            None if !created => return Ok(None),
            _ => None,
        };
        let entry = self.entry(kv)?;
        let value = (!deleted).then_some(entry.value);
        Ok(Some(Event { revision, key: entry.key, value, prev }))
    }

    fn compare(self, key: &str, expect: &Expect) -> Compare {
        match expect {
            Expect::Absent => Compare::create_revision(key, CompareOp::Equal, 0),
            Expect::Present => Compare::create_revision(key, CompareOp::Greater, 0),
            Expect::Revision(wanted) => {
                // What is absent has 0: a revision before etcd's first must not match it.
                let inner = Some(self.inward(*wanted)).filter(|inner| *inner > 0).unwrap_or(i64::MAX);
                Compare::mod_revision(key, CompareOp::Equal, inner)
            }
        }
    }

    /// A transaction: guards, writes, and reads of what the guards are about for when one does not hold.
    pub fn txn(self, transaction: &Transaction, lease: Option<i64>) -> Txn {
        let compares: Vec<Compare> =
            transaction.guards.iter().map(|(key, expect)| self.compare(key, expect)).collect();
        let writes: Vec<TxnOp> = transaction
            .writes
            .iter()
            .map(|write| match write {
                Write::Put { key, value } => TxnOp::put(key.as_str(), value.as_ref(), None),
                Write::Expiring { key, value, .. } => {
                    let options = lease.map(|lease| etcd_client::PutOptions::new().with_lease(lease));
                    TxnOp::put(key.as_str(), value.as_ref(), options)
                }
                Write::Delete { key } => TxnOp::delete(key.as_str(), None),
            })
            .collect();
        let reads: Vec<TxnOp> =
            transaction.guards.iter().map(|(key, _)| TxnOp::get(key.as_str(), None)).collect();
        Txn::new().when(compares).and_then(writes).or_else(reads)
    }
}

/// etcd's range for a prefix. The store's keys begin with `/`; what others keep beside them is not ours.
pub(super) fn range(prefix: &str) -> (Vec<u8>, Vec<u8>) {
    let whole = if prefix.is_empty() { "/" } else { prefix };
    if !whole.starts_with('/') {
        return (b"/".to_vec(), b"/".to_vec());
    }
    let end = prefix_end(whole).unwrap_or_else(|| "0".to_owned());
    (whole.as_bytes().to_vec(), end.into_bytes())
}
