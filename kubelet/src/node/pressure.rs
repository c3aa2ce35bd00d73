//! Whether the node runs out of memory, disk or process ids: from the kernel's own figures.
use crate::config::EvictionConfig;
use crate::host::mounts::{FsUsage, fs_usage};
use crate::node::info;
use std::path::Path;

/// What was found. `None`: the kernel did not tell, and nothing is claimed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observed {
    pub memory_available: Option<u64>,
    pub disk: Option<FsUsage>,
    pub pids: Option<i64>,
    pub pid_limit: i64,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    pub memory: bool,
    pub disk: bool,
    pub pids: bool,
}

pub fn observe(root: &Path) -> Observed {
    Observed {
        memory_available: info::memory_available().and_then(|bytes| u64::try_from(bytes).ok()),
        disk: fs_usage(root).ok(),
        pids: info::pids_now(),
        pid_limit: info::pid_limit(),
    }
}

pub fn judge(observed: &Observed, limits: &EvictionConfig) -> Pressure {
    let below =
        |available: u64, all: u64, percent: f64| all > 0 && (available as f64) < all as f64 * percent / 100.0;
    Pressure {
        memory: observed.memory_available.is_some_and(|available| available < limits.memory_available),
        disk: observed.disk.is_some_and(|disk| {
            below(disk.available, disk.capacity, limits.disk_available_percent)
                || below(disk.inodes_free, disk.inodes, limits.inodes_free_percent)
        }),
        pids: observed.pids.is_some_and(|used| {
            let left = u64::try_from(observed.pid_limit - used).unwrap_or(0);
            below(left, u64::try_from(observed.pid_limit).unwrap_or(0), limits.pids_available_percent)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_follows_the_figures() {
        let limits = EvictionConfig {
            memory_available: 100,
            disk_available_percent: 10.0,
            inodes_free_percent: 5.0,
            pids_available_percent: 5.0,
        };
        let fine = Observed {
            memory_available: Some(100),
            disk: Some(FsUsage { capacity: 1000, available: 100, inodes: 100, inodes_free: 5 }),
            pids: Some(950),
            pid_limit: 1000,
        };
        assert_eq!(judge(&fine, &limits), Pressure::default());
        let low = Observed { memory_available: Some(99), ..fine };
        assert!(judge(&low, &limits).memory);
        let inodes = FsUsage { inodes_free: 4, ..fine.disk.unwrap() };
        assert!(judge(&Observed { disk: Some(inodes), ..fine }, &limits).disk);
        assert!(judge(&Observed { pids: Some(951), ..fine }, &limits).pids);
        assert_eq!(
            judge(&Observed::default(), &limits),
            Pressure::default(),
            "nothing known, nothing claimed"
        );
        assert!(observe(Path::new("/")).disk.unwrap().capacity > 0);
    }
}
