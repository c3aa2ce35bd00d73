//! `make bench`: figures of the running cluster of `make cluster`, each beside its floor measured in the same run.
//!
//! What always holds: requests go over TLS as the administrator (outside system:masters) from this process; answers are
//! checked against what was written; CPU is user plus system of the keelson process, memory its PSS. Figures are
//! printed, never judged.
#![forbid(unsafe_code)]

mod api;
mod churn;
mod client;
mod delete;
mod etcd;
mod first;
mod floor;
mod idle;
mod pods;
mod process;
mod report;
mod seed;
mod start;

use anyhow::{Context, Result};
use clap::Parser;
use client::Kubeconfig;
use keelson_tests::Places;
use process::Process;
use report::Report;
use std::path::PathBuf;

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
    /// Measure these only: idle, api, churn, pods, etcd, start, first; and delete, which is not measured otherwise.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Not for people: measures one first start in this folder, within namespaces made for it, and prints the seconds.
    #[arg(long, hide = true)]
    first_start_in: Option<PathBuf>,
    /// Measure on etcd only, with this binary of keelson; no cluster is needed.
    #[arg(long, value_name = "BINARY")]
    etcd_with: Option<PathBuf>,
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
    if let Some(binary) = &args.etcd_with {
        let mut report = Report::new(args.report);
        etcd::measure(binary, &mut report).await?;
        return report.write();
    }
    let places = Places::of_environment();
    let kubeconfig = Kubeconfig::read(&places.kubeconfig())
        .context("no running cluster; start one with `make cluster`")?;
    let process = Process::from_pid_file(&places.keelson_pid())?;
    let scratch = places.data.join("bench");
    std::fs::create_dir_all(&scratch)?;
    let report = Report::new(args.report);
    let mut bench = Bench {
        kubeconfig,
        process,
        report,
        scratch: scratch.clone(),
        cri_socket: args.cri_socket.unwrap_or_else(|| places.run.join("containerd.sock")),
        places,
    };
    let wanted = |part: &str| args.only.is_empty() || args.only.iter().any(|one| one == part);
    if wanted("idle") && !args.no_idle {
        idle::measure(&mut bench).await?;
    }
    if args.only.iter().any(|one| one == "delete") {
        delete::measure(&mut bench).await?;
    }
    let before = bench.process.pss_kib()?;
    let seeded = seed::pods(&bench, args.pods).await?;
    if wanted("api") {
        api::measure(&mut bench, &seeded, before).await?;
    }
    if wanted("churn") {
        churn::measure(&mut bench).await?;
    }
    if wanted("pods") {
        pods::measure(&mut bench).await?;
    }
    if wanted("etcd") {
        let binary = PathBuf::from(bench.process.command_line()?.swap_remove(0));
        etcd::measure(&binary, &mut bench.report).await?;
    }
    if wanted("start") {
        start::measure(&mut bench).await?;
    }
    seed::remove(&bench).await?;
    if wanted("first") {
        first::measure(&mut bench)?;
    }
    std::fs::remove_dir_all(&scratch)?;
    bench.report.write()
}
