//! Security contexts of pods and containers.

use crate::doc::{Struct, Value};
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::schema::Field;
use crate::types::core::volumes::descending_path;
use crate::types::core::windows;
use crate::types::walk::{json_text, present, structs};

fn id(s: &Struct, field: Field, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if let Some(value) = s.int(field) {
        for message in names::unix_id(value) {
            errors.invalid(&path.child(field.def().json), value, message);
        }
    }
}

/// A container's security context; `host_users` is false where the pod has a user namespace.
pub fn validate_container(context: &Struct, host_users: bool, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::security_context as sc;
    id(context, sc::RUN_AS_USER, path, errors);
    id(context, sc::RUN_AS_GROUP, path, errors);
    if present(context, sc::PROC_MOUNT) {
        let mount = context.str(sc::PROC_MOUNT);
        let at = path.child("procMount");
        if !matches!(mount, "Default" | "Unmasked") {
            errors.not_supported(&at, mount, &["Default", "Unmasked"]);
        }
        if host_users && mount == "Unmasked" {
            errors.invalid(&at, mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    if let Some(profile) = context.child(sc::SECCOMP_PROFILE) {
        seccomp(profile, &path.child("seccompProfile"), errors);
    }
    if let Some(options) = context.child(sc::WINDOWS_OPTIONS) {
        windows::options(options, &path.child("windowsOptions"), errors);
    }
    if context.bool(sc::ALLOW_PRIVILEGE_ESCALATION) == Some(false) {
        let value = || json_text(Some(&Value::Struct(context.clone())));
        if context.bool(sc::PRIVILEGED) == Some(true) {
            let text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(path, value(), text);
        }
        let added = context.child(sc::CAPABILITIES).map_or(&[][..], |caps| caps.list(c::capabilities::ADD));
        if added.iter().any(|cap| cap.as_str() == Some("CAP_SYS_ADMIN")) {
            let text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(path, value(), text);
        }
    }
    if let Some(profile) = context.child(sc::APP_ARMOR_PROFILE) {
        app_armor(profile, &path.child("appArmorProfile"), errors);
    }
}

/// A pod's security context; `by_mount` says whether SELinux labels may be set by mount options.
pub fn validate_pod(
    context: &Struct,
    spec: &Struct,
    by_mount: bool,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    use c::pod_security_context as psc;
    for field in [psc::FS_GROUP, psc::RUN_AS_USER, psc::RUN_AS_GROUP] {
        id(context, field, path, errors);
    }
    let groups = path.child("supplementalGroups");
    for (i, group) in context.list(psc::SUPPLEMENTAL_GROUPS).iter().enumerate() {
        if let Some(group) = group.as_int() {
            for message in names::unix_id(group) {
                errors.invalid(&groups.index(i), group, message);
            }
        }
    }
    let shares = spec.bool(c::pod_spec::SHARE_PROCESS_NAMESPACE) == Some(true);
    if shares && spec.bool(c::pod_spec::HOST_PID) == Some(true) {
        let text = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("shareProcessNamespace"), true, text);
    }
    sysctls(context, spec, &path.child("sysctls"), errors);
    optional_one_of(context, psc::FS_GROUP_CHANGE_POLICY, &["Always", "OnRootMismatch"], path, errors);
    if let Some(profile) = context.child(psc::SECCOMP_PROFILE) {
        seccomp(profile, &path.child("seccompProfile"), errors);
    }
    if let Some(profile) = context.child(psc::APP_ARMOR_PROFILE) {
        app_armor(profile, &path.child("appArmorProfile"), errors);
    }
    if let Some(options) = context.child(psc::WINDOWS_OPTIONS) {
        windows::options(options, &path.child("windowsOptions"), errors);
    }
    optional_one_of(context, psc::SUPPLEMENTAL_GROUPS_POLICY, &["Merge", "Strict"], path, errors);
    let policies: &[&str] = if by_mount { &["MountOption", "Recursive"] } else { &["Recursive"] };
    optional_one_of(context, psc::SE_LINUX_CHANGE_POLICY, policies, path, errors);
}

/// One of the values where it is set.
pub fn optional_one_of(
    s: &Struct,
    field: Field,
    supported: &[&str],
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    if present(s, field) && !supported.contains(&s.str(field)) {
        errors.not_supported(&path.child(field.def().json), s.str(field), supported);
    }
}

fn sysctl_name(name: &str) -> bool {
    let segment = |part: &str| {
        let bytes = part.as_bytes();
        let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        !bytes.is_empty()
            && bytes.first().is_some_and(edge)
            && bytes.last().is_some_and(edge)
            && bytes.iter().all(|b| edge(b) || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.split(['.', '/']).all(segment)
}

fn sysctls(context: &Struct, spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, sysctl) in structs(context, c::pod_security_context::SYSCTLS) {
        let at = path.index(i);
        let at = at.child("name");
        let name = sysctl.str(c::sysctl::NAME);
        if name.is_empty() {
            errors.required(&at, "");
        } else if !sysctl_name(name) {
            let segment = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
            let text =
                format!("must have at most 253 characters and match regex ^({segment}[\\./])*{segment}$");
            errors.invalid(&at, name, text);
        } else if seen.contains(&name) {
            errors.duplicate(&at, name);
        }
        let dotted = name.replace('/', ".");
        if spec.bool(c::pod_spec::HOST_NETWORK) == Some(true) && dotted.starts_with("net.") {
            errors.invalid(&at, name, "may not be specified when 'hostNetwork' is true");
        }
        let ipc = dotted.starts_with("kernel.shm")
            || dotted.starts_with("kernel.msg")
            || dotted == "kernel.sem"
            || dotted.starts_with("fs.mqueue.");
        if spec.bool(c::pod_spec::HOST_IPC) == Some(true) && ipc {
            errors.invalid(&at, name, "may not be specified when 'hostIPC' is true");
        }
        seen.push(name);
    }
}

fn seccomp(profile: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::seccomp_profile as sp;
    let kind = profile.str(sp::TYPE);
    match kind {
        "Localhost" | "RuntimeDefault" | "Unconfined" => {}
        "" => errors.required(&path.child("type"), "type is required when seccompProfile is set"),
        other => {
            errors.not_supported(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]);
        }
    }
    let at = path.child("localhostProfile");
    match (kind == "Localhost", present(profile, sp::LOCALHOST_PROFILE)) {
        (true, false) => errors.required(&at, "must be set when seccomp type is Localhost"),
        (true, true) => descending_path(profile.str(sp::LOCALHOST_PROFILE), &at, errors),
        (false, true) => {
            let value = json_text(Some(&Value::Struct(profile.clone())));
            errors.invalid(&at, value, "can only be set when seccomp type is Localhost");
        }
        (false, false) => {}
    }
}

fn app_armor(profile: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::app_armor_profile as ap;
    let at = path.child("localhostProfile");
    let local = profile.str(ap::LOCALHOST_PROFILE);
    match profile.str(ap::TYPE) {
        "Localhost" => {
            if local.trim() != local {
                errors.invalid(&at, local, "must not be padded with whitespace");
            } else if local.is_empty() {
                errors.required(&at, "must be set when AppArmor type is Localhost");
            }
            if local.len() > 4095 {
                errors.too_long(&at, 4095);
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if present(profile, ap::LOCALHOST_PROFILE) {
                errors.invalid(&at, local, "can only be set when AppArmor type is Localhost");
            }
        }
        "" => errors.required(&path.child("type"), "type is required when appArmorProfile is set"),
        other => {
            errors.not_supported(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]);
        }
    }
}

/// The profile that a container's annotation of old means; `None` where it means none that there is.
pub fn app_armor_of(annotation: &str) -> Option<Struct> {
    use c::app_armor_profile as ap;
    let (kind, local) = match annotation {
        "unconfined" => ("Unconfined", None),
        "runtime/default" => ("RuntimeDefault", None),
        other => ("Localhost", Some(other.strip_prefix("localhost/").filter(|local| !local.is_empty())?)),
    };
    let mut profile = Struct::new(crate::t::core_v1::APP_ARMOR_PROFILE);
    profile.set(ap::TYPE, kind);
    if let Some(local) = local {
        profile.set(ap::LOCALHOST_PROFILE, local);
    }
    Some(profile)
}

/// Whether the profile has no mistakes.
pub fn app_armor_valid(profile: &Struct) -> bool {
    let mut errors = ErrorList::new();
    app_armor(profile, &FieldPath::new(""), &mut errors);
    errors.is_empty()
}
