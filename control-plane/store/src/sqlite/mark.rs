//! The mark of a clean end, which spares the next start the look through the whole file (1 ms for each MiB).
//!
//! The end writes a moment into the database and then makes it the time at which the file was last changed. Whoever writes
//! to the file afterwards, or copies it, moves that time; whoever opens the store does too, as its mode changes. So the two
//! agree only while the file is as the end left it. What a disk loses by itself is met by the pages' readers: a store in
//! which they found damage has no clean end.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension};

use super::site::Site;

const CREATE: &str =
    "CREATE TABLE IF NOT EXISTS ended (id INTEGER PRIMARY KEY CHECK (id = 1), at INTEGER NOT NULL)";

/// What the file says of itself before anything of it is opened: the time of its last change, in nanoseconds since 1970.
pub(super) fn of_file(site: &dyn Site) -> Option<i64> {
    if site.has_wal() { None } else { site.changed() }
}

/// Whether the database is as a clean end left it; `of_file` is from before it was opened.
pub(super) fn holds(connection: &Connection, of_file: Option<i64>) -> bool {
    let Some(changed) = of_file else { return false };
    // A database without the table was never ended by who makes marks; one that cannot be read is looked through.
    let at = connection.query_row("SELECT at FROM ended", [], |row| row.get::<_, i64>(0)).optional();
    at.is_ok_and(|at| at == Some(changed))
}

/// Writes the moment into the database that is about to be ended.
pub(super) fn write(connection: &Connection) -> rusqlite::Result<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
    connection.execute_batch(CREATE)?;
    connection.execute("INSERT OR REPLACE INTO ended (id, at) VALUES (1, ?1)", [at])?;
    Ok(at)
}
