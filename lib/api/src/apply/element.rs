//! One step of a path: a field, a list element by its keys, by its value or by its index.

use std::cmp::Ordering;
use std::fmt;

use compact_str::CompactString;

use super::codec::FieldsError;
use crate::canonical::push_float;
use crate::doc::Value;
use crate::field_errors::quoted;
use crate::json;

/// A step of a path.
///
/// Ordered as upstream orders them: fields, then keys, then values, then indices. Numbers are compared by their value,
/// so `1` and `1.0` are equal.
#[derive(Clone, Debug)]
pub enum PathElement {
    /// A field of a struct, or a map's key.
    Field(CompactString),
    /// An element of a list with keys: names and values, sorted by name.
    Key(Box<[(CompactString, Value)]>),
    /// An element of a set.
    Value(Value),
    /// An element of a list without keys.
    Index(i64),
}

impl PathElement {
    /// A field; the name is copied.
    pub fn field(name: &str) -> PathElement {
        PathElement::Field(name.into())
    }

    /// A list element's keys, in any order.
    pub fn key(mut fields: Vec<(CompactString, Value)>) -> PathElement {
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        PathElement::Key(fields.into_boxed_slice())
    }

    /// The field's name.
    pub fn as_field(&self) -> Option<&str> {
        match self {
            PathElement::Field(name) => Some(name),
            _ => None,
        }
    }

    /// Reads `f:name`, `k:{…}`, `v:…` or `i:0`; `None` for a kind that a later version may know.
    pub fn parse(text: &str) -> Result<Option<PathElement>, FieldsError> {
        let bytes = text.as_bytes();
        if bytes.len() < 2 {
            return Err(FieldsError::ShortElement(text.to_owned()));
        }
        if bytes[1] != b':' {
            return Err(FieldsError::MissingColon(text.to_owned()));
        }
        let rest = text.get(2..).unwrap_or_default();
        let value = || json::decode_untyped(rest.as_bytes()).map_err(FieldsError::Json);
        Ok(Some(match bytes[0] {
            b'f' => PathElement::Field(rest.into()),
            b'v' => PathElement::Value(value()?),
            b'k' => match value()? {
                Value::Map(map) => PathElement::Key(map.into_entries().collect()),
                Value::Null => PathElement::Key(Box::default()),
                _ => return Err(FieldsError::Keys(text.to_owned())),
            },
            b'i' => PathElement::Index(rest.parse().map_err(|_| FieldsError::Index(rest.to_owned()))?),
            _ => return Ok(None),
        }))
    }

    /// Appends the element as [`PathElement::parse`] reads it.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            PathElement::Field(name) => {
                out.extend_from_slice(b"f:");
                out.extend_from_slice(name.as_bytes());
            }
            PathElement::Key(fields) => {
                out.extend_from_slice(b"k:{");
                for (i, (name, value)) in fields.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    json::encode_str(name, out);
                    out.push(b':');
                    write_value(value, out);
                }
                out.push(b'}');
            }
            PathElement::Value(value) => {
                out.extend_from_slice(b"v:");
                write_value(value, out);
            }
            PathElement::Index(at) => {
                out.extend_from_slice(b"i:");
                out.extend_from_slice(itoa::Buffer::new().format(*at).as_bytes());
            }
        }
    }
}

/// A value inside an element. Upstream escapes what HTML would take for markup.
fn write_value(value: &Value, out: &mut Vec<u8>) {
    let start = out.len();
    json::encode_value(value, out);
    let special = |byte: &u8| matches!(byte, b'<' | b'>' | b'&');
    let separator = |text: &[u8]| text.windows(2).any(|pair| pair == [0xe2, 0x80]);
    if !out[start..].iter().any(special) && !separator(&out[start..]) {
        return;
    }
    let plain = String::from_utf8_lossy(&out[start..]).into_owned();
    out.truncate(start);
    for c in plain.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
            }
            _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

impl Ord for PathElement {
    fn cmp(&self, other: &PathElement) -> Ordering {
        use PathElement::{Field, Index, Key};
        let rank = |element: &PathElement| match element {
            Field(_) => 0,
            Key(_) => 1,
            PathElement::Value(_) => 2,
            Index(_) => 3,
        };
        match (self, other) {
            (Field(a), Field(b)) => a.as_str().cmp(b.as_str()),
            (Key(a), Key(b)) => {
                let pairs = a.iter().zip(b.iter()).map(|((name, value), (other_name, other_value))| {
                    name.as_str().cmp(other_name.as_str()).then_with(|| compare_values(value, other_value))
                });
                pairs.into_iter().find(|order| order.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            (PathElement::Value(a), PathElement::Value(b)) => compare_values(a, b),
            (Index(a), Index(b)) => a.cmp(b),
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

impl PartialOrd for PathElement {
    fn partial_cmp(&self, other: &PathElement) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for PathElement {
    fn eq(&self, other: &PathElement) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for PathElement {}

impl fmt::Display for PathElement {
    /// As messages write it: `.name`, `[name="a"]`, `[=1]`, `[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathElement::Field(name) => write!(f, ".{name}"),
            PathElement::Key(fields) => {
                f.write_str("[")?;
                for (i, (name, value)) in fields.iter().enumerate() {
                    let comma = if i > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={}", value_text(value))?;
                }
                f.write_str("]")
            }
            PathElement::Value(value) => write!(f, "[={}]", value_text(value)),
            PathElement::Index(at) => write!(f, "[{at}]"),
        }
    }
}

/// A total order of values: numbers (by value), strings, booleans, lists, maps, null.
pub fn compare_values(a: &Value, b: &Value) -> Ordering {
    use Value::{Bool, Float, Int, List, Map, Null, Str};
    let rank = |value: &Value| match value {
        Float(_) | Int(_) => 0,
        Str(_) => 1,
        Bool(_) => 2,
        List(_) => 3,
        Map(_) | Value::Struct(_) => 4,
        Null | Value::Raw(_) => 5,
    };
    let floats = |a: f64, b: f64| a.partial_cmp(&b).unwrap_or(Ordering::Equal);
    match (a, b) {
        (Int(a), Int(b)) => a.cmp(b),
        (Float(a), Float(b)) => floats(*a, *b),
        (Float(a), Int(b)) => floats(*a, *b as f64),
        (Int(a), Float(b)) => floats(*a as f64, *b),
        (Str(a), Str(b)) => a.as_str().cmp(b.as_str()),
        (Bool(a), Bool(b)) => a.cmp(b),
        (List(a), List(b)) => {
            let pairs = a.iter().zip(b).map(|(a, b)| compare_values(a, b));
            pairs.into_iter().find(|order| order.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Map(a), Map(b)) => {
            let pairs =
                a.iter().zip(b.iter()).map(|((k, v), (l, w))| k.cmp(l).then_with(|| compare_values(v, w)));
            pairs.into_iter().find(|order| order.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

/// A value as messages write it.
pub fn value_text(value: &Value) -> String {
    match value {
        Value::Null | Value::Raw(_) | Value::Struct(_) => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Float(n) => {
            let mut out = Vec::new();
            push_float(*n, &mut out);
            String::from_utf8_lossy(&out).into_owned()
        }
        Value::Str(text) => quoted(text),
        Value::List(items) => {
            format!("[{}]", items.iter().map(value_text).collect::<Vec<_>>().join(","))
        }
        Value::Map(map) => map.iter().map(|(key, value)| format!("{key}={}", value_text(value))).collect(),
    }
}
