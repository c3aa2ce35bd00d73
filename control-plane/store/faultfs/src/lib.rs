//! A disk in memory beneath the real SQLite library, for the store's tests.
//!
//! [`Disk`] registers itself as an SQLite VFS. What is written lies in a page cache until it is synced; a crash keeps a
//! random part of it, torn at sectors, and loses the rest; files whose directory entry was not synced may be gone,
//! and deletions that were not may be undone. It can fail writes, syncs and reads, and run out of space. Everything random
//! comes from one seed: equal calls on equal seeds give equal disks.
//!
//! It never damages bytes outside a write (SQLite's powersafe overwrite, which it assumes of real disks too), and never
//! what was synced.
//!
//! It depends on nothing of the store, and no shipped crate depends on it.

mod vfs;
mod world;

use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use world::World;
pub use world::{Counts, Fault};

/// A disk; clones are the same disk.
#[derive(Clone)]
pub struct Disk {
    world: Arc<Mutex<World>>,
    vfs: Arc<vfs::Registered>,
}

impl Disk {
    /// An empty disk, registered under a name of its own.
    pub fn new(seed: u64) -> Disk {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("faultfs-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let world = Arc::new(Mutex::new(World::new(seed)));
        let name = CString::new(name).expect("the name has no NUL");
        Disk { vfs: Arc::new(vfs::Registered::new(name, world.clone())), world }
    }

    /// The VFS name for `Connection::open_with_flags_and_vfs`.
    pub fn vfs(&self) -> &str {
        self.vfs.name()
    }

    /// The power fails when so many more writes, truncations, deletions or syncs have been asked for; that one is cut
    /// short. 0: at once. From then on every call fails.
    pub fn crash_after(&self, operations: u64) {
        let mut world = self.world.lock();
        if operations == 0 {
            world.crashed = true;
        } else {
            world.crash_at = Some(world.counts.changes() + operations);
        }
    }

    pub fn crashed(&self) -> bool {
        self.world.lock().crashed
    }

    /// Brings the disk back with what a crash left of it. All connections must be closed.
    pub fn reboot(&self) {
        self.world.lock().reboot();
    }

    /// One call fails, after `operations` more of its kind.
    pub fn fail_after(&self, fault: Fault, operations: u64) {
        self.world.lock().fail_after(fault, operations);
    }

    /// Bounds the bytes that all files may hold; `None` lifts it.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.world.lock().capacity = bytes;
    }

    /// Bytes that all files hold, what is reserved included.
    pub fn used(&self) -> u64 {
        self.world.lock().used()
    }

    /// Takes or changes space that is no file of SQLite's; false if there is not so much.
    pub fn reserve(&self, bytes: u64) -> bool {
        let mut world = self.world.lock();
        let others = world.used() - world.reserved;
        let fits = world.capacity.is_none_or(|capacity| others + bytes <= capacity);
        if fits {
            world.reserved = bytes;
        }
        fits
    }

    /// Makes all directory entries durable.
    pub fn sync_folder(&self) -> Result<(), &'static str> {
        self.world.lock().sync_folder()
    }

    /// Writes a file's content over itself and syncs it: what an earlier failed sync left in doubt becomes durable.
    pub fn rewrite(&self, name: &str) -> Result<(), &'static str> {
        self.world.lock().rewrite(name)
    }

    /// Puts a synced copy of a file in its place, as a rename does.
    pub fn renew(&self, name: &str) -> Result<(), &'static str> {
        self.world.lock().renew(name)
    }

    /// The files and their sizes.
    pub fn files(&self) -> Vec<(String, usize)> {
        self.world.lock().files()
    }

    /// A file's bytes as the running system sees them.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        self.world.lock().content(name)
    }

    pub fn counts(&self) -> Counts {
        self.world.lock().counts
    }
}
