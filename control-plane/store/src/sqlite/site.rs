//! Where a store lies: its folder, its lock, its reserve, and how connections to its database are opened.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::OpenError;

/// The database's file name.
pub const DATABASE: &str = "store.db";
/// Space kept so that compaction can run when the disk is full.
const RESERVE: &str = "reserve";
/// Says that a write or an fsync has failed: the files are not to be written in place any more.
const IN_DOUBT: &str = "in-doubt";
/// A copy under way.
const COPY: &str = "copy";

/// Lets a connection's end leave the WAL as it is. SQLite's last connection would copy what is left of it and delete it, after
/// a failed fsync too: pages of an earlier partial copy that this fsync lost would then be nowhere. A clean end leaves WAL
/// mode instead; any other leaves the WAL to recovery, which copies all of it.
pub(super) fn keep_wal_at_close(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
}

/// What the store needs of the outside; the model test puts a disk that fails in its place.
pub(super) trait Site: Send + Sync + 'static {
    /// Opens a connection. The file is made by the first that may write.
    fn connect(&self, write: bool) -> rusqlite::Result<Connection>;
    /// Makes durable what recovery is about to build on. A failed fsync may have left pages that the page cache shows and no
    /// later fsync writes. And where a file grew by what failed, ext4 keeps its blocks as unwritten for good: written anew
    /// and synced without an error, they are zeros once the page cache forgets them. So the WAL that a crash left is written
    /// over itself, and after [`Site::mark_in_doubt`] WAL and database are replaced by copies.
    fn settle(&self) -> io::Result<()>;
    /// Notes for the next [`Site::settle`] that a write or an fsync has failed.
    fn mark_in_doubt(&self);
    /// Whether there is a WAL: the last end was not clean.
    fn has_wal(&self) -> bool;
    /// When the database's file was last changed, in nanoseconds since 1970; `None` where that cannot be told.
    fn changed(&self) -> Option<i64>;
    /// Makes that this time, durably.
    fn set_changed(&self, at: i64) -> io::Result<()>;
    /// Makes the new database's place in its folder durable.
    fn sync_folder(&self) -> io::Result<()>;
    /// Takes the reserve's space if it is not held already.
    fn fill_reserve(&self) -> io::Result<()>;
    /// Gives the reserve's space back.
    fn free_reserve(&self);
    /// `FULL`; whatever else is a mutant that the suite must catch.
    fn synchronous(&self) -> &'static str {
        "FULL"
    }
    /// Answers and tells watchers before the fsync: a mutant that the suite must catch.
    #[cfg(test)]
    fn answers_early(&self) -> bool {
        false
    }
    /// Compaction takes live rows: a mutant that the suite must catch.
    #[cfg(test)]
    fn compacts_live(&self) -> bool {
        false
    }
}

/// A folder on a real disk, locked for this process.
pub(super) struct Folder {
    path: PathBuf,
    reserve_bytes: u64,
    /// `flock` on the folder itself: no lock file is left behind, and the kernel lets go when the process dies.
    handle: File,
}

impl Folder {
    /// Makes the folder if it is missing (0700), and takes its lock.
    pub fn open(path: &Path, reserve_bytes: u64) -> Result<Folder, OpenError> {
        let failed = |source| OpenError::Folder { path: path.to_owned(), source };
        if !path.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
            }
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        let handle = File::open(path).map_err(failed)?;
        match handle.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let folder = Folder { path: path.to_owned(), reserve_bytes, handle };
        folder.make_private().map_err(failed)?;
        Ok(folder)
    }

    /// Puts a synced copy of a file in its place.
    fn renew(&self, name: &str) -> io::Result<()> {
        let (path, copy) = (self.path.join(name), self.path.join(COPY));
        let mut from = File::open(&path)?;
        let done = (|| {
            let mut into =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&copy)?;
            // Read and written, not shared: a clone would have the same blocks.
            let mut block = vec![0u8; 1 << 20];
            loop {
                let read = from.read(&mut block)?;
                if read == 0 {
                    break;
                }
                into.write_all(&block[..read])?;
            }
            // An administrator's command runs as root; the file stays its owner's.
            let owner = from.metadata()?;
            if into.metadata()?.uid() != owner.uid() || into.metadata()?.gid() != owner.gid() {
                fchown(&into, Some(owner.uid()), Some(owner.gid()))?;
            }
            into.sync_all()?;
            fs::rename(&copy, &path)
        })();
        if done.is_err() {
            let _ = fs::remove_file(&copy);
        }
        done
    }

    /// SQLite gives its side files the database's mode, so the database is made before SQLite sees it.
    fn make_private(&self) -> io::Result<()> {
        let database = self.path.join(DATABASE);
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&database)?;
        for name in [DATABASE.to_owned(), format!("{DATABASE}-wal"), format!("{DATABASE}-shm")] {
            match fs::set_permissions(self.path.join(name), fs::Permissions::from_mode(0o600)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Writes a file over itself and syncs it.
fn overwrite(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut block = vec![0u8; 1 << 20];
    let mut at = 0;
    loop {
        let read = file.read_at(&mut block, at)?;
        if read == 0 {
            return file.sync_all();
        }
        file.write_all_at(&block[..read], at)?;
        at += read as u64;
    }
}

fn unless_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

impl Site for Folder {
    fn connect(&self, write: bool) -> rusqlite::Result<Connection> {
        let access = if write { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE;
        let connection = Connection::open_with_flags(self.path.join(DATABASE), flags)?;
        // Only an administrator's sqlite3 ever holds a lock against us.
        connection.busy_timeout(Duration::from_secs(5))?;
        keep_wal_at_close(&connection)?;
        Ok(connection)
    }

    fn settle(&self) -> io::Result<()> {
        let wal = format!("{DATABASE}-wal");
        let doubt = self.path.join(IN_DOUBT);
        if !doubt.exists() {
            return unless_missing(overwrite(&self.path.join(wal)));
        }
        let mut replaced = true;
        for name in [DATABASE, &wal] {
            match self.renew(name) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    tracing::warn!(
                        file = name,
                        "no space for a copy of a file whose disk has failed: it is written anew in its place, and copied \
                         at the next start that finds space; free some and start keelson again"
                    );
                    unless_missing(overwrite(&self.path.join(name)))?;
                    replaced = false;
                }
                renewed => unless_missing(renewed)?,
            }
        }
        self.handle.sync_all()?;
        // Until all is replaced the doubt stays.
        if replaced { fs::remove_file(doubt) } else { Ok(()) }
    }

    fn mark_in_doubt(&self) {
        let marked = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path.join(IN_DOUBT));
        if let Err(error) = marked {
            tracing::error!(%error, "the store cannot note that its disk has failed");
        }
    }

    fn has_wal(&self) -> bool {
        self.path.join(format!("{DATABASE}-wal")).exists()
    }

    fn changed(&self) -> Option<i64> {
        let changed = fs::metadata(self.path.join(DATABASE)).and_then(|found| found.modified()).ok()?;
        i64::try_from(changed.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
    }

    fn set_changed(&self, at: i64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path.join(DATABASE))?;
        file.set_modified(UNIX_EPOCH + Duration::from_nanos(at.unsigned_abs()))?;
        file.sync_all()
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn fill_reserve(&self) -> io::Result<()> {
        let path = self.path.join(RESERVE);
        if self.reserve_bytes == 0 || fs::metadata(&path).is_ok_and(|found| found.len() == self.reserve_bytes)
        {
            return Ok(());
        }
        let filled = (|| -> io::Result<()> {
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            nix::fcntl::posix_fallocate(&file, 0, self.reserve_bytes as i64).map_err(io::Error::from)
        })();
        if filled.is_err() {
            self.free_reserve();
        }
        filled
    }

    fn free_reserve(&self) {
        if let Err(error) = fs::remove_file(self.path.join(RESERVE))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(error = %error, "the store's reserve cannot be removed");
        }
    }
}
