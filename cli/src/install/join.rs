//! `keelson join`: makes this machine a node of a cluster, in the form that `kubeadm join` has.

use super::discovery::{self, Cluster, Pins};
use super::dropin::Chosen;
use super::handover::{self, Bundle};
use super::init::{
    COMES_UP, Mode, agree_with_runtime, api, default_file, failed, make_pki, mark_control_plane,
    open_firewall, runtime_choices, write_config,
};
use super::ledger::Ledger;
use super::progress::{Output, Progress, until};
use super::{dropin, etcd, firewall, machine, registries, units};
use crate::balancer;
use crate::checks::{self, Role};
use crate::node::{self, NodeIdentity};
use crate::node_certs::{self, NodeFiles};
use crate::{publish, upgrade};
use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use keelson_daemon::config::{self, Config};
use keelson_pki::{BootstrapToken, CertificateKey, Kubeconfig, KubeconfigAuth};
use kube::Api;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The drop-in with what was chosen.
const JOIN: &str = "10-join.yaml";
/// How long an answer of the API server is waited for.
const ANSWER: Duration = Duration::from_secs(4);

/// `keelson join`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Address of the API server, HOST:PORT; not with --discovery-file.
    #[arg(value_name = "HOST:PORT")]
    pub endpoint: Option<String>,
    /// Token for both discovery and the node's first certificate.
    #[arg(long)]
    pub token: Option<BootstrapToken>,
    /// Token for discovery alone.
    #[arg(long)]
    pub discovery_token: Option<BootstrapToken>,
    /// Token for the node's first certificate alone.
    #[arg(long)]
    pub tls_bootstrap_token: Option<BootstrapToken>,
    /// Hash of the cluster's authority, sha256:HEX; may be given several times.
    #[arg(long, value_name = "HASH", value_parser = pin)]
    pub discovery_token_ca_cert_hash: Vec<String>,
    /// Join without a hash: whoever knows the token can pass for the cluster.
    #[arg(long)]
    pub discovery_token_unsafe_skip_ca_verification: bool,
    /// Kubeconfig file that names the API server and the authority, for sites without a way to check a hash.
    #[arg(long, value_name = "FILE")]
    pub discovery_file: Option<PathBuf>,
    /// Join as a control plane, of a cluster whose database is in etcd.
    #[arg(long, requires = "certificate_key")]
    pub control_plane: bool,
    /// What opens the cluster's keys; `keelson token create --control-plane --print-join-command` prints it.
    #[arg(long, value_name = "HEX", requires = "control_plane")]
    pub certificate_key: Option<CertificateKey>,
    /// Configuration file. What is given by flags is written beside it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of this node; the host name otherwise.
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Address that the other machines know this one by.
    #[arg(long, visible_alias = "apiserver-advertise-address", value_name = "IP")]
    pub node_ip: Option<IpAddr>,
    /// Labels of the node, key=value.
    #[arg(long, value_delimiter = ',', value_name = "KEY=VALUE")]
    pub node_labels: Vec<String>,
    /// Taints of the node, key=value:Effect.
    #[arg(long, value_delimiter = ',', value_name = "TAINT")]
    pub node_taints: Vec<String>,
    /// Socket of the container runtime.
    #[arg(long, value_name = "PATH")]
    pub cri_socket: Option<PathBuf>,
    #[command(flatten)]
    pub registries: registries::Mirrors,
    /// Leave a firewalld or ufw that is on as it is, and tell it yourself what to let through.
    #[arg(long)]
    pub leave_firewall: bool,
    /// Checks whose failure is passed over; `all` for every one.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub ignore_preflight_errors: Vec<String>,
    /// Only check and say what would be done.
    #[arg(long)]
    pub dry_run: bool,
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: Output,
}

/// A pin as it is compared: `sha256:` and 64 hex digits.
fn pin(text: &str) -> Result<String, String> {
    let hex = text.strip_prefix("sha256:").ok_or("it must begin with sha256:")?;
    if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase().replace("SHA256", "sha256"));
    }
    Err("it must be sha256: and 64 hexadecimal digits".into())
}

/// Joins, or goes on joining.
pub async fn run(args: Args) -> Result<()> {
    let progress = Progress::new(args.output);
    let joining = Joining::prepare(&args, progress).await?;
    let findings = checks::preflight(
        &joining.config,
        joining.role(),
        joining.node.address,
        units::started(units::KUBELET),
    )
    .await;
    checks::judge(&findings, &args.ignore_preflight_errors, progress)?;
    registries::check(&joining.config.registries)?;
    let (node, server) = (&joining.node, &joining.found.server);
    if args.dry_run {
        println!("would join {server} as node {} at {}", node.name, node.address);
        for (name, text) in &joining.texts {
            println!("would write {}:\n{text}", dropin::place(&joining.file, name).display());
        }
        for line in firewall::would(&joining.config, node.address, joining.keys.is_some()) {
            println!("{line}");
        }
        println!("would enable and start {}", joining.units().join(", "));
        return Ok(());
    }
    joining.apply(progress).await?;
    if args.output == Output::Json {
        println!("{}", serde_json::json!({"node": node.name, "server": server}));
    } else {
        println!("\n{} is a node of the cluster at {server}.", node.name);
    }
    Ok(())
}

/// All that is known before anything is changed.
struct Joining {
    found: Cluster,
    token: String,
    node: NodeIdentity,
    /// As a control plane: what was handed over.
    keys: Option<Bundle>,
    /// The configuration file, its drop-ins, and what they say together.
    file: PathBuf,
    texts: Vec<(&'static str, String)>,
    config: Config,
}

impl Joining {
    async fn prepare(args: &Args, progress: Progress) -> Result<Joining> {
        let file = args.config.clone().unwrap_or_else(default_file);
        let there = file.exists().then_some(file.as_path());
        let before = config::load(there)?;
        let refuse =
            "this machine is a control plane of its own; `keelson reset --yes --state` takes it out first";
        if before.paths.pki().join("ca.key").exists() && !args.control_plane {
            bail!(refuse);
        }
        let found = progress.wait("finding the cluster", find(args)).await?;
        // One that has the cluster's keys already is in the middle of joining.
        let authority = std::fs::read_to_string(before.paths.pki().join("ca.crt")).unwrap_or_default();
        if !authority.is_empty() && authority.trim() != found.ca_pem.trim() {
            bail!(refuse);
        }
        let token = args.tls_bootstrap_token.as_ref().or(args.token.as_ref()).context(
            "no token is given to ask for the node's certificate with; add --token, or use the command that `keelson \
             token create --print-join-command` prints",
        )?;
        let named = dropin_of(args, address(args, &before)?)?.text("keelson join");
        let node = node::identify(&config::load_with(there, &[(JOIN, &named)])?.node)?;
        let client = client(&kubeconfig(&found, &found.server, &token.to_string())).await?;
        let own = units::started(units::KUBELET) || is_node(&before, &node.name, &found.ca_pem);
        let shared = shared(&client, &node, own, token).await?;
        fits(&client, args.certificate_key.is_some()).await?;
        let mut texts = vec![("05-cluster.yaml", shared), (JOIN, named)];
        let keys = match &args.certificate_key {
            Some(key) => {
                Some(progress.wait("opening the cluster's keys", handover::download(&client, key)).await?)
            }
            None => None,
        };
        if let Some(keys) = &keys {
            let same = keys.authority().trim() == found.ca_pem.trim();
            anyhow::ensure!(same, "the keys handed over are another cluster's");
            texts.push((handover::STORE, keys.store(&before.paths.pki())));
            if keys.members() {
                etcd::check().await?;
            }
        }
        let all: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let config = config::load_with(there, &all)?;
        Ok(Joining { found, token: token.to_string(), node, keys, file, texts, config })
    }

    fn role(&self) -> Role {
        if self.keys.is_some() { Role::ControlPlane } else { Role::Worker }
    }

    fn units(&self) -> &'static [&'static str] {
        match &self.keys {
            Some(keys) if keys.members() => {
                &[units::CONTROL_PLANE, units::KUBELET, units::PROXY, units::ETCD]
            }
            Some(_) => &[units::CONTROL_PLANE, units::KUBELET, units::PROXY],
            None => &[units::KUBELET, units::PROXY],
        }
    }

    /// Makes this machine known to etcd as a member that follows, starts it, and waits until it votes.
    async fn become_member(&self, keys: &Bundle, ledger: &Ledger, progress: Progress) -> Result<()> {
        let config = &self.config;
        let following = etcd::follow(config, &self.node, keys.endpoints());
        progress.wait("becoming a member of etcd", following).await?;
        progress.step("starting etcd", || units::start(ledger, &[units::ETCD], false))?;
        let voting = etcd::vote(config, &self.node, keys.endpoints());
        let votes = progress.wait("waiting until etcd's new member votes", voting).await;
        votes.with_context(|| failed(units::ETCD))
    }

    async fn apply(&self, progress: Progress) -> Result<()> {
        let config = &self.config;
        let servers = balancer::resolve(&self.found.server).await?;
        let ledger = Ledger::of(&config.paths.state);
        let mut changed = progress.step("writing the configuration", || {
            let write = |(name, text): &(&str, String)| write_config(&ledger, &self.file, name, text);
            self.texts.iter().try_fold(false, |changed, one| Ok(write(one)? | changed))
        })?;
        changed |= progress.step("writing the first identity", || match &self.keys {
            None => {
                balancer::adopt(config, &servers, &self.found.ca_pem)?;
                let bootstrap = kubeconfig(&self.found, &balancer::server(), &self.token);
                first_identity(config, &self.found, &bootstrap)
            }
            Some(keys) => {
                keelson_pki::ensure_dir(&config.paths.state, 0o755)?;
                keys.place(&config.paths.pki())?;
                make_pki(config, &self.node, Mode::Units).map(|()| false)
            }
        })?;
        progress.step("agreeing with containerd", || agree_with_runtime(&ledger, config))?;
        // The other members reach this one before it can vote.
        open_firewall(&ledger, config, &self.node, self.keys.is_some(), progress)?;
        if let Some(keys) = self.keys.as_ref().filter(|keys| keys.members()) {
            self.become_member(keys, &ledger, progress).await?;
        }
        progress.step("starting the units", || units::start(&ledger, self.units(), changed))?;
        if self.keys.is_some() {
            progress
                .wait("waiting for the API server", until(COMES_UP, || api(config)))
                .await
                .with_context(|| failed(units::CONTROL_PLANE))?;
        }
        let ready = until(COMES_UP, || own_ready(config, &self.node));
        progress
            .wait("waiting until the node is Ready", ready)
            .await
            .with_context(|| failed(units::KUBELET))?;
        match self.role() {
            Role::ControlPlane => mark_control_plane(&api(config).await?, &self.node.name).await,
            Role::Worker => Ok(()),
        }
    }
}

/// What the token stands for, towards one of the cluster's addresses.
fn kubeconfig(found: &Cluster, server: &str, token: &str) -> String {
    let auth = KubeconfigAuth::Token(token);
    Kubeconfig { cluster: "keelson", server, ca_pem: &found.ca_pem, user: "bootstrap", auth }.render()
}

async fn find(args: &Args) -> Result<Cluster> {
    if let Some(file) = &args.discovery_file {
        return discovery::by_file(file).await;
    }
    let endpoint = args.endpoint.as_deref().context(
        "which cluster? Give HOST:PORT of its API server, or --discovery-file. `keelson token create \
         --print-join-command` on a control plane prints the whole command",
    )?;
    let token = args.discovery_token.as_ref().or(args.token.as_ref()).context("no --token is given")?;
    let unpinned = args.discovery_token_unsafe_skip_ca_verification;
    if args.discovery_token_ca_cert_hash.is_empty() && !unpinned {
        bail!(
            "no --discovery-token-ca-cert-hash is given, so the cluster cannot be told from another that knows the token. \
             `keelson token create --print-join-command` on a control plane prints it"
        );
    }
    let hashes: &[String] = if unpinned { &[] } else { &args.discovery_token_ca_cert_hash };
    discovery::by_token(endpoint, &Pins { token, hashes }).await
}

fn address(args: &Args, config: &Config) -> Result<IpAddr> {
    if let Some(address) = args.node_ip.or(config.node.address) {
        return Ok(address);
    }
    machine::choose_address(node::default_address().ok(), &machine::addresses())
        .map(|(address, _)| address)
        .map_err(|why| anyhow::anyhow!("{why}. Say which one with --node-ip IP"))
}

fn dropin_of(args: &Args, address: IpAddr) -> Result<Chosen> {
    let mut chosen = Chosen::default();
    chosen.set("node.address", address.to_string());
    chosen.set_some("node.name", args.node_name.clone());
    if !args.node_taints.is_empty() {
        chosen.set("node.taints", args.node_taints.clone());
    }
    if !args.node_labels.is_empty() {
        let mut labels = serde_json::Map::new();
        for label in &args.node_labels {
            let (key, value) =
                label.split_once('=').with_context(|| format!("--node-labels {label:?} is not key=value"))?;
            labels.insert(key.to_owned(), value.into());
        }
        chosen.set("node.labels", labels);
    }
    runtime_choices(&mut chosen, args.cri_socket.as_deref());
    args.registries.choose(&mut chosen);
    chosen.set_some("node.firewall", args.leave_firewall.then_some("leave"));
    Ok(chosen)
}

/// Whoever has the token.
async fn client(bootstrap: &str) -> Result<kube::Client> {
    let kubeconfig = kube::config::Kubeconfig::from_yaml(bootstrap)?;
    let options = kube::config::KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    config.connect_timeout = Some(ANSWER);
    Ok(kube::Client::try_from(config)?)
}

/// Whether this machine is a node of the cluster already: it stopped after it had been registered and before its kubelet
/// was begun again.
fn is_node(config: &Config, name: &str, ca_pem: &str) -> bool {
    let file = NodeFiles::of(config).kubelet;
    let holds = |known: &node_certs::Identity| {
        let end = keelson_pki::validity(&known.cert_pem).map(|(_, end)| end);
        known.ca_pem.trim() == ca_pem.trim() && end.is_ok_and(|end| end > jiff::Timestamp::now())
    };
    node_certs::node_of(&file).as_deref() == Some(name)
        && matches!(node_certs::read_identity(&file), Ok(Some(known)) if holds(&known))
}

/// The cluster's ranges; refuses when the token is not believed or the name is another machine's.
async fn shared(
    client: &kube::Client,
    node: &NodeIdentity,
    own: bool,
    token: &BootstrapToken,
) -> Result<String> {
    let asked = async {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
        let map = maps.get(publish::CONFIG.0).await?;
        let nodes: Api<Node> = Api::all(client.clone());
        Ok::<_, kube::Error>((map, nodes.get_opt(&node.name).await?))
    };
    let (map, known) = match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(kube::Error::Api(status))) if status.code == 401 => bail!(
            "the API server does not take the token {} for a login: it has expired, or is for signing alone. Make a new one \
             on a control plane with `keelson token create --print-join-command`",
            token.id()
        ),
        Ok(Err(error)) => return Err(error).context("the cluster's configuration cannot be read"),
        Err(_) => bail!("the API server does not answer; run `keelson status` on the control plane"),
    };
    if known.is_some() && !own {
        bail!(
            "there is a node {} in the cluster already. If it is this machine from before, run `kubectl delete node {}` \
             first; if it is another, give this one a name with --node-name",
            node.name,
            node.name
        );
    }
    map.data.unwrap_or_default().remove(publish::CONFIG.1).context("the cluster publishes no configuration")
}

/// Refuses where this program is too old, or too new, for the cluster.
async fn fits(client: &kube::Client, control_plane: bool) -> Result<()> {
    let asked = tokio::time::timeout(ANSWER, client.apiserver_version()).await;
    let version = asked.context("the API server does not answer")?.context("its version cannot be read")?;
    upgrade::may_join(&version.git_version, control_plane)
}

/// The token as a kubeconfig, with which the kubelet asks for its certificate. Whether one was written: not where the node
/// has a certificate of this cluster that holds.
fn first_identity(config: &Config, cluster: &Cluster, bootstrap: &str) -> Result<bool> {
    let files = NodeFiles::of(config);
    keelson_pki::ensure_dir(&config.paths.state, 0o755)?;
    if let Some(known) = node_certs::read_identity(&files.kubelet)? {
        let (_, end) = keelson_pki::validity(&known.cert_pem)?;
        let same = known.ca_pem.trim() == cluster.ca_pem.trim() && bootstrap.contains(&known.server);
        if end > jiff::Timestamp::now() && same {
            return Ok(false);
        }
        for old in [&files.kubelet, &files.proxy] {
            remove(old)?;
        }
    }
    keelson_pki::write_atomic(&files.bootstrap, bootstrap.as_bytes(), 0o600)
        .with_context(|| format!("cannot write {}", files.bootstrap.display()))?;
    Ok(true)
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// An error unless this node, asked for with its own identity, is Ready.
async fn own_ready(config: &Config, node: &NodeIdentity) -> Result<()> {
    let files = NodeFiles::of(config);
    if !files.kubelet.exists() {
        bail!("the kubelet has not got its certificate yet");
    }
    let client = keelson_client::from_kubeconfig(&files.kubelet).await?;
    super::init::ready(&client, &node.name).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use keelson_client::Issued;

    #[test]
    fn a_machine_that_has_a_nodes_identity_is_that_node() {
        let place = tempfile::tempdir().unwrap();
        let mut config = config::load(None).unwrap();
        config.paths.state = place.path().to_owned();
        assert!(!is_node(&config, "n1", "authority"), "no identity");
        let have = |user: &str, from: jiff::Timestamp| {
            let profile = keelson_pki::Profile::client(user, &[]);
            let (cert_pem, key_pem) =
                keelson_pki::self_signed(&profile, from, Duration::from_secs(7200)).unwrap();
            let cluster = node_certs::Identity {
                server: "https://192.0.2.1:6443".into(),
                ca_pem: "authority".into(),
                cert_pem: String::new(),
            };
            let file = NodeFiles::of(&config).kubelet;
            node_certs::write_kubeconfig(&file, &cluster, user, &Issued { cert_pem, key_pem }).unwrap();
        };
        let now = jiff::Timestamp::now();
        have("system:node:n1", now);
        assert!(is_node(&config, "n1", "authority\n"));
        assert!(!is_node(&config, "n2", "authority"), "another node's");
        assert!(!is_node(&config, "n1", "other"), "another cluster's");
        have("system:node:n1", now - Duration::from_secs(90_000));
        assert!(!is_node(&config, "n1", "authority"), "one that has ended");
        have("n1", now);
        assert!(!is_node(&config, "n1", "authority"), "no node's");
    }

    #[test]
    fn pins_have_kubeadms_form() {
        let hex = "AB".repeat(32);
        assert_eq!(pin(&format!("sha256:{hex}")).unwrap(), format!("sha256:{}", hex.to_lowercase()));
        for bad in
            ["", "sha256:", "md5:00", &hex, &format!("sha256:{hex}0"), &format!("sha256:{}g", &hex[1..])]
        {
            assert!(pin(bad).is_err(), "{bad}");
        }
    }
}
