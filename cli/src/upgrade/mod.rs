//! `keelson upgrade`: another version on this machine, and the way back.
//!
//! Forward: the checks, a snapshot, the package, then each process anew, the control plane first; the new control plane
//! brings the database up to date when it starts, step by step, each step one transaction. Back: the older package, then the
//! database is taken to its format while nobody serves it, then each process anew. Pods run on in either direction.
//!
//! Interrupted anywhere: what runs runs on, a machine that starts again starts what is installed, and the same command goes
//! on. An older program that meets a newer database on the way back calls the newer one, which was kept for that ([`back`]).

pub mod back;
mod release;
mod skew;

use crate::install::progress::{Output, Progress, until};
use crate::install::{self, etcd, init, units};
use crate::node;
use crate::node_certs::NodeFiles;
use crate::snapshot;
use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{Endpoints, Node};
use keelson_daemon::config::Config;
use keelson_store::sqlite;
use kube::Api;
use kube::api::ListParams;
use release::{Packages, Release};
use serde_json::json;
use skew::{Minor, Seen};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// While this file is there, the package's scripts restart nothing. It does not outlive a boot.
const HOLD: &str = "/run/keelson-upgrade";
/// How long the API server and the node are waited for.
const COMES_UP: Duration = Duration::from_secs(90);

/// What to do.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Say what an upgrade would do, and what is in its way.
    Plan {
        /// The packages, keelson_VERSION_amd64.deb and others; what is installed already otherwise.
        files: Vec<PathBuf>,
    },
    /// Upgrade this machine: checks, a snapshot, the packages, then each process anew. Pods run on.
    Apply {
        /// The packages, keelson_VERSION_amd64.deb and others; what is installed already otherwise.
        files: Vec<PathBuf>,
    },
    /// Go back to an older version: its packages, and the database in the form that it reads. Nothing is lost.
    Back {
        /// The older packages.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Take a database that nobody serves to another format.
    #[command(hide = true)]
    Convert { folder: PathBuf, format: i32 },
}

/// Runs one of them.
pub async fn run(command: Command, config: &Config, output: Output) -> Result<()> {
    let progress = Progress::new(output);
    match command {
        Command::Plan { files } => {
            let plan = Plan::make(config, &files, false).await?;
            plan.show(output)?;
            plan.refuse()
        }
        Command::Apply { files } => {
            root()?;
            let plan = Plan::make(config, &files, false).await?;
            plan.refuse()?;
            plan.apply(config, progress).await?;
            done(&plan.target, output)
        }
        Command::Back { files } => {
            root()?;
            let plan = Plan::make(config, &files, true).await?;
            plan.refuse()?;
            back::apply(&plan, config, progress).await?;
            done(&plan.target, output)
        }
        Command::Convert { folder, format } => {
            let from = sqlite::convert(&folder, format).context("the database stays as it is")?;
            progress.say(&format!("the database went from format {from} to {format}"));
            Ok(())
        }
    }
}

fn root() -> Result<()> {
    anyhow::ensure!(nix::unistd::Uid::effective().is_root(), "this needs root: run it with sudo");
    Ok(())
}

fn done(target: &Release, output: Output) -> Result<()> {
    match output {
        Output::Text => println!("keelson {} runs on this machine", target.version),
        Output::Json => println!("{}", json!({"version": target.version})),
    }
    Ok(())
}

/// What is to be done on this machine.
struct Plan {
    target: Release,
    /// Nothing to install: what is installed is to be started.
    packages: Option<Packages>,
    installed: String,
    control_plane: bool,
    /// The format that the SQLite database has; `None` where there is none here.
    format: Option<i32>,
    /// Units whose process is not what is, or will be, installed; in the order they are restarted.
    restarts: Vec<&'static str>,
    problems: Vec<String>,
}

impl Plan {
    async fn make(config: &Config, files: &[PathBuf], backwards: bool) -> Result<Plan> {
        let control_plane = config.paths.pki().join("ca.key").exists();
        let joined = NodeFiles::of(config).kubelet.exists();
        if !control_plane && !joined {
            bail!(
                "this machine is in no cluster, so there is nothing to upgrade; `apt install keelson` is enough"
            );
        }
        let packages = if files.is_empty() { None } else { Some(Packages::read(files)?) };
        let installed = release::installed().unwrap_or_else(|| crate::version::OWN.to_owned());
        let target = packages.as_ref().map_or_else(Release::own, |packages| packages.release.clone());
        let packages = packages.filter(|packages| packages.release.version != installed);
        let format = match config.etcd {
            None if control_plane => sqlite::format(&config.paths.database())
                .context("the database's format cannot be read; `keelson doctor` says more")?,
            _ => None,
        };
        let running = [units::ALL_IN_ONE, units::CONTROL_PLANE, units::PROXY, units::KUBELET];
        let restarts = running
            .into_iter()
            .filter(|unit| units::started(unit) && (packages.is_some() || units::outdated(unit)))
            .collect();
        let seen = tokio::time::timeout(Duration::from_secs(10), seen(config, control_plane)).await;
        let mut problems = match seen {
            Ok(Ok(seen)) => skew::problems(target.kubernetes, control_plane, &seen),
            // One whose API server does not come up is mended by what follows: what it was stopped in the middle of.
            _ if packages.is_none() => Vec::new(),
            Ok(Err(error)) => {
                vec![format!("the cluster cannot be asked ({error:#}); `keelson doctor` says why")]
            }
            Err(_) => vec!["the API server does not answer; `keelson doctor` says why".to_owned()],
        };
        let older = !target.newer_than(&installed) && target.version != installed;
        if older && !backwards {
            problems.push(format!(
                "{} is older than {installed}, which is installed; `keelson upgrade back FILE` goes back",
                target.version
            ));
        }
        if target.newer_than(&installed) && backwards {
            problems.push(format!(
                "{} is newer than {installed}, which is installed; `keelson upgrade apply FILE` goes forward",
                target.version
            ));
        }
        problems.extend(space(config, format));
        Ok(Plan { target, packages, installed, control_plane, format, restarts, problems })
    }

    fn nothing(&self) -> bool {
        self.packages.is_none() && self.restarts.is_empty() && self.converts().is_none()
    }

    /// From and to which format the database goes.
    fn converts(&self) -> Option<(i32, i32)> {
        let from = self.format.filter(|from| *from != self.target.format)?;
        Some((from, self.target.format))
    }

    fn refuse(&self) -> Result<()> {
        anyhow::ensure!(self.problems.is_empty(), "nothing was changed: {}", self.problems.join("; "));
        Ok(())
    }

    fn show(&self, output: Output) -> Result<()> {
        if output == Output::Json {
            let format = self.converts().map(|(from, to)| json!({"from": from, "to": to}));
            let shown = json!({"installed": self.installed, "target": self.target.version,
                "kubernetes": self.target.kubernetes.to_string(), "databaseFormat": self.format, "converts": format,
                "restarts": self.restarts, "problems": self.problems});
            println!("{}", serde_json::to_string_pretty(&shown)?);
            return Ok(());
        }
        println!("installed: keelson {}", self.installed);
        println!("target:    keelson {} (Kubernetes {})", self.target.version, self.target.kubernetes);
        if let Some(format) = self.format {
            println!("database:  format {format}");
        }
        if self.nothing() {
            println!("there is nothing to do: it is installed, and runs");
        } else {
            if self.control_plane {
                println!("  a snapshot of the cluster is taken first");
            }
            if let Some((from, to)) = self.converts() {
                println!(
                    "  the database goes from format {from} to {to}; `keelson upgrade back` with the packages of {} leads back",
                    self.installed
                );
            }
            println!("  restarted, while pods run on: {}", self.restarts.join(", "));
        }
        for problem in &self.problems {
            println!("✗ {problem}");
        }
        Ok(())
    }

    async fn apply(&self, config: &Config, progress: Progress) -> Result<()> {
        if self.nothing() {
            progress.say("there is nothing to do: it is installed, and runs");
            return Ok(());
        }
        self.snapshot(config, progress).await?;
        self.install(progress)?;
        restart_outdated(config, self.control_plane, progress).await.with_context(|| {
            format!(
                "keelson {} is installed but does not run as it should. `keelson upgrade back` with the packages of {} leads \
                 back",
                self.target.version, self.installed
            )
        })
    }

    /// One before anything is changed, on a control plane.
    async fn snapshot(&self, config: &Config, progress: Progress) -> Result<()> {
        if !self.control_plane {
            return Ok(());
        }
        let path = progress
            .wait("taking a snapshot", snapshot::before(config, &self.target.version))
            .await
            .context("nothing was changed")?;
        progress.say(&format!("  {}", path.display()));
        Ok(())
    }

    fn install(&self, progress: Progress) -> Result<()> {
        let Some(packages) = &self.packages else { return Ok(()) };
        std::fs::write(HOLD, b"").with_context(|| format!("cannot write {HOLD}"))?;
        let installed = progress.step(&format!("installing {}", self.target.version), || packages.install());
        std::fs::remove_file(HOLD).with_context(|| format!("cannot remove {HOLD}"))?;
        installed
    }
}

/// A copy of the database is a part of what follows: the snapshot, the log of the migration.
fn space(config: &Config, format: Option<i32>) -> Option<String> {
    let database = config.paths.database().join(sqlite::DATABASE);
    let size = std::fs::metadata(database).map_or(0, |found| found.len());
    let needed = size * 2 + (256 << 20);
    let free = install::machine::free_space(&config.paths.state)?;
    (format.is_some() && free < needed).then(|| {
        format!(
            "{} has {} MiB free, {} are needed for a snapshot and the database's copy",
            config.paths.state.display(),
            free >> 20,
            needed >> 20
        )
    })
}

/// Refuses where this program is too old, or too new, to join a cluster whose API server is of `version`.
pub fn may_join(version: &str, control_plane: bool) -> Result<()> {
    let server =
        Minor::parse(version).with_context(|| format!("the API server says it is of version {version:?}"))?;
    match skew::join_problem(Release::own().kubernetes, control_plane, server) {
        Some(problem) => bail!(problem),
        None => Ok(()),
    }
}

/// What runs in the cluster. A worker's own identity sees its API server alone.
async fn seen(config: &Config, control_plane: bool) -> Result<Seen> {
    let client = match control_plane {
        true => install::admin(config, None).await?,
        false => keelson_client::from_kubeconfig(&NodeFiles::of(config).kubelet).await?,
    };
    let server = Minor::parse(&client.apiserver_version().await?.git_version);
    if !control_plane {
        return Ok(Seen { server, others: Vec::new() });
    }
    let endpoints: Api<Endpoints> = Api::namespaced(client.clone(), "default");
    let subsets = endpoints.get_opt("kubernetes").await?.and_then(|found| found.subsets).unwrap_or_default();
    let serving: Vec<String> =
        subsets.into_iter().flat_map(|one| one.addresses.unwrap_or_default()).map(|one| one.ip).collect();
    let own = node::identify(&config.node)?.name;
    let nodes: Api<Node> = Api::all(client);
    let others = nodes.list(&ListParams::default()).await?.items.into_iter().filter_map(|node| {
        let (name, status) = (node.metadata.name?, node.status?);
        let version = Minor::parse(&status.node_info?.kubelet_version)?;
        let serves = status.addresses.into_iter().flatten().any(|one| serving.contains(&one.address));
        (name != own).then_some((name, version, serves))
    });
    Ok(Seen { server, others: others.collect() })
}

/// Restarts each unit whose program was replaced, and waits until it is there again.
async fn restart_outdated(config: &Config, control_plane: bool, progress: Progress) -> Result<()> {
    for unit in [units::ALL_IN_ONE, units::CONTROL_PLANE, units::PROXY, units::KUBELET] {
        if !units::started(unit) || !units::outdated(unit) {
            continue;
        }
        install::run("systemctl", &["restart", "--no-block", unit])?;
        comes_up(config, unit, progress).await?;
    }
    let node = node::identify(&config.node)?.name;
    let ready = until(COMES_UP, || async {
        let client = match control_plane {
            true => init::api(config).await?,
            false => keelson_client::from_kubeconfig(&NodeFiles::of(config).kubelet).await?,
        };
        init::ready(&client, &node).await
    });
    progress
        .wait("waiting until the node is Ready", ready)
        .await
        .with_context(|| init::failed(units::KUBELET))
}

/// Waits until a unit runs what is installed; one with an API server until that answers.
async fn comes_up(config: &Config, unit: &'static str, progress: Progress) -> Result<()> {
    let serves = matches!(unit, units::ALL_IN_ONE | units::CONTROL_PLANE);
    let there = until(COMES_UP, || async {
        anyhow::ensure!(units::active(unit) && !units::outdated(unit), "{unit} does not run yet");
        if serves { init::api(config).await.map(drop) } else { Ok(()) }
    });
    progress.wait(&format!("restarting {unit}"), there).await.with_context(|| init::failed(unit))
}

/// Before the control plane brings an older database up to date: a snapshot of what it was. The upgrade has taken one
/// already where it was asked for; this is for the machine whose packages came another way.
pub async fn before_opening(config: &Config) {
    let folder = config.paths.database();
    let Ok(Some(found)) = sqlite::format(&folder) else { return };
    if found >= sqlite::FORMAT || recently(config) {
        return;
    }
    match snapshot::before(config, crate::version::OWN).await {
        Ok(path) => tracing::info!(
            path = %path.display(),
            from = found,
            to = sqlite::FORMAT,
            "the database is brought up to date; a snapshot was taken first"
        ),
        // The steps lead back without a snapshot too.
        Err(error) => tracing::error!(
            error = %format!("{error:#}"),
            "the database is brought up to date without a snapshot: none could be taken"
        ),
    }
}

/// Whether `keelson upgrade` took a snapshot for this version in the last ten minutes.
fn recently(config: &Config) -> bool {
    let mark = snapshot::before_mark(crate::version::OWN);
    let entries = std::fs::read_dir(&config.snapshots.folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().contains(&mark))
        .filter_map(|entry| entry.metadata().ok()?.modified().ok()?.elapsed().ok())
        .any(|ago| ago < Duration::from_secs(600))
}

/// The folder in which the way back keeps what it needs, outside of every older version's knowledge.
fn folder(config: &Config) -> PathBuf {
    config.paths.state.join("upgrade")
}

fn missing_is_fine(done: std::io::Result<()>, path: &Path) -> Result<()> {
    match done {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// etcd's own data has no format of ours.
fn in_etcd(config: &Config) -> bool {
    config.etcd.is_some() || etcd::present(config)
}
