//! The API server's memory alone. A user gets such a process as the second control plane on one etcd: scheduler and
//! controllers work in the first, which holds their Leases.

use crate::plane::ControlPlane;
use crate::reads::lists_at_once;
use crate::report::Report;
use crate::seed::{self, NAMESPACE, Seeded};
use anyhow::Result;
use keelson_testkit::etcd::Etcd;
use std::path::Path;

/// Ten lists of 10,000 pods at once.
pub async fn pods(binary: &Path, count: usize, report: &mut Report) -> Result<()> {
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    measure(binary, report, "rss_api_over_bytes", &[&pods], async |kubeconfig| {
        seed::pods(kubeconfig, count).await
    })
    .await
}

/// Ten lists of each type of mixed objects at once.
pub async fn mixed(binary: &Path, count: usize, report: &mut Report) -> Result<()> {
    let lists = crate::scale::lists();
    let lists: Vec<&str> = lists.iter().map(String::as_str).collect();
    measure(binary, report, "rss_api_over_bytes_100k", &lists, async |kubeconfig| {
        seed::namespace(kubeconfig, NAMESPACE).await?;
        seed::fill(kubeconfig, 0..count, seed::mixed).await
    })
    .await
}

async fn measure(
    binary: &Path,
    report: &mut Report,
    name: &str,
    lists: &[&str],
    seed: impl AsyncFnOnce(&crate::client::Kubeconfig) -> Result<Seeded>,
) -> Result<()> {
    if let Some(reason) = keelson_testkit::etcd::missing() {
        println!("SKIPPED: {name}: {reason}");
        return Ok(());
    }
    let etcd = Etcd::start(1)?;
    let folder = tempfile::tempdir()?;
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let worker = ControlPlane::start(binary, &first, Some(&etcd), None).await?;
    let alone = ControlPlane::start(binary, &second, Some(&etcd), Some(&first)).await?;
    let before = alone.process().pss_kib()?;
    let seeded = seed(&worker.kubeconfig).await?;
    let growth = lists_at_once(&alone.kubeconfig, alone.process(), lists, before).await?;
    report.add(name, growth / seeded.bytes as f64, "ratio", 2.0);
    Ok(())
}
