//! What of a pod's text a [`PodView`](super::PodView) is made of, and no more: most of a pod says how it is run, which is its
//! kubelet's to read. Skipping a member's text costs a tenth of making it a value.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use crate::informer::Reading;
use crate::lean::resource_of;

/// A pod of which only that was read; the rest of it is empty.
#[derive(Clone, Debug)]
pub struct PodText(pub Pod);

resource_of!(PodText, Pod);

impl Reading<Pod> for PodText {
    fn into_object(self) -> Pod {
        self.0
    }
}

impl<'de> Deserialize<'de> for PodText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        Ok(PodText(Pod {
            metadata: text.metadata.unwrap_or_default().into(),
            spec: text.spec.map(Into::into),
            status: text.status.map(Into::into),
        }))
    }
}

#[derive(Deserialize)]
struct Text {
    metadata: Option<Metadata>,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    finalizers: Option<Vec<String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

impl From<Metadata> for ObjectMeta {
    fn from(text: Metadata) -> ObjectMeta {
        ObjectMeta {
            name: text.name,
            namespace: text.namespace,
            uid: text.uid,
            resource_version: text.resource_version,
            generation: text.generation,
            creation_timestamp: text.creation_timestamp,
            deletion_timestamp: text.deletion_timestamp,
            deletion_grace_period_seconds: text.deletion_grace_period_seconds,
            labels: text.labels,
            annotations: text.annotations,
            finalizers: text.finalizers,
            owner_references: text.owner_references,
            ..ObjectMeta::default()
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    affinity: Option<core::Affinity>,
    containers: Option<Vec<Container>>,
    host_network: Option<bool>,
    hostname: Option<String>,
    init_containers: Option<Vec<Container>>,
    node_name: Option<String>,
    node_selector: Option<BTreeMap<String, String>>,
    overhead: Option<BTreeMap<String, Quantity>>,
    preemption_policy: Option<String>,
    priority: Option<i32>,
    resource_claims: Option<Vec<core::PodResourceClaim>>,
    resources: Option<core::ResourceRequirements>,
    scheduler_name: Option<String>,
    scheduling_gates: Option<Vec<core::PodSchedulingGate>>,
    subdomain: Option<String>,
    termination_grace_period_seconds: Option<i64>,
    tolerations: Option<Vec<core::Toleration>>,
    topology_spread_constraints: Option<Vec<core::TopologySpreadConstraint>>,
    volumes: Option<Vec<Volume>>,
}

impl From<Spec> for core::PodSpec {
    fn from(text: Spec) -> core::PodSpec {
        core::PodSpec {
            affinity: text.affinity,
            containers: all(text.containers).unwrap_or_default(),
            host_network: text.host_network,
            hostname: text.hostname,
            init_containers: all(text.init_containers),
            node_name: text.node_name,
            node_selector: text.node_selector,
            overhead: text.overhead,
            preemption_policy: text.preemption_policy,
            priority: text.priority,
            resource_claims: text.resource_claims,
            resources: text.resources,
            scheduler_name: text.scheduler_name,
            scheduling_gates: text.scheduling_gates,
            subdomain: text.subdomain,
            termination_grace_period_seconds: text.termination_grace_period_seconds,
            tolerations: text.tolerations,
            topology_spread_constraints: text.topology_spread_constraints,
            volumes: all(text.volumes),
            ..core::PodSpec::default()
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: Option<String>,
    image: Option<String>,
    ports: Option<Vec<core::ContainerPort>>,
    resources: Option<core::ResourceRequirements>,
    restart_policy: Option<String>,
}

impl From<Container> for core::Container {
    fn from(text: Container) -> core::Container {
        core::Container {
            name: text.name.unwrap_or_default(),
            image: text.image,
            ports: text.ports,
            resources: text.resources,
            restart_policy: text.restart_policy,
            ..core::Container::default()
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    name: Option<String>,
    persistent_volume_claim: Option<core::PersistentVolumeClaimVolumeSource>,
    /// That there is one is all that counts.
    ephemeral: Option<IgnoredAny>,
}

impl From<Volume> for core::Volume {
    fn from(text: Volume) -> core::Volume {
        core::Volume {
            name: text.name.unwrap_or_default(),
            persistent_volume_claim: text.persistent_volume_claim,
            ephemeral: text.ephemeral.map(|_| core::EphemeralVolumeSource::default()),
            ..core::Volume::default()
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    conditions: Option<Vec<core::PodCondition>>,
    container_statuses: Option<Vec<ContainerStatus>>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
    nominated_node_name: Option<String>,
    phase: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<core::PodIP>>,
    reason: Option<String>,
    start_time: Option<Time>,
}

impl From<Status> for core::PodStatus {
    fn from(text: Status) -> core::PodStatus {
        core::PodStatus {
            conditions: text.conditions,
            container_statuses: all(text.container_statuses),
            init_container_statuses: all(text.init_container_statuses),
            nominated_node_name: text.nominated_node_name,
            phase: text.phase,
            pod_ips: text.pod_ips,
            reason: text.reason,
            start_time: text.start_time,
            ..core::PodStatus::default()
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerStatus {
    name: Option<String>,
    restart_count: Option<i32>,
    state: Option<core::ContainerState>,
}

impl From<ContainerStatus> for core::ContainerStatus {
    fn from(text: ContainerStatus) -> core::ContainerStatus {
        core::ContainerStatus {
            name: text.name.unwrap_or_default(),
            restart_count: text.restart_count.unwrap_or_default(),
            state: text.state,
            ..core::ContainerStatus::default()
        }
    }
}

fn all<T, K: From<T>>(texts: Option<Vec<T>>) -> Option<Vec<K>> {
    texts.map(|texts| texts.into_iter().map(K::from).collect())
}

#[cfg(test)]
mod tests {
    use super::super::PodView;
    use super::*;
    use serde_json::{Value, json};

    /// Pods that say all that a view can tell: a pending one, one that runs and one that has ended.
    fn pods() -> [Value; 3] {
        let term = json!({ "labelSelector": { "matchLabels": { "app": "a" } }, "topologyKey": "zone" });
        let containers = json!([{
            "name": "c", "image": "i", "command": ["x"], "env": [{ "name": "A", "value": "\"}" }],
            "ports": [{ "name": "web", "containerPort": 80, "hostPort": 8080, "hostIP": "192.0.2.1", "protocol": "UDP" }],
            "resources": { "requests": { "cpu": "100m" }, "limits": { "memory": "1Gi", "example.com/gpu": "2" } },
            "livenessProbe": { "httpGet": { "port": "web" } },
        }]);
        let pending = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7", "generation": 3,
                "creationTimestamp": "2026-01-01T00:00:00Z", "labels": { "app": "a" }, "finalizers": ["f/f"],
                "annotations": { "controller.kubernetes.io/pod-deletion-cost": "5", "other": "x" },
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "o", "controller": true }],
                "managedFields": [{ "manager": "m", "fieldsV1": { "f:spec": {} } }],
            },
            "spec": {
                "containers": containers,
                "initContainers": [
                    { "name": "side", "image": "s", "restartPolicy": "Always", "resources": { "requests": { "cpu": "50m" } },
                      "ports": [{ "name": "side", "containerPort": 81 }] },
                    { "name": "init", "image": "j", "resources": { "requests": { "memory": "2Gi" } } },
                ],
                "affinity": {
                    "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                        { "matchExpressions": [{ "key": "k", "operator": "Exists" }] }] } },
                    "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] },
                    "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 3, "podAffinityTerm": term }] },
                },
                "hostNetwork": true, "hostname": "h", "subdomain": "s", "nodeSelector": { "disk": "ssd" },
                "overhead": { "cpu": "10m" }, "preemptionPolicy": "Never", "priority": 9, "schedulerName": "mine",
                "resourceClaims": [{ "name": "claim", "resourceClaimName": "x" }],
                "resources": { "requests": { "cpu": "1" } },
                "schedulingGates": [{ "name": "gate" }], "terminationGracePeriodSeconds": 7,
                "tolerations": [{ "key": "t", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 4 }],
                "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule" }],
                "volumes": [
                    { "name": "v", "persistentVolumeClaim": { "claimName": "p", "readOnly": true } },
                    { "name": "e", "ephemeral": { "volumeClaimTemplate": { "spec": {} } } },
                    { "name": "d", "emptyDir": {} },
                ],
            },
            "status": {
                "phase": "Pending", "nominatedNodeName": "k2",
                "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1" }],
            },
        });
        let statuses = |state: Value| json!([{ "name": "c", "restartCount": 3, "image": "i", "imageID": "x", "ready": true, "state": state }]);
        let mut running = pending.clone();
        running["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z".into();
        running["metadata"]["deletionGracePeriodSeconds"] = 0.into();
        running["spec"]["nodeName"] = "k1".into();
        running["status"] = json!({
            "phase": "Running", "startTime": "2026-01-01T00:00:05Z", "podIPs": [{ "ip": "192.0.2.7" }, { "ip": "2001:db8::7" }],
            "conditions": [
                { "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:09Z" },
                { "type": "DisruptionTarget", "status": "True" },
            ],
            "containerStatuses": statuses(json!({ "running": { "startedAt": "2026-01-01T00:00:06Z" } })),
            "initContainerStatuses": [{ "name": "side", "restartCount": 4, "image": "s", "imageID": "y", "ready": true }],
        });
        let mut ended = running.clone();
        ended["status"]["phase"] = "Failed".into();
        ended["status"]["reason"] = "Evicted".into();
        ended["status"]["containerStatuses"] =
            statuses(json!({ "terminated": { "exitCode": 3, "finishedAt": "2026-01-01T00:01:00Z" } }));
        [pending, running, ended]
    }

    #[test]
    fn a_view_of_what_is_read_is_a_view_of_the_pod() {
        for pod in pods() {
            let text = pod.to_string();
            let read: PodText = serde_json::from_str(&text).expect("a pod");
            let whole: Pod = serde_json::from_str(&text).expect("a pod");
            assert_eq!(PodView::new(&read.0), PodView::new(&whole), "{text}");
            assert_eq!(read.meta().resource_version.as_deref(), Some("7"));
            assert!(
                read.0.spec.expect("a spec").containers[0].env.is_none(),
                "what is not needed is not read"
            );
        }
        let bare: PodText =
            serde_json::from_value(json!({ "metadata": { "name": "a" }, "spec": null })).expect("a pod");
        assert_eq!(bare.into_object().metadata.name.as_deref(), Some("a"));
        assert!(serde_json::from_value::<PodText>(json!({ "metadata": { "name": 4 } })).is_err());
    }
}
