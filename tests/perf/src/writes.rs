//! What writing costs with the seeded pods in the database. Every answer is checked against what was sent.

use crate::Bench;
use crate::client::{Connection, Kubeconfig};
use crate::floor;
use crate::process::Process;
use crate::report::percentile;
use crate::seed::{NAMESPACE, body, config_map, pod};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const CONFIG_MAPS: &str = "/api/v1/namespaces/bench/configmaps";
const CLIENTS: usize = 32;
const APPLY: &str = "application/apply-patch+yaml";

/// Measures all of them.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    create_alone(bench).await?;
    create_paced(bench).await?;
    create_many(bench).await?;
    create_pods(bench).await?;
    apply(bench).await
}

async fn create_alone(bench: &mut Bench) -> Result<()> {
    const COUNT: usize = 500;
    let mut floor = floor::one_row_commits(&bench.scratch, COUNT, 0)?;
    let mut connection = bench.kubeconfig.connect().await?;
    let mut samples = Vec::with_capacity(COUNT);
    for index in 0..COUNT {
        samples.push(create(&mut connection, CONFIG_MAPS, &config_map(&format!("alone-{index}"))).await?);
    }
    let (ours, raw) = (percentile(&mut samples, 0.5), percentile(&mut floor, 0.5));
    println!("# create alone p50 {ours:.3} ms, raw commit p50 {raw:.3} ms");
    bench.report.add("create_alone_over_commit_ms", ours - raw, "ms", 0.8);
    Ok(())
}

/// Creates one object and checks the answer; milliseconds.
async fn create(connection: &mut Connection, path: &str, object: &Value) -> Result<f64> {
    let request = body(object);
    let begun = Instant::now();
    let answer = connection.call("POST", path, request).await?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    check(object, &answer)?;
    Ok(took)
}

/// The answer has the name that was sent, and is stored.
fn check(object: &Value, answer: &[u8]) -> Result<()> {
    let answer: Value = serde_json::from_slice(answer)?;
    ensure!(answer["metadata"]["name"] == object["metadata"]["name"], "another object was answered");
    ensure!(answer["metadata"]["resourceVersion"].is_string(), "the object has no revision");
    ensure!(answer["data"] == object["data"], "other data were answered");
    Ok(())
}

/// Creates `count` objects at a pace; milliseconds of each, lateness included.
pub async fn paced(
    kubeconfig: &Kubeconfig,
    per_second: u32,
    count: usize,
    path: &str,
    object: impl Fn(usize) -> Value + Copy + Send + Sync + 'static,
) -> Result<Vec<f64>> {
    let mut tasks = tokio::task::JoinSet::new();
    let begun = Instant::now() + Duration::from_millis(200);
    for client in 0..CLIENTS {
        let (kubeconfig, path) = (kubeconfig.clone(), path.to_owned());
        tasks.spawn(async move {
            let mut connection = kubeconfig.connect().await?;
            let mut samples = Vec::new();
            for index in (client..count).step_by(CLIENTS) {
                let due = begun + Duration::from_secs_f64(index as f64 / f64::from(per_second));
                tokio::time::sleep_until(due.into()).await;
                let late = due.elapsed().as_secs_f64() * 1e3;
                samples.push(late + create(&mut connection, &path, &object(index)).await?);
            }
            anyhow::Ok(samples)
        });
    }
    let mut samples = Vec::new();
    while let Some(part) = tasks.join_next().await {
        samples.extend(part??);
    }
    Ok(samples)
}

async fn create_paced(bench: &mut Bench) -> Result<()> {
    const COUNT: usize = 5000;
    let lines = [(500, "create_p99_over_commit_ms", 5.0), (1000, "create_p99_at_1000_over_commit_ms", 3.0)];
    for (per_second, name, bound) in lines {
        let mut floor = floor::one_row_commits(&bench.scratch, COUNT / 2, per_second)?;
        let object = move |index| config_map(&format!("paced-{per_second}-{index}"));
        let cpu = bench.process.cpu_seconds()?;
        let mut samples = paced(&bench.kubeconfig, per_second, COUNT, CONFIG_MAPS, object).await?;
        let cpu = (bench.process.cpu_seconds()? - cpu) / COUNT as f64 * 1e6;
        let (ours, raw) = (percentile(&mut samples, 0.99), percentile(&mut floor, 0.99));
        println!("# create at {per_second}/s p99 {ours:.3} ms, raw commit p99 {raw:.3} ms, CPU {cpu:.0} us");
        bench.report.add(name, ours - raw, "ms", bound);
        if per_second == 500 {
            // Each has a commit and a wake of every thread to itself.
            bench.report.add("create_paced_cpu_us", cpu, "us", 300.0);
        }
    }
    Ok(())
}

async fn create_many(bench: &mut Bench) -> Result<()> {
    let duration = Duration::from_secs(5);
    let floor = floor::grouped_rows_per_second(&bench.scratch, 32, Duration::from_secs(2))?;
    let cpu = bench.process.cpu_seconds()?;
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let kubeconfig = bench.kubeconfig.clone();
        tasks.spawn(async move {
            let mut connection = kubeconfig.connect().await?;
            let mut count = 0;
            while begun.elapsed() < duration {
                let object = config_map(&format!("many-{client}-{count}"));
                connection.call("POST", CONFIG_MAPS, body(&object)).await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(part) = tasks.join_next().await {
        count += part??;
    }
    let cpu = (bench.process.cpu_seconds()? - cpu) / f64::from(count) * 1e6;
    bench.report.add("create_cpu_us", cpu, "us", 180.0);
    bench.report.add("create_per_s", f64::from(count) / begun.elapsed().as_secs_f64(), "1/s", floor);
    Ok(())
}

/// The server's CPU for a create at the pace of [`create_paced`]; microseconds.
pub async fn create_cpu(kubeconfig: &Kubeconfig, process: Process, prefix: &'static str) -> Result<f64> {
    const COUNT: usize = 2500;
    let object = move |index| config_map(&format!("{prefix}-{index}"));
    let cpu = process.cpu_seconds()?;
    paced(kubeconfig, 500, COUNT, CONFIG_MAPS, object).await?;
    Ok((process.cpu_seconds()? - cpu) / COUNT as f64 * 1e6)
}

/// Pods of 3.4 KB as stored: at the pace of `create_paced_cpu_us`, where each has a commit to itself, and by all clients as fast
/// as they can, as `create_cpu_us` is measured.
async fn create_pods(bench: &mut Bench) -> Result<()> {
    const AT_ONCE: u32 = u32::MAX;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    for (per_second, count, name) in
        [(500, 2500, "create_pod_cpu_us"), (AT_ONCE, 5000, "create_pod_at_once_cpu_us")]
    {
        let cpu = bench.process.cpu_seconds()?;
        let object = move |index| pod(&format!("paced-{count}-{index:06}"));
        paced(&bench.kubeconfig, per_second, count, &path, object).await?;
        let cpu = (bench.process.cpu_seconds()? - cpu) / count as f64 * 1e6;
        bench.report.add(name, cpu, "us", 400.0);
    }
    Ok(())
}

/// Server-side apply that changes the image and a variable of a pod template. The template is that of suspended CronJobs:
/// no controller acts on the change, so that the figure is the request's alone.
async fn apply(bench: &mut Bench) -> Result<()> {
    const OBJECTS: usize = 50;
    const ROUNDS: usize = 40;
    let path = format!("/apis/batch/v1/namespaces/{NAMESPACE}/cronjobs");
    let mut connection = bench.kubeconfig.connect().await?;
    let mut cpu = 0.0;
    for round in 0..=ROUNDS {
        let begun = bench.process.cpu_seconds()?;
        for index in 0..OBJECTS {
            let object = cron_job(&format!("applied-{index}"), round);
            let target = format!("{path}/applied-{index}?fieldManager=bench&force=false");
            let answer = connection.call_as("PATCH", &target, body(&object), APPLY).await?;
            let answer: Value = serde_json::from_slice(&answer)?;
            let image = &answer["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["image"];
            ensure!(image.as_str() == Some(&image_of(round)), "the image is {image}");
            let entry = &answer["metadata"]["managedFields"][0];
            ensure!(entry["manager"] == "bench" && entry["operation"] == "Apply", "nobody owns the fields");
        }
        // The first round makes the objects.
        if round > 0 {
            cpu += bench.process.cpu_seconds()? - begun;
        }
    }
    bench.report.add("apply_cpu_us", cpu / (OBJECTS * ROUNDS) as f64 * 1e6, "us", 600.0);
    Ok(())
}

fn image_of(round: usize) -> String {
    format!("registry.example.com/team/application:1.2.{round}")
}

fn cron_job(name: &str, round: usize) -> Value {
    let mut pod = pod("template-000");
    let spec = &mut pod["spec"];
    spec["restartPolicy"] = json!("Never");
    spec["containers"][0]["image"] = json!(image_of(round));
    spec["containers"][0]["env"][0]["value"] = json!(format!("0.0.0.0:{}", 8000 + round));
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": name, "labels": { "app": "bench" } },
        "spec": {
            "schedule": "0 0 1 1 *", "suspend": true,
            "jobTemplate": { "spec": { "template": { "metadata": { "labels": { "app": "bench" } }, "spec": spec } } },
        },
    })
}
