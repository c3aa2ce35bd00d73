//! Repository tasks: `cargo xtask <task>`. Each prepares what it needs, shows progress, and says what to do when it fails.
#![forbid(unsafe_code)]

mod cluster;
mod containerd;
mod images;
mod oci;
mod packages;
mod run;
mod schema;
mod tidy;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of this repository")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check the crates' dependency directions, file lengths and headers.
    Tidy,
    /// Build the images of the sample and the pause image as OCI archives in target/images.
    Images,
    /// Start a cluster on this machine, deploy the sample and show it answering.
    ClusterUp {
        /// Start the cluster only; do not deploy the sample.
        #[arg(long)]
        bare: bool,
    },
    /// Stop the cluster and remove all it left on the machine.
    ClusterDown,
    /// Generate the field schema and resource table of lib/api from the published sources and the facts files.
    Schema(schema::Options),
    /// Install from Debian's packages what building, running and testing need.
    Packages,
}

fn main() -> std::process::ExitCode {
    let outcome = match Args::parse().task {
        Task::Tidy => tidy::run(),
        Task::Images => images::build_all().map(drop),
        Task::ClusterUp { bare } => cluster::up(bare),
        Task::ClusterDown => cluster::down(),
        Task::Schema(options) => schema::run(&options),
        Task::Packages => {
            packages::install_all().and_then(|()| packages::etcd(&run::target().join("packages")))
        }
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
