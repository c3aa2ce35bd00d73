//! The kubelet: runs the pods that are bound to this node, over CRI, and tells the API what becomes of them.
pub mod plan;
