//! Discovery and OpenAPI documents, made once per state of the resource table.

use std::sync::Arc;

use bytes::Bytes;
use keelson_api::status::Status;
use keelson_api::table::Table;

/// A document as it is sent.
#[derive(Clone, Debug)]
pub struct Document {
    pub body: Bytes,
    pub media_type: &'static str,
    pub etag: Option<String>,
    /// The path names the content by its hash.
    pub immutable: bool,
}

/// What was made, by path and form, for one table.
#[derive(Default)]
pub struct Cache {
    made: parking_lot::Mutex<Option<(Arc<Table>, std::collections::HashMap<String, Document>)>>,
}

/// The document of a path; 404 where there is none.
pub fn find(_cache: &Cache, _table: &Arc<Table>, _path: &str, _accept: &str, _hash: Option<&str>) -> Result<Document, Status> {
    Err(Status::resource_not_found())
}
