//! The contract between the scheduling cycle and its plugins.
//!
//! Pure: no clock, no client. A plugin sees a snapshot of nodes with the pods on them (those already decided but not yet
//! seen bound included) and the pod to place; it answers with a rejection and its reasons, or a score.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

use ahash::AHashMap;
use keelson_client::projections::{Labels, NodeView, PodView, Resources};

/// The highest score of a node in one plugin.
pub const MAX_NODE_SCORE: i64 = 100;

/// A node with what is on it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub node: Arc<NodeView>,
    pub pods: Vec<Arc<PodView>>,
    pub requested: Resources,
    /// CPU in thousandths and memory, with defaults for what requests nothing.
    pub nonzero: (i64, i64),
    /// How many pods have any affinity or anti-affinity to pods.
    pub with_affinity: usize,
    /// How many pods use host ports.
    pub with_host_ports: usize,
}

impl NodeInfo {
    /// An empty node.
    pub fn new(node: Arc<NodeView>) -> Self {
        NodeInfo { node, ..NodeInfo::default() }
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.node.meta.name
    }

    /// Counts a pod in.
    pub fn add(&mut self, pod: Arc<PodView>) {
        self.requested.add(&pod.requests);
        self.nonzero.0 += pod.nonzero.0;
        self.nonzero.1 += pod.nonzero.1;
        self.with_affinity += usize::from(pod.affinity.is_some());
        self.with_host_ports += usize::from(!pod.host_ports.is_empty());
        self.pods.push(pod);
    }

    /// Counts a pod out again; false when it was not there.
    pub fn remove(&mut self, uid: &str) -> bool {
        let Some(index) = self.pods.iter().position(|p| &*p.meta.uid == uid) else { return false };
        let pod = self.pods.swap_remove(index);
        self.requested.subtract(&pod.requests);
        self.nonzero.0 -= pod.nonzero.0;
        self.nonzero.1 -= pod.nonzero.1;
        self.with_affinity -= usize::from(pod.affinity.is_some());
        self.with_host_ports -= usize::from(!pod.host_ports.is_empty());
        true
    }
}

/// The cluster as one scheduling cycle sees it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Ordered by name.
    pub nodes: Vec<Arc<NodeInfo>>,
    /// Labels by namespace, for namespace selectors.
    pub namespaces: Arc<AHashMap<Box<str>, Labels>>,
}

impl Snapshot {
    /// The same cluster with one node replaced.
    pub fn with_node(&self, index: usize, node: NodeInfo) -> Snapshot {
        let mut copy = self.clone();
        copy.nodes[index] = Arc::new(node);
        copy
    }

    /// Adds a node that is not there yet.
    pub fn insert(&mut self, node: NodeInfo) {
        let at = self.nodes.partition_point(|n| n.name() < node.name());
        self.nodes.insert(at, Arc::new(node));
    }

    /// Where a node stands.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.nodes.binary_search_by(|n| n.name().cmp(name)).ok()
    }
}

/// Why a plugin refuses a node, or the pod as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub plugin: &'static str,
    pub reasons: Vec<Cow<'static, str>>,
    /// Removing pods from the node might help.
    pub resolvable: bool,
}

impl Rejection {
    /// Removing pods might help.
    pub fn unschedulable(plugin: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Rejection { plugin, reasons: vec![reason.into()], resolvable: true }
    }

    /// Removing pods cannot help.
    pub fn unresolvable(plugin: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Rejection { plugin, reasons: vec![reason.into()], resolvable: false }
    }
}

/// What plugins computed once per pod, by plugin name.
#[derive(Default)]
pub struct CycleState {
    entries: Vec<(&'static str, Box<dyn Any + Send + Sync>)>,
}

impl CycleState {
    /// Keeps a plugin's state, replacing what it kept before.
    pub fn write<T: Any + Send + Sync>(&mut self, key: &'static str, value: T) {
        self.entries.retain(|(k, _)| *k != key);
        self.entries.push((key, Box::new(value)));
    }

    /// A plugin's state.
    pub fn read<T: Any>(&self, key: &'static str) -> Option<&T> {
        self.entries.iter().find(|(k, _)| *k == key)?.1.downcast_ref()
    }
}

/// What a pre-filter found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreFilterResult {
    /// The plugin has no say on this pod; its filter is not run.
    Skip,
    /// All nodes may do.
    All,
    /// Only these nodes may do.
    Nodes(Vec<Box<str>>),
}

/// Things that happen in the cluster and may make a pod schedulable.
#[derive(Clone, Debug)]
pub enum ClusterEvent {
    NodeAdded(Arc<NodeView>),
    NodeUpdated(Arc<NodeView>, Arc<NodeView>),
    NodeRemoved,
    /// A pod with a node appeared or changed its labels.
    AssignedPodChanged(Arc<PodView>),
    /// A pod with a node ended, was deleted or gave up resources.
    AssignedPodGone(Arc<PodView>),
    NamespaceChanged,
}

/// What every plugin has.
pub trait Plugin: Send + Sync {
    /// Its name as upstream's.
    fn name(&self) -> &'static str;
    /// Whether `event` may make a pod schedulable that this plugin refused.
    fn may_help(&self, pod: &PodView, event: &ClusterEvent) -> bool {
        let _ = (pod, event);
        true
    }
}

/// Runs before a pod enters the active queue.
pub trait PreEnqueue: Plugin {
    fn pre_enqueue(&self, pod: &PodView) -> Result<(), Rejection>;
}

/// Runs once per pod before nodes are filtered.
pub trait PreFilter: Plugin {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodView,
        snapshot: &Snapshot,
    ) -> Result<PreFilterResult, Rejection>;
}

/// Decides whether a node can take the pod.
pub trait Filter: Plugin {
    fn filter(&self, state: &CycleState, pod: &PodView, node: &NodeInfo) -> Result<(), Rejection>;
}

/// How well a node suits the pod.
pub trait Score: Plugin {
    /// Prepares scoring of `feasible` (indices into the snapshot); false: this plugin has no preference for this pod.
    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: &PodView,
        snapshot: &Snapshot,
        feasible: &[usize],
    ) -> bool {
        let _ = (state, pod, snapshot, feasible);
        true
    }
    fn score(&self, state: &CycleState, pod: &PodView, node: &NodeInfo) -> i64;
    /// Brings raw scores, in the order of `feasible`, into 0..=100.
    fn normalize(&self, state: &CycleState, scores: &mut [i64]) {
        let _ = (state, scores);
    }
}

/// Scales so that the highest becomes 100, turned round where fewer is better (`helper.DefaultNormalizeScore`).
pub fn default_normalize(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        *score = match (max, reverse) {
            (0, true) => MAX_NODE_SCORE,
            (0, false) => 0,
            (max, true) => MAX_NODE_SCORE - MAX_NODE_SCORE * *score / max,
            (max, false) => MAX_NODE_SCORE * *score / max,
        };
    }
}

/// The plugins in force, by extension point and in the order they run.
#[derive(Default)]
pub struct Profile {
    pub pre_enqueue: Vec<Arc<dyn PreEnqueue>>,
    pub pre_filter: Vec<Arc<dyn PreFilter>>,
    pub filter: Vec<Arc<dyn Filter>>,
    pub score: Vec<(Arc<dyn Score>, i64)>,
    /// All plugins once, for requeue hints.
    pub all: Vec<Arc<dyn Plugin>>,
}

impl Profile {
    /// A plugin by name.
    pub fn plugin(&self, name: &str) -> Option<&Arc<dyn Plugin>> {
        self.all.iter().find(|p| p.name() == name)
    }
}
