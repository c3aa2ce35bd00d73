//! The formats of a database, the steps between them, and the way back.
//!
//! A step and the number of the format it leads to are one transaction: a crash leaves the one format or the other. Every
//! format keeps `log`, `meta` and `objects` readable for the formats around it, so that a snapshot can be taken of a database
//! before it is brought up to date.

use std::path::Path;

use rusqlite::Connection;

use super::site::{self, Folder, Site};
use super::{OpenError, expiry, schema};

/// From one format to the next, and back where that loses nothing that is served.
struct Step {
    up: &'static str,
    down: &'static str,
}

const STEPS: &[Step] = &[
    // 2: keys that expire. Without the table they stay.
    Step { up: expiry::CREATE, down: "DROP TABLE expiry" },
    // 3, of builds that try an upgrade: how many keys each resource has, counted from what is there.
    #[cfg(feature = "next-format")]
    Step {
        up: "CREATE TABLE counted (prefix TEXT PRIMARY KEY, keys INTEGER NOT NULL) WITHOUT ROWID;
             INSERT INTO counted
                SELECT substr(key, 1, instr(substr(key, 11), '/') + 9), count(*) FROM objects
                WHERE key GLOB '/registry/*/*' GROUP BY 1;",
        down: "DROP TABLE counted",
    },
];

/// The format that this code reads and writes.
pub const FORMAT: i32 = 1 + STEPS.len() as i32;

/// Whether this code can bring a database of `format` up to date, or has nothing to do.
pub(super) fn known(format: i32) -> bool {
    (1..=FORMAT).contains(&format)
}

/// Makes what a new database has beside `log` and `meta`.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    STEPS.iter().try_for_each(|step| connection.execute_batch(step.up))?;
    connection.pragma_update(None, "user_version", FORMAT)
}

/// Takes the steps between two formats that this code knows, in either direction.
pub(super) fn go(connection: &mut Connection, from: i32, to: i32) -> rusqlite::Result<()> {
    let steps = |from: i32, to: i32| {
        let all = STEPS.iter().zip(2i32..);
        all.filter(move |(_, leads_to)| (from + 1..=to).contains(leads_to))
    };
    let mut one = |sql: &str, format: i32| {
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", format)?;
        transaction.commit()
    };
    for (step, leads_to) in steps(from, to) {
        one(step.up, leads_to)?;
    }
    for (step, leads_to) in steps(to, from).collect::<Vec<_>>().into_iter().rev() {
        one(step.down, leads_to - 1)?;
    }
    Ok(())
}

/// The format of a store's database, of whatever version; `None` where there is none yet.
pub fn format(folder: &Path) -> Result<Option<i32>, OpenError> {
    let failed = |source| OpenError::Database { source };
    let path = folder.join(site::DATABASE);
    if std::fs::metadata(&path).map_or(0, |found| found.len()) == 0 {
        return Ok(None);
    }
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags).map_err(failed)?;
    connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(failed)?;
    site::keep_wal_at_close(&connection).map_err(failed)?;
    let found: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    Ok((found != 0).then_some(found))
}

/// Takes a database that nobody serves to another format that this code knows: the way back before an older version is
/// started. The format it had.
pub fn convert(folder: &Path, to: i32) -> Result<i32, OpenError> {
    let failed = |source| OpenError::Database { source };
    if !known(to) {
        return Err(OpenError::Format { found: to, known: FORMAT });
    }
    let site = Folder::open(folder, 0)?;
    site.settle().map_err(|source| OpenError::Folder { path: folder.to_owned(), source })?;
    let mut connection = site.connect(true).map_err(failed)?;
    let from = schema::look(&connection)?.format;
    if from == to {
        return Ok(from);
    }
    let mode: String =
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(OpenError::NoWal);
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    go(&mut connection, from, to).map_err(failed)?;
    // As a clean end: one file, all of it synced.
    connection.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).map_err(failed)?;
    Ok(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(connection: &Connection) -> i32 {
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn steps_lead_there_and_back_and_a_failed_one_changes_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(schema::CREATE).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        let tables = |connection: &Connection| -> Vec<String> {
            let mut found = connection.prepare("SELECT name FROM sqlite_schema ORDER BY name").unwrap();
            found.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        let first = tables(&connection);
        go(&mut connection, 1, FORMAT).unwrap();
        assert_eq!(version(&connection), FORMAT);
        let newest = tables(&connection);
        assert!(newest.contains(&"expiry".to_owned()), "{newest:?}");
        go(&mut connection, FORMAT, 1).unwrap();
        assert_eq!((version(&connection), tables(&connection)), (1, first));

        // What is in the way of the step to format 2 leaves format 1.
        connection.execute_batch("CREATE TABLE expiry_at (x)").unwrap();
        go(&mut connection, 1, FORMAT).unwrap_err();
        assert_eq!(version(&connection), 1);
        assert!(!tables(&connection).contains(&"expiry".to_owned()));
    }
}
