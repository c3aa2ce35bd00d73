//! Running programs, steps with progress, and where things lie in the repository.

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// The build folder: `CARGO_TARGET_DIR` or `target`.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A command's line as a person would type it.
pub fn line(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// Runs a command to its end; its output is returned, and shown when it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let text = line(command);
    let result = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{text}`"))?;
    if !result.status.success() {
        let streams = [result.stdout, result.stderr].concat();
        let streams = String::from_utf8_lossy(&streams);
        let tail: Vec<&str> = streams.lines().rev().take(30).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("`{text}` failed ({}):\n{}", result.status, tail.join("\n"));
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

/// Runs one step under a title: a spinner on a terminal, one line before and one after elsewhere. `hint` says what to do
/// when the step fails.
pub fn step<T>(title: &str, hint: &str, work: impl FnOnce(&Step) -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} [{elapsed}]") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar.set_message(title.to_owned());
    if bar.is_hidden() {
        println!("… {title}");
    }
    let step = Step { bar, title: title.to_owned() };
    let result = work(&step);
    step.bar.finish_and_clear();
    let seconds = begun.elapsed().as_secs_f64();
    match result {
        Ok(value) => {
            println!("✓ {title} ({seconds:.1} s)");
            Ok(value)
        }
        Err(error) => {
            println!("✗ {title} ({seconds:.1} s)");
            Err(error.context(format!("step \"{title}\" failed. {hint}")))
        }
    }
}

/// A running step.
pub struct Step {
    bar: ProgressBar,
    title: String,
}

impl Step {
    /// Says what the step is at.
    pub fn note(&self, note: &str) {
        self.bar.set_message(format!("{}: {note}", self.title));
    }

    /// Asks `check` again and again until it gives a value; fails after `limit` with the last reason.
    pub fn wait<T>(&self, limit: Duration, mut check: impl FnMut() -> Result<T>) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            match check() {
                Ok(value) => return Ok(value),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error.context(format!("gave up after {} s", limit.as_secs())));
                }
                Err(error) => self.note(&format!("{error:#}").lines().next().unwrap_or_default().to_owned()),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Writes a file by temporary file and rename.
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make folder {}", folder.display()))?;
    }
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, content).with_context(|| format!("cannot write {}", temporary.display()))?;
    std::fs::rename(&temporary, path).with_context(|| format!("cannot rename to {}", path.display()))
}
