//! What an administrator does with a machine: make a cluster on it, let it join one, hand out tokens, look after
//! certificates, take it out again.
//!
//! Every step may be interrupted and run again. What is made outside of the state folder is first written into the
//! [`ledger`], so that reset removes exactly that.

pub mod alone;
pub mod certs;
pub mod containerd;
pub mod discovery;
pub mod dropin;
pub mod etcd;
pub mod firewall;
pub mod handover;
pub mod init;
pub mod join;
pub mod ledger;
pub mod machine;
pub mod machine_id;
pub mod node_leave;
pub mod progress;
pub mod registries;
pub mod sealed;
pub mod status;
pub mod token;
pub mod units;

use anyhow::{Context as _, Result};
use keelson_daemon::config::Config;
use std::path::{Path, PathBuf};

/// A client as this machine's administrator, or with another kubeconfig.
pub async fn admin(config: &Config, kubeconfig: Option<&Path>) -> Result<kube::Client> {
    let default = config.paths.kubeconfig("admin");
    let path: PathBuf = kubeconfig.map_or(default, Path::to_owned);
    if !path.exists() {
        anyhow::bail!(
            "there is no kubeconfig at {}; run this on a control plane, or give --kubeconfig FILE",
            path.display()
        );
    }
    keelson_client::from_kubeconfig(&path).await.with_context(|| format!("{} cannot be used", path.display()))
}

/// Runs a program and returns what it printed; what it said on standard error when it failed.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let line = || format!("{program} {}", arguments.join(" "));
    let output = std::process::Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run `{}`", line()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::bail!("`{}` failed: {}", line(), said.trim())
}
