//! Events. They are kept in the form of core/v1; events.k8s.io/v1 is converted.

use crate::doc::{Doc, Struct};
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::types::{Ctx, SelectableFields, Strategy, columns};

/// The rules of Events.
pub static STRATEGY: Strategy = Strategy {
    validate_create: |doc, _, errors| validate(doc, errors),
    validate_update: |new, _, _: &Ctx<'_>, errors| validate(new, errors),
    allow_create_on_update: true,
    selectable: &[
        "metadata.name",
        "metadata.namespace",
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
    selectable_fields,
    columns: &columns::core::EVENT,
    ..Strategy::BASE
};

fn selectable_fields(doc: &Doc) -> SelectableFields {
    use c::object_reference as r;
    let Some(root) = doc.root() else { return SelectableFields::new() };
    let empty = Struct::new(crate::t::core_v1::OBJECT_REFERENCE);
    let object = root.child(c::event::INVOLVED_OBJECT).unwrap_or(&empty);
    let reporter = root.str(c::event::REPORTING_COMPONENT);
    let source = root.child(c::event::SOURCE).map_or("", |source| source.str(c::event_source::COMPONENT));
    SelectableFields::from_iter([
        ("involvedObject.kind", object.str(r::KIND).into()),
        ("involvedObject.namespace", object.str(r::NAMESPACE).into()),
        ("involvedObject.name", object.str(r::NAME).into()),
        ("involvedObject.uid", object.str(r::UID).into()),
        ("involvedObject.apiVersion", object.str(r::API_VERSION).into()),
        ("involvedObject.resourceVersion", object.str(r::RESOURCE_VERSION).into()),
        ("involvedObject.fieldPath", object.str(r::FIELD_PATH).into()),
        ("reason", root.str(c::event::REASON).into()),
        ("reportingComponent", reporter.into()),
        ("source", if source.is_empty() { reporter } else { source }.into()),
        ("type", root.str(c::event::TYPE).into()),
    ])
}

fn validate(doc: &Doc, errors: &mut ErrorList) {
    use c::event as e;
    let Some(root) = doc.root() else { return };
    let namespace = doc.meta().namespace();
    let object =
        root.child(e::INVOLVED_OBJECT).map_or("", |object| object.str(c::object_reference::NAMESPACE));
    let involved = FieldPath::new("involvedObject");
    let at = involved.child("namespace");
    const MISMATCH: &str = "does not match event.namespace";
    if root.str(e::EVENT_TIME).is_empty() {
        let fits = if object.is_empty() { matches!(namespace, "" | "default") } else { namespace == object };
        if !fits {
            errors.invalid(&at, object, MISMATCH);
        }
        return;
    }
    if object.is_empty() && !matches!(namespace, "default" | "kube-system") {
        errors.invalid(&at, object, MISMATCH);
    }
    let reporter = root.str(e::REPORTING_COMPONENT);
    let at = FieldPath::new("reportingComponent");
    if reporter.is_empty() {
        errors.required(&at, "");
    }
    errors.invalid_each(&at, reporter, names::qualified_name(reporter));
    for (field, name, limit) in [
        (e::REPORTING_INSTANCE, "reportingInstance", 128),
        (e::ACTION, "action", 128),
        (e::REASON, "reason", 128),
    ] {
        let value = root.str(field);
        if value.is_empty() {
            errors.required(&FieldPath::new(name), "");
        }
        if value.len() > limit {
            errors.invalid(&FieldPath::new(name), "", format!("can have at most {limit} characters"));
        }
    }
    if root.str(e::MESSAGE).len() > 1024 {
        errors.invalid(&FieldPath::new("message"), "", "can have at most 1024 characters");
    }
}
