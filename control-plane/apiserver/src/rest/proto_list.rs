//! A list as protobuf, encoded while it is sent. A message's length stands before it, so the items are measured first;
//! an object of the cache remembers its own, and what is encoded for measuring is not kept.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use keelson_api::doc::Doc;
use keelson_api::proto::{self, ListMeta};
use keelson_api::status::Status;

use super::Op;
use super::table::Meta;
use crate::body::Body;
use crate::cache::Object;
use crate::negotiate;

/// What is encoded between two looks at what else there is to do, and the size of a body's pieces.
const CHUNK: usize = 64 * 1024;
/// A list of less JSON is encoded once and whole.
const SMALL: usize = 256 * 1024;

/// The items of a list as documents.
pub(super) struct Items {
    pub api_version: String,
    pub kind: String,
    pub document: Box<dyn Fn(&Object) -> Result<Doc, Status> + Send + Sync>,
    /// The documents are the objects in their storage version: their lengths are theirs for good.
    pub stored: bool,
}

impl Items {
    fn encode(&self, object: &Object, out: &mut Vec<u8>) -> Result<(), Status> {
        let document = (self.document)(object)?;
        proto::encode_raw(&document, out)
            .map_err(|_| Status::not_acceptable(&negotiate::OBJECT_TYPES[..2]))?;
        if self.stored
            && let Ok(len) = u32::try_from(out.len())
        {
            object.set_proto_len(len);
        }
        Ok(())
    }

    /// How long all items are, each with its tag and length.
    async fn measure(&self, objects: &[Arc<Object>]) -> Result<u64, Status> {
        let (mut sum, mut busy) = (0, 0);
        let mut message = Vec::with_capacity(4096);
        for object in objects {
            if let Some(known) = object.proto_len().filter(|_| self.stored) {
                sum += proto::item_len(known as usize);
                continue;
            }
            message.clear();
            self.encode(object, &mut message)?;
            sum += proto::item_len(message.len());
            busy += object.json().len();
            if busy >= CHUNK {
                busy = 0;
                tokio::task::yield_now().await;
            }
        }
        Ok(sum)
    }

    fn head(&self, meta: Meta<'_>, items_len: u64) -> Vec<u8> {
        let version = meta.revision.to_string();
        let meta = ListMeta {
            resource_version: &version,
            continue_token: meta.token.unwrap_or_default(),
            remaining: meta.remaining.and_then(|remaining| i64::try_from(remaining).ok()),
        };
        let mut head = Vec::with_capacity(CHUNK);
        proto::begin_list(&self.api_version, &self.kind, meta, items_len, &mut head);
        head
    }

    /// The whole body at once.
    fn small(&self, objects: &[Arc<Object>], meta: Meta<'_>) -> Result<Vec<u8>, Status> {
        let (mut items, mut message) = (Vec::with_capacity(CHUNK), Vec::with_capacity(4096));
        for object in objects {
            message.clear();
            self.encode(object, &mut message)?;
            proto::put_item(&message, &mut items);
        }
        let mut out = self.head(meta, items.len() as u64);
        out.extend_from_slice(&items);
        proto::end_list(&mut out);
        Ok(out)
    }
}

impl Op<'_> {
    /// A list of documents as protobuf.
    pub(super) async fn proto_list(
        &self,
        objects: Vec<Arc<Object>>,
        meta: Meta<'_>,
        items: Items,
    ) -> Result<Response<Body>, Status> {
        if objects.iter().map(|object| object.json().len()).sum::<usize>() <= SMALL {
            let out = items.small(&objects, meta)?;
            let length = out.len() as u64;
            return Ok(self.pieces(
                negotiate::PROTOBUF,
                std::iter::once(Bytes::from(out)),
                Some(length),
                length,
            ));
        }
        let items_len = items.measure(&objects).await?;
        let head = items.head(meta, items_len);
        let mut end = Vec::new();
        proto::end_list(&mut end);
        let length = head.len() as u64 + items_len + end.len() as u64;
        let pieces = Pieces {
            objects: objects.into_iter(),
            items,
            chunk: head,
            message: Vec::new(),
            end,
            left: items_len,
        };
        Ok(self.pieces(negotiate::PROTOBUF, pieces, Some(length), length))
    }
}

/// The body of a measured list.
struct Pieces {
    objects: std::vec::IntoIter<Arc<Object>>,
    items: Items,
    /// What is not handed out yet.
    chunk: Vec<u8>,
    message: Vec<u8>,
    /// What stands behind the last item; empty once it is out.
    end: Vec<u8>,
    /// What the items may still take.
    left: u64,
}

impl Iterator for Pieces {
    type Item = Bytes;

    /// An item that is not what was measured ends the body before its announced length: the client sees that it is torn.
    fn next(&mut self) -> Option<Bytes> {
        while self.chunk.len() < CHUNK {
            let Some(object) = self.objects.next() else {
                self.chunk.append(&mut self.end);
                break;
            };
            self.message.clear();
            let encoded = self.items.encode(&object, &mut self.message);
            let Some(left) =
                encoded.ok().and_then(|()| self.left.checked_sub(proto::item_len(self.message.len())))
            else {
                tracing::error!(
                    object = object.key(),
                    "an object of a list is not what it was when it was measured"
                );
                self.objects = Vec::new().into_iter();
                self.end.clear();
                break;
            };
            self.left = left;
            proto::put_item(&self.message, &mut self.chunk);
        }
        let chunk = std::mem::take(&mut self.chunk);
        (!chunk.is_empty()).then(|| chunk.into())
    }
}
