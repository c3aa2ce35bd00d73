//! What a fleet of simulated nodes costs the control plane: leases and statuses at upstream's periods, scheduling.
//!
//! A node here is what its kubelet would make and keep: a Node, a Lease renewed every ten seconds, a status written every five
//! minutes. Each connection stands for several nodes.

use crate::Bench;
use crate::client::{Connection, Kubeconfig};
use crate::report::percentile;
use crate::seed::{self, NAMESPACE, body};
use anyhow::{Result, ensure};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const NODES: &str = "/api/v1/nodes";
const LABEL: &str = "bench=fleet";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// Upstream's periods.
const RENEW: Duration = Duration::from_secs(10);
const REPORT: Duration = Duration::from_secs(300);
const PERIOD: Duration = Duration::from_secs(40);
const CONNECTIONS: usize = 500;
const PODS: usize = 1000;
const BOUND: Duration = Duration::from_secs(120);

fn name(index: usize) -> String {
    format!("fleet-{index:05}")
}

fn beat() -> Value {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({ "type": kind, "status": status, "reason": reason, "message": "told by make bench-fleet",
                "lastHeartbeatTime": now, "lastTransitionTime": now })
    };
    json!([
        condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        condition("PIDPressure", "False", "KubeletHasSufficientPID"),
        condition("Ready", "True", "KubeletReady"),
    ])
}

fn node(index: usize) -> (String, Value) {
    let (name, resources) =
        (name(index), json!({ "cpu": "16", "memory": "64Gi", "pods": "110", "ephemeral-storage": "100Gi" }));
    let address = format!("10.{}.{}.{}", 128 + index / 65536, index / 256 % 256, index % 256);
    let labels = json!({ "bench": "fleet", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
                         "topology.kubernetes.io/zone": format!("zone-{}", index % 3) });
    let info = json!({ "machineID": name, "systemUUID": name, "bootID": name, "kernelVersion": "6.1.0", "osImage": "Debian",
                       "containerRuntimeVersion": "containerd://1.6.20", "kubeletVersion": "v1.35.0", "kubeProxyVersion": "",
                       "operatingSystem": "linux", "architecture": "amd64" });
    let status = json!({ "capacity": resources, "allocatable": resources, "conditions": beat(), "nodeInfo": info,
                         "addresses": [{ "type": "InternalIP", "address": address }, { "type": "Hostname", "address": name }] });
    let metadata = json!({ "name": name, "labels": labels });
    let object = json!({ "apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": status });
    (NODES.to_owned(), object)
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

fn lease(index: usize) -> (String, Value) {
    let name = name(index);
    let spec = json!({ "holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now() });
    let metadata = json!({ "name": name, "labels": { "bench": "fleet" } });
    let object = json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec });
    (LEASES.to_owned(), object)
}

/// What one connection's nodes do for [`PERIOD`]; milliseconds of each renewal, lateness included.
async fn keep(kubeconfig: Kubeconfig, nodes: Vec<usize>, count: usize) -> Result<Vec<f64>> {
    let mut connection = kubeconfig.connect().await?;
    let begun = Instant::now();
    let mut samples = Vec::new();
    for round in 0..(PERIOD.as_secs() / RENEW.as_secs()) as u32 {
        for index in &nodes {
            // Spread over the period, as kubelets that started at their own times are.
            let due = begun + RENEW * round + RENEW.mul_f64(*index as f64 / count as f64);
            tokio::time::sleep_until(due.into()).await;
            let patch = body(&json!({ "spec": { "renewTime": now() } }));
            let path = format!("{LEASES}/{}", name(*index));
            connection.call_as("PATCH", &path, patch, MERGE).await?;
            samples.push(due.elapsed().as_secs_f64() * 1e3);
            let rounds = (REPORT.as_secs() / RENEW.as_secs()) as usize;
            if index % rounds == round as usize {
                let status = body(&json!({ "status": { "conditions": beat() } }));
                let path = format!("{NODES}/{}/status", name(*index));
                connection.call_as("PATCH", &path, status, STRATEGIC).await?;
            }
        }
    }
    Ok(samples)
}

/// Keeps all of them; returns when [`PERIOD`] is over.
async fn keep_all(kubeconfig: &Kubeconfig, count: usize) -> Result<Vec<f64>> {
    let connections = CONNECTIONS.min(count);
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..connections {
        tasks.spawn(keep(kubeconfig.clone(), (lane..count).step_by(connections).collect(), count));
    }
    let mut samples = Vec::new();
    while let Some(part) = tasks.join_next().await {
        samples.extend(part??);
    }
    Ok(samples)
}

fn pod(index: usize) -> (String, Value) {
    let requests = json!({ "requests": { "cpu": "100m", "memory": "100Mi" } });
    let container =
        json!({ "name": "main", "image": "registry.example.com/application:1", "resources": requests });
    let spec = json!({ "containers": [container], "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
                       "nodeSelector": { "bench": "fleet" } });
    let metadata = json!({ "name": format!("fleet-{index}"), "labels": { "app": "fleet" } });
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    (path, json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec }))
}

/// Pods a second from the first create to the last binding.
async fn schedule(bench: &Bench) -> Result<f64> {
    let begun = Instant::now();
    seed::fill(&bench.kubeconfig, 0..PODS, pod).await?;
    let mut connection = bench.kubeconfig.connect().await?;
    let unbound = format!("/api/v1/namespaces/{NAMESPACE}/pods?fieldSelector=spec.nodeName%3D&limit=1");
    loop {
        let left: Value = serde_json::from_slice(&connection.call("GET", &unbound, Bytes::new()).await?)?;
        if left["items"].as_array().is_some_and(Vec::is_empty) {
            return Ok(PODS as f64 / begun.elapsed().as_secs_f64());
        }
        ensure!(begun.elapsed() < BOUND, "not all pods were bound within {} s", BOUND.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn remove(connection: &mut Connection) -> Result<()> {
    for path in [LEASES, NODES] {
        connection.call("DELETE", &format!("{path}?labelSelector={LABEL}"), Bytes::new()).await?;
    }
    Ok(())
}

/// Measures all of them, and removes the fleet.
pub async fn measure(bench: &mut Bench, count: usize) -> Result<()> {
    let mut connection = bench.kubeconfig.connect().await?;
    remove(&mut connection).await?;
    seed::clean(&bench.kubeconfig).await?;
    seed::namespace(&bench.kubeconfig, NAMESPACE).await?;
    let seeded = seed::fill(&bench.kubeconfig, 0..count, node).await?;
    seed::fill(&bench.kubeconfig, 0..count, lease).await?;
    println!("# {count} nodes of {} bytes as answered", seeded.bytes / count);
    let (cpu, begun) = (bench.process.cpu_seconds()?, Instant::now());
    let mut samples = keep_all(&bench.kubeconfig, count).await?;
    let cpu = (bench.process.cpu_seconds()? - cpu) / begun.elapsed().as_secs_f64() * 100.0;
    println!("# {} renewals, p50 {:.2} ms", samples.len(), percentile(&mut samples, 0.5));
    bench.report.add("fleet_cpu_percent", cpu, "%", 100.0);
    bench.report.add("fleet_lease_p99_ms", percentile(&mut samples, 0.99), "ms", 100.0);
    // The nodes live on while pods are bound to them.
    let kubeconfig = bench.kubeconfig.clone();
    let keeping = tokio::spawn(async move {
        loop {
            keep_all(&kubeconfig, count).await?;
        }
        #[allow(unreachable_code)]
        anyhow::Ok(())
    });
    let bound = schedule(bench).await;
    keeping.abort();
    bench.report.add("fleet_pods_bound_per_s", bound?, "1/s", 100.0);
    // The first connection was idle for too long to be there still.
    remove(&mut bench.kubeconfig.connect().await?).await?;
    seed::remove(bench).await
}
