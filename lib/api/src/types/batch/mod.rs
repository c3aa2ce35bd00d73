//! Rules of group batch: Job and CronJob.

mod status;

use crate::doc::{Doc, Map, Struct, Value};
use crate::f::batch_v1 as b;
use crate::f::core_v1 as c;
use crate::f::meta_v1 as m;
use crate::field_errors::{BadValue, ErrorList, FieldPath, quoted};
use crate::names;
use crate::schema::Field;
use crate::t::batch_v1 as t;
use crate::types::apps::{labels_from_template, pod_name_warning};
use crate::types::core::{pod_defaults, pod_spec, scheduling};
use crate::types::meta::immutable;
use crate::types::walk::{
    child_entry, default_str, default_value, json_text, non_negative, present, structs, structs_mut,
};
use crate::types::{Ctx, GenerationRule, SelectableFields, Strategy, columns};

const SPEC: FieldPath<'static> = FieldPath::new("spec");
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];

/// Jobs.
pub static JOB: Strategy = Strategy {
    defaults: job_defaults,
    prepare_create: job_prepare_create,
    validate_create: |doc, ctx, errors| {
        // Labels that only the server gave the template come to the job itself where upstream reads it from its store: they are
        // checked in the template.
        if labels_are_generated(doc) {
            errors.retain(|error| error.field != "metadata.labels");
        }
        job_validate(doc, true, ctx, errors);
    },
    validate_update: job_update,
    validate_status_update: status::validate,
    warnings: |new, old, ctx| {
        let mut out = pod_name_warning(new, old, ctx);
        out.extend(job_warnings(new, old, &[b::job::SPEC], "spec"));
        out
    },
    generation: GenerationRule::Spec,
    default_orphan: true,
    orphan_warning: "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to \
                     remove them or set propagationPolicy=Orphan to suppress this warning",
    selectable: &["metadata.name", "metadata.namespace", "status.successful"],
    unselectable: |field| format!("field label {} not supported for Job", quoted(field)),
    selectable_fields: |doc| {
        let succeeded = doc.int(&[b::job::STATUS, b::job_status::SUCCEEDED]).unwrap_or(0);
        SelectableFields::from_iter([("status.successful", compact_str::format_compact!("{succeeded}"))])
    },
    columns: &columns::batch::JOB,
    ..Strategy::BASE
};

/// CronJobs.
pub static CRON_JOB: Strategy = Strategy {
    defaults: cron_job_defaults,
    validate_create: |doc, ctx, errors| {
        cron_job_validate(doc, None, ctx, errors);
        let name = doc.meta().name();
        if name.len() > 52 {
            let metadata = FieldPath::new("metadata");
            errors.invalid(&metadata.child("name"), name, "must be no more than 52 characters");
        }
    },
    validate_update: |new, old, ctx, errors| cron_job_validate(new, Some(old), ctx, errors),
    warnings: |new, old, ctx| {
        let mut out = pod_name_warning(new, old, ctx);
        let job = [b::cron_job::SPEC, b::cron_job_spec::JOB_TEMPLATE, b::job_template_spec::SPEC];
        out.extend(job_warnings(new, old, &job, "spec.jobTemplate.spec"));
        let schedule = new.str(&[b::cron_job::SPEC, b::cron_job_spec::SCHEDULE]);
        if old.is_some() && schedule.contains("TZ") {
            out.push(
                "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
                    .to_owned(),
            );
        }
        out
    },
    generation: GenerationRule::Spec,
    columns: &columns::batch::CRON_JOB,
    ..Strategy::BASE
};

/// Warnings about the job spec at `path`, which is called `at`.
fn job_warnings(new: &Doc, old: Option<&Doc>, path: &[Field], at: &str) -> Vec<String> {
    use b::job_spec as js;
    let mut out = Vec::new();
    if old.is_some_and(|old| old.meta().generation() == new.meta().generation()) {
        return out;
    }
    let Some(spec) = new.get(path).and_then(Value::as_struct) else { return out };
    let number = |field| spec.int(field).unwrap_or(0);
    let many = number(js::COMPLETIONS) > 100_000 && number(js::PARALLELISM) > 10_000;
    if many && spec.str(js::COMPLETION_MODE) == "Indexed" {
        out.push(format!(
            "{at}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes \
             might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    let template: Vec<Field> = path.iter().copied().chain([js::TEMPLATE]).collect();
    out.extend(crate::types::core::warnings::of_template(new, old, &template, &format!("{at}.template.")));
    out
}

fn job_spec_defaults(spec: &mut Struct) {
    use b::job_spec as js;
    if !present(spec, js::COMPLETIONS) && !present(spec, js::PARALLELISM) {
        spec.set(js::COMPLETIONS, 1);
    }
    default_value(spec, js::PARALLELISM, 1);
    let limit = if present(spec, js::BACKOFF_LIMIT_PER_INDEX) { i64::from(i32::MAX) } else { 6 };
    default_value(spec, js::BACKOFF_LIMIT, limit);
    default_value(spec, js::COMPLETION_MODE, "NonIndexed");
    default_value(spec, js::SUSPEND, false);
    let replacement = if present(spec, js::POD_FAILURE_POLICY) { "Failed" } else { "TerminatingOrFailed" };
    default_value(spec, js::POD_REPLACEMENT_POLICY, replacement);
    default_value(spec, js::MANUAL_SELECTOR, false);
    nested_defaults(spec);
}

fn nested_defaults(spec: &mut Struct) {
    use b::job_spec as js;
    if let Some(policy) = spec.child_mut(js::POD_FAILURE_POLICY) {
        for rule in structs_mut(policy, b::pod_failure_policy::RULES) {
            for pattern in structs_mut(rule, b::pod_failure_policy_rule::ON_POD_CONDITIONS) {
                default_str(pattern, b::pod_failure_policy_on_pod_conditions_pattern::STATUS, "True");
            }
        }
    }
    if let Some(template) = child_entry(spec, js::TEMPLATE) {
        pod_defaults::pod_template_spec(template);
    }
}

fn job_defaults(doc: &mut Doc) {
    let Some(spec) = doc.root_mut().and_then(|root| child_entry(root, b::job::SPEC)) else { return };
    job_spec_defaults(spec);
    let labels = spec.child(b::job_spec::TEMPLATE).and_then(pod_spec::template_labels).cloned();
    labels_from_template(doc, labels);
}

fn cron_job_defaults(doc: &mut Doc) {
    use b::cron_job_spec as cs;
    let Some(spec) = doc.root_mut().and_then(|root| child_entry(root, b::cron_job::SPEC)) else { return };
    default_str(spec, cs::CONCURRENCY_POLICY, "Allow");
    default_value(spec, cs::SUSPEND, false);
    default_value(spec, cs::SUCCESSFUL_JOBS_HISTORY_LIMIT, 3);
    default_value(spec, cs::FAILED_JOBS_HISTORY_LIMIT, 1);
    let job = child_entry(spec, cs::JOB_TEMPLATE)
        .and_then(|template| child_entry(template, b::job_template_spec::SPEC));
    if let Some(job) = job {
        nested_defaults(job);
    }
}

/// Labels and selector by which a job's pods are found, unless the user brings a selector.
fn job_prepare_create(doc: &mut Doc, _: &Ctx<'_>) {
    use b::job_spec as js;
    if doc.bool(&[b::job::SPEC, js::MANUAL_SELECTOR]) == Some(true) {
        return;
    }
    let (name, uid) = (doc.meta().name().to_owned(), doc.meta().uid().to_owned());
    let labels =
        doc.entry(&[b::job::SPEC, js::TEMPLATE, c::pod_template_spec::METADATA, m::object_meta::LABELS]);
    if let Some(labels) = labels.and_then(Value::as_map_mut) {
        for (keys, value) in [(NAME_LABELS, &name), (UID_LABELS, &uid)] {
            for key in keys {
                if !labels.contains_key(key) {
                    labels.insert(key, value.as_str());
                }
            }
        }
    }
    let selector = doc.entry(&[b::job::SPEC, js::SELECTOR, m::label_selector::MATCH_LABELS]);
    if let Some(selector) = selector.and_then(Value::as_map_mut)
        && !selector.contains_key(UID_LABELS[1])
    {
        selector.insert(UID_LABELS[1], uid.as_str());
    }
}

/// The job has its template's labels, and those are [`job_prepare_create`]'s.
fn labels_are_generated(doc: &Doc) -> bool {
    let labels = doc.map(&[b::job::METADATA, m::object_meta::LABELS]);
    let template =
        job_spec(doc).and_then(|spec| spec.child(b::job_spec::TEMPLATE)).and_then(pod_spec::template_labels);
    let generated = |key: &str| NAME_LABELS.contains(&key) || UID_LABELS.contains(&key);
    labels.is_some_and(|labels| Some(labels) == template && labels.str_pairs().all(|(key, _)| generated(key)))
}

fn job_spec(doc: &Doc) -> Option<&Struct> {
    doc.root()?.child(b::job::SPEC)
}

/// `prefixed`: the labels of today have to be there, not only those of old.
fn job_validate(doc: &Doc, prefixed: bool, ctx: &Ctx<'_>, errors: &mut ErrorList) {
    use b::job_spec as js;
    let empty = Struct::new(t::JOB_SPEC);
    let spec = job_spec(doc).unwrap_or(&empty);
    generated_selector(doc, spec, prefixed, errors);
    validate_spec(spec, ctx, &SPEC, errors);
    let at = SPEC.child("selector");
    let selector = spec.child(js::SELECTOR);
    let before = errors.len();
    match selector {
        None => errors.required(&at, ""),
        Some(_) => scheduling::validate_label_selector(selector, &at, errors),
    }
    let labels = spec.child(js::TEMPLATE).and_then(pod_spec::template_labels);
    // One that cannot be read is not compared.
    let readable = selector.is_none() || errors.len() == before;
    if readable && !selector.is_some_and(|selector| scheduling::selector_matches(selector, labels)) {
        let template = SPEC.child("template");
        let metadata = template.child("metadata");
        let text = "`selector` does not match template `labels`";
        errors.invalid(&metadata.child("labels"), pod_spec::labels_json(labels), text);
    }
    if spec.str(js::COMPLETION_MODE) == "Indexed"
        && let Some(completions) = spec.int(js::COMPLETIONS).filter(|completions| *completions > 0)
    {
        let host = format!("{}-{}", doc.meta().name(), completions - 1);
        if !names::dns1123_label(&host).is_empty() {
            let metadata = FieldPath::new("metadata");
            let text = format!("will not able to create pod with invalid DNS label: {host}");
            errors.invalid(&metadata.child("name"), doc.meta().name(), text);
        }
    }
}

fn generated_selector(doc: &Doc, spec: &Struct, prefixed: bool, errors: &mut ErrorList) {
    use b::job_spec as js;
    if spec.bool(js::MANUAL_SELECTOR) == Some(true) || !present(spec, js::SELECTOR) {
        return;
    }
    let meta = doc.meta();
    if meta.uid().is_empty() {
        let metadata = FieldPath::new("metadata");
        errors.required(&metadata.child("uid"), "");
    }
    let labels = spec.child(js::TEMPLATE).and_then(pod_spec::template_labels);
    let template = SPEC.child("template");
    let metadata = template.child("metadata");
    let at = metadata.child("labels");
    let mut expected = Map::new();
    for (key, value) in [
        (UID_LABELS[0], meta.uid()),
        (NAME_LABELS[0], meta.name()),
        (UID_LABELS[1], meta.uid()),
        (NAME_LABELS[1], meta.name()),
    ] {
        if !prefixed && [UID_LABELS[1], NAME_LABELS[1]].contains(&key) {
            continue;
        }
        expected.insert(key, value);
        match labels.and_then(|labels| labels.get_str(key)) {
            None => errors.required(&at.key(key), format!("must be '{value}'")),
            Some(found) if found != value => {
                errors.invalid(&at.key(key), pod_spec::labels_json(labels), format!("must be '{value}'"));
            }
            Some(_) => {}
        }
    }
    if let Some(selector) = spec.child(js::SELECTOR)
        && !scheduling::selector_matches(selector, Some(&expected))
    {
        let value = json_text(Some(&Value::Struct(selector.clone())));
        errors.invalid(&SPEC.child("selector"), value, "`selector` not auto-generated");
    }
}

fn validate_spec(spec: &Struct, ctx: &Ctx<'_>, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use b::job_spec as js;
    let numbers = [
        js::PARALLELISM,
        js::COMPLETIONS,
        js::ACTIVE_DEADLINE_SECONDS,
        js::BACKOFF_LIMIT,
        js::TTL_SECONDS_AFTER_FINISHED,
        js::BACKOFF_LIMIT_PER_INDEX,
        js::MAX_FAILED_INDEXES,
    ];
    non_negative(spec, &numbers, path, errors);
    if present(spec, js::MAX_FAILED_INDEXES) && !present(spec, js::BACKOFF_LIMIT_PER_INDEX) {
        errors.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if present(spec, js::MANAGED_BY) {
        let at = path.child("managedBy");
        let by = spec.str(js::MANAGED_BY);
        names::validate_domain_prefixed_path(&at, by, errors);
        if by.len() > 63 {
            errors.too_long(&at, 63);
        }
    }
    completion_mode(spec, path, errors);
    failure_policy(spec, &path.child("podFailurePolicy"), errors);
    success_policy(spec, &path.child("successPolicy"), errors);
    if present(spec, js::POD_REPLACEMENT_POLICY) {
        let policy = spec.str(js::POD_REPLACEMENT_POLICY);
        let supported: &[&str] = if present(spec, js::POD_FAILURE_POLICY) {
            &["Failed"]
        } else {
            &["Failed", "TerminatingOrFailed"]
        };
        if !supported.contains(&policy) {
            errors.not_supported(&path.child("podReplacementPolicy"), policy, supported);
        }
    }
    let template_path = path.child("template");
    let empty = Struct::new(crate::t::core_v1::POD_TEMPLATE_SPEC);
    let template = spec.child(js::TEMPLATE).unwrap_or(&empty);
    pod_spec::validate_template(template, ctx, &template_path, errors);
    let at = template_path.child("spec");
    let at = at.child("restartPolicy");
    let restart =
        template.child(c::pod_template_spec::SPEC).map_or("", |spec| spec.str(c::pod_spec::RESTART_POLICY));
    match restart {
        "Always" | "" => errors.required(&at, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if present(spec, js::POD_FAILURE_POLICY) => {
            errors.invalid(&at, restart, "only \"Never\" is supported when podFailurePolicy is specified");
        }
        "OnFailure" | "Never" => {}
        other => errors.not_supported(&at, other, &["OnFailure", "Never"]),
    }
}

fn completion_mode(spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use b::job_spec as js;
    let mode = spec.str(js::COMPLETION_MODE);
    let completions = spec.int(js::COMPLETIONS);
    let parallelism = spec.int(js::PARALLELISM);
    let failed = spec.int(js::MAX_FAILED_INDEXES);
    if present(spec, js::COMPLETION_MODE) && !matches!(mode, "NonIndexed" | "Indexed") {
        errors.not_supported(&path.child("completionMode"), mode, &["NonIndexed", "Indexed"]);
    }
    if mode == "Indexed" {
        if completions.is_none() {
            errors.required(&path.child("completions"), "when completion mode is Indexed");
        }
        if let Some(parallelism) = parallelism.filter(|number| *number > 100_000) {
            let text = "must be less than or equal to 100000 when completion mode is Indexed";
            errors.invalid(&path.child("parallelism"), parallelism, text);
        }
        if let (Some(completions), Some(failed)) = (completions, failed)
            && failed > completions
        {
            errors.invalid(
                &path.child("maxFailedIndexes"),
                failed,
                "must be less than or equal to completions",
            );
        }
        if let Some(failed) = failed.filter(|failed| *failed > 100_000) {
            errors.invalid(&path.child("maxFailedIndexes"), failed, "must be less than or equal to 100000");
        }
        if completions.is_some_and(|number| number > 100_000) && present(spec, js::BACKOFF_LIMIT_PER_INDEX) {
            many_completions(parallelism, failed, path, errors);
        }
    } else if mode.is_empty() || mode == "NonIndexed" {
        for field in [js::BACKOFF_LIMIT_PER_INDEX, js::MAX_FAILED_INDEXES] {
            if let Some(value) = spec.int(field) {
                errors.invalid(&path.child(field.def().json), value, "requires indexed completion mode");
            }
        }
    }
}

/// What an indexed job of more than 100,000 completions with a limit per index may not exceed.
fn many_completions(
    parallelism: Option<i64>,
    failed: Option<i64>,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    const TEXT: &str = "must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index";
    if failed.is_none() {
        let text = "must be specified when completions is above 100000";
        errors.required(&path.child("maxFailedIndexes"), text);
    }
    for (value, field) in [(parallelism, "parallelism"), (failed, "maxFailedIndexes")] {
        if let Some(value) = value.filter(|value| *value > 10_000) {
            errors.invalid(&path.child(field), value, TEXT);
        }
    }
}

fn failure_policy(spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use b::pod_failure_policy_rule as pr;
    let Some(policy) = spec.child(b::job_spec::POD_FAILURE_POLICY) else { return };
    let rules = path.child("rules");
    let count = policy.list(b::pod_failure_policy::RULES).len();
    if count > 20 {
        errors.too_many(&rules, count, 20);
    }
    let actions = ["Count", "FailIndex", "FailJob", "Ignore"];
    for (i, rule) in structs(policy, b::pod_failure_policy::RULES) {
        let at = rules.index(i);
        match rule.str(pr::ACTION) {
            "" => errors.required(
                &at.child("action"),
                "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
            ),
            "FailIndex" if !present(spec, b::job_spec::BACKOFF_LIMIT_PER_INDEX) => {
                errors.invalid(
                    &at.child("action"),
                    "FailIndex",
                    "requires the backoffLimitPerIndex to be set",
                );
            }
            action if !actions.contains(&action) => {
                errors.not_supported(&at.child("action"), action, &actions)
            }
            _ => {}
        }
        let codes = rule.child(pr::ON_EXIT_CODES);
        let conditions = !rule.list(pr::ON_POD_CONDITIONS).is_empty();
        if let Some(codes) = codes {
            exit_codes(spec, codes, &at.child("onExitCodes"), errors);
        }
        pod_conditions(rule, &at.child("onPodConditions"), errors);
        if codes.is_some() && conditions {
            let text = "specifying both OnExitCodes and OnPodConditions is not supported";
            errors.invalid(&at, BadValue::Omitted, text);
        } else if codes.is_none() && !conditions {
            let text = "specifying one of OnExitCodes and OnPodConditions is required";
            errors.invalid(&at, BadValue::Omitted, text);
        }
    }
}

fn pod_conditions(rule: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use b::pod_failure_policy_on_pod_conditions_pattern as pattern;
    let count = rule.list(b::pod_failure_policy_rule::ON_POD_CONDITIONS).len();
    if count > 20 {
        errors.too_many(path, count, 20);
    }
    for (i, one) in structs(rule, b::pod_failure_policy_rule::ON_POD_CONDITIONS) {
        let at = path.index(i);
        let kind = one.str(pattern::TYPE);
        errors.invalid_each(&at.child("type"), kind, names::qualified_name(kind));
        let status = one.str(pattern::STATUS);
        if status.is_empty() {
            errors.required(&at.child("status"), "valid values: [\"False\" \"True\" \"Unknown\"]");
        } else if !matches!(status, "False" | "True" | "Unknown") {
            errors.not_supported(&at.child("status"), status, &["False", "True", "Unknown"]);
        }
    }
}

fn exit_codes(spec: &Struct, codes: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use b::pod_failure_policy_on_exit_codes_requirement as ec;
    let operator = codes.str(ec::OPERATOR);
    if operator.is_empty() {
        errors.required(&path.child("operator"), "valid values: [\"In\" \"NotIn\"]");
    } else if !matches!(operator, "In" | "NotIn") {
        errors.not_supported(&path.child("operator"), operator, &["In", "NotIn"]);
    }
    if present(codes, ec::CONTAINER_NAME) {
        let name = codes.str(ec::CONTAINER_NAME);
        let pod =
            spec.child(b::job_spec::TEMPLATE).and_then(|template| template.child(c::pod_template_spec::SPEC));
        let known = pod.is_some_and(|pod| {
            [c::pod_spec::CONTAINERS, c::pod_spec::INIT_CONTAINERS]
                .into_iter()
                .any(|list| structs(pod, list).any(|(_, one)| one.str(c::container::NAME) == name))
        });
        if !known {
            let text = "must be one of the container or initContainer names in the pod template";
            errors.invalid(&path.child("containerName"), name, text);
        }
    }
    let at = path.child("values");
    let values: Vec<i64> = codes.list(ec::VALUES).iter().filter_map(Value::as_int).collect();
    if values.is_empty() {
        errors.invalid(&at, json_text(codes.get(ec::VALUES)), "at least one value is required");
    } else if values.len() > 255 {
        errors.too_many(&at, values.len(), 255);
    }
    for (i, value) in values.iter().enumerate() {
        if operator == "In" && *value == 0 {
            errors.invalid(&at.index(i), 0i64, "must not be 0 for the In operator");
        }
        if values[..i].contains(value) {
            errors.duplicate(&at.index(i), *value);
        }
    }
    if !values.is_sorted() {
        errors.invalid(&at, BadValue::json(&values), "must be ordered");
    }
}

fn success_policy(spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use b::success_policy_rule as sr;
    let Some(policy) = spec.child(b::job_spec::SUCCESS_POLICY) else { return };
    if spec.str(b::job_spec::COMPLETION_MODE) != "Indexed" {
        let value = json_text(Some(&Value::Struct(policy.clone())));
        errors.invalid(path, value, "requires indexed completion mode");
        return;
    }
    let rules = path.child("rules");
    let count = policy.list(b::success_policy::RULES).len();
    if count == 0 {
        errors.required(&rules, "at least one rules must be specified when the successPolicy is specified");
    }
    if count > 20 {
        errors.too_many(&rules, count, 20);
    }
    let completions = spec.int(b::job_spec::COMPLETIONS).unwrap_or(0);
    for (i, rule) in structs(policy, b::success_policy::RULES) {
        let at = rules.index(i);
        let indexes = present(rule, sr::SUCCEEDED_INDEXES).then(|| rule.str(sr::SUCCEEDED_INDEXES));
        let wanted = rule.int(sr::SUCCEEDED_COUNT);
        if indexes.is_none() && wanted.is_none() {
            errors.required(&at, "at least one of succeededCount or succeededIndexes must be specified");
        }
        let mut total = None;
        if let Some(text) = indexes {
            match count_indexes(text, completions) {
                Ok(number) => total = Some(number),
                Err(why) => errors.invalid(
                    &at.child("succeededIndexes"),
                    text,
                    format!("error parsing succeededIndexes: {why}"),
                ),
            }
        }
        if let Some(wanted) = wanted {
            let at = at.child("succeededCount");
            non_negative(rule, &[sr::SUCCEEDED_COUNT], &rules.index(i), errors);
            if wanted > completions {
                let text = format!(
                    "must be less than or equal to {completions} (the number of specified completions)"
                );
                errors.invalid(&at, wanted, text);
            }
            if let Some(total) = total.filter(|total| wanted > *total) {
                let text = format!(
                    "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
                );
                errors.invalid(&at, wanted, text);
            }
        }
    }
}

/// How many indexes a text such as `1,3-5,7` names; they rise and lie below `completions`.
fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let mut total = 0;
    let mut last: Option<i64> = None;
    if text.is_empty() {
        return Ok(0);
    }
    for interval in text.split(',') {
        let number = |part: &str| {
            part.parse::<i64>().map_err(|_| {
                format!("cannot convert string to integer for index: {}", crate::field_errors::quoted(part))
            })
        };
        let (from, to) = interval.split_once('-').map_or((interval, None), |(from, to)| (from, Some(to)));
        let from = number(from)?;
        if from >= completions {
            return Err(format!("too large index: \"{from}\""));
        }
        let to = match to {
            None => from,
            Some(to) => {
                let to = number(to)?;
                if to >= completions {
                    return Err(format!("too large index: \"{to}\""));
                }
                if from >= to {
                    return Err(format!("non-increasing order, previous: {from}, current: {to}"));
                }
                to
            }
        };
        if let Some(last) = last.filter(|last| *last >= from) {
            return Err(format!("non-increasing order, previous: {last}, current: {from}"));
        }
        total += to - from + 1;
        last = Some(to);
    }
    Ok(total)
}

fn suspended_before_start(old: &Doc) -> bool {
    old.bool(&[b::job::SPEC, b::job_spec::SUSPEND]) == Some(true)
        && old.get(&[b::job::STATUS, b::job_status::START_TIME]).is_none()
}

fn job_update(new: &Doc, old: &Doc, ctx: &Ctx<'_>, errors: &mut ErrorList) {
    use b::job_spec as js;
    let labels =
        job_spec(old).and_then(|spec| spec.child(b::job_spec::TEMPLATE)).and_then(pod_spec::template_labels);
    let had = |key: &str| labels.is_some_and(|labels| labels.get_str(key).is_some());
    job_validate(new, had(UID_LABELS[1]) && had(NAME_LABELS[1]), ctx, errors);
    let (Some(now), Some(before)) = (job_spec(new), job_spec(old)) else { return };
    if now.str(js::COMPLETION_MODE) == "Indexed" {
        let (completions, parallelism) = (now.int(js::COMPLETIONS), now.int(js::PARALLELISM));
        if completions != before.int(js::COMPLETIONS) && completions.is_some() && completions != parallelism {
            let text = "can only be modified in tandem with spec.parallelism";
            errors.invalid(&SPEC.child("completions"), completions.unwrap_or(0), text);
        }
    } else {
        immutable(now.get(js::COMPLETIONS), before.get(js::COMPLETIONS), &SPEC.child("completions"), errors);
    }
    let same = |field: Field, errors: &mut ErrorList| {
        immutable(now.get(field), before.get(field), &SPEC.child(field.def().json), errors);
    };
    scheduling::forgive_kept_values(now.get(js::SELECTOR), before.get(js::SELECTOR), errors);
    same(js::SELECTOR, errors);
    template_update(now, before, suspended_before_start(old), errors);
    for field in [
        js::COMPLETION_MODE,
        js::POD_FAILURE_POLICY,
        js::BACKOFF_LIMIT_PER_INDEX,
        js::MANAGED_BY,
        js::SUCCESS_POLICY,
    ] {
        same(field, errors);
    }
}

/// The template stays, but for scheduling directives of a job suspended before its start.
fn template_update(now: &Struct, before: &Struct, may_change: bool, errors: &mut ErrorList) {
    use b::job_spec as js;
    let mut before = before.get(js::TEMPLATE).cloned();
    let template = now.get(js::TEMPLATE);
    if may_change && let (Some(Value::Struct(new)), Some(Value::Struct(old))) = (template, before.as_mut()) {
        let labels = new.child(c::pod_template_spec::METADATA).cloned();
        if let (Some(labels), Some(meta)) = (labels, old.child_mut(c::pod_template_spec::METADATA)) {
            for field in [m::object_meta::LABELS, m::object_meta::ANNOTATIONS] {
                copy_field(&labels, meta, field);
            }
        }
        let new_spec = new.child(c::pod_template_spec::SPEC);
        if let (Some(new), Some(old)) = (new_spec, old.child_mut(c::pod_template_spec::SPEC)) {
            for field in [
                c::pod_spec::NODE_SELECTOR,
                c::pod_spec::TOLERATIONS,
                c::pod_spec::SCHEDULING_GATES,
                c::pod_spec::AFFINITY,
            ] {
                copy_field(new, old, field);
            }
        }
    }
    immutable(template, before.as_ref(), &SPEC.child("template"), errors);
}

fn copy_field(from: &Struct, to: &mut Struct, field: Field) {
    match from.get(field) {
        Some(value) => {
            to.set(field, value.clone());
        }
        None => {
            to.remove(field);
        }
    }
}

fn cron_job_validate(doc: &Doc, old: Option<&Doc>, ctx: &Ctx<'_>, errors: &mut ErrorList) {
    use b::cron_job_spec as cs;
    let empty = Struct::new(t::CRON_JOB_SPEC);
    let spec = doc.root().and_then(|root| root.child(b::cron_job::SPEC)).unwrap_or(&empty);
    let schedule = spec.str(cs::SCHEDULE);
    if schedule.is_empty() {
        errors.required(&SPEC.child("schedule"), "");
    } else if let Err(why) = super::cron::check(schedule) {
        errors.invalid(&SPEC.child("schedule"), schedule, why);
    }
    let before = |field: Field| old.map_or("", |old| old.str(&[b::cron_job::SPEC, field]));
    if schedule.contains("TZ") {
        if !before(cs::SCHEDULE).contains("TZ") {
            let text = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.invalid(&SPEC.child("schedule"), schedule, text);
        } else if present(spec, cs::TIME_ZONE) {
            let text = "cannot use both timeZone field and TZ or CRON_TZ in schedule";
            errors.invalid(&SPEC.child("schedule"), schedule, text);
        }
    }
    let zone = [b::cron_job::SPEC, cs::TIME_ZONE];
    if old.is_none_or(|old| old.get(&zone) != doc.get(&zone)) {
        time_zone(spec, errors);
    }
    non_negative(
        spec,
        &[cs::STARTING_DEADLINE_SECONDS, cs::SUCCESSFUL_JOBS_HISTORY_LIMIT, cs::FAILED_JOBS_HISTORY_LIMIT],
        &SPEC,
        errors,
    );
    let policy = spec.str(cs::CONCURRENCY_POLICY);
    if policy.is_empty() {
        errors.required(&SPEC.child("concurrencyPolicy"), "");
    } else if !matches!(policy, "Allow" | "Forbid" | "Replace") {
        errors.not_supported(&SPEC.child("concurrencyPolicy"), policy, &["Allow", "Forbid", "Replace"]);
    }
    let template = SPEC.child("jobTemplate");
    let at = template.child("spec");
    let job_empty = Struct::new(t::JOB_SPEC);
    let job = spec
        .child(cs::JOB_TEMPLATE)
        .and_then(|template| template.child(b::job_template_spec::SPEC))
        .unwrap_or(&job_empty);
    validate_spec(job, ctx, &at, errors);
    if let Some(selector) = job.get(b::job_spec::SELECTOR) {
        errors.invalid(&at.child("selector"), json_text(Some(selector)), "`selector` will be auto-generated");
    }
    if job.bool(b::job_spec::MANUAL_SELECTOR) == Some(true) {
        errors.not_supported(&at.child("manualSelector"), true, &["nil", "false"]);
    }
}

fn time_zone(spec: &Struct, errors: &mut ErrorList) {
    use b::cron_job_spec as cs;
    if !present(spec, cs::TIME_ZONE) {
        return;
    }
    let zone = spec.str(cs::TIME_ZONE);
    let at = SPEC.child("timeZone");
    if zone.is_empty() {
        errors.invalid(&at, zone, "timeZone must be nil or non-empty string");
        return;
    }
    let part_ok = |part: &str| {
        !matches!(part, "." | "..")
            && !part.starts_with('-')
            && (1..=14).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+'))
    };
    if !zone.split('/').all(part_ok) {
        errors.invalid(&at, zone, format!("unknown time zone {zone}"));
        return;
    }
    if zone.eq_ignore_ascii_case("Local") {
        let text = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(&at, zone, text);
    }
    if !matches!(zone, "Local" | "UTC") && zone.parse::<chrono_tz::Tz>().is_err() {
        errors.invalid(&at, zone, format!("unknown time zone {zone}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_counted() {
        assert_eq!(count_indexes("1,3-5,7", 10), Ok(5));
        assert_eq!(count_indexes("", 10), Ok(0));
        assert_eq!(count_indexes("9-10", 10), Err("too large index: \"10\"".to_owned()));
        assert!(count_indexes("3,2", 10).is_err() && count_indexes("a", 10).is_err());
    }
}
