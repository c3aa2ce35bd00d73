//! Bad input over the wire: every row of cases.txt against the running cluster, as the administrator, in parallel.
//!
//! The expectations are upstream's and stand in the data. A refusal must have the code, the reason and exactly the causes
//! named there; the valid objects of types.txt must be accepted; afterwards the same process must serve, and nothing in it
//! may have panicked.
#![forbid(unsafe_code)]

mod change;
mod curl;
mod rows;

use curl::{Answer, Curl};
use keelson_tests::{Cluster, eventually};
use rows::{Case, Row, Type};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const NS: &str = "mistakes";
const CLIENTS: usize = 8;

#[test]
fn every_mistake_is_answered_as_upstream_answers_it() {
    let Some(cluster) = Cluster::find("bad input") else { return };
    let curl = Curl::of(&cluster);
    let types = rows::types();
    let cases = rows::cases(&types);
    let mistakes: BTreeSet<&str> = cases.iter().map(|case| case.mistake.as_str()).collect();
    assert!(mistakes.len() >= 60 && types.len() >= 25 && cases.len() >= 300, "the bar's numbers");
    let before = Process::of(&cluster);
    prepare(&cluster, &curl, &types);
    let failures = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(reason) = run(&curl, case) {
                        failures.lock().expect("no panic").push(format!("{}\n      {reason}", case.line));
                    }
                }
            });
        }
    });
    assert_eq!(cluster.kubectl(&["get", "--raw", "/readyz"]).ok(), "ok");
    let after = Process::of(&cluster);
    clean_up(&cluster, &curl, &types);
    let failures = failures.into_inner().expect("no panic");
    println!(
        "{} cases of {} mistakes over {} types: {} answered otherwise than upstream",
        cases.len(),
        mistakes.len(),
        types.len(),
        failures.len()
    );
    assert_eq!(after, before, "keelson was restarted or panicked");
    assert!(failures.is_empty(), "{} of {}:\n  {}", failures.len(), cases.len(), failures.join("\n  "));
}

/// Pid and start time of keelson, and how often something in it has panicked.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: String,
    panics: usize,
}

impl Process {
    fn of(cluster: &Cluster) -> Process {
        let pid = std::fs::read_to_string(cluster.places.keelson_pid()).expect("keelson's pid");
        let log = std::fs::read_to_string(cluster.places.log()).expect("keelson's log");
        let number = pid.split(' ').next().expect("a pid");
        assert!(std::path::Path::new("/proc").join(number).exists(), "keelson is gone");
        Process { panics: log.lines().filter(|line| line.contains("panicked")).count(), pid }
    }
}

/// The namespace, and one object of each type for the updates.
fn prepare(cluster: &Cluster, curl: &Curl, types: &[Type]) {
    clean_up(cluster, curl, types);
    for wanted in types {
        let answer = curl.send(
            "POST",
            &wanted.collection("dryRun=All&fieldValidation=Strict"),
            &[],
            &body(wanted, "m-dry"),
        );
        // The namespace of the others is not there yet for the first of them.
        assert!(answer.code == 201 || answer.code == 404, "{} is not valid: {answer:?}", wanted.name);
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}}).to_string();
    eventually(Duration::from_secs(60), "the namespace of an earlier run goes", || {
        let answer = curl.send("POST", "/api/v1/namespaces", &[], namespace.as_bytes());
        if answer.code == 201 { Ok(()) } else { Err(answer.text()) }
    });
    cluster.kubectl(&["-n", NS, "wait", "--for=create", "serviceaccount/default", "--timeout=30s"]).ok();
    let present = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"present"},"data":{"a":"b"}}"#;
    let answer = curl.send("POST", &format!("/api/v1/namespaces/{NS}/configmaps"), &[], present.as_bytes());
    assert_eq!(answer.code, 201, "{answer:?}");
    for wanted in types {
        let answer = curl.send(
            "POST",
            &wanted.collection("fieldValidation=Strict"),
            &[],
            &body(wanted, &wanted.object_name()),
        );
        assert_eq!(answer.code, 201, "{} is not valid: {answer:?}", wanted.name);
    }
}

fn body(wanted: &Type, name: &str) -> Vec<u8> {
    wanted.named(name).to_string().into_bytes()
}

fn clean_up(cluster: &Cluster, curl: &Curl, types: &[Type]) {
    // Nothing here protects volumes in use, and claims need not wait for whoever would.
    let merge = ["Content-Type: application/merge-patch+json".to_owned()];
    for wanted in types.iter().filter(|wanted| wanted.name.starts_with("PersistentVolume")) {
        let path = wanted.item(&wanted.object_name());
        let answer = curl.send("PATCH", &path, &merge, br#"{"metadata":{"finalizers":null}}"#);
        assert!([200, 404].contains(&answer.code), "{answer:?}");
    }
    for wanted in types.iter().filter(|wanted| !wanted.namespaced()) {
        let answer = curl.send("DELETE", &wanted.item(&wanted.object_name()), &[], b"");
        assert!([200, 202, 404, 409].contains(&answer.code), "{answer:?}");
    }
    cluster.kubectl(&["delete", "namespace", NS, "--ignore-not-found", "--timeout=60s"]).ok();
}

fn run(curl: &Curl, case: &Case) -> Result<(), String> {
    let answer = match &case.row {
        Row::Create { wanted, changes } => {
            let mut object = wanted.named("m-create");
            change::apply(&mut object, changes)?;
            let path = wanted.collection("dryRun=All&fieldValidation=Strict");
            curl.send("POST", &path, &[], object.to_string().as_bytes())
        }
        Row::Update { wanted, changes } => update(curl, wanted, changes)?,
        Row::Body { wanted, text } => {
            curl.send("POST", &wanted.collection("dryRun=All&fieldValidation=Strict"), &[], text.as_bytes())
        }
        Row::Request { method, path, body, headers } => curl.send(method, path, headers, body.as_bytes()),
    };
    let got = case.expected.of(&answer);
    if got == case.expected { Ok(()) } else { Err(format!("answered {got}: {}", answer.text())) }
}

/// A controller may write in between: then it is read and tried again, unless the conflict is what is expected.
fn update(curl: &Curl, wanted: &Type, changes: &str) -> Result<Answer, String> {
    let path = wanted.item(&wanted.object_name());
    let about_identity = changes.contains("metadata.resourceVersion") || changes.contains("metadata.uid");
    for _ in 0..5 {
        let mut object: Value = serde_json::from_slice(&curl.send("GET", &path, &[], b"").body)
            .map_err(|error| error.to_string())?;
        change::apply(&mut object, changes)?;
        let query = format!("{path}?dryRun=All&fieldValidation=Strict");
        let answer = curl.send("PUT", &query, &[], object.to_string().as_bytes());
        if answer.code != 409 || about_identity {
            return Ok(answer);
        }
    }
    Err("five conflicts".to_owned())
}
