//! A watcher that goes on where its watch ended, as an informer does.

use crate::log::Seen;
use crate::writer::serial_of;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use std::time::Duration;
use tokio::sync::watch;

/// How long the last event is waited for in the end.
const LAST: Duration = Duration::from_secs(60);
/// Before a watch is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// Watches the writers' objects from a revision until the one it is told.
pub async fn run(
    api: Api<ConfigMap>,
    start: u64,
    stopped: watch::Receiver<Option<u64>>,
) -> Result<Vec<Seen>, String> {
    let mut place = start;
    let mut events = Vec::new();
    let mut told = stopped.clone();
    let watching = async {
        loop {
            follow(&api, &mut place, &mut events, &stopped).await?;
            if reached(place, &stopped) {
                return Ok(());
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    let late = async {
        let _ = told.wait_for(Option::is_some).await;
        tokio::time::sleep(LAST).await;
    };
    let ended: Result<(), String> = tokio::select! {
        ended = watching => ended,
        () = late => Err("the last write was not seen in time".to_owned()),
    };
    ended.map(|()| events)
}

fn reached(place: u64, stopped: &watch::Receiver<Option<u64>>) -> bool {
    stopped.borrow().is_some_and(|last| place >= last)
}

/// One watch, until it ends. What must not be: that the server says its history is gone, or an object without a revision.
async fn follow(
    api: &Api<ConfigMap>,
    place: &mut u64,
    events: &mut Vec<Seen>,
    stopped: &watch::Receiver<Option<u64>>,
) -> Result<(), String> {
    let params = WatchParams::default().labels("writer");
    let Ok(stream) = api.watch(&params, &place.to_string()).await else { return Ok(()) };
    let mut stream = stream.boxed();
    let mut stopped = stopped.clone();
    loop {
        if reached(*place, &stopped) {
            return Ok(());
        }
        let item = tokio::select! {
            item = stream.next() => item,
            Ok(()) = stopped.changed() => continue,
        };
        let (kind, object) = match item {
            Some(Ok(WatchEvent::Added(object))) => ("ADDED", object),
            Some(Ok(WatchEvent::Modified(object))) => ("MODIFIED", object),
            Some(Ok(WatchEvent::Deleted(object))) => ("DELETED", object),
            Some(Ok(WatchEvent::Bookmark(mark))) => {
                *place =
                    mark.metadata.resource_version.parse().map_err(|_| "a bookmark without a revision")?;
                continue;
            }
            // Overloaded or going down: as an end. Anything else of the client's range means that events are lost.
            Some(Ok(WatchEvent::Error(status))) if status.code >= 500 || status.code == 429 => return Ok(()),
            Some(Ok(WatchEvent::Error(status))) => return Err(format!("cut at {place}: {status:?}")),
            Some(Err(_)) | None => return Ok(()),
        };
        let version = object.metadata.resource_version.clone().unwrap_or_default();
        let revision = version.parse().map_err(|_| format!("no revision: {version:?}"))?;
        *place = revision;
        let name = object.metadata.name.clone().unwrap_or_default();
        events.push(Seen { revision, kind, name, serial: serial_of(&object) });
    }
}
