//! A second node for what needs two: a kubelet, a proxy and a containerd of their own in network and mount namespaces,
//! joined to the running cluster with a bootstrap token, as another machine would be.

use crate::containerd::{self, Pid};
use crate::run::{Step, output, step, target, write_file};
use crate::{images, packages};
use anyhow::{Context, Result, bail};
use keelson_tests::Places;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const NAME: &str = "second-node";
/// The link between the cluster's network and the node's.
const LINK: &str = "keelson2";
const OWN: &str = "192.168.223.2";
const PEER: &str = "192.168.223.1";

/// Where the node lives; its namespaces have a `/run` of their own.
struct Node {
    data: PathBuf,
    run: PathBuf,
    cgroup_root: String,
    holder: Pid,
}

impl Node {
    fn of(places: &Places) -> Node {
        let data = places.data.join(NAME);
        let mut root = places.cgroup_root.trim_end_matches('/').to_owned();
        root.push_str("/keelson-second-node");
        Node {
            run: PathBuf::from("/run").join(NAME),
            holder: Pid::new(places.run.join("second-node.pid")),
            cgroup_root: root,
            data,
        }
    }

    fn config(&self) -> PathBuf {
        self.data.join("config.yaml")
    }

    fn component(&self, name: &str) -> Pid {
        Pid::new(self.data.join(format!("{name}.pid")))
    }

    /// This program in the node's namespaces.
    fn inside(&self, task: &str) -> Result<Command> {
        let pid = self.holder.alive().context("the second node's namespaces are gone")?;
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid.to_string(), "--net", "--mount", "--"]);
        command.arg(std::env::current_exe()?).args([NAME, task]);
        Ok(command)
    }
}

/// Which binary the cluster runs; the node runs the same.
fn binary(places: &Places) -> Result<PathBuf> {
    let note = places.data.join("binary");
    let text = std::fs::read_to_string(&note).with_context(|| format!("cannot read {}", note.display()))?;
    Ok(PathBuf::from(text))
}

/// Makes the namespaces and joins the node; returns when it is Ready.
pub fn up() -> Result<()> {
    let places = Places::of_environment();
    let node = Node::of(&places);
    let hint = format!("Its logs are below {}.", node.data.display());
    step("joining a second node", &hint, |step| {
        if node.holder.alive().is_none() {
            make_namespaces(&node)?;
        }
        let kubectl = packages::kubectl(&places.data.join("bin"))?;
        let run = |arguments: &[&str]| {
            let mut command = Command::new(&kubectl);
            output(command.arg("--kubeconfig").arg(places.kubeconfig()).args(arguments))
        };
        if !node.data.join("state").exists() {
            first_identity(&node, &places, &run)?;
        }
        step.note("starting its containerd, kubelet and proxy");
        output(&mut node.inside("start")?)?;
        step.note("waiting until it is Ready");
        step.wait(Duration::from_secs(60), || {
            let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
            match run(&["get", "node", NAME, "-o", path])?.trim() {
                "True" => Ok(()),
                other => bail!("its Ready condition is {other:?}"),
            }
        })
    })
}

fn make_namespaces(node: &Node) -> Result<()> {
    std::fs::create_dir_all(node.data.join("logs"))?;
    let script = "mount -t tmpfs -o mode=0755 second-node /run && ip link set lo up && exec sleep infinity";
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--propagation", "private", "sh", "-c", script]);
    node.holder.start(&mut command, &node.data.join("logs/namespaces.log"))?;
    let pid = node.holder.alive().context("no namespaces could be made")?.to_string();
    // Until then it may be in this machine's namespaces still, and its end of the link would come to lie there.
    let comm = format!("/proc/{pid}/comm");
    let end = Instant::now() + Duration::from_secs(20);
    while std::fs::read_to_string(&comm).context("no namespaces could be made")?.trim() != "sleep" {
        anyhow::ensure!(Instant::now() < end, "no namespaces were made in 20 s");
        std::thread::sleep(Duration::from_millis(10));
    }
    let ip = |arguments: &[&str]| output(Command::new("ip").args(arguments));
    ip(&["link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
    ip(&["address", "add", &format!("{PEER}/24"), "dev", LINK])?;
    ip(&["link", "set", LINK, "up"])?;
    for arguments in [
        ["address", "add", &format!("{OWN}/24"), "dev", "eth0"].as_slice(),
        &["link", "set", "eth0", "up"],
        &["route", "add", "default", "via", PEER],
    ] {
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--net", "--", "ip"]).args(arguments);
        output(&mut command)?;
    }
    Ok(())
}

/// A bootstrap token in the cluster, and a kubeconfig with it for the node.
fn first_identity(node: &Node, places: &Places, kubectl: &dyn Fn(&[&str]) -> Result<String>) -> Result<()> {
    let mut random = [0; 22];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let letters: String =
        random.iter().map(|byte| char::from(b"abcdefghijklmnopqrstuvwxyz"[usize::from(byte % 26)])).collect();
    let (id, secret) = letters.split_at(6);
    kubectl(&[
        "--namespace=kube-system",
        "create",
        "secret",
        "generic",
        &format!("bootstrap-token-{id}"),
        "--type=bootstrap.kubernetes.io/token",
        &format!("--from-literal=token-id={id}"),
        &format!("--from-literal=token-secret={secret}"),
        "--from-literal=usage-bootstrap-authentication=true",
        "--from-literal=auth-extra-groups=system:bootstrappers:kubeadm:default-node-token",
    ])?;
    let address = kubectl(&[
        "get",
        "nodes",
        "-o",
        "jsonpath={.items[0].status.addresses[?(@.type==\"InternalIP\")].address}",
    ])?;
    let admin = std::fs::read_to_string(places.kubeconfig())?;
    let value = |key: &str| {
        let line = admin.lines().find_map(|line| line.trim().strip_prefix(key));
        line.map(|text| text.trim().trim_matches('"'))
            .with_context(|| format!("the administrator's kubeconfig has no {key}"))
    };
    let port = value("server:")?.rsplit_once(':').context("no port")?.1.to_owned();
    let bootstrap = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: c\n  cluster:\n    server: https://{address}:{port}\n    certificate-authority-data: {}\n\
         contexts:\n- name: c\n  context:\n    cluster: c\n    user: u\nusers:\n- name: u\n  user:\n    token: {id}.{secret}\n",
        value("certificate-authority-data:")?
    );
    write_file(&node.data.join("state/bootstrap-kubelet.conf"), bootstrap.as_bytes())
}

/// Inside the namespaces: starts containerd, the kubelet and the proxy.
pub fn start_inside() -> Result<()> {
    let places = Places::of_environment();
    let node = Node::of(&places);
    let binary = binary(&places)?;
    step("starting the second node's processes", "", |step| {
        std::fs::create_dir_all(&node.run)?;
        let runtime = containerd::ensure(step, &node.data, &node.run)?;
        containerd::import(step, &runtime, &[images::pause(&target().join("images"), images::PAUSE)?])?;
        let plugins = binary.parent().context("the binary has no folder")?;
        let plugin = runtime.cni_bin.join(keelson_base::consts::CNI_PLUGIN);
        if !plugin.exists() {
            std::fs::copy(plugins.join("keelson-cni"), &plugin).context("cannot copy the CNI plugin")?;
            std::os::unix::fs::symlink(keelson_base::consts::CNI_PLUGIN, runtime.cni_bin.join("loopback"))?;
        }
        let config = format!(
            "apiVersion: keelson/v1\nkind: Configuration\nnode:\n  name: {NAME}\npaths:\n  state: {data}/state\n  podLogs: {data}/pod-logs\n\
             kubelet:\n  criSocket: {socket}\n  cgroupRoot: {root}\n  imageGcHighPercent: 100\n  imageGcLowPercent: 99\nproxy:\n  cniConfDir: {conf}\n  cniBinDir: {bin}\n",
            data = node.data.display(),
            socket = runtime.socket.display(),
            root = node.cgroup_root,
            conf = runtime.cni_conf.display(),
            bin = runtime.cni_bin.display(),
        );
        write_file(&node.config(), config.as_bytes())?;
        for component in ["kubelet", "proxy"] {
            let pid = node.component(component);
            if pid.alive().is_none() {
                let mut command = Command::new(&binary);
                command.arg(component).arg("--config").arg(node.config());
                pid.start(&mut command, &node.data.join(format!("logs/{component}.log")))?;
            }
        }
        Ok(())
    })
}

/// Inside the namespaces: stops what [`start_inside`] started and removes what it left.
pub fn stop_inside() -> Result<()> {
    let places = Places::of_environment();
    let node = Node::of(&places);
    let stop = |_: &Step| {
        for component in ["kubelet", "proxy"] {
            node.component(component).stop(Duration::from_secs(30))?;
        }
        if node.config().exists() {
            let mut command = Command::new(binary(&places)?);
            output(command.args(["reset", "--yes", "--config"]).arg(node.config()))?;
        }
        containerd::stop(&node.run)
    };
    step("stopping the second node's processes", "", stop)
}

/// Removes the node, if there is one: from the cluster when that still answers, and all it left on the machine.
pub fn down() -> Result<()> {
    let places = Places::of_environment();
    let node = Node::of(&places);
    if !node.data.exists() && node.holder.alive().is_none() {
        return Ok(());
    }
    step("removing the second node", "Run it again after mending the cause.", |_| {
        if node.holder.alive().is_some() {
            output(&mut node.inside("stop")?)?;
        }
        let kubectl = packages::kubectl(&places.data.join("bin"))?;
        let mut command = Command::new(kubectl);
        command.arg("--kubeconfig").arg(places.kubeconfig());
        command.args(["delete", "node", NAME, "--ignore-not-found", "--request-timeout=10s"]);
        // Where the whole cluster goes, its API may be gone already.
        let forgotten = output(&mut command);
        node.holder.stop(Duration::from_secs(5))?;
        let _ = output(Command::new("ip").args(["link", "delete", LINK]));
        remove_cgroups(&node.cgroup_root)?;
        std::fs::remove_dir_all(&node.data)
            .with_context(|| format!("cannot remove {}", node.data.display()))?;
        if places.keelson_pid().exists() { forgotten.map(drop) } else { Ok(()) }
    })
}

/// Removes the node's own cgroup, empty by then, from every hierarchy (v1) or the one (v2).
fn remove_cgroups(root: &str) -> Result<()> {
    let root = root.trim_start_matches('/');
    let base = PathBuf::from("/sys/fs/cgroup");
    let mut folders = vec![base.join(root)];
    for entry in std::fs::read_dir(&base)? {
        folders.push(entry?.path().join(root));
    }
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        std::fs::remove_dir(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}
