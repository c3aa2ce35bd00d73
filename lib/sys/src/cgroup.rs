//! Small helpers for control group files. Policy (which groups, which limits) is the kubelet's.
use std::path::{Path, PathBuf};

/// A control file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("read control file {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("write {value:?} to control file {path}")]
    Write { path: PathBuf, value: String, source: std::io::Error },
    #[error("control file {path} holds {text:?}, not a number")]
    NotANumber { path: PathBuf, text: String },
    #[error("make control group {path}")]
    Make { path: PathBuf, source: std::io::Error },
    #[error("remove control group {path}")]
    Remove { path: PathBuf, source: std::io::Error },
}

/// Reads a control file, without the line end.
pub fn read(path: &Path) -> Result<String, CgroupError> {
    std::fs::read_to_string(path)
        .map(|s| s.trim_end().to_owned())
        .map_err(|source| CgroupError::Read { path: path.into(), source })
}

/// Reads a number; `max` is None.
pub fn read_u64(path: &Path) -> Result<Option<u64>, CgroupError> {
    let text = read(path)?;
    if text == "max" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| CgroupError::NotANumber { path: path.into(), text })
}

/// A value of a flat keyed file (`memory.stat`, `cpu.stat`).
pub fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok()).flatten()
    })
}

/// Writes a control file with one write call.
pub fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut f| std::io::Write::write_all(&mut f, value.as_bytes()))
        .map_err(|source| CgroupError::Write { path: path.into(), value: value.into(), source })
}

/// Makes a group; one that exists is fine.
pub fn make(path: &Path) -> Result<(), CgroupError> {
    std::fs::create_dir_all(path).map_err(|source| CgroupError::Make { path: path.into(), source })
}

/// Removes a group without processes; one that is gone is fine.
pub fn remove(path: &Path) -> Result<(), CgroupError> {
    match std::fs::remove_dir(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(CgroupError::Remove { path: path.into(), source: e })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_keyed_fields() {
        let text = "usage_usec 12\nuser_usec 7\nsystem_usec 5\n";
        assert_eq!(field(text, "user_usec"), Some(7));
        assert_eq!(field(text, "user"), None);
    }
}
