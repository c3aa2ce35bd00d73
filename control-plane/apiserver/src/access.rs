//! What the pipeline asks of authentication, authorization and admission.

use std::sync::Arc;

use futures::future::BoxFuture;
use http::HeaderMap;
use jiff::Timestamp;
use keelson_api::doc::Doc;
use keelson_api::status::Status;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: std::collections::BTreeMap<String, Vec<String>>,
}

/// What a request wants to do, for the authorizer.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    pub user: Arc<UserInfo>,
    pub verb: String,
    pub api_group: String,
    pub api_version: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub path: String,
    pub is_resource: bool,
    pub field_selector: String,
    pub label_selector: String,
}

/// The authorizer's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    Deny(String),
    NoOpinion(String),
}

/// What is being done to an object, for admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// What admission may know of a request.
#[derive(Clone, Debug)]
pub struct AdmissionAttributes {
    pub operation: Operation,
    pub user: Arc<UserInfo>,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub dry_run: bool,
}

/// Admission: first changes, then checks.
pub trait Admission: Send + Sync {
    fn mutate<'a>(
        &'a self,
        object: &'a mut Doc,
        old: Option<&'a Doc>,
        attributes: &'a AdmissionAttributes,
    ) -> BoxFuture<'a, Result<(), Status>>;

    /// `object` is `None` for deletions.
    fn validate<'a>(
        &'a self,
        object: Option<&'a Doc>,
        old: Option<&'a Doc>,
        attributes: &'a AdmissionAttributes,
    ) -> BoxFuture<'a, Result<(), Status>>;
}

/// Who asks, and may they.
pub trait Access: Send + Sync {
    /// What is kept of a connection.
    fn authenticate(
        &self,
        connection: &crate::server::ConnectionInfo,
        headers: &HeaderMap,
        path: &str,
        now: Timestamp,
    ) -> Result<Arc<UserInfo>, Status>;

    fn authorize(&self, attributes: &Attributes) -> Decision;

    /// What must be allowed for the headers' impersonation, and the user from then on; `None` without such headers.
    fn impersonation(&self, headers: &HeaderMap, user: &Arc<UserInfo>) -> Result<Option<Impersonated>, Status>;
}

/// The checks of an impersonation and the user it leads to.
pub type Impersonated = (Vec<Attributes>, Arc<UserInfo>);
