//! Validation of a pod spec and of pod templates.

use crate::doc::{Struct, Value};
use crate::f::core_v1 as c;
use crate::field_errors::{BadValue, ErrorList, FieldPath};
use crate::names;
use crate::schema::Field;
use crate::types::Ctx;
use crate::types::core::container::{self, PodFacts};
use crate::types::core::{env, pod_annotations, resources, scheduling, security, volumes, windows};
use crate::types::meta::{validate_annotations, validate_labels};
use crate::types::walk::{json_text, present, strs, structs};

/// What differs between a pod and a template of pods.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// The pod's name, empty for a template.
    pub pod_name: &'a str,
    /// The spec belongs to a Pod itself.
    pub is_pod: bool,
}

/// A pod spec at `path`.
pub fn validate(
    spec: &Struct,
    options: Options<'_>,
    ctx: &Ctx<'_>,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    use c::pod_spec as ps;
    if !present(spec, ps::TERMINATION_GRACE_PERIOD_SECONDS) {
        errors.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let known = volumes::validate(spec, options.pod_name, &path.child("volumes"), errors);
    let claims = resource_claims(spec, &path.child("resourceClaims"), errors);
    let facts = PodFacts {
        volumes: &known,
        claim_names: &claims,
        grace: spec.int(ps::TERMINATION_GRACE_PERIOD_SECONDS),
        restart_policy: spec.str(ps::RESTART_POLICY),
        host_users: spec.bool(ps::HOST_USERS) != Some(false),
        os: spec.child(ps::OS).map(|os| os.str(c::pod_os::NAME)),
        restart_rules: ctx.gates.enabled("ContainerRestartRules"),
    };
    container::validate_containers(spec, &facts, &path.child("containers"), errors);
    container::validate_init_containers(spec, &facts, &path.child("initContainers"), errors);
    container::validate_ephemeral_containers(spec, &facts, &path.child("ephemeralContainers"), errors);
    resources::validate_pod_level(spec, &path.child("resources"), errors);
    host_network(spec, options.is_pod, path, errors);
    container::one_of(
        spec.str(ps::RESTART_POLICY),
        &["Always", "OnFailure", "Never"],
        &path.child("restartPolicy"),
        errors,
    );
    container::one_of(
        spec.str(ps::DNS_POLICY),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        &path.child("dnsPolicy"),
        errors,
    );
    validate_labels(spec.map(ps::NODE_SELECTOR), &path.child("nodeSelector"), errors);
    if let Some(context) = spec.child(ps::SECURITY_CONTEXT) {
        let mount = ctx.gates.enabled("SELinuxMount");
        security::validate_pod(context, spec, mount, &path.child("securityContext"), errors);
    }
    if let Some(affinity) = spec.child(ps::AFFINITY) {
        scheduling::validate_affinity(affinity, &path.child("affinity"), errors);
    }
    dns_config(spec, &path.child("dnsConfig"), errors);
    gates(spec, path, errors);
    scheduling::validate_topology_spread(spec, &path.child("topologySpreadConstraints"), errors);
    windows::host_process_pod(spec, path, errors);
    host_users(spec, path, errors);
    names_and_numbers(spec, path, errors);
    let comparisons = ctx.gates.enabled("TaintTolerationComparisonOperators");
    scheduling::validate_tolerations(spec, comparisons, &path.child("tolerations"), errors);
    host_aliases(spec, &path.child("hostAliases"), errors);
    if let Some(os) = spec.child(ps::OS) {
        let name = os.str(c::pod_os::NAME);
        let at = path.child("os");
        if name.is_empty() {
            errors.required(&at.child("name"), "");
        } else if !matches!(name, "linux" | "windows") {
            errors.not_supported(&at, name, &["linux", "windows"]);
        } else {
            windows::other_system(spec, name, path, errors);
        }
    }
    let overhead = path.child("overhead");
    let limits = overhead.child("limits");
    for (name, amount) in resources::amounts(spec.map(ps::OVERHEAD)) {
        let at = limits.key(name);
        resources::validate_container_name(name, &at, errors);
        resources::validate_amount(name, amount, &at, errors);
    }
    env::validate_file_keys(spec, path, errors);
}

fn resource_claims<'a>(spec: &'a Struct, path: &FieldPath<'_>, errors: &mut ErrorList) -> Vec<&'a str> {
    let mut claims: Vec<&str> = Vec::new();
    for (i, claim) in structs(spec, c::pod_spec::RESOURCE_CLAIMS) {
        let at = path.index(i);
        let name = claim.str(c::pod_resource_claim::NAME);
        if name.is_empty() {
            errors.required(&at.child("name"), "");
        } else if claims.contains(&name) {
            errors.duplicate(&at.child("name"), name);
        } else {
            errors.invalid_each(&at.child("name"), name, names::dns1123_label(name));
            claims.push(name);
        }
        let direct = present(claim, c::pod_resource_claim::RESOURCE_CLAIM_NAME);
        let template = present(claim, c::pod_resource_claim::RESOURCE_CLAIM_TEMPLATE_NAME);
        for field in
            [c::pod_resource_claim::RESOURCE_CLAIM_NAME, c::pod_resource_claim::RESOURCE_CLAIM_TEMPLATE_NAME]
        {
            if present(claim, field) {
                let value = claim.str(field);
                errors.invalid_each(&at.child(field.def().json), value, names::dns1123_subdomain(value));
            }
        }
        if direct == template {
            let value = json_text(Some(&Value::Struct(claim.clone())));
            let text = if direct {
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            } else {
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            };
            errors.invalid(&at, value, text);
        }
    }
    claims
}

fn host_network(spec: &Struct, is_pod: bool, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if spec.bool(c::pod_spec::HOST_NETWORK) != Some(true) {
        return;
    }
    let containers = path.child("containers");
    for (i, container) in structs(spec, c::pod_spec::CONTAINERS) {
        let at = containers.index(i);
        let ports = at.child("ports");
        for (j, port) in structs(container, c::container::PORTS) {
            let host = port.int(c::container_port::HOST_PORT).unwrap_or(0);
            let inner = port.int(c::container_port::CONTAINER_PORT).unwrap_or(0);
            if (is_pod || host != 0) && host != inner {
                let text = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(&ports.index(j).child("hostPort"), host, text);
            }
        }
    }
}

fn dns_config(spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::pod_dns_config as d;
    let config = spec.child(c::pod_spec::DNS_CONFIG);
    if spec.str(c::pod_spec::DNS_POLICY) == "None" {
        match config {
            None => {
                errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
                return;
            }
            Some(config) if config.list(d::NAMESERVERS).is_empty() => {
                let text = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                errors.required(&path.child("nameservers"), text);
                return;
            }
            Some(_) => {}
        }
    }
    let Some(config) = config else { return };
    let at = path.child("nameservers");
    if config.list(d::NAMESERVERS).len() > 3 {
        let value = container::string_list(config, d::NAMESERVERS);
        errors.invalid(&at, value, "must not have more than 3 nameservers");
    }
    for (i, server) in strs(config, d::NAMESERVERS) {
        names::validate_ip_legacy(&at.index(i), server, errors);
    }
    let at = path.child("searches");
    let value = || container::string_list(config, d::SEARCHES);
    if config.list(d::SEARCHES).len() > 32 {
        errors.invalid(&at, value(), "must not have more than 32 search paths");
    }
    let length: usize = strs(config, d::SEARCHES).map(|(_, search)| search.len() + 1).sum();
    if length > 2049 {
        let text = "must not have more than 2048 characters (including spaces) in the search list";
        errors.invalid(&at, value(), text);
    }
    for (i, search) in strs(config, d::SEARCHES).filter(|(_, search)| *search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        errors.invalid_each(&at.index(i), search, names::dns1123_subdomain_with_underscore(search));
    }
    for (i, option) in structs(config, d::OPTIONS) {
        if option.str(c::pod_dns_config_option::NAME).is_empty() {
            errors.required(&path.child("options").index(i), "must not be empty");
        }
    }
}

fn gates(spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let at = path.child("readinessGates");
    for (i, gate) in structs(spec, c::pod_spec::READINESS_GATES) {
        let name = gate.str(c::pod_readiness_gate::CONDITION_TYPE);
        errors.invalid_each(&at.index(i).child("conditionType"), name, names::qualified_name(name));
    }
    let at = path.child("schedulingGates");
    let mut seen: Vec<&str> = Vec::new();
    for (i, gate) in structs(spec, c::pod_spec::SCHEDULING_GATES) {
        let name = gate.str(c::pod_scheduling_gate::NAME);
        errors.invalid_each(&at.index(i), name, names::qualified_name(name));
        if seen.contains(&name) {
            errors.duplicate(&at.index(i), name);
        }
        seen.push(name);
    }
}

fn host_users(spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if spec.bool(c::pod_spec::HOST_USERS) != Some(false) {
        return;
    }
    let fields = [
        (c::pod_spec::HOST_NETWORK, "hostNetwork"),
        (c::pod_spec::HOST_PID, "HostPID"),
        (c::pod_spec::HOST_IPC, "HostIPC"),
    ];
    for (field, json) in fields {
        if spec.bool(field) == Some(true) {
            errors.forbidden(&path.child(json), "when `hostUsers` is false");
        }
    }
    for list in [c::pod_spec::INIT_CONTAINERS, c::pod_spec::CONTAINERS, c::pod_spec::EPHEMERAL_CONTAINERS] {
        let at = path.child(list.def().json);
        let ephemeral = list == c::pod_spec::EPHEMERAL_CONTAINERS;
        let devices =
            if ephemeral { c::ephemeral_container::VOLUME_DEVICES } else { c::container::VOLUME_DEVICES };
        for (i, container) in structs(spec, list) {
            if !container.list(devices).is_empty() {
                errors.forbidden(&at.index(i).child("volumeDevices"), "when `hostUsers` is false");
            }
        }
    }
}

fn names_and_numbers(spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::pod_spec as ps;
    if let Some(seconds) = spec.int(ps::ACTIVE_DEADLINE_SECONDS) {
        for message in names::in_range(seconds, 1, i64::from(i32::MAX)) {
            errors.invalid(&path.child("activeDeadlineSeconds"), seconds, message);
        }
    }
    let rules: [(Field, names::Rule); 6] = [
        (ps::SERVICE_ACCOUNT_NAME, names::dns1123_subdomain),
        (ps::NODE_NAME, names::dns1123_subdomain),
        (ps::HOSTNAME, names::dns1123_label),
        (ps::SUBDOMAIN, names::dns1123_label),
        (ps::PRIORITY_CLASS_NAME, names::dns1123_subdomain),
        (ps::RUNTIME_CLASS_NAME, names::dns1123_subdomain),
    ];
    for (field, rule) in rules {
        let value = spec.str(field);
        if !value.is_empty() || (field == ps::RUNTIME_CLASS_NAME && present(spec, field)) {
            errors.invalid_each(&path.child(field.def().json), value, rule(value));
        }
    }
    if present(spec, ps::PREEMPTION_POLICY) {
        let policy = spec.str(ps::PREEMPTION_POLICY);
        let at = path.child("preemptionPolicy");
        container::one_of(policy, &["PreemptLowerPriority", "Never"], &at, errors);
    }
    if present(spec, ps::HOSTNAME_OVERRIDE) {
        let at = path.child("hostnameOverride");
        if spec.bool(ps::SET_HOSTNAME_AS_FQDN) == Some(true) {
            errors.forbidden(&at, "may not be specified when setHostnameAsFQDN is true");
        }
        if spec.bool(ps::HOST_NETWORK) == Some(true) {
            errors.forbidden(&at, "may not be specified when hostNetwork is true");
        }
        let name = spec.str(ps::HOSTNAME_OVERRIDE);
        if name.len() > 64 {
            errors.too_long(&at, 64);
        }
        errors.invalid_each(&at, name, names::dns1123_subdomain(name));
    }
}

fn host_aliases(spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    for (i, alias) in structs(spec, c::pod_spec::HOST_ALIASES) {
        let at = path.index(i);
        names::validate_ip_legacy(&at.child("ip"), alias.str(c::host_alias::IP), errors);
        let hosts = at.child("hostnames");
        for (j, host) in strs(alias, c::host_alias::HOSTNAMES) {
            errors.invalid_each(&hosts.index(j), host, names::dns1123_subdomain(host));
        }
    }
}

/// A pod template: labels, annotations and spec; without ephemeral containers.
pub fn validate_template(template: &Struct, ctx: &Ctx<'_>, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use crate::f::meta_v1::object_meta as om;
    if let Some(meta) = template.child(c::pod_template_spec::METADATA) {
        // Upstream's paths leave `metadata` out.
        validate_labels(meta.map(om::LABELS), &path.child("labels"), errors);
        validate_annotations(meta.map(om::ANNOTATIONS), &path.child("annotations"), errors);
    }
    let Some(spec) = template.child(c::pod_template_spec::SPEC) else {
        errors.required(&path.child("spec").child("containers"), "");
        return;
    };
    let at = path.child("spec");
    let annotations = template
        .child(c::pod_template_spec::METADATA)
        .and_then(|meta| meta.map(om::ANNOTATIONS))
        .filter(|all| !all.is_empty());
    pod_annotations::validate_map(annotations, spec, &path.child("annotations"), errors);
    validate(spec, Options { pod_name: "", is_pod: false }, ctx, &at, errors);
    pod_annotations::agreement(annotations, spec, &at, errors);
    if !spec.list(c::pod_spec::EPHEMERAL_CONTAINERS).is_empty() {
        errors
            .forbidden(&at.child("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

/// The labels of a pod template.
pub fn template_labels(template: &Struct) -> Option<&crate::doc::Map> {
    use crate::f::meta_v1::object_meta as om;
    template.child(c::pod_template_spec::METADATA).and_then(|meta| meta.map(om::LABELS))
}

/// A map of labels as error texts print it.
pub fn labels_json(labels: Option<&crate::doc::Map>) -> BadValue {
    json_text(labels.map(|labels| Value::Map(labels.clone())).as_ref())
}
