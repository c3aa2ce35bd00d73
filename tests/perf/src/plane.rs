//! A control plane of the benchmark's own: `keelson control-plane` in a folder, with a configuration that anyone can write.

use crate::client::Kubeconfig;
use crate::process::Process;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use keelson_testkit::etcd::Etcd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// A running control plane; it is ended by its process id.
pub struct ControlPlane {
    child: Child,
    pub kubeconfig: Kubeconfig,
}

impl ControlPlane {
    /// Starts a binary of keelson in `folder`, on etcd or on a database in the folder, and waits until it is ready. Several
    /// on one etcd share the keys of the first.
    pub async fn start(
        binary: &Path,
        folder: &Path,
        etcd: Option<&Etcd>,
        keys_of: Option<&Path>,
    ) -> Result<ControlPlane> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        std::fs::create_dir_all(folder)?;
        let state = folder.join("state");
        let pki = keys_of.unwrap_or(folder).join("state/pki");
        let mut config = format!(
            "apiVersion: keelson/v1\nkind: Configuration\nnode: {{name: bench, address: 192.0.2.1}}\n\
             paths: {{state: {state}, pki: {pki}}}\n\
             apiServer: {{bind: '127.0.0.1:{port}', extraSans: ['127.0.0.1']}}\n",
            state = state.display(),
            pki = pki.display(),
        );
        if let Some(etcd) = etcd {
            config += &format!(
                "etcd:\n  endpoints: {endpoints:?}\n  caFile: {certificates}/ca.crt\n\
                 \x20 certFile: {certificates}/member.crt\n  keyFile: {certificates}/member.key\n",
                endpoints = etcd.endpoints(),
                certificates = etcd.folder().display(),
            );
        }
        std::fs::write(folder.join("config.yaml"), config)?;
        let log = std::fs::File::create(folder.join("log"))?;
        let mut command = Command::new(binary);
        command.arg("control-plane").arg("--config").arg(folder.join("config.yaml"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().with_context(|| format!("cannot start {}", binary.display()))?;
        match ready(folder, port).await {
            Ok(kubeconfig) => Ok(ControlPlane { child, kubeconfig }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    pub fn process(&self) -> Process {
        Process::of(self.child.id())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // It may have ended; then there is nothing to end.
    let _ = child.kill();
    let _ = child.wait();
}

async fn ready(folder: &Path, port: u16) -> Result<Kubeconfig> {
    let until = Instant::now() + LIMIT;
    loop {
        let ready = async {
            // Those who share keys share the administrator's file too: the address is ours.
            let kubeconfig = Kubeconfig::read(&folder.join("state/admin.conf"))?.at(port);
            kubeconfig.connect().await?.call("GET", "/readyz", Bytes::new()).await?;
            anyhow::Ok(kubeconfig)
        };
        match ready.await {
            Ok(kubeconfig) => return Ok(kubeconfig),
            Err(error) => ensure!(
                Instant::now() < until,
                "the control plane is not ready: {error:#}\n{}",
                std::fs::read_to_string(folder.join("log")).unwrap_or_default()
            ),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
