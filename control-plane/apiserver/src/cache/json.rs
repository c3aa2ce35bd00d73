//! Just enough JSON to find members in canonical text without a tree. The text was written by our own encoder; what
//! is not JSON is answered with `None`, never with a panic.

use std::borrow::Cow;

use crate::text::{Outline, members};

pub(super) const METADATA_NAME: &str = "metadata";
pub(super) const METADATA: &[u8] = br#""metadata":"#;
/// What is spliced in; the closing quote and a comma follow the number.
pub(super) const RESOURCE_VERSION: &[u8] = br#""resourceVersion":""#;

/// Where the parts of an object lie in its JSON.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extents {
    /// The opening brace of the metadata's value.
    pub meta_start: u32,
    /// After its closing brace.
    pub meta_end: u32,
    /// Where `resourceVersion` goes.
    pub splice: u32,
    /// The opening brace of the labels, or the end of the text where there are none.
    pub labels_start: u32,
    /// A comma follows the spliced member instead of going before it.
    pub splice_first: bool,
}

/// Finds the extents of an object in its outline, which was asked for [`METADATA_NAME`].
pub(super) fn extents(json: &[u8], outline: &Outline<'_>) -> Result<Extents, &'static str> {
    if json.len() >= u32::MAX as usize {
        return Err("it is too large");
    }
    let metadata = outline.member(METADATA_NAME).ok_or("it has no metadata")?;
    if json.get(metadata.start) != Some(&b'{') {
        return Err("its metadata is not an object");
    }
    let mut splice = None;
    let mut labels_start = json.len();
    let mut empty = true;
    for member in outline.within(METADATA_NAME) {
        empty = false;
        match member.name {
            b"uid" => splice = Some(member.value.end),
            b"labels" => labels_start = member.value.start,
            _ => {}
        }
    }
    // Metadata without a uid takes it first; without members at all no comma is right, and no such object is served.
    let (splice, splice_first) = match splice {
        Some(at) => (at, false),
        None if empty => return Err("its metadata is empty"),
        None => (metadata.start + 1, true),
    };
    Ok(Extents {
        meta_start: metadata.start as u32,
        meta_end: metadata.end as u32,
        splice: splice as u32,
        labels_start: labels_start as u32,
        splice_first,
    })
}

/// The text of the member at a path of object members.
pub(super) fn member_at<'a>(json: &'a [u8], path: &[Box<str>]) -> Option<&'a [u8]> {
    let mut at = 0;
    let mut end = json.len();
    for name in path {
        let member = members(json, at).find(|member| member.name == name.as_bytes())?;
        (at, end) = (member.value.start, member.value.end);
    }
    json.get(at..end)
}

/// A string's, number's or boolean's text; `None` for null, objects and lists.
pub(super) fn scalar(value: &[u8]) -> Option<Cow<'_, str>> {
    match value.first()? {
        b'"' => unquote(value.get(1..value.len() - 1)?),
        b'{' | b'[' | b'n' => None,
        _ => std::str::from_utf8(value).ok().map(Cow::Borrowed),
    }
}

/// The members of an object of strings.
pub(super) fn string_members(json: &[u8]) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    members(json, 0).filter_map(|member| Some((unquote(member.name)?, scalar(&json[member.value])?)))
}

/// A text that has to be decoded first stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Escaped;

/// The value of one member of an object of strings, as its text stands; nothing else is decoded or kept.
pub(super) fn plain_string_member<'a>(json: &'a [u8], key: &str) -> Result<Option<&'a str>, Escaped> {
    let plain = |text: &[u8]| memchr::memchr(b'\\', text).is_none();
    for member in members(json, 0) {
        if !plain(member.name) {
            return Err(Escaped);
        }
        if member.name == key.as_bytes() {
            return match &json[member.value] {
                [b'"', text @ .., b'"'] if plain(text) => {
                    std::str::from_utf8(text).map(Some).map_err(|_| Escaped)
                }
                _ => Err(Escaped),
            };
        }
    }
    Ok(None)
}

fn unquote(text: &[u8]) -> Option<Cow<'_, str>> {
    if memchr::memchr(b'\\', text).is_none() {
        return std::str::from_utf8(text).ok().map(Cow::Borrowed);
    }
    let mut quoted = Vec::with_capacity(text.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(text);
    quoted.push(b'"');
    serde_json::from_slice::<String>(&quoted).ok().map(Cow::Owned)
}
