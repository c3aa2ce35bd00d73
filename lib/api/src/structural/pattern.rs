//! Regular expressions as Go's `regexp` reads them, on the linear-time engine of crate `regex`.
//!
//! Both know RE2's syntax; where they differ (ASCII classes, `\Q…\E`, literal braces, brackets within classes, octal
//! escapes) the expression is rewritten, and mistakes are told in Go's words.

use std::sync::OnceLock;

use compact_str::CompactString;
use regex::{Regex, RegexBuilder};

/// The most memory one compiled expression may take; a larger one is refused when its definition is written.
const SIZE_LIMIT: usize = 4 << 20;
/// The most memory the lazy automaton of one expression may take while matching.
const DFA_LIMIT: usize = 256 << 10;
/// Go's limit on a counted repetition.
const MAX_REPEAT: u32 = 1000;
/// Go's limit on nested groups.
const NEST_LIMIT: u32 = 1000;

/// Why an expression is none; the text is Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("error parsing regexp: {what}: `{text}`")]
    Syntax { what: &'static str, text: String },
    #[error("error parsing regexp: expression too large")]
    TooLarge,
    /// Refused by the engine for a reason that Go has no word for.
    #[error("error parsing regexp: {0}")]
    Engine(String),
}

/// An expression, compiled at its first use.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: CompactString,
    compiled: OnceLock<Option<Regex>>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
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
        self.compiled
            .get_or_init(|| compile(&self.text).ok())
            .as_ref()
            .is_some_and(|regex| regex.is_match(value))
    }
}

/// Whether the expression is one, within the limits.
pub fn check(text: &str) -> Result<(), PatternError> {
    compile(text).map(|_| ())
}

fn compile(text: &str) -> Result<Regex, PatternError> {
    let rewritten = Translator::new(text).run()?;
    let built = RegexBuilder::new(&rewritten)
        .size_limit(SIZE_LIMIT)
        .dfa_size_limit(DFA_LIMIT)
        .nest_limit(NEST_LIMIT)
        .build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => PatternError::TooLarge,
        other => {
            let text = other.to_string();
            let last = text.lines().next_back().unwrap_or_default();
            PatternError::Engine(last.trim_start_matches("error: ").to_owned())
        }
    })
}

struct Translator<'a> {
    text: &'a str,
    at: usize,
    out: String,
    /// For each open group, how often what stands in it is repeated at most.
    open: Vec<u32>,
    /// How often what was written last repeats what stands in it; the most of the present group.
    weight: u32,
    most: u32,
    /// The last thing written can be repeated.
    atom: bool,
    /// Where the last repetition operator began, if nothing came since.
    repeated: Option<usize>,
}

impl<'a> Translator<'a> {
    fn new(text: &'a str) -> Translator<'a> {
        Translator {
            text,
            at: 0,
            out: String::with_capacity(text.len() + 16),
            open: Vec::new(),
            weight: 1,
            most: 1,
            atom: false,
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

    fn push_atom(&mut self, text: &str) {
        self.out.push_str(text);
        self.atom = true;
        self.repeated = None;
        self.weight = 1;
    }

    fn push_literal(&mut self, c: char) {
        let mut buffer = [0; 4];
        let escaped = regex::escape(c.encode_utf8(&mut buffer));
        self.push_atom(&escaped);
    }

    fn run(mut self) -> Result<String, PatternError> {
        while let Some(c) = self.rest().chars().next() {
            match c {
                '(' => self.group()?,
                ')' => {
                    let Some(outside) = self.open.pop() else {
                        return self.fail("unexpected )", self.text);
                    };
                    self.at += 1;
                    self.push_atom(")");
                    self.weight = self.most;
                    self.most = self.most.max(outside);
                }
                '|' => {
                    self.at += 1;
                    self.out.push('|');
                    (self.atom, self.repeated) = (false, None);
                }
                '*' | '+' | '?' => {
                    let start = self.at;
                    self.at += 1;
                    self.repetition(start)?;
                }
                '{' => self.counted()?,
                '[' => self.class()?,
                '\\' => self.escape()?,
                '^' | '$' | '.' => {
                    self.at += 1;
                    self.push_atom(c.encode_utf8(&mut [0; 4]));
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
        Ok(self.out)
    }

    /// The operator stands between `start` and the cursor.
    fn repetition(&mut self, start: usize) -> Result<(), PatternError> {
        if let Some(first) = self.repeated {
            return self.fail("invalid nested repetition operator", &self.text[first..self.at]);
        }
        if !self.atom {
            return self.fail("missing argument to repetition operator", &self.text[start..self.at]);
        }
        if self.rest().starts_with('?') {
            self.at += 1;
        }
        self.out.push_str(&self.text[start..self.at]);
        self.repeated = Some(start);
        Ok(())
    }

    fn counted(&mut self) -> Result<(), PatternError> {
        let start = self.at;
        let Some((length, low, high)) = bounds(self.rest()) else {
            self.at += 1;
            self.push_atom("\\{");
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
        self.repetition(start)?;
        self.weight = self.weight.saturating_mul(times);
        if self.weight > MAX_REPEAT {
            return self.fail("invalid repeat count", &self.text[start..operator]);
        }
        self.most = self.most.max(self.weight);
        Ok(())
    }

    fn group(&mut self) -> Result<(), PatternError> {
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
            // Names play no part in matching, and the engine takes fewer of them.
            self.out.push('(');
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
            self.out.push_str(&self.rest()[..=end]);
            self.at += end + 1;
            if switch {
                self.repeated = None;
                return Ok(());
            }
        } else {
            self.at += 1;
            self.out.push('(');
        }
        self.open.push(std::mem::replace(&mut self.most, 1));
        (self.atom, self.repeated) = (false, None);
        Ok(())
    }

    fn escape(&mut self) -> Result<(), PatternError> {
        let start = self.at;
        self.at += 1;
        let Some(c) = self.bump() else {
            return self.fail("trailing backslash at end of expression", "");
        };
        match c {
            'A' | 'z' => self.push_atom(&self.text[start..self.at]),
            'b' => self.push_atom("(?-u:\\b)"),
            'B' => self.push_atom("(?-u:\\B)"),
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => {
                let class = format!("[{}]", perl_class(c));
                self.push_atom(&class);
            }
            'p' | 'P' => {
                let class = self.unicode_class(start, c == 'P')?;
                self.push_atom(&class);
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
    fn unicode_class(&mut self, start: usize, negated: bool) -> Result<String, PatternError> {
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
        let letter = if negated != flipped { 'P' } else { 'p' };
        let class = format!("\\{letter}{{{name}}}");
        if Regex::new(&class).is_err() {
            return self.fail("invalid character class range", &self.text[start..self.at]);
        }
        Ok(class)
    }

    fn class(&mut self) -> Result<(), PatternError> {
        let start = self.at;
        let mut out = String::from("[");
        self.at += 1;
        if self.rest().starts_with('^') {
            self.at += 1;
            out.push('^');
        }
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
                let name = &self.rest()[..end + 2];
                if !POSIX
                    .contains(&name.trim_start_matches("[:").trim_start_matches('^').trim_end_matches(":]"))
                {
                    return self.fail("invalid character class range", name);
                }
                out.push_str(name);
                self.at += end + 2;
                continue;
            }
            let item = self.at;
            if let Some(class) = self.class_escape()? {
                out.push_str(&class);
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
            out.push_str(&format!("\\x{{{:X}}}", low as u32));
            if high != low {
                out.push_str(&format!("-\\x{{{:X}}}", high as u32));
            }
        }
        out.push(']');
        self.push_atom(&out);
        Ok(())
    }

    /// `\d`, `\pL` and their like within a class.
    fn class_escape(&mut self) -> Result<Option<String>, PatternError> {
        let mut chars = self.rest().chars();
        let (Some('\\'), Some(c)) = (chars.next(), chars.next()) else { return Ok(None) };
        let start = self.at;
        match c {
            'd' | 's' | 'w' => {
                self.at += 2;
                Ok(Some(perl_class(c).to_owned()))
            }
            'D' | 'S' | 'W' => {
                self.at += 2;
                Ok(Some(format!("[{}]", perl_class(c))))
            }
            'p' | 'P' => {
                self.at += 2;
                self.unicode_class(start, c == 'P').map(Some)
            }
            _ => Ok(None),
        }
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

const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

/// Perl's classes are ASCII in Go; what stands between the brackets.
fn perl_class(c: char) -> &'static str {
    match c {
        'd' => "0-9",
        'D' => "^0-9",
        's' => "\\t\\n\\x0C\\r ",
        'S' => "^\\t\\n\\x0C\\r ",
        'w' => "0-9A-Za-z_",
        _ => "^0-9A-Za-z_",
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
