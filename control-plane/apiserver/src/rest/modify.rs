//! Changes that a subresource makes to its object by rule of its own (binding, eviction): no strategy, no client's body.

use keelson_api::doc::{Doc, Struct, Value};
use keelson_api::f::core_v1 as f;
use keelson_api::status::Status;
use keelson_api::{t, types};
use keelson_store::{Expect, Transaction};

use super::{MAX_ATTEMPTS, Op, WriteError, Written};
use crate::upkeep;

/// Changes an object of the op's row until no other write came between.
pub async fn modify(
    op: &Op<'_>,
    name: &str,
    dry_run: bool,
    change: impl Fn(&mut Doc) -> Result<(), Status>,
) -> Result<Written, Status> {
    let mut turn = None;
    for attempt in 0..MAX_ATTEMPTS {
        if turn.is_none() {
            turn = op.core.turns.before(attempt, || op.key(name)).await;
        }
        let Some(old) = op.load(name, attempt > 0).await? else {
            return Err(Status::not_found(&op.gr(), name));
        };
        let mut doc = old.doc.clone();
        change(&mut doc)?;
        let json = Op::encode_stored(&doc);
        if dry_run || json == old.json {
            return Ok(Written { json, revision: old.revision, created: false });
        }
        let key = op.key(name);
        let transaction = Transaction {
            guards: vec![(key.clone(), Expect::Revision(old.revision))],
            writes: vec![upkeep::put(&op.row, key, json.clone())],
        };
        match op.commit(transaction).await {
            Ok(revision) => {
                return Ok(Written { json, revision, created: false });
            }
            Err(WriteError::Conflict { .. }) => {}
            Err(WriteError::Failed(status)) => return Err(status),
        }
    }
    Err(Status::modified(&op.gr(), name))
}

/// A pod's condition to set.
pub struct Condition<'a> {
    pub kind: &'a str,
    pub status: &'a str,
    pub reason: &'a str,
    pub message: &'a str,
}

/// Sets a condition in a pod's status; its transition time moves only when its status does.
pub fn set_pod_condition(doc: &mut Doc, condition: &Condition<'_>, now: jiff::Timestamp) {
    use f::pod_condition as c;
    let Some(Value::List(all)) = doc.entry(&[f::pod::STATUS, f::pod_status::CONDITIONS]) else { return };
    let known =
        all.iter_mut().filter_map(Value::as_struct_mut).find(|known| known.str(c::TYPE) == condition.kind);
    let same = known.as_ref().is_some_and(|known| known.str(c::STATUS) == condition.status);
    let fill = |entry: &mut Struct| {
        entry.set(c::TYPE, condition.kind);
        entry.set(c::STATUS, condition.status);
        for (field, text) in [(c::REASON, condition.reason), (c::MESSAGE, condition.message)] {
            if text.is_empty() {
                entry.remove(field);
            } else {
                entry.set(field, text);
            }
        }
        if !same {
            entry.set(c::LAST_TRANSITION_TIME, types::time_text(now));
        }
    };
    match known {
        Some(entry) => fill(entry),
        None => {
            let mut entry = Struct::new(t::core_v1::POD_CONDITION);
            fill(&mut entry);
            all.push(Value::Struct(entry));
        }
    }
}
