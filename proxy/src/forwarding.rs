//! Packets between pods and from pods to other machines pass this machine's IP layer: forwarding is switched on, what was
//! there is written down first, and put back when the node is reset.
//!
//! The record holds for one boot: after the next one the kernel's values are the administrator's again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use keelson_sys::{file, sysctl};
use serde::{Deserialize, Serialize};

/// In the folder of the CNI plugin's state.
const FILE: &str = "forwarding.json";

/// Forwarding could not be switched on or put back.
#[derive(Debug, thiserror::Error)]
pub enum ForwardingError {
    #[error(transparent)]
    Sysctl(#[from] sysctl::SysctlError),
    #[error("write down in {path} what forwarding was before")]
    Record { path: PathBuf, source: std::io::Error },
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    boot: String,
    /// By the parameter's name.
    changed: BTreeMap<String, Change>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Change {
    before: String,
    after: String,
}

struct Ledger {
    path: PathBuf,
    record: Record,
}

impl Ledger {
    fn open(state: &Path) -> Result<Ledger, ForwardingError> {
        let path = state.join(FILE);
        let failed = |source| ForwardingError::Record { path: path.clone(), source };
        let boot = file::boot_id().map_err(failed)?;
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        // One that a crash tore is as good as none.
        let record: Option<Record> = serde_json::from_slice(&text).ok();
        let record = record.filter(|record| record.boot == boot);
        Ok(Ledger { path, record: record.unwrap_or(Record { boot, changed: BTreeMap::new() }) })
    }

    /// Sets a parameter, its value before written down first.
    fn set(&mut self, name: &str, after: &str) -> Result<bool, ForwardingError> {
        let before = sysctl::read(name)?;
        if before == after {
            return Ok(false);
        }
        self.record.changed.insert(name.to_owned(), Change { before, after: after.to_owned() });
        self.write().map_err(|source| ForwardingError::Record { path: self.path.clone(), source })?;
        Ok(sysctl::ensure(name, after)?)
    }

    fn write(&self) -> std::io::Result<()> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        file::write_volatile(&self.path, &serde_json::to_vec(&self.record)?, 0o600)
    }
}

/// Switches forwarding on for the families of the pods' ranges.
pub fn enable(ipv4: bool, ipv6: bool, state: &Path) -> Result<(), ForwardingError> {
    let mut ledger = Ledger::open(state)?;
    if ipv4 && ledger.set("net/ipv4/ip_forward", "1")? {
        tracing::info!("IPv4 forwarding switched on for pods");
    }
    if ipv6 && sysctl::read("net/ipv6/conf/all/forwarding")? != "1" {
        // A machine that forwards ignores router advertisements unless told otherwise, and would lose its own route.
        for entry in std::fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten() {
            let name = format!("net/ipv6/conf/{}/accept_ra", entry.file_name().to_string_lossy());
            if sysctl::read(&name).is_ok_and(|value| value == "1") {
                ledger.set(&name, "2")?;
            }
        }
        ledger.set("net/ipv6/conf/all/forwarding", "1")?;
        tracing::info!("IPv6 forwarding switched on for pods");
    }
    Ok(())
}

/// Puts back what [`enable`] changed, but not what somebody has changed since.
pub fn restore(state: &Path) -> Result<(), ForwardingError> {
    let ledger = Ledger::open(state)?;
    // Forwarding goes off before router advertisements are heeded less.
    let (switches, rest): (Vec<_>, Vec<_>) =
        ledger.record.changed.iter().partition(|(name, _)| !name.ends_with("accept_ra"));
    for (name, change) in switches.into_iter().chain(rest) {
        // An interface that is gone took its parameter along.
        if sysctl::read(name).is_ok_and(|now| now == change.after) {
            sysctl::ensure(name, &change.before)?;
        }
    }
    match std::fs::remove_file(&ledger.path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(ForwardingError::Record { path: ledger.path, source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keelson_sys::netns::unshare_net;

    const IPV4: &str = "net/ipv4/ip_forward";

    /// In a network namespace of its own.
    fn isolated(test: impl FnOnce(&Path) + Send) {
        let folder = tempfile::tempdir().expect("a folder");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                unshare_net().expect("kernel tests need root");
                test(folder.path());
            });
            thread.join().expect("the test");
        });
    }

    #[test]
    fn what_was_off_is_off_again() {
        isolated(|state| {
            sysctl::ensure(IPV4, "0").unwrap();
            sysctl::ensure("net/ipv6/conf/all/forwarding", "0").unwrap();
            let accept = "net/ipv6/conf/lo/accept_ra";
            sysctl::ensure(accept, "1").unwrap();
            enable(true, true, state).unwrap();
            // The next start finds it on and must not take that for what was before.
            enable(true, true, state).unwrap();
            assert_eq!(
                (sysctl::read(IPV4).unwrap(), sysctl::read(accept).unwrap()),
                ("1".into(), "2".into())
            );
            restore(state).unwrap();
            assert_eq!(
                (sysctl::read(IPV4).unwrap(), sysctl::read(accept).unwrap()),
                ("0".into(), "1".into())
            );
            assert_eq!(sysctl::read("net/ipv6/conf/all/forwarding").unwrap(), "0");
            restore(state).unwrap();
        });
    }

    #[test]
    fn what_was_on_stays_on() {
        isolated(|state| {
            sysctl::ensure(IPV4, "1").unwrap();
            enable(true, false, state).unwrap();
            restore(state).unwrap();
            assert_eq!(sysctl::read(IPV4).unwrap(), "1");
        });
    }

    #[test]
    fn a_record_of_another_boot_is_void() {
        isolated(|state| {
            let change = Change { before: "0".into(), after: "1".into() };
            let changed = BTreeMap::from([(IPV4.to_owned(), change)]);
            let record = Record { boot: "another".into(), changed };
            std::fs::write(state.join(FILE), serde_json::to_vec(&record).unwrap()).unwrap();
            sysctl::ensure(IPV4, "1").unwrap();
            restore(state).unwrap();
            assert_eq!(sysctl::read(IPV4).unwrap(), "1");
            assert!(!state.join(FILE).exists());
        });
    }
}
