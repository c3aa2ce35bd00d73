//! Control planes of the built binary that share an etcd cluster.
//!
//! `KEELSON_SOAK_SECONDS` sets how long the members of etcd are killed under load (`make etcd-soak`: ten minutes).

#[path = "../common/mod.rs"]
mod common;
mod control_planes;
mod log;
mod migrate;
mod soak;
mod together;
mod writer;
