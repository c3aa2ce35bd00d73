//! The rules of custom resources: what their definition's schema says (apiextensions-apiserver `registry/customresource`).

use super::{Ctx, Strategy, meta};
use crate::doc::{Doc, Value};
use crate::field_errors::{BadValue, ErrorList, FieldPath};
use crate::names;
use crate::structural::custom::{Custom, ScalePaths, value_at};
use crate::structural::{embedded, lists, validate};

/// The rules of objects whose type is not built in; the schema comes with [`Ctx::custom`].
pub static CUSTOM: Strategy = Strategy {
    prepare_status_update: |new, old, _| meta::keep(new, old),
    validate_create: |doc, ctx, errors| {
        let Some(custom) = ctx.custom else { return };
        validate::validate(&custom.schema, doc, None, errors);
        scale(custom, doc, true, errors);
        embedded::validate(&custom.schema, doc, errors);
        lists::validate(&custom.schema, doc, errors);
    },
    validate_update: |new, old, ctx, errors| {
        let Some(custom) = ctx.custom else { return };
        validate::validate(&custom.schema, new, Some(old), errors);
        scale(custom, new, true, errors);
        embedded::validate(&custom.schema, new, errors);
        keyed_lists(custom, new, old, errors);
    },
    validate_status_update: |new, old, ctx, errors| {
        let Some(custom) = ctx.custom else { return };
        let status = |doc: &'_ Doc| doc.root.as_map().and_then(|root| root.get("status")).cloned();
        if let (Some(schema), Some(status_now)) = (custom.schema.property("status"), status(new)) {
            validate::validate_part(schema, &status_now, status(old).as_ref(), "status", errors);
        }
        scale(custom, new, false, errors);
        keyed_lists(custom, new, old, errors);
    },
    warnings: finalizer_warnings,
    allow_unconditional_update: false,
    ..Strategy::BASE
};

/// Items told twice are no new mistake where the old object had such.
fn keyed_lists(custom: &Custom, new: &Doc, old: &Doc, errors: &mut ErrorList) {
    let mut found = ErrorList::new();
    lists::validate(&custom.schema, new, &mut found);
    if found.is_empty() {
        return;
    }
    let mut before = ErrorList::new();
    lists::validate(&custom.schema, old, &mut before);
    if before.is_empty() {
        errors.extend(found);
    }
}

fn scale(custom: &Custom, doc: &Doc, spec: bool, errors: &mut ErrorList) {
    let Some(paths) = &custom.scale else { return };
    let ScalePaths { spec_text, status_text, selector_text, .. } = paths;
    if spec {
        replicas(doc, &paths.spec_replicas, spec_text, errors);
    }
    replicas(doc, &paths.status_replicas, status_text, errors);
    if let Some(path) = &paths.label_selector
        && let Some(value) = value_at(doc, path).filter(|value| !matches!(value, Value::Str(_)))
    {
        let text = accessor_error(path, value, "string");
        errors.invalid(&FieldPath::new(selector_text), "", text);
    }
}

fn replicas(doc: &Doc, path: &[String], written: &str, errors: &mut ErrorList) {
    let at = FieldPath::new(written);
    match value_at(doc, path) {
        None => {}
        Some(Value::Int(n)) if *n < 0 => errors.invalid(&at, *n, "should be a non-negative integer"),
        Some(Value::Int(n)) if *n > i64::from(i32::MAX) => {
            errors.invalid(&at, *n, format!("should be less than or equal to {}", i32::MAX));
        }
        Some(Value::Int(_)) => {}
        Some(other) => errors.invalid(&at, BadValue::Raw("0".into()), accessor_error(path, other, "int64")),
    }
}

/// Go's complaint about a value of another type.
fn accessor_error(path: &[String], value: &Value, wanted: &str) -> String {
    let mut json = Vec::new();
    crate::json::encode_value(value, &mut json);
    let shown = match value {
        Value::Str(text) => text.to_string(),
        _ => String::from_utf8_lossy(&json).into_owned(),
    };
    let ty = match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int64",
        Value::Float(_) => "float64",
        Value::Str(_) | Value::Raw(_) => "string",
        Value::List(_) => "[]interface {}",
        Value::Map(_) | Value::Struct(_) => "map[string]interface {}",
    };
    format!(".{} accessor error: {shown} is of the type {ty}, expected {wanted}", path.join("."))
}

/// Finalizers that other writers may use too.
fn finalizer_warnings(new: &Doc, old: Option<&Doc>, ctx: &Ctx<'_>) -> Vec<String> {
    if !ctx.subresource.is_empty() {
        return Vec::new();
    }
    let before = old.map(Doc::meta);
    let known: Vec<&str> = before.iter().flat_map(|meta| meta.finalizers()).collect();
    let meta = new.meta();
    let mut added: Vec<&str> = meta.finalizers().filter(|name| !known.contains(name)).collect();
    added.sort_unstable();
    let mut warnings = Vec::new();
    for name in added {
        let shown = crate::field_errors::quoted(name);
        for text in names::qualified_name(name) {
            warnings.push(format!("metadata.finalizers: {shown}: {text}"));
        }
        if !name.contains('/') && !matches!(name, "orphan" | "foregroundDeletion" | "kubernetes") {
            let path = if name.contains('.') { " including a path (/)" } else { "" };
            warnings.push(format!(
                "metadata.finalizers: {shown}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
            ));
        }
    }
    warnings
}
