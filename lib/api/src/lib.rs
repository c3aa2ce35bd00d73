//! The object model: schema, documents, codecs, the resource table, patches, and the rules of each type.
//!
//! Pure: no tokio, no clock, no entropy, no client; time and seeds are arguments. What is kept is bytes; a [`doc::Doc`]
//! lives inside one request.

pub mod apply;
pub mod canonical;
pub mod continue_token;
pub mod defaults;
pub mod discovery;
pub mod doc;
pub mod field_errors;
pub mod fields_selector;
pub mod gated;
#[cfg(test)]
mod golden_tests;
pub mod json;
pub mod kinds;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod proto;
pub mod quantity;
pub mod schema;
pub mod selectors;
pub mod status;
pub mod structural;
pub mod table;
pub mod types;
pub mod yaml;

pub use schema::generated::{f, t};
