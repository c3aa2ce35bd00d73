//! Environment variables and what they are read from.

use crate::doc::Struct;
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::quantity::Quantity;
use crate::types::core::volumes;
use crate::types::walk::{present, structs};

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// What `resourceFieldRef` may ask for.
pub const CONTAINER_FIELDS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// `env`.
pub fn validate_env(container: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    for (i, variable) in structs(container, c::container::ENV) {
        let at = path.index(i);
        let name = variable.str(c::env_var::NAME);
        if name.is_empty() {
            errors.required(&at.child("name"), "");
        } else {
            errors.invalid_each(&at.child("name"), name, names::env_var_name(name));
        }
        if let Some(from) = variable.child(c::env_var::VALUE_FROM) {
            value_from(from, !variable.str(c::env_var::VALUE).is_empty(), &at.child("valueFrom"), errors);
        }
    }
}

fn value_from(from: &Struct, has_value: bool, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let mut sources = 0;
    if let Some(field) = from.child(c::env_var_source::FIELD_REF) {
        sources += 1;
        validate_object_field_selector(field, &ENV_FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(resource) = from.child(c::env_var_source::RESOURCE_FIELD_REF) {
        sources += 1;
        let below = path.child("resourceFieldRef");
        validate_resource_field_selector(resource, &CONTAINER_FIELDS, false, &below, errors);
    }
    if let Some(key) = from.child(c::env_var_source::CONFIG_MAP_KEY_REF) {
        sources += 1;
        let (name, key) =
            (key.str(c::config_map_key_selector::NAME), key.str(c::config_map_key_selector::KEY));
        key_selector(name, key, &path.child("configMapKeyRef"), errors);
    }
    if let Some(key) = from.child(c::env_var_source::SECRET_KEY_REF) {
        sources += 1;
        let (name, key) = (key.str(c::secret_key_selector::NAME), key.str(c::secret_key_selector::KEY));
        key_selector(name, key, &path.child("secretKeyRef"), errors);
    }
    if let Some(file) = from.child(c::env_var_source::FILE_KEY_REF) {
        sources += 1;
        file_key(file, &path.child("fileKeyRef"), errors);
    }
    if sources == 0 {
        errors.invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        );
    } else if has_value {
        errors.invalid(path, "", "may not be specified when `value` is not empty");
    } else if sources > 1 {
        errors.invalid(path, "", "may not have more than one field specified at a time");
    }
}

fn key_selector(name: &str, key: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    errors.invalid_each(&path.child("name"), name, names::dns1123_subdomain(name));
    if key.is_empty() {
        errors.required(&path.child("key"), "");
    } else {
        errors.invalid_each(&path.child("key"), key, names::config_map_key(key));
    }
}

fn file_key(file: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let key = file.str(c::file_key_selector::KEY);
    if key.is_empty() {
        errors.required(&path.child("key"), "");
    } else {
        errors.invalid_each(&path.child("key"), key, names::env_var_name(key));
    }
    let volume = file.str(c::file_key_selector::VOLUME_NAME);
    if volume.is_empty() {
        errors.required(&path.child("volumeName"), "");
    } else {
        errors.invalid_each(&path.child("volumeName"), volume, names::dns1123_label(volume));
    }
    let file_path = file.str(c::file_key_selector::PATH);
    if file_path.is_empty() {
        errors.required(&path.child("path"), "");
    } else {
        volumes::no_backsteps(file_path, &path.child("path"), errors);
    }
}

/// `fieldRef`: a path of the pod that may be read here.
pub fn validate_object_field_selector(
    selector: &Struct,
    allowed: &[&str],
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    let version = selector.str(c::object_field_selector::API_VERSION);
    let field = selector.str(c::object_field_selector::FIELD_PATH);
    if version.is_empty() {
        errors.required(&path.child("apiVersion"), "");
        return;
    }
    if field.is_empty() {
        errors.required(&path.child("fieldPath"), "");
        return;
    }
    let below = path.child("fieldPath");
    if version != "v1" {
        let text = format!("error converting fieldPath: unsupported pod version: {version}");
        errors.invalid(&below, field, text);
        return;
    }
    let subscript = field.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    match subscript {
        Some(("metadata.annotations", key)) => {
            errors.invalid_each(
                path,
                &key.to_ascii_lowercase(),
                names::qualified_name(&key.to_ascii_lowercase()),
            );
        }
        Some(("metadata.labels", key)) => errors.invalid_each(path, key, names::qualified_name(key)),
        Some(_) => {
            let text = format!("error converting fieldPath: field label does not support subscript: {field}");
            errors.invalid(&below, selector.str(c::object_field_selector::FIELD_PATH), text);
        }
        None if known_field(field) && !allowed.contains(&field) => {
            errors.not_supported(&below, field, allowed);
        }
        None if !known_field(field) => {
            errors.invalid(
                &below,
                field,
                format!("error converting fieldPath: field label not supported: {field}"),
            );
        }
        None => {}
    }
}

fn known_field(field: &str) -> bool {
    matches!(
        field,
        "metadata.annotations"
            | "metadata.labels"
            | "metadata.name"
            | "metadata.namespace"
            | "metadata.uid"
            | "spec.nodeName"
            | "spec.restartPolicy"
            | "spec.serviceAccountName"
            | "spec.schedulerName"
            | "status.phase"
            | "status.hostIP"
            | "status.hostIPs"
            | "status.podIP"
            | "status.podIPs"
            | "spec.host"
    )
}

/// `resourceFieldRef`: a container's request or limit.
pub fn validate_resource_field_selector(
    selector: &Struct,
    allowed: &[&str],
    volume: bool,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    let resource = selector.str(c::resource_field_selector::RESOURCE);
    let huge = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if volume && selector.str(c::resource_field_selector::CONTAINER_NAME).is_empty() {
        errors.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !allowed.contains(&resource) && !huge {
        errors.not_supported(&path.child("resource"), resource, allowed);
    }
    let divisor = selector.str(c::resource_field_selector::DIVISOR);
    let Ok(divisor) = Quantity::parse(divisor) else { return };
    if divisor.is_zero() {
        return;
    }
    let text = divisor.to_string();
    let sizes = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let of = match resource {
        "limits.cpu" | "requests.cpu" => {
            if !matches!(text.as_str(), "1m" | "1") {
                let text = "only divisor's values 1m and 1 are supported with the cpu resource";
                errors.invalid(&path.child("divisor"), resource, text);
            }
            return;
        }
        "limits.memory" | "requests.memory" => "memory",
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => "local ephemeral storage",
        _ if huge => "hugepages",
        _ => return,
    };
    if !sizes.contains(&text.as_str()) {
        let text = format!("only divisor's values {} are supported with the {of} resource", sizes.join(", "));
        errors.invalid(&path.child("divisor"), resource, text);
    }
}

/// `envFrom`.
pub fn validate_env_from(container: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    for (i, from) in structs(container, c::container::ENV_FROM) {
        let at = path.index(i);
        let prefix = from.str(c::env_from_source::PREFIX);
        if !prefix.is_empty() {
            errors.invalid_each(&at.child("prefix"), prefix, names::env_var_name(prefix));
        }
        let mut sources = 0;
        let references = [
            (
                from.child(c::env_from_source::CONFIG_MAP_REF).map(|s| s.str(c::config_map_env_source::NAME)),
                "configMapRef",
            ),
            (
                from.child(c::env_from_source::SECRET_REF).map(|s| s.str(c::secret_env_source::NAME)),
                "secretRef",
            ),
        ];
        for (name, json) in references.into_iter().filter_map(|(name, json)| Some((name?, json))) {
            sources += 1;
            let below = at.child(json);
            if name.is_empty() {
                errors.required(&below.child("name"), "");
            } else {
                errors.invalid_each(&below.child("name"), name, names::name_is_subdomain(name, true));
            }
        }
        if sources == 0 {
            errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`");
        } else if sources > 1 {
            errors.invalid(path, "", "may not have more than one field specified at a time");
        }
    }
}

/// `fileKeyRef` names an emptyDir of the pod.
pub fn validate_file_keys(spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    for list in [c::pod_spec::INIT_CONTAINERS, c::pod_spec::CONTAINERS, c::pod_spec::EPHEMERAL_CONTAINERS] {
        let base = path.child(list.def().json);
        let ephemeral = list == c::pod_spec::EPHEMERAL_CONTAINERS;
        let variables = if ephemeral { c::ephemeral_container::ENV } else { c::container::ENV };
        for (i, container) in structs(spec, list) {
            for (j, variable) in structs(container, variables) {
                let file = variable
                    .child(c::env_var::VALUE_FROM)
                    .and_then(|from| from.child(c::env_var_source::FILE_KEY_REF));
                let Some(file) = file else { continue };
                let name = file.str(c::file_key_selector::VOLUME_NAME);
                let at = base.index(i);
                let env = at.child("env");
                let variable_path = env.index(j);
                let from = variable_path.child("valueFrom");
                let reference = from.child("fileKeyRef");
                let at = reference.child("volumeName");
                let volume =
                    structs(spec, c::pod_spec::VOLUMES).find(|(_, v)| v.str(c::volume::NAME) == name);
                match volume {
                    None => errors.not_found(&at, name),
                    Some((_, volume)) if !present(volume, c::volume::EMPTY_DIR) => {
                        errors.invalid(&at, name, "referenced volume must be of type emptyDir");
                    }
                    Some(_) => {}
                }
            }
        }
    }
}
