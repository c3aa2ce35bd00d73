//! How long the very first start takes: an empty folder, the CA made, until the node has written a Ready heartbeat.
//!
//! It runs beside the cluster, in network and mount namespaces of its own, with the cluster's binary and configuration moved
//! to other folders on the same file system, and a containerd that has no pods.

use crate::Bench;
use crate::client::Kubeconfig;
use crate::start::{heartbeat, wait};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

const ROUNDS: usize = 3;
const LIMIT: Duration = Duration::from_secs(30);
/// Runs its arguments in new namespaces that have a default route, which tells keelson the node's address.
const NAMESPACES: &str = "mount -t tmpfs -o mode=0755 first-start /run && ip link set lo up && \
    ip link add up0 type veth peer name up1 && ip link set up1 up && ip addr add 192.168.223.1/24 dev up0 && \
    ip link set up0 up && ip route add default dev up0 && exec \"$0\" \"$@\"";

/// The median of three first starts.
pub fn measure(bench: &mut Bench) -> Result<()> {
    let mut seconds = Vec::new();
    for round in 0..ROUNDS {
        let folder = bench.scratch.join(format!("first-{round}"));
        prepare(bench, &folder)?;
        let said = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "sh", "-c", NAMESPACES])
            .arg(std::env::current_exe()?)
            .arg("--first-start-in")
            .arg(&folder)
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(said.status.success(), "the first start failed; its logs are in {}", folder.display());
        seconds.push(String::from_utf8(said.stdout)?.trim().parse().context("no figure")?);
        std::fs::remove_dir_all(&folder)?;
    }
    let median = crate::report::percentile(&mut seconds, 0.5);
    bench.report.add("first_start_s", median, "s", 4.0);
    Ok(())
}

/// The cluster's configuration, its folders replaced.
fn prepare(bench: &Bench, folder: &Path) -> Result<()> {
    let moved = |file: &Path| -> Result<String> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let here = folder.to_string_lossy();
        // The folder lies in the data's: that one first, or it would be replaced in what was put in.
        let text = text.replace(&*bench.places.data.to_string_lossy(), &here);
        Ok(text.replace(&*bench.places.run.to_string_lossy(), &format!("{here}/run")))
    };
    for sub in ["run", "cni/bin", "cni/conf", "containerd"] {
        std::fs::create_dir_all(folder.join(sub))?;
    }
    let config = moved(&bench.places.config())?;
    let root = format!("cgroupRoot: {}", bench.places.cgroup_root);
    ensure!(config.contains(&root), "the configuration names no cgroup root");
    std::fs::write(folder.join("config.yaml"), config.replace(&root, "cgroupRoot: /keelson-first-start"))?;
    std::fs::write(
        folder.join("containerd.toml"),
        moved(&bench.places.data.join("containerd/config.toml"))?,
    )?;
    for plugin in ["keelson-cni", "loopback"] {
        std::fs::copy(bench.places.data.join("cni/bin").join(plugin), folder.join("cni/bin").join(plugin))?;
    }
    let command = bench.process.command_line()?;
    std::fs::write(folder.join("binary"), command.first().context("empty command line")?)?;
    Ok(())
}

/// Ends it in order when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(Command::new("kill").arg(self.0.id().to_string()).status());
        drop(self.0.wait());
    }
}

fn run(command: &mut Command, log: &Path) -> Result<Running> {
    let log = std::fs::File::create(log)?;
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    Ok(Running(child))
}

/// Within the namespaces: prints the seconds.
pub async fn start_here(folder: &Path) -> Result<()> {
    let config = folder.join("containerd.toml");
    let _containerd =
        run(Command::new("containerd").arg("--config").arg(config), &folder.join("containerd.log"))?;
    let socket = folder.join("run/containerd.sock");
    let begun = Instant::now();
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        ensure!(begun.elapsed() < LIMIT, "containerd does not answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Its plugins are up when it answers a call.
    let version =
        Command::new("ctr").arg("--address").arg(&socket).arg("version").stdout(Stdio::null()).status()?;
    ensure!(version.success(), "containerd does not answer");
    let binary = std::fs::read_to_string(folder.join("binary"))?;
    let (begun, wall) = (Instant::now(), SystemTime::now());
    let mut command = Command::new(binary);
    command.arg("all-in-one").arg("--config").arg(folder.join("config.yaml"));
    let keelson = run(&mut command, &folder.join("keelson.log"))?;
    let kubeconfig = folder.join("state/admin.conf");
    let took = wait(begun, || async { heartbeat(&Kubeconfig::read(&kubeconfig)?, wall).await }).await?;
    println!("{:.3}", took / 1e3);
    drop(keelson);
    let reset = Command::new(std::fs::read_to_string(folder.join("binary"))?)
        .args(["reset", "--yes", "--config"])
        .arg(folder.join("config.yaml"))
        .stdout(Stdio::null())
        .status()?;
    ensure!(reset.success(), "reset failed");
    Ok(())
}
