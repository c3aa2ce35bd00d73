//! What memory very many objects take while they go, and what stays of it. Only measured when asked for: `--only delete`.

use crate::Bench;
use crate::seed::body;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const NAMESPACE: &str = "bench-delete";
const OBJECTS: usize = 100_000;
const WRITERS: usize = 32;
/// Bytes of an object as it is read.
const SIZE: f64 = 1200.0;
/// How long after the last deletion memory is looked at.
const AFTER: &[u64] = &[10, 60, 180];
const LIMIT: Duration = Duration::from_secs(600);

/// Writes 100,000 config maps of 1 KiB, deletes them at once, and looks at memory until three minutes later.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let before = bench.process.pss_kib()? / 1024.0;
    let mut connection = bench.kubeconfig.connect().await?;
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    connection.call("POST", "/api/v1/namespaces", body(&namespace)).await?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (kubeconfig, path) = (bench.kubeconfig.clone(), path.clone());
        tasks.spawn(async move {
            let mut connection = kubeconfig.connect().await?;
            for index in (writer..OBJECTS).step_by(WRITERS) {
                let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": format!("gone-{index}") },
                    "data": { "value": "x".repeat(850) } });
                connection.call("POST", &path, body(&object)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let full = bench.process.pss_kib()? / 1024.0;
    println!(
        "# {OBJECTS} written in {:.0} s; {before:.0} MiB before, {full:.0} MiB with them",
        begun.elapsed().as_secs_f64()
    );
    let begun = Instant::now();
    connection.call("DELETE", &format!("/api/v1/namespaces/{NAMESPACE}"), Bytes::new()).await?;
    let mut peak = full;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        peak = peak.max(bench.process.pss_kib()? / 1024.0);
        let list = connection.call("GET", &format!("{path}?limit=1"), Bytes::new()).await?;
        let list: Value = serde_json::from_slice(&list)?;
        if list["items"].as_array().context("no items")?.is_empty() {
            break;
        }
        ensure!(begun.elapsed() < LIMIT, "the objects are not deleted");
    }
    println!("# deleted in {:.0} s; {peak:.0} MiB at most", begun.elapsed().as_secs_f64());
    let bytes = OBJECTS as f64 * SIZE / f64::from(1 << 20);
    bench.report.add("delete_peak_over_bytes", (peak - full) / bytes, "ratio", 1.0);
    let deleted = Instant::now();
    for seconds in AFTER {
        tokio::time::sleep_until((deleted + Duration::from_secs(*seconds)).into()).await;
        let now = bench.process.pss_kib()? / 1024.0;
        bench.report.add(&format!("rss_{seconds}_s_after_delete_mib"), now, "MiB", before);
    }
    Ok(())
}
