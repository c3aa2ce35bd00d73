//! What was written, what watchers saw, and how the two must agree.

use std::collections::{BTreeMap, HashMap};

/// What a write did to its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object has this serial from then on.
    Put(u64),
    Delete,
}

/// One write of the only writer of an object.
#[derive(Clone, Debug)]
pub struct Op {
    pub change: Change,
    /// The revision it was acknowledged with; `None` where it is not told (deletes) or nobody knows.
    pub revision: Option<u64>,
    /// It was answered with "unknown" or broke: it may have been made or not.
    pub uncertain: bool,
}

/// All writes by object.
pub type Ops = BTreeMap<String, Vec<Op>>;

/// One event as a watcher got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub revision: u64,
    pub kind: &'static str,
    pub name: String,
    pub serial: u64,
}

/// One watcher's events: each later than the one before.
pub fn check_order(events: &[Seen]) -> Result<(), String> {
    for pair in events.windows(2) {
        if pair[1].revision <= pair[0].revision {
            return Err(format!("{:?} came after {:?}", pair[1], pair[0]));
        }
    }
    Ok(())
}

/// The events are just the writes: none missing, none doubled, none that nobody made.
pub fn check_against(ops: &Ops, events: &[Seen]) -> Result<(), String> {
    let mut by_name: HashMap<&str, Vec<&Seen>> = HashMap::new();
    for event in events {
        by_name.entry(&event.name).or_default().push(event);
    }
    for (name, ops) in ops {
        let seen = by_name.remove(name.as_str()).unwrap_or_default();
        check_object(ops, &seen).map_err(|what| format!("{name}: {what}"))?;
    }
    match by_name.into_keys().next() {
        Some(name) => Err(format!("{name}: events of an object that nobody wrote")),
        None => Ok(()),
    }
}

fn check_object(ops: &[Op], seen: &[&Seen]) -> Result<(), String> {
    let mut exists = false;
    let mut seen = seen.iter();
    let mut next = seen.next();
    for op in ops {
        let fits = next.is_some_and(|event| {
            let kind = match (&op.change, exists) {
                (Change::Put(_), false) => "ADDED",
                (Change::Put(_), true) => "MODIFIED",
                (Change::Delete, _) => "DELETED",
            };
            let serial = match op.change {
                Change::Put(serial) => serial == event.serial,
                Change::Delete => true,
            };
            kind == event.kind && serial && op.revision.is_none_or(|revision| revision == event.revision)
        });
        if fits {
            exists = op.change != Change::Delete;
            next = seen.next();
        } else if !op.uncertain {
            return Err(format!("{op:?} was acknowledged, the next event is {next:?}"));
        }
    }
    match next {
        Some(event) => Err(format!("{event:?} was not written, or seen twice")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(serial: u64, revision: u64) -> Op {
        Op { change: Change::Put(serial), revision: Some(revision), uncertain: false }
    }

    fn seen(revision: u64, kind: &'static str, serial: u64) -> Seen {
        Seen { revision, kind, name: "x".to_owned(), serial }
    }

    #[test]
    fn the_check_finds_what_is_missing_doubled_or_made_up() {
        let delete = Op { change: Change::Delete, revision: None, uncertain: false };
        let unsure = Op { change: Change::Put(3), revision: None, uncertain: true };
        let ops = Ops::from([("x".to_owned(), vec![put(1, 10), put(2, 20), unsure, delete, put(4, 50)])]);
        let whole = [
            seen(10, "ADDED", 1),
            seen(20, "MODIFIED", 2),
            seen(30, "MODIFIED", 3),
            seen(40, "DELETED", 3),
            seen(50, "ADDED", 4),
        ];
        check_order(&whole).unwrap();
        check_against(&ops, &whole).unwrap();
        let without = |index: usize| {
            let mut events = whole.to_vec();
            events.remove(index);
            events
        };
        check_against(&ops, &without(2)).expect("it may not have been made");
        for index in [0, 1, 3, 4] {
            assert!(check_against(&ops, &without(index)).is_err(), "{index}");
        }
        let mut doubled = whole.to_vec();
        doubled.insert(1, whole[0].clone());
        assert!(check_order(&doubled).is_err() && check_against(&ops, &doubled).is_err());
        let mut swapped = whole.to_vec();
        swapped.swap(0, 1);
        assert!(check_order(&swapped).is_err());
    }
}
