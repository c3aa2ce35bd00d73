//! Images that were pulled and whose files may not be on the disk yet.
//!
//! The runtime flushes nothing of what it unpacks: after a power cut, layers may be there by their names with files that are
//! empty, and every later pod would start from them. So a pull is noted before it begins, what it unpacked is flushed behind the
//! pods' backs, and what the note still names after another boot is removed, to be pulled anew.

use crate::cri::{Cri, CriError};
use keelson_sys::file;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use tokio::sync::Mutex;

/// In the kubelet's folder.
const FILE: &str = "pulling.json";

/// Why the note was not kept, or not acted on.
#[derive(Debug, thiserror::Error)]
pub enum UnflushedError {
    #[error("the note of images that are being pulled, {path}")]
    Note { path: PathBuf, source: io::Error },
    #[error("flush what was unpacked below {path}")]
    Flush { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Runtime(#[from] CriError),
}

/// The file's content.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    boot: String,
    images: Vec<String>,
}

impl Note {
    fn read(path: &Path) -> io::Result<Note> {
        match std::fs::read(path) {
            // One that is no note is as good as none: it is replaced as a whole.
            Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Note::default()),
            Err(error) => Err(error),
        }
    }

    /// What another boot's note names was cut off.
    fn cut_off(&self, boot: &str) -> &[String] {
        if self.boot == boot { &[] } else { &self.images }
    }
}

/// Keeps the note.
#[derive(Debug)]
pub struct Unflushed {
    path: PathBuf,
    /// How many pulls of each image are under way, or unpacked and not flushed.
    under_way: Mutex<BTreeMap<String, usize>>,
}

impl Unflushed {
    /// In the kubelet's folder `root`.
    pub fn new(root: &Path) -> Unflushed {
        Unflushed { path: root.join(FILE), under_way: Mutex::default() }
    }

    /// Before a pull.
    ///
    /// # Errors
    /// The note cannot be written; then the pull must not begin.
    pub async fn begin(&self, image: &str) -> Result<(), UnflushedError> {
        let mut under_way = self.under_way.lock().await;
        let count = under_way.entry(image.to_owned()).or_default();
        *count += 1;
        if *count > 1 {
            return Ok(());
        }
        let written = self.write(&under_way);
        if written.is_err() {
            under_way.remove(image);
        }
        written
    }

    /// After a pull, whether it succeeded or not; `flush` where it may have unpacked something.
    ///
    /// # Errors
    /// What was unpacked could not be flushed, or the note not be written: then it stays in the note.
    pub async fn end(&self, cri: &Cri, image: &str, flush: bool) -> Result<(), UnflushedError> {
        if flush {
            flush_images(cri).await?;
        }
        let mut under_way = self.under_way.lock().await;
        let left = under_way.get(image).map_or(0, |count| count - 1);
        match left {
            0 => drop(under_way.remove(image)),
            _ => drop(under_way.insert(image.to_owned(), left)),
        }
        if left == 0 { self.write(&under_way) } else { Ok(()) }
    }

    /// Before any pod is started: removes what a power cut fell into, the containers that were made of it first.
    ///
    /// # Errors
    /// Something of it could not be removed; the note stays for the next start.
    pub async fn begin_anew(&self, cri: &Cri) -> Result<(), UnflushedError> {
        let failed = |source| UnflushedError::Note { path: self.path.clone(), source };
        let note = Note::read(&self.path).map_err(failed)?;
        if note.images.is_empty() {
            return Ok(());
        }
        let boot = file::boot_id().map_err(failed)?;
        let cut_off = note.cut_off(&boot);
        if !cut_off.is_empty() {
            remove(cri, cut_off).await?;
        }
        // Only this process was away: it is all there, and on its way to the disk.
        if note.boot == boot {
            flush_images(cri).await?;
        }
        self.write(&*self.under_way.lock().await)
    }

    fn write(&self, under_way: &BTreeMap<String, usize>) -> Result<(), UnflushedError> {
        let written = || {
            let note = Note { boot: file::boot_id()?, images: under_way.keys().cloned().collect() };
            file::write_atomic(&self.path, &serde_json::to_vec(&note)?, 0o600)
        };
        written().map_err(|source| UnflushedError::Note { path: self.path.clone(), source })
    }
}

/// Removes images that the machine stopped in the middle of, the containers that were made of them first. What a pull had
/// unpacked is held by its lease, and would be found and taken for whole by the next pull.
///
/// # Errors
/// Something could not be removed.
pub async fn remove(cri: &Cri, images: &[String]) -> Result<(), CriError> {
    cri.end_leases().await?;
    for image in images {
        let Some(found) = cri.image_status(image).await? else { continue };
        tracing::warn!(image, "the machine stopped before an image was on the disk; it is removed");
        for container in cri.list_containers(None).await? {
            let made_of = container.image.as_ref().map(|spec| spec.image.as_str()).unwrap_or_default();
            if made_of == found.id || made_of == image || container.image_ref == found.id {
                cri.remove_container(&container.id).await?;
            }
        }
        cri.remove_image(image).await?;
    }
    Ok(())
}

async fn flush_images(cri: &Cri) -> Result<(), UnflushedError> {
    for filesystem in cri.image_filesystems().await? {
        let Some(path) = filesystem.fs_id.map(|id| PathBuf::from(id.mountpoint)) else { continue };
        let flushed = {
            let path = path.clone();
            let flush = move || nix::unistd::syncfs(std::fs::File::open(path)?).map_err(io::Error::from);
            tokio::task::spawn_blocking(flush).await
        };
        flushed
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|source| UnflushedError::Flush { path, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_pulled_stands_in_the_note_until_it_is_flushed() {
        let folder = tempfile::tempdir().expect("a folder");
        let unflushed = Unflushed::new(folder.path());
        // Nobody is asked where nothing is to be flushed.
        let cri = Cri::new(&folder.path().join("no.sock")).expect("a client");
        let noted = || Note::read(&folder.path().join(FILE)).expect("a note").images;
        for image in ["a", "b", "a"] {
            unflushed.begin(image).await.expect("noted");
        }
        assert_eq!(noted(), ["a", "b"]);
        unflushed.end(&cri, "a", false).await.expect("ended");
        assert_eq!(noted(), ["a", "b"], "another pull of it is under way");
        unflushed.end(&cri, "a", true).await.expect_err("the runtime cannot be asked where to flush");
        assert_eq!(noted(), ["a", "b"]);
        for image in ["a", "b"] {
            unflushed.end(&cri, image, false).await.expect("ended");
        }
        assert_eq!(noted(), [""; 0]);
        unflushed.begin_anew(&cri).await.expect("nothing is to be done");
    }

    #[test]
    fn a_note_of_this_boot_was_not_cut_off() {
        let note = Note { boot: "one".into(), images: vec!["a".into()] };
        assert_eq!(note.cut_off("one"), [""; 0]);
        assert_eq!(note.cut_off("other"), ["a"]);
    }
}
