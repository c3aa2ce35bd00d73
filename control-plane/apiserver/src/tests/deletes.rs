//! Deletions: at once, graceful, with finalizers, of collections; evictions.

use serde_json::json;

use super::harness::*;

#[tokio::test]
async fn preconditions_are_kept() {
    let lab = Lab::start().await;
    let made = lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let with = |preconditions: serde_json::Value| {
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions}).to_string()
    };
    lab.send("DELETE", &path, &[], with(json!({"uid": "other"}))).await.expect(409);
    lab.send("DELETE", &path, &[], with(json!({"resourceVersion": "1"}))).await.expect(409);
    let status =
        lab.send("DELETE", &path, &[], with(json!({"uid": made["metadata"]["uid"]}))).await.expect(200);
    assert_eq!((status["kind"].as_str(), status["status"].as_str()), (Some("Status"), Some("Success")));
    assert_eq!(status["details"], json!({"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}));
    lab.delete(&path).await.expect(404);
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let lab = Lab::start().await;
    let mut object = config_map("a", json!({}));
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    lab.post(CONFIG_MAPS, &object).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let marked = lab.delete(&path).await.expect(200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    let revision = lab.revision().await;
    lab.delete(&path).await.expect(200);
    assert_eq!(lab.revision().await, revision, "deleting twice changes nothing");
    let forbidden = lab
        .patch(
            &path,
            "merge-patch+json",
            &json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}),
        )
        .await;
    assert_eq!(forbidden.code, 422, "{forbidden:?}");
    lab.patch(&path, "merge-patch+json", &json!({"metadata": {"finalizers": null}})).await.expect(200);
    lab.get(&path).await.expect(404);
}

#[tokio::test]
async fn propagation_becomes_finalizers() {
    let lab = Lab::start().await;
    for (policy, finalizer) in [("Orphan", "orphan"), ("Foreground", "foregroundDeletion")] {
        lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
        let path = format!("{CONFIG_MAPS}/a");
        let answer = lab.delete(&format!("{path}?propagationPolicy={policy}")).await;
        let held = lab.get(&path).await.expect(200);
        assert_eq!(held["metadata"]["finalizers"], json!([finalizer]), "{answer:?}");
        lab.patch(&path, "merge-patch+json", &json!({"metadata": {"finalizers": []}})).await.expect(200);
        lab.get(&path).await.expect(404);
    }
}

async fn bound_pod(lab: &Lab, name: &str) -> String {
    lab.post(PODS, &pod(name)).await.expect(201);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}});
    lab.post(&format!("{PODS}/{name}/binding"), &binding).await.expect(201);
    format!("{PODS}/{name}")
}

#[tokio::test]
async fn pods_get_their_grace() {
    let lab = Lab::start().await;
    // Not bound to a node: gone at once.
    lab.post(PODS, &pod("loose")).await.expect(201);
    lab.delete(&format!("{PODS}/loose")).await.expect(200);
    lab.get(&format!("{PODS}/loose")).await.expect(404);
    let path = bound_pod(&lab, "p").await;
    let marked = lab.delete(&path).await.expect(200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let shorter = lab.delete(&format!("{path}?gracePeriodSeconds=5")).await.expect(200);
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let longer = lab.delete(&format!("{path}?gracePeriodSeconds=60")).await.expect(200);
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 5);
    let gone = lab.delete(&format!("{path}?gracePeriodSeconds=0")).await.expect(200);
    assert_eq!(gone["kind"], "Pod");
    lab.get(&path).await.expect(404);
}

#[tokio::test]
async fn namespaces_wait_for_their_finalizers() {
    let lab = Lab::start().await;
    let made = lab
        .post(
            "/api/v1/namespaces",
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}),
        )
        .await
        .expect(201);
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    let marked = lab.delete("/api/v1/namespaces/team").await.expect(200);
    assert_eq!(marked["status"]["phase"], "Terminating");
    let refused =
        lab.post("/api/v1/namespaces/team/configmaps", &config_map("a", json!({}))).await.expect(403);
    assert!(refused["message"].as_str().unwrap().contains("being terminated"), "{refused}");
    let mut finalized = lab.get("/api/v1/namespaces/team").await.expect(200);
    finalized["spec"]["finalizers"] = json!([]);
    lab.put("/api/v1/namespaces/team/finalize", &finalized).await.expect(200);
    lab.get("/api/v1/namespaces/team").await.expect(404);
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let lab = Lab::start().await;
    for (name, team) in [("a", "x"), ("b", "y"), ("c", "x")] {
        lab.post(CONFIG_MAPS, &config_map(name, json!({"team": team}))).await.expect(201);
    }
    let list = lab.delete(&format!("{CONFIG_MAPS}?labelSelector=team%3Dx")).await.expect(200);
    assert_eq!((list["kind"].as_str(), list["items"].as_array().unwrap().len()), (Some("ConfigMapList"), 2));
    let left = lab.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn evictions_respect_budgets() {
    let lab = Lab::start().await;
    let mut object = pod("p");
    object["metadata"]["labels"] = json!({"app": "web"});
    lab.post(PODS, &object).await.expect(201);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    lab.post(&format!("{PODS}/p/binding"), &binding).await.expect(201);
    let running =
        json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    lab.patch(&format!("{PODS}/p/status"), "strategic-merge-patch+json", &running).await.expect(200);
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    });
    lab.post(budgets, &budget).await.expect(201);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let status = |allowed: i64| json!({"status": {"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}});
    lab.patch(&format!("{budgets}/b/status"), "merge-patch+json", &status(0)).await.expect(200);
    let refused = lab.post(&format!("{PODS}/p/eviction"), &eviction).await.expect(429);
    assert_eq!(refused["details"]["causes"][0]["reason"], "DisruptionBudget");
    lab.patch(&format!("{budgets}/b/status"), "merge-patch+json", &status(1)).await.expect(200);
    let other = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}});
    lab.post(&format!("{PODS}/p/eviction"), &other).await.expect(400);
    // Clients of old say the version that is not served any more.
    let old = json!({"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "p"}});
    lab.post(&format!("{PODS}/p/eviction"), &old).await.expect(201);
    let evicted = lab.get(&format!("{PODS}/p")).await.expect(200);
    assert!(evicted["metadata"]["deletionTimestamp"].is_string());
    assert!(
        evicted["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["type"] == "DisruptionTarget")
    );
    let budget = lab.get(&format!("{budgets}/b")).await.expect(200);
    assert_eq!(
        (budget["status"]["disruptionsAllowed"].as_i64(), budget["status"]["disruptedPods"]["p"].is_string()),
        (Some(0), true)
    );
}

/// A query may carry what a body's preconditions say (upstream: `Convert_url_Values_To_v1_DeleteOptions`).
#[tokio::test]
async fn preconditions_may_stand_in_the_query() {
    let lab = Lab::start().await;
    let made = lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
    let (uid, version) =
        (made["metadata"]["uid"].as_str().unwrap(), made["metadata"]["resourceVersion"].as_str().unwrap());
    lab.delete(&format!("{CONFIG_MAPS}/a?uid=other")).await.expect(409);
    lab.delete(&format!("{CONFIG_MAPS}/a?resourceVersion=1")).await.expect(409);
    lab.delete(&format!("{CONFIG_MAPS}/a?uid={uid}&resourceVersion={version}")).await.expect(200);
    let refused = lab.get(&format!("{CONFIG_MAPS}/a?export=true")).await.expect(400);
    assert_eq!(refused["message"], "the export parameter, deprecated since v1.14, is no longer supported");
}

#[tokio::test]
async fn what_is_wrong_with_a_deletions_options_is_said_as_of_any_object() {
    let lab = Lab::start().await;
    lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let headers = [("content-type", "application/json")];
    for (body, text) in [
        (
            r#"{"gracePeriodSeconds":"a"}"#,
            "json: cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds of type int64",
        ),
        (
            "nope",
            "couldn't get version/kind; json parse error: invalid character 'o' in literal null (expecting 'u')",
        ),
        (r#"{"kind":"Pod","apiVersion":"v1"}"#, "decoded object cannot be converted to DeleteOptions"),
    ] {
        assert_eq!(lab.send("DELETE", &path, &headers, body).await.expect(400)["message"], text, "{body}");
    }
    let refused = lab.get("/api/v1/componentstatuses?watch=1").await.expect(405);
    assert_eq!(refused["message"], "watch is not supported on resources of kind \"componentstatuses\"");
    let refused = lab.post(&path, &json!({})).await.expect(405);
    assert_eq!(
        (refused["message"].as_str(), &refused["details"]),
        (Some("the server does not allow this method on the requested resource"), &json!({}))
    );
}

/// Upstream's `batch/job/storage`: who does not say what becomes of the pods is told.
#[tokio::test]
async fn deleting_a_job_warns_of_its_pods() {
    const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
    let lab = Lab::start().await;
    let text = "299 - \"child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to \
                remove them or set propagationPolicy=Orphan to suppress this warning\"";
    for (query, warnings) in
        [("", vec![text]), ("?propagationPolicy=Orphan", vec![]), ("?orphanDependents=true", vec![])]
    {
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"generateName": "j"},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}},
        });
        let made = lab.post(JOBS, &job).await.expect(201);
        let name = made["metadata"]["name"].as_str().unwrap();
        assert_eq!(lab.delete(&format!("{JOBS}/{name}{query}")).await.warnings(), warnings, "{query}");
    }
    assert_eq!(lab.delete(JOBS).await.warnings(), [text]);
    let maps = lab.delete(CONFIG_MAPS).await;
    assert!(maps.warnings().is_empty());
}

#[tokio::test]
async fn a_collection_is_deleted_page_by_page() {
    let lab = Lab::start().await;
    for name in ["a", "b", "c", "d"] {
        lab.post(CONFIG_MAPS, &config_map(name, json!({}))).await.expect(201);
    }
    let page = lab.get(&format!("{CONFIG_MAPS}?limit=2")).await.expect(200);
    let token = page["metadata"]["continue"].as_str().expect("a token").to_owned();
    let refused = lab.delete(&format!("{CONFIG_MAPS}?continue=abc")).await.expect(400);
    assert!(refused["message"].as_str().unwrap().starts_with("invalid continue token: "), "{refused}");
    lab.delete(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await.expect(200);
    let names = async || {
        let left = lab.get(CONFIG_MAPS).await.expect(200);
        let name = |item: &serde_json::Value| item["metadata"]["name"].as_str().unwrap().to_owned();
        left["items"].as_array().unwrap().iter().map(name).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names().await, "a b d", "only what the page holds");
    // What was there at a revision, not what is there now.
    let revision = page["metadata"]["resourceVersion"].as_str().unwrap();
    lab.post(CONFIG_MAPS, &config_map("e", json!({}))).await.expect(201);
    let path = format!("{CONFIG_MAPS}?resourceVersionMatch=Exact&resourceVersion={revision}");
    let body = json!({"kind": "DeleteOptions", "apiVersion": "v1"}).to_string();
    lab.send("DELETE", &path, &[], body).await.expect(200);
    assert_eq!(names().await, "e");
}
