//! JSON in and out, by schema.

mod decode;
mod encode;
pub(crate) mod scan;

pub(crate) use decode::{go_type_name, is_kept};
pub(crate) use encode::{Absent, absent, is_omitted};

use crate::doc::{Doc, Value};
use crate::schema::{Kind, TypeId};

/// What the client asked for on unknown and duplicate fields (`fieldValidation=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// What to tell the client in a `Warning` header: `unknown field "spec.foo"`, `duplicate field "spec.bar"`.
pub type Warning = String;

/// Why a body could not be read. The texts are upstream's, so that clients see what they know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON (YAML, protobuf), or beyond a limit on depth.
    #[error("{0}")]
    Syntax(String),
    /// A value of another type than the schema's.
    #[error("{0}")]
    Type(String),
    /// All unknown and duplicate fields, under [`FieldValidation::Strict`].
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
    /// The object says another apiVersion or kind than asked for, or none.
    #[error("{0}")]
    TypeMeta(String),
}

/// Reads an object of a built-in type. `apiVersion` and `kind` go to [`Doc::gvk`] as they are (empty where absent).
pub fn decode(
    ty: TypeId,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<(Doc, Vec<Warning>), DecodeError> {
    decode_any(Some(ty), bytes, validation)
}

/// Reads an object of a built-in type, or (`None`) a custom resource: typed metadata, untyped below.
pub fn decode_any(
    ty: Option<TypeId>,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<(Doc, Vec<Warning>), DecodeError> {
    decode::document(ty, bytes, validation)
}

/// Reads a value of the kind (part of an object).
pub fn decode_value(kind: Kind, bytes: &[u8]) -> Result<Value, DecodeError> {
    decode::value(kind, bytes)
}

/// Reads JSON without a schema: objects become maps with sorted keys.
pub fn decode_untyped(bytes: &[u8]) -> Result<Value, DecodeError> {
    decode::untyped(bytes).map(|(value, _)| value)
}

/// As [`decode_untyped`], with the duplicate fields found.
pub fn decode_untyped_strict(bytes: &[u8]) -> Result<(Value, Vec<Warning>), DecodeError> {
    decode::untyped(bytes)
}

/// `apiVersion` and `kind` of an object without reading the rest into a tree.
///
/// The error's text is upstream's: `couldn't get version/kind; json parse error: …`.
pub fn peek_type_meta(bytes: &[u8]) -> Result<(String, String), DecodeError> {
    let wrap =
        |e: DecodeError| DecodeError::Syntax(format!("couldn't get version/kind; json parse error: {e}"));
    let mut scan = scan::Scanner::new(bytes);
    let mut found = (String::new(), String::new());
    if scan.peek() != Some(b'{') {
        scan.skip(0).map_err(wrap)?;
        let what = match bytes.iter().find(|b| !b.is_ascii_whitespace()) {
            Some(b'[') => "array",
            Some(b'"') => "string",
            Some(b't' | b'f') => "bool",
            Some(b'n') => return Ok(found),
            _ => "number",
        };
        let text = format!(
            "json: cannot unmarshal {what} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
        );
        return Err(wrap(DecodeError::Type(text)));
    }
    let mut walk = || -> Result<(), DecodeError> {
        scan.bump();
        let mut first = true;
        while let Some(key) = scan.key(first)? {
            let slot = match key.as_ref() {
                "apiVersion" => Some(&mut found.0),
                "kind" => Some(&mut found.1),
                _ => None,
            };
            match (slot, scan.peek()) {
                (Some(slot), Some(b'"')) => *slot = scan.string()?.into_owned(),
                (Some(_), Some(b'{' | b'[' | b't' | b'f' | b'-' | b'0'..=b'9')) => {
                    return Err(DecodeError::Type(format!(
                        "json: cannot unmarshal value into Go struct field .{key} of type string"
                    )));
                }
                _ => scan.skip(1)?,
            }
            if !scan.another_member()? {
                break;
            }
            first = false;
        }
        scan.end()
    };
    walk().map_err(wrap)?;
    Ok(found)
}

/// What [`encode_canonical`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// `kind` and `apiVersion` of the root.
    pub type_meta: bool,
    /// `metadata.resourceVersion` of the root.
    pub resource_version: bool,
}

impl EncodeOptions {
    /// What clients get.
    pub const FULL: EncodeOptions = EncodeOptions { type_meta: true, resource_version: true };
    /// What the store keeps.
    pub const STORED: EncodeOptions = EncodeOptions { type_meta: false, resource_version: false };
}

/// Appends the object as canonical JSON: schema order, Go's rules on empty values, no white space.
pub fn encode_canonical(doc: &Doc, options: EncodeOptions, out: &mut Vec<u8>) {
    encode::document(doc, options, out);
}

/// Appends one value as canonical JSON.
pub fn encode_value(value: &Value, out: &mut Vec<u8>) {
    encode::value(value, out);
}

/// Appends a JSON string.
pub fn encode_str(text: &str, out: &mut Vec<u8>) {
    encode::string(text, out);
}

#[cfg(test)]
mod tests;
