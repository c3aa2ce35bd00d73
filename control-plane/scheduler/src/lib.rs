//! The scheduler: chooses a node for every pod that asks for `default-scheduler`, and binds it there.
//!
//! What always holds: a node counts every pod it was given from the moment of the decision; a pod that cannot be placed
//! says why in its PodScheduled condition, and what no plugin decides yet is a reason; nothing is written when nothing
//! changed. It does not know the kubelet, nor where the API server runs.
//!
//! Map: [`framework`] (contract of plugins), [`plugins`], [`cycle`] and [`preemption`] (one pod), [`queue`], [`core`]
//! (all state, pure), [`shell`] (informers in, bindings and conditions out).
#![forbid(unsafe_code)]

pub mod core;
pub mod cycle;
pub mod framework;
pub mod plugins;
pub mod preemption;
pub mod queue;
pub mod shell;
#[cfg(test)]
mod tests;

pub use shell::{SchedulerConfig, SchedulerError, run};
