//! `keelson migrate-store`: the cluster's objects move between the SQLite file and etcd, and back.
//!
//! Everything is copied while no server writes, compared object by object, and only then does the configuration name the
//! new store, in one step; until then the old one is untouched, after it the old one is kept aside. No resourceVersion
//! comes again. Interrupted anywhere, the same command begins anew.

use crate::install::dropin::{self, Chosen};
use crate::install::etcd;
use crate::install::handover;
use crate::install::init;
use crate::install::ledger::Ledger;
use crate::install::progress::{Output, Progress, until};
use crate::install::units;
use crate::node_certs::{NodeFiles, read_identity};
use crate::snapshot::{Source, put};
use crate::store;
use crate::{balancer, node};
use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use keelson_daemon::config::{self, Config, EtcdSection};
use keelson_store::{EtcdStore, Expect, SqliteOptions, SqliteReader, SqliteStore, Store, Transaction, Write};
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The drop-in that names etcd.
const DROP_IN: &str = handover::STORE;
/// Whose database it is.
const UNITS: [&str; 2] = [units::ALL_IN_ONE, units::CONTROL_PLANE];
/// Stands in an etcd cluster as long as it holds a part of a copy.
const MARK: &str = "/keelson/migrating";
/// Records of servers that run expire after fifteen seconds.
const SERVERS_GONE: Duration = Duration::from_secs(20);
/// What servers keep there about themselves.
const SERVERS: &str = "/keelson/masters/";

/// Where to.
#[derive(clap::Subcommand, Debug)]
pub enum Target {
    /// To an etcd cluster: the one named, else a member beside this control plane, as with `init --store etcd`.
    Etcd {
        /// Client addresses of all members, https://host:2379.
        #[arg(
            long,
            value_delimiter = ',',
            value_name = "URL",
            requires = "ca_file",
            requires = "cert_file",
            requires = "key_file"
        )]
        endpoints: Vec<String>,
        /// The authority (PEM) of the members' certificates.
        #[arg(long, value_name = "FILE", requires = "endpoints")]
        ca_file: Option<PathBuf>,
        /// The certificate (PEM) that etcd knows this control plane by.
        #[arg(long, value_name = "FILE", requires = "endpoints")]
        cert_file: Option<PathBuf>,
        /// The key (PEM) of that certificate.
        #[arg(long, value_name = "FILE", requires = "endpoints")]
        key_file: Option<PathBuf>,
    },
    /// To the SQLite file in the state folder; every control plane but this one has left before.
    Sqlite,
}

/// Migrates, and starts the control plane again where it ran.
pub async fn run(target: Target, file: Option<PathBuf>, output: Output) -> Result<()> {
    let progress = Progress::new(output);
    let file = file.unwrap_or_else(init::default_file);
    let there = file.exists().then_some(file.as_path());
    let config = config::load(there)?;
    let text = match &target {
        Target::Sqlite => None,
        Target::Etcd { endpoints, .. } if endpoints.is_empty() => {
            let own = [etcd::own_endpoint()];
            Some(handover::store_text(&config.paths.pki(), &own, "keelson migrate-store"))
        }
        Target::Etcd { endpoints, ca_file, cert_file, key_file } => {
            let mut chosen = Chosen::default();
            chosen.set("etcd.endpoints", endpoints.clone());
            for (key, path) in [("caFile", ca_file), ("certFile", cert_file), ("keyFile", key_file)] {
                let path = path.as_ref().map(|path| path.to_string_lossy().into_owned());
                chosen.set_some(&format!("etcd.{key}"), path);
            }
            Some(chosen.text("keelson migrate-store"))
        }
    };
    // What is wrong with the flags is told before anything is stopped.
    let wanted = match &text {
        Some(text) => config::load_with(there, &[(DROP_IN, text)])?.etcd,
        None => None,
    };
    // One that is to run and does not was stopped by a migration that was interrupted.
    let unit = UNITS.into_iter().find(|unit| units::started(unit) || units::enabled(unit));
    match (&config.etcd, &wanted) {
        (Some(_), Some(_)) | (None, None) => {
            if let Some(unit) = unit.filter(|unit| !units::started(unit)) {
                return finish(&config, unit, progress).await;
            }
            match wanted {
                Some(_) => {
                    if unit == Some(units::CONTROL_PLANE) {
                        through_balancer(&config, progress)?;
                    }
                    bail!("the database is in etcd already; `keelson migrate-store sqlite` leads back")
                }
                None => bail!("the database is an SQLite file already"),
            }
        }
        (Some(_), None) if !dropin::place(&file, DROP_IN).exists() => bail!(
            "the section etcd stands in a file of yours; take it out of {} and its drop-ins into {}, then run this again",
            file.display(),
            dropin::place(&file, DROP_IN).display()
        ),
        _ => {}
    }
    if wanted.as_ref().is_some_and(etcd::is_own) {
        let all_in_one = unit == Some(units::ALL_IN_ONE);
        anyhow::ensure!(
            !all_in_one,
            "a member of etcd stands beside a control plane of its own (`keelson init --mode units`); name an etcd cluster with --endpoints"
        );
        etcd::check().await?;
    }
    if let Some(unit) = unit {
        progress.step(&format!("stopping {unit}"), || {
            crate::install::run("systemctl", &["stop", unit]).map(drop)
        })?;
    }
    let moved = moved(&config, wanted.as_ref(), &file, progress).await;
    if let Some(unit) = unit {
        crate::install::run("systemctl", &["start", "--no-block", unit])?;
    }
    let count = moved.context("the database stays where it is")?;
    if let Some(unit) = unit {
        serving(&config::load(there)?, unit, progress).await?;
    }
    match output {
        Output::Text => println!("{count} objects moved, each compared"),
        Output::Json => println!("{}", serde_json::json!({"objects": count})),
    }
    Ok(())
}

/// The database was moved by a run that ended before it was done.
async fn finish(config: &Config, unit: &str, progress: Progress) -> Result<()> {
    if config.etcd.is_none() && etcd::present(config) {
        etcd::retire(config, &now())?;
    }
    if config.etcd.is_some() && config.paths.database().join(keelson_store::sqlite::DATABASE).exists() {
        keep_aside(config)?;
    }
    crate::install::run("systemctl", &["start", "--no-block", unit])?;
    serving(config, unit, progress).await
}

async fn serving(config: &Config, unit: &str, progress: Progress) -> Result<()> {
    let api = until(Duration::from_secs(60), || async {
        let client = crate::install::admin(config, None).await?;
        client.apiserver_version().await.context("the API server does not answer yet")
    });
    progress.wait("waiting for the API server", api).await.map(drop).with_context(|| init::failed(unit))?;
    if config.etcd.is_some() && unit == units::CONTROL_PLANE {
        through_balancer(config, progress)?;
    }
    Ok(())
}

/// Other control planes may come now: this node's kubelet and proxy reach them too when its own is away. Interrupted anywhere,
/// both still reach this one, and the next call goes on.
fn through_balancer(config: &Config, progress: Progress) -> Result<()> {
    let files = NodeFiles::of(config);
    let mut straight = Vec::new();
    for path in [&files.kubelet, &files.proxy] {
        straight.extend(
            read_identity(path)?.filter(|who| who.server != balancer::server()).map(|who| (path, who)),
        );
    }
    let Some((_, first)) = straight.first() else { return Ok(()) };
    let own = SocketAddr::new(node::identify(&config.node)?.address, config.api_server.bind.port());
    balancer::adopt(config, &[own], &first.ca_pem)?;
    let restart = |unit| crate::install::run("systemctl", &["try-restart", unit]).map(drop);
    progress.step("leading this node's kubelet and proxy to all API servers", || {
        // The balancer is in the proxy: it listens before anybody is led to it.
        restart(units::PROXY)?;
        for (path, identity) in &straight {
            let text =
                fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
            let text = text.replace(&identity.server, &balancer::server());
            keelson_pki::write_atomic(path, text.as_bytes(), 0o600)
                .with_context(|| format!("{} cannot be written", path.display()))?;
        }
        restart(units::PROXY)?;
        restart(units::KUBELET)
    })
}

async fn moved(
    config: &Config,
    wanted: Option<&EtcdSection>,
    file: &Path,
    progress: Progress,
) -> Result<u64> {
    let ledger = Ledger::of(&config.paths.state);
    match wanted {
        Some(section) => {
            if etcd::is_own(section) {
                progress.step("starting etcd", || beside(config, &ledger))?;
            }
            let count = to_etcd(config, section, progress).await?;
            progress.step("naming etcd in the configuration", || {
                let text = handover::adopt(&config.paths.pki(), section, "keelson migrate-store")?;
                own(&config.paths.pki())?;
                init::write_config(&ledger, file, DROP_IN, &text).map(drop)
            })?;
            keep_aside(config)?;
            let now = config::load(Some(file))?;
            init::open_firewall(&ledger, &now, &node::identify(&now.node)?, true, progress)?;
            Ok(count)
        }
        None => {
            let building = config.paths.state.join("migrating");
            let count = to_sqlite(config, &building, progress).await?;
            progress.step("putting the database in place", || {
                put_in_place(config, &building)?;
                let named = dropin::place(file, DROP_IN);
                fs::remove_file(&named).with_context(|| format!("cannot remove {}", named.display()))?;
                anyhow::ensure!(
                    config::load(Some(file))?.etcd.is_none(),
                    "another file of the configuration still names etcd; take its section etcd away"
                );
                Ok(())
            })?;
            if etcd::present(config) {
                progress.step("stopping etcd", || etcd::retire(config, &now()))?;
            }
            Ok(count)
        }
    }
}

/// Starts a first member beside this control plane, which reads its configuration again where one is there.
fn beside(config: &Config, ledger: &Ledger) -> Result<()> {
    if !etcd::folder(config).join("etcd.yaml").exists() {
        etcd::first(config, &node::identify(&config.node)?)?;
    }
    units::start(ledger, &[units::ETCD], false)?;
    // Waits until it is ready.
    crate::install::run("systemctl", &["start", units::ETCD])
        .map(drop)
        .with_context(|| init::failed(units::ETCD))
}

async fn to_etcd(config: &Config, section: &EtcdSection, progress: Progress) -> Result<u64> {
    // Opened as a server does: its lock says that no other has it, and a log that a crash left is recovered.
    let from = SqliteStore::open(SqliteOptions::new(config.paths.database()))
        .context("the database cannot be opened")?;
    let revision = from.revision().await?;
    from.close().await?;
    let reader = SqliteReader::open(&config.paths.database()).context("the database cannot be read")?;
    let source = Source::beside(reader);
    let mut options = store::etcd_options(section)?;
    options.compact_every = None;
    // What was written in this etcd before is no history of this cluster's: who watches from a revision of the old store is told
    // to list again, whichever of the two is further on.
    let unused = EtcdStore::open(options.clone()).await.context("the database in etcd cannot be opened")?;
    let newest = unused.revision().await?;
    unused.close().await?;
    options.min_revision = revision.max(newest) + 1;
    let target = EtcdStore::open(options).await.context("the database in etcd cannot be opened")?;
    let there = progress.wait("looking whether etcd is empty", prepared(&source, revision, &target)).await?;
    let count = match there {
        Some(count) => count,
        None => {
            progress.wait("copying", copied(&source, revision, &target)).await?;
            let count = progress.wait("comparing each object", compared(&source, revision, &target)).await?;
            commit(&target, Write::Delete { key: MARK.to_owned() }, Expect::Present).await?;
            count
        }
    };
    target.close().await?;
    Ok(count)
}

async fn to_sqlite(config: &Config, building: &Path, progress: Progress) -> Result<u64> {
    let from = store::open(config).await?;
    let gone = until(SERVERS_GONE, || async {
        let servers = from.list(SERVERS, None, 0, None).await?.entries;
        let names: Vec<&str> = servers.iter().filter_map(|entry| entry.key.strip_prefix(SERVERS)).collect();
        anyhow::ensure!(
            names.is_empty(),
            "the control planes at {} still serve; stop them first",
            names.join(", ")
        );
        Ok(())
    });
    progress.wait("waiting until no other control plane serves", gone).await?;
    let revision = from.revision().await?;
    let source = Source::Store(from.clone());
    match fs::remove_dir_all(building) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", building.display()));
        }
        _ => {}
    }
    let target =
        SqliteStore::open(SqliteOptions { min_revision: revision + 1, ..SqliteOptions::new(building) })
            .context("the new database cannot be made")?;
    progress.wait("copying", copied(&source, revision, &target)).await?;
    let count = progress.wait("comparing each object", compared(&source, revision, &target)).await?;
    target.close().await?;
    from.close().await?;
    Ok(count)
}

async fn commit(store: &dyn Store, write: Write, expect: Expect) -> Result<()> {
    let guards = vec![(MARK.to_owned(), expect)];
    store.commit(Transaction { guards, writes: vec![write] }).await.context("the copy cannot be marked")?;
    Ok(())
}

/// An empty cluster is marked; what an interrupted copy left is removed; anything else is somebody's, unless it is the whole
/// copy, which an interruption kept from being named in the configuration: then how much there is.
async fn prepared(source: &Source, revision: u64, target: &dyn Store) -> Result<Option<u64>> {
    let mark = Write::Put { key: MARK.to_owned(), value: "{}".into() };
    let (marked, _) = target.get(MARK).await?;
    if marked.is_none() {
        let Some(first) = target.list("/", None, 1, None).await?.entries.pop() else {
            return commit(target, mark, Expect::Absent).await.map(|()| None);
        };
        let same = compared(source, revision, target).await;
        return same.map(Some).with_context(|| {
            format!("etcd holds a cluster's objects already ({} and more); it must be empty", first.key)
        });
    }
    loop {
        let page = target.list("/", None, 500, None).await?;
        let keys: Vec<String> =
            page.entries.into_iter().map(|entry| entry.key).filter(|key| key != MARK).collect();
        if keys.is_empty() {
            return Ok(None);
        }
        for key in keys {
            let gone = Transaction { guards: Vec::new(), writes: vec![Write::Delete { key }] };
            target.commit(gone).await.context("what an interrupted copy left cannot be removed")?;
        }
    }
}

async fn copied(source: &Source, revision: u64, target: &dyn Store) -> Result<()> {
    let mut after = None::<String>;
    loop {
        let page = source.page(after.as_deref(), Some(revision)).await?;
        after = page.entries.last().map(|entry| entry.key.clone());
        let objects = page.entries.into_iter().filter(|entry| entry.key != MARK);
        put::all(target, objects.map(|entry| Ok((entry.key, entry.value.to_vec())))).await?;
        if !page.more || after.is_none() {
            return Ok(());
        }
    }
}

/// Both sides walked together, without what servers write anew. How many objects there are.
async fn compared(source: &Source, revision: u64, target: &dyn Store) -> Result<u64> {
    let target_revision = target.revision().await?;
    anyhow::ensure!(target_revision >= revision, "the new store's revisions begin below the old one's");
    let mut left =
        Walk::new(|after: Option<String>| async move { source.page(after.as_deref(), Some(revision)).await });
    let mut right = Walk::new(|after: Option<String>| async move {
        target.list("/", after.as_deref(), 500, Some(target_revision)).await
    });
    let mut count = 0;
    loop {
        let (old, new) = (left.next().await?, right.next().await?);
        match (old, new) {
            (None, None) => return Ok(count),
            (Some(old), Some(new)) if old == new => count += 1,
            (old, new) => {
                let key = |one: Option<(String, Vec<u8>)>| one.map_or("nothing".to_owned(), |(key, _)| key);
                bail!("the copy is not the same: {} here, {} there", key(old), key(new));
            }
        }
    }
}

/// A store's objects one by one.
struct Walk<F> {
    page: F,
    waiting: std::collections::VecDeque<(String, Vec<u8>)>,
    after: Option<String>,
    ended: bool,
}

impl<F, Fut> Walk<F>
where
    F: FnMut(Option<String>) -> Fut,
    Fut: Future<Output = Result<keelson_store::Page, keelson_store::StoreError>>,
{
    fn new(page: F) -> Walk<F> {
        Walk { page, waiting: Default::default(), after: None, ended: false }
    }

    async fn next(&mut self) -> Result<Option<(String, Vec<u8>)>> {
        while self.waiting.is_empty() && !self.ended {
            let page = (self.page)(self.after.take()).await?;
            self.after = page.entries.last().map(|entry| entry.key.clone());
            self.ended = !page.more || self.after.is_none();
            let objects =
                page.entries.into_iter().filter(|one| one.key != MARK && !one.key.starts_with(SERVERS));
            self.waiting.extend(objects.map(|entry| (entry.key, entry.value.to_vec())));
        }
        Ok(self.waiting.pop_front())
    }
}

/// The SQLite file that was copied is no longer the cluster; it stays for the case that somebody wants it.
fn keep_aside(config: &Config) -> Result<()> {
    let folder = config.paths.database();
    let (from, to) =
        (folder.join(keelson_store::sqlite::DATABASE), folder.join(format!("before-etcd-{}.db", now())));
    fs::rename(&from, &to)
        .and_then(|()| File::open(&folder)?.sync_all())
        .with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
}

fn now() -> String {
    Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// What root puts into a folder of the control plane's user is that user's.
fn own(folder: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let owner = fs::metadata(folder).with_context(|| format!("cannot look at {}", folder.display()))?;
    init::give(folder, owner.uid(), owner.gid())
}

fn put_in_place(config: &Config, building: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let folder = config.paths.database();
    keelson_pki::ensure_dir(&folder, 0o700)?;
    let (from, to) =
        (building.join(keelson_store::sqlite::DATABASE), folder.join(keelson_store::sqlite::DATABASE));
    let done = (|| -> io::Result<()> {
        let owner = fs::metadata(config.paths.pki())?;
        for path in [&folder, &from] {
            std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid()))?;
        }
        fs::rename(&from, &to)?;
        File::open(&folder)?.sync_all()?;
        fs::remove_dir_all(building)
    })();
    done.with_context(|| format!("the database cannot be put into {}", folder.display()))
}
