//! Real clients against a running cluster: two versions of kubectl and Helm over tables of command lines with what they
//! must print, and programs that use client-go, Python's `kubernetes` and kube. They know the cluster only by its
//! kubeconfig.
//!
//! What the tables expect is upstream's, from its printers and its clients' sources. Where keelson answers otherwise,
//! keelson is mended, not the table.
#![forbid(unsafe_code)]

mod expect;
mod program;
mod run;
mod rust;
mod table;

use anyhow::{Context, Result, bail};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// Run real clients against a cluster.
#[derive(Parser)]
#[command(name = "keelson-clients")]
struct Args {
    /// The cluster's administrator.
    #[arg(long, default_value = "/var/lib/keelson-cluster/state/admin.conf")]
    kubeconfig: PathBuf,
    /// The folder of the clients: `kubectl-132`, `kubectl-135`, `helm`, `api` (client-go), `venv/bin/python3`.
    #[arg(long)]
    programs: PathBuf,
    /// Only the suites and tables whose names (`kubectl-135/pods`) hold this text.
    #[arg(long, default_value = "")]
    only: String,
    /// How many tables run at once.
    #[arg(long, default_value_t = 3)]
    jobs: usize,
    /// Leave the namespaces in place.
    #[arg(long)]
    keep: bool,
}

/// What one suite came to.
#[derive(Default)]
pub struct Tally {
    pub name: String,
    pub passed: usize,
    pub failures: Vec<String>,
    /// What is known to be answered otherwise.
    pub known: Vec<String>,
}

fn main() -> ExitCode {
    match start(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> Result<()> {
    let kubeconfig = args
        .kubeconfig
        .canonicalize()
        .with_context(|| format!("{}; `make cluster` makes one", args.kubeconfig.display()))?;
    let programs = args.programs.canonicalize().with_context(|| format!("{}", args.programs.display()))?;
    let tables =
        run::Tables { programs: &programs, kubeconfig: &kubeconfig, jobs: args.jobs, keep: args.keep };
    let mut tallies = Vec::new();
    for client in run::CLIENTS {
        tallies.push(tables.run(client, &args.only)?);
    }
    for program in program::PROGRAMS {
        if program.name.contains(&args.only) {
            tallies.push(program::run(program, &programs, &kubeconfig)?);
        }
    }
    if rust::NAME.contains(&args.only) {
        tallies.push(rust::run(&kubeconfig)?);
    }
    report(&tallies, args.only.is_empty())
}

/// The least that must have run when nothing was left out: kubectl's bar, and something of everybody.
const LEAST: &[(&str, usize)] = &[
    ("kubectl-132", 250),
    ("kubectl-135", 250),
    ("helm", 20),
    ("client-go", 50),
    ("python", 6),
    ("kube-rs", 5),
];

fn report(tallies: &[Tally], whole: bool) -> Result<()> {
    let mut failed = 0;
    println!();
    for tally in tallies {
        for known in &tally.known {
            println!("KNOWN {}/{known}", tally.name);
        }
        for failure in &tally.failures {
            println!("FAILED {}/{failure}", tally.name);
        }
        failed += tally.failures.len();
    }
    println!("\nclient        passed  failed   known");
    for tally in tallies {
        let (failed, known) = (tally.failures.len(), tally.known.len());
        println!("{:<12} {:>7} {failed:>7} {known:>7}", tally.name, tally.passed);
    }
    println!("{} passed, {failed} failed", tallies.iter().map(|tally| tally.passed).sum::<usize>());
    for (name, least) in LEAST.iter().filter(|_| whole) {
        let ran = tallies.iter().find(|tally| tally.name == *name);
        let ran = ran.map_or(0, |tally| tally.passed + tally.failures.len());
        if ran < *least {
            bail!("{name}: {ran} ran, {least} must");
        }
    }
    if failed > 0 {
        bail!("{failed} failed");
    }
    if tallies.iter().all(|tally| tally.passed == 0) {
        bail!("nothing ran: no name holds the text given");
    }
    Ok(())
}
