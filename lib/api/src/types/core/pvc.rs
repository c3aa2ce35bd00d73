//! Claims and volumes of persistent storage.

use crate::doc::{Doc, Struct, Value};
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::schema::Field;
use crate::types::core::pod_defaults::round_up;
use crate::types::core::{resources, scheduling};
use crate::types::meta::immutable;
use crate::types::walk::{child_entry, default_str, default_value, present, strs};
use crate::types::{Ctx, Strategy, columns};

/// The annotation that named the storage class before there was a field.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const SPEC: FieldPath<'static> = FieldPath::new("spec");

/// PersistentVolumeClaims.
pub static CLAIM: Strategy = Strategy {
    defaults: |doc| {
        if let Some(root) = doc.root_mut() {
            claim_defaults(root);
        }
    },
    prepare_create: |doc, ctx| {
        doc.set(&[c::persistent_volume_claim::STATUS, c::persistent_volume_claim_status::PHASE], "Pending");
        drop_foreign_source(doc, ctx);
        drop_unknown_source(doc);
        same_data_source(doc);
    },
    prepare_update: |new, old, ctx| {
        let had =
            old.get(&[c::persistent_volume_claim::SPEC, c::persistent_volume_claim_spec::DATA_SOURCE_REF]);
        if had.is_none() {
            drop_foreign_source(new, ctx);
        }
        let had = old.get(&[c::persistent_volume_claim::SPEC, c::persistent_volume_claim_spec::DATA_SOURCE]);
        if had.is_none() {
            drop_unknown_source(new);
        }
        same_data_source(new);
    },
    validate_create: |doc, _, errors| {
        let empty = Struct::new(crate::t::core_v1::PERSISTENT_VOLUME_CLAIM_SPEC);
        let spec = doc.root().and_then(|root| root.child(c::persistent_volume_claim::SPEC)).unwrap_or(&empty);
        validate_spec(spec, &SPEC, errors);
    },
    validate_update: claim_update,
    validate_status_update: claim_status,
    warnings: |new, _, _| claim_warnings(new),
    columns: &columns::core::PERSISTENT_VOLUME_CLAIM,
    ..Strategy::BASE
};

/// A source in another namespace takes its feature gate.
fn drop_foreign_source(doc: &mut Doc, ctx: &Ctx<'_>) {
    use c::persistent_volume_claim_spec as s;
    if ctx.gates.enabled("CrossNamespaceVolumeDataSource") {
        return;
    }
    let Some(spec) = doc.root_mut().and_then(|root| root.child_mut(c::persistent_volume_claim::SPEC)) else {
        return;
    };
    let foreign = spec
        .child(s::DATA_SOURCE_REF)
        .is_some_and(|source| !source.str(c::typed_object_reference::NAMESPACE).is_empty());
    if foreign {
        spec.remove(s::DATA_SOURCE_REF);
    }
}

/// A `dataSource` alone that is neither a claim nor a snapshot has always been ignored.
fn drop_unknown_source(doc: &mut Doc) {
    use c::persistent_volume_claim_spec as s;
    use c::typed_local_object_reference as local;
    let Some(spec) = doc.root_mut().and_then(|root| root.child_mut(c::persistent_volume_claim::SPEC)) else {
        return;
    };
    let Some(source) = spec.child(s::DATA_SOURCE).filter(|_| !present(spec, s::DATA_SOURCE_REF)) else {
        return;
    };
    let known = match source.str(local::API_GROUP) {
        "" => source.str(local::KIND) == "PersistentVolumeClaim",
        "snapshot.storage.k8s.io" => source.str(local::KIND) == "VolumeSnapshot",
        _ => false,
    };
    if !known {
        spec.remove(s::DATA_SOURCE);
    }
}

/// `dataSource` and `dataSourceRef` say the same where only one was given and it is not of another namespace.
fn same_data_source(doc: &mut Doc) {
    use c::persistent_volume_claim_spec as s;
    use c::typed_local_object_reference as local;
    use c::typed_object_reference as typed;
    let pairs =
        [(local::API_GROUP, typed::API_GROUP), (local::KIND, typed::KIND), (local::NAME, typed::NAME)];
    let Some(spec) = doc.root_mut().and_then(|root| root.child_mut(c::persistent_volume_claim::SPEC)) else {
        return;
    };
    match (spec.child(s::DATA_SOURCE).cloned(), spec.child(s::DATA_SOURCE_REF).cloned()) {
        (Some(source), None) => {
            let mut reference = Struct::new(crate::t::core_v1::TYPED_OBJECT_REFERENCE);
            for (from, to) in pairs {
                if let Some(value) = source.get(from) {
                    reference.set(to, value.clone());
                }
            }
            spec.set(s::DATA_SOURCE_REF, reference);
        }
        (None, Some(reference)) if reference.str(typed::NAMESPACE).is_empty() => {
            let mut source = Struct::new(crate::t::core_v1::TYPED_LOCAL_OBJECT_REFERENCE);
            for (to, from) in pairs {
                if let Some(value) = reference.get(from) {
                    source.set(to, value.clone());
                }
            }
            spec.set(s::DATA_SOURCE, source);
        }
        _ => {}
    }
}

fn claim_update(new: &Doc, old: &Doc, _: &Ctx<'_>, errors: &mut ErrorList) {
    use c::persistent_volume_claim as p;
    use c::persistent_volume_claim_spec as s;
    let empty = Struct::new(crate::t::core_v1::PERSISTENT_VOLUME_CLAIM_SPEC);
    let spec = |doc: &Doc| doc.root().and_then(|root| root.child(p::SPEC)).unwrap_or(&empty).clone();
    let (now, before) = (spec(new), spec(old));
    validate_spec(&now, &SPEC, errors);
    let (mut a, mut b) = (now.clone(), before.clone());
    if before.str(s::VOLUME_NAME).is_empty() {
        a.remove(s::VOLUME_NAME);
        b.remove(s::VOLUME_NAME);
    }
    class_change(new, old, &mut a, &before, errors);
    if new.str(&[p::STATUS, c::persistent_volume_claim_status::PHASE]) == "Bound" {
        a.remove(s::VOLUME_ATTRIBUTES_CLASS_NAME);
        b.remove(s::VOLUME_ATTRIBUTES_CLASS_NAME);
        for spec in [&mut a, &mut b] {
            let requests = spec
                .child_mut(s::RESOURCES)
                .and_then(|r| r.get_mut(c::volume_resource_requirements::REQUESTS))
                .and_then(Value::as_map_mut);
            if let Some(requests) = requests {
                requests.remove("storage");
            }
        }
    }
    if a != b {
        errors.forbidden(
            &SPEC,
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n",
        );
    }
    let size = |map: Option<&crate::doc::Map>| {
        resources::amounts(map).find(|(name, _)| *name == "storage").map(|(_, q)| q)
    };
    let requested = |spec: &Struct| {
        size(spec.child(s::RESOURCES).and_then(|r| r.map(c::volume_resource_requirements::REQUESTS)))
    };
    let capacity =
        size(old.map(&[p::STATUS, c::persistent_volume_claim_status::CAPACITY])).unwrap_or_default();
    if let (Some(now), Some(before)) = (requested(&now), requested(&before))
        && now < before
        && now <= capacity
    {
        let at = SPEC.child("resources");
        let at = at.child("requests");
        errors.forbidden(&at.child("storage"), "field can not be less than status.capacity");
    }
    immutable(now.get(s::VOLUME_MODE), before.get(s::VOLUME_MODE), &FieldPath::new("volumeMode"), errors);
    let current = old
        .get(&[p::STATUS, c::persistent_volume_claim_status::CURRENT_VOLUME_ATTRIBUTES_CLASS_NAME])
        .is_some_and(|value| *value != Value::Null);
    let class = s::VOLUME_ATTRIBUTES_CLASS_NAME;
    if current && now.get(class) != before.get(class) {
        let at = SPEC.child("volumeAttributesClassName");
        let to = if !present(&now, class) {
            Some("nil")
        } else if now.str(class).is_empty() {
            Some("empty string")
        } else {
            None
        };
        if let Some(to) = to {
            let text = format!(
                "update to {to} is forbidden when status.currentVolumeAttributesClassName is not nil"
            );
            errors.forbidden(&at, text);
        }
    }
}

/// The class may move from the annotation of old to the field, and be set once; the annotation itself stays.
fn class_change(new: &Doc, old: &Doc, now: &mut Struct, before: &Struct, errors: &mut ErrorList) {
    use c::persistent_volume_claim_spec as s;
    let (annotated, annotates) = (old.meta().annotation(BETA_CLASS), new.meta().annotation(BETA_CLASS));
    let (had, has) = (present(before, s::STORAGE_CLASS_NAME), present(now, s::STORAGE_CLASS_NAME));
    let class = now.str(s::STORAGE_CLASS_NAME).to_owned();
    let moved =
        annotated.is_some_and(|old| !had && has && class == old && annotates.is_none_or(|new| new == old));
    if moved {
        now.remove(s::STORAGE_CLASS_NAME);
        return;
    }
    let (annotates, annotation) = (annotates.unwrap_or(""), annotated.unwrap_or(""));
    if annotates != annotation {
        let metadata = FieldPath::new("metadata");
        let at = metadata.child("annotations");
        errors.invalid(&at.child(BETA_CLASS), annotates, crate::types::meta::IMMUTABLE);
    }
    if has && !had && annotated.is_none_or(|old| old == class) {
        now.remove(s::STORAGE_CLASS_NAME);
    }
}

fn claim_status(new: &Doc, _: &Doc, _: &Ctx<'_>, errors: &mut ErrorList) {
    use c::persistent_volume_claim as p;
    use c::persistent_volume_claim_status as s;
    const STATES: [&str; 5] = [
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizePending",
        "NodeResizeInfeasible",
    ];
    let status = FieldPath::new("status");
    if new.list(&[p::SPEC, c::persistent_volume_claim_spec::ACCESS_MODES]).is_empty() {
        errors.required(&FieldPath::new("Spec").child("accessModes"), "");
    }
    let at = status.child("capacity");
    for (name, amount) in resources::amounts(new.map(&[p::STATUS, s::CAPACITY])) {
        if amount.sign() < 0 {
            errors.invalid(&at.key(name), amount.value(), "must be a valid resource quantity");
        }
    }
    let at = status.child("allocatedResourceStatuses");
    for (name, state) in
        new.map(&[p::STATUS, s::ALLOCATED_RESOURCE_STATUSES]).into_iter().flat_map(crate::doc::Map::str_pairs)
    {
        resource_key(name, &at, errors);
        if !STATES.contains(&state) {
            let mut sorted = STATES;
            sorted.sort_unstable();
            errors.not_supported(&at, name, &sorted);
        }
    }
    let at = status.child("allocatedResources");
    for (name, amount) in resources::amounts(new.map(&[p::STATUS, s::ALLOCATED_RESOURCES])) {
        let before = errors.len();
        resource_key(name, &at, errors);
        if errors.len() == before && amount.sign() < 0 {
            errors.invalid(&at.key(name), amount.value(), "must be a valid resource quantity");
        }
    }
}

fn resource_key(name: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let messages = names::qualified_name(name);
    if !messages.is_empty() {
        errors.invalid_each(path, name, messages);
    } else if resources::is_native(name) && name != "storage" {
        errors.not_supported(path, name, &["storage"]);
    }
}

/// Warnings about a claim.
fn claim_warnings(doc: &Doc) -> Vec<String> {
    let mut out = Vec::new();
    if doc.meta().annotation(BETA_CLASS).is_some() {
        out.push(format!(
            "metadata.annotations[{BETA_CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        ));
    }
    if let Some(spec) = doc.root().and_then(|root| root.child(c::persistent_volume_claim::SPEC)) {
        size_warnings(spec, "spec", &mut out);
    }
    out
}

/// Sizes that are no whole number of bytes, in a claim's spec at `path`.
pub fn size_warnings(spec: &Struct, path: &str, out: &mut Vec<String>) {
    use c::volume_resource_requirements as r;
    let Some(resources) = spec.child(c::persistent_volume_claim_spec::RESOURCES) else { return };
    for (field, name) in [(r::REQUESTS, "requests"), (r::LIMITS, "limits")] {
        let size = resources::amounts(resources.map(field)).find(|(name, _)| *name == "storage");
        if let Some((_, size)) = size.filter(|(_, size)| size.milli_value() % 1000 != 0) {
            out.push(format!(
                "{path}.resources.{name}[storage]: fractional byte value \"{size}\" is invalid, must be an integer"
            ));
        }
    }
}

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// A claim's spec, in claims, ephemeral volumes and StatefulSets.
pub fn validate_spec(spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::persistent_volume_claim_spec as s;
    access_modes(spec, s::ACCESS_MODES, "at least 1 access mode is required", path, errors);
    let selector = spec.child(s::SELECTOR);
    scheduling::validate_label_selector(selector, &path.child("selector"), errors);
    let requests = spec.child(s::RESOURCES).and_then(|r| r.map(c::volume_resource_requirements::REQUESTS));
    let at = path.child("resources");
    // Upstream's path leaves `requests` out.
    match resources::amounts(requests).find(|(name, _)| *name == "storage") {
        None => errors.required(&at.key("storage"), ""),
        Some((_, amount)) if amount.sign() <= 0 => {
            errors.invalid(&at.key("storage"), amount.to_string(), "must be greater than zero");
        }
        Some(_) => {}
    }
    if present(spec, s::STORAGE_CLASS_NAME) && !spec.str(s::STORAGE_CLASS_NAME).is_empty() {
        let class = spec.str(s::STORAGE_CLASS_NAME);
        errors.invalid_each(&path.child("storageClassName"), class, names::dns1123_subdomain(class));
    }
    if present(spec, s::VOLUME_MODE) {
        validate_mode(spec.str(s::VOLUME_MODE), &path.child("volumeMode"), errors);
    }
    data_sources(spec, path, errors);
    let class = spec.str(s::VOLUME_ATTRIBUTES_CLASS_NAME);
    if !class.is_empty() {
        errors.invalid_each(&path.child("volumeAttributesClassName"), class, names::dns1123_subdomain(class));
    }
}

/// What a data source is, whichever of the two fields names it.
struct DataSource<'a> {
    group: &'a str,
    kind: &'a str,
    name: &'a str,
}

fn data_source<'a>(source: &DataSource<'a>, path: &FieldPath<'_>, errors: &mut ErrorList) {
    for (value, field) in [(source.name, "name"), (source.kind, "kind")] {
        if value.is_empty() {
            errors.required(&path.child(field), "");
        }
    }
    if source.group.is_empty() && source.kind != "PersistentVolumeClaim" {
        let text = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.invalid(path, source.kind, text);
    }
    if !source.group.is_empty() {
        errors.invalid_each(&path.child("apiGroup"), source.group, names::dns1123_subdomain(source.group));
    }
}

fn data_sources(spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::persistent_volume_claim_spec as s;
    use c::typed_local_object_reference as local;
    use c::typed_object_reference as typed;
    let source = spec.child(s::DATA_SOURCE).map(|one| DataSource {
        group: one.str(local::API_GROUP),
        kind: one.str(local::KIND),
        name: one.str(local::NAME),
    });
    let reference = spec.child(s::DATA_SOURCE_REF);
    let referenced = reference.map(|one| DataSource {
        group: one.str(typed::API_GROUP),
        kind: one.str(typed::KIND),
        name: one.str(typed::NAME),
    });
    if let Some(source) = &source {
        data_source(source, &path.child("dataSource"), errors);
    }
    if let Some(referenced) = &referenced {
        data_source(referenced, &path.child("dataSourceRef"), errors);
    }
    let namespace = reference.map_or("", |one| one.str(typed::NAMESPACE));
    let at = path.child("dataSourceRef");
    if !namespace.is_empty() {
        errors.invalid_each(&at.child("namespace"), namespace, names::dns1123_label(namespace));
    }
    // Upstream prints the field's path as the value.
    if let (Some(source), Some(referenced)) = (source, referenced) {
        let same = source.group == referenced.group
            && source.kind == referenced.kind
            && source.name == referenced.name;
        let shown = crate::field_errors::BadValue::Raw("{}".to_owned());
        if !namespace.is_empty() {
            errors.invalid(path, shown, "may not be specified when dataSourceRef.namespace is specified");
        } else if !same {
            errors.invalid(path, shown, "must match dataSourceRef");
        }
    }
}

/// Access modes: some, known ones, and `ReadWriteOncePod` alone.
pub fn access_modes(
    spec: &Struct,
    field: Field,
    missing: &str,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    let at = path.child("accessModes");
    if spec.list(field).is_empty() {
        errors.required(&at, missing);
    }
    let (mut once_pod, mut other) = (false, false);
    for (_, mode) in strs(spec, field) {
        if !ACCESS_MODES.contains(&mode) {
            errors.not_supported(&at, mode, &ACCESS_MODES);
        }
        once_pod |= mode == "ReadWriteOncePod";
        other |= mode != "ReadWriteOncePod" && ACCESS_MODES.contains(&mode);
    }
    if once_pod && other {
        errors.forbidden(&at, "may not use ReadWriteOncePod with other access modes");
    }
}

/// `volumeMode` of a claim or volume.
pub fn validate_mode(mode: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if !matches!(mode, "Block" | "Filesystem") {
        errors.not_supported(path, mode, &["Block", "Filesystem"]);
    }
}

/// A claim's defaults.
pub fn claim_defaults(claim: &mut Struct) {
    if let Some(status) = child_entry(claim, c::persistent_volume_claim::STATUS) {
        default_str(status, c::persistent_volume_claim_status::PHASE, "Pending");
        round_up(status, c::persistent_volume_claim_status::CAPACITY);
        round_up(status, c::persistent_volume_claim_status::ALLOCATED_RESOURCES);
    }
    if let Some(spec) = child_entry(claim, c::persistent_volume_claim::SPEC) {
        default_value(spec, c::persistent_volume_claim_spec::VOLUME_MODE, "Filesystem");
        if let Some(resources) = spec.child_mut(c::persistent_volume_claim_spec::RESOURCES) {
            round_up(resources, c::volume_resource_requirements::LIMITS);
            round_up(resources, c::volume_resource_requirements::REQUESTS);
        }
    }
}
