//! `keelson status`: this machine and its cluster on one screen.

use super::progress::Output;
use super::{certs, etcd, units};
use crate::node_certs::NodeFiles;
use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Pod};
use keelson_daemon::config::Config;
use kube::Api;
use kube::api::ListParams;
use serde::Serialize;
use std::time::Duration;

/// How long the API server is waited for.
const ANSWER: Duration = Duration::from_secs(3);

/// As many pods that are not ready are shown on the screen.
const SHOWN: usize = 10;

/// What is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub role: &'static str,
    pub units: Vec<Unit>,
    pub api: String,
    pub nodes: Vec<NodeLine>,
    /// By phase.
    pub pods: std::collections::BTreeMap<String, usize>,
    /// Those that should be ready and are not, by name.
    pub not_ready: Vec<PodLine>,
    /// The certificate of this machine that ends first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_expiry: Option<certs::Listed>,
}

#[derive(Debug, Serialize)]
pub struct Unit {
    pub name: &'static str,
    pub active: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeLine {
    pub name: String,
    pub ready: String,
    pub addresses: Vec<String>,
    pub version: String,
}

/// A pod that is not ready, and the nearest reason that is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PodLine {
    pub namespace: String,
    pub name: String,
    pub reason: String,
}

/// Looks, and prints. An error when something that should run does not.
pub async fn run(config: &Config, output: Output) -> Result<()> {
    let status = look(config).await?;
    let good = status.units.iter().all(|unit| unit.active)
        && status.api == "serving"
        && status.nodes.iter().all(|node| node.ready == "True");
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
        Output::Text => print(&status),
    }
    anyhow::ensure!(
        good,
        "not everything is well; the units' logs say more: `journalctl -u 'keelson*' -n 50`"
    );
    if let Some(first) = status.not_ready.first() {
        anyhow::bail!(
            "not every pod is ready; `kubectl describe pod --namespace {} {}` says more of the first",
            first.namespace,
            first.name
        );
    }
    Ok(())
}

async fn look(config: &Config) -> Result<Status> {
    let files = NodeFiles::of(config);
    let (control_plane, joined) =
        (config.paths.pki().join("ca.key").exists(), files.kubelet.exists() || files.bootstrap.exists());
    let role = match (control_plane, joined) {
        (true, true) => "control plane and node, as units of their own",
        (true, false) => "control plane and node in one process",
        (false, true) => "worker",
        (false, false) => {
            anyhow::bail!("this machine is in no cluster; `keelson init` makes one, `keelson join` joins one")
        }
    };
    let names: &[&'static str] = match (control_plane, joined) {
        (true, true) if etcd::present(config) => {
            &[units::ETCD, units::CONTROL_PLANE, units::KUBELET, units::PROXY]
        }
        (true, true) => &[units::CONTROL_PLANE, units::KUBELET, units::PROXY],
        (true, false) => &[units::ALL_IN_ONE],
        _ => &[units::KUBELET, units::PROXY],
    };
    let units = names.iter().map(|name| Unit { name, active: units::active(name) }).collect();
    let first_expiry = certs::list(config)?.into_iter().min_by_key(|certificate| certificate.expires);
    let mut status = Status {
        role,
        units,
        api: String::new(),
        nodes: vec![],
        pods: Default::default(),
        not_ready: vec![],
        first_expiry,
    };
    let asked = tokio::time::timeout(ANSWER, ask(config, control_plane, &mut status)).await;
    status.api = match asked {
        Ok(Ok(())) => "serving".to_owned(),
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => "no answer".to_owned(),
    };
    Ok(status)
}

async fn ask(config: &Config, admin: bool, status: &mut Status) -> Result<()> {
    let client = match admin {
        true => super::admin(config, None).await?,
        false => keelson_client::from_kubeconfig(&NodeFiles::of(config).kubelet).await?,
    };
    let nodes: Api<Node> = Api::all(client.clone());
    // A worker's own identity sees its own node and pods alone.
    let own = crate::node::identify(&config.node)?.name;
    let listed = match admin {
        true => nodes.list(&ListParams::default()).await?.items,
        false => nodes.get_opt(&own).await?.into_iter().collect(),
    };
    status.nodes = listed.into_iter().map(node_line).collect();
    let params = match admin {
        true => ListParams::default(),
        false => ListParams::default().fields(&format!("spec.nodeName={own}")),
    };
    for pod in Api::<Pod>::all(client).list(&params).await?.items {
        status.not_ready.extend(not_ready(&pod));
        let phase = pod.status.and_then(|status| status.phase).unwrap_or_else(|| "Unknown".into());
        *status.pods.entry(phase).or_default() += 1;
    }
    status.not_ready.sort();
    Ok(())
}

/// What a pod lacks that should be ready: one that has ended, or is being ended, should not.
fn not_ready(pod: &Pod) -> Option<PodLine> {
    let status = pod.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_else(|| "Unknown".to_owned());
    let conditions = status.conditions.unwrap_or_default();
    let condition = |type_: &str| conditions.iter().find(|condition| condition.type_ == type_);
    let ends = pod.metadata.deletion_timestamp.is_some() || ["Succeeded", "Failed"].contains(&phase.as_str());
    if ends || condition("Ready").is_some_and(|ready| ready.status == "True") {
        return None;
    }
    let containers = status
        .init_container_statuses
        .into_iter()
        .flatten()
        .chain(status.container_statuses.into_iter().flatten());
    let waits = containers.filter_map(|container| container.state?.waiting?.reason);
    let unmet =
        |type_| condition(type_).filter(|one| one.status != "True").and_then(|one| one.reason.clone());
    // That others have to begin first is no reason.
    let reason = waits
        .filter(|reason| !["PodInitializing", "ContainerCreating"].contains(&reason.as_str()))
        .chain(unmet("PodScheduled"))
        .chain(unmet("Ready"))
        .next();
    Some(PodLine {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        reason: reason.unwrap_or(phase),
    })
}

fn node_line(node: Node) -> NodeLine {
    let status = node.status.unwrap_or_default();
    let ready = status.conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
    NodeLine {
        name: node.metadata.name.unwrap_or_default(),
        ready: ready.map_or("Unknown".into(), |condition| condition.status),
        addresses: status
            .addresses
            .into_iter()
            .flatten()
            .filter(|address| address.type_ == "InternalIP")
            .map(|address| address.address)
            .collect(),
        version: status.node_info.map(|info| info.kubelet_version).unwrap_or_default(),
    }
}

fn print(status: &Status) {
    println!("This machine: {}", status.role);
    for unit in &status.units {
        println!("  {:<32} {}", unit.name, if unit.active { "running" } else { "NOT running" });
    }
    println!("API server: {}", status.api);
    for node in &status.nodes {
        let ready = if node.ready == "True" { "Ready" } else { "NOT Ready" };
        println!("  node {:<20} {ready:<10} {:<16} {}", node.name, node.addresses.join(","), node.version);
    }
    let pods: Vec<String> = status.pods.iter().map(|(phase, count)| format!("{count} {phase}")).collect();
    println!("Pods: {}", if pods.is_empty() { "none".to_owned() } else { pods.join(", ") });
    if !status.not_ready.is_empty() {
        println!("  {} NOT ready:", status.not_ready.len());
    }
    for pod in status.not_ready.iter().take(SHOWN) {
        println!("  pod {}/{} {}", pod.namespace, pod.name, pod.reason);
    }
    if let Some(more) = status.not_ready.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        println!("  and {more} more, which `--output json` lists");
    }
    if let Some(first) = &status.first_expiry {
        println!(
            "Certificates: the first ends on {} ({})",
            first.expires.strftime("%Y-%m-%d"),
            first.path.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_pod_that_should_be_ready_is_told_with_its_reason() {
        let check = |meta: Value, status: Value, expected: Option<&str>| {
            let mut pod: Pod = serde_json::from_value(json!({"metadata": meta, "status": status})).unwrap();
            pod.metadata.namespace = Some("a".into());
            pod.metadata.name = Some("b".into());
            assert_eq!(not_ready(&pod).map(|line| line.reason).as_deref(), expected, "{status}");
        };
        let condition = |type_: &str, status: &str, reason: &str| json!([{"type": type_, "status": status, "reason": reason}]);
        let running = |conditions: Value| json!({"phase": "Running", "conditions": conditions});
        check(json!({}), running(condition("Ready", "True", "")), None);
        check(
            json!({}),
            running(condition("Ready", "False", "ContainersNotReady")),
            Some("ContainersNotReady"),
        );
        check(json!({}), running(json!([])), Some("Running"));
        check(
            json!({}),
            json!({"phase": "Pending", "conditions": condition("PodScheduled", "False", "Unschedulable")}),
            Some("Unschedulable"),
        );
        check(
            json!({}),
            json!({
                "phase": "Pending",
                "conditions": condition("Ready", "False", "ContainersNotReady"),
                "initContainerStatuses": [{
                    "name": "i", "image": "i", "imageID": "", "ready": false, "restartCount": 3,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                }],
                "containerStatuses": [{
                    "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"waiting": {"reason": "PodInitializing"}},
                }],
            }),
            Some("CrashLoopBackOff"),
        );
        let over = running(condition("Ready", "False", "PodCompleted"));
        check(json!({"deletionTimestamp": "2030-01-01T00:00:00Z"}), over, None);
        check(json!({}), json!({"phase": "Succeeded"}), None);
        check(json!({}), json!({"phase": "Failed"}), None);
        check(json!({}), json!({}), Some("Unknown"));
    }
}
