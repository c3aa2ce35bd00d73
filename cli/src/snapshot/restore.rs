//! `keelson snapshot restore`: makes this machine the control plane of the cluster that a snapshot is of.
//!
//! The new database is built beside the old one while that still serves; the two change places in one step.

use super::file::{Header, Reader};
use super::{KEYS, put, stamp};
use crate::install::init::{self, Mode};
use crate::install::ledger::Ledger;
use crate::install::progress::{Output, Progress};
use crate::install::units;
use crate::node_certs::NodeFiles;
use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use keelson_daemon::config::{self, Config};
use keelson_store::SqliteReader;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// `keelson snapshot restore`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The snapshot.
    pub file: PathBuf,
    /// Put it in the place of the database that this machine has; that one is kept aside.
    #[arg(long)]
    pub yes: bool,
    /// Only put keys, configuration and database in place; start nothing.
    #[arg(long)]
    pub data_only: bool,
    /// One process, or a unit for each component; as it was where the snapshot was taken otherwise.
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// Address that the other machines know this one by.
    #[arg(long, value_name = "IP")]
    pub apiserver_advertise_address: Option<IpAddr>,
    /// Name of this node; the host name otherwise.
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Checks whose failure is passed over; `all` for every one.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub ignore_preflight_errors: Vec<String>,
}

/// Restores, and starts the control plane.
pub async fn run(args: Args, file: Option<PathBuf>, output: Output) -> Result<()> {
    let progress = Progress::new(output);
    let config_file = file.clone().unwrap_or_else(init::default_file);
    let before = config::load(config_file.exists().then_some(config_file.as_path()))?;
    let (header, objects) = progress
        .step("reading the snapshot to its end", || Ok(Reader::open(&args.file).and_then(Reader::verify)?))?;
    progress.say(&format!(
        "  {objects} objects at revision {}, taken on {} at {} by keelson {}",
        header.revision,
        header.node,
        header.taken.strftime("%Y-%m-%d %H:%M:%S UTC"),
        header.version
    ));
    let mode = mode(args.mode, &header)?;
    let (unit, other) = match mode {
        Mode::Units => (units::CONTROL_PLANE, units::ALL_IN_ONE),
        Mode::AllInOne => (units::ALL_IN_ONE, units::CONTROL_PLANE),
    };
    if units::started(other) {
        bail!("{other} runs on this machine; give --mode as it is here");
    }
    refuse(&before, &header, args.yes)?;
    let state = before.paths.state.clone();
    keelson_pki::ensure_dir(&state, 0o755)?;
    let building = state.join("restoring");
    remove(&building)?;
    let made = progress
        .wait("making the database", async { put::database(&building, Reader::open(&args.file)?).await })
        .await;
    if let Err(error) = made {
        remove(&building)?;
        return Err(error.context("nothing was changed"));
    }
    place(&before, &header, &config_file, &building, unit, progress)?;
    if args.data_only {
        progress.say("nothing was started; `keelson init` does that");
        return Ok(());
    }
    if header.node != args.node_name.clone().map_or_else(host, Ok)? {
        progress.say(&format!(
            "  the cluster also knows node {}, on which the snapshot was taken; `keelson node leave {}` removes it if it is \
             gone for good",
            header.node, header.node
        ));
    }
    init::run(init::Args {
        config: file,
        mode,
        apiserver_advertise_address: args.apiserver_advertise_address,
        apiserver_bind_port: None,
        store: init::StoreKind::Sqlite,
        etcd_endpoints: Vec::new(),
        etcd_ca_file: None,
        etcd_cert_file: None,
        etcd_key_file: None,
        extra_sans: Vec::new(),
        node_name: args.node_name,
        pod_network_cidr: None,
        service_cidr: None,
        service_dns_domain: None,
        cri_socket: None,
        registries: Default::default(),
        leave_firewall: false,
        ignore_preflight_errors: args.ignore_preflight_errors,
        token: None,
        dry_run: false,
        output,
    })
    .await
}

/// Puts the new state in place while the control plane is stopped.
fn place(
    config: &Config,
    header: &Header,
    file: &Path,
    building: &Path,
    unit: &str,
    progress: Progress,
) -> Result<()> {
    // The node's units too: a kubelet registers its node, which the snapshot may not know, when it starts. Pods run on.
    let running: Vec<&str> =
        [unit, units::KUBELET, units::PROXY].into_iter().filter(|one| units::started(one)).collect();
    if !running.is_empty() {
        progress.step(&format!("stopping {}", running.join(", ")), || {
            crate::install::run("systemctl", &[&["stop"], running.as_slice()].concat()).map(drop)
        })?;
    }
    let ledger = Ledger::of(&config.paths.state);
    let placed = progress.step("putting keys and database in place", || {
        init::write_config(&ledger, file, "05-cluster.yaml", &header.configuration)?;
        keys(config, header)?;
        exchange(config, building)
    });
    if placed.is_err() && !running.is_empty() {
        crate::install::run("systemctl", &[&["start", "--no-block"], running.as_slice()].concat())?;
    }
    if let Some(kept) = placed? {
        progress.say(&format!("  the database that was here is kept in {}", kept.display()));
    }
    Ok(())
}

fn host() -> Result<String> {
    Ok(nix::unistd::gethostname()?.to_string_lossy().to_lowercase())
}

fn mode(asked: Option<Mode>, header: &Header) -> Result<Mode> {
    match (asked, header.mode.as_str()) {
        (Some(mode), _) => Ok(mode),
        (None, "all-in-one") => Ok(Mode::AllInOne),
        (None, "units") => Ok(Mode::Units),
        (None, other) => {
            bail!("the snapshot was taken in mode {other:?}, unknown here; say --mode units or all-in-one")
        }
    }
}

/// What must not be overwritten.
fn refuse(config: &Config, header: &Header, yes: bool) -> Result<()> {
    if config.etcd.is_some() {
        bail!(
            "this machine's database is in etcd (section etcd of the configuration); a snapshot is restored to an SQLite file"
        );
    }
    let files = NodeFiles::of(config);
    match super::cluster(config)? {
        Some(own) if own != header.cluster => bail!(
            "the snapshot is of another cluster (authority {}) than this machine's ({own}); `keelson reset --yes --state` \
             takes this machine out of its cluster first, with all its data",
            header.cluster
        ),
        None if files.kubelet.exists() || files.bootstrap.exists() => bail!(
            "this machine has joined a cluster; `keelson reset --yes` takes it out before a snapshot can be restored to it"
        ),
        _ => {}
    }
    let folder = config.paths.database();
    if !folder.join(keelson_store::sqlite::DATABASE).exists() || yes {
        return Ok(());
    }
    // How far it is says which of the two is newer; a damaged one says nothing.
    let here = SqliteReader::open(&folder).ok().and_then(|reader| reader.page(None, None).ok());
    let here = here.map_or("damaged".to_owned(), |page| format!("at revision {}", page.revision));
    bail!(
        "this machine has a database of this cluster ({here}; the snapshot is at {}). --yes keeps it aside and puts the \
         snapshot in its place",
        header.revision
    )
}

/// The authorities and the service accounts' keys; every other certificate is made from them.
fn keys(config: &Config, header: &Header) -> Result<()> {
    let folder = config.paths.pki();
    keelson_pki::ensure_dir(&folder, 0o700)?;
    for name in KEYS {
        let text = header.keys.get(name).with_context(|| format!("the snapshot holds no {name}"))?;
        let (path, mode) = (folder.join(name), if name.ends_with(".key") { 0o600 } else { 0o644 });
        if fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
            keelson_pki::write_atomic(&path, text.as_bytes(), mode)?;
        }
    }
    Ok(())
}

/// Puts the new folder in the old one's place in one step. Where the old one is kept.
fn exchange(config: &Config, building: &Path) -> Result<Option<PathBuf>> {
    let folder = config.paths.database();
    let kept = config.paths.state.join(format!("db.before-restore-{}", stamp(Timestamp::now())));
    let there = folder.join(keelson_store::sqlite::DATABASE).exists();
    let done = (|| -> io::Result<()> {
        if there {
            use std::os::unix::fs::MetadataExt as _;
            let owner = fs::metadata(&folder)?;
            for path in [building.to_owned(), building.join(keelson_store::sqlite::DATABASE)] {
                std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid()))?;
            }
            let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
            nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, building, nix::fcntl::AT_FDCWD, &folder, flags)?;
            fs::rename(building, &kept)?;
        } else {
            // An empty folder gives way to a rename.
            fs::rename(building, &folder)?;
        }
        File::open(&config.paths.state)?.sync_all()
    })();
    done.with_context(|| format!("the database cannot be put into {}", folder.display()))?;
    Ok(there.then_some(kept))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
