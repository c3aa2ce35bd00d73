//! What the scheduler and the controllers read of a node.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use super::meta::{HasMeta, Meta};
use super::pod::{Taint, TaintEffect};
use super::resources::{Resources, allowed_pods};

/// One condition of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCondition {
    pub kind: Box<str>,
    pub status: Box<str>,
    pub reason: Box<str>,
    pub heartbeat: Option<Timestamp>,
    pub transition: Option<Timestamp>,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeView {
    pub meta: Meta,
    pub unschedulable: bool,
    pub taints: Vec<Taint>,
    pub allocatable: Resources,
    pub allowed_pods: i64,
    /// Sizes by every name of every image, sorted by name.
    pub images: Vec<(Box<str>, i64)>,
    pub pod_cidrs: Vec<Box<str>>,
    pub conditions: Vec<NodeCondition>,
    pub has_status: bool,
}

impl HasMeta for NodeView {
    fn meta(&self) -> &Meta {
        &self.meta
    }
}

impl NodeView {
    /// Projects a node.
    pub fn new(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let allocatable = status.and_then(|s| s.allocatable.as_ref());
        let mut images: Vec<(Box<str>, i64)> = status
            .iter()
            .flat_map(|s| s.images.iter().flatten())
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or(0);
                image.names.iter().flatten().map(move |name| (name.as_str().into(), size))
            })
            .collect();
        images.sort();
        NodeView {
            meta: Meta::new(&node.metadata),
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or(false),
            taints: spec
                .iter()
                .flat_map(|s| s.taints.iter().flatten())
                .map(|t| Taint {
                    key: t.key.as_str().into(),
                    value: t.value.as_deref().unwrap_or_default().into(),
                    effect: TaintEffect::new(&t.effect),
                    added: t.time_added.as_ref().map(|t| t.0),
                })
                .collect(),
            allocatable: Resources::from_list(allocatable),
            allowed_pods: allowed_pods(allocatable),
            images,
            pod_cidrs: spec
                .iter()
                .flat_map(|s| s.pod_cidrs.iter().flatten())
                .map(|c| c.as_str().into())
                .collect(),
            conditions: status
                .iter()
                .flat_map(|s| s.conditions.iter().flatten())
                .map(|c| NodeCondition {
                    kind: c.type_.as_str().into(),
                    status: c.status.as_str().into(),
                    reason: c.reason.as_deref().unwrap_or_default().into(),
                    heartbeat: c.last_heartbeat_time.as_ref().map(|t| t.0),
                    transition: c.last_transition_time.as_ref().map(|t| t.0),
                })
                .collect(),
            has_status: status.is_some(),
        }
    }

    /// A condition by type.
    pub fn condition(&self, kind: &str) -> Option<&NodeCondition> {
        self.conditions.iter().find(|c| &*c.kind == kind)
    }
}
