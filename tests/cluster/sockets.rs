//! The sockets that keelson and its containerd listen on, from /proc.

use keelson_tests::Cluster;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One listening socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listener {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    /// A path, or `@` and an abstract name.
    Unix(String),
}

impl Listener {
    pub fn port(&self) -> u16 {
        match self {
            Listener::Tcp(address) | Listener::Udp(address) => address.port(),
            Listener::Unix(_) => 0,
        }
    }
}

/// All of keelson's sockets, and every unix socket in the cluster's folders (those of containerd are the way to all pods).
pub fn of_keelson(cluster: &Cluster) -> BTreeSet<Listener> {
    let text = std::fs::read_to_string(cluster.places.keelson_pid()).expect("keelson's pid");
    let pid = text.split(' ').next().expect("a pid").to_owned();
    let inodes = inodes(&pid);
    let table = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    let mut all = BTreeSet::new();
    for name in ["tcp", "tcp6", "udp", "udp6"] {
        for line in table(name).lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // Listening, or a UDP socket that is connected to nobody.
            let waits = if name.starts_with("tcp") { fields[3] == "0A" } else { fields[3] == "07" };
            if !waits || !inodes.contains(fields[9]) {
                continue;
            }
            let address = address(fields[1]).unwrap_or_else(|| panic!("odd address {line}"));
            all.insert(if name.starts_with("tcp") { Listener::Tcp(address) } else { Listener::Udp(address) });
        }
    }
    let (run, data) = (cluster.places.run.to_string_lossy(), cluster.places.data.to_string_lossy());
    for line in table("unix").lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // The flag of a socket that accepts connections.
        let (Some(&"00010000"), Some(inode), Some(path)) = (fields.get(3), fields.get(6), fields.get(7))
        else {
            continue;
        };
        if inodes.contains(*inode) || path.starts_with(&*run) || path.starts_with(&*data) {
            all.insert(Listener::Unix((*path).to_owned()));
        }
    }
    all
}

fn inodes(pid: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("root reads keelson's files");
    entries
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()))
        .collect()
}

/// `0100007F:192B`: words of four bytes in the machine's order, the port in the network's.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Vec<u8> = (0..host.len() / 8)
        .filter_map(|word| u32::from_str_radix(host.get(word * 8..word * 8 + 8)?, 16).ok())
        .flat_map(u32::to_ne_bytes)
        .collect();
    let ip = match <[u8; 4]>::try_from(words.as_slice()) {
        Ok(four) => IpAddr::V4(Ipv4Addr::from(four)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words.as_slice()).ok()?)),
    };
    // A socket for both families is tried by its IPv4 addresses.
    let ip = if ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED) { Ipv4Addr::UNSPECIFIED.into() } else { ip };
    Some(SocketAddr::new(ip, port))
}

/// Processes whose cgroup's path names the pod.
pub fn processes_of_cgroup(uid: &str) -> Vec<u32> {
    let names = [uid.to_owned(), uid.replace('-', "_")];
    std::fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            names.iter().any(|name| text.contains(name.as_str()))
        })
        .collect()
}

#[test]
fn addresses_of_proc_are_read() {
    assert_eq!(address("0100007F:192B").unwrap().to_string(), "127.0.0.1:6443");
    assert_eq!(address("00000000000000000000000000000000:0035").unwrap().to_string(), "0.0.0.0:53");
    assert_eq!(address("00000000000000000000000001000000:0035").unwrap().to_string(), "[::1]:53");
}
