//! `keelson init`: makes a cluster on this machine. Each step looks first whether it is done, so that a run after a crash
//! goes on where the last one stopped.

use super::dropin::{self, Chosen};
use super::ledger::Ledger;
use super::progress::{Output, Progress, until};
use super::{alone, containerd, etcd, firewall, handover, machine, registries, sealed, token, units};
use crate::checks::{self, Role};
use crate::node::{self, NodeIdentity};
use crate::node_certs::{self, Identity, NodeFiles};
use crate::{balancer, control_plane, node_certs as certs};
use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Node;
use keelson_base::consts::{identity, node_labels};
use keelson_client::Issued;
use keelson_daemon::Clock;
use keelson_daemon::config::{self, Config};
use keelson_pki::{BootstrapToken, ClusterPki};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The drop-in with what was chosen.
const INIT: &str = "10-init.yaml";
/// How long an API server or a node that was started may take, as kubeadm's `timeouts` have it: a small machine that is just
/// booting and unpacks images needs minutes.
pub const COMES_UP: Duration = Duration::from_secs(240);

/// How the components run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Everything in one process (keelson.service).
    AllInOne,
    /// Control plane, kubelet and proxy as units of their own.
    Units,
}

/// What holds the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StoreKind {
    Sqlite,
    Etcd,
}

/// `keelson init`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Configuration file. What is given by flags is written beside it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One process, or a unit for each component.
    #[arg(long, value_enum, default_value = "all-in-one")]
    pub mode: Mode,
    /// Address that the other machines know this one by. A machine without any network device is given one that only it knows.
    #[arg(long, value_name = "IP")]
    pub apiserver_advertise_address: Option<IpAddr>,
    /// Port of the API server.
    #[arg(long, value_name = "PORT")]
    pub apiserver_bind_port: Option<u16>,
    /// Where the database lies: an SQLite file, or an etcd member that runs beside this control plane.
    #[arg(long, value_enum, default_value = "sqlite", conflicts_with = "etcd_endpoints")]
    pub store: StoreKind,
    /// Client addresses of an etcd cluster that holds the database, https://host:2379; an SQLite file otherwise.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "URL",
        requires = "etcd_ca_file",
        requires = "etcd_cert_file",
        requires = "etcd_key_file"
    )]
    pub etcd_endpoints: Vec<String>,
    /// The authority (PEM) of the etcd members' certificates.
    #[arg(long, value_name = "FILE", requires = "etcd_endpoints")]
    pub etcd_ca_file: Option<PathBuf>,
    /// The certificate (PEM) that etcd knows this control plane by.
    #[arg(long, value_name = "FILE", requires = "etcd_endpoints")]
    pub etcd_cert_file: Option<PathBuf>,
    /// The key (PEM) of that certificate.
    #[arg(long, value_name = "FILE", requires = "etcd_endpoints")]
    pub etcd_key_file: Option<PathBuf>,
    /// More names and addresses for the API server's certificate.
    #[arg(long, visible_alias = "apiserver-cert-extra-sans", value_delimiter = ',', value_name = "NAME")]
    pub extra_sans: Vec<String>,
    /// Name of this node; the host name otherwise.
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Addresses of pods.
    #[arg(long, value_name = "CIDR")]
    pub pod_network_cidr: Option<String>,
    /// Addresses of Services.
    #[arg(long, value_name = "CIDR")]
    pub service_cidr: Option<String>,
    /// Domain of cluster DNS.
    #[arg(long, value_name = "DOMAIN")]
    pub service_dns_domain: Option<String>,
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
    /// The first bootstrap token; a random one otherwise.
    #[arg(long)]
    pub token: Option<BootstrapToken>,
    /// Only check and say what would be done.
    #[arg(long)]
    pub dry_run: bool,
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: Output,
}

/// Makes the cluster, or goes on making it.
pub async fn run(args: Args) -> Result<()> {
    let progress = Progress::new(args.output);
    let file = args.config.clone().unwrap_or_else(default_file);
    let before = config::load(file.exists().then_some(file.as_path()))?;
    let (address, why) = address(&args, &before)?;
    let chosen = choose(&args, address);
    let text = chosen.text("keelson init");
    let there = file.exists().then_some(file.as_path());
    let chosen_store = etcd_choices(&args, &before);
    let chosen_store = chosen_store.map(|chosen| chosen.text("keelson init"));
    let mut chosen_texts = vec![(INIT, text.as_str())];
    chosen_texts.extend(chosen_store.as_deref().map(|text| (handover::STORE, text)));
    let config = config::load_with(there, &chosen_texts)?;
    let node = node::identify(&config.node)?;
    progress.say(&format!("node {} at {address} ({why})", node.name));
    let units: &[&str] = match (args.mode, args.store) {
        (Mode::AllInOne, StoreKind::Sqlite) => &[units::ALL_IN_ONE],
        (Mode::AllInOne, StoreKind::Etcd) => bail!("--store etcd goes with --mode units"),
        (Mode::Units, StoreKind::Sqlite) => &[units::CONTROL_PLANE, units::KUBELET, units::PROXY],
        (Mode::Units, StoreKind::Etcd) => &[units::CONTROL_PLANE, units::KUBELET, units::PROXY, units::ETCD],
    };
    let running = units.iter().any(|unit| units::started(unit));
    let findings = checks::preflight(&config, Role::ControlPlane, address, running).await;
    checks::judge(&findings, &args.ignore_preflight_errors, progress)?;
    refuse_other(&config, args.mode)?;
    registries::check(&config.registries)?;
    if args.store == StoreKind::Etcd {
        etcd::check().await?;
    }
    if let Some(named) = etcd::named(&config) {
        etcd::check_named(&config, named).await?;
    }
    if args.dry_run {
        return plan(&file, &chosen_texts, &config, &node, units);
    }
    let ledger = Ledger::of(&config.paths.state);
    alone::ensure(node.address)?;
    let changed = progress.step("writing the configuration", || write_config(&ledger, &file, INIT, &text))?;
    if args.store == StoreKind::Etcd && !etcd::folder(&config).join("etcd.yaml").exists() {
        progress.step("preparing etcd", || {
            keelson_pki::ensure_dir(&config.paths.state, 0o755)?;
            etcd::first(&config, &node)
        })?;
    }
    let named = args.store == StoreKind::Etcd || !args.etcd_endpoints.is_empty();
    let config = match config.etcd.as_ref().filter(|_| named) {
        Some(named) => progress.step("taking over the certificates for etcd", || {
            let store = handover::adopt(&config.paths.pki(), named, "keelson init")?;
            write_config(&ledger, &file, handover::STORE, &store)?;
            Ok(config::load(Some(&file))?)
        })?,
        None => config,
    };
    progress.step("making keys and certificates", || make_pki(&config, &node, args.mode))?;
    progress.step("agreeing with containerd", || agree_with_runtime(&ledger, &config))?;
    open_firewall(&ledger, &config, &node, true, progress)?;
    progress.step("starting the units", || units::start(&ledger, units, changed))?;
    let client = progress
        .wait("waiting for the API server", until(COMES_UP, || api(&config)))
        .await
        .with_context(|| failed(units[0]))?;
    progress
        .wait("waiting until the node is Ready", until(COMES_UP, || ready(&client, &node.name)))
        .await
        .with_context(|| failed(units[units.len().min(2) - 1]))?;
    mark_control_plane(&client, &node.name).await?;
    let wanted = token::NewToken {
        token: args.token.clone(),
        description: "The first token, made by `keelson init`.".to_owned(),
        ..token::NewToken::default()
    };
    let token = token::create(&client, &wanted).await?;
    let join = token::join_command(&client, &token, None).await?;
    result(&config, &node, &join, args.output)
}

/// The configuration file that is read when none is named.
pub fn default_file() -> PathBuf {
    Path::new(keelson_base::consts::CONFIG_DIR).join("config.yaml")
}

/// What a unit that did not come up said.
pub fn failed(unit: &str) -> String {
    let words = units::last_words(unit);
    let said = if words.is_empty() { String::new() } else { format!("\nits last words:\n{words}\n") };
    format!(
        "{unit} did not get ready.{said}`journalctl -u {unit}` says more; the same command goes on from here"
    )
}

fn address(args: &Args, config: &Config) -> Result<(IpAddr, String)> {
    if let Some(address) = args.apiserver_advertise_address {
        return Ok((address, "given by --apiserver-advertise-address".into()));
    }
    if let Some(address) = config.node.address {
        return Ok((address, "given by node.address".into()));
    }
    let all = machine::addresses();
    if all.is_empty() && !machine::has_network_device() {
        return Ok((
            alone::ADDRESS,
            "this machine has no network device; the address is one that only it knows".into(),
        ));
    }
    machine::choose_address(node::default_address().ok(), &all)
        .map_err(|why| anyhow::anyhow!("{why}. Say which one with --apiserver-advertise-address IP"))
}

fn choose(args: &Args, address: IpAddr) -> Chosen {
    let mut chosen = Chosen::default();
    chosen.set("node.address", address.to_string());
    chosen.set_some("node.name", args.node_name.clone());
    if !args.extra_sans.is_empty() {
        chosen.set("apiServer.extraSans", args.extra_sans.clone());
    }
    chosen.set_some("apiServer.bind", args.apiserver_bind_port.map(|port| format!("0.0.0.0:{port}")));
    chosen.set_some("network.podCidr", args.pod_network_cidr.clone());
    chosen.set_some("network.serviceCidr", args.service_cidr.clone());
    chosen.set_some("network.clusterDomain", args.service_dns_domain.clone());
    runtime_choices(&mut chosen, args.cri_socket.as_deref());
    args.registries.choose(&mut chosen);
    chosen.set_some("node.firewall", args.leave_firewall.then_some("leave"));
    chosen
}

/// How etcd is reached, as the flags say; `None` where they say nothing.
fn etcd_choices(args: &Args, before: &Config) -> Option<Chosen> {
    let mut chosen = Chosen::default();
    if args.store == StoreKind::Etcd {
        chosen.set("etcd.endpoints", vec![etcd::own_endpoint()]);
        for (key, name) in
            [("caFile", "etcd-ca.crt"), ("certFile", "etcd-client.crt"), ("keyFile", "etcd-client.key")]
        {
            let path = before.paths.pki().join(name);
            chosen.set(&format!("etcd.{key}"), path.to_string_lossy().into_owned());
        }
        return Some(chosen);
    }
    if args.etcd_endpoints.is_empty() {
        return None;
    }
    chosen.set("etcd.endpoints", args.etcd_endpoints.clone());
    let files = [
        ("caFile", &args.etcd_ca_file),
        ("certFile", &args.etcd_cert_file),
        ("keyFile", &args.etcd_key_file),
    ];
    for (key, path) in files {
        let path = path.as_ref().map(|path| std::path::absolute(path).unwrap_or(path.clone()));
        chosen.set_some(&format!("etcd.{key}"), path.map(|path| path.to_string_lossy().into_owned()));
    }
    Some(chosen)
}

/// What follows from the runtime: its socket, its folders, its cgroup driver.
pub fn runtime_choices(chosen: &mut Chosen, socket: Option<&Path>) {
    chosen.set_some("kubelet.criSocket", socket.map(|path| path.to_string_lossy().into_owned()));
    let Ok(effective) = containerd::Effective::read() else { return };
    let (bin, conf) = effective.cni();
    chosen.set("proxy.cniBinDir", bin.to_string_lossy().into_owned());
    chosen.set("proxy.cniConfDir", conf.to_string_lossy().into_owned());
    chosen.set("kubelet.cgroupDriver", if effective.systemd_cgroup() { "systemd" } else { "cgroupfs" });
}

/// A machine that is part of a cluster already is not made into another.
fn refuse_other(config: &Config, mode: Mode) -> Result<()> {
    let files = NodeFiles::of(config);
    let authority = config.paths.pki().join("ca.key").exists();
    if !authority && (files.kubelet.exists() || files.bootstrap.exists()) {
        bail!(
            "this machine has joined a cluster; `keelson reset --yes` takes it out before it can become one of its own"
        );
    }
    let other = if mode == Mode::Units { units::ALL_IN_ONE } else { units::CONTROL_PLANE };
    if units::started(other) {
        bail!("{other} runs on this machine; give --mode as before, or run `keelson reset --yes` first");
    }
    Ok(())
}

fn plan(
    file: &Path,
    texts: &[(&str, &str)],
    config: &Config,
    node: &NodeIdentity,
    units: &[&str],
) -> Result<()> {
    for (name, text) in texts {
        println!("would write {}:\n{text}", dropin::place(file, name).display());
    }
    println!("would make the cluster's keys and certificates in {}", config.paths.pki().display());
    println!("would make containerd use the image {} for pods, and import it", containerd::PAUSE);
    println!("would link the CNI plugin into {}", config.proxy.cni_bin_dir.display());
    for line in firewall::would(config, node.address, true) {
        println!("{line}");
    }
    println!("would enable and start {}", units.join(", "));
    Ok(())
}

/// Where a firewall is on, and not to be left: tells it what to let through.
pub fn open_firewall(
    ledger: &Ledger,
    config: &Config,
    node: &NodeIdentity,
    control_plane: bool,
    progress: Progress,
) -> Result<()> {
    if config.node.firewall == config::Firewall::Leave || firewall::active().is_empty() {
        return Ok(());
    }
    let needs = firewall::Needs::of(config, node.address, control_plane);
    progress.step("telling the firewall what to let through", || firewall::open(ledger, &needs))
}

/// Writes the drop-in, and a configuration file to hang it on where there is none.
/// Whether anything changed.
pub fn write_config(ledger: &Ledger, file: &Path, name: &str, text: &str) -> Result<bool> {
    sealed::check(&dropin::place(file, name))?;
    if !file.exists() {
        ledger.write(file, crate::print_config::text().as_bytes(), 0o644)?;
    }
    ledger.write(&dropin::place(file, name), text.as_bytes(), 0o644)
}

/// Sandbox image and CNI plugin.
pub fn agree_with_runtime(ledger: &Ledger, config: &Config) -> Result<()> {
    containerd::link_plugins(ledger, &config.proxy.cni_bin_dir)?;
    // The proxy's unit may write there, and to little else: the folders must be there before it starts.
    ledger.folder(&config.proxy.cni_conf_dir)?;
    units::let_proxy_write(ledger, &config.proxy.cni_conf_dir)?;
    keelson_pki::ensure_dir(&config.paths.cni(), 0o755)?;
    let (state, socket) = (&config.paths.state, &config.kubelet.cri_socket);
    containerd::configure(ledger, state, socket, &config.registries).map(drop)
}

/// Keys and certificates; with units of their own, the kubelet's and the proxy's identities, and the folders' owner.
pub fn make_pki(config: &Config, node: &NodeIdentity, mode: Mode) -> Result<()> {
    keelson_pki::ensure_dir(&config.paths.state, 0o755)?;
    let clock = Clock::system();
    let params = control_plane::pki_params(config, node, &clock)?;
    let pki = ClusterPki::ensure(&config.paths.pki(), &params)
        .context("the cluster's certificates cannot be made")?;
    let admin = control_plane::admin_file(config);
    let local = control_plane::local_endpoint(config);
    pki.write_kubeconfig(&admin, &local, "keelson-admin", &pki.admin)?;
    control_plane::link_admin(config)?;
    if mode == Mode::AllInOne {
        return Ok(());
    }
    let files = NodeFiles::of(config);
    let ca_pem = pki.ca.certificate_pem().to_owned();
    // One of several: its node reaches the others when its own API server is away.
    let server = match config.etcd.is_some() {
        true => {
            let own = SocketAddr::new(node.address, config.api_server.bind.port());
            balancer::adopt(config, &[own], &ca_pem)?;
            balancer::server()
        }
        false => local,
    };
    let cluster = Identity { server, ca_pem, cert_pem: String::new() };
    let issued =
        |who: &keelson_pki::Identity| Issued { cert_pem: who.cert_pem.clone(), key_pem: who.key_pem.clone() };
    if !files.kubelet.exists() {
        let user = format!("{}{}", identity::NODE_USER_PREFIX, node.name);
        certs::write_kubeconfig(&files.kubelet, &cluster, &user, &issued(&pki.node))?;
    }
    if !files.proxy.exists() {
        certs::write_kubeconfig(&files.proxy, &cluster, identity::PROXY, &issued(&pki.proxy))?;
    }
    if !files.serving_cert().exists() {
        node_certs::ensure_serving(config, node, &clock)?;
        node_certs::write_serving(&files, &issued(&pki.node_serving))?;
    }
    let Some(user) = nix::unistd::User::from_name(USER)? else {
        bail!(
            "there is no user {USER} for the control plane; install the package keelson, or run `systemd-sysusers` with \
             its file"
        );
    };
    keelson_pki::ensure_dir(&config.paths.database(), 0o700)?;
    keelson_pki::ensure_dir(&config.snapshots.folder, 0o700)?;
    // Root's to fill, the control plane's to read.
    keelson_pki::ensure_dir(&config.api_server.manifests, 0o755)?;
    for folder in [config.paths.pki(), config.paths.database(), config.snapshots.folder.clone()] {
        give(&folder, user.uid.as_raw(), user.gid.as_raw())?;
    }
    Ok(())
}

/// The control plane's user.
pub const USER: &str = "keelson";

/// Gives a folder and the files in it to a user.
pub fn give(folder: &Path, uid: u32, gid: u32) -> Result<()> {
    let chown = |path: &Path| {
        std::os::unix::fs::lchown(path, Some(uid), Some(gid))
            .with_context(|| format!("cannot give {} to the control plane's user", path.display()))
    };
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            give(&entry.path(), uid, gid)?;
        } else {
            chown(&entry.path())?;
        }
    }
    chown(folder)
}

pub async fn api(config: &Config) -> Result<kube::Client> {
    let client = super::admin(config, None).await?;
    client.apiserver_version().await.context("the API server does not answer yet")?;
    Ok(client)
}

/// An error unless the node is Ready.
pub async fn ready(client: &kube::Client, name: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = nodes.get_opt(name).await?.context("the node has not registered yet")?;
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    match conditions.into_iter().find(|condition| condition.type_ == "Ready") {
        Some(condition) if condition.status == "True" => Ok(()),
        Some(condition) => bail!("the node is not Ready: {}", condition.message.unwrap_or_default()),
        None => bail!("the node has not said yet whether it is Ready"),
    }
}

/// Gives a control plane's node its role, as kubeadm does: `kubectl get nodes` shows it. Its kubelet may not.
pub async fn mark_control_plane(client: &kube::Client, name: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let role = Patch::Merge(json!({"metadata": {"labels": {node_labels::CONTROL_PLANE: ""}}}));
    let marked = nodes.patch(name, &PatchParams::default(), &role).await;
    marked.map(drop).context("the node cannot be given its role")
}

fn result(config: &Config, node: &NodeIdentity, join: &str, output: Output) -> Result<()> {
    let kubeconfig = config.paths.kubeconfig("admin");
    if output == Output::Json {
        let result = serde_json::json!({"node": node.name, "address": node.address.to_string(),
            "kubeconfig": kubeconfig, "joinCommand": join});
        println!("{}", serde_json::to_string_pretty(&result)?);
        return Ok(());
    }
    println!(
        "\nThe cluster runs. Use it:\n  export KUBECONFIG={}\nLet another machine join (the token holds for a day; \
         `keelson token create` makes another):\n  {join}",
        kubeconfig.display()
    );
    Ok(())
}
