//! The floors: what SQLite alone does on the same disk with the same guarantee; and what the machine is like, for the
//! figures that have no floor.

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

/// Nanoseconds of a load that waits for the one before, at random places in 8 MiB: more than a core has for itself. Processor time
/// of a server that touches much follows this more than anything else; 30 to 70 where a shared cache answers, 100 to 200
/// where memory does, or neighbours use the cache.
pub fn dependent_load_ns() -> f64 {
    const LINES: usize = (8 << 20) / 64;
    const LOADS: u32 = 1_000_000;
    // One cycle through all lines (Sattolo's shuffle).
    let mut order: Vec<u32> = (0..LINES as u32).collect();
    let mut state = 1u64;
    for last in (1..LINES).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(last, (state >> 33) as usize % last);
    }
    let mut lines = vec![[0u32; 16]; LINES];
    for (at, next) in order.iter().enumerate() {
        lines[at][0] = *next;
    }
    let mut at = 0;
    let begun = Instant::now();
    for _ in 0..LOADS {
        at = lines[at as usize][0];
    }
    std::hint::black_box(at);
    begun.elapsed().as_secs_f64() * 1e9 / f64::from(LOADS)
}

/// Microseconds from one thread's message until another that slept has it.
pub fn wake_us() -> f64 {
    const ROUNDS: u32 = 2_000;
    let (ask, asked) = std::sync::mpsc::channel::<()>();
    let (answer, answered) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || while asked.recv().is_ok() && answer.send(()).is_ok() {});
        let begun = Instant::now();
        for _ in 0..ROUNDS {
            let _ = ask.send(());
            let _ = answered.recv();
        }
        drop(ask);
        begun.elapsed().as_secs_f64() * 1e6 / f64::from(2 * ROUNDS)
    })
}
