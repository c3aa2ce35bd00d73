//! cgroup v2 with the cgroupfs driver: one tree, controllers handed down level by level.
use super::*;

/// The unified tree.
pub struct V2 {
    mount: PathBuf,
    root: String,
}

const WANTED: &[&str] = &["cpu", "memory", "pids", "cpuset", "io"];

/// cpu.weight for cpu.shares, as runc converts them (OCI runtime specification).
pub(crate) fn weight(shares: u64) -> u64 {
    if shares == 0 { 0 } else { 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142 }
}

impl V2 {
    pub fn open(mount: &Path, root: &str) -> Result<Self, CgroupError> {
        let available = std::fs::read_to_string(mount.join("cgroup.controllers"))
            .map_err(|_| CgroupError::NotMounted(mount.to_path_buf()))?;
        for needed in ["cpu", "memory"] {
            if !available.split_whitespace().any(|name| name == needed) {
                return Err(CgroupError::NoController(needed));
            }
        }
        Ok(V2 { mount: mount.to_path_buf(), root: root.trim_matches('/').to_owned() })
    }

    pub(crate) fn folder(&self, path: &Path) -> PathBuf {
        self.mount.join(path)
    }

    /// Makes the folder; each level above it hands its controllers down first.
    fn ensure(&self, path: &Path) -> Result<(), CgroupError> {
        let mut current = self.mount.clone();
        for part in path.components() {
            let available = std::fs::read_to_string(current.join("cgroup.controllers")).unwrap_or_default();
            let enabled = std::fs::read_to_string(current.join("cgroup.subtree_control")).unwrap_or_default();
            let missing: Vec<String> = WANTED
                .iter()
                .filter(|name| available.split_whitespace().any(|c| c == **name))
                .filter(|name| !enabled.split_whitespace().any(|c| c == **name))
                .map(|name| format!("+{name}"))
                .collect();
            if !missing.is_empty() {
                write(&current.join("cgroup.subtree_control"), &missing.join(" "))?;
            }
            current.push(part);
            mkdir(&current)?;
        }
        Ok(())
    }

    pub(crate) fn apply(&self, path: &Path, limits: Limits) -> Result<(), CgroupError> {
        let folder = self.folder(path);
        let values = [
            ("cpu.weight", limits.cpu_shares.map(|v| weight(v).to_string())),
            ("cpu.max", limits.cpu_quota.map(|v| format!("{v} {}", crate::plan::qos::QUOTA_PERIOD))),
            ("memory.max", limits.memory.map(|v| v.to_string())),
            ("pids.max", limits.pids.map(|v| v.to_string())),
        ];
        for (file, value) in values {
            if let Some(value) = value {
                write_if_changed(&folder.join(file), &value)?;
            }
        }
        Ok(())
    }

    pub(crate) fn usage(&self, path: &Path) -> Usage {
        let folder = self.folder(path);
        let memory = read_number(&folder.join("memory.current"));
        let inactive = read_key(&folder.join("memory.stat"), "inactive_file");
        Usage {
            cpu_nanos: read_key(&folder.join("cpu.stat"), "usage_usec").map(|usec| usec * 1000),
            memory,
            working_set: memory.zip(inactive).map(|(used, inactive)| used.saturating_sub(inactive)),
            rss: read_key(&folder.join("memory.stat"), "anon"),
            pids: read_number(&folder.join("pids.current")),
        }
    }
}

impl Cgroups for V2 {
    fn parent(&self, qos: Qos, uid: &str) -> String {
        format!("/{}", pod_path(&self.root, qos, uid).display())
    }

    fn ensure_classes(&self, root: Limits) -> Result<(), CgroupError> {
        let base = PathBuf::from(&self.root);
        for class in ["burstable", "besteffort"] {
            self.ensure(&base.join(class))?;
        }
        self.apply(&base, root)?;
        self.apply(&base.join("besteffort"), Limits { cpu_shares: Some(2), ..Limits::default() })
    }

    fn set_burstable_shares(&self, milli_cpu: i64) -> Result<(), CgroupError> {
        let limits = Limits { cpu_shares: Some(shares(milli_cpu)), ..Limits::default() };
        self.apply(&PathBuf::from(&self.root).join("burstable"), limits)
    }

    fn ensure_pod(&self, qos: Qos, uid: &str, limits: Limits) -> Result<(), CgroupError> {
        let path = pod_path(&self.root, qos, uid);
        self.ensure(&path)?;
        self.apply(&path, limits)
    }

    fn remove_pod(&self, qos: Qos, uid: &str) -> Result<(), CgroupError> {
        let folder = self.folder(&pod_path(&self.root, qos, uid));
        if !folder.exists() {
            return Ok(());
        }
        if write(&folder.join("cgroup.kill"), "1").is_err() {
            kill_all(&folder);
        }
        remove_tree(&folder)
    }

    fn pods(&self) -> Result<Vec<(Qos, String)>, CgroupError> {
        Ok(list_pods(&self.folder(Path::new(&self.root))))
    }

    fn pod_usage(&self, qos: Qos, uid: &str) -> Usage {
        self.usage(&pod_path(&self.root, qos, uid))
    }

    fn node_usage(&self) -> Usage {
        self.usage(Path::new(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_handed_down_and_limits_written() {
        let fake = tempfile::tempdir().unwrap();
        std::fs::write(fake.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        let cgroups = V2::open(fake.path(), "kubepods").unwrap();
        cgroups.ensure_classes(Limits { memory: Some(1 << 30), ..Limits::default() }).unwrap();
        let limits =
            Limits { cpu_shares: Some(1024), cpu_quota: Some(20_000), memory: Some(4096), pids: None };
        cgroups.ensure_pod(Qos::Guaranteed, "u1", limits).unwrap();
        let read = |path: &str| std::fs::read_to_string(fake.path().join(path)).unwrap();
        assert_eq!(read("cgroup.subtree_control"), "+cpu +memory +pids +cpuset +io");
        assert_eq!(read("kubepods/memory.max"), (1u64 << 30).to_string());
        assert_eq!(read("kubepods/podu1/cpu.weight"), "39");
        assert_eq!(read("kubepods/podu1/cpu.max"), "20000 100000");
        assert_eq!(read("kubepods/podu1/memory.max"), "4096");
        assert_eq!(read("kubepods/besteffort/cpu.weight"), "1");
        assert_eq!(cgroups.pods().unwrap(), [(Qos::Guaranteed, "u1".to_owned())]);
        std::fs::write(fake.path().join("kubepods/podu1/memory.current"), "100\n").unwrap();
        std::fs::write(fake.path().join("kubepods/podu1/memory.stat"), "anon 50\ninactive_file 30\n")
            .unwrap();
        std::fs::write(fake.path().join("kubepods/podu1/cpu.stat"), "usage_usec 7\n").unwrap();
        let usage = cgroups.pod_usage(Qos::Guaranteed, "u1");
        assert_eq!((usage.memory, usage.working_set, usage.cpu_nanos), (Some(100), Some(70), Some(7000)));
        assert!(matches!(V2::open(Path::new("/nonexistent"), "x"), Err(CgroupError::NotMounted(_))));
    }

    #[test]
    fn shares_become_weights() {
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
    }
}
