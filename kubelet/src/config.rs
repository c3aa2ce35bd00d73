//! What the kubelet is told by the composition root, already checked.
use crate::host::cgroups::Driver;
use k8s_openapi::api::core::v1::Taint;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The kubelet's settings.
#[derive(Clone, Debug)]
pub struct KubeletConfig {
    pub node_name: String,
    /// Addresses of the node, primary first; the host part of pods on the host's network.
    pub node_addresses: Vec<IpAddr>,
    pub labels: BTreeMap<String, String>,
    /// Taints the node registers with.
    pub taints: Vec<Taint>,
    pub cri_socket: PathBuf,
    /// Pods' folders (volumes, hosts files) lie below.
    pub root: PathBuf,
    pub pod_logs: PathBuf,
    pub seccomp_root: PathBuf,
    /// Folder of static pods; `None` for none.
    pub static_pods: Option<PathBuf>,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    pub resolv_conf: PathBuf,
    pub cgroup_mount: PathBuf,
    pub cgroup_root: String,
    pub cgroup_driver: Driver,
    pub max_pods: u32,
    pub image_gc: ImageGcConfig,
    pub eviction: EvictionConfig,
    pub logs: LogConfig,
    /// The HTTPS server; `None` for none.
    pub server: Option<ServerConfig>,
    /// Pods are looked at again after this long even when nothing happened (projected volumes follow the API).
    pub resync: Duration,
    pub max_parallel_pulls: usize,
    /// Sandboxes that are started at the same time.
    pub max_parallel_starts: usize,
}

/// When images are collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageGcConfig {
    /// Collection starts when the disk is this full (percent).
    pub high_percent: u8,
    /// And ends here.
    pub low_percent: u8,
    /// Younger images stay.
    pub min_age: Duration,
}

/// When the node says it is under pressure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvictionConfig {
    pub memory_available: u64,
    pub disk_available_percent: f64,
    pub inodes_free_percent: f64,
    pub pids_available_percent: f64,
}

/// How container logs are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    pub max_size: u64,
    pub max_files: usize,
}

/// The kubelet's own HTTPS server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub bind: SocketAddr,
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Clients' certificates are signed by this.
    pub client_ca: PathBuf,
}

impl KubeletConfig {
    /// Defaults (upstream's) around what cannot be guessed.
    pub fn new(node_name: impl Into<String>, root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        KubeletConfig {
            node_name: node_name.into(),
            node_addresses: vec![],
            labels: BTreeMap::new(),
            taints: vec![],
            cri_socket: keelson_base::consts::CRI_SOCKET.into(),
            pod_logs: keelson_base::consts::POD_LOGS_DIR.into(),
            seccomp_root: root.join("seccomp"),
            static_pods: None,
            cluster_dns: vec![],
            cluster_domain: keelson_base::consts::CLUSTER_DOMAIN.into(),
            resolv_conf: node_resolv_conf(),
            cgroup_mount: "/sys/fs/cgroup".into(),
            cgroup_root: keelson_base::consts::CGROUP_ROOT.into(),
            cgroup_driver: Driver::Cgroupfs,
            max_pods: 110,
            image_gc: ImageGcConfig { high_percent: 85, low_percent: 80, min_age: Duration::from_secs(120) },
            eviction: EvictionConfig {
                memory_available: 100 << 20,
                disk_available_percent: 10.0,
                inodes_free_percent: 5.0,
                pids_available_percent: 5.0,
            },
            logs: LogConfig { max_size: 10 << 20, max_files: 5 },
            server: None,
            resync: Duration::from_secs(60),
            max_parallel_pulls: 5,
            max_parallel_starts: 8,
            root,
        }
    }
}

/// The node's resolver configuration; where /etc/resolv.conf names only a local stub that pods cannot reach, the file
/// with what stands behind it.
fn node_resolv_conf() -> PathBuf {
    let usual = PathBuf::from("/etc/resolv.conf");
    let behind = PathBuf::from("/run/systemd/resolve/resolv.conf");
    let servers = crate::host::dns::parse(&std::fs::read_to_string(&usual).unwrap_or_default()).servers;
    let stub = !servers.is_empty() && servers.iter().all(|server| server.starts_with("127."));
    if stub && behind.is_file() { behind } else { usual }
}
