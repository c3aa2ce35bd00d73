//! Lists: snapshots, pages, selectors, shapes.

use std::time::Instant;

use serde_json::{Value, json};

use super::harness::*;

fn names(list: &Value) -> Vec<String> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn pages_are_one_snapshot() {
    let lab = Lab::start().await;
    for n in 0..10 {
        lab.post(CONFIG_MAPS, &config_map(&format!("m{n}"), json!({}))).await.expect(201);
    }
    // A write elsewhere moves the store's revision past the newest item's.
    lab.post(
        "/api/v1/namespaces",
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}),
    )
    .await
    .expect(201);
    let revision = lab.revision().await.to_string();
    let first = lab.get(&format!("{CONFIG_MAPS}?limit=4")).await.expect(200);
    assert_eq!(
        first["metadata"]["resourceVersion"],
        revision.as_str(),
        "the store's revision, not the items'"
    );
    assert_eq!(first["metadata"]["remainingItemCount"], 6);
    assert_eq!(names(&first), ["m0", "m1", "m2", "m3"]);
    assert_eq!((first["kind"].as_str(), first["items"][0]["kind"].is_null()), (Some("ConfigMapList"), true));
    lab.delete(&format!("{CONFIG_MAPS}/m5")).await.expect(200);
    lab.post(CONFIG_MAPS, &config_map("m4b", json!({}))).await.expect(201);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = lab.get(&format!("{CONFIG_MAPS}?limit=4&continue={token}")).await.expect(200);
    assert_eq!(names(&second), ["m4", "m5", "m6", "m7"], "as it was at the first page");
    assert_eq!(second["metadata"]["resourceVersion"], revision.as_str());
    let token = second["metadata"]["continue"].as_str().unwrap();
    let last = lab.get(&format!("{CONFIG_MAPS}?limit=4&continue={token}")).await.expect(200);
    assert_eq!(names(&last), ["m8", "m9"]);
    assert!(last["metadata"]["continue"].is_null());
    // Compacted: 410 with a token that goes on at the newest state.
    let old = first["metadata"]["continue"].as_str().unwrap();
    lab.store.compact(lab.revision().await).await.unwrap();
    // The cache still has that state until it has seen the writes.
    lab.get(CONFIG_MAPS).await.expect(200);
    let expired = lab.get(&format!("{CONFIG_MAPS}?limit=4&continue={old}")).await;
    let status = expired.expect(410);
    assert_eq!(status["reason"], "Expired");
    let token = status["metadata"]["continue"].as_str().expect("an inconsistent token");
    let rest = lab.get(&format!("{CONFIG_MAPS}?limit=40&continue={token}")).await.expect(200);
    assert_eq!(names(&rest), ["m4", "m4b", "m6", "m7", "m8", "m9"]);
}

#[tokio::test]
async fn a_future_revision_fails_after_a_bounded_wait() {
    let lab = Lab::start().await;
    let started = Instant::now();
    let answer =
        lab.get(&format!("{CONFIG_MAPS}?resourceVersion=99999999&resourceVersionMatch=NotOlderThan")).await;
    let status = answer.expect(504);
    assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    assert!(started.elapsed().as_secs() < 10);
    lab.get(&format!("{CONFIG_MAPS}/x?resourceVersion=99999999")).await.expect(504);
}

#[tokio::test]
async fn exact_and_any_revisions() {
    let lab = Lab::start().await;
    lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
    let then = lab.revision().await;
    lab.post(CONFIG_MAPS, &config_map("b", json!({}))).await.expect(201);
    let exact = lab
        .get(&format!("{CONFIG_MAPS}?resourceVersion={then}&resourceVersionMatch=Exact"))
        .await
        .expect(200);
    assert_eq!(
        (names(&exact), exact["metadata"]["resourceVersion"].as_str()),
        (vec!["a".to_owned()], Some(&*then.to_string()))
    );
    let newer = lab.get(&format!("{CONFIG_MAPS}?resourceVersion={then}")).await.expect(200);
    assert_eq!(names(&newer), ["a", "b"]);
    lab.get(&format!("{CONFIG_MAPS}?resourceVersion=0")).await.expect(200);
}

#[tokio::test]
async fn selectors_choose() {
    let lab = Lab::start().await;
    for (name, team) in [("a", "x"), ("b", "y"), ("c", "x")] {
        lab.post(CONFIG_MAPS, &config_map(name, json!({"team": team}))).await.expect(201);
    }
    for (query, expected) in [
        ("labelSelector=team%3Dx", vec!["a", "c"]),
        ("labelSelector=team+in+(y)", vec!["b"]),
        ("labelSelector=!team", vec![]),
        ("fieldSelector=metadata.name%3Dc", vec!["c"]),
        ("fieldSelector=metadata.name!%3Dc,metadata.namespace%3Ddefault", vec!["a", "b"]),
        ("labelSelector=team%3Dx&limit=1", vec!["a"]),
    ] {
        let list = lab.get(&format!("{CONFIG_MAPS}?{query}")).await.expect(200);
        assert_eq!(names(&list), expected, "{query}");
    }
    let refused = lab.get(&format!("{CONFIG_MAPS}?fieldSelector=data.k%3Dv")).await.expect(400);
    assert!(refused["message"].as_str().unwrap().contains("data.k"), "{refused}");
    lab.post(PODS, &pod("p")).await.expect(201);
    assert_eq!(
        names(
            &lab.get(&format!("{PODS}?fieldSelector=status.phase%3DPending,spec.nodeName%3D"))
                .await
                .expect(200)
        ),
        ["p"]
    );
    assert_eq!(
        names(&lab.get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dn1")).await.expect(200)),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn tables_metadata_yaml_pretty_and_gzip() {
    let lab = Lab::start().await;
    for n in 0..3 {
        lab.post(CONFIG_MAPS, &config_map(&format!("m{n}"), json!({}))).await.expect(201);
    }
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table =
        lab.send("GET", &format!("{CONFIG_MAPS}?limit=2"), &[("accept", accept)], "").await.expect(200);
    assert_eq!(table["kind"], "Table");
    assert_eq!(
        (table["rows"].as_array().unwrap().len(), table["metadata"]["remainingItemCount"].as_i64()),
        (2, Some(1))
    );
    assert!(table["metadata"]["continue"].is_string());
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let object = lab
        .send("GET", &format!("{CONFIG_MAPS}/m0?includeObject=Object"), &[("accept", accept)], "")
        .await
        .expect(200);
    assert_eq!(object["rows"][0]["object"]["data"]["k"], "v");
    let refused = lab.send("GET", &format!("{CONFIG_MAPS}?includeObject=x"), &[("accept", accept)], "").await;
    assert_eq!(
        refused.expect(400)["message"],
        "Unable to convert to Table as requested: includeObject: Invalid value: \"x\": must be 'Metadata', 'Object', 'None', or empty"
    );
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let none = lab.send("GET", "/api/v1/limitranges", &[("accept", accept)], "").await.expect(200);
    assert!(none.as_object().unwrap().contains_key("items") && none["items"].is_null(), "{none}");
    let partial = lab.send("GET", CONFIG_MAPS, &[("accept", accept)], "").await.expect(200);
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert_eq!(
        (partial["items"][0]["metadata"]["name"].as_str(), partial["items"][0]["data"].is_null()),
        (Some("m0"), true)
    );
    let yaml = lab.send("GET", &format!("{CONFIG_MAPS}/m0"), &[("accept", "application/yaml")], "").await;
    assert!(String::from_utf8_lossy(&yaml.bytes).contains("kind: ConfigMap"), "{yaml:?}");
    let pretty = lab.get(&format!("{CONFIG_MAPS}/m0?pretty=true")).await;
    assert!(pretty.bytes.starts_with(b"{\n  \"kind\": \"ConfigMap\",\n"), "{pretty:?}");
    let large = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"}, "data": {"k": "x".repeat(200_000)}});
    lab.post(CONFIG_MAPS, &large).await.expect(201);
    let packed = lab.send("GET", CONFIG_MAPS, &[("accept-encoding", "gzip")], "").await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.bytes.len() < 20_000);
    let plain = lab.get(CONFIG_MAPS).await;
    assert!(plain.headers.get("content-encoding").is_none());
    plain.expect(200);
}

#[tokio::test]
async fn protobuf_lists_decode() {
    let lab = Lab::start().await;
    lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
    let accept = [("accept", "application/vnd.kubernetes.protobuf,application/json")];
    let answer = lab.send("GET", CONFIG_MAPS, &accept, "").await;
    assert_eq!(answer.headers["content-type"], "application/vnd.kubernetes.protobuf");
    let list = keelson_api::proto::decode(keelson_api::t::core_v1::CONFIG_MAP_LIST, &answer.bytes).unwrap();
    assert_eq!(&*list.gvk.kind, "ConfigMapList");
    assert_eq!(list.list(&[keelson_api::f::core_v1::config_map_list::ITEMS]).len(), 1);
}

/// Beyond what is encoded at once: measured first, then sent in pieces; the second time nothing is measured.
#[tokio::test]
async fn long_protobuf_lists_are_encoded_while_they_are_sent() {
    use crate::body::Body;
    use http_body_util::BodyExt as _;
    use keelson_api::{f, proto, t};
    let lab = Lab::start().await;
    for n in 0..60 {
        let mut map = config_map(&format!("m{n:02}"), json!({"n": n.to_string()}));
        map["data"]["k"] = "x".repeat(500 * n).into();
        lab.post(CONFIG_MAPS, &map).await.expect(201);
    }
    let plain = lab.get(CONFIG_MAPS).await.expect(200);
    for round in 0..2 {
        let request =
            http::Request::builder().uri(CONFIG_MAPS).header("accept", "application/vnd.kubernetes.protobuf");
        let request = request.body(http_body_util::Full::new(bytes::Bytes::new())).unwrap();
        let response = lab.raw(admin(), request).await;
        let mut body: Body = response.into_body();
        let length = body.len().expect("the length stands before the body") as usize;
        let (mut bytes, mut longest) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            longest = longest.max(piece.len());
            bytes.extend_from_slice(&piece);
        }
        assert_eq!(bytes.len(), length, "round {round}");
        assert!(length > 800_000 && longest < 128 * 1024, "{length} bytes in pieces of up to {longest}");
        let list = proto::decode(t::core_v1::CONFIG_MAP_LIST, &bytes).unwrap();
        let mut json = Vec::new();
        keelson_api::json::encode_canonical(&list, keelson_api::json::EncodeOptions::FULL, &mut json);
        assert_eq!(serde_json::from_slice::<Value>(&json).unwrap(), plain, "round {round}");
        assert_eq!(list.list(&[f::core_v1::config_map_list::ITEMS]).len(), 60);
    }
    let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let headers = [("accept", partial), ("accept-encoding", "gzip")];
    let answer = lab.send("GET", &format!("{CONFIG_MAPS}?limit=50"), &headers, "").await;
    let list = proto::decode(t::meta_v1::PARTIAL_OBJECT_METADATA_LIST, &answer.bytes).unwrap();
    assert_eq!(list.list(&[f::meta_v1::partial_object_metadata_list::ITEMS]).len(), 50);
}

#[tokio::test]
async fn component_statuses_say_how_the_components_are() {
    use keelson_daemon::health::State;
    let health = keelson_daemon::Health::default();
    let told = health.clone();
    let lab = Lab::with(|config| config.components = told).await;
    const PATH: &str = "/api/v1/componentstatuses";
    health.set(crate::component_status::SCHEDULER, State::Running);
    health.set(crate::component_status::CONTROLLERS, State::Ended("it failed: no rights".to_owned()));
    let answer = lab.get(PATH).await;
    assert_eq!(answer.warnings(), ["299 - \"v1 ComponentStatus is deprecated in v1.19+\""]);
    let condition =
        |status: &str, message: &str| json!([{"type": "Healthy", "status": status, "message": message}]);
    let expected = json!({
        "kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {},
        "items": [
            {"metadata": {"name": "controller-manager"}, "conditions": condition("False", "it failed: no rights")},
            {"metadata": {"name": "scheduler"}, "conditions": condition("True", "ok")},
            {"metadata": {"name": "etcd-0"}, "conditions": condition("True", "ok")},
        ],
    });
    assert_eq!(answer.expect(200), expected);
    let one = lab.get(&format!("{PATH}/scheduler")).await.expect(200);
    assert_eq!(
        (one["kind"].as_str(), &one["metadata"]),
        (Some("ComponentStatus"), &json!({"name": "scheduler"}))
    );
    let missing = lab.get(&format!("{PATH}/x")).await.expect(404);
    assert_eq!(missing["message"], "componentstatus \"x\" not found");
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = lab.send("GET", PATH, &[("accept", accept)], "").await.expect(200);
    let cells: Vec<&Value> = table["rows"].as_array().unwrap().iter().map(|row| &row["cells"]).collect();
    assert_eq!(cells[0], &json!(["controller-manager", "Unhealthy", "it failed: no rights", ""]));
    assert_eq!(cells[1], &json!(["scheduler", "Healthy", "ok", ""]));
    assert_eq!(table["rows"][1]["object"]["metadata"], json!({"name": "scheduler"}));
    for (query, count) in [
        ("fieldSelector=metadata.name%3Detcd-0", 1),
        ("fieldSelector=metadata.name!%3Detcd-0", 2),
        ("labelSelector=a%3Db", 0),
        ("labelSelector=!a", 3),
    ] {
        assert_eq!(names(&lab.get(&format!("{PATH}?{query}")).await.expect(200)).len(), count, "{query}");
    }
    let accept = "application/vnd.kubernetes.protobuf";
    let answer = lab.send("GET", PATH, &[("accept", accept)], "").await;
    let list =
        keelson_api::proto::decode(keelson_api::t::core_v1::COMPONENT_STATUS_LIST, &answer.bytes).unwrap();
    assert_eq!(list.list(&[keelson_api::f::core_v1::component_status_list::ITEMS]).len(), 3);
    lab.post(PATH, &json!({})).await.expect(405);
}

/// As upstream's `ErrorNegotiated`: a Status is what the client accepts, whatever shape it asked for.
#[tokio::test]
async fn statuses_come_in_the_form_the_client_accepts() {
    use keelson_api::{f, proto, t};
    let lab = Lab::start().await;
    let path = format!("{CONFIG_MAPS}/none");
    let get = async |headers: &[(&str, &str)], query: &str| {
        let answer = lab.send("GET", &format!("{path}{query}"), headers, "").await;
        assert_eq!(answer.code, 404);
        (answer.headers["content-type"].to_str().unwrap().to_owned(), answer.bytes)
    };
    const CURL: (&str, &str) = ("user-agent", "curl/8.0");
    const START: &[u8] = b"{\n  \"kind\": \"Status\",\n  \"apiVersion\": \"v1\",\n  \"metadata\": {},\n";
    let compact = get(&[], "").await.1;
    assert!(compact.starts_with(b"{\"kind\":\"Status\"") && compact.ends_with(b"}\n"), "{compact:?}");
    for (headers, query, indented) in [
        (vec![CURL], "", true),
        (vec![CURL], "?pretty=false", false),
        (vec![CURL], "?pretty", true),
        (vec![], "?pretty=true", true),
        (vec![], "?pretty=1", true),
        (vec![], "?pretty=yes", false),
        (vec![("accept", "application/json;pretty=1")], "", true),
        (vec![("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")], "", false),
    ] {
        let (media_type, body) = get(&headers, query).await;
        assert_eq!(media_type, "application/json", "{headers:?}");
        assert_eq!(
            body.starts_with(START),
            indented,
            "{headers:?} {query} {}",
            String::from_utf8_lossy(&body)
        );
    }
    for accept in [
        "application/vnd.kubernetes.protobuf,application/json",
        "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/vnd.kubernetes.protobuf",
    ] {
        let (media_type, body) = get(&[("accept", accept)], "").await;
        assert_eq!(media_type, "application/vnd.kubernetes.protobuf");
        let status = proto::decode(t::meta_v1::STATUS, &body).unwrap();
        assert_eq!((&*status.gvk.kind, status.str(&[f::meta_v1::status::REASON])), ("Status", "NotFound"));
    }
    let (media_type, body) = get(&[("accept", "application/yaml")], "").await;
    assert_eq!(media_type, "application/yaml");
    assert!(String::from_utf8_lossy(&body).contains("reason: NotFound\n"), "{body:?}");
    // A watch that does not begin, and a deletion.
    let accept = [("accept", "application/vnd.kubernetes.protobuf;stream=watch")];
    let refused = lab.send("GET", &format!("{CONFIG_MAPS}?watch=1&labelSelector=a%20b"), &accept, "").await;
    assert_eq!(refused.headers["content-type"], "application/vnd.kubernetes.protobuf");
    lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
    let accept = [("accept", "application/vnd.kubernetes.protobuf")];
    let deleted = lab.send("DELETE", &format!("{CONFIG_MAPS}/a"), &accept, "").await;
    let status = proto::decode(t::meta_v1::STATUS, &deleted.bytes).unwrap();
    assert_eq!(status.str(&[f::meta_v1::status::STATUS]), "Success");
}

#[tokio::test]
async fn negotiation_and_methods() {
    let lab = Lab::start().await;
    lab.send("GET", CONFIG_MAPS, &[("accept", "text/html")], "").await.expect(406);
    lab.send("POST", CONFIG_MAPS, &[("content-type", "text/plain")], "x").await.expect(415);
    lab.send("PATCH", &format!("{CONFIG_MAPS}/x"), &[("content-type", "application/json")], "{}")
        .await
        .expect(415);
    lab.send("PUT", CONFIG_MAPS, &[], "{}").await.expect(405);
    lab.send("POST", "/api/v1/configmaps", &[], "{}").await.expect(405);
    for path in [
        "/api/v1/namespaces/default/nothing",
        "/api/v2/things",
        "/apis/apps/v1/things",
        "/api/v1/namespaces/default/nodes",
        "/api/v1/namespaces/default/pods/p/nothing",
    ] {
        let status = lab.get(path).await.expect(404);
        assert_eq!(status["kind"], "Status", "{path}");
    }
    // Beyond its own groups upstream has no handler.
    for path in ["/nothing", "/apis/none", "/apis/none/v1/things", "/healthz/nothing"] {
        let answer = lab.get(path).await;
        assert_eq!((answer.code, &answer.bytes[..]), (404, &b"404 page not found\n"[..]), "{path}");
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    }
    let huge = vec![b' '; crate::body::MAX_BODY + 1];
    let status = lab.send("POST", CONFIG_MAPS, &[], huge).await.expect(413);
    assert_eq!(status["reason"], "RequestEntityTooLarge");
    lab.get(&format!("{CONFIG_MAPS}?limit=x")).await.expect(400);
    lab.get(&format!("{CONFIG_MAPS}?labelSelector=a%20b")).await.expect(400);
}

#[tokio::test]
async fn metadata_in_every_encoding() {
    use keelson_api::{f, proto, t};
    let lab = Lab::start().await;
    lab.post(CONFIG_MAPS, &config_map("a", json!({"x": "y"}))).await.expect(201);
    let shape = |kind: &str, shape: &str| format!("{kind};as={shape};g=meta.k8s.io;v=v1");
    let one = shape("application/vnd.kubernetes.protobuf", "PartialObjectMetadata");
    let answer = lab.send("GET", &format!("{CONFIG_MAPS}/a"), &[("accept", &one)], "").await;
    assert_eq!(answer.headers["content-type"], "application/vnd.kubernetes.protobuf");
    let doc = proto::decode(t::meta_v1::PARTIAL_OBJECT_METADATA, &answer.bytes).unwrap();
    assert_eq!(
        (&*doc.gvk.kind, doc.meta().name(), doc.meta().labels().is_some()),
        ("PartialObjectMetadata", "a", true)
    );
    let many = shape("application/vnd.kubernetes.protobuf", "PartialObjectMetadataList");
    let answer = lab.send("GET", CONFIG_MAPS, &[("accept", &many)], "").await;
    let list = proto::decode(t::meta_v1::PARTIAL_OBJECT_METADATA_LIST, &answer.bytes).unwrap();
    assert_eq!(&*list.gvk.kind, "PartialObjectMetadataList");
    assert_eq!(list.list(&[f::meta_v1::partial_object_metadata_list::ITEMS]).len(), 1);
    for (accept, path, text) in [
        (
            shape("application/yaml", "PartialObjectMetadata"),
            format!("{CONFIG_MAPS}/a"),
            "kind: PartialObjectMetadata\n",
        ),
        (
            shape("application/yaml", "PartialObjectMetadataList"),
            CONFIG_MAPS.into(),
            "kind: PartialObjectMetadataList\n",
        ),
        (shape("application/yaml", "Table"), format!("{CONFIG_MAPS}/a"), "kind: Table\n"),
        (shape("application/yaml", "Table"), CONFIG_MAPS.into(), "kind: Table\n"),
    ] {
        let answer = lab.send("GET", &path, &[("accept", &accept)], "").await;
        let body = String::from_utf8_lossy(&answer.bytes).into_owned();
        assert_eq!(
            (answer.code, &answer.headers["content-type"]),
            (200, &"application/yaml".parse().unwrap())
        );
        assert!(body.contains(text) && body.contains("name: a\n"), "{body}");
    }
    // A watch says the same, bookmarks too.
    let query = "watch=1&resourceVersion=0&resourceVersionMatch=NotOlderThan&sendInitialEvents=true&allowWatchBookmarks=true";
    let mut watch = lab.watch(&format!("{CONFIG_MAPS}?{query}"), &[("accept", &one)]).await;
    for (kind, name) in [("ADDED", "a"), ("BOOKMARK", "")] {
        let frame = watch.binary().await;
        let at = frame.windows(4).position(|window| window == b"k8s\0").expect("an envelope");
        assert!(frame[..at].windows(kind.len()).any(|window| window == kind.as_bytes()), "{kind}");
        let doc = proto::decode(t::meta_v1::PARTIAL_OBJECT_METADATA, &frame[at..]).unwrap();
        assert_eq!((&*doc.gvk.kind, doc.meta().name()), ("PartialObjectMetadata", name));
    }
}

#[tokio::test]
async fn field_labels_are_those_of_the_version() {
    let lab = Lab::start().await;
    const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
        "regarding": {"namespace": "default", "name": "p"}, "eventTime": "2017-09-19T13:49:16.000000Z",
        "action": "Do", "reason": "Test", "type": "Normal", "reportingController": "c", "reportingInstance": "n",
    });
    lab.post(EVENTS, &event).await.expect(201);
    const CORE: &str = "/api/v1/namespaces/default/events";
    for (path, selector, found) in [
        (EVENTS, "reportingController%3Dc", Some(1)),
        (EVENTS, "reportingController%3Dother", Some(0)),
        (EVENTS, "regarding.name%3Dp,reason%3DTest", Some(1)),
        (EVENTS, "metadata.name%3De", Some(1)),
        (EVENTS, "involvedObject.name%3Dp", None),
        (EVENTS, "source%3Dc", None),
        (CORE, "source%3Dc", Some(1)),
        (CORE, "involvedObject.name%3Dp,reportingComponent%3Dc", Some(1)),
        (CORE, "regarding.name%3Dp", None),
    ] {
        let answer = lab.get(&format!("{path}?fieldSelector={selector}")).await;
        match found {
            Some(count) => assert_eq!(names(&answer.expect(200)).len(), count, "{path} {selector}"),
            None => {
                let message = answer.expect(400)["message"].as_str().unwrap().to_owned();
                assert!(message.starts_with("field label not supported: "), "{message}");
            }
        }
    }
}

#[tokio::test]
async fn what_may_be_selected_by_is_upstreams() {
    let lab = Lab::start().await;
    lab.post(PODS, &pod("p")).await.expect(201);
    for (selector, count) in
        [("spec.host%3D", 1), ("spec.host%3Dn", 0), ("status.podIPs%3D1.2.3.4", 0), ("status.podIPs%3D", 1)]
    {
        let found = lab.get(&format!("{PODS}?fieldSelector={selector}")).await.expect(200);
        assert_eq!(names(&found).len(), count, "{selector}");
    }
    let only = "is not a known field selector: only \"metadata.name\", \"metadata.namespace\"";
    for (path, selector, message) in [
        ("/apis/apps/v1/replicasets", "status.replicas%3D1", format!("\"status.replicas\" {only}")),
        ("/api/v1/namespaces", "name%3Ddefault", "field label not supported: name".into()),
        ("/apis/batch/v1/jobs", "x%3D1", "field label \"x\" not supported for Job".into()),
        (
            "/apis/resource.k8s.io/v1/resourceslices",
            "x%3D1",
            "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: x".into(),
        ),
    ] {
        let refused = lab.get(&format!("{path}?fieldSelector={selector}")).await.expect(400);
        assert_eq!(refused["message"], message, "{path}");
    }
}

#[tokio::test]
async fn reviews_have_no_table() {
    let lab = Lab::start().await;
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    for (accept, code) in [
        ("application/json;as=Table;v=v1;g=meta.k8s.io", 406),
        ("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", 406),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", 201),
    ] {
        let headers = [("accept", accept), ("content-type", "application/json")];
        assert_eq!(lab.send("POST", path, &headers, review.to_string()).await.code, code, "{accept}");
    }
}

#[tokio::test]
async fn metadata_of_a_list_is_not_that_of_an_object() {
    let lab = Lab::start().await;
    lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
    let shape = |kind: &str| format!("application/json;as={kind};v=v1;g=meta.k8s.io");
    let refused = async |path: &str, kind: &str| {
        let answer = lab.send("GET", path, &[("accept", &shape(kind))], "").await.expect(406);
        assert_eq!(answer["reason"], "NotAcceptable");
        answer["message"].as_str().unwrap().to_owned()
    };
    let (object, list) = ("PartialObjectMetadata", "PartialObjectMetadataList");
    assert_eq!(
        refused(CONFIG_MAPS, object).await,
        "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)"
    );
    assert_eq!(
        refused(&format!("{CONFIG_MAPS}/a"), list).await,
        "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)"
    );
    // What else the client takes is not asked: the shape was acceptable.
    let accept = format!("{},application/json", shape(object));
    assert_eq!(lab.send("GET", CONFIG_MAPS, &[("accept", &accept)], "").await.code, 406);
    // An event's object is no list, and is sent as it is.
    let mut frames = lab.watch(&format!("{CONFIG_MAPS}?watch"), &[("accept", &shape(list))]).await;
    assert_eq!(frames.next().await.unwrap()["object"]["kind"], "ConfigMap");
}
