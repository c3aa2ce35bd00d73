//! Units of the service manager: ours and the runtime's.

use super::{Found, Subject, good, wrong};
use crate::install::{machine, run, sealed, units};

const RUNTIME: &str = "containerd.service";

fn property(unit: &str, name: &str) -> String {
    run("systemctl", &["show", "--property", name, "--value", unit]).unwrap_or_default().trim().to_owned()
}

fn without_systemd() -> Option<Vec<Found>> {
    (!machine::systemd()).then(|| vec![good("systemd does not run here")])
}

/// Each unit is enabled.
pub fn enabled(subject: &Subject<'_>) -> Vec<Found> {
    without_systemd().unwrap_or_else(|| subject.units.iter().map(|unit| at_boot(unit)).collect())
}

/// So is the runtime's.
pub fn runtime_at_boot(_: &Subject<'_>) -> Vec<Found> {
    without_systemd().unwrap_or_else(|| match property(RUNTIME, "LoadState").as_str() {
        "loaded" => vec![at_boot(RUNTIME)],
        _ => vec![good("the runtime is no unit called containerd")],
    })
}

fn at_boot(unit: &str) -> Found {
    match property(unit, "UnitFileState").as_str() {
        "enabled" | "enabled-runtime" | "static" | "alias" | "linked" => {
            good(format!("{unit} starts at boot"))
        }
        "masked" => wrong(
            format!("{unit} is masked"),
            format!("`systemctl unmask {unit} && systemctl enable {unit}`"),
        ),
        // What cannot be enabled is begun by one that the image has enabled.
        "disabled" if sealed::begins(unit) => good(format!("{} begins {unit}", sealed::FIRST_BOOT)),
        state => {
            let state = if state.is_empty() { "not there" } else { state };
            wrong(
                format!("{unit} does not start at boot: it is {state}"),
                format!("`systemctl enable {unit}`"),
            )
        }
    }
}

/// The service manager has read the files as they are.
pub fn current(subject: &Subject<'_>) -> Vec<Found> {
    without_systemd().unwrap_or_else(|| {
        let stale = |unit: &&&str| property(unit, "NeedDaemonReload") == "yes";
        vec![match subject.units.iter().find(stale) {
            Some(unit) => wrong(
                format!("{unit} was changed on disk; the service manager has not read it"),
                "`systemctl daemon-reload`",
            ),
            None => good("as the service manager knows them"),
        }]
    })
}

/// Each unit runs.
pub fn running(subject: &Subject<'_>) -> Vec<Found> {
    let one = |unit: &str| match property(unit, "ActiveState").as_str() {
        "active" => good(format!("{unit} runs")),
        "activating" | "reloading" => {
            let words = units::last_words(unit);
            let last = words.lines().last().unwrap_or("nothing was logged");
            wrong(
                format!("{unit} does not get ready ({last})"),
                format!("`journalctl -u {unit} -n 30 --no-pager` says why"),
            )
        }
        state => wrong(format!("{unit} does not run: it is {state}"), format!("`systemctl start {unit}`")),
    };
    without_systemd().unwrap_or_else(|| subject.units.iter().map(|unit| one(unit)).collect())
}
