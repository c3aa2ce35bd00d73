//! The CNI plugin: gives a pod its interface, addresses, routes and host ports, and takes them away again.
//!
//! A pod is joined by a veth pair and a host route to its single address; there is no bridge. So every packet of a
//! pod passes the host's IP layer, where service translation and network policy see it whatever its target (two pods
//! of one node would meet on a bridge behind the back of connection tracking: the kernel module that prevents it is
//! missing on small machines), the node reaches pods and pods reach one another and themselves through service
//! addresses by the same path, and ADD needs four netlink exchanges. The host's ends carry the range's first address,
//! which is the pods' gateway and the node's source address towards them, so nothing depends on a default route.
//!
//! What always holds: an address belongs to at most one (container, interface); a lease is on file before its
//! interface exists and is removed after the interface is gone, so a plugin killed at any point leaves nothing that
//! DEL, a later ADD, or GC would not mend; every command can be repeated.
//!
//! It does not know the API, the proxy or the kubelet; what it must know stands in the network configuration.
pub mod hostports;
pub mod ipam;
pub mod link;
pub mod plugin;
pub mod spec;

pub use plugin::{Environment, run};
