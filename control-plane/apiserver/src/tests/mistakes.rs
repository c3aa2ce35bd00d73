//! Every type, every verb, bad and thin bodies: answers below 500 (501 where something is not there yet), no panic.

use std::sync::atomic::Ordering;

use keelson_api::table::Resource;
use serde_json::{Value, json};

use super::harness::*;

fn collection(row: &Resource) -> String {
    let root = if row.group.is_empty() {
        format!("/api/{}", row.version)
    } else {
        format!("/apis/{}/{}", row.group, row.version)
    };
    if row.namespaced {
        format!("{root}/namespaces/default/{}", row.plural)
    } else {
        format!("{root}/{}", row.plural)
    }
}

fn check(what: &str, answer: &Answer) {
    assert!(
        answer.code < 500 || answer.code == 501,
        "{what}: {} {}",
        answer.code,
        String::from_utf8_lossy(&answer.bytes)
    );
    if answer.code >= 400 && answer.code != 404 {
        let kind = match answer.headers["content-type"].to_str().unwrap() {
            "application/vnd.kubernetes.protobuf" => {
                keelson_api::proto::peek_type_meta(&answer.bytes).unwrap().1
            }
            "application/yaml" => {
                serde_saphyr::from_slice::<Value>(&answer.bytes).unwrap()["kind"].to_string()
            }
            _ => answer.json()["kind"].to_string(),
        };
        assert_eq!(kind.trim_matches('"'), "Status", "{what}");
    }
}

/// Bodies that are wrong in many ways; `kind` and `apiVersion` are right where there is an object.
fn bodies(row: &Resource) -> Vec<Vec<u8>> {
    let (kind, api_version) = (row.kind.as_str(), row.api_version());
    let object = |rest: Value| {
        let mut value = json!({"kind": kind, "apiVersion": api_version.as_str(), "metadata": {"name": "x"}});
        if let (Some(value), Value::Object(rest)) = (value.as_object_mut(), rest) {
            value.extend(rest);
        }
        value.to_string().into_bytes()
    };
    let mut deep = String::new();
    deep.push_str(&"[".repeat(20_000));
    vec![
        b"".to_vec(),
        b"{}".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"\"x\"".to_vec(),
        b"{\"kind\":".to_vec(),
        b"\xff\xfe\x00".to_vec(),
        deep.into_bytes(),
        object(json!({})),
        object(json!({"spec": null, "status": null})),
        object(json!({"spec": {}, "status": {}})),
        object(json!({"spec": [], "data": 7, "rules": "x", "subjects": {}, "webhooks": 1})),
        object(
            json!({"metadata": {"name": "x", "labels": {"a b": "c"}, "finalizers": ["x"], "ownerReferences": [{}]}}),
        ),
        object(json!({"metadata": {"name": "", "generateName": "", "creationTimestamp": "never"}})),
        object(json!({"metadata": {"name": "../../etc", "namespace": "default"}})),
        object(json!({"metadata": {"name": "x".repeat(5000)}})),
        object(
            json!({"spec": {"selector": {"matchExpressions": [{"key": "a", "operator": "Maybe"}]}, "template": {}, "replicas": -1}}),
        ),
        object(json!({"spec": {"containers": [{}], "ports": [{}], "clusterIP": "x", "type": "?"}})),
        object(
            json!({"spec": {"replicas": 99_999_999_999i64, "parallelism": 1e300, "schedule": "@", "maxReplicas": "5"}}),
        ),
        object(
            json!({"spec": {"rules": [{}], "tls": [{}], "podSelector": {}, "ingress": [{}], "cidrs": [""], "request": "AA==", "signerName": ""}}),
        ),
    ]
}

#[tokio::test]
async fn no_body_takes_a_type_down() {
    let lab = Lab::start().await;
    let table = lab.api.core().table.load_full();
    let json = [("content-type", "application/json")];
    for row in table.rows() {
        let path = collection(row);
        let what = format!("{} {}", row.api_version(), row.plural);
        for body in bodies(row) {
            check(
                &format!("POST {what} {}", String::from_utf8_lossy(&body[..body.len().min(200)])),
                &lab.send("POST", &path, &json, body.clone()).await,
            );
            check(&format!("PUT {what}"), &lab.send("PUT", &format!("{path}/x"), &json, body).await);
        }
        for kind in ["yaml", "vnd.kubernetes.protobuf"] {
            let media = format!("application/{kind}");
            for body in [&b"a: *b\n"[..], b"k8s\0\x0a\xff\xff\xff\xff\x0f", b"&a [*a]", b"k8s\0", b""] {
                check(
                    &format!("POST {what} {kind}"),
                    &lab.send("POST", &path, &[("content-type", &media)], body).await,
                );
            }
        }
        for kind in ["json-patch+json", "merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml"]
        {
            let media = format!("application/{kind}");
            for body in [
                &b"[]"[..],
                b"{}",
                b"null",
                br#"{"metadata":null,"spec":{"$patch":"replace"}}"#,
                br#"[{"op":"remove","path":"/metadata"}]"#,
                br#"{"metadata":{"labels":{"a":"b"}}}"#,
            ] {
                check(
                    &format!("PATCH {what} {kind}"),
                    &lab.send(
                        "PATCH",
                        &format!("{path}/x?fieldManager=t"),
                        &[("content-type", &media)],
                        body,
                    )
                    .await,
                );
            }
        }
        for query in [
            "",
            "?limit=1",
            "?fieldSelector=metadata.name%3Dx",
            "?labelSelector=a",
            "?resourceVersion=0",
            "?continue=x",
        ] {
            check(&format!("LIST {what}{query}"), &lab.get(&format!("{path}{query}")).await);
        }
        for accept in [
            "application/json;as=Table;v=v1;g=meta.k8s.io",
            "application/vnd.kubernetes.protobuf",
            "application/yaml",
        ] {
            check(&format!("LIST {what} {accept}"), &lab.send("GET", &path, &[("accept", accept)], "").await);
            check(
                &format!("GET {what} {accept}"),
                &lab.send("GET", &format!("{path}/x"), &[("accept", accept)], "").await,
            );
        }
        for sub in &row.subresources {
            if matches!(sub.name.as_str(), "proxy" | "log" | "exec" | "attach" | "portforward") {
                continue;
            }
            for (method, body) in
                [("GET", ""), ("PUT", "{}"), ("POST", "{}"), ("POST", r#"{"metadata":{"name":"x"}}"#)]
            {
                check(
                    &format!("{method} {what}/{}", sub.name),
                    &lab.send(method, &format!("{path}/x/{}", sub.name), &json, body).await,
                );
            }
        }
        check(&format!("DELETE {what}"), &lab.delete(&format!("{path}/x")).await);
        check(
            &format!("DELETE {what} options"),
            &lab.send("DELETE", &format!("{path}/x"), &json, "{\"kind\":\"Pod\"}").await,
        );
    }
    assert_eq!(lab.api.core().metrics.panics.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_websocket_get_means_exec() {
    let lab = Lab::start().await;
    let nobody = crate::UserInfo::authenticated("nobody", &[]);
    let refused = lab
        .send_as(nobody, "GET", &format!("{PODS}/p/exec?command=sh"), &[("upgrade", "websocket")], "")
        .await
        .expect(403);
    assert!(
        refused["message"].as_str().unwrap().contains("cannot create resource \"pods/exec\""),
        "{refused}"
    );
}
