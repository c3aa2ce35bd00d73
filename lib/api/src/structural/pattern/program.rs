//! A compiled expression and how it is run: all ways at once, character by character (Thompson's simulation), so the time is
//! at most the length of the value times the length of the program. Whether there is a match is all that is asked.

use regex_syntax::hir::ClassUnicode;

use super::tables::Table;

/// One step of a program. Distances are from the step they stand in, so a part of a program can be moved and copied.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Char(char),
    /// This ASCII letter, a small one, in any case.
    Letter(char),
    Any,
    AnyInLine,
    /// One of the program's classes.
    Class(u32),
    At(Position),
    /// The next step, and the one so far away.
    Fork(i32),
    Jump(i32),
}

/// What takes no character.
#[derive(Clone, Copy, Debug)]
pub(super) enum Position {
    Start,
    End,
    LineStart,
    LineEnd,
    WordEdge,
    NoWordEdge,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Item {
    Range(char, char),
    /// A table of the program.
    Table(u32),
    NotTable(u32),
}

/// A set of characters: sorted ranges, then tables.
#[derive(Debug)]
pub(super) struct Class {
    items: Box<[Item]>,
    ranges: u32,
    negated: bool,
}

/// Ends where its steps do. Eight bytes for a step, eight for each part of a class; tables of
/// Unicode are shared.
#[derive(Debug, Default)]
pub(super) struct Program {
    pub(super) steps: Vec<Step>,
    pub(super) classes: Vec<Class>,
    pub(super) tables: Vec<Table>,
}

const _: () = assert!(size_of::<Step>() == 8 && size_of::<Item>() == 8 && size_of::<Class>() == 24);

impl Class {
    pub(super) fn new(ranges: ClassUnicode, tables: Vec<Item>, negated: bool) -> Class {
        let count = ranges.ranges().len();
        let items =
            ranges.iter().map(|range| Item::Range(range.start(), range.end())).chain(tables).collect();
        Class { items, ranges: count as u32, negated }
    }

    fn has(&self, c: char, tables: &[Table]) -> bool {
        let (ranges, named) = self.items.split_at(self.ranges as usize);
        let ordered = |item: &Item| match item {
            Item::Range(start, end) => order(*start, *end, c),
            Item::Table(_) | Item::NotTable(_) => std::cmp::Ordering::Greater,
        };
        let table = |number: u32| {
            tables[number as usize].binary_search_by(|range| order(range.start(), range.end(), c)).is_ok()
        };
        let found = ranges.binary_search_by(ordered).is_ok()
            || named.iter().any(|item| match item {
                Item::Table(number) => table(*number),
                Item::NotTable(number) => !table(*number),
                Item::Range(..) => false,
            });
        found != self.negated
    }
}

/// Where a range lies seen from a character.
fn order(start: char, end: char, c: char) -> std::cmp::Ordering {
    use std::cmp::Ordering::{Equal, Greater, Less};
    if end < c {
        Less
    } else if start > c {
        Greater
    } else {
        Equal
    }
}

/// What a run holds.
struct Run<'a> {
    program: &'a Program,
    /// The steps that were reached at the present position, as bits.
    seen: Vec<u64>,
    /// Steps still to be looked at.
    open: Vec<u32>,
}

/// A place in the value.
#[derive(Clone, Copy)]
struct Place {
    before: Option<char>,
    after: Option<char>,
}

impl Program {
    /// How much memory it takes of its own.
    pub(super) fn size(&self) -> usize {
        let classes: usize =
            self.classes.iter().map(|class| size_of::<Class>() + size_of_val(&*class.items)).sum();
        self.steps.capacity() * size_of::<Step>() + classes
    }

    /// Whether it matches anywhere in the value.
    pub(super) fn matches(&self, value: &str) -> bool {
        let mut chars = value.chars();
        let mut place = Place { before: None, after: chars.next() };
        let mut run = Run { program: self, seen: vec![0; self.steps.len() / 64 + 1], open: Vec::new() };
        let (mut now, mut next) = (Vec::new(), Vec::new());
        // Every way begins with it.
        let anchored = matches!(self.steps.first(), Some(Step::At(Position::Start)));
        if run.reach(0, place, &mut now) {
            return true;
        }
        while let Some(c) = place.after {
            place = Place { before: Some(c), after: chars.next() };
            run.seen.fill(0);
            next.clear();
            for &at in &now {
                if self.takes(self.steps[at as usize], c) && run.reach(at + 1, place, &mut next) {
                    return true;
                }
            }
            if anchored && next.is_empty() {
                return false;
            }
            if !anchored && run.reach(0, place, &mut next) {
                return true;
            }
            std::mem::swap(&mut now, &mut next);
        }
        false
    }

    fn takes(&self, step: Step, c: char) -> bool {
        match step {
            Step::Char(wanted) => c == wanted,
            Step::Letter(wanted) => {
                c.to_ascii_lowercase() == wanted
                    || matches!((wanted, c), ('k', '\u{212A}') | ('s', '\u{17F}'))
            }
            Step::Any => true,
            Step::AnyInLine => c != '\n',
            Step::Class(number) => self.classes[number as usize].has(c, &self.tables),
            Step::At(_) | Step::Fork(_) | Step::Jump(_) => false,
        }
    }
}

impl Run<'_> {
    /// Adds the steps that wait for a character, from one step on; whether the end of the program is reached.
    fn reach(&mut self, from: u32, place: Place, waiting: &mut Vec<u32>) -> bool {
        self.open.clear();
        self.open.push(from);
        while let Some(at) = self.open.pop() {
            let Some(step) = self.program.steps.get(at as usize) else { return true };
            let (word, bit) = (&mut self.seen[at as usize / 64], 1 << (at % 64));
            if *word & bit != 0 {
                continue;
            }
            *word |= bit;
            match step {
                Step::At(position) => {
                    if place.is(*position) {
                        self.open.push(at + 1);
                    }
                }
                Step::Fork(distance) => {
                    self.open.push(at.wrapping_add_signed(*distance));
                    self.open.push(at + 1);
                }
                Step::Jump(distance) => self.open.push(at.wrapping_add_signed(*distance)),
                _ => waiting.push(at),
            }
        }
        false
    }
}

impl Place {
    fn is(self, position: Position) -> bool {
        let word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        match position {
            Position::Start => self.before.is_none(),
            Position::End => self.after.is_none(),
            Position::LineStart => self.before.is_none_or(|c| c == '\n'),
            Position::LineEnd => self.after.is_none_or(|c| c == '\n'),
            Position::WordEdge => word(self.before) != word(self.after),
            Position::NoWordEdge => word(self.before) == word(self.after),
        }
    }
}
