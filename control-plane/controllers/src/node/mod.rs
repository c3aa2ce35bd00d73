//! Nodes: their share of the pod range, their health, and what becomes of pods on unhealthy ones.

mod evictor;
mod health;
mod ipam;
mod lifecycle;

pub use evictor::start as start_evictor;
pub use ipam::start as start_ipam;
pub use lifecycle::start as start_lifecycle;
