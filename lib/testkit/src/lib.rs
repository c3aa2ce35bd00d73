//! keelson-testkit
pub mod containerd;
