//! What the kubelet does on the machine itself: cgroups, volumes, files for containers, and the translation of a pod
//! into what the runtime is asked for. Reads from the API go through [`crate::objects`].
pub mod cgroups;
pub mod config;
pub mod dns;
pub mod env;
pub mod files;
pub mod hosts;
pub mod mounts;
pub mod payload;
pub mod security;
pub mod subpath;
pub mod termination;
pub mod volumes;
