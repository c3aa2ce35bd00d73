//! A document read as a typed struct, through a serde deserializer over the tree, and written back from one.

use super::{Doc, Value};
use crate::schema::Field;
use serde::de::DeserializeOwned;

/// Why a typed view could not be made or written back.
#[derive(Debug, thiserror::Error)]
pub enum TypedError {
    #[error("reading the object as a typed struct: {0}")]
    Read(String),
    #[error("serializing the typed value")]
    Serialize(#[source] serde_json::Error),
    #[error("the serialized value does not fit the schema: {0}")]
    Schema(String),
    #[error("the path does not fit the object's type")]
    Path,
}

pub(super) fn doc_to_typed<T: DeserializeOwned>(_doc: &Doc) -> Result<T, TypedError> {
    Err(TypedError::Path)
}
/// A value as a typed struct.
pub fn value_to_typed<T: DeserializeOwned>(_value: &Value) -> Result<T, TypedError> {
    Err(TypedError::Path)
}
pub(super) fn set_from_typed(
    _doc: &mut Doc,
    _path: &[Field],
    _value: &impl serde::Serialize,
) -> Result<(), TypedError> {
    Err(TypedError::Path)
}
