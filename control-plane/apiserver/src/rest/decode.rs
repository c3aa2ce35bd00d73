//! From a request's body to an object.

use http::HeaderMap;
use keelson_api::doc::{Doc, Gvk};
use keelson_api::field_errors::{ErrorList, FieldPath};
use keelson_api::json::{self, DecodeError, FieldValidation};
use keelson_api::kinds::{self, Mismatch};
use keelson_api::schema::TypeId;
use keelson_api::status::{GroupResource, Status};
use keelson_api::structural::custom::Custom;
use keelson_api::{proto, types, yaml};

use super::{Op, custom};
use crate::negotiate::{self, Encoding, OBJECT_TYPES};

/// What a body must be.
pub struct Expected<'a> {
    pub ty: Option<TypeId>,
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    /// What a custom resource's definition says of it.
    pub custom: Option<&'a Custom>,
}

impl Op<'_> {
    /// Reads a body as an object of the request's row.
    pub fn decode_body(&self, body: &[u8], validation: FieldValidation) -> Result<Doc, Status> {
        let expected = Expected {
            ty: self.row.ty,
            group: &self.row.group,
            version: &self.row.version,
            kind: &self.row.kind,
            custom: self.row.custom.as_deref(),
        };
        let (doc, warnings) = decode(self.call.headers, body, &expected, validation)?;
        self.call.warnings.extend(warnings);
        Ok(doc)
    }
}

/// Reads a body as an object of the expected kind.
pub fn decode(
    headers: &HeaderMap,
    body: &[u8],
    expected: &Expected<'_>,
    validation: FieldValidation,
) -> Result<(Doc, Vec<String>), Status> {
    let encoding =
        negotiate::body_encoding(headers).ok_or_else(|| Status::unsupported_media_type(&OBJECT_TYPES))?;
    // What the schema does not know is told with what the decoder found.
    let own = if expected.custom.is_some() { custom::decoder_validation(validation) } else { validation };
    let decoded = match (encoding, expected.ty) {
        (Encoding::Json, ty) => json::decode_any(ty, body, own),
        (Encoding::Yaml, ty) => aside(body.len(), || yaml::decode(ty, body, own)),
        (Encoding::Protobuf, Some(ty)) => proto::decode(ty, body).map(|doc| (doc, Vec::new())),
        (Encoding::Protobuf, None) => {
            return Err(Status::unsupported_media_type(&[negotiate::JSON, negotiate::YAML]));
        }
    };
    let explain = |error: DecodeError| explain(&error, encoding, body, expected);
    let (mut doc, warnings) = decoded.map_err(explain)?;
    check_type(&mut doc, expected)?;
    if let Some(text) = (types::strategy(expected.ty).unreadable)(&doc) {
        let Gvk { version, kind, .. } = &doc.gvk;
        let text = format!("{kind} in version {version:?} cannot be handled as a {}: {text}", expected.kind);
        return Err(Status::bad_request(text));
    }
    match expected.custom {
        Some(definition) => custom::admit(definition, (doc, warnings), validation).map_err(explain),
        None => Ok((doc, warnings)),
    }
}

/// Longer YAML than this is read where no other request waits for it: its parser takes a second for the longest.
const LONG_YAML: usize = 32 * 1024;

/// Reads so much YAML without keeping a thread of the runtime from what else it has to do.
pub fn aside<T>(len: usize, read: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let several = Handle::try_current().is_ok_and(|now| now.runtime_flavor() == RuntimeFlavor::MultiThread);
    if len > LONG_YAML && several { tokio::task::block_in_place(read) } else { read() }
}

/// What the body says it is must be what the path is about; nothing said is taken as that.
fn check_type(doc: &mut Doc, expected: &Expected<'_>) -> Result<(), Status> {
    let Expected { group, version, kind, .. } = expected;
    if doc.gvk.version.is_empty() && doc.gvk.group.is_empty() {
        doc.gvk.group = (*group).into();
        doc.gvk.version = (*version).into();
    }
    if doc.gvk.kind.is_empty() {
        doc.gvk.kind = (*kind).into();
    }
    let wanted = Gvk::new(group, version, kind);
    if kinds::taken_as(&doc.gvk, &wanted) {
        doc.gvk = wanted;
        return Ok(());
    }
    if expected.ty.is_some()
        && let Some(Mismatch::Decode(text)) = kinds::mismatch(&doc.gvk, &wanted)
    {
        return Err(Status::bad_request(format!(
            "{} in version {:?} cannot be handled as a {kind}: {text}",
            doc.gvk.kind, doc.gvk.version,
        )));
    }
    if expected.ty.is_none()
        && doc.gvk.group == *group
        && doc.gvk.version == *version
        && doc.gvk.kind != *kind
    {
        return Err(wrong_kind(doc, kind));
    }
    if doc.gvk.group != *group || doc.gvk.version != *version || doc.gvk.kind != *kind {
        let wanted = if group.is_empty() { (*version).to_owned() } else { format!("{group}/{version}") };
        return Err(Status::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({wanted})",
            doc.gvk.api_version(),
        )));
    }
    Ok(())
}

/// A custom resource of another kind than its definition's (upstream: `customresource/validator.go`).
pub fn wrong_kind(doc: &Doc, kind: &str) -> Status {
    let mut errors = ErrorList::new();
    errors.invalid(&FieldPath::new("kind"), &*doc.gvk.kind, format!("must be {kind}"));
    let about = GroupResource::new(doc.gvk.group.to_string(), doc.gvk.kind.to_string());
    Status::invalid(&about, doc.meta().name(), &errors)
}

/// Upstream's text around a decoder's complaint: with the kind that the body says (or leaves to the path), or with the
/// body's beginning where it says nothing that can be read.
fn explain(error: &DecodeError, encoding: Encoding, body: &[u8], expected: &Expected<'_>) -> Status {
    let said = match encoding {
        Encoding::Protobuf => proto::peek_type_meta(body),
        Encoding::Json => json::peek_type_meta(body),
        Encoding::Yaml => yaml::to_json(body).and_then(|json| json::peek_type_meta(&json)),
    };
    let (api_version, kind) = match said {
        Ok(said) => said,
        // Upstream reads these two first, so that is where it finds what is wrong.
        Err(error) => {
            return Status::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): {error} ({})",
                expected.kind,
                summary(body)
            ));
        }
    };
    let kind = if kind.is_empty() { expected.kind } else { &kind };
    let version = match api_version.rsplit('/').next() {
        None | Some("") => expected.version,
        Some(version) => version,
    };
    Status::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {}: {error}",
        expected.kind
    ))
}

/// The body's beginning: as it is where it looks like JSON, else in hexadecimal digits.
fn summary(body: &[u8]) -> String {
    const SHOWN: usize = 30;
    let begin = &body[..body.len().min(SHOWN)];
    let more = if body.len() > SHOWN { " ..." } else { "" };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(begin)),
        Some(_) => {
            let digits: String = begin.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{digits}{more}")
        }
    }
}
