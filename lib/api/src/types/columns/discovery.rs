//! Columns of group discovery.k8s.io.

use super::{AGE, Columns, NAME, age_cell, name_cell, text};
use crate::doc::{Doc, Value};
use crate::f::discovery_v1 as d;
use crate::types::walk::{strs, structs};

pub static ENDPOINT_SLICE: Columns = Columns {
    definitions: &[
        NAME,
        text("AddressType", "IPv4, IPv6 or FQDN."),
        text("Ports", "Ports of the endpoints."),
        text("Endpoints", "Addresses of the endpoints."),
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
