//! NamespaceLifecycle: nothing is written to a namespace that is not there, nothing new to one that is going, and some
//! namespaces never go.

use super::{Admission, AdmissionAttributes, ClusterReads, Operation};
use crate::authn::reads::Parsed;
use keelson_api::doc::Doc;
use keelson_api::status::{Cause, GroupResource, Status};
use serde::Deserialize;
use std::sync::Arc;

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle {
    reads: Arc<dyn ClusterReads>,
    parsed: Parsed<Namespace>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Namespace {
    status: NamespaceStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NamespaceStatus {
    phase: String,
}

impl NamespaceLifecycle {
    pub(super) fn new(reads: Arc<dyn ClusterReads>) -> NamespaceLifecycle {
        NamespaceLifecycle { reads, parsed: Parsed::default() }
    }

    fn check(&self, object: Option<&Doc>, a: &AdmissionAttributes<'_>) -> Result<(), Status> {
        if a.is("", "namespaces") {
            if a.operation == Operation::Delete && IMMORTAL.contains(&a.name) {
                let resource = GroupResource::new("", "namespaces");
                return Err(Status::forbidden(&resource, a.name, "this namespace may not be deleted"));
            }
            return Ok(());
        }
        // An access review must not tell whether the namespace exists.
        let review = a.is("authorization.k8s.io", "localsubjectaccessreviews");
        if a.namespace.is_empty() || a.operation == Operation::Delete || review {
            return Ok(());
        }
        let found = self.parsed.read(self.reads.as_ref(), "", "namespaces", "", a.namespace);
        let Some(namespace) = found else {
            return Err(Status::not_found(&GroupResource::new("", "namespaces"), a.namespace));
        };
        if a.operation == Operation::Create && namespace.status.phase == "Terminating" {
            let name = a.namespace;
            let why =
                format!("unable to create new content in namespace {name} because it is being terminated");
            return Err(a.forbidden(object, why).with_cause(Cause {
                reason: "NamespaceTerminating".into(),
                message: format!("namespace {name} is being terminated"),
                field: "metadata.namespace".to_owned(),
            }));
        }
        Ok(())
    }
}

impl Admission for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn mutate(
        &self,
        object: &mut Doc,
        _old: Option<&Doc>,
        a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        self.check(Some(object), a)
    }

    fn validate(
        &self,
        object: Option<&Doc>,
        _old: Option<&Doc>,
        a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        // Once more, for requests that have only this phase and for namespaces that went meanwhile.
        self.check(object, a)
    }
}
