//! The API server's figures with the seeded pods in the database.

use crate::Bench;
use crate::floor;
use crate::report::percentile;
use crate::seed::{NAMESPACE, Seeded, body, pod_name};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const CONFIG_MAPS: &str = "/api/v1/namespaces/bench/configmaps";

/// Measures all of them; `before` is the memory before the pods were written, in KiB.
pub async fn measure(bench: &mut Bench, seeded: &Seeded, before: f64) -> Result<()> {
    // Memory first: later measurements leave objects of their own.
    lists_at_once(bench, seeded, before).await?;
    get(bench, seeded).await?;
    list(bench, seeded).await?;
    create_alone(bench).await?;
    create_paced(bench).await?;
    create_many(bench).await
}

fn config_map(name: &str) -> Value {
    let metadata = json!({ "name": name, "labels": { "app": "bench" } });
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "value": "x".repeat(850) } })
}

async fn create_alone(bench: &mut Bench) -> Result<()> {
    const COUNT: usize = 500;
    let mut floor = floor::one_row_commits(&bench.scratch, COUNT, 0)?;
    let mut connection = bench.kubeconfig.connect().await?;
    let mut samples = Vec::with_capacity(COUNT);
    for index in 0..COUNT {
        let request = body(&config_map(&format!("alone-{index}")));
        let begun = Instant::now();
        connection.call("POST", CONFIG_MAPS, request).await?;
        samples.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let (ours, raw) = (percentile(&mut samples, 0.5), percentile(&mut floor, 0.5));
    println!("# create alone p50 {ours:.3} ms, raw commit p50 {raw:.3} ms");
    bench.report.add("create_alone_over_commit_ms", ours - raw, "ms", 0.8);
    Ok(())
}

async fn create_paced(bench: &mut Bench) -> Result<()> {
    const PER_SECOND: u32 = 500;
    const COUNT: usize = 5000;
    let mut floor = floor::one_row_commits(&bench.scratch, COUNT / 2, PER_SECOND)?;
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    const CLIENTS: usize = 32;
    let cpu = bench.process.cpu_seconds()?;
    for client in 0..CLIENTS {
        let kubeconfig = bench.kubeconfig.clone();
        tasks.spawn(async move {
            let mut connection = kubeconfig.connect().await?;
            let mut samples = Vec::new();
            for index in (client..COUNT).step_by(CLIENTS) {
                let due = begun + Duration::from_secs_f64(index as f64 / f64::from(PER_SECOND));
                tokio::time::sleep_until(due.into()).await;
                let request = body(&config_map(&format!("paced-{index}")));
                let sent = Instant::now().max(due);
                connection.call("POST", CONFIG_MAPS, request).await?;
                samples.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            anyhow::Ok(samples)
        });
    }
    let mut samples = Vec::new();
    while let Some(part) = tasks.join_next().await {
        samples.extend(part??);
    }
    let cpu = (bench.process.cpu_seconds()? - cpu) / COUNT as f64 * 1e6;
    let (ours, raw) = (percentile(&mut samples, 0.99), percentile(&mut floor, 0.99));
    println!("# create paced p99 {ours:.3} ms, raw commit p99 {raw:.3} ms");
    bench.report.add("create_p99_over_commit_ms", ours - raw, "ms", 5.0);
    bench.report.add("create_cpu_us", cpu, "us", 300.0);
    Ok(())
}

async fn create_many(bench: &mut Bench) -> Result<()> {
    const CLIENTS: usize = 32;
    let duration = Duration::from_secs(5);
    let floor = floor::grouped_rows_per_second(&bench.scratch, 32, Duration::from_secs(2))?;
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let kubeconfig = bench.kubeconfig.clone();
        tasks.spawn(async move {
            let mut connection = kubeconfig.connect().await?;
            let mut count = 0;
            while begun.elapsed() < duration {
                connection
                    .call("POST", CONFIG_MAPS, body(&config_map(&format!("many-{client}-{count}"))))
                    .await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(part) = tasks.join_next().await {
        count += part??;
    }
    bench.report.add("create_per_s", f64::from(count) / begun.elapsed().as_secs_f64(), "1/s", floor);
    Ok(())
}

async fn get(bench: &mut Bench, seeded: &Seeded) -> Result<()> {
    const COUNT: usize = 20_000;
    let mut connection = bench.kubeconfig.connect().await?;
    let cpu = bench.process.cpu_seconds()?;
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..COUNT {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let name = pod_name((random >> 33) as usize % seeded.count);
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}");
        let answer = connection.call("GET", &path, Bytes::new()).await?;
        let wanted = format!("\"name\":\"{name}\"");
        ensure!(
            answer.windows(wanted.len()).any(|window| window == wanted.as_bytes()),
            "wrong pod for {name}"
        );
    }
    let cpu = (bench.process.cpu_seconds()? - cpu) / COUNT as f64 * 1e6;
    bench.report.add("get_cpu_us", cpu, "us", 90.0);
    Ok(())
}

/// Whole lists, one write before each so that nothing can be kept from the last one.
async fn list(bench: &mut Bench, seeded: &Seeded) -> Result<()> {
    const LISTS: usize = 60;
    let mut connection = bench.kubeconfig.connect().await?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let first: Value = serde_json::from_slice(&connection.call("GET", &path, Bytes::new()).await?)?;
    let items = first["items"].as_array().context("the list has no items")?;
    ensure!(items.len() == seeded.count, "{} items of {}", items.len(), seeded.count);
    let (mut cpu, mut bytes) = (0.0, 0);
    for index in 0..LISTS {
        connection.call("POST", CONFIG_MAPS, body(&config_map(&format!("before-list-{index}")))).await?;
        let begun = bench.process.cpu_seconds()?;
        bytes += connection.drain(&path).await?;
        cpu += bench.process.cpu_seconds()? - begun;
    }
    bench.report.add("list_mb_per_core_s", bytes as f64 / 1e6 / cpu.max(0.01), "MB/s", 300.0);
    Ok(())
}

async fn lists_at_once(bench: &mut Bench, seeded: &Seeded, before: f64) -> Result<()> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (kubeconfig, path) = (bench.kubeconfig.clone(), path.clone());
        tasks.spawn(async move { kubeconfig.connect().await?.drain(&path).await });
    }
    let mut peak: f64 = 0.0;
    while !tasks.is_empty() {
        tokio::select! {
            Some(part) = tasks.join_next() => { part??; }
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
        peak = peak.max(bench.process.pss_kib()?);
    }
    println!("# memory {:.0} MiB before the pods, peak {:.0} MiB", before / 1024.0, peak / 1024.0);
    let growth = (peak - before) * 1024.0 / seeded.bytes as f64;
    bench.report.add("rss_over_bytes", growth, "ratio", 3.0);
    Ok(())
}
