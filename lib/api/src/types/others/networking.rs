//! Ingress, IngressClass, NetworkPolicy, IPAddress, ServiceCIDR.

use crate::doc::{Doc, Struct, Value};
use crate::f::networking_v1 as n;
use crate::field_errors::{ErrorList, FieldPath, quoted};
use crate::names;
use crate::schema::Field;
use crate::types::core::container::{port_number, string_list};
use crate::types::core::scheduling;
use crate::types::core::warnings;
use crate::types::meta::immutable;
use crate::types::walk::{child_entry, default_value, json_text, present, strs, structs, structs_mut};
use crate::types::{GenerationRule, Strategy, columns};

const SPEC: FieldPath<'static> = FieldPath::new("spec");

pub static INGRESS: Strategy = Strategy {
    validate_create: |doc, _, errors| {
        ingress(doc, None, errors);
        const CLASS: &str = "kubernetes.io/ingress.class";
        let class = doc.str(&[n::ingress::SPEC, n::ingress_spec::INGRESS_CLASS_NAME]);
        if let Some(value) = doc.meta().annotation(CLASS)
            && !class.is_empty()
            && class != value
        {
            let annotations = FieldPath::new("annotations");
            let text = "must match `ingressClassName` when both are specified";
            errors.invalid(&annotations.child(CLASS), value, text);
        }
    },
    validate_update: |new, old, _, errors| ingress(new, Some(old), errors),
    validate_status_update: |new, old, _, errors| ingress_status(new, old, errors),
    warnings: |new, old, _| {
        const CLASS: &str = "kubernetes.io/ingress.class";
        let named = new.get(&[n::ingress::SPEC, n::ingress_spec::INGRESS_CLASS_NAME]).is_some();
        if old.is_some() || named || new.meta().annotation(CLASS).is_none() {
            return Vec::new();
        }
        vec![format!(
            "annotation {} is deprecated, please use 'spec.ingressClassName' instead",
            quoted(CLASS)
        )]
    },
    generation: GenerationRule::Spec,
    columns: &columns::others::INGRESS,
    ..Strategy::BASE
};

pub static INGRESS_CLASS: Strategy = Strategy {
    defaults: |doc| {
        let parameters = doc
            .root_mut()
            .and_then(|root| root.child_mut(n::ingress_class::SPEC))
            .and_then(|spec| spec.child_mut(n::ingress_class_spec::PARAMETERS));
        if let Some(parameters) = parameters {
            default_value(parameters, n::ingress_class_parameters_reference::SCOPE, "Cluster");
        }
    },
    validate_create: |doc, _, errors| ingress_class(doc, errors),
    validate_update: |new, old, _, errors| {
        let path = [n::ingress_class::SPEC, n::ingress_class_spec::CONTROLLER];
        immutable(new.get(&path), old.get(&path), &SPEC.child("controller"), errors);
        ingress_class(new, errors);
    },
    generation: GenerationRule::Spec,
    columns: &columns::others::INGRESS_CLASS,
    ..Strategy::BASE
};

pub static NETWORK_POLICY: Strategy = Strategy {
    defaults: policy_defaults,
    validate_create: |doc, _, errors| policy(doc, errors),
    validate_update: |new, _, _, errors| policy(new, errors),
    warnings: |new, _, _| policy_warnings(new),
    generation: GenerationRule::Spec,
    columns: &columns::others::NETWORK_POLICY,
    ..Strategy::BASE
};

pub static IP_ADDRESS: Strategy = Strategy {
    name_rule: ip_name,
    validate_create: |doc, _, errors| ip_address(doc, errors),
    validate_update: |new, old, _, errors| {
        let path = [n::ip_address::SPEC, n::ip_address_spec::PARENT_REF];
        if new.get(&path).is_none_or(|value| *value == Value::Null) {
            errors.required(&SPEC.child("parentRef"), "");
        }
        immutable(new.get(&path), old.get(&path), &SPEC.child("parentRef"), errors);
    },
    columns: &columns::others::IP_ADDRESS,
    ..Strategy::BASE
};

pub static SERVICE_CIDR: Strategy = Strategy {
    validate_create: |doc, _, errors| service_cidr(doc, errors),
    validate_update: |new, old, _, errors| {
        let list = |doc: &Doc| doc.list(&[n::service_cidr::SPEC, n::service_cidr_spec::CIDRS]).to_vec();
        let (now, before) = (list(new), list(old));
        let at = SPEC.child("cidrs");
        let fixed = crate::types::meta::IMMUTABLE;
        let stays = |count: usize, errors: &mut ErrorList| {
            for (i, (new, _)) in now.iter().zip(&before).take(count).enumerate().filter(|(_, (a, b))| a != b)
            {
                errors.invalid(&at.index(i), new.as_str().unwrap_or(""), fixed);
            }
        };
        if now.len() == before.len() {
            stays(now.len(), errors);
        } else if before.len() == 1 && now.len() == 2 {
            // A second family may join.
            stays(1, errors);
            service_cidr(new, errors);
        } else {
            let value = json_text(new.get(&[n::service_cidr::SPEC, n::service_cidr_spec::CIDRS]));
            errors.invalid(&at, value, fixed);
        }
    },
    columns: &columns::others::SERVICE_CIDR,
    ..Strategy::BASE
};

fn ip_name(name: &str, _: bool) -> names::Messages {
    let mut errors = ErrorList::new();
    names::validate_ip_strict(&FieldPath::new("name"), name, &mut errors);
    errors.into_iter().map(|error| error.detail.into()).collect()
}

/// Mistakes that the old object may have, and the new one then too.
struct Kept {
    secret: bool,
    service: bool,
}

fn kept(old: Option<&Doc>) -> Kept {
    use n::ingress_spec as s;
    let spec = old.and_then(Doc::root).and_then(|root| root.child(n::ingress::SPEC));
    let Some(spec) = spec else { return Kept { secret: false, service: false } };
    let bad_secret = |name: &str| !name.is_empty() && !names::dns1123_subdomain(name).is_empty();
    let bad_service = |backend: Option<&Struct>| {
        let name = backend
            .and_then(|backend| backend.child(n::ingress_backend::SERVICE))
            .map_or("", |service| service.str(n::ingress_service_backend::NAME));
        !name.is_empty() && !names::dns1035_label(name).is_empty()
    };
    let in_rules = structs(spec, s::RULES)
        .filter_map(|(_, rule)| rule.child(n::ingress_rule::HTTP))
        .flat_map(|http| structs(http, n::http_ingress_rule_value::PATHS))
        .any(|(_, path)| bad_service(path.child(n::http_ingress_path::BACKEND)));
    Kept {
        secret: structs(spec, s::TLS).any(|(_, tls)| bad_secret(tls.str(n::ingress_tls::SECRET_NAME))),
        service: in_rules || bad_service(spec.child(s::DEFAULT_BACKEND)),
    }
}

fn ingress_status(new: &Doc, old: &Doc, errors: &mut ErrorList) {
    use n::ingress_load_balancer_ingress as li;
    let path =
        [n::ingress::STATUS, n::ingress_status::LOAD_BALANCER, n::ingress_load_balancer_status::INGRESS];
    let known =
        |ip: &str| old.list(&path).iter().filter_map(Value::as_struct).any(|one| one.str(li::IP) == ip);
    let status = FieldPath::new("status");
    let balancer = status.child("loadBalancer");
    let all = balancer.child("ingress");
    for (i, one) in new.list(&path).iter().filter_map(Value::as_struct).enumerate() {
        let at = all.index(i);
        let (ip, host) = (one.str(li::IP), one.str(li::HOSTNAME));
        if !ip.is_empty() && !known(ip) {
            names::validate_ip_legacy(&at.child("ip"), ip, errors);
        }
        if !host.is_empty() {
            errors.invalid_each(&at.child("hostname"), host, names::dns1123_subdomain(host));
            if names::parse_ip_sloppy(host).is_some() {
                errors.invalid(&at.child("hostname"), host, "must be a DNS name, not an IP address");
            }
        }
    }
}

fn policy_warnings(doc: &Doc) -> Vec<String> {
    use n::network_policy_spec as s;
    let mut out = Vec::new();
    let Some(spec) = doc.root().and_then(|root| root.child(n::network_policy::SPEC)) else { return out };
    for (list, peers) in
        [(s::INGRESS, n::network_policy_ingress_rule::FROM), (s::EGRESS, n::network_policy_egress_rule::TO)]
    {
        for (i, rule) in structs(spec, list) {
            for (j, peer) in structs(rule, peers) {
                let Some(block) = peer.child(n::network_policy_peer::IP_BLOCK) else { continue };
                let path = format!("spec.{}[{i}].{}[{j}].ipBlock", list.def().json, peers.def().json);
                warnings::range(&format!("{path}.cidr"), block.str(n::ip_block::CIDR), &mut out);
                for (k, except) in strs(block, n::ip_block::EXCEPT) {
                    warnings::range(&format!("{path}.except[{k}]"), except, &mut out);
                }
            }
        }
    }
    out
}

fn ingress(doc: &Doc, old: Option<&Doc>, errors: &mut ErrorList) {
    use n::ingress_spec as s;
    let kept = kept(old);
    let empty = Struct::new(crate::t::networking_v1::INGRESS_SPEC);
    let spec = doc.root().and_then(|root| root.child(n::ingress::SPEC)).unwrap_or(&empty);
    let backend_field = spec.child(s::DEFAULT_BACKEND);
    if spec.list(s::RULES).is_empty() && backend_field.is_none() {
        errors.invalid(
            &SPEC,
            json_text(spec.get(s::RULES)),
            "either `defaultBackend` or `rules` must be specified",
        );
    }
    if let Some(one) = backend_field {
        backend(one, &kept, &SPEC.child("defaultBackend"), errors);
    }
    let rules = SPEC.child("rules");
    for (i, rule) in structs(spec, s::RULES) {
        let at = rules.index(i);
        let host = rule.str(n::ingress_rule::HOST);
        if !host.is_empty() {
            if names::parse_ip_sloppy(host).is_some() {
                errors.invalid(&at.child("host"), host, "must be a DNS name, not an IP address");
            }
            host_name(host, &at.child("host"), errors);
        }
        let Some(http) = rule.child(n::ingress_rule::HTTP) else { continue };
        let http_path = at.child("http");
        let paths = http_path.child("paths");
        if http.list(n::http_ingress_rule_value::PATHS).is_empty() {
            errors.required(&paths, "");
        }
        for (j, one) in structs(http, n::http_ingress_rule_value::PATHS) {
            http_path_rule(one, &kept, &paths.index(j), errors);
        }
    }
    let tls = SPEC.child("tls");
    for (i, one) in structs(spec, s::TLS) {
        let at = tls.index(i);
        let hosts = at.child("hosts");
        for (j, host) in strs(one, n::ingress_tls::HOSTS) {
            host_name(host, &hosts.index(j), errors);
        }
        let secret = one.str(n::ingress_tls::SECRET_NAME);
        if !secret.is_empty() && !kept.secret {
            errors.invalid_each(&at.child("secretName"), secret, names::dns1123_subdomain(secret));
        }
    }
    if present(spec, s::INGRESS_CLASS_NAME) {
        let class = spec.str(s::INGRESS_CLASS_NAME);
        errors.invalid_each(&SPEC.child("ingressClassName"), class, names::dns1123_subdomain(class));
    }
}

fn host_name(host: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if host.contains('*') {
        errors.invalid_each(path, host, names::wildcard_dns1123_subdomain(host));
    } else {
        errors.invalid_each(path, host, names::dns1123_subdomain(host));
    }
}

fn http_path_rule(rule: &Struct, kept: &Kept, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use n::http_ingress_path as p;
    if !present(rule, p::PATH_TYPE) {
        errors.required(&path.child("pathType"), "pathType must be specified");
        return;
    }
    let text = rule.str(p::PATH);
    let at = path.child("path");
    match rule.str(p::PATH_TYPE) {
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                errors.invalid(&at, text, "must be an absolute path");
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|one| text.contains(one)) {
                errors.invalid(&at, text, format!("must not contain '{sequence}'"));
            }
            for suffix in ["/..", "/."].into_iter().filter(|one| text.ends_with(one)) {
                errors.invalid(&at, text, format!("cannot end with '{suffix}'"));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                errors.invalid(&at, text, "must be an absolute path");
            }
        }
        other => {
            errors.not_supported(
                &path.child("pathType"),
                other,
                &["Exact", "ImplementationSpecific", "Prefix"],
            );
        }
    }
    let empty = Struct::new(crate::t::networking_v1::INGRESS_BACKEND);
    backend(rule.child(p::BACKEND).unwrap_or(&empty), kept, &path.child("backend"), errors);
}

fn backend(backend: &Struct, kept: &Kept, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use crate::f::core_v1::typed_local_object_reference as reference;
    match (backend.child(n::ingress_backend::RESOURCE), backend.child(n::ingress_backend::SERVICE)) {
        (Some(_), Some(_)) => errors.invalid(path, "", "cannot set both resource and service backends"),
        (None, None) => errors.invalid(path, "", "resource or service backend is required"),
        (Some(resource), None) => {
            let at = path.child("resource");
            if present(resource, reference::API_GROUP) {
                let group = resource.str(reference::API_GROUP);
                errors.invalid_each(&at.child("apiGroup"), group, names::dns1123_subdomain(group));
            }
            for field in [reference::KIND, reference::NAME] {
                let value = resource.str(field);
                if value.is_empty() {
                    errors.required(&at.child(field.def().json), "");
                } else {
                    errors.invalid_each(&at.child(field.def().json), value, names::path_segment(value));
                }
            }
        }
        (None, Some(service)) => {
            let at = path.child("service");
            let name = service.str(n::ingress_service_backend::NAME);
            if name.is_empty() {
                errors.required(&at.child("name"), "");
            } else {
                let rule = if kept.service { names::dns1123_label } else { names::dns1035_label };
                errors.invalid_each(&at.child("name"), name, rule(name));
            }
            let port = service.child(n::ingress_service_backend::PORT);
            let port_name = port.map_or("", |port| port.str(n::service_backend_port::NAME));
            let number = port.and_then(|port| port.int(n::service_backend_port::NUMBER)).unwrap_or(0);
            let port_path = at.child("port");
            if !port_name.is_empty() && number != 0 {
                errors.invalid(path, "", "cannot set both port name & port number");
            } else if !port_name.is_empty() {
                errors.invalid_each(&port_path.child("name"), port_name, names::port_name(port_name));
            } else if number != 0 {
                port_number(number, &port_path.child("number"), errors);
            } else {
                errors.required(path, "port name or number is required");
            }
        }
    }
}

fn ingress_class(doc: &Doc, errors: &mut ErrorList) {
    use n::ingress_class_parameters_reference as pr;
    let empty = Struct::new(crate::t::networking_v1::INGRESS_CLASS_SPEC);
    let spec = doc.root().and_then(|root| root.child(n::ingress_class::SPEC)).unwrap_or(&empty);
    let controller = spec.str(n::ingress_class_spec::CONTROLLER);
    if controller.len() > 250 {
        errors.too_long(&SPEC.child("controller"), 250);
    }
    names::validate_domain_prefixed_path(&SPEC.child("controller"), controller, errors);
    let Some(parameters) = spec.child(n::ingress_class_spec::PARAMETERS) else { return };
    let at = SPEC.child("parameters");
    if present(parameters, pr::API_GROUP) {
        let group = parameters.str(pr::API_GROUP);
        errors.invalid_each(&at.child("apiGroup"), group, names::dns1123_subdomain(group));
    }
    for field in [pr::KIND, pr::NAME] {
        let value = parameters.str(field);
        if value.is_empty() {
            errors.required(&at.child(field.def().json), "");
        } else {
            errors.invalid_each(&at.child(field.def().json), value, names::path_segment(value));
        }
    }
    let namespace = present(parameters, pr::NAMESPACE);
    match parameters.str(pr::SCOPE) {
        "Namespace" if !namespace => {
            errors.required(&at.child("namespace"), "`parameters.scope` is set to 'Namespace'");
        }
        "Namespace" => {
            let namespace = parameters.str(pr::NAMESPACE);
            errors.invalid_each(&at.child("namespace"), namespace, names::dns1123_label(namespace));
        }
        "Cluster" if namespace => {
            errors.forbidden(&at.child("namespace"), "`parameters.scope` is set to 'Cluster'");
        }
        "Cluster" => {}
        other => errors.not_supported(&at.child("scope"), other, &["Cluster", "Namespace"]),
    }
}

fn policy_defaults(doc: &mut Doc) {
    use n::network_policy_spec as s;
    let Some(spec) = doc.root_mut().and_then(|root| child_entry(root, n::network_policy::SPEC)) else {
        return;
    };
    if spec.list(s::POLICY_TYPES).is_empty() {
        let mut types = vec![Value::from("Ingress")];
        if !spec.list(s::EGRESS).is_empty() {
            types.push(Value::from("Egress"));
        }
        spec.set(s::POLICY_TYPES, types);
    }
    for (list, ports) in [
        (s::INGRESS, n::network_policy_ingress_rule::PORTS),
        (s::EGRESS, n::network_policy_egress_rule::PORTS),
    ] {
        for rule in structs_mut(spec, list) {
            for port in structs_mut(rule, ports) {
                default_value(port, n::network_policy_port::PROTOCOL, "TCP");
            }
        }
    }
}

fn policy(doc: &Doc, errors: &mut ErrorList) {
    use n::network_policy_spec as s;
    let Some(spec) = doc.root().and_then(|root| root.child(n::network_policy::SPEC)) else { return };
    scheduling::validate_label_selector(spec.child(s::POD_SELECTOR), &SPEC.child("podSelector"), errors);
    use n::network_policy_egress_rule as eg;
    use n::network_policy_ingress_rule as ing;
    for (list, ports, peers) in [(s::INGRESS, ing::PORTS, ing::FROM), (s::EGRESS, eg::PORTS, eg::TO)] {
        let all = SPEC.child(list.def().json);
        for (i, rule) in structs(spec, list) {
            let at = all.index(i);
            let ports_path = at.child("ports");
            for (j, port) in structs(rule, ports) {
                policy_port(port, &ports_path.index(j), errors);
            }
            let peers_path = at.child(peers.def().json);
            for (j, one) in structs(rule, peers) {
                peer(one, &peers_path.index(j), errors);
            }
        }
    }
    let types = SPEC.child("policyTypes");
    if spec.list(s::POLICY_TYPES).len() > 2 {
        errors.invalid(
            &types,
            string_list(spec, s::POLICY_TYPES),
            "may not specify more than two policyTypes",
        );
        return;
    }
    for (i, kind) in strs(spec, s::POLICY_TYPES) {
        if !matches!(kind, "Ingress" | "Egress") {
            errors.not_supported(&types.index(i), kind, &["Ingress", "Egress"]);
        }
    }
}

fn policy_port(port: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use n::network_policy_port as p;
    let protocol = port.str(p::PROTOCOL);
    if present(port, p::PROTOCOL) && !matches!(protocol, "TCP" | "UDP" | "SCTP") {
        errors.not_supported(&path.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
    }
    let end = port.int(p::END_PORT);
    let end_path = path.child("endPort");
    match port.get(p::PORT) {
        Some(Value::Int(number)) => {
            port_number(*number, &path.child("port"), errors);
            if let Some(end) = end {
                if end < *number {
                    errors.invalid(&end_path, *number, "must be greater than or equal to `port`");
                }
                port_number(end, &end_path, errors);
            }
        }
        Some(Value::Str(name)) => {
            if let Some(end) = end {
                errors.invalid(&end_path, end, "may not be specified when `port` is non-numeric");
            }
            errors.invalid_each(&path.child("port"), name, names::port_name(name));
        }
        _ => {
            if let Some(end) = end {
                errors.invalid(&end_path, end, "may not be specified when `port` is not specified");
            }
        }
    }
}

fn peer(peer: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use n::network_policy_peer as p;
    let mut count = 0;
    for field in [p::POD_SELECTOR, p::NAMESPACE_SELECTOR] {
        if let Some(selector) = peer.child(field) {
            count += 1;
            scheduling::validate_label_selector(Some(selector), &path.child(field.def().json), errors);
        }
    }
    let block = peer.child(p::IP_BLOCK);
    if let Some(block) = block {
        count += 1;
        ip_block(block, &path.child("ipBlock"), errors);
    }
    if count == 0 {
        errors.required(path, "must specify a peer");
    } else if count > 1 && block.is_some() {
        errors.forbidden(path, "may not specify both ipBlock and another peer");
    }
}

fn ip_block(block: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let cidr = block.str(n::ip_block::CIDR);
    if cidr.is_empty() {
        errors.required(&path.child("cidr"), "");
        return;
    }
    let Some(whole) = names::validate_cidr_legacy(&path.child("cidr"), cidr, errors) else { return };
    let excepts = path.child("except");
    for (i, text) in strs(block, n::ip_block::EXCEPT) {
        let at = excepts.index(i);
        if let Some(part) = names::validate_cidr_legacy(&at, text, errors)
            && (!whole.contains(part.masked().address) || whole.prefix >= part.prefix)
        {
            errors.invalid(&at, text, "must be a strict subset of `cidr`");
        }
    }
}

fn ip_address(doc: &Doc, errors: &mut ErrorList) {
    use n::parent_reference as p;
    let parent = doc
        .root()
        .and_then(|root| root.child(n::ip_address::SPEC))
        .and_then(|spec| spec.child(n::ip_address_spec::PARENT_REF));
    let at = SPEC.child("parentRef");
    let Some(parent) = parent else {
        errors.required(&at, "");
        return;
    };
    for field in [p::RESOURCE, p::NAME] {
        let value = parent.str(field);
        if value.is_empty() {
            errors.required(&at.child(field.def().json), "");
        } else {
            errors.invalid_each(&at.child(field.def().json), value, names::path_segment(value));
        }
    }
    let rules: [(Field, names::Rule); 2] =
        [(p::GROUP, names::dns1123_subdomain), (p::NAMESPACE, names::path_segment)];
    for (field, rule) in rules {
        let value = parent.str(field);
        if !value.is_empty() {
            errors.invalid_each(&at.child(field.def().json), value, rule(value));
        }
    }
}

const FAMILIES: &str =
    "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";

fn service_cidr(doc: &Doc, errors: &mut ErrorList) {
    let empty = Struct::new(crate::t::networking_v1::SERVICE_CIDR_SPEC);
    let spec = doc.root().and_then(|root| root.child(n::service_cidr::SPEC)).unwrap_or(&empty);
    let at = SPEC.child("cidrs");
    let count = spec.list(n::service_cidr_spec::CIDRS).len();
    let value = || string_list(spec, n::service_cidr_spec::CIDRS);
    if count == 0 {
        errors.required(&at, "at least one CIDR required");
        return;
    }
    if count > 2 {
        errors.invalid(&at, value(), "may only hold up to 2 values");
        return;
    }
    let mut families = Vec::new();
    for (i, cidr) in strs(spec, n::service_cidr_spec::CIDRS) {
        if let Some(cidr) = names::validate_cidr_strict(&at.index(i), cidr, errors) {
            families.push(cidr.address.is_ipv4());
        }
    }
    if families.len() == 2 && families[0] == families[1] {
        errors.invalid(&at, value(), FAMILIES);
    }
}
