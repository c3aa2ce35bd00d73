//! A machine's own certificates: the kubelet's towards the API server, its server's, and the proxy's. The first comes
//! with a bootstrap token, the others and all renewals with the identity that is there; each is renewed from a third of
//! its life, while everything runs.

use crate::node::NodeIdentity;
use crate::{control_plane, install};
use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use keelson_base::consts::identity;
use keelson_client::{CertificateRequest, Issued, RequestError, request_certificate};
use keelson_daemon::config::Config;
use keelson_daemon::{Clock, DrainWatcher};
use keelson_pki::{ClusterPki, Kubeconfig, KubeconfigAuth, Profile, ensure_dir, write_atomic};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a certificate is waited for.
const ANSWER: Duration = Duration::from_secs(60);
/// First and last wait after a failure.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// The longest sleep: the clock may be corrected, the machine may have slept.
const LOOK: Duration = Duration::from_secs(600);
/// Life of the certificate that the kubelet's server shows before it has a believed one.
const PLACEHOLDER_LIFE: Duration = Duration::from_secs(86_400);

/// Where a machine's identity lies.
#[derive(Clone)]
pub struct NodeFiles {
    pub kubelet: PathBuf,
    pub bootstrap: PathBuf,
    pub proxy: PathBuf,
    /// The folder with the serving certificate and the authority.
    pub folder: PathBuf,
}

impl NodeFiles {
    pub fn of(config: &Config) -> NodeFiles {
        NodeFiles {
            kubelet: config.paths.kubeconfig("kubelet"),
            bootstrap: config.paths.kubeconfig("bootstrap-kubelet"),
            proxy: config.paths.kubeconfig("proxy"),
            folder: config.paths.kubelet().join("pki"),
        }
    }

    pub fn serving_cert(&self) -> PathBuf {
        self.folder.join("kubelet.crt")
    }

    pub fn serving_key(&self) -> PathBuf {
        self.folder.join("kubelet.key")
    }

    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }
}

/// What a kubeconfig of ours says.
pub struct Identity {
    pub server: String,
    pub ca_pem: String,
    pub cert_pem: String,
}

/// Reads a kubeconfig with everything inside; `None` when it is not there.
pub fn read_identity(path: &Path) -> Result<Option<Identity>> {
    if !path.exists() {
        return Ok(None);
    }
    let broken = || format!("{} is no kubeconfig with an identity inside", path.display());
    let text = std::fs::read_to_string(path).with_context(broken)?;
    let file: Value = serde_saphyr::from_str(&text).with_context(broken)?;
    let (cluster, user) = (&file["clusters"][0]["cluster"], &file["users"][0]["user"]);
    let decoded = |value: &Value| -> Result<String> {
        let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).with_context(broken)?;
        String::from_utf8(bytes).with_context(broken)
    };
    Ok(Some(Identity {
        server: cluster["server"].as_str().with_context(broken)?.to_owned(),
        ca_pem: decoded(&cluster["certificate-authority-data"])?,
        cert_pem: decoded(&user["client-certificate-data"])?,
    }))
}

/// The node whose identity a kubeconfig is; `None` where there is none.
pub fn node_of(path: &Path) -> Option<String> {
    let file: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
    let user = file["users"][0]["name"].as_str()?;
    user.strip_prefix(identity::NODE_USER_PREFIX).map(str::to_owned)
}

/// When a certificate is to be renewed: a third of its life after it was had. Certificates begin before they are made, so
/// the file's time counts, as far as it lies in the certificate's.
pub fn renewal(file: &Path, cert_pem: &str) -> Result<Timestamp> {
    let (from, to) = keelson_pki::validity(cert_pem)?;
    let had = std::fs::metadata(file).and_then(|meta| meta.modified()).ok();
    let had = had.and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(from);
    Ok(third(had.clamp(from, to), to))
}

fn third(from: Timestamp, to: Timestamp) -> Timestamp {
    let seconds = to.as_second() - from.as_second();
    Timestamp::from_second(from.as_second() + seconds / 3).unwrap_or(from)
}

/// As [`ensure_client`], again and again while an answer of the API server is missing: it may be starting too.
pub async fn first_identity(config: &Config, node: &NodeIdentity, clock: &Clock) -> Result<()> {
    let mut wait = RETRY.0;
    loop {
        let Err(error) = ensure_client(config, node, clock).await else { return Ok(()) };
        if error.downcast_ref::<RequestError>().is_none() {
            return Err(error);
        }
        tracing::warn!(error = %chain(error.as_ref()), "the node's certificate was not had, trying again");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// The kubelet's client identity: kept while it holds, else asked for with the bootstrap token.
async fn ensure_client(config: &Config, node: &NodeIdentity, clock: &Clock) -> Result<()> {
    let files = NodeFiles::of(config);
    if let Some(identity) = read_identity(&files.kubelet)? {
        let (_, end) = keelson_pki::validity(&identity.cert_pem)
            .with_context(|| format!("the certificate in {} cannot be read", files.kubelet.display()))?;
        if clock.now() < end {
            return Ok(());
        }
        if own_authority(config, node, clock, &identity)? {
            return Ok(());
        }
        if !files.bootstrap.exists() {
            bail!(
                "this node's certificate ended on {end}, and the clock says {}. If the clock is right, make a token \
                 on a control plane (`keelson token create --print-join-command`) and run the command it prints here",
                clock.now()
            );
        }
    }
    let Some(bootstrap) = read_identity(&files.bootstrap)? else {
        bail!(
            "this machine has no identity yet; run `keelson join` with the command that `keelson token create \
             --print-join-command` prints on a control plane"
        );
    };
    let client = keelson_client::from_kubeconfig(&files.bootstrap).await?;
    let issued = request_certificate(&client, &client_request(&node.name), ANSWER).await?;
    write_client(&files, &bootstrap, &node.name, &issued)?;
    std::fs::remove_file(&files.bootstrap)
        .with_context(|| format!("cannot remove {}", files.bootstrap.display()))?;
    tracing::info!(node = %node.name, "the node has its identity");
    Ok(())
}

/// A machine that has the authority's key makes its kubelet's certificate anew itself: there is nobody else it could ask. Whether
/// it is one.
fn own_authority(config: &Config, node: &NodeIdentity, clock: &Clock, ended: &Identity) -> Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let folder = config.paths.pki();
    if !folder.join("ca.key").exists() {
        return Ok(false);
    }
    let owner = std::fs::metadata(&folder).with_context(|| format!("cannot look at {}", folder.display()))?;
    let pki = ClusterPki::ensure(&folder, &control_plane::pki_params(config, node, clock)?)
        .context("the node's certificate cannot be made")?;
    install::init::give(&folder, owner.uid(), owner.gid())?;
    let issued = Issued { cert_pem: pki.node.cert_pem.clone(), key_pem: pki.node.key_pem.clone() };
    write_client(&NodeFiles::of(config), ended, &node.name, &issued)?;
    tracing::warn!("the node's certificate had ended; this machine has made another");
    Ok(true)
}

fn client_request(node: &str) -> CertificateRequest {
    let user = format!("{}{node}", identity::NODE_USER_PREFIX);
    CertificateRequest {
        signer: "kubernetes.io/kube-apiserver-client-kubelet",
        profile: Profile::client(&user, &[identity::NODES_GROUP]),
        purpose: "client auth",
        life: None,
    }
}

/// The serving certificate's names: the node's name and address.
pub fn serving_profile(node: &NodeIdentity) -> Profile {
    let user = format!("{}{}", identity::NODE_USER_PREFIX, node.name);
    let mut profile = Profile::server(&user, vec![node.name.clone()], vec![node.address]);
    profile.organizations = vec![identity::NODES_GROUP.to_owned()];
    profile
}

fn write_client(files: &NodeFiles, cluster: &Identity, node: &str, issued: &Issued) -> Result<()> {
    let user = format!("{}{node}", identity::NODE_USER_PREFIX);
    write_kubeconfig(&files.kubelet, cluster, &user, issued)
}

/// A kubeconfig for an identity of the same cluster.
pub fn write_kubeconfig(path: &Path, cluster: &Identity, user: &str, issued: &Issued) -> Result<()> {
    Kubeconfig {
        cluster: "keelson",
        server: &cluster.server,
        ca_pem: &cluster.ca_pem,
        user,
        auth: KubeconfigAuth::ClientCertificate { cert_pem: &issued.cert_pem, key_pem: &issued.key_pem },
    }
    .write(path)
    .with_context(|| format!("cannot write {}", path.display()))
}

/// Puts the authority where the kubelet's server reads it, and a certificate that vouches for itself where there is none:
/// the server must listen before the node is registered, and the believed one is had after that.
pub fn ensure_serving(config: &Config, node: &NodeIdentity, clock: &Clock) -> Result<()> {
    let files = NodeFiles::of(config);
    let identity = read_identity(&files.kubelet)?.context("the kubelet has no identity yet")?;
    ensure_dir(&files.folder, 0o700)?;
    if std::fs::read_to_string(files.authority()).ok().as_deref() != Some(&identity.ca_pem) {
        write_atomic(&files.authority(), identity.ca_pem.as_bytes(), 0o644)?;
    }
    if !files.serving_cert().exists() || !files.serving_key().exists() {
        let (cert_pem, key_pem) =
            keelson_pki::self_signed(&serving_profile(node), clock.now(), PLACEHOLDER_LIFE)?;
        write_serving(&files, &Issued { cert_pem, key_pem })?;
    }
    Ok(())
}

/// The key goes first: whoever reads in between finds two that do not fit, and keeps what it has.
pub fn write_serving(files: &NodeFiles, issued: &Issued) -> Result<()> {
    write_atomic(&files.serving_key(), issued.key_pem.as_bytes(), 0o600)?;
    write_atomic(&files.serving_cert(), issued.cert_pem.as_bytes(), 0o644)?;
    Ok(())
}

/// Keeps all three certificates until the drain begins.
pub async fn keep(
    client: kube::Client,
    config: Config,
    node: NodeIdentity,
    clock: Clock,
    drain: DrainWatcher,
) -> Result<()> {
    let keeper = Keeper { files: NodeFiles::of(&config), client, node, clock };
    let mut retry = RETRY.0;
    loop {
        let wait = match keeper.once().await {
            Ok(next) => {
                retry = RETRY.0;
                let left = next.as_second() - keeper.clock.now().as_second();
                Duration::from_secs(left.max(1).unsigned_abs()).min(LOOK)
            }
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), "a certificate was not had, trying again");
                let wait = retry;
                retry = (retry * 2).min(RETRY.1);
                wait
            }
        };
        if drain.until(tokio::time::sleep(wait)).await.is_none() {
            return Ok(());
        }
    }
}

struct Keeper {
    files: NodeFiles,
    client: kube::Client,
    node: NodeIdentity,
    clock: Clock,
}

impl Keeper {
    /// Renews what is due; when the next one is.
    async fn once(&self) -> Result<Timestamp> {
        let own = read_identity(&self.files.kubelet)?.context("the kubelet's identity is gone")?;
        let mut next = self.client_certificate(&own).await?;
        next = next.min(self.proxy_certificate(&own).await?);
        Ok(next.min(self.serving_certificate(&own).await?))
    }

    async fn client_certificate(&self, own: &Identity) -> Result<Timestamp> {
        let due = renewal(&self.files.kubelet, &own.cert_pem)?;
        if self.clock.now() < due {
            return Ok(due);
        }
        let issued = request_certificate(&self.client, &client_request(&self.node.name), ANSWER)
            .await
            .context("the kubelet's client certificate")?;
        write_client(&self.files, own, &self.node.name, &issued)?;
        tracing::info!("the kubelet's client certificate is renewed");
        renewal(&self.files.kubelet, &issued.cert_pem)
    }

    async fn proxy_certificate(&self, own: &Identity) -> Result<Timestamp> {
        if let Some(proxy) = read_identity(&self.files.proxy)? {
            let due = renewal(&self.files.proxy, &proxy.cert_pem)?;
            if self.clock.now() < due {
                return Ok(due);
            }
        }
        let wanted = CertificateRequest {
            signer: "kubernetes.io/kube-apiserver-client",
            profile: Profile::client(identity::PROXY, &[]),
            purpose: "client auth",
            life: None,
        };
        let issued =
            request_certificate(&self.client, &wanted, ANSWER).await.context("the proxy's certificate")?;
        write_kubeconfig(&self.files.proxy, own, identity::PROXY, &issued)?;
        tracing::info!("the proxy has its certificate");
        renewal(&self.files.proxy, &issued.cert_pem)
    }

    async fn serving_certificate(&self, own: &Identity) -> Result<Timestamp> {
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        let (cert, key) = (read(self.files.serving_cert()), read(self.files.serving_key()));
        let authority = CertificateDer::from_pem_slice(own.ca_pem.as_bytes()).map_err(|_| {
            anyhow::anyhow!("the authority in {} cannot be read", self.files.kubelet.display())
        })?;
        if keelson_pki::issued_by(&cert, &key, &authority) {
            let due = renewal(&self.files.serving_cert(), &cert)?;
            if self.clock.now() < due {
                return Ok(due);
            }
        }
        let wanted = CertificateRequest {
            signer: "kubernetes.io/kubelet-serving",
            profile: serving_profile(&self.node),
            purpose: "server auth",
            life: None,
        };
        let issued = request_certificate(&self.client, &wanted, ANSWER)
            .await
            .context("the kubelet's serving certificate")?;
        write_serving(&self.files, &issued)?;
        tracing::info!("the kubelet's serving certificate is issued");
        renewal(&self.files.serving_cert(), &issued.cert_pem)
    }
}

#[cfg(test)]
#[path = "node_certs_tests.rs"]
mod tests;
