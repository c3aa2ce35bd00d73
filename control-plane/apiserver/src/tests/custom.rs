//! Custom resources from their definition to its end, as clients see them.

use serde_json::{Value, json};

use super::harness::*;

pub(super) const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub(super) const FOOS: &str = "/apis/example.com/v1/namespaces/default/foos";

/// A definition of `<plural>.example.com` with one version, `v1`.
pub(super) fn definition(plural: &str, schema: Value) -> Value {
    let singular = plural.trim_end_matches('s');
    let kind = format!("{}{}", singular[..1].to_uppercase(), &singular[1..]);
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": plural, "singular": singular, "kind": kind, "listKind": format!("{kind}List")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

pub(super) fn open() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

pub(super) fn sized() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 10},
            "color": {"type": "string", "default": "red", "enum": ["red", "blue"]},
            "ports": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}},
            },
        }},
        "status": {"type": "object", "properties": {"ready": {"type": "boolean"}, "replicas": {"type": "integer"}}},
    }})
}

pub(super) fn foo(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": name}, "spec": spec})
}

pub(super) fn condition<'v>(definition: &'v Value, kind: &str) -> &'v Value {
    let all = definition["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().find(|one| one["type"] == kind).unwrap_or(&Value::Null)
}

impl Lab {
    /// Waits until a definition's condition has a status.
    pub(super) async fn until(&self, name: &str, kind: &str, status: &str) -> Value {
        let path = format!("{CRDS}?fieldSelector=metadata.name%3D{name}&watch=true&allowWatchBookmarks=true");
        let mut frames = self.watch(&path, &[]).await;
        loop {
            let event = frames.next().await.expect("an event");
            if condition(&event["object"], kind)["status"] == status {
                return event["object"].clone();
            }
        }
    }

    /// Makes a definition and waits until it is established.
    pub(super) async fn define(&self, definition: &Value) -> Value {
        self.post(CRDS, definition).await.expect(201);
        self.until(definition["metadata"]["name"].as_str().unwrap(), "Established", "True").await
    }

    async fn gone(&self, path: &str) {
        let deadline = tokio::time::Instant::now() + SOON;
        while self.get(path).await.code != 404 {
            assert!(tokio::time::Instant::now() < deadline, "{path} is still there");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_definition_is_served_from_established_on() {
    let lab = Lab::start().await;
    assert_eq!(lab.get(FOOS).await.code, 404);
    let made = lab.post(CRDS, &definition("foos", sized())).await;
    assert!(made.warnings().is_empty(), "{:?}", made.warnings());
    made.expect(201);
    let established = lab.until("foos.example.com", "Established", "True").await;
    assert_eq!(condition(&established, "NamesAccepted")["reason"], "NoConflicts");
    assert_eq!(condition(&established, "Established")["reason"], "InitialNamesAccepted");
    assert_eq!(established["status"]["acceptedNames"]["kind"], "Foo");
    assert_eq!(established["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(established["metadata"]["generation"], 1);
    // At once, without waiting: the rows come before the condition.
    let made = lab.post(FOOS, &foo("a", json!({"size": 3, "other": 1}))).await;
    assert_eq!(made.warnings(), ["299 - \"unknown field \\\"spec.other\\\"\""]);
    let made = made.expect(201);
    assert_eq!(made["spec"], json!({"size": 3, "color": "red"}), "defaulted and pruned");
    assert_eq!((&made["kind"], &made["metadata"]["generation"]), (&json!("Foo"), &json!(1)));
    assert_eq!(lab.get(&format!("{FOOS}/a")).await.expect(200), made);
    let list = lab.get(FOOS).await.expect(200);
    assert_eq!((&list["kind"], &list["items"][0]["spec"]), (&json!("FooList"), &made["spec"]));
    let key = "/registry/example.com/foos/default/a";
    let (stored, _) = lab.store.get(key).await.unwrap();
    let stored: Value = serde_json::from_slice(&stored.unwrap().value).unwrap();
    assert_eq!((stored.get("apiVersion"), stored.get("kind")), (None, None));
}

#[tokio::test]
async fn mistakes_are_told_in_upstreams_words() {
    let lab = Lab::start().await;
    lab.define(&definition("foos", sized())).await;
    for (spec, message) in [
        (
            json!({"size": 11}),
            "spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10",
        ),
        (
            json!({"size": "x"}),
            "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
        ),
        (json!({}), "spec.size: Required value"),
        (
            json!({"size": 1, "color": "green"}),
            "spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\"",
        ),
        (
            json!({"size": 1, "ports": [{"name": "a"}, {"name": "a"}]}),
            "spec.ports[1]: Duplicate value: {\"name\":\"a\"}",
        ),
    ] {
        let status = lab.post(FOOS, &foo("bad", spec)).await.expect(422);
        assert_eq!(status["message"], format!("Foo.example.com \"bad\" is invalid: {message}"));
    }
    let strict =
        lab.post(&format!("{FOOS}?fieldValidation=Strict"), &foo("bad", json!({"size": 1, "x": 1}))).await;
    assert_eq!(
        strict.expect(400)["message"],
        "Foo in version \"v1\" cannot be handled as a Foo: strict decoding error: unknown field \"spec.x\""
    );
    let twice = r#"{"apiVersion":"example.com/v1","kind":"Foo","metadata":{"name":"b","odd":1},"spec":{"size":1,"size":2,"y":1}}"#;
    let json_type = [("content-type", "application/json")];
    let answer = lab.send("POST", &format!("{FOOS}?fieldValidation=Strict"), &json_type, twice).await;
    assert_eq!(
        answer.expect(400)["message"],
        "Foo in version \"v1\" cannot be handled as a Foo: strict decoding error: unknown field \"metadata.odd\", duplicate field \"spec.size\", unknown field \"spec.y\""
    );
    let accept = [("accept", "application/vnd.kubernetes.protobuf")];
    assert_eq!(lab.send("GET", FOOS, &accept, "").await.code, 406);
    let protobuf = [("content-type", "application/vnd.kubernetes.protobuf")];
    assert_eq!(lab.send("POST", FOOS, &protobuf, "k8s\0").await.code, 415);
    lab.post(FOOS, &foo("a", json!({"size": 1}))).await.expect(201);
    let strategic =
        lab.patch(&format!("{FOOS}/a"), "strategic-merge-patch+json", &json!({"spec": {"size": 2}})).await;
    assert_eq!(strategic.code, 415);
    let strict = lab
        .patch(&format!("{FOOS}/a?fieldValidation=Strict"), "merge-patch+json", &json!({"spec": {"z": 2}}))
        .await;
    // As upstream, a patched object that does not decode is an invalid patch.
    let told = strict.expect(422)["message"].as_str().unwrap().to_owned();
    assert!(told.ends_with("strict decoding error: unknown field \"spec.z\""), "{told}");
    assert_eq!(lab.post("/apis/example.com/v1/foos", &foo("a", json!({"size": 1}))).await.code, 404);
}

#[tokio::test]
async fn updates_status_and_scale_follow_upstreams_rules() {
    let lab = Lab::start().await;
    let mut wanted = definition("foos", sized());
    wanted["spec"]["versions"][0]["subresources"] = json!({
        "status": {},
        "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.replicas"},
    });
    lab.define(&wanted).await;
    let mut object = foo("a", json!({"size": 1}));
    object["status"] = json!({"ready": true});
    let made = lab.post(FOOS, &object).await.expect(201);
    assert_eq!(made.get("status"), None, "a create sets no status");
    let path = format!("{FOOS}/a");
    let merge = "merge-patch+json";
    let patched =
        lab.patch(&path, merge, &json!({"spec": {"size": 2}, "status": {"ready": true}})).await.expect(200);
    assert_eq!((&patched["metadata"]["generation"], patched.get("status")), (&json!(2), None));
    let labelled = lab.patch(&path, merge, &json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    assert_eq!(labelled["metadata"]["generation"], 2, "metadata is no generation");
    let status = json!({"metadata": {"labels": {"a": "c"}}, "spec": {"size": 9}, "status": {"ready": true, "replicas": 1}});
    let written = lab.patch(&format!("{path}/status"), merge, &status).await.expect(200);
    assert_eq!(written["status"], json!({"ready": true, "replicas": 1}));
    assert_eq!((&written["spec"]["size"], &written["metadata"]["labels"]["a"]), (&json!(2), &json!("b")));
    assert_eq!(written["metadata"]["generation"], 2);
    let bad =
        lab.patch(&format!("{path}/status"), merge, &json!({"status": {"ready": "x"}})).await.expect(422);
    assert!(bad["message"].as_str().unwrap().ends_with(
        "status.ready: Invalid value: \"string\": ready in body must be of type boolean: \"string\""
    ));
    let scale = lab.get(&format!("{path}/scale")).await.expect(200);
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"], &scale["status"]["replicas"]),
        (&json!("Scale"), &json!(2), &json!(1))
    );
    let mut scale = scale;
    scale["spec"]["replicas"] = 5.into();
    assert_eq!(lab.put(&format!("{path}/scale"), &scale).await.expect(200)["spec"]["replicas"], 5);
    assert_eq!(lab.get(&path).await.expect(200)["spec"]["size"], 5);
    assert_eq!(lab.put(&format!("{path}/scale"), &scale).await.code, 409, "the scale's version is old");
    // An update must say what it is of.
    let mut whole = lab.get(&path).await.expect(200);
    whole["metadata"]["resourceVersion"] = Value::Null;
    let refused = lab.put(&path, &whole).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("must be specified for an update"));
    // A no-op writes nothing.
    let before = lab.revision().await;
    let whole = lab.get(&path).await.expect(200);
    assert_eq!(
        lab.put(&path, &whole).await.expect(200)["metadata"]["resourceVersion"],
        whole["metadata"]["resourceVersion"]
    );
    assert_eq!(lab.revision().await, before);
}

#[tokio::test]
async fn a_changed_schema_changes_what_is_read_without_a_new_revision() {
    let lab = Lab::start().await;
    lab.define(&definition("foos", open())).await;
    lab.post(FOOS, &foo("old", json!({"size": 1, "extra": {"deep": true}}))).await.expect(201);
    let before = lab.get(&format!("{FOOS}/old")).await.expect(200);
    assert_eq!(before["spec"]["extra"], json!({"deep": true}));
    let mut watch = lab.watch(&format!("{FOOS}?watch=true&resourceVersion=0"), &[]).await;
    assert_eq!(watch.short().await, "ADDED old");
    let change =
        json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": sized()}]);
    let crd = format!("{CRDS}/foos.example.com");
    assert_eq!(lab.patch(&crd, "json-patch+json", &change).await.expect(200)["metadata"]["generation"], 2);
    // The table follows in a moment.
    let deadline = tokio::time::Instant::now() + SOON;
    let after = loop {
        let now = lab.get(&format!("{FOOS}/old")).await.expect(200);
        if now["spec"] != before["spec"] {
            break now;
        }
        assert!(tokio::time::Instant::now() < deadline, "the new schema is not used");
        tokio::task::yield_now().await;
    };
    assert_eq!(after["spec"], json!({"size": 1, "color": "red"}), "pruned and defaulted on the way out");
    assert_eq!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    lab.post(FOOS, &foo("new", json!({"size": 2}))).await.expect(201);
    let list = lab.get(FOOS).await.expect(200);
    assert_eq!(list["items"][1], after);
    assert_eq!(list["items"][0]["spec"], json!({"size": 2, "color": "red"}));
    // A watch that was open goes on; one that is opened now shows the new form.
    assert_eq!(watch.short().await, "ADDED new");
    let mut watch = lab.watch(&format!("{FOOS}?watch=true&resourceVersion=0"), &[]).await;
    let events = [watch.next().await.unwrap(), watch.next().await.unwrap()];
    assert!(events.iter().any(|event| event["object"] == after), "{events:?}");
    // What was wrong already may stay wrong, what changes must be right.
    let stale = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/size/minimum", "value": 5}]);
    lab.patch(&crd, "json-patch+json", &stale).await.expect(200);
    let deadline = tokio::time::Instant::now() + SOON;
    while lab.post(FOOS, &foo("small", json!({"size": 1}))).await.code == 201 {
        lab.delete(&format!("{FOOS}/small")).await.expect(200);
        assert!(tokio::time::Instant::now() < deadline, "the new minimum is not used");
        // Nothing in these requests waits, and the table follows in a task.
        tokio::task::yield_now().await;
    }
    let merge = "merge-patch+json";
    lab.patch(&format!("{FOOS}/old"), merge, &json!({"spec": {"color": "blue"}})).await.expect(200);
    assert_eq!(lab.patch(&format!("{FOOS}/old"), merge, &json!({"spec": {"size": 2}})).await.code, 422);
}

#[tokio::test]
async fn discovery_openapi_and_tables_show_the_resource() {
    let lab = Lab::start().await;
    let mut wanted = definition("foos", sized());
    wanted["spec"]["names"]["shortNames"] = json!(["fo"]);
    wanted["spec"]["names"]["categories"] = json!(["all"]);
    wanted["spec"]["versions"][0]["additionalPrinterColumns"] = json!([
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Port", "type": "string", "jsonPath": ".spec.ports[?(@.name==\"b\")].port", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]);
    wanted["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.color"}]);
    lab.define(&wanted).await;
    let list = lab.get("/apis/example.com/v1").await.expect(200);
    let found = &list["resources"][0];
    assert_eq!(
        (&found["name"], &found["shortNames"], &found["categories"]),
        (&json!("foos"), &json!(["fo"]), &json!(["all"]))
    );
    let groups = lab.get("/apis").await.expect(200);
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "example.com"));
    let aggregated = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let all = lab.send("GET", "/apis", &aggregated, "").await.expect(200);
    let group = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["metadata"]["name"] == "example.com")
        .unwrap()
        .clone();
    assert_eq!(group["versions"][0]["resources"][0]["resource"], "foos");
    let v2 = lab.get("/openapi/v2").await.expect(200);
    assert_eq!(
        v2["definitions"]["com.example.v1.Foo"]["properties"]["spec"]["properties"]["size"]["maximum"]
            .as_f64(),
        Some(10.0)
    );
    let v3 = lab.get("/openapi/v3/apis/example.com/v1").await.expect(200);
    let schema = &v3["components"]["schemas"]["com.example.v1.Foo"];
    assert_eq!(schema["x-kubernetes-selectable-fields"], json!([{"fieldPath": "spec.color"}]));
    assert!(
        schema["properties"]["apiVersion"]["description"].as_str().unwrap().starts_with("APIVersion defines")
    );
    lab.post(
        FOOS,
        &foo("a", json!({"size": 3, "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]})),
    )
    .await
    .expect(201);
    lab.post(FOOS, &foo("b", json!({"size": 4, "color": "blue"}))).await.expect(201);
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = lab.send("GET", FOOS, &table, "").await.expect(200);
    let names: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["Name", "Size", "Port", "Age"]);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..3], [json!("a"), json!(3), json!("2")]);
    assert_eq!(table["rows"][1]["cells"][2], Value::Null);
    // Field selectors.
    let blue = lab.get(&format!("{FOOS}?fieldSelector=spec.color%3Dblue")).await.expect(200);
    assert_eq!(
        (blue["items"].as_array().unwrap().len(), &blue["items"][0]["metadata"]["name"]),
        (1, &json!("b"))
    );
    assert_eq!(lab.get(&format!("{FOOS}?fieldSelector=spec.size%3D3")).await.code, 400);
    let mut watch = lab.watch(&format!("{FOOS}?watch=true&fieldSelector=spec.color%3Dblue"), &[]).await;
    assert_eq!(watch.short().await, "ADDED b");
    lab.patch(&format!("{FOOS}/a"), "merge-patch+json", &json!({"spec": {"color": "blue"}}))
        .await
        .expect(200);
    assert_eq!(watch.short().await, "ADDED a");
    lab.patch(&format!("{FOOS}/b"), "merge-patch+json", &json!({"spec": {"color": "red"}})).await.expect(200);
    assert_eq!(watch.short().await, "DELETED b");
}

#[tokio::test]
async fn several_versions_are_one_resource() {
    let lab = Lab::start().await;
    let mut wanted = definition(
        "foos",
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "string"}, "b": {"type": "string"},
        }}}}),
    );
    wanted["spec"]["versions"].as_array_mut().unwrap().push(json!({
        "name": "v1beta1", "served": true, "storage": false, "deprecated": true,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "string"}, "c": {"type": "string", "default": "seen"},
        }}}}},
    }));
    lab.define(&wanted).await;
    const OLD: &str = "/apis/example.com/v1beta1/namespaces/default/foos";
    lab.post(FOOS, &foo("x", json!({"a": "1", "b": "2"}))).await.expect(201);
    let answer = lab.get(&format!("{OLD}/x")).await;
    assert_eq!(
        answer.warnings(),
        ["299 - \"example.com/v1beta1 Foo is deprecated; use example.com/v1 Foo\""]
    );
    let old = answer.expect(200);
    assert_eq!(old["apiVersion"], "example.com/v1beta1");
    assert_eq!(old["spec"], json!({"a": "1", "c": "seen"}), "what the version knows, with its defaults");
    let mut watch = lab.watch(&format!("{OLD}?watch=true"), &[]).await;
    assert_eq!(watch.next().await.unwrap()["object"], old);
    // Written in one version, stored without what the storage version does not know.
    lab.patch(&format!("{OLD}/x"), "merge-patch+json", &json!({"spec": {"a": "9", "c": "gone"}}))
        .await
        .expect(200);
    assert_eq!(lab.get(&format!("{FOOS}/x")).await.expect(200)["spec"], json!({"a": "9"}));
    assert_eq!(watch.next().await.unwrap()["object"]["spec"], json!({"a": "9", "c": "seen"}));
    let group = lab.get("/apis/example.com").await.expect(200);
    assert_eq!(group["preferredVersion"]["version"], "v1");
    // A version that is no longer served is gone, its objects are not.
    let unserved = json!([{"op": "replace", "path": "/spec/versions/1/served", "value": false}]);
    lab.patch(&format!("{CRDS}/foos.example.com"), "json-patch+json", &unserved).await.expect(200);
    lab.gone(&format!("{OLD}/x")).await;
    lab.get(&format!("{FOOS}/x")).await.expect(200);
}

#[tokio::test]
async fn names_conflict_and_are_given_free() {
    let lab = Lab::start().await;
    lab.define(&definition("foos", open())).await;
    let mut second = definition("bars", open());
    second["spec"]["names"]["kind"] = "Foo".into();
    lab.post(CRDS, &second).await.expect(201);
    let refused = lab.until("bars.example.com", "NamesAccepted", "False").await;
    assert_eq!(condition(&refused, "NamesAccepted")["message"], "\"Foo\" is already in use");
    assert_eq!(condition(&refused, "Established")["reason"], "NotAccepted");
    assert_eq!(lab.get("/apis/example.com/v1/namespaces/default/bars").await.code, 404);
    lab.delete(&format!("{CRDS}/foos.example.com")).await.expect(200);
    lab.until("bars.example.com", "Established", "True").await;
    lab.get("/apis/example.com/v1/namespaces/default/bars").await.expect(200);
}

#[tokio::test]
async fn rules_that_nothing_runs_are_not_served() {
    let lab = Lab::start().await;
    let mut schema = sized();
    schema["properties"]["spec"]["x-kubernetes-validations"] = json!([{"rule": "self.size > 1"}]);
    lab.post(CRDS, &definition("foos", schema)).await.expect(201);
    let told = lab.until("foos.example.com", "Established", "False").await;
    assert_eq!(condition(&told, "Established")["reason"], "NotSupported");
    assert_eq!(lab.get(FOOS).await.code, 404);
    let without = json!([{"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations"}]);
    lab.patch(&format!("{CRDS}/foos.example.com"), "json-patch+json", &without).await.expect(200);
    lab.until("foos.example.com", "Established", "True").await;
    lab.get(FOOS).await.expect(200);
}

#[tokio::test]
async fn a_definitions_end_is_its_objects_end() {
    let lab = Lab::start().await;
    lab.define(&definition("foos", open())).await;
    lab.post(FOOS, &foo("plain", json!({}))).await.expect(201);
    let mut held = foo("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    lab.post(FOOS, &held).await.expect(201);
    let mut watch = lab.watch(&format!("{FOOS}?watch=true"), &[]).await;
    for _ in 0..2 {
        watch.next().await.expect("an event");
    }
    let crd = format!("{CRDS}/foos.example.com");
    let marked = lab.delete(&crd).await.expect(200);
    assert_eq!(marked["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    assert_eq!(condition(&marked, "Terminating")["reason"], "InstanceDeletionPending");
    let mut seen = vec![watch.short().await, watch.short().await];
    seen.sort();
    assert_eq!(seen, ["DELETED plain", "MODIFIED held"]);
    lab.until("foos.example.com", "Terminating", "True").await;
    // Nothing new may come while the rest goes.
    let deadline = tokio::time::Instant::now() + SOON;
    let refused = loop {
        let answer = lab.post(FOOS, &foo("late", json!({}))).await;
        if answer.code == 405 {
            break answer.json();
        }
        assert!(tokio::time::Instant::now() < deadline, "{}", answer.code);
    };
    assert_eq!(refused["message"], "create not allowed while custom resource definition is terminating");
    lab.patch(&format!("{FOOS}/held"), "merge-patch+json", &json!({"metadata": {"finalizers": []}}))
        .await
        .expect(200);
    lab.gone(&crd).await;
    lab.gone(FOOS).await;
    let (left, _) = lab.store.get("/registry/example.com/foos/default/held").await.unwrap();
    assert!(left.is_none());
    let mut rest = Vec::new();
    while let Some(event) = watch.next().await {
        rest.push(event["type"].as_str().unwrap().to_owned());
    }
    assert!(
        rest.iter().all(|kind| kind == "DELETED" || kind == "ADDED"),
        "the watch ends without an error: {rest:?}"
    );
    // The same name again is another resource.
    lab.define(&definition("foos", open())).await;
    assert_eq!(lab.get(FOOS).await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn definitions_are_served_again_after_a_restart() {
    let lab = Lab::start().await;
    let mut wanted = definition("foos", sized());
    wanted["spec"]["scope"] = "Cluster".into();
    lab.define(&wanted).await;
    lab.post("/apis/example.com/v1/foos", &foo("a", json!({"size": 1}))).await.expect(201);
    let again = lab.restart().await;
    // Without a wait: what was established is there before the first answer.
    assert_eq!(again.get("/apis/example.com/v1/foos/a").await.expect(200)["spec"]["color"], "red");
}

#[tokio::test]
async fn access_to_custom_resources_is_granted_by_role() {
    let lab = Lab::start().await;
    lab.define(&definition("foos", open())).await;
    let user = || crate::UserInfo::authenticated("jane", &[]);
    assert_eq!(lab.send_as(user(), "GET", FOOS, &[], "").await.code, 403);
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let rules = json!([{"apiGroups": ["example.com"], "resources": ["foos", "foos/status"], "verbs": ["get", "list"]}]);
    lab.post(
        &format!("{RBAC}/roles"),
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"}, "rules": rules}),
    )
    .await
    .expect(201);
    lab.post(
        &format!("{RBAC}/rolebindings"),
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "r"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]}),
    )
    .await
    .expect(201);
    assert_eq!(lab.send_as(user(), "GET", FOOS, &[], "").await.code, 200);
    assert_eq!(lab.send_as(user(), "DELETE", &format!("{FOOS}/a"), &[], "").await.code, 403);
}

#[tokio::test]
async fn embedded_objects_have_metadata_of_their_own() {
    let lab = Lab::start().await;
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
    }}}});
    lab.define(&definition("foos", schema)).await;
    let inner = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "unknownSub": 1, "creationTimestamp": null}, "other": 1});
    let mut object = foo("a", json!({"template": inner}));
    object["metadata"]["unknownMeta"] = 1.into();
    let strict = lab.post(&format!("{FOOS}?fieldValidation=Strict"), &object).await.expect(400);
    assert_eq!(
        strict["message"],
        "Foo in version \"v1\" cannot be handled as a Foo: strict decoding error: unknown field \"metadata.unknownMeta\", unknown field \"spec.template.metadata.unknownSub\""
    );
    let made = lab.post(FOOS, &object).await.expect(201);
    assert_eq!(made["spec"]["template"]["metadata"], json!({"name": "p"}));
    assert_eq!(made["spec"]["template"]["other"], 1, "unknown fields are preserved around it");
    for (template, text) in [
        (json!({"kind": "Pod"}), "spec.template.apiVersion: Required value"),
        (
            json!({"apiVersion": "v1", "kind": "a_b"}),
            "spec.template.kind: Invalid value: \"a_b\": may have mixed case",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"x": "a b"}}}),
            "spec.template.metadata.labels: Invalid value: \"a b\": a valid label",
        ),
    ] {
        let status = lab.post(FOOS, &foo("b", json!({"template": template}))).await.expect(422);
        assert!(status["message"].as_str().unwrap().contains(text), "{}", status["message"]);
    }
    let wrong = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": 1}});
    let status = lab.post(FOOS, &foo("b", json!({"template": wrong}))).await.expect(400);
    assert!(
        status["message"].as_str().unwrap().contains("spec.template.metadata: Invalid value"),
        "{}",
        status["message"]
    );
    let mut finalized = foo("c", json!({}));
    finalized["metadata"]["finalizers"] = json!(["hold"]);
    let answer = lab.post(FOOS, &finalized).await;
    assert_eq!(
        answer.warnings(),
        [
            "299 - \"metadata.finalizers: \\\"hold\\\": prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers\""
        ]
    );
}
