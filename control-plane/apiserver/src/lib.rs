//! keelson-apiserver

pub mod authn;
pub mod authz;
