//! Failure policy, success policy and back-off. Pure.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, PodFailurePolicy, SuccessPolicy};
use keelson_client::projections::{PodPhase, PodView};

use super::indexes::{Indexes, parse};

/// What a failure policy says of a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The Job fails, with this message.
    FailJob(String),
    /// The pod's index fails.
    FailIndex,
    /// The failure does not count.
    Ignore,
    Count,
}

/// The first rule that matches decides.
pub fn verdict(policy: Option<&PodFailurePolicy>, pod: &PodView) -> Verdict {
    let Some(ended) = &pod.ended else { return Verdict::Count };
    for (at, rule) in policy.iter().flat_map(|p| &p.rules).enumerate() {
        let matched = if let Some(codes) = &rule.on_exit_codes {
            ended.containers.iter().find_map(|container| {
                let named = codes.container_name.as_deref().is_none_or(|n| n == &*container.name);
                let listed = codes.values.contains(&container.exit_code);
                let matches = match codes.operator.as_str() {
                    "In" => listed,
                    "NotIn" => !listed,
                    _ => false,
                };
                (named && container.exit_code != 0 && matches).then(|| {
                    format!(
                        "Container {} for pod {}/{} failed with exit code {} matching {} rule at index {at}",
                        container.name, pod.meta.namespace, pod.meta.name, container.exit_code, rule.action
                    )
                })
            })
        } else {
            let patterns = || rule.on_pod_conditions.iter().flatten();
            ended
                .conditions
                .iter()
                .find(|(kind, status)| {
                    patterns()
                        .any(|p| *p.type_ == **kind && p.status.as_deref().unwrap_or("True") == &**status)
                })
                .map(|(kind, _)| {
                    format!(
                        "Pod {}/{} has condition {kind} matching {} rule at index {at}",
                        pod.meta.namespace, pod.meta.name, rule.action
                    )
                })
        };
        let Some(message) = matched else { continue };
        match rule.action.as_str() {
            "FailJob" => return Verdict::FailJob(message),
            "FailIndex" => return Verdict::FailIndex,
            "Ignore" => return Verdict::Ignore,
            "Count" => return Verdict::Count,
            _ => {}
        }
    }
    Verdict::Count
}

/// The message of the success rule that is met.
pub fn success(policy: Option<&SuccessPolicy>, completions: i32, succeeded: &Indexes) -> Option<String> {
    for (at, rule) in policy?.rules.iter().enumerate() {
        let wanted = rule.succeeded_indexes.as_deref().map(|text| parse(text, completions));
        let met = match &wanted {
            Some(wanted) => wanted.intersection(succeeded).count(),
            None => succeeded.len(),
        };
        let enough = match (rule.succeeded_count, &wanted) {
            (Some(count), _) => usize::try_from(count).unwrap_or(0),
            (None, Some(wanted)) => wanted.len(),
            (None, None) => continue,
        };
        if met >= enough {
            return Some(format!("Matched rules at index {at}"));
        }
    }
    None
}

/// Only pods that ended as Failed are replaced, not those that are being deleted.
pub fn replaces_only_failed(job: &Job) -> bool {
    let spec = job.spec.as_ref();
    spec.is_some_and(|s| {
        s.pod_replacement_policy.as_deref() == Some("Failed") || s.pod_failure_policy.is_some()
    })
}

/// Whether a pod counts as failed.
pub fn is_failed(job: &Job, pod: &PodView) -> bool {
    match pod.phase {
        PodPhase::Failed => true,
        PodPhase::Succeeded => false,
        // It will never get to Failed: nothing says that a kubelet is left to write it.
        _ => !replaces_only_failed(job) && pod.meta.deleted.is_some(),
    }
}

const FIRST_DELAY: i64 = 10;
const LONGEST_DELAY: i64 = 600;

fn finished(pod: &PodView) -> Timestamp {
    pod.ended.as_ref().and_then(|e| e.finished).or(pod.meta.deleted).unwrap_or(pod.meta.created)
}

/// When pods may be made again after failures: 10 s after the first, doubled by each up to 10 min, until one succeeds.
pub fn may_retry_at<'a>(job: &Job, pods: impl Iterator<Item = &'a PodView> + Clone) -> Option<Timestamp> {
    let last_success = pods.clone().filter(|p| p.phase == PodPhase::Succeeded).map(finished).max();
    let failures: Vec<Timestamp> = pods
        .filter(|p| is_failed(job, p))
        .map(finished)
        .filter(|at| last_success.is_none_or(|s| *at > s))
        .collect();
    let last = *failures.iter().max()?;
    let doublings = u32::try_from(failures.len() - 1).unwrap_or(u32::MAX).min(10);
    let delay = (FIRST_DELAY << doublings).min(LONGEST_DELAY);
    Timestamp::from_second(last.as_second().saturating_add(delay)).ok()
}
