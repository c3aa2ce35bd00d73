//! Discovery and OpenAPI documents, made once per state of the resource table.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use keelson_api::status::Status;
use keelson_api::table::{Resource, Table};
use serde_json::{Value, json};
use sha2::Digest as _;

use crate::negotiate::JSON;

/// A document as it is sent.
#[derive(Clone, Debug)]
pub struct Document {
    pub body: Bytes,
    pub media_type: &'static str,
    pub etag: Option<String>,
    /// The path names the content by its hash.
    pub immutable: bool,
}

/// What was made, by path and form, for one table.
#[derive(Default)]
pub struct Cache {
    made: parking_lot::Mutex<Option<(Arc<Table>, HashMap<String, Document>)>>,
}

const AGGREGATED_V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const AGGREGATED_V2BETA1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
/// Documents kept per table; paths are bounded by the table's groups, so this only guards against mistakes.
const MAX_KEPT: usize = 512;

/// Which form of discovery a client takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Legacy,
    Aggregated(&'static str),
}

fn form(accept: &str) -> Form {
    for clause in accept.split(',') {
        let mut parts = clause.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let params: Vec<&str> = parts.collect();
        if kind == JSON && params.contains(&"as=APIGroupDiscoveryList") && params.contains(&"g=apidiscovery.k8s.io") {
            if params.contains(&"v=v2") {
                return Form::Aggregated("v2");
            }
            if params.contains(&"v=v2beta1") {
                return Form::Aggregated("v2beta1");
            }
            continue;
        }
        if matches!(kind, "application/json" | "*/*" | "application/*") {
            return Form::Legacy;
        }
    }
    Form::Legacy
}

/// The document of a path; 404 where there is none.
pub fn find(cache: &Cache, table: &Arc<Table>, path: &str, accept: &str, hash: Option<&str>) -> Result<Document, Status> {
    let form = form(accept);
    let key = format!("{path} {form:?}");
    {
        let mut made = cache.made.lock();
        match made.as_ref() {
            Some((of, documents)) if Arc::ptr_eq(of, table) => {
                if let Some(document) = documents.get(&key) {
                    return Ok(with_hash(document.clone(), hash));
                }
            }
            _ => *made = Some((table.clone(), HashMap::new())),
        }
    }
    let document = make(table, path, form)?;
    let mut made = cache.made.lock();
    if let Some((of, documents)) = made.as_mut()
        && Arc::ptr_eq(of, table)
        && documents.len() < MAX_KEPT
    {
        documents.insert(key, document.clone());
    }
    Ok(with_hash(document, hash))
}

/// A path that carries the hash of its content may be cached for ever.
fn with_hash(mut document: Document, hash: Option<&str>) -> Document {
    document.immutable = hash.is_some_and(|hash| document.etag.as_deref().is_some_and(|etag| etag.trim_matches('"') == hash));
    document
}

fn make(table: &Table, path: &str, form: Form) -> Result<Document, Status> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let value = match (parts.as_slice(), form) {
        (["api"], Form::Aggregated(version)) => return Ok(aggregated(table, version, true)),
        (["apis"], Form::Aggregated(version)) => return Ok(aggregated(table, version, false)),
        (["api"], Form::Legacy) => json!({
            "kind": "APIVersions",
            "versions": table.versions("").iter().map(|version| version.as_str()).collect::<Vec<_>>(),
            "serverAddressByClientCIDRs": [],
        }),
        (["apis"], Form::Legacy) => {
            let groups: Vec<Value> = table.groups().filter(|group| !group.is_empty()).map(|name| group(table, name)).collect();
            json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
        }
        (["apis", name], _) if !table.versions(name).is_empty() => {
            let mut value = group(table, name);
            value["kind"] = "APIGroup".into();
            value["apiVersion"] = "v1".into();
            value
        }
        (["api", version], _) => resource_list(table, "", version)?,
        (["apis", group, version], _) => resource_list(table, group, version)?,
        _ => return Err(Status::resource_not_found()),
    };
    Ok(document(&value, JSON))
}

fn document(value: &Value, media_type: &'static str) -> Document {
    let body = Bytes::from(value.to_string());
    let etag = Some(format!("\"{}\"", hex_sha512(&body)));
    Document { body, media_type, etag, immutable: false }
}

/// Upstream's ETags are SHA-512 in upper-case hexadecimal.
fn hex_sha512(bytes: &[u8]) -> String {
    sha2::Sha512::digest(bytes).iter().map(|byte| format!("{byte:02X}")).collect()
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn group(table: &Table, name: &str) -> Value {
    let versions: Vec<Value> = table
        .versions(name)
        .iter()
        .map(|version| json!({ "groupVersion": group_version(name, version), "version": version.as_str() }))
        .collect();
    json!({ "name": name, "versions": versions, "preferredVersion": versions.first() })
}

fn sorted_rows<'t>(table: &'t Table, group: &'t str, version: &'t str) -> Vec<&'t Arc<Resource>> {
    let mut rows: Vec<_> = table.rows_of(group, version).collect();
    rows.sort_by(|a, b| a.plural.cmp(&b.plural));
    rows
}

/// An API resource's optional lists, left out when empty.
fn put_lists(value: &mut Value, row: &Resource) {
    fn list(items: &[compact_str::CompactString]) -> Vec<&str> {
        items.iter().map(|item| item.as_str()).collect()
    }
    if !row.short_names.is_empty() {
        value["shortNames"] = list(&row.short_names).into();
    }
    if !row.categories.is_empty() {
        value["categories"] = list(&row.categories).into();
    }
}

fn resource_list(table: &Table, group: &str, version: &str) -> Result<Value, Status> {
    if !table.versions(group).iter().any(|served| served == version) {
        return Err(Status::resource_not_found());
    }
    let mut resources = Vec::new();
    for row in sorted_rows(table, group, version) {
        let verbs: Vec<&str> = row.verbs.names().collect();
        let mut value = json!({
            "name": row.plural.as_str(), "singularName": row.singular.as_str(), "namespaced": row.namespaced,
            "kind": row.kind.as_str(), "verbs": verbs,
        });
        put_lists(&mut value, row);
        if row.stored {
            value["storageVersionHash"] = storage_hash(row).into();
        }
        resources.push(value);
        let mut subresources: Vec<_> = row.subresources.iter().collect();
        subresources.sort_by(|a, b| a.name.cmp(&b.name));
        for sub in subresources {
            let verbs: Vec<&str> = sub.verbs.names().collect();
            let mut value = json!({
                "name": format!("{}/{}", row.plural, sub.name), "singularName": "", "namespaced": row.namespaced,
                "kind": sub.kind.as_str(), "verbs": verbs,
            });
            if (sub.group.as_str(), sub.version.as_str()) != (group, version) {
                if !sub.group.is_empty() {
                    value["group"] = sub.group.as_str().into();
                }
                value["version"] = sub.version.as_str().into();
            }
            resources.push(value);
        }
    }
    Ok(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version(group, version), "resources": resources,
    }))
}

/// Upstream: the first eight bytes of SHA-256 over group/version/kind of the storage version, base64.
fn storage_hash(row: &Resource) -> String {
    use base64::Engine as _;
    let text = format!("{}/{}/{}", row.storage_group, row.storage_version, row.kind);
    base64::engine::general_purpose::STANDARD.encode(&sha2::Sha256::digest(text)[..8])
}

fn aggregated(table: &Table, version: &'static str, legacy: bool) -> Document {
    let items: Vec<Value> = table
        .groups()
        .filter(|group| group.is_empty() == legacy)
        .map(|group| {
            let versions: Vec<Value> = table.versions(group).iter().map(|version| aggregated_version(table, group, version)).collect();
            json!({ "metadata": if group.is_empty() { json!({}) } else { json!({ "name": group.as_str() }) }, "versions": versions })
        })
        .collect();
    let value = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items,
    });
    document(&value, if version == "v2" { AGGREGATED_V2 } else { AGGREGATED_V2BETA1 })
}

fn aggregated_version(table: &Table, group: &str, version: &str) -> Value {
    let resources: Vec<Value> = sorted_rows(table, group, version)
        .into_iter()
        .map(|row| {
            let verbs: Vec<&str> = row.verbs.names().collect();
            let mut value = json!({
                "resource": row.plural.as_str(),
                "responseKind": { "group": row.group.as_str(), "version": row.version.as_str(), "kind": row.kind.as_str() },
                "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
                "singularResource": row.singular.as_str(),
                "verbs": verbs,
            });
            put_lists(&mut value, row);
            let mut subresources: Vec<_> = row.subresources.iter().collect();
            subresources.sort_by(|a, b| a.name.cmp(&b.name));
            let subresources: Vec<Value> = subresources
                .into_iter()
                .map(|sub| {
                    let verbs: Vec<&str> = sub.verbs.names().collect();
                    json!({
                        "subresource": sub.name.as_str(),
                        "responseKind": { "group": sub.group.as_str(), "version": sub.version.as_str(), "kind": sub.kind.as_str() },
                        "verbs": verbs,
                    })
                })
                .collect();
            if !subresources.is_empty() {
                value["subresources"] = subresources.into();
            }
            value
        })
        .collect();
    json!({ "version": version, "resources": resources, "freshness": "Current" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use keelson_base::gates::Gates;

    fn get(path: &str, accept: &str) -> Result<(Value, Document), u16> {
        let table = Arc::new(Table::builtin(&Gates::default()));
        let document = find(&Cache::default(), &table, path, accept, None).map_err(|status| status.code)?;
        Ok((serde_json::from_slice(&document.body).unwrap(), document))
    }

    #[test]
    fn legacy_and_aggregated_discovery_agree() {
        let (groups, _) = get("/apis", "application/json").unwrap();
        let mut legacy = Vec::new();
        let versions = groups["groups"].as_array().unwrap().iter().flat_map(|group| group["versions"].as_array().unwrap());
        let paths: Vec<String> = versions
            .map(|version| format!("/apis/{}", version["groupVersion"].as_str().unwrap()))
            .chain(["/api/v1".to_owned()])
            .collect();
        for path in &paths {
            let (list, _) = get(path, "").unwrap();
            for resource in list["resources"].as_array().unwrap() {
                legacy.push(format!("{} {}", list["groupVersion"].as_str().unwrap(), resource["name"].as_str().unwrap()));
            }
        }
        let mut aggregated = Vec::new();
        for path in ["/api", "/apis"] {
            let (list, document) = get(path, &format!("{AGGREGATED_V2},{AGGREGATED_V2BETA1},application/json")).unwrap();
            assert_eq!(document.media_type, AGGREGATED_V2);
            for group in list["items"].as_array().unwrap() {
                let name = group["metadata"]["name"].as_str().unwrap_or_default();
                for version in group["versions"].as_array().unwrap() {
                    let gv = group_version(name, version["version"].as_str().unwrap());
                    for resource in version["resources"].as_array().unwrap() {
                        let plural = resource["resource"].as_str().unwrap();
                        aggregated.push(format!("{gv} {plural}"));
                        for sub in resource["subresources"].as_array().into_iter().flatten() {
                            aggregated.push(format!("{gv} {plural}/{}", sub["subresource"].as_str().unwrap()));
                        }
                    }
                }
            }
        }
        legacy.sort();
        aggregated.sort();
        assert_eq!(legacy, aggregated);
        assert!(legacy.contains(&"apps/v1 deployments/scale".to_owned()) && legacy.len() > 150, "{}", legacy.len());
    }

    #[test]
    fn what_is_not_there_is_404() {
        for path in ["/apis/none", "/apis/apps/v9", "/api/v2", "/nothing", "/openapi"] {
            assert_eq!(get(path, "").unwrap_err(), 404, "{path}");
        }
    }
}
