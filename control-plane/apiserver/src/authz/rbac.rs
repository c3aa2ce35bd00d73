//! Roles and bindings in memory, indexed by subject.

use super::rule::PolicyRule;
use super::{Attributes, Authorizer, Decision, quote};
use crate::authn::{UserInfo, service_account};
use ahash::AHashMap;
use parking_lot::RwLock;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The kinds of objects that make up the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyKind {
    ClusterRole,
    ClusterRoleBinding,
    Role,
    RoleBinding,
}

impl PolicyKind {
    /// From a resource's plural in `rbac.authorization.k8s.io`.
    pub fn from_resource(resource: &str) -> Option<PolicyKind> {
        Some(match resource {
            "clusterroles" => PolicyKind::ClusterRole,
            "clusterrolebindings" => PolicyKind::ClusterRoleBinding,
            "roles" => PolicyKind::Role,
            "rolebindings" => PolicyKind::RoleBinding,
            _ => return None,
        })
    }

    /// The resource's plural.
    pub fn resource(self) -> &'static str {
        match self {
            PolicyKind::ClusterRole => "clusterroles",
            PolicyKind::ClusterRoleBinding => "clusterrolebindings",
            PolicyKind::Role => "roles",
            PolicyKind::RoleBinding => "rolebindings",
        }
    }

    /// The kind's name.
    pub fn kind(self) -> &'static str {
        match self {
            PolicyKind::ClusterRole => "ClusterRole",
            PolicyKind::ClusterRoleBinding => "ClusterRoleBinding",
            PolicyKind::Role => "Role",
            PolicyKind::RoleBinding => "RoleBinding",
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RoleObject {
    #[serde(deserialize_with = "super::rule::nullable")]
    rules: Vec<PolicyRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Subject {
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RoleRef {
    pub kind: String,
    pub name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct BindingObject {
    subjects: Vec<Subject>,
    role_ref: RoleRef,
}

struct Binding {
    namespace: String,
    name: String,
    role: RoleRef,
    subjects: Vec<Subject>,
}

#[derive(Default)]
struct Bindings {
    by_name: BTreeMap<String, Arc<Binding>>,
    /// By user name; service accounts by theirs.
    users: AHashMap<String, Vec<Arc<Binding>>>,
    groups: AHashMap<String, Vec<Arc<Binding>>>,
}

enum Key {
    User(String),
    Group(String),
}

fn keys(binding: &Binding) -> impl Iterator<Item = Key> + '_ {
    binding.subjects.iter().filter_map(|subject| match subject.kind.as_str() {
        "User" => Some(Key::User(subject.name.clone())),
        "Group" => Some(Key::Group(subject.name.clone())),
        "ServiceAccount" => {
            let namespace =
                if subject.namespace.is_empty() { &binding.namespace } else { &subject.namespace };
            (!namespace.is_empty()).then(|| Key::User(service_account::user_name(namespace, &subject.name)))
        }
        _ => None,
    })
}

impl Bindings {
    fn set(&mut self, name: &str, new: Option<Binding>) {
        if let Some(old) = self.by_name.remove(name) {
            for key in keys(&old) {
                let (map, key) = match key {
                    Key::User(user) => (&mut self.users, user),
                    Key::Group(group) => (&mut self.groups, group),
                };
                if let Some(list) = map.get_mut(&key) {
                    list.retain(|b| b.name != name);
                    if list.is_empty() {
                        map.remove(&key);
                    }
                }
            }
        }
        let Some(new) = new.map(Arc::new) else { return };
        for key in keys(&new) {
            let list = match key {
                Key::User(user) => self.users.entry(user).or_default(),
                Key::Group(group) => self.groups.entry(group).or_default(),
            };
            if !list.iter().any(|b| b.name == new.name) {
                list.push(new.clone());
                // Decisions must not depend on the order in which bindings came.
                list.sort_by(|a, b| a.name.cmp(&b.name));
            }
        }
        self.by_name.insert(name.to_owned(), new);
    }

    fn of<'a>(&'a self, user: &'a UserInfo) -> impl Iterator<Item = &'a Arc<Binding>> {
        let own = self.users.get(&user.name).into_iter().flatten();
        own.chain(user.groups.iter().filter_map(|g| self.groups.get(g)).flatten())
    }
}

type Rules = Arc<Vec<PolicyRule>>;

#[derive(Default)]
struct Index {
    cluster_roles: AHashMap<String, Rules>,
    roles: AHashMap<String, AHashMap<String, Rules>>,
    cluster: Bindings,
    namespaced: AHashMap<String, Bindings>,
}

/// Why a binding gives nothing.
struct MissingRole {
    kind: &'static str,
    name: String,
}

impl Index {
    fn rules(&self, role: &RoleRef, namespace: &str) -> Result<&Rules, MissingRole> {
        let missing = |kind| MissingRole { kind, name: role.name.clone() };
        match role.kind.as_str() {
            "ClusterRole" => self
                .cluster_roles
                .get(&role.name)
                .ok_or_else(|| missing("clusterrole.rbac.authorization.k8s.io")),
            _ => self
                .roles
                .get(namespace)
                .and_then(|roles| roles.get(&role.name))
                .ok_or_else(|| missing("role.rbac.authorization.k8s.io")),
        }
    }

    /// Calls `visit` with every binding that names the user and the rules behind it, until it answers `true`.
    fn visit<'a>(
        &'a self,
        user: &'a UserInfo,
        namespace: &'a str,
        mut visit: impl FnMut(&'a Binding, Result<&'a [PolicyRule], MissingRole>) -> bool,
    ) {
        for binding in self.cluster.of(user) {
            if visit(binding, self.rules(&binding.role, "").map(|r| r.as_slice())) {
                return;
            }
        }
        let Some(local) = self.namespaced.get(namespace).filter(|_| !namespace.is_empty()) else { return };
        for binding in local.of(user) {
            if visit(binding, self.rules(&binding.role, namespace).map(|r| r.as_slice())) {
                return;
            }
        }
    }
}

/// All roles and bindings, kept current by whoever follows the watch cache.
#[derive(Default)]
pub struct PolicyStore {
    index: RwLock<Index>,
}

impl PolicyStore {
    /// An empty policy: nothing is allowed.
    pub fn new() -> PolicyStore {
        PolicyStore::default()
    }

    /// An object was added or changed (its JSON) or removed (`None`). `namespace` is empty for cluster kinds.
    pub fn apply(
        &self,
        kind: PolicyKind,
        namespace: &str,
        name: &str,
        object: Option<&[u8]>,
    ) -> Result<(), serde_json::Error> {
        match kind {
            PolicyKind::ClusterRole => {
                let rules = object.map(parse_role).transpose()?;
                set(&mut self.index.write().cluster_roles, name, rules);
            }
            PolicyKind::Role => {
                let rules = object.map(parse_role).transpose()?;
                let mut index = self.index.write();
                let roles = index.roles.entry(namespace.to_owned()).or_default();
                set(roles, name, rules);
                if roles.is_empty() {
                    index.roles.remove(namespace);
                }
            }
            PolicyKind::ClusterRoleBinding => {
                let binding = object.map(|o| parse_binding("", name, o)).transpose()?;
                self.index.write().cluster.set(name, binding);
            }
            PolicyKind::RoleBinding => {
                let binding = object.map(|o| parse_binding(namespace, name, o)).transpose()?;
                let mut index = self.index.write();
                let bindings = index.namespaced.entry(namespace.to_owned()).or_default();
                bindings.set(name, binding);
                if bindings.by_name.is_empty() {
                    index.namespaced.remove(namespace);
                }
            }
        }
        Ok(())
    }

    /// All rules that apply to a user in a namespace (cluster-wide ones where it is empty), and what could not be
    /// resolved.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let index = self.index.read();
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        index.visit(user, namespace, |_, found| {
            match found {
                Ok(found) => rules.extend_from_slice(found),
                Err(missing) => errors.push(missing.text()),
            }
            false
        });
        (rules, errors)
    }

    /// The rules of a role that a binding in `namespace` refers to; the error is upstream's "not found".
    pub fn role_rules(&self, kind: &str, name: &str, namespace: &str) -> Result<Vec<PolicyRule>, String> {
        let index = self.index.read();
        let role = RoleRef { kind: kind.to_owned(), name: name.to_owned() };
        index.rules(&role, namespace).map(|r| r.to_vec()).map_err(|missing| missing.text())
    }
}

impl MissingRole {
    fn text(&self) -> String {
        format!("{} {} not found", self.kind, quote(&self.name))
    }
}

fn set(map: &mut AHashMap<String, Rules>, name: &str, rules: Option<Rules>) {
    match rules {
        Some(rules) => {
            map.insert(name.to_owned(), rules);
        }
        None => {
            map.remove(name);
        }
    }
}

fn parse_role(object: &[u8]) -> Result<Rules, serde_json::Error> {
    serde_json::from_slice::<RoleObject>(object).map(|role| Arc::new(role.rules))
}

fn parse_binding(namespace: &str, name: &str, object: &[u8]) -> Result<Binding, serde_json::Error> {
    let object: BindingObject = serde_json::from_slice(object)?;
    Ok(Binding {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        role: object.role_ref,
        subjects: object.subjects,
    })
}

impl Authorizer for PolicyStore {
    fn authorize(&self, attributes: &Attributes) -> Decision {
        let index = self.index.read();
        let mut allowed = false;
        let mut errors: Vec<String> = Vec::new();
        index.visit(&attributes.user, &attributes.namespace, |_, rules| {
            match rules {
                Ok(rules) => allowed = rules.iter().any(|rule| rule.allows(attributes)),
                Err(missing) => errors.push(missing.text()),
            }
            allowed
        });
        if allowed {
            return Decision::Allow;
        }
        errors.dedup();
        Decision::NoOpinion(match errors.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        })
    }

    fn allowed_by(&self, attributes: &Attributes) -> String {
        let index = self.index.read();
        let mut reason = String::new();
        index.visit(&attributes.user, &attributes.namespace, |binding, rules| {
            let allowed = rules.is_ok_and(|rules| rules.iter().any(|rule| rule.allows(attributes)));
            if allowed {
                reason = format!("RBAC: allowed by {}", describe(binding, &attributes.user));
            }
            allowed
        });
        reason
    }
}

fn describe(binding: &Binding, user: &UserInfo) -> String {
    let (kind, name) = match binding.namespace.as_str() {
        "" => ("ClusterRoleBinding", binding.name.clone()),
        namespace => ("RoleBinding", format!("{}/{namespace}", binding.name)),
    };
    let subject = binding.subjects.iter().find(|s| match s.kind.as_str() {
        "User" => s.name == user.name,
        "Group" => user.in_group(&s.name),
        _ => {
            let namespace = if s.namespace.is_empty() { &binding.namespace } else { &s.namespace };
            service_account::user_name(namespace, &s.name) == user.name
        }
    });
    let subject = subject.map_or_else(String::new, |s| match s.kind.as_str() {
        "ServiceAccount" => {
            let namespace = if s.namespace.is_empty() { &binding.namespace } else { &s.namespace };
            format!("{} {}", s.kind, quote(&format!("{}/{namespace}", s.name)))
        }
        _ => format!("{} {}", s.kind, quote(&s.name)),
    });
    format!("{kind} {} of {} {} to {subject}", quote(&name), binding.role.kind, quote(&binding.role.name))
}
