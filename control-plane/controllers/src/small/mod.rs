//! Controllers of one file each.

pub mod cluster_roles;
pub mod pod_gc;
pub mod protection;
pub mod root_ca;
pub mod secret_tokens;
pub mod service_accounts;
pub mod ttl;
