//! What a write of a pod's status may say.

use crate::doc::{Doc, Struct};
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::schema::Field;
use crate::t::core_v1 as t;
use crate::types::Ctx;
use crate::types::walk::{json_text, present, structs};

use c::container_status as cs;
use c::pod_status as st;

const STATUS: FieldPath<'static> = FieldPath::new("status");
const NOT_NEGATIVE: &str = "must be a non-negative integer";
const LISTS: [Field; 3] =
    [st::CONTAINER_STATUSES, st::INIT_CONTAINER_STATUSES, st::EPHEMERAL_CONTAINER_STATUSES];

fn spec(doc: &Doc) -> Option<&Struct> {
    doc.root()?.child(c::pod::SPEC)
}

fn status(doc: &Doc) -> Option<&Struct> {
    doc.root()?.child(c::pod::STATUS)
}

/// New, old.
pub fn validate(new: &Doc, old: &Doc, _: &Ctx<'_>, errors: &mut ErrorList) {
    let (empty, no_spec) = (Struct::new(t::POD_STATUS), Struct::new(t::POD_SPEC));
    let (now, before) = (status(new).unwrap_or(&empty), status(old).unwrap_or(&empty));
    let spec = spec(new).unwrap_or(&no_spec);
    super::pod_annotations::validate_update(new, old, errors);
    super::pod_annotations::validate(new, spec, errors);
    conditions(now, errors);
    let nominated = now.str(st::NOMINATED_NODE_NAME);
    if nominated != before.str(st::NOMINATED_NODE_NAME) && !nominated.is_empty() {
        let at = STATUS.child("nominatedNodeName");
        errors.invalid_each(&at, nominated, names::dns1123_subdomain(nominated));
        if !old.str(&[c::pod::SPEC, c::pod_spec::NODE_NAME]).is_empty() {
            errors.forbidden(&at, "may not be set on pods that are already bound to a node");
        }
    }
    let generation = now.int(st::OBSERVED_GENERATION).unwrap_or(0);
    if generation < 0 {
        errors.invalid(&STATUS.child("observedGeneration"), generation, NOT_NEGATIVE);
    }
    let class = STATUS.child("qosClass");
    crate::types::meta::immutable(now.get(st::QOS_CLASS), before.get(st::QOS_CLASS), &class, errors);
    let restarts = old.str(&[c::pod::SPEC, c::pod_spec::RESTART_POLICY]);
    if restarts != "Always" {
        for field in [st::CONTAINER_STATUSES, st::INIT_CONTAINER_STATUSES] {
            state_transitions(now, before, field, restarts, old, errors);
        }
    }
    claims(now, spec, errors);
    extended_claims(now, spec, errors);
    for (field, inner) in [(st::POD_IPS, c::pod_ip::IP), (st::HOST_IPS, c::host_ip::IP)] {
        addresses(now, before, field, inner, errors);
    }
    let first = structs(now, st::HOST_IPS).next().map(|(_, ip)| ip.str(c::host_ip::IP));
    if let Some(first) = first.filter(|first| *first != now.str(st::HOST_IP)) {
        let at = STATUS.child("hostIPs");
        errors.invalid(&at.index(0).child("ip"), first, "must be equal to `hostIP`");
    }
    let os = spec.child(c::pod_spec::OS).map_or("linux", |os| os.str(c::pod_os::NAME));
    for list in LISTS {
        let at = STATUS.child(list.def().json);
        for (i, one) in structs(now, list) {
            user(one, os, &at.index(i), errors);
        }
    }
    allocated(now, st::CONTAINER_STATUSES, spec, c::pod_spec::CONTAINERS, errors);
    allocated(now, st::INIT_CONTAINER_STATUSES, spec, c::pod_spec::INIT_CONTAINERS, errors);
    let at = STATUS.child("ephemeralContainerStatuses");
    for (i, one) in structs(now, st::EPHEMERAL_CONTAINER_STATUSES) {
        if !one.list(cs::ALLOCATED_RESOURCES_STATUS).is_empty() {
            let at = at.index(i);
            let text = "must not be specified in container status";
            errors.forbidden(&at.child("allocatedResourcesStatus"), text);
        }
    }
}

fn conditions(now: &Struct, errors: &mut ErrorList) {
    let all = STATUS.child("conditions");
    for (i, condition) in structs(now, st::CONDITIONS) {
        let at = all.index(i);
        let generation = condition.int(c::pod_condition::OBSERVED_GENERATION).unwrap_or(0);
        if generation < 0 {
            errors.invalid(&at.child("observedGeneration"), generation, NOT_NEGATIVE);
        }
        let kind = condition.str(c::pod_condition::TYPE);
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            errors.invalid_each(&at.child("Type"), kind, names::qualified_name(kind));
        }
    }
}

fn claims(now: &Struct, spec: &Struct, errors: &mut ErrorList) {
    use c::pod_resource_claim_status as s;
    let all = STATUS.child("resourceClaimStatuses");
    let mut seen: Vec<&str> = Vec::new();
    for (i, one) in structs(now, st::RESOURCE_CLAIM_STATUSES) {
        let at = all.index(i);
        let name = one.str(s::NAME);
        let known = structs(spec, c::pod_spec::RESOURCE_CLAIMS)
            .any(|(_, claim)| claim.str(c::pod_resource_claim::NAME) == name);
        if !known {
            errors.invalid(
                &at.child("name"),
                name,
                "must match the name of an entry in `spec.resourceClaims`",
            );
        }
        if seen.contains(&name) {
            errors.duplicate(&at.child("name"), name);
        }
        seen.push(name);
        if present(one, s::RESOURCE_CLAIM_NAME) {
            let claim = one.str(s::RESOURCE_CLAIM_NAME);
            errors.invalid_each(&at.child("resourceClaimName"), claim, names::dns1123_subdomain(claim));
        }
    }
}

fn extended_claims(now: &Struct, spec: &Struct, errors: &mut ErrorList) {
    use c::container_extended_resource_request as r;
    use c::pod_extended_resource_claim_status as s;
    let Some(claim) = now.child(st::EXTENDED_RESOURCE_CLAIM_STATUS) else { return };
    let base = STATUS.child("extendedResourceClaimStatus");
    let all = base.child("requestMappings");
    if claim.list(s::REQUEST_MAPPINGS).is_empty() {
        errors.required(&all, "at least one request mapping is required");
    }
    let mut seen: Vec<[&str; 3]> = Vec::new();
    for (i, mapping) in structs(claim, s::REQUEST_MAPPINGS) {
        let at = all.index(i);
        let (name, resource, request) =
            (mapping.str(r::CONTAINER_NAME), mapping.str(r::RESOURCE_NAME), mapping.str(r::REQUEST_NAME));
        let container = [c::pod_spec::CONTAINERS, c::pod_spec::INIT_CONTAINERS]
            .into_iter()
            .flat_map(|list| structs(spec, list))
            .find(|(_, one)| one.str(c::container::NAME) == name);
        match container {
            Some((_, one)) if !requests(one, resource) => {
                let text = "must match the extended resource name of an entry in spec.initContainers.resources.requests or \
                            spec.containers.resources.requests";
                errors.invalid(&at.child("resourceName"), resource, text);
            }
            Some(_) => {}
            None => {
                let text =
                    "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                errors.invalid(&at.child("containerName"), name, text);
            }
        }
        errors.invalid_each(&base.child("requestName"), request, names::dns1123_label(request));
        if seen.contains(&[name, resource, request]) {
            for (field, value) in
                [("containerName", name), ("resourceName", resource), ("requestName", request)]
            {
                errors.duplicate(&at.child(field), value);
            }
        }
        seen.push([name, resource, request]);
    }
    let name = claim.str(s::RESOURCE_CLAIM_NAME);
    if name.is_empty() {
        errors.required(&base.child("resourceClaimName"), "");
    } else {
        errors.invalid_each(&base.child("resourceClaimName"), name, names::dns1123_subdomain(name));
    }
}

fn requests(container: &Struct, resource: &str) -> bool {
    container
        .child(c::container::RESOURCES)
        .and_then(|resources| resources.map(c::resource_requirements::REQUESTS))
        .is_some_and(|requests| requests.contains_key(resource))
}

/// Addresses: new ones valid, and of each family one at most.
fn addresses(now: &Struct, before: &Struct, list: Field, inner: Field, errors: &mut ErrorList) {
    let at = STATUS.child(list.def().json);
    let ips: Vec<&str> = structs(now, list).map(|(_, ip)| ip.str(inner)).collect();
    let known = |ip: &str| structs(before, list).any(|(_, old)| old.str(inner) == ip);
    for (i, ip) in ips.iter().enumerate().filter(|(_, ip)| !known(ip)) {
        names::validate_ip_legacy(&at.index(i), ip, errors);
    }
    if ips.len() < 2 {
        return;
    }
    let families: Vec<bool> =
        ips.iter().filter_map(|ip| names::parse_ip_sloppy(ip)).map(|ip| ip.is_ipv6()).collect();
    let both = families.len() == 2 && families.contains(&true) && families.contains(&false);
    if ips.len() > 2 || !both {
        let text = "may specify no more than one IP for each IP family";
        errors.invalid(&at, json_text(now.get(list)), text);
    }
}

fn user(one: &Struct, os: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::linux_container_user as u;
    let Some(linux) = one.child(cs::USER).and_then(|user| user.child(c::container_user::LINUX)) else {
        return;
    };
    let at = path.child("user");
    let at = at.child("linux");
    if os == "windows" {
        errors.forbidden(&at, "cannot be set for a windows pod");
        return;
    }
    let id = |value: i64, at: &FieldPath<'_>, errors: &mut ErrorList| {
        for text in names::unix_id(value) {
            errors.invalid(at, value, text);
        }
    };
    id(linux.int(u::UID).unwrap_or(0), &at.child("uid"), errors);
    id(linux.int(u::GID).unwrap_or(0), &at.child("gid"), errors);
    let groups = at.child("supplementalGroups");
    for (i, group) in linux.list(u::SUPPLEMENTAL_GROUPS).iter().enumerate() {
        id(group.as_int().unwrap_or(0), &groups.index(i), errors);
    }
}

fn allocated(now: &Struct, list: Field, spec: &Struct, containers: Field, errors: &mut ErrorList) {
    use c::resource_health as h;
    use c::resource_status as r;
    let all = STATUS.child(list.def().json);
    for (i, one) in structs(now, list) {
        let at = all.index(i);
        let at = at.child("allocatedResourcesStatus");
        let container = structs(spec, containers)
            .find(|(_, container)| container.str(c::container::NAME) == one.str(cs::NAME))
            .map(|(_, container)| container);
        for (j, resource) in structs(one, cs::ALLOCATED_RESOURCES_STATUS) {
            let at = at.index(j);
            let name = resource.str(r::NAME);
            if let Some(container) = container {
                allocated_name(container, name, &at.child("name"), errors);
            }
            let mut ids: Vec<&str> = Vec::new();
            let healths = at.child("resources");
            for (k, health) in structs(resource, r::RESOURCES) {
                let at = healths.index(k);
                let state = health.str(h::HEALTH);
                if !matches!(state, "Healthy" | "Unhealthy" | "Unknown") {
                    errors.not_supported(&at.child("health"), state, &["Healthy", "Unhealthy", "Unknown"]);
                }
                let id = health.str(h::RESOURCE_ID);
                if ids.contains(&id) {
                    errors.duplicate(&at.child("resourceID"), id);
                }
                ids.push(id);
            }
        }
    }
}

fn allocated_name(container: &Struct, name: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let (known, text) = match name.strip_prefix("claim:") {
        Some(claim) => {
            let known = container.child(c::container::RESOURCES).is_some_and(|resources| {
                structs(resources, c::resource_requirements::CLAIMS).any(|(_, one)| {
                    let (name, request) =
                        (one.str(c::resource_claim::NAME), one.str(c::resource_claim::REQUEST));
                    if request.is_empty() {
                        claim == name
                    } else {
                        claim.split_once('/') == Some((name, request))
                    }
                })
            });
            let text = "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or \
                        'claim:<claimName>' if request is empty";
            (known, text)
        }
        None => (requests(container, name), "must match one of the container's resource requests"),
    };
    if !known {
        errors.invalid(path, name, text);
    }
}

fn state_transitions(
    now: &Struct,
    before: &Struct,
    field: Field,
    restarts: &str,
    old: &Doc,
    errors: &mut ErrorList,
) {
    let terminated = |status: &Struct| {
        status
            .child(cs::STATE)
            .and_then(|state| state.child(c::container_state::TERMINATED))
            .map(|end| end.int(c::container_state_terminated::EXIT_CODE).unwrap_or(0))
    };
    let at = STATUS.child(field.def().json);
    for (i, was) in structs(before, field) {
        let Some(code) = terminated(was) else { continue };
        let name = was.str(cs::NAME);
        if (code != 0 && restarts == "OnFailure") || has_own_restart_policy(old, name) {
            continue;
        }
        let now = structs(now, field).find(|(_, status)| status.str(cs::NAME) == name);
        if now.is_some_and(|(_, status)| terminated(status).is_none()) {
            let text = "may not be transitioned to non-terminated state";
            errors.forbidden(&at.index(i).child("state"), text);
        }
    }
}

fn has_own_restart_policy(pod: &Doc, name: &str) -> bool {
    let Some(spec) = spec(pod) else { return false };
    [c::pod_spec::CONTAINERS, c::pod_spec::INIT_CONTAINERS].into_iter().any(|list| {
        structs(spec, list).any(|(_, one)| {
            one.str(c::container::NAME) == name
                && matches!(one.str(c::container::RESTART_POLICY), "Always" | "OnFailure")
        })
    })
}
