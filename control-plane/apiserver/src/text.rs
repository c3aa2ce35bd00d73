//! Walking JSON text without a tree: where strings and values end, and which members an object has.
//!
//! The text was written by our own encoder; what is not JSON is answered with `None`, never with a panic. Every write of an
//! object comes by here, so strings are gone through eight bytes at a time.

use std::ops::Range;

use smallvec::SmallVec;

const EACH: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The high bit of each byte that is zero, exact up to the first such byte.
#[inline]
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(EACH) & !word & HIGH
}

/// The end (after the closing quote) of the string that begins at `at`.
#[inline]
pub fn string_end(json: &[u8], at: usize) -> Option<usize> {
    if json.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        if let Some(eight) = json.get(at..at + 8).and_then(|eight| eight.first_chunk::<8>()) {
            let word = u64::from_le_bytes(*eight);
            let hits = zeros(word ^ (EACH * b'"' as u64)) | zeros(word ^ (EACH * b'\\' as u64));
            if hits == 0 {
                at += 8;
                continue;
            }
            at += hits.trailing_zeros() as usize / 8;
        }
        match json.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The end of the value that begins at `at`.
pub fn value_end(json: &[u8], at: usize) -> Option<usize> {
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
                .position(|b| matches!(b, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t'))
                .unwrap_or(rest.len());
            (len > 0).then_some(at + len)
        }
    }
}

#[inline]
fn skip_space(json: &[u8], mut at: usize) -> usize {
    while matches!(json.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

/// A member's place: its name's text between the quotes, and where its value begins.
struct Begun {
    name: Range<usize>,
    value: usize,
}

/// The member after the brace or comma at `at`.
#[inline]
fn begin(json: &[u8], at: usize, first: bool) -> Option<Begun> {
    let at = skip_space(json, at);
    if json.get(at) != Some(if first { &b'{' } else { &b',' }) {
        return None;
    }
    let start = skip_space(json, at + 1);
    let end = string_end(json, start)?;
    let colon = skip_space(json, end);
    if json.get(colon) != Some(&b':') {
        return None;
    }
    Some(Begun { name: start + 1..end - 1, value: skip_space(json, colon + 1) })
}

/// A member of an object: its name's text between the quotes, and where its value lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    pub name: &'a [u8],
    pub value: Range<usize>,
}

/// The members of the object that begins at `at`, in order; ends early at the first thing that is not JSON.
pub fn members(json: &[u8], at: usize) -> impl Iterator<Item = Member<'_>> {
    let mut next = Some((at, true));
    std::iter::from_fn(move || {
        let (at, first) = next.take()?;
        let begun = begin(json, at, first)?;
        let end = value_end(json, begun.value)?;
        next = Some((end, false));
        Some(Member { name: &json[begun.name], value: begun.value..end })
    })
}

/// The members of an object, and theirs where they were wanted.
#[derive(Debug)]
pub struct Outline<'a> {
    members: SmallVec<[Member<'a>; 4]>,
    /// The members of those that were wanted, with the place of the outer one in `members`.
    inner: SmallVec<[(u32, Member<'a>); 32]>,
}

impl<'a> Outline<'a> {
    /// Walks an object once, no further than to the last of the members that are `wanted`; their own members are told too.
    pub fn of<'w>(json: &'a [u8], wanted: impl Iterator<Item = &'w str> + Clone) -> Outline<'a> {
        let mut outline = Outline { members: SmallVec::new(), inner: SmallVec::new() };
        let mut left = wanted.clone().count();
        let (mut at, mut first) = (0, true);
        while left > 0 {
            let Some(begun) = begin(json, at, std::mem::replace(&mut first, false)) else { break };
            let name = &json[begun.name];
            let wants = wanted.clone().filter(|wanted| wanted.as_bytes() == name).count();
            let end = match json.get(begun.value) {
                Some(b'{') if wants > 0 => outline.open(json, begun.value),
                _ => value_end(json, begun.value),
            };
            let Some(end) = end else { break };
            outline.members.push(Member { name, value: begun.value..end });
            // A name that comes again was not asked for twice.
            left = left.saturating_sub(wants);
            at = end;
        }
        // Of a member that does not end there is nothing.
        let whole = outline.members.len() as u32;
        outline.inner.retain(|(outer, _)| *outer < whole);
        outline
    }

    /// Walks a member that is an object; its end.
    fn open(&mut self, json: &'a [u8], start: usize) -> Option<usize> {
        let outer = self.members.len() as u32;
        let (mut at, mut first) = (start, true);
        loop {
            let close = skip_space(json, if first { start + 1 } else { at });
            if json.get(close) == Some(&b'}') {
                return Some(close + 1);
            }
            let begun = begin(json, at, std::mem::replace(&mut first, false))?;
            let end = value_end(json, begun.value)?;
            self.inner.push((outer, Member { name: &json[begun.name], value: begun.value..end }));
            at = end;
        }
    }

    /// Where a member's value lies.
    pub fn member(&self, name: &str) -> Option<Range<usize>> {
        self.members.iter().find(|member| member.name == name.as_bytes()).map(|member| member.value.clone())
    }

    /// The members of a wanted member.
    pub fn within(&self, name: &str) -> impl Iterator<Item = &Member<'a>> {
        let outer = self.members.iter().position(|member| member.name == name.as_bytes());
        let inner = self.inner.iter();
        inner.filter(move |(of, _)| Some(*of as usize) == outer).map(|(_, member)| member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Strings of all lengths, and escapes at all places, around the eight bytes that are read at once.
    #[test]
    fn strings_end_where_they_end() {
        for length in 0..40 {
            for escape in 0..=length {
                let plain = "x".repeat(length);
                for special in ["", "\\\"", "\\\\", "\\n", "ä", "!#[]", "\u{1}"] {
                    let mut text = plain.clone();
                    text.insert_str(escape, special);
                    let json = format!("\"{text}\"rest");
                    assert_eq!(string_end(json.as_bytes(), 0), Some(text.len() + 2), "{json}");
                    assert_eq!(string_end(&json.as_bytes()[..text.len() + 1], 0), None, "{json}");
                }
            }
        }
        assert_eq!(string_end(b"x\"", 0), None);
        assert_eq!(string_end(b"\"\\", 0), None);
    }

    #[test]
    fn values_end_where_they_end() {
        for value in
            ["1", "true", "null", "\"a,}]\"", "{}", "[]", r#"{"a":[1,{"b":"}\"]"}],"c":{}}"#, "-1.5e3"]
        {
            for after in [",", "}", "]", " ", "\n", ""] {
                assert_eq!(value_end(format!("{value}{after}").as_bytes(), 0), Some(value.len()), "{value}");
            }
        }
        for broken in ["", "{", "[{}", "\"a", "{\"a\":\"}"] {
            assert_eq!(value_end(broken.as_bytes(), 0), None, "{broken}");
        }
    }

    fn told(json: &str, wanted: &[&str]) -> (Vec<String>, Vec<String>) {
        let outline = Outline::of(json.as_bytes(), wanted.iter().copied());
        let text = |member: &Member<'_>| {
            format!("{}={}", String::from_utf8_lossy(member.name), &json[member.value.clone()])
        };
        let inner = wanted.iter().flat_map(|name| outline.within(name).map(text).collect::<Vec<_>>());
        let inner = inner.collect();
        (outline.members.iter().map(text).collect(), inner)
    }

    #[test]
    fn outlines_tell_two_levels_of_what_is_wanted() {
        let json = r#"{"a":{"x":1,"y":{"z":[]}},"b":{"n":"}"},"c":{},"d":{"q":2}}"#;
        let (members, inner) = told(json, &["a", "c"]);
        assert_eq!(members, [r#"a={"x":1,"y":{"z":[]}}"#, r#"b={"n":"}"}"#, "c={}"]);
        assert_eq!(inner, ["x=1", r#"y={"z":[]}"#]);
        // What comes after the last of them is not looked at, be it what it may.
        assert_eq!(told(r#"{"a":{"x":1},oops"#, &["a"]).1, ["x=1"]);
        let (members, inner) = told(" { \"a\" : { \"x\" : 1 , \"y\" : true } , \"b\" : 2 } ", &["a", "none"]);
        assert_eq!((members.len(), inner), (2, vec!["x=1".to_owned(), "y=true".to_owned()]));
        for broken in ["", "[]", r#"{"a""#, r#"{"a":{"x":1"#, r#"{"a":{"x":1,}}"#, r#"{"a":{x}}"#] {
            assert_eq!(told(broken, &["a"]), (vec![], vec![]), "{broken}");
        }
        assert_eq!(told(r#"{"a":[1],"b":{"x":1"#, &["a", "b"]).0, ["a=[1]"]);
    }
}
