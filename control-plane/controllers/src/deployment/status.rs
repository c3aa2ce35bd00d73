//! A Deployment's status: counts, Available, Progressing, ReplicaFailure, with upstream's reasons and messages. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::numbers::*;
use crate::set_condition;

const PROGRESSING: &str = "Progressing";

fn condition(kind: &str, status: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind)
}

fn set(status: &mut DeploymentStatus, new: DeploymentCondition) {
    set_condition!(status.conditions.get_or_insert_default(), new);
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_ != kind);
    }
}

/// The deadline, unless there is none (`MaxInt32` means none).
fn deadline(d: &Deployment) -> Option<i64> {
    d.spec.as_ref().and_then(|s| s.progress_deadline_seconds).filter(|s| *s != i32::MAX).map(i64::from)
}

/// All pods are of the new template, available, and no other is left.
pub fn is_complete(d: &Deployment, status: Option<&DeploymentStatus>) -> bool {
    let empty = DeploymentStatus::default();
    let status = status.unwrap_or(&empty);
    let wanted = Some(replicas(d));
    let or_zero = |n: Option<i32>| Some(n.unwrap_or(0));
    or_zero(status.updated_replicas) == wanted
        && or_zero(status.replicas) == wanted
        && or_zero(status.available_replicas) == wanted
        && status.observed_generation.unwrap_or(0) >= d.metadata.generation.unwrap_or(0)
}

/// Paused and resumed deployments must not seem stuck.
pub fn pause_condition(d: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    if deadline(d).is_none() {
        return;
    }
    let reason = find(status, PROGRESSING).and_then(|c| c.reason.as_deref());
    if reason == Some("ProgressDeadlineExceeded") {
        return;
    }
    let paused = d.spec.as_ref().and_then(|s| s.paused).unwrap_or(false);
    match (paused, reason == Some("DeploymentPaused")) {
        (true, false) => set(
            status,
            condition(PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused".to_owned(), now),
        ),
        (false, true) => set(
            status,
            condition(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed".to_owned(), now),
        ),
        _ => {}
    }
}

/// The new set was there already.
pub fn found_condition(d: &Deployment, status: &mut DeploymentStatus, set_name: &str, now: Timestamp) {
    if deadline(d).is_some() && find(status, PROGRESSING).is_none() {
        let message = format!("Found new replica set {set_name:?}");
        set(status, condition(PROGRESSING, "True", "FoundNewReplicaSet", message, now));
    }
}

/// The new set is made in this step.
pub fn created_condition(d: &Deployment, status: &mut DeploymentStatus, set_name: &str, now: Timestamp) {
    if deadline(d).is_some() {
        let message = format!("Created new replica set {set_name:?}");
        set(status, condition(PROGRESSING, "True", "NewReplicaSetCreated", message, now));
    }
}

/// The new set could not be made.
pub fn create_failed(d: &Deployment, status: &mut DeploymentStatus, error: &str, now: Timestamp) {
    if deadline(d).is_some() {
        let message = format!("Failed to create new replica set: {error}");
        set(status, condition(PROGRESSING, "False", "ReplicaSetCreateError", message, now));
    }
}

/// Counts and the Available condition.
pub fn calculate(
    d: &Deployment,
    sets: &[&ReplicaSet],
    new: Option<&ReplicaSet>,
    current: &DeploymentStatus,
    now: Timestamp,
) -> DeploymentStatus {
    let some = |n: i32| Some(n).filter(|n| *n != 0);
    let total: i32 = sets.iter().map(|rs| wanted(rs)).sum();
    let up: i32 = sets.iter().map(|rs| available(rs)).sum();
    let ready: i32 = sets.iter().filter_map(|rs| rs.status.as_ref()?.ready_replicas).sum();
    // Unknown as long as one set does not tell.
    let terminating: Option<i32> = sets
        .iter()
        .map(|rs| match &rs.status {
            Some(status) => status.terminating_replicas,
            None => Some(0),
        })
        .sum();
    let mut status = DeploymentStatus {
        observed_generation: d.metadata.generation,
        replicas: some(sets.iter().map(|rs| actual(rs)).sum()),
        updated_replicas: some(new.map_or(0, actual)),
        ready_replicas: some(ready),
        available_replicas: some(up),
        unavailable_replicas: some((total - up).max(0)),
        terminating_replicas: terminating,
        collision_count: current.collision_count,
        conditions: current.conditions.clone(),
    };
    let (value, reason, message) = if up >= replicas(d) - max_unavailable(d) {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut status, condition("Available", value, reason, message.to_owned(), now));
    status
}

fn is_progressing(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |value: Option<i32>| value.unwrap_or(0);
    let old_sets = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || old_sets(new) < old_sets(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

fn has_timed_out(d: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let (Some(deadline), Some(condition)) = (deadline(d), find(status, PROGRESSING)) else { return false };
    match condition.reason.as_deref() {
        // Done is done, and a deadline once missed stays so.
        Some("NewReplicaSetAvailable") => false,
        Some("ProgressDeadlineExceeded") => true,
        _ => condition
            .last_update_time
            .as_ref()
            .or(condition.last_transition_time.as_ref())
            .is_some_and(|from| from.0.as_second() + deadline < now.as_second()),
    }
}

/// The Progressing and ReplicaFailure conditions of a rollout (`syncRolloutStatus`).
pub fn with_progress(
    d: &Deployment,
    sets: &[&ReplicaSet],
    new: Option<&ReplicaSet>,
    mut status: DeploymentStatus,
    now: Timestamp,
) -> DeploymentStatus {
    let empty = DeploymentStatus::default();
    let before = d.status.as_ref().unwrap_or(&empty);
    let subject = match new {
        Some(rs) => format!("ReplicaSet {:?}", rs.metadata.name.as_deref().unwrap_or_default()),
        None => format!("Deployment {:?}", d.metadata.name.as_deref().unwrap_or_default()),
    };
    if deadline(d).is_none() {
        remove(&mut status, PROGRESSING);
    }
    let current = find(&status, PROGRESSING).cloned();
    let settled = status.replicas == status.updated_replicas
        && current.as_ref().is_some_and(|c| c.reason.as_deref() == Some("NewReplicaSetAvailable"));
    if deadline(d).is_some() && !settled {
        if is_complete(d, Some(&status)) {
            let message = format!("{subject} has successfully progressed.");
            set(&mut status, condition(PROGRESSING, "True", "NewReplicaSetAvailable", message, now));
        } else if is_progressing(before, &status) {
            let message = format!("{subject} is progressing.");
            let mut progress = condition(PROGRESSING, "True", "ReplicaSetUpdated", message, now);
            if let Some(current) = current.filter(|c| c.status == "True") {
                progress.last_transition_time = current.last_transition_time;
            }
            // The update time moves with every progress: the deadline counts from it.
            remove(&mut status, PROGRESSING);
            set(&mut status, progress);
        } else if has_timed_out(d, &status, now) {
            let message = format!("{subject} has timed out progressing.");
            set(&mut status, condition(PROGRESSING, "False", "ProgressDeadlineExceeded", message, now));
        }
    }
    let failure = |rs: &ReplicaSet| {
        rs.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == "ReplicaFailure").cloned()
    };
    match new.and_then(failure).or_else(|| sets.iter().find_map(|rs| failure(rs))) {
        Some(failed) => set(
            &mut status,
            DeploymentCondition {
                type_: "ReplicaFailure".to_owned(),
                status: failed.status,
                reason: failed.reason,
                message: failed.message,
                last_transition_time: failed.last_transition_time.clone(),
                last_update_time: failed.last_transition_time,
            },
        ),
        None => remove(&mut status, "ReplicaFailure"),
    }
    status
}

/// When to look whether the deadline has passed.
pub fn deadline_check(d: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let deadline = deadline(d)?;
    let condition = find(status, PROGRESSING)?;
    let paused = matches!(condition.reason.as_deref(), Some("DeploymentPaused"));
    if paused
        || is_complete(d, Some(status))
        || condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
    {
        return None;
    }
    let from = condition.last_update_time.as_ref()?.0.as_second();
    let left = from + deadline - now.as_second();
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0) + 1))
}
