//! `resource.Quantity`: a fixed-point number with a suffix, in upstream's canonical form.
//!
//! Held as an exact number of 10⁻⁹ units in 128 bits with the format it was written in. Numbers beyond ±10²⁸ are
//! clamped (upstream's own arithmetic ends at 2⁶³ for most of them).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// How a quantity is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySi,
    /// `12M`
    DecimalSi,
}

/// Why a text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Number,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// A resource amount.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

const NANO: i128 = 1_000_000_000;
const LIMIT: i128 = 10_000_000_000_000_000_000_000_000_000 * NANO;

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Default for Quantity {
    fn default() -> Quantity {
        Quantity::ZERO
    }
}

enum Scale {
    Ten(i32, Format),
    Two(u32),
}

fn suffix_scale(suffix: &str) -> Option<Scale> {
    use Format::{DecimalExponent, DecimalSi};
    Some(match suffix {
        "" => Scale::Ten(0, DecimalSi),
        "n" => Scale::Ten(-9, DecimalSi),
        "u" => Scale::Ten(-6, DecimalSi),
        "m" => Scale::Ten(-3, DecimalSi),
        "k" => Scale::Ten(3, DecimalSi),
        "M" => Scale::Ten(6, DecimalSi),
        "G" => Scale::Ten(9, DecimalSi),
        "T" => Scale::Ten(12, DecimalSi),
        "P" => Scale::Ten(15, DecimalSi),
        "E" => Scale::Ten(18, DecimalSi),
        "Ki" => Scale::Two(10),
        "Mi" => Scale::Two(20),
        "Gi" => Scale::Two(30),
        "Ti" => Scale::Two(40),
        "Pi" => Scale::Two(50),
        "Ei" => Scale::Two(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            Scale::Ten(exponent.parse::<i64>().ok()?.clamp(-100, 100) as i32, DecimalExponent)
        }
    })
}

/// `digits × 10^exponent` in nanos, rounded away from zero, clamped.
fn scale_ten(digits: &[u8], exponent: i32) -> Option<i128> {
    let mut value: i128 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.saturating_mul(10).saturating_add(i128::from(digit - b'0'));
        if value > LIMIT {
            // More digits only make it larger unless the exponent cuts them off again: fall back on counting.
            return Some(scale_long(digits, exponent));
        }
    }
    let shift = exponent + 9;
    if value == 0 {
        return Some(0);
    }
    if shift >= 0 {
        let mut out = value;
        for _ in 0..shift {
            out = out.saturating_mul(10);
            if out > LIMIT {
                return Some(LIMIT);
            }
        }
        Some(out)
    } else {
        let mut out = value;
        let mut inexact = false;
        for _ in 0..-shift {
            inexact |= out % 10 != 0;
            out /= 10;
            if out == 0 {
                break;
            }
        }
        Some(out + i128::from(inexact))
    }
}

/// As [`scale_ten`] for more digits than fit: cut to the digits that count in nanos.
fn scale_long(digits: &[u8], exponent: i32) -> i128 {
    let shift = exponent + 9;
    let kept = digits.len() as i64 + i64::from(shift);
    if kept <= 0 {
        return 1;
    }
    if kept > 37 {
        return LIMIT;
    }
    let mut value: i128 = 0;
    for i in 0..kept as usize {
        let digit = digits.get(i).map_or(0, |d| i128::from(d - b'0'));
        value = value.saturating_mul(10).saturating_add(digit);
    }
    let rest = digits.iter().skip(kept as usize).any(|d| *d != b'0');
    (value + i128::from(rest)).min(LIMIT)
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    /// Parses and normalises as upstream's `ParseQuantity`.
    pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
        if text.is_empty() || text.len() > 256 {
            return Err(QuantityError::Format);
        }
        let (negative, rest) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.bytes().position(|b| !b.is_ascii_digit() && b != b'.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let letters = suffix.bytes().position(|b| !b"eEinumkKMGTP".contains(&b)).unwrap_or(suffix.len());
        let tail = suffix[letters..].strip_prefix(['-', '+']).unwrap_or(&suffix[letters..]);
        if !tail.bytes().all(|b| b.is_ascii_digit()) {
            return Err(QuantityError::Format);
        }
        if number.is_empty() {
            return Err(QuantityError::Number);
        }
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') {
            return Err(QuantityError::Format);
        }
        let scale = suffix_scale(suffix).ok_or(QuantityError::Suffix)?;
        if whole.is_empty() && fraction.is_empty() {
            return Err(QuantityError::Number);
        }
        let mut digits = smallvec::SmallVec::<[u8; 40]>::from_slice(whole.trim_start_matches('0').as_bytes());
        digits.extend_from_slice(fraction.as_bytes());
        let (mut nanos, mut format) = match scale {
            Scale::Ten(exponent, format) => {
                let nanos =
                    scale_ten(&digits, exponent - fraction.len() as i32).ok_or(QuantityError::Number)?;
                (nanos, format)
            }
            Scale::Two(bits) => {
                let nanos = scale_two(&digits, fraction.len(), bits).ok_or(QuantityError::Number)?;
                (nanos.min(i128::from(i64::MAX) * NANO), Format::BinarySi)
            }
        };
        if format == Format::BinarySi && nanos > 0 && nanos < NANO {
            format = Format::DecimalSi;
        }
        if negative {
            nanos = -nanos;
        }
        Ok(Quantity { nanos, format })
    }

    /// A whole number in a format.
    pub fn from_i64(value: i64, format: Format) -> Quantity {
        Quantity { nanos: i128::from(value) * NANO, format }
    }

    /// Thousandths (`100m`).
    pub fn from_millis(value: i64) -> Quantity {
        Quantity { nanos: i128::from(value) * (NANO / 1000), format: Format::DecimalSi }
    }

    pub fn format(self) -> Format {
        self.format
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn sign(self) -> i32 {
        self.nanos.signum() as i32
    }

    /// The value rounded up to a whole number (upstream's `Value`), clamped to 64 bits.
    pub fn value(self) -> i64 {
        round_up(self.nanos, NANO)
    }

    /// The value in thousandths, rounded up (upstream's `MilliValue`), clamped to 64 bits.
    pub fn milli_value(self) -> i64 {
        round_up(self.nanos, NANO / 1000)
    }

    /// Whether there are no thousandths of a part left over.
    pub fn is_whole(self) -> bool {
        self.nanos % NANO == 0
    }

    pub fn as_f64(self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    /// Adds; the format is this one's unless this one is zero.
    #[must_use]
    pub fn plus(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nanos: (self.nanos + other.nanos).clamp(-LIMIT, LIMIT), format }
    }

    /// Subtracts; the format is this one's unless this one is zero.
    #[must_use]
    pub fn minus(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nanos: (self.nanos - other.nanos).clamp(-LIMIT, LIMIT), format }
    }

    /// The canonical text of `text`, or why it is none. Texts that are canonical already come back unchanged.
    pub fn canonical(text: &str) -> Result<String, QuantityError> {
        Quantity::parse(text.trim()).map(|quantity| quantity.to_string())
    }
}

fn round_up(nanos: i128, unit: i128) -> i64 {
    let whole = nanos / unit;
    let up = if nanos % unit == 0 { whole } else { whole + nanos.signum() };
    up.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

fn scale_two(digits: &[u8], fraction: usize, bits: u32) -> Option<i128> {
    // digits × 2^bits / 10^fraction; anything above 2^63 is capped by the caller.
    let mut value: i128 = 0;
    for (i, digit) in digits.iter().enumerate() {
        if !digit.is_ascii_digit() {
            return None;
        }
        if i >= digits.len().saturating_sub(fraction) && i + fraction >= digits.len() + 12 {
            break;
        }
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0')).unwrap_or(i128::MAX);
        if value > i128::from(u64::MAX) * NANO {
            return Some(i128::from(i64::MAX) * NANO);
        }
    }
    let used_fraction = fraction.min(12);
    let mut numerator = match value.checked_mul(1i128 << bits) {
        Some(n) => n,
        None => return Some(i128::from(i64::MAX) * NANO),
    };
    let mut shift = 9 - used_fraction as i32;
    while shift > 0 {
        numerator = match numerator.checked_mul(10) {
            Some(n) => n,
            None => return Some(i128::from(i64::MAX) * NANO),
        };
        shift -= 1;
    }
    let mut inexact = false;
    while shift < 0 {
        inexact |= numerator % 10 != 0;
        numerator /= 10;
        shift += 1;
    }
    Some(numerator + i128::from(inexact))
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANO;
        let binary = self.format == Format::BinarySi && !small && self.nanos % NANO == 0;
        if binary {
            let mut value = self.nanos / NANO;
            let mut exponent = 0;
            while value % 1024 == 0 && exponent < 6 {
                value /= 1024;
                exponent += 1;
            }
            return write!(f, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][exponent]);
        }
        let mut value = self.nanos;
        let mut exponent = -9;
        while value % 1000 == 0 && (exponent < 18 || self.format == Format::DecimalExponent) {
            value /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent {
            if exponent == 0 { write!(f, "{value}") } else { write!(f, "{value}e{exponent}") }
        } else {
            let index = ((exponent + 9) / 3) as usize;
            write!(f, "{value}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][index])
        }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Quantity, QuantityError> {
        Quantity::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_form_is_upstreams() {
        for (input, expected) in [
            ("0", "0"),
            ("0n", "0"),
            ("0Ki", "0"),
            ("1", "1"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("100m", "100m"),
            ("1024", "1024"),
            ("1000", "1k"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e6", "12e6"),
            ("12345e3", "12345e3"),
            ("100e6", "100e6"),
            ("1Ki", "1Ki"),
            ("1024Ki", "1Mi"),
            ("1025Ki", "1025Ki"),
            ("0.5Gi", "512Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("512", "512"),
            ("-1", "-1"),
            ("-1024Mi", "-1Gi"),
            ("+5", "5"),
            ("0.001", "1m"),
            ("0.0000000001", "1n"),
            ("64Mi", "64Mi"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("129M", "129M"),
            ("123Mi", "123Mi"),
            ("0.1", "100m"),
            ("1.2345", "1234500u"),
            ("100Ei", "9223372036854775807"),
            ("9E", "9E"),
            ("1.1Ki", "1126400m"),
            ("00012", "12"),
            ("1e-3", "1e-3"),
            ("2000", "2k"),
            ("110", "110"),
            ("8Gi", "8Gi"),
            ("1e6", "1e6"),
            ("1000000Ki", "1000000Ki"),
            ("250m", "250m"),
            ("4.2", "4200m"),
        ] {
            assert_eq!(Quantity::canonical(input).as_deref(), Ok(expected), "{input}");
        }
        for bad in
            ["", "1a", "1 ", "a", "1.2.3", "1mm", "1i", "--1", "1Kii", "1e", "1e3.5", ".", "1KI", "0x10"]
        {
            assert!(Quantity::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn arithmetic_and_rounding() {
        fn q(t: &str) -> Quantity {
            Quantity::parse(t).unwrap()
        }
        assert!(q("1") == q("1000m") && q("1Gi") > q("1G") && q("-1") < q("0"));
        assert_eq!(q("1Gi").plus(q("512Mi")).to_string(), "1536Mi");
        assert_eq!(q("0").plus(q("1Mi")).to_string(), "1Mi");
        assert_eq!(q("1").minus(q("250m")).to_string(), "750m");
        assert_eq!((q("1500m").value(), q("1500m").milli_value()), (2, 1500));
        assert_eq!(q("1n").milli_value(), 1);
        assert_eq!(q("64Mi").value(), 67_108_864);
        assert_eq!(q(&"9".repeat(60)).sign(), 1);
        assert_eq!(q(&format!("0.{}", "1".repeat(100))).sign(), 1);
    }
}
