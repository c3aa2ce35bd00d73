//! Whether a schema is structural (apiextensions-apiserver `schema/validation.go`, `schema/complete.go`): outside of `allOf`,
//! `anyOf`, `oneOf` and `not` it says what there is, within them only what values hold.
//!
//! Works on the schema as it was written, since what is forbidden within branches has no place in a parsed one.

use super::pattern;
use crate::doc::{Map, Struct, Value};
use crate::f::apiextensions_v1::json_schema_props as j;
use crate::field_errors::{ErrorList, FieldPath};
use crate::schema::Field;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// All that keeps a schema from being structural, sorted by text.
pub fn structural(schema: &Struct, at: &FieldPath<'_>, errors: &mut ErrorList) {
    let mut found = ErrorList::new();
    invariants(schema, Level::Root, at, &mut found);
    complete_values(schema, Some(schema), at, at, &mut found);
    let mut found: Vec<_> = found.into_iter().map(|error| (error.to_string(), error)).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found.into_iter().for_each(|(_, error)| errors.push(error));
}

fn flag(schema: &Struct, field: Field) -> bool {
    schema.bool(field) == Some(true)
}

/// The properties of a schema, by name.
pub(super) fn properties(schema: &Struct) -> impl Iterator<Item = (&str, &Struct)> {
    let entries = schema.map(j::PROPERTIES).into_iter().flat_map(Map::iter);
    entries.filter_map(|(name, value)| Some((name, value.as_struct()?)))
}

/// The branches of `allOf` and its like.
pub(super) fn branches(schema: &Struct, field: Field) -> impl Iterator<Item = (usize, &Struct)> {
    schema.list(field).iter().enumerate().filter_map(|(i, value)| Some((i, value.as_struct()?)))
}

fn invariants(s: &Struct, level: Level, at: &FieldPath<'_>, errors: &mut ErrorList) {
    let ty = s.str(j::TYPE);
    let items = s.child(j::ITEMS);
    if ty == "array" && items.is_none() {
        errors.required(&at.child("items"), "must be specified");
    }
    if let Some(items) = items {
        invariants(items, Level::Item, &at.child("items"), errors);
    }
    let named = at.child("properties");
    for (name, property) in properties(s) {
        invariants(property, Level::Field, &named.key(name), errors);
    }
    if s.has(j::ADDITIONAL_PROPERTIES) {
        let here = at.child("additionalProperties");
        if level == Level::Root {
            errors.forbidden(&here, "must not be used at the root");
        }
        if let Some(additional) = s.child(j::ADDITIONAL_PROPERTIES) {
            invariants(additional, Level::Field, &here, errors);
        }
    }
    extensions(s, at, errors);
    let any_of = is_int_or_string(s);
    let all_of = branches(s, j::ALL_OF).next().is_some_and(|(i, first)| i == 0 && is_int_or_string(first));
    values(s, any_of, all_of, level, at, errors);
    types(s, level, at, errors);
    meta(s, level, at, errors);
}

/// `anyOf` is an integer or a string and nothing more.
fn is_int_or_string(s: &Struct) -> bool {
    let only = |branch: &Struct, ty: &str| branch.iter().len() == 1 && branch.str(j::TYPE) == ty;
    let all: Vec<&Struct> = branches(s, j::ANY_OF).map(|(_, branch)| branch).collect();
    all.len() == 2 && only(all[0], "integer") && only(all[1], "string")
}

fn extensions(s: &Struct, at: &FieldPath<'_>, errors: &mut ErrorList) {
    if !flag(s, j::X_KUBERNETES_INT_OR_STRING) {
        return;
    }
    for field in [j::X_KUBERNETES_PRESERVE_UNKNOWN_FIELDS, j::X_KUBERNETES_EMBEDDED_RESOURCE] {
        if flag(s, field) {
            let text = "must be false if x-kubernetes-int-or-string is true";
            errors.invalid(&at.child(field.def().json), true, text);
        }
    }
}

fn types(s: &Struct, level: Level, at: &FieldPath<'_>, errors: &mut ErrorList) {
    let ty = s.str(j::TYPE);
    let embedded = flag(s, j::X_KUBERNETES_EMBEDDED_RESOURCE);
    let free = flag(s, j::X_KUBERNETES_INT_OR_STRING) || flag(s, j::X_KUBERNETES_PRESERVE_UNKNOWN_FIELDS);
    let here = at.child("type");
    if embedded && ty != "object" {
        let text = "must be object if x-kubernetes-embedded-resource is true";
        if ty.is_empty() { errors.required(&here, text) } else { errors.invalid(&here, ty, text) }
    } else if ty.is_empty() && !free {
        errors.required(
            &here,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        );
    }
    if embedded && s.has(j::ADDITIONAL_PROPERTIES) {
        let text = "must not be used if x-kubernetes-embedded-resource is set";
        errors.forbidden(&at.child("additionalProperties"), text);
    }
    if level == Level::Root && !ty.is_empty() && ty != "object" {
        errors.invalid(&here, ty, "must be object at the root");
    }
}

/// The implicit apiVersion, kind and metadata may be restricted a little only.
fn meta(s: &Struct, level: Level, at: &FieldPath<'_>, errors: &mut ErrorList) {
    let embedded = flag(s, j::X_KUBERNETES_EMBEDDED_RESOURCE);
    let checked = level == Level::Root || embedded;
    let named = at.child("properties");
    let find = |name: &str| properties(s).find(|(known, _)| *known == name).map(|(_, property)| property);
    for name in ["kind", "apiVersion"] {
        if let Some(property) = find(name).filter(|property| checked && property.str(j::TYPE) != "string") {
            errors.invalid(&named.key(name).child("type"), property.str(j::TYPE), "must be string");
        }
    }
    if let Some(metadata) = find("metadata") {
        let here = named.key("metadata");
        if checked && metadata.str(j::TYPE) != "object" {
            errors.invalid(&here.child("type"), metadata.str(j::TYPE), "must be object");
        }
        if level == Level::Root && !restricts_names_only(metadata) {
            let text = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.forbidden(&here, text);
        }
    }
    let open = flag(s, j::X_KUBERNETES_PRESERVE_UNKNOWN_FIELDS) || properties(s).next().is_some();
    if embedded && !open {
        let text = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.required(&named, text);
    }
}

fn restricts_names_only(metadata: &Struct) -> bool {
    metadata.iter().all(|(index, value)| {
        let field = Field::new(metadata.ty(), index);
        field == j::TYPE
            || field == j::DEFAULT
            || value.is_go_empty()
            || (field == j::PROPERTIES
                && properties(metadata).all(|(name, _)| matches!(name, "name" | "generateName")))
    })
}

fn values(
    s: &Struct,
    skip_any_of: bool,
    skip_first_all_of: bool,
    level: Level,
    at: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    if !skip_any_of {
        for (i, branch) in branches(s, j::ANY_OF) {
            nested(branch, false, level, &at.child("anyOf").index(i), errors);
        }
    }
    for (i, branch) in branches(s, j::ALL_OF) {
        nested(branch, skip_first_all_of && i == 0, level, &at.child("allOf").index(i), errors);
    }
    for (i, branch) in branches(s, j::ONE_OF) {
        nested(branch, false, level, &at.child("oneOf").index(i), errors);
    }
    if let Some(not) = s.child(j::NOT) {
        nested(not, false, level, &at.child("not"), errors);
    }
    let text = s.str(j::PATTERN);
    if !text.is_empty()
        && let Err(error) = pattern::check(text)
    {
        errors.invalid(
            &at.child("pattern"),
            text,
            format!("must be a valid regular expression, but isn't: {error}"),
        );
    }
}

/// What stands below a branch holds values and says nothing else.
fn nested(s: &Struct, skip_any_of: bool, level: Level, at: &FieldPath<'_>, errors: &mut ErrorList) {
    values(s, skip_any_of, false, level, at, errors);
    if let Some(items) = s.child(j::ITEMS) {
        nested(items, false, level, &at.child("items"), errors);
    }
    let named = at.child("properties");
    for (name, property) in properties(s) {
        nested(property, false, Level::Field, &named.key(name), errors);
    }
    let empty = "must be empty to be structural";
    let undefined = "must be undefined to be structural";
    let off = "must be false to be structural";
    for (field, text) in [
        (j::TYPE, empty),
        (j::ADDITIONAL_PROPERTIES, undefined),
        (j::DEFAULT, undefined),
        (j::TITLE, empty),
        (j::DESCRIPTION, empty),
        (j::NULLABLE, off),
        (j::X_KUBERNETES_PRESERVE_UNKNOWN_FIELDS, off),
        (j::X_KUBERNETES_EMBEDDED_RESOURCE, off),
        (j::X_KUBERNETES_INT_OR_STRING, off),
        (j::X_KUBERNETES_LIST_MAP_KEYS, empty),
        (j::X_KUBERNETES_LIST_TYPE, undefined),
        (j::X_KUBERNETES_MAP_TYPE, undefined),
        (j::X_KUBERNETES_VALIDATIONS, empty),
    ] {
        let set = match s.get(field) {
            // `additionalProperties: false` is nothing upstream's conversion keeps.
            Some(Value::Bool(value)) => *value,
            Some(Value::Raw(text)) => text != "null",
            Some(value) => field.def().flags.has(crate::schema::Flags::POINTER) || !value.is_go_empty(),
            None => false,
        };
        if set {
            errors.forbidden(&at.child(field.def().json), text);
        }
    }
    if properties(s).any(|(name, _)| name == "metadata") {
        errors.forbidden(&named.key("metadata"), "must not be specified in a nested context");
    }
}

/// Every field that a branch speaks of is specified outside of branches.
fn complete_values(
    v: &Struct,
    s: Option<&Struct>,
    s_at: &FieldPath<'_>,
    v_at: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    if let Some(not) = v.child(j::NOT) {
        complete(not, s, s_at, &v_at.child("not"), errors);
    }
    for (field, name) in [(j::ALL_OF, "allOf"), (j::ANY_OF, "anyOf"), (j::ONE_OF, "oneOf")] {
        for (i, branch) in branches(v, field) {
            complete(branch, s, s_at, &v_at.child(name).index(i), errors);
        }
    }
}

fn complete(
    v: &Struct,
    s: Option<&Struct>,
    s_at: &FieldPath<'_>,
    v_at: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    let Some(s) = s else {
        errors.required(s_at, format!("because it is defined in {v_at}"));
        return;
    };
    complete_values(v, Some(s), s_at, v_at, errors);
    if let Some(items) = v.child(j::ITEMS) {
        complete(items, s.child(j::ITEMS), &s_at.child("items"), &v_at.child("items"), errors);
    }
    let (s_named, v_named) = (s_at.child("properties"), v_at.child("properties"));
    for (name, property) in properties(v) {
        let (s_here, v_here) = (s_named.key(name), v_named.key(name));
        match properties(s).find(|(known, _)| *known == name) {
            Some((_, known)) => complete(property, Some(known), &s_here, &v_here, errors),
            None => errors.required(&s_here, format!("because it is defined in {v_here}")),
        }
    }
}
