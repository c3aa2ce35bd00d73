//! Reading a database beside the process that serves it, or one that nobody serves: for snapshots and for looking.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::read::{self, ListRequest, ReadError};
use super::{OpenError, describe, schema, site};
use crate::{Page, Revision, StoreError};

/// A connection that changes nothing. Each page is one short read transaction, which holds no checkpoint up.
pub struct SqliteReader {
    connection: Connection,
}

impl SqliteReader {
    /// Opens the database of a store's folder; one that is missing or of another format is refused.
    pub fn open(folder: &Path) -> Result<SqliteReader, OpenError> {
        let failed = |source| OpenError::Database { source };
        // What a crash left in the WAL is only seen by who may write the WAL's index.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE;
        let connection = Connection::open_with_flags(folder.join(site::DATABASE), flags).map_err(failed)?;
        connection.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
        // A WAL is copied by the server's own recovery alone, which syncs it first.
        site::keep_wal_at_close(&connection).map_err(failed)?;
        if !schema::look(&connection)?.filled {
            return Err(OpenError::NotOurs);
        }
        schema::set_up(&connection, -1024).map_err(failed)?;
        Ok(SqliteReader { connection })
    }

    /// All keys after `after` in order, some hundreds at a time, at revision `at` or the newest. As with
    /// [`crate::Store::list`], a revision that was compacted meanwhile is an error.
    pub fn page(&self, after: Option<&str>, at: Option<Revision>) -> Result<Page, StoreError> {
        let prefix = "/".to_owned();
        let from = after.map_or_else(|| prefix.clone(), read::above);
        let mut request = ListRequest { prefix, from, at, wanted: usize::MAX };
        loop {
            let chunk = read::list(&self.connection, &request).map_err(|error| match error {
                ReadError::Store(error) => error,
                ReadError::Sqlite(error) => StoreError::Database(describe(&error)),
            })?;
            match chunk.next {
                // Nothing but keys that are gone.
                Some(next) if chunk.entries.is_empty() => {
                    request.from = next;
                    request.at = Some(chunk.revision);
                }
                next => {
                    return Ok(Page {
                        more: next.is_some(),
                        entries: chunk.entries,
                        revision: chunk.revision,
                        count: chunk.counted,
                    });
                }
            }
        }
    }

    /// What is wrong with the file's structure, if anything is.
    pub fn damage(&self) -> Option<String> {
        damage(&self.connection)
    }
}

/// Walks all pages of the database. `Some` says what is wrong.
pub(super) fn damage(connection: &Connection) -> Option<String> {
    let found: Result<String, _> = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
    match found {
        Ok(text) if text == "ok" => None,
        Ok(text) => Some(text),
        Err(error) => Some(describe(&error)),
    }
}
