//! Columns of group discovery.k8s.io.

use super::{AGE, Columns, NAME, age_cell, name_cell, text};
use crate::doc::{Doc, Value};
use crate::f::discovery_v1 as d;
use crate::types::walk::{strs, structs};

pub static ENDPOINT_SLICE: Columns = Columns {
    definitions: &[
        NAME,
        text("AddressType", "").of(crate::f::discovery_v1::endpoint_slice::ADDRESS_TYPE),
        text("Ports", "").of(crate::f::discovery_v1::endpoint_slice::PORTS),
        text("Endpoints", "").of(crate::f::discovery_v1::endpoint_slice::ENDPOINTS),
        AGE,
    ],
    cells: |doc, now| {
        vec![
            name_cell(doc),
            doc.str(&[d::endpoint_slice::ADDRESS_TYPE]).into(),
            ports(doc).into(),
            endpoints(doc).into(),
            age_cell(doc, now),
        ]
    },
};

fn first_three(all: Vec<String>) -> String {
    if all.is_empty() {
        return "<unset>".to_owned();
    }
    let text = all.iter().take(3).cloned().collect::<Vec<_>>().join(",");
    if all.len() > 3 { format!("{text} + {} more...", all.len() - 3) } else { text }
}

fn ports(doc: &Doc) -> String {
    let Some(root) = doc.root() else { return String::new() };
    first_three(
        structs(root, d::endpoint_slice::PORTS)
            .map(|(_, port)| match port.get(d::endpoint_port::PORT).and_then(Value::as_int) {
                Some(number) => number.to_string(),
                None => match port.get(d::endpoint_port::NAME).and_then(Value::as_str) {
                    Some(name) => name.to_owned(),
                    None => "*".to_owned(),
                },
            })
            .collect(),
    )
}

fn endpoints(doc: &Doc) -> String {
    let Some(root) = doc.root() else { return String::new() };
    first_three(
        structs(root, d::endpoint_slice::ENDPOINTS)
            .flat_map(|(_, endpoint)| strs(endpoint, d::endpoint::ADDRESSES).map(|(_, ip)| ip.to_owned()))
            .collect(),
    )
}

/// Aggregated groups.
pub static API_SERVICE: Columns = Columns {
    definitions: &[
        NAME,
        text("Service", "The reference to the service that hosts this API endpoint."),
        text("Available", "Whether this service is available."),
        AGE,
    ],
    cells: |doc, now| {
        use crate::f::apiregistration_v1 as a;
        use a::api_service_condition as c;
        let child = |field| doc.root().and_then(|root| root.child(field));
        let service = child(a::api_service::SPEC).and_then(|spec| spec.child(a::api_service_spec::SERVICE));
        let service = service.map_or("Local".to_owned(), |service| {
            format!(
                "{}/{}",
                service.str(a::service_reference::NAMESPACE),
                service.str(a::service_reference::NAME)
            )
        });
        let condition = child(a::api_service::STATUS).and_then(|status| {
            structs(status, a::api_service_status::CONDITIONS)
                .find(|(_, one)| one.str(c::TYPE) == "Available")
        });
        let available = condition.map_or("Unknown".to_owned(), |(_, one)| {
            match (one.str(c::STATUS), one.str(c::REASON)) {
                (status, reason) if status != "True" && !reason.is_empty() => format!("{status} ({reason})"),
                (status, _) => status.to_owned(),
            }
        });
        vec![name_cell(doc), service.into(), available.into(), age_cell(doc, now)]
    },
};
