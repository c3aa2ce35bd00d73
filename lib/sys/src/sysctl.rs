//! Kernel parameters below /proc/sys, of the calling thread's network namespace where they belong to one.
use std::path::PathBuf;

/// A parameter could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{verb} kernel parameter {name}")]
pub struct SysctlError {
    verb: &'static str,
    name: String,
    #[source]
    source: std::io::Error,
}

fn path(name: &str) -> PathBuf {
    // The thread's view, not the process's: /proc/sys/net shows the reader's namespace.
    PathBuf::from("/proc/sys").join(name)
}

/// The value of a parameter named by its path below /proc/sys (`net/ipv4/ip_forward`), without the line end.
pub fn read(name: &str) -> Result<String, SysctlError> {
    std::fs::read_to_string(path(name)).map(|s| s.trim_end().to_owned()).map_err(|source| SysctlError {
        verb: "read",
        name: name.into(),
        source,
    })
}

/// Sets it where it differs. Returns whether it was changed.
pub fn ensure(name: &str, value: &str) -> Result<bool, SysctlError> {
    if read(name)? == value {
        return Ok(false);
    }
    std::fs::write(path(name), value).map_err(|source| SysctlError {
        verb: "write",
        name: name.into(),
        source,
    })?;
    Ok(true)
}
