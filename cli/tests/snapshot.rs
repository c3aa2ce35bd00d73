//! Snapshots of a control plane that runs, a restore on a machine that knows nothing, and a database that is damaged.

mod common;

use common::Running;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn says(error: &str, words: &str) {
    assert!(error.contains(words), "{error}");
}

/// The ids of the tokens, which stand for a cluster's objects here.
fn tokens(running: &Running) -> Vec<String> {
    let listed: serde_json::Value =
        serde_json::from_str(&running.good(&["token", "list", "--output", "json"])).unwrap();
    let ids = listed.as_array().unwrap().iter().map(|token| token["id"].as_str().unwrap().to_owned());
    let mut ids: Vec<String> = ids.collect();
    ids.sort();
    ids
}

fn revision(running: &Running, path: &Path) -> u64 {
    let listed: serde_json::Value =
        serde_json::from_str(&running.good(&["snapshot", "list", "--output", "json"])).unwrap();
    let one = listed.as_array().unwrap().iter().find(|one| one["path"] == text(path)).unwrap();
    assert!(one["wrong"].is_null() && one["own"] == true, "{one}");
    one["revision"].as_u64().unwrap()
}

fn saved(running: &Running) -> PathBuf {
    let said: serde_json::Value =
        serde_json::from_str(&running.good(&["snapshot", "save", "--output", "json"])).unwrap();
    assert!(said["objects"].as_u64().unwrap() > 100, "{said}");
    PathBuf::from(said["path"].as_str().unwrap())
}

/// Spoils the database's pages but the first.
fn damage(running: &Running) -> Vec<u8> {
    let path = running.state().join("db/store.db");
    let mut file = std::fs::File::options().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(3 * 4096)).unwrap();
    file.write_all(&[0x5a; 8 * 4096]).unwrap();
    drop(file);
    pages(&path)
}

/// A database without its first page, in which opening it leaves a mark.
fn pages(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap().split_off(4096)
}

#[test]
fn a_snapshot_makes_another_machine_the_cluster() {
    let mut first = Running::start();
    first.told("READY=1");
    first.good(&["token", "create", "aaaaaa.0123456789abcdef"]);
    let file = saved(&first);
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    says(&first.fails(&["snapshot", "save", text(&file)]), "is there already");
    // Not in the snapshot, and newer than all that is.
    first.good(&["token", "create", "bbbbbb.0123456789abcdef"]);
    let later = saved(&first);
    assert!(revision(&first, &later) > revision(&first, &file));
    says(&first.fails(&["snapshot", "restore", text(&file), "--data-only"]), "--yes keeps it aside");
    first.end();
    let admin = std::fs::read(first.state().join("pki/ca.key")).unwrap();

    let mut second = Running::prepared("");
    second.good(&["snapshot", "restore", text(&file), "--data-only"]);
    assert_eq!(std::fs::read(second.state().join("pki/ca.key")).unwrap(), admin);
    second.begin();
    second.told("READY=1");
    assert_eq!(tokens(&second), ["aaaaaa"]);
    let after = saved(&second);
    assert!(revision(&second, &after) > revision(&first, &later), "what clients have seen comes again");
    second.end();

    // Over what is there: kept aside, and the way back is another restore.
    second.good(&["snapshot", "restore", text(&later), "--data-only", "--yes"]);
    second.begin();
    second.told("READY=1");
    assert_eq!(tokens(&second), ["aaaaaa", "bbbbbb"]);
    let kept: Vec<_> = std::fs::read_dir(second.state())
        .unwrap()
        .filter(|entry| {
            entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("db.before-restore-")
        })
        .collect();
    assert_eq!(kept.len(), 1);
    second.end();

    // What is not to be restored leaves everything as it was.
    let before = std::fs::read(second.state().join("db/store.db")).unwrap();
    let mut stranger = Running::start();
    stranger.told("READY=1");
    let other = saved(&stranger);
    stranger.end();
    says(&second.fails(&["snapshot", "restore", text(&other), "--yes"]), "is of another cluster");
    let cut = second.folder.path().join("cut.snapshot");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    says(&second.fails(&["snapshot", "restore", text(&cut), "--yes"]), "is cut short");
    says(&second.fails(&["snapshot", "restore", "/nowhere", "--yes"]), "cannot read the snapshot");
    assert_eq!(std::fs::read(second.state().join("db/store.db")).unwrap(), before);
    assert!(!second.state().join("restoring").exists());
}

#[test]
fn a_damaged_database_is_kept_aside_and_the_newest_snapshot_takes_its_place() {
    let mut running = Running::prepared("snapshots: {every: 1s, keep: 2}\n");
    running.begin();
    running.told("READY=1");
    running.good(&["token", "create", "aaaaaa.0123456789abcdef"]);
    // By the clock, too.
    let folder = running.state().join("snapshots");
    let automatic = || {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("auto-")).count()
    };
    let begun = std::time::Instant::now();
    while automatic() < 2 {
        assert!(begun.elapsed() < common::LIMIT, "no snapshots are taken");
        std::thread::yield_now();
    }
    let file = saved(&running);
    running.good(&["token", "create", "bbbbbb.0123456789abcdef"]);
    running.end();
    assert!(automatic() <= 2, "the oldest go");
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path != file {
            // Newer, and of no use.
            std::fs::write(&path, "x").unwrap();
        }
    }
    let spoilt = damage(&running);
    running.begin();
    running.told("READY=1");
    assert_eq!(tokens(&running), ["aaaaaa"]);
    let log = std::fs::read_to_string(running.log()).unwrap();
    says(&log, "ERROR");
    says(&log, "what was written after that is lost");
    running.end();
    let aside = std::fs::read_dir(running.state().join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("damaged-"))
        .expect("the damaged database is kept");
    assert_eq!(pages(&aside.join("store.db")), spoilt);
    says(&std::fs::read_to_string(aside.join("NOTE.txt")).unwrap(), "is kept in");

    // Without a snapshot nothing is touched.
    std::fs::remove_dir_all(&folder).unwrap();
    let spoilt = damage(&running);
    running.begin();
    assert!(!running.child.as_mut().unwrap().wait().unwrap().success());
    says(&std::fs::read_to_string(running.log()).unwrap(), "holds no whole snapshot of this cluster");
    assert_eq!(pages(&running.state().join("db/store.db")), spoilt);
}
