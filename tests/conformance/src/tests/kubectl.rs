//! test/e2e/kubectl/kubectl.go and logs.go: the tests that change or watch nothing but what kubectl shows. Those with
//! pods are in the modules below.

mod apps;
mod pods;
mod proxy;

use crate::cases;
use crate::env::{AGENT_BEFORE, BUSYBOX, Env};
use crate::suite::Group;
use anyhow::{Result, ensure};
use regex_lite::Regex;
use serde_json::json;

/// Upstream's `podRunningTimeoutArg`.
const RUNNING_WITHIN: &str = "--pod-running-timeout=2m0s";

pub fn groups() -> Vec<Group> {
    vec![
        Group {
            prefix: "[sig-cli] Kubectl client",
            base: "kubectl",
            level: "baseline",
            cases: cases![
                "Guestbook application should create and stop a working application" => apps::guestbook,
                "Kubectl api-versions should check if v1 is in available api versions" => api_versions,
                "Kubectl cluster-info should check if Kubernetes control plane services is included in cluster-info" => cluster_info,
                "Kubectl describe should check if kubectl describe prints relevant information for rc and pods" => apps::describe,
                "Kubectl diff should check if kubectl diff finds a difference for Deployments" => diff,
                "Kubectl expose should create services for rc" => apps::expose,
                "Kubectl label should update the label on a resource" => pods::label,
                "Kubectl patch should add annotations for pods in rc" => apps::patch,
                "Kubectl replace should update a single-container pod's image" => pods::replace,
                "Kubectl run pod should create a pod from an image when restart is Never" => pods::run,
                "Kubectl server-side dry-run should check if kubectl can dry-run update Pods" => pods::dry_run,
                "Kubectl version should check is all data is printed" => version,
                "Proxy server should support --unix-socket=/path" => proxy::socket,
                "Proxy server should support proxy with --port 0" => proxy::port,
                "Update Demo should create and stop a replication controller" => apps::create_and_stop,
                "Update Demo should scale a replication controller" => apps::scale,
            ],
        },
        Group {
            prefix: "[sig-cli] Kubectl logs",
            base: "kubectl-logs",
            level: "baseline",
            cases: cases!["logs should be able to retrieve and filter logs" => pods::logs],
        },
    ]
}

// kubectl.go: "should check if v1 is in available api versions"
async fn api_versions(env: Env) -> Result<()> {
    env.step("validating api versions");
    let said = env.kubectl().ok(env.ns(), &["api-versions"]).await?;
    ensure!(said.lines().any(|line| line == "v1"), "No v1 in kubectl api-versions: {said}");
    Ok(())
}

// kubectl.go: "should check if Kubernetes control plane services is included in cluster-info"
async fn cluster_info(env: Env) -> Result<()> {
    env.step("validating cluster-info");
    let said = env.kubectl().ok(env.ns(), &["cluster-info"]).await?;
    for text in ["Kubernetes control plane", "is running at"] {
        ensure!(said.contains(text), "Missing {text} in kubectl cluster-info: {said}");
    }
    Ok(())
}

// kubectl.go: "should check is all data is printed"
async fn version(env: Env) -> Result<()> {
    let said = env.kubectl().ok(env.ns(), &["version"]).await?;
    for item in ["Client Version: ", "Server Version: "] {
        let pattern = format!(r"{item}v\d\.\d+\.[\d\w\-\.\+]+");
        ensure!(Regex::new(&pattern)?.is_match(&said), "Item {item} value is not valid in {said}");
    }
    Ok(())
}

// kubectl.go: "should check if kubectl diff finds a difference for Deployments"
async fn diff(env: Env) -> Result<()> {
    let deployment = |image: &str| {
        let labels = json!({ "app": "agnhost" });
        let container = json!({
            "name": "agnhost", "image": image, "args": ["serve", "80", "/", "ok"],
            "ports": [{ "containerPort": 80 }],
        });
        let spec = json!({
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": [container] } },
        });
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "agnhost-deployment" }, "spec": spec,
        })
        .to_string()
    };
    let (kubectl, ns) = (env.kubectl(), env.ns());
    env.step("create deployment with agnhost image");
    kubectl.input(ns, &["create", "-f", "-"], &deployment(AGENT_BEFORE)).await?;
    env.step("verify diff finds difference between live and declared image");
    let said = kubectl.run(ns, &["diff", "-f", "-"], Some(&deployment(BUSYBOX))).await?;
    ensure!(said.code == 1, "kubectl diff: exit code {}, expected 1: {}", said.code, said.stderr);
    for image in [AGENT_BEFORE, BUSYBOX] {
        ensure!(said.stdout.contains(image), "Missing {image} in kubectl diff output: {}", said.stdout);
    }
    kubectl.input(ns, &["delete", "-f", "-"], &deployment(BUSYBOX)).await?;
    Ok(())
}
