//! Roles and bindings.

use crate::doc::{Doc, Struct, Value};
use crate::f::rbac_v1 as r;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::schema::Field;
use crate::types::core::container::string_list;
use crate::types::core::scheduling;
use crate::types::walk::{child_entry, default_str, json_text, structs, structs_mut};
use crate::types::{Strategy, columns};

const GROUP: &str = "rbac.authorization.k8s.io";

pub static ROLE: Strategy = Strategy {
    validate_create: |doc, _, errors| rules(doc, r::role::RULES, true, errors),
    validate_update: |new, _, _, errors| rules(new, r::role::RULES, true, errors),
    columns: &columns::DEFAULT,
    ..BASE
};

pub static CLUSTER_ROLE: Strategy = Strategy {
    validate_create: |doc, _, errors| cluster_role(doc, errors),
    validate_update: |new, _, _, errors| cluster_role(new, errors),
    columns: &columns::DEFAULT,
    ..BASE
};

pub static ROLE_BINDING: Strategy = Strategy {
    defaults: |doc| binding_defaults(doc, r::role_binding::ROLE_REF, r::role_binding::SUBJECTS),
    validate_create: |doc, _, errors| {
        binding(doc, r::role_binding::ROLE_REF, r::role_binding::SUBJECTS, true, errors);
    },
    validate_update: |new, old, _, errors| {
        binding(new, r::role_binding::ROLE_REF, r::role_binding::SUBJECTS, true, errors);
        same_role(new, old, r::role_binding::ROLE_REF, errors);
    },
    columns: &columns::others::ROLE_BINDING,
    ..BASE
};

pub static CLUSTER_ROLE_BINDING: Strategy = Strategy {
    defaults: |doc| {
        binding_defaults(doc, r::cluster_role_binding::ROLE_REF, r::cluster_role_binding::SUBJECTS)
    },
    validate_create: |doc, _, errors| {
        binding(doc, r::cluster_role_binding::ROLE_REF, r::cluster_role_binding::SUBJECTS, false, errors);
    },
    validate_update: |new, old, _, errors| {
        binding(new, r::cluster_role_binding::ROLE_REF, r::cluster_role_binding::SUBJECTS, false, errors);
        same_role(new, old, r::cluster_role_binding::ROLE_REF, errors);
    },
    columns: &columns::others::CLUSTER_ROLE_BINDING,
    ..BASE
};

const BASE: Strategy =
    Strategy { name_rule: names::name_is_path_segment, allow_create_on_update: true, ..Strategy::BASE };

fn rules(doc: &Doc, field: Field, namespaced: bool, errors: &mut ErrorList) {
    use r::policy_rule as pr;
    let Some(root) = doc.root() else { return };
    let all = FieldPath::new("rules");
    for (i, rule) in structs(root, field) {
        let at = all.index(i);
        let empty = |field: Field| rule.list(field).is_empty();
        if empty(pr::VERBS) {
            errors.required(&at.child("verbs"), "verbs must contain at least one value");
        }
        if !empty(pr::NON_RESOURCE_URLS) {
            let value = || string_list(rule, pr::NON_RESOURCE_URLS);
            let at = at.child("nonResourceURLs");
            if namespaced {
                errors.invalid(&at, value(), "namespaced rules cannot apply to non-resource URLs");
            }
            if !empty(pr::API_GROUPS) || !empty(pr::RESOURCES) || !empty(pr::RESOURCE_NAMES) {
                let text = "rules cannot apply to both regular resources and non-resource URLs";
                errors.invalid(&at, value(), text);
            }
            continue;
        }
        if empty(pr::API_GROUPS) {
            errors.required(&at.child("apiGroups"), "resource rules must supply at least one api group");
        }
        if empty(pr::RESOURCES) {
            errors.required(&at.child("resources"), "resource rules must supply at least one resource");
        }
    }
}

fn cluster_role(doc: &Doc, errors: &mut ErrorList) {
    rules(doc, r::cluster_role::RULES, false, errors);
    let Some(rule) = doc.root().and_then(|root| root.child(r::cluster_role::AGGREGATION_RULE)) else {
        return;
    };
    let base = FieldPath::new("aggregationRule");
    let at = base.child("clusterRoleSelectors");
    if rule.list(r::aggregation_rule::CLUSTER_ROLE_SELECTORS).is_empty() {
        errors.required(&at, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for (i, selector) in structs(rule, r::aggregation_rule::CLUSTER_ROLE_SELECTORS) {
        let before = errors.len();
        scheduling::validate_label_selector(Some(selector), &at.index(i), errors);
        if errors.len() > before {
            let value = json_text(Some(&Value::Struct(selector.clone())));
            errors.invalid(&at.index(i), value, "invalid label selector.");
        }
    }
}

fn binding_defaults(doc: &mut Doc, reference: Field, subjects: Field) {
    let Some(root) = doc.root_mut() else { return };
    if let Some(reference) = child_entry(root, reference) {
        default_str(reference, r::role_ref::API_GROUP, GROUP);
    }
    for subject in structs_mut(root, subjects) {
        if matches!(subject.str(r::subject::KIND), "User" | "Group") {
            default_str(subject, r::subject::API_GROUP, GROUP);
        }
    }
}

fn binding(doc: &Doc, reference: Field, subjects: Field, namespaced: bool, errors: &mut ErrorList) {
    let Some(root) = doc.root() else { return };
    let empty = Struct::new(crate::t::rbac_v1::ROLE_REF);
    let role = root.child(reference).unwrap_or(&empty);
    let at = FieldPath::new("roleRef");
    let group = role.str(r::role_ref::API_GROUP);
    if group != GROUP {
        errors.not_supported(&at.child("apiGroup"), group, &[GROUP]);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    let kind = role.str(r::role_ref::KIND);
    if !kinds.contains(&kind) {
        errors.not_supported(&at.child("kind"), kind, kinds);
    }
    let name = role.str(r::role_ref::NAME);
    if name.is_empty() {
        errors.required(&at.child("name"), "");
    } else {
        errors.invalid_each(&at.child("name"), name, names::path_segment(name));
    }
    let all = FieldPath::new("subjects");
    for (i, one) in structs(root, subjects) {
        subject(one, namespaced, &all.index(i), errors);
    }
}

fn subject(subject: &Struct, namespaced: bool, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let name = subject.str(r::subject::NAME);
    let group = subject.str(r::subject::API_GROUP);
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    match subject.str(r::subject::KIND) {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.invalid_each(&path.child("name"), name, names::dns1123_subdomain(name));
            }
            if !group.is_empty() {
                errors.not_supported(&path.child("apiGroup"), group, &[""]);
            }
            if !namespaced && subject.str(r::subject::NAMESPACE).is_empty() {
                errors.required(&path.child("namespace"), "");
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.not_supported(&path.child("apiGroup"), group, &[GROUP]);
            }
        }
        other => errors.not_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

fn same_role(new: &Doc, old: &Doc, field: Field, errors: &mut ErrorList) {
    if new.get(&[field]) != old.get(&[field]) {
        let value = json_text(new.get(&[field]).cloned().as_ref().map(|v: &Value| v));
        errors.invalid(&FieldPath::new("roleRef"), value, "cannot change roleRef");
    }
}
