//! Bringing a pod up: cgroup, volumes, sandbox, images, containers. What can run at the same time does.
use super::Want;
use super::actor::Worker;
use crate::cri::{CriError, api};
use crate::events::Severity;
use crate::hooks;
use crate::host::cgroups::pod_limits;
use crate::host::config::{self, ContainerInput};
use crate::host::env::{self, Refs};
use crate::host::volumes::{MountError, VolumePaths};
use crate::images::ImageState;
use crate::plan::observed::{ObservedContainer, RunState};
use crate::plan::pod::{self, Kind};
use crate::plan::status::Waiting;
use crate::plan::{Plan, SandboxAction, Start, fields, qos};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const SOON: Duration = Duration::from_millis(500);

/// A container that was not started: what its status shows.
struct NotStarted {
    waiting: Waiting,
    retry: Duration,
}

fn not_started(reason: &str, message: impl Into<String>, retry: Duration) -> NotStarted {
    NotStarted { waiting: Waiting { reason: reason.to_owned(), message: message.into() }, retry }
}

impl Worker {
    /// Carries a plan out; answers when to look again.
    pub(super) async fn apply(&mut self, mut plan: Plan, want: &watch::Receiver<Want>) -> Duration {
        let resync = self.kubelet.config.resync.mul_f64(1.0 + rand::random::<f64>() / 2.0);
        if !plan.kill.is_empty()
            && let Err(error) = self.carry_out_kills(&mut plan).await
        {
            tracing::warn!(pod = pod::name(&self.pod), error = %error, "container was not stopped, trying again");
            return SOON;
        }
        let starting = plan.start.iter().any(|start| start.wait.is_none());
        if starting || matches!(plan.sandbox, SandboxAction::Create { .. }) {
            let uid = pod::uid(&self.pod);
            let class = qos::class(&self.pod);
            let limits = pod_limits(class, &qos::pod_resources(&self.pod), None);
            if let Err(error) = self.kubelet.cgroups.ensure_pod(class, uid, limits) {
                let message = format!("error ensuring the pod's cgroup: {error}");
                self.kubelet.events.pod(&self.pod, Severity::Warning, "FailedCreatePodContainer", message);
                return self.after_failure();
            }
        }
        if matches!(plan.sandbox, SandboxAction::Create { .. }) {
            // Held until the first containers run: the runtime is slower the more it is asked at the same time.
            self.permit = self.kubelet.starts.clone().acquire_owned().await.ok();
        }
        let wait = self.bring_up(&plan, want, resync).await;
        self.permit = None;
        wait
    }

    async fn bring_up(&mut self, plan: &Plan, want: &watch::Receiver<Want>, resync: Duration) -> Duration {
        let Some((sandbox, volumes)) = self.sandbox_and_volumes(plan).await else {
            return self.after_failure();
        };
        self.failures = 0;
        let mut wait = resync;
        for start in &plan.start {
            if want.has_changed().unwrap_or(true) && self.ends(want) {
                return Duration::ZERO;
            }
            let left = self.start_one(start, &sandbox, &volumes).await;
            wait = wait.min(left.unwrap_or(resync));
        }
        wait
    }

    /// Stops what is to be replaced; what was stopped just now waits its back-off like any other.
    async fn carry_out_kills(&mut self, plan: &mut Plan) -> Result<(), CriError> {
        for kill in &plan.kill {
            self.kill(kill).await?;
        }
        self.observe().await?;
        let now = self.kubelet.now_nanos();
        for start in &mut plan.start {
            let Some(container) = pod::container(&self.pod, start.container) else { continue };
            let ended = self.observed.latest(&start.name).filter(|c| c.state == RunState::Exited);
            let key = crate::plan::backoff_key(&self.pod, &container);
            start.wait = ended.and_then(|c| self.backoff.remaining(&key, c.finished_at, now));
        }
        Ok(())
    }

    fn ends(&self, want: &watch::Receiver<Want>) -> bool {
        match &*want.borrow() {
            Want::Gone => true,
            Want::Run { pod, .. } => pod::is_deleted(pod),
        }
    }

    fn after_failure(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        SOON.saturating_mul(1 << self.failures.min(6)).min(Duration::from_secs(30))
    }

    /// Makes what is missing of sandbox and volumes, side by side.
    async fn sandbox_and_volumes(&mut self, plan: &Plan) -> Option<(String, VolumePaths)> {
        let attempt = match &plan.sandbox {
            SandboxAction::Keep { id } => {
                let id = id.clone();
                let volumes = self.mount(!self.mounted).await;
                return Some((id, self.mounted_or_event(volumes)?));
            }
            SandboxAction::Create { attempt } => *attempt,
            SandboxAction::Stop => return None,
        };
        if !self.observed.sandboxes.is_empty() {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.kubelet.events.pod(&self.pod, Severity::Normal, "SandboxChanged", message);
            if let Err(error) = self.clear_old().await {
                tracing::warn!(pod = pod::name(&self.pod), error = %error, "old sandbox was not stopped");
                return None;
            }
        }
        let first: Vec<Container> =
            plan.start.iter().filter_map(|s| pod::container(&self.pod, s.container)).collect();
        let (sandbox, volumes, ()) =
            tokio::join!(self.make_sandbox(attempt), self.mount(true), self.prefetch(&first));
        let sandbox = match sandbox {
            Ok(sandbox) => sandbox,
            Err(message) => {
                let message = format!("Failed to create pod sandbox: {message}");
                tracing::warn!(pod = pod::name(&self.pod), message, "sandbox was not made");
                self.kubelet.events.pod(&self.pod, Severity::Warning, "FailedCreatePodSandBox", message);
                return None;
            }
        };
        self.observed.sandboxes.insert(0, sandbox.clone());
        Some((sandbox.id, self.mounted_or_event(volumes)?))
    }

    fn mounted_or_event(&mut self, result: Result<VolumePaths, MountError>) -> Option<VolumePaths> {
        match result {
            Ok(paths) => {
                self.mounted = true;
                Some(paths)
            }
            Err(error) => {
                self.kubelet.events.pod(&self.pod, Severity::Warning, "FailedMount", error.to_string());
                tracing::debug!(pod = pod::name(&self.pod), error = %error, "volumes are not there yet");
                None
            }
        }
    }

    async fn mount(&self, fresh: bool) -> Result<VolumePaths, MountError> {
        if !self.mounted && !pod::is_static(&self.pod) {
            self.kubelet.objects.refer(&self.pod, &self.wake);
        }
        let ips = self.observed.ips().to_vec();
        let facts = self.kubelet.facts(&ips, &[]);
        self.kubelet.volumes.mount(&self.pod, &facts, fresh).await
    }

    /// Looks for the images (and starts pulls) while the sandbox is made; what is found is asked for again below.
    async fn prefetch(&self, containers: &[Container]) {
        for container in containers {
            if crate::images::policy(container) == "IfNotPresent" {
                let image = container.image.as_deref().unwrap_or("");
                if matches!(self.kubelet.cri.image_status(image).await, Ok(None)) {
                    self.kubelet.images.ensure(&self.pod, container, &self.wake).await;
                }
            }
        }
    }

    /// Stops what is left of earlier sandboxes.
    async fn clear_old(&mut self) -> Result<(), CriError> {
        let running: Vec<String> = self.observed.running().map(|c| c.id.clone()).collect();
        for id in running {
            self.kubelet.cri.stop_container(&id, Duration::from_secs(2)).await?;
        }
        for sandbox in &self.observed.sandboxes {
            self.kubelet.cri.stop_sandbox(&sandbox.id).await?;
        }
        self.observe().await?;
        Ok(())
    }

    async fn make_sandbox(&self, attempt: u32) -> Result<crate::plan::observed::ObservedSandbox, String> {
        let uid = pod::uid(&self.pod);
        let parent = self.kubelet.cgroups.parent(qos::class(&self.pod), uid);
        let config = config::sandbox(&self.pod, attempt, &parent, &self.kubelet.node)
            .map_err(|error| error.to_string())?;
        std::fs::create_dir_all(&config.log_directory).map_err(|error| error.to_string())?;
        let id = self.kubelet.cri.run_sandbox(config, "").await.map_err(|error| error.runtime_message())?;
        let status = self.kubelet.cri.sandbox_status(&id).await.map_err(|error| error.runtime_message())?;
        status.ok_or_else(|| format!("sandbox {id} went away"))
    }

    /// Starts one container if it may start now; answers when to look again.
    async fn start_one(&mut self, start: &Start, sandbox: &str, volumes: &VolumePaths) -> Option<Duration> {
        let container = pod::container(&self.pod, start.container)?;
        if let Some(left) = start.wait {
            let delay = humantime(self.backoff.delay(&crate::plan::backoff_key(&self.pod, &container)));
            let message = format!(
                "back-off {delay} restarting failed container={} pod={}",
                start.name,
                self.pod_label()
            );
            self.kubelet.events.container(
                &self.pod,
                &start.name,
                Severity::Warning,
                "BackOff",
                format!("Back-off restarting failed container {} in pod {}", start.name, self.pod_label()),
            );
            let waiting = Waiting { reason: "CrashLoopBackOff".into(), message };
            self.waiting.insert(start.name.clone(), waiting);
            return Some(left + Duration::from_millis(10));
        }
        match self.run_container(start, &container, sandbox, volumes).await {
            Ok(()) => {
                self.waiting.remove(&start.name);
                // What follows a started sidecar, or one that has ended already, is planned at once: no news may come.
                let running = self.observed.latest(&start.name).is_some_and(|c| c.state == RunState::Running);
                (!running || start.container.kind == Kind::Init).then_some(Duration::ZERO)
            }
            Err(failure) => {
                if failure.waiting.reason.is_empty() {
                    self.waiting.remove(&start.name);
                } else {
                    self.waiting.insert(start.name.clone(), failure.waiting);
                }
                Some(failure.retry)
            }
        }
    }

    fn pod_label(&self) -> String {
        format!("{}_{}({})", pod::name(&self.pod), pod::namespace(&self.pod), pod::uid(&self.pod))
    }

    async fn run_container(
        &mut self,
        start: &Start,
        container: &Container,
        sandbox: &str,
        volumes: &VolumePaths,
    ) -> Result<(), NotStarted> {
        let image = self.image(container).await?;
        let config = self.container_config(start, container, &image, volumes).await.map_err(|message| {
            let text = format!("Error: {message}");
            self.kubelet.events.container(&self.pod, &start.name, Severity::Warning, "Failed", text);
            not_started("CreateContainerConfigError", message, Duration::from_secs(10))
        })?;
        let parent = self.kubelet.cgroups.parent(qos::class(&self.pod), pod::uid(&self.pod));
        let sandbox_config = config::sandbox(&self.pod, 0, &parent, &self.kubelet.node)
            .map_err(|error| not_started("CreateContainerConfigError", error.to_string(), SOON))?;
        let log_path = format!("{}/{}", sandbox_config.log_directory, config.log_path);
        let created = self.kubelet.cri.create_container(sandbox, config, sandbox_config).await;
        let id = created.map_err(|error| {
            let message = error.runtime_message();
            let text = format!("Error: {message}");
            self.kubelet.events.container(&self.pod, &start.name, Severity::Warning, "Failed", text);
            not_started("CreateContainerError", message, Duration::from_secs(5))
        })?;
        self.note_attempt(start, container);
        let created = format!("Created container: {}", start.name);
        self.kubelet.events.container(&self.pod, &start.name, Severity::Normal, "Created", created);
        if let Err(error) = self.kubelet.cri.start_container(&id).await {
            let message = error.runtime_message();
            let text = format!("Error: {message}");
            self.kubelet.events.container(&self.pod, &start.name, Severity::Warning, "Failed", text);
            let _ = self.observe_one(&id, sandbox).await;
            return Err(not_started("RunContainerError", message, SOON));
        }
        let started = format!("Started container {}", start.name);
        self.kubelet.events.container(&self.pod, &start.name, Severity::Normal, "Started", started);
        self.images.remove(&container.name);
        self.kubelet.images.mark_used(&image.id);
        link_log(&self.pod, &start.name, &id, &log_path);
        if let Err(error) = self.observe_one(&id, sandbox).await {
            tracing::debug!(container = id, error = %error, "started container was not observed");
        }
        self.post_start(container, &id).await
    }

    async fn image(&mut self, container: &Container) -> Result<crate::images::ImageInfo, NotStarted> {
        if let Some(image) = self.images.get(&container.name) {
            return Ok(image.clone());
        }
        match self.kubelet.images.ensure(&self.pod, container, &self.wake).await {
            ImageState::Present(info) => {
                self.images.insert(container.name.clone(), info.clone());
                Ok(info)
            }
            // Neither a failure nor a reason: what was shown stays until the pull ends and wakes the pod.
            ImageState::Pulling => Err(match self.waiting.get(&container.name) {
                Some(shown) if shown.reason.contains("Image") => {
                    not_started(&shown.reason, shown.message.clone(), Duration::from_secs(3600))
                }
                _ => not_started("", "", Duration::from_secs(3600)),
            }),
            ImageState::Failed { reason, message, retry } => {
                // The error shows once; what follows is the back-off.
                let first = if reason == "ErrImagePull" { SOON } else { Duration::from_secs(60) };
                Err(not_started(
                    reason,
                    message,
                    retry.map_or(first, |left| left.min(first.max(SOON)).max(SOON)),
                ))
            }
        }
    }

    async fn container_config(
        &self,
        start: &Start,
        container: &Container,
        image: &crate::images::ImageInfo,
        volumes: &VolumePaths,
    ) -> Result<api::ContainerConfig, String> {
        let kubelet = &self.kubelet;
        if start.container.kind == Kind::Ephemeral {
            fields::check_container(container).map_err(|refused| refused.message)?;
        }
        let services = kubelet
            .services_for(&self.pod)
            .ok_or("services have not yet been read at least once, cannot construct envvars")?;
        let refs = self.refs(container).await?;
        let own: Vec<String> = self.observed.ips().to_vec();
        let ips = if pod::host_network(&self.pod) { kubelet.host_ips.clone() } else { own };
        let folder = kubelet.volumes.pod_folder(pod::uid(&self.pod));
        config::write_hosts(&self.pod, &ips, &folder, &kubelet.node).map_err(|e| e.to_string())?;
        let target = self.target_id(start);
        config::container(&ContainerInput {
            pod: &self.pod,
            container,
            reference: start.container,
            attempt: start.attempt,
            image_ref: &image.id,
            user: &image.user,
            refs: &refs,
            facts: &kubelet.facts(&ips, &services),
            volumes,
            node: &kubelet.node,
            pod_folder: &folder,
            target: target.as_deref(),
        })
        .map_err(|error| error.to_string())
    }

    /// The container whose processes an ephemeral container sees.
    fn target_id(&self, start: &Start) -> Option<String> {
        if start.container.kind != Kind::Ephemeral {
            return None;
        }
        let name = pod::ephemeral_containers(&self.pod)
            .get(start.container.index)?
            .target_container_name
            .as_deref()?;
        Some(self.observed.latest(name)?.id.clone())
    }

    async fn refs(&self, container: &Container) -> Result<Refs, String> {
        let (config_maps, secrets) = env::references(container);
        let namespace = pod::namespace(&self.pod);
        let objects = &self.kubelet.objects;
        let mut refs = Refs::default();
        for name in config_maps {
            if let Entry::Vacant(entry) = refs.config_maps.entry(name) {
                let found =
                    objects.config_map(namespace, entry.key(), true).await.map_err(|e| e.to_string())?;
                entry.insert(found.map(|map| (*map).clone()));
            }
        }
        for name in secrets {
            if let Entry::Vacant(entry) = refs.secrets.entry(name) {
                let found = objects.secret(namespace, entry.key(), true).await.map_err(|e| e.to_string())?;
                entry.insert(found.map(|secret| (*secret).clone()));
            }
        }
        Ok(refs)
    }

    /// A restart makes the next one wait longer.
    fn note_attempt(&mut self, start: &Start, container: &Container) {
        let ended = self.observed.latest(&start.name).filter(|c| c.state == RunState::Exited);
        if let Some(ended) = ended {
            let at = ended.finished_at;
            let key = crate::plan::backoff_key(&self.pod, container);
            let now = self.kubelet.now_nanos();
            self.backoff.next(&key, at, now);
        }
    }

    async fn observe_one(&mut self, id: &str, sandbox: &str) -> Result<(), CriError> {
        if let Some(found) = self.kubelet.cri.observe_container(id, sandbox).await? {
            self.observed.containers.retain(|c: &ObservedContainer| c.id != id);
            self.observed.containers.insert(0, found);
        }
        Ok(())
    }

    async fn post_start(&mut self, container: &Container, id: &str) -> Result<(), NotStarted> {
        let hook = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
        let Some(hook) = hook else { return Ok(()) };
        // A hook may take its time; others need not wait for it.
        self.permit = None;
        let own = self.observed.ips().first().cloned();
        let host = self.kubelet.host_ips.first().cloned();
        let ip = if pod::host_network(&self.pod) { host } else { own }.unwrap_or_default();
        let Err(error) = hooks::run(&self.kubelet.cri, hook, container, id, &ip).await else { return Ok(()) };
        let message = format!("PostStartHook failed: {error}");
        let name = &container.name;
        self.kubelet.events.container(&self.pod, name, Severity::Warning, "FailedPostStartHook", &*message);
        let killing = "FailedPostStartHook".to_owned();
        self.kubelet.events.container(&self.pod, name, Severity::Normal, "Killing", killing);
        let grace = Duration::from_secs(u64::try_from(pod::grace_seconds(&self.pod)).unwrap_or(0).max(1));
        if let Err(error) = self.kubelet.cri.stop_container(id, grace).await {
            tracing::warn!(container = id, error = %error, "container was not stopped after its hook failed");
        }
        Err(not_started("PostStartHookError", message, SOON))
    }
}

/// Log collectors look for `/var/log/containers/<pod>_<namespace>_<container>-<id>.log`; only where that folder is.
fn link_log(pod: &Arc<Pod>, container: &str, id: &str, log: &str) {
    let folder = std::path::Path::new("/var/log/containers");
    if !log.starts_with("/var/log/pods/") || !folder.is_dir() {
        return;
    }
    let name = format!("{}_{}_{container}-{id}.log", pod::name(pod), pod::namespace(pod));
    let _ = std::os::unix::fs::symlink(log, folder.join(name));
}

/// A duration as Go prints whole seconds: `10s`, `1m20s`, `5m0s`.
fn humantime(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_in_go() {
        let text = |s| humantime(Duration::from_secs(s));
        assert_eq!((text(10), text(80), text(300)), ("10s".into(), "1m20s".into(), "5m0s".into()));
    }
}
