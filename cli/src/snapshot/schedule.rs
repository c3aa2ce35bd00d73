//! Snapshots by the clock, and their retention.

use super::file::EXTENSION;
use super::take::{Facts, Source, take};
use super::{files, folder, stamp};
use anyhow::{Context as _, Result};
use jiff::Timestamp;
use keelson_daemon::config::{Config, SnapshotsSection};
use keelson_daemon::{Clock, DrainWatcher};
use keelson_store::Store;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Names of those that are taken by the clock begin so; no others are ever removed.
const PREFIX: &str = "auto-";
/// The first of a new cluster comes after this.
const FIRST: Duration = Duration::from_secs(900);
/// The longest sleep: the clock may be corrected, the machine may have slept.
const LOOK: Duration = Duration::from_secs(600);

/// Takes them until the drain.
pub async fn keep(store: Arc<dyn Store>, config: Config, clock: Clock, drain: DrainWatcher) {
    let Some(every) = config.snapshots.every else { return };
    let source = Source::Store(store);
    let begun = clock.now();
    loop {
        let wait = due(&config.snapshots, every, begun, clock.now());
        if drain.until(tokio::time::sleep(wait.min(LOOK))).await.is_none() {
            return;
        }
        if wait > LOOK {
            continue;
        }
        match drain.until(once(&source, &config, clock.now())).await {
            None => return,
            Some(Ok(path)) => tracing::info!(path = %path.display(), "a snapshot was taken"),
            Some(Err(error)) => {
                tracing::error!(error = %format!("{error:#}"), "no snapshot could be taken; trying again in ten minutes");
                if drain.until(tokio::time::sleep(LOOK)).await.is_none() {
                    return;
                }
            }
        }
    }
}

/// How long until the next one.
fn due(section: &SnapshotsSection, every: Duration, begun: Timestamp, now: Timestamp) -> Duration {
    let newest = automatic(section).ok().and_then(|files| taken(files.last()?));
    let (from, after) = match newest {
        // A time in the future is one that a wrong clock left.
        Some(taken) if taken <= now => (taken, every),
        _ => (begun, FIRST.min(every)),
    };
    let passed = (now.as_second() - from.as_second()).max(0).unsigned_abs();
    after.saturating_sub(Duration::from_secs(passed))
}

async fn once(source: &Source, config: &Config, now: Timestamp) -> Result<PathBuf> {
    let facts = Facts::of(config)?;
    let path = folder(config)?.join(format!("{PREFIX}{}.{EXTENSION}", stamp(now)));
    take(source, &facts, now, &path).await?;
    for old in superfluous(automatic(&config.snapshots)?, config.snapshots.keep) {
        std::fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    Ok(path)
}

/// Those taken by the clock, the oldest first: their names sort by time.
fn automatic(section: &SnapshotsSection) -> Result<Vec<PathBuf>> {
    let mut files = files(&section.folder)?;
    files.retain(|path| taken(path).is_some());
    Ok(files)
}

fn taken(path: &std::path::Path) -> Option<Timestamp> {
    let text = path.file_stem()?.to_str()?.strip_prefix(PREFIX)?;
    let whole = (text.len() == 16 && text.is_ascii()).then_some(text)?;
    let at = |range: std::ops::Range<usize>| whole.get(range).unwrap_or_default();
    let text = format!("{}-{}-{}T{}:{}:{}Z", at(0..4), at(4..6), at(6..8), at(9..11), at(11..13), at(13..15));
    text.parse().ok()
}

fn superfluous(mut files: Vec<PathBuf>, keep: usize) -> Vec<PathBuf> {
    files.truncate(files.len().saturating_sub(keep));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_its_own_go_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "auto-20260301T000000Z.snapshot",
            "auto-20260302T000000Z.snapshot",
            "auto-20260303T000000Z.snapshot",
            "n1-20260101T000000Z.snapshot",
            "auto-before.snapshot",
            ".auto-20260304T000000Z.snapshot.1.tmp",
        ];
        for name in names {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let section = SnapshotsSection { folder: folder.path().to_owned(), every: None, keep: 2 };
        let old = superfluous(automatic(&section).unwrap(), section.keep);
        assert_eq!(old, [folder.path().join(names[0])]);
        assert_eq!(superfluous(automatic(&section).unwrap(), 3), Vec::<PathBuf>::new());

        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let day = Duration::from_secs(86_400);
        let wait = |now: &str| due(&section, day, at("2026-03-03T11:50:00Z"), at(now));
        assert_eq!(wait("2026-03-03T12:00:00Z"), Duration::from_secs(12 * 3600));
        assert_eq!(wait("2026-03-05T00:00:00Z"), Duration::ZERO);
        // Its clock was ahead when it was taken.
        assert_eq!(wait("2026-03-02T12:00:00Z"), FIRST);
        for name in &names[..3] {
            std::fs::remove_file(folder.path().join(name)).unwrap();
        }
        assert_eq!(wait("2026-03-03T11:55:00Z"), Duration::from_secs(600));
    }
}
