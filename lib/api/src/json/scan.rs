//! The JSON scanner: white space, strings, numbers, skipping. Texts of syntax errors are Go's.

use std::borrow::Cow;

use super::DecodeError;

/// Deeper nesting is refused. Upstream refuses at 10,000; no object of the API comes near this.
pub(crate) const MAX_DEPTH: u32 = 200;

pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    pos: usize,
}

pub(crate) fn syntax<T>(text: impl Into<String>) -> Result<T, DecodeError> {
    Err(DecodeError::Syntax(text.into()))
}

/// A byte as Go quotes it in syntax errors.
fn quote(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".into(),
        b'"' => "'\"'".into(),
        b'\n' => r"'\n'".into(),
        b'\r' => r"'\r'".into(),
        b'\t' => r"'\t'".into(),
        b'\\' => r"'\\'".into(),
        0x20..0x7f => format!("'{}'", byte as char),
        0..0x20 | 0x7f => format!(r"'\x{byte:02x}'"),
        _ => format!("'{}'", byte as char),
    }
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Scanner<'a> {
        Scanner { bytes, pos: 0 }
    }

    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    pub(crate) fn slice(&self, from: usize) -> &'a [u8] {
        &self.bytes[from..self.pos]
    }

    /// The next byte that is not white space, not consumed.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.bytes.get(self.pos) {
            if byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.pos += 1;
        }
        None
    }

    #[inline]
    pub(crate) fn bump(&mut self) {
        self.pos += 1;
    }

    pub(crate) fn unexpected<T>(&mut self, context: &str) -> Result<T, DecodeError> {
        match self.peek() {
            None => syntax("unexpected end of JSON input"),
            Some(byte) => syntax(format!("invalid character {} {context}", quote(byte))),
        }
    }

    /// Nothing but white space follows.
    pub(crate) fn end(&mut self) -> Result<(), DecodeError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => self.unexpected("after top-level value"),
        }
    }

    /// After `{` or a comma: the next key with its colon, `None` at the closing brace (`first` only).
    pub(crate) fn key(&mut self, first: bool) -> Result<Option<Cow<'a, str>>, DecodeError> {
        match self.peek() {
            Some(b'"') => {}
            Some(b'}') if first => {
                self.bump();
                return Ok(None);
            }
            _ => return self.unexpected("looking for beginning of object key string"),
        }
        let key = self.string()?;
        if self.peek() != Some(b':') {
            return self.unexpected("after object key");
        }
        self.bump();
        Ok(Some(key))
    }

    /// After a member: true if another follows.
    pub(crate) fn another_member(&mut self) -> Result<bool, DecodeError> {
        match self.peek() {
            Some(b',') => {
                self.bump();
                Ok(true)
            }
            Some(b'}') => {
                self.bump();
                Ok(false)
            }
            _ => self.unexpected("after object key:value pair"),
        }
    }

    /// After `[`: true if an element follows.
    pub(crate) fn first_element(&mut self) -> bool {
        if self.peek() == Some(b']') {
            self.bump();
            return false;
        }
        true
    }

    /// After an element: true if another follows.
    pub(crate) fn another_element(&mut self) -> Result<bool, DecodeError> {
        match self.peek() {
            Some(b',') => {
                self.bump();
                Ok(true)
            }
            Some(b']') => {
                self.bump();
                Ok(false)
            }
            _ => self.unexpected("after array element"),
        }
    }

    pub(crate) fn literal(&mut self, word: &'static str) -> Result<(), DecodeError> {
        for (i, expected) in word.bytes().enumerate() {
            match self.bytes.get(self.pos) {
                Some(&byte) if byte == expected => self.pos += 1,
                Some(&byte) => {
                    let text = format!(
                        "invalid character {} in literal {word} (expecting {})",
                        quote(byte),
                        quote(expected)
                    );
                    return syntax(if i == 0 {
                        format!("invalid character {} looking for beginning of value", quote(byte))
                    } else {
                        text
                    });
                }
                None => return syntax("unexpected end of JSON input"),
            }
        }
        Ok(())
    }

    /// A number's text, as JSON allows it.
    pub(crate) fn number(&mut self) -> Result<&'a str, DecodeError> {
        let start = self.pos;
        if self.bytes.get(self.pos) == Some(&b'-') {
            self.pos += 1;
        }
        match self.bytes.get(self.pos) {
            Some(b'0') => self.pos += 1,
            Some(b'1'..=b'9') => self.digits(),
            Some(_) => return self.unexpected("in numeric literal"),
            None => return syntax("unexpected end of JSON input"),
        }
        if self.bytes.get(self.pos) == Some(&b'.') {
            self.pos += 1;
            self.some_digits("after decimal point in numeric literal")?;
        }
        if matches!(self.bytes.get(self.pos), Some(b'e' | b'E')) {
            self.pos += 1;
            if matches!(self.bytes.get(self.pos), Some(b'+' | b'-')) {
                self.pos += 1;
            }
            self.some_digits("in exponent of numeric literal")?;
        }
        std::str::from_utf8(&self.bytes[start..self.pos]).or_else(|_| syntax("invalid number"))
    }

    fn digits(&mut self) {
        while matches!(self.bytes.get(self.pos), Some(b'0'..=b'9')) {
            self.pos += 1;
        }
    }

    fn some_digits(&mut self, context: &str) -> Result<(), DecodeError> {
        match self.bytes.get(self.pos) {
            Some(b'0'..=b'9') => {
                self.digits();
                Ok(())
            }
            Some(&byte) => syntax(format!("invalid character {} {context}", quote(byte))),
            None => syntax("unexpected end of JSON input"),
        }
    }

    /// A string's content; the scanner stands on the opening quote. Bytes that are not UTF-8 become U+FFFD, as in Go.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        let start = self.pos + 1;
        let rest = &self.bytes[start.min(self.bytes.len())..];
        let end = plain_end(rest, 0);
        match rest.get(end) {
            Some(b'"') => {
                self.pos = start + end + 1;
                let raw = &rest[..end];
                Ok(match std::str::from_utf8(raw) {
                    Ok(text) => Cow::Borrowed(text),
                    Err(_) => Cow::Owned(valid(raw).into_owned()),
                })
            }
            Some(b'\\') => self.escaped_string(start, start + end).map(Cow::Owned),
            Some(byte) => syntax(format!("invalid character {} in string literal", quote(*byte))),
            None => syntax("unexpected end of JSON input"),
        }
    }

    #[cold]
    fn escaped_string(&mut self, start: usize, first_escape: usize) -> Result<String, DecodeError> {
        let mut out: Vec<u8> = Vec::with_capacity(first_escape - start + 32);
        out.extend_from_slice(&self.bytes[start..first_escape]);
        self.pos = first_escape;
        loop {
            match self.bytes.get(self.pos) {
                None => return syntax("unexpected end of JSON input"),
                Some(b'"') => {
                    self.pos += 1;
                    return Ok(String::from_utf8(out).unwrap_or_else(|e| valid(e.as_bytes()).into_owned()));
                }
                Some(b'\\') => {
                    self.pos += 1;
                    self.escape(&mut out)?;
                }
                Some(&byte @ 0..0x20) => {
                    return syntax(format!("invalid character {} in string literal", quote(byte)));
                }
                Some(&byte) => {
                    out.push(byte);
                    self.pos += 1;
                }
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let Some(&byte) = self.bytes.get(self.pos) else { return syntax("unexpected end of JSON input") };
        self.pos += 1;
        out.push(match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let c = self.unicode()?;
                let mut buffer = [0; 4];
                out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                return Ok(());
            }
            other => return syntax(format!("invalid character {} in string escape code", quote(other))),
        });
        Ok(())
    }

    fn hex4(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0;
        for _ in 0..4 {
            let Some(&byte) = self.bytes.get(self.pos) else { return syntax("unexpected end of JSON input") };
            let Some(digit) = (byte as char).to_digit(16) else {
                return syntax(format!(
                    "invalid character {} in \\u hexadecimal character escape",
                    quote(byte)
                ));
            };
            value = value * 16 + digit;
            self.pos += 1;
        }
        Ok(value)
    }

    /// After `\u`; an unpaired surrogate becomes U+FFFD.
    fn unicode(&mut self) -> Result<char, DecodeError> {
        let first = self.hex4()?;
        if (0xd800..0xdc00).contains(&first) && self.bytes[self.pos..].starts_with(b"\\u") {
            let back = self.pos;
            self.pos += 2;
            let second = self.hex4()?;
            if (0xdc00..0xe000).contains(&second) {
                let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or('\u{fffd}'));
            }
            self.pos = back;
        }
        Ok(char::from_u32(first).unwrap_or('\u{fffd}'))
    }

    /// Skips one value, checking its syntax.
    pub(crate) fn skip(&mut self, depth: u32) -> Result<(), DecodeError> {
        if depth > MAX_DEPTH {
            return syntax("exceeded max depth");
        }
        match self.peek() {
            Some(b'{') => {
                self.bump();
                let mut first = true;
                while self.key(first)?.is_some() {
                    self.skip(depth + 1)?;
                    if !self.another_member()? {
                        break;
                    }
                    first = false;
                }
                Ok(())
            }
            Some(b'[') => {
                self.bump();
                let mut more = self.first_element();
                while more {
                    self.skip(depth + 1)?;
                    more = self.another_element()?;
                }
                Ok(())
            }
            Some(b'"') => self.string().map(drop),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            _ => self.unexpected("looking for beginning of value"),
        }
    }
}

/// Text in which U+FFFD stands for every byte that is not UTF-8, as Go reads it (and not for every broken character).
pub(crate) fn valid(raw: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(raw) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(raw.len() + 16);
    for chunk in raw.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
    }
    Cow::Owned(out)
}

/// JSON text without the white space between its tokens, and as valid UTF-8.
pub(crate) fn compact(raw: &[u8]) -> String {
    let text = valid(raw);
    if !text.bytes().any(|b| matches!(b, b' ' | b'\n' | b'\r' | b'\t')) {
        return text.into_owned();
    }
    let mut out = String::with_capacity(text.len());
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        if quoted {
            out.push(c);
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => quoted = false,
                _ => {}
            }
        } else if !matches!(c, ' ' | '\n' | '\r' | '\t') {
            quoted = c == '"';
            out.push(c);
        }
    }
    out
}

/// The place of the next byte that cannot stand in a string as it is (a quote, a backslash, a control character), or the end;
/// looked for eight bytes at a time.
#[inline]
pub(super) fn plain_end(bytes: &[u8], from: usize) -> usize {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The high bit of each byte below `n` (at most 128), exact up to the first such byte.
    let below = |word: u64, n: u64| word.wrapping_sub(EACH * n) & !word & HIGH;
    let mut at = from;
    while let Some(eight) = bytes.get(at..at + 8).and_then(|eight| eight.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*eight);
        let quotes = below(word ^ (EACH * u64::from(b'"')), 1);
        let slashes = below(word ^ (EACH * u64::from(b'\\')), 1);
        let found = below(word, 0x20) | quotes | slashes;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + bytes[at..]
        .iter()
        .position(|byte| matches!(byte, 0..0x20 | b'"' | b'\\'))
        .unwrap_or(bytes.len() - at)
}
