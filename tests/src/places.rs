//! Where a cluster of `make cluster` lives, and the names it takes on the machine.
//!
//! `KEELSON_CLUSTER=<name>` gives it names of its own, so that several live on one machine, each in network and mount
//! namespaces of its own (`tests/lab`); `KEELSON_CLUSTER_DIR` moves its data alone.

use std::path::PathBuf;

/// Folders and names of one cluster: all that must survive lies below `data`, sockets and pids below `run`.
#[derive(Clone, Debug)]
pub struct Places {
    pub data: PathBuf,
    pub run: PathBuf,
    /// The cgroup below which the kubelet makes `kubepods` (`kubelet.cgroupRoot`).
    pub cgroup_root: String,
}

impl Places {
    /// As the environment says.
    pub fn of_environment() -> Places {
        let mut places = Places::named(std::env::var("KEELSON_CLUSTER").ok().filter(|name| !name.is_empty()));
        if let Some(data) = std::env::var_os("KEELSON_CLUSTER_DIR") {
            places.data = data.into();
        }
        places
    }

    fn named(name: Option<String>) -> Places {
        let folder =
            name.as_ref().map_or("keelson-cluster".to_owned(), |name| format!("keelson-cluster-{name}"));
        Places {
            data: PathBuf::from("/var/lib").join(&folder),
            run: PathBuf::from("/run").join(&folder),
            cgroup_root: name.map_or("/".to_owned(), |_| format!("/{folder}")),
        }
    }

    pub fn config(&self) -> PathBuf {
        self.data.join("config.yaml")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data.join("state/admin.conf")
    }

    pub fn log(&self) -> PathBuf {
        self.data.join("logs/keelson.log")
    }

    /// Holds keelson's pid and start time.
    pub fn keelson_pid(&self) -> PathBuf {
        self.run.join("keelson.pid")
    }

    /// Holds the pid and start time of the containerd that was started for the cluster.
    pub fn containerd_pid(&self) -> PathBuf {
        self.run.join("containerd.pid")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_moves_everything() {
        let (plain, named) = (Places::named(None), Places::named(Some("a".into())));
        assert_eq!(plain.config(), PathBuf::from("/var/lib/keelson-cluster/config.yaml"));
        assert_eq!(plain.cgroup_root, "/");
        assert_eq!(named.config(), PathBuf::from("/var/lib/keelson-cluster-a/config.yaml"));
        assert_eq!(named.keelson_pid(), PathBuf::from("/run/keelson-cluster-a/keelson.pid"));
        assert_eq!(named.cgroup_root, "/keelson-cluster-a");
    }
}
