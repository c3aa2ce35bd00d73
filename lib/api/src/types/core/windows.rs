//! What Windows pods may say: host process containers, their options, and the fields only Linux knows.

use crate::doc::{Struct, Value};
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::schema::Field;
use crate::types::walk::{present, structs};

use c::windows_security_context_options as w;

fn host_process(context: Option<&Struct>, options: Field) -> Option<bool> {
    context?.child(options)?.bool(w::HOST_PROCESS)
}

/// Host process containers: all of a pod's or none, on the host's network.
pub fn host_process_pod(spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let context = spec.child(c::pod_spec::SECURITY_CONTEXT);
    let pod = host_process(context, c::pod_security_context::WINDOWS_OPTIONS);
    let (mut all, mut host) = (0, 0);
    for list in [c::pod_spec::INIT_CONTAINERS, c::pod_spec::CONTAINERS, c::pod_spec::EPHEMERAL_CONTAINERS] {
        let at = path.child(list.def().json);
        let field = if list == c::pod_spec::EPHEMERAL_CONTAINERS {
            c::ephemeral_container::SECURITY_CONTEXT
        } else {
            c::container::SECURITY_CONTEXT
        };
        for (i, container) in structs(spec, list) {
            all += 1;
            let own = host_process(container.child(field), c::security_context::WINDOWS_OPTIONS);
            if let (Some(pod), Some(own)) = (pod, own)
                && pod != own
            {
                let at = at.index(i);
                let at = at.child("securityContext");
                let at = at.child("windowsOptions");
                let text =
                    format!("pod hostProcess value must be identical if both are specified, was {pod}");
                errors.invalid(&at.child("hostProcess"), own, text);
            }
            host += i32::from(own.or(pod) == Some(true));
        }
    }
    if host == 0 {
        return;
    }
    if host != all {
        let text =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.invalid(path, "", text);
    }
    if spec.bool(c::pod_spec::HOST_NETWORK) != Some(true) {
        let text = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(&path.child("hostNetwork"), false, text);
    }
}

/// `windowsOptions`.
pub fn options(options: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if present(options, w::GMSA_CREDENTIAL_SPEC_NAME) {
        let name = options.str(w::GMSA_CREDENTIAL_SPEC_NAME);
        errors.invalid_each(&path.child("gmsaCredentialSpecName"), name, names::dns1123_subdomain(name));
    }
    if present(options, w::GMSA_CREDENTIAL_SPEC) {
        let spec = options.str(w::GMSA_CREDENTIAL_SPEC);
        let at = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.invalid(&at, spec, "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > 64 * 1024 {
            errors.invalid(&at, spec, "gmsaCredentialSpec size must be under 64 KiB");
        }
    }
    if present(options, w::RUN_AS_USER_NAME) {
        let name = options.str(w::RUN_AS_USER_NAME);
        for text in user_name(name) {
            errors.invalid(&path.child("runAsUserName"), name, text);
        }
    }
}

fn net_bios(domain: &str) -> bool {
    let mut rest = domain.chars();
    let first = rest.next().is_some_and(|c| c != '.' && !is_reserved(c));
    first && domain.chars().count() <= 15 && rest.all(|c| !is_reserved(c))
}

fn is_reserved(c: char) -> bool {
    matches!(c, '\\' | '/' | ':' | '*' | '?' | '"' | '<' | '>' | '|')
}

fn dns_domain(domain: &str) -> bool {
    let part = |part: &str| {
        let bytes = part.as_bytes();
        !bytes.is_empty()
            && bytes[0].is_ascii_alphanumeric()
            && bytes[bytes.len() - 1].is_ascii_alphanumeric()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    domain.contains('.') && domain.split('.').all(part)
}

fn user_name(name: &str) -> Vec<&'static str> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string"];
    }
    if name.chars().any(char::is_control) {
        return vec!["runAsUserName cannot contain control characters"];
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts.as_slice() {
        [user] => (None, *user),
        [domain, user] => (Some(*domain), *user),
        _ => return vec!["runAsUserName cannot contain more than one backslash"],
    };
    let mut out = Vec::new();
    if let Some(domain) = domain {
        if domain.len() >= 256 {
            out.push("runAsUserName's Domain length must be under 256 characters");
        }
        if !net_bios(domain) && !dns_domain(domain) {
            out.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format");
        }
    }
    if user.is_empty() {
        out.push("runAsUserName's User cannot be empty");
    } else if user.len() > 104 {
        out.push("runAsUserName's User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.chars().all(|c| c == '.' || c == ' ') {
        out.push("runAsUserName's User cannot contain only periods or spaces");
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        out.push("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
    out
}

/// Fields of a pod and its containers that only the other system knows.
pub fn other_system(spec: &Struct, os: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    match os {
        "windows" => only_linux(spec, path, errors),
        "linux" => only_windows(spec, path, errors),
        _ => {}
    }
}

fn refuse(of: Option<&Struct>, fields: &[Field], text: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let Some(of) = of else { return };
    for field in fields {
        let set = match of.get(*field) {
            Some(Value::Bool(value)) => *value || !by_value(*field),
            Some(Value::List(items)) => !items.is_empty(),
            Some(Value::Null) | None => false,
            Some(_) => true,
        };
        if set {
            errors.forbidden(&path.child(field.def().json), text);
        }
    }
}

/// Flags that Go holds by value: false is as absent.
fn by_value(field: Field) -> bool {
    [c::pod_spec::HOST_PID, c::pod_spec::HOST_IPC].contains(&field)
}

fn only_linux(spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::pod_security_context as psc;
    use c::security_context as sc;
    const TEXT: &str = "cannot be set for a windows pod";
    let context = spec.child(c::pod_spec::SECURITY_CONTEXT);
    let at = path.child("securityContext");
    refuse(
        context,
        &[
            psc::APP_ARMOR_PROFILE,
            psc::SE_LINUX_OPTIONS,
            psc::SECCOMP_PROFILE,
            psc::FS_GROUP,
            psc::FS_GROUP_CHANGE_POLICY,
            psc::SYSCTLS,
            psc::RUN_AS_USER,
            psc::RUN_AS_GROUP,
            psc::SUPPLEMENTAL_GROUPS,
            psc::SUPPLEMENTAL_GROUPS_POLICY,
            psc::SE_LINUX_CHANGE_POLICY,
        ],
        TEXT,
        &at,
        errors,
    );
    let own = [
        c::pod_spec::HOST_USERS,
        c::pod_spec::HOST_PID,
        c::pod_spec::HOST_IPC,
        c::pod_spec::SHARE_PROCESS_NAMESPACE,
    ];
    refuse(Some(spec), &own, TEXT, path, errors);
    for (container, at) in containers(spec) {
        let base = path.child(at.0);
        let at = base.index(at.1);
        refuse(
            container,
            &[
                sc::APP_ARMOR_PROFILE,
                sc::SE_LINUX_OPTIONS,
                sc::SECCOMP_PROFILE,
                sc::CAPABILITIES,
                sc::READ_ONLY_ROOT_FILESYSTEM,
                sc::PRIVILEGED,
                sc::ALLOW_PRIVILEGE_ESCALATION,
                sc::PROC_MOUNT,
                sc::RUN_AS_USER,
                sc::RUN_AS_GROUP,
            ],
            TEXT,
            &at.child("securityContext"),
            errors,
        );
    }
}

fn only_windows(spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    const TEXT: &str = "windows options cannot be set for a linux pod";
    let context = spec.child(c::pod_spec::SECURITY_CONTEXT);
    let options = [c::pod_security_context::WINDOWS_OPTIONS];
    refuse(context, &options, TEXT, &path.child("securityContext"), errors);
    for (container, at) in containers(spec) {
        let base = path.child(at.0);
        let at = base.index(at.1);
        let options = [c::security_context::WINDOWS_OPTIONS];
        refuse(container, &options, TEXT, &at.child("securityContext"), errors);
    }
}

/// Security contexts of all containers with list and index.
fn containers(spec: &Struct) -> Vec<(Option<&Struct>, (&'static str, usize))> {
    let mut out = Vec::new();
    for list in [c::pod_spec::INIT_CONTAINERS, c::pod_spec::CONTAINERS, c::pod_spec::EPHEMERAL_CONTAINERS] {
        let field = if list == c::pod_spec::EPHEMERAL_CONTAINERS {
            c::ephemeral_container::SECURITY_CONTEXT
        } else {
            c::container::SECURITY_CONTEXT
        };
        out.extend(structs(spec, list).map(|(i, one)| (one.child(field), (list.def().json, i))));
    }
    out
}
