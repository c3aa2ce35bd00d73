//! Nobody grants what he does not have: checks on writes of roles and bindings.

use super::rbac::{PolicyStore, RoleRef};
use super::rule::{PolicyRule, covers, describe, nullable, quote_list};
use super::{Attributes, Authorizer, PolicyKind, quote};
use crate::authn::UserInfo;
use keelson_api::status::{GroupResource, Status};
use keelson_base::consts::identity;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

const GROUP: &str = "rbac.authorization.k8s.io";

/// A write of a role or binding, as it would be stored.
pub struct EscalationCheck<'a> {
    pub user: &'a Arc<UserInfo>,
    pub kind: PolicyKind,
    /// Of the request; empty for cluster kinds.
    pub namespace: &'a str,
    /// Of the request's URL (empty on create).
    pub request_name: &'a str,
    /// JSON of the new object.
    pub new: &'a [u8],
    /// JSON of the object it replaces.
    pub old: Option<&'a [u8]>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    metadata: WrittenMeta,
    #[serde(deserialize_with = "nullable")]
    rules: Vec<PolicyRule>,
    aggregation_rule: Option<WrittenAggregation>,
    role_ref: RoleRef,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WrittenMeta {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WrittenAggregation {
    cluster_role_selectors: Vec<Value>,
}

impl Written {
    fn aggregates(&self) -> bool {
        self.aggregation_rule.as_ref().is_some_and(|a| !a.cluster_role_selectors.is_empty())
    }
}

/// Refuses a write that would give somebody rights which the writer does not hold. To be called after mutating
/// admission, before the store, for creates and updates of the four RBAC resources by any way (put, patch, apply).
pub fn check_escalation(
    check: &EscalationCheck<'_>,
    authorizer: &dyn Authorizer,
    policy: &PolicyStore,
) -> Result<(), Status> {
    if check.user.in_group(identity::MASTERS) {
        return Ok(());
    }
    let parse = |bytes: &[u8]| {
        serde_json::from_slice::<Written>(bytes)
            .map_err(|e| Status::internal(format!("cannot read the object: {e}")))
    };
    let new = parse(check.new)?;
    if check.old.is_some_and(|old| only_gc_fields_differ(check.new, old)) {
        return Ok(());
    }
    let refuse = |why: String| {
        let resource = GroupResource::new(GROUP, check.kind.resource());
        Err(Status::forbidden(&resource, &new.metadata.name, why))
    };
    match check.kind {
        PolicyKind::ClusterRole | PolicyKind::Role => {
            if asks(authorizer, check, "escalate", check.kind.resource(), check.request_name) {
                return Ok(());
            }
            if let Some(why) = escalation(check, policy, &new.rules) {
                return refuse(why);
            }
            let old = check.old.map(parse).transpose()?;
            let aggregates = new.aggregates() || old.is_some_and(|o| o.aggregates());
            if check.kind == PolicyKind::ClusterRole
                && aggregates
                && escalation(check, policy, &full_authority()).is_some()
            {
                return refuse("must have cluster-admin privileges to use the aggregationRule".to_owned());
            }
            Ok(())
        }
        PolicyKind::ClusterRoleBinding | PolicyKind::RoleBinding => {
            let resource = match new.role_ref.kind.as_str() {
                "ClusterRole" => "clusterroles",
                _ => "roles",
            };
            if asks(authorizer, check, "bind", resource, &new.role_ref.name) {
                return Ok(());
            }
            let rules = policy
                .role_rules(&new.role_ref.kind, &new.role_ref.name, check.namespace)
                .map_err(|_| Status::not_found(&GroupResource::new(GROUP, resource), &new.role_ref.name))?;
            match escalation(check, policy, &rules) {
                Some(why) => refuse(why),
                None => Ok(()),
            }
        }
    }
}

fn asks(
    authorizer: &dyn Authorizer,
    check: &EscalationCheck<'_>,
    verb: &str,
    resource: &str,
    name: &str,
) -> bool {
    let attributes = Attributes {
        user: check.user.clone(),
        verb: verb.to_owned(),
        api_group: GROUP.to_owned(),
        api_version: "*".to_owned(),
        resource: resource.to_owned(),
        namespace: check.namespace.to_owned(),
        name: name.to_owned(),
        is_resource: true,
        ..Attributes::default()
    };
    authorizer.authorize(&attributes).allowed()
}

fn escalation(check: &EscalationCheck<'_>, policy: &PolicyStore, rules: &[PolicyRule]) -> Option<String> {
    let (owned, errors) = policy.rules_for(check.user, check.namespace);
    let missing = covers(&owned, rules);
    if missing.is_empty() {
        return None;
    }
    let user = check.user;
    let mut text = format!(
        "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        quote(&user.name),
        quote_list(&user.groups),
        describe(missing)
    );
    if !errors.is_empty() {
        text.push_str(&format!("; resolution errors: [{}]", errors.join(", ")));
    }
    Some(text)
}

fn full_authority() -> Vec<PolicyRule> {
    let all = || vec!["*".to_owned()];
    vec![
        PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() },
        PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() },
    ]
}

/// Whether a write changes nothing but owner references and finalizers, which garbage collection must be able to.
fn only_gc_fields_differ(new: &[u8], old: &[u8]) -> bool {
    let stripped = |bytes: &[u8]| {
        let mut value: Value = serde_json::from_slice(bytes).ok()?;
        let meta = value.get_mut("metadata")?.as_object_mut()?;
        for key in ["ownerReferences", "finalizers", "selfLink", "managedFields", "resourceVersion"] {
            meta.remove(key);
        }
        if let Some(object) = value.as_object_mut() {
            object.remove("apiVersion");
            object.remove("kind");
        }
        Some(value)
    };
    matches!((stripped(new), stripped(old)), (Some(a), Some(b)) if a == b)
}
