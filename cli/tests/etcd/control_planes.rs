//! Several `keelson control-plane` processes on one etcd cluster of three members, as a user without rights.

use keelson_testkit::etcd::Etcd;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Everything waited for comes within this time or never.
pub const SOON: Duration = Duration::from_secs(60);
/// The user the control planes run as when the tests are root: nobody.
const NOBODY: u32 = 65534;
/// What control planes share of their PKI folders.
const SHARED: [&str; 6] =
    ["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub"];

/// One process.
pub struct ControlPlane {
    child: Option<Child>,
    folder: PathBuf,
    pub name: String,
}

/// The cluster: etcd and its control planes.
pub struct Lab {
    pub etcd: Etcd,
    folder: tempfile::TempDir,
    pub planes: Vec<ControlPlane>,
}

impl Lab {
    /// Starts etcd and two control planes, the second with the first one's authorities.
    pub async fn start() -> Lab {
        let etcd = Etcd::start(3).expect("etcd starts");
        let folder = tempfile::Builder::new().prefix("keelson-planes-").tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        let mut lab = Lab { etcd, folder, planes: Vec::new() };
        for name in ["a", "b"] {
            lab.add(name).await;
        }
        lab
    }

    async fn add(&mut self, name: &str) {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(folder.join("pki")).expect("a folder");
        for file in ["ca.crt", "member.crt", "member.key"] {
            fs::copy(self.etcd.folder().join(file), folder.join(format!("etcd-{file}"))).expect("copied");
        }
        if let Some(first) = self.planes.first() {
            for file in SHARED {
                fs::copy(first.folder.join("pki").join(file), folder.join("pki").join(file)).expect(file);
            }
        }
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let config = format!(
            "apiVersion: keelson/v1\nkind: Configuration\nnode: {{name: {name}, address: 192.0.2.{number}}}\n\
             paths: {{state: {state}}}\napiServer: {{bind: '127.0.0.1:{port}', extraSans: ['127.0.0.1']}}\n\
             etcd:\n  endpoints: {endpoints:?}\n  caFile: {state}/etcd-ca.crt\n\
             \x20 certFile: {state}/etcd-member.crt\n  keyFile: {state}/etcd-member.key\n",
            number = self.planes.len() + 1,
            state = folder.display(),
            endpoints = self.etcd.endpoints(),
        );
        fs::write(folder.join("config.yaml"), config).expect("written");
        give_away(&folder);
        let mut plane = ControlPlane { child: None, folder, name: name.to_owned() };
        plane.launch();
        plane.wait_ready().await;
        self.planes.push(plane);
    }
}

/// Hands a folder over to the user the control planes run as.
fn give_away(folder: &Path) {
    if !is_root() {
        return;
    }
    chown(folder, Some(NOBODY), Some(NOBODY)).expect("given away");
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            give_away(&path)
        } else {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("given away")
        }
    }
}

fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

impl ControlPlane {
    fn launch(&mut self) {
        let log =
            fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log")).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_keelson"));
        command.arg("control-plane").arg("--config").arg(self.folder.join("config.yaml"));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        self.child = Some(command.spawn().expect("the binary starts"));
    }

    async fn wait_ready(&mut self) {
        let until = Instant::now() + SOON;
        loop {
            if let Ok(client) = self.try_client().await
                && client.request_text(http_get("/readyz")).await.is_ok_and(|text| text == "ok")
            {
                return;
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(
                ended.is_none() && Instant::now() < until,
                "{} is not ready ({ended:?}):\n{}",
                self.name,
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn try_client(&self) -> Result<kube::Client, keelson_client::ConnectError> {
        keelson_client::from_kubeconfig(&self.folder.join("admin.conf")).await
    }

    /// The administrator's client, over TLS.
    pub async fn client(&self) -> kube::Client {
        self.try_client().await.expect("a client")
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// SIGTERM; gives its exit code.
    pub async fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let id = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("an id"));
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).expect("told");
        let ended = tokio::task::spawn_blocking(move || child.wait());
        tokio::time::timeout(SOON, ended).await.expect("ends").expect("joins").expect("waited").code()
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended; then there is nothing to end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn http_get(path: &str) -> http::Request<Vec<u8>> {
    http::Request::get(path).body(Vec::new()).expect("a request")
}
