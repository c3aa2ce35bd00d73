//! DaemonSet: a pod on every node that fits.

mod plan;
mod shell;

pub use shell::start;
