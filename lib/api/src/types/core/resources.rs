//! Resource names and amounts: validation, and the sums of a pod's containers.

use std::collections::BTreeMap;

use crate::doc::{Map, Struct, Value};
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::quantity::Quantity;
use crate::schema::Field;
use crate::types::meta::NEGATIVE;
use crate::types::walk::structs;

const HUGE_PAGES: &str = "hugepages-";
const STANDARD_CONTAINER: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "hugepages-"];
const STANDARD: [&str; 21] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
    "hugepages-",
];

/// Whether the name is of huge pages.
pub fn is_huge_page(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

/// In the `kubernetes.io/` domain, or without any.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// An extended resource: a domain of its own.
pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Requests may be less than limits.
pub fn overcommits(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// Amounts of these are whole numbers.
pub fn is_integer(name: &str) -> bool {
    matches!(
        name,
        "pods"
            | "resourcequotas"
            | "services"
            | "replicationcontrollers"
            | "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
            | "services.nodeports"
            | "services.loadbalancers"
    ) || is_extended(name)
        || name.starts_with("count/")
}

fn standard(name: &str) -> bool {
    STANDARD.contains(&name) || is_huge_page(name) || name.starts_with("requests.hugepages-")
}

/// Any resource's name.
pub fn validate_name(name: &str, path: &FieldPath<'_>, errors: &mut ErrorList) -> bool {
    let messages = names::qualified_name(name);
    if !messages.is_empty() {
        errors.invalid_each(path, name, messages);
        return false;
    }
    if !name.contains('/') && !standard(name) {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
        return false;
    }
    true
}

/// A container's resource.
pub fn validate_container_name(name: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    validate_name(name, path, errors);
    if !name.contains('/') {
        if !STANDARD_CONTAINER.contains(&name) && !is_huge_page(name) {
            errors.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

fn pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_page(name)
}

/// A resource that a pod as a whole may ask for.
pub fn validate_pod_level_name(name: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if validate_name(name, path, errors) && !pod_level(name) {
        errors.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
    }
}

/// An amount of a resource: not negative, whole where it must be.
pub fn validate_amount(name: &str, amount: Quantity, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if amount.sign() < 0 {
        errors.invalid(path, amount.to_string(), NEGATIVE);
    }
    if is_integer(name) && !amount.is_whole() {
        errors.invalid(path, amount.to_string(), "must be an integer");
    }
}

fn quantity(value: &Value) -> Option<Quantity> {
    value.as_str().and_then(|text| Quantity::parse(text).ok())
}

/// Names and amounts of a resource list; absent lists are empty.
pub fn amounts(map: Option<&Map>) -> impl Iterator<Item = (&str, Quantity)> {
    map.into_iter().flat_map(Map::iter).filter_map(|(name, value)| Some((name, quantity(value)?)))
}

fn huge_page_divides(name: &str, amount: Quantity) -> bool {
    let size = name.strip_prefix(HUGE_PAGES).and_then(|size| Quantity::parse(size).ok());
    size.is_some_and(|size| size.value() > 0 && amount.is_whole() && amount.value() % size.value() == 0)
}

/// `resources` of a container (`container` true) or a pod.
pub fn validate_requirements(
    resources: &Struct,
    container: bool,
    claim_names: &[&str],
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    let limits = resources.map(c::resource_requirements::LIMITS);
    let requests = resources.map(c::resource_requirements::REQUESTS);
    let check_name = if container { validate_container_name } else { validate_pod_level_name };
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    let (mut huge, mut compute) = (false, false);
    for (map, base) in [(limits, &limits_path), (requests, &requests_path)] {
        for (name, amount) in amounts(map) {
            let key = base.key(name);
            check_name(name, &key, errors);
            validate_amount(name, amount, &key, errors);
            if std::ptr::eq(base, &requests_path) {
                against_limit(name, amount, limits, &limits_path, &requests_path, errors);
            }
            if is_huge_page(name) {
                huge = true;
                if !huge_page_divides(name, amount) {
                    let text = format!("{amount} is not positive integer multiple of {name}");
                    errors.invalid(&key, amount.to_string(), text);
                }
            }
            compute |= matches!(name, "cpu" | "memory");
        }
    }
    if huge && !compute {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
    if container {
        validate_claims(resources, claim_names, &path.child("claims"), errors);
    }
}

fn against_limit(
    name: &str,
    amount: Quantity,
    limits: Option<&Map>,
    limits_path: &FieldPath<'_>,
    requests_path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    match limits.and_then(|limits| limits.get(name)).and_then(quantity) {
        Some(limit) if amount != limit && !overcommits(name) => {
            errors.invalid(
                requests_path,
                amount.to_string(),
                format!("must be equal to {name} limit of {limit}"),
            );
        }
        Some(limit) if amount > limit => {
            let text = format!("must be less than or equal to {name} limit of {limit}");
            errors.invalid(requests_path, amount.to_string(), text);
        }
        None if !overcommits(name) => {
            errors.required(limits_path, "Limit must be set for non overcommitable resources");
        }
        _ => {}
    }
}

fn validate_claims(resources: &Struct, claim_names: &[&str], path: &FieldPath<'_>, errors: &mut ErrorList) {
    let mut seen: Vec<String> = Vec::new();
    for (i, claim) in structs(resources, c::resource_requirements::CLAIMS) {
        let path = path.index(i);
        let (name, request) = (claim.str(c::resource_claim::NAME), claim.str(c::resource_claim::REQUEST));
        if name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        let key = if request.is_empty() { name.to_owned() } else { format!("{name}/{request}") };
        if seen.iter().any(|s| s == name || *s == key) {
            errors.duplicate(&path, key.as_str());
        } else {
            if !request.is_empty() {
                errors.invalid_each(&path.child("request"), request, names::dns1123_label(request));
            }
            seen.push(key);
        }
        if !claim_names.contains(&name) {
            let mut detail = "must be one of the names in pod.spec.resourceClaims".to_owned();
            if claim_names.is_empty() {
                detail.push_str(" which is empty");
            } else {
                let mut sorted = claim_names.to_vec();
                sorted.sort_unstable();
                detail.push_str(&format!(": {}", sorted.join(", ")));
            }
            errors.push(crate::field_errors::FieldError {
                kind: crate::field_errors::ErrorKind::NotFound,
                field: path.to_string(),
                value: name.into(),
                detail,
            });
        }
    }
}

type Sums = BTreeMap<String, Quantity>;

fn add(sums: &mut Sums, map: Option<&Map>) {
    for (name, amount) in amounts(map) {
        let sum = sums.entry(name.to_owned()).or_default();
        *sum = sum.plus(amount);
    }
}

fn raise(sums: &mut Sums, other: &Sums) {
    for (name, amount) in other {
        let sum = sums.entry(name.clone()).or_default();
        if *amount > *sum {
            *sum = *amount;
        }
    }
}

/// What a pod's containers ask for (or are limited to) together: the sum of containers and sidecars, or the largest
/// init container with the sidecars before it, whichever is more.
pub fn aggregate(spec: &Struct, field: Field) -> Sums {
    let of = |container: &Struct| {
        container.child(c::container::RESOURCES).and_then(|resources| resources.map(field)).cloned()
    };
    let mut sum = Sums::new();
    for (_, container) in structs(spec, c::pod_spec::CONTAINERS) {
        add(&mut sum, of(container).as_ref());
    }
    let (mut sidecars, mut peak) = (Sums::new(), Sums::new());
    for (_, container) in structs(spec, c::pod_spec::INIT_CONTAINERS) {
        let map = of(container);
        if container.str(c::container::RESTART_POLICY) == "Always" {
            add(&mut sum, map.as_ref());
            add(&mut sidecars, map.as_ref());
            raise(&mut peak, &sidecars);
        } else {
            let mut here = sidecars.clone();
            add(&mut here, map.as_ref());
            raise(&mut peak, &here);
        }
    }
    raise(&mut sum, &peak);
    sum
}

/// Requests and limits of the pod as a whole, filled in from containers and limits where some are given.
pub fn default_pod_level(spec: &mut Struct) {
    let Some(resources) = spec.child(c::pod_spec::RESOURCES) else { return };
    let mut limits = resources.map(c::resource_requirements::LIMITS).cloned().unwrap_or_default();
    let mut requests = resources.map(c::resource_requirements::REQUESTS).cloned().unwrap_or_default();
    if limits.is_empty() && requests.is_empty() {
        return;
    }
    for (name, amount) in aggregate(spec, c::resource_requirements::LIMITS) {
        if is_huge_page(&name) && !requests.contains_key(&name) && !limits.contains_key(&name) {
            limits.insert(name.as_str(), amount.to_string());
        }
    }
    if !limits.is_empty() {
        for (name, amount) in aggregate(spec, c::resource_requirements::REQUESTS) {
            if pod_level(&name) && overcommits(&name) && !requests.contains_key(&name) {
                requests.insert(name.as_str(), amount.to_string());
            }
        }
        for (name, limit) in limits.iter() {
            if pod_level(name) && !requests.contains_key(name) {
                requests.insert(name, limit.clone());
            }
        }
    }
    if let Some(resources) = spec.child_mut(c::pod_spec::RESOURCES) {
        if !limits.is_empty() {
            resources.set(c::resource_requirements::LIMITS, limits);
        }
        if !requests.is_empty() {
            resources.set(c::resource_requirements::REQUESTS, requests);
        }
    }
}

/// Pod-level requests and limits against what the containers ask for.
pub fn validate_pod_level(spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let Some(resources) = spec.child(c::pod_spec::RESOURCES) else { return };
    if spec.child(c::pod_spec::OS).is_some_and(|os| os.str(c::pod_os::NAME) == "windows") {
        errors.forbidden(path, "may not be set for a windows pod");
        return;
    }
    if !resources.list(c::resource_requirements::CLAIMS).is_empty() {
        errors.forbidden(&path.child("claims"), "claims may not be set for Resources at pod-level");
    }
    validate_requirements(resources, false, &[], path, errors);
    let get =
        |field: Field, name: &str| resources.map(field).and_then(|map| map.get(name)).and_then(quantity);
    for (name, sum) in aggregate(spec, c::resource_requirements::REQUESTS) {
        if let Some(amount) = get(c::resource_requirements::REQUESTS, &name).filter(|amount| sum > *amount) {
            let text = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.invalid(&path.child("requests").key(&name), amount.to_string(), text);
        }
    }
    for (name, sum) in aggregate(spec, c::resource_requirements::LIMITS) {
        let limit = get(c::resource_requirements::LIMITS, &name);
        if let Some(limit) = limit.filter(|limit| is_huge_page(&name) && sum > *limit) {
            let text = format!("must be greater than or equal to aggregate container limits of {sum}");
            errors.invalid(&path.child("limits").key(&name), limit.to_string(), text);
        }
    }
    for (i, container) in structs(spec, c::pod_spec::CONTAINERS) {
        let limits =
            container.child(c::container::RESOURCES).and_then(|r| r.map(c::resource_requirements::LIMITS));
        for (name, limit) in amounts(limits) {
            if let Some(pod) = get(c::resource_requirements::LIMITS, name).filter(|pod| limit > *pod) {
                let text = format!("must be less than or equal to pod limits of {pod}");
                let at = path.child("containers");
                errors.invalid(&at.index(i).key(name).child("limits"), limit.to_string(), text);
            }
        }
    }
}

/// The quality-of-service class of a pod spec.
pub fn qos_class(spec: &Struct) -> &'static str {
    let mut requests: Sums = Sums::new();
    let mut limits: Sums = Sums::new();
    let mut guaranteed = true;
    let mut consider = |resources: Option<&Struct>, guaranteed: &mut bool| {
        let map = |field: Field| resources.and_then(|resources| resources.map(field));
        let mut limited = 0;
        for (name, amount) in amounts(map(c::resource_requirements::REQUESTS)) {
            if matches!(name, "cpu" | "memory") && amount.sign() > 0 {
                let sum = requests.entry(name.to_owned()).or_default();
                *sum = sum.plus(amount);
            }
        }
        for (name, amount) in amounts(map(c::resource_requirements::LIMITS)) {
            if matches!(name, "cpu" | "memory") && amount.sign() > 0 {
                limited += 1;
                let sum = limits.entry(name.to_owned()).or_default();
                *sum = sum.plus(amount);
            }
        }
        *guaranteed &= limited == 2;
    };
    let pod = spec.child(c::pod_spec::RESOURCES).filter(|resources| {
        [c::resource_requirements::LIMITS, c::resource_requirements::REQUESTS]
            .iter()
            .any(|field| resources.map(*field).is_some_and(|map| !map.is_empty()))
    });
    if pod.is_some() {
        consider(pod, &mut guaranteed);
    } else {
        for list in [c::pod_spec::CONTAINERS, c::pod_spec::INIT_CONTAINERS] {
            for (_, container) in structs(spec, list) {
                consider(container.child(c::container::RESOURCES), &mut guaranteed);
            }
        }
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if guaranteed && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}
