//! Reading canonical JSON as bytes: finding members, splicing the revision in, cutting the metadata out, indenting.
//!
//! The input is what the store keeps (written by our own encoder, so it is valid and compact); anything else yields
//! `None`, never a panic.

use std::ops::Range;

use crate::text::{string_end as skip_string, value_end as skip_value};

/// The value of a member of the object that starts at `object`.
pub fn member(bytes: &[u8], object: usize, key: &str) -> Option<Range<usize>> {
    if bytes.get(object) != Some(&b'{') {
        return None;
    }
    let mut at = object + 1;
    while bytes.get(at) == Some(&b'"') {
        let key_end = skip_string(bytes, at)?;
        let found = &bytes[at + 1..key_end - 1] == key.as_bytes();
        let value = key_end + 1;
        let end = skip_value(bytes, value)?;
        if found {
            return Some(value..end);
        }
        if bytes.get(end) != Some(&b',') {
            return None;
        }
        at = end + 1;
    }
    None
}

/// Where the object's metadata lies.
pub fn metadata(bytes: &[u8]) -> Option<Range<usize>> {
    const FIRST: &[u8] = b"{\"metadata\":";
    if bytes.starts_with(FIRST) {
        return Some(FIRST.len()..skip_value(bytes, FIRST.len())?);
    }
    member(bytes, 0, "metadata")
}

/// The offset just behind the opening brace of the object's metadata, found without reading through it.
fn splice_point(bytes: &[u8]) -> Option<usize> {
    const FIRST: &[u8] = b"{\"metadata\":{";
    if bytes.starts_with(FIRST) {
        return Some(FIRST.len());
    }
    let meta = member(bytes, 0, "metadata")?;
    (bytes.get(meta.start) == Some(&b'{')).then_some(meta.start + 1)
}

/// Appends a stored object as clients see it: with `kind`, `apiVersion` and `metadata.resourceVersion`.
pub fn push_object(out: &mut Vec<u8>, api_version: &str, kind: &str, stored: &[u8], revision: u64) {
    out.reserve(stored.len() + kind.len() + api_version.len() + 64);
    push_type_meta(out, api_version, kind);
    push_spliced(out, stored, revision);
}

/// Appends `{"kind":…,"apiVersion":…` without a closing brace.
pub fn push_type_meta(out: &mut Vec<u8>, api_version: &str, kind: &str) {
    out.extend_from_slice(b"{\"kind\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"apiVersion\":\"");
    out.extend_from_slice(api_version.as_bytes());
    out.push(b'"');
}

/// Appends the members of a stored object with the revision, preceded by a comma, and its closing brace.
fn push_spliced(out: &mut Vec<u8>, stored: &[u8], revision: u64) {
    let Some(at) = splice_point(stored) else {
        if stored.len() > 2 {
            out.push(b',');
        }
        out.extend_from_slice(stored.get(1..).unwrap_or(b"}"));
        return;
    };
    out.push(b',');
    out.extend_from_slice(&stored[1..at]);
    // What a dry run would make has none.
    if revision > 0 {
        push_revision(out, revision);
        if stored.get(at) != Some(&b'}') {
            out.push(b',');
        }
    }
    out.extend_from_slice(&stored[at..]);
}

fn push_revision(out: &mut Vec<u8>, revision: u64) {
    out.extend_from_slice(b"\"resourceVersion\":\"");
    out.extend_from_slice(itoa::Buffer::new().format(revision).as_bytes());
    out.push(b'"');
}

/// Appends a PartialObjectMetadata of a stored object; of what is not stored where the revision is 0.
pub fn push_metadata(out: &mut Vec<u8>, version: &str, stored: &[u8], revision: u64) {
    out.extend_from_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/");
    out.extend_from_slice(version.as_bytes());
    out.extend_from_slice(b"\",\"metadata\":{");
    if revision > 0 {
        push_revision(out, revision);
    }
    if let Some(meta) = metadata(stored)
        && meta.len() > 2
    {
        if revision > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&stored[meta.start + 1..meta.end]);
    } else {
        out.push(b'}');
    }
    out.push(b'}');
}

/// Appends compact JSON indented as Go's `json.Indent` with two spaces does it.
pub fn indent(compact: &[u8], out: &mut Vec<u8>) {
    out.reserve(compact.len() * 2);
    let mut depth = 0usize;
    let mut at = 0;
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + depth * 2, b' ');
    };
    while let Some(&byte) = compact.get(at) {
        match byte {
            b'"' => {
                let end = skip_string(compact, at).unwrap_or(compact.len());
                out.extend_from_slice(&compact[at..end]);
                at = end;
                continue;
            }
            b'{' | b'[' => {
                out.push(byte);
                if matches!(compact.get(at + 1), Some(b'}' | b']')) {
                    out.push(compact[at + 1]);
                    at += 2;
                    continue;
                }
                depth += 1;
                line(out, depth);
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b' ' | b'\n' | b'\r' | b'\t' => {}
            other => out.push(other),
        }
        at += 1;
    }
}

/// Appends a JSON string.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    // Writing a string to memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &[u8] =
        br#"{"metadata":{"name":"a","labels":{"x":"}\"{"}},"spec":{"n":[1,2,{"k":null}]},"status":{}}"#;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn objects_get_type_and_revision() {
        assert_eq!(
            text(|out| push_object(out, "v1", "Pod", POD, 42)),
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"42","name":"a","labels":{"x":"}\"{"}},"spec":{"n":[1,2,{"k":null}]},"status":{}}"#
        );
        assert_eq!(
            text(|out| push_object(
                out,
                "e/v1",
                "C",
                br#"{"data":{"metadata":1},"metadata":{"name":"b"}}"#,
                7
            )),
            r#"{"kind":"C","apiVersion":"e/v1","data":{"metadata":1},"metadata":{"resourceVersion":"7","name":"b"}}"#
        );
        assert_eq!(text(|out| push_object(out, "v1", "X", b"{}", 7)), r#"{"kind":"X","apiVersion":"v1"}"#);
    }

    #[test]
    fn metadata_is_cut_out() {
        assert_eq!(
            text(|out| push_metadata(out, "v1", POD, 9)),
            r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"9","name":"a","labels":{"x":"}\"{"}}}"#
        );
    }

    #[test]
    fn members_are_found_at_their_level_only() {
        let value = |key| member(POD, 0, key).map(|range| std::str::from_utf8(&POD[range]).unwrap());
        assert_eq!(value("status"), Some("{}"));
        assert_eq!(value("k"), None);
        assert_eq!(value("spec"), Some(r#"{"n":[1,2,{"k":null}]}"#));
        for broken in [&b"{\"a"[..], b"{\"a\":", b"[", b"", b"{\"a\":\"\\"] {
            assert_eq!(member(broken, 0, "z"), None);
        }
    }

    #[test]
    fn indented_as_go_does() {
        assert_eq!(
            text(|out| indent(br#"{"a":{},"b":[1,{"c":"x,y"}],"d":[]}"#, out)),
            "{\n  \"a\": {},\n  \"b\": [\n    1,\n    {\n      \"c\": \"x,y\"\n    }\n  ],\n  \"d\": []\n}"
        );
    }
}
