//! The `keelson` binary: the composition root. It reads the configuration, makes identities, and starts the components
//! that a command names; it holds no behaviour of theirs.
#![forbid(unsafe_code)]

mod all_in_one;
mod balancer;
mod bundle;
mod checks;
mod control_plane;
mod docs;
mod first_boot;
mod hashed;
mod install;
mod kubelet;
mod migrate;
mod node;
mod node_certs;
mod print_config;
mod proxy;
mod publish;
mod reset;
mod service;
mod settings;
mod shutdown;
mod snapshot;
mod store;
mod upgrade;
mod version;
mod watched;

use anyhow::Result;
use clap::{Parser, Subcommand};
use install::progress::{Output, Progress};
use install::{certs, init, join, node_leave, status, token};
use keelson_daemon::config::{self, Config};
use keelson_pki::BootstrapToken;
use std::path::PathBuf;
use std::process::ExitCode;

/// Kubernetes for your own machines.
///
/// One binary runs every part of a cluster. `keelson init` makes a cluster on this machine, and prints the command with
/// which other machines join it. The administrator's kubeconfig is then `admin.conf` in the state folder.
#[derive(Parser)]
#[command(name = "keelson", version = version::OWN, about, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a cluster on this machine (root).
    ///
    /// Checks the machine, writes the configuration, makes keys and certificates, starts the units, waits until the node is
    /// Ready, and prints the command with which other machines join. Safe to run again after it was interrupted.
    Init(Box<init::Args>),
    /// Make this machine a node of a cluster (root).
    ///
    /// `keelson token create --print-join-command` on a control plane prints the whole command.
    Join(Box<join::Args>),
    /// Bootstrap tokens, with which machines join.
    Token {
        #[command(subcommand)]
        command: TokenCommand,
        #[command(flatten)]
        common: Common,
    },
    /// This machine's certificates.
    Certs {
        #[command(subcommand)]
        command: CertsCommand,
        #[command(flatten)]
        common: Common,
    },
    /// Show this machine and its cluster on one screen.
    Status {
        #[command(flatten)]
        common: Common,
    },
    /// Check this machine, and say what is wrong and which command mends it (root).
    ///
    /// Ends with an error when something is wrong; what is only worth knowing is none.
    Doctor {
        #[command(flatten)]
        file: ConfigFile,
        #[arg(long, short, value_enum, default_value = "text")]
        output: Output,
    },
    /// Make containerd agree with Keelson again: sandbox image, CNI plugin (root).
    ///
    /// `keelson init` and `keelson join` do this too; what changes stands in the ledger that `keelson reset` undoes.
    Runtime {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Make a firewalld or ufw that is on let through what the cluster needs (root).
    ///
    /// `keelson init` and `keelson join` do this too; what changes stands in the ledger that `keelson reset` undoes.
    Firewall {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// End the containers of this node's pods, where the machine is going down; its unit calls it.
    #[command(hide = true)]
    Shutdown {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Nodes of the cluster.
    Node {
        #[command(subcommand)]
        command: NodeCommand,
        #[command(flatten)]
        common: Common,
    },
    /// Snapshots of the cluster: its objects, keys and shared configuration in one file.
    Snapshot {
        #[command(subcommand)]
        command: SnapshotCommand,
        #[command(flatten)]
        file: ConfigFile,
        #[arg(long, short, global = true, value_enum, default_value = "text")]
        output: Output,
    },
    /// Move the cluster's objects to etcd, or back to the SQLite file (root).
    ///
    /// The control plane is stopped meanwhile; pods run on. Each object is compared before the new store is used; the old
    /// one is kept aside.
    MigrateStore {
        #[command(subcommand)]
        target: migrate::Target,
        #[command(flatten)]
        file: ConfigFile,
        #[arg(long, short, global = true, value_enum, default_value = "text")]
        output: Output,
    },
    /// A machine that configures itself from a file at its first boot.
    FirstBoot {
        #[command(subcommand)]
        command: first_boot::Command,
        #[command(flatten)]
        file: ConfigFile,
        #[arg(long, short, global = true, value_enum, default_value = "text")]
        output: Output,
    },
    /// All that machines without a network need, in one signed file.
    ///
    /// `create` on a machine that has a network; `install` on each that has none, with the program and the file alone.
    Bundle {
        #[command(subcommand)]
        command: bundle::Command,
        #[command(flatten)]
        file: ConfigFile,
        #[arg(long, short, global = true, value_enum, default_value = "text")]
        output: Output,
    },
    /// Another version on this machine, and the way back (root).
    ///
    /// Each machine is upgraded by itself, control planes before workers.
    Upgrade {
        #[command(subcommand)]
        command: upgrade::Command,
        #[command(flatten)]
        file: ConfigFile,
        #[arg(long, short, global = true, value_enum, default_value = "text")]
        output: Output,
    },
    /// Run control plane, kubelet and proxy as one process on one SQLite file (needs root and containerd).
    AllInOne {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Run API server, scheduler and controllers as one process (needs no privilege).
    ///
    /// With `paths.state` in a folder of yours and `apiServer.bind` on a free port it runs from a checkout too. Section
    /// `etcd` of the configuration makes it one of several on an etcd cluster; these share the ca, front-proxy-ca and sa
    /// files of their PKI folders.
    ControlPlane {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Run the kubelet alone, with this machine's identity (needs root and containerd).
    Kubelet {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Run Services, cluster DNS and routes of this node alone (needs CAP_NET_ADMIN).
    Proxy {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Print the configuration file with every key, its default and what it does.
    Config,
    /// Remove from this machine what Keelson made: pods, rules, interfaces, mounts, cgroups, units, files.
    ///
    /// Lists what it will remove; with --yes moves the pods to other nodes, stops the units and removes it. The state folder of a
    /// control plane, with the database and the keys, is kept unless --state is given too.
    Reset {
        #[command(flatten)]
        file: ConfigFile,
        /// Remove without asking.
        #[arg(long)]
        yes: bool,
        /// Remove the state folder too: database, keys, volumes. There is no way back.
        #[arg(long)]
        state: bool,
        /// How long pods may take to move to other nodes; 0: they end here.
        #[arg(long, default_value = "60s", value_parser = ttl)]
        drain_timeout: std::time::Duration,
    },
    /// Wait before a unit's program begins that ended again and again; etcd's unit calls it.
    #[command(hide = true)]
    HoldBack,
    /// Write manual pages and shell completions into a folder, for packages.
    #[command(hide = true)]
    Docs { folder: PathBuf },
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Make a token.
    Create {
        /// The token; a random one otherwise.
        token: Option<BootstrapToken>,
        /// How long it holds: 90s, 30m, 24h, or 0 for ever.
        #[arg(long, default_value = "24h", value_parser = ttl)]
        ttl: std::time::Duration,
        #[arg(long, default_value = "")]
        description: String,
        /// Groups of who logs in with it.
        #[arg(long, value_delimiter = ',', default_value = token::GROUP)]
        groups: Vec<String>,
        /// What it is for.
        #[arg(long, value_delimiter = ',', default_value = "signing,authentication")]
        usages: Vec<String>,
        /// Print the whole command with which a machine joins.
        #[arg(long)]
        print_join_command: bool,
        /// With --print-join-command: the command for another control plane. The cluster's keys are put into the cluster for
        /// two hours, sealed with the key in the command.
        #[arg(long, requires = "print_join_command")]
        control_plane: bool,
    },
    /// List the tokens (without their secret halves).
    List,
    /// Remove tokens, by their ids or whole.
    Delete {
        #[arg(required = true)]
        tokens: Vec<String>,
    },
}

#[derive(Subcommand)]
enum CertsCommand {
    /// List them with the times when they end and when they are renewed by themselves.
    List,
    /// Make the control plane's certificates anew now (root). Authorities and service-account keys stay.
    Renew,
}

#[derive(Subcommand)]
enum SnapshotCommand {
    /// Take one now, while everything runs (root, on a control plane).
    Save {
        /// Where to; a file named by machine and time in the folder of snapshots otherwise.
        path: Option<PathBuf>,
    },
    /// Make this machine the control plane of the cluster that a snapshot is of (root).
    ///
    /// On a machine that has the packages and nothing else this is all that is needed: keys and configuration are in the
    /// file. What was written after the snapshot is lost.
    Restore(Box<snapshot::restore::Args>),
    /// List those in the folder of snapshots, each read to its end.
    List,
}

#[derive(Subcommand)]
enum NodeCommand {
    /// Take a node out of the cluster: cordon it, evict its pods, remove it.
    Leave {
        name: String,
        /// How long pods may take to go.
        #[arg(long, default_value = "5m", value_parser = ttl)]
        timeout: std::time::Duration,
    },
}

/// What the administrator's commands share.
#[derive(clap::Args)]
struct Common {
    #[command(flatten)]
    file: ConfigFile,
    /// Kubeconfig to use; admin.conf in the state folder otherwise.
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    #[arg(long, short, global = true, value_enum, default_value = "text")]
    output: Output,
}

fn ttl(text: &str) -> Result<std::time::Duration, String> {
    if text == "0" {
        return Ok(std::time::Duration::ZERO);
    }
    config::duration_of(text).ok_or_else(|| "it must be a duration such as 90s, 30m or 24h, or 0".into())
}

#[derive(clap::Args)]
struct ConfigFile {
    /// Configuration file; FILE.d/*.yaml are read after it. `keelson config` prints all keys.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    /// The file, where there is one.
    fn path(&self) -> Option<PathBuf> {
        let default = PathBuf::from(keelson_base::consts::CONFIG_DIR).join("config.yaml");
        self.config.clone().or_else(|| default.exists().then_some(default))
    }

    fn load(&self) -> Result<Config> {
        let config = config::load(self.path().as_deref())?;
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

fn run(args: Args) -> Result<()> {
    match args.command {
        Command::AllInOne { file } => service::unit(|| {
            let config = file.load()?;
            service::runtime()?.block_on(all_in_one::run(config))
        }),
        Command::ControlPlane { file } => service::unit(|| {
            let config = file.load()?;
            service::runtime()?.block_on(control_plane::run(config))
        }),
        Command::Kubelet { file } => service::unit(|| {
            let config = file.load()?;
            service::runtime()?.block_on(kubelet::run(config))
        }),
        Command::Proxy { file } => service::unit(|| {
            let config = file.load()?;
            service::runtime()?.block_on(proxy::run(config))
        }),
        Command::Config => {
            print!("{}", print_config::text());
            Ok(())
        }
        Command::Reset { file, yes, state, drain_timeout } => {
            let config = file.load()?;
            let progress = Progress::new(Output::Text);
            service::runtime()?.block_on(reset::run(&config, yes, state, drain_timeout, progress))
        }
        Command::HoldBack => {
            service::hold_back();
            Ok(())
        }
        Command::Docs { folder } => docs::write(&folder),
        Command::FirstBoot { command, file, output } => {
            quiet();
            let place = file.config.clone().unwrap_or_else(init::default_file);
            first_boot::work(command, &file.load()?, &place, output)
        }
        Command::Bundle { command, file, output } => {
            quiet();
            bundle::work(command, file.path().as_deref(), output)
        }
        command => service::runtime()?.block_on(administer(command)),
    }
}

/// The administrator's commands.
async fn administer(command: Command) -> Result<()> {
    match command {
        Command::Init(args) => {
            quiet();
            init::run(*args).await
        }
        Command::Join(args) => {
            quiet();
            join::run(*args).await
        }
        Command::Token { command, common } => {
            let (config, client) = common.client().await?;
            tokens(command, &config, &client, common.output).await
        }
        Command::Certs { command, common } => {
            let config = common.file.load()?;
            match command {
                CertsCommand::List => certs::show(&certs::list(&config)?, common.output),
                CertsCommand::Renew => {
                    certs::renew(&config)?;
                    println!(
                        "renewed; `systemctl restart keelson keelson-control-plane` (whichever runs here) takes them into use"
                    );
                    Ok(())
                }
            }
        }
        Command::Snapshot { command, file, output } => {
            quiet();
            match command {
                SnapshotCommand::Save { path } => snapshot::save(&file.load()?, path, output).await,
                SnapshotCommand::Restore(args) => snapshot::restore::run(*args, file.config, output).await,
                SnapshotCommand::List => snapshot::show(&snapshot::list(&file.load()?)?, output),
            }
        }
        Command::Doctor { file, output } => {
            quiet();
            checks::doctor::run_all(file.path().as_deref(), output).await
        }
        Command::Runtime { file } => {
            quiet();
            let config = file.load()?;
            install::init::agree_with_runtime(&install::ledger::Ledger::of(&config.paths.state), &config)
        }
        Command::Firewall { file } => {
            quiet();
            checks::doctor::open_firewall(&file.load()?)
        }
        Command::Shutdown { file } => shutdown::work(&file.load()?).await,
        Command::MigrateStore { target, file, output } => {
            quiet();
            migrate::run(target, file.config, output).await
        }
        Command::Upgrade { command, file, output } => {
            quiet();
            upgrade::run(command, &file.load()?, output).await
        }
        Command::Status { common } => status::run(&common.file.load()?, common.output).await,
        Command::Node { command: NodeCommand::Leave { name, timeout }, common } => {
            let (config, client) = common.client().await?;
            node_leave::run(&config, &client, &name, timeout, Progress::new(common.output)).await
        }
        _ => anyhow::bail!("this command runs elsewhere"),
    }
}

/// Commands with a progress display log nothing unless asked for by KEELSON_LOG: they say themselves what went wrong.
fn quiet() {
    keelson_daemon::telemetry::init(keelson_daemon::telemetry::LogFormat::Text, "off");
}

impl Common {
    async fn client(&self) -> Result<(Config, kube::Client)> {
        quiet();
        let config = self.file.load()?;
        let client = install::admin(&config, self.kubeconfig.as_deref()).await?;
        Ok((config, client))
    }
}

async fn tokens(command: TokenCommand, config: &Config, client: &kube::Client, output: Output) -> Result<()> {
    match command {
        TokenCommand::Create {
            token,
            ttl,
            description,
            groups,
            usages,
            print_join_command,
            control_plane,
        } => {
            let ttl = Some(ttl).filter(|ttl| !ttl.is_zero());
            let wanted = token::NewToken { token, ttl, description, groups, usages };
            let key = match control_plane {
                true => Some(install::handover::upload(client, config).await?),
                false => None,
            };
            let made = token::create(client, &wanted).await?;
            let text = match print_join_command {
                true => token::join_command(client, &made, key.as_ref()).await?,
                false => made.to_string(),
            };
            match output {
                Output::Text => println!("{text}"),
                Output::Json => println!("{}", serde_json::json!({"token": made.to_string(), "text": text})),
            }
            Ok(())
        }
        TokenCommand::List => token::show(&token::list(client).await?, output),
        TokenCommand::Delete { tokens } => {
            for token in tokens {
                println!("token {} deleted", token::delete(client, &token).await?);
            }
            Ok(())
        }
    }
}
