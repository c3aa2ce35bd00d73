//! Events expire.

use serde_json::json;

use super::harness::*;

#[tokio::test]
async fn old_events_go_and_young_ones_stay() {
    let lab = Lab::start().await;
    let events = "/api/v1/namespaces/default/events";
    let now = jiff::Timestamp::now();
    for (name, hours) in [("old", 2), ("young", 0)] {
        let at = now.checked_sub(jiff::SignedDuration::from_hours(hours)).unwrap();
        let text = keelson_api::types::time_text(at);
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": "default"},
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "reason": "Test", "type": "Normal",
            "firstTimestamp": text.as_str(), "lastTimestamp": text.as_str(),
        });
        lab.post(events, &event).await.expect(201);
    }
    // The creation counts too: move it back as the hours would.
    let key = "/registry/events/default/old";
    let (entry, _) = lab.store.get(key).await.unwrap();
    let entry = entry.unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
    value["metadata"]["creationTimestamp"] = value["lastTimestamp"].clone();
    let transaction = keelson_store::Transaction {
        guards: vec![(key.to_owned(), keelson_store::Expect::Revision(entry.mod_revision))],
        writes: vec![keelson_store::Write::Put { key: key.to_owned(), value: value.to_string().into() }],
    };
    lab.store.commit(transaction).await.unwrap();
    lab.get(events).await.expect(200);
    crate::upkeep::expire_events_once(lab.api.core()).await;
    let left = lab.get(events).await.expect(200);
    let names: Vec<&str> = left["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["metadata"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["young"]);
    // Both groups show the same event.
    let other = lab.get("/apis/events.k8s.io/v1/namespaces/default/events/young").await.expect(200);
    assert_eq!(other["apiVersion"], "events.k8s.io/v1");
    assert_eq!(other["regarding"]["name"], "p", "{other}");
}
