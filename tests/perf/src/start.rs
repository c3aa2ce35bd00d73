//! How long a restart of keelson takes with the seeded pods in the database.

use crate::Bench;
use crate::client::Kubeconfig;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use serde_json::Value;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(2);

/// Ends keelson in order, starts it with its own command line, and measures until the API is ready and until the node has
/// written a Ready heartbeat of this start.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let command = bench.process.command_line()?;
    bench.process.end(LIMIT)?;
    let log = std::fs::File::options().append(true).open(bench.places.log())?;
    let begun = Instant::now();
    let wall = SystemTime::now();
    let (program, arguments) = command.split_first().context("empty command line")?;
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()?;
    bench.process = crate::process::Process::of(child.id());
    std::fs::write(bench.places.keelson_pid(), format!("{} {}\n", child.id(), bench.process.start_time()?))?;
    let api = wait(begun, || ready(&bench.kubeconfig)).await?;
    bench.report.add("api_ready_ms", api, "ms", 400.0);
    let node = wait(begun, || heartbeat(&bench.kubeconfig, wall)).await?;
    bench.report.add("node_ready_ms", node, "ms", 2000.0);
    Ok(())
}

/// Milliseconds since `begun` when `check` first holds.
pub async fn wait<F, Fut>(begun: Instant, mut check: F) -> Result<f64>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<bool>>,
{
    loop {
        if check().await.unwrap_or(false) {
            return Ok(begun.elapsed().as_secs_f64() * 1e3);
        }
        if begun.elapsed() > LIMIT {
            bail!("not ready within {} s", LIMIT.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ready(kubeconfig: &Kubeconfig) -> Result<bool> {
    let mut connection = kubeconfig.connect().await?;
    Ok(&connection.call("GET", "/readyz", Bytes::new()).await?[..] == b"ok")
}

/// A Ready condition whose heartbeat is not older than the start (to the second, as the API keeps it).
pub async fn heartbeat(kubeconfig: &Kubeconfig, since: SystemTime) -> Result<bool> {
    let mut connection = kubeconfig.connect().await?;
    let nodes: Value = serde_json::from_slice(&connection.call("GET", "/api/v1/nodes", Bytes::new()).await?)?;
    let conditions = nodes["items"][0]["status"]["conditions"].as_array().context("no conditions")?;
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready").context("no Ready")?;
    let text = ready["lastHeartbeatTime"].as_str().context("no heartbeat")?;
    let seconds = text.parse::<jiff::Timestamp>()?.as_second();
    let since = since.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    Ok(ready["status"] == "True" && seconds >= i64::try_from(since)?)
}
