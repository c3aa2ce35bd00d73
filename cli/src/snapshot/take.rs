//! Taking one: all keys at one revision, page by page.

use super::file::{FORMAT, Header, SnapshotError, Writer};
use super::{KEYS, cluster};
use crate::install::dropin::Chosen;
use crate::node;
use crate::node_certs::NodeFiles;
use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use keelson_base::gates::GATES;
use keelson_daemon::config::Config;
use keelson_store::{Page, SqliteReader, Store, StoreError};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Keys of a page.
const PAGE: usize = 500;
/// How often it begins anew when the history of its revision was compacted under it.
const ATTEMPTS: usize = 5;

/// Where the objects come from.
pub enum Source {
    /// A store that is open in this process.
    Store(Arc<dyn Store>),
    /// The database file, beside the process that has it open.
    Beside(Mutex<SqliteReader>),
}

impl Source {
    pub fn beside(reader: SqliteReader) -> Source {
        Source::Beside(Mutex::new(reader))
    }

    /// The keys after `after`, at revision `at` or the newest.
    pub async fn page(&self, after: Option<&str>, at: Option<u64>) -> Result<Page, StoreError> {
        match self {
            Source::Store(store) => store.list("/", after, PAGE, at).await,
            Source::Beside(reader) => reader.lock().unwrap_or_else(PoisonError::into_inner).page(after, at),
        }
    }
}

/// What a snapshot says beside the objects.
pub struct Facts {
    pub node: String,
    cluster: String,
    mode: &'static str,
    configuration: String,
    keys: BTreeMap<String, String>,
}

impl Facts {
    /// Reads them from this machine.
    pub fn of(config: &Config) -> Result<Facts> {
        let Some(cluster) = cluster(config)? else {
            bail!(
                "this machine has no authority of a cluster in {}; snapshots are taken on a control plane",
                config.paths.pki().display()
            );
        };
        let mut keys = BTreeMap::new();
        for name in KEYS {
            let path = config.paths.pki().join(name);
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            keys.insert(name.to_owned(), text);
        }
        let mode = if NodeFiles::of(config).kubelet.exists() { "units" } else { "all-in-one" };
        Ok(Facts {
            node: node::identify(&config.node)?.name,
            cluster,
            mode,
            configuration: configuration(config),
            keys,
        })
    }
}

/// What every control plane of the cluster must have the same.
fn configuration(config: &Config) -> String {
    let (network, server) = (&config.network, &config.api_server);
    let mut chosen = Chosen::default();
    chosen.set("network.podCidr", network.pod_cidr.to_string());
    chosen.set("network.serviceCidr", network.service_cidr.to_string());
    chosen.set("network.clusterDomain", network.cluster_domain.clone());
    chosen.set("network.dnsAddress", network.dns_address.to_string());
    chosen.set("network.nodePorts", format!("{}-{}", network.node_ports.0, network.node_ports.1));
    chosen.set("network.tunnel", network.tunnel.name());
    chosen.set("apiServer.bind", server.bind.to_string());
    if !server.extra_sans.is_empty() {
        chosen.set("apiServer.extraSans", server.extra_sans.clone());
    }
    let changed = GATES.iter().filter(|gate| server.gates.enabled(gate.name) != gate.default);
    let gates: serde_json::Map<String, serde_json::Value> =
        changed.map(|gate| (gate.name.to_owned(), (!gate.default).into())).collect();
    if !gates.is_empty() {
        chosen.set("apiServer.featureGates", gates);
    }
    chosen.text("keelson snapshot restore")
}

/// What was taken.
pub struct Taken {
    pub objects: u64,
    pub revision: u64,
}

/// Writes a snapshot.
pub async fn take(source: &Source, facts: &Facts, now: Timestamp, path: &Path) -> Result<Taken> {
    for _ in 0..ATTEMPTS {
        match try_take(source, facts, now, path).await {
            Err(Failed::Store(StoreError::Compacted { .. })) => {}
            Err(Failed::Store(error)) => return Err(error).context("the database cannot be read"),
            Err(Failed::File(error)) => return Err(error.into()),
            Ok(taken) => return Ok(taken),
        }
    }
    bail!("writes outran the snapshot {ATTEMPTS} times; a longer apiServer.historyRetention gives it time")
}

enum Failed {
    Store(StoreError),
    File(SnapshotError),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Failed {
        Failed::Store(error)
    }
}

impl From<SnapshotError> for Failed {
    fn from(error: SnapshotError) -> Failed {
        Failed::File(error)
    }
}

async fn try_take(source: &Source, facts: &Facts, now: Timestamp, path: &Path) -> Result<Taken, Failed> {
    let mut page = source.page(None, None).await?;
    let revision = page.revision;
    let header = Header {
        keelson_snapshot: FORMAT,
        version: crate::version::OWN.to_owned(),
        cluster: facts.cluster.clone(),
        taken: now,
        node: facts.node.clone(),
        revision,
        mode: facts.mode.to_owned(),
        configuration: facts.configuration.clone(),
        keys: facts.keys.clone(),
    };
    let mut writer = Writer::create(path, &header)?;
    loop {
        for entry in &page.entries {
            writer.put(&entry.key, &entry.value)?;
        }
        let Some(last) = page.entries.last().filter(|_| page.more) else { break };
        page = source.page(Some(&last.key), Some(revision)).await?;
    }
    Ok(Taken { objects: writer.finish()?, revision })
}
