//! Nodes.

use crate::doc::{Doc, Struct, Value};
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorKind, ErrorList, FieldError, FieldPath};
use crate::names;
use crate::schema::Field;
use crate::types::core::pod_defaults::round_up;
use crate::types::core::{resources, scheduling};
use crate::types::walk::{json_text, strs, structs};
use crate::types::{Ctx, SelectableFields, Strategy, columns};

const SPEC: FieldPath<'static> = FieldPath::new("spec");
const STATUS: FieldPath<'static> = FieldPath::new("status");
const METADATA: FieldPath<'static> = FieldPath::new("metadata");

const CONFIG_SOURCE: [Field; 2] = [c::node::SPEC, c::node_spec::CONFIG_SOURCE];

/// The rules of Nodes. The kubelet registers its node with a status, so a create keeps it.
pub static STRATEGY: Strategy = Strategy {
    defaults: |doc| {
        let path = [c::node::STATUS, c::node_status::CAPACITY];
        let allocatable = [c::node::STATUS, c::node_status::ALLOCATABLE];
        if let Some(capacity) = doc.get(&path).cloned()
            && doc.get(&allocatable).is_none()
        {
            doc.set(&allocatable, capacity);
        }
        if let Some(status) = doc.root_mut().and_then(|root| root.child_mut(c::node::STATUS)) {
            round_up(status, c::node_status::CAPACITY);
            round_up(status, c::node_status::ALLOCATABLE);
        }
        // The one range of old clients is the first of the list; where they differ, the one stands.
        let (one, all) = ([c::node::SPEC, c::node_spec::POD_CIDR], [c::node::SPEC, c::node_spec::POD_CIDRS]);
        let first = doc.list(&all).first().cloned();
        if doc.str(&one).is_empty() {
            if let Some(first) = first {
                doc.set(&one, first);
            }
        } else if first.as_ref().and_then(Value::as_str) != Some(doc.str(&one)) {
            let range = Value::from(doc.str(&one));
            doc.set(&all, vec![range]);
        }
    },
    prepare_create: |doc, _| drop(doc.remove(&CONFIG_SOURCE)),
    prepare_update: |new, old, _| {
        keep_status(new, old);
        // Nobody sets it any more.
        if old.get(&CONFIG_SOURCE).is_none() {
            new.remove(&CONFIG_SOURCE);
        }
    },
    prepare_status_update: |new, old, _| keep_spec(new, old),
    validate_create: |doc, _, errors| {
        common(doc, errors);
        pod_cidrs(doc, errors);
    },
    validate_update,
    validate_status_update: validate_update,
    status: crate::types::StatusRule::Plain,
    selectable: &["metadata.name", "spec.unschedulable"],
    selectable_fields: |doc| {
        let off = doc.bool(&[c::node::SPEC, c::node_spec::UNSCHEDULABLE]) == Some(true);
        SelectableFields::from_iter([("spec.unschedulable", if off { "true" } else { "false" }.into())])
    },
    warnings: |new, _, _| node_warnings(new),
    columns: &columns::core::NODE,
    ..Strategy::BASE
};

fn keep_status(new: &mut Doc, old: &Doc) {
    match old.get(&[c::node::STATUS]) {
        Some(status) => new.set(&[c::node::STATUS], status.clone()),
        None => {
            new.remove(&[c::node::STATUS]);
        }
    }
}

fn keep_spec(new: &mut Doc, old: &Doc) {
    match old.get(&[c::node::SPEC]) {
        Some(spec) => new.set(&[c::node::SPEC], spec.clone()),
        None => {
            new.remove(&[c::node::SPEC]);
        }
    }
}

fn spec(doc: &Doc) -> Option<&Struct> {
    doc.root()?.child(c::node::SPEC)
}

/// Pods that a node would rather not have, as an annotation of old says it.
fn avoided_pods(doc: &Doc, errors: &mut ErrorList) {
    const AVOID: &str = "scheduler.alpha.kubernetes.io/preferAvoidPods";
    let Some(text) = doc.meta().annotation(AVOID).filter(|text| !text.is_empty()) else { return };
    let at = METADATA.child("annotations");
    let parsed: serde_json::Value = match serde_json::from_str(text) {
        Ok(parsed) => parsed,
        Err(why) => return errors.invalid(&at.child("AvoidPods"), AVOID, why.to_string()),
    };
    let entries = parsed.get("preferAvoidPods").and_then(serde_json::Value::as_array);
    let at = at.child(AVOID);
    for (i, entry) in entries.into_iter().flatten().enumerate() {
        let at = at.index(i);
        let signature = at.child("PodSignature");
        match entry.pointer("/podSignature/podController") {
            None | Some(serde_json::Value::Null) => errors.required(&signature, ""),
            Some(owner) if owner.get("controller") != Some(&serde_json::Value::Bool(true)) => {
                let owner = signature.child("PodController");
                errors.invalid(&owner.child("Controller"), false, "must point to a controller");
            }
            Some(_) => {}
        }
    }
}

fn node_warnings(doc: &Doc) -> Vec<String> {
    let mut out = Vec::new();
    let Some(spec) = spec(doc) else { return out };
    if crate::types::walk::present(spec, c::node_spec::CONFIG_SOURCE) {
        out.push("spec.configSource: the feature is removed".to_owned());
    }
    if !spec.str(c::node_spec::EXTERNAL_ID).is_empty() {
        out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
    for (i, cidr) in strs(spec, c::node_spec::POD_CIDRS) {
        crate::types::core::warnings::range(&format!("spec.podCIDRs[{i}]"), cidr, &mut out);
    }
    out
}

fn common(doc: &Doc, errors: &mut ErrorList) {
    avoided_pods(doc, errors);
    if let Some(spec) = spec(doc) {
        taints(spec, &METADATA.child("taints"), errors);
    }
    let Some(status) = doc.root().and_then(|root| root.child(c::node::STATUS)) else { return };
    let swap = status.child(c::node_status::NODE_INFO).and_then(|info| info.child(c::node_system_info::SWAP));
    if let Some(size) =
        swap.and_then(|swap| swap.int(c::node_swap_status::CAPACITY)).filter(|size| *size <= 0)
    {
        let at = METADATA.child("nodeSwapStatus");
        errors.invalid(&at.child("capacity"), size, "must be greater than zero");
    }
    for field in [c::node_status::CAPACITY, c::node_status::ALLOCATABLE] {
        let at = STATUS.child(field.def().json);
        for (name, amount) in resources::amounts(status.map(field)) {
            resources::validate_amount(name, amount, &at.child(name), errors);
        }
    }
}

/// `spec.taints`: unique by key and effect.
pub fn taints(spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (i, taint) in structs(spec, c::node_spec::TAINTS) {
        let at = path.index(i);
        let (key, value, effect) =
            (taint.str(c::taint::KEY), taint.str(c::taint::VALUE), taint.str(c::taint::EFFECT));
        errors.invalid_each(&at.child("key"), key, names::qualified_name(key));
        let messages = names::label_value(value);
        if !messages.is_empty() {
            errors.invalid(&at.child("value"), value, messages.join(";"));
        }
        scheduling::validate_taint_effect(effect, &at.child("effect"), errors);
        if seen.contains(&(key, effect)) {
            errors.push(FieldError {
                kind: ErrorKind::Duplicate,
                field: at.to_string(),
                value: json_text(Some(&Value::Struct(taint.clone()))),
                detail: "taints must be unique by key and effect pair".to_owned(),
            });
        } else {
            seen.push((key, effect));
        }
    }
}

fn pod_cidrs(doc: &Doc, errors: &mut ErrorList) {
    let Some(spec) = spec(doc) else { return };
    let at = SPEC.child("podCIDRs");
    let mut families = Vec::new();
    for (i, cidr) in strs(spec, c::node_spec::POD_CIDRS) {
        if let Some(cidr) = names::validate_cidr_legacy(&at.index(i), cidr, errors) {
            families.push(cidr.address.is_ipv4());
        }
    }
    if families.len() > 2 || (families.len() == 2 && families[0] == families[1]) {
        let value = crate::types::core::container::string_list(spec, c::node_spec::POD_CIDRS);
        errors.invalid(&at, value, "may specify no more than one CIDR for each IP family");
    }
}

fn validate_update(new: &Doc, old: &Doc, _: &Ctx<'_>, errors: &mut ErrorList) {
    common(new, errors);
    if let Some(status) = new.root().and_then(|root| root.child(c::node::STATUS)) {
        let at = STATUS.child("addresses");
        let list = status.list(c::node_status::ADDRESSES);
        for (i, address) in list.iter().enumerate().filter(|(i, address)| list[..*i].contains(address)) {
            errors.duplicate(&at.index(i), json_text(Some(address)));
        }
    }
    let empty = Struct::new(crate::t::core_v1::NODE_SPEC);
    let (now, before) = (spec(new).unwrap_or(&empty), spec(old).unwrap_or(&empty));
    let (cidrs, old_cidrs) = (now.list(c::node_spec::POD_CIDRS), before.list(c::node_spec::POD_CIDRS));
    if !old_cidrs.is_empty() && cidrs != old_cidrs {
        let text = "node updates may not change podCIDR except from \"\" to valid";
        errors.forbidden(&SPEC.child("podCIDRs"), text);
    }
    if now.str(c::node_spec::EXTERNAL_ID) != before.str(c::node_spec::EXTERNAL_ID) {
        errors.forbidden(&SPEC.child("externalID"), "may not be updated");
    }
    let provider = before.str(c::node_spec::PROVIDER_ID);
    if !provider.is_empty() && provider != now.str(c::node_spec::PROVIDER_ID) {
        let text = "node updates may not change providerID except from \"\" to valid";
        errors.forbidden(&SPEC.child("providerID"), text);
    }
}
