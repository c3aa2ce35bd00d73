//! Pods: what a new one starts with, what an update may change, deletion's grace.

use crate::doc::{Doc, Struct, Value};
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::schema::Field;
use crate::t::core_v1 as t;
use crate::types::core::pod_spec::{self, Options};
use crate::types::core::{
    container, pod_annotations, pod_defaults, pod_resize, pod_status, resources, scheduling,
};
use crate::types::walk::{json_text, present, same, structs};
use crate::types::{Ctx, GenerationRule, SelectableFields, Strategy, columns};

/// The rules of pods.
pub static STRATEGY: Strategy = Strategy {
    defaults: pod_defaults::pod,
    prepare_create,
    prepare_update,
    prepare_status_update,
    validate_create,
    validate_update,
    validate_status_update: pod_status::validate,
    warnings,
    generation: GenerationRule::Spec,
    grace,
    selectable: &[
        "metadata.name",
        "metadata.namespace",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ],
    selectable_fields,
    columns: &columns::core::POD,
    ..Strategy::BASE
};

const SPEC: FieldPath<'static> = FieldPath::new("spec");

fn spec(doc: &Doc) -> Option<&Struct> {
    doc.root()?.child(c::pod::SPEC)
}

fn status(doc: &Doc) -> Option<&Struct> {
    doc.root()?.child(c::pod::STATUS)
}

fn prepare_create(doc: &mut Doc, ctx: &Ctx<'_>) {
    let mut status = Struct::new(t::POD_STATUS);
    status.set(c::pod_status::PHASE, "Pending");
    if let Some(spec) = spec(doc) {
        status.set(c::pod_status::QOS_CLASS, resources::qos_class(spec));
        if !spec.list(c::pod_spec::SCHEDULING_GATES).is_empty() {
            let mut condition = Struct::new(t::POD_CONDITION);
            condition.set(c::pod_condition::TYPE, "PodScheduled");
            condition.set(c::pod_condition::STATUS, "False");
            condition.set(c::pod_condition::LAST_TRANSITION_TIME, Value::Str(ctx.now_text()));
            condition.set(c::pod_condition::REASON, "SchedulingGated");
            condition
                .set(c::pod_condition::MESSAGE, "Scheduling is blocked due to non-empty scheduling gates");
            status.set(c::pod_status::CONDITIONS, vec![Value::Struct(condition)]);
        }
    }
    doc.set(&[c::pod::STATUS], status);
    drop_disabled(doc, ctx);
    super::pod_labels::merge(doc);
    pod_annotations::sync_app_armor(doc);
}

fn drop_disabled(doc: &mut Doc, ctx: &Ctx<'_>) {
    if ctx.gates.enabled("PodLevelResources") {
        return;
    }
    doc.remove(&[c::pod::SPEC, c::pod_spec::RESOURCES]);
}

fn prepare_update(new: &mut Doc, old: &Doc, ctx: &Ctx<'_>) {
    match ctx.subresource {
        "ephemeralcontainers" => {
            let added = new.get(&[c::pod::SPEC, c::pod_spec::EPHEMERAL_CONTAINERS]).cloned();
            keep_spec_and_meta(new, old);
            match added {
                Some(added) => new.set(&[c::pod::SPEC, c::pod_spec::EPHEMERAL_CONTAINERS], added),
                None => {
                    new.remove(&[c::pod::SPEC, c::pod_spec::EPHEMERAL_CONTAINERS]);
                }
            }
        }
        "resize" => pod_resize::prepare(new, old),
        _ => {}
    }
}

/// The old object under the new revision and field managers.
pub fn keep_spec_and_meta(new: &mut Doc, old: &Doc) {
    let version = new.meta().resource_version().to_owned();
    let managed = new.meta().managed_fields().to_vec();
    let Some(root) = old.root() else { return };
    for field in [c::pod::METADATA, c::pod::SPEC, c::pod::STATUS] {
        if let Some(value) = root.get(field) {
            new.set(&[field], value.clone());
        }
    }
    let mut meta = new.meta_mut();
    meta.set_resource_version(&version);
    if managed.is_empty() {
        meta.as_struct().remove(crate::f::meta_v1::object_meta::MANAGED_FIELDS);
    } else {
        meta.as_struct().set(crate::f::meta_v1::object_meta::MANAGED_FIELDS, managed);
    }
}

fn prepare_status_update(new: &mut Doc, old: &Doc, _: &Ctx<'_>) {
    use crate::f::meta_v1::object_meta as om;
    let mut meta = new.meta_mut();
    meta.set_deletion_timestamp(None);
    match old.meta().as_struct().and_then(|meta| meta.get(om::OWNER_REFERENCES)) {
        Some(owners) => {
            meta.as_struct().set(om::OWNER_REFERENCES, owners.clone());
        }
        None => {
            meta.as_struct().remove(om::OWNER_REFERENCES);
        }
    }
    let Some(before) = status(old) else { return };
    let before = before.clone();
    let Some(now) = new.entry(&[c::pod::STATUS]).and_then(Value::as_struct_mut) else { return };
    if now.str(c::pod_status::QOS_CLASS).is_empty() {
        let class = before.str(c::pod_status::QOS_CLASS);
        if !class.is_empty() {
            now.set(c::pod_status::QOS_CLASS, class);
        }
    }
    if let Some(generation) = before.int(c::pod_status::OBSERVED_GENERATION)
        && now.int(c::pod_status::OBSERVED_GENERATION).unwrap_or(0) == 0
    {
        now.set(c::pod_status::OBSERVED_GENERATION, generation);
    }
    keep_condition_generations(now, &before);
}

fn keep_condition_generations(now: &mut Struct, before: &Struct) {
    use c::pod_condition as pc;
    let mut old: Vec<(&str, i64)> = structs(before, c::pod_status::CONDITIONS)
        .map(|(_, condition)| (condition.str(pc::TYPE), condition.int(pc::OBSERVED_GENERATION).unwrap_or(0)))
        .collect();
    for condition in crate::types::walk::structs_mut(now, c::pod_status::CONDITIONS) {
        let Some(at) = old.iter().position(|(kind, _)| *kind == condition.str(pc::TYPE)) else { continue };
        let (_, generation) = old.remove(at);
        if condition.int(pc::OBSERVED_GENERATION).unwrap_or(0) == 0 && generation != 0 {
            condition.set(pc::OBSERVED_GENERATION, generation);
        }
    }
}

fn validate_common(doc: &Doc, ctx: &Ctx<'_>, errors: &mut ErrorList) {
    let empty = Struct::new(t::POD_SPEC);
    let spec = spec(doc).unwrap_or(&empty);
    let name = doc.meta().name();
    pod_annotations::validate(doc, spec, errors);
    pod_spec::validate(spec, Options { pod_name: name, is_pod: true }, ctx, &SPEC, errors);
    if spec.str(c::pod_spec::SERVICE_ACCOUNT_NAME).is_empty() {
        tokens_need_an_account(spec, errors);
    }
    for list in [c::pod_spec::CONTAINERS, c::pod_spec::INIT_CONTAINERS] {
        let at = SPEC.child(list.def().json);
        for (i, one) in structs(spec, list) {
            container::validate_image_spaces(one, &at.index(i), errors);
        }
    }
}

fn tokens_need_an_account(spec: &Struct, errors: &mut ErrorList) {
    let at = SPEC.child("volumes");
    for (i, volume) in structs(spec, c::pod_spec::VOLUMES) {
        let Some(projected) = volume.child(c::volume::PROJECTED) else { continue };
        let volume_path = at.index(i);
        let projected_path = volume_path.child("projected");
        let sources = projected_path.child("sources");
        for (j, source) in structs(projected, c::projected_volume_source::SOURCES) {
            if present(source, c::volume_projection::SERVICE_ACCOUNT_TOKEN) {
                let text = "must not be specified when serviceAccountName is not set";
                errors.forbidden(&sources.index(j).child("serviceAccountToken"), text);
            }
        }
    }
}

fn validate_create(doc: &Doc, ctx: &Ctx<'_>, errors: &mut ErrorList) {
    validate_common(doc, ctx, errors);
    let Some(spec) = spec(doc) else { return };
    if !spec.list(c::pod_spec::EPHEMERAL_CONTAINERS).is_empty() {
        errors.forbidden(&SPEC.child("ephemeralContainers"), "cannot be set on create");
    }
    if !spec.str(c::pod_spec::NODE_NAME).is_empty() && !spec.list(c::pod_spec::SCHEDULING_GATES).is_empty() {
        errors
            .forbidden(&SPEC.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
    pod_annotations::validate_create(doc, spec, errors);
}

fn validate_update(new: &Doc, old: &Doc, ctx: &Ctx<'_>, errors: &mut ErrorList) {
    validate_common(new, ctx, errors);
    let (Some(now), Some(before)) = (spec(new), spec(old)) else { return };
    if ctx.subresource != "resize" {
        pod_annotations::validate_update(new, old, errors);
    }
    if let Some(text) = not_for_all(old, ctx.subresource) {
        *errors = ErrorList::new();
        errors.forbidden(&FieldPath::new("[]"), text);
        return;
    }
    match ctx.subresource {
        "ephemeralcontainers" => return ephemeral_update(now, before, errors),
        "resize" => return pod_resize::validate(new, old, ctx, errors),
        _ => {}
    }
    for list in [c::pod_spec::CONTAINERS, c::pod_spec::INIT_CONTAINERS] {
        if now.list(list).len() != before.list(list).len() {
            let at = SPEC.child(list.def().json);
            errors.forbidden(&at, "pod updates may not add or remove containers");
            return;
        }
        let at = SPEC.child(list.def().json);
        for (i, one) in structs(now, list) {
            container::validate_image_change(one, &at.index(i), errors);
        }
    }
    if !deadline(now, before, errors) {
        return;
    }
    scheduling::validate_only_added_tolerations(now, before, &SPEC.child("tolerations"), errors);
    only_removed_gates(now, before, errors);
    if now != before {
        only_allowed_changes(now, before, errors);
    }
}

/// Why a subresource is not for this pod at all.
fn not_for_all(old: &Doc, subresource: &str) -> Option<&'static str> {
    let mirror = pod_annotations::is_mirror(old);
    let windows = spec(old)
        .and_then(|spec| spec.child(c::pod_spec::OS))
        .is_some_and(|os| os.str(c::pod_os::NAME) == "windows");
    match subresource {
        "ephemeralcontainers" if mirror => Some("static pods do not support ephemeral containers"),
        "resize" if mirror => Some("static pods cannot be resized"),
        "resize" if windows => Some("windows pods cannot be resized"),
        _ => None,
    }
}

fn deadline(now: &Struct, before: &Struct, errors: &mut ErrorList) -> bool {
    let at = SPEC.child("activeDeadlineSeconds");
    let old = before.int(c::pod_spec::ACTIVE_DEADLINE_SECONDS);
    match (now.int(c::pod_spec::ACTIVE_DEADLINE_SECONDS), old) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            errors.invalid(&at, seconds, names::inclusive_range_error(0, i64::from(i32::MAX)));
            false
        }
        (Some(seconds), Some(old)) if old < seconds => {
            errors.invalid(&at, seconds, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            errors.invalid(&at, json_text(None), "must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

fn only_removed_gates(now: &Struct, before: &Struct, errors: &mut ErrorList) {
    let at = SPEC.child("schedulingGates");
    for (i, gate) in structs(now, c::pod_spec::SCHEDULING_GATES) {
        let name = gate.str(c::pod_scheduling_gate::NAME);
        let known = structs(before, c::pod_spec::SCHEDULING_GATES)
            .any(|(_, old)| old.str(c::pod_scheduling_gate::NAME) == name);
        if !known {
            let text = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.forbidden(&at.index(i).child("name"), text);
        }
    }
}

fn set_or_remove(s: &mut Struct, field: Field, value: Option<&Value>) {
    match value {
        Some(value) => {
            s.set(field, value.clone());
        }
        None => {
            s.remove(field);
        }
    }
}

fn only_allowed_changes(now: &Struct, before: &Struct, errors: &mut ErrorList) {
    use c::pod_spec as ps;
    let mut munged = now.clone();
    for list in [ps::CONTAINERS, ps::INIT_CONTAINERS] {
        let images: Vec<Option<Value>> =
            structs(before, list).map(|(_, one)| one.get(c::container::IMAGE).cloned()).collect();
        for (one, image) in crate::types::walk::structs_mut(&mut munged, list).zip(images) {
            set_or_remove(one, c::container::IMAGE, image.as_ref());
        }
    }
    for field in [ps::ACTIVE_DEADLINE_SECONDS, ps::SCHEDULING_GATES, ps::TOLERATIONS] {
        set_or_remove(&mut munged, field, before.get(field));
    }
    let grace = ps::TERMINATION_GRACE_PERIOD_SECONDS;
    if before.int(grace).is_some_and(|seconds| seconds < 0) && munged.int(grace) == Some(1) {
        set_or_remove(&mut munged, grace, before.get(grace));
    }
    if !before.list(ps::SCHEDULING_GATES).is_empty() {
        gated_changes(&mut munged, before, errors);
    }
    let differs: Vec<&str> = now
        .ty()
        .def()
        .fields
        .iter()
        .enumerate()
        .filter(|(index, _)| !same(munged.get_index(*index as u16), before.get_index(*index as u16)))
        .map(|(_, field)| field.json)
        .collect();
    if !differs.is_empty() {
        errors.forbidden(
            &SPEC,
            format!(
                "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                 `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                 `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n{}",
                differences(&munged, before, &differs)
            ),
        );
    }
}

/// Required node affinity of a gated pod: as many terms as before, each with what it had first.
fn only_added_terms(new: Option<&Value>, old: Option<&Value>, errors: &mut ErrorList) {
    use c::node_selector_term as nt;
    let required = c::node_affinity::REQUIRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION;
    let terms = |affinity: Option<&Value>| -> Vec<Value> {
        affinity
            .and_then(|affinity| affinity.get(&[required, c::node_selector::NODE_SELECTOR_TERMS]))
            .and_then(Value::as_list)
            .map(<[Value]>::to_vec)
            .unwrap_or_default()
    };
    let (now, before) = (terms(new), terms(old));
    let affinity = SPEC.child("affinity");
    let node = affinity.child("nodeAffinity");
    let selector = node.child("requiredDuringSchedulingIgnoredDuringExecution");
    let at = selector.child("nodeSelectorTerms");
    if !before.is_empty() && before.len() != now.len() {
        let text = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        let shown = (!now.is_empty()).then(|| Value::List(now));
        return errors.invalid(&at, json_text(shown.as_ref()), text);
    }
    for (i, (now, before)) in now.iter().zip(&before).enumerate() {
        let list = |term: &Value, field| term.get(&[field]).and_then(Value::as_list).unwrap_or(&[]).to_vec();
        let fields = [nt::MATCH_EXPRESSIONS, nt::MATCH_FIELDS];
        let was_empty = fields.iter().all(|field| list(before, *field).is_empty());
        let added = fields.iter().all(|field| list(now, *field).starts_with(&list(before, *field)));
        let is_empty = fields.iter().all(|field| list(now, *field).is_empty());
        if !added || (was_empty && !is_empty) {
            let text = "only additions are allowed (no mutations or deletions)";
            errors.invalid(&at.index(i), json_text(Some(now)), text);
        }
    }
}

/// The changed fields, old with `-` and new with `+`.
fn differences(now: &Struct, before: &Struct, fields: &[&str]) -> String {
    let mut out = String::new();
    let def = now.ty().def();
    for name in fields {
        let Some(index) = def.field_index(name) else { continue };
        for (sign, value) in [('-', before.get_index(index)), ('+', now.get_index(index))] {
            if let (Some(_), crate::field_errors::BadValue::Raw(text)) = (value, json_text(value)) {
                out.push_str(&format!("{sign} spec.{name}: {text}\n"));
            }
        }
    }
    out
}

fn gated_changes(munged: &mut Struct, before: &Struct, errors: &mut ErrorList) {
    use c::pod_spec as ps;
    let at = SPEC.child("nodeSelector");
    for (key, value) in crate::types::walk::pairs(before, ps::NODE_SELECTOR) {
        if munged.map(ps::NODE_SELECTOR).and_then(|map| map.get_str(key)) != Some(value) {
            let text = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            errors.invalid(&at, pod_spec::labels_json(munged.map(ps::NODE_SELECTOR)), text);
            break;
        }
    }
    set_or_remove(munged, ps::NODE_SELECTOR, before.get(ps::NODE_SELECTOR));
    let node_affinity = |spec: &Struct| {
        spec.child(ps::AFFINITY).and_then(|affinity| affinity.get(c::affinity::NODE_AFFINITY)).cloned()
    };
    let old = node_affinity(before);
    let new = node_affinity(munged);
    if old != new {
        only_added_terms(new.as_ref(), old.as_ref(), errors);
    }
    if !present(munged, ps::AFFINITY)
        && let Some(old) = &old
    {
        let mut affinity = Struct::new(t::AFFINITY);
        affinity.set(c::affinity::NODE_AFFINITY, old.clone());
        munged.set(ps::AFFINITY, affinity);
    }
    if let Some(affinity) = munged.child_mut(ps::AFFINITY) {
        set_or_remove(affinity, c::affinity::NODE_AFFINITY, old.as_ref());
        if affinity.is_empty() && !present(before, ps::AFFINITY) {
            munged.remove(ps::AFFINITY);
        }
    }
}

fn ephemeral_update(now: &Struct, before: &Struct, errors: &mut ErrorList) {
    let at = SPEC.child("ephemeralContainers");
    for (_, old) in structs(before, c::pod_spec::EPHEMERAL_CONTAINERS) {
        let name = old.str(c::ephemeral_container::NAME);
        let found = structs(now, c::pod_spec::EPHEMERAL_CONTAINERS)
            .find(|(_, one)| one.str(c::ephemeral_container::NAME) == name);
        match found {
            None => {
                let text = format!(
                    "existing ephemeral containers {} may not be removed\n",
                    crate::field_errors::quoted(name)
                );
                errors.forbidden(&at, text);
            }
            Some((_, one)) if one != old => {
                let text = format!(
                    "existing ephemeral containers {} may not be changed\n",
                    crate::field_errors::quoted(name)
                );
                errors.forbidden(&at, text);
            }
            Some(_) => {}
        }
    }
}

fn warnings(new: &Doc, old: Option<&Doc>, _: &Ctx<'_>) -> Vec<String> {
    let mut out = Vec::new();
    if old.is_some() {
        return out;
    }
    let messages = names::dns1123_label(new.meta().name());
    if !messages.is_empty() {
        out.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is \
             recommended: [{}]",
            messages.join(" ")
        ));
    }
    let Some(spec) = spec(new) else { return out };
    pod_annotations::app_armor_warnings(new, spec, &mut out);
    out.extend(super::warnings::pod(spec, new.meta().annotations(), ""));
    out
}

fn grace(doc: &Doc, asked: Option<i64>) -> Option<i64> {
    let own = doc.int(&[c::pod::SPEC, c::pod_spec::TERMINATION_GRACE_PERIOD_SECONDS]).unwrap_or(0);
    let mut seconds = asked.unwrap_or(own);
    if doc.str(&[c::pod::SPEC, c::pod_spec::NODE_NAME]).is_empty() {
        seconds = 0;
    }
    if matches!(doc.str(&[c::pod::STATUS, c::pod_status::PHASE]), "Failed" | "Succeeded") {
        seconds = 0;
    }
    Some(if seconds < 0 { 1 } else { seconds })
}

fn selectable_fields(doc: &Doc) -> SelectableFields {
    let mut out = SelectableFields::new();
    let (Some(root), empty) = (doc.root(), Struct::new(t::POD_SPEC)) else { return out };
    let spec = root.child(c::pod::SPEC).unwrap_or(&empty);
    let host = if spec.bool(c::pod_spec::HOST_NETWORK) == Some(true) { "true" } else { "false" };
    out.push(("spec.nodeName", spec.str(c::pod_spec::NODE_NAME).into()));
    out.push(("spec.restartPolicy", spec.str(c::pod_spec::RESTART_POLICY).into()));
    out.push(("spec.schedulerName", spec.str(c::pod_spec::SCHEDULER_NAME).into()));
    out.push(("spec.serviceAccountName", spec.str(c::pod_spec::SERVICE_ACCOUNT_NAME).into()));
    out.push(("spec.hostNetwork", host.into()));
    if let Some(status) = root.child(c::pod::STATUS) {
        let ip = structs(status, c::pod_status::POD_IPS).next().map_or("", |(_, ip)| ip.str(c::pod_ip::IP));
        out.push(("status.phase", status.str(c::pod_status::PHASE).into()));
        out.push(("status.podIP", ip.into()));
        out.push(("status.nominatedNodeName", status.str(c::pod_status::NOMINATED_NODE_NAME).into()));
    } else {
        for field in ["status.phase", "status.podIP", "status.nominatedNodeName"] {
            out.push((field, "".into()));
        }
    }
    out
}
