//! A path inside a volume, opened so that nothing a container does to the volume at the same time leads outside:
//! the kernel resolves it beneath the volume (`openat2`, RESOLVE_BENEATH), and what is mounted is the opened
//! descriptor (`/proc/self/fd`), not a name.
use super::mounts;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, fstat, mkdirat};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// A sub-path that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SubPathError {
    #[error("subPath {0:?} must be relative and stay inside the volume")]
    Invalid(String),
    #[error("subPath {0:?} leads outside the volume")]
    Escapes(String),
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: std::io::Error },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(Errno) -> SubPathError {
    let path = path.to_path_buf();
    move |errno| SubPathError::Io { what, path, source: errno.into() }
}

/// Opens `sub` beneath `volume`, making missing folders, and bind mounts it on `target`.
pub fn bind(volume: &Path, sub: &str, target: &Path) -> Result<(), SubPathError> {
    let source = open_beneath(volume, sub)?;
    let kind = fstat(&source).map_err(failed("read", volume))?.st_mode & nix::libc::S_IFMT;
    let _ = mounts::unmount(target);
    let io = |what, source| SubPathError::Io { what, path: target.to_path_buf(), source };
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).map_err(|e| io("make the folder of", e))?;
    }
    if kind == nix::libc::S_IFDIR {
        std::fs::create_dir_all(target).map_err(|e| io("make", e))?;
    } else {
        std::fs::OpenOptions::new().create(true).append(true).open(target).map_err(|e| io("make", e))?;
    }
    let descriptor = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
    mounts::bind(&descriptor, target).map_err(|e| io("bind mount on", e))
}

/// Opens `sub` beneath `volume`; folders that are missing are made with the volume's own mode.
pub fn open_beneath(volume: &Path, sub: &str) -> Result<OwnedFd, SubPathError> {
    let path = Path::new(sub);
    let plain = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
    if path.is_absolute() || !path.components().all(plain) {
        return Err(SubPathError::Invalid(sub.to_owned()));
    }
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let root = open(volume, flags | OFlag::O_DIRECTORY, Mode::empty()).map_err(failed("open", volume))?;
    let mode = Mode::from_bits_truncate(fstat(&root).map_err(failed("read", volume))?.st_mode);
    let how = || {
        OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS)
    };
    let refused = |errno: Errno, at: &Path| match errno {
        Errno::EXDEV | Errno::ELOOP => SubPathError::Escapes(sub.to_owned()),
        other => failed("open", at)(other),
    };
    match openat2(&root, path, how()) {
        Ok(found) => return Ok(found),
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(refused(errno, &volume.join(path))),
    }
    // Each existing part is followed by the kernel beneath the root; each missing one is made in the folder that was
    // just opened, so a link that appears in between is never followed out.
    let mut walked = PathBuf::new();
    let mut current: OwnedFd = root.try_clone().map_err(|e| SubPathError::Io {
        what: "open",
        path: volume.to_path_buf(),
        source: e,
    })?;
    for part in path.components() {
        let Component::Normal(part) = part else { continue };
        walked.push(part);
        current = match openat2(&root, &walked, how()) {
            Ok(next) => next,
            Err(Errno::ENOENT) => {
                match mkdirat(&current, Path::new(part), Mode::from_bits_truncate(0o777)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(failed("make", &volume.join(&walked))(errno)),
                }
                let made = openat2(&root, &walked, how()).map_err(|e| refused(e, &volume.join(&walked)))?;
                let descriptor = PathBuf::from(format!("/proc/self/fd/{}", made.as_raw_fd()));
                // The umask does not count: the container's user needs what the volume allows.
                let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode.bits() & 0o7777);
                std::fs::set_permissions(&descriptor, permissions).map_err(|source| SubPathError::Io {
                    what: "change the mode of",
                    path: volume.join(&walked),
                    source,
                })?;
                made
            }
            Err(errno) => return Err(refused(errno, &volume.join(&walked))),
        };
    }
    Ok(current)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_leads_outside() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        std::fs::create_dir_all(volume.join("inside/deep")).unwrap();
        std::fs::create_dir(dir.path().join("secret")).unwrap();
        symlink("../secret", volume.join("out")).unwrap();
        symlink(dir.path().join("secret"), volume.join("absolute")).unwrap();
        symlink("inside", volume.join("in")).unwrap();
        for sub in ["../secret", "/etc", "inside/../../secret"] {
            assert!(matches!(open_beneath(&volume, sub), Err(SubPathError::Invalid(_))), "{sub}");
        }
        for sub in ["out", "out/x", "absolute", "absolute/new"] {
            assert!(matches!(open_beneath(&volume, sub), Err(SubPathError::Escapes(_))), "{sub}");
        }
        open_beneath(&volume, "in/deep").unwrap();
        open_beneath(&volume, "new/folder").unwrap();
        assert!(volume.join("new/folder").is_dir());
        assert!(std::fs::read_dir(dir.path().join("secret")).unwrap().next().is_none());
    }

    #[test]
    fn files_and_folders_are_bound() {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED: mounting needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        std::fs::create_dir_all(volume.join("d")).unwrap();
        std::fs::write(volume.join("d/f"), "hello").unwrap();
        let (a, b) = (dir.path().join("t/0"), dir.path().join("t/1"));
        bind(&volume, "d", &a).unwrap();
        bind(&volume, "d/f", &b).unwrap();
        bind(&volume, "d/f", &b).unwrap();
        assert_eq!(std::fs::read_to_string(a.join("f")).unwrap(), "hello");
        assert_eq!(std::fs::read_to_string(&b).unwrap(), "hello");
        mounts::remove_folder(&dir.path().join("t")).unwrap();
        assert!(volume.join("d/f").exists());
    }
}
