//! ObjectMeta's rules, the same for every object (apimachinery `api/validation`).

use std::collections::HashMap;

use compact_str::CompactString;

use crate::doc::{Doc, Map, MetaView, Value};
use crate::f::meta_v1::{managed_fields_entry as mf, object_meta as om, owner_reference};
use crate::field_errors::{BadValue, ErrorList, FieldPath, quoted};
use crate::names::{self, NameRule};
use crate::schema::Field;
use crate::types::walk;

/// Most bytes of all annotations together.
pub const ANNOTATIONS_LIMIT: usize = 256 * 1024;
/// `field is immutable`
pub const IMMUTABLE: &str = "field is immutable";
/// `must be greater than or equal to 0`
pub const NEGATIVE: &str = "must be greater than or equal to 0";

const METADATA: FieldPath<'static> = FieldPath::new("metadata");

/// A new object's metadata.
pub fn validate(doc: &Doc, name_rule: NameRule, namespaced: bool, errors: &mut ErrorList) {
    let meta = doc.meta();
    validate_name(meta, name_rule, errors);
    validate_common(meta, namespaced, &METADATA, errors);
}

/// Metadata of an object that lies within another one; its name is a path segment, whatever its type.
pub fn validate_embedded(meta: MetaView<'_>, namespaced: bool, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let generate = meta.generate_name();
    if !generate.is_empty() {
        errors.invalid_each(&path.child("generateName"), generate, names::path_segment(generate));
    }
    errors.invalid_each(&path.child("name"), meta.name(), names::path_segment(meta.name()));
    validate_common(meta, namespaced, path, errors);
}

fn validate_name(meta: MetaView<'_>, name_rule: NameRule, errors: &mut ErrorList) {
    let generate = meta.generate_name();
    if !generate.is_empty() {
        errors.invalid_each(&METADATA.child("generateName"), generate, name_rule(generate, true));
    }
    let name = meta.name();
    if name.is_empty() {
        errors.required(&METADATA.child("name"), "name or generateName is required");
        return;
    }
    let messages = name_rule(name, false);
    if messages.is_empty() {
        errors.invalid_each(&METADATA.child("name"), name, names::path_segment(name));
    } else {
        errors.invalid_each(&METADATA.child("name"), name, messages);
    }
}

fn validate_common(meta: MetaView<'_>, namespaced: bool, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let namespace = meta.namespace();
    if namespaced {
        if namespace.is_empty() {
            errors.required(&path.child("namespace"), "");
        } else {
            errors.invalid_each(&path.child("namespace"), namespace, names::dns1123_label(namespace));
        }
    } else if !namespace.is_empty() {
        errors.forbidden(&path.child("namespace"), "not allowed on this type");
    }
    if meta.generation() < 0 {
        errors.invalid(&path.child("generation"), meta.generation(), NEGATIVE);
    }
    validate_labels(meta.labels(), &path.child("labels"), errors);
    validate_annotations(meta.annotations(), &path.child("annotations"), errors);
    validate_owners(meta, &path.child("ownerReferences"), errors);
    validate_finalizers(meta, &path.child("finalizers"), errors);
    validate_managed_fields(meta, &path.child("managedFields"), errors);
}

/// Labels: keys are qualified names, values label values.
pub fn validate_labels(labels: Option<&Map>, path: &FieldPath<'_>, errors: &mut ErrorList) {
    for (key, value) in labels.into_iter().flat_map(Map::str_pairs) {
        errors.invalid_each(path, key, names::qualified_name(key));
        errors.invalid_each(path, value, names::label_value(value));
    }
}

/// Annotations: keys are qualified names whatever their case; 256 KiB in all.
pub fn validate_annotations(annotations: Option<&Map>, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let mut total = 0;
    for (key, value) in annotations.into_iter().flat_map(Map::str_pairs) {
        if key.bytes().any(|b| b.is_ascii_uppercase()) {
            errors.invalid_each(path, key, names::qualified_name(&key.to_ascii_lowercase()));
        } else {
            errors.invalid_each(path, key, names::qualified_name(key));
        }
        total += key.len() + value.len();
    }
    if total > ANNOTATIONS_LIMIT {
        errors.too_long(path, ANNOTATIONS_LIMIT);
    }
}

/// Drops owners that stand in the list before; their uids, as they come. Upstream: `handlers/rest.go`, `dedupOwnerReferences`.
pub fn drop_duplicate_owners(doc: &mut Doc) -> Vec<CompactString> {
    // Most objects have one owner at most.
    if doc.meta().owner_references().nth(1).is_none() {
        return Vec::new();
    }
    let mut meta = doc.meta_mut();
    let Some(Value::List(owners)) = meta.as_struct().get_mut(om::OWNER_REFERENCES) else { return Vec::new() };
    let mut dropped = Vec::new();
    let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
    // Few of a list have a uid in common, so few are compared.
    let mut seen: HashMap<CompactString, Vec<usize>> = HashMap::new();
    for owner in owners.drain(..) {
        let uid: CompactString = owner.str_at(&[owner_reference::UID]).into();
        let same_uid = seen.entry(uid.clone()).or_default();
        if same_uid.iter().any(|at| kept[*at] == owner) {
            dropped.push(uid);
        } else {
            same_uid.push(kept.len());
            kept.push(owner);
        }
    }
    *owners = kept;
    dropped
}

fn validate_owners(meta: MetaView<'_>, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let mut controller: Option<(&str, &str)> = None;
    for owner in meta.owner_references() {
        let version = match owner.api_version.split_once('/') {
            None => owner.api_version,
            // A name with more than one slash is none.
            Some((_, version)) => Some(version).filter(|version| !version.contains('/')).unwrap_or_default(),
        };
        if version.is_empty() {
            errors.invalid(&path.child("apiVersion"), owner.api_version, "version must not be empty");
        }
        for (field, value) in [("kind", owner.kind), ("name", owner.name), ("uid", owner.uid)] {
            if value.is_empty() {
                errors.invalid(&path.child(field), value, "must not be empty");
            }
        }
        if owner.api_version == "v1" && owner.kind == "Event" {
            let text = "/v1, Kind=Event is disallowed from being an owner";
            let value = serde_json::json!({
                "apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid,
            });
            errors.invalid(path, BadValue::json(&value), text);
        }
        if owner.controller {
            match controller {
                None => controller = Some((owner.kind, owner.name)),
                Some((kind, name)) => errors.invalid(
                    path,
                    owners_json(meta),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for \
                         {kind}/{name} and {}/{}",
                        owner.kind, owner.name
                    ),
                ),
            }
        }
    }
}

fn owners_json(meta: MetaView<'_>) -> BadValue {
    walk::json_text(meta.as_struct().and_then(|meta| meta.get(om::OWNER_REFERENCES)))
}

/// Groups whose rules are the API machinery's own, which lets finalizers be any qualified name.
const ANY_FINALIZER: [&str; 6] = [
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "policy",
];

/// A finalizer without a domain in front is one of the three that Kubernetes has.
pub fn validate_bare_finalizers(doc: &Doc, errors: &mut ErrorList) {
    let Some(ty) = doc.ty() else { return };
    let of = |gvk: &crate::schema::GvkDef| ANY_FINALIZER.contains(&gvk.group) || gvk.kind == "Event";
    if ty.def().gvks.iter().any(of) {
        return;
    }
    let list = METADATA.child("finalizers");
    for (i, name) in doc.meta().finalizers().enumerate() {
        finalizer_name(name, &list.index(i), errors);
    }
}

fn validate_finalizers(meta: MetaView<'_>, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let (mut orphan, mut foreground) = (false, false);
    for finalizer in meta.finalizers() {
        errors.invalid_each(path, finalizer, names::qualified_name(finalizer));
        orphan |= finalizer == "orphan";
        foreground |= finalizer == "foregroundDeletion";
    }
    if orphan && foreground {
        let list: Vec<&str> = meta.finalizers().collect();
        errors.invalid(
            path,
            BadValue::json(&list),
            "finalizer orphan and foregroundDeletion cannot be both set",
        );
    }
}

/// A finalizer without a domain is one that Kubernetes knows (core `validation.go`, `validateKubeFinalizerName`).
pub fn finalizer_name(name: &str, at: &FieldPath<'_>, errors: &mut ErrorList) {
    if !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
        errors.invalid(at, name, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

/// A field manager's name.
pub fn validate_field_manager(manager: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if manager.len() > 128 {
        errors.too_long(path, 128);
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| c.is_control()) {
        errors.invalid(path, manager, format!("invalid character U+{:04X} (at position {at})", c as u32));
    }
}

fn validate_managed_fields(meta: MetaView<'_>, path: &FieldPath<'_>, errors: &mut ErrorList) {
    for (i, entry) in meta.managed_fields().iter().enumerate() {
        let Some(entry) = entry.as_struct() else { continue };
        let path = path.index(i);
        let operation = entry.str(mf::OPERATION);
        if !matches!(operation, "Apply" | "Update") {
            errors.invalid(&path.child("operation"), operation, "must be `Apply` or `Update`");
        }
        let fields_type = entry.str(mf::FIELDS_TYPE);
        if !fields_type.is_empty() && fields_type != "FieldsV1" {
            errors.invalid(&path.child("fieldsType"), fields_type, "must be `FieldsV1`");
        }
        validate_field_manager(entry.str(mf::MANAGER), &path.child("manager"), errors);
        if entry.str(mf::SUBRESOURCE).len() > 256 {
            errors.too_long(&path.child("subresource"), 256);
        }
    }
}

/// The old object's metadata; managed fields stay the new one's.
pub fn keep(new: &mut Doc, old: &Doc) {
    let managed = new.meta().as_struct().and_then(|meta| meta.get(om::MANAGED_FIELDS)).cloned();
    let Some(mut meta) = old.meta().as_struct().cloned() else { return };
    match managed {
        Some(managed) => drop(meta.set(om::MANAGED_FIELDS, managed)),
        None => drop(meta.remove(om::MANAGED_FIELDS)),
    }
    *new.meta_mut().as_struct() = meta;
}

/// What the server alone decides comes from the old object.
pub fn keep_system_fields(new: &mut Doc, old: &Doc) {
    let old = old.meta();
    let mut meta = new.meta_mut();
    if meta.view().uid().is_empty() {
        meta.set_uid(old.uid());
    }
    if let Some(at) = old.creation_timestamp() {
        meta.set_creation_timestamp(Some(at));
    }
    if let Some(at) = old.deletion_timestamp() {
        meta.set_deletion_timestamp(Some(at));
    }
    if meta.view().deletion_grace_period_seconds().is_none() {
        meta.set_deletion_grace_period_seconds(old.deletion_grace_period_seconds());
    }
}

/// An updated object's metadata against the old.
pub fn validate_update(new: &Doc, old: &Doc, namespaced: bool, errors: &mut ErrorList) {
    let (new, old) = (new.meta(), old.meta());
    let path = &METADATA;
    if new.name().is_empty() {
        errors.required(&path.child("name"), "name or generateName is required");
    } else {
        errors.invalid_each(&path.child("name"), new.name(), names::path_segment(new.name()));
    }
    validate_common(new, namespaced, path, errors);
    if old.is_being_deleted() {
        let mut extra: Vec<&str> =
            new.finalizers().filter(|name| !old.finalizers().any(|o| o == *name)).collect();
        if !extra.is_empty() {
            extra.sort_unstable();
            extra.dedup();
            let list: Vec<String> = extra.iter().map(|name| quoted(name)).collect();
            errors.forbidden(
                &path.child("finalizers"),
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    list.join(", ")
                ),
            );
        }
    }
    if new.resource_version().is_empty() {
        errors.invalid(&path.child("resourceVersion"), "", "must be specified for an update");
    }
    if new.generation() < old.generation() {
        errors.invalid(&path.child("generation"), new.generation(), "must not be decremented");
    }
    for (field, new, old) in [
        ("name", new.name(), old.name()),
        ("namespace", new.namespace(), old.namespace()),
        ("uid", new.uid(), old.uid()),
    ] {
        if new != old {
            errors.invalid(&path.child(field), new, IMMUTABLE);
        }
    }
    immutable_field(new, old, om::CREATION_TIMESTAMP, &path.child("creationTimestamp"), errors);
    immutable_field(new, old, om::DELETION_TIMESTAMP, &path.child("deletionTimestamp"), errors);
    immutable_field(
        new,
        old,
        om::DELETION_GRACE_PERIOD_SECONDS,
        &path.child("deletionGracePeriodSeconds"),
        errors,
    );
}

fn immutable_field(
    new: MetaView<'_>,
    old: MetaView<'_>,
    field: Field,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    let get = |meta: MetaView<'_>| meta.as_struct().and_then(|meta| meta.get(field)).cloned();
    let (new, old) = (get(new), get(old));
    immutable(new.as_ref(), old.as_ref(), path, errors);
}

/// Refuses a changed value: `field is immutable`.
pub fn immutable(new: Option<&Value>, old: Option<&Value>, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if !walk::same(new, old) {
        let value = match new {
            Some(Value::Str(text)) => BadValue::Str(text.to_string()),
            other => walk::json_text(other),
        };
        errors.invalid(path, value, IMMUTABLE);
    }
}
