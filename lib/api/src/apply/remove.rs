//! Parts of an object taken away, or alone kept, by a set of paths.

use super::element::PathElement;
use super::field_set::field_set;
use super::list::item_element;
use super::set::Set;
use super::shape::{List, Map, Relation, Shape};
use super::view::{Case, View, parsed};
use crate::doc::Value;

/// The value without the members of the set. The result is untyped; what nothing is left of is null.
pub fn remove(view: View<'_>, set: &Set, shape: Shape<'_>) -> Value {
    node(view, set, shape, false)
}

/// Only the members of the set.
pub fn extract(view: View<'_>, set: &Set, shape: Shape<'_>) -> Value {
    node(view, set, shape, true)
}

/// As [`extract`], with the key fields of every list item on the way.
pub fn extract_with_keys(view: View<'_>, set: &Set, shape: Shape<'_>) -> Value {
    let mut keys = Set::new();
    if let Ok(present) = field_set(view, shape) {
        set.each(|path| {
            if !present.has(path) {
                return;
            }
            for (at, element) in path.iter().enumerate() {
                let PathElement::Key(fields) = element else { continue };
                for (name, _) in fields {
                    let mut key = path[..=at].to_vec();
                    key.push(PathElement::Field(name.clone()));
                    keys.insert(&key);
                }
            }
        });
    }
    extract(view, &set.clone().union(keys), shape)
}

fn node(view: View<'_>, set: &Set, shape: Shape<'_>, keep: bool) -> Value {
    if let Some(text) = view.as_raw() {
        return node(View::Value(&parsed(text)), set, shape, keep);
    }
    let atomic = |keep: bool| if keep { view.to_untyped() } else { Value::Null };
    match view.case(&shape.atom()) {
        Case::Scalar(_) => view.to_untyped(),
        Case::List(list) => match view.as_list() {
            None => Value::Null,
            Some(items) if items.is_empty() || list.relation == Relation::Atomic => atomic(keep),
            Some(items) => items_of(items, set, &list, keep),
        },
        Case::Map(map) => {
            if !view.is_map() {
                Value::Null
            } else if map.atomic || view.is_empty_map() {
                atomic(keep)
            } else {
                members_of(view, set, &map, keep)
            }
        }
        Case::None => Value::Null,
    }
}

fn items_of(items: &[Value], set: &Set, list: &List<'_>, keep: bool) -> Value {
    let mut out = Vec::new();
    for item in items {
        let entry = item_element(list, View::Value(item)).ok().and_then(|element| set.get(&element));
        let member = entry.is_some_and(|entry| entry.member);
        let below = entry.map(|entry| &entry.children).filter(|children| !children.is_empty());
        let wanted = if keep { member || below.is_some() } else { !member };
        if wanted {
            out.push(match below {
                Some(below) => node(View::Value(item), below, list.element, keep),
                None => View::Value(item).to_untyped(),
            });
        }
    }
    if out.is_empty() { Value::Null } else { Value::List(out) }
}

fn members_of(view: View<'_>, set: &Set, map: &Map<'_>, keep: bool) -> Value {
    let mut out: Vec<(compact_str::CompactString, Value)> = Vec::new();
    for member in view.members(map) {
        let entry = set.get(&member.name.element());
        let shape = member.shape.unwrap_or(Shape::Whole);
        let below = entry.map(|entry| &entry.children).filter(|children| !children.is_empty());
        let value = if entry.is_some_and(|entry| entry.member) {
            if !keep {
                continue;
            }
            // As upstream: a member's own parts are looked for among its siblings' paths.
            node(member.view, set, shape, true)
        } else if let Some(below) = below {
            node(member.view, below, shape, keep)
        } else if keep {
            continue;
        } else {
            member.view.to_untyped()
        };
        out.push((member.name.as_str().into(), value));
    }
    if out.is_empty() { Value::Null } else { Value::Map(out.into_iter().collect()) }
}
