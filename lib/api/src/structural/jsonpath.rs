//! The JSON paths of printer columns (client-go `util/jsonpath`, the parts that lead to one value): members, `\.` in names,
//! brackets, indices, slices, wildcards and filters on equality or order. Of several results the first one counts.

use crate::doc::{Doc, Value};

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Member(String),
    /// From the end where it is negative.
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    All,
    Filter(Vec<Step>, Option<(Comparison, Literal)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
enum Literal {
    Text(String),
    Number(f64),
    Bool(bool),
}

impl JsonPath {
    /// `None` for what is no path, or one of a kind that columns have no use for.
    pub fn parse(text: &str) -> Option<JsonPath> {
        steps(text).map(JsonPath)
    }

    /// The first value the path leads to.
    pub fn first<'v>(&self, doc: &'v Doc) -> Option<Found<'v>> {
        if let [Step::Member(name)] = self.0.as_slice() {
            match name.as_str() {
                "apiVersion" => return Some(Found::Owned(Value::Str(doc.gvk.api_version()))),
                "kind" => return Some(Found::Owned(Value::Str(doc.gvk.kind.clone()))),
                _ => {}
            }
        }
        walk(&doc.root, &self.0).map(Found::Borrowed)
    }
}

/// A value that a path leads to.
pub enum Found<'v> {
    Borrowed(&'v Value),
    Owned(Value),
}

impl Found<'_> {
    pub fn value(&self) -> &Value {
        match self {
            Found::Borrowed(value) => value,
            Found::Owned(value) => value,
        }
    }
}

fn member<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Map(map) => map.get(name),
        Value::Struct(inner) => inner.get_index(inner.ty().def().field_index(name)?),
        _ => None,
    }
}

fn place(index: i64, length: usize) -> Option<usize> {
    let at = if index < 0 { index + length as i64 } else { index };
    usize::try_from(at).ok()
}

fn walk<'v>(value: &'v Value, steps: &[Step]) -> Option<&'v Value> {
    let Some((step, rest)) = steps.split_first() else { return Some(value) };
    match step {
        Step::Member(name) => walk(member(value, name)?, rest),
        Step::Index(index) => {
            let items = value.as_list()?;
            walk(items.get(place(*index, items.len())?)?, rest)
        }
        Step::Slice(from, to) => {
            let items = value.as_list()?;
            let from = place(from.unwrap_or(0), items.len())?;
            let to = place(to.unwrap_or(items.len() as i64), items.len())?.min(items.len());
            items.get(from..to)?.iter().find_map(|item| walk(item, rest))
        }
        Step::All => match value {
            Value::List(items) => items.iter().find_map(|item| walk(item, rest)),
            Value::Map(map) => map.iter().find_map(|(_, item)| walk(item, rest)),
            _ => None,
        },
        Step::Filter(path, wanted) => {
            let holds = |item: &&Value| match (walk(item, path), wanted) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(found), Some((comparison, literal))) => compare(found, *comparison, literal),
            };
            value.as_list()?.iter().filter(holds).find_map(|item| walk(item, rest))
        }
    }
}

fn compare(value: &Value, comparison: Comparison, literal: &Literal) -> bool {
    let number = |value: &Value| match value {
        Value::Int(n) => Some(*n as f64),
        Value::Float(n) => Some(*n),
        _ => None,
    };
    let order = match (value, literal) {
        (Value::Str(text), Literal::Text(wanted)) => Some(text.as_str().cmp(wanted.as_str())),
        (Value::Bool(flag), Literal::Bool(wanted)) => Some(flag.cmp(wanted)),
        (value, Literal::Number(wanted)) => number(value).and_then(|n| n.partial_cmp(wanted)),
        _ => None,
    };
    let Some(order) = order else { return comparison == Comparison::NotEqual };
    match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    }
}

fn steps(text: &str) -> Option<Vec<Step>> {
    let mut out = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = closing(after)?;
            out.push(bracket(after[..end].trim())?);
            rest = &after[end + 1..];
        } else if let Some(after) = rest.strip_prefix('.') {
            if after.is_empty() || after.starts_with('[') {
                rest = after;
                continue;
            }
            let (name, length) = name(after)?;
            out.push(if name == "*" { Step::All } else { Step::Member(name) });
            rest = &after[length..];
        } else {
            return None;
        }
    }
    Some(out)
}

/// A member's name up to the next dot or bracket; a backslash takes the next character as it is.
fn name(text: &str) -> Option<(String, usize)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '.' | '[' => return (!out.is_empty()).then_some((out, at)),
            '\\' => out.push(chars.next()?.1),
            c if c.is_whitespace() || matches!(c, ']' | '}' | '{' | '|' | '(' | ')') => return None,
            c => out.push(c),
        }
    }
    (!out.is_empty()).then_some((out, text.len()))
}

/// Where the bracket closes, quotes and inner brackets passed over.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn unquoted(text: &str) -> Option<&str> {
    let quoted = |quote| text.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
    quoted('\'').or_else(|| quoted('"'))
}

fn bracket(text: &str) -> Option<Step> {
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(name) = unquoted(text) {
        return Some(Step::Member(name.replace("\\.", ".")));
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return filter_step(filter.trim());
    }
    if let Some((from, to)) = text.split_once(':') {
        let bound = |text: &str| match text.trim() {
            "" => Some(None),
            text => text.parse().ok().map(Some),
        };
        return Some(Step::Slice(bound(from)?, bound(to)?));
    }
    text.parse().ok().map(Step::Index)
}

fn filter_step(text: &str) -> Option<Step> {
    let operators = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    let found = operators.iter().find_map(|(word, comparison)| Some((text.split_once(word)?, *comparison)));
    let Some(((left, right), comparison)) = found else {
        return Some(Step::Filter(steps(text.strip_prefix('@')?)?, None));
    };
    let right = right.trim();
    let literal = match right {
        "true" => Literal::Bool(true),
        "false" => Literal::Bool(false),
        text => match unquoted(text) {
            Some(text) => Literal::Text(text.to_owned()),
            None => Literal::Number(text.parse().ok()?),
        },
    };
    Some(Step::Filter(steps(left.trim().strip_prefix('@')?)?, Some((comparison, literal))))
}
