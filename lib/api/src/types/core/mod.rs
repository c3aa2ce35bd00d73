//! Rules of the legacy group's types.

pub mod container;
pub mod pod;
pub mod pod_defaults;
pub mod pod_spec;
pub mod pvc;
pub mod resources;
pub mod scheduling;
pub mod security;
pub mod volumes;
