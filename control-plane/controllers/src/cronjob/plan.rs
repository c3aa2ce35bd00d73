//! What a CronJob should do now. Pure.

use std::time::Duration;

use chrono_tz::Tz;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

use super::schedule::Schedule;

/// More missed times than this are an error worth an event.
const TOO_MANY: usize = 100;

/// A step.
#[derive(Debug, Default)]
pub struct Plan {
    pub status: CronJobStatus,
    /// Jobs to delete, by name and uid.
    pub delete: Vec<(String, String)>,
    pub create: Option<Box<Job>>,
    /// (is a warning, reason, message)
    pub events: Vec<(bool, &'static str, String)>,
    pub again: Option<Duration>,
}

fn name(job: &Job) -> &str {
    job.metadata.name.as_deref().unwrap_or_default()
}

fn uid(job: &Job) -> &str {
    job.metadata.uid.as_deref().unwrap_or_default()
}

/// `Complete` or `Failed`, with its time.
fn end(job: &Job) -> Option<(&'static str, Option<Timestamp>)> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    ["Complete", "Failed"].into_iter().find_map(|kind| {
        let condition = conditions.iter().find(|c| c.type_ == kind && c.status == "True")?;
        let completed = job.status.as_ref()?.completion_time.as_ref().map(|t| t.0);
        Some((kind, completed.or(condition.last_transition_time.as_ref().map(|t| t.0))))
    })
}

fn started(job: &Job) -> Option<Timestamp> {
    job.status.as_ref()?.start_time.as_ref().map(|t| t.0)
}

fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some("batch/v1".to_owned()),
        kind: Some("Job".to_owned()),
        name: job.metadata.name.clone(),
        namespace: job.metadata.namespace.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}

/// The latest missed time up to `now`, and how many were missed (at most one more than [`TOO_MANY`]).
fn latest_missed(schedule: &Schedule, from: Timestamp, now: Timestamp) -> (Option<Timestamp>, usize) {
    let (mut latest, mut count, mut at) = (None, 0usize, from);
    // Far behind, the search begins anew nearer to now: only the last time matters.
    for _ in 0..10_000 {
        match schedule.next(at).filter(|next| *next <= now) {
            Some(next) => {
                latest = Some(next);
                at = next;
                count += 1;
                if count == TOO_MANY + 1 {
                    let day_ago = Timestamp::from_second(now.as_second() - 86_400).unwrap_or(at);
                    at = at.max(day_ago);
                }
            }
            None => break,
        }
    }
    (latest, count)
}

/// Decides; `jobs` are those the CronJob controls.
pub fn plan(cron: &CronJob, jobs: &[Job], now: Timestamp) -> Plan {
    let mut plan = Plan { status: cron.status.clone().unwrap_or_default(), ..Plan::default() };
    let Some(spec) = &cron.spec else { return plan };
    note_ends(cron, jobs, &mut plan);
    trim_history(cron, jobs, &mut plan);
    if cron.metadata.deletion_timestamp.is_some() || spec.suspend.unwrap_or(false) {
        return plan;
    }
    let schedule = match Schedule::parse(&spec.schedule, spec.time_zone.as_deref()) {
        Ok(schedule) => schedule,
        Err(error) => {
            let reason = if spec.time_zone.is_some() { "UnknownTimeZone" } else { "UnparseableSchedule" };
            plan.events.push((true, reason, error.to_string()));
            return plan;
        }
    };
    let created = cron.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    let last = plan.status.last_schedule_time.as_ref().map(|t| t.0);
    let mut from = last.unwrap_or(created);
    if let Some(deadline) = spec.starting_deadline_seconds {
        let earliest = Timestamp::from_second(now.as_second().saturating_sub(deadline)).unwrap_or(from);
        from = from.max(earliest);
    }
    let (due, missed) = latest_missed(&schedule, from, now);
    plan.again = schedule.next(now).map(|next| {
        // A little late is right, early is not.
        let left = next.as_millisecond() - now.as_millisecond();
        Duration::from_millis(u64::try_from(left).unwrap_or(0) + 100)
    });
    if missed > TOO_MANY {
        let text = format!(
            "too many missed start times: {missed}. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        );
        plan.events.push((true, "TooManyMissedTimes", text));
    }
    if let Some(due) = due {
        start(cron, jobs, due, now, &mut plan);
    }
    plan
}

fn start(cron: &CronJob, jobs: &[Job], due: Timestamp, now: Timestamp, plan: &mut Plan) {
    let Some(spec) = &cron.spec else { return };
    let too_late =
        spec.starting_deadline_seconds.is_some_and(|d| due.as_second().saturating_add(d) < now.as_second());
    if too_late {
        plan.events.push((true, "MissSchedule", format!("Missed scheduled time to start a job: {due}")));
        return;
    }
    let job_name = format!("{}-{}", cron.metadata.name.as_deref().unwrap_or_default(), due.as_second() / 60);
    let started_before = jobs.iter().any(|job| name(job) == job_name)
        || plan.status.last_schedule_time.as_ref().is_some_and(|t| t.0 >= due);
    if started_before {
        return;
    }
    let active = plan.status.active.clone().unwrap_or_default();
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
            plan.events.push((false, "JobAlreadyActive", text.to_owned()));
            return;
        }
        Some("Replace") => {
            for job in active {
                plan.delete.push((job.name.unwrap_or_default(), job.uid.unwrap_or_default()));
            }
            plan.status.active = None;
        }
        _ => {}
    }
    plan.create = Some(Box::new(job(cron, job_name, due)));
    plan.status.last_schedule_time = Some(Time(due));
}

fn job(cron: &CronJob, job_name: String, due: Timestamp) -> Job {
    let spec = cron.spec.clone().unwrap_or_default();
    let template = spec.job_template;
    let template_meta = template.metadata.unwrap_or_default();
    let mut annotations = template_meta.annotations.unwrap_or_default();
    let zone: Tz = spec.time_zone.as_deref().and_then(|z| z.parse().ok()).unwrap_or(Tz::UTC);
    let local = chrono::DateTime::<chrono::Utc>::from_timestamp(due.as_second(), 0)
        .map(|at| at.with_timezone(&zone).to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
    if let Some(local) = local {
        annotations.insert("batch.kubernetes.io/cronjob-scheduled-timestamp".to_owned(), local);
    }
    Job {
        metadata: ObjectMeta {
            name: Some(job_name),
            namespace: cron.metadata.namespace.clone(),
            labels: template_meta.labels,
            annotations: Some(annotations),
            creation_timestamp: Some(Time(due)),
            owner_references: Some(vec![OwnerReference {
                api_version: "batch/v1".to_owned(),
                kind: "CronJob".to_owned(),
                name: cron.metadata.name.clone().unwrap_or_default(),
                uid: cron.metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// Takes ended and vanished Jobs out of the active list, and running ones in.
fn note_ends(cron: &CronJob, jobs: &[Job], plan: &mut Plan) {
    let mut active = plan.status.active.take().unwrap_or_default();
    for job in jobs {
        let listed = active.iter().position(|a| a.uid.as_deref() == Some(uid(job)));
        match (end(job), listed) {
            (Some((kind, at)), Some(position)) => {
                active.remove(position);
                plan.events.push((
                    false,
                    "SawCompletedJob",
                    format!("Saw completed job: {}, condition: {kind}", name(job)),
                ));
                let newer = plan
                    .status
                    .last_successful_time
                    .as_ref()
                    .is_none_or(|last| at.is_some_and(|at| at > last.0));
                if kind == "Complete" && newer {
                    plan.status.last_successful_time = at.map(Time);
                }
            }
            (None, None) => active.push(reference(job)),
            _ => {}
        }
    }
    active.retain(|a| {
        let there = jobs.iter().any(|job| a.uid.as_deref() == Some(uid(job)));
        if !there {
            let text = format!("Active job went missing: {}", a.name.as_deref().unwrap_or_default());
            plan.events.push((false, "MissingJob", text));
        }
        there
    });
    let before = cron.status.as_ref().and_then(|s| s.active.as_ref()).map(|a| a.len());
    plan.status.active = Some(active).filter(|a| !a.is_empty() || before == Some(0));
}

/// Keeps only the latest ended Jobs.
fn trim_history(cron: &CronJob, jobs: &[Job], plan: &mut Plan) {
    let Some(spec) = &cron.spec else { return };
    let limits = [
        ("Complete", spec.successful_jobs_history_limit.unwrap_or(3)),
        ("Failed", spec.failed_jobs_history_limit.unwrap_or(1)),
    ];
    for (kind, limit) in limits {
        let mut ended: Vec<&Job> = jobs
            .iter()
            .filter(|job| {
                job.metadata.deletion_timestamp.is_none() && end(job).is_some_and(|(k, _)| k == kind)
            })
            .collect();
        let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        ended.sort_by(|a, b| (started(a), name(a)).cmp(&(started(b), name(b))));
        plan.delete
            .extend(ended.into_iter().take(surplus).map(|job| (name(job).to_owned(), uid(job).to_owned())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn cron(spec: Value, status: Value) -> CronJob {
        let mut json = json!({"metadata": {"namespace": "ns", "name": "c", "uid": "c", "creationTimestamp": "2026-01-01T00:00:30Z"},
            "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"metadata": {"labels": {"l": "v"}}, "spec": {"template": {}}}}, "status": status});
        for (key, value) in spec.as_object().unwrap() {
            json["spec"][key] = value.clone();
        }
        serde_json::from_value(json).unwrap()
    }

    fn job(name: &str, end: Option<&str>, started: &str) -> Job {
        let conditions = end.map(
            |kind| json!([{"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:04:00Z"}]),
        );
        serde_json::from_value(
            json!({"metadata": {"namespace": "ns", "name": name, "uid": name}, "spec": {"template": {}},
            "status": {"startTime": started, "conditions": conditions}}),
        )
        .unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_job_is_made_when_it_is_due_and_not_twice() {
        let early = plan(&cron(json!({}), json!({})), &[], at("2026-01-01T00:04:59Z"));
        assert!(early.create.is_none());
        assert_eq!(early.again, Some(Duration::from_millis(1100)));
        let due = plan(&cron(json!({"timeZone": "Asia/Tokyo"}), json!({})), &[], at("2026-01-01T00:05:01Z"));
        let made = due.create.unwrap();
        assert_eq!(made.metadata.name.as_deref(), Some("c-29453765"));
        assert_eq!(
            made.metadata.annotations.unwrap()["batch.kubernetes.io/cronjob-scheduled-timestamp"],
            "2026-01-01T09:05:00+09:00"
        );
        assert_eq!(due.status.last_schedule_time.as_ref().unwrap().0, at("2026-01-01T00:05:00Z"));
        let status = serde_json::to_value(&due.status).unwrap();
        assert!(plan(&cron(json!({}), status), &[], at("2026-01-01T00:05:02Z")).create.is_none());
    }

    #[test]
    fn only_the_latest_missed_time_counts_unless_too_late() {
        let status = json!({"lastScheduleTime": "2026-01-01T00:05:00Z"});
        let late = plan(&cron(json!({}), status.clone()), &[], at("2026-01-01T01:02:00Z"));
        assert_eq!(late.status.last_schedule_time.unwrap().0, at("2026-01-01T01:00:00Z"));
        let limited = plan(
            &cron(json!({"startingDeadlineSeconds": 60}), status.clone()),
            &[],
            at("2026-01-01T01:02:00Z"),
        );
        assert!(limited.create.is_none());
        let far = plan(&cron(json!({}), status), &[], at("2026-01-03T00:00:00Z"));
        assert_eq!(far.events[0].1, "TooManyMissedTimes");
        assert_eq!(far.status.last_schedule_time.unwrap().0, at("2026-01-03T00:00:00Z"));
    }

    #[test]
    fn concurrency_policies() {
        let running = [job("c-1", None, "2026-01-01T00:00:00Z")];
        let with = |policy: &str| {
            plan(&cron(json!({"concurrencyPolicy": policy}), json!({})), &running, at("2026-01-01T00:05:01Z"))
        };
        let allow = with("Allow");
        assert!(allow.create.is_some() && allow.delete.is_empty());
        assert_eq!(allow.status.active.unwrap()[0].name.as_deref(), Some("c-1"));
        assert!(with("Forbid").create.is_none());
        let replace = with("Replace");
        assert_eq!(
            (replace.create.is_some(), replace.delete),
            (true, vec![("c-1".to_owned(), "c-1".to_owned())])
        );
    }

    #[test]
    fn history_is_trimmed_and_ends_are_noted() {
        let jobs = [
            job("a", Some("Complete"), "2026-01-01T00:01:00Z"),
            job("b", Some("Complete"), "2026-01-01T00:02:00Z"),
            job("d", Some("Failed"), "2026-01-01T00:03:00Z"),
        ];
        let active = json!({"active": [{"name": "b", "uid": "b"}]});
        let plan = plan(
            &cron(json!({"successfulJobsHistoryLimit": 1, "suspend": true}), active),
            &jobs,
            at("2026-01-01T00:10:00Z"),
        );
        assert_eq!(plan.delete, vec![("a".to_owned(), "a".to_owned())]);
        assert_eq!(plan.status.active, None);
        assert_eq!(plan.status.last_successful_time.unwrap().0, at("2026-01-01T00:04:00Z"));
        assert_eq!(plan.events[0].2, "Saw completed job: b, condition: Complete");
        assert!(plan.create.is_none());
    }
}
