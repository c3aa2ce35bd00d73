//! Sets of paths: codec, order and algebra.

use keelson_api::apply::codec;
use keelson_api::apply::element::{PathElement, compare_values};
use keelson_api::apply::set::{Set, path_text};

use crate::schemas::{check, filter, path, set, shape, value};

fn same(got: &Set, wanted: &Set) -> Result<(), String> {
    if got == wanted {
        Ok(())
    } else {
        Err(format!("got {}\n    not {}", codec::to_json(got), codec::to_json(wanted)))
    }
}

#[test]
fn sets_are_read_and_written() {
    check("codec", 70, |case| {
        let text = case["text"].as_str().unwrap();
        let got = codec::parse(text.as_bytes());
        if case["fails"] == true {
            return got.map_or(Ok(()), |set| Err(format!("{text} is read as {}", codec::to_json(&set))));
        }
        let got = got.map_err(|error| format!("{text}: {error}"))?;
        match case["out"].as_str() {
            Some(out) if codec::to_json(&got) != out => Err(format!("got {}", codec::to_json(&got))),
            _ => Ok(()),
        }
    });
}

#[test]
fn elements_are_read_and_written() {
    check("element", 60, |case| {
        let text = case["text"].as_str().unwrap();
        let got = PathElement::parse(text);
        if case["fails"] == true {
            return got.map_or(Ok(()), |got| Err(format!("{text} is read as {got:?}")));
        }
        let got = got.map_err(|error| error.to_string())?.ok_or("left out")?;
        let mut out = Vec::new();
        got.write(&mut out);
        let out = String::from_utf8(out).unwrap();
        if out == case["out"].as_str().unwrap() { Ok(()) } else { Err(format!("got {out}")) }
    });
}

#[test]
fn elements_and_values_have_an_order() {
    let order = |equal: bool, a_b: std::cmp::Ordering, b_a: std::cmp::Ordering| {
        let wanted = if equal { std::cmp::Ordering::Equal } else { std::cmp::Ordering::Less };
        if a_b == wanted && b_a == wanted.reverse() { Ok(()) } else { Err(format!("{a_b:?}, back {b_a:?}")) }
    };
    check("element-order", 15, |case| {
        let [a, b] =
            ["a", "b"].map(|name| PathElement::parse(case[name].as_str().unwrap()).unwrap().unwrap());
        order(case["equal"] == true, a.cmp(&b), b.cmp(&a))
    });
    check("value-order", 40, |case| {
        let [a, b] = ["a", "b"].map(|name| value(&case[name]));
        order(case["equal"] == true, compare_values(&a, &b), compare_values(&b, &a))
    });
}

#[test]
fn paths_read_as_upstream_writes_them() {
    check("path-text", 10, |case| {
        let got = path_text(&path(&case["path"]));
        if got == case["text"].as_str().unwrap() { Ok(()) } else { Err(format!("got {got}")) }
    });
}

#[test]
fn set_algebra() {
    check("union", 1, |case| same(&set(&case["a"]).union(set(&case["b"])), &set(&case["out"])));
    check("intersection", 1, |case| {
        let (a, b, out) = (set(&case["a"]), set(&case["b"]), set(&case["out"]));
        if a.intersects(&b) == out.is_empty() {
            return Err("intersects() says otherwise".into());
        }
        same(&a.intersection(&b), &out)
    });
    check("difference", 8, |case| same(&set(&case["a"]).difference(&set(&case["b"])), &set(&case["out"])));
    check("recursive-difference", 3, |case| {
        same(&set(&case["a"]).recursive_difference(&set(&case["b"])), &set(&case["out"]))
    });
    check("leaves", 6, |case| same(&set(&case["fields"]).leaves(), &set(&case["out"])));
    check("filter", 10, |case| {
        same(&filter(&case["filter"]).apply(set(&case["fields"])), &set(&case["out"]))
    });
    check("equal", 8, |case| {
        let equal = set(&case["a"]) == set(&case["b"]);
        if equal == (case["equal"] == true) { Ok(()) } else { Err(format!("equal: {equal}")) }
    });
    check("has", 10, |case| {
        let has = set(&case["fields"]).has(&path(&case["path"]));
        if has == (case["has"] == true) { Ok(()) } else { Err(format!("has: {has}")) }
    });
    check("named", 5, |case| {
        same(&set(&case["fields"]).with_named_fields(Some(shape(case))), &set(&case["named"]))
    });
}
