//! What plain SQLite does on a folder: the floor that the store's figures are measured against.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

/// Commits `transactions` times `rows` rows of `bytes` bytes with synchronous=FULL in WAL mode, one thread, nothing else;
/// gives each transaction's time. Leaves nothing in the folder.
pub fn raw_commits(
    folder: &Path,
    transactions: usize,
    rows: usize,
    bytes: usize,
) -> rusqlite::Result<Vec<Duration>> {
    let path = folder.join(format!("floor-{}.db", std::process::id()));
    let result = commit_all(&path, transactions, rows, &"x".repeat(bytes));
    for end in ["", "-wal", "-shm"] {
        let mut name = path.clone().into_os_string();
        name.push(end);
        // What is not there need not go; what stays is a file in the caller's folder and harms nothing.
        let _ = std::fs::remove_file(name);
    }
    result
}

fn commit_all(path: &Path, transactions: usize, rows: usize, value: &str) -> rusqlite::Result<Vec<Duration>> {
    let connection = Connection::open(path)?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch("CREATE TABLE row (id INTEGER PRIMARY KEY, value TEXT)")?;
    let mut insert = connection.prepare("INSERT INTO row (value) VALUES (?1)")?;
    let mut times = Vec::with_capacity(transactions);
    for _ in 0..transactions {
        let began = Instant::now();
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for _ in 0..rows {
            insert.execute(params![value])?;
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        times.push(began.elapsed());
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    #[test]
    fn measures_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let times = super::raw_commits(folder.path(), 5, 2, 100).unwrap();
        assert_eq!(times.len(), 5);
        assert!(times.iter().all(|time| !time.is_zero()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
