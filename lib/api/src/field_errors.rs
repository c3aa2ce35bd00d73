//! Field paths and validation errors, with upstream's texts (apimachinery `util/validation/field`).
//!
//! A [`FieldPath`] is a chain of borrowed elements on the stack: building one costs nothing until an error is
//! reported. An [`ErrorList`] becomes a 422 status through [`crate::status::Status::invalid`].

use std::fmt;

/// One element chain such as `spec.containers[0].name`.
#[derive(Clone, Copy, Debug)]
pub struct FieldPath<'a> {
    parent: Option<&'a FieldPath<'a>>,
    element: Element<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Element<'a> {
    Name(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> FieldPath<'a> {
    /// A path that starts at the object's field `name`.
    pub const fn new(name: &'a str) -> FieldPath<'a> {
        FieldPath { parent: None, element: Element::Name(name) }
    }

    /// `self.name`; dots inside `name` are kept as they are.
    pub const fn child(&'a self, name: &'a str) -> FieldPath<'a> {
        FieldPath { parent: Some(self), element: Element::Name(name) }
    }

    /// `self[i]`
    pub const fn index(&'a self, index: usize) -> FieldPath<'a> {
        FieldPath { parent: Some(self), element: Element::Index(index) }
    }

    /// `self[key]`
    pub const fn key(&'a self, key: &'a str) -> FieldPath<'a> {
        FieldPath { parent: Some(self), element: Element::Key(key) }
    }
}

impl fmt::Display for FieldPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.element {
            Element::Name(name) if self.parent.is_some() && !name.is_empty() => write!(f, ".{name}"),
            Element::Name(name) => f.write_str(name),
            Element::Index(index) => write!(f, "[{index}]"),
            Element::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// The kind of a field error; `reason` is the cause's reason on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooShort,
    TooMany,
    TooFew,
    Internal,
    TypeInvalid,
}

impl ErrorKind {
    /// The cause's reason.
    pub const fn reason(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "FieldValueNotFound",
            ErrorKind::Required => "FieldValueRequired",
            ErrorKind::Duplicate => "FieldValueDuplicate",
            ErrorKind::Invalid => "FieldValueInvalid",
            ErrorKind::NotSupported => "FieldValueNotSupported",
            ErrorKind::Forbidden => "FieldValueForbidden",
            ErrorKind::TooLong => "FieldValueTooLong",
            ErrorKind::TooShort => "FieldValueTooShort",
            ErrorKind::TooMany => "FieldValueTooMany",
            ErrorKind::TooFew => "FieldValueTooFew",
            ErrorKind::Internal => "InternalError",
            ErrorKind::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "Not found",
            ErrorKind::Required => "Required value",
            ErrorKind::Duplicate => "Duplicate value",
            ErrorKind::Invalid | ErrorKind::TypeInvalid => "Invalid value",
            ErrorKind::NotSupported => "Unsupported value",
            ErrorKind::Forbidden => "Forbidden",
            ErrorKind::TooLong => "Too long",
            ErrorKind::TooShort => "Too short",
            ErrorKind::TooMany => "Too many",
            ErrorKind::TooFew => "Too few",
            ErrorKind::Internal => "Internal error",
        }
    }

    const fn shows_value(self) -> bool {
        !matches!(
            self,
            ErrorKind::Required
                | ErrorKind::Forbidden
                | ErrorKind::TooLong
                | ErrorKind::TooShort
                | ErrorKind::Internal
        )
    }
}

/// The offending value as it is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadValue {
    /// Nothing is printed.
    Omitted,
    /// A string, printed quoted.
    Str(String),
    /// Numbers, booleans and JSON of anything else, printed as it is.
    Raw(String),
}

impl BadValue {
    /// The JSON of a serialisable value; what cannot be serialised prints as `null`.
    pub fn json(value: &impl serde::Serialize) -> BadValue {
        BadValue::Raw(serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned()))
    }
}

impl From<&str> for BadValue {
    fn from(value: &str) -> BadValue {
        BadValue::Str(value.to_owned())
    }
}

impl From<&String> for BadValue {
    fn from(value: &String) -> BadValue {
        BadValue::Str(value.clone())
    }
}

impl From<String> for BadValue {
    fn from(value: String) -> BadValue {
        BadValue::Str(value)
    }
}

macro_rules! raw_bad_value {
    ($($t:ty),*) => {$(
        impl From<$t> for BadValue {
            fn from(value: $t) -> BadValue {
                BadValue::Raw(value.to_string())
            }
        }
    )*};
}
raw_bad_value!(bool, i32, i64, u16, u32, u64, usize, f64);

/// One mistake in an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    pub kind: ErrorKind,
    pub field: String,
    pub value: BadValue,
    pub detail: String,
}

impl FieldError {
    /// The text without the path: `Invalid value: "x": detail`.
    pub fn body(&self) -> String {
        let mut out = String::from(self.kind.text());
        if self.kind.shows_value() {
            match &self.value {
                BadValue::Omitted => {}
                BadValue::Str(text) => {
                    out.push_str(": ");
                    push_quoted(&mut out, text);
                }
                BadValue::Raw(text) => {
                    out.push_str(": ");
                    out.push_str(text);
                }
            }
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

impl std::error::Error for FieldError {}

/// All mistakes found in an object, in the order they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorList(Vec<FieldError>);

impl ErrorList {
    pub const fn new() -> ErrorList {
        ErrorList(Vec::new())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, FieldError> {
        self.0.iter()
    }

    /// Keeps the mistakes that the predicate says.
    pub fn retain(&mut self, keep: impl FnMut(&FieldError) -> bool) {
        self.0.retain(keep);
    }

    pub fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    pub fn extend(&mut self, other: ErrorList) {
        self.0.extend(other.0);
    }

    fn add(&mut self, kind: ErrorKind, path: &FieldPath<'_>, value: BadValue, detail: impl Into<String>) {
        self.0.push(FieldError { kind, field: path.to_string(), value, detail: detail.into() });
    }

    pub fn required(&mut self, path: &FieldPath<'_>, detail: impl Into<String>) {
        self.add(ErrorKind::Required, path, BadValue::Str(String::new()), detail);
    }

    pub fn invalid(&mut self, path: &FieldPath<'_>, value: impl Into<BadValue>, detail: impl Into<String>) {
        self.add(ErrorKind::Invalid, path, value.into(), detail);
    }

    /// One `Invalid` per message, as name validators return them.
    pub fn invalid_each(
        &mut self,
        path: &FieldPath<'_>,
        value: &str,
        messages: impl IntoIterator<Item = impl Into<String>>,
    ) {
        for message in messages {
            self.invalid(path, value, message);
        }
    }

    pub fn type_invalid(
        &mut self,
        path: &FieldPath<'_>,
        value: impl Into<BadValue>,
        detail: impl Into<String>,
    ) {
        self.add(ErrorKind::TypeInvalid, path, value.into(), detail);
    }

    pub fn duplicate(&mut self, path: &FieldPath<'_>, value: impl Into<BadValue>) {
        self.add(ErrorKind::Duplicate, path, value.into(), "");
    }

    pub fn not_found(&mut self, path: &FieldPath<'_>, value: impl Into<BadValue>) {
        self.add(ErrorKind::NotFound, path, value.into(), "");
    }

    pub fn forbidden(&mut self, path: &FieldPath<'_>, detail: impl Into<String>) {
        self.add(ErrorKind::Forbidden, path, BadValue::Str(String::new()), detail);
    }

    /// `supported` in the order upstream prints it (mostly sorted).
    pub fn not_supported(&mut self, path: &FieldPath<'_>, value: impl Into<BadValue>, supported: &[&str]) {
        let mut detail = String::new();
        for (i, one) in supported.iter().enumerate() {
            detail.push_str(if i == 0 { "supported values: " } else { ", " });
            push_quoted(&mut detail, one);
        }
        self.add(ErrorKind::NotSupported, path, value.into(), detail);
    }

    pub fn too_long(&mut self, path: &FieldPath<'_>, max_bytes: usize) {
        let unit = if max_bytes == 1 { "byte" } else { "bytes" };
        let detail = format!("may not be more than {max_bytes} {unit}");
        self.add(ErrorKind::TooLong, path, BadValue::Omitted, detail);
    }

    pub fn too_long_characters(&mut self, path: &FieldPath<'_>, max: usize) {
        let unit = if max == 1 { "character" } else { "characters" };
        self.add(ErrorKind::TooLong, path, BadValue::Omitted, format!("may not be more than {max} {unit}"));
    }

    pub fn too_many(&mut self, path: &FieldPath<'_>, actual: usize, max: usize) {
        let unit = if max == 1 { "item" } else { "items" };
        self.add(ErrorKind::TooMany, path, actual.into(), format!("must have at most {max} {unit}"));
    }

    pub fn too_few(&mut self, path: &FieldPath<'_>, actual: usize, min: usize) {
        let unit = if min == 1 { "item" } else { "items" };
        self.add(ErrorKind::TooFew, path, actual.into(), format!("must have at least {min} {unit}"));
    }

    pub fn internal(&mut self, path: &FieldPath<'_>, detail: impl Into<String>) {
        self.add(ErrorKind::Internal, path, BadValue::Omitted, detail);
    }

    /// `[a, b]`, or the text alone where there is one; equal texts once. Empty without errors.
    pub fn aggregate(&self) -> String {
        let mut texts: Vec<String> = Vec::with_capacity(self.0.len());
        for error in &self.0 {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        match texts.as_slice() {
            [one] => one.clone(),
            [] => String::new(),
            many => format!("[{}]", many.join(", ")),
        }
    }
}

impl fmt::Display for ErrorList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.aggregate())
    }
}

impl IntoIterator for ErrorList {
    type Item = FieldError;
    type IntoIter = std::vec::IntoIter<FieldError>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Appends `text` quoted as Go's `%q` prints it.
pub fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() || (c.is_whitespace() && c != ' ') => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// `text` quoted as Go's `%q` prints it.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_quoted(&mut out, text);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_upstreams() {
        let spec = FieldPath::new("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        let mut errors = ErrorList::new();
        errors.required(&first.child("name"), "");
        errors.invalid(&first.child("image"), "a\"b\n", "bad");
        errors.invalid(&spec.child("replicas"), -1i64, "must be greater than or equal to 0");
        errors.duplicate(&first.child("env").key("k"), "k");
        errors.not_supported(&spec.child("type"), "X", &["A", "B"]);
        errors.too_long(&spec.child("v"), 1);
        errors.too_many(&spec.child("v"), 3, 2);
        errors.forbidden(&spec, "no");
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "spec.containers[0].name: Required value",
                "spec.containers[0].image: Invalid value: \"a\\\"b\\n\": bad",
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.containers[0].env[k]: Duplicate value: \"k\"",
                "spec.type: Unsupported value: \"X\": supported values: \"A\", \"B\"",
                "spec.v: Too long: may not be more than 1 byte",
                "spec.v: Too many: 3: must have at most 2 items",
                "spec: Forbidden: no",
            ]
        );
        let mut one = ErrorList::new();
        one.required(&spec, "x");
        one.required(&spec, "x");
        assert_eq!(one.aggregate(), "spec: Required value: x");
        one.forbidden(&spec, "y");
        assert_eq!(one.aggregate(), "[spec: Required value: x, spec: Forbidden: y]");
    }
}
