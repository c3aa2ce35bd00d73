//! A machine without any network: its node's address is one that only it knows, on the loopback interface, where its own
//! programs and pods reach it.

use anyhow::{Context as _, Result};
use keelson_sys::rtnl::{Batch, Rtnl};
use std::net::{IpAddr, Ipv4Addr};

/// Of the range kept for measurements between devices (RFC 2544): no network that may come later routes it. An address of
/// 127.0.0.0/8 or 169.254.0.0/16 may be no endpoint of a Service.
pub const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1));

/// Puts it in place where the node's address is this one: it is gone after each boot.
pub fn ensure(node: IpAddr) -> Result<()> {
    change(node, |batch, index| {
        batch.add_address(index, ADDRESS, 32);
    })
}

/// Takes it away again.
pub fn remove(node: IpAddr) -> Result<()> {
    let there = super::machine::addresses().iter().any(|one| one.address == ADDRESS);
    if !there {
        return Ok(());
    }
    change(node, |batch, index| {
        batch.delete_address(index, ADDRESS, 32);
    })
}

fn change(node: IpAddr, add: impl FnOnce(&mut Batch, u32)) -> Result<()> {
    if node != ADDRESS {
        return Ok(());
    }
    let changed = (|| {
        let mut rtnl = Rtnl::open()?;
        let link = rtnl.link("lo")?;
        let mut batch = Batch::default();
        if let Some(link) = link {
            add(&mut batch, link.index);
        }
        batch.send(&mut rtnl)
    })();
    changed
        .with_context(|| format!("the node's address {ADDRESS} cannot be changed on the loopback interface"))
}
