//! A disk of one's own: an image on a tmpfs of bounded size, behind a loop device, with an ext4 on it.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// See the module. Everything goes when it is dropped.
pub struct Disk {
    root: tempfile::TempDir,
    device: String,
    journal: bool,
}

/// Runs a command that must succeed; gives what it says.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| {
        panic!("{program} cannot be run ({error}); these tests need root, mount and losetup")
    });
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

impl Disk {
    /// A disk of so many MiB, with a journal or without.
    pub fn new(mebibytes: u64, journal: bool) -> Disk {
        let root = tempfile::Builder::new().prefix("keelson-faults-").tempdir().expect("a folder");
        let mut disk = Disk { root, device: String::new(), journal };
        for folder in ["back", "disk"] {
            fs::create_dir(disk.root.path().join(folder)).expect("a folder");
        }
        let size = format!("size={}m,mode=0700", 8 * mebibytes);
        run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", text(&disk.back())]);
        let image = OpenOptions::new().write(true).create_new(true).open(disk.image()).expect("an image");
        image.set_len(mebibytes << 20).expect("an image");
        let image = disk.image();
        let feature = if journal { "has_journal" } else { "^has_journal" };
        run("mke2fs", &["-q", "-t", "ext4", "-m", "0", "-O", feature, text(&image)]);
        disk.attach();
        disk
    }

    fn back(&self) -> PathBuf {
        self.root.path().join("back")
    }

    fn image(&self) -> PathBuf {
        self.back().join("image")
    }

    /// Where it is mounted.
    pub fn folder(&self) -> PathBuf {
        self.root.path().join("disk")
    }

    fn attach(&mut self) {
        self.device = run("losetup", &["--find", "--show", text(&self.image())]);
        // Nothing but an fsync makes the journal commit.
        let options = if self.journal { "commit=300" } else { "defaults" };
        run("mount", &["-o", options, &self.device, text(&self.folder())]);
    }

    fn detach(&mut self) {
        if !self.device.is_empty() {
            run("umount", &[text(&self.folder())]);
            run("losetup", &["--detach", &std::mem::take(&mut self.device)]);
        }
    }

    /// Fills the file system to its last block.
    pub fn fill(&self) {
        fill(&self.folder().join("filler"));
    }

    /// Gives the space back.
    pub fn free(&self) {
        fs::remove_file(self.folder().join("filler")).expect("a filler");
    }

    /// Takes the space beneath the image: blocks that were never written can be written no more.
    pub fn starve(&self) {
        fill(&self.back().join("filler"));
    }

    /// Gives it back.
    pub fn relieve(&self) {
        fs::remove_file(self.back().join("filler")).expect("a filler");
    }

    /// What is on the disk now: what would be there after a power cut. What the kernel has not written yet is not in it.
    pub fn snapshot(&self) -> Vec<u8> {
        fs::read(self.image()).expect("the image")
    }

    /// Makes the disk what it was; nobody may use it.
    pub fn put_back(&mut self, snapshot: &[u8]) {
        self.detach();
        fs::write(self.image(), snapshot).expect("an image");
        self.attach();
    }

    /// Puts half of a page behind the store's WAL, as a cut in the middle of a write leaves it; gives how many bytes.
    pub fn tear_wal(&self) -> usize {
        let wal = self.folder().join("state/db/store.db-wal");
        let mut bytes = Vec::new();
        fs::File::open(&wal).and_then(|mut file| file.read_to_end(&mut bytes)).expect("a WAL");
        // A frame is a head of 24 bytes and a page; the last one again, cut in its middle.
        const FRAME: usize = 24 + 4096;
        let torn = &bytes[bytes.len() - FRAME.min(bytes.len())..][..FRAME.min(bytes.len()) / 2];
        OpenOptions::new().append(true).open(&wal).and_then(|mut file| file.write_all(torn)).expect("torn");
        torn.len()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A test that failed may leave it half made.
        for (program, arguments) in [
            ("umount", vec![text(&self.folder()).to_owned()]),
            ("losetup", vec!["--detach".to_owned(), self.device.clone()]),
            ("umount", vec![text(&self.back()).to_owned()]),
        ] {
            if arguments.last().is_some_and(|last| !last.is_empty()) {
                let _ = Command::new(program).args(arguments).output();
            }
        }
    }
}

fn fill(path: &Path) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a filler");
    for size in [1 << 20, 4096, 1] {
        let block = vec![0xa5; size];
        while file.write_all(&block).and_then(|()| file.sync_data()).is_ok() {}
    }
}
