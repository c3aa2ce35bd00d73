//! cgroup v1 with the cgroupfs driver: the same path in every mounted hierarchy.
use super::*;
use std::collections::BTreeMap;

/// The mounted v1 hierarchies by controller name.
pub struct V1 {
    root: String,
    hierarchies: BTreeMap<String, PathBuf>,
}

const CREATED: &[&str] = &["cpu", "memory", "pids", "cpuset"];

impl V1 {
    pub fn open(mount: &Path, root: &str) -> Result<Self, CgroupError> {
        let mut hierarchies = BTreeMap::new();
        for entry in std::fs::read_dir(mount).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name != "unified" && entry.path().join("cgroup.procs").exists() {
                hierarchies.insert(name, entry.path());
            }
        }
        if hierarchies.is_empty() {
            return Err(CgroupError::NotMounted(mount.to_path_buf()));
        }
        for needed in ["cpu", "memory"] {
            if !hierarchies.contains_key(needed) {
                return Err(CgroupError::NoController(needed));
            }
        }
        Ok(V1 { root: root.trim_matches('/').to_owned(), hierarchies })
    }

    fn file(&self, controller: &str, path: &Path, file: &str) -> Option<PathBuf> {
        Some(self.hierarchies.get(controller)?.join(path).join(file))
    }

    fn ensure(&self, path: &Path) -> Result<(), CgroupError> {
        for controller in CREATED {
            let Some(base) = self.hierarchies.get(*controller) else { continue };
            mkdir(&base.join(path))?;
            if *controller == "cpuset" {
                self.inherit_cpuset(base, path)?;
            }
        }
        Ok(())
    }

    /// A new cpuset cgroup is empty, and nothing can run in it until it is given CPUs and memory nodes.
    fn inherit_cpuset(&self, base: &Path, path: &Path) -> Result<(), CgroupError> {
        let mut current = base.to_path_buf();
        for part in path.components() {
            let parent = current.clone();
            current.push(part);
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let own = std::fs::read_to_string(current.join(file)).unwrap_or_default();
                if own.trim().is_empty() {
                    let inherited = std::fs::read_to_string(parent.join(file)).unwrap_or_default();
                    write(&current.join(file), inherited.trim())?;
                }
            }
        }
        Ok(())
    }

    fn apply(&self, path: &Path, limits: Limits) -> Result<(), CgroupError> {
        let values = [
            ("cpu", "cpu.shares", limits.cpu_shares.map(|v| v.to_string())),
            ("cpu", "cpu.cfs_quota_us", limits.cpu_quota.map(|v| v.to_string())),
            ("memory", "memory.limit_in_bytes", limits.memory.map(|v| v.to_string())),
            ("pids", "pids.max", limits.pids.map(|v| v.to_string())),
        ];
        for (controller, file, value) in values {
            if let (Some(value), Some(file)) = (value, self.file(controller, path, file)) {
                write_if_changed(&file, &value)?;
            }
        }
        Ok(())
    }

    fn usage(&self, path: &Path) -> Usage {
        let number = |controller: &str, file: &str| read_number(&self.file(controller, path, file)?);
        let stat = |key: &str| read_key(&self.file("memory", path, "memory.stat")?, key);
        let memory = number("memory", "memory.usage_in_bytes");
        let inactive = stat("total_inactive_file");
        Usage {
            cpu_nanos: number("cpuacct", "cpuacct.usage"),
            memory,
            working_set: memory.zip(inactive).map(|(used, inactive)| used.saturating_sub(inactive)),
            rss: stat("total_rss"),
            pids: number("pids", "pids.current"),
        }
    }
}

impl Cgroups for V1 {
    fn parent(&self, qos: Qos, uid: &str) -> String {
        format!("/{}", pod_path(&self.root, qos, uid).display())
    }

    fn ensure_classes(&self, root: Limits) -> Result<(), CgroupError> {
        let base = PathBuf::from(&self.root);
        self.ensure(&base)?;
        self.apply(&base, root)?;
        for class in ["burstable", "besteffort"] {
            self.ensure(&base.join(class))?;
        }
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
        let path = pod_path(&self.root, qos, uid);
        let mut first = None;
        for base in self.hierarchies.values() {
            let folder = base.join(&path);
            if !folder.exists() {
                continue;
            }
            kill_all(&folder);
            if let Err(error) = remove_tree(&folder) {
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(()), Err)
    }

    fn pods(&self) -> Result<Vec<(Qos, String)>, CgroupError> {
        let memory = self.hierarchies.get("memory").ok_or(CgroupError::NoController("memory"))?;
        Ok(list_pods(&memory.join(&self.root)))
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

    /// On the kernel's own hierarchies, where this machine has them.
    #[test]
    fn a_pod_cgroup_is_made_limited_and_removed() {
        let mount = Path::new("/sys/fs/cgroup");
        let root = format!("keelson-unit-{}", std::process::id());
        let Ok(cgroups) = V1::open(mount, &root) else {
            println!("SKIPPED: no cgroup v1 hierarchy with cpu and memory is mounted");
            return;
        };
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED: not root");
            return;
        }
        cgroups.ensure_classes(Limits::default()).unwrap();
        let limits =
            Limits { cpu_shares: Some(512), cpu_quota: Some(50_000), memory: Some(64 << 20), pids: Some(99) };
        cgroups.ensure_pod(Qos::Burstable, "abc", limits).unwrap();
        cgroups.ensure_pod(Qos::Burstable, "abc", limits).unwrap();
        assert_eq!(cgroups.parent(Qos::Burstable, "abc"), format!("/{root}/burstable/podabc"));
        let read = |controller: &str, file: &str| {
            let path = cgroups.file(controller, &pod_path(&root, Qos::Burstable, "abc"), file).unwrap();
            std::fs::read_to_string(path).unwrap().trim().to_owned()
        };
        assert_eq!(read("cpu", "cpu.shares"), "512");
        assert_eq!(read("cpu", "cpu.cfs_quota_us"), "50000");
        assert_eq!(read("memory", "memory.limit_in_bytes"), (64 << 20).to_string());
        assert_eq!(read("pids", "pids.max"), "99");
        assert!(!read("cpuset", "cpuset.cpus").is_empty());
        assert_eq!(cgroups.pods().unwrap(), [(Qos::Burstable, "abc".to_owned())]);
        assert_eq!(cgroups.pod_usage(Qos::Burstable, "abc").pids, Some(0));
        cgroups.remove_pod(Qos::Burstable, "abc").unwrap();
        cgroups.remove_pod(Qos::Burstable, "abc").unwrap();
        assert_eq!(cgroups.pods().unwrap(), []);
        for base in cgroups.hierarchies.values() {
            remove_tree(&base.join(&root)).unwrap();
        }
    }
}
