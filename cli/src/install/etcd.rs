//! The etcd member that runs beside a control plane: its certificates, its configuration, its place among the others. The
//! program is the distribution's; the unit is ours.

use super::progress::until;
use super::{machine, run};
use crate::node::NodeIdentity;
use crate::store;
use anyhow::{Context as _, Result, bail};
use keelson_daemon::Clock;
use keelson_daemon::config::{Config, EtcdSection};
use keelson_store::{EtcdMember, EtcdMembership};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PROGRAM: &str = "/usr/bin/etcd";
/// etcd's own ports.
const CLIENTS: u16 = 2379;
const PEERS: u16 = 2380;
/// How long a new member may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(60);

/// Whether this machine has a member: the authority's key is only where one is.
pub fn present(config: &Config) -> bool {
    config.paths.pki().join("etcd-ca.key").exists()
}

/// The folder with its configuration and data.
pub fn folder(config: &Config) -> PathBuf {
    config.paths.state.join("etcd")
}

/// Where clients reach the member of a machine.
pub fn endpoint(address: IpAddr) -> String {
    format!("https://{}", SocketAddr::new(address, CLIENTS))
}

fn peer(address: IpAddr) -> String {
    format!("https://{}", SocketAddr::new(address, PEERS))
}

/// Refuses where there is no etcd; stops the one that the distribution's package has started.
pub fn prepare() -> Result<()> {
    if !Path::new(PROGRAM).exists() {
        bail!(
            "{PROGRAM} is not there; run `apt-get install etcd-server`, or name an etcd cluster with --etcd-endpoints"
        );
    }
    if machine::systemd() && run("systemctl", &["cat", "etcd.service"]).is_ok() {
        run("systemctl", &["disable", "--now", "--quiet", "etcd.service"])
            .context("the etcd that its package has started cannot be stopped")?;
    }
    Ok(())
}

/// The first member of a new cluster.
pub fn first(config: &Config, node: &NodeIdentity) -> Result<()> {
    certificates(config, node)?;
    let own = format!("{}={}", node.name, peer(node.address));
    configure(config, node, &own, "new")
}

/// A further member: known to the others as one that follows, and configured. Where clients reach all of them.
pub async fn follow(config: &Config, node: &NodeIdentity, known: &[String]) -> Result<Vec<String>> {
    certificates(config, node)?;
    let others = membership(config, known).await?;
    let url = peer(node.address);
    let is_own = |member: &EtcdMember| member.peer_urls.contains(&url);
    if !others.list().await?.iter().any(is_own) {
        others.add(&url).await?;
    }
    let members = others.list().await?;
    let mut cluster = Vec::new();
    for member in &members {
        let name = if is_own(member) { &node.name } else { &member.name };
        anyhow::ensure!(
            !name.is_empty(),
            "a member at {} was added to etcd and has never started; `keelson node leave` its node first",
            member.peer_urls.join(", ")
        );
        cluster.extend(member.peer_urls.iter().map(|url| format!("{name}={url}")));
    }
    configure(config, node, &cluster.join(","), "existing")?;
    let mut endpoints = vec![endpoint(node.address)];
    endpoints.extend(members.into_iter().flat_map(|member| member.client_urls));
    endpoints.dedup();
    Ok(endpoints)
}

/// Waits until the new member has caught up, and lets it vote.
pub async fn vote(config: &Config, node: &NodeIdentity, known: &[String]) -> Result<()> {
    let others: Vec<String> = known.iter().filter(|one| **one != endpoint(node.address)).cloned().collect();
    let url = peer(node.address);
    until(CATCH_UP, || async {
        let cluster = membership(config, &others).await?;
        let own = cluster.list().await?.into_iter().find(|member| member.peer_urls.contains(&url));
        match own {
            Some(member) if member.learner => Ok(cluster.promote(member.id).await?),
            Some(_) => Ok(()),
            None => bail!("etcd does not know this machine's member"),
        }
    })
    .await
}

/// Takes a node's member out, where it has one and is not the last.
pub async fn leave(config: &Config, name: &str) -> Result<bool> {
    let Some(section) = &config.etcd else { return Ok(false) };
    let cluster = membership(config, &section.endpoints).await?;
    let members = cluster.list().await?;
    match members.iter().find(|member| member.name == name) {
        Some(member) if members.len() > 1 => {
            cluster.remove(member.id).await?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn certificates(config: &Config, node: &NodeIdentity) -> Result<()> {
    keelson_pki::ensure_etcd(&config.paths.pki(), &node.name, node.address, Clock::system().now())
        .map(drop)
        .context("etcd's certificates cannot be made")
}

async fn membership(config: &Config, endpoints: &[String]) -> Result<EtcdMembership> {
    let pki = config.paths.pki();
    let section = EtcdSection {
        endpoints: endpoints.to_vec(),
        ca_file: pki.join("etcd-ca.crt"),
        cert_file: pki.join("etcd-client.crt"),
        key_file: pki.join("etcd-client.key"),
    };
    Ok(EtcdMembership::connect(&store::etcd_options(&section)?).await?)
}

/// The member's file, for the control plane's user.
fn configure(config: &Config, node: &NodeIdentity, cluster: &str, state: &str) -> Result<()> {
    let folder = folder(config);
    keelson_pki::ensure_dir(&folder, 0o700)?;
    let text = text(&config.paths.pki(), &folder, node, cluster, state);
    keelson_pki::write_atomic(&folder.join("etcd.yaml"), text.as_bytes(), 0o600)?;
    let user = nix::unistd::User::from_name(super::init::USER)?
        .context("there is no user keelson; install the package keelson")?;
    super::init::give(&folder, user.uid.as_raw(), user.gid.as_raw())
}

fn text(pki: &Path, folder: &Path, node: &NodeIdentity, cluster: &str, state: &str) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let file = |name: &str| quoted(&pki.join(name).to_string_lossy());
    let own = endpoint(node.address);
    let listen = match node.address.is_loopback() {
        true => own.clone(),
        false => format!("{own},https://127.0.0.1:{CLIENTS}"),
    };
    let security = |name: &str| {
        format!(
            "  cert-file: {}\n  key-file: {}\n  trusted-ca-file: {}\n  client-cert-auth: true\n",
            file(&format!("{name}.crt")),
            file(&format!("{name}.key")),
            file("etcd-ca.crt")
        )
    };
    let peers = peer(node.address);
    format!(
        "# Written by keelson when this machine became a control plane.\nname: {}\ndata-dir: {}\nlisten-client-urls: \
         {listen}\nadvertise-client-urls: {own}\nlisten-peer-urls: {peers}\ninitial-advertise-peer-urls: {peers}\n\
         initial-cluster: {}\ninitial-cluster-state: {state}\nlogger: zap\nclient-transport-security:\n{}\
         peer-transport-security:\n{}",
        quoted(&node.name),
        quoted(&folder.join("data").to_string_lossy()),
        quoted(cluster),
        security("etcd-server"),
        security("etcd-peer"),
    )
}
