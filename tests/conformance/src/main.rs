//! Conformance tests of Kubernetes v1.35, each under upstream's name and written anew from what upstream's test of that
//! name does: the same objects, waits and checks. They know a cluster only by its kubeconfig.
//!
//! `make conformance` runs them on the cluster of `make cluster`, `make conformance-negative` against a server that
//! answers 200 to everything: there none may pass.
#![forbid(unsafe_code)]

mod api;
mod env;
mod kubectl;
mod report;
mod run;
mod stub;
mod suite;
mod tests;

use anyhow::{Context, Result, bail};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

/// Run the conformance tests against a cluster.
#[derive(Parser)]
#[command(name = "keelson-conformance")]
struct Args {
    /// The cluster's administrator.
    #[arg(long, default_value = "/var/lib/keelson-cluster/state/admin.conf")]
    kubeconfig: PathBuf,
    /// The kubectl to test with; searched in PATH unless it is a path.
    #[arg(long, default_value = "kubectl")]
    kubectl: PathBuf,
    /// Only the tests whose names hold this text.
    #[arg(long, default_value = "")]
    only: String,
    /// How many run at once, apart from those marked [Serial].
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// Where to write area, name and result of each test.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// A program that gives the cluster a second node when run as `PROGRAM second-node up`, and takes it away with `down`;
    /// run around the tests that need two.
    #[arg(long, value_name = "PROGRAM")]
    second_node: Option<PathBuf>,
    /// Run against a server that answers 200 to everything and echoes what is posted: every test must fail.
    #[arg(long)]
    negative: bool,
    /// Print the names and whether each is run or skipped.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the asynchronous runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(start(Args::parse())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn start(args: Args) -> Result<()> {
    let mut tests = suite::all()?;
    tests.retain(|test| test.name.contains(&args.only));
    if tests.is_empty() {
        bail!("no test's name holds {:?}; --list prints all", args.only);
    }
    if args.list {
        for test in &tests {
            let todo = match test.todo {
                suite::Todo::Run { .. } => "run",
                suite::Todo::Skip(why) => why,
            };
            println!("{}\t{}\t{todo}", test.area, test.name);
        }
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (kubeconfig, patience, jobs) = if args.negative {
        let kubeconfig = folder.path().join("kubeconfig");
        let address = stub::start().await?;
        std::fs::write(&kubeconfig, stub::kubeconfig(&address))?;
        (kubeconfig, Some(Duration::from_secs(2)), args.jobs.max(8))
    } else {
        (args.kubeconfig.clone(), None, args.jobs)
    };
    let api = api::Api::connect(&kubeconfig)
        .await
        .with_context(|| format!("{}; `make cluster` makes one", kubeconfig.display()))?;
    if !args.negative {
        api.get("/version").await.context("the cluster does not answer; `make cluster` starts one")?;
    }
    let kubectl = kubectl::Kubectl::new(&args.kubectl, &kubeconfig, patience)?;
    let second_node = args.second_node.as_deref().filter(|_| !args.negative);
    let results = run::all(Rc::new(env::Run { api, kubectl, patience }), tests, jobs, second_node).await?;
    let good = report::print(&results, args.negative);
    if let Some(path) = &args.report {
        report::write(path, &results)?;
    }
    if good { Ok(()) } else { bail!("{}", report::verdict(args.negative)) }
}
