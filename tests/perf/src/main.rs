//! `make bench`: figures of the running cluster of `make cluster`, each beside its floor measured in the same run.
//!
//! What always holds: requests go over TLS as the administrator (outside system:masters) from this process; answers are
//! checked against what was written; CPU is user plus system of the keelson process, memory its PSS. Figures are
//! printed, never judged.
#![forbid(unsafe_code)]

mod api;
mod client;
mod etcd;
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
use process::Process;
use report::Report;
use std::path::PathBuf;

#[derive(Parser)]
struct Args {
    /// Folder of the cluster.
    #[arg(long, default_value = "/var/lib/keelson-cluster")]
    cluster: PathBuf,
    /// File that holds keelson's pid.
    #[arg(long, default_value = "/run/keelson-cluster/keelson.pid")]
    pid_file: PathBuf,
    /// Tab-separated figures are written here.
    #[arg(long, default_value = "target/reports/bench.tsv")]
    report: PathBuf,
    /// Pods in the database while measuring.
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// The runtime's socket, for the raw calls.
    #[arg(long, default_value = "/run/keelson-cluster/containerd.sock")]
    cri_socket: PathBuf,
    /// Leave out the minute of idling.
    #[arg(long)]
    no_idle: bool,
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
    cluster: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(binary) = &args.etcd_with {
        let mut report = Report::new(args.report);
        etcd::measure(binary, &mut report).await?;
        return report.write();
    }
    let kubeconfig = Kubeconfig::read(&args.cluster.join("state/admin.conf"))
        .context("no running cluster; start one with `make cluster`")?;
    let process = Process::from_pid_file(&args.pid_file)?;
    let scratch = args.cluster.join("bench");
    std::fs::create_dir_all(&scratch)?;
    let report = Report::new(args.report);
    let mut bench = Bench {
        kubeconfig,
        process,
        report,
        scratch: scratch.clone(),
        cri_socket: args.cri_socket,
        cluster: args.cluster.clone(),
    };
    if !args.no_idle {
        idle::measure(&mut bench).await?;
    }
    let before = bench.process.pss_kib()?;
    let seeded = seed::pods(&bench, args.pods).await?;
    api::measure(&mut bench, &seeded, before).await?;
    pods::measure(&mut bench).await?;
    let binary = PathBuf::from(bench.process.command_line()?.swap_remove(0));
    etcd::measure(&binary, &mut bench.report).await?;
    start::measure(&mut bench, &args.pid_file).await?;
    seed::remove(&bench).await?;
    std::fs::remove_dir_all(&scratch)?;
    bench.report.write()
}
