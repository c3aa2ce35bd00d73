//! The controllers: each brings one kind of object to its desired state.
//!
//! What always holds: decisions are made in `plan` modules without clock, tokio or client; writes are patches, made only
//! when something changes; a cache is never believed where believing it could delete or double something. Each
//! controller acts as its own service account; all share one informer per type. They know nothing of kubelet or store.
#![forbid(unsafe_code)]

pub mod bootstrap;
pub mod certificates;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod gc;
pub mod job;
pub mod kit;
pub mod namespace;
pub mod node;
pub mod replicaset;
mod run;
pub mod small;
pub mod statefulset;

pub use run::{ControllersConfig, ControllersError, run};
