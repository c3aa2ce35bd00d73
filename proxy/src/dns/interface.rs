//! The interface that holds the DNS service's addresses on this node.
//!
//! An address of the service range that is local: no translation stands between a client and the server, pods and the
//! node use the same one, and it answers with no pod and before any rule is in force. The kernel never chooses it as
//! a source, as its scope is the host.
use std::net::IpAddr;

use keelson_sys::nl::NlError;
use keelson_sys::rtnl::{Batch, Rtnl};

/// Name of the interface; `reset` removes it.
pub const INTERFACE: &str = "keelson-dns";
const ALIAS: &str = "keelson cluster DNS";

/// Why the addresses are not there.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    #[error("{step} interface {INTERFACE}")]
    Kernel { step: &'static str, source: NlError },
    #[error("interface {INTERFACE} exists and is not ours; rename or remove it")]
    Foreign,
}

fn kernel(step: &'static str) -> impl Fn(NlError) -> InterfaceError {
    move |source| InterfaceError::Kernel { step, source }
}

const EOPNOTSUPP: i32 = 95;

/// Makes the interface with exactly these addresses.
pub fn ensure(addresses: &[IpAddr]) -> Result<(), InterfaceError> {
    let mut rtnl = Rtnl::open().map_err(kernel("open rtnetlink for"))?;
    let mut link = rtnl.link(INTERFACE).map_err(kernel("read"))?;
    if link.is_none() {
        let mut made = Batch::new().add_link(INTERFACE, "dummy").send(&mut rtnl);
        // Kernels without dummy devices: a bridge without ports does the same.
        if made.as_ref().is_err_and(|e| e.raw_errno() == Some(EOPNOTSUPP)) {
            made = Batch::new().add_link(INTERFACE, "bridge").send(&mut rtnl);
        }
        made.map_err(kernel("make"))?;
        link = rtnl.link(INTERFACE).map_err(kernel("read"))?;
        if let Some(link) = &link {
            Batch::new().set_alias(link.index, ALIAS).send(&mut rtnl).map_err(kernel("name"))?;
        }
    } else if link.as_ref().is_some_and(|l| l.alias != ALIAS) {
        return Err(InterfaceError::Foreign);
    }
    let Some(link) = link else { return Ok(()) };
    let present = rtnl.addresses().map_err(kernel("list the addresses of"))?;
    let mut batch = Batch::new();
    for old in present.iter().filter(|a| a.index == link.index && !addresses.contains(&a.ip)) {
        let link_local = matches!(old.ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        if !link_local {
            batch.delete_address(link.index, old.ip, old.prefix);
        }
    }
    for ip in addresses {
        if !present.iter().any(|a| a.index == link.index && a.ip == *ip) {
            batch.add_host_address(link.index, *ip);
        }
    }
    if !link.up {
        batch.set_up(link.index);
    }
    batch.send(&mut rtnl).map_err(kernel("set up"))
}

/// Removes the interface. Returns whether it was there and ours.
pub fn remove() -> Result<bool, InterfaceError> {
    let mut rtnl = Rtnl::open().map_err(kernel("open rtnetlink for"))?;
    match rtnl.link(INTERFACE).map_err(kernel("read"))? {
        Some(link) if link.alias == ALIAS => {
            Batch::new().delete_link(INTERFACE).send(&mut rtnl).map_err(kernel("remove"))?;
            Ok(true)
        }
        _ => Ok(false),
    }
}
