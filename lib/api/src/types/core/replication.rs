//! ReplicationControllers and PodTemplates.

use crate::doc::{Doc, Struct, Value};
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::t::core_v1 as t;
use crate::types::apps::{always_restarting, labels_from_template, pod_name_warning};
use crate::types::core::warnings;
use crate::types::core::{pod_defaults, pod_spec};
use crate::types::walk::{child_entry, default_value, non_negative, pairs, present};
use crate::types::{Ctx, GenerationRule, SelectableFields, Strategy, columns};

use c::replication_controller_spec as rs;

const SPEC: FieldPath<'static> = FieldPath::new("spec");

/// ReplicationControllers.
pub static CONTROLLER: Strategy = Strategy {
    defaults: |doc| {
        let Some(spec) = doc.root_mut().and_then(|root| child_entry(root, c::replication_controller::SPEC))
        else {
            return;
        };
        default_value(spec, rs::REPLICAS, 1);
        let template = spec.child_mut(rs::TEMPLATE);
        if let Some(template) = template {
            pod_defaults::pod_template_spec(template);
        }
        let labels = spec.child(rs::TEMPLATE).and_then(pod_spec::template_labels).cloned();
        if let Some(labels) = labels.clone().filter(|labels| !labels.is_empty())
            && spec.map(rs::SELECTOR).is_none_or(|selector| selector.is_empty())
        {
            spec.set(rs::SELECTOR, labels);
        }
        labels_from_template(doc, labels);
    },
    validate_create: validate,
    validate_update: |new, _, ctx, errors| validate(new, ctx, errors),
    validate_status_update: |new, _, _, errors| {
        use c::replication_controller_status as st;
        let Some(status) = new.root().and_then(|root| root.child(c::replication_controller::STATUS)) else {
            return;
        };
        let at = FieldPath::new("status");
        let bounded = [st::FULLY_LABELED_REPLICAS, st::READY_REPLICAS, st::AVAILABLE_REPLICAS];
        non_negative(status, &bounded, &at, errors);
        non_negative(status, &[st::REPLICAS, st::OBSERVED_GENERATION], &at, errors);
        let replicas = status.int(st::REPLICAS).unwrap_or(0);
        for field in bounded {
            let value = status.int(field).unwrap_or(0);
            if value > replicas {
                errors.invalid(&at.child(field.def().json), value, "cannot be greater than status.replicas");
            }
        }
        let available = status.int(st::AVAILABLE_REPLICAS).unwrap_or(0);
        if available > status.int(st::READY_REPLICAS).unwrap_or(0) {
            errors.invalid(&at.child("availableReplicas"), available, "cannot be greater than readyReplicas");
        }
    },
    warnings: |new, old, ctx| {
        let mut out = pod_name_warning(new, old, ctx);
        let path = [c::replication_controller::SPEC, rs::TEMPLATE];
        out.extend(warnings::of_template(new, old, &path, "spec.template."));
        out
    },
    generation: GenerationRule::Spec,
    default_orphan: true,
    selectable: &["metadata.name", "metadata.namespace", "status.replicas"],
    selectable_fields: |doc| {
        let replicas = doc
            .int(&[c::replication_controller::STATUS, c::replication_controller_status::REPLICAS])
            .unwrap_or(0);
        SelectableFields::from_iter([("status.replicas", compact_str::format_compact!("{replicas}"))])
    },
    columns: &columns::core::REPLICATION_CONTROLLER,
    ..Strategy::BASE
};

/// PodTemplates.
pub static POD_TEMPLATE: Strategy = Strategy {
    defaults: |doc| {
        if let Some(template) = doc.root_mut().and_then(|root| child_entry(root, c::pod_template::TEMPLATE)) {
            pod_defaults::pod_template_spec(template);
        }
    },
    prepare_update: |new, old, _| {
        if new.get(&[c::pod_template::TEMPLATE]) != old.get(&[c::pod_template::TEMPLATE]) {
            let generation = old.meta().generation() + 1;
            new.meta_mut().set_generation(generation);
        }
    },
    validate_create: template,
    validate_update: |new, _, ctx, errors| template(new, ctx, errors),
    warnings: |new, old, _| warnings::of_template(new, old, &[c::pod_template::TEMPLATE], "template."),
    generation: GenerationRule::CreateOnly,
    columns: &columns::core::POD_TEMPLATE,
    ..Strategy::BASE
};

fn template(doc: &Doc, ctx: &Ctx<'_>, errors: &mut ErrorList) {
    let empty = Struct::new(t::POD_TEMPLATE_SPEC);
    let template = doc.root().and_then(|root| root.child(c::pod_template::TEMPLATE)).unwrap_or(&empty);
    pod_spec::validate_template(template, ctx, &FieldPath::new("template"), errors);
}

fn validate(doc: &Doc, ctx: &Ctx<'_>, errors: &mut ErrorList) {
    let empty = Struct::new(t::REPLICATION_CONTROLLER_SPEC);
    let spec = doc.root().and_then(|root| root.child(c::replication_controller::SPEC)).unwrap_or(&empty);
    non_negative(spec, &[rs::MIN_READY_SECONDS, rs::REPLICAS], &SPEC, errors);
    if spec.map(rs::SELECTOR).is_none_or(|selector| selector.is_empty()) {
        errors.required(&SPEC.child("selector"), "");
    }
    if !present(spec, rs::REPLICAS) {
        errors.required(&SPEC.child("replicas"), "");
    }
    let at = SPEC.child("template");
    let Some(template) = spec.get(rs::TEMPLATE).and_then(Value::as_struct) else {
        errors.required(&at, "");
        return;
    };
    let labels = pod_spec::template_labels(template);
    let fits = pairs(spec, rs::SELECTOR)
        .all(|(key, value)| labels.and_then(|labels| labels.get_str(key)) == Some(value));
    if !fits {
        let metadata = at.child("metadata");
        let text = "`selector` does not match template `labels`";
        errors.invalid(&metadata.child("labels"), pod_spec::labels_json(labels), text);
    }
    pod_spec::validate_template(template, ctx, &at, errors);
    always_restarting(Some(template), &at, "ReplicationController", errors);
}
