//! Label selectors: the string form of list and watch (`a in (b,c),!d,e=f`), the struct form of specs, matching.
//!
//! Grammar and texts are upstream's (apimachinery `labels`). A selector is parsed once and matched many times.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use crate::field_errors::quoted;
use crate::names;

/// Anything labels can be looked up in.
pub trait Labels {
    fn get_label(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn get_label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl Labels for Option<BTreeMap<String, String>> {
    fn get_label(&self, key: &str) -> Option<&str> {
        self.as_ref()?.get(key).map(String::as_str)
    }
}

impl<K: AsRef<str>, V: AsRef<str>> Labels for [(K, V)] {
    fn get_label(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| k.as_ref() == key).map(|(_, v)| v.as_ref())
    }
}

impl<K: AsRef<str>, V: AsRef<str>> Labels for Vec<(K, V)> {
    fn get_label(&self, key: &str) -> Option<&str> {
        self.as_slice().get_label(key)
    }
}

/// The relation of a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One term of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted, without doubles.
    pub values: Vec<String>,
}

/// A conjunction of requirements, sorted by key; without any it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// Why a selector does not parse; the text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct SelectorError(String);

/// Longest accepted selector string, and most requirements of one.
const MAX_SELECTOR: usize = 256 * 1024;
/// Mistakes of one requirement that are told of, the others are counted: a text takes a hundred times the value it is about.
const MAX_TOLD: usize = 64;

/// The mistakes of a requirement, as upstream joins them.
#[derive(Default)]
struct Errors {
    text: String,
    count: usize,
}

impl Errors {
    fn push(&mut self, text: impl FnOnce() -> String) {
        if self.count < MAX_TOLD {
            if self.count > 0 {
                self.text.push_str(", ");
            }
            self.text.push_str(&text());
        }
        self.count += 1;
    }

    fn end(self) -> Result<(), SelectorError> {
        Err(SelectorError(match self.count {
            0 => return Ok(()),
            1 => self.text,
            2..=MAX_TOLD => format!("[{}]", self.text),
            more => format!("[{}, and {} more]", self.text, more - MAX_TOLD),
        }))
    }
}

impl Requirement {
    /// A checked requirement; `In` and `NotIn` need values, `Exists` none, the others one.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Requirement, SelectorError> {
        let mut errors = Errors::default();
        let messages = names::qualified_name(key);
        if !messages.is_empty() {
            errors.push(|| format!("key: Invalid value: {}: {}", quoted(key), messages.join("; ")));
        }
        let wrong = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                "for 'in', 'notin' operators, values set can't be empty"
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                "exact-match compatibility requires one single value"
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                "values set must be empty for exists and does not exist"
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                "for 'Gt', 'Lt' operators, exactly one value is required"
            }
            _ => "",
        };
        if !wrong.is_empty() {
            let list = serde_json::to_string(&values).unwrap_or_default();
            errors.push(|| format!("values: Invalid value: {list}: {wrong}"));
        }
        if matches!(operator, Operator::GreaterThan | Operator::LessThan) {
            for (i, value) in values.iter().enumerate().filter(|(_, v)| v.parse::<i64>().is_err()) {
                let wrong = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(|| format!("values[{i}]: Invalid value: {}: {wrong}", quoted(value)));
            }
        }
        for (i, value) in values.iter().enumerate() {
            let messages = names::label_value(value);
            if !messages.is_empty() {
                let messages = messages.join("; ");
                errors.push(|| format!("values[{i}][{key}]: Invalid value: {}: {messages}", quoted(value)));
            }
        }
        errors.end()?;
        values.sort_unstable();
        values.dedup();
        Ok(Requirement { key: key.to_owned(), operator, values })
    }

    /// Whether `labels` satisfy this term.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        let value = labels.get_label(&self.key);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(|v| self.has(v)),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(|v| self.has(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let bound = self.values.first().and_then(|v| v.parse::<i64>().ok());
                match (value.and_then(|v| v.parse::<i64>().ok()), bound) {
                    (Some(value), Some(bound)) if self.operator == Operator::GreaterThan => value > bound,
                    (Some(value), Some(bound)) => value < bound,
                    _ => false,
                }
            }
        }
    }

    fn has(&self, value: &str) -> bool {
        self.values.iter().any(|v| v == value)
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values.join(",");
        match self.operator {
            Operator::Equals => write!(f, "{}={values}", self.key),
            Operator::DoubleEquals => write!(f, "{}=={values}", self.key),
            Operator::NotEquals => write!(f, "{}!={values}", self.key),
            Operator::In => write!(f, "{} in ({values})", self.key),
            Operator::NotIn => write!(f, "{} notin ({values})", self.key),
            Operator::GreaterThan => write!(f, "{}>{values}", self.key),
            Operator::LessThan => write!(f, "{}<{values}", self.key),
            Operator::Exists => f.write_str(&self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
        }
    }
}

impl LabelSelector {
    /// Matches every object.
    pub const fn everything() -> LabelSelector {
        LabelSelector { requirements: Vec::new(), nothing: false }
    }

    /// Matches no object (a missing selector in a spec).
    pub const fn nothing() -> LabelSelector {
        LabelSelector { requirements: Vec::new(), nothing: true }
    }

    /// Parses the string form.
    pub fn parse(text: &str) -> Result<LabelSelector, SelectorError> {
        if text.len() > MAX_SELECTOR {
            return Err(SelectorError(format!("selector is longer than {MAX_SELECTOR} bytes")));
        }
        let mut requirements = Parser::new(text).parse()?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector { requirements, nothing: false })
    }

    /// Every label must be there with its value (a Service's or ReplicationController's selector).
    pub fn from_set<K: Into<String>, V: Into<String>>(
        set: impl IntoIterator<Item = (K, V)>,
    ) -> LabelSelector {
        let mut requirements: Vec<Requirement> = set
            .into_iter()
            .map(|(k, v)| Requirement { key: k.into(), operator: Operator::Equals, values: vec![v.into()] })
            .collect();
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        LabelSelector { requirements, nothing: false }
    }

    /// The struct form: none matches nothing, an empty one everything.
    pub fn from_spec(
        spec: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    ) -> Result<LabelSelector, SelectorError> {
        let Some(spec) = spec else {
            return Ok(LabelSelector::nothing());
        };
        let mut requirements = Vec::new();
        for (key, value) in spec.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key, Operator::Equals, vec![value.clone()])?);
        }
        for expression in spec.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!(
                        "{} is not a valid label selector operator",
                        quoted(other)
                    )));
                }
            };
            let values = expression.values.clone().unwrap_or_default();
            requirements.push(Requirement::new(&expression.key, operator, values)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector { requirements, nothing: false })
    }

    /// Whether all terms hold.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    End,
    Identifier,
    Comma,
    Open,
    Close,
    In,
    NotIn,
    Not,
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
}

/// Reads tokens as they are asked for.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

fn is_special(b: u8) -> bool {
    matches!(b, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<')
}

fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | b'\n')
}

/// The token at the start of `bytes`, of characters that stand for themselves, and its length.
fn special_token(bytes: &[u8]) -> (Token, usize) {
    match bytes {
        [b'=', b'=', ..] => (Token::DoubleEquals, 2),
        [b'!', b'=', ..] => (Token::NotEquals, 2),
        [b'=', ..] => (Token::Equals, 1),
        [b'!', ..] => (Token::Not, 1),
        [b',', ..] => (Token::Comma, 1),
        [b'(', ..] => (Token::Open, 1),
        [b')', ..] => (Token::Close, 1),
        [b'>', ..] => (Token::Greater, 1),
        _ => (Token::Less, 1),
    }
}

fn fail<T>(found: &str, expected: &str) -> Result<T, SelectorError> {
    Err(SelectorError(format!("found '{found}', expected: {expected}")))
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Parser<'a> {
        Parser { text, at: 0 }
    }

    /// The token at this place, its text, and where the next begins. As upstream reads, a NUL ends the text where a token
    /// could begin, and is swallowed after one.
    fn scan(&self) -> (Token, &'a str, usize) {
        let bytes = self.text.as_bytes();
        let mut start = self.at;
        while bytes.get(start).copied().is_some_and(is_space) {
            start += 1;
        }
        let after = |end: usize| end + usize::from(bytes.get(end) == Some(&0));
        let first = match bytes.get(start) {
            None | Some(0) => return (Token::End, "", bytes.len()),
            Some(&first) => first,
        };
        if is_special(first) {
            let (token, length) = special_token(&bytes[start..]);
            return (token, &self.text[start..start + length], after(start + length));
        }
        let ends = |&byte: &u8| byte == 0 || is_special(byte) || is_space(byte);
        let end = bytes[start..].iter().position(ends).map_or(bytes.len(), |length| start + length);
        let word = &self.text[start..end];
        let token = match word {
            "in" => Token::In,
            "notin" => Token::NotIn,
            _ => Token::Identifier,
        };
        (token, word, after(end))
    }

    /// The next token where a key or value may stand: `in` and `notin` are words there.
    fn peek(&self) -> (Token, &'a str) {
        let (token, text, _) = self.scan();
        (if matches!(token, Token::In | Token::NotIn) { Token::Identifier } else { token }, text)
    }

    fn next_raw(&mut self) -> (Token, &'a str) {
        let (token, text, end) = self.scan();
        self.at = end;
        (token, text)
    }

    fn next(&mut self) -> (Token, &'a str) {
        let next = self.peek();
        self.next_raw();
        next
    }

    fn parse(&mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut out = Vec::new();
        loop {
            match self.peek() {
                (Token::Identifier | Token::Not, _) => {
                    let requirement = self
                        .requirement()
                        .map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?;
                    out.push(requirement);
                    match self.next() {
                        (Token::End, _) => return Ok(out),
                        (Token::Comma, _) => {
                            let (token, text) = self.peek();
                            if !matches!(token, Token::Identifier | Token::Not) {
                                return fail(text, "identifier after ','");
                            }
                        }
                        (_, text) => return fail(text, "',' or 'end of string'"),
                    }
                }
                (Token::End, _) => return Ok(out),
                (_, text) => return fail(text, "!, identifier, or 'end of string'"),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let (mut token, mut key) = self.next();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.next();
        }
        if token != Token::Identifier {
            return fail(key, "identifier");
        }
        let messages = names::qualified_name(key);
        if !messages.is_empty() {
            let text = format!("<nil>: Invalid value: {}: {}", quoted(key), messages.join("; "));
            return Err(SelectorError(text));
        }
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let operator = match self.next_raw() {
            (Token::In, _) => Operator::In,
            (Token::NotIn, _) => Operator::NotIn,
            (Token::Equals, _) => Operator::Equals,
            (Token::DoubleEquals, _) => Operator::DoubleEquals,
            (Token::NotEquals, _) => Operator::NotEquals,
            (Token::Greater, _) => Operator::GreaterThan,
            (Token::Less, _) => Operator::LessThan,
            (_, text) => return fail(text, "in, notin, =, ==, !=, gt, lt"),
        };
        let values =
            if matches!(operator, Operator::In | Operator::NotIn) { self.values()? } else { self.exact()? };
        Requirement::new(key, operator, values)
    }

    fn exact(&mut self) -> Result<Vec<String>, SelectorError> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(vec![String::new()]);
        }
        match self.next() {
            (Token::Identifier, text) => Ok(vec![text.to_owned()]),
            (_, text) => fail(text, "identifier"),
        }
    }

    /// The values in parentheses: a set, so that mistakes are told of in their order and once.
    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        let (token, text) = self.next();
        if token != Token::Open {
            return Err(SelectorError(format!("found '{text}' expected: '('")));
        }
        let mut out = std::collections::BTreeSet::new();
        let (mut wants_value, mut some) = (true, false);
        loop {
            match self.next() {
                (Token::Identifier, text) if wants_value => {
                    out.insert(text);
                    wants_value = false;
                }
                (Token::Identifier, text) => return fail(text, "',' or ')'"),
                (Token::Comma, _) => {
                    if wants_value {
                        out.insert("");
                    }
                    wants_value = true;
                }
                (Token::Close, _) => {
                    if wants_value {
                        out.insert("");
                    }
                    return Ok(out.into_iter().map(str::to_owned).collect());
                }
                (_, text) if wants_value && !some => return fail(text, "',', ')' or identifier"),
                (_, text) if wants_value => return fail(text, "',', or identifier"),
                (_, text) => return fail(text, "',' or ')'"),
            }
            some = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)], expected: bool) {
        let parsed = LabelSelector::parse(selector).unwrap();
        assert_eq!(parsed.matches(labels), expected, "{selector} on {labels:?}");
    }

    #[test]
    fn string_form_matches_as_upstream() {
        let set = [("foo", "bar"), ("baz", "blah"), ("n", "7")];
        for (selector, expected) in [
            ("", true),
            ("foo=bar", true),
            ("foo==bar", true),
            ("foo!=bar", false),
            ("foo=other", false),
            ("foo in (bar,x)", true),
            ("foo notin (bar)", false),
            ("zip notin (a)", true),
            ("zip!=a", true),
            ("foo", true),
            ("zip", false),
            ("!zip", true),
            ("!foo", false),
            ("foo=bar,baz=blah", true),
            ("foo=bar,baz=x", false),
            ("n>6", true),
            ("n<7", false),
            ("foo>1", false),
            (" foo = bar , baz ", true),
            ("foo in (,bar)", true),
            ("zip in ()", false),
            ("foo=", false),
        ] {
            matches(selector, &set, expected);
        }
        matches("x=", &[("x", "")], true);
        matches("in in (in)", &[("in", "in")], true);
        assert!(!LabelSelector::nothing().matches(set.as_slice()));
        assert_eq!(LabelSelector::parse("z,b in (y,x),!a").unwrap().to_string(), "!a,b in (x,y),z");
    }

    #[test]
    fn errors_are_upstreams() {
        for (selector, text) in [
            ("x=a||y=b", "unable to parse requirement: values[0][x]: Invalid value: \"a||y\""),
            ("x==a==b", "found '==', expected: ',' or 'end of string'"),
            ("!x=a", "found '=', expected: ',' or 'end of string'"),
            (
                "x<a",
                "unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
            ("a,", "found '', expected: identifier after ','"),
            (",a", "found ',', expected: !, identifier, or 'end of string'"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a in (b=", "unable to parse requirement: found '=', expected: ',' or ')'"),
            ("a in (b,=", "unable to parse requirement: found '=', expected: ',', or identifier"),
            ("a in (=", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
            ("a in ( \0b)", "unable to parse requirement: found '', expected: ',', ')' or identifier"),
            ("a\0b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            (
                // A set's mistakes stand in the set's order.
                "a in (z-,b-,z-)",
                "unable to parse requirement: [values[0][a]: Invalid value: \"b-\": a valid label must be an empty string",
            ),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a/b/c=d", "unable to parse requirement: <nil>: Invalid value: \"a/b/c\""),
        ] {
            let error = LabelSelector::parse(selector).unwrap_err().to_string();
            assert!(error.starts_with(text), "{selector}: {error}");
        }
        // A NUL where a token could begin ends the text, as it does upstream.
        assert_eq!(LabelSelector::parse("a=b,c\0\0d").unwrap().to_string(), "a=b,c");
    }

    #[test]
    fn mistakes_without_number_are_counted() {
        let bad = |count: usize| (0..count).map(|n| format!("{n:03}-")).collect::<Vec<_>>().join(",");
        let said = |count| LabelSelector::parse(&format!("a in ({})", bad(count))).unwrap_err().to_string();
        assert_eq!(said(MAX_TOLD).matches("Invalid value").count(), MAX_TOLD);
        assert!(said(MAX_TOLD).ends_with("')]"), "{}", said(MAX_TOLD));
        assert_eq!(said(1000).matches("Invalid value").count(), MAX_TOLD);
        assert!(said(1000).ends_with(", and 936 more]"), "{}", said(1000));
    }
}
