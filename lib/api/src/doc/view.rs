//! Documents as `serde_json::Value` and back, for what works on untyped JSON.

use super::{Doc, Gvk, Value};
use crate::schema::TypeId;

/// The object as untyped JSON, in canonical form, `apiVersion` and `kind` included.
pub fn to_json_value(doc: &Doc) -> serde_json::Value {
    let mut bytes = Vec::new();
    crate::json::encode_canonical(doc, crate::json::EncodeOptions::FULL, &mut bytes);
    crate::json::decode_untyped(&bytes).map_or(serde_json::Value::Null, |value| value_to_json(&value))
}

/// An object from untyped JSON; `ty` is `None` for a custom resource.
pub fn from_json_value(
    ty: Option<TypeId>,
    gvk: &Gvk,
    value: &serde_json::Value,
) -> Result<Doc, crate::json::DecodeError> {
    let bytes = serde_json::to_vec(value).map_err(|e| crate::json::DecodeError::Syntax(e.to_string()))?;
    let (mut doc, _) = crate::json::decode_any(ty, &bytes, crate::json::FieldValidation::Ignore)?;
    doc.gvk = gvk.clone();
    Ok(doc)
}

/// A value as untyped JSON.
pub fn value_to_json(value: &Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Value::Null => Json::Null,
        Value::Bool(b) => Json::Bool(*b),
        Value::Int(n) => Json::from(*n),
        Value::Float(n) => Json::from(*n),
        Value::Str(text) => Json::String(text.to_string()),
        Value::List(items) => Json::Array(items.iter().map(value_to_json).collect()),
        Value::Map(map) => {
            Json::Object(map.iter().map(|(key, value)| (key.to_owned(), value_to_json(value))).collect())
        }
        Value::Raw(_) | Value::Struct(_) => {
            let mut bytes = Vec::new();
            crate::json::encode_value(value, &mut bytes);
            serde_json::from_slice(&bytes).unwrap_or(Json::Null)
        }
    }
}
