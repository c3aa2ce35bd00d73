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
    lab.get("/api/v1/namespaces/default/nothing").await.expect(404);
    let (code, metrics) = text(&lab, "/metrics").await;
    assert_eq!(code, 200);
    let place = |verb: &str, scope: &str| {
        format!(
            "component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"configmaps\",scope=\"{scope}\",subresource=\"\",verb=\"{verb}\",version=\"v1\""
        )
    };
    for line in [
        format!("apiserver_request_total{{code=\"201\",{}}} 1", place("POST", "resource")),
        format!("apiserver_request_total{{code=\"409\",{}}} 1", place("POST", "resource")),
        format!("apiserver_request_duration_seconds_count{{{}}} 2", place("POST", "resource")),
        format!("apiserver_request_total{{code=\"200\",{}}} 1", place("GET", "resource")),
        format!("apiserver_request_total{{code=\"200\",{}}} 1", place("LIST", "namespace")),
        format!("apiserver_request_total{{code=\"200\",{}}} 1", place("WATCH", "namespace")),
        "apiserver_longrunning_requests{component=\"apiserver\",group=\"\",resource=\"configmaps\",scope=\"namespace\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} 1".into(),
        "apiserver_watch_events_total{group=\"\",resource=\"configmaps\",version=\"v1\"} 1".into(),
        // The request that reads them is in flight itself.
        "apiserver_current_inflight_requests{request_kind=\"mutating\"} 0".into(),
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1".into(),
        "apiserver_storage_objects{resource=\"configmaps\"} 1".into(),
        "etcd_request_errors_total{group=\"\",operation=\"create\",resource=\"configmaps\"} 0".into(),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    assert!(metrics.contains("etcd_requests_total{group=\"\",operation=\"create\",resource=\"configmaps\"}"));
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
}
