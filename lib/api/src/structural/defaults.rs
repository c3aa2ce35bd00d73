//! Whether the defaults of a schema are values that the schema itself takes (apiextensions-apiserver `schema/defaulting`,
//! `ValidateDefaults`).

use super::{Additional, Schema, embedded, prune, validate};
use crate::doc::Value;
use crate::field_errors::{ErrorList, FieldPath};

/// The mistakes of all defaults. `pruned`: a default must not hold fields that would be pruned.
pub fn check(schema: &Schema, at: &FieldPath<'_>, pruned: bool, errors: &mut ErrorList) {
    if !schema.has_defaults() {
        return;
    }
    if let Some(default) = schema.default() {
        one(schema, default, &at.child("default"), pruned, errors);
    }
    // Nothing below additionalProperties: defaults are forbidden there or harmless.
    if let Some(items) = schema.items() {
        check(items, &at.child("items"), pruned, errors);
    }
    let named = at.child("properties");
    for (name, property) in schema.properties() {
        check(property, &named.key(name), pruned, errors);
    }
}

fn one(schema: &Schema, default: &Value, at: &FieldPath<'_>, pruned: bool, errors: &mut ErrorList) {
    if pruned {
        let mut copy = default.clone();
        prune::prune_part(schema, &mut copy);
        if copy != *default {
            errors.invalid(at, validate::shown(default), "must not have unknown fields");
        }
    }
    let before = errors.len();
    embedded::validate_part(schema, default, at, errors);
    if errors.len() > before {
        return;
    }
    validate::validate_part(schema, default, None, &at.to_string(), errors);
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
