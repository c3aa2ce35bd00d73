//! The informers that scheduler and controllers share: one per type and process, made once by the composition root.

use std::sync::Arc;

use ahash::AHashMap;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
    ReplicationController, ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use keelson_daemon::DrainWatcher;
use kube::Api;
use parking_lot::RwLock;

use super::meta::{HasMeta, Meta};
use super::node::NodeView;
use super::packed::{MetaOnly, Packed};
use super::pod::PodView;
use super::pod_text::PodText;
use crate::informer::{HandlerScope, Informer, Projection, Selector};

impl Projection for PodView {
    type Object = Pod;
    fn project(object: Pod) -> Self {
        PodView::new(&object)
    }
}

impl Projection for NodeView {
    type Object = Node;
    fn project(object: Node) -> Self {
        NodeView::new(&object)
    }
}

macro_rules! packed {
    ($($kind:ty),* $(,)?) => { $(
        impl Projection for Packed<$kind> {
            type Object = $kind;
            fn project(object: $kind) -> Self {
                Packed::new(object)
            }
        }
    )* };
}

packed!(
    CertificateSigningRequest,
    ClusterRole,
    ConfigMap,
    ControllerRevision,
    CronJob,
    DaemonSet,
    Deployment,
    EndpointSlice,
    Endpoints,
    Job,
    PodDisruptionBudget,
    ReplicaSet,
    ReplicationController,
    ResourceQuota,
    Secret,
    Service,
    StatefulSet,
);

impl Projection for MetaOnly<ServiceAccount> {
    type Object = ServiceAccount;
    fn project(object: ServiceAccount) -> Self {
        MetaOnly::new(&object.metadata)
    }
}

impl Projection for MetaOnly<VolumeAttributesClass> {
    type Object = VolumeAttributesClass;
    fn project(object: VolumeAttributesClass) -> Self {
        MetaOnly::new(&object.metadata)
    }
}

/// A persistent volume.
#[derive(Debug)]
pub struct VolumeView {
    pub meta: Meta,
    /// Its phase is Bound.
    pub bound: bool,
    /// Its VolumeAttributesClass.
    pub attributes_class: Option<Box<str>>,
}

impl HasMeta for VolumeView {
    fn meta(&self) -> &Meta {
        &self.meta
    }
}

impl Projection for VolumeView {
    type Object = PersistentVolume;
    fn project(object: PersistentVolume) -> Self {
        let phase = object.status.and_then(|status| status.phase);
        let class = object.spec.and_then(|spec| spec.volume_attributes_class_name);
        VolumeView {
            meta: Meta::new(&object.metadata),
            bound: phase.as_deref() == Some("Bound"),
            attributes_class: class.filter(|class| !class.is_empty()).map(Into::into),
        }
    }
}

/// A claim on a volume.
#[derive(Debug)]
pub struct ClaimView {
    pub meta: Meta,
    /// The VolumeAttributesClasses it wants, has, and is being given; each once.
    pub attributes_classes: Vec<Box<str>>,
}

impl HasMeta for ClaimView {
    fn meta(&self) -> &Meta {
        &self.meta
    }
}

impl Projection for ClaimView {
    type Object = PersistentVolumeClaim;
    fn project(object: PersistentVolumeClaim) -> Self {
        let status = object.status.unwrap_or_default();
        let classes = [
            object.spec.and_then(|spec| spec.volume_attributes_class_name),
            status.current_volume_attributes_class_name,
            status.modify_volume_status.and_then(|modify| modify.target_volume_attributes_class_name),
        ];
        let mut attributes_classes: Vec<Box<str>> =
            classes.into_iter().flatten().filter(|class| !class.is_empty()).map(Into::into).collect();
        attributes_classes.sort_unstable();
        attributes_classes.dedup();
        ClaimView { meta: Meta::new(&object.metadata), attributes_classes }
    }
}

/// A namespace.
#[derive(Debug)]
pub struct NamespaceView {
    pub meta: Meta,
    pub terminating: bool,
    pub spec_finalizers: Vec<Box<str>>,
}

impl HasMeta for NamespaceView {
    fn meta(&self) -> &Meta {
        &self.meta
    }
}

impl Projection for NamespaceView {
    type Object = Namespace;
    fn project(object: Namespace) -> Self {
        let status = object.status.unwrap_or_default();
        NamespaceView {
            meta: Meta::new(&object.metadata),
            terminating: status.phase.as_deref() == Some("Terminating"),
            spec_finalizers: object
                .spec
                .iter()
                .flat_map(|s| s.finalizers.iter().flatten())
                .map(|f| f.as_str().into())
                .collect(),
        }
    }
}

/// A node's lease.
#[derive(Debug)]
pub struct LeaseView {
    pub meta: Meta,
    pub renewed: Option<Timestamp>,
}

impl HasMeta for LeaseView {
    fn meta(&self) -> &Meta {
        &self.meta
    }
}

impl Projection for LeaseView {
    type Object = Lease;
    fn project(object: Lease) -> Self {
        LeaseView {
            meta: Meta::new(&object.metadata),
            renewed: object.spec.and_then(|s| s.renew_time).map(|t| t.0),
        }
    }
}

/// Pods by controller, by node, and those without a controller by namespace; kept by the informer's own task, so never
/// behind what handlers see.
#[derive(Clone, Default)]
pub struct PodIndex {
    inner: Arc<RwLock<Maps>>,
}

/// Pods by their address in memory, which is theirs alone while they are held.
type Pods = AHashMap<usize, Arc<PodView>>;

#[derive(Default)]
struct Maps {
    controller: AHashMap<Box<str>, Pods>,
    node: AHashMap<Box<str>, Pods>,
    orphans: AHashMap<Box<str>, Pods>,
}

fn id(pod: &Arc<PodView>) -> usize {
    Arc::as_ptr(pod) as usize
}

fn put(map: &mut AHashMap<Box<str>, Pods>, key: &str, pod: &Arc<PodView>) {
    match map.get_mut(key) {
        Some(pods) => drop(pods.insert(id(pod), pod.clone())),
        None => drop(map.insert(key.into(), [(id(pod), pod.clone())].into_iter().collect())),
    }
}

fn take(map: &mut AHashMap<Box<str>, Pods>, key: &str, pod: &Arc<PodView>) {
    if let Some(pods) = map.get_mut(key) {
        pods.remove(&id(pod));
        if pods.is_empty() {
            map.remove(key);
        }
    }
}

impl Maps {
    fn apply(&mut self, pod: &Arc<PodView>, f: fn(&mut AHashMap<Box<str>, Pods>, &str, &Arc<PodView>)) {
        match pod.meta.controller() {
            Some(owner) => f(&mut self.controller, &owner.uid, pod),
            None => f(&mut self.orphans, &pod.meta.namespace, pod),
        }
        if let Some(node) = &pod.node {
            f(&mut self.node, node, pod);
        }
    }
}

impl PodIndex {
    /// An index that follows `pods`.
    pub fn following(pods: &Informer<PodView>) -> Self {
        let index = PodIndex::default();
        let inner = index.inner.clone();
        pods.on_change(move |change| {
            let mut maps = inner.write();
            if let Some(old) = &change.old {
                maps.apply(old, take);
            }
            if let Some(new) = &change.new {
                maps.apply(new, put);
            }
        });
        index
    }

    fn sorted(pods: Option<&Pods>) -> Vec<Arc<PodView>> {
        let mut pods: Vec<Arc<PodView>> = pods.into_iter().flat_map(|pods| pods.values().cloned()).collect();
        pods.sort_by(|a, b| (&a.meta.namespace, &a.meta.name).cmp(&(&b.meta.namespace, &b.meta.name)));
        pods
    }

    /// The pods that the object with this uid controls, ordered by name.
    pub fn controlled_by(&self, uid: &str) -> Vec<Arc<PodView>> {
        Self::sorted(self.inner.read().controller.get(uid))
    }

    /// The pods bound to a node, ordered by namespace and name.
    pub fn on_node(&self, node: &str) -> Vec<Arc<PodView>> {
        Self::sorted(self.inner.read().node.get(node))
    }

    /// The pods of a namespace that nothing controls and that `wanted` accepts.
    pub fn orphans(&self, namespace: &str, wanted: impl Fn(&PodView) -> bool) -> Vec<Arc<PodView>> {
        let maps = self.inner.read();
        maps.orphans
            .get(namespace)
            .into_iter()
            .flat_map(|pods| pods.values())
            .filter(|p| wanted(p))
            .cloned()
            .collect()
    }
}

/// All shared informers; clones share them.
#[derive(Clone)]
pub struct SharedInformers {
    pub pods: Informer<PodView>,
    pub pod_index: PodIndex,
    pub nodes: Informer<NodeView>,
    /// Leases in kube-node-lease.
    pub node_leases: Informer<LeaseView>,
    pub namespaces: Informer<NamespaceView>,
    pub service_accounts: Informer<MetaOnly<ServiceAccount>>,
    /// Only the config maps named kube-root-ca.crt.
    pub root_cas: Informer<Packed<ConfigMap>>,
    pub services: Informer<Packed<Service>>,
    pub endpoints: Informer<Packed<Endpoints>>,
    pub endpoint_slices: Informer<Packed<EndpointSlice>>,
    pub deployments: Informer<Packed<Deployment>>,
    pub replica_sets: Informer<Packed<ReplicaSet>>,
    pub replication_controllers: Informer<Packed<ReplicationController>>,
    pub stateful_sets: Informer<Packed<StatefulSet>>,
    pub daemon_sets: Informer<Packed<DaemonSet>>,
    pub controller_revisions: Informer<Packed<ControllerRevision>>,
    pub jobs: Informer<Packed<Job>>,
    pub cron_jobs: Informer<Packed<CronJob>>,
    pub budgets: Informer<Packed<PodDisruptionBudget>>,
    pub quotas: Informer<Packed<ResourceQuota>>,
    pub cluster_roles: Informer<Packed<ClusterRole>>,
    pub certificate_requests: Informer<Packed<CertificateSigningRequest>>,
    pub volume_claims: Informer<ClaimView>,
    pub volumes: Informer<VolumeView>,
    pub volume_attributes_classes: Informer<MetaOnly<VolumeAttributesClass>>,
    /// Secrets of bootstrap tokens.
    pub bootstrap_tokens: Informer<Packed<Secret>>,
    /// Secrets that hold a service account's token, or wait for one.
    pub account_tokens: Informer<Packed<Secret>>,
    /// The discovery document in kube-public.
    pub cluster_info: Informer<Packed<ConfigMap>>,
}

impl SharedInformers {
    /// Starts all informers as `client`'s user, which needs list and watch on these types.
    pub fn start(client: &kube::Client, drain: &DrainWatcher) -> Self {
        fn all<P>(client: &kube::Client, drain: &DrainWatcher) -> Informer<P>
        where
            P: Projection,
        {
            Informer::start(Api::all(client.clone()), Selector::default(), drain.clone())
        }
        let read = Api::<PodText>::all(client.clone());
        let pods: Informer<PodView> = Informer::start_reading(read, Selector::default(), drain.clone());
        SharedInformers {
            pod_index: PodIndex::following(&pods),
            pods,
            nodes: all(client, drain),
            node_leases: Informer::start(
                Api::namespaced(client.clone(), "kube-node-lease"),
                Selector::default(),
                drain.clone(),
            ),
            namespaces: all(client, drain),
            service_accounts: all(client, drain),
            root_cas: Informer::start(
                Api::all(client.clone()),
                Selector { fields: Some("metadata.name=kube-root-ca.crt".to_owned()), ..Selector::default() },
                drain.clone(),
            ),
            services: all(client, drain),
            endpoints: all(client, drain),
            endpoint_slices: all(client, drain),
            deployments: all(client, drain),
            replica_sets: all(client, drain),
            replication_controllers: all(client, drain),
            stateful_sets: all(client, drain),
            daemon_sets: all(client, drain),
            controller_revisions: all(client, drain),
            jobs: all(client, drain),
            cron_jobs: all(client, drain),
            budgets: all(client, drain),
            quotas: all(client, drain),
            cluster_roles: all(client, drain),
            certificate_requests: all(client, drain),
            volume_claims: all(client, drain),
            volumes: all(client, drain),
            volume_attributes_classes: all(client, drain),
            bootstrap_tokens: Informer::start(
                Api::namespaced(client.clone(), "kube-system"),
                Selector {
                    fields: Some("type=bootstrap.kubernetes.io/token".to_owned()),
                    ..Selector::default()
                },
                drain.clone(),
            ),
            account_tokens: Informer::start(
                Api::all(client.clone()),
                Selector {
                    fields: Some("type=kubernetes.io/service-account-token".to_owned()),
                    ..Selector::default()
                },
                drain.clone(),
            ),
            cluster_info: Informer::start(
                Api::namespaced(client.clone(), "kube-public"),
                Selector { fields: Some("metadata.name=cluster-info".to_owned()), ..Selector::default() },
                drain.clone(),
            ),
        }
    }

    /// The same informers; handlers added through what is returned live as long as `scope`.
    pub fn within(&self, scope: &HandlerScope) -> Self {
        SharedInformers {
            pods: self.pods.within(scope),
            pod_index: self.pod_index.clone(),
            nodes: self.nodes.within(scope),
            node_leases: self.node_leases.within(scope),
            namespaces: self.namespaces.within(scope),
            service_accounts: self.service_accounts.within(scope),
            root_cas: self.root_cas.within(scope),
            services: self.services.within(scope),
            endpoints: self.endpoints.within(scope),
            endpoint_slices: self.endpoint_slices.within(scope),
            deployments: self.deployments.within(scope),
            replica_sets: self.replica_sets.within(scope),
            replication_controllers: self.replication_controllers.within(scope),
            stateful_sets: self.stateful_sets.within(scope),
            daemon_sets: self.daemon_sets.within(scope),
            controller_revisions: self.controller_revisions.within(scope),
            jobs: self.jobs.within(scope),
            cron_jobs: self.cron_jobs.within(scope),
            budgets: self.budgets.within(scope),
            quotas: self.quotas.within(scope),
            cluster_roles: self.cluster_roles.within(scope),
            certificate_requests: self.certificate_requests.within(scope),
            volume_claims: self.volume_claims.within(scope),
            volumes: self.volumes.within(scope),
            volume_attributes_classes: self.volume_attributes_classes.within(scope),
            bootstrap_tokens: self.bootstrap_tokens.within(scope),
            account_tokens: self.account_tokens.within(scope),
            cluster_info: self.cluster_info.within(scope),
        }
    }

    /// Informers that nothing feeds; for tests of components.
    pub fn detached() -> Self {
        let pods = Informer::detached();
        SharedInformers {
            pod_index: PodIndex::following(&pods),
            pods,
            nodes: Informer::detached(),
            node_leases: Informer::detached(),
            namespaces: Informer::detached(),
            service_accounts: Informer::detached(),
            root_cas: Informer::detached(),
            services: Informer::detached(),
            endpoints: Informer::detached(),
            endpoint_slices: Informer::detached(),
            deployments: Informer::detached(),
            replica_sets: Informer::detached(),
            replication_controllers: Informer::detached(),
            stateful_sets: Informer::detached(),
            daemon_sets: Informer::detached(),
            controller_revisions: Informer::detached(),
            jobs: Informer::detached(),
            cron_jobs: Informer::detached(),
            budgets: Informer::detached(),
            quotas: Informer::detached(),
            cluster_roles: Informer::detached(),
            certificate_requests: Informer::detached(),
            volume_claims: Informer::detached(),
            volumes: Informer::detached(),
            volume_attributes_classes: Informer::detached(),
            bootstrap_tokens: Informer::detached(),
            account_tokens: Informer::detached(),
            cluster_info: Informer::detached(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ObjectKey;

    fn pod(name: &str, owner: &str, node: Option<&str>) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "ns", "name": name, "uid": name, "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": owner, "controller": true}]},
            "spec": {"containers": [], "nodeName": node}}))
        .unwrap()
    }

    #[test]
    fn the_index_follows_the_informer() {
        let shared = SharedInformers::detached();
        shared.pods.apply(pod("a", "u1", None));
        shared.pods.apply(pod("b", "u1", Some("n1")));
        assert_eq!(shared.pod_index.controlled_by("u1").len(), 2);
        shared.pods.apply(pod("a", "u2", Some("n1")));
        assert_eq!(shared.pod_index.controlled_by("u1").len(), 1);
        assert_eq!(shared.pod_index.on_node("n1").len(), 2);
        shared.pods.delete(&ObjectKey::new("ns", "a"));
        assert_eq!(shared.pod_index.on_node("n1").len(), 1);
        assert!(shared.pod_index.controlled_by("u2").is_empty());
    }
}
