//! What a Job should do next. Pure.
//!
//! A pod's end is counted in three steps, each safe to repeat: its uid is written to `uncountedTerminatedPods`; its
//! finalizer is removed; its uid moves from there into the counter. (Succeeded pods of indexed Jobs are counted by
//! their index.) A status is only ever written over the one it was computed from.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_client::projections::{PodPhase, PodView};

use super::indexes::{self, Indexes};
use super::pods::Wanted;
use super::policy::{Verdict, is_failed, may_retry_at, replaces_only_failed, success, verdict};
use super::{FINALIZER, INDEX, INDEX_FAILURES};
use crate::kit::pods::{BURST, to_delete};

/// Most uids that wait to be counted at once.
const MAX_UNCOUNTED: usize = 500;

/// A step.
#[derive(Debug, Default)]
pub struct Plan {
    pub status: JobStatus,
    /// Pods whose finalizer goes once the status is written.
    pub release: Vec<Arc<PodView>>,
    pub delete: Vec<Arc<PodView>>,
    pub create: Vec<Wanted>,
    /// (is a warning, reason, message)
    pub events: Vec<(bool, &'static str, String)>,
    pub again: Option<Duration>,
}

/// Why a Job ends.
#[derive(Clone, Debug)]
struct Target {
    succeeded: bool,
    reason: String,
    message: String,
}

struct Planner<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    pods: &'a [Arc<PodView>],
    now: Timestamp,
    plan: Plan,
    indexed: bool,
    completions: i32,
    uncounted: UncountedTerminatedPods,
    /// Succeeded indexes, with those counted in this step.
    done: Indexes,
    failed_indexes: Option<Indexes>,
}

fn is_true(status: &JobStatus, kind: &str) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == "True")
}

/// Whether the Job has come to its end.
pub fn is_finished(job: &Job) -> bool {
    job.status.as_ref().is_some_and(|s| is_true(s, "Complete") || is_true(s, "Failed"))
}

fn index_of(pod: &PodView) -> Option<i32> {
    pod.annotations.get(INDEX)?.parse().ok()
}

/// Decides the next step; `pods` are the Job's. `may_manage` is false while the cache is behind on pods.
pub fn plan(job: &Job, pods: &[Arc<PodView>], may_manage: bool, now: Timestamp) -> Plan {
    let empty = JobSpec::default();
    let spec = job.spec.as_ref().unwrap_or(&empty);
    let status = job.status.clone().unwrap_or_default();
    let completions = spec.completions.unwrap_or(i32::MAX);
    let text = |text: &Option<String>| indexes::parse(text.as_deref().unwrap_or_default(), completions);
    let mut planner = Planner {
        job,
        spec,
        pods,
        now,
        indexed: spec.completion_mode.as_deref() == Some("Indexed"),
        completions,
        uncounted: status.uncounted_terminated_pods.clone().unwrap_or_default(),
        done: text(&status.completed_indexes),
        failed_indexes: spec.backoff_limit_per_index.map(|_| text(&status.failed_indexes)),
        plan: Plan { status, ..Plan::default() },
    };
    if is_finished(job) {
        // Its pods are let go, nothing else.
        planner.plan.release = planner.held().cloned().collect();
        return planner.plan;
    }
    planner.run(may_manage);
    planner.plan
}

impl Planner<'_> {
    /// Pods whose end is not counted yet.
    fn held(&self) -> impl Iterator<Item = &Arc<PodView>> {
        self.pods.iter().filter(|p| p.meta.has_finalizer(FINALIZER))
    }

    fn in_range(&self, index: Option<i32>) -> bool {
        index.is_some_and(|i| (0..self.completions).contains(&i))
    }

    fn active(&self) -> Vec<Arc<PodView>> {
        self.pods.iter().filter(|p| p.is_active()).cloned().collect()
    }

    fn suspended(&self) -> bool {
        self.spec.suspend.unwrap_or(false)
    }

    fn run(&mut self, may_manage: bool) {
        if self.plan.status.start_time.is_none() && !self.suspended() {
            self.plan.status.start_time = Some(Time(self.now));
        }
        let settled = self.count_released();
        let active = self.active();
        let newly_done: Indexes = self
            .pods
            .iter()
            .filter(|p| p.phase == PodPhase::Succeeded && self.indexed)
            .filter_map(|p| index_of(p).filter(|i| self.in_range(Some(*i))))
            .collect();
        let all_done: Indexes = self.done.union(&newly_done).copied().collect();
        let (succeeded, failed) = self.totals(&all_done);
        self.fail_indexes(&all_done);
        let target = self.target(&active, succeeded, failed, &all_done);
        let mut left = active.len();
        if let Some(target) = &target {
            if self.job.metadata.deletion_timestamp.is_none() {
                self.plan.delete = active.clone();
                left = 0;
            }
            self.set_condition(
                if target.succeeded { "SuccessCriteriaMet" } else { "FailureTarget" },
                "True",
                &target.reason,
                &target.message,
            );
        } else if self.job.metadata.deletion_timestamp.is_none() {
            self.suspend_condition();
            if may_manage {
                self.manage(&active, succeeded, &all_done);
            }
        }
        self.release(target.as_ref());
        self.write_counts(&active, left);
        if let Some(target) = target {
            self.finish(target, settled);
        }
    }

    /// Moves what was released into the counters; true when nothing is left to count.
    fn count_released(&mut self) -> bool {
        let held: BTreeSet<String> = self.held().map(|p| p.meta.uid.to_string()).collect();
        let counted = |list: &mut Option<Vec<String>>| {
            let before = list.as_ref().map_or(0, Vec::len);
            if let Some(uids) = list {
                uids.retain(|uid| held.contains(uid));
            }
            (before - list.as_ref().map_or(0, Vec::len)) as i32
        };
        let succeeded = counted(&mut self.uncounted.succeeded);
        let failed = counted(&mut self.uncounted.failed);
        let status = &mut self.plan.status;
        if succeeded > 0 {
            status.succeeded = Some(status.succeeded.unwrap_or(0) + succeeded);
        }
        if failed > 0 {
            status.failed = Some(status.failed.unwrap_or(0) + failed);
        }
        held.is_empty()
    }

    fn listed(list: &Option<Vec<String>>, uid: &str) -> bool {
        list.iter().flatten().any(|u| u == uid)
    }

    /// All ends there are, counted or not.
    fn totals(&self, all_done: &Indexes) -> (i32, i32) {
        let status = &self.plan.status;
        let waiting = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len) as i32;
        let fresh = |p: &&Arc<PodView>| {
            !Self::listed(&self.uncounted.succeeded, &p.meta.uid)
                && !Self::listed(&self.uncounted.failed, &p.meta.uid)
        };
        let succeeded = if self.indexed {
            all_done.len() as i32
        } else {
            let new = self.held().filter(fresh).filter(|p| p.phase == PodPhase::Succeeded).count() as i32;
            status.succeeded.unwrap_or(0) + waiting(&self.uncounted.succeeded) + new
        };
        let new = self.held().filter(fresh).filter(|p| self.counts_as_failed(p)).count() as i32;
        (succeeded, status.failed.unwrap_or(0) + waiting(&self.uncounted.failed) + new)
    }

    fn counts_as_failed(&self, pod: &PodView) -> bool {
        is_failed(self.job, pod)
            && (!self.indexed || self.in_range(index_of(pod)))
            && verdict(self.spec.pod_failure_policy.as_ref(), pod) != Verdict::Ignore
    }

    /// How often an index failed, as its pods tell.
    fn failures_of(&self, index: i32) -> i32 {
        let before =
            |p: &PodView| p.annotations.get(INDEX_FAILURES).and_then(|n| n.parse::<i32>().ok()).unwrap_or(0);
        let failed = self.pods.iter().filter(|p| index_of(p) == Some(index) && self.counts_as_failed(p));
        failed.map(|p| before(p) + 1).max().unwrap_or(0)
    }

    fn fail_indexes(&mut self, all_done: &Indexes) {
        let Some(limit) = self.spec.backoff_limit_per_index else { return };
        let policy = self.spec.pod_failure_policy.as_ref();
        let mut failed = self.failed_indexes.take().unwrap_or_default();
        for pod in self.pods.iter().filter(|p| is_failed(self.job, p)) {
            let Some(index) = index_of(pod).filter(|i| self.in_range(Some(*i)) && !all_done.contains(i))
            else {
                continue;
            };
            if verdict(policy, pod) == Verdict::FailIndex || self.failures_of(index) > limit {
                failed.insert(index);
            }
        }
        self.plan.status.failed_indexes = Some(indexes::format(&failed)).filter(|t| !t.is_empty());
        self.failed_indexes = Some(failed);
    }

    fn target(
        &self,
        active: &[Arc<PodView>],
        succeeded: i32,
        failed: i32,
        all_done: &Indexes,
    ) -> Option<Target> {
        let status = &self.plan.status;
        let target = |succeeded, reason: &str, message: String| {
            Some(Target { succeeded, reason: reason.to_owned(), message })
        };
        // Once set, it stays.
        for (kind, succeeded) in [("FailureTarget", false), ("SuccessCriteriaMet", true)] {
            if let Some(c) =
                status.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == "True")
            {
                return target(
                    succeeded,
                    c.reason.as_deref().unwrap_or_default(),
                    c.message.clone().unwrap_or_default(),
                );
            }
        }
        let policy = self.spec.pod_failure_policy.as_ref();
        for pod in self.pods.iter().filter(|p| policy.is_some() && is_failed(self.job, p)) {
            if let Verdict::FailJob(message) = verdict(policy, pod) {
                return target(false, "PodFailurePolicy", message);
            }
        }
        let limit =
            self.spec.backoff_limit.unwrap_or(if self.failed_indexes.is_some() { i32::MAX } else { 6 });
        if failed > limit || self.restarts_exceed(active, limit) {
            return target(
                false,
                "BackoffLimitExceeded",
                "Job has reached the specified backoff limit".to_owned(),
            );
        }
        if self.deadline_left().is_some_and(|left| left <= 0) {
            return target(
                false,
                "DeadlineExceeded",
                "Job was active longer than specified deadline".to_owned(),
            );
        }
        if let Some(failed) = self.failed_indexes.as_ref().filter(|f| self.indexed && !f.is_empty()) {
            let most = self.spec.max_failed_indexes.and_then(|n| usize::try_from(n).ok());
            if most.is_some_and(|most| failed.len() > most) {
                let text = "Job has exceeded the specified maximal number of failed indexes";
                return target(false, "MaxFailedIndexesExceeded", text.to_owned());
            }
            if failed.len() + all_done.len() >= usize::try_from(self.completions).unwrap_or(usize::MAX) {
                return target(false, "FailedIndexes", "Job has failed indexes".to_owned());
            }
        }
        if let Some(message) = success(self.spec.success_policy.as_ref(), self.completions, all_done) {
            return target(true, "SuccessPolicy", message);
        }
        let complete = match self.spec.completions {
            None => succeeded > 0 && active.is_empty(),
            Some(completions) => succeeded >= completions && active.is_empty(),
        };
        if complete && !self.suspended_without_start() {
            return target(
                true,
                "CompletionsReached",
                "Reached expected number of succeeded pods".to_owned(),
            );
        }
        None
    }

    /// `completions: 0` is complete at once, but not while it is suspended from the start.
    fn suspended_without_start(&self) -> bool {
        self.suspended() && self.spec.completions == Some(0)
    }

    /// With restartPolicy OnFailure the containers' restarts are the failures.
    fn restarts_exceed(&self, active: &[Arc<PodView>], limit: i32) -> bool {
        let on_failure =
            self.spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()) == Some("OnFailure");
        if !on_failure || limit == i32::MAX {
            return false;
        }
        let restarts: i64 = active.iter().map(|p| i64::from(p.restart_sum)).sum();
        if limit == 0 { restarts > 0 } else { restarts >= i64::from(limit) }
    }

    fn deadline_left(&self) -> Option<i64> {
        let deadline = self.spec.active_deadline_seconds.filter(|_| !self.suspended())?;
        let started = self.plan.status.start_time.as_ref()?;
        Some(started.0.as_second() + deadline - self.now.as_second())
    }

    fn set_condition(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let conditions = self.plan.status.conditions.get_or_insert_default();
        if let Some(c) = conditions.iter_mut().find(|c| c.type_ == kind) {
            if c.status == status && c.reason.as_deref() == Some(reason) {
                return;
            }
            if c.status != status {
                c.last_transition_time = Some(Time(self.now));
            }
            c.status = status.to_owned();
            c.reason = Some(reason.to_owned());
            c.message = Some(message.to_owned());
            c.last_probe_time = Some(Time(self.now));
            return;
        }
        conditions.push(JobCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(Time(self.now)),
            last_transition_time: Some(Time(self.now)),
        });
    }

    fn suspend_condition(&mut self) {
        let was = is_true(&self.plan.status, "Suspended");
        if self.suspended() && !was {
            self.set_condition("Suspended", "True", "JobSuspended", "Job suspended");
            self.plan.events.push((false, "Suspended", "Job suspended".to_owned()));
        } else if !self.suspended() && was {
            self.set_condition("Suspended", "False", "JobResumed", "Job resumed");
            self.plan.events.push((false, "Resumed", "Job resumed".to_owned()));
            // The deadline counts from the resumption.
            self.plan.status.start_time = Some(Time(self.now));
        }
    }

    /// Pods to make or delete (`manageJob`).
    fn manage(&mut self, active: &[Arc<PodView>], succeeded: i32, all_done: &Indexes) {
        if let Some(left) = self.deadline_left() {
            self.later(left);
        }
        if self.suspended() {
            self.plan.delete = active.to_vec();
            return;
        }
        let parallelism = self.spec.parallelism.unwrap_or(1).max(0);
        let wanted = match self.spec.completions {
            None if succeeded > 0 => active.len() as i32,
            None => parallelism,
            Some(completions) => {
                let failed = self.failed_indexes.as_ref().map_or(0, |f| f.len() as i32);
                (completions - succeeded - failed).min(parallelism).max(0)
            }
        };
        let wanted = usize::try_from(wanted).unwrap_or(0);
        let surplus = self.surplus(active, wanted, all_done);
        if !surplus.is_empty() {
            self.plan.delete = surplus;
            return;
        }
        let leaving = self.pods.iter().filter(|p| p.meta.deleted.is_some() && !p.phase.is_terminal()).count();
        let taken = active.len() + if replaces_only_failed(self.job) { leaving } else { 0 };
        let missing = wanted.saturating_sub(taken).min(BURST);
        if missing == 0 {
            return;
        }
        if let Some(at) = self.retry_time() {
            let left = at.as_second() - self.now.as_second();
            if left > 0 {
                return self.later(left);
            }
        }
        self.plan.create = self.pods_to_make(missing, all_done);
    }

    /// Pods above the wanted number, and those whose index is doubled, done or out of range.
    fn surplus(&self, active: &[Arc<PodView>], wanted: usize, all_done: &Indexes) -> Vec<Arc<PodView>> {
        let mut surplus: Vec<Arc<PodView>> = Vec::new();
        let mut good: Vec<Arc<PodView>> = Vec::new();
        if self.indexed {
            let mut seen = Indexes::new();
            for pod in active {
                match index_of(pod).filter(|i| self.in_range(Some(*i))) {
                    Some(index) if !all_done.contains(&index) && seen.insert(index) => good.push(pod.clone()),
                    _ => surplus.push(pod.clone()),
                }
            }
        } else {
            good = active.to_vec();
        }
        if good.len() > wanted {
            surplus.extend(to_delete(&good, &[], good.len() - wanted, self.now));
        }
        surplus.truncate(BURST);
        surplus
    }

    /// When the back-off after failures ends; with `backoffLimitPerIndex` every index has its own.
    fn retry_time(&self) -> Option<Timestamp> {
        if self.failed_indexes.is_some() {
            return None;
        }
        may_retry_at(self.job, self.pods.iter().map(|p| &**p))
    }

    fn later(&mut self, seconds: i64) {
        let delay = Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1));
        self.plan.again = Some(self.plan.again.map_or(delay, |a| a.min(delay)));
    }

    fn pods_to_make(&mut self, missing: usize, all_done: &Indexes) -> Vec<Wanted> {
        if !self.indexed {
            return vec![Wanted { index: None, failures: None }; missing];
        }
        let replace_only_failed = replaces_only_failed(self.job);
        let taken: Indexes = self
            .pods
            .iter()
            .filter(|p| p.is_active() || (replace_only_failed && !p.phase.is_terminal()))
            .filter_map(|p| index_of(p))
            .collect();
        let failed = self.failed_indexes.clone();
        let mut wanted = Vec::new();
        for index in 0..self.completions {
            if wanted.len() >= missing {
                break;
            }
            if taken.contains(&index)
                || all_done.contains(&index)
                || failed.as_ref().is_some_and(|f| f.contains(&index))
            {
                continue;
            }
            let mut failures = None;
            if failed.is_some() {
                let of_index = || self.pods.iter().map(|p| &**p).filter(move |p| index_of(p) == Some(index));
                let left =
                    may_retry_at(self.job, of_index()).map_or(0, |at| at.as_second() - self.now.as_second());
                if left > 0 {
                    self.later(left);
                    continue;
                }
                failures = Some(self.failures_of(index));
            }
            wanted.push(Wanted { index: Some(index), failures });
        }
        wanted
    }

    /// Notes the ends of pods and lets those pods go.
    fn release(&mut self, target: Option<&Target>) {
        let deleting = self.job.metadata.deletion_timestamp.is_some();
        let held: Vec<Arc<PodView>> = self.held().cloned().collect();
        for pod in held {
            let failed = is_failed(self.job, &pod);
            let may_go = deleting || target.is_some() || pod.phase == PodPhase::Succeeded || failed;
            if !may_go {
                continue;
            }
            let waiting = |u: &UncountedTerminatedPods| {
                u.succeeded.as_ref().map_or(0, Vec::len) + u.failed.as_ref().map_or(0, Vec::len)
            };
            if waiting(&self.uncounted) >= MAX_UNCOUNTED {
                break;
            }
            let uid = pod.meta.uid.to_string();
            if pod.phase == PodPhase::Succeeded {
                if self.indexed {
                    if let Some(index) = index_of(&pod).filter(|i| self.in_range(Some(*i))) {
                        self.done.insert(index);
                    }
                } else if !Self::listed(&self.uncounted.succeeded, &uid) {
                    self.uncounted.succeeded.get_or_insert_default().push(uid);
                }
            } else if failed || target.is_some_and(|t| !t.succeeded) {
                let counts = if failed {
                    self.counts_as_failed(&pod)
                } else {
                    !self.indexed || self.in_range(index_of(&pod))
                };
                if counts && !Self::listed(&self.uncounted.failed, &uid) {
                    self.uncounted.failed.get_or_insert_default().push(uid);
                }
            }
            self.plan.release.push(pod);
        }
    }

    fn write_counts(&mut self, active: &[Arc<PodView>], left: usize) {
        let some = |n: usize| Some(n as i32).filter(|n| *n > 0);
        let deleted: BTreeSet<&str> = self.plan.delete.iter().map(|p| &*p.meta.uid).collect();
        let ready = active.iter().filter(|p| p.ready && !deleted.contains(&*p.meta.uid)).count();
        let leaving = self.pods.iter().filter(|p| p.meta.deleted.is_some() && !p.phase.is_terminal()).count();
        let staying = if left == 0 { 0 } else { active.len() - deleted.len() };
        let status = &mut self.plan.status;
        status.active = some(staying + self.plan.create.len());
        status.ready = Some(ready as i32);
        status.terminating = Some((leaving + deleted.len()) as i32);
        if self.indexed {
            status.succeeded = some(self.done.len());
            status.completed_indexes = Some(indexes::format(&self.done)).filter(|t| !t.is_empty());
        }
        let some_list = |list: &mut Option<Vec<String>>| {
            if list.as_ref().is_some_and(Vec::is_empty) {
                *list = None;
            }
        };
        some_list(&mut self.uncounted.succeeded);
        some_list(&mut self.uncounted.failed);
        status.uncounted_terminated_pods = Some(self.uncounted.clone());
    }

    /// The last condition comes when every pod has ended and is counted.
    fn finish(&mut self, target: Target, settled: bool) {
        let quiet = self
            .pods
            .iter()
            .all(|p| p.phase.is_terminal() || !p.meta.has_finalizer(FINALIZER) && p.meta.deleted.is_none());
        let leaving = self.pods.iter().any(|p| !p.phase.is_terminal());
        let counted = self.uncounted.succeeded.is_none() && self.uncounted.failed.is_none();
        if !(settled && quiet && !leaving && counted && self.plan.release.is_empty()) {
            return;
        }
        let (kind, warning) = if target.succeeded { ("Complete", false) } else { ("Failed", true) };
        self.set_condition(kind, "True", &target.reason, &target.message);
        let status = &mut self.plan.status;
        status.uncounted_terminated_pods = Some(UncountedTerminatedPods::default());
        status.terminating = Some(0);
        if target.succeeded {
            status.completion_time = Some(Time(self.now));
            self.plan.events.push((false, "Completed", "Job completed".to_owned()));
        } else {
            let reason = match target.reason.as_str() {
                "BackoffLimitExceeded" => "BackoffLimitExceeded",
                "DeadlineExceeded" => "DeadlineExceeded",
                "PodFailurePolicy" => "PodFailurePolicy",
                "MaxFailedIndexesExceeded" => "MaxFailedIndexesExceeded",
                _ => "FailedIndexes",
            };
            self.plan.events.push((warning, reason, target.message));
        }
    }
}
