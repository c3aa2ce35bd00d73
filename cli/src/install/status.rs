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
    let mut status =
        Status { role, units, api: String::new(), nodes: vec![], pods: Default::default(), first_expiry };
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
        let phase = pod.status.and_then(|status| status.phase).unwrap_or_else(|| "Unknown".into());
        *status.pods.entry(phase).or_default() += 1;
    }
    Ok(())
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
    if let Some(first) = &status.first_expiry {
        println!(
            "Certificates: the first ends on {} ({})",
            first.expires.strftime("%Y-%m-%d"),
            first.path.display()
        );
    }
}
