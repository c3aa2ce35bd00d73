//! The kernel's interfaces that Keelson needs and std lacks: netlink (routes, nftables, conntrack), namespaces,
//! sysctls, mounts, control groups, pressure figures.
//!
//! What always holds here: everything is synchronous and blocking, nothing keeps global state, no call runs another
//! program, and nothing outside the objects named in a call is touched. `unsafe` lives in this crate (and in the
//! store's fault file layer) only. It knows nothing of Kubernetes: no services, no pods.
//!
//! Netlink is written here on plain sockets instead of on an asynchronous netlink stack: callers send one batch and
//! read its answer, the small CNI plugin needs no runtime, and a third of the nftables expressions used exist in no
//! published crate.
pub mod cgroup;
pub mod conntrack;
pub mod file;
pub mod folder;
pub mod hash;
pub mod mount;
pub mod netns;
pub mod nft;
pub mod nl;
pub mod psi;
pub mod rtnl;
pub mod sysctl;
#[cfg(test)]
mod testns;
