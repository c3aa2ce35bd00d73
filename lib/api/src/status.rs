//! `metav1.Status`: the body of every error answer, with upstream's reasons, codes, messages and details
//! (apimachinery `api/errors`). Clients match on reason, code and sometimes text, so they are exact.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::field_errors::{ErrorList, quoted};

/// Why a request failed, as clients switch on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StoreReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
    NotImplemented,
}

impl Reason {
    /// The text on the wire; empty for [`Reason::Unknown`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Unknown => "",
            Reason::Unauthorized => "Unauthorized",
            Reason::Forbidden => "Forbidden",
            Reason::NotFound => "NotFound",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Gone => "Gone",
            Reason::Invalid => "Invalid",
            Reason::ServerTimeout => "ServerTimeout",
            Reason::StoreReadError => "StorageReadError",
            Reason::Timeout => "Timeout",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::BadRequest => "BadRequest",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::NotAcceptable => "NotAcceptable",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::InternalError => "InternalError",
            Reason::Expired => "Expired",
            Reason::ServiceUnavailable => "ServiceUnavailable",
            Reason::NotImplemented => "NotImplemented",
        }
    }
}

/// A group and a resource (or kind), printed as `resource.group`, or `resource` in the legacy group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GroupResource {
    pub group: Cow<'static, str>,
    pub resource: Cow<'static, str>,
}

impl GroupResource {
    pub fn new(group: impl Into<Cow<'static, str>>, resource: impl Into<Cow<'static, str>>) -> GroupResource {
        GroupResource { group: group.into(), resource: resource.into() }
    }

    fn is_empty(&self) -> bool {
        self.group.is_empty() && self.resource.is_empty()
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

/// One cause inside [`Details`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cause {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: Cow<'static, str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What a failure was about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub group: Cow<'static, str>,
    /// The resource, or the kind for [`Status::invalid`].
    #[serde(skip_serializing_if = "str::is_empty")]
    pub kind: Cow<'static, str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: i32,
}

fn is_zero(value: &i32) -> bool {
    *value == 0
}

/// A status answer: a failure, or the success of a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// `Failure` or `Success`.
    pub success: bool,
    pub code: u16,
    pub reason: Reason,
    pub message: String,
    pub details: Option<Box<Details>>,
    /// `metadata.continue` (expired list tokens).
    pub continue_token: Option<String>,
}

fn failure(code: u16, reason: Reason, message: String, details: Option<Details>) -> Status {
    let details = details.map(Box::new);
    Status { success: false, code, reason, message, details, continue_token: None }
}

fn about(gr: &GroupResource, name: &str) -> Option<Details> {
    Some(Details {
        name: name.to_owned(),
        group: gr.group.clone(),
        kind: gr.resource.clone(),
        ..Details::default()
    })
}

impl Status {
    /// 200 `Success`, as deletions answer it.
    pub fn success(details: Option<Details>) -> Status {
        Status {
            success: true,
            code: 200,
            reason: Reason::Unknown,
            message: String::new(),
            details: details.map(Box::new),
            continue_token: None,
        }
    }

    pub fn not_found(gr: &GroupResource, name: &str) -> Status {
        let message = format!("{gr} {} not found", quoted(name));
        failure(404, Reason::NotFound, message, about(gr, name))
    }

    /// 404 for a path that is no resource at all.
    pub fn resource_not_found() -> Status {
        let details = Details::default();
        let message = "the server could not find the requested resource".to_owned();
        failure(404, Reason::NotFound, message, Some(details))
    }

    /// 405 for a path that has no such method.
    pub fn method_not_allowed() -> Status {
        let message = "the server does not allow this method on the requested resource".to_owned();
        failure(405, Reason::MethodNotAllowed, message, Some(Details::default()))
    }

    pub fn already_exists(gr: &GroupResource, name: &str) -> Status {
        let message = format!("{gr} {} already exists", quoted(name));
        failure(409, Reason::AlreadyExists, message, about(gr, name))
    }

    pub fn generate_name_conflict(gr: &GroupResource, name: &str, retry_after_seconds: i32) -> Status {
        let message = format!(
            "{gr} {} already exists, the server was not able to generate a unique name for the object",
            quoted(name)
        );
        failure(409, Reason::AlreadyExists, message, about(gr, name)).retry_after(retry_after_seconds)
    }

    pub fn unauthorized(reason: &str) -> Status {
        let message = if reason.is_empty() { "not authorized" } else { reason };
        failure(401, Reason::Unauthorized, message.to_owned(), None)
    }

    pub fn forbidden(gr: &GroupResource, name: &str, why: impl fmt::Display) -> Status {
        let message = if gr.is_empty() {
            format!("forbidden: {why}")
        } else if name.is_empty() {
            format!("{gr} is forbidden: {why}")
        } else {
            format!("{gr} {} is forbidden: {why}", quoted(name))
        };
        failure(403, Reason::Forbidden, message, about(gr, name))
    }

    pub fn conflict(gr: &GroupResource, name: &str, why: impl fmt::Display) -> Status {
        let message = format!("Operation cannot be fulfilled on {gr} {}: {why}", quoted(name));
        failure(409, Reason::Conflict, message, about(gr, name))
    }

    /// The conflict of an update against an old resourceVersion.
    pub fn modified(gr: &GroupResource, name: &str) -> Status {
        Status::conflict(
            gr,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// Conflicts of a server-side apply, one cause per field.
    pub fn apply_conflict(causes: Vec<Cause>, message: String) -> Status {
        failure(409, Reason::Conflict, message, Some(Details { causes, ..Details::default() }))
    }

    pub fn gone(message: impl Into<String>) -> Status {
        failure(410, Reason::Gone, message.into(), None)
    }

    /// 410 `Expired`: the resourceVersion or continue token is too old.
    pub fn expired(message: impl Into<String>) -> Status {
        failure(410, Reason::Expired, message.into(), None)
    }

    /// 422 with one cause per field error; `gk` is group and kind.
    pub fn invalid(gk: &GroupResource, name: &str, errors: &ErrorList) -> Status {
        let causes = errors
            .iter()
            .map(|error| Cause {
                reason: error.kind.reason().into(),
                message: error.body(),
                field: error.field.clone(),
            })
            .collect();
        let message = if errors.is_empty() {
            format!("{gk} {} is invalid", quoted(name))
        } else {
            format!("{gk} {} is invalid: {}", quoted(name), errors.aggregate())
        };
        let mut status = failure(422, Reason::Invalid, message, about(gk, name));
        if let Some(details) = &mut status.details {
            details.causes = causes;
        }
        status
    }

    /// 422 for a patch that cannot be applied to the object. Upstream makes it as a generic answer: which operation failed is
    /// not said.
    pub fn unprocessable() -> Status {
        let message = "the server rejected our request due to an error in our request".to_owned();
        failure(422, Reason::Invalid, message, Some(Details::default()))
    }

    pub fn bad_request(message: impl Into<String>) -> Status {
        failure(400, Reason::BadRequest, message.into(), None)
    }

    /// 429; an eviction that a budget refuses, or flow control with a reason.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Status {
        failure(429, Reason::TooManyRequests, message.into(), Some(Details::default()))
            .retry_after(retry_after_seconds)
    }

    pub fn service_unavailable(message: impl Into<String>) -> Status {
        failure(503, Reason::ServiceUnavailable, message.into(), None)
    }

    /// 405 for a resource that cannot do what its path could.
    pub fn method_not_supported(gr: &GroupResource, action: &str) -> Status {
        let message = format!("{action} is not supported on resources of kind {}", quoted(&gr.to_string()));
        failure(405, Reason::MethodNotAllowed, message, about(gr, ""))
    }

    pub fn server_timeout(gr: &GroupResource, operation: &str, retry_after_seconds: i32) -> Status {
        let message = format!(
            "The {operation} operation against {gr} could not be completed at this time, please try again."
        );
        failure(500, Reason::ServerTimeout, message, about(gr, operation)).retry_after(retry_after_seconds)
    }

    pub fn internal(why: impl fmt::Display) -> Status {
        let text = why.to_string();
        let message = format!("Internal error occurred: {text}");
        let causes = vec![Cause { message: text, ..Cause::default() }];
        failure(500, Reason::InternalError, message, Some(Details { causes, ..Details::default() }))
    }

    pub fn timeout(message: &str, retry_after_seconds: i32) -> Status {
        let message = format!("Timeout: {message}");
        failure(504, Reason::Timeout, message, Some(Details::default())).retry_after(retry_after_seconds)
    }

    /// A get or list asked for a revision that is still in the future.
    pub fn too_large_resource_version(requested: u64, current: u64) -> Status {
        let message = format!("Too large resource version: {requested}, current: {current}");
        let mut status = Status::timeout(&message, 1);
        if let Some(details) = &mut status.details {
            details.causes = vec![Cause {
                reason: "ResourceVersionTooLarge".into(),
                message: "Too large resource version".to_owned(),
                field: String::new(),
            }];
        }
        status
    }

    pub fn request_entity_too_large(message: impl fmt::Display) -> Status {
        let message = format!("Request entity too large: {message}");
        failure(413, Reason::RequestEntityTooLarge, message, None)
    }

    /// 415; `accepted` are the media types a body may have.
    pub fn unsupported_media_type(accepted: &[&str]) -> Status {
        let list = accepted.join(", ");
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {list}"
        );
        failure(415, Reason::UnsupportedMediaType, message, None)
    }

    /// 406; `accepted` are the media types an answer may have.
    pub fn not_acceptable(accepted: &[&str]) -> Status {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        failure(406, Reason::NotAcceptable, message, None)
    }

    /// 501 with a text that says what is not there yet.
    pub fn not_implemented(message: impl Into<String>) -> Status {
        failure(501, Reason::NotImplemented, message.into(), None)
    }

    /// A failure that fits no constructor, e.g. one relayed from elsewhere.
    pub fn other(code: u16, reason: Reason, message: impl Into<String>) -> Status {
        failure(code, reason, message.into(), None)
    }

    /// Adds `retryAfterSeconds` (also sent as the Retry-After header).
    #[must_use]
    pub fn retry_after(mut self, seconds: i32) -> Status {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// Adds a cause.
    #[must_use]
    pub fn with_cause(mut self, cause: Cause) -> Status {
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// The Retry-After header's value.
    pub fn retry_after_seconds(&self) -> Option<i32> {
        self.details.as_ref().map(|details| details.retry_after_seconds).filter(|seconds| *seconds > 0)
    }

    /// Whether this says that something is missing.
    /// Whether this is [`Status::resource_not_found`].
    pub fn is_no_route(&self) -> bool {
        self.code == 404 && self.details.as_deref().is_some_and(|details| *details == Details::default())
    }

    pub fn is_not_found(&self) -> bool {
        self.reason == Reason::NotFound
    }

    /// Whether this is an optimistic-lock conflict.
    pub fn is_conflict(&self) -> bool {
        self.reason == Reason::Conflict
    }

    /// The JSON body (`kind` and `apiVersion` included).
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Meta<'a> {
            #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
            continue_token: Option<&'a str>,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire<'a> {
            kind: &'static str,
            api_version: &'static str,
            metadata: Meta<'a>,
            status: &'static str,
            #[serde(skip_serializing_if = "str::is_empty")]
            message: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            reason: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            details: Option<&'a Details>,
            #[serde(skip_serializing_if = "is_success_code")]
            code: u16,
        }
        fn is_success_code(code: &u16) -> bool {
            *code == 0
        }
        let wire = Wire {
            kind: "Status",
            api_version: "v1",
            metadata: Meta { continue_token: self.continue_token.as_deref() },
            status: if self.success { "Success" } else { "Failure" },
            message: &self.message,
            reason: self.reason.as_str(),
            details: self.details.as_deref(),
            // The plain success says no code; one that made something does.
            code: if self.success && self.code == 200 { 0 } else { self.code },
        };
        // Only strings and numbers: serialising cannot fail.
        serde_json::to_vec(&wire).unwrap_or_default()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field_errors::FieldPath;

    fn check(status: &Status, code: u16, json: &str) {
        assert_eq!(status.code, code);
        assert_eq!(String::from_utf8(status.to_json()).unwrap(), json);
    }

    #[test]
    fn bodies_are_upstreams() {
        let pods = GroupResource::new("", "pods");
        let deployments = GroupResource::new("apps", "deployments");
        check(
            &Status::not_found(&pods, "a"),
            404,
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \"a\" not found","reason":"NotFound","details":{"name":"a","kind":"pods"},"code":404}"#,
        );
        check(
            &Status::already_exists(&deployments, "a"),
            409,
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"deployments.apps \"a\" already exists","reason":"AlreadyExists","details":{"name":"a","group":"apps","kind":"deployments"},"code":409}"#,
        );
        let mut errors = ErrorList::new();
        let meta = FieldPath::new("metadata");
        errors.required(&meta.child("name"), "name or generateName is required");
        check(
            &Status::invalid(&GroupResource::new("", "Pod"), "", &errors),
            422,
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Pod \"\" is invalid: metadata.name: Required value: name or generateName is required","reason":"Invalid","details":{"kind":"Pod","causes":[{"reason":"FieldValueRequired","message":"Required value: name or generateName is required","field":"metadata.name"}]},"code":422}"#,
        );
        check(
            &Status::success(Some(Details { name: "a".into(), kind: "pods".into(), ..Details::default() })),
            200,
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","details":{"name":"a","kind":"pods"}}"#,
        );
        assert_eq!(Status::timeout("x", 2).retry_after_seconds(), Some(2));
        assert_eq!(
            Status::modified(&pods, "a").message,
            "Operation cannot be fulfilled on pods \"a\": the object has been modified; please apply your changes to the latest version and try again"
        );
        assert_eq!(Status::forbidden(&pods, "", "no").message, "pods is forbidden: no");
    }
}
