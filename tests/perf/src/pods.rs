//! How long a pod takes to be Ready, against the raw runtime calls with the same CNI plugin and resources, in pairs.

use crate::Bench;
use crate::report::percentile;
use crate::seed::body;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use keelson_proto::cri;
use keelson_proto::cri::runtime_service_client::RuntimeServiceClient;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

const NAMESPACE: &str = "bench-pods";
const IMAGE: &str = "keelson.dev/pause:1";
const PAIRS: usize = 30;
/// Pods of a burst, and of a search for the best width.
const BURST: usize = 50;
const PROBE: usize = 16;
const LIMIT: Duration = Duration::from_secs(60);

/// Measures single pods and a burst.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let mut connection = bench.kubeconfig.connect().await?;
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    connection.call("POST", "/api/v1/namespaces", body(&namespace)).await?;
    let config = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "page" }, "data": { "a": "b" } });
    connection.call("POST", &path("configmaps"), body(&config)).await?;
    service_account(bench).await?;
    let mut raw = Raw::connect(&bench.cri_socket, bench.scratch.join("raw-logs")).await?;
    let (mut ratios, mut ours, mut floors) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..PAIRS {
        let floor = raw.start(&format!("raw-{index}")).await?;
        let own = one_pod(bench, &format!("one-{index}")).await?;
        ratios.push(own / floor);
        ours.push(own);
        floors.push(floor);
    }
    let spread = (percentile(&mut ratios, 0.25), percentile(&mut ratios, 0.75));
    println!(
        "# pod start p50 {:.0} ms, raw p50 {:.0} ms, ratio quartiles {:.2} to {:.2}",
        percentile(&mut ours, 0.5),
        percentile(&mut floors, 0.5),
        spread.0,
        spread.1
    );
    bench.report.add("pod_start_over_cri", percentile(&mut ratios, 0.5), "ratio", 1.4);
    burst(bench, &mut raw).await?;
    // A connection of its own: the first one was idle for longer than the server keeps one.
    let mut connection = bench.kubeconfig.connect().await?;
    connection.call("DELETE", &format!("/api/v1/namespaces/{NAMESPACE}"), Bytes::new()).await?;
    Ok(())
}

fn path(resource: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/{resource}")
}

/// The default service account is made by a controller; a pod before it is refused.
async fn service_account(bench: &Bench) -> Result<()> {
    let mut connection = bench.kubeconfig.connect().await?;
    let deadline = Instant::now() + LIMIT;
    while connection.call("GET", &path("serviceaccounts/default"), Bytes::new()).await.is_err() {
        if Instant::now() > deadline {
            bail!("the default service account does not appear");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn pod_spec() -> Value {
    json!({
        "terminationGracePeriodSeconds": 0,
        "containers": [{
            "name": "main", "image": IMAGE,
            "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } },
            "volumeMounts": [{ "name": "page", "mountPath": "/page" }],
        }],
        "volumes": [{ "name": "page", "configMap": { "name": "page" } }],
    })
}

/// Milliseconds from the POST until a watcher sees Ready.
async fn one_pod(bench: &Bench, name: &str) -> Result<f64> {
    let mut watcher = bench.kubeconfig.connect().await?;
    let selector = format!("{}?watch=1&fieldSelector=metadata.name%3D{name}", path("pods"));
    let mut watch = watcher.send("GET", &selector, Bytes::new()).await?.into_body();
    let mut connection = bench.kubeconfig.connect().await?;
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": pod_spec() });
    let begun = Instant::now();
    connection.call("POST", &path("pods"), body(&pod)).await?;
    let ready = async {
        let mut lines = Vec::new();
        while let Some(frame) = watch.frame().await {
            lines.extend_from_slice(frame?.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = lines.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = lines.drain(..=end).collect();
                if is_ready(&serde_json::from_slice(&line)?) {
                    return Ok(begun.elapsed().as_secs_f64() * 1e3);
                }
            }
        }
        bail!("the watch ended")
    };
    let took = tokio::time::timeout(LIMIT, ready).await.with_context(|| format!("{name} is not Ready"))??;
    connection.call("DELETE", &path(&format!("pods/{name}")), Bytes::new()).await?;
    Ok(took)
}

fn is_ready(event: &Value) -> bool {
    let conditions = event["object"]["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// 50 pods of three Deployments at once, against as many raw starts at the best width of 4 to 8. Raw, ours, ours, raw: the
/// file system gets slower the more was deleted on it lately, and whoever comes later would bear that.
async fn burst(bench: &mut Bench, raw: &mut Raw) -> Result<()> {
    let (mut best, mut width) = (0.0f64, 0);
    for parallel in [4, 6, 8] {
        let rate = raw.throughput(PROBE, parallel).await?;
        println!("# {PROBE} raw pods, {parallel} at a time: {rate:.1} pods/s");
        if rate > best {
            (best, width) = (rate, parallel);
        }
    }
    let before = raw.throughput(BURST, width).await?;
    let own = [deployments(bench).await?, deployments(bench).await?];
    let after = raw.throughput(BURST, width).await?;
    let took = |rates: [f64; 2]| rates.iter().map(|rate| BURST as f64 / rate).sum::<f64>();
    println!(
        "# bursts of {BURST}: {:.1} and {:.1} pods/s; raw, {width} at a time, before and after: {before:.1} and {after:.1}",
        own[0], own[1]
    );
    bench.report.add("pod_burst_over_cri", took([before, after]) / took(own), "ratio", 0.8);
    Ok(())
}

/// Pods per second until all are ready; afterwards they are removed.
async fn deployments(bench: &Bench) -> Result<f64> {
    let mut connection = bench.kubeconfig.connect().await?;
    let deployments = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
    let begun = Instant::now();
    for (name, replicas) in [("a", 17), ("b", 17), ("c", 16)] {
        let labels = json!({ "burst": name });
        let template = json!({ "metadata": { "labels": labels }, "spec": pod_spec_always() });
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
            "spec": { "replicas": replicas, "selector": { "matchLabels": labels }, "template": template },
        });
        connection.call("POST", &deployments, body(&deployment)).await?;
    }
    loop {
        let list: Value = serde_json::from_slice(&connection.call("GET", &deployments, Bytes::new()).await?)?;
        let items = list["items"].as_array().context("no items")?;
        let ready: u64 = items.iter().filter_map(|item| item["status"]["readyReplicas"].as_u64()).sum();
        if ready as usize >= BURST {
            break;
        }
        if begun.elapsed() > LIMIT * 2 {
            bail!("only {ready} of {BURST} pods of the burst are ready");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = begun.elapsed().as_secs_f64();
    connection.call("DELETE", &deployments, Bytes::new()).await?;
    let gone = Instant::now();
    loop {
        let list: Value =
            serde_json::from_slice(&connection.call("GET", &path("pods"), Bytes::new()).await?)?;
        let left = list["items"].as_array().context("no items")?.len();
        if left == 0 {
            return Ok(BURST as f64 / took);
        }
        if gone.elapsed() > LIMIT {
            bail!("{left} pods of the burst do not go");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn pod_spec_always() -> Value {
    let mut spec = pod_spec();
    spec["restartPolicy"] = json!("Always");
    spec
}

/// The runtime, called as directly as can be.
struct Raw {
    client: RuntimeServiceClient<Channel>,
    logs: PathBuf,
}

impl Raw {
    async fn connect(socket: &Path, logs: PathBuf) -> Result<Raw> {
        std::fs::create_dir_all(&logs)?;
        let socket = socket.to_owned();
        let connector = tower_service(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://runtime").connect_with_connector(connector).await?;
        Ok(Raw { client: RuntimeServiceClient::new(channel), logs })
    }

    /// Milliseconds of RunPodSandbox, CreateContainer and StartContainer; the pod is removed afterwards.
    async fn start(&mut self, name: &str) -> Result<f64> {
        let begun = Instant::now();
        let sandbox = self.run(name).await?;
        let took = begun.elapsed().as_secs_f64() * 1e3;
        self.remove(sandbox).await?;
        Ok(took)
    }

    async fn run(&mut self, name: &str) -> Result<String> {
        let sandbox = sandbox_config(name, &self.logs);
        let request = cri::RunPodSandboxRequest { config: Some(sandbox.clone()), ..Default::default() };
        let id = self.client.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: id.clone(),
            config: Some(container_config()),
            sandbox_config: Some(sandbox),
        };
        let container = self.client.create_container(request).await?.into_inner().container_id;
        self.client.start_container(cri::StartContainerRequest { container_id: container }).await?;
        Ok(id)
    }

    async fn remove(&mut self, id: String) -> Result<()> {
        self.client.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id: id.clone() }).await?;
        self.client.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: id }).await?;
        Ok(())
    }

    /// Pods started per second with `parallel` at once.
    async fn throughput(&mut self, pods: usize, parallel: usize) -> Result<f64> {
        let begun = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for lane in 0..parallel {
            let mut raw = Raw { client: self.client.clone(), logs: self.logs.clone() };
            tasks.spawn(async move {
                let mut ids = Vec::new();
                for index in (lane..pods).step_by(parallel) {
                    ids.push(raw.run(&format!("lane-{parallel}-{index}")).await?);
                }
                anyhow::Ok(ids)
            });
        }
        let mut ids = Vec::new();
        while let Some(part) = tasks.join_next().await {
            ids.extend(part??);
        }
        let rate = pods as f64 / begun.elapsed().as_secs_f64();
        for id in ids {
            self.remove(id).await?;
        }
        Ok(rate)
    }
}

/// A connector from a function.
fn tower_service<F, Fut>(connect: F) -> tower::util::ServiceFn<F>
where
    F: FnMut(Uri) -> Fut,
{
    tower::service_fn(connect)
}

fn sandbox_config(name: &str, logs: &Path) -> cri::PodSandboxConfig {
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("raw-{name}"),
            namespace: "raw".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: logs.to_string_lossy().into_owned(),
        linux: Some(cri::LinuxPodSandboxConfig::default()),
        ..Default::default()
    }
}

fn container_config() -> cri::ContainerConfig {
    let resources = cri::LinuxContainerResources {
        cpu_shares: 10,
        memory_limit_in_bytes: 64 << 20,
        ..Default::default()
    };
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: "main".to_owned(), attempt: 0 }),
        image: Some(cri::ImageSpec { image: IMAGE.to_owned(), ..Default::default() }),
        log_path: "main.log".to_owned(),
        linux: Some(cri::LinuxContainerConfig { resources: Some(resources), ..Default::default() }),
        ..Default::default()
    }
}
