//! Notices of what happens in a folder (inotify), for whoever keeps something in step with it.
//!
//! A file that is being written is told of when it is closed, one that is moved in or out at once. The folder's own end is
//! told too; whoever watches opens it anew.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A watched folder; readable (`poll(2)`) when something happened.
#[derive(Debug)]
pub struct FolderWatch {
    events: OwnedFd,
}

impl FolderWatch {
    /// Watches a folder that is there.
    #[allow(unsafe_code)]
    pub fn open(folder: &Path) -> io::Result<FolderWatch> {
        let path = CString::new(folder.as_os_str().as_bytes())?;
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
        let events = unsafe { OwnedFd::from_raw_fd(fd) };
        let wanted = libc::IN_CLOSE_WRITE
            | libc::IN_MOVED_TO
            | libc::IN_MOVED_FROM
            | libc::IN_DELETE
            | libc::IN_DELETE_SELF
            | libc::IN_MOVE_SELF
            | libc::IN_ONLYDIR;
        // SAFETY: the descriptor is open, and the path is a string that ends with a zero and outlives the call.
        if unsafe { libc::inotify_add_watch(events.as_raw_fd(), path.as_ptr(), wanted) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(FolderWatch { events })
    }

    /// Takes all that is waiting; whether there was anything.
    pub fn drain(&self) -> io::Result<bool> {
        let mut buffer = [0u8; 4096];
        let mut any = false;
        loop {
            match nix::unistd::read(&self.events, &mut buffer) {
                Ok(0) | Err(nix::errno::Errno::EAGAIN) => return Ok(any),
                Ok(_) => any = true,
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for FolderWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

impl AsRawFd for FolderWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.events.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn files_that_are_written_moved_and_removed_are_told_of() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        let watch = FolderWatch::open(folder.path()).expect("watch");
        assert!(!watch.drain().expect("read"));
        let mut file = std::fs::File::create(path("a")).expect("file");
        file.write_all(b"half").expect("write");
        assert!(!watch.drain().expect("read"), "it is still being written");
        drop(file);
        assert!(watch.drain().expect("read"));
        std::fs::rename(path("a"), path("b")).expect("rename");
        assert!(watch.drain().expect("read"));
        std::fs::remove_file(path("b")).expect("remove");
        assert!(watch.drain().expect("read"));
        assert!(!watch.drain().expect("read"));
        assert_eq!(FolderWatch::open(&path("none")).expect_err("missing").kind(), io::ErrorKind::NotFound);
    }
}
