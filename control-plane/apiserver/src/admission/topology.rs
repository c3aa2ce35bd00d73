//! PodTopologyLabels: a pod learns its node's zone and region when it gets the node, so that it can read them of itself.

use super::{Admission, AdmissionAttributes, ClusterReads, Operation};
use crate::authn::reads::{self, ObjectHead};
use keelson_api::doc::Doc;
use keelson_api::f::core_v1 as c;
use keelson_api::status::Status;
use std::sync::Arc;

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub(super) struct PodTopologyLabels {
    reads: Arc<dyn ClusterReads>,
}

impl PodTopologyLabels {
    pub(super) fn new(reads: Arc<dyn ClusterReads>) -> PodTopologyLabels {
        PodTopologyLabels { reads }
    }
}

/// The node that the request gives to a pod; the labels of a Binding become the pod's.
fn node(object: &Doc, a: &AdmissionAttributes<'_>) -> Option<String> {
    if a.operation != Operation::Create || !a.group.is_empty() {
        return None;
    }
    let node = match (a.resource, a.subresource) {
        ("pods", "") => object.str(&[c::pod::SPEC, c::pod_spec::NODE_NAME]),
        ("pods", "binding") | ("bindings", "") => {
            let target = object.get(&[c::binding::TARGET])?;
            let to_node = target.str_at(&[c::object_reference::KIND]) == "Node";
            if to_node { target.str_at(&[c::object_reference::NAME]) } else { "" }
        }
        _ => return None,
    };
    Some(node.to_owned()).filter(|n| !n.is_empty())
}

impl Admission for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn mutate(
        &self,
        object: &mut Doc,
        _old: Option<&Doc>,
        a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        let Some(node) = node(object, a) else { return Ok(()) };
        let head: Option<ObjectHead> = reads::read(self.reads.as_ref(), "", "nodes", "", &node);
        let labels = head.map(|h| h.metadata.labels).unwrap_or_default();
        for (key, value) in labels.iter().filter(|(key, _)| LABELS.contains(&key.as_str())) {
            object.meta_mut().set_label(key, value);
        }
        Ok(())
    }
}
