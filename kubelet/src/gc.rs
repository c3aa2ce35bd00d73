//! What is left over: dead containers and sandboxes, folders, logs and cgroups of pods that are gone, logs that grew,
//! images when the disk fills. Decisions are pure functions below; nothing is collected before all pod sources were
//! read, and nothing that a worker still has.
use crate::config::ImageGcConfig;
use crate::cri::api;
use crate::host::mounts::fs_usage;
use crate::kubelet::Shared;
use crate::logs::rotate;
use crate::plan::observed::{ObservedPod, RunState};
use crate::plan::{pod, qos};
use crate::worker::Workers;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const LOGS: Duration = Duration::from_secs(10);
const CONTAINERS: Duration = Duration::from_secs(60);
const IMAGES: Duration = Duration::from_secs(300);
/// A pod's folder this young may belong to a pod whose worker is just starting.
const MIN_AGE: Duration = Duration::from_secs(60);

/// Collects until dropped.
pub struct Collector {
    kubelet: Shared,
    workers: Workers,
    sources_ready: Arc<AtomicBool>,
    /// CPU request that the burstable class was last given.
    burstable: Option<i64>,
    /// When each image was first seen here.
    seen: HashMap<String, Instant>,
}

impl Collector {
    pub fn new(kubelet: Shared, workers: Workers, sources_ready: Arc<AtomicBool>) -> Self {
        Collector { kubelet, workers, sources_ready, burstable: None, seen: HashMap::new() }
    }

    pub async fn run(mut self) {
        let mut logs = tokio::time::interval(LOGS);
        let mut containers = tokio::time::interval(CONTAINERS);
        let mut images = tokio::time::interval(IMAGES);
        for timer in [&mut logs, &mut containers, &mut images] {
            timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                _ = logs.tick() => {
                    self.burstable_shares();
                    self.rotate_logs().await;
                }
                _ = containers.tick() => self.collect().await,
                _ = images.tick() => self.collect_images().await,
            }
        }
    }

    /// The burstable class weighs what its pods request together.
    fn burstable_shares(&mut self) {
        let views = self.workers.views();
        let burstable = views.iter().filter(|v| !v.finished && qos::class(&v.pod) == qos::Qos::Burstable);
        let sum: i64 = burstable.map(|view| qos::pod_resources(&view.pod).cpu_request).sum();
        if self.burstable == Some(sum) {
            return;
        }
        match self.kubelet.cgroups.set_burstable_shares(sum) {
            Ok(()) => self.burstable = Some(sum),
            Err(error) => tracing::debug!(error = %error, "weight of the burstable class was not set"),
        }
    }

    async fn rotate_logs(&self) {
        let config = self.kubelet.config.logs;
        for view in self.workers.views() {
            for container in view.observed.running().filter(|c| !c.log_path.is_empty()) {
                let path = Path::new(&container.log_path);
                if let Err(error) = rotate::rotate(&self.kubelet.cri, &container.id, path, &config).await {
                    tracing::warn!(container = container.id, error = %error, "log was not rotated");
                }
            }
        }
    }

    /// One round over containers, sandboxes, folders, logs and cgroups.
    pub async fn collect(&self) {
        if !self.sources_ready.load(Ordering::Relaxed) {
            return;
        }
        for view in self.workers.views() {
            let dead = superfluous(&view.observed);
            for id in &dead.containers {
                if let Err(error) = self.kubelet.cri.remove_container(id).await {
                    tracing::debug!(container = id, error = %error, "dead container was not removed");
                }
            }
            for id in &dead.sandboxes {
                if let Err(error) = self.kubelet.cri.remove_sandbox(id).await {
                    tracing::debug!(sandbox = id, error = %error, "dead sandbox was not removed");
                }
            }
            if !dead.containers.is_empty() || !dead.sandboxes.is_empty() {
                self.workers.wake(pod::uid(&view.pod));
            }
        }
        self.collect_folders().await;
        self.collect_cgroups();
    }

    /// Pods that the runtime still knows or a worker has.
    async fn living(&self) -> Option<HashSet<String>> {
        let sandboxes = self.kubelet.cri.list_sandboxes(None).await.ok()?;
        let containers = self.kubelet.cri.list_containers(None).await.ok()?;
        let uid = |labels: &HashMap<String, String>| labels.get(crate::cri::POD_UID).cloned();
        let known = sandboxes
            .iter()
            .filter_map(|s| uid(&s.labels))
            .chain(containers.iter().filter_map(|c| uid(&c.labels)));
        let mut living: HashSet<String> = known.collect();
        living.extend(self.workers.views().iter().map(|view| pod::uid(&view.pod).to_owned()));
        Some(living)
    }

    async fn collect_folders(&self) {
        let Some(living) = self.living().await else { return };
        let (volumes, logs) = (self.kubelet.volumes.clone(), self.kubelet.config.pod_logs.clone());
        let work = move || {
            for uid in volumes.pods() {
                if !living.contains(&uid) && is_old(&volumes.pod_folder(&uid)) {
                    match volumes.remove(&uid) {
                        Ok(()) => tracing::info!(uid, "left-over pod folder removed"),
                        Err(error) => {
                            tracing::warn!(uid, error = %error, "left-over pod folder was not removed")
                        }
                    }
                }
            }
            for entry in std::fs::read_dir(&logs).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let uid = name.to_str().and_then(|name| name.rsplit_once('_')).map(|(_, uid)| uid);
                if uid.is_some_and(|uid| !living.contains(uid)) && is_old(&entry.path()) {
                    let _ = std::fs::remove_dir_all(entry.path());
                }
            }
            remove_dangling(Path::new("/var/log/containers"), &logs);
        };
        let _ = tokio::task::spawn_blocking(work).await;
    }

    fn collect_cgroups(&self) {
        for (class, uid) in self.kubelet.cgroups.pods().unwrap_or_default() {
            if !self.workers.contains(&uid)
                && let Err(error) = self.kubelet.cgroups.remove_pod(class, &uid)
            {
                tracing::debug!(uid, error = %error, "left-over cgroup was not removed");
            }
        }
    }

    /// Frees disk when it is too full.
    pub async fn collect_images(&mut self) {
        let Ok(images) = self.kubelet.cri.list_images().await else { return };
        let now = Instant::now();
        for image in &images {
            self.seen.entry(image.id.clone()).or_insert(now);
        }
        self.seen.retain(|id, _| images.iter().any(|image| image.id == *id));
        let config = self.kubelet.config.image_gc;
        let Some((used, capacity)) = self.image_disk().await else { return };
        let Some(mut needed) = bytes_to_free(used, capacity, &config) else { return };
        let Ok(containers) = self.kubelet.cri.list_containers(None).await else { return };
        let in_use: HashSet<String> = containers
            .into_iter()
            .flat_map(|c| [Some(c.image_ref), c.image.map(|i| i.image)])
            .flatten()
            .collect();
        let sandbox_image = self.kubelet.cri.sandbox_image().await;
        let last_used = self.kubelet.images.last_used();
        let order = removable(&images, &in_use, sandbox_image.as_deref(), |image| {
            let seen = self.seen.get(&image.id).copied().unwrap_or(now);
            let used = last_used.get(&image.id).copied().unwrap_or(seen).max(seen);
            (used, now.duration_since(seen) >= config.min_age)
        });
        tracing::info!(used, capacity, needed, candidates = order.len(), "disk is full, collecting images");
        for image in order {
            if needed == 0 {
                break;
            }
            match self.kubelet.cri.remove_image(&image.id).await {
                Ok(()) => {
                    needed = needed.saturating_sub(image.size);
                    self.kubelet.images.forget_image(&image.id);
                    tracing::info!(image = image.id, bytes = image.size, "image removed");
                }
                Err(error) => tracing::warn!(image = image.id, error = %error, "image was not removed"),
            }
        }
        if needed > 0 {
            tracing::warn!(bytes = needed, "not enough images could be removed");
        }
    }

    /// Used and all bytes of the disk that holds images.
    async fn image_disk(&self) -> Option<(u64, u64)> {
        let filesystems = self.kubelet.cri.image_filesystems().await.ok()?;
        let mount = filesystems.into_iter().find_map(|fs| fs.fs_id.map(|id| id.mountpoint))?;
        let usage = fs_usage(Path::new(&mount)).ok()?;
        Some((usage.capacity.saturating_sub(usage.available), usage.capacity))
    }
}

fn is_old(path: &Path) -> bool {
    let age = std::fs::metadata(path).and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
    age.is_some_and(|age| age >= MIN_AGE)
}

/// Removes links into the log folder whose log is gone.
fn remove_dangling(folder: &Path, logs: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let ours = std::fs::read_link(&path).is_ok_and(|target| target.starts_with(logs));
        if ours && !path.exists() {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Containers and sandboxes of a living pod that nobody needs any more.
#[derive(Debug, Default, PartialEq, Eq)]
struct Superfluous {
    containers: Vec<String>,
    sandboxes: Vec<String>,
}

/// Of each container the newest stays, and of the dead before it one (for its end and its log). Of the sandboxes the
/// newest stays, and each that still has a container.
fn superfluous(pod: &ObservedPod) -> Superfluous {
    let mut dead: HashMap<&str, usize> = HashMap::new();
    let mut newest: HashSet<&str> = HashSet::new();
    let mut out = Superfluous::default();
    for container in &pod.containers {
        if newest.insert(&container.name) {
            continue;
        }
        if container.state != RunState::Exited {
            continue;
        }
        let count = dead.entry(&container.name).or_default();
        *count += 1;
        if *count > 1 {
            out.containers.push(container.id.clone());
        }
    }
    for sandbox in pod.sandboxes.iter().skip(1).filter(|s| !s.ready) {
        let used =
            pod.containers.iter().any(|c| c.sandbox_id == sandbox.id && !out.containers.contains(&c.id));
        if !used {
            out.sandboxes.push(sandbox.id.clone());
        }
    }
    out
}

/// How much must go; `None` while the disk is not too full.
fn bytes_to_free(used: u64, capacity: u64, config: &ImageGcConfig) -> Option<u64> {
    let share = |percent: u8| (u128::from(capacity) * u128::from(percent) / 100) as u64;
    (capacity > 0 && used >= share(config.high_percent))
        .then(|| used.saturating_sub(share(config.low_percent)))
}

/// Images that may go, least recently used first. An image without a registry's digest was imported, not pulled: it
/// could not be had again, so it stays. `age` answers when an image was last used and whether it is old
/// enough.
fn removable<'a>(
    images: &'a [api::Image],
    in_use: &HashSet<String>,
    sandbox_image: Option<&str>,
    age: impl Fn(&api::Image) -> (Instant, bool),
) -> Vec<&'a api::Image> {
    let names =
        |image: &'a api::Image| std::iter::once(&image.id).chain(&image.repo_tags).chain(&image.repo_digests);
    let mut found: Vec<(Instant, &api::Image)> = images
        .iter()
        .filter(|image| !image.pinned && !image.repo_digests.is_empty())
        .filter(|image| {
            !names(image).any(|name| in_use.contains(name) || Some(name.as_str()) == sandbox_image)
        })
        .filter_map(|image| {
            let (used, old) = age(image);
            old.then_some((used, image))
        })
        .collect();
    found.sort_by_key(|(used, image)| (*used, image.id.clone()));
    found.into_iter().map(|(_, image)| image).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::observed::{ObservedContainer, ObservedSandbox};

    fn container(id: &str, name: &str, state: RunState, created_at: i64, sandbox: &str) -> ObservedContainer {
        ObservedContainer {
            id: id.into(),
            name: name.into(),
            sandbox_id: sandbox.into(),
            restart_count: 0,
            state,
            created_at,
            started_at: 0,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_ref: String::new(),
            hash: String::new(),
            log_path: String::new(),
        }
    }

    fn sandbox(id: &str, ready: bool, created_at: i64) -> ObservedSandbox {
        ObservedSandbox { id: id.into(), attempt: 0, ready, created_at, host_network: false, ips: vec![] }
    }

    #[test]
    fn the_newest_and_one_dead_container_stay() {
        let pod = ObservedPod {
            containers: vec![
                container("a3", "a", RunState::Running, 4, "s2"),
                container("a2", "a", RunState::Exited, 3, "s2"),
                container("a1", "a", RunState::Exited, 2, "s1"),
                container("b1", "b", RunState::Exited, 1, "s2"),
            ],
            sandboxes: vec![sandbox("s2", true, 3), sandbox("s1", false, 2), sandbox("s0", false, 1)],
        };
        let expected =
            Superfluous { containers: vec!["a1".into()], sandboxes: vec!["s1".into(), "s0".into()] };
        assert_eq!(superfluous(&pod.sorted()), expected);
    }

    #[test]
    fn images_go_by_age_and_what_is_used_or_pinned_stays() {
        let config = ImageGcConfig { high_percent: 85, low_percent: 80, min_age: Duration::ZERO };
        assert_eq!(bytes_to_free(84, 100, &config), None);
        assert_eq!(bytes_to_free(90, 100, &config), Some(10));
        let image = |id: &str, tag: &str, pinned| api::Image {
            id: id.into(),
            repo_tags: vec![tag.into()],
            repo_digests: if id == "imported" { vec![] } else { vec![format!("{tag}@sha256:0")] },
            pinned,
            ..api::Image::default()
        };
        let images = [
            image("new", "new:1", false),
            image("old", "old:1", false),
            image("used", "used:1", false),
            image("pinned", "pinned:1", true),
            image("pause", "pause:1", false),
            image("young", "young:1", false),
            image("imported", "imported:1", false),
        ];
        let start = Instant::now();
        let in_use = HashSet::from(["used:1".to_owned()]);
        let order = removable(&images, &in_use, Some("pause:1"), |image| {
            let age = if image.id == "old" { 0 } else { 10 };
            (start + Duration::from_secs(age), image.id != "young")
        });
        let ids: Vec<&str> = order.iter().map(|i| i.id.as_str()).collect();
        assert_eq!(ids, ["old", "new"]);
    }
}
