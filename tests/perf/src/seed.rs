//! The objects that lie in the database while measuring. Pods are of 3.4 KB as stored and of a scheduler that does not
//! exist; nothing in the cluster acts on any of them, so that they stay as they are.

use crate::Bench;
use crate::client::Kubeconfig;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub const NAMESPACE: &str = "bench";
/// What a seeded pod is as stored.
const POD_BYTES: std::ops::RangeInclusive<usize> = 3350..=3450;
const WRITERS: usize = 16;
const LIMIT: Duration = Duration::from_secs(60);
/// So long a namespace full of pods may take to go.
const GONE: Duration = Duration::from_secs(120);

/// What was written.
#[derive(Clone, Copy, Default)]
pub struct Seeded {
    pub count: usize,
    /// Sum of the objects' JSON as GET returns it.
    pub bytes: usize,
}

/// A pod much as a Deployment makes it. The label `part` is shared by every thousandth.
pub fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": { "app": "bench", "pod-template-hash": "5d8f7c9b6d", "part": &name[name.len() - 3..] },
            "annotations": { "example.com/checksum": "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d" },
        },
        "spec": {
            "schedulerName": "nobody",
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "main", "image": "registry.example.com/team/application:1.2.3",
                "env": [
                    { "name": "LISTEN", "value": "0.0.0.0:8080" },
                    { "name": "DATABASE", "value": "postgres://application@database.bench.svc.cluster.local:5432/application" },
                ],
                "ports": [{ "name": "http", "containerPort": 8080 }],
                "resources": { "requests": { "cpu": "100m", "memory": "128Mi" }, "limits": { "memory": "256Mi" } },
                "readinessProbe": { "httpGet": { "path": "/ready", "port": "http" } },
                "livenessProbe": { "httpGet": { "path": "/live", "port": "http" } },
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
            }],
            "volumes": [{ "name": "data", "emptyDir": {} }],
        },
    })
}

pub fn pod_name(index: usize) -> String {
    format!("seed-{index:06}")
}

/// A config map of 1 KiB as it is sent.
pub fn config_map(name: &str) -> Value {
    let metadata = json!({ "name": name, "labels": { "app": "bench" } });
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "value": "x".repeat(850) } })
}

/// Of a hundred objects thirty are pods, forty config maps, twenty Secrets, five Leases and five ServiceAccounts.
pub fn mixed(index: usize) -> (String, Value) {
    let name = pod_name(index);
    let core = |plural: &str| format!("/api/v1/namespaces/{NAMESPACE}/{plural}");
    match index % 100 {
        0..30 => (core("pods"), pod(&name)),
        30..70 => (core("configmaps"), config_map(&name)),
        70..90 => (
            core("secrets"),
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { "token": "s".repeat(400) } }),
        ),
        90..95 => (
            format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"),
            json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name }, "spec": { "holderIdentity": name } }),
        ),
        _ => (
            core("serviceaccounts"),
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name } }),
        ),
    }
}

/// Creates the namespace and waits until it has what controllers put into each.
pub async fn namespace(kubeconfig: &Kubeconfig, name: &str) -> Result<()> {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    let mut connection = kubeconfig.connect().await?;
    connection.call("POST", "/api/v1/namespaces", body(&namespace)).await?;
    let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
    let until = Instant::now() + LIMIT;
    while let Err(error) = connection.call("GET", &account, Bytes::new()).await {
        ensure!(Instant::now() < until, "the namespace has no service account: {error:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Creates the namespace and the pods, and checks what is stored of one.
pub async fn pods(kubeconfig: &Kubeconfig, count: usize) -> Result<Seeded> {
    clean(kubeconfig).await?;
    namespace(kubeconfig, NAMESPACE).await?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let seeded = fill(kubeconfig, 0..count, |index| (path.clone(), pod(&pod_name(index)))).await?;
    if count > 0 {
        let one = format!("{path}/{}", pod_name(count / 2));
        let stored = stored_size(&kubeconfig.connect().await?.call("GET", &one, Bytes::new()).await?)?;
        ensure!(POD_BYTES.contains(&stored), "a seeded pod is stored in {stored} bytes, not 3.4 KB");
        println!("# {count} pods of {stored} bytes as stored");
    }
    Ok(seeded)
}

/// Creates objects at paths.
pub async fn fill(
    kubeconfig: &Kubeconfig,
    indices: std::ops::Range<usize>,
    object: impl Fn(usize) -> (String, Value),
) -> Result<Seeded> {
    let mut lanes: Vec<Vec<(String, Bytes)>> = vec![Vec::new(); WRITERS];
    let mut seeded = Seeded { count: indices.len(), bytes: 0 };
    // In steps, so that not all bodies are held at once.
    for start in indices.clone().step_by(4096) {
        for index in start..indices.end.min(start + 4096) {
            let (path, value) = object(index);
            lanes[index % WRITERS].push((path, body(&value)));
        }
        let mut tasks = tokio::task::JoinSet::new();
        for lane in &mut lanes {
            let (kubeconfig, lane) = (kubeconfig.clone(), std::mem::take(lane));
            tasks.spawn(async move {
                let mut connection = kubeconfig.connect().await?;
                let mut bytes = 0;
                for (path, object) in lane {
                    bytes += connection.call("POST", &path, object).await?.len();
                }
                anyhow::Ok(bytes)
            });
        }
        while let Some(written) = tasks.join_next().await {
            seeded.bytes += written??;
        }
    }
    Ok(seeded)
}

/// The bytes that are stored of an object that was answered: its type and revision are not.
fn stored_size(answer: &[u8]) -> Result<usize> {
    let object: Value = serde_json::from_slice(answer)?;
    let spliced = |name: &str, value: &Value| {
        let value = value.as_str().context("an object without type or revision")?;
        anyhow::Ok(format!("\"{name}\":\"{value}\",").len())
    };
    let mut size = answer.len() - spliced("resourceVersion", &object["metadata"]["resourceVersion"])?;
    for name in ["apiVersion", "kind"] {
        size -= spliced(name, &object[name])?;
    }
    Ok(size)
}

/// What an earlier run that failed left behind goes first.
pub async fn clean(kubeconfig: &Kubeconfig) -> Result<()> {
    let left = ["namespaces/bench", "namespaces/bench-pods", "namespaces/bench-watch", "nodes/churn"];
    let mut connection = kubeconfig.connect().await?;
    let begun = Instant::now();
    for left in left {
        let path = &format!("/api/v1/{left}");
        connection.call("DELETE", path, Bytes::new()).await.ok();
        while connection.call("GET", path, Bytes::new()).await.is_ok() {
            ensure!(begun.elapsed() < GONE, "{path} of an earlier run does not go");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

/// Removes what was created.
pub async fn remove(bench: &Bench) -> Result<()> {
    let mut connection = bench.kubeconfig.connect().await?;
    connection.call("DELETE", &format!("/api/v1/namespaces/{NAMESPACE}"), Bytes::new()).await?;
    Ok(())
}

pub fn body(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}
