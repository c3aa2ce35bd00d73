//! What every crate of Keelson must agree on: constants ([`consts`]) and the feature-gate table ([`gates`]).
//!
//! No I/O, no dependencies, no state. A number or a name that two crates share stands here once.
#![forbid(unsafe_code)]

pub mod cidr;
pub mod consts;
pub mod gates;
