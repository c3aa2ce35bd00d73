//! Cluster DNS on the node itself, after the Kubernetes DNS specification 1.1.
//!
//! [`zone`] decides answers from what the informers hold (pure); [`server`] speaks UDP and TCP on the DNS service's
//! address, which every node holds on an interface of its own; [`forward`] relays names outside the cluster to the
//! node's resolvers. Only pods and the node are answered: a packet rule keeps others out, and so does the server.
pub mod forward;
pub mod interface;
pub mod server;
pub mod service;
pub mod zone;

pub use server::{DnsConfig, DnsError, serve};
