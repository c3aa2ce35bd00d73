//! `keelson control-plane` as a plain user from a folder of its own, what it tells a service manager, and the commands that
//! talk to it.

use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Somebody without any privilege.
const NOBODY: u32 = 65_534;
const LIMIT: Duration = Duration::from_secs(60);

struct Running {
    child: Option<Child>,
    manager: UnixDatagram,
    folder: tempfile::TempDir,
    port: u16,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn keelson() -> Command {
    Command::new(env!("CARGO_BIN_EXE_keelson"))
}

/// Runs the test's program as a plain user where the test itself is root.
fn unprivileged(command: &mut Command, folder: &Path) {
    if nix::unistd::Uid::effective().is_root() {
        for path in [folder.to_owned(), folder.join("state"), folder.join("manager")] {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        command.uid(NOBODY).gid(NOBODY);
    }
}

impl Running {
    fn start() -> Running {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let state = folder.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let text = format!(
            "apiVersion: keelson/v1\nkind: Configuration\nnode: {{name: n1, address: 192.0.2.1}}\npaths: {{state: {}}}\n\
             apiServer: {{bind: '127.0.0.1:{port}'}}\n",
            state.display()
        );
        std::fs::write(folder.path().join("config.yaml"), text).unwrap();
        let manager = UnixDatagram::bind(folder.path().join("manager")).unwrap();
        manager.set_read_timeout(Some(LIMIT)).unwrap();
        let mut command = keelson();
        // The built program lies in a folder that others may not enter.
        let program = folder.path().join("keelson");
        if std::fs::hard_link(env!("CARGO_BIN_EXE_keelson"), &program).is_err() {
            std::fs::copy(env!("CARGO_BIN_EXE_keelson"), &program).unwrap();
        }
        if nix::unistd::Uid::effective().is_root() {
            command = Command::new(&program);
        }
        command
            .args(["control-plane", "--config"])
            .arg(folder.path().join("config.yaml"))
            .env("NOTIFY_SOCKET", folder.path().join("manager"))
            .env("WATCHDOG_USEC", "3000000")
            .env_remove("WATCHDOG_PID")
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        unprivileged(&mut command, folder.path());
        let child = command.spawn().unwrap();
        Running { child: Some(child), manager, folder, port }
    }

    /// The next message for the service manager that holds `words`.
    fn told(&self, words: &str) {
        let begun = Instant::now();
        let mut buffer = [0u8; 512];
        while begun.elapsed() < LIMIT {
            let Ok(length) = self.manager.recv(&mut buffer) else { break };
            if String::from_utf8_lossy(&buffer[..length]).contains(words) {
                return;
            }
        }
        panic!("the service manager was not told {words}");
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("config.yaml")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        keelson().args(arguments).arg("--config").arg(self.config()).output().unwrap()
    }

    fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What `keelson join` says when it fails, from a machine that knows nothing yet.
    fn join(&self, arguments: &[&str]) -> String {
        let elsewhere = self.folder.path().join("elsewhere.yaml");
        let state = self.folder.path().join("elsewhere");
        let text = format!(
            "apiVersion: keelson/v1\nnode: {{name: n9, address: 192.0.2.9}}\npaths: {{state: {}}}\n",
            state.display()
        );
        std::fs::write(&elsewhere, text).unwrap();
        let begun = Instant::now();
        let mut command = keelson();
        command.args(["join", "--config"]).arg(&elsewhere).args(arguments);
        let output = command.output().unwrap();
        assert!(!output.status.success(), "{arguments:?} joined");
        assert!(begun.elapsed() < Duration::from_secs(5), "{arguments:?} took {:?}", begun.elapsed());
        assert!(!state.exists(), "a join that failed leaves nothing");
        String::from_utf8(output.stderr).unwrap()
    }
}

#[test]
fn a_plain_user_runs_a_control_plane_and_hands_out_tokens() {
    let mut running = Running::start();
    running.told("READY=1");
    // Ready is true: the first request is answered.
    assert!(running.good(&["token", "list"]).starts_with("ID "));
    running.told("WATCHDOG=1");

    let command = running.good(&["token", "create", "--print-join-command"]);
    let words: Vec<&str> = command.split_whitespace().collect();
    let endpoint = format!("127.0.0.1:{}", running.port);
    let ["keelson", "join", at, "--token", token, "--discovery-token-ca-cert-hash", hash] = words[..] else {
        panic!("{command}");
    };
    assert_eq!(at, format!("192.0.2.1:{}", running.port), "the address that others know it by");
    assert!(hash.starts_with("sha256:"));
    let listed = running.good(&["token", "list", "--output", "json"]);
    assert!(listed.contains(&token[..6]) && !listed.contains(&token[7..]), "the secret half is not listed");

    let says = |error: String, words: &str| assert!(error.contains(words), "{error}");
    let pinned =
        |token: &str| running.join(&[&endpoint, "--token", token, "--discovery-token-ca-cert-hash", hash]);
    // Signatures come a moment after their token.
    let begun = Instant::now();
    let wrong = format!("sha256:{}", "0".repeat(64));
    let with_wrong_hash =
        || running.join(&[&endpoint, "--token", token, "--discovery-token-ca-cert-hash", &wrong]);
    while with_wrong_hash().contains("not known") {
        assert!(begun.elapsed() < LIMIT, "cluster-info was never signed");
    }
    says(with_wrong_hash(), &format!("has the hash {hash}"));
    says(pinned("aaaaaa.0123456789abcdef"), "not known there or has expired");
    says(pinned(&format!("{}.0123456789abcdef", &token[..6])), "not signed with the token");
    says(running.join(&[&endpoint, "--token", token]), "no --discovery-token-ca-cert-hash is given");
    says(running.join(&[]), "which cluster?");
    says(running.join(&[&endpoint, "--control-plane"]), "need etcd");
    // For signing alone: discovery works, the login does not.
    let signing = running.good(&["token", "create", "--usages", "signing"]);
    let begun = Instant::now();
    while pinned(signing.trim()).contains("not known") {
        assert!(begun.elapsed() < LIMIT, "cluster-info was never signed");
    }
    says(pinned(signing.trim()), "does not take the token");

    assert!(running.good(&["token", "delete", token]).contains("deleted"));
    let begun = Instant::now();
    while !pinned(token).contains("not known there or has expired") {
        assert!(begun.elapsed() < LIMIT, "the deleted token is still good");
    }
    let missing = running.run(&["token", "delete", "zzzzzz"]);
    says(String::from_utf8(missing.stderr).unwrap(), "there is no token zzzzzz");

    let certificates = running.good(&["certs", "list"]);
    assert!(
        certificates.contains("admin.conf") && certificates.contains("never (authority)"),
        "{certificates}"
    );

    // The end: told, clean, and in time.
    let mut child = running.child.take().unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    running.told("STOPPING=1");
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait().unwrap()));
    let status = end.recv_timeout(LIMIT).expect("it does not end");
    assert!(status.success(), "{status}");
}
