//! LimitRanger: a namespace's LimitRanges complete and bound what containers, pods and claims ask for.

use super::pod_refs::structs;
use super::{Admission, AdmissionAttributes, ClusterReads, Operation};
use crate::authn::reads::Parsed;
use keelson_api::doc::{Doc, Map, Struct, Value};
use keelson_api::f::core_v1 as c;
use keelson_api::quantity::Quantity;
use keelson_api::schema::Field;
use keelson_api::status::Status;
use keelson_api::t::core_v1 as t;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
const CLAIMS: &str = "persistentvolumeclaims";

pub(super) struct LimitRanger {
    reads: Arc<dyn ClusterReads>,
    /// Of all LimitRanges of a namespace.
    parsed: Parsed<Vec<Limit>>,
}

type Amounts = BTreeMap<String, Quantity>;
type Texts = BTreeMap<String, String>;

#[derive(Default, Deserialize)]
#[serde(default)]
struct LimitRange {
    spec: LimitRangeSpec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LimitRangeSpec {
    limits: Vec<Limit>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Limit {
    r#type: String,
    min: Texts,
    max: Texts,
    default: Texts,
    default_request: Texts,
    max_limit_request_ratio: Texts,
}

fn amounts(texts: &Texts) -> impl Iterator<Item = (&str, Quantity)> {
    texts.iter().filter_map(|(name, text)| Some((name.as_str(), Quantity::parse(text).ok()?)))
}

fn amounts_of(map: Option<&Map>) -> Amounts {
    let pairs = map.into_iter().flat_map(Map::str_pairs);
    pairs.filter_map(|(name, text)| Some((name.to_owned(), Quantity::parse(text).ok()?))).collect()
}

/// Requests and limits of something.
#[derive(Default, Clone)]
struct Resources {
    requests: Amounts,
    limits: Amounts,
}

fn resources(within: &Struct, field: Field) -> Resources {
    let Some(found) = within.child(field) else { return Resources::default() };
    Resources {
        requests: amounts_of(found.map(c::resource_requirements::REQUESTS)),
        limits: amounts_of(found.map(c::resource_requirements::LIMITS)),
    }
}

impl LimitRanger {
    pub(super) fn new(reads: Arc<dyn ClusterReads>) -> LimitRanger {
        LimitRanger { reads, parsed: Parsed::default() }
    }

    fn limits(&self, namespace: &str) -> Arc<Vec<Limit>> {
        let ranges = self.reads.list("", "limitranges", namespace);
        if ranges.is_empty() {
            return Arc::default();
        }
        let told = self.parsed.of((namespace, ""), &ranges, |ranges| {
            let parsed =
                ranges.iter().filter_map(|bytes| match serde_json::from_slice::<LimitRange>(bytes) {
                    Ok(range) => Some(range.spec.limits),
                    Err(error) => {
                        tracing::error!(namespace, %error, "a stored LimitRange cannot be read");
                        None
                    }
                });
            Some(parsed.flatten().collect())
        });
        told.unwrap_or_default()
    }
}

/// Pods when they are made or resized, claims always; never what is being deleted.
fn concerned(old: Option<&Doc>, a: &AdmissionAttributes<'_>) -> bool {
    if a.namespace.is_empty() || old.is_some_and(|old| old.meta().is_being_deleted()) {
        return false;
    }
    match (a.resource, a.subresource, a.operation) {
        _ if !a.group.is_empty() => false,
        ("pods", "", Operation::Create) | ("pods", "resize", Operation::Update) => true,
        (CLAIMS, "", Operation::Create | Operation::Update) => true,
        _ => false,
    }
}

impl Admission for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn mutate(&self, object: &mut Doc, old: Option<&Doc>, a: &AdmissionAttributes<'_>) -> Result<(), Status> {
        if !concerned(old, a) || a.resource != "pods" {
            return Ok(());
        }
        let limits = self.limits(a.namespace);
        let mut notes = Vec::new();
        for limit in limits.iter().filter(|l| l.r#type == "Container") {
            complete(object, limit, &mut notes);
        }
        if !notes.is_empty() {
            let text = format!("LimitRanger plugin set: {}", notes.join("; "));
            object.meta_mut().set_annotation(ANNOTATION, &text);
        }
        Ok(())
    }

    fn validate(
        &self,
        object: Option<&Doc>,
        old: Option<&Doc>,
        a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        let Some(object) = object.filter(|_| concerned(old, a)) else { return Ok(()) };
        let mut errors = Vec::new();
        for limit in self.limits(a.namespace).iter() {
            match (a.resource, limit.r#type.as_str()) {
                ("pods", "Container" | "Pod") => check_pod(object, limit, &mut errors),
                (CLAIMS, "PersistentVolumeClaim") => check_claim(object, limit, &mut errors),
                _ => {}
            }
        }
        match errors.as_slice() {
            [] => Ok(()),
            [one] => Err(a.forbidden(Some(object), one)),
            many => Err(a.forbidden(Some(object), format!("[{}]", many.join(", ")))),
        }
    }
}

/// Sets what containers leave open, and notes it.
fn complete(pod: &mut Doc, limit: &Limit, notes: &mut Vec<String>) {
    let Some(spec) = pod.get_mut(&[c::pod::SPEC]).and_then(Value::as_struct_mut) else { return };
    for (list, label) in
        [(c::pod_spec::CONTAINERS, "container"), (c::pod_spec::INIT_CONTAINERS, "init container")]
    {
        let Some(list) = spec.get_mut(list).and_then(Value::as_list_mut) else { continue };
        for container in list.iter_mut().filter_map(Value::as_struct_mut) {
            let name = container.str(c::container::NAME).to_owned();
            for (field, defaults, what) in [
                (c::resource_requirements::REQUESTS, &limit.default_request, "request"),
                (c::resource_requirements::LIMITS, &limit.default, "limit"),
            ] {
                let set = fill(container, field, defaults);
                if !set.is_empty() {
                    notes.push(format!("{} {what} for {label} {name}", set.join(", ")));
                }
            }
        }
    }
}

fn fill(container: &mut Struct, field: Field, defaults: &Texts) -> Vec<String> {
    if defaults.is_empty() {
        return Vec::new();
    }
    if container.child(c::container::RESOURCES).is_none() {
        container.set(c::container::RESOURCES, Struct::new(t::RESOURCE_REQUIREMENTS));
    }
    let Some(resources) = container.child_mut(c::container::RESOURCES) else { return Vec::new() };
    let mut map = resources.map(field).cloned().unwrap_or_default();
    let missing: Vec<(&String, &String)> =
        defaults.iter().filter(|(name, _)| !map.contains_key(name)).collect();
    let mut set = Vec::new();
    for (name, amount) in missing {
        map.insert(name.as_str(), amount.as_str());
        set.push(name.clone());
    }
    if !set.is_empty() {
        resources.set(field, map);
    }
    set
}

fn check_pod(pod: &Doc, limit: &Limit, errors: &mut Vec<String>) {
    let Some(spec) = pod.get(&[c::pod::SPEC]).and_then(Value::as_struct) else { return };
    if limit.r#type == "Pod" {
        return check(limit, &pod_total(spec), errors);
    }
    for field in [c::pod_spec::CONTAINERS, c::pod_spec::INIT_CONTAINERS] {
        for container in structs(spec.list(field)) {
            check(limit, &resources(container, c::container::RESOURCES), errors);
        }
    }
}

fn check(limit: &Limit, asked: &Resources, errors: &mut Vec<String>) {
    let kind = &limit.r#type;
    for (name, min) in amounts(&limit.min) {
        let (request, most) = (asked.requests.get(name), asked.limits.get(name));
        match (request, most) {
            (None, _) => {
                errors.push(format!("minimum {name} usage per {kind} is {min}.  No request is specified"))
            }
            (Some(request), _) if *request < min => {
                errors.push(format!("minimum {name} usage per {kind} is {min}, but request is {request}"));
            }
            (_, Some(most)) if *most < min => {
                errors.push(format!("minimum {name} usage per {kind} is {min}, but limit is {most}"));
            }
            _ => {}
        }
    }
    for (name, max) in amounts(&limit.max) {
        let (request, most) = (asked.requests.get(name), asked.limits.get(name));
        match (request, most) {
            (_, None) => {
                errors.push(format!("maximum {name} usage per {kind} is {max}.  No limit is specified"))
            }
            (_, Some(most)) if *most > max => {
                errors.push(format!("maximum {name} usage per {kind} is {max}, but limit is {most}"));
            }
            (Some(request), _) if *request > max => {
                errors.push(format!("maximum {name} usage per {kind} is {max}, but request is {request}"));
            }
            _ => {}
        }
    }
    for (name, ratio) in amounts(&limit.max_limit_request_ratio) {
        let given = |amounts: &Amounts| amounts.get(name).copied().filter(|q| !q.is_zero());
        let text = format!("{name} max limit to request ratio per {kind} is {ratio}");
        match (given(&asked.requests), given(&asked.limits)) {
            (None, _) => errors.push(format!("{text}, but no request is specified or request is 0")),
            (_, None) => errors.push(format!("{text}, but no limit is specified or limit is 0")),
            (Some(request), Some(most)) => {
                let observed = most.as_f64() / request.as_f64();
                if observed > ratio.as_f64() {
                    errors.push(format!("{text}, but provided ratio is {observed:.6}"));
                }
            }
        }
    }
}

fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = to.get(name).map_or(*amount, |known| known.plus(*amount));
        to.insert(name.clone(), sum);
    }
}

fn raise(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        if to.get(name).is_none_or(|known| amount > known) {
            to.insert(name.clone(), *amount);
        }
    }
}

/// What a pod asks for as a whole: containers and sidecars together, or the greediest init container.
fn pod_total(spec: &Struct) -> Resources {
    let (mut total, mut sidecars, mut init) =
        (Resources::default(), Resources::default(), Resources::default());
    for container in structs(spec.list(c::pod_spec::CONTAINERS)) {
        let own = resources(container, c::container::RESOURCES);
        add(&mut total.requests, &own.requests);
        add(&mut total.limits, &own.limits);
    }
    for container in structs(spec.list(c::pod_spec::INIT_CONTAINERS)) {
        let mut own = resources(container, c::container::RESOURCES);
        if container.str(c::container::RESTART_POLICY) == "Always" {
            add(&mut total.requests, &own.requests);
            add(&mut total.limits, &own.limits);
            add(&mut sidecars.requests, &own.requests);
            add(&mut sidecars.limits, &own.limits);
            own = sidecars.clone();
        } else {
            add(&mut own.requests, &sidecars.requests);
            add(&mut own.limits, &sidecars.limits);
        }
        raise(&mut init.requests, &own.requests);
        raise(&mut init.limits, &own.limits);
    }
    raise(&mut total.requests, &init.requests);
    raise(&mut total.limits, &init.limits);
    let whole = resources(spec, c::pod_spec::RESOURCES);
    let pod_level = |name: &str| name == "cpu" || name == "memory";
    total.requests.extend(whole.requests.into_iter().filter(|(name, _)| pod_level(name)));
    total.limits.extend(whole.limits.into_iter().filter(|(name, _)| pod_level(name)));
    total
}

fn check_claim(claim: &Doc, limit: &Limit, errors: &mut Vec<String>) {
    let path = [
        c::persistent_volume_claim::SPEC,
        c::persistent_volume_claim_spec::RESOURCES,
        c::volume_resource_requirements::REQUESTS,
    ];
    let requests = amounts_of(claim.map(&path));
    let kind = &limit.r#type;
    for (name, max) in amounts(&limit.max) {
        match requests.get(name) {
            None => {
                errors.push(format!("maximum {name} usage per {kind} is {max}.  No request is specified"))
            }
            Some(request) if *request > max => {
                errors.push(format!("maximum {name} usage per {kind} is {max}, but request is {request}"));
            }
            _ => {}
        }
    }
    let only_min = Limit { r#type: kind.clone(), min: limit.min.clone(), ..Limit::default() };
    check(&only_min, &Resources { requests, limits: Amounts::new() }, errors);
}
