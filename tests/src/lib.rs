//! What the black-box tests share: the running cluster of `make cluster`, driven by an unmodified kubectl.
#![forbid(unsafe_code)]

mod places;

pub use places::Places;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The cluster under test.
pub struct Cluster {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    pub places: Places,
}

/// What a program said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Standard output of a program that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }
}

impl Cluster {
    /// The cluster that `make cluster` started, or `None` with a line that says why the test is skipped.
    pub fn find(test: &str) -> Option<Cluster> {
        let places = Places::of_environment();
        let kubeconfig = places.kubeconfig();
        if !kubeconfig.exists() {
            println!("SKIPPED: {test}: no cluster runs; start one with `make cluster`");
            return None;
        }
        let ours = places.data.join("bin/kubectl");
        let kubectl = if ours.exists() { ours } else { "kubectl".into() };
        Some(Cluster { kubectl, kubeconfig, places })
    }

    /// A kubectl command, not yet started.
    pub fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(line);
        command
    }

    /// Runs kubectl to its end.
    pub fn kubectl(&self, line: &[&str]) -> Said {
        self.kubectl_with_input(line, b"")
    }

    /// Runs kubectl with something on its standard input.
    pub fn kubectl_with_input(&self, line: &[&str], input: &[u8]) -> Said {
        run_with_input(&mut self.command(line), input)
    }

    /// Applies a manifest.
    #[track_caller]
    pub fn apply(&self, manifest: &str) {
        self.kubectl_with_input(&["apply", "-f", "-"], manifest.as_bytes()).ok();
    }
}

fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Asks again and again until `check` gives a value; panics after `limit` with the last answer.
#[track_caller]
pub fn eventually<T>(limit: Duration, what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match check() {
            Ok(value) => return value,
            Err(last) if Instant::now() > deadline => panic!("{what}: not within {limit:?}; last: {last}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Runs a command to its end with something on its standard input.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Said {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("the program ends");
    // A program that ends early closes its input: what it said is judged, not this.
    drop(writer.join());
    said(output)
}

/// Runs any program to its end.
pub fn run(program: &str, arguments: &[&str]) -> Said {
    said(Command::new(program).args(arguments).stdin(Stdio::null()).output().expect("the program starts"))
}
