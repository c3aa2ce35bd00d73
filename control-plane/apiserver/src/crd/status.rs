//! What a definition's status should say: names, conditions. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use keelson_api::doc::{Doc, Struct, Value};
use keelson_api::f::apiextensions_v1 as x;
use keelson_api::field_errors::{ErrorList, FieldPath, quoted};
use keelson_api::schema::Field;
use keelson_api::structural::{Schema, keywords, rules};
use keelson_api::types::others::definition::schema_of;
use keelson_api::types::walk::{strs, structs};
use keelson_api::{t, types};
use x::custom_resource_definition as d;
use x::custom_resource_definition_condition as c;
use x::custom_resource_definition_names as n;
use x::custom_resource_definition_spec as s;
use x::custom_resource_definition_status as st;
use x::custom_resource_definition_version as v;

/// A condition to set.
pub struct Condition<'a> {
    pub kind: &'a str,
    pub status: &'a str,
    pub reason: &'a str,
    pub message: &'a str,
}

/// What a definition has of its group's names: what all others are judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    pub group: String,
    resources: Vec<String>,
    kinds: Vec<String>,
}

impl Claim {
    /// The names that a definition's status says are its own.
    pub fn of(doc: &Doc) -> Claim {
        let mut claim = Claim {
            group: spec_of(doc).map_or("", |spec| spec.str(s::GROUP)).to_owned(),
            ..Claim::default()
        };
        if let Some(accepted) = status_of(doc).and_then(|status| status.child(st::ACCEPTED_NAMES)) {
            claim.resources.extend([accepted.str(n::PLURAL), accepted.str(n::SINGULAR)].map(str::to_owned));
            claim.resources.extend(strs(accepted, n::SHORT_NAMES).map(|(_, name)| name.to_owned()));
            claim.kinds.extend([accepted.str(n::KIND), accepted.str(n::LIST_KIND)].map(str::to_owned));
        }
        claim
    }
}

/// The definition with the status it should have; `None` where it has that already. `others`: what all other definitions have.
pub fn plan<'d>(doc: &Doc, others: impl Iterator<Item = &'d Claim>, now: Timestamp) -> Option<Doc> {
    let mut new = doc.clone();
    names(&mut new, others, now);
    structure(&mut new, now);
    approval(&mut new, now);
    (new != *doc).then_some(new)
}

fn spec_of(doc: &Doc) -> Option<&Struct> {
    doc.root()?.child(d::SPEC)
}

fn status_of(doc: &Doc) -> Option<&Struct> {
    doc.root()?.child(d::STATUS)
}

/// A condition of the definition.
pub fn find<'d>(doc: &'d Doc, kind: &str) -> Option<&'d Struct> {
    let status = status_of(doc)?;
    structs(status, st::CONDITIONS).map(|(_, one)| one).find(|one| one.str(c::TYPE) == kind)
}

pub fn is_true(doc: &Doc, kind: &str) -> bool {
    find(doc, kind).is_some_and(|one| one.str(c::STATUS) == "True")
}

/// Sets a condition; its transition time moves only when its status does.
pub fn set(doc: &mut Doc, condition: &Condition<'_>, now: Timestamp) {
    let Some(Value::List(all)) = doc.entry(&[d::STATUS, st::CONDITIONS]) else { return };
    let known =
        all.iter_mut().filter_map(Value::as_struct_mut).find(|one| one.str(c::TYPE) == condition.kind);
    let moved = known.as_ref().is_none_or(|one| one.str(c::STATUS) != condition.status);
    let mut fresh = Struct::new(t::apiextensions_v1::CUSTOM_RESOURCE_DEFINITION_CONDITION);
    let is_new = known.is_none();
    let one = known.unwrap_or(&mut fresh);
    one.set(c::TYPE, condition.kind);
    one.set(c::STATUS, condition.status);
    one.set(c::REASON, condition.reason);
    one.set(c::MESSAGE, condition.message);
    if moved {
        one.set(c::LAST_TRANSITION_TIME, types::time_text(now));
    }
    if is_new {
        all.push(Value::Struct(fresh));
    }
}

fn clear(doc: &mut Doc, kind: &str) {
    if find(doc, kind).is_some()
        && let Some(Value::List(all)) = doc.entry(&[d::STATUS, st::CONDITIONS])
    {
        all.retain(|one| one.as_struct().is_none_or(|one| one.str(c::TYPE) != kind));
    }
}

fn names<'d>(doc: &mut Doc, others: impl Iterator<Item = &'d Claim>, now: Timestamp) {
    let old = doc.clone();
    let Some(spec) = spec_of(&old) else { return };
    let empty = Struct::new(t::apiextensions_v1::CUSTOM_RESOURCE_DEFINITION_NAMES);
    let requested = spec.child(s::NAMES).unwrap_or(&empty);
    let accepted = status_of(&old).and_then(|status| status.child(st::ACCEPTED_NAMES)).unwrap_or(&empty);
    let own = Claim::of(&old);
    let mut all: Vec<&Claim> = others.filter(|claim| claim.group == own.group).collect();
    all.push(&own);
    let resources: BTreeSet<&str> =
        all.iter().flat_map(|claim| &claim.resources).map(String::as_str).collect();
    let kinds: BTreeSet<&str> = all.iter().flat_map(|claim| &claim.kinds).map(String::as_str).collect();
    let mut result = accepted.clone();
    let mut conflict: Option<(&str, String)> = None;
    let taken = |name: &str, used: &BTreeSet<&str>| {
        used.contains(name).then(|| format!("{} is already in use", quoted(name)))
    };
    for (field, used, reason) in [
        (n::PLURAL, &resources, "PluralConflict"),
        (n::SINGULAR, &resources, "SingularConflict"),
        (n::SHORT_NAMES, &resources, "ShortNamesConflict"),
        (n::KIND, &kinds, "KindConflict"),
        (n::LIST_KIND, &kinds, "ListKindConflict"),
    ] {
        let problem = if field == n::SHORT_NAMES {
            let ours: Vec<&str> = strs(accepted, field).map(|(_, name)| name).collect();
            let mut found: Vec<String> = Vec::new();
            for (_, name) in strs(requested, field).filter(|(_, name)| !ours.contains(name)) {
                found.extend(taken(name, used).filter(|text| !found.contains(text)));
            }
            match found.len() {
                0 => None,
                1 => found.pop(),
                _ => Some(format!("[{}]", found.join(", "))),
            }
        } else if requested.str(field) == accepted.str(field) {
            None
        } else {
            taken(requested.str(field), used)
        };
        match problem {
            Some(text) => conflict = Some((reason, text)),
            None => copy(requested, &mut result, field),
        }
    }
    copy(requested, &mut result, n::CATEGORIES);
    if result != *accepted {
        doc.set(&[d::STATUS, st::ACCEPTED_NAMES], result);
    }
    let (status, reason, message) = match &conflict {
        Some((reason, text)) => ("False", *reason, text.as_str()),
        None => ("True", "NoConflicts", "no conflicts found"),
    };
    set(doc, &Condition { kind: "NamesAccepted", status, reason, message }, now);
    establish(doc, conflict.is_none(), now);
}

fn copy(from: &Struct, to: &mut Struct, field: Field) {
    match from.get(field) {
        Some(value) => drop(to.set(field, value.clone())),
        None => drop(to.remove(field)),
    }
}

/// A definition is established once its names are; unlike upstream's it is not while it asks for what this server does not do.
fn establish(doc: &mut Doc, accepted: bool, now: Timestamp) {
    let missing = unsupported(doc);
    let before = is_true(doc, "Established");
    let condition = match &missing {
        Some(text) => {
            Condition { kind: "Established", status: "False", reason: "NotSupported", message: text }
        }
        None if before => return,
        None if accepted => Condition {
            kind: "Established",
            status: "True",
            reason: "InitialNamesAccepted",
            message: "the initial names have been accepted",
        },
        None => Condition {
            kind: "Established",
            status: "False",
            reason: "NotAccepted",
            message: "not all names are accepted",
        },
    };
    set(doc, &condition, now);
}

/// What of a definition this server cannot do yet.
pub fn unsupported(doc: &Doc) -> Option<String> {
    let spec = spec_of(doc)?;
    let conversion =
        spec.child(s::CONVERSION).map_or("", |one| one.str(x::custom_resource_conversion::STRATEGY));
    if conversion == "Webhook" {
        return Some("spec.conversion.strategy: conversion webhooks are not supported yet".to_owned());
    }
    let has_rules = |node: &Struct| !node.list(x::json_schema_props::X_KUBERNETES_VALIDATIONS).is_empty();
    let (i, _) = structs(spec, s::VERSIONS)
        .find(|(_, version)| schema_of(version).is_some_and(|schema| keywords::any(schema, &has_rules)))?;
    Some(format!(
        "spec.versions[{i}].schema.openAPIV3Schema: x-kubernetes-validations (CEL rules) are not supported yet"
    ))
}

fn structure(doc: &mut Doc, now: Timestamp) {
    const KIND: &str = "NonStructuralSchema";
    let mut errors = ErrorList::new();
    let mut unreadable = None;
    for (i, version) in spec_of(doc).into_iter().flat_map(|spec| structs(spec, s::VERSIONS)) {
        let Some(schema) = schema_of(version) else { continue };
        if let Err(error) = Schema::parse(schema) {
            let name = version.str(v::NAME);
            unreadable = Some(format!("failed to check validation schema for version {name}: {error}"));
            break;
        }
        let spec = FieldPath::new("spec");
        let versions = spec.child("versions");
        let at = versions.index(i);
        let at = at.child("schema");
        rules::structural(schema, &at.child("openAPIV3Schema"), &mut errors);
    }
    let (reason, message) = match unreadable {
        Some(text) => ("StructuralError", text),
        None if errors.is_empty() => return clear(doc, KIND),
        None => ("Violations", errors.aggregate()),
    };
    set(doc, &Condition { kind: KIND, status: "True", reason, message: &message }, now);
}

fn approval(doc: &mut Doc, now: Timestamp) {
    const KIND: &str = "KubernetesAPIApprovalPolicyConformant";
    const ANNOTATION: &str = "api-approved.kubernetes.io";
    let group = spec_of(doc).map_or("", |spec| spec.str(s::GROUP)).to_owned();
    let protected = ["k8s.io", "kubernetes.io"]
        .into_iter()
        .any(|domain| group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
    if !protected {
        return clear(doc, KIND);
    }
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let text = doc.meta().annotation(ANNOTATION).unwrap_or_default().to_owned();
    let must = format!("protected groups must have approval annotation \"{ANNOTATION}\"");
    let is_url = text
        .split_once("://")
        .is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty() && !rest.starts_with('/'));
    let (status, reason, message) = if text.is_empty() {
        ("False", "MissingAnnotation", format!("{must}, {SEE}"))
    } else if text.starts_with("unapproved") {
        ("False", "UnapprovedAnnotation", format!("not approved: {}", quoted(&text)))
    } else if is_url {
        ("True", "ApprovedAnnotation", format!("approved in {text}"))
    } else {
        let text = format!("{must} with either a URL or a reason starting with \"unapproved\", {SEE}");
        ("False", "InvalidAnnotation", text)
    };
    set(doc, &Condition { kind: KIND, status, reason, message: &message }, now);
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
