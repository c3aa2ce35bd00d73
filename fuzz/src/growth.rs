//! Inputs of any size from small ones, to measure how time and memory grow.

use serde_json::Value;

/// A way to grow an input.
pub struct Grown {
    /// Where it comes from.
    pub name: String,
    /// The input with about so many bytes.
    pub make: Box<dyn Fn(usize) -> Vec<u8>>,
}

/// All ways to grow an input. JSON (in either part) grows in every list, in every object and in every string; text grows by
/// its own repetition, whole, without its ends, and by its single bytes.
pub fn grown(name: &str, input: &[u8]) -> Vec<Grown> {
    let mut all = Vec::new();
    let (first, second) = crate::parts(input);
    for (part, other, second_grows) in [(first, second, false), (second, first, true)] {
        let Ok(value) = serde_json::from_slice::<Value>(part) else { continue };
        let head = head(first, second_grows);
        for pointer in pointers(&value) {
            let (value, head) = (value.clone(), head.clone());
            let tail = if second_grows { Vec::new() } else { [b"\n---\n", other].concat() };
            let title = format!("{name}{pointer}");
            all.push(Grown {
                name: title,
                make: Box::new(move |size| {
                    let mut value = value.clone();
                    let at = value.pointer_mut(&pointer).expect("it was found there");
                    grow(at, size);
                    [&head[..], value.to_string().as_bytes(), &tail].concat()
                }),
            });
        }
    }
    if all.is_empty() {
        let whole = input.to_vec();
        all.push(Grown {
            name: format!("{name} repeated"),
            make: Box::new(move |size| repeat(&whole, size)),
        });
        for separator in [",", "\n"] {
            let joined = [input, separator.as_bytes()].concat();
            all.push(Grown {
                name: format!("{name} joined by {separator:?}"),
                make: Box::new(move |size| {
                    let mut all = repeat(&joined, size);
                    all.truncate(all.len().saturating_sub(separator.len()));
                    all
                }),
            });
        }
    }
    all
}

fn head(first: &[u8], second_grows: bool) -> Vec<u8> {
    if second_grows && !first.is_empty() { [first, b"\n---\n"].concat() } else { Vec::new() }
}

fn repeat(input: &[u8], size: usize) -> Vec<u8> {
    input.repeat((size / input.len().max(1)).max(1))
}

/// JSON pointers to everything that can grow.
fn pointers(value: &Value) -> Vec<String> {
    let mut all = Vec::new();
    let mut open = vec![(String::new(), value)];
    while let Some((at, value)) = open.pop() {
        match value {
            Value::Array(items) => {
                all.extend((!items.is_empty()).then(|| at.clone()));
                open.extend(items.iter().enumerate().map(|(index, item)| (format!("{at}/{index}"), item)));
            }
            Value::Object(members) => {
                all.extend((!members.is_empty()).then(|| at.clone()));
                let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
                open.extend(members.iter().map(|(key, item)| (format!("{at}/{}", escaped(key)), item)));
            }
            Value::String(text) if !text.is_empty() => all.push(at),
            _ => {}
        }
    }
    all
}

/// Repeats a value's content until it is written in about `size` bytes. Items are told apart by numbers in their strings, so
/// that they are not each other's duplicates.
fn grow(value: &mut Value, size: usize) {
    let one = value.to_string().len().max(1);
    let times = (size / one).max(1);
    match value {
        Value::Array(items) => {
            let first = items.clone();
            for number in 1..times {
                items.extend(first.iter().cloned().map(|mut item| {
                    tell_apart(&mut item, number);
                    item
                }));
            }
        }
        Value::Object(members) => {
            let first = members.clone();
            for number in 1..times {
                for (key, item) in &first {
                    members.insert(format!("{key}{number}"), item.clone());
                }
            }
        }
        Value::String(text) => *text = text.repeat(times),
        _ => {}
    }
}

fn tell_apart(value: &mut Value, number: usize) {
    match value {
        Value::String(text) => *text = format!("{text}{number}"),
        Value::Object(members) => {
            if let Some(Value::String(name)) = members.get_mut("name") {
                *name = format!("{name}{number}");
            } else if let Some(Value::Number(port)) = members.get_mut("containerPort") {
                *port = (number % 65_535 + 1).into();
            } else if let Some(first) = members.values_mut().find(|value| value.is_string()) {
                tell_apart(first, number);
            }
        }
        Value::Number(old) => *old = number.into(),
        _ => {}
    }
}
