//! A database that is damaged when the control plane starts: it is kept aside, and the newest whole snapshot of this cluster
//! takes its place. Nothing is thrown away, and without a snapshot nothing is done.

use super::file::Reader;
use super::{files, put, stamp};
use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use keelson_daemon::config::Config;
use keelson_store::sqlite::DATABASE;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Folders in the database's own with what was kept aside begin so.
const ASIDE: &str = "damaged-";
/// Beside the damaged files: what happened.
const NOTE: &str = "NOTE.txt";

/// Puts the newest whole snapshot in the place of a damaged database. What to tell the administrator.
pub async fn from_snapshot(config: &Config, damage: &str) -> Result<String> {
    let now = Timestamp::now();
    let folder = config.paths.database();
    let Some((path, snapshot)) = newest(config)? else {
        bail!(
            "the database in {} is damaged ({damage}), and {} holds no whole snapshot of this cluster. The database is left \
             as it is. If you have a snapshot elsewhere: `keelson snapshot restore FILE --yes`",
            folder.display(),
            config.snapshots.folder.display()
        );
    };
    let (taken, revision) = (snapshot.header.taken, snapshot.header.revision);
    let building = folder.join("restoring");
    remove(&building)?;
    let objects = put::database(&building, snapshot).await.inspect_err(|_| drop(remove(&building)))?;
    let aside = folder.join(format!("{ASIDE}{}", stamp(now)));
    let note = format!(
        "The database was damaged ({damage}) and is kept in {}. In its place is the snapshot {} of {} (revision \
         {revision}, {objects} objects): what was written after that is lost. Pods that run go on. When nothing of the \
         damaged files is needed any more: `rm -r {}`",
        aside.display(),
        path.display(),
        taken.strftime("%Y-%m-%d %H:%M:%S UTC"),
        aside.display(),
    );
    exchange(&folder, &building, &aside, &note)
        .with_context(|| format!("the files in {} cannot be exchanged", folder.display()))?;
    Ok(note)
}

/// The newest whole snapshot of this machine's cluster, opened anew.
fn newest(config: &Config) -> Result<Option<(PathBuf, Reader)>> {
    let own = super::cluster(config)?;
    let mut candidates: Vec<(Timestamp, PathBuf)> = Vec::new();
    for path in files(&config.snapshots.folder)? {
        match Reader::open(&path) {
            Ok(reader) if own.as_deref() == Some(&reader.header.cluster) => {
                candidates.push((reader.header.taken, path));
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "a snapshot cannot be used"),
        }
    }
    candidates.sort();
    for (_, path) in candidates.into_iter().rev() {
        match Reader::open(&path).and_then(Reader::verify) {
            Ok(_) => return Ok(Some((path.clone(), Reader::open(&path)?))),
            Err(error) => tracing::warn!(path = %path.display(), %error, "a snapshot cannot be used"),
        }
    }
    Ok(None)
}

/// Each step leaves either the damaged database, which is found so again, or the new one: never none, and never the old
/// one's log beside the new one.
fn exchange(folder: &Path, building: &Path, aside: &Path, note: &str) -> io::Result<()> {
    fs::create_dir(aside)?;
    fs::write(aside.join(NOTE), format!("{note}\n"))?;
    fs::hard_link(folder.join(DATABASE), aside.join(DATABASE))?;
    for end in ["-wal", "-shm"] {
        let name = format!("{DATABASE}{end}");
        match fs::rename(folder.join(&name), aside.join(&name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    File::open(aside)?.sync_all()?;
    File::open(folder)?.sync_all()?;
    fs::rename(building.join(DATABASE), folder.join(DATABASE))?;
    File::open(folder)?.sync_all()?;
    fs::remove_dir_all(building)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// What is kept aside of damaged databases, with the notes.
pub fn kept_aside(config: &Config) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(config.paths.database()).into_iter().flatten().flatten();
    let mut found: Vec<(PathBuf, String)> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(ASIDE))
        .map(|entry| {
            let note = fs::read_to_string(entry.path().join(NOTE)).unwrap_or_default();
            (entry.path(), note.trim().to_owned())
        })
        .collect();
    found.sort();
    found
}
