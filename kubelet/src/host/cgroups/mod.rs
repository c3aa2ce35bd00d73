//! The cgroups above the containers: `kubepods`, one per quality-of-service class, one per pod.
//!
//! Containers' own cgroups are made by the runtime below the pod's ([`Cgroups::parent`] is what it is told). One trait
//! hides cgroup version and driver; reading statistics goes straight to the files.
mod systemd;
mod v1;
mod v2;

pub use systemd::{Systemctl, Systemd, SystemdControl};
pub use v1::V1;
pub use v2::V2;

use crate::plan::qos::{PodResources, Qos, quota, shares};
use std::io;
use std::path::{Path, PathBuf};

/// Who makes cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Cgroupfs,
    Systemd,
}

/// A cgroup file or folder that could not be made, written or removed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("no cgroup hierarchy is mounted below {}", .0.display())]
    NotMounted(PathBuf),
    #[error("controller {0} is not available")]
    NoController(&'static str),
    #[error("systemd was asked for {unit} and said: {message}")]
    Systemd { unit: String, message: String },
}

/// Limits of one cgroup of ours; `None` leaves the kernel's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub cpu_shares: Option<u64>,
    /// Microseconds per 100 ms.
    pub cpu_quota: Option<i64>,
    pub memory: Option<i64>,
    pub pids: Option<i64>,
}

/// What a cgroup uses now. Each value is `None` where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_nanos: Option<u64>,
    pub memory: Option<u64>,
    /// Memory less what the kernel could drop at once (inactive file pages).
    pub working_set: Option<u64>,
    pub rss: Option<u64>,
    pub pids: Option<u64>,
}

/// One way of making cgroups. All calls are idempotent.
pub trait Cgroups: Send + Sync {
    /// What the runtime is told as the parent of a pod's containers.
    fn parent(&self, qos: Qos, uid: &str) -> String;
    /// Makes the root and the class cgroups.
    fn ensure_classes(&self, root: Limits) -> Result<(), CgroupError>;
    /// Sets the CPU weight of the burstable class: the sum of what its pods request.
    fn set_burstable_shares(&self, milli_cpu: i64) -> Result<(), CgroupError>;
    fn ensure_pod(&self, qos: Qos, uid: &str, limits: Limits) -> Result<(), CgroupError>;
    /// Removes a pod's cgroups; one that is not there is fine.
    fn remove_pod(&self, qos: Qos, uid: &str) -> Result<(), CgroupError>;
    /// Pods that have a cgroup, with their class.
    fn pods(&self) -> Result<Vec<(Qos, String)>, CgroupError>;
    /// What a pod uses, its containers included.
    fn pod_usage(&self, qos: Qos, uid: &str) -> Usage;
    /// What the whole machine uses.
    fn node_usage(&self) -> Usage;
}

/// Limits of a pod's cgroup.
pub fn pod_limits(qos: Qos, resources: &PodResources, pids: Option<i64>) -> Limits {
    let best_effort = qos == Qos::BestEffort;
    Limits {
        cpu_shares: Some(if best_effort { 2 } else { shares(resources.cpu_request) }),
        cpu_quota: resources.cpu_limit.filter(|_| !best_effort).map(quota),
        memory: resources.memory_limit.filter(|_| !best_effort),
        pids,
    }
}

/// Opens the hierarchy below `mount` (usually /sys/fs/cgroup): version found there, driver as configured.
pub fn open(mount: &Path, root: &str, driver: Driver) -> Result<Box<dyn Cgroups>, CgroupError> {
    let unified = mount.join("cgroup.controllers").exists();
    match (unified, driver) {
        (false, Driver::Cgroupfs) => Ok(Box::new(V1::open(mount, root)?)),
        (true, Driver::Cgroupfs) => Ok(Box::new(V2::open(mount, root)?)),
        (unified, Driver::Systemd) => Ok(Box::new(Systemd::open(mount, root, unified, Systemctl)?)),
    }
}

pub(crate) fn class_folder(qos: Qos) -> Option<&'static str> {
    match qos {
        Qos::Guaranteed => None,
        Qos::Burstable => Some("burstable"),
        Qos::BestEffort => Some("besteffort"),
    }
}

/// Path of a pod below the root cgroup, cgroupfs naming.
pub(crate) fn pod_path(root: &str, qos: Qos, uid: &str) -> PathBuf {
    let mut path = PathBuf::from(root);
    path.extend(class_folder(qos));
    path.push(format!("pod{uid}"));
    path
}

pub(crate) fn mkdir(path: &Path) -> Result<(), CgroupError> {
    std::fs::create_dir_all(path).map_err(|source| CgroupError::Io {
        what: "make cgroup",
        path: path.to_path_buf(),
        source,
    })
}

pub(crate) fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    std::fs::write(path, value).map_err(|source| CgroupError::Io {
        what: "write",
        path: path.to_path_buf(),
        source,
    })
}

/// Writes only what differs: a write to a cgroup file takes locks in the kernel.
pub(crate) fn write_if_changed(path: &Path, value: &str) -> Result<(), CgroupError> {
    if std::fs::read_to_string(path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    write(path, value)
}

/// Removes a cgroup folder and those below it. Cgroup folders hold files that cannot be deleted, only rmdir works.
pub(crate) fn remove_tree(path: &Path) -> Result<(), CgroupError> {
    let failed = |source| CgroupError::Io { what: "remove cgroup", path: path.to_path_buf(), source };
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Ends every process in a cgroup and below it: nothing of a removed pod may live on.
pub(crate) fn kill_all(path: &Path) {
    let Ok(entries) = std::fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            kill_all(&entry.path());
        }
    }
    let pids = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    for pid in pids.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 1) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

pub(crate) fn read_number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A value of a `key value` file such as memory.stat.
pub(crate) fn read_key(path: &Path, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.split_once(' ').filter(|(k, _)| *k == key)?.1.trim().parse().ok())
}

pub(crate) fn list_pods(base: &Path) -> Vec<(Qos, String)> {
    let mut pods = Vec::new();
    for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
        let folder = class_folder(qos).map_or(base.to_path_buf(), |class| base.join(class));
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if let Some(uid) = name.to_str().and_then(|name| name.strip_prefix("pod")) {
                pods.push((qos, uid.to_owned()));
            }
        }
    }
    pods
}
