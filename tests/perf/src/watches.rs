//! A thousand watches: how late an event is, and what one costs. Every watcher must see every write, in order.

use crate::Bench;
use crate::client::Kubeconfig;
use crate::report::percentile;
use crate::seed::{body, config_map, namespace};
use anyhow::{Context, Result, ensure};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

const NAMESPACE: &str = "bench-watch";
const CONNECTIONS: usize = 10;
const STREAMS: usize = 100;
const WATCHES: usize = CONNECTIONS * STREAMS;
/// Writes of the paced part, and of the part as fast as all watchers follow.
const PER_SECOND: u32 = 20;
const PACED: usize = 200;
const FAST: usize = 2000;
/// How far a writer may be before the slowest watcher at saturation.
const AHEAD: usize = 64;
const LIMIT: Duration = Duration::from_secs(120);

/// What writer and watchers share.
struct Shared {
    begun: Instant,
    /// When each write was sent.
    sent: Vec<std::sync::OnceLock<Instant>>,
    /// How many watchers have seen each write.
    seen: Vec<AtomicUsize>,
    moved: Notify,
}

/// Opens the watches, writes, and measures.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    namespace(&bench.kubeconfig, NAMESPACE).await?;
    let shared = Arc::new(Shared {
        begun: Instant::now(),
        sent: (0..PACED + FAST).map(|_| std::sync::OnceLock::new()).collect(),
        seen: (0..PACED + FAST).map(|_| AtomicUsize::new(0)).collect(),
        moved: Notify::new(),
    });
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let streams = bench.kubeconfig.streams().await?;
        for _ in 0..STREAMS {
            let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps?watch=1");
            let body = streams.clone().open(&path).await?;
            watchers.spawn(follow(body, shared.clone()));
        }
    }
    write(&bench.kubeconfig, &shared, 0..PACED, true).await?;
    all_have(&shared, PACED - 1).await?;
    let cpu = bench.process.cpu_seconds()?;
    let begun = Instant::now();
    write(&bench.kubeconfig, &shared, PACED..PACED + FAST, false).await?;
    all_have(&shared, PACED + FAST - 1).await?;
    let cpu = bench.process.cpu_seconds()? - cpu;
    let rate = (FAST * WATCHES) as f64 / begun.elapsed().as_secs_f64();
    let mut late = Vec::with_capacity(PACED * WATCHES);
    while let Some(done) = watchers.join_next().await {
        late.extend(done??);
    }
    println!(
        "# {WATCHES} watches: p50 {:.3} ms; {rate:.0} events/s at saturation",
        percentile(&mut late, 0.5)
    );
    bench.report.add("watch_p99_ms", percentile(&mut late, 0.99), "ms", 100.0);
    bench.report.add("watch_event_cpu_us", cpu / (FAST * WATCHES) as f64 * 1e6, "us", 10.0);
    let path = format!("/api/v1/namespaces/{NAMESPACE}");
    bench.kubeconfig.connect().await?.call("DELETE", &path, bytes::Bytes::new()).await.map(drop)
}

/// Creates the objects of a range one after the other.
async fn write(
    kubeconfig: &Kubeconfig,
    shared: &Shared,
    range: std::ops::Range<usize>,
    paced: bool,
) -> Result<()> {
    let mut connection = kubeconfig.connect().await?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let begun = Instant::now();
    for index in range {
        if paced {
            let due = begun + Duration::from_secs_f64(index as f64 / f64::from(PER_SECOND));
            tokio::time::sleep_until(due.into()).await;
        } else {
            all_have(shared, index - AHEAD).await?;
        }
        let object = config_map(&name(index));
        ensure!(shared.sent[index].set(Instant::now()).is_ok(), "written twice");
        connection.call("POST", &path, body(&object)).await?;
    }
    Ok(())
}

fn name(index: usize) -> String {
    format!("watched-{index:06}")
}

async fn all_have(shared: &Shared, index: usize) -> Result<()> {
    let wait = async {
        loop {
            let moved = shared.moved.notified();
            if shared.seen[index].load(Ordering::Acquire) == WATCHES {
                return;
            }
            moved.await;
        }
    };
    let seen = || shared.seen[index].load(Ordering::Acquire);
    tokio::time::timeout(LIMIT, wait)
        .await
        .with_context(|| format!("{} of {WATCHES} watchers have seen write {index}", seen()))
}

/// Reads a watch until the last write and gives how late, in milliseconds, the paced ones came.
async fn follow(mut body: Incoming, shared: Arc<Shared>) -> Result<Vec<f64>> {
    let mut late = Vec::with_capacity(PACED);
    let mut line: Vec<u8> = Vec::with_capacity(4096);
    let mut next = 0;
    let mut revision = 0;
    // What is in a new namespace by itself comes too.
    while next < shared.seen.len() {
        let frame = body.frame().await.context("the watch ended")??;
        let Some(data) = frame.data_ref() else { continue };
        let now = Instant::now();
        line.extend_from_slice(data);
        let mut start = 0;
        while let Some(end) = memchr(&line[start..]) {
            let event = &line[start..start + end];
            start += end + 1;
            if !event.starts_with(b"{\"type\":\"ADDED\"")
                || value(event, "\"name\":\"")? == b"kube-root-ca.crt"
            {
                continue;
            }
            let seen = number(value(event, "\"resourceVersion\":\"")?)?;
            ensure!(seen > revision, "revision {seen} after {revision}");
            revision = seen;
            let found = number(value(event, "\"name\":\"watched-")?)?;
            ensure!(found == next, "write {found} instead of {next}");
            if next < PACED {
                let sent = *shared.sent[next].get().unwrap_or(&shared.begun);
                late.push(now.duration_since(sent).as_secs_f64() * 1e3);
            }
            if shared.seen[next].fetch_add(1, Ordering::AcqRel) + 1 == WATCHES {
                shared.moved.notify_waiters();
            }
            next += 1;
        }
        line.drain(..start);
    }
    Ok(late)
}

fn memchr(text: &[u8]) -> Option<usize> {
    text.iter().position(|byte| *byte == b'\n')
}

/// The text after a mark, up to the next quote.
fn value<'t>(event: &'t [u8], mark: &str) -> Result<&'t [u8]> {
    let at = event.windows(mark.len()).position(|window| window == mark.as_bytes());
    let rest = &event[at.with_context(|| format!("an event without {mark}"))? + mark.len()..];
    Ok(rest.split(|byte| *byte == b'"').next().unwrap_or_default())
}

fn number(text: &[u8]) -> Result<usize> {
    Ok(std::str::from_utf8(text)?.parse()?)
}
