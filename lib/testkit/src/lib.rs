//! keelson-testkit
pub mod containerd;
pub mod etcd;
pub mod relay;
