//! What a set should do about its pods, and its status. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_client::projections::{Meta, PodView, Selector, SelectorError};

use crate::kit::pods::{BURST, to_delete};
use crate::set_condition;

/// A ReplicaSet or ReplicationController in the fields they share.
#[derive(Clone, Debug)]
pub struct Set {
    pub meta: Meta,
    pub replicas: i32,
    pub min_ready_seconds: i32,
    pub selector: Selector,
    pub template: PodTemplateSpec,
    pub status: ReplicaSetStatus,
}

impl Set {
    /// From a ReplicaSet.
    pub fn from_replica_set(object: ReplicaSet) -> Result<Self, SelectorError> {
        let meta = Meta::new(&object.metadata);
        let spec = object.spec.unwrap_or_default();
        Ok(Set {
            meta,
            replicas: spec.replicas.unwrap_or(1),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            selector: Selector::from_label_selector(Some(&spec.selector))?,
            template: spec.template.unwrap_or_default(),
            status: object.status.unwrap_or_default(),
        })
    }

    /// From a ReplicationController; its selector and status say the same in other words.
    pub fn from_replication_controller(object: ReplicationController) -> Self {
        let meta = Meta::new(&object.metadata);
        let spec = object.spec.unwrap_or_default();
        let status = object.status.unwrap_or_default();
        Set {
            meta,
            replicas: spec.replicas.unwrap_or(1),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            // An empty selector selects nothing here, not everything.
            selector: spec
                .selector
                .filter(|s| !s.is_empty())
                .map_or(Selector::Nothing, |s| Selector::from_map(&s)),
            template: spec.template.unwrap_or_default(),
            status: ReplicaSetStatus {
                available_replicas: status.available_replicas,
                conditions: status.conditions.map(|conditions| {
                    conditions
                        .into_iter()
                        .map(|c| ReplicaSetCondition {
                            last_transition_time: c.last_transition_time,
                            message: c.message,
                            reason: c.reason,
                            status: c.status,
                            type_: c.type_,
                        })
                        .collect()
                }),
                fully_labeled_replicas: status.fully_labeled_replicas,
                observed_generation: status.observed_generation,
                ready_replicas: status.ready_replicas,
                replicas: status.replicas,
                terminating_replicas: None,
            },
        }
    }
}

/// How many pods to make, or which to delete.
#[derive(Debug, Default)]
pub struct Scaling {
    pub create: usize,
    pub delete: Vec<Arc<PodView>>,
}

/// Compares the active pods with what is asked for.
pub fn scaling(set: &Set, active: &[Arc<PodView>], related: &[Arc<PodView>], now: Timestamp) -> Scaling {
    let wanted = usize::try_from(set.replicas).unwrap_or(0);
    if active.len() < wanted {
        return Scaling { create: (wanted - active.len()).min(BURST), delete: Vec::new() };
    }
    let surplus = (active.len() - wanted).min(BURST);
    Scaling {
        create: 0,
        delete: if surplus == 0 { Vec::new() } else { to_delete(active, related, surplus, now) },
    }
}

/// Why pods could not be made or deleted: (reason, message).
pub type Failure = (&'static str, String);

/// The status as it should be (`calculateStatus`).
pub fn status(
    set: &Set,
    active: &[Arc<PodView>],
    terminating: Option<usize>,
    failure: Option<Failure>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let template_labels = set.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    let template_selector = Selector::from_map(&template_labels);
    let count = |f: &dyn Fn(&PodView) -> bool| {
        let n = active.iter().filter(|p| f(p)).count();
        Some(i32::try_from(n).unwrap_or(i32::MAX)).filter(|n| *n > 0)
    };
    let mut status = ReplicaSetStatus {
        replicas: i32::try_from(active.len()).unwrap_or(i32::MAX),
        fully_labeled_replicas: count(&|p| template_selector.matches(&p.meta.labels)),
        ready_replicas: count(&|p| p.ready),
        available_replicas: count(&|p| p.is_available(set.min_ready_seconds, now)),
        terminating_replicas: terminating.map(|n| i32::try_from(n).unwrap_or(i32::MAX)),
        observed_generation: Some(set.meta.generation),
        conditions: set.status.conditions.clone(),
    };
    let conditions = status.conditions.get_or_insert_default();
    match failure {
        Some((reason, message)) => set_condition!(
            &mut *conditions,
            ReplicaSetCondition {
                type_: "ReplicaFailure".to_owned(),
                status: "True".to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_transition_time: Some(Time(now)),
            }
        ),
        None => conditions.retain(|c| c.type_ != "ReplicaFailure"),
    }
    if conditions.is_empty() {
        status.conditions = None;
    }
    status
}

/// When to look again because ready pods become available by time alone.
pub fn available_later(
    set: &Set,
    status: &ReplicaSetStatus,
    active: &[Arc<PodView>],
    now: Timestamp,
) -> Option<Duration> {
    if set.min_ready_seconds == 0 || status.ready_replicas == status.available_replicas {
        return None;
    }
    active
        .iter()
        .filter(|p| p.ready && !p.is_available(set.min_ready_seconds, now))
        .filter_map(|p| {
            let at = p.ready_changed?.as_second() + i64::from(set.min_ready_seconds);
            u64::try_from(at - now.as_second()).ok()
        })
        .min()
        .map(|seconds| Duration::from_secs(seconds.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(replicas: i32, status: Value) -> Set {
        Set::from_replica_set(
            serde_json::from_value(json!({
                "metadata": {"namespace": "ns", "name": "web", "uid": "u", "generation": 3},
                "spec": {"replicas": replicas, "minReadySeconds": 10, "selector": {"matchLabels": {"app": "web"}},
                    "template": {"metadata": {"labels": {"app": "web", "tier": "front"}}}},
                "status": status}))
            .unwrap(),
        )
        .unwrap()
    }

    fn pod(name: &str, labels: Value, ready_since: Option<&str>) -> Arc<PodView> {
        let conditions =
            ready_since.map(|at| json!([{"type": "Ready", "status": "True", "lastTransitionTime": at}]));
        Arc::new(PodView::new(
            &serde_json::from_value(json!({"metadata": {"name": name, "uid": name, "labels": labels},
                "status": {"phase": "Running", "conditions": conditions}}))
            .unwrap(),
        ))
    }

    fn now() -> Timestamp {
        "2026-01-01T00:01:00Z".parse().unwrap()
    }

    #[test]
    fn scales_within_the_burst() {
        let pods = [pod("a", json!({}), None), pod("b", json!({}), None)];
        let check = |replicas, create, delete| {
            let scaling = scaling(&set(replicas, json!({})), &pods, &pods, now());
            assert_eq!((scaling.create, scaling.delete.len()), (create, delete), "{replicas}");
        };
        check(2, 0, 0);
        check(3, 1, 0);
        check(0, 0, 2);
        check(5000, 500, 0);
    }

    #[test]
    fn status_counts() {
        let pods = [
            pod("a", json!({"app": "web", "tier": "front"}), Some("2026-01-01T00:00:00Z")),
            pod("b", json!({"app": "web"}), Some("2026-01-01T00:00:55Z")),
            pod("c", json!({"app": "web"}), None),
        ];
        let set = set(3, json!({"replicas": 0}));
        let status = status(&set, &pods, Some(1), None, now());
        assert_eq!(
            serde_json::to_value(&status).unwrap(),
            json!({"replicas": 3, "fullyLabeledReplicas": 1, "readyReplicas": 2, "availableReplicas": 1,
                "terminatingReplicas": 1, "observedGeneration": 3})
        );
        assert_eq!(available_later(&set, &status, &pods, now()), Some(Duration::from_secs(5)));
    }

    #[test]
    fn failures_show_until_they_are_over() {
        let failing =
            status(&set(1, json!({})), &[], None, Some(("FailedCreate", "quota".to_owned())), now());
        let json = serde_json::to_value(&failing).unwrap();
        assert_eq!(json["conditions"][0]["reason"], "FailedCreate");
        let mut later = set(1, json);
        let again = status(
            &later,
            &[],
            None,
            Some(("FailedCreate", "quota".to_owned())),
            "2026-01-01T00:02:00Z".parse().unwrap(),
        );
        assert_eq!(again, failing, "nothing to write while nothing changes");
        later.status = again;
        assert_eq!(status(&later, &[], None, None, now()).conditions, None);
    }
}
