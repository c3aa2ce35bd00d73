//! `/metrics` after real requests, and what the health endpoints say.

use serde_json::json;

use super::harness::*;

async fn text(lab: &Lab, path: &str) -> (u16, String) {
    let answer = lab.get(path).await;
    (answer.code, String::from_utf8_lossy(&answer.bytes).into_owned())
}

#[tokio::test]
async fn requests_watches_and_storage_are_counted() {
    let lab = Lab::start().await;
    let from = lab.revision().await;
    let mut watch = lab.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={from}"), &[]).await;
    lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
    lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(409);
    watch.next().await.unwrap();
    lab.get(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    lab.get(CONFIG_MAPS).await.expect(200);
    // The length of a table is not known before it is sent.
    lab.send("GET", CONFIG_MAPS, &[("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")], "")
        .await
        .expect(200);
    lab.get("/api/v1/namespaces/default/nothing").await.expect(404);
    lab.get("/api/v1/namespaces/default/endpoints").await.expect(200);
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1";
    let mut all = lab.watch(&format!("{CONFIG_MAPS}?{query}"), &[]).await;
    while all.next().await.is_some() {}
    drop(all);
    let (code, metrics) = text(&lab, "/metrics").await;
    assert_eq!(code, 200);
    let place = |verb: &str, scope: &str| {
        format!(
            "component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"configmaps\",scope=\"{scope}\",subresource=\"\",verb=\"{verb}\",version=\"v1\""
        )
    };
    let common = |verb: &str, scope: &str| place(verb, scope).replace("dry_run=\"\",", "");
    for line in [
        format!("apiserver_request_total{{code=\"201\",{}}} 1", place("POST", "resource")),
        format!("apiserver_request_total{{code=\"409\",{}}} 1", place("POST", "resource")),
        format!("apiserver_request_duration_seconds_count{{{}}} 2", place("POST", "resource")),
        format!("apiserver_request_total{{code=\"200\",{}}} 1", place("GET", "resource")),
        format!("apiserver_request_total{{code=\"200\",{}}} 2", place("LIST", "namespace")),
        format!("apiserver_request_total{{code=\"200\",{}}} 2", place("WATCH", "namespace")),
        format!("apiserver_request_sli_duration_seconds_count{{{}}} 2", common("POST", "resource")),
        format!("apiserver_response_sizes_count{{{}}} 1", common("GET", "resource")),
        format!("apiserver_response_sizes_bucket{{{},le=\"1000\"}} 1", common("LIST", "namespace")),
        format!("apiserver_response_sizes_bucket{{{},le=\"10000\"}} 2", common("LIST", "namespace")),
        "apiserver_watch_list_duration_seconds_count{group=\"\",resource=\"configmaps\",scope=\"namespace\",version=\"v1\"} 1".into(),
        "apiserver_requested_deprecated_apis{group=\"\",removed_release=\"\",resource=\"endpoints\",subresource=\"\",version=\"v1\"} 1".into(),
        "apiserver_storage_events_received_total{group=\"\",resource=\"configmaps\"} 1".into(),
        "kubernetes_feature_enabled{name=\"APIResponseCompression\",stage=\"BETA\"} 1".into(),
        "apiserver_longrunning_requests{component=\"apiserver\",group=\"\",resource=\"configmaps\",scope=\"namespace\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} 1".into(),
        // One of the first watch; of the second what there was, and the bookmark.
        "apiserver_watch_events_total{group=\"\",resource=\"configmaps\",version=\"v1\"} 3".into(),
        // The request that reads them is in flight itself.
        "apiserver_current_inflight_requests{request_kind=\"mutating\"} 0".into(),
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1".into(),
        "apiserver_storage_objects{resource=\"configmaps\"} 1".into(),
        "etcd_request_errors_total{group=\"\",operation=\"create\",resource=\"configmaps\"} 0".into(),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    assert!(metrics.contains("etcd_requests_total{group=\"\",operation=\"create\",resource=\"configmaps\"}"));
    assert!(!metrics.contains("apiserver_response_sizes_count{component=\"apiserver\",group=\"\",resource=\"configmaps\",scope=\"resource\",subresource=\"\",verb=\"POST\""));
    assert!(
        metrics.contains("kubernetes_build_info{build_date=")
            && metrics.contains("\nprocess_resident_memory_bytes ")
    );
    // One line a series, one head a name.
    let mut seen = std::collections::BTreeSet::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        assert!(seen.insert(line.rsplit_once(' ').unwrap().0), "twice: {line}");
    }
    assert!(!metrics.contains("resource=\"nothing\""), "what does not exist makes no series");
    drop(watch);
    let (_, metrics) = text(&lab, "/metrics").await;
    assert!(metrics.contains("verb=\"WATCH\",version=\"v1\"} 0\n"), "a watch that is gone is not counted");
}

#[tokio::test]
async fn health_says_what_it_checked() {
    let lab = Lab::start().await;
    assert_eq!(text(&lab, "/livez").await, (200, "ok".into()));
    let (code, ready) = text(&lab, "/readyz?verbose").await;
    assert_eq!(code, 200);
    for line in ["[+]ping ok", "[+]etcd ok", "[+]shutdown ok", "readyz check passed"] {
        assert!(ready.lines().any(|found| found == line), "{line} is not in {ready}");
    }
    let (_, live) = text(&lab, "/livez?verbose&exclude=etcd&exclude=nothing").await;
    assert_eq!(
        live,
        "[+]ping ok\n[+]etcd excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"nothing\"\nlivez check passed\n"
    );
    assert_eq!(text(&lab, "/readyz/etcd").await, (200, "ok".into()));
    assert_eq!(text(&lab, "/readyz/nothing").await.0, 404);
    let (_, checks) = text(&lab, "/metrics/slis").await;
    for line in [
        "kubernetes_healthcheck{name=\"etcd\",type=\"readyz\"} 1",
        "kubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"livez\"} 2",
    ] {
        assert!(checks.lines().any(|found| found == line), "{line} is not in {checks}");
    }
    // Every path that the root names is one.
    let root = lab.get("/").await.json();
    for path in root["paths"].as_array().unwrap() {
        let path = path.as_str().unwrap();
        assert_eq!(lab.get(path).await.code, 200, "{path}");
    }
    for path in ["/readyz/etcd", "/metrics/slis", "/apis/apps/v1"] {
        assert!(root["paths"].as_array().unwrap().contains(&path.into()), "{path}");
    }
}
