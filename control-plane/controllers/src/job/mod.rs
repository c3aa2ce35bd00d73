//! Job: pods that run to their end, each counted exactly once.

mod indexes;
mod plan;
#[cfg(test)]
mod plan_tests;
mod pods;
mod policy;
mod shell;

pub use shell::start;

/// Keeps a pod until its end is counted.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Annotation and label with a pod's completion index.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often the index failed before this pod.
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
