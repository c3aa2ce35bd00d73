//! The one pipeline for all resources: what a path asks for, done on the row of the table.

mod apply;
pub mod component_status;
mod create;
pub mod custom;
mod decode;
mod delete;
mod evict;
pub mod fields;
mod list;
mod modify;
mod output;
mod proto_list;
mod read;
mod review;
mod scale;
mod subresource;
mod table;
pub mod turns;
mod update;
mod watch;

use std::sync::Arc;

use futures::future::BoxFuture;
use http::Response;
use jiff::Timestamp;
use keelson_api::doc::Doc;
use keelson_api::json::{self, EncodeOptions, FieldValidation};
use keelson_api::schema::Verbs;
use keelson_api::status::{GroupResource, Status};
use keelson_api::table::Resource;
use keelson_api::types::{self, Ctx, Strategy, User};
use keelson_store::{CommitError, Committed, StoreError, Transaction};

use crate::admission::{AdmissionAttributes, Operation};
use crate::authz::{EscalationCheck, PolicyKind, check_escalation};
use crate::body::{Body, ReadError, RequestBody};
use crate::cache::{CacheError, WatchCache};
use crate::core::{Call, Core};
use crate::keys;
use crate::reads::{self, READ_BY_DECISIONS};

/// A request for a resource, with its row.
pub struct Op<'r> {
    pub call: &'r Call<'r>,
    pub core: &'r Arc<Core>,
    pub row: Arc<Resource>,
    /// The row of the storage version.
    pub hub: Arc<Resource>,
    pub strategy: &'static Strategy,
    pub cache: Arc<WatchCache>,
    pub now: Timestamp,
}

/// An object after a write (or a refused no-op): canonical bytes and the revision they stand at.
#[derive(Debug)]
pub struct Written {
    pub json: bytes::Bytes,
    pub revision: u64,
    pub created: bool,
}

/// A loaded object.
pub struct Loaded {
    pub doc: Doc,
    pub json: bytes::Bytes,
    pub revision: u64,
}

/// How often a write that lost a race is tried again.
pub const MAX_ATTEMPTS: usize = 64;

/// When to come again, in seconds, while the store cannot take writes: it comes back by itself.
const RETRY_STORE: i32 = 1;

/// Serves a request for a resource.
pub fn serve<'r>(
    call: &'r Call<'r>,
    parts: &'r http::request::Parts,
    body: RequestBody,
) -> BoxFuture<'r, Result<Response<Body>, Status>> {
    // Boxed: the compiler cannot see through this many nested futures that they are Send.
    Box::pin(serve_resource(call, parts, body))
}

async fn serve_resource<'r>(
    call: &'r Call<'r>,
    parts: &'r http::request::Parts,
    body: RequestBody,
) -> Result<Response<Body>, Status> {
    let core = call.core;
    let info = call.info;
    let row = core
        .table
        .load()
        .lookup(&info.group, &info.version, &info.resource)
        .cloned()
        .ok_or_else(Status::resource_not_found)?;
    // A cluster-scoped resource has no namespaced paths. (The namespace of /namespaces/x is x itself.)
    let own_namespace = row.group.is_empty() && row.plural == "namespaces";
    if !row.namespaced && !info.namespace.is_empty() && !own_namespace {
        return Err(Status::resource_not_found());
    }
    let hub = if row.custom.is_some() { row.clone() } else { core.hub(&row) };
    custom::announce(call, &row)?;
    let op = Op {
        call,
        core,
        strategy: types::strategy(hub.ty),
        cache: core.cache(&row),
        hub,
        row,
        now: core.clock.now(),
    };
    if !info.subresource.is_empty() {
        return subresource::serve(&op, parts, body).await;
    }
    if !op.row.stored {
        return subresource::virtual_resource(&op, body).await;
    }
    op.allow(custom::verbs(&op.row), info.verb)?;
    match info.verb {
        "get" => read::get(&op).await,
        "list" => list::list(&op).await,
        "watch" if crate::socket::asked(&parts.headers) => watch::over_socket(&op, parts).await,
        "watch" => watch::watch(&op).await,
        "create" => create::post(&op, body).await,
        "update" => update::put(&op, "", body).await,
        "patch" => update::patch(&op, "", body).await,
        "delete" => delete::delete(&op, body).await,
        "deletecollection" => delete::collection(&op, body).await,
        _ => Err(op.method_not_allowed()),
    }
}

impl Op<'_> {
    pub fn info(&self) -> &crate::request_info::RequestInfo {
        self.call.info
    }

    pub fn gr(&self) -> GroupResource {
        GroupResource::new(self.row.group.to_string(), self.row.plural.to_string())
    }

    /// Group and kind, as `Status::invalid` wants them.
    pub fn gk(&self) -> GroupResource {
        GroupResource::new(self.row.group.to_string(), self.row.kind.to_string())
    }

    /// 405 unless the row (or subresource) has the verb on a path of this shape; 404 where no row has any verb.
    fn allow(&self, verbs: Verbs, verb: &str) -> Result<(), Status> {
        let info = self.info();
        let scoped = !self.row.namespaced || !info.namespace.is_empty() || matches!(verb, "list" | "watch");
        let named = match verb {
            "get" | "update" | "patch" | "delete" => !info.name.is_empty(),
            "create" => info.name.is_empty() || !info.subresource.is_empty(),
            _ => true,
        };
        // Upstream has no routes for HEAD, which is authorized as a GET.
        if verbs.has_name(verb) && scoped && named && *self.call.method != http::Method::HEAD {
            return Ok(());
        }
        // A watch comes by the way of a list.
        if verb == "watch" && verbs.has(Verbs::LIST) {
            return Err(Status::method_not_supported(&self.gr(), verb));
        }
        // Where no method has a route there is nothing: an object without its namespace, or of a kind that is only created.
        let at_objects = [Verbs::GET, Verbs::UPDATE, Verbs::PATCH, Verbs::DELETE];
        let routed = (!self.row.namespaced || !info.namespace.is_empty())
            && at_objects.into_iter().any(|verb| verbs.has(verb));
        if info.subresource.is_empty() && !info.name.is_empty() && !routed {
            return Err(Status::resource_not_found());
        }
        Err(self.method_not_allowed())
    }

    pub fn method_not_allowed(&self) -> Status {
        Status::method_not_allowed()
    }

    /// The namespace objects of this request lie in; empty for cluster-scoped resources.
    pub fn namespace(&self) -> &str {
        if self.row.namespaced { &self.info().namespace } else { "" }
    }

    /// The store's key of an object.
    pub fn key(&self, name: &str) -> String {
        keys::object(&self.row, self.namespace(), name)
    }

    /// The cache's key of an object.
    pub fn cache_key(&self, name: &str) -> String {
        if self.row.namespaced { format!("{}/{name}", self.namespace()) } else { name.to_owned() }
    }

    /// What the rules may know.
    pub fn rule_context<'a>(&'a self, subresource: &'a str) -> Ctx<'a> {
        Ctx {
            now: self.now,
            gates: &self.core.gates,
            group: &self.row.group,
            subresource,
            namespaced: self.row.namespaced,
            has_status: self.row.has_status(),
            user: User {
                name: &self.call.user.name,
                uid: &self.call.user.uid,
                groups: &self.call.user.groups,
                extra: Some(&self.call.user.extra),
            },
            custom: self.row.custom.as_deref(),
        }
    }

    /// What admission may know.
    pub fn admission<'a>(
        &'a self,
        operation: Operation,
        name: &'a str,
        subresource: &'a str,
        dry_run: bool,
    ) -> AdmissionAttributes<'a> {
        AdmissionAttributes {
            operation,
            group: &self.row.group,
            version: &self.row.version,
            resource: &self.row.plural,
            subresource,
            namespace: &self.info().namespace,
            name,
            user: &self.call.user,
            dry_run,
            now: self.now,
        }
    }

    /// Nobody grants rights that he does not hold.
    pub fn check_escalation(&self, name: &str, new: &Doc, old: Option<&Doc>) -> Result<(), Status> {
        if self.row.group != "rbac.authorization.k8s.io" {
            return Ok(());
        }
        let Some(kind) = PolicyKind::from_resource(&self.row.plural) else { return Ok(()) };
        let access = &self.core.access;
        let (new, old) = (Op::encode_stored(new), old.map(Op::encode_stored));
        let check = EscalationCheck {
            user: &self.call.user,
            kind,
            namespace: self.namespace(),
            request_name: name,
            new: &new,
            old: old.as_deref(),
        };
        check_escalation(&check, access.authorizer.as_ref(), &access.policy)
    }

    /// Stored bytes as an object of the storage version, revision set.
    pub fn decode_stored(&self, bytes: &[u8], revision: u64) -> Result<Doc, Status> {
        let (mut doc, _) = json::decode_any(self.hub.ty, bytes, FieldValidation::Ignore)
            .map_err(|error| Status::internal(format!("a stored object cannot be read: {error}")))?;
        doc.gvk = gvk(&self.hub);
        custom::adapt(&self.row, bytes, &mut doc);
        if revision > 0 {
            doc.meta_mut().set_resource_version(itoa::Buffer::new().format(revision));
        }
        Ok(doc)
    }

    /// An object as the store keeps it.
    pub fn encode_stored(doc: &Doc) -> bytes::Bytes {
        let mut out = Vec::with_capacity(1024);
        json::encode_canonical(doc, EncodeOptions::STORED, &mut out);
        out.into()
    }

    /// From the request's version to the storage version.
    pub fn to_hub(&self, doc: Doc) -> Result<Doc, Status> {
        convert(doc, &self.hub)
    }

    /// From the storage version to the request's.
    pub fn to_requested(&self, doc: Doc) -> Result<Doc, Status> {
        convert(doc, &self.row)
    }

    /// Whether stored bytes are answers as they are.
    pub fn stored_as_requested(&self) -> bool {
        self.row.version == self.hub.version && self.row.group == self.hub.group
    }

    /// An object at its newest state; from the cache, or from the store when a race was lost.
    pub async fn load(&self, name: &str, fresh: bool) -> Result<Option<Loaded>, Status> {
        let (json, revision) = if fresh {
            let (entry, _) = self.core.store.get(&self.key(name)).await.map_err(store_status)?;
            let Some(entry) = entry else { return Ok(None) };
            (entry.value, entry.mod_revision)
        } else {
            let (object, _) = self
                .cache
                .get(&self.cache_key(name), crate::cache::ReadAt::Newest)
                .await
                .map_err(cache_status)?;
            let Some(object) = object else { return Ok(None) };
            (bytes::Bytes::copy_from_slice(object.json()), object.revision())
        };
        let doc = self.decode_stored(&json, revision)?;
        Ok(Some(Loaded { doc, json, revision }))
    }
}

/// A row's group, version and kind.
pub fn gvk(row: &Resource) -> keelson_api::doc::Gvk {
    keelson_api::doc::Gvk { group: row.group.clone(), version: row.version.clone(), kind: row.kind.clone() }
}

/// Between two served versions of a type. Versions of equal shape differ in their names only.
fn convert(mut doc: Doc, to: &Resource) -> Result<Doc, Status> {
    let target = gvk(to);
    if doc.gvk == target {
        return Ok(doc);
    }
    if doc.ty() == to.ty {
        doc.gvk = target;
        return Ok(doc);
    }
    if let Some(mut converted) = to.ty.and_then(|ty| types::convert::convert(&doc, ty)) {
        converted.gvk = target;
        return Ok(converted);
    }
    let mut bytes = Vec::new();
    json::encode_canonical(&doc, EncodeOptions { type_meta: false, resource_version: true }, &mut bytes);
    let (mut doc, _) = json::decode_any(to.ty, &bytes, FieldValidation::Ignore)
        .map_err(|error| Status::internal(format!("converting to {}: {error}", to.api_version())))?;
    doc.gvk = target;
    Ok(doc)
}

/// Why a write did not happen.
#[derive(Debug)]
pub enum WriteError {
    /// What stands at the key is not what was expected.
    Conflict {
        guard: usize,
    },
    Failed(Status),
}

impl From<Status> for WriteError {
    fn from(status: Status) -> WriteError {
        WriteError::Failed(status)
    }
}

impl Op<'_> {
    /// Commits a write of one of the row's objects and gives its revision. What is read of it from here on shows the write,
    /// and where decisions read the resource they do too: the same client's next request is judged by it.
    pub async fn commit(&self, transaction: Transaction) -> Result<u64, WriteError> {
        let committed = self.core.commit(transaction).await?;
        // Here, in the task that waited for the store, and not in one that is woken for it; while `committed` holds back
        // that one's wake.
        self.cache.pull();
        let revision = committed.revision;
        drop(committed);
        let judged = READ_BY_DECISIONS
            .iter()
            .any(|(group, plural, _)| *group == self.row.group && *plural == self.row.plural);
        if judged {
            reads::caught_up(&self.cache, revision).await;
        }
        Ok(revision)
    }
}

impl Core {
    /// Commits; a guard that does not hold is [`WriteError::Conflict`].
    pub async fn commit(&self, transaction: Transaction) -> Result<Committed, WriteError> {
        match self.store.commit(transaction).await {
            Ok(committed) => Ok(committed),
            Err(CommitError::Conflict { guard, .. }) => Err(WriteError::Conflict { guard }),
            Err(CommitError::Store(error)) => Err(WriteError::Failed(store_status(error))),
        }
    }
}

/// Turns a failure of the store into an answer.
pub fn store_status(error: StoreError) -> Status {
    match error {
        StoreError::Compacted { requested, oldest } => {
            Status::expired(format!("too old resource version: {requested} ({oldest})"))
        }
        StoreError::Future { requested, current } => Status::too_large_resource_version(requested, current),
        StoreError::Refused(why) => Status::request_entity_too_large(why),
        full @ StoreError::Full => Status::service_unavailable(full.to_string()).retry_after(RETRY_STORE),
        closed @ (StoreError::Closed(_) | StoreError::Unavailable(_)) => {
            Status::service_unavailable(closed.to_string()).retry_after(RETRY_STORE)
        }
        // Neither a success nor a failure: the client looks, or asks again.
        unknown @ StoreError::Unknown(_) => Status::timeout(&unknown.to_string(), 0),
        StoreError::Database(text) => {
            tracing::error!(error = text, "the store failed");
            Status::internal("the store failed; the server's log says why")
        }
    }
}

/// Turns a failure of the watch cache into an answer.
pub fn cache_status(error: CacheError) -> Status {
    match error {
        CacheError::Expired { requested, oldest } => {
            Status::expired(format!("too old resource version: {requested} ({oldest})"))
        }
        CacheError::TooLarge { requested, current } => Status::too_large_resource_version(requested, current),
        CacheError::Behind { .. } => Status::timeout("the server's cache did not catch up in time", 1),
        CacheError::Gone { .. } => Status::resource_not_found(),
        CacheError::Restarted { .. } => Status::expired("the watch cache restarts; list again"),
        CacheError::Store(error) => store_status(error),
    }
}

/// Reads a body whole or says why not.
pub async fn read_body(body: RequestBody) -> Result<bytes::Bytes, Status> {
    crate::body::read_whole(body).await.map_err(|error| match error {
        ReadError::TooLarge => {
            Status::request_entity_too_large(format!("limit is {}", crate::body::MAX_BODY))
        }
        ReadError::Broken(error) => {
            Status::bad_request(format!("the request's body cannot be read: {error}"))
        }
    })
}
