//! What a power cut left of images, on a real containerd.
mod common;

use common::possible;
use keelson_kubelet::cri::Cri;
use keelson_kubelet::unflushed::Unflushed;
use keelson_testkit::containerd::{BUSYBOX, BUSYBOX_USER, Containerd, PAUSE};
use serde_json::json;
use std::process::Command;

/// Layers that are unpacked: folders of snapshots with a program in it.
fn unpacked(containerd: &Containerd) -> usize {
    let folder = containerd.folder().join("root/io.containerd.snapshotter.v1.overlayfs/snapshots");
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries.filter(|entry| entry.path().join("fs/bin/busybox").exists()).count()
}

fn ctr(containerd: &Containerd, arguments: &[&str]) -> String {
    let socket = containerd.socket();
    let output =
        Command::new("ctr").arg("--address").arg(socket).args(["-n", "k8s.io"]).args(arguments).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn nothing_that_was_unpacked_before_a_power_cut_is_used_again() {
    if !possible() {
        return;
    }
    let containerd = Containerd::start().unwrap();
    let cri = Cri::new(&containerd.socket()).unwrap();
    ctr(&containerd, &["leases", "create", "--id", "held"]);
    assert_eq!(unpacked(&containerd), 1, "the images have one layer, the same");
    let folder = tempfile::tempdir().unwrap();
    let note = |boot: &str| {
        let text =
            json!({"boot": boot, "images": [PAUSE, BUSYBOX, BUSYBOX_USER, "test.invalid/never-came:1"]});
        std::fs::write(folder.path().join("pulling.json"), text.to_string()).unwrap();
    };
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    note(boot.trim());
    Unflushed::new(folder.path()).begin_anew(&cri).await.unwrap();
    assert_eq!(unpacked(&containerd), 1, "in the same boot all is on its way to the disk");
    assert!(ctr(&containerd, &["leases", "list", "--quiet"]).contains("held"));
    note("another");
    Unflushed::new(folder.path()).begin_anew(&cri).await.unwrap();
    assert_eq!(ctr(&containerd, &["images", "list", "--quiet"]), "");
    assert_eq!(ctr(&containerd, &["leases", "list", "--quiet"]), "");
    assert_eq!(unpacked(&containerd), 0);
}
