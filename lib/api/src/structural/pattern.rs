//! Regular expressions as Go's `regexp` reads them: its syntax, its mistakes in its words, and its linear time.
//!
//! Compiled at once while it is read, into a program of a few bytes for each character of the expression: definitions may hold
//! thousands of them, and the engine of crate `regex` takes 100 KB for one of the common ones.

mod program;
mod tables;

use std::sync::{Arc, OnceLock};

use compact_str::CompactString;
use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

use program::{Class, Item, Position, Program, Step};
use tables::{POSIX, perl_class};

/// The most steps that counted repetitions may make of an expression.
const MOST_STEPS: usize = 20_000;
/// Go's limit on a counted repetition.
const MAX_REPEAT: u32 = 1000;
/// Go's limit on nested groups.
const NEST_LIMIT: usize = 999;

/// Why an expression is none; the text is Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("error parsing regexp: {what}: `{text}`")]
    Syntax { what: &'static str, text: String },
    #[error("error parsing regexp: expression too large")]
    TooLarge,
}

/// An expression, compiled at its first use.
#[derive(Debug)]
pub struct Pattern {
    text: CompactString,
    compiled: OnceLock<Option<Program>>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

impl Clone for Pattern {
    fn clone(&self) -> Pattern {
        Pattern::new(&self.text)
    }
}

impl Pattern {
    pub fn new(text: &str) -> Pattern {
        Pattern { text: text.into(), compiled: OnceLock::new() }
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it matches anywhere in the value. An expression that is none matches nothing; definitions with such a one are
    /// refused by [`check`].
    pub fn matches(&self, value: &str) -> bool {
        let run = |program: &Option<Program>| program.as_ref().is_some_and(|program| program.matches(value));
        if let Some(program) = self.compiled.get() {
            return run(program);
        }
        let program = compile(&self.text).ok();
        let found = run(&program);
        // Short expressions of many repetitions are made anew each time: that takes no longer than running them.
        if program.as_ref().is_none_or(|program| program.size() <= 32 * self.text.len() + 1024) {
            let _ = self.compiled.set(program);
        }
        found
    }
}

/// Whether the expression is one, within the limits.
pub fn check(text: &str) -> Result<(), PatternError> {
    compile(text).map(|_| ())
}

fn compile(text: &str) -> Result<Program, PatternError> {
    Compiler::new(text).run()
}

/// Switches of an expression.
#[derive(Clone, Copy, Default)]
struct Flags {
    /// `i`: in any case.
    fold: bool,
    /// `m`: `^` and `$` are those of lines.
    lines: bool,
    /// `s`: `.` is also an end of a line.
    dot_all: bool,
}

/// A group that is open, or the whole expression.
#[derive(Clone, Copy, Default)]
struct Group {
    /// Where its steps begin, and those of its present alternative.
    start: u32,
    alternative: u32,
    /// How many jumps were open before it.
    jumps: u32,
    /// How often what stands in it is repeated at most.
    most: u32,
    /// The flags around it.
    flags: Flags,
}

struct Compiler<'a> {
    text: &'a str,
    at: usize,
    program: Program,
    flags: Flags,
    /// Around the present group.
    open: Vec<Group>,
    group: Group,
    /// From the ends of alternatives to the ends of their groups.
    jumps: Vec<u32>,
    /// How often what was written last repeats what stands in it.
    weight: u32,
    /// Where what can be repeated begins.
    atom: Option<usize>,
    /// Where the last repetition operator began, if nothing came since.
    repeated: Option<usize>,
}

impl<'a> Compiler<'a> {
    fn new(text: &'a str) -> Compiler<'a> {
        Compiler {
            text,
            at: 0,
            program: Program::default(),
            flags: Flags::default(),
            open: Vec::new(),
            group: Group { most: 1, ..Group::default() },
            jumps: Vec::new(),
            weight: 1,
            atom: None,
            repeated: None,
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn fail<T>(&self, what: &'static str, text: &str) -> Result<T, PatternError> {
        Err(PatternError::Syntax { what, text: text.to_owned() })
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.rest().chars().next()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn push(&mut self, step: Step) {
        self.atom = Some(self.program.steps.len());
        self.program.steps.push(step);
        self.repeated = None;
        self.weight = 1;
    }

    fn push_class(&mut self, class: Class) {
        self.push(Step::Class(self.program.classes.len() as u32));
        self.program.classes.push(class);
    }

    fn push_literal(&mut self, c: char) {
        if !self.flags.fold {
            return self.push(Step::Char(c));
        }
        if c.is_ascii_alphabetic() {
            return self.push(Step::Letter(c.to_ascii_lowercase()));
        }
        let folded = self.folded([(c, c)]);
        match folded.ranges() {
            [one] if one.start() == one.end() => self.push(Step::Char(c)),
            _ => self.push_class(Class::new(folded, Vec::new(), false)),
        }
    }

    /// A class of ranges, in any case where that is asked for.
    fn folded(&self, ranges: impl IntoIterator<Item = (char, char)>) -> ClassUnicode {
        let ranges = ranges.into_iter().map(|(start, end)| ClassUnicodeRange::new(start, end));
        let mut class = ClassUnicode::new(ranges);
        if self.flags.fold {
            class.case_fold_simple();
        }
        class
    }

    fn run(mut self) -> Result<Program, PatternError> {
        while let Some(c) = self.rest().chars().next() {
            match c {
                '(' => self.group()?,
                ')' => {
                    let Some(around) = self.open.pop() else {
                        return self.fail("unexpected )", self.text);
                    };
                    self.at += 1;
                    self.end_group();
                    let inner = std::mem::replace(&mut self.group, around);
                    self.flags = inner.flags;
                    self.atom = Some(inner.start as usize);
                    self.repeated = None;
                    self.weight = inner.most;
                    self.group.most = self.group.most.max(inner.most);
                }
                '|' => {
                    self.at += 1;
                    self.end_alternative();
                }
                '*' | '+' | '?' => {
                    let start = self.at;
                    self.at += 1;
                    let atom = self.repetition(start)?;
                    self.repeat(atom, u32::from(c == '+'), (c == '?').then_some(1))?;
                }
                '{' => self.counted()?,
                '[' => self.class()?,
                '\\' => self.escape()?,
                '^' | '$' | '.' => {
                    self.at += 1;
                    self.push(match (c, self.flags) {
                        ('^', Flags { lines: true, .. }) => Step::At(Position::LineStart),
                        ('^', _) => Step::At(Position::Start),
                        ('$', Flags { lines: true, .. }) => Step::At(Position::LineEnd),
                        ('$', _) => Step::At(Position::End),
                        (_, Flags { dot_all: true, .. }) => Step::Any,
                        _ => Step::AnyInLine,
                    });
                }
                c => {
                    self.at += c.len_utf8();
                    self.push_literal(c);
                }
            }
        }
        if !self.open.is_empty() {
            return self.fail("missing closing )", self.text);
        }
        self.end_group();
        self.program.steps.shrink_to_fit();
        self.program.classes.shrink_to_fit();
        Ok(self.program)
    }

    /// After an alternative of the present group: another one is to come.
    fn end_alternative(&mut self) {
        let start = self.group.alternative as usize;
        let length = self.program.steps.len() - start;
        self.program.steps.insert(start, Step::Fork(length as i32 + 2));
        self.jumps.push(self.program.steps.len() as u32);
        self.program.steps.push(Step::Jump(0));
        self.group.alternative = self.program.steps.len() as u32;
        (self.atom, self.repeated) = (None, None);
    }

    /// Leads all alternatives of the present group to its end.
    fn end_group(&mut self) {
        let end = self.program.steps.len();
        for from in self.jumps.drain(self.group.jumps as usize..) {
            self.program.steps[from as usize] = Step::Jump(end as i32 - from as i32);
        }
    }

    /// The operator stands between `start` and the cursor; tells where what it repeats begins.
    fn repetition(&mut self, start: usize) -> Result<usize, PatternError> {
        if self.rest().starts_with('?') {
            self.at += 1;
        }
        if let Some(first) = self.repeated {
            return self.fail("invalid nested repetition operator", &self.text[first..self.at]);
        }
        let Some(atom) = self.atom else {
            return self.fail("missing argument to repetition operator", &self.text[start..self.at]);
        };
        self.repeated = Some(start);
        Ok(atom)
    }

    /// Repeats the steps from `atom` on, at least and at most so often.
    fn repeat(&mut self, atom: usize, low: u32, high: Option<u32>) -> Result<(), PatternError> {
        let steps = &mut self.program.steps;
        let length = steps.len() - atom;
        let (low, optional) = (low as usize, high.map(|high| (high - low) as usize));
        // Steps of the program when this is done.
        let copies = low * length + optional.map_or(length + 2, |times| times * (length + 1));
        if atom + copies > 2 * self.text.len() + MOST_STEPS {
            return Err(PatternError::TooLarge);
        }
        let one = match (low, optional) {
            // The common ones need no copy.
            (1, Some(0)) => return Ok(()),
            (0, Some(1)) => return Ok(steps.insert(atom, Step::Fork(length as i32 + 1))),
            (0, None) => {
                steps.insert(atom, Step::Fork(length as i32 + 2));
                return Ok(steps.push(Step::Jump(-(length as i32) - 1)));
            }
            (1, None) => return Ok(steps.push(Step::Fork(-(length as i32)))),
            _ => steps.split_off(atom),
        };
        steps.reserve_exact(copies);
        for _ in 0..low {
            steps.extend_from_slice(&one);
        }
        match optional {
            None => steps.push(Step::Fork(-(length as i32))),
            Some(times) => {
                for _ in 0..times {
                    steps.push(Step::Fork(length as i32 + 1));
                    steps.extend_from_slice(&one);
                }
            }
        }
        Ok(())
    }

    fn counted(&mut self) -> Result<(), PatternError> {
        let start = self.at;
        let Some((length, low, high)) = bounds(self.rest()) else {
            self.at += 1;
            self.push_literal('{');
            return Ok(());
        };
        self.at += length;
        let too_many = |n: u32| n > MAX_REPEAT;
        if too_many(low) || high.is_some_and(|high| too_many(high) || high < low) {
            return self.fail("invalid repeat count", &self.text[start..self.at]);
        }
        // Repetitions within repetitions multiply.
        let times = high.unwrap_or(low).max(1);
        let operator = self.at;
        let atom = self.repetition(start)?;
        self.weight = self.weight.saturating_mul(times);
        if self.weight > MAX_REPEAT {
            return self.fail("invalid repeat count", &self.text[start..operator]);
        }
        self.group.most = self.group.most.max(self.weight);
        self.repeat(atom, low, high)
    }

    fn group(&mut self) -> Result<(), PatternError> {
        let mut within = self.flags;
        if self.rest().starts_with("(?P<") || self.rest().starts_with("(?<") {
            let Some(end) = self.rest().find('>') else {
                return self.fail("invalid named capture", self.rest());
            };
            let whole = &self.rest()[..=end];
            let name = whole.trim_start_matches("(?P<").trim_start_matches("(?<").trim_end_matches('>');
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(word) {
                return self.fail("invalid named capture", whole);
            }
            self.at += whole.len();
        } else if self.rest().starts_with("(?") {
            let end = self.rest().find([':', ')']).unwrap_or(self.rest().len());
            let flags = &self.rest()[2..end];
            let (on, off) = flags.split_once('-').map_or((flags, None), |(on, off)| (on, Some(off)));
            let known = |all: &str| all.chars().all(|c| matches!(c, 'i' | 'm' | 's' | 'U'));
            if flags.is_empty() && self.rest()[end..].starts_with(')') {
                // Switches nothing.
                self.at += end + 1;
                return Ok(());
            }
            let fine =
                known(on) && off.is_none_or(|off| known(off) && !off.is_empty()) && end < self.rest().len();
            if !fine {
                let bad = |c: char| !matches!(c, 'i' | 'm' | 's' | 'U' | '-');
                let shown = match self.rest()[2..].char_indices().find(|(_, c)| bad(*c)) {
                    Some((at, c)) => &self.rest()[..2 + at + c.len_utf8()],
                    None => self.rest(),
                };
                return self.fail("invalid or unsupported Perl syntax", shown);
            }
            let switch = self.rest()[end..].starts_with(')');
            within.set(on, true);
            within.set(off.unwrap_or_default(), false);
            self.at += end + 1;
            if switch {
                self.flags = within;
                self.repeated = None;
                return Ok(());
            }
        } else {
            self.at += 1;
        }
        if self.open.len() == NEST_LIMIT {
            return self.fail("expression nests too deeply", self.text);
        }
        let start = self.program.steps.len() as u32;
        let jumps = self.jumps.len() as u32;
        let inner = Group { start, alternative: start, jumps, most: 1, flags: self.flags };
        self.open.push(std::mem::replace(&mut self.group, inner));
        self.flags = within;
        (self.atom, self.repeated) = (None, None);
        Ok(())
    }

    fn escape(&mut self) -> Result<(), PatternError> {
        let start = self.at;
        self.at += 1;
        let Some(c) = self.bump() else {
            return self.fail("trailing backslash at end of expression", "");
        };
        match c {
            'A' => self.push(Step::At(Position::Start)),
            'z' => self.push(Step::At(Position::End)),
            'b' => self.push(Step::At(Position::WordEdge)),
            'B' => self.push(Step::At(Position::NoWordEdge)),
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => {
                let ranges = self.folded(perl_class(c).iter().copied());
                self.push_class(Class::new(ranges, Vec::new(), c.is_ascii_uppercase()));
            }
            'p' | 'P' => {
                let table = self.unicode_class(start, c == 'P')?;
                self.push_class(Class::new(ClassUnicode::empty(), vec![table], false));
            }
            'Q' => {
                let (quoted, skip) = match self.rest().find("\\E") {
                    Some(end) => (&self.rest()[..end], end + 2),
                    None => (self.rest(), self.rest().len()),
                };
                self.at += skip;
                for c in quoted.chars() {
                    self.push_literal(c);
                }
            }
            c => {
                let literal = self.escaped_char(start, c)?;
                self.push_literal(literal);
            }
        }
        Ok(())
    }

    /// An escape that stands for one character.
    fn escaped_char(&mut self, start: usize, c: char) -> Result<char, PatternError> {
        let invalid = "invalid escape sequence";
        Ok(match c {
            'a' => '\u{7}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            'x' => return self.hex_char(start),
            '0'..='7' => {
                let mut value = c as u32 - '0' as u32;
                let follows = |rest: &str| rest.starts_with(|c: char| ('0'..='7').contains(&c));
                if c != '0' && !follows(self.rest()) {
                    return self.fail(invalid, &self.text[start..self.at]);
                }
                for _ in 0..2 {
                    if follows(self.rest()) {
                        value = value * 8 + self.rest().as_bytes()[0] as u32 - '0' as u32;
                        self.at += 1;
                    }
                }
                char::from_u32(value).unwrap_or('\0')
            }
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => c,
            _ => return self.fail(invalid, &self.text[start..self.at]),
        })
    }

    /// After `\x`: two digits, or any number of them in braces.
    fn hex_char(&mut self, start: usize) -> Result<char, PatternError> {
        let braces = self.rest().starts_with('{');
        self.at += usize::from(braces);
        let (mut value, mut digits) = (0u32, 0);
        let good = loop {
            if !braces && digits == 2 {
                break true;
            }
            match self.bump() {
                Some('}') if braces => break digits > 0,
                Some(c) if c.is_ascii_hexdigit() => {
                    value = value * 16 + c.to_digit(16).unwrap_or(0);
                    digits += 1;
                    if value > char::MAX as u32 {
                        break false;
                    }
                }
                _ => break false,
            }
        };
        match char::from_u32(value).filter(|_| good) {
            Some(c) => Ok(c),
            None => self.fail("invalid escape sequence", &self.text[start..self.at]),
        }
    }

    /// After `\p` or `\P`.
    fn unicode_class(&mut self, start: usize, negated: bool) -> Result<Item, PatternError> {
        let rest = self.rest();
        let name = match rest.strip_prefix('{') {
            Some(inner) => match inner.find('}') {
                Some(end) => &inner[..end],
                None => return self.fail("invalid character class range", &self.text[start..]),
            },
            None => match rest.chars().next() {
                Some(c) => &rest[..c.len_utf8()],
                None => return self.fail("invalid character class range", &self.text[start..]),
            },
        };
        self.at += if rest.starts_with('{') { name.len() + 2 } else { name.len() };
        let (name, flipped) = name.strip_prefix('^').map_or((name, false), |name| (name, true));
        let Some(table) = tables::table(name, self.flags.fold) else {
            return self.fail("invalid character class range", &self.text[start..self.at]);
        };
        let tables = &mut self.program.tables;
        let known = tables.iter().position(|known| Arc::ptr_eq(known, &table));
        let table = known.unwrap_or_else(|| {
            tables.push(table);
            tables.len() - 1
        }) as u32;
        Ok(if negated == flipped { Item::Table(table) } else { Item::NotTable(table) })
    }

    fn class(&mut self) -> Result<(), PatternError> {
        let start = self.at;
        self.at += 1;
        let negated = self.rest().starts_with('^');
        self.at += usize::from(negated);
        let (mut ranges, mut tables) = (Vec::new(), Vec::new());
        let mut first = true;
        loop {
            let Some(c) = self.rest().chars().next() else {
                return self.fail("missing closing ]", &self.text[start..]);
            };
            if c == ']' && !first {
                self.at += 1;
                break;
            }
            first = false;
            if self.rest().starts_with("[:")
                && let Some(end) = self.rest().find(":]")
            {
                let whole = &self.rest()[..end + 2];
                let inner = &whole[2..end];
                let (name, not) = inner.strip_prefix('^').map_or((inner, false), |name| (name, true));
                let Some((_, class)) = POSIX.iter().find(|(known, _)| *known == name) else {
                    return self.fail("invalid character class range", whole);
                };
                self.add_named(class, not, &mut ranges);
                self.at += end + 2;
                continue;
            }
            let item = self.at;
            if self.class_escape(&mut ranges, &mut tables)? {
                continue;
            }
            let low = self.class_char(start)?;
            let mut high = low;
            if self.rest().starts_with('-') && self.rest().len() > 1 && !self.rest()[1..].starts_with(']') {
                self.at += 1;
                high = self.class_char(start)?;
                if high < low {
                    return self.fail("invalid character class range", &self.text[item..self.at]);
                }
            }
            ranges.push((low, high));
        }
        let ranges = self.folded(ranges);
        self.push_class(Class::new(ranges, tables, negated));
        Ok(())
    }

    /// Adds an ASCII class, or all that is not in it, to a class.
    fn add_named(&self, class: &[(char, char)], negated: bool, ranges: &mut Vec<(char, char)>) {
        let mut class = self.folded(class.iter().copied());
        if negated {
            class.negate();
        }
        ranges.extend(class.iter().map(|range| (range.start(), range.end())));
    }

    /// `\d`, `\pL` and their like within a class; whether there was one.
    fn class_escape(
        &mut self,
        ranges: &mut Vec<(char, char)>,
        tables: &mut Vec<Item>,
    ) -> Result<bool, PatternError> {
        let mut chars = self.rest().chars();
        let (Some('\\'), Some(c)) = (chars.next(), chars.next()) else { return Ok(false) };
        let start = self.at;
        match c {
            'd' | 's' | 'w' | 'D' | 'S' | 'W' => {
                self.at += 2;
                self.add_named(perl_class(c), c.is_ascii_uppercase(), ranges);
            }
            'p' | 'P' => {
                self.at += 2;
                tables.push(self.unicode_class(start, c == 'P')?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn class_char(&mut self, class: usize) -> Result<char, PatternError> {
        let start = self.at;
        match self.bump() {
            None => self.fail("missing closing ]", &self.text[class..]),
            Some('\\') => match self.bump() {
                Some(c) => self.escaped_char(start, c),
                None => self.fail("trailing backslash at end of expression", ""),
            },
            Some(c) => Ok(c),
        }
    }
}

impl Flags {
    fn set(&mut self, letters: &str, to: bool) {
        for letter in letters.chars() {
            match letter {
                'i' => self.fold = to,
                'm' => self.lines = to,
                's' => self.dot_all = to,
                // `U`: which of several matches is found does not matter here.
                _ => {}
            }
        }
    }
}

/// `{n}`, `{n,}`, `{n,m}`: its length and its bounds. Anything else is literal.
fn bounds(text: &str) -> Option<(usize, u32, Option<u32>)> {
    let inner = text.strip_prefix('{')?;
    let end = inner.find('}')?;
    let inner = &inner[..end];
    let number = |text: &str| -> Option<u32> {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let padded = text.len() > 1 && text.starts_with('0');
        (plain && !padded).then(|| text.parse().unwrap_or(u32::MAX))
    };
    let (low, high) = match inner.split_once(',') {
        None => (number(inner)?, Some(number(inner)?)),
        Some((low, "")) => (number(low)?, None),
        Some((low, high)) => (number(low)?, Some(number(high)?)),
    };
    Some((end + 2, low, high))
}
