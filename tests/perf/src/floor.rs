//! The floors: what SQLite alone does on the same disk with the same guarantee.

use anyhow::Result;
use rusqlite::Connection;
use std::path::Path;
use std::time::{Duration, Instant};

fn open(folder: &Path) -> Result<Connection> {
    let database = Connection::open(folder.join("floor.db"))?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    database.execute_batch("create table if not exists kv (id integer primary key, key text, value text)")?;
    Ok(database)
}

/// Milliseconds of each one-row commit, paced at `per_second` (0: as fast as it goes).
pub fn one_row_commits(folder: &Path, count: usize, per_second: u32) -> Result<Vec<f64>> {
    let mut database = open(folder)?;
    let value = "x".repeat(1024);
    let begun = Instant::now();
    let mut samples = Vec::with_capacity(count);
    for index in 0..count {
        if per_second > 0 {
            let due = begun + Duration::from_secs_f64(index as f64 / f64::from(per_second));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let started = Instant::now();
        insert(&mut database, 1, &value)?;
        samples.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(samples)
}

/// Rows per second with `rows` rows a transaction.
pub fn grouped_rows_per_second(folder: &Path, rows: usize, duration: Duration) -> Result<f64> {
    let mut database = open(folder)?;
    let value = "x".repeat(1024);
    let begun = Instant::now();
    let mut written = 0;
    while begun.elapsed() < duration {
        insert(&mut database, rows, &value)?;
        written += rows;
    }
    Ok(written as f64 / begun.elapsed().as_secs_f64())
}

fn insert(database: &mut Connection, rows: usize, value: &str) -> Result<()> {
    let transaction = database.transaction()?;
    {
        let mut statement = transaction.prepare_cached("insert into kv (key, value) values (?1, ?2)")?;
        for _ in 0..rows {
            statement.execute(("/registry/configmaps/bench/one", value))?;
        }
    }
    Ok(transaction.commit()?)
}
