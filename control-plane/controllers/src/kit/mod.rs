//! What every controller is made of: worker loops, expectations, claims, merge patches, hashes, pods from templates.

pub mod claims;
pub mod conditions;
pub mod expectations;
pub mod hash;
pub mod history;
pub mod owned;
pub mod patch;
pub mod pods;
pub mod start;
pub mod worker;

use k8s_openapi::api::core::v1::ObjectReference;
use keelson_client::projections::Meta;

/// Why a key could not be brought to its desired state; it is tried again later.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error("{what}")]
    Api { what: &'static str, source: Box<kube::Error> },
    #[error("cannot read the cached object")]
    Unpack(#[from] serde_json::Error),
    /// What was read is older than what is needed; the informer will catch up.
    #[error("the cache is behind: {0}")]
    Stale(&'static str),
    #[error("{failed} of {total} writes failed")]
    Writes { failed: usize, total: usize, source: Box<kube::Error> },
    #[error("{0}")]
    Invalid(String),
}

impl ReconcileError {
    /// Names what was tried when the API server refused.
    pub fn api(what: &'static str) -> impl FnOnce(kube::Error) -> Self {
        move |source| ReconcileError::Api { what, source: Box::new(source) }
    }

    /// Lost races are not worth a log line above debug.
    pub fn is_race(&self) -> bool {
        match self {
            ReconcileError::Api { source, .. } | ReconcileError::Writes { source, .. } => {
                is_conflict(source) || is_not_found(source)
            }
            ReconcileError::Stale(_) => true,
            _ => false,
        }
    }
}

/// The object is not there.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Somebody else wrote first, or the uid is another.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason != "AlreadyExists")
}

/// An object of that name is there.
pub fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists")
}

/// The namespace is going away or gone: nothing can be created in it.
pub fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let details = status.details.as_ref();
    details.is_some_and(|d| d.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
        || details.is_some_and(|d| status.code == 404 && d.kind == "namespaces")
        || (status.code == 403 && status.message.contains("because it is being terminated"))
}

/// The server's own words, or the error's.
pub fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Whether a deletion of something that is gone already counts as done.
pub fn gone_is_fine<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The reference events carry.
pub fn reference(api_version: &str, kind: &str, meta: &Meta) -> ObjectReference {
    ObjectReference {
        api_version: Some(api_version.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: Some(meta.namespace.to_string()).filter(|n| !n.is_empty()),
        name: Some(meta.name.to_string()),
        uid: Some(meta.uid.to_string()),
        resource_version: Some(meta.resource_version.to_string()),
        ..ObjectReference::default()
    }
}
