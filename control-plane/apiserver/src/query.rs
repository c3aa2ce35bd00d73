//! Query parameters, read as Go's `url.ParseQuery` and upstream's parameter codec read them.

use std::borrow::Cow;

/// The decoded pairs of a query, in order.
#[derive(Debug, Default, Clone)]
pub struct Query<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// More pairs than this are not read: no client sends them.
const MAX_PAIRS: usize = 256;

impl<'a> Query<'a> {
    /// Splits and decodes; pairs that hold a semicolon are dropped as Go drops them.
    pub fn parse(raw: &'a str) -> Query<'a> {
        let mut pairs = Vec::new();
        for pair in raw.split('&').take(MAX_PAIRS) {
            if pair.is_empty() || pair.contains(';') {
                continue;
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((form_decode(key), form_decode(value)));
        }
        Query { pairs }
    }

    /// The first value of a key.
    pub fn first(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_ref())
    }

    /// All values of a key.
    pub fn all<'s>(&'s self, key: &'s str) -> impl Iterator<Item = &'s str> {
        self.pairs.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_ref())
    }

    /// A boolean as upstream converts it: absent is false; present is true unless it says `false` or `0`.
    pub fn flag(&self, key: &str) -> bool {
        self.first(key).is_some_and(|value| !(value.eq_ignore_ascii_case("false") || value == "0"))
    }

    /// A boolean that may be absent.
    pub fn optional_flag(&self, key: &str) -> Option<bool> {
        self.first(key).map(|_| self.flag(key))
    }

    /// An integer; empty counts as absent. The error is Go's text.
    pub fn integer(&self, key: &str) -> Result<Option<i64>, String> {
        match self.first(key) {
            None | Some("") => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax")),
        }
    }

    /// The first value that is not empty.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.first(key).filter(|value| !value.is_empty())
    }
}

/// Decodes `%xx`; what is not valid stays as it is.
pub fn percent_decode(raw: &str) -> Cow<'_, str> {
    decode(raw, false)
}

fn form_decode(raw: &str) -> Cow<'_, str> {
    decode(raw, true)
}

fn decode(raw: &str, plus_is_space: bool) -> Cow<'_, str> {
    let bytes = raw.as_bytes();
    if !bytes.iter().any(|b| *b == b'%' || (plus_is_space && *b == b'+')) {
        return Cow::Borrowed(raw);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => match (hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    at += 3;
                    continue;
                }
                _ => out.push(b'%'),
            },
            b'+' if plus_is_space => out.push(b' '),
            other => out.push(other),
        }
        at += 1;
    }
    match String::from_utf8(out) {
        Ok(text) => Cow::Owned(text),
        Err(broken) => Cow::Owned(String::from_utf8_lossy(broken.as_bytes()).into_owned()),
    }
}

fn hex(byte: Option<&u8>) -> Option<u8> {
    char::from(*byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded() {
        let query = Query::parse("labelSelector=a%3Db%2Cc+d&limit=500&watch&x=1&x=2&bad=%zz");
        assert_eq!(query.first("labelSelector"), Some("a=b,c d"));
        assert_eq!(query.integer("limit"), Ok(Some(500)));
        assert!(query.flag("watch"));
        assert_eq!(query.all("x").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(query.first("bad"), Some("%zz"));
    }

    #[test]
    fn booleans_follow_upstream() {
        for (raw, expected) in [
            ("w", true),
            ("w=", true),
            ("w=1", true),
            ("w=true", true),
            ("w=False", false),
            ("w=0", false),
            ("", false),
        ] {
            assert_eq!(Query::parse(raw).flag("w"), expected, "{raw}");
        }
    }

    #[test]
    fn a_bad_integer_is_named() {
        assert_eq!(
            Query::parse("limit=x").integer("limit"),
            Err("strconv.ParseInt: parsing \"x\": invalid syntax".to_owned())
        );
    }
}
