//! Just enough JSON to find members in canonical text without a tree. The text was written by our own encoder; what
//! is not JSON is answered with `None`, never with a panic.

use std::borrow::Cow;

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

/// Finds the extents of an object.
pub(super) fn extents(json: &[u8]) -> Result<Extents, &'static str> {
    if json.len() >= u32::MAX as usize {
        return Err("it is too large");
    }
    let metadata =
        Members::new(json, 0).find(|member| member.key == b"metadata").ok_or("it has no metadata")?;
    if json.get(metadata.start) != Some(&b'{') {
        return Err("its metadata is not an object");
    }
    let mut splice = None;
    let mut labels_start = json.len();
    let mut empty = true;
    for member in Members::new(json, metadata.start) {
        empty = false;
        match member.key {
            b"uid" => splice = Some(member.end),
            b"labels" => labels_start = member.start,
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

/// A member of an object: its key's text between the quotes, and where its value begins and ends.
struct Member<'a> {
    key: &'a [u8],
    start: usize,
    end: usize,
}

/// Walks the members of the object that begins at `at`; stops at its end and at the first thing that is not JSON.
struct Members<'a> {
    json: &'a [u8],
    at: usize,
    first: bool,
}

impl<'a> Members<'a> {
    fn new(json: &'a [u8], at: usize) -> Members<'a> {
        Members { json, at, first: true }
    }

    fn step(&mut self) -> Option<Member<'a>> {
        let at = skip_space(self.json, self.at);
        let expected = if self.first { b'{' } else { b',' };
        if self.json.get(at) != Some(&expected) {
            return None;
        }
        self.first = false;
        let key_start = skip_space(self.json, at + 1);
        let key_end = string_end(self.json, key_start)?;
        let colon = skip_space(self.json, key_end);
        if self.json.get(colon) != Some(&b':') {
            return None;
        }
        let start = skip_space(self.json, colon + 1);
        let end = value_end(self.json, start)?;
        self.at = end;
        Some(Member { key: &self.json[key_start + 1..key_end - 1], start, end })
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        let member = self.step();
        if member.is_none() {
            self.at = self.json.len();
        }
        member
    }
}

fn skip_space(json: &[u8], mut at: usize) -> usize {
    while matches!(json.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

/// The end (after the closing quote) of the string that begins at `at`.
fn string_end(json: &[u8], at: usize) -> Option<usize> {
    if json.get(at) != Some(&b'"') {
        return None;
    }
    let mut from = at + 1;
    loop {
        let found = from + memchr::memchr2(b'"', b'\\', json.get(from..)?)?;
        if json[found] == b'"' {
            return Some(found + 1);
        }
        from = found + 2;
    }
}

/// The end of the value that begins at `at`.
fn value_end(json: &[u8], at: usize) -> Option<usize> {
    match json.get(at)? {
        b'"' => string_end(json, at),
        b'{' | b'[' => {
            let mut depth = 0usize;
            let mut from = at;
            loop {
                match json.get(from)? {
                    b'"' => {
                        from = string_end(json, from)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return Some(from + 1);
                        }
                    }
                    _ => {}
                }
                from += 1;
            }
        }
        _ => {
            let rest = json.get(at..)?;
            let len = rest
                .iter()
                .position(|b| matches!(b, b',' | b'}' | b']' | b' ' | b'\n'))
                .unwrap_or(rest.len());
            (len > 0).then_some(at + len)
        }
    }
}

/// The text of the member at a path of object members.
pub(super) fn member_at<'a>(json: &'a [u8], path: &[Box<str>]) -> Option<&'a [u8]> {
    let mut at = 0;
    let mut end = json.len();
    for name in path {
        let member = Members::new(json, at).find(|member| member.key == name.as_bytes())?;
        (at, end) = (member.start, member.end);
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
    Members::new(json, 0)
        .filter_map(|member| Some((unquote(member.key)?, scalar(&json[member.start..member.end])?)))
}

/// A text that has to be decoded first stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Escaped;

/// The value of one member of an object of strings, as its text stands; nothing else is decoded or kept.
pub(super) fn plain_string_member<'a>(json: &'a [u8], key: &str) -> Result<Option<&'a str>, Escaped> {
    let plain = |text: &[u8]| memchr::memchr(b'\\', text).is_none();
    for member in Members::new(json, 0) {
        if !plain(member.key) {
            return Err(Escaped);
        }
        if member.key == key.as_bytes() {
            return match &json[member.start..member.end] {
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
