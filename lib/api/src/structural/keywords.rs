//! What a CustomResourceDefinition's schema may say, keyword by keyword (apiextensions `validation.go`,
//! `ValidateCustomResourceDefinitionOpenAPISchema`). Whether it is structural is [`super::rules`]' question.

use super::rules::{branches, properties};
use crate::doc::{Map, Struct, Value};
use crate::f::apiextensions_v1::{json_schema_props as j, validation_rule as r};
use crate::field_errors::{ErrorList, FieldPath};
use crate::schema::Field;
use crate::types::walk::{json_text, strs, structs};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
const META: [&str; 3] = ["metadata", "kind", "apiVersion"];

/// Rules that an update keeps out of when the stored definition already broke them.
#[derive(Clone, Copy, Debug)]
pub struct Strictness {
    pub types: bool,
    pub atomic_sets: bool,
    pub map_keys: bool,
    pub pruned_defaults: bool,
    pub structural: bool,
}

impl Strictness {
    /// All rules.
    pub const FULL: Strictness = Strictness {
        types: true,
        atomic_sets: true,
        map_keys: true,
        pruned_defaults: true,
        structural: true,
    };
}

/// Whether the predicate holds for a schema or one within it.
pub fn any(schema: &Struct, holds: &dyn Fn(&Struct) -> bool) -> bool {
    if holds(schema) {
        return true;
    }
    let below = |value: &Value| match value {
        Value::Struct(inner) => any(inner, holds),
        Value::List(all) => all.iter().filter_map(Value::as_struct).any(|inner| any(inner, holds)),
        Value::Map(map) => {
            map.iter().filter_map(|(_, value)| value.as_struct()).any(|inner| any(inner, holds))
        }
        _ => false,
    };
    [
        j::ITEMS,
        j::ALL_OF,
        j::ANY_OF,
        j::ONE_OF,
        j::NOT,
        j::PROPERTIES,
        j::ADDITIONAL_PROPERTIES,
        j::PATTERN_PROPERTIES,
        j::ADDITIONAL_ITEMS,
        j::DEFINITIONS,
        j::DEPENDENCIES,
    ]
    .into_iter()
    .filter_map(|field| schema.get(field))
    .any(below)
}

/// A type that schemas do not have.
pub fn has_unknown_type(schema: &Struct) -> bool {
    let ty = schema.str(j::TYPE);
    !ty.is_empty() && !TYPES.contains(&ty)
}

/// A set whose items are not atomic.
pub fn has_open_set(schema: &Struct) -> bool {
    let mut errors = ErrorList::new();
    set_items(schema, &FieldPath::new(""), &mut errors);
    !errors.is_empty()
}

/// A set or map whose items or keys may be null or missing.
pub fn has_loose_keys(schema: &Struct) -> bool {
    let mut errors = ErrorList::new();
    map_keys(schema, &FieldPath::new(""), &mut errors);
    !errors.is_empty()
}

/// Where a schema stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// Why defaults are forbidden; `None`: they are not.
    no_defaults: Option<&'a str>,
    in_meta: bool,
    root: bool,
}

/// The mistakes of a version's whole schema.
pub fn validate(schema: &Struct, at: &FieldPath<'_>, strict: Strictness, errors: &mut ErrorList) {
    let place = Place { no_defaults: None, in_meta: false, root: true };
    walk(schema, at, place, strict, errors);
}

fn walk(s: &Struct, at: &FieldPath<'_>, place: Place<'_>, strict: Strictness, errors: &mut ErrorList) {
    plain(s, at, place, strict, errors);
    if s.bool(j::UNIQUE_ITEMS) == Some(true) {
        let text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden(&at.child("uniqueItems"), text);
    }
    let inner = Place { root: false, ..place };
    if let Some(additional) = s.get(j::ADDITIONAL_PROPERTIES) {
        let here = at.child("additionalProperties");
        if properties(s).next().is_some() && *additional != Value::Bool(true) {
            errors.forbidden(&here, "additionalProperties and properties are mutual exclusive");
        }
        if let Value::Struct(additional) = additional {
            let mut below = inner;
            if place.in_meta {
                below.no_defaults = Some("inside additionalProperties applying to object metadata");
            }
            walk(additional, &here, below, strict, errors);
        }
    }
    let named = at.child("properties");
    for (name, property) in properties(s) {
        let mut below = inner;
        let reason = format!("in top-level {name}");
        if (place.root || s.bool(j::X_KUBERNETES_EMBEDDED_RESOURCE) == Some(true)) && META.contains(&name) {
            below.in_meta = true;
            if place.root {
                below.no_defaults = Some(&reason);
            }
        }
        walk(property, &named.key(name), below, strict, errors);
    }
    if let Some(not) = s.child(j::NOT) {
        walk(not, &at.child("not"), inner, strict, errors);
    }
    for (field, name) in [(j::ALL_OF, "allOf"), (j::ONE_OF, "oneOf"), (j::ANY_OF, "anyOf")] {
        for (i, branch) in branches(s, field) {
            walk(branch, &at.child(name).index(i), inner, strict, errors);
        }
    }
    match s.get(j::ITEMS) {
        Some(Value::Struct(items)) => walk(items, &at.child("items"), inner, strict, errors),
        Some(Value::List(_)) => {
            for (i, items) in branches(s, j::ITEMS) {
                walk(items, &at.child("items").index(i), inner, strict, errors);
            }
        }
        _ => {}
    }
    extensions(s, at, strict, errors);
    expressions(s, at, errors);
}

/// Keywords that are not known, or not here.
fn plain(s: &Struct, at: &FieldPath<'_>, place: Place<'_>, strict: Strictness, errors: &mut ErrorList) {
    let ty = s.str(j::TYPE);
    if strict.types && has_unknown_type(s) {
        errors.not_supported(&at.child("type"), ty, &TYPES);
    }
    if let Some(reason) = place.no_defaults.filter(|_| s.has(j::DEFAULT)) {
        errors.forbidden(&at.child("default"), format!("must not be set {reason}"));
    }
    let filled = |field: Field| s.map(field).is_some_and(|map: &Map| !map.is_empty());
    for (found, name) in [
        (!s.str(j::ID).is_empty(), "id"),
        (s.has(j::ADDITIONAL_ITEMS), "additionalItems"),
        (filled(j::PATTERN_PROPERTIES), "patternProperties"),
        (filled(j::DEFINITIONS), "definitions"),
        (s.has(j::DEPENDENCIES), "dependencies"),
        (s.has(j::REF), "$ref"),
    ] {
        if found {
            errors.forbidden(&at.child(name), format!("{name} is not supported"));
        }
    }
    if ty == "null" {
        let text = "type cannot be set to null, use nullable as an alternative";
        errors.forbidden(&at.child("type"), text);
    }
    if s.get(j::ITEMS).and_then(Value::as_list).is_some_and(|all| !all.is_empty()) {
        errors.forbidden(&at.child("items"), "items must be a schema object and not an array");
    }
    if place.in_meta && s.bool(j::X_KUBERNETES_EMBEDDED_RESOURCE) == Some(true) {
        let text = "must not be used inside of resource meta";
        errors.forbidden(&at.child("x-kubernetes-embedded-resource"), text);
    }
}

fn extensions(s: &Struct, at: &FieldPath<'_>, strict: Strictness, errors: &mut ErrorList) {
    let ty = s.str(j::TYPE);
    if s.bool(j::X_KUBERNETES_PRESERVE_UNKNOWN_FIELDS) == Some(false) {
        errors.invalid(&at.child("x-kubernetes-preserve-unknown-fields"), false, "must be true or undefined");
    }
    let wrong_type = |wanted: &str, because: &str, errors: &mut ErrorList| {
        let text = format!("must be {wanted} if {because} is specified");
        match ty {
            "" => errors.required(&at.child("type"), text),
            ty => errors.invalid(&at.child("type"), ty, text),
        }
    };
    if s.has(j::X_KUBERNETES_MAP_TYPE) {
        if ty != "object" {
            wrong_type("object", "x-kubernetes-map-type", errors);
        }
        let map_type = s.str(j::X_KUBERNETES_MAP_TYPE);
        if !matches!(map_type, "atomic" | "granular") {
            errors.not_supported(&at.child("x-kubernetes-map-type"), map_type, &["atomic", "granular"]);
        }
    }
    let list_type = s.has(j::X_KUBERNETES_LIST_TYPE).then(|| s.str(j::X_KUBERNETES_LIST_TYPE));
    if list_type.is_some() && ty != "array" {
        wrong_type("array", "x-kubernetes-list-type", errors);
    } else if strict.atomic_sets {
        set_items(s, at, errors);
    }
    if let Some(list_type) = list_type.filter(|list_type| !matches!(*list_type, "atomic" | "set" | "map")) {
        errors.not_supported(&at.child("x-kubernetes-list-type"), list_type, &["atomic", "set", "map"]);
    }
    if !s.list(j::X_KUBERNETES_LIST_MAP_KEYS).is_empty() {
        let here = at.child("x-kubernetes-list-type");
        let text = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list_type {
            None => errors.required(&here, text),
            Some("map") => {}
            Some(other) => errors.invalid(&here, other, text),
        }
    }
    if list_type == Some("map") {
        map_list(s, at, errors);
    }
    if strict.map_keys {
        map_keys(s, at, errors);
    }
}

/// Items of a set are scalars or atomic.
fn set_items(s: &Struct, at: &FieldPath<'_>, errors: &mut ErrorList) {
    let Some(items) = s.child(j::ITEMS).filter(|_| s.str(j::X_KUBERNETES_LIST_TYPE) == "set") else { return };
    let text = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let here = at.child("items");
    let list_type = items.has(j::X_KUBERNETES_LIST_TYPE).then(|| items.str(j::X_KUBERNETES_LIST_TYPE));
    match items.str(j::TYPE) {
        "array" if list_type.is_some_and(|list_type| list_type != "atomic") => {
            errors.invalid(&here.child("x-kubernetes-list-type"), list_type.unwrap_or_default(), text);
        }
        "object" if items.str(j::X_KUBERNETES_MAP_TYPE) != "atomic" => {
            // Upstream shows the items' list type here, a null mostly.
            let path = here.child("x-kubernetes-map-type");
            match list_type {
                Some(list_type) => errors.invalid(&path, list_type, text),
                None => errors.invalid(&path, crate::field_errors::BadValue::Raw("null".into()), text),
            }
        }
        _ => {}
    }
}

fn map_list(s: &Struct, at: &FieldPath<'_>, errors: &mut ErrorList) {
    let keys_at = at.child("x-kubernetes-list-map-keys");
    if s.list(j::X_KUBERNETES_LIST_MAP_KEYS).is_empty() {
        errors.required(&keys_at, "must not be empty if x-kubernetes-list-type is map");
    }
    let here = at.child("items");
    let items = match s.get(j::ITEMS) {
        None => return errors.required(&here, "must have a schema if x-kubernetes-list-type is map"),
        Some(Value::Struct(items)) => items,
        other => {
            let text = "must only have a single schema if x-kubernetes-list-type is map";
            return errors.invalid(&here, json_text(other), text);
        }
    };
    let item_type = items.str(j::TYPE);
    if item_type != "object" {
        let text = "must be object if parent array's x-kubernetes-list-type is map";
        return errors.invalid(&here.child("type"), item_type, text);
    }
    let named = here.child("properties");
    let mut seen: Vec<&str> = Vec::new();
    for (_, key) in strs(s, j::X_KUBERNETES_LIST_MAP_KEYS) {
        let value = || json_text(s.get(j::X_KUBERNETES_LIST_MAP_KEYS));
        match properties(items).find(|(name, _)| *name == key) {
            Some((_, property)) if matches!(property.str(j::TYPE), "array" | "object") => {
                let text = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                errors.invalid(&named.key(key).child("type"), item_type, text);
            }
            Some(_) => {}
            None => errors.invalid(&keys_at, value(), "entries must all be names of item properties"),
        }
        if seen.contains(&key) {
            errors.invalid(&keys_at, value(), "must not contain duplicate entries");
        }
        seen.push(key);
    }
}

/// Items of sets and maps are never null; keys of maps are never missing.
fn map_keys(s: &Struct, at: &FieldPath<'_>, errors: &mut ErrorList) {
    let list_type = s.str(j::X_KUBERNETES_LIST_TYPE);
    let Some(items) = s.child(j::ITEMS).filter(|_| matches!(list_type, "set" | "map")) else { return };
    let here = at.child("items");
    if items.bool(j::NULLABLE) == Some(true) {
        let text = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        errors.forbidden(&here.child("nullable"), text);
    }
    if list_type != "map" {
        return;
    }
    let named = here.child("properties");
    for (_, key) in strs(s, j::X_KUBERNETES_LIST_MAP_KEYS) {
        let Some((_, property)) = properties(items).find(|(name, _)| *name == key) else { continue };
        let required = strs(items, j::REQUIRED).any(|(_, name)| name == key);
        if !required && !property.has(j::DEFAULT) {
            let text = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.required(&named.key(key).child("default"), text);
        }
        if property.bool(j::NULLABLE) == Some(true) {
            let text = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.forbidden(&named.key(key).child("nullable"), text);
        }
    }
}

/// The form of `x-kubernetes-validations`; the expressions themselves are not read here.
fn expressions(s: &Struct, at: &FieldPath<'_>, errors: &mut ErrorList) {
    let all = at.child("x-kubernetes-validations");
    for (i, rule) in structs(s, j::X_KUBERNETES_VALIDATIONS) {
        let here = all.index(i);
        let broken = |text: &str| text.contains(['\n', '\r']);
        let (text, message) = (rule.str(r::RULE).trim(), rule.str(r::MESSAGE));
        let trimmed = message.trim();
        if text.is_empty() {
            errors.required(&here.child("rule"), "rule is not specified");
        } else if !message.is_empty() && trimmed.is_empty() {
            errors.invalid(&here.child("message"), message, "must be non-empty if specified");
        } else if broken(trimmed) {
            errors.invalid(&here.child("message"), message, "must not contain line breaks");
        } else if broken(text) && trimmed.is_empty() {
            errors.required(&here.child("message"), "message must be specified if rule contains line breaks");
        }
        let expression = rule.str(r::MESSAGE_EXPRESSION);
        if !expression.is_empty() && expression.trim().is_empty() {
            errors.required(
                &here.child("messageExpression"),
                "messageExpression must be non-empty if specified",
            );
        }
        let reason = rule.str(r::REASON);
        if rule.has(r::REASON) && !REASONS.contains(&reason) {
            errors.not_supported(&here.child("reason"), reason, &REASONS);
        }
        let path = rule.str(r::FIELD_PATH);
        let path_at = here.child("fieldPath");
        if !path.is_empty() && path.trim().is_empty() {
            errors.invalid(&path_at, path, "must be non-empty if specified");
        }
        if broken(path) {
            errors.invalid(&path_at, path, "must not contain line breaks");
        }
        if !path.is_empty()
            && let Ok(schema) = super::Schema::parse(s)
            && super::selectable::find(&schema, path, true).is_err()
        {
            errors.invalid(&path_at, path, "must be a valid path");
        }
    }
}
