//! Events about pods and the node. Telling is best effort: a full queue or a refused write loses an event, never a pod.
//! Repeats are counted up on the first one instead of being written anew, and each pod has a budget.
use crate::plan::pod;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

const QUEUE: usize = 1000;
/// Events whose repeats are still counted.
const REMEMBERED: usize = 512;
/// A pod may tell this many at once, and one more every [`REFILL`].
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Normal,
    Warning,
}

/// What happened, to what.
#[derive(Clone, Debug)]
pub struct Happening {
    pub object: ObjectReference,
    pub severity: Severity,
    pub reason: &'static str,
    pub message: String,
}

/// Takes events; cheap to clone.
#[derive(Clone)]
pub struct Events {
    queue: Option<mpsc::Sender<Happening>>,
}

impl Events {
    /// A sink that only logs.
    pub fn log_only() -> Self {
        Events { queue: None }
    }

    /// A sink and the task that writes to the API.
    pub fn start(client: kube::Client, node: &str) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Events { queue: Some(sender) }, write(client, node.to_owned(), receiver))
    }

    pub fn pod(&self, pod: &Pod, severity: Severity, reason: &'static str, message: impl Into<String>) {
        self.send(pod_reference(pod, None), severity, reason, message.into());
    }

    pub fn container(
        &self,
        pod: &Pod,
        container: &str,
        severity: Severity,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let list = match pod::find(pod, container).map(|r| r.kind) {
            Some(pod::Kind::Init) => "initContainers",
            Some(pod::Kind::Ephemeral) => "ephemeralContainers",
            _ => "containers",
        };
        let path = format!("spec.{list}{{{container}}}");
        self.send(pod_reference(pod, Some(path)), severity, reason, message.into());
    }

    pub fn node(&self, node: &Node, severity: Severity, reason: &'static str, message: impl Into<String>) {
        let object = ObjectReference {
            kind: Some("Node".into()),
            name: node.metadata.name.clone(),
            // Upstream uses the name here, and clients that describe nodes look for it.
            uid: node.metadata.name.clone(),
            ..ObjectReference::default()
        };
        self.send(object, severity, reason, message.into());
    }

    fn send(&self, object: ObjectReference, severity: Severity, reason: &'static str, message: String) {
        let name = object.name.as_deref().unwrap_or("");
        let namespace = object.namespace.as_deref().unwrap_or("");
        tracing::debug!(object = name, namespace, reason, message, "event");
        if let Some(queue) = &self.queue
            && queue.try_send(Happening { object, severity, reason, message }).is_err()
        {
            tracing::debug!(reason, "event dropped: the queue is full");
        }
    }
}

fn pod_reference(pod: &Pod, field_path: Option<String>) -> ObjectReference {
    let uid = pod::annotation(pod, pod::CONFIG_MIRROR).unwrap_or(pod::uid(pod));
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        namespace: Some(pod::namespace(pod).to_owned()),
        uid: Some(uid.to_owned()),
        resource_version: pod.metadata.resource_version.clone(),
        field_path,
    }
}

struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    fn take(&mut self, now: Instant) -> bool {
        let earned = now.duration_since(self.at).as_secs_f64() / REFILL.as_secs_f64();
        self.left = (self.left + earned).min(BURST);
        self.at = now;
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
}

type Key = (String, String, &'static str, String);

struct Written {
    name: String,
    count: i32,
    at: Instant,
}

async fn write(client: kube::Client, node: String, mut queue: mpsc::Receiver<Happening>) {
    let mut written: HashMap<Key, Written> = HashMap::new();
    let mut budgets: HashMap<String, Budget> = HashMap::new();
    let mut serial: u32 = 0;
    while let Some(happening) = queue.recv().await {
        let now = Instant::now();
        let object = &happening.object;
        let uid = object.uid.clone().unwrap_or_default();
        let budget = budgets.entry(uid.clone()).or_insert(Budget { left: BURST, at: now });
        if !budget.take(now) {
            continue;
        }
        let path = object.field_path.clone().unwrap_or_default();
        let key = (uid, path, happening.reason, happening.message.clone());
        let namespace = object.namespace.clone().unwrap_or_else(|| "default".into());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let result = match written.get_mut(&key) {
            Some(known) => {
                known.count += 1;
                known.at = now;
                let patch = serde_json::json!({"count": known.count, "lastTimestamp": seconds_text()});
                let name = known.name.clone();
                api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await
            }
            None => {
                serial = serial.wrapping_add(1);
                let event = event(&happening, &namespace, &node, serial);
                let name = event.metadata.name.clone().unwrap_or_default();
                let result = api.create(&PostParams::default(), &event).await;
                written.insert(key.clone(), Written { name, count: 1, at: now });
                result
            }
        };
        if let Err(error) = result {
            // Written again from the start next time.
            written.remove(&key);
            tracing::debug!(error = %error, reason = happening.reason, "event was not written");
        }
        if written.len() > REMEMBERED {
            let mut ages: Vec<Instant> = written.values().map(|w| w.at).collect();
            ages.sort_unstable();
            let limit = ages[ages.len() / 2];
            written.retain(|_, w| w.at > limit);
            budgets.retain(|_, b| now.duration_since(b.at) < REFILL);
        }
    }
}

fn seconds_text() -> Time {
    Time(crate::plan::status::seconds(Timestamp::now()))
}

fn event(happening: &Happening, namespace: &str, node: &str, serial: u32) -> Event {
    let nanos = Timestamp::now().as_nanosecond() as u64;
    let object = happening.object.name.as_deref().unwrap_or("object");
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{object}.{:x}", nanos.wrapping_add(u64::from(serial)))),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: happening.object.clone(),
        reason: Some(happening.reason.to_owned()),
        message: Some(happening.message.chars().take(1024).collect()),
        source: Some(EventSource { component: Some("kubelet".into()), host: Some(node.to_owned()) }),
        reporting_component: Some("kubelet".into()),
        reporting_instance: Some(node.to_owned()),
        type_: Some(if happening.severity == Severity::Normal { "Normal" } else { "Warning" }.into()),
        count: Some(1),
        first_timestamp: Some(seconds_text()),
        last_timestamp: Some(seconds_text()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pod_has_a_budget_that_refills() {
        let mut budget = Budget { left: BURST, at: Instant::now() };
        let taken = (0..100).filter(|_| budget.take(Instant::now())).count();
        assert_eq!(taken, 25);
        tokio::time::advance(REFILL).await;
        assert!(budget.take(Instant::now()));
        assert!(!budget.take(Instant::now()));
    }
}
