//! A v3 document as gnostic's `openapi.v3.Document` message, written from its JSON pieces.

use serde_json::{Map, Value};

use super::gnostic::{any, extensions, flag, named, object, text, texts};
use crate::proto::wire::{put_bytes, put_double, put_message, put_varint_field};

type Object = Map<String, Value>;

fn number(number: u32, of: &Object, key: &str, out: &mut Vec<u8>) {
    match of.get(key).and_then(Value::as_f64) {
        Some(value) if value != 0.0 => put_double(number, value, out),
        _ => {}
    }
}

fn count(number: u32, of: &Object, key: &str, out: &mut Vec<u8>) {
    match of.get(key).and_then(Value::as_i64) {
        Some(value) if value != 0 => put_varint_field(number, value.cast_unsigned(), out),
        _ => {}
    }
}

pub(super) fn document(
    title: &str,
    version: &str,
    paths: impl Iterator<Item = (String, Value)>,
    schemas: impl Iterator<Item = (String, Value)>,
    security: &Value,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 * 1024);
    put_bytes(1, b"3.0.0", &mut out);
    put_message(2, &mut out, |out| {
        put_bytes(1, title.as_bytes(), out);
        put_bytes(6, version.as_bytes(), out);
    });
    put_message(4, &mut out, |out| {
        for (path, item) in paths {
            named(1, &path, out, |out| path_item(object(&item), out));
        }
    });
    put_message(5, &mut out, |out| {
        put_message(1, out, |out| {
            for (name, value) in schemas {
                named(1, &name, out, |out| schema_or_reference(&value, out));
            }
        });
        put_message(7, out, |out| {
            for (name, scheme) in object(security) {
                let scheme = object(scheme);
                named(1, name, out, |out| {
                    put_message(1, out, |out| {
                        for (number, key) in [(1, "type"), (2, "description"), (3, "name"), (4, "in")] {
                            text(number, scheme, key, out);
                        }
                    });
                });
            }
        });
    });
    out
}

fn path_item(item: &Object, out: &mut Vec<u8>) {
    let methods =
        [(4, "get"), (5, "put"), (6, "post"), (7, "delete"), (8, "options"), (9, "head"), (10, "patch")];
    for (number, method) in methods {
        if let Some(op) = item.get(method) {
            put_message(number, out, |out| operation(object(op), out));
        }
    }
    parameters(13, item, out);
}

fn operation(op: &Object, out: &mut Vec<u8>) {
    texts(1, op, "tags", out);
    text(3, op, "description", out);
    text(5, op, "operationId", out);
    parameters(6, op, out);
    if let Some(body) = op.get("requestBody") {
        let body = object(body);
        put_message(7, out, |out| {
            put_message(1, out, |out| {
                content(2, body, out);
                flag(3, body, "required", out);
            });
        });
    }
    if let Some(responses) = op.get("responses") {
        put_message(8, out, |out| {
            for (code, response) in object(responses) {
                let response = object(response);
                named(2, code, out, |out| {
                    put_message(1, out, |out| {
                        text(1, response, "description", out);
                        content(3, response, out);
                    });
                });
            }
        });
    }
    extensions(13, op, out);
}

/// Media types, each with its schema.
fn content(number: u32, of: &Object, out: &mut Vec<u8>) {
    if let Some(types) = of.get("content") {
        put_message(number, out, |out| {
            for (name, media) in object(types) {
                named(1, name, out, |out| {
                    if let Some(of) = media.get("schema") {
                        put_message(1, out, |out| schema_or_reference(of, out));
                    }
                });
            }
        });
    }
}

fn parameters(number: u32, of: &Object, out: &mut Vec<u8>) {
    for param in of.get("parameters").and_then(Value::as_array).into_iter().flatten().map(object) {
        put_message(number, out, |out| {
            put_message(1, out, |out| {
                text(1, param, "name", out);
                text(2, param, "in", out);
                text(3, param, "description", out);
                flag(4, param, "required", out);
                if let Some(of) = param.get("schema") {
                    put_message(10, out, |out| schema_or_reference(of, out));
                }
            });
        });
    }
}

fn schema_or_reference(value: &Value, out: &mut Vec<u8>) {
    let of = object(value);
    if of.contains_key("$ref") {
        put_message(2, out, |out| text(1, of, "$ref", out));
    } else {
        put_message(1, out, |out| schema(of, out));
    }
}

fn schema(of: &Object, out: &mut Vec<u8>) {
    flag(1, of, "nullable", out);
    text(9, of, "title", out);
    for (field, key) in [(10, "multipleOf"), (11, "maximum"), (13, "minimum")] {
        number(field, of, key, out);
    }
    flag(12, of, "exclusiveMaximum", out);
    flag(14, of, "exclusiveMinimum", out);
    for (field, key) in [(15, "maxLength"), (16, "minLength"), (18, "maxItems"), (19, "minItems")] {
        count(field, of, key, out);
    }
    text(17, of, "pattern", out);
    flag(20, of, "uniqueItems", out);
    count(21, of, "maxProperties", out);
    count(22, of, "minProperties", out);
    texts(23, of, "required", out);
    for value in of.get("enum").and_then(Value::as_array).into_iter().flatten() {
        any(24, value, out);
    }
    text(25, of, "type", out);
    for (field, key) in [(26, "allOf"), (27, "oneOf"), (28, "anyOf")] {
        for branch in of.get(key).and_then(Value::as_array).into_iter().flatten() {
            put_message(field, out, |out| schema_or_reference(branch, out));
        }
    }
    if let Some(not) = of.get("not") {
        put_message(29, out, |out| schema(object(not), out));
    }
    if let Some(items) = of.get("items") {
        put_message(30, out, |out| put_message(1, out, |out| schema_or_reference(items, out)));
    }
    if let Some(properties) = of.get("properties") {
        put_message(31, out, |out| {
            for (name, property) in object(properties) {
                named(1, name, out, |out| schema_or_reference(property, out));
            }
        });
    }
    match of.get("additionalProperties") {
        Some(Value::Bool(any)) => put_message(32, out, |out| put_varint_field(2, u64::from(*any), out)),
        Some(inner) => put_message(32, out, |out| put_message(1, out, |out| schema_or_reference(inner, out))),
        None => {}
    }
    if let Some(default) = of.get("default") {
        // The message has no place for a default that is a list or an object, and is empty then.
        put_message(33, out, |out| match default {
            Value::Number(value) => put_double(1, value.as_f64().unwrap_or_default(), out),
            Value::Bool(value) => put_varint_field(2, u64::from(*value), out),
            Value::String(value) => put_bytes(3, value.as_bytes(), out),
            _ => {}
        });
    }
    text(34, of, "description", out);
    text(35, of, "format", out);
    extensions(36, of, out);
}
