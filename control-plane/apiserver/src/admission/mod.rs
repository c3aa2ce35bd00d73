//! Admission: what reads the cluster before a write is let through, and may complete the object.
//!
//! What always holds here:
//! - plugins run in upstream's order; first all of them may change the object, then (after validation) all may
//!   refuse the result, so that nothing a later one or a webhook wrote escapes an earlier one's refusal;
//! - plugins keep no state of their own (but for what texts that were read say, [`crate::authn::reads::Parsed`]) and never
//!   wait: what they read comes through [`ClusterReads`];
//! - refusals are upstream's, in code, reason and text.

mod certificates;
#[cfg(test)]
mod harness;
mod limit_ranger;
mod namespace_lifecycle;
mod network;
mod node_restriction;
mod nodes;
mod owner_references;
mod pod_refs;
mod pod_security;
mod pods;
mod priority;
mod runtime_class;
mod service_account;
mod storage;
mod topology;

pub use crate::authn::ClusterReads;
pub use owner_references::{KindMapper, MappedResource};

use crate::authn::UserInfo;
use crate::authz::Authorizer;
use jiff::Timestamp;
use keelson_api::doc::Doc;
use keelson_api::status::{GroupResource, Status};
use std::sync::Arc;

/// What is being done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// A request that opens a connection (exec, attach, port-forward, proxy); the object is its options.
    Connect,
}

impl Operation {
    /// As upstream writes it in texts and AdmissionReviews.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// The request around the object.
#[derive(Clone, Copy)]
pub struct AdmissionAttributes<'a> {
    pub operation: Operation,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Empty for cluster-scoped objects. For namespaces themselves it may hold their name.
    pub namespace: &'a str,
    /// From the URL; empty on create of the object itself.
    pub name: &'a str,
    pub user: &'a Arc<UserInfo>,
    pub dry_run: bool,
    pub now: Timestamp,
}

impl AdmissionAttributes<'_> {
    /// Whether the request is about this resource, subresources included.
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.group == group && self.resource == resource
    }

    /// Whether the request is about this resource and no subresource.
    pub fn is_main(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_empty() && self.is(group, resource)
    }

    /// The 403 of a plugin.
    pub fn forbidden(&self, object: Option<&Doc>, why: impl std::fmt::Display) -> Status {
        let resource = GroupResource::new(self.group.to_owned(), self.resource.to_owned());
        let name = match (self.name, object) {
            ("", Some(object)) => {
                let meta = object.meta();
                let given = [meta.name(), meta.generate_name()].into_iter().find(|n| !n.is_empty());
                given.unwrap_or("Unknown").to_owned()
            }
            ("", None) => "Unknown".to_owned(),
            (name, _) => name.to_owned(),
        };
        Status::forbidden(&resource, &name, why)
    }
}

/// One rule of admission. Both functions are called for every write; a plugin looks at the attributes first.
pub trait Admission: Send + Sync {
    /// Upstream's name of the plugin.
    fn name(&self) -> &'static str;

    /// May complete the object. Called for creates, updates and connects, before validation.
    fn mutate(
        &self,
        _object: &mut Doc,
        _old: Option<&Doc>,
        _a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// May refuse the result. `object` is `None` for deletes, `old` for creates.
    fn validate(
        &self,
        _object: Option<&Doc>,
        _old: Option<&Doc>,
        _a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        Ok(())
    }

    /// What the client should be told (`Warning` headers) about a write that is let through.
    fn warnings(&self, _object: &Doc, _old: Option<&Doc>, _a: &AdmissionAttributes<'_>) -> Vec<String> {
        Vec::new()
    }
}

/// Plugins that upstream has but does not enable by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChainOptions {
    /// Owner references only by those who may delete the object, blocking ones only by those who may set the
    /// owner's finalizers.
    pub owner_references: bool,
    /// Pods that ask for an extended resource tolerate the taint of its name.
    pub extended_resource_toleration: bool,
}

/// All plugins in upstream's order. Webhooks, admission policies and ResourceQuota are not among them yet: they come
/// after [`Chain::mutate`] and [`Chain::validate`].
pub struct Chain {
    plugins: Vec<Box<dyn Admission>>,
    reads: Arc<dyn ClusterReads>,
}

impl Chain {
    /// Upstream's default plugins and NodeRestriction.
    pub fn new(
        reads: Arc<dyn ClusterReads>,
        authorizer: Arc<dyn Authorizer>,
        kinds: KindMapper,
        options: ChainOptions,
    ) -> Chain {
        let mut plugins: Vec<Box<dyn Admission>> = vec![
            Box::new(namespace_lifecycle::NamespaceLifecycle::new(reads.clone())),
            Box::new(limit_ranger::LimitRanger::new(reads.clone())),
            Box::new(service_account::ServiceAccount::new(reads.clone())),
            Box::new(node_restriction::NodeRestriction::new(reads.clone(), authorizer.clone())),
            Box::new(nodes::TaintNodesByCondition),
            Box::new(pod_security::PodSecurity::new(reads.clone())),
            Box::new(priority::Priority::new(reads.clone())),
            Box::new(pods::DefaultTolerationSeconds),
        ];
        if options.extended_resource_toleration {
            plugins.push(Box::new(pods::ExtendedResourceToleration));
        }
        plugins.push(Box::new(storage::DefaultStorageClass::new(reads.clone())));
        plugins.push(Box::new(storage::StorageObjectInUseProtection));
        if options.owner_references {
            plugins.push(Box::new(owner_references::OwnerReferences::new(authorizer.clone(), kinds)));
        }
        plugins.push(Box::new(storage::PersistentVolumeClaimResize::new(reads.clone())));
        plugins.push(Box::new(runtime_class::RuntimeClass::new(reads.clone())));
        plugins.push(Box::new(certificates::CertificateApproval::new(authorizer.clone())));
        plugins.push(Box::new(certificates::CertificateSigning::new(authorizer)));
        plugins.push(Box::new(certificates::CertificateSubjectRestriction));
        plugins.push(Box::new(network::DefaultIngressClass::new(reads.clone())));
        plugins.push(Box::new(topology::PodTopologyLabels::new(reads.clone())));
        Chain { plugins, reads }
    }

    /// The plugins' names in the order they run in.
    pub fn names(&self) -> Vec<&'static str> {
        self.plugins.iter().map(|p| p.name()).collect()
    }

    /// All plugins' changes, in order; the first refusal ends it.
    pub fn mutate(
        &self,
        object: &mut Doc,
        old: Option<&Doc>,
        a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        self.plugins.iter().try_for_each(|plugin| plugin.mutate(object, old, a))
    }

    /// All plugins' refusals, in order. Nothing may change the object afterwards.
    pub fn validate(
        &self,
        object: Option<&Doc>,
        old: Option<&Doc>,
        a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        self.plugins.iter().try_for_each(|plugin| plugin.validate(object, old, a))
    }

    /// All plugins' warnings about a write that was let through.
    pub fn warnings(&self, object: &Doc, old: Option<&Doc>, a: &AdmissionAttributes<'_>) -> Vec<String> {
        self.plugins.iter().flat_map(|plugin| plugin.warnings(object, old, a)).collect()
    }

    /// Namespace of a `default` service account that does not exist yet but is about to: a pod that is created right
    /// after its namespace should wait for it, up to a second or so, before [`Self::mutate`] refuses the pod.
    pub fn awaits_default_account<'a>(&self, object: &Doc, a: &AdmissionAttributes<'a>) -> Option<&'a str> {
        service_account::awaits_default(self.reads.as_ref(), object, a)
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
