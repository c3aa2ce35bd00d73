//! Warnings about pod specs, wherever one stands (upstream `pkg/api/pod/warnings.go`), and about addresses and node labels.

use std::fmt;
use std::net::IpAddr;

use crate::doc::{Doc, Map, Struct, Value};
use crate::f::core_v1 as c;
use crate::f::meta_v1 as m;
use crate::field_errors::quoted;
use crate::names;
use crate::schema::Field;
use crate::types::core::{pvc, resources};
use crate::types::walk::{pairs, present, strs, structs};

use c::pod_spec as ps;

pub(super) const GONE_1_16: &str = "deprecated in v1.11, non-functional in v1.16+";
pub(super) const GONE_1_22: &str = "deprecated in v1.16, non-functional in v1.22+";
pub(super) const GONE_1_25: &str = "deprecated in v1.22, non-functional in v1.25+";
pub(super) const GONE_1_26: &str = "deprecated in v1.25, non-functional in v1.26+";
pub(super) const GONE_1_31: &str = "deprecated in v1.28, non-functional in v1.31+";

const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];
const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
pub(super) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
pub(super) const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// What a node label of old should be replaced with.
pub fn node_label(key: &str) -> Option<&'static str> {
    Some(match key {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
        }
        "beta.kubernetes.io/instance-type" => {
            "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"
        }
        "app.kubernetes.io/created-by" => "deprecated since v1.9",
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => {
            "deprecated since v1.22; use Taints and Tolerations instead"
        }
        "node-role.kubernetes.io/master" => "use \"node-role.kubernetes.io/control-plane\" instead",
        _ => return None,
    })
}

/// An address that is valid but not written as it should be.
pub fn address(path: &str, text: &str, out: &mut Vec<String>) {
    let Some(ip) = names::parse_ip_sloppy(text) else { return };
    let plain = |ip: IpAddr| match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 => v4,
    };
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_none() => {
            let canonical = v6.to_string();
            if canonical != text {
                out.push(format!(
                    "{path}: IPv6 address {} should be in RFC 5952 canonical format ({})",
                    quoted(text),
                    quoted(&canonical)
                ));
            }
        }
        Ok(IpAddr::V4(_)) => {}
        _ => out.push(format!(
            "{path}: non-standard IP address {} will be considered invalid in a future Kubernetes release: use {}",
            quoted(text),
            quoted(&plain(ip).to_string())
        )),
    }
}

/// A range that is valid but not written as it should be.
pub fn range(path: &str, text: &str, out: &mut Vec<String>) {
    let text = text.trim();
    let Some(cidr) = names::parse_cidr_sloppy(text) else { return };
    let before = out.len();
    let net = cidr.masked();
    if net != cidr {
        let whole = if cidr.address.is_ipv4() { 32 } else { 128 };
        let single = format!("{}/{whole}", names::ip_text(cidr.address));
        out.push(format!(
            "{path}: CIDR value {} is ambiguous in this context (should be {} or {}?)",
            quoted(text),
            quoted(&net.to_string()),
            quoted(&single)
        ));
    }
    let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
    let standard = match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) => v6.to_ipv4_mapped().is_none(),
        Ok(IpAddr::V4(_)) => true,
        Err(_) => false,
    } && !(prefix.len() > 1 && prefix.starts_with('0'));
    if !standard {
        out.push(format!(
            "{path}: non-standard CIDR value {} will be considered invalid in a future Kubernetes release: use {}",
            quoted(text),
            quoted(&net.to_string())
        ));
    }
    if out.len() == before && !cidr.address.is_ipv4() && cidr.to_string() != text {
        out.push(format!(
            "{path}: IPv6 CIDR value {} should be in RFC 5952 canonical format ({})",
            quoted(text),
            quoted(&cidr.to_string())
        ));
    }
}

/// Node labels of old in a node selector at `path`.
pub fn node_selector(selector: &Struct, path: &str, out: &mut Vec<String>) {
    for (i, term) in structs(selector, c::node_selector::NODE_SELECTOR_TERMS) {
        node_term(term, false, &format!("{path}.nodeSelectorTerms[{i}]"), out);
    }
}

fn node_term(term: &Struct, values: bool, path: &str, out: &mut Vec<String>) {
    use c::node_selector_requirement as r;
    for (i, one) in structs(term, c::node_selector_term::MATCH_EXPRESSIONS) {
        let key = one.str(r::KEY);
        if let Some(text) = node_label(key) {
            out.push(format!("{path}.matchExpressions[{i}].key: {key} is {text}"));
        }
        if !values {
            continue;
        }
        for (j, value) in strs(one, r::VALUES) {
            for text in names::label_value(value) {
                out.push(format!("{path}.matchExpressions[{i}].values[{j}]: {value} is invalid, {text}"));
            }
        }
    }
}

/// Node labels of old in a label selector at `path`.
pub fn label_selector(selector: &Struct, path: &str, out: &mut Vec<String>) {
    for (i, one) in structs(selector, m::label_selector::MATCH_EXPRESSIONS) {
        let key = one.str(m::label_selector_requirement::KEY);
        if let Some(text) = node_label(key) {
            out.push(format!("{path}.matchExpressions[{i}].key: {key} is {text}"));
        }
    }
    for (key, _) in pairs(selector, m::label_selector::MATCH_LABELS) {
        if let Some(text) = node_label(key) {
            out.push(format!("{path}.matchLabels.{key}: {text}"));
        }
    }
}

/// Warnings about a pod spec. `prefix` is `""` for a pod and where the template lies, with a dot, for a template.
pub fn pod(spec: &Struct, annotations: Option<&Map>, prefix: &str) -> Vec<String> {
    let mut out = Vec::new();
    labels_of_nodes(spec, prefix, &mut out);
    for (key, text) in ANNOTATIONS {
        if annotations.is_some_and(|all| all.contains_key(key)) {
            out.push(format!("{prefix}metadata.annotations[{key}]: {text}"));
        }
    }
    volume_plugins(spec, prefix, &mut out);
    super::warnings_paths::overlapping(spec, &mut out);
    repeated(spec, prefix, &mut out);
    amounts(spec.map(ps::OVERHEAD), format_args!("{prefix}spec.overhead"), &mut out);
    let context = spec.child(ps::SECURITY_CONTEXT);
    let annotated = |key: &str| annotations.and_then(|all| all.get_str(key));
    const POD_SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/pod";
    if !context.is_some_and(|context| present(context, c::pod_security_context::SECCOMP_PROFILE))
        && annotated(POD_SECCOMP).is_some()
    {
        out.push(format!("{prefix}metadata.annotations[{POD_SECCOMP}]: {SECCOMP}"));
    }
    let profile = context.and_then(|context| context.child(c::pod_security_context::APP_ARMOR_PROFILE));
    for (container, path) in containers(spec, prefix) {
        security(container, annotations, profile, prefix, &mut out);
        if let Some(resources) = container.child(c::container::RESOURCES) {
            let (limits, requests) = (c::resource_requirements::LIMITS, c::resource_requirements::REQUESTS);
            for name in ["memory", "ephemeral-storage"] {
                for (field, part) in [(limits, "limits"), (requests, "requests")] {
                    amount(resources.map(field), name, format_args!("{path}.resources.{part}"), &mut out);
                }
            }
        }
        hidden_variables(container, path, &mut out);
    }
    ports(spec, prefix, &mut out);
    if spec.int(ps::TERMINATION_GRACE_PERIOD_SECONDS).is_some_and(|seconds| seconds < 0) {
        out.push(format!(
            "{prefix}spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    null_selectors(spec, prefix, &mut out);
    if let Some(config) = spec.child(ps::DNS_CONFIG) {
        for (i, server) in strs(config, c::pod_dns_config::NAMESERVERS) {
            address(&format!("{prefix}spec.dnsConfig.nameservers[{i}]"), server, &mut out);
        }
    }
    for (i, alias) in structs(spec, ps::HOST_ALIASES) {
        address(&format!("{prefix}spec.hostAliases[{i}].ip"), alias.str(c::host_alias::IP), &mut out);
    }
    out
}

/// Where a container lies; made a text only where something is to be said of it.
#[derive(Clone, Copy)]
struct ContainerPath<'a> {
    prefix: &'a str,
    list: &'static str,
    index: usize,
}

impl fmt::Display for ContainerPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}spec.{}[{}]", self.prefix, self.list, self.index)
    }
}

/// Where a container's port lies.
#[derive(Clone, Copy)]
struct PortPath<'a>(ContainerPath<'a>, usize);

impl fmt::Display for PortPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.ports[{}]", self.0, self.1)
    }
}

/// Init containers and containers with their paths.
fn containers<'a>(
    spec: &'a Struct,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a Struct, ContainerPath<'a>)> {
    [ps::INIT_CONTAINERS, ps::CONTAINERS].into_iter().flat_map(move |list| {
        let path = move |index| ContainerPath { prefix, list: list.def().json, index };
        structs(spec, list).map(move |(index, one)| (one, path(index)))
    })
}

fn labels_of_nodes(spec: &Struct, prefix: &str, out: &mut Vec<String>) {
    for (key, _) in pairs(spec, ps::NODE_SELECTOR) {
        if let Some(text) = node_label(key) {
            out.push(format!("{prefix}spec.nodeSelector[{key}]: {text}"));
        }
    }
    let affinity = spec.child(ps::AFFINITY).and_then(|affinity| affinity.child(c::affinity::NODE_AFFINITY));
    if let Some(affinity) = affinity {
        use c::node_affinity as n;
        let base = format!("{prefix}spec.affinity.nodeAffinity");
        if let Some(required) = affinity.child(n::REQUIRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION) {
            node_selector(required, &format!("{base}.requiredDuringSchedulingIgnoredDuringExecution"), out);
        }
        for (i, term) in structs(affinity, n::PREFERRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION) {
            if let Some(preference) = term.child(c::preferred_scheduling_term::PREFERENCE) {
                let path = format!("{base}.preferredDuringSchedulingIgnoredDuringExecution[{i}].preference");
                node_term(preference, true, &path, out);
            }
        }
    }
    for (i, constraint) in structs(spec, ps::TOPOLOGY_SPREAD_CONSTRAINTS) {
        let path = format!("{prefix}spec.topologySpreadConstraints[{i}]");
        let key = constraint.str(c::topology_spread_constraint::TOPOLOGY_KEY);
        if let Some(text) = node_label(key) {
            out.push(format!("{path}.topologyKey: {key} is {text}"));
        }
        if !present(constraint, c::topology_spread_constraint::LABEL_SELECTOR) {
            out.push(format!("{path}.labelSelector: {NULL_SELECTOR}"));
        }
    }
}

fn volume_plugins(spec: &Struct, prefix: &str, out: &mut Vec<String>) {
    use c::volume as v;
    const PLUGINS: [(Field, &str, &str); 9] = [
        (v::PHOTON_PERSISTENT_DISK, "photonPersistentDisk", GONE_1_16),
        (v::GIT_REPO, "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
        (v::SCALE_IO, "scaleIO", GONE_1_22),
        (v::FLOCKER, "flocker", GONE_1_25),
        (v::STORAGEOS, "storageOS", GONE_1_25),
        (v::QUOBYTE, "quobyte", GONE_1_25),
        (v::GLUSTERFS, "glusterfs", GONE_1_26),
        (v::CEPHFS, "cephfs", GONE_1_31),
        (v::RBD, "rbd", GONE_1_31),
    ];
    for (i, volume) in structs(spec, ps::VOLUMES) {
        for (field, name, text) in PLUGINS.iter().filter(|(field, ..)| present(volume, *field)) {
            debug_assert_eq!(field.ty, volume.ty());
            out.push(format!("{prefix}spec.volumes[{i}].{name}: {text}"));
        }
        let claim = volume
            .child(v::EPHEMERAL)
            .and_then(|source| source.child(c::ephemeral_volume_source::VOLUME_CLAIM_TEMPLATE))
            .and_then(|template| template.child(c::persistent_volume_claim_template::SPEC));
        if let Some(claim) = claim {
            pvc::size_warnings(
                claim,
                &format!("{prefix}spec.volumes[{i}].ephemeral.volumeClaimTemplate.spec"),
                out,
            );
        }
    }
}

fn repeated(spec: &Struct, prefix: &str, out: &mut Vec<String>) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, alias) in structs(spec, ps::HOST_ALIASES) {
        let ip = alias.str(c::host_alias::IP);
        if seen.contains(&ip) {
            out.push(format!("{prefix}spec.hostAliases[{i}].ip: duplicate ip {}", quoted(ip)));
        }
        seen.push(ip);
    }
    let secrets: Vec<&str> = structs(spec, ps::IMAGE_PULL_SECRETS)
        .map(|(_, secret)| secret.str(c::local_object_reference::NAME))
        .collect();
    for (i, name) in secrets.iter().enumerate().filter(|(i, name)| secrets[..*i].contains(name)) {
        out.push(format!("{prefix}spec.imagePullSecrets[{i}].name: duplicate name {}", quoted(name)));
    }
    for (i, _) in secrets.iter().enumerate().filter(|(_, name)| name.is_empty()) {
        out.push(format!("{prefix}spec.imagePullSecrets[{i}].name: invalid empty name \"\""));
    }
}

fn amounts(map: Option<&Map>, path: fmt::Arguments<'_>, out: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        amount(map, name, path, out);
    }
}

fn amount(map: Option<&Map>, name: &str, path: fmt::Arguments<'_>, out: &mut Vec<String>) {
    let Some(map) = map.filter(|map| map.contains_key(name)) else { return };
    if let Some((_, size)) =
        resources::amounts(Some(map)).find(|(one, size)| *one == name && size.milli_value() % 1000 != 0)
    {
        out.push(format!("{path}[{name}]: fractional byte value \"{size}\" is invalid, must be an integer"));
    }
}

/// The annotation (key and value) that is a container's by its key: a prefix and the container's name.
pub(super) fn of_container<'a>(annotations: &'a Map, prefix: &str, name: &str) -> Option<(&'a str, &'a str)> {
    let order = |key: &str| key.bytes().cmp(prefix.bytes().chain(name.bytes()));
    let at = annotations.entries().binary_search_by(|(key, _)| order(key)).ok()?;
    let (key, value) = annotations.entries().get(at)?;
    Some((key, value.as_str()?))
}

fn security(
    container: &Struct,
    annotations: Option<&Map>,
    pod_profile: Option<&Struct>,
    prefix: &str,
    out: &mut Vec<String>,
) {
    let Some(annotations) = annotations.filter(|all| !all.is_empty()) else { return };
    let name = container.str(c::container::NAME);
    let context = container.child(c::container::SECURITY_CONTEXT);
    let has = |field: Field| context.is_some_and(|context| present(context, field));
    if !has(c::security_context::SECCOMP_PROFILE)
        && let Some((key, _)) = of_container(annotations, SECCOMP_CONTAINER, name)
    {
        out.push(format!("{prefix}metadata.annotations[{key}]: {SECCOMP}"));
    }
    if !prefix.is_empty()
        && !has(c::security_context::APP_ARMOR_PROFILE)
        && let Some((key, annotation)) = of_container(annotations, APP_ARMOR, name)
        && (pod_profile.is_none() || super::security::app_armor_of(annotation).as_ref() != pod_profile)
    {
        out.push(app_armor_text(prefix, key));
    }
}

/// The warning about a container's AppArmor annotation.
pub(super) fn app_armor_text(prefix: &str, key: &str) -> String {
    format!(
        "{prefix}metadata.annotations[{key}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"
    )
}

fn hidden_variables(container: &Struct, path: ContainerPath<'_>, out: &mut Vec<String>) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, variable) in structs(container, c::container::ENV) {
        let (name, value) = (variable.str(c::env_var::NAME), variable.str(c::env_var::VALUE));
        if !seen.contains(&name) {
            seen.push(name);
            continue;
        }
        let reference = format!("$({name})");
        if present(variable, c::env_var::VALUE_FROM) || value == reference || !value.contains(&reference) {
            out.push(format!(
                "{path}.env[{i}]: hides previous definition of {}, which may be dropped when using apply",
                quoted(name)
            ));
        }
    }
}

fn ports(spec: &Struct, prefix: &str, out: &mut Vec<String>) {
    use c::container_port as p;
    let each = || {
        containers(spec, prefix).flat_map(|(container, path)| {
            structs(container, c::container::PORTS).map(move |(i, port)| (port, PortPath(path, i)))
        })
    };
    let host = |port: &Struct| port.int(p::HOST_PORT).unwrap_or(0);
    let number = |port: &Struct| port.int(p::CONTAINER_PORT).unwrap_or(0);
    let mut seen: Vec<(&Struct, PortPath<'_>)> = Vec::new();
    for (port, path) in each() {
        let ip = port.str(p::HOST_IP);
        if !ip.is_empty() && host(port) == 0 {
            out.push(format!(
                "{path}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{ip}}}",
                port.str(p::NAME),
                number(port),
                port.str(p::PROTOCOL)
            ));
        }
        for (other, at) in &seen {
            if number(other) != number(port) || other.str(p::PROTOCOL) != port.str(p::PROTOCOL) {
                continue;
            }
            let other_ip = other.str(p::HOST_IP);
            let what = if ip == other_ip && host(port) == host(other) {
                "duplicate"
            } else if host(port) == 0 || host(other) == 0 {
                "overlapping"
            } else if host(port) == host(other) && ip.is_empty() != other_ip.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            out.push(format!("{path}: {what} port definition with {at}"));
        }
        seen.push((port, path));
    }
    let mut names: Vec<(&str, PortPath<'_>)> = Vec::new();
    for (port, path) in each().filter(|(port, ..)| !port.str(p::NAME).is_empty()) {
        let name = port.str(p::NAME);
        match names.iter().find(|(other, _)| *other == name) {
            Some((_, at)) => out.push(format!(
                "{path}: duplicate port name {} with {at}, services and probes that select ports by name will use {at}",
                quoted(name)
            )),
            None => names.push((name, path)),
        }
    }
}

fn null_selectors(spec: &Struct, prefix: &str, out: &mut Vec<String>) {
    use c::weighted_pod_affinity_term as w;
    let Some(affinity) = spec.child(ps::AFFINITY) else { return };
    let null =
        |term: Option<&Struct>| term.is_none_or(|term| !present(term, c::pod_affinity_term::LABEL_SELECTOR));
    for (kind, required, preferred) in [
        (
            c::affinity::POD_AFFINITY,
            c::pod_affinity::REQUIRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION,
            c::pod_affinity::PREFERRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION,
        ),
        (
            c::affinity::POD_ANTI_AFFINITY,
            c::pod_anti_affinity::REQUIRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION,
            c::pod_anti_affinity::PREFERRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION,
        ),
    ] {
        let Some(terms) = affinity.child(kind) else { continue };
        let base = format!("{prefix}spec.affinity.{}", kind.def().json);
        for (i, _) in structs(terms, required).filter(|(_, term)| null(Some(term))) {
            out.push(format!("{base}.{}[{i}].labelSelector: {NULL_SELECTOR}", required.def().json));
        }
        for (i, _) in structs(terms, preferred).filter(|(_, term)| null(term.child(w::POD_AFFINITY_TERM))) {
            out.push(format!(
                "{base}.{}[{i}].podAffinityTerm.labelSelector: {NULL_SELECTOR}",
                preferred.def().json
            ));
        }
    }
}

/// Warnings about a pod template at `prefix` (with a dot).
fn template(template: Option<&Value>, prefix: &str) -> Vec<String> {
    let Some(template) = template.and_then(Value::as_struct) else { return Vec::new() };
    let annotations =
        template.child(c::pod_template_spec::METADATA).and_then(|meta| meta.map(m::object_meta::ANNOTATIONS));
    template.child(c::pod_template_spec::SPEC).map_or_else(Vec::new, |spec| pod(spec, annotations, prefix))
}

/// Warnings about the template at `path` of an object whose generation is new.
pub fn of_template(new: &Doc, old: Option<&Doc>, path: &[Field], prefix: &str) -> Vec<String> {
    if old.is_some_and(|old| old.meta().generation() == new.meta().generation()) {
        return Vec::new();
    }
    template(new.get(path), prefix)
}
