//! A node's way to the API servers: what [`keelson_proxy::balancer`] needs of files and clients. The servers are those of
//! the Service `default/kubernetes`; the last that were known lie in a file, so that a node starts without any of the
//! servers it joined at.

use crate::node::NodeIdentity;
use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use keelson_daemon::DrainWatcher;
use keelson_daemon::config::Config;
use keelson_proxy::balancer::{self, First, Probe};
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// Where a node's kubeconfigs lead when it goes through the balancer.
pub fn server() -> String {
    format!("https://{}", balancer::ADDRESS)
}

/// The file with the servers that were known last, one a line. There is none where the node goes straight to its server.
pub fn file(config: &Config) -> PathBuf {
    config.paths.cni().join("api-servers")
}

/// Its authority, by which the servers are believed.
fn authority(config: &Config) -> PathBuf {
    config.paths.cni().join("api-servers.crt")
}

/// Makes this node go through the balancer, to these servers at first.
pub fn adopt(config: &Config, servers: &[SocketAddr], ca_pem: &str) -> Result<()> {
    let path = authority(config);
    keelson_pki::ensure_dir(&config.paths.cni(), 0o755)?;
    keelson_pki::write_atomic(&path, ca_pem.as_bytes(), 0o644)
        .with_context(|| format!("cannot write {}", path.display()))?;
    write(&file(config), servers)
}

fn write(path: &Path, servers: &[SocketAddr]) -> Result<()> {
    let text: String = servers.iter().map(|server| format!("{server}\n")).collect();
    keelson_pki::write_atomic(path, text.as_bytes(), 0o644)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The servers in the file; `None` without it.
fn read(path: &Path) -> Option<Vec<SocketAddr>> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.lines().filter_map(|line| line.trim().parse().ok()).collect())
}

/// Starts the balancer where this node goes through one; it ends with the process. Whoever learns of servers tells the
/// sender.
pub async fn start(config: &Config, node: &NodeIdentity) -> Result<Option<watch::Sender<Vec<SocketAddr>>>> {
    let Some(servers) = read(&file(config)) else { return Ok(None) };
    let path = authority(config);
    let ca_pem = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let listener = tokio::net::TcpListener::bind(balancer::ADDRESS).await.with_context(|| {
        format!("something listens on {}, where nodes reach the API servers", balancer::ADDRESS)
    })?;
    let (sender, receiver) = watch::channel(servers);
    let probe = Healthz { ca_pem, clients: Mutex::default() };
    tokio::spawn(balancer::run(listener, receiver, first(config, node), probe));
    Ok(Some(sender))
}

/// A control plane's own server; elsewhere the node's name picks one.
fn first(config: &Config, node: &NodeIdentity) -> First {
    if config.paths.pki().join("ca.key").exists() {
        return First::Own(SocketAddr::new(node.address, config.api_server.bind.port()));
    }
    let mut hasher = std::hash::DefaultHasher::new();
    node.name.hash(&mut hasher);
    First::Any(usize::try_from(hasher.finish() >> 32).unwrap_or_default())
}

/// Asks `/livez`, which needs no credentials, over a connection that stays.
struct Healthz {
    ca_pem: String,
    clients: Mutex<BTreeMap<SocketAddr, kube::Client>>,
}

impl Probe for Healthz {
    async fn lives(&self, server: SocketAddr) -> bool {
        let known = self.clients.lock().await.get(&server).cloned();
        let client = match known {
            Some(client) => client,
            None => match anonymous(server, &self.ca_pem) {
                Ok(client) => self.clients.lock().await.entry(server).or_insert(client).clone(),
                Err(error) => {
                    tracing::warn!(%server, %error, "the API server cannot be asked");
                    return false;
                }
            },
        };
        let Ok(request) = http::Request::get("/livez").body(Vec::new()) else { return false };
        client.request_text(request).await.is_ok()
    }
}

/// A client without credentials.
fn anonymous(server: SocketAddr, ca_pem: &str) -> Result<kube::Client> {
    let mut config = kube::Config::new(format!("https://{server}").parse()?);
    let certs = CertificateDer::pem_slice_iter(ca_pem.as_bytes());
    config.root_cert = Some(certs.filter_map(Result::ok).map(|cert| cert.to_vec()).collect());
    Ok(kube::Client::try_from(config)?)
}

/// Follows the servers of the Service, for the balancer and the file.
pub async fn follow(
    client: kube::Client,
    path: PathBuf,
    servers: watch::Sender<Vec<SocketAddr>>,
    drain: DrainWatcher,
) {
    let slices: Api<EndpointSlice> = Api::namespaced(client, "default");
    let config = watcher::Config::default().labels("kubernetes.io/service-name=kubernetes");
    let mut changes = watcher(slices, config).default_backoff().applied_objects().boxed();
    while let Some(Some(change)) = drain.until(changes.next()).await {
        let Ok(slice) = change else { continue };
        let known = addresses(&slice);
        if known.is_empty() || *servers.borrow() == known {
            continue;
        }
        if let Err(error) = write(&path, &known) {
            tracing::warn!(error = %format!("{error:#}"), "the API servers' addresses are not kept");
        }
        servers.send_replace(known);
    }
}

fn addresses(slice: &EndpointSlice) -> Vec<SocketAddr> {
    let port = slice.ports.iter().flatten().find_map(|port| u16::try_from(port.port?).ok());
    let all = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    let mut all: Vec<SocketAddr> =
        all.filter_map(|address| Some(SocketAddr::new(address.parse().ok()?, port?))).collect();
    all.sort();
    all
}

/// How long a name of an API server may take to resolve.
const RESOLVE: Duration = Duration::from_secs(2);

/// The addresses of `https://host:port`.
pub async fn resolve(server: &str) -> Result<Vec<SocketAddr>> {
    let host = server.trim_start_matches("https://").trim_end_matches('/');
    let found = tokio::time::timeout(RESOLVE, tokio::net::lookup_host(host)).await;
    let found: Vec<SocketAddr> =
        found.context("it takes too long")?.with_context(|| format!("{host} cannot be resolved"))?.collect();
    anyhow::ensure!(!found.is_empty(), "{host} has no address");
    Ok(found)
}
