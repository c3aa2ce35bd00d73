//! Where pods come from: the API (those bound to this node) and a folder of static pods, whose copies in the API
//! ("mirror pods") are made and removed here.
pub mod static_pods;

use crate::kubelet::Shared;
use crate::plan::observed::ObservedPod;
use crate::plan::pod;
use crate::worker::Workers;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use keelson_client::{Informer, ObjectKey, Projection, Selector};
use keelson_daemon::DrainWatcher;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use static_pods::StaticPods;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

const STATIC_POLL: Duration = Duration::from_secs(5);

/// A pod of this node, whole: the kubelet needs nearly all of it.
pub struct PodItem(pub Arc<Pod>);

impl Projection for PodItem {
    type Object = Pod;

    fn project(mut object: Pod) -> Self {
        object.metadata.managed_fields = None;
        PodItem(Arc::new(object))
    }
}

/// Brings what the sources say to the workers.
pub struct Sources {
    kubelet: Shared,
    workers: Workers,
    ready: Arc<AtomicBool>,
    /// What the runtime held when the kubelet started.
    initial: HashMap<String, ObservedPod>,
    changed: Arc<Mutex<HashSet<ObjectKey>>>,
    notify: Arc<Notify>,
    /// Uids by key of the API's pods that have workers.
    running: HashMap<ObjectKey, String>,
    statics: HashMap<String, Arc<Pod>>,
    pods: Option<Informer<PodItem>>,
}

impl Sources {
    pub fn new(
        kubelet: Shared,
        workers: Workers,
        ready: Arc<AtomicBool>,
        initial: HashMap<String, ObservedPod>,
        drain: DrainWatcher,
    ) -> Self {
        let changed: Arc<Mutex<HashSet<ObjectKey>>> = Arc::default();
        let notify = Arc::new(Notify::new());
        let pods = kubelet.client.clone().map(|client| {
            let fields = Some(format!("spec.nodeName={}", kubelet.config.node_name));
            let selector = Selector { labels: None, fields };
            let informer = Informer::<PodItem>::start(Api::all(client), selector, drain);
            let (changed, notify) = (changed.clone(), notify.clone());
            informer.on_change(move |change| {
                changed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(change.key.clone());
                notify.notify_one();
            });
            informer
        });
        Sources {
            kubelet,
            workers,
            ready,
            initial,
            changed,
            notify,
            running: HashMap::new(),
            statics: HashMap::new(),
            pods,
        }
    }

    /// Runs until dropped.
    pub async fn run(mut self) {
        let mut folder = self.kubelet.config.static_pods.clone().map(StaticPods::new);
        let mut poll = tokio::time::interval(STATIC_POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let synced = self.pods.clone();
        let mut synced = std::pin::pin!(async move {
            if let Some(informer) = &synced {
                informer.synced().await;
            }
        });
        let mut is_synced = false;
        let mut first_poll_done = false;
        loop {
            tokio::select! {
                () = &mut synced, if !is_synced => is_synced = true,
                () = self.notify.notified() => {}
                _ = poll.tick(), if folder.is_some() || !first_poll_done => {
                    first_poll_done = true;
                    if let Some(found) = folder.as_mut().and_then(|f| f.read(&self.kubelet.config.node_name)) {
                        self.take_statics(found);
                    }
                }
            }
            self.take_changed();
            if is_synced && first_poll_done && !self.ready.swap(true, Ordering::Relaxed) {
                tracing::info!(pods = self.workers.len(), "all pod sources are read");
            }
            if is_synced && self.kubelet.client.is_some() {
                self.keep_mirrors().await;
            }
        }
    }

    fn known(&mut self, uid: &str) -> ObservedPod {
        self.initial.remove(uid).unwrap_or_default()
    }

    fn take_changed(&mut self) {
        let keys = {
            let mut changed = self.changed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            std::mem::take(&mut *changed)
        };
        for key in keys {
            let item = self.pods.as_ref().and_then(|pods| pods.get(&key));
            let Some(pod) = item.map(|item| item.0.clone()) else {
                if let Some(uid) = self.running.remove(&key) {
                    self.workers.gone(&uid);
                }
                continue;
            };
            if pod::is_mirror(&pod) {
                self.refresh_static(&pod);
                continue;
            }
            let uid = pod::uid(&pod).to_owned();
            if let Some(old) = self.running.insert(key, uid.clone()).filter(|old| *old != uid) {
                self.workers.gone(&old);
            }
            let known = self.known(&uid);
            self.workers.want(pod, None, known);
        }
    }

    /// Hands a static pod's worker its mirror.
    fn refresh_static(&mut self, mirror: &Arc<Pod>) {
        let uid = pod::annotation(mirror, pod::CONFIG_MIRROR).unwrap_or("").to_owned();
        if let Some(pod) = self.statics.get(&uid).cloned() {
            self.workers.want(pod, Some(mirror.clone()), ObservedPod::default());
        }
    }

    fn take_statics(&mut self, found: Vec<Pod>) {
        let found: HashMap<String, Arc<Pod>> =
            found.into_iter().map(|pod| (pod::uid(&pod).to_owned(), Arc::new(pod))).collect();
        let gone: Vec<String> =
            self.statics.keys().filter(|uid| !found.contains_key(*uid)).cloned().collect();
        for uid in gone {
            self.statics.remove(&uid);
            self.workers.gone(&uid);
        }
        for (uid, pod) in found {
            if self.statics.contains_key(&uid) {
                continue;
            }
            tracing::info!(pod = pod::name(&pod), namespace = pod::namespace(&pod), "static pod found");
            let known = self.known(&uid);
            let mirror = self.mirror_of(&pod);
            self.statics.insert(uid, pod.clone());
            self.workers.want(pod, mirror, known);
        }
    }

    fn mirror_of(&self, pod: &Pod) -> Option<Arc<Pod>> {
        let key = ObjectKey::new(pod::namespace(pod), pod::name(pod));
        self.pods.as_ref()?.get(&key).map(|item| item.0.clone()).filter(|found| pod::is_mirror(found))
    }

    /// Makes mirror pods that are missing and deletes those whose static pod is gone or another one now.
    async fn keep_mirrors(&self) {
        let (Some(client), Some(pods)) = (self.kubelet.client.clone(), &self.pods) else { return };
        for item in pods.list() {
            let mirror = &item.0;
            let Some(hash) = pod::annotation(mirror, pod::CONFIG_MIRROR) else { continue };
            if !self.statics.contains_key(hash) {
                self.delete_mirror(&client, mirror).await;
            }
        }
        for pod in self.statics.values() {
            let existing = pods.get(&ObjectKey::new(pod::namespace(pod), pod::name(pod)));
            if existing.is_none()
                && let Err(error) = self.create_mirror(&client, pod).await
            {
                tracing::debug!(pod = pod::name(pod), error = %error, "mirror pod was not made");
            }
        }
    }

    async fn delete_mirror(&self, client: &kube::Client, mirror: &Pod) {
        let api: Api<Pod> = Api::namespaced(client.clone(), pod::namespace(mirror));
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: mirror.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        if let Err(error) = api.delete(pod::name(mirror), &parameters).await {
            tracing::debug!(pod = pod::name(mirror), error = %error, "mirror pod was not deleted");
        }
    }

    async fn create_mirror(&self, client: &kube::Client, pod: &Pod) -> Result<(), kube::Error> {
        let node: Node = Api::<Node>::all(client.clone()).get(&self.kubelet.config.node_name).await?;
        let mut mirror = pod.clone();
        let hash = pod::uid(pod).to_owned();
        mirror.metadata.uid = None;
        mirror.status = None;
        mirror.metadata.annotations.get_or_insert_default().insert(pod::CONFIG_MIRROR.to_owned(), hash);
        mirror.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: self.kubelet.config.node_name.clone(),
            uid: node.metadata.uid.unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: None,
        }]);
        let api: Api<Pod> = Api::namespaced(client.clone(), pod::namespace(pod));
        api.create(&PostParams::default(), &mirror).await?;
        Ok(())
    }
}
