//! A control plane that runs as a plain user from a folder of its own.
#![allow(dead_code)] // Each test file uses a part of it.

use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Somebody without any privilege.
const NOBODY: u32 = 65_534;
pub const LIMIT: Duration = Duration::from_secs(60);

pub struct Running {
    pub child: Option<Child>,
    manager: UnixDatagram,
    pub folder: tempfile::TempDir,
    pub port: u16,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn keelson() -> Command {
    Command::new(env!("CARGO_BIN_EXE_keelson"))
}

/// Runs the test's program as a plain user where the test itself is root.
fn unprivileged(command: &mut Command, folder: &Path) {
    if nix::unistd::Uid::effective().is_root() {
        let owner = format!("{NOBODY}:{NOBODY}");
        // All but the program: it may be the built one by another name.
        let inside = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let paths = inside.filter(|path| path.file_name() != Some("keelson".as_ref()));
        assert!(Command::new("chown").arg("-R").arg(&owner).args(paths).status().unwrap().success());
        assert!(Command::new("chown").arg(owner).arg(folder).status().unwrap().success());
        command.uid(NOBODY).gid(NOBODY);
    }
}

impl Running {
    /// A folder and a configuration in it; nothing runs.
    pub fn prepared(more: &str) -> Running {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let state = folder.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let text = format!(
            "apiVersion: keelson/v1\nkind: Configuration\nnode: {{name: n1, address: 192.0.2.1}}\npaths: {{state: {}}}\n\
             apiServer: {{bind: '127.0.0.1:{port}'}}\n{more}",
            state.display()
        );
        std::fs::write(folder.path().join("config.yaml"), text).unwrap();
        let manager = UnixDatagram::bind(folder.path().join("manager")).unwrap();
        manager.set_read_timeout(Some(LIMIT)).unwrap();
        // The built program lies in a folder that others may not enter.
        let program = folder.path().join("keelson");
        if std::fs::hard_link(env!("CARGO_BIN_EXE_keelson"), &program).is_err() {
            std::fs::copy(env!("CARGO_BIN_EXE_keelson"), &program).unwrap();
        }
        Running { child: None, manager, folder, port }
    }

    pub fn start() -> Running {
        let mut running = Running::prepared("");
        running.begin();
        running
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Starts the control plane; what it logs goes to the file `log`.
    pub fn begin(&mut self) {
        let root = nix::unistd::Uid::effective().is_root();
        let mut command = if root { Command::new(self.folder.path().join("keelson")) } else { keelson() };
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        command
            .args(["control-plane", "--config"])
            .arg(self.config())
            .env("NOTIFY_SOCKET", self.folder.path().join("manager"))
            .env("WATCHDOG_USEC", "3000000")
            .env_remove("WATCHDOG_PID")
            .stdout(Stdio::null())
            .stderr(log);
        unprivileged(&mut command, self.folder.path());
        self.child = Some(command.spawn().unwrap());
    }

    pub fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Ends it and waits; it must end well.
    pub fn end(&mut self) {
        let mut child = self.child.take().unwrap();
        let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let (ended, end) = std::sync::mpsc::channel();
        std::thread::spawn(move || ended.send(child.wait().unwrap()));
        let status = end.recv_timeout(LIMIT).expect("it does not end");
        assert!(status.success(), "{status}: {}", std::fs::read_to_string(self.log()).unwrap());
    }

    /// The next message for the service manager that holds `words`.
    pub fn told(&self, words: &str) {
        let begun = Instant::now();
        let mut buffer = [0u8; 512];
        while begun.elapsed() < LIMIT {
            match self.manager.recv(&mut buffer) {
                Ok(length) if String::from_utf8_lossy(&buffer[..length]).contains(words) => return,
                Ok(_) => {}
                // A signal, say, is no answer.
                Err(error) => println!("receiving as the service manager: {error}"),
            }
        }
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        panic!("the service manager was not told {words}; the log:\n{log}");
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config.yaml")
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        keelson().args(arguments).arg("--config").arg(self.config()).output().unwrap()
    }

    /// What a command that must fail says.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }

    pub fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What `keelson join` says when it fails, from a machine that knows nothing yet.
    pub fn join(&self, arguments: &[&str]) -> String {
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
