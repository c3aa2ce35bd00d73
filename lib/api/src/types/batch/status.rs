//! What a write of a Job's status may say. A rule looks at a part only where the write changes it, so that a status which
//! broke one earlier can still be mended elsewhere.

use crate::doc::{Doc, Struct};
use crate::f::batch_v1 as b;
use crate::field_errors::{BadValue, ErrorList, FieldPath};
use crate::t::batch_v1 as t;
use crate::types::Ctx;
use crate::types::walk::{json_text, non_negative, present, same, strs, structs};

use super::count_indexes;
use b::job_status as st;

const STATUS: FieldPath<'static> = FieldPath::new("status");

/// Both statuses and what conditions say in each.
struct Change<'a> {
    spec: &'a Struct,
    now: &'a Struct,
    before: &'a Struct,
}

fn is(status: &Struct, kind: &str, value: &str) -> bool {
    structs(status, st::CONDITIONS).any(|(_, condition)| {
        condition.str(b::job_condition::TYPE) == kind && condition.str(b::job_condition::STATUS) == value
    })
}

fn finished(status: &Struct) -> bool {
    is(status, "Complete", "True") || is(status, "Failed", "True")
}

impl Change<'_> {
    fn has(&self, kind: &str) -> bool {
        is(self.now, kind, "True")
    }
    fn had(&self, kind: &str) -> bool {
        is(self.before, kind, "True")
    }
    fn flips(&self, kind: &str) -> bool {
        self.has(kind) != self.had(kind)
    }
    fn differs(&self, field: crate::schema::Field) -> bool {
        !same(self.now.get(field), self.before.get(field))
    }
    fn count_differs(&self, field: crate::schema::Field) -> bool {
        self.now.int(field).unwrap_or(0) != self.before.int(field).unwrap_or(0)
    }
    fn finishes(&self) -> bool {
        finished(self.now) != finished(self.before)
    }
}

/// New, old.
pub(super) fn validate(new: &Doc, old: &Doc, _: &Ctx<'_>, errors: &mut ErrorList) {
    let (no_spec, none) = (Struct::new(t::JOB_SPEC), Struct::new(t::JOB_STATUS));
    let part = |doc, field| -> Option<&Struct> { Doc::root(doc)?.child(field) };
    let change = Change {
        spec: part(new, b::job::SPEC).unwrap_or(&no_spec),
        now: part(new, b::job::STATUS).unwrap_or(&none),
        before: part(old, b::job::STATUS).unwrap_or(&none),
    };
    let counts = [st::ACTIVE, st::SUCCEEDED, st::FAILED, st::READY, st::TERMINATING];
    non_negative(change.now, &counts, &STATUS, errors);
    uncounted(&change, errors);
    conditions(&change, errors);
    times(&change, errors);
    at_the_end(&change, errors);
    indexes(&change, errors);
    counters(&change, errors);
}

fn uncounted(change: &Change<'_>, errors: &mut ErrorList) {
    use b::uncounted_terminated_pods as u;
    let Some(pods) = change.now.child(st::UNCOUNTED_TERMINATED_PODS) else { return };
    let at = STATUS.child("uncountedTerminatedPods");
    let mut seen: Vec<&str> = Vec::new();
    for field in [u::SUCCEEDED, u::FAILED] {
        let list = at.child(field.def().json);
        for (i, uid) in strs(pods, field) {
            if uid.is_empty() {
                errors.invalid(&list.index(i), uid, "must not be empty");
            } else if seen.contains(&uid) {
                errors.duplicate(&list.index(i), uid);
            } else {
                seen.push(uid);
            }
        }
    }
    let any = !pods.list(u::SUCCEEDED).is_empty() || !pods.list(u::FAILED).is_empty();
    let looked_at = change.finishes() || change.differs(st::UNCOUNTED_TERMINATED_PODS);
    if looked_at && finished(change.now) && any {
        let value = json_text(change.now.get(st::UNCOUNTED_TERMINATED_PODS));
        errors.invalid(&at, value, "must be empty for finished job");
    }
}

fn conditions(change: &Change<'_>, errors: &mut ErrorList) {
    let (complete, failed) = (change.has("Complete"), change.has("Failed"));
    let (target, met) = (change.has("FailureTarget"), change.has("SuccessCriteriaMet"));
    let completes = change.flips("Complete");
    let by_policy = present(change.spec, b::job_spec::SUCCESS_POLICY);
    let mut refuse = |when: bool, text: &str| {
        if when {
            errors.invalid(&STATUS.child("conditions"), BadValue::Omitted, text);
        }
    };
    refuse(
        (completes || change.flips("Failed")) && complete && failed,
        "cannot set Complete=True and Failed=true conditions",
    );
    refuse(
        (completes || change.flips("FailureTarget")) && complete && target,
        "cannot set Complete=True and FailureTarget=true conditions",
    );
    refuse(
        (change.flips("Failed") || change.differs(st::FAILED_INDEXES)) && failed && !target,
        "cannot set Failed=True condition without the FailureTarget=true condition",
    );
    refuse(
        (completes || change.flips("SuccessCriteriaMet")) && complete && !met,
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    );
    refuse(met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    refuse(met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    refuse(
        by_policy && !met && complete,
        "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
    );
    for kind in ["Failed", "Complete", "FailureTarget"] {
        refuse(
            change.had(kind) && !change.has(kind),
            &format!("cannot disable the terminal {kind}=True condition"),
        );
    }
    refuse(change.had("SuccessCriteriaMet") && !met, "cannot disable the SuccessCriteriaMet=True condition");
    refuse(
        change.had("Complete") && !change.had("SuccessCriteriaMet") && met,
        "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
    );
}

fn times(change: &Change<'_>, errors: &mut ErrorList) {
    let complete = change.has("Complete");
    let (start, end) = (change.now.str(st::START_TIME), change.now.str(st::COMPLETION_TIME));
    let (started, ended) = (change.differs(st::START_TIME), change.differs(st::COMPLETION_TIME));
    let at = STATUS.child("completionTime");
    if change.flips("Complete") || ended {
        if !complete && !end.is_empty() {
            errors.invalid(&at, end, "cannot set completionTime when there is no Complete=True condition");
        }
        if complete && end.is_empty() {
            errors.required(&at, "completionTime is required for Complete jobs");
        }
    }
    if (started || ended) && !start.is_empty() && !end.is_empty() && end < start {
        errors.invalid(&at, end, "must be equal to or after `startTime`");
    }
    if ended && !end.is_empty() && present(change.before, st::COMPLETION_TIME) {
        errors.invalid(&at, end, crate::types::meta::IMMUTABLE);
    }
    let nothing_to_do = change.spec.bool(b::job_spec::SUSPEND) == Some(true)
        && change.spec.int(b::job_spec::COMPLETIONS) == Some(0);
    if (change.finishes() || started) && finished(change.now) && start.is_empty() && !nothing_to_do {
        errors.required(&STATUS.child("startTime"), "startTime is required for finished job");
    }
    let resumes = is(change.before, "Suspended", "True") && is(change.now, "Suspended", "False");
    let suspended = change.spec.bool(b::job_spec::SUSPEND) == Some(true);
    if started && !resumes && !suspended && present(change.before, st::START_TIME) {
        let value = if start.is_empty() { json_text(None) } else { BadValue::from(start) };
        errors.invalid(&STATUS.child("startTime"), value, "field is immutable for unsuspended job once set");
    }
}

fn at_the_end(change: &Change<'_>, errors: &mut ErrorList) {
    let now = change.now;
    let active = now.int(st::ACTIVE).unwrap_or(0);
    if !finished(now) {
        return;
    }
    if (change.finishes() || change.count_differs(st::ACTIVE)) && active > 0 {
        errors.invalid(&STATUS.child("active"), active, "active>0 is invalid for finished job");
    }
    if let Some(terminating) = now.int(st::TERMINATING).filter(|number| *number > 0)
        && (change.finishes() || change.differs(st::TERMINATING))
    {
        errors.invalid(
            &STATUS.child("terminating"),
            terminating,
            "terminating>0 is invalid for finished job",
        );
    }
}

fn indexes(change: &Change<'_>, errors: &mut ErrorList) {
    use b::job_spec as js;
    let now = change.now;
    let completions = change.spec.int(js::COMPLETIONS);
    let (done, failed) = (now.str(st::COMPLETED_INDEXES), now.str(st::FAILED_INDEXES));
    let has_failed = present(now, st::FAILED_INDEXES);
    let (done_changed, failed_changed) =
        (change.differs(st::COMPLETED_INDEXES), change.differs(st::FAILED_INDEXES));
    let per_index = present(change.spec, js::BACKOFF_LIMIT_PER_INDEX);
    let (done_path, failed_path) = (STATUS.child("completedIndexes"), STATUS.child("failedIndexes"));
    if let Some(completions) = completions.filter(|_| done_changed)
        && let Err(why) = count_indexes(done, completions)
    {
        errors.invalid(&done_path, done, format!("error parsing completedIndexes: {why}"));
    }
    if let Some(completions) = completions.filter(|_| failed_changed && per_index && has_failed)
        && let Err(why) = count_indexes(failed, completions)
    {
        errors.invalid(&failed_path, failed, format!("error parsing failedIndexes: {why}"));
    }
    if done_changed && !done.is_empty() && change.spec.str(js::COMPLETION_MODE) != "Indexed" {
        errors.invalid(
            &done_path,
            done,
            "cannot set non-empty completedIndexes when non-indexed completion mode",
        );
    }
    if failed_changed && !per_index && has_failed {
        let text = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        errors.invalid(&failed_path, failed, text);
    }
    if (done_changed || failed_changed)
        && let Some(index) = completions.and_then(|completions| overlap(done, failed, completions))
    {
        let text = format!("failedIndexes and completedIndexes overlap at index: {index}");
        errors.invalid(&failed_path, failed, text);
    }
}

/// The first index in both texts; intervals that cannot be read are left out.
fn overlap(a: &str, b: &str, completions: i64) -> Option<i64> {
    let intervals = |text: &str| -> Vec<(i64, i64)> {
        let readable =
            text.split(',').filter(|part| !part.is_empty() && count_indexes(part, completions).is_ok());
        readable
            .filter_map(|part| {
                let (from, to) = part.split_once('-').unwrap_or((part, part));
                Some((from.parse().ok()?, to.parse().ok()?))
            })
            .collect()
    };
    let (a, b) = (intervals(a), intervals(b));
    let common = a.iter().flat_map(|x| b.iter().map(move |y| (x.0.max(y.0), x.1.min(y.1))));
    common.filter(|(from, to)| from <= to).map(|(from, _)| from).min()
}

fn counters(change: &Change<'_>, errors: &mut ErrorList) {
    use b::job_spec as js;
    let number = |status: &Struct, field| status.int(field).unwrap_or(0);
    let scales = change.spec.str(js::COMPLETION_MODE) == "Indexed"
        && change.spec.int(js::COMPLETIONS) == change.spec.int(js::PARALLELISM);
    for (field, may_fall, name) in [(st::FAILED, false, "failed"), (st::SUCCEEDED, scales, "succeeded")] {
        let now = number(change.now, field);
        if !may_fall && now < number(change.before, field) {
            errors.invalid(&STATUS.child(name), now, format!("cannot decrease the {name} counter"));
        }
    }
    let looked_at = change.differs(st::READY) || change.count_differs(st::ACTIVE);
    if let Some(ready) =
        change.now.int(st::READY).filter(|ready| looked_at && *ready > number(change.now, st::ACTIVE))
    {
        errors.invalid(&STATUS.child("ready"), ready, "cannot set more ready pods than active");
    }
}
