//! Columns of storage drivers, admission policies, flow control and devices.

use jiff::Timestamp;

use super::{
    AGE, Cell, Columns, NAME, age_cell, column, name_and_age, name_cell, number, selector_text, text,
};
use crate::doc::{Doc, Struct};
use crate::f::admissionregistration_v1 as ar;
use crate::f::flowcontrol_v1 as fc;
use crate::f::resource_v1 as dra;
use crate::f::storage_v1 as st;
use crate::schema::Field;
use crate::types::walk::{present, strs, structs};

fn child(doc: &Doc, field: Field) -> Option<&Struct> {
    doc.root()?.child(field)
}

fn or_unset(value: Option<String>) -> Cell {
    value.unwrap_or_else(|| "<unset>".to_owned()).into()
}

/// Types that show their name and age only.
pub static NAME_AND_AGE: Columns = Columns { definitions: &[NAME, AGE], cells: name_and_age };

pub static VOLUME_ATTRIBUTES_CLASS: Columns = Columns {
    definitions: &[
        NAME,
        text("DriverName", "").of(crate::f::storage_v1::volume_attributes_class::DRIVER_NAME),
        AGE,
    ],
    cells: |doc, now| {
        let driver = doc.str(&[st::volume_attributes_class::DRIVER_NAME]);
        vec![name_cell(doc), driver.into(), age_cell(doc, now)]
    },
};

pub static VOLUME_ATTACHMENT: Columns = Columns {
    definitions: &[
        NAME,
        column("Attacher", "string", "name", "").of(crate::f::storage_v1::volume_attachment_spec::ATTACHER),
        text("PV", "").of(crate::f::storage_v1::volume_attachment_source::PERSISTENT_VOLUME_NAME),
        text("Node", "").of(crate::f::storage_v1::volume_attachment_spec::NODE_NAME),
        column("Attached", "boolean", "", "").of(crate::f::storage_v1::volume_attachment_status::ATTACHED),
        AGE,
    ],
    cells: |doc, now| {
        use st::{volume_attachment as va, volume_attachment_spec as s};
        let attached = child(doc, va::STATUS)
            .and_then(|status| status.bool(st::volume_attachment_status::ATTACHED))
            .unwrap_or(false);
        vec![
            name_cell(doc),
            doc.str(&[va::SPEC, s::ATTACHER]).into(),
            doc.str(&[va::SPEC, s::SOURCE, st::volume_attachment_source::PERSISTENT_VOLUME_NAME]).into(),
            doc.str(&[va::SPEC, s::NODE_NAME]).into(),
            attached.into(),
            age_cell(doc, now),
        ]
    },
};

pub static CSI_NODE: Columns = Columns {
    definitions: &[
        NAME,
        number("Drivers", "Drivers indicates the number of CSI drivers registered on the node"),
        AGE,
    ],
    cells: |doc, now| {
        let drivers = doc.list(&[st::csi_node::SPEC, st::csi_node_spec::DRIVERS]).len();
        vec![name_cell(doc), (drivers as i64).into(), age_cell(doc, now)]
    },
};

pub static CSI_DRIVER: Columns = Columns {
    definitions: &[
        NAME,
        column("AttachRequired", "boolean", "", "")
            .of(crate::f::storage_v1::csi_driver_spec::ATTACH_REQUIRED),
        column("PodInfoOnMount", "boolean", "", "")
            .of(crate::f::storage_v1::csi_driver_spec::POD_INFO_ON_MOUNT),
        column("StorageCapacity", "boolean", "", "")
            .of(crate::f::storage_v1::csi_driver_spec::STORAGE_CAPACITY),
        text("TokenRequests", "").of(crate::f::storage_v1::csi_driver_spec::TOKEN_REQUESTS),
        column("RequiresRepublish", "boolean", "", "")
            .of(crate::f::storage_v1::csi_driver_spec::REQUIRES_REPUBLISH),
        text("Modes", "").of(crate::f::storage_v1::csi_driver_spec::VOLUME_LIFECYCLE_MODES),
        AGE,
    ],
    cells: csi_driver,
};

fn csi_driver(doc: &Doc, now: Timestamp) -> Vec<Cell> {
    use st::csi_driver_spec as s;
    let spec = child(doc, st::csi_driver::SPEC);
    let flag = |field: Field, absent: bool| -> Cell {
        spec.and_then(|spec| spec.bool(field)).unwrap_or(absent).into()
    };
    let audiences = spec.filter(|spec| present(spec, s::TOKEN_REQUESTS)).map(|spec| {
        let all = structs(spec, s::TOKEN_REQUESTS).map(|(_, one)| one.str(st::token_request::AUDIENCE));
        all.collect::<Vec<_>>().join(",")
    });
    let modes: Vec<&str> = spec
        .into_iter()
        .flat_map(|spec| strs(spec, s::VOLUME_LIFECYCLE_MODES))
        .map(|(_, mode)| mode)
        .collect();
    let modes = if modes.is_empty() { "<none>".to_owned() } else { modes.join(",") };
    vec![
        name_cell(doc),
        flag(s::ATTACH_REQUIRED, true),
        flag(s::POD_INFO_ON_MOUNT, false),
        flag(s::STORAGE_CAPACITY, false),
        or_unset(audiences),
        flag(s::REQUIRES_REPUBLISH, false),
        modes.into(),
        age_cell(doc, now),
    ]
}

pub static CSI_STORAGE_CAPACITY: Columns = Columns {
    definitions: &[
        NAME,
        text("StorageClassName", "").of(crate::f::storage_v1::csi_storage_capacity::STORAGE_CLASS_NAME),
        text("Capacity", "").of(crate::f::storage_v1::csi_storage_capacity::CAPACITY),
    ],
    cells: |doc, _| {
        use st::csi_storage_capacity as s;
        let capacity = doc.str(&[s::CAPACITY]);
        vec![
            name_cell(doc),
            doc.str(&[s::STORAGE_CLASS_NAME]).into(),
            or_unset((!capacity.is_empty()).then(|| capacity.to_owned())),
        ]
    },
};

pub static VALIDATING_POLICY: Columns = Columns {
    definitions: &[
        NAME,
        number(
            "Validations",
            "Validations indicates the number of validation rules defined in this configuration",
        ),
        text("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy"),
        AGE,
    ],
    cells: |doc, now| {
        use ar::{validating_admission_policy as v, validating_admission_policy_spec as s};
        let kind = child(doc, v::SPEC).and_then(|spec| spec.child(s::PARAM_KIND));
        let kind = kind.map(|kind| {
            format!("{}/{}", kind.str(ar::param_kind::API_VERSION), kind.str(ar::param_kind::KIND))
        });
        let rules = doc.list(&[v::SPEC, s::VALIDATIONS]).len();
        vec![name_cell(doc), (rules as i64).into(), or_unset(kind), age_cell(doc, now)]
    },
};

pub static VALIDATING_BINDING: Columns = Columns {
    definitions: &[
        NAME,
        text("PolicyName", "PolicyName indicates the policy definition which the policy binding binded to"),
        text("ParamRef", "ParamRef indicates the param resource which sets the configuration param"),
        AGE,
    ],
    cells: |doc, now| {
        use ar::{validating_admission_policy_binding as v, validating_admission_policy_binding_spec as s};
        let spec = child(doc, v::SPEC);
        let policy = doc.str(&[v::SPEC, s::POLICY_NAME]);
        let reference = spec.and_then(|spec| spec.child(s::PARAM_REF));
        vec![name_cell(doc), policy.into(), or_unset(reference.and_then(param_ref)), age_cell(doc, now)]
    },
};

fn param_ref(reference: &Struct) -> Option<String> {
    use ar::param_ref as p;
    let (name, namespace) = (reference.str(p::NAME), reference.str(p::NAMESPACE));
    match (name, namespace) {
        ("", _) => reference.child(p::SELECTOR).map(|selector| selector_text(Some(selector))),
        (name, "") => Some(format!("*/{name}")),
        (name, namespace) => Some(format!("{namespace}/{name}")),
    }
}

pub static FLOW_SCHEMA: Columns = Columns {
    definitions: &[
        NAME,
        text("PriorityLevel", "").of(crate::f::flowcontrol_v1::priority_level_configuration_reference::NAME),
        text("MatchingPrecedence", "").of(crate::f::flowcontrol_v1::flow_schema_spec::MATCHING_PRECEDENCE),
        text("DistinguisherMethod", "").of(crate::f::flowcontrol_v1::flow_schema_spec::DISTINGUISHER_METHOD),
        AGE,
        text("MissingPL", "references a broken or non-existent PriorityLevelConfiguration"),
    ],
    cells: |doc, now| {
        use fc::{flow_schema as f, flow_schema_condition as c, flow_schema_spec as s};
        let level =
            [f::SPEC, s::PRIORITY_LEVEL_CONFIGURATION, fc::priority_level_configuration_reference::NAME];
        let spec = child(doc, f::SPEC);
        let precedence = spec.and_then(|spec| spec.int(s::MATCHING_PRECEDENCE)).unwrap_or(0);
        let method = spec.and_then(|spec| spec.child(s::DISTINGUISHER_METHOD));
        let method = method.map_or("<none>", |method| method.str(fc::flow_distinguisher_method::TYPE));
        let dangling = child(doc, f::STATUS).and_then(|status| {
            structs(status, fc::flow_schema_status::CONDITIONS)
                .find(|(_, one)| one.str(c::TYPE) == "Dangling")
                .map(|(_, one)| one.str(c::STATUS))
        });
        vec![
            name_cell(doc),
            doc.str(&level).into(),
            precedence.into(),
            method.into(),
            age_cell(doc, now),
            dangling.unwrap_or("?").into(),
        ]
    },
};

pub static PRIORITY_LEVEL: Columns = Columns {
    definitions: &[
        NAME,
        text("Type", "").of(crate::f::flowcontrol_v1::priority_level_configuration_spec::TYPE),
        text("NominalConcurrencyShares", "")
            .of(crate::f::flowcontrol_v1::limited_priority_level_configuration::NOMINAL_CONCURRENCY_SHARES),
        text("Queues", "").of(crate::f::flowcontrol_v1::queuing_configuration::QUEUES),
        text("HandSize", "").of(crate::f::flowcontrol_v1::queuing_configuration::HAND_SIZE),
        text("QueueLengthLimit", "").of(crate::f::flowcontrol_v1::queuing_configuration::QUEUE_LENGTH_LIMIT),
        AGE,
    ],
    cells: |doc, now| {
        use fc::queuing_configuration as q;
        use fc::{limited_priority_level_configuration as l, priority_level_configuration as p};
        let spec = child(doc, p::SPEC);
        let limited = spec.and_then(|spec| spec.child(fc::priority_level_configuration_spec::LIMITED));
        let queuing = limited
            .and_then(|limited| limited.child(l::LIMIT_RESPONSE))
            .and_then(|response| response.child(fc::limit_response::QUEUING));
        let cell = |from: Option<&Struct>, field: Field| match from {
            Some(from) => Cell::Int(from.int(field).unwrap_or(0)),
            None => "<none>".into(),
        };
        vec![
            name_cell(doc),
            doc.str(&[p::SPEC, fc::priority_level_configuration_spec::TYPE]).into(),
            cell(limited, l::NOMINAL_CONCURRENCY_SHARES),
            cell(queuing, q::QUEUES),
            cell(queuing, q::HAND_SIZE),
            cell(queuing, q::QUEUE_LENGTH_LIMIT),
            age_cell(doc, now),
        ]
    },
};

pub static RESOURCE_CLAIM: Columns = Columns {
    definitions: &[
        NAME,
        text("State", "A summary of the current state (allocated, pending, reserved, etc.)."),
        AGE,
    ],
    cells: |doc, now| {
        use dra::resource_claim_status as s;
        let status = child(doc, dra::resource_claim::STATUS);
        let deleted = doc.meta().is_being_deleted();
        let mut states = if deleted { vec!["deleted"] } else { vec![] };
        match status.filter(|status| present(status, s::ALLOCATION)) {
            Some(status) => {
                states.push("allocated");
                if !status.list(s::RESERVED_FOR).is_empty() {
                    states.push("reserved");
                }
            }
            None if !deleted => states.push("pending"),
            None => {}
        }
        vec![name_cell(doc), states.join(",").into(), age_cell(doc, now)]
    },
};

pub static RESOURCE_SLICE: Columns = Columns {
    definitions: &[
        NAME,
        text("Node", "").of(crate::f::resource_v1::resource_slice_spec::NODE_NAME),
        text("Driver", "").of(crate::f::resource_v1::resource_slice_spec::DRIVER),
        text("Pool", "").of(crate::f::resource_v1::resource_pool::NAME),
        AGE,
    ],
    cells: |doc, now| {
        use dra::{resource_slice as r, resource_slice_spec as s};
        vec![
            name_cell(doc),
            doc.str(&[r::SPEC, s::NODE_NAME]).into(),
            doc.str(&[r::SPEC, s::DRIVER]).into(),
            doc.str(&[r::SPEC, s::POOL, dra::resource_pool::NAME]).into(),
            age_cell(doc, now),
        ]
    },
};
