//! Which nodes a pod's node selector and required node affinity allow.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use super::node::NodeView;
use super::pod::PodView;

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().ok();
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|v| values.iter().any(|x| x == v)),
        "NotIn" => value.is_none_or(|v| values.iter().all(|x| x != v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" | "Lt" => {
            let ([bound], Some(value)) = (values, value) else { return false };
            match (number(value), number(bound)) {
                (Some(value), Some(bound)) if requirement.operator == "Gt" => value > bound,
                (Some(value), Some(bound)) => value < bound,
                _ => false,
            }
        }
        _ => false,
    }
}

/// A term without expressions matches nothing.
pub fn term_matches(term: &NodeSelectorTerm, node: &NodeView) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if labels.is_empty() && fields.is_empty() {
        return false;
    }
    labels.iter().all(|r| requirement_matches(r, node.meta.labels.get(&r.key)))
        && fields.iter().all(|r| r.key == "metadata.name" && requirement_matches(r, Some(&node.meta.name)))
}

/// Whether the node satisfies the pod's node selector and required node affinity.
pub fn matches_required(pod: &PodView, node: &NodeView) -> bool {
    let Some(pending) = &pod.pending else { return true };
    if !pending.node_selector.iter().all(|(k, v)| node.meta.labels.get(k) == Some(v)) {
        return false;
    }
    let required = pending
        .node_affinity
        .as_ref()
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|selector| selector.node_selector_terms.iter().any(|t| term_matches(t, node)))
}
