//! YAML in: one document, turned to JSON and read by the JSON decoder. YAML out: keys sorted, as upstream writes it.

mod tree;

use std::borrow::Cow;

use serde_saphyr::{DuplicateKeyPolicy, MergeKeyPolicy, Options};

use crate::doc::{Doc, Value};
use crate::json::{DecodeError, FieldValidation, Warning};
use crate::schema::TypeId;

use tree::Node;

/// Reads an object from YAML; `None` for a custom resource.
///
/// Duplicate keys are reported as the validation says; the last one counts.
pub fn decode(
    ty: Option<TypeId>,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<(Doc, Vec<Warning>), DecodeError> {
    let (text, plain) = texts(bytes).map_err(DecodeError::Syntax)?;
    let duplicate = match validation {
        FieldValidation::Ignore => None,
        _ => parse(text, text.len(), DuplicateKeyPolicy::Error).err(),
    };
    let json = json_of(&plain, bytes.len())?;
    let decoded = crate::json::decode_any(ty, &json, validation);
    match (duplicate, validation) {
        (None, _) | (_, FieldValidation::Ignore) => decoded,
        (Some(text), FieldValidation::Warn) => {
            decoded.map(|(doc, warnings)| (doc, [vec![text], warnings].concat()))
        }
        (Some(text), FieldValidation::Strict) => match decoded {
            Ok(_) => Err(DecodeError::Strict(vec![text])),
            Err(DecodeError::Strict(more)) => Err(DecodeError::Strict([vec![text], more].concat())),
            Err(other) => Err(other),
        },
    }
}

/// What a document may become beyond its own size, where aliases repeat parts of it.
const REPEATED: usize = 512;
/// So many parts of a document (scalars, beginnings and ends) may stand within anchors, and one for each 32 bytes of it: each is kept
/// for aliases at many times its size, and once for every anchor that it stands in.
const ANCHORED: usize = 1024;
/// As deep as JSON may be.
const DEPTH: usize = 200;

/// The document with its integer keys in quotes, which they are as keys of JSON: from an integer on, the reader keeps what remains
/// of a map at a hundred times its size to find the last of equal keys, which is done here. Maps and lists as keys are refused,
/// which JSON has none of: the reader keeps such a key at four hundred times its size before it finds that out. What is no YAML at
/// all the reader tells itself.
fn with_plain_keys(text: &str) -> Result<Cow<'_, str>, String> {
    use granit_parser::{Event, Parser, ScalarStyle};
    /// What a node that begins now is to the collection around it.
    #[derive(Clone, Copy, PartialEq)]
    enum Next {
        Item,
        Key,
        Value,
    }
    let mut around: Vec<Next> = Vec::new();
    let step = |around: &mut Vec<Next>| match around.last_mut() {
        Some(next @ Next::Key) => *next = Next::Value,
        Some(next @ Next::Value) => *next = Next::Key,
        Some(Next::Item) | None => {}
    };
    // How much of the document stands in the other one.
    let (mut quoted, mut copied) = (String::new(), 0);
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else { break };
        match event {
            Event::Scalar(value, style, ..) => {
                let integer =
                    around.last() == Some(&Next::Key) && style == ScalarStyle::Plain && is_integer(&value);
                if let Some(range) = span.byte_range().filter(|_| integer)
                    && text.get(range.clone()) == Some(&*value)
                    && let Some(before) = text.get(copied..range.start)
                {
                    quoted.extend([before, "\"", &*value, "\""]);
                    copied = range.end;
                }
                step(&mut around);
            }
            Event::Alias(..) => step(&mut around),
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if around.last() == Some(&Next::Key) {
                    return Err("yaml: invalid map key".to_owned());
                }
                // Deeper is refused by the reader; what is noted here stays small.
                if around.len() > DEPTH {
                    break;
                }
                let list = matches!(event, Event::SequenceStart(..));
                around.push(if list { Next::Item } else { Next::Key });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                around.pop();
                step(&mut around);
            }
            _ => {}
        }
    }
    if copied == 0 {
        return Ok(Cow::Borrowed(text));
    }
    quoted.push_str(&text[copied..]);
    Ok(Cow::Owned(quoted))
}

/// Whether a plain scalar may be an integer, in any of YAML's forms.
fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

/// The document as it is, and with its integer keys in quotes.
fn texts(bytes: &[u8]) -> Result<(&str, Cow<'_, str>), String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "yaml: invalid leading UTF-8 octet".to_owned())?;
    Ok((text, with_plain_keys(text)?))
}

/// Reads a text of [`texts`]; the document's own `size` in bytes bounds what is made of it.
fn parse(text: &str, size: usize, duplicate_keys: DuplicateKeyPolicy) -> Result<Node, String> {
    let mut options = Options::default();
    options.duplicate_keys = duplicate_keys;
    options.with_snippet = false;
    // The reader keeps what is merged once for every level of it, at hundreds of times its size.
    options.merge_keys = MergeKeyPolicy::AsOrdinary;
    // Every node takes a byte of the text; only aliases make more of it.
    let most = size + REPEATED;
    options.alias_limits.max_total_replayed_events = most;
    if let Some(budget) = &mut options.budget {
        budget.max_nodes = most;
        budget.max_events = 4 * most;
        budget.max_total_scalar_bytes = 2 * most;
        budget.max_recorded_anchor_events = ANCHORED + size / 32;
        budget.max_recorded_anchor_bytes = most;
        budget.max_depth = DEPTH;
        budget.enforce_alias_anchor_ratio = false;
    }
    let mut document: Node = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| format!("yaml: {}", explain(&error)))?;
    document.merge().map_err(|error| format!("yaml: {error}"))?;
    Ok(document)
}

/// As go-yaml words it, which clients match on.
fn explain(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    use serde_saphyr::budget::BudgetBreach;
    match error {
        Error::DuplicateMappingKey { key: Some(key), location } => {
            format!("unmarshal errors:\n  line {}: key {key:?} already set in map", location.line())
        }
        Error::InvalidUtf8Input => "invalid leading UTF-8 octet".to_owned(),
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => format!("exceeded max depth of {DEPTH}"),
        Error::Budget {
            breach:
                BudgetBreach::Nodes { .. }
                | BudgetBreach::Events { .. }
                | BudgetBreach::ScalarBytes { .. }
                | BudgetBreach::RecordedAnchorEvents { .. }
                | BudgetBreach::RecordedAnchorBytes { .. },
            ..
        }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => "document contains excessive aliasing".to_owned(),
        Error::AliasError { error, .. } => explain(error),
        // The reader's own limit on brackets comes as a text.
        other => match other.to_string() {
            text if text.starts_with("recursion limit exceeded") => format!("exceeded max depth of {DEPTH}"),
            text => text,
        },
    }
}

/// The document as JSON bytes. What aliases make of it is bounded by its size.
pub fn to_json(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let (_, plain) = texts(bytes).map_err(DecodeError::Syntax)?;
    json_of(&plain, bytes.len())
}

fn json_of(plain: &str, size: usize) -> Result<Vec<u8>, DecodeError> {
    let document = parse(plain, size, DuplicateKeyPolicy::LastWins).map_err(DecodeError::Syntax)?;
    serde_json::to_vec(&document).map_err(|e| DecodeError::Syntax(e.to_string()))
}

/// A document without a schema, and what is wrong with it in a strict reading (a key that stands twice).
pub fn decode_untyped(bytes: &[u8]) -> Result<(Value, Option<String>), DecodeError> {
    // JSON is YAML, and much faster read.
    if let Ok((value, duplicates)) = crate::json::decode_untyped_strict(bytes) {
        return Ok((value, (!duplicates.is_empty()).then(|| duplicates.join(", "))));
    }
    let converting =
        |error: DecodeError| DecodeError::Syntax(format!("error converting YAML to JSON: {error}"));
    let (text, plain) = texts(bytes).map_err(DecodeError::Syntax).map_err(converting)?;
    let duplicate = parse(text, text.len(), DuplicateKeyPolicy::Error).err();
    let json = json_of(&plain, bytes.len()).map_err(converting)?;
    Ok((crate::json::decode_untyped(&json)?, duplicate))
}

/// The object as YAML.
pub fn encode(doc: &Doc) -> Vec<u8> {
    let value = crate::doc::to_json_value(doc);
    // Only maps, lists and scalars: nothing that YAML cannot write.
    serde_saphyr::to_string(&value).unwrap_or_default().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::t;

    #[test]
    fn yaml_reads_as_json_does() {
        let text = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  x: \"1\"\n  y: |\n    two\n    lines\n";
        let (doc, warnings) =
            decode(Some(t::core_v1::CONFIG_MAP), text, FieldValidation::Strict).expect("reads");
        assert!(warnings.is_empty());
        assert_eq!((doc.gvk.kind.as_str(), doc.meta().name()), ("ConfigMap", "a"));
        assert_eq!(
            doc.map(&[crate::f::core_v1::config_map::DATA]).and_then(|d| d.get_str("y")),
            Some("two\nlines\n")
        );
        let again = decode(Some(t::core_v1::CONFIG_MAP), &encode(&doc), FieldValidation::Strict)
            .expect("reads again");
        assert_eq!(again.0, doc);
    }

    #[test]
    fn duplicates_are_reported_and_the_last_counts() {
        let text = b"metadata: {name: a}\ndata:\n  x: a\n  x: b\n";
        let (doc, warnings) =
            decode(Some(t::core_v1::CONFIG_MAP), text, FieldValidation::Warn).expect("reads");
        assert_eq!(doc.map(&[crate::f::core_v1::config_map::DATA]).and_then(|d| d.get_str("x")), Some("b"));
        assert_eq!(warnings, ["yaml: unmarshal errors:\n  line 4: key \"x\" already set in map"]);
        assert!(matches!(
            decode(Some(t::core_v1::CONFIG_MAP), text, FieldValidation::Strict),
            Err(DecodeError::Strict(_))
        ));
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
        for (name, before) in ('b'..='k').zip('a'..) {
            text.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 9].join(",")));
        }
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1000), vec!["*a"; 400].join(","));
        let nested: String = (0..50).map(|depth| format!("[&a{depth} ")).collect();
        let nested = format!("{nested}[{}1]{}", "1,".repeat(300), "]".repeat(50));
        for bomb in [text, long, nested] {
            let said = to_json(bomb.as_bytes()).unwrap_err().to_string();
            assert_eq!(said, "yaml: document contains excessive aliasing");
        }
        let fair = format!("a: &a {{x: 1}}\nb: [{}]\n", vec!["*a"; 100].join(","));
        assert!(to_json(fair.as_bytes()).is_ok(), "what people write by hand is read");
        let large = format!("a: &a {{b: [{}1]}}\nc: *a\n", "1, ".repeat(1000));
        assert!(to_json(large.as_bytes()).is_ok(), "and an anchor over most of a page");
    }

    #[test]
    fn merge_keys_fill_in_what_a_map_does_not_say() {
        let json = |text: &str| String::from_utf8(to_json(text.as_bytes()).expect("reads")).expect("text");
        let two = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\n";
        let of = |text: String| {
            serde_json::from_str::<serde_json::Value>(&json(&text)).expect("JSON")["c"].clone()
        };
        assert_eq!(of(format!("{two}c: {{<<: *a, y: 3}}")), serde_json::json!({"x": 1, "y": 3}));
        assert_eq!(
            of(format!("{two}c:\n  y: 3\n  <<: [*b, *a]")),
            serde_json::json!({"x": 1, "y": 3, "z": 2})
        );
        assert_eq!(
            of(format!("{two}c: {{<<: {{<<: *a, z: 9}}}}")),
            serde_json::json!({"x": 1, "y": 1, "z": 9})
        );
        let said = to_json(b"a: {<<: 1}").unwrap_err().to_string();
        assert_eq!(said, "yaml: map merge requires map or sequence of maps as the value");
    }

    #[test]
    fn a_key_is_a_scalar() {
        for refused in
            ["{a: 1}: b", "? [a]\n: b", "x: {{a: 1}: 2}", "- {[1]: 2}", "{{1, 2}}", "a: b\n? {c: d}"]
        {
            let said = to_json(refused.as_bytes()).unwrap_err().to_string();
            assert_eq!(said, "yaml: invalid map key", "{refused}");
        }
        for read in [
            "a: {b: {c: [1, {d: 2}]}}\ne: [f]",
            "? a\n: b",
            "- a: 1\n  b: [c]\n- {}",
            "x: &x {a: 1}\ny: *x\nz: 1",
        ] {
            assert!(to_json(read.as_bytes()).is_ok(), "{read}");
        }
    }

    #[test]
    fn integers_are_keys_as_they_stand() {
        let json = |text: &str| String::from_utf8(to_json(text.as_bytes()).expect("reads")).expect("text");
        assert_eq!(json("1: a\n1: b\n? 2\n: c\n\"3\": d\n3: e"), r#"{"1":"b","2":"c","3":"e"}"#);
        assert_eq!(
            json("{1, 2: {-3: 4, 0x5 : 6}, a: [7: 8, 9]}"),
            r#"{"1":null,"2":{"-3":4,"0x5":6},"a":[{"7":8},9]}"#
        );
        assert_eq!(json("&x 1: *x\ny: 1\n1.5: z"), r#"{"1":"1","1.5":"z","y":1}"#);
    }

    #[test]
    fn what_is_no_yaml_is_told_as_go_tells_it() {
        let said = |bytes: &[u8]| to_json(bytes).unwrap_err().to_string();
        assert_eq!(said(b"a: \xff\xfe"), "yaml: invalid leading UTF-8 octet");
        assert_eq!(said("[".repeat(300).as_bytes()), "yaml: exceeded max depth of 200");
    }
}
