//! Files that are either the old or the new content, whatever happens while they are written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Why a file of the PKI could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot create the folder {path}")]
    CreateDir { path: PathBuf, source: io::Error },
    #[error("cannot lock {path}")]
    Lock { path: PathBuf, source: io::Error },
    #[error("{path} is larger than {limit} bytes")]
    TooLarge { path: PathBuf, limit: u64 },
}

/// No certificate or key of ours is larger.
const MAX_FILE: u64 = 256 * 1024;

/// Reads a file whole; `None` when it does not exist.
pub(crate) fn read_optional(path: &Path) -> Result<Option<String>, FileError> {
    let read = |source| FileError::Read { path: path.to_owned(), source };
    match fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_FILE => {
            Err(FileError::TooLarge { path: path.to_owned(), limit: MAX_FILE })
        }
        Ok(_) => fs::read_to_string(path).map(Some).map_err(read),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(read(e)),
    }
}

/// Makes a folder (and those above it) with the given mode, if it is not there.
pub fn ensure_dir(path: &Path, mode: u32) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|source| FileError::CreateDir { path: path.to_owned(), source })
}

/// Holds a folder's lock file until dropped, so that two processes never make the same keys.
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    pub(crate) fn take(dir: &Path) -> Result<DirLock, FileError> {
        let path = dir.join(".lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| FileError::Lock { path: path.clone(), source })?;
        file.lock().map_err(|source| FileError::Lock { path, source })?;
        Ok(DirLock { _file: file })
    }
}

/// Writes `content` to `path` through a temporary file in the same folder: fsync, rename, fsync of the folder.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    write_renamed(path, content, mode)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// As [`write_atomic`] without the folder's fsync, for several files followed by one [`sync_dir`].
pub(crate) fn write_renamed(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let err = |source| FileError::Write { path: path.to_owned(), source };
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("file");
    let temp = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    // A crash may have left one behind, perhaps with a wider mode.
    match fs::remove_file(&temp) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(err(e)),
    }
    let written = (|| {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&temp)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temp, path)
    })();
    written.map_err(|e| {
        let _ = fs::remove_file(&temp);
        err(e)
    })
}

/// Makes renames in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), FileError> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(|source| FileError::Write { path: dir.to_owned(), source })
}
