//! Files that are whole or absent after a crash, and locks between processes.
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// Replaces a file's content: temporary file beside it, fsync, rename, fsync of the folder.
/// Readers see the old content or the new one. Writers of one path must not run at the same time.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = write_temporary(path, content, mode, true)?;
    std::fs::rename(&temporary, path)?;
    sync_folder(folder_of(path))
}

/// As [`write_atomic`] for what is void after a reboot anyway: whole after the death of a process, but nothing is
/// forced to the disk.
pub fn write_volatile(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = write_temporary(path, content, mode, false)?;
    std::fs::rename(&temporary, path)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write_temporary(path: &Path, content: &[u8], mode: u32, sync: bool) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = folder_of(path).join(format!(".{}.tmp", name.to_string_lossy()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    file.write_all(content)?;
    if sync {
        file.sync_all()?;
    }
    Ok(temporary)
}

/// Makes renames and removals in a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Takes an exclusive lock on a file (made where missing); held until the guard is dropped or the process ends.
pub fn lock(path: &Path) -> io::Result<Flock<File>> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

/// The running kernel's boot id: state of an earlier boot carries another one.
pub fn boot_id() -> io::Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|s| s.trim().to_owned())
}
