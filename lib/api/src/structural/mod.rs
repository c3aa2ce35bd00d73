//! Structural schemas of custom resources (apiextensions-apiserver `apiserver/schema`): what prunes, defaults, validates and
//! merges objects of a CustomResourceDefinition's version.
//!
//! A [`Schema`] is parsed once from the version's `openAPIV3Schema`, never changed, and shared by [`Arc`]. Whether what was
//! written is structural is [`rules`]'s question; parsing takes everything that upstream's conversion takes.
//! Everything works on the values of a [`crate::doc::Doc`] directly.

pub mod custom;
pub mod defaults;
pub mod embedded;
pub mod fits;
pub mod formats;
pub mod jsonpath;
pub mod keywords;
pub mod lists;
mod numbers;
mod parse;
pub mod pattern;
pub mod prune;
pub mod rules;
pub mod selectable;
pub mod validate;

use std::sync::Arc;

use compact_str::CompactString;

use crate::doc::Value;
use crate::schema::ListType;
pub use parse::ParseError;
pub use pattern::Pattern;

/// What a value of a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    /// `x-kubernetes-int-or-string`.
    IntOrString,
    /// No type is given: anything goes.
    Any,
}

impl Type {
    /// The type as schemas write it; the two of an int-or-string joined, `""` for [`Type::Any`].
    pub fn name(self) -> &'static str {
        match self {
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
            Type::IntOrString => "integer,string",
            Type::Any => "",
        }
    }
}

/// What `additionalProperties` says.
#[derive(Clone, Debug, PartialEq)]
pub enum Additional {
    /// `true` or `false`.
    Allowed(bool),
    Schema(Arc<Schema>),
}

/// One node of a structural schema (or of a value validation below `allOf`, `anyOf`, `oneOf`, `not`).
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    ty: Type,
    /// Sorted by name.
    properties: Vec<(CompactString, Arc<Schema>)>,
    additional: Option<Additional>,
    items: Option<Arc<Schema>>,
    nullable: bool,
    preserve_unknown: bool,
    embedded: bool,
    list_type: ListType,
    map_keys: Vec<CompactString>,
    map_atomic: bool,
    default: Option<Value>,
    rules: Option<Box<Rules>>,
    below: Below,
}

/// What a node or anything below it asks for: walks stop where there is nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Below {
    /// Defaults.
    defaults: bool,
    /// `x-kubernetes-embedded-resource`.
    embedded: bool,
    /// Lists of type set or map.
    lists: bool,
}

/// The value validations of a node; absent where it has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rules {
    /// Only those that are checked: others are dropped while parsing.
    pub format: CompactString,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub multiple_of: Option<f64>,
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub pattern: Option<Pattern>,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub unique_items: bool,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
    pub required: Vec<CompactString>,
    pub enumeration: Vec<Value>,
    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Box<Schema>>,
}

impl Schema {
    /// The type; [`Type::IntOrString`] where `x-kubernetes-int-or-string` is set, whatever `type` says.
    pub fn ty(&self) -> Type {
        self.ty
    }
    /// The node of a named property.
    pub fn property(&self, name: &str) -> Option<&Arc<Schema>> {
        match self.properties.binary_search_by(|(known, _)| known.as_str().cmp(name)) {
            Ok(at) => Some(&self.properties[at].1),
            Err(_) => None,
        }
    }
    /// All named properties, by name.
    pub fn properties(&self) -> impl ExactSizeIterator<Item = (&str, &Arc<Schema>)> {
        self.properties.iter().map(|(name, schema)| (name.as_str(), schema))
    }
    /// The node of properties without a name of their own, where `additionalProperties` is a schema.
    pub fn additional(&self) -> Option<&Arc<Schema>> {
        match &self.additional {
            Some(Additional::Schema(schema)) => Some(schema),
            _ => None,
        }
    }
    /// `additionalProperties` as it was written.
    pub fn additional_properties(&self) -> Option<&Additional> {
        self.additional.as_ref()
    }
    /// The node of a list's items.
    pub fn items(&self) -> Option<&Arc<Schema>> {
        self.items.as_ref()
    }
    /// `x-kubernetes-list-type`; [`ListType::Unset`] where it is not given (an atomic list, for those who merge).
    pub fn list_type(&self) -> ListType {
        self.list_type
    }
    /// `x-kubernetes-list-map-keys`.
    pub fn list_map_keys(&self) -> &[CompactString] {
        &self.map_keys
    }
    /// `x-kubernetes-map-type: atomic`.
    pub fn map_atomic(&self) -> bool {
        self.map_atomic
    }
    /// `x-kubernetes-preserve-unknown-fields`.
    pub fn preserve_unknown(&self) -> bool {
        self.preserve_unknown
    }
    /// `x-kubernetes-embedded-resource`.
    pub fn embedded(&self) -> bool {
        self.embedded
    }
    pub fn nullable(&self) -> bool {
        self.nullable
    }
    pub fn default(&self) -> Option<&Value> {
        self.default.as_ref()
    }
    pub(crate) fn rules(&self) -> Option<&Rules> {
        self.rules.as_deref()
    }
    /// Whether this node or one below has a default.
    pub(crate) fn has_defaults(&self) -> bool {
        self.below.defaults
    }
    /// Whether this node or one below is an embedded resource.
    pub(crate) fn has_embedded(&self) -> bool {
        self.below.embedded
    }
    /// Whether this node or one below is a list of type set or map.
    pub(crate) fn has_keyed_lists(&self) -> bool {
        self.below.lists
    }
}

#[cfg(test)]
pub(crate) mod tests;
