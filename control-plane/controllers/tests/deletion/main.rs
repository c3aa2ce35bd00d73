//! What memory the deletion of very many objects takes. Alone in its process, because it looks at the process' memory.

#[path = "../cluster/fixture.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod fixture;

use fixture::{Cluster, until};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};

const NAMESPACE: &str = "crowded";
const OBJECTS: usize = 10_000;
const TEXT: usize = 850;

/// A figure of `/proc/self/status` in bytes.
fn memory(of: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(of)).expect("a figure of the kernel's");
    line.split_whitespace().next().and_then(|word| word.parse::<usize>().ok()).expect("a number") * 1024
}

fn named<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowded_namespace_goes_without_its_content_being_held_anew() {
    let cluster = Cluster::start().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = named(json!({ "metadata": { "name": NAMESPACE } }));
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let config_maps = cluster.api::<ConfigMap>(NAMESPACE);
    let created = futures::stream::iter(0..OBJECTS).map(|index| {
        let config_maps = config_maps.clone();
        async move {
            let data = json!({ "value": "x".repeat(TEXT) });
            let object = json!({ "metadata": { "name": format!("one-{index}") }, "data": data });
            config_maps.create(&PostParams::default(), &named(object)).await.map(drop)
        }
    });
    created.buffer_unordered(64).try_collect::<()>().await.unwrap();
    cluster.quiet().await;

    // Tells the kernel to measure the peak anew.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS:");
    namespaces.delete(NAMESPACE, &DeleteParams::default()).await.unwrap();
    until("the namespace to be gone", || async {
        namespaces.get_opt(NAMESPACE).await.unwrap().is_none().then_some(())
    })
    .await;
    let grew = memory("VmHWM:").saturating_sub(before);
    // The history keeps each object's end; a list of them all as a tree would be ten times their text.
    assert!(
        grew < 3 * OBJECTS * TEXT,
        "{} KiB more for {} KiB of objects",
        grew >> 10,
        (OBJECTS * TEXT) >> 10
    );
    cluster.stop().await;
}
