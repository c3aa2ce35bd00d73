//! Rules of the legacy group's types.

pub mod config;
pub mod container;
pub mod endpoints;
pub mod env;
pub mod event;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod pod_defaults;
pub mod pod_resize;
pub mod pod_spec;
pub mod probes;
pub mod pvc;
pub mod quota;
pub mod replication;
pub mod resources;
pub mod scheduling;
pub mod security;
pub mod service;
pub mod volumes;
