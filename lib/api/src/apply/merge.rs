//! A configuration laid over an object.

use std::collections::BTreeMap;

use super::element::PathElement;
use super::list::{ItemError, item_element};
use super::shape::{List, Map, Relation, Shape};
use super::view::{Case, View, parsed};
use crate::doc::{self, Value};

/// Why two values cannot be merged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    #[error("element {0}: {1}")]
    Item(usize, ItemError),
    #[error("duplicate entries for key {0}")]
    Duplicate(String),
}

/// Merges: nothing is removed, a leaf both have is the configuration's, lists keep the live order where the
/// configuration says nothing else. The result is untyped.
pub fn merge(live: View<'_>, config: View<'_>, shape: Shape<'_>) -> Result<Value, MergeError> {
    Ok(node(Some(live), Some(config), shape)?.unwrap_or(Value::Null))
}

fn node(
    live: Option<View<'_>>,
    config: Option<View<'_>>,
    shape: Shape<'_>,
) -> Result<Option<Value>, MergeError> {
    if let Some(text) = live.and_then(View::as_raw) {
        return node(Some(View::Value(&parsed(text))), config, shape);
    }
    if let Some(text) = config.and_then(View::as_raw) {
        return node(live, Some(View::Value(&parsed(text))), shape);
    }
    let Some(any) = config.or(live) else { return Ok(None) };
    let leaf = || Ok(Some(any.to_untyped()));
    let atom = shape.atom();
    match any.case(&atom) {
        Case::Scalar(_) => leaf(),
        Case::List(list) => {
            let items = |view: Option<View<'_>>| view.and_then(View::as_list).is_some_and(|l| !l.is_empty());
            if list.relation == Relation::Atomic || (!items(live) && !items(config)) {
                return leaf();
            }
            merge_list(&list, items_of(live), items_of(config))
        }
        Case::Map(map) => {
            let some = |view: Option<View<'_>>| view.is_some_and(|v| v.is_map() && !v.is_empty_map());
            if map.atomic || (!some(live) && !some(config)) {
                return leaf();
            }
            merge_map(&map, live, config)
        }
        Case::None => Ok(None),
    }
}

fn items_of(view: Option<View<'_>>) -> &[Value] {
    view.and_then(View::as_list).unwrap_or(&[])
}

fn map_of(view: Option<View<'_>>) -> Option<View<'_>> {
    view.filter(|view| view.is_map())
}

fn merge_map(
    map: &Map<'_>,
    live: Option<View<'_>>,
    config: Option<View<'_>>,
) -> Result<Option<Value>, MergeError> {
    let mut out: Vec<(compact_str::CompactString, Value)> = Vec::new();
    let (live, config) = (map_of(live), map_of(config));
    let mut left = live.into_iter().flat_map(|view| view.members(map)).peekable();
    let mut right = config.into_iter().flat_map(|view| view.members(map)).peekable();
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => a.name.as_str().cmp(b.name.as_str()),
        };
        let a = if order.is_le() { left.next() } else { None };
        let b = if order.is_ge() { right.next() } else { None };
        let Some(any) = b.as_ref().or(a.as_ref()) else { break };
        let Some(shape) = any.shape else { continue };
        let merged = node(a.as_ref().map(|m| m.view), b.as_ref().map(|m| m.view), shape)?;
        if let Some(merged) = merged {
            out.push((any.name.as_str().into(), merged));
        }
    }
    if out.is_empty() {
        return Ok(None);
    }
    let merged: doc::Map = out.into_iter().collect();
    Ok(Some(Value::Map(merged)))
}

/// A list's items by their elements.
struct Index<'v> {
    elements: Vec<PathElement>,
    /// `None`: several items have this element.
    found: BTreeMap<PathElement, Option<&'v Value>>,
}

impl<'v> Index<'v> {
    fn of(list: &List<'_>, items: &'v [Value], twice: bool) -> Result<Index<'v>, MergeError> {
        let mut elements = Vec::with_capacity(items.len());
        let mut found: BTreeMap<PathElement, Option<&'v Value>> = BTreeMap::new();
        for (at, item) in items.iter().enumerate() {
            let element =
                item_element(list, View::Value(item)).map_err(|error| MergeError::Item(at, error))?;
            if let Some(known) = found.get_mut(&element) {
                if !twice {
                    return Err(MergeError::Duplicate(element.to_string()));
                }
                *known = None;
            } else {
                found.insert(element.clone(), Some(item));
            }
            elements.push(element);
        }
        Ok(Index { elements, found })
    }

    fn has(&self, element: &PathElement) -> bool {
        self.found.contains_key(element)
    }

    /// The item; null for one of several.
    fn view(&self, element: &PathElement) -> Option<View<'v>> {
        static NULL: Value = Value::Null;
        self.found.get(element).map(|item| View::Value(item.unwrap_or(&NULL)))
    }
}

/// Items of the live list alone stay where they are; shared and new ones come in the configuration's order.
fn merge_list(list: &List<'_>, live: &[Value], config: &[Value]) -> Result<Option<Value>, MergeError> {
    let theirs = Index::of(list, config, false)?;
    let ours = Index::of(list, live, true)?;
    let mut shared = theirs.elements.iter().filter(|element| ours.has(element)).peekable();
    let mut merged: std::collections::BTreeSet<&PathElement> = std::collections::BTreeSet::new();
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let (mut l, mut r) = (0, 0);
    while l < ours.elements.len() || r < theirs.elements.len() {
        if let (Some(ours_next), Some(theirs_next)) = (ours.elements.get(l), theirs.elements.get(r)) {
            if ours_next == theirs_next {
                merged.insert(ours_next);
                out.extend(node(ours.view(ours_next), theirs.view(ours_next), list.element)?);
                l += 1;
                r += 1;
                shared.next();
                continue;
            }
            let wanted = shared.peek().copied();
            if theirs.has(ours_next) && wanted.is_some_and(|wanted| wanted != ours_next) {
                // A shared item whose turn comes later.
                l += 1;
                continue;
            }
        }
        if let Some(element) = ours.elements.get(l) {
            if !theirs.has(element) {
                out.extend(node(Some(View::Value(&live[l])), None, list.element)?);
                l += 1;
                continue;
            }
            if merged.contains(element) {
                l += 1;
            }
        }
        if let Some(element) = theirs.elements.get(r) {
            merged.insert(element);
            out.extend(node(ours.view(element), theirs.view(element), list.element)?);
            r += 1;
            if shared.peek().is_some_and(|wanted| *wanted == element) {
                shared.next();
            }
        }
    }
    Ok((!out.is_empty()).then_some(Value::List(out)))
}
