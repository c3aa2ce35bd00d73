//! POST: a new object.

use http::{Response, StatusCode};
use keelson_api::doc::Doc;
use keelson_api::status::{Reason, Status};
use keelson_api::types;
use keelson_store::{Expect, Transaction};
use rand::Rng as _;

use super::{MAX_ATTEMPTS, Op, WriteError, Written, apply, read_body};
use crate::admission::Operation;
use crate::body::{Body, RequestBody};
use crate::options::WriteOptions;
use crate::{services, upkeep};

/// How often, and how long apart, a pod's admission looks for its namespace's default service account.
const DEFAULT_ACCOUNT_LOOKS: usize = 20;
const DEFAULT_ACCOUNT_LOOK: std::time::Duration = std::time::Duration::from_millis(50);
/// How many generated names are tried before the client is told to try again.
const NAME_ATTEMPTS: usize = 8;
/// A generated name is cut so that its random end fits (upstream: names.maxGeneratedNameLength).
const MAX_GENERATED_BASE: usize = 58;

/// Serves a POST on the collection.
pub async fn post(op: &Op<'_>, body: RequestBody) -> Result<Response<Body>, Status> {
    let output = op.output()?;
    let options = WriteOptions::parse(op.call.query, op.call.headers, "CreateOptions", false)?;
    let body = read_body(body).await?;
    let mut doc = op.decode_body(&body, options.validation)?;
    drop_duplicate_owners(op, &mut doc, "");
    let written = create(op, doc, &options, false).await?;
    op.answer(StatusCode::CREATED, &written.json, written.revision, output).await
}

/// Makes an object (of the request's version). `applied`: its managers are set already.
pub async fn create(
    op: &Op<'_>,
    mut doc: Doc,
    options: &WriteOptions,
    applied: bool,
) -> Result<Written, Status> {
    place(op, &mut doc)?;
    let meta = doc.meta();
    if !meta.resource_version().is_empty() && meta.resource_version() != "0" {
        return Err(Status::other(
            500,
            Reason::Unknown,
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let base = meta.generate_name().to_owned();
    let generated = meta.name().is_empty() && !base.is_empty();
    let attempts = if generated { NAME_ATTEMPTS } else { 1 };
    // What is made once is not copied for another time: only names and a Service's claims are tried again.
    let once = !generated && !services::is_service(&op.row);
    let mut attempt = 0;
    let mut again = 0;
    while attempt < attempts {
        attempt += 1;
        let last = once || (attempt == attempts && again == MAX_ATTEMPTS);
        let mut doc =
            if last { std::mem::replace(&mut doc, Doc::new_custom(Default::default())) } else { doc.clone() };
        if generated {
            doc.meta_mut().set_name(&generate_name(&base));
        }
        match try_create(op, doc, options, applied).await {
            Err(Failure::Exists(name)) if !generated => return Err(Status::already_exists(&op.gr(), &name)),
            Err(Failure::Exists(name)) if attempt == attempts => {
                return Err(Status::generate_name_conflict(&op.gr(), &name, 1));
            }
            Err(Failure::Exists(_)) => {}
            Err(Failure::Again) if once || again == MAX_ATTEMPTS => {
                return Err(Status::server_timeout(&op.gr(), "create", 1));
            }
            Err(Failure::Again) => {
                again += 1;
                attempt -= 1;
            }
            Err(Failure::Status(status)) => return Err(status),
            Ok(written) => return Ok(written),
        }
    }
    Err(Status::internal("no name could be generated"))
}

enum Failure {
    Exists(String),
    /// A record beside the object moved on; what was claimed of it is claimed anew.
    Again,
    Status(Status),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        Failure::Status(status)
    }
}

/// When owners that stand twice were seen, in the warning of them.
pub(super) const AFTER_ADMISSION: &str = " after mutating admission happens";

/// Drops owners that stand twice, and warns (upstream: `dedupOwnerReferencesAndAddWarning`).
pub(super) fn drop_duplicate_owners(op: &Op<'_>, doc: &mut Doc, when: &str) {
    let dropped = types::meta::drop_duplicate_owners(doc);
    if !dropped.is_empty() {
        op.call.warnings.add(format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            dropped.join(", ")
        ));
    }
}

/// The object's namespace is the request's.
pub(super) fn place(op: &Op<'_>, doc: &mut Doc) -> Result<(), Status> {
    let namespace = op.namespace();
    let given = doc.meta().namespace();
    if given.is_empty() || given == namespace {
        doc.meta_mut().set_namespace(namespace);
        return Ok(());
    }
    if !op.row.namespaced {
        // Upstream drops it from cluster-scoped objects that come with one.
        doc.meta_mut().set_namespace("");
        return Ok(());
    }
    Err(Status::bad_request(
        "the namespace of the provided object does not match the namespace sent on the request",
    ))
}

async fn try_create(
    op: &Op<'_>,
    mut doc: Doc,
    options: &WriteOptions,
    applied: bool,
) -> Result<Written, Failure> {
    let ctx = op.rule_context("");
    op.apply_defaults(&mut doc);
    if !applied {
        op.manage_new(&mut doc, options);
    }
    let mut doc = op.to_hub(doc)?;
    // Before the type prepares it: a Job's selector is made from its uid.
    let mut meta = doc.meta_mut();
    meta.set_uid(&uuid::Uuid::new_v4().to_string());
    meta.set_creation_timestamp(Some(&types::time_text(op.now)));
    let attributes = op.admission(Operation::Create, "", "", options.dry_run);
    await_default_account(op, &doc, &attributes).await;
    let managers = doc.meta().managed_fields().to_vec();
    op.core.admission.mutate(&mut doc, None, &attributes)?;
    apply::check_admitted(op, managers, &mut doc);
    drop_duplicate_owners(op, &mut doc, AFTER_ADMISSION);
    op.apply_defaults(&mut doc);
    // Of the object as admission leaves it: a pod's class of service comes from what the namespace's limits gave it.
    op.strategy.before_create(&mut doc, &ctx);
    let mut claim = services::Claim::default();
    if services::is_service(&op.row) {
        claim = services::claim(op.core, &mut doc, None, options.dry_run).await?;
    }
    let outcome = check_and_store(op, &doc, options, &attributes, &claim).await;
    if outcome.is_err() {
        claim.release(op.core).await;
    }
    outcome
}

/// A pod that comes right after its namespace waits a moment for the namespace's default service account.
async fn await_default_account(
    op: &Op<'_>,
    doc: &Doc,
    attributes: &crate::admission::AdmissionAttributes<'_>,
) {
    for _ in 0..DEFAULT_ACCOUNT_LOOKS {
        if op.core.admission.awaits_default_account(doc, attributes).is_none() {
            return;
        }
        tokio::time::sleep(DEFAULT_ACCOUNT_LOOK).await;
    }
}

async fn check_and_store(
    op: &Op<'_>,
    doc: &Doc,
    options: &WriteOptions,
    attributes: &crate::admission::AdmissionAttributes<'_>,
    claim: &services::Claim,
) -> Result<Written, Failure> {
    let ctx = op.rule_context("");
    let name = doc.meta().name().to_owned();
    let errors = op.strategy.check_create(doc, &ctx);
    if !errors.is_empty() {
        return Err(Failure::Status(Status::invalid(&op.gk(), &name, &errors)));
    }
    op.core.admission.validate(Some(doc), None, attributes)?;
    op.check_escalation("", doc, None)?;
    op.call.warnings.extend((op.strategy.warnings)(doc, None, &ctx));
    op.call.warnings.extend(op.core.admission.warnings(doc, None, attributes));
    if op.row.acted_on_by.is_none() {
        op.call.warnings.add(format!("{} are stored, but nothing in this cluster acts on them yet", op.gr()));
    }
    let key = op.key(&name);
    if options.dry_run {
        let json = op.stored_form(doc);
        let (object, _) = op.core.store.get(&key).await.map_err(super::store_status)?;
        return if object.is_some() {
            Err(Failure::Exists(name))
        } else {
            Ok(Written { json, revision: 0, created: true })
        };
    }
    match put_new(op, &key, doc, claim).await {
        Err(WriteError::Failed(status)) if status.code == 413 => match apply::without_managers(doc) {
            Some(doc) => put_new(op, &key, &doc, claim).await,
            None => Err(WriteError::Failed(status)),
        },
        done => done,
    }
    .map_err(|error| match error {
        WriteError::Conflict { guard: 0, .. } => Failure::Exists(name),
        WriteError::Conflict { .. } => Failure::Again,
        WriteError::Failed(status) => Failure::Status(status),
    })
}

async fn put_new(op: &Op<'_>, key: &str, doc: &Doc, claim: &services::Claim) -> Result<Written, WriteError> {
    let json = op.stored_form(doc);
    let mut transaction = Transaction {
        guards: vec![(key.to_owned(), Expect::Absent)],
        writes: vec![upkeep::put(&op.row, key.to_owned(), json.clone())],
    };
    claim.join(&mut transaction);
    let revision = op.commit(transaction).await?;
    Ok(Written { json, revision, created: true })
}

/// A base and five random characters, as upstream's name generator makes them.
fn generate_name(base: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut cut = base.len().min(MAX_GENERATED_BASE);
    while !base.is_char_boundary(cut) {
        cut -= 1;
    }
    let mut name = base[..cut].to_owned();
    let mut random = rand::rng();
    name.extend((0..5).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit() {
        let name = generate_name(&"x".repeat(70));
        assert_eq!(name.len(), 63);
        assert_ne!(generate_name("web-"), generate_name("web-"));
        assert!(generate_name("web-").starts_with("web-"));
    }
}
