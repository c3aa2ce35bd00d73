//! Sets that were written under another schema: places that were granular then and are owned as a whole now.

use super::element::PathElement;
use super::set::{Entry, Set};
use super::shape::{Map, Relation, Shape};
use super::view::{Case, first_case};

/// The set as the schema has it now; `None` where nothing changes.
pub fn reconcile(set: &Set, shape: Shape<'_>) -> Option<Set> {
    let mut found = Set::new();
    walk(set, shape, false, &mut Vec::new(), &mut found);
    if found.is_empty() {
        return None;
    }
    Some(set.recursive_difference(&found).union(found))
}

/// Gathers the places that are atomic now and have parts in the set. `alone`: the place is a member without parts.
fn walk(set: &Set, shape: Shape<'_>, alone: bool, path: &mut Vec<PathElement>, found: &mut Set) {
    match first_case(&shape.atom()) {
        Case::List(list) => {
            if !alone && list.relation == Relation::Atomic {
                found.insert(path);
                return;
            }
            each(set, path, |entry, path, alone| {
                walk(&entry.children, list.element, alone, path, &mut *found);
            });
        }
        Case::Map(map) => {
            if map.deduced {
                return;
            }
            if !alone && map.atomic {
                if !set.is_empty() {
                    found.insert(path);
                }
                return;
            }
            each(set, path, |entry, path, alone| {
                if let Some(shape) = at(&map, &entry.element) {
                    walk(&entry.children, shape, alone, path, &mut *found);
                }
            });
        }
        Case::Scalar(_) | Case::None => {}
    }
}

fn each(set: &Set, path: &mut Vec<PathElement>, mut with: impl FnMut(&Entry, &mut Vec<PathElement>, bool)) {
    for entry in set.entries() {
        path.push(entry.element.clone());
        with(entry, path, entry.member && entry.children.is_empty());
        path.pop();
    }
}

fn at<'s>(map: &Map<'s>, element: &PathElement) -> Option<Shape<'s>> {
    match element.as_field() {
        Some(name) => map.member(name),
        None => map.element,
    }
}
