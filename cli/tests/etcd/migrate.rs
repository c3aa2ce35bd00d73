//! `keelson migrate-store` there and back.

use crate::common::Running;
use keelson_testkit::etcd::{Etcd, missing};

fn says(error: &str, words: &str) {
    assert!(error.contains(words), "{error}");
}

/// The newest revision, by a snapshot.
fn revision(running: &Running, name: &str) -> u64 {
    let path = running.folder.path().join(name);
    let said = running.good(&["snapshot", "save", path.to_str().unwrap(), "--output", "json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    said["revision"].as_u64().unwrap()
}

#[test]
fn the_objects_move_to_etcd_and_back() {
    if let Some(reason) = missing() {
        println!("SKIPPED: migration to etcd: {reason}");
        return;
    }
    let etcd = Etcd::start(1).expect("etcd starts");
    let mut running = Running::start();
    running.told("READY=1");
    running.good(&["token", "create", "aaaaaa.0123456789abcdef"]);
    let begin = revision(&running, "begin.snapshot");
    let folder = running.folder.path().to_owned();
    for name in ["ca.crt", "member.crt", "member.key"] {
        std::fs::copy(etcd.folder().join(name), folder.join(name)).unwrap();
    }
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (endpoints, ca) = (etcd.endpoints().join(","), path("ca.crt"));
    let (cert, key) = (path("member.crt"), path("member.key"));
    let to_etcd = [
        "migrate-store",
        "etcd",
        "--endpoints",
        &endpoints,
        "--ca-file",
        &ca,
        "--cert-file",
        &cert,
        "--key-file",
        &key,
    ];
    says(&running.fails(&to_etcd), "in use by another process");
    running.end();
    says(&running.fails(&["migrate-store", "sqlite"]), "is an SQLite file already");
    let mut nobody_there = to_etcd;
    nobody_there[3] = "https://127.0.0.1:1";
    says(&running.fails(&nobody_there), "no etcd member answers");
    assert!(running.state().join("db/store.db").exists(), "it is as it was");

    says(&running.good(&to_etcd), "objects moved, each compared");
    assert!(!running.state().join("db/store.db").exists());
    says(&running.fails(&to_etcd), "in etcd already");
    running.begin();
    running.told("READY=1");
    says(&running.good(&["token", "list"]), "aaaaaa");
    running.good(&["token", "create", "bbbbbb.0123456789abcdef"]);
    let middle = revision(&running, "middle.snapshot");
    assert!(middle > begin, "{middle} after {begin}");
    running.end();

    // Another cluster's objects are never mixed in.
    let mut other = Running::start();
    other.told("READY=1");
    other.end();
    says(&other.fails(&to_etcd), "it must be empty");

    running.good(&["migrate-store", "sqlite"]);
    running.begin();
    running.told("READY=1");
    let listed = running.good(&["token", "list"]);
    says(&listed, "aaaaaa");
    says(&listed, "bbbbbb");
    let end = revision(&running, "end.snapshot");
    assert!(end > middle, "{end} after {middle}");
    running.end();
}
