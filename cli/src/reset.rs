//! `keelson reset`: removes from this machine what Keelson made: pods, what the kernel holds, and what the ledger lists.
//!
//! Each part goes on after a failure and says what is left; the first run that ends without one has removed all.

use crate::install::ledger::{Entry, Ledger};
use crate::install::progress::{Progress, until};
use crate::install::{self, alone, containerd, firewall, machine, node_leave, sealed, units};
use crate::node_certs::NodeFiles;
use crate::{first_boot, node, shutdown};
use anyhow::{Context, Result, bail};
use futures::future::join_all;
use keelson_daemon::config::Config;
use keelson_kubelet::cri::{Cri, POD_UID};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the API server is waited for, and what pods that are still here have for their end.
const ANSWER: Duration = Duration::from_secs(5);
const END: Duration = Duration::from_secs(10);
/// How long the runtime is waited for.
const RUNTIME: Duration = Duration::from_secs(5);

/// Lists what is there, and with `yes` removes it; `state`: the state folder too.
///
/// Before that the node is cordoned and its pods are evicted, where others can take them: for `drain` at most.
pub async fn run(config: &Config, yes: bool, state: bool, drain: Duration, progress: Progress) -> Result<()> {
    let ledger = Ledger::of(&config.paths.state).entries()?;
    let installed = ledger.iter().any(|entry| matches!(entry, Entry::Unit { .. }));
    if !yes {
        let sandboxes = pods(&Cri::new(&config.kubelet.cri_socket)?, config).await;
        list(config, sandboxes.as_deref().unwrap_or_default(), &ledger, state);
        bail!("nothing was removed; add --yes to remove all of this");
    }
    // The last copy of a cluster's data goes only when that was asked for by name.
    let last_copy = installed && config.paths.database().exists() && !state;
    let mut left: Vec<String> = Vec::new();
    if machine::systemd() && installed && !drain.is_zero() {
        emptied(config, drain, progress).await;
    }
    if state && install::etcd::present(config) {
        leave_etcd(config, progress).await;
    }
    if machine::systemd() && installed {
        left.extend(progress.step("stopping the units", || Ok(stop_units(&ledger)))?);
    }
    let cri = Cri::new(&config.kubelet.cri_socket)?;
    let removed = progress.wait("removing pods", async { Ok(remove_pods(&cri, config).await) }).await?;
    left.extend(removed);
    left.extend(progress.step("removing mounts, cgroups, rules and interfaces", || {
        let mut left = Vec::new();
        left.extend(unmount_below(&config.paths.kubelet()).err().map(|error| format!("mounts: {error:#}")));
        left.extend(remove_cgroups(Path::new("/sys/fs/cgroup"), &config.kubelet.pods_cgroup()));
        let network = keelson_proxy::reset(&config.proxy.cni_conf_dir, &config.paths.cni());
        left.extend(network.iter().map(|error| format!("network: {}", chain(error))));
        let alone = config.node.address.map_or(Ok(()), alone::remove);
        left.extend(alone.err().map(|error| format!("network: {error:#}")));
        Ok(left)
    })?);
    if !ledger.is_empty() {
        let undone = async { Ok(undo(config, &cri, &ledger).await) };
        left.extend(progress.wait("removing what was installed", undone).await?);
    }
    if left.is_empty() && !last_copy {
        left.extend(remove_state(config, state || installed));
    }
    if left.is_empty() {
        if let Some(named) = install::etcd::named(config) {
            progress.say(&format!(
                "what the cluster keeps in etcd at {} stays as it is",
                named.endpoints.join(", ")
            ));
        }
        if last_copy {
            progress.say(&format!(
                "the database and the keys in {} stay; `keelson reset --yes --state` removes them too",
                config.paths.state.display()
            ));
        }
        return Ok(());
    }
    bail!("some of it is still there; run it again after mending this:\n  {}", left.join("\n  "))
}

/// Moves the pods to other nodes, with this node's own identity. A cluster whose only control plane this is goes with it, so
/// there nothing is moved. What cannot be is told, and ends here.
async fn emptied(config: &Config, limit: Duration, progress: Progress) {
    if config.paths.database().join(keelson_store::sqlite::DATABASE).exists() {
        return;
    }
    let Ok(node) = node::identify(&config.node) else { return };
    let identity = NodeFiles::of(config).kubelet;
    if !identity.exists() {
        return;
    }
    let cordoned = async {
        let client = keelson_client::from_kubeconfig(&identity).await?;
        tokio::time::timeout(ANSWER, node_leave::cordon(&client, &node.name))
            .await
            .context("the API server does not answer")??;
        Ok::<_, anyhow::Error>(client)
    };
    let moved = match cordoned.await {
        Ok(client) => {
            let drained = until(limit, || node_leave::drained(&client, &node.name));
            progress.wait("evicting pods", drained).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = moved {
        progress.say(&format!("  not all pods could move to other nodes, and end here: {error:#}"));
    }
}

/// The others are told while this member still runs; where that fails, they are told how to go on without it.
async fn leave_etcd(config: &Config, progress: Progress) {
    let Ok(node) = node::identify(&config.node) else { return };
    let left = progress.wait("leaving etcd", install::etcd::leave(config, &node.name, &[node.address])).await;
    if let Err(error) = left {
        progress.say(&format!(
            "etcd may still count this machine ({error:#}); `keelson node leave {}` on another control plane mends that",
            node.name
        ));
    }
}

fn list(config: &Config, sandboxes: &[(String, String)], ledger: &[Entry], state: bool) {
    for (_, name) in sandboxes {
        println!("pod {name}");
    }
    println!("nft tables, interfaces, routes and the CNI configuration of this node");
    println!("cgroups below {}", config.kubelet.pods_cgroup());
    println!("mounts below {}", config.paths.kubelet().display());
    for entry in ledger {
        match entry {
            Entry::File { path } => println!("file {}", path.display()),
            Entry::Changed { path, .. } => println!("file {}: back to what it was", path.display()),
            Entry::Link { path } => println!("link {}", path.display()),
            Entry::Folder { path } => println!("folder {}, if it is empty", path.display()),
            Entry::Unit { name } => println!("unit {name}: stopped and disabled"),
            Entry::Image { name } => println!("image {name}"),
            Entry::UfwRule { rule } => println!("rule of ufw: {rule}"),
        }
    }
    if let Some(named) = install::etcd::named(config) {
        println!("(what the cluster keeps in etcd at {} stays as it is)", named.endpoints.join(", "));
    }
    if state {
        println!("folder {}: database, keys, volumes", config.paths.state.display());
    }
}

fn stop_units(ledger: &[Entry]) -> Vec<String> {
    let mut left = Vec::new();
    for unit in units::EVERY {
        if !ledger.iter().any(|entry| matches!(entry, Entry::Unit { name } if name == unit)) {
            continue;
        }
        left.extend(units::stop(unit).err().map(|error| format!("unit {unit}: {error:#}")));
    }
    left
}

/// Undoes the ledger, the last made first; then forgets it.
async fn undo(config: &Config, cri: &Cri, ledger: &[Entry]) -> Vec<String> {
    let image = |entry: &Entry| match entry {
        Entry::Image { name } => Some(name.clone()),
        _ => None,
    };
    // Through CRI, which knows an image's other names; it collects what each leaves before it answers.
    let images = ledger
        .iter()
        .filter_map(image)
        .map(async |name| cri.remove_image(&name).await.err().map(|error| format!("image {name}: {error}")));
    let mut left: Vec<String> = join_all(images).await.into_iter().flatten().collect();
    let (mut runtime_changed, mut firewall_changed) = (false, false);
    for entry in ledger {
        if let Entry::UfwRule { rule } = entry {
            left.extend(firewall::take_back(rule).err().map(|error| format!("ufw's rule {rule}: {error:#}")));
        }
        if let Entry::Changed { path, .. } | Entry::File { path } = entry {
            runtime_changed |= path.starts_with("/etc/containerd");
            firewall_changed |= path.starts_with(firewall::FOLDER);
        }
        left.extend(Ledger::undo(entry).err().map(|error| format!("{entry:?}: {error}")));
    }
    if runtime_changed && machine::systemd() {
        left.extend(containerd::restart().err().map(|error| format!("containerd: {error:#}")));
    }
    if firewall_changed && machine::systemd() {
        left.extend(firewall::reload().err().map(|error| format!("firewalld: {error:#}")));
    }
    if left.is_empty() {
        for path in ["ledger.jsonl", "kept"] {
            left.extend(remove_folder(&config.paths.state.join(path)));
        }
    }
    left
}

/// Removes the state: all of it, or what a node has without the database and the keys.
fn remove_state(config: &Config, all: bool) -> Vec<String> {
    if !all {
        return Vec::new();
    }
    let (mut left, mut stays) = (Vec::new(), false);
    left.extend(first_boot::name_back(config).err().map(|error| format!("host name: {error:#}")));
    let inside = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    // The folder itself may be a mount point, or the package's.
    for path in inside(&config.paths.state).map(|entry| entry.path()) {
        if sealed::led_to(&path) {
            stays = true;
            left.extend(inside(&path).filter_map(|entry| remove_folder(&entry.path())));
        } else {
            left.extend(remove_folder(&path));
        }
    }
    if stays {
        return left;
    }
    match std::fs::remove_dir(&config.paths.state) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {}
        Err(error) => left.push(format!("folder {}: {error}", config.paths.state.display())),
        Ok(()) => {}
    }
    left
}

async fn remove_pods(cri: &Cri, config: &Config) -> Vec<String> {
    let sandboxes = match pods(cri, config).await {
        Ok(sandboxes) => sandboxes,
        Err(error) => return vec![format!("pods: {error:#}")],
    };
    let mut left = Vec::new();
    // Containers that do not end by themselves end with their sandboxes.
    if let Err(error) = shutdown::end_all(cri, config, END).await {
        tracing::debug!(%error, "some containers did not end in time");
    }
    for (id, name) in sandboxes {
        let removed = async {
            cri.stop_sandbox(&id).await?;
            cri.remove_sandbox(&id).await
        };
        left.extend(removed.await.err().map(|error| format!("pod {name}: {error}")));
    }
    left
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// Sandboxes that a kubelet made (others of the runtime's namespace are not ours), with the pods' names.
async fn pods(cri: &Cri, config: &Config) -> Result<Vec<(String, String)>> {
    let listed = tokio::time::timeout(RUNTIME, cri.list_sandboxes(None)).await;
    let socket = config.kubelet.cri_socket.display();
    let listed = listed
        .with_context(|| {
            format!("the runtime at {socket} does not answer; start containerd to let its pods be removed")
        })?
        .with_context(|| {
            format!("the runtime at {socket} cannot be asked; start containerd to let its pods be removed")
        })?;
    let named = |sandbox: keelson_kubelet::cri::api::PodSandbox| {
        let metadata = sandbox.metadata.unwrap_or_default();
        (sandbox.id, format!("{}/{}", metadata.namespace, metadata.name))
    };
    Ok(listed.into_iter().filter(|sandbox| sandbox.labels.contains_key(POD_UID)).map(named).collect())
}

fn unmount_below(folder: &Path) -> Result<()> {
    let mut mounts = keelson_sys::mount::table()?;
    mounts.reverse();
    for mount in mounts.iter().filter(|mount| Path::new(&mount.target).starts_with(folder)) {
        keelson_sys::mount::unmount(Path::new(&mount.target), true)?;
    }
    Ok(())
}

/// The pods' cgroups (`pods` below each hierarchy, or the slice that systemd calls so), deepest first. A cgroup with a
/// process in it stays and is told.
fn remove_cgroups(root: &Path, pods: &str) -> Vec<String> {
    let hierarchies =
        std::fs::read_dir(root).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let names = [PathBuf::from(pods), slice(pods)];
    let mut tops: Vec<PathBuf> = Vec::new();
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        tops.extend(names.iter().map(|name| hierarchy.join(name)).filter(|top| top.is_dir()));
    }
    let mut left = Vec::new();
    for top in tops {
        let mut folders = vec![top.clone()];
        let mut next = 0;
        while let Some(folder) = folders.get(next).cloned() {
            let below =
                std::fs::read_dir(&folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
            folders.extend(below.filter(|path| path.is_dir() && !path.is_symlink()));
            next += 1;
        }
        for folder in folders.iter().rev() {
            if let Err(error) = std::fs::remove_dir(folder)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                left.push(format!("cgroup {}: {error}", folder.display()));
            }
        }
    }
    left
}

/// Where systemd keeps the slice of a cgroup path: each part of the name lies below the part before it.
fn slice(pods: &str) -> PathBuf {
    let mut name = String::new();
    pods.split('/')
        .map(|part| {
            name = if name.is_empty() { part.to_owned() } else { format!("{name}-{part}") };
            format!("{name}.slice")
        })
        .collect()
}

fn remove_folder(path: &Path) -> Option<String> {
    let removed = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Some(format!("{}: {error}", path.display()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Empty folders stand for cgroups: both go by rmdir alone.
    #[test]
    fn cgroups_go_in_every_hierarchy_below_the_configured_root_and_no_others() {
        let mount = tempfile::tempdir().unwrap();
        let pods =
            ["cpu/edge/kubepods/burstable/pod1/c", "memory/edge/kubepods/pod2", "edge/kubepods/besteffort"];
        let slices = ["systemd/edge.slice/edge-kubepods.slice/edge-kubepods-burstable.slice"];
        let others = ["cpu/kubepods/pod3", "cpu/edge/mine", "memory/edge.slice/edge-mine.slice"];
        for path in pods.iter().chain(&slices).chain(&others) {
            std::fs::create_dir_all(mount.path().join(path)).unwrap();
        }
        assert_eq!(remove_cgroups(mount.path(), "edge/kubepods"), Vec::<String>::new());
        for gone in [
            "cpu/edge/kubepods",
            "memory/edge/kubepods",
            "edge/kubepods",
            "systemd/edge.slice/edge-kubepods.slice",
        ] {
            assert!(!mount.path().join(gone).exists(), "{gone}");
        }
        for stays in others {
            assert!(mount.path().join(stays).exists(), "{stays}");
        }
        assert_eq!(remove_cgroups(mount.path(), "kubepods"), Vec::<String>::new());
        assert!(!mount.path().join("cpu/kubepods").exists());
    }

    #[test]
    fn a_cgroup_that_cannot_go_is_told() {
        let mount = tempfile::tempdir().unwrap();
        let pod = mount.path().join("cpu/kubepods/pod1");
        std::fs::create_dir_all(&pod).unwrap();
        std::fs::write(pod.join("tasks"), "1").unwrap();
        let left = remove_cgroups(mount.path(), "kubepods");
        assert!(left.iter().any(|line| line.contains("kubepods/pod1")), "{left:?}");
    }
}
