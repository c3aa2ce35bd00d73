//! JSON patch (RFC 6902), as upstream's library reads it: an index below zero counts from the list's end, `replace` also sets
//! a field that is not there, and what is not there equals null.

use serde_json::{Map, Value};

use super::PatchError;
use crate::json::FieldValidation;

const MAX_OPERATIONS: usize = 10_000;
/// What `copy` operations may add in all; without it a small patch makes an object of any size.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// One operation.
#[derive(Debug)]
pub(super) struct Operation {
    path: String,
    change: Change,
}

#[derive(Debug)]
enum Change {
    Add(Value),
    Remove,
    Replace(Value),
    Move { from: String },
    Copy { from: String },
    Test(Value),
}

/// The operations and the patch's unknown and duplicate fields.
pub(super) fn parse(
    patch: &[u8],
    validation: FieldValidation,
) -> Result<(Vec<Operation>, Vec<String>), PatchError> {
    let (value, duplicates) = super::read(patch, validation, "error decoding patch: ")?;
    let items = match value {
        Value::Array(items) => items,
        Value::Null => Vec::new(),
        other => return Err(not_a(&other, "Go value of type []handlers.jsonPatchOp")),
    };
    if items.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            items.len()
        )));
    }
    let mut notes: Vec<String> = duplicates.iter().map(|note| format!("json patch {note}")).collect();
    let mut fields = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        let item = members(item)?;
        if validation != FieldValidation::Ignore {
            for name in item.keys().filter(|name| !matches!(name.as_str(), "op" | "path" | "from" | "value"))
            {
                notes.push(format!("json patch unknown field {:?}", format!("[{i}].{name}")));
            }
        }
        fields.push(item);
    }
    let ops = fields.into_iter().map(operation).collect::<Result<_, _>>()?;
    Ok((ops, notes))
}

fn not_a(value: &Value, wanted: &str) -> PatchError {
    let what = super::type_word(value);
    PatchError::BadRequest(format!("error decoding patch: json: cannot unmarshal {what} into {wanted}"))
}

/// The fields of an operation, whose `op`, `path` and `from` are texts.
fn members(item: Value) -> Result<Map<String, Value>, PatchError> {
    let fields = match item {
        Value::Object(fields) => fields,
        Value::Null => Map::new(),
        other => return Err(not_a(&other, "Go value of type handlers.jsonPatchOp")),
    };
    for name in ["op", "path", "from"] {
        if let Some(value) = fields.get(name)
            && !value.is_string()
            && !value.is_null()
        {
            return Err(not_a(value, &format!("Go struct field jsonPatchOp.{name} of type string")));
        }
    }
    Ok(fields)
}

fn operation(mut fields: Map<String, Value>) -> Result<Operation, PatchError> {
    let mut text = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let unprocessable = |text: String| Err(PatchError::Unprocessable(text));
    let (op, path, from) = (text("op").unwrap_or_else(|| "unknown".to_owned()), text("path"), text("from"));
    if !matches!(op.as_str(), "add" | "remove" | "replace" | "move" | "copy" | "test") {
        return unprocessable(format!("Unexpected kind: {op}"));
    }
    let Some(path) = path else {
        return unprocessable(format!("{op} operation failed to decode path: missing value"));
    };
    // A missing value is null there.
    let value = fields.remove("value").unwrap_or(Value::Null);
    let change = match (op.as_str(), from) {
        ("add", _) => Change::Add(value),
        ("remove", _) => Change::Remove,
        ("replace", _) => Change::Replace(value),
        ("test", _) => Change::Test(value),
        ("move", Some(from)) => Change::Move { from },
        ("copy", Some(from)) => Change::Copy { from },
        _ => {
            return unprocessable(format!(
                "{op} operation failed to decode from: operation, missing from field: missing value"
            ));
        }
    };
    Ok(Operation { path, change })
}

/// Applies the operations in order; `copied` counts the bytes that are copied.
pub(super) fn apply(object: &mut Value, ops: &[Operation], copied: &mut usize) -> Result<(), PatchError> {
    ops.iter().try_for_each(|op| apply_one(object, op, copied)).map_err(PatchError::Unprocessable)
}

fn apply_one(object: &mut Value, op: &Operation, copied: &mut usize) -> Result<(), String> {
    let path = op.path.as_str();
    match &op.change {
        Change::Add(value) => add(object, path, value.clone(), "add", "path: \""),
        Change::Remove => remove(object, path, "remove").map(drop),
        Change::Replace(value) => replace(object, path, value),
        Change::Test(value) => test(object, path, value),
        Change::Move { from } => {
            let value = remove(object, from, "move")?;
            add(object, path, value, "move", "destination path: ")
        }
        Change::Copy { from } => {
            let value = match parent(object, from) {
                None => return Err(missing("copy", "from path: ", from)),
                Some((place, key)) => get(place, &key)
                    .map_err(|why| format!("error in copy for from: '{from}': {why}"))?
                    .cloned()
                    .unwrap_or(Value::Null),
            };
            *copied += serde_json::to_vec(&value).map_or(0, |bytes| bytes.len());
            if *copied > MAX_COPIED_BYTES {
                return Err(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED_BYTES}"
                ));
            }
            add(object, path, value, "copy", "destination path: ")
        }
    }
}

fn missing(op: &str, what: &str, path: &str) -> String {
    let quote = if what.ends_with('"') { "\"" } else { "" };
    format!("{op} operation does not apply: doc is missing {what}{path}{quote}: missing value")
}

/// The object or list that a path's last part lies in, and that part. Null is as if it were not there.
fn parent<'v>(object: &'v mut Value, path: &str) -> Option<(&'v mut Value, String)> {
    let (above, last) = path.rsplit_once('/')?;
    let mut place = object;
    for part in above.split('/').skip(1) {
        place = match get(place, &unescaped(part)) {
            Ok(Some(_)) => member(place, &unescaped(part))?,
            _ => return None,
        };
    }
    (place.is_object() || place.is_array()).then(|| (place, unescaped(last)))
}

fn unescaped(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// The index that a key names in a list of this length.
fn index(key: &str, length: usize) -> Result<usize, String> {
    let Ok(index) = key.parse::<i64>() else {
        return Err(format!("value was not a proper array index: '{key}'"));
    };
    let at = if index < 0 { index + length as i64 } else { index };
    match usize::try_from(at) {
        Ok(at) if at < length => Ok(at),
        _ => Err(format!("Unable to access invalid index: {index}: invalid index referenced")),
    }
}

/// What lies under a key; `None` for a field that is not there.
fn get<'v>(place: &'v Value, key: &str) -> Result<Option<&'v Value>, String> {
    match place {
        Value::Array(items) => Ok(items.get(index(key, items.len())?)),
        other => Ok(other.get(key)),
    }
}

fn member<'v>(place: &'v mut Value, key: &str) -> Option<&'v mut Value> {
    match place {
        Value::Array(items) => {
            let at = index(key, items.len()).ok()?;
            items.get_mut(at)
        }
        other => other.get_mut(key),
    }
}

fn add(object: &mut Value, path: &str, value: Value, op: &str, what: &str) -> Result<(), String> {
    match parent(object, path) {
        None => Err(missing(op, what, path)),
        Some((Value::Array(items), key)) => {
            let at = match key.as_str() {
                "-" => items.len(),
                key => index(key, items.len() + 1)
                    .map_err(|why| format!("error in {op} for path: '{path}': {why}"))?,
            };
            items.insert(at, value);
            Ok(())
        }
        Some((place, key)) => {
            if let Value::Object(fields) = place {
                fields.insert(key, value);
            }
            Ok(())
        }
    }
}

fn remove(object: &mut Value, path: &str, op: &str) -> Result<Value, String> {
    let failed = |why: String| format!("error in {op} for path: '{path}': {why}");
    match parent(object, path) {
        None if op == "move" => Err(missing(op, "from path: ", path)),
        None => Err(missing(op, "path: \"", path)),
        Some((Value::Array(items), key)) => {
            let at = index(&key, items.len()).map_err(failed)?;
            Ok(items.remove(at))
        }
        Some((place, key)) => place
            .as_object_mut()
            .and_then(|fields| fields.remove(&key))
            .ok_or_else(|| failed(format!("Unable to remove nonexistent key: {key}: missing value"))),
    }
}

fn replace(object: &mut Value, path: &str, value: &Value) -> Result<(), String> {
    if path.is_empty() {
        if !value.is_object() && !value.is_array() {
            return Err("replace operation value must be object or array".to_owned());
        }
        *object = value.clone();
        return Ok(());
    }
    match parent(object, path) {
        None => Err(missing("replace", "path: ", path)),
        Some((Value::Array(items), key)) => {
            let at = index(&key, items.len()).map_err(|_| missing("replace", "key: ", path))?;
            items[at] = value.clone();
            Ok(())
        }
        Some((place, key)) => {
            if let Value::Object(fields) = place {
                fields.insert(key, value.clone());
            }
            Ok(())
        }
    }
}

fn test(object: &mut Value, path: &str, value: &Value) -> Result<(), String> {
    let found = if path.is_empty() {
        Some(&*object)
    } else {
        match parent(object, path) {
            None => {
                return Err(format!("test operation does not apply: is missing path: {path}: missing value"));
            }
            Some((place, key)) => {
                get(place, &key).map_err(|why| format!("error in test for path: '{path}': {why}"))?
            }
        }
    };
    if found.unwrap_or(&Value::Null) == value {
        return Ok(());
    }
    Err(format!("testing value {path} failed: test failed"))
}
