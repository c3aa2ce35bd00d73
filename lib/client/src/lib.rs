//! keelson-client

pub mod projections;
