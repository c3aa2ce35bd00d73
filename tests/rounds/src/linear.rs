//! Whether a history of one register is linearizable: whether its calls can be put into one order, each between its begin
//! and its end, in which every answer is true.
//!
//! The history is walked once. At each answer, every order of the calls that are open is tried in which the answered one
//! has happened (just-in-time linearization); what is left of the possibilities goes on.

use std::collections::{BTreeSet, HashMap, HashSet};

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Read,
    /// Writes `to` where `from` stands. No value is written twice.
    Swap {
        from: u64,
        to: u64,
    },
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Read(u64),
    Swapped,
    /// Something else stood there.
    Conflict,
    /// No answer, or one that leaves it open: it may happen at any later time, or never.
    Unknown,
}

/// The begin or the end of a call, in the order in which they were.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    Begin { call: usize, what: Call },
    End { call: usize, answer: Answer },
}

/// More possibilities at once are not followed: then nothing is proven, which is an error too.
const MOST: usize = 200_000;

/// Calls that have happened and are still open, and what stands there then.
type Possible = (BTreeSet<usize>, u64);

/// Checks one register's history, which begins with `initial`.
pub fn check(initial: u64, history: &[Event]) -> Result<(), String> {
    let answers: HashMap<usize, Answer> = history
        .iter()
        .filter_map(|event| match event {
            Event::End { call, answer } => Some((*call, *answer)),
            Event::Begin { .. } => None,
        })
        .collect();
    let mut open: HashMap<usize, Call> = HashMap::new();
    let mut possible: HashSet<Possible> = HashSet::from([(BTreeSet::new(), initial)]);
    for event in history {
        match *event {
            Event::Begin { call, what } => {
                open.insert(call, what);
            }
            Event::End { call, answer: Answer::Unknown } => {
                if open.get(&call) == Some(&Call::Read) {
                    open.remove(&call);
                }
            }
            Event::End { call, answer } => {
                let before = possible.clone();
                possible = happened(call, possible, &open, &answers)?;
                let what = open.remove(&call);
                if possible.is_empty() {
                    let stood: BTreeSet<u64> = before.into_iter().map(|(_, value)| value).collect();
                    return Err(format!(
                        "call {call}, {what:?}, cannot have been answered {answer:?}: there stood {stood:?} before, and no \
                         order of {open:?} explains it"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// All that can be after `call` has happened.
fn happened(
    call: usize,
    possible: HashSet<Possible>,
    open: &HashMap<usize, Call>,
    answers: &HashMap<usize, Answer>,
) -> Result<HashSet<Possible>, String> {
    let mut after = HashSet::new();
    let mut tried: HashSet<Possible> = possible.clone();
    let mut next: Vec<Possible> = possible.into_iter().collect();
    while let Some((mut done, value)) = next.pop() {
        if done.remove(&call) {
            after.insert((done, value));
            continue;
        }
        for (&one, &what) in open {
            let answer = answers.get(&one).copied().unwrap_or(Answer::Unknown);
            if done.contains(&one) {
                continue;
            }
            let Some(value) = step(what, answer, value) else { continue };
            let mut done = done.clone();
            done.insert(one);
            if tried.insert((done.clone(), value)) {
                next.push((done, value));
            }
        }
        if tried.len() > MOST {
            return Err(format!("more than {MOST} possibilities: nothing is proven"));
        }
    }
    Ok(after)
}

/// What stands there after a call, where its answer fits what stood there before.
fn step(what: Call, answer: Answer, value: u64) -> Option<u64> {
    match (what, answer) {
        (Call::Read, Answer::Read(seen)) => (seen == value).then_some(value),
        (Call::Swap { from, to }, Answer::Swapped | Answer::Unknown) => (from == value).then_some(to),
        (Call::Swap { from, .. }, Answer::Conflict) => (from != value).then_some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(call: usize, what: Call) -> Event {
        Event::Begin { call, what }
    }

    fn end(call: usize, answer: Answer) -> Event {
        Event::End { call, answer }
    }

    /// One call after the other.
    fn in_turn(calls: &[(Call, Answer)]) -> Vec<Event> {
        let both =
            |(call, (what, answer)): (usize, &(Call, Answer))| [begin(call, *what), end(call, *answer)];
        calls.iter().enumerate().flat_map(both).collect()
    }

    fn swap(from: u64, to: u64) -> Call {
        Call::Swap { from, to }
    }

    #[test]
    fn true_histories_pass() {
        use Answer::*;
        check(0, &[]).unwrap();
        check(
            0,
            &in_turn(&[
                (Call::Read, Read(0)),
                (swap(0, 1), Swapped),
                (swap(0, 2), Conflict),
                (Call::Read, Read(1)),
            ]),
        )
        .unwrap();
        // Calls at the same time, answered in an order that only one way explains.
        check(
            0,
            &[
                begin(0, swap(1, 2)),
                begin(1, swap(0, 1)),
                begin(2, Call::Read),
                end(0, Swapped),
                end(2, Read(1)),
                end(1, Swapped),
            ],
        )
        .unwrap();
        // One without an answer happened much later, after a read that did not see it; another never did.
        check(
            0,
            &[
                begin(0, swap(0, 1)),
                end(0, Unknown),
                begin(1, swap(0, 9)),
                begin(2, Call::Read),
                end(2, Read(0)),
                begin(3, Call::Read),
                end(3, Read(1)),
                begin(4, swap(1, 2)),
                end(4, Swapped),
            ],
        )
        .unwrap();
    }

    #[test]
    fn planted_violations_are_found() {
        use Answer::*;
        let found = |history: &[Event]| assert!(check(0, history).is_err(), "{history:?}");
        // A read that is behind; one of a value that was written by nobody; one of a value that a refused write had.
        found(&in_turn(&[(swap(0, 1), Swapped), (Call::Read, Read(0))]));
        found(&in_turn(&[(swap(0, 1), Swapped), (Call::Read, Read(7))]));
        found(&in_turn(&[(swap(0, 1), Swapped), (swap(0, 2), Conflict), (Call::Read, Read(2))]));
        // A write that is lost; two that replaced the same value; a refusal without a reason.
        found(&in_turn(&[(swap(0, 1), Swapped), (swap(0, 2), Swapped)]));
        found(&[begin(0, swap(0, 1)), begin(1, swap(0, 2)), end(0, Swapped), end(1, Swapped)]);
        found(&in_turn(&[(swap(0, 1), Conflict)]));
        // A write in doubt that is seen, and then not any more.
        found(&[
            begin(0, swap(0, 1)),
            end(0, Unknown),
            begin(1, Call::Read),
            end(1, Read(1)),
            begin(2, Call::Read),
            end(2, Read(0)),
        ]);
        // Two reads at the same time as a write see it in the wrong order.
        found(&[
            begin(0, swap(0, 1)),
            begin(1, Call::Read),
            end(1, Read(1)),
            begin(2, Call::Read),
            end(2, Read(0)),
            end(0, Swapped),
        ]);
    }

    /// A long true history of several clients, and the same with one answer turned: found wherever it is.
    #[test]
    fn one_false_answer_in_a_long_history_is_found() {
        let mut history = Vec::new();
        let mut value = 0;
        for call in 0..3_000usize {
            let to = value + 1;
            let (what, answer) = match call % 3 {
                0 => (Call::Read, Answer::Read(value)),
                1 => (swap(value, to), Answer::Swapped),
                _ => (swap(to + 5, 900_000 + call as u64), Answer::Conflict),
            };
            history.extend([begin(call, what), end(call, answer)]);
            if call % 3 == 1 {
                value = to;
            }
        }
        check(0, &history).unwrap();
        for at in [1, 1_501, 5_995] {
            let mut wrong = history.clone();
            let Event::End { call, answer } = wrong[at] else { panic!("an end") };
            let turned = match answer {
                Answer::Read(value) => Answer::Read(value + 1),
                Answer::Swapped => Answer::Conflict,
                _ => Answer::Swapped,
            };
            wrong[at] = end(call, turned);
            assert!(check(0, &wrong).is_err(), "{at}");
        }
    }
}
