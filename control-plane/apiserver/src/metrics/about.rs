//! What `/metrics` says of the process: its build, feature gates, health checks, and what the system counts of it.
//!
//! Upstream: `component-base/metrics/{version,features,prometheus/slis}` and the Prometheus client's process collector.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use keelson_base::gates::{GATES, Gates, Stage};
use parking_lot::Mutex;

use super::histogram::{escape, head};

/// The outcomes of health checks, by kind (`livez`, `readyz`, `healthz`) and name.
#[derive(Default)]
pub struct About {
    checks: Mutex<BTreeMap<(&'static str, &'static str), Check>>,
}

#[derive(Default)]
struct Check {
    healthy: bool,
    succeeded: u64,
    failed: u64,
}

/// What the clock of `/proc/<pid>/stat` counts in a second: the kernel shows it to programs as 100 on every architecture
/// that we build for.
const TICKS: f64 = 100.0;
/// The page size of the architectures that we build for.
const PAGE: u64 = 4096;

impl About {
    /// Notes the outcome of a health check.
    pub fn checked(&self, kind: &'static str, name: &'static str, healthy: bool) {
        let mut checks = self.checks.lock();
        let check = checks.entry((kind, name)).or_default();
        check.healthy = healthy;
        *(if healthy { &mut check.succeeded } else { &mut check.failed }) += 1;
    }

    /// Appends the text format. `build` are the members of `/version`.
    pub fn render(&self, out: &mut String, build: &[(&str, String)], gates: &Gates) {
        render_build(out, build);
        render_gates(out, gates);
        if let Some(process) = Process::read() {
            process.render(out);
        }
    }

    /// Appends what `/metrics/slis` says: the health checks.
    pub fn render_checks(&self, out: &mut String) {
        let checks = self.checks.lock();
        let name = "kubernetes_healthcheck";
        head(out, name, "gauge", "The last outcome of a health check.");
        for ((kind, check), outcome) in checks.iter() {
            let _ = writeln!(out, "{name}{{name=\"{check}\",type=\"{kind}\"}} {}", u8::from(outcome.healthy));
        }
        let name = "kubernetes_healthchecks_total";
        head(out, name, "counter", "Outcomes of health checks.");
        for ((kind, check), outcome) in checks.iter() {
            for (status, count) in [("error", outcome.failed), ("success", outcome.succeeded)] {
                if count > 0 {
                    let _ = writeln!(
                        out,
                        "{name}{{name=\"{check}\",status=\"{status}\",type=\"{kind}\"}} {count}"
                    );
                }
            }
        }
    }
}

fn render_build(out: &mut String, build: &[(&str, String)]) {
    let of = |member: &str| build.iter().find(|(name, _)| *name == member).map_or("", |(_, text)| text);
    let labels: Vec<String> = [
        ("build_date", "buildDate"),
        ("compiler", "compiler"),
        ("git_commit", "gitCommit"),
        ("git_tree_state", "gitTreeState"),
        ("git_version", "gitVersion"),
        ("go_version", "goVersion"),
        ("major", "major"),
        ("minor", "minor"),
        ("platform", "platform"),
    ]
    .iter()
    .map(|(label, member)| format!("{label}=\"{}\"", escape(of(member))))
    .collect();
    head(out, "kubernetes_build_info", "gauge", "What runs here.");
    let _ = writeln!(out, "kubernetes_build_info{{{}}} 1", labels.join(","));
}

fn render_gates(out: &mut String, gates: &Gates) {
    let name = "kubernetes_feature_enabled";
    head(out, name, "gauge", "Feature gates, their stages, and whether they are on.");
    for gate in GATES {
        let stage = match gate.stage {
            Stage::Alpha => "ALPHA",
            Stage::Beta => "BETA",
            Stage::Ga => "",
            Stage::Deprecated => "DEPRECATED",
        };
        let on = u8::from(gates.enabled(gate.name));
        let _ = writeln!(out, "{name}{{name=\"{}\",stage=\"{stage}\"}} {on}", gate.name);
    }
}

/// What the system says of this process.
struct Process {
    cpu_seconds: f64,
    started: f64,
    resident: u64,
    virtual_bytes: u64,
    open_files: usize,
    most_files: Option<u64>,
}

impl Process {
    fn read() -> Option<Process> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name before it may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let booted = std::fs::read_to_string("/proc/stat").ok()?;
        let booted: f64 = booted.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
        let most = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        Some(Process {
            cpu_seconds: (number(11)? + number(12)?) as f64 / TICKS,
            started: booted + number(19)? as f64 / TICKS,
            virtual_bytes: number(20)?,
            resident: number(21)? * PAGE,
            open_files: std::fs::read_dir("/proc/self/fd").ok()?.count(),
            most_files: most.and_then(|most| most.split_whitespace().next()?.parse().ok()),
        })
    }

    fn render(&self, out: &mut String) {
        let mut gauge = |name: &str, kind: &str, help: &str, value: f64| {
            head(out, name, kind, help);
            let _ = writeln!(out, "{name} {value}");
        };
        gauge("process_cpu_seconds_total", "counter", "CPU time spent, in seconds.", self.cpu_seconds);
        gauge("process_open_fds", "gauge", "Open file descriptors.", self.open_files as f64);
        if let Some(most) = self.most_files {
            gauge("process_max_fds", "gauge", "Most file descriptors that may be open.", most as f64);
        }
        gauge("process_resident_memory_bytes", "gauge", "Resident memory in bytes.", self.resident as f64);
        gauge("process_virtual_memory_bytes", "gauge", "Virtual memory in bytes.", self.virtual_bytes as f64);
        gauge("process_start_time_seconds", "gauge", "When the process started, in Unix time.", self.started);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_knows_itself() {
        let process = Process::read().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(process.started <= now + 1.0 && process.started > now - 86_400.0, "{}", process.started);
        assert!(process.resident > 1 << 20 && process.virtual_bytes >= process.resident);
        assert!(process.open_files > 2);
    }

    #[test]
    fn checks_gates_and_the_build_are_told() {
        let about = About::default();
        about.checked("livez", "etcd", true);
        about.checked("livez", "etcd", false);
        let mut out = String::new();
        about.render_checks(&mut out);
        about.render(&mut out, &[("gitVersion", "v1".into()), ("minor", "35".into())], &Gates::default());
        for line in [
            "kubernetes_healthcheck{name=\"etcd\",type=\"livez\"} 0",
            "kubernetes_healthchecks_total{name=\"etcd\",status=\"error\",type=\"livez\"} 1",
            "kubernetes_healthchecks_total{name=\"etcd\",status=\"success\",type=\"livez\"} 1",
            "kubernetes_feature_enabled{name=\"APIResponseCompression\",stage=\"BETA\"} 1",
            "kubernetes_feature_enabled{name=\"APIServerTracing\",stage=\"\"} 1",
        ] {
            assert!(out.lines().any(|found| found == line), "{line} is not in\n{out}");
        }
        assert!(out.contains("git_version=\"v1\",go_version=\"\",major=\"\",minor=\"35\","), "{out}");
    }
}
