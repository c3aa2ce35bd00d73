//! What goes by itself: events, after their time.

use std::time::Duration;

use bytes::Bytes;
use keelson_api::table::Resource;
use keelson_store::Write;

/// How long an event is kept after it was written last (upstream's --event-ttl).
const EVENT_TTL: Duration = Duration::from_secs(3600);

/// The write that stores an object of a row: objects of some rows expire.
pub fn put(row: &Resource, key: String, value: Bytes) -> Write {
    match lifetime(row) {
        Some(ttl) => Write::Expiring { key, value, ttl },
        None => Write::Put { key, value },
    }
}

fn lifetime(row: &Resource) -> Option<Duration> {
    // One resource, served by two groups.
    let events = row.plural == "events" && matches!(&*row.group, "" | "events.k8s.io");
    events.then_some(EVENT_TTL)
}
