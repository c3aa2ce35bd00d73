//! What the server does for the cluster besides answering: events expire.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::{ListQuery, ReadAt, Scope};
use crate::core::Core;
use crate::keys;
use crate::rest::WriteError;

/// How long an event is kept after it was last seen (upstream's --event-ttl).
const EVENT_TTL: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);
const EVENTS_EVERY: Duration = Duration::from_secs(300);

/// Deletes events that are over, until the server stops.
pub async fn expire_events(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVENTS_EVERY) => {}
            () = core.stop.cancelled() => return,
        }
        expire_events_once(&core).await;
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct EventTimes {
    metadata: EventMeta,
    last_timestamp: Option<jiff::Timestamp>,
    event_time: Option<jiff::Timestamp>,
    series: Option<EventSeries>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct EventMeta {
    creation_timestamp: Option<jiff::Timestamp>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct EventSeries {
    last_observed_time: Option<jiff::Timestamp>,
}

impl EventTimes {
    fn last(&self) -> Option<jiff::Timestamp> {
        let series = self.series.as_ref().and_then(|series| series.last_observed_time);
        [self.last_timestamp, self.event_time, series, self.metadata.creation_timestamp]
            .into_iter()
            .flatten()
            .max()
    }
}

/// One look over all events.
pub async fn expire_events_once(core: &Arc<Core>) {
    let Some(row) = core.table.load().lookup("", "v1", "events").cloned() else { return };
    let query = ListQuery { scope: Scope::All, filter: None, limit: 0, after: None, at: ReadAt::Any };
    let Ok(list) = core.cache(&row).list(query).await else { return };
    let Ok(before) = core.clock.now().checked_sub(EVENT_TTL) else { return };
    for object in list.objects {
        let times: EventTimes = serde_json::from_slice(object.json()).unwrap_or_default();
        if times.last().is_none_or(|last| last >= before) {
            continue;
        }
        let key = format!("{}{}", keys::row_prefix(&row), object.key());
        let transaction = keelson_store::Transaction {
            guards: vec![(key.clone(), keelson_store::Expect::Revision(object.revision()))],
            writes: vec![keelson_store::Write::Delete { key }],
        };
        if let Err(WriteError::Failed(status)) = core.commit(transaction).await {
            tracing::warn!(error = %status, "an event could not be expired");
            return;
        }
    }
}
