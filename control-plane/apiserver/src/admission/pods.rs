//! Tolerations that pods get: DefaultTolerationSeconds and ExtendedResourceToleration.

use super::pod_refs::{ContainerKind, containers, spec, structs};
use super::service_account::push;
use super::{Admission, AdmissionAttributes, Operation};
use keelson_api::doc::{Doc, Struct, Value};
use keelson_api::f::core_v1 as c;
use keelson_api::names;
use keelson_api::status::Status;
use keelson_api::t::core_v1 as t;
use std::collections::BTreeSet;

const NO_EXECUTE: &str = "NoExecute";
const SECONDS: i64 = 300;

fn writes(a: &AdmissionAttributes<'_>) -> bool {
    a.is_main("", "pods") && matches!(a.operation, Operation::Create | Operation::Update)
}

fn spec_mut(pod: &mut Doc) -> Option<&mut Struct> {
    pod.get_mut(&[c::pod::SPEC]).and_then(Value::as_struct_mut)
}

/// Pods stay five minutes on a node that is not ready or not reached, unless they say otherwise.
pub(super) struct DefaultTolerationSeconds;

impl Admission for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn mutate(&self, pod: &mut Doc, _old: Option<&Doc>, a: &AdmissionAttributes<'_>) -> Result<(), Status> {
        if !writes(a) {
            return Ok(());
        }
        let Some(spec) = spec_mut(pod) else { return Ok(()) };
        for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
            let tolerates = structs(spec.list(c::pod_spec::TOLERATIONS)).any(|toleration| {
                ["", key].contains(&toleration.str(c::toleration::KEY))
                    && ["", NO_EXECUTE].contains(&toleration.str(c::toleration::EFFECT))
            });
            if !tolerates {
                let mut toleration = Struct::new(t::TOLERATION);
                toleration.set(c::toleration::KEY, key);
                toleration.set(c::toleration::OPERATOR, "Exists");
                toleration.set(c::toleration::EFFECT, NO_EXECUTE);
                toleration.set(c::toleration::TOLERATION_SECONDS, SECONDS);
                push(spec, c::pod_spec::TOLERATIONS, toleration);
            }
        }
        Ok(())
    }
}

/// Pods that ask for `example.com/device` tolerate the taint of that name.
pub(super) struct ExtendedResourceToleration;

fn is_extended(resource: &str) -> bool {
    const QUOTA: &str = "requests.";
    resource.contains('/')
        && !resource.contains("kubernetes.io/")
        && !resource.starts_with(QUOTA)
        && names::qualified_name(&format!("{QUOTA}{resource}")).is_empty()
}

impl Admission for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn mutate(&self, pod: &mut Doc, _old: Option<&Doc>, a: &AdmissionAttributes<'_>) -> Result<(), Status> {
        if !writes(a) {
            return Ok(());
        }
        let mut wanted = BTreeSet::new();
        for (kind, fields, container) in spec(pod).into_iter().flat_map(containers) {
            let requests = container
                .child(fields.resources)
                .and_then(|r| r.map(c::resource_requirements::REQUESTS))
                .filter(|_| kind != ContainerKind::Ephemeral);
            let names = requests.into_iter().flat_map(|r| r.iter()).map(|(name, _)| name);
            wanted.extend(names.filter(|name| is_extended(name)).map(str::to_owned));
        }
        let Some(spec) = spec_mut(pod) else { return Ok(()) };
        for key in wanted {
            let there = structs(spec.list(c::pod_spec::TOLERATIONS)).any(|toleration| {
                toleration.str(c::toleration::KEY) == key
                    && toleration.str(c::toleration::OPERATOR) == "Exists"
                    && toleration.str(c::toleration::EFFECT) == "NoSchedule"
            });
            if !there {
                let mut toleration = Struct::new(t::TOLERATION);
                toleration.set(c::toleration::KEY, key);
                toleration.set(c::toleration::OPERATOR, "Exists");
                toleration.set(c::toleration::EFFECT, "NoSchedule");
                push(spec, c::pod_spec::TOLERATIONS, toleration);
            }
        }
        Ok(())
    }
}
