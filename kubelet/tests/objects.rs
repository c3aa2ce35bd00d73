//! The watches on what pods have in their volumes, against a stand-in for the API.
#[path = "common/fake_api.rs"]
mod fake_api;

use fake_api::FakeApi;
use k8s_openapi::api::core::v1::Pod;
use keelson_kubelet::objects::Objects;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

const CM: &str = "/api/v1/namespaces/ns/configmaps/cm";

fn pod(uid: &str, volumes: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": uid, "namespace": "ns", "uid": uid},
        "spec": {"containers": [], "volumes": volumes}}))
    .unwrap()
}

fn config_map(value: &str) -> Value {
    json!({"metadata": {"name": "cm", "namespace": "ns"}, "data": {"k": value}})
}

async fn value(objects: &Objects, fresh: bool) -> Option<String> {
    let map = objects.config_map("ns", "cm", fresh).await.unwrap()?;
    map.data.as_ref()?.get("k").cloned()
}

async fn woken(wake: &Notify) {
    timeout(Duration::from_secs(10), wake.notified()).await.expect("the pod is woken");
}

async fn until(what: &str, check: impl Fn() -> bool) {
    let wait = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn one_watch_per_object_as_long_as_a_pod_refers_to_it() {
    let api = FakeApi::new();
    api.put(CM, config_map("a"));
    let objects = Objects::new(Some(api.client()), Duration::ZERO);
    let (one, two) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    objects.refer(&pod("one", json!([{"name": "v", "configMap": {"name": "cm"}}])), &one);
    let projected = json!([{"name": "v", "projected": {"sources": [{"configMap": {"name": "cm"}}]}}]);
    objects.refer(&pod("two", projected), &two);
    assert_eq!(value(&objects, true).await.as_deref(), Some("a"));
    until("the watch to be open", || api.open_watches() == 1).await;
    assert_eq!(value(&objects, true).await.as_deref(), Some("a"));
    let watches = api.reads().iter().filter(|read| read.contains("watch=")).count();
    assert_eq!((watches, objects.watches()), (1, 1), "{:?}", api.reads());
    // A change wakes both, and is handed out without asking.
    api.put(CM, config_map("b"));
    woken(&one).await;
    woken(&two).await;
    let asked = api.reads().len();
    assert_eq!(value(&objects, false).await.as_deref(), Some("b"));
    // Deleted, and made again.
    api.remove(CM);
    woken(&one).await;
    assert_eq!(value(&objects, false).await, None);
    api.put(CM, config_map("c"));
    woken(&one).await;
    assert_eq!(value(&objects, false).await.as_deref(), Some("c"));
    assert_eq!(api.reads().len(), asked, "nothing was asked for");
    objects.forget("one");
    assert_eq!(objects.watches(), 1, "the second pod still refers to it");
    objects.forget("two");
    assert_eq!(objects.watches(), 0);
    until("the watch to end", || api.open_watches() == 0).await;
}

#[tokio::test]
async fn a_read_never_goes_back_behind_the_watch() {
    let api = FakeApi::new();
    api.put(CM, config_map("a"));
    let objects = Objects::new(Some(api.client()), Duration::ZERO);
    let wake = Arc::new(Notify::new());
    objects.refer(&pod("one", json!([{"name": "v", "configMap": {"name": "cm"}}])), &wake);
    value(&objects, true).await;
    until("the watch to be open", || api.open_watches() == 1).await;
    for n in 0..50 {
        api.put(CM, config_map(&n.to_string()));
        assert_eq!(value(&objects, true).await, Some(n.to_string()), "a fresh read is the newest");
        let kept: usize = value(&objects, false).await.unwrap().parse().unwrap();
        assert!(kept >= n, "{kept} after {n}");
    }
}

#[tokio::test]
async fn what_never_changes_is_not_watched() {
    let api = FakeApi::new();
    let fixed =
        json!({"metadata": {"name": "s", "namespace": "ns"}, "immutable": true, "data": {"k": "YQ=="}});
    api.put("/api/v1/namespaces/ns/secrets/s", fixed.clone());
    let objects = Objects::new(Some(api.client()), Duration::ZERO);
    let wake = Arc::new(Notify::new());
    objects.refer(&pod("one", json!([{"name": "v", "secret": {"secretName": "s"}}])), &wake);
    assert!(objects.secret("ns", "s", true).await.unwrap().is_some());
    let asked = api.reads().len();
    assert!(objects.secret("ns", "s", false).await.unwrap().is_some());
    assert_eq!((api.reads().len(), objects.watches()), (asked, 0));
    // One that becomes immutable is watched no longer.
    api.put(CM, config_map("a"));
    objects.refer(&pod("one", json!([{"name": "v", "configMap": {"name": "cm"}}])), &wake);
    value(&objects, true).await;
    until("the watch to be open", || api.open_watches() == 1).await;
    let mut last = config_map("b");
    last["immutable"] = json!(true);
    api.put(CM, last);
    woken(&wake).await;
    until("the watch to end", || api.open_watches() == 0).await;
    let asked = api.reads().len();
    assert_eq!(value(&objects, false).await.as_deref(), Some("b"));
    assert_eq!((api.reads().len(), objects.watches()), (asked, 0));
}

#[tokio::test]
async fn what_no_volume_holds_is_read_and_not_watched() {
    let api = FakeApi::new();
    api.put(CM, config_map("a"));
    let objects = Objects::new(Some(api.client()), Duration::from_secs(60));
    assert_eq!(value(&objects, true).await.as_deref(), Some("a"));
    api.put(CM, config_map("b"));
    assert_eq!(value(&objects, true).await.as_deref(), Some("b"));
    assert_eq!(objects.watches(), 0);
    assert!(api.reads().iter().all(|read| !read.contains("watch=")));
}
