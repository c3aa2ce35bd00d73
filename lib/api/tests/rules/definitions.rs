//! CustomResourceDefinitions against the tables of upstream's tests, with the mistakes upstream v1.35.0 finds after its defaulting
//! and preparation (apiextensions-apiserver `pkg/apis/apiextensions/validation/validation_test.go`; `name` is the row's name there).
//!
//! `crd_create` and `crd_update` are whole definitions, `crd_schema` the schemas of `TestValidateCustomResourceDefinitionValidation`
//! in a definition of one version. Rows whose mistakes are those of a CEL compiler are left out. Values are not compared: upstream
//! prints its internal types.

use keelson_api::doc::Doc;
use keelson_api::field_errors::{ErrorKind, ErrorList};
use serde_json::Value as Json;

use crate::support::Kind;

fn rows(text: &str) -> Vec<Json> {
    text.lines().map(|line| serde_json::from_str(line).expect("a row")).collect()
}

fn kind_word(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "FieldValueNotFound",
        ErrorKind::Required => "FieldValueRequired",
        ErrorKind::Duplicate => "FieldValueDuplicate",
        ErrorKind::Invalid => "FieldValueInvalid",
        ErrorKind::NotSupported => "FieldValueNotSupported",
        ErrorKind::Forbidden => "FieldValueForbidden",
        ErrorKind::TooLong => "FieldValueTooLong",
        ErrorKind::TooShort => "FieldValueTooShort",
        ErrorKind::TooMany => "FieldValueTooMany",
        ErrorKind::TooFew => "FieldValueTooFew",
        ErrorKind::Internal => "InternalError",
        ErrorKind::TypeInvalid => "FieldValueTypeInvalid",
    }
}

fn found(errors: &ErrorList) -> Vec<String> {
    let mut texts: Vec<String> = errors
        .iter()
        .map(|error| format!("{} {}: {}", kind_word(error.kind), error.field, error.detail))
        .collect();
    texts.sort();
    texts.dedup();
    texts
}

fn expected(row: &Json) -> Vec<String> {
    let text = |error: &Json, key: &str| error[key].as_str().unwrap_or_default().to_owned();
    let mut texts: Vec<String> = row["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|error| format!("{} {}: {}", text(error, "type"), text(error, "field"), text(error, "detail")))
        .collect();
    texts.sort();
    texts.dedup();
    texts
}

fn kind() -> Kind {
    Kind::of("apiextensions.k8s.io/v1", "CustomResourceDefinition")
}

fn compare(rows: &[Json], errors: impl Fn(&Json) -> ErrorList, at_least: usize) {
    let mut wrong = Vec::new();
    for row in rows {
        let (found, expected) = (found(&errors(row)), expected(row));
        if found != expected {
            let missing: Vec<&String> = expected.iter().filter(|text| !found.contains(text)).collect();
            let extra: Vec<&String> = found.iter().filter(|text| !expected.contains(text)).collect();
            wrong.push(format!("{}:\n  missing {missing:#?}\n  extra {extra:#?}", row["name"]));
        }
    }
    assert!(rows.len() >= at_least, "{} rows", rows.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

#[test]
fn new_definitions() {
    compare(&rows(include_str!("../custom/crd_create.jsonl")), |row| kind().create(&row["object"]).1, 50);
}

#[test]
fn schemas_of_definitions() {
    compare(&rows(include_str!("../custom/crd_schema.jsonl")), |row| kind().create(&row["object"]).1, 50);
}

#[test]
fn changed_definitions() {
    let errors = |row: &Json| {
        let kind = kind();
        let mut old: Doc = kind.decode(&row["old"]);
        keelson_api::defaults::apply(&mut old);
        kind.update_doc(&old, kind.decode(&row["object"]), "").1
    };
    compare(&rows(include_str!("../custom/crd_update.jsonl")), errors, 30);
}
