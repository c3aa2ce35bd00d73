//! Kubernetes protobuf in and out, by schema: the envelope `k8s\0` + `runtime.Unknown` around a message.

use crate::doc::Doc;
use crate::json::DecodeError;
use crate::schema::TypeId;

/// The four bytes an enveloped body starts with.
pub const MAGIC: [u8; 4] = *b"k8s\0";

/// Reads an enveloped object. apiVersion and kind of the envelope go to [`Doc::gvk`].
pub fn decode(_ty: TypeId, _bytes: &[u8]) -> Result<Doc, DecodeError> {
    Err(DecodeError::Syntax("the protobuf decoder is not there yet".into()))
}

/// Reads a bare message.
pub fn decode_raw(_ty: TypeId, _bytes: &[u8]) -> Result<Doc, DecodeError> {
    Err(DecodeError::Syntax("the protobuf decoder is not there yet".into()))
}

/// apiVersion and kind of an envelope.
pub fn peek_type_meta(_bytes: &[u8]) -> Result<(String, String), DecodeError> {
    Err(DecodeError::Syntax("the protobuf decoder is not there yet".into()))
}

/// Appends the enveloped object. Custom resources have no protobuf form.
pub fn encode(_doc: &Doc, _out: &mut Vec<u8>) -> Result<(), NoProtobuf> {
    Err(NoProtobuf)
}

/// Appends the bare message.
pub fn encode_raw(_doc: &Doc, _out: &mut Vec<u8>) -> Result<(), NoProtobuf> {
    Err(NoProtobuf)
}

/// Appends one watch frame: four bytes of length (big endian) and a raw `WatchEvent` whose object is enveloped.
/// `object` is an enveloped object as [`encode`] writes it.
pub fn encode_watch_frame(_event: &str, _object: &[u8], _out: &mut Vec<u8>) {}

/// Appends an enveloped list of `list_ty` from already encoded bare messages of the items.
pub fn encode_list(
    _list_ty: TypeId,
    _resource_version: &str,
    _continue_token: &str,
    _remaining: Option<i64>,
    _items: &[&[u8]],
    _out: &mut Vec<u8>,
) -> Result<(), NoProtobuf> {
    Err(NoProtobuf)
}

/// Custom resources have no protobuf form (406, 415).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the object has no protobuf form")]
pub struct NoProtobuf;
