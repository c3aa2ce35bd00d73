//! Embedded resources (`x-kubernetes-embedded-resource`): their apiVersion, kind and metadata (apiextensions-apiserver
//! `schema/objectmeta`).

use super::validate::shown;
use super::{Additional, Schema};
use crate::doc::{Doc, MetaView, Struct, Value};
use crate::f::meta_v1::object_meta as om;
use crate::field_errors::{ErrorKind, ErrorList, FieldError, FieldPath};
use crate::json::{self, FieldValidation};
use crate::t::meta_v1::OBJECT_META;
use crate::{names, types};

/// An embedded object's type or metadata cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CoerceError(pub FieldError);

/// Brings embedded objects' metadata into ObjectMeta's form. What cannot be read is dropped, or is the error. `unknown` gets the
/// paths of fields that ObjectMeta does not have.
pub fn coerce(
    schema: &Schema,
    doc: &mut Doc,
    drop: bool,
    unknown: Option<&mut Vec<String>>,
) -> Result<(), CoerceError> {
    if !schema.has_embedded() {
        return Ok(());
    }
    Coercer { drop, unknown }.value(schema, &mut doc.root, None)
}

/// As [`coerce`], for a value that is no whole object; what cannot be read is the error.
pub fn coerce_part(schema: &Schema, value: &mut Value, at: &FieldPath<'_>) -> Result<(), CoerceError> {
    Coercer { drop: false, unknown: None }.value(schema, value, Some(at))
}

struct Coercer<'u> {
    drop: bool,
    unknown: Option<&'u mut Vec<String>>,
}

impl Coercer<'_> {
    fn value(
        &mut self,
        schema: &Schema,
        value: &mut Value,
        at: Option<&FieldPath<'_>>,
    ) -> Result<(), CoerceError> {
        if !schema.has_embedded() {
            return Ok(());
        }
        match value {
            Value::Map(map) => {
                // The root's own are no part of its map.
                if schema.embedded()
                    && let Some(at) = at
                {
                    self.object(map, at)?;
                }
                for (key, value) in map.iter_mut() {
                    let below = match (schema.property(key), schema.additional_properties()) {
                        (Some(property), _) => property,
                        (None, Some(Additional::Schema(additional))) => additional,
                        _ => continue,
                    };
                    let root = FieldPath::new(key);
                    let path = at.map(|at| at.child(key));
                    self.value(below, value, Some(path.as_ref().unwrap_or(&root)))?;
                }
            }
            Value::List(items) => {
                let Some(below) = schema.items() else { return Ok(()) };
                let root = FieldPath::new("");
                for (i, item) in items.iter_mut().enumerate() {
                    self.value(below, item, Some(&at.unwrap_or(&root).index(i)))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn object(&mut self, map: &mut crate::doc::Map, at: &FieldPath<'_>) -> Result<(), CoerceError> {
        for key in ["apiVersion", "kind"] {
            match map.get(key) {
                None | Some(Value::Str(_)) => {}
                Some(_) if self.drop => drop(map.remove(key)),
                Some(other) => return Err(wrong(at, key, other, "must be a string")),
            }
        }
        let Some(metadata) = map.get("metadata") else { return Ok(()) };
        let coerced = match read_meta(metadata, self.drop) {
            Ok((meta, unknown)) => {
                if let Some(paths) = &mut self.unknown {
                    paths.extend(unknown.iter().map(|name| format!("{at}.metadata.{name}")));
                }
                plain(&meta)
            }
            Err(_) if self.drop => return Ok(()),
            Err(text) => return Err(wrong(at, "metadata", metadata, &text)),
        };
        map.insert("metadata", coerced);
        Ok(())
    }
}

fn wrong(at: &FieldPath<'_>, key: &str, value: &Value, text: &str) -> CoerceError {
    CoerceError(FieldError {
        kind: ErrorKind::Invalid,
        field: at.child(key).to_string(),
        value: shown(value),
        detail: text.to_owned(),
    })
}

/// Untyped metadata as ObjectMeta, and the names it does not have. With `lenient`, fields of a wrong type are left out.
fn read_meta(value: &Value, lenient: bool) -> Result<(Struct, Vec<String>), String> {
    let decode = |value: &Value| {
        let mut bytes = br#"{"metadata":"#.to_vec();
        json::encode_value(value, &mut bytes);
        bytes.push(b'}');
        json::decode_any(None, &bytes, FieldValidation::Warn)
    };
    let parts = |(doc, warnings): (Doc, Vec<String>)| {
        let meta = doc.meta().as_struct().cloned().unwrap_or_else(|| Struct::new(OBJECT_META));
        let unknown = warnings
            .iter()
            .filter_map(|text| {
                text.strip_prefix("unknown field \"metadata.")?.strip_suffix('"').map(str::to_owned)
            })
            .collect();
        (meta, unknown)
    };
    match decode(value) {
        Ok(read) => Ok(parts(read)),
        Err(error) if !lenient => Err(error.to_string()),
        Err(error) => {
            let Value::Map(map) = value else { return Err(error.to_string()) };
            let mut kept = map.clone();
            kept.retain(|key, value| {
                let one = Value::Map([(key, value.clone())].into_iter().collect());
                decode(&one).is_ok()
            });
            decode(&Value::Map(kept)).map(parts).map_err(|error| error.to_string())
        }
    }
}

/// ObjectMeta as an untyped value.
fn plain(meta: &Struct) -> Value {
    let mut bytes = Vec::new();
    json::encode_value(&Value::Struct(meta.clone()), &mut bytes);
    json::decode_untyped(&bytes).unwrap_or(Value::Null)
}

/// The mistakes of embedded objects: their apiVersion and kind must be there, their metadata must hold.
pub fn validate(schema: &Schema, doc: &Doc, errors: &mut ErrorList) {
    if schema.has_embedded() {
        walk(schema, &doc.root, None, errors);
    }
}

/// As [`validate`], for a value that is no whole object.
pub fn validate_part(schema: &Schema, value: &Value, at: &FieldPath<'_>, errors: &mut ErrorList) {
    if schema.has_embedded() {
        walk(schema, value, Some(at), errors);
    }
}

fn walk(schema: &Schema, value: &Value, at: Option<&FieldPath<'_>>, errors: &mut ErrorList) {
    if !schema.has_embedded() {
        return;
    }
    match value {
        Value::Map(map) => {
            if schema.embedded()
                && let Some(at) = at
            {
                object(map, at, errors);
            }
            for (key, value) in map.iter() {
                let root = FieldPath::new(key);
                match (schema.property(key), schema.additional()) {
                    (Some(property), _) => {
                        let path = at.map(|at| at.child(key));
                        walk(property, value, Some(path.as_ref().unwrap_or(&root)), errors);
                    }
                    (None, Some(additional)) => {
                        let nowhere = FieldPath::new("");
                        walk(additional, value, Some(&at.unwrap_or(&nowhere).key(key)), errors);
                    }
                    _ => {}
                }
            }
        }
        Value::List(items) => {
            let Some(below) = schema.items() else { return };
            let root = FieldPath::new("");
            for (i, item) in items.iter().enumerate() {
                walk(below, item, Some(&at.unwrap_or(&root).index(i)), errors);
            }
        }
        _ => {}
    }
}

fn object(map: &crate::doc::Map, at: &FieldPath<'_>, errors: &mut ErrorList) {
    for key in ["apiVersion", "kind"] {
        if !map.contains_key(key) {
            errors.required(&at.child(key), "");
        }
    }
    for (key, value) in map.iter() {
        let path = at.child(key);
        match (key, value) {
            ("apiVersion" | "kind", value) if value.as_str().is_none() => {
                errors.invalid(&path, shown(value), "must be a string");
            }
            ("apiVersion" | "kind", Value::Str(text)) if text.is_empty() => {
                errors.invalid(&path, "", "must not be empty");
            }
            ("apiVersion", Value::Str(text)) if text.matches('/').count() > 1 => {
                errors.invalid(&path, text.as_str(), format!("unexpected GroupVersion string: {text}"));
            }
            ("kind", Value::Str(text)) => {
                let wrong = names::dns1035_label(&text.to_ascii_lowercase());
                if !wrong.is_empty() {
                    let detail =
                        format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
                    errors.invalid(&path, text.as_str(), detail);
                }
            }
            ("metadata", value) => match read_meta(value, false) {
                Err(text) => errors.invalid(&path, shown(value), text),
                Ok((mut meta, _)) => {
                    if meta.str(om::NAME).is_empty() {
                        meta.set(om::NAME, "fakename");
                    }
                    let namespaced = !meta.str(om::NAMESPACE).is_empty();
                    types::meta::validate_embedded(MetaView::from_struct(&meta), namespaced, &path, errors);
                }
            },
            _ => {}
        }
    }
}
