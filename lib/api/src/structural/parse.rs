//! From `openAPIV3Schema` to a [`Schema`].

use std::sync::Arc;

use compact_str::CompactString;

use super::{Additional, Below, Pattern, Rules, Schema, Type, formats};
use crate::doc::{Map, Struct, Value};
use crate::f::apiextensions_v1::json_schema_props as j;
use crate::json::{self, DecodeError};
use crate::schema::{Field, Kind, ListType};
use crate::t::apiextensions_v1::JSON_SCHEMA_PROPS;

/// Why a schema could not be converted; the texts are upstream's (`schema.NewStructural`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A keyword of JSON schema that structural schemas do not have.
    #[error("OpenAPIV3Schema '{0}' is not supported")]
    Unsupported(&'static str),
    #[error("OpenAPIV3Schema 'items' must be a schema, but is an array")]
    ItemsArray,
    #[error("internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined")]
    PreserveFalse,
    /// The text is not the JSON of a schema.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl Schema {
    /// Reads a schema from its JSON.
    pub fn from_json(bytes: &[u8]) -> Result<Schema, ParseError> {
        match json::decode_value(Kind::Struct(JSON_SCHEMA_PROPS), bytes)? {
            Value::Struct(props) => Schema::parse(&props),
            _ => Ok(Schema::any()),
        }
    }

    /// A schema that takes anything.
    pub fn any() -> Schema {
        Schema {
            ty: Type::Any,
            properties: Vec::new(),
            additional: None,
            items: None,
            nullable: false,
            preserve_unknown: false,
            embedded: false,
            list_type: ListType::Unset,
            map_keys: Vec::new(),
            map_atomic: false,
            default: None,
            rules: None,
            below: Below::default(),
        }
    }

    /// Reads a schema from a decoded `JSONSchemaProps`.
    pub fn parse(props: &Struct) -> Result<Schema, ParseError> {
        unsupported(props)?;
        if props.bool(j::X_KUBERNETES_PRESERVE_UNKNOWN_FIELDS) == Some(false) {
            return Err(ParseError::PreserveFalse);
        }
        let int_or_string = props.bool(j::X_KUBERNETES_INT_OR_STRING) == Some(true);
        let ty = if int_or_string { Type::IntOrString } else { type_of(props.str(j::TYPE)) };
        let mut schema = Schema {
            ty,
            properties: properties(props.map(j::PROPERTIES))?,
            additional: additional(props.get(j::ADDITIONAL_PROPERTIES))?,
            items: items(props.get(j::ITEMS))?,
            nullable: props.bool(j::NULLABLE) == Some(true),
            preserve_unknown: props.bool(j::X_KUBERNETES_PRESERVE_UNKNOWN_FIELDS) == Some(true),
            embedded: props.bool(j::X_KUBERNETES_EMBEDDED_RESOURCE) == Some(true),
            list_type: list_type(props.str(j::X_KUBERNETES_LIST_TYPE)),
            map_keys: texts(props, j::X_KUBERNETES_LIST_MAP_KEYS),
            map_atomic: props.str(j::X_KUBERNETES_MAP_TYPE) == "atomic",
            default: props.get(j::DEFAULT).and_then(json_value),
            rules: None,
            below: Below::default(),
        };
        let rules = rules(props, ty)?;
        schema.rules = (rules != Rules::default()).then(|| Box::new(rules));
        schema.below = schema.summary();
        Ok(schema)
    }

    fn summary(&self) -> Below {
        let mut below = Below {
            defaults: self.default.is_some(),
            embedded: self.embedded,
            lists: matches!(self.list_type, ListType::Set | ListType::Map),
        };
        let children = self.properties.iter().map(|(_, child)| child).chain(&self.items);
        for child in children.chain(self.additional()) {
            below.defaults |= child.below.defaults;
            below.embedded |= child.below.embedded;
            below.lists |= child.below.lists;
        }
        below
    }

    /// The same schema as that of an object with a type and metadata of its own.
    pub(super) fn as_embedded(&self) -> Schema {
        let mut schema = self.clone();
        schema.embedded = true;
        schema.below.embedded = true;
        schema
    }
}

fn unsupported(props: &Struct) -> Result<(), ParseError> {
    let text = |field: Field| !props.str(field).is_empty();
    let filled = |field: Field| props.map(field).is_some_and(|map| !map.is_empty());
    for (found, name) in [
        (text(j::ID), "id"),
        (text(j::SCHEMA), "schema"),
        (text(j::REF), "$ref"),
        (filled(j::PATTERN_PROPERTIES), "patternProperties"),
        (filled(j::DEPENDENCIES), "dependencies"),
        (props.has(j::ADDITIONAL_ITEMS), "additionalItems"),
        (filled(j::DEFINITIONS), "definitions"),
    ] {
        if found {
            return Err(ParseError::Unsupported(name));
        }
    }
    Ok(())
}

fn type_of(name: &str) -> Type {
    match name {
        "object" => Type::Object,
        "array" => Type::Array,
        "string" => Type::String,
        "integer" => Type::Integer,
        "number" => Type::Number,
        "boolean" => Type::Boolean,
        // Validation of the definition refuses names that are none.
        _ => Type::Any,
    }
}

fn list_type(name: &str) -> ListType {
    match name {
        "atomic" => ListType::Atomic,
        "set" => ListType::Set,
        "map" => ListType::Map,
        _ => ListType::Unset,
    }
}

fn texts(props: &Struct, field: Field) -> Vec<CompactString> {
    props.list(field).iter().filter_map(Value::as_str).map(CompactString::from).collect()
}

/// Opaque JSON as a value; `None` for null, which Go cannot tell from absent.
pub(super) fn json_value(value: &Value) -> Option<Value> {
    let Value::Raw(text) = value else { return None };
    match json::decode_untyped(text.as_bytes()) {
        Ok(Value::Null) | Err(_) => None,
        Ok(value) => Some(value),
    }
}

fn child(value: &Value) -> Result<Schema, ParseError> {
    match value {
        Value::Struct(props) => Schema::parse(props),
        _ => Ok(Schema::any()),
    }
}

fn properties(map: Option<&Map>) -> Result<Vec<(CompactString, Arc<Schema>)>, ParseError> {
    let entries = map.into_iter().flat_map(Map::iter);
    entries.map(|(name, value)| Ok((name.into(), Arc::new(child(value)?)))).collect()
}

fn additional(value: Option<&Value>) -> Result<Option<Additional>, ParseError> {
    Ok(match value {
        Some(Value::Bool(allowed)) => Some(Additional::Allowed(*allowed)),
        Some(Value::Struct(props)) => Some(Additional::Schema(Arc::new(Schema::parse(props)?))),
        _ => None,
    })
}

fn items(value: Option<&Value>) -> Result<Option<Arc<Schema>>, ParseError> {
    match value {
        Some(Value::Struct(props)) => Ok(Some(Arc::new(Schema::parse(props)?))),
        Some(Value::List(all)) if !all.is_empty() => Err(ParseError::ItemsArray),
        _ => Ok(None),
    }
}

fn rules(props: &Struct, ty: Type) -> Result<Rules, ParseError> {
    let float = |field: Field| match props.get(field) {
        Some(Value::Float(n)) => Some(*n),
        Some(Value::Int(n)) => Some(*n as f64),
        _ => None,
    };
    let branches = |field: Field| props.list(field).iter().map(child).collect::<Result<Vec<Schema>, _>>();
    let pattern = props.str(j::PATTERN);
    Ok(Rules {
        format: formats::supported(props.str(j::FORMAT), ty).into(),
        maximum: float(j::MAXIMUM),
        exclusive_maximum: props.bool(j::EXCLUSIVE_MAXIMUM) == Some(true),
        minimum: float(j::MINIMUM),
        exclusive_minimum: props.bool(j::EXCLUSIVE_MINIMUM) == Some(true),
        multiple_of: float(j::MULTIPLE_OF),
        max_length: props.int(j::MAX_LENGTH),
        min_length: props.int(j::MIN_LENGTH),
        pattern: (!pattern.is_empty()).then(|| Pattern::new(pattern)),
        max_items: props.int(j::MAX_ITEMS),
        min_items: props.int(j::MIN_ITEMS),
        unique_items: props.bool(j::UNIQUE_ITEMS) == Some(true),
        max_properties: props.int(j::MAX_PROPERTIES),
        min_properties: props.int(j::MIN_PROPERTIES),
        required: texts(props, j::REQUIRED),
        enumeration: props.list(j::ENUM).iter().map(|one| json_value(one).unwrap_or(Value::Null)).collect(),
        all_of: branches(j::ALL_OF)?,
        any_of: branches(j::ANY_OF)?,
        one_of: branches(j::ONE_OF)?,
        not: match props.get(j::NOT) {
            Some(value) => Some(Box::new(child(value)?)),
            None => None,
        },
    })
}
