//! WATCH: the answer's head at once, then a frame per change, until the timeout, an error or the drain.

use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use keelson_api::doc::Doc;
use keelson_api::json::{self, EncodeOptions};
use keelson_api::proto;
use keelson_api::status::Status;
use keelson_api::table::Resource;
use rand::Rng as _;

use super::custom::current;
use super::list::decode_at;
use super::table::{Include, Meta, RowContext, push_head};
use super::{Op, cache_status};
use crate::body::Body;
use crate::cache::{
    CacheError, Delivery, EventKind, Form, Part, ReadAt, Start, WatchItem, WatchQuery, WatchStream,
};
use crate::negotiate::{self, Encoding, Offer, Partial, Shape};
use crate::options::{ListOptions, Version};
use crate::socket::Messages;
use crate::{respond, scan};

/// Without `timeoutSeconds` a watch ends after a random time between this and twice this, as upstream's.
const MIN_TIMEOUT: u64 = 1800;

/// Serves a watch.
pub async fn watch(op: &Op<'_>) -> Result<Response<Body>, Status> {
    let offer = Offer { protobuf: op.row.ty.is_some(), shapes: true, stream: true };
    let output = negotiate::negotiate(op.call.headers, offer)
        .ok_or_else(|| Status::not_acceptable(&negotiate::STREAM_TYPES))?;
    // Upstream cannot make a list of an event's object, and sends it as it is.
    let list = matches!(output.shape, Shape::Metadata(_)) && output.partial == Partial::List;
    let shape = if list { Shape::Whole } else { output.shape };
    let mut options = ListOptions::parse(op.call.query, true)?;
    // The old /watch/… paths may name one object.
    if !op.info().name.is_empty() && options.fields.requires_exact("metadata.name").is_none() {
        options.fields =
            keelson_api::fields_selector::FieldSelector::equals("metadata.name", &op.info().name);
    }
    let include = Include::parse(op.call.query)?;
    let Some(place) = op.core.flow.watch(&op.call.user.name) else {
        return Err(Status::too_many_requests("Too many watches are open, please try again later.", 10));
    };
    let start = start(&options);
    let query = WatchQuery {
        scope: op.scope(&options),
        filter: op.filter(&options)?,
        start,
        bookmarks: options.bookmarks,
    };
    let frames = Frames::new(op, output.encoding, shape, include);
    let body = match op.cache.watch(query).await {
        Ok(stream) => {
            let timeout = options
                .timeout_seconds
                .unwrap_or_else(|| rand::rng().random_range(MIN_TIMEOUT..=2 * MIN_TIMEOUT));
            stream_body(op, stream, frames, Duration::from_secs(timeout), place)
        }
        // As upstream's watch cache: the failure is the stream's only event, so that every client's watch code sees it.
        Err(error @ CacheError::Expired { .. }) => {
            let frame = frames.error(&cache_status(error));
            Body::Stream(futures::stream::iter([Ok(frame)]).boxed())
        }
        Err(error) => return Err(cache_status(error)),
    };
    let media_type = match output.encoding {
        Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => negotiate::JSON,
    };
    let mut response = respond::with_body(StatusCode::OK, media_type, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    Ok(response)
}

/// The same over the client's WebSocket, a message per event.
pub async fn over_socket(op: &Op<'_>, parts: &http::request::Parts) -> Result<Response<Body>, Status> {
    let answer = watch(op).await?;
    let json = answer.headers().get(CONTENT_TYPE).is_some_and(|media_type| media_type == negotiate::JSON);
    let messages = if json { Messages::Text } else { Messages::Frames };
    crate::socket::watch(parts, answer, messages, &op.core.stop)
}

/// Upstream's meaning of resourceVersion and sendInitialEvents.
fn start(options: &ListOptions) -> Start {
    let at = match options.version {
        Version::Newest => ReadAt::Newest,
        Version::Any => ReadAt::Any,
        Version::At(revision) => ReadAt::NotOlderThan(revision),
    };
    match (options.send_initial_events, options.version) {
        (Some(true), _) => Start::State { at, end_bookmark: options.bookmarks },
        (Some(false), Version::Newest | Version::Any) => Start::Now,
        (_, Version::At(revision)) => Start::After(revision),
        // As upstream's defaults: without a revision a watch begins with what is there, which a bookmark ends.
        (None, Version::Newest | Version::Any) => Start::State { at, end_bookmark: options.bookmarks },
    }
}

fn stream_body(
    op: &Op<'_>,
    stream: WatchStream,
    frames: Frames,
    timeout: Duration,
    place: crate::flow::OpenWatch,
) -> Body {
    let open = op.core.metrics.long_running(op.info());
    let sent = op.core.metrics.watched(&op.row.group, &op.row.version, &op.row.plural);
    let stop = op.core.stop.clone();
    let end = async move {
        tokio::select! {
            () = tokio::time::sleep(timeout) => {}
            () = stop.cancelled_owned() => {}
        }
    };
    let initial = op.core.metrics.watch_list(op.info());
    let begun = std::time::Instant::now();
    let mut frames = frames;
    let items = stream.into_stream().take_until(end).map(move |item| {
        let _held = (&open, &place);
        let frame = match item {
            Ok(WatchItem::Event(delivery)) => frames.event(&delivery),
            Ok(WatchItem::Bookmark(revision)) => frames.bookmark(revision, false),
            Ok(WatchItem::InitialEventsEnd(revision)) => {
                initial.observe(begun.elapsed().as_secs_f64());
                frames.bookmark(revision, true)
            }
            // The resource is served no more: the stream ends.
            Err(CacheError::Gone { .. }) => Bytes::new(),
            Err(error) => frames.error(&cache_status(error)),
        };
        sent.sent(frame.len());
        Ok(frame)
    });
    Body::Stream(
        items
            .filter(|frame| std::future::ready(frame.as_ref().is_ok_and(|bytes: &Bytes| !bytes.is_empty())))
            .boxed(),
    )
}

/// Writes events as one client wants them.
struct Frames {
    hub: Arc<Resource>,
    row: Arc<Resource>,
    encoding: Encoding,
    shape: Shape,
    include: Include,
    /// Names this encoding among those of the same resource.
    id: u64,
    form: Option<Form>,
    rows: RowContext,
    /// The columns' definitions went out with an earlier event.
    headed: bool,
}

impl Frames {
    fn new(op: &Op<'_>, encoding: Encoding, shape: Shape, include: Include) -> Frames {
        let mut hasher = std::hash::DefaultHasher::new();
        let schema = op.row.custom.as_ref().map_or(0, |custom| custom.stamp);
        (op.row.group.as_str(), op.row.version.as_str(), schema, encoding, shape, include as u8)
            .hash(&mut hasher);
        let form = match (encoding, shape) {
            (Encoding::Json, Shape::Whole) if op.stored_as_requested() => {
                Some(Form { head: op.head(), part: Part::Whole })
            }
            (Encoding::Json, Shape::Metadata(version)) => Some(Form {
                head: super::output::head("PartialObjectMetadata", &format!("meta.k8s.io/{version}")),
                part: Part::Metadata,
            }),
            _ => None,
        };
        let rows = RowContext::of(op);
        Frames {
            hub: op.hub.clone(),
            row: op.row.clone(),
            encoding,
            shape,
            include,
            id: hasher.finish(),
            form,
            rows,
            headed: false,
        }
    }

    fn event(&mut self, delivery: &Delivery) -> Bytes {
        if let Shape::Table(version) = self.shape {
            // Ages change with time and the first event differs: not shared.
            return self.table_event(delivery, version);
        }
        delivery.encoded(self.id, |delivery| self.encode(delivery))
    }

    fn encode(&self, delivery: &Delivery) -> Bytes {
        let kind = event_name(delivery.kind());
        let object = &current(&self.row, delivery.object());
        if let Some(form) = &self.form {
            let mut out = Vec::with_capacity(object.written_len(delivery.revision(), form) + 40);
            open(&mut out, kind);
            object.write(delivery.revision(), form, &mut out);
            out.extend_from_slice(b"}\n");
            return out.into();
        }
        let doc = match self.shape {
            Shape::Metadata(version) => {
                super::output::partial(version, object.json(), delivery.revision()).ok()
            }
            _ => decode_at(&self.hub, &self.row, object, delivery.revision()),
        };
        doc.map_or_else(Bytes::new, |doc| self.frame_doc(kind, &doc))
    }

    fn frame_doc(&self, kind: &str, doc: &Doc) -> Bytes {
        let mut out = Vec::with_capacity(1024);
        if self.encoding == Encoding::Protobuf {
            let mut object = Vec::with_capacity(1024);
            if proto::encode(doc, &mut object).is_ok() {
                proto::encode_watch_frame(kind, &object, &mut out);
            }
        } else {
            open(&mut out, kind);
            json::encode_canonical(doc, EncodeOptions::FULL, &mut out);
            out.extend_from_slice(b"}\n");
        }
        out.into()
    }

    fn table_event(&mut self, delivery: &Delivery, version: &'static str) -> Bytes {
        let object = &current(&self.row, delivery.object());
        let Some(doc) = decode_at(&self.hub, &self.hub, object, delivery.revision()) else {
            return Bytes::new();
        };
        let columns = (!std::mem::replace(&mut self.headed, true)).then_some(&self.rows.columns);
        let mut out = Vec::with_capacity(2048);
        open(&mut out, event_name(delivery.kind()));
        push_head(
            &mut out,
            version,
            Meta { revision: delivery.revision(), token: None, remaining: None },
            columns,
        );
        self.rows.push(&mut out, &doc, object.json(), delivery.revision(), version, self.include);
        out.extend_from_slice(b"]}}\n");
        out.into()
    }

    /// An object with nothing but its type and the revision.
    fn bookmark(&mut self, revision: u64, initial_end: bool) -> Bytes {
        if self.encoding == Encoding::Protobuf
            && let Some(ty) = self.row.ty
        {
            let (ty, gvk) = match self.shape {
                Shape::Metadata(version) => (
                    keelson_api::t::meta_v1::PARTIAL_OBJECT_METADATA,
                    keelson_api::doc::Gvk::new("meta.k8s.io", version, "PartialObjectMetadata"),
                ),
                _ => (ty, super::gvk(&self.row)),
            };
            let mut doc = Doc::new(ty);
            doc.gvk = gvk;
            let mut meta = doc.meta_mut();
            meta.set_resource_version(&revision.to_string());
            if initial_end {
                meta.set_annotation("k8s.io/initial-events-end", "true");
            }
            return self.frame_doc("BOOKMARK", &doc);
        }
        let mut out = Vec::with_capacity(256);
        open(&mut out, "BOOKMARK");
        let (kind, api_version) = match self.shape {
            Shape::Table(version) => {
                // A row of an object that has nothing but the revision and what the bookmark means.
                let mut doc = match self.hub.ty {
                    Some(ty) => Doc::new(ty),
                    None => Doc::new_custom(super::gvk(&self.hub)),
                };
                doc.gvk = super::gvk(&self.hub);
                if initial_end {
                    doc.meta_mut().set_annotation("k8s.io/initial-events-end", "true");
                }
                let mut stored = Vec::new();
                json::encode_canonical(&doc, EncodeOptions::STORED, &mut stored);
                doc.meta_mut().set_resource_version(&revision.to_string());
                let columns = (!std::mem::replace(&mut self.headed, true)).then_some(&self.rows.columns);
                push_head(&mut out, version, Meta { revision, token: None, remaining: None }, columns);
                self.rows.push(&mut out, &doc, &stored, revision, version, self.include);
                out.extend_from_slice(b"]}}\n");
                return out.into();
            }
            Shape::Metadata(version) => {
                ("PartialObjectMetadata".to_owned(), format!("meta.k8s.io/{version}"))
            }
            Shape::Whole => (self.row.kind.to_string(), self.row.api_version().to_string()),
        };
        scan::push_type_meta(&mut out, &api_version, &kind);
        out.extend_from_slice(b",\"metadata\":{\"resourceVersion\":\"");
        out.extend_from_slice(itoa::Buffer::new().format(revision).as_bytes());
        out.push(b'"');
        if initial_end {
            out.extend_from_slice(b",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}");
        }
        out.extend_from_slice(b"}}}\n");
        out.into()
    }

    /// The Status with which a watch ends.
    fn error(&self, status: &Status) -> Bytes {
        let body = status.to_json();
        let mut out = Vec::with_capacity(body.len() + 40);
        if self.encoding == Encoding::Protobuf
            && let Ok((mut doc, _)) =
                json::decode(keelson_api::t::meta_v1::STATUS, &body, json::FieldValidation::Ignore)
        {
            doc.gvk = keelson_api::doc::Gvk::new("", "v1", "Status");
            return self.frame_doc("ERROR", &doc);
        }
        open(&mut out, "ERROR");
        out.extend_from_slice(&body);
        out.extend_from_slice(b"}\n");
        out.into()
    }
}

fn event_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Added => "ADDED",
        EventKind::Modified => "MODIFIED",
        EventKind::Deleted => "DELETED",
    }
}

/// Appends `{"type":"ADDED","object":`.
fn open(out: &mut Vec<u8>, kind: &str) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
}
