//! Deployment: rolls ReplicaSets over, keeps their history.

mod annotations;
pub mod numbers;
mod plan;
#[cfg(test)]
mod plan_tests;
mod shell;
mod status;

pub use numbers::scaled;
pub use shell::start;

/// The label that tells one template's pods from another's.
pub const HASH_LABEL: &str = "pod-template-hash";
