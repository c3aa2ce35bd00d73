//! `keelson node leave`: takes a node out of its cluster in order: no new pods, the old ones evicted as their disruption
//! budgets allow, the Node object gone. What is on the machine itself is `keelson reset`'s; a kubelet that still runs would
//! register its node again, so the object goes only when the kubelet is silent.

use super::etcd;
use super::progress::{Progress, until};
use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use keelson_daemon::config::Config;
use kube::Api;
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams};
use serde_json::json;
use std::net::IpAddr;
use std::time::Duration;

/// A kubelet renews its lease every ten seconds; one that has missed two does not run.
const SILENCE: i64 = 21;

/// Leaves.
pub async fn run(
    config: &Config,
    client: &kube::Client,
    name: &str,
    limit: Duration,
    progress: Progress,
) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let Some(node) = nodes.get_opt(name).await? else {
        bail!("there is no node {name}; `kubectl get nodes` lists them");
    };
    cordon(client, name).await?;
    progress.wait("evicting pods", until(limit, || drained(client, name))).await.with_context(|| {
        format!("{name} is cordoned, but not empty; `kubectl uncordon {name}` takes it back")
    })?;
    if silent(client, name).await.is_err() {
        progress.say(&format!(
            "{name} is empty. Now run `keelson reset --yes` on it; this waits until it is done"
        ));
    }
    progress
        .wait("waiting until its kubelet is silent", until(limit, || silent(client, name)))
        .await
        .with_context(|| {
            format!("{name} is empty, but not removed; run `keelson reset --yes` on it and then this again")
        })?;
    // Before the node: whoever runs this again after a failure still finds it.
    if etcd::present(config) && etcd::leave(config, name, &addresses(&node)).await? {
        progress.say(&format!("{name} is no member of etcd any more"));
    }
    nodes.delete(name, &DeleteParams::default()).await.context("the node cannot be deleted")?;
    progress.say(&format!("{name} has left the cluster"));
    Ok(())
}

/// Keeps new pods off a node.
pub async fn cordon(client: &kube::Client, name: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let cordon = Patch::Merge(json!({"spec": {"unschedulable": true}}));
    nodes.patch(name, &PatchParams::default(), &cordon).await.context("the node cannot be cordoned")?;
    Ok(())
}

fn addresses(node: &Node) -> Vec<IpAddr> {
    let all = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    all.filter_map(|one| one.address.parse().ok()).collect()
}

/// An error while the node's lease is renewed.
async fn silent(client: &kube::Client, node: &str) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let renewed = leases.get_opt(node).await?.and_then(|lease| lease.spec).and_then(|spec| spec.renew_time);
    let Some(renewed) = renewed else { return Ok(()) };
    let ago = jiff::Timestamp::now().as_second() - renewed.0.as_second();
    if ago > SILENCE {
        return Ok(());
    }
    bail!("its kubelet was heard {ago} s ago")
}

/// Evicts what is there; an error while something is.
pub async fn drained(client: &kube::Client, node: &str) -> Result<()> {
    let all: Api<Pod> = Api::all(client.clone());
    let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let mut left = Vec::new();
    for pod in all.list(&params).await?.items {
        let meta = &pod.metadata;
        let daemon = meta.owner_references.iter().flatten().any(|owner| owner.kind == "DaemonSet");
        let mirror = meta.annotations.iter().flatten().any(|(key, _)| key == "kubernetes.io/config.mirror");
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if daemon || mirror || matches!(phase, Some("Succeeded" | "Failed")) {
            continue;
        }
        let (namespace, name) =
            (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        if meta.deletion_timestamp.is_none() {
            let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
            // A budget that allows none now may allow it later.
            if let Err(error) = pods.evict(&name, &EvictParams::default()).await {
                left.push(format!("{namespace}/{name} ({error})"));
                continue;
            }
        }
        left.push(format!("{namespace}/{name}"));
    }
    if left.is_empty() { Ok(()) } else { bail!("these pods are still there: {}", left.join(", ")) }
}
