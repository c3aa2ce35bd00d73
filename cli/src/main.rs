//! The `keelson` binary: the composition root. It reads the configuration, makes identities, and starts the components
//! that a command names; it holds no behaviour of theirs.
#![forbid(unsafe_code)]

mod all_in_one;
mod node;
mod print_config;
mod reset;
mod store;

use all_in_one::Parts;
use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use keelson_daemon::config::{self, Config};
use std::path::PathBuf;
use std::process::ExitCode;

/// Kubernetes for your own machines.
///
/// One binary runs every part of a cluster. Start a whole cluster on this machine with `keelson all-in-one`; its
/// administrator's kubeconfig is then `admin.conf` in the state folder.
#[derive(Parser)]
#[command(name = "keelson", version, about, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run control plane, kubelet and proxy as one process on one SQLite file (needs root and containerd).
    AllInOne {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Run API server, scheduler and controllers as one process, without kubelet and proxy.
    ///
    /// On SQLite alone, or one of several on the etcd cluster that section `etcd` of the configuration names; these
    /// share the ca, front-proxy-ca and sa files of their PKI folders. Needs no root.
    ControlPlane {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Print the configuration file with every key, its default and what it does.
    Config,
    /// Remove from this machine what Keelson made: pods, rules, interfaces, mounts, cgroups.
    ///
    /// Keelson must be stopped. Lists what it will remove; with --yes removes it. The state folder with the database
    /// and the keys is kept unless --state is given too.
    Reset {
        #[command(flatten)]
        file: ConfigFile,
        /// Remove without asking.
        #[arg(long)]
        yes: bool,
        /// Remove the state folder too: database, keys, volumes. There is no way back.
        #[arg(long)]
        state: bool,
    },
}

#[derive(clap::Args)]
struct ConfigFile {
    /// Configuration file; FILE.d/*.yaml are read after it. `keelson config` prints all keys.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    fn load(&self) -> Result<Config> {
        let default = PathBuf::from(keelson_base::consts::CONFIG_DIR).join("config.yaml");
        let file = self.config.clone().or_else(|| default.exists().then_some(default));
        let config = config::load(file.as_deref())?;
        keelson_daemon::telemetry::init(config.log.format, &config.log.filter);
        Ok(config)
    }
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(file: &ConfigFile, parts: Parts) -> Result<()> {
    let config = file.load()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("keelson")
        .build()
        .context("cannot start the asynchronous runtime")?;
    runtime.block_on(all_in_one::run(config, parts))
}

fn run(args: Args) -> Result<()> {
    match args.command {
        Command::AllInOne { file } => serve(&file, Parts::All),
        Command::ControlPlane { file } => serve(&file, Parts::ControlPlane),
        Command::Config => {
            print!("{}", print_config::text());
            Ok(())
        }
        Command::Reset { file, yes, state } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(reset::run(&file.load()?, yes, state))
        }
    }
}
