//! Address management: one file per address, named by it and by its owner.
//!
//! `<folder>/<network>/<address>=<container>=<interface>` is a lease; its content is the pod's network namespace. The
//! name says everything, so one reading of the folder is the whole state. Files appear whole by rename, under a lock.
//! Leases of an earlier boot are void (their namespaces are gone): the folder carries the boot's id. For the same
//! reason nothing is forced to the disk: what a power cut tears is void.
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use keelson_sys::file;

/// Where leases lie unless the configuration says otherwise: memory, gone with the boot.
pub const DEFAULT_FOLDER: &str = "/run/keelson/cni";
const LOCK: &str = ".lock";
const BOOT: &str = ".boot";
const LAST: &str = ".last-";
/// A file name has at most 255 bytes.
const NAME_LIMIT: usize = 255;

/// A failure of address management.
#[derive(Debug, thiserror::Error)]
pub enum IpamError {
    #[error("{step} {path}")]
    File { step: &'static str, path: PathBuf, source: std::io::Error },
    #[error("range {0} is too small: it needs a network, a gateway and at least one more address")]
    TooSmall(String),
    #[error("no free address in {range} ({leases} leases)")]
    Exhausted { range: String, leases: usize },
    #[error("container id and interface name are too long for a lease")]
    NameTooLong,
}

/// An owner of addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pub container: String,
    pub interface: String,
}

/// An address that is given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub ip: IpAddr,
    pub owner: Owner,
}

impl Lease {
    fn file_name(&self) -> String {
        format!("{}={}={}", self.ip, self.owner.container, self.owner.interface)
    }
    fn parse(name: &str) -> Option<Lease> {
        let mut parts = name.splitn(3, '=');
        let ip = parts.next()?.parse().ok()?;
        let owner = Owner { container: parts.next()?.into(), interface: parts.next()?.into() };
        Some(Lease { ip, owner })
    }
}

/// A range of addresses in which the first is the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    net: IpAddr,
    prefix: u8,
}

fn to_u128(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

impl Range {
    pub fn new(net: IpAddr, prefix: u8) -> Result<Range, IpamError> {
        let bits = if net.is_ipv4() { 32 } else { 128 };
        if prefix + 2 > bits {
            return Err(IpamError::TooSmall(format!("{net}/{prefix}")));
        }
        let range = Range { net, prefix };
        let mask = range.size() - 1;
        Ok(Range { net: range.ip(to_u128(net) & !mask), prefix })
    }
    fn size(&self) -> u128 {
        let bits = if self.net.is_ipv4() { 32 } else { 128 };
        1u128.checked_shl(u32::from(bits - self.prefix)).unwrap_or(0)
    }
    fn ip(&self, number: u128) -> IpAddr {
        match self.net {
            IpAddr::V4(_) => IpAddr::V4((number as u32).into()),
            IpAddr::V6(_) => IpAddr::V6(number.into()),
        }
    }
    fn at(&self, offset: u128) -> IpAddr {
        self.ip(to_u128(self.net) + offset)
    }
    /// The gateway: the first address after the network's.
    pub fn gateway(&self) -> IpAddr {
        self.at(1)
    }
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.net.is_ipv4()
            && to_u128(ip).checked_sub(to_u128(self.net)).is_some_and(|offset| offset < self.size())
    }
    /// The next free address after `last`, round the range; the last address (broadcast) is not used.
    pub fn next_free(&self, taken: &BTreeSet<IpAddr>, last: Option<IpAddr>) -> Option<IpAddr> {
        let (first, end) = (2u128, self.size() - 1);
        let count = end - first;
        let start = last
            .filter(|ip| self.contains(*ip))
            .map_or(0, |ip| (to_u128(ip) - to_u128(self.net)).saturating_sub(1) % count);
        // More candidates than taken addresses are never needed.
        let tries = count.min(taken.len() as u128 + 1);
        (0..tries).map(|i| self.at(first + (start + i) % count)).find(|ip| !taken.contains(ip))
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.net, self.prefix)
    }
}

/// The leases of a network, locked against other plugins while it lives.
pub struct Ledger {
    folder: PathBuf,
    leases: Vec<Lease>,
    _lock: Box<dyn std::any::Any>,
}

impl Ledger {
    /// Locks and reads the leases of `network`, making the folder where it is missing.
    pub fn open(folder: &Path, network: &str) -> Result<Ledger, IpamError> {
        let folder = folder.join(network);
        let failed = |step, path: &Path| {
            let path = path.to_owned();
            move |source| IpamError::File { step, path, source }
        };
        if !folder.is_dir() {
            std::fs::create_dir_all(&folder).map_err(failed("make the lease folder", &folder))?;
        }
        let lock = file::lock(&folder.join(LOCK)).map_err(failed("lock", &folder.join(LOCK)))?;
        let mut ledger = Ledger { folder, leases: Vec::new(), _lock: Box::new(lock) };
        ledger.read()?;
        ledger.forget_other_boots()?;
        Ok(ledger)
    }

    fn read(&mut self) -> Result<(), IpamError> {
        let failed =
            |source| IpamError::File { step: "read the lease folder", path: self.folder.clone(), source };
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with('.') && name.ends_with(".tmp") {
                // A plugin was killed between writing and renaming; under the lock nobody else writes.
                std::fs::remove_file(self.folder.join(name)).map_err(failed)?;
            }
            self.leases.extend(Lease::parse(name));
        }
        Ok(())
    }

    fn forget_other_boots(&mut self) -> Result<(), IpamError> {
        let path = self.folder.join(BOOT);
        let failed = |source| IpamError::File { step: "keep the boot id in", path: path.clone(), source };
        let boot = file::boot_id().map_err(failed)?;
        if std::fs::read_to_string(&path).is_ok_and(|old| old == boot) {
            return Ok(());
        }
        for lease in std::mem::take(&mut self.leases) {
            self.remove_file(&lease)?;
        }
        file::write_volatile(&path, boot.as_bytes(), 0o644).map_err(failed)
    }

    fn remove_file(&self, lease: &Lease) -> Result<(), IpamError> {
        let path = self.folder.join(lease.file_name());
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(IpamError::File { step: "remove lease", path, source })
            }
            _ => Ok(()),
        }
    }

    pub fn leases(&self) -> &[Lease] {
        &self.leases
    }
    /// The owner's addresses.
    pub fn of(&self, owner: &Owner) -> Vec<IpAddr> {
        self.leases.iter().filter(|l| l.owner == *owner).map(|l| l.ip).collect()
    }

    /// The owner's address in the range: the one it has, else a new one. Written before it returns.
    pub fn reserve(&mut self, range: &Range, owner: &Owner, netns: &str) -> Result<IpAddr, IpamError> {
        if let Some(ip) = self.of(owner).into_iter().find(|ip| range.contains(*ip)) {
            return Ok(ip);
        }
        let last_path = self.folder.join(format!("{LAST}{}", if range.net.is_ipv4() { 4 } else { 6 }));
        let last = std::fs::read_to_string(&last_path).ok().and_then(|s| s.trim().parse().ok());
        let mut taken: BTreeSet<IpAddr> = self.leases.iter().map(|l| l.ip).collect();
        let mut free = range.next_free(&taken, last);
        if free.is_none() {
            self.drop_orphans()?;
            taken = self.leases.iter().map(|l| l.ip).collect();
            free = range.next_free(&taken, last);
        }
        let Some(ip) = free else {
            return Err(IpamError::Exhausted { range: range.to_string(), leases: self.leases.len() });
        };
        let lease = Lease { ip, owner: owner.clone() };
        let name = lease.file_name();
        // The temporary file's name is a little longer.
        if name.len() + 8 > NAME_LIMIT {
            return Err(IpamError::NameTooLong);
        }
        let path = self.folder.join(name);
        file::write_volatile(&path, netns.as_bytes(), 0o644).map_err(|source| IpamError::File {
            step: "write lease",
            path,
            source,
        })?;
        self.leases.push(lease);
        // Only a hint that delays reuse: not worth a flush, and a torn one does not parse.
        std::fs::write(&last_path, ip.to_string()).map_err(|source| IpamError::File {
            step: "write",
            path: last_path,
            source,
        })?;
        Ok(ip)
    }

    /// Gives the owner's addresses back.
    pub fn release(&mut self, owner: &Owner) -> Result<(), IpamError> {
        for lease in self.leases.iter().filter(|l| l.owner == *owner) {
            self.remove_file(lease)?;
        }
        self.leases.retain(|l| l.owner != *owner);
        Ok(())
    }

    /// Owners whose network namespace no longer exists.
    pub fn orphans(&self) -> Vec<Owner> {
        let gone = |lease: &&Lease| {
            std::fs::read_to_string(self.folder.join(lease.file_name()))
                .is_ok_and(|netns| !netns.is_empty() && !Path::new(&netns).exists())
        };
        let owners: BTreeSet<Owner> = self.leases.iter().filter(gone).map(|l| l.owner.clone()).collect();
        owners.into_iter().collect()
    }

    fn drop_orphans(&mut self) -> Result<(), IpamError> {
        for owner in self.orphans() {
            self.release(&owner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }
    fn owner(n: usize) -> Owner {
        Owner { container: format!("c{n}"), interface: "eth0".into() }
    }

    #[test]
    fn ranges() {
        let r = Range::new(ip("10.244.3.77"), 29).expect("range");
        assert_eq!(r.to_string(), "10.244.3.72/29");
        assert_eq!(r.gateway(), ip("10.244.3.73"));
        let mut taken = BTreeSet::new();
        let mut last = None;
        for n in 74..79 {
            let got = r.next_free(&taken, last).expect("free");
            assert_eq!(got, ip(&format!("10.244.3.{n}")));
            taken.insert(got);
            last = Some(got);
        }
        assert_eq!(r.next_free(&taken, last), None);
        taken.remove(&ip("10.244.3.75"));
        assert_eq!(r.next_free(&taken, last), Some(ip("10.244.3.75")));
        // A freed address is not given out again while others are free.
        let taken = BTreeSet::from([ip("10.244.3.75")]);
        assert_eq!(r.next_free(&taken, Some(ip("10.244.3.75"))), Some(ip("10.244.3.76")));
        assert_eq!(r.next_free(&taken, Some(ip("10.9.9.9"))), Some(ip("10.244.3.74")));
        assert!(Range::new(ip("10.0.0.0"), 31).is_err());
        let six = Range::new(ip("fd00:10::"), 64).expect("range");
        assert_eq!(six.next_free(&BTreeSet::new(), None), Some(ip("fd00:10::2")));
        assert!(six.contains(ip("fd00:10::ffff")) && !six.contains(ip("fd00:11::")));
    }

    #[test]
    fn leases_stay_until_released() {
        let folder = tempfile::tempdir().expect("folder");
        let range = Range::new(ip("10.0.0.0"), 29).expect("range");
        let open = || Ledger::open(folder.path(), "n").expect("ledger");
        let first = open().reserve(&range, &owner(1), "/proc/self/ns/net").expect("address");
        assert_eq!(open().reserve(&range, &owner(1), "/proc/self/ns/net").expect("same"), first);
        let second = open().reserve(&range, &owner(2), "/proc/self/ns/net").expect("address");
        assert_ne!(first, second);
        open().release(&owner(1)).expect("released");
        open().release(&owner(1)).expect("again");
        assert_eq!(open().of(&owner(2)), [second]);
        assert!(open().of(&owner(1)).is_empty());
    }

    #[test]
    fn exhaustion_first_drops_leases_without_namespace() {
        let folder = tempfile::tempdir().expect("folder");
        let range = Range::new(ip("10.0.0.0"), 29).expect("range");
        let mut ledger = Ledger::open(folder.path(), "n").expect("ledger");
        for n in 0..5 {
            let netns = if n == 3 { "/nonexistent/netns" } else { "/proc/self/ns/net" };
            ledger.reserve(&range, &owner(n), netns).expect("address");
        }
        assert_eq!(ledger.orphans(), [owner(3)]);
        assert_eq!(ledger.reserve(&range, &owner(9), "/proc/self/ns/net").expect("orphan's"), ip("10.0.0.5"));
        assert!(matches!(
            ledger.reserve(&range, &owner(10), "x"),
            Err(IpamError::Exhausted { leases: 5, .. })
        ));
    }

    #[test]
    fn another_boot_voids_all_leases() {
        let folder = tempfile::tempdir().expect("folder");
        let range = Range::new(ip("10.0.0.0"), 24).expect("range");
        let open = || Ledger::open(folder.path(), "n").expect("ledger");
        open().reserve(&range, &owner(1), "/proc/self/ns/net").expect("address");
        assert_eq!(open().leases().len(), 1);
        std::fs::write(folder.path().join("n").join(BOOT), "another").expect("write");
        assert_eq!(open().leases().len(), 0);
    }
}
