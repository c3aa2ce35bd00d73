//! Changes of a running pod's resources (`pods/resize`).

use crate::doc::{Doc, Struct, Value};
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::schema::Field;
use crate::types::Ctx;
use crate::types::core::pod::keep_spec_and_meta;
use crate::types::core::resources;
use crate::types::walk::{present, structs};

const SPEC: FieldPath<'static> = FieldPath::new("spec");
const LISTS: [Field; 2] = [c::pod_spec::CONTAINERS, c::pod_spec::INIT_CONTAINERS];
const MUTABLE: [Field; 2] = [c::container::RESOURCES, c::container::RESIZE_POLICY];

fn spec(doc: &Doc) -> Option<&Struct> {
    doc.root().and_then(|root| root.child(c::pod::SPEC))
}

fn containers(doc: &Doc, list: Field) -> Vec<&Struct> {
    spec(doc).map(|spec| structs(spec, list).map(|(_, one)| one).collect()).unwrap_or_default()
}

/// Only the containers' resources and resize policies are taken over; where containers come, go or are renamed, all is
/// left for validation to refuse.
pub fn prepare(new: &mut Doc, old: &Doc) {
    let name = |one: &&Struct| one.str(c::container::NAME).to_owned();
    let same_names = |list| {
        let (now, before) = (containers(new, list), containers(old, list));
        now.iter().map(name).eq(before.iter().map(name))
    };
    if !LISTS.into_iter().all(same_names) {
        return;
    }
    let wanted = LISTS.map(|list| {
        let values = containers(new, list);
        values.into_iter().map(|one| MUTABLE.map(|field| one.get(field).cloned())).collect::<Vec<_>>()
    });
    keep_spec_and_meta(new, old);
    for (list, values) in LISTS.into_iter().zip(wanted) {
        let Some(Value::List(items)) = new.get_mut(&[c::pod::SPEC, list]) else { continue };
        let items = items.iter_mut().filter_map(Value::as_struct_mut);
        for (item, values) in items.zip(values) {
            for (field, value) in MUTABLE.into_iter().zip(values) {
                let _ = match value {
                    Some(value) => item.set(field, value),
                    None => item.remove(field),
                };
            }
        }
    }
}

/// After the pod's own rules.
pub fn validate(new: &Doc, old: &Doc, ctx: &Ctx<'_>, errors: &mut ErrorList) {
    let (Some(now), Some(before)) = (spec(new), spec(old)) else { return };
    let class = old.str(&[c::pod::STATUS, c::pod_status::QOS_CLASS]);
    let class = if class.is_empty() { resources::qos_class(before) } else { class };
    if class != resources::qos_class(now) {
        let shown = new.str(&[c::pod::STATUS, c::pod_status::QOS_CLASS]);
        errors.invalid(&SPEC, shown, "Pod QOS Class may not change as a result of resizing");
    }
    if !node_resizes(old) {
        errors.forbidden(&SPEC, "Pod running on node without support for resize");
    }
    if (has_pod_level(now) || has_pod_level(before))
        && !ctx.gates.enabled("InPlacePodLevelResourcesVerticalScaling")
    {
        let text = "resize of pods with pod-level resources is forbidden when \
                    InPlacePodLevelResourcesVerticalScalingEnabled feature gate is disabled";
        errors.forbidden(&FieldPath::new("[]"), text);
        return;
    }
    if !same_containers(new, old, errors) {
        return;
    }
    for list in LISTS {
        let at = SPEC.child(list.def().json);
        let pairs = containers(new, list).into_iter().zip(containers(old, list));
        for (i, (now, before)) in pairs.enumerate() {
            let init = list == c::pod_spec::INIT_CONTAINERS;
            if now == before || (init && before.str(c::container::RESTART_POLICY) != "Always") {
                if now != before {
                    errors.forbidden(&SPEC, "resources for non-sidecar init containers are immutable");
                }
                continue;
            }
            nothing_removed(now, before, &at.index(i).child("resources"), errors);
            if others_changed(now, before) {
                errors.forbidden(
                    &SPEC,
                    match init {
                        false => "only cpu and memory resources are mutable",
                        true => "only cpu and memory resources for sidecar containers are mutable",
                    },
                );
            }
        }
    }
}

fn same_containers(new: &Doc, old: &Doc, errors: &mut ErrorList) -> bool {
    let mut same = true;
    for list in LISTS {
        let (kind, at) = (list.def().json, SPEC.child(list.def().json));
        let (now, before) = (containers(new, list), containers(old, list));
        if now.len() != before.len() {
            errors.forbidden(&at, format!("{kind} may not be added or removed on resize"));
            same = false;
            continue;
        }
        for (i, (now, before)) in now.iter().zip(&before).enumerate() {
            if now.str(c::container::NAME) != before.str(c::container::NAME) {
                let text = format!("{kind} may not be renamed or reordered on resize");
                errors.forbidden(&at.index(i).child("name"), text);
                same = false;
            }
        }
    }
    same
}

fn node_resizes(pod: &Doc) -> bool {
    use c::container_status as s;
    let status = pod.root().and_then(|root| root.child(c::pod::STATUS));
    let running = status.and_then(|status| {
        structs(status, c::pod_status::CONTAINER_STATUSES)
            .map(|(_, one)| one)
            .find(|one| one.child(s::STATE).is_some_and(|state| present(state, c::container_state::RUNNING)))
    });
    running.is_none_or(|one| present(one, s::RESOURCES))
}

fn amounts(container: &Struct, field: Field) -> Vec<(&str, &str)> {
    let resources = container.child(c::container::RESOURCES);
    resources.map(|resources| crate::types::walk::pairs(resources, field).collect()).unwrap_or_default()
}

fn nothing_removed(now: &Struct, before: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::resource_requirements as r;
    for (field, text) in [
        (r::REQUESTS, "resource requests cannot be removed"),
        (r::LIMITS, "resource limits cannot be removed"),
    ] {
        let left = amounts(now, field);
        if amounts(before, field).iter().any(|(name, _)| !left.iter().any(|(other, _)| other == name)) {
            errors.forbidden(&path.child(field.def().json), text);
        }
    }
}

/// Whether anything but processor time and memory differs.
fn others_changed(now: &Struct, before: &Struct) -> bool {
    use c::resource_requirements as r;
    let rest = |one: &Struct, field: Field| -> Vec<(String, String)> {
        let all = amounts(one, field).into_iter().filter(|(name, _)| !matches!(*name, "cpu" | "memory"));
        let mut all: Vec<_> = all.map(|(name, amount)| (name.to_owned(), amount.to_owned())).collect();
        all.sort();
        all
    };
    let policy = |one: &Struct| one.get(c::container::RESIZE_POLICY).cloned();
    [r::REQUESTS, r::LIMITS].into_iter().any(|field| rest(now, field) != rest(before, field))
        || policy(now) != policy(before)
}

fn has_pod_level(spec: &Struct) -> bool {
    use c::resource_requirements as r;
    spec.child(c::pod_spec::RESOURCES).is_some_and(|resources| {
        [r::REQUESTS, r::LIMITS].iter().any(|field| resources.map(*field).is_some_and(|map| !map.is_empty()))
    })
}
