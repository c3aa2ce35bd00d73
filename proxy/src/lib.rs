//! The service proxy of a node: service addresses, node ports, routes to other nodes' pods, cluster DNS, and the CNI
//! network configuration.
//!
//! What always holds: [`plan`] and the DNS zone are pure functions of what the informers hold; [`apply`] holds no
//! policy; rules change by one atomic batch, never by a flush; what exists is adopted after a restart; everything made
//! is removed by [`reset`], and nothing else is. Pods are none of its business: they are the kubelet's and the CNI
//! plugin's, and what the proxy needs of them stands in endpoint slices.
#![forbid(unsafe_code)]

pub mod apply;
pub mod balancer;
pub mod cniconf;
pub mod dns;
mod flows;
mod forwarding;
pub mod health;
pub mod index;
pub mod plan;
mod reset;
pub mod routes;
mod run;
pub mod tunnel;
pub mod views;

pub use reset::{ResetError, reset};
pub use run::{DnsSettings, ProxyConfig, ProxyError, run};
pub use tunnel::Tunnel;
