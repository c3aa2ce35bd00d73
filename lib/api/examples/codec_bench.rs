//! Times the codecs on a pod of about 3.4 KB: `cargo run --release -p keelson-api --example codec_bench`.

use std::hint::black_box;
use std::time::Instant;

use keelson_api::json::{self, EncodeOptions, FieldValidation};
use keelson_api::{defaults, proto, t};

fn time(name: &str, mut work: impl FnMut()) {
    for _ in 0..2_000 {
        work();
    }
    let rounds = 20_000;
    let start = Instant::now();
    for _ in 0..rounds {
        work();
    }
    println!("{name}\t{:.2}\tµs", start.elapsed().as_secs_f64() * 1e6 / f64::from(rounds));
}

fn pod() -> Vec<u8> {
    let container = |name: &str| {
        serde_json::json!({"name": name, "image": "registry.example/team/application:1.2.3", "ports": [{"name": "http", "containerPort": 8080}],
            "env": (0..8).map(|i| serde_json::json!({"name": format!("VARIABLE_{i}"), "value": format!("some value {i}")})).collect::<Vec<_>>(),
            "resources": {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "initialDelaySeconds": 5},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/config", "readOnly": true}, {"name": "token", "mountPath": "/var/run/secrets/token"}]})
    };
    let condition = |ty: &str| serde_json::json!({"type": ty, "status": "True", "lastTransitionTime": "2024-02-03T04:05:06Z"});
    let object = serde_json::json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "application-7d4b9c6f5-x2x4z", "namespace": "production", "uid": "0d0c1b0a-1111-2222-3333-444455556666",
            "resourceVersion": "123456", "creationTimestamp": "2024-02-03T04:05:06Z",
            "labels": {"app": "application", "pod-template-hash": "7d4b9c6f5", "tier": "backend"}, "annotations": {"example.com/note": "x".repeat(120)},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "application-7d4b9c6f5", "uid": "aaaa", "controller": true}]},
        "spec": {"containers": [container("application"), container("sidecar")], "nodeName": "node-1", "serviceAccountName": "default",
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
            "volumes": [{"name": "config", "configMap": {"name": "application"}}, {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]},
        "status": {"phase": "Running", "podIP": "10.1.2.3", "hostIP": "192.168.1.1", "startTime": "2024-02-03T04:05:06Z",
            "conditions": [condition("Ready"), condition("Initialized"), condition("PodScheduled")]}});
    serde_json::to_vec(&object).expect("JSON")
}

fn main() {
    let (mut doc, _) = json::decode(t::core_v1::POD, &pod(), FieldValidation::Strict).expect("decodes");
    defaults::apply(&mut doc);
    let mut text = Vec::new();
    json::encode_canonical(&doc, EncodeOptions::FULL, &mut text);
    println!("pod\t{}\tbytes", text.len());
    let mut message = Vec::new();
    proto::encode(&doc, &mut message).expect("protobuf");
    let mut out = Vec::with_capacity(8192);
    time("json_decode", || drop(black_box(json::decode(t::core_v1::POD, &text, FieldValidation::Strict))));
    time("json_encode", || {
        out.clear();
        json::encode_canonical(black_box(&doc), EncodeOptions::STORED, &mut out);
    });
    time("proto_decode", || drop(black_box(proto::decode(t::core_v1::POD, &message))));
    time("proto_encode", || {
        out.clear();
        let _ = proto::encode(black_box(&doc), &mut out);
    });
    time("defaults_again", || defaults::apply(black_box(&mut doc)));
    time("to_typed", || drop(black_box(doc.to_typed::<k8s_openapi::api::core::v1::Pod>())));
    time("clone", || drop(black_box(doc.clone())));
    println!("value\t{}\tbytes", size_of::<keelson_api::doc::Value>());
}
