//! Wire contracts that are not Kubernetes' API: CRI v1, containerd's event stream and leases, the gRPC health check.
//!
//! Everything here is generated at build time from the `.proto` files beside this crate; there is no logic.
//! Clients only: nothing of ours serves these.
#![allow(clippy::all, clippy::pedantic)]

/// The Container Runtime Interface, v1.
pub mod cri {
    tonic::include_proto!("runtime.v1");
}

/// containerd's event service, as far as it is used.
pub mod containerd_events {
    tonic::include_proto!("containerd.services.events.v1");
}

/// containerd's lease service, as far as it is used.
pub mod containerd_leases {
    tonic::include_proto!("containerd.services.leases.v1");
}

/// `grpc.health.v1`, for gRPC probes.
pub mod grpc_health {
    tonic::include_proto!("grpc.health.v1");
}
