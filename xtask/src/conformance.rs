//! `make conformance`: the conformance tests on the cluster of `make cluster`.

use crate::run::{output, root, step, target};
use crate::{containerd, images, packages};
use anyhow::{Context, Result, bail};
use keelson_tests::Places;
use std::process::Command;

/// Brings the tests' image into the running cluster and runs those whose names hold `only`.
pub fn run(only: &str, jobs: usize) -> Result<()> {
    let places = Places::of_environment();
    if !places.kubeconfig().exists() {
        bail!("no cluster runs ({} is missing): run `make cluster` first", places.kubeconfig().display());
    }
    let kubectl = packages::kubectl(&places.data.join("bin"))?;
    let archive = images::test_agent(&target().join("images"))?;
    step(
        "importing the tests' image",
        "Is the cluster's containerd running? `make cluster` starts it.",
        |step| {
            let runtime = containerd::ensure(step, &places.data, &places.run)?;
            containerd::import(step, &runtime, &[archive])
        },
    )?;
    step("building the tests", "Run `cargo build -p keelson-conformance` to see all of it.", |_| {
        let arguments = ["build", "--quiet", "--package", "keelson-conformance"];
        output(Command::new("cargo").args(arguments).current_dir(root()))
    })?;
    let status = Command::new(target().join("debug/keelson-conformance"))
        .arg("--kubeconfig")
        .arg(places.kubeconfig())
        .arg("--kubectl")
        .arg(kubectl)
        .arg("--report")
        .arg(target().join("reports/conformance.tsv"))
        .arg("--second-node")
        .arg(std::env::current_exe()?)
        .args(["--jobs", &jobs.to_string(), "--only", only])
        .status()
        .context("cannot run the tests")?;
    if !status.success() {
        bail!("see above; each result is in target/reports/conformance.tsv");
    }
    Ok(())
}
