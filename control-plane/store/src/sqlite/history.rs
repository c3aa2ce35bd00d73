//! How long history is kept: by time, and by size when writes outgrow it. Pure: the time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// History is kept for the retention while it is smaller than half the live data or this.
const LEAST_BYTES: u64 = 8 << 20;
/// Between two marks: this part of the retention, or so many bytes.
const MARKS: u32 = 20;
const MARK_BYTES: u64 = 1 << 20;

/// A point of the history: when it was, and how much had been superseded by then.
struct Mark {
    at: Instant,
    revision: u64,
    written: u64,
}

/// What the writer knows of its past. Marks are few: one a twentieth of the retention, or one a MiB.
pub(super) struct History {
    marks: VecDeque<Mark>,
    written: u64,
    retention: Duration,
}

impl History {
    pub fn new(retention: Duration, now: Instant, revision: u64) -> History {
        let marks = VecDeque::from([Mark { at: now, revision, written: 0 }]);
        History { marks, written: 0, retention }
    }

    /// So many bytes of old versions have come to be.
    pub fn wrote(&mut self, bytes: u64) {
        self.written += bytes;
    }

    /// Remembers the moment, if the last mark is old enough.
    pub fn note(&mut self, now: Instant, revision: u64) {
        let due = self.marks.back().is_none_or(|last| {
            last.revision != revision
                && (now.duration_since(last.at) >= self.retention / MARKS
                    || self.written - last.written >= MARK_BYTES)
        });
        if due {
            self.marks.push_back(Mark { at: now, revision, written: self.written });
        }
    }

    /// The newest revision that the retention has passed since.
    pub fn expired(&mut self, now: Instant) -> Option<u64> {
        let past = self.marks.iter().take_while(|mark| now.duration_since(mark.at) >= self.retention).count();
        // The last of them stays: what was the newest revision then is so until the next mark.
        self.marks.drain(..past.saturating_sub(1));
        (past > 0).then(|| self.marks[0].revision)
    }

    /// Bytes of history above a compacted revision.
    fn kept(&self, compacted: u64) -> u64 {
        let from = self.marks.iter().rfind(|mark| mark.revision <= compacted).map_or(0, |mark| mark.written);
        self.written - from
    }

    /// Whether the size must be looked at.
    pub fn is_large(&self, compacted: u64) -> bool {
        self.kept(compacted) >= LEAST_BYTES
    }

    /// The revision that halves a history that has outgrown the live data; `used` are the bytes of both.
    pub fn excess(&mut self, compacted: u64, used: u64) -> Option<u64> {
        let kept = self.kept(compacted);
        if kept < LEAST_BYTES || kept < used.saturating_sub(kept) / 2 {
            return None;
        }
        let half = self.written - kept / 2;
        let index = self.marks.iter().position(|mark| mark.written >= half)?;
        self.marks.drain(..index);
        Some(self.marks[0].revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn forgets_what_is_older_than_the_retention() {
        let start = Instant::now();
        let mut history = History::new(300 * SECOND, start, 1);
        for second in 1..=1000u32 {
            history.note(start + second * SECOND, 1 + u64::from(second));
        }
        assert!(history.marks.len() < 100);
        let expired = history.expired(start + 1000 * SECOND).unwrap();
        assert!((680..=701).contains(&expired), "{expired}");
        assert!(history.marks.len() <= 22);
        // Idle: all of it in the end, and no more marks.
        for second in 1001..5000u32 {
            history.note(start + second * SECOND, 1001);
        }
        let expired = history.expired(start + 5000 * SECOND).unwrap();
        assert!((980..=1001).contains(&expired), "{expired}");
        assert!(history.marks.len() <= 2);
    }

    #[test]
    fn keeps_less_when_writes_outgrow_the_live_data() {
        let start = Instant::now();
        let mut history = History::new(300 * SECOND, start, 1);
        for revision in 2..=20_000 {
            history.wrote(1000);
            history.note(start, revision);
        }
        assert!(history.is_large(1));
        assert_eq!(history.excess(1, 100 << 20), None);
        let cut = history.excess(1, 40 << 20).unwrap();
        assert!((9_000..12_000).contains(&cut), "{cut}");
        assert!((8..12).contains(&(history.kept(cut) >> 20)));
        let mut small = History::new(300 * SECOND, start, 1);
        small.wrote(4 << 20);
        assert!(!small.is_large(1));
        assert_eq!(small.excess(1, 1 << 20), None);
    }
}
