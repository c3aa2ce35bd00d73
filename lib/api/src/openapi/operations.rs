//! Operations as the two dialects write them.

use serde_json::{Map, Value, json};

use super::paths::{Body, Op, Param, PathItem};
use super::{Dialect, schemas};

fn gvk_value(op: &Op, into: &mut Map<String, Value>) {
    if !op.action.is_empty() {
        into.insert("x-kubernetes-action".into(), op.action.into());
    }
    if let Some((group, version, kind)) = &op.gvk {
        into.insert(
            "x-kubernetes-group-version-kind".into(),
            json!({"group": group, "version": version, "kind": kind}),
        );
    }
}

/// The answers by code, each with what it holds under `member`.
fn responses(op: &Op, member: &str, holds: &Value) -> Value {
    let mut all = json!({"401": {"description": "Unauthorized"}});
    for code in [200].iter().chain(op.also) {
        let text = match code {
            201 => "Created",
            202 => "Accepted",
            _ => "OK",
        };
        all[code.to_string()] = json!({"description": text, member: holds});
    }
    all
}

fn patch_types(strategic: bool) -> Vec<&'static str> {
    let mut types =
        vec!["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
    if strategic {
        types.push("application/strategic-merge-patch+json");
    }
    types
}

pub(super) fn v3(item: &PathItem) -> Value {
    let mut out = Map::new();
    for op in &item.ops {
        let mut value = Map::new();
        value.insert("description".into(), op.description.as_str().into());
        value.insert("operationId".into(), op.id.as_str().into());
        value.insert("tags".into(), json!([op.tag]));
        if !op.params.is_empty() {
            value.insert("parameters".into(), op.params.iter().map(v3_param).collect());
        }
        let reference = |name: &str| json!({"schema": {"$ref": Dialect::V3.reference(name)}});
        match &op.body {
            Some(Body::Object(name)) => drop(value.insert(
                "requestBody".into(),
                json!({"content": {"*/*": reference(name)}, "required": true}),
            )),
            Some(Body::Options) => drop(value.insert(
                "requestBody".into(),
                json!({"content": {"*/*": reference(schemas::DELETE_OPTIONS)}}),
            )),
            Some(Body::Patch { strategic }) => {
                let content: Map<String, Value> = patch_types(*strategic)
                    .into_iter()
                    .map(|ty| (ty.to_owned(), reference(schemas::PATCH)))
                    .collect();
                value.insert("requestBody".into(), json!({"content": content, "required": true}));
            }
            None => {}
        }
        let schema = op.response.as_deref().map_or_else(|| json!({"schema": {"type": "string"}}), reference);
        let content: Map<String, Value> =
            op.produces.iter().map(|ty| ((*ty).to_owned(), schema.clone())).collect();
        value.insert("responses".into(), responses(op, "content", &content.into()));
        gvk_value(op, &mut value);
        out.insert(op.method.to_owned(), Value::Object(value));
    }
    if !item.params.is_empty() {
        out.insert("parameters".into(), item.params.iter().map(v3_param).collect());
    }
    Value::Object(out)
}

fn v3_param(param: &Param) -> Value {
    let mut value = json!({"name": param.name, "in": param.place, "description": param.description, "schema": {"type": param.ty, "uniqueItems": true}});
    if param.required {
        value["required"] = true.into();
    }
    value
}

fn v2_param(param: &Param) -> Value {
    let mut value = json!({"name": param.name, "in": param.place, "description": param.description, "type": param.ty, "uniqueItems": true});
    if param.required {
        value["required"] = true.into();
    }
    value
}

pub(super) fn v2(item: &PathItem) -> Value {
    let mut out = Map::new();
    for op in &item.ops {
        let mut value = Map::new();
        value.insert("description".into(), op.description.as_str().into());
        value.insert("operationId".into(), op.id.as_str().into());
        value.insert("tags".into(), json!([op.tag]));
        value.insert("schemes".into(), json!(["https"]));
        let mut params: Vec<Value> = op.params.iter().map(v2_param).collect();
        let reference = |name: &str| json!({"$ref": Dialect::V2.reference(name)});
        let body = |name: &str, required: bool| {
            let mut value = json!({"name": "body", "in": "body", "schema": reference(name)});
            if required {
                value["required"] = true.into();
            }
            value
        };
        let mut consumes = op.consumes.to_vec();
        match &op.body {
            Some(Body::Object(name)) => params.insert(0, body(name, true)),
            Some(Body::Options) => params.insert(0, body(schemas::DELETE_OPTIONS, false)),
            Some(Body::Patch { strategic }) => {
                params.insert(0, body(schemas::PATCH, true));
                consumes = patch_types(*strategic);
            }
            None => {}
        }
        if !params.is_empty() {
            value.insert("parameters".into(), params.into());
        }
        value.insert("consumes".into(), json!(consumes));
        value.insert("produces".into(), json!(op.produces));
        let schema = op.response.as_deref().map_or_else(|| json!({"type": "string"}), reference);
        value.insert("responses".into(), responses(op, "schema", &schema));
        gvk_value(op, &mut value);
        out.insert(op.method.to_owned(), Value::Object(value));
    }
    if !item.params.is_empty() {
        out.insert("parameters".into(), item.params.iter().map(v2_param).collect());
    }
    Value::Object(out)
}
