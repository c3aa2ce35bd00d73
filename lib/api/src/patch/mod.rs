//! Patches as pure functions: the object as it is and the patch's bytes make the object as it should be.

use crate::doc::Doc;
use crate::json::{DecodeError, FieldValidation, Warning};

/// Why a patch could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// 400: the patch is not what it claims to be.
    #[error("{0}")]
    BadRequest(String),
    /// 413: beyond a limit.
    #[error("{0}")]
    TooLarge(String),
    /// 415: the patch type is not served for this type.
    #[error("{0}")]
    Unsupported(String),
    /// 422: it cannot be applied to this object (a JSON patch test failed, a path is missing).
    #[error("{0}")]
    Unprocessable(String),
    /// The patched object does not decode.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// The patched object and warnings on unknown or duplicate fields of the patch.
pub type Patched = (Doc, Vec<Warning>);

/// `application/json-patch+json`.
pub fn json_patch(
    _original: &Doc,
    _patch: &[u8],
    _validation: FieldValidation,
) -> Result<Patched, PatchError> {
    Err(PatchError::Unsupported("JSON patch is not there yet".into()))
}

/// `application/merge-patch+json`.
pub fn merge_patch(
    _original: &Doc,
    _patch: &[u8],
    _validation: FieldValidation,
) -> Result<Patched, PatchError> {
    Err(PatchError::Unsupported("merge patch is not there yet".into()))
}

/// `application/strategic-merge-patch+json`; built-in types only.
pub fn strategic_merge(
    _original: &Doc,
    _patch: &[u8],
    _validation: FieldValidation,
) -> Result<Patched, PatchError> {
    Err(PatchError::Unsupported("strategic merge patch is not there yet".into()))
}
