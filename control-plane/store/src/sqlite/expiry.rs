//! Keys that expire: when, by the machine's clock, so that a restart changes nothing.
//!
//! Moments are rounded up, so that keys written one after the other go in one turn: nothing wakes an idle store more
//! often than once a minute for keys that live for an hour.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, params};

/// Keys deleted in one turn.
pub(super) const AT_ONCE: usize = if cfg!(test) { 5 } else { 128 };
/// Moments are rounded up to a twentieth of the time to live, at most this.
const ROUNDED: Duration = Duration::from_secs(60);

pub(super) const CREATE: &str = "
CREATE TABLE expiry (key TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX expiry_at ON expiry (at);
";

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// When a key that is written at `now` goes.
fn moment(now: i64, ttl: Duration) -> i64 {
    let step = (ttl / 20).min(ROUNDED).as_secs().max(1) as i64;
    let least = now.saturating_add(ttl.as_secs() as i64).saturating_add(1);
    least.saturating_add(step - 1) / step * step
}

/// When the first key goes; `None` when no key expires.
pub(super) fn next(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT at FROM expiry ORDER BY at LIMIT 1";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()
}

/// Keys whose time has come.
pub(super) fn due(connection: &Connection, now: i64) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT key FROM expiry WHERE at <= ?1 ORDER BY at LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_map(params![now, AT_ONCE as i64], |row| row.get(0))?.collect()
}

/// A key expires from now on; gives the moment.
pub(super) fn set(connection: &Connection, key: &str, ttl: Duration) -> rusqlite::Result<i64> {
    let at = moment(now(), ttl);
    let sql = "INSERT OR REPLACE INTO expiry (key, at) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute(params![key, at])?;
    Ok(at)
}

/// A key expires no longer.
pub(super) fn clear(connection: &Connection, key: &str) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM expiry WHERE key = ?1")?.execute([key]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_late_and_shared() {
        let hour = Duration::from_secs(3600);
        for now in [0, 1, 59, 60, 1_700_000_123] {
            let at = moment(now, hour);
            assert!((now + 3601..=now + 3660).contains(&at) && at % 60 == 0, "{now} {at}");
            let at = moment(now, Duration::from_secs(1));
            assert_eq!(at, now + 2);
        }
    }
}
