//! JSON patch (RFC 6902).

use json_patch::{PatchErrorKind, PatchOperation};
use serde_json::Value;

use super::PatchError;
use crate::json::FieldValidation;

const MAX_OPERATIONS: usize = 10_000;
/// What `copy` operations may add in all; without it a small patch makes an object of any size.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// The operations and the patch's unknown and duplicate fields.
pub(super) fn parse(
    patch: &[u8],
    validation: FieldValidation,
) -> Result<(Vec<PatchOperation>, Vec<String>), PatchError> {
    let (value, duplicates) = super::read(patch, validation, "error decoding patch: ")?;
    let Value::Array(items) = value else {
        let what = super::type_word(&value);
        return Err(PatchError::BadRequest(format!(
            "error decoding patch: json: cannot unmarshal {what} into Go value of type []handlers.jsonPatchOp"
        )));
    };
    if items.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            items.len()
        )));
    }
    let mut notes: Vec<String> = duplicates.iter().map(|note| format!("json patch {note}")).collect();
    let mut ops = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        if validation != FieldValidation::Ignore
            && let Value::Object(fields) = &item
        {
            for name in
                fields.keys().filter(|name| !matches!(name.as_str(), "op" | "path" | "from" | "value"))
            {
                notes.push(format!("json patch unknown field {:?}", format!("[{i}].{name}")));
            }
        }
        ops.push(operation(item)?);
    }
    Ok((ops, notes))
}

fn operation(mut item: Value) -> Result<PatchOperation, PatchError> {
    let op = item.get("op").and_then(Value::as_str).unwrap_or("unknown").to_owned();
    let unprocessable = |text: String| Err(PatchError::Unprocessable(text));
    if !matches!(op.as_str(), "add" | "remove" | "replace" | "move" | "copy" | "test") {
        return unprocessable(format!("Unexpected kind: {op}"));
    }
    if item.get("path").is_none() {
        return unprocessable(format!("{op} operation failed to decode path: missing value"));
    }
    if matches!(op.as_str(), "move" | "copy") && item.get("from").is_none() {
        return unprocessable(format!(
            "{op} operation failed to decode from: operation, missing from field: missing value"
        ));
    }
    // A missing value is null there.
    if matches!(op.as_str(), "add" | "replace" | "test")
        && let Value::Object(fields) = &mut item
    {
        fields.entry("value").or_insert(Value::Null);
    }
    serde_json::from_value(item)
        .or_else(|e| unprocessable(format!("{op} operation failed to decode path: {e}")))
}

/// Applies the operations in order.
pub(super) fn apply(object: &mut Value, ops: &[PatchOperation]) -> Result<(), PatchError> {
    let mut copied = 0;
    for op in ops {
        if let PatchOperation::Copy(copy) = op
            && let Some(value) = object.pointer(copy.from.as_str())
        {
            copied += serde_json::to_vec(value).map_or(0, |bytes| bytes.len());
            if copied > MAX_COPIED_BYTES {
                return Err(PatchError::Unprocessable(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED_BYTES}"
                )));
            }
        }
        json_patch::patch_unsafe(object, std::slice::from_ref(op))
            .map_err(|e| failure(object, op, &e.kind))?;
    }
    Ok(())
}

/// Upstream's text for a failed operation.
fn failure(object: &Value, op: &PatchOperation, kind: &PatchErrorKind) -> PatchError {
    let path = op.path().as_str();
    let parent_is_there = |path: &str| {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        object.pointer(parent).filter(|parent| parent.is_object() || parent.is_array())
    };
    let in_list = |path: &str| parent_is_there(path).is_some_and(Value::is_array);
    let last = |path: &str| path.rsplit('/').next().unwrap_or("").to_owned();
    let text = match op {
        PatchOperation::Test(_) if matches!(kind, PatchErrorKind::TestFailed) => {
            format!("testing value {path} failed: test failed")
        }
        PatchOperation::Test(_) if parent_is_there(path).is_some() => {
            format!("testing value {path} failed: test failed")
        }
        PatchOperation::Test(_) => {
            format!("test operation does not apply: is missing path: {path}: missing value")
        }
        PatchOperation::Add(_) if in_list(path) => {
            format!(
                "error in add for path: '{path}': Unable to access invalid index: {}: invalid index referenced",
                last(path)
            )
        }
        PatchOperation::Add(_) => {
            format!("add operation does not apply: doc is missing path: \"{path}\": missing value")
        }
        PatchOperation::Remove(_) if in_list(path) => {
            format!(
                "error in remove for path: '{path}': Unable to access invalid index: {}: invalid index referenced",
                last(path)
            )
        }
        PatchOperation::Remove(_) if parent_is_there(path).is_some() => {
            format!(
                "error in remove for path: '{path}': Unable to remove nonexistent key: {}: missing value",
                last(path)
            )
        }
        PatchOperation::Remove(_) => {
            format!("remove operation does not apply: doc is missing path: \"{path}\": missing value")
        }
        PatchOperation::Replace(_) if parent_is_there(path).is_some() => {
            format!("replace operation does not apply: doc is missing key: {path}: missing value")
        }
        PatchOperation::Replace(_) => {
            format!("replace operation does not apply: doc is missing path: {path}: missing value")
        }
        PatchOperation::Move(op) => {
            format!("move operation does not apply: doc is missing from path: {}: missing value", op.from)
        }
        PatchOperation::Copy(op) => {
            format!("copy operation does not apply: doc is missing from path: {}: missing value", op.from)
        }
    };
    PatchError::Unprocessable(text)
}
