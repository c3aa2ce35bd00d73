//! The path elements of a list's items.

use compact_str::CompactString;

use super::element::PathElement;
use super::shape::{Fields, List, Map, Relation};
use super::view::View;
use crate::doc::Value;

/// Why an item has no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    #[error("invalid indexing of non-associative list")]
    NotAssociative,
    #[error("associative list with keys may not have a null element")]
    NullElement,
    #[error("associative list with keys may not have non-map elements")]
    NoMap,
    #[error(
        "associative list with keys has an element that omits all key fields {0} (and doesn't have default values for any key fields)"
    )]
    NoKeys(String),
    #[error("associative list without keys has an element that's a map type")]
    MapInSet,
    #[error("not supported: associative list with lists as elements")]
    ListInSet,
    #[error("associative list without keys has an element that's an explicit null")]
    NullInSet,
}

/// An item's path element.
pub fn item_element(list: &List<'_>, item: View<'_>) -> Result<PathElement, ItemError> {
    if list.relation != Relation::Associative {
        return Err(ItemError::NotAssociative);
    }
    if list.keys.is_empty() {
        return match item {
            View::Value(Value::Null | Value::Raw(_)) => Err(ItemError::NullInSet),
            View::Value(Value::List(_)) => Err(ItemError::ListInSet),
            View::Value(value) if item.is_scalar() => Ok(PathElement::Value(value.clone())),
            _ => Err(ItemError::MapInSet),
        };
    }
    if item.is_null() {
        return Err(ItemError::NullElement);
    }
    if !item.is_map() {
        return Err(ItemError::NoMap);
    }
    // A built-in type's field holds no null: what is written as one is as if it were not there, and the item is found by that
    // again. (Upstream's key has the null, and the item comes anew with each apply.)
    let typed = || matches!(list.element.atom().map, Some(Map { fields: Fields::Struct(_), .. }));
    let mut fields: Vec<(CompactString, Value)> = Vec::with_capacity(list.keys.len());
    for at in 0..list.keys.len() {
        let name = list.keys.name(at);
        let value = match item.member(&name).filter(|view| !(view.is_null() && typed())) {
            Some(view) => Some(view.to_untyped()),
            None => list.element.atom().map.and_then(|map| map.default_of(&name)),
        };
        if let Some(value) = value {
            fields.push((name, value));
        }
    }
    if fields.is_empty() {
        let names: Vec<String> = (0..list.keys.len()).map(|at| format!("{:?}", list.keys.name(at))).collect();
        return Err(ItemError::NoKeys(format!("[{}]", names.join(" "))));
    }
    Ok(PathElement::key(fields))
}

/// Items in the order of their elements; those of equal elements stay in the list's order.
pub(super) fn sorted_items<'v>(
    list: &List<'_>,
    items: &'v [Value],
) -> Result<Vec<(PathElement, &'v Value)>, ItemError> {
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        out.push((item_element(list, View::Value(item))?, item));
    }
    if !out.is_sorted_by(|a, b| a.0 <= b.0) {
        out.sort_by(|a, b| a.0.cmp(&b.0));
    }
    Ok(out)
}
