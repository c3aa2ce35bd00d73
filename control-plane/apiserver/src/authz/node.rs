//! The node authorizer: a kubelet reaches what the pods bound to its node refer to, its own objects, and what all
//! kubelets need alike.

use super::bootstrap::node_rules;
use super::rule::PolicyRule;
use super::{Attributes, Authorizer, Decision};
use crate::authn::UserInfo;
use ahash::{AHashMap, AHashSet};
use keelson_base::consts::identity;
use parking_lot::RwLock;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

const MIRROR: &str = "kubernetes.io/config.mirror";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The node that a user is: `None` if it is no kubelet, an empty name if it is one that says not which.
pub fn node_name(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix(identity::NODE_USER_PREFIX)?;
    user.in_group(identity::NODES_GROUP).then_some(name)
}

/// Kinds of objects that pods refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Target {
    Secret,
    ConfigMap,
    Claim,
    ResourceClaim,
    ServiceAccount,
}

type Key = (Target, String, String);

/// What a pod says of itself and of others. Deserializes from the pod's JSON and skips the rest.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Pod {
    metadata: PodMeta,
    spec: PodSpec,
    status: PodStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodMeta {
    annotations: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    node_name: String,
    service_account_name: String,
    image_pull_secrets: Vec<Named>,
    volumes: Vec<Volume>,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    ephemeral_containers: Vec<Container>,
    resource_claims: Vec<PodClaim>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodStatus {
    resource_claim_statuses: Vec<ClaimStatus>,
    extended_resource_claim_status: Option<ClaimStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ClaimStatus {
    name: String,
    resource_claim_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodClaim {
    name: String,
    resource_claim_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Named {
    name: String,
    secret_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    env: Vec<Env>,
    env_from: Vec<EnvFrom>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Env {
    value_from: Option<ValueFrom>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ValueFrom {
    secret_key_ref: Option<Named>,
    config_map_key_ref: Option<Named>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct EnvFrom {
    secret_ref: Option<Named>,
    config_map_ref: Option<Named>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Volume {
    name: String,
    secret: Option<Named>,
    config_map: Option<Named>,
    projected: Option<Projected>,
    persistent_volume_claim: Option<ClaimSource>,
    ephemeral: Option<serde::de::IgnoredAny>,
    azure_file: Option<Named>,
    cephfs: Option<WithSecret>,
    cinder: Option<WithSecret>,
    flex_volume: Option<WithSecret>,
    rbd: Option<WithSecret>,
    scale_io: Option<WithSecret>,
    iscsi: Option<WithSecret>,
    storageos: Option<WithSecret>,
    csi: Option<CsiVolume>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WithSecret {
    secret_ref: Option<Named>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CsiVolume {
    node_publish_secret_ref: Option<Named>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ClaimSource {
    claim_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Projected {
    sources: Vec<Projection>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Projection {
    secret: Option<Named>,
    config_map: Option<Named>,
}

impl Pod {
    /// What the pod's node may read on its behalf.
    fn references(&self, namespace: &str, pod: &str) -> AHashSet<Key> {
        let mut keys = AHashSet::new();
        // A kubelet makes mirror pods itself: they must not give it anything.
        if self.metadata.annotations.contains_key(MIRROR) {
            return keys;
        }
        let mut add = |target, name: &str| {
            if !name.is_empty() {
                keys.insert((target, namespace.to_owned(), name.to_owned()));
            }
        };
        let spec = &self.spec;
        add(Target::ServiceAccount, &spec.service_account_name);
        for secret in &spec.image_pull_secrets {
            add(Target::Secret, &secret.name);
        }
        for container in spec.containers.iter().chain(&spec.init_containers).chain(&spec.ephemeral_containers)
        {
            for from in container.env.iter().filter_map(|e| e.value_from.as_ref()) {
                add(Target::Secret, name_of(&from.secret_key_ref));
                add(Target::ConfigMap, name_of(&from.config_map_key_ref));
            }
            for from in &container.env_from {
                add(Target::Secret, name_of(&from.secret_ref));
                add(Target::ConfigMap, name_of(&from.config_map_ref));
            }
        }
        for volume in &spec.volumes {
            volume.references(pod, &mut add);
        }
        for claim in &spec.resource_claims {
            let status = self.status.resource_claim_statuses.iter().find(|s| s.name == claim.name);
            let made = status.and_then(|s| s.resource_claim_name.as_deref());
            add(Target::ResourceClaim, claim.resource_claim_name.as_deref().or(made).unwrap_or_default());
        }
        if let Some(extended) = &self.status.extended_resource_claim_status {
            add(Target::ResourceClaim, extended.resource_claim_name.as_deref().unwrap_or_default());
        }
        keys
    }
}

fn name_of(named: &Option<Named>) -> &str {
    named.as_ref().map_or("", |n| &n.name)
}

impl Volume {
    fn references(&self, pod: &str, add: &mut impl FnMut(Target, &str)) {
        if let Some(secret) = &self.secret {
            add(Target::Secret, &secret.secret_name);
        }
        if let Some(secret) = &self.azure_file {
            add(Target::Secret, &secret.secret_name);
        }
        add(Target::ConfigMap, name_of(&self.config_map));
        for source in self.projected.iter().flat_map(|p| &p.sources) {
            add(Target::Secret, name_of(&source.secret));
            add(Target::ConfigMap, name_of(&source.config_map));
        }
        let with_secret = [
            &self.cephfs,
            &self.cinder,
            &self.flex_volume,
            &self.rbd,
            &self.scale_io,
            &self.iscsi,
            &self.storageos,
        ];
        for volume in with_secret.into_iter().flatten() {
            add(Target::Secret, name_of(&volume.secret_ref));
        }
        if let Some(csi) = &self.csi {
            add(Target::Secret, name_of(&csi.node_publish_secret_ref));
        }
        if let Some(claim) = &self.persistent_volume_claim {
            add(Target::Claim, &claim.claim_name);
        } else if self.ephemeral.is_some() {
            add(Target::Claim, &format!("{pod}-{}", self.name));
        }
    }
}

/// What of a PersistentVolume matters: whose it is and which secrets mounting it takes.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Pv {
    spec: PvSpec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PvSpec {
    claim_ref: Option<SecretRef>,
    azure_file: Option<AzurePv>,
    cephfs: Option<PvWithSecret>,
    cinder: Option<PvWithSecret>,
    flex_volume: Option<PvWithSecret>,
    rbd: Option<PvWithSecret>,
    scale_io: Option<PvWithSecret>,
    iscsi: Option<PvWithSecret>,
    storageos: Option<PvWithSecret>,
    csi: Option<PvCsi>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SecretRef {
    name: String,
    namespace: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AzurePv {
    secret_name: String,
    secret_namespace: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PvWithSecret {
    secret_ref: Option<SecretRef>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PvCsi {
    // The controller's secrets are no business of a kubelet.
    node_publish_secret_ref: Option<SecretRef>,
    node_stage_secret_ref: Option<SecretRef>,
    node_expand_secret_ref: Option<SecretRef>,
}

impl PvSpec {
    fn secrets(&self, claim: &SecretRef) -> AHashSet<(String, String)> {
        let mut found = AHashSet::new();
        let mut add = |namespace: &str, name: &str| {
            if !name.is_empty() {
                let namespace = if namespace.is_empty() { &claim.namespace } else { namespace };
                found.insert((namespace.to_owned(), name.to_owned()));
            }
        };
        if let Some(azure) = &self.azure_file {
            add(azure.secret_namespace.as_deref().unwrap_or_default(), &azure.secret_name);
        }
        let with_secret = [
            &self.cephfs,
            &self.cinder,
            &self.flex_volume,
            &self.rbd,
            &self.scale_io,
            &self.iscsi,
            &self.storageos,
        ];
        for secret in with_secret.into_iter().flatten().filter_map(|v| v.secret_ref.as_ref()) {
            add(&secret.namespace, &secret.name);
        }
        if let Some(csi) = &self.csi {
            let refs =
                [&csi.node_publish_secret_ref, &csi.node_stage_secret_ref, &csi.node_expand_secret_ref];
            for secret in refs.into_iter().flatten() {
                add(&secret.namespace, &secret.name);
            }
        }
        found
    }
}

/// `spec.nodeName` of VolumeAttachments and ResourceSlices.
#[derive(Default, Deserialize)]
#[serde(default)]
struct OnNode {
    spec: OnNodeSpec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OnNodeSpec {
    node_name: Option<String>,
}

/// Whether a pod's JSON may name a node: without the member there is none, whatever else the text is.
fn may_be_bound(json: &[u8]) -> bool {
    memchr::memmem::find(json, b"\"nodeName\"").is_some()
}

struct BoundPod {
    node: String,
    references: AHashSet<Key>,
}

struct BoundVolume {
    claim: (String, String),
    secrets: AHashSet<(String, String)>,
}

#[derive(Default)]
struct Graph {
    pods: AHashMap<(String, String), BoundPod>,
    /// How many pods of which node refer to an object.
    nodes: AHashMap<Key, AHashMap<String, usize>>,
    volumes: AHashMap<String, BoundVolume>,
    volumes_of_secret: AHashMap<(String, String), AHashSet<String>>,
    attachments: AHashMap<String, String>,
    slices: AHashMap<String, String>,
}

impl Graph {
    fn remove_pod(&mut self, key: &(String, String)) {
        let Some(old) = self.pods.remove(key) else { return };
        for reference in old.references {
            let Some(nodes) = self.nodes.get_mut(&reference) else { continue };
            if let Some(count) = nodes.get_mut(&old.node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&old.node);
                }
            }
            if nodes.is_empty() {
                self.nodes.remove(&reference);
            }
        }
    }

    fn remove_volume(&mut self, name: &str) {
        let Some(old) = self.volumes.remove(name) else { return };
        for secret in old.secrets {
            if let Some(volumes) = self.volumes_of_secret.get_mut(&secret) {
                volumes.remove(name);
                if volumes.is_empty() {
                    self.volumes_of_secret.remove(&secret);
                }
            }
        }
    }

    fn refers(&self, node: &str, target: Target, namespace: &str, name: &str) -> bool {
        let key = (target, namespace.to_owned(), name.to_owned());
        self.nodes.get(&key).is_some_and(|nodes| nodes.contains_key(node))
    }

    fn volume_reached(&self, node: &str, volume: &str) -> bool {
        let Some(volume) = self.volumes.get(volume) else { return false };
        self.refers(node, Target::Claim, &volume.claim.0, &volume.claim.1)
    }
}

/// What refers to what, kept current by whoever follows the watch cache. An update must be applied here before any
/// watcher sees it: a kubelet asks for a pod's secrets as soon as it knows of the pod.
#[derive(Default)]
pub struct NodeGraph {
    graph: RwLock<Graph>,
}

impl NodeGraph {
    /// A pod was added or changed (its JSON) or removed (`None`).
    pub fn pod(&self, namespace: &str, name: &str, object: Option<&[u8]>) -> Result<(), serde_json::Error> {
        let key = (namespace.to_owned(), name.to_owned());
        // Every pod is written without a node first; nothing has to be read of it then.
        let object = object.filter(|json| may_be_bound(json));
        let pod =
            object.map(serde_json::from_slice::<Pod>).transpose()?.filter(|p| !p.spec.node_name.is_empty());
        let Some(pod) = pod else {
            self.graph.write().remove_pod(&key);
            return Ok(());
        };
        let references = pod.references(namespace, name);
        let same = |old: &BoundPod| old.node == pod.spec.node_name && old.references == references;
        if self.graph.read().pods.get(&key).is_some_and(same) {
            return Ok(());
        }
        let mut graph = self.graph.write();
        graph.remove_pod(&key);
        for reference in &references {
            let nodes = graph.nodes.entry(reference.clone()).or_default();
            *nodes.entry(pod.spec.node_name.clone()).or_default() += 1;
        }
        graph.pods.insert(key, BoundPod { node: pod.spec.node_name, references });
        Ok(())
    }

    /// A PersistentVolume was added or changed or removed.
    pub fn persistent_volume(&self, name: &str, object: Option<&[u8]>) -> Result<(), serde_json::Error> {
        let volume = object.map(serde_json::from_slice::<Pv>).transpose()?;
        let mut graph = self.graph.write();
        graph.remove_volume(name);
        let Some(Pv { spec }) = volume else { return Ok(()) };
        let Some(claim) = &spec.claim_ref else { return Ok(()) };
        let secrets = spec.secrets(claim);
        for secret in &secrets {
            graph.volumes_of_secret.entry(secret.clone()).or_default().insert(name.to_owned());
        }
        let claim = (claim.namespace.clone(), claim.name.clone());
        graph.volumes.insert(name.to_owned(), BoundVolume { claim, secrets });
        Ok(())
    }

    /// A VolumeAttachment was added or changed or removed.
    pub fn volume_attachment(&self, name: &str, object: Option<&[u8]>) -> Result<(), serde_json::Error> {
        let node = on_node(object)?;
        set(&mut self.graph.write().attachments, name, node);
        Ok(())
    }

    /// A ResourceSlice was added or changed or removed.
    pub fn resource_slice(&self, name: &str, object: Option<&[u8]>) -> Result<(), serde_json::Error> {
        let node = on_node(object)?;
        set(&mut self.graph.write().slices, name, node);
        Ok(())
    }
}

fn on_node(object: Option<&[u8]>) -> Result<Option<String>, serde_json::Error> {
    Ok(object.map(serde_json::from_slice::<OnNode>).transpose()?.and_then(|o| o.spec.node_name))
}

fn set(map: &mut AHashMap<String, String>, name: &str, node: Option<String>) {
    match node.filter(|n| !n.is_empty()) {
        Some(node) => {
            map.insert(name.to_owned(), node);
        }
        None => {
            map.remove(name);
        }
    }
}

/// See the module's text.
pub struct NodeAuthorizer {
    graph: Arc<NodeGraph>,
    rules: Vec<PolicyRule>,
}

/// What a decision about a node is made of.
struct Request<'a> {
    node: &'a str,
    attributes: &'a Attributes,
    graph: &'a NodeGraph,
}

type Opinion = Result<(), String>;

fn refuse(reason: &str) -> Opinion {
    Err(reason.to_owned())
}

impl NodeAuthorizer {
    /// Decides from `graph`.
    pub fn new(graph: Arc<NodeGraph>) -> NodeAuthorizer {
        NodeAuthorizer { graph, rules: node_rules() }
    }

    fn decide(&self, node: &str, attributes: &Attributes) -> Opinion {
        let request = Request { node, attributes, graph: &self.graph };
        let a = attributes;
        if a.is_resource {
            match (a.api_group.as_str(), a.resource.as_str()) {
                ("", "secrets") => return request.read(Target::Secret),
                ("", "configmaps") => return request.read(Target::ConfigMap),
                ("", "persistentvolumeclaims") if a.subresource == "status" => return request.claim_status(),
                ("", "persistentvolumeclaims") => return request.get(Target::Claim),
                ("", "persistentvolumes") => {
                    return request.get_other(|g, node, name| g.volume_reached(node, name));
                }
                ("resource.k8s.io", "resourceclaims") => return request.get(Target::ResourceClaim),
                ("storage.k8s.io", "volumeattachments") => {
                    return request
                        .get_other(|g, node, name| g.attachments.get(name).is_some_and(|n| n == node));
                }
                ("", "serviceaccounts") => return request.service_account(),
                ("coordination.k8s.io", "leases") => return request.lease(),
                ("storage.k8s.io", "csinodes") => return request.csi_node(),
                ("resource.k8s.io", "resourceslices") => return request.resource_slice(),
                ("", "nodes") => return request.own_node(),
                ("", "pods") => return request.pod(),
                ("certificates.k8s.io", "podcertificaterequests") => return refuse(""),
                _ => {}
            }
        }
        if self.rules.iter().any(|rule| rule.allows(attributes)) { Ok(()) } else { refuse("") }
    }
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        let Some(node) = node_name(&attributes.user) else { return Decision::NoOpinion(String::new()) };
        if node.is_empty() {
            let user = super::quote(&attributes.user.name);
            return Decision::NoOpinion(format!("unknown node for user {user}"));
        }
        match self.decide(node, attributes) {
            Ok(()) => Decision::Allow,
            Err(reason) => Decision::NoOpinion(reason),
        }
    }
}

impl Request<'_> {
    fn unrelated(&self) -> Opinion {
        Err(format!("no relationship found between node '{}' and this object", self.node))
    }

    fn related(&self, related: impl FnOnce(&Graph) -> bool) -> Opinion {
        if self.attributes.name.is_empty() {
            return refuse("No Object name found");
        }
        if related(&self.graph.graph.read()) { Ok(()) } else { self.unrelated() }
    }

    fn referred(&self, target: Target) -> Opinion {
        let (node, a) = (self.node, self.attributes);
        self.related(|graph| {
            graph.refers(node, target, &a.namespace, &a.name)
                || (target == Target::Secret && {
                    let key = (a.namespace.clone(), a.name.clone());
                    let volumes = graph.volumes_of_secret.get(&key);
                    volumes.is_some_and(|volumes| volumes.iter().any(|v| graph.volume_reached(node, v)))
                })
        })
    }

    /// get, list and watch of one object.
    fn read(&self, target: Target) -> Opinion {
        let a = self.attributes;
        if !matches!(a.verb.as_str(), "get" | "list" | "watch") {
            return refuse("can only read resources of this type");
        }
        if !a.subresource.is_empty() {
            return refuse("cannot read subresource");
        }
        if a.namespace.is_empty() {
            return refuse("can only read namespaced object of this type");
        }
        self.referred(target)
    }

    fn only_get(&self) -> Opinion {
        if self.attributes.verb != "get" {
            return refuse("can only get individual resources of this type");
        }
        if !self.attributes.subresource.is_empty() {
            return refuse("cannot get subresource");
        }
        Ok(())
    }

    fn get(&self, target: Target) -> Opinion {
        self.only_get()?;
        self.referred(target)
    }

    fn get_other(&self, related: impl FnOnce(&Graph, &str, &str) -> bool) -> Opinion {
        self.only_get()?;
        self.related(|graph| related(graph, self.node, &self.attributes.name))
    }

    fn claim_status(&self) -> Opinion {
        if !matches!(self.attributes.verb.as_str(), "update" | "patch") {
            return refuse("can only get/update/patch this type");
        }
        self.referred(Target::Claim)
    }

    fn service_account(&self) -> Opinion {
        let a = self.attributes;
        if a.verb == "get" && a.subresource.is_empty() {
            return self.read(Target::ServiceAccount);
        }
        if a.verb != "create" || a.name.is_empty() {
            return refuse("can only create tokens for individual service accounts");
        }
        if a.subresource != "token" {
            return refuse("can only create token subresource of serviceaccount");
        }
        self.referred(Target::ServiceAccount)
    }

    fn lease(&self) -> Opinion {
        let a = self.attributes;
        if !matches!(a.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
            return refuse("can only get, create, update, patch, or delete a node lease");
        }
        if a.namespace != LEASE_NAMESPACE {
            return Err(format!("can only access leases in the \"{LEASE_NAMESPACE}\" system namespace"));
        }
        // The name of a lease that is being created is NodeRestriction's to check.
        if a.verb != "create" && a.name != self.node {
            return refuse("can only access node lease with the same name as the requesting node");
        }
        Ok(())
    }

    fn csi_node(&self) -> Opinion {
        let a = self.attributes;
        if !matches!(a.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
            return refuse("can only get, create, update, patch, or delete a CSINode");
        }
        if !a.subresource.is_empty() {
            return refuse("cannot authorize CSINode subresources");
        }
        if a.verb != "create" && a.name != self.node {
            return refuse("can only access CSINode with the same name as the requesting node");
        }
        Ok(())
    }

    fn selects_own(&self, field: &str) -> bool {
        let terms = &self.attributes.field_selector;
        terms.iter().any(|term| term.equal && term.field == field && term.value == self.node)
    }

    fn resource_slice(&self) -> Opinion {
        let a = self.attributes;
        if !a.subresource.is_empty() {
            return refuse("cannot authorize ResourceSlice subresources");
        }
        match a.verb.as_str() {
            // What is in it is NodeRestriction's to check.
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => {
                self.related(|graph| graph.slices.get(&a.name).is_some_and(|n| n == self.node))
            }
            "watch" | "list" | "deletecollection" if self.selects_own("spec.nodeName") => Ok(()),
            "watch" | "list" | "deletecollection" => {
                refuse("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => refuse(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, \
                 delete, deletecollection",
            ),
        }
    }

    fn own_node(&self) -> Opinion {
        let a = self.attributes;
        match (a.subresource.as_str(), a.verb.as_str()) {
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
            ("", "get" | "list" | "watch") => match a.name.as_str() {
                name if name == self.node => Ok(()),
                "" => Err(format!("node '{}' cannot read all nodes, only its own Node object", self.node)),
                other => Err(format!("node '{}' cannot read '{other}', only its own Node object", self.node)),
            },
            _ => refuse(""),
        }
    }

    fn own_pod(&self) -> Opinion {
        let key = (self.attributes.namespace.clone(), self.attributes.name.clone());
        self.related(|graph| graph.pods.get(&key).is_some_and(|pod| pod.node == self.node))
    }

    fn pod(&self) -> Opinion {
        let a = self.attributes;
        match (a.subresource.as_str(), a.verb.as_str()) {
            ("", "get") => self.own_pod(),
            ("", "list" | "watch") if self.selects_own("spec.nodeName") => Ok(()),
            ("", "list" | "watch") if !a.name.is_empty() => self.own_pod(),
            ("", "list" | "watch") => refuse("can only list/watch pods with spec.nodeName field selector"),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => refuse(""),
        }
    }
}
