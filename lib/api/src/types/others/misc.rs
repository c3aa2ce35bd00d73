//! Lease, PriorityClass, RuntimeClass, StorageClass, CertificateSigningRequest, webhooks' generations.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::storage;
use crate::doc::{Doc, Map, Struct, Value};
use crate::f::certificates_v1 as cert;
use crate::f::coordination_v1 as co;
use crate::f::core_v1 as c;
use crate::f::node_v1 as no;
use crate::f::scheduling_v1 as sch;
use crate::f::storage_v1 as st;
use crate::field_errors::{ErrorList, FieldPath, quoted};
use crate::names;
use crate::types::core::scheduling;
use crate::types::meta::immutable;
use crate::types::walk::{default_value, json_text, present, strs, structs};
use crate::types::{Ctx, GenerationRule, SelectableFields, Strategy, columns};

const SPEC: FieldPath<'static> = FieldPath::new("spec");

pub static LEASE: Strategy = Strategy {
    validate_create: |doc, _, errors| lease(doc, errors),
    validate_update: |new, _, _, errors| lease(new, errors),
    allow_create_on_update: true,
    allow_unconditional_update: false,
    columns: &columns::others::LEASE,
    ..Strategy::BASE
};

fn lease(doc: &Doc, errors: &mut ErrorList) {
    use co::lease_spec as s;
    let Some(spec) = doc.root().and_then(|root| root.child(co::lease::SPEC)) else { return };
    if let Some(seconds) = spec.int(s::LEASE_DURATION_SECONDS).filter(|seconds| *seconds <= 0) {
        errors.invalid(&SPEC.child("leaseDurationSeconds"), seconds, "must be greater than 0");
    }
    if let Some(count) = spec.int(s::LEASE_TRANSITIONS).filter(|count| *count < 0) {
        errors.invalid(&SPEC.child("leaseTransitions"), count, "must be greater than or equal to 0");
    }
    if !spec.str(s::PREFERRED_HOLDER).is_empty() && spec.str(s::STRATEGY).is_empty() {
        errors.forbidden(&SPEC.child("preferredHolder"), "may only be specified if `strategy` is defined");
    }
}

pub static PRIORITY_CLASS: Strategy = Strategy {
    defaults: |doc| {
        if let Some(root) = doc.root_mut() {
            default_value(root, sch::priority_class::PREEMPTION_POLICY, "PreemptLowerPriority");
        }
    },
    validate_create: |doc, _, errors| priority_class(doc, errors),
    validate_update: |new, old, _, errors| {
        let value = |doc: &Doc| doc.int(&[sch::priority_class::VALUE]).unwrap_or(0);
        if value(new) != value(old) {
            errors.forbidden(&FieldPath::new("value"), "may not be changed in an update.");
        }
        let path = [sch::priority_class::PREEMPTION_POLICY];
        immutable(new.get(&path), old.get(&path), &FieldPath::new("preemptionPolicy"), errors);
    },
    generation: GenerationRule::CreateOnly,
    columns: &columns::others::PRIORITY_CLASS,
    ..Strategy::BASE
};

fn priority_class(doc: &Doc, errors: &mut ErrorList) {
    let name = doc.meta().name();
    let value = doc.int(&[sch::priority_class::VALUE]).unwrap_or(0);
    if name.starts_with("system-") {
        let known = matches!(
            (name, value),
            ("system-node-critical", 2_000_001_000) | ("system-cluster-critical", 2_000_000_000)
        );
        if !known {
            let metadata = FieldPath::new("metadata");
            let why = match name {
                "system-node-critical" => {
                    "value of system-node-critical PriorityClass must be 2000001000".to_owned()
                }
                "system-cluster-critical" => {
                    "value of system-cluster-critical PriorityClass must be 2000000000".to_owned()
                }
                _ => format!("{name} is not a known system priority class"),
            };
            errors.forbidden(
                &metadata.child("name"),
                format!("priority class names with 'system-' prefix are reserved for system use only. error: {why}"),
            );
        }
    } else if value > 1_000_000_000 {
        let text = "maximum allowed value of a user defined priority is 1000000000";
        errors.forbidden(&FieldPath::new("value"), text);
    }
    let policy = doc.str(&[sch::priority_class::PREEMPTION_POLICY]);
    if !matches!(policy, "PreemptLowerPriority" | "Never" | "") {
        let at = FieldPath::new("preemptionPolicy");
        errors.not_supported(&at, policy, &["PreemptLowerPriority", "Never"]);
    }
}

pub static RUNTIME_CLASS: Strategy = Strategy {
    validate_create: |doc, _, errors| runtime_class(doc, errors),
    validate_update: |new, old, _, errors| {
        let path = [no::runtime_class::HANDLER];
        immutable(new.get(&path), old.get(&path), &FieldPath::new("handler"), errors);
    },
    allow_create_on_update: true,
    allow_unconditional_update: false,
    warnings: |new, _, _| runtime_warnings(new),
    columns: &columns::others::RUNTIME_CLASS,
    ..Strategy::BASE
};

fn runtime_warnings(doc: &Doc) -> Vec<String> {
    doc.map(&[no::runtime_class::SCHEDULING, no::scheduling::NODE_SELECTOR])
        .into_iter()
        .flat_map(Map::str_pairs)
        .filter_map(|(key, _)| crate::types::core::warnings::node_label(key))
        .map(|text| format!("scheduling.nodeSelector: {text}"))
        .collect()
}

fn runtime_class(doc: &Doc, errors: &mut ErrorList) {
    let handler = doc.str(&[no::runtime_class::HANDLER]);
    let at = FieldPath::new("handler");
    errors.invalid_each(&at, handler, names::dns1123_label(handler));
    let overhead = doc.map(&[no::runtime_class::OVERHEAD, no::overhead::POD_FIXED]);
    let base = FieldPath::new("overhead");
    let limits = base.child("limits");
    for (name, amount) in crate::types::core::resources::amounts(overhead) {
        crate::types::core::resources::validate_container_name(name, &limits.key(name), errors);
        crate::types::core::resources::validate_amount(name, amount, &limits.key(name), errors);
    }
    let selector = doc.map(&[no::runtime_class::SCHEDULING, no::scheduling::NODE_SELECTOR]);
    let base = FieldPath::new("scheduling");
    crate::types::meta::validate_labels(selector, &base.child("nodeSelector"), errors);
    let tolerations = base.child("tolerations");
    let list = doc.list(&[no::runtime_class::SCHEDULING, no::scheduling::TOLERATIONS]);
    scheduling::validate_toleration_list(list, false, &tolerations, errors);
    // Two that differ in their seconds only are one.
    let alike = |one: &Value| {
        let mut one = one.clone();
        if let Some(one) = one.as_struct_mut() {
            one.remove(c::toleration::TOLERATION_SECONDS);
        }
        one
    };
    let bare: Vec<Value> = list.iter().map(alike).collect();
    for (i, _) in bare.iter().enumerate().filter(|(i, one)| bare[..*i].contains(one)) {
        errors.duplicate(&tolerations.index(i), json_text(Some(&list[i])));
    }
}

pub static STORAGE_CLASS: Strategy = Strategy {
    validate_create: |doc, _, errors| storage_class(doc, errors),
    validate_update: |new, old, _, errors| {
        use st::storage_class as s;
        storage_class(new, errors);
        for field in [s::PARAMETERS, s::PROVISIONER, s::RECLAIM_POLICY] {
            if new.get(&[field]) != old.get(&[field]) {
                let name = field.def().json;
                errors.forbidden(&FieldPath::new(name), format!("updates to {name} are forbidden."));
            }
        }
        let field = s::VOLUME_BINDING_MODE;
        immutable(new.get(&[field]), old.get(&[field]), &FieldPath::new(field.def().json), errors);
    },
    warnings: |new, _, _| class_warnings(new),
    columns: &columns::others::STORAGE_CLASS,
    ..Strategy::BASE
};

/// `allowedTopologies`: keys once each, with values, no two terms alike.
fn topologies(root: &Struct, errors: &mut ErrorList) {
    use c::topology_selector_label_requirement as r;
    let all = FieldPath::new("allowedTopologies");
    // As upstream, which begins with as many empty terms as there are terms: one without expressions is a duplicate.
    let terms = root.list(st::storage_class::ALLOWED_TOPOLOGIES).len();
    let mut known: Vec<std::collections::BTreeMap<&str, std::collections::BTreeSet<&str>>> =
        vec![Default::default(); terms];
    for (i, term) in structs(root, st::storage_class::ALLOWED_TOPOLOGIES) {
        let at = all.index(i);
        let list = at.child("matchLabelExpressions");
        let mut keys = std::collections::BTreeMap::new();
        for (j, one) in structs(term, c::topology_selector_term::MATCH_LABEL_EXPRESSIONS) {
            let at = list.index(j);
            let key = one.str(r::KEY);
            let mut values = std::collections::BTreeSet::new();
            let at_values = at.child("values");
            if one.list(r::VALUES).is_empty() {
                errors.required(&at_values, "");
            }
            for (n, value) in strs(one, r::VALUES) {
                if !values.insert(value) {
                    errors.duplicate(&at_values.index(n), value);
                }
            }
            errors.invalid_each(&at.child("key"), key, names::qualified_name(key));
            if keys.insert(key, values).is_some() {
                errors.duplicate(&at.child("key"), key);
            }
        }
        for _ in known.iter().filter(|one| **one == keys) {
            errors.duplicate(&list, "");
        }
        known.push(keys);
    }
}

/// Labels of old among the topologies.
fn class_warnings(doc: &Doc) -> Vec<String> {
    use c::topology_selector_label_requirement as r;
    let mut out = Vec::new();
    let Some(root) = doc.root() else { return out };
    for (i, term) in structs(root, st::storage_class::ALLOWED_TOPOLOGIES) {
        for (j, one) in structs(term, c::topology_selector_term::MATCH_LABEL_EXPRESSIONS) {
            if let Some(text) = crate::types::core::warnings::node_label(one.str(r::KEY)) {
                out.push(format!("allowedTopologies[{i}].matchLabelExpressions[{j}].key: {text}"));
            }
        }
    }
    out
}

fn storage_class(doc: &Doc, errors: &mut ErrorList) {
    use st::storage_class as s;
    let Some(root) = doc.root() else { return };
    storage::provisioner(root.str(s::PROVISIONER), &FieldPath::new("provisioner"), errors);
    storage::class_parameters(root.map(s::PARAMETERS), errors);
    let policy = root.str(s::RECLAIM_POLICY);
    if !policy.is_empty() && !matches!(policy, "Delete" | "Retain") {
        errors.not_supported(&FieldPath::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
    }
    let mode = root.str(s::VOLUME_BINDING_MODE);
    let at = FieldPath::new("volumeBindingMode");
    if !present(root, s::VOLUME_BINDING_MODE) {
        errors.required(&at, "");
    } else if !matches!(mode, "Immediate" | "WaitForFirstConsumer") {
        errors.not_supported(&at, mode, &["Immediate", "WaitForFirstConsumer"]);
    }
    topologies(root, errors);
}

pub static CSR: Strategy = Strategy {
    name_rule: |_, _| Vec::new(),
    prepare_create: csr_prepare_create,
    prepare_update: csr_prepare_update,
    prepare_status_update: csr_prepare_status_update,
    validate_create: |doc, _, errors| csr(doc, None, errors),
    validate_update: csr_update,
    validate_status_update: csr_update,
    selectable: &["metadata.name", "spec.signerName"],
    selectable_fields: |doc| {
        let signer = doc.str(&[
            cert::certificate_signing_request::SPEC,
            cert::certificate_signing_request_spec::SIGNER_NAME,
        ]);
        SelectableFields::from_iter([("spec.signerName", signer.into())])
    },
    columns: &columns::others::CSR,
    ..Strategy::BASE
};

/// Who asks is what the server saw, not what the object says.
fn csr_prepare_create(doc: &mut Doc, ctx: &Ctx<'_>) {
    use cert::certificate_signing_request_spec as s;
    let Some(spec) = doc
        .root_mut()
        .and_then(|root| crate::types::walk::child_entry(root, cert::certificate_signing_request::SPEC))
    else {
        return;
    };
    for field in [s::USERNAME, s::UID, s::GROUPS, s::EXTRA] {
        spec.remove(field);
    }
    if !ctx.user.name.is_empty() {
        spec.set(s::USERNAME, ctx.user.name);
    }
    if !ctx.user.uid.is_empty() {
        spec.set(s::UID, ctx.user.uid);
    }
    if !ctx.user.groups.is_empty() {
        let groups: Vec<Value> = ctx.user.groups.iter().map(|group| Value::from(group.as_str())).collect();
        spec.set(s::GROUPS, groups);
    }
    if let Some(extra) = ctx.user.extra.filter(|extra| !extra.is_empty()) {
        let extra: Map = extra
            .iter()
            .map(|(key, values)| {
                let list: Vec<Value> = values.iter().map(|value| Value::from(value.as_str())).collect();
                (key.as_str(), Value::List(list))
            })
            .collect();
        spec.set(s::EXTRA, extra);
    }
    doc.remove(&[cert::certificate_signing_request::STATUS]);
}

fn csr_prepare_update(new: &mut Doc, old: &Doc, ctx: &Ctx<'_>) {
    use cert::certificate_signing_request as r;
    use cert::certificate_signing_request_status as s;
    if let Some(spec) = old.get(&[r::SPEC]) {
        new.set(&[r::SPEC], spec.clone());
    }
    if ctx.subresource == "approval" {
        // Conditions may change, nothing else of the status.
        let conditions = [r::STATUS, s::CONDITIONS];
        let wanted = new.get(&conditions).cloned();
        match old.get(&[r::STATUS]) {
            Some(status) => new.set(&[r::STATUS], status.clone()),
            None => {
                new.remove(&[r::STATUS]);
            }
        }
        match wanted {
            Some(wanted) => new.set(&conditions, wanted),
            None => {
                new.remove(&conditions);
            }
        }
        stamp_conditions(new, old, ctx);
    }
}

/// Times of conditions that came without them.
fn stamp_conditions(new: &mut Doc, old: &Doc, ctx: &Ctx<'_>) {
    use cert::certificate_signing_request as r;
    use cert::certificate_signing_request_condition as c;
    use cert::certificate_signing_request_status as s;
    let before = old.list(&[r::STATUS, s::CONDITIONS]);
    let Some(Value::List(list)) = new.get_mut(&[r::STATUS, s::CONDITIONS]) else { return };
    for one in list.iter_mut().filter_map(Value::as_struct_mut) {
        if !present(one, c::LAST_UPDATE_TIME) {
            one.set(c::LAST_UPDATE_TIME, Value::Str(ctx.now_text()));
        }
        if present(one, c::LAST_TRANSITION_TIME) {
            continue;
        }
        let same =
            |old: &&Struct| old.str(c::TYPE) == one.str(c::TYPE) && old.str(c::STATUS) == one.str(c::STATUS);
        let known = before.iter().filter_map(Value::as_struct).find(same);
        let at = known.and_then(|old| old.get(c::LAST_TRANSITION_TIME)).cloned();
        one.set(c::LAST_TRANSITION_TIME, at.unwrap_or_else(|| Value::Str(ctx.now_text())));
    }
}

/// A status update sets the certificate and other conditions; approval and denial stay as they are.
fn csr_prepare_status_update(new: &mut Doc, old: &Doc, ctx: &Ctx<'_>) {
    use cert::certificate_signing_request as r;
    use cert::certificate_signing_request_condition as c;
    use cert::certificate_signing_request_status as s;
    let path = [r::STATUS, s::CONDITIONS];
    let places = |doc: &Doc, kind: &str| -> Vec<usize> {
        let all = doc.list(&path).iter().enumerate();
        all.filter(|(_, one)| one.as_struct().is_some_and(|one| one.str(c::TYPE) == kind))
            .map(|(i, _)| i)
            .collect()
    };
    for kind in ["Approved", "Denied"] {
        let (now, before) = (places(new, kind), places(old, kind));
        if now.len() != before.len() {
            // Came or went: validation refuses it.
            continue;
        }
        for (now, before) in now.into_iter().zip(before) {
            let kept = old.list(&path)[before].clone();
            if let Some(Value::List(list)) = new.get_mut(&path) {
                list[now] = kept;
            }
        }
    }
    stamp_conditions(new, old, ctx);
}

fn csr(doc: &Doc, old: Option<&Doc>, errors: &mut ErrorList) {
    use cert::certificate_signing_request_spec as s;
    let empty = Struct::new(crate::t::certificates_v1::CERTIFICATE_SIGNING_REQUEST_SPEC);
    let spec =
        doc.root().and_then(|root| root.child(cert::certificate_signing_request::SPEC)).unwrap_or(&empty);
    let request = spec.str(s::REQUEST);
    let pem = STANDARD.decode(request).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    if !pem.is_some_and(|pem| pem.contains("-----BEGIN CERTIFICATE REQUEST-----")) {
        let text = "PEM block type must be CERTIFICATE REQUEST";
        let shown = match spec.get(s::REQUEST) {
            None => json_text(None),
            Some(_) => request.into(),
        };
        errors.invalid(&SPEC.child("request"), shown, text);
    }
    let usages = SPEC.child("usages");
    if spec.list(s::USAGES).is_empty() {
        errors.required(&usages, "");
    }
    // Mistakes that the old object has may stay.
    let before: Vec<&str> = old
        .map(|old| old.list(&[cert::certificate_signing_request::SPEC, s::USAGES]))
        .unwrap_or(&[])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let had_unknown = before.iter().any(|usage| !USAGES.contains(usage));
    let had_twice = before.iter().enumerate().any(|(i, usage)| before[..i].contains(usage));
    let mut seen: Vec<&str> = Vec::new();
    for (i, usage) in strs(spec, s::USAGES) {
        if !had_unknown && !USAGES.contains(&usage) {
            errors.not_supported(&usages.index(i), usage, &USAGES);
        }
        if !had_twice && seen.contains(&usage) {
            errors.duplicate(&usages.index(i), usage);
        }
        seen.push(usage);
    }
    let at = SPEC.child("signerName");
    let signer = spec.str(s::SIGNER_NAME);
    let was_legacy = old.is_some_and(|old| {
        old.str(&[cert::certificate_signing_request::SPEC, s::SIGNER_NAME]) == "kubernetes.io/legacy-unknown"
    });
    if signer == "kubernetes.io/legacy-unknown" && !was_legacy {
        errors.invalid(&at, signer, "the legacy signerName is not allowed via this API version");
    } else {
        signer_name(signer, &at, errors);
    }
    if let Some(seconds) = spec.int(s::EXPIRATION_SECONDS).filter(|seconds| *seconds < 600) {
        let text = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.invalid(&SPEC.child("expirationSeconds"), seconds, text);
    }
}

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// `domain/path`: the domain of at least two labels.
pub fn signer_name(signer: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if signer.is_empty() {
        errors.required(path, "");
        return;
    }
    let Some((domain, rest)) = signer.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        errors.invalid(
            path,
            signer,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
        return;
    };
    if domain.len() > names::SUBDOMAIN_MAX {
        errors.too_long(path, names::SUBDOMAIN_MAX);
    }
    // Of the labels of either part, the first bad one is named.
    let mut labels = |part: &str, rule: names::Rule| {
        let bad = part.split('.').map(|label| (label, rule(label))).find(|(_, texts)| !texts.is_empty());
        for (label, text) in
            bad.into_iter().flat_map(|(label, texts)| texts.into_iter().map(move |t| (label, t)))
        {
            errors.invalid(path, part, format!("validating label {}: {text}", quoted(label)));
        }
    };
    labels(domain, names::dns1123_label);
    labels(rest, names::dns1123_subdomain);
    if domain.split('.').count() < 2 {
        errors.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    if signer.len() > 571 {
        errors.too_long(path, 571);
    }
}

fn csr_update(new: &Doc, old: &Doc, ctx: &Ctx<'_>, errors: &mut ErrorList) {
    use cert::certificate_signing_request as r;
    use cert::certificate_signing_request_condition as c;
    use cert::certificate_signing_request_status as s;
    csr(new, Some(old), errors);
    let of = |doc: &Doc, kind: &str| -> Vec<Struct> {
        let status = doc.root().and_then(|root| root.child(r::STATUS));
        status
            .map(|status| {
                structs(status, s::CONDITIONS)
                    .filter(|(_, one)| one.str(c::TYPE) == kind)
                    .map(|(_, one)| one.clone())
                    .collect()
            })
            .unwrap_or_default()
    };
    let status = FieldPath::new("status");
    let at = status.child("conditions");
    for kind in ["Approved", "Denied", "Failed"] {
        let (now, before) = (of(new, kind), of(old, kind));
        if now.len() < before.len() {
            errors.forbidden(&at, format!("updates may not remove a condition of type \"{kind}\""));
        } else if kind != "Failed" && ctx.subresource != "approval" {
            if now.len() > before.len() {
                errors.forbidden(&at, format!("updates may not add a condition of type \"{kind}\""));
            } else if now != before {
                errors.forbidden(&at, format!("updates may not modify a condition of type \"{kind}\"\n"));
            }
        }
    }
    conditions_and_certificate(new, old, errors);
    let certificate = |doc: &Doc| doc.str(&[r::STATUS, s::CERTIFICATE]).to_owned();
    let (now, before) = (certificate(new), certificate(old));
    if now != before {
        let at = status.child("certificate");
        if ctx.subresource != "status" {
            errors.forbidden(&at, "updates may not set certificate content");
        } else if !before.is_empty() {
            errors.forbidden(&at, "updates may not modify existing certificate content");
        }
    }
}

/// What conditions and a certificate must be like, where the old object's were.
fn conditions_and_certificate(new: &Doc, old: &Doc, errors: &mut ErrorList) {
    use cert::certificate_signing_request as r;
    use cert::certificate_signing_request_condition as c;
    use cert::certificate_signing_request_status as s;
    let list = |doc: &'_ Doc| -> Vec<Struct> {
        doc.list(&[r::STATUS, s::CONDITIONS]).iter().filter_map(Value::as_struct).cloned().collect()
    };
    let (now, before) = (list(new), list(old));
    let has = |list: &[Struct], kind: &str| list.iter().any(|one| one.str(c::TYPE) == kind);
    let twice = |list: &[Struct]| {
        list.iter()
            .enumerate()
            .any(|(i, one)| list[..i].iter().any(|other| other.str(c::TYPE) == one.str(c::TYPE)))
    };
    let status = FieldPath::new("status");
    let at = status.child("conditions");
    for (i, one) in now.iter().enumerate() {
        let (kind, state) = (one.str(c::TYPE), one.str(c::STATUS));
        let below = at.index(i);
        if kind.is_empty() && !has(&before, "") {
            errors.required(&below.child("type"), "");
        }
        let only_true = matches!(kind, "Approved" | "Denied" | "Failed");
        let allowed: &[&str] = if only_true { &["True"] } else { &["False", "True", "Unknown"] };
        if state.is_empty() {
            errors.required(&below.child("status"), "");
        } else if !allowed.contains(&state) {
            errors.not_supported(&below.child("status"), state, allowed);
        }
        let other = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        let both_before = has(&before, "Approved") && has(&before, "Denied");
        if !other.is_empty() && !both_before && has(&now[..i], other) {
            errors.invalid(&at, kind, "Approved and Denied conditions are mutually exclusive");
        }
        if !twice(&before) && has(&now[..i], kind) {
            errors.duplicate(&below.child("type"), kind);
        }
    }
    let bad = |doc: &Doc| certificate_mistake(doc.str(&[r::STATUS, s::CERTIFICATE]));
    if new.str(&[r::STATUS, s::CERTIFICATE]) != old.str(&[r::STATUS, s::CERTIFICATE])
        && let Some(text) = bad(new).filter(|_| bad(old).is_none())
    {
        errors.invalid(&status.child("certificate"), "<certificate data>", text);
    }
}

/// Why a certificate's bytes are no chain in PEM, as far as PEM itself goes.
fn certificate_mistake(encoded: &str) -> Option<String> {
    let bytes = STANDARD.decode(encoded).ok().filter(|bytes| !bytes.is_empty())?;
    let text = String::from_utf8_lossy(&bytes);
    let mut blocks = 0;
    for part in text.split("-----BEGIN ").skip(1) {
        let (kind, body) = part.split_once("-----").unwrap_or((part, ""));
        if !body.contains(&format!("-----END {kind}-----")) {
            continue;
        }
        if kind != "CERTIFICATE" {
            return Some(format!("only CERTIFICATE PEM blocks are allowed, found {}", quoted(kind)));
        }
        if body.split("-----END").next().is_some_and(|body| body.contains(':')) {
            return Some("no PEM block headers are permitted".to_owned());
        }
        blocks += 1;
    }
    (blocks == 0).then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}

/// Types whose generation rises with anything but their metadata.
pub static VERSIONED: Strategy = Strategy {
    generation: GenerationRule::Everything,
    allow_unconditional_update: false,
    columns: &columns::others::WEBHOOKS,
    ..Strategy::BASE
};
