//! keelson-apiserver

pub mod admission;
pub mod authn;
pub mod authz;
