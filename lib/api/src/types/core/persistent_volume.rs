//! PersistentVolumes.

use crate::doc::{Doc, Struct, Value};
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::schema::Field;
use crate::types::core::pod_defaults::round_up;
use crate::types::core::pvc::{access_modes, validate_mode};
use crate::types::core::{resources, scheduling, sources, volumes, warnings};
use crate::types::meta::immutable;
use crate::types::walk::{child_entry, default_str, default_value, json_text, present, same};
use crate::types::{Ctx, Strategy, columns};

use c::persistent_volume_spec as s;
use c::persistent_volume_status as st;

const SPEC: FieldPath<'static> = FieldPath::new("spec");

/// The rules of PersistentVolumes.
pub static STRATEGY: Strategy = Strategy {
    // Of volumes themselves only: a spec inside a VolumeAttachment has none.
    defaults: |doc| {
        let Some(spec) = doc.root_mut().and_then(|root| child_entry(root, c::persistent_volume::SPEC)) else {
            return;
        };
        default_str(spec, s::PERSISTENT_VOLUME_RECLAIM_POLICY, "Retain");
        default_value(spec, s::VOLUME_MODE, "Filesystem");
        round_up(spec, s::CAPACITY);
    },
    prepare_create: |doc, ctx| {
        doc.set(&[c::persistent_volume::STATUS, st::PHASE], "Pending");
        let now = ctx.now_text();
        doc.set(&[c::persistent_volume::STATUS, st::LAST_PHASE_TRANSITION_TIME], Value::Str(now));
    },
    prepare_status_update: phase_time,
    validate_create: |doc, _, errors| validate(doc, errors),
    validate_update: update,
    warnings: |new, _, _| volume_warnings(new),
    columns: &columns::core::PERSISTENT_VOLUME,
    ..Strategy::BASE
};

/// The time of the last change of phase is the server's where the client does not set one.
fn phase_time(new: &mut Doc, old: &Doc, ctx: &Ctx<'_>) {
    let phase = [c::persistent_volume::STATUS, st::PHASE];
    let time = [c::persistent_volume::STATUS, st::LAST_PHASE_TRANSITION_TIME];
    let (given, before) = (new.str(&time).to_owned(), old.str(&time));
    if new.str(&phase) == old.str(&phase) {
        if given.is_empty() && !before.is_empty() {
            new.set(&time, before);
        }
    } else if given.is_empty() || given == before {
        new.set(&time, Value::Str(ctx.now_text()));
    }
}

/// Whether the field of a volume's spec is one of its sources.
fn is_source(index: u16) -> bool {
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

/// Sources in the order upstream looks at them; of several, the first one counts.
const ORDER: [Field; 22] = [
    s::HOST_PATH,
    s::GCE_PERSISTENT_DISK,
    s::AWS_ELASTIC_BLOCK_STORE,
    s::GLUSTERFS,
    s::FLOCKER,
    s::NFS,
    s::RBD,
    s::QUOBYTE,
    s::CEPHFS,
    s::ISCSI,
    s::CINDER,
    s::FC,
    s::FLEX_VOLUME,
    s::AZURE_FILE,
    s::VSPHERE_VOLUME,
    s::PHOTON_PERSISTENT_DISK,
    s::PORTWORX_VOLUME,
    s::AZURE_DISK,
    s::SCALE_IO,
    s::LOCAL,
    s::STORAGEOS,
    s::CSI,
];

/// The annotation that gave mount options before there was a field.
const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";

/// Sources the annotation of mount options may go with.
const MOUNTABLE: [Field; 13] = [
    s::GCE_PERSISTENT_DISK,
    s::AWS_ELASTIC_BLOCK_STORE,
    s::GLUSTERFS,
    s::NFS,
    s::RBD,
    s::QUOBYTE,
    s::ISCSI,
    s::CINDER,
    s::CEPHFS,
    s::AZURE_FILE,
    s::VSPHERE_VOLUME,
    s::AZURE_DISK,
    s::PHOTON_PERSISTENT_DISK,
];

fn validate(doc: &Doc, errors: &mut ErrorList) {
    let empty = Struct::new(crate::t::core_v1::PERSISTENT_VOLUME_SPEC);
    let spec = doc.root().and_then(|root| root.child(c::persistent_volume::SPEC)).unwrap_or(&empty);
    validate_spec(spec, doc.meta().name(), false, &SPEC, errors);
    if doc.meta().annotation(MOUNT_OPTIONS).is_some() && !MOUNTABLE.iter().any(|field| present(spec, *field))
    {
        let at = FieldPath::new("metadata");
        let at = at.child("annotations");
        errors.forbidden(&at.child(MOUNT_OPTIONS), "may not specify mount options for this volume type");
    }
}

/// A PersistentVolume's spec at `path`; `inline` where it stands in a VolumeAttachment, in a volume's place.
pub fn validate_spec(spec: &Struct, name: &str, inline: bool, path: &FieldPath<'_>, errors: &mut ErrorList) {
    const INLINE: &str = "may not be specified in the context of inline volumes";
    if inline {
        if present(spec, s::CLAIM_REF) {
            errors.forbidden(&path.child("claimRef"), INLINE);
        }
        if spec.map(s::CAPACITY).is_some_and(|capacity| !capacity.is_empty()) {
            errors.forbidden(&path.child("capacity"), INLINE);
        }
        if !present(spec, s::CSI) {
            errors.required(&path.child("csi"), "has to be specified in the context of inline volumes");
        }
    }
    access_modes(spec, s::ACCESS_MODES, "", path, errors);
    if !inline {
        capacity(spec, path, errors);
    }
    let policy = spec.str(s::PERSISTENT_VOLUME_RECLAIM_POLICY);
    let policy_path = path.child("persistentVolumeReclaimPolicy");
    if inline {
        if !policy.is_empty() && policy != "Retain" {
            errors.forbidden(&policy_path, "may only be Retain in the context of inline volumes");
        }
    } else if !policy.is_empty() && !matches!(policy, "Delete" | "Recycle" | "Retain") {
        errors.not_supported(&policy_path, policy, &["Delete", "Recycle", "Retain"]);
    }
    if let Some(affinity) = spec.child(s::NODE_AFFINITY) {
        let at = path.child("nodeAffinity");
        match affinity.child(c::volume_node_affinity::REQUIRED) {
            _ if inline => errors.forbidden(&at, INLINE),
            Some(required) => scheduling::validate_node_selector(required, &at.child("required"), errors),
            None => errors.required(&at.child("required"), "must specify required node constraints"),
        }
    }
    source(spec, name, path, errors);
    let host = spec.child(s::HOST_PATH).map_or("", |source| source.str(c::host_path_volume_source::PATH));
    if policy == "Recycle" && is_root(host) {
        errors.forbidden(&policy_path, "may not be 'recycle' for a hostPath mount of '/'");
    }
    let class = spec.str(s::STORAGE_CLASS_NAME);
    if !class.is_empty() {
        errors.invalid_each(&path.child("storageClassName"), class, names::dns1123_subdomain(class));
    }
    if present(spec, s::VOLUME_MODE) {
        validate_mode(spec.str(s::VOLUME_MODE), &path.child("volumeMode"), errors);
    }
    sources::attributes_class(spec, s::VOLUME_ATTRIBUTES_CLASS_NAME, path, errors);
    if present(spec, s::VOLUME_ATTRIBUTES_CLASS_NAME) && !present(spec, s::CSI) {
        errors.required(&path.child("csi"), "has to be specified when using volumeAttributesClassName");
    }
}

fn capacity(spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let capacity = spec.map(s::CAPACITY);
    let at = path.child("capacity");
    if capacity.is_none_or(|capacity| capacity.is_empty()) {
        errors.required(&at, "");
    }
    if capacity.is_none_or(|capacity| !capacity.contains_key("storage") || capacity.len() > 1) {
        errors.not_supported(&at, json_text(spec.get(s::CAPACITY)), &["storage"]);
    }
    for (name, amount) in resources::amounts(capacity) {
        if amount.sign() < 0 {
            errors.invalid(&at.key(name), amount.value(), "must be a valid resource quantity");
        }
        if amount.sign() <= 0 {
            errors.invalid(&at.key(name), amount.to_string(), "must be greater than zero");
        }
    }
}

fn source(spec: &Struct, name: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let mut found = false;
    for field in ORDER.iter().filter(|field| present(spec, **field)) {
        // Upstream's paths differ from the fields' names here and there.
        let json = match *field {
            s::CEPHFS if found => "cephFS",
            s::GCE_PERSISTENT_DISK if !found => "persistentDisk",
            _ => field.def().json,
        };
        let at = path.child(json);
        if found && *field != s::FLEX_VOLUME {
            errors.forbidden(&at, "may not specify more than 1 volume type");
            continue;
        }
        found = true;
        let Some(one) = spec.child(*field) else { continue };
        match *field {
            s::HOST_PATH => volumes::host_path(one, &at, errors),
            s::NFS => volumes::nfs(one, &at, errors),
            _ => sources::validate(one, name, path, &at, errors),
        }
        if *field == s::LOCAL && !present(spec, s::NODE_AFFINITY) {
            errors.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
        }
    }
    if !found {
        errors.required(path, "must specify a volume type");
    }
}

/// Whether a path, cleaned as Go's `path.Clean` does, is `/`.
fn is_root(path: &str) -> bool {
    let mut depth = 0usize;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth = depth.saturating_sub(1),
            _ => depth += 1,
        }
    }
    path.starts_with('/') && depth == 0
}

fn update(new: &Doc, old: &Doc, _: &Ctx<'_>, errors: &mut ErrorList) {
    validate(new, errors);
    let empty = Struct::new(crate::t::core_v1::PERSISTENT_VOLUME_SPEC);
    let spec = |doc: &Doc| {
        doc.root().and_then(|root| root.child(c::persistent_volume::SPEC)).unwrap_or(&empty).clone()
    };
    let (now, before) = (spec(new), spec(old));
    if source_of(&now, &before) != source_of(&before, &before) {
        let text = "spec.persistentvolumesource is immutable after creation\n";
        errors.forbidden(&SPEC.child("persistentvolumesource"), text);
    }
    immutable(now.get(s::VOLUME_MODE), before.get(s::VOLUME_MODE), &FieldPath::new("volumeMode"), errors);
    if present(&before, s::NODE_AFFINITY) && !same_but_for_labels(&now, &before) {
        let text = "field is immutable, except for updating from beta label to GA";
        errors.invalid(&FieldPath::new("nodeAffinity"), json_text(now.get(s::NODE_AFFINITY)), text);
    }
    let class = s::VOLUME_ATTRIBUTES_CLASS_NAME;
    if present(&before, class) && !present(&now, class) {
        let at = SPEC.child("volumeAttributesClassName");
        errors.forbidden(&at, "update from non-nil value to nil is forbidden");
    }
}

/// The sources; a CSI source's secret for expansion may be added later.
fn source_of(spec: &Struct, before: &Struct) -> Vec<(u16, Value)> {
    use c::csi_persistent_volume_source as csi;
    let secret = csi::CONTROLLER_EXPAND_SECRET_REF;
    let had = before.child(s::CSI).is_some_and(|source| present(source, secret));
    spec.iter()
        .filter(|(index, _)| is_source(*index))
        .map(|(index, value)| {
            let mut value = value.clone();
            if index == s::CSI.index
                && !had
                && let Some(source) = value.as_struct_mut()
            {
                source.remove(secret);
            }
            (index, value)
        })
        .collect()
}

/// Node labels of old and what they are called now.
const RENAMED: [(&str, &str); 5] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

fn same_but_for_labels(now: &Struct, before: &Struct) -> bool {
    let (now, mut before) = (now.get(s::NODE_AFFINITY).cloned(), before.get(s::NODE_AFFINITY).cloned());
    if let (Some(now), Some(before)) = (&now, &mut before) {
        rename(now, before);
    }
    same(now.as_ref(), before.as_ref())
}

/// Gives a renamed key its new name in `old` where `new` has it.
fn rename(new: &Value, old: &mut Value) {
    match (new, old) {
        (Value::List(new), Value::List(old)) => new.iter().zip(old).for_each(|(new, old)| rename(new, old)),
        (Value::Struct(new), Value::Struct(old)) => {
            use c::node_selector_requirement::KEY;
            if new.ty() == KEY.ty && old.ty() == KEY.ty {
                let renamed = RENAMED.iter().find(|(from, _)| *from == old.str(KEY)).map(|(_, to)| *to);
                if let Some(to) = renamed.filter(|to| *to == new.str(KEY)) {
                    old.set(KEY, to);
                }
                return;
            }
            for (index, value) in old.iter_mut() {
                if let Some(new) = new.get_index(index) {
                    rename(new, value);
                }
            }
        }
        _ => {}
    }
}

fn volume_warnings(doc: &Doc) -> Vec<String> {
    const ANNOTATIONS: [(&str, &str); 2] = [
        (
            "volume.beta.kubernetes.io/storage-class",
            "deprecated since v1.8; use \"storageClassName\" attribute instead",
        ),
        (MOUNT_OPTIONS, "deprecated since v1.31; use \"mountOptions\" attribute instead"),
    ];
    let mut out: Vec<String> = ANNOTATIONS
        .iter()
        .filter(|(key, _)| doc.meta().annotation(key).is_some())
        .map(|(key, text)| format!("metadata.annotations[{key}]: {text}"))
        .collect();
    let Some(spec) = doc.root().and_then(|root| root.child(c::persistent_volume::SPEC)) else { return out };
    if spec.str(s::PERSISTENT_VOLUME_RECLAIM_POLICY) == "Recycle" {
        out.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is \
             to use dynamic provisioning."
                .to_owned(),
        );
    }
    let required =
        spec.child(s::NODE_AFFINITY).and_then(|affinity| affinity.child(c::volume_node_affinity::REQUIRED));
    if let Some(required) = required {
        warnings::node_selector(required, "spec.nodeAffinity.required", &mut out);
    }
    for (field, text) in [
        (s::CEPHFS, warnings::GONE_1_31),
        (s::PHOTON_PERSISTENT_DISK, warnings::GONE_1_16),
        (s::SCALE_IO, warnings::GONE_1_22),
        (s::STORAGEOS, warnings::GONE_1_25),
        (s::GLUSTERFS, warnings::GONE_1_26),
        (s::RBD, warnings::GONE_1_31),
    ] {
        if present(spec, field) {
            let name = if field == s::STORAGEOS { "storageOS" } else { field.def().json };
            out.push(format!("spec.{name}: {text}"));
        }
    }
    out
}
