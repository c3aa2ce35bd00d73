//! What the machine is: read from the kernel, never made up.
use crate::kubelet::Capacity;
use std::path::Path;

/// The architecture as Go names it.
pub fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Bytes of memory the machine has.
pub fn memory_total() -> i64 {
    meminfo("MemTotal").unwrap_or(0)
}

/// Bytes of memory that could be used now.
pub fn memory_available() -> Option<i64> {
    meminfo("MemAvailable")
}

fn meminfo(key: &str) -> Option<i64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(line.split_whitespace().next()?.parse::<i64>().ok()? * 1024)
}

/// Processors, memory and process ids of the machine.
pub fn capacity(max_pods: u32) -> Capacity {
    let cpus = std::fs::read_to_string("/proc/cpuinfo")
        .map(|text| text.lines().filter(|line| line.starts_with("processor")).count())
        .ok()
        .filter(|count| *count > 0)
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1);
    Capacity {
        milli_cpu: cpus as i64 * 1000,
        memory: memory_total(),
        pods: i64::from(max_pods),
        pids: pid_limit(),
    }
}

/// The most processes the kernel runs.
pub fn pid_limit() -> i64 {
    let read = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<i64>().ok();
    let pid_max = read("/proc/sys/kernel/pid_max").unwrap_or(32768);
    read("/proc/sys/kernel/threads-max").map_or(pid_max, |threads| threads.min(pid_max))
}

/// Processes (threads) there are now.
pub fn pids_now() -> Option<i64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

pub fn hostname() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

/// First line of a file, trimmed; empty when it cannot be read.
pub fn line(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("").trim().to_owned()
}

pub fn app_armor() -> bool {
    Path::new("/sys/kernel/security/apparmor").is_dir()
        && line("/sys/module/apparmor/parameters/enabled").starts_with('Y')
}

/// `PRETTY_NAME` of os-release.
pub fn os_image() -> String {
    let text = std::fs::read_to_string("/etc/os-release")
        .or_else(|_| std::fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("").trim_matches('"').to_owned()
}
