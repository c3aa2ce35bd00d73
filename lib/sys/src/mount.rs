//! Mounts: bind, tmpfs, unmount, and the table of what is mounted.
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A mount call failed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("bind {source_path} to {target}")]
    Bind { source_path: PathBuf, target: PathBuf, source: Errno },
    #[error("remount {target}")]
    Remount { target: PathBuf, source: Errno },
    #[error("mount tmpfs on {target}")]
    Tmpfs { target: PathBuf, source: Errno },
    #[error("unmount {target}")]
    Unmount { target: PathBuf, source: Errno },
    #[error("read the mount table")]
    Table(#[source] std::io::Error),
}

const NONE: Option<&Path> = None;

/// Binds `source` (and, if `recursive`, what is mounted below) to `target`.
pub fn bind(source: &Path, target: &Path, recursive: bool) -> Result<(), MountError> {
    let flags = if recursive { MsFlags::MS_BIND | MsFlags::MS_REC } else { MsFlags::MS_BIND };
    mount(Some(source), target, NONE, flags, NONE).map_err(|e| MountError::Bind {
        source_path: source.into(),
        target: target.into(),
        source: e,
    })
}

/// Makes a bind mount read-only; the flag is ignored on the first bind call.
pub fn remount_read_only(target: &Path) -> Result<(), MountError> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(NONE, target, NONE, flags, NONE)
        .map_err(|source| MountError::Remount { target: target.into(), source })
}

/// Mounts a tmpfs with options such as `size=64m,mode=0777`.
pub fn tmpfs(target: &Path, options: &str) -> Result<(), MountError> {
    mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options))
        .map_err(|source| MountError::Tmpfs { target: target.into(), source })
}

/// Unmounts; `lazy` detaches it even while it is in use. What is not mounted (or gone) is fine.
pub fn unmount(target: &Path, lazy: bool) -> Result<(), MountError> {
    let flags = MntFlags::UMOUNT_NOFOLLOW | if lazy { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    match umount2(target, flags) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(source) => Err(MountError::Unmount { target: target.into(), source }),
    }
}

/// One line of the calling thread's mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub id: u64,
    pub target: PathBuf,
    pub root: PathBuf,
    pub fs_type: String,
    pub source: String,
}

/// The calling thread's mounts, in mount order.
pub fn table() -> Result<Vec<Mount>, MountError> {
    let text = std::fs::read_to_string("/proc/thread-self/mountinfo").map_err(MountError::Table)?;
    Ok(text.lines().filter_map(parse_line).collect())
}

fn parse_line(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let id = left.next()?.parse().ok()?;
    let root = left.nth(2)?;
    let target = left.next()?;
    let mut right = right.split(' ');
    Some(Mount {
        id,
        root: PathBuf::from(unescape(root)),
        target: PathBuf::from(unescape(target)),
        fs_type: right.next()?.into(),
        source: unescape(right.next()?),
    })
}

/// Space, tab, line feed and backslash are octal in mountinfo.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let Some((first, rest)) = bytes.split_first() {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) = (first, rest) {
            out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            bytes = tail;
        } else {
            out.push(*first);
            bytes = rest;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_mountinfo() {
        let line = "36 35 98:0 /mnt1 /mnt\\040two rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let mount = parse_line(line).expect("valid");
        assert_eq!(mount.target, PathBuf::from("/mnt two"));
        assert_eq!((mount.id, mount.root.to_str(), mount.fs_type.as_str()), (36, Some("/mnt1"), "ext3"));
        assert!(table().expect("readable").iter().any(|m| m.target == Path::new("/")));
    }

    #[test]
    fn bind_tmpfs_and_unmount_in_a_mount_namespace() {
        let folder = tempfile::tempdir().expect("folder");
        let root = folder.path().to_owned();
        let thread = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("kernel tests need root");
            mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).expect("private");
            let (disk, view) = (root.join("disk"), root.join("a view"));
            std::fs::create_dir(&disk).and_then(|()| std::fs::create_dir(&view)).expect("folders");
            tmpfs(&disk, "size=1m,mode=0700").expect("tmpfs");
            std::fs::write(disk.join("file"), "x").expect("write");
            bind(&disk, &view, false).expect("bind");
            assert_eq!(std::fs::read_to_string(view.join("file")).expect("read"), "x");
            remount_read_only(&view).expect("read-only");
            assert!(std::fs::write(view.join("file"), "y").is_err());
            assert!(table().expect("readable").iter().any(|m| m.target == view && m.fs_type == "tmpfs"));
            for target in [&view, &disk] {
                unmount(target, false).expect("unmounted");
                unmount(target, false).expect("again");
            }
            assert_eq!(std::fs::read_dir(&view).expect("folder").count(), 0);
        });
        thread.join().expect("no panic");
    }
}
