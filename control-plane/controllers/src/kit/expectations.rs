//! What a controller has asked for and not yet seen in its cache (upstream's UIDTrackingControllerExpectations): until
//! it is seen, the cache is behind and must not be acted upon.

use std::time::Duration;

use ahash::{AHashMap, AHashSet};
use keelson_client::ObjectKey;
use parking_lot::Mutex;
use tokio::time::Instant;

/// After this long an unseen change is no longer waited for.
const TIMEOUT: Duration = Duration::from_secs(300);

struct Expected {
    creations: i64,
    deletions: AHashSet<Box<str>>,
    since: Instant,
}

/// Expectations by controller key.
#[derive(Default)]
pub struct Expectations {
    by_key: Mutex<AHashMap<ObjectKey, Expected>>,
}

impl Expectations {
    /// `count` creations were asked for.
    pub fn expect_creations(&self, key: &ObjectKey, count: usize) {
        self.update(key, |e| e.creations += count as i64);
    }

    /// Deletions of these uids were asked for.
    pub fn expect_deletions<'a>(&self, key: &ObjectKey, uids: impl IntoIterator<Item = &'a str>) {
        self.update(key, |e| e.deletions.extend(uids.into_iter().map(Box::from)));
    }

    fn update(&self, key: &ObjectKey, change: impl FnOnce(&mut Expected)) {
        let mut map = self.by_key.lock();
        let entry = map.entry(key.clone()).or_insert_with(|| Expected {
            creations: 0,
            deletions: AHashSet::new(),
            since: Instant::now(),
        });
        entry.since = Instant::now();
        change(entry);
    }

    /// A creation was seen (or failed).
    pub fn created(&self, key: &ObjectKey) {
        if let Some(expected) = self.by_key.lock().get_mut(key) {
            expected.creations -= 1;
        }
    }

    /// A deletion was seen (or failed).
    pub fn deleted(&self, key: &ObjectKey, uid: &str) {
        if let Some(expected) = self.by_key.lock().get_mut(key) {
            expected.deletions.remove(uid);
        }
    }

    /// Whether all was seen, or waited for too long.
    pub fn satisfied(&self, key: &ObjectKey) -> bool {
        let mut map = self.by_key.lock();
        let Some(expected) = map.get(key) else { return true };
        let done = expected.creations <= 0 && expected.deletions.is_empty();
        if done || expected.since.elapsed() >= TIMEOUT {
            map.remove(key);
            return true;
        }
        false
    }

    /// The controller's object is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.by_key.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn unseen_changes_hold_back_until_seen_or_too_old() {
        let key = ObjectKey::new("ns", "rs");
        let expectations = Expectations::default();
        assert!(expectations.satisfied(&key));
        expectations.expect_creations(&key, 2);
        expectations.expect_deletions(&key, ["u1"]);
        expectations.created(&key);
        expectations.created(&key);
        assert!(!expectations.satisfied(&key));
        expectations.deleted(&key, "u1");
        assert!(expectations.satisfied(&key));
        expectations.expect_creations(&key, 1);
        tokio::time::advance(Duration::from_secs(301)).await;
        assert!(expectations.satisfied(&key));
    }
}
