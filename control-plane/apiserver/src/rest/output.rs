//! From stored bytes to what the client asked for: JSON, YAML or protobuf; whole, as a Table, or metadata only.

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, HeaderValue, VARY};
use http::{Response, StatusCode};
use keelson_api::doc::Doc;
use keelson_api::json::{self, EncodeOptions};
use keelson_api::schema::Verbs;
use keelson_api::status::{Reason, Status};
use keelson_api::{proto, yaml};
use std::io::Write as _;

use super::{Op, table};
use crate::body::Body;
use crate::cache::{Form, Object, Part};
use crate::negotiate::{self, Encoding, Offer, Output, Partial, Shape};
use crate::{respond, scan};

/// Answers shorter than this are not compressed (upstream's threshold).
const GZIP_FROM: u64 = 128 * 1024;

impl Op<'_> {
    /// What the client accepts, or 406.
    pub fn output(&self) -> Result<Output, Status> {
        // Reviews and the like have no rows and no metadata to show.
        let shapes = self.row.stored || self.row.verbs.has(Verbs::LIST);
        let offer = Offer { protobuf: self.row.ty.is_some(), shapes, stream: false };
        let mut output = negotiate::negotiate(self.call.headers, offer).ok_or_else(|| {
            if offer.protobuf {
                Status::not_acceptable(&negotiate::OBJECT_TYPES)
            } else {
                Status::not_acceptable(&negotiate::OBJECT_TYPES[..2])
            }
        })?;
        output.pretty = negotiate::pretty(self.call.headers, self.call.query, output);
        Ok(output)
    }

    /// 406 where the metadata of a list was asked for and the answer is none, or the other way around.
    pub(super) fn check_partial(&self, output: Output, list: bool) -> Result<(), Status> {
        let kind = if list { &self.row.list_kind } else { &self.row.kind };
        let of = || keelson_api::kinds::internal_type(&self.row.group, kind, self.row.custom.is_some());
        Self::check_partial_of(output, list, of)
    }

    fn check_partial_of(output: Output, list: bool, of: impl FnOnce() -> String) -> Result<(), Status> {
        let (asked, text) = match (output.partial, list) {
            (Partial::Object, true) => ("PartialObjectMetadata", "a list"),
            (Partial::List, false) => ("PartialObjectMetadataList", "not a list"),
            _ => return Ok(()),
        };
        if !matches!(output.shape, Shape::Metadata(_)) {
            return Ok(());
        }
        let of = of();
        let text = format!("you requested {asked}, but the requested object is {text} ({of})");
        Err(Status::other(406, Reason::NotAcceptable, text))
    }

    /// The members that come first in every object of the row: `"kind":…,"apiVersion":…,`.
    pub fn head(&self) -> Bytes {
        head(&self.row.kind, &self.row.api_version())
    }

    /// An object of the cache as the client wants it.
    pub async fn answer_object(
        &self,
        code: StatusCode,
        object: &Object,
        output: Output,
    ) -> Result<Response<Body>, Status> {
        if output.encoding == Encoding::Json && output.shape == Shape::Whole && self.stored_as_requested() {
            let form = Form { head: self.head(), part: Part::Whole };
            let mut out = Vec::with_capacity(object.written_len(object.revision(), &form) + 1);
            object.write(object.revision(), &form, &mut out);
            return Ok(self.json(code, out, output.pretty));
        }
        self.answer(code, object.json(), object.revision(), output).await
    }

    /// Stored bytes at a revision as the client wants them.
    pub async fn answer(
        &self,
        code: StatusCode,
        stored: &[u8],
        revision: u64,
        output: Output,
    ) -> Result<Response<Body>, Status> {
        self.check_partial(output, false)?;
        let stored = &*self.current_bytes(stored);
        match (output.shape, output.encoding) {
            (Shape::Whole, Encoding::Json) if self.stored_as_requested() => {
                let mut out = Vec::new();
                scan::push_object(&mut out, &self.row.api_version(), &self.row.kind, stored, revision);
                Ok(self.json(code, out, output.pretty))
            }
            (Shape::Whole, encoding) => {
                let doc = self.to_requested(self.decode_stored(stored, revision)?)?;
                self.answer_doc(code, &doc, encoding, output.pretty)
            }
            (Shape::Metadata(version), Encoding::Protobuf) => {
                let doc = partial(version, stored, revision)?;
                self.answer_doc(code, &doc, Encoding::Protobuf, false)
            }
            (Shape::Metadata(version), encoding) => {
                let mut out = Vec::new();
                scan::push_metadata(&mut out, version, stored, revision);
                self.json_or_yaml(code, out, encoding, output.pretty)
            }
            (Shape::Table(version), encoding) => {
                let doc = self.decode_stored(stored, revision)?;
                let include = table::Include::parse(self.call.query)?;
                let mut out = Vec::new();
                table::push_head(
                    &mut out,
                    version,
                    table::Meta { revision, token: None, remaining: None },
                    Some(&self.columns()),
                );
                table::RowContext::of(self).push(&mut out, &doc, stored, revision, version, include);
                out.extend_from_slice(b"]}");
                self.json_or_yaml(code, out, encoding, output.pretty)
            }
        }
    }

    /// A Status as the client wants it.
    pub fn answer_status(&self, status: &Status) -> Response<Body> {
        respond::negotiated(status, self.call.headers, self.call.query)
    }

    /// An object that is not stored (a review, a scale) as the client wants it.
    pub fn answer_doc(
        &self,
        code: StatusCode,
        doc: &Doc,
        encoding: Encoding,
        pretty: bool,
    ) -> Result<Response<Body>, Status> {
        match encoding {
            Encoding::Json => {
                let mut out = Vec::with_capacity(1024);
                json::encode_canonical(doc, EncodeOptions::FULL, &mut out);
                Ok(self.json(code, out, pretty))
            }
            Encoding::Yaml => Ok(respond::bytes(code, negotiate::YAML, yaml::encode(doc))),
            Encoding::Protobuf => {
                let mut out = Vec::with_capacity(1024);
                proto::encode(doc, &mut out)
                    .map_err(|_| Status::not_acceptable(&negotiate::OBJECT_TYPES[..2]))?;
                Ok(respond::bytes(code, negotiate::PROTOBUF, out))
            }
        }
    }

    /// As [`Op::answer_doc`], or its metadata where those are asked for.
    pub fn answer_shaped(
        &self,
        code: StatusCode,
        doc: &Doc,
        output: Output,
    ) -> Result<Response<Body>, Status> {
        let Shape::Metadata(version) = output.shape else {
            return self.answer_doc(code, doc, output.encoding, output.pretty);
        };
        let of = || keelson_api::kinds::internal_type(&doc.gvk.group, &doc.gvk.kind, false);
        Self::check_partial_of(output, false, of)?;
        let mut partial = Doc::new(keelson_api::t::meta_v1::PARTIAL_OBJECT_METADATA);
        partial.gvk = keelson_api::doc::Gvk::new("meta.k8s.io", version, "PartialObjectMetadata");
        if let Some(meta) = doc.meta().as_struct() {
            *partial.meta_mut().as_struct() = meta.clone();
        }
        self.answer_doc(code, &partial, output.encoding, output.pretty)
    }

    pub(super) fn json_or_yaml(
        &self,
        code: StatusCode,
        out: Vec<u8>,
        encoding: Encoding,
        pretty: bool,
    ) -> Result<Response<Body>, Status> {
        match encoding {
            Encoding::Yaml => Ok(respond::bytes(code, negotiate::YAML, to_yaml(&out)?)),
            _ => Ok(self.json(code, out, pretty)),
        }
    }

    /// A JSON body, indented or with a line's end as upstream's, compressed where it pays.
    pub fn json(&self, code: StatusCode, mut out: Vec<u8>, pretty: bool) -> Response<Body> {
        let out = if pretty {
            let mut indented = Vec::new();
            scan::indent(&out, &mut indented);
            indented
        } else {
            out.push(b'\n');
            out
        };
        let length = out.len() as u64;
        let body = Body::full(out);
        if length >= GZIP_FROM && negotiate::accepts_gzip(self.call.headers) {
            let pieces: Vec<Bytes> = match body {
                Body::Full(Some(bytes)) => vec![bytes],
                _ => Vec::new(),
            };
            return gzip(code, negotiate::JSON, pieces.into_iter());
        }
        respond::with_body(code, negotiate::JSON, body)
    }

    /// Pieces that are made while they are sent, compressed where it pays.
    pub fn pieces(
        &self,
        media_type: &'static str,
        pieces: impl Iterator<Item = Bytes> + Send + 'static,
        length: Option<u64>,
        estimate: u64,
    ) -> Response<Body> {
        if estimate >= GZIP_FROM && negotiate::accepts_gzip(self.call.headers) {
            return gzip(StatusCode::OK, media_type, pieces);
        }
        respond::with_body(StatusCode::OK, media_type, Body::Lazy { pieces: Box::new(pieces), left: length })
    }
}

/// The metadata of stored bytes as a PartialObjectMetadata document.
pub fn partial(version: &str, stored: &[u8], revision: u64) -> Result<Doc, Status> {
    let mut out = Vec::with_capacity(1024);
    scan::push_metadata(&mut out, version, stored, revision);
    let ty = keelson_api::t::meta_v1::PARTIAL_OBJECT_METADATA;
    let (mut doc, _) = json::decode(ty, &out, json::FieldValidation::Ignore).map_err(Status::internal)?;
    doc.gvk = keelson_api::doc::Gvk::new("meta.k8s.io", version, "PartialObjectMetadata");
    Ok(doc)
}

/// JSON that was written here as YAML.
pub fn to_yaml(json: &[u8]) -> Result<String, Status> {
    let value: serde_json::Value = serde_json::from_slice(json).map_err(Status::internal)?;
    serde_saphyr::to_string(&value).map_err(Status::internal)
}

/// `"kind":"Pod","apiVersion":"v1",`
pub fn head(kind: &str, api_version: &str) -> Bytes {
    let mut out = Vec::with_capacity(kind.len() + api_version.len() + 28);
    out.extend_from_slice(b"\"kind\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"apiVersion\":\"");
    out.extend_from_slice(api_version.as_bytes());
    out.extend_from_slice(b"\",");
    out.into()
}

fn gzip(
    code: StatusCode,
    media_type: &'static str,
    pieces: impl Iterator<Item = Bytes> + Send + 'static,
) -> Response<Body> {
    let body = Body::Lazy {
        pieces: Box::new(Gzip { pieces, encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())) }),
        left: None,
    };
    let mut response = respond::with_body(code, media_type, body);
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

/// Compresses pieces as they pass.
struct Gzip<I> {
    pieces: I,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl<I: Iterator<Item = Bytes>> Iterator for Gzip<I> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        loop {
            let encoder = self.encoder.as_mut()?;
            match self.pieces.next() {
                Some(piece) => {
                    // Writing to memory cannot fail.
                    let _ = encoder.write_all(&piece);
                    if encoder.get_ref().len() >= 32 * 1024 {
                        return Some(std::mem::take(encoder.get_mut()).into());
                    }
                }
                None => {
                    return self.encoder.take().and_then(|encoder| encoder.finish().ok()).map(Bytes::from);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn gzip_round_trip() {
        let pieces: Vec<Bytes> = (0..100).map(|n| Bytes::from(format!("{n} ").repeat(5000))).collect();
        let expected: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
        let packed: Vec<u8> = Gzip {
            pieces: pieces.into_iter(),
            encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())),
        }
        .flat_map(|piece| piece.to_vec())
        .collect();
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, expected);
    }
}
