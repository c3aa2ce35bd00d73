//! `make cluster`: from a clean checkout to the sample answering; and `make cluster-down`.

use crate::containerd::{self, Pid, Runtime};
use crate::run::{Step, output, root, step, target, write_file};
use crate::{images, packages};
use anyhow::{Context, Result, bail};
use keelson_tests::Places;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const NAMESPACE: &str = "two-tier";

/// Which binaries a cluster runs.
#[derive(Clone, Copy, Default, clap::ValueEnum)]
pub enum Profile {
    /// Optimised: what is measured and shipped.
    #[default]
    Release,
    /// Built fast, runs slowly, checks for overflow.
    Dev,
}

impl Profile {
    fn folder(self) -> PathBuf {
        target().join(match self {
            Profile::Release => "release",
            Profile::Dev => "debug",
        })
    }
}

fn keelson(places: &Places) -> Pid {
    Pid::new(places.keelson_pid())
}

/// Remembers which binary runs, for [`down`].
fn binary_note(places: &Places) -> PathBuf {
    places.data.join("binary")
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
pub fn up(bare: bool, profile: Profile) -> Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!("a node needs root: run `sudo make cluster`");
    }
    let places = Places::of_environment();
    for folder in [places.data.join("logs"), places.run.clone()] {
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    packages::install_all()?;
    let program = packages::kubectl(&places.data.join("bin"))?;
    build(profile)?;
    let mut archives = if bare { images::build_some(&[])? } else { images::build_all()? };
    let hint = "Read logs/containerd.log in the data folder; `make cluster-down` cleans up.";
    let runtime =
        step("starting containerd", hint, |step| containerd::ensure(step, &places.data, &places.run))?;
    if runtime.sandbox_image != images::PAUSE {
        archives.push(images::pause(&target().join("images"), &runtime.sandbox_image)?);
    }
    step("importing images", hint, |step| containerd::import(step, &runtime, &archives))?;
    let kubectl = Kubectl { program, kubeconfig: places.kubeconfig() };
    let hint = format!("Its log is {}.", places.log().display());
    step("starting keelson", &hint, |step| start(step, &places, &runtime, &kubectl, profile))?;
    step("waiting until the node is Ready", &hint, |step| {
        step.wait(Duration::from_secs(60), || node_ready(&kubectl))
    })?;
    if !bare {
        let hint = format!("`kubectl -n {NAMESPACE} describe pods` and {} say more.", places.log().display());
        step("deploying the sample", &hint, |step| {
            deploy(step, &kubectl).map_err(|error| error.context(state_of_sample(&kubectl)))
        })?;
        step_show(&kubectl, &places)?;
    }
    println!(
        "\nThe cluster runs. Use it:\n  export KUBECONFIG={}\n  {} get pods -A\nStop it and remove all it left: make cluster-down",
        places.kubeconfig().display(),
        kubectl.program.display()
    );
    Ok(())
}

fn build(profile: Profile) -> Result<()> {
    let (title, flag) = match profile {
        Profile::Release => ("building the release binaries", "--release"),
        Profile::Dev => ("building the debug binaries", "--profile=dev"),
    };
    step(title, &format!("Run `cargo build {flag} -p keelson` to see all of it."), |_| {
        let packages = ["--package", "keelson", "--package", "keelson-cni"];
        output(Command::new("cargo").args(["build", "--quiet", flag]).args(packages).current_dir(root()))?;
        Ok(())
    })
}

fn start(step: &Step, places: &Places, runtime: &Runtime, kubectl: &Kubectl, profile: Profile) -> Result<()> {
    install_plugin(runtime, profile)?;
    let binary = profile.folder().join("keelson");
    let config = config(places, runtime);
    let pid = keelson(places);
    // One that runs with another binary (a rebuilt one's link says "(deleted)") or configuration is not what was asked for.
    let exe = pid.alive().and_then(|id| std::fs::read_link(format!("/proc/{id}/exe")).ok());
    let same = std::fs::read(places.config()).is_ok_and(|now| now == config.as_bytes());
    if exe.is_some_and(|exe| !same || Some(exe) != binary.canonicalize().ok()) {
        step.note("stopping the one that runs: its binary or configuration is another");
        pid.stop(Duration::from_secs(30))?;
    }
    write_file(&places.config(), config.as_bytes())?;
    write_file(&binary_note(places), binary.as_os_str().as_encoded_bytes())?;
    if pid.alive().is_none() {
        let mut command = Command::new(&binary);
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

fn install_plugin(runtime: &Runtime, profile: Profile) -> Result<()> {
    let plugin = runtime.cni_bin.join(keelson_base::consts::CNI_PLUGIN);
    let built = std::fs::read(profile.folder().join("keelson-cni")).context("no keelson-cni was built")?;
    if std::fs::read(&plugin).ok().as_ref() == Some(&built) {
        return Ok(());
    }
    write_file(&plugin, &built)?;
    output(Command::new("chmod").arg("0755").arg(&plugin))?;
    // The runtime asks for a loopback plugin in every pod; ours is one by that name.
    let loopback = runtime.cni_bin.join("loopback");
    if !loopback.exists() {
        std::os::unix::fs::symlink(keelson_base::consts::CNI_PLUGIN, &loopback)
            .context("cannot link loopback")?;
    }
    Ok(())
}

fn config(places: &Places, runtime: &Runtime) -> String {
    format!(
        "apiVersion: keelson/v1\nkind: Configuration\npaths:\n  state: {data}/state\n  podLogs: {data}/pod-logs\n\
         kubelet:\n  criSocket: {socket}\n  cgroupRoot: {cgroup_root}\n\
         \x20 # The images come from no registry: what is removed cannot be pulled again.\n  imageGcHighPercent: 100\n  imageGcLowPercent: 99\nproxy:\n  cniConfDir: {conf}\n  cniBinDir: {bin}\n",
        data = places.data.display(),
        socket = runtime.socket.display(),
        cgroup_root = places.cgroup_root,
        conf = runtime.cni_conf.display(),
        bin = runtime.cni_bin.display(),
    )
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

/// What stands in the way of the sample: nodes, events and, last, for whoever sees only the end, its pods.
fn state_of_sample(kubectl: &Kubectl) -> String {
    let table = |what: &[&str], columns: &str| {
        let columns = format!("--output=custom-columns={columns}");
        let arguments = [&["--request-timeout=5s", "--namespace", NAMESPACE, "get"], what, &[&columns]];
        kubectl.run(&arguments.concat()).unwrap_or_else(|error| error.to_string())
    };
    [
        table(&["nodes"], "node:.metadata.name,taints:.spec.taints,conditions:.status.conditions[*].status"),
        table(
            &["events", "--sort-by=.lastTimestamp"],
            "event of:.involvedObject.name,count:.count,reason:.reason,message:.message",
        ),
        table(
            &["pods"],
            "pod:.metadata.name,node:.spec.nodeName,phase:.status.phase,waits:.status.containerStatuses[*].state.waiting,\
             scheduled:.status.conditions[?(@.type==\"PodScheduled\")].message,\
             ready:.status.conditions[?(@.type==\"Ready\")].message",
        ),
    ]
    .concat()
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
    let places = Places::of_environment();
    let hint = "Nothing else is touched; run it again after mending the cause.";
    crate::second_node::down()?;
    step("stopping keelson", hint, |_| keelson(&places).stop(Duration::from_secs(30)))?;
    let binary = std::fs::read_to_string(binary_note(&places)).map(PathBuf::from).unwrap_or_default();
    if places.config().exists() {
        step("removing pods, rules, interfaces and mounts", hint, |_| {
            if !binary.exists() {
                bail!("the binary that made them is gone; `make cluster` builds it again");
            }
            output(Command::new(&binary).args(["reset", "--yes", "--config"]).arg(places.config()))
        })?;
    }
    step("stopping containerd", hint, |_| containerd::stop(&places.run))?;
    step("removing the cluster's folders", hint, |_| {
        remove_cgroup_root(&places)?;
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

/// The cgroup that a named cluster's pods lived below, in every hierarchy; `reset` removes only what keelson made in it.
fn remove_cgroup_root(places: &Places) -> Result<()> {
    let name = places.cgroup_root.trim_matches('/');
    let mount = Path::new("/sys/fs/cgroup");
    let hierarchies =
        std::fs::read_dir(mount).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    for hierarchy in hierarchies.chain([mount.to_owned()]).filter(|_| !name.is_empty()) {
        let folder = hierarchy.join(name);
        if folder.is_dir() {
            std::fs::remove_dir(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    Ok(())
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
