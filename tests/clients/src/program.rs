//! Programs that test by themselves and print `ok NAME` or `FAILED NAME: reason` for each thing they tried.

use crate::Tally;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::{Command, Stdio};

pub struct Program {
    pub name: &'static str,
    /// Below the folder of the clients.
    program: &'static str,
    /// Below this crate.
    script: Option<&'static str>,
}

pub const PROGRAMS: &[Program] = &[
    Program { name: "client-go", program: "api", script: None },
    Program { name: "python", program: "venv/bin/python3", script: Some("python/clients.py") },
];

/// Runs one to its end.
pub fn run(program: &Program, programs: &Path, kubeconfig: &Path) -> Result<Tally> {
    let path = programs.join(program.program);
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "240"]).arg(&path);
    if let Some(script) = program.script {
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script));
    }
    let output = command
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", path.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut tally = Tally { name: program.name.to_owned(), ..Tally::default() };
    for line in text.lines() {
        if line.starts_with("ok ") {
            tally.passed += 1;
        } else if let Some(failure) = line.strip_prefix("FAILED ") {
            tally.failures.push(failure.to_owned());
        }
    }
    if !output.status.success() && tally.failures.is_empty() {
        let err = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = err.lines().rev().take(10).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        tally.failures.push(format!("ended with {}: {}", output.status, tail.join("\n    ")));
    }
    println!("{}: {} passed, {} failed", tally.name, tally.passed, tally.failures.len());
    Ok(tally)
}
