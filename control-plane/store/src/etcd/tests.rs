//! What only etcd does: refusals at open, the base, a full database, lost answers, several processes.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use keelson_testkit::etcd::{Etcd, missing};
use keelson_testkit::relay::Relay;

use super::*;
use crate::{Expect, WatchItem, Write};

/// How a test's cluster is opened; it compacts when the test says so.
pub(crate) fn options(etcd: &Etcd) -> EtcdOptions {
    EtcdOptions { compact_every: None, ..EtcdOptions::new(etcd.endpoints(), Some(tls(etcd))) }
}

fn tls(etcd: &Etcd) -> EtcdTls {
    let identity = Some((etcd.certificate.clone().into_bytes(), etcd.key.clone().into_bytes()));
    EtcdTls { ca: etcd.ca.clone().into_bytes(), identity }
}

fn create(key: &str, value: impl Into<Bytes>) -> Transaction {
    Transaction {
        guards: vec![(key.to_owned(), Expect::Absent)],
        writes: vec![Write::Put { key: key.to_owned(), value: value.into() }],
    }
}

fn skipped(what: &str) -> bool {
    let reason = missing();
    if let Some(reason) = &reason {
        println!("SKIPPED: {what}: {reason}");
    }
    reason.is_some()
}

async fn raw(etcd: &Etcd) -> etcd_client::KvClient {
    let members = Members::new(&options(etcd)).await.unwrap();
    members.all()[0].kv()
}

#[tokio::test]
async fn refuses_what_is_not_its_own() {
    if skipped("refusals of foreign etcd clusters") {
        return;
    }
    let etcd = Etcd::start(1).unwrap();
    let mut kv = raw(&etcd).await;
    kv.put("/registry/pods/a/b", "k8s\0", None).await.unwrap();
    let refused = EtcdStore::open(options(&etcd)).await.err().expect("refused");
    assert!(matches!(refused, OpenError::NotOurs), "{refused}");
    kv.delete("/registry/pods/a/b", None).await.unwrap();
    EtcdStore::open(options(&etcd)).await.expect("opens an empty cluster");
    kv.put(record::RECORD, r#"{"format":9}"#, None).await.unwrap();
    let refused = EtcdStore::open(options(&etcd)).await.err().expect("refused");
    assert!(matches!(refused, OpenError::Format { found: 9, known: 1 }), "{refused}");
}

#[tokio::test]
async fn checks_members_and_shows_who_it_is() {
    if skipped("TLS towards etcd") {
        return;
    }
    let (etcd, other) = (Etcd::start(1).unwrap(), Etcd::start(1).unwrap());
    let mut wrong = tls(&etcd);
    wrong.ca = other.ca.clone().into_bytes();
    let opened = EtcdStore::open(EtcdOptions { tls: Some(wrong), ..options(&etcd) }).await;
    let refused = opened.err().expect("an unknown authority is refused").to_string();
    assert!(refused.contains("no etcd member answers") && refused.contains("ertificate"), "{refused}");
    let anonymous = EtcdTls { identity: None, ..tls(&etcd) };
    let opened = EtcdStore::open(EtcdOptions { tls: Some(anonymous), ..options(&etcd) }).await;
    assert!(matches!(opened.err(), Some(OpenError::Unreachable { .. })));
}

#[tokio::test]
async fn takes_renewed_certificates_while_it_is_open() {
    if skipped("renewed certificates towards etcd") {
        return;
    }
    let etcd = Etcd::start(1).unwrap();
    let store = EtcdStore::open(options(&etcd)).await.unwrap();
    store.get("/registry/a").await.unwrap();
    // That the new ones are used is seen where they are not believed.
    store.renew(&EtcdTls { identity: None, ..tls(&etcd) }).await.unwrap();
    assert!(store.get("/registry/a").await.is_err());
    store.renew(&tls(&etcd)).await.unwrap();
    store.get("/registry/a").await.unwrap();
}

#[tokio::test]
async fn the_base_keeps_revisions_from_going_back() {
    if skipped("the base of revisions") {
        return;
    }
    let etcd = Etcd::start(1).unwrap();
    let store = EtcdStore::open(options(&etcd)).await.unwrap();
    let first = store.commit(create("/registry/a", "1")).await.unwrap().revision;
    drop(store);
    let raised = EtcdOptions { min_revision: 5_000_000, ..options(&etcd) };
    let store = EtcdStore::open(raised).await.unwrap();
    let (entry, revision) = store.get("/registry/a").await.unwrap();
    assert!(revision >= 5_000_000, "{revision}");
    let entry = entry.unwrap();
    assert!(entry.mod_revision > first && entry.mod_revision <= revision);
    for refused in [
        store.list("/registry/", None, 0, Some(first)).await.map(drop),
        store.watch("/", first).await.map(drop),
    ] {
        let is_right = matches!(&refused, Err(StoreError::Compacted { requested, oldest }) if requested == &first && *oldest >= 4_999_999);
        assert!(is_right, "{refused:?}");
    }
    let delete = |expected| Transaction {
        guards: vec![("/registry/a".to_owned(), Expect::Revision(expected))],
        writes: vec![Write::Delete { key: "/registry/a".to_owned() }],
    };
    assert!(matches!(
        store.commit(delete(first)).await,
        Err(CommitError::Conflict { guard: 0, current: Some(_) })
    ));
    store.commit(delete(entry.mod_revision)).await.unwrap();
    drop(store);
    let store = EtcdStore::open(options(&etcd)).await.unwrap();
    assert!(store.revision().await.unwrap() > revision, "the base is kept");
}

#[tokio::test]
async fn two_processes_see_each_others_writes_in_order() {
    if skipped("two processes on one etcd") {
        return;
    }
    let etcd = Etcd::start(1).unwrap();
    let (one, other) =
        (EtcdStore::open(options(&etcd)).await.unwrap(), EtcdStore::open(options(&etcd)).await.unwrap());
    let start = one.revision().await.unwrap();
    let mut watch = other.watch("/registry/pods/", start).await.unwrap();
    let mut last = start;
    for n in 0..20u32 {
        let writer = if n % 2 == 0 { &one } else { &other };
        let revision =
            writer.commit(create(&format!("/registry/pods/{n:03}"), n.to_string())).await.unwrap().revision;
        assert!(revision > last);
        last = revision;
        // Whoever asks after the acknowledgement is told a revision that holds it.
        let (newest, needed) = watch.frontier().latest().await.unwrap();
        assert!(newest >= revision && needed >= revision, "{newest} {needed} {revision}");
    }
    one.commit(create("/registry/leases/x", "{}")).await.unwrap();
    let (newest, needed) = watch.frontier().latest().await.unwrap();
    assert!(newest == last + 1 && needed == last, "other prefixes need no reading: {newest} {needed} {last}");
    let mut seen = Vec::new();
    while seen.len() < 20 {
        let item = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.expect("an event");
        if let WatchItem::Event(event) = item.unwrap().unwrap() {
            seen.push(event.key);
        }
    }
    assert!(seen.is_sorted(), "{seen:?}");
}

/// The answer to a commit is lost after etcd has made it: the writer is told the truth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_not_reported_as_failed() {
    if skipped("lost answers of etcd") {
        return;
    }
    let etcd = Etcd::start(1).unwrap();
    let direct = EtcdStore::open(options(&etcd)).await.unwrap();
    let start = direct.commit(create("/registry/a", "old")).await.unwrap().revision;
    let update = Transaction {
        guards: vec![("/registry/a".to_owned(), Expect::Revision(start))],
        writes: vec![Write::Put { key: "/registry/a".to_owned(), value: Bytes::from_static(b"new") }],
    };
    let delete = Transaction {
        guards: vec![("/registry/b".to_owned(), Expect::Absent)],
        writes: vec![Write::Put { key: "/registry/b".to_owned(), value: Bytes::from_static(b"b") }],
    };
    let blind = Transaction {
        guards: Vec::new(),
        writes: vec![Write::Put { key: "/registry/c".to_owned(), value: Bytes::from_static(b"c") }],
    };
    for (transaction, key, known) in
        [(update, "/registry/a", true), (delete, "/registry/b", true), (blind, "/registry/c", false)]
    {
        let to = SocketAddr::from(([127, 0, 0, 1], etcd.port(0)));
        let relay = Relay::start(to).await.unwrap();
        let mut endpoints = vec![format!("https://{}", relay.address())];
        endpoints.extend(etcd.endpoints());
        let store = EtcdStore::open(EtcdOptions { endpoints, ..options(&etcd) }).await.unwrap();
        assert!(store.get(key).await.is_ok());
        let before = direct.revision().await.unwrap();
        relay.lose_answers();
        let answer = store.commit(transaction).await;
        let (entry, after) = direct.get(key).await.unwrap();
        let entry = entry.expect("etcd has made it");
        match answer {
            Ok(committed) => assert!(known && committed.revision == entry.mod_revision, "{committed:?}"),
            Err(CommitError::Store(StoreError::Unknown(_))) => assert!(!known, "{key}"),
            Err(error) => panic!("{key}: {error}"),
        }
        assert_eq!(after, before + 1, "made once");
    }
}

#[tokio::test]
async fn limits_are_told() {
    if skipped("etcd's limits") {
        return;
    }
    let etcd = Etcd::start_with(1, &["--quota-backend-bytes=4194304"]).unwrap();
    let store = EtcdStore::open(options(&etcd)).await.unwrap();
    let refused = store.commit(create("/registry/large", vec![b'x'; 3 << 20])).await;
    let is_right =
        matches!(&refused, Err(CommitError::Store(StoreError::Refused(why))) if why.contains("larger"));
    assert!(is_right, "{refused:?}");
    let mut full = None;
    for n in 0..64 {
        if let Err(error) = store.commit(create(&format!("/registry/{n}"), vec![b'x'; 512 << 10])).await {
            full = Some(error);
            break;
        }
    }
    assert!(matches!(full, Some(CommitError::Store(StoreError::Full))), "{full:?}");
    assert!(store.get("/registry/0").await.unwrap().0.is_some(), "reads go on");
}

/// Without its role the client is told so, and what it follows goes on when it has the role again.
#[tokio::test]
async fn a_client_without_its_role_is_told_and_goes_on_later() {
    if skipped("etcd's roles") {
        return;
    }
    let etcd = Etcd::start(1).unwrap();
    let store = EtcdStore::open(options(&etcd)).await.unwrap();
    let start = store.commit(create("/registry/a", "1")).await.unwrap().revision;
    let mut watch = store.watch("/registry/", start).await.unwrap();
    let member = Members::new(&options(&etcd)).await.unwrap();
    let mut ours = member.all()[0].client().auth_client();
    // The certificate's name is the user.
    for user in ["root", "keelson"] {
        ours.user_add(user, "secret", None).await.unwrap();
        ours.user_grant_role(user, "root").await.unwrap();
    }
    ours.auth_enable().await.unwrap();
    store.commit(create("/registry/b", "1")).await.unwrap();
    ours.user_revoke_role("keelson", "root").await.unwrap();
    for refused in [
        store.get("/registry/a").await.map(drop),
        store.list("/registry/", None, 0, None).await.map(drop),
        store.revision().await.map(drop),
    ] {
        let is_right =
            matches!(&refused, Err(StoreError::Database(why)) if why.contains("refuses the client"));
        assert!(is_right, "{refused:?}");
    }
    let tls = etcd_client::TlsOptions::new()
        .ca_certificate(etcd_client::Certificate::from_pem(&etcd.ca))
        .identity(etcd_client::Identity::from_pem(&etcd.certificate, &etcd.key));
    let root = etcd_client::ConnectOptions::new().with_tls(tls).with_user("root", "secret");
    let root = etcd_client::Client::connect(etcd.endpoints(), Some(root)).await.unwrap();
    root.auth_client().user_grant_role("keelson", "root").await.unwrap();
    store.commit(create("/registry/c", "1")).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let item = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.expect("an event");
        if let WatchItem::Event(event) = item.unwrap().unwrap() {
            seen.push(event.key);
        }
    }
    assert_eq!(seen, ["/registry/b", "/registry/c"]);
}

/// Two processes share one compaction an interval, and history that is younger than one stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_is_shared_and_keeps_an_interval() {
    if skipped("compaction of etcd") {
        return;
    }
    let etcd = Etcd::start(1).unwrap();
    let every = || EtcdOptions { compact_every: Some(Duration::from_millis(700)), ..options(&etcd) };
    let (one, _other) = (EtcdStore::open(every()).await.unwrap(), EtcdStore::open(every()).await.unwrap());
    let first = one.commit(create("/registry/a", "1")).await.unwrap().revision;
    let compacted = async {
        loop {
            match one.list("/registry/", None, 0, Some(first - 1)).await {
                Err(StoreError::Compacted { oldest, .. }) => return oldest,
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let oldest = tokio::time::timeout(Duration::from_secs(10), compacted).await.expect("compacted");
    let (_, newest) = one.get("/registry/a").await.unwrap();
    assert!(oldest > first - 1 && oldest <= newest, "{oldest} {newest}");
    let entry = raw(&etcd).await.get("compact_rev_key", None).await.unwrap();
    let version = entry.kvs()[0].version();
    assert!((2..=8).contains(&version), "one write an interval, not one a process: {version}");
}
