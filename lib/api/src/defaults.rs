//! Defaulting: the table's static defaults, then the type's own rules.
//!
//! A static default fills an absent field of a parent that is there; a struct by value always is, so one that is absent is made
//! where something inside it has a default. Applying defaults twice changes nothing more.

use std::sync::OnceLock;

use crate::doc::{Doc, Struct, Value};
use crate::schema::{DefaultValue, FieldDef, Flags, Kind, TypeId};

/// Fills what upstream fills in: the table's defaults, then the type's rules (`types::apply_defaults`).
pub fn apply(doc: &mut Doc) {
    apply_static(doc);
    crate::types::apply_defaults(doc);
}

/// The table's defaults alone.
pub fn apply_static(doc: &mut Doc) {
    if let Value::Struct(root) = &mut doc.root {
        apply_struct(root);
    }
}

/// The table's defaults within one struct and all below it, for rules that make structs.
pub fn apply_struct(of: &mut Struct) {
    let def = of.ty().def();
    for &index in &plan(of.ty()).steps {
        let field = &def.fields[index as usize];
        if of.get_index(index).is_none() {
            match first_value(field) {
                Some(value) => drop(of.set_index(index, value)),
                None => continue,
            }
        }
        if let Some(value) = of.get_index_mut(index) {
            apply_value(value);
        }
    }
}

fn apply_value(value: &mut Value) {
    match value {
        Value::Struct(inner) => apply_struct(inner),
        Value::List(items) => items.iter_mut().for_each(apply_value),
        Value::Map(map) => map.iter_mut().for_each(|(_, value)| apply_value(value)),
        _ => {}
    }
}

/// What an absent field starts from: its default, or a struct by value something inside which has one.
fn first_value(field: &FieldDef) -> Option<Value> {
    if let Some(default) = field.default() {
        return Some(match default {
            DefaultValue::Bool(b) => Value::Bool(b),
            DefaultValue::Int(n) => Value::Int(n),
            DefaultValue::Str(text) => Value::from(text),
            DefaultValue::EmptyStruct => match field.kind {
                Kind::Struct(ty) => Value::Struct(Struct::new(ty)),
                _ => return None,
            },
        });
    }
    match field.kind {
        Kind::Struct(ty) if !field.flags.has(Flags::POINTER) && plan(ty).fills => {
            Some(Value::Struct(Struct::new(ty)))
        }
        _ => None,
    }
}

/// What defaulting has to look at in a struct.
struct Plan {
    /// Fields that have a default, or under which something may have one.
    steps: Vec<u16>,
    /// An empty struct of the type gets something filled in.
    fills: bool,
}

fn plan(ty: TypeId) -> &'static Plan {
    static PLANS: OnceLock<Vec<Plan>> = OnceLock::new();
    &PLANS.get_or_init(make_plans)[ty.0 as usize]
}

fn make_plans() -> Vec<Plan> {
    let count = TypeId::all().count();
    // Types nest in circles (JSONSchemaProps), so both facts grow until they stay.
    let mut reaches = vec![false; count];
    let mut fills = vec![false; count];
    loop {
        let mut changed = false;
        for ty in TypeId::all() {
            let at = ty.0 as usize;
            for field in ty.def().fields {
                let inner = field.kind.element_struct().map(|inner| inner.0 as usize);
                let own = field.default().is_some();
                let by_value = matches!(field.kind, Kind::Struct(_)) && !field.flags.has(Flags::POINTER);
                let reached = own || inner.is_some_and(|inner| reaches[inner]);
                let filled = own || (by_value && inner.is_some_and(|inner| fills[inner]));
                changed |= (reached && !reaches[at]) || (filled && !fills[at]);
                reaches[at] |= reached;
                fills[at] |= filled;
            }
        }
        if !changed {
            break;
        }
    }
    TypeId::all()
        .map(|ty| {
            let steps = ty.def().fields.iter().enumerate().filter(|(_, field)| {
                field.default().is_some()
                    || field.kind.element_struct().is_some_and(|inner| reaches[inner.0 as usize])
            });
            Plan { steps: steps.map(|(index, _)| index as u16).collect(), fills: fills[ty.0 as usize] }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{self, EncodeOptions, FieldValidation};
    use crate::t;

    fn check(ty: TypeId, input: &str, expected: &str) {
        let (mut doc, _) = json::decode(ty, input.as_bytes(), FieldValidation::Strict).expect("decodes");
        apply_static(&mut doc);
        let once = doc.clone();
        apply_static(&mut doc);
        assert_eq!(doc, once, "defaulting twice changes something");
        let mut out = Vec::new();
        json::encode_canonical(&doc, EncodeOptions::STORED, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn a_pods_static_defaults() {
        check(
            t::core_v1::POD,
            r#"{"spec":{"containers":[{"name":"a","image":"b","ports":[{"containerPort":80}],"livenessProbe":{"httpGet":{"port":80}}}],
                "volumes":[{"name":"v","secret":{"secretName":"s"}}]}}"#,
            concat!(
                r#"{"metadata":{},"spec":{"volumes":[{"name":"v","secret":{"secretName":"s","defaultMode":420}}],"containers":[{"name":"a","image":"b","#,
                r#""ports":[{"containerPort":80,"protocol":"TCP"}],"resources":{},"livenessProbe":{"httpGet":{"path":"/","port":80,"scheme":"HTTP"},"#,
                r#""timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3},"terminationMessagePath":"/dev/termination-log","#,
                r#""terminationMessagePolicy":"File"}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","#,
                r#""securityContext":{},"schedulerName":"default-scheduler"},"status":{}}"#
            ),
        );
    }

    #[test]
    fn structs_by_value_are_made_for_their_defaults() {
        check(
            t::apps_v1::DEPLOYMENT,
            "{}",
            concat!(
                r#"{"metadata":{},"spec":{"replicas":1,"selector":null,"template":{"metadata":{},"spec":{"containers":null,"restartPolicy":"Always","#,
                r#""terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","securityContext":{},"schedulerName":"default-scheduler"}},"#,
                r#""strategy":{"type":"RollingUpdate"},"revisionHistoryLimit":10,"progressDeadlineSeconds":600},"status":{}}"#
            ),
        );
    }

    #[test]
    fn what_is_set_stays() {
        check(
            t::core_v1::SERVICE,
            r#"{"spec":{"type":"NodePort","ports":[{"port":1,"protocol":"UDP"}]}}"#,
            r#"{"metadata":{},"spec":{"ports":[{"protocol":"UDP","port":1,"targetPort":0}],"type":"NodePort","sessionAffinity":"None"},"status":{"loadBalancer":{}}}"#,
        );
    }
}
