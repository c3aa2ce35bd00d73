//! Managers of objects: the cap on updaters, scales, kubectl's annotation (apimachinery `managedfields`).

use keelson_api::apply::element::PathElement;
use keelson_api::apply::manage::{self, ApplyError, LAST_APPLIED, Request};
use keelson_api::apply::managers::{self, Managers};
use keelson_api::apply::scale::{to_parent, to_scale};
use keelson_api::apply::shape::Shape;
use keelson_api::apply::versions::KindVersions;
use keelson_api::doc::{Doc, Gvk, Value};
use keelson_api::json::{self, EncodeOptions, FieldValidation};
use keelson_api::schema::TypeId;
use keelson_api::t;
use serde_json::{Value as Json, json};

use crate::schemas::{check, path, value};

/// An object that carries entries.
fn carrier(entries: &Json) -> Doc {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"managedFields": entries}});
    doc(t::core_v1::CONFIG_MAP, &object)
}

fn doc(ty: TypeId, object: &Json) -> Doc {
    json::decode(ty, object.to_string().as_bytes(), FieldValidation::Strict).unwrap().0
}

fn read(entries: &Json) -> Managers {
    managers::decode(carrier(entries).meta().managed_fields()).unwrap()
}

fn same(got: &Managers, wanted: &Json) -> Result<(), String> {
    let mut object = Doc::new(t::core_v1::CONFIG_MAP);
    managers::put(&mut object, got);
    let mut text = Vec::new();
    json::encode_canonical(&object, EncodeOptions::FULL, &mut text);
    let got: Json = serde_json::from_slice(&text).unwrap();
    let none = json!([]);
    let got = got["metadata"].get("managedFields").unwrap_or(&none);
    // The order is upstream's too.
    if got == wanted { Ok(()) } else { Err(format!("got {got}\n    not {wanted}")) }
}

fn mapping(case: &Json) -> impl Fn(&str) -> Option<Option<Vec<PathElement>>> {
    let all = match case.get("mappings") {
        Some(all) => all.clone(),
        None => json!({"apps/v1": ["spec", "replicas"]}),
    };
    move |version: &str| {
        let names = all.get(version)?;
        Some(
            names
                .as_array()
                .map(|names| names.iter().map(|name| PathElement::field(name.as_str().unwrap())).collect()),
        )
    }
}

#[test]
fn managers_follow_upstreams_tables() {
    check("managers", 40, |case| {
        let parent = || read(&case["parent"]);
        match case["do"].as_str().unwrap() {
            "to-scale" => same(&to_scale(&parent(), &mapping(case)), &case["out"]),
            "to-parent" => {
                let version = case["in"].as_str().unwrap_or("apps/v1");
                same(&to_parent(&parent(), &read(&case["scale"]), version, &mapping(case)), &case["out"])
            }
            "cap" => {
                let mut managers = parent();
                manage::cap_updaters(&mut managers, case["most"].as_u64().unwrap() as usize);
                same(&managers, &case["out"])
            }
            "last-applied" => last_applied(case),
            other => panic!("{other}"),
        }
    });
}

/// An object made by client-side apply, then applied by the server's.
fn last_applied(case: &Json) -> Result<(), String> {
    let mut live = case["live"].clone();
    let last = case.get("last").unwrap_or(&case["live"]);
    let text = if last.is_null() { String::new() } else { last.to_string() };
    live["metadata"]["annotations"][LAST_APPLIED] = text.into();
    let (group, kind) =
        (live["apiVersion"].as_str().unwrap().to_owned(), live["kind"].as_str().unwrap().to_owned());
    let gvk = Gvk::from_api_version(&group, &kind);
    let ty = TypeId::by_gvk(&gvk.group, &gvk.version, &gvk.kind).unwrap();
    let mut live = doc(ty, &live);
    let none = |_: &Gvk| None;
    let versions = KindVersions { kind: "", shape: &none };
    let request = |manager| Request {
        manager,
        gvk: &gvk,
        shape: Shape::Struct(ty),
        subresource: "",
        now: "2026-01-01T00:00:00Z",
        versions: &versions,
        filter: None,
    };
    manage::update(&request("test_client_side_apply"), None, &mut live);
    live.meta_mut().set_uid("1");
    let by = case["by"].as_str().unwrap();
    let config: Value = value(&case["config"]);
    let found = match manage::apply(&request(by), &live, &config, false) {
        Ok(_) => Vec::new(),
        Err(ApplyError::Conflicts(found)) => found,
        Err(other) => return Err(other.to_string()),
    };
    let wanted: Vec<Vec<PathElement>> = case["conflicts"].as_array().unwrap().iter().map(path).collect();
    if let Some(conflict) = found.iter().find(|conflict| !wanted.contains(&conflict.path)) {
        return Err(format!("{conflict}, which is allowed"));
    }
    if let Some(missing) = wanted.iter().find(|path| !found.iter().any(|conflict| conflict.path == **path)) {
        return Err(format!("no conflict at {missing:?}"));
    }
    if found
        .iter()
        .any(|conflict| conflict.manager.text() != format!("\"test_client_side_apply\" using {group}"))
    {
        return Err(format!("conflicts with {found:?}"));
    }
    let forced = manage::apply(&request(by), &live, &config, true).map_err(|error| error.to_string())?;
    let again =
        manage::apply(&request(by), &forced.object, &config, false).map_err(|error| error.to_string())?;
    // Its JSON says so: an empty map that was pruned is none, which an object of this type does not tell apart.
    let text = |object: &Doc| {
        let mut text = Vec::new();
        json::encode_canonical(object, EncodeOptions::FULL, &mut text);
        String::from_utf8(text).unwrap()
    };
    let (first, second) = (text(&forced.object), text(&again.object));
    if first == second { Ok(()) } else { Err(format!("a second apply makes {second}\n    of {first}")) }
}
