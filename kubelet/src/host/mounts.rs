//! Mounts of our own: tmpfs for what must not reach a disk, bind mounts for sub-paths, and taking them down again.
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// All mount points below `folder`, deepest first, as /proc/self/mountinfo tells them.
pub fn below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    let mut found: Vec<PathBuf> = text
        .split(|b| *b == b'\n')
        .filter_map(|line| line.split(|b| *b == b' ').nth(4))
        .map(|field| PathBuf::from(std::ffi::OsString::from_vec(unescape(field))))
        .filter(|path| path.starts_with(folder))
        .collect();
    found.sort_by_key(|path| std::cmp::Reverse(path.as_os_str().len()));
    Ok(found)
}

/// Undoes the octal escapes of mountinfo.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(value) => {
                out.push(value);
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    Ok(below(path)?.iter().any(|found| found == path))
}

/// Mounts a tmpfs, unless one is there. `size` in bytes; none: the kernel's default (half the memory).
pub fn tmpfs(path: &Path, size: Option<u64>) -> io::Result<()> {
    if is_mount_point(path)? {
        return Ok(());
    }
    let options = size.map_or("mode=0777".to_owned(), |size| format!("size={size},mode=0777"));
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
        .map_err(io::Error::from)
}

/// Bind mounts `source` on `target`.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(io::Error::from)
}

/// Takes a mount down; one that is not there is fine. A busy one is detached: it goes when its last user does.
pub fn unmount(path: &Path) -> io::Result<()> {
    let result = umount2(path, MntFlags::UMOUNT_NOFOLLOW).or_else(|error| match error {
        nix::Error::EBUSY => umount2(path, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH),
        other => Err(other),
    });
    match result {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Takes down every mount at or below `folder`, then deletes the folder. Deletes nothing while a mount is left: what
/// is mounted belongs to someone else.
pub fn remove_folder(folder: &Path) -> io::Result<()> {
    for path in below(folder)? {
        unmount(&path)?;
    }
    if let Some(left) = below(folder)?.first() {
        return Err(io::Error::other(format!("{} is still mounted", left.display())));
    }
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Used and available bytes and inodes of the file system that holds `path`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsUsage {
    pub capacity: u64,
    pub available: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

pub fn fs_usage(path: &Path) -> io::Result<FsUsage> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    let unit = stat.fragment_size();
    Ok(FsUsage {
        capacity: stat.blocks() * unit,
        available: stat.blocks_available() * unit,
        inodes: stat.files(),
        inodes_free: stat.files_available(),
    })
}

/// Bytes of a path, for messages that must not lose any.
pub fn raw(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_mountinfo_are_undone() {
        assert_eq!(unescape(b"/a\\040b\\134c"), b"/a b\\c");
        assert_eq!(unescape(b"/x\\"), b"/x\\");
    }

    #[test]
    fn mounts_are_taken_down_before_a_folder_goes() {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED: mounting needs root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("pod");
        let volume = root.join("a b");
        std::fs::create_dir_all(&volume).unwrap();
        std::fs::create_dir_all(root.join("bound")).unwrap();
        tmpfs(&volume, Some(1 << 20)).unwrap();
        tmpfs(&volume, Some(1 << 20)).unwrap();
        assert!(fs_usage(&volume).unwrap().capacity <= 1 << 20);
        bind(&volume, &root.join("bound")).unwrap();
        std::fs::write(volume.join("f"), "x").unwrap();
        assert_eq!(below(&root).unwrap().len(), 2);
        remove_folder(&root).unwrap();
        assert!(!root.exists() && below(&root).unwrap().is_empty());
        remove_folder(&root).unwrap();
    }
}
