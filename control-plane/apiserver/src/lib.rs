//! The API server: one pipeline, driven by the resource table, between HTTP and the store.
//!
//! What always holds: every request passes the same stages in the same order, over TLS and in process alike; nothing
//! but this crate reads or writes the store; every answer that is not an object is a `Status`; every queue, body,
//! retry and wait has a limit.

mod access;
pub mod admission;
mod apiserver;
pub mod authn;
pub mod authz;
pub mod body;
mod bootstrap;
pub mod cache;
mod config;
mod core;
mod crd;
mod documents;
mod flow;
mod keys;
mod masters;
mod metrics;
mod negotiate;
mod nonresource;
mod options;
mod proxy;
mod query;
mod reads;
mod renewal;
mod request_info;
mod respond;
mod rest;
mod scan;
mod server;
mod services;
mod socket;
mod streaming;
#[cfg(test)]
mod tests;
pub mod text;
mod upgrade;
mod upkeep;

pub use apiserver::{ApiServer, LocalService, StartError};
pub use authn::UserInfo;
pub use config::ApiServerConfig;
pub use rest::component_status;
pub use server::Limits;
pub use upkeep::put_back;
