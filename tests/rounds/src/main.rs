//! `keelson-rounds`: writers, a watcher and compare-and-swap clients on a cluster whose control planes fail meanwhile; in the
//! end it says whether an acknowledged write was lost, an event missed, or an answer false. tests/systemd/planes.sh runs it
//! on a worker and breaks the control planes in turn.
#![forbid(unsafe_code)]

mod linear;
#[path = "../../../cli/tests/etcd/log.rs"]
mod log;
mod swaps;
mod watching;
#[path = "../../../cli/tests/etcd/writer.rs"]
mod writer;

use anyhow::{Context as _, Result, anyhow};
use clap::Parser;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use log::{Ops, check_against, check_order};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use swaps::Histories;
use tokio::task::JoinSet;
use writer::{Counts, NAMESPACE, Writer};

/// A connection and the silence of an answer.
const CONNECT: Duration = Duration::from_secs(3);
const SILENCE: Duration = Duration::from_secs(6);
/// How long the cluster may take to answer at the begin and in the end.
const SOON: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Args {
    /// How the cluster is reached.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// It ends when this file is there.
    #[arg(long)]
    stop: PathBuf,
    #[arg(long, default_value_t = 4)]
    writers: u64,
    #[arg(long, default_value_t = 5)]
    clients: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let client = client(&args.kubeconfig).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &namespace).await.context("the namespace cannot be made")?;
    swaps::make(&maps).await.context("the registers cannot be made")?;
    let start = newest(&maps).await?;
    let (stop, stopped) = tokio::sync::watch::channel(None);
    let watcher = tokio::spawn(watching::run(maps.clone(), start, stopped));
    let histories = Histories::default();
    let mut swapping = JoinSet::new();
    for id in 0..args.clients {
        swapping.spawn(swaps::client(id, maps.clone(), histories.clone(), args.stop.clone()));
    }
    let mut writers = JoinSet::new();
    for id in 0..args.writers {
        let writer = Writer::new(id, client.clone(), client.clone());
        let stop = args.stop.clone();
        writers.spawn(writer.run_while(move || !stop.exists()));
    }
    println!("running");
    let begun = Instant::now();
    let (mut ops, mut counts) = (Ops::new(), Counts::default());
    while let Some(writer) = writers.join_next().await {
        let writer = writer?.map_err(|what| anyhow!(what))?;
        counts.add(writer.counts);
        ops.extend(writer.ops);
    }
    swapping.join_all().await;
    let ran = begun.elapsed();
    stop.send_replace(Some(newest(&maps).await?));
    // Nothing with the writers' label comes after their last write; one more lets the watcher see that.
    let last = ConfigMap {
        metadata: ObjectMeta {
            name: Some("last".to_owned()),
            labels: Some([("writer".to_owned(), "none".to_owned())].into()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    };
    maps.create(&PostParams::default(), &last).await.context("the last object cannot be made")?;
    let mut events = watcher.await?.map_err(|what| anyhow!("the watcher: {what}"))?;
    events.retain(|event| event.name != "last");
    check_order(&events).map_err(|what| anyhow!("the watcher: {what}"))?;
    check_against(&ops, &events).map_err(|what| anyhow!("a write is lost or an event missed: {what}"))?;
    let swaps = histories.check().map_err(|what| anyhow!("not linearizable: {what}"))?;
    println!("ran {:.0} s: {counts:?}; {} events; {swaps:?}", ran.as_secs_f64(), events.len());
    println!("longest_write_gap_s {:.1}", counts.gap.as_secs_f64());
    Ok(())
}

async fn client(kubeconfig: &std::path::Path) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    Ok(Client::try_from(config)?)
}

async fn newest(maps: &Api<ConfigMap>) -> Result<u64> {
    let until = Instant::now() + SOON;
    loop {
        match maps.list(&ListParams::default()).await {
            Ok(list) => return Ok(list.metadata.resource_version.unwrap_or_default().parse()?),
            Err(error) if Instant::now() >= until => return Err(error).context("the newest revision"),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
