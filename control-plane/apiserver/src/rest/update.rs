//! PUT and PATCH, of the main resource and of subresources: read, change, check, write if nothing changed meanwhile.

use http::{Response, StatusCode};
use keelson_api::doc::Doc;
use keelson_api::field_errors::{ErrorList, FieldPath, quoted};
use keelson_api::json::{self, EncodeOptions, FieldValidation};
use keelson_api::patch::{self, PatchError};
use keelson_api::status::{GroupResource, Reason, Status};
use keelson_store::{Expect, Transaction, Write};

use super::apply::Configuration;
use super::create::{AFTER_ADMISSION, drop_duplicate_owners};
use super::{Loaded, MAX_ATTEMPTS, Op, WriteError, Written, apply, read_body};
use crate::admission::Operation;
use crate::body::{Body, RequestBody};
use crate::keys;
use crate::negotiate;
use crate::options::WriteOptions;
use crate::{request_info, services, upkeep};

/// Makes the new object (in the request's version) from the old one (in the request's version).
pub type Make<'m> = dyn Fn(&Doc) -> Result<Doc, Status> + Send + Sync + 'm;

/// How a write comes by the new object's managed fields.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// What changed is the request's manager's.
    Changes,
    /// The new object carries them.
    Carried,
}

/// What is made where nothing stands.
pub type Missing<'m> = dyn Fn() -> Result<Doc, Status> + Send + Sync + 'm;

/// How an update treats the object, beyond the type's own strategy.
#[derive(Clone, Copy)]
pub struct Manner<'m> {
    /// `""`, `status` or another subresource.
    pub subresource: &'m str,
    /// Whose fields the new object's are.
    pub ownership: Ownership,
}

/// Serves a PUT.
pub async fn put(op: &Op<'_>, subresource: &str, body: RequestBody) -> Result<Response<Body>, Status> {
    let output = op.output()?;
    let options = WriteOptions::parse(op.call.query, op.call.headers, "UpdateOptions", false)?;
    let body = read_body(body).await?;
    let mut doc = op.decode_body(&body, options.validation)?;
    super::create::place(op, &mut doc)?;
    check_name(op, &doc)?;
    drop_duplicate_owners(op, &mut doc, "");
    let name = op.info().name.clone();
    let manner = Manner { subresource, ownership: Ownership::Changes };
    let make = |_: &Doc| Ok(doc.clone());
    let missing = || Ok(doc.clone());
    let creates = subresource.is_empty() && op.strategy.allow_create_on_update;
    let missing = creates.then_some(&missing as &Missing<'_>);
    let written = update(op, &name, manner, &options, &make, missing).await?;
    let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    op.answer(code, &written.json, written.revision, output).await
}

/// Serves a PATCH.
pub async fn patch(op: &Op<'_>, subresource: &str, body: RequestBody) -> Result<Response<Body>, Status> {
    let output = op.output()?;
    let kind = PatchKind::of(op)?;
    let options =
        WriteOptions::parse(op.call.query, op.call.headers, "PatchOptions", kind == PatchKind::Apply)?;
    let body = read_body(body).await?;
    let name = op.info().name.clone();
    if kind == PatchKind::Apply {
        let configuration = Configuration::read(&body, options.validation)?;
        op.call.warnings.extend(configuration.warning());
        let applied = |live: Option<&Doc>| {
            let mut new = configuration.apply(op, live, subresource, &options)?;
            super::create::place(op, &mut new)?;
            check_name(op, &new)?;
            Ok(new)
        };
        let make = |old: &Doc| applied(Some(old));
        let missing = || applied(None);
        let missing = subresource.is_empty().then_some(&missing as &Missing<'_>);
        let manner = Manner { subresource, ownership: Ownership::Carried };
        let written = update(op, &name, manner, &options, &make, missing).await?;
        let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
        return op.answer(code, &written.json, written.revision, output).await;
    }
    let manner = Manner { subresource, ownership: Ownership::Changes };
    let warned = parking_lot::Mutex::new(false);
    let make = |old: &Doc| {
        let (mut new, warnings) = kind.apply(op, old, &body, options.validation)?;
        if new.ty().is_none() && new.gvk.kind != old.gvk.kind {
            return Err(super::decode::wrong_kind(&new, &old.gvk.kind));
        }
        super::create::place(op, &mut new)?;
        if !std::mem::replace(&mut *warned.lock(), true) {
            op.call.warnings.extend(warnings);
        }
        check_name(op, &new)?;
        Ok(new)
    };
    let written = update(op, &name, manner, &options, &make, None).await?;
    op.answer(StatusCode::OK, &written.json, written.revision, output).await
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchKind {
    /// From the content type.
    pub fn of(op: &Op<'_>) -> Result<PatchKind, Status> {
        match negotiate::content_type(op.call.headers) {
            "application/json-patch+json" => Ok(PatchKind::Json),
            "application/merge-patch+json" => Ok(PatchKind::Merge),
            "application/strategic-merge-patch+json" if op.row.ty.is_some() => Ok(PatchKind::Strategic),
            "application/apply-patch+yaml" => Ok(PatchKind::Apply),
            // As upstream's routes answer, which know what a patch may be before its handler does.
            _ if op.row.ty.is_some() => {
                Err(Status::other(415, Reason::UnsupportedMediaType, "415: Unsupported Media Type"))
            }
            _ => Err(Status::unsupported_media_type(&[
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/apply-patch+yaml",
            ])),
        }
    }

    pub fn apply(
        self,
        op: &Op<'_>,
        old: &Doc,
        body: &[u8],
        validation: FieldValidation,
    ) -> Result<patch::Patched, Status> {
        // What a custom resource's schema does not know is told with what the decoder found.
        let custom = op.row.custom.is_some() && old.ty().is_none();
        let own = if custom { super::custom::decoder_validation(validation) } else { validation };
        let patched = match self {
            PatchKind::Json => patch::json_patch(old, body, own),
            PatchKind::Merge => patch::merge_patch(old, body, own),
            PatchKind::Strategic => patch::strategic_merge(old, body, own),
            PatchKind::Apply => return Err(Status::internal("an apply is no change of a whole object")),
        };
        let admit = |patched: patch::Patched| {
            if !custom {
                return Ok(patched);
            }
            // What is refused is quoted as it was before anything unknown went.
            let mut shown = Vec::new();
            if validation == FieldValidation::Strict {
                json::encode_canonical(&patched.0, EncodeOptions::FULL, &mut shown);
            }
            op.admit(patched, validation).map_err(|error| PatchError::Decode {
                error,
                shown: String::from_utf8_lossy(&shown).into_owned(),
            })
        };
        let read = |patched: patch::Patched| match (op.strategy.unreadable)(&patched.0) {
            None => Ok(patched),
            Some(text) if self == PatchKind::Strategic => Err(PatchError::Failed(text)),
            Some(text) => {
                let mut shown = Vec::new();
                json::encode_canonical(&patched.0, EncodeOptions::FULL, &mut shown);
                let shown = String::from_utf8_lossy(&shown).into_owned();
                Err(PatchError::Decode { error: json::DecodeError::Type(text), shown })
            }
        };
        patched.and_then(admit).and_then(read).map_err(|error| match error {
            PatchError::BadRequest(text) => Status::bad_request(text),
            PatchError::TooLarge(text) => Status::request_entity_too_large(text),
            PatchError::Unsupported(text) => {
                Status::other(415, keelson_api::status::Reason::UnsupportedMediaType, text)
            }
            PatchError::Unprocessable(_) => Status::unprocessable(),
            PatchError::Failed(text) => Status::other(500, Reason::Unknown, text),
            PatchError::Decode { error, shown } => {
                let mut errors = ErrorList::new();
                errors.invalid(&FieldPath::new("patch"), shown, error.to_string());
                Status::invalid(&GroupResource::new("", ""), "", &errors)
            }
        })
    }
}

/// The body's name must be the path's.
pub(super) fn check_name(op: &Op<'_>, doc: &Doc) -> Result<(), Status> {
    let info = op.info();
    let meta = doc.meta();
    if meta.name().is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            info.name
        )));
    }
    if meta.name() != info.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            meta.name(),
            info.name
        )));
    }
    Ok(())
}

/// Reads, changes and writes an object until no other write came between. `missing` is made where nothing stands.
pub async fn update(
    op: &Op<'_>,
    name: &str,
    manner: Manner<'_>,
    options: &WriteOptions,
    make: &Make<'_>,
    missing: Option<&Missing<'_>>,
) -> Result<Written, Status> {
    let mut turn = None;
    for attempt in 0..MAX_ATTEMPTS {
        if turn.is_none() {
            turn = op.core.turns.before(attempt, || op.key(name)).await;
        }
        let Some(old) = op.load(name, attempt > 0).await? else {
            let Some(missing) = missing else { return Err(Status::not_found(&op.gr(), name)) };
            if !request_info::is_path_segment(name) {
                return Err(Status::bad_request("the object's name cannot stand in a path"));
            }
            // Who may change what is there may not therefore make what is not.
            op.core.access.authorize(&crate::access::attributes(&op.call.user, "create", op.info()))?;
            let applied = manner.ownership == Ownership::Carried;
            let mut new = missing()?;
            match new.meta().uid() {
                "" => {}
                _ if applied => {}
                uid => return Err(lost_uid(op, name, uid, "", options.dry_run)),
            }
            // Whatever revision the object had once, this is another.
            new.meta_mut().set_resource_version("");
            match super::create::create(op, new, options, applied).await {
                Err(status) if status.reason == keelson_api::status::Reason::AlreadyExists => continue,
                done => return done,
            }
        };
        if let Some(written) = try_update(op, name, manner, options, make, old).await? {
            return Ok(written);
        }
    }
    Err(Status::modified(&op.gr(), name))
}

/// How an attempt to store ended.
enum Outcome {
    Written(Written),
    /// Another write of the object came between.
    Lost,
    /// A record beside the object moved on.
    Again,
}

/// One attempt; `None` when another write came between.
async fn try_update(
    op: &Op<'_>,
    name: &str,
    manner: Manner<'_>,
    options: &WriteOptions,
    make: &Make<'_>,
    old: Loaded,
) -> Result<Option<Written>, Status> {
    let ctx = op.rule_context(manner.subresource);
    let requested = op.to_requested(old.doc.clone())?;
    let new = make(&requested)?;
    let pinned = preconditions(op, name, &new, &old.doc, options.dry_run)?;
    let mut new = op.to_hub(new)?;
    op.apply_defaults(&mut new);
    if manner.ownership == Ownership::Changes {
        new = op.manage_changed(&requested, new, manner.subresource, options)?;
    }
    new.meta_mut().set_namespace(op.namespace());
    // The revision was a precondition; an update without one is of what stands there. (None is stored.)
    new.meta_mut().set_resource_version(old.doc.meta().resource_version());
    let attributes = op.admission(Operation::Update, name, manner.subresource, options.dry_run);
    let managers = new.meta().managed_fields().to_vec();
    op.core.admission.mutate(&mut new, Some(&old.doc), &attributes)?;
    apply::check_admitted(op, managers, &mut new);
    drop_duplicate_owners(op, &mut new, AFTER_ADMISSION);
    op.apply_defaults(&mut new);
    // What admission changed counts for the generation, and what it put back does not.
    op.strategy.before_update(&mut new, &old.doc, &ctx);
    let mut claim = services::Claim::default();
    if services::is_service(&op.row) && manner.subresource.is_empty() {
        claim = services::claim(op.core, &mut new, Some(&old.doc), options.dry_run).await?;
    }
    apply::keep_times(op, &mut new, &old.doc, &old.json);
    let outcome = check_and_store(op, name, manner, options, &attributes, &old, &new, &claim).await;
    match outcome {
        Ok(Outcome::Written(written)) => {
            claim.settle(op.core).await;
            Ok(Some(written))
        }
        lost => {
            claim.release(op.core).await;
            match lost? {
                Outcome::Lost if pinned => Err(Status::modified(&op.gr(), name)),
                _ => Ok(None),
            }
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "the second half of one attempt")]
async fn check_and_store(
    op: &Op<'_>,
    name: &str,
    manner: Manner<'_>,
    options: &WriteOptions,
    attributes: &crate::admission::AdmissionAttributes<'_>,
    old: &Loaded,
    new: &Doc,
    claim: &services::Claim,
) -> Result<Outcome, Status> {
    let ctx = op.rule_context(manner.subresource);
    let errors = op.strategy.check_update(new, &old.doc, &ctx);
    if !errors.is_empty() {
        return Err(Status::invalid(&op.gk(), name, &errors));
    }
    op.core.admission.validate(Some(new), Some(&old.doc), attributes)?;
    op.check_escalation(name, new, Some(&old.doc))?;
    if manner.subresource != "status" {
        op.call.warnings.extend((op.strategy.warnings)(new, Some(&old.doc), &ctx));
    }
    op.call.warnings.extend(op.core.admission.warnings(new, Some(&old.doc), attributes));
    let json = op.stored_form(new);
    let gone = finished(new);
    if options.dry_run {
        return Ok(Outcome::Written(Written { json, revision: old.revision, created: false }));
    }
    if !gone && json == old.json && claim.is_empty() {
        return Ok(Outcome::Written(Written { json, revision: old.revision, created: false }));
    }
    let outcome = store_changed(op, name, old, new, json, claim).await;
    match outcome {
        // As upstream: what is too large with its managers is stored without, but for an apply.
        Err(status) if status.code == 413 && manner.ownership == Ownership::Changes => {
            let Some(bare) = apply::without_managers(new) else { return Err(status) };
            let json = op.stored_form(&bare);
            store_changed(op, name, old, &bare, json, claim).await
        }
        outcome => outcome,
    }
}

async fn store_changed(
    op: &Op<'_>,
    name: &str,
    old: &Loaded,
    new: &Doc,
    json: bytes::Bytes,
    claim: &services::Claim,
) -> Result<Outcome, Status> {
    let gone = finished(new);
    let key = op.key(name);
    let write = if gone {
        Write::Delete { key: key.clone() }
    } else {
        upkeep::put(&op.row, key.clone(), json.clone())
    };
    let mut transaction =
        Transaction { guards: vec![(key, Expect::Revision(old.revision))], writes: vec![write] };
    claim.join(&mut transaction);
    match op.commit(transaction).await {
        Ok(revision) => {
            if gone && services::is_service(&op.row) {
                services::free(op.core, new).await;
            }
            Ok(Outcome::Written(Written { json, revision, created: false }))
        }
        Err(WriteError::Conflict { guard: 0 }) => Ok(Outcome::Lost),
        Err(WriteError::Conflict { .. }) => Ok(Outcome::Again),
        Err(WriteError::Failed(status)) => Err(status),
    }
}

/// The new object's own claims on what it replaces; true when it names the revision. Another uid is a lost precondition of a
/// PUT; in a patch it is a field that must not change, which validation says.
fn preconditions(op: &Op<'_>, name: &str, new: &Doc, old: &Doc, dry_run: bool) -> Result<bool, Status> {
    let (new, old) = (new.meta(), old.meta());
    if op.info().verb == "update" && !new.uid().is_empty() && new.uid() != old.uid() {
        return Err(lost_uid(op, name, new.uid(), old.uid(), dry_run));
    }
    match new.resource_version() {
        "" | "0" if op.strategy.allow_unconditional_update => Ok(false),
        "" | "0" => {
            let mut errors = ErrorList::new();
            let meta = keelson_api::field_errors::FieldPath::new("metadata");
            errors.invalid(&meta.child("resourceVersion"), 0i64, "must be specified for an update");
            Err(Status::invalid(&op.gk(), name, &errors))
        }
        version if version == old.resource_version() => Ok(op.info().verb == "update"),
        // As upstream, whose server takes it for a mistake of its own.
        version if version.parse::<u64>().is_err() => {
            let digits = version.bytes().all(|byte| byte.is_ascii_digit());
            let why = if digits { "value out of range" } else { "invalid syntax" };
            let text = format!("strconv.ParseUint: parsing {}: {why}", quoted(version));
            Err(Status::other(500, Reason::Unknown, text))
        }
        _ => Err(Status::modified(&op.gr(), name)),
    }
}

/// The conflict of a write that means another object of the name; the text is upstream's store's, whose dry runs know the
/// key without its root.
fn lost_uid(op: &Op<'_>, name: &str, wanted: &str, found: &str, dry_run: bool) -> Status {
    let key = op.key(name);
    let key = match key.strip_prefix(keys::ROOT) {
        Some(rest) if dry_run => format!("/{rest}"),
        _ => key,
    };
    let text = format!(
        "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: \
         Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
    );
    Status::conflict(&op.gr(), name, text)
}

/// An object being deleted whose last finalizer went and whose grace is over goes with the same write.
fn finished(doc: &Doc) -> bool {
    let meta = doc.meta();
    meta.is_being_deleted()
        && meta.finalizers().next().is_none()
        && meta.deletion_grace_period_seconds().unwrap_or(0) == 0
        && !super::delete::namespace_pending(doc)
}
