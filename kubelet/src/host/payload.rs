//! Files of a projected volume, replaced all at once: the data lies in a time-stamped folder, `..data` is a link to
//! it that is renamed over the old one, and what the user sees are links through `..data`. A reader sees all of the
//! old or all of the new (upstream's `AtomicWriter`; programs that watch for the link's change rely on the layout).
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Component, Path, PathBuf};

const DATA: &str = "..data";
const DATA_TMP: &str = "..data_tmp";

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
    /// Owner, where it is not root.
    pub owner: Option<u32>,
}

/// Files by relative path.
pub type Payload = BTreeMap<String, File>;

/// A payload that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    #[error("path {0:?} must be relative and stay inside the volume")]
    Path(String),
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PayloadError {
    let path = path.to_path_buf();
    move |source| PayloadError::Io { what, path, source }
}

/// Brings the folder to hold exactly `payload`; says whether anything changed. `group` is the pod's fsGroup.
pub fn write(
    folder: &Path,
    payload: &Payload,
    group: Option<u32>,
    stamp: &str,
) -> Result<bool, PayloadError> {
    for path in payload.keys() {
        check(path)?;
    }
    let current = current(folder);
    if let Some(current) = &current
        && same(&folder.join(current), payload, group)
        && links(payload).iter().all(|name| folder.join(name).is_symlink())
    {
        return Ok(false);
    }
    let fresh = format!("..{stamp}");
    let target = folder.join(&fresh);
    if target.exists() {
        std::fs::remove_dir_all(&target).map_err(io_error("remove", &target))?;
    }
    std::fs::create_dir(&target).map_err(io_error("make", &target))?;
    set(&target, None, group, if group.is_some() { 0o2755 } else { 0o755 })?;
    for (path, file) in payload {
        write_file(&target, path, file, group)?;
    }
    let temporary = folder.join(DATA_TMP);
    let _ = std::fs::remove_file(&temporary);
    symlink(&fresh, &temporary).map_err(io_error("link", &temporary))?;
    std::fs::rename(&temporary, folder.join(DATA)).map_err(io_error("rename", &temporary))?;
    user_links(folder, payload)?;
    if let Some(old) = current.filter(|old| *old != fresh) {
        let old = folder.join(old);
        std::fs::remove_dir_all(&old).map_err(io_error("remove", &old))?;
    }
    Ok(true)
}

fn check(path: &str) -> Result<(), PayloadError> {
    let inside = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if path.is_empty() || !inside || path.starts_with("..") {
        return Err(PayloadError::Path(path.to_owned()));
    }
    Ok(())
}

/// Name of the folder that `..data` points to.
fn current(folder: &Path) -> Option<String> {
    let target = std::fs::read_link(folder.join(DATA)).ok()?;
    let name = target.to_str()?.to_owned();
    (folder.join(&name).is_dir() && !name.contains('/')).then_some(name)
}

/// First components of all paths: what the user sees at the top.
fn links(payload: &Payload) -> BTreeSet<String> {
    payload.keys().filter_map(|path| path.split('/').next().map(str::to_owned)).collect()
}

fn effective_mode(file: &File, group: Option<u32>) -> u32 {
    if group.is_some() { file.mode | 0o440 } else { file.mode }
}

fn same(folder: &Path, payload: &Payload, group: Option<u32>) -> bool {
    let mut seen = 0;
    let mut pending = vec![folder.to_path_buf()];
    while let Some(next) = pending.pop() {
        let Ok(entries) = std::fs::read_dir(&next) else { return false };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                pending.push(path);
                continue;
            }
            let Some(name) = path.strip_prefix(folder).ok().and_then(Path::to_str) else { return false };
            let Some(file) = payload.get(name) else { return false };
            let Ok(meta) = entry.metadata() else { return false };
            let alike = meta.mode() & 0o7777 == effective_mode(file, group)
                && meta.uid() == file.owner.unwrap_or(0)
                && meta.len() == file.data.len() as u64
                && std::fs::read(&path).is_ok_and(|data| data == file.data);
            if !alike {
                return false;
            }
            seen += 1;
        }
    }
    seen == payload.len()
}

fn write_file(target: &Path, path: &str, file: &File, group: Option<u32>) -> Result<(), PayloadError> {
    let full = target.join(path);
    if let Some(parent) = Path::new(path).parent() {
        let mut current = target.to_path_buf();
        for part in parent.components() {
            current.push(part);
            if !current.exists() {
                std::fs::create_dir(&current).map_err(io_error("make", &current))?;
                set(&current, None, group, if group.is_some() { 0o2755 } else { 0o755 })?;
            }
        }
    }
    std::fs::write(&full, &file.data).map_err(io_error("write", &full))?;
    set(&full, file.owner, group, effective_mode(file, group))
}

/// Owner first: changing it clears set-id bits of the mode.
fn set(path: &Path, owner: Option<u32>, group: Option<u32>, mode: u32) -> Result<(), PayloadError> {
    if owner.is_some() || group.is_some() {
        chown(path, owner, group).map_err(io_error("change the owner of", path))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(io_error("change the mode of", path))
}

fn user_links(folder: &Path, payload: &Payload) -> Result<(), PayloadError> {
    let wanted = links(payload);
    for entry in std::fs::read_dir(folder).map_err(io_error("read", folder))?.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !name.starts_with("..") && !wanted.contains(&name) {
            std::fs::remove_file(entry.path()).map_err(io_error("remove", &entry.path()))?;
        }
    }
    for name in wanted {
        let link = folder.join(&name);
        if !link.is_symlink() {
            symlink(Path::new(DATA).join(&name), &link).map_err(io_error("link", &link))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(data: &str, mode: u32) -> File {
        File { data: data.as_bytes().to_vec(), mode, owner: None }
    }

    fn tops(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .flatten()
            .map(|e| e.file_name().into_string().unwrap())
            .filter(|name| !name.starts_with(".."))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_change_swaps_everything_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut payload: Payload =
            BTreeMap::from([("a".into(), file("1", 0o644)), ("d/b".into(), file("2", 0o400))]);
        assert!(write(dir.path(), &payload, None, "one").unwrap());
        assert!(!write(dir.path(), &payload, None, "two").unwrap(), "nothing changed");
        assert_eq!(std::fs::read_to_string(dir.path().join("d/b")).unwrap(), "2");
        assert_eq!(std::fs::metadata(dir.path().join("d/b")).unwrap().mode() & 0o777, 0o400);
        payload.insert("a".into(), file("3", 0o644));
        payload.remove("d/b");
        payload.insert("e".into(), file("", 0o644));
        assert!(write(dir.path(), &payload, None, "two").unwrap());
        assert_eq!(std::fs::read_to_string(dir.path().join("a")).unwrap(), "3");
        assert_eq!(tops(dir.path()), ["a", "e"]);
        assert_eq!(std::fs::read_link(dir.path().join(DATA)).unwrap(), Path::new("..two"));
        assert!(!dir.path().join("..one").exists());
        payload.get_mut("a").unwrap().mode = 0o600;
        assert!(write(dir.path(), &payload, None, "three").unwrap(), "a mode is a change");
    }

    #[test]
    fn a_half_written_update_is_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let payload: Payload = BTreeMap::from([("a".into(), file("1", 0o644))]);
        write(dir.path(), &payload, None, "one").unwrap();
        std::fs::create_dir(dir.path().join("..two")).unwrap();
        symlink("..two", dir.path().join(DATA_TMP)).unwrap();
        std::fs::remove_file(dir.path().join("a")).unwrap();
        assert!(write(dir.path(), &payload, None, "two").unwrap());
        assert_eq!(std::fs::read_to_string(dir.path().join("a")).unwrap(), "1");
    }

    #[test]
    fn the_group_may_read() {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED: changing owners needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let token = File { data: b"t".to_vec(), mode: 0o600, owner: Some(1234) };
        let payload: Payload = BTreeMap::from([("token".into(), token)]);
        assert!(write(dir.path(), &payload, Some(2000), "one").unwrap());
        let meta = std::fs::metadata(dir.path().join("token")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (1234, 2000, 0o640));
        assert!(!write(dir.path(), &payload, Some(2000), "two").unwrap());
    }

    #[test]
    fn paths_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../x", "/x", "a/../../x", "", "..data"] {
            let payload: Payload = BTreeMap::from([(path.to_owned(), file("1", 0o644))]);
            assert!(matches!(write(dir.path(), &payload, None, "one"), Err(PayloadError::Path(_))), "{path}");
        }
    }
}
