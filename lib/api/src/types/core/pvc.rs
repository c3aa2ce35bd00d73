//! Claims and volumes of persistent storage.

use crate::doc::Struct;
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::types::core::{resources, scheduling};
use crate::types::walk::{child_entry, default_str, default_value, present, strs};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// A claim's spec, in claims, ephemeral volumes and StatefulSets.
pub fn validate_spec(spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::persistent_volume_claim_spec as s;
    validate_access_modes(spec, s::ACCESS_MODES, path, errors);
    let selector = spec.child(s::SELECTOR);
    scheduling::validate_label_selector(selector, &path.child("selector"), errors);
    let requests = spec.child(s::RESOURCES).and_then(|r| r.map(c::volume_resource_requirements::REQUESTS));
    let at = path.child("resources");
    match resources::amounts(requests).find(|(name, _)| *name == "storage") {
        None => errors.required(&at.child("requests").key("storage"), ""),
        Some((_, amount)) => {
            let at = at.child("requests");
            let at = at.key("storage");
            if amount.sign() <= 0 {
                errors.invalid(&at, amount.to_string(), "must be greater than zero");
            }
        }
    }
    if present(spec, s::STORAGE_CLASS_NAME) && !spec.str(s::STORAGE_CLASS_NAME).is_empty() {
        let class = spec.str(s::STORAGE_CLASS_NAME);
        errors.invalid_each(&path.child("storageClassName"), class, names::dns1123_subdomain(class));
    }
    validate_mode(spec.str(s::VOLUME_MODE), &path.child("volumeMode"), errors);
}

/// `accessModes` of a claim or volume.
pub fn validate_access_modes(
    spec: &Struct,
    field: crate::schema::Field,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    let at = path.child("accessModes");
    if spec.list(field).is_empty() {
        errors.required(&at, "at least 1 access mode is required");
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
