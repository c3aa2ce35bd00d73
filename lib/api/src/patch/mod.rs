//! Patches as pure functions: the object as it is and the patch's bytes make the object as it should be.
//!
//! Texts are upstream's. The result carries the original's apiVersion and kind unless the patch changed them; whether that is
//! allowed is the caller's check.

mod json;
mod merge;
mod restore;
mod shown;
mod strategic;

use crate::doc::Doc;
use crate::json::{DecodeError, EncodeOptions, FieldValidation, Warning};
use crate::kinds::{self, Mismatch};

/// Why a patch could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// 400: the patch is not what it claims to be.
    #[error("{0}")]
    BadRequest(String),
    /// 413: beyond a limit.
    #[error("{0}")]
    TooLarge(String),
    /// 415: the patch type is not served for this type.
    #[error("{0}")]
    Unsupported(String),
    /// 422: it cannot be applied to this object (a JSON patch test failed, a path is missing).
    #[error("{0}")]
    Unprocessable(String),
    /// 500, as upstream takes them for its own: a strategic patch whose directives or lists make no sense.
    #[error("{0}")]
    Failed(String),
    /// The patched object does not decode: 422, Invalid, with the field `patch` and the value `shown`: the patched object,
    /// or the patch where it was a strategic one.
    #[error("{error}")]
    Decode { error: DecodeError, shown: String },
}

/// The patched object and warnings on unknown or duplicate fields.
pub type Patched = (Doc, Vec<Warning>);

/// `application/json-patch+json`.
pub fn json_patch(original: &Doc, patch: &[u8], validation: FieldValidation) -> Result<Patched, PatchError> {
    let (ops, duplicates) = json::parse(patch, validation)?;
    let mut object = view(original)?;
    json::apply(&mut object, &ops, &mut 0)?;
    finish(original, &object, duplicates, validation, None)
}

/// How many bytes the `copy` operations of a JSON patch add to an object before it is done or fails: as much work as a body
/// that much longer. 3 MiB at most.
pub fn json_patch_copies(original: &Doc, patch: &[u8]) -> usize {
    let mut copied = 0;
    if let (Ok((ops, _)), Ok(mut object)) = (json::parse(patch, FieldValidation::Ignore), view(original)) {
        let _ = json::apply(&mut object, &ops, &mut copied); // where it failed, it had copied this much
    }
    copied
}

/// `application/merge-patch+json`.
pub fn merge_patch(original: &Doc, patch: &[u8], validation: FieldValidation) -> Result<Patched, PatchError> {
    let (patch, duplicates) = read(patch, validation, "error decoding patch: ")?;
    if !patch.is_object() {
        // Whoever validates fields reads the patch once more, into a map, for which null is an empty one.
        let what = type_word(&patch);
        return Err(PatchError::BadRequest(match validation {
            FieldValidation::Ignore => "Invalid JSON Patch".into(),
            _ if patch.is_null() => "Invalid JSON Patch".into(),
            _ => format!(
                "error decoding patch: json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
            ),
        }));
    }
    let mut object = view(original)?;
    merge::merge(&mut object, patch);
    finish(original, &object, duplicates, validation, None)
}

/// `application/strategic-merge-patch+json`; built-in types only.
pub fn strategic_merge(
    original: &Doc,
    patch: &[u8],
    validation: FieldValidation,
) -> Result<Patched, PatchError> {
    let Some(ty) = original.ty() else {
        return Err(PatchError::BadRequest("strategic merge patch format is not supported".into()));
    };
    let bytes = patch;
    let (patch, duplicates) = read(bytes, validation, "")?;
    let patch = match patch {
        serde_json::Value::Object(patch) => patch,
        serde_json::Value::Null => Default::default(),
        other => {
            let what = type_word(&other);
            return Err(PatchError::BadRequest(format!(
                "json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
            )));
        }
    };
    let object = match view(original)? {
        serde_json::Value::Object(object) => object,
        _ => Default::default(),
    };
    let merged = strategic::merge_object(object, patch, ty)?;
    finish(original, &serde_json::Value::Object(merged), duplicates, validation, Some(bytes))
}

/// The original as the client sees it.
fn view(original: &Doc) -> Result<serde_json::Value, PatchError> {
    let mut bytes = Vec::new();
    crate::json::encode_canonical(original, EncodeOptions::FULL, &mut bytes);
    // The decoder's own limit on depth, not serde_json's lower one: what is stored can be patched.
    let value = crate::json::decode_untyped(&bytes)
        .map_err(|e| PatchError::Unprocessable(format!("reading the object to patch: {e}")))?;
    Ok(crate::doc::value_to_json(&value))
}

/// The patch's JSON, and its duplicate fields.
fn read(
    patch: &[u8],
    validation: FieldValidation,
    prefix: &str,
) -> Result<(serde_json::Value, Vec<String>), PatchError> {
    let (value, duplicates) = crate::json::decode_untyped_strict(patch)
        .map_err(|e| PatchError::BadRequest(format!("{prefix}{e}")))?;
    let duplicates = if validation == FieldValidation::Ignore { Vec::new() } else { duplicates };
    Ok((crate::doc::value_to_json(&value), duplicates))
}

/// What Go's decoder calls a JSON value.
pub fn type_word(value: &serde_json::Value) -> &'static str {
    match value {
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "bool",
        serde_json::Value::Number(_) => "number",
        serde_json::Value::String(_) => "string",
        serde_json::Value::Array(_) => "array",
        serde_json::Value::Object(_) => "object",
    }
}

fn finish(
    original: &Doc,
    object: &serde_json::Value,
    duplicates: Vec<String>,
    validation: FieldValidation,
    strategic: Option<&[u8]>,
) -> Result<Patched, PatchError> {
    let bytes = serde_json::to_vec(object).map_err(|e| PatchError::Unprocessable(e.to_string()))?;
    let fail = |error| {
        let patch = strategic.map(|patch| read(patch, FieldValidation::Ignore, ""));
        let shown = match patch {
            Some(Ok((patch, _))) => shown::go(&patch),
            _ => String::from_utf8_lossy(&bytes).into_owned(),
        };
        PatchError::Decode { error, shown }
    };
    match crate::json::decode_any(original.ty(), &bytes, validation) {
        Ok((mut doc, warnings)) => {
            settle_kind(&mut doc, original, strategic.is_some()).map_err(fail)?;
            if !duplicates.is_empty() && validation == FieldValidation::Strict {
                return Err(fail(DecodeError::Strict(duplicates)));
            }
            Ok((doc, [duplicates, warnings].concat()))
        }
        Err(DecodeError::Strict(errors)) => Err(fail(DecodeError::Strict([duplicates, errors].concat()))),
        Err(other) => {
            let converted = strategic.and(original.ty()).and_then(|ty| restore::first_error(ty, object));
            Err(fail(converted.map_or(other, DecodeError::Type)))
        }
    }
}

/// What the patched object says it is must be what it was. A strategic patch changes fields of a type that is given, so what it
/// says does not count; a custom resource's is for its own validation.
fn settle_kind(doc: &mut Doc, original: &Doc, strategic: bool) -> Result<(), DecodeError> {
    if original.ty().is_none() {
        if doc.gvk.kind.is_empty() && doc.gvk.version.is_empty() {
            doc.gvk = original.gvk.clone();
        }
        return Ok(());
    }
    let mut given = std::mem::replace(&mut doc.gvk, original.gvk.clone());
    if given.kind.is_empty() {
        given.kind = original.gvk.kind.clone();
    }
    if given.version.is_empty() && given.group.is_empty() {
        (given.group, given.version) = (original.gvk.group.clone(), original.gvk.version.clone());
    }
    match kinds::mismatch(&given, &original.gvk) {
        Some(Mismatch::Decode(text)) if !strategic => Err(DecodeError::TypeMeta(text)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
