//! `make test-clients`: other people's clients, made from their packages into target/clients, and run on a running cluster.

use crate::packages;
use crate::run::{output, root, step, target};
use anyhow::{Context, Result, bail};
use keelson_tests::Places;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The kubectl that is built from its module; tests/clients/go/go.mod pins it.
const KUBECTL: &str = "v1.35.1";

/// Where the clients are.
fn folder() -> PathBuf {
    target().join("clients")
}

/// Gets or builds what is missing of two kubectls, Helm, the client-go program and Python's client. Needs the package
/// registries; what it made is used again.
pub fn prepare() -> Result<()> {
    packages::install_client_tools()?;
    std::fs::create_dir_all(folder())?;
    let hint = "The machine's own apt source must carry the suite trixie.";
    step("fetching kubectl 1.32 from Debian's packages", hint, |_| {
        let program = packages::kubectl_of_trixie()?;
        std::fs::copy(&program, folder().join("kubectl-132")).context("cannot copy kubectl").map(drop)
    })?;
    let hint = "Run `go build ./...` in tests/clients/go to see why.";
    step("building kubectl 1.35, Helm and the client-go program", hint, |_| {
        let go = packages::go()?;
        let version = |package: &str| format!("-X {package}.gitVersion={KUBECTL}");
        let flags = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"].map(version).join(" ");
        for (program, package) in
            [("kubectl-135", "./kubectl"), ("helm", "helm.sh/helm/v3/cmd/helm"), ("api", "./api")]
        {
            build(&go, &format!("-s -w {flags}"), program, package)?;
        }
        Ok(())
    })?;
    step("installing Python's client", "Run tests/clients/python/requirements.txt through pip.", |_| {
        let wanted = std::fs::read(root().join("tests/clients/python/requirements.txt"))?;
        let done = folder().join("venv/requirements.txt");
        if std::fs::read(&done).is_ok_and(|there| there == wanted) {
            return Ok(());
        }
        output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder().join("venv")))?;
        let mut install = Command::new(folder().join("venv/bin/pip"));
        install.args(["install", "--quiet", "--requirement", "tests/clients/python/requirements.txt"]);
        output(install.current_dir(root()))?;
        std::fs::write(done, wanted).context("cannot note what is installed")
    })
}

fn build(go: &Path, flags: &str, program: &str, package: &str) -> Result<()> {
    let mut command = Command::new(go);
    command.args(["build", "-buildvcs=false", "-ldflags", flags, "-o"]).arg(folder().join(program));
    // The Go that was found must do: none is fetched in its place.
    command.arg(package).env("GOTOOLCHAIN", "local");
    output(command.current_dir(root().join("tests/clients/go"))).map(drop)
}

/// Runs the tables and programs whose names hold `only` on the running cluster.
pub fn run(only: &str, jobs: usize) -> Result<()> {
    let places = Places::of_environment();
    if !places.kubeconfig().exists() {
        bail!("no cluster runs ({} is missing): run `make cluster` first", places.kubeconfig().display());
    }
    if !folder().join("venv/requirements.txt").exists() {
        bail!("the clients are not there yet: run `cargo xtask client-programs`");
    }
    let status = Command::new(target().join("debug/keelson-clients"))
        .arg("--kubeconfig")
        .arg(places.kubeconfig())
        .arg("--programs")
        .arg(folder())
        .args(["--jobs", &jobs.to_string(), "--only", only])
        .status()
        .context("cannot run target/debug/keelson-clients; `cargo build -p keelson-clients` makes it")?;
    if !status.success() {
        bail!("the clients' tests failed");
    }
    Ok(())
}
