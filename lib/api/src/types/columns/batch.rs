//! Columns of group batch.

use jiff::Timestamp;

use super::{
    AGE, CONTAINERS, Cell, Columns, IMAGES, NAME, age, age_cell, column, container_cells, human_duration,
    name_cell, number, or_none, selector_cell, text, wide_text,
};
use crate::doc::{Doc, Struct};
use crate::f::batch_v1 as b;
use crate::f::core_v1 as c;
use crate::types::walk::structs;

fn containers(spec: Option<&Struct>) -> [Cell; 2] {
    container_cells(
        spec.and_then(|spec| spec.child(b::job_spec::TEMPLATE))
            .and_then(|template| template.child(c::pod_template_spec::SPEC)),
    )
}

pub static JOB: Columns = Columns {
    definitions: &[
        NAME,
        text("Status", "Status of the job."),
        text("Completions", "").of(crate::f::batch_v1::job_status::SUCCEEDED),
        text("Duration", "Time required to complete the job."),
        AGE,
        CONTAINERS,
        IMAGES,
        wide_text("Selector", "").of(crate::f::batch_v1::job_spec::SELECTOR),
    ],
    cells: job,
};

fn job(doc: &Doc, now: Timestamp) -> Vec<Cell> {
    use b::job_spec as js;
    use b::job_status as st;
    let empty = Struct::new(crate::t::batch_v1::JOB_STATUS);
    let spec = doc.root().and_then(|root| root.child(b::job::SPEC));
    let status = doc.root().and_then(|root| root.child(b::job::STATUS)).unwrap_or(&empty);
    let succeeded = status.int(st::SUCCEEDED).unwrap_or(0);
    let completions = match spec.and_then(|spec| spec.int(js::COMPLETIONS)) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None => match spec.and_then(|spec| spec.int(js::PARALLELISM)).unwrap_or(0) {
            many if many > 1 => format!("{succeeded}/1 of {many}"),
            _ => format!("{succeeded}/1"),
        },
    };
    let time = |text: &str| text.parse::<Timestamp>().ok().map(Timestamp::as_second);
    let duration = match (time(status.str(st::START_TIME)), time(status.str(st::COMPLETION_TIME))) {
        (None, _) => String::new(),
        (Some(start), end) => human_duration(end.unwrap_or(now.as_second()) - start),
    };
    let has = |kind: &str| {
        structs(status, st::CONDITIONS)
            .find(|(_, one)| one.str(b::job_condition::TYPE) == kind)
            .is_some_and(|(_, one)| one.str(b::job_condition::STATUS) == "True")
    };
    let state = if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if doc.meta().is_being_deleted() {
        "Terminating"
    } else {
        ["Suspended", "FailureTarget", "SuccessCriteriaMet"]
            .into_iter()
            .find(|kind| has(kind))
            .unwrap_or("Running")
    };
    let [names, images] = containers(spec);
    vec![
        name_cell(doc),
        state.into(),
        completions.into(),
        duration.into(),
        age_cell(doc, now),
        names,
        images,
        selector_cell(spec.and_then(|spec| spec.child(js::SELECTOR))),
    ]
}

pub static CRON_JOB: Columns = Columns {
    definitions: &[
        NAME,
        text("Schedule", "").of(crate::f::batch_v1::cron_job_spec::SCHEDULE),
        text("Timezone", "").of(crate::f::batch_v1::cron_job_spec::TIME_ZONE),
        column("Suspend", "boolean", "", "").of(crate::f::batch_v1::cron_job_spec::SUSPEND),
        number("Active", "").of(crate::f::batch_v1::cron_job_status::ACTIVE),
        text("Last Schedule", "").of(crate::f::batch_v1::cron_job_status::LAST_SCHEDULE_TIME),
        AGE,
        CONTAINERS,
        IMAGES,
        wide_text("Selector", "").of(crate::f::batch_v1::job_spec::SELECTOR),
    ],
    cells: |doc, now| {
        use b::cron_job_spec as cs;
        let spec = doc.root().and_then(|root| root.child(b::cron_job::SPEC));
        let last = doc.str(&[b::cron_job::STATUS, b::cron_job_status::LAST_SCHEDULE_TIME]);
        let job = spec
            .and_then(|spec| spec.child(cs::JOB_TEMPLATE))
            .and_then(|template| template.child(b::job_template_spec::SPEC));
        let [names, images] = containers(job);
        let suspend = match spec.and_then(|spec| spec.bool(cs::SUSPEND)) {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        vec![
            name_cell(doc),
            spec.map_or("", |spec| spec.str(cs::SCHEDULE)).into(),
            or_none(spec.map_or("", |spec| spec.str(cs::TIME_ZONE))).into(),
            suspend.into(),
            (doc.list(&[b::cron_job::STATUS, b::cron_job_status::ACTIVE]).len() as i64).into(),
            if last.is_empty() { "<none>".to_owned() } else { age(Some(last), now) }.into(),
            age_cell(doc, now),
            names,
            images,
            selector_cell(job.and_then(|job| job.child(b::job_spec::SELECTOR))),
        ]
    },
};
