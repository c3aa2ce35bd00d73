//! The pods that lie in the database while measuring: of 3.4 KB as stored, of a scheduler that does not exist, so that they
//! stay as they are.

use crate::Bench;
use crate::client::Connection;
use anyhow::{Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub const NAMESPACE: &str = "bench";
/// So long a namespace full of pods may take to go.
const GONE: Duration = Duration::from_secs(120);

/// What was written.
pub struct Seeded {
    pub count: usize,
    /// Sum of the objects' JSON as GET returns it.
    pub bytes: usize,
}

/// A pod much as a Deployment makes it.
pub fn pod(name: &str) -> Value {
    let env: Vec<Value> = (0..21)
        .map(|n| json!({ "name": format!("SETTING_{n:02}"), "value": format!("value-of-setting-{n:02}-{}", "x".repeat(24)) }))
        .collect();
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
                "env": env,
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

/// Creates the namespace and the pods.
pub async fn pods(bench: &Bench, count: usize) -> Result<Seeded> {
    let mut connection = bench.kubeconfig.connect().await?;
    clean(&mut connection).await?;
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    connection.call("POST", "/api/v1/namespaces", body(&namespace)).await?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let mut tasks = tokio::task::JoinSet::new();
    const WRITERS: usize = 16;
    for writer in 0..WRITERS {
        let (kubeconfig, path) = (bench.kubeconfig.clone(), path.clone());
        tasks.spawn(async move {
            let mut connection = kubeconfig.connect().await?;
            let mut bytes = 0;
            for index in (writer..count).step_by(WRITERS) {
                bytes += connection.call("POST", &path, body(&pod(&pod_name(index)))).await?.len();
            }
            anyhow::Ok(bytes)
        });
    }
    let mut bytes = 0;
    while let Some(written) = tasks.join_next().await {
        bytes += written??;
    }
    ensure!(count == 0 || bytes / count > 2000, "seeded pods are smaller than meant: {}", bytes / count);
    println!("# {count} pods of {} bytes", bytes / count.max(1));
    Ok(Seeded { count, bytes })
}

/// What an earlier run that failed left behind goes first.
async fn clean(connection: &mut Connection) -> Result<()> {
    let left = ["/api/v1/namespaces/bench", "/api/v1/namespaces/bench-pods", "/api/v1/nodes/churn"];
    let begun = Instant::now();
    for path in left {
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
