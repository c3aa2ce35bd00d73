//! From the configuration file to each component's own settings.

use crate::install::containerd::Effective;
use crate::node::NodeIdentity;
use keelson_apiserver::ApiServerConfig;
use keelson_daemon::config::{CgroupDriver, Config, Taint, Tunnel};
use keelson_kubelet::config::{KubeletConfig, ServerConfig};
use keelson_kubelet::host::cgroups::Driver;
use keelson_pki::ClusterPki;
use keelson_proxy::{DnsSettings, ProxyConfig};
use std::path::PathBuf;
use std::sync::Arc;

/// Files of the kubelet's own server.
pub struct ServingFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub client_ca: PathBuf,
}

pub fn api_server(config: &Config, node: &NodeIdentity, pki: &Arc<ClusterPki>) -> ApiServerConfig {
    ApiServerConfig {
        issuer: format!("https://kubernetes.default.svc.{}", config.network.cluster_domain),
        service_cidr: config.network.service_cidr.to_string(),
        node_ports: config.network.node_ports,
        gates: config.api_server.gates.clone(),
        several: config.etcd.is_some(),
        ..ApiServerConfig::new(pki.clone(), config.api_server.bind, node.address)
    }
}

pub fn proxy(config: &Config, node: &NodeIdentity) -> ProxyConfig {
    ProxyConfig {
        node_name: node.name.clone(),
        pod_cidrs: vec![config.network.pod_cidr],
        service_cidrs: vec![config.network.service_cidr],
        dns: Some(DnsSettings {
            addresses: vec![config.network.dns_address],
            cluster_domain: config.network.cluster_domain.clone(),
            upstreams: config.dns.upstreams.clone(),
        }),
        tunnel: match config.network.tunnel {
            Tunnel::Auto => keelson_proxy::Tunnel::Auto,
            Tunnel::Always => keelson_proxy::Tunnel::Always,
            Tunnel::Never => keelson_proxy::Tunnel::Never,
        },
        cni_conf_dir: config.proxy.cni_conf_dir.clone(),
        cni_state_dir: config.paths.cni(),
    }
}

pub fn kubelet(config: &Config, node: &NodeIdentity, serving: ServingFiles) -> KubeletConfig {
    let section = &config.kubelet;
    let mut settings = KubeletConfig::new(&node.name, config.paths.kubelet());
    settings.node_addresses = vec![node.address];
    settings.labels = config.node.labels.clone();
    settings.taints = config.node.taints.iter().map(taint).collect();
    settings.cri_socket = section.cri_socket.clone();
    settings.pod_logs = config.paths.pod_logs.clone();
    settings.static_pods = Some(section.static_pods.clone());
    settings.cluster_dns = vec![config.network.dns_address];
    settings.cluster_domain = config.network.cluster_domain.clone();
    settings.cgroup_root = section.pods_cgroup();
    settings.cgroup_driver = match section.cgroup_driver {
        CgroupDriver::Systemd => Driver::Systemd,
        CgroupDriver::Cgroupfs => Driver::Cgroupfs,
        // What runc is told by containerd.
        CgroupDriver::Auto => match Effective::read() {
            Ok(effective) if effective.systemd_cgroup() => Driver::Systemd,
            _ => Driver::Cgroupfs,
        },
    };
    settings.max_pods = section.max_pods;
    settings.image_gc.high_percent = section.image_gc_high_percent;
    settings.image_gc.low_percent = section.image_gc_low_percent;
    settings.server = Some(ServerConfig {
        bind: section.bind,
        cert: serving.cert,
        key: serving.key,
        client_ca: serving.client_ca,
    });
    settings
}

fn taint(taint: &Taint) -> k8s_openapi::api::core::v1::Taint {
    k8s_openapi::api::core::v1::Taint {
        key: taint.key.clone(),
        value: taint.value.clone(),
        effect: taint.effect.clone(),
        time_added: None,
    }
}
