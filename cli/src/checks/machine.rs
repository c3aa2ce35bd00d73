//! Checks before anything is changed: each says what is wrong and what to type.

use super::containerd::Effective;
use super::machine;
use super::progress::Progress;
use anyhow::{Result, bail};
use keelson_base::cidr::Cidr;
use keelson_daemon::config::{CgroupDriver, Config};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Good(String),
    /// Works, but is worth knowing.
    Notice(String),
    Wrong {
        what: String,
        mend: String,
    },
}

/// A check's name and result.
pub struct Check {
    pub name: &'static str,
    pub found: Found,
}

fn good(text: impl Into<String>) -> Found {
    Found::Good(text.into())
}

fn wrong(what: impl Into<String>, mend: impl Into<String>) -> Found {
    Found::Wrong { what: what.into(), mend: mend.into() }
}

/// Which role the machine gets: what must be free and there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    ControlPlane,
    Worker,
}

/// Everything at once; nothing is changed.
pub async fn checks(config: &Config, role: Role, address: IpAddr, running: bool) -> Vec<Check> {
    let mut all = vec![
        Check { name: "root", found: root() },
        Check { name: "kernel", found: kernel() },
        Check { name: "cgroups", found: cgroups() },
        Check { name: "time", found: time() },
        Check { name: "disk", found: disk(&config.paths.state) },
        Check { name: "swap", found: swap() },
        Check { name: "address", found: owned(address) },
        Check { name: "ranges", found: ranges(config, &machine::addresses()) },
    ];
    if !running {
        let mut ports = vec![("kubelet", config.kubelet.bind.port())];
        if role == Role::ControlPlane {
            ports.push(("API server", config.api_server.bind.port()));
        }
        all.extend(
            ports.into_iter().map(|(what, port)| Check { name: "ports", found: port_free(what, port) }),
        );
    }
    all.extend(runtime(config).await);
    all
}

/// Shows the checks; an error when one failed that is not among `ignored` names (`all` ignores every one).
pub fn judge(checks: &[Check], ignored: &[String], progress: Progress) -> Result<()> {
    let mut failed = Vec::new();
    for check in checks {
        match &check.found {
            Found::Good(text) => progress.say(&format!("  ✓ {}: {text}", check.name)),
            Found::Notice(text) => progress.say(&format!("  ! {}: {text}", check.name)),
            Found::Wrong { what, .. } if ignored.iter().any(|name| name == "all" || name == check.name) => {
                progress.say(&format!("  ! {}: {what} (ignored)", check.name));
            }
            Found::Wrong { what, mend } => failed.push(format!("{}: {what}. {mend}", check.name)),
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

fn root() -> Found {
    match nix::unistd::Uid::effective().is_root() {
        true => good("yes"),
        false => wrong("a node needs root", "Run it with sudo"),
    }
}

fn kernel() -> Found {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (5, 10) {
        return wrong(format!("Linux {release} is older than 5.10"), "Install a newer kernel and restart");
    }
    let listed = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let overlay = listed.lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay");
    if !overlay && super::run("modprobe", &["overlay"]).is_err() {
        return wrong(
            "overlayfs is missing",
            "Run `modprobe overlay`; a kernel without it cannot hold images",
        );
    }
    match keelson_sys::nft::batch::open().and_then(|mut socket| keelson_sys::nft::generation(&mut socket)) {
        Ok(_) => good(format!("Linux {release}, nftables, overlayfs")),
        Err(error) => wrong(
            format!("nftables does not answer ({error})"),
            "Run `modprobe nf_tables`; a kernel without it cannot carry Services",
        ),
    }
}

fn cgroups() -> Found {
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers");
    let (version, has): (&str, Vec<String>) = match std::fs::read_to_string(v2) {
        Ok(text) => ("v2", text.split_whitespace().map(str::to_owned).collect()),
        Err(_) => {
            let names = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
            ("v1", names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        }
    };
    let missing: Vec<&str> =
        ["cpu", "memory", "pids"].into_iter().filter(|name| !has.iter().any(|has| has == name)).collect();
    match missing.as_slice() {
        [] => good(format!("{version} with cpu, memory, pids")),
        some => wrong(
            format!("cgroup {version} lacks {}", some.join(", ")),
            "Boot without cgroup_disable, or with `cgroup_enable=memory` on boards that switch it off",
        ),
    }
}

fn time() -> Found {
    const FLOOR: i64 = 1_767_225_600;
    match jiff::Timestamp::now() {
        now if now.as_second() >= FLOOR => good(now.strftime("%Y-%m-%d %H:%M UTC").to_string()),
        now => Found::Notice(format!(
            "the clock says {now}; certificates are made so that they hold when it is corrected (`timedatectl`)"
        )),
    }
}

fn disk(state: &Path) -> Found {
    const NEEDED: u64 = 1 << 30;
    match machine::free_space(state) {
        Some(free) if free < NEEDED => wrong(
            format!("{} MiB are free for {}, 1 GiB is needed", free >> 20, state.display()),
            "Free some, or set paths.state to a folder on another disk",
        ),
        Some(free) => good(format!("{} GiB free for {}", free >> 30, state.display())),
        None => {
            wrong(format!("the disk of {} cannot be looked at", state.display()), "Check that it is mounted")
        }
    }
}

fn swap() -> Found {
    match machine::swap().as_slice() {
        [] => good("off"),
        some => Found::Notice(format!(
            "{} is on: pods' memory limits do not bound what is swapped; `swapoff -a` turns it off",
            some.join(", ")
        )),
    }
}

fn owned(address: IpAddr) -> Found {
    if machine::addresses().iter().any(|one| one.address == address) {
        return good(address.to_string());
    }
    let has: Vec<String> = machine::addresses().iter().map(|one| one.address.to_string()).collect();
    wrong(
        format!("{address} is no address of this machine (it has {})", has.join(", ")),
        "Give one of these with --node-ip or --apiserver-advertise-address",
    )
}

/// The cluster's ranges must not hold the machine's own addresses.
fn ranges(config: &Config, addresses: &[machine::Address]) -> Found {
    let network = &config.network;
    let clash = |range: &Cidr| addresses.iter().find(|one| range.contains(one.address));
    for (key, flag, range) in [
        ("network.podCidr", "--pod-network-cidr", &network.pod_cidr),
        ("network.serviceCidr", "--service-cidr", &network.service_cidr),
    ] {
        if let Some(one) = clash(range) {
            return wrong(
                format!("{key} {range} holds this machine's address {} ({})", one.address, one.interface),
                format!("Choose another range with {flag}"),
            );
        }
    }
    good(format!("pods {}, Services {}", network.pod_cidr, network.service_cidr))
}

fn port_free(what: &str, port: u16) -> Found {
    match machine::port_taken(IpAddr::from([0, 0, 0, 0]), port) {
        false => good(format!("{port} is free for the {what}")),
        true => wrong(
            format!("something listens on {port}, which the {what} needs"),
            format!("See what it is with `ss -ltnp sport = :{port}` and stop it, or choose another port"),
        ),
    }
}

/// containerd: there, answering CRI, agreeing on cgroups.
async fn runtime(config: &Config) -> Vec<Check> {
    let socket = config.kubelet.cri_socket.display().to_string();
    let found = |found| vec![Check { name: "runtime", found }];
    if !config.kubelet.cri_socket.exists() {
        return found(wrong(
            format!("no container runtime listens at {socket}"),
            "Run `apt-get install containerd` and `systemctl enable --now containerd`, or give --cri-socket",
        ));
    }
    let effective = Effective::read();
    if effective.as_ref().is_ok_and(Effective::cri_disabled) {
        return found(wrong(
            "containerd's CRI plugin is off",
            "Remove \"cri\" from disabled_plugins in /etc/containerd/config.toml and run `systemctl restart containerd`",
        ));
    }
    let asked = async {
        let cri = keelson_kubelet::cri::Cri::new(&config.kubelet.cri_socket)?;
        cri.version().await
    };
    let version = match tokio::time::timeout(Duration::from_secs(5), asked).await {
        Ok(Ok(version)) => version,
        Ok(Err(error)) => {
            return found(wrong(
                format!("the container runtime at {socket} does not speak CRI v1 ({error})"),
                "Run `systemctl restart containerd` and look at `journalctl -u containerd`",
            ));
        }
        Err(_) => {
            return found(wrong(
                format!("the container runtime at {socket} does not answer"),
                "Run `systemctl restart containerd` and look at `journalctl -u containerd`",
            ));
        }
    };
    let mut all = found(good(format!("{} {}", version.runtime_name, version.runtime_version)));
    if let Ok(effective) = effective {
        let systemd = effective.systemd_cgroup();
        let agreed = match config.kubelet.cgroup_driver {
            CgroupDriver::Auto => true,
            CgroupDriver::Cgroupfs => !systemd,
            CgroupDriver::Systemd => systemd,
        };
        let names = if systemd { ("systemd", "cgroupfs") } else { ("cgroupfs", "systemd") };
        let found = match agreed {
            true => good(format!("driver {}", names.0)),
            false => wrong(
                format!("containerd uses {}, kubelet.cgroupDriver says {}", names.0, names.1),
                "Set kubelet.cgroupDriver to auto",
            ),
        };
        all.push(Check { name: "cgroup driver", found });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::progress::Output;

    #[test]
    fn a_failed_check_names_the_mending_command() {
        let checks = [
            Check { name: "swap", found: Found::Notice("on".into()) },
            Check { name: "ports", found: wrong("something listens on 6443", "Stop it") },
        ];
        let progress = Progress::new(Output::Json);
        let error = judge(&checks, &[], progress).unwrap_err().to_string();
        assert!(error.contains("ports: something listens on 6443. Stop it"), "{error}");
        for ignored in ["ports", "all"] {
            judge(&checks, &[ignored.to_owned()], progress).unwrap();
        }
    }

    #[test]
    fn ranges_with_the_machines_address_are_refused() {
        let config = keelson_daemon::config::load(None).unwrap();
        let at = |address: &str| {
            [machine::Address { interface: "eth0".into(), address: address.parse().unwrap() }]
        };
        assert!(matches!(ranges(&config, &at("192.0.2.1")), Found::Good(_)));
        let Found::Wrong { what, mend } = ranges(&config, &at("10.244.3.4")) else { panic!("accepted") };
        assert_eq!(what, "network.podCidr 10.244.0.0/16 holds this machine's address 10.244.3.4 (eth0)");
        assert!(mend.contains("--pod-network-cidr"));
        assert!(matches!(ranges(&config, &at("10.100.0.1")), Found::Wrong { .. }));
    }

    #[test]
    fn a_taken_port_is_found() {
        let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(matches!(port_free("x", port), Found::Wrong { .. }));
        drop(taken);
        assert!(matches!(port_free("x", port), Found::Good(_)));
    }
}
