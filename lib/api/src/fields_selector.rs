//! Field selectors: `metadata.name=a,status.phase!=Running`, with upstream's grammar and texts.

use std::fmt;

use thiserror::Error;

/// One term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldTerm {
    pub field: String,
    pub value: String,
    /// False for `!=`.
    pub equal: bool,
}

/// A conjunction of terms; without any it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

/// Why a field selector does not parse or cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FieldSelectorError {
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term { selector: String, term: String },
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
    #[error("invalid field selector: unescaped character in value: {0}")]
    Unescaped(u32),
    #[error("{0}")]
    Unsupported(String),
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == ',' {
            out.push(&text[start..i]);
            start = i + 1;
        }
    }
    if !text.is_empty() {
        out.push(&text[start..]);
    }
    out
}

fn unescape(value: &str) -> Result<String, FieldSelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                Some(other) => return Err(FieldSelectorError::Escape(format!("\\{other}"))),
                None => return Err(FieldSelectorError::Escape("\\".to_owned())),
            },
            ',' | '=' => return Err(FieldSelectorError::Unescaped(c as u32)),
            other => out.push(other),
        }
    }
    Ok(out)
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (i, _) in term.char_indices() {
        for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = term[i..].strip_prefix(operator) {
                return Some((&term[..i], equal, value));
            }
        }
    }
    None
}

impl FieldSelector {
    pub const fn everything() -> FieldSelector {
        FieldSelector { terms: Vec::new() }
    }

    /// `field=value`
    pub fn equals(field: &str, value: &str) -> FieldSelector {
        FieldSelector {
            terms: vec![FieldTerm { field: field.to_owned(), value: value.to_owned(), equal: true }],
        }
    }

    pub fn parse(text: &str) -> Result<FieldSelector, FieldSelectorError> {
        let mut parts = split_terms(text);
        parts.sort_unstable();
        let mut terms = Vec::with_capacity(parts.len());
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let (field, equal, value) = split_term(part).ok_or_else(|| FieldSelectorError::Term {
                selector: text.to_owned(),
                term: part.to_owned(),
            })?;
            terms.push(FieldTerm { field: field.to_owned(), value: unescape(value)?, equal });
        }
        Ok(FieldSelector { terms })
    }

    /// Refuses fields that are not in `selectable` (`metadata.name` and, of namespaced types, `metadata.namespace`
    /// belong in it), with upstream's text. `said` is what a type that declares its own fields says of
    /// another.
    pub fn check(
        &self,
        selectable: &[&str],
        said: Option<fn(&str) -> String>,
    ) -> Result<(), FieldSelectorError> {
        for term in &self.terms {
            if !selectable.contains(&term.field.as_str()) {
                let text = match said {
                    Some(said) => said(&term.field),
                    None => format!(
                        "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                        crate::field_errors::quoted(&term.field)
                    ),
                };
                return Err(FieldSelectorError::Unsupported(text));
            }
        }
        Ok(())
    }

    /// The selector with fields named otherwise: pairs of the name here and the name there. Others stay.
    pub fn renamed(&self, names: &[(&str, &str)]) -> FieldSelector {
        let rename = |field: &str| {
            let pair = names.iter().find(|(from, _)| *from == field);
            pair.map_or(field, |(_, to)| to).to_owned()
        };
        let terms = self.terms.iter().map(|term| FieldTerm { field: rename(&term.field), ..term.clone() });
        FieldSelector { terms: terms.collect() }
    }

    /// Whether all terms hold; a field that `lookup` does not know reads as empty.
    pub fn matches<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|term| (lookup(&term.field).unwrap_or("") == term.value) == term.equal)
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// The value that `field` must have, if a term says so.
    pub fn requires_exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            let operator = if term.equal { "=" } else { "!=" };
            write!(f, "{}{}{operator}{value}", if i > 0 { "," } else { "" }, term.field)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_matches_and_prints() {
        let selector = FieldSelector::parse("status.phase!=Running,metadata.name=a\\,b").unwrap();
        assert_eq!(selector.requires_exact("metadata.name"), Some("a,b"));
        assert_eq!(selector.to_string(), "metadata.name=a\\,b,status.phase!=Running");
        let with = |name: &'static str, phase: &'static str| {
            selector.matches(move |field| match field {
                "metadata.name" => Some(name),
                "status.phase" => Some(phase),
                _ => None,
            })
        };
        assert!(with("a,b", "Pending") && !with("a,b", "Running") && !with("a", "Pending"));
        assert!(FieldSelector::parse("").unwrap().is_everything());
        assert!(FieldSelector::parse("a==b").unwrap().requires_exact("a") == Some("b"));
    }

    #[test]
    fn errors_are_upstreams() {
        let text = |s: &str| FieldSelector::parse(s).unwrap_err().to_string();
        assert_eq!(text("a"), "invalid selector: 'a'; can't understand 'a'");
        assert_eq!(text("a=b=c"), "invalid field selector: unescaped character in value: 61");
        assert_eq!(text("a=\\b"), "invalid field selector: invalid escape sequence: \\b");
        let selector = FieldSelector::parse("spec.x=1").unwrap();
        let refused = selector
            .check(&["metadata.name"], Some(|field| format!("field label not supported: {field}")))
            .unwrap_err();
        assert_eq!(refused.to_string(), "field label not supported: spec.x");
        let renamed = selector.renamed(&[("spec.x", "spec.y"), ("a", "b")]);
        assert_eq!(renamed, FieldSelector::equals("spec.y", "1"));
        assert_eq!(
            selector.check(&["metadata.name"], None).unwrap_err().to_string(),
            "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
    }
}
