//! Small helpers for walking documents in rules.

use crate::doc::{Struct, Value};
use crate::schema::Field;

/// Sets a string that Go holds by value where it is empty or absent.
pub fn default_str(s: &mut Struct, field: Field, value: &str) {
    if s.str(field).is_empty() {
        s.set(field, value);
    }
}

/// Sets a pointer (or any field) where it is absent.
pub fn default_value(s: &mut Struct, field: Field, value: impl Into<Value>) {
    if !present(s, field) {
        s.set(field, value);
    }
}

/// Sets a number that Go holds by value where it is 0 or absent.
pub fn default_int(s: &mut Struct, field: Field, value: i64) {
    if s.int(field).unwrap_or(0) == 0 {
        s.set(field, value);
    }
}

/// Whether the field is there and not null.
pub fn present(s: &Struct, field: Field) -> bool {
    s.get(field).is_some_and(|value| *value != Value::Null)
}

/// The elements of a list of structs, to change.
pub fn structs_mut(s: &mut Struct, field: Field) -> impl Iterator<Item = &mut Struct> {
    s.get_mut(field).and_then(Value::as_list_mut).into_iter().flatten().filter_map(Value::as_struct_mut)
}

/// The elements of a list of structs with their indices.
pub fn structs(s: &Struct, field: Field) -> impl Iterator<Item = (usize, &Struct)> {
    s.list(field).iter().enumerate().filter_map(|(i, value)| Some((i, value.as_struct()?)))
}

/// The elements of a list of strings with their indices.
pub fn strs(s: &Struct, field: Field) -> impl Iterator<Item = (usize, &str)> {
    s.list(field).iter().enumerate().filter_map(|(i, value)| Some((i, value.as_str()?)))
}

/// Pairs of a map of strings, none where it is absent.
pub fn pairs(s: &Struct, field: Field) -> impl Iterator<Item = (&str, &str)> {
    s.map(field).into_iter().flat_map(crate::doc::Map::str_pairs)
}

/// The JSON text of a value, for error texts.
pub fn json_text(value: Option<&Value>) -> crate::field_errors::BadValue {
    let mut out = Vec::new();
    match value {
        Some(value) => crate::json::encode_value(value, &mut out),
        None => out.extend_from_slice(b"null"),
    }
    crate::field_errors::BadValue::Raw(String::from_utf8_lossy(&out).into_owned())
}

/// Whether two optional values say the same, empty and absent being alike (Go's semantic equality).
pub fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    let empty = |v: &Value| match v {
        Value::Null => true,
        Value::List(items) => items.is_empty(),
        Value::Map(map) => map.is_empty(),
        _ => false,
    };
    match (a.filter(|v| !empty(v)), b.filter(|v| !empty(v))) {
        (Some(a), Some(b)) => a == b,
        (None, None) => true,
        _ => false,
    }
}
