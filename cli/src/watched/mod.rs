//! Folders that are kept in step with: archives of images with the runtime ([`images`]), manifests with the cluster
//! ([`manifests`]). A file that comes is taken in, one that changes is taken anew, and what came from one that went goes.

pub mod archive;
pub mod images;
pub mod manifests;

use keelson_daemon::DrainWatcher;
use keelson_sys::folder::FolderWatch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::unix::AsyncFd;

/// After a notice more of them are waited for: files come in groups.
const SETTLE: Duration = Duration::from_millis(300);
/// A folder that is not there is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What tells whether a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: u64,
}

/// The files of some folders that end in one of `ends`, by path; hidden ones are somebody's work in progress.
pub fn files(folders: &[PathBuf], ends: &[&str]) -> BTreeMap<PathBuf, Stamp> {
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    entries
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let wanted = !name.starts_with('.') && ends.iter().any(|end| name.ends_with(end));
            // Through links: a file may lie elsewhere.
            let meta = std::fs::metadata(entry.path()).ok().filter(|meta| wanted && meta.is_file())?;
            let modified = meta.modified().ok()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            let modified = u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX);
            Some((entry.path(), Stamp { bytes: meta.len(), modified }))
        })
        .collect()
}

/// Notices of folders, some of which may not be there.
pub struct Notices {
    folders: Vec<PathBuf>,
    watches: Vec<Option<AsyncFd<FolderWatch>>>,
}

impl Notices {
    pub fn of(folders: Vec<PathBuf>) -> Notices {
        let watches = folders.iter().map(|folder| open(folder)).collect();
        Notices { folders, watches }
    }

    /// Waits until something happened in one of them and no more happens, or `limit` is over. `None`: the drain began.
    pub async fn wait(&mut self, limit: Duration, drain: &DrainWatcher) -> Option<()> {
        let missing = self.watches.iter().any(Option::is_none);
        let limit = if missing { limit.min(LOOK_AGAIN) } else { limit };
        let happened = async {
            let waits = self.watches.iter().flatten().map(|watch| Box::pin(taken(watch)));
            let waits: Vec<_> = waits.collect();
            if waits.is_empty() {
                return std::future::pending().await;
            }
            futures::future::select_all(waits).await;
        };
        let _ = drain.until(tokio::time::timeout(limit, happened)).await?;
        drain.until(tokio::time::sleep(SETTLE)).await?;
        for (watch, folder) in self.watches.iter_mut().zip(&self.folders) {
            if let Some(open) = watch {
                let _ = open.get_ref().drain();
            }
            // One that was moved away or removed is watched anew.
            if watch.is_none() || !folder.is_dir() {
                *watch = open(folder);
            }
        }
        Some(())
    }
}

#[expect(
    deprecated,
    reason = "its replacement is unsafe; a watch owns its descriptor and always names the same one"
)]
fn open(folder: &Path) -> Option<AsyncFd<FolderWatch>> {
    match FolderWatch::open(folder).and_then(AsyncFd::new) {
        Ok(watch) => Some(watch),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "a folder cannot be watched; it is looked at each minute");
            None
        }
    }
}

/// Ends when something happened; never where that cannot be told.
async fn taken(watch: &AsyncFd<FolderWatch>) {
    while let Ok(mut ready) = watch.readable().await {
        match watch.get_ref().drain() {
            Ok(true) => return,
            Ok(false) => ready.clear_ready(),
            Err(_) => break,
        }
    }
    std::future::pending().await
}

/// Longer and longer waits after failures, up to five minutes.
pub fn back_off(failures: u32) -> Duration {
    Duration::from_secs(5).saturating_mul(1 << failures.min(6)).min(Duration::from_secs(300))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_happens_in_a_folder_is_noticed_and_the_drain_ends_it() {
        let parent = tempfile::tempdir().unwrap();
        let (there, later) = (parent.path().join("there"), parent.path().join("later"));
        std::fs::create_dir(&there).unwrap();
        let (trigger, drain) = keelson_daemon::drain::channel();
        let mut notices = Notices::of(vec![there.clone(), later]);
        std::fs::write(there.join("a.yaml"), "x").unwrap();
        std::fs::write(there.join(".b.yaml"), "x").unwrap();
        std::fs::write(there.join("c.txt"), "x").unwrap();
        let long = Duration::from_secs(3600);
        assert_eq!(notices.wait(long, &drain).await, Some(()));
        let found: Vec<PathBuf> = files(&[there.clone()], &[".yaml", ".json"]).into_keys().collect();
        assert_eq!(found, [there.join("a.yaml")]);
        let waiting = tokio::spawn(async move { notices.wait(long, &drain).await });
        trigger.drain(Duration::from_secs(1)).await;
        assert_eq!(waiting.await.unwrap(), None);
    }
}
