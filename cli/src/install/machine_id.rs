//! The id of a machine whose /etc cannot be written.
//!
//! An image has none, so systemd makes one up at each boot and mounts it over /etc/machine-id. The first boot's is kept in the
//! state folder, and is mounted there at the next ones: the Node's `machineID`, what the journal keeps on the disk, and the name
//! by which systemd-networkd asks for an address then stay. keelson-machine-id.service runs this early in the boot.

use super::run;
use anyhow::{Context as _, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Where the id is read, by whoever needs it.
const PLACE: &str = "/etc/machine-id";
/// What is mounted there: a copy, so that the state folder's disk can be let go of.
const COPY: &str = "/run/keelson-machine-id";
/// Where the journal lies until it is moved to the disk, in a folder with the id as its name.
const JOURNAL: &str = "/run/log/journal";

/// An id, when the text is one.
pub fn parse(text: &str) -> Option<&str> {
    let id = text.trim();
    let is = id.len() == 32
        && id.bytes().all(|byte| byte.is_ascii_hexdigit())
        && id.bytes().any(|byte| byte != b'0');
    is.then_some(id)
}

/// Keeps the id of this boot, or takes the one that was kept.
pub fn keep(state: &Path) -> Result<()> {
    let now = fs::read_to_string(PLACE).with_context(|| format!("cannot read {PLACE}"))?;
    let now = parse(&now).with_context(|| format!("{PLACE} holds no id"))?;
    let kept = kept(&state.join("machine-id"), now)?;
    if kept == now {
        return Ok(());
    }
    fs::write(COPY, format!("{kept}\n")).with_context(|| format!("cannot write {COPY}"))?;
    run("mount", &["--bind", COPY, PLACE])?;
    run("mount", &["-o", "remount,bind,ro", PLACE])?;
    // It began before the state folder was there, under the id that is gone.
    match fs::rename(Path::new(JOURNAL).join(now), Path::new(JOURNAL).join(&kept)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).context("the journal so far cannot be found under the kept id");
        }
        _ => run("systemctl", &["restart", "systemd-journald.service"]).map(drop),
    }
}

/// The id in the file; `now` is put there where it holds none.
fn kept(file: &Path, now: &str) -> Result<String> {
    match fs::read_to_string(file) {
        Ok(text) if parse(&text).is_some() => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot read {}", file.display()));
        }
        _ => {}
    }
    if let Some(folder) = file.parent() {
        keelson_pki::ensure_dir(folder, 0o755)?;
    }
    keelson_pki::write_atomic(file, format!("{now}\n").as_bytes(), 0o444)?;
    Ok(now.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_id_is_kept_and_a_damaged_one_is_not() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("state/machine-id");
        let (one, two) = ("0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210");
        assert_eq!(kept(&file, one).unwrap(), one);
        assert_eq!(kept(&file, two).unwrap(), one);
        for damaged in ["", "\0\0", "uninitialized\n", &"0".repeat(32), &"g".repeat(32)] {
            fs::remove_file(&file).unwrap();
            fs::write(&file, damaged).unwrap();
            assert_eq!(kept(&file, two).unwrap(), two, "{damaged:?}");
            assert_eq!(fs::read_to_string(&file).unwrap(), format!("{two}\n"));
        }
    }
}
