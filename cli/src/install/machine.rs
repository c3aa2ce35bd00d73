//! What this machine is like: addresses, programs of others, the service manager.

use nix::ifaddrs::getifaddrs;
use std::net::{IpAddr, TcpListener};
use std::path::Path;

/// An address of this machine and the interface that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub interface: String,
    pub address: IpAddr,
}

/// All IPv4 and global IPv6 addresses but loopback's and those of our own interfaces.
pub fn addresses() -> Vec<Address> {
    let Ok(all) = getifaddrs() else { return Vec::new() };
    let mut found: Vec<Address> = all
        .filter_map(|one| {
            let storage = one.address?;
            let v4 = storage.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            let address = v4.or_else(|| storage.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))?;
            let local = match address {
                IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
                IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
            };
            let ours = one.interface_name.starts_with("keelson")
                || one.interface_name.starts_with(keelson_base::consts::VETH_PREFIX);
            (!local && !ours).then_some(Address { interface: one.interface_name, address })
        })
        .collect();
    found.dedup();
    found
}

/// Whether there is any network device but loopback's and our own; one that has no address yet counts, for it may get one.
pub fn has_network_device() -> bool {
    let names = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    names.map(|entry| entry.file_name().to_string_lossy().into_owned()).any(|name| of_others(&name))
}

fn of_others(name: &str) -> bool {
    // A file that the bonding driver keeps there.
    name != "lo"
        && name != "bonding_masters"
        && !name.starts_with("keelson")
        && !name.starts_with(keelson_base::consts::VETH_PREFIX)
}

/// The address that others are to know this machine by, and why it was chosen. More than one and no default route: `Err`
/// names them.
pub fn choose_address(default_route: Option<IpAddr>, all: &[Address]) -> Result<(IpAddr, String), String> {
    if let Some(address) = default_route {
        let interface = all.iter().find(|one| one.address == address).map(|one| one.interface.as_str());
        let why = format!("the default route leaves from it, on {}", interface.unwrap_or("an interface"));
        return Ok((address, why));
    }
    let v4: Vec<&Address> = all.iter().filter(|one| one.address.is_ipv4()).collect();
    match v4.as_slice() {
        [only] => Ok((only.address, format!("the only address, on {}", only.interface))),
        [] => Err("this machine has no address but loopback's".to_owned()),
        several => {
            let names: Vec<String> =
                several.iter().map(|one| format!("{} ({})", one.address, one.interface)).collect();
            Err(format!("this machine has several addresses and no default route: {}", names.join(", ")))
        }
    }
}

/// Whether something listens on the port already.
pub fn port_taken(address: IpAddr, port: u16) -> bool {
    TcpListener::bind((address, port)).is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

/// Swap devices that are on.
pub fn swap() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    text.lines().skip(1).filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

/// Whether systemd manages this machine.
pub fn systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Free bytes on the file system that `path`, or the nearest folder above it that is there, lies on.
pub fn free_space(path: &Path) -> Option<u64> {
    let there = path.ancestors().find(|folder| folder.exists())?;
    let stat = nix::sys::statvfs::statvfs(there).ok()?;
    Some(stat.blocks_available() * stat.fragment_size())
}

/// How many more files can be made there.
pub fn free_files(path: &Path) -> Option<u64> {
    let there = path.ancestors().find(|folder| folder.exists())?;
    let stat = nix::sys::statvfs::statvfs(there).ok()?;
    // File systems without inodes say that they have none.
    (stat.files() > 0).then(|| stat.files_available())
}

/// Who listens on a TCP port: process and program. `None` where that cannot be told.
pub fn listener(port: u16) -> Option<(u32, String)> {
    const LISTENING: &str = "0A";
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let wanted = format!(":{port:04X}");
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let inodes: Vec<String> = lines
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let is = words.get(1)?.ends_with(&wanted) && words.get(3)? == &LISTENING;
            let inode = words.get(9)?;
            is.then(|| format!("socket:[{inode}]"))
        })
        .collect();
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let open = std::fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        let holds = open
            .filter_map(|fd| std::fs::read_link(fd.path()).ok())
            .any(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str()));
        let program = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        holds.then(|| (pid, program.trim().to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ambiguous_address_is_refused() {
        let one = |interface: &str, address: &str| Address {
            interface: interface.into(),
            address: address.parse().unwrap(),
        };
        let check = |route: Option<&str>, all: &[Address], expected: Result<(&str, &str), &str>| {
            let chosen = choose_address(route.map(|a| a.parse().unwrap()), all);
            let chosen = chosen.map(|(address, why)| (address.to_string(), why));
            let expected = expected.map(|(a, w)| (a.to_owned(), w.to_owned())).map_err(str::to_owned);
            assert_eq!(chosen, expected);
        };
        let (a, b) = (one("eth0", "192.0.2.1"), one("eth1", "198.51.100.1"));
        let six = one("eth0", "2001:db8::1");
        check(
            Some("198.51.100.1"),
            &[a.clone(), b.clone()],
            Ok(("198.51.100.1", "the default route leaves from it, on eth1")),
        );
        check(None, &[a.clone(), six], Ok(("192.0.2.1", "the only address, on eth0")));
        check(None, &[], Err("this machine has no address but loopback's"));
        check(
            None,
            &[a, b],
            Err(
                "this machine has several addresses and no default route: 192.0.2.1 (eth0), 198.51.100.1 (eth1)",
            ),
        );
    }
}
