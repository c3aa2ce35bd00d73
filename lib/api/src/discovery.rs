//! Discovery documents, built from the table: aggregated (v2, v2beta1) and legacy.
//!
//! Each is a [`Doc`], so that it goes out as JSON or protobuf like any object. Building one is cheap enough to do when the table
//! changes and keep the bytes.

use base64::Engine;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::doc::Doc;
use crate::json::FieldValidation;
use crate::schema::TypeId;
use crate::t;
use crate::table::{Resource, Subresource, Table};

/// Which form of aggregated discovery the client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregated {
    V2,
    V2Beta1,
}

/// `/api` (`core`) or `/apis` as `APIGroupDiscoveryList`.
pub fn aggregated(table: &Table, core: bool, form: Aggregated) -> Doc {
    let groups = table.groups().filter(|group| group.is_empty() == core).map(|group| {
        let versions: Vec<Value> = table
            .versions(group)
            .iter()
            .map(|version| {
                let resources: Vec<Value> =
                    sorted_rows(table, group, version).into_iter().map(aggregated_resource).collect();
                json!({"version": version.as_str(), "resources": resources, "freshness": "Current"})
            })
            .collect();
        json!({"metadata": {"name": group.as_str()}, "versions": versions})
    });
    let items: Vec<Value> = groups.collect();
    let (ty, version) = match form {
        Aggregated::V2 => (t::apidiscovery_v2::API_GROUP_DISCOVERY_LIST, "v2"),
        Aggregated::V2Beta1 => (t::apidiscovery_v2beta1::API_GROUP_DISCOVERY_LIST, "v2beta1"),
    };
    document(
        ty,
        json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items}),
    )
}

/// `/api` as `APIVersions`. `server_address` is `host:port`.
pub fn api_versions(table: &Table, server_address: &str) -> Doc {
    let versions: Vec<&str> = table.versions("").iter().map(|v| v.as_str()).collect();
    document(
        t::meta_v1::API_VERSIONS,
        json!({"kind": "APIVersions", "versions": versions,
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}]}),
    )
}

/// `/apis` as `APIGroupList`.
pub fn group_list(table: &Table) -> Doc {
    let groups: Vec<Value> =
        table.groups().filter(|group| !group.is_empty()).map(|name| group_value(table, name)).collect();
    document(
        t::meta_v1::API_GROUP_LIST,
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}),
    )
}

/// `/apis/<group>` as `APIGroup`; `None` where the group is not served.
pub fn group(table: &Table, name: &str) -> Option<Doc> {
    if name.is_empty() || table.versions(name).is_empty() {
        return None;
    }
    let mut value = group_value(table, name);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Some(document(t::meta_v1::API_GROUP, value))
}

/// `/api/v1`, `/apis/<group>/<version>` as `APIResourceList`; `None` where it is not served.
pub fn resource_list(table: &Table, group: &str, version: &str) -> Option<Doc> {
    if !table.versions(group).iter().any(|v| v == version) {
        return None;
    }
    let mut resources = Vec::new();
    for row in table.rows_of(group, version) {
        resources.push((row.plural.to_string(), legacy_resource(row)));
        for sub in &row.subresources {
            resources.push((format!("{}/{}", row.plural, sub.name), legacy_subresource(row, sub)));
        }
    }
    resources.sort_by(|a, b| a.0.cmp(&b.0));
    let resources: Vec<Value> = resources.into_iter().map(|(_, value)| value).collect();
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut value = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources});
    if !group.is_empty() {
        value["apiVersion"] = "v1".into();
    }
    Some(document(t::meta_v1::API_RESOURCE_LIST, value))
}

fn document(ty: TypeId, value: Value) -> Doc {
    let decoded = crate::json::decode(ty, value.to_string().as_bytes(), FieldValidation::Ignore);
    // The value is built for the type just above; a test goes over all of them.
    debug_assert!(decoded.is_ok(), "{decoded:?}");
    decoded.map_or_else(|_| Doc::new(ty), |(doc, _)| doc)
}

fn sorted_rows<'a>(table: &'a Table, group: &'a str, version: &'a str) -> Vec<&'a Resource> {
    let mut rows: Vec<&Resource> = table.rows_of(group, version).map(|row| &**row).collect();
    rows.sort_by(|a, b| a.plural.cmp(&b.plural));
    rows
}

fn group_value(table: &Table, name: &str) -> Value {
    let version_value =
        |version: &str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let versions: Vec<Value> = table.versions(name).iter().map(|v| version_value(v)).collect();
    json!({"name": name, "preferredVersion": versions.first().cloned().unwrap_or_default(), "versions": versions})
}

fn names(all: &[compact_str::CompactString]) -> Value {
    all.iter().map(|name| Value::from(name.as_str())).collect()
}

/// Group and version of a subresource's body, empty where they are the list's own.
fn foreign(row: &Resource, sub: &Subresource) -> (String, String) {
    if sub.group == row.group && sub.version == row.version {
        (String::new(), String::new())
    } else {
        (sub.group.to_string(), sub.version.to_string())
    }
}

fn aggregated_resource(row: &Resource) -> Value {
    let scope = if row.namespaced { "Namespaced" } else { "Cluster" };
    let mut value = json!({"resource": row.plural.as_str(), "responseKind": {"group": "", "version": "", "kind": row.kind.as_str()},
        "scope": scope, "singularResource": row.singular.as_str(), "verbs": row.verbs.names().collect::<Vec<_>>()});
    if !row.short_names.is_empty() {
        value["shortNames"] = names(&row.short_names);
    }
    if !row.categories.is_empty() {
        value["categories"] = names(&row.categories);
    }
    if !row.subresources.is_empty() {
        let mut subs: Vec<&Subresource> = row.subresources.iter().collect();
        subs.sort_by(|a, b| a.name.cmp(&b.name));
        let subs = subs.into_iter().map(|sub| {
            let (group, version) = foreign(row, sub);
            json!({"subresource": sub.name.as_str(), "responseKind": {"group": group, "version": version, "kind": sub.kind.as_str()},
                "verbs": sub.verbs.names().collect::<Vec<_>>()})
        });
        value["subresources"] = subs.collect();
    }
    value
}

fn legacy_resource(row: &Resource) -> Value {
    let mut value = Map::new();
    value.insert("name".into(), row.plural.as_str().into());
    value.insert("singularName".into(), row.singular.as_str().into());
    value.insert("namespaced".into(), row.namespaced.into());
    value.insert("kind".into(), row.kind.as_str().into());
    value.insert("verbs".into(), row.verbs.names().map(Value::from).collect());
    if !row.short_names.is_empty() {
        value.insert("shortNames".into(), names(&row.short_names));
    }
    if !row.categories.is_empty() {
        value.insert("categories".into(), names(&row.categories));
    }
    if row.stored {
        value.insert("storageVersionHash".into(), storage_version_hash(row).into());
    }
    Value::Object(value)
}

fn legacy_subresource(row: &Resource, sub: &Subresource) -> Value {
    let (group, version) = foreign(row, sub);
    let mut value = json!({"name": format!("{}/{}", row.plural, sub.name), "singularName": "", "namespaced": row.namespaced,
        "kind": sub.kind.as_str(), "verbs": sub.verbs.names().collect::<Vec<_>>()});
    if !version.is_empty() {
        value["group"] = group.into();
        value["version"] = version.into();
    }
    value
}

/// A name for what a resource is stored as; the same as upstream's.
fn storage_version_hash(row: &Resource) -> String {
    let stored = format!("{}/{}/{}", row.storage_group, row.storage_version, row.kind);
    base64::engine::general_purpose::STANDARD.encode(&Sha256::digest(stored)[..8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use keelson_base::gates::Gates;

    fn table() -> Table {
        Table::builtin(&Gates::default())
    }

    fn text(doc: &Doc) -> Value {
        crate::doc::to_json_value(doc)
    }

    #[test]
    fn legacy_documents() {
        let list = text(&resource_list(&table(), "", "v1").expect("core"));
        let find = |name: &str| {
            list["resources"]
                .as_array()
                .and_then(|all| all.iter().find(|r| r["name"] == name))
                .cloned()
                .expect("a resource")
        };
        assert_eq!(list["groupVersion"], "v1");
        // Recorded from upstream.
        assert_eq!(
            find("pods"),
            json!({"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "shortNames": ["po"], "categories": ["all"],
                "storageVersionHash": "xPOwRZ+Yhw8=", "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]})
        );
        assert_eq!(
            find("pods/eviction"),
            json!({"name": "pods/eviction", "singularName": "", "namespaced": true, "kind": "Eviction", "group": "policy", "version": "v1", "verbs": ["create"]})
        );
        assert_eq!(find("componentstatuses")["verbs"], json!(["get", "list"]));
        assert!(resource_list(&table(), "nope", "v1").is_none());
        assert_eq!(
            text(&group(&table(), "autoscaling").expect("served"))["preferredVersion"],
            json!({"groupVersion": "autoscaling/v2", "version": "v2"})
        );
        assert_eq!(text(&api_versions(&table(), "10.0.0.1:6443"))["versions"], json!(["v1"]));
    }

    #[test]
    fn aggregated_documents_agree_with_the_legacy_ones() {
        let table = table();
        for form in [Aggregated::V2, Aggregated::V2Beta1] {
            let mut seen = 0;
            for core in [true, false] {
                let doc = aggregated(&table, core, form);
                let mut proto = Vec::new();
                crate::proto::encode(&doc, &mut proto).expect("protobuf");
                for group in text(&doc)["items"].as_array().expect("items") {
                    let name = group["metadata"]["name"].as_str().unwrap_or("");
                    for version in group["versions"].as_array().expect("versions") {
                        let legacy = text(
                            &resource_list(&table, name, version["version"].as_str().unwrap_or(""))
                                .expect("served"),
                        );
                        let mut ours: Vec<String> = Vec::new();
                        for resource in version["resources"].as_array().expect("resources") {
                            let plural = resource["resource"].as_str().unwrap_or("").to_owned();
                            for sub in resource["subresources"].as_array().into_iter().flatten() {
                                ours.push(format!("{plural}/{}", sub["subresource"].as_str().unwrap_or("")));
                            }
                            ours.push(plural);
                        }
                        ours.sort();
                        let theirs: Vec<&str> = legacy["resources"]
                            .as_array()
                            .expect("resources")
                            .iter()
                            .filter_map(|r| r["name"].as_str())
                            .collect();
                        assert_eq!(ours, theirs);
                        seen += ours.len();
                    }
                }
            }
            assert!(seen > 100, "{seen}");
        }
    }
}
