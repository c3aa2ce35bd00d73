//! `keelson reset`: removes from this machine what Keelson made.
//!
//! Each part goes on after a failure and says what is left; the first run that ends without one has removed all.

use anyhow::{Context, Result, bail};
use keelson_daemon::config::Config;
use keelson_kubelet::cri::{Cri, POD_UID};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the runtime is waited for.
const RUNTIME: Duration = Duration::from_secs(5);

/// Lists what is there, and with `yes` removes it; `state`: the state folder too.
pub async fn run(config: &Config, yes: bool, state: bool) -> Result<()> {
    let cri = Cri::new(&config.kubelet.cri_socket)?;
    let sandboxes = pods(&cri, config).await;
    if !yes {
        for (_, name) in sandboxes.as_deref().unwrap_or_default() {
            println!("pod {name}");
        }
        println!("nft tables, interfaces, routes and the CNI configuration of this node");
        println!("cgroups below {}", config.kubelet.pods_cgroup());
        println!("mounts below {}", config.paths.kubelet().display());
        if state {
            println!("folder {}: database, keys, volumes", config.paths.state.display());
        }
        bail!("nothing was removed; add --yes to remove all of this");
    }
    let mut left: Vec<String> = Vec::new();
    match sandboxes {
        Ok(sandboxes) => {
            for (id, name) in sandboxes {
                let removed = async {
                    cri.stop_sandbox(&id).await?;
                    cri.remove_sandbox(&id).await
                };
                left.extend(removed.await.err().map(|error| format!("pod {name}: {error}")));
            }
        }
        Err(error) => left.push(format!("pods: {error:#}")),
    }
    left.extend(unmount_below(&config.paths.kubelet()).err().map(|error| format!("mounts: {error:#}")));
    left.extend(remove_cgroups(Path::new("/sys/fs/cgroup"), &config.kubelet.pods_cgroup()));
    let network = keelson_proxy::reset(&config.proxy.cni_conf_dir, &config.paths.cni());
    left.extend(network.iter().map(|error| format!("network: {}", chain(error))));
    if state {
        left.extend(remove_folder(&config.paths.state));
    }
    if left.is_empty() {
        return Ok(());
    }
    bail!("some of it is still there; run it again after mending this:\n  {}", left.join("\n  "))
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

fn remove_folder(folder: &Path) -> Option<String> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Some(format!("folder {}: {error}", folder.display()))
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
