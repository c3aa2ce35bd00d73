//! One actor per pod. A source says what is wanted ([`Workers::want`]), the runtime's news and probe results wake it,
//! and it alone touches the pod: syncing → terminating → terminated → finished, never back.
mod actor;
mod start;
mod stop;

use crate::kubelet::Shared;
use crate::plan::observed::ObservedPod;
use crate::plan::{fields, pod, qos};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

/// What the sources want of a pod.
#[derive(Clone, Debug)]
pub enum Want {
    /// It shall run (or, with a deletion time, end in order). `mirror`: its copy in the API, for static pods.
    Run { pod: Arc<Pod>, mirror: Option<Arc<Pod>> },
    /// No source knows it any more: it ends, and nothing is left of it.
    Gone,
}

/// What others may see of a pod.
#[derive(Clone, Debug)]
pub struct PodView {
    pub pod: Arc<Pod>,
    pub status: PodStatus,
    pub observed: ObservedPod,
    /// Its containers have ended for good and its volumes are gone.
    pub finished: bool,
    /// It was found to fit here, and counts.
    pub admitted: bool,
}

/// Why the kubelet itself ends a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    pub message: String,
    /// The node ran out of something; the pod did nothing wrong.
    pub node_pressure: bool,
}

struct Handle {
    evicted: Arc<Mutex<Option<Eviction>>>,
    want: watch::Sender<Want>,
    wake: Arc<Notify>,
    view: Arc<Mutex<PodView>>,
}

struct Inner {
    /// Held while a pod's fit is decided: two pods never count on the same room.
    admission: Mutex<()>,
    kubelet: Shared,
    handles: Mutex<HashMap<String, Handle>>,
    tasks: tokio_util::task::TaskTracker,
    stop: tokio_util::sync::CancellationToken,
}

/// All pod workers; cheap to clone.
#[derive(Clone)]
pub struct Workers {
    inner: Arc<Inner>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Workers {
    pub fn new(kubelet: Shared) -> Self {
        Workers {
            inner: Arc::new(Inner {
                admission: Mutex::default(),
                kubelet,
                handles: Mutex::default(),
                tasks: tokio_util::task::TaskTracker::new(),
                stop: tokio_util::sync::CancellationToken::new(),
            }),
        }
    }

    /// Tells a pod's worker what is wanted; starts one for a pod that has none. `known`: what the runtime was found
    /// to hold of it already.
    pub fn want(&self, pod: Arc<Pod>, mirror: Option<Arc<Pod>>, known: ObservedPod) {
        let uid = pod::uid(&pod).to_owned();
        let mut handles = lock(&self.inner.handles);
        if let Some(handle) = handles.get(&uid) {
            if let Some(api_pod) = if pod::is_static(&pod) { mirror.as_deref() } else { Some(&*pod) } {
                self.inner.kubelet.statuses.reconcile(&uid, api_pod);
            }
            handle.want.send_if_modified(|want| {
                // The echo of a status written here is kept, but is no news.
                let news = match want {
                    Want::Run { pod: old, mirror: old_mirror } => {
                        pod::differs(old, &pod)
                            || old_mirror.as_deref().map(pod::uid) != mirror.as_deref().map(pod::uid)
                    }
                    Want::Gone => true,
                };
                *want = Want::Run { pod, mirror };
                news
            });
            return;
        }
        let wake = Arc::new(Notify::new());
        let status = pod.status.clone().unwrap_or_default();
        let view = Arc::new(Mutex::new(PodView {
            pod: pod.clone(),
            status,
            observed: known.clone(),
            finished: false,
            admitted: false,
        }));
        let evicted: Arc<Mutex<Option<Eviction>>> = Arc::default();
        let (want, receiver) = watch::channel(Want::Run { pod: pod.clone(), mirror: mirror.clone() });
        handles.insert(
            uid.clone(),
            Handle { evicted: evicted.clone(), want, wake: wake.clone(), view: view.clone() },
        );
        drop(handles);
        let shared = actor::SharedWithWorker { wake, view, evicted };
        let worker = actor::Worker::new(self.inner.kubelet.clone(), self.clone(), pod, mirror, known, shared);
        let inner = self.inner.clone();
        self.inner.tasks.spawn(async move {
            let stop = inner.stop.clone();
            // The kubelet's end is not the pods' end: a worker is dropped between two of its awaits, containers stay.
            if stop.run_until_cancelled(worker.run(receiver)).await.is_some() {
                lock(&inner.handles).remove(&uid);
            }
        });
    }

    /// A pod that the runtime holds and no source has: a worker that ends it.
    pub fn want_gone(&self, pod: Arc<Pod>, known: ObservedPod) {
        let uid = pod::uid(&pod).to_owned();
        if !self.contains(&uid) {
            self.want(pod, None, known);
        }
        self.gone(&uid);
    }

    /// No source has the pod any more.
    pub fn gone(&self, uid: &str) {
        if let Some(handle) = lock(&self.inner.handles).get(uid) {
            handle.want.send_replace(Want::Gone);
        }
    }

    /// Ends a pod for good: it fails with reason Evicted.
    pub fn evict(&self, uid: &str, eviction: Eviction) {
        if let Some(handle) = lock(&self.inner.handles).get(uid) {
            lock(&handle.evicted).get_or_insert(eviction);
            handle.wake.notify_one();
        }
    }

    /// Decides whether a pod fits beside the others, and counts it if so. A pod that no source has any more (deleted without
    /// grace) does not count while it winds down, as with upstream's: the scheduler does not know of it either, and who
    /// makes a new pod for each that was refused would go on as long as that takes.
    pub(crate) fn admit(&self, own: &Mutex<PodView>) -> Result<(), fields::Refusal> {
        let _one_at_a_time = lock(&self.inner.admission);
        let pod = lock(own).pod.clone();
        let capacity = &self.inner.kubelet.capacity;
        let reserved = self.inner.kubelet.config.eviction.memory_available as i64;
        let mut room = fields::Room {
            cpu: (0, capacity.milli_cpu),
            memory: (0, capacity.memory - reserved),
            pods: (0, capacity.pods),
        };
        for view in self.views_where(|want| !matches!(want, Want::Gone)) {
            let ended = view.finished || pod::is_terminal_phase(view.status.phase.as_deref());
            if view.admitted && !ended && pod::uid(&view.pod) != pod::uid(&pod) {
                let used = qos::pod_resources(&view.pod);
                room.cpu.0 += used.cpu_request;
                room.memory.0 += used.memory_request;
                room.pods.0 += 1;
            }
        }
        fields::check_room(&pod, &room)?;
        lock(own).admitted = true;
        Ok(())
    }

    /// The runtime or a probe has news of the pod.
    pub fn wake(&self, uid: &str) {
        if let Some(handle) = lock(&self.inner.handles).get(uid) {
            handle.wake.notify_one();
        }
    }

    pub fn wake_all(&self) {
        lock(&self.inner.handles).values().for_each(|handle| handle.wake.notify_one());
    }

    pub fn contains(&self, uid: &str) -> bool {
        lock(&self.inner.handles).contains_key(uid)
    }

    pub fn view(&self, uid: &str) -> Option<PodView> {
        let view = lock(&self.inner.handles).get(uid)?.view.clone();
        let view = lock(&view).clone();
        Some(view)
    }

    pub fn by_name(&self, namespace: &str, name: &str) -> Option<PodView> {
        let views = self.views();
        // Of two pods of one name the one that still runs is meant.
        let mut matching: Vec<PodView> = views
            .into_iter()
            .filter(|v| pod::namespace(&v.pod) == namespace && pod::name(&v.pod) == name)
            .collect();
        matching.sort_by_key(|v| v.finished);
        matching.into_iter().next()
    }

    pub fn views(&self) -> Vec<PodView> {
        self.views_where(|_| true)
    }

    fn views_where(&self, wanted: impl Fn(&Want) -> bool) -> Vec<PodView> {
        let handles = lock(&self.inner.handles);
        let wanted = handles.values().filter(|handle| wanted(&handle.want.borrow()));
        let views: Vec<_> = wanted.map(|handle| handle.view.clone()).collect();
        drop(handles);
        views.iter().map(|view| lock(view).clone()).collect()
    }

    /// Whether another pod of that name (a static pod's earlier version) still runs here.
    pub(crate) fn other_of_name(&self, pod: &Pod) -> bool {
        self.views().iter().any(|view| {
            !view.finished
                && pod::uid(&view.pod) != pod::uid(pod)
                && pod::name(&view.pod) == pod::name(pod)
                && pod::namespace(&view.pod) == pod::namespace(pod)
        })
    }

    pub fn len(&self) -> usize {
        lock(&self.inner.handles).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells all workers to end, leaving the containers as they are.
    pub fn cancel(&self) {
        self.inner.stop.cancel();
    }

    /// Ends all workers, leaving the containers as they are.
    pub async fn shut_down(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}
