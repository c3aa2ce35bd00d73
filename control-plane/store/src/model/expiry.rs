//! Keys that expire: the same contract for every back end.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

use crate::{MemoryStore, SqliteOptions, SqliteStore, Store, Transaction, WatchItem, Write};

const LIMIT: Duration = Duration::from_secs(20);

fn one(write: Write) -> Transaction {
    Transaction { guards: Vec::new(), writes: vec![write] }
}

fn put(key: &str, value: &'static str) -> Transaction {
    one(Write::Put { key: key.to_owned(), value: Bytes::from_static(value.as_bytes()) })
}

fn expiring(key: &str, value: &'static str, seconds: u64) -> Transaction {
    let (key, value) = (key.to_owned(), Bytes::from_static(value.as_bytes()));
    one(Write::Expiring { key, value, ttl: Duration::from_secs(seconds) })
}

/// Of four keys with a second to live, the one that is not written anew goes, and a watcher is told what it was.
pub(super) async fn keys_expire(store: &dyn Store) {
    let start = store.revision().await.unwrap();
    let mut watch = store.watch("/registry/events/", start).await.unwrap();
    for name in ["goes", "kept", "prolonged", "deleted"] {
        store.commit(expiring(&format!("/registry/events/{name}"), "{}", 1)).await.unwrap();
    }
    store.commit(put("/registry/events/kept", "[1]")).await.unwrap();
    store.commit(expiring("/registry/events/prolonged", "[2]", 3600)).await.unwrap();
    store.commit(one(Write::Delete { key: "/registry/events/deleted".to_owned() })).await.unwrap();
    store.commit(put("/registry/events/deleted", "[3]")).await.unwrap();
    let written = store.revision().await.unwrap();
    let gone = tokio::time::timeout(LIMIT, async {
        loop {
            match watch.next().await.unwrap().unwrap() {
                WatchItem::Event(event) if event.revision > written => return event,
                _ => {}
            }
        }
    });
    let gone = gone.await.expect("the key expires");
    assert_eq!((gone.key.as_str(), &gone.value), ("/registry/events/goes", &None));
    assert_eq!(gone.prev.unwrap().value, "{}");
    assert_eq!(gone.revision, written + 1);
    let left = store.list("/registry/events/", None, 0, None).await.unwrap();
    let left: Vec<(&str, &[u8])> =
        left.entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_ref())).collect();
    let expected: [(&str, &[u8]); 3] = [
        ("/registry/events/deleted", b"[3]"),
        ("/registry/events/kept", b"[1]"),
        ("/registry/events/prolonged", b"[2]"),
    ];
    assert_eq!(left, expected);
}

#[tokio::test]
async fn keys_expire_in_memory() {
    keys_expire(&MemoryStore::new()).await;
}

#[tokio::test]
async fn keys_expire_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(SqliteOptions::new(folder.path())).unwrap();
    keys_expire(&store).await;
    store.close().await.unwrap();
}

/// What is due while the process is away goes when it is back.
#[tokio::test]
async fn keys_expire_in_sqlite_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || SqliteStore::open(SqliteOptions::new(folder.path())).unwrap();
    let store = open();
    store.commit(expiring("/registry/events/a", "{}", 1)).await.unwrap();
    let revision = store.revision().await.unwrap();
    store.close().await.unwrap();
    let store = open();
    let mut watch = store.watch("/", revision).await.unwrap();
    let gone = tokio::time::timeout(LIMIT, async {
        loop {
            if let WatchItem::Event(event) = watch.next().await.unwrap().unwrap() {
                return event;
            }
        }
    });
    assert_eq!(gone.await.expect("the key expires").key, "/registry/events/a");
    store.close().await.unwrap();
}
