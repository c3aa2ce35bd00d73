//! Documents as `serde_json::Value` and back, for what works on untyped JSON.

use super::{Doc, Gvk};
use crate::schema::TypeId;

/// The object as untyped JSON, in canonical form, `apiVersion` and `kind` included.
pub fn to_json_value(doc: &Doc) -> serde_json::Value {
    let mut bytes = Vec::new();
    crate::json::encode_canonical(doc, crate::json::EncodeOptions::FULL, &mut bytes);
    serde_json::from_slice(&bytes).unwrap_or(serde_json::Value::Null)
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
