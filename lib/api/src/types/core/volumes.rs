//! Volumes of pods: each names exactly one source, and each source says what it needs.

use crate::doc::{Struct, Value};
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::quantity::Quantity;
use crate::schema::Field;
use crate::types::core::env::{
    CONTAINER_FIELDS, validate_object_field_selector, validate_resource_field_selector,
};
use crate::types::core::pvc;
use crate::types::core::sources::{self, required};
use crate::types::walk::{present, structs};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// A volume that validated, for mounts to refer to.
#[derive(Clone, Copy)]
pub struct KnownVolume<'a> {
    pub name: &'a str,
    /// A claim, usable as a block device.
    pub claim: bool,
}

/// All volumes of a pod spec; returns those without mistakes.
pub fn validate<'a>(
    spec: &'a Struct,
    pod_name: &str,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) -> Vec<KnownVolume<'a>> {
    let mut known: Vec<KnownVolume<'a>> = Vec::new();
    let made = |claim: &str| {
        claim.strip_prefix(pod_name).and_then(|rest| rest.strip_prefix('-')).is_some_and(|rest| {
            structs(spec, c::pod_spec::VOLUMES)
                .any(|(_, other)| other.str(c::volume::NAME) == rest && present(other, c::volume::EPHEMERAL))
        })
    };
    for (i, volume) in structs(spec, c::pod_spec::VOLUMES) {
        let path = path.index(i);
        let name = volume.str(c::volume::NAME);
        let before = errors.len();
        validate_source(volume, name, pod_name, &path, errors);
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.invalid_each(&path.child("name"), name, names::dns1123_label(name));
        }
        if known.iter().any(|k| k.name == name) {
            errors.duplicate(&path.child("name"), name);
        }
        let claim_name = volume
            .child(c::volume::PERSISTENT_VOLUME_CLAIM)
            .map_or("", |source| source.str(c::persistent_volume_claim_volume_source::CLAIM_NAME));
        if errors.len() == before {
            let claim =
                present(volume, c::volume::PERSISTENT_VOLUME_CLAIM) || present(volume, c::volume::EPHEMERAL);
            known.push(KnownVolume { name, claim });
        }
        if !pod_name.is_empty() && !claim_name.is_empty() && made(claim_name) {
            let at = path.child("persistentVolumeClaim");
            let text = "must not reference a PVC that gets created for an ephemeral volume";
            errors.invalid(&at.child("claimName"), claim_name, text);
        }
    }
    known
}

fn validate_source(
    volume: &Struct,
    name: &str,
    pod_name: &str,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    let mut sources = 0;
    let def = volume.ty().def();
    // As upstream, an emptyDir counts first.
    let first = |index: u16| index == c::volume::EMPTY_DIR.index;
    let ordered = volume.iter().filter(|(i, _)| first(*i)).chain(volume.iter().filter(|(i, _)| !first(*i)));
    for (index, value) in ordered {
        if index == c::volume::NAME.index || *value == Value::Null {
            continue;
        }
        sources += 1;
        let json = def.fields[index as usize].json;
        let below = path.child(json);
        if sources > 1 {
            // Upstream's paths of these two differ from the fields' names here.
            let said = match json {
                "cephfs" => "cephFS",
                "downwardAPI" => "downwarAPI",
                other => other,
            };
            errors.forbidden(&path.child(said), "may not specify more than 1 volume type");
            continue;
        }
        if let Some(source) = value.as_struct() {
            validate_one(source, Field::new(volume.ty(), index), name, pod_name, path, &below, errors);
        }
    }
    if sources == 0 {
        errors.required(path, "must specify a volume type");
    }
}

fn validate_one(
    source: &Struct,
    field: Field,
    name: &str,
    pod_name: &str,
    volume_path: &FieldPath<'_>,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    match field {
        c::volume::EMPTY_DIR => {
            let limit = source.str(c::empty_dir_volume_source::SIZE_LIMIT);
            if Quantity::parse(limit).is_ok_and(|limit| limit.sign() < 0) {
                errors
                    .forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
            }
        }
        c::volume::HOST_PATH => host_path(source, path, errors),
        c::volume::SECRET => {
            required(source, c::secret_volume_source::SECRET_NAME, path, errors);
            mode(source, c::secret_volume_source::DEFAULT_MODE, path, errors);
            keys_to_paths(source, c::secret_volume_source::ITEMS, path, errors);
        }
        c::volume::CONFIG_MAP => {
            required(source, c::config_map_volume_source::NAME, path, errors);
            mode(source, c::config_map_volume_source::DEFAULT_MODE, path, errors);
            keys_to_paths(source, c::config_map_volume_source::ITEMS, path, errors);
        }
        c::volume::DOWNWARD_API => {
            mode(source, c::downward_api_volume_source::DEFAULT_MODE, path, errors);
            for (_, file) in structs(source, c::downward_api_volume_source::ITEMS) {
                downward_file(file, path, errors);
            }
        }
        c::volume::PROJECTED => projected(source, path, errors),
        c::volume::PERSISTENT_VOLUME_CLAIM => {
            required(source, c::persistent_volume_claim_volume_source::CLAIM_NAME, path, errors);
        }
        c::volume::NFS => {
            nfs(source, path, errors);
        }
        c::volume::CSI => {
            let driver = source.str(c::csi_volume_source::DRIVER);
            validate_csi_driver(driver, &path.child("driver"), errors);
            publish_secret(source, path, errors);
        }
        c::volume::EPHEMERAL => ephemeral(source, name, pod_name, volume_path, path, errors),
        c::volume::IMAGE => {
            required(source, c::image_volume_source::REFERENCE, path, errors);
            let policy = source.str(c::image_volume_source::PULL_POLICY);
            if !matches!(policy, "Always" | "IfNotPresent" | "Never") {
                errors.not_supported(&path.child("pullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
            }
        }
        c::volume::GIT_REPO => {
            required(source, c::git_repo_volume_source::REPOSITORY, path, errors);
            let directory = source.str(c::git_repo_volume_source::DIRECTORY);
            descending_path(directory, &path.child("directory"), errors);
        }
        // Upstream's path for this source is not the field's own.
        c::volume::GCE_PERSISTENT_DISK => {
            sources::validate(source, name, volume_path, &volume_path.child("persistentDisk"), errors);
        }
        _ => sources::validate(source, name, volume_path, path, errors),
    }
}

/// An NFS export.
pub fn nfs(source: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    required(source, c::nfs_volume_source::SERVER, path, errors);
    required(source, c::nfs_volume_source::PATH, path, errors);
    let export = source.str(c::nfs_volume_source::PATH);
    if !export.starts_with('/') {
        errors.invalid(&path.child("path"), export, "must be an absolute path");
    }
}

fn publish_secret(source: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::csi_volume_source as s;
    let Some(secret) = source.child(s::NODE_PUBLISH_SECRET_REF) else { return };
    match secret.str(c::local_object_reference::NAME) {
        "" => errors.required(&path.child("nodePublishSecretRef").child("name"), ""),
        // As upstream, without the field's own name.
        name => errors.invalid_each(&path.child("name"), name, names::dns1123_subdomain(name)),
    }
}

/// A CSI driver's name.
pub fn validate_csi_driver(driver: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if driver.is_empty() {
        errors.required(path, "");
        return;
    }
    if driver.len() > 63 {
        errors.too_long(path, 63);
    }
    errors.invalid_each(path, driver, names::dns1123_subdomain(&driver.to_ascii_lowercase()));
}

/// A host path: its path without `..`, its type.
pub fn host_path(source: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let host = source.str(c::host_path_volume_source::PATH);
    if host.is_empty() {
        errors.required(&path.child("path"), "");
        return;
    }
    no_backsteps(host, &path.child("path"), errors);
    let kind = source.str(c::host_path_volume_source::TYPE);
    let supported =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    if !supported.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, &supported);
    }
}

fn mode(s: &Struct, field: Field, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if let Some(mode) = s.int(field).filter(|mode| !(0..=0o777).contains(mode)) {
        errors.invalid(&path.child(field.def().json), mode, MODE);
    }
}

fn keys_to_paths(s: &Struct, field: Field, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let items = path.child("items");
    for (i, item) in structs(s, field) {
        key_to_path(item, &items.index(i), errors);
    }
}

fn key_to_path(item: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    required(item, c::key_to_path::KEY, path, errors);
    required(item, c::key_to_path::PATH, path, errors);
    non_reserved_path(item.str(c::key_to_path::PATH), &path.child("path"), errors);
    mode(item, c::key_to_path::MODE, path, errors);
}

fn downward_file(file: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    required(file, c::downward_api_volume_file::PATH, path, errors);
    non_reserved_path(file.str(c::downward_api_volume_file::PATH), &path.child("path"), errors);
    let field = file.child(c::downward_api_volume_file::FIELD_REF);
    let resource = file.child(c::downward_api_volume_file::RESOURCE_FIELD_REF);
    match (field, resource) {
        (Some(field), resource) => {
            validate_object_field_selector(field, &VOLUME_FIELDS, &path.child("fieldRef"), errors);
            if resource.is_some() {
                errors.invalid(
                    path,
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
        }
        (None, Some(resource)) => {
            let below = path.child("resourceFieldRef");
            validate_resource_field_selector(resource, &CONTAINER_FIELDS, true, &below, errors);
        }
        (None, None) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(file, c::downward_api_volume_file::MODE, path, errors);
}

fn once<'a>(
    paths: &mut Vec<&'a str>,
    one: &'a str,
    label: &str,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    if one.is_empty() {
        return;
    }
    if paths.contains(&one) {
        errors.invalid(path, label, "conflicting duplicate paths");
    } else {
        paths.push(one);
    }
}

fn projected(source: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    mode(source, c::projected_volume_source::DEFAULT_MODE, path, errors);
    let mut paths: Vec<&str> = Vec::new();
    let sources = path.child("sources");
    for (i, one) in structs(source, c::projected_volume_source::SOURCES) {
        let at = sources.index(i);
        let count = one.iter().filter(|(_, value)| **value != Value::Null).count();
        if let Some(secret) = one.child(c::volume_projection::SECRET) {
            let below = at.child("secret");
            let name = secret.str(c::secret_projection::NAME);
            required(secret, c::secret_projection::NAME, &below, errors);
            keys_to_paths(secret, c::secret_projection::ITEMS, &below, errors);
            for (_, item) in structs(secret, c::secret_projection::ITEMS) {
                once(&mut paths, item.str(c::key_to_path::PATH), name, path, errors);
            }
        }
        if let Some(map) = one.child(c::volume_projection::CONFIG_MAP) {
            let below = at.child("configMap");
            let name = map.str(c::config_map_projection::NAME);
            required(map, c::config_map_projection::NAME, &below, errors);
            keys_to_paths(map, c::config_map_projection::ITEMS, &below, errors);
            for (_, item) in structs(map, c::config_map_projection::ITEMS) {
                once(&mut paths, item.str(c::key_to_path::PATH), name, path, errors);
            }
        }
        if let Some(downward) = one.child(c::volume_projection::DOWNWARD_API) {
            for (_, file) in structs(downward, c::downward_api_projection::ITEMS) {
                downward_file(file, &at.child("downwardAPI"), errors);
                let file_path = file.str(c::downward_api_volume_file::PATH);
                once(&mut paths, file_path, file_path, path, errors);
            }
        }
        if let Some(token) = one.child(c::volume_projection::SERVICE_ACCOUNT_TOKEN) {
            token_projection(token, &at.child("serviceAccountToken"), path, errors);
        }
        if let Some(bundle) = one.child(c::volume_projection::CLUSTER_TRUST_BUNDLE) {
            let below = at.child("clusterTrustBundle");
            let bundle_path = bundle.str(c::cluster_trust_bundle_projection::PATH);
            let name = present(bundle, c::cluster_trust_bundle_projection::NAME);
            let signer = present(bundle, c::cluster_trust_bundle_projection::SIGNER_NAME);
            if !name && !signer {
                errors.required(&below, "either name or signerName must be specified");
            }
            required(bundle, c::cluster_trust_bundle_projection::PATH, &below, errors);
            non_reserved_path(bundle_path, &below.child("path"), errors);
            once(&mut paths, bundle_path, bundle_path, path, errors);
        }
        if count > 1 {
            errors.forbidden(&at, "may not specify more than 1 volume type per source");
        }
    }
}

fn token_projection(token: &Struct, at: &FieldPath<'_>, volume: &FieldPath<'_>, errors: &mut ErrorList) {
    let seconds = token.int(c::service_account_token_projection::EXPIRATION_SECONDS).unwrap_or(0);
    let below = at.child("expirationSeconds");
    if seconds < 600 {
        errors.invalid(&below, seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        errors.invalid(&below, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    let path = token.str(c::service_account_token_projection::PATH);
    if path.is_empty() {
        errors.required(&volume.child("path"), "");
    } else {
        non_reserved_path(path, &volume.child("path"), errors);
    }
}

fn ephemeral(
    source: &Struct,
    name: &str,
    pod_name: &str,
    volume_path: &FieldPath<'_>,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    let below = path.child("volumeClaimTemplate");
    match source.child(c::ephemeral_volume_source::VOLUME_CLAIM_TEMPLATE) {
        None => errors.required(&below, ""),
        Some(template) => {
            if let Some(spec) = template.child(c::persistent_volume_claim_template::SPEC) {
                pvc::validate_spec(spec, &below.child("spec"), errors);
            }
        }
    }
    if !pod_name.is_empty() && !name.is_empty() {
        let claim = format!("{pod_name}-{name}");
        for message in names::dns1123_subdomain(&claim) {
            let quoted = crate::field_errors::quoted(&claim);
            errors.invalid(&volume_path.child("name"), name, format!("PVC name {quoted}: {message}"));
        }
    }
}

/// No `..` among the elements.
pub fn no_backsteps(value: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if value.split('/').any(|item| item == "..") {
        errors.invalid(path, value, "must not contain '..'");
    }
}

/// Relative, without `..`.
pub fn descending_path(value: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if value.starts_with('/') {
        errors.invalid(path, value, "must be a relative path");
    }
    no_backsteps(value, path, errors);
}

/// Relative, without `..`, not starting with `..`.
pub fn non_reserved_path(value: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    descending_path(value, path, errors);
    if value.starts_with("..") && !value.starts_with("../") {
        errors.invalid(path, value, "must not start with '..'");
    }
}
