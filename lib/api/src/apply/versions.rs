//! The versions of one kind, for sets of fields that are owned in another version than a request speaks.

use std::borrow::Cow;

use super::shape::Shape;
use super::update::{ConvertError, Typed, Versions};
use super::view::View;
use crate::doc::{Doc, Gvk, Value};
use crate::json::{self, EncodeOptions, FieldValidation};
use crate::schema::TypeId;
use crate::types;

/// The served versions of a kind.
pub struct KindVersions<'a> {
    pub kind: &'a str,
    /// The shape of a group version; `None` where it is not served.
    pub shape: &'a dyn Fn(&Gvk) -> Option<Shape<'a>>,
}

impl Versions for KindVersions<'_> {
    fn convert<'t>(
        &'t self,
        object: &'t Typed<'t>,
        version: &str,
    ) -> Result<Option<Typed<'t>>, ConvertError> {
        if object.version == version {
            let value = Cow::Borrowed(&*object.value);
            return Ok(Some(Typed { value, shape: object.shape, version: version.into() }));
        }
        let gvk = Gvk::from_api_version(version, self.kind);
        let Some(shape) = (self.shape)(&gvk) else { return Ok(None) };
        let (Shape::Struct(from), Shape::Struct(to)) = (object.shape, shape) else {
            // Versions of a custom resource differ in their names only.
            let value = Cow::Borrowed(&*object.value);
            return Ok(Some(Typed { value, shape, version: version.into() }));
        };
        let root = struct_of(&object.value, from)?;
        let doc = Doc { root, gvk: Gvk::from_api_version(&object.version, self.kind) };
        let doc = convert(doc, to).map_err(|error| ConvertError(format!("to {version}: {error}")))?;
        Ok(Some(Typed { value: Cow::Owned(doc.root), shape, version: version.into() }))
    }
}

/// An untyped object as a struct of its type.
fn struct_of(value: &Value, ty: TypeId) -> Result<Value, ConvertError> {
    if matches!(value, Value::Struct(_)) {
        return Ok(value.clone());
    }
    let mut bytes = Vec::with_capacity(2048);
    json::encode_value(&View::Value(value).to_untyped(), &mut bytes);
    json::decode_any(Some(ty), &bytes, FieldValidation::Ignore)
        .map(|(doc, _)| doc.root)
        .map_err(|error| ConvertError(error.to_string()))
}

/// An object in another version of its type; the caller names the version.
pub fn convert(mut doc: Doc, to: TypeId) -> Result<Doc, json::DecodeError> {
    if doc.ty() == Some(to) {
        return Ok(doc);
    }
    if let Some(converted) = types::convert::convert(&doc, to) {
        return Ok(converted);
    }
    let mut bytes = Vec::new();
    json::encode_canonical(&doc, EncodeOptions { type_meta: false, resource_version: true }, &mut bytes);
    let (converted, _) = json::decode_any(Some(to), &bytes, FieldValidation::Ignore)?;
    doc.root = converted.root;
    Ok(doc)
}
