//! Kubernetes protobuf in and out, by schema: the envelope `k8s\0` + `runtime.Unknown` around a message.
//!
//! What is written is byte for byte what upstream's generated code writes: fields in ascending number, scalars by value always
//! (also when zero), pointers only if set, maps sorted by key. Reading skips unknown fields and never panics on any input.

mod decode;
mod encode;
mod plan;
pub(crate) mod wire;

use crate::doc::{Doc, Gvk, Value};
use crate::json::DecodeError;
use crate::schema::TypeId;

/// The four bytes an enveloped body starts with.
pub const MAGIC: [u8; 4] = *b"k8s\0";

/// Reads an enveloped object. apiVersion and kind of the envelope go to [`Doc::gvk`].
pub fn decode(ty: TypeId, bytes: &[u8]) -> Result<Doc, DecodeError> {
    let envelope = Envelope::read(bytes)?;
    let mut doc = decode_raw(ty, envelope.raw)?;
    doc.gvk = Gvk::from_api_version(envelope.api_version, envelope.kind);
    Ok(doc)
}

/// Reads a bare message.
pub fn decode_raw(ty: TypeId, bytes: &[u8]) -> Result<Doc, DecodeError> {
    let mut doc = Doc::new(ty);
    doc.root = Value::Struct(decode::message(ty, bytes)?);
    Ok(doc)
}

/// apiVersion and kind of an envelope.
pub fn peek_type_meta(bytes: &[u8]) -> Result<(String, String), DecodeError> {
    let envelope = Envelope::read(bytes)?;
    Ok((envelope.api_version.to_owned(), envelope.kind.to_owned()))
}

/// Appends the enveloped object. Custom resources have no protobuf form.
pub fn encode(doc: &Doc, out: &mut Vec<u8>) -> Result<(), NoProtobuf> {
    let mut raw = Vec::with_capacity(1024);
    encode_raw(doc, &mut raw)?;
    envelope(&doc.gvk.api_version(), &doc.gvk.kind, &raw, out);
    Ok(())
}

/// Appends the bare message.
pub fn encode_raw(doc: &Doc, out: &mut Vec<u8>) -> Result<(), NoProtobuf> {
    let root =
        doc.root.as_struct().filter(|root| !root.ty().def().proto_name.is_empty()).ok_or(NoProtobuf)?;
    encode::message(root.ty(), Some(root), out);
    Ok(())
}

/// Appends an envelope around a bare message of the kind.
pub fn envelope(api_version: &str, kind: &str, raw: &[u8], out: &mut Vec<u8>) {
    put_type_meta(api_version, kind, out);
    wire::put_bytes(2, raw, out);
    end_envelope(out);
}

fn put_type_meta(api_version: &str, kind: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC);
    let mut type_meta = Vec::with_capacity(api_version.len() + kind.len() + 4);
    wire::put_bytes(1, api_version.as_bytes(), &mut type_meta);
    wire::put_bytes(2, kind.as_bytes(), &mut type_meta);
    wire::put_bytes(1, &type_meta, out);
}

/// contentEncoding and contentType, empty.
fn end_envelope(out: &mut Vec<u8>) {
    wire::put_bytes(3, b"", out);
    wire::put_bytes(4, b"", out);
}

/// Appends one watch frame: four bytes of length (big endian) and a raw `WatchEvent` whose object is enveloped.
/// `object` is an enveloped object as [`encode`] writes it.
pub fn encode_watch_frame(event: &str, object: &[u8], out: &mut Vec<u8>) {
    let mut extension = Vec::with_capacity(object.len() + 8);
    wire::put_bytes(1, object, &mut extension);
    let length = wire::bytes_len(1, event.len()) + wire::bytes_len(2, extension.len());
    // A frame's length is bounded by the body limits, far below 4 GiB.
    out.extend_from_slice(&(length as u32).to_be_bytes());
    wire::put_bytes(1, event.as_bytes(), out);
    wire::put_bytes(2, &extension, out);
}

/// A list's metadata.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListMeta<'a> {
    pub resource_version: &'a str,
    /// Empty on the last page.
    pub continue_token: &'a str,
    pub remaining: Option<i64>,
}

/// Appends the beginning of an enveloped list; its items follow, each as [`put_item`] writes it, and [`end_list`].
/// `items_len` is the length of all that [`put_item`] will write: a message's length stands before it.
pub fn begin_list(api_version: &str, kind: &str, meta: ListMeta<'_>, items_len: u64, out: &mut Vec<u8>) {
    let mut list_meta = Vec::with_capacity(64);
    // selfLink, resourceVersion, continue by value; remainingItemCount only if set.
    wire::put_bytes(1, b"", &mut list_meta);
    wire::put_bytes(2, meta.resource_version.as_bytes(), &mut list_meta);
    wire::put_bytes(3, meta.continue_token.as_bytes(), &mut list_meta);
    if let Some(remaining) = meta.remaining {
        wire::put_varint_field(4, remaining as u64, &mut list_meta);
    }
    put_type_meta(api_version, kind, out);
    wire::put_length(2, wire::bytes_len(1, list_meta.len()) as u64 + items_len, out);
    wire::put_bytes(1, &list_meta, out);
}

/// How many bytes [`put_item`] writes of a bare message of this length.
pub fn item_len(message: usize) -> u64 {
    wire::bytes_len(2, message) as u64
}

/// Appends a list's item, a bare message as [`encode_raw`] writes it.
pub fn put_item(message: &[u8], out: &mut Vec<u8>) {
    wire::put_bytes(2, message, out);
}

/// Appends the end of an enveloped list.
pub fn end_list(out: &mut Vec<u8>) {
    end_envelope(out);
}

/// Custom resources have no protobuf form (406, 415).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the object has no protobuf form")]
pub struct NoProtobuf;

struct Envelope<'a> {
    api_version: &'a str,
    kind: &'a str,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Envelope<'a>, DecodeError> {
        let Some(body) = bytes.strip_prefix(&MAGIC) else {
            return Err(DecodeError::Syntax(
                "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
                    .into(),
            ));
        };
        let mut envelope = Envelope { api_version: "", kind: "", raw: &[] };
        let mut reader = wire::Reader::new(body);
        while let Some((number, field)) = reader.field()? {
            match (number, field) {
                (1, wire::Wire::Bytes(meta)) => {
                    let mut inner = wire::Reader::new(meta);
                    while let Some((number, field)) = inner.field()? {
                        match (number, field) {
                            (1, wire::Wire::Bytes(text)) => envelope.api_version = wire::text(text)?,
                            (2, wire::Wire::Bytes(text)) => envelope.kind = wire::text(text)?,
                            _ => {}
                        }
                    }
                }
                (2, wire::Wire::Bytes(raw)) => envelope.raw = raw,
                _ => {}
            }
        }
        Ok(envelope)
    }
}
