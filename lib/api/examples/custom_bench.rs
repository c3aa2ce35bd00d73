//! What a custom resource costs on its way in and out, in CPU time: `cargo run --release -p keelson-api --example custom_bench`.

use std::hint::black_box;
use std::time::Instant;

use keelson_api::field_errors::ErrorList;
use keelson_api::json::{self, EncodeOptions, FieldValidation};
use keelson_api::structural::{Schema, fits, lists, prune, validate};
use serde_json::json;

fn schema() -> Schema {
    let container = json!({"type": "object", "required": ["name", "image"], "properties": {
        "name": {"type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
        "image": {"type": "string", "minLength": 1},
        "pullPolicy": {"type": "string", "enum": ["Always", "IfNotPresent", "Never"], "default": "IfNotPresent"},
        "args": {"type": "array", "items": {"type": "string"}},
        "env": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "value": {"type": "string"}}},
        },
        "ports": {"type": "array", "items": {"type": "object", "properties": {
            "port": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535},
            "target": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        }}},
    }});
    let whole = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["replicas"], "properties": {
            "replicas": {"type": "integer", "minimum": 0},
            "containers": {"type": "array", "maxItems": 64, "items": container},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        }},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }});
    Schema::from_json(whole.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

fn object() -> Vec<u8> {
    let env: Vec<_> =
        (0..12).map(|i| json!({"name": format!("VARIABLE_{i}"), "value": "some value or other"})).collect();
    let containers: Vec<_> = (0..3)
        .map(|i| {
            json!({
                "name": format!("container-{i}"), "image": "registry.example.com/team/image:1.2.3",
                "args": ["--verbose", "--config=/etc/app/config.yaml"], "env": env,
                "ports": [{"port": 8080, "target": "http"}, {"port": 8443, "target": 8443}],
            })
        })
        .collect();
    let labels: serde_json::Map<_, _> = (0..10).map(|i| (format!("label-{i}"), json!("value"))).collect();
    json!({
        "apiVersion": "example.com/v1", "kind": "Thing",
        "metadata": {"name": "thing", "namespace": "default", "labels": labels, "uid": "0d1f8c0e-5b1a-4c53-9f0e-6a4d9d0f3a11"},
        "spec": {"replicas": 3, "containers": containers, "labels": labels},
    })
    .to_string()
    .into_bytes()
}

fn time(name: &str, bytes: usize, mut once: impl FnMut()) {
    const ROUNDS: u32 = 20_000;
    for _ in 0..ROUNDS / 10 {
        once();
    }
    let start = Instant::now();
    for _ in 0..ROUNDS {
        once();
    }
    let micros = start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS);
    println!("{name:<10} {micros:>8.2} us  {:>7.0} MB/s", bytes as f64 / micros);
}

fn main() {
    let (schema, body) = (schema(), object());
    println!("object of {} bytes", body.len());
    let decode = || match json::decode_any(None, &body, FieldValidation::Strict) {
        Ok((doc, _)) => doc,
        Err(error) => panic!("{error}"),
    };
    let mut admitted = decode();
    prune::admit(&schema, &mut admitted, None).unwrap_or_else(|error| panic!("{error}"));
    let mut stored = Vec::new();
    json::encode_canonical(&admitted, EncodeOptions::STORED, &mut stored);
    time("decode", body.len(), || drop(black_box(decode())));
    time("admit", body.len(), || {
        // Admitting what is admitted changes nothing.
        let _ = prune::admit(&schema, black_box(&mut admitted), None);
    });
    time("validate", body.len(), || {
        let mut errors = ErrorList::new();
        validate::validate(&schema, black_box(&admitted), None, &mut errors);
        lists::validate(&schema, black_box(&admitted), &mut errors);
        assert!(errors.is_empty(), "{errors}");
    });
    time("encode", stored.len(), || {
        stored.clear();
        json::encode_canonical(black_box(&admitted), EncodeOptions::STORED, &mut stored);
    });
    time("fits", stored.len(), || assert!(fits::fits(&schema, black_box(&stored))));
}
