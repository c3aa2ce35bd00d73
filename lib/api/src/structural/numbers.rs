//! Numbers as Go checks and prints them.

use crate::doc::Value;

/// A limit on a number.
pub(super) enum Bound {
    MultipleOf(f64),
    /// And whether it is exclusive.
    Maximum(f64, bool),
    Minimum(f64, bool),
}

/// How a number breaks a limit.
pub(super) enum Wrong {
    /// `a multiple of 3`, `less than or equal to 5`.
    Should(String),
    /// The schema's own factor is zero or less.
    FactorNotPositive(String),
}

impl Bound {
    fn limit(&self) -> f64 {
        match self {
            Bound::MultipleOf(n) | Bound::Maximum(n, _) | Bound::Minimum(n, _) => *n,
        }
    }

    /// Integers are compared as integers: what a limit has behind the point does not count for them.
    pub(super) fn violated(&self, value: &Value) -> Option<Wrong> {
        let (integer, float) = match value {
            Value::Int(n) => (Some(*n), *n as f64),
            Value::Float(n) => (None, *n),
            _ => return None,
        };
        let limit = self.limit();
        let shown = if integer.is_some() { (limit as i64).to_string() } else { go_float(limit) };
        let beyond = |over: bool, equal: bool, exclusive: bool| if exclusive { over || equal } else { over };
        let (wrong, words) = match (self, integer) {
            (Bound::MultipleOf(_), Some(n)) => {
                let factor = limit as i64;
                if factor <= 0 {
                    return Some(Wrong::FactorNotPositive(shown));
                }
                (n % factor != 0, "a multiple of")
            }
            (Bound::MultipleOf(factor), None) => {
                if *factor <= 0.0 {
                    return Some(Wrong::FactorNotPositive(shown));
                }
                let times = if *factor < 1.0 { 1.0 / factor * float } else { float / factor };
                (!is_json_integer(times), "a multiple of")
            }
            (Bound::Maximum(_, exclusive), integer) => {
                let wrong = match integer {
                    Some(n) => beyond(n > limit as i64, n == limit as i64, *exclusive),
                    None => beyond(float > limit, float == limit, *exclusive),
                };
                (wrong, if *exclusive { "less than" } else { "less than or equal to" })
            }
            (Bound::Minimum(_, exclusive), integer) => {
                let wrong = match integer {
                    Some(n) => beyond(n < limit as i64, n == limit as i64, *exclusive),
                    None => beyond(float < limit, float == limit, *exclusive),
                };
                (wrong, if *exclusive { "greater than" } else { "greater than or equal to" })
            }
        };
        wrong.then(|| Wrong::Should(format!("{words} {shown}")))
    }
}

/// Whether a float is an integer within what JSON's readers keep exact, give or take rounding (go-openapi `swag`).
pub(super) fn is_json_integer(n: f64) -> bool {
    const MAX: f64 = 9_007_199_254_740_991.0;
    const EPSILON: f64 = 1e-9;
    if !n.is_finite() || n.abs() > MAX {
        return false;
    }
    let rounded = n.round();
    n == rounded || (rounded != 0.0 && (n - rounded).abs() < EPSILON * rounded.abs())
}

/// A float as Go's `%v` prints it.
pub(super) fn go_float(n: f64) -> String {
    let text = format!("{n:e}");
    let exponent: i32 = text.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    if n == 0.0 || (-4..21).contains(&exponent) {
        return format!("{n}");
    }
    let mantissa = text.split('e').next().unwrap_or_default();
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}
