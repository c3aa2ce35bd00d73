//! Lists, watches and deletions of custom resources by the fields that their definition names (upstream's
//! `apiextensions-apiserver/test/integration/fieldselector_test.go`).

use serde_json::{Value, json};

use super::custom::{CRDS, FOOS, definition, foo};
use super::harness::*;

const V2: &str = "/apis/example.com/v2/namespaces/default/foos";

fn shirts() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "color": {"type": "string"},
            "size": {"type": "integer"},
            "washed": {"type": "boolean"},
        }},
        "status": {"type": "object", "properties": {"place": {"type": "string"}}},
    }})
}

/// Two versions that select by different fields.
fn two_versions() -> Value {
    let mut made = definition("foos", shirts());
    made["spec"]["versions"][0]["subresources"] = json!({"status": {}});
    let mut v2 = made["spec"]["versions"][0].clone();
    made["spec"]["versions"][0]["selectableFields"] =
        json!([{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.size"}, {"jsonPath": ".spec.washed"}]);
    v2["name"] = "v2".into();
    v2["storage"] = false.into();
    v2["selectableFields"] = json!([{"jsonPath": ".status.place"}, {"jsonPath": ".spec.color"}]);
    made["spec"]["versions"].as_array_mut().unwrap().push(v2);
    made
}

impl Lab {
    /// The names that a list by this selector holds.
    async fn names_by(&self, path: &str, selector: &str) -> String {
        let list = self.get(&format!("{path}?fieldSelector={selector}")).await.expect(200);
        let items = list["items"].as_array().unwrap();
        let names: Vec<&str> = items.iter().map(|one| one["metadata"]["name"].as_str().unwrap()).collect();
        names.join(" ")
    }
}

async fn wardrobe() -> Lab {
    let lab = Lab::start().await;
    lab.define(&two_versions()).await;
    for (name, spec) in [
        ("a", json!({"color": "blue", "size": 1, "washed": true})),
        ("b", json!({"color": "blue", "size": 2, "washed": false})),
        ("c", json!({"color": "gr\"een", "size": 10})),
        ("d", json!({})),
    ] {
        lab.post(FOOS, &foo(name, spec)).await.expect(201);
    }
    lab
}

#[tokio::test]
async fn lists_by_the_fields_of_their_version() {
    let lab = wardrobe().await;
    for (selector, names) in [
        ("spec.color%3Dblue", "a b"),
        ("spec.color%3D%3Dblue", "a b"),
        ("spec.color!%3Dblue", "c d"),
        ("spec.color%3Dblue,spec.size%3D2", "b"),
        ("spec.color%3Dblue,spec.size!%3D2", "a"),
        ("spec.size%3D1", "a"),
        ("spec.washed%3Dtrue", "a"),
        ("spec.washed%3Dfalse", "b"),
        // What is not there is as if it were empty.
        ("spec.color%3D", "d"),
        ("spec.washed%3D", "c d"),
        ("spec.color%3Dgr%22een", "c"),
        ("metadata.name%3Dc,spec.size%3D10", "c"),
        ("metadata.name%3Dc,spec.size%3D1", ""),
        ("metadata.namespace%3Ddefault,spec.color%3Dblue", "a b"),
        ("spec.color%3Dblu", ""),
    ] {
        assert_eq!(lab.names_by(FOOS, selector).await, names, "{selector}");
    }
    let status = json!({"status": {"place": "shelf"}});
    lab.patch(&format!("{V2}/b/status"), "merge-patch+json", &status).await.expect(200);
    assert_eq!(lab.names_by(V2, "status.place%3Dshelf").await, "b");
    assert_eq!(lab.names_by(V2, "status.place%3Dshelf,spec.color!%3Dblue").await, "");
    assert_eq!(lab.names_by("/apis/example.com/v2/foos", "spec.color%3Dblue").await, "a b");
    // Page by page, and as a table.
    let first = lab.get(&format!("{FOOS}?fieldSelector=spec.color%3Dblue&limit=1")).await.expect(200);
    assert_eq!(first["items"][0]["metadata"]["name"], "a");
    assert_eq!(first["metadata"].get("remainingItemCount"), None, "not told beside a selector");
    let next = first["metadata"]["continue"].as_str().unwrap();
    let second = lab.get(&format!("{FOOS}?fieldSelector=spec.color%3Dblue&limit=1&continue={next}")).await;
    assert_eq!(second.expect(200)["items"][0]["metadata"]["name"], "b");
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let rows = lab.send("GET", &format!("{FOOS}?fieldSelector=spec.size%3D2"), &table, "").await.expect(200);
    assert_eq!((rows["rows"].as_array().unwrap().len(), &rows["rows"][0]["cells"][0]), (1, &json!("b")));
}

#[tokio::test]
async fn other_fields_are_refused() {
    let lab = wardrobe().await;
    for (path, selector, field) in [
        (FOOS, "spec.other%3Dx", "spec.other"),
        (FOOS, "spec%3Dx", "spec"),
        (FOOS, ".spec.color%3Dblue", ".spec.color"),
        (FOOS, "metadata.uid%3Dx", "metadata.uid"),
        (FOOS, "spec.color%3Dblue,status.place%3Dx", "status.place"),
        (V2, "spec.size%3D1", "spec.size"),
    ] {
        let wanted = format!("field label not supported: {field}");
        for more in ["", "&watch=true"] {
            let answer = lab.get(&format!("{path}?fieldSelector={selector}{more}")).await.expect(400);
            assert_eq!(
                (&answer["reason"], &answer["message"]),
                (&json!("BadRequest"), &json!(wanted)),
                "{selector}"
            );
        }
        let answer = lab.delete(&format!("{path}?fieldSelector={selector}")).await.expect(400);
        assert_eq!(answer["message"], wanted);
    }
    assert_eq!(lab.names_by(FOOS, "").await, "a b c d", "nothing was deleted");
}

#[tokio::test]
async fn watches_show_what_begins_and_ceases_to_match() {
    let lab = wardrobe().await;
    let mut blue = lab.watch(&format!("{FOOS}?watch=true&fieldSelector=spec.color%3Dblue"), &[]).await;
    let mut shelf = lab.watch(&format!("{V2}?watch=true&fieldSelector=status.place%3Dshelf"), &[]).await;
    let mut both =
        lab.watch(&format!("{FOOS}?watch=true&fieldSelector=spec.color%3Dblue,spec.size%3D2"), &[]).await;
    assert_eq!((blue.short().await, blue.short().await), ("ADDED a".into(), "ADDED b".into()));
    assert_eq!(both.short().await, "ADDED b");
    let merge = "merge-patch+json";
    lab.patch(&format!("{V2}/c/status"), merge, &json!({"status": {"place": "shelf"}})).await.expect(200);
    let added = shelf.next().await.unwrap();
    assert_eq!((&added["type"], &added["object"]["apiVersion"]), (&json!("ADDED"), &json!("example.com/v2")));
    lab.patch(&format!("{FOOS}/d"), merge, &json!({"spec": {"color": "blue"}})).await.expect(200);
    assert_eq!(blue.short().await, "ADDED d");
    lab.patch(&format!("{FOOS}/d"), merge, &json!({"spec": {"size": 2}})).await.expect(200);
    assert_eq!((blue.short().await, both.short().await), ("MODIFIED d".into(), "ADDED d".into()));
    let now = lab.patch(&format!("{FOOS}/d"), merge, &json!({"spec": {"color": null}})).await.expect(200);
    for watch in [&mut blue, &mut both] {
        let gone = watch.next().await.unwrap();
        assert_eq!((&gone["type"], &gone["object"]["metadata"]["name"]), (&json!("DELETED"), &json!("d")));
        assert_eq!(gone["object"]["spec"]["color"], "blue", "as it last matched");
        assert_eq!(gone["object"]["metadata"]["resourceVersion"], now["metadata"]["resourceVersion"]);
    }
    let deleted =
        lab.delete(&format!("{FOOS}?fieldSelector=spec.color%3Dblue,spec.size%3D1")).await.expect(200);
    assert_eq!(deleted["items"][0]["metadata"]["name"], "a");
    assert_eq!(blue.short().await, "DELETED a");
    lab.delete(&format!("{FOOS}/c")).await.expect(200);
    assert_eq!(shelf.short().await, "DELETED c");
    assert_eq!(lab.names_by(FOOS, "").await, "b d");
}

/// A definition that names another field serves it for what was stored before, with the schema's default where it has none.
#[tokio::test]
async fn a_field_named_later_selects_what_is_there() {
    let lab = wardrobe().await;
    let crd = format!("{CRDS}/foos.example.com");
    let change = json!([
        {"op": "replace", "path": "/spec/versions/0/selectableFields", "value": [{"jsonPath": ".spec.size"}]},
        {"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/size/default", "value": 7},
        {"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/default", "value": {}},
    ]);
    lab.patch(&crd, "json-patch+json", &change).await.expect(200);
    let deadline = tokio::time::Instant::now() + SOON;
    // The table follows in a moment.
    while lab.get(&format!("{FOOS}?fieldSelector=spec.color%3Dblue")).await.code == 200 {
        assert!(tokio::time::Instant::now() < deadline, "spec.color is still selected by");
        tokio::task::yield_now().await;
    }
    assert_eq!(lab.names_by(FOOS, "spec.size%3D10").await, "c");
    assert_eq!(lab.names_by(FOOS, "spec.size%3D7").await, "d", "as it is read");
    assert_eq!(lab.names_by(FOOS, "spec.size%3D").await, "");
    let mut watch = lab.watch(&format!("{FOOS}?watch=true&fieldSelector=spec.size%3D7"), &[]).await;
    assert_eq!(watch.short().await, "ADDED d");
}
