//! Leases: how keys expire. As upstream, one lease is shared by the keys written within a short time.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::members::{Failure, Members};

/// A lease is shared for a twentieth of the time to live, at most this.
const SHARED: Duration = Duration::from_secs(60);
/// Keys on one lease; etcd deletes them in one revision.
const KEYS: u32 = 1000;

struct Lease {
    id: i64,
    until: Instant,
    keys: u32,
}

/// The leases in use, by their keys' time to live in seconds.
#[derive(Default)]
pub(super) struct Leases {
    open: Mutex<HashMap<u64, Lease>>,
}

impl Leases {
    /// A lease that outlives `ttl` for a key written now.
    pub async fn take(&self, members: &Members, ttl: Duration) -> Result<i64, Failure> {
        let seconds = ttl.as_secs().max(1);
        let mut open = self.open.lock().await;
        if let Some(lease) = open.get_mut(&seconds)
            && Instant::now() < lease.until
            && lease.keys < KEYS
        {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let shared = (ttl / 20).min(SHARED);
        let lives = seconds + shared.as_secs();
        let begins = Instant::now();
        let lives = i64::try_from(lives).unwrap_or(i64::MAX);
        let granted =
            members.read(|member| async move { member.client().lease_client().grant(lives, None).await });
        let id = granted.await?.id();
        open.retain(|_, lease| Instant::now() < lease.until);
        if shared.as_secs() > 0 {
            open.insert(
                seconds,
                Lease { id, until: begins + Duration::from_secs(shared.as_secs()), keys: 1 },
            );
        }
        Ok(id)
    }

    /// After etcd did not know a lease.
    pub async fn forget(&self) {
        self.open.lock().await.clear();
    }
}
