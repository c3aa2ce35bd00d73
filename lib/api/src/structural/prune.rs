//! What objects lose and get by their schema: unknown fields, nulls that may not be, defaults (apiextensions-apiserver
//! `schema/pruning`, `schema/defaulting`).

use super::{Additional, Schema, embedded};
use crate::doc::{Doc, Map, Value};
use crate::field_errors::FieldPath;

const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Paths of what was removed; at most so many are kept.
const MAX_UNKNOWN: usize = 100;

/// Collects the paths of unknown fields, where somebody wants to know them.
struct Unknown<'u> {
    paths: Option<&'u mut Vec<String>>,
}

impl Unknown<'_> {
    fn note(&mut self, at: Option<&FieldPath<'_>>, key: &str) {
        if let Some(paths) = self.paths.as_deref_mut().filter(|paths| paths.len() < MAX_UNKNOWN) {
            paths.push(at.map_or_else(|| key.to_owned(), |at| at.child(key).to_string()));
        }
    }
}

/// Removes the fields of an object that its schema does not know. `unknown` gets their paths, sorted.
pub fn prune(schema: &Schema, doc: &mut Doc, unknown: Option<&mut Vec<String>>) {
    let Value::Map(root) = &mut doc.root else { return };
    let mut found = Vec::new();
    let mut notes = Unknown { paths: unknown.is_some().then_some(&mut found) };
    if schema.preserve_unknown() {
        skip_map(schema, root, true, None, &mut notes);
    } else {
        prune_map(schema, root, true, None, &mut notes);
    }
    if let Some(unknown) = unknown {
        found.sort();
        unknown.extend(found);
    }
}

/// As [`prune`], for a value that is no whole object.
pub fn prune_part(schema: &Schema, value: &mut Value) {
    prune_value(Some(schema), value, None, &mut Unknown { paths: None });
}

fn prune_value(
    schema: Option<&Schema>,
    value: &mut Value,
    at: Option<&FieldPath<'_>>,
    notes: &mut Unknown<'_>,
) {
    if let Some(schema) = schema.filter(|schema| schema.preserve_unknown()) {
        return skip_value(schema, value, at, notes);
    }
    match (value, schema) {
        (Value::Map(map), Some(schema)) => prune_map(schema, map, schema.embedded(), at, notes),
        (Value::Map(map), None) => map.retain(|key, _| {
            notes.note(at, key);
            false
        }),
        (Value::List(items), schema) => {
            let items_schema = schema.and_then(Schema::items).map(|schema| &**schema);
            let root = FieldPath::new("");
            for (i, item) in items.iter_mut().enumerate() {
                prune_value(items_schema, item, Some(&at.unwrap_or(&root).index(i)), notes);
            }
        }
        _ => {}
    }
}

/// What stands at a key: its own schema, that of additional properties (`Some(None)`: anything but objects' content), or no
/// place at all.
fn place<'s>(schema: &'s Schema, key: &str) -> Option<Option<&'s Schema>> {
    if let Some(property) = schema.property(key) {
        return Some(Some(property));
    }
    match schema.additional_properties()? {
        Additional::Schema(schema) => Some(Some(schema)),
        Additional::Allowed(_) => Some(None),
    }
}

fn prune_map(
    schema: &Schema,
    map: &mut Map,
    embedded: bool,
    at: Option<&FieldPath<'_>>,
    notes: &mut Unknown<'_>,
) {
    map.retain(|key, value| {
        if embedded && META.contains(&key) {
            return true;
        }
        let Some(below) = place(schema, key) else {
            notes.note(at, key);
            return false;
        };
        descend(below, key, value, at, notes);
        true
    });
}

fn descend(
    schema: Option<&Schema>,
    key: &str,
    value: &mut Value,
    at: Option<&FieldPath<'_>>,
    notes: &mut Unknown<'_>,
) {
    if matches!(value, Value::Map(_) | Value::List(_)) {
        let root = FieldPath::new(key);
        let below = at.map(|at| at.child(key));
        prune_value(schema, value, Some(below.as_ref().unwrap_or(&root)), notes);
    }
}

/// Under `x-kubernetes-preserve-unknown-fields`: what has a schema of its own is pruned by that, the rest stays.
fn skip_value(schema: &Schema, value: &mut Value, at: Option<&FieldPath<'_>>, notes: &mut Unknown<'_>) {
    match value {
        Value::Map(map) => skip_map(schema, map, schema.embedded(), at, notes),
        Value::List(items) => {
            let Some(below) = schema.items() else { return };
            let root = FieldPath::new("");
            for (i, item) in items.iter_mut().enumerate() {
                skip_value(below, item, Some(&at.unwrap_or(&root).index(i)), notes);
            }
        }
        _ => {}
    }
}

fn skip_map(
    schema: &Schema,
    map: &mut Map,
    embedded: bool,
    at: Option<&FieldPath<'_>>,
    notes: &mut Unknown<'_>,
) {
    for (key, value) in map.iter_mut() {
        if embedded && META.contains(&key) {
            continue;
        }
        if let Some(below) = place(schema, key) {
            descend(below, key, value, at, notes);
        }
    }
}

/// Removes nulls where the schema neither allows them nor has a default for them.
pub fn prune_nulls(schema: &Schema, doc: &mut Doc) {
    nulls(Some(schema), &mut doc.root);
}

fn nulls(schema: Option<&Schema>, value: &mut Value) {
    match value {
        Value::Map(map) => map.retain(|key, value| {
            let below = schema.and_then(|schema| place(schema, key)).flatten();
            let gone = *value == Value::Null
                && below.is_some_and(|below| !below.nullable() && below.default().is_none());
            if !gone {
                nulls(below, value);
            }
            !gone
        }),
        Value::List(items) => {
            let below = schema.and_then(Schema::items).map(|below| &**below);
            items.iter_mut().for_each(|item| nulls(below, item));
        }
        _ => {}
    }
}

/// Fills in the schema's defaults. Doing it twice changes nothing more.
pub fn default(schema: &Schema, doc: &mut Doc) {
    if schema.has_defaults() {
        default_value(schema, &mut doc.root);
    }
}

/// As [`default`], for a value at a node.
pub(super) fn default_value(schema: &Schema, value: &mut Value) {
    let null_here = |schema: &Schema, value: &Value| *value == Value::Null && !schema.nullable();
    match value {
        Value::Map(map) => {
            for (name, property) in schema.properties() {
                let Some(default) = property.default() else { continue };
                if map.get(name).is_none_or(|value| null_here(property, value)) {
                    map.insert(name, default.clone());
                }
            }
            for (key, value) in map.iter_mut() {
                if let Some(property) = schema.property(key) {
                    if property.has_defaults() {
                        default_value(property, value);
                    }
                } else if let Some(additional) = schema.additional() {
                    if null_here(additional, value) {
                        *value = additional.default().cloned().unwrap_or(Value::Null);
                    }
                    if additional.has_defaults() {
                        default_value(additional, value);
                    }
                }
            }
        }
        Value::List(items) => {
            let Some(below) = schema.items() else { return };
            for item in items {
                if null_here(below, item) {
                    *item = below.default().cloned().unwrap_or(Value::Null);
                }
                if below.has_defaults() {
                    default_value(below, item);
                }
            }
        }
        _ => {}
    }
}

/// Puts what was written into the form the schema gives it: pruned, nulls gone, embedded objects' metadata as ObjectMeta writes it,
/// defaults filled in. `unknown` gets the paths of unknown fields.
pub fn admit(
    schema: &Schema,
    doc: &mut Doc,
    mut unknown: Option<&mut Vec<String>>,
) -> Result<(), embedded::CoerceError> {
    prune(schema, doc, unknown.as_deref_mut());
    prune_nulls(schema, doc);
    embedded::coerce(schema, doc, false, unknown)?;
    default(schema, doc);
    Ok(())
}

/// As [`admit`], of what was stored under an older schema: what does not fit is dropped.
pub fn adapt(schema: &Schema, doc: &mut Doc) {
    prune(schema, doc, None);
    prune_nulls(schema, doc);
    // Dropping never fails.
    let _ = embedded::coerce(schema, doc, true, None);
    default(schema, doc);
}
