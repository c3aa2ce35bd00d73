//! What no compiler checks: the arrows between crates, file lengths, and that nothing of a build machine is committed.

use crate::run::{output, root};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::process::Command;

/// Which of our crates each crate may use outside of tests. Everything else is refused.
const ARROWS: &[(&str, &[&str])] = &[
    ("keelson-base", &[]),
    ("keelson-api", &["keelson-base"]),
    ("keelson-daemon", &["keelson-base"]),
    ("keelson-client", &["keelson-base", "keelson-daemon", "keelson-pki"]),
    ("keelson-pki", &["keelson-base"]),
    ("keelson-sys", &["keelson-base"]),
    ("keelson-proto", &[]),
    ("keelson-pause", &[]),
    ("keelson-test-agent", &[]),
    ("keelson-streams", &["keelson-base"]),
    ("keelson-faultfs", &[]),
    ("keelson-store", &["keelson-base"]),
    (
        "keelson-apiserver",
        &["keelson-api", "keelson-base", "keelson-daemon", "keelson-pki", "keelson-store", "keelson-streams"],
    ),
    ("keelson-scheduler", &["keelson-base", "keelson-client", "keelson-daemon"]),
    ("keelson-controllers", &["keelson-base", "keelson-client", "keelson-daemon", "keelson-pki"]),
    (
        "keelson-kubelet",
        &[
            "keelson-base",
            "keelson-client",
            "keelson-daemon",
            "keelson-proto",
            "keelson-streams",
            "keelson-sys",
        ],
    ),
    ("keelson-proxy", &["keelson-base", "keelson-client", "keelson-daemon", "keelson-sys"]),
    ("keelson-cni", &["keelson-base", "keelson-sys"]),
];

/// Crates that may use any other: the composition root, tests and tasks.
const ROOTS: &[&str] = &[
    "keelson",
    "keelson-bench",
    "keelson-clients",
    "keelson-conformance",
    "keelson-fuzz",
    "keelson-tests",
    "keelson-testkit",
    "keelson-rounds",
    "keelson-validation",
    "xtask",
];

/// Longest source file, in lines; generated tables and tests may be longer.
const LONGEST_FILE: usize = 800;

/// Runs every check and reports all findings at once.
pub fn run() -> Result<()> {
    let mut findings = arrows()?;
    findings.extend(files()?);
    if findings.is_empty() {
        println!("✓ tidy");
        return Ok(());
    }
    bail!("tidy found:\n  {}", findings.join("\n  "))
}

fn arrows() -> Result<Vec<String>> {
    let metadata = cargo_metadata::MetadataCommand::new().no_deps().current_dir(root()).exec()?;
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut findings = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        if ROOTS.contains(&name) {
            continue;
        }
        let Some(allowed) = allowed.get(name) else {
            findings.push(format!("crate {name} has no row in xtask/src/tidy.rs"));
            continue;
        };
        let used = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind == cargo_metadata::DependencyKind::Normal)
            .filter(|dependency| dependency.path.is_some());
        for dependency in used.filter(|dependency| !allowed.contains(&dependency.name.as_str())) {
            findings.push(format!("{name} may not use {}: see docs/ARCHITECTURE.md", dependency.name));
        }
    }
    Ok(findings)
}

fn files() -> Result<Vec<String>> {
    let listed = output(Command::new("git").args(["ls-files"]).current_dir(root()))?;
    let mut findings = Vec::new();
    for path in listed.lines() {
        let Ok(text) = std::fs::read_to_string(root().join(path)) else { continue };
        let test = path.contains("tests") || path.contains("generated") || path.ends_with("_test.rs");
        if path.ends_with(".rs") {
            let lines = text.lines().count();
            if lines > LONGEST_FILE && !test {
                findings.push(format!("{path}: {lines} lines, at most {LONGEST_FILE}"));
            }
            if unsafe_code(&text)
                && !(path.starts_with("lib/sys/") || path.starts_with("control-plane/store/faultfs/"))
            {
                findings.push(format!("{path}: `unsafe` belongs in lib/sys"));
            }
        }
        let work = concat!("/wo", "rk/");
        if text.contains(work) {
            findings.push(format!("{path}: names a folder of a build machine"));
        }
    }
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).context("no Cargo.toml")?;
    if !manifest.contains("unsafe_code = \"deny\"") {
        findings.push("Cargo.toml: the workspace must deny unsafe_code".into());
    }
    Ok(findings)
}

fn unsafe_code(text: &str) -> bool {
    text.lines().any(|line| {
        let code = line.split("//").next().unwrap_or_default();
        code.contains(concat!("unsafe ", "{")) || code.contains(concat!("allow(unsafe", "_code)"))
    })
}
