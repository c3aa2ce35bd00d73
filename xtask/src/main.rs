//! Repository tasks: `cargo xtask <task>`. Each prepares what it needs, shows progress, and says what to do when it fails.
#![forbid(unsafe_code)]

mod clients;
mod cluster;
mod conformance;
mod containerd;
mod dist;
mod images;
mod oci;
mod packages;
mod run;
mod schema;
mod second_node;
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
    Images {
        /// Only those whose names hold one of these.
        only: Vec<String>,
    },
    /// Start a cluster on this machine, deploy the sample and show it answering.
    ClusterUp {
        /// Start the cluster only; do not deploy the sample, nor build its images.
        #[arg(long)]
        bare: bool,
        /// Which binaries are built and started.
        #[arg(long, value_enum, default_value_t)]
        profile: cluster::Profile,
    },
    /// Run Kubernetes' conformance tests on the running cluster; the results go to target/reports/conformance.tsv.
    Conformance {
        /// Only the tests whose names hold this text.
        #[arg(long, default_value = "")]
        only: String,
        /// How many run at once.
        #[arg(long, default_value_t = 4)]
        jobs: usize,
    },
    /// Get and build the clients that `clients` runs: two kubectls, Helm, client-go, Python's.
    ClientPrograms,
    /// Run other people's clients on the running cluster.
    Clients {
        /// Only the tables and programs whose names (`kubectl-135/pods`) hold this text.
        #[arg(long, default_value = "")]
        only: String,
        /// How many tables run at once.
        #[arg(long, default_value_t = 3)]
        jobs: usize,
    },
    /// Join a second node, in namespaces of its own, to the running cluster; `down` removes it.
    SecondNode { task: NodeTask },
    /// Stop the cluster and remove all it left on the machine.
    ClusterDown,
    /// Generate the field schema and resource table of lib/api from the published sources and the facts files.
    Schema(schema::Options),
    /// Build the .deb and .rpm packages and a signed apt repository into target/dist.
    Dist {
        /// Package the debug build: for tests of what is installed, not for machines.
        #[arg(long)]
        debug: bool,
        /// Package a build that calls itself newer and has another database format, into target/dist-next: for tests of
        /// upgrades.
        #[arg(long)]
        next: bool,
        /// The same bytes whatever the folders of the checkout and of cargo are called.
        #[arg(long)]
        anywhere: bool,
    },
    /// Set up what the tests on machines use in a folder: their image as an OCI archive, and a new enough kubectl.
    MachineTools { folder: std::path::PathBuf },
    /// Install from Debian's packages what building, running and testing need.
    Packages,
    /// Run the kubelet's container tests on a containerd 2 from Debian's next suites.
    TestContainerd2,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum NodeTask {
    Up,
    Down,
    /// What `up` runs in the node's namespaces.
    #[value(hide = true)]
    Start,
    /// What `down` runs in the node's namespaces.
    #[value(hide = true)]
    Stop,
}

fn main() -> std::process::ExitCode {
    let outcome = match Args::parse().task {
        Task::Tidy => tidy::run(),
        Task::Images { only } if only.is_empty() => images::build_all().map(drop),
        Task::Images { only } => images::build_some(&only).map(drop),
        Task::ClusterUp { bare, profile } => cluster::up(bare, profile),
        Task::Conformance { only, jobs } => conformance::run(&only, jobs),
        Task::ClientPrograms => clients::prepare(),
        Task::Clients { only, jobs } => clients::run(&only, jobs),
        Task::SecondNode { task } => match task {
            NodeTask::Up => second_node::up(),
            NodeTask::Down => second_node::down(),
            NodeTask::Start => second_node::start_inside(),
            NodeTask::Stop => second_node::stop_inside(),
        },
        Task::ClusterDown => cluster::down(),
        Task::Schema(options) => schema::run(&options),
        Task::Dist { debug, next, anywhere } => dist::build(debug, next, anywhere),
        Task::MachineTools { folder } => packages::install_machine_tools()
            .and_then(|()| packages::containerd2_into(&folder.join("containerd2")))
            .and_then(|()| packages::kubectl(&folder))
            .and_then(|_| images::test_image(&folder.join("busybox.tar"))),
        Task::Packages => packages::install_all()
            .and_then(|()| packages::prepare_kubectl())
            .and_then(|()| packages::etcd(&run::target().join("packages"))),
        Task::TestContainerd2 => packages::test_containerd2(),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
