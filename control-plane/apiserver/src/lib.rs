//! keelson-apiserver

pub mod cache;
