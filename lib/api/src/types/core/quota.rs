//! LimitRanges and ResourceQuotas.

use std::collections::{BTreeMap, BTreeSet};

use crate::doc::{Doc, Struct};
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::quantity::Quantity;
use crate::schema::Field;
use crate::types::core::container::string_list;
use crate::types::core::pod_defaults::round_up;
use crate::types::core::resources;
use crate::types::walk::{strs, structs, structs_mut};
use crate::types::{Strategy, columns};

const SPEC: FieldPath<'static> = FieldPath::new("spec");

/// LimitRanges.
pub static LIMIT_RANGE: Strategy = Strategy {
    defaults: |doc| {
        let Some(spec) = doc.root_mut().and_then(|root| root.child_mut(c::limit_range::SPEC)) else { return };
        for item in structs_mut(spec, c::limit_range_spec::LIMITS) {
            item_defaults(item);
            use c::limit_range_item as li;
            for list in [li::MAX, li::MIN, li::DEFAULT, li::DEFAULT_REQUEST, li::MAX_LIMIT_REQUEST_RATIO] {
                round_up(item, list);
            }
        }
    },
    // One without a name gets one, as upstream gives it.
    prepare_create: |doc, _| {
        if doc.meta().name().is_empty() {
            let name = doc.meta().uid().to_owned();
            doc.meta_mut().set_name(&name);
        }
    },
    validate_create: |doc, _, errors| limit_range(doc, errors),
    validate_update: |new, _, _, errors| limit_range(new, errors),
    allow_create_on_update: true,
    columns: &columns::DEFAULT,
    ..Strategy::BASE
};

/// ResourceQuotas.
pub static RESOURCE_QUOTA: Strategy = Strategy {
    defaults: |doc| {
        let Some(root) = doc.root_mut() else { return };
        if let Some(spec) = root.child_mut(c::resource_quota::SPEC) {
            round_up(spec, c::resource_quota_spec::HARD);
        }
        if let Some(status) = root.child_mut(c::resource_quota::STATUS) {
            round_up(status, c::resource_quota_status::HARD);
            round_up(status, c::resource_quota_status::USED);
        }
    },
    validate_create: |doc, _, errors| quota(doc, errors),
    validate_update: |new, old, _, errors| {
        quota(new, errors);
        let scopes = |doc: &Doc| -> BTreeSet<String> {
            let spec = doc.root().and_then(|root| root.child(c::resource_quota::SPEC));
            spec.map(|spec| strs(spec, c::resource_quota_spec::SCOPES).map(|(_, s)| s.to_owned()).collect())
                .unwrap_or_default()
        };
        if scopes(new) != scopes(old) {
            let value = crate::types::walk::json_text(
                new.get(&[c::resource_quota::SPEC, c::resource_quota_spec::SCOPES]),
            );
            errors.invalid(&SPEC.child("scopes"), value, crate::types::meta::IMMUTABLE);
        }
    },
    validate_status_update: |new, _, _, errors| {
        let Some(status) = new.root().and_then(|root| root.child(c::resource_quota::STATUS)) else { return };
        let status_path = FieldPath::new("status");
        for field in [c::resource_quota_status::HARD, c::resource_quota_status::USED] {
            amounts(status, field, &status_path, errors);
        }
    },
    columns: &columns::core::RESOURCE_QUOTA,
    ..Strategy::BASE
};

fn item_defaults(item: &mut Struct) {
    use c::limit_range_item as li;
    if item.str(li::TYPE) != "Container" {
        return;
    }
    for (from, to) in
        [(li::MAX, li::DEFAULT), (li::DEFAULT, li::DEFAULT_REQUEST), (li::MIN, li::DEFAULT_REQUEST)]
    {
        let Some(source) = item.map(from).cloned().filter(|map| !map.is_empty()) else { continue };
        if let Some(target) = item.entry_index(to.index).as_map_mut() {
            for (name, value) in source.iter() {
                if !target.contains_key(name) {
                    target.insert(name, value.clone());
                }
            }
        }
    }
}

fn limit_range(doc: &Doc, errors: &mut ErrorList) {
    use c::limit_range_item as li;
    let Some(spec) = doc.root().and_then(|root| root.child(c::limit_range::SPEC)) else { return };
    let limits = SPEC.child("limits");
    let mut seen: Vec<&str> = Vec::new();
    for (i, item) in structs(spec, c::limit_range_spec::LIMITS) {
        let at = limits.index(i);
        let kind = item.str(li::TYPE);
        let messages = names::qualified_name(kind);
        if !messages.is_empty() {
            errors.invalid_each(&at.child("type"), kind, messages);
        } else if !kind.contains('/') && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim") {
            errors.invalid(&at.child("type"), kind, "must be a standard limit type or fully qualified");
        }
        if seen.contains(&kind) {
            errors.duplicate(&at.child("type"), kind);
        }
        seen.push(kind);
        item_values(item, kind, &at, errors);
    }
}

fn item_values(item: &Struct, kind: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::limit_range_item as li;
    let mut values: BTreeMap<Field2, BTreeMap<String, Quantity>> = BTreeMap::new();
    for field in [li::MAX, li::MIN, li::DEFAULT, li::DEFAULT_REQUEST, li::MAX_LIMIT_REQUEST_RATIO] {
        let at = path.child(field.def().json);
        let pod_default = kind == "Pod" && (field == li::DEFAULT || field == li::DEFAULT_REQUEST);
        if pod_default {
            if item.map(field).is_some_and(|map| !map.is_empty()) {
                errors.forbidden(&at, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (name, amount) in resources::amounts(item.map(field)) {
            if matches!(kind, "Pod" | "Container") {
                resources::validate_container_name(name, &at.key(name), errors);
            } else {
                resources::validate_name(name, &at.key(name), errors);
            }
            values.entry(Field2(field.index)).or_default().insert(name.to_owned(), amount);
        }
    }
    let get =
        |field: Field, name: &str| values.get(&Field2(field.index)).and_then(|map| map.get(name)).copied();
    if kind == "PersistentVolumeClaim"
        && get(li::MIN, "storage").is_none()
        && get(li::MAX, "storage").is_none()
    {
        let text = "either minimum or maximum storage value is required, but neither was provided";
        errors.required(&path.child("limits"), text);
    }
    let all: BTreeSet<&String> = values.values().flat_map(BTreeMap::keys).collect();
    for name in all {
        compare(name, &get, path, errors);
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Field2(u16);

fn compare(
    name: &str,
    get: &dyn Fn(Field, &str) -> Option<Quantity>,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    use c::limit_range_item as li;
    let (min, max, default, request) =
        (get(li::MIN, name), get(li::MAX, name), get(li::DEFAULT, name), get(li::DEFAULT_REQUEST, name));
    let mut order = |low: Option<Quantity>,
                     high: Option<Quantity>,
                     field: &str,
                     shown: Option<Quantity>,
                     low_text: &str,
                     high_text: &str| {
        if let (Some(low), Some(high), Some(shown)) = (low, high, shown)
            && low > high
        {
            let text = format!("{low_text} value {low} is greater than {high_text} value {high}");
            errors.invalid(&path.child(field).key(name), shown.to_string(), text);
        }
    };
    order(min, max, "min", min, "min", "max");
    order(min, request, "defaultRequest", request, "min", "default request");
    order(request, max, "defaultRequest", request, "default request", "max");
    order(request, default, "defaultRequest", request, "default request", "default limit");
    order(min, default, "default", min, "min", "default");
    order(default, max, "default", max, "default", "max");
    if let (Some(ratio), Some(min), Some(max)) = (get(li::MAX_LIMIT_REQUEST_RATIO, name), min, max) {
        let limit = max.as_f64() / min.as_f64();
        if ratio.as_f64() > limit {
            let at = path.child("maxLimitRequestRatio");
            let text = format!("ratio {ratio} is greater than max/min = {limit:.6}");
            errors.invalid(&at.key(name), ratio.to_string(), text);
        }
    }
    if let Some(ratio) = get(li::MAX_LIMIT_REQUEST_RATIO, name)
        && ratio < Quantity::from_i64(1, crate::quantity::Format::DecimalSi)
    {
        let at = path.child("maxLimitRequestRatio");
        errors.invalid(&at.key(name), ratio.to_string(), format!("ratio {ratio} is less than 1"));
    }
}

const QUOTA_STANDARD: [&str; 14] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
    "requests.storage",
    "requests.ephemeral-storage",
];

fn amounts(s: &Struct, field: Field, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let at = path.child(field.def().json);
    for (name, amount) in resources::amounts(s.map(field)) {
        let key = at.key(name);
        resources::validate_name(name, &key, errors);
        let known = name.contains('/')
            || QUOTA_STANDARD.contains(&name)
            || matches!(
                name,
                "requests.cpu"
                    | "requests.memory"
                    | "limits.cpu"
                    | "limits.memory"
                    | "limits.ephemeral-storage"
            )
            || name.starts_with("requests.hugepages-")
            || name.starts_with("hugepages-");
        if !known {
            errors.invalid(&key, name, "must be a standard resource for quota");
        }
        resources::validate_amount(name, amount, &key, errors);
    }
}

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

fn scope_fits(scope: &str, resource: &str) -> bool {
    let pod_compute = matches!(
        resource,
        "pods"
            | "cpu"
            | "memory"
            | "ephemeral-storage"
            | "requests.cpu"
            | "requests.memory"
            | "limits.cpu"
            | "limits.memory"
            | "requests.ephemeral-storage"
            | "limits.ephemeral-storage"
    ) || resource.starts_with("hugepages-")
        || resource.starts_with("requests.hugepages-");
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => resource == "persistentvolumeclaims" || resource == "requests.storage",
        _ => pod_compute,
    }
}

fn quota(doc: &Doc, errors: &mut ErrorList) {
    use c::resource_quota_spec as rq;
    let Some(spec) = doc.root().and_then(|root| root.child(c::resource_quota::SPEC)) else { return };
    amounts(spec, rq::HARD, &SPEC, errors);
    let at = SPEC.child("scopes");
    let scopes: Vec<&str> = strs(spec, rq::SCOPES).map(|(_, scope)| scope).collect();
    let value = || string_list(spec, rq::SCOPES);
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            errors.invalid(&at, value(), "unsupported scope");
        }
        for (name, _) in resources::amounts(spec.map(rq::HARD)) {
            if !name.contains('/') && !scope_fits(scope, name) {
                errors.invalid(&at, value(), "unsupported scope applied to resource");
            }
        }
    }
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| scopes.contains(scope)) {
            errors.invalid(&at, value(), "conflicting scopes");
        }
    }
    scope_selector(spec, errors);
}

fn scope_selector(spec: &Struct, errors: &mut ErrorList) {
    use c::scoped_resource_selector_requirement as sr;
    let Some(selector) = spec.child(c::resource_quota_spec::SCOPE_SELECTOR) else { return };
    let base = SPEC.child("scopeSelector");
    let at = base.child("matchExpressions");
    for (_, requirement) in structs(selector, c::scope_selector::MATCH_EXPRESSIONS) {
        let scope = requirement.str(sr::SCOPE_NAME);
        let operator = requirement.str(sr::OPERATOR);
        let count = requirement.list(sr::VALUES).len();
        if !SCOPES.contains(&scope) {
            errors.invalid(&at.child("scopeName"), scope, "unsupported scope");
        }
        let alone =
            ["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"];
        if alone.contains(&scope) && operator != "Exists" {
            errors.invalid(
                &at.child("operator"),
                operator,
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                 ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
            );
        }
        match operator {
            "In" | "NotIn" if count == 0 => {
                let text = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.required(&at.child("values"), text);
            }
            "Exists" | "DoesNotExist" if count != 0 => {
                let text = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.invalid(&at.child("values"), string_list(requirement, sr::VALUES), text);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&at.child("operator"), other, "not a valid selector operator"),
        }
    }
}
