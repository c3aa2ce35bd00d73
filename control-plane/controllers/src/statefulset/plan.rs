//! The next step of a StatefulSet. Pure; follows upstream's `updateStatefulSet`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use keelson_client::projections::{PodPhase, PodView};

use super::pods::ordinal;
use crate::deployment::numbers::scaled;
use crate::kit::history::REVISION_LABEL;

/// A pod to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub ordinal: i32,
    /// Of the update's template, not the current one's.
    pub updated: bool,
}

/// A step.
#[derive(Debug, Default)]
pub struct Plan {
    pub create: Vec<Wanted>,
    pub delete: Vec<Arc<PodView>>,
    pub status: StatefulSetStatus,
    pub again: Option<Duration>,
}

struct Planner<'a> {
    set: &'a StatefulSet,
    current: &'a str,
    updated: &'a str,
    ordered: bool,
    min_ready: i32,
    start: i32,
    partition: i32,
    /// How many pods an update may make unavailable, one at least.
    unavailable: i32,
    now: Timestamp,
    /// Pods by ordinal less the first, wanted ones.
    replicas: Vec<Option<Arc<PodView>>>,
    /// Pods beyond the wanted ones, the highest first.
    condemned: Vec<Arc<PodView>>,
    plan: Plan,
}

/// Decides; `current` and `updated` are names of revisions.
pub fn plan(set: &StatefulSet, pods: &[Arc<PodView>], current: &str, updated: &str, now: Timestamp) -> Plan {
    let spec = set.spec.clone().unwrap_or_default();
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let start = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
    let count = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let mut replicas: Vec<Option<Arc<PodView>>> = vec![None; count];
    let mut condemned: Vec<(i32, Arc<PodView>)> = Vec::new();
    for pod in pods {
        let Some(at) = ordinal(name, pod) else { continue };
        match usize::try_from(at - start).ok().and_then(|i| replicas.get_mut(i)) {
            Some(slot) => *slot = Some(pod.clone()),
            None => condemned.push((at, pod.clone())),
        }
    }
    condemned.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    let rolling = spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let mut planner = Planner {
        set,
        current,
        updated,
        ordered: spec.pod_management_policy.as_deref() != Some("Parallel"),
        min_ready: spec.min_ready_seconds.unwrap_or(0),
        start,
        partition: rolling.and_then(|r| r.partition).unwrap_or(0),
        unavailable: rolling
            .and_then(|r| r.max_unavailable.as_ref())
            .map_or(1, |most| scaled(most, spec.replicas.unwrap_or(1), false))
            .max(1),
        now,
        replicas,
        condemned: condemned.into_iter().map(|(_, pod)| pod).collect(),
        plan: Plan::default(),
    };
    planner.plan.status = planner.status();
    if set.metadata.deletion_timestamp.is_none() {
        planner.step(spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("OnDelete"));
    }
    planner.finish_update();
    planner.plan
}

fn revision(pod: &PodView) -> &str {
    pod.meta.labels.get(REVISION_LABEL).unwrap_or_default()
}

impl Planner<'_> {
    fn status(&self) -> StatefulSetStatus {
        let all = || self.replicas.iter().flatten().chain(&self.condemned);
        let count = |f: &dyn Fn(&PodView) -> bool| all().filter(|p| f(p)).count() as i32;
        let some = |n: i32| Some(n).filter(|n| *n > 0);
        let before = self.set.status.clone().unwrap_or_default();
        StatefulSetStatus {
            observed_generation: self.set.metadata.generation,
            replicas: count(&|_| true),
            ready_replicas: some(count(&|p| self.runs(p) && p.ready)),
            available_replicas: Some(count(&|p| self.runs(p) && p.is_available(self.min_ready, self.now))),
            current_replicas: some(count(&|p| p.meta.deleted.is_none() && revision(p) == self.current)),
            updated_replicas: some(count(&|p| p.meta.deleted.is_none() && revision(p) == self.updated)),
            current_revision: Some(self.current.to_owned()),
            update_revision: Some(self.updated.to_owned()),
            collision_count: before.collision_count,
            conditions: before.conditions,
        }
    }

    fn runs(&self, pod: &PodView) -> bool {
        pod.phase == PodPhase::Running
    }

    fn healthy(&self, pod: &PodView) -> bool {
        self.runs(pod) && pod.ready && pod.meta.deleted.is_none()
    }

    fn wanted(&self, index: usize) -> Wanted {
        let ordinal = self.start + index as i32;
        Wanted { ordinal, updated: ordinal >= self.start + self.partition }
    }

    /// True when the step ends here.
    fn replica(&mut self, index: usize) -> bool {
        let Some(pod) = self.replicas[index].clone() else {
            self.plan.create.push(self.wanted(index));
            return self.ordered;
        };
        if pod.phase.is_terminal() {
            // Ended pods are made anew under their name, once they are gone.
            if pod.meta.deleted.is_none() {
                self.plan.delete.push(pod);
            }
            return self.ordered;
        }
        if !self.ordered {
            return false;
        }
        if pod.meta.deleted.is_some() || !self.healthy(&pod) {
            return true;
        }
        if !pod.is_available(self.min_ready, self.now) {
            self.wait_for(&pod);
            return true;
        }
        false
    }

    fn wait_for(&mut self, pod: &PodView) {
        let at = pod.ready_changed.map_or(0, |t| t.as_second() + i64::from(self.min_ready));
        let left = u64::try_from(at - self.now.as_second()).unwrap_or(0).max(1);
        self.plan.again = Some(Duration::from_secs(left));
    }

    fn step(&mut self, on_delete: bool) {
        for index in 0..self.replicas.len() {
            if self.replica(index) {
                return;
            }
        }
        if !self.plan.create.is_empty() || !self.plan.delete.is_empty() {
            return;
        }
        let unhealthy = |p: &Arc<PodView>| !self.healthy(p);
        let first_unhealthy =
            self.replicas.iter().flatten().chain(&self.condemned).find(|p| unhealthy(p)).cloned();
        for pod in self.condemned.clone() {
            if pod.meta.deleted.is_some() {
                if self.ordered {
                    return;
                }
                continue;
            }
            let is_first = first_unhealthy.as_ref().is_some_and(|f| Arc::ptr_eq(f, &pod));
            if self.ordered && !self.healthy(&pod) && !is_first {
                return;
            }
            self.plan.delete.push(pod);
            if self.ordered {
                return;
            }
        }
        if !self.plan.delete.is_empty() || on_delete {
            return;
        }
        self.roll();
    }

    /// The highest pods that are not of the update's revision go, as many at a time as may be unavailable.
    fn roll(&mut self) {
        if self.unavailable > 1 {
            return self.roll_several();
        }
        let lowest = usize::try_from(self.partition).unwrap_or(0);
        for index in (lowest..self.replicas.len()).rev() {
            let Some(pod) = self.replicas[index].clone() else { return };
            if revision(&pod) != self.updated && pod.meta.deleted.is_none() {
                self.plan.delete.push(pod);
                return;
            }
            if !self.healthy(&pod) {
                return;
            }
            if !pod.is_available(self.min_ready, self.now) {
                return self.wait_for(&pod);
            }
        }
    }

    fn roll_several(&mut self) {
        let lowest = usize::try_from(self.partition).unwrap_or(0);
        let pods: Vec<Arc<PodView>> = self.replicas.iter().flatten().cloned().collect();
        let mut free = self.unavailable;
        for pod in &pods {
            let available = self.healthy(pod) && pod.is_available(self.min_ready, self.now);
            if !available {
                free -= 1;
            }
            if !available && self.healthy(pod) {
                self.wait_for(pod);
            }
        }
        for pod in pods.into_iter().skip(lowest).rev() {
            if free <= 0 {
                return;
            }
            if revision(&pod) != self.updated && pod.meta.deleted.is_none() {
                self.plan.delete.push(pod);
                free -= 1;
            }
        }
    }

    fn finish_update(&mut self) {
        let status = &mut self.plan.status;
        let all = Some(status.replicas).filter(|n| *n > 0);
        if status.updated_replicas == all && status.ready_replicas == all && self.condemned.is_empty() {
            status.current_replicas = status.updated_replicas;
            status.current_revision = status.update_revision.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(spec: Value) -> StatefulSet {
        let mut json = json!({"metadata": {"namespace": "ns", "name": "db", "uid": "s", "generation": 1},
            "spec": {"replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}}, "template": {}}});
        for (key, value) in spec.as_object().unwrap() {
            json["spec"][key] = value.clone();
        }
        serde_json::from_value(json).unwrap()
    }

    fn pod(ordinal: i32, revision: &str, state: &str) -> Arc<PodView> {
        let (phase, ready, deleted) = match state {
            "ready" => ("Running", "True", false),
            "unready" => ("Running", "False", false),
            "leaving" => ("Running", "True", true),
            other => (other, "False", false),
        };
        Arc::new(PodView::new(&serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": format!("db-{ordinal}"), "uid": format!("u{ordinal}"),
                "labels": {"controller-revision-hash": revision}, "deletionTimestamp": deleted.then_some("2026-01-01T00:00:00Z")},
            "spec": {"containers": [], "nodeName": "n"},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})).unwrap()))
    }

    fn step(set: &StatefulSet, pods: &[Arc<PodView>], current: &str) -> String {
        let plan = plan(set, pods, current, "r2", "2026-01-01T01:00:00Z".parse().unwrap());
        let made: Vec<String> = plan
            .create
            .iter()
            .map(|w| format!("{}{}", w.ordinal, if w.updated { "u" } else { "c" }))
            .collect();
        let gone: Vec<&str> = plan.delete.iter().map(|p| &*p.meta.name).collect();
        format!("+{} -{}", made.join(","), gone.join(","))
    }

    // Facts: stateful_set_control_test.go.
    #[test]
    fn pods_come_one_after_the_other() {
        let s = set(json!({}));
        assert_eq!(step(&s, &[], "r2"), "+0u -");
        assert_eq!(step(&s, &[pod(0, "r2", "Pending")], "r2"), "+ -");
        assert_eq!(step(&s, &[pod(0, "r2", "ready")], "r2"), "+1u -");
        assert_eq!(step(&set(json!({"podManagementPolicy": "Parallel"})), &[], "r2"), "+0u,1u,2u -");
        assert_eq!(step(&set(json!({"ordinals": {"start": 5}})), &[], "r2"), "+5u -");
        assert_eq!(step(&s, &[pod(0, "r2", "Failed")], "r2"), "+ -db-0");
        assert_eq!(step(&s, &[pod(0, "r2", "leaving"), pod(1, "r2", "ready")], "r2"), "+ -");
    }

    #[test]
    fn the_highest_go_first() {
        let s = set(json!({"replicas": 1}));
        let pods = |state: &str| [pod(0, "r2", "ready"), pod(1, "r2", "ready"), pod(2, "r2", state)];
        assert_eq!(step(&s, &pods("ready"), "r2"), "+ -db-2");
        assert_eq!(step(&s, &pods("leaving"), "r2"), "+ -");
        assert_eq!(step(&s, &pods("unready"), "r2"), "+ -db-2");
        assert_eq!(
            step(&set(json!({"replicas": 1, "podManagementPolicy": "Parallel"})), &pods("ready"), "r2"),
            "+ -db-2,db-1"
        );
    }

    #[test]
    fn updates_roll_from_the_highest_down_to_the_partition() {
        let old =
            |high: &str, state: &str| [pod(0, "r1", "ready"), pod(1, "r1", "ready"), pod(2, high, state)];
        let s = set(json!({}));
        assert_eq!(step(&s, &old("r1", "ready"), "r1"), "+ -db-2");
        assert_eq!(step(&s, &old("r2", "unready"), "r1"), "+ -");
        assert_eq!(step(&s, &old("r2", "ready"), "r1"), "+ -db-1");
        let several = |most: Value| {
            set(json!({"podManagementPolicy": "Parallel", "updateStrategy": {"type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": most}}}))
        };
        assert_eq!(step(&several(json!(2)), &old("r1", "ready"), "r1"), "+ -db-2,db-1");
        assert_eq!(step(&several(json!(2)), &old("r2", "unready"), "r1"), "+ -db-1");
        assert_eq!(step(&several(json!("67%")), &old("r2", "unready"), "r1"), "+ -db-1");
        assert_eq!(step(&several(json!("10%")), &old("r1", "ready"), "r1"), "+ -db-2");
        let partitioned =
            set(json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}));
        assert_eq!(step(&partitioned, &old("r2", "ready"), "r1"), "+ -");
        assert_eq!(step(&partitioned, &[], "r1"), "+0c -");
        assert_eq!(
            step(&set(json!({"updateStrategy": {"type": "OnDelete"}})), &old("r1", "ready"), "r1"),
            "+ -"
        );
    }

    #[test]
    fn the_update_becomes_current_when_all_have_it() {
        let all = [pod(0, "r2", "ready"), pod(1, "r2", "ready"), pod(2, "r2", "ready")];
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let done = plan(&set(json!({})), &all, "r1", "r2", now).status;
        assert_eq!((done.current_revision.as_deref(), done.current_replicas), (Some("r2"), Some(3)));
        let part = plan(&set(json!({})), &all[..2], "r1", "r2", now).status;
        assert_eq!(part.replicas, 2);
        assert_eq!(part.available_replicas, Some(2));
    }
}
