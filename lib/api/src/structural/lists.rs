//! Lists of type set and map hold no item twice (apiextensions-apiserver `schema/listtype`).

use std::collections::HashMap;

use super::Schema;
use super::validate::shown;
use crate::doc::{Doc, Map, Value};
use crate::field_errors::{ErrorList, FieldPath};
use crate::schema::ListType;

/// The mistakes of an object's sets and maps.
pub fn validate(schema: &Schema, doc: &Doc, errors: &mut ErrorList) {
    walk(schema, &doc.root, None, errors);
}

fn walk(schema: &Schema, value: &Value, at: Option<&FieldPath<'_>>, errors: &mut ErrorList) {
    if !schema.has_keyed_lists() {
        return;
    }
    match value {
        Value::List(items) => {
            let root = FieldPath::new("");
            let here = at.unwrap_or(&root);
            match schema.list_type() {
                ListType::Set => {
                    for i in repeated(items.iter()) {
                        errors.duplicate(&here.index(i), shown(&items[i]));
                    }
                }
                ListType::Map => map_list(schema, items, here, errors),
                ListType::Atomic | ListType::Unset => {}
            }
            if let Some(below) = schema.items() {
                for (i, item) in items.iter().enumerate() {
                    walk(below, item, Some(&here.index(i)), errors);
                }
            }
        }
        Value::Map(map) => {
            for (key, value) in map.iter() {
                let root = FieldPath::new(key);
                match (schema.property(key), schema.additional()) {
                    (Some(property), _) => {
                        let path = at.map(|at| at.child(key));
                        walk(property, value, Some(path.as_ref().unwrap_or(&root)), errors);
                    }
                    (None, Some(additional)) => {
                        let nowhere = FieldPath::new("");
                        walk(additional, value, Some(&at.unwrap_or(&nowhere).key(key)), errors);
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

/// The places of items that came before, each value once however often it is repeated.
fn repeated<'v>(items: impl Iterator<Item = &'v Value>) -> Vec<usize> {
    let mut seen: HashMap<Vec<u8>, u32> = HashMap::new();
    let mut places = Vec::new();
    for (i, item) in items.enumerate() {
        let mut key = Vec::new();
        crate::json::encode_value(item, &mut key);
        let times = seen.entry(key).or_default();
        *times += 1;
        if *times == 2 {
            places.push(i);
        }
    }
    places
}

fn map_list(schema: &Schema, items: &[Value], at: &FieldPath<'_>, errors: &mut ErrorList) {
    for (i, item) in items.iter().enumerate() {
        if !matches!(item, Value::Map(_) | Value::Null) {
            errors.invalid(&at.index(i), shown(item), "must be an object for an array of list-type map");
            return;
        }
    }
    let key = |item: &Value| -> Value {
        let fields = item.as_map();
        let pairs =
            schema.list_map_keys().iter().filter_map(|key| Some((key.clone(), fields?.get(key)?.clone())));
        Value::Map(pairs.collect::<Map>())
    };
    let keys: Vec<Value> = items.iter().map(key).collect();
    for i in repeated(keys.iter()) {
        errors.duplicate(&at.index(i), shown(&keys[i]));
    }
}
