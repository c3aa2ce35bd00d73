//! DELETE: at once, gracefully, or when the last finalizer goes.

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{Response, StatusCode};
use keelson_api::doc::Doc;
use keelson_api::f::core_v1 as f;
use keelson_api::status::{Details, GroupResource, Status};
use keelson_api::{t, types};
use keelson_store::{Expect, Transaction, Write};

use super::{Loaded, MAX_ATTEMPTS, Op, WriteError, read_body};
use crate::admission::Operation;
use crate::body::{Body, RequestBody};
use crate::negotiate::{self, Encoding};
use crate::options::{DeleteOptions, ListOptions, Propagation};
use crate::{services, upkeep};

const ORPHAN: &str = "orphan";
/// Objects of a collection deleted at once: they share the store's commits.
const AT_ONCE: usize = 16;
const FOREGROUND: &str = "foregroundDeletion";

/// What a deletion led to.
pub struct Deleted {
    pub doc: Doc,
    pub json: bytes::Bytes,
    pub revision: u64,
    /// The object is gone; else it only waits for grace or finalizers.
    pub gone: bool,
}

/// Serves a DELETE of one object.
pub async fn delete(op: &Op<'_>, body: RequestBody) -> Result<Response<Body>, Status> {
    let output = op.output()?;
    let options = read_options(op, body).await?;
    warn_of_orphans(op, &options);
    let deleted = delete_one(op, &op.info().name, &options).await?;
    // Upstream's, for clients of the old option only: others would not expect it.
    let accepted = !deleted.gone && options.orphan_dependents == Some(false);
    let code = if accepted { StatusCode::ACCEPTED } else { StatusCode::OK };
    if deleted.gone && !returns_object(op) {
        let details = Details {
            name: deleted.doc.meta().name().to_owned(),
            group: op.row.group.to_string().into(),
            kind: op.row.plural.to_string().into(),
            uid: deleted.doc.meta().uid().to_owned(),
            ..Details::default()
        };
        return Ok(op.answer_status(&Status::success(Some(details))));
    }
    op.answer(code, &deleted.json, deleted.revision, output).await
}

/// Types whose deletion answers with the last state instead of a Status (upstream: ReturnDeletedObject).
fn returns_object(op: &Op<'_>) -> bool {
    matches!(
        (op.row.group.as_str(), op.row.plural.as_str()),
        (
            "",
            "pods"
                | "services"
                | "namespaces"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "podtemplates"
                | "resourcequotas"
                | "serviceaccounts"
        ) | (
            "storage.k8s.io",
            "csidrivers" | "csinodes" | "storageclasses" | "volumeattachments" | "volumeattributesclasses"
        ) | ("resource.k8s.io", _)
    )
}

/// Serves a DELETE of a collection: every object the selectors choose, each as if deleted alone.
pub async fn collection(op: &Op<'_>, body: RequestBody) -> Result<Response<Body>, Status> {
    let output = op.output()?;
    let list = ListOptions::parse(op.call.query, false)?;
    let options = read_options(op, body).await?;
    warn_of_orphans(op, &options);
    let found = super::list::find(op, &list).await?;
    // Each is begun when there is room for it: a deletion under way takes kilobytes.
    let mut under_way = FuturesUnordered::new();
    for object in &found.objects {
        if under_way.len() == AT_ONCE {
            under_way.next().await.transpose()?;
        }
        under_way.push(delete_listed(op, object.name(), &options));
    }
    under_way.try_collect::<()>().await?;
    op.answer_list(found, output).await
}

/// Says what becomes of dependents where the request does not.
fn warn_of_orphans(op: &Op<'_>, options: &DeleteOptions) {
    let text = op.strategy.orphan_warning;
    if !text.is_empty() && options.propagation.is_none() && options.orphan_dependents.is_none() {
        op.call.warnings.extend([text.to_owned()]);
    }
}

/// Deletes one of a collection; what is gone already is fine.
fn delete_listed<'d>(
    op: &'d Op<'_>,
    name: &'d str,
    options: &'d DeleteOptions,
) -> BoxFuture<'d, Result<(), Status>> {
    Box::pin(async move {
        match delete_one(op, name, options).await {
            Ok(_) => Ok(()),
            Err(status) if status.is_not_found() => Ok(()),
            Err(status) => Err(status),
        }
    })
}

async fn read_options(op: &Op<'_>, body: RequestBody) -> Result<DeleteOptions, Status> {
    let body = read_body(body).await?;
    if body.is_empty() {
        return DeleteOptions::from_query(op.call.query);
    }
    match negotiate::body_encoding(op.call.headers) {
        Some(Encoding::Json) => DeleteOptions::from_json(&body),
        Some(Encoding::Yaml) => {
            let json =
                keelson_api::yaml::to_json(&body).map_err(|error| Status::bad_request(error.to_string()))?;
            DeleteOptions::from_json(&json)
        }
        Some(Encoding::Protobuf) => {
            let doc = keelson_api::proto::decode(t::meta_v1::DELETE_OPTIONS, &body)
                .map_err(|error| Status::bad_request(error.to_string()))?;
            DeleteOptions::from_json(&Op::encode_stored(&doc))
        }
        None => Err(Status::unsupported_media_type(&negotiate::OBJECT_TYPES)),
    }
}

/// Deletes one object of the request's namespace.
pub async fn delete_one(op: &Op<'_>, name: &str, options: &DeleteOptions) -> Result<Deleted, Status> {
    let attributes = op.admission(Operation::Delete, name, "", options.dry_run);
    let mut turn = None;
    for attempt in 0..MAX_ATTEMPTS {
        if turn.is_none() {
            turn = op.core.turns.before(attempt, || op.key(name)).await;
        }
        let Some(old) = op.load(name, attempt > 0).await? else {
            return Err(Status::not_found(&op.gr(), name));
        };
        op.core.admission.validate(None, Some(&old.doc), &attributes)?;
        preconditions(op, name, options, &old.doc)?;
        match plan(op, options, &old.doc) {
            Plan::Wait => {
                return Ok(Deleted { doc: old.doc, json: old.json, revision: old.revision, gone: false });
            }
            Plan::Mark(doc) => {
                if let Some(deleted) = mark(op, name, options, &old, doc).await? {
                    return Ok(deleted);
                }
            }
            Plan::Remove(doc) => {
                if let Some(deleted) = remove(op, name, options, &old, doc).await? {
                    return Ok(deleted);
                }
            }
        }
    }
    Err(Status::modified(&op.gr(), name))
}

fn preconditions(op: &Op<'_>, name: &str, options: &DeleteOptions, old: &Doc) -> Result<(), Status> {
    same_object(&op.gk(), name, options.uid.as_deref(), options.resource_version.as_deref(), old)
}

/// Refuses an object that is not the one (or not as it was) which the request names.
pub fn same_object(
    kind: &GroupResource,
    name: &str,
    uid: Option<&str>,
    version: Option<&str>,
    old: &Doc,
) -> Result<(), Status> {
    let meta = old.meta();
    if let Some(uid) = uid.filter(|uid| *uid != meta.uid()) {
        let text = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            meta.uid()
        );
        return Err(Status::conflict(kind, name, text));
    }
    if let Some(version) = version.filter(|version| *version != meta.resource_version()) {
        let text = format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). The object might have been modified",
            meta.resource_version()
        );
        return Err(Status::conflict(kind, name, text));
    }
    Ok(())
}

/// What a deletion does to an object.
enum Plan {
    /// It is being deleted already, nothing changes.
    Wait,
    /// It is marked and waits for grace or finalizers.
    Mark(Box<Doc>),
    /// It goes now; the document is its last state.
    Remove(Box<Doc>),
}

/// Decides as upstream's BeforeDelete and updateForGracefulDeletionAndFinalizers do.
fn plan(op: &Op<'_>, options: &DeleteOptions, old: &Doc) -> Plan {
    let mut doc = Box::new(old.clone());
    if doc.ty() == Some(t::core_v1::NAMESPACE) {
        return plan_namespace(op, doc, options);
    }
    // A definition waits for the end of its objects.
    if crate::crd::mark(&mut doc, op.now) {
        return Plan::Mark(doc);
    }
    let grace = match graceful(op, options, &mut doc) {
        Grace::Pending => return Plan::Wait,
        Grace::No => None,
        Grace::Seconds(seconds) => Some(seconds),
    };
    set_propagation(op, options, &mut doc);
    let waits_for_finalizers = doc.meta().finalizers().next().is_some();
    match grace {
        Some(0) if !waits_for_finalizers => Plan::Remove(doc),
        Some(_) => Plan::Mark(doc),
        None if waits_for_finalizers => {
            mark_now(op, &mut doc);
            Plan::Mark(doc)
        }
        None => Plan::Remove(doc),
    }
}

/// Sets deletionTimestamp to now and the grace period to nothing.
fn mark_now(op: &Op<'_>, doc: &mut Doc) {
    let now = types::time_text(op.now);
    let meta = doc.meta();
    let generation = meta.generation();
    let first = !meta.is_being_deleted();
    let later = meta.deletion_timestamp().is_some_and(|at| at > now.as_str());
    let mut meta = doc.meta_mut();
    if first && generation > 0 {
        meta.set_generation(generation + 1);
    }
    if first || later {
        meta.set_deletion_timestamp(Some(&now));
    }
    meta.set_deletion_grace_period_seconds(Some(0));
}

enum Grace {
    /// The type (or this object) is deleted at once.
    No,
    /// Deletion goes on already and this request does not shorten it.
    Pending,
    Seconds(i64),
}

fn graceful(op: &Op<'_>, options: &DeleteOptions, doc: &mut Doc) -> Grace {
    let meta = doc.meta();
    let Some(started) = meta.deletion_timestamp().map(str::to_owned) else {
        let Some(seconds) = (op.strategy.grace)(doc, options.grace_period_seconds) else { return Grace::No };
        let at = types::time_text(
            op.now.saturating_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(op.now),
        );
        let generation = meta.generation();
        let mut meta = doc.meta_mut();
        meta.set_deletion_timestamp(Some(&at));
        meta.set_deletion_grace_period_seconds(Some(seconds));
        if generation > 0 {
            meta.set_generation(generation + 1);
        }
        return Grace::Seconds(seconds);
    };
    // Types without grace are only marked for their finalizers.
    let current = match meta.deletion_grace_period_seconds() {
        None | Some(0) => return Grace::No,
        Some(seconds) => seconds.max(1),
    };
    let Some(mut period) = options.grace_period_seconds else { return Grace::Pending };
    if period >= current {
        return Grace::Pending;
    }
    let end: jiff::Timestamp = started.parse().unwrap_or(op.now);
    let mut end = end.saturating_add(jiff::SignedDuration::from_secs(period - current)).unwrap_or(op.now);
    if end < op.now {
        end = op.now;
        if period != 0 {
            period = 1;
        }
    }
    let mut meta = doc.meta_mut();
    meta.set_deletion_timestamp(Some(&types::time_text(end)));
    meta.set_deletion_grace_period_seconds(Some(period));
    Grace::Seconds(period)
}

/// Sets or removes the garbage collector's finalizers as the request or the type says.
fn set_propagation(op: &Op<'_>, options: &DeleteOptions, doc: &mut Doc) {
    if op.row.plural == "events" {
        return;
    }
    let has = |name: &str| doc.meta().finalizers().any(|finalizer| finalizer == name);
    let wanted = match (options.orphan_dependents, options.propagation) {
        (Some(true), _) | (None, Some(Propagation::Orphan)) => Some(ORPHAN),
        (Some(false), _) | (None, Some(Propagation::Background)) => None,
        (None, Some(Propagation::Foreground)) => Some(FOREGROUND),
        (None, None) if has(ORPHAN) => Some(ORPHAN),
        (None, None) if has(FOREGROUND) => Some(FOREGROUND),
        (None, None) if op.strategy.default_orphan => Some(ORPHAN),
        (None, None) => None,
    };
    let mut finalizers: Vec<String> = doc
        .meta()
        .finalizers()
        .filter(|name| *name != ORPHAN && *name != FOREGROUND)
        .map(str::to_owned)
        .collect();
    finalizers.extend(wanted.map(str::to_owned));
    if !doc.meta().finalizers().eq(finalizers.iter().map(String::as_str)) {
        doc.meta_mut().set_finalizers(finalizers.iter().map(String::as_str));
    }
}

/// A namespace is marked first and goes when its content and its finalizers are gone.
fn plan_namespace(op: &Op<'_>, mut doc: Box<Doc>, options: &DeleteOptions) -> Plan {
    if !doc.meta().is_being_deleted() {
        doc.meta_mut().set_deletion_timestamp(Some(&types::time_text(op.now)));
        doc.set(&[f::namespace::STATUS, f::namespace_status::PHASE], "Terminating");
        set_propagation(op, options, &mut doc);
        return Plan::Mark(doc);
    }
    if namespace_pending(&doc) || doc.meta().finalizers().next().is_some() {
        Plan::Wait
    } else {
        Plan::Remove(doc)
    }
}

/// Whether an object is a namespace that still has `spec.finalizers`.
pub fn namespace_pending(doc: &Doc) -> bool {
    doc.ty() == Some(t::core_v1::NAMESPACE)
        && !doc.list(&[f::namespace::SPEC, f::namespace_spec::FINALIZERS]).is_empty()
}

async fn mark(
    op: &Op<'_>,
    name: &str,
    options: &DeleteOptions,
    old: &Loaded,
    doc: Box<Doc>,
) -> Result<Option<Deleted>, Status> {
    let json = Op::encode_stored(&doc);
    if options.dry_run || json == old.json {
        return Ok(Some(Deleted { doc: *doc, json, revision: old.revision, gone: false }));
    }
    let key = op.key(name);
    let transaction = Transaction {
        guards: vec![(key.clone(), Expect::Revision(old.revision))],
        writes: vec![upkeep::put(&op.row, key, json.clone())],
    };
    match op.commit(transaction).await {
        Ok(revision) => Ok(Some(Deleted { doc: *doc, json, revision, gone: false })),
        Err(WriteError::Conflict { .. }) => Ok(None),
        Err(WriteError::Failed(status)) => Err(status),
    }
}

async fn remove(
    op: &Op<'_>,
    name: &str,
    options: &DeleteOptions,
    old: &Loaded,
    doc: Box<Doc>,
) -> Result<Option<Deleted>, Status> {
    let json = Op::encode_stored(&doc);
    if options.dry_run {
        return Ok(Some(Deleted { doc: *doc, json, revision: old.revision, gone: true }));
    }
    let key = op.key(name);
    let transaction = Transaction {
        guards: vec![(key.clone(), Expect::Revision(old.revision))],
        writes: vec![Write::Delete { key }],
    };
    match op.commit(transaction).await {
        Ok(revision) => {
            if services::is_service(&op.row) {
                services::free(op.core, &doc).await;
            }
            Ok(Some(Deleted { doc: *doc, json, revision, gone: true }))
        }
        Err(WriteError::Conflict { .. }) => Ok(None),
        Err(WriteError::Failed(status)) => Err(status),
    }
}
