//! News from the runtime to the pod workers: its event stream where it has one, and a relist that is quick while
//! nothing else tells, and slow behind a stream. Also finds pods that no source knows (any more) and has them ended.
use crate::cri::events::{self, RuntimeEvent, Source};
use crate::cri::{POD_NAME, POD_NAMESPACE, POD_UID, api};
use crate::kubelet::Shared;
use crate::plan::observed::{ObservedContainer, ObservedPod, ObservedSandbox, RunState};
use crate::worker::Workers;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

const WITH_EVENTS: Duration = Duration::from_secs(20);
const WITHOUT_EVENTS: Duration = Duration::from_secs(1);
const RUNTIME_DOWN: Duration = Duration::from_secs(1);
const STREAM_RETRY: Duration = Duration::from_secs(2);
const QUEUE: usize = 1024;
/// A busy runtime needs some seconds to enter an end that it has told; after this long the relist finds out.
const AGREES: Duration = Duration::from_secs(30);
const AGREES_STEP: Duration = Duration::from_millis(200);

/// Watches the runtime.
pub struct Pleg {
    kubelet: Shared,
    workers: Workers,
    /// All sources have told what they have: what is unknown now is nobody's.
    sources_ready: Arc<AtomicBool>,
    live: AtomicBool,
    /// Look again now.
    pub relist_now: Notify,
}

/// One pod as a relist finds it: enough to see what changed.
#[derive(Default)]
struct Listed {
    sandboxes: Vec<api::PodSandbox>,
    containers: Vec<api::Container>,
}

impl Pleg {
    pub fn new(kubelet: Shared, workers: Workers, sources_ready: Arc<AtomicBool>) -> Self {
        Pleg { kubelet, workers, sources_ready, live: AtomicBool::new(false), relist_now: Notify::new() }
    }

    /// Everything the runtime holds, by pod; what workers start from.
    pub async fn initial(&self) -> Result<HashMap<String, ObservedPod>, crate::cri::CriError> {
        let listed = self.list().await?;
        Ok(listed.into_iter().map(|(uid, pod)| (uid, known(&pod))).collect())
    }

    /// Runs until dropped.
    pub async fn run(self: &Arc<Self>) {
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        let follow = self.follow(sender);
        let relist = async {
            loop {
                let up = match self.relist().await {
                    Ok(()) => true,
                    Err(error) => {
                        tracing::debug!(error = %error, "relist failed");
                        false
                    }
                };
                let was_up = self.kubelet.runtime_up.load(Ordering::Relaxed);
                self.kubelet.set_runtime_up(up);
                if up && !was_up {
                    self.workers.wake_all();
                }
                let wait = match (up, self.live.load(Ordering::Relaxed)) {
                    (false, _) => RUNTIME_DOWN,
                    (true, true) => WITH_EVENTS,
                    (true, false) => WITHOUT_EVENTS,
                };
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.relist_now.notified() => {}
                }
            }
        };
        let dispatch = async {
            while let Some(event) = receiver.recv().await {
                self.dispatch(event);
            }
        };
        tokio::join!(follow, relist, dispatch);
    }

    /// Keeps a stream of events open, CRI's where there is one.
    async fn follow(&self, sender: mpsc::Sender<RuntimeEvent>) {
        let mut sources = vec![Source::Cri, Source::Containerd];
        while let Some(source) = sources.first().copied() {
            let live = || {
                self.live.store(true, Ordering::Relaxed);
                // What happened before the stream stood is found by looking once.
                self.relist_now.notify_one();
            };
            let ended = events::follow(&self.kubelet.cri, source, &sender, live).await;
            self.live.store(false, Ordering::Relaxed);
            self.relist_now.notify_one();
            match ended {
                Err(status) if status.code() == tonic::Code::Unimplemented => {
                    sources.remove(0);
                    continue;
                }
                Err(status) => tracing::debug!(?source, error = status.message(), "event stream broke"),
                Ok(()) => tracing::debug!(?source, "event stream ended"),
            }
            tokio::time::sleep(STREAM_RETRY).await;
        }
        tracing::info!("the runtime has no event stream; it is listed every second instead");
        std::future::pending::<()>().await;
    }

    /// Wakes the worker of the container or sandbox, once the runtime's own books agree with the event: it tells us as
    /// soon as itself, and who looks in between sees a container run that has ended, with no further event to come. That
    /// holds too for a container that its worker does not know yet: one can end before its start has been answered.
    fn dispatch(self: &Arc<Self>, event: RuntimeEvent) {
        let pleg = self.clone();
        tokio::spawn(async move {
            let (mut wait, begun) = (Duration::from_millis(2), tokio::time::Instant::now());
            while event.ended && begun.elapsed() < AGREES && pleg.stands_as_alive(&event.id).await {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(AGREES_STEP);
            }
            let found = pleg.workers.views().into_iter().find(|view| {
                view.observed.containers.iter().any(|c| c.id == event.id)
                    || view.observed.sandboxes.iter().any(|s| s.id == event.id)
            });
            match found {
                Some(view) => pleg.workers.wake(crate::plan::pod::uid(&view.pod)),
                None => pleg.relist_now.notify_one(),
            }
        });
    }

    /// Whether the runtime's books have this container or sandbox not ended yet. What ends as soon as it is started may stand
    /// there as created still.
    async fn stands_as_alive(&self, id: &str) -> bool {
        match self.kubelet.cri.container_status(id).await {
            Ok(Some(status)) => matches!(state(status.state), RunState::Created | RunState::Running),
            Ok(None) => {
                matches!(self.kubelet.cri.sandbox_status(id).await, Ok(Some(sandbox)) if sandbox.ready)
            }
            Err(_) => false,
        }
    }

    async fn list(&self) -> Result<HashMap<String, Listed>, crate::cri::CriError> {
        let (sandboxes, containers) =
            tokio::try_join!(self.kubelet.cri.list_sandboxes(None), self.kubelet.cri.list_containers(None))?;
        let mut pods: HashMap<String, Listed> = HashMap::new();
        for sandbox in sandboxes {
            if let Some(uid) = sandbox.labels.get(POD_UID).cloned() {
                pods.entry(uid).or_default().sandboxes.push(sandbox);
            }
        }
        for container in containers {
            if let Some(uid) = container.labels.get(POD_UID).cloned() {
                pods.entry(uid).or_default().containers.push(container);
            }
        }
        Ok(pods)
    }

    async fn relist(&self) -> Result<(), crate::cri::CriError> {
        let mut pods = self.list().await?;
        for view in self.workers.views() {
            let uid = crate::plan::pod::uid(&view.pod);
            let listed = pods.remove(uid).unwrap_or_default();
            if differs(&view.observed, &listed) {
                self.workers.wake(uid);
            }
        }
        if self.sources_ready.load(Ordering::Relaxed) {
            for (uid, listed) in pods {
                self.end_orphan(uid, &listed);
            }
        }
        Ok(())
    }

    /// A pod that runs here and that no source has: it is ended as its own grace says.
    fn end_orphan(&self, uid: String, listed: &Listed) {
        let Some(labels) = listed
            .sandboxes
            .first()
            .map(|s| &s.labels)
            .or_else(|| listed.containers.first().map(|c| &c.labels))
        else {
            return;
        };
        let label = |name: &str| labels.get(name).cloned();
        let grace = listed
            .containers
            .iter()
            .find_map(|c| c.annotations.get("io.kubernetes.pod.terminationGracePeriod")?.parse().ok());
        let pod = Pod {
            metadata: ObjectMeta {
                name: label(POD_NAME),
                namespace: label(POD_NAMESPACE),
                uid: Some(uid.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec { termination_grace_period_seconds: grace, ..PodSpec::default() }),
            ..Pod::default()
        };
        tracing::info!(
            pod = pod.metadata.name,
            namespace = pod.metadata.namespace,
            uid,
            "ending a pod nobody wants"
        );
        self.workers.want_gone(Arc::new(pod), known(listed));
    }
}

fn state(state: i32) -> RunState {
    match api::ContainerState::try_from(state) {
        Ok(api::ContainerState::ContainerCreated) => RunState::Created,
        Ok(api::ContainerState::ContainerRunning) => RunState::Running,
        Ok(api::ContainerState::ContainerExited) => RunState::Exited,
        _ => RunState::Unknown,
    }
}

fn is_ready(sandbox: &api::PodSandbox) -> bool {
    sandbox.state == api::PodSandboxState::SandboxReady as i32
}

/// Whether the runtime's list tells something that the worker has not seen.
fn differs(seen: &ObservedPod, listed: &Listed) -> bool {
    seen.containers.len() != listed.containers.len()
        || seen.sandboxes.len() != listed.sandboxes.len()
        || listed
            .containers
            .iter()
            .any(|c| !seen.containers.iter().any(|s| s.id == c.id && s.state == state(c.state)))
        || listed
            .sandboxes
            .iter()
            .any(|l| !seen.sandboxes.iter().any(|s| s.id == l.id && s.ready == is_ready(l)))
}

/// The little a list tells, in a worker's terms. States are left unknown, so that the worker asks for the rest.
fn known(listed: &Listed) -> ObservedPod {
    let sandboxes = listed.sandboxes.iter().map(|s| ObservedSandbox {
        id: s.id.clone(),
        attempt: s.metadata.as_ref().map_or(0, |m| m.attempt),
        ready: is_ready(s),
        created_at: s.created_at,
        host_network: false,
        ips: vec![],
    });
    let containers = listed.containers.iter().map(|c| ObservedContainer {
        id: c.id.clone(),
        name: c.metadata.as_ref().map_or(String::new(), |m| m.name.clone()),
        sandbox_id: c.pod_sandbox_id.clone(),
        restart_count: 0,
        state: RunState::Unknown,
        created_at: c.created_at,
        started_at: 0,
        finished_at: 0,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image: String::new(),
        image_ref: c.image_ref.clone(),
        hash: String::new(),
        log_path: String::new(),
    });
    ObservedPod { sandboxes: sandboxes.collect(), containers: containers.collect() }.sorted()
}
