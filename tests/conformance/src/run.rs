//! Runs the tests: several at once, those marked [Serial] alone and last.

use crate::env::{Env, Run};
use crate::suite::{Test, Todo};
use anyhow::{Result, anyhow, ensure};
use futures::{FutureExt, StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// No test may take longer (upstream's slowest waits for a compaction, ten minutes).
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// How a test ended.
pub enum Outcome {
    Passed,
    Failed { why: String, steps: Vec<String> },
    Skipped(&'static str),
}

/// A test with its outcome.
pub struct Finished {
    pub area: &'static str,
    pub name: &'static str,
    pub outcome: Outcome,
    pub took: Duration,
}

/// Gives the cluster a second node, or takes it away.
async fn node(program: &Path, task: &str) -> Result<()> {
    let ended = tokio::process::Command::new(program).args(["second-node", task]).output().await?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{} second-node {task}: {said}", program.display());
    Ok(())
}

/// Runs all of them and returns the results in the tests' order. Those that need two nodes come last, when
/// `second_node`, where it is given, has made one.
pub async fn all(
    run: Rc<Run>,
    tests: Vec<Test>,
    jobs: usize,
    second_node: Option<&Path>,
) -> Result<Vec<Finished>> {
    let bar = ProgressBar::new(tests.len() as u64);
    bar.set_style(ProgressStyle::with_template("{elapsed_precise} {pos}/{len} {wide_msg}")?);
    let order: Vec<&str> = tests.iter().map(|test| test.name).collect();
    let (two_nodes, tests): (Vec<Test>, Vec<Test>) = tests.into_iter().partition(|test| test.two_nodes);
    let (serial, parallel): (Vec<Test>, Vec<Test>) = tests.into_iter().partition(|test| test.serial);
    let mut results = Vec::new();
    let alone = if run.patience.is_some() { jobs } else { 1 };
    let needs_node = if two_nodes.is_empty() { None } else { second_node };
    for (batch, jobs, program) in
        [(parallel, jobs.max(1), None), (serial, alone, None), (two_nodes, alone, needs_node)]
    {
        if let Some(program) = program {
            node(program, "up").await?;
        }
        let mut running =
            stream::iter(batch.into_iter().map(|test| one(run.clone(), test))).buffer_unordered(jobs);
        while let Some(finished) = running.next().await {
            let (word, note) = match &finished.outcome {
                Outcome::Passed => ("passed ", String::new()),
                Outcome::Failed { why, .. } => ("FAILED ", format!(": {why}")),
                Outcome::Skipped(why) => ("skipped", format!(": {why}")),
            };
            let line = format!("{word} {:6.1} s  {}{note}", finished.took.as_secs_f64(), finished.name);
            // Without a terminal the bar prints nothing.
            if bar.is_hidden() {
                println!("{line}")
            } else {
                bar.println(line)
            }
            bar.set_message(finished.name);
            bar.inc(1);
            results.push(finished);
        }
        if let Some(program) = program {
            node(program, "down").await?;
        }
    }
    bar.finish_and_clear();
    results.sort_by_key(|result| order.iter().position(|name| *name == result.name));
    Ok(results)
}

async fn one(run: Rc<Run>, test: Test) -> Finished {
    let begun = Instant::now();
    let outcome = match test.todo {
        Todo::Skip(why) => Outcome::Skipped(why),
        Todo::Run { base, level, body } => {
            let env = Env::new(run, base, level);
            let given = env.clone();
            let work = tokio::time::timeout(LIMIT, async {
                given.set_up().await?;
                body(given.clone()).await
            });
            let tested = match AssertUnwindSafe(work).catch_unwind().await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(anyhow!("not done after {} min", LIMIT.as_secs() / 60)),
                Err(_) => Err(anyhow!("the test panicked")),
            };
            let cleaned = env.clean_up().await;
            match tested.and(cleaned) {
                Ok(()) => Outcome::Passed,
                Err(error) => Outcome::Failed { why: format!("{error:#}"), steps: env.steps() },
            }
        }
    };
    Finished { area: test.area, name: test.name, outcome, took: begun.elapsed() }
}
