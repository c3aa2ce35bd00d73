//! How upstream quotes what a patch made, or the patch, in its errors.

use serde_json::{Map, Value};

/// A value as Go's `fmt` prints it with `%+v`: `map[a:1 b:[x y]]`, keys sorted.
pub(super) fn go(value: &Value) -> String {
    let mut out = String::new();
    push(value, &mut out);
    out
}

/// As [`go`], of a list.
pub(super) fn list(items: &[Value]) -> String {
    let mut out = String::new();
    push_list(items, &mut out);
    out
}

/// As [`go`], of an object.
pub(super) fn object(map: &Map<String, Value>) -> String {
    let mut out = String::new();
    push_object(map, &mut out);
    out
}

fn push(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::String(text) => out.push_str(text),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => out.push_str(&go_float(float)),
            _ => out.push_str(&number.to_string()),
        },
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Array(items) => push_list(items, out),
        Value::Object(map) => push_object(map, out),
    }
}

fn push_list(items: &[Value], out: &mut String) {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        push(item, out);
    }
    out.push(']');
}

fn push_object(map: &Map<String, Value>, out: &mut String) {
    let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
    pairs.sort_unstable_by_key(|(key, _)| *key);
    out.push_str("map[");
    for (index, (key, value)) in pairs.into_iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        out.push_str(key);
        out.push(':');
        push(value, out);
    }
    out.push(']');
}

/// `%v` of a float64: the shortest digits, with an exponent below -4 and from 21 on.
fn go_float(float: f64) -> String {
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if float != 0.0 && !(-4..21).contains(&exponent) => {
            format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
        }
        _ => format!("{float}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn values_as_go_prints_them() {
        let value = json!({"b": [1, -2.5, "x y", null], "a": {"t": true, "n": {}}, "c": []});
        assert_eq!(super::go(&value), "map[a:map[n:map[] t:true] b:[1 -2.5 x y <nil>] c:[]]");
        for (float, expected) in [
            (1.0, "1"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (0.0001, "0.0001"),
            (1.5e-5, "1.5e-05"),
        ] {
            assert_eq!(super::go_float(float), expected);
        }
    }
}
