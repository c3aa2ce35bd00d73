//! RuntimeClass: a pod's class must exist; its overhead and scheduling become the pod's.

use super::pod_refs::structs;
use super::{Admission, AdmissionAttributes, ClusterReads, Operation};
use crate::authn::reads;
use keelson_api::doc::{Doc, Map, Struct, Value};
use keelson_api::f::core_v1 as c;
use keelson_api::field_errors::quoted;
use keelson_api::quantity::Quantity;
use keelson_api::schema::Field;
use keelson_api::status::Status;
use keelson_api::t::core_v1 as t;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

const CLASS_NAME: [Field; 2] = [c::pod::SPEC, c::pod_spec::RUNTIME_CLASS_NAME];
const OVERHEAD: [Field; 2] = [c::pod::SPEC, c::pod_spec::OVERHEAD];
const SELECTOR: [Field; 2] = [c::pod::SPEC, c::pod_spec::NODE_SELECTOR];

pub(super) struct RuntimeClass {
    reads: Arc<dyn ClusterReads>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Class {
    overhead: Option<Overhead>,
    scheduling: Option<Scheduling>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Overhead {
    pod_fixed: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Scheduling {
    node_selector: BTreeMap<String, String>,
    tolerations: Vec<Toleration>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Toleration {
    key: String,
    operator: String,
    value: String,
    effect: String,
    toleration_seconds: Option<i64>,
}

impl RuntimeClass {
    pub(super) fn new(reads: Arc<dyn ClusterReads>) -> RuntimeClass {
        RuntimeClass { reads }
    }

    /// The pod's class; `None` when it names none.
    fn class(&self, pod: &Doc, a: &AdmissionAttributes<'_>) -> Result<Option<Class>, Status> {
        let Some(name) = pod.get(&CLASS_NAME).and_then(Value::as_str) else { return Ok(None) };
        match reads::read(self.reads.as_ref(), "node.k8s.io", "runtimeclasses", "", name) {
            Some(class) => Ok(Some(class)),
            None => {
                let why = format!("pod rejected: RuntimeClass {} not found", quoted(name));
                Err(a.forbidden(Some(pod), why))
            }
        }
    }
}

fn concerned(a: &AdmissionAttributes<'_>) -> bool {
    a.is_main("", "pods") && a.operation == Operation::Create
}

fn same_amounts(map: Option<&Map>, fixed: &BTreeMap<String, String>) -> bool {
    let parse = |text: &str| Quantity::parse(text).ok();
    let len = map.map_or(0, Map::len);
    len == fixed.len()
        && fixed.iter().all(|(name, text)| {
            let found = map.and_then(|m| m.get_str(name)).and_then(parse);
            found.is_some() && found == parse(text)
        })
}

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

impl Admission for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn mutate(&self, pod: &mut Doc, _old: Option<&Doc>, a: &AdmissionAttributes<'_>) -> Result<(), Status> {
        if !concerned(a) {
            return Ok(());
        }
        let Some(class) = self.class(pod, a)? else { return Ok(()) };
        if let Some(overhead) = &class.overhead {
            let given = pod.map(&OVERHEAD).filter(|m| !m.is_empty());
            if given.is_some() && !same_amounts(given, &overhead.pod_fixed) {
                return Err(a.forbidden(Some(pod), MISMATCH));
            }
            let fixed: Map = overhead.pod_fixed.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            pod.set(&OVERHEAD, fixed);
        }
        let Some(scheduling) = &class.scheduling else { return Ok(()) };
        let mut selector = pod.map(&SELECTOR).cloned().unwrap_or_default();
        for (key, value) in &scheduling.node_selector {
            if let Some(given) = selector.get_str(key).filter(|given| given != value) {
                let why = format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {given}"
                );
                return Err(a.forbidden(Some(pod), why));
            }
            selector.insert(key.as_str(), value.as_str());
        }
        if !selector.is_empty() {
            pod.set(&SELECTOR, selector);
        }
        if !scheduling.tolerations.is_empty() {
            let own =
                structs(pod.list(&[c::pod::SPEC, c::pod_spec::TOLERATIONS])).map(Toleration::from_struct);
            let merged = merge(own.chain(scheduling.tolerations.iter().cloned()).collect());
            let list: Vec<Value> = merged.iter().map(Toleration::to_value).collect();
            pod.set(&[c::pod::SPEC, c::pod_spec::TOLERATIONS], list);
        }
        Ok(())
    }

    fn validate(
        &self,
        object: Option<&Doc>,
        _old: Option<&Doc>,
        a: &AdmissionAttributes<'_>,
    ) -> Result<(), Status> {
        let Some(pod) = object.filter(|_| concerned(a)) else { return Ok(()) };
        let given = pod.map(&OVERHEAD);
        match self.class(pod, a)?.and_then(|class| class.overhead) {
            Some(overhead) if !same_amounts(given, &overhead.pod_fixed) => {
                Err(a.forbidden(Some(pod), MISMATCH))
            }
            None if given.is_some() => {
                let why =
                    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
                Err(a.forbidden(Some(pod), why))
            }
            _ => Ok(()),
        }
    }
}

impl Toleration {
    fn from_struct(from: &Struct) -> Toleration {
        Toleration {
            key: from.str(c::toleration::KEY).to_owned(),
            operator: from.str(c::toleration::OPERATOR).to_owned(),
            value: from.str(c::toleration::VALUE).to_owned(),
            effect: from.str(c::toleration::EFFECT).to_owned(),
            toleration_seconds: from.int(c::toleration::TOLERATION_SECONDS),
        }
    }

    fn to_value(&self) -> Value {
        let mut made = Struct::new(t::TOLERATION);
        let texts = [
            (c::toleration::KEY, &self.key),
            (c::toleration::OPERATOR, &self.operator),
            (c::toleration::VALUE, &self.value),
            (c::toleration::EFFECT, &self.effect),
        ];
        for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            made.set(field, text.as_str());
        }
        if let Some(seconds) = self.toleration_seconds {
            made.set(c::toleration::TOLERATION_SECONDS, seconds);
        }
        made.into()
    }

    /// Whether it tolerates all that `other` does.
    fn covers(&self, other: &Toleration) -> bool {
        if self == other {
            return true;
        }
        let exists = self.operator == "Exists";
        if other.key != self.key && !(self.key.is_empty() && exists) {
            return false;
        }
        if !self.effect.is_empty() && other.effect != self.effect {
            return false;
        }
        if self.effect == "NoExecute" {
            // Without seconds it lasts for ever, which covers everything.
            if let Some(seconds) = self.toleration_seconds
                && other.toleration_seconds.is_none_or(|theirs| theirs > seconds)
            {
                return false;
            }
        }
        match self.operator.as_str() {
            "Exists" => true,
            "" | "Equal" => ["", "Equal"].contains(&other.operator.as_str()) && self.value == other.value,
            _ => false,
        }
    }
}

/// Without those that another covers; of equal ones the first stays.
fn merge(all: Vec<Toleration>) -> Vec<Toleration> {
    let mut merged: Vec<Toleration> = Vec::new();
    for (i, one) in all.iter().enumerate() {
        let covered =
            merged.iter().any(|m| m.covers(one)) || all[i + 1..].iter().any(|l| l != one && l.covers(one));
        if !covered {
            merged.push(one.clone());
        }
    }
    merged
}
