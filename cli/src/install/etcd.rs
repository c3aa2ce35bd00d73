//! The etcd member that runs beside a control plane: its certificates, its configuration, its place among the others. The
//! program is the distribution's; the unit is ours.

use super::progress::until;
use super::{machine, run, units};
use crate::node::NodeIdentity;
use crate::store;
use anyhow::{Context as _, Result, bail};
use keelson_daemon::Clock;
use keelson_daemon::config::{Config, EtcdSection};
use keelson_store::{EtcdMember, EtcdMembership, EtcdOptions};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PROGRAM: &str = "/usr/bin/etcd";
/// The unit of the distribution's package, which starts one by itself.
const PACKAGED: &str = "etcd.service";
/// etcd's own ports.
const CLIENTS: u16 = 2379;
const PEERS: u16 = 2380;
/// What must be free for it.
pub const PORTS: [(&str, u16); 2] = [("etcd", CLIENTS), ("members of etcd", PEERS)];
/// Where a cluster's objects lie.
const OBJECTS: &str = "/registry/";
/// How long a new member may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(60);
/// How long etcd may take to hear of its members' last change.
const SETTLES: Duration = Duration::from_secs(30);

/// Whether this machine has a member: the authority's key is only where one is.
pub fn present(config: &Config) -> bool {
    config.paths.pki().join("etcd-ca.key").exists()
}

/// Whether a configuration names the member beside the control plane.
pub fn is_own(section: &EtcdSection) -> bool {
    section.endpoints == [own_endpoint()]
}

/// The folder with its configuration and data.
pub fn folder(config: &Config) -> PathBuf {
    config.paths.state.join("etcd")
}

/// Where a control plane reaches the member beside it: that one alone, so that it has no list of the others to keep. When
/// its member is away, its API server says so, and nodes go to another.
pub fn own_endpoint() -> String {
    endpoint(Ipv4Addr::LOCALHOST.into())
}

/// Where others reach the member of a machine.
fn endpoint(address: IpAddr) -> String {
    format!("https://{}", SocketAddr::new(address, CLIENTS))
}

fn peer(address: IpAddr) -> String {
    format!("https://{}", SocketAddr::new(address, PEERS))
}

/// Refuses where there is no etcd, or where the unit of the distribution's package holds somebody's data. Changes nothing.
pub async fn check() -> Result<()> {
    if !Path::new(PROGRAM).exists() {
        bail!(
            "{PROGRAM} is not there; run `apt-get install etcd-server`, or name an etcd cluster with --etcd-endpoints"
        );
    }
    if units::active(PACKAGED) {
        let mut options = EtcdOptions::new(vec![format!("http://127.0.0.1:{CLIENTS}")], None);
        options.compact_every = None;
        let cluster = EtcdMembership::connect(&options).await.with_context(|| {
            format!("{PACKAGED} runs here, and not as its package brings it; stop it first, `systemctl disable --now {PACKAGED}`")
        })?;
        anyhow::ensure!(
            cluster.is_empty().await?,
            "{PACKAGED} runs on this machine and holds data; take it elsewhere, then run `systemctl disable --now {PACKAGED}`"
        );
    }
    Ok(())
}

/// The etcd of somebody else that a configuration names.
pub fn named(config: &Config) -> Option<&EtcdSection> {
    config.etcd.as_ref().filter(|section| !is_own(section))
}

/// Refuses one that does not answer, or that holds a cluster's objects, which a machine without that cluster's keys cannot go on
/// with. Changes nothing.
pub async fn check_named(config: &Config, named: &EtcdSection) -> Result<()> {
    let cluster = EtcdMembership::connect(&store::etcd_options(named)?).await.with_context(|| {
        format!(
            "etcd cannot be used; `curl --cacert {} --cert {} --key {} {}/health` may say why",
            named.ca_file.display(),
            named.cert_file.display(),
            named.key_file.display(),
            named.endpoints.first().map_or("", String::as_str)
        )
    })?;
    if !config.paths.pki().join("ca.key").exists() && cluster.holds(OBJECTS).await? {
        bail!(
            "etcd at {} holds a cluster's objects already, and the keys of that cluster are not here. Name an empty one; join \
             that cluster with `keelson join --control-plane`; or, if nobody needs it, empty this one with `etcdctl del \
             --prefix {OBJECTS}`",
            named.endpoints.join(", ")
        );
    }
    Ok(())
}

/// Stops the empty etcd that its package has started.
fn make_room() -> Result<()> {
    if machine::systemd() && run("systemctl", &["cat", PACKAGED]).is_ok() {
        run("systemctl", &["disable", "--now", "--quiet", PACKAGED])
            .context("the etcd that its package has started cannot be stopped")?;
    }
    Ok(())
}

/// The first member of a new cluster.
pub fn first(config: &Config, node: &NodeIdentity) -> Result<()> {
    make_room()?;
    certificates(config, node)?;
    let own = format!("{}={}", node.name, peer(node.address));
    configure(config, node, &own, "new")
}

/// A further member: known to the others, reached at `known`, as one that follows, and configured.
pub async fn follow(config: &Config, node: &NodeIdentity, known: &[String]) -> Result<()> {
    make_room()?;
    certificates(config, node)?;
    let others = membership(config, known).await?;
    let url = peer(node.address);
    let is_own = |member: &EtcdMember| member.peer_urls.contains(&url);
    // etcd refuses while a member that came or went a moment ago is not yet heard of everywhere.
    until(SETTLES, || async {
        if !others.list().await?.iter().any(is_own) {
            others.add(&url).await?;
        }
        Ok(())
    })
    .await?;
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
    configure(config, node, &cluster.join(","), "existing")
}

/// Ends the only member, whose objects are elsewhere now. Its data is kept aside.
pub fn retire(config: &Config, when: &str) -> Result<()> {
    units::stop(units::ETCD)?;
    let aside = config.paths.state.join(format!("etcd-before-{when}"));
    let (folder, pki) = (folder(config), config.paths.pki());
    if folder.exists() {
        std::fs::rename(&folder, &aside)
            .with_context(|| format!("cannot rename {} to {}", folder.display(), aside.display()))?;
    }
    let entries = std::fs::read_dir(&pki).with_context(|| format!("cannot read {}", pki.display()))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        let own = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("etcd-"));
        if own {
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Where the members are reached from other machines.
pub async fn endpoints(config: &Config) -> Result<Vec<String>> {
    let members = membership(config, &[own_endpoint()]).await?.list().await?;
    Ok(members.into_iter().filter(|one| !one.learner).flat_map(|one| one.client_urls).collect())
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

/// Takes a node's member out, where it has one and is not the last. One that never started has no name yet: it is known by
/// its address.
pub async fn leave(config: &Config, name: &str, addresses: &[IpAddr]) -> Result<bool> {
    let cluster = membership(config, &[own_endpoint()]).await?;
    let members = cluster.list().await?;
    let at = |member: &EtcdMember| addresses.iter().any(|one| member.peer_urls.contains(&peer(*one)));
    let is_it = |member: &&EtcdMember| member.name == name || (member.name.is_empty() && at(member));
    match members.iter().find(is_it) {
        Some(member) if members.len() > 1 => {
            let id = member.id;
            until(SETTLES, || async {
                if cluster.list().await?.iter().any(|one| one.id == id) {
                    cluster.remove(id).await?;
                }
                Ok(())
            })
            .await?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Makes the member's certificates anew; it reads them with each connection.
pub fn renew(config: &Config, node: &NodeIdentity) -> Result<()> {
    for path in keelson_pki::etcd_certificate_files(&config.paths.pki()) {
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    certificates(config, node)
}

/// The members that do not answer or do not vote, as the one beside this control plane knows them; an error when that one
/// does not answer.
pub async fn ailing(config: &Config) -> Result<Vec<(EtcdMember, &'static str)>> {
    let pki = config.paths.pki();
    let mut ailing = Vec::new();
    for member in membership(config, &[own_endpoint()]).await?.list().await? {
        let section = section(&pki, &member.client_urls);
        let answers = EtcdMembership::connect(&store::etcd_options(&section)?).await.is_ok();
        let why = match (member.name.is_empty(), answers, member.learner) {
            (true, _, _) => "was added and has never started",
            (_, false, _) => "does not answer",
            (_, _, true) => "does not vote yet",
            (_, true, false) => continue,
        };
        ailing.push((member, why));
    }
    Ok(ailing)
}

fn certificates(config: &Config, node: &NodeIdentity) -> Result<()> {
    let (now, life) = (Clock::system().now(), config.certificates.life);
    keelson_pki::ensure_etcd(&config.paths.pki(), &node.name, node.address, now, life)
        .map(drop)
        .context("etcd's certificates cannot be made")
}

async fn membership(config: &Config, endpoints: &[String]) -> Result<EtcdMembership> {
    let section = section(&config.paths.pki(), endpoints);
    Ok(EtcdMembership::connect(&store::etcd_options(&section)?).await?)
}

fn section(pki: &Path, endpoints: &[String]) -> EtcdSection {
    EtcdSection {
        endpoints: endpoints.to_vec(),
        ca_file: pki.join("etcd-ca.crt"),
        cert_file: pki.join("etcd-client.crt"),
        key_file: pki.join("etcd-client.key"),
    }
}

/// The member's file; it and the certificates are the control plane's user's.
fn configure(config: &Config, node: &NodeIdentity, cluster: &str, state: &str) -> Result<()> {
    let folder = folder(config);
    keelson_pki::ensure_dir(&folder, 0o700)?;
    let text = text(&config.paths.pki(), &folder, node, cluster, state);
    keelson_pki::write_atomic(&folder.join("etcd.yaml"), text.as_bytes(), 0o600)?;
    let user = nix::unistd::User::from_name(super::init::USER)?
        .context("there is no user keelson; install the package keelson")?;
    for folder in [folder, config.paths.pki()] {
        super::init::give(&folder, user.uid.as_raw(), user.gid.as_raw())?;
    }
    Ok(())
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
