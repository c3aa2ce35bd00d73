//! SchedulingGates, NodeName, NodeUnschedulable and NodePorts.

use keelson_client::projections::{HostPort, PodView, Taint, TaintEffect};

use crate::framework::*;

/// Holds pods with scheduling gates back.
pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn may_help(&self, _: &PodView, _: &ClusterEvent) -> bool {
        false // only a change of the pod itself does
    }
}

impl PreEnqueue for SchedulingGates {
    fn pre_enqueue(&self, pod: &PodView) -> Result<(), Rejection> {
        let gates = pod.pending.as_ref().map_or(&[][..], |p| &p.gates);
        if gates.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = gates.iter().map(|g| &**g).collect();
        Err(Rejection::unresolvable(
            self.name(),
            format!("waiting for scheduling gates: [{}]", names.join(" ")),
        ))
    }
}

/// A pod that names its node goes there only. (A pod with a node name is not scheduled at all; this serves preemption
/// and dry runs.)
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn may_help(&self, _: &PodView, event: &ClusterEvent) -> bool {
        matches!(event, ClusterEvent::NodeAdded(_))
    }
}

impl Filter for NodeName {
    fn filter(&self, _: &CycleState, pod: &PodView, node: &NodeInfo) -> Result<(), Rejection> {
        match &pod.node {
            Some(name) if **name != *node.name() => {
                Err(Rejection::unresolvable(self.name(), "node(s) didn't match the requested node name"))
            }
            _ => Ok(()),
        }
    }
}

/// Nodes with `spec.unschedulable`.
pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn may_help(&self, _: &PodView, event: &ClusterEvent) -> bool {
        match event {
            ClusterEvent::NodeAdded(node) => !node.unschedulable,
            ClusterEvent::NodeUpdated(old, new) => old.unschedulable && !new.unschedulable,
            _ => false,
        }
    }
}

impl Filter for NodeUnschedulable {
    fn filter(&self, _: &CycleState, pod: &PodView, node: &NodeInfo) -> Result<(), Rejection> {
        if !node.node.unschedulable {
            return Ok(());
        }
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            value: "".into(),
            effect: TaintEffect::NoSchedule,
            added: None,
        };
        if pod.tolerations.iter().any(|t| t.tolerates(&taint)) {
            return Ok(());
        }
        Err(Rejection::unresolvable(self.name(), "node(s) were unschedulable"))
    }
}

/// Host ports in use.
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn may_help(&self, pod: &PodView, event: &ClusterEvent) -> bool {
        match event {
            ClusterEvent::NodeAdded(_) => true,
            ClusterEvent::AssignedPodGone(gone) => {
                gone.host_ports.iter().any(|a| pod.host_ports.iter().any(|b| conflict(a, b)))
            }
            _ => false,
        }
    }
}

fn conflict(a: &HostPort, b: &HostPort) -> bool {
    let any = |ip: &str| ip == "0.0.0.0" || ip == "::";
    a.port == b.port && a.protocol == b.protocol && (any(&a.ip) || any(&b.ip) || a.ip == b.ip)
}

impl PreFilter for NodePorts {
    fn pre_filter(
        &self,
        _: &mut CycleState,
        pod: &PodView,
        _: &Snapshot,
    ) -> Result<PreFilterResult, Rejection> {
        Ok(if pod.host_ports.is_empty() { PreFilterResult::Skip } else { PreFilterResult::All })
    }
}

impl Filter for NodePorts {
    fn filter(&self, _: &CycleState, pod: &PodView, node: &NodeInfo) -> Result<(), Rejection> {
        if node.with_host_ports == 0 {
            return Ok(());
        }
        let taken = node
            .pods
            .iter()
            .flat_map(|p| p.host_ports.iter())
            .any(|used| pod.host_ports.iter().any(|wanted| conflict(used, wanted)));
        if taken {
            return Err(Rejection::unschedulable(
                self.name(),
                "node(s) didn't have free ports for the requested pod ports",
            ));
        }
        Ok(())
    }
}
