//! NodeRestriction: a kubelet writes its own node, its own lease, its own pods' status, mirror pods of its own, and
//! asks for tokens of its own pods' accounts only.

use super::pod_refs::{MIRROR, api_reference, is_mirror};
use super::{Admission, AdmissionAttributes, ClusterReads, Operation};
use crate::authn::reads::{self, HeadMeta};
use crate::authz::{Attributes, Authorizer, node_name};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keelson_api::doc::{Doc, MetaView, Struct, Value};
use keelson_api::f::{
    authentication_v1 as auth, certificates_v1 as cert, core_v1 as c, meta_v1 as m, resource_v1 as r,
};
use keelson_api::field_errors::quoted;
use keelson_api::status::{GroupResource, Status};
use keelson_base::consts::node_labels;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::Arc;

const LEASE_NAMESPACE: &str = "kube-node-lease";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";

pub(super) struct NodeRestriction {
    reads: Arc<dyn ClusterReads>,
    authorizer: Arc<dyn Authorizer>,
}

/// Why a request is refused: a text that becomes a 403, or a ready status.
enum Refusal {
    Forbidden(String),
    Status(Status),
}

impl From<String> for Refusal {
    fn from(why: String) -> Refusal {
        Refusal::Forbidden(why)
    }
}

impl From<&str> for Refusal {
    fn from(why: &str) -> Refusal {
        Refusal::Forbidden(why.to_owned())
    }
}

type Verdict = Result<(), Refusal>;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pod {
    metadata: HeadMeta,
    spec: PodSpec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    node_name: String,
    volumes: Vec<Volume>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Volume {
    name: String,
    projected: Option<Projected>,
    csi: Option<Csi>,
    persistent_volume_claim: Option<Claim>,
    ephemeral: Option<serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Projected {
    sources: Vec<Projection>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Projection {
    service_account_token: Option<Audience>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Audience {
    audience: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Csi {
    driver: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Claim {
    claim_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ClaimObject {
    spec: ClaimSpec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ClaimSpec {
    volume_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct VolumeObject {
    spec: VolumeSpec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct VolumeSpec {
    csi: Option<Csi>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Driver {
    spec: DriverSpec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DriverSpec {
    token_requests: Vec<Audience>,
}

/// One request of one node.
struct Check<'a> {
    node: &'a str,
    object: Option<&'a Doc>,
    old: Option<&'a Doc>,
    a: &'a AdmissionAttributes<'a>,
    plugin: &'a NodeRestriction,
}

impl NodeRestriction {
    pub(super) fn new(reads: Arc<dyn ClusterReads>, authorizer: Arc<dyn Authorizer>) -> NodeRestriction {
        NodeRestriction { reads, authorizer }
    }

    fn check(
        &self,
        object: Option<&Doc>,
        old: Option<&Doc>,
        a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        let Some(node) = node_name(a.user) else { return Ok(()) };
        let verdict = if node.is_empty() {
            Err(format!("could not determine node from user {}", quoted(&a.user.name)).into())
        } else {
            Check { node, object, old, a, plugin: self }.decide()
        };
        verdict.map_err(|refusal| match refusal {
            Refusal::Forbidden(why) => a.forbidden(object.or(old), why),
            Refusal::Status(status) => status,
        })
    }
}

impl Admission for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn mutate(&self, object: &mut Doc, old: Option<&Doc>, a: &AdmissionAttributes<'_>) -> Result<(), Status> {
        self.check(Some(object), old, a)
    }

    fn validate(
        &self,
        object: Option<&Doc>,
        old: Option<&Doc>,
        a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        // Once more: nothing that a later plugin or a webhook wrote, and no request that has only this phase, gets
        // round it.
        self.check(object, old, a)
    }
}

impl Check<'_> {
    fn decide(&self) -> Verdict {
        let a = self.a;
        match (a.group, a.resource) {
            ("", "pods") => match a.subresource {
                "" => self.pod(),
                "status" => self.pod_status(),
                "eviction" => self.eviction(),
                other => Err(format!(
                    "unexpected pod subresource {}, only 'status' and 'eviction' are allowed",
                    quoted(other)
                )
                .into()),
            },
            ("", "nodes") => self.node(),
            ("", "persistentvolumeclaims") if a.subresource == "status" => self.claim_status(),
            ("", "persistentvolumeclaims") => Err("may only update PVC status".into()),
            ("", "serviceaccounts") => self.token_request(),
            ("certificates.k8s.io", "podcertificaterequests") => {
                Err("PodCertificateRequest feature gate is disabled".into())
            }
            ("coordination.k8s.io", "leases") => self.lease(),
            ("storage.k8s.io", "csinodes") => self.csi_node(),
            ("resource.k8s.io", "resourceslices") => self.resource_slice(),
            ("certificates.k8s.io", "certificatesigningrequests") => self.csr(),
            _ => Ok(()),
        }
    }

    fn stored_pod(&self, name: &str) -> Result<Pod, Refusal> {
        let reads = self.plugin.reads.as_ref();
        reads::read(reads, "", "pods", self.a.namespace, name)
            .ok_or_else(|| Refusal::Status(Status::not_found(&GroupResource::new("", "pods"), name)))
    }

    fn operation(&self) -> String {
        format!("unexpected operation {}", quoted(self.a.operation.as_str()))
    }

    fn pod(&self) -> Verdict {
        let node = quoted(self.node);
        match (self.a.operation, self.object) {
            (Operation::Create, Some(pod)) => self.mirror_pod(pod, &node),
            (Operation::Delete, _) => {
                // deletecollection names no object in its URL.
                let named = if self.a.name.is_empty() {
                    self.old.map_or("", |o| o.meta().name())
                } else {
                    self.a.name
                };
                if self.stored_pod(named)?.spec.node_name != self.node {
                    return Err(
                        format!("node {node} can only delete pods with spec.nodeName set to itself").into()
                    );
                }
                Ok(())
            }
            _ => {
                Err(format!("{}, node {node} can only create and delete mirror pods", self.operation())
                    .into())
            }
        }
    }

    fn mirror_pod(&self, pod: &Doc, node: &str) -> Verdict {
        if !is_mirror(pod) {
            return Err(format!(
                "pod does not have \"{MIRROR}\" annotation, node {node} can only create mirror pods"
            )
            .into());
        }
        if pod.str(&[c::pod::SPEC, c::pod_spec::NODE_NAME]) != self.node {
            return Err(format!("node {node} can only create pods with spec.nodeName set to itself").into());
        }
        let owners: Vec<_> = pod.meta().owner_references().collect();
        let owner = match owners.as_slice() {
            [owner] => owner,
            [] => {
                return Err(format!(
                    "node {node} can only create pods with an owner reference set to itself"
                )
                .into());
            }
            _ => {
                let why =
                    format!("node {node} can only create pods with a single owner reference set to itself");
                return Err(why.into());
            }
        };
        if (owner.api_version, owner.kind, owner.name) != ("v1", "Node", self.node) {
            return Err(
                format!("node {node} can only create pods with an owner reference set to itself").into()
            );
        }
        if !owner.controller {
            let why =
                format!("node {node} can only create pods with a controller owner reference set to itself");
            return Err(why.into());
        }
        if owner.block_owner_deletion {
            return Err(format!("node {node} must not set blockOwnerDeletion on an owner reference").into());
        }
        let stored: Option<reads::ObjectHead> =
            reads::read(self.plugin.reads.as_ref(), "", "nodes", "", self.node);
        let Some(stored) = stored else {
            return Err(Refusal::Status(Status::not_found(&GroupResource::new("", "nodes"), self.node)));
        };
        if owner.uid != stored.metadata.uid {
            let why = format!(
                "node {} UID mismatch: expected {} got {}",
                self.node, owner.uid, stored.metadata.uid
            );
            return Err(why.into());
        }
        match api_reference(pod) {
            Some(resource) => {
                Err(format!("node {node} can not create pods that reference {resource}").into())
            }
            None => Ok(()),
        }
    }

    fn pod_status(&self) -> Verdict {
        let node = quoted(self.node);
        let (Operation::Update, Some(new), Some(old)) = (self.a.operation, self.object, self.old) else {
            return Err(self.operation().into());
        };
        if old.str(&[c::pod::SPEC, c::pod_spec::NODE_NAME]) != self.node {
            let why =
                format!("node {node} can only update pod status for pods with spec.nodeName set to itself");
            return Err(why.into());
        }
        let labels = |doc: &Doc| doc.meta().labels().filter(|l| !l.is_empty()).cloned();
        if labels(new) != labels(old) {
            return Err(format!("node {node} cannot update labels through pod status").into());
        }
        let differs = |field| {
            let value = |doc: &Doc| doc.get(&[c::pod::STATUS, field]).filter(|v| !v.is_go_empty()).cloned();
            value(new) != value(old)
        };
        if differs(c::pod_status::RESOURCE_CLAIM_STATUSES) {
            return Err(format!("node {node} cannot update resource claim statues").into());
        }
        if differs(c::pod_status::EXTENDED_RESOURCE_CLAIM_STATUS) {
            return Err(format!("node {node} cannot update extended resource claim status").into());
        }
        Ok(())
    }

    fn eviction(&self) -> Verdict {
        let (Operation::Create, Some(eviction)) = (self.a.operation, self.object) else {
            return Err(format!("unexpected operation {}", self.a.operation.as_str()).into());
        };
        let name = if self.a.name.is_empty() { eviction.meta().name() } else { self.a.name };
        if name.is_empty() {
            return Err("could not determine pod from request data".into());
        }
        if self.stored_pod(name)?.spec.node_name != self.node {
            return Err(
                format!("node {} can only evict pods with spec.nodeName set to itself", self.node).into()
            );
        }
        Ok(())
    }

    fn claim_status(&self) -> Verdict {
        let (Operation::Update, Some(new), Some(old)) = (self.a.operation, self.object, self.old) else {
            return Err(self.operation().into());
        };
        use c::persistent_volume_claim_status as s;
        let stripped = |doc: &Doc| {
            let mut doc = doc.clone();
            for field in [s::CAPACITY, s::CONDITIONS, s::ALLOCATED_RESOURCE_STATUSES, s::ALLOCATED_RESOURCES]
            {
                doc.remove(&[c::persistent_volume_claim::STATUS, field]);
            }
            if doc
                .get(&[c::persistent_volume_claim::STATUS])
                .and_then(Value::as_struct)
                .is_some_and(Struct::is_empty)
            {
                doc.remove(&[c::persistent_volume_claim::STATUS]);
            }
            let mut meta = doc.meta_mut();
            let meta = meta.as_struct();
            meta.remove(m::object_meta::RESOURCE_VERSION);
            meta.remove(m::object_meta::MANAGED_FIELDS);
            doc.root
        };
        if stripped(new) != stripped(old) {
            return Err(format!(
                "node {} is not allowed to update fields other than status.quantity and status.conditions",
                quoted(self.node)
            )
            .into());
        }
        Ok(())
    }

    fn node(&self) -> Verdict {
        let node = quoted(self.node);
        let name = match (self.a.operation, self.object) {
            (Operation::Create, Some(object)) => object.meta().name(),
            _ => self.a.name,
        };
        if name != self.node || (!self.a.name.is_empty() && self.a.name != self.node) {
            return Err(format!("node {node} is not allowed to modify node {}", quoted(name)).into());
        }
        match (self.a.operation, self.object, self.old) {
            (Operation::Create, Some(new), _) => self.new_node(new, &node),
            (Operation::Update, Some(new), Some(old)) => self.changed_node(new, old, &node),
            _ => Ok(()),
        }
    }

    fn new_node(&self, new: &Doc, node: &str) -> Verdict {
        if new.get(&[c::node::SPEC, c::node_spec::CONFIG_SOURCE]).is_some() {
            return Err(
                format!("node {node} is not allowed to create pods with a non-nil configSource").into()
            );
        }
        let changed = changed_labels(new.meta(), None);
        let labels = forbidden_labels(&changed);
        if !labels.is_empty() {
            return Err(format!(
                "node {node} is not allowed to set the following labels: {}",
                labels.join(", ")
            )
            .into());
        }
        Ok(())
    }

    fn changed_node(&self, new: &Doc, old: &Doc, node: &str) -> Verdict {
        let value = |doc: &Doc, field| doc.get(&[c::node::SPEC, field]).filter(|v| !v.is_go_empty()).cloned();
        let source = value(new, c::node_spec::CONFIG_SOURCE);
        if source.is_some() && source != value(old, c::node_spec::CONFIG_SOURCE) {
            return Err(format!(
                "node {node} is not allowed to update configSource to a new non-nil configSource"
            )
            .into());
        }
        if value(new, c::node_spec::TAINTS) != value(old, c::node_spec::TAINTS) {
            return Err(format!("node {node} is not allowed to modify taints").into());
        }
        if !new.meta().owner_references().eq(old.meta().owner_references()) {
            return Err(format!("node {node} is not allowed to modify ownerReferences").into());
        }
        let changed = changed_labels(new.meta(), Some(old.meta()));
        let labels = forbidden_labels(&changed);
        if !labels.is_empty() {
            return Err(format!("is not allowed to modify labels: {}", labels.join(", ")).into());
        }
        Ok(())
    }

    fn token_request(&self) -> Verdict {
        let (Operation::Create, "token", Some(request)) = (self.a.operation, self.a.subresource, self.object)
        else {
            return Ok(());
        };
        let spec = auth::token_request::SPEC;
        use auth::bound_object_reference as b;
        let bound =
            request.get(&[spec, auth::token_request_spec::BOUND_OBJECT_REF]).and_then(Value::as_struct);
        let to_pod = |b: &&Struct| {
            b.str(b::API_VERSION) == "v1" && b.str(b::KIND) == "Pod" && !b.str(b::NAME).is_empty()
        };
        let Some(bound) = bound.filter(to_pod) else {
            return Err("node requested token not bound to a pod".into());
        };
        let uid = bound.str(b::UID);
        if uid.is_empty() {
            return Err("node requested token with a pod binding without a uid".into());
        }
        let pod = self.stored_pod(bound.str(b::NAME))?;
        if pod.metadata.uid != uid {
            return Err(format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have \
                 been deleted and then recreated"
            )
            .into());
        }
        if pod.spec.node_name != self.node {
            return Err("node requested token bound to a pod scheduled on a different node".into());
        }
        let audiences = request.list(&[spec, auth::token_request_spec::AUDIENCES]);
        match audiences {
            [] => self.audience(&pod, ""),
            [one] => self.audience(&pod, one.as_str().unwrap_or_default()),
            _ => Err("node may only request 0 or 1 audiences".into()),
        }
    }

    /// The pod must ask for this audience itself, or the node must be allowed to by RBAC.
    fn audience(&self, pod: &Pod, audience: &str) -> Verdict {
        if pod.spec.volumes.iter().any(|volume| self.volume_asks(pod, volume, audience)) {
            return Ok(());
        }
        let asked = Attributes {
            user: self.a.user.clone(),
            verb: "request-serviceaccounts-token-audience".to_owned(),
            namespace: self.a.namespace.to_owned(),
            api_version: "v1".to_owned(),
            resource: audience.to_owned(),
            name: self.a.name.to_owned(),
            is_resource: true,
            ..Attributes::default()
        };
        if self.plugin.authorizer.authorize(&asked).allowed() {
            return Ok(());
        }
        Err(format!(
            "audience {} not found in pod spec volume, {} is not authorized to request tokens for this audience",
            quoted(audience),
            self.a.user.name
        )
        .into())
    }

    fn volume_asks(&self, pod: &Pod, volume: &Volume, audience: &str) -> bool {
        let sources = volume.projected.iter().flat_map(|p| &p.sources);
        if sources.filter_map(|s| s.service_account_token.as_ref()).any(|t| t.audience == audience) {
            return true;
        }
        let driver = if volume.ephemeral.is_some() {
            self.driver_of_claim(&format!("{}-{}", pod.metadata.name, volume.name))
        } else if let Some(claim) = &volume.persistent_volume_claim {
            self.driver_of_claim(&claim.claim_name)
        } else {
            volume.csi.as_ref().map(|csi| csi.driver.clone())
        };
        let Some(driver) = driver else { return false };
        let driver: Option<Driver> =
            reads::read(self.plugin.reads.as_ref(), "storage.k8s.io", "csidrivers", "", &driver);
        driver.is_some_and(|d| d.spec.token_requests.iter().any(|t| t.audience == audience))
    }

    fn driver_of_claim(&self, claim: &str) -> Option<String> {
        let reads = self.plugin.reads.as_ref();
        let claim: ClaimObject = reads::read(reads, "", "persistentvolumeclaims", self.a.namespace, claim)?;
        let volume: VolumeObject = reads::read(reads, "", "persistentvolumes", "", &claim.spec.volume_name)?;
        volume.spec.csi.map(|csi| csi.driver)
    }

    /// The name the request is about: on create the object's.
    fn own_name(&self) -> bool {
        let name = match (self.a.operation, self.object) {
            (Operation::Create, Some(object)) => object.meta().name(),
            _ => self.a.name,
        };
        name == self.node
    }

    fn lease(&self) -> Verdict {
        if self.a.namespace != LEASE_NAMESPACE {
            return Err(
                format!("can only access leases in the \"{LEASE_NAMESPACE}\" system namespace").into()
            );
        }
        if !self.own_name() {
            return Err("can only access node lease with the same name as the requesting node".into());
        }
        Ok(())
    }

    fn csi_node(&self) -> Verdict {
        if self.own_name() {
            return Ok(());
        }
        Err("can only access CSINode with the same name as the requesting node".into())
    }

    fn resource_slice(&self) -> Verdict {
        let mine = |slice: Option<&Doc>| {
            slice.is_some_and(|s| {
                s.str(&[r::resource_slice::SPEC, r::resource_slice_spec::NODE_NAME]) == self.node
            })
        };
        match self.a.operation {
            Operation::Create if !mine(self.object) => {
                Err("can only create ResourceSlice with the same NodeName as the requesting node".into())
            }
            Operation::Delete if !mine(self.old) => {
                Err("can only delete ResourceSlice with the same NodeName as the requesting node".into())
            }
            _ => Ok(()),
        }
    }

    fn csr(&self) -> Verdict {
        let (Operation::Create, Some(csr)) = (self.a.operation, self.object) else { return Ok(()) };
        let spec = cert::certificate_signing_request::SPEC;
        let signer = csr.str(&[spec, cert::certificate_signing_request_spec::SIGNER_NAME]);
        if signer != KUBELET_SERVING && signer != KUBELET_CLIENT {
            return Ok(());
        }
        let request = csr.str(&[spec, cert::certificate_signing_request_spec::REQUEST]);
        let pem =
            STANDARD.decode(request).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let parsed = keelson_pki::parse_csr(&pem).map_err(|e| format!("unable to parse csr: {e}"))?;
        if parsed.common_name != format!("system:node:{}", self.node) {
            return Err(format!("can only create a node CSR with CN=system:node:{}", self.node).into());
        }
        Ok(())
    }
}

/// Keys of labels that are set, changed or removed.
fn changed_labels(new: MetaView<'_>, old: Option<MetaView<'_>>) -> BTreeSet<String> {
    let pairs = |meta: Option<MetaView<'_>>| -> Vec<(String, String)> {
        let labels = meta.and_then(|m| m.labels());
        labels.into_iter().flat_map(|l| l.str_pairs()).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    };
    let (new, old) = (pairs(Some(new)), pairs(old));
    let differing = new.iter().filter(|p| !old.contains(p)).chain(old.iter().filter(|p| !new.contains(p)));
    differing.map(|(key, _)| key.clone()).collect()
}

/// Which of these labels are not a kubelet's to touch.
fn forbidden_labels(keys: &BTreeSet<String>) -> Vec<&str> {
    keys.iter().map(String::as_str).filter(|key| !node_labels::is_kubelets(key)).collect()
}

#[cfg(test)]
#[path = "node_restriction_tests.rs"]
mod tests;
