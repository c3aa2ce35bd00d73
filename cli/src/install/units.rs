//! Units of the service manager.

use super::ledger::{Entry, Ledger};
use super::{machine, run, sealed};
use anyhow::{Context as _, Result, bail};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long units may take to stop (their units' limit and a little), and how often it is looked.
const STOPS: Duration = Duration::from_secs(65);
const LOOK: Duration = Duration::from_millis(50);

/// The units that a machine may run.
pub const ALL_IN_ONE: &str = "keelson.service";
pub const CONTROL_PLANE: &str = "keelson-control-plane.service";
pub const KUBELET: &str = "keelson-kubelet.service";
pub const PROXY: &str = "keelson-proxy.service";
pub const ETCD: &str = "keelson-etcd.service";
/// Where systemd keeps what is enabled.
const ENABLED: &str = "/etc/systemd/system";
/// All of them, in the order they are stopped.
pub const EVERY: [&str; 5] = [ALL_IN_ONE, KUBELET, PROXY, CONTROL_PLANE, ETCD];

/// Enables units and starts those that do not run; with `changed` those that do are restarted, to read what changed. Where
/// no systemd runs, says what to run instead.
pub fn start(ledger: &Ledger, units: &[&str], changed: bool) -> Result<()> {
    if !machine::systemd() {
        let commands: Vec<String> = units.iter().map(|unit| format!("  {}", command(unit))).collect();
        bail!(
            "systemd does not run here, so nothing was started. Start this yourself, each as a service of its own:\n{}\n\
             then run the same command again",
            commands.join("\n")
        );
    }
    for unit in units {
        ledger.note(Entry::Unit { name: (*unit).to_owned() })?;
    }
    // Either has systemd read its files again: what this command changed among them is in effect from here on.
    if sealed::is(Path::new(ENABLED)) {
        sealed::check_start()?;
        run("systemctl", &["daemon-reload"])?;
    } else {
        let mut arguments = vec!["enable", "--quiet"];
        arguments.extend(units);
        run("systemctl", &arguments)?;
    }
    // The wait for readiness is the caller's, with its own words.
    let verb = if changed { "restart" } else { "start" };
    let before: Vec<String> = units.iter().map(|unit| invocation(unit)).collect();
    for unit in units {
        run("systemctl", &[verb, "--no-block", unit])?;
    }
    if changed {
        replaced(units, &before)?;
    }
    Ok(())
}

/// Where the runtime reads network configurations from another folder than the one that the proxy's unit may write to, lets it
/// write there too.
pub fn let_proxy_write(ledger: &Ledger, folder: &Path) -> Result<()> {
    let drop_in = Path::new(ENABLED).join(format!("{PROXY}.d")).join("10-keelson-folders.conf");
    if !machine::systemd() || (folder == Path::new(keelson_base::consts::CNI_CONF_DIR) && !drop_in.exists()) {
        return Ok(());
    }
    let text = format!(
        "# Written by keelson; `keelson reset` removes it.\n[Service]\nReadWritePaths=-{}\n",
        folder.display()
    );
    if std::fs::read_to_string(&drop_in).is_ok_and(|there| there == text) {
        return Ok(());
    }
    sealed::check(&drop_in)?;
    ledger.write(&drop_in, text.as_bytes(), 0o644).map(drop)
}

/// What systemd calls this run of a unit; empty for one that has never run.
fn invocation(unit: &str) -> String {
    run("systemctl", &["show", "--property", "InvocationID", "--value", unit]).unwrap_or_default()
}

/// Waits until each unit runs anew: the process that goes still answers, and must not be taken for the one that comes.
fn replaced(units: &[&str], before: &[String]) -> Result<()> {
    let end = Instant::now() + STOPS;
    for (unit, old) in units.iter().zip(before) {
        while invocation(unit) == *old {
            anyhow::ensure!(Instant::now() < end, "{unit} does not stop; `systemctl status {unit}` says why");
            std::thread::sleep(LOOK);
        }
    }
    Ok(())
}

/// Stops and disables a unit. One whose file went with its package is disabled by removing what enabled it.
pub fn stop(unit: &str) -> Result<()> {
    let there = ["/lib/systemd/system", ENABLED].iter().any(|at| Path::new(at).join(unit).exists());
    if there && sealed::is(Path::new(ENABLED)) {
        return run("systemctl", &["stop", unit]).map(drop);
    }
    if there {
        return run("systemctl", &["disable", "--now", "--quiet", unit]).map(drop);
    }
    let link = Path::new(ENABLED).join("multi-user.target.wants").join(unit);
    match std::fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", link.display()))
        }
        _ => run("systemctl", &["daemon-reload"]).map(drop),
    }
}

/// What a unit runs.
pub fn command(unit: &str) -> &'static str {
    match unit {
        CONTROL_PLANE => "keelson control-plane",
        KUBELET => "keelson kubelet",
        PROXY => "keelson proxy",
        ETCD => "etcd --config-file /var/lib/keelson/etcd/etcd.yaml",
        _ => "keelson all-in-one",
    }
}

/// Whether a unit is there and runs.
pub fn active(unit: &str) -> bool {
    machine::systemd() && run("systemctl", &["is-active", "--quiet", unit]).is_ok()
}

/// Whether a unit is started at boot.
pub fn enabled(unit: &str) -> bool {
    machine::systemd() && run("systemctl", &["is-enabled", "--quiet", unit]).is_ok()
}

/// Whether a unit runs or is on its way: what it listens on is taken by it.
pub fn started(unit: &str) -> bool {
    let state = run("systemctl", &["show", "--property", "ActiveState", "--value", unit]).unwrap_or_default();
    machine::systemd() && matches!(state.trim(), "active" | "activating" | "reloading")
}

/// Whether a unit's process runs a program that was replaced since it started.
pub fn outdated(unit: &str) -> bool {
    let pid = run("systemctl", &["show", "--property", "MainPID", "--value", unit]).unwrap_or_default();
    std::fs::read_link(format!("/proc/{}/exe", pid.trim()))
        .is_ok_and(|program| program.as_os_str().as_encoded_bytes().ends_with(b" (deleted)"))
}

/// The last lines that a unit logged, for an error's text.
pub fn last_words(unit: &str) -> String {
    run("journalctl", &["--unit", unit, "--lines", "5", "--no-pager", "--output", "cat"])
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}
