//! Links, addresses, routes and neighbours over rtnetlink.
//!
//! Requests are collected in a [`Batch`] and sent at once; the kernel runs them in order and the first refusal is
//! returned. What Keelson makes is marked as ours: routes by [`ROUTE_PROTOCOL`], links by their alias.
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use crate::nl::{self, Attrs, Buf, Family, NlError, Socket, ne32, string};

/// The routing protocol number in the routes that Keelson adds (`ip route show proto 107`).
pub const ROUTE_PROTOCOL: u8 = 107;

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const GETROUTE: u16 = 26;
const NEWNEIGH: u16 = 28;
const DELNEIGH: u16 = 29;
const GETNEIGH: u16 = 30;
const IFF_UP: u32 = 1;
const NUD_PERMANENT: u16 = 0x80;
const RTNH_F_ONLINK: u32 = 4;

/// A link as dumped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub alias: String,
    pub kind: String,
    pub mac: Vec<u8>,
    pub mtu: u32,
    pub up: bool,
    /// Index of the peer (veth) or lower device.
    pub link: u32,
}

/// An address on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub index: u32,
    pub ip: IpAddr,
    pub prefix: u8,
    pub scope: u8,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// None is the default route.
    pub dst: Option<(IpAddr, u8)>,
    pub gateway: Option<IpAddr>,
    pub index: u32,
    pub protocol: u8,
    pub src: Option<IpAddr>,
    /// See [`RouteSpec::onlink`].
    pub onlink: bool,
    /// The family where `dst` does not tell.
    pub ipv6: bool,
}

/// A permanent neighbour of a link, or with `fdb` a VXLAN device's forwarding entry: `mac` is reached at `ip`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    pub ip: IpAddr,
    pub mac: [u8; 6],
    pub fdb: bool,
}

/// A VXLAN device that learns nothing: each address is reached as its neighbours tell.
#[derive(Debug, Clone)]
pub struct VxlanSpec<'a> {
    pub name: &'a str,
    /// The network's number on the wire, 24 bits.
    pub vni: u32,
    /// This node's address below the tunnel.
    pub local: IpAddr,
    pub port: u16,
    pub mac: [u8; 6],
    pub mtu: u32,
}

/// How a route is asked for.
#[derive(Debug, Clone, Default)]
pub struct RouteSpec {
    pub dst: Option<(IpAddr, u8)>,
    pub gateway: Option<IpAddr>,
    /// The gateway is on the link although no address says so.
    pub onlink: bool,
    pub index: u32,
    pub src: Option<IpAddr>,
    pub metric: Option<u32>,
    pub ipv6: bool,
}

/// A veth pair: this end here, the other inside `netns`.
pub struct VethSpec<'a> {
    pub name: &'a str,
    pub alias: &'a str,
    pub peer: &'a str,
    pub peer_netns: BorrowedFd<'a>,
    pub mtu: Option<u32>,
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
fn af(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}
fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk::<4>().map(|b| IpAddr::from(*b)),
        16 => bytes.first_chunk::<16>().map(|b| IpAddr::from(*b)),
        _ => None,
    }
}

/// Requests to be sent together.
#[derive(Default)]
pub struct Batch {
    buf: Buf,
    seq: u32,
}

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }
    fn begin(&mut self, kind: u16, flags: u16) -> nl::Mark {
        self.seq += 1;
        self.buf.message(kind, nl::F_REQUEST | nl::F_ACK | flags, self.seq)
    }
    fn ifinfo(&mut self, index: u32, flags: u32, change: u32) {
        self.buf.raw(&[0; 4]);
        self.buf.raw(&index.to_ne_bytes());
        self.buf.raw(&flags.to_ne_bytes());
        self.buf.raw(&change.to_ne_bytes());
    }

    pub fn add_veth(&mut self, spec: &VethSpec<'_>) -> &mut Batch {
        let mark = self.begin(NEWLINK, nl::F_CREATE | nl::F_EXCL);
        self.ifinfo(0, 0, 0);
        self.buf.str(3, spec.name);
        if let Some(mtu) = spec.mtu {
            self.buf.u32(4, mtu);
        }
        let info = self.buf.nest(18);
        self.buf.str(1, "veth");
        let data = self.buf.nest(2);
        let peer = self.buf.nest(1);
        self.ifinfo(0, 0, 0);
        self.buf.str(3, spec.peer);
        if let Some(mtu) = spec.mtu {
            self.buf.u32(4, mtu);
        }
        self.buf.u32(28, spec.peer_netns.as_raw_fd() as u32);
        self.buf.end(peer);
        self.buf.end(data);
        self.buf.end(info);
        self.buf.end_message(mark);
        // The alias is refused in the message that creates a link; it follows in the same send.
        let mark = self.begin(NEWLINK, 0);
        self.ifinfo(0, 0, 0);
        self.buf.str(3, spec.name);
        self.buf.attr(20, spec.alias.as_bytes());
        self.buf.end_message(mark);
        self
    }

    /// A link of a kind without parameters: `dummy`, `bridge`.
    pub fn add_link(&mut self, name: &str, kind: &str) -> &mut Batch {
        let mark = self.begin(NEWLINK, nl::F_CREATE | nl::F_EXCL);
        self.ifinfo(0, 0, 0);
        self.buf.str(3, name);
        let info = self.buf.nest(18);
        self.buf.str(1, kind);
        self.buf.end(info);
        self.buf.end_message(mark);
        self
    }

    pub fn add_vxlan(&mut self, spec: &VxlanSpec<'_>) -> &mut Batch {
        let mark = self.begin(NEWLINK, nl::F_CREATE | nl::F_EXCL);
        self.ifinfo(0, 0, 0);
        self.buf.str(3, spec.name);
        self.buf.attr(1, &spec.mac);
        self.buf.u32(4, spec.mtu);
        let info = self.buf.nest(18);
        self.buf.str(1, "vxlan");
        let data = self.buf.nest(2);
        self.buf.u32(1, spec.vni);
        self.buf.attr(if spec.local.is_ipv4() { 4 } else { 17 }, &octets(spec.local));
        self.buf.u8(7, 0);
        self.buf.be16(15, spec.port);
        self.buf.end(data);
        self.buf.end(info);
        self.buf.end_message(mark);
        self
    }

    pub fn set_up(&mut self, index: u32) -> &mut Batch {
        let mark = self.begin(NEWLINK, 0);
        self.ifinfo(index, IFF_UP, IFF_UP);
        self.buf.end_message(mark);
        self
    }
    pub fn set_up_by_name(&mut self, name: &str) -> &mut Batch {
        let mark = self.begin(NEWLINK, 0);
        self.ifinfo(0, IFF_UP, IFF_UP);
        self.buf.str(3, name);
        self.buf.end_message(mark);
        self
    }
    /// No link-local address by itself: duplicate detection would keep neighbour discovery from working for a second
    /// or two after the link is up. The caller adds one ([`Batch::add_address`] skips the detection).
    pub fn no_auto_link_local(&mut self, index: u32) -> &mut Batch {
        let mark = self.begin(NEWLINK, 0);
        self.ifinfo(index, 0, 0);
        let families = self.buf.nest(26);
        let inet6 = self.buf.nest(libc::AF_INET6 as u16);
        self.buf.u8(8, 1);
        self.buf.end(inet6);
        self.buf.end(families);
        self.buf.end_message(mark);
        self
    }
    pub fn set_alias(&mut self, index: u32, alias: &str) -> &mut Batch {
        let mark = self.begin(NEWLINK, 0);
        self.ifinfo(index, 0, 0);
        self.buf.attr(20, alias.as_bytes());
        self.buf.end_message(mark);
        self
    }
    pub fn set_master(&mut self, index: u32, master: u32) -> &mut Batch {
        let mark = self.begin(NEWLINK, 0);
        self.ifinfo(index, 0, 0);
        self.buf.u32(10, master);
        self.buf.end_message(mark);
        self
    }
    pub fn move_to_netns(&mut self, index: u32, netns: BorrowedFd<'_>) -> &mut Batch {
        let mark = self.begin(NEWLINK, 0);
        self.ifinfo(index, 0, 0);
        self.buf.u32(28, netns.as_raw_fd() as u32);
        self.buf.end_message(mark);
        self
    }
    pub fn delete_link(&mut self, name: &str) -> &mut Batch {
        let mark = self.begin(DELLINK, 0);
        self.ifinfo(0, 0, 0);
        self.buf.str(3, name);
        self.buf.end_message(mark);
        self
    }

    fn address(&mut self, kind: u16, flags: u16, index: u32, ip: IpAddr, prefix: u8, scope: u8) {
        let mark = self.begin(kind, flags);
        self.buf.raw(&[af(ip), prefix, 0, scope]);
        self.buf.raw(&index.to_ne_bytes());
        self.buf.attr(2, &octets(ip));
        self.buf.attr(1, &octets(ip));
        if ip.is_ipv6() {
            // No duplicate address detection: the address is ours alone, and must work at once.
            self.buf.u32(8, 0x02);
        }
        self.buf.end_message(mark);
    }
    pub fn add_address(&mut self, index: u32, ip: IpAddr, prefix: u8) -> &mut Batch {
        self.address(NEWADDR, nl::F_CREATE | nl::F_REPLACE, index, ip, prefix, 0);
        self
    }
    /// An address that the kernel never chooses as a source by itself.
    pub fn add_host_address(&mut self, index: u32, ip: IpAddr) -> &mut Batch {
        let prefix = if ip.is_ipv4() { 32 } else { 128 };
        self.address(NEWADDR, nl::F_CREATE | nl::F_REPLACE, index, ip, prefix, 254);
        self
    }
    pub fn delete_address(&mut self, index: u32, ip: IpAddr, prefix: u8) -> &mut Batch {
        self.address(DELADDR, 0, index, ip, prefix, 0);
        self
    }

    fn route(&mut self, kind: u16, flags: u16, spec: &RouteSpec) {
        let family = match spec.dst {
            Some((ip, _)) => af(ip),
            None if spec.ipv6 => libc::AF_INET6 as u8,
            None => libc::AF_INET as u8,
        };
        let prefix = spec.dst.map_or(0, |(_, p)| p);
        let scope = if spec.gateway.is_some() || family == libc::AF_INET6 as u8 { 0 } else { 253 };
        let mark = self.begin(kind, flags);
        self.buf.raw(&[family, prefix, 0, 0, 254, ROUTE_PROTOCOL, scope, 1]);
        self.buf.raw(&(if spec.onlink { RTNH_F_ONLINK } else { 0 }).to_ne_bytes());
        if let Some((ip, _)) = spec.dst {
            self.buf.attr(1, &octets(ip));
        }
        if let Some(gateway) = spec.gateway {
            self.buf.attr(5, &octets(gateway));
        }
        if let Some(src) = spec.src {
            self.buf.attr(7, &octets(src));
        }
        if let Some(metric) = spec.metric {
            self.buf.u32(6, metric);
        }
        if spec.index != 0 {
            self.buf.u32(4, spec.index);
        }
        self.buf.end_message(mark);
    }
    /// Adds a route or replaces the one with the same destination and metric.
    pub fn replace_route(&mut self, spec: &RouteSpec) -> &mut Batch {
        self.route(NEWROUTE, nl::F_CREATE | nl::F_REPLACE, spec);
        self
    }
    pub fn delete_route(&mut self, spec: &RouteSpec) -> &mut Batch {
        self.route(DELROUTE, 0, spec);
        self
    }

    fn neighbour(&mut self, kind: u16, flags: u16, index: u32, entry: &Neighbour) -> &mut Batch {
        let mark = self.begin(kind, flags);
        let family = if entry.fdb { libc::AF_BRIDGE as u8 } else { af(entry.ip) };
        self.buf.raw(&[family, 0, 0, 0]);
        self.buf.raw(&index.to_ne_bytes());
        self.buf.raw(&NUD_PERMANENT.to_ne_bytes());
        self.buf.raw(&[if entry.fdb { 2 } else { 0 }, 0]);
        self.buf.attr(1, &octets(entry.ip));
        self.buf.attr(2, &entry.mac);
        self.buf.end_message(mark);
        self
    }
    /// Adds a permanent entry or replaces the one with the same key (the address, or with `fdb` the MAC).
    pub fn replace_neighbour(&mut self, index: u32, entry: &Neighbour) -> &mut Batch {
        self.neighbour(NEWNEIGH, nl::F_CREATE | nl::F_REPLACE, index, entry)
    }
    pub fn delete_neighbour(&mut self, index: u32, entry: &Neighbour) -> &mut Batch {
        self.neighbour(DELNEIGH, 0, index, entry)
    }

    pub fn send(&self, rtnl: &mut Rtnl) -> Result<(), NlError> {
        if self.buf.is_empty() { Ok(()) } else { rtnl.socket.exchange(&self.buf) }
    }
}

/// An rtnetlink socket.
pub struct Rtnl {
    socket: Socket,
}

impl Rtnl {
    /// In the calling thread's network namespace.
    pub fn open() -> Result<Rtnl, NlError> {
        Ok(Rtnl { socket: Socket::open(Family::Route)? })
    }

    /// The link with this name, None where there is none.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NlError> {
        let seq = self.socket.next_seq();
        let mut buf = Buf::new();
        let mark = buf.message(GETLINK, nl::F_REQUEST, seq);
        buf.raw(&[0; 16]);
        buf.str(3, name);
        buf.end_message(mark);
        match self.socket.get(&buf, |_, body| read_link(body)) {
            Ok(link) => Ok(link),
            Err(e) if e.errno() == Some(Errno::ENODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub fn links(&mut self) -> Result<Vec<Link>, NlError> {
        self.dump(GETLINK, 16, read_link)
    }
    pub fn addresses(&mut self) -> Result<Vec<Address>, NlError> {
        self.dump(GETADDR, 8, read_address)
    }
    /// Unicast routes of the main table, both families.
    pub fn routes(&mut self) -> Result<Vec<Route>, NlError> {
        self.dump(GETROUTE, 12, read_route)
    }

    /// The link's permanent entries, both families and forwarding.
    pub fn neighbours(&mut self, index: u32) -> Result<Vec<Neighbour>, NlError> {
        let mut all = self.dump_of(0, GETNEIGH, 12, |body| read_neighbour(body, index))?;
        all.extend(self.dump_of(libc::AF_BRIDGE as u8, GETNEIGH, 12, |body| read_neighbour(body, index))?);
        all.sort();
        all.dedup();
        Ok(all)
    }

    fn dump<T>(
        &mut self,
        kind: u16,
        header: usize,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NlError> {
        self.dump_of(0, kind, header, read)
    }

    fn dump_of<T>(
        &mut self,
        family: u8,
        kind: u16,
        header: usize,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NlError> {
        let mut all = Vec::new();
        self.socket.dump(
            &mut all,
            |buf, seq| {
                let mark = buf.message(kind, nl::F_REQUEST | nl::F_DUMP, seq);
                buf.raw(&[family]);
                buf.raw(&[0; 16][1..header]);
                buf.end_message(mark);
            },
            |all| all.clear(),
            |all, _, body| all.extend(read(body)),
        )?;
        Ok(all)
    }
}

fn read_link(body: &[u8]) -> Option<Link> {
    let attrs = Attrs(body.get(16..)?);
    Some(Link {
        index: ne32(body.get(4..8)?),
        up: ne32(body.get(8..12)?) & IFF_UP != 0,
        name: attrs.find(3).map(string)?,
        alias: attrs.find(20).map(string).unwrap_or_default(),
        kind: attrs.find(18).and_then(|i| Attrs(i).find(1)).map(string).unwrap_or_default(),
        mac: attrs.find(1).unwrap_or(&[]).to_vec(),
        mtu: attrs.find(4).map_or(0, ne32),
        link: attrs.find(5).map_or(0, ne32),
    })
}

fn read_address(body: &[u8]) -> Option<Address> {
    let attrs = Attrs(body.get(8..)?);
    let ip = attrs.find(2).or(attrs.find(1)).and_then(ip_of)?;
    Some(Address { index: ne32(body.get(4..8)?), ip, prefix: body[1], scope: body[3] })
}

fn read_neighbour(body: &[u8], index: u32) -> Option<Neighbour> {
    let attrs = Attrs(body.get(12..)?);
    if ne32(&body[4..8]) != index || u16::from_ne_bytes([body[8], body[9]]) & NUD_PERMANENT == 0 {
        return None;
    }
    let mac = attrs.find(2)?.first_chunk::<6>().copied()?;
    let fdb = i32::from(body[0]) == libc::AF_BRIDGE;
    Some(Neighbour { ip: attrs.find(1).and_then(ip_of)?, mac, fdb })
}

fn read_route(body: &[u8]) -> Option<Route> {
    let attrs = Attrs(body.get(12..)?);
    let (family, prefix, table, protocol, kind) = (body[0], body[1], body[4], body[5], body[7]);
    let table = attrs.find(15).map_or(u32::from(table), ne32);
    // Main table, unicast; the IPv6 cache entries of old kernels carry RTM_F_CLONED.
    if table != 254 || kind != 1 || ne32(&body[8..12]) & 0x200 != 0 {
        return None;
    }
    Some(Route {
        dst: attrs.find(1).and_then(ip_of).map(|ip| (ip, prefix)),
        gateway: attrs.find(5).and_then(ip_of),
        index: attrs.find(4).map_or(0, ne32),
        protocol,
        src: attrs.find(7).and_then(ip_of),
        onlink: ne32(&body[8..12]) & RTNH_F_ONLINK != 0,
        ipv6: i32::from(family) == libc::AF_INET6,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testns::isolated;

    #[test]
    fn links_addresses_and_many_routes() {
        isolated(|| {
            let mut rtnl = Rtnl::open().expect("rtnl");
            assert_eq!(rtnl.link("br0").expect("asked"), None);
            Batch::new().add_link("br0", "bridge").send(&mut rtnl).expect("link");
            let index = rtnl.link("br0").expect("read").expect("there").index;
            let ip: IpAddr = "192.0.2.1".parse().expect("ip");
            let six: IpAddr = "2001:db8::1".parse().expect("ip");
            Batch::new()
                .set_alias(index, "a test")
                .set_up(index)
                .add_address(index, ip, 24)
                .add_address(index, six, 64)
                .add_host_address(index, "10.96.0.10".parse().expect("ip"))
                .send(&mut rtnl)
                .expect("set up");
            let link = rtnl.link("br0").expect("read").expect("there");
            assert_eq!((link.alias.as_str(), link.kind.as_str(), link.up), ("a test", "bridge", true));
            let addresses = rtnl.addresses().expect("addresses");
            let found =
                |ip| addresses.iter().find(|a| a.ip == ip && a.index == index).map(|a| (a.prefix, a.scope));
            assert_eq!(found(ip), Some((24, 0)));
            assert_eq!(found(six), Some((64, 0)));
            assert_eq!(found("10.96.0.10".parse().expect("ip")), Some((32, 254)));
            // More requests than acknowledgements fit a receive buffer.
            let routes: Vec<RouteSpec> = (0..2000u32)
                .map(|n| RouteSpec {
                    dst: Some((IpAddr::from((0x0a00_0000 + n * 256).to_be_bytes()), 24)),
                    gateway: Some("192.0.2.2".parse().expect("ip")),
                    index,
                    ..RouteSpec::default()
                })
                .collect();
            let mut batch = Batch::new();
            for route in &routes {
                batch.replace_route(route);
            }
            batch.send(&mut rtnl).expect("routes");
            let ours = |rtnl: &mut Rtnl| {
                rtnl.routes().expect("routes").iter().filter(|r| r.protocol == ROUTE_PROTOCOL).count()
            };
            assert_eq!(ours(&mut rtnl), 2000);
            let mut batch = Batch::new();
            for route in &routes {
                batch.delete_route(route);
            }
            batch.send(&mut rtnl).expect("deleted");
            assert_eq!(ours(&mut rtnl), 0);
            let refused = Batch::new().delete_route(&routes[0]).set_up(index).send(&mut rtnl);
            assert_eq!(refused.expect_err("gone").errno(), Some(Errno::ESRCH));
        });
    }

    #[test]
    fn vxlan_with_neighbours() {
        isolated(|| {
            let mut rtnl = Rtnl::open().expect("rtnl");
            let mac = [0x0a, 0x58, 10, 244, 1, 0];
            let spec = VxlanSpec {
                name: "vx0",
                vni: 1,
                local: "192.0.2.1".parse().expect("ip"),
                port: 8472,
                mac: [0x0a, 0x58, 10, 244, 0, 0],
                mtu: 1450,
            };
            Batch::new().add_vxlan(&spec).send(&mut rtnl).expect("vxlan");
            let link = rtnl.link("vx0").expect("read").expect("there");
            assert_eq!((link.kind.as_str(), link.mtu, &link.mac[..]), ("vxlan", 1450, &spec.mac[..]));
            let entry = |ip: &str, fdb| Neighbour { ip: ip.parse().expect("ip"), mac, fdb };
            let entries = [entry("10.244.1.1", false), entry("192.0.2.2", true), entry("fd00:1::1", false)];
            let mut batch = Batch::new();
            batch.set_up(link.index);
            for entry in &entries {
                batch.replace_neighbour(link.index, entry);
            }
            batch.send(&mut rtnl).expect("neighbours");
            assert_eq!(rtnl.neighbours(link.index).expect("read"), entries);
            let neighbours = crate::testns::tool("ip", &["neigh", "show", "dev", "vx0"]);
            assert!(neighbours.contains("10.244.1.1 lladdr 0a:58:0a:f4:01:00 PERMANENT"), "{neighbours}");
            let fdb = crate::testns::tool("bridge", &["fdb", "show", "dev", "vx0"]);
            assert!(fdb.contains("0a:58:0a:f4:01:00 dst 192.0.2.2"), "{fdb}");
            let mut batch = Batch::new();
            for entry in &entries {
                batch.delete_neighbour(link.index, entry);
            }
            batch.send(&mut rtnl).expect("deleted");
            assert_eq!(rtnl.neighbours(link.index).expect("read"), []);
        });
    }
}
