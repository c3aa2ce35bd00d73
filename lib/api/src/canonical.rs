//! Canonical forms of scalar texts: Quantity, Time, MicroTime, base64, floats. Errors are Go's texts.

use compact_str::{CompactString, format_compact};
use jiff::{Timestamp, civil, tz::Offset};

use crate::field_errors::quoted;
use crate::quantity::Quantity;

/// RFC 3339 in UTC with whole seconds, as upstream writes `metav1.Time`.
pub fn time(text: &str) -> Result<CompactString, String> {
    if is_canonical_time(text) {
        return Ok(text.into());
    }
    let at = parse_rfc3339(text).ok_or_else(|| time_error(text, "2006-01-02T15:04:05Z07:00"))?;
    Ok(format_time(at.0))
}

/// RFC 3339 in UTC with six digits, as upstream writes `metav1.MicroTime`.
pub fn micro_time(text: &str) -> Result<CompactString, String> {
    let error = || time_error(text, "2006-01-02T15:04:05.000000Z07:00");
    let (at, digits) = parse_rfc3339(text).ok_or_else(error)?;
    if digits != 6 {
        let layout = "2006-01-02T15:04:05.000000Z07:00";
        let rest = text.get(19..).unwrap_or("");
        return Err(format!(
            "parsing time {} as {layout:?}: cannot parse {} as \".000000\"",
            quoted(text),
            quoted(rest)
        ));
    }
    Ok(format_micro_time(at))
}

/// A time as `metav1.Time` is written.
pub fn format_time(at: Timestamp) -> CompactString {
    let t = Offset::UTC.to_datetime(at);
    format_compact!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        t.year(),
        t.month(),
        t.day(),
        t.hour(),
        t.minute(),
        t.second()
    )
}

/// A time as `metav1.MicroTime` is written.
pub fn format_micro_time(at: Timestamp) -> CompactString {
    let t = Offset::UTC.to_datetime(at);
    format_compact!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        t.year(),
        t.month(),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        t.subsec_nanosecond() / 1000
    )
}

fn is_canonical_time(text: &str) -> bool {
    text.len() == 20 && text.ends_with('Z') && parse_rfc3339(text).is_some()
}

/// The moment and how many digits its second's fraction has. Stricter than jiff: exactly RFC 3339.
pub fn parse_rfc3339(text: &str) -> Option<(Timestamp, usize)> {
    let b = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i32> {
        b.get(from..to)?
            .iter()
            .try_fold(0i32, |n, d| d.is_ascii_digit().then(|| n * 10 + i32::from(d - b'0')))
    };
    let is = |at: usize, byte: u8| b.get(at) == Some(&byte);
    if !(is(4, b'-') && is(7, b'-') && is(10, b'T') && is(13, b':') && is(16, b':')) {
        return None;
    }
    let mut at = 19;
    let mut nanos = 0;
    let mut digits = 0;
    if is(at, b'.') {
        let fraction: &[u8] = b.get(at + 1..)?;
        digits = fraction.iter().take_while(|d| d.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        let padded = fraction[..digits].iter().copied().chain(std::iter::repeat(b'0'));
        nanos = padded.take(9).fold(0, |nanos, digit| nanos * 10 + i32::from(digit - b'0'));
        at += 1 + digits;
    }
    let offset = match b.get(at..)? {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let seconds = number(at + 1, at + 3).filter(|h| *h < 24)? * 3600
                + number(at + 4, at + 6).filter(|m| *m < 60)? * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let small = |n: Option<i32>| n.and_then(|n| i8::try_from(n).ok());
    let date =
        civil::Date::new(i16::try_from(number(0, 4)?).ok()?, small(number(5, 7))?, small(number(8, 10))?)
            .ok()?;
    let time =
        civil::Time::new(small(number(11, 13))?, small(number(14, 16))?, small(number(17, 19))?, nanos)
            .ok()?;
    let at = Offset::from_seconds(offset).ok()?.to_timestamp(date.to_datetime(time)).ok()?;
    Some((at, digits))
}

/// Go's text for a time that does not parse; which part failed is found roughly.
fn time_error(text: &str, layout: &str) -> String {
    let parts = [
        (0, 4, "2006"),
        (4, 5, "-"),
        (5, 7, "01"),
        (7, 8, "-"),
        (8, 10, "02"),
        (10, 11, "T"),
        (11, 13, "15"),
        (13, 14, ":"),
        (14, 16, "04"),
        (16, 17, ":"),
        (17, 19, "05"),
    ];
    for (from, to, name) in parts {
        let fits = text.get(from..to).is_some_and(|part| {
            if name.as_bytes()[0].is_ascii_digit() {
                part.bytes().all(|b| b.is_ascii_digit())
            } else {
                part == name
            }
        });
        if !fits {
            let rest = text.get(from.min(text.len())..).unwrap_or("");
            return format!(
                "parsing time {} as {layout:?}: cannot parse {} as {name:?}",
                quoted(text),
                quoted(rest)
            );
        }
    }
    let rest = text.get(19..).unwrap_or("");
    if layout.contains('.') && !rest.starts_with('.') {
        return format!(
            "parsing time {} as {layout:?}: cannot parse {} as \".000000\"",
            quoted(text),
            quoted(rest)
        );
    }
    let zone = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    if zone == "Z" || (zone.len() == 6 && zone.starts_with(['+', '-'])) {
        return format!("parsing time {}: day out of range", quoted(text));
    }
    format!("parsing time {} as {layout:?}: cannot parse {} as \"Z07:00\"", quoted(text), quoted(zone))
}

/// The quantity in upstream's canonical form.
pub fn quantity(text: &str) -> Result<CompactString, String> {
    // Plain short integers, the most frequent form, are canonical already.
    let bytes = text.as_bytes();
    if (1..=3).contains(&bytes.len())
        && bytes.iter().all(u8::is_ascii_digit)
        && bytes[0] != b'0'
        && !text.ends_with("000")
    {
        return Ok(text.into());
    }
    Quantity::canonical(text).map(CompactString::from).map_err(|e| e.to_string())
}

/// Standard base64 without line breaks.
pub fn base64(text: &str) -> Result<CompactString, String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    if text.is_empty() {
        return Ok(CompactString::default());
    }
    let stripped: std::borrow::Cow<'_, str> =
        if text.contains(['\r', '\n']) { text.replace(['\r', '\n'], "").into() } else { text.into() };
    match STANDARD.decode(stripped.as_bytes()) {
        Ok(bytes) if stripped.len() == text.len() && bytes.len() < usize::MAX / 4 => Ok(text.into()),
        Ok(bytes) => Ok(STANDARD.encode(bytes).into()),
        // Bits beyond the last byte are passed over, as upstream does.
        Err(_) => match read_base64(text.as_bytes()) {
            Ok(bytes) => Ok(STANDARD.encode(bytes).into()),
            Err(at) => Err(format!("illegal base64 data at input byte {at}")),
        },
    }
}

/// Base64 as Go's `base64.StdEncoding` reads it: line breaks anywhere, padding required, whatever bits the last symbol has too
/// many. The error is the byte that Go names.
fn read_base64(text: &[u8]) -> Result<Vec<u8>, usize> {
    let line_break = |at: usize| matches!(text.get(at), Some(b'\r' | b'\n'));
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut symbols, mut count, mut at) = (0u32, 0usize, 0usize);
    while at < text.len() {
        let byte = text[at];
        at += 1;
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'\r' | b'\n' => continue,
            b'=' if count >= 2 => {
                while line_break(at) {
                    at += 1;
                }
                if count == 2 {
                    match text.get(at) {
                        None => return Err(text.len()),
                        Some(b'=') => at += 1,
                        Some(_) => return Err(at - 1),
                    }
                    while line_break(at) {
                        at += 1;
                    }
                }
                if at < text.len() {
                    return Err(at);
                }
                let whole = symbols << (6 * (4 - count));
                out.extend_from_slice(&whole.to_be_bytes()[1..count]);
                return Ok(out);
            }
            _ => return Err(at - 1),
        };
        symbols = symbols << 6 | u32::from(six);
        count += 1;
        if count == 4 {
            out.extend_from_slice(&symbols.to_be_bytes()[1..]);
            (symbols, count) = (0, 0);
        }
    }
    if count == 0 { Ok(out) } else { Err(text.len() - count) }
}

/// A float as Go's encoding/json writes it.
pub fn push_float(n: f64, out: &mut Vec<u8>) {
    use std::io::Write;
    if n == 0.0 {
        out.extend_from_slice(if n.is_sign_negative() { b"-0" } else { b"0" });
        return;
    }
    let magnitude = n.abs();
    if !n.is_finite() {
        out.extend_from_slice(b"null");
    } else if !(1e-6..1e21).contains(&magnitude) {
        // 1e-07 is written 1e-7, 1e+21 stays.
        let text = format!("{n:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let sign = if exponent.starts_with('-') { "" } else { "+" };
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{mantissa}e{sign}{exponent}");
    } else {
        let _ = write!(out, "{n}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_utc_seconds() {
        let cases = [
            ("2024-02-03T04:05:06Z", Ok("2024-02-03T04:05:06Z")),
            ("2024-02-03T04:05:06.999999999Z", Ok("2024-02-03T04:05:06Z")),
            ("2024-01-01T00:30:00+01:00", Ok("2023-12-31T23:30:00Z")),
            ("1969-12-31T23:59:59.5Z", Ok("1969-12-31T23:59:59Z")),
            (
                "2024-02-03",
                Err(
                    "parsing time \"2024-02-03\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"T\"",
                ),
            ),
            ("2024-02-30T04:05:06Z", Err("parsing time \"2024-02-30T04:05:06Z\": day out of range")),
            ("", Err("parsing time \"\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"2006\"")),
        ];
        for (input, expected) in cases {
            assert_eq!(time(input).as_deref().map_err(String::as_str), expected, "{input}");
        }
    }

    #[test]
    fn micro_times_have_six_digits() {
        assert_eq!(
            micro_time("2024-02-03T04:05:06.000100+02:00").as_deref(),
            Ok("2024-02-03T02:05:06.000100Z")
        );
        assert!(micro_time("2024-02-03T04:05:06Z").is_err());
        assert!(micro_time("2024-02-03T04:05:06.0001Z").is_err());
    }

    #[test]
    fn quantities_and_base64() {
        for (input, expected) in
            [("0.5", "500m"), ("1000m", "1"), ("1024Ki", "1Mi"), ("100", "100"), ("1000", "1k"), ("0", "0")]
        {
            assert_eq!(quantity(input).as_deref(), Ok(expected), "{input}");
        }
        assert_eq!(base64("aGVs\r\nbG8=").as_deref(), Ok("aGVsbG8="));
        // As Go's base64.StdEncoding reads them.
        for read in ["YW==\n", "YR==", "YW\n=\n="] {
            assert_eq!(base64(read).as_deref(), Ok("YQ=="), "{read:?}");
        }
        let refused = [
            ("aGVsbG8", 4),
            ("1", 0),
            ("YW=", 3),
            ("YW=a", 2),
            ("YW==x", 4),
            ("Y===", 1),
            ("YW=\n", 4),
            ("!", 0),
            ("aGVs!G8=", 4),
            ("YWI=\nx", 5),
        ];
        for (text, at) in refused {
            assert_eq!(base64(text), Err(format!("illegal base64 data at input byte {at}")), "{text:?}");
        }
    }

    #[test]
    fn floats_read_as_gos() {
        let cases = [
            (1.0, "1"),
            (0.1, "0.1"),
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (1e-7, "1e-7"),
            (0.000001, "0.000001"),
            (-2.5e-10, "-2.5e-10"),
            (1.5e300, "1.5e+300"),
        ];
        for (input, expected) in cases {
            let mut out = Vec::new();
            push_float(input, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }
}
