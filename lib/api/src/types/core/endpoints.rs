//! Endpoints and, in group discovery, EndpointSlices.

use std::net::IpAddr;

use crate::doc::{Doc, Struct};
use crate::f::core_v1 as c;
use crate::f::discovery_v1 as d;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::types::core::container::{one_of, port_number};
use crate::types::core::warnings;
use crate::types::meta::immutable;
use crate::types::walk::{default_str, default_value, present, same, strs, structs, structs_mut};
use crate::types::{GenerationRule, Strategy, columns};

/// Endpoints.
pub static ENDPOINTS: Strategy = Strategy {
    defaults: |doc| {
        let Some(root) = doc.root_mut() else { return };
        for subset in structs_mut(root, c::endpoints::SUBSETS) {
            for port in structs_mut(subset, c::endpoint_subset::PORTS) {
                default_str(port, c::endpoint_port::PROTOCOL, "TCP");
            }
        }
    },
    validate_create: |doc, _, errors| subsets(doc, errors),
    validate_update: |new, old, _, errors| {
        let path = [c::endpoints::SUBSETS];
        if !same(new.get(&path), old.get(&path)) {
            subsets(new, errors);
        }
    },
    warnings: |new, _, _| endpoints_warnings(new),
    allow_create_on_update: true,
    columns: &columns::core::ENDPOINTS,
    ..Strategy::BASE
};

/// EndpointSlices.
pub static SLICE: Strategy = Strategy {
    defaults: |doc| {
        let Some(root) = doc.root_mut() else { return };
        for port in structs_mut(root, d::endpoint_slice::PORTS) {
            default_value(port, d::endpoint_port::NAME, "");
            default_value(port, d::endpoint_port::PROTOCOL, "TCP");
        }
    },
    prepare_create: |doc, _| drop_topology(doc, None),
    prepare_update: |new, old, _| {
        drop_topology(new, Some(old));
        let raised =
            [d::endpoint_slice::ENDPOINTS, d::endpoint_slice::PORTS, d::endpoint_slice::ADDRESS_TYPE]
                .iter()
                .any(|field| !same(new.get(&[*field]), old.get(&[*field])));
        if raised || new.meta().labels() != old.meta().labels() {
            let generation = old.meta().generation() + 1;
            new.meta_mut().set_generation(generation);
        }
    },
    validate_create: |doc, _, errors| slice(doc, None, errors),
    validate_update: |new, old, _, errors| {
        slice(new, Some(old), errors);
        let path = [d::endpoint_slice::ADDRESS_TYPE];
        immutable(new.get(&path), old.get(&path), &FieldPath::new("addressType"), errors);
    },
    warnings: |new, old, _| slice_warnings(new, old),
    generation: GenerationRule::CreateOnly,
    columns: &columns::discovery::ENDPOINT_SLICE,
    ..Strategy::BASE
};

fn endpoints_warnings(doc: &Doc) -> Vec<String> {
    use c::endpoint_subset as es;
    let mut out = Vec::new();
    // What the controller writes it has put right itself.
    if doc.meta().label("endpoints.kubernetes.io/managed-by") == Some("endpoint-controller") {
        return out;
    }
    let Some(root) = doc.root() else { return out };
    for (i, subset) in structs(root, c::endpoints::SUBSETS) {
        for field in [es::ADDRESSES, es::NOT_READY_ADDRESSES] {
            for (j, one) in structs(subset, field) {
                let path = format!("subsets[{i}].{}[{j}].ip", field.def().json);
                warnings::address(&path, one.str(c::endpoint_address::IP), &mut out);
            }
        }
    }
    out
}

fn slice_warnings(doc: &Doc, old: Option<&Doc>) -> Vec<String> {
    let mut out = Vec::new();
    let Some(root) = doc.root() else { return out };
    if old.is_none() && root.str(d::endpoint_slice::ADDRESS_TYPE) == "FQDN" {
        out.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
    }
    let manager = doc.meta().label("endpointslice.kubernetes.io/managed-by").unwrap_or("");
    if matches!(manager, "endpointslice-controller.k8s.io" | "endpointslicemirroring-controller.k8s.io") {
        return out;
    }
    for (i, endpoint) in structs(root, d::endpoint_slice::ENDPOINTS) {
        for (j, address) in strs(endpoint, d::endpoint::ADDRESSES) {
            warnings::address(&format!("endpoints[{i}].addresses[{j}]"), address, &mut out);
        }
    }
    out
}

/// The topology map of old is never written; a host name in it that the object had becomes the node's name.
fn drop_topology(doc: &mut Doc, old: Option<&Doc>) {
    use d::endpoint as e;
    const HOST: &str = "kubernetes.io/hostname";
    let path = [d::endpoint_slice::ENDPOINTS];
    if old.is_some_and(|old| same(old.get(&path), doc.get(&path))) {
        return;
    }
    let host = |endpoint: &Struct| {
        endpoint.map(e::DEPRECATED_TOPOLOGY).and_then(|map| map.get_str(HOST)).map(str::to_owned)
    };
    let known: Vec<String> = old
        .and_then(Doc::root)
        .map(|root| structs(root, d::endpoint_slice::ENDPOINTS).filter_map(|(_, one)| host(one)).collect())
        .unwrap_or_default();
    let Some(root) = doc.root_mut() else { return };
    for endpoint in structs_mut(root, d::endpoint_slice::ENDPOINTS) {
        let node = host(endpoint).filter(|host| {
            known.contains(host)
                && !present(endpoint, e::NODE_NAME)
                && names::dns1123_subdomain(host).is_empty()
        });
        if let Some(node) = node {
            endpoint.set(e::NODE_NAME, node);
        }
        endpoint.remove(e::DEPRECATED_TOPOLOGY);
    }
}

fn hints(hints: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use d::endpoint_hints as h;
    for (list, inner, rule) in [
        (h::FOR_ZONES, d::for_zone::NAME, names::label_value as names::Rule),
        (h::FOR_NODES, d::for_node::NAME, names::dns1123_subdomain as names::Rule),
    ] {
        let at = path.child(list.def().json);
        let count = hints.list(list).len();
        if count > 8 {
            errors.too_many(&at, count, 8);
            return;
        }
        let mut seen: Vec<&str> = Vec::new();
        for (i, one) in structs(hints, list) {
            let (at, name) = (at.index(i), one.str(inner));
            let at = at.child("name");
            if seen.contains(&name) {
                errors.duplicate(&at, name);
            } else {
                seen.push(name);
            }
            errors.invalid_each(&at, name, rule(name));
        }
    }
}

fn subsets(doc: &Doc, errors: &mut ErrorList) {
    use c::endpoint_subset as es;
    let Some(root) = doc.root() else { return };
    let all = FieldPath::new("subsets");
    for (i, subset) in structs(root, c::endpoints::SUBSETS) {
        let at = all.index(i);
        if subset.list(es::ADDRESSES).is_empty() && subset.list(es::NOT_READY_ADDRESSES).is_empty() {
            errors.required(&at, "must specify `addresses` or `notReadyAddresses`");
        }
        for field in [es::ADDRESSES, es::NOT_READY_ADDRESSES] {
            let list = at.child(field.def().json);
            for (j, one) in structs(subset, field) {
                address(one, &list.index(j), errors);
            }
        }
        let ports = at.child("ports");
        let needs_name = subset.list(es::PORTS).len() > 1;
        for (j, port) in structs(subset, es::PORTS) {
            let at = ports.index(j);
            let name = port.str(c::endpoint_port::NAME);
            if name.is_empty() && needs_name {
                errors.required(&at.child("name"), "");
            } else if !name.is_empty() {
                errors.invalid_each(&at.child("name"), name, names::dns1123_label(name));
            }
            port_number(port.int(c::endpoint_port::PORT).unwrap_or(0), &at.child("port"), errors);
            let protocol = port.str(c::endpoint_port::PROTOCOL);
            one_of(protocol, &["SCTP", "TCP", "UDP"], &at.child("protocol"), errors);
            if present(port, c::endpoint_port::APP_PROTOCOL) {
                let protocol = port.str(c::endpoint_port::APP_PROTOCOL);
                errors.invalid_each(&at.child("appProtocol"), protocol, names::qualified_name(protocol));
            }
        }
    }
}

fn address(address: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let ip = address.str(c::endpoint_address::IP);
    names::validate_ip_legacy(&path.child("ip"), ip, errors);
    let host = address.str(c::endpoint_address::HOSTNAME);
    if !host.is_empty() {
        errors.invalid_each(&path.child("hostname"), host, names::dns1123_label(host));
    }
    if present(address, c::endpoint_address::NODE_NAME) {
        let node = address.str(c::endpoint_address::NODE_NAME);
        errors.invalid_each(&path.child("nodeName"), node, names::dns1123_subdomain(node));
    }
    validate_endpoint_ip(ip, &path.child("ip"), errors);
}

/// An address that traffic may be sent to: not unspecified, loopback or link-local.
pub fn validate_endpoint_ip(text: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let Some(ip) = names::parse_ip_sloppy(text) else {
        errors.invalid(path, text, "must be a valid IP address");
        return;
    };
    let ip = match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 => v4,
    };
    if ip.is_unspecified() {
        errors.invalid(path, text, format!("may not be unspecified ({text})"));
    }
    if ip.is_loopback() {
        errors.invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (unicast, multicast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => ((v6.segments()[0] & 0xffc0) == 0xfe80, (v6.segments()[0] & 0xff0f) == 0xff02),
    };
    if unicast {
        errors.invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        errors.invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn slice(doc: &Doc, old: Option<&Doc>, errors: &mut ErrorList) {
    let Some(root) = doc.root() else { return };
    let kind = root.str(d::endpoint_slice::ADDRESS_TYPE);
    one_of(kind, &["FQDN", "IPv4", "IPv6"], &FieldPath::new("addressType"), errors);
    slice_ports(root, errors);
    let path = [d::endpoint_slice::ENDPOINTS];
    if old.is_some_and(|old| same(old.get(&path), doc.get(&path))) {
        return;
    }
    let all = FieldPath::new("endpoints");
    let count = root.list(d::endpoint_slice::ENDPOINTS).len();
    if count > 1000 {
        errors.too_many(&all, count, 1000);
        return;
    }
    for (i, endpoint) in structs(root, d::endpoint_slice::ENDPOINTS) {
        slice_endpoint(endpoint, kind, &all.index(i), errors);
    }
}

fn slice_ports(root: &Struct, errors: &mut ErrorList) {
    let all = FieldPath::new("ports");
    let count = root.list(d::endpoint_slice::PORTS).len();
    if count > 20_000 {
        errors.too_many(&all, count, 20_000);
        return;
    }
    let mut seen: Vec<&str> = Vec::new();
    for (i, port) in structs(root, d::endpoint_slice::PORTS) {
        let at = all.index(i);
        let name = port.str(d::endpoint_port::NAME);
        if !name.is_empty() {
            errors.invalid_each(&at.child("name"), name, names::dns1123_label(name));
        }
        if seen.contains(&name) {
            errors.duplicate(&at.child("name"), name);
        } else {
            seen.push(name);
        }
        let protocol = port.str(d::endpoint_port::PROTOCOL);
        if !present(port, d::endpoint_port::PROTOCOL) {
            errors.required(&at.child("protocol"), "");
        } else if !matches!(protocol, "SCTP" | "TCP" | "UDP") {
            errors.not_supported(&at.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        }
        if present(port, d::endpoint_port::APP_PROTOCOL) {
            let protocol = port.str(d::endpoint_port::APP_PROTOCOL);
            errors.invalid_each(&at.child("appProtocol"), protocol, names::qualified_name(protocol));
        }
    }
}

fn slice_endpoint(endpoint: &Struct, kind: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use d::endpoint as e;
    let addresses = path.child("addresses");
    let count = endpoint.list(e::ADDRESSES).len();
    if count == 0 {
        errors.required(&addresses, "must contain at least 1 address");
    } else if count > 100 {
        errors.too_many(&addresses, count, 100);
    }
    for (i, text) in strs(endpoint, e::ADDRESSES) {
        let at = addresses.index(i);
        match kind {
            "IPv4" => {
                if let Some(ip) = names::validate_ip_legacy(&at, text, errors) {
                    if !ip.is_ipv4() {
                        errors.invalid(&addresses, text, "must be an IPv4 address");
                    }
                    validate_endpoint_ip(text, &at, errors);
                }
            }
            "IPv6" => {
                let before = errors.len();
                names::validate_ip_strict(&at, text, errors);
                if errors.len() == before {
                    if !text.contains(':') {
                        errors.invalid(&addresses, text, "must be an IPv6 address");
                    }
                    validate_endpoint_ip(text, &at, errors);
                }
            }
            "FQDN" => fqdn(text, &at, errors),
            _ => {}
        }
    }
    if present(endpoint, e::NODE_NAME) {
        let node = endpoint.str(e::NODE_NAME);
        errors.invalid_each(&path.child("nodeName"), node, names::dns1123_subdomain(node));
    }
    if present(endpoint, e::HOSTNAME) {
        let host = endpoint.str(e::HOSTNAME);
        errors.invalid_each(&path.child("hostname"), host, names::dns1123_label(host));
    }
    let topology = endpoint.map(e::DEPRECATED_TOPOLOGY);
    let at = path.child("deprecatedTopology");
    if let Some(topology) = topology.filter(|topology| topology.len() > 16) {
        errors.too_many(&at, topology.len(), 16);
    }
    crate::types::meta::validate_labels(topology, &at, errors);
    if let Some(one) = endpoint.child(d::endpoint::HINTS) {
        hints(one, &path.child("hints"), errors);
    }
}

fn fqdn(text: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if text.is_empty() {
        errors.required(path, "");
        return;
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let messages = names::dns1123_subdomain(name);
    if !messages.is_empty() {
        errors.invalid(path, name, messages.join(","));
    } else if name.split('.').count() < 2 {
        errors.invalid(path, name, "should be a domain with at least two segments separated by dots");
    }
}
