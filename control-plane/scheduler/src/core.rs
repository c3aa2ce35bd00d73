//! What the scheduler knows and decides: nodes with their pods, pods assumed onto nodes, the queue. Pure; the shell
//! feeds it observations and carries its decisions out.

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use keelson_client::ObjectKey;
use keelson_client::projections::{Labels, NodeView, PodView};

use crate::cycle::{self, Diagnosis, Nominated, schedule};
use crate::framework::*;
use crate::preemption::{Budget, preempt};
use crate::queue::SchedulingQueue;

/// What is to be done about one pod.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Bind it; the node counts it already. Answer with [`Scheduler::bound`].
    Bind { pod: Arc<PodView>, node: Box<str> },
    /// No node takes it. It waits in the queue already.
    Unschedulable {
        pod: Arc<PodView>,
        message: String,
        /// Pods to remove so that it fits, and the node they are on.
        preempt: Option<(Box<str>, Vec<Arc<PodView>>)>,
        /// Its nominated node no longer helps.
        clear_nominated: bool,
    },
}

/// The scheduler's state.
pub struct Scheduler {
    profile: Profile,
    name: Box<str>,
    snapshot: Snapshot,
    /// Pods on nodes that are not known (yet).
    stray: AHashMap<Box<str>, Vec<Arc<PodView>>>,
    known: AHashMap<ObjectKey, Arc<PodView>>,
    /// Node by uid of pods decided but not seen bound.
    assumed: AHashMap<Box<str>, Box<str>>,
    nominated: Nominated,
    queue: SchedulingQueue,
    budgets: Vec<Budget>,
    start: usize,
    ties: u64,
}

/// Whether the pod asks for the scheduler of this name.
fn is_of(pod: &PodView, name: &str) -> bool {
    pod.scheduler.as_deref().unwrap_or("default-scheduler") == name
}

/// Whether a pod is anything to the scheduler of this name: one to schedule, or one that takes room on a node.
pub(crate) fn concerns(pod: &PodView, name: &str) -> bool {
    pod.node.is_some() || is_of(pod, name)
}

impl Scheduler {
    /// A scheduler for pods that ask for `name`; `seed` decides ties.
    pub fn new(profile: Profile, name: &str, seed: u64) -> Self {
        Scheduler {
            profile,
            name: name.into(),
            snapshot: Snapshot::default(),
            stray: AHashMap::new(),
            known: AHashMap::new(),
            assumed: AHashMap::new(),
            nominated: Nominated::new(),
            queue: SchedulingQueue::default(),
            budgets: Vec::new(),
            start: 0,
            ties: seed | 1,
        }
    }

    /// Replaces the disruption budgets that preemption respects.
    pub fn set_budgets(&mut self, budgets: Vec<Budget>) {
        self.budgets = budgets;
    }

    /// A namespace's labels, or that it is gone.
    pub fn observe_namespace(&mut self, name: &str, labels: Option<Labels>, now: Duration) {
        let namespaces = Arc::make_mut(&mut self.snapshot.namespaces);
        let changed = match labels {
            Some(labels) if namespaces.get(name) == Some(&labels) => false,
            Some(labels) => {
                namespaces.insert(name.into(), labels);
                true
            }
            None => namespaces.remove(name).is_some(),
        };
        if changed {
            self.queue.on_event(&self.profile, &ClusterEvent::NamespaceChanged, now);
        }
    }

    /// A node as it is now, or that it is gone.
    pub fn observe_node(&mut self, name: &str, node: Option<Arc<NodeView>>, now: Duration) {
        let position = self.snapshot.position(name);
        let event = match (position, node) {
            (Some(index), Some(new)) => {
                let info = Arc::make_mut(&mut self.snapshot.nodes[index]);
                let old = std::mem::replace(&mut info.node, new.clone());
                if !relevant_change(&old, &new) {
                    return;
                }
                ClusterEvent::NodeUpdated(old, new)
            }
            (None, Some(new)) => {
                let mut info = NodeInfo::new(new.clone());
                for pod in self.stray.remove(name).unwrap_or_default() {
                    info.add(pod);
                }
                self.snapshot.insert(info);
                ClusterEvent::NodeAdded(new)
            }
            (Some(index), None) => {
                let info = self.snapshot.nodes.remove(index);
                if !info.pods.is_empty() {
                    self.stray.insert(name.into(), info.pods.clone());
                }
                ClusterEvent::NodeRemoved
            }
            (None, None) => return,
        };
        self.queue.on_event(&self.profile, &event, now);
    }

    /// A pod as it is now, or that it is gone.
    pub fn observe_pod(&mut self, key: &ObjectKey, pod: Option<Arc<PodView>>, now: Duration) {
        let old = match &pod {
            Some(pod) => self.known.insert(key.clone(), pod.clone()),
            None => self.known.remove(key),
        };
        // Another pod of the same name: the old one is gone.
        if let Some(old) = &old
            && pod.as_ref().is_none_or(|new| new.meta.uid != old.meta.uid)
        {
            self.gone(old, now);
        }
        let Some(pod) = pod else { return };
        let before = old.filter(|old| old.meta.uid == pod.meta.uid);
        if pod.phase.is_terminal() {
            self.gone(before.as_ref().unwrap_or(&pod), now);
        } else if pod.node.is_some() {
            self.assigned(before.as_deref(), pod, now);
        } else {
            self.unassigned(before.as_deref(), pod, now);
        }
    }

    fn assigned(&mut self, before: Option<&PodView>, pod: Arc<PodView>, now: Duration) {
        let Some(node) = pod.node.clone() else { return };
        self.queue.remove(&pod.meta.uid);
        self.unnominate(&pod.meta.uid);
        let assumed = self.assumed.remove(&pod.meta.uid);
        let was_on = assumed.or_else(|| before.and_then(|b| b.node.clone()));
        if let Some(was_on) = &was_on {
            self.take_off(was_on, &pod.meta.uid);
        }
        self.put_on(&node, pod.clone());
        let labels_changed = before.is_some_and(|b| b.meta.labels != pod.meta.labels);
        if was_on.is_none() || labels_changed {
            self.queue.on_event(&self.profile, &ClusterEvent::AssignedPodChanged(pod.clone()), now);
        }
        if before.is_some_and(|b| b.requests != pod.requests && b.node.is_some()) {
            self.queue.on_event(&self.profile, &ClusterEvent::AssignedPodGone(pod), now);
        }
    }

    fn unassigned(&mut self, before: Option<&PodView>, pod: Arc<PodView>, now: Duration) {
        if !is_of(&pod, &self.name) {
            return;
        }
        if pod.meta.deleted.is_some() {
            self.queue.remove(&pod.meta.uid);
            self.unnominate(&pod.meta.uid);
            return;
        }
        if self.assumed.contains_key(&pod.meta.uid) {
            return;
        }
        let uid = pod.meta.uid.clone();
        let nominated = pod.pending.as_ref().and_then(|p| p.nominated_node.clone());
        match before {
            Some(before) if self.queue.contains(&uid) && !asks_differently(before, &pod) => {
                self.queue.refresh(pod.clone())
            }
            _ => self.queue.add(&self.profile, pod.clone(), now),
        }
        if let Some(node) = nominated {
            self.nominate(node, pod);
        }
    }

    fn gone(&mut self, pod: &Arc<PodView>, now: Duration) {
        let uid = &pod.meta.uid;
        self.queue.remove(uid);
        self.unnominate(uid);
        let node = self.assumed.remove(uid).or_else(|| pod.node.clone());
        if let Some(node) = node
            && self.take_off(&node, uid)
        {
            self.queue.on_event(&self.profile, &ClusterEvent::AssignedPodGone(pod.clone()), now);
        }
    }

    fn put_on(&mut self, node: &str, pod: Arc<PodView>) {
        match self.snapshot.position(node) {
            Some(index) => Arc::make_mut(&mut self.snapshot.nodes[index]).add(pod),
            None => self.stray.entry(node.into()).or_default().push(pod),
        }
    }

    fn take_off(&mut self, node: &str, uid: &str) -> bool {
        if let Some(index) = self.snapshot.position(node) {
            return Arc::make_mut(&mut self.snapshot.nodes[index]).remove(uid);
        }
        let Some(pods) = self.stray.get_mut(node) else { return false };
        let before = pods.len();
        pods.retain(|p| &*p.meta.uid != uid);
        let removed = pods.len() != before;
        if pods.is_empty() {
            self.stray.remove(node);
        }
        removed
    }

    fn nominate(&mut self, node: Box<str>, pod: Arc<PodView>) {
        self.unnominate(&pod.meta.uid);
        self.nominated.entry(node).or_default().push(pod);
    }

    fn unnominate(&mut self, uid: &str) {
        self.nominated.retain(|_, pods| {
            pods.retain(|p| &*p.meta.uid != uid);
            !pods.is_empty()
        });
    }

    /// Decides on the next pod of the queue; `None` when nothing is due.
    pub fn next(&mut self, now: Duration) -> Option<Decision> {
        let pod = self.queue.pop(now)?;
        // xorshift: ties need no more than spread.
        self.ties ^= self.ties << 13;
        self.ties ^= self.ties >> 7;
        self.ties ^= self.ties << 17;
        let result =
            schedule(&self.profile, &pod, &self.snapshot, &self.nominated, &mut self.start, self.ties);
        Some(match result {
            Ok(index) => {
                let node: Box<str> = self.snapshot.nodes[index].name().into();
                Arc::make_mut(&mut self.snapshot.nodes[index]).add(pod.clone());
                self.assumed.insert(pod.meta.uid.clone(), node.clone());
                self.unnominate(&pod.meta.uid);
                Decision::Bind { pod, node }
            }
            Err(diagnosis) => self.unschedulable(pod, *diagnosis, now),
        })
    }

    fn unschedulable(&mut self, pod: Arc<PodView>, mut diagnosis: Diagnosis, now: Duration) -> Decision {
        let mut chosen = None;
        let had_nominated = pod.pending.as_ref().is_some_and(|p| p.nominated_node.is_some());
        let mut clear_nominated = false;
        if diagnosis.total > 0 && diagnosis.pre_filter.is_some() {
            diagnosis.post_filter = cycle::after_pre_filter(&diagnosis);
        } else if diagnosis.total > 0 {
            match preempt(&self.profile, &pod, &self.snapshot, &diagnosis, &self.budgets) {
                Ok(candidate) => {
                    let node: Box<str> = self.snapshot.nodes[candidate.node].name().into();
                    self.nominate(node.clone(), pod.clone());
                    chosen = Some((node, candidate.victims));
                }
                Err(text) => {
                    clear_nominated = had_nominated && !text.contains("not eligible");
                    diagnosis.post_filter = Some(format!("{}, {text}", cycle::NO_CLAIMS));
                }
            }
        }
        if clear_nominated {
            self.unnominate(&pod.meta.uid);
        }
        let message = diagnosis.message();
        self.queue.park(&pod.meta.uid, diagnosis.plugins.into_iter().collect(), now);
        Decision::Unschedulable { pod, message, preempt: chosen, clear_nominated }
    }

    /// How a binding went: when it failed, the node is free again and the pod is tried again later.
    pub fn bound(&mut self, uid: &str, succeeded: bool, now: Duration) {
        if succeeded {
            self.queue.remove(uid);
            return;
        }
        // Not assumed any more: it was seen bound, or gone, in the meantime.
        let Some(node) = self.assumed.remove(uid) else { return };
        self.take_off(&node, uid);
        self.queue.retry(uid, now);
    }

    /// When the queue has something to do next.
    pub fn next_due(&self) -> Option<Duration> {
        self.queue.next_due()
    }

    /// Forgets that preemption was decided for a pod because it could not be carried out.
    pub fn preemption_failed(&mut self, uid: &str, now: Duration) {
        self.unnominate(uid);
        self.queue.retry(uid, now);
    }
}

fn relevant_change(old: &NodeView, new: &NodeView) -> bool {
    old.unschedulable != new.unschedulable
        || old.taints != new.taints
        || old.allocatable != new.allocatable
        || old.allowed_pods != new.allowed_pods
        || old.meta.labels != new.meta.labels
}

/// Whether the pod asks for something else than before (and not only its status changed).
fn asks_differently(old: &PodView, new: &PodView) -> bool {
    let spec = |p: &PodView| {
        p.pending.clone().map(|mut p| {
            p.nominated_node = None;
            p
        })
    };
    old.meta.labels != new.meta.labels
        || old.requests != new.requests
        || old.priority != new.priority
        || old.tolerations != new.tolerations
        || old.affinity != new.affinity
        || spec(old) != spec(new)
}
