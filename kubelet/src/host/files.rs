//! Files that are replaced whole: a temporary one beside, then a rename.
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Writes `data` to `path` with `mode`, whatever was there; readers see the old or the new content, never a part.
pub fn replace(path: &Path, data: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let _ = std::fs::remove_file(&temporary);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.write_all(data)?;
    drop(file);
    std::fs::rename(&temporary, path)
}

/// Writes only what differs.
pub fn replace_if_changed(path: &Path, data: &[u8], mode: u32) -> io::Result<()> {
    if std::fs::read(path).is_ok_and(|now| now == data) { Ok(()) } else { replace(path, data, mode) }
}

/// Makes a folder and sets its mode whatever the umask.
pub fn folder(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}
