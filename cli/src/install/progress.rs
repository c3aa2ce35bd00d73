//! Steps with a spinner on a terminal and a line each elsewhere; nothing but the result with `--output json`.

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use std::future::Future;
use std::time::{Duration, Instant};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    #[default]
    Text,
    Json,
}

/// Shows what is being done.
#[derive(Clone, Copy)]
pub struct Progress {
    quiet: bool,
}

impl Progress {
    pub fn new(output: Output) -> Progress {
        Progress { quiet: output == Output::Json }
    }

    /// Runs a step that does not wait for others.
    pub fn step<T>(&self, title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let shown = self.begin(title);
        let result = work();
        shown.end(result.is_ok());
        result
    }

    /// Runs a step that waits.
    pub async fn wait<T>(&self, title: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let shown = self.begin(title);
        let result = work.await;
        shown.end(result.is_ok());
        result
    }

    /// A remark below the steps.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    fn begin(&self, title: &str) -> Shown {
        let bar = if self.quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} [{elapsed}]") {
            bar.set_style(style);
        }
        bar.set_message(title.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        Shown { bar, title: title.to_owned(), begun: Instant::now(), quiet: self.quiet }
    }
}

struct Shown {
    bar: ProgressBar,
    title: String,
    begun: Instant,
    quiet: bool,
}

impl Shown {
    fn end(&self, good: bool) {
        self.bar.finish_and_clear();
        if !self.quiet {
            let mark = if good { "✓" } else { "✗" };
            eprintln!("{mark} {} ({:.1} s)", self.title, self.begun.elapsed().as_secs_f64());
        }
    }
}

/// Asks `check` again and again until it gives a value; after `limit` its last reason is the error.
pub async fn until<T, F, Fut>(limit: Duration, mut check: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
        let outcome = tokio::time::timeout(left, check()).await;
        let reason = match outcome {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(reason)) => reason,
            Err(_) => anyhow::anyhow!("no answer came"),
        };
        if Instant::now() >= deadline {
            return Err(reason.context(format!("gave up after {} s", limit.as_secs())));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
