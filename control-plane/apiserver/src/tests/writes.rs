//! Creates, updates, patches and subresources.

use serde_json::{Value, json};

use super::harness::*;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

#[tokio::test]
async fn a_put_keeps_what_it_may_not_touch() {
    let lab = Lab::start().await;
    let made = lab.post(DEPLOYMENTS, &deployment("web")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/web");
    assert_eq!(made["metadata"]["generation"], 1);
    assert!(made["metadata"]["creationTimestamp"].is_string() && made["status"].is_object());
    // status: spec and metadata stay.
    let mut status = made.clone();
    status["status"] = json!({"observedGeneration": 1, "replicas": 1});
    status["spec"]["replicas"] = 7.into();
    let after = lab.put(&format!("{path}/status"), &status).await.expect(200);
    assert_eq!(
        (after["spec"]["replicas"].as_i64(), after["status"]["replicas"].as_i64()),
        (Some(1), Some(1))
    );
    assert_eq!(after["metadata"]["generation"], 1, "status does not raise the generation");
    // main: uid, creationTimestamp and status stay, generation rises with the spec.
    let mut changed = deployment("web");
    changed["spec"]["replicas"] = 3.into();
    changed["status"] = json!({"replicas": 99});
    let after = lab.put(&path, &changed).await.expect(200);
    assert_eq!(after["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(after["metadata"]["creationTimestamp"], made["metadata"]["creationTimestamp"]);
    assert_eq!(
        (after["status"]["replicas"].as_i64(), after["metadata"]["generation"].as_i64()),
        (Some(1), Some(2))
    );
    // A no-op makes no revision.
    let revision = lab.revision().await;
    let same = lab.put(&path, &changed).await.expect(200);
    assert_eq!(same["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);
    lab.patch(&path, "merge-patch+json", &json!({"spec": {"replicas": 3}})).await.expect(200);
    assert_eq!(lab.revision().await, revision);
    // An old resourceVersion is a conflict; another uid too; an immutable field is 422.
    let mut stale = after.clone();
    stale["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    let status = lab.put(&path, &stale).await.expect(409);
    assert_eq!(
        (status["reason"].as_str(), status["details"]["kind"].as_str()),
        (Some("Conflict"), Some("deployments"))
    );
    let mut other = changed.clone();
    other["metadata"]["uid"] = "another".into();
    lab.put(&path, &other).await.expect(409);
    let mut immutable = changed.clone();
    immutable["spec"]["selector"]["matchLabels"] = json!({"app": "x"});
    immutable["spec"]["template"]["metadata"]["labels"] = json!({"app": "x"});
    let status = lab.put(&path, &immutable).await.expect(422);
    assert_eq!(
        (status["reason"].as_str(), status["details"]["causes"][0]["field"].as_str()),
        (Some("Invalid"), Some("spec.selector"))
    );
}

#[tokio::test]
async fn creates_are_checked() {
    let lab = Lab::start().await;
    lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
    let again = lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(409);
    assert_eq!(again["reason"], "AlreadyExists");
    assert_eq!(again["message"], "configmaps \"a\" already exists");
    let missing =
        lab.post("/api/v1/namespaces/nowhere/configmaps", &config_map("a", json!({}))).await.expect(404);
    assert_eq!(missing["details"]["kind"], "namespaces");
    let bad = lab.post(CONFIG_MAPS, &config_map("Bad_Name", json!({}))).await.expect(422);
    assert_eq!(bad["details"]["causes"][0]["field"], "metadata.name");
    let mut elsewhere = config_map("b", json!({}));
    elsewhere["metadata"]["namespace"] = "other".into();
    lab.post(CONFIG_MAPS, &elsewhere).await.expect(400);
    let mut wrong = config_map("b", json!({}));
    wrong["kind"] = "Secret".into();
    lab.post(CONFIG_MAPS, &wrong).await.expect(400);
    lab.send("POST", CONFIG_MAPS, &[], "{").await.expect(400);
    let mut mismatched = deployment("web");
    mismatched["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
    let status = lab.post(DEPLOYMENTS, &mismatched).await.expect(422);
    assert!(status["message"].as_str().unwrap().contains("selector"), "{status}");
    for text in [again.to_string(), missing.to_string(), bad.to_string()] {
        assert!(!text.contains("/registry"), "no storage key shows: {text}");
    }
}

#[tokio::test]
async fn names_are_generated() {
    let lab = Lab::start().await;
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "gen-"}});
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let made = lab.post(CONFIG_MAPS, &object).await.expect(201);
        let name = made["metadata"]["name"].as_str().unwrap().to_owned();
        assert!(name.starts_with("gen-") && name.len() == 9, "{name}");
        assert!(seen.insert(name));
    }
}

#[tokio::test]
async fn unknown_and_duplicate_fields() {
    let lab = Lab::start().await;
    let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"NAME","nme":1},"dta":{},"data":{},"data":{"a":"b"}}"#;
    let send = |name: &str, mode: &str| {
        let (body, path) = (body.replace("NAME", name), format!("{CONFIG_MAPS}?fieldValidation={mode}"));
        let lab = &lab;
        async move { lab.send("POST", &path, &[("content-type", "application/json")], body).await }
    };
    let strict = send("a", "Strict").await.expect(400);
    let text = strict["message"].as_str().unwrap();
    for part in ["unknown field \"dta\"", "unknown field \"metadata.nme\"", "duplicate field \"data\""] {
        assert!(text.contains(part), "{text}");
    }
    let warned = send("a", "Warn").await;
    warned.expect(201);
    let warnings = warned.warnings();
    assert!(warnings.contains(&"299 - \"unknown field \\\"dta\\\"\"".to_owned()), "{warnings:?}");
    let ignored = send("b", "Ignore").await;
    ignored.expect(201);
    assert!(ignored.warnings().is_empty());
}

#[tokio::test]
async fn what_nothing_acts_on_says_so() {
    let lab = Lab::start().await;
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    });
    let answer = lab.post("/apis/networking.k8s.io/v1/namespaces/default/networkpolicies", &object).await;
    answer.expect(201);
    assert!(
        answer.warnings().iter().any(|text| text.contains("nothing in this cluster acts on them")),
        "{:?}",
        answer.warnings()
    );
}

#[tokio::test]
async fn dry_runs_store_nothing() {
    let lab = Lab::start().await;
    let revision = lab.revision().await;
    let made = lab.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a", json!({}))).await.expect(201);
    assert!(made["metadata"]["uid"].is_string());
    lab.get(&format!("{CONFIG_MAPS}/a")).await.expect(404);
    assert_eq!(lab.revision().await, revision);
    lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
    let revision = lab.revision().await;
    let patched = lab
        .patch(&format!("{CONFIG_MAPS}/a?dryRun=All"), "merge-patch+json", &json!({"data": {"k": "z"}}))
        .await
        .expect(200);
    assert_eq!(patched["data"]["k"], "z");
    lab.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a", json!({}))).await.expect(409);
    lab.delete(&format!("{CONFIG_MAPS}/a?dryRun=All")).await.expect(200);
    assert_eq!(lab.revision().await, revision);
    lab.post(&format!("{CONFIG_MAPS}?dryRun=Some"), &config_map("b", json!({}))).await.expect(422);
}

#[tokio::test]
async fn patches_of_all_kinds() {
    let lab = Lab::start().await;
    let mut object = deployment("web");
    object["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]);
    lab.post(DEPLOYMENTS, &object).await.expect(201);
    let path = format!("{DEPLOYMENTS}/web");
    let strategic = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "env": [{"name": "A", "$patch": "delete"}, {"name": "C", "value": "3"}]}]}}}});
    let after = lab.patch(&path, "strategic-merge-patch+json", &strategic).await.expect(200);
    let env = &after["spec"]["template"]["spec"]["containers"][0]["env"];
    let mut names: Vec<&str> =
        env.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(
        (names, after["spec"]["template"]["spec"]["containers"][0]["image"].as_str()),
        (vec!["B", "C"], Some("nginx"))
    );
    let json_patch = json!([{"op": "test", "path": "/spec/replicas", "value": 1}, {"op": "replace", "path": "/spec/replicas", "value": 4}]);
    let after = lab.patch(&path, "json-patch+json", &json_patch).await.expect(200);
    assert_eq!(after["spec"]["replicas"], 4);
    lab.patch(&path, "json-patch+json", &json_patch).await.expect(422);
    let stale = json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 5}});
    lab.patch(&path, "merge-patch+json", &stale).await.expect(409);
    lab.patch(&path, "merge-patch+json", &json!({"metadata": {"name": "other"}})).await.expect(400);
    lab.patch(&format!("{DEPLOYMENTS}/none"), "merge-patch+json", &json!({})).await.expect(404);
}

#[tokio::test]
async fn concurrent_patches_all_land() {
    // On a store whose commits take time: in memory no two writes ever meet.
    let folder = tempfile::tempdir().unwrap();
    let store = keelson_store::SqliteStore::open(keelson_store::SqliteOptions::new(folder.path())).unwrap();
    let (trigger, context) = keelson_daemon::Context::for_tests();
    let lab = std::sync::Arc::new(Lab::over(std::sync::Arc::new(store), trigger, context, |_| {}).await);
    lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
    let tasks: Vec<_> = (0..24)
        .map(|n| {
            let lab = lab.clone();
            tokio::spawn(async move {
                for round in 0..20 {
                    let patch: Value = json!({"data": {format!("k{n}"): format!("{round}")}});
                    lab.patch(&format!("{CONFIG_MAPS}/a"), "merge-patch+json", &patch).await.expect(200);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let after = lab.get(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    assert_eq!(after["data"].as_object().unwrap().len(), 25);
}

#[tokio::test]
async fn protobuf_bodies_are_taken() {
    let lab = Lab::start().await;
    let (mut doc, _) = keelson_api::json::decode(
        keelson_api::t::core_v1::CONFIG_MAP,
        config_map("proto", json!({})).to_string().as_bytes(),
        keelson_api::json::FieldValidation::Strict,
    )
    .unwrap();
    doc.gvk = keelson_api::doc::Gvk::new("", "v1", "ConfigMap");
    let mut body = Vec::new();
    keelson_api::proto::encode(&doc, &mut body).unwrap();
    let media = "application/vnd.kubernetes.protobuf";
    let answer = lab.send("POST", CONFIG_MAPS, &[("content-type", media), ("accept", media)], body).await;
    assert_eq!((answer.code, answer.headers["content-type"].to_str().unwrap()), (201, media));
    let made = keelson_api::proto::decode(keelson_api::t::core_v1::CONFIG_MAP, &answer.bytes).unwrap();
    assert!(!made.meta().uid().is_empty());
}

#[tokio::test]
async fn scale_is_a_view_of_replicas() {
    let lab = Lab::start().await;
    lab.post(DEPLOYMENTS, &deployment("web")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/web/scale");
    let scale = lab.get(&path).await.expect(200);
    assert_eq!(
        (scale["kind"].as_str(), scale["spec"]["replicas"].as_i64(), scale["status"]["selector"].as_str()),
        (Some("Scale"), Some(1), Some("app=web"))
    );
    let after = lab.patch(&path, "merge-patch+json", &json!({"spec": {"replicas": 5}})).await.expect(200);
    assert_eq!(after["spec"]["replicas"], 5);
    assert_eq!(lab.get(&format!("{DEPLOYMENTS}/web")).await.expect(200)["spec"]["replicas"], 5);
    let mut put = after.clone();
    put["spec"]["replicas"] = 2.into();
    lab.put(&path, &put).await.expect(200);
    lab.put(&path, &put).await.expect(409);
    lab.patch(&path, "merge-patch+json", &json!({"spec": {"replicas": -1}})).await.expect(422);
}

#[tokio::test]
async fn a_binding_gives_a_pod_its_node_once() {
    let lab = Lab::start().await;
    lab.post(PODS, &pod("p")).await.expect(201);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"}});
    lab.post(&format!("{PODS}/p/binding"), &binding).await.expect(201);
    let bound = lab.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    let conditions = bound["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|one| one["type"] == "PodScheduled" && one["status"] == "True"), "{bound}");
    lab.post(&format!("{PODS}/p/binding"), &binding).await.expect(409);
    lab.post(&format!("{PODS}/none/binding"), &json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "none"}, "target": {"name": "n1"}})).await.expect(404);
}

#[tokio::test]
async fn versions_and_reviews() {
    let lab = Lab::start().await;
    let hpa = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"}},
    });
    lab.post("/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", &hpa).await.expect(201);
    let v1 = lab.get("/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers/h").await.expect(200);
    assert_eq!(
        (v1["apiVersion"].as_str(), v1["spec"]["maxReplicas"].as_i64()),
        (Some("autoscaling/v1"), Some(3))
    );
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "create", "resource": "pods", "namespace": "default"}},
    });
    let answer =
        lab.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review).await.expect(201);
    assert_eq!(answer["status"]["allowed"], true);
    let nobody = crate::UserInfo::authenticated("nobody", &[]);
    let body = review.to_string();
    let answer = lab
        .send_as(nobody.clone(), "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &[], body)
        .await
        .expect(201);
    assert_eq!(answer["status"]["allowed"], false);
    let refused = lab.send_as(nobody, "GET", PODS, &[], "").await.expect(403);
    assert_eq!(
        refused["message"],
        "pods is forbidden: User \"nobody\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let token = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let issued =
        lab.post("/api/v1/namespaces/default/serviceaccounts/default/token", &token).await.expect(201);
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": issued["status"]["token"]}});
    let answer = lab.post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.expect(201);
    assert_eq!(answer["status"]["user"]["username"], "system:serviceaccount:default:default", "{answer}");
}

/// The value in the error is the patched object, or the patch as Go prints it where it is a strategic one (upstream:
/// `handlers/patch.go`).
#[tokio::test]
async fn a_strict_patch_quotes_what_it_made() {
    let lab = Lab::start().await;
    lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a?fieldValidation=Strict");
    let refused = async |kind: &str, patch: Value| {
        lab.patch(&path, kind, &patch).await.expect(422)["message"].as_str().unwrap().to_owned()
    };
    const END: &str = ": strict decoding error: unknown field \"nothing\"";
    for (kind, patch) in [
        ("merge-patch+json", json!({"nothing": 1, "data": {"k": "new"}})),
        (
            "json-patch+json",
            json!([{"op": "add", "path": "/nothing", "value": 1}, {"op": "replace", "path": "/data/k", "value": "new"}]),
        ),
    ] {
        let message = refused(kind, patch).await;
        let start = " \"\" is invalid: patch: Invalid value: \"{\\\"apiVersion\\\":\\\"v1\\\",\\\"data\\\":{\\\"k\\\":\\\"new\\\"},\\\"kind\\\":\\\"ConfigMap\\\",\\\"metadata\\\":{";
        assert!(message.starts_with(start) && message.ends_with(END), "{message}");
        assert!(message.contains("\\\"nothing\\\":1}\""), "{message}");
    }
    let message =
        refused("strategic-merge-patch+json", json!({"nothing": [1, null], "data": {"k": "new"}})).await;
    assert_eq!(
        message,
        format!(" \"\" is invalid: patch: Invalid value: \"map[data:map[k:new] nothing:[1 <nil>]]\"{END}")
    );
}

#[tokio::test]
async fn what_a_body_says_it_is_must_be_that() {
    let lab = Lab::start().await;
    lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let message = |answer: Answer, code: u16| answer.expect(code)["message"].as_str().unwrap().to_owned();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"}});
    assert_eq!(
        message(lab.post(CONFIG_MAPS, &pod).await, 400),
        "Pod in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown conversion"
    );
    let newer = json!({"apiVersion": "v9", "kind": "ConfigMap", "metadata": {"name": "b"}});
    assert_eq!(
        message(lab.post(CONFIG_MAPS, &newer).await, 400),
        "ConfigMap in version \"v9\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \"v9\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""
    );
    let other = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "b"}});
    assert_eq!(
        message(lab.post("/api/v1/namespaces/default/events", &other).await, 400),
        "the API version in the data (events.k8s.io/v1) does not match the expected API version (v1)"
    );
    const ELSEWHERE: &str =
        "the namespace of the provided object does not match the namespace sent on the request";
    let mut elsewhere = config_map("a", json!({}));
    elsewhere["metadata"]["namespace"] = "other".into();
    assert_eq!(message(lab.put(&path, &elsewhere).await, 400), ELSEWHERE);
    for kind in ["merge-patch+json", "strategic-merge-patch+json"] {
        let patch = json!({"metadata": {"namespace": "other"}});
        assert_eq!(message(lab.patch(&path, kind, &patch).await, 400), ELSEWHERE, "{kind}");
    }
    let applied =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "other"}});
    assert_eq!(
        message(lab.patch(&format!("{path}?fieldManager=m"), "apply-patch+yaml", &applied).await, 400),
        ELSEWHERE
    );
    for patch in [json!({"kind": "Pod"}), json!({"apiVersion": "v9"})] {
        let refused = message(lab.patch(&path, "merge-patch+json", &patch).await, 422);
        assert!(refused.contains("patch: Invalid value: "), "{refused}");
        lab.patch(&path, "strategic-merge-patch+json", &patch).await.expect(200);
    }
    let dry = lab.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("b", json!({}))).await.expect(201);
    assert!(dry["metadata"]["resourceVersion"].is_null(), "{dry}");
    let headers = [("accept", "application/yaml"), ("content-type", "application/json")];
    let body = config_map("b", json!({})).to_string();
    let dry = lab.send("POST", &format!("{CONFIG_MAPS}?dryRun=All"), &headers, body).await;
    assert!(!String::from_utf8_lossy(&dry.bytes).contains("resourceVersion"), "{dry:?}");
}

#[tokio::test]
async fn a_scale_is_of_the_object_in_the_path() {
    let lab = Lab::start().await;
    const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
    lab.post(DEPLOYMENTS, &deployment("d")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d/scale");
    let scale = |meta: Value| json!({"metadata": meta, "spec": {"replicas": 3}});
    for (meta, text) in [
        (json!({"name": "x"}), "the name of the object (x) does not match the name on the URL (d)"),
        (json!({}), "the name of the object (d based on URL) was undeterminable: name must be provided"),
        (
            json!({"name": "d", "namespace": "x"}),
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
    ] {
        assert_eq!(lab.put(&path, &scale(meta)).await.expect(400)["message"], text);
    }
    let unknown = json!({"spec": {"replicas": 3, "other": 1}});
    let refused =
        lab.patch(&format!("{path}?fieldValidation=Strict"), "merge-patch+json", &unknown).await.expect(422);
    assert!(refused["message"].as_str().unwrap().ends_with("unknown field \"spec.other\""), "{refused}");
    assert_eq!(
        lab.patch(&path, "merge-patch+json", &unknown).await.warnings(),
        ["299 - \"unknown field \\\"spec.other\\\"\""]
    );
    assert_eq!(lab.put(&path, &scale(json!({"name": "d"}))).await.expect(200)["spec"]["replicas"], 3);
}

/// Roles may have no rules at all, which is stored as null: made, read by the authorizer, aggregated.
#[tokio::test]
async fn roles_without_rules() {
    const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let lab = Lab::start().await;
    let meta = json!({"name": "none"});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": meta});
    let made = lab.post(ROLES, &role).await.expect(201);
    assert_eq!(made["rules"], Value::Null);
    let mut role = role.clone();
    role["metadata"]["name"] = json!("aggregated");
    role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    lab.post(ROLES, &role).await.expect(201);
    let rules = json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
    lab.patch(&format!("{ROLES}/none"), "merge-patch+json", &rules).await.expect(200);
    lab.patch(&format!("{ROLES}/none"), "merge-patch+json", &json!({"rules": null})).await.expect(200);
}

/// `ValidateSubjectAccessReview` and its kin.
#[tokio::test]
async fn what_access_reviews_may_not_say() {
    let lab = Lab::start().await;
    let review = |kind: &str, metadata: Value, attributes: Value| {
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "metadata": metadata,
            "spec": {"user": "u", "resourceAttributes": attributes}})
    };
    let all = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let local = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews";
    let pods = json!({"verb": "list", "resource": "pods", "namespace": "default"});
    let named = json!({"name": "x"});
    let causes = |answer: Value| {
        let causes = answer["details"]["causes"].as_array().unwrap().clone();
        causes
            .iter()
            .map(|c| format!("{}: {}", c["field"].as_str().unwrap(), c["message"].as_str().unwrap()))
            .collect::<Vec<_>>()
    };
    let answer = lab.post(all, &review("SubjectAccessReview", named.clone(), pods.clone())).await.expect(422);
    assert_eq!(causes(answer), ["metadata: Invalid value: {\"name\":\"x\"}: must be empty"]);
    let answer = lab.post(local, &review("LocalSubjectAccessReview", named, pods.clone())).await.expect(422);
    assert!(causes(answer)[0].ends_with("must be empty except for namespace"));
    lab.post(local, &review("LocalSubjectAccessReview", json!({"namespace": "default"}), pods.clone()))
        .await
        .expect(201);

    let mut selecting = pods.clone();
    selecting["fieldSelector"] =
        json!({"rawSelector": "a=b", "requirements": [{"key": "", "operator": "In"}]});
    selecting["labelSelector"] = json!({});
    let answer = lab.post(all, &review("SubjectAccessReview", json!({}), selecting)).await.expect(422);
    assert_eq!(
        causes(answer),
        [
            "spec.resourceAttributes.fieldSelector.rawSelector: Invalid value: \"a=b\": may not specified at the same \
             time as requirements",
            "spec.resourceAttributes.fieldSelector.requirements[0].key: Required value: must be specified",
            "spec.resourceAttributes.fieldSelector.requirements[0].values: Required value: must be specified when \
             `operator` is 'In' or 'NotIn'",
            "spec.resourceAttributes.labelSelector.requirements: Required value: when \
             spec.resourceAttributes.labelSelector is specified, requirements or rawSelector is required",
        ]
    );
}

/// Types whose strategies say no to AllowUnconditionalUpdate want the version that an update is made from.
#[tokio::test]
async fn some_types_are_not_overwritten_unseen() {
    let lab = Lab::start().await;
    let hooks = "/apis/admissionregistration.k8s.io/v1";
    let rules =
        json!([{"apiGroups": ["x.y"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]}]);
    let policy =
        json!({"validations": [{"expression": "true"}], "matchConstraints": {"resourceRules": rules}});
    for (path, kind, body) in [
        ("/apis/storage.k8s.io/v1/csinodes".to_owned(), "CSINode", json!({"spec": {"drivers": []}})),
        (format!("{hooks}/validatingwebhookconfigurations"), "ValidatingWebhookConfiguration", json!({})),
        (format!("{hooks}/mutatingwebhookconfigurations"), "MutatingWebhookConfiguration", json!({})),
        (
            format!("{hooks}/validatingadmissionpolicies"),
            "ValidatingAdmissionPolicy",
            json!({"spec": policy}),
        ),
    ] {
        let group = path.trim_start_matches("/apis/").rsplit_once('/').unwrap().0;
        let mut object = body;
        object["apiVersion"] = group.into();
        object["kind"] = kind.into();
        object["metadata"] = json!({"name": "x"});
        let made = lab.post(&path, &object).await.expect(201);
        let refused = lab.put(&format!("{path}/x"), &object).await.expect(422);
        assert_eq!(refused["details"]["causes"][0]["field"], "metadata.resourceVersion", "{kind}");
        object["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
        lab.put(&format!("{path}/x"), &object).await.expect(200);
    }
}

/// What upstream answers, and ours once did not: each step is what a client of theirs relied on.
#[tokio::test]
async fn admission_comes_before_what_the_type_prepares() {
    let lab = Lab::start().await;
    let limits = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"},
        "spec": {"limits": [{"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}}]}});
    lab.post("/api/v1/namespaces/default/limitranges", &limits).await.expect(201);
    // The class of service is that of the resources the namespace's limits gave.
    let made = lab.post(PODS, &pod("a")).await.expect(201);
    assert_eq!(made["spec"]["containers"][0]["resources"]["requests"]["cpu"], "1");
    assert_eq!(made["status"]["qosClass"], "Guaranteed");
    // What the client left out and admission put back is no change.
    let mut bare = made.clone();
    bare["spec"]["tolerations"] = json!([]);
    let after = lab.put(&format!("{PODS}/a"), &bare).await.expect(200);
    assert_eq!(after["spec"]["tolerations"], made["spec"]["tolerations"]);
    assert_eq!(after["metadata"]["generation"], made["metadata"]["generation"]);
    assert_eq!(after["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn a_put_that_means_another_object() {
    let lab = Lab::start().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease =
        |meta: Value| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta});
    let message = |status: &Value| status["message"].as_str().unwrap_or_default().to_owned();
    // Made by a PUT: not with the uid of what is gone, but whatever revision that had.
    let lost = lab.put(&format!("{leases}/l"), &lease(json!({"name": "l", "uid": "x"}))).await.expect(409);
    assert_eq!(
        message(&lost),
        "Operation cannot be fulfilled on leases.coordination.k8s.io \"l\": StorageError: invalid object, Code: 4, \
         Key: /registry/leases/default/l, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: \
         UID in precondition: x, UID in object meta: "
    );
    let made = lab
        .put(&format!("{leases}/l"), &lease(json!({"name": "l", "resourceVersion": "5"})))
        .await
        .expect(201);
    let dry = format!("{leases}/l?dryRun=All");
    let lost = lab.put(&dry, &lease(json!({"name": "l", "uid": "x"}))).await.expect(409);
    let uid = made["metadata"]["uid"].as_str().unwrap_or_default();
    assert!(message(&lost).contains("Key: /leases/default/l, "), "{}", message(&lost));
    assert!(message(&lost).ends_with(&format!("UID in object meta: {uid}")), "{}", message(&lost));
    // A type that a PUT does not make is not found.
    let gone = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "no", "uid": "x"}});
    lab.put(&format!("{CONFIG_MAPS}/no"), &gone).await.expect(404);
}

#[tokio::test]
async fn updates_that_must_name_their_revision() {
    let lab = Lab::start().await;
    let group = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "w"}});
    let made = lab.post(group, &object).await.expect(201);
    let refused = lab.put(&format!("{group}/w"), &object).await.expect(422);
    assert_eq!(
        refused["details"]["causes"][0]["message"],
        "Invalid value: 0: must be specified for an update"
    );
    lab.put(&format!("{group}/w"), &made).await.expect(200);
    let nodes = "/apis/storage.k8s.io/v1/csinodes";
    let node = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": "n"},
        "spec": {"drivers": []}});
    lab.post(nodes, &node).await.expect(201);
    lab.put(&format!("{nodes}/n"), &node).await.expect(422);
}

#[tokio::test]
async fn a_role_without_rules() {
    let lab = Lab::start().await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let role = |name: &str, more: Value| {
        let mut role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}});
        role.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        role
    };
    // Not of system:masters, whose rights nobody checks.
    let all = json!({"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]}]});
    lab.post(roles, &role("all", all)).await.expect(201);
    lab.post(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "all"},
            "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
            "roleRef": {"kind": "ClusterRole", "name": "all", "apiGroup": "rbac.authorization.k8s.io"}}),
    )
    .await
    .expect(201);
    let jane = crate::UserInfo::authenticated("jane", &[]);
    let headers = [("content-type", "application/json")];
    let aggregated = json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
    for (name, more) in [("aggregated", aggregated), ("empty", json!({"rules": null}))] {
        let body = role(name, more).to_string();
        let made = lab.send_as(jane.clone(), "POST", roles, &headers, body.clone()).await.expect(201);
        assert_eq!(made["rules"], Value::Null);
        lab.send_as(jane.clone(), "PUT", &format!("{roles}/{name}"), &headers, body).await.expect(200);
    }
}

#[tokio::test]
async fn patches_that_upstreams_library_takes() {
    let lab = Lab::start().await;
    let made = lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let replace = json!([{"op": "replace", "path": "/metadata/annotations", "value": {"a": "b"}}]);
    let after = lab.patch(&path, "json-patch+json", &replace).await.expect(200);
    assert_eq!(after["metadata"]["annotations"], json!({"a": "b"}));
    for kind in ["json-patch+json", "strategic-merge-patch+json"] {
        let same = lab.patch(&path, kind, &Value::Null).await.expect(200);
        assert_eq!(same["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);
    }
    let failed = lab.patch(&path, "strategic-merge-patch+json", &json!({"data": {"$patch": "no"}})).await;
    assert_eq!(failed.code, 500);
    assert_eq!(failed.json()["message"], "unknown patch type: no in map: map[$patch:no]");
    let unnamed = lab.patch(&path, "merge-patch+json", &json!({"metadata": null})).await.expect(400);
    assert_eq!(
        unnamed["message"],
        "the name of the object (a based on URL) was undeterminable: name must be provided"
    );
    assert_eq!(made["metadata"]["name"], "a");
}

#[tokio::test]
async fn where_no_method_has_a_route() {
    let lab = Lab::start().await;
    lab.get("/apis/authentication.k8s.io/v1/tokenreviews/a").await.expect(404);
    lab.get("/apis/authentication.k8s.io/v1/tokenreviews").await.expect(405);
    lab.get("/api/v1/configmaps/a").await.expect(404);
    lab.post("/api/v1/configmaps", &config_map("a", json!({}))).await.expect(405);
    lab.get("/apis/rbac.authorization.k8s.io/v1/clusterroles?fieldSelector=metadata.namespace%3Dx")
        .await
        .expect(200);
    lab.get("/api/v1/nodes?fieldSelector=metadata.namespace%3Dx").await.expect(400);
    let streamed = lab.send("GET", CONFIG_MAPS, &[("accept", "application/json;stream=watch")], "").await;
    streamed.expect(200);
}

#[tokio::test]
async fn a_status_keeps_a_daemon_sets_template_generation() {
    let lab = Lab::start().await;
    let sets = "/apis/apps/v1/namespaces/default/daemonsets";
    let mut set = deployment("d");
    set["kind"] = "DaemonSet".into();
    set["spec"].as_object_mut().unwrap().remove("replicas");
    let mut made = lab.post(sets, &set).await.expect(201);
    made["metadata"]["annotations"] = json!({"a": "b"});
    let after = lab.put(&format!("{sets}/d/status"), &made).await.expect(200);
    assert_eq!(
        after["metadata"]["annotations"],
        json!({"a": "b", "deprecated.daemonset.template.generation": "1"})
    );
}
