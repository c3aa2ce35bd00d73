//! Snapshots: everything a cluster cannot make anew (its objects at one revision, its authorities and the service accounts'
//! keys, what its machines share of the configuration) in one file, so that a new machine is that cluster again with no
//! other secret.
//!
//! A snapshot is read through the store's own lists: the same for SQLite and etcd, beside a server that writes, and with
//! no read transaction longer than a page.

pub mod file;
pub mod put;
pub mod rescue;
pub mod restore;
mod schedule;
mod take;

pub use schedule::keep;
pub use take::{Facts, Source, take};

use crate::install::progress::Output;
use anyhow::{Context as _, Result, bail};
use file::{EXTENSION, Reader, SnapshotError};
use jiff::Timestamp;
use keelson_daemon::config::Config;
use keelson_store::SqliteReader;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Files of the PKI folder that are in a snapshot; all others are made from them.
pub const KEYS: [&str; 6] =
    ["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub"];

/// The hash of the cluster's authority; `None` where this machine has none.
pub fn cluster(config: &Config) -> Result<Option<String>> {
    let path = config.paths.pki().join("ca.crt");
    if !path.exists() {
        return Ok(None);
    }
    let pem = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    hash(&pem).map(Some).with_context(|| format!("{} is no certificate", path.display()))
}

fn hash(pem: &[u8]) -> Result<String> {
    use rustls_pki_types::pem::PemObject as _;
    let der = rustls_pki_types::CertificateDer::from_pem_slice(pem)
        .map_err(|_| anyhow::anyhow!("the authority is no certificate"))?;
    Ok(keelson_pki::public_key_hash(&der)?)
}

/// `keelson snapshot save`: takes one now, beside whatever runs.
pub async fn save(config: &Config, path: Option<PathBuf>, output: Output) -> Result<()> {
    let facts = Facts::of(config)?;
    let now = Timestamp::now();
    let path = match path {
        Some(path) => path,
        None => free(&folder(config)?, &format!("{}-{}", facts.node, stamp(now))),
    };
    if path.exists() {
        bail!("{} is there already; give another name", path.display());
    }
    let taken = now_to(config, &facts, now, &path).await?;
    match output {
        Output::Text => println!(
            "{}: {} objects at revision {}. It holds the cluster's keys: keep it where only administrators read.",
            path.display(),
            taken.objects,
            taken.revision
        ),
        Output::Json => println!(
            "{}",
            serde_json::json!({"path": path, "objects": taken.objects, "revision": taken.revision})
        ),
    }
    Ok(())
}

/// Takes one beside whatever runs.
async fn now_to(config: &Config, facts: &Facts, now: Timestamp, path: &Path) -> Result<take::Taken> {
    let source = match config.etcd {
        Some(_) => Source::Store(crate::store::open(config).await?),
        None => {
            let folder = config.paths.database();
            Source::beside(SqliteReader::open(&folder).with_context(|| {
                format!(
                    "the database in {} cannot be read; run this on a control plane, as root",
                    folder.display()
                )
            })?)
        }
    };
    let taken = take(&source, facts, now, path).await?;
    own(config, path)?;
    Ok(taken)
}

/// In the names of those that are taken before upgrades.
const BEFORE: &str = "-before-";

/// What tells a snapshot that was taken before a version came by its name.
pub fn before_mark(version: &str) -> String {
    format!("{BEFORE}{version}-")
}

/// Takes one before another version changes anything, and removes the oldest of this node's that were taken so, as many as
/// `snapshots.keep` says. Where it lies; the schedule removes none of these.
pub async fn before(config: &Config, version: &str) -> Result<PathBuf> {
    let (facts, now) = (Facts::of(config)?, Timestamp::now());
    let name = format!("{}{}{}", facts.node, before_mark(version), stamp(now));
    let path = free(&folder(config)?, &name);
    now_to(config, &facts, now, &path).await?;
    for old in superfluous(&config.snapshots.folder, &facts.node, config.snapshots.keep)? {
        std::fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    Ok(path)
}

/// Of the snapshots that a node took before upgrades, those older than the newest `keep`.
fn superfluous(folder: &Path, node: &str, keep: usize) -> Result<Vec<PathBuf>> {
    let mark = format!("{node}{BEFORE}");
    let mut taken = Vec::new();
    for path in files(folder)? {
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&mark)) {
            let at = std::fs::metadata(&path).and_then(|found| found.modified());
            taken.push((at.with_context(|| format!("cannot look at {}", path.display()))?, path));
        }
    }
    taken.sort();
    taken.truncate(taken.len().saturating_sub(keep));
    Ok(taken.into_iter().map(|(_, path)| path).collect())
}

/// A path that nothing has yet: two of one second are told apart by a number.
fn free(folder: &Path, name: &str) -> PathBuf {
    let path = |more: String| folder.join(format!("{name}{more}.{EXTENSION}"));
    let numbered = (2u32..).map(|number| path(format!("-{number}")));
    std::iter::once(path(String::new())).chain(numbered).find(|path| !path.exists()).unwrap_or_default()
}

/// The configured folder, made if it is missing.
fn folder(config: &Config) -> Result<PathBuf> {
    let folder = &config.snapshots.folder;
    if !folder.exists() {
        keelson_pki::ensure_dir(folder, 0o700)?;
        own(config, folder)?;
    }
    Ok(folder.clone())
}

/// What root makes in the control plane's folders is the control plane's: it removes the oldest, and restores from them.
fn own(config: &Config, path: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let in_state = path.starts_with(&config.paths.state) || path.starts_with(&config.snapshots.folder);
    let Ok(owner) = std::fs::metadata(config.paths.database()) else { return Ok(()) };
    if !in_state || !nix::unistd::Uid::effective().is_root() {
        return Ok(());
    }
    std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid()))
        .with_context(|| format!("cannot give {} to the control plane's user", path.display()))
}

fn stamp(time: Timestamp) -> String {
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// A snapshot as it is listed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    pub path: PathBuf,
    pub bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken: Option<Timestamp>,
    pub node: String,
    pub version: String,
    pub revision: u64,
    pub objects: u64,
    /// Whether it is of this machine's cluster.
    pub own: bool,
    /// What is wrong with it; nothing when it is whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrong: Option<String>,
}

/// The snapshots in the configured folder, the newest first, each read to its end.
pub fn list(config: &Config) -> Result<Vec<Listed>> {
    let own = cluster(config)?;
    let mut listed: Vec<Listed> = files(&config.snapshots.folder)?
        .into_iter()
        .map(|path| {
            let bytes = std::fs::metadata(&path).map_or(0, |meta| meta.len());
            match Reader::open(&path).and_then(Reader::verify) {
                Ok((header, objects)) => Listed {
                    path,
                    bytes,
                    taken: Some(header.taken),
                    node: header.node,
                    version: header.version,
                    revision: header.revision,
                    objects,
                    own: own.as_deref() == Some(&header.cluster),
                    wrong: None,
                },
                Err(error) => Listed {
                    path,
                    bytes,
                    taken: None,
                    node: String::new(),
                    version: String::new(),
                    revision: 0,
                    objects: 0,
                    own: false,
                    wrong: Some(reason(&error)),
                },
            }
        })
        .collect();
    listed.sort_by(|a, b| (b.taken, &b.path).cmp(&(a.taken, &a.path)));
    Ok(listed)
}

fn reason(error: &SnapshotError) -> String {
    match error {
        SnapshotError::Cut { .. } => "cut short".to_owned(),
        SnapshotError::Altered { .. } => "altered or damaged".to_owned(),
        other => other.to_string(),
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", folder.display())),
    };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        !hidden && path.extension().is_some_and(|extension| extension == EXTENSION)
    });
    files.sort();
    Ok(files)
}

/// Prints the list.
pub fn show(listed: &[Listed], output: Output) -> Result<()> {
    if output == Output::Json {
        println!("{}", serde_json::to_string_pretty(listed)?);
        return Ok(());
    }
    println!("{:<22} {:>10} {:>8} {:>9} {:<16} {}", "TAKEN", "REVISION", "OBJECTS", "KIB", "STATE", "FILE");
    for one in listed {
        let taken = one.taken.map_or("?".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string());
        let state = match &one.wrong {
            Some(wrong) => wrong.clone(),
            None if one.own => "whole".to_owned(),
            None => "another cluster".to_owned(),
        };
        println!(
            "{taken:<22} {:>10} {:>8} {:>9} {state:<16} {}",
            one.revision,
            one.objects,
            one.bytes.div_ceil(1024),
            one.path.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn the_oldest_taken_before_upgrades_go_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "n1-before-0.9.0-20260101T000000Z.snapshot",
            "n1-before-0.10.0-20260201T000000Z.snapshot",
            "n1-before-0.11.0-20260301T000000Z.snapshot",
            "n10-before-0.9.0-20250101T000000Z.snapshot",
            "n1-20250101T000000Z.snapshot",
            "auto-20250101T000000Z.snapshot",
        ];
        for (months, name) in names.iter().enumerate() {
            let file = std::fs::File::create(folder.path().join(name)).unwrap();
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_770_000_000 + 2_592_000 * months as u64);
            file.set_modified(at).unwrap();
        }
        let old = |keep: usize| superfluous(folder.path(), "n1", keep).unwrap();
        assert_eq!(old(2), [folder.path().join(names[0])]);
        assert_eq!(old(1).len(), 2);
        assert_eq!(old(3), Vec::<PathBuf>::new());
    }
}
