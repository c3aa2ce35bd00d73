//! Rotation of container logs: a file that is too large is renamed, the runtime told to open a new one, all but the
//! newest rotated files deleted, and all but the newest of those compressed.
use crate::config::LogConfig;
use crate::cri::Cri;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io;
use std::path::{Path, PathBuf};

/// Rotates one running container's log if it is too large. Says whether it did.
pub async fn rotate(cri: &Cri, id: &str, path: &Path, config: &LogConfig) -> io::Result<bool> {
    let size = match tokio::fs::metadata(path).await {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A rotation that was cut short: the runtime still writes to the renamed file.
            let _ = cri.reopen_log(id).await;
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    if size < config.max_size {
        return Ok(false);
    }
    let (log, keep) = (path.to_path_buf(), config.max_files.max(2));
    tokio::task::spawn_blocking(move || tidy(&log, keep)).await.map_err(io::Error::other)??;
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let rotated = with_suffix(path, &stamp);
    tokio::fs::rename(path, &rotated).await?;
    if let Err(error) = cri.reopen_log(id).await {
        // Without a new file the old one must stay where it is read.
        tokio::fs::rename(&rotated, path).await?;
        return Err(io::Error::other(error.to_string()));
    }
    Ok(true)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// The rotated files of a log, oldest first (their suffixes are times).
fn rotated(path: &Path) -> Vec<PathBuf> {
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else { return vec![] };
    let prefix = format!("{name}.");
    let entries = path.parent().map(std::fs::read_dir).into_iter().flatten().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|n| n.starts_with(&prefix)))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Makes room for one more file, and compresses all rotated ones but the newest (which may still be read).
fn tidy(path: &Path, keep: usize) -> io::Result<()> {
    let mut files = rotated(path);
    files.retain(|file| {
        let unfinished = file.extension().is_some_and(|e| e == "tmp");
        if unfinished {
            let _ = std::fs::remove_file(file);
        }
        !unfinished
    });
    // The current file and the one it becomes count too.
    while files.len() > keep.saturating_sub(2) {
        std::fs::remove_file(files.remove(0))?;
    }
    for file in files.iter().filter(|file| file.extension().is_none_or(|e| e != "gz")) {
        compress(file)?;
    }
    Ok(())
}

fn compress(path: &Path) -> io::Result<()> {
    let temporary = with_suffix(path, "tmp");
    let mut encoder = GzEncoder::new(std::fs::File::create(&temporary)?, Compression::fast());
    io::copy(&mut std::fs::File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    std::fs::rename(&temporary, with_suffix(path, "gz"))?;
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_files_go_and_the_rest_is_compressed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        for suffix in ["20240101-000000.gz", "20240102-000000", "20240103-000000", "20240104-000000", "x.tmp"]
        {
            std::fs::write(with_suffix(&path, suffix), "text").unwrap();
        }
        std::fs::write(dir.path().join("1.log.20240101-000000"), "other").unwrap();
        tidy(&path, 5).unwrap();
        let names: Vec<String> =
            rotated(&path).iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        assert_eq!(
            names,
            ["0.log.20240102-000000.gz", "0.log.20240103-000000.gz", "0.log.20240104-000000.gz"]
        );
        assert!(dir.path().join("1.log.20240101-000000").exists());
    }
}
