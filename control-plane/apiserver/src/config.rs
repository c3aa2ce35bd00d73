//! What the API server is told at start.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use keelson_base::gates::Gates;
use keelson_daemon::Health;
use keelson_pki::ClusterPki;

use crate::server::Limits;

/// Addresses, identities and ranges of one API server.
#[derive(Clone)]
pub struct ApiServerConfig {
    /// Where it listens.
    pub bind: SocketAddr,
    /// The address others reach it under: the endpoint of the `kubernetes` Service.
    pub advertise: IpAddr,
    /// Serving certificate, client authority, token keys, identity towards kubelets.
    pub pki: Arc<ClusterPki>,
    /// Issuer of service-account tokens, an https URL.
    pub issuer: String,
    /// The range of ClusterIPs, `10.96.0.0/12`.
    pub service_cidr: String,
    /// First and last node port.
    pub node_ports: (u16, u16),
    pub gates: Gates,
    /// Other API servers serve from the same store: the endpoints of the `kubernetes` Service are those of all.
    pub several: bool,
    /// Requests in flight that read, and that write.
    pub max_reads: usize,
    pub max_writes: usize,
    /// What connections may cost.
    pub limits: Limits,
    /// How the process' other components are, for `componentstatuses`.
    pub components: Health,
}

impl ApiServerConfig {
    /// Limits as upstream's, ranges as kubeadm's.
    pub fn new(pki: Arc<ClusterPki>, bind: SocketAddr, advertise: IpAddr) -> ApiServerConfig {
        ApiServerConfig {
            bind,
            advertise,
            pki,
            issuer: format!("https://kubernetes.default.svc.{}", keelson_base::consts::CLUSTER_DOMAIN),
            service_cidr: keelson_base::consts::SERVICE_CIDR.to_owned(),
            node_ports: keelson_base::consts::NODE_PORT_RANGE,
            gates: Gates::default(),
            several: false,
            max_reads: 400,
            max_writes: 200,
            limits: Limits::default(),
            components: Health::default(),
        }
    }
}
