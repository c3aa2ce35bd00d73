//! Conversions between served versions whose fields differ: Event (core/v1 and events.k8s.io/v1), HorizontalPodAutoscaler
//! (autoscaling/v1 and v2), slices and claims of devices (resource.k8s.io/v1 and v1beta1).
//!
//! All other pairs of versions are field-identical or differ by fields one of them lacks; for those a re-decode by the
//! other schema is the conversion and [`convert`] returns `None`.

use crate::doc::{Doc, Map, Struct, Value};
use crate::f::autoscaling_v1 as a1;
use crate::f::autoscaling_v2 as a2;
use crate::f::core_v1 as c;
use crate::f::events_v1 as e;
use crate::schema::{Field, Kind, TypeId};
use crate::t;
use crate::types::walk::{child_entry, structs};
use crate::types::{convert_autoscaling, convert_resource};

/// What events.k8s.io/v1 calls otherwise, and core/v1's name of it.
const EVENT: [(Field, Field); 7] = [
    (e::event::REGARDING, c::event::INVOLVED_OBJECT),
    (e::event::NOTE, c::event::MESSAGE),
    (e::event::REPORTING_CONTROLLER, c::event::REPORTING_COMPONENT),
    (e::event::DEPRECATED_SOURCE, c::event::SOURCE),
    (e::event::DEPRECATED_FIRST_TIMESTAMP, c::event::FIRST_TIMESTAMP),
    (e::event::DEPRECATED_LAST_TIMESTAMP, c::event::LAST_TIMESTAMP),
    (e::event::DEPRECATED_COUNT, c::event::COUNT),
];

/// The labels that field selectors know in a version which names them otherwise than the storage version, with that
/// version's names; `None` where they are the same.
pub fn field_labels(ty: TypeId) -> Option<&'static [(&'static str, &'static str)]> {
    const EVENT_LABELS: &[(&str, &str)] = &[
        ("metadata.name", "metadata.name"),
        ("metadata.namespace", "metadata.namespace"),
        ("reason", "reason"),
        ("regarding.kind", "involvedObject.kind"),
        ("regarding.namespace", "involvedObject.namespace"),
        ("regarding.name", "involvedObject.name"),
        ("regarding.uid", "involvedObject.uid"),
        ("regarding.apiVersion", "involvedObject.apiVersion"),
        ("regarding.resourceVersion", "involvedObject.resourceVersion"),
        ("regarding.fieldPath", "involvedObject.fieldPath"),
        ("reportingController", "reportingComponent"),
        ("type", "type"),
    ];
    const POD_LABELS: &[(&str, &str)] = &[
        ("metadata.name", "metadata.name"),
        ("metadata.namespace", "metadata.namespace"),
        ("spec.nodeName", "spec.nodeName"),
        // The name before v1.
        ("spec.host", "spec.nodeName"),
        ("spec.restartPolicy", "spec.restartPolicy"),
        ("spec.schedulerName", "spec.schedulerName"),
        ("spec.serviceAccountName", "spec.serviceAccountName"),
        ("spec.hostNetwork", "spec.hostNetwork"),
        ("status.phase", "status.phase"),
        ("status.podIP", "status.podIP"),
        // Upstream takes this one and has no value for it.
        ("status.podIPs", "status.podIPs"),
        ("status.nominatedNodeName", "status.nominatedNodeName"),
    ];
    match ty {
        t::events_v1::EVENT => Some(EVENT_LABELS),
        t::core_v1::POD => Some(POD_LABELS),
        _ => None,
    }
}

/// The object in another version of its type; `None` where no rule of ours is needed. The result's [`Doc::gvk`] is the
/// target's first.
pub fn convert(doc: &Doc, to: TypeId) -> Option<Doc> {
    let root = doc.root()?;
    let mut out = Doc::new(to);
    let target = match (root.ty(), to) {
        (t::events_v1::EVENT, t::core_v1::EVENT) => renamed(root, to, &EVENT),
        (t::core_v1::EVENT, t::events_v1::EVENT) => {
            let back = EVENT.map(|(new, old)| (old, new));
            renamed(root, to, &back)
        }
        (t::autoscaling_v1::HORIZONTAL_POD_AUTOSCALER, t::autoscaling_v2::HORIZONTAL_POD_AUTOSCALER) => {
            let mut target = retype_struct(root, to);
            autoscaler_up(root, &mut target);
            convert_autoscaling::restore(&mut target);
            target
        }
        (t::autoscaling_v2::HORIZONTAL_POD_AUTOSCALER, t::autoscaling_v1::HORIZONTAL_POD_AUTOSCALER) => {
            let mut target = retype_struct(root, to);
            autoscaler_down(root, &mut target);
            convert_autoscaling::keep(root, &mut target);
            target
        }
        (from, to) if convert_resource::has_folds(from, to) => retype_struct(root, to),
        _ => return None,
    };
    out.root = Value::Struct(target);
    Some(out)
}

fn renamed(from: &Struct, to: TypeId, pairs: &[(Field, Field)]) -> Struct {
    let mut out = retype_struct(from, to);
    // A name both have may mean different things (`source`, `count`): renames are laid over last.
    for (old, new) in pairs {
        match from.get(*old) {
            Some(value) => {
                out.set(*new, retype(value, new.def().kind));
            }
            None => {
                out.remove(*new);
            }
        }
    }
    out
}

/// The struct as another version has it, below as well.
pub(super) fn retype_struct(from: &Struct, to: TypeId) -> Struct {
    convert_resource::folded(from, to).unwrap_or_else(|| retype_same(from, to))
}

/// The fields of equal JSON names.
pub(super) fn retype_same(from: &Struct, to: TypeId) -> Struct {
    let (source, target) = (from.ty().def(), to.def());
    let mut out = Struct::new(to);
    for (index, value) in from.iter() {
        let name = source.fields[index as usize].json;
        if let Some(at) = target.field_index(name) {
            out.set_index(at, retype(value, target.fields[at as usize].kind));
        }
    }
    out
}

/// A value as another kind of the same shape.
pub(super) fn retype(value: &Value, kind: Kind) -> Value {
    match (value, kind) {
        (Value::Struct(from), Kind::Struct(to)) if from.ty() != to => Value::Struct(retype_struct(from, to)),
        (Value::List(items), Kind::List(of)) => {
            Value::List(items.iter().map(|item| retype(item, *of)).collect())
        }
        (Value::Map(map), Kind::Map(of)) => {
            let pairs: Map = map.iter().map(|(key, value)| (key, retype(value, *of))).collect();
            Value::Map(pairs)
        }
        (other, _) => other.clone(),
    }
}

/// The CPU target of autoscaling/v1 is a metric in v2.
fn autoscaler_up(from: &Struct, to: &mut Struct) {
    let wanted = from
        .child(a1::horizontal_pod_autoscaler::SPEC)
        .and_then(|spec| spec.int(a1::horizontal_pod_autoscaler_spec::TARGET_CPU_UTILIZATION_PERCENTAGE));
    if let Some(percent) = wanted
        && let Some(spec) = child_entry(to, a2::horizontal_pod_autoscaler::SPEC)
    {
        let mut target = Struct::new(t::autoscaling_v2::METRIC_TARGET);
        target.set(a2::metric_target::TYPE, "Utilization");
        target.set(a2::metric_target::AVERAGE_UTILIZATION, percent);
        let mut source = Struct::new(t::autoscaling_v2::RESOURCE_METRIC_SOURCE);
        source.set(a2::resource_metric_source::NAME, "cpu");
        source.set(a2::resource_metric_source::TARGET, target);
        let mut metric = Struct::new(t::autoscaling_v2::METRIC_SPEC);
        metric.set(a2::metric_spec::TYPE, "Resource");
        metric.set(a2::metric_spec::RESOURCE, source);
        spec.set(a2::horizontal_pod_autoscaler_spec::METRICS, vec![Value::Struct(metric)]);
    }
    let current = from.child(a1::horizontal_pod_autoscaler::STATUS).and_then(|status| {
        status.int(a1::horizontal_pod_autoscaler_status::CURRENT_CPU_UTILIZATION_PERCENTAGE)
    });
    if let Some(percent) = current
        && let Some(status) = child_entry(to, a2::horizontal_pod_autoscaler::STATUS)
    {
        let mut value = Struct::new(t::autoscaling_v2::METRIC_VALUE_STATUS);
        value.set(a2::metric_value_status::AVERAGE_UTILIZATION, percent);
        let mut source = Struct::new(t::autoscaling_v2::RESOURCE_METRIC_STATUS);
        source.set(a2::resource_metric_status::NAME, "cpu");
        source.set(a2::resource_metric_status::CURRENT, value);
        let mut metric = Struct::new(t::autoscaling_v2::METRIC_STATUS);
        metric.set(a2::metric_status::TYPE, "Resource");
        metric.set(a2::metric_status::RESOURCE, source);
        status.set(a2::horizontal_pod_autoscaler_status::CURRENT_METRICS, vec![Value::Struct(metric)]);
    }
}

/// The first CPU utilisation metric of v2 is the target of autoscaling/v1. Other metrics, behaviour and conditions have
/// no place there: `convert_autoscaling` keeps them in annotations.
fn autoscaler_down(from: &Struct, to: &mut Struct) {
    use a2::horizontal_pod_autoscaler as h;
    let wanted = from.child(h::SPEC).and_then(|spec| {
        structs(spec, a2::horizontal_pod_autoscaler_spec::METRICS)
            .filter_map(|(_, metric)| metric.child(a2::metric_spec::RESOURCE))
            .filter(|source| source.str(a2::resource_metric_source::NAME) == "cpu")
            .find_map(|source| {
                source.child(a2::resource_metric_source::TARGET)?.int(a2::metric_target::AVERAGE_UTILIZATION)
            })
    });
    if let Some(percent) = wanted
        && let Some(spec) = child_entry(to, a1::horizontal_pod_autoscaler::SPEC)
    {
        spec.set(a1::horizontal_pod_autoscaler_spec::TARGET_CPU_UTILIZATION_PERCENTAGE, percent);
    }
    let current = from.child(h::STATUS).and_then(|status| {
        structs(status, a2::horizontal_pod_autoscaler_status::CURRENT_METRICS)
            .filter_map(|(_, metric)| metric.child(a2::metric_status::RESOURCE))
            .filter(|source| source.str(a2::resource_metric_status::NAME) == "cpu")
            .find_map(|source| {
                source
                    .child(a2::resource_metric_status::CURRENT)?
                    .int(a2::metric_value_status::AVERAGE_UTILIZATION)
            })
    });
    if let Some(percent) = current
        && let Some(status) = child_entry(to, a1::horizontal_pod_autoscaler::STATUS)
    {
        status.set(a1::horizontal_pod_autoscaler_status::CURRENT_CPU_UTILIZATION_PERCENTAGE, percent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{EncodeOptions, FieldValidation, decode, encode_canonical};

    fn through(json: &str, from: TypeId, to: TypeId) -> (String, String) {
        let (doc, _) = decode(from, json.as_bytes(), FieldValidation::Strict).unwrap();
        let text = |doc: &Doc| {
            let mut out = Vec::new();
            encode_canonical(doc, EncodeOptions::STORED, &mut out);
            String::from_utf8(out).unwrap()
        };
        let there = convert(&doc, to).unwrap();
        let mut back = convert(&there, from).unwrap();
        // Upstream keeps the raw metrics of a status there even where v1 has a field for them.
        if from == t::autoscaling_v1::HORIZONTAL_POD_AUTOSCALER {
            back.meta_mut().remove_annotation("autoscaling.alpha.kubernetes.io/current-metrics");
        }
        assert_eq!(text(&back), text(&doc), "there and back");
        (text(&doc), text(&there))
    }

    #[test]
    fn events_change_their_names() {
        let (_, there) = through(
            r#"{"apiVersion":"events.k8s.io/v1","kind":"Event","metadata":{"name":"a"},"eventTime":"2026-01-01T00:00:00.000000Z",
               "series":{"count":2,"lastObservedTime":"2026-01-01T00:00:00.000000Z"},"reportingController":"x/y",
               "reportingInstance":"i","action":"A","reason":"R","regarding":{"kind":"Pod","name":"p"},"note":"N",
               "type":"Normal","deprecatedSource":{"component":"c"},"deprecatedCount":3}"#,
            t::events_v1::EVENT,
            t::core_v1::EVENT,
        );
        for part in [
            r#""involvedObject":{"kind":"Pod","name":"p"}"#,
            r#""message":"N""#,
            r#""reportingComponent":"x/y""#,
            r#""source":{"component":"c"}"#,
            r#""count":3"#,
            r#""series":{"count":2"#,
        ] {
            assert!(there.contains(part), "{part} in {there}");
        }
    }

    #[test]
    fn autoscalers_keep_their_cpu_target() {
        let (_, there) = through(
            r#"{"apiVersion":"autoscaling/v1","kind":"HorizontalPodAutoscaler","metadata":{"name":"a"},"spec":{
               "scaleTargetRef":{"kind":"Deployment","name":"d","apiVersion":"apps/v1"},"minReplicas":1,"maxReplicas":3,
               "targetCPUUtilizationPercentage":50},"status":{"currentReplicas":1,"desiredReplicas":1,
               "currentCPUUtilizationPercentage":7}}"#,
            t::autoscaling_v1::HORIZONTAL_POD_AUTOSCALER,
            t::autoscaling_v2::HORIZONTAL_POD_AUTOSCALER,
        );
        assert!(there.contains(
            r#""metrics":[{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":50}}}]"#
        ));
    }

    #[test]
    fn autoscalers_keep_what_v1_has_no_field_for() {
        let (_, there) = through(
            r#"{"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","metadata":{"name":"a","annotations":{"x":"y"}},
               "spec":{"scaleTargetRef":{"kind":"Deployment","name":"d","apiVersion":"apps/v1"},"minReplicas":1,"maxReplicas":3,
               "metrics":[{"type":"Pods","pods":{"metric":{"name":"hits","selector":{"matchLabels":{"a":"b"}}},
               "target":{"type":"AverageValue","averageValue":"100m"}}},
               {"type":"Object","object":{"describedObject":{"kind":"Service","name":"s","apiVersion":"v1"},
               "target":{"type":"AverageValue","averageValue":"3"},"metric":{"name":"o"}}},
               {"type":"External","external":{"metric":{"name":"q"},"target":{"type":"Value","value":"30"}}},
               {"type":"ContainerResource","containerResource":{"name":"memory","target":{"type":"Utilization",
               "averageUtilization":60},"container":"c"}},
               {"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":50}}}],
               "behavior":{"scaleUp":{"stabilizationWindowSeconds":0,"selectPolicy":"Max","policies":[{"type":"Pods","value":4,
               "periodSeconds":15}]}}},"status":{"currentReplicas":1,"desiredReplicas":1,"currentMetrics":[{"type":"Resource",
               "resource":{"name":"cpu","current":{"averageValue":"10m","averageUtilization":7}}}],"conditions":[
               {"type":"AbleToScale","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"R","message":"M"}]}}"#,
            t::autoscaling_v2::HORIZONTAL_POD_AUTOSCALER,
            t::autoscaling_v1::HORIZONTAL_POD_AUTOSCALER,
        );
        for part in [
            r#""targetCPUUtilizationPercentage":50"#,
            r#"\"metricName\":\"hits\""#,
            r#"\"targetAverageUtilization\":60"#,
            r#"\"StabilizationWindowSeconds\":0"#,
            r#"\"currentAverageUtilization\":7"#,
            r#""autoscaling.alpha.kubernetes.io/conditions""#,
            r#""x":"y""#,
        ] {
            assert!(there.contains(part), "{part} in {there}");
        }
    }

    #[test]
    fn other_types_need_no_rule() {
        assert!(convert(&Doc::new(t::core_v1::POD), t::core_v1::NODE).is_none());
    }
}
