//! What the API server adds to etcd's own time: creates at a paced rate on a control plane over three members with TLS,
//! less the same transaction by a bare client, in turns in the same run.

use crate::client::Kubeconfig;
use crate::plane::ControlPlane;
use crate::report::{Report, percentile};
use crate::seed::body;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Identity, TlsOptions, Txn, TxnOp,
};
use keelson_testkit::etcd::Etcd;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

const PER_SECOND: u32 = 300;
const CLIENTS: usize = 32;
/// Turns of either, and creates of one.
const TURNS: usize = 5;
const COUNT: usize = 900;
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Measures with a binary of keelson.
pub async fn measure(binary: &Path, report: &mut Report) -> Result<()> {
    if let Some(reason) = keelson_testkit::etcd::missing() {
        println!("SKIPPED: etcd_added_p50_ms: {reason}");
        return Ok(());
    }
    let etcd = Etcd::start(3)?;
    let folder = tempfile::tempdir()?;
    let plane = ControlPlane::start(binary, folder.path(), Some(&etcd), None).await?;
    let kubeconfig = plane.kubeconfig.clone();
    let bare = connect(&etcd).await?;
    let value = stored(&kubeconfig, &bare).await?;
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        ours.extend(through_the_server(&kubeconfig, turn).await?);
        raw.extend(directly(&bare, &value, turn).await?);
    }
    let (ours, raw) = (percentile(&mut ours, 0.5), percentile(&mut raw, 0.5));
    println!("# create on etcd p50 {ours:.3} ms, bare transaction p50 {raw:.3} ms");
    report.add("etcd_added_p50_ms", ours - raw, "ms", 1.5);
    Ok(())
}

async fn connect(etcd: &Etcd) -> Result<Client> {
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(&etcd.ca))
        .identity(Identity::from_pem(&etcd.certificate, &etcd.key));
    // The first member, as the server does: both pay the same way to the leader.
    let endpoints = &etcd.endpoints()[..1];
    Ok(Client::connect(endpoints, Some(ConnectOptions::new().with_tls(tls))).await?)
}

fn config_map(name: &str) -> Bytes {
    let metadata = json!({ "name": name, "labels": { "app": "bench" } });
    body(
        &json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "value": "x".repeat(850) } }),
    )
}

/// The bytes that the server stores for such an object.
async fn stored(kubeconfig: &Kubeconfig, bare: &Client) -> Result<Vec<u8>> {
    kubeconfig.connect().await?.call("POST", CONFIG_MAPS, config_map("first")).await?;
    let answer = bare.kv_client().get("/registry/configmaps/default/first", None).await?;
    let entry = answer.kvs().first().context("the object is not in etcd")?;
    ensure!(entry.value().len() > 850, "odd object");
    Ok(entry.value().to_vec())
}

async fn through_the_server(kubeconfig: &Kubeconfig, turn: usize) -> Result<Vec<f64>> {
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let kubeconfig = kubeconfig.clone();
        tasks.spawn(async move {
            let mut connection = kubeconfig.connect().await?;
            let mut samples = Vec::new();
            for index in (client..COUNT).step_by(CLIENTS) {
                let request = config_map(&format!("paced-{turn}-{index}"));
                let sent = due(begun, index).await;
                connection.call("POST", CONFIG_MAPS, request).await?;
                samples.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            anyhow::Ok(samples)
        });
    }
    collect(tasks).await
}

async fn directly(bare: &Client, value: &[u8], turn: usize) -> Result<Vec<f64>> {
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let (mut kv, value) = (bare.kv_client(), value.to_vec());
        tasks.spawn(async move {
            let mut samples = Vec::new();
            for index in (client..COUNT).step_by(CLIENTS) {
                let key = format!("/bench/configmaps/default/paced-{turn}-{index}");
                let txn = Txn::new()
                    .when([Compare::create_revision(key.as_str(), CompareOp::Equal, 0)])
                    .and_then([TxnOp::put(key.as_str(), value.as_slice(), None)])
                    .or_else([TxnOp::get(key.as_str(), None)]);
                let sent = due(begun, index).await;
                ensure!(kv.txn(txn).await?.succeeded(), "the key was there");
                samples.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            anyhow::Ok(samples)
        });
    }
    collect(tasks).await
}

/// Waits for a create's turn; lateness of the one before counts.
async fn due(begun: Instant, index: usize) -> Instant {
    let due = begun + Duration::from_secs_f64(index as f64 / f64::from(PER_SECOND));
    tokio::time::sleep_until(due.into()).await;
    Instant::now().max(due)
}

async fn collect(mut tasks: tokio::task::JoinSet<Result<Vec<f64>>>) -> Result<Vec<f64>> {
    let mut samples = Vec::new();
    while let Some(part) = tasks.join_next().await {
        samples.extend(part??);
    }
    Ok(samples)
}
