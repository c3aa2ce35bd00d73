//! Reads in bounded chunks: each function is one short read transaction, so that none holds a checkpoint up for long.

use bytes::Bytes;
use rusqlite::{Connection, Row};

use super::schema::{self, Meta, is_deleted, revision_of};
use crate::hub::Changes;
use crate::keys::prefix_end;
use crate::{Entry, Event, Revision, StoreError};

/// Index rows looked at in one chunk. All of these are small in tests, so that their bounds are met.
const CHUNK_ROWS: usize = if cfg!(test) { 23 } else { 4096 };
/// Entries and bytes of values read in one chunk.
const CHUNK_ENTRIES: usize = if cfg!(test) { 11 } else { 512 };
const CHUNK_BYTES: usize = if cfg!(test) { 20_000 } else { 1 << 20 };
/// Rows of history looked at in one chunk.
const CHUNK_HISTORY: usize = if cfg!(test) { 17 } else { 1024 };

/// Why a read gave no answer.
pub(super) enum ReadError {
    Sqlite(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> ReadError {
        ReadError::Sqlite(error)
    }
}

/// Runs `read` in a read transaction of its own.
pub(super) fn in_transaction<T>(
    connection: &Connection,
    read: impl FnOnce(&Connection, &Meta) -> Result<T, ReadError>,
) -> Result<T, ReadError> {
    connection.prepare_cached("BEGIN")?.execute([])?;
    let result =
        schema::read_meta(connection).map_err(ReadError::from).and_then(|meta| read(connection, &meta));
    let ended = connection.prepare_cached("COMMIT").and_then(|mut end| end.execute([]));
    if ended.is_err() && !connection.is_autocommit() {
        // A read transaction cannot fail to end in a way that matters to its result; it must only not stay open.
        let _ = connection.execute_batch("ROLLBACK");
    }
    result
}

fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Bytes>> {
    let value = row.get_ref(column)?;
    Ok(value.as_bytes_or_null().map_err(rusqlite::Error::from)?.map(Bytes::copy_from_slice))
}

/// The newest version of a key as `(id, entry)`; a tombstone has no entry.
pub(super) fn newest(
    connection: &Connection,
    base: Revision,
    key: &str,
    below: i64,
) -> rusqlite::Result<Option<Entry>> {
    let sql = "SELECT id, created, value FROM log INDEXED BY log_key WHERE key = ?1 AND id < ?2 \
               ORDER BY id DESC LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(rusqlite::params![key, below])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let id: i64 = row.get(0)?;
    let Some(value) = bytes(row, 2)? else { return Ok(None) };
    Ok(Some(Entry {
        key: key.to_owned(),
        value,
        create_revision: row.get::<_, i64>(1)? as u64 + base,
        mod_revision: revision_of(id) + base,
    }))
}

/// A key's value and the revision it is read at.
pub(super) fn get(connection: &Connection, key: &str) -> Result<(Option<Entry>, Revision), ReadError> {
    in_transaction(connection, |connection, meta| {
        let entry = newest(connection, meta.base, key, i64::MAX)?;
        Ok((entry, meta.revision + meta.base))
    })
}

/// A part of a list.
pub(super) struct ListChunk {
    pub entries: Vec<Entry>,
    /// Live keys passed, the entries among them.
    pub counted: u64,
    pub revision: Revision,
    /// Where the next chunk begins; `None` at the end of the prefix.
    pub next: Option<String>,
}

/// What a chunk of a list asks for.
pub(super) struct ListRequest {
    pub prefix: String,
    /// The first key that may be in the chunk.
    pub from: String,
    pub at: Option<Revision>,
    /// Entries wanted; 0: only count.
    pub wanted: usize,
}

/// Checks that a revision can be read, and gives it in the database's count.
fn inner_revision(meta: &Meta, at: Option<Revision>) -> Result<u64, StoreError> {
    let Some(at) = at else { return Ok(meta.revision) };
    if at < meta.floor + meta.base {
        return Err(StoreError::Compacted { requested: at, oldest: meta.floor + meta.base });
    }
    if at > meta.revision + meta.base {
        return Err(StoreError::Future { requested: at, current: meta.revision + meta.base });
    }
    Ok(at - meta.base)
}

pub(super) fn list(connection: &Connection, request: &ListRequest) -> Result<ListChunk, ReadError> {
    in_transaction(connection, |connection, meta| {
        let revision = inner_revision(meta, request.at).map_err(ReadError::Store)?;
        let wanted = request.wanted.min(CHUNK_ENTRIES);
        let scan = scan(connection, request, revision, wanted)?;
        let mut chunk = ListChunk {
            entries: Vec::with_capacity(scan.ids.len()),
            counted: scan.counted,
            revision: revision + meta.base,
            next: scan.next,
        };
        let mut statement = connection.prepare_cached("SELECT created, value, key FROM log WHERE id = ?1")?;
        let mut read = 0;
        let total = scan.ids.len();
        for (index, id) in scan.ids.into_iter().enumerate() {
            let mut rows = statement.query([id])?;
            let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
            let value = bytes(row, 1)?.unwrap_or_default();
            read += value.len();
            chunk.entries.push(Entry {
                key: row.get(2)?,
                value,
                create_revision: row.get::<_, i64>(0)? as u64 + meta.base,
                mod_revision: revision_of(id) + meta.base,
            });
            if read >= CHUNK_BYTES && index + 1 < total {
                // Large values: the rest of what was scanned is left to the next chunk.
                chunk.counted = chunk.entries.len() as u64;
                chunk.next = chunk.entries.last().map(|entry| above(&entry.key));
                break;
            }
        }
        Ok(chunk)
    })
}

/// The least key above `key`.
pub(super) fn above(key: &str) -> String {
    let mut next = String::with_capacity(key.len() + 1);
    next.push_str(key);
    next.push('\0');
    next
}

struct Scan {
    ids: Vec<i64>,
    counted: u64,
    next: Option<String>,
}

/// Walks the index: per key the newest id not above the revision, unless that is a tombstone.
fn scan(
    connection: &Connection,
    request: &ListRequest,
    revision: u64,
    wanted: usize,
) -> rusqlite::Result<Scan> {
    let end = prefix_end(&request.prefix);
    let sql = match end {
        Some(_) => "SELECT key, id FROM log INDEXED BY log_key WHERE key >= ?1 AND key < ?2 ORDER BY key, id",
        None => "SELECT key, id FROM log INDEXED BY log_key WHERE key >= ?1 AND ?2 IS NULL ORDER BY key, id",
    };
    let bound = schema::last_id(revision);
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(rusqlite::params![request.from, end])?;
    let mut scan = Scan { ids: Vec::new(), counted: 0, next: None };
    let mut key = String::new();
    let mut newest = None;
    let mut seen = 0;
    loop {
        let row = rows.next()?;
        let row_key = match &row {
            Some(row) => Some(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?),
            None => None,
        };
        if row_key != Some(key.as_str()) {
            if let Some(id) = newest.take().filter(|id| !is_deleted(*id)) {
                scan.counted += 1;
                if wanted > 0 {
                    scan.ids.push(id);
                }
            }
            let full = wanted > 0 && scan.ids.len() >= wanted;
            match row_key {
                None => return Ok(scan),
                Some(row_key) if full || seen >= CHUNK_ROWS => {
                    scan.next = Some(row_key.to_owned());
                    return Ok(scan);
                }
                Some(row_key) => {
                    key.clear();
                    key.push_str(row_key);
                }
            }
        }
        if let Some(row) = row {
            let id: i64 = row.get(1)?;
            if id <= bound {
                newest = Some(id);
            }
        }
        seen += 1;
    }
}

/// A stretch of history under a prefix.
pub(super) fn changes(connection: &Connection, prefix: &str, after: Revision) -> Result<Changes, ReadError> {
    in_transaction(connection, |connection, meta| {
        if after < meta.floor + meta.base {
            let oldest = meta.floor + meta.base;
            return Err(ReadError::Store(StoreError::Compacted { requested: after, oldest }));
        }
        let current = meta.revision + meta.base;
        let mut changes = Changes { events: Vec::new(), upto: current };
        if after >= current {
            return Ok(changes);
        }
        let mut statement =
            connection.prepare_cached("SELECT id, key, value FROM log WHERE id > ?1 ORDER BY id")?;
        let mut rows = statement.query([schema::last_id(after - meta.base)])?;
        let (mut seen, mut read, mut last) = (0, 0, 0);
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let revision = revision_of(id);
            if revision != last && (seen >= CHUNK_HISTORY || read >= CHUNK_BYTES) {
                changes.upto = last + meta.base;
                break;
            }
            (last, seen) = (revision, seen + 1);
            let key = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
            if !key.starts_with(prefix) {
                continue;
            }
            let value = bytes(row, 2)?;
            let prev = newest(connection, meta.base, key, schema::first_id(revision))?;
            read += value.as_ref().map_or(0, Bytes::len) + prev.as_ref().map_or(0, |prev| prev.value.len());
            changes.events.push(Event { revision: revision + meta.base, key: key.to_owned(), value, prev });
        }
        Ok(changes)
    })
}
