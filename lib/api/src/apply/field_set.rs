//! The fields an object names: what an applied configuration owns.

use super::list::{ItemError, sorted_items};
use super::set::Set;
use super::shape::{List, Map, Relation, Shape};
use super::view::{Case, View, parsed};

/// Every leaf, list item and map entry of a value.
pub fn field_set(view: View<'_>, shape: Shape<'_>) -> Result<Set, ItemError> {
    below(view, shape).map(|(_, set)| set)
}

/// Whether the place itself is in the set, and what is below it.
fn below(view: View<'_>, shape: Shape<'_>) -> Result<(bool, Set), ItemError> {
    if let Some(text) = view.as_raw() {
        return below(View::Value(&parsed(text)), shape);
    }
    match view.case(&shape.atom()) {
        Case::Scalar(_) => Ok((true, Set::new())),
        Case::List(list) if list.relation == Relation::Atomic => Ok((true, Set::new())),
        Case::Map(map) if map.atomic => Ok((true, Set::new())),
        Case::List(list) => Ok((false, items(view, &list)?)),
        Case::Map(map) => Ok((false, members(view, &map)?)),
        Case::None => Ok((false, Set::new())),
    }
}

fn items(view: View<'_>, list: &List<'_>) -> Result<Set, ItemError> {
    let mut set = Set::new();
    let mut sorted = sorted_items(list, view.as_list().unwrap_or(&[]))?.into_iter().peekable();
    while let Some((element, item)) = sorted.next() {
        let mut twice = false;
        while sorted.next_if(|(other, _)| *other == element).is_some() {
            twice = true;
        }
        // Of items with equal elements nobody owns parts.
        let children = if twice { Set::new() } else { below(View::Value(item), list.element)?.1 };
        set.add(element, true, children);
    }
    Ok(set)
}

fn members(view: View<'_>, map: &Map<'_>) -> Result<Set, ItemError> {
    let mut set = Set::new();
    for member in view.members(map) {
        let (this, children) = match member.shape {
            Some(shape) => below(member.view, shape)?,
            None => (true, Set::new()),
        };
        let nothing = member.view.is_null() || (member.view.is_map() && member.view.is_empty_map());
        set.add(member.name.element(), this || nothing || !member.declared, children);
    }
    Ok(set)
}
