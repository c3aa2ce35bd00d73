//! Custom resources' schemas against the tables of upstream's tests, with the answers upstream v1.35.0 gives.
//!
//! Each file has a row a line; `name` is the row's name in upstream's table:
//! `prune`, `default`, `nulls`, `lists`: apiextensions-apiserver `pkg/apiserver/schema/{pruning,defaulting,listtype}/*_test.go`;
//! `validate`: `pkg/apiserver/validation/validation_test.go`; `formats`: kube-openapi's registry asked about values of ours;
//! `patterns`: Go's `regexp` asked about expressions and values of ours (the last row).

use keelson_api::doc::{Doc, Value, to_json_value, value_to_json};
use keelson_api::field_errors::ErrorList;
use keelson_api::json::{self, EncodeOptions, FieldValidation};
use keelson_api::structural::{Pattern, Schema, fits, formats, lists, pattern, prune, validate};
use serde_json::{Value as Json, json};

fn rows(text: &str) -> Vec<Json> {
    text.lines().map(|line| serde_json::from_str(line).expect("a row")).collect()
}

fn schema(row: &Json) -> Schema {
    Schema::from_json(row["schema"].to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}: {row}"))
}

fn doc(value: &Json) -> Doc {
    json::decode_any(None, value.to_string().as_bytes(), FieldValidation::Ignore).expect("an object").0
}

/// The row's schema as that of a field `v`, so that values which are no objects can be looked at too.
fn wrapped(row: &Json, embedded: bool) -> Schema {
    let outer = if row["nilSchema"] == true {
        json!({"type": "object", "additionalProperties": true})
    } else {
        let mut inner = row["schema"].clone();
        if embedded {
            inner["x-kubernetes-embedded-resource"] = true.into();
        }
        json!({"type": "object", "properties": {"v": inner}})
    };
    Schema::from_json(outer.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}: {row}"))
}

fn value(doc: &Doc) -> Json {
    doc.root.as_map().and_then(|map| map.get("v")).map_or(Json::Null, value_to_json)
}

/// Numbers are compared as numbers: 1 and 1.0 are one.
fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a.as_f64() == b.as_f64(),
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

fn stored(doc: &Doc) -> Vec<u8> {
    let mut out = Vec::new();
    json::encode_canonical(doc, EncodeOptions::STORED, &mut out);
    out
}

/// Collects what differs, so that one run shows all of it.
#[derive(Default)]
struct Report {
    rows: usize,
    wrong: Vec<String>,
}

impl Report {
    fn check(&mut self, holds: bool, text: impl FnOnce() -> String) {
        self.rows += 1;
        if !holds {
            self.wrong.push(text());
        }
    }

    fn end(self, at_least: usize) {
        assert!(self.rows >= at_least, "{} rows", self.rows);
        assert!(self.wrong.is_empty(), "{} of {}:\n{}", self.wrong.len(), self.rows, self.wrong.join("\n"));
    }
}

#[test]
fn pruning() {
    let mut report = Report::default();
    for row in rows(include_str!("prune.jsonl")) {
        let schema = wrapped(&row, row["root"] == true);
        let mut object = doc(&json!({"v": row["json"]}));
        let before = object.clone();
        let mut unknown = Vec::new();
        prune::prune(&schema, &mut object, Some(&mut unknown));
        // At an object's root what every object has is no news; wrapped, these lie deeper.
        if row["root"] != true {
            unknown.retain(|path| !["v.apiVersion", "v.kind", "v.metadata"].contains(&path.as_str()));
        }
        let path = |path: &str| if path.starts_with('[') { format!("v{path}") } else { format!("v.{path}") };
        let mut expected: Vec<String> =
            row["pruned"].as_array().into_iter().flatten().filter_map(Json::as_str).map(path).collect();
        expected.sort();
        report.check(same(&value(&object), &row["expected"]) && unknown == expected, || {
            format!(
                "{}: {} {unknown:?}, expected {} {expected:?}",
                row["name"],
                value(&object),
                row["expected"]
            )
        });
        // The bytes tell the same: what pruning changes does not fit, what it leaves does.
        let left = fits::fits(&schema, &stored(&before));
        let mut nulls = before.clone();
        prune::prune_nulls(&schema, &mut nulls);
        report
            .check(left == (object == before && nulls == before), || format!("{}: fits {left}", row["name"]));
        report.check(fits::fits(&schema, &stored(&object)) || nulls != before, || {
            format!("{}: what was pruned does not fit", row["name"])
        });
    }
    report.end(30);
}

#[test]
fn defaulting() {
    let mut report = Report::default();
    for row in rows(include_str!("default.jsonl")) {
        let schema = wrapped(&row, false);
        let mut object = doc(&json!({"v": row["json"]}));
        prune::default(&schema, &mut object);
        report.check(same(&value(&object), &row["expected"]), || {
            format!("{}: {}, expected {}", row["name"], value(&object), row["expected"])
        });
        let once = object.clone();
        prune::default(&schema, &mut object);
        report.check(object == once, || format!("{}: defaulting twice changes something", row["name"]));
    }
    report.end(20);
}

#[test]
fn nulls() {
    let mut report = Report::default();
    for row in rows(include_str!("nulls.jsonl")) {
        let schema = wrapped(&row, false);
        let mut object = doc(&json!({"v": row["json"]}));
        prune::prune_nulls(&schema, &mut object);
        report.check(same(&value(&object), &row["expected"]), || {
            format!("{}: {}, expected {}", row["name"], value(&object), row["expected"])
        });
    }
    report.end(3);
}

fn texts(errors: &ErrorList) -> Vec<String> {
    let mut texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.sort();
    texts
}

fn expected(row: &Json) -> Vec<String> {
    let mut texts: Vec<String> =
        row["errors"].as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect();
    texts.sort();
    texts
}

#[test]
fn sets_and_maps() {
    let mut report = Report::default();
    for row in rows(include_str!("lists.jsonl")) {
        let mut errors = ErrorList::new();
        if row["nilSchema"] != true && row["object"].is_object() {
            lists::validate(&schema(&row), &doc(&row["object"]), &mut errors);
        }
        report.check(texts(&errors) == expected(&row), || {
            format!("{}: {:#?}, expected {:#?}", row["name"], texts(&errors), expected(&row))
        });
    }
    report.end(15);
}

#[test]
fn values() {
    let mut report = Report::default();
    for row in rows(include_str!("validate.jsonl")) {
        let schema = schema(&row);
        let old = (row["update"] == true).then(|| doc(&row["old"]));
        let mut errors = ErrorList::new();
        validate::validate(&schema, &doc(&row["object"]), old.as_ref(), &mut errors);
        report.check(texts(&errors) == expected(&row), || {
            format!(
                "{}: {} {:#?}, expected {:#?}",
                row["name"],
                row["object"],
                texts(&errors),
                expected(&row)
            )
        });
    }
    report.end(70);
}

#[test]
fn string_formats() {
    let mut report = Report::default();
    for row in rows(include_str!("formats.jsonl")) {
        let (format, value) =
            (row["format"].as_str().expect("a format"), row["value"].as_str().expect("a value"));
        let found = formats::matches(format, value);
        report.check(row["ok"] == found, || format!("{format} {value:?}: {found}"));
    }
    report.end(100);
}

#[test]
fn an_object_that_is_admitted_is_admitted_as_it_is() {
    let mut report = Report::default();
    for row in rows(include_str!("validate.jsonl")) {
        let schema = schema(&row);
        let mut object = doc(&row["object"]);
        if prune::admit(&schema, &mut object, None).is_err() {
            continue;
        }
        report.check(fits::fits(&schema, &stored(&object)), || {
            format!("{}: {}", row["name"], to_json_value(&object))
        });
        let once = object.clone();
        prune::adapt(&schema, &mut object);
        report.check(object == once, || format!("{}: {}", row["name"], to_json_value(&object)));
    }
    report.end(60);
}

#[test]
fn a_value_is_accepted_where_no_error_is_told() {
    for row in rows(include_str!("validate.jsonl")).into_iter().filter(|row| row["update"] != true) {
        let object = doc(&json!({"v": row["object"]}));
        let Some(value) = object.root.as_map().and_then(|map| map.get("v")) else { continue };
        let mut errors = ErrorList::new();
        validate::validate_part(&schema(&row), value, None, "v", &mut errors);
        assert_eq!(validate::accepts(&schema(&row), value), errors.is_empty(), "{}", row["name"]);
        assert!(matches!(value, Value::Map(_)), "{}", row["name"]);
    }
}

#[test]
fn regular_expressions() {
    regular_expressions_of(include_str!("patterns.jsonl"), 150);
    // Made at random; what matches is what Go 1.26 says.
    regular_expressions_of(include_str!("patterns_random.jsonl"), 500);
}

fn regular_expressions_of(file: &str, least: usize) {
    let mut report = Report::default();
    let mut all = rows(file);
    let inputs = all.pop().expect("the inputs");
    let texts = |list: &Json| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect()
    };
    let inputs = texts(&inputs["inputs"]);
    for row in all {
        let text = row["pattern"].as_str().expect("a pattern");
        let error = pattern::check(text).err().map(|error| error.to_string());
        report.check(error.as_deref() == row["error"].as_str(), || {
            format!("{text:?}: {error:?}, expected {}", row["error"])
        });
        if error.is_some() {
            continue;
        }
        let compiled = Pattern::new(text);
        let (matching, other): (Vec<String>, Vec<String>) =
            inputs.iter().cloned().partition(|input| compiled.matches(input));
        let (found, expected) =
            if row["only"].is_array() { (matching, &row["only"]) } else { (other, &row["not"]) };
        report.check(found == texts(expected), || format!("{text:?}: {found:?}, expected {expected}"));
    }
    report.end(least);
}
