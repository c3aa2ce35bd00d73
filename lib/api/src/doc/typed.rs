//! A document read as a typed struct, through a serde deserializer over the tree, and written back from one.

use serde::de::value::{BorrowedStrDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};

use super::{Doc, Map, Struct, Value};
use crate::json;
use crate::schema::{Field, Flags, Kind};

/// Why a typed view could not be made or written back.
#[derive(Debug, thiserror::Error)]
pub enum TypedError {
    #[error("reading the object as a typed struct: {0}")]
    Read(String),
    #[error("serializing the typed value")]
    Serialize(#[source] serde_json::Error),
    #[error("the serialized value does not fit the schema: {0}")]
    Schema(#[source] json::DecodeError),
    #[error("the path does not fit the object's type")]
    Path,
}

impl serde::de::Error for TypedError {
    fn custom<T: std::fmt::Display>(text: T) -> TypedError {
        TypedError::Read(text.to_string())
    }
}

/// The whole object: the root's fields with `apiVersion` and `kind` before them.
struct Whole<'de> {
    doc: &'de Doc,
    api_version: &'de str,
}

#[derive(Clone, Copy)]
struct Part<'de>(&'de Value);

impl<'de> IntoDeserializer<'de, TypedError> for Part<'de> {
    type Deserializer = Part<'de>;
    fn into_deserializer(self) -> Part<'de> {
        self
    }
}

pub(super) fn doc_to_typed<T: DeserializeOwned>(doc: &Doc) -> Result<T, TypedError> {
    let api_version = doc.gvk.api_version();
    T::deserialize(Whole { doc, api_version: &api_version })
}

/// A value as a typed struct.
pub fn value_to_typed<T: DeserializeOwned>(value: &Value) -> Result<T, TypedError> {
    T::deserialize(Part(value))
}

pub(super) fn set_from_typed(
    doc: &mut Doc,
    path: &[Field],
    value: &impl serde::Serialize,
) -> Result<(), TypedError> {
    let kind = match (path.last(), doc.ty()) {
        (Some(field), _) => field.def().kind,
        (None, Some(ty)) => Kind::Struct(ty),
        (None, None) => return Err(TypedError::Path),
    };
    let bytes = serde_json::to_vec(value).map_err(TypedError::Serialize)?;
    let value = json::decode_value(kind, &bytes).map_err(TypedError::Schema)?;
    let Some(field) = path.last() else {
        let Value::Struct(mut root) = value else { return Err(TypedError::Path) };
        root.retain(|index, _| !root_field_is_type_meta(doc, index));
        doc.root = Value::Struct(root);
        return Ok(());
    };
    if json::is_kept(field.def(), &value) && value != Value::Null {
        *doc.entry(path).ok_or(TypedError::Path)? = value;
    } else {
        doc.remove(path);
    }
    Ok(())
}

fn root_field_is_type_meta(doc: &Doc, index: u16) -> bool {
    doc.ty().is_some_and(|ty| ty.def().fields[index as usize].flags.has(Flags::TYPE_META))
}

fn named<'de>(of: &'de Struct) -> impl Iterator<Item = (&'static str, Part<'de>)> {
    let def = of.ty().def();
    of.iter().map(move |(index, value)| (def.fields[index as usize].json, Part(value)))
}

fn keyed(map: &Map) -> impl Iterator<Item = (BorrowedStr<'_>, Part<'_>)> {
    map.iter().map(|(key, value)| (BorrowedStr(key), Part(value)))
}

#[derive(Clone, Copy)]
struct BorrowedStr<'de>(&'de str);

impl<'de> IntoDeserializer<'de, TypedError> for BorrowedStr<'de> {
    type Deserializer = BorrowedStrDeserializer<'de, TypedError>;
    fn into_deserializer(self) -> Self::Deserializer {
        BorrowedStrDeserializer::new(self.0)
    }
}

impl<'de> Deserializer<'de> for Whole<'de> {
    type Error = TypedError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypedError> {
        enum Entry<'de> {
            Text(&'de str),
            Part(Part<'de>),
        }
        impl<'de> IntoDeserializer<'de, TypedError> for Entry<'de> {
            type Deserializer = EntryDeserializer<'de>;
            fn into_deserializer(self) -> EntryDeserializer<'de> {
                EntryDeserializer(self)
            }
        }
        struct EntryDeserializer<'de>(Entry<'de>);
        impl<'de> Deserializer<'de> for EntryDeserializer<'de> {
            type Error = TypedError;
            fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypedError> {
                match self.0 {
                    Entry::Text(text) => visitor.visit_borrowed_str(text),
                    Entry::Part(part) => part.deserialize_any(visitor),
                }
            }
            fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypedError> {
                visitor.visit_some(self)
            }
            fn deserialize_newtype_struct<V: Visitor<'de>>(
                self,
                _: &'static str,
                visitor: V,
            ) -> Result<V::Value, TypedError> {
                visitor.visit_newtype_struct(self)
            }
            serde::forward_to_deserialize_any! {
                bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
                tuple_struct map struct enum identifier ignored_any
            }
        }
        let own = [("apiVersion", self.api_version), ("kind", self.doc.gvk.kind.as_str())];
        let own = own
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(key, text)| (BorrowedStr(key), Entry::Text(text)));
        match &self.doc.root {
            Value::Struct(root) => {
                let rest = named(root).map(|(key, part)| (BorrowedStr(key), Entry::Part(part)));
                visitor.visit_map(MapDeserializer::new(own.chain(rest)))
            }
            Value::Map(root) => visitor.visit_map(MapDeserializer::new(
                own.chain(keyed(root).map(|(key, part)| (key, Entry::Part(part)))),
            )),
            other => Part(other).deserialize_any(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> Deserializer<'de> for Part<'de> {
    type Error = TypedError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypedError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Int(n) => visitor.visit_i64(*n),
            Value::Float(n) => visitor.visit_f64(*n),
            Value::Str(text) => visitor.visit_borrowed_str(text),
            Value::Raw(text) => {
                let text = if text.is_empty() { "null" } else { text.as_str() };
                serde_json::Deserializer::from_str(text)
                    .deserialize_any(visitor)
                    .map_err(|e| TypedError::Read(e.to_string()))
            }
            Value::List(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(Part))),
            Value::Struct(of) => visitor.visit_map(MapDeserializer::new(named(of))),
            Value::Map(map) => visitor.visit_map(MapDeserializer::new(keyed(map))),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypedError> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            Value::Raw(text) if text.is_empty() || text == "null" => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, TypedError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypedError> {
        match self.0 {
            Value::Str(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => Err(serde::de::Error::custom("an enum of other than a string")),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}
