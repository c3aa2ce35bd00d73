//! Whether the defaults of a schema are values that the schema itself takes (apiextensions-apiserver `schema/defaulting`,
//! `ValidateDefaults`).

use super::{Additional, Schema, embedded, prune, validate};
use crate::doc::{Map, Value};
use crate::field_errors::{ErrorList, FieldPath};

/// A step from an embedded object down to where a default stands.
#[derive(Clone, Copy)]
enum Step<'a> {
    Member(&'a str),
    Item,
}

/// Where a node stands within the object that its metadata belongs to.
#[derive(Clone)]
struct Place<'a> {
    /// The node of that object.
    object: &'a Schema,
    steps: Vec<Step<'a>>,
    in_meta: bool,
}

/// The mistakes of all defaults of an object's schema. `pruned`: a default must not hold fields that would be pruned.
pub fn check(schema: &Schema, at: &FieldPath<'_>, pruned: bool, errors: &mut ErrorList) {
    if !schema.has_defaults() {
        return;
    }
    // The object itself has a type and metadata.
    let root = schema.as_embedded();
    walk(&root, &Place { object: &root, steps: Vec::new(), in_meta: false }, at, pruned, errors);
}

fn walk(schema: &Schema, place: &Place<'_>, at: &FieldPath<'_>, pruned: bool, errors: &mut ErrorList) {
    if !schema.has_defaults() {
        return;
    }
    let own = Place { object: schema, steps: Vec::new(), in_meta: false };
    let place = if schema.embedded() { &own } else { place };
    if let Some(default) = schema.default() {
        one(schema, default, place, &at.child("default"), pruned, errors);
    }
    // Nothing below additionalProperties: defaults are forbidden there or harmless.
    let below = |step, in_meta| {
        let mut below = place.clone();
        below.steps.push(step);
        below.in_meta |= in_meta;
        below
    };
    if let Some(items) = schema.items() {
        walk(items, &below(Step::Item, false), &at.child("items"), pruned, errors);
    }
    let named = at.child("properties");
    for (name, property) in schema.properties() {
        let meta = schema.embedded() && matches!(name, "metadata" | "apiVersion" | "kind");
        walk(property, &below(Step::Member(name), meta), &named.key(name), pruned, errors);
    }
}

fn one(
    schema: &Schema,
    default: &Value,
    place: &Place<'_>,
    at: &FieldPath<'_>,
    pruned: bool,
    errors: &mut ErrorList,
) {
    if place.in_meta {
        if let Err(text) = results_in_valid_meta(default, place) {
            let detail = format!("must result in valid metadata: {text}");
            return errors.invalid(at, validate::shown(default), detail);
        }
    } else {
        if pruned {
            let mut copy = default.clone();
            prune::prune_part(schema, &mut copy);
            if copy != *default {
                errors.invalid(at, validate::shown(default), "must not have unknown fields");
            }
        }
        let mut copy = default.clone();
        if let Err(error) = embedded::coerce_part(schema, &mut copy, at) {
            return errors.push(error.0);
        }
        let before = errors.len();
        embedded::validate_part(schema, default, at, errors);
        if errors.len() > before {
            return;
        }
    }
    validate::validate_part(schema, default, None, &at.to_string(), errors);
}

/// Whether an object with nothing but the default where it stands has a type and metadata that can be.
fn results_in_valid_meta(default: &Value, place: &Place<'_>) -> Result<(), String> {
    let mut value = default.clone();
    for step in place.steps.iter().rev() {
        value = match step {
            Step::Member(name) => Value::Map([(*name, value)].into_iter().collect()),
            Step::Item => Value::List(vec![value]),
        };
    }
    let mut object = match value {
        Value::Map(map) => map,
        _ => Map::new(),
    };
    for (name, text) in [("kind", "Validation"), ("apiVersion", "validation/v1")] {
        if !object.contains_key(name) {
            object.insert(name, text);
        }
    }
    let mut object = Value::Map(object);
    let root = FieldPath::new("");
    // Paths are told from the object on.
    let from_here =
        |text: String| text.replace("[.", "[").replace(", .", ", ").trim_start_matches('.').to_owned();
    embedded::coerce_part(place.object, &mut object, &root).map_err(|error| from_here(error.to_string()))?;
    let mut errors = ErrorList::new();
    embedded::validate_part(place.object, &object, &root, &mut errors);
    if errors.is_empty() { Ok(()) } else { Err(from_here(errors.aggregate())) }
}

/// Whether any default of the schema holds fields that would be pruned.
pub fn has_unpruned(schema: &Schema) -> bool {
    let own = schema.default().is_some_and(|default| {
        let mut copy = default.clone();
        prune::prune_part(schema, &mut copy);
        copy != *default
    });
    let additional = match schema.additional_properties() {
        Some(Additional::Schema(schema)) => Some(schema),
        _ => None,
    };
    own || schema.items().into_iter().chain(additional).any(|below| has_unpruned(below))
        || schema.properties().any(|(_, below)| has_unpruned(below))
}
