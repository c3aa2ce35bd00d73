//! Configuration `keelson/v1`: one YAML file plus drop-ins, read raw, then checked.
//!
//! [`load`] reads `FILE` and the files of `FILE.d/*.yaml` in name order; a later file's keys win. Unknown keys are
//! refused with the nearest valid one. [`Config`] holds only checked values.

pub use crate::config_keys::{KEYS, Key};
use crate::config_keys::{known, nearest};
use crate::telemetry::LogFormat;
use keelson_base::cidr::Cidr;
use keelson_base::consts::{self, node_labels};
use keelson_base::gates::Gates;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read configuration {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("configuration {path} is no valid YAML: {reason}")]
    Syntax { path: PathBuf, reason: String },
    #[error("configuration {path}: unknown key {key:?}{hint}", hint = hint(.nearest))]
    UnknownKey { path: PathBuf, key: String, nearest: Option<&'static str> },
    #[error("configuration: {key} {reason}")]
    Value { key: &'static str, reason: String },
    #[error("configuration: {0}")]
    Shape(String),
}

fn hint(nearest: &Option<&'static str>) -> String {
    nearest.map(|key| format!("; did you mean {key:?}?")).unwrap_or_default()
}

/// The file as written, every value optional in YAML.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct RawConfig {
    pub api_version: String,
    pub kind: String,
    pub node: RawNode,
    pub paths: RawPaths,
    pub api_server: RawApiServer,
    pub etcd: RawEtcd,
    pub snapshots: RawSnapshots,
    pub certificates: RawCertificates,
    pub registries: RawRegistries,
    pub network: RawNetwork,
    pub kubelet: RawKubelet,
    pub proxy: RawProxy,
    pub dns: RawDns,
    pub log: RawLog,
}

macro_rules! raw {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Serialize, Deserialize)]
        #[serde(default, rename_all = "camelCase", deny_unknown_fields)]
        pub struct $name { $(pub $field: Option<$ty>),* }
    };
}

raw!(/** Section `node`. */ RawNode { name: String, address: String, labels: BTreeMap<String, String>, taints: Vec<String>, firewall: String });
raw!(/** Section `paths`. */ RawPaths { state: PathBuf, pki: PathBuf, pod_logs: PathBuf });
raw!(/** Section `apiServer`. */ RawApiServer { bind: String, extra_sans: Vec<String>, feature_gates: BTreeMap<String, bool>, history_retention: String, manifests: PathBuf });
raw!(/** Section `etcd`. */ RawEtcd { endpoints: Vec<String>, ca_file: PathBuf, cert_file: PathBuf, key_file: PathBuf });
raw!(/** Section `snapshots`. */ RawSnapshots { folder: PathBuf, every: String, keep: u32 });
raw!(/** Section `certificates`. */ RawCertificates { life: String });
raw!(/** Section `registries`. */ RawRegistries { mirrors: BTreeMap<String, Vec<String>>, ca_file: PathBuf });
raw!(/** Section `network`. */ RawNetwork { pod_cidr: String, service_cidr: String, cluster_domain: String, dns_address: String, node_ports: String, tunnel: String });
raw!(/** Section `kubelet`. */ RawKubelet { cri_socket: PathBuf, cgroup_driver: String, cgroup_root: String, bind: String, max_pods: u32, static_pods: PathBuf, image_archives: PathBuf, image_gc_high_percent: u8, image_gc_low_percent: u8 });
raw!(/** Section `proxy`. */ RawProxy { cni_conf_dir: PathBuf, cni_bin_dir: PathBuf });
raw!(/** Section `dns`. */ RawDns { upstreams: Vec<String> });
raw!(/** Section `log`. */ RawLog { filter: String, format: String });

/// The checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub node: NodeConfig,
    pub paths: Paths,
    pub api_server: ApiServerSection,
    /// `None`: the database is an SQLite file.
    pub etcd: Option<EtcdSection>,
    pub snapshots: SnapshotsSection,
    pub certificates: CertificatesSection,
    pub registries: RegistriesSection,
    pub network: NetworkSection,
    pub kubelet: KubeletSection,
    pub proxy: ProxySection,
    pub dns: DnsSection,
    pub log: LogSection,
}

/// Who this machine is in the cluster.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// A DNS-1123 subdomain; `None`: take the host name.
    pub name: Option<String>,
    /// `None`: take the address towards the default route.
    pub address: Option<IpAddr>,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub firewall: Firewall,
}

/// What is done with a firewall of the machine's (firewalld, ufw) that is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firewall {
    /// It is told to let through what the cluster needs.
    Open,
    /// Nothing: the administrator tells it.
    Leave,
}

/// A taint as `key=value:Effect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    pub key: String,
    pub value: Option<String>,
    pub effect: String,
}

/// Folders; those below `state` are derived, so that a cluster lives in one folder.
#[derive(Clone, Debug)]
pub struct Paths {
    pub state: PathBuf,
    pub pki: PathBuf,
    pub pod_logs: PathBuf,
}

impl Paths {
    /// Keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.pki.clone()
    }

    /// The database's folder.
    pub fn database(&self) -> PathBuf {
        self.state.join("db")
    }

    /// Kubeconfig files, `admin.conf` among them.
    pub fn kubeconfig(&self, name: &str) -> PathBuf {
        self.state.join(format!("{name}.conf"))
    }

    /// The kubelet's root folder (upstream's /var/lib/kubelet).
    pub fn kubelet(&self) -> PathBuf {
        self.state.join("kubelet")
    }

    /// State of the CNI plugin: address leases, host ports.
    pub fn cni(&self) -> PathBuf {
        self.state.join("cni")
    }
}

/// Section `apiServer`, checked.
#[derive(Clone, Debug)]
pub struct ApiServerSection {
    pub bind: SocketAddr,
    pub extra_sans: Vec<String>,
    pub gates: Gates,
    pub history_retention: Duration,
    /// Manifests that are applied and kept in step.
    pub manifests: PathBuf,
}

/// Section `etcd`, checked: how the cluster that holds the database is reached.
#[derive(Clone, Debug)]
pub struct EtcdSection {
    /// `https` addresses, at least one.
    pub endpoints: Vec<String>,
    pub ca_file: PathBuf,
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

/// Section `snapshots`, checked.
#[derive(Clone, Debug)]
pub struct SnapshotsSection {
    pub folder: PathBuf,
    /// `None`: none are taken without being asked for.
    pub every: Option<Duration>,
    /// At least one.
    pub keep: usize,
}

/// Section `certificates`, checked.
#[derive(Clone, Debug)]
pub struct CertificatesSection {
    /// How long what this control plane issues lives, for itself and for nodes.
    pub life: Duration,
}

/// Section `registries`, checked: where images come from in place of the registries they name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistriesSection {
    /// `https` or `http` addresses by a registry's name; `*`: of all that have none of their own.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// The authority (PEM) of the mirrors' certificates; the machine's own ones otherwise.
    pub ca_file: Option<PathBuf>,
}

/// Section `network`, checked.
#[derive(Clone, Debug)]
pub struct NetworkSection {
    pub pod_cidr: Cidr,
    pub service_cidr: Cidr,
    pub cluster_domain: String,
    pub dns_address: IpAddr,
    /// First and last node port.
    pub node_ports: (u16, u16),
    pub tunnel: Tunnel,
}

/// Which other nodes' pods are reached through a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// Those of nodes that share no link with this one.
    Auto,
    /// All, for networks that carry only the nodes' own addresses.
    Always,
    /// None: somebody else's routes lead there.
    Never,
}

impl Tunnel {
    /// As it stands in the file.
    pub fn name(self) -> &'static str {
        match self {
            Tunnel::Auto => "auto",
            Tunnel::Always => "always",
            Tunnel::Never => "never",
        }
    }
}

/// Which program manages pod cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupDriver {
    Auto,
    Cgroupfs,
    Systemd,
}

/// Section `kubelet`, checked.
#[derive(Clone, Debug)]
pub struct KubeletSection {
    pub cri_socket: PathBuf,
    pub cgroup_driver: CgroupDriver,
    pub cgroup_root: String,
    pub bind: SocketAddr,
    pub max_pods: u32,
    pub static_pods: PathBuf,
    /// Archives of images that are imported and pinned.
    pub image_archives: PathBuf,
    pub image_gc_high_percent: u8,
    pub image_gc_low_percent: u8,
}

impl KubeletSection {
    /// The cgroup of all pods, without slashes at its ends: `kubepods` below `cgroupRoot`.
    pub fn pods_cgroup(&self) -> String {
        format!("{}/{}", self.cgroup_root.trim_matches('/'), consts::CGROUP_ROOT).trim_matches('/').to_owned()
    }
}

/// Section `proxy`, checked.
#[derive(Clone, Debug)]
pub struct ProxySection {
    pub cni_conf_dir: PathBuf,
    pub cni_bin_dir: PathBuf,
}

/// Section `dns`, checked.
#[derive(Clone, Debug)]
pub struct DnsSection {
    /// Empty: use the node's resolv.conf.
    pub upstreams: Vec<SocketAddr>,
}

/// Section `log`, checked.
#[derive(Clone, Debug)]
pub struct LogSection {
    pub filter: String,
    pub format: LogFormat,
}

/// Reads `file` (`None`: all defaults) and its drop-ins, and checks the result.
pub fn load(file: Option<&Path>) -> Result<Config, ConfigError> {
    load_with(file, &[])
}

/// As [`load`], as it would be with drop-ins of these names and texts: each in the place that its name has, instead of what
/// is there under it.
pub fn load_with(file: Option<&Path>, more: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut merged = Value::Object(serde_json::Map::new());
    let mut parts: Vec<(std::ffi::OsString, PathBuf, Option<&str>)> = more
        .iter()
        .map(|(name, text)| (name.into(), PathBuf::from("(to be written)"), Some(*text)))
        .collect();
    if let Some(file) = file {
        merge(&mut merged, read(file)?);
        for path in drop_ins(file)? {
            let name = path.file_name().unwrap_or_default().to_owned();
            if !more.iter().any(|(new, _)| name == *new) {
                parts.push((name, path, None));
            }
        }
    }
    parts.sort_by(|one, other| one.0.cmp(&other.0));
    for (_, path, text) in parts {
        let part = text.map_or_else(|| read(&path), |text| parse(&path, text))?;
        merge(&mut merged, part);
    }
    let raw: RawConfig =
        serde_json::from_value(merged).map_err(|error| ConfigError::Shape(error.to_string()))?;
    check(raw)
}

fn drop_ins(file: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut folder = file.as_os_str().to_owned();
    folder.push(".d");
    let folder = PathBuf::from(folder);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(ConfigError::Read { path: folder, source }),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| ConfigError::Read { path: folder.clone(), source })?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    Ok(files)
}

fn read(path: &Path) -> Result<Value, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Value, ConfigError> {
    let value: Value = serde_saphyr::from_str(text)
        .map_err(|error| ConfigError::Syntax { path: path.to_owned(), reason: error.to_string() })?;
    refuse_unknown(path, "", &value)?;
    let stated = value.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    if !value.is_null() && stated != consts::CONFIG_API_VERSION {
        let reason = format!("must be {:?}, not {stated:?}", consts::CONFIG_API_VERSION);
        return Err(ConfigError::Value { key: "apiVersion", reason });
    }
    Ok(value)
}

fn refuse_unknown(file: &Path, at: &str, value: &Value) -> Result<(), ConfigError> {
    let Value::Object(map) = value else { return Ok(()) };
    // Below a key (labels, feature gates) the user's own names begin.
    if KEYS.iter().any(|key| key.path == at) {
        return Ok(());
    }
    for (name, below) in map {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        if !known(&path) {
            let nearest = nearest(&path);
            return Err(ConfigError::UnknownKey { path: file.to_owned(), key: path, nearest });
        }
        refuse_unknown(file, &path, below)?;
    }
    Ok(())
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (into, from) => *into = from,
    }
}

/// Turns raw values into checked ones; the error names the key and what is wrong with it.
pub fn check(raw: RawConfig) -> Result<Config, ConfigError> {
    let state = raw.paths.state.unwrap_or_else(|| consts::STATE_DIR.into());
    absolute("paths.state", &state)?;
    raw.paths.pki.as_deref().map_or(Ok(()), |path| absolute("paths.pki", path))?;
    let network = check_network(raw.network)?;
    let format = match raw.log.format.as_deref() {
        None | Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => return Err(value("log.format", format!("must be text or json, not {other:?}"))),
    };
    Ok(Config {
        node: check_node(raw.node)?,
        kubelet: check_kubelet(raw.kubelet, &state)?,
        snapshots: check_snapshots(raw.snapshots, &state)?,
        certificates: check_certificates(raw.certificates)?,
        registries: check_registries(raw.registries)?,
        paths: Paths {
            pki: raw.paths.pki.unwrap_or_else(|| state.join("pki")),
            state: state.clone(),
            pod_logs: raw.paths.pod_logs.unwrap_or_else(|| consts::POD_LOGS_DIR.into()),
        },
        etcd: check_etcd(raw.etcd)?,
        api_server: check_api_server(raw.api_server, &state)?,
        network,
        proxy: ProxySection {
            cni_conf_dir: raw.proxy.cni_conf_dir.unwrap_or_else(|| consts::CNI_CONF_DIR.into()),
            cni_bin_dir: raw.proxy.cni_bin_dir.unwrap_or_else(|| consts::CNI_BIN_DIR.into()),
        },
        dns: check_dns(raw.dns)?,
        log: LogSection { filter: raw.log.filter.unwrap_or_else(|| "info".into()), format },
    })
}

fn value(key: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Value { key, reason: reason.into() }
}

fn absolute(key: &'static str, path: &Path) -> Result<(), ConfigError> {
    if path.is_absolute() { Ok(()) } else { Err(value(key, format!("must be absolute, not {path:?}"))) }
}

fn parsed<T: std::str::FromStr>(key: &'static str, text: &str, what: &str) -> Result<T, ConfigError> {
    text.parse().map_err(|_| value(key, format!("must be {what}, not {text:?}")))
}

fn check_node(raw: RawNode) -> Result<NodeConfig, ConfigError> {
    if let Some(name) = &raw.name
        && !is_dns_subdomain(name)
    {
        return Err(value(
            "node.name",
            format!("must be lower-case letters, digits, '-' and '.', at most 253, not {name:?}"),
        ));
    }
    let address = raw.address.map(|text| parsed("node.address", &text, "an IP address")).transpose()?;
    let taints = raw.taints.unwrap_or_default().iter().map(|text| taint(text)).collect::<Result<_, _>>()?;
    let firewall = match raw.firewall.as_deref() {
        None | Some("open") => Firewall::Open,
        Some("leave") => Firewall::Leave,
        Some(other) => return Err(value("node.firewall", format!("must be open or leave, not {other:?}"))),
    };
    let labels = raw.labels.unwrap_or_default();
    for (key, text) in &labels {
        label(key, text, raw.name.as_deref())?;
    }
    Ok(NodeConfig { name: raw.name, address, labels, taints, firewall })
}

/// A label that a kubelet may give its node.
fn label(key: &str, text: &str, node: Option<&str>) -> Result<(), ConfigError> {
    let (namespace, name) = key.rsplit_once('/').map_or((None, key), |(left, name)| (Some(left), name));
    if !is_label_text(name) || name.is_empty() || !namespace.is_none_or(is_dns_subdomain) {
        return Err(value("node.labels", format!("holds {key:?}, which is no name of a label")));
    }
    if !is_label_text(text) {
        return Err(value("node.labels", format!("gives {key} the value {text:?}, which no label may have")));
    }
    if !node_labels::is_kubelets(key) {
        return Err(value(
            "node.labels",
            format!(
                "holds {key}, which no node may give itself. Leave it out; when the node has joined, `kubectl label node {} \
                 {key}={text}` gives it",
                node.unwrap_or("NAME")
            ),
        ));
    }
    Ok(())
}

/// The second half of a label's name, or a label's value: which may be empty.
fn is_label_text(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    text.len() <= 63 && bytes.iter().all(inside) && edge(bytes.first()) && edge(bytes.last())
}

fn is_dns_subdomain(name: &str) -> bool {
    let label = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn taint(text: &str) -> Result<Taint, ConfigError> {
    let bad = || value("node.taints", format!("must be key=value:Effect or key:Effect, not {text:?}"));
    let (left, effect) = text.rsplit_once(':').ok_or_else(bad)?;
    if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err(value(
            "node.taints",
            format!("has effect {effect:?}; it must be NoSchedule, PreferNoSchedule or NoExecute"),
        ));
    }
    let (key, taint_value) = match left.split_once('=') {
        Some((key, taint_value)) => (key, Some(taint_value.to_owned())),
        None => (left, None),
    };
    if key.is_empty() {
        return Err(bad());
    }
    Ok(Taint { key: key.to_owned(), value: taint_value, effect: effect.to_owned() })
}

fn check_api_server(raw: RawApiServer, state: &Path) -> Result<ApiServerSection, ConfigError> {
    let bind = raw.bind.unwrap_or_else(|| format!("0.0.0.0:{}", consts::API_PORT));
    let mut gates = Gates::default();
    for (name, on) in raw.feature_gates.unwrap_or_default() {
        gates.set(&name, on).map_err(|error| value("apiServer.featureGates", format!("refused: {error}")))?;
    }
    let retention = raw.history_retention.unwrap_or_else(|| "5m".into());
    Ok(ApiServerSection {
        bind: parsed("apiServer.bind", &bind, "address:port")?,
        extra_sans: raw.extra_sans.unwrap_or_default(),
        gates,
        history_retention: duration("apiServer.historyRetention", &retention)?,
        manifests: raw.manifests.unwrap_or_else(|| state.join("addons")),
    })
}

fn check_etcd(raw: RawEtcd) -> Result<Option<EtcdSection>, ConfigError> {
    let endpoints = raw.endpoints.unwrap_or_default();
    let files =
        [("etcd.caFile", raw.ca_file), ("etcd.certFile", raw.cert_file), ("etcd.keyFile", raw.key_file)];
    if endpoints.is_empty() {
        return match files.into_iter().find(|(_, file)| file.is_some()) {
            Some((key, _)) => Err(value(key, "is of no use without etcd.endpoints")),
            None => Ok(None),
        };
    }
    for endpoint in &endpoints {
        let host = endpoint.strip_prefix("https://").unwrap_or_default();
        let port = host.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(_))) || host.contains('/') {
            return Err(value("etcd.endpoints", format!("must be https://host:port each, not {endpoint:?}")));
        }
    }
    let [ca_file, cert_file, key_file] = files.map(|(key, file)| {
        let file = file.ok_or_else(|| value(key, "is needed with etcd.endpoints"))?;
        absolute(key, &file).map(|()| file)
    });
    Ok(Some(EtcdSection { endpoints, ca_file: ca_file?, cert_file: cert_file?, key_file: key_file? }))
}

fn check_snapshots(raw: RawSnapshots, state: &Path) -> Result<SnapshotsSection, ConfigError> {
    let folder = raw.folder.unwrap_or_else(|| state.join("snapshots"));
    absolute("snapshots.folder", &folder)?;
    let every = match raw.every.as_deref().unwrap_or("24h") {
        "0" => None,
        text => Some(duration("snapshots.every", text)?),
    };
    let keep = raw.keep.unwrap_or(7) as usize;
    if keep == 0 {
        return Err(value("snapshots.keep", "must be at least 1; snapshots.every: \"0\" takes none"));
    }
    Ok(SnapshotsSection { folder, every, keep })
}

/// The shortest life of certificates: they are renewed after a third of it, which takes a moment.
const SHORTEST_LIFE: Duration = Duration::from_secs(120);
/// The longest: the authorities themselves live thirty years.
const LONGEST_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);

fn check_certificates(raw: RawCertificates) -> Result<CertificatesSection, ConfigError> {
    let text = raw.life.unwrap_or_else(|| "8760h".into());
    let life = duration("certificates.life", &text)?;
    if !(SHORTEST_LIFE..=LONGEST_LIFE).contains(&life) {
        return Err(value("certificates.life", format!("must be 2m to 87600h, not {text:?}")));
    }
    Ok(CertificatesSection { life })
}

fn check_registries(raw: RawRegistries) -> Result<RegistriesSection, ConfigError> {
    const KEY: &str = "registries.mirrors";
    let mirrors = raw.mirrors.unwrap_or_default();
    let named = |text: &str, more: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.as_bytes().contains(&b))
    };
    for (registry, urls) in &mirrors {
        if registry != "*" && (!named(registry, ".-:") || registry.starts_with('.')) {
            return Err(value(KEY, format!("must name registries such as docker.io or *, not {registry:?}")));
        }
        for url in urls {
            let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
            if !rest.is_some_and(|rest| named(rest, ".-_:/[]")) {
                return Err(value(KEY, format!("must be https://host:port each, not {url:?}")));
            }
        }
        if urls.is_empty() {
            return Err(value(KEY, format!("name no mirror of {registry}")));
        }
    }
    match &raw.ca_file {
        Some(path) => absolute("registries.caFile", path)?,
        None => return Ok(RegistriesSection { mirrors, ca_file: None }),
    }
    if mirrors.is_empty() {
        return Err(value("registries.caFile", "is of no use without registries.mirrors"));
    }
    Ok(RegistriesSection { mirrors, ca_file: raw.ca_file })
}

fn duration(key: &'static str, text: &str) -> Result<Duration, ConfigError> {
    let bad = || value(key, format!("must be a duration such as 90s, 5m or 1h, not {text:?}"));
    let duration = duration_of(text).ok_or_else(bad)?;
    if duration.is_zero() {
        return Err(value(key, "must be longer than nothing"));
    }
    Ok(duration)
}

/// A duration such as 90s, 5m or 1h.
pub fn duration_of(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..split].parse().ok()?;
    let seconds = match &text[split..] {
        "s" => number,
        "m" => number.checked_mul(60)?,
        "h" => number.checked_mul(3600)?,
        _ => return None,
    };
    Some(Duration::from_secs(seconds))
}

fn check_network(raw: RawNetwork) -> Result<NetworkSection, ConfigError> {
    let cidr = |key: &'static str, text: Option<String>, default: &str| -> Result<Cidr, ConfigError> {
        text.as_deref().unwrap_or(default).parse().map_err(|error| value(key, format!("is refused: {error}")))
    };
    let pod_cidr = cidr("network.podCidr", raw.pod_cidr, consts::POD_CIDR)?;
    let service_cidr = cidr("network.serviceCidr", raw.service_cidr, consts::SERVICE_CIDR)?;
    if pod_cidr.overlaps(&service_cidr) {
        return Err(value(
            "network.podCidr",
            format!("{pod_cidr} overlaps network.serviceCidr {service_cidr}; choose ranges apart"),
        ));
    }
    let dns_address = match raw.dns_address {
        Some(text) => parsed("network.dnsAddress", &text, "an IP address")?,
        None => {
            service_cidr.nth(10).ok_or_else(|| value("network.serviceCidr", "has fewer than 11 addresses"))?
        }
    };
    if !service_cidr.contains(dns_address) {
        return Err(value(
            "network.dnsAddress",
            format!("{dns_address} is not in serviceCidr {service_cidr}"),
        ));
    }
    let (first, last) = consts::NODE_PORT_RANGE;
    let node_ports = raw.node_ports.unwrap_or_else(|| format!("{first}-{last}"));
    let bad = || value("network.nodePorts", format!("must be first-last, not {node_ports:?}"));
    let (first, last) = node_ports.split_once('-').ok_or_else(bad)?;
    let range: (u16, u16) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
    if range.0 == 0 || range.0 > range.1 {
        return Err(bad());
    }
    let cluster_domain = raw.cluster_domain.unwrap_or_else(|| consts::CLUSTER_DOMAIN.into());
    if !is_dns_subdomain(&cluster_domain) {
        return Err(value("network.clusterDomain", format!("must be a DNS name, not {cluster_domain:?}")));
    }
    let tunnel = match raw.tunnel.as_deref() {
        None | Some("auto") => Tunnel::Auto,
        Some("always") => Tunnel::Always,
        Some("never") => Tunnel::Never,
        Some(other) => {
            return Err(value("network.tunnel", format!("must be auto, always or never, not {other:?}")));
        }
    };
    Ok(NetworkSection { pod_cidr, service_cidr, cluster_domain, dns_address, node_ports: range, tunnel })
}

fn check_kubelet(raw: RawKubelet, state: &Path) -> Result<KubeletSection, ConfigError> {
    let cgroup_driver = match raw.cgroup_driver.as_deref() {
        None | Some("auto") => CgroupDriver::Auto,
        Some("cgroupfs") => CgroupDriver::Cgroupfs,
        Some("systemd") => CgroupDriver::Systemd,
        Some(other) => {
            return Err(value(
                "kubelet.cgroupDriver",
                format!("must be auto, cgroupfs or systemd, not {other:?}"),
            ));
        }
    };
    let bind = raw.bind.unwrap_or_else(|| format!("0.0.0.0:{}", consts::KUBELET_PORT));
    let (high, low) = (raw.image_gc_high_percent.unwrap_or(85), raw.image_gc_low_percent.unwrap_or(80));
    if high > 100 || low >= high {
        return Err(value(
            "kubelet.imageGcLowPercent",
            format!("{low} must be below imageGcHighPercent {high}, both at most 100"),
        ));
    }
    let cgroup_root = raw.cgroup_root.unwrap_or_else(|| "/".into());
    if !cgroup_root.starts_with('/') || cgroup_root.split('/').any(|part| part == "." || part == "..") {
        return Err(value(
            "kubelet.cgroupRoot",
            format!("must be absolute, without . and .., not {cgroup_root:?}"),
        ));
    }
    let max_pods = raw.max_pods.unwrap_or(110);
    if max_pods == 0 || max_pods > 1000 {
        return Err(value("kubelet.maxPods", format!("must be 1 to 1000, not {max_pods}")));
    }
    Ok(KubeletSection {
        cri_socket: raw.cri_socket.unwrap_or_else(|| consts::CRI_SOCKET.into()),
        cgroup_driver,
        cgroup_root,
        bind: parsed("kubelet.bind", &bind, "address:port")?,
        max_pods,
        static_pods: raw.static_pods.unwrap_or_else(|| state.join("manifests")),
        image_archives: raw.image_archives.unwrap_or_else(|| state.join("images")),
        image_gc_high_percent: high,
        image_gc_low_percent: low,
    })
}

fn check_dns(raw: RawDns) -> Result<DnsSection, ConfigError> {
    let one = |text: &String| -> Result<SocketAddr, ConfigError> {
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(SocketAddr::new(address, consts::DNS_PORT)),
            Err(_) => parsed("dns.upstreams", text, "an IP address or address:port"),
        }
    };
    Ok(DnsSection { upstreams: raw.upstreams.unwrap_or_default().iter().map(one).collect::<Result<_, _>>()? })
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
