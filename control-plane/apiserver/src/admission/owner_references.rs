//! OwnerReferencesPermissionEnforcement: an owner is set only by who may delete the object, and the owner's deletion is
//! blocked only by who may set the owner's finalizers.

use super::{Admission, AdmissionAttributes, Operation};
use crate::authz::{Attributes, Authorizer, Decision};
use keelson_api::doc::{Doc, OwnerRef};
use keelson_api::status::Status;
use std::sync::Arc;

/// A resource that serves a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedResource {
    pub group: String,
    pub version: String,
    pub resource: String,
    pub namespaced: bool,
}

/// Group, version and kind to the resources that serve it; empty when there is none.
pub type KindMapper = Arc<dyn Fn(&str, &str, &str) -> Vec<MappedResource> + Send + Sync>;

pub(super) struct OwnerReferences {
    authorizer: Arc<dyn Authorizer>,
    kinds: KindMapper,
}

impl OwnerReferences {
    pub(super) fn new(authorizer: Arc<dyn Authorizer>, kinds: KindMapper) -> OwnerReferences {
        OwnerReferences { authorizer, kinds }
    }

    fn ask(&self, a: &AdmissionAttributes<'_>, change: impl FnOnce(&mut Attributes)) -> Result<(), String> {
        let mut attributes = Attributes { user: a.user.clone(), is_resource: true, ..Attributes::default() };
        change(&mut attributes);
        match self.authorizer.authorize(&attributes) {
            Decision::Allow => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(reason),
        }
    }

    fn blocking(
        &self,
        object: &Doc,
        refs: &[OwnerRef<'_>],
        a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        let anything = self.ask(a, |x| {
            x.verb = "update".into();
            (x.api_group, x.api_version, x.resource) = ("*".into(), "*".into(), "*".into());
            (x.subresource, x.name) = ("finalizers".into(), "*".into());
        });
        if refs.is_empty() || anything.is_ok() {
            return Ok(());
        }
        for owner in refs {
            let (group, version) = owner.api_version.split_once('/').unwrap_or(("", owner.api_version));
            let mapped = (self.kinds)(group, version, owner.kind);
            if mapped.is_empty() {
                let why = format!(
                    "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {} Kind {}",
                    owner.api_version, owner.kind
                );
                return Err(a.forbidden(Some(object), why));
            }
            for resource in mapped {
                let asked = self.ask(a, |x| {
                    x.verb = "update".into();
                    (x.api_group, x.api_version, x.resource) =
                        (resource.group, resource.version, resource.resource);
                    (x.subresource, x.name) = ("finalizers".into(), owner.name.into());
                    x.namespace = if resource.namespaced { a.namespace.into() } else { String::new() };
                });
                if let Err(reason) = asked {
                    let why = format!(
                        "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set \
                         finalizers on: {reason}, <nil>"
                    );
                    return Err(a.forbidden(Some(object), why));
                }
            }
        }
        Ok(())
    }
}

impl Admission for OwnerReferences {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn validate(
        &self,
        object: Option<&Doc>,
        old: Option<&Doc>,
        a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        // A kubelet's own pods name their node as owner; NodeRestriction looks at that.
        if a.is("", "pods") && a.subresource == "status" {
            return Ok(());
        }
        let new: Vec<OwnerRef<'_>> = object.meta().owner_references().collect();
        let before: Vec<OwnerRef<'_>> =
            old.map(|o| o.meta().owner_references().collect()).unwrap_or_default();
        if new == before {
            return Ok(());
        }
        if a.operation != Operation::Create {
            let asked = self.ask(a, |x| {
                x.verb = "delete".into();
                (x.api_group, x.api_version) = (a.group.into(), a.version.into());
                (x.resource, x.subresource) = (a.resource.into(), a.subresource.into());
                (x.namespace, x.name) = (a.namespace.into(), a.name.into());
            });
            if let Err(reason) = asked {
                let why = format!("cannot set an ownerRef on a resource you can't delete: {reason}, <nil>");
                return Err(a.forbidden(Some(object), why));
            }
        }
        let blocked =
            |owner: &OwnerRef<'_>| before.iter().any(|b| b.uid == owner.uid && b.block_owner_deletion);
        let fresh: Vec<OwnerRef<'_>> =
            new.into_iter().filter(|owner| owner.block_owner_deletion && !blocked(owner)).collect();
        self.blocking(object, &fresh, a)
    }
}
