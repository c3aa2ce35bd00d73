//! The roles and bindings that exist from the first start: upstream's at the default gates of 1.35, as a table,
//! and the few of our own (kubeadm's, under our names).
//!
//! A rule is verbs, groups, resources and names, each a list separated by blanks; `core` is the legacy group.

mod cluster;
mod controllers;
mod namespaced;

use super::aggregation::{AggregationInput, aggregate};
use super::rbac::PolicyKind;
use super::rule::PolicyRule;
use serde_json::{Map, Value, json};

pub(super) const READ: &str = "get list watch";
pub(super) const WRITE: &str = "create update patch delete deletecollection";
pub(super) const READ_WRITE: &str = "get list watch create update patch delete deletecollection";
pub(super) const READ_UPDATE: &str = "get list watch update patch";
pub(super) const EVENTS: Rule = rule("create update patch", "core events.k8s.io", "events");

/// Prefix of controllers' roles.
pub const CONTROLLER_PREFIX: &str = "system:controller:";
/// Prefix of the roles that let our controllers patch.
pub const OWN_CONTROLLER_PREFIX: &str = "keelson:controller:";
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// A row of a role.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
    urls: &'static str,
}

pub(super) const fn rule(verbs: &'static str, groups: &'static str, resources: &'static str) -> Rule {
    Rule { verbs, groups, resources, names: "", urls: "" }
}

pub(super) const fn named(
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
) -> Rule {
    Rule { verbs, groups, resources, names, urls: "" }
}

pub(super) const fn url(verbs: &'static str, urls: &'static str) -> Rule {
    Rule { verbs, groups: "", resources: "", names: "", urls }
}

impl Rule {
    fn policy(&self) -> PolicyRule {
        // Upstream's builder sorts each list; clients compare what they read.
        let list = |text: &str| {
            let mut items: Vec<String> =
                text.split_whitespace().map(|i| if i == "core" { "" } else { i }.to_owned()).collect();
            items.sort();
            items
        };
        PolicyRule {
            verbs: list(self.verbs),
            api_groups: list(self.groups),
            resources: list(self.resources),
            resource_names: list(self.names),
            non_resource_urls: list(self.urls),
        }
    }
}

/// A cluster role of the table.
pub(super) struct ClusterRole {
    name: &'static str,
    /// Label `rbac.authorization.k8s.io/aggregate-to-<this>`, or empty.
    part_of: &'static str,
    /// Collects roles labelled `aggregate-to-<this>`, or empty.
    collects: &'static str,
    rules: &'static [Rule],
}

/// Whom a binding is for.
#[derive(Clone, Copy)]
pub(super) enum Who {
    User(&'static str),
    Group(&'static str),
    /// Namespace and name.
    Account(&'static str, &'static str),
}

/// An object to be there after start.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapObject {
    pub kind: PolicyKind,
    /// Empty for cluster kinds.
    pub namespace: String,
    pub name: String,
    /// Complete JSON with apiVersion and kind.
    pub object: Value,
}

fn metadata(namespace: &str, name: &str, part_of: &str) -> Value {
    let mut labels = Map::new();
    labels.insert("kubernetes.io/bootstrapping".to_owned(), json!("rbac-defaults"));
    if !part_of.is_empty() {
        labels.insert(format!("rbac.authorization.k8s.io/aggregate-to-{part_of}"), json!("true"));
    }
    let mut meta = json!({ "name": name, "labels": labels, "annotations": { AUTO_UPDATE: "true" } });
    if !namespace.is_empty() {
        meta["namespace"] = json!(namespace);
    }
    meta
}

fn role(kind: PolicyKind, namespace: &str, name: &str, part_of: &str, rules: &[Rule]) -> BootstrapObject {
    let rules: Vec<PolicyRule> = rules.iter().map(Rule::policy).collect();
    let object = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind.kind(),
        "metadata": metadata(namespace, name, part_of),
        "rules": rules,
    });
    BootstrapObject { kind, namespace: namespace.to_owned(), name: name.to_owned(), object }
}

fn binding(
    kind: PolicyKind,
    namespace: &str,
    name: &str,
    role: (PolicyKind, &str),
    subjects: &[Who],
) -> BootstrapObject {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let subject = |who: &Who| match who {
        Who::User(name) => json!({ "kind": "User", "apiGroup": GROUP, "name": name }),
        Who::Group(name) => json!({ "kind": "Group", "apiGroup": GROUP, "name": name }),
        Who::Account(namespace, name) => {
            json!({ "kind": "ServiceAccount", "name": name, "namespace": namespace })
        }
    };
    let mut object = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind.kind(),
        "metadata": metadata(namespace, name, ""),
        "roleRef": { "apiGroup": GROUP, "kind": role.0.kind(), "name": role.1 },
    });
    if !subjects.is_empty() {
        object["subjects"] = subjects.iter().map(subject).collect();
    }
    BootstrapObject { kind, namespace: namespace.to_owned(), name: name.to_owned(), object }
}

/// Everything that must be there, roles before the bindings that name them. Aggregated roles come with their rules
/// filled in, so that a new cluster need not wait for the aggregation.
pub fn objects() -> Vec<BootstrapObject> {
    let mut all = cluster_roles();
    for (name, rules) in controllers::CONTROLLERS {
        let role_name = format!("{CONTROLLER_PREFIX}{name}");
        all.push(role(PolicyKind::ClusterRole, "", &role_name, "", rules));
        all.extend(patching(name, rules));
    }
    for (name, rules) in cluster::OWN_ROLES {
        all.push(role(PolicyKind::ClusterRole, "", name, "", rules));
    }
    for (name, role_name, subjects) in cluster::BINDINGS.iter().chain(cluster::OWN_BINDINGS) {
        let role = (PolicyKind::ClusterRole, *role_name);
        all.push(binding(PolicyKind::ClusterRoleBinding, "", name, role, subjects));
    }
    for (name, _) in controllers::CONTROLLERS {
        let role_name = format!("{CONTROLLER_PREFIX}{name}");
        let role = (PolicyKind::ClusterRole, role_name.as_str());
        let subjects = [Who::Account("kube-system", name)];
        all.push(binding(PolicyKind::ClusterRoleBinding, "", &role_name, role, &subjects));
    }
    for (namespace, name, rules) in namespaced::ROLES {
        all.push(role(PolicyKind::Role, namespace, name, "", rules));
    }
    for (namespace, name, role_name, subjects) in namespaced::BINDINGS {
        let role = (PolicyKind::Role, *role_name);
        all.push(binding(PolicyKind::RoleBinding, namespace, name, role, subjects));
    }
    all
}

/// Our controllers patch what upstream's replace (a typed PUT would lose the fields of a newer minor), so each gets
/// `patch` where upstream's role grants it `update`, in a role of its own beside upstream's.
fn patching(controller: &'static str, rules: &[Rule]) -> Vec<BootstrapObject> {
    let verb = |rule: &PolicyRule, verb: &str| rule.verbs.iter().any(|granted| granted == verb);
    let rules: Vec<PolicyRule> = rules
        .iter()
        .map(Rule::policy)
        .filter(|rule| verb(rule, "update") && !verb(rule, "patch"))
        .map(|rule| PolicyRule { verbs: vec!["patch".to_owned()], ..rule })
        .collect();
    if rules.is_empty() {
        return Vec::new();
    }
    let name = format!("{OWN_CONTROLLER_PREFIX}{controller}");
    let mut own = role(PolicyKind::ClusterRole, "", &name, "", &[]);
    own.object["rules"] = json!(rules);
    let subjects = [Who::Account("kube-system", controller)];
    let bound = (PolicyKind::ClusterRole, name.as_str());
    let binding = binding(PolicyKind::ClusterRoleBinding, "", &name, bound, &subjects);
    vec![own, binding]
}

fn cluster_roles() -> Vec<BootstrapObject> {
    let mut roles: Vec<BootstrapObject> = cluster::ROLES
        .iter()
        .map(|row| {
            let mut made = role(PolicyKind::ClusterRole, "", row.name, row.part_of, row.rules);
            if !row.collects.is_empty() {
                let label = format!("rbac.authorization.k8s.io/aggregate-to-{}", row.collects);
                made.object["aggregationRule"] =
                    json!({ "clusterRoleSelectors": [{ "matchLabels": { label: "true" } }] });
            }
            made
        })
        .collect();
    // `admin` collects `edit`, which collects `view`: three rounds settle it.
    for _ in 0..3 {
        let inputs: Vec<AggregationInput> =
            roles.iter().filter_map(|r| serde_json::from_value(r.object.clone()).ok()).collect();
        for (name, rules) in aggregate(&inputs) {
            if let Some(found) = roles.iter_mut().find(|r| r.name == name) {
                found.object["rules"] = json!(rules);
            }
        }
    }
    roles
}

/// Rules that the node authorizer applies to kubelets where nothing is subdivided: those of role `system:node`.
pub fn node_rules() -> Vec<PolicyRule> {
    cluster::ROLES
        .iter()
        .filter(|r| r.name == "system:node")
        .flat_map(|r| r.rules)
        .map(Rule::policy)
        .collect()
}

#[cfg(test)]
#[path = "../bootstrap_tests.rs"]
mod tests;
