//! `make bench`: figures of the running cluster of `make cluster`, each beside its floor measured in the same run.
//!
//! What always holds: requests go over TLS as the administrator (outside system:masters) from this process; answers are
//! checked against what was written; CPU is user plus system of the keelson process, memory its PSS. Figures are
//! printed, never judged.
#![forbid(unsafe_code)]

mod alone;
mod churn;
mod client;
mod delete;
mod etcd;
mod first;
mod fleet;
mod floor;
mod idle;
mod plane;
mod pods;
mod process;
mod reads;
mod report;
mod scale;
mod seed;
mod start;
mod watches;
mod writes;

use anyhow::{Context, Result};
use clap::Parser;
use client::Kubeconfig;
use keelson_tests::Places;
use process::Process;
use report::Report;
use std::path::{Path, PathBuf};

#[derive(Parser)]
struct Args {
    /// Tab-separated figures are written here.
    #[arg(long, default_value = "target/reports/bench.tsv")]
    report: PathBuf,
    /// Pods in the database while measuring.
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// The runtime's socket, for the raw calls. Default: that of the containerd that `make cluster` started.
    #[arg(long)]
    cri_socket: Option<PathBuf>,
    /// Leave out the minute of idling.
    #[arg(long)]
    no_idle: bool,
    /// Measure these only: idle, reads, writes, watch, churn, pods, etcd, alone, start, first; and delete, scale and fleet,
    /// which are not measured otherwise.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Not for people: measures one first start in this folder, within namespaces made for it, and prints the seconds.
    #[arg(long, hide = true)]
    first_start_in: Option<PathBuf>,
    /// Measure on etcd only (etcd, alone), with this binary of keelson; no cluster is needed.
    #[arg(long, value_name = "BINARY")]
    etcd_with: Option<PathBuf>,
    /// Measure a control plane of this binary alone (reads, writes, watch, delete, scale) instead of the cluster's; the database lies
    /// beside the report.
    #[arg(long, value_name = "BINARY")]
    with: Option<PathBuf>,
    /// Simulated nodes for `fleet`.
    #[arg(long, default_value_t = 5000)]
    nodes: usize,
    /// Objects in the database for `scale`.
    #[arg(long, default_value_t = 100_000)]
    objects: usize,
}

/// What every measurement is handed.
struct Bench {
    kubeconfig: Kubeconfig,
    process: Process,
    report: Report,
    /// A folder on the file system of the database, for the raw floors.
    scratch: PathBuf,
    cri_socket: PathBuf,
    places: Places,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(folder) = &args.first_start_in {
        return first::start_here(folder).await;
    }
    let (load, wake) = (floor::dependent_load_ns(), floor::wake_us());
    println!(
        "# this machine: {load:.0} ns a load that waits for the one before (in 8 MiB), {wake:.1} us to wake a thread"
    );
    if let Some(binary) = &args.etcd_with {
        let mut report = Report::new(args.report.clone());
        on_etcd(binary, &args, &mut report).await?;
        return report.write();
    }
    if let Some(binary) = args.with.clone() {
        return of_binary(&binary, args).await;
    }
    let places = Places::of_environment();
    let kubeconfig = Kubeconfig::read(&places.kubeconfig())
        .context("no running cluster; start one with `make cluster`")?;
    let process = Process::from_pid_file(&places.keelson_pid())?;
    let scratch = places.data.join("bench");
    std::fs::create_dir_all(&scratch)?;
    let mut bench = Bench {
        kubeconfig,
        process,
        report: Report::new(args.report.clone()),
        scratch: scratch.clone(),
        cri_socket: args.cri_socket.clone().unwrap_or_else(|| places.run.join("containerd.sock")),
        places,
    };
    of_cluster(&mut bench, &args).await?;
    std::fs::remove_dir_all(&scratch)?;
    bench.report.write()
}

impl Args {
    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.asks_for(part)
    }

    fn asks_for(&self, part: &str) -> bool {
        self.only.iter().any(|one| one == part)
    }
}

/// The parts that need scheduler, controllers and kubelet running.
async fn of_cluster(bench: &mut Bench, args: &Args) -> Result<()> {
    if args.wants("idle") && !args.no_idle {
        idle::measure(bench).await?;
    }
    if args.asks_for("delete") {
        delete::measure(bench).await?;
    }
    if args.asks_for("scale") {
        scale::measure(bench, args.objects).await?;
        seed::remove(bench).await?;
        let binary = PathBuf::from(bench.process.command_line()?.swap_remove(0));
        alone::mixed(&binary, args.objects, &mut bench.report).await?;
    }
    if args.asks_for("fleet") {
        fleet::measure(bench, args.nodes).await?;
    }
    let on_seed = ["reads", "writes", "watch", "churn", "pods", "etcd", "alone", "start", "first"];
    if !on_seed.iter().any(|part| args.wants(part)) {
        return Ok(());
    }
    of_api(bench, args).await?;
    if args.wants("start") {
        start::measure(bench).await?;
    }
    if args.wants("churn") {
        churn::measure(bench).await?;
    }
    if args.wants("pods") {
        pods::measure(bench).await?;
    }
    let binary = PathBuf::from(bench.process.command_line()?.swap_remove(0));
    on_etcd(&binary, args, &mut bench.report).await?;
    seed::remove(bench).await?;
    if args.wants("first") {
        first::measure(bench)?;
    }
    Ok(())
}

/// Seeds the pods and measures what any API server can be asked.
async fn of_api(bench: &mut Bench, args: &Args) -> Result<()> {
    let before = bench.process.pss_kib()?;
    let seeded = seed::pods(&bench.kubeconfig, args.pods).await?;
    if args.wants("reads") {
        reads::measure(bench, &seeded, before).await?;
    }
    if args.wants("writes") {
        writes::measure(bench).await?;
    }
    if args.wants("watch") {
        watches::measure(bench).await?;
    }
    Ok(())
}

/// Those parts on a control plane of our own.
async fn of_binary(binary: &Path, args: Args) -> Result<()> {
    let beside = args.report.parent().unwrap_or(Path::new(".")).to_owned();
    std::fs::create_dir_all(&beside)?;
    let scratch = tempfile::tempdir_in(&beside)?;
    let plane = plane::ControlPlane::start(binary, &scratch.path().join("plane"), None, None).await?;
    let mut bench = Bench {
        kubeconfig: plane.kubeconfig.clone(),
        process: plane.process(),
        report: Report::new(args.report.clone()),
        scratch: scratch.path().to_owned(),
        cri_socket: PathBuf::new(),
        places: Places::of_environment(),
    };
    if args.asks_for("delete") {
        delete::measure(&mut bench).await?;
    } else if args.asks_for("scale") {
        scale::measure(&mut bench, args.objects).await?;
    } else {
        of_api(&mut bench, &args).await?;
    }
    bench.report.write()
}

async fn on_etcd(binary: &Path, args: &Args, report: &mut Report) -> Result<()> {
    if args.wants("etcd") {
        etcd::measure(binary, report).await?;
    }
    if args.wants("alone") {
        alone::pods(binary, args.pods, report).await?;
    }
    Ok(())
}
