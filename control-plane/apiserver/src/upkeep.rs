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

/// The write that puts back what a snapshot or another store holds under a key; `None` for what a server that runs writes
/// anew by itself. Events get their whole time again.
pub fn put_back(key: String, value: Bytes) -> Option<Write> {
    if key.starts_with(crate::masters::PREFIX) {
        return None;
    }
    let events = ["", "events.k8s.io"].map(|group| crate::keys::prefix(group, "events", false));
    match events.iter().any(|prefix| key.starts_with(prefix)) {
        true => Some(Write::Expiring { key, value, ttl: EVENT_TTL }),
        false => Some(Write::Put { key, value }),
    }
}

fn lifetime(row: &Resource) -> Option<Duration> {
    // One resource, served by two groups.
    let events = row.plural == "events" && matches!(&*row.group, "" | "events.k8s.io");
    events.then_some(EVENT_TTL)
}
