//! What upstream says of a strategically merged object with a value of another type than the field's: it goes from maps to
//! structs there (apimachinery `pkg/runtime/converter.go`), so the texts are not those of JSON.

use serde_json::Value;

use crate::schema::{FieldDef, Kind, TypeId};

/// The first value that does not fit, in the order of the struct's fields; `None` where the converter has nothing to say of it.
pub(super) fn first_error(ty: TypeId, object: &Value) -> Option<String> {
    let Value::Object(map) = object else {
        return Some(format!("cannot restore struct from: {}", go_kind(object)));
    };
    ty.def()
        .fields
        .iter()
        .find_map(|field| map.get(field.json).and_then(|value| of(field, field.kind, value)))
}

fn of(field: &FieldDef, kind: Kind, value: &Value) -> Option<String> {
    if value.is_null() {
        return None;
    }
    match kind {
        Kind::Struct(ty) => first_error(ty, value),
        Kind::List(inner) => match value {
            Value::Array(items) => items.iter().find_map(|item| of(field, *inner, item)),
            _ => Some(format!("cannot restore slice from {}", go_kind(value))),
        },
        Kind::Bytes if !value.is_string() => Some(format!("cannot restore slice from {}", go_kind(value))),
        Kind::Map(inner) => match value {
            Value::Object(map) => map.values().find_map(|value| of(field, *inner, value)),
            _ => Some(format!("cannot restore map from {}", go_kind(value))),
        },
        Kind::Str => match value {
            Value::String(_) => None,
            // Go could make a character of it.
            Value::Number(number) if !number.is_f64() => {
                let named = field.ext.go_type.trim_start_matches("[]");
                Some(format!("cannot convert int64 to {}", if named.is_empty() { "string" } else { named }))
            }
            _ => Some("unrecognized type: string".to_owned()),
        },
        Kind::Bool => (!value.is_boolean()).then(|| "unrecognized type: bool".to_owned()),
        Kind::Int32 | Kind::Int64 | Kind::Float64 => number(kind, value),
        _ => None,
    }
}

fn number(kind: Kind, value: &Value) -> Option<String> {
    let name = match kind {
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        _ => "float64",
    };
    match value {
        Value::Number(number)
            if kind != Kind::Float64 && number.as_f64().is_some_and(|n| n.fract() != 0.0) =>
        {
            Some(format!("cannot convert float64 to {name}"))
        }
        Value::Number(_) => None,
        _ => Some(format!("unrecognized type: {name}")),
    }
}

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_are_those_of_upstreams_converter() {
        let check = |object: Value, expected: Option<&str>| {
            let ty = crate::t::apps_v1::DEPLOYMENT;
            assert_eq!(first_error(ty, &object).as_deref(), expected, "{object}");
        };
        check(json!({"spec": {"replicas": "a"}}), Some("unrecognized type: int32"));
        check(json!({"spec": {"replicas": 1.5}}), Some("cannot convert float64 to int32"));
        check(json!({"spec": {"replicas": 1.0, "paused": null}}), None);
        check(json!({"spec": {"paused": "yes"}}), Some("unrecognized type: bool"));
        check(json!({"spec": []}), Some("cannot restore struct from: slice"));
        check(json!({"metadata": {"labels": {"a": 1}}}), Some("cannot convert int64 to string"));
        check(json!({"metadata": {"labels": "x"}}), Some("cannot restore map from string"));
        let containers = |value: Value| json!({"spec": {"template": {"spec": {"containers": value}}}});
        check(containers(json!({"a": 1})), Some("cannot restore slice from map"));
        check(
            containers(json!([{"name": "c", "imagePullPolicy": 1}])),
            Some("cannot convert int64 to v1.PullPolicy"),
        );
        check(containers(json!([{"name": true}])), Some("unrecognized type: string"));
    }
}
