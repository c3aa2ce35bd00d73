//! What the cluster costs while nothing happens but leases and probes.

use crate::Bench;
use anyhow::Result;
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(60);

/// Measures one minute.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    println!("# idling for {} s", PERIOD.as_secs());
    let (cpu, written) = (bench.process.cpu_seconds()?, bench.process.written_bytes()?);
    let mut peak: f64 = 0.0;
    for _ in 0..PERIOD.as_secs() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        peak = peak.max(bench.process.pss_kib()?);
    }
    let seconds = PERIOD.as_secs_f64();
    let cpu = (bench.process.cpu_seconds()? - cpu) / seconds * 100.0;
    let written = (bench.process.written_bytes()? - written) / seconds / 1000.0;
    bench.report.add("idle_cpu_percent", cpu, "%", 0.7);
    bench.report.add("idle_rss_mib", peak / 1024.0, "MiB", 64.0);
    bench.report.add("idle_disk_kb_per_s", written, "kB/s", 15.0);
    Ok(())
}
