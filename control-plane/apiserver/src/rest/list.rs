//! LIST: a snapshot, written while it is sent.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use keelson_api::continue_token;
use keelson_api::doc::Doc;
use keelson_api::json::{self, EncodeOptions, FieldValidation};
use keelson_api::selectors::Labels;
use keelson_api::status::Status;
use keelson_api::table::Resource;

use super::proto_list::Items;
use super::table::{Include, Meta, RowContext, push_head};
use super::{Op, cache_status, convert, gvk};
use crate::body::Body;
use crate::cache::{CacheError, Filter, Form, List, ListQuery, Object, Part, ReadAt, Scope};
use crate::negotiate::{self, Encoding, Output, Shape};
use crate::options::{ListOptions, Match, Version};
use crate::{respond, scan};

/// Serves a GET of a collection.
pub async fn list(op: &Op<'_>) -> Result<Response<Body>, Status> {
    let output = op.output()?;
    let options = ListOptions::parse(op.call.query, false)?;
    let found = find(op, &options).await?;
    op.answer_list(found, output).await
}

/// Runs the list.
pub(super) async fn find(op: &Op<'_>, options: &ListOptions) -> Result<List, Status> {
    let (after, at) = match (&options.token, options.version) {
        (Some(token), version) => {
            let (revision, start) = continue_token::decode(token)?;
            if matches!(version, Version::At(_)) {
                return Err(Status::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            (Some(key_after(op, start)), revision.map_or(ReadAt::Newest, ReadAt::Exact))
        }
        (None, Version::Newest) => (None, ReadAt::Newest),
        (None, Version::Any) => (None, ReadAt::Any),
        (None, Version::At(revision)) => {
            let exact = options.version_match == Some(Match::Exact)
                || (options.version_match.is_none() && options.limit > 0);
            (None, if exact { ReadAt::Exact(revision) } else { ReadAt::NotOlderThan(revision) })
        }
    };
    let continued = after.clone();
    // As upstream's watch cache: who takes any version gets all of it.
    let limit = if options.version == Version::Any { 0 } else { options.limit };
    let query = ListQuery { scope: op.scope(options), filter: op.filter(options)?, limit, after, at };
    op.cache.list(query).await.map_err(|error| match (error, continued) {
        (CacheError::Expired { .. }, Some(after)) => expired(op, &after),
        (CacheError::Expired { .. }, None) => {
            Status::expired("The resourceVersion for the provided list is too old.")
        }
        (error, _) => cache_status(error),
    })
}

impl Op<'_> {
    /// The keys a list, watch or deletecollection is about.
    pub fn scope(&self, options: &ListOptions) -> Scope {
        let name = options
            .fields
            .requires_exact("metadata.name")
            .filter(|name| crate::request_info::is_path_segment(name));
        let asked = options.fields.requires_exact("metadata.namespace").filter(|_| self.row.namespaced);
        let namespace = match self.namespace() {
            "" => asked.unwrap_or_default(),
            given => given,
        };
        match (self.row.namespaced, namespace, name) {
            (false, _, Some(name)) => Scope::Key(name.into()),
            (true, namespace, Some(name)) if !namespace.is_empty() => {
                Scope::Key(format!("{namespace}/{name}").into())
            }
            (true, namespace, _) if !namespace.is_empty() => Scope::Namespace(namespace.into()),
            _ => Scope::All,
        }
    }

    /// The selectors as the cache takes them; `None` selects everything in the scope.
    pub fn filter(&self, options: &ListOptions) -> Result<Option<Filter>, Status> {
        // Labels are those of the requested version; the objects have the storage version's.
        let labels = self.row.ty.and_then(keelson_api::types::convert::field_labels);
        // Custom resources answer as types with labels of their own, whether they have some or not.
        let typed = self.row.ty.is_none() || !self.strategy.selectable.is_empty();
        let mut selectable = vec!["metadata.name"];
        // A type without labels of its own has both, whatever its scope.
        if self.row.namespaced || !typed {
            selectable.push("metadata.namespace");
        }
        match labels {
            Some(pairs) => selectable.extend(pairs.iter().map(|(label, _)| *label)),
            None => selectable.extend(self.selectable()),
        }
        let offered = options.fields.check(&selectable, typed.then_some(self.strategy.unselectable));
        offered.map_err(|error| Status::bad_request(error.to_string()))?;
        let fields = options.fields.renamed(labels.unwrap_or_default());
        if options.labels.is_everything() && options.fields.is_everything() {
            return Ok(None);
        }
        let labels = options.labels.clone();
        let indices: Vec<(String, usize)> = fields
            .terms()
            .iter()
            .filter_map(|term| self.cache.field_index(&term.field).map(|index| (term.field.clone(), index)))
            .collect();
        Ok(Some(Arc::new(move |object: &Object| {
            (fields.is_everything()
                || fields.matches(|field| match field {
                    "metadata.name" => Some(object.name()),
                    "metadata.namespace" => Some(object.namespace()),
                    other => {
                        indices.iter().find(|(name, _)| name == other).map(|(_, index)| object.field(*index))
                    }
                }))
                && (labels.is_everything() || labels.matches(&ObjectLabels::of(object)))
        })))
    }

    /// A list as the client wants it.
    pub async fn answer_list(&self, found: List, output: Output) -> Result<Response<Body>, Status> {
        self.check_partial(output, true)?;
        let found = self.current_list(found);
        let token = found
            .continue_after
            .as_deref()
            .map(|after| continue_token::encode(Some(found.revision), self.token_start(after)));
        let meta = Meta { revision: found.revision, token: token.as_deref(), remaining: found.remaining };
        match (output.shape, output.encoding) {
            (Shape::Whole, Encoding::Protobuf) => {
                let (hub, row) = (self.hub.clone(), self.row.clone());
                let items = Items {
                    api_version: self.row.api_version().to_string(),
                    kind: self.row.list_kind.to_string(),
                    document: Box::new(move |object| {
                        decode(&hub, &row, object)
                            .ok_or_else(|| Status::internal("a stored object cannot be read"))
                    }),
                    stored: self.stored_as_requested(),
                };
                self.proto_list(found.objects, meta, items).await
            }
            (Shape::Whole, Encoding::Json) if self.stored_as_requested() => {
                let custom = self.row.ty.is_none();
                let form = Form { head: if custom { self.head() } else { Bytes::new() }, part: Part::Whole };
                Ok(self.byte_list(
                    found,
                    list_head(&self.row.list_kind, &self.row.api_version(), meta),
                    form,
                    output.pretty,
                ))
            }
            (Shape::Metadata(version), Encoding::Json | Encoding::Yaml) if found.objects.is_empty() => {
                let api_version = format!("meta.k8s.io/{version}");
                let mut out = list_head("PartialObjectMetadataList", &api_version, meta);
                // As upstream, which appends to a list that is none yet.
                out.truncate(out.len() - 1);
                out.extend_from_slice(b"null}");
                self.json_or_yaml(StatusCode::OK, out, output.encoding, output.pretty)
            }
            (Shape::Metadata(version), Encoding::Json) => {
                let api_version = format!("meta.k8s.io/{version}");
                let form = Form {
                    head: super::output::head("PartialObjectMetadata", &api_version),
                    part: Part::Metadata,
                };
                Ok(self.byte_list(
                    found,
                    list_head("PartialObjectMetadataList", &api_version, meta),
                    form,
                    output.pretty,
                ))
            }
            (Shape::Whole, _) => {
                let head = list_head(&self.row.list_kind, &self.row.api_version(), meta);
                let (hub, row) = (self.hub.clone(), self.row.clone());
                let write = move |object: &Object, out: &mut Vec<u8>| {
                    if let Some(doc) = decode(&hub, &row, object) {
                        json::encode_canonical(
                            &doc,
                            EncodeOptions { type_meta: row.ty.is_none(), resource_version: true },
                            out,
                        );
                    }
                };
                self.mapped_list(found, head, Box::new(write), output)
            }
            (Shape::Table(version), _) => {
                let include = Include::parse(self.call.query)?;
                let mut head = Vec::new();
                push_head(&mut head, version, meta, Some(&self.columns()));
                let hub = self.hub.clone();
                let rows = RowContext::of(self);
                let write = move |object: &Object, out: &mut Vec<u8>| {
                    if let Some(doc) = decode(&hub, &hub, object) {
                        rows.push(out, &doc, object.json(), object.revision(), version, include);
                    }
                };
                self.mapped_list(found, head, Box::new(write), output)
            }
            (Shape::Metadata(version), Encoding::Yaml) => {
                let head = list_head("PartialObjectMetadataList", &format!("meta.k8s.io/{version}"), meta);
                let write = move |object: &Object, out: &mut Vec<u8>| {
                    scan::push_metadata(out, version, object.json(), object.revision());
                };
                self.mapped_list(found, head, Box::new(write), output)
            }
            (Shape::Metadata(version), Encoding::Protobuf) => {
                let items = Items {
                    api_version: format!("meta.k8s.io/{version}"),
                    kind: "PartialObjectMetadataList".to_owned(),
                    document: Box::new(move |object| {
                        super::output::partial(version, object.json(), object.revision())
                    }),
                    stored: false,
                };
                self.proto_list(found.objects, meta, items).await
            }
        }
    }

    fn byte_list(&self, found: List, head: Vec<u8>, form: Form, pretty: bool) -> Response<Body> {
        let body = found.into_body(head.into(), form, Bytes::from_static(b"]}\n"));
        if pretty {
            let mut all = Vec::new();
            body.for_each(|piece| all.extend_from_slice(&piece));
            return self.json(StatusCode::OK, all, true);
        }
        let length = body.len();
        self.pieces(negotiate::JSON, body, Some(length), length)
    }

    fn mapped_list(
        &self,
        found: List,
        head: Vec<u8>,
        write: WriteItem,
        output: Output,
    ) -> Result<Response<Body>, Status> {
        let estimate = found.objects.iter().map(|object| object.json().len() as u64).sum();
        let pieces =
            Mapped { objects: found.objects.into_iter(), head: Some(head), write, first: true, done: false };
        if output.pretty || output.encoding == Encoding::Yaml {
            let all: Vec<u8> = pieces.flat_map(|piece| piece.to_vec()).collect();
            if output.encoding == Encoding::Yaml {
                let text = super::output::to_yaml(&all)?;
                return Ok(respond::bytes(StatusCode::OK, negotiate::YAML, text));
            }
            return Ok(self.json(StatusCode::OK, all, true));
        }
        Ok(self.pieces(negotiate::JSON, pieces, None, estimate))
    }

    /// A cache key as continue tokens carry it: relative to what the path covers.
    fn token_start<'k>(&self, key: &'k str) -> &'k str {
        match self.namespace() {
            "" => key,
            namespace => key.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('/')).unwrap_or(key),
        }
    }
}

fn list_head(kind: &str, api_version: &str, meta: Meta<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    crate::scan::push_type_meta(&mut out, api_version, kind);
    out.extend_from_slice(b",\"metadata\":");
    meta.push(&mut out);
    out.extend_from_slice(b",\"items\":[");
    out
}

/// A stored object in the requested version.
pub fn decode(hub: &Resource, row: &Resource, object: &Object) -> Option<Doc> {
    decode_at(hub, row, object, object.revision())
}

/// As [`decode`], with another revision as its resourceVersion (the last state of a deleted object).
pub fn decode_at(hub: &Resource, row: &Resource, object: &Object, revision: u64) -> Option<Doc> {
    let decoded = json::decode_any(hub.ty, object.json(), FieldValidation::Ignore);
    let mut doc = match decoded {
        Ok((doc, _)) => doc,
        Err(error) => {
            tracing::error!(object = object.key(), %error, "a stored object cannot be read");
            return None;
        }
    };
    doc.gvk = gvk(hub);
    doc.meta_mut().set_resource_version(itoa::Buffer::new().format(revision));
    convert(doc, row).ok()
}

/// The labels of an object, looked up in its bytes.
struct ObjectLabels<'o> {
    object: &'o Object,
    /// All of them, once one had to be decoded.
    decoded: std::cell::OnceCell<Vec<(std::borrow::Cow<'o, str>, std::borrow::Cow<'o, str>)>>,
}

impl<'o> ObjectLabels<'o> {
    fn of(object: &'o Object) -> ObjectLabels<'o> {
        ObjectLabels { object, decoded: std::cell::OnceCell::new() }
    }
}

impl Labels for ObjectLabels<'_> {
    fn get_label(&self, key: &str) -> Option<&str> {
        self.object.plain_label(key).unwrap_or_else(|_| {
            let pairs = self.decoded.get_or_init(|| self.object.labels().collect());
            pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_ref())
        })
    }
}

type WriteItem = Box<dyn Fn(&Object, &mut Vec<u8>) + Send>;

/// A list whose items are made one by one; an item that writes nothing is left out.
struct Mapped {
    objects: std::vec::IntoIter<Arc<Object>>,
    head: Option<Vec<u8>>,
    write: WriteItem,
    first: bool,
    done: bool,
}

impl Iterator for Mapped {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut chunk = self.head.take().unwrap_or_default();
        while chunk.len() < 64 * 1024 {
            let Some(object) = self.objects.next() else {
                chunk.extend_from_slice(b"]}\n");
                self.done = true;
                break;
            };
            let start = chunk.len();
            if !self.first {
                chunk.push(b',');
            }
            let begin = chunk.len();
            (self.write)(&object, &mut chunk);
            if chunk.len() == begin {
                chunk.truncate(start);
            } else {
                self.first = false;
            }
        }
        Some(chunk.into())
    }
}

/// The cache key a token's start stands for; it cannot leave the path's namespace.
fn key_after(op: &Op<'_>, start: String) -> String {
    match op.namespace() {
        "" => start,
        namespace => format!("{namespace}/{start}"),
    }
}

const INCONSISTENT: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// An expired page answers with a token that continues at the newest revision.
fn expired(op: &Op<'_>, after: &str) -> Status {
    let mut status = Status::expired(INCONSISTENT);
    status.continue_token = Some(continue_token::encode(None, op.token_start(after)));
    status
}
