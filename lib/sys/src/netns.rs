//! Network namespaces. A thread belongs to one; sockets keep the one in which they were opened.
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

/// Why a namespace could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    #[error("open network namespace {path}")]
    Open { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a network namespace")]
    NotANamespace { path: PathBuf },
    #[error("enter network namespace {path}")]
    Enter { path: PathBuf, source: Errno },
    #[error("start a thread for network namespace {path}")]
    Thread { path: PathBuf, source: std::io::Error },
    #[error("make a network namespace")]
    Unshare(#[source] Errno),
}

/// An open network namespace.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
}

impl Netns {
    pub fn open(path: impl AsRef<Path>) -> Result<Netns, NetnsError> {
        let path = path.as_ref().to_owned();
        match File::open(&path) {
            Ok(file) => Ok(Netns { file, path }),
            Err(source) => Err(NetnsError::Open { path, source }),
        }
    }
    /// The calling thread's own.
    pub fn current() -> Result<Netns, NetnsError> {
        Netns::open("/proc/thread-self/ns/net")
    }
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Device and inode: two handles are the same namespace when these are equal.
    pub fn identity(&self) -> std::io::Result<(u64, u64)> {
        use std::os::unix::fs::MetadataExt;
        let meta = self.file.metadata()?;
        Ok((meta.dev(), meta.ino()))
    }
    /// Moves the calling thread into it. Use [`Netns::run`] in programs with a runtime.
    pub fn enter(&self) -> Result<(), NetnsError> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|source| match source {
            Errno::EINVAL => NetnsError::NotANamespace { path: self.path.clone() },
            source => NetnsError::Enter { path: self.path.clone(), source },
        })
    }
    /// Runs `work` in it on a thread of its own, and waits. A panic in `work` goes on here.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("netns".into())
                .spawn_scoped(scope, || self.enter().map(|()| work()))
                .map_err(|source| NetnsError::Thread { path: self.path.clone(), source })?;
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}
impl AsRawFd for Netns {
    fn as_raw_fd(&self) -> i32 {
        self.file.as_raw_fd()
    }
}

/// Puts the calling thread into a new, empty network namespace.
pub fn unshare_net() -> Result<(), NetnsError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(NetnsError::Unshare)
}
