//! What reading costs with the seeded pods in the database.

use crate::Bench;
use crate::client::{Connection, JSON, Kubeconfig, PROTOBUF};
use crate::process::Process;
use crate::report::percentile;
use crate::seed::{NAMESPACE, Seeded, body, config_map, pod_name};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::Value;
use std::time::{Duration, Instant};

const CONFIG_MAPS: &str = "/api/v1/namespaces/bench/configmaps";
/// Objects of a page.
const PAGE: usize = 500;

/// Measures all of them; `before` is the memory before the pods were written, in KiB.
pub async fn measure(bench: &mut Bench, seeded: &Seeded, before: f64) -> Result<()> {
    // Memory first: later measurements leave objects of their own.
    let growth = lists_at_once(&bench.kubeconfig, bench.process, &[&pods()], before).await?;
    bench.report.add("rss_over_bytes", growth / seeded.bytes as f64, "ratio", 2.5);
    let cpu = get(&bench.kubeconfig, bench.process, seeded.count).await?;
    bench.report.add("get_cpu_us", cpu, "us", 70.0);
    list(bench, seeded).await?;
    selector(bench, seeded).await?;
    pages(bench, seeded).await?;
    protobuf(bench, seeded).await
}

fn pods() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods")
}

/// Microseconds of the server's CPU for one GET of a pod, in random order.
pub async fn get(kubeconfig: &Kubeconfig, process: Process, count: usize) -> Result<f64> {
    const GETS: usize = 20_000;
    let mut connection = kubeconfig.connect().await?;
    let cpu = process.cpu_seconds()?;
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..GETS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let name = pod_name((random >> 33) as usize % count);
        let answer = connection.call("GET", &format!("{}/{name}", pods()), Bytes::new()).await?;
        ensure!(contains(&answer, &format!("\"name\":\"{name}\"")), "wrong pod for {name}");
    }
    Ok((process.cpu_seconds()? - cpu) / GETS as f64 * 1e6)
}

fn contains(answer: &[u8], wanted: &str) -> bool {
    answer.windows(wanted.len()).any(|window| window == wanted.as_bytes())
}

/// One write, so that nothing can be kept from the last list.
async fn touch(connection: &mut Connection, what: &str, index: usize) -> Result<()> {
    let object = config_map(&format!("before-{what}-{index}"));
    connection.call("POST", CONFIG_MAPS, body(&object)).await.map(drop)
}

fn items(list: &Value) -> Result<&Vec<Value>> {
    list["items"].as_array().context("the list has no items")
}

/// Whole lists.
async fn list(bench: &mut Bench, seeded: &Seeded) -> Result<()> {
    const LISTS: usize = 60;
    let mut connection = bench.kubeconfig.connect().await?;
    let path = pods();
    let first: Value = serde_json::from_slice(&connection.call("GET", &path, Bytes::new()).await?)?;
    let found = items(&first)?.len();
    ensure!(found == seeded.count, "{found} items of {}", seeded.count);
    drop(first);
    let (mut cpu, mut bytes, mut firsts) = (0.0, 0, Vec::new());
    for index in 0..LISTS {
        touch(&mut connection, "list", index).await?;
        let begun = bench.process.cpu_seconds()?;
        let (first, size) = connection.drain_timed(&path).await?;
        cpu += bench.process.cpu_seconds()? - begun;
        bytes += size;
        firsts.push(first.as_secs_f64() * 1e3);
    }
    bench.report.add("list_mb_per_core_s", bytes as f64 / 1e6 / cpu.max(0.01), "MB/s", 500.0);
    println!("# first byte of a list: p50 {:.3} ms", percentile(&mut firsts, 0.5));
    bench.report.add("list_first_byte_ms", percentile(&mut firsts, 0.99), "ms", 20.0);
    Ok(())
}

/// A selector that one pod of a thousand matches.
async fn selector(bench: &mut Bench, seeded: &Seeded) -> Result<()> {
    const LISTS: usize = 200;
    let mut connection = bench.kubeconfig.connect().await?;
    let mut samples = Vec::with_capacity(LISTS);
    for index in 0..LISTS {
        touch(&mut connection, "selector", index).await?;
        let part = format!("{:03}", index * 7 % 1000);
        let begun = Instant::now();
        let answer =
            connection.call("GET", &format!("{}?labelSelector=part%3D{part}", pods()), Bytes::new()).await?;
        samples.push(begun.elapsed().as_secs_f64() * 1e3);
        let list: Value = serde_json::from_slice(&answer)?;
        let found = items(&list)?;
        ensure!(found.len() == seeded.count / 1000, "{} match {part}", found.len());
        ensure!(found.iter().all(|pod| pod["metadata"]["labels"]["part"] == part), "one does not match");
    }
    println!("# list of ten by label: p99 {:.3} ms", percentile(&mut samples, 0.99));
    bench.report.add("list_selector_ms", percentile(&mut samples, 0.5), "ms", 5.0);
    Ok(())
}

/// Lists in pages.
async fn pages(bench: &mut Bench, seeded: &Seeded) -> Result<()> {
    const LISTS: usize = 10;
    let mut connection = bench.kubeconfig.connect().await?;
    let (mut cpu, mut bytes) = (0.0, 0);
    for index in 0..LISTS {
        touch(&mut connection, "pages", index).await?;
        let (mut token, mut next) = (String::new(), 0);
        loop {
            let path = format!("{}?limit={PAGE}{token}", pods());
            let begun = bench.process.cpu_seconds()?;
            let answer = connection.call("GET", &path, Bytes::new()).await?;
            cpu += bench.process.cpu_seconds()? - begun;
            bytes += answer.len();
            let page: Value = serde_json::from_slice(&answer)?;
            for pod in items(&page)? {
                ensure!(pod["metadata"]["name"] == pod_name(next), "pod {next} is not where it belongs");
                next += 1;
            }
            let Some(more) = page["metadata"]["continue"].as_str() else { break };
            token = format!("&continue={more}");
        }
        ensure!(next == seeded.count, "{next} pods in all pages");
    }
    bench.report.add("list_pages_mb_per_core_s", bytes as f64 / 1e6 / cpu.max(0.01), "MB/s", 350.0);
    Ok(())
}

/// Whole lists in protobuf; megabytes are those of the stored JSON.
async fn protobuf(bench: &mut Bench, seeded: &Seeded) -> Result<()> {
    const LISTS: usize = 10;
    let mut connection = bench.kubeconfig.connect().await?;
    let mut cpu = 0.0;
    for index in 0..LISTS {
        touch(&mut connection, "protobuf", index).await?;
        let begun = bench.process.cpu_seconds()?;
        let answer = connection.get_as(&pods(), PROTOBUF).await?;
        cpu += bench.process.cpu_seconds()? - begun;
        let found = protobuf_items(&answer).context("the answer is no protobuf list")?;
        ensure!(found == seeded.count, "{found} items of {}", seeded.count);
    }
    let bytes = (seeded.bytes * LISTS) as f64;
    bench.report.add("list_pb_mb_per_core_s", bytes / 1e6 / cpu.max(0.01), "MB/s", 150.0);
    Ok(())
}

/// The items (field 2) of the list in an envelope (its field 2, after four bytes of magic).
fn protobuf_items(answer: &[u8]) -> Option<usize> {
    let raw = fields(answer.strip_prefix(b"k8s\0")?)?.into_iter().find(|(number, _)| *number == 2)?.1;
    Some(fields(raw)?.into_iter().filter(|(number, _)| *number == 2).count())
}

/// The length-delimited fields of a message.
fn fields(mut rest: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut out = Vec::new();
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        match key & 7 {
            0 => drop(varint(&mut rest)?),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                let (value, after) = rest.split_at_checked(length)?;
                out.push((key >> 3, value));
                rest = after;
            }
            _ => return None,
        }
    }
    Some(out)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Microseconds of the server's CPU for a page of 100 config maps.
pub async fn page(kubeconfig: &Kubeconfig, process: Process) -> Result<f64> {
    const PAGES: usize = 5000;
    let mut connection = kubeconfig.connect().await?;
    let path = format!("{CONFIG_MAPS}?limit=100");
    let answer: Value = serde_json::from_slice(&connection.call("GET", &path, Bytes::new()).await?)?;
    let found = items(&answer)?.len();
    ensure!(found == 100, "{found} of 100 items");
    let cpu = process.cpu_seconds()?;
    for _ in 0..PAGES {
        connection.get_as(&path, JSON).await?;
    }
    Ok((process.cpu_seconds()? - cpu) / PAGES as f64 * 1e6)
}

/// How many bytes memory grows above `before` (KiB) at most while each path is listed by ten clients at once.
pub async fn lists_at_once(
    kubeconfig: &Kubeconfig,
    process: Process,
    paths: &[&str],
    before: f64,
) -> Result<f64> {
    let mut peak: f64 = 0.0;
    for path in paths {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let (kubeconfig, path) = (kubeconfig.clone(), (*path).to_owned());
            tasks.spawn(async move { kubeconfig.connect().await?.drain(&path).await });
        }
        while !tasks.is_empty() {
            tokio::select! {
                Some(part) = tasks.join_next() => { part??; }
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
            peak = peak.max(process.pss_kib()?);
        }
    }
    println!("# memory {:.0} MiB before the objects, peak {:.0} MiB", before / 1024.0, peak / 1024.0);
    Ok((peak - before) * 1024.0)
}
