//! Metrics and scaling rules of autoscalers.

use crate::doc::{Struct, Value};
use crate::f::autoscaling_v2 as a2;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::quantity::Quantity;
use crate::schema::Field;
use crate::types::core::resources;
use crate::types::core::security::optional_one_of;
use crate::types::meta::NEGATIVE;
use crate::types::walk::{present, structs};

use a2::metric_spec as m;
use a2::metric_target as t;

/// What an autoscaler looks at: `group/version`, kind and name. The core group has nothing to scale, so a group is asked for
/// where `with_group` says so; with `None` the version is not looked at.
pub(super) fn reference(
    api_version: &str,
    kind: &str,
    name: &str,
    with_group: Option<bool>,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    for (field, value) in [("kind", kind), ("name", name)] {
        if value.is_empty() {
            errors.required(&path.child(field), "");
        } else {
            errors.invalid_each(&path.child(field), value, names::path_segment(value));
        }
    }
    let Some(with_group) = with_group else { return };
    let at = path.child("apiVersion");
    if api_version.matches('/').count() > 1 {
        errors.invalid(&at, api_version, format!("unexpected GroupVersion string: {api_version}"));
    } else if with_group && !api_version.split_once('/').is_some_and(|(group, _)| !group.is_empty()) {
        errors.invalid(&at, api_version, "apiVersion must specify API group");
    }
}

fn described(source: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use a2::cross_version_object_reference as r;
    let object = source.child(a2::object_metric_source::DESCRIBED_OBJECT);
    let get = |field: Field| object.map_or("", |object| object.str(field));
    let at = path.child("describedObject");
    // Metrics may be of objects of the core group.
    reference(get(r::API_VERSION), get(r::KIND), get(r::NAME), Some(false), &at, errors);
}

fn metric_name(source: &Struct, field: Field, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let name = source.child(field).map_or("", |metric| metric.str(a2::metric_identifier::NAME));
    let at = path.child("metric");
    if name.is_empty() {
        errors.required(&at.child("name"), "must specify a metric name");
    } else {
        errors.invalid_each(&at.child("name"), name, names::path_segment(name));
    }
}

fn target(source: &Struct, field: Field, path: &FieldPath<'_>, errors: &mut ErrorList) -> [bool; 3] {
    let empty = Struct::new(crate::t::autoscaling_v2::METRIC_TARGET);
    let target = source.child(field).unwrap_or(&empty);
    let at = path.child("target");
    let kind = target.str(t::TYPE);
    if kind.is_empty() {
        errors.required(&at.child("type"), "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        errors.invalid(&at.child("type"), kind, "must be either Utilization, Value, or AverageValue");
    }
    for field in [t::VALUE, t::AVERAGE_VALUE] {
        let amount = target.get(field).and_then(Value::as_str).and_then(|text| Quantity::parse(text).ok());
        if let Some(amount) = amount.filter(|amount| amount.sign() <= 0) {
            errors.invalid(&at.child(field.def().json), amount.to_string(), "must be positive");
        }
    }
    if let Some(percent) = target.int(t::AVERAGE_UTILIZATION).filter(|percent| *percent < 1) {
        errors.invalid(&at.child("averageUtilization"), percent, "must be greater than 0");
    }
    [t::VALUE, t::AVERAGE_VALUE, t::AVERAGE_UTILIZATION].map(|field| present(target, field))
}

fn object(source: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use a2::object_metric_source as s;
    described(source, path, errors);
    metric_name(source, s::METRIC, path, errors);
    let [value, average, _] = target(source, s::TARGET, path, errors);
    if !value && !average {
        let text = "must set either a target value or averageValue";
        errors.required(&path.child("target").child("averageValue"), text);
    }
}

fn external(source: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use a2::external_metric_source as s;
    metric_name(source, s::METRIC, path, errors);
    let at = path.child("target");
    match target(source, s::TARGET, path, errors) {
        [false, false, _] => {
            let text = "must set either a target value for metric or a per-pod target";
            errors.required(&at.child("averageValue"), text);
        }
        [true, true, _] => {
            let text = "may not set both a target value for metric and a per-pod target";
            errors.forbidden(&at.child("value"), text);
        }
        _ => {}
    }
}

fn pods(source: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use a2::pods_metric_source as s;
    metric_name(source, s::METRIC, path, errors);
    let [_, average, _] = target(source, s::TARGET, path, errors);
    if !average {
        let text = "must specify a positive target averageValue";
        errors.required(&path.child("target").child("averageValue"), text);
    }
}

fn raw_or_utilization(set: [bool; 3], path: &FieldPath<'_>, errors: &mut ErrorList) {
    let at = path.child("target");
    match set {
        [_, false, false] => {
            let text = "must set either a target raw value or a target utilization";
            errors.required(&at.child("averageUtilization"), text);
        }
        [_, true, true] => {
            let text = "may not set both a target raw value and a target utilization";
            errors.forbidden(&at.child("averageValue"), text);
        }
        _ => {}
    }
}

fn resource(source: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use a2::resource_metric_source as s;
    if source.str(s::NAME).is_empty() {
        errors.required(&path.child("name"), "must specify a resource name");
    }
    let set = target(source, s::TARGET, path, errors);
    raw_or_utilization(set, path, errors);
}

fn container_resource(source: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use a2::container_resource_metric_source as s;
    let (name, container) = (source.str(s::NAME), source.str(s::CONTAINER));
    if name.is_empty() {
        errors.required(&path.child("name"), "must specify a resource name");
    } else {
        resources::validate_container_name(name, &path.child("name"), errors);
    }
    if container.is_empty() {
        errors.required(&path.child("container"), "must specify a container");
    } else {
        errors.invalid_each(&path.child("container"), container, names::dns1123_label(container));
    }
    let set = target(source, s::TARGET, path, errors);
    raw_or_utilization(set, path, errors);
}

type Check = fn(&Struct, &FieldPath<'_>, &mut ErrorList);

/// Sources in the order upstream looks at them, with the type that each is of.
const SOURCES: [(Field, &str, Check); 5] = [
    (m::OBJECT, "Object", object),
    (m::EXTERNAL, "External", external),
    (m::PODS, "Pods", pods),
    (m::RESOURCE, "Resource", resource),
    (m::CONTAINER_RESOURCE, "ContainerResource", container_resource),
];

/// One metric: the source its type says, and no other.
pub(super) fn metric(metric: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
    let kind = metric.str(m::TYPE);
    let at = path.child("type");
    if kind.is_empty() {
        errors.required(&at, "must specify a metric source type");
    }
    if !TYPES.contains(&kind) {
        // As upstream, once for the type and once for its source.
        errors.not_supported(&at, kind, &TYPES);
        errors.not_supported(&at, kind, &TYPES);
    }
    let there: Vec<&(Field, &str, Check)> =
        SOURCES.iter().filter(|(field, ..)| present(metric, *field)).collect();
    if let Some((field, _, check)) = there.first()
        && let Some(source) = metric.child(*field)
    {
        check(source, &path.child(field.def().json), errors);
    }
    for (field, name, _) in SOURCES {
        if name == kind && !present(metric, field) {
            let text = "must populate information for the given metric source";
            errors.required(&path.child(field.def().json), text);
        }
    }
    if there.len() != 1 {
        for (field, name, _) in there {
            if *name != kind {
                errors.forbidden(&path.child(field.def().json), "must populate the given metric source only");
            }
        }
    }
}

/// `behavior.scaleUp` and `behavior.scaleDown`.
pub(super) fn rules(rules: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use a2::hpa_scaling_policy as sp;
    use a2::hpa_scaling_rules as sr;
    if let Some(window) = rules.int(sr::STABILIZATION_WINDOW_SECONDS) {
        let at = path.child("stabilizationWindowSeconds");
        if window < 0 {
            errors.invalid(&at, window, "must be greater than or equal to zero");
        } else if window > 3600 {
            errors.invalid(&at, window, "must be less than or equal to 3600");
        }
    }
    optional_one_of(rules, sr::SELECT_POLICY, &["Disabled", "Max", "Min"], path, errors);
    let policies = path.child("policies");
    if rules.list(sr::POLICIES).is_empty() {
        errors.required(&policies, "must specify at least one Policy");
    }
    for (i, policy) in structs(rules, sr::POLICIES) {
        let at = policies.index(i);
        let kind = policy.str(sp::TYPE);
        if !matches!(kind, "Pods" | "Percent") {
            errors.not_supported(&at.child("type"), kind, &["Percent", "Pods"]);
        }
        for field in [sp::VALUE, sp::PERIOD_SECONDS] {
            let value = policy.int(field).unwrap_or(0);
            if value <= 0 {
                errors.invalid(&at.child(field.def().json), value, "must be greater than zero");
            }
        }
        let period = policy.int(sp::PERIOD_SECONDS).unwrap_or(0);
        if period > 1800 {
            errors.invalid(&at.child("periodSeconds"), period, "must be less than or equal to 1800");
        }
    }
    let tolerance =
        rules.get(sr::TOLERANCE).and_then(Value::as_str).and_then(|text| Quantity::parse(text).ok());
    if let Some(tolerance) = tolerance.filter(|tolerance| tolerance.sign() < 0) {
        errors.invalid(&path.child("tolerance"), tolerance.to_string(), NEGATIVE);
    }
}
