//! YAML in: one document, turned to JSON and read by the JSON decoder. YAML out: keys sorted, as upstream writes it.

use serde_saphyr::{DuplicateKeyPolicy, Options};

use crate::doc::{Doc, Value};
use crate::json::{DecodeError, FieldValidation, Warning};
use crate::schema::TypeId;

/// Reads an object from YAML; `None` for a custom resource.
///
/// Duplicate keys are reported as the validation says; the last one counts.
pub fn decode(
    ty: Option<TypeId>,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<(Doc, Vec<Warning>), DecodeError> {
    let duplicate = match validation {
        FieldValidation::Ignore => None,
        _ => parse(bytes, DuplicateKeyPolicy::Error).err(),
    };
    let json = to_json(bytes)?;
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

fn parse(bytes: &[u8], duplicate_keys: DuplicateKeyPolicy) -> Result<serde_json::Value, String> {
    let mut options = Options::default();
    options.duplicate_keys = duplicate_keys;
    options.with_snippet = false;
    serde_saphyr::from_slice_with_options(bytes, options).map_err(|error| match error {
        // As go-yaml words it, which clients match on.
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), location } => {
            format!("yaml: unmarshal errors:\n  line {}: key {key:?} already set in map", location.line())
        }
        other => format!("yaml: {other}"),
    })
}

/// The document as JSON bytes. Anchors and aliases are bounded by the reader's budget.
pub fn to_json(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let value = parse(bytes, DuplicateKeyPolicy::LastWins)
        .map_err(|e| DecodeError::Syntax(format!("error converting YAML to JSON: {e}")))?;
    serde_json::to_vec(&value).map_err(|e| DecodeError::Syntax(e.to_string()))
}

/// A document without a schema, and what is wrong with it in a strict reading (a key that stands twice).
pub fn decode_untyped(bytes: &[u8]) -> Result<(Value, Option<String>), DecodeError> {
    // JSON is YAML, and much faster read.
    if let Ok((value, duplicates)) = crate::json::decode_untyped_strict(bytes) {
        return Ok((value, (!duplicates.is_empty()).then(|| duplicates.join(", "))));
    }
    let duplicate = parse(bytes, DuplicateKeyPolicy::Error).err();
    let value = crate::json::decode_untyped(&to_json(bytes)?)?;
    Ok((value, duplicate))
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
        assert!(to_json(text.as_bytes()).is_err());
    }
}
