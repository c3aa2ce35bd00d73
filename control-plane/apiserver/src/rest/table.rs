//! Tables: what `kubectl get` prints.

use keelson_api::doc::Doc;
use keelson_api::field_errors::quoted;
use keelson_api::status::Status;
use keelson_api::table::Resource;
use keelson_api::types::columns::Cell;

use super::Op;
use super::custom::RowColumns;
use crate::query::Query;
use crate::scan;

/// What a row carries of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    /// Reads `includeObject`.
    pub fn parse(query: &Query<'_>) -> Result<Include, Status> {
        match query.first("includeObject").unwrap_or_default() {
            "" | "Metadata" => Ok(Include::Metadata),
            "None" => Ok(Include::None),
            "Object" => Ok(Include::Object),
            other => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {}: must be 'Metadata', 'Object', 'None', or empty",
                quoted(other)
            ))),
        }
    }
}

/// A list's own metadata.
#[derive(Clone, Copy)]
pub struct Meta<'a> {
    /// 0: of what is not stored, and left out.
    pub revision: u64,
    pub token: Option<&'a str>,
    pub remaining: Option<u64>,
}

impl Meta<'_> {
    /// Appends the members of a ListMeta with their braces.
    pub fn push(&self, out: &mut Vec<u8>) {
        if self.revision == 0 {
            return out.extend_from_slice(b"{}");
        }
        out.extend_from_slice(b"{\"resourceVersion\":\"");
        out.extend_from_slice(itoa::Buffer::new().format(self.revision).as_bytes());
        out.push(b'"');
        if let Some(token) = self.token {
            out.extend_from_slice(b",\"continue\":");
            scan::push_string(out, token);
        }
        if let Some(remaining) = self.remaining.filter(|_| self.token.is_some()) {
            out.extend_from_slice(b",\"remainingItemCount\":");
            out.extend_from_slice(itoa::Buffer::new().format(remaining).as_bytes());
        }
        out.push(b'}');
    }
}

/// Appends a Table up to and with the opening bracket of its rows. Without columns the definitions are empty, as in all
/// but the first event of a watch.
pub fn push_head(out: &mut Vec<u8>, version: &str, meta: Meta<'_>, columns: Option<&RowColumns>) {
    out.extend_from_slice(b"{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/");
    out.extend_from_slice(version.as_bytes());
    out.extend_from_slice(b"\",\"metadata\":");
    meta.push(out);
    out.extend_from_slice(b",\"columnDefinitions\":");
    match columns {
        None => out.extend_from_slice(b"null"),
        Some(columns) => columns.push_definitions(out),
    }
    out.extend_from_slice(b",\"rows\":[");
}

/// What rows need when the request itself is gone (lists and watches are written while they are sent).
pub struct RowContext {
    pub columns: RowColumns,
    pub now: jiff::Timestamp,
    /// The requested version, for whole objects.
    pub row: std::sync::Arc<Resource>,
}

impl RowContext {
    pub fn of(op: &Op<'_>) -> RowContext {
        RowContext { columns: op.columns(), now: op.now, row: op.row.clone() }
    }

    /// Appends one row; `doc` is the object in the storage version, which the columns are written for.
    pub fn push(
        &self,
        out: &mut Vec<u8>,
        doc: &Doc,
        stored: &[u8],
        revision: u64,
        version: &str,
        include: Include,
    ) {
        out.extend_from_slice(b"{\"cells\":[");
        for (index, cell) in self.columns.cells(doc, self.now).iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            match cell {
                Cell::Str(text) => scan::push_string(out, text),
                Cell::Int(number) => out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes()),
                Cell::Float(number) => keelson_api::canonical::push_float(*number, out),
                Cell::Bool(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
                Cell::Null => out.extend_from_slice(b"null"),
            }
        }
        out.extend_from_slice(b"],\"object\":");
        match include {
            Include::None => out.extend_from_slice(b"null"),
            Include::Metadata => scan::push_metadata(out, version, stored, revision),
            Include::Object => match super::convert(doc.clone(), &self.row) {
                Ok(doc) => {
                    keelson_api::json::encode_canonical(&doc, keelson_api::json::EncodeOptions::FULL, out)
                }
                Err(_) => out.extend_from_slice(b"null"),
            },
        }
        out.push(b'}');
    }
}
