//! OpenAPI documents, written from the table and the schema: v2 as JSON and as gnostic's protobuf, v3 per group version.
//!
//! A document is written piece by piece into one buffer, never held as a tree; whoever serves it keeps the bytes compressed and
//! drops them when nobody asks. Descriptions come from [`Descriptions`]; the table has none.

mod custom;
mod descriptions;
mod enums;
mod gnostic;
mod gnostic_v3;
mod operations;
mod paths;
mod schemas;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::table::{Resource, Table};
pub use descriptions::Descriptions;
use paths::PathItem;

/// Where texts come from.
pub trait Source {
    /// The text of a definition (`field` empty) or of its field; empty where there is none.
    fn description(&self, definition: &str, field: &str) -> &str {
        let _ = (definition, field);
        ""
    }
}

/// No texts.
pub struct Bare;
impl Source for Bare {}

/// The built-in types' descriptions.
impl Source for Descriptions {
    fn description(&self, definition: &str, field: &str) -> &str {
        self.get(definition, field)
    }
}

/// Which dialect a piece is written in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

impl Dialect {
    fn reference(self, definition: &str) -> String {
        match self {
            Dialect::V2 => format!("#/definitions/{definition}"),
            Dialect::V3 => format!("#/components/schemas/{definition}"),
        }
    }
}

/// The version texts of `info`.
const TITLE: &str = "Kubernetes";

/// `/openapi/v3`: every document's path with its hash.
pub fn v3_index(table: &Table, version: &str) -> Value {
    let mut paths = serde_json::Map::new();
    for (place, _) in paths::roots(table) {
        let hash = v3_root_hash(&place, version);
        let url = format!("/openapi/v3/{place}?hash={hash}");
        paths.insert(place, json!({"serverRelativeURL": url}));
    }
    for group in table.groups() {
        for served in table.versions(group) {
            let path =
                if group.is_empty() { format!("api/{served}") } else { format!("apis/{group}/{served}") };
            let hash = v3_hash(table, group, served, version);
            paths.insert(
                path.clone(),
                json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}),
            );
        }
    }
    json!({"paths": paths})
}

/// A hash that changes whenever the group version's document may: its rows (custom ones name their schema's stamp), and the build
/// (`version`).
pub fn v3_hash(table: &Table, group: &str, served: &str, version: &str) -> String {
    let mut sum = Sha256::new();
    sum.update(version);
    for row in table.rows_of(group, served) {
        sum.update(format!("{row:?}"));
    }
    sum.finalize().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The hash of a document that is about no group version: it changes with the build alone.
pub fn v3_root_hash(place: &str, version: &str) -> String {
    let sum = Sha256::new().chain_update(version).chain_update("\n").chain_update(place);
    sum.finalize().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The forms that a v3 document is served in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    /// Gnostic's protobuf (`application/com.github.proto-openapi.spec.v3.v1.0+protobuf`).
    Proto,
}

/// The v3 document of `api`, `apis`, `apis/<group>`, `version` and the like; `None` where there is none of this name.
pub fn v3_root(
    table: &Table,
    place: &str,
    version: &str,
    source: &dyn Source,
    encoding: Encoding,
) -> Option<Vec<u8>> {
    let item = paths::roots(table).into_iter().find_map(|(name, item)| (name == place).then_some(item))?;
    Some(v3_document(&[item], &[], version, source, encoding))
}

/// One group version's v3 document; `None` where it is not served.
pub fn v3(
    table: &Table,
    group: &str,
    served: &str,
    version: &str,
    source: &dyn Source,
    encoding: Encoding,
) -> Option<Vec<u8>> {
    if !table.versions(group).iter().any(|v| v == served) {
        return None;
    }
    let rows: Vec<&Resource> = table.rows_of(group, served).map(|row| &**row).collect();
    Some(v3_document(&paths::group_version(table, group, served), &rows, version, source, encoding))
}

fn v3_document(
    items: &[PathItem],
    rows: &[&Resource],
    version: &str,
    source: &dyn Source,
    encoding: Encoding,
) -> Vec<u8> {
    let mut used = BTreeSet::new();
    items.iter().for_each(|item| item.definitions(&mut used));
    schemas::closure(&mut used);
    let paths = items.iter().map(|item| (item.path.clone(), operations::v3(item)));
    let definitions =
        used.iter().map(|name| (name.clone(), schemas::definition(name, Dialect::V3, rows, source)));
    if encoding == Encoding::Proto {
        return gnostic_v3::document(TITLE, version, paths, definitions, &security());
    }
    let mut out = Vec::with_capacity(16 * 1024);
    out.extend_from_slice(br#"{"openapi":"3.0.0","info":"#);
    push(&json!({"title": TITLE, "version": version}), &mut out);
    out.extend_from_slice(br#","paths":{"#);
    let mut first = true;
    paths.for_each(|(path, item)| entry(&path, &item, &mut first, &mut out));
    out.extend_from_slice(br#"},"components":{"schemas":{"#);
    first = true;
    definitions.for_each(|(name, definition)| entry(&name, &definition, &mut first, &mut out));
    out.extend_from_slice(br#"},"securitySchemes":"#);
    push(&security(), &mut out);
    out.extend_from_slice(b"}}");
    out
}

fn security() -> Value {
    json!({"BearerToken": {"description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey"}})
}

fn push(value: &Value, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = serde_json::to_writer(out, value);
}

fn entry(name: &str, value: &Value, first: &mut bool, out: &mut Vec<u8>) {
    if !std::mem::replace(first, false) {
        out.push(b',');
    }
    crate::json::encode_str(name, out);
    out.push(b':');
    push(value, out);
}

/// All paths of the table, and the definitions they lead to.
fn all(table: &Table) -> (impl Iterator<Item = PathItem> + '_, BTreeSet<String>) {
    let items = || {
        let versions = table.groups().flat_map(move |group| {
            table.versions(group).iter().flat_map(move |served| paths::group_version(table, group, served))
        });
        paths::roots(table).into_iter().map(|(_, item)| item).chain(versions)
    };
    let mut used = BTreeSet::new();
    items().for_each(|item| item.definitions(&mut used));
    schemas::closure(&mut used);
    (items(), used)
}

/// The v2 document of everything, as JSON.
pub fn v2(table: &Table, version: &str, source: &dyn Source) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 * 1024 * 1024);
    out.extend_from_slice(br#"{"swagger":"2.0","info":"#);
    push(&json!({"title": TITLE, "version": version}), &mut out);
    out.extend_from_slice(br#","paths":{"#);
    let (items, used) = all(table);
    let mut first = true;
    for item in items {
        entry(&item.path, &operations::v2(&item), &mut first, &mut out);
    }
    out.extend_from_slice(br#"},"definitions":{"#);
    first = true;
    let rows: Vec<&Resource> = table.rows().iter().map(|row| &**row).collect();
    for definition in &used {
        entry(definition, &schemas::definition(definition, Dialect::V2, &rows, source), &mut first, &mut out);
    }
    out.extend_from_slice(br#"},"securityDefinitions":"#);
    push(&security(), &mut out);
    out.extend_from_slice(br#","security":[{"BearerToken":[]}]}"#);
    out
}

/// The v2 document of everything, as gnostic's protobuf (`application/com.github.proto-openapi.spec.v2.v1.0+protobuf`).
pub fn v2_proto(table: &Table, version: &str, source: &dyn Source) -> Vec<u8> {
    let (items, used) = all(table);
    let rows: Vec<&Resource> = table.rows().iter().map(|row| &**row).collect();
    let paths = items.map(|item| (item.path.clone(), operations::v2(&item)));
    let definitions =
        used.iter().map(|name| (name.clone(), schemas::definition(name, Dialect::V2, &rows, source)));
    gnostic::document(TITLE, version, paths, definitions)
}

#[cfg(test)]
mod tests;
