//! What a joining machine reads: `kube-public/cluster-info` (address and authority; the bootstrap signer signs it) and
//! `kube-system/keelson-config` (ranges, domain, DNS address; for bootstrap tokens and nodes).

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::ConfigMap;
use keelson_daemon::DrainWatcher;
use keelson_daemon::config::Config;
use keelson_daemon::readiness::ReadinessGuard;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Name and key of the ranges.
pub const CONFIG: (&str, &str) = ("keelson-config", "config.yaml");

/// First and last wait after a failure.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Makes both or brings them up to date; it is tried again until the drain begins. No component waits for it: the first look
/// at a cluster's config maps takes as long as they are many.
pub async fn keep(
    client: kube::Client,
    config: Config,
    address: IpAddr,
    ca_pem: String,
    readiness: ReadinessGuard,
    drain: DrainWatcher,
) {
    let mut wait = RETRY.0;
    loop {
        match drain.until(ensure(&client, &config, address, &ca_pem)).await {
            Some(Ok(())) => break,
            Some(Err(error)) => tracing::warn!(error = format!("{error:#}"), "trying again"),
            None => return,
        }
        if drain.until(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
        wait = (wait * 2).min(RETRY.1);
    }
    drop(readiness);
}

async fn ensure(client: &kube::Client, config: &Config, address: IpAddr, ca_pem: &str) -> Result<()> {
    let server = format!("https://{}", SocketAddr::new(address, config.api_server.bind.port()));
    // The form that kubeadm's join reads.
    let kubeconfig = format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {}\n    server: {server}\n  name: \"\"\n\
         contexts: null\ncurrent-context: \"\"\nkind: Config\npreferences: {{}}\nusers: null\n",
        STANDARD.encode(ca_pem)
    );
    put(client, "kube-public", "cluster-info", "kubeconfig", kubeconfig).await?;
    put(client, "kube-system", CONFIG.0, CONFIG.1, shared_config(config)).await
}

/// The part of the configuration that all machines of a cluster share, as a configuration file.
pub fn shared_config(config: &Config) -> String {
    let network = &config.network;
    let text = |text: String| serde_json::Value::from(text).to_string();
    format!(
        "apiVersion: {}\nkind: Configuration\nnetwork:\n  podCidr: {}\n  serviceCidr: {}\n  clusterDomain: {}\n  \
         dnsAddress: {}\n  tunnel: {}\n",
        keelson_base::consts::CONFIG_API_VERSION,
        text(network.pod_cidr.to_string()),
        text(network.service_cidr.to_string()),
        text(network.cluster_domain.clone()),
        text(network.dns_address.to_string()),
        network.tunnel.name(),
    )
}

/// By server-side apply: control planes that start together make it once, and what the signer adds is left alone.
async fn put(client: &kube::Client, namespace: &str, name: &str, key: &str, text: String) -> Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {key: text}});
    let parameters = PatchParams::apply("keelson").force();
    let applied = api.patch(name, &parameters, &Patch::Apply(map)).await;
    applied.map(drop).with_context(|| format!("cannot publish ConfigMap {namespace}/{name}"))
}
