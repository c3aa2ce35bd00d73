//! What the runtime says of one pod, in our own words.
use std::collections::HashMap;

/// Where a container is in its life, as CRI tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunState {
    Created,
    Running,
    Exited,
    Unknown,
}

/// One container known to the runtime, dead or alive. Times are nanoseconds since 1970, 0 for never.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedContainer {
    pub id: String,
    pub name: String,
    pub sandbox_id: String,
    pub restart_count: u32,
    pub state: RunState,
    pub created_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    /// The image as the pod named it.
    pub image: String,
    /// What the runtime resolved it to.
    pub image_ref: String,
    /// Hash of the definition it was made from; empty when the annotation is missing.
    pub hash: String,
    pub log_path: String,
}

/// One sandbox known to the runtime.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedSandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_at: i64,
    pub host_network: bool,
    /// Primary address first; empty for host network.
    pub ips: Vec<String>,
}

/// All the runtime knows of one pod; both lists newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedPod {
    pub sandboxes: Vec<ObservedSandbox>,
    pub containers: Vec<ObservedContainer>,
}

impl ObservedPod {
    /// Brings both lists into the order all readers rely on.
    pub fn sorted(mut self) -> Self {
        self.sandboxes.sort_by_key(|s| (std::cmp::Reverse(s.created_at), std::cmp::Reverse(s.attempt)));
        self.containers
            .sort_by_key(|c| (std::cmp::Reverse(c.created_at), std::cmp::Reverse(c.restart_count)));
        self
    }

    /// The newest container of that name.
    pub fn latest(&self, name: &str) -> Option<&ObservedContainer> {
        self.containers.iter().find(|c| c.name == name)
    }

    pub fn running(&self) -> impl Iterator<Item = &ObservedContainer> {
        self.containers.iter().filter(|c| c.state == RunState::Running)
    }

    /// No container runs and no sandbox is ready.
    pub fn is_stopped(&self) -> bool {
        self.containers.iter().all(|c| matches!(c.state, RunState::Exited | RunState::Created))
            && self.sandboxes.iter().all(|s| !s.ready)
    }

    /// Addresses of the newest sandbox, while it is ready.
    pub fn ips(&self) -> &[String] {
        self.sandboxes.first().filter(|s| s.ready).map(|s| s.ips.as_slice()).unwrap_or(&[])
    }
}

/// A settled probe result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure,
}

/// What the probes of one container said so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerProbes {
    pub startup: Option<Outcome>,
    pub liveness: Option<Outcome>,
    pub readiness: Option<Outcome>,
}

/// Probe results by container id.
pub type ProbeResults = HashMap<String, ContainerProbes>;
