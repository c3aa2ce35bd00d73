//! Tunnels to the pods of nodes that share no link with this one: one VXLAN device for all of them, which learns nothing.
//!
//! A far node's pod range is routed to that range's first address, which the far node's device holds; the neighbour entry
//! of it names a MAC that follows from the far node's address, and the forwarding entry of the MAC names the address. So no
//! node tells another anything but what its Node object says already, and a packet costs the same with any number of them.
//! What comes in is taken from the cluster's nodes alone, and only with a source in a far node's pod range ([`guard`]):
//! VXLAN itself knows no sender.
use std::hash::Hasher;
use std::net::IpAddr;

use keelson_base::cidr::Cidr;
use keelson_base::consts::{VXLAN_PORT, nft::TUNNEL_TABLE};
use keelson_sys::hash::Fnv;
use keelson_sys::nft::{Base, ChainKind, Element, Hook, Ip, Key, Rule, SetData, SetSpec};
use keelson_sys::nl::NlError;
use keelson_sys::rtnl::{Batch, Link, Neighbour, Rtnl, VxlanSpec};

use crate::plan::{Dirty, SetEntry, TableSpec};

/// Name of the device; `reset` removes it.
pub const INTERFACE: &str = "keelson-vxlan";
const ALIAS: &str = "keelson vxlan ";
const VNI: u32 = 1;
/// Sets of the table: the nodes' addresses, and the far ranges of each family.
const NODES: &str = "nodes";
const UDP: u8 = 17;

/// Which other nodes' pods are reached through a tunnel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tunnel {
    /// Those of nodes that share no link with this one.
    #[default]
    Auto,
    /// All.
    Always,
    /// None.
    Never,
}

/// Why the tunnel's device is not as planned.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    #[error("{step} interface {INTERFACE}")]
    Kernel {
        step: &'static str,
        #[source]
        source: NlError,
    },
    #[error("interface {INTERFACE} exists and is not ours; rename or remove it")]
    Foreign,
}

fn kernel(step: &'static str) -> impl Fn(NlError) -> TunnelError {
    move |source| TunnelError::Kernel { step, source }
}

/// A node at the other end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Its address below the tunnel, of the same family as this node's.
    pub address: IpAddr,
    /// Its pod ranges, of either family.
    pub ranges: Vec<Cidr>,
}

/// The device and all that hangs on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelPlan {
    /// This node's address below the tunnel.
    pub local: IpAddr,
    /// What the device carries: the link's less the tunnel's headers.
    pub mtu: u32,
    /// First addresses of this node's own pod ranges: as whom the node itself speaks to far pods.
    pub addresses: Vec<IpAddr>,
    /// Sorted.
    pub peers: Vec<Peer>,
}

/// What a packet needs beside itself: Ethernet, VXLAN, UDP and IP.
pub fn overhead(below: IpAddr) -> u32 {
    if below.is_ipv4() { 50 } else { 70 }
}

/// The first address of a pod range: the node itself, to its pods and to other nodes.
pub fn first(range: &Cidr) -> Option<IpAddr> {
    range.nth(1)
}

/// The MAC of a node's device, locally administered: an IPv4 address as it is, 40 bits of an IPv6 address' hash.
fn mac(address: IpAddr) -> [u8; 6] {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [0x0a, 0x6b, a, b, c, d]
        }
        IpAddr::V6(ip) => {
            let mut hash = Fnv::default();
            hash.write(&ip.octets());
            let [a, b, c, d, e, ..] = hash.finish().to_be_bytes();
            [0x0e, a, b, c, d, e]
        }
    }
}

impl TunnelPlan {
    fn alias(&self) -> String {
        format!("{ALIAS}{} {}", self.local, self.mtu)
    }

    /// The entries that must be, sorted.
    fn neighbours(&self) -> Vec<Neighbour> {
        let mut all = Vec::new();
        for peer in &self.peers {
            let mac = mac(peer.address);
            all.push(Neighbour { ip: peer.address, mac, fdb: true });
            let inner = peer.ranges.iter().filter_map(first);
            all.extend(inner.map(|ip| Neighbour { ip, mac, fdb: false }));
        }
        all.sort();
        all.dedup();
        all
    }
}

fn ranges(ip: Ip) -> &'static str {
    match ip {
        Ip::V4 => "ranges4",
        Ip::V6 => "ranges6",
    }
}

/// What may come through the tunnel, as a table: its packets from the cluster's nodes, and out of it only far pods' and
/// nodes' own.
pub fn guard(plan: &TunnelPlan) -> TableSpec {
    let below = Ip::of(plan.local);
    // Another family means another set of nodes: the table is replaced then, in one batch.
    let layout = vec![1, u8::from(plan.local.is_ipv4())];
    let mut table = TableSpec { name: TUNNEL_TABLE.into(), userdata: layout, ..TableSpec::default() };
    let nodes = plan.peers.iter().map(|peer| Element::key(Key::new().ip(peer.address).bytes())).collect();
    table.set(SetSpec::new(NODES, &[below.field()], SetData::None), nodes);
    let (mut outside, mut inside) = (Vec::new(), Vec::new());
    for ip in [Ip::V4, Ip::V6] {
        let far = plan.peers.iter().flat_map(|peer| &peer.ranges).filter(|c| Ip::of(c.network()) == ip);
        let elements = far.map(|c| Element::prefix(c.network(), c.prefix())).collect();
        table.set(SetSpec::new(ranges(ip), &[ip.field()], SetData::None).intervals(), elements);
        inside.push(Rule::new().iifname(INTERFACE, false).saddr_in(ip, ranges(ip), true).drop());
        let tunnel = || Rule::new().nfproto(ip).l4proto(UDP).dport(VXLAN_PORT).fib_local(false, false);
        outside.push(if ip == below { tunnel().saddr_in(ip, NODES, true).drop() } else { tunnel().drop() });
    }
    let hook = |at| Some(Base { kind: ChainKind::Filter, hook: at, priority: -150 });
    table.chain("outside", hook(Hook::Input), outside);
    table.chain("inside", hook(Hook::Prerouting), inside);
    table
}

/// The elements in which two tables of [`guard`] differ.
pub fn changes(old: &TableSpec, new: &TableSpec) -> Dirty {
    let mut dirty = Dirty::default();
    let without = |set: &SetEntry, other: Option<&SetEntry>, name: &str| -> Vec<(String, Vec<u8>)> {
        let lacks = |key: &&Vec<u8>| !other.is_some_and(|other| other.elements.contains_key(*key));
        set.elements.keys().filter(lacks).map(|key| (name.to_owned(), key.clone())).collect()
    };
    for (name, set) in &new.sets {
        dirty.elements.extend(without(set, old.sets.get(name), name));
    }
    for (name, set) in &old.sets {
        dirty.elements.extend(without(set, new.sets.get(name), name));
    }
    dirty
}

/// Makes the device as planned and returns its index; without a plan it is removed.
pub fn apply(plan: Option<&TunnelPlan>) -> Result<Option<u32>, TunnelError> {
    let Some(plan) = plan else {
        remove()?;
        return Ok(None);
    };
    let mut rtnl = Rtnl::open().map_err(kernel("open rtnetlink for"))?;
    let mut found = rtnl.link(INTERFACE).map_err(kernel("read"))?;
    if let Some(link) = &found {
        if !is_ours(link) {
            return Err(TunnelError::Foreign);
        }
        // Its address below cannot be changed, and one without its alias is half made.
        if link.alias != plan.alias() {
            Batch::new().delete_link(INTERFACE).send(&mut rtnl).map_err(kernel("replace"))?;
            found = None;
        }
    }
    let link = match found {
        Some(link) => link,
        None => make(&mut rtnl, plan)?,
    };
    let mut batch = Batch::new();
    if !link.up {
        batch.set_up(link.index);
    }
    let held: Vec<IpAddr> = rtnl
        .addresses()
        .map_err(kernel("list the addresses of"))?
        .into_iter()
        .filter(|address| address.index == link.index)
        .map(|address| address.ip)
        .collect();
    let width = |ip: &IpAddr| if ip.is_ipv4() { 32 } else { 128 };
    for old in held.iter().filter(|ip| !plan.addresses.contains(ip)) {
        batch.delete_address(link.index, *old, width(old));
    }
    for new in plan.addresses.iter().filter(|ip| !held.contains(ip)) {
        batch.add_address(link.index, *new, width(new));
    }
    let wanted = plan.neighbours();
    let held = rtnl.neighbours(link.index).map_err(kernel("list the neighbours of"))?;
    for old in held.iter().filter(|old| wanted.binary_search(old).is_err()) {
        // One whose MAC changed is replaced below.
        if !wanted.iter().any(|new| new.fdb == old.fdb && !old.fdb && new.ip == old.ip) {
            batch.delete_neighbour(link.index, old);
        }
    }
    for new in wanted.iter().filter(|new| held.binary_search(new).is_err()) {
        batch.replace_neighbour(link.index, new);
    }
    batch.send(&mut rtnl).map_err(kernel("set up"))?;
    Ok(Some(link.index))
}

fn make(rtnl: &mut Rtnl, plan: &TunnelPlan) -> Result<Link, TunnelError> {
    let spec = VxlanSpec {
        name: INTERFACE,
        vni: VNI,
        local: plan.local,
        port: VXLAN_PORT,
        mac: mac(plan.local),
        mtu: plan.mtu,
    };
    Batch::new().add_vxlan(&spec).send(rtnl).map_err(kernel("make"))?;
    let link = rtnl.link(INTERFACE).map_err(kernel("read"))?.ok_or(TunnelError::Foreign)?;
    Batch::new()
        .no_auto_link_local(link.index)
        .set_alias(link.index, &plan.alias())
        .send(rtnl)
        .map_err(kernel("name"))?;
    Ok(link)
}

/// Ours by its alias, or half made: ours by its kind and its MAC's first byte.
fn is_ours(link: &Link) -> bool {
    link.alias.starts_with(ALIAS)
        || (link.alias.is_empty() && link.kind == "vxlan" && matches!(link.mac.first(), Some(0x0a | 0x0e)))
}

/// Removes the device. Returns whether it was there and ours.
pub fn remove() -> Result<bool, TunnelError> {
    let mut rtnl = Rtnl::open().map_err(kernel("open rtnetlink for"))?;
    match rtnl.link(INTERFACE).map_err(kernel("read"))? {
        Some(link) if is_ours(&link) => {
            Batch::new().delete_link(INTERFACE).send(&mut rtnl).map_err(kernel("remove"))?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

#[cfg(test)]
#[path = "tunnel_tests.rs"]
mod tests;
