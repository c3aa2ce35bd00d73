//! Who may do what: RBAC, the node authorizer, and the reviews that ask both.
//!
//! What always holds here:
//! - nothing is allowed that no rule names; the only group that is never refused is `system:masters`, and none of
//!   our components is in it;
//! - decisions are made from objects held in memory, fed by [`PolicyStore::apply`] and [`NodeGraph`]'s functions
//!   before anyone can see the change; no decision waits for anything;
//! - texts of refusals are upstream's.

mod aggregation;
pub mod bootstrap;
mod escalation;
mod node;
mod rbac;
mod reconcile;
mod review;
mod rule;

pub use aggregation::{AggregationInput, aggregate};
pub use escalation::{EscalationCheck, check_escalation};
pub use node::{NodeAuthorizer, NodeGraph, node_name};
pub use rbac::{PolicyKind, PolicyStore};
pub use reconcile::{Reconciled, reconcile};
pub use review::{access_review_attributes, review_status, rules_review, self_access_review_attributes};
pub use rule::{PolicyRule, covers};

use crate::authn::UserInfo;
use keelson_api::fields_selector::FieldTerm;
use keelson_api::selectors::Requirement;
use keelson_api::status::{GroupResource, Status};
use keelson_base::consts::identity;
use std::sync::Arc;

/// What a request wants to do, as upstream's `authorizer.Attributes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub user: Arc<UserInfo>,
    pub verb: String,
    pub api_group: String,
    pub api_version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// The URL's path, of a non-resource request.
    pub path: String,
    pub is_resource: bool,
    /// Terms of the field selector of a list, watch or deletecollection.
    pub field_selector: Vec<FieldTerm>,
    /// As above, for labels.
    pub label_selector: Vec<Requirement>,
}

/// An authorizer's opinion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// Nobody may allow it any more.
    Deny(String),
    /// Somebody else may know; if nobody does, it is refused with this text.
    NoOpinion(String),
}

impl Decision {
    /// Whether it is allowed.
    pub fn allowed(&self) -> bool {
        *self == Decision::Allow
    }
}

/// Decides about requests.
pub trait Authorizer: Send + Sync {
    fn authorize(&self, attributes: &Attributes) -> Decision;

    /// Why something is allowed, for a SubjectAccessReview's status; empty where there is nothing to say.
    fn allowed_by(&self, _attributes: &Attributes) -> String {
        String::new()
    }
}

/// The API server's authorizer: `system:masters`, then the node authorizer, then RBAC.
pub struct UnionAuthorizer {
    pub node: NodeAuthorizer,
    pub rbac: Arc<PolicyStore>,
}

impl Authorizer for UnionAuthorizer {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        if attributes.user.in_group(identity::MASTERS) {
            return Decision::Allow;
        }
        let node = match self.node.authorize(attributes) {
            Decision::NoOpinion(reason) => reason,
            decided => return decided,
        };
        match self.rbac.authorize(attributes) {
            Decision::NoOpinion(rbac) => {
                let reasons: Vec<&str> =
                    [node.as_str(), rbac.as_str()].into_iter().filter(|r| !r.is_empty()).collect();
                Decision::NoOpinion(reasons.join(", "))
            }
            decided => decided,
        }
    }

    fn allowed_by(&self, attributes: &Attributes) -> String {
        if attributes.user.in_group(identity::MASTERS) || self.node.authorize(attributes).allowed() {
            return String::new();
        }
        self.rbac.allowed_by(attributes)
    }
}

/// A text as Go's `%q` prints it.
fn quote(text: &str) -> String {
    keelson_api::field_errors::quoted(text)
}

/// What the user may not do, in upstream's words.
pub fn forbidden_message(attributes: &Attributes) -> String {
    let user = quote(&attributes.user.name);
    let verb = &attributes.verb;
    let text = if !attributes.is_resource {
        format!("User {user} cannot {verb} path {}", quote(&attributes.path))
    } else {
        let resource = match attributes.subresource.as_str() {
            "" => attributes.resource.clone(),
            subresource => format!("{}/{subresource}", attributes.resource),
        };
        let scope = match attributes.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {}", quote(namespace)),
        };
        let group = quote(&attributes.api_group);
        format!("User {user} cannot {verb} resource {} in API group {group} {scope}", quote(&resource))
    };
    // As upstream: what came from the request must not read as HTML.
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The 403 for a request that nobody allowed.
pub fn forbidden(attributes: &Attributes, reason: &str) -> Status {
    let message = forbidden_message(attributes);
    let message = if reason.is_empty() { message } else { format!("{message}: {reason}") };
    let resource = GroupResource::new(attributes.api_group.clone(), attributes.resource.clone());
    Status::forbidden(&resource, &attributes.name, message)
}

#[cfg(test)]
#[path = "authz_tests.rs"]
mod tests;
