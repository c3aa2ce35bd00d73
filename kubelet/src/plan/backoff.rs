//! Exponential back-off per key, as upstream's `flowcontrol.Backoff`: the delay doubles from an initial value to a
//! ceiling, and a key that was quiet for twice the ceiling starts over.
use std::collections::HashMap;
use std::time::Duration;

/// Restart back-off: first delay.
pub const RESTART_INITIAL: Duration = Duration::from_secs(10);
/// Restart and image back-off: longest delay.
pub const RESTART_MAX: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    delay: Duration,
    updated: i64,
}

/// Delays by key. Times are nanoseconds of any one clock.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    entries: HashMap<String, Entry>,
}

impl Backoff {
    pub fn new(initial: Duration, max: Duration) -> Self {
        Backoff { initial, max, entries: HashMap::new() }
    }

    /// The restart back-off of containers.
    pub fn restarts() -> Self {
        Backoff::new(RESTART_INITIAL, RESTART_MAX)
    }

    /// How long the key still has to wait, counted from `event` (say when the container ended).
    pub fn remaining(&self, key: &str, event: i64, now: i64) -> Option<Duration> {
        let entry = self.entries.get(key)?;
        if self.expired(event, entry.updated) {
            return None;
        }
        let since = Duration::from_nanos(now.saturating_sub(event).max(0) as u64);
        entry.delay.checked_sub(since).filter(|left| !left.is_zero())
    }

    /// How long the key still has to wait, counted from its last attempt.
    pub fn remaining_since_update(&self, key: &str, now: i64) -> Option<Duration> {
        self.remaining(key, self.entries.get(key)?.updated, now)
    }

    /// The delay that is in force for the key, for messages.
    pub fn delay(&self, key: &str) -> Duration {
        self.entries.get(key).map_or(Duration::ZERO, |entry| entry.delay)
    }

    /// Notes an attempt: the next one waits longer.
    pub fn next(&mut self, key: &str, event: i64, now: i64) {
        let fresh = Entry { delay: self.initial, updated: now };
        let entry = match self.entries.get(key) {
            Some(old) if !self.expired(event, old.updated) => {
                Entry { delay: (old.delay * 2).min(self.max), updated: now }
            }
            _ => fresh,
        };
        self.entries.insert(key.to_owned(), entry);
    }

    /// Forgets a key.
    pub fn reset(&mut self, key: &str) {
        self.entries.remove(key);
    }

    fn expired(&self, event: i64, updated: i64) -> bool {
        event.saturating_sub(updated) > (self.max * 2).as_nanos() as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    #[test]
    fn the_delay_doubles_to_the_ceiling_and_starts_over_after_a_long_quiet() {
        let mut backoff = Backoff::restarts();
        assert_eq!(backoff.remaining("a", 0, 0), None, "the first restart does not wait");
        let mut now = 0;
        let mut seen = Vec::new();
        for _ in 0..7 {
            backoff.next("a", now, now);
            seen.push(backoff.delay("a").as_secs());
            now += S;
        }
        assert_eq!(seen, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.remaining("a", now, now + 299 * S), Some(Duration::from_secs(1)));
        assert_eq!(backoff.remaining("a", now, now + 300 * S), None);
        let later = now + 700 * S;
        assert_eq!(backoff.remaining("a", later, later), None);
        backoff.next("a", later, later);
        assert_eq!(backoff.delay("a").as_secs(), 10);
    }
}
