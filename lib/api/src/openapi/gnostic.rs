//! The v2 document as gnostic's `openapi.v2.Document` message, written from its JSON pieces.

use serde_json::{Map, Value};

use crate::proto::wire::{put_bytes, put_message, put_varint_field};

type Object = Map<String, Value>;

pub(super) fn text(number: u32, of: &Object, key: &str, out: &mut Vec<u8>) {
    if let Some(text) = of.get(key).and_then(Value::as_str) {
        put_bytes(number, text.as_bytes(), out);
    }
}

pub(super) fn texts(number: u32, of: &Object, key: &str, out: &mut Vec<u8>) {
    for text in of.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        put_bytes(number, text.as_bytes(), out);
    }
}

pub(super) fn flag(number: u32, of: &Object, key: &str, out: &mut Vec<u8>) {
    if of.get(key) == Some(&Value::Bool(true)) {
        put_varint_field(number, 1, out);
    }
}

/// `Any`, whose YAML is JSON.
pub(super) fn any(number: u32, value: &Value, out: &mut Vec<u8>) {
    put_message(number, out, |out| put_bytes(2, format!("{value}\n").as_bytes(), out));
}

/// Extensions (`x-…`) as `NamedAny`, in both versions.
pub(super) fn extensions(number: u32, of: &Object, out: &mut Vec<u8>) {
    for (name, value) in of.iter().filter(|(name, _)| name.starts_with("x-")) {
        put_message(number, out, |out| {
            put_bytes(1, name.as_bytes(), out);
            any(2, value, out);
        });
    }
}

pub(super) fn object(value: &Value) -> &Object {
    static EMPTY: std::sync::LazyLock<Object> = std::sync::LazyLock::new(Object::new);
    value.as_object().unwrap_or(&EMPTY)
}

/// A name and a value in a message of two fields.
pub(super) fn named(number: u32, name: &str, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    put_message(number, out, |out| {
        put_bytes(1, name.as_bytes(), out);
        put_message(2, out, write);
    });
}

pub(super) fn document(
    title: &str,
    version: &str,
    paths: impl Iterator<Item = (String, Value)>,
    definitions: impl Iterator<Item = (String, Value)>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024 * 1024);
    put_bytes(1, b"2.0", &mut out);
    put_message(2, &mut out, |out| {
        put_bytes(1, title.as_bytes(), out);
        put_bytes(2, version.as_bytes(), out);
    });
    put_message(8, &mut out, |out| {
        for (path, item) in paths {
            named(2, &path, out, |out| path_item(object(&item), out));
        }
    });
    put_message(9, &mut out, |out| {
        for (name, value) in definitions {
            named(1, &name, out, |out| schema(object(&value), out));
        }
    });
    put_message(12, &mut out, |out| named(1, "BearerToken", out, |_| {}));
    put_message(13, &mut out, |out| {
        named(1, "BearerToken", out, |out| {
            put_message(2, out, |out| {
                put_bytes(1, b"apiKey", out);
                put_bytes(2, b"authorization", out);
                put_bytes(3, b"header", out);
                put_bytes(4, b"Bearer Token authentication", out);
            });
        });
    });
    out
}

fn path_item(item: &Object, out: &mut Vec<u8>) {
    let methods =
        [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")];
    for (number, method) in methods {
        if let Some(op) = item.get(method) {
            put_message(number, out, |out| operation(object(op), out));
        }
    }
    parameters(9, item, out);
}

fn operation(op: &Object, out: &mut Vec<u8>) {
    texts(1, op, "tags", out);
    text(3, op, "description", out);
    text(5, op, "operationId", out);
    texts(6, op, "produces", out);
    texts(7, op, "consumes", out);
    parameters(8, op, out);
    if let Some(responses) = op.get("responses") {
        put_message(9, out, |out| {
            for (code, response) in object(responses) {
                named(1, code, out, |out| put_message(1, out, |out| self::response(object(response), out)));
            }
        });
    }
    texts(10, op, "schemes", out);
    extensions(13, op, out);
}

fn response(response: &Object, out: &mut Vec<u8>) {
    text(1, response, "description", out);
    if let Some(of) = response.get("schema") {
        put_message(2, out, |out| put_message(1, out, |out| schema(object(of), out)));
    }
}

fn parameters(number: u32, of: &Object, out: &mut Vec<u8>) {
    for param in
        of.get("parameters").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
    {
        put_message(number, out, |out| put_message(1, out, |out| parameter(param, out)));
    }
}

fn parameter(param: &Object, out: &mut Vec<u8>) {
    match param.get("in").and_then(Value::as_str) {
        Some("body") => put_message(1, out, |out| {
            text(2, param, "name", out);
            text(3, param, "in", out);
            flag(4, param, "required", out);
            if let Some(of) = param.get("schema") {
                put_message(5, out, |out| schema(object(of), out));
            }
        }),
        place => put_message(2, out, |out| {
            // Path parameters are variant 4 and have no allowEmptyValue; query parameters are variant 3.
            let (variant, ty, unique) = if place == Some("path") { (4, 5, 19) } else { (3, 6, 20) };
            put_message(variant, out, |out| {
                flag(1, param, "required", out);
                text(2, param, "in", out);
                text(3, param, "description", out);
                text(4, param, "name", out);
                text(ty, param, "type", out);
                flag(unique, param, "uniqueItems", out);
            });
        }),
    }
}

fn schema(of: &Object, out: &mut Vec<u8>) {
    text(1, of, "$ref", out);
    text(2, of, "format", out);
    text(3, of, "title", out);
    text(4, of, "description", out);
    if let Some(default) = of.get("default") {
        any(5, default, out);
    }
    texts(19, of, "required", out);
    for value in of.get("enum").and_then(Value::as_array).into_iter().flatten() {
        any(20, value, out);
    }
    match of.get("additionalProperties") {
        Some(Value::Object(inner)) => {
            put_message(21, out, |out| put_message(1, out, |out| schema(inner, out)))
        }
        Some(Value::Bool(b)) => put_message(21, out, |out| put_varint_field(2, u64::from(*b), out)),
        _ => {}
    }
    if let Some(ty) = of.get("type").and_then(Value::as_str) {
        put_message(22, out, |out| put_bytes(1, ty.as_bytes(), out));
    }
    if let Some(Value::Object(items)) = of.get("items") {
        put_message(23, out, |out| put_message(1, out, |out| schema(items, out)));
    }
    if let Some(Value::Object(properties)) = of.get("properties") {
        put_message(25, out, |out| {
            for (name, property) in properties {
                named(1, name, out, |out| schema(object(property), out));
            }
        });
    }
    extensions(31, of, out);
}
