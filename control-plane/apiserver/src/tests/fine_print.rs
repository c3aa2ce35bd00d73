//! What upstream's server does that no document tells: facts of `kube-apiserver` v1.35.1 itself (`tests/upstream`).

use serde_json::json;

use super::harness::*;

const DAEMON_SETS: &str = "/apis/apps/v1/namespaces/default/daemonsets";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

#[tokio::test]
async fn an_owner_is_kept_once() {
    let lab = Lab::start().await;
    let owner = |uid: &str, name: &str| json!({"apiVersion": "v1", "kind": "X", "name": name, "uid": uid});
    let mut object = config_map("a", json!({}));
    let owners = [owner("u1", "o"), owner("u1", "o"), owner("u2", "o"), owner("u1", "p"), owner("u2", "o")];
    object["metadata"]["ownerReferences"] = json!(owners);
    let kept = json!([owner("u1", "o"), owner("u2", "o"), owner("u1", "p")]);
    let warning = |when: &str, uids: &str| {
        format!(
            "299 - \".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {uids}\""
        )
    };
    let path = format!("{CONFIG_MAPS}/a");
    let made = lab.post(CONFIG_MAPS, &object).await;
    assert_eq!(made.warnings(), [warning("", "u1, u2")]);
    assert_eq!(made.expect(201)["metadata"]["ownerReferences"], kept);
    let put = lab.put(&path, &object).await;
    assert_eq!(put.warnings(), [warning("", "u1, u2")]);
    assert_eq!(put.expect(200)["metadata"]["ownerReferences"], kept);
    let patch = json!([{"op": "add", "path": "/metadata/ownerReferences/-", "value": owner("u1", "o")}]);
    let patched = lab.patch(&path, "json-patch+json", &patch).await;
    assert_eq!(patched.warnings(), [warning(" after mutating admission happens", "u1")]);
    assert_eq!(patched.expect(200)["metadata"]["ownerReferences"], kept);
}

#[tokio::test]
async fn numbers_kept_in_annotations_are_numbers() {
    const TEMPLATE: &str = "deprecated.daemonset.template.generation";
    const ROLLBACK: &str = "deprecated.deployment.rollback.to";
    let lab = Lab::start().await;
    let set = |value: &str| {
        let mut set = deployment("s");
        set["kind"] = "DaemonSet".into();
        set["spec"].as_object_mut().unwrap().remove("replicas");
        set["metadata"]["annotations"] = json!({TEMPLATE: value});
        set
    };
    let path = format!("{DAEMON_SETS}/s");
    lab.post(DAEMON_SETS, &set("7")).await.expect(201);
    for (value, why) in [
        ("y", "parsing \"y\": invalid syntax"),
        ("", "parsing \"\": invalid syntax"),
        ("9223372036854775808", "parsing \"9223372036854775808\": value out of range"),
    ] {
        let why = format!("strconv.ParseInt: {why}");
        let cannot = format!("DaemonSet in version \"v1\" cannot be handled as a DaemonSet: {why}");
        assert_eq!(lab.post(DAEMON_SETS, &set(value)).await.expect(400)["message"], cannot);
        assert_eq!(lab.put(&path, &set(value)).await.expect(400)["message"], cannot);
        let patch = json!({"metadata": {"annotations": {TEMPLATE: value}}});
        let merged = lab.patch(&path, "merge-patch+json", &patch).await.expect(422);
        let cause = &merged["details"]["causes"][0];
        assert_eq!(cause["field"], "patch");
        assert!(cause["message"].as_str().unwrap().ends_with(&why), "{merged}");
        let merged = lab.patch(&path, "strategic-merge-patch+json", &patch).await.expect(500);
        assert_eq!(merged["message"], why);
    }
    lab.put(&path, &set("+5")).await.expect(200);
    let mut object = deployment("d");
    object["metadata"]["annotations"] = json!({ROLLBACK: "y"});
    let refused = lab.post(DEPLOYMENTS, &object).await.expect(400);
    let why = format!(
        "failed to parse annotation[{ROLLBACK}]=y as int64: strconv.ParseInt: parsing \"y\": invalid syntax"
    );
    assert_eq!(
        refused["message"],
        format!("Deployment in version \"v1\" cannot be handled as a Deployment: {why}")
    );
    object["metadata"]["annotations"] = json!({ROLLBACK: ""});
    lab.post(DEPLOYMENTS, &object).await.expect(201);
}

#[tokio::test]
async fn a_scale_has_metadata_to_show() {
    let lab = Lab::start().await;
    lab.post(DEPLOYMENTS, &deployment("web")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/web/scale");
    let one = [("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")];
    let shown = lab.send("GET", &path, &one, "").await.expect(200);
    assert_eq!(
        (&shown["kind"], &shown["apiVersion"]),
        (&json!("PartialObjectMetadata"), &json!("meta.k8s.io/v1"))
    );
    assert_eq!((&shown["metadata"]["name"], &shown["spec"]), (&json!("web"), &json!(null)));
    let list = [("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")];
    let refused = lab.send("GET", &path, &list, "").await.expect(406);
    assert_eq!(
        refused["message"],
        "you requested PartialObjectMetadataList, but the requested object is not a list (*autoscaling.Scale)"
    );
}

#[tokio::test]
async fn the_older_way_to_bind_takes_no_preconditions() {
    let lab = Lab::start().await;
    lab.post(PODS, &pod("p")).await.expect(201);
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p", "uid": "another", "resourceVersion": "1"},
        "target": {"kind": "Node", "name": "n"},
    });
    lab.post(&format!("{PODS}/p/binding"), &binding).await.expect(409);
    lab.post("/api/v1/namespaces/default/bindings", &binding).await.expect(201);
    assert_eq!(lab.get(&format!("{PODS}/p")).await.expect(200)["spec"]["nodeName"], "n");
}
