//! Reading of Kubernetes quantities into whole numbers (the API server has validated them).
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

pub type ResourceList = BTreeMap<String, Quantity>;

/// The value times 1000, rounded up; `None` when the text is no quantity.
pub fn milli(text: &str) -> Option<i64> {
    scaled(text, 1000)
}

/// The value rounded up to a whole number.
pub fn whole(text: &str) -> Option<i64> {
    scaled(text, 1)
}

pub fn milli_of(list: Option<&ResourceList>, name: &str) -> Option<i64> {
    milli(&list?.get(name)?.0)
}

pub fn whole_of(list: Option<&ResourceList>, name: &str) -> Option<i64> {
    whole(&list?.get(name)?.0)
}

fn scaled(text: &str, scale: i128) -> Option<i64> {
    let text = text.trim();
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
    let (number, suffix) = digits.split_at(end);
    let (mantissa, decimals) = decimal(number)?;
    // value = mantissa * factor / divisor
    let (factor, mut divisor): (i128, i128) = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        other => {
            let exponent: i32 = other.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    };
    divisor = divisor.checked_mul(10i128.checked_pow(decimals)?)?;
    let numerator = mantissa.checked_mul(factor)?.checked_mul(scale)?;
    let rounded = numerator.checked_add(divisor - 1)? / divisor;
    let value = i64::try_from(rounded).unwrap_or(i64::MAX);
    Some(if negative { -value } else { value })
}

fn decimal(number: &str) -> Option<(i128, u32)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 18 || fraction.contains('.') {
        return None;
    }
    Some((format!("{whole}{fraction}").parse().ok()?, fraction.len() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read() {
        let cases = [
            ("100m", Some(100), Some(1)),
            ("1", Some(1000), Some(1)),
            ("1.5", Some(1500), Some(2)),
            ("0.5Gi", Some(536_870_912_000), Some(536_870_912)),
            ("64Mi", Some(67_108_864_000), Some(67_108_864)),
            ("1e3", Some(1_000_000), Some(1000)),
            ("1E", Some(i64::MAX), Some(1_000_000_000_000_000_000)),
            ("100u", Some(1), Some(1)),
            ("", None, None),
            ("abc", None, None),
            ("1.2.3", None, None),
        ];
        for (text, expected_milli, expected_whole) in cases {
            assert_eq!(milli(text), expected_milli, "{text}");
            assert_eq!(whole(text), expected_whole, "{text}");
        }
    }
}
