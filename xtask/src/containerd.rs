//! The container runtime of `make cluster`: the machine's own where one runs, else one with folders of its own.

use crate::images;
use crate::run::{Step, output, write_file};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The socket of a containerd that the machine runs itself.
const SYSTEM_SOCKET: &str = "/run/containerd/containerd.sock";

/// A running runtime and what its configuration says.
pub struct Runtime {
    pub socket: PathBuf,
    pub sandbox_image: String,
    pub cni_bin: PathBuf,
    pub cni_conf: PathBuf,
}

/// A process that this task started: its pid and start time, so that a reused pid is never mistaken for it.
pub struct Pid {
    file: PathBuf,
}

impl Pid {
    /// The process that `file` remembers.
    pub fn new(file: PathBuf) -> Pid {
        Pid { file }
    }

    /// Starts a command in a session of its own, its output in `log`, and remembers it.
    pub fn start(&self, command: &mut Command, log: &Path) -> Result<()> {
        let log = File::options().create(true).append(true).open(log).context("cannot open the log")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let started = start_time(child.id()).context("the process ended at once")?;
        write_file(&self.file, format!("{} {started}\n", child.id()).as_bytes())
    }

    /// The pid, if the process is alive.
    pub fn alive(&self) -> Option<i32> {
        let text = std::fs::read_to_string(&self.file).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        let id: u32 = pid.parse().ok()?;
        (start_time(id)? == started).then_some(id.try_into().ok()?)
    }

    /// Asks the process to end, waits, and kills it after `limit`.
    pub fn stop(&self, limit: Duration) -> Result<()> {
        use nix::sys::signal::{Signal, kill};
        if let Some(pid) = self.alive() {
            kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).context("cannot send SIGTERM")?;
            let deadline = std::time::Instant::now() + limit;
            while self.alive().is_some() {
                if std::time::Instant::now() > deadline {
                    kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).context("cannot send SIGKILL")?;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        match std::fs::remove_file(&self.file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Field 22 of /proc/PID/stat; `None` for a process that is gone or a zombie.
fn start_time(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(") ")?.1;
    let fields: Vec<&str> = after_name.split(' ').collect();
    (fields.first() != Some(&"Z")).then(|| fields.get(19).map(|&text| text.to_owned())).flatten()
}

/// Finds the machine's containerd or starts one below `data` and `run`.
pub fn ensure(step: &Step, data: &Path, run: &Path) -> Result<Runtime> {
    if UnixStream::connect(SYSTEM_SOCKET).is_ok() {
        step.note("using the machine's containerd");
        return system_runtime();
    }
    let runtime = Runtime {
        socket: run.join("containerd.sock"),
        sandbox_image: images::PAUSE.to_owned(),
        cni_bin: data.join("cni/bin"),
        cni_conf: data.join("cni/conf"),
    };
    std::fs::create_dir_all(&runtime.cni_bin)?;
    std::fs::create_dir_all(&runtime.cni_conf)?;
    let pid = Pid::new(run.join("containerd.pid"));
    if pid.alive().is_none() {
        let file = data.join("containerd/config.toml");
        write_file(&file, config(&runtime, data, run).as_bytes())?;
        let mut command = Command::new("containerd");
        command.arg("--config").arg(&file);
        pid.start(&mut command, &data.join("logs/containerd.log"))?;
    }
    step.wait(Duration::from_secs(20), || {
        ctr(&runtime, &["version"]).map(drop).context("containerd does not answer yet")
    })
    .with_context(|| format!("its log is {}", data.join("logs/containerd.log").display()))?;
    Ok(runtime)
}

/// Stops the containerd that [`ensure`] started, if it did.
pub fn stop(run: &Path) -> Result<()> {
    Pid::new(run.join("containerd.pid")).stop(Duration::from_secs(15))
}

fn config(runtime: &Runtime, data: &Path, run: &Path) -> String {
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    format!(
        "version = 2\nroot = \"{data}/containerd/root\"\nstate = \"{run}/containerd\"\n\
         [grpc]\n  address = \"{socket}\"\n\
         [{cri}]\n  sandbox_image = \"{sandbox}\"\n  restrict_oom_score_adj = {restrict}\n\
         \x20 stream_server_address = \"127.0.0.1\"\n  stream_server_port = \"0\"\n\
         [{cri}.cni]\n  bin_dir = \"{bin}\"\n  conf_dir = \"{conf}\"\n\
         [{cri}.registry]\n  config_path = \"{data}/containerd/certs.d\"\n\
         # Later versions listen at a path that all of them on a machine share.\n\
         [plugins.\"io.containerd.nri.v1.nri\"]\n  disable = true\n",
        data = data.display(),
        run = run.display(),
        socket = runtime.socket.display(),
        sandbox = runtime.sandbox_image,
        // Without this capability the runtime cannot lower a container's oom_score_adj and would refuse every pod.
        restrict = !has_sys_resource(),
        bin = runtime.cni_bin.display(),
        conf = runtime.cni_conf.display(),
    )
}

fn has_sys_resource() -> bool {
    const CAP_SYS_RESOURCE: u64 = 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << CAP_SYS_RESOURCE) != 0)
}

/// What the machine's containerd is configured for; its CRI plugin must be on.
fn system_runtime() -> Result<Runtime> {
    let dump = output(Command::new("containerd").args(["config", "dump"]))?;
    let value = |section: &str, key: &str| {
        let mut inside = false;
        dump.lines().map(str::trim).find_map(|line| {
            if line.starts_with('[') {
                inside = line.trim_matches(['[', ']']).ends_with(section);
            }
            let (name, value) = line.split_once(" = ")?;
            (inside && name == key).then(|| value.trim_matches(['"', '\'']).to_owned())
        })
    };
    if dump.lines().any(|line| line.trim().starts_with("disabled_plugins") && line.contains("cri")) {
        bail!(
            "containerd's CRI plugin is off: remove \"cri\" from disabled_plugins in /etc/containerd/config.toml"
        );
    }
    let cri = "io.containerd.grpc.v1.cri\"";
    Ok(Runtime {
        socket: SYSTEM_SOCKET.into(),
        sandbox_image: value(cri, "sandbox_image").unwrap_or_else(|| images::PAUSE.to_owned()),
        cni_bin: value(".cni", "bin_dir").unwrap_or_else(|| "/opt/cni/bin".into()).into(),
        cni_conf: value(".cni", "conf_dir").unwrap_or_else(|| "/etc/cni/net.d".into()).into(),
    })
}

/// Runs `ctr` in Kubernetes' namespace.
pub fn ctr(runtime: &Runtime, arguments: &[&str]) -> Result<String> {
    output(Command::new("ctr").arg("--address").arg(&runtime.socket).args(["-n", "k8s.io"]).args(arguments))
}

/// Imports the archives whose image is not there yet, and unpacks them: else the runtime does so when a container is made, for
/// each of those that are made at the same time anew, and a slow disk has a pod wait for minutes.
pub fn import(step: &Step, runtime: &Runtime, archives: &[images::Archive]) -> Result<()> {
    let there = ctr(runtime, &["images", "list", "--quiet"])?;
    for archive in archives {
        if there.lines().any(|name| name == archive.name) {
            continue;
        }
        step.note(&archive.name);
        ctr(runtime, &["images", "import", &archive.path.to_string_lossy()])?;
    }
    Ok(())
}
