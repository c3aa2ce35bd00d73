//! Merge patches between two states of an object, so that nothing is written when nothing changed.

use serde::Serialize;
use serde_json::{Map, Value};

/// The JSON merge patch that turns `old` into `new`; `None` when they are equal. Absent and null are the same.
pub fn diff(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let mut patch = Map::new();
            for (key, value) in new {
                match old.get(key) {
                    Some(before) => {
                        if let Some(change) = diff(before, value) {
                            patch.insert(key.clone(), change);
                        }
                    }
                    None if value.is_null() => {}
                    None => drop(patch.insert(key.clone(), value.clone())),
                }
            }
            for (key, value) in old {
                if !new.contains_key(key) && !value.is_null() {
                    patch.insert(key.clone(), Value::Null);
                }
            }
            (!patch.is_empty()).then_some(Value::Object(patch))
        }
        (old, new) => (old != new).then(|| new.clone()),
    }
}

/// As [`diff`] for typed states.
pub fn diff_of<T: Serialize>(old: &T, new: &T) -> Result<Option<Value>, serde_json::Error> {
    Ok(diff(&serde_json::to_value(old)?, &serde_json::to_value(new)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_changed() {
        let check = |old: Value, new: Value, expected: Option<Value>| assert_eq!(diff(&old, &new), expected);
        check(json!({"a": 1}), json!({"a": 1}), None);
        check(json!({"a": 1, "b": {"c": 2}}), json!({"a": 1, "b": {"c": 3}}), Some(json!({"b": {"c": 3}})));
        check(json!({"a": 1}), json!({}), Some(json!({"a": null})));
        check(json!({"a": null}), json!({}), None);
        check(json!({"l": [1]}), json!({"l": [1, 2]}), Some(json!({"l": [1, 2]})));
    }
}
