//! Machines whose root cannot be written while they run, with their state below /var.
//!
//! `keelson first-boot prepare` is run in such a machine's disk image when that is made. It puts in place what lies outside of
//! /var: the runtime's configuration, the links to the CNI plugin, and links from where configuration is written to folders
//! below the state folder. Nothing of it is an identity. Units cannot be enabled on such a machine:
//! keelson-first-boot.service, enabled in the image, starts those that the ledger names at each boot.

use super::ledger::{Entry, Ledger};
use super::{containerd, dropin, machine, run};
use anyhow::{Context as _, Result, bail};
use keelson_daemon::config::Config;
use std::path::Path;

/// The unit that begins what cannot be enabled.
pub const FIRST_BOOT: &str = "keelson-first-boot.service";
/// The unit that keeps the machine's id ([`super::machine_id`]).
const MACHINE_ID: &str = "keelson-machine-id.service";
/// What makes the folders that the links lead to, on a /var that begins empty.
const TMPFILES: &str = "/etc/tmpfiles.d/keelson-image.conf";

/// Folders below the state folder that links in the image lead to: for the configuration, and for the runtime's of networks.
const LED_TO: [&str; 2] = ["config.yaml.d", "cni-net.d"];

/// Whether a folder of the state is one that a link in this machine's image leads to. The runtime watches the one that was there
/// when it started, so it must stay that one.
pub fn led_to(folder: &Path) -> bool {
    is(Path::new("/etc")) && LED_TO.iter().any(|name| folder.file_name() == Some(name.as_ref()))
}

/// Whether `path`, or the nearest folder above it that is there, lies on a file system that is read-only.
pub fn is(path: &Path) -> bool {
    let there = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    nix::unistd::access(there, nix::unistd::AccessFlags::W_OK) == Err(nix::errno::Errno::EROFS)
}

/// An error where a file cannot be written because its place is read-only.
pub fn check(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    // A link may lead to a folder that is not there yet.
    let folder = std::fs::read_link(folder).unwrap_or(folder.to_owned());
    if is(&folder) {
        bail!(
            "{} cannot be written: its file system is read-only. Run `keelson first-boot prepare` in the disk image, where \
             it can be written",
            path.display()
        );
    }
    Ok(())
}

/// An error unless something begins the units at each boot.
pub fn check_start() -> Result<()> {
    run("systemctl", &["is-enabled", "--quiet", FIRST_BOOT]).map(drop).map_err(|_| {
        anyhow::anyhow!(
            "/etc is read-only, so nothing can be enabled to start with the machine, and the image does not have {FIRST_BOOT} \
             enabled. Run `keelson first-boot prepare` in the disk image, where it can be written"
        )
    })
}

/// Whether a unit of ours is one that cannot be enabled and is begun at each boot all the same.
pub fn begins(unit: &str) -> bool {
    is(Path::new("/etc")) && super::units::EVERY.contains(&unit) && check_start().is_ok()
}

/// Starts the units that init or join chose, where they could not be enabled. Which they are.
pub fn resume(config: &Config) -> Result<Vec<String>> {
    let entries = Ledger::of(&config.paths.state).entries()?;
    let names = entries.into_iter().rev().filter_map(|entry| match entry {
        Entry::Unit { name } => Some(name),
        _ => None,
    });
    let names: Vec<String> = names.collect();
    if is(Path::new("/etc")) {
        for name in &names {
            run("systemctl", &["start", "--no-block", name])?;
        }
    }
    Ok(names)
}

/// `keelson first-boot prepare`.
pub fn prepare(config: &Config, config_file: &Path) -> Result<()> {
    let state = &config.paths.state;
    if !Ledger::of(state).entries()?.is_empty() {
        bail!(
            "this machine is part of a cluster; an image is made of one that is not. `keelson reset --yes` takes it out"
        );
    }
    // What an image holds is nobody's to take away again: these notes go with this process.
    let notes = state.join("prepare");
    keelson_pki::ensure_dir(&notes, 0o700)?;
    let made = put_in_place(config, config_file, &Ledger::of(&notes));
    std::fs::remove_dir_all(&notes).with_context(|| format!("cannot remove {}", notes.display()))?;
    made?;
    println!(
        "This image can run with a read-only root: it writes below {} and what containerd keeps. It becomes a cluster or joins \
         one from its first-boot file, or by `keelson init` or `keelson join`",
        state.display()
    );
    Ok(())
}

fn put_in_place(config: &Config, config_file: &Path, ledger: &Ledger) -> Result<()> {
    let state = &config.paths.state;
    if containerd::write_drop_in(ledger, containerd::has_images(), &config.registries, None)?
        && machine::systemd()
    {
        containerd::restart()?;
    }
    let (plugins, networks) = containerd::Effective::read()?.cni();
    containerd::link_plugins(ledger, &plugins)?;
    if !config_file.exists() {
        ledger.write(config_file, crate::print_config::text().as_bytes(), 0o644)?;
    }
    let links = [
        (
            dropin::place(config_file, "x").parent().map(Path::to_owned).unwrap_or_default(),
            state.join(LED_TO[0]),
        ),
        (networks, state.join(LED_TO[1])),
    ];
    let mut folders = format!("d {} 0755 root root -\n", state.display());
    for (from, to) in &links {
        lead(ledger, from, to)?;
        folders.push_str(&format!("d {} 0755 root root -\n", to.display()));
    }
    ledger.write(Path::new(TMPFILES), folders.as_bytes(), 0o644)?;
    run("systemctl", &["enable", "--quiet", FIRST_BOOT, MACHINE_ID]).map(drop)
}

/// A link from a folder that is not used yet to one below the state folder.
fn lead(ledger: &Ledger, from: &Path, to: &Path) -> Result<()> {
    keelson_pki::ensure_dir(to, 0o755)?;
    if std::fs::read_link(from).is_ok_and(|now| now == to) {
        return Ok(());
    }
    match std::fs::remove_dir(from) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => bail!(
            "{} holds files already, which a link to {} would hide; move them there (they then are part of /var), or put \
             what they say into the main file",
            from.display(),
            to.display()
        ),
        other => other.with_context(|| format!("cannot make {} a link", from.display()))?,
    }
    if let Some(folder) = from.parent() {
        ledger.folder(folder)?;
    }
    ledger.link(from, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_folder_becomes_a_link_and_a_full_one_stays() {
        let place = tempfile::tempdir().unwrap();
        let ledger = Ledger::of(&place.path().join("notes"));
        let (from, to) = (place.path().join("etc/x.d"), place.path().join("var/x.d"));
        std::fs::create_dir_all(&from).unwrap();
        lead(&ledger, &from, &to).unwrap();
        lead(&ledger, &from, &to).unwrap();
        assert_eq!(std::fs::read_link(&from).unwrap(), to);
        // What is written by the link's name lies in /var, which may have lost the folder.
        std::fs::remove_dir(&to).unwrap();
        assert!(ledger.write(&from.join("a"), b"1", 0o644).unwrap());
        assert_eq!(std::fs::read(to.join("a")).unwrap(), b"1");
        let full = place.path().join("etc/full.d");
        std::fs::create_dir_all(full.join("old")).unwrap();
        let refused = lead(&ledger, &full, &to).unwrap_err().to_string();
        assert!(refused.contains("holds files already"), "{refused}");
        assert!(full.join("old").exists());
    }
}
