//! Archives of images in the node's folder are in the runtime while they are there, wherever the runtime keeps its own files.

use keelson_tests::{Cluster, eventually, run};
use std::time::Duration;

const IMAGE: &str = "test.invalid/watched:1";

#[test]
fn an_archive_in_the_folder_is_in_the_runtime() {
    let Some(cluster) = Cluster::find("archives of images") else { return };
    let socket = cluster.places.run.join("containerd.sock");
    let ctr = |arguments: &[&str]| {
        let socket = socket.to_string_lossy();
        run("ctr", &[&["--address", &socket, "--namespace", "k8s.io", "images"], arguments].concat()).ok()
    };
    let there = || ctr(&["list", "--quiet"]).lines().any(|name| name == IMAGE);
    let folder = cluster.places.data.join("state/images");
    let (hidden, archive) = (folder.join(".watched"), folder.join("watched.tar"));
    ctr(&["tag", "keelson.dev/sample-redis:1", IMAGE]);
    std::fs::create_dir_all(&folder).unwrap();
    ctr(&["export", &hidden.to_string_lossy(), IMAGE]);
    ctr(&["remove", "--sync", IMAGE]);
    assert!(!there());
    std::fs::rename(&hidden, &archive).unwrap();
    let wait = |what: &str, is_there: bool| {
        eventually(Duration::from_secs(20), what, || match there() {
            found if found == is_there => Ok(()),
            found => Err(format!("it is there: {found}")),
        });
    };
    wait("the archive's image", true);
    // Taken in whole: what goes with its file is what was noted.
    eventually(Duration::from_secs(20), "a note of it", || {
        let noted =
            std::fs::read_to_string(cluster.places.data.join("state/images.json")).unwrap_or_default();
        if noted.contains(IMAGE) { Ok(()) } else { Err(noted) }
    });
    std::fs::remove_file(&archive).unwrap();
    wait("the image to go with its archive", false);
}
