//! Services: defaults, the linked cluster address fields, validation.
//!
//! Addresses and node ports are allocated by the API server between `before_create` and `check_create` (and likewise
//! on update); [`needs_cluster_ip`] and [`needs_node_port`] say which.

use std::net::IpAddr;

use crate::doc::{Doc, Struct, Value};
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::schema::Field;
use crate::t::core_v1 as t;
use crate::types::core::container::{one_of, port_number, port_or_name, string_list};
use crate::types::core::endpoints;
use crate::types::core::service_update;
use crate::types::walk::{
    child_entry, default_str, default_value, json_text, present, strs, structs, structs_mut,
};
use crate::types::{Ctx, SelectableFields, Strategy, columns};

use c::service_spec as ss;

/// The rules of Services.
pub static STRATEGY: Strategy = Strategy {
    name_rule: names::name_is_dns1035,
    defaults,
    prepare_create: |doc, _| normalize_on_create(doc),
    prepare_update,
    validate_create: |doc, _, errors| validate(doc, None, errors),
    validate_update,
    validate_status_update: |new, old, _, errors| status_update(new, old, errors),
    allow_create_on_update: true,
    selectable: &["metadata.name", "metadata.namespace", "spec.clusterIP", "spec.type"],
    selectable_fields: |doc| {
        let get = |field: Field| doc.str(&[c::service::SPEC, field]).into();
        SelectableFields::from_iter([("spec.clusterIP", get(ss::CLUSTER_IP)), ("spec.type", get(ss::TYPE))])
    },
    warnings: service_update::service_warnings,
    columns: &columns::core::SERVICE,
    ..Strategy::BASE
};

const SPEC: FieldPath<'static> = FieldPath::new("spec");

fn spec(doc: &Doc) -> Option<&Struct> {
    doc.root()?.child(c::service::SPEC)
}

fn externally_accessible(spec: &Struct) -> bool {
    matches!(spec.str(ss::TYPE), "LoadBalancer" | "NodePort")
        || (spec.str(ss::TYPE) == "ClusterIP" && !spec.list(ss::EXTERNAL_IPS).is_empty())
}

fn needs_health_check(spec: &Struct) -> bool {
    spec.str(ss::TYPE) == "LoadBalancer" && spec.str(ss::EXTERNAL_TRAFFIC_POLICY) == "Local"
}

/// Whether the Service's type has a cluster address (`None` is a value of it).
pub fn needs_cluster_ip(spec: &Struct) -> bool {
    matches!(spec.str(ss::TYPE), "ClusterIP" | "NodePort" | "LoadBalancer")
}

/// Whether ports of the Service get node ports.
pub fn needs_node_port(spec: &Struct) -> bool {
    match spec.str(ss::TYPE) {
        "NodePort" => true,
        "LoadBalancer" => spec.bool(ss::ALLOCATE_LOAD_BALANCER_NODE_PORTS) != Some(false),
        _ => false,
    }
}

/// Whether the Service has no cluster address by wish.
pub(super) fn is_headless(spec: &Struct) -> bool {
    let ips = spec.list(ss::CLUSTER_IPS);
    ips.len() == 1 && ips[0].as_str() == Some("None")
}

fn defaults(doc: &mut Doc) {
    let Some(spec) = doc.root_mut().and_then(|root| child_entry(root, c::service::SPEC)) else { return };
    default_str(spec, ss::SESSION_AFFINITY, "None");
    match spec.str(ss::SESSION_AFFINITY) {
        "None" => {
            spec.remove(ss::SESSION_AFFINITY_CONFIG);
        }
        "ClientIP" => {
            if let Some(client) = child_entry(spec, ss::SESSION_AFFINITY_CONFIG)
                .and_then(|config| child_entry(config, c::session_affinity_config::CLIENT_IP))
            {
                default_value(client, c::client_ip_config::TIMEOUT_SECONDS, 10_800);
            }
        }
        _ => {}
    }
    default_str(spec, ss::TYPE, "ClusterIP");
    for port in structs_mut(spec, ss::PORTS) {
        default_str(port, c::service_port::PROTOCOL, "TCP");
        let unset = match port.get(c::service_port::TARGET_PORT) {
            None | Some(Value::Null) => true,
            Some(Value::Int(number)) => *number == 0,
            Some(Value::Str(name)) => name.is_empty(),
            _ => false,
        };
        if unset {
            let number = port.int(c::service_port::PORT).unwrap_or(0);
            port.set(c::service_port::TARGET_PORT, number);
        }
    }
    if externally_accessible(spec) {
        default_str(spec, ss::EXTERNAL_TRAFFIC_POLICY, "Cluster");
    }
    if needs_cluster_ip(spec) {
        default_value(spec, ss::INTERNAL_TRAFFIC_POLICY, "Cluster");
    }
    if spec.str(ss::TYPE) == "LoadBalancer" {
        default_value(spec, ss::ALLOCATE_LOAD_BALANCER_NODE_PORTS, true);
        let ingress = doc
            .root_mut()
            .and_then(|root| root.child_mut(c::service::STATUS))
            .and_then(|status| status.child_mut(c::service_status::LOAD_BALANCER));
        for one in
            ingress.into_iter().flat_map(|balancer| structs_mut(balancer, c::load_balancer_status::INGRESS))
        {
            if !one.str(c::load_balancer_ingress::IP).is_empty() {
                default_value(one, c::load_balancer_ingress::IP_MODE, "VIP");
            }
        }
    }
}

fn normalize_on_create(doc: &mut Doc) {
    let Some(spec) = doc.root_mut().and_then(|root| root.child_mut(c::service::SPEC)) else { return };
    let ip = spec.str(ss::CLUSTER_IP).to_owned();
    if !ip.is_empty() && spec.list(ss::CLUSTER_IPS).is_empty() {
        spec.set(ss::CLUSTER_IPS, vec![Value::from(ip)]);
    }
}

fn prepare_update(new: &mut Doc, old: &Doc, _: &Ctx<'_>) {
    let (Some(now), Some(before)) =
        (new.root_mut().and_then(|root| root.child_mut(c::service::SPEC)), spec(old))
    else {
        return;
    };
    patch_allocated(now, before);
    normalize_on_update(now, before);
    drop_type_dependent(now, before);
}

fn copy(now: &mut Struct, before: &Struct, field: Field) {
    if let Some(value) = before.get(field) {
        now.set(field, value.clone());
    }
}

/// Values allocated earlier come back where the client left them out.
fn patch_allocated(now: &mut Struct, before: &Struct) {
    if needs_cluster_ip(before) && needs_cluster_ip(now) {
        if now.str(ss::CLUSTER_IP).is_empty() {
            copy(now, before, ss::CLUSTER_IP);
        }
        if now.list(ss::CLUSTER_IPS).is_empty() {
            copy(now, before, ss::CLUSTER_IPS);
        }
        for field in [ss::IP_FAMILIES, ss::IP_FAMILY_POLICY] {
            if !present(now, field) {
                copy(now, before, field);
            }
        }
    }
    if needs_node_port(before) && needs_node_port(now) {
        let ports = |spec: &Struct| -> Vec<(String, i64)> {
            structs(spec, ss::PORTS)
                .map(|(_, port)| {
                    let number = port.int(c::service_port::NODE_PORT).unwrap_or(0);
                    (port.str(c::service_port::NAME).to_owned(), number)
                })
                .collect()
        };
        let (old_ports, new_ports) = (ports(before), ports(now));
        for port in structs_mut(now, ss::PORTS) {
            if port.int(c::service_port::NODE_PORT).unwrap_or(0) != 0 {
                continue;
            }
            let name = port.str(c::service_port::NAME).to_owned();
            if let Some((_, number)) = old_ports.iter().find(|(old, number)| *old == name && *number != 0)
                && !new_ports.iter().any(|(_, used)| used == number)
            {
                port.set(c::service_port::NODE_PORT, *number);
            }
        }
    }
    let health = before.int(ss::HEALTH_CHECK_NODE_PORT).unwrap_or(0);
    if needs_health_check(before)
        && needs_health_check(now)
        && health != 0
        && now.int(ss::HEALTH_CHECK_NODE_PORT).unwrap_or(0) == 0
    {
        now.set(ss::HEALTH_CHECK_NODE_PORT, health);
    }
}

fn normalize_on_update(now: &mut Struct, before: &Struct) {
    let (ip, old_ip) = (now.str(ss::CLUSTER_IP).to_owned(), before.str(ss::CLUSTER_IP));
    if !before.list(ss::CLUSTER_IPS).is_empty() && now.list(ss::CLUSTER_IPS).is_empty() && ip == old_ip {
        copy(now, before, ss::CLUSTER_IPS);
    }
    let same_list = now.list(ss::CLUSTER_IPS) == before.list(ss::CLUSTER_IPS);
    if ip != old_ip && same_list {
        if ip.is_empty() {
            now.remove(ss::CLUSTER_IPS);
        } else {
            now.set(ss::CLUSTER_IPS, vec![Value::from(ip)]);
        }
    }
}

fn drop_type_dependent(now: &mut Struct, before: &Struct) {
    let same = |now: &Struct, field: Field| now.get(field) == before.get(field);
    if needs_cluster_ip(before) && !needs_cluster_ip(now) {
        if same(now, ss::CLUSTER_IP) && same(now, ss::CLUSTER_IPS) {
            now.remove(ss::CLUSTER_IP);
            now.remove(ss::CLUSTER_IPS);
        }
        for field in [ss::IP_FAMILIES, ss::IP_FAMILY_POLICY] {
            if same(now, field) {
                now.remove(field);
            }
        }
    }
    if needs_node_port(before) && !needs_node_port(now) {
        let numbers = |spec: &Struct| -> Vec<i64> {
            structs(spec, ss::PORTS)
                .map(|(_, port)| port.int(c::service_port::NODE_PORT).unwrap_or(0))
                .collect()
        };
        if numbers(now) == numbers(before) {
            for port in structs_mut(now, ss::PORTS) {
                port.remove(c::service_port::NODE_PORT);
            }
        }
    }
    if needs_health_check(before) && !needs_health_check(now) && same(now, ss::HEALTH_CHECK_NODE_PORT) {
        now.remove(ss::HEALTH_CHECK_NODE_PORT);
    }
    if before.str(ss::TYPE) == "LoadBalancer" && now.str(ss::TYPE) != "LoadBalancer" {
        for field in [ss::ALLOCATE_LOAD_BALANCER_NODE_PORTS, ss::LOAD_BALANCER_CLASS] {
            if same(now, field) {
                now.remove(field);
            }
        }
    }
    if externally_accessible(before) && !externally_accessible(now) && same(now, ss::EXTERNAL_TRAFFIC_POLICY)
    {
        now.remove(ss::EXTERNAL_TRAFFIC_POLICY);
    }
}

fn validate_update(new: &Doc, old: &Doc, _: &Ctx<'_>, errors: &mut ErrorList) {
    let empty = Struct::new(t::SERVICE_SPEC);
    let (now, before) = (spec(new).unwrap_or(&empty), spec(old).unwrap_or(&empty));
    service_update::addresses_stay(now, before, errors);
    if now.str(ss::TYPE) == "LoadBalancer"
        && before.str(ss::TYPE) == "LoadBalancer"
        && now.get(ss::LOAD_BALANCER_CLASS) != before.get(ss::LOAD_BALANCER_CLASS)
    {
        let value = json_text(now.get(ss::LOAD_BALANCER_CLASS));
        errors.invalid(&SPEC.child("loadBalancerClass"), value, "may not change once set");
    }
    if needs_health_check(before)
        && needs_health_check(now)
        && now.int(ss::HEALTH_CHECK_NODE_PORT) != before.int(ss::HEALTH_CHECK_NODE_PORT)
    {
        errors.forbidden(&SPEC.child("healthCheckNodePort"), "field is immutable");
    }
    validate(new, Some(old), errors);
}

fn validate(doc: &Doc, old: Option<&Doc>, errors: &mut ErrorList) {
    let empty = Struct::new(t::SERVICE_SPEC);
    let spec = spec(doc).unwrap_or(&empty);
    let kind = spec.str(ss::TYPE);
    let headless = is_headless(spec);
    let ports = SPEC.child("ports");
    if spec.list(ss::PORTS).is_empty() && !headless && kind != "ExternalName" {
        errors.required(&ports, "");
    }
    service_update::annotations(doc, old, spec, errors);
    by_type(spec, kind, headless, errors);
    let mut port_names: Vec<&str> = Vec::new();
    let needs_name = spec.list(ss::PORTS).len() > 1;
    for (i, port) in structs(spec, ss::PORTS) {
        validate_port(port, needs_name, &mut port_names, &ports.index(i), errors);
    }
    crate::types::meta::validate_labels(spec.map(ss::SELECTOR), &SPEC.child("selector"), errors);
    session_affinity(spec, errors);
    if kind != "ExternalName" {
        cluster_ips(spec, headless, errors);
    }
    let at = SPEC.child("externalIPs");
    for (i, ip) in strs(spec, ss::EXTERNAL_IPS) {
        if names::validate_ip_legacy(&at.index(i), ip, errors).is_some() {
            endpoints::validate_endpoint_ip(ip, &at.index(i), errors);
        }
    }
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    one_of(kind, &types, &SPEC.child("type"), errors);
    node_ports(spec, kind, errors);
    load_balancer(spec, kind, errors);
    traffic(spec, kind, errors);
}

fn by_type(spec: &Struct, kind: &str, headless: bool, errors: &mut ErrorList) {
    let ips = SPEC.child("clusterIPs");
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            errors.invalid(&ips.index(0), "None", format!("may not be set to 'None' for {kind} services"));
        }
        "ExternalName" => {
            for field in [ss::CLUSTER_IPS, ss::IP_FAMILIES, ss::IP_FAMILY_POLICY] {
                if spec.get(field).is_some_and(|value| !value.is_go_empty()) {
                    errors
                        .forbidden(&SPEC.child(field.def().json), "may not be set for ExternalName services");
                }
            }
            let name = spec.str(ss::EXTERNAL_NAME);
            let name = name.strip_suffix('.').unwrap_or(name);
            let at = SPEC.child("externalName");
            if name.is_empty() {
                errors.required(&at, "");
            } else {
                errors.invalid_each(&at, name, names::dns1123_subdomain(name));
            }
        }
        _ => {}
    }
}

fn validate_port<'a>(
    port: &'a Struct,
    needs_name: bool,
    seen: &mut Vec<&'a str>,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    use c::service_port as sp;
    let name = port.str(sp::NAME);
    if name.is_empty() {
        if needs_name {
            errors.required(&path.child("name"), "");
        }
    } else {
        errors.invalid_each(&path.child("name"), name, names::dns1123_label(name));
        if seen.contains(&name) {
            errors.duplicate(&path.child("name"), name);
        } else {
            seen.push(name);
        }
    }
    port_number(port.int(sp::PORT).unwrap_or(0), &path.child("port"), errors);
    one_of(port.str(sp::PROTOCOL), &["SCTP", "TCP", "UDP"], &path.child("protocol"), errors);
    port_or_name(port.get(sp::TARGET_PORT), &path.child("targetPort"), errors);
    if present(port, sp::APP_PROTOCOL) {
        let protocol = port.str(sp::APP_PROTOCOL);
        errors.invalid_each(&path.child("appProtocol"), protocol, names::qualified_name(protocol));
    }
}

fn session_affinity(spec: &Struct, errors: &mut ErrorList) {
    let affinity = spec.str(ss::SESSION_AFFINITY);
    one_of(affinity, &["ClientIP", "None"], &SPEC.child("sessionAffinity"), errors);
    let at = SPEC.child("sessionAffinityConfig");
    let config = spec.child(ss::SESSION_AFFINITY_CONFIG);
    if affinity == "None" && config.is_some() {
        errors.forbidden(&at, "must not be set when session affinity is None");
    }
    if affinity == "ClientIP" {
        let client = config.and_then(|config| config.child(c::session_affinity_config::CLIENT_IP));
        match client.and_then(|client| client.int(c::client_ip_config::TIMEOUT_SECONDS)) {
            None => errors.required(&at, "when session affinity type is ClientIP"),
            Some(seconds) if !(1..=86_400).contains(&seconds) => {
                let at = at.child("clientIP");
                let text = "must be greater than 0 and less than 86400";
                errors.invalid(&at.child("timeoutSeconds"), seconds, text);
            }
            Some(_) => {}
        }
    }
}

/// What addresses and families say of each other, to be checked before any is claimed.
pub fn validate_cluster_ips(doc: &Doc, errors: &mut ErrorList) {
    if let Some(spec) = spec(doc) {
        cluster_ips(spec, is_headless(spec), errors);
    }
}

fn cluster_ips(spec: &Struct, headless: bool, errors: &mut ErrorList) {
    let at = SPEC.child("clusterIPs");
    let ip = spec.str(ss::CLUSTER_IP);
    let list: Vec<&str> = strs(spec, ss::CLUSTER_IPS).map(|(_, ip)| ip).collect();
    let value = || string_list(spec, ss::CLUSTER_IPS);
    match list.first() {
        None if !ip.is_empty() => errors.required(&at, ""),
        Some(_) if ip.is_empty() => {
            errors.invalid(&at, value(), "must be empty when `clusterIP` is not specified")
        }
        Some(first) if *first != ip => errors.invalid(&at, value(), "first value must match `clusterIP`"),
        _ => {}
    }
    let families_path = SPEC.child("ipFamilies");
    let families: Vec<&str> = strs(spec, ss::IP_FAMILIES).map(|(_, family)| family).collect();
    for (i, family) in families.iter().enumerate() {
        if !matches!(*family, "IPv4" | "IPv6") {
            errors.not_supported(&families_path.index(i), *family, &["IPv4", "IPv6"]);
        }
        if families[..i].contains(family) {
            errors.duplicate(&families_path.index(i), *family);
        }
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    crate::types::core::security::optional_one_of(spec, ss::IP_FAMILY_POLICY, &policies, &SPEC, errors);
    let mut parsed: Vec<IpAddr> = Vec::new();
    let mut bad = false;
    for (i, ip) in list.iter().enumerate() {
        if i == 0 && *ip == "None" {
            if list.len() > 1 {
                bad = true;
                errors.invalid(&at, value(), "'None' must be the first and only value");
            }
            continue;
        }
        match names::validate_ip_legacy(&at.index(i), ip, errors) {
            Some(ip) => parsed.push(ip),
            None => bad = true,
        }
    }
    if list.len() > 2 {
        errors.invalid(&at, value(), "may only hold up to 2 values");
    }
    if bad {
        return;
    }
    if list.len() > 1 && parsed.iter().all(|ip| ip.is_ipv4() == parsed[0].is_ipv4()) {
        errors.invalid(&at, value(), "may specify no more than one IP for each IP family");
    }
    if !headless {
        for (i, (ip, family)) in parsed.iter().zip(&families).enumerate() {
            if (*family == "IPv4" && !ip.is_ipv4()) || (*family == "IPv6" && ip.is_ipv4()) {
                let text = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
                errors.invalid(&at.index(i), list[i], text);
            }
        }
    }
}

fn node_ports(spec: &Struct, kind: &str, errors: &mut ErrorList) {
    let at = SPEC.child("ports");
    let mut node_ports: Vec<(&str, i64)> = Vec::new();
    let mut ports: Vec<(&str, i64)> = Vec::new();
    for (i, port) in structs(spec, ss::PORTS) {
        let number = port.int(c::service_port::NODE_PORT).unwrap_or(0);
        if kind == "ClusterIP" && number != 0 {
            let path = at.index(i);
            errors.forbidden(&path.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
        let key = (port.str(c::service_port::PROTOCOL), number);
        if number != 0 {
            if node_ports.contains(&key) {
                let path = at.index(i);
                errors.duplicate(&path.child("nodePort"), number);
            }
            node_ports.push(key);
        }
    }
    for (i, port) in structs(spec, ss::PORTS) {
        let key = (port.str(c::service_port::PROTOCOL), port.int(c::service_port::PORT).unwrap_or(0));
        if ports.contains(&key) {
            // Upstream prints the comparison key, an otherwise empty port.
            let text = format!(
                "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{},\"TargetPort\":0,\"NodePort\":0}}",
                crate::field_errors::quoted(key.0),
                key.1
            );
            errors.duplicate(&at.index(i), crate::field_errors::BadValue::Raw(text));
        }
        ports.push(key);
    }
}

fn load_balancer(spec: &Struct, kind: &str, errors: &mut ErrorList) {
    let balanced = kind == "LoadBalancer";
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    if !spec.list(ss::LOAD_BALANCER_SOURCE_RANGES).is_empty() {
        let at = SPEC.child("LoadBalancerSourceRanges");
        if !balanced {
            errors.forbidden(&at, ONLY);
        }
        for (i, range) in strs(spec, ss::LOAD_BALANCER_SOURCE_RANGES) {
            names::validate_cidr_legacy(&at.index(i), range.trim(), errors);
        }
    }
    for field in [ss::ALLOCATE_LOAD_BALANCER_NODE_PORTS, ss::LOAD_BALANCER_CLASS] {
        if present(spec, field) && !balanced {
            errors.forbidden(&SPEC.child(field.def().json), ONLY);
        }
    }
    if balanced && present(spec, ss::LOAD_BALANCER_CLASS) {
        let class = spec.str(ss::LOAD_BALANCER_CLASS);
        errors.invalid_each(&SPEC.child("loadBalancerClass"), class, names::qualified_name(class));
    }
}

fn traffic(spec: &Struct, kind: &str, errors: &mut ErrorList) {
    let external = spec.str(ss::EXTERNAL_TRAFFIC_POLICY);
    let at = SPEC.child("externalTrafficPolicy");
    if externally_accessible(spec) {
        one_of(external, &["Cluster", "Local"], &at, errors);
    } else if !external.is_empty() {
        errors.invalid(&at, external, "may only be set for externally-accessible services");
    }
    let health = spec.int(ss::HEALTH_CHECK_NODE_PORT).unwrap_or(0);
    let at = SPEC.child("healthCheckNodePort");
    if needs_health_check(spec) {
        if health == 0 {
            errors.required(&at, "");
        } else {
            port_number(health, &at, errors);
        }
    } else if health != 0 {
        let text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(&at, health, text);
    }
    let internal = spec.str(ss::INTERNAL_TRAFFIC_POLICY);
    let at = SPEC.child("internalTrafficPolicy");
    if present(spec, ss::INTERNAL_TRAFFIC_POLICY) {
        if !matches!(internal, "Cluster" | "Local") {
            errors.not_supported(&at, internal, &["Cluster", "Local"]);
        }
    } else if matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer") {
        errors.required(&at, "");
    }
    if present(spec, ss::TRAFFIC_DISTRIBUTION) {
        let distribution = spec.str(ss::TRAFFIC_DISTRIBUTION);
        let supported = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        if !supported.contains(&distribution) {
            errors.not_supported(&SPEC.child("trafficDistribution"), distribution, &supported);
        }
    }
}

fn status_update(new: &Doc, old: &Doc, errors: &mut ErrorList) {
    use c::load_balancer_ingress as li;
    let ingress = |doc: &Doc| -> Vec<Struct> {
        doc.root()
            .and_then(|root| root.child(c::service::STATUS))
            .and_then(|status| status.child(c::service_status::LOAD_BALANCER))
            .map(|balancer| {
                structs(balancer, c::load_balancer_status::INGRESS).map(|(_, one)| one.clone()).collect()
            })
            .unwrap_or_default()
    };
    let status = FieldPath::new("status");
    let balancer = status.child("loadBalancer");
    let all = balancer.child("ingress");
    let (now, before) = (ingress(new), ingress(old));
    if new.str(&[c::service::SPEC, ss::TYPE]) != "LoadBalancer" && !now.is_empty() {
        errors.forbidden(&all, "may only be used when `spec.type` is 'LoadBalancer'");
        return;
    }
    for (i, one) in now.iter().enumerate() {
        let at = all.index(i);
        let (ip, host, mode) = (one.str(li::IP), one.str(li::HOSTNAME), one.str(li::IP_MODE));
        if !ip.is_empty() && !before.iter().any(|old| old.str(li::IP) == ip) {
            names::validate_ip_legacy(&at.child("ip"), ip, errors);
        }
        let mode_path = at.child("ipMode");
        match (present(one, li::IP_MODE), ip.is_empty()) {
            (false, false) => errors.required(&mode_path, "must be specified when `ip` is set"),
            (true, true) => errors.forbidden(&mode_path, "may not be specified when `ip` is not set"),
            (true, false) if !matches!(mode, "Proxy" | "VIP") => {
                errors.not_supported(&mode_path, mode, &["Proxy", "VIP"]);
            }
            _ => {}
        }
        if !host.is_empty() {
            errors.invalid_each(&at.child("hostname"), host, names::dns1123_subdomain(host));
            if names::parse_ip_sloppy(host).is_some() {
                errors.invalid(&at.child("hostname"), host, "must be a DNS name, not an IP address");
            }
        }
    }
}
