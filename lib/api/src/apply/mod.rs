//! Field ownership and server-side apply (upstream: structured-merge-diff, apimachinery `managedfields`).
//!
//! Who set which field is kept in `metadata.managedFields` as one set of paths per manager ([`set`], [`codec`]). A write
//! compares the old and the new object ([`compare`]) and moves ownership ([`update`]); an apply merges a configuration
//! into the live object ([`merge`]), takes away what its manager no longer applies ([`remove`]), and is refused where
//! another manager holds another value. [`manage`] is what requests call.
//!
//! What always holds here: the walks read an object as its JSON shows it ([`view`]) and a schema through [`shape`], so
//! built-in types, custom resources and untyped data go the same way; they change nothing in place and keep nothing.

pub mod codec;
pub mod compare;
pub mod custom;
pub mod element;
mod field_set;
pub mod list;
pub mod manage;
pub mod managers;
pub mod merge;
pub mod reconcile;
pub mod remove;
pub mod reset;
pub mod scale;
pub mod set;
pub mod shape;
pub mod update;
pub mod validate;
pub mod versions;
pub mod view;

pub use field_set::field_set;
