//! The one watch that feeds this process, and reading of the past for watchers that are behind.
//!
//! The watch is over all keys of the cluster, not only the store's own: every revision then brings an event, so "all up
//! to revision R has arrived" is known from the stream itself. (etcd before 3.4.25 and 3.5.8 may answer a request for
//! progress before the events it covers; none is sent.)
//!
//! A watch begins one revision early, at what was seen last: etcd then refuses it when it has compacted anything above,
//! where it would otherwise leave out a deletion made just at the compacted revision (before 3.4.35 and 3.5.17).

use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::PbWatchResponse;
use etcd_client::{WatchOptions, WatchStream};
use futures::future::{BoxFuture, FutureExt};

use super::Shared;
use super::members::{Failure, Member, Pause};
use super::read::unread;
use super::record::{self, RECORD};
use crate::hub::{Changes, History};
use crate::{Event, Revision, StoreError};

/// Events and bytes of one stretch of the past; few in tests.
const STRETCH: usize = if cfg!(test) { 13 } else { 1024 };
const STRETCH_BYTES: usize = if cfg!(test) { 20_000 } else { 1 << 20 };
/// How long a member may take to begin a watch, and to send the past, which it has.
const ANSWER: Duration = Duration::from_secs(5);
/// Members that are tried for a stretch of the past.
const ATTEMPTS: usize = 8;

/// Why a watch ended.
enum End {
    /// The member is gone, lost its leader, or refuses: another may serve, or this one later.
    Lost(String),
    /// History from here on (etcd's count) is all that is left.
    Compacted(i64),
    Failed(StoreError),
}

/// A watch over all keys at one member.
struct Source {
    stream: WatchStream,
    /// Everything up to here was handed over (etcd's count).
    position: i64,
}

/// Events of whole revisions, and how far they reach.
struct Batch {
    events: Vec<Event>,
    /// An event's previous value is compacted: what was before `upto` cannot be told whole.
    torn: bool,
    record_changed: bool,
}

async fn begin(member: &Member, position: i64) -> Result<Source, End> {
    let options = WatchOptions::new()
        .with_all_keys()
        .with_start_revision(position.max(1))
        .with_prev_key()
        .with_progress_notify();
    let mut watch = member.watch();
    let begun = tokio::time::timeout(ANSWER, watch.watch(RECORD, Some(options))).await;
    match begun {
        Ok(Ok(stream)) => Ok(Source { stream, position }),
        Ok(Err(error)) => Err(lost(Failure::of(error))),
        Err(_) => Err(End::Lost(format!("{} did not begin a watch in time", member.endpoint))),
    }
}

fn lost(failure: Failure) -> End {
    match failure {
        Failure::NotDone(why) | Failure::InDoubt(why) => End::Lost(why),
        other => End::Lost(unread(other).to_string()),
    }
}

impl Source {
    async fn next(&mut self, shared: &Shared) -> Result<Batch, End> {
        match self.stream.message().await {
            Ok(Some(response)) => self.take(shared, response.0),
            Ok(None) => Err(End::Lost("the watch ended".to_owned())),
            Err(error) => Err(lost(Failure::of(error))),
        }
    }

    fn take(&mut self, shared: &Shared, response: PbWatchResponse) -> Result<Batch, End> {
        let header = response.header.unwrap_or_default();
        shared.members.check_cluster(header.cluster_id).map_err(lost)?;
        if response.compact_revision != 0 {
            return Err(End::Compacted(response.compact_revision));
        }
        if response.canceled {
            return Err(End::Lost(response.cancel_reason));
        }
        let mut batch = Batch { events: Vec::new(), torn: false, record_changed: false };
        if response.events.is_empty() {
            // A header alone is progress, unless it only says that the watch has begun.
            if !response.created {
                self.position = self.position.max(header.revision);
            }
            return Ok(batch);
        }
        let before = self.position;
        for event in response.events {
            let Some(kv) = &event.kv else { continue };
            let revision = kv.mod_revision;
            if revision <= before {
                continue;
            }
            self.position = self.position.max(revision);
            batch.record_changed |= kv.key == RECORD.as_bytes();
            if kv.key.first() != Some(&b'/') {
                continue;
            }
            match shared.base.event(event).map_err(End::Failed)? {
                Some(event) => batch.events.push(event),
                None => batch.torn = true,
            }
        }
        Ok(batch)
    }
}

/// Feeds the hub until the store closes.
pub(super) async fn run(shared: Arc<Shared>, mut position: i64) {
    let mut pause = Pause::new(shared.members.len());
    loop {
        let (index, member) = shared.members.pick();
        let followed = tokio::select! {
            end = follow(&shared, member, &mut position, &mut pause) => end,
            () = shared.stop.cancelled() => return,
        };
        match followed {
            End::Lost(why) => shared.members.leave(index, &why),
            End::Compacted(_) => match shared.newest().await {
                Ok(newest) => cut(&shared, &mut position, newest),
                Err(error) => tracing::warn!(error = %error, "the watch of etcd cannot be begun"),
            },
            End::Failed(error) => {
                shared.close(&error.to_string());
                return;
            }
        }
        tokio::select! {
            () = pause.rest() => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

async fn follow(shared: &Arc<Shared>, member: &Member, position: &mut i64, pause: &mut Pause) -> End {
    let mut source = match begin(member, *position).await {
        Ok(source) => source,
        Err(end) => return end,
    };
    loop {
        let batch = tokio::select! {
            batch = source.next(shared) => batch,
            () = shared.stalled.notified() => return End::Lost("its changes come too late".to_owned()),
        };
        let batch = match batch {
            Ok(batch) => batch,
            Err(end) => return end,
        };
        *pause = Pause::new(shared.members.len());
        if batch.record_changed
            && let Err(error) = check_record(shared).await
        {
            return End::Failed(error);
        }
        if batch.torn {
            cut(shared, position, source.position);
        } else if source.position > *position {
            *position = source.position;
            let revision = shared.base.out(*position);
            drop(shared.hub.publish(batch.events, revision));
            shared.told.send_replace(revision);
        }
    }
}

/// The changes up to a revision are lost to all watchers: they must list again.
fn cut(shared: &Shared, position: &mut i64, revision: i64) {
    let (requested, oldest) = (shared.hub.published(), shared.base.out(revision));
    *position = revision.max(*position);
    if oldest > requested {
        tracing::warn!(requested, oldest, "etcd was compacted beyond what was read; watchers begin anew");
        shared.hub.cut(&StoreError::Compacted { requested, oldest }, oldest);
        shared.told.send_replace(oldest);
    }
}

/// The record must stay what it was at the start.
async fn check_record(shared: &Shared) -> Result<(), StoreError> {
    let read = shared.members.read(|member| async move { member.kv().get(RECORD, None).await });
    let answer = read.await.map_err(unread)?.0;
    match answer.kvs.first().map(|kv| record::parse(&kv.value)) {
        Some(Ok(found)) if found == shared.record => Ok(()),
        _ => {
            Err(StoreError::Closed("the store was migrated or removed under this process; start anew".into()))
        }
    }
}

/// etcd's oldest revision with history, as a watch from the first revision is told; `None` where nothing is compacted.
pub(super) async fn oldest(shared: &Arc<Shared>) -> Option<i64> {
    let (_, member) = shared.members.pick();
    let mut source = begin(member, 1).await.ok()?;
    let first = async {
        loop {
            match source.next(shared).await {
                // The answer that says the watch has begun comes before the refusal.
                Ok(batch) if batch.events.is_empty() && source.position <= 1 => {}
                Ok(_) => return None,
                Err(End::Compacted(oldest)) => return Some(oldest),
                Err(_) => return None,
            }
        }
    };
    tokio::time::timeout(ANSWER, first).await.ok().flatten()
}

/// The past, read by a watch of its own.
pub(super) struct Past(pub Arc<Shared>);

impl History for Past {
    fn changes(&self, prefix: &str, after: Revision) -> BoxFuture<'static, Result<Changes, StoreError>> {
        let (shared, prefix) = (self.0.clone(), prefix.to_owned());
        async move { past(&shared, &prefix, after).await }.boxed()
    }
}

async fn past(shared: &Arc<Shared>, prefix: &str, after: Revision) -> Result<Changes, StoreError> {
    shared.check_open()?;
    let floor = shared.base.out(shared.floor);
    if after < floor {
        return Err(StoreError::Compacted { requested: after, oldest: floor });
    }
    let until = shared.hub.published();
    if after >= until {
        return Ok(Changes { events: Vec::new(), upto: until });
    }
    let mut pause = Pause::new(shared.members.len());
    let mut why = String::new();
    for _ in 0..ATTEMPTS {
        let (index, member) = shared.members.pick();
        match stretch(shared, member, prefix, after, until).await {
            Ok(changes) => return Ok(changes),
            Err(End::Compacted(oldest)) => {
                let oldest = shared.base.out(oldest).max(after + 1);
                return Err(StoreError::Compacted { requested: after, oldest });
            }
            Err(End::Failed(error)) => return Err(error),
            Err(End::Lost(reason)) => {
                shared.members.leave(index, &reason);
                why = reason;
            }
        }
        pause.rest().await;
    }
    Err(StoreError::Unavailable(why))
}

async fn stretch(
    shared: &Arc<Shared>,
    member: &Member,
    prefix: &str,
    after: Revision,
    until: Revision,
) -> Result<Changes, End> {
    let mut source = begin(member, shared.base.inward(after)).await?;
    let mut changes = Changes { events: Vec::new(), upto: after };
    let mut bytes = 0;
    while changes.upto < until && changes.events.len() < STRETCH && bytes < STRETCH_BYTES {
        let batch = match tokio::time::timeout(ANSWER, source.next(shared)).await {
            Ok(batch) => batch?,
            Err(_) => return Err(End::Lost(format!("{} does not send its history", member.endpoint))),
        };
        if batch.torn {
            return Err(End::Compacted(source.position));
        }
        for event in batch.events {
            bytes += event.value.as_ref().map_or(0, bytes::Bytes::len);
            if event.key.starts_with(prefix) {
                changes.events.push(event);
            }
        }
        changes.upto = shared.base.out(source.position).max(after);
    }
    Ok(changes)
}
