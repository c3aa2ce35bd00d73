//! Checks of a machine: one table, of which `keelson init` and `keelson join` run those that hold before anything is
//! installed, and `keelson doctor` those that hold ever after. A check changes nothing; what is wrong comes with what to do,
//! and with the command to type, in backticks.

mod cluster;
pub mod doctor;
mod files;
mod machine;
mod network;
mod units;

use crate::install::progress::Progress;
use crate::node_certs::NodeFiles;
use anyhow::{Result, bail};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use keelson_daemon::config::Config;
use std::net::IpAddr;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Good(String),
    /// Works, but is worth knowing.
    Notice {
        what: String,
        mend: String,
    },
    Wrong {
        what: String,
        mend: String,
    },
}

fn good(text: impl Into<String>) -> Found {
    Found::Good(text.into())
}

fn notice(what: impl Into<String>, mend: impl Into<String>) -> Found {
    Found::Notice { what: line(what), mend: mend.into() }
}

fn wrong(what: impl Into<String>, mend: impl Into<String>) -> Found {
    Found::Wrong { what: line(what), mend: mend.into() }
}

/// One line of it, whatever an error's text holds: what is wrong and what to do are a line each.
fn line(text: impl Into<String>) -> String {
    text.into().lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// What a check is called, and a thing it found.
#[derive(Clone, Debug)]
pub struct Finding {
    pub name: &'static str,
    pub found: Found,
}

/// Which role the machine gets or has: what must be free and there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    ControlPlane,
    Worker,
}

/// The machine that is looked at.
pub struct Subject<'a> {
    pub config: &'a Config,
    pub role: Role,
    /// The address that the cluster knows it by.
    pub address: IpAddr,
    /// Whether its units run already.
    pub running: bool,
    /// The units that it should run; none before it is installed.
    pub units: &'static [&'static str],
    /// The node's name.
    pub node: &'a str,
}

impl Subject<'_> {
    fn installed(&self) -> bool {
        !self.units.is_empty()
    }

    fn control_plane(&self) -> bool {
        self.role == Role::ControlPlane
    }

    /// Whether control plane, kubelet and proxy are units of their own.
    fn separate(&self) -> bool {
        self.units.len() != 1
    }

    /// The unit that a component runs in.
    fn unit_of(&self, component: &'static str) -> &'static str {
        self.units
            .iter()
            .copied()
            .find(|unit| *unit == component)
            .unwrap_or(crate::install::units::ALL_IN_ONE)
    }

    fn files(&self) -> NodeFiles {
        NodeFiles::of(self.config)
    }
}

/// When a check has a meaning.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    /// Once the machine is part of a cluster.
    Installed,
}

enum Look {
    /// Of the machine alone.
    Machine(fn() -> Found),
    Now(fn(&Subject<'_>) -> Vec<Found>),
    Asking(for<'a> fn(&'a Subject<'a>) -> LocalBoxFuture<'a, Vec<Found>>),
}

struct Check {
    name: &'static str,
    when: When,
    look: Look,
}

const fn plain(name: &'static str, look: fn() -> Found) -> Check {
    Check { name, when: When::Always, look: Look::Machine(look) }
}

const fn always(name: &'static str, look: fn(&Subject<'_>) -> Vec<Found>) -> Check {
    Check { name, when: When::Always, look: Look::Now(look) }
}

const fn installed(name: &'static str, look: fn(&Subject<'_>) -> Vec<Found>) -> Check {
    Check { name, when: When::Installed, look: Look::Now(look) }
}

const fn asking(
    name: &'static str,
    look: for<'a> fn(&'a Subject<'a>) -> LocalBoxFuture<'a, Vec<Found>>,
) -> Check {
    Check { name, when: When::Installed, look: Look::Asking(look) }
}

/// All checks, in the order they are shown.
static CHECKS: &[Check] = &[
    plain("root", machine::root),
    plain("kernel", machine::kernel),
    plain("cgroups", machine::cgroups),
    plain("time", machine::time),
    always("disk", machine::disk),
    plain("swap", machine::swap),
    always("address", machine::address),
    always("ranges", machine::ranges),
    always("ports", machine::ports),
    always("firewall", network::firewall),
    installed("host name", files::host_name),
    installed("machine id", files::machine_id),
    Check {
        name: "runtime",
        when: When::Always,
        look: Look::Asking(|s| machine::runtime(s.config).boxed_local()),
    },
    installed("runtime at boot", units::runtime_at_boot),
    installed("sandbox image", network::sandbox_image),
    asking("pause image", |s| network::pause_image(s).boxed_local()),
    installed("unit files", units::current),
    installed("units at boot", units::enabled),
    installed("units", units::running),
    installed("state folder", files::state_folder),
    installed("key files", files::key_files),
    installed("owners", files::owners),
    installed("admin.conf", files::admin_conf),
    installed("certificates", files::certificates),
    installed("database", files::database),
    installed("damaged databases", files::damaged),
    installed("snapshots", files::snapshots),
    installed("static pods", files::static_pods),
    installed("CNI plugin", network::plugin),
    installed("CNI configuration", network::configuration),
    installed("other CNI configurations", network::others),
    installed("forwarding", network::forwarding),
    installed("rules", network::rules),
    asking("cluster DNS", |s| network::dns(s).boxed_local()),
    asking("etcd", |s| cluster::etcd(s).boxed_local()),
    asking("API server", |s| cluster::serving(s).boxed_local()),
    asking("node", |s| cluster::node(s).boxed_local()),
    asking("other nodes", |s| cluster::other_nodes(s).boxed_local()),
    asking("bootstrap tokens", |s| cluster::tokens(s).boxed_local()),
];

async fn run(subject: &Subject<'_>, when: impl Fn(When) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for check in CHECKS.iter().filter(|check| when(check.when)) {
        let found = match check.look {
            Look::Machine(look) => vec![look()],
            Look::Now(look) => look(subject),
            Look::Asking(look) => look(subject).await,
        };
        findings.extend(found.into_iter().map(|found| Finding { name: check.name, found }));
    }
    findings
}

/// What must hold before anything is installed.
pub async fn preflight(config: &Config, role: Role, address: IpAddr, running: bool) -> Vec<Finding> {
    let subject = Subject { config, role, address, running, units: &[], node: "" };
    run(&subject, |when| when == When::Always).await
}

/// Shows the checks; an error when one failed that is not among `ignored` names (`all` ignores every one).
pub fn judge(findings: &[Finding], ignored: &[String], progress: Progress) -> Result<()> {
    let mut failed = Vec::new();
    for finding in findings {
        let name = finding.name;
        match &finding.found {
            Found::Good(text) => progress.say(&format!("  ✓ {name}: {text}")),
            Found::Notice { what, mend } => progress.say(&format!("  ! {name}: {what}; {mend}")),
            Found::Wrong { what, .. } if ignored.iter().any(|one| one == "all" || one == name) => {
                progress.say(&format!("  ! {name}: {what} (ignored)"));
            }
            Found::Wrong { what, mend } => failed.push(format!("{name}: {what}. {mend}")),
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!(
        "this machine is not ready; nothing was changed:\n  {}\n(--ignore-preflight-errors NAME goes on regardless)",
        failed.join("\n  ")
    )
}

/// The command in a text: what stands in its first backticks.
fn command(mend: &str) -> Option<&str> {
    mend.split('`').nth(1).filter(|command| !command.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::progress::Output;

    #[test]
    fn a_failed_check_names_the_mending_command() {
        let findings = [
            Finding { name: "swap", found: notice("on", "`swapoff -a`") },
            Finding { name: "ports", found: wrong("something listens on 6443", "Stop it") },
        ];
        let progress = Progress::new(Output::Json);
        let error = judge(&findings, &[], progress).unwrap_err().to_string();
        assert!(error.contains("ports: something listens on 6443. Stop it"), "{error}");
        for ignored in ["ports", "all"] {
            judge(&findings, &[ignored.to_owned()], progress).unwrap();
        }
        assert_eq!(command("Run `a b` or `c`"), Some("a b"));
        assert_eq!(command("Stop it"), None);
    }

    #[test]
    fn names_are_told_apart() {
        let names: std::collections::BTreeSet<&str> = CHECKS.iter().map(|check| check.name).collect();
        assert_eq!(names.len(), CHECKS.len());
        assert!(names.len() >= 25);
    }

    /// Those tests break a machine, see the check name it, run the printed command and see it gone.
    #[test]
    fn each_has_a_test_on_a_machine() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/systemd");
        let scripts: String = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "sh"))
            .map(|path| std::fs::read_to_string(path).unwrap())
            .collect();
        let tested = |name: &str| {
            let by = |verb: &str| {
                scripts.contains(&format!("{verb} {name} "))
                    || scripts.contains(&format!("{verb} \"{name}\" "))
            };
            ["doctor_finds", "doctor_sees", "ails"].into_iter().any(by)
                || scripts.contains(&format!("✗ {name}: "))
        };
        let untested: Vec<&str> = CHECKS
            .iter()
            .map(|check| check.name)
            .chain(["configuration"])
            .filter(|name| !tested(name))
            .collect();
        assert_eq!(untested, Vec::<&str>::new());
        assert!(!tested("no such check"));
    }
}
