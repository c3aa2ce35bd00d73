//! Ten days of a node's writes at speed: a lease every 10 s (of four, each with its own writer), its status every 5 minutes, 200 events an hour that live an
//! hour, 80 pod statuses an hour. What the database's files grow to, and how long one write ever waits.
//!
//! The seeded pods are in the database. Compaction by time sees minutes, not days; it is the bound by size that is tried.

use crate::Bench;
use crate::client::{Connection, Kubeconfig};
use crate::seed::{NAMESPACE, body, pod_name};
use anyhow::{Context, Result};
use bytes::Bytes;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const DAYS: usize = 10;
const LEASES: usize = DAYS * 24 * 360;
/// Writers of leases, pod statuses and events; what each writes is its own.
const LANES: usize = 4;
const NODE_STATUSES: usize = DAYS * 24 * 12;
const EVENTS: usize = DAYS * 24 * 200;
/// Events that live at a time, for an hour each.
const EVENTS_ALIVE: usize = 200;
const POD_STATUSES: usize = DAYS * 24 * 80;
const MERGE: &str = "application/merge-patch+json";

/// Writes all of it, and measures files and waits meanwhile.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let mut connection = bench.kubeconfig.connect().await?;
    for lane in 0..LANES {
        let lease = json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": { "name": format!("churn-{lane}") }, "spec": { "holderIdentity": "churn" } });
        connection.call("POST", &leases(""), body(&lease)).await?;
    }
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "churn" }, "spec": { "unschedulable": true } });
    connection.call("POST", "/api/v1/nodes", body(&node)).await?;
    let begun = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    let kubeconfig = || bench.kubeconfig.clone();
    for lane in 0..LANES {
        writers.spawn(writes(kubeconfig(), (lane..LEASES).step_by(LANES), lease_renewal));
        writers.spawn(writes(kubeconfig(), (lane..POD_STATUSES).step_by(LANES), pod_status));
        writers.spawn(events(kubeconfig(), lane, LANES));
    }
    writers.spawn(writes(kubeconfig(), (0..NODE_STATUSES).step_by(1), node_status));
    let folder = bench.places.data.join("state/db");
    let (mut longest, mut largest, mut count) = (0.0f64, 0u64, 0);
    let mut look = tokio::time::interval(Duration::from_millis(100));
    while !writers.is_empty() {
        tokio::select! {
            Some(done) = writers.join_next() => {
                let (writes, slowest) = done??;
                count += writes;
                longest = longest.max(slowest);
            }
            _ = look.tick() => largest = largest.max(size(&folder)?),
        }
    }
    let live = live_bytes(&bench.kubeconfig).await?;
    println!(
        "# {count} writes in {:.0} s; files {:.1} MB at most, {:.1} MB at the end, {:.1} MB alive",
        begun.elapsed().as_secs_f64(),
        largest as f64 / 1e6,
        size(&folder)? as f64 / 1e6,
        live / 1e6
    );
    bench.report.add("db_over_live", largest as f64 / live, "ratio", 2.5);
    bench.report.add("churn_longest_write_ms", longest, "ms", 200.0);
    connection.call("DELETE", "/api/v1/nodes/churn", Bytes::new()).await?;
    Ok(())
}

fn leases(rest: &str) -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases{rest}")
}

/// What a clock shows in simulated second `seconds`, with `digits` below the second.
fn stamp(seconds: usize, digits: usize) -> String {
    let start = jiff::Timestamp::from_second(1_767_225_600).unwrap_or_default();
    let time = start + jiff::SignedDuration::from_secs(seconds as i64);
    format!("{time:.digits$}")
}

/// Path and merge patch of one write.
type Write = (String, Value);

fn lease_renewal(index: usize) -> Write {
    (
        leases(&format!("/churn-{}", index % LANES)),
        json!({ "spec": { "renewTime": stamp(index * 10, 6), "leaseDurationSeconds": 40 } }),
    )
}

fn node_status(index: usize) -> Write {
    let conditions: Vec<Value> = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]
        .iter()
        .map(|kind| {
            json!({ "type": kind, "status": "Unknown", "reason": "KubeletHasSufficientMemory",
            "message": "kubelet has sufficient memory available", "lastHeartbeatTime": stamp(index * 300, 0) })
        })
        .collect();
    ("/api/v1/nodes/churn/status".to_owned(), json!({ "status": { "conditions": conditions } }))
}

fn pod_status(index: usize) -> Write {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{}/status", pod_name(index % 500));
    (path, json!({ "status": { "message": format!("probe {index}"), "phase": "Pending" } }))
}

/// Count and milliseconds of the slowest.
type Done = Result<(usize, f64)>;

async fn timed(
    connection: &mut Connection,
    method: &str,
    path: &str,
    body: Bytes,
    kind: &str,
) -> Result<f64> {
    let begun = Instant::now();
    connection.call_as(method, path, body, kind).await?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

async fn writes(
    kubeconfig: Kubeconfig,
    indices: std::iter::StepBy<std::ops::Range<usize>>,
    make: fn(usize) -> Write,
) -> Done {
    let mut connection = kubeconfig.connect().await?;
    let (mut count, mut slowest) = (0, 0.0f64);
    for index in indices {
        let (path, patch) = make(index);
        slowest = slowest.max(timed(&mut connection, "PATCH", &path, body(&patch), MERGE).await?);
        count += 1;
    }
    Ok((count, slowest))
}

/// Events of one lane; each is removed when its hour is over.
async fn events(kubeconfig: Kubeconfig, lane: usize, lanes: usize) -> Done {
    let mut connection = kubeconfig.connect().await?;
    let (mut count, mut slowest) = (0, 0.0f64);
    let path = format!("/api/v1/namespaces/{NAMESPACE}/events");
    let name = |index: usize| format!("churn-{index}");
    for index in (lane..EVENTS).step_by(lanes) {
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": { "name": name(index) },
            "involvedObject": { "apiVersion": "v1", "kind": "Pod", "namespace": NAMESPACE, "name": pod_name(index % 500) },
            "reason": "Unhealthy", "type": "Warning", "count": 1,
            "message": "Readiness probe failed: HTTP probe failed with statuscode: 503",
            "source": { "component": "kubelet", "host": "churn" },
        });
        slowest = slowest.max(timed(&mut connection, "POST", &path, body(&event), "application/json").await?);
        count += 1;
        if let Some(old) = index.checked_sub(EVENTS_ALIVE) {
            let old = format!("{path}/{}", name(old));
            slowest =
                slowest.max(timed(&mut connection, "DELETE", &old, Bytes::new(), "application/json").await?);
            count += 1;
        }
    }
    Ok((count, slowest))
}

/// Database and WAL.
fn size(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder).context("no database folder")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.contains("reserve") && !name.ends_with("-shm") {
            // A file may go while we look.
            sum += entry.metadata().map_or(0, |data| data.len());
        }
    }
    Ok(sum)
}

/// The bytes of all objects, as lists of every type tell them (events once).
async fn live_bytes(kubeconfig: &Kubeconfig) -> Result<f64> {
    let mut connection = kubeconfig.connect().await?;
    let mut get = async |path: &str| -> Result<Value> {
        Ok(serde_json::from_slice(&connection.call("GET", path, Bytes::new()).await?)?)
    };
    let mut versions = vec!["/api/v1".to_owned()];
    let groups = get("/apis").await?;
    for group in groups["groups"].as_array().context("no groups")? {
        let version = group["preferredVersion"]["groupVersion"].as_str().context("no version")?;
        if version != "events.k8s.io/v1" {
            versions.push(format!("/apis/{version}"));
        }
    }
    let mut lists = Vec::new();
    for version in versions {
        let found = get(&version).await?;
        for resource in found["resources"].as_array().context("no resources")? {
            let name = resource["name"].as_str().unwrap_or_default();
            let listed =
                resource["verbs"].as_array().is_some_and(|verbs| verbs.iter().any(|verb| verb == "list"));
            if listed && !name.contains('/') {
                lists.push(format!("{version}/{name}"));
            }
        }
    }
    let mut sum = 0;
    let mut connection = kubeconfig.connect().await?;
    for list in lists {
        // One type that is not served (componentstatuses) holds nothing.
        if let Ok(bytes) = connection.drain(&list).await {
            sum += bytes;
        }
    }
    Ok(sum as f64)
}
