//! Claims and volumes of persistent storage.

use crate::doc::{Doc, Struct, Value};
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::schema::Field;
use crate::types::core::{resources, scheduling};
use crate::types::meta::immutable;
use crate::types::walk::{child_entry, default_str, default_value, json_text, present, strs};
use crate::types::{Ctx, Strategy, columns};

const SPEC: FieldPath<'static> = FieldPath::new("spec");

/// PersistentVolumeClaims.
pub static CLAIM: Strategy = Strategy {
    defaults: |doc| {
        if let Some(root) = doc.root_mut() {
            claim_defaults(root);
        }
    },
    prepare_create: |doc, _| {
        doc.set(&[c::persistent_volume_claim::STATUS, c::persistent_volume_claim_status::PHASE], "Pending");
        same_data_source(doc);
    },
    prepare_update: |new, _, _| same_data_source(new),
    validate_create: |doc, _, errors| {
        let empty = Struct::new(crate::t::core_v1::PERSISTENT_VOLUME_CLAIM_SPEC);
        let spec = doc.root().and_then(|root| root.child(c::persistent_volume_claim::SPEC)).unwrap_or(&empty);
        validate_spec(spec, &SPEC, errors);
    },
    validate_update: claim_update,
    columns: &columns::core::PERSISTENT_VOLUME_CLAIM,
    ..Strategy::BASE
};

/// PersistentVolumes.
pub static VOLUME: Strategy = Strategy {
    prepare_create: |doc, ctx| {
        doc.set(&[c::persistent_volume::STATUS, c::persistent_volume_status::PHASE], "Pending");
        let now = ctx.now_text();
        doc.set(
            &[c::persistent_volume::STATUS, c::persistent_volume_status::LAST_PHASE_TRANSITION_TIME],
            Value::Str(now),
        );
    },
    validate_create: |doc, _, errors| volume(doc, errors),
    validate_update: |new, old, _, errors| {
        volume(new, errors);
        let source = |doc: &Doc| -> Vec<(u16, Value)> {
            let spec = doc.root().and_then(|root| root.child(c::persistent_volume::SPEC));
            spec.into_iter()
                .flat_map(Struct::iter)
                .filter(|(index, _)| is_source(*index))
                .map(|(index, value)| (index, value.clone()))
                .collect()
        };
        if source(new) != source(old) {
            let text = "spec.persistentvolumesource is immutable after creation";
            errors.forbidden(&SPEC.child("persistentvolumesource"), text);
        }
        let mode = [c::persistent_volume::SPEC, c::persistent_volume_spec::VOLUME_MODE];
        immutable(new.get(&mode), old.get(&mode), &FieldPath::new("volumeMode"), errors);
    },
    columns: &columns::core::PERSISTENT_VOLUME,
    ..Strategy::BASE
};

/// Whether the field of a volume's spec is one of its sources.
fn is_source(index: u16) -> bool {
    use c::persistent_volume_spec as s;
    let others = [
        s::CAPACITY,
        s::ACCESS_MODES,
        s::CLAIM_REF,
        s::PERSISTENT_VOLUME_RECLAIM_POLICY,
        s::STORAGE_CLASS_NAME,
        s::MOUNT_OPTIONS,
        s::VOLUME_MODE,
        s::NODE_AFFINITY,
        s::VOLUME_ATTRIBUTES_CLASS_NAME,
    ];
    !others.iter().any(|field| field.index == index)
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
    if !present(&before, s::STORAGE_CLASS_NAME) {
        a.remove(s::STORAGE_CLASS_NAME);
    }
    if new.str(&[p::STATUS, c::persistent_volume_claim_status::PHASE]) == "Bound" {
        for field in [s::RESOURCES, s::VOLUME_ATTRIBUTES_CLASS_NAME] {
            a.remove(field);
            b.remove(field);
        }
    }
    if a != b {
        errors.forbidden(
            &SPEC,
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
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
}

fn volume(doc: &Doc, errors: &mut ErrorList) {
    use c::persistent_volume_spec as s;
    let empty = Struct::new(crate::t::core_v1::PERSISTENT_VOLUME_SPEC);
    let spec = doc.root().and_then(|root| root.child(c::persistent_volume::SPEC)).unwrap_or(&empty);
    access_modes(spec, s::ACCESS_MODES, "", &SPEC, errors);
    let capacity = spec.map(s::CAPACITY);
    let at = SPEC.child("capacity");
    if capacity.is_none_or(|capacity| capacity.is_empty()) {
        errors.required(&at, "");
    }
    if capacity.is_none_or(|capacity| !capacity.contains_key("storage") || capacity.len() > 1) {
        errors.not_supported(&at, json_text(spec.get(s::CAPACITY)), &["storage"]);
    }
    for (name, amount) in resources::amounts(capacity) {
        if amount.sign() <= 0 {
            errors.invalid(&at.key(name), amount.to_string(), "must be greater than zero");
        }
    }
    let policy = spec.str(s::PERSISTENT_VOLUME_RECLAIM_POLICY);
    if !policy.is_empty() && !matches!(policy, "Delete" | "Recycle" | "Retain") {
        let at = SPEC.child("persistentVolumeReclaimPolicy");
        errors.not_supported(&at, policy, &["Delete", "Recycle", "Retain"]);
    }
    if let Some(required) =
        spec.child(s::NODE_AFFINITY).and_then(|affinity| affinity.child(c::volume_node_affinity::REQUIRED))
    {
        let at = SPEC.child("nodeAffinity");
        scheduling::validate_node_selector(required, &at.child("required"), errors);
    }
    let sources: Vec<u16> = spec
        .iter()
        .filter(|(index, value)| is_source(*index) && **value != Value::Null)
        .map(|(i, _)| i)
        .collect();
    if sources.is_empty() {
        errors.required(&SPEC, "must specify a volume type");
    }
    let def = spec.ty().def();
    for index in sources.iter().skip(1) {
        let json = def.fields[*index as usize].json;
        errors.forbidden(&SPEC.child(json), "may not specify more than 1 volume type");
    }
    if present(spec, s::LOCAL) && !present(spec, s::NODE_AFFINITY) {
        errors.required(&SPEC.child("nodeAffinity"), "Local volume requires node affinity");
    }
    let class = spec.str(s::STORAGE_CLASS_NAME);
    if !class.is_empty() {
        errors.invalid_each(&SPEC.child("storageClassName"), class, names::dns1123_subdomain(class));
    }
    validate_mode(spec.str(s::VOLUME_MODE), &SPEC.child("volumeMode"), errors);
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
    validate_mode(spec.str(s::VOLUME_MODE), &path.child("volumeMode"), errors);
}

fn access_modes(spec: &Struct, field: Field, missing: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
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
        other |= mode != "ReadWriteOncePod";
    }
    if once_pod && other {
        errors.forbidden(&at, "may not use ReadWriteOncePod with other access modes");
    }
}

/// `volumeMode` of a claim or volume.
pub fn validate_mode(mode: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if !mode.is_empty() && !matches!(mode, "Block" | "Filesystem") {
        errors.not_supported(path, mode, &["Block", "Filesystem"]);
    }
}

/// A claim's defaults.
pub fn claim_defaults(claim: &mut Struct) {
    if let Some(status) = child_entry(claim, c::persistent_volume_claim::STATUS) {
        default_str(status, c::persistent_volume_claim_status::PHASE, "Pending");
    }
    if let Some(spec) = child_entry(claim, c::persistent_volume_claim::SPEC) {
        default_value(spec, c::persistent_volume_claim_spec::VOLUME_MODE, "Filesystem");
    }
}
