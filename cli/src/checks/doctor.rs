//! `keelson doctor`: all checks of a machine that is part of a cluster.

use super::{Finding, Found, Role, Subject, command, run, wrong};
use crate::install::ledger::Ledger;
use crate::install::progress::{Output, Progress};
use crate::install::{etcd, init, units};
use crate::node;
use crate::node_certs::NodeFiles;
use anyhow::{Result, bail};
use keelson_daemon::config::{self, Config, ConfigError};
use serde_json::json;
use std::path::Path;

/// Checks, and prints. An error when something is wrong; what is only worth knowing is none.
pub async fn run_all(file: Option<&Path>, output: Output) -> Result<()> {
    let findings = match config::load(file) {
        Ok(config) => look(&config).await?,
        Err(error) => vec![Finding { name: "configuration", found: refused(&error) }],
    };
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&as_json(&findings))?),
        Output::Text => print(&findings),
    }
    match findings.iter().filter(|finding| matches!(finding.found, Found::Wrong { .. })).count() {
        0 => Ok(()),
        1 => bail!("one thing is wrong"),
        count => bail!("{count} things are wrong"),
    }
}

/// What this machine is in its cluster, and the units that it should run.
fn role(config: &Config) -> Result<(Role, &'static [&'static str])> {
    let files = NodeFiles::of(config);
    let joined = files.kubelet.exists() || files.bootstrap.exists();
    Ok(match (config.paths.pki().join("ca.crt").exists(), joined) {
        (true, true) if etcd::present(config) => {
            (Role::ControlPlane, &[units::ETCD, units::CONTROL_PLANE, units::KUBELET, units::PROXY])
        }
        (true, true) => (Role::ControlPlane, &[units::CONTROL_PLANE, units::KUBELET, units::PROXY]),
        (true, false) => (Role::ControlPlane, &[units::ALL_IN_ONE]),
        (false, true) => (Role::Worker, &[units::KUBELET, units::PROXY]),
        (false, false) => {
            bail!("this machine is in no cluster; `keelson init` makes one, `keelson join` joins one")
        }
    })
}

/// `keelson firewall`: what the check of the firewall asks for.
pub fn open_firewall(config: &Config) -> Result<()> {
    let (role, _) = role(config)?;
    let node = node::identify(&config.node)?;
    let ledger = Ledger::of(&config.paths.state);
    init::open_firewall(&ledger, config, &node, role == Role::ControlPlane, Progress::new(Output::Text))
}

async fn look(config: &Config) -> Result<Vec<Finding>> {
    let (role, units) = role(config)?;
    let node = node::identify(&config.node)?;
    let running = units.iter().any(|unit| units::started(unit));
    let subject = Subject { config, role, address: node.address, running, units, node: &node.name };
    let mut findings = vec![Finding { name: "configuration", found: super::good("is read") }];
    findings.extend(run(&subject, |_| true).await);
    Ok(findings)
}

/// A configuration that no unit will start with.
fn refused(error: &ConfigError) -> Found {
    let mut text = error.to_string();
    if let Some(source) = std::error::Error::source(error) {
        text.push_str(&format!(": {source}"));
    }
    match error {
        ConfigError::Read { path, .. }
        | ConfigError::Syntax { path, .. }
        | ConfigError::UnknownKey { path, .. } => wrong(
            text,
            format!(
                "Correct it, or take the file away: `mv {} {}.refused`; `keelson config` prints all keys",
                path.display(),
                path.display()
            ),
        ),
        ConfigError::Value { .. } | ConfigError::Shape(_) => {
            wrong(text, "Correct it; `keelson config` prints all keys")
        }
    }
}

fn as_json(findings: &[Finding]) -> serde_json::Value {
    let one = |finding: &Finding| match &finding.found {
        Found::Good(text) => json!({"name": finding.name, "state": "good", "text": text}),
        Found::Notice { what, mend } => {
            json!({"name": finding.name, "state": "notice", "text": what, "mend": mend, "command": command(mend)})
        }
        Found::Wrong { what, mend } => {
            json!({"name": finding.name, "state": "wrong", "text": what, "mend": mend, "command": command(mend)})
        }
    };
    json!({"checks": findings.iter().map(one).collect::<Vec<_>>()})
}

fn print(findings: &[Finding]) {
    for finding in findings {
        match &finding.found {
            Found::Good(text) => println!("✓ {}: {text}", finding.name),
            Found::Notice { what, mend } => println!("! {}: {what}\n    {mend}", finding.name),
            Found::Wrong { what, mend } => println!("✗ {}: {what}\n    {mend}", finding.name),
        }
    }
}
