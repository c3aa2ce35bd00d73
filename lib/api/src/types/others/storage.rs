//! Rules of CSI's types, volume attachments, device claims; of admission policies and flow control what all share.

use crate::doc::{Doc, Struct};
use crate::f::admissionregistration_v1 as ar;
use crate::f::resource_v1 as dra;
use crate::f::storage_v1 as st;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::schema::Field;
use crate::types::core::security::optional_one_of;
use crate::types::core::{scheduling, volumes};
use crate::types::meta::{NEGATIVE, immutable};
use crate::types::walk::{child_entry, default_value, non_negative, present, same, strs, structs};
use crate::types::{GenerationRule, SelectableFields, Strategy, columns};

const SPEC: FieldPath<'static> = FieldPath::new("spec");

fn spec(doc: &Doc, field: Field) -> Option<&Struct> {
    doc.root().and_then(|root| root.child(field))
}

fn spec_stays(new: &Doc, old: &Doc, errors: &mut ErrorList) {
    immutable(crate::types::part(new, "spec"), crate::types::part(old, "spec"), &SPEC, errors);
}

/// Rules of a type whose generation rises with its spec.
pub(super) const fn versioned(columns: &'static columns::Columns) -> Strategy {
    Strategy { generation: GenerationRule::Spec, columns, ..Strategy::BASE }
}

pub static VALIDATING_POLICY: Strategy = Strategy {
    validate_create: |doc, _, errors| validating_policy(doc, errors),
    validate_update: |new, _, _, errors| validating_policy(new, errors),
    allow_unconditional_update: false,
    ..versioned(&columns::storage::VALIDATING_POLICY)
};

fn validating_policy(doc: &Doc, errors: &mut ErrorList) {
    use ar::validating_admission_policy_spec as s;
    let empty = Struct::new(crate::t::admissionregistration_v1::VALIDATING_ADMISSION_POLICY_SPEC);
    let spec =
        doc.root().and_then(|root| root.child(ar::validating_admission_policy::SPEC)).unwrap_or(&empty);
    optional_one_of(spec, s::FAILURE_POLICY, &["Fail", "Ignore"], &SPEC, errors);
    let at = SPEC.child("matchConstraints");
    match spec.child(s::MATCH_CONSTRAINTS) {
        None => errors.required(&at, ""),
        Some(constraints) if constraints.list(ar::match_resources::RESOURCE_RULES).is_empty() => {
            errors.required(&at.child("resourceRules"), "");
        }
        Some(_) => {}
    }
    if spec.list(s::VALIDATIONS).is_empty() && spec.list(s::AUDIT_ANNOTATIONS).is_empty() {
        for field in ["validations", "auditAnnotations"] {
            let text = "validations or auditAnnotations must contain at least one item";
            errors.required(&SPEC.child(field), text);
        }
    }
}

pub static VALIDATING_BINDING: Strategy = Strategy {
    validate_create: |doc, _, errors| validating_binding(doc, errors),
    validate_update: |new, _, _, errors| validating_binding(new, errors),
    allow_unconditional_update: false,
    ..versioned(&columns::storage::VALIDATING_BINDING)
};

fn validating_binding(doc: &Doc, errors: &mut ErrorList) {
    use ar::validating_admission_policy_binding_spec as s;
    let empty = Struct::new(crate::t::admissionregistration_v1::VALIDATING_ADMISSION_POLICY_BINDING_SPEC);
    let binding = ar::validating_admission_policy_binding::SPEC;
    let spec = doc.root().and_then(|root| root.child(binding)).unwrap_or(&empty);
    let (name, at) = (spec.str(s::POLICY_NAME), SPEC.child("policyName"));
    if name.is_empty() {
        errors.required(&at, "");
    } else {
        errors.invalid_each(&at, name, names::name_is_subdomain(name, false));
    }
    let at = SPEC.child("validationActions");
    let mut seen = Vec::new();
    for (i, action) in strs(spec, s::VALIDATION_ACTIONS) {
        if !matches!(action, "Audit" | "Deny" | "Warn") {
            errors.not_supported(&at.index(i), action, &["Audit", "Deny", "Warn"]);
        }
        if seen.contains(&action) {
            errors.duplicate(&at.index(i), action);
        }
        seen.push(action);
    }
    if seen.contains(&"Deny") && seen.contains(&"Warn") {
        let shown = crate::types::walk::json_text(spec.get(s::VALIDATION_ACTIONS));
        let text = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.invalid(&at, shown, text);
    }
    if seen.is_empty() {
        errors.required(&at, "at least one validation action is required");
    }
}

pub static DEVICE_CLASS: Strategy = versioned(&columns::storage::NAME_AND_AGE);

pub static RESOURCE_SLICE: Strategy = Strategy {
    selectable: &["metadata.name", "spec.nodeName", "spec.driver"],
    unselectable: |field| {
        format!("field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: {field}")
    },
    selectable_fields: |doc| {
        let of = |field| doc.str(&[dra::resource_slice::SPEC, field]).into();
        SelectableFields::from_iter([
            ("spec.nodeName", of(dra::resource_slice_spec::NODE_NAME)),
            ("spec.driver", of(dra::resource_slice_spec::DRIVER)),
        ])
    },
    ..versioned(&columns::storage::RESOURCE_SLICE)
};

pub static RESOURCE_CLAIM: Strategy = Strategy {
    validate_update: |new, old, _, errors| spec_stays(new, old, errors),
    columns: &columns::storage::RESOURCE_CLAIM,
    ..Strategy::BASE
};

pub static RESOURCE_CLAIM_TEMPLATE: Strategy = Strategy {
    validate_update: |new, old, _, errors| spec_stays(new, old, errors),
    columns: &columns::storage::NAME_AND_AGE,
    ..Strategy::BASE
};

pub static VOLUME_ATTRIBUTES_CLASS: Strategy = Strategy {
    validate_create: |doc, _, errors| {
        let driver = doc.str(&[st::volume_attributes_class::DRIVER_NAME]);
        provisioner(driver, &FieldPath::new("driverName"), errors);
        let parameters = doc.map(&[st::volume_attributes_class::PARAMETERS]);
        class_parameters(parameters, errors);
        if parameters.is_none_or(|map| map.is_empty()) {
            errors.required(&FieldPath::new("parameters"), "must contain at least one key/value pair");
        }
    },
    validate_update: |new, old, _, errors| {
        for field in [st::volume_attributes_class::DRIVER_NAME, st::volume_attributes_class::PARAMETERS] {
            let name = field.def().json;
            if !same(new.get(&[field]), old.get(&[field])) {
                errors.forbidden(&FieldPath::new(name), format!("updates to {name} are forbidden."));
            }
        }
        if new.map(&[st::volume_attributes_class::PARAMETERS]).is_none_or(|map| map.is_empty()) {
            errors.required(&FieldPath::new("parameters"), "must contain at least one key/value pair");
        }
    },
    columns: &columns::storage::VOLUME_ATTRIBUTES_CLASS,
    ..Strategy::BASE
};

/// A provisioner's or driver's name.
pub(super) fn provisioner(name: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.required(path, "");
    } else {
        let lower = name.to_ascii_lowercase();
        errors.invalid_each(path, &lower, names::qualified_name(&lower));
    }
}

/// `parameters` of a class.
pub(super) fn class_parameters(parameters: Option<&crate::doc::Map>, errors: &mut ErrorList) {
    let at = FieldPath::new("parameters");
    let Some(map) = parameters else { return };
    if map.len() > 512 {
        errors.too_long(&at, 512);
        return;
    }
    if map.contains_key("") {
        errors.invalid(&at, "", "field can not be empty.");
    }
    let size: usize = map.str_pairs().map(|(key, value)| key.len() + value.len()).sum();
    if size > 256 * 1024 {
        errors.too_long(&at, 256 * 1024);
    }
}

pub static VOLUME_ATTACHMENT: Strategy = Strategy {
    generation: GenerationRule::None,
    validate_create: |doc, _, errors| attachment(doc, errors),
    validate_update: |new, old, _, errors| {
        attachment(new, errors);
        spec_stays(new, old, errors);
    },
    allow_unconditional_update: false,
    columns: &columns::storage::VOLUME_ATTACHMENT,
    ..Strategy::BASE
};

fn attachment(doc: &Doc, errors: &mut ErrorList) {
    use st::{volume_attachment_source as source, volume_attachment_spec as s};
    let empty = Struct::new(crate::t::storage_v1::VOLUME_ATTACHMENT_SPEC);
    let spec = spec(doc, st::volume_attachment::SPEC).unwrap_or(&empty);
    volumes::validate_csi_driver(spec.str(s::ATTACHER), &SPEC.child("attacher"), errors);
    let at = SPEC.child("source");
    let volume = spec.child(s::SOURCE).filter(|one| present(one, source::PERSISTENT_VOLUME_NAME));
    let inline = spec.child(s::SOURCE).and_then(|one| one.child(source::INLINE_VOLUME_SPEC));
    match (volume, inline) {
        (None, None) => {
            errors.required(&at, "must specify exactly one of inlineVolumeSpec and persistentVolumeName")
        }
        (Some(_), Some(_)) => {
            errors.forbidden(&at, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
        }
        (Some(one), None) => {
            let name = one.str(source::PERSISTENT_VOLUME_NAME);
            let at = at.child("persistentVolumeName");
            if name.is_empty() {
                errors.required(&at, "must specify non empty persistentVolumeName");
            }
            errors.invalid_each(&at, name, names::dns1123_subdomain(name));
        }
        (None, Some(volume)) => {
            let at = at.child("inlineVolumeSpec");
            crate::types::core::persistent_volume::validate_spec(volume, "", true, &at, errors);
        }
    }
    attachment_status(doc, errors);
    let node = spec.str(s::NODE_NAME);
    errors.invalid_each(&SPEC.child("nodeName"), node, names::dns1123_subdomain(node));
}

fn attachment_status(doc: &Doc, errors: &mut ErrorList) {
    use st::volume_attachment_status as s;
    use st::volume_error as e;
    let Some(status) = spec(doc, st::volume_attachment::STATUS) else { return };
    let at = FieldPath::new("status");
    let pairs = crate::types::walk::pairs(status, s::ATTACHMENT_METADATA);
    if pairs.map(|(key, value)| key.len() + value.len()).sum::<usize>() > 256 * 1024 {
        errors.too_long(&at.child("attachmentMetadata"), 256 * 1024);
    }
    for field in [s::ATTACH_ERROR, s::DETACH_ERROR] {
        let Some(error) = status.child(field) else { continue };
        let at = at.child(field.def().json);
        if error.str(e::MESSAGE).len() > 1024 {
            errors.too_long(&at.child("message"), 256 * 1024);
        }
        if let Some(code) = error.int(e::ERROR_CODE).filter(|code| *code < 0) {
            let text = names::inclusive_range_error(0, i64::from(i32::MAX));
            errors.invalid(&at.child("errorCode"), code, text);
        }
    }
}

pub static CSI_NODE: Strategy = Strategy {
    allow_unconditional_update: false,
    validate_create: |doc, _, errors| csi_node(doc, errors),
    validate_update: |new, old, _, errors| {
        csi_node(new, errors);
        use st::csi_node_driver as d;
        let drivers = |doc| {
            spec(doc, st::csi_node::SPEC).into_iter().flat_map(|s| structs(s, st::csi_node_spec::DRIVERS))
        };
        for (_, before) in drivers(old) {
            for (_, now) in drivers(new).filter(|(_, now)| now.str(d::NAME) == before.str(d::NAME)) {
                let bare = |one: &Struct| {
                    let mut one = one.clone();
                    one.remove(d::ALLOCATABLE);
                    crate::doc::Value::Struct(one)
                };
                immutable(Some(&bare(now)), Some(&bare(before)), &SPEC.child("drivers"), errors);
            }
        }
    },
    columns: &columns::storage::CSI_NODE,
    ..Strategy::BASE
};

fn csi_node(doc: &Doc, errors: &mut ErrorList) {
    use st::csi_node_driver as d;
    let Some(spec) = spec(doc, st::csi_node::SPEC) else { return };
    let list = SPEC.child("drivers");
    let mut seen: Vec<&str> = Vec::new();
    for (i, driver) in structs(spec, st::csi_node_spec::DRIVERS) {
        let at = list.index(i);
        let name = driver.str(d::NAME);
        volumes::validate_csi_driver(name, &at.child("name"), errors);
        let id = driver.str(d::NODE_ID);
        if id.is_empty() {
            errors.required(&at.child("nodeID"), "");
        }
        if id.len() > 256 {
            errors.invalid(&at.child("nodeID"), id, "must be 256 characters or less");
        }
        if let Some(allocatable) = driver.child(d::ALLOCATABLE) {
            non_negative(allocatable, &[st::volume_node_resources::COUNT], &at.child("allocatable"), errors);
        }
        if seen.contains(&name) {
            errors.duplicate(&at.child("name"), name);
        }
        seen.push(name);
        let mut keys: Vec<&str> = Vec::new();
        for (_, key) in strs(driver, d::TOPOLOGY_KEYS) {
            if key.is_empty() {
                errors.required(&at, key);
            }
            if keys.contains(&key) {
                errors.duplicate(&at, key);
            }
            keys.push(key);
            errors.invalid_each(&at, key, names::qualified_name(key));
        }
    }
}

pub static CSI_DRIVER: Strategy = Strategy {
    defaults: |doc| {
        use st::csi_driver_spec as s;
        let Some(spec) = doc.root_mut().and_then(|root| child_entry(root, st::csi_driver::SPEC)) else {
            return;
        };
        if spec.list(s::VOLUME_LIFECYCLE_MODES).is_empty() {
            spec.set(s::VOLUME_LIFECYCLE_MODES, vec![crate::doc::Value::from("Persistent")]);
        }
        default_value(spec, s::SE_LINUX_MOUNT, false);
    },
    // A new one has no generation; each change of the spec raises it.
    prepare_update: |new, old, _| {
        let path = [st::csi_driver::SPEC];
        if new.get(&path) != old.get(&path) {
            let generation = old.meta().generation() + 1;
            new.meta_mut().set_generation(generation);
        }
    },
    validate_create: |doc, _, errors| csi_driver(doc, errors),
    validate_update: |new, old, _, errors| {
        use st::{csi_driver as r, csi_driver_spec as s};
        csi_driver(new, errors);
        for (field, shown) in
            [(s::ATTACH_REQUIRED, "attachedRequired"), (s::VOLUME_LIFECYCLE_MODES, "volumeLifecycleModes")]
        {
            immutable(new.get(&[r::SPEC, field]), old.get(&[r::SPEC, field]), &SPEC.child(shown), errors);
        }
    },
    allow_unconditional_update: false,
    warnings: |new, old, _| {
        use st::{csi_driver as r, csi_driver_spec as s};
        let asks = |doc: &Doc| doc.get(&[r::SPEC, s::TOKEN_REQUESTS]).cloned();
        let changed = old.is_none_or(|old| asks(old) != asks(new));
        let unset = new.get(&[r::SPEC, s::SERVICE_ACCOUNT_TOKEN_IN_SECRETS]).is_none();
        let mut out = Vec::new();
        if changed && unset && !new.list(&[r::SPEC, s::TOKEN_REQUESTS]).is_empty() {
            out.push(
                "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible \
                 logging of tokens in volume attributes"
                    .to_owned(),
            );
        }
        out
    },
    columns: &columns::storage::CSI_DRIVER,
    ..Strategy::BASE
};

fn csi_driver(doc: &Doc, errors: &mut ErrorList) {
    use st::csi_driver_spec as s;
    let empty = Struct::new(crate::t::storage_v1::CSI_DRIVER_SPEC);
    let spec = spec(doc, st::csi_driver::SPEC).unwrap_or(&empty);
    for (field, shown) in [
        (s::ATTACH_REQUIRED, "attachedRequired"),
        (s::POD_INFO_ON_MOUNT, "podInfoOnMount"),
        (s::STORAGE_CAPACITY, "storageCapacity"),
    ] {
        if !present(spec, field) {
            errors.required(&SPEC.child(shown), "");
        }
    }
    let policy = spec.str(s::FS_GROUP_POLICY);
    if !policy.is_empty() && !matches!(policy, "ReadWriteOnceWithFSType" | "File" | "None") {
        let known = ["File", "None", "ReadWriteOnceWithFSType"];
        errors.not_supported(&SPEC.child("fsGroupPolicy"), policy, &known);
    }
    let modes = SPEC.child("volumeLifecycleModes");
    for (_, mode) in strs(spec, s::VOLUME_LIFECYCLE_MODES) {
        if !matches!(mode, "Persistent" | "Ephemeral") {
            errors.not_supported(&modes, mode, &["Persistent", "Ephemeral"]);
        }
    }
    if let Some(period) = spec.int(s::NODE_ALLOCATABLE_UPDATE_PERIOD_SECONDS).filter(|period| *period < 10) {
        let at = SPEC.child("nodeAllocatableUpdatePeriodSeconds");
        errors.invalid(&at, period, "must be greater than or equal to 10 seconds");
    }
    let tokens = SPEC.child("tokenRequests");
    let mut seen: Vec<&str> = Vec::new();
    for (i, token) in structs(spec, s::TOKEN_REQUESTS) {
        let at = tokens.index(i);
        let audience = token.str(st::token_request::AUDIENCE);
        if seen.contains(&audience) {
            errors.duplicate(&at.child("audience"), audience);
            continue;
        }
        seen.push(audience);
        let at = at.child("expirationSeconds");
        match token.int(st::token_request::EXPIRATION_SECONDS) {
            Some(seconds) if seconds < 600 => {
                errors.invalid(&at, seconds, "may not specify a duration less than 10 minutes");
            }
            Some(seconds) if seconds > 1 << 32 => {
                errors.invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds");
            }
            _ => {}
        }
    }
}

pub static CSI_STORAGE_CAPACITY: Strategy = Strategy {
    validate_create: |doc, _, errors| capacity(doc, errors),
    validate_update: |new, old, _, errors| {
        use st::csi_storage_capacity as s;
        capacity(new, errors);
        for field in [s::NODE_TOPOLOGY, s::STORAGE_CLASS_NAME] {
            immutable(new.get(&[field]), old.get(&[field]), &FieldPath::new(field.def().json), errors);
        }
    },
    warnings: |new, _, _| {
        let mut out = Vec::new();
        if let Some(topology) =
            new.root().and_then(|root| root.child(st::csi_storage_capacity::NODE_TOPOLOGY))
        {
            crate::types::core::warnings::label_selector(topology, "nodeTopology", &mut out);
        }
        out
    },
    allow_unconditional_update: false,
    columns: &columns::storage::CSI_STORAGE_CAPACITY,
    ..Strategy::BASE
};

fn capacity(doc: &Doc, errors: &mut ErrorList) {
    use st::csi_storage_capacity as s;
    let Some(root) = doc.root() else { return };
    let topology = root.child(s::NODE_TOPOLOGY);
    scheduling::validate_label_selector(topology, &FieldPath::new("nodeTopology"), errors);
    let class = root.str(s::STORAGE_CLASS_NAME);
    errors.invalid_each(&FieldPath::new("storageClassName"), class, names::dns1123_subdomain(class));
    let amount = root.str(s::CAPACITY);
    if amount.starts_with('-') {
        errors.invalid(&FieldPath::new("capacity"), amount, NEGATIVE);
    }
}
