//! What the machine itself must be like, before anything is installed and ever after.

use super::{Found, Role, Subject, good, notice, wrong};
use crate::install::containerd::Effective;
use crate::install::{alone, etcd, machine, units};
use keelson_base::cidr::Cidr;
use keelson_daemon::config::{CgroupDriver, Config};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

pub fn root() -> Found {
    match nix::unistd::Uid::effective().is_root() {
        true => good("yes"),
        false => wrong("a node needs root", "Run it with sudo"),
    }
}

pub fn kernel() -> Found {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (5, 10) {
        return wrong(format!("Linux {release} is older than 5.10"), "Install a newer kernel and restart");
    }
    let listed = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let overlay = listed.lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay");
    if !overlay && crate::install::run("modprobe", &["overlay"]).is_err() {
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

pub fn cgroups() -> Found {
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
            "Boot without cgroup_disable, or with cgroup_enable=memory on boards that switch it off",
        ),
    }
}

pub fn time() -> Found {
    const FLOOR: i64 = 1_767_225_600;
    match jiff::Timestamp::now() {
        now if now.as_second() >= FLOOR => good(now.strftime("%Y-%m-%d %H:%M UTC").to_string()),
        now => notice(
            format!("the clock says {now}; certificates are made so that they hold when it is corrected"),
            "`timedatectl set-ntp true` starts a time service",
        ),
    }
}

pub fn disk(subject: &Subject<'_>) -> Vec<Found> {
    vec![space(&subject.config.paths.state), inodes(&subject.config.paths.state)]
}

fn inodes(state: &Path) -> Found {
    const NEEDED: u64 = 10_000;
    match machine::free_files(state) {
        Some(free) if free < NEEDED => wrong(
            format!("only {free} more files can be made on the disk of {}", state.display()),
            format!(
                "`find {} -xdev -printf '%h\\n' | sort | uniq -c | sort -n | tail` shows the fullest folders",
                state.display()
            ),
        ),
        _ => good("room for more files"),
    }
}

fn space(state: &Path) -> Found {
    const NEEDED: u64 = 1 << 30;
    match machine::free_space(state) {
        Some(free) if free < NEEDED => wrong(
            format!("{} MiB are free for {}, 1 GiB is needed", free >> 20, state.display()),
            "Free some (`du -xh / | sort -h | tail` shows the largest folders), or set paths.state to a folder on another disk",
        ),
        Some(free) => good(format!("{} GiB free for {}", free >> 30, state.display())),
        None => {
            wrong(format!("the disk of {} cannot be looked at", state.display()), "Check that it is mounted")
        }
    }
}

pub fn swap() -> Found {
    match machine::swap().as_slice() {
        [] => good("off"),
        some => notice(
            format!("{} is on: pods' memory limits do not bound what is swapped", some.join(", ")),
            "`swapoff -a` turns it off",
        ),
    }
}

pub fn address(subject: &Subject<'_>) -> Vec<Found> {
    let installed = subject.installed().then_some((subject.role, subject.separate()));
    vec![owned(subject.address, installed)]
}

fn owned(address: IpAddr, installed: Option<(Role, bool)>) -> Found {
    if machine::addresses().iter().any(|one| one.address == address) {
        return good(address.to_string());
    }
    if address == alone::ADDRESS && installed.is_none() {
        return good(format!("{address}, which only this machine knows: it has no network"));
    }
    let has: Vec<String> = machine::addresses().iter().map(|one| one.address.to_string()).collect();
    let new = has.first().map_or("IP", String::as_str);
    let mend = match installed {
        None => "Give one of these with --node-ip or --apiserver-advertise-address".to_owned(),
        Some((Role::ControlPlane, separate)) => {
            let mode = if separate { "units" } else { "all-in-one" };
            format!(
                "`keelson init --mode {mode} --apiserver-advertise-address {new}` takes the new one; other machines then join again"
            )
        }
        Some((Role::Worker, _)) => format!(
            "Run the command that `keelson token create --print-join-command` prints on a control plane, with --node-ip {new}"
        ),
    };
    wrong(format!("{address} is no address of this machine (it has {})", has.join(", ")), mend)
}

/// The cluster's ranges must not hold the machine's own addresses.
pub fn ranges(subject: &Subject<'_>) -> Vec<Found> {
    vec![clashes(subject.config, &machine::addresses(), subject.installed())]
}

fn clashes(config: &Config, addresses: &[machine::Address], installed: bool) -> Found {
    let network = &config.network;
    let clash = |range: &Cidr| addresses.iter().find(|one| range.contains(one.address));
    for (key, flag, range) in [
        ("network.podCidr", "--pod-network-cidr", &network.pod_cidr),
        ("network.serviceCidr", "--service-cidr", &network.service_cidr),
    ] {
        if let Some(one) = clash(range) {
            return wrong(
                format!("{key} {range} holds this machine's address {} ({})", one.address, one.interface),
                match installed {
                    false => format!("Choose another range with {flag}"),
                    true => format!(
                        "Pods' packets go astray while it is there. If nothing needs it: `ip address del {} dev {}`",
                        one.address, one.interface
                    ),
                },
            );
        }
    }
    good(format!("pods {}, Services {}", network.pod_cidr, network.service_cidr))
}

/// The ports of what does not run yet, or of what should run and finds somebody else there.
pub fn ports(subject: &Subject<'_>) -> Vec<Found> {
    let config = subject.config;
    let mut ports = vec![("kubelet", config.kubelet.bind.port())];
    if subject.control_plane() {
        ports.push(("API server", config.api_server.bind.port()));
    } else {
        ports.push(("way to the API servers", keelson_proxy::balancer::ADDRESS.port()));
    }
    if subject.config.etcd.as_ref().is_some_and(etcd::is_own) {
        ports.extend(etcd::PORTS);
    }
    if subject.running && !subject.installed() {
        return Vec::new();
    }
    ports.into_iter().map(|(what, port)| port_free(what, port)).collect()
}

fn port_free(what: &str, port: u16) -> Found {
    if !machine::port_taken(IpAddr::from([0, 0, 0, 0]), port) {
        return good(format!("{port} is free for the {what}"));
    }
    match machine::listener(port) {
        Some((_, program)) if ["keelson", "etcd"].contains(&program.as_str()) => {
            good(format!("{port} is the {what}'s"))
        }
        Some((pid, program)) => wrong(
            format!("{program} (process {pid}) listens on {port}, which the {what} needs"),
            format!("`kill {pid}` ends it, or choose another port"),
        ),
        None => wrong(
            format!("something listens on {port}, which the {what} needs"),
            format!("See what it is with `ss -ltnp sport = :{port}` and stop it, or choose another port"),
        ),
    }
}

/// containerd: there, answering CRI, agreeing on cgroups.
pub async fn runtime(config: &Config) -> Vec<Found> {
    let socket = config.kubelet.cri_socket.display().to_string();
    let found = |found| vec![found];
    let installed =
        ["/usr/bin/containerd", "/usr/local/bin/containerd"].iter().any(|at| Path::new(at).exists());
    if !config.kubelet.cri_socket.exists() {
        return found(wrong(
            format!("no container runtime listens at {socket}"),
            match installed {
                true => "Run `systemctl start containerd`; `journalctl -u containerd` says why it stopped",
                false => {
                    "Run `apt-get install containerd` and `systemctl enable --now containerd`, or give --cri-socket"
                }
            },
        ));
    }
    let effective = Effective::read();
    if effective.as_ref().is_ok_and(Effective::cri_disabled) {
        return found(wrong(
            "containerd's CRI plugin is off",
            "Run `sed -i '/^disabled_plugins/d' /etc/containerd/config.toml && systemctl restart containerd`",
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
                format!(
                    "`sed -i 's/cgroupDriver: [^ ,}}]*/cgroupDriver: auto/' $(grep -rl cgroupDriver: {dir}/config.yaml.d) && \
                     systemctl try-restart {} {}` takes over containerd's; pods that are there must be started anew",
                    units::KUBELET,
                    units::ALL_IN_ONE,
                    dir = keelson_base::consts::CONFIG_DIR,
                ),
            ),
        };
        all.push(found);
    }
    all
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
