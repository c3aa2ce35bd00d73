//! Strategic merge patch: a merge patch that knows which lists merge by which key, with directives in the patch.
//!
//! `$patch: replace|delete|merge`, `$setElementOrder/<list>`, `$retainKeys`, `$deleteFromPrimitiveList/<list>`. Costs grow with
//! the size of object and patch, not with their product.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{PatchError, shown};
use crate::schema::{Kind, PatchStrategy, TypeId};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList";

type Object = Map<String, Value>;

/// What the schema says of where the merge stands.
#[derive(Clone, Copy)]
enum Place {
    Struct(TypeId),
    /// A map: the kind of its values.
    Map(&'static Kind),
    /// No schema below (opaque JSON): merges as JSON merge patch does.
    Opaque,
    /// The self-containing struct of upstream's test tables.
    #[cfg(test)]
    Fixture,
}

/// A field's place and directives.
struct Meta {
    place: Place,
    strategy: PatchStrategy,
    merge_key: &'static str,
}

fn place_of(kind: Kind) -> Place {
    match kind {
        Kind::Struct(ty) | Kind::SchemaOrArray(ty) | Kind::SchemaOrBool(ty) | Kind::SchemaOrStrings(ty) => {
            Place::Struct(ty)
        }
        Kind::Map(of) => Place::Map(of),
        Kind::List(of) | Kind::WrappedList(of) => place_of(*of),
        _ => Place::Opaque,
    }
}

impl Place {
    fn lookup(self, key: &str) -> Result<Meta, PatchError> {
        match self {
            Place::Struct(ty) => match ty.def().field(key) {
                Some(field) => Ok(Meta {
                    place: place_of(field.kind),
                    strategy: field.patch_strategy(),
                    merge_key: field.patch_merge_key().unwrap_or(""),
                }),
                None => fail(format!("unable to find api field {key:?} in {}", ty.def().go_qualified())),
            },
            Place::Map(of) => Ok(Meta { place: place_of(*of), strategy: PatchStrategy::NONE, merge_key: "" }),
            Place::Opaque => Ok(Meta { place: Place::Opaque, strategy: PatchStrategy::NONE, merge_key: "" }),
            #[cfg(test)]
            Place::Fixture => match super::tests::fixture_lookup(key) {
                Some((strategy, merge_key)) => Ok(Meta { place: Place::Fixture, strategy, merge_key }),
                None => fail(format!("unable to find api field {key:?} in strategicpatch.MergeItem")),
            },
        }
    }

    fn name(self) -> &'static str {
        match self {
            Place::Struct(ty) => ty.def().go_name(),
            _ => "",
        }
    }
}

fn fail<T>(text: impl Into<String>) -> Result<T, PatchError> {
    Err(PatchError::Failed(text.into()))
}

fn bad<T>(text: &str) -> Result<T, PatchError> {
    Err(PatchError::BadRequest(text.into()))
}

fn bad_primitive_list<T>() -> Result<T, PatchError> {
    bad("invalid patch format of primitive list")
}

fn bad_set_element_order<T>() -> Result<T, PatchError> {
    bad("invalid patch format of setElementOrder list")
}

fn bad_retain_keys<T>() -> Result<T, PatchError> {
    bad("invalid patch format of retainKeys")
}

fn bad_type<T>(expected: &str, actual: &Value) -> Result<T, PatchError> {
    fail(format!("expected a {expected}, but received a {}", go_type(actual)))
}

fn no_merge_key<T>(map: &Object, key: &str) -> Result<T, PatchError> {
    fail(format!("map: {} does not contain declared merge key: {key}", shown::object(map)))
}

pub(super) fn merge_object(original: Object, patch: Object, ty: TypeId) -> Result<Object, PatchError> {
    merge_map(original, patch, Place::Struct(ty))
}

#[cfg(test)]
pub(super) fn merge_fixture(original: Object, patch: Object) -> Result<Object, PatchError> {
    merge_map(original, patch, Place::Fixture)
}

fn merge_map(mut original: Object, mut patch: Object, place: Place) -> Result<Object, PatchError> {
    if let Some(directive) = patch.get(PATCH) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(PATCH);
                Ok(patch)
            }
            Some("delete") => Ok(Object::new()),
            _ => fail(format!(
                "unknown patch type: {} in map: {}",
                shown::go(directive),
                shown::object(&patch)
            )),
        };
    }
    apply_retain_keys(&mut original, &mut patch)?;
    apply_element_orders(&mut original, &mut patch, place)?;
    for (key, value) in patch {
        merge_member(&mut original, key, value, place)?;
    }
    Ok(original)
}

fn merge_member(
    original: &mut Object,
    key: String,
    mut value: Value,
    place: Place,
) -> Result<(), PatchError> {
    let (key, is_delete_list) = match key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
        Some(rest) => match rest.strip_prefix('/') {
            Some(name) => (name.to_owned(), true),
            None => return bad_primitive_list(),
        },
        None => (key, false),
    };
    if value.is_null() {
        original.remove(&key);
        return Ok(());
    }
    let set = |original: &mut Object, mut value: Value| {
        discard_nulls(&mut value);
        match remove_directives(value) {
            Some(value) => drop(original.insert(key.clone(), value)),
            None => drop(original.remove(&key)),
        }
    };
    let Some(present) = original.get_mut(&key) else {
        if !is_delete_list {
            set(original, value);
        }
        return Ok(());
    };
    match (present.take(), &mut value) {
        (Value::Object(old), Value::Object(new)) => {
            let meta = place.lookup(&key)?;
            let new = std::mem::take(new);
            let merged = if meta.strategy.has(PatchStrategy::REPLACE) {
                new
            } else {
                merge_map(old, new, meta.place)?
            };
            original.insert(key, Value::Object(merged));
        }
        (Value::Array(old), Value::Array(new)) => {
            let meta = place.lookup(&key)?;
            let merged = merge_list_field(old, std::mem::take(new), &meta, is_delete_list)?;
            original.insert(key, Value::Array(merged));
        }
        (old, _) => {
            if is_delete_list {
                original.insert(key, old);
            } else {
                set(original, value);
            }
        }
    }
    Ok(())
}

fn merge_list_field(
    old: Vec<Value>,
    new: Vec<Value>,
    meta: &Meta,
    is_delete_list: bool,
) -> Result<Vec<Value>, PatchError> {
    if meta.strategy.has(PatchStrategy::MERGE) || is_delete_list {
        merge_list(old, new, meta.place, meta.merge_key, is_delete_list)
    } else {
        Ok(new)
    }
}

/// `$retainKeys`: only the keys named stay in the original.
fn apply_retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keys) = keys else { return bad_retain_keys() };
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    for (key, value) in patch.iter() {
        let directive = key.starts_with(DELETE_FROM_PRIMITIVE_LIST) || key.starts_with(SET_ELEMENT_ORDER);
        if !value.is_null() && !directive && !keys.contains(key.as_str()) {
            return bad_retain_keys();
        }
    }
    original.retain(|key, _| keys.contains(key.as_str()));
    Ok(())
}

/// `$setElementOrder/<list>`: merges the list and brings it into the order wanted.
fn apply_element_orders(original: &mut Object, patch: &mut Object, place: Place) -> Result<(), PatchError> {
    let directives: Vec<String> =
        patch.keys().filter(|key| key.starts_with(SET_ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let Some(order) = patch.remove(&directive) else { continue };
        let Value::Array(order) = order else { return bad_type("[]interface {}", &order) };
        let Some(name) = directive.strip_prefix(SET_ELEMENT_ORDER).and_then(|rest| rest.strip_prefix('/'))
        else {
            return bad_set_element_order();
        };
        let list_of = |value: Option<&Value>| match value {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items.clone())),
            Some(other) => bad_type("[]interface {}", other),
        };
        let old = list_of(original.get(name))?;
        let new = list_of(patch.get(name))?;
        let meta = place.lookup(name)?;
        check_against_order(new.as_deref().unwrap_or(&[]), &order, meta.merge_key)?;
        let server_order = server_order(old.as_deref(), new.as_deref(), &meta);
        let merged = match (old, new) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(new)) => new.into_iter().filter_map(remove_directives).collect(),
            (Some(old), Some(new)) => merge_list_field(old, new, &meta, false)?,
        };
        if merged.is_empty() && server_order.is_empty() {
            original.insert(name.to_owned(), Value::Array(merged));
        } else {
            let both = in_order(merged, &order, &server_order, meta.merge_key)?;
            original.insert(name.to_owned(), Value::Array(both));
        }
        patch.remove(name);
    }
    Ok(())
}

/// The order the server's elements are known in. Upstream deletes and appends in the array it later takes the order from, as far
/// as its old length; clients see the outcome, so it is the same here.
fn server_order(old: Option<&[Value]>, new: Option<&[Value]>, meta: &Meta) -> Vec<Value> {
    let old = old.unwrap_or(&[]);
    let new = new.unwrap_or(&[]);
    let directive = |item: &Value, name: &str| item.get(PATCH).is_some_and(|d| d == name);
    let by_key = !meta.merge_key.is_empty() && meta.strategy.has(PatchStrategy::MERGE);
    if !by_key
        || !new.iter().any(|item| directive(item, "delete"))
        || new.iter().any(|item| directive(item, "replace"))
    {
        return old.to_vec();
    }
    let key_of = |item: &Value| item.get(meta.merge_key).map(Value::to_string);
    let gone: HashSet<Option<String>> =
        new.iter().filter(|item| directive(item, "delete")).map(key_of).collect();
    let mut order: Vec<Value> = old.iter().filter(|item| !gone.contains(&key_of(item))).cloned().collect();
    let known: HashSet<Option<String>> = order.iter().map(key_of).collect();
    order.extend(
        new.iter().filter(|item| item.get(PATCH).is_none() && !known.contains(&key_of(item))).cloned(),
    );
    order.truncate(old.len());
    order
}

/// The patch's elements must come in the order the directive names.
fn check_against_order(new: &[Value], order: &[Value], merge_key: &str) -> Result<(), PatchError> {
    if order.is_empty() || new.is_empty() {
        return Ok(());
    }
    let mut at = 0;
    for item in new.iter().filter(|item| item.get(PATCH).is_none()) {
        let wanted = identity(item, merge_key)?;
        loop {
            let Some(candidate) = order.get(at) else {
                return fail(format!(
                    "The order in patch list:\n{}\n doesn't match {SET_ELEMENT_ORDER} list:\n{}\n",
                    shown::list(new),
                    shown::list(order)
                ));
            };
            at += 1;
            if identity(candidate, merge_key)? == wanted {
                break;
            }
        }
    }
    Ok(())
}

/// What makes a list's element the same: its merge key's value, or itself.
fn identity(item: &Value, merge_key: &str) -> Result<String, PatchError> {
    if merge_key.is_empty() {
        return Ok(item.to_string());
    }
    match item {
        Value::Object(map) => match map.get(merge_key) {
            Some(value) => Ok(value.to_string()),
            None => no_merge_key(map, merge_key),
        },
        other => bad_type("map[string]interface {}", other),
    }
}

fn merge_list(
    old: Vec<Value>,
    new: Vec<Value>,
    place: Place,
    merge_key: &str,
    is_delete_list: bool,
) -> Result<Vec<Value>, PatchError> {
    if old.is_empty() && new.is_empty() {
        return Ok(old);
    }
    if !elements_are_objects(&old, &new)? {
        if is_delete_list {
            let gone: HashSet<String> = new.iter().map(Value::to_string).collect();
            return Ok(old.into_iter().filter(|item| !gone.contains(&item.to_string())).collect());
        }
        let server_order = old.clone();
        let mut seen = HashSet::new();
        let both =
            old.into_iter().chain(new.iter().cloned()).filter(|item| seen.insert(item.to_string())).collect();
        return in_order(both, &new, &server_order, "");
    }
    if merge_key.is_empty() {
        return fail(format!("cannot merge lists without merge key for {}", place.name()));
    }
    let (old, new) = apply_element_directives(old, new, merge_key)?;
    let server_order = old.clone();
    let merged = merge_elements(old, &new, place, merge_key)?;
    in_order(merged, &new, &server_order, merge_key)
}

/// All elements are of one type, which is not a list.
fn elements_are_objects(old: &[Value], new: &[Value]) -> Result<bool, PatchError> {
    let mut of = None;
    for item in old.iter().chain(new) {
        if item.is_array() {
            return Err(PatchError::Unprocessable("lists of lists are not supported".into()));
        }
        let here = std::mem::discriminant(item);
        if *of.get_or_insert(here) != here {
            return fail(format!(
                "list element types are not identical: [{} {}]",
                shown::list(old),
                shown::list(new)
            ));
        }
    }
    Ok(old.iter().chain(new).next().is_some_and(Value::is_object))
}

/// Takes the elements with `$patch` out of the patch and does what they say.
fn apply_element_directives(
    old: Vec<Value>,
    new: Vec<Value>,
    merge_key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut replace = false;
    let mut gone = HashSet::new();
    let mut rest = Vec::with_capacity(new.len());
    for item in new {
        let Value::Object(map) = &item else { return bad_type("map[string]interface {}", &item) };
        match map.get(PATCH).map(|d| (d, d.as_str())) {
            None => rest.push(item),
            Some((_, Some("delete"))) => match map.get(merge_key) {
                Some(value) => drop(gone.insert(value.to_string())),
                None => return no_merge_key(map, merge_key),
            },
            Some((_, Some("replace"))) => replace = true,
            Some((_, Some("merge"))) => return fail("merging lists cannot yet be specified in the patch"),
            Some((other, _)) => {
                return fail(format!(
                    "unknown patch type: {} in map: {}",
                    shown::go(other),
                    shown::object(map)
                ));
            }
        }
    }
    if replace {
        return Ok((rest, Vec::new()));
    }
    let kept = old
        .into_iter()
        .filter(|item| item.get(merge_key).is_none_or(|value| !gone.contains(&value.to_string())));
    Ok((kept.collect(), rest))
}

/// Merges each element into the one of the same key, or appends it.
fn merge_elements(
    mut old: Vec<Value>,
    new: &[Value],
    place: Place,
    merge_key: &str,
) -> Result<Vec<Value>, PatchError> {
    let mut position: HashMap<String, usize> = HashMap::with_capacity(old.len());
    for (at, item) in old.iter().enumerate() {
        if let Some(value) = item.get(merge_key) {
            position.entry(value.to_string()).or_insert(at);
        }
    }
    for item in new {
        let Value::Object(map) = item else { return bad_type("map[string]interface {}", item) };
        let Some(value) = map.get(merge_key) else { return no_merge_key(map, merge_key) };
        match position.get(&value.to_string()) {
            Some(&at) => {
                let Value::Object(before) = old[at].take() else {
                    return fail(format!("value for key {at} is not a map"));
                };
                old[at] = Value::Object(merge_map(before, map.clone(), place)?);
            }
            None => {
                position.insert(value.to_string(), old.len());
                old.push(item.clone());
            }
        }
    }
    Ok(old)
}

/// Elements the patch names in its order, the others in the server's, merged so that both orders hold where they can.
fn in_order(
    merged: Vec<Value>,
    order: &[Value],
    server_order: &[Value],
    merge_key: &str,
) -> Result<Vec<Value>, PatchError> {
    let positions = |list: &[Value]| -> Result<HashMap<String, usize>, PatchError> {
        let mut map = HashMap::with_capacity(list.len());
        for (at, item) in list.iter().enumerate() {
            map.entry(identity(item, merge_key)?).or_insert(at);
        }
        Ok(map)
    };
    let wanted = positions(order)?;
    let server = positions(server_order)?;
    let mut from_patch = Vec::new();
    let mut server_only = Vec::new();
    for item in merged {
        let id = identity(&item, merge_key)?;
        let at_server = server.get(&id).copied();
        match wanted.get(&id) {
            Some(&at) => from_patch.push((at, at_server, item)),
            None => server_only.push((at_server.unwrap_or(0), at_server, item)),
        }
    }
    from_patch.sort_by_key(|(at, ..)| *at);
    server_only.sort_by_key(|(at, ..)| *at);
    let mut out = Vec::with_capacity(from_patch.len() + server_only.len());
    let mut left = server_only.into_iter().peekable();
    let mut right = from_patch.into_iter().peekable();
    loop {
        let take_left = match (left.peek(), right.peek()) {
            (None, None) => return Ok(out),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((_, l, _)), Some((_, r, _))) => matches!((l, r), (Some(l), Some(r)) if l < r),
        };
        let next = if take_left { left.next() } else { right.next() };
        out.extend(next.map(|(.., item)| item));
    }
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// The value without maps that carry `$patch`; `None` if it is one itself.
fn remove_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(PATCH) => None,
        Value::Object(map) => Some(Value::Object(
            map.into_iter().filter_map(|(k, v)| Some((k, remove_directives(v)?))).collect(),
        )),
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(remove_directives).collect())),
        other => Some(other),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
