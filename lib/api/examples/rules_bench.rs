//! What the rules cost: each step of creating a pod of about 3.4 KB and a ConfigMap of 1 KiB, in microseconds.
//! Run with `cargo run --release -p keelson-api --example rules_bench`.

use std::time::Instant;

use keelson_api::apply::manage::{self, Request};
use keelson_api::apply::reset;
use keelson_api::apply::shape::Shape;
use keelson_api::apply::versions::KindVersions;
use keelson_api::doc::{Doc, Gvk, Value};
use keelson_api::json::{EncodeOptions, FieldValidation, decode, encode_canonical};
use keelson_api::schema::TypeId;
use keelson_api::types::{Ctx, Strategy, User, strategy};
use keelson_api::{defaults, t};
use keelson_base::gates::Gates;

fn pod() -> String {
    let env: Vec<String> =
        (0..12).map(|i| format!(r#"{{"name":"VAR_{i}","value":"some value of it {i}"}}"#)).collect();
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"web-7c5ddbdf54-abcde","namespace":"default",
        "labels":{{"app":"web","pod-template-hash":"7c5ddbdf54"}},"annotations":{{"a":"b"}},
        "ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-7c5ddbdf54","uid":"0","controller":true}}]}},
        "spec":{{"serviceAccountName":"default","containers":[{{"name":"web","image":"registry.local/web:1.2",
        "ports":[{{"containerPort":80,"name":"http"}},{{"containerPort":443,"name":"https"}}],"env":[{env}],
        "resources":{{"limits":{{"cpu":"500m","memory":"128Mi"}},"requests":{{"cpu":"100m","memory":"64Mi"}}}},
        "livenessProbe":{{"httpGet":{{"path":"/live","port":"http"}}}},"readinessProbe":{{"httpGet":{{"path":"/","port":80}}}},
        "volumeMounts":[{{"name":"conf","mountPath":"/etc/conf"}},{{"name":"token","mountPath":"/token","readOnly":true}}],
        "securityContext":{{"runAsNonRoot":true,"capabilities":{{"drop":["ALL"]}},"allowPrivilegeEscalation":false}}}}],
        "volumes":[{{"name":"conf","configMap":{{"name":"conf"}}}},{{"name":"token","projected":{{"sources":[
        {{"serviceAccountToken":{{"path":"token","expirationSeconds":3607}}}},{{"configMap":{{"name":"ca","items":[{{"key":"ca.crt","path":"ca.crt"}}]}}}},
        {{"downwardAPI":{{"items":[{{"path":"ns","fieldRef":{{"fieldPath":"metadata.namespace"}}}}]}}}}]}}}}],
        "tolerations":[{{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}},
        {{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}}],
        "nodeSelector":{{"kubernetes.io/os":"linux"}},"affinity":{{"podAntiAffinity":{{"preferredDuringSchedulingIgnoredDuringExecution":[
        {{"weight":100,"podAffinityTerm":{{"labelSelector":{{"matchLabels":{{"app":"web"}}}},"topologyKey":"kubernetes.io/hostname"}}}}]}}}}}}}}"#,
        env = env.join(",")
    )
}

fn run(name: &str, ty: TypeId, body: &str) {
    const ROUNDS: u32 = 20_000;
    let rules: &Strategy = strategy(Some(ty));
    let gates = Gates::default();
    let ctx = Ctx {
        now: "2026-01-01T00:00:00Z".parse().unwrap_or_default(),
        gates: &gates,
        group: "",
        subresource: "",
        namespaced: true,
        has_status: true,
        user: User::default(),
        custom: None,
    };
    let (decoded, _) = decode(ty, body.as_bytes(), FieldValidation::Strict).unwrap_or_else(|e| panic!("{e}"));
    let (mut defaulting, mut preparing, mut checking, mut owning) = (0u128, 0u128, 0u128, 0u128);
    let mut stored = Vec::new();
    let nothing = |_: &Gvk| None;
    let versions = KindVersions { kind: &decoded.gvk.kind, shape: &nothing };
    let request = Request {
        manager: "kubectl",
        gvk: &decoded.gvk,
        shape: Shape::Struct(ty),
        subresource: "",
        now: "2026-01-01T00:00:00Z",
        versions: &versions,
        filter: reset::filter(&decoded.gvk.group, &decoded.gvk.kind, false, true, ""),
    };
    for _ in 0..ROUNDS {
        let mut doc: Doc = decoded.clone();
        let start = Instant::now();
        defaults::apply(&mut doc);
        defaulting += start.elapsed().as_nanos();
        let start = Instant::now();
        manage::update(&request, None, &mut doc);
        owning += start.elapsed().as_nanos();
        let start = Instant::now();
        rules.before_create(&mut doc, &ctx);
        preparing += start.elapsed().as_nanos();
        let start = Instant::now();
        let errors = rules.check_create(&doc, &ctx);
        checking += start.elapsed().as_nanos();
        assert!(errors.is_empty(), "{errors}");
        stored.clear();
        encode_canonical(&doc, EncodeOptions::STORED, &mut stored);
    }
    let micros = |nanos: u128| nanos as f64 / f64::from(ROUNDS) / 1000.0;
    println!(
        "{name}: {} bytes stored; defaults {:.1} µs, managed fields {:.1} µs, prepare {:.1} µs, validate {:.1} µs",
        stored.len(),
        micros(defaulting),
        micros(owning),
        micros(preparing),
        micros(checking)
    );
}

/// A change of an image, and an apply of the same, to the pod after it was created.
fn changes(ty: TypeId, body: &str) {
    const ROUNDS: u32 = 10_000;
    let (mut live, _) =
        decode(ty, body.as_bytes(), FieldValidation::Strict).unwrap_or_else(|e| panic!("{e}"));
    defaults::apply(&mut live);
    live.meta_mut().set_uid("8d9e");
    let nothing = |_: &Gvk| None;
    let gvk = live.gvk.clone();
    let versions = KindVersions { kind: &gvk.kind, shape: &nothing };
    let request = Request {
        manager: "kubectl",
        gvk: &gvk,
        shape: Shape::Struct(ty),
        subresource: "",
        now: "2026-01-01T00:00:00Z",
        versions: &versions,
        filter: reset::filter("", "Pod", false, true, ""),
    };
    manage::update(&request, None, &mut live);
    let text = body.replace("web:1.2", "web:1.3");
    let (mut changed, _) =
        decode(ty, text.as_bytes(), FieldValidation::Strict).unwrap_or_else(|e| panic!("{e}"));
    defaults::apply(&mut changed);
    let config = keelson_api::json::decode_untyped(text.as_bytes()).unwrap_or(Value::Null);
    let (mut updating, mut applying) = (0u128, 0u128);
    for _ in 0..ROUNDS {
        let mut new = changed.clone();
        let start = Instant::now();
        manage::update(&Request { manager: "patcher", ..request }, Some(&live), &mut new);
        updating += start.elapsed().as_nanos();
        let start = Instant::now();
        let applied = manage::apply(&Request { manager: "applier", ..request }, &live, &config, true);
        applying += start.elapsed().as_nanos();
        assert!(applied.is_ok_and(|applied| applied.changed));
    }
    let micros = |nanos: u128| nanos as f64 / f64::from(ROUNDS) / 1000.0;
    println!("pod, one field changed: update {:.1} µs, apply {:.1} µs", micros(updating), micros(applying));
}

fn main() {
    changes(t::core_v1::POD, &pod());
    run("pod", t::core_v1::POD, &pod());
    let map = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"a","namespace":"b"}},"data":{{"k":"{}"}}}}"#,
        "x".repeat(1024)
    );
    run("configmap", t::core_v1::CONFIG_MAP, &map);
}
