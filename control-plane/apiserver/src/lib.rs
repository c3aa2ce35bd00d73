//! The API server: one pipeline, driven by the resource table, between HTTP and the store.
//!
//! What always holds: every request passes the same stages in the same order, over TLS and in process alike; nothing
//! but this crate reads or writes the store; every answer that is not an object is a `Status`; every queue, body,
//! retry and wait has a limit.

pub mod authn;
pub mod authz;
pub mod body;
pub mod cache;
mod flow;
mod keys;
mod metrics;
mod negotiate;
mod options;
mod query;
mod request_info;
mod respond;
mod scan;
pub mod server;
mod services;
