//! kubectl as a program.

use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A command that takes longer is ended.
const LIMIT: Duration = Duration::from_secs(6 * 60);

/// What a run of kubectl said.
pub struct Said {
    pub stdout: String,
    pub stderr: String,
    pub code: i32,
}

/// The program with the kubeconfig it uses, and a folder for its caches.
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: tempfile::TempDir,
    limit: Duration,
}

impl Kubectl {
    pub fn new(program: &Path, kubeconfig: &Path, patience: Option<Duration>) -> Result<Kubectl> {
        Ok(Kubectl {
            program: program.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            home: tempfile::tempdir().context("no temporary folder")?,
            limit: patience.map_or(LIMIT, |time| LIMIT.min(time * 5)),
        })
    }

    /// A command in a namespace, not yet started.
    pub fn command(&self, namespace: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--namespace").arg(namespace).args(arguments);
        command.env("HOME", self.home.path()).kill_on_drop(true).stdin(Stdio::null());
        command
    }

    /// Runs it to the end, whatever its exit code.
    pub async fn run(&self, namespace: &str, arguments: &[&str], input: Option<&str>) -> Result<Said> {
        let what = || format!("kubectl {}", arguments.join(" "));
        let mut command = self.command(namespace, arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().with_context(|| format!("cannot run {}", self.program.display()))?;
        let feed = child.stdin.take().zip(input.map(str::to_owned));
        let ended = tokio::time::timeout(self.limit, async {
            if let Some((mut stdin, text)) = feed {
                // A kubectl that ends early closes its input; its exit code says why.
                let _ = stdin.write_all(text.as_bytes()).await;
            }
            child.wait_with_output().await
        });
        let Ok(output) = ended.await else { bail!("{}: did not end", what()) };
        let output = output.with_context(what)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Said {
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
            code: output.status.code().unwrap_or(-1),
        })
    }

    /// Runs it; its output if the exit code is 0.
    pub async fn ok(&self, namespace: &str, arguments: &[&str]) -> Result<String> {
        self.fed(namespace, arguments, None).await
    }

    /// As [`Kubectl::ok`] with something on standard input.
    pub async fn input(&self, namespace: &str, arguments: &[&str], input: &str) -> Result<String> {
        self.fed(namespace, arguments, Some(input)).await
    }

    async fn fed(&self, namespace: &str, arguments: &[&str], input: Option<&str>) -> Result<String> {
        let said = self.run(namespace, arguments, input).await?;
        ensure!(
            said.code == 0,
            "kubectl {}: exit code {}: {}",
            arguments.join(" "),
            said.code,
            said.stderr.trim()
        );
        Ok(said.stdout)
    }

    /// Runs it; it must fail and its error output hold one of the texts.
    pub async fn refused(
        &self,
        namespace: &str,
        arguments: &[&str],
        input: Option<&str>,
        texts: &[&str],
    ) -> Result<()> {
        let said = self.run(namespace, arguments, input).await?;
        ensure!(
            said.code != 0 && texts.iter().any(|text| said.stderr.contains(text)),
            "kubectl {}: expected a failure with one of {texts:?}, got exit code {} and {:?}",
            arguments.join(" "),
            said.code,
            said.stderr
        );
        Ok(())
    }
}
