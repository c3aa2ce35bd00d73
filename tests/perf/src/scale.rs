//! With 100,000 objects of five types: memory, idle CPU, and whether a request costs what it costs with 1,000.

use crate::Bench;
use crate::reads::{get, lists_at_once, page};
use crate::seed::{self, NAMESPACE, Seeded, pod_name};
use crate::writes::create_cpu;
use anyhow::Result;
use serde_json::Value;
use std::time::Duration;

const FEW: usize = 1000;
const IDLE: Duration = Duration::from_secs(60);

/// The lists of what [`seed::mixed`] makes.
pub fn lists() -> Vec<String> {
    // One object of each type tells its path.
    let mut paths: Vec<String> = (0..100).map(|index| seed::mixed(index).0).collect();
    paths.sort();
    paths.dedup();
    paths
}

/// The CPU of requests whose answers are of the same size however many objects there are.
struct Costs([(&'static str, f64); 3]);

async fn costs(bench: &Bench, prefix: &'static str) -> Result<Costs> {
    let (kubeconfig, process) = (&bench.kubeconfig, bench.process);
    Ok(Costs([
        ("flat_get", get(kubeconfig, process, FEW / 2).await?),
        ("flat_page", page(kubeconfig, process).await?),
        ("flat_create", create_cpu(kubeconfig, process, prefix).await?),
    ]))
}

/// Measures all of them. The namespace is the caller's to remove.
pub async fn measure(bench: &mut Bench, count: usize) -> Result<()> {
    seed::clean(&bench.kubeconfig).await?;
    let before = bench.process.pss_kib()?;
    seed::namespace(&bench.kubeconfig, NAMESPACE).await?;
    // The pods that are read by name are there from the beginning.
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let few = move |index: usize| -> (String, Value) {
        match index % 2 {
            0 => (pods.clone(), seed::pod(&pod_name(index / 2))),
            _ => (format!("/api/v1/namespaces/{NAMESPACE}/configmaps"), seed::config_map(&pod_name(index))),
        }
    };
    let mut sum = Seeded::default();
    let mut add = |seeded: Seeded| {
        sum.count += seeded.count;
        sum.bytes += seeded.bytes;
    };
    add(seed::fill(&bench.kubeconfig, 0..FEW, few).await?);
    let small = costs(bench, "few").await?;
    add(seed::fill(&bench.kubeconfig, FEW..count, seed::mixed).await?);
    let lists = lists();
    let lists: Vec<&str> = lists.iter().map(String::as_str).collect();
    let growth = lists_at_once(&bench.kubeconfig, bench.process, &lists, before).await?;
    println!("# {} objects of {:.1} MB", sum.count, sum.bytes as f64 / 1e6);
    bench.report.add("rss_over_bytes_100k", growth / sum.bytes as f64, "ratio", 2.5);
    let large = costs(bench, "many").await?;
    for ((name, few), (_, many)) in small.0.into_iter().zip(large.0) {
        println!("# {name}: {few:.1} us with {FEW} objects, {many:.1} us with {}", sum.count);
        bench.report.add(&format!("{name}_ratio"), many / few, "ratio", 1.25);
    }
    println!("# idling for {} s", IDLE.as_secs());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let cpu = bench.process.cpu_seconds()?;
    tokio::time::sleep(IDLE).await;
    let cpu = (bench.process.cpu_seconds()? - cpu) / IDLE.as_secs_f64() * 100.0;
    bench.report.add("idle_cpu_100k_percent", cpu, "%", 0.7);
    Ok(())
}
