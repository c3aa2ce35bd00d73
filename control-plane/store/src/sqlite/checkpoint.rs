//! Moving the WAL into the database off the commit path.
//!
//! A thread with its own connection copies pages while writes go on (PASSIVE never waits for anyone). When it has nearly
//! caught up, the writer copies the few pages that are left between two turns; then everything is in the database and
//! the next write begins the WAL anew. So the WAL is bounded, and no write waits for more than those few pages.

use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;

/// The WAL is copied when it holds this part of the database's pages, within the bounds.
const PART: u64 = 8;
const LEAST: u64 = 256;
const MOST: u64 = 4096;
/// What the WAL's file keeps when it begins anew: half of the most, as it counts into what a small database takes.
pub(super) const WAL_BYTES: i64 = MOST as i64 * 4096 / 2;
/// Pages that the writer may copy itself at any time, and when the thread cannot get nearer.
const NEARLY: u64 = 64;
const AT_MOST: u64 = 256;
/// From here on the WAL's size matters more than what one write waits.
const TOO_LARGE: u64 = 2 * MOST;
/// Rounds in which the thread tries to catch up with the writer.
const ROUNDS: usize = 6;

/// Copies what it can without waiting; gives the pages in the WAL and how many of them are copied.
pub(super) fn passive(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    let (log, done) = connection.wal_checkpoint_v2(Some(rusqlite::MAIN_DB), CheckpointMode::PASSIVE)?;
    Ok((log.max(0) as u64, done.max(0) as u64))
}

/// Copies all and empties the WAL's file, unless a reader holds it.
pub(super) fn truncate(connection: &Connection) -> rusqlite::Result<()> {
    connection.wal_checkpoint_v2(Some(rusqlite::MAIN_DB), CheckpointMode::TRUNCATE).map(drop)
}

/// The thread's part. True if the writer should finish.
pub(super) fn catch_up(connection: &Connection) -> rusqlite::Result<bool> {
    let (mut log, mut left) = (0, u64::MAX);
    for _ in 0..ROUNDS {
        let (pages, done) = passive(connection)?;
        (log, left) = (pages, pages.saturating_sub(done));
        if left <= NEARLY {
            break;
        }
    }
    Ok(left <= AT_MOST || log >= TOO_LARGE)
}

/// When the WAL has grown enough to be copied.
pub(super) struct Trigger {
    due: u64,
    last: u64,
    /// The thread is at work, or its word is not yet heard: the writer must find the checkpoint lock free.
    running: bool,
}

impl Trigger {
    pub fn new() -> Trigger {
        Trigger { due: LEAST, last: 0, running: false }
    }

    /// Told of the WAL's pages after each turn; true when a checkpoint is to begin.
    pub fn observe(&mut self, wal_pages: u64, database_pages: impl FnOnce() -> u64) -> bool {
        if wal_pages < self.last {
            self.due = LEAST;
        }
        self.last = wal_pages;
        if wal_pages < self.due || self.running {
            return false;
        }
        let threshold = (database_pages() / PART).clamp(LEAST, MOST);
        if wal_pages < threshold {
            self.due = threshold;
            return false;
        }
        // If the WAL does not begin anew after this one, the next is not due at once.
        self.due = wal_pages + threshold / 4;
        self.running = true;
        true
    }

    /// The thread has done what it could.
    pub fn done(&mut self) {
        self.running = false;
    }
}
