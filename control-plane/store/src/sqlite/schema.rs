//! The database's form: one append-only table of revisions.
//!
//! A row's `id` is `revision << 8 | index << 1 | deleted`: rows are in the order of the writes, the newest revision is
//! that of the greatest id, and the index over keys (which holds the id) tells what a prefix holds at a revision without
//! reading a value. The row with the greatest id is never compacted, so the revision survives. `created` is the
//! revision at which the key came to be. Revisions in the database start at 1 and are told to the world with
//! `meta.base` added: a restored database raises the base, and no revision is handed out twice. Beside it a table of the
//! keys that expire ([`super::expiry`]) and what later formats add ([`formats`]).

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension};

use super::{OpenError, formats};
use crate::Revision;

/// "KLSN"
const APPLICATION_ID: i32 = 0x4b4c_534e;
/// What every format has.
pub(super) const CREATE: &str = "
CREATE TABLE log (
    id INTEGER PRIMARY KEY,
    created INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT
);
CREATE INDEX log_key ON log (key);
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    base INTEGER NOT NULL,
    floor INTEGER NOT NULL,
    cursor INTEGER NOT NULL
);
INSERT INTO meta VALUES (1, 0, 0, 0);
CREATE VIEW objects AS
    SELECT key, (id >> 8) + (SELECT base FROM meta) AS revision, value FROM log AS newest
    WHERE (id & 1) = 0 AND id = (SELECT max(id) FROM log WHERE key = newest.key);
";

/// The first row id of a revision (in the database's count).
pub(super) fn first_id(revision: u64) -> i64 {
    (revision << 8) as i64
}

/// The last row id a revision can have.
pub(super) fn last_id(revision: u64) -> i64 {
    (revision << 8 | 0xff) as i64
}

pub(super) fn row_id(revision: u64, index: usize, deleted: bool) -> i64 {
    (revision << 8 | (index as u64) << 1 | u64::from(deleted)) as i64
}

pub(super) fn revision_of(id: i64) -> u64 {
    (id >> 8) as u64
}

pub(super) fn is_deleted(id: i64) -> bool {
    id & 1 == 1
}

/// What the one row of `meta` says, and the newest revision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    pub base: Revision,
    /// The oldest revision (in the database's count) at which lists are whole.
    pub floor: u64,
    /// Rows up to this id have been looked at by compactions.
    pub cursor: i64,
    pub revision: u64,
}

pub(super) fn read_meta(connection: &Connection) -> rusqlite::Result<Meta> {
    let sql = "SELECT base, floor, cursor, (SELECT max(id) FROM log) FROM meta";
    connection.prepare_cached(sql)?.query_row([], |row| {
        let newest: Option<i64> = row.get(3)?;
        Ok(Meta {
            base: row.get::<_, i64>(0)? as u64,
            floor: row.get::<_, i64>(1)? as u64,
            cursor: row.get(2)?,
            revision: newest.map_or(1, revision_of),
        })
    })
}

/// What a file holds.
pub(super) struct Look {
    /// It has tables; a new file has none.
    pub filled: bool,
    pub format: i32,
}

/// Looks at a file, and refuses what is not ours or of a format that this code does not know.
pub(super) fn look(connection: &Connection) -> Result<Look, OpenError> {
    let failed = |source| OpenError::Database { source };
    // The first statement that reads the file: a file that is no database fails here.
    let format: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    let application: i32 =
        connection.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(failed)?;
    let filled = connection
        .query_row("SELECT 1 FROM sqlite_schema LIMIT 1", [], |_| Ok(()))
        .optional()
        .map_err(failed)?
        .is_some();
    if filled && application != APPLICATION_ID {
        return Err(OpenError::NotOurs);
    }
    if (filled || format != 0) && !(filled && formats::known(format)) {
        return Err(OpenError::Format { found: format, known: formats::FORMAT });
    }
    Ok(Look { filled, format })
}

/// Brings a writing connection into its mode and makes the tables of a new database.
pub(super) fn prepare_writer(connection: &mut Connection, synchronous: &str) -> Result<Meta, OpenError> {
    let failed = |source| OpenError::Database { source };
    let Look { filled, format } = look(connection)?;
    if !filled {
        // Before the first table: it cannot be turned on later without rewriting the file.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(failed)?;
    }
    set_up(connection, -4096).map_err(failed)?;
    let mode: String =
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(OpenError::NoWal);
    }
    connection.pragma_update(None, "synchronous", synchronous).map_err(failed)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(failed)?;
    // A commit into space that the file has costs half of one that makes it longer.
    connection.pragma_update(None, "journal_size_limit", super::checkpoint::WAL_BYTES).map_err(failed)?;
    if !filled {
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(CREATE).map_err(failed)?;
        formats::create(&transaction).map_err(failed)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
        transaction.commit().map_err(failed)?;
    } else {
        formats::go(connection, format, formats::FORMAT).map_err(failed)?;
    }
    read_meta(connection).map_err(failed)
}

/// What holds for every connection.
pub(super) fn set_up(connection: &Connection, cache_size: i32) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(32);
    // Else a prepared statement is made anew whenever it is given another value to compare with, in search of a plan that
    // our statements do not need: a quarter of what a commit costs.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "cache_size", cache_size)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "mmap_size", 0)
}
