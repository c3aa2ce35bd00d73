//! PodDisruptionBudget status: how many evictions are allowed now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use keelson_client::projections::{HasMeta, Meta, PodView, Selector, SharedInformers};
use keelson_client::{EventType, ObjectKey};
use keelson_daemon::Context;

use crate::kit::owned::Owner;
use crate::kit::patch::diff_of;
use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{ReconcileError, reference};

/// After this long an eviction that was granted and did not lead to a deletion is forgotten.
const DELETION_TIMEOUT: i64 = 120;

/// A budget's status, computed; `scale_of` tells the wanted replicas of a pod's controller, by the controller's uid.
fn plan(
    budget: &PodDisruptionBudget,
    pods: &[Arc<PodView>],
    scale_of: impl Fn(&PodView) -> Result<(Box<str>, i32), String>,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Option<Duration>, Option<String>) {
    let before = budget.status.clone().unwrap_or_default();
    let spec = budget.spec.clone().unwrap_or_default();
    let counted = expected(&spec.min_available, &spec.max_unavailable, pods, scale_of);
    let (disrupted, again) = still_disrupted(&before, pods, now);
    let mut status = PodDisruptionBudgetStatus {
        observed_generation: budget.metadata.generation,
        disrupted_pods: Some(disrupted.clone()).filter(|d| !d.is_empty()),
        ..before.clone()
    };
    let (expected, desired) = match counted {
        Ok(counts) => counts,
        Err(error) => {
            // Not knowing is no permission.
            status.disruptions_allowed = 0;
            set_condition(&mut status, "False", "SyncFailed", &error, budget.metadata.generation, now);
            return (status, again, Some(error));
        }
    };
    let healthy = pods
        .iter()
        .filter(|p| p.meta.deleted.is_none() && !disrupted.contains_key(&*p.meta.name) && p.ready)
        .count() as i32;
    status.expected_pods = expected;
    status.desired_healthy = desired;
    status.current_healthy = healthy;
    status.disruptions_allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let (value, reason) = if status.disruptions_allowed > 0 {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    set_condition(&mut status, value, reason, "", budget.metadata.generation, now);
    (status, again, None)
}

fn set_condition(
    status: &mut PodDisruptionBudgetStatus,
    value: &str,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let mut new = Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: Time(now),
    };
    match conditions.iter_mut().find(|c| c.type_ == new.type_) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time.clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

/// (expected pods, pods that must be healthy)
fn expected(
    min_available: &Option<IntOrString>,
    max_unavailable: &Option<IntOrString>,
    pods: &[Arc<PodView>],
    scale_of: impl Fn(&PodView) -> Result<(Box<str>, i32), String>,
) -> Result<(i32, i32), String> {
    let of_controllers = || -> Result<i32, String> {
        let mut scales: BTreeMap<Box<str>, i32> = BTreeMap::new();
        for pod in pods {
            let (uid, replicas) = scale_of(pod)?;
            scales.insert(uid, replicas);
        }
        Ok(scales.values().sum())
    };
    let scaled = crate::deployment::scaled;
    match (max_unavailable, min_available) {
        (Some(max), _) => {
            let expected = of_controllers()?;
            Ok((expected, (expected - scaled(max, expected, true)).max(0)))
        }
        (None, Some(IntOrString::Int(min))) => Ok((pods.len() as i32, *min)),
        (None, Some(min)) => {
            let expected = of_controllers()?;
            Ok((expected, scaled(min, expected, true)))
        }
        (None, None) => Ok((pods.len() as i32, 0)),
    }
}

/// Pods whose eviction was granted and that are not being deleted yet.
fn still_disrupted(
    status: &PodDisruptionBudgetStatus,
    pods: &[Arc<PodView>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Duration>) {
    let mut again: Option<i64> = None;
    let mut result = BTreeMap::new();
    for (name, granted) in status.disrupted_pods.iter().flatten() {
        let going = pods.iter().find(|p| *p.meta.name == **name).is_none_or(|p| p.meta.deleted.is_some());
        let left = granted.0.as_second() + DELETION_TIMEOUT - now.as_second();
        if !going && left > 0 {
            again = Some(again.map_or(left, |a| a.min(left)));
            result.insert(name.clone(), granted.clone());
        }
    }
    (result, again.map(|s| Duration::from_secs(s.unsigned_abs().max(1))))
}

struct Controller(Base);

/// The disruption controller; the future ends with the drain.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "controllermanager", shared, ctx);
    let queue = base.queue.clone();
    shared.budgets.on_change(move |change| queue.add(change.key.clone()));
    let (queue, budgets) = (base.queue.clone(), shared.budgets.clone());
    shared.pods.on_change(move |change| {
        if budgets.is_empty() {
            return;
        }
        let same = match (&change.old, &change.new) {
            (Some(old), Some(new)) => {
                old.ready == new.ready
                    && old.meta.deleted.is_some() == new.meta.deleted.is_some()
                    && old.meta.labels == new.meta.labels
                    && old.phase == new.phase
            }
            _ => false,
        };
        if !same {
            for (key, _) in budgets.list_namespace(&change.key.namespace) {
                queue.add(key);
            }
        }
    });
    let (queue, budgets) = (base.queue.clone(), shared.budgets.clone());
    shared.replica_sets.on_change(move |change| {
        if budgets.is_empty()
            || change
                .old
                .as_ref()
                .zip(change.new.as_ref())
                .is_some_and(|(o, n)| o.meta().generation == n.meta().generation)
        {
            return;
        }
        for (key, _) in budgets.list_namespace(&change.key.namespace) {
            queue.add(key);
        }
    });
    let controller = Arc::new(Controller(base.clone()));
    async move {
        let shared = base.shared.clone();
        let synced = async move {
            shared.budgets.synced().await;
            shared.pods.synced().await;
            shared.replica_sets.synced().await;
            shared.deployments.synced().await;
            shared.stateful_sets.synced().await;
            shared.replication_controllers.synced().await;
        };
        base.run(controller, 1, synced).await;
    }
}

impl Controller {
    /// The wanted replicas of a pod's controller, the Deployment's for a ReplicaSet that belongs to one.
    fn scale_of(&self, pod: &PodView) -> Result<(Box<str>, i32), String> {
        let shared = &self.0.shared;
        let none = || format!("found no controller ref for pod {:?}", &*pod.meta.name);
        let owner = pod.meta.controller().ok_or_else(none)?;
        let key = ObjectKey::new(pod.meta.namespace.clone(), owner.name.clone());
        let missing = || format!("controller {} {key} of pod {:?} is not known", owner.kind, &*pod.meta.name);
        match &*owner.kind {
            "ReplicaSet" => {
                let set = shared.replica_sets.get(&key).ok_or_else(missing)?;
                if let Some(above) = set.meta().controller().filter(|o| &*o.kind == "Deployment") {
                    let key = ObjectKey::new(pod.meta.namespace.clone(), above.name.clone());
                    let deployment =
                        shared.deployments.get(&key).and_then(|d| d.unpack().ok()).ok_or_else(missing)?;
                    return Ok((above.uid.clone(), deployment.spec.and_then(|s| s.replicas).unwrap_or(1)));
                }
                let replicas = set.unpack().map_err(|e| e.to_string())?.spec.and_then(|s| s.replicas);
                Ok((owner.uid.clone(), replicas.unwrap_or(1)))
            }
            "StatefulSet" => {
                let set = shared.stateful_sets.get(&key).and_then(|s| s.unpack().ok()).ok_or_else(missing)?;
                Ok((owner.uid.clone(), set.spec.and_then(|s| s.replicas).unwrap_or(1)))
            }
            "ReplicationController" => {
                let rc = shared
                    .replication_controllers
                    .get(&key)
                    .and_then(|s| s.unpack().ok())
                    .ok_or_else(missing)?;
                Ok((owner.uid.clone(), rc.spec.and_then(|s| s.replicas).unwrap_or(1)))
            }
            other => Err(format!("{other} {:?} does not implement the scale subresource here", &*owner.name)),
        }
    }

    fn pods(&self, meta: &Meta, selector: &Selector) -> Vec<Arc<PodView>> {
        self.0
            .shared
            .pods
            .list_namespace(&meta.namespace)
            .into_iter()
            .map(|(_, pod)| pod)
            .filter(|p| !p.phase.is_terminal() && selector.matches(&p.meta.labels))
            .collect()
    }
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        "disruption-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(packed) = self.0.shared.budgets.get(key) else { return Ok(None) };
        let budget = packed.unpack()?;
        let meta = packed.meta();
        let selector = Selector::from_label_selector(budget.spec.as_ref().and_then(|s| s.selector.as_ref()))
            .map_err(|error| ReconcileError::Invalid(error.to_string()))?;
        let pods = self.pods(meta, &selector);
        let about = || reference("policy/v1", "PodDisruptionBudget", meta);
        if pods.is_empty()
            && budget.status.as_ref().is_none_or(|s| s.observed_generation != budget.metadata.generation)
        {
            self.0.recorder.record(about(), EventType::Normal, "NoPods", "No matching pods found");
        }
        let (status, again, failure) = plan(&budget, &pods, |pod| self.scale_of(pod), self.0.ctx.clock.now());
        let current = budget.status.clone().unwrap_or_default();
        if let Some(patch) = diff_of(&current, &status)? {
            if let Some(failure) = failure {
                let text = format!("Failed to calculate the number of expected pods: {failure}");
                self.0.recorder.record(about(), EventType::Warning, "CalculateExpectedPodCountFailed", text);
            }
            Owner::<PodDisruptionBudget>::new(&self.0, meta).patch_status(patch).await?;
        }
        Ok(again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, ready: bool) -> Arc<PodView> {
        let ready = if ready { "True" } else { "False" };
        Arc::new(PodView::new(
            &serde_json::from_value(json!({"metadata": {"name": name}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}})).unwrap(),
        ))
    }

    fn counts(spec: Value, status: Value, pods: &[Arc<PodView>], scale: i32) -> (i32, i32, i32, i32) {
        let budget =
            serde_json::from_value(json!({"metadata": {"generation": 1}, "spec": spec, "status": status}))
                .unwrap();
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let (status, _, _) = plan(&budget, pods, |_| Ok(("c".into(), scale)), now);
        (status.expected_pods, status.desired_healthy, status.current_healthy, status.disruptions_allowed)
    }

    // Facts: pkg/controller/disruption/disruption_test.go.
    #[test]
    fn allowed_disruptions() {
        let none =
            || json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
        let three = [pod("a", true), pod("b", true), pod("c", false)];
        assert_eq!(counts(json!({"minAvailable": 1}), none(), &three, 3), (3, 1, 2, 1));
        assert_eq!(counts(json!({"minAvailable": 2}), none(), &three, 3), (3, 2, 2, 0));
        assert_eq!(counts(json!({"minAvailable": "28%"}), none(), &three, 10), (10, 3, 2, 0));
        assert_eq!(counts(json!({"maxUnavailable": 1}), none(), &three, 2), (2, 1, 2, 1));
        assert_eq!(counts(json!({"maxUnavailable": "30%"}), none(), &three, 3), (3, 2, 2, 0));
        assert_eq!(counts(json!({"minAvailable": 0}), none(), &[], 0), (0, 0, 0, 0));
        let mut evicted = none();
        evicted["disruptedPods"] =
            json!({"a": "2026-01-01T00:00:30Z", "gone": "2026-01-01T00:00:30Z", "b": "2025-12-31T00:00:00Z"});
        assert_eq!(counts(json!({"minAvailable": 0}), evicted, &three, 3), (3, 0, 1, 1));
    }

    #[test]
    fn not_knowing_is_no_permission() {
        let budget =
            serde_json::from_value(json!({"metadata": {"generation": 1}, "spec": {"maxUnavailable": 1}}))
                .unwrap();
        let (status, _, failure) = plan(
            &budget,
            &[pod("a", true)],
            |_| Err("no controller".to_owned()),
            "2026-01-01T00:01:00Z".parse().unwrap(),
        );
        assert_eq!((status.disruptions_allowed, failure.is_some()), (0, true));
        assert_eq!(status.conditions.unwrap()[0].reason, "SyncFailed");
    }
}
