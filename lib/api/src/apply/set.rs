//! A set of paths, as a tree of sorted elements.
//!
//! What always holds: elements of one level are sorted and unique, and an entry that is not a member has children.

use std::fmt;

use super::element::PathElement;
use super::shape::Shape;

/// A set of paths. The root itself is never a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    entries: Vec<Entry>,
}

/// One element with what lies below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub element: PathElement,
    /// Whether the path that ends here is in the set.
    pub member: bool,
    pub children: Set,
}

impl Set {
    pub const fn new() -> Set {
        Set { entries: Vec::new() }
    }

    /// Of paths.
    pub fn of(paths: impl IntoIterator<Item = Vec<PathElement>>) -> Set {
        let mut set = Set::new();
        paths.into_iter().for_each(|path| set.insert(&path));
        set
    }

    /// Of one path of field names.
    pub fn field_path(names: &[&str]) -> Set {
        let path: Vec<PathElement> = names.iter().map(|name| PathElement::field(name)).collect();
        Set::of([path])
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number of paths.
    pub fn len(&self) -> usize {
        self.entries.iter().map(|entry| usize::from(entry.member) + entry.children.len()).sum()
    }

    fn position(&self, element: &PathElement) -> Result<usize, usize> {
        match self.entries.last() {
            None => Err(0),
            Some(last) if last.element < *element => Err(self.entries.len()),
            _ => self.entries.binary_search_by(|entry| entry.element.cmp(element)),
        }
    }

    /// The entry of the element.
    pub fn get(&self, element: &PathElement) -> Option<&Entry> {
        self.position(element).ok().map(|at| &self.entries[at])
    }

    /// Whether the element alone is a member.
    pub fn has_member(&self, element: &PathElement) -> bool {
        self.get(element).is_some_and(|entry| entry.member)
    }

    /// What lies below the element, where something does.
    pub fn below(&self, element: &PathElement) -> Option<&Set> {
        self.get(element).map(|entry| &entry.children).filter(|children| !children.is_empty())
    }

    /// Whether the path is in the set.
    pub fn has(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.has_member(last),
            [first, rest @ ..] => self.get(first).is_some_and(|entry| entry.children.has(rest)),
        }
    }

    /// Adds a path; the empty path changes nothing.
    pub fn insert(&mut self, path: &[PathElement]) {
        let Some((first, rest)) = path.split_first() else { return };
        let at = match self.position(first) {
            Ok(at) => at,
            Err(at) => {
                let entry = Entry { element: first.clone(), member: false, children: Set::new() };
                self.put(at, entry);
                at
            }
        };
        if rest.is_empty() {
            self.entries[at].member = true;
        } else {
            self.entries[at].children.insert(rest);
        }
    }

    fn put(&mut self, at: usize, entry: Entry) {
        if self.entries.is_empty() {
            // Many a level has one entry; by itself a vector would begin with room for four.
            self.entries.reserve_exact(1);
        }
        self.entries.insert(at, entry);
    }

    /// Adds an element with what lies below it, uniting it with what is there.
    pub fn add(&mut self, element: PathElement, member: bool, children: Set) {
        if !member && children.is_empty() {
            return;
        }
        match self.position(&element) {
            Ok(at) => {
                let entry = &mut self.entries[at];
                entry.member |= member;
                let known = std::mem::take(&mut entry.children);
                entry.children = known.union(children);
            }
            Err(at) => self.put(at, Entry { element, member, children }),
        }
    }

    /// All paths of either.
    pub fn union(self, other: Set) -> Set {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        let mut out = Vec::with_capacity(self.entries.len().max(other.entries.len()));
        let mut left = self.entries.into_iter().peekable();
        let mut right = other.entries.into_iter().peekable();
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            match a.element.cmp(&b.element) {
                std::cmp::Ordering::Less => out.extend(left.next()),
                std::cmp::Ordering::Greater => out.extend(right.next()),
                std::cmp::Ordering::Equal => {
                    if let (Some(a), Some(b)) = (left.next(), right.next()) {
                        out.push(Entry {
                            element: a.element,
                            member: a.member || b.member,
                            children: a.children.union(b.children),
                        });
                    }
                }
            }
        }
        out.extend(left);
        out.extend(right);
        Set { entries: out }
    }

    /// The paths of both.
    pub fn intersection(&self, other: &Set) -> Set {
        self.paired(other, |a, b| Entry {
            element: a.element.clone(),
            member: a.member && b.member,
            children: a.children.intersection(&b.children),
        })
    }

    /// The paths that the other set lacks.
    pub fn difference(&self, other: &Set) -> Set {
        self.clone().without(other)
    }

    /// As [`Set::difference`]; with a member of the other set all that lies below it goes.
    pub fn recursive_difference(&self, other: &Set) -> Set {
        self.clone().without_all_below(other)
    }

    /// As [`Set::difference`], in place.
    pub fn without(mut self, other: &Set) -> Set {
        self.take_away(other, false);
        self
    }

    /// As [`Set::recursive_difference`], in place.
    pub fn without_all_below(mut self, other: &Set) -> Set {
        self.take_away(other, true);
        self
    }

    fn take_away(&mut self, other: &Set, all_below: bool) {
        if self.is_empty() || other.is_empty() {
            return;
        }
        let mut theirs = other.entries.iter().peekable();
        self.entries.retain_mut(|entry| {
            while theirs.next_if(|their| their.element < entry.element).is_some() {}
            let Some(their) = theirs.next_if(|their| their.element == entry.element) else { return true };
            entry.member &= !their.member;
            if their.member && all_below {
                return false;
            }
            entry.children.take_away(&their.children, all_below);
            entry.member || !entry.children.is_empty()
        });
    }

    /// Our entries with the other's of the same element.
    fn paired(&self, other: &Set, pair: impl Fn(&Entry, &Entry) -> Entry) -> Set {
        let mut out = Vec::new();
        let mut theirs = other.entries.iter().peekable();
        for entry in &self.entries {
            while theirs.next_if(|their| their.element < entry.element).is_some() {}
            if let Some(their) = theirs.next_if(|their| their.element == entry.element) {
                let made = pair(entry, their);
                if made.member || !made.children.is_empty() {
                    out.push(made);
                }
            }
        }
        Set { entries: out }
    }

    /// Whether every path is in the other set too.
    pub fn is_subset(&self, other: &Set) -> bool {
        let mut theirs = other.entries.iter().peekable();
        self.entries.iter().all(|entry| {
            while theirs.next_if(|their| their.element < entry.element).is_some() {}
            theirs.next_if(|their| their.element == entry.element).is_some_and(|their| {
                (their.member || !entry.member) && entry.children.is_subset(&their.children)
            })
        })
    }

    /// Whether any path is in both.
    pub fn intersects(&self, other: &Set) -> bool {
        let mut theirs = other.entries.iter().peekable();
        self.entries.iter().any(|entry| {
            while theirs.next_if(|their| their.element < entry.element).is_some() {}
            theirs.next_if(|their| their.element == entry.element).is_some_and(|their| {
                (entry.member && their.member) || entry.children.intersects(&their.children)
            })
        })
    }

    /// Members without members below them.
    pub fn leaves(&self) -> Set {
        let leaf = |entry: &Entry| Entry {
            element: entry.element.clone(),
            member: entry.member && entry.children.is_empty(),
            children: entry.children.leaves(),
        };
        Set { entries: self.entries.iter().map(leaf).collect() }
    }

    /// The set with every declared field that has members below it as a member too.
    pub fn with_named_fields(mut self, shape: Option<Shape<'_>>) -> Set {
        self.name_fields(shape);
        self
    }

    fn name_fields(&mut self, shape: Option<Shape<'_>>) {
        let atom = shape.map(Shape::atom);
        for entry in self.entries.iter_mut().filter(|entry| !entry.children.is_empty()) {
            let mut below = None;
            match (&entry.element, &atom) {
                (PathElement::Field(name), Some(atom)) => {
                    if let Some(map) = &atom.map {
                        let declared = map.field(name);
                        entry.member |= declared.is_some();
                        below = declared.or(map.element);
                    }
                }
                (PathElement::Key(_), Some(atom)) => below = atom.list.map(|list| list.element),
                _ => {}
            }
            entry.children.name_fields(below);
        }
    }

    /// What a matcher lets through.
    pub fn matching(&self, matcher: &Matcher) -> Set {
        let Matcher::Some(members) = matcher else { return self.clone() };
        let mut out = Vec::new();
        for entry in &self.entries {
            let found = members
                .iter()
                .find(|(element, _)| element.as_ref().is_none_or(|element| *element == entry.element));
            let Some((_, below)) = found else { continue };
            let children = entry.children.matching(below);
            if entry.member || !children.is_empty() {
                out.push(Entry { element: entry.element.clone(), member: entry.member, children });
            }
        }
        Set { entries: out }
    }

    /// Calls with every path: those of a level first, then what lies below them.
    pub fn each(&self, mut with: impl FnMut(&[PathElement])) {
        self.each_below(&mut Vec::new(), &mut with);
    }

    fn each_below(&self, path: &mut Vec<PathElement>, with: &mut dyn FnMut(&[PathElement])) {
        for entry in self.entries.iter().filter(|entry| entry.member) {
            path.push(entry.element.clone());
            with(path);
            path.pop();
        }
        for entry in &self.entries {
            if !entry.children.is_empty() {
                path.push(entry.element.clone());
                entry.children.each_below(path, with);
                path.pop();
            }
        }
    }

    /// All paths, in the order of [`Set::each`].
    pub fn paths(&self) -> Vec<Vec<PathElement>> {
        let mut out = Vec::new();
        self.each(|path| out.push(path.to_vec()));
        out
    }
}

/// A path as messages write it: `.spec.containers[name="a"].image`.
pub fn path_text(path: &[PathElement]) -> String {
    path.iter().map(ToString::to_string).collect()
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.paths().iter().map(|path| path_text(path)).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Which paths to keep, by prefix; `None` stands for any element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matcher {
    All,
    Some(Vec<(Option<PathElement>, Matcher)>),
}

impl Matcher {
    /// What lies at or below a path.
    pub fn prefix(path: Vec<Option<PathElement>>) -> Matcher {
        path.into_iter().rev().fold(Matcher::All, |below, element| Matcher::Some(vec![(element, below)]))
    }

    /// What either lets through. Where an element and "any" both fit, "any" alone decides what lies below.
    pub fn merge(self, other: Matcher) -> Matcher {
        let (Matcher::Some(mut ours), Matcher::Some(theirs)) = (self, other) else { return Matcher::All };
        for (element, below) in theirs {
            match ours.iter().position(|(known, _)| *known == element) {
                Some(at) => {
                    let known = std::mem::replace(&mut ours[at].1, Matcher::All);
                    ours[at].1 = known.merge(below);
                }
                None => ours.push((element, below)),
            }
        }
        // `None` sorts first, as upstream's wildcards do.
        ours.sort_by(|a, b| a.0.cmp(&b.0));
        Matcher::Some(ours)
    }
}

/// Which of an object's fields a request may own.
#[derive(Clone, Debug)]
pub enum Filter {
    /// All but these and what lies below them.
    Exclude(Set),
    /// None but these.
    Include(Matcher),
}

impl Filter {
    pub fn apply(&self, set: Set) -> Set {
        match self {
            _ if set.is_empty() => set,
            Filter::Exclude(excluded) => set.without_all_below(excluded),
            Filter::Include(matcher) => set.matching(matcher),
        }
    }
}
