//! GET of one object.

use http::{Response, StatusCode};
use keelson_api::status::Status;

use super::{Op, cache_status};
use crate::body::Body;
use crate::cache::ReadAt;
use crate::options::Version;

/// Serves a GET.
pub async fn get(op: &Op<'_>) -> Result<Response<Body>, Status> {
    let output = op.output()?;
    if op.call.query.flag("export") {
        let text = "the export parameter, deprecated since v1.14, is no longer supported";
        return Err(Status::bad_request(text));
    }
    let at = match Version::parse_alone(op.call.query.first("resourceVersion").unwrap_or_default())? {
        Version::Newest => ReadAt::Newest,
        Version::Any => ReadAt::Any,
        Version::At(revision) => ReadAt::NotOlderThan(revision),
    };
    let name = &op.info().name;
    let (object, _) = op.cache.get(&op.cache_key(name), at).await.map_err(cache_status)?;
    let Some(object) = object else { return Err(Status::not_found(&op.gr(), name)) };
    op.answer_object(StatusCode::OK, &op.current(&object), output).await
}
