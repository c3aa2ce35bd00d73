//! In which order a definition's status, its rows and the documents about them are seen.

use std::sync::Arc;

use serde_json::Value;

use super::custom::{CRDS, condition, definition, open};
use super::harness::*;

const GROUP: &str = "/apis/example.com/v1";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn in_list(list: &Value, plural: &str) -> bool {
    list["resources"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == plural))
}

fn in_aggregated(list: &Value, plural: &str) -> bool {
    let groups = list["items"].as_array().map_or(&[][..], Vec::as_slice);
    groups.iter().filter(|group| group["metadata"]["name"] == "example.com").any(|group| {
        let resources = group["versions"][0]["resources"].as_array();
        resources.is_some_and(|all| all.iter().any(|one| one["resource"] == plural))
    })
}

/// Who reads one after the other sees no contradiction, whichever is first; upstream has its definition in discovery only once
/// its status says Established.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn discovery_and_established_agree() {
    let lab = Arc::new(Lab::start().await);
    for round in 0..25 {
        let plural = format!("foo{}s", char::from(b'a' + round));
        let name = format!("{plural}.example.com");
        let mut readers = tokio::task::JoinSet::new();
        for aggregated in [false, true] {
            let (lab, plural, name) = (lab.clone(), plural.clone(), name.clone());
            readers.spawn(async move {
                let deadline = tokio::time::Instant::now() + SOON;
                loop {
                    let found = if aggregated {
                        let all = lab.send("GET", "/apis", &[("accept", AGGREGATED)], "").await;
                        in_aggregated(&all.expect(200), &plural)
                    } else {
                        // Before the first definition the group is not there at all.
                        let list = lab.get(GROUP).await;
                        list.code == 200 && in_list(&list.json(), &plural)
                    };
                    if found {
                        break;
                    }
                    assert!(tokio::time::Instant::now() < deadline, "{name} is not in discovery");
                    tokio::task::yield_now().await;
                }
                let now = lab.get(&format!("{CRDS}/{name}")).await.expect(200);
                assert_eq!(
                    condition(&now, "Established")["status"],
                    "True",
                    "{name}: in discovery before: {now}"
                );
            });
        }
        lab.define(&definition(&plural, open())).await;
        assert!(
            in_list(&lab.get(GROUP).await.expect(200), &plural),
            "{plural} is established, and in no list"
        );
        assert_eq!(lab.get(&format!("{GROUP}/{plural}")).await.code, 200);
        while let Some(read) = readers.join_next().await {
            read.unwrap();
        }
    }
}
