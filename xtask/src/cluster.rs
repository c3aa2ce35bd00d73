//! `make cluster`: from a clean checkout to the sample answering; and `make cluster-down`.

use crate::containerd::{self, Pid, Runtime};
use crate::run::{Step, output, root, step, target, write_file};
use crate::{images, packages};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const NAMESPACE: &str = "two-tier";

/// Where the cluster lives: all that must survive below `data`, sockets and pids below `run`.
struct Places {
    data: PathBuf,
    run: PathBuf,
}

impl Places {
    fn new() -> Places {
        let data =
            std::env::var_os("KEELSON_CLUSTER_DIR").map_or("/var/lib/keelson-cluster".into(), PathBuf::from);
        Places { data, run: "/run/keelson-cluster".into() }
    }

    fn config(&self) -> PathBuf {
        self.data.join("config.yaml")
    }

    fn kubeconfig(&self) -> PathBuf {
        self.data.join("state/admin.conf")
    }

    fn log(&self) -> PathBuf {
        self.data.join("logs/keelson.log")
    }

    fn keelson(&self) -> Pid {
        Pid::new(self.run.join("keelson.pid"))
    }
}

/// kubectl with the administrator's kubeconfig.
struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    fn run(&self, arguments: &[&str]) -> Result<String> {
        output(Command::new(&self.program).arg("--kubeconfig").arg(&self.kubeconfig).args(arguments))
    }

    /// Runs and prints the command line and what it said.
    fn show(&self, arguments: &[&str]) -> Result<String> {
        println!("\n$ kubectl {}", arguments.join(" "));
        let text = self.run(arguments)?;
        print!("{text}");
        Ok(text)
    }
}

/// Starts everything and, unless `bare`, deploys and shows the sample.
pub fn up(bare: bool) -> Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!("a node needs root: run `sudo make cluster`");
    }
    let places = Places::new();
    for folder in [places.data.join("logs"), places.run.clone()] {
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    packages::install_all()?;
    let program = packages::kubectl(&places.data.join("bin"))?;
    build()?;
    let mut archives = images::build_all()?;
    let hint = "Read logs/containerd.log in the data folder; `make cluster-down` cleans up.";
    let runtime =
        step("starting containerd", hint, |step| containerd::ensure(step, &places.data, &places.run))?;
    if runtime.sandbox_image != images::PAUSE {
        archives.push(images::pause(&target().join("images"), &runtime.sandbox_image)?);
    }
    step("importing images", hint, |step| containerd::import(step, &runtime, &archives))?;
    let kubectl = Kubectl { program, kubeconfig: places.kubeconfig() };
    let hint = format!("Its log is {}.", places.log().display());
    step("starting keelson", &hint, |step| start(step, &places, &runtime, &kubectl))?;
    step("waiting until the node is Ready", &hint, |step| {
        step.wait(Duration::from_secs(60), || node_ready(&kubectl))
    })?;
    if !bare {
        let hint = format!("`kubectl -n {NAMESPACE} describe pods` and {} say more.", places.log().display());
        step("deploying the sample", &hint, |step| deploy(step, &kubectl))?;
        step_show(&kubectl, &places)?;
    }
    println!(
        "\nThe cluster runs. Use it:\n  export KUBECONFIG={}\n  {} get pods -A\nStop it and remove all it left: make cluster-down",
        places.kubeconfig().display(),
        kubectl.program.display()
    );
    Ok(())
}

fn build() -> Result<()> {
    step("building the release binaries", "Run `cargo build --release -p keelson` to see all of it.", |_| {
        let packages = ["--package", "keelson", "--package", "keelson-cni"];
        output(
            Command::new("cargo").args(["build", "--quiet", "--release"]).args(packages).current_dir(root()),
        )?;
        Ok(())
    })
}

fn start(step: &Step, places: &Places, runtime: &Runtime, kubectl: &Kubectl) -> Result<()> {
    let release = target().join("release");
    let plugin = runtime.cni_bin.join(keelson_base::consts::CNI_PLUGIN);
    let built = std::fs::read(release.join("keelson-cni")).context("no keelson-cni was built")?;
    if std::fs::read(&plugin).ok().as_ref() != Some(&built) {
        write_file(&plugin, &built)?;
        output(Command::new("chmod").arg("0755").arg(&plugin))?;
        // The runtime asks for a loopback plugin in every pod; ours is one by that name.
        let loopback = runtime.cni_bin.join("loopback");
        if !loopback.exists() {
            std::os::unix::fs::symlink(keelson_base::consts::CNI_PLUGIN, &loopback)
                .context("cannot link loopback")?;
        }
    }
    let config = format!(
        "apiVersion: keelson/v1\nkind: Configuration\npaths:\n  state: {data}/state\n  podLogs: {data}/pod-logs\n\
         kubelet:\n  criSocket: {socket}\n  # The images come from no registry: what is removed cannot be pulled again.\n  imageGcHighPercent: 100\n  imageGcLowPercent: 99\nproxy:\n  cniConfDir: {conf}\n  cniBinDir: {bin}\n",
        data = places.data.display(),
        socket = runtime.socket.display(),
        conf = runtime.cni_conf.display(),
        bin = runtime.cni_bin.display(),
    );
    write_file(&places.config(), config.as_bytes())?;
    let pid = places.keelson();
    if pid.alive().is_none() {
        let mut command = Command::new(release.join("keelson"));
        command.arg("all-in-one").arg("--config").arg(places.config());
        pid.start(&mut command, &places.log())?;
    }
    step.wait(Duration::from_secs(30), || {
        if pid.alive().is_none() {
            bail!("keelson ended; its last words: {}", last_line(&places.log()));
        }
        kubectl.run(&["get", "--raw", "/readyz"]).context("the API server is not ready yet")
    })?;
    Ok(())
}

fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().last().unwrap_or("(none)").to_owned()
}

fn node_ready(kubectl: &Kubectl) -> Result<()> {
    let path = "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
    match kubectl.run(&["get", "nodes", "-o", path])?.trim() {
        "True" => Ok(()),
        other => bail!("the node's Ready condition is {other:?}"),
    }
}

fn deploy(step: &Step, kubectl: &Kubectl) -> Result<()> {
    let manifests = root().join("samples/two-tier");
    step.note("kubectl apply");
    kubectl.run(&["apply", "-f", &manifests.to_string_lossy()])?;
    for deployment in ["redis", "web"] {
        step.note(&format!("rollout of {deployment}"));
        kubectl.run(&[
            "-n",
            NAMESPACE,
            "rollout",
            "status",
            &format!("deployment/{deployment}"),
            "--timeout=90s",
        ])?;
    }
    step.note("the job that loads data");
    kubectl.run(&["-n", NAMESPACE, "wait", "--for=condition=complete", "job/load", "--timeout=60s"])?;
    Ok(())
}

/// Shows the sample answering on every path; each line is the real answer.
fn step_show(kubectl: &Kubectl, places: &Places) -> Result<()> {
    kubectl.show(&["-n", NAMESPACE, "get", "pods", "-o", "wide"])?;
    kubectl.show(&["-n", NAMESPACE, "get", "services"])?;
    let field = |path: &str| {
        kubectl.run(&["-n", NAMESPACE, "get", "service", "web", "-o", &format!("jsonpath={path}")])
    };
    let (address, node_port) = (field("{.spec.clusterIP}")?, field("{.spec.ports[0].nodePort}")?);
    let node = kubectl.run(&[
        "get",
        "nodes",
        "-o",
        "jsonpath={.items[0].status.addresses[?(@.type==\"InternalIP\")].address}",
    ])?;
    for (what, url) in
        [("ClusterIP", format!("http://{address}/")), ("NodePort", format!("http://{node}:{node_port}/"))]
    {
        println!("\n$ curl {url}    # {what}");
        let answer = step_quiet(&url)?;
        print!("{answer}");
    }
    kubectl.show(&[
        "-n",
        NAMESPACE,
        "exec",
        "deployment/web",
        "--",
        "getent",
        "hosts",
        "redis.two-tier.svc.cluster.local",
    ])?;
    kubectl.show(&["-n", NAMESPACE, "logs", "job/load", "--tail=1"])?;
    kubectl.show(&["-n", NAMESPACE, "exec", "deployment/web", "--", "cat", "/etc/debian_version"])?;
    println!("\nlog of keelson: {}", places.log().display());
    Ok(())
}

fn step_quiet(url: &str) -> Result<String> {
    let arguments = [
        "--silent",
        "--show-error",
        "--fail",
        "--max-time",
        "5",
        "--retry",
        "10",
        "--retry-all-errors",
        "--noproxy",
        "*",
    ];
    output(Command::new("curl").args(arguments).arg(url))
}

/// Stops keelson, removes its pods and all it made on the machine, and stops the containerd that `up` started.
pub fn down() -> Result<()> {
    let places = Places::new();
    let hint = "Nothing else is touched; run it again after mending the cause.";
    step("stopping keelson", hint, |_| places.keelson().stop(Duration::from_secs(30)))?;
    let binary = target().join("release/keelson");
    if places.config().exists() && binary.exists() {
        step("removing pods, rules, interfaces and mounts", hint, |_| {
            output(Command::new(&binary).args(["reset", "--yes", "--config"]).arg(places.config()))
        })?;
    }
    step("stopping containerd", hint, |_| containerd::stop(&places.run))?;
    step("removing the cluster's folders", hint, |_| {
        for folder in [&places.run, &places.data] {
            unmount_below(folder)?;
            match std::fs::remove_dir_all(folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
                }
                _ => {}
            }
        }
        Ok(())
    })
}

fn unmount_below(folder: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let mut points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    points.reverse();
    for point in points.iter().filter(|point| Path::new(point).starts_with(folder)) {
        nix::mount::umount2(*point, nix::mount::MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {point}"))?;
    }
    Ok(())
}
