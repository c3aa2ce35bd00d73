use std::collections::HashSet;

use keelson_base::gates::Gates;

use super::*;

fn table() -> Table {
    Table::builtin(&Gates::default())
}

/// Every `$ref` of the document.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|inner| references(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| references(inner, found)),
        _ => {}
    }
}

fn check_references(document: &Value, prefix: &str, definitions: &Value) {
    let mut found = Vec::new();
    references(document, &mut found);
    assert!(found.len() > 5, "{found:?}");
    for reference in found {
        let name = reference.strip_prefix(prefix).expect("a reference into the definitions");
        assert!(definitions.get(name).is_some(), "{reference} leads nowhere");
    }
}

/// No operation's id is there twice.
fn check_ids(document: &Value) {
    let mut seen = HashSet::new();
    for item in document["paths"].as_object().expect("paths").values() {
        for id in item.as_object().expect("operations").values().filter_map(|op| op["operationId"].as_str()) {
            assert!(seen.insert(id.to_owned()), "{id} twice");
        }
    }
}

#[test]
fn v3_documents_hold_together() {
    let table = table();
    let index = v3_index(&table, "v1.35.0");
    let paths = index["paths"].as_object().expect("paths");
    assert!(
        paths["apis/apps/v1"]["serverRelativeURL"]
            .as_str()
            .is_some_and(|url| url.starts_with("/openapi/v3/apis/apps/v1?hash="))
    );
    for group in table.groups() {
        for served in table.versions(group) {
            let bytes = v3(&table, group, served, "v1.35.0", &Bare, Encoding::Json).expect("served");
            let document: Value = serde_json::from_slice(&bytes).expect("JSON");
            check_references(&document, "#/components/schemas/", &document["components"]["schemas"]);
            check_ids(&document);
        }
    }
    assert!(v3(&table, "nope", "v1", "v1.35.0", &Bare, Encoding::Json).is_none());
}

#[test]
fn a_patch_offers_what_kubectl_looks_for() {
    let document: Value = serde_json::from_slice(
        &v3(&table(), "apps", "v1", "v1.35.0", &Bare, Encoding::Json).expect("served"),
    )
    .expect("JSON");
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let names: Vec<&str> = patch["parameters"]
        .as_array()
        .expect("parameters")
        .iter()
        .filter_map(|p| p["name"].as_str())
        .collect();
    assert!(names.contains(&"fieldValidation") && names.contains(&"dryRun"), "{names:?}");
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "version": "v1", "kind": "Deployment"})
    );
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["put"];
    assert_eq!(
        scale["x-kubernetes-group-version-kind"],
        json!({"group": "autoscaling", "version": "v1", "kind": "Scale"})
    );
    let container = &document["components"]["schemas"]["io.k8s.api.core.v1.Container"];
    assert_eq!(
        container["properties"]["ports"],
        json!({"type": "array", "items": {"default": {}, "allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.ContainerPort"}]},
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["containerPort", "protocol"], "x-kubernetes-patch-merge-key": "containerPort", "x-kubernetes-patch-strategy": "merge"})
    );
    assert_eq!(container["required"], json!(["name"]));
}

#[test]
fn v3_shows_the_defaults_that_types_declare() {
    let document: Value =
        serde_json::from_slice(&v3(&table(), "", "v1", "v1.35.0", &Bare, Encoding::Json).expect("served"))
            .expect("JSON");
    let of = |name: &str, field: &str| {
        document["components"]["schemas"][format!("io.k8s.api.core.v1.{name}")]["properties"][field].clone()
    };
    for (name, field, expected) in [
        ("ContainerPort", "protocol", json!("TCP")),
        ("LocalObjectReference", "name", json!("")),
        ("ReplicationControllerSpec", "minReadySeconds", json!(0)),
        ("ContainerPort", "containerPort", json!(0)),
        ("PodSpec", "dnsPolicy", Value::Null),
        ("PodSpec", "securityContext", Value::Null),
        ("Probe", "timeoutSeconds", Value::Null),
    ] {
        assert_eq!(of(name, field)["default"], expected, "{name}.{field}");
    }
    assert_eq!(
        of("PodSpec", "nodeSelector")["additionalProperties"],
        json!({"type": "string", "default": ""})
    );
    let limits = of("ResourceRequirements", "limits")["additionalProperties"].take();
    assert_eq!(limits, json!({"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.api.resource.Quantity"}));
    let status = &document["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.Status"];
    assert_eq!(
        status["x-kubernetes-group-version-kind"],
        json!([{"group": "", "version": "v1", "kind": "Status"}])
    );
}

#[test]
fn v2_holds_together_and_its_protobuf_is_the_same() {
    let table = table();
    let document: Value = serde_json::from_slice(&v2(&table, "v1.35.0", &Bare)).expect("JSON");
    check_references(&document, "#/definitions/", &document["definitions"]);
    check_ids(&document);
    assert_eq!(
        document["definitions"]["io.k8s.api.core.v1.Pod"]["x-kubernetes-group-version-kind"],
        json!([{"group": "", "version": "v1", "kind": "Pod"}])
    );
    let proto = v2_proto(&table, "v1.35.0", &Bare);
    let (mut paths, mut definitions) = (0, 0);
    each_field(&proto, |number, content| match number {
        8 => each_field(content, |number, _| paths += usize::from(number == 2)),
        9 => each_field(content, |number, _| definitions += usize::from(number == 1)),
        _ => {}
    });
    assert_eq!(paths, document["paths"].as_object().expect("paths").len());
    assert_eq!(definitions, document["definitions"].as_object().expect("definitions").len());
}

fn each_field(bytes: &[u8], mut each: impl FnMut(u32, &[u8])) {
    use crate::proto::wire::{Reader, Wire};
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field().expect("well-formed") {
        if let Wire::Bytes(content) = wire {
            each(number, content);
        }
    }
}

#[test]
fn custom_resources_bring_their_schema() {
    struct One;
    impl Source for One {
        fn description(&self, definition: &str, field: &str) -> &str {
            if definition.ends_with("ObjectMeta") && field == "name" { "the name" } else { "" }
        }
    }
    let mut table = table();
    let definition = crate::structural::tests::definition(&json!({
        "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
        "schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"size": {"type": "integer"}, "port": {"x-kubernetes-int-or-string": true}}},
            "status": {"type": "object", "nullable": true, "properties": {"a": {"type": "string"}}},
        }},
    }));
    for row in crate::structural::custom::rows(&definition).expect("rows") {
        table.add(row);
    }
    let document: Value = serde_json::from_slice(
        &v3(&table, "example.com", "v1", "v1.35.0", &One, Encoding::Json).expect("served"),
    )
    .expect("JSON");
    let schemas = &document["components"]["schemas"];
    assert_eq!(
        schemas["com.example.v1.Foo"]["properties"]["spec"]["properties"]["size"],
        json!({"type": "integer"})
    );
    // v3 says what an int-or-string may be; v2 has neither branches nor null.
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    assert_eq!(schemas["com.example.v1.Foo"]["properties"]["spec"]["properties"]["port"]["anyOf"], either);
    let legacy: Value = serde_json::from_slice(&v2(&table, "v1.35.0", &One)).expect("JSON");
    let legacy = &legacy["definitions"]["com.example.v1.Foo"]["properties"];
    assert_eq!(legacy["spec"]["properties"]["port"], json!({"x-kubernetes-int-or-string": true}));
    assert_eq!(legacy["status"], json!({}));
    assert_eq!(
        schemas["com.example.v1.Foo"]["x-kubernetes-group-version-kind"],
        json!([{"group": "example.com", "version": "v1", "kind": "Foo"}])
    );
    assert_eq!(
        schemas["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"]["properties"]["name"]["description"],
        "the name"
    );
    check_references(&document, "#/components/schemas/", schemas);
}

#[test]
fn descriptions_are_there_for_explain() {
    let texts = Descriptions::new();
    assert!(texts.len() > 2500, "{}", texts.len());
    assert_eq!(
        texts.get("io.k8s.api.core.v1.ContainerPort", ""),
        "ContainerPort represents a network port in a single container."
    );
    assert_eq!(
        texts.get("io.k8s.api.core.v1.ContainerPort", "containerPort"),
        "Number of port to expose on the pod's IP address. This must be a valid port number, 0 < x < 65536."
    );
    let document: Value = serde_json::from_slice(
        &v3(&table(), "apps", "v1", "v1.35.0", &texts, Encoding::Json).expect("served"),
    )
    .expect("JSON");
    let spec = &document["components"]["schemas"]["io.k8s.api.apps.v1.DeploymentSpec"];
    assert!(spec["description"].as_str().is_some_and(|text| text.starts_with("DeploymentSpec is")));
    assert_eq!(
        spec["properties"]["strategy"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.api.apps.v1.DeploymentStrategy"
    );
}

/// Facts of upstream's `api/openapi-spec/swagger.json` and `v3/`.
#[test]
fn operations_are_upstreams() {
    let document: Value = serde_json::from_slice(&v2(&table(), "v1.35.0", &Bare)).expect("JSON");
    let op = |path: &str, method: &str| {
        let op = &document["paths"][path][method];
        assert!(op.is_object(), "{method} {path} is missing");
        op.clone()
    };
    let codes =
        |op: &Value| op["responses"].as_object().expect("answers").keys().cloned().collect::<Vec<_>>();
    let answer = |op: &Value| op["responses"]["200"]["schema"]["$ref"].as_str().map(str::to_owned);
    let pods = "/api/v1/namespaces/{namespace}/pods";
    let pod = format!("{pods}/{{name}}");
    assert_eq!(
        op(pods, "get")["produces"],
        json!([
            "application/json",
            "application/yaml",
            "application/vnd.kubernetes.protobuf",
            "application/json;stream=watch",
            "application/vnd.kubernetes.protobuf;stream=watch"
        ])
    );
    for (path, method, expected) in [
        (pods, "post", &["200", "201", "202", "401"][..]),
        (&pod, "put", &["200", "201", "401"]),
        (&pod, "patch", &["200", "201", "401"]),
        (&pod, "delete", &["200", "202", "401"]),
        (pods, "delete", &["200", "401"]),
        (&format!("{pod}/status"), "put", &["200", "201", "401"]),
    ] {
        assert_eq!(codes(&op(path, method)), expected, "{method} {path}");
    }
    let status = "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.Status";
    assert_eq!(answer(&op(&pod, "delete")).as_deref(), Some("#/definitions/io.k8s.api.core.v1.Pod"));
    let job = "/apis/batch/v1/namespaces/{namespace}/jobs/{name}";
    assert_eq!(answer(&op(job, "delete")).as_deref(), Some(status));
    for (path, method, id, description) in [
        (
            format!("{pod}/exec"),
            "get",
            "connectCoreV1GetNamespacedPodExec",
            "connect GET requests to exec of Pod",
        ),
        (
            format!("{pod}/proxy/{{path}}"),
            "options",
            "connectCoreV1OptionsNamespacedPodProxyWithPath",
            "connect OPTIONS requests to proxy of Pod",
        ),
        (format!("{pod}/eviction"), "post", "createCoreV1NamespacedPodEviction", "create eviction of a Pod"),
        (
            "/api/v1/watch/namespaces/{namespace}/pods".to_owned(),
            "get",
            "watchCoreV1NamespacedPodList",
            "watch individual changes to a list of Pod. deprecated: use the 'watch' parameter with a list operation instead.",
        ),
        (
            "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/status".to_owned(),
            "put",
            "replaceAppsV1NamespacedDeploymentStatus",
            "replace status of the specified Deployment",
        ),
        ("/apis/apps/".to_owned(), "get", "getAppsAPIGroup", "get information of a group"),
        ("/version/".to_owned(), "get", "getCodeVersion", "get the version information for this server"),
    ] {
        let op = op(&path, method);
        assert_eq!((&op["operationId"], &op["description"]), (&json!(id), &json!(description)), "{path}");
    }
    let claim = &document["definitions"]["io.k8s.api.core.v1.PersistentVolumeSpec"]["properties"]["claimRef"];
    assert_eq!(claim["x-kubernetes-map-type"], "granular");
    let collection: Vec<Value> = op(pods, "delete")["parameters"].as_array().expect("parameters").clone();
    let named = |name: &str| collection.iter().any(|param| param["name"] == name);
    assert!(named("labelSelector") && named("propagationPolicy") && !named("watch"), "{collection:?}");
}

#[test]
fn every_document_of_the_index_is_there() {
    let table = table();
    let index = v3_index(&table, "v1.35.0");
    for place in ["api", "apis", "apis/apps", "version", "openid/v1/jwks", ".well-known/openid-configuration"]
    {
        assert!(index["paths"].get(place).is_some(), "{place} is not in the index");
        let bytes = v3_root(&table, place, "v1.35.0", &Bare, Encoding::Json).expect("a document");
        let document: Value = serde_json::from_slice(&bytes).expect("JSON");
        let path = format!("/{place}/");
        assert!(document["paths"][&path]["get"]["operationId"].is_string(), "{place}: {document}");
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in found {
            let name = reference.strip_prefix("#/components/schemas/").expect("a reference into the schemas");
            assert!(document["components"]["schemas"].get(name).is_some(), "{reference} leads nowhere");
        }
    }
    assert!(v3_root(&table, "apis/none", "v1.35.0", &Bare, Encoding::Json).is_none());
    assert_ne!(v3_root_hash("api", "1"), v3_root_hash("api", "2"));
}
