//! test/e2e/architecture/conformance.go

use crate::api::NODES;
use crate::cases;
use crate::env::Env;
use crate::suite::Group;
use anyhow::{Result, ensure};
use serde_json::Value;
use std::time::Duration;

pub fn groups() -> Vec<Group> {
    vec![Group {
        prefix: "[sig-architecture] Conformance Tests",
        base: "conformance-tests",
        level: "privileged",
        cases: cases!["should have at least two untainted nodes" => two_nodes],
    }]
}

/// Ready, not cordoned, and without a taint that keeps pods away (`e2enode.GetReadySchedulableNodes`).
pub fn schedulable(node: &Value) -> bool {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let ready = list(&node["status"]["conditions"])
        .iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let tainted = list(&node["spec"]["taints"]).iter().any(|taint| taint["effect"] != "PreferNoSchedule");
    ready && !tainted && node["spec"]["unschedulable"] != true
}

// conformance.go: "should have at least two untainted nodes"
async fn two_nodes(env: Env) -> Result<()> {
    env.step("Getting node addresses");
    let nodes = env.api().of(&NODES);
    let all = env
        .wait("all nodes to be schedulable", Duration::from_secs(30), Duration::from_secs(600), async || {
            let list = nodes.list(&[]).await?.items;
            Ok((!list.is_empty() && list.iter().all(schedulable)).then_some(list))
        })
        .await?;
    ensure!(all.len() >= 2, "Conformance requires at least two nodes, there are {}", all.len());
    Ok(())
}
