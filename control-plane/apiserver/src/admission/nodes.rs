//! TaintNodesByCondition: a new node takes no pods until somebody has seen it ready.

use super::pod_refs::structs;
use super::service_account::push;
use super::{Admission, AdmissionAttributes, Operation};
use keelson_api::doc::{Doc, Struct, Value};
use keelson_api::f::core_v1 as c;
use keelson_api::status::Status;
use keelson_api::t::core_v1 as t;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const NO_SCHEDULE: &str = "NoSchedule";

pub(super) struct TaintNodesByCondition;

impl Admission for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn mutate(&self, node: &mut Doc, _old: Option<&Doc>, a: &AdmissionAttributes<'_>) -> Result<(), Status> {
        if !a.is_main("", "nodes") || a.operation != Operation::Create {
            return Ok(());
        }
        let Some(spec) = node.entry(&[c::node::SPEC]).and_then(Value::as_struct_mut) else { return Ok(()) };
        let there = structs(spec.list(c::node_spec::TAINTS))
            .any(|taint| taint.str(c::taint::KEY) == NOT_READY && taint.str(c::taint::EFFECT) == NO_SCHEDULE);
        if !there {
            let mut taint = Struct::new(t::TAINT);
            taint.set(c::taint::KEY, NOT_READY);
            taint.set(c::taint::EFFECT, NO_SCHEDULE);
            push(spec, c::node_spec::TAINTS, taint);
        }
        Ok(())
    }
}
