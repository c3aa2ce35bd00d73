//! A pod's interface: made, checked, removed.
use std::net::{IpAddr, Ipv6Addr};

use keelson_base::consts::VETH_PREFIX;
use keelson_sys::netns::{Netns, NetnsError};
use keelson_sys::nl::NlError;
use keelson_sys::rtnl::{Batch, Link, RouteSpec, Rtnl, VethSpec};
use keelson_sys::{hash, sysctl};

use crate::ipam::Owner;

/// Start of the alias of every host-side interface that is ours; the owner follows.
const ALIAS: &str = "keelson ";

/// Link-local addresses of the two ends; only they share the link.
const HOST_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const POD_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

/// Why a pod's interface could not be made, checked or removed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error("{step}")]
    Kernel { step: &'static str, source: NlError },
    #[error("interface {name} vanished while it was set up")]
    Vanished { name: String },
    #[error("interface {name} exists and belongs to {alias:?}")]
    Foreign { name: String, alias: String },
    #[error("{0}")]
    Differs(String),
    #[error("set the interface's kernel parameter")]
    Sysctl(#[from] sysctl::SysctlError),
}

fn kernel(step: &'static str) -> impl FnOnce(NlError) -> LinkError {
    move |source| LinkError::Kernel { step, source }
}

/// The host-side name: prefix and 44 bits of a hash of the owner.
pub fn host_name(owner: &Owner) -> String {
    let hash = hash::bytes(&[owner.container.as_bytes(), owner.interface.as_bytes()]);
    format!("{VETH_PREFIX}{:011x}", hash & 0xfff_ffff_ffff)
}

fn alias(owner: &Owner) -> String {
    format!("{ALIAS}{} {}", owner.container, owner.interface)
}

/// The owner that an interface's alias names.
pub fn owner_of(link: &Link) -> Option<Owner> {
    let (container, interface) = link.alias.strip_prefix(ALIAS)?.split_once(' ')?;
    Some(Owner { container: container.into(), interface: interface.into() })
}

/// The two ends of a pod's interface.
pub struct Pair {
    pub host: Link,
    pub pod: Link,
}

/// Makes the interface with its addresses (each with its gateway) and routes. An interface that an interrupted ADD
/// of the same owner left is replaced.
pub fn create(
    owner: &Owner,
    netns: &Netns,
    ips: &[(IpAddr, IpAddr)],
    mtu: Option<u32>,
) -> Result<Pair, LinkError> {
    let mut host = Rtnl::open().map_err(kernel("open rtnetlink"))?;
    let mut pod = netns.run(Rtnl::open)?.map_err(kernel("open rtnetlink in the pod"))?;
    let name = host_name(owner);
    let (alias, peer) = (alias(owner), owner.interface.as_str());
    let spec =
        VethSpec { name: &name, alias: &alias, peer, peer_netns: std::os::fd::AsFd::as_fd(netns), mtu };
    let mut made = Batch::new().add_veth(&spec).send(&mut host);
    if made.as_ref().is_err_and(|e| e.raw_errno() == Some(EEXIST)) {
        remove(owner)?;
        made = Batch::new().add_veth(&spec).send(&mut host);
    }
    made.map_err(kernel("make the veth pair"))?;
    let vanished = |name: &str| LinkError::Vanished { name: name.to_owned() };
    let host_link =
        host.link(&name).map_err(kernel("read the host's interface"))?.ok_or_else(|| vanished(&name))?;
    let pod_link =
        pod.link(peer).map_err(kernel("read the pod's interface"))?.ok_or_else(|| vanished(peer))?;

    let (mut inside, mut outside) = (Batch::new(), Batch::new());
    if ips.iter().any(|(ip, _)| ip.is_ipv6()) {
        inside.no_auto_link_local(pod_link.index).add_address(pod_link.index, POD_LINK_LOCAL.into(), 64);
        outside.no_auto_link_local(host_link.index).add_address(host_link.index, HOST_LINK_LOCAL.into(), 64);
    }
    inside.set_up_by_name("lo").set_up(pod_link.index);
    outside.set_up(host_link.index);
    for (ip, gateway) in ips {
        let width = if ip.is_ipv4() { 32 } else { 128 };
        inside.add_address(pod_link.index, *ip, width);
        inside.replace_route(&RouteSpec {
            dst: Some((*gateway, width)),
            index: pod_link.index,
            ..RouteSpec::default()
        });
        inside.replace_route(&RouteSpec {
            gateway: Some(*gateway),
            index: pod_link.index,
            src: Some(*ip).filter(IpAddr::is_ipv4),
            onlink: true,
            ipv6: ip.is_ipv6(),
            ..RouteSpec::default()
        });
        outside.add_address(host_link.index, *gateway, width);
        outside.replace_route(&RouteSpec {
            dst: Some((*ip, width)),
            index: host_link.index,
            src: Some(*gateway).filter(IpAddr::is_ipv4),
            ..RouteSpec::default()
        });
    }
    outside.send(&mut host).map_err(kernel("set up the host's interface"))?;
    inside.send(&mut pod).map_err(kernel("set up the pod's interface"))?;
    Ok(Pair { host: host_link, pod: pod_link })
}

/// Lets the host's own loopback addresses reach this pod (host ports on 127.0.0.1). Rules of ours keep the pod from
/// using it the other way round.
pub fn allow_loopback_source(owner: &Owner) -> Result<(), LinkError> {
    sysctl::ensure(&format!("net/ipv4/conf/{}/route_localnet", host_name(owner)), "1")?;
    Ok(())
}

/// Brings a pod's loopback interface up.
pub fn loopback_up(netns: &Netns, name: &str) -> Result<(), LinkError> {
    let mut pod = netns.run(Rtnl::open)?.map_err(kernel("open rtnetlink in the pod"))?;
    Batch::new().set_up_by_name(name).send(&mut pod).map_err(kernel("bring loopback up"))
}

/// Whether an interface of the pod is up.
pub fn is_up(netns: &Netns, name: &str) -> Result<bool, LinkError> {
    let mut pod = netns.run(Rtnl::open)?.map_err(kernel("open rtnetlink in the pod"))?;
    Ok(pod.link(name).map_err(kernel("read the pod's interface"))?.is_some_and(|l| l.up))
}

/// Removes the interface, both ends; one that is gone is fine, one with another owner's alias is left.
pub fn remove(owner: &Owner) -> Result<(), LinkError> {
    let mut host = Rtnl::open().map_err(kernel("open rtnetlink"))?;
    let name = host_name(owner);
    let Some(link) = host.link(&name).map_err(kernel("read the host's interface"))? else { return Ok(()) };
    // Without an alias: its ADD died between the two messages that make it.
    if !link.alias.is_empty() && owner_of(&link).as_ref() != Some(owner) {
        return Err(LinkError::Foreign { name, alias: link.alias });
    }
    match Batch::new().delete_link(&name).send(&mut host) {
        Err(e) if e.raw_errno() != Some(ENODEV) => Err(kernel("delete the interface")(e)),
        _ => Ok(()),
    }
}

/// All host-side interfaces of ours with their owners.
pub fn all() -> Result<Vec<(String, Owner)>, LinkError> {
    let links = Rtnl::open().and_then(|mut r| r.links()).map_err(kernel("list interfaces"))?;
    Ok(links
        .into_iter()
        .filter(|l| l.name.starts_with(VETH_PREFIX) && l.kind == "veth")
        .filter_map(|l| owner_of(&l).map(|o| (l.name, o)))
        .collect())
}

/// Compares what is there with what ADD made.
pub fn check(owner: &Owner, netns: &Netns, ips: &[(IpAddr, IpAddr)]) -> Result<(), LinkError> {
    let mut host = Rtnl::open().map_err(kernel("open rtnetlink"))?;
    let mut pod = netns.run(Rtnl::open)?.map_err(kernel("open rtnetlink in the pod"))?;
    let name = host_name(owner);
    let differs = |text: String| Err(LinkError::Differs(text));
    let Some(outer) = host.link(&name).map_err(kernel("read the host's interface"))? else {
        return differs(format!("interface {name} is missing on the host"));
    };
    let Some(inner) = pod.link(&owner.interface).map_err(kernel("read the pod's interface"))? else {
        return differs(format!("interface {} is missing in the pod", owner.interface));
    };
    for (link, place) in [(&outer, "on the host"), (&inner, "in the pod")] {
        if !link.up {
            return differs(format!("interface {} {place} is down", link.name));
        }
    }
    let addresses = pod.addresses().map_err(kernel("list the pod's addresses"))?;
    let inside = pod.routes().map_err(kernel("list the pod's routes"))?;
    let outside = host.routes().map_err(kernel("list the host's routes"))?;
    for (ip, gateway) in ips {
        if !addresses.iter().any(|a| a.ip == *ip && a.index == inner.index) {
            return differs(format!("address {ip} is missing on {} in the pod", owner.interface));
        }
        if !inside.iter().any(|r| r.dst.is_none() && r.gateway == Some(*gateway)) {
            return differs(format!("the pod has no default route through {gateway}"));
        }
        let width = if ip.is_ipv4() { 32 } else { 128 };
        if !outside.iter().any(|r| r.dst == Some((*ip, width)) && r.index == outer.index) {
            return differs(format!("the host has no route to {ip} through {name}"));
        }
    }
    Ok(())
}

const EEXIST: i32 = 17;
const ENODEV: i32 = 19;

/// `aa:bb:…`
pub fn mac(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}
