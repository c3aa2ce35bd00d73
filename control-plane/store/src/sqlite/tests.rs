//! The SQLite store with its threads on real folders.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use rusqlite::Connection;

use super::*;
use crate::WatchItem;

fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(SqliteOptions::new(folder)).unwrap()
}

fn put(key: &str, value: impl Into<Bytes>) -> Transaction {
    let writes = vec![Write::Put { key: key.to_owned(), value: value.into() }];
    Transaction { guards: Vec::new(), writes }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_second_opener_is_refused_until_the_first_ends() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let refused = SqliteStore::open(SqliteOptions::new(folder.path())).err().expect("refused");
    assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
    assert!(refused.to_string().contains("in use by another process"));
    store.close().await.unwrap();
    open(folder.path()).close().await.unwrap();
}

/// Answers hold back the wakes of watches for those who are about to read them, and for no one else.
#[tokio::test]
async fn watches_are_woken_though_an_answer_is_kept_or_left() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut watch = store.watch("/registry/", 0).await.unwrap();
    let mut kept = Vec::new();
    for (name, left) in [("kept", false), ("left", true), ("dropped", false)] {
        let (reads, read) = tokio::sync::oneshot::channel::<()>();
        let waiting = tokio::spawn(async move {
            // Until it waits.
            while futures::poll!(watch.next()).is_ready() {}
            drop(reads);
            loop {
                if let WatchItem::Event(event) = watch.next().await.unwrap().unwrap() {
                    return (watch, event.key);
                }
            }
        });
        read.await.unwrap_err();
        let key = format!("/registry/{name}");
        let mut asked = store.commit(put(&key, "1"));
        if left {
            assert!(futures::poll!(&mut asked).is_pending());
            drop(asked);
        } else {
            let committed = asked.await.unwrap();
            if name == "kept" {
                kept.push(committed);
            }
        }
        let (back, seen) =
            tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("woken").unwrap();
        assert_eq!(seen, key);
        watch = back;
    }
}

#[tokio::test]
async fn files_are_private_and_a_clean_end_leaves_one() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("a/store");
    let store = open(&folder);
    store.commit(put("/registry/pods/a/b", r#"{"metadata":{"name":"b"}}"#)).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(names(&folder), ["reserve", "store.db", "store.db-shm", "store.db-wal"]);
    for name in names(&folder) {
        assert_eq!(mode(&folder.join(&name)), 0o600, "{name}");
    }
    store.close().await.unwrap();
    assert_eq!(names(&folder), ["store.db"]);
    assert!(matches!(store.commit(put("/a", "1")).await, Err(CommitError::Store(StoreError::Closed(_)))));
    assert!(matches!(store.get("/a").await, Err(StoreError::Closed(_))));

    // The one file is the whole store, on any machine, and its values are JSON to sqlite3.
    let elsewhere = tempfile::tempdir().unwrap();
    fs::copy(folder.join(DATABASE), elsewhere.path().join(DATABASE)).unwrap();
    let plain = Connection::open(elsewhere.path().join(DATABASE)).unwrap();
    let sql = "SELECT json_extract(value, '$.metadata.name') FROM objects WHERE key = '/registry/pods/a/b'";
    assert_eq!(plain.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap(), "b");
    drop(plain);
    let copy = open(elsewhere.path());
    let (entry, revision) = copy.get("/registry/pods/a/b").await.unwrap();
    assert_eq!((entry.unwrap().mod_revision, revision), (2, 2));
    copy.close().await.unwrap();
}

#[tokio::test]
async fn files_whose_disk_has_failed_are_replaced_by_copies() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let found = fs::metadata(folder.path().join(name)).unwrap();
        (found.ino(), found.permissions().mode() & 0o7777)
    };
    let store = open(folder.path());
    store.commit(put("/registry/pods/a/b", "1")).await.unwrap();
    let before = file(DATABASE);
    store.send(Message::Fail("a test".to_owned())).unwrap();
    assert!(store.close().await.is_err());
    assert_eq!(names(folder.path()), ["in-doubt", "reserve", "store.db", "store.db-shm", "store.db-wal"]);
    let log = file("store.db-wal");

    let store = open(folder.path());
    let (entry, _) = store.get("/registry/pods/a/b").await.unwrap();
    assert_eq!(entry.unwrap().value, "1");
    assert_eq!(names(folder.path()), ["reserve", "store.db", "store.db-shm", "store.db-wal"]);
    for (name, (inode, mode)) in [(DATABASE, before), ("store.db-wal", log)] {
        let after = file(name);
        assert_ne!(after.0, inode, "{name} is another file");
        assert_eq!(after.1, mode, "{name}");
    }
    store.close().await.unwrap();
    let clean = file(DATABASE);
    open(folder.path()).close().await.unwrap();
    assert_eq!(file(DATABASE), clean, "nothing is copied without a reason");
}

#[tokio::test]
async fn what_is_not_ours_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join(DATABASE);
    open(folder.path()).close().await.unwrap();
    let change = |sql: &str| Connection::open(&database).unwrap().execute_batch(sql).unwrap();

    change("PRAGMA user_version = 7");
    let error = SqliteStore::open(SqliteOptions::new(folder.path())).err().expect("refused");
    assert!(matches!(error, OpenError::Format { found: 7, known: FORMAT }), "{error}");
    assert!(
        error.to_string().contains(&format!("format 7, this version of keelson knows format {FORMAT}")),
        "{error}"
    );

    change(&format!("PRAGMA user_version = {FORMAT}; PRAGMA application_id = 5"));
    let error = SqliteStore::open(SqliteOptions::new(folder.path())).err().expect("refused");
    assert!(matches!(error, OpenError::NotOurs), "{error}");

    let text = "this is no database ".repeat(100);
    fs::write(&database, &text).unwrap();
    let error = SqliteStore::open(SqliteOptions::new(folder.path())).err().expect("refused");
    assert!(matches!(error, OpenError::Database { .. }), "{error}");
    assert_eq!(fs::read_to_string(&database).unwrap(), text);
}

/// A database from before keys could expire is brought up to date where it lies.
#[tokio::test]
async fn the_first_format_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.commit(put("/registry/a", "1")).await.unwrap();
    store.close().await.unwrap();
    let database = folder.path().join(DATABASE);
    let version = || {
        let connection = Connection::open(&database).unwrap();
        connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i32>(0)).unwrap()
    };
    let back = "DROP TABLE expiry; PRAGMA user_version = 1";
    Connection::open(&database).unwrap().execute_batch(back).unwrap();
    let store = open(folder.path());
    assert_eq!(store.get("/registry/a").await.unwrap().0.unwrap().value, "1");
    let (key, value) = ("/registry/events/a".to_owned(), Bytes::from_static(b"{}"));
    let ttl = std::time::Duration::from_secs(3600);
    let expiring = Transaction { guards: Vec::new(), writes: vec![Write::Expiring { key, value, ttl }] };
    store.commit(expiring).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(version(), FORMAT);
}

#[tokio::test]
async fn a_raised_revision_is_never_handed_out_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let old = store.commit(put("/registry/a", "1")).await.unwrap().revision;
    store.close().await.unwrap();
    let options = SqliteOptions { min_revision: 5000, ..SqliteOptions::new(folder.path()) };
    let store = SqliteStore::open(options).unwrap();
    assert_eq!(store.revision().await.unwrap(), 5000);
    assert_eq!(store.commit(put("/registry/a", "2")).await.unwrap().revision, 5001);
    // Whoever knows the revisions of before must begin anew.
    assert!(matches!(store.watch("/", old).await, Err(StoreError::Compacted { oldest: 5000, .. })));
    store.close().await.unwrap();
    let store = open(folder.path());
    assert_eq!(store.revision().await.unwrap(), 5001);
    let entry = store.get("/registry/a").await.unwrap().0.unwrap();
    assert_eq!((entry.mod_revision, entry.create_revision), (5001, 5000));
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_share_fsyncs_and_each_gets_its_revision() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(folder.path()));
    let mut watch = store.watch("/registry/", 1).await.unwrap();
    let mut tasks = Vec::new();
    for task in 0..32 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            let mut revisions = Vec::new();
            for n in 0..40 {
                let key = format!("/registry/t{task}/k{}", n % 5);
                revisions.push(store.commit(put(&key, format!("{n}"))).await.unwrap().revision);
            }
            assert!(revisions.is_sorted());
            revisions
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    all.sort_unstable();
    assert_eq!(all, (2..2 + 32 * 40).collect::<Vec<_>>());
    let mut seen = Vec::new();
    while seen.len() < all.len() {
        if let WatchItem::Event(event) = watch.next().await.unwrap().unwrap() {
            seen.push(event.revision);
        }
    }
    assert_eq!(seen, all);
    store.close().await.unwrap();
}

/// Days of leases, events and statuses: the files stay near the live data. What a write waits is printed; its bar is the
/// benchmark's, because other tests share this disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn churn_leaves_small_files() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(folder.path()));
    let (pods, pod, small) = (4000u64, 3400, 500);
    let fill = (0..pods).map(|n| store.commit(put(&format!("/registry/pods/a/p{n:05}"), value(n, pod))));
    for filled in futures::future::join_all(fill).await {
        filled.unwrap();
    }
    let live = pods * pod as u64 + 300 * small as u64;
    let size = |name: &str| fs::metadata(folder.path().join(name)).map_or(0, |found| found.len());
    let (mut longest, mut database, mut wal) = (Duration::ZERO, 0, 0);
    for round in 0..100u64 {
        // History of one round is kept, as in the field that of five minutes, while the next round writes.
        let compaction = store.revision().await.unwrap();
        let writes = (round * 300..).take(300).map(|turn| {
            let store = store.clone();
            async move {
                let began = Instant::now();
                let transaction = match turn % 3 {
                    0 => put(&format!("/registry/leases/n{}", turn % 100), value(turn, small)),
                    1 => put(&format!("/registry/events/e{}", turn % 200), value(turn, small)),
                    _ => put(&format!("/registry/pods/a/p{:05}", turn * 7919 % pods), value(turn, pod)),
                };
                store.commit(transaction).await.unwrap();
                began.elapsed()
            }
        });
        let (compacted, waits) = tokio::join!(store.compact(compaction), futures::future::join_all(writes));
        compacted.unwrap();
        longest = longest.max(waits.into_iter().max().unwrap_or_default());
        // Not while the filling's own WAL is still there.
        if round >= 20 {
            database = database.max(size(DATABASE));
            wal = wal.max(size("store.db-wal"));
        }
    }
    let ratio = |bytes: u64| bytes as f64 / live as f64;
    let (most, sum) = (ratio(database), ratio(database + wal));
    println!("churn: database {most:.2}, with the WAL {sum:.2} of the live data; longest write {longest:?}");
    assert!(most < 2.0, "{most}");
    assert!(wal < 16 << 20, "{wal}");
    store.compact(store.revision().await.unwrap()).await.unwrap();
    store.close().await.unwrap();
    let end = ratio(size(DATABASE));
    println!("churn: {end:.2} of the live data after the end");
    assert!(end < 1.8, "{end}");
}

fn value(seed: u64, size: usize) -> String {
    format!(r#"{{"metadata":{{"name":"n"}},"n":{seed},"p":"{}"}}"#, "x".repeat(size - 60))
}

/// A file system of its own, unmounted at the end.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(options: &str) -> Mounted {
        let folder = tempfile::tempdir().unwrap();
        let none: Option<&str> = None;
        nix::mount::mount(none, folder.path(), Some("tmpfs"), nix::mount::MsFlags::empty(), Some(options))
            .expect("mounting a tmpfs needs root");
        Mounted(folder)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_serves_reads_and_recovers() {
    let mounted = Mounted::new("size=12m");
    let folder = mounted.0.path().join("store");
    let options = SqliteOptions { reserve_bytes: 3 << 20, ..SqliteOptions::new(&folder) };
    let store = SqliteStore::open(options).unwrap();
    store.commit(put("/registry/kept", value(1, 200))).await.unwrap();
    // Versions of one key: nothing but history fills the disk.
    let mut refused = None;
    for n in 0..2000 {
        match store.commit(put("/registry/churned", value(n, 60_000))).await {
            Ok(_) => {}
            Err(CommitError::Store(StoreError::Full)) => {
                refused = Some(n);
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let refused = refused.expect("the disk fills");
    let (entry, _) = store.get("/registry/churned").await.unwrap();
    assert!(
        entry
            .unwrap()
            .value
            .starts_with(format!(r#"{{"metadata":{{"name":"n"}},"n":{}"#, refused - 1).as_bytes())
    );
    assert_eq!(store.list("/registry/", None, 0, None).await.unwrap().entries.len(), 2);
    // Compaction runs from the reserve, and what it frees lets writes go on: a bounded wait.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match store.commit(put("/registry/after", value(2, 200))).await {
            Ok(_) => break,
            Err(CommitError::Store(StoreError::Full)) => {
                assert!(Instant::now() < deadline, "the store did not recover: {:?}", names(&folder));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(store.list("/registry/", None, 0, None).await.unwrap().entries.len(), 3);
    store.close().await.unwrap();
    assert_eq!(names(&folder), ["store.db"]);
}

/// A database of a few hundred pages, ended.
async fn ended(folder: &Path) {
    let store = open(folder);
    for index in 0..300 {
        store.commit(put(&format!("/registry/a/{index}"), vec![b'x'; 3000])).await.unwrap();
    }
    store.close().await.unwrap();
}

fn opened_with_a_check(folder: &Path) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(SqliteOptions { check: true, ..SqliteOptions::new(folder) })
}

/// Overwrites an inner page of the index over keys, as a disk or a hand would, and keeps the file's time if asked.
fn damage(folder: &Path, keep_time: bool) {
    use std::os::unix::fs::FileExt;
    let path = folder.join(DATABASE);
    let page = {
        let connection = Connection::open(&path).unwrap();
        connection
            .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'log_key'", [], |row| {
                row.get::<_, i64>(0)
            })
            .unwrap()
    };
    let file = fs::File::options().read(true).write(true).open(&path).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(&[0x5a; 4096], (page as u64 - 1) * 4096).unwrap();
    if keep_time {
        file.set_modified(time).unwrap();
    }
}

#[tokio::test]
async fn a_file_is_looked_through_unless_it_is_as_a_clean_end_left_it() {
    let folder = tempfile::tempdir().unwrap();
    ended(folder.path()).await;
    let looked = |folder: &Path| match opened_with_a_check(folder) {
        Ok(store) => (false, Some(store)),
        Err(error) => (error.is_damage(), None),
    };
    // Damage that keeps the time is not looked for, which shows that the mark is believed.
    damage(folder.path(), true);
    let (found, store) = looked(folder.path());
    assert!(!found, "the mark of a clean end is not believed");
    // Its readers meet the damage: the end is no clean one, and the next start looks.
    let store = store.expect("open");
    store.list("/registry/", None, 0, None).await.unwrap_err();
    store.close().await.unwrap();
    assert!(looked(folder.path()).0, "a store with damage had a clean end");

    for change in ["written to", "copied", "opened and left"] {
        let folder = tempfile::tempdir().unwrap();
        ended(folder.path()).await;
        let elsewhere = tempfile::tempdir().unwrap();
        let at = match change {
            "written to" => {
                damage(folder.path(), false);
                folder.path()
            }
            "copied" => {
                damage(folder.path(), true);
                fs::copy(folder.path().join(DATABASE), elsewhere.path().join(DATABASE)).unwrap();
                elsewhere.path()
            }
            _ => {
                let store = open(folder.path());
                // As a process that is gone: all that is left is what it wrote.
                for name in names(folder.path()) {
                    fs::copy(folder.path().join(&name), elsewhere.path().join(&name)).unwrap();
                    let time = fs::metadata(folder.path().join(&name)).unwrap().modified().unwrap();
                    let copy = fs::File::options().write(true).open(elsewhere.path().join(&name)).unwrap();
                    copy.set_modified(time).unwrap();
                }
                store.close().await.unwrap();
                damage(elsewhere.path(), true);
                elsewhere.path()
            }
        };
        assert!(looked(at).0, "a file that was {change} is believed");
    }
}
