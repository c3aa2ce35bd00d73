//! The targets. Each also checks what must hold of a result: what was read is written and read again as the same.

use std::sync::{Arc, LazyLock};

use keelson_api::apply::manage::{self, Request};
use keelson_api::apply::reset;
use keelson_api::apply::shape::Shape;
use keelson_api::apply::versions::KindVersions;
use keelson_api::doc::{Doc, Gvk};
use keelson_api::fields_selector::FieldSelector;
use keelson_api::json::{self, EncodeOptions, FieldValidation};
use keelson_api::quantity::{Format, Quantity};
use keelson_api::selectors::LabelSelector;
use keelson_api::structural::{custom, prune};
use keelson_api::table::{Resource, Table};
use keelson_api::types::{self, Ctx, User};
use keelson_api::{continue_token, defaults, patch, proto, yaml};
use keelson_base::gates::Gates;

/// One reader of clients' bytes.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// What it may hold whatever the input.
    pub base: usize,
    /// How many bytes the input asks to be made beside it; they count as if they had been sent.
    pub asks: fn(&[u8]) -> usize,
}

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run, base: crate::MEMORY_BASE, asks: |_| 0 }
}

/// A target that reads YAML: its reader holds what it has found in 1,024 characters until it knows whether that was a key.
const fn reads_yaml(name: &'static str, run: fn(&[u8])) -> Target {
    Target { base: 8 * crate::MEMORY_BASE, ..target(name, run) }
}

pub const TARGETS: &[Target] = &[
    target("json", json_body),
    reads_yaml("yaml", yaml_body),
    target("protobuf", protobuf_body),
    Target { asks: json_patch_copies, ..target("json_patch", json_patch) },
    target("merge_patch", merge_patch),
    target("strategic_patch", strategic_patch),
    reads_yaml("apply", apply),
    target("label_selector", label_selector),
    target("field_selector", field_selector),
    target("quantity", quantity),
    target("table", table),
    target("rules", rules),
    target("custom", custom_resource),
    target("continue_token", continue_token),
];

/// What stands between the parts of an input of two.
const SEPARATOR: &[u8] = b"\n---\n";

static GATES: LazyLock<Gates> = LazyLock::new(Gates::default);
static ROWS: LazyLock<Table> = LazyLock::new(|| Table::builtin(&GATES));
/// What a patch is applied to where the input names no object.
const DEPLOYMENT: &[u8] = br#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d","namespace":"default","uid":"u","resourceVersion":"7"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}],"env":[{"name":"x","value":"y"}]}]}}}}"#;

/// The input's two parts; the first is empty where there is one.
pub fn parts(input: &[u8]) -> (&[u8], &[u8]) {
    let at = input.windows(SEPARATOR.len()).position(|window| window == SEPARATOR);
    at.map_or((&[], input), |at| (&input[..at], &input[at + SEPARATOR.len()..]))
}

/// The row an object says it is of; a Deployment's where it says nothing that is served.
fn row_of(said: Result<(String, String), json::DecodeError>) -> Arc<Resource> {
    let gvk = said.map(|(api_version, kind)| Gvk::from_api_version(&api_version, &kind)).unwrap_or_default();
    let find = |group: &str, version: &str, kind: &str| ROWS.by_kind(group, version, kind).cloned();
    find(&gvk.group, &gvk.version, &gvk.kind).or_else(|| find("apps", "v1", "Deployment")).expect("a row")
}

/// An object and its row, defaults filled in.
fn object(body: &[u8]) -> Option<(Doc, Arc<Resource>)> {
    let body = if body.is_empty() { DEPLOYMENT } else { body };
    let row = row_of(json::peek_type_meta(body));
    let (mut doc, _) = json::decode_any(row.ty, body, FieldValidation::Ignore).ok()?;
    doc.gvk = row.gvk();
    defaults::apply(&mut doc);
    Some((doc, row))
}

/// What was read is written as JSON, and that is read as the same.
fn same_again(doc: &Doc, row: &Resource) {
    let mut first = Vec::new();
    json::encode_canonical(doc, EncodeOptions::FULL, &mut first);
    let again = json::decode_any(row.ty, &first, FieldValidation::Strict);
    let (again, _) = again.unwrap_or_else(|error| {
        panic!("what was written is not read: {error}: {}", String::from_utf8_lossy(&first))
    });
    let mut second = Vec::new();
    json::encode_canonical(&again, EncodeOptions::FULL, &mut second);
    let text = String::from_utf8_lossy;
    assert_eq!(text(&first), text(&second), "what was written is read as something else");
}

fn json_body(body: &[u8]) {
    let row = row_of(json::peek_type_meta(body));
    for validation in [FieldValidation::Ignore, FieldValidation::Warn, FieldValidation::Strict] {
        if let Ok((mut doc, _)) = json::decode_any(row.ty, body, validation) {
            doc.gvk = row.gvk();
            same_again(&doc, &row);
        }
    }
    // As a custom resource, and as what has no schema at all.
    let _ = json::decode_any(None, body, FieldValidation::Strict);
    let _ = json::decode_untyped_strict(body);
}

fn yaml_body(body: &[u8]) {
    if let Ok(json) = yaml::to_json(body) {
        let row = row_of(json::peek_type_meta(&json));
        for validation in [FieldValidation::Ignore, FieldValidation::Strict] {
            if let Ok((mut doc, _)) = yaml::decode(row.ty, body, validation) {
                doc.gvk = row.gvk();
                same_again(&doc, &row);
            }
        }
    }
    let _ = yaml::decode(None, body, FieldValidation::Warn);
    let _ = yaml::decode_untyped(body);
}

fn protobuf_body(body: &[u8]) {
    let row = row_of(proto::peek_type_meta(body));
    let Some(ty) = row.ty else { return };
    let Ok(mut doc) = proto::decode(ty, body) else { return };
    doc.gvk = row.gvk();
    let mut first = Vec::new();
    proto::encode(&doc, &mut first).expect("what has a message is written as one");
    let again = proto::decode(ty, &first).expect("what was written is read");
    let mut second = Vec::new();
    proto::encode(&again, &mut second).expect("what has a message is written as one");
    assert!(first == second, "what was written is read as something else");
    same_again(&doc, &row);
}

type Patch = fn(&Doc, &[u8], FieldValidation) -> Result<patch::Patched, patch::PatchError>;

fn patched(input: &[u8], with: Patch) {
    let (original, patch) = parts(input);
    let Some((original, row)) = object(original) else { return };
    for validation in [FieldValidation::Ignore, FieldValidation::Strict] {
        if let Ok((mut doc, _)) = with(&original, patch, validation) {
            doc.gvk = row.gvk();
            same_again(&doc, &row);
        }
    }
}

fn json_patch(input: &[u8]) {
    patched(input, patch::json_patch);
}

fn json_patch_copies(input: &[u8]) -> usize {
    let (original, patch) = parts(input);
    object(original).map_or(0, |(original, _)| patch::json_patch_copies(&original, patch))
}

fn merge_patch(input: &[u8]) {
    patched(input, patch::merge_patch);
}

fn strategic_patch(input: &[u8]) {
    patched(input, patch::strategic_merge);
}

/// What strategies are told of a write.
fn context(row: &Resource, subresource: &'static str) -> Ctx<'static> {
    Ctx {
        now: jiff::Timestamp::UNIX_EPOCH,
        gates: &GATES,
        group: "",
        subresource,
        namespaced: row.namespaced,
        has_status: row.has_status(),
        user: User { name: "u", uid: "", groups: &[], extra: None },
        custom: None,
    }
}

/// Server-side apply to an object, by the manager that kubectl is and by another; what one applied he applies again, and
/// nothing changes.
fn apply(input: &[u8]) {
    let (live, config) = parts(input);
    let Some((live, row)) = object(live) else { return };
    let Ok((config, _)) = yaml::decode_untyped(config) else { return };
    let shape = |wanted: &Gvk| {
        let row = ROWS.by_kind(&wanted.group, &wanted.version, &wanted.kind)?;
        row.ty.map(Shape::Struct)
    };
    let Some(ty) = row.ty else { return };
    let gvk = row.gvk();
    for (manager, force) in [("kubectl", false), ("other", true)] {
        let request = Request {
            manager,
            gvk: &gvk,
            shape: Shape::Struct(ty),
            subresource: "",
            now: "2026-01-01T00:00:00Z",
            versions: &KindVersions { kind: &row.kind, shape: &shape },
            filter: reset::filter(&row.group, &row.kind, false, row.has_status(), ""),
        };
        // Of the status nothing is applied here, whatever managers say of it: the type puts it back.
        let written = |mut new: Doc, old: &Doc| {
            types::strategy(row.ty).before_update(&mut new, old, &context(&row, ""));
            new
        };
        let Ok(applied) = manage::apply(&request, &live, &config, force) else { continue };
        let applied = written(applied.object, &live);
        let Ok(again) = manage::apply(&request, &applied, &config, force) else {
            panic!("what {manager} applied cannot be applied again");
        };
        let again = written(again.object, &applied);
        let text = |doc: &Doc| {
            let mut out = Vec::new();
            json::encode_canonical(doc, EncodeOptions::FULL, &mut out);
            String::from_utf8(out).expect("JSON is text")
        };
        assert_eq!(text(&applied), text(&again), "applying twice is not applying once");
    }
    // An update's ownership, over whatever managers the object claims to have.
    let mut new = live.clone();
    let request = Request {
        manager: "m",
        gvk: &gvk,
        shape: Shape::Struct(ty),
        subresource: "",
        now: "2026-01-01T00:00:00Z",
        versions: &KindVersions { kind: &row.kind, shape: &shape },
        filter: None,
    };
    manage::update(&request, None, &mut new);
}

fn label_selector(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let labels: Vec<(&str, &str)> = vec![("a", "b"), ("x.io/y", "7"), ("", "")];
    if let Ok(selector) = LabelSelector::parse(text) {
        let _ = selector.matches(&labels);
        let _ = selector.is_everything() || selector.is_nothing();
    }
}

fn field_selector(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(selector) = FieldSelector::parse(text) {
        let _ = selector.check(&["metadata.name", "metadata.namespace", "spec.nodeName"], None);
        let _ = selector.matches(|field| (field == "metadata.name").then_some("a"));
        let _ = selector.renamed(&[("spec.nodeName", "spec.host")]).requires_exact("spec.host");
    }
}

fn quantity(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(quantity) = Quantity::parse(text) else { return };
    let canonical = Quantity::canonical(text).expect("what parses has a canonical form");
    let again = Quantity::canonical(&canonical);
    assert_eq!(again.as_deref(), Ok(canonical.as_str()), "{text:?}: the canonical form is not its own");
    let other = Quantity::from_i64(quantity.value(), Format::BinarySi);
    let _ = (quantity.plus(other).sign(), quantity.minus(other).milli_value(), quantity.as_f64());
    let _ = (quantity.is_zero(), quantity.is_whole(), quantity.cmp(&other));
}

/// A row of a table, for an object as it is stored: not all of them passed today's rules.
fn table(input: &[u8]) {
    let Some((doc, row)) = object(input) else { return };
    let columns = row.columns();
    let cells = (columns.cells)(&doc, jiff::Timestamp::UNIX_EPOCH);
    // Upstream gives an IPAddress's age without a column for it.
    let more = usize::from(row.plural == "ipaddresses");
    assert_eq!(cells.len(), columns.definitions.len() + more, "{}: a cell for each column", row.plural);
    let _ = (row.strategy().selectable_fields)(&doc);
}

/// Defaults, preparation, validation and warnings of a new object, and of an update from the first part to the second.
fn rules(input: &[u8]) {
    let (old, new) = parts(input);
    let Some((mut doc, row)) = object(new) else { return };
    let strategy = types::strategy(row.ty);
    let ctx = context(&row, "");
    if !old.is_empty() {
        let Some((old, old_row)) = object(old) else { return };
        if old_row.ty != row.ty {
            return;
        }
        for ctx in [&ctx, &context(&row, "status")] {
            let mut new = doc.clone();
            strategy.before_update(&mut new, &old, ctx);
            let _ = strategy.check_update(&new, &old, ctx);
            let _ = (strategy.warnings)(&new, Some(&old), ctx);
            defaults::apply(&mut new);
        }
        return;
    }
    strategy.before_create(&mut doc, &ctx);
    let errors = strategy.check_create(&doc, &ctx);
    let _ = (strategy.warnings)(&doc, None, &ctx);
    if errors.is_empty() {
        same_again(&doc, &row);
    }
}

/// A definition of a custom resource, and an object of it.
fn custom_resource(input: &[u8]) {
    let (definition, body) = parts(input);
    let Some((definition, row)) = object(definition) else { return };
    if row.kind != "CustomResourceDefinition" {
        return;
    }
    let Ok(rows) = custom::rows(&definition) else { return };
    for row in rows {
        let Some(custom) = &row.custom else { continue };
        let Ok((mut doc, _)) = json::decode_any(None, body, FieldValidation::Warn) else { return };
        let mut unknown = Vec::new();
        if prune::admit(&custom.schema, &mut doc, Some(&mut unknown)).is_err() {
            continue;
        }
        let mut errors = Default::default();
        keelson_api::structural::validate::validate(&custom.schema, &doc, Some(&doc), &mut errors);
        let _ = custom.cells(&doc, jiff::Timestamp::UNIX_EPOCH);
        let before = doc.clone();
        prune::adapt(&custom.schema, &mut doc);
        assert!(before == doc, "an object in its schema's form is changed by it");
    }
}

fn continue_token(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // As it came, and as what a client that knows the format would make of it.
    if let Ok((revision, start)) = continue_token::decode(text) {
        let token = continue_token::encode(revision, &start);
        let again = continue_token::decode(&token);
        assert_eq!(again.ok(), Some((revision, start)), "a token is not what it was");
    }
    let made = continue_token::encode(Some(input.len() as u64 + 1), text);
    if let Ok((_, start)) = continue_token::decode(&made) {
        assert!(!start.split('/').any(|part| part == ".."), "a token leaves its prefix: {start}");
    }
}
