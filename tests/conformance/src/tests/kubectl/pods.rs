//! Tests about single pods.

use super::RUNNING_WITHIN;
use crate::api::PODS;
use crate::env::{AGENT, BUSYBOX, Env, PAUSE, POD_START};
use crate::tests::kubectl::apps::{clean_up, look_in_log};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;

const POD: &str = "e2e-test-agnhost-pod";
const TWO: Duration = Duration::from_secs(2);

/// The one container's image.
fn image(pod: &Value) -> Result<&str> {
    let containers = pod["spec"]["containers"].as_array().context("no containers")?;
    ensure!(containers.len() == 1, "{} containers", containers.len());
    containers[0]["image"].as_str().context("no image")
}

fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| {
        all.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    })
}

/// Deletes the pod with kubectl after the test.
fn delete_afterwards(env: &Env, pod: &'static str) {
    let env = env.clone();
    env.clone()
        .afterwards(async move { env.kubectl().ok(env.ns(), &["delete", "pods", pod]).await.map(drop) });
}

// kubectl.go: "should update the label on a resource"
pub async fn label(env: Env) -> Result<()> {
    const LABEL: &str = "testing-label";
    const VALUE: &str = "testing-label-value";
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "pause", "labels": { "name": "pause" } },
        "spec": { "containers": [{ "name": "pause", "image": PAUSE, "ports": [{ "containerPort": 80 }] }] },
    })
    .to_string();
    let (kubectl, ns) = (env.kubectl(), env.ns());
    env.step("creating the pod");
    clean_up(&env, &pod, &["name=pause"]);
    kubectl.input(ns, &["create", "-f", "-"], &pod).await?;
    let pods = env.of(&PODS);
    env.wait("the pod to be ready", TWO, POD_START, async || {
        Ok(ready(&pods.get("pause").await?).then_some(()))
    })
    .await?;
    env.step("adding the label to the pod");
    kubectl.ok(ns, &["label", "pods", "pause", &format!("{LABEL}={VALUE}")]).await?;
    let said = kubectl.ok(ns, &["get", "pod", "pause", "-L", LABEL]).await?;
    ensure!(said.contains(VALUE), "Failed updating label {LABEL}: {said}");
    env.step("removing the label of the pod");
    kubectl.ok(ns, &["label", "pods", "pause", &format!("{LABEL}-")]).await?;
    let said = kubectl.ok(ns, &["get", "pod", "pause", "-L", LABEL]).await?;
    ensure!(said.contains("pause") && !said.contains(VALUE), "Failed removing label {LABEL}: {said}");
    Ok(())
}

// kubectl.go: "should create a pod from an image when restart is Never"
pub async fn run(env: Env) -> Result<()> {
    env.step(format!("running the image {AGENT}"));
    delete_afterwards(&env, POD);
    let image_flag = format!("--image={AGENT}");
    env.kubectl().ok(env.ns(), &["run", POD, "--restart=Never", RUNNING_WITHIN, &image_flag]).await?;
    env.step("verifying the pod was created");
    let pod = env.of(&PODS).get(POD).await?;
    ensure!(image(&pod)? == AGENT, "created with the image {}", image(&pod)?);
    ensure!(pod["spec"]["restartPolicy"] == "Never", "created with {}", pod["spec"]["restartPolicy"]);
    Ok(())
}

/// `kubectl run` with the label run=<name>.
async fn run_labelled(env: &Env) -> Result<()> {
    env.step(format!("running the image {AGENT}"));
    let (image, labels) = (format!("--image={AGENT}"), format!("--labels=run={POD}"));
    env.kubectl().ok(env.ns(), &["run", POD, &image, RUNNING_WITHIN, &labels]).await?;
    Ok(())
}

// kubectl.go: "should update a single-container pod's image"
pub async fn replace(env: Env) -> Result<()> {
    delete_afterwards(&env, POD);
    run_labelled(&env).await?;
    let (kubectl, ns, pods) = (env.kubectl(), env.ns(), env.of(&PODS));
    env.step("verifying the pod is running");
    let selector = format!("run={POD}");
    env.wait("the pod to run", TWO, POD_START, async || {
        let list = pods.list(&[("labelSelector", &selector)]).await?.items;
        let running = !list.is_empty() && list.iter().all(|pod| pod["status"]["phase"] == "Running");
        Ok(running.then_some(()))
    })
    .await?;
    env.step("verifying the pod was created");
    let text = kubectl.ok(ns, &["get", "pod", POD, "-o", "json"]).await?;
    ensure!(text.contains(POD), "Failed to find the pod in {text}");
    env.step("replace the image in the pod");
    kubectl.input(ns, &["replace", "-f", "-"], &text.replacen(AGENT, BUSYBOX, 1)).await?;
    env.step("verifying the pod has the right image");
    let pod = pods.get(POD).await?;
    ensure!(image(&pod)? == BUSYBOX, "the image is {}", image(&pod)?);
    Ok(())
}

// kubectl.go: "should check if kubectl can dry-run update Pods"
pub async fn dry_run(env: Env) -> Result<()> {
    run_labelled(&env).await?;
    env.step("replace the image in the pod with server-side dry-run");
    let patch = json!({ "spec": { "containers": [{ "name": POD, "image": BUSYBOX }] } }).to_string();
    let (kubectl, ns) = (env.kubectl(), env.ns());
    kubectl.ok(ns, &["patch", "pod", POD, "-p", &patch, "--dry-run=server"]).await?;
    env.step("verifying the pod has the right image");
    let pod = env.of(&PODS).get(POD).await?;
    ensure!(image(&pod)? == AGENT, "the image is {}", image(&pod)?);
    kubectl.ok(ns, &["delete", "pods", POD]).await?;
    Ok(())
}

// logs.go: "should be able to retrieve and filter logs"
pub async fn logs(env: Env) -> Result<()> {
    const NAME: &str = "logs-generator";
    let (kubectl, ns, pods) = (env.kubectl(), env.ns(), env.of(&PODS));
    env.step("creating a pod");
    delete_afterwards(&env, NAME);
    let generator = [NAME, "--log-lines-total", "100", "--run-duration", "20s"];
    let image = format!("--image={AGENT}");
    let mut words = vec!["run", NAME, &image, "--restart=Never", RUNNING_WITHIN, "--"];
    words.extend(generator);
    kubectl.ok(ns, &words).await?;
    env.step("Waiting for log generator to start.");
    env.wait("the pod to be ready or done", TWO, POD_START, async || {
        let pod = pods.get(NAME).await?;
        Ok((pod["status"]["phase"] == "Succeeded" || ready(&pod)).then_some(()))
    })
    .await?;
    env.step("checking for a matching strings");
    look_in_log(&env, NAME, NAME, "/api/v1/namespaces/kube-system").await?;

    let log = async |options: &[&str]| kubectl.ok(ns, &[&["logs", NAME, NAME], options].concat()).await;
    env.step("limiting log lines");
    let said = log(&["--tail=1"]).await?;
    ensure!(said.lines().count() == 1 && said.len() > 1, "--tail=1: {said:?}");
    env.step("limiting log bytes");
    let said = log(&["--limit-bytes=1"]).await?;
    ensure!(said.len() == 1, "--limit-bytes=1: {said:?}");
    env.step("exposing timestamps");
    let said = log(&["--tail=1", "--timestamps"]).await?;
    let (time, rest) = said.split_once(' ').with_context(|| format!("--timestamps: {said:?}"))?;
    ensure!(said.lines().count() == 1 && !rest.is_empty(), "--tail=1 --timestamps: {said:?}");
    time.parse::<jiff::Timestamp>().with_context(|| format!("expected {time:?} to be RFC3339"))?;
    env.step("restricting to a time range");
    // The granularity is a second: what was logged at the start must be older than one.
    env.pass(Duration::from_millis(2500)).await;
    let recent = log(&["--since=1s"]).await?.split('\n').count();
    let older = log(&["--since=24h"]).await?.split('\n').count();
    ensure!(recent < older, "expected recent({recent}) to be less than older({older})");
    Ok(())
}
