//! What changed between two versions of an object.

use super::element::PathElement;
use super::list::{ItemError, sorted_items};
use super::set::{Filter, Set};
use super::shape::{Atom, List, Map, Relation, Shape};
use super::view::{Case, Member, View, parsed, same};
use crate::doc::Value;

/// The fields that differ; no path is in more than one of the sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub removed: Set,
    /// In both, with other values.
    pub modified: Set,
    pub added: Set,
}

impl Comparison {
    pub fn is_same(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// What a filter lets through of each.
    pub fn filtered(self, filter: Option<&Filter>) -> Comparison {
        let Some(filter) = filter else { return self };
        Comparison {
            removed: filter.apply(self.removed),
            modified: filter.apply(self.modified),
            added: filter.apply(self.added),
        }
    }

    fn unite(&mut self, other: Comparison) {
        let join = |a: &mut Set, b: Set| *a = std::mem::take(a).union(b);
        join(&mut self.removed, other.removed);
        join(&mut self.modified, other.modified);
        join(&mut self.added, other.added);
    }
}

/// Compares two values of a shape.
pub fn compare(old: View<'_>, new: View<'_>, shape: Shape<'_>) -> Result<Comparison, ItemError> {
    Ok(node(Some(old), Some(new), shape)?.below)
}

/// What a value adds to nothing: every place of it.
pub fn all_fields(view: View<'_>, shape: Shape<'_>) -> Result<Set, ItemError> {
    whole(view, shape)
}

/// What happened to a place itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    None,
    Removed,
    Modified,
    Added,
}

struct Change {
    mark: Mark,
    below: Comparison,
}

impl Change {
    fn of(mark: Mark) -> Change {
        Change { mark, below: Comparison::default() }
    }

    /// Puts the place into the sets of the one above.
    fn put(self, element: PathElement, into: &mut Comparison) {
        let sets = [
            (&mut into.removed, self.below.removed, Mark::Removed),
            (&mut into.modified, self.below.modified, Mark::Modified),
            (&mut into.added, self.below.added, Mark::Added),
        ];
        for (set, children, mark) in sets {
            let member = self.mark == mark;
            if member || !children.is_empty() {
                set.add(element.clone(), member, children);
            }
        }
    }
}

fn node(old: Option<View<'_>>, new: Option<View<'_>>, shape: Shape<'_>) -> Result<Change, ItemError> {
    match (old, new) {
        (None, None) => Ok(Change::of(Mark::None)),
        (None, Some(new)) => {
            let below = Comparison { added: whole(new, shape)?, ..Comparison::default() };
            Ok(Change { mark: Mark::Added, below })
        }
        (Some(old), None) => {
            let below = Comparison { removed: whole(old, shape)?, ..Comparison::default() };
            Ok(Change { mark: Mark::Removed, below })
        }
        (Some(old), Some(new)) => both(old, new, shape),
    }
}

fn both(old: View<'_>, new: View<'_>, shape: Shape<'_>) -> Result<Change, ItemError> {
    if let (Some(a), Some(b)) = (old.as_raw(), new.as_raw())
        && a == b
    {
        return Ok(Change::of(Mark::None));
    }
    if let Some(text) = old.as_raw() {
        return both(View::Value(&parsed(text)), new, shape);
    }
    if let Some(text) = new.as_raw() {
        return both(old, View::Value(&parsed(text)), shape);
    }
    let atom = shape.atom();
    let case = new.case(&atom);
    let mut change = as_case(old, new, &case)?;
    if !same_choice(old, new, &atom) {
        // The value changed its kind: what it was goes as what it was.
        let before = as_case(old, new, &old.case(&atom))?;
        change.below.unite(before.below);
        if change.mark == Mark::None {
            change.mark = before.mark;
        }
    }
    Ok(change)
}

/// Whether both values leave the same things open.
fn same_choice(old: View<'_>, new: View<'_>, atom: &Atom<'_>) -> bool {
    let open = |view: View<'_>| {
        if view.decides(atom) { Some(std::mem::discriminant(&view.case(atom))) } else { None }
    };
    open(old) == open(new)
}

fn leaf(old: View<'_>, new: View<'_>) -> Change {
    Change::of(if same(old, new) { Mark::None } else { Mark::Modified })
}

fn as_case(old: View<'_>, new: View<'_>, case: &Case<'_>) -> Result<Change, ItemError> {
    match case {
        Case::Scalar(_) => Ok(leaf(old, new)),
        Case::List(list) => {
            let (a, b) = (old.as_list().unwrap_or(&[]), new.as_list().unwrap_or(&[]));
            if list.relation == Relation::Atomic || (a.is_empty() && b.is_empty()) {
                return Ok(leaf(old, new));
            }
            // Most lists of most updates are as they were, and telling so is cheaper than indexing them.
            let below = if a == b { Comparison::default() } else { items(list, a, b)? };
            Ok(Change { mark: Mark::None, below })
        }
        Case::Map(map) => {
            let some = |view: View<'_>| view.is_map() && !view.is_empty_map();
            if map.atomic || (!some(old) && !some(new)) {
                return Ok(leaf(old, new));
            }
            Ok(Change { mark: Mark::None, below: members(map, old, new)? })
        }
        Case::None => Ok(Change::of(Mark::None)),
    }
}

fn members(map: &Map<'_>, old: View<'_>, new: View<'_>) -> Result<Comparison, ItemError> {
    let mut out = Comparison::default();
    let mut left = old.members(map).peekable();
    let mut right = new.members(map).peekable();
    let one = |a: Option<Member<'_, '_>>, b: Option<Member<'_, '_>>, out: &mut Comparison| {
        let Some(any) = a.as_ref().or(b.as_ref()) else { return Ok(()) };
        let Some(shape) = any.shape else { return Ok(()) };
        let name = any.name;
        let change = node(a.as_ref().map(|m| m.view), b.as_ref().map(|m| m.view), shape)?;
        if change.mark != Mark::None || !change.below.is_same() {
            change.put(name.element(), out);
        }
        Ok::<(), ItemError>(())
    };
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        match a.name.as_str().cmp(b.name.as_str()) {
            std::cmp::Ordering::Less => one(left.next(), None, &mut out)?,
            std::cmp::Ordering::Greater => one(None, right.next(), &mut out)?,
            std::cmp::Ordering::Equal => one(left.next(), right.next(), &mut out)?,
        }
    }
    for a in left {
        one(Some(a), None, &mut out)?;
    }
    for b in right {
        one(None, Some(b), &mut out)?;
    }
    Ok(out)
}

fn items(list: &List<'_>, old: &[Value], new: &[Value]) -> Result<Comparison, ItemError> {
    let mut out = Comparison::default();
    let old = sorted_items(list, old)?;
    let new = sorted_items(list, new)?;
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        let element = match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) => (&a.0).min(&b.0).clone(),
            (Some(one), None) | (None, Some(one)) => one.0.clone(),
            (None, None) => break,
        };
        let lefts = old[i..].iter().take_while(|(other, _)| *other == element).count();
        let rights = new[j..].iter().take_while(|(other, _)| *other == element).count();
        let (before, after) = (&old[i..i + lefts], &new[j..j + rights]);
        i += lefts;
        j += rights;
        match (lefts, rights) {
            (0 | 1, 0 | 1) => {
                let a = before.first().map(|(_, value)| View::Value(value));
                let b = after.first().map(|(_, value)| View::Value(value));
                node(a, b, list.element)?.put(element, &mut out);
            }
            // Items with equal elements are one thing.
            (2.., 2..) => {
                let equal = lefts == rights
                    && before.iter().zip(after).all(|(a, b)| same(View::Value(a.1), View::Value(b.1)));
                if !equal {
                    out.modified.add(element, true, Set::new());
                }
            }
            (2.., _) => {
                if let Some((_, value)) = after.first() {
                    node(None, Some(View::Value(value)), list.element)?.put(element.clone(), &mut out);
                }
                out.removed.add(element, true, Set::new());
            }
            (_, _) => {
                if let Some((_, value)) = before.first() {
                    node(Some(View::Value(value)), None, list.element)?.put(element.clone(), &mut out);
                }
                out.added.add(element, true, Set::new());
            }
        }
    }
    Ok(out)
}

/// Everything below a place that is new or gone; the place itself counts too.
fn whole(view: View<'_>, shape: Shape<'_>) -> Result<Set, ItemError> {
    if let Some(text) = view.as_raw() {
        return whole(View::Value(&parsed(text)), shape);
    }
    let mut set = Set::new();
    let atom = shape.atom();
    match view.case(&atom) {
        Case::List(list) if list.relation == Relation::Associative => {
            let mut sorted = sorted_items(&list, view.as_list().unwrap_or(&[]))?.into_iter().peekable();
            while let Some((element, item)) = sorted.next() {
                let mut twice = false;
                while sorted.next_if(|(other, _)| *other == element).is_some() {
                    twice = true;
                }
                let children = if twice { Set::new() } else { whole(View::Value(item), list.element)? };
                set.add(element, true, children);
            }
        }
        Case::Map(map) if !map.atomic => {
            for member in view.members(&map) {
                if let Some(shape) = member.shape {
                    set.add(member.name.element(), true, whole(member.view, shape)?);
                }
            }
        }
        _ => {}
    }
    Ok(set)
}
