//! `keelson control-plane` on a disk that fails: full, failing at fsync, cut off from power. The disk is a file behind a loop
//! device, the file system a real ext4.
//!
//! What must hold: writes are refused with a text that names the disk, or are made; reads go on while the disk is full; the
//! server comes back by itself; nothing acknowledged is lost, and nothing refused is found.

mod disk;
mod server;

use disk::Disk;
use server::{Outcome, Server};
use std::time::{Duration, Instant};

/// Within this time it serves again once the disk does.
const BACK: Duration = Duration::from_secs(20);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

#[test]
fn a_full_disk_refuses_writes_and_no_more() {
    let disk = Disk::new(96, true);
    runtime().block_on(async {
        let mut server = Server::start(disk.folder()).await;
        let mut writer = server.writer().await;
        writer.write(20).await;
        assert_eq!(writer.acknowledged(), 20);
        let mut watch = server.watch().await;
        disk.fill();
        // There is room left in what SQLite holds already; then it is full.
        let refused =
            writer.until("the full disk refuses a write", BACK, |outcome| outcome.is_refused()).await;
        let Outcome::Refused { code, reason, message, retry_after } = refused else { unreachable!() };
        assert_eq!((code, reason.as_str()), (503, "ServiceUnavailable"), "{message}");
        assert!(message.contains("no space left on the device"), "{message}");
        assert!(retry_after >= 1, "clients are told to come again");
        // Again and again, and reads go on.
        for _ in 0..3 {
            writer.write(5).await;
            server.reads(&writer).await;
        }
        server.expect_ready().await;
        watch.has_seen(writer.acknowledged(), BACK).await;
        disk.free();
        writer.until("writes go on once there is space", BACK, |outcome| outcome.is_made()).await;
        writer.write(20).await;
        watch.has_seen(writer.acknowledged(), BACK).await;
        server.check(&writer).await;
        assert!(server.is_running(), "it served all the time");
        println!("full disk: {writer}");
        server.kill();
        let server = server.restart().await;
        server.check(&writer).await;
    });
}

#[test]
fn a_failed_fsync_is_survived_without_a_restart() {
    // Without a journal, whose failure would end the file system for good.
    let disk = Disk::new(96, false);
    runtime().block_on(async {
        let mut server = Server::start(disk.folder()).await;
        let mut writer = server.writer().await;
        writer.write(20).await;
        let mut failures = 0;
        for round in 0..3 {
            // The device itself cannot take what the file system has promised.
            disk.starve();
            let failed =
                writer.until("the failing disk refuses a write", BACK, |outcome| !outcome.is_made()).await;
            match &failed {
                Outcome::Refused { code, message, .. } => {
                    assert!(*code == 503 && message.contains("disk"), "{code}: {message}");
                }
                Outcome::Unknown { message } => assert!(message.contains("disk"), "{message}"),
                Outcome::Made => unreachable!(),
            }
            failures += writer.write(4).await;
            disk.relieve();
            let begun = Instant::now();
            writer.until("it comes back by itself", BACK, |outcome| outcome.is_made()).await;
            println!("failed fsync, round {round}: served again after {:?}", begun.elapsed());
            writer.write(10).await;
            server.expect_ready_within(BACK).await;
            server.check(&writer).await;
        }
        assert!(failures > 0);
        assert!(server.is_running(), "no restart was needed");
        println!("failed fsync: {writer}");
        server.kill();
        let server = server.restart().await;
        server.check(&writer).await;
    });
}

#[test]
fn a_power_cut_loses_nothing_acknowledged() {
    let mut disk = Disk::new(96, true);
    runtime().block_on(async {
        let mut server = Server::start(disk.folder()).await;
        let mut cuts = Vec::new();
        for _ in 0..3 {
            let mut writer = server.writer().await;
            // Cut between two answers and in the middle of a write alike.
            let acknowledged = writer.while_writing(|| server.frozen(|| disk.snapshot())).await;
            cuts.push((acknowledged, writer));
        }
        server.kill();
        for (number, ((snapshot, at_least), writer)) in cuts.into_iter().enumerate() {
            disk.put_back(&snapshot);
            // What was under way is torn.
            let torn = disk.tear_wal();
            server = server.restart().await;
            server.check_first(&writer, at_least).await;
            let mut more = server.writer().await;
            assert_eq!(more.write(5).await, 0, "it takes writes again");
            println!("power cut {number}: {at_least} acknowledged, {torn} bytes of a torn page");
            server.kill();
        }
    });
}
