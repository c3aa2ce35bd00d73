//! Values against a schema's value validations, with the errors that upstream's validator reports (kube-openapi
//! `validation/validate`, apiextensions-apiserver `apiserver/validation`).
//!
//! A valid value costs one walk that builds nothing. Only when that fails, a second walk collects the errors, chooses among
//! branches of `anyOf` and `oneOf` by how much of each held, and drops what an update did not change.

use std::borrow::Cow;

use super::numbers::{self, Bound};
use super::{Additional, Rules, Schema, Type, formats, pattern};
use crate::doc::{Doc, Map, Value};
use crate::f::meta_v1::object_meta as om;
use crate::field_errors::{BadValue, ErrorKind, ErrorList, FieldError, FieldPath, quoted};
use crate::schema::ListType;

/// Errors told of one object; hostile ones could have millions.
const MAX_ERRORS: usize = 256;

/// All mistakes of a new object, or (with the object it replaces) of an update: an error whose value did not change is not one.
pub fn validate(schema: &Schema, new: &Doc, old: Option<&Doc>, errors: &mut ErrorList) {
    run(schema, Node::Root(new), old.map(Node::Root), None, errors);
}

/// The mistakes of a part of an object (`status`), told with `prefix` before their paths.
pub fn validate_part(
    schema: &Schema,
    new: &Value,
    old: Option<&Value>,
    prefix: &str,
    errors: &mut ErrorList,
) {
    run(schema, Node::Value(new), old.map(Node::Value), Some(prefix), errors);
}

/// Whether the value holds against the schema.
pub fn accepts(schema: &Schema, value: &Value) -> bool {
    let mut outcome = Outcome::new(false);
    check(schema, Node::Value(value), None, None, &mut outcome);
    !outcome.failed
}

fn run(schema: &Schema, new: Node<'_>, old: Option<Node<'_>>, prefix: Option<&str>, errors: &mut ErrorList) {
    let mut quick = Outcome::new(false);
    check(schema, new, None, None, &mut quick);
    if !quick.failed {
        return;
    }
    let mut outcome = Outcome::new(true);
    check(schema, new, old, None, &mut outcome);
    for found in outcome.found {
        errors.push(found.into_error(prefix));
    }
}

/// What is validated: a value, or a whole object, whose apiVersion, kind and metadata lie elsewhere.
#[derive(Clone, Copy)]
enum Node<'v> {
    Value(&'v Value),
    Root(&'v Doc),
}

impl<'v> Node<'v> {
    fn map(self) -> Option<&'v Map> {
        match self {
            Node::Value(value) => value.as_map(),
            Node::Root(doc) => doc.root.as_map(),
        }
    }

    fn value(self) -> Option<&'v Value> {
        match self {
            Node::Value(value) => Some(value),
            Node::Root(_) => None,
        }
    }

    fn is_null(self) -> bool {
        matches!(self, Node::Value(Value::Null))
    }

    fn len(self) -> usize {
        let own = if matches!(self, Node::Root(_)) { 2 } else { 0 };
        self.map().map_or(0, Map::len) + own
    }

    fn has(self, key: &str) -> bool {
        let own = matches!(self, Node::Root(_)) && matches!(key, "apiVersion" | "kind");
        own || self.map().is_some_and(|map| map.contains_key(key))
    }

    fn get(self, key: &str) -> Option<Cow<'v, Value>> {
        let Node::Root(doc) = self else { return self.map()?.get(key).map(Cow::Borrowed) };
        match key {
            "apiVersion" => Some(Cow::Owned(Value::Str(doc.gvk.api_version()))),
            "kind" => Some(Cow::Owned(Value::Str(doc.gvk.kind.clone()))),
            "metadata" => {
                // Schemas may restrict these two only.
                let meta = doc.meta().as_struct()?;
                let pairs = [("name", om::NAME), ("generateName", om::GENERATE_NAME)];
                let pairs =
                    pairs.into_iter().filter_map(|(name, field)| Some((name, meta.get(field)?.clone())));
                Some(Cow::Owned(Value::Map(pairs.collect())))
            }
            key => self.map()?.get(key).map(Cow::Borrowed),
        }
    }

    fn same(self, other: Node<'_>) -> bool {
        match (self, other) {
            (Node::Value(a), Node::Value(b)) => a == b,
            (Node::Root(a), Node::Root(b)) => a == b,
            _ => false,
        }
    }
}

/// One mistake, before its path is put together.
struct Found {
    kind: ErrorKind,
    /// `None`: told of no path (what is wrong with several schemas at once).
    path: Option<String>,
    value: BadValue,
    detail: String,
}

impl Found {
    fn into_error(self, prefix: Option<&str>) -> FieldError {
        let path = self.path.filter(|path| !path.is_empty());
        let field = match (prefix, path) {
            (Some(prefix), Some(path)) => format!("{prefix}.{path}"),
            (Some(prefix), None) => prefix.to_owned(),
            (None, Some(path)) => path,
            (None, None) => "<nil>".to_owned(),
        };
        FieldError { kind: self.kind, field, value: self.value, detail: self.detail }
    }
}

struct Outcome {
    /// Errors are collected; else the first one ends the walk.
    collect: bool,
    failed: bool,
    found: Vec<Found>,
    /// How many checks held: the branch with most of them tells its errors.
    matches: u32,
}

impl Outcome {
    fn new(collect: bool) -> Outcome {
        Outcome { collect, failed: false, found: Vec::new(), matches: 0 }
    }

    fn stop(&self) -> bool {
        self.failed && (!self.collect || self.found.len() >= MAX_ERRORS)
    }

    fn fail(&mut self, make: impl FnOnce() -> Found) {
        self.failed = true;
        if self.collect {
            self.keep(make());
        }
    }

    fn keep(&mut self, found: Found) {
        let known = |other: &Found| {
            other.path == found.path && other.detail == found.detail && other.kind == found.kind
        };
        if self.found.len() < MAX_ERRORS && !self.found.iter().any(known) {
            self.found.push(found);
        }
    }

    fn merge(&mut self, other: Outcome) {
        self.failed |= other.failed;
        self.matches += other.matches;
        other.found.into_iter().for_each(|found| self.keep(found));
    }
}

type At<'p> = Option<&'p FieldPath<'p>>;

fn text(at: At<'_>) -> String {
    at.map_or_else(String::new, ToString::to_string)
}

/// `spec.replicas in body should be …`.
fn found(kind: ErrorKind, at: At<'_>, value: BadValue, what: std::fmt::Arguments<'_>) -> Found {
    let path = text(at);
    let detail = format!("{path} in body {what}");
    Found { kind, path: Some(path), value, detail }
}

fn loose(detail: String) -> Found {
    Found { kind: ErrorKind::Invalid, path: None, value: "".into(), detail }
}

/// A value as field errors print it.
pub(crate) fn shown(value: &Value) -> BadValue {
    match value {
        Value::Str(text) => text.as_str().into(),
        Value::Int(n) => (*n).into(),
        Value::Bool(b) => (*b).into(),
        Value::Float(n) => BadValue::Raw(numbers::go_float(*n)),
        other => crate::types::walk::json_text(Some(other)),
    }
}

/// One node and all below it. What did not change since `old` is forgiven.
fn check(schema: &Schema, node: Node<'_>, old: Option<Node<'_>>, at: At<'_>, out: &mut Outcome) {
    let Some(old) = old else { return check_node(schema, node, None, at, out) };
    let mut own = Outcome::new(true);
    check_node(schema, node, Some(old), at, &mut own);
    if own.failed && node.same(old) {
        own.failed = false;
        own.found.clear();
    }
    out.merge(own);
}

fn check_node(schema: &Schema, node: Node<'_>, old: Option<Node<'_>>, at: At<'_>, out: &mut Outcome) {
    let format = schema.rules().map_or("", |rules| rules.format.as_str());
    if node.is_null() {
        check_type(schema, format, node, at, out);
        if let Some(rules) = schema.rules() {
            check_enum(rules, node, at, out);
        }
        return;
    }
    if schema.ty() != Type::Any || !format.is_empty() {
        check_type(schema, format, node, at, out);
        out.matches += 1;
    }
    if let Some(rules) = schema.rules() {
        if out.stop() {
            return;
        }
        check_branches(rules, node, old, at, out);
    }
    // The check of branches itself counts, and that it was made.
    out.matches += 2;
    if out.stop() {
        return;
    }
    match node {
        Node::Value(Value::Str(value)) => {
            if let Some(rules) = schema.rules() {
                check_string(rules, value, at, out);
            }
            out.matches += 1 + u32::from(!format.is_empty());
        }
        Node::Value(value @ (Value::Int(_) | Value::Float(_))) => {
            if let Some(rules) = schema.rules() {
                check_number(rules, value, at, out);
            }
            out.matches += 2;
        }
        Node::Value(Value::List(items)) => {
            check_list(schema, items, old, at, out);
            out.matches += 2;
        }
        _ => {}
    }
    if let Some(rules) = schema.rules() {
        check_enum(rules, node, at, out);
    }
    out.matches += 1;
    if node.map().is_some() && !out.stop() {
        check_object(schema, node, old, at, out);
        out.matches += 1;
    }
    out.matches += 1;
}

/// What a value is, in the words of schemas, and the format that Go's type of it has.
fn kind_of(node: Node<'_>) -> (&'static str, &'static str) {
    match node {
        Node::Root(_) => ("object", ""),
        Node::Value(value) => match value {
            Value::Null => ("null", ""),
            Value::Bool(_) => ("boolean", ""),
            Value::Int(_) => ("integer", "int64"),
            Value::Float(_) => ("number", "float64"),
            Value::Str(_) | Value::Raw(_) => ("string", ""),
            Value::List(_) => ("array", ""),
            Value::Map(_) | Value::Struct(_) => ("object", ""),
        },
    }
}

fn contains(ty: Type, name: &str) -> bool {
    match ty {
        Type::IntOrString => matches!(name, "integer" | "string"),
        ty => ty.name() == name,
    }
}

fn check_type(schema: &Schema, format: &str, node: Node<'_>, at: At<'_>, out: &mut Outcome) {
    let ty = schema.ty();
    let wrong = |out: &mut Outcome, wanted: &str, got: &str| {
        out.fail(|| {
            let what = format!("must be of type {wanted}: {}", quoted(got));
            found(ErrorKind::TypeInvalid, at, got.into(), format_args!("{what}"))
        });
    };
    if node.is_null() {
        match ty == Type::Any || schema.nullable() {
            true => out.matches += 1,
            false => wrong(out, ty.name(), "null"),
        }
        return;
    }
    let (name, own_format) = kind_of(node);
    let whole = matches!(node, Node::Value(Value::Float(n)) if numbers::is_json_integer(*n));
    let float_as_int = name == "number" && whole && contains(ty, "integer");
    let int_as_float = name == "integer" && contains(ty, "number");
    let textual = matches!(name, "string" | "array");
    let fits = contains(ty, name) || float_as_int || int_as_float;
    let number = contains(ty, "number") || contains(ty, "integer");
    if !textual && !format.is_empty() && !fits && own_format != format {
        wrong(out, format, own_format);
    } else if (!number && !format.is_empty() && textual) || fits {
        out.matches += 1;
    } else {
        wrong(out, ty.name(), name);
    }
}

fn check_enum(rules: &Rules, node: Node<'_>, at: At<'_>, out: &mut Outcome) {
    if rules.enumeration.is_empty() {
        return;
    }
    let equal = |one: &Value| match (one, node.value()) {
        (Value::Null, _) | (_, None | Some(Value::Null)) => false,
        (Value::Int(wanted), Some(Value::Float(n))) => *n as i64 == *wanted,
        (Value::Float(wanted), Some(Value::Int(n))) => *n as f64 == *wanted,
        (one, Some(value)) => one == value,
    };
    if rules.enumeration.iter().any(equal) {
        return;
    }
    out.fail(|| {
        let mut detail = String::new();
        for (i, one) in rules.enumeration.iter().enumerate() {
            detail.push_str(if i == 0 { "supported values: " } else { ", " });
            match one {
                Value::Str(text) => detail.push_str(&quoted(text)),
                other => {
                    let mut json = Vec::new();
                    crate::json::encode_value(other, &mut json);
                    detail.push_str(&quoted(&String::from_utf8_lossy(&json)));
                }
            }
        }
        let value = node.value().map_or(BadValue::Raw("{}".into()), shown);
        Found { kind: ErrorKind::NotSupported, path: Some(text(at)), value, detail }
    });
}

fn check_branches(rules: &Rules, node: Node<'_>, old: Option<Node<'_>>, at: At<'_>, out: &mut Outcome) {
    let branch = |schema: &Schema, collect: bool| {
        let mut outcome = Outcome::new(collect);
        check(schema, node, if collect { old } else { None }, at, &mut outcome);
        outcome
    };
    let collect = out.collect;
    if !rules.any_of.is_empty() {
        let mut best: Option<Outcome> = None;
        for schema in &rules.any_of {
            let outcome = branch(schema, collect);
            let held = !outcome.failed;
            if held || best.as_ref().is_none_or(|best| outcome.matches > best.matches) {
                best = Some(outcome);
            }
            if held {
                break;
            }
        }
        if best.as_ref().is_some_and(|best| best.failed) {
            out.fail(|| loose(format!("{} must validate at least one schema (anyOf)", quoted(&text(at)))));
        }
        best.into_iter().for_each(|best| out.merge(best));
    }
    if !rules.one_of.is_empty() && !out.stop() {
        one_of(rules, &branch, at, out);
    }
    if !rules.all_of.is_empty() && !out.stop() {
        let mut held = 0;
        for schema in &rules.all_of {
            let outcome = branch(schema, collect);
            held += usize::from(!outcome.failed);
            out.merge(outcome);
            if out.stop() {
                return;
            }
        }
        if held != rules.all_of.len() {
            let none = if held == 0 { ". None validated" } else { "" };
            out.fail(|| loose(format!("{} must validate all the schemas (allOf){none}", quoted(&text(at)))));
        }
    }
    if let Some(not) = &rules.not
        && !branch(not, collect).failed
    {
        out.fail(|| loose(format!("{} must not validate the schema (not)", quoted(&text(at)))));
    }
}

fn one_of(rules: &Rules, branch: &dyn Fn(&Schema, bool) -> Outcome, at: At<'_>, out: &mut Outcome) {
    let (mut held, mut best, mut first): (usize, Option<Outcome>, Option<Outcome>) = (0, None, None);
    for schema in &rules.one_of {
        let outcome = branch(schema, out.collect);
        if !outcome.failed {
            held += 1;
            best = None;
            first.get_or_insert(outcome);
        } else if held == 0 && best.as_ref().is_none_or(|best| outcome.matches > best.matches) {
            best = Some(outcome);
        }
    }
    if held == 1 {
        return first.into_iter().for_each(|first| out.merge(first));
    }
    let what =
        if held == 0 { "Found none valid".to_owned() } else { format!("Found {held} valid alternatives") };
    out.fail(|| {
        loose(format!("{} must validate one and only one schema (oneOf). {what}", quoted(&text(at))))
    });
    best.into_iter().for_each(|best| out.merge(best));
}

fn check_string(rules: &Rules, value: &str, at: At<'_>, out: &mut Outcome) {
    let length = || value.chars().count() as i64;
    if let Some(max) = rules.max_length
        && value.len() as i64 > max
        && length() > max
    {
        out.fail(|| {
            let unit = if max == 1 { "byte" } else { "bytes" };
            let detail = format!("may not be more than {max} {unit}");
            Found { kind: ErrorKind::TooLong, path: Some(text(at)), value: BadValue::Omitted, detail }
        });
    } else if let Some(min) = rules.min_length
        && length() < min
    {
        let what = format_args!("should be at least {min} chars long");
        out.fail(|| found(ErrorKind::Invalid, at, value.into(), what));
    } else if let Some(pattern) = &rules.pattern
        && !pattern.matches(value)
    {
        out.fail(|| {
            let why = pattern::check(pattern.text()).err();
            let why = why.map(|error| format!(", but pattern is invalid: {error}")).unwrap_or_default();
            found(
                ErrorKind::Invalid,
                at,
                value.into(),
                format_args!("should match '{}{why}'", pattern.text()),
            )
        });
    }
    if !rules.format.is_empty() && !formats::matches(&rules.format, value) {
        let what = format!("must be of type {}: {}", rules.format, quoted(value));
        out.fail(|| found(ErrorKind::TypeInvalid, at, value.into(), format_args!("{what}")));
    }
}

fn check_number(rules: &Rules, value: &Value, at: At<'_>, out: &mut Outcome) {
    let bounds = [
        rules.multiple_of.map(Bound::MultipleOf),
        rules.maximum.map(|max| Bound::Maximum(max, rules.exclusive_maximum)),
        rules.minimum.map(|min| Bound::Minimum(min, rules.exclusive_minimum)),
    ];
    for wrong in bounds.into_iter().flatten().filter_map(|bound| bound.violated(value)) {
        out.fail(|| match wrong {
            numbers::Wrong::Should(what) => {
                found(ErrorKind::Invalid, at, shown(value), format_args!("should be {what}"))
            }
            numbers::Wrong::FactorNotPositive(factor) => {
                let path = text(at);
                let detail = format!("factor MultipleOf declared for {path} must be positive: {factor}");
                Found { kind: ErrorKind::Invalid, path: Some(path), value: BadValue::Raw(factor), detail }
            }
        });
    }
}

fn check_list(schema: &Schema, items: &[Value], old: Option<Node<'_>>, at: At<'_>, out: &mut Outcome) {
    if let Some(item_schema) = schema.items() {
        let old_items = old.and_then(|old| old.value()?.as_list());
        for (i, item) in items.iter().enumerate() {
            let before = old_items.and_then(|old| correlated(schema, item, old));
            let root = FieldPath::new("");
            let here = at.unwrap_or(&root).index(i);
            check(item_schema, Node::Value(item), before.map(Node::Value), Some(&here), out);
            if out.stop() {
                return;
            }
        }
    }
    let Some(rules) = schema.rules() else { return };
    let size = items.len() as i64;
    if let Some(min) = rules.min_items
        && size < min
    {
        let what = format_args!("should have at least {min} items");
        out.fail(|| found(ErrorKind::Invalid, at, size.into(), what));
    }
    if let Some(max) = rules.max_items
        && size > max
    {
        too_many(size, max, at, out);
    }
    if rules.unique_items && items.iter().enumerate().any(|(i, item)| items[..i].contains(item)) {
        out.fail(|| found(ErrorKind::Invalid, at, "".into(), format_args!("shouldn't contain duplicates")));
    }
}

fn too_many(size: i64, max: i64, at: At<'_>, out: &mut Outcome) {
    out.fail(|| {
        let unit = if max == 1 { "item" } else { "items" };
        let detail = format!("must have at most {max} {unit}");
        Found { kind: ErrorKind::TooMany, path: Some(text(at)), value: size.into(), detail }
    });
}

/// The old item that a new one continues: only lists of type map tell.
fn correlated<'o>(schema: &Schema, item: &Value, old: &'o [Value]) -> Option<&'o Value> {
    if schema.list_type() != ListType::Map {
        return None;
    }
    let item = item.as_map()?;
    old.iter().find(|old| {
        old.as_map().is_some_and(|old| schema.list_map_keys().iter().all(|key| old.get(key) == item.get(key)))
    })
}

fn check_object(schema: &Schema, node: Node<'_>, old: Option<Node<'_>>, at: At<'_>, out: &mut Outcome) {
    let nothing = Rules::default();
    let rules = schema.rules().unwrap_or(&nothing);
    let size = node.len() as i64;
    if let Some(min) = rules.min_properties
        && size < min
    {
        let what = format_args!("should have at least {min} properties");
        out.fail(|| found(ErrorKind::Invalid, at, size.into(), what));
    }
    if let Some(max) = rules.max_properties
        && size > max
    {
        too_many(size, max, at, out);
    }
    let child = |schema: &Schema, key: &str, value: &Value, out: &mut Outcome| {
        let is_root = matches!(node, Node::Root(_));
        let before =
            old.filter(|_| !is_root || !matches!(key, "apiVersion" | "kind")).and_then(|old| old.get(key));
        let root = FieldPath::new(key);
        let below = at.map(|at| at.child(key));
        let here = below.as_ref().unwrap_or(&root);
        check(schema, Node::Value(value), before.as_deref().map(Node::Value), Some(here), out);
    };
    let extra =
        || node.map().into_iter().flat_map(Map::iter).filter(|(key, _)| schema.property(key).is_none());
    match schema.additional_properties() {
        Some(Additional::Allowed(false)) => {
            for (key, _) in extra() {
                out.fail(|| {
                    let path = text(at);
                    let detail = format!("{path}.{key} in body is a forbidden property");
                    Found { kind: ErrorKind::Invalid, path: Some(path), value: key.into(), detail }
                });
            }
        }
        Some(Additional::Schema(additional)) => {
            for (key, value) in extra() {
                child(additional, key, value, out);
                if out.stop() {
                    return;
                }
            }
        }
        Some(Additional::Allowed(true)) | None => {}
    }
    for (key, property) in schema.properties() {
        if let Some(value) = node.get(key) {
            child(property, key, &value, out);
            if out.stop() {
                return;
            }
        }
    }
    for key in rules.required.iter().filter(|key| !node.has(key)) {
        out.fail(|| {
            let root = FieldPath::new(key);
            let path = at.map_or_else(|| root.to_string(), |at| at.child(key).to_string());
            Found { kind: ErrorKind::Required, path: Some(path), value: "".into(), detail: String::new() }
        });
    }
}
