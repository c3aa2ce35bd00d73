//! Events expire.

use std::time::Duration;

use serde_json::json;

use super::harness::*;

const EVENTS: &str = "/api/v1/namespaces/default/events";

fn event(name: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": "default"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "reason": "Test", "type": "Normal",
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z",
    })
}

async fn names(lab: &Lab) -> Vec<String> {
    let left = lab.get(EVENTS).await.expect(200);
    let items = left["items"].as_array().unwrap().iter();
    items.map(|one| one["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn events_live_for_an_hour_after_their_last_write() {
    let lab = Lab::start().await;
    lab.post(EVENTS, &event("old")).await.expect(201);
    let mut seen_again = lab.post(EVENTS, &event("seen-again")).await.expect(201);
    // Both groups show the same event.
    let other = lab.get("/apis/events.k8s.io/v1/namespaces/default/events/old").await.expect(200);
    assert_eq!(other["apiVersion"], "events.k8s.io/v1");
    assert_eq!(other["regarding"]["name"], "p", "{other}");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3000)).await;
    seen_again["count"] = json!(2);
    lab.put(&format!("{EVENTS}/seen-again"), &seen_again).await.expect(200);
    assert_eq!(names(&lab).await.len(), 2);
    tokio::time::advance(Duration::from_secs(700)).await;
    tokio::time::resume();
    let gone = async {
        while names(&lab).await != ["seen-again"] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the old event goes");
}
