//! Containers: names, images, ports, environment, mounts, probes, hooks.

use crate::doc::{Struct, Value};
use crate::f::core_v1 as c;
use crate::field_errors::{BadValue, ErrorList, FieldPath};
use crate::names;
use crate::schema::Field;
use crate::types::core::env::{validate_env, validate_env_from};
use crate::types::core::pod_defaults::as_container;
use crate::types::core::probes::{validate_lifecycle, validate_probes};
use crate::types::core::volumes::{self, KnownVolume};
use crate::types::core::{resources, security};
use crate::types::walk::{json_text, present, strs, structs};

/// What a container's rules need to know of its pod.
pub struct PodFacts<'a> {
    pub volumes: &'a [KnownVolume<'a>],
    pub claim_names: &'a [&'a str],
    pub grace: Option<i64>,
    pub restart_policy: &'a str,
    /// False only where `hostUsers: false`.
    pub host_users: bool,
    pub os: Option<&'a str>,
    /// Restart rules and policies of single containers are allowed.
    pub restart_rules: bool,
}

/// `containers`.
pub fn validate_containers(
    spec: &Struct,
    facts: &PodFacts<'_>,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    let list = spec.list(c::pod_spec::CONTAINERS);
    if list.is_empty() {
        errors.required(path, "");
        return;
    }
    let mut names: Vec<&str> = Vec::with_capacity(list.len());
    for (i, container) in structs(spec, c::pod_spec::CONTAINERS) {
        let at = path.index(i);
        common(container, facts, &at, errors);
        let name = container.str(c::container::NAME);
        if names.contains(&name) {
            errors.duplicate(&at.child("name"), name);
        } else {
            names.push(name);
        }
        if let Some(lifecycle) = container.child(c::container::LIFECYCLE) {
            validate_lifecycle(lifecycle, facts, &at.child("lifecycle"), errors);
        }
        validate_probes(container, facts, &at, errors);
        if facts.restart_rules {
            restart_policy(container, &at, errors);
        } else if present(container, c::container::RESTART_POLICY) {
            errors.forbidden(&at.child("restartPolicy"), "may not be set for non-init containers");
        }
    }
    let mut ports = Vec::new();
    for (i, container) in structs(spec, c::pod_spec::CONTAINERS) {
        host_ports(container, &mut ports, &path.index(i), errors);
    }
}

/// `initContainers`, sidecars among them.
pub fn validate_init_containers(
    spec: &Struct,
    facts: &PodFacts<'_>,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    let mut names: Vec<&str> = structs(spec, c::pod_spec::CONTAINERS)
        .map(|(_, container)| container.str(c::container::NAME))
        .collect();
    for (i, container) in structs(spec, c::pod_spec::INIT_CONTAINERS) {
        let at = path.index(i);
        common(container, facts, &at, errors);
        let sidecar = container.str(c::container::RESTART_POLICY) == "Always";
        if !present(container, c::container::RESTART_POLICY) {
            if !container.list(c::container::RESTART_POLICY_RULES).is_empty() {
                let text = "must specify restartPolicy when restart rules are used";
                errors.required(&at.child("restartPolicy"), text);
            }
        } else if !facts.restart_rules {
            let policy = container.str(c::container::RESTART_POLICY);
            if !policy.is_empty() && policy != "Always" {
                errors.not_supported(&at.child("restartPolicy"), policy, &["Always"]);
            }
        } else if sidecar {
            if !container.list(c::container::RESTART_POLICY_RULES).is_empty() {
                errors.forbidden(
                    &at.child("restartPolicyRules"),
                    "restartPolicyRules are not allowed for init containers with restart policy Always",
                );
            }
        } else {
            restart_policy(container, &at, errors);
        }
        let name = container.str(c::container::NAME);
        if names.contains(&name) {
            errors.duplicate(&at.child("name"), name);
        } else if !name.is_empty() {
            names.push(name);
        }
        host_ports(container, &mut Vec::new(), &path.index(0), errors);
        if sidecar {
            if let Some(lifecycle) = container.child(c::container::LIFECYCLE) {
                validate_lifecycle(lifecycle, facts, &at.child("lifecycle"), errors);
            }
            validate_probes(container, facts, &at, errors);
        } else {
            for field in [
                c::container::LIFECYCLE,
                c::container::LIVENESS_PROBE,
                c::container::READINESS_PROBE,
                c::container::STARTUP_PROBE,
            ] {
                if present(container, field) {
                    errors.forbidden(
                        &at.child(field.def().json),
                        "may not be set for init containers without restartPolicy=Always",
                    );
                }
            }
        }
    }
}

/// `ephemeralContainers`.
pub fn validate_ephemeral_containers(
    spec: &Struct,
    facts: &PodFacts<'_>,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    if spec.list(c::pod_spec::EPHEMERAL_CONTAINERS).is_empty() {
        return;
    }
    let others: Vec<&str> = [c::pod_spec::CONTAINERS, c::pod_spec::INIT_CONTAINERS]
        .into_iter()
        .flat_map(|list| structs(spec, list))
        .map(|(_, container)| container.str(c::container::NAME))
        .collect();
    let mut names = others.clone();
    for (i, ephemeral) in structs(spec, c::pod_spec::EPHEMERAL_CONTAINERS) {
        let at = path.index(i);
        let container = as_container(ephemeral);
        common(&container, facts, &at, errors);
        validate_image_spaces(&container, &at, errors);
        let name = ephemeral.str(c::ephemeral_container::NAME);
        if names.contains(&name) {
            errors.duplicate(&at.child("name"), name);
        } else {
            names.push(name);
        }
        let target = ephemeral.str(c::ephemeral_container::TARGET_CONTAINER_NAME);
        if !target.is_empty() && !others.contains(&target) {
            errors.not_found(&at.child("targetContainerName"), target);
        }
        for field in [
            c::container::PORTS,
            c::container::RESOURCES,
            c::container::RESIZE_POLICY,
            c::container::RESTART_POLICY,
            c::container::RESTART_POLICY_RULES,
            c::container::LIVENESS_PROBE,
            c::container::READINESS_PROBE,
            c::container::STARTUP_PROBE,
            c::container::LIFECYCLE,
        ] {
            let set = match container.get(field) {
                Some(Value::Struct(s)) => !s.is_empty(),
                Some(other) => !other.is_go_empty(),
                None => false,
            };
            if set {
                errors.forbidden(&at.child(field.def().json), "cannot be set for an Ephemeral Container");
            }
        }
        for (j, mount) in structs(&container, c::container::VOLUME_MOUNTS) {
            for field in [c::volume_mount::SUB_PATH, c::volume_mount::SUB_PATH_EXPR] {
                if !mount.str(field).is_empty() {
                    let below = at.child("volumeMounts");
                    errors.forbidden(
                        &below.index(j).child(field.def().json),
                        "cannot be set for an Ephemeral Container",
                    );
                }
            }
        }
    }
}

/// The image's text has no space around it (pods only).
pub fn validate_image_spaces(container: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let image = container.str(c::container::IMAGE);
    if image.trim().len() != image.len() {
        errors.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
    }
}

/// The image of a container in an update: there, without space around it.
pub fn validate_image_change(container: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if container.str(c::container::IMAGE).is_empty() {
        errors.required(&path.child("image"), "");
    }
    validate_image_spaces(container, path, errors);
}

fn common(container: &Struct, facts: &PodFacts<'_>, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let name = container.str(c::container::NAME);
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.invalid_each(&path.child("name"), name, names::dns1123_label(name));
    }
    if container.str(c::container::IMAGE).is_empty() {
        errors.required(&path.child("image"), "");
    }
    one_of(
        container.str(c::container::TERMINATION_MESSAGE_POLICY),
        &["File", "FallbackToLogsOnError"],
        &path.child("terminationMessagePolicy"),
        errors,
    );
    validate_ports(container, &path.child("ports"), errors);
    validate_env(container, &path.child("env"), errors);
    validate_env_from(container, &path.child("envFrom"), errors);
    validate_mounts(container, facts.volumes, &path.child("volumeMounts"), errors);
    validate_devices(container, facts.volumes, &path.child("volumeDevices"), errors);
    let policy = container.str(c::container::IMAGE_PULL_POLICY);
    one_of(policy, &["Always", "IfNotPresent", "Never"], &path.child("imagePullPolicy"), errors);
    if let Some(requirements) = container.child(c::container::RESOURCES) {
        let at = path.child("resources");
        resources::validate_requirements(requirements, true, facts.claim_names, &at, errors);
    }
    resize_policy(container, facts.restart_policy, &path.child("resizePolicy"), errors);
    if let Some(context) = container.child(c::container::SECURITY_CONTEXT) {
        security::validate_container(context, facts.host_users, &path.child("securityContext"), errors);
    }
}

/// Required, and one of the values.
pub fn one_of(value: &str, supported: &[&str], path: &FieldPath<'_>, errors: &mut ErrorList) {
    if value.is_empty() {
        errors.required(path, "");
    } else if !supported.contains(&value) {
        errors.not_supported(path, value, supported);
    }
}

fn restart_policy(container: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let policy = container.str(c::container::RESTART_POLICY);
    let rules = container.list(c::container::RESTART_POLICY_RULES);
    let at = path.child("restartPolicy");
    if !present(container, c::container::RESTART_POLICY) {
        if rules.is_empty() {
            return;
        }
        errors.required(&at, "must specify restartPolicy when restart rules are used");
    } else if !matches!(policy, "Always" | "Never" | "OnFailure") {
        errors.not_supported(&at, policy, &["Always", "Never", "OnFailure"]);
    }
    let rules_path = path.child("restartPolicyRules");
    if rules.len() > 20 {
        errors.too_long(&rules_path, 20);
    }
    for (i, rule) in structs(container, c::container::RESTART_POLICY_RULES) {
        let at = rules_path.index(i);
        let action = rule.str(c::container_restart_rule::ACTION);
        if action != "Restart" {
            errors.not_supported(&at.child("action"), action, &["Restart"]);
        }
        let Some(codes) = rule.child(c::container_restart_rule::EXIT_CODES) else {
            errors.required(&at.child("exitCodes"), "must be specified");
            continue;
        };
        let below = at.child("exitCodes");
        let operator = codes.str(c::container_restart_rule_on_exit_codes::OPERATOR);
        if !matches!(operator, "In" | "NotIn") {
            errors.not_supported(&below.child("operator"), operator, &["In", "NotIn"]);
        }
        let values = codes.list(c::container_restart_rule_on_exit_codes::VALUES).len();
        if values > 255 {
            errors.too_long(&below.child("values"), 255);
        }
    }
}

fn resize_policy(container: &Struct, pod_policy: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, policy) in structs(container, c::container::RESIZE_POLICY) {
        let resource = policy.str(c::container_resize_policy::RESOURCE_NAME);
        if seen.contains(&resource) {
            errors.duplicate(&path.index(i), resource);
        }
        seen.push(resource);
        one_of(resource, &["cpu", "memory"], path, errors);
        let restart = policy.str(c::container_resize_policy::RESTART_POLICY);
        one_of(restart, &["NotRequired", "RestartContainer"], path, errors);
        if pod_policy == "Never" && restart != "NotRequired" {
            errors.invalid(path, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}

fn validate_ports(container: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, port) in structs(container, c::container::PORTS) {
        let at = path.index(i);
        let name = port.str(c::container_port::NAME);
        if !name.is_empty() {
            let messages = names::port_name(name);
            if !messages.is_empty() {
                errors.invalid_each(&at.child("name"), name, messages);
            } else if seen.contains(&name) {
                errors.duplicate(&at.child("name"), name);
            } else {
                seen.push(name);
            }
        }
        match port.int(c::container_port::CONTAINER_PORT).unwrap_or(0) {
            0 => errors.required(&at.child("containerPort"), ""),
            number => port_number(number, &at.child("containerPort"), errors),
        }
        match port.int(c::container_port::HOST_PORT).unwrap_or(0) {
            0 => {}
            number => port_number(number, &at.child("hostPort"), errors),
        }
        let protocol = port.str(c::container_port::PROTOCOL);
        one_of(protocol, &["SCTP", "TCP", "UDP"], &at.child("protocol"), errors);
    }
}

/// 1–65535.
pub fn port_number(number: i64, path: &FieldPath<'_>, errors: &mut ErrorList) {
    for message in names::port_number(number) {
        errors.invalid(path, number, message);
    }
}

fn host_ports(container: &Struct, seen: &mut Vec<String>, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let ports = path.child("ports");
    for (i, port) in structs(container, c::container::PORTS) {
        let number = port.int(c::container_port::HOST_PORT).unwrap_or(0);
        if number == 0 {
            continue;
        }
        let protocol = port.str(c::container_port::PROTOCOL);
        let key = format!("{protocol}/{}/{number}", port.str(c::container_port::HOST_IP));
        if seen.contains(&key) {
            errors.duplicate(&ports.index(i).child("hostPort"), key);
        } else {
            seen.push(key);
        }
    }
}

fn validate_mounts(
    container: &Struct,
    known: &[KnownVolume<'_>],
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    let mut points: Vec<&str> = Vec::new();
    for (i, mount) in structs(container, c::container::VOLUME_MOUNTS) {
        let at = path.index(i);
        let name = mount.str(c::volume_mount::NAME);
        let point = mount.str(c::volume_mount::MOUNT_PATH);
        if name.is_empty() {
            errors.required(&at.child("name"), "");
        }
        if !known.iter().any(|volume| volume.name == name) {
            errors.not_found(&at.child("name"), name);
        }
        if point.is_empty() {
            errors.required(&at.child("mountPath"), "");
        }
        if points.contains(&point) {
            errors.invalid(&at.child("mountPath"), point, "must be unique");
        }
        points.push(point);
        for (_, device) in structs(container, c::container::VOLUME_DEVICES) {
            if device.str(c::volume_device::NAME) == name {
                errors.invalid(&at.child("name"), name, "must not already exist in volumeDevices");
            }
            if device.str(c::volume_device::DEVICE_PATH) == point {
                let text = "must not already exist as a path in volumeDevices";
                errors.invalid(&at.child("mountPath"), point, text);
            }
        }
        let sub = mount.str(c::volume_mount::SUB_PATH);
        if !sub.is_empty() {
            volumes::descending_path(sub, &path.child("subPath"), errors);
        }
        let expression = mount.str(c::volume_mount::SUB_PATH_EXPR);
        if !expression.is_empty() {
            if !sub.is_empty() {
                let text = "subPathExpr and subPath are mutually exclusive";
                errors.invalid(&at.child("subPathExpr"), expression, text);
            }
            volumes::descending_path(expression, &path.child("subPathExpr"), errors);
        }
        mount_flags(mount, container, path, errors);
    }
}

fn mount_flags(mount: &Struct, container: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let propagation = mount.str(c::volume_mount::MOUNT_PROPAGATION);
    if present(mount, c::volume_mount::MOUNT_PROPAGATION) {
        let at = path.child("mountPropagation");
        let supported = ["Bidirectional", "HostToContainer", "None"];
        if !supported.contains(&propagation) {
            errors.not_supported(&at, propagation, &supported);
        }
        let privileged = container
            .child(c::container::SECURITY_CONTEXT)
            .and_then(|context| context.bool(c::security_context::PRIVILEGED))
            .unwrap_or(false);
        if propagation == "Bidirectional" && !privileged {
            errors
                .forbidden(&at, "Bidirectional mount propagation is available only to privileged containers");
        }
    }
    if present(mount, c::volume_mount::RECURSIVE_READ_ONLY) {
        let at = path.child("recursiveReadOnly");
        match mount.str(c::volume_mount::RECURSIVE_READ_ONLY) {
            "Disabled" => {}
            "Enabled" | "IfPossible" => {
                if mount.bool(c::volume_mount::READ_ONLY) != Some(true) {
                    errors.forbidden(&at, "may only be specified when readOnly is true");
                }
                if !propagation.is_empty() && propagation != "None" {
                    errors.forbidden(
                        &at,
                        "may only be specified when mountPropagation is None or not specified",
                    );
                }
            }
            other => errors.not_supported(&at, other, &["Disabled", "Enabled", "IfPossible"]),
        }
    }
}

fn validate_devices(
    container: &Struct,
    known: &[KnownVolume<'_>],
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    let mut paths: Vec<&str> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (i, device) in structs(container, c::container::VOLUME_DEVICES) {
        let at = path.index(i);
        let name = device.str(c::volume_device::NAME);
        let point = device.str(c::volume_device::DEVICE_PATH);
        if name.is_empty() {
            errors.required(&at.child("name"), "");
        }
        if seen.contains(&name) {
            errors.invalid(&at.child("name"), name, "must be unique");
        }
        match known.iter().find(|volume| volume.name == name) {
            Some(volume) if !volume.claim => errors.invalid(
                &at.child("name"),
                name,
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            ),
            Some(_) => {}
            None => errors.not_found(&at.child("name"), name),
        }
        if point.is_empty() {
            errors.required(&at.child("devicePath"), "");
        }
        if paths.contains(&point) {
            errors.invalid(&at.child("devicePath"), point, "must be unique");
        }
        if point.split('/').any(|item| item == "..") {
            errors.invalid(&at.child("devicePath"), point, "can not contain backsteps ('..')");
        } else {
            paths.push(point);
        }
        for (_, mount) in structs(container, c::container::VOLUME_MOUNTS) {
            if mount.str(c::volume_mount::NAME) == name {
                errors.invalid(&at.child("name"), name, "must not already exist in volumeMounts");
            }
            if mount.str(c::volume_mount::MOUNT_PATH) == point {
                let text = "must not already exist as a path in volumeMounts";
                errors.invalid(&at.child("devicePath"), point, text);
            }
        }
        if !name.is_empty() {
            seen.push(name);
        }
    }
}

/// A port's number or name.
pub fn port_or_name(port: Option<&Value>, path: &FieldPath<'_>, errors: &mut ErrorList) {
    match port {
        Some(Value::Str(name)) => errors.invalid_each(path, name, names::port_name(name)),
        other => port_number(other.and_then(Value::as_int).unwrap_or(0), path, errors),
    }
}

/// Values of a list of strings as error texts print them.
pub fn string_list(s: &Struct, field: Field) -> BadValue {
    let list: Vec<&str> = strs(s, field).map(|(_, text)| text).collect();
    if list.is_empty() { json_text(None) } else { BadValue::json(&list) }
}
