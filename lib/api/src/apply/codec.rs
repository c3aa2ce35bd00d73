//! `FieldsV1`: a set of paths as JSON, byte for byte as upstream writes it.

use compact_str::CompactString;

use super::element::PathElement;
use super::set::Set;
use crate::json::scan::{MAX_DEPTH, Scanner};
use crate::json::{self, DecodeError};

/// Why a text is no set of fields.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    #[error("parsing key as path element: key must be 2 characters long: {0:?}")]
    ShortElement(String),
    #[error("parsing key as path element: missing colon: {0}")]
    MissingColon(String),
    #[error("parsing key as path element: {0:?} holds no object of keys")]
    Keys(String),
    #[error("parsing key as path element: {0:?} is no index")]
    Index(String),
    #[error(transparent)]
    Json(DecodeError),
    #[error("expected an object of fields")]
    NotAnObject,
}

/// Appends the set as JSON.
pub fn write(set: &Set, out: &mut Vec<u8>) {
    let mut element = Vec::with_capacity(64);
    write_level(set, false, out, &mut element);
}

/// The set as JSON text.
pub fn to_json(set: &Set) -> CompactString {
    let mut out = Vec::with_capacity(1024);
    write(set, &mut out);
    CompactString::from_utf8_lossy(&out)
}

fn write_level(set: &Set, this: bool, out: &mut Vec<u8>, scratch: &mut Vec<u8>) {
    out.push(b'{');
    let mut first = !this;
    if this && !set.is_empty() {
        out.extend_from_slice(b"\".\":{}");
    }
    for entry in set.entries() {
        if !std::mem::replace(&mut first, false) {
            out.push(b',');
        }
        match &entry.element {
            PathElement::Field(name) if is_plain(name.as_bytes()) => {
                out.extend_from_slice(b"\"f:");
                out.extend_from_slice(name.as_bytes());
                out.push(b'"');
            }
            other => {
                scratch.clear();
                other.write(scratch);
                json::encode_str(&String::from_utf8_lossy(scratch), out);
            }
        }
        out.push(b':');
        write_level(&entry.children, entry.member && !entry.children.is_empty(), out, scratch);
    }
    out.push(b'}');
}

fn is_plain(name: &[u8]) -> bool {
    name.iter().all(|byte| *byte >= b' ' && !matches!(byte, b'"' | b'\\'))
}

/// Reads what [`write`] writes. Kinds of elements that are not known are left out with what lies below them.
pub fn parse(text: &[u8]) -> Result<Set, FieldsError> {
    let mut scan = Scanner::new(text);
    let (set, _) = read_level(&mut scan, 0)?;
    scan.end().map_err(FieldsError::Json)?;
    Ok(set)
}

/// What lies below, and whether the element itself is a member.
fn read_level(scan: &mut Scanner<'_>, depth: u32) -> Result<(Set, bool), FieldsError> {
    if depth > MAX_DEPTH {
        return Err(FieldsError::Json(DecodeError::Syntax("exceeded max depth".into())));
    }
    let mut set = Set::new();
    let mut member = false;
    match scan.peek() {
        Some(b'{') => scan.bump(),
        Some(b'n') => {
            scan.literal("null").map_err(FieldsError::Json)?;
            return Ok((set, true));
        }
        _ => {
            scan.skip(depth).map_err(FieldsError::Json)?;
            return Err(FieldsError::NotAnObject);
        }
    }
    let mut first = true;
    while let Some(key) = scan.key(first).map_err(FieldsError::Json)? {
        first = false;
        if key == "." {
            member = true;
            scan.skip(depth + 1).map_err(FieldsError::Json)?;
        } else {
            match PathElement::parse(&key)? {
                Some(element) => {
                    let (children, this) = read_level(scan, depth + 1)?;
                    set.add(element, this, children);
                }
                None => scan.skip(depth + 1).map_err(FieldsError::Json)?,
            }
        }
        if !scan.another_member().map_err(FieldsError::Json)? {
            break;
        }
    }
    let alone = set.is_empty();
    Ok((set, member || alone))
}
