//! Verdicts about tokens, kept by hash for a short time.

use super::tokens::TokenIdentity;
use ahash::AHashMap;
use jiff::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// How long a verdict is believed. Deleting a pod or a service account counts after at most this.
const LIFE_SECONDS: i64 = 10;
/// Above this, verdicts that are over are dropped; if none is, all are.
const MAX_ENTRIES: usize = 8192;

type Key = [u8; 32];

struct Entry {
    from: i64,
    found: Arc<TokenIdentity>,
}

/// Successful verdicts only; a wrong token is looked at each time.
#[derive(Default)]
pub(super) struct TokenCache {
    entries: Mutex<AHashMap<Key, Entry>>,
}

pub(super) fn key(token: &str, audiences: Option<&[String]>) -> Key {
    let mut hash = Sha256::new();
    for audience in audiences.unwrap_or_default() {
        hash.update((audience.len() as u64).to_be_bytes());
        hash.update(audience);
    }
    hash.update([u8::from(audiences.is_some())]);
    hash.update(token);
    hash.finalize().into()
}

impl TokenCache {
    pub(super) fn get(&self, key: &Key, now: Timestamp) -> Option<Arc<TokenIdentity>> {
        let now = now.as_second();
        let entries = self.entries.lock();
        let entry = entries.get(key)?;
        let fresh = (entry.from..entry.from + LIFE_SECONDS).contains(&now);
        (fresh && now < entry.found.expires).then(|| entry.found.clone())
    }

    pub(super) fn put(&self, key: Key, found: Arc<TokenIdentity>, now: Timestamp) {
        let now = now.as_second();
        let mut entries = self.entries.lock();
        if entries.len() >= MAX_ENTRIES {
            entries.retain(|_, e| (e.from..e.from + LIFE_SECONDS).contains(&now));
            if entries.len() >= MAX_ENTRIES {
                entries.clear();
            }
        }
        entries.insert(key, Entry { from: now, found });
    }
}
