//! Sends pod statuses to the API and deletes pods that are done.
//!
//! Only the newest status of a pod is ever sent, as a patch of what differs from what the API was last told; nothing
//! is sent when nothing differs. A pod is deleted from the API here and nowhere else, after its worker said that
//! containers and volumes are gone, with grace 0 and its uid as precondition.
use crate::plan::{pod, status};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use keelson_client::WorkQueue;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Statuses that are sent at the same time.
const SENDERS: usize = 4;

struct Entry {
    namespace: String,
    name: String,
    /// The uid in the API: a mirror pod's differs from its static pod's.
    api_uid: String,
    wanted: PodStatus,
    /// What the API holds, as far as is known.
    sent: Option<PodStatus>,
    dirty: bool,
    delete: bool,
}

struct Inner {
    client: Option<kube::Client>,
    entries: Mutex<HashMap<String, Entry>>,
    queue: WorkQueue<String>,
}

/// Takes statuses; cheap to clone.
#[derive(Clone)]
pub struct StatusManager {
    inner: Arc<Inner>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl StatusManager {
    pub fn new(client: Option<kube::Client>) -> Self {
        let inner = Inner { client, entries: Mutex::default(), queue: WorkQueue::new() };
        StatusManager { inner: Arc::new(inner) }
    }

    /// Sends until the queue is closed.
    pub async fn run(&self) {
        let senders = (0..SENDERS).map(|_| async {
            while let Some(uid) = self.inner.queue.get().await {
                match self.send(&uid).await {
                    Ok(()) => self.inner.queue.forget(&uid),
                    Err(error) => {
                        tracing::debug!(uid, error = %error, "pod status was not written, trying again");
                        self.inner.queue.add_rate_limited(uid.clone());
                    }
                }
                self.inner.queue.done(uid);
            }
        });
        futures::future::join_all(senders).await;
    }

    pub fn close(&self) {
        self.inner.queue.close();
    }

    /// The status last made for a pod.
    pub fn get(&self, uid: &str) -> Option<PodStatus> {
        lock(&self.inner.entries).get(uid).map(|entry| entry.wanted.clone())
    }

    /// Takes a pod's new status. `api_pod` is the pod as the API has it: the mirror pod for a static one, `None` when
    /// the API has none (yet).
    pub fn set(&self, pod: &Pod, api_pod: Option<&Pod>, wanted: PodStatus) {
        let uid = pod::uid(pod).to_owned();
        let mut entries = lock(&self.inner.entries);
        let entry = entries.entry(uid.clone()).or_insert_with(|| Entry {
            namespace: pod::namespace(pod).to_owned(),
            name: pod::name(pod).to_owned(),
            api_uid: String::new(),
            wanted: PodStatus::default(),
            sent: None,
            dirty: false,
            delete: false,
        });
        if let Some(api_pod) = api_pod {
            if entry.api_uid != pod::uid(api_pod) {
                entry.api_uid = pod::uid(api_pod).to_owned();
                entry.sent = None;
            }
            if entry.sent.is_none() {
                entry.sent = Some(api_pod.status.clone().unwrap_or_default());
            }
        }
        entry.wanted = wanted;
        let dirty = entry.sent.as_ref() != Some(&entry.wanted);
        entry.dirty = dirty;
        if dirty && !entry.api_uid.is_empty() {
            drop(entries);
            self.inner.queue.add(uid);
        }
    }

    /// The API's copy changed: what others wrote over ours is written again.
    pub fn reconcile(&self, uid: &str, api_pod: &Pod) {
        let mut entries = lock(&self.inner.entries);
        let Some(entry) = entries.get_mut(uid) else { return };
        let theirs = status::comparable(api_pod.status.as_ref());
        if !entry.dirty && theirs != status::comparable(Some(&entry.wanted)) && theirs.is_some() {
            // A watch event may be older than our last write; only a phase or container that differs counts, and
            // the patch below is empty when the API already holds what is wanted.
            entry.sent = api_pod.status.clone();
            entry.dirty = true;
            drop(entries);
            self.inner.queue.add(uid.to_owned());
        }
    }

    /// Deletes the pod from the API, after its last status.
    pub fn delete(&self, pod: &Pod) {
        let uid = pod::uid(pod).to_owned();
        let mut entries = lock(&self.inner.entries);
        let Some(entry) = entries.get_mut(&uid) else { return };
        entry.delete = true;
        drop(entries);
        self.inner.queue.add(uid);
    }

    /// Forgets a pod that the API no longer has.
    pub fn forget(&self, uid: &str) {
        lock(&self.inner.entries).remove(uid);
    }

    async fn send(&self, uid: &str) -> Result<(), kube::Error> {
        let Some(client) = self.inner.client.clone() else { return Ok(()) };
        let (namespace, name, api_uid, wanted, patch, delete) = {
            let entries = lock(&self.inner.entries);
            let Some(entry) = entries.get(uid).filter(|entry| !entry.api_uid.is_empty()) else {
                return Ok(());
            };
            let patch = patch(entry.sent.as_ref().unwrap_or(&PodStatus::default()), &entry.wanted);
            (
                entry.namespace.clone(),
                entry.name.clone(),
                entry.api_uid.clone(),
                entry.wanted.clone(),
                patch,
                entry.delete,
            )
        };
        let api: Api<Pod> = Api::namespaced(client, &namespace);
        if let Some(status) = patch {
            let body = json!({"metadata": {"uid": api_uid}, "status": status});
            match api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(body)).await {
                Ok(_) => {}
                // The pod is gone, or another one has its name now.
                Err(kube::Error::Api(error)) if error.code == 404 || is_other_uid(&error.message) => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(entry) = lock(&self.inner.entries).get_mut(uid) {
            entry.dirty = entry.wanted != wanted;
            entry.sent = Some(wanted);
        }
        if delete {
            let preconditions = Preconditions { uid: Some(api_uid), resource_version: None };
            let parameters = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(preconditions),
                ..DeleteParams::default()
            };
            match api.delete(&name, &parameters).await {
                Ok(_) => {}
                Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_other_uid(message: &str) -> bool {
    message.contains("metadata.uid") || message.contains("Precondition failed: UID")
}

/// What has to be told so that `old` becomes `new`; `None` when they are the same. A strategic merge patch: conditions
/// merge by type, addresses by address, so a list of addresses that changed is replaced.
fn patch(old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let object = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    };
    let (old, new) = (object(old), object(new));
    let mut out = Map::new();
    for (key, value) in &new {
        if old.get(key) == Some(value) {
            continue;
        }
        let value = match (key.as_str(), old.get(key)) {
            ("conditions", Some(Value::Array(before))) => changed_conditions(before, value),
            ("podIPs" | "hostIPs", Some(Value::Array(before))) if !before.is_empty() => replaced(value),
            _ => value.clone(),
        };
        if key != "conditions" || value.as_array().is_none_or(|list| !list.is_empty()) {
            out.insert(key.clone(), value);
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        // Fields that others own are theirs to remove.
        if !matches!(
            key.as_str(),
            "resourceClaimStatuses" | "extendedResourceClaimStatus" | "nominatedNodeName" | "resize"
        ) {
            out.insert(key.clone(), Value::Null);
        }
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

fn changed_conditions(before: &[Value], now: &Value) -> Value {
    let changed = now.as_array().into_iter().flatten().filter(|condition| !before.contains(condition));
    // A field that went (a reason, say) must be named to go.
    let complete = changed.map(|condition| {
        let mut condition = condition.clone();
        let old = before.iter().find(|old| old.get("type") == condition.get("type"));
        if let (Some(Value::Object(old)), Some(new)) = (old, condition.as_object_mut()) {
            for key in old.keys() {
                new.entry(key.clone()).or_insert(Value::Null);
            }
        }
        condition
    });
    Value::Array(complete.collect())
}

fn replaced(value: &Value) -> Value {
    let mut list = vec![json!({"$patch": "replace"})];
    list.extend(value.as_array().into_iter().flatten().cloned());
    Value::Array(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_what_differs_is_sent() {
        let old = status(json!({"phase": "Pending", "message": "m", "podIPs": [{"ip": "1"}], "podIP": "1",
            "conditions": [{"type": "Ready", "status": "False", "reason": "R"}, {"type": "Initialized", "status": "True"}]}));
        let new = status(json!({"phase": "Running", "podIPs": [{"ip": "2"}], "podIP": "2",
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}]}));
        let expected = json!({"phase": "Running", "message": null, "podIP": "2",
            "podIPs": [{"$patch": "replace"}, {"ip": "2"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": null}]});
        assert_eq!(patch(&old, &new), Some(expected));
        assert_eq!(patch(&new, &new), None);
    }
}
