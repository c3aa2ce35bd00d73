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

/// The struct below, made where it is absent.
pub fn child_entry(s: &mut Struct, field: Field) -> Option<&mut Struct> {
    let slot = s.entry_index(field.index);
    if *slot == Value::Null {
        *slot = crate::doc::empty_value(field.def().kind);
    }
    slot.as_struct_mut()
}

/// Refuses negative numbers in the fields: `must be greater than or equal to 0`.
pub fn non_negative(
    s: &Struct,
    fields: &[Field],
    path: &crate::field_errors::FieldPath<'_>,
    errors: &mut crate::field_errors::ErrorList,
) {
    for field in fields {
        if let Some(value) = s.int(*field).filter(|value| *value < 0) {
            errors.invalid(&path.child(field.def().json), value, crate::types::meta::NEGATIVE);
        }
    }
}

/// A number or a percentage, neither negative; returns the number either stands for.
pub fn int_or_percent(
    value: Option<&Value>,
    path: &crate::field_errors::FieldPath<'_>,
    errors: &mut crate::field_errors::ErrorList,
) -> i64 {
    match value {
        Some(Value::Str(text)) => {
            errors.invalid_each(path, text, crate::names::percent(text));
            percent_value(text).unwrap_or(0)
        }
        Some(Value::Int(number)) => {
            if *number < 0 {
                errors.invalid(path, *number, crate::types::meta::NEGATIVE);
            }
            *number
        }
        _ => 0,
    }
}

/// The number of `N%`.
pub fn percent_value(text: &str) -> Option<i64> {
    text.strip_suffix('%')?.parse().ok()
}

/// `must not be greater than 100%`
pub fn at_most_100_percent(
    value: Option<&Value>,
    path: &crate::field_errors::FieldPath<'_>,
    errors: &mut crate::field_errors::ErrorList,
) {
    if let Some(text) = value.and_then(Value::as_str)
        && percent_value(text).is_some_and(|percent| percent > 100)
    {
        errors.invalid(path, text, "must not be greater than 100%");
    }
}

/// Whether a text is a Go duration (`1h30m`, `1.5s`).
pub fn is_go_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let number = &rest[..digits];
        if !number.bytes().any(|b| b.is_ascii_digit()) || number.matches('.').count() > 1 {
            return false;
        }
        rest = &rest[digits..];
        let unit = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"].into_iter().find(|unit| {
            rest.strip_prefix(unit).is_some_and(|after| {
                after.is_empty() || after.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            })
        });
        match unit {
            Some(unit) => rest = &rest[unit.len()..],
            None => return false,
        }
    }
    true
}
