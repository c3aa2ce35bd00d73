//! Server-side apply and managed fields through the whole pipeline: stories with the facts of upstream's
//! `test/integration/apiserver/apply` (`applies.jsonl`: one a line, each with its file and test), and laws.

use std::collections::BTreeMap;

use keelson_daemon::{Clock, Context};
use serde_json::{Value, json};

use super::harness::*;

const STORIES: &str = include_str!("applies.jsonl");

/// A lab whose seconds pass when a story says so.
async fn lab() -> (Lab, Clock) {
    let clock = Clock::manual("2026-01-02T03:04:05Z".parse().unwrap());
    let (trigger, context) = Context::for_tests();
    let context = Context { clock: clock.clone(), ..context };
    (Lab::in_context(trigger, context, |_| {}).await, clock)
}

fn content_type(step: &str) -> &'static str {
    match step {
        "apply" => "application/apply-patch+yaml",
        "merge" => "application/merge-patch+json",
        "strategic" => "application/strategic-merge-patch+json",
        "json" => "application/json-patch+json",
        _ => "application/json",
    }
}

async fn send(lab: &Lab, step: &Value, body: &str) -> Answer {
    let what = step["do"].as_str().unwrap();
    let method = match what {
        "post" => "POST",
        "put" => "PUT",
        "get" => "GET",
        _ => "PATCH",
    };
    let mut query = Vec::new();
    if let Some(manager) = step["by"].as_str() {
        query.push(format!("fieldManager={manager}"));
    }
    if step["force"] == true {
        query.push("force=true".to_owned());
    }
    let path = format!("{}?{}", step["at"].as_str().unwrap(), query.join("&"));
    lab.send(method, &path, &[("content-type", content_type(what))], body.to_owned()).await
}

/// Managers as stories write them.
fn managers(object: &Value) -> Vec<Value> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    entries
        .iter()
        .map(|entry| {
            json!({"manager": text(&entry["manager"]), "operation": text(&entry["operation"]),
                "apiVersion": text(&entry["apiVersion"]), "subresource": text(&entry["subresource"]),
                "fields": entry["fieldsV1"]})
        })
        .collect()
}

/// Which managers own a field, by its place in the fields.
fn owners_of(object: &Value, field: &str) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let owning = entries.iter().filter(|entry| entry["fieldsV1"].pointer(field).is_some());
    let mut names: Vec<String> = owning.map(|entry| entry["manager"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn check(step: &Value, got: &Value, last: &Value) -> Result<(), String> {
    for (pointer, wanted) in step["see"].as_object().into_iter().flatten() {
        if got.pointer(pointer) != Some(wanted) {
            return Err(format!("{pointer} is {:?}, not {wanted}", got.pointer(pointer)));
        }
    }
    for (pointer, wanted) in step["count"].as_object().into_iter().flatten() {
        let count = got.pointer(pointer).and_then(Value::as_array).map(Vec::len);
        if count.map(|count| json!(count)).as_ref() != Some(wanted) {
            return Err(format!("{pointer} has {count:?} elements, not {wanted}: {got}"));
        }
    }
    for pointer in step["gone"].as_array().into_iter().flatten() {
        if let Some(there) = got.pointer(pointer.as_str().unwrap()) {
            return Err(format!("{pointer} is {there}"));
        }
    }
    for (field, wanted) in step["owners_of"].as_object().into_iter().flatten() {
        let names = owners_of(got, field);
        if json!(names) != *wanted {
            return Err(format!("{field} is owned by {names:?}, not {wanted}"));
        }
    }
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    match step["version"].as_str() {
        Some("same") if version(got) != version(last) => return Err(format!("{got} is not as {last}")),
        Some("other") if version(got) == version(last) => return Err(format!("{got} did not change")),
        _ => {}
    }
    let Some(wanted) = step["managers"].as_array() else { return Ok(()) };
    let mut found = managers(got);
    for (entry, wanted) in found.iter_mut().zip(wanted) {
        if wanted["fields"].is_null() {
            entry["fields"] = Value::Null;
        }
    }
    if found == *wanted { Ok(()) } else { Err(format!("managers {found:#?}\nnot {wanted:#?}")) }
}

async fn tell(story: &Value) -> Result<(), String> {
    let (lab, clock) = lab().await;
    if story["crd"].is_object() {
        lab.define(&story["crd"]).await;
    }
    let mut last = Value::Null;
    for (at, step) in story["steps"].as_array().unwrap().iter().enumerate() {
        if step["later"] == true {
            clock.advance(std::time::Duration::from_secs(2));
        }
        let mut body = if step["body"] == "$last" { last.clone() } else { step["body"].clone() };
        for (name, value) in step["rename"].as_object().into_iter().flatten() {
            for entry in body["metadata"]["managedFields"].as_array_mut().unwrap() {
                match value {
                    Value::Null => drop(entry.as_object_mut().unwrap().remove(name)),
                    value => entry[name] = value.clone(),
                }
            }
        }
        let answer = send(&lab, step, &body.to_string()).await;
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        if json!(answer.code) != step["code"] {
            return Err(format!("step {at}: {} instead of {}: {text}", answer.code, step["code"]));
        }
        let got = answer.json();
        check(step, &got, &last).map_err(|why| format!("step {at}: {why}"))?;
        if answer.code < 300 {
            last = got;
        }
    }
    Ok(())
}

#[tokio::test]
async fn stories_of_upstreams_integration_tests() {
    let mut failed = Vec::new();
    let stories: Vec<Value> = STORIES.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(stories.len() >= 45, "{}", stories.len());
    for story in &stories {
        if let Err(why) = tell(story).await {
            failed.push(format!("{}\n  {why}", story["from"]));
        }
    }
    assert!(failed.is_empty(), "{} of {} fail:\n{}", failed.len(), stories.len(), failed.join("\n"));
}

#[tokio::test]
async fn an_apply_is_checked() {
    let (lab, _) = lab().await;
    let apply = async |query: &str, kind: &str, body: &str| {
        let path = format!("{CONFIG_MAPS}/a?{query}");
        lab.send("PATCH", &path, &[("content-type", kind)], body.to_owned()).await
    };
    const YAML: &str = "application/apply-patch+yaml";
    let plain = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: v}}";
    let said = |answer: &Answer| answer.json()["message"].as_str().unwrap_or_default().to_owned();
    for (query, kind, body, code, text) in [
        ("", YAML, plain, 422, "fieldManager: Required value: is required for apply patch"),
        ("fieldManager=m&dryRun=Some", YAML, plain, 422, "dryRun"),
        ("fieldManager=m", "application/apply-patch+cbor", plain, 415, "415: Unsupported Media Type"),
        ("fieldManager=m", YAML, "a: [", 400, "error decoding YAML: "),
        ("fieldManager=m", YAML, "[]", 400, "error decoding YAML: "),
        (
            "fieldManager=m",
            YAML,
            "{kind: ConfigMap, apiVersion: v2}",
            400,
            "invalid object type: /v2, Kind=ConfigMap",
        ),
        (
            "fieldManager=m",
            YAML,
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, managedFields: []}}",
            400,
            "metadata.managedFields must be nil",
        ),
        (
            "fieldManager=m",
            YAML,
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, dta: {}}",
            500,
            "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .dta: field not declared in schema",
        ),
        (
            "fieldManager=m",
            YAML,
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, immutable: 7}",
            500,
            ".immutable: expected boolean, got &{7}",
        ),
        (
            "fieldManager=m",
            YAML,
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: b}}",
            400,
            "does not match the name on the URL",
        ),
        ("fieldManager=m", YAML, "{apiVersion: v1, kind: ConfigMap}", 400, "name must be provided"),
        (
            "fieldManager=m&fieldValidation=Strict",
            YAML,
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: b}\ndata: {c: d}\n",
            400,
            "error strict decoding YAML: ",
        ),
    ] {
        let answer = apply(query, kind, body).await;
        assert_eq!(answer.code, code, "{body}: {}", said(&answer));
        assert!(said(&answer).contains(text), "{body}: {}", said(&answer));
    }
    assert_eq!(lab.get(&format!("{CONFIG_MAPS}/a")).await.code, 404, "nothing was made");
    let dry = apply("fieldManager=m&dryRun=All", YAML, plain).await.expect(201);
    assert_eq!(owners_of(&dry, "/f:data/f:k"), ["m"]);
    assert_eq!(lab.get(&format!("{CONFIG_MAPS}/a")).await.code, 404);
    apply("fieldManager=m", YAML, plain).await.expect(201);
    let dry = apply("fieldManager=m&dryRun=All", YAML, &plain.replace("k: v", "k: w")).await.expect(200);
    assert_eq!(dry["data"]["k"], "w");
    assert_eq!(lab.get(&format!("{CONFIG_MAPS}/a")).await.expect(200)["data"]["k"], "v");
    let warned = apply(
        "fieldManager=m",
        YAML,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: x}\ndata: {k: v}\n",
    )
    .await;
    assert_eq!(warned.code, 200);
    assert!(!warned.warnings().is_empty());
    let status = lab
        .send(
            "PATCH",
            &format!("{PODS}/none/status?fieldManager=m"),
            &[("content-type", YAML)],
            "{apiVersion: v1, kind: Pod, metadata: {name: none}}",
        )
        .await;
    assert_eq!(status.code, 404, "a status is not made");
}

#[tokio::test]
async fn who_may_not_create_may_not_apply_what_is_not_there() {
    let lab = Lab::start().await;
    let panda = crate::UserInfo::authenticated("panda", &[]);
    let role = |verbs: &[&str]| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "pods"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]})
    };
    lab.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role(&["patch"])).await.expect(201);
    lab.post(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "pods"},
            "subjects": [{"kind": "User", "name": "panda", "apiGroup": "rbac.authorization.k8s.io"}],
            "roleRef": {"kind": "ClusterRole", "name": "pods", "apiGroup": "rbac.authorization.k8s.io"}}),
    )
    .await
    .expect(201);
    let path = format!("{PODS}/test-pod?fieldManager=m");
    let headers = [("content-type", "application/apply-patch+yaml")];
    let refused = lab.send_as(panda.clone(), "PATCH", &path, &headers, pod("test-pod").to_string()).await;
    let message = refused.expect(403)["message"].as_str().unwrap().to_owned();
    assert_eq!(
        message,
        "pods \"test-pod\" is forbidden: User \"panda\" cannot create resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    lab.put("/apis/rbac.authorization.k8s.io/v1/clusterroles/pods", &role(&["patch", "create"]))
        .await
        .expect(200);
    lab.send_as(panda, "PATCH", &path, &headers, pod("test-pod").to_string()).await.expect(201);
}

/// Fields of a set, as the JSON pointers of what they name, where the set goes by names only.
fn leaves(fields: &Value, object: &Value, at: &str, missing: &mut Vec<String>) {
    for (key, below) in fields.as_object().into_iter().flatten() {
        let (name, rest) = match key.split_at(key.len().min(2)) {
            ("f:", name) => (name, object.get(name)),
            ("k:", keys) => {
                let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap();
                let of = |item: &&Value| keys.iter().all(|(key, value)| item.get(key) == Some(value));
                ("item", object.as_array().and_then(|items| items.iter().find(of)))
            }
            ("v:", value) => {
                let value: Value = serde_json::from_str(value).unwrap();
                let found = object.as_array().and_then(|items| items.iter().find(|item| **item == value));
                ("value", found)
            }
            _ => continue,
        };
        match rest {
            Some(object) => leaves(below, object, &format!("{at}/{name}"), missing),
            None => missing.push(format!("{at}/{key}")),
        }
    }
}

#[tokio::test]
async fn applies_are_idempotent_and_owners_own_what_is_there() {
    let (lab, clock) = lab().await;
    let path = "/apis/apps/v1/namespaces/default/deployments/web";
    let send = async |manager: &str, kind: &str, force: bool, body: &Value| {
        clock.advance(std::time::Duration::from_secs(1));
        let path = format!("{path}?fieldManager={manager}&force={force}");
        let path = if kind == "apply-patch+yaml" { path } else { path.replace("&force=false", "") };
        lab.patch(&path, kind, body).await
    };
    let with = |replicas: Option<u32>, images: &[(&str, &str)], ports: &[u32]| {
        let mut object = deployment("web");
        object["spec"]["replicas"] = json!(replicas);
        if replicas.is_none() {
            object["spec"].as_object_mut().unwrap().remove("replicas");
        }
        object["spec"]["template"]["spec"]["containers"] = images
            .iter()
            .map(|(name, image)| {
                let ports: Vec<Value> = ports.iter().map(|port| json!({"containerPort": port})).collect();
                json!({"name": name, "image": image, "ports": ports})
            })
            .collect();
        object
    };
    let configurations = [
        ("one", with(Some(2), &[("a", "x")], &[80])),
        ("two", with(None, &[("a", "x"), ("b", "y")], &[80, 81])),
        ("one", with(Some(3), &[("a", "z")], &[])),
        ("three", with(Some(3), &[("c", "w"), ("a", "z")], &[82])),
        ("two", with(None, &[("b", "y")], &[])),
        ("one", with(None, &[("a", "q")], &[80])),
        ("three", with(None, &[("a", "q")], &[])),
    ];
    for (manager, configuration) in &configurations {
        let once = send(manager, "apply-patch+yaml", true, configuration).await;
        assert!(once.code < 300, "{}", String::from_utf8_lossy(&once.bytes));
        let once = once.json();
        let twice = send(manager, "apply-patch+yaml", false, configuration).await.expect(200);
        assert_eq!(once, twice, "a second apply changes nothing");
        lab.patch(
            &format!("{path}/status?fieldManager=status"),
            "merge-patch+json",
            &json!({"status": {"observedGeneration": 1}}),
        )
        .await
        .expect(200);
        send("patcher", "merge-patch+json", false, &json!({"metadata": {"labels": {"by": manager}}}))
            .await
            .expect(200);
        let now = lab.get(path).await.expect(200);
        for entry in now["metadata"]["managedFields"].as_array().unwrap() {
            let mut missing = Vec::new();
            leaves(&entry["fieldsV1"], &now, "", &mut missing);
            assert!(missing.is_empty(), "{} owns what is not there: {missing:?}\n{now}", entry["manager"]);
        }
    }
}

/// A null in a list's key is what the field holds without it: the same item is found again.
#[tokio::test]
async fn a_key_that_is_null_is_the_fields_default() {
    let (lab, _) = lab().await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 80, "protocol": null, "name": "a"}]}});
    let path = "/api/v1/namespaces/default/services/s?fieldManager=m";
    let once = lab.patch(path, "apply-patch+yaml", &service).await.expect(201);
    assert_eq!(once["spec"]["ports"].as_array().unwrap().len(), 1);
    let owned = &once["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:ports"];
    assert!(owned.get("k:{\"port\":80,\"protocol\":\"TCP\"}").is_some(), "{owned}");
    let twice = lab.patch(path, "apply-patch+yaml", &service).await.expect(200);
    assert_eq!(once, twice);
}

#[tokio::test]
async fn every_write_names_its_manager() {
    let (lab, _) = lab().await;
    let agent = [
        ("content-type", "application/json"),
        ("user-agent", "kubectl/v1.35.0 (linux/amd64) kubernetes/abc"),
    ];
    let made = lab.send("POST", PODS, &agent, pod("web").to_string()).await.expect(201);
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!(
        (entry["manager"].as_str(), entry["operation"].as_str(), entry["time"].as_str()),
        (Some("kubectl"), Some("Update"), Some("2026-01-02T03:04:05Z"))
    );
    // What admission adds (the token's volume, the default tolerations) is nobody's.
    assert_eq!(
        entry["fieldsV1"],
        json!({"f:spec": {
            "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {},
                "f:resources": {}, "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {}}},
            "f:dnsPolicy": {}, "f:enableServiceLinks": {}, "f:restartPolicy": {}, "f:schedulerName": {},
            "f:securityContext": {}, "f:terminationGracePeriodSeconds": {}}})
    );
    // A binding is nobody's; a status is its writer's, under its subresource.
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "web"}, "target": {"kind": "Node", "name": "n1"}});
    lab.post(&format!("{PODS}/web/binding?fieldManager=scheduler"), &binding).await.expect(201);
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let now = lab
        .patch(&format!("{PODS}/web/status?fieldManager=kubelet"), "strategic-merge-patch+json", &status)
        .await
        .expect(200);
    let entries = now["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 2, "{now}");
    assert_eq!(
        (entries[1]["manager"].as_str(), entries[1]["subresource"].as_str()),
        (Some("kubelet"), Some("status"))
    );
    assert_eq!(
        entries[1]["fieldsV1"],
        json!({"f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}": {".": {}, "f:lastProbeTime": {},
            "f:lastTransitionTime": {}, "f:status": {}, "f:type": {}}}, "f:phase": {}}})
    );
    let odd = "x".repeat(300);
    let made = lab
        .send(
            "POST",
            CONFIG_MAPS,
            &[("content-type", "application/json"), ("user-agent", &odd)],
            config_map("a", json!({})).to_string(),
        )
        .await
        .expect(201);
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "x".repeat(128));
}
