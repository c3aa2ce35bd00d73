//! What the API server is told at start.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use keelson_base::gates::Gates;

/// Addresses, files and ranges of one API server.
#[derive(Clone, Debug)]
pub struct ApiServerConfig {
    /// Where it listens.
    pub bind: SocketAddr,
    /// The address others reach it under: the endpoint of the `kubernetes` Service.
    pub advertise: IpAddr,
    /// Serving certificate chain and key, PEM.
    pub serving_certificate: PathBuf,
    pub serving_key: PathBuf,
    /// Authorities of client certificates, PEM.
    pub client_authorities: PathBuf,
    /// Private key that signs service-account tokens, PEM; its public half verifies them.
    pub service_account_key: PathBuf,
    /// Further public keys that verify tokens, PEM (after a rotation).
    pub older_service_account_keys: Vec<PathBuf>,
    /// Issuer of tokens, an https URL.
    pub issuer: String,
    /// Client certificate towards kubelets.
    pub kubelet_client_certificate: PathBuf,
    pub kubelet_client_key: PathBuf,
    /// Authorities of the kubelets' serving certificates, PEM.
    pub kubelet_authorities: PathBuf,
    /// The range of ClusterIPs, `10.96.0.0/12`.
    pub service_cidr: String,
    /// First and last node port.
    pub node_ports: (u16, u16),
    pub gates: Gates,
    /// Requests in flight that read, and that write.
    pub max_reads: usize,
    pub max_writes: usize,
    /// How long a drain waits for requests.
    pub drain_deadline: Duration,
}

impl ApiServerConfig {
    /// Everything where [`keelson_pki::ClusterPki`] puts it, limits as upstream's, ranges as kubeadm's.
    pub fn from_pki(pki: &keelson_pki::ClusterPki, bind: SocketAddr, advertise: IpAddr) -> ApiServerConfig {
        let authority = pki.dir.join("ca.crt");
        ApiServerConfig {
            bind,
            advertise,
            serving_certificate: pki.apiserver.cert_path.clone(),
            serving_key: pki.apiserver.key_path.clone(),
            client_authorities: authority.clone(),
            service_account_key: pki.dir.join("sa.key"),
            older_service_account_keys: Vec::new(),
            issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            kubelet_client_certificate: pki.kubelet_client.cert_path.clone(),
            kubelet_client_key: pki.kubelet_client.key_path.clone(),
            kubelet_authorities: authority,
            service_cidr: keelson_base::consts::SERVICE_CIDR.to_owned(),
            node_ports: keelson_base::consts::NODE_PORT_RANGE,
            gates: Gates::default(),
            max_reads: 400,
            max_writes: 200,
            drain_deadline: Duration::from_secs(30),
        }
    }
}
