//! Paths into a schema: `.spec.color`, `.spec.labels['a.b']` (apiextensions-apiserver `schema/cel`, `ValidFieldPath`), and the
//! fields that lists and watches select by.

use std::sync::Arc;

use super::{Schema, Type};
use crate::doc::{Doc, Struct, Value};
use crate::f::apiextensions_v1::selectable_field;
use crate::field_errors::{ErrorList, FieldPath};

/// Why a path does not lead to a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("does not refer to a valid field")]
    NoField,
    #[error("array notation is not allowed")]
    Array,
    #[error("unexpected end of JSON path")]
    End,
    #[error("expected single quoted string but got {0}")]
    NotQuoted(String),
    #[error("expected ] but got {0}")]
    NotClosed(String),
    #[error("expected [ or . but got: {0}")]
    Unexpected(String),
}

/// Splits at dots and brackets, which are tokens themselves; quoted strings are one.
fn tokens(path: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '.' | '[' | ']' => 1,
            '\'' => {
                let bytes = rest.as_bytes();
                (1..bytes.len())
                    .find(|&i| bytes[i] == b'\'' && bytes[i - 1] != b'\\')
                    .map_or(rest.len(), |i| i + 1)
            }
            _ => rest.find(['.', '[', ']']).unwrap_or(rest.len()),
        };
        let (token, after) = rest.split_at(length);
        out.push(token);
        rest = after;
    }
    out
}

/// The text of a quoted name, with Go's escapes of one letter.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let c = match (c, chars.as_str().chars().next()) {
            ('\\', Some(next)) => {
                chars.next();
                match next {
                    'a' => '\u{7}',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'v' => '\u{b}',
                    other => other,
                }
            }
            _ => c,
        };
        out.push(c);
    }
    out
}

/// The members on the way of a path and the node it leads to (`None`: the schema does not say what stands there).
pub fn find<'s>(
    schema: &'s Schema,
    path: &str,
    brackets: bool,
) -> Result<(Vec<String>, Option<&'s Schema>), PathError> {
    let mut at = Some(schema);
    let mut names = Vec::new();
    let mut tokens = tokens(path).into_iter();
    while let Some(token) = tokens.next() {
        let name = match token {
            "." => tokens.next().ok_or(PathError::End)?.to_owned(),
            "[" if !brackets => return Err(PathError::Array),
            "[" => {
                let quoted = tokens.next().ok_or(PathError::End)?;
                let inner = quoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
                let name = unescaped(inner.ok_or_else(|| PathError::NotQuoted(quoted.to_owned()))?);
                match tokens.next().ok_or(PathError::End)? {
                    "]" => name,
                    other => return Err(PathError::NotClosed(other.to_owned())),
                }
            }
            other => return Err(PathError::Unexpected(other.to_owned())),
        };
        let Some(here) = at else { return Err(PathError::NoField) };
        at = if here.properties().len() > 0 {
            Some(&**here.property(&name).ok_or(PathError::NoField)?)
        } else if here.additional_properties().is_some() {
            here.additional().map(|schema: &Arc<Schema>| &**schema)
        } else {
            return Err(PathError::NoField);
        };
        names.push(name);
    }
    Ok((names, at))
}

/// Most selectable fields of a version.
pub const MAX_FIELDS: usize = 8;

/// The mistakes of a version's `selectableFields`; `excess`: more than [`MAX_FIELDS`] are forgiven.
pub fn validate<'a>(
    fields: impl Iterator<Item = (usize, &'a Struct)>,
    schema: &Schema,
    at: &FieldPath<'_>,
    excess: bool,
    errors: &mut ErrorList,
) {
    let mut seen: Vec<Vec<String>> = Vec::new();
    for (i, field) in fields {
        let item = at.index(i);
        let here = item.child("jsonPath");
        let path = field.str(selectable_field::JSON_PATH);
        if path.is_empty() {
            errors.required(&here, "");
            continue;
        }
        let (names, node) = match find(schema, path, false) {
            Ok(found) => found,
            Err(error) => {
                errors.invalid(&here, path, format!("is an invalid path: {error}"));
                continue;
            }
        };
        if names.first().is_some_and(|name| name == "metadata") {
            errors.invalid(&here, path, "must not point to fields in metadata");
        }
        if !node.is_some_and(|node| matches!(node.ty(), Type::String | Type::Boolean | Type::Integer)) {
            let text = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.invalid(&here, path, text);
        }
        if seen.contains(&names) {
            errors.duplicate(&here, path);
        } else {
            seen.push(names);
        }
    }
    if seen.len() > MAX_FIELDS && !excess {
        errors.too_many(at, seen.len(), MAX_FIELDS);
    }
}

/// The value at a path of members, as text: what selectors compare. `""` where there is none.
pub fn text_at(doc: &Doc, path: &[String]) -> String {
    let mut at = &doc.root;
    for name in path {
        match at.as_map().and_then(|map| map.get(name)) {
            Some(value) => at = value,
            None => return String::new(),
        }
    }
    match at {
        Value::Str(text) => text.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Float(n) => super::numbers::go_float(*n),
        _ => String::new(),
    }
}
