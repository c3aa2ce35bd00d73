//! Termination messages: the file a container may leave behind, or the end of its log.
use crate::cri::api::ContainerStatus;
use crate::logs::read::tail_text;
use std::io::Read as _;
use std::path::Path;

const MAX_MESSAGE: u64 = 4096;
const FALLBACK_LINES: usize = 80;
const FALLBACK_BYTES: usize = 2048;

/// The message of an ended container (upstream's `getTerminationMessage`); empty when it left none.
pub fn message(status: &ContainerStatus) -> String {
    let annotation = |name: &str| status.annotations.get(&format!("io.kubernetes.container.{name}"));
    let path = annotation("terminationMessagePath").map(String::as_str).unwrap_or("");
    let mount = status.mounts.iter().find(|mount| !path.is_empty() && mount.container_path == path);
    let own = mount.map(|mount| read_limited(Path::new(&mount.host_path))).unwrap_or_default();
    if !own.is_empty() {
        return own;
    }
    let fallback =
        annotation("terminationMessagePolicy").is_some_and(|policy| policy == "FallbackToLogsOnError");
    if fallback && status.exit_code != 0 && !status.log_path.is_empty() {
        return tail_text(Path::new(&status.log_path), FALLBACK_LINES, FALLBACK_BYTES);
    }
    String::new()
}

fn read_limited(path: &Path) -> String {
    let mut data = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(MAX_MESSAGE).read_to_end(&mut data);
    }
    String::from_utf8_lossy(&data).into_owned()
}
