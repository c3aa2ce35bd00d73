//! Paths into a schema: `.spec.color`, `.spec.labels['a.b']` (apiextensions-apiserver `schema/cel`, `ValidFieldPath`), and the
//! fields that lists and watches select by.

use std::sync::Arc;

use compact_str::CompactString;

use super::{Schema, Type, prune};
use crate::doc::{Struct, Value};
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

/// A field that lists and watches select by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectableField {
    /// Its name in selectors: the path without the first dot.
    pub label: CompactString,
    pub steps: Vec<Step>,
}

/// A member on the way to a selectable field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub name: String,
    /// The field's text where this member is missing: what the schema's defaults put there; empty without any.
    pub absent: String,
    /// A null stays one, and the field is empty; else it is as if it were missing.
    pub nullable: bool,
}

impl SelectableField {
    /// The field at a path of members of the schema's objects.
    pub fn new(label: CompactString, path: Vec<String>, schema: &Schema) -> SelectableField {
        let mut node = Some(schema);
        let mut steps = Vec::with_capacity(path.len());
        for (depth, name) in path.iter().enumerate() {
            node = node.and_then(|node| node.property(name)).map(|node| &**node);
            steps.push(Step {
                name: name.clone(),
                absent: node.map_or_else(String::new, |node| default_text(node, &path[depth + 1..])),
                nullable: node.is_some_and(Schema::nullable),
            });
        }
        SelectableField { label, steps }
    }
}

/// The text at a path within what a node's default makes of nothing.
fn default_text(node: &Schema, path: &[String]) -> String {
    let Some(default) = node.default() else { return String::new() };
    let mut value = default.clone();
    prune::default_value(node, &mut value);
    let found = path.iter().try_fold(&value, |value, name| value.as_map()?.get(name));
    match found {
        Some(Value::Str(text)) => text.to_string(),
        Some(Value::Int(n)) => n.to_string(),
        Some(Value::Bool(b)) => b.to_string(),
        _ => String::new(),
    }
}
