//! The systemd driver: slices instead of folders. systemd owns the tree, so limits are set through it; the runtime
//! makes each container's scope below the pod's slice itself.
use super::v2::weight;
use super::*;

/// How systemd is spoken to.
pub trait SystemdControl: Send + Sync {
    /// Starts the transient slice and sets its properties (`Name=value`).
    fn start_slice(&self, unit: &str, properties: &[String]) -> Result<(), String>;
    fn stop_slice(&self, unit: &str) -> Result<(), String>;
}

/// systemd through `systemctl`, which every machine with systemd has.
pub struct Systemctl;

fn run(arguments: &[&str]) -> Result<(), String> {
    let output =
        std::process::Command::new("systemctl").args(arguments).output().map_err(|e| e.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

impl SystemdControl for Systemctl {
    fn start_slice(&self, unit: &str, properties: &[String]) -> Result<(), String> {
        run(&["start", unit])?;
        if properties.is_empty() {
            return Ok(());
        }
        let mut arguments = vec!["set-property", "--runtime", unit];
        arguments.extend(properties.iter().map(String::as_str));
        run(&arguments)
    }

    fn stop_slice(&self, unit: &str) -> Result<(), String> {
        run(&["stop", unit])
    }
}

/// Slices below `<root>.slice`.
pub struct Systemd<C> {
    root: String,
    unified: bool,
    mount: PathBuf,
    control: C,
}

impl<C: SystemdControl> Systemd<C> {
    pub fn open(mount: &Path, root: &str, unified: bool, control: C) -> Result<Self, CgroupError> {
        let root = root.trim_matches('/').replace('/', "-");
        Ok(Systemd { root, unified, mount: mount.to_path_buf(), control })
    }

    fn slice(&self, qos: Qos, uid: &str) -> String {
        let class = class_folder(qos).map_or(String::new(), |class| format!("-{class}"));
        // A dash in a slice's name is a level, so the uid's dashes become underscores (as upstream does).
        format!("{}{class}-pod{}.slice", self.root, uid.replace('-', "_"))
    }

    /// Path of a slice in the tree: every dash is a level.
    fn path(&self, slice: &str) -> PathBuf {
        let name = slice.trim_end_matches(".slice");
        let mut path = PathBuf::new();
        for (index, _) in name.match_indices('-').chain([(name.len(), "")]) {
            path.push(format!("{}.slice", &name[..index]));
        }
        path
    }

    fn folder(&self, controller: &str, slice: &str) -> PathBuf {
        let base = if self.unified { self.mount.clone() } else { self.mount.join(controller) };
        base.join(self.path(slice))
    }

    fn properties(&self, limits: Limits) -> Vec<String> {
        let cpu = |shares: u64| match self.unified {
            true => format!("CPUWeight={}", weight(shares)),
            false => format!("CPUShares={shares}"),
        };
        let memory = if self.unified { "MemoryMax" } else { "MemoryLimit" };
        let mut out = Vec::new();
        out.extend(limits.cpu_shares.map(cpu));
        out.extend(
            limits.cpu_quota.map(|q| format!("CPUQuota={}%", q * 100 / crate::plan::qos::QUOTA_PERIOD)),
        );
        out.extend(limits.memory.map(|bytes| format!("{memory}={bytes}")));
        out.extend(limits.pids.map(|pids| format!("TasksMax={pids}")));
        out
    }

    fn start(&self, slice: &str, limits: Limits) -> Result<(), CgroupError> {
        let failed = |message| CgroupError::Systemd { unit: slice.to_owned(), message };
        self.control.start_slice(slice, &self.properties(limits)).map_err(failed)
    }
}

impl<C: SystemdControl> Cgroups for Systemd<C> {
    fn parent(&self, qos: Qos, uid: &str) -> String {
        self.slice(qos, uid)
    }

    fn ensure_classes(&self, root: Limits) -> Result<(), CgroupError> {
        self.start(&format!("{}.slice", self.root), root)?;
        self.start(&format!("{}-burstable.slice", self.root), Limits::default())?;
        let best_effort = Limits { cpu_shares: Some(2), ..Limits::default() };
        self.start(&format!("{}-besteffort.slice", self.root), best_effort)
    }

    fn set_burstable_shares(&self, milli_cpu: i64) -> Result<(), CgroupError> {
        let limits = Limits { cpu_shares: Some(shares(milli_cpu)), ..Limits::default() };
        self.start(&format!("{}-burstable.slice", self.root), limits)
    }

    fn ensure_pod(&self, qos: Qos, uid: &str, limits: Limits) -> Result<(), CgroupError> {
        self.start(&self.slice(qos, uid), limits)
    }

    fn remove_pod(&self, qos: Qos, uid: &str) -> Result<(), CgroupError> {
        let slice = self.slice(qos, uid);
        if !self.folder("memory", &slice).exists() {
            return Ok(());
        }
        kill_all(&self.folder("memory", &slice));
        self.control
            .stop_slice(&slice)
            .map_err(|message| CgroupError::Systemd { unit: slice.clone(), message })
    }

    fn pods(&self) -> Result<Vec<(Qos, String)>, CgroupError> {
        let mut pods = Vec::new();
        for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            let class = class_folder(qos).map_or(String::new(), |class| format!("-{class}"));
            let parent = format!("{}{class}", self.root);
            let folder = self.folder("memory", &format!("{parent}.slice"));
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let uid = name
                    .to_str()
                    .and_then(|name| name.strip_prefix(&format!("{parent}-pod"))?.strip_suffix(".slice"));
                pods.extend(uid.map(|uid| (qos, uid.replace('_', "-"))));
            }
        }
        Ok(pods)
    }

    fn pod_usage(&self, qos: Qos, uid: &str) -> Usage {
        let slice = self.slice(qos, uid);
        if !self.unified {
            return Usage {
                cpu_nanos: read_number(&self.folder("cpuacct", &slice).join("cpuacct.usage")),
                memory: read_number(&self.folder("memory", &slice).join("memory.usage_in_bytes")),
                ..Usage::default()
            };
        }
        V2::open(&self.mount, &self.root).map_or(Usage::default(), |tree| tree.usage(&self.path(&slice)))
    }

    fn node_usage(&self) -> Usage {
        let root = if self.unified {
            V2::open(&self.mount, "").map(|tree| tree.usage(Path::new("")))
        } else {
            V1::open(&self.mount, "").map(|tree| tree.node_usage())
        };
        root.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<String>>);

    impl SystemdControl for &Recorder {
        fn start_slice(&self, unit: &str, properties: &[String]) -> Result<(), String> {
            self.0.lock().unwrap().push(format!("{unit} {}", properties.join(" ")));
            Ok(())
        }
        fn stop_slice(&self, unit: &str) -> Result<(), String> {
            self.0.lock().unwrap().push(format!("stop {unit}"));
            Ok(())
        }
    }

    #[test]
    fn slices_are_named_and_limited_as_upstream() {
        let fake = tempfile::tempdir().unwrap();
        let recorder = Recorder::default();
        let driver = Systemd::open(fake.path(), "kubepods", true, &recorder).unwrap();
        let limits =
            Limits { cpu_shares: Some(1024), cpu_quota: Some(50_000), memory: Some(4096), pids: None };
        driver.ensure_pod(Qos::Burstable, "a-b", limits).unwrap();
        let slice = "kubepods-burstable-poda_b.slice";
        assert_eq!(driver.parent(Qos::Burstable, "a-b"), slice);
        let folder = fake.path().join("kubepods.slice/kubepods-burstable.slice").join(slice);
        assert_eq!(driver.folder("memory", slice), folder);
        std::fs::create_dir_all(&folder).unwrap();
        assert_eq!(driver.pods().unwrap(), [(Qos::Burstable, "a-b".to_owned())]);
        driver.remove_pod(Qos::Burstable, "a-b").unwrap();
        driver.remove_pod(Qos::Guaranteed, "gone").unwrap();
        assert_eq!(
            *recorder.0.lock().unwrap(),
            [format!("{slice} CPUWeight=39 CPUQuota=50% MemoryMax=4096"), format!("stop {slice}")]
        );
    }
}
