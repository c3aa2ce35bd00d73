//! Custom resources' schemas as they are published (apiextensions-apiserver `controller/openapi`): in v3 as they were written, in
//! v2 without what its readers cannot take.

use serde_json::{Map, Value, json};

use super::schemas::{LIST_META, OBJECT_META, list_definition, row_definition};
use super::{Dialect, Source};
use crate::table::Resource;

/// Where the texts of apiVersion, kind and metadata are taken from.
const ANY_KIND: &str = "io.k8s.api.core.v1.Pod";
const ANY_LIST: &str = "io.k8s.api.core.v1.PodList";

fn type_meta(source: &dyn Source, field: &str) -> Value {
    described(json!({"type": "string"}), source.description(ANY_KIND, field))
}

fn described(mut value: Value, text: &str) -> Value {
    if !text.is_empty() {
        value["description"] = text.into();
    }
    value
}

/// A reference with a text beside it; v3 readers look at nothing beside `$ref`.
fn reference(dialect: Dialect, definition: &str, text: &str) -> Value {
    let plain = json!({"$ref": dialect.reference(definition)});
    match dialect {
        Dialect::V3 if !text.is_empty() => described(json!({"allOf": [plain]}), text),
        _ => described(plain, text),
    }
}

/// The definition of a row's kind.
pub(super) fn kind(row: &Resource, dialect: Dialect, source: &dyn Source) -> Value {
    let written = row.custom.as_ref().and_then(|custom| custom.written.as_ref());
    let mut schema = match written {
        None => json!({"type": "object"}),
        Some(written) => serde_json::from_slice(written).unwrap_or_else(|_| json!({"type": "object"})),
    };
    let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
    if written.is_some() && dialect == Dialect::V2 && open {
        // With any property named, kubectl would refuse all others.
        schema = json!({"type": "object"});
    } else if written.is_some() {
        match dialect {
            Dialect::V2 => without_branches(&mut schema),
            Dialect::V3 => unfold(&mut schema),
        }
        if !schema["properties"].is_object() {
            schema["properties"] = json!({});
        }
        let properties = &mut schema["properties"];
        properties["metadata"] = reference(dialect, OBJECT_META, source.description(ANY_KIND, "metadata"));
        for field in ["apiVersion", "kind"] {
            properties[field] = type_meta(source, field);
        }
        embedded(&mut schema, dialect, source, true);
    }
    schema["x-kubernetes-group-version-kind"] = gvk(row, &row.kind);
    selectable(row, &mut schema);
    schema
}

/// The definition of a row's list.
pub(super) fn list(row: &Resource, dialect: Dialect, source: &dyn Source) -> Value {
    let text = format!(
        "List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md",
        row.plural
    );
    let items = json!({"type": "array", "description": text, "items": {"$ref": dialect.reference(&row_definition(row))}});
    let mut list = json!({
        "type": "object",
        "description": format!("{} is a list of {}", row.list_kind, row.kind),
        "required": ["items"],
        "properties": {
            "apiVersion": type_meta(source, "apiVersion"),
            "kind": type_meta(source, "kind"),
            "metadata": reference(dialect, LIST_META, source.description(ANY_LIST, "metadata")),
            "items": items,
        },
        "x-kubernetes-group-version-kind": gvk(row, &row.list_kind),
    });
    selectable(row, &mut list);
    list
}

/// The custom row a definition is of.
pub(super) fn find(name: &str, rows: &[&Resource], dialect: Dialect, source: &dyn Source) -> Option<Value> {
    rows.iter().filter(|row| row.ty.is_none()).find_map(|row| {
        if row_definition(row) == name {
            return Some(kind(row, dialect, source));
        }
        (list_definition(row) == name).then(|| list(row, dialect, source))
    })
}

fn gvk(row: &Resource, kind: &str) -> Value {
    json!([{"group": row.group.as_str(), "version": row.version.as_str(), "kind": kind}])
}

fn selectable(row: &Resource, schema: &mut Value) {
    let fields = row.custom.as_ref().map_or(&[][..], |custom| custom.selectable.as_slice());
    if !fields.is_empty() {
        schema["x-kubernetes-selectable-fields"] =
            fields.iter().map(|(label, _)| json!({"fieldPath": label.as_str()})).collect();
    }
}

/// The schemas right below one.
fn children(schema: &mut Map<String, Value>) -> Vec<&mut Value> {
    let mut found = Vec::new();
    for (key, value) in schema.iter_mut() {
        match (key.as_str(), value) {
            ("properties", Value::Object(all)) => found.extend(all.values_mut()),
            ("items" | "additionalProperties", value @ Value::Object(_)) => found.push(value),
            _ => {}
        }
    }
    found
}

/// v2 has no branches, no null, and cannot say both that something is known and that more is allowed.
fn without_branches(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    for branch in ["allOf", "anyOf", "oneOf", "not"] {
        map.remove(branch);
    }
    let nullable = |value: &Value| value["nullable"] == true;
    if let Some(Value::Object(properties)) = map.get("properties") {
        let loose: Vec<String> = properties
            .iter()
            .filter(|(_, property)| nullable(property))
            .map(|(name, _)| name.clone())
            .collect();
        if let Some(Value::Array(required)) = map.get_mut("required") {
            required.retain(|name| !loose.iter().any(|loose| name == loose.as_str()));
            if required.is_empty() {
                map.remove("required");
            }
        }
    }
    if map.get("additionalProperties").is_some_and(nullable) {
        map.remove("required");
    }
    let open = map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    if map.remove("nullable") == Some(Value::Bool(true)) {
        map.remove("type");
        map.remove("items");
        map.remove("properties");
    }
    if open {
        map.remove("items");
        map.remove("properties");
    }
    let ty = map.get("type").and_then(Value::as_str).unwrap_or_default();
    if (ty == "array" && !map.contains_key("items")) || (ty == "object" && open) {
        map.remove("type");
    }
    children(map).into_iter().for_each(without_branches);
}

/// What an int-or-string may be is written out.
fn unfold(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    if map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        let either = json!([{"type": "integer"}, {"type": "string"}]);
        let said = map.get("anyOf") == Some(&either)
            || map.get("allOf").is_some_and(|all| all[0]["anyOf"] == either);
        if !said {
            match (map.contains_key("anyOf"), map.get_mut("allOf")) {
                (false, _) => drop(map.insert("anyOf".into(), either)),
                (true, Some(Value::Array(all))) => all.insert(0, json!({"anyOf": either})),
                (true, _) => drop(map.insert("allOf".into(), json!([{"anyOf": either}]))),
            }
        }
    }
    children(map).into_iter().for_each(unfold);
}

/// Embedded resources have a type and metadata of their own.
fn embedded(schema: &mut Value, dialect: Dialect, source: &dyn Source, root: bool) {
    let Value::Object(map) = schema else { return };
    children(map).into_iter().for_each(|child| embedded(child, dialect, source, false));
    let is = |map: &Map<String, Value>, name: &str| map.get(name) == Some(&Value::Bool(true));
    let open = dialect == Dialect::V2 && is(map, "x-kubernetes-preserve-unknown-fields");
    if root || open || !is(map, "x-kubernetes-embedded-resource") {
        return;
    }
    let properties = map.entry("properties").or_insert_with(|| json!({}));
    let lower = |field: &str| -> Value {
        let mut value = type_meta(source, field);
        if let Some(text) = value["description"].as_str().map(str::to_owned) {
            // The name of the field as JSON has it.
            let text = text.replacen("APIVersion", "apiVersion", 1).replacen("Kind", "kind", 1);
            value["description"] = text.into();
        }
        value
    };
    properties["apiVersion"] = lower("apiVersion");
    properties["kind"] = lower("kind");
    properties["metadata"] = reference(dialect, OBJECT_META, source.description(ANY_KIND, "metadata"));
    let required = map.entry("required").or_insert_with(|| json!([]));
    if let Value::Array(required) = required {
        for name in ["kind", "apiVersion"] {
            if !required.iter().any(|known| known == name) {
                required.push(name.into());
            }
        }
    }
}
