//! What the pipeline does for custom resources alone: their definition's schema on the way in and out.
//!
//! What is stored is the same for all versions; an object is written in the form its version's schema gives it, and read in the
//! form of the version asked for. Bytes that already have that form go out as they are: each object is looked at once per schema
//! (its stamp remembers it), and only those that do not fit are decoded and written anew.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use keelson_api::defaults;
use keelson_api::doc::Doc;
use keelson_api::json::{self, DecodeError, EncodeOptions, FieldValidation};
use keelson_api::schema::Verbs;
use keelson_api::status::{Reason, Status};
use keelson_api::structural::custom::Custom;
use keelson_api::structural::{fits, prune};
use keelson_api::table::Resource;
use keelson_api::types::columns::{Cell, Columns};
use keelson_api::types::deprecated;

use super::Op;
use crate::cache::{JsonPaths, List, Object};
use crate::core::Call;
use crate::scan;

/// What a request learns of its row before anything else: that the version is deprecated, or that nothing can be made any more.
pub fn announce(call: &Call<'_>, row: &Resource) -> Result<(), Status> {
    let Some(custom) = &row.custom else {
        if let Some((text, until)) = deprecated::warning(&row.group, &row.version, &row.kind) {
            call.warnings.add(text);
            call.core.metrics.deprecated(call.info, &until);
        }
        return Ok(());
    };
    let info = call.info;
    let everywhere = matches!(info.verb, "list" | "watch");
    if row.namespaced && info.namespace.is_empty() && !everywhere {
        return Err(Status::resource_not_found());
    }
    if let Some(text) = &custom.deprecation {
        call.warnings.add(text.clone());
        call.core.metrics.deprecated(call.info, "");
    }
    if custom.terminating && info.verb == "create" {
        let text = "create not allowed while custom resource definition is terminating";
        return Err(Status::other(405, Reason::MethodNotAllowed, text));
    }
    Ok(())
}

/// The verbs that are answered. Discovery names fewer while the definition is being deleted, but finalizers must go.
pub fn verbs(row: &Resource) -> Verbs {
    if row.custom.is_some() { Verbs::ALL } else { row.verbs }
}

/// How the decoder is to treat what it finds, so that all of it is told at once.
pub fn decoder_validation(asked: FieldValidation) -> FieldValidation {
    match asked {
        FieldValidation::Strict => FieldValidation::Warn,
        other => other,
    }
}

/// Brings a decoded object into the form of its schema, and adds the unknown fields to what the decoder noted.
pub fn admit(
    custom: &Custom,
    (mut doc, mut notes): (Doc, Vec<String>),
    validation: FieldValidation,
) -> Result<(Doc, Vec<String>), DecodeError> {
    let mut unknown = Vec::new();
    let wanted = (validation != FieldValidation::Ignore).then_some(&mut unknown);
    prune::admit(&custom.schema, &mut doc, wanted).map_err(|error| DecodeError::Type(error.to_string()))?;
    notes.extend(unknown.into_iter().map(|path| format!("unknown field \"{path}\"")));
    if validation == FieldValidation::Strict && !notes.is_empty() {
        return Err(DecodeError::Strict(notes));
    }
    Ok((doc, notes))
}

/// Brings an object that was decoded from stored bytes into the form of the row's schema.
pub fn adapt(row: &Resource, stored: &[u8], doc: &mut Doc) {
    if let Some(custom) = &row.custom
        && !fits::fits(&custom.schema, stored)
    {
        prune::adapt(&custom.schema, doc);
    }
}

/// Stored bytes in the form of the row's schema.
fn current_bytes<'b>(row: &Resource, stored: &'b [u8]) -> Cow<'b, [u8]> {
    let Some(custom) = row.custom.as_ref().filter(|custom| !fits::fits(&custom.schema, stored)) else {
        return Cow::Borrowed(stored);
    };
    match json::decode_any(None, stored, FieldValidation::Ignore) {
        Ok((mut doc, _)) => {
            prune::adapt(&custom.schema, &mut doc);
            let mut out = Vec::with_capacity(stored.len());
            json::encode_canonical(&doc, EncodeOptions::STORED, &mut out);
            Cow::Owned(out)
        }
        Err(error) => {
            tracing::error!(%error, resource = %row.group_resource(), "a stored object cannot be read");
            Cow::Borrowed(stored)
        }
    }
}

/// An object of the cache in the form of the row's schema; the same one where it has that form.
pub fn current(row: &Resource, object: &Arc<Object>) -> Arc<Object> {
    let Some(custom) = row.custom.as_ref().filter(|custom| !object.fits(custom.stamp)) else {
        return object.clone();
    };
    let Cow::Owned(json) = current_bytes(row, object.json()) else {
        object.set_fits(custom.stamp);
        return object.clone();
    };
    // Selectors have been applied: the copy needs no fields.
    let copy = Object::new(object.key(), &json, object.revision(), row.namespaced, &JsonPaths::none());
    copy.map_or_else(|_| object.clone(), Arc::new)
}

impl Op<'_> {
    /// An object of the cache in the form of the request's version.
    pub fn current(&self, object: &Arc<Object>) -> Arc<Object> {
        current(&self.row, object)
    }

    /// A list's objects in the form of the request's version.
    pub fn current_list(&self, mut list: List) -> List {
        if self.row.custom.is_some() {
            for object in &mut list.objects {
                *object = self.current(object);
            }
        }
        list
    }

    /// Stored bytes in the form of the request's version.
    pub fn current_bytes<'b>(&self, stored: &'b [u8]) -> Cow<'b, [u8]> {
        current_bytes(&self.row, stored)
    }

    /// As [`admit`], for what a patch made.
    pub fn admit(
        &self,
        decoded: (Doc, Vec<String>),
        validation: FieldValidation,
    ) -> Result<(Doc, Vec<String>), DecodeError> {
        match &self.row.custom {
            Some(custom) => admit(custom, decoded, validation),
            None => Ok(decoded),
        }
    }

    /// Fills in what the type's or the definition's defaults say.
    pub fn apply_defaults(&self, doc: &mut Doc) {
        match &self.row.custom {
            Some(custom) if doc.ty().is_none() => {
                // What admission added is no more known than what a client sends.
                prune::prune(&custom.schema, doc, None);
                prune::default(&custom.schema, doc);
            }
            _ => defaults::apply(doc),
        }
    }

    /// An object as the store keeps it: without what the storage version does not know.
    pub fn stored_form(&self, doc: &Doc) -> Bytes {
        match &self.row.custom {
            Some(custom) if !Arc::ptr_eq(&custom.schema, &custom.storage_schema) => {
                let mut stored = doc.clone();
                prune::prune(&custom.storage_schema, &mut stored, None);
                Op::encode_stored(&stored)
            }
            _ => Op::encode_stored(doc),
        }
    }

    /// The labels of the fields that lists and watches may select by, metadata's apart.
    pub fn selectable(&self) -> Vec<&str> {
        match &self.row.custom {
            Some(custom) => custom.selectable.iter().map(|(label, _)| label.as_str()).collect(),
            None => self.strategy.selectable.to_vec(),
        }
    }

    /// The columns a Table of the row has.
    pub fn columns(&self) -> RowColumns {
        RowColumns::of(&self.row, self.strategy.columns)
    }
}

/// The columns of a row: its type's, or its definition's.
#[derive(Clone)]
pub enum RowColumns {
    BuiltIn(&'static Columns),
    Custom(Arc<Custom>),
}

impl RowColumns {
    pub fn of(row: &Resource, built_in: &'static Columns) -> RowColumns {
        row.custom.clone().map_or(RowColumns::BuiltIn(built_in), RowColumns::Custom)
    }

    /// Appends the definitions with their brackets.
    pub fn push_definitions(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        match self {
            RowColumns::BuiltIn(columns) => {
                for (index, one) in columns.definitions.iter().enumerate() {
                    push_definition(
                        out,
                        index,
                        [one.name, one.kind, one.format, one.description()],
                        one.priority,
                    );
                }
            }
            RowColumns::Custom(custom) => {
                let name = keelson_api::types::columns::NAME;
                push_definition(out, 0, [name.name, name.kind, name.format, name.description()], 0);
                for (index, one) in custom.columns.iter().enumerate() {
                    let texts = [one.name.as_str(), &one.kind, &one.format, &one.description];
                    push_definition(out, index + 1, texts, one.priority);
                }
            }
        }
        out.push(b']');
    }

    /// An object's cells.
    pub fn cells(&self, doc: &Doc, now: Timestamp) -> Vec<Cell> {
        match self {
            RowColumns::BuiltIn(columns) => (columns.cells)(doc, now),
            RowColumns::Custom(custom) => custom.cells(doc, now),
        }
    }
}

fn push_definition(out: &mut Vec<u8>, index: usize, texts: [&str; 4], priority: i32) {
    if index > 0 {
        out.push(b',');
    }
    for (start, text) in
        [&b"{\"name\":"[..], b",\"type\":", b",\"format\":", b",\"description\":"].into_iter().zip(texts)
    {
        out.extend_from_slice(start);
        scan::push_string(out, text);
    }
    out.extend_from_slice(b",\"priority\":");
    out.extend_from_slice(itoa::Buffer::new().format(priority).as_bytes());
    out.push(b'}');
}
