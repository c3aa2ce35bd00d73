//! Steps of compaction and vacuum: each is bounded and runs inside a transaction of the writer.

use rusqlite::{Connection, params};

use super::schema::{self, Meta, is_deleted, last_id};

/// Free pages that are kept for coming writes: at least so many, and this part of the database. Few in tests.
const KEEP_FREE: u32 = if cfg!(test) { 4 } else { 64 };
const KEEP_PART: u32 = 16;

/// What a compaction step is to do.
pub(super) struct Compaction {
    /// The revision up to which history goes (in the database's count, as all here).
    pub target: u64,
    /// The newest revision, this transaction's writes included.
    pub newest: u64,
    /// Rows to look at, at most.
    pub rows: usize,
    /// Test only: takes live rows too, a mutant that the suite must catch.
    #[cfg(test)]
    pub takes_live: bool,
}

/// Looks at the next rows up to the target: each makes the older rows of its key garbage, a tombstone itself too. True
/// when the target is reached.
pub(super) fn compact(connection: &Connection, meta: &mut Meta, step: &Compaction) -> rusqlite::Result<bool> {
    let end = last_id(step.target);
    let found = next_rows(connection, meta.cursor, end, step.rows)?;
    let mut cursor = if found.len() < step.rows { end } else { found.last().map_or(end, |(id, _)| *id) };
    for (id, key) in found {
        let sql = "DELETE FROM log WHERE key = ?1 AND id < ?2";
        #[cfg(test)]
        let sql = if step.takes_live { "DELETE FROM log WHERE key = ?1 AND id <= ?2" } else { sql };
        connection.prepare_cached(sql)?.execute(params![key, id])?;
        if !is_deleted(id) {
            continue;
        }
        // The row of the newest revision stays, and is looked at again by the next compaction.
        if schema::revision_of(id) == step.newest {
            cursor = cursor.min(id - 1);
        } else {
            connection.prepare_cached("DELETE FROM log WHERE id = ?1")?.execute([id])?;
        }
    }
    connection
        .prepare_cached("UPDATE meta SET floor = ?1, cursor = ?2")?
        .execute(params![step.target as i64, cursor])?;
    meta.floor = step.target;
    meta.cursor = cursor;
    let at_newest = step.target == step.newest && cursor >= schema::first_id(step.newest) - 1;
    Ok(cursor >= end || at_newest)
}

fn next_rows(
    connection: &Connection,
    after: i64,
    end: i64,
    most: usize,
) -> rusqlite::Result<Vec<(i64, String)>> {
    let sql = "SELECT id, key FROM log WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![after, end, most as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// Gives at most `most` free pages at the end of the file back, but keeps some unless space is `short`. True when there
/// is more to give.
pub(super) fn vacuum(connection: &Connection, most: u32, short: bool) -> rusqlite::Result<bool> {
    let (pages, free) = pages(connection)?;
    let keep = if short { 0 } else { KEEP_FREE.max(pages / KEEP_PART) };
    let step = free.saturating_sub(keep).min(most);
    if step > 0 {
        let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({step})"))?;
        let mut rows = statement.query([])?;
        // Each step of the statement gives one page back.
        while rows.next()?.is_some() {}
    }
    Ok(free.saturating_sub(keep) > most)
}

/// The database's pages, and how many of them are free.
pub(super) fn pages(connection: &Connection) -> rusqlite::Result<(u32, u32)> {
    let count = |pragma: &str| connection.prepare_cached(pragma)?.query_row([], |row| row.get(0));
    Ok((count("PRAGMA page_count")?, count("PRAGMA freelist_count")?))
}
