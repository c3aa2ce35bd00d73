//! What the scheduler and the controllers read of a pod: a few hundred bytes instead of a typed Pod's thirty thousand.

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::{NodeAffinity, Pod, PodSpec, PodStatus, TopologySpreadConstraint};

use super::meta::{HasMeta, Labels, Meta};
use super::resources::{Resources, pod_nonzero_requests, pod_requests};
use super::selector::{Selector, SelectorError};

/// `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PodPhase {
    #[default]
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

impl PodPhase {
    fn new(text: Option<&str>) -> Self {
        match text {
            Some("Running") => PodPhase::Running,
            Some("Succeeded") => PodPhase::Succeeded,
            Some("Failed") => PodPhase::Failed,
            Some("Unknown") => PodPhase::Unknown,
            _ => PodPhase::Pending,
        }
    }

    /// Succeeded or Failed.
    pub fn is_terminal(self) -> bool {
        matches!(self, PodPhase::Succeeded | PodPhase::Failed)
    }
}

/// A taint's effect; `Unknown` is kept so that nothing is treated as something it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaintEffect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
    Unknown,
}

impl TaintEffect {
    /// From the API's text.
    pub fn new(text: &str) -> Self {
        match text {
            "NoSchedule" => TaintEffect::NoSchedule,
            "PreferNoSchedule" => TaintEffect::PreferNoSchedule,
            "NoExecute" => TaintEffect::NoExecute,
            _ => TaintEffect::Unknown,
        }
    }
}

/// A node's taint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    pub key: Box<str>,
    pub value: Box<str>,
    pub effect: TaintEffect,
    pub added: Option<Timestamp>,
}

/// How a toleration compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TolerationOp {
    Equal,
    Exists,
    /// An operator this release does not know; tolerates nothing.
    Unknown,
}

/// A pod's toleration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Toleration {
    pub key: Box<str>,
    pub op: TolerationOp,
    pub value: Box<str>,
    /// `None`: every effect.
    pub effect: Option<TaintEffect>,
    pub seconds: Option<i64>,
}

impl Toleration {
    fn new(toleration: &core::Toleration) -> Self {
        Toleration {
            key: toleration.key.as_deref().unwrap_or_default().into(),
            op: match toleration.operator.as_deref() {
                None | Some("" | "Equal") => TolerationOp::Equal,
                Some("Exists") => TolerationOp::Exists,
                Some(_) => TolerationOp::Unknown,
            },
            value: toleration.value.as_deref().unwrap_or_default().into(),
            effect: toleration.effect.as_deref().filter(|e| !e.is_empty()).map(TaintEffect::new),
            seconds: toleration.toleration_seconds,
        }
    }

    /// Whether the taint is tolerated (`Toleration.ToleratesTaint`).
    pub fn tolerates(&self, taint: &Taint) -> bool {
        if self.effect.is_some_and(|effect| effect != taint.effect)
            || (!self.key.is_empty() && self.key != taint.key)
        {
            return false;
        }
        match self.op {
            TolerationOp::Equal => !self.key.is_empty() && self.value == taint.value,
            TolerationOp::Exists => true,
            TolerationOp::Unknown => false,
        }
    }
}

/// The pair DefaultTolerationSeconds admission adds; shared, since nearly every pod has just these.
static DEFAULT_TOLERATIONS: LazyLock<Arc<[Toleration]>> = LazyLock::new(|| {
    ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
        .into_iter()
        .map(|key| Toleration {
            key: key.into(),
            op: TolerationOp::Exists,
            value: "".into(),
            effect: Some(TaintEffect::NoExecute),
            seconds: Some(300),
        })
        .collect()
});

/// A host port in use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    pub ip: Box<str>,
    pub port: u16,
    pub protocol: Box<str>,
}

/// A claim that a volume of a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimUse {
    pub name: Box<str>,
    /// An ephemeral volume's: the pod's only if the pod controls it.
    pub ephemeral: bool,
}

/// A container port with a name, which services can target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    pub name: Box<str>,
    pub port: i32,
    pub protocol: Box<str>,
}

/// A compiled pod affinity term.
#[derive(Clone, Debug, PartialEq)]
pub struct PodTerm {
    pub selector: Selector,
    /// The namespaces named, or the pod's own when neither names nor a selector are given.
    pub namespaces: Box<[Box<str>]>,
    pub namespace_selector: Selector,
    pub topology_key: Box<str>,
    /// 0 for required terms.
    pub weight: i32,
}

/// A pod's affinity and anti-affinity to other pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodAffinity {
    pub required: Vec<PodTerm>,
    pub preferred: Vec<PodTerm>,
    pub anti_required: Vec<PodTerm>,
    pub anti_preferred: Vec<PodTerm>,
}

/// What is read only until the pod has a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pending {
    pub node_selector: Labels,
    pub node_affinity: Option<NodeAffinity>,
    pub spread: Vec<TopologySpreadConstraint>,
    pub gates: Vec<Box<str>>,
    /// Images of all containers.
    pub images: Vec<Box<str>>,
    pub container_count: usize,
    /// Names of the claims its volumes name.
    pub claims: Vec<Box<str>>,
    /// Things asked for that no plugin decides yet, as texts for the condition.
    pub unsupported: Vec<Box<str>>,
    /// `PreemptLowerPriority` unless the pod says `Never`.
    pub may_preempt: bool,
    pub nominated_node: Option<Box<str>>,
    /// A selector the pod's terms hold that cannot be read.
    pub invalid: Option<SelectorError>,
}

/// A container that ended, for failure policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedContainer {
    pub name: Box<str>,
    pub exit_code: i32,
}

/// What is read only after the pod ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ended {
    pub containers: Vec<EndedContainer>,
    /// The latest end of a container, if all say so.
    pub finished: Option<Timestamp>,
    /// Conditions as (type, status).
    pub conditions: Vec<(Box<str>, Box<str>)>,
    pub reason: Box<str>,
}

/// Why the pod is not scheduled, as last written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotScheduled {
    pub reason: Box<str>,
    pub message: Box<str>,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodView {
    pub meta: Meta,
    /// Only the annotations in [`KEPT_ANNOTATIONS`].
    pub annotations: Labels,
    pub node: Option<Box<str>>,
    pub phase: PodPhase,
    pub host_network: bool,
    pub ready: bool,
    pub disruption_target: bool,
    /// When the Ready condition last changed.
    pub ready_changed: Option<Timestamp>,
    pub started: Option<Timestamp>,
    pub priority: i32,
    /// Restarts of the container that restarted most: (containers, sidecars).
    pub restarts: (u32, u32),
    /// Restarts of all containers together.
    pub restart_sum: u32,
    /// `None`: default-scheduler.
    pub scheduler: Option<Box<str>>,
    pub requests: Resources,
    /// CPU in thousandths and memory as scoring counts them.
    pub nonzero: (i64, i64),
    pub host_ports: Box<[HostPort]>,
    pub named_ports: Box<[NamedPort]>,
    pub hostname: Option<Box<str>>,
    pub subdomain: Option<Box<str>>,
    pub ips: Box<[Box<str>]>,
    pub tolerations: Arc<[Toleration]>,
    pub affinity: Option<Box<PodAffinity>>,
    pub not_scheduled: Option<Box<NotScheduled>>,
    pub pending: Option<Box<Pending>>,
    pub ended: Option<Box<Ended>>,
    /// `spec.terminationGracePeriodSeconds`.
    pub grace: i64,
    pub claims: Box<[ClaimUse]>,
    /// Being deleted with no grace left: the kubelet is done with it, or it was deleted by force.
    pub shut_down: bool,
}

impl HasMeta for PodView {
    fn meta(&self) -> &Meta {
        &self.meta
    }
}

/// The annotations that scheduler or controllers read.
pub const KEPT_ANNOTATIONS: &[&str] = &[
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-index-failure-count",
    "batch.kubernetes.io/job-index-ignored-failure-count",
    "controller.kubernetes.io/pod-deletion-cost",
    "endpoints.kubernetes.io/hostname",
    "kubernetes.io/config.mirror",
];

impl PodView {
    /// Projects a pod. What is read here of a pod is what [`PodText`](super::pod_text::PodText) reads of its text.
    pub fn new(pod: &Pod) -> Self {
        let meta = Meta::new(&pod.metadata);
        let empty_spec = PodSpec::default();
        let empty_status = PodStatus::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty_spec);
        let status = pod.status.as_ref().unwrap_or(&empty_status);
        let phase = PodPhase::new(status.phase.as_deref());
        let node = spec.node_name.as_deref().filter(|n| !n.is_empty()).map(Into::into);
        let nonzero = pod_nonzero_requests(spec);
        let condition = |name: &str| status.conditions.iter().flatten().find(|c| c.type_ == name);
        let ready = condition("Ready");
        let mut invalid = None;
        let affinity = pod_affinity(spec, &meta, &mut invalid);
        let pending =
            (node.is_none() && !phase.is_terminal()).then(|| Box::new(pending(spec, status, invalid)));
        PodView {
            annotations: Labels::new(
                pod.metadata
                    .annotations
                    .iter()
                    .flatten()
                    .filter(|(k, _)| KEPT_ANNOTATIONS.contains(&k.as_str()))
                    .map(|(k, v)| (k.as_str(), v.as_str())),
            ),
            phase,
            host_network: spec.host_network.unwrap_or(false),
            ready: ready.is_some_and(|c| c.status == "True"),
            ready_changed: ready.and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0),
            disruption_target: condition("DisruptionTarget").is_some_and(|c| c.status == "True"),
            started: status.start_time.as_ref().map(|t| t.0),
            priority: spec.priority.unwrap_or(0),
            restarts: restarts(spec, status),
            restart_sum: status
                .init_container_statuses
                .iter()
                .flatten()
                .chain(status.container_statuses.iter().flatten())
                .map(|s| u32::try_from(s.restart_count).unwrap_or(0))
                .sum(),
            scheduler: spec
                .scheduler_name
                .as_deref()
                .filter(|n| !n.is_empty() && *n != "default-scheduler")
                .map(Into::into),
            requests: pod_requests(spec),
            nonzero: (nonzero.milli_cpu, nonzero.memory),
            host_ports: host_ports(spec),
            named_ports: named_ports(spec),
            hostname: spec.hostname.as_deref().filter(|n| !n.is_empty()).map(Into::into),
            subdomain: spec.subdomain.as_deref().filter(|n| !n.is_empty()).map(Into::into),
            ips: status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str().into()).collect(),
            tolerations: tolerations(spec),
            affinity,
            not_scheduled: condition("PodScheduled").filter(|c| c.status == "False").map(|c| {
                Box::new(NotScheduled {
                    reason: c.reason.as_deref().unwrap_or_default().into(),
                    message: c.message.as_deref().unwrap_or_default().into(),
                })
            }),
            pending,
            ended: phase.is_terminal().then(|| Box::new(ended(status))),
            grace: spec.termination_grace_period_seconds.unwrap_or(30),
            claims: claims(spec, &meta.name),
            shut_down: meta.deleted.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0),
            node,
            meta,
        }
    }

    /// Neither ended nor being deleted (`controller.IsPodActive`).
    pub fn is_active(&self) -> bool {
        !self.phase.is_terminal() && self.meta.deleted.is_none()
    }

    /// Ready for at least `min_ready_seconds` (`podutil.IsPodAvailable`).
    pub fn is_available(&self, min_ready_seconds: i32, now: Timestamp) -> bool {
        self.ready
            && (min_ready_seconds == 0
                || self.ready_changed.is_some_and(|t| {
                    t.as_second().saturating_add(i64::from(min_ready_seconds)) <= now.as_second()
                }))
    }
}

fn claims(spec: &PodSpec, pod: &str) -> Box<[ClaimUse]> {
    let of = |volume: &core::Volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(ClaimUse { name: claim.claim_name.as_str().into(), ephemeral: false }),
        (None, Some(_)) => Some(ClaimUse { name: format!("{pod}-{}", volume.name).into(), ephemeral: true }),
        (None, None) => None,
    };
    spec.volumes.iter().flatten().filter_map(of).collect()
}

fn tolerations(spec: &PodSpec) -> Arc<[Toleration]> {
    let all: Vec<Toleration> = spec.tolerations.iter().flatten().map(Toleration::new).collect();
    if all == **DEFAULT_TOLERATIONS { DEFAULT_TOLERATIONS.clone() } else { all.into() }
}

fn restarts(spec: &PodSpec, status: &PodStatus) -> (u32, u32) {
    let count = |n: i32| u32::try_from(n).unwrap_or(0);
    let regular =
        status.container_statuses.iter().flatten().map(|s| count(s.restart_count)).max().unwrap_or(0);
    let sidecar = |name: &str| {
        spec.init_containers
            .iter()
            .flatten()
            .any(|c| c.name == name && c.restart_policy.as_deref() == Some("Always"))
    };
    let sidecars = status
        .init_container_statuses
        .iter()
        .flatten()
        .filter(|s| sidecar(&s.name))
        .map(|s| count(s.restart_count))
        .max()
        .unwrap_or(0);
    (regular, sidecars)
}

fn all_ports(spec: &PodSpec) -> impl Iterator<Item = &core::ContainerPort> {
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten())
}

fn host_ports(spec: &PodSpec) -> Box<[HostPort]> {
    all_ports(spec)
        .filter_map(|port| {
            let number = u16::try_from(port.host_port?).ok().filter(|n| *n > 0)?;
            Some(HostPort {
                ip: port.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0").into(),
                port: number,
                protocol: port.protocol.as_deref().filter(|p| !p.is_empty()).unwrap_or("TCP").into(),
            })
        })
        .collect()
}

fn named_ports(spec: &PodSpec) -> Box<[NamedPort]> {
    all_ports(spec)
        .filter_map(|port| {
            Some(NamedPort {
                name: port.name.as_deref().filter(|n| !n.is_empty())?.into(),
                port: port.container_port,
                protocol: port.protocol.as_deref().filter(|p| !p.is_empty()).unwrap_or("TCP").into(),
            })
        })
        .collect()
}

fn pod_affinity(
    spec: &PodSpec,
    meta: &Meta,
    invalid: &mut Option<SelectorError>,
) -> Option<Box<PodAffinity>> {
    let affinity = spec.affinity.as_ref()?;
    let mut result = PodAffinity::default();
    let mut compile = |term: &core::PodAffinityTerm, weight: i32| {
        compile_term(term, weight, meta).map_err(|error| *invalid = Some(error)).ok()
    };
    if let Some(pod) = &affinity.pod_affinity {
        result.required = pod
            .required_during_scheduling_ignored_during_execution
            .iter()
            .flatten()
            .filter_map(|t| compile(t, 0))
            .collect();
        result.preferred = pod
            .preferred_during_scheduling_ignored_during_execution
            .iter()
            .flatten()
            .filter_map(|t| compile(&t.pod_affinity_term, t.weight))
            .collect();
    }
    if let Some(anti) = &affinity.pod_anti_affinity {
        result.anti_required = anti
            .required_during_scheduling_ignored_during_execution
            .iter()
            .flatten()
            .filter_map(|t| compile(t, 0))
            .collect();
        result.anti_preferred = anti
            .preferred_during_scheduling_ignored_during_execution
            .iter()
            .flatten()
            .filter_map(|t| compile(&t.pod_affinity_term, t.weight))
            .collect();
    }
    (result != PodAffinity::default()).then(|| Box::new(result))
}

fn compile_term(term: &core::PodAffinityTerm, weight: i32, meta: &Meta) -> Result<PodTerm, SelectorError> {
    let mut selector = Selector::from_label_selector(term.label_selector.as_ref())?;
    for key in term.match_label_keys.iter().flatten() {
        if let Some(value) = meta.labels.get(key) {
            selector = selector.and_equal(key, value);
        }
    }
    for key in term.mismatch_label_keys.iter().flatten() {
        if let Some(value) = meta.labels.get(key) {
            selector = selector.and_not_equal(key, value);
        }
    }
    let named: Vec<Box<str>> = term.namespaces.iter().flatten().map(|n| n.as_str().into()).collect();
    let own = named.is_empty() && term.namespace_selector.is_none();
    Ok(PodTerm {
        selector,
        namespaces: if own { Box::new([meta.namespace.clone()]) } else { named.into() },
        namespace_selector: Selector::from_label_selector(term.namespace_selector.as_ref())?,
        topology_key: term.topology_key.as_str().into(),
        weight,
    })
}

fn pending(spec: &PodSpec, status: &PodStatus, invalid: Option<SelectorError>) -> Pending {
    let containers = || spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut claims: Vec<Box<str>> = Vec::new();
    let mut unsupported: Vec<Box<str>> = Vec::new();
    for volume in spec.volumes.iter().flatten() {
        if let Some(claim) = &volume.persistent_volume_claim {
            claims.push(claim.claim_name.as_str().into());
        }
        if volume.ephemeral.is_some() {
            unsupported.push(format!("generic ephemeral volume {:?}", volume.name).into());
        }
    }
    for claim in spec.resource_claims.iter().flatten() {
        unsupported.push(format!("resource claim {:?}", claim.name).into());
    }
    Pending {
        node_selector: Labels::from_map(spec.node_selector.as_ref()),
        node_affinity: spec.affinity.as_ref().and_then(|a| a.node_affinity.clone()),
        spread: spec.topology_spread_constraints.clone().unwrap_or_default(),
        gates: spec.scheduling_gates.iter().flatten().map(|g| g.name.as_str().into()).collect(),
        images: containers().filter_map(|c| c.image.as_deref()).map(Into::into).collect(),
        container_count: containers().count(),
        claims,
        unsupported,
        may_preempt: spec.preemption_policy.as_deref() != Some("Never"),
        nominated_node: status.nominated_node_name.as_deref().filter(|n| !n.is_empty()).map(Into::into),
        invalid,
    }
}

fn ended(status: &PodStatus) -> Ended {
    let statuses =
        || status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    Ended {
        containers: statuses()
            .filter_map(|s| {
                let terminated = s.state.as_ref()?.terminated.as_ref()?;
                Some(EndedContainer { name: s.name.as_str().into(), exit_code: terminated.exit_code })
            })
            .collect(),
        finished: statuses()
            .filter_map(|s| Some(s.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0))
            .max(),
        conditions: status
            .conditions
            .iter()
            .flatten()
            .map(|c| (c.type_.as_str().into(), c.status.as_str().into()))
            .collect(),
        reason: status.reason.as_deref().unwrap_or_default().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(json: serde_json::Value) -> PodView {
        PodView::new(&serde_json::from_value(json).unwrap())
    }

    #[test]
    fn the_common_pod_shares_its_tolerations() {
        let json = serde_json::json!({"metadata": {"name": "a"}, "spec": {"containers": [], "tolerations": [
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]}});
        assert!(Arc::ptr_eq(&view(json.clone()).tolerations, &view(json).tolerations));
    }

    #[test]
    fn tolerations_follow_upstream() {
        let taint =
            Taint { key: "k".into(), value: "v".into(), effect: TaintEffect::NoSchedule, added: None };
        let check = |json: serde_json::Value, expected: bool| {
            let toleration = Toleration::new(&serde_json::from_value(json.clone()).unwrap());
            assert_eq!(toleration.tolerates(&taint), expected, "{json}");
        };
        check(serde_json::json!({"operator": "Exists"}), true);
        check(serde_json::json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false);
        check(serde_json::json!({"key": "k", "value": "v"}), true);
        check(serde_json::json!({"key": "k", "operator": "Equal", "value": "w"}), false);
        check(serde_json::json!({"key": "other", "operator": "Exists"}), false);
        check(serde_json::json!({"key": "k", "operator": "Gt", "value": "1"}), false);
    }

    #[test]
    fn availability_waits_for_min_ready_seconds() {
        let pod = view(serde_json::json!({"metadata": {"name": "a"}, "status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}));
        let at = |s: &str| s.parse::<Timestamp>().unwrap();
        assert!(!pod.is_available(10, at("2026-01-01T00:00:09Z")));
        assert!(pod.is_available(10, at("2026-01-01T00:00:10Z")));
        assert!(pod.is_available(0, at("2026-01-01T00:00:00Z")));
    }

    #[test]
    fn what_only_pending_pods_need_is_dropped_at_binding() {
        let mut json = serde_json::json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
        assert!(view(json.clone()).pending.is_some());
        json["spec"]["nodeName"] = "n".into();
        assert!(view(json).pending.is_none());
    }
}
