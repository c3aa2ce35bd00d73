//! StatefulSet: pods with names that stay, made, updated and removed in order.

mod plan;
mod pods;
mod shell;

pub use shell::start;
