//! A row through the rules, in the order the API server drives them.

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use keelson_api::defaults;
use keelson_api::doc::{Doc, to_json_value};
use keelson_api::field_errors::{BadValue, ErrorList, quoted};
use keelson_api::json::{FieldValidation, decode};
use keelson_api::schema::TypeId;
use keelson_api::table::{Resource, Table};
use keelson_api::types::columns::Cell;
use keelson_api::types::convert::convert;
use keelson_api::types::{Ctx, User, strategy};
use keelson_base::gates::Gates;
use serde_json::Value;

use crate::rows::{Group, Row, Say, changed};

/// What a row came to.
pub enum Outcome {
    Same,
    /// What differs, as text.
    Differs(String),
}

/// Ages are counted up to this second.
pub const NOW: i64 = 1_796_000_000;

/// Runs one row of the group.
pub fn check(group: &Group, row: &Row, table: &Table, gates: &Gates) -> Result<Outcome> {
    let base = group.bases.get(&row.on).context("no such base")?;
    let old = changed(base, &row.old)?;
    let object = changed(&old, &row.set)?;
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (group_name, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = table
        .by_kind(group_name, version, kind)
        .with_context(|| format!("{api_version} {kind} is not served"))?;
    let now = Timestamp::from_second(NOW)?;
    let subresource = match row.operation.as_str() {
        "create" | "update" | "default" | "store" | "cells" | "columns" => "",
        other => other,
    };
    let ctx = Ctx {
        now,
        gates,
        group: group_name,
        subresource,
        namespaced: resource.namespaced,
        has_status: resource.has_status(),
        user: User { name: "someone", ..User::default() },
        custom: None,
    };
    match row.operation.as_str() {
        "default" => {
            let doc = read(resource, &object)?;
            compare_objects(&object, &row.gives, &doc)
        }
        "cells" => cells(row, resource, &object, now),
        "columns" => Ok(columns(row, resource)),
        "create" | "store" => create(row, resource, &object, &ctx),
        _ => update(row, resource, &object, &old, &ctx),
    }
}

fn decoded(resource: &Resource, object: &Value) -> Result<Doc> {
    let ty: TypeId = resource.ty.context("a custom resource")?;
    let bytes = serde_json::to_vec(object)?;
    let (doc, warnings) = decode(ty, &bytes, FieldValidation::Strict)?;
    if let Some(warning) = warnings.first() {
        bail!("decoding: {warning:?}");
    }
    Ok(doc)
}

fn read(resource: &Resource, object: &Value) -> Result<Doc> {
    let mut doc = decoded(resource, object)?;
    doc.gvk = resource.gvk();
    if !resource.namespaced {
        doc.meta_mut().set_namespace("");
    }
    defaults::apply(&mut doc);
    Ok(doc)
}

fn create(row: &Row, resource: &Resource, object: &Value, ctx: &Ctx<'_>) -> Result<Outcome> {
    let rules = strategy(resource.storage_ty());
    let mut doc = stored_as(resource, read(resource, object)?)?;
    // As the API server does: a Job's selector is made from its uid.
    let mut meta = doc.meta_mut();
    if meta.view().uid().is_empty() {
        meta.set_uid("u");
    }
    rules.before_create(&mut doc, ctx);
    let mut meta = doc.meta_mut();
    meta.set_creation_timestamp(Some(&ctx.now_text()));
    let (name, generate) = (meta.view().name().to_owned(), meta.view().generate_name().to_owned());
    if name.is_empty() && !generate.is_empty() {
        meta.set_name(&format!("{generate}12345"));
    }
    let errors = rules.check_create(&doc, ctx);
    if row.operation == "create" {
        return Ok(compare_errors(&row.say, &errors));
    }
    if !errors.is_empty() {
        return Ok(Outcome::Differs(format!("refused: {errors}")));
    }
    let warnings = (rules.warnings)(&doc, None, ctx);
    if warnings != row.warn {
        return Ok(Outcome::Differs(format!("warnings\n    got  {warnings:?}\n    want {:?}", row.warn)));
    }
    let shown = match resource.ty.and_then(|ty| convert(&doc, ty)) {
        Some(mut shown) => {
            shown.gvk = resource.gvk();
            shown
        }
        None => doc,
    };
    compare_objects(object, &row.gives, &shown)
}

/// The object in the version it is stored in.
fn stored_as(resource: &Resource, doc: Doc) -> Result<Doc> {
    if resource.is_hub() {
        return Ok(doc);
    }
    let to = resource.storage_ty().context("a custom resource")?;
    let mut out = convert(&doc, to).context("no conversion")?;
    out.gvk = resource.storage_gvk();
    Ok(out)
}

fn update(row: &Row, resource: &Resource, object: &Value, old: &Value, ctx: &Ctx<'_>) -> Result<Outcome> {
    let rules = strategy(resource.storage_ty());
    let before = stored_as(resource, read(resource, &stored(old))?)?;
    let mut doc = stored_as(resource, read(resource, &stored(object))?)?;
    rules.before_update(&mut doc, &before, ctx);
    Ok(compare_errors(&row.say, &rules.check_update(&doc, &before, ctx)))
}

/// What every stored object has.
fn stored(object: &Value) -> Value {
    let mut out = object.clone();
    if let Some(meta) = out.get_mut("metadata").and_then(Value::as_object_mut) {
        for (key, value) in [("resourceVersion", "1"), ("uid", "u")] {
            meta.entry(key).or_insert_with(|| Value::from(value));
        }
    }
    out
}

fn compare_errors(want: &[Say], got: &ErrorList) -> Outcome {
    let mut got: Vec<Say> = got
        .iter()
        .map(|error| {
            let value = match &error.value {
                BadValue::Omitted => Some(String::new()),
                BadValue::Str(text) => Some(quoted(text)),
                BadValue::Raw(text) => Some(text.clone()),
            };
            (error.field.clone(), error.kind.reason().to_owned(), value, error.detail.clone())
        })
        .collect();
    // What is said twice is one thing to a reader; which rules overlap is not compared.
    let mut seen: Vec<Say> = Vec::new();
    got.retain(|one| {
        let new = !seen.contains(one);
        seen.push(one.clone());
        new
    });
    let mut missing: Vec<&Say> = Vec::new();
    for one in want.iter().enumerate().filter(|(i, one)| !want[..*i].contains(one)).map(|(_, one)| one) {
        let same = |other: &Say| {
            let shown = !matches!(
                one.1.as_str(),
                "FieldValueRequired"
                    | "FieldValueForbidden"
                    | "FieldValueTooLong"
                    | "FieldValueTooShort"
                    | "InternalError"
            );
            one.0 == other.0
                && one.1 == other.1
                && detail_matches(&one.3, &other.3)
                && (!shown || one.2.is_none() || one.2 == other.2)
        };
        match got.iter().position(same) {
            Some(at) => {
                got.remove(at);
            }
            None => missing.push(one),
        }
    }
    if missing.is_empty() && got.is_empty() {
        return Outcome::Same;
    }
    let mut out = String::from("mistakes");
    for one in missing {
        out.push_str(&format!("\n    want {}", show(one)));
    }
    for one in &got {
        out.push_str(&format!("\n    got  {}", show(one)));
    }
    Outcome::Differs(out)
}

/// A detail that ends with a line's end is the first line of the message, which then goes on with a difference in
/// upstream's internal form.
fn detail_matches(want: &str, got: &str) -> bool {
    want == got || (want.ends_with('\n') && got.starts_with(want))
}

fn show(one: &Say) -> String {
    format!("{} | {} | {} | {}", one.0, one.1, one.2.as_deref().unwrap_or("*"), one.3)
}

fn compare_objects(
    input: &Value,
    gives: &std::collections::BTreeMap<String, Value>,
    doc: &Doc,
) -> Result<Outcome> {
    let mut want = without_system_fields(changed(input, gives)?);
    fill_now(&mut want)?;
    let got = without_system_fields(to_json_value(doc));
    if want == got {
        return Ok(Outcome::Same);
    }
    let mut differences = Vec::new();
    differ("", &want, &got, &mut differences);
    Ok(Outcome::Differs(format!("object{}", differences.concat())))
}

/// Fields that the server fills in for every object are not what a row is about; a null is as nothing.
fn without_system_fields(mut object: Value) -> Value {
    drop_nulls(&mut object);
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for key in ["uid", "creationTimestamp", "name", "generateName", "resourceVersion", "managedFields"] {
            meta.remove(key);
        }
        if meta.is_empty() {
            object.as_object_mut().map(|root| root.remove("metadata"));
        }
    }
    object
}

/// The text `now()` is the time of the request.
fn fill_now(value: &mut Value) -> Result<()> {
    match value {
        Value::Object(map) => map.values_mut().try_for_each(fill_now),
        Value::Array(items) => items.iter_mut().try_for_each(fill_now),
        Value::String(text) if text == "now()" => {
            *text = keelson_api::types::time_text(Timestamp::from_second(NOW)?).into();
            Ok(())
        }
        _ => Ok(()),
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn differ(path: &str, want: &Value, got: &Value, out: &mut Vec<String>) {
    match (want, got) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let path = format!("{path}/{key}");
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => differ(&path, a, b, out),
                    (a, b) => out.push(format!("\n    {path}: want {}, got {}", brief(a), brief(b))),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                differ(&format!("{path}/{i}"), a, b, out);
            }
        }
        _ if want == got => {}
        _ => out.push(format!("\n    {path}: want {want}, got {got}")),
    }
}

fn brief(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), Value::to_string)
}

fn columns(row: &Row, resource: &Resource) -> Outcome {
    // White space and quotes of code differ between upstream's two copies of its documentation.
    let plain = |text: &str| text.replace('`', "").split_whitespace().collect::<Vec<_>>().join(" ");
    let mut out = String::new();
    let got = strategy(resource.storage_ty()).columns.definitions;
    for (i, want) in row.columns.iter().enumerate() {
        let Some(got) = got.get(i) else {
            out.push_str(&format!("\n    no column {}", want.0));
            continue;
        };
        let shape = (got.name, got.kind, got.format, got.priority);
        if shape != (&want.0, &want.1, &want.2, want.3) {
            out.push_str(&format!("\n    column {i}: want {want:?}, got {shape:?}"));
        } else if plain(got.description()) != plain(&want.4) {
            out.push_str(&format!("\n    {}: want {:?}, got {:?}", want.0, want.4, got.description()));
        }
    }
    if got.len() > row.columns.len() {
        out.push_str(&format!("\n    {} columns too many", got.len() - row.columns.len()));
    }
    if out.is_empty() { Outcome::Same } else { Outcome::Differs(format!("columns{out}")) }
}

fn cells(row: &Row, resource: &Resource, object: &Value, now: Timestamp) -> Result<Outcome> {
    let doc = stored_as(resource, decoded(resource, object)?)?;
    let got: Vec<Value> = (strategy(resource.storage_ty()).columns.cells)(&doc, now)
        .into_iter()
        .map(|cell| match cell {
            Cell::Str(text) => Value::from(text),
            Cell::Int(number) => Value::from(number),
            Cell::Float(number) => Value::from(number),
            Cell::Bool(value) => Value::from(value),
            Cell::Null => Value::Null,
        })
        .collect();
    if got == row.cells {
        return Ok(Outcome::Same);
    }
    Ok(Outcome::Differs(format!(
        "cells\n    got  {}\n    want {}",
        Value::from(got),
        Value::from(row.cells.clone())
    )))
}
