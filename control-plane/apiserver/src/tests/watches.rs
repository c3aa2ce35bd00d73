//! Watches: at once, complete, in order, ended.

use serde_json::json;

use super::harness::*;

#[tokio::test]
async fn head_at_once_then_events() {
    let lab = Lab::start().await;
    // Nothing there yet: the head must not wait for a first event (`watch` bounds the wait).
    for query in ["watch=1", "watch=true", "watch"] {
        lab.watch(&format!("{CONFIG_MAPS}?{query}&resourceVersion={}", lab.revision().await), &[]).await;
    }
    let mut frames =
        lab.watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={}", lab.revision().await), &[]).await;
    let made = lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
    let event = frames.next().await.unwrap();
    assert_eq!(event["type"], "ADDED");
    assert_eq!(event["object"], made);
    let mut changed = made.clone();
    changed["data"]["k"] = "w".into();
    let changed = lab.put(&format!("{CONFIG_MAPS}/a"), &changed).await.expect(200);
    assert_eq!(frames.next().await.unwrap(), json!({"type": "MODIFIED", "object": changed}));
    lab.delete(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    let gone = frames.next().await.unwrap();
    assert_eq!(gone["type"], "DELETED");
    assert_ne!(
        gone["object"]["metadata"]["resourceVersion"], changed["metadata"]["resourceVersion"],
        "the deletion's revision"
    );
    // Made anew: ADDED again, decided by what stood there before.
    lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
    assert_eq!(frames.short().await, "ADDED a");
}

#[tokio::test]
async fn a_selector_watch_sees_objects_come_and_go() {
    let lab = Lab::start().await;
    let path =
        format!("{CONFIG_MAPS}?watch=true&labelSelector=team%3Dx&resourceVersion={}", lab.revision().await);
    let mut frames = lab.watch(&path, &[]).await;
    lab.post(CONFIG_MAPS, &config_map("other", json!({"team": "y"}))).await.expect(201);
    lab.post(CONFIG_MAPS, &config_map("mine", json!({"team": "x"}))).await.expect(201);
    assert_eq!(frames.short().await, "ADDED mine");
    let left = lab
        .patch(
            &format!("{CONFIG_MAPS}/mine"),
            "merge-patch+json",
            &json!({"metadata": {"labels": {"team": "y"}}}),
        )
        .await
        .expect(200);
    let event = frames.next().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["metadata"]["labels"]["team"], "x", "the last state that matched");
    assert_eq!(
        event["object"]["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"],
        "at the new revision"
    );
    lab.patch(
        &format!("{CONFIG_MAPS}/other"),
        "merge-patch+json",
        &json!({"metadata": {"labels": {"team": "x"}}}),
    )
    .await
    .expect(200);
    assert_eq!(frames.short().await, "ADDED other");
    lab.patch(&format!("{CONFIG_MAPS}/other"), "merge-patch+json", &json!({"data": {"k": "z"}}))
        .await
        .expect(200);
    assert_eq!(frames.short().await, "MODIFIED other");
}

#[tokio::test]
async fn field_selectors_watch_one_object() {
    let lab = Lab::start().await;
    let path = format!(
        "{CONFIG_MAPS}?watch&fieldSelector=metadata.name%3Db&resourceVersion={}",
        lab.revision().await
    );
    let mut frames = lab.watch(&path, &[]).await;
    for name in ["a", "b", "c"] {
        lab.post(CONFIG_MAPS, &config_map(name, json!({}))).await.expect(201);
    }
    lab.delete(&format!("{CONFIG_MAPS}/b")).await.expect(200);
    assert_eq!([frames.short().await, frames.short().await], ["ADDED b", "DELETED b"]);
}

#[tokio::test]
async fn initial_events_are_complete_and_end_with_the_bookmark() {
    let lab = Lab::start().await;
    for n in 0..300 {
        lab.post(CONFIG_MAPS, &config_map(&format!("m{n:03}"), json!({}))).await.expect(201);
    }
    let revision = lab.revision().await;
    let mut frames = lab
        .watch(&format!("{CONFIG_MAPS}?watch&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"), &[])
        .await;
    for n in 0..300 {
        assert_eq!(frames.short().await, format!("ADDED m{n:03}"));
    }
    let end = frames.next().await.unwrap();
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(end["object"]["metadata"]["resourceVersion"], revision.to_string());
    assert_eq!(end["object"]["kind"], "ConfigMap");
    lab.delete(&format!("{CONFIG_MAPS}/m000")).await.expect(200);
    assert_eq!(frames.short().await, "DELETED m000");
    // As a Table too: the row's object says it.
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let query = "watch&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&fieldSelector=metadata.name%3Dnone";
    let mut rows = lab.watch(&format!("{CONFIG_MAPS}?{query}"), &table).await;
    let end = rows.next().await.unwrap();
    assert_eq!((end["type"].as_str(), end["object"]["kind"].as_str()), (Some("BOOKMARK"), Some("Table")));
    let partial = &end["object"]["rows"][0]["object"];
    assert_eq!(partial["kind"], "PartialObjectMetadata");
    assert_eq!(partial["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(partial["metadata"]["resourceVersion"], end["object"]["metadata"]["resourceVersion"]);
    // Without a resourceVersion the state comes as ADDED too, without any bookmark where none is asked for.
    let mut plain = lab.watch(&format!("{CONFIG_MAPS}?watch"), &[]).await;
    assert_eq!(plain.short().await, "ADDED m001");
    // As upstream's SetListOptionsDefaults has it, such a watch ends its beginning like one that asked for it.
    for query in
        ["watch=1&allowWatchBookmarks=1&timeoutSeconds=2", "watch=1&allowWatchBookmarks=1&resourceVersion=0"]
    {
        let mut old = lab.watch(&format!("{CONFIG_MAPS}?{query}&labelSelector=a"), &[]).await;
        let end = old.next().await.unwrap();
        assert_eq!(
            end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true",
            "{query} {end}"
        );
    }
}

#[tokio::test]
async fn a_watch_resumes_from_history() {
    let lab = Lab::start().await;
    let start = lab.revision().await;
    lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
    lab.patch(&format!("{CONFIG_MAPS}/a"), "merge-patch+json", &json!({"data": {"k": "2"}}))
        .await
        .expect(200);
    lab.delete(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    let mut frames = lab.watch(&format!("{CONFIG_MAPS}?watch&resourceVersion={start}"), &[]).await;
    assert_eq!(
        [frames.short().await, frames.short().await, frames.short().await],
        ["ADDED a", "MODIFIED a", "DELETED a"]
    );
}

#[tokio::test]
async fn a_compacted_revision_is_an_error_event() {
    let lab = Lab::start().await;
    for n in 0..3 {
        lab.post(CONFIG_MAPS, &config_map(&format!("m{n}"), json!({}))).await.expect(201);
    }
    lab.store.compact(lab.revision().await).await.unwrap();
    // A cache that filled after the compaction knows no older history; secrets have none at all.
    let mut frames = lab.watch("/api/v1/namespaces/default/podtemplates?watch&resourceVersion=1", &[]).await;
    let event = frames.next().await.unwrap();
    assert_eq!(
        (event["type"].as_str(), event["object"]["code"].as_i64()),
        (Some("ERROR"), Some(410)),
        "{event}"
    );
    assert_eq!(event["object"]["reason"], "Expired");
    assert!(frames.next().await.is_none());
}

#[tokio::test]
async fn a_timeout_ends_the_watch() {
    let lab = Lab::start().await;
    let mut frames = lab
        .watch(&format!("{CONFIG_MAPS}?watch&timeoutSeconds=1&resourceVersion={}", lab.revision().await), &[])
        .await;
    assert!(frames.next().await.is_none());
}

#[tokio::test]
async fn tables_and_metadata_are_watched() {
    let lab = Lab::start().await;
    let from = lab.revision().await;
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let mut tables = lab.watch(&format!("{CONFIG_MAPS}?watch&resourceVersion={from}"), &table).await;
    let partial = [("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")];
    let mut metadata = lab.watch(&format!("{CONFIG_MAPS}?watch&resourceVersion={from}"), &partial).await;
    lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
    lab.post(CONFIG_MAPS, &config_map("b", json!({}))).await.expect(201);
    let first = tables.next().await.unwrap();
    assert_eq!(first["object"]["kind"], "Table");
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    let second = tables.next().await.unwrap();
    assert!(second["object"]["columnDefinitions"].is_null(), "definitions come once");
    let event = metadata.next().await.unwrap();
    assert_eq!(
        (event["object"]["kind"].as_str(), event["object"]["data"].is_null()),
        (Some("PartialObjectMetadata"), true)
    );
}

#[tokio::test]
async fn protobuf_frames_hold_enveloped_objects() {
    let lab = Lab::start().await;
    let accept = [("accept", "application/vnd.kubernetes.protobuf;stream=watch")];
    let mut frames =
        lab.watch(&format!("{CONFIG_MAPS}?watch&resourceVersion={}", lab.revision().await), &accept).await;
    lab.post(CONFIG_MAPS, &config_map("proto", json!({}))).await.expect(201);
    let frame = frames.binary().await;
    // WatchEvent: type = 1, object = 2 (RawExtension: raw = 1).
    assert_eq!(&frame[..7], b"\x0a\x05ADDED");
    let at = frame.windows(4).position(|bytes| bytes == b"k8s\0").expect("an envelope");
    let doc = keelson_api::proto::decode(keelson_api::t::core_v1::CONFIG_MAP, &frame[at..]).unwrap();
    assert_eq!((doc.meta().name(), &*doc.gvk.kind), ("proto", "ConfigMap"));
}
