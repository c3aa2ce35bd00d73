//! Reviews and token requests: questions to authentication and authorization that the API answers and keeps nothing of.

use http::{Response, StatusCode};
use k8s_openapi::api::authentication::v1 as authentication;
use k8s_openapi::api::authorization::v1 as authorization;
use keelson_api::doc::Doc;
use keelson_api::f::{authentication_v1 as nf, authorization_v1 as zf};
use keelson_api::field_errors::ErrorList;
use keelson_api::schema::Field;
use keelson_api::status::{Cause, Details, GroupResource, Reason, Status};
use keelson_api::table::Subresource;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Op, read_body};
use crate::authn::{self, TokenRequestError};
use crate::authz;
use crate::body::{Body, RequestBody};
use crate::options::WriteOptions;
use crate::reads::CachedReads;

/// Serves a POST of a review.
pub async fn create(op: &Op<'_>, body: RequestBody) -> Result<Response<Body>, Status> {
    let output = op.output()?;
    let options = WriteOptions::parse(op.call.query, op.call.headers, "CreateOptions", false)?;
    let body = read_body(body).await?;
    let mut doc = op.decode_body(&body, options.validation)?;
    match op.row.kind.as_str() {
        "TokenReview" => token_review(op, &mut doc)?,
        "SelfSubjectReview" => self_review(op, &mut doc)?,
        "SubjectAccessReview" => access_review(op, &mut doc, None)?,
        "LocalSubjectAccessReview" => access_review(op, &mut doc, Some(op.namespace()))?,
        "SelfSubjectAccessReview" => self_access_review(op, &mut doc)?,
        "SelfSubjectRulesReview" => rules_review(op, &mut doc)?,
        kind => return Err(Status::not_implemented(format!("{kind} is not served yet"))),
    }
    op.answer_doc(StatusCode::CREATED, &doc, output.encoding, output.pretty)
}

fn spec<T: DeserializeOwned + Default>(doc: &Doc, path: Field) -> Result<T, Status> {
    let spec = doc.part_to_typed(&[path]).map_err(|error| Status::bad_request(error.to_string()))?;
    Ok(spec.unwrap_or_default())
}

fn answer(doc: &mut Doc, path: Field, status: &impl Serialize) -> Result<(), Status> {
    doc.set_from_typed(&[path], status).map_err(Status::internal)
}

fn token_review(op: &Op<'_>, doc: &mut Doc) -> Result<(), Status> {
    let spec: authentication::TokenReviewSpec = spec(doc, nf::token_review::SPEC)?;
    let status = authn::review(&spec, &op.core.access.authenticator.tokens, op.now)
        .ok_or_else(|| Status::bad_request("token is required for TokenReview in authentication"))?;
    answer(doc, nf::token_review::STATUS, &status)
}

fn self_review(op: &Op<'_>, doc: &mut Doc) -> Result<(), Status> {
    let user = &op.call.user;
    let status = authentication::SelfSubjectReviewStatus {
        user_info: Some(authentication::UserInfo {
            username: Some(user.name.clone()),
            uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
        }),
    };
    doc.meta_mut().set_creation_timestamp(Some(&keelson_api::types::time_text(op.now)));
    answer(doc, nf::self_subject_review::STATUS, &status)
}

fn invalid(op: &Op<'_>, errors: &ErrorList) -> Status {
    Status::invalid(&op.gk(), "", errors)
}

/// Adds what is wrong with an access review's metadata, which has nothing to say but where a local one asks.
fn no_metadata<T>(doc: &Doc, found: Result<T, ErrorList>, local: bool) -> Result<T, ErrorList> {
    use keelson_api::f::meta_v1::object_meta as om;
    let Some(meta) = doc.meta().as_struct() else { return found };
    let mut rest = meta.clone();
    rest.remove(om::MANAGED_FIELDS);
    rest.remove(om::CREATION_TIMESTAMP);
    if local {
        rest.remove(om::NAMESPACE);
    }
    if rest.iter().next().is_none() {
        return found;
    }
    let mut errors = found.err().unwrap_or_default();
    let value = keelson_api::types::walk::json_text(Some(&meta.clone().into()));
    let text = if local { "must be empty except for namespace" } else { "must be empty" };
    errors.invalid(&keelson_api::field_errors::FieldPath::new("metadata"), value, text);
    Err(errors)
}

fn access_review(op: &Op<'_>, doc: &mut Doc, namespace: Option<&str>) -> Result<(), Status> {
    let (spec_at, status_at) = match namespace {
        None => (zf::subject_access_review::SPEC, zf::subject_access_review::STATUS),
        Some(_) => (zf::local_subject_access_review::SPEC, zf::local_subject_access_review::STATUS),
    };
    let spec: authorization::SubjectAccessReviewSpec = spec(doc, spec_at)?;
    let attributes = no_metadata(doc, authz::access_review_attributes(&spec, namespace), namespace.is_some())
        .map_err(|errors| invalid(op, &errors))?;
    answer(doc, status_at, &authz::review_status(op.core.access.authorizer.as_ref(), &attributes))
}

fn self_access_review(op: &Op<'_>, doc: &mut Doc) -> Result<(), Status> {
    let spec: authorization::SelfSubjectAccessReviewSpec = spec(doc, zf::self_subject_access_review::SPEC)?;
    let attributes = no_metadata(doc, authz::self_access_review_attributes(&spec, &op.call.user), false)
        .map_err(|errors| invalid(op, &errors))?;
    answer(
        doc,
        zf::self_subject_access_review::STATUS,
        &authz::review_status(op.core.access.authorizer.as_ref(), &attributes),
    )
}

fn rules_review(op: &Op<'_>, doc: &mut Doc) -> Result<(), Status> {
    let spec: authorization::SelfSubjectRulesReviewSpec = spec(doc, zf::self_subject_rules_review::SPEC)?;
    let namespace = spec.namespace.filter(|namespace| !namespace.is_empty());
    let namespace = namespace.ok_or_else(|| Status::bad_request("no namespace on request"))?;
    let status = authz::rules_review(&op.core.access.policy, &op.call.user, &namespace);
    answer(doc, zf::self_subject_rules_review::STATUS, &status)
}

/// POST serviceaccounts/<name>/token.
pub async fn token_request(
    op: &Op<'_>,
    subresource: &Subresource,
    body: RequestBody,
) -> Result<Response<Body>, Status> {
    let output = op.output()?;
    let options = WriteOptions::parse(op.call.query, op.call.headers, "CreateOptions", false)?;
    let body = read_body(body).await?;
    let mut doc = op.decode_sub(subresource, &body, &options)?;
    let request: authentication::TokenRequest =
        doc.to_typed().map_err(|error| Status::bad_request(error.to_string()))?;
    let name = op.info().name.clone();
    let attributes = op.admission(crate::admission::Operation::Create, &name, "token", options.dry_run);
    op.core.admission.validate(Some(&doc), None, &attributes)?;
    let reads = CachedReads { caches: op.core.caches.clone() };
    let jti = uuid::Uuid::new_v4().to_string();
    let issued = op
        .core
        .access
        .issuer
        .create_token(request, op.namespace(), &name, &reads, op.now, jti)
        .map_err(|error| explain(&name, error))?;
    let meta = &issued.metadata;
    let mut target = doc.meta_mut();
    target.set_name(meta.name.as_deref().unwrap_or_default());
    target.set_namespace(meta.namespace.as_deref().unwrap_or_default());
    target.set_creation_timestamp(Some(&keelson_api::types::time_text(op.now)));
    doc.set_from_typed(&[nf::token_request::SPEC], &issued.spec).map_err(Status::internal)?;
    doc.set_from_typed(&[nf::token_request::STATUS], &issued.status).map_err(Status::internal)?;
    op.answer_shaped(StatusCode::CREATED, &doc, output)
}

fn explain(name: &str, error: TokenRequestError) -> Status {
    match error {
        TokenRequestError::NotFound { resource, name } => {
            Status::not_found(&GroupResource::new("", resource), &name)
        }
        TokenRequestError::BadRequest { message } => Status::bad_request(message),
        TokenRequestError::Invalid { field, value, detail } => {
            let text = format!("Invalid value: {value}: {detail}");
            let mut status = Status::other(
                422,
                Reason::Invalid,
                format!("TokenRequest.authentication.k8s.io {name:?} is invalid: {field}: {text}"),
            );
            status.details = Some(Box::new(Details {
                name: name.to_owned(),
                group: "authentication.k8s.io".into(),
                kind: "TokenRequest".into(),
                causes: vec![Cause {
                    reason: "FieldValueInvalid".into(),
                    message: text,
                    field: field.to_owned(),
                }],
                ..Details::default()
            }));
            status
        }
        TokenRequestError::Conflict { kind, name, message } => {
            Status::conflict(&GroupResource::new("authentication.k8s.io", kind), &name, message)
        }
        error @ TokenRequestError::Sign(_) => Status::internal(error),
    }
}
