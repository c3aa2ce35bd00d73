//! Events about objects (core/v1), written in the background: a repeated event raises the count of the one that is
//! there, and an object that floods is cut off. Losing an event never holds its component up.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_daemon::{Clock, DrainWatcher};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Events that wait to be written.
const QUEUE: usize = 1000;
/// Distinct events remembered for counting.
const REMEMBERED: usize = 4096;
/// Events per object at once, and one more every [`REFILL`] (client-go's spam filter).
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(300);
const MAX_MESSAGE: usize = 1024;

/// `type` of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    fn text(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

struct Record {
    about: ObjectReference,
    kind: EventType,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

/// Writes events as one component; clones share the queue.
#[derive(Clone)]
pub struct EventRecorder {
    sender: Option<mpsc::Sender<Record>>,
    clock: Clock,
}

impl EventRecorder {
    /// Starts the writer; it ends with the drain.
    pub fn start(client: kube::Client, component: &'static str, clock: Clock, drain: DrainWatcher) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let writer = Writer { client, component, seen: HashMap::new(), budgets: HashMap::new(), sequence: 0 };
        tokio::spawn(async move { drain.until(writer.run(receiver)).await });
        EventRecorder { sender: Some(sender), clock }
    }

    /// A recorder that writes nothing; for tests.
    pub fn discarding(clock: Clock) -> Self {
        EventRecorder { sender: None, clock }
    }

    /// Records an event; dropped (and logged) when too many wait.
    pub fn record(
        &self,
        about: ObjectReference,
        kind: EventType,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let Some(sender) = &self.sender else { return };
        let mut message: String = message.into();
        if message.len() > MAX_MESSAGE {
            let end = (0..=MAX_MESSAGE - 4).rev().find(|i| message.is_char_boundary(*i)).unwrap_or(0);
            message.truncate(end);
            message.push_str(" ...");
        }
        let sent = sender.try_send(Record { about, kind, reason, message, at: self.clock.now() });
        // A closed queue is one whose process is going down.
        if let Err(mpsc::error::TrySendError::Full(_)) = sent {
            tracing::warn!(reason, "event dropped: too many wait to be written");
        }
    }
}

struct Seen {
    name: String,
    count: i32,
}

struct Budget {
    left: u32,
    since: Instant,
}

type Key = (String, &'static str, String, EventType);

struct Writer {
    client: kube::Client,
    component: &'static str,
    seen: HashMap<Key, Seen>,
    budgets: HashMap<String, Budget>,
    sequence: u64,
}

impl Writer {
    async fn run(mut self, mut receiver: mpsc::Receiver<Record>) {
        while let Some(record) = receiver.recv().await {
            if !self.allowed(&record) {
                continue;
            }
            if let Err(error) = self.write(record).await {
                tracing::debug!(error = %error, "event not written");
            }
        }
    }

    fn allowed(&mut self, record: &Record) -> bool {
        let id = record.about.uid.clone().unwrap_or_default();
        let now = Instant::now();
        if self.budgets.len() >= REMEMBERED {
            self.budgets.retain(|_, b| now.duration_since(b.since) < REFILL);
            if self.budgets.len() >= REMEMBERED {
                self.budgets.clear();
            }
        }
        let budget = self.budgets.entry(id).or_insert(Budget { left: BURST, since: now });
        let refills = now.duration_since(budget.since).as_secs() / REFILL.as_secs();
        if refills > 0 {
            budget.left = budget.left.saturating_add(u32::try_from(refills).unwrap_or(BURST)).min(BURST);
            budget.since = now;
        }
        if budget.left == 0 {
            return false;
        }
        budget.left -= 1;
        true
    }

    async fn write(&mut self, record: Record) -> Result<(), kube::Error> {
        let namespace =
            record.about.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let id = record.about.uid.clone().or_else(|| record.about.name.clone()).unwrap_or_default();
        let key = (id, record.reason, record.message.clone(), record.kind);
        if let Some(seen) = self.seen.get_mut(&key) {
            seen.count += 1;
            let patch = json!({"count": seen.count, "lastTimestamp": Time(record.at)});
            match api.patch(&seen.name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => return Ok(()),
                // Expired in the meantime: a new one is written.
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    self.seen.remove(&key);
                }
                Err(error) => return Err(error),
            }
        }
        self.sequence += 1;
        let unique = (record.at.as_nanosecond() as u64).wrapping_add(self.sequence);
        let name = format!("{}.{unique:x}", record.about.name.as_deref().unwrap_or("unknown"));
        let mut event = Event {
            involved_object: record.about,
            type_: Some(record.kind.text().to_owned()),
            reason: Some(record.reason.to_owned()),
            message: Some(record.message),
            count: Some(1),
            first_timestamp: Some(Time(record.at)),
            last_timestamp: Some(Time(record.at)),
            source: Some(EventSource { component: Some(self.component.to_owned()), host: None }),
            reporting_component: Some(self.component.to_owned()),
            ..Event::default()
        };
        event.metadata.name = Some(name.clone());
        event.metadata.namespace = Some(namespace);
        api.create(&PostParams::default(), &event).await?;
        if self.seen.len() >= REMEMBERED {
            self.seen.clear();
        }
        self.seen.insert(key, Seen { name, count: 1 });
        Ok(())
    }
}
