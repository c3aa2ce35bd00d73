//! CPU, memory and disk writes of the process under test, from /proc.

use anyhow::{Context, Result};
use nix::time::ClockId;
use nix::unistd::Pid;
use std::path::Path;
use std::time::{Duration, Instant};

/// A process by its pid.
#[derive(Clone, Copy)]
pub struct Process {
    pid: u32,
}

impl Process {
    /// The pid is the file's first word.
    pub fn from_pid_file(file: &Path) -> Result<Process> {
        let text = std::fs::read_to_string(file).with_context(|| format!("no {}", file.display()))?;
        let pid =
            text.split_whitespace().next().and_then(|word| word.parse().ok()).context("no pid in it")?;
        Ok(Process { pid })
    }

    /// A process by number.
    pub fn of(pid: u32) -> Process {
        Process { pid }
    }

    /// Program and arguments.
    pub fn command_line(&self) -> Result<Vec<String>> {
        let line = self.read("cmdline")?;
        Ok(line.split('\0').filter(|word| !word.is_empty()).map(str::to_owned).collect())
    }

    /// When it started, in the kernel's ticks; tells it from a later process of the same number.
    pub fn start_time(&self) -> Result<String> {
        let stat = self.read("stat")?;
        let fields: Vec<&str> = stat.rsplit_once(") ").context("odd stat")?.1.split(' ').collect();
        fields.get(19).map(|&text| text.to_owned()).context("odd stat")
    }

    /// Asks it to end and waits.
    pub fn end(&self, limit: Duration) -> Result<()> {
        let status = std::process::Command::new("kill").args(["-TERM", &self.pid.to_string()]).status()?;
        anyhow::ensure!(status.success(), "cannot signal {}", self.pid);
        let begun = Instant::now();
        while self.read("stat").is_ok_and(|stat| !stat.contains(") Z ")) {
            anyhow::ensure!(begun.elapsed() < limit, "keelson does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.pid);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}; did keelson end?"))
    }

    /// User plus system time so far, in seconds, by the process's own clock: /proc counts in steps of 10 ms, which is as much
    /// as a hundred requests take.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(self.pid as i32));
        let time =
            clock.and_then(ClockId::now).context("cannot read the process's clock; did keelson end?")?;
        Ok(Duration::from(time).as_secs_f64())
    }

    /// Proportional set size now, in KiB.
    pub fn pss_kib(&self) -> Result<f64> {
        field(&self.read("smaps_rollup")?, "Pss:")
    }

    /// Bytes handed to the disk so far.
    pub fn written_bytes(&self) -> Result<f64> {
        field(&self.read("io")?, "write_bytes:")
    }
}

fn field(text: &str, name: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    line.split_whitespace().next().and_then(|word| word.parse().ok()).with_context(|| format!("odd {name}"))
}
