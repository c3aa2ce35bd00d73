//! What was made on this machine outside of the state folder, in the order it was made. An entry is written and synced
//! before its thing is made: a crash in between leaves an entry without a thing, which removing passes over.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// One thing that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Entry {
    /// A file that was not there.
    File { path: PathBuf },
    /// A file that was there, and where its old content is kept.
    Changed { path: PathBuf, kept: PathBuf },
    /// A symbolic link.
    Link { path: PathBuf },
    /// A folder, removed when it is empty.
    Folder { path: PathBuf },
    /// A unit that was enabled.
    Unit { name: String },
    /// An image that was imported into the runtime.
    Image { name: String },
    /// A rule that was added to ufw, as its command line has it.
    UfwRule { rule: String },
}

/// The file with the entries, one JSON object a line.
pub struct Ledger {
    path: PathBuf,
}

impl Ledger {
    /// The ledger of a state folder.
    pub fn of(state: &Path) -> Ledger {
        Ledger { path: state.join("ledger.jsonl") }
    }

    /// All entries, the last made first.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.path.display())),
        };
        // A last line without its end was being written when the machine stopped: its thing was not made.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let read = |line: &str| {
            serde_json::from_str(line)
                .with_context(|| format!("{} has a line that is no entry: {line}", self.path.display()))
        };
        let mut entries = whole.lines().map(read).collect::<Result<Vec<Entry>>>()?;
        entries.reverse();
        Ok(entries)
    }

    /// Notes what is about to be made, once.
    pub fn note(&self, entry: Entry) -> Result<()> {
        if self.entries()?.contains(&entry) {
            return Ok(());
        }
        let written = (|| {
            let folder = self.path.parent().unwrap_or(Path::new("/"));
            std::fs::create_dir_all(folder)?;
            let text = std::fs::read(&self.path).unwrap_or_default();
            let mut file = std::fs::File::options().create(true).append(true).open(&self.path)?;
            if text.last().is_some_and(|last| *last != b'\n') {
                let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                file.set_len(whole as u64)?;
            }
            let mut line = serde_json::to_vec(&entry)?;
            line.push(b'\n');
            file.write_all(&line)?;
            file.sync_all()?;
            std::fs::File::open(folder)?.sync_all()
        })();
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Writes a file of ours: notes it, keeps what was there before, replaces it atomically.
    pub fn write(&self, path: &Path, content: &[u8], mode: u32) -> Result<bool> {
        if std::fs::read(path).ok().as_deref() == Some(content) {
            return Ok(false);
        }
        if let Some(folder) = path.parent() {
            self.folder(folder)?;
        }
        let known = self.entries()?.iter().any(|entry| match entry {
            Entry::File { path: known } | Entry::Changed { path: known, .. } => known == path,
            _ => false,
        });
        if !known && path.exists() {
            let name = path.to_string_lossy().trim_start_matches('/').replace('/', "_");
            let kept = self.path.with_file_name("kept").join(name);
            keelson_pki::ensure_dir(kept.parent().unwrap_or(Path::new("/")), 0o700)?;
            let old = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            keelson_pki::write_atomic(&kept, &old, 0o600)?;
            self.note(Entry::Changed { path: path.to_owned(), kept })?;
        } else if !known {
            self.note(Entry::File { path: path.to_owned() })?;
        }
        keelson_pki::write_atomic(path, content, mode)?;
        Ok(true)
    }

    /// Makes a folder and those above it that are not there; where it is a link, what that leads to. What lies in the state
    /// folder, and that itself, is not noted: it goes with it.
    pub fn folder(&self, path: &Path) -> Result<()> {
        if let (Ok(target), false) = (std::fs::read_link(path), path.exists()) {
            return self.folder(&path.parent().unwrap_or(Path::new("/")).join(target));
        }
        let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
        let state = self.path.parent().unwrap_or(Path::new("/"));
        for folder in missing.into_iter().rev() {
            if !folder.starts_with(state) {
                self.note(Entry::Folder { path: folder.to_owned() })?;
            }
            // The note may have made it: one above the state folder.
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(())
    }

    /// Makes a symbolic link; one that is there stays when it leads to the same place.
    pub fn link(&self, path: &Path, target: &Path) -> Result<()> {
        if std::fs::read_link(path).is_ok_and(|now| now == target) || path.exists() {
            return Ok(());
        }
        self.note(Entry::Link { path: path.to_owned() })?;
        std::os::unix::fs::symlink(target, path)
            .with_context(|| format!("cannot link {} to {}", path.display(), target.display()))
    }

    /// Undoes one entry's file, link or folder; what is gone already is fine.
    pub fn undo(entry: &Entry) -> std::io::Result<()> {
        let done = match entry {
            Entry::File { path } | Entry::Link { path } => std::fs::remove_file(path),
            Entry::Changed { path, kept } => std::fs::copy(kept, path).map(drop),
            Entry::Folder { path } => match std::fs::remove_dir(path) {
                // Somebody put something there meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => Ok(()),
                other => other,
            },
            Entry::Unit { .. } | Entry::Image { .. } | Entry::UfwRule { .. } => Ok(()),
        };
        match done {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undoing_leaves_what_was_there_before() {
        let folder = tempfile::tempdir().unwrap();
        let (state, place) = (folder.path().join("state"), folder.path().join("etc"));
        std::fs::create_dir(&place).unwrap();
        std::fs::write(place.join("old"), "before").unwrap();
        let ledger = Ledger::of(&state);
        assert!(ledger.write(&place.join("old"), b"after", 0o644).unwrap());
        assert!(ledger.write(&place.join("a/b/new"), b"x", 0o644).unwrap());
        assert!(!ledger.write(&place.join("a/b/new"), b"x", 0o644).unwrap(), "nothing to do again");
        assert!(ledger.write(&place.join("old"), b"later", 0o644).unwrap());
        ledger.link(&place.join("link"), Path::new("old")).unwrap();
        // A crash in the middle of a line.
        let mut file = std::fs::File::options().append(true).open(state.join("ledger.jsonl")).unwrap();
        file.write_all(b"{\"kind\":\"fi").unwrap();
        ledger.note(Entry::Unit { name: "u".into() }).unwrap();
        std::fs::write(place.join("a/somebody"), "else's").unwrap();

        let entries = ledger.entries().unwrap();
        assert_eq!(entries[0], Entry::Unit { name: "u".into() });
        assert_eq!(entries.len(), 6);
        for entry in &entries {
            Ledger::undo(entry).unwrap();
            Ledger::undo(entry).unwrap();
        }
        assert_eq!(std::fs::read_to_string(place.join("old")).unwrap(), "before");
        assert!(!place.join("a/b").exists() && !place.join("link").exists());
        assert!(place.join("a/somebody").exists());
    }

    #[test]
    fn a_link_leads_into_a_state_folder_that_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let (state, place) = (folder.path().join("var/state"), folder.path().join("etc"));
        std::fs::create_dir(&place).unwrap();
        std::os::unix::fs::symlink(state.join("x.d"), place.join("x.d")).unwrap();
        let ledger = Ledger::of(&state);
        assert!(ledger.write(&place.join("x.d/a"), b"1", 0o644).unwrap());
        assert_eq!(std::fs::read(state.join("x.d/a")).unwrap(), b"1");
        let expected =
            [Entry::File { path: place.join("x.d/a") }, Entry::Folder { path: folder.path().join("var") }];
        assert_eq!(ledger.entries().unwrap(), expected);
    }
}
