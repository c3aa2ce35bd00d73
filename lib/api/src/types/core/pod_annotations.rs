//! Annotations that say what fields say today: seccomp, AppArmor, mirror pods.

use crate::doc::{Doc, Map, Struct};
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath, quoted};
use crate::schema::Field;
use crate::types::core::security::{app_armor_of, app_armor_valid};
use crate::types::core::volumes::descending_path;
use crate::types::core::warnings::{APP_ARMOR, SECCOMP_CONTAINER as SECCOMP, app_armor_text, of_container};
use crate::types::walk::{child_entry, present, structs, structs_mut};

const METADATA: FieldPath<'static> = FieldPath::new("metadata");
const SPEC: FieldPath<'static> = FieldPath::new("spec");
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const MIRROR: &str = "kubernetes.io/config.mirror";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const LISTS: [Field; 2] = [c::pod_spec::INIT_CONTAINERS, c::pod_spec::CONTAINERS];

fn annotations(doc: &Doc) -> Option<&Map> {
    doc.meta().annotations().filter(|all| !all.is_empty())
}

fn is_windows(spec: &Struct) -> bool {
    spec.child(c::pod_spec::OS).is_some_and(|os| os.str(c::pod_os::NAME) == "windows")
}

/// What annotations of any pod must look like.
pub fn validate(doc: &Doc, spec: &Struct, errors: &mut ErrorList) {
    validate_map(annotations(doc), spec, &METADATA.child("annotations"), errors);
}

/// The same of a pod or template whose annotations lie at `at`.
pub fn validate_map(annotations: Option<&Map>, spec: &Struct, at: &FieldPath<'_>, errors: &mut ErrorList) {
    let Some(all) = annotations.filter(|all| !all.is_empty()) else { return };
    for (key, value) in all.str_pairs() {
        if key == MIRROR && spec.str(c::pod_spec::NODE_NAME).is_empty() {
            errors.invalid(&at.key(key), value, "must set spec.nodeName if mirror pod annotation is set");
        }
        if key == COST && !value.parse::<i32>().is_ok_and(|number| number.to_string() == value) {
            errors.invalid(&at.key(COST), value, "must be a 32bit integer");
        }
        if key == SECCOMP_POD || key.starts_with(SECCOMP) {
            seccomp_profile(value, &at.child(key), errors);
        }
        if let Some(name) = key.strip_prefix(APP_ARMOR) {
            let known = LISTS
                .iter()
                .any(|list| structs(spec, *list).any(|(_, one)| one.str(c::container::NAME) == name))
                || structs(spec, c::pod_spec::EPHEMERAL_CONTAINERS)
                    .any(|(_, one)| one.str(c::ephemeral_container::NAME) == name);
            if !known {
                errors.invalid(&at.key(key), name, "container not found");
            }
            if !matches!(value, "" | "runtime/default" | "unconfined") && !value.starts_with("localhost/") {
                errors.invalid(
                    &at.key(key),
                    value,
                    format!("invalid AppArmor profile name: {}", quoted(value)),
                );
            }
        }
    }
}

fn seccomp_profile(value: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    match value {
        "runtime/default" | "docker/default" | "unconfined" => {}
        _ => match value.strip_prefix("localhost/") {
            Some(local) => descending_path(local, path, errors),
            None => errors.invalid(path, value, "must be a valid seccomp profile"),
        },
    }
}

/// A new pod's annotations agree with its fields.
pub fn validate_create(doc: &Doc, spec: &Struct, errors: &mut ErrorList) {
    agreement(annotations(doc), spec, &SPEC, errors);
}

/// The same of a pod or template whose spec lies at `path`.
pub fn agreement(annotations: Option<&Map>, spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let Some(all) = annotations.filter(|all| !all.is_empty()) else { return };
    let context = spec.child(c::pod_spec::SECURITY_CONTEXT);
    let seccomp = context.and_then(|context| context.child(c::pod_security_context::SECCOMP_PROFILE));
    if let (Some(annotation), Some(profile)) = (all.get_str(SECCOMP_POD), seccomp) {
        let at = path.child("securityContext");
        seccomp_agrees(annotation, profile, &at.child("seccompProfile"), errors);
    }
    let pod_profile = context
        .and_then(|context| context.child(c::pod_security_context::APP_ARMOR_PROFILE))
        .filter(|_| !is_windows(spec));
    for list in LISTS {
        let base = path.child(list.def().json);
        for (i, one) in structs(spec, list) {
            let context = one.child(c::container::SECURITY_CONTEXT);
            let name = one.str(c::container::NAME);
            let at = base.index(i);
            let at = at.child("securityContext");
            let profile = context.and_then(|context| context.child(c::security_context::SECCOMP_PROFILE));
            if let (Some((_, annotation)), Some(profile)) = (of_container(all, SECCOMP, name), profile) {
                seccomp_agrees(annotation, profile, &at.child("seccompProfile"), errors);
            }
            let profile = context.and_then(|context| context.child(c::security_context::APP_ARMOR_PROFILE));
            if let (Some((_, annotation)), Some(profile), false) =
                (of_container(all, APP_ARMOR, name), profile.or(pod_profile), is_windows(spec))
            {
                app_armor_agrees(annotation, profile, &at.child("appArmorProfile"), errors);
            }
        }
    }
}

fn agrees(
    annotation: &str,
    kind: &str,
    local: Option<&str>,
    defaults: &[&str],
    what: &str,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    let matches = match kind {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => defaults.contains(&annotation),
        "Localhost" => annotation.starts_with("localhost/"),
        _ => true,
    };
    if !matches {
        errors.forbidden(&path.child("type"), format!("{what} type in annotation and field must match"));
    } else if kind == "Localhost" && annotation.strip_prefix("localhost/") != local {
        let text = format!("{what} profile in annotation and field must match");
        errors.forbidden(&path.child("localhostProfile"), text);
    }
}

fn seccomp_agrees(annotation: &str, profile: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::seccomp_profile as p;
    let local = present(profile, p::LOCALHOST_PROFILE).then(|| profile.str(p::LOCALHOST_PROFILE));
    let defaults = ["runtime/default", "docker/default"];
    agrees(annotation, profile.str(p::TYPE), local, &defaults, "seccomp", path, errors);
}

fn app_armor_agrees(annotation: &str, profile: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::app_armor_profile as p;
    let local = present(profile, p::LOCALHOST_PROFILE).then(|| profile.str(p::LOCALHOST_PROFILE));
    agrees(annotation, profile.str(p::TYPE), local, &["runtime/default"], "apparmor", path, errors);
}

/// Annotations that may not change.
pub fn validate_update(new: &Doc, old: &Doc, errors: &mut ErrorList) {
    let at = METADATA.child("annotations");
    let (now, before) = (annotations(new), annotations(old));
    let pairs = |of: Option<&'_ Map>| {
        of.into_iter().flat_map(Map::str_pairs).map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<Vec<_>>()
    };
    for (key, value) in pairs(before) {
        if now.and_then(|now| now.get_str(&key)) == Some(value.as_str()) {
            continue;
        }
        if key.starts_with(APP_ARMOR) {
            errors.forbidden(&at.key(&key), "may not remove or update AppArmor annotations");
        }
        if key == MIRROR {
            errors.forbidden(&at.key(&key), "may not remove or update mirror pod annotation");
        }
    }
    for (key, _) in
        pairs(now).into_iter().filter(|(key, _)| !before.is_some_and(|before| before.contains_key(key)))
    {
        if key.starts_with(APP_ARMOR) {
            errors.forbidden(&at.key(&key), "may not add AppArmor annotations");
        }
        if key == MIRROR {
            errors.forbidden(&at.key(&key), "may not add mirror pod annotation");
        }
    }
}

/// Whether the pod mirrors one that a kubelet was told of otherwise.
pub fn is_mirror(doc: &Doc) -> bool {
    doc.meta().annotation(MIRROR).is_some()
}

/// AppArmor annotations of old become fields where they say what the pod's own field does not.
pub fn sync_app_armor(doc: &mut Doc) {
    let Some(all) = annotations(doc).filter(|all| all.iter().any(|(key, _)| key.starts_with(APP_ARMOR)))
    else {
        return;
    };
    let all = all.clone();
    let Some(spec) = doc.root_mut().and_then(|root| root.child_mut(c::pod::SPEC)) else { return };
    if is_windows(spec) {
        return;
    }
    let pod_profile = spec
        .child(c::pod_spec::SECURITY_CONTEXT)
        .and_then(|context| context.child(c::pod_security_context::APP_ARMOR_PROFILE))
        .cloned();
    for list in LISTS {
        for one in structs_mut(spec, list) {
            let has = one
                .child(c::container::SECURITY_CONTEXT)
                .is_some_and(|context| present(context, c::security_context::APP_ARMOR_PROFILE));
            let found = of_container(&all, APP_ARMOR, one.str(c::container::NAME));
            let Some((_, annotation)) = found else { continue };
            let profile = app_armor_of(annotation).filter(app_armor_valid);
            if has || profile == pod_profile {
                continue;
            }
            if let (Some(profile), Some(context)) =
                (profile, child_entry(one, c::container::SECURITY_CONTEXT))
            {
                context.set(c::security_context::APP_ARMOR_PROFILE, profile);
            }
        }
    }
}

/// A pod's AppArmor annotations that its fields had to be filled from, or that name no profile.
pub fn app_armor_warnings(doc: &Doc, spec: &Struct, out: &mut Vec<String>) {
    let Some(all) = annotations(doc).filter(|_| !is_windows(spec)) else { return };
    for list in LISTS {
        for (_, one) in structs(spec, list) {
            let found = of_container(all, APP_ARMOR, one.str(c::container::NAME));
            let Some((key, annotation)) = found else { continue };
            let profile = one
                .child(c::container::SECURITY_CONTEXT)
                .and_then(|context| context.child(c::security_context::APP_ARMOR_PROFILE));
            let meant = app_armor_of(annotation).filter(app_armor_valid);
            if meant.is_none() || profile == meant.as_ref() {
                out.push(app_armor_text("", key));
            }
        }
    }
}
