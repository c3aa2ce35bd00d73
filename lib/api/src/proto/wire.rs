//! Protobuf's wire format.

use crate::json::DecodeError;

pub(crate) fn put_varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

pub(crate) fn varint_len(n: u64) -> usize {
    (64 - (n | 1).leading_zeros() as usize).div_ceil(7)
}

pub(crate) fn put_varint_field(number: u32, n: u64, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3, out);
    put_varint(n, out);
}

pub(crate) fn put_double(number: u32, n: f64, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | 1, out);
    out.extend_from_slice(&n.to_le_bytes());
}

/// What stands before the bytes of a length-delimited field.
pub(crate) fn put_length(number: u32, len: u64, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | 2, out);
    put_varint(len, out);
}

pub(crate) fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_length(number, bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// The length of what [`put_bytes`] appends.
pub(crate) fn bytes_len(number: u32, len: usize) -> usize {
    varint_len(u64::from(number) << 3) + varint_len(len as u64) + len
}

/// Appends a length-delimited field whose content the function writes.
pub(crate) fn put_message(number: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    put_varint(u64::from(number) << 3 | 2, out);
    // Most messages are shorter than 128 bytes: one byte is kept for the length, and the rest moved where it was not enough.
    let at = out.len();
    out.push(0);
    write(out);
    let len = out.len() - at - 1;
    let mut prefix = Vec::new();
    if len < 0x80 {
        out[at] = len as u8;
    } else {
        put_varint(len as u64, &mut prefix);
        out.splice(at..=at, prefix);
    }
}

pub(crate) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

fn broken<T>(text: &str) -> Result<T, DecodeError> {
    Err(DecodeError::Syntax(format!("proto: {text}")))
}

/// A text field. Upstream takes any bytes; here they must be UTF-8.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).or_else(|_| broken("string field contains invalid UTF-8"))
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut n = 0u64;
        for (i, &byte) in self.bytes.iter().enumerate().take(10) {
            n |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.bytes = &self.bytes[i + 1..];
                return Ok(n);
            }
        }
        if self.bytes.len() < 10 { broken("unexpected EOF") } else { broken("integer overflow") }
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], DecodeError> {
        match usize::try_from(len).ok().and_then(|len| self.bytes.split_at_checked(len)) {
            Some((taken, rest)) => {
                self.bytes = rest;
                Ok(taken)
            }
            None => broken("unexpected EOF"),
        }
    }

    /// The next field, `None` at the end.
    pub(crate) fn field(&mut self) -> Result<Option<(u32, Wire<'a>)>, DecodeError> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|n| *n > 0 && *n < 1 << 29);
        let Some(number) = number else { return broken("illegal tag") };
        let value = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?;
                Wire::Fixed64(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
            }
            2 => {
                let len = self.varint()?;
                Wire::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed32)?,
            other => return broken(&format!("illegal wireType {other}")),
        };
        Ok(Some((number, value)))
    }
}
