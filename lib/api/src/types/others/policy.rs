//! Disruption budgets and autoscalers.

use super::autoscaling;
use crate::doc::{Doc, Struct, Value};
use crate::f::autoscaling_v1 as a1;
use crate::f::autoscaling_v2 as a2;
use crate::f::policy_v1 as p;
use crate::field_errors::{ErrorList, FieldPath};
use crate::schema::Field;
use crate::types::core::scheduling;
use crate::types::core::security::optional_one_of;
use crate::types::walk::{
    at_most_100_percent, child_entry, default_value, int_or_percent, json_text, non_negative, present,
    structs,
};
use crate::types::{GenerationRule, Strategy, columns};

const SPEC: FieldPath<'static> = FieldPath::new("spec");

pub static BUDGET: Strategy = Strategy {
    name_rule: |_, _| Vec::new(),
    validate_create: |doc, _, errors| budget(doc, errors),
    validate_update: |new, _, _, errors| budget(new, errors),
    validate_status_update: |new, _, _, errors| {
        use p::pod_disruption_budget_status as st;
        let Some(status) = new.root().and_then(|root| root.child(p::pod_disruption_budget::STATUS)) else {
            return;
        };
        let fields = [st::DISRUPTIONS_ALLOWED, st::CURRENT_HEALTHY, st::DESIRED_HEALTHY, st::EXPECTED_PODS];
        non_negative(status, &fields, &FieldPath::new("status"), errors);
    },
    generation: GenerationRule::Spec,
    allow_unconditional_update: false,
    columns: &columns::others::BUDGET,
    ..Strategy::BASE
};

fn budget(doc: &Doc, errors: &mut ErrorList) {
    use p::pod_disruption_budget_spec as s;
    let Some(spec) = doc.root().and_then(|root| root.child(p::pod_disruption_budget::SPEC)) else { return };
    if present(spec, s::MIN_AVAILABLE) && present(spec, s::MAX_UNAVAILABLE) {
        let value = json_text(Some(&Value::Struct(spec.clone())));
        errors.invalid(&SPEC, value, "minAvailable and maxUnavailable cannot be both set");
    }
    for field in [s::MIN_AVAILABLE, s::MAX_UNAVAILABLE] {
        let at = SPEC.child(field.def().json);
        int_or_percent(spec.get(field), &at, errors);
        at_most_100_percent(spec.get(field), &at, errors);
    }
    scheduling::validate_label_selector(spec.child(s::SELECTOR), &SPEC.child("selector"), errors);
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    optional_one_of(spec, s::UNHEALTHY_POD_EVICTION_POLICY, &policies, &SPEC, errors);
}

pub static AUTOSCALER: Strategy = Strategy {
    defaults: autoscaler_defaults,
    validate_create: |doc, _, errors| autoscaler(doc, true, errors),
    validate_update: |new, old, _, errors| {
        use a2::cross_version_object_reference as r;
        let target =
            [a2::horizontal_pod_autoscaler::SPEC, a2::horizontal_pod_autoscaler_spec::SCALE_TARGET_REF];
        let kind = |doc: &Doc| {
            [r::API_VERSION, r::KIND].map(|field| doc.str(&[target[0], target[1], field]).to_owned())
        };
        autoscaler(new, kind(new) != kind(old), errors);
    },
    columns: &columns::others::AUTOSCALER,
    ..Strategy::BASE
};

/// Autoscalers as autoscaling/v1 has them.
pub static AUTOSCALER_V1: Strategy = Strategy {
    defaults: |doc| {
        use a1::horizontal_pod_autoscaler as h;
        if let Some(spec) = doc.root_mut().and_then(|root| child_entry(root, h::SPEC)) {
            default_value(spec, a1::horizontal_pod_autoscaler_spec::MIN_REPLICAS, 1);
        }
    },
    validate_create: |doc, _, errors| autoscaler_v1(doc, true, errors),
    validate_update: |new, old, _, errors| {
        use a1::cross_version_object_reference as r;
        let target =
            [a1::horizontal_pod_autoscaler::SPEC, a1::horizontal_pod_autoscaler_spec::SCALE_TARGET_REF];
        let kind = |doc: &Doc| {
            [r::API_VERSION, r::KIND].map(|field| doc.str(&[target[0], target[1], field]).to_owned())
        };
        autoscaler_v1(new, kind(new) != kind(old), errors);
    },
    columns: &columns::others::AUTOSCALER_V1,
    ..Strategy::BASE
};

fn autoscaler_defaults(doc: &mut Doc) {
    use crate::t::autoscaling_v2 as t;
    use a2::horizontal_pod_autoscaler_spec as s;
    let Some(spec) = doc.root_mut().and_then(|root| child_entry(root, a2::horizontal_pod_autoscaler::SPEC))
    else {
        return;
    };
    default_value(spec, s::MIN_REPLICAS, 1);
    if spec.list(s::METRICS).is_empty() {
        let mut target = Struct::new(t::METRIC_TARGET);
        target.set(a2::metric_target::TYPE, "Utilization");
        target.set(a2::metric_target::AVERAGE_UTILIZATION, 80);
        let mut resource = Struct::new(t::RESOURCE_METRIC_SOURCE);
        resource.set(a2::resource_metric_source::NAME, "cpu");
        resource.set(a2::resource_metric_source::TARGET, target);
        let mut metric = Struct::new(t::METRIC_SPEC);
        metric.set(a2::metric_spec::TYPE, "Resource");
        metric.set(a2::metric_spec::RESOURCE, resource);
        spec.set(s::METRICS, vec![Value::Struct(metric)]);
    }
    let Some(behavior) = spec.child_mut(s::BEHAVIOR) else { return };
    if let Some(up) = child_entry(behavior, a2::horizontal_pod_autoscaler_behavior::SCALE_UP) {
        scaling_rules(up, Some(0), &[("Pods", 4, 15), ("Percent", 100, 15)]);
    }
    if let Some(down) = child_entry(behavior, a2::horizontal_pod_autoscaler_behavior::SCALE_DOWN) {
        scaling_rules(down, None, &[("Percent", 100, 15)]);
    }
}

fn scaling_rules(rules: &mut Struct, window: Option<i64>, policies: &[(&str, i64, i64)]) {
    use a2::hpa_scaling_policy as sp;
    use a2::hpa_scaling_rules as sr;
    if let Some(window) = window {
        default_value(rules, sr::STABILIZATION_WINDOW_SECONDS, window);
    }
    default_value(rules, sr::SELECT_POLICY, "Max");
    if !present(rules, sr::POLICIES) {
        let list: Vec<Value> = policies
            .iter()
            .map(|(kind, value, period)| {
                let mut policy = Struct::new(crate::t::autoscaling_v2::HPA_SCALING_POLICY);
                policy.set(sp::TYPE, *kind);
                policy.set(sp::VALUE, *value);
                policy.set(sp::PERIOD_SECONDS, *period);
                Value::Struct(policy)
            })
            .collect();
        rules.set(sr::POLICIES, list);
    }
}

fn replicas(spec: &Struct, min: Field, max: Field, errors: &mut ErrorList) {
    let (min, max) = (spec.int(min), spec.int(max).unwrap_or(0));
    if let Some(min) = min.filter(|min| *min < 1) {
        errors.invalid(&SPEC.child("minReplicas"), min, "must be greater than or equal to 1");
    }
    let at = SPEC.child("maxReplicas");
    if max < 1 {
        errors.invalid(&at, max, "must be greater than 0");
    }
    if min.is_some_and(|min| max < min) {
        errors.invalid(&at, max, "must be greater than or equal to `minReplicas`");
    }
}

fn autoscaler_v1(doc: &Doc, with_version: bool, errors: &mut ErrorList) {
    use a1::cross_version_object_reference as r;
    use a1::horizontal_pod_autoscaler_spec as s;
    let empty = Struct::new(crate::t::autoscaling_v1::HORIZONTAL_POD_AUTOSCALER_SPEC);
    let spec = doc.root().and_then(|root| root.child(a1::horizontal_pod_autoscaler::SPEC)).unwrap_or(&empty);
    replicas(spec, s::MIN_REPLICAS, s::MAX_REPLICAS, errors);
    let target = spec.child(s::SCALE_TARGET_REF);
    let get = |field: Field| target.map_or("", |target| target.str(field));
    let at = SPEC.child("scaleTargetRef");
    // The one type of the core group that scales.
    let with_group = with_version.then(|| get(r::KIND) != "ReplicationController");
    autoscaling::reference(get(r::API_VERSION), get(r::KIND), get(r::NAME), with_group, &at, errors);
}

fn autoscaler(doc: &Doc, with_version: bool, errors: &mut ErrorList) {
    use a2::cross_version_object_reference as r;
    use a2::horizontal_pod_autoscaler_spec as s;
    let empty = Struct::new(crate::t::autoscaling_v2::HORIZONTAL_POD_AUTOSCALER_SPEC);
    let spec = doc.root().and_then(|root| root.child(a2::horizontal_pod_autoscaler::SPEC)).unwrap_or(&empty);
    replicas(spec, s::MIN_REPLICAS, s::MAX_REPLICAS, errors);
    let target = spec.child(s::SCALE_TARGET_REF);
    let get = |field: Field| target.map_or("", |target| target.str(field));
    let at = SPEC.child("scaleTargetRef");
    // The one type of the core group that scales.
    let with_group = with_version.then(|| get(r::KIND) != "ReplicationController");
    autoscaling::reference(get(r::API_VERSION), get(r::KIND), get(r::NAME), with_group, &at, errors);
    let metrics = SPEC.child("metrics");
    for (i, metric) in structs(spec, s::METRICS) {
        autoscaling::metric(metric, &metrics.index(i), errors);
    }
    let outside = |metric: &Struct| matches!(metric.str(a2::metric_spec::TYPE), "Object" | "External");
    if spec.int(s::MIN_REPLICAS) == Some(0) && !structs(spec, s::METRICS).any(|(_, metric)| outside(metric)) {
        let text = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.forbidden(&metrics, text);
    }
    let Some(behavior) = spec.child(s::BEHAVIOR) else { return };
    let at = SPEC.child("behavior");
    use a2::horizontal_pod_autoscaler_behavior as b;
    for field in [b::SCALE_UP, b::SCALE_DOWN] {
        if let Some(rules) = behavior.child(field) {
            autoscaling::rules(rules, &at.child(field.def().json), errors);
        }
    }
}
