//! Events. They are kept in the form of core/v1; events.k8s.io/v1 is converted.

use crate::doc::{Doc, Struct};
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::types::meta::immutable;
use crate::types::walk::same;
use crate::types::{Ctx, SelectableFields, Strategy, columns};

/// The rules of Events.
pub static STRATEGY: Strategy = Strategy {
    name_rule: |_, _| Vec::new(),
    validate_create: |doc, ctx, errors| {
        validate(doc, ctx, errors);
        if ctx.group == STRICT {
            let name = doc.meta().name();
            errors.invalid_each(
                &FieldPath::new("metadata").child("name"),
                name,
                names::dns1123_subdomain(name),
            );
            create_strictly(doc, errors);
        }
    },
    validate_update: |new, old, ctx, errors| {
        validate(new, ctx, errors);
        if ctx.group == STRICT {
            update_strictly(new, old, errors);
        }
    },
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

/// The group whose requests are held to more than what core/v1 always took.
const STRICT: &str = "events.k8s.io";

fn create_strictly(doc: &Doc, errors: &mut ErrorList) {
    use c::event as e;
    use c::event_source as source;
    let Some(root) = doc.root() else { return };
    series(root, errors);
    if root.str(e::EVENT_TIME).is_empty() {
        errors.required(&FieldPath::new("eventTime"), "");
    }
    let kind = root.str(e::TYPE);
    if !matches!(kind, "Normal" | "Warning") {
        errors.invalid(&FieldPath::new("type"), "", format!("has invalid value: {kind}"));
    }
    let from = root.child(e::SOURCE);
    for (name, given) in [
        ("firstTimestamp", !root.str(e::FIRST_TIMESTAMP).is_empty()),
        ("lastTimestamp", !root.str(e::LAST_TIMESTAMP).is_empty()),
        ("count", root.int(e::COUNT).is_some_and(|count| count != 0)),
        (
            "source",
            from.is_some_and(|from| {
                !from.str(source::COMPONENT).is_empty() || !from.str(source::HOST).is_empty()
            }),
        ),
    ] {
        if given {
            errors.invalid(&FieldPath::new(name), "", "needs to be unset");
        }
    }
}

fn series(root: &Struct, errors: &mut ErrorList) {
    use c::event_series as s;
    let Some(series) = root.child(c::event::SERIES) else { return };
    if series.int(s::COUNT).unwrap_or(0) < 2 {
        errors.invalid(&FieldPath::new("series.count"), "", "should be at least 2");
    }
    if series.str(s::LAST_OBSERVED_TIME).is_empty() {
        errors.required(&FieldPath::new("series.lastObservedTime"), "");
    }
}

fn update_strictly(new: &Doc, old: &Doc, errors: &mut ErrorList) {
    use c::event as e;
    let (Some(now), Some(before)) = (new.root(), old.root()) else { return };
    if !same(now.get(e::SERIES), before.get(e::SERIES)) {
        series(now, errors);
    }
    for (field, name) in [
        (e::INVOLVED_OBJECT, "involvedObject"),
        (e::REASON, "reason"),
        (e::MESSAGE, "message"),
        (e::SOURCE, "source"),
        (e::FIRST_TIMESTAMP, "firstTimestamp"),
        (e::LAST_TIMESTAMP, "lastTimestamp"),
        (e::TYPE, "type"),
        (e::EVENT_TIME, "eventTime"),
        (e::ACTION, "action"),
        (e::RELATED, "related"),
        (e::REPORTING_COMPONENT, "reportingController"),
        (e::REPORTING_INSTANCE, "reportingInstance"),
    ] {
        immutable(now.get(field), before.get(field), &FieldPath::new(name), errors);
    }
    let count = |event: &Struct| event.int(e::COUNT).unwrap_or(0);
    if count(now) != count(before) {
        errors.invalid(&FieldPath::new("count"), count(now), "field is immutable");
    }
}

fn validate(doc: &Doc, ctx: &Ctx<'_>, errors: &mut ErrorList) {
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
    let at = FieldPath::new(if ctx.group == STRICT { "reportingController" } else { "reportingComponent" });
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
