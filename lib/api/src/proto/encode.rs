//! Trees to messages.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::plan::{Item, Plan};
use super::wire::{put_bytes, put_double, put_message, put_varint, put_varint_field};
use crate::canonical::parse_rfc3339;
use crate::doc::{Struct, Value};
use crate::schema::{FieldDef, Flags, Kind, TypeId};

pub(super) fn message(ty: TypeId, present: Option<&Struct>, out: &mut Vec<u8>) {
    level(ty, Plan::of(ty), present, out);
}

fn level(ty: TypeId, plan: &Plan, present: Option<&Struct>, out: &mut Vec<u8>) {
    let def = ty.def();
    for (number, item) in &plan.entries {
        match item {
            Item::Embed(inner) => put_message(*number, out, |out| level(ty, inner, present, out)),
            Item::Field(index) => {
                let field = &def.fields[*index as usize];
                match present.and_then(|s| s.get_index(*index)) {
                    Some(Value::Null) | None => absent(*number, field, out),
                    Some(value) => self::field(*number, field.kind, value, out),
                }
            }
        }
    }
}

/// What generated code writes of a field that is not set: scalars and structs by value, nothing of the others.
fn absent(number: u32, field: &FieldDef, out: &mut Vec<u8>) {
    if field.flags.has(Flags::POINTER) {
        return;
    }
    match field.kind {
        Kind::Bool | Kind::Int32 | Kind::Int64 => put_varint_field(number, 0, out),
        Kind::Float64 => put_double(number, 0.0, out),
        Kind::Str => put_bytes(number, b"", out),
        Kind::Struct(ty) => put_message(number, out, |out| message(ty, None, out)),
        // The zero Time, and RawExtension and FieldsV1 without content, are empty messages.
        Kind::Time | Kind::MicroTime | Kind::RawExtension | Kind::FieldsV1 | Kind::Json => {
            put_bytes(number, b"", out)
        }
        Kind::Quantity => put_message(number, out, |out| put_bytes(1, b"0", out)),
        Kind::IntOrString => int_or_string(number, &Value::Int(0), out),
        Kind::Duration => put_message(number, out, |out| put_varint_field(1, 0, out)),
        Kind::SchemaOrArray(_) | Kind::SchemaOrStrings(_) => put_bytes(number, b"", out),
        Kind::SchemaOrBool(_) => put_message(number, out, |out| put_varint_field(1, 0, out)),
        Kind::Bytes | Kind::List(_) | Kind::Map(_) => {}
        // A list type of its own is a message only where it is not nil.
        Kind::WrappedList(_) => {}
    }
}

fn field(number: u32, kind: Kind, value: &Value, out: &mut Vec<u8>) {
    match (kind, value) {
        (Kind::Bool, Value::Bool(b)) => put_varint_field(number, u64::from(*b), out),
        (Kind::Int32 | Kind::Int64, Value::Int(n)) => put_varint_field(number, *n as u64, out),
        (Kind::Float64, Value::Float(n)) => put_double(number, *n, out),
        (Kind::Float64, Value::Int(n)) => put_double(number, *n as f64, out),
        (Kind::Str, Value::Str(text)) => put_bytes(number, text.as_bytes(), out),
        (Kind::Bytes, Value::Str(text)) => {
            put_bytes(number, &STANDARD.decode(text.as_bytes()).unwrap_or_default(), out)
        }
        (Kind::Quantity, Value::Str(text)) => {
            put_message(number, out, |out| put_bytes(1, text.as_bytes(), out))
        }
        (Kind::IntOrString, value) => int_or_string(number, value, out),
        (Kind::Time | Kind::MicroTime, Value::Str(text)) => time(number, text, kind == Kind::MicroTime, out),
        (Kind::RawExtension | Kind::FieldsV1 | Kind::Json, Value::Raw(text)) => {
            put_message(number, out, |out| {
                if !text.is_empty() && text != "null" {
                    put_bytes(1, text.as_bytes(), out);
                }
            })
        }
        (Kind::Struct(ty), Value::Struct(inner)) => {
            put_message(number, out, |out| message(ty, Some(inner), out))
        }
        (Kind::List(of), Value::List(items)) => {
            for item in items {
                field(number, *of, item, out);
            }
        }
        (Kind::WrappedList(of), Value::List(items)) => put_message(number, out, |out| {
            for item in items {
                field(1, *of, item, out);
            }
        }),
        (Kind::Map(of), Value::Map(map)) => {
            for (key, value) in map.iter() {
                put_message(number, out, |out| {
                    put_bytes(1, key.as_bytes(), out);
                    field(2, *of, value, out);
                });
            }
        }
        (Kind::SchemaOrArray(ty), value) => put_message(number, out, |out| match value {
            Value::List(items) => items.iter().for_each(|item| field(2, Kind::Struct(ty), item, out)),
            other => field(1, Kind::Struct(ty), other, out),
        }),
        (Kind::SchemaOrBool(ty), value) => put_message(number, out, |out| match value {
            Value::Bool(b) => put_varint_field(1, u64::from(*b), out),
            other => {
                // `allows` is true where a schema stands.
                put_varint_field(1, 1, out);
                field(2, Kind::Struct(ty), other, out);
            }
        }),
        (Kind::SchemaOrStrings(ty), value) => put_message(number, out, |out| match value {
            Value::List(items) => items.iter().for_each(|item| field(2, Kind::Str, item, out)),
            other => field(1, Kind::Struct(ty), other, out),
        }),
        // A null element: its zero value.
        (_, Value::Null) => match crate::doc::empty_value(kind) {
            Value::Null => put_bytes(number, b"", out),
            zero => field(number, kind, &zero, out),
        },
        // The tree holds what the schema says; anything else is not written.
        _ => {}
    }
}

fn int_or_string(number: u32, value: &Value, out: &mut Vec<u8>) {
    let (ty, int, text) = match value {
        Value::Str(text) => (1, 0, text.as_str()),
        Value::Int(n) => (0, *n, ""),
        _ => (0, 0, ""),
    };
    put_message(number, out, |out| {
        put_varint_field(1, ty, out);
        put_varint_field(2, int as u64, out);
        put_bytes(3, text.as_bytes(), out);
    });
}

fn time(number: u32, text: &str, micro: bool, out: &mut Vec<u8>) {
    put_message(number, out, |out| {
        if let Some((at, _)) = parse_rfc3339(text) {
            let nanos =
                if micro { at.as_nanosecond().rem_euclid(1_000_000_000) as u64 / 1000 * 1000 } else { 0 };
            put_varint(1 << 3, out);
            put_varint(at.as_nanosecond().div_euclid(1_000_000_000) as i64 as u64, out);
            put_varint_field(2, nanos, out);
        }
    });
}
