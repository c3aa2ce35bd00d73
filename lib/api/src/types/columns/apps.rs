//! Columns of group apps.

use super::{
    AGE, CONTAINERS, Cell, Columns, IMAGES, NAME, age_cell, container_cells, labels_text, name_cell, number,
    selector_cell, selector_text, text, wide_text,
};
use crate::doc::{Doc, Struct};
use crate::f::apps_v1 as a;
use crate::f::core_v1 as c;
use crate::schema::Field;

fn template_spec(doc: &Doc, spec: Field, template: Field) -> Option<&Struct> {
    doc.root()?.child(spec)?.child(template)?.child(c::pod_template_spec::SPEC)
}

pub static DEPLOYMENT: Columns = Columns {
    definitions: &[
        NAME,
        text("Ready", "Number of the pod with ready state"),
        text("Up-to-date", "").of(crate::f::apps_v1::deployment_status::UPDATED_REPLICAS),
        text("Available", "").of(crate::f::apps_v1::deployment_status::AVAILABLE_REPLICAS),
        AGE,
        CONTAINERS,
        IMAGES,
        wide_text("Selector", "").of(crate::f::apps_v1::deployment_spec::SELECTOR),
    ],
    cells: |doc, now| {
        use a::deployment as d;
        use a::deployment_status as st;
        let int = |field| doc.int(&[d::STATUS, field]).unwrap_or(0);
        let desired = doc.int(&[d::SPEC, a::deployment_spec::REPLICAS]).unwrap_or(0);
        let [names, images] = container_cells(template_spec(doc, d::SPEC, a::deployment_spec::TEMPLATE));
        let selector =
            doc.root().and_then(|r| r.child(d::SPEC)).and_then(|s| s.child(a::deployment_spec::SELECTOR));
        vec![
            name_cell(doc),
            format!("{}/{desired}", int(st::READY_REPLICAS)).into(),
            int(st::UPDATED_REPLICAS).into(),
            int(st::AVAILABLE_REPLICAS).into(),
            age_cell(doc, now),
            names,
            images,
            selector_text(selector).into(),
        ]
    },
};

pub static REPLICA_SET: Columns = Columns {
    definitions: &[
        NAME,
        number("Desired", "").of(crate::f::apps_v1::replica_set_spec::REPLICAS),
        number("Current", "").of(crate::f::apps_v1::replica_set_status::REPLICAS),
        number("Ready", "").of(crate::f::apps_v1::replica_set_status::READY_REPLICAS),
        AGE,
        CONTAINERS,
        IMAGES,
        wide_text("Selector", "").of(crate::f::apps_v1::replica_set_spec::SELECTOR),
    ],
    cells: |doc, now| {
        use a::replica_set as r;
        let int = |field| doc.int(&[r::STATUS, field]).unwrap_or(0);
        let [names, images] = container_cells(template_spec(doc, r::SPEC, a::replica_set_spec::TEMPLATE));
        let selector = doc
            .root()
            .and_then(|root| root.child(r::SPEC))
            .and_then(|s| s.child(a::replica_set_spec::SELECTOR));
        vec![
            name_cell(doc),
            doc.int(&[r::SPEC, a::replica_set_spec::REPLICAS]).unwrap_or(0).into(),
            int(a::replica_set_status::REPLICAS).into(),
            int(a::replica_set_status::READY_REPLICAS).into(),
            age_cell(doc, now),
            names,
            images,
            selector_cell(selector),
        ]
    },
};

pub static DAEMON_SET: Columns = Columns {
    definitions: &[
        NAME,
        number("Desired", "").of(crate::f::apps_v1::daemon_set_status::DESIRED_NUMBER_SCHEDULED),
        number("Current", "").of(crate::f::apps_v1::daemon_set_status::CURRENT_NUMBER_SCHEDULED),
        number("Ready", "").of(crate::f::apps_v1::daemon_set_status::NUMBER_READY),
        number("Up-to-date", "").of(crate::f::apps_v1::daemon_set_status::UPDATED_NUMBER_SCHEDULED),
        number("Available", "").of(crate::f::apps_v1::daemon_set_status::NUMBER_AVAILABLE),
        text("Node Selector", "").of(crate::f::core_v1::pod_spec::NODE_SELECTOR),
        AGE,
        CONTAINERS,
        IMAGES,
        wide_text("Selector", "").of(crate::f::apps_v1::daemon_set_spec::SELECTOR),
    ],
    cells: |doc, now| {
        use a::daemon_set as d;
        use a::daemon_set_status as st;
        let int = |field| Cell::Int(doc.int(&[d::STATUS, field]).unwrap_or(0));
        let spec = template_spec(doc, d::SPEC, a::daemon_set_spec::TEMPLATE);
        let [names, images] = container_cells(spec);
        let selector = doc
            .root()
            .and_then(|root| root.child(d::SPEC))
            .and_then(|s| s.child(a::daemon_set_spec::SELECTOR));
        vec![
            name_cell(doc),
            int(st::DESIRED_NUMBER_SCHEDULED),
            int(st::CURRENT_NUMBER_SCHEDULED),
            int(st::NUMBER_READY),
            int(st::UPDATED_NUMBER_SCHEDULED),
            int(st::NUMBER_AVAILABLE),
            labels_text(spec.and_then(|spec| spec.map(c::pod_spec::NODE_SELECTOR))).into(),
            age_cell(doc, now),
            names,
            images,
            selector_cell(selector),
        ]
    },
};

pub static STATEFUL_SET: Columns = Columns {
    definitions: &[NAME, text("Ready", "Number of the pod with ready state"), AGE, CONTAINERS, IMAGES],
    cells: |doc, now| {
        use a::stateful_set as s;
        let ready = doc.int(&[s::STATUS, a::stateful_set_status::READY_REPLICAS]).unwrap_or(0);
        let desired = doc.int(&[s::SPEC, a::stateful_set_spec::REPLICAS]).unwrap_or(0);
        let [names, images] = container_cells(template_spec(doc, s::SPEC, a::stateful_set_spec::TEMPLATE));
        vec![name_cell(doc), format!("{ready}/{desired}").into(), age_cell(doc, now), names, images]
    },
};

pub static CONTROLLER_REVISION: Columns = Columns {
    definitions: &[
        NAME,
        text("Controller", "Controller of the object"),
        text("Revision", "").of(crate::f::apps_v1::controller_revision::REVISION),
        AGE,
    ],
    cells: |doc, now| {
        let controller = doc.meta().owner_references().find(|owner| owner.controller).map(|owner| {
            let kind = owner.kind.to_lowercase();
            match owner.api_version.split_once('/') {
                Some((group, _)) => format!("{kind}.{group}/{}", owner.name),
                None => format!("{kind}/{}", owner.name),
            }
        });
        let revision = doc.int(&[a::controller_revision::REVISION]).unwrap_or(0);
        vec![
            name_cell(doc),
            controller.unwrap_or_else(|| "<none>".to_owned()).into(),
            revision.into(),
            age_cell(doc, now),
        ]
    },
};
