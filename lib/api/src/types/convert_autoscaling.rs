//! What autoscaling/v1 has no fields for lies in annotations of its objects (upstream `pkg/apis/autoscaling/annotations.go`):
//! metrics other than the CPU target, current metrics, conditions and behaviour. Metrics there have v1's own shapes, the
//! behaviour has upstream's internal one.

use crate::doc::{Map, Struct, Value};
use crate::f::autoscaling_v1 as a1;
use crate::f::autoscaling_v2 as a2;
use crate::f::meta_v1::object_meta as om;
use crate::json;
use crate::schema::{Field, Kind, TypeId};
use crate::t;
use crate::types::convert::{retype, retype_struct};
use crate::types::walk::{child_entry, present, structs};

use a2::horizontal_pod_autoscaler as hpa;
use a2::horizontal_pod_autoscaler_spec as spec2;
use a2::horizontal_pod_autoscaler_status as status2;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const ALL: [&str; 6] = [
    METRICS,
    CURRENT,
    CONDITIONS,
    BEHAVIOR,
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
];

/// A source in both versions: where it lies, and where each of its parts does.
struct Source {
    two: Field,
    one: Field,
    parts: &'static [(&'static [Field], Field)],
}

macro_rules! parts {
    ($($two:expr => $one:expr),* $(,)?) => { &[$((&$two, $one)),*] };
}

use a2::{metric_identifier as id, metric_target as goal, metric_value_status as value};

static SOURCES: [Source; 5] = [
    Source {
        two: a2::metric_spec::OBJECT,
        one: a1::metric_spec::OBJECT,
        parts: parts! {
            [a2::object_metric_source::DESCRIBED_OBJECT] => a1::object_metric_source::TARGET,
            [a2::object_metric_source::METRIC, id::NAME] => a1::object_metric_source::METRIC_NAME,
            [a2::object_metric_source::METRIC, id::SELECTOR] => a1::object_metric_source::SELECTOR,
            [a2::object_metric_source::TARGET, goal::VALUE] => a1::object_metric_source::TARGET_VALUE,
            [a2::object_metric_source::TARGET, goal::AVERAGE_VALUE] => a1::object_metric_source::AVERAGE_VALUE,
        },
    },
    Source {
        two: a2::metric_spec::PODS,
        one: a1::metric_spec::PODS,
        parts: parts! {
            [a2::pods_metric_source::METRIC, id::NAME] => a1::pods_metric_source::METRIC_NAME,
            [a2::pods_metric_source::METRIC, id::SELECTOR] => a1::pods_metric_source::SELECTOR,
            [a2::pods_metric_source::TARGET, goal::AVERAGE_VALUE] => a1::pods_metric_source::TARGET_AVERAGE_VALUE,
        },
    },
    Source {
        two: a2::metric_spec::RESOURCE,
        one: a1::metric_spec::RESOURCE,
        parts: parts! {
            [a2::resource_metric_source::NAME] => a1::resource_metric_source::NAME,
            [a2::resource_metric_source::TARGET, goal::AVERAGE_UTILIZATION]
                => a1::resource_metric_source::TARGET_AVERAGE_UTILIZATION,
            [a2::resource_metric_source::TARGET, goal::AVERAGE_VALUE] => a1::resource_metric_source::TARGET_AVERAGE_VALUE,
        },
    },
    Source {
        two: a2::metric_spec::CONTAINER_RESOURCE,
        one: a1::metric_spec::CONTAINER_RESOURCE,
        parts: parts! {
            [a2::container_resource_metric_source::NAME] => a1::container_resource_metric_source::NAME,
            [a2::container_resource_metric_source::CONTAINER] => a1::container_resource_metric_source::CONTAINER,
            [a2::container_resource_metric_source::TARGET, goal::AVERAGE_UTILIZATION]
                => a1::container_resource_metric_source::TARGET_AVERAGE_UTILIZATION,
            [a2::container_resource_metric_source::TARGET, goal::AVERAGE_VALUE]
                => a1::container_resource_metric_source::TARGET_AVERAGE_VALUE,
        },
    },
    Source {
        two: a2::metric_spec::EXTERNAL,
        one: a1::metric_spec::EXTERNAL,
        parts: parts! {
            [a2::external_metric_source::METRIC, id::NAME] => a1::external_metric_source::METRIC_NAME,
            [a2::external_metric_source::METRIC, id::SELECTOR] => a1::external_metric_source::METRIC_SELECTOR,
            [a2::external_metric_source::TARGET, goal::VALUE] => a1::external_metric_source::TARGET_VALUE,
            [a2::external_metric_source::TARGET, goal::AVERAGE_VALUE] => a1::external_metric_source::TARGET_AVERAGE_VALUE,
        },
    },
];

static STATUSES: [Source; 5] = [
    Source {
        two: a2::metric_status::OBJECT,
        one: a1::metric_status::OBJECT,
        parts: parts! {
            [a2::object_metric_status::DESCRIBED_OBJECT] => a1::object_metric_status::TARGET,
            [a2::object_metric_status::METRIC, id::NAME] => a1::object_metric_status::METRIC_NAME,
            [a2::object_metric_status::METRIC, id::SELECTOR] => a1::object_metric_status::SELECTOR,
            [a2::object_metric_status::CURRENT, value::VALUE] => a1::object_metric_status::CURRENT_VALUE,
            [a2::object_metric_status::CURRENT, value::AVERAGE_VALUE] => a1::object_metric_status::AVERAGE_VALUE,
        },
    },
    Source {
        two: a2::metric_status::PODS,
        one: a1::metric_status::PODS,
        parts: parts! {
            [a2::pods_metric_status::METRIC, id::NAME] => a1::pods_metric_status::METRIC_NAME,
            [a2::pods_metric_status::METRIC, id::SELECTOR] => a1::pods_metric_status::SELECTOR,
            [a2::pods_metric_status::CURRENT, value::AVERAGE_VALUE] => a1::pods_metric_status::CURRENT_AVERAGE_VALUE,
        },
    },
    Source {
        two: a2::metric_status::RESOURCE,
        one: a1::metric_status::RESOURCE,
        parts: parts! {
            [a2::resource_metric_status::NAME] => a1::resource_metric_status::NAME,
            [a2::resource_metric_status::CURRENT, value::AVERAGE_UTILIZATION]
                => a1::resource_metric_status::CURRENT_AVERAGE_UTILIZATION,
            [a2::resource_metric_status::CURRENT, value::AVERAGE_VALUE] => a1::resource_metric_status::CURRENT_AVERAGE_VALUE,
        },
    },
    Source {
        two: a2::metric_status::CONTAINER_RESOURCE,
        one: a1::metric_status::CONTAINER_RESOURCE,
        parts: parts! {
            [a2::container_resource_metric_status::NAME] => a1::container_resource_metric_status::NAME,
            [a2::container_resource_metric_status::CONTAINER] => a1::container_resource_metric_status::CONTAINER,
            [a2::container_resource_metric_status::CURRENT, value::AVERAGE_UTILIZATION]
                => a1::container_resource_metric_status::CURRENT_AVERAGE_UTILIZATION,
            [a2::container_resource_metric_status::CURRENT, value::AVERAGE_VALUE]
                => a1::container_resource_metric_status::CURRENT_AVERAGE_VALUE,
        },
    },
    Source {
        two: a2::metric_status::EXTERNAL,
        one: a1::metric_status::EXTERNAL,
        parts: parts! {
            [a2::external_metric_status::METRIC, id::NAME] => a1::external_metric_status::METRIC_NAME,
            [a2::external_metric_status::METRIC, id::SELECTOR] => a1::external_metric_status::METRIC_SELECTOR,
            [a2::external_metric_status::CURRENT, value::VALUE] => a1::external_metric_status::CURRENT_VALUE,
            [a2::external_metric_status::CURRENT, value::AVERAGE_VALUE] => a1::external_metric_status::CURRENT_AVERAGE_VALUE,
        },
    },
];

fn struct_of(field: Field) -> Option<TypeId> {
    field.def().kind.element_struct()
}

/// A metric of v2 in v1's shape.
fn down(metric: &Struct, sources: &[Source], kind: (Field, Field), to: TypeId) -> Struct {
    let mut out = Struct::new(to);
    out.set(kind.1, metric.str(kind.0));
    for source in sources {
        let (Some(from), Some(ty)) = (metric.child(source.two), struct_of(source.one)) else { continue };
        let from = Value::Struct(from.clone());
        let mut one = Struct::new(ty);
        for (path, field) in source.parts {
            if let Some(part) = from.get(path) {
                one.set(*field, retype(part, field.def().kind));
            }
        }
        // Held by value in v1.
        for zero in [a1::object_metric_source::TARGET_VALUE, a1::object_metric_status::CURRENT_VALUE] {
            if zero.ty == ty && !one.has(zero) {
                one.set(zero, "0");
            }
        }
        out.set(source.one, one);
    }
    out
}

/// A metric of v1 in v2's shape.
fn up(metric: &Struct, sources: &[Source], kind: (Field, Field), to: TypeId) -> Struct {
    let mut out = Struct::new(to);
    out.set(kind.0, metric.str(kind.1));
    for source in sources {
        let Some(from) = metric.child(source.one) else { continue };
        let Some(two) = child_entry(&mut out, source.two) else { continue };
        let average = [a1::object_metric_source::AVERAGE_VALUE, a1::object_metric_status::AVERAGE_VALUE];
        let by_average = average.iter().any(|field| field.ty == from.ty() && from.has(*field));
        for (path, field) in source.parts {
            let Some(part) = from.get(*field) else { continue };
            // A zero that is only there because v1 holds it by value.
            if by_average && part.as_str() == Some("0") {
                continue;
            }
            set_path(two, path, part);
        }
        let goal_field = two.ty().def().field_index("target").map(|index| Field::new(two.ty(), index));
        if let Some(target) = goal_field.and_then(|field| child_entry(two, field)) {
            let kind = target_type(source.two, target);
            target.set(goal::TYPE, kind);
        }
    }
    out
}

/// Sets what lies below through fields of nested structs, which are made where absent.
fn set_path(at: &mut Struct, path: &[Field], part: &Value) {
    match path {
        [] => {}
        [last] => {
            at.set(*last, retype(part, last.def().kind));
        }
        [parent, rest @ ..] => {
            if let Some(next) = child_entry(at, *parent) {
                set_path(next, rest, part);
            }
        }
    }
}

fn target_type(source: Field, target: &Struct) -> &'static str {
    match source {
        a2::metric_spec::PODS => "AverageValue",
        a2::metric_spec::OBJECT if present(target, goal::AVERAGE_VALUE) => "AverageValue",
        a2::metric_spec::OBJECT => "Value",
        a2::metric_spec::EXTERNAL if present(target, goal::VALUE) => "Value",
        _ if present(target, goal::AVERAGE_UTILIZATION) => "Utilization",
        _ => "AverageValue",
    }
}

fn text_of(list: Vec<Value>) -> String {
    let mut out = Vec::new();
    json::encode_value(&Value::List(list), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn list_of(text: &str, ty: TypeId) -> Option<Vec<Struct>> {
    let items: Vec<Box<serde_json::value::RawValue>> = serde_json::from_str(text).ok()?;
    items
        .iter()
        .map(|item| match json::decode_value(Kind::Struct(ty), item.get().as_bytes()) {
            Ok(Value::Struct(one)) => Some(one),
            _ => None,
        })
        .collect()
}

/// Whether v1 has a field for the metric.
fn is_cpu_target(metric: &Struct) -> bool {
    metric.str(a2::metric_spec::TYPE) == "Resource"
        && metric.child(a2::metric_spec::RESOURCE).is_some_and(|source| {
            source.str(a2::resource_metric_source::NAME) == "cpu"
                && source
                    .child(a2::resource_metric_source::TARGET)
                    .is_some_and(|target| present(target, goal::AVERAGE_UTILIZATION))
        })
}

const SPEC_KINDS: (Field, Field) = (a2::metric_spec::TYPE, a1::metric_spec::TYPE);
const STATUS_KINDS: (Field, Field) = (a2::metric_status::TYPE, a1::metric_status::TYPE);

/// Annotates the v1 object with what of the v2 object has no field there.
pub(super) fn keep(from: &Struct, to: &mut Struct) {
    use crate::t::autoscaling_v1 as t1;
    let mut found: Vec<(&str, String)> = Vec::new();
    if let Some(spec) = from.child(hpa::SPEC) {
        let others: Vec<Value> = structs(spec, spec2::METRICS)
            .filter(|(_, metric)| !is_cpu_target(metric))
            .map(|(_, metric)| Value::Struct(down(metric, &SOURCES, SPEC_KINDS, t1::METRIC_SPEC)))
            .collect();
        if !others.is_empty() {
            found.push((METRICS, text_of(others)));
        }
        if let Some(behavior) = spec.child(spec2::BEHAVIOR) {
            found.push((BEHAVIOR, behavior_text(behavior)));
        }
    }
    if let Some(status) = from.child(hpa::STATUS) {
        let current: Vec<Value> = structs(status, status2::CURRENT_METRICS)
            .map(|(_, metric)| Value::Struct(down(metric, &STATUSES, STATUS_KINDS, t1::METRIC_STATUS)))
            .collect();
        if !current.is_empty() {
            found.push((CURRENT, text_of(current)));
        }
        let conditions: Vec<Value> = structs(status, status2::CONDITIONS)
            .map(|(_, one)| Value::Struct(retype_struct(one, t1::HORIZONTAL_POD_AUTOSCALER_CONDITION)))
            .collect();
        if !conditions.is_empty() {
            found.push((CONDITIONS, text_of(conditions)));
        }
    }
    let meta = a1::horizontal_pod_autoscaler::METADATA;
    drop_annotations(to, meta);
    if found.is_empty() {
        return;
    }
    if let Some(annotations) = child_entry(to, meta).map(|meta| meta.entry_index(om::ANNOTATIONS.index)) {
        if *annotations == Value::Null {
            *annotations = Value::Map(Map::new());
        }
        if let Some(annotations) = annotations.as_map_mut() {
            for (key, text) in found {
                annotations.insert(key, text);
            }
        }
    }
}

fn drop_annotations(of: &mut Struct, meta: Field) {
    let Some(meta) = of.child_mut(meta) else { return };
    let Some(annotations) = meta.get_mut(om::ANNOTATIONS).and_then(Value::as_map_mut) else { return };
    annotations.retain(|key, _| !ALL.contains(&key));
    if annotations.is_empty() {
        meta.remove(om::ANNOTATIONS);
    }
}

/// Fills the v2 object from the annotations of the v1 object, and drops them.
pub(super) fn restore(to: &mut Struct) {
    use crate::t::autoscaling_v1 as t1;
    use crate::t::autoscaling_v2 as t2;
    let Some(annotations) = to.child(hpa::METADATA).and_then(|meta| meta.map(om::ANNOTATIONS)).cloned()
    else {
        return;
    };
    if let Some(others) = annotations.get_str(METRICS).and_then(|text| list_of(text, t1::METRIC_SPEC))
        && let Some(spec) = child_entry(to, hpa::SPEC)
    {
        let mut metrics: Vec<Value> =
            others.iter().map(|one| Value::Struct(up(one, &SOURCES, SPEC_KINDS, t2::METRIC_SPEC))).collect();
        metrics.extend(spec.list(spec2::METRICS).first().cloned());
        spec.set(spec2::METRICS, metrics);
    }
    if let Some(behavior) = annotations.get_str(BEHAVIOR).and_then(behavior_of)
        && let Some(spec) = child_entry(to, hpa::SPEC)
    {
        spec.set(spec2::BEHAVIOR, behavior);
    }
    if let Some(current) = annotations.get_str(CURRENT).and_then(|text| list_of(text, t1::METRIC_STATUS))
        && let Some(status) = child_entry(to, hpa::STATUS)
    {
        let metrics: Vec<Value> = current
            .iter()
            .map(|one| Value::Struct(up(one, &STATUSES, STATUS_KINDS, t2::METRIC_STATUS)))
            .collect();
        status.set(status2::CURRENT_METRICS, metrics);
    }
    let conditions = annotations
        .get_str(CONDITIONS)
        .and_then(|text| list_of(text, t1::HORIZONTAL_POD_AUTOSCALER_CONDITION));
    if let Some(conditions) = conditions
        && let Some(status) = child_entry(to, hpa::STATUS)
    {
        let list: Vec<Value> = conditions
            .iter()
            .map(|one| Value::Struct(retype_struct(one, t2::HORIZONTAL_POD_AUTOSCALER_CONDITION)))
            .collect();
        status.set(status2::CONDITIONS, list);
    }
    drop_annotations(to, hpa::METADATA);
}

/// Fields of scaling rules and policies as upstream's internal types call them.
const RULES: [(&str, Field); 4] = [
    ("StabilizationWindowSeconds", a2::hpa_scaling_rules::STABILIZATION_WINDOW_SECONDS),
    ("SelectPolicy", a2::hpa_scaling_rules::SELECT_POLICY),
    ("Policies", a2::hpa_scaling_rules::POLICIES),
    ("Tolerance", a2::hpa_scaling_rules::TOLERANCE),
];
const POLICY: [(&str, Field); 3] = [
    ("Type", a2::hpa_scaling_policy::TYPE),
    ("Value", a2::hpa_scaling_policy::VALUE),
    ("PeriodSeconds", a2::hpa_scaling_policy::PERIOD_SECONDS),
];
const DIRECTIONS: [(&str, Field); 2] = [
    ("ScaleUp", a2::horizontal_pod_autoscaler_behavior::SCALE_UP),
    ("ScaleDown", a2::horizontal_pod_autoscaler_behavior::SCALE_DOWN),
];

fn internal(of: &Struct, names: &[(&str, Field)]) -> serde_json::Value {
    let pairs = names.iter().map(|(name, field)| {
        let shown = match of.get(*field) {
            Some(Value::List(items)) => {
                items.iter().filter_map(Value::as_struct).map(|item| internal(item, &POLICY)).collect()
            }
            Some(other) => crate::doc::value_to_json(other),
            None => serde_json::Value::Null,
        };
        ((*name).to_owned(), shown)
    });
    serde_json::Value::Object(pairs.collect())
}

fn behavior_text(behavior: &Struct) -> String {
    let pairs = DIRECTIONS.iter().map(|(name, field)| {
        let rules = behavior.child(*field).map_or(serde_json::Value::Null, |rules| internal(rules, &RULES));
        ((*name).to_owned(), rules)
    });
    serde_json::Value::Object(pairs.collect()).to_string()
}

fn external(value: &serde_json::Value, names: &[(&str, Field)], ty: TypeId) -> Option<Struct> {
    let map = value.as_object()?;
    let mut out = Struct::new(ty);
    for (name, field) in names {
        let value = match map.get(*name) {
            None | Some(serde_json::Value::Null) => continue,
            Some(serde_json::Value::Array(items)) => Value::List(
                items
                    .iter()
                    .map(|item| {
                        external(item, &POLICY, t::autoscaling_v2::HPA_SCALING_POLICY).map(Value::Struct)
                    })
                    .collect::<Option<Vec<_>>>()?,
            ),
            Some(other) => json::decode_value(field.def().kind, other.to_string().as_bytes()).ok()?,
        };
        out.set(*field, value);
    }
    Some(out)
}

fn behavior_of(text: &str) -> Option<Struct> {
    let parsed: serde_json::Value = serde_json::from_str(text).ok()?;
    let mut out = Struct::new(t::autoscaling_v2::HORIZONTAL_POD_AUTOSCALER_BEHAVIOR);
    for (name, field) in DIRECTIONS {
        let rules = parsed.get(name).filter(|rules| !rules.is_null());
        if let Some(rules) =
            rules.and_then(|rules| external(rules, &RULES, t::autoscaling_v2::HPA_SCALING_RULES))
        {
            out.set(field, rules);
        }
    }
    (!out.is_empty()).then_some(out)
}
