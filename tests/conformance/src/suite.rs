//! The tests and the names they stand under.

use crate::env::Env;
use crate::tests;
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;

/// The conformance tests' names at v1.35: area, release, file, name.
const NAMES: &str = include_str!("../names.tsv");

/// Files whose tests are for a later time, and why.
const LATER: &[(&str, &str)] = &[
    ("webhook", "admission webhooks are not served yet"),
    ("crd_conversion_webhook", "conversion webhooks are not served yet"),
    ("crd_selectable_fields", "its definition converts by a webhook, which is not served yet"),
    ("aggregator", "aggregated API servers are not served yet"),
    ("validatingadmissionpolicy", "admission policies are not evaluated yet"),
    ("flowcontrol", "priority and fairness objects are not acted on yet"),
    ("resource_quota", "quotas are not counted yet"),
];

type Body = fn(Env) -> Pin<Box<dyn Future<Output = Result<()>>>>;

/// A test: the end of its name after its group's prefix, and what it does.
pub struct Case {
    pub name: &'static str,
    pub body: Body,
}

/// Tests that share a name's beginning, a namespace's name and its pod security level.
pub struct Group {
    pub prefix: &'static str,
    pub base: &'static str,
    pub level: &'static str,
    pub cases: Vec<Case>,
}

/// Lists tests of a group: `cases!["name" => function, …]`.
#[macro_export]
macro_rules! cases {
    ($($name:literal => $body:path),* $(,)?) => {
        vec![$($crate::suite::Case { name: $name, body: |env| Box::pin($body(env)) }),*]
    };
}

/// What is known about a name.
pub struct Test {
    pub area: &'static str,
    pub name: &'static str,
    pub serial: bool,
    /// It needs a second node.
    pub two_nodes: bool,
    pub todo: Todo,
}

/// What to do for a name.
pub enum Todo {
    Run { base: &'static str, level: &'static str, body: Body },
    Skip(&'static str),
}

/// All names with their tests; an error names what is missing or unknown.
pub fn all() -> Result<Vec<Test>> {
    let mut bodies = BTreeMap::new();
    for group in tests::groups() {
        for case in &group.cases {
            let name = format!("{} {}", group.prefix, case.name);
            if bodies.insert(name.clone(), (group.base, group.level, case.body)).is_some() {
                bail!("two tests are named {name:?}");
            }
        }
    }
    let later: BTreeMap<&str, &'static str> = LATER.iter().copied().collect();
    let (mut all, mut missing) = (Vec::new(), BTreeSet::new());
    for line in NAMES.lines().filter(|line| !line.starts_with('#')) {
        let [area, _release, file, name] = line.split('\t').collect::<Vec<_>>()[..] else {
            bail!("names.tsv: {line:?} has not four columns");
        };
        let todo = match (bodies.remove(name), later.get(file)) {
            (Some((base, level, body)), _) => Todo::Run { base, level, body },
            (None, Some(&why)) => Todo::Skip(why),
            (None, None) => {
                missing.insert(name);
                continue;
            }
        };
        let (serial, two_nodes) = (name.contains("[Serial]"), name.contains("two untainted nodes"));
        all.push(Test { area, name, serial, two_nodes, todo });
    }
    if !missing.is_empty() || !bodies.is_empty() {
        bail!("names without a test: {missing:#?}; tests without a name: {:#?}", bodies.keys());
    }
    Ok(all)
}

#[cfg(test)]
mod check {
    use super::*;

    #[test]
    fn each_name_has_its_test() {
        let all = all().unwrap();
        assert_eq!(all.len(), 117);
        let skipped = all.iter().filter(|test| matches!(test.todo, Todo::Skip(_))).count();
        assert_eq!(skipped, 44);
    }
}
