//! FlowSchemas and PriorityLevelConfigurations (upstream: `pkg/apis/flowcontrol/validation`).

use crate::doc::{Doc, Struct};
use crate::f::flowcontrol_v1 as fc;
use crate::field_errors::{ErrorList, FieldPath};
use crate::schema::Field;
use crate::types::walk::{json_text, present, strs, structs};
use crate::types::{Strategy, columns};
use crate::{names, t};

use super::storage::versioned;

const SPEC: FieldPath<'static> = FieldPath::new("spec");
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const MOST_QUEUES: i64 = 10_000_000;
const SHARES: &str = "must be a non-negative integer";
const PERCENT: &str = "must be between 0 and 100, inclusive";

pub static FLOW_SCHEMA: Strategy = Strategy {
    validate_create: |doc, _, errors| flow_schema(doc, errors),
    validate_update: |new, _, _, errors| flow_schema(new, errors),
    ..versioned(&columns::storage::FLOW_SCHEMA)
};

pub static PRIORITY_LEVEL: Strategy = Strategy {
    validate_create: |doc, _, errors| priority_level(doc, errors),
    validate_update: |new, _, _, errors| priority_level(new, errors),
    ..versioned(&columns::storage::PRIORITY_LEVEL)
};

fn flow_schema(doc: &Doc, errors: &mut ErrorList) {
    use fc::flow_schema_spec as s;
    let empty = Struct::new(t::flowcontrol_v1::FLOW_SCHEMA_SPEC);
    let spec = doc.root().and_then(|root| root.child(fc::flow_schema::SPEC)).unwrap_or(&empty);
    let (precedence, at) = (spec.int(s::MATCHING_PRECEDENCE).unwrap_or(0), SPEC.child("matchingPrecedence"));
    if precedence <= 0 {
        errors.invalid(&at, precedence, "must be a positive value");
    }
    if precedence > 10_000 {
        errors.invalid(&at, precedence, "must not be greater than 10000");
    }
    if precedence == 1 && doc.meta().name() != "exempt" {
        errors.invalid(&at, precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    if let Some(method) = spec.child(s::DISTINGUISHER_METHOD)
        && !matches!(method.str(fc::flow_distinguisher_method::TYPE), "ByNamespace" | "ByUser")
    {
        let at = SPEC.child("distinguisherMethod");
        let shown = json_text(spec.get(s::DISTINGUISHER_METHOD));
        errors.not_supported(&at.child("type"), shown, &["ByNamespace", "ByUser"]);
    }
    let level = spec.child(s::PRIORITY_LEVEL_CONFIGURATION);
    let name = level.map_or("", |level| level.str(fc::priority_level_configuration_reference::NAME));
    let at = SPEC.child("priorityLevelConfiguration");
    if name.is_empty() {
        errors.required(&at.child("name"), "must reference a priority level");
    } else {
        errors.invalid_each(&at.child("name"), name, names::name_is_subdomain(name, false));
    }
    let at = SPEC.child("rules");
    for (i, rule) in structs(spec, s::RULES) {
        policy_rules(rule, &at.index(i), errors);
    }
}

fn policy_rules(rule: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use fc::policy_rules_with_subjects as r;
    let at = path.child("subjects");
    if rule.list(r::SUBJECTS).is_empty() {
        errors.required(&at, "subjects must contain at least one value");
    }
    for (i, one) in structs(rule, r::SUBJECTS) {
        subject(one, &at.index(i), errors);
    }
    if rule.list(r::RESOURCE_RULES).is_empty() && rule.list(r::NON_RESOURCE_RULES).is_empty() {
        errors.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    let at = path.child("resourceRules");
    for (i, one) in structs(rule, r::RESOURCE_RULES) {
        resource_rule(one, &at.index(i), errors);
    }
    let at = path.child("nonResourceRules");
    for (i, one) in structs(rule, r::NON_RESOURCE_RULES) {
        non_resource_rule(one, &at.index(i), errors);
    }
}

/// One of three kinds, and nothing of the other two.
fn subject(subject: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use fc::subject as s;
    const KINDS: [(&str, &str, Field); 3] = [
        ("Group", "group", s::GROUP),
        ("ServiceAccount", "serviceAccount", s::SERVICE_ACCOUNT),
        ("User", "user", s::USER),
    ];
    let kind = subject.str(s::KIND);
    let Some((_, member, field)) = KINDS.iter().find(|(known, ..)| *known == kind) else {
        errors.not_supported(&path.child("kind"), kind, &["Group", "ServiceAccount", "User"]);
        return;
    };
    let at = path.child(member);
    match subject.child(*field) {
        None => errors.required(&at, format!("{member} is required when subject kind is '{kind}'")),
        Some(account) if kind == "ServiceAccount" => service_account(account, &at, errors),
        Some(named) => {
            let name = if kind == "User" { fc::user_subject::NAME } else { fc::group_subject::NAME };
            if named.str(name).is_empty() {
                errors.required(&at.child("name"), "");
            }
        }
    }
    for (other, member, field) in KINDS.iter().filter(|(other, ..)| *other != kind) {
        if present(subject, *field) {
            let text = format!("{member} is forbidden when subject kind is not '{other}'");
            errors.forbidden(&path.child(member), text);
        }
    }
}

fn service_account(account: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use fc::service_account_subject as s;
    let (name, namespace) = (account.str(s::NAME), account.str(s::NAMESPACE));
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else if name != "*" {
        errors.invalid_each(&path.child("name"), name, names::name_is_subdomain(name, false));
    }
    if namespace.is_empty() {
        errors.required(&path.child("namespace"), "must specify namespace for service account");
    } else {
        errors.invalid_each(&path.child("namespace"), namespace, names::name_is_label(namespace, false));
    }
}

/// A list that is not empty and has `*` alone or not at all. Whether its members are to be looked at.
fn wildcard_list(
    rule: &Struct,
    (field, what): (Field, &str),
    missing: Option<&str>,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) -> bool {
    let at = path.child(field.def().json);
    let count = rule.list(field).len();
    let wild = strs(rule, field).any(|(_, one)| one == "*");
    if let Some(missing) = missing.filter(|_| count == 0) {
        errors.required(&at, missing);
    } else if wild && count > 1 {
        let text = format!("if '*' is present, must not specify other {what}");
        errors.invalid(&at, json_text(rule.get(field)), text);
    }
    count > 0 && !wild
}

fn verbs(rule: &Struct, field: Field, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let missing = Some("verbs must contain at least one value");
    let plain = wildcard_list(rule, (field, "verbs"), missing, path, errors);
    if plain && strs(rule, field).any(|(_, verb)| !VERBS.contains(&verb)) {
        errors.not_supported(&path.child("verbs"), json_text(rule.get(field)), &VERBS);
    }
}

fn resource_rule(rule: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use fc::resource_policy_rule as r;
    verbs(rule, r::VERBS, path, errors);
    let missing = Some("resource rules must supply at least one api group");
    wildcard_list(rule, (r::API_GROUPS, "api groups"), missing, path, errors);
    let missing = Some("resource rules must supply at least one resource");
    wildcard_list(rule, (r::RESOURCES, "resources"), missing, path, errors);
    let missing = "resource rules that are not cluster scoped must supply at least one namespace";
    let missing = Some(missing).filter(|_| rule.bool(r::CLUSTER_SCOPE) != Some(true));
    if wildcard_list(rule, (r::NAMESPACES, "namespaces"), missing, path, errors) {
        let at = path.child("namespaces");
        for (i, namespace) in strs(rule, r::NAMESPACES) {
            for wrong in names::name_is_label(namespace, false) {
                let text = format!("each member of this list must be '*' or a DNS-1123 label; {wrong}");
                errors.invalid(&at.index(i), namespace, text);
            }
        }
    }
}

fn non_resource_rule(rule: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use fc::non_resource_policy_rule as r;
    verbs(rule, r::VERBS, path, errors);
    let missing = Some("nonResourceURLs must contain at least one value");
    if wildcard_list(rule, (r::NON_RESOURCE_URLS, "non-resource URLs"), missing, path, errors) {
        let at = path.child("nonResourceURLs");
        for (i, url) in strs(rule, r::NON_RESOURCE_URLS) {
            url_path(url, &at.index(i), errors);
        }
    }
}

fn url_path(url: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if url.is_empty() {
        return errors.invalid(path, url, "must not be empty");
    }
    if url == "/" {
        return;
    }
    if !url.starts_with('/') {
        return errors.invalid(path, url, "must start with slash");
    }
    if url.contains(' ') {
        return errors.invalid(path, url, "must not contain white-space");
    }
    if url.contains("//") {
        return errors.invalid(path, url, "must not contain double slash");
    }
    let wild = url.find('*');
    if wild.is_some_and(|at| at + 1 != url.len() || !url.ends_with("/*")) {
        errors.invalid(path, url, "wildcard can only do suffix matching");
    }
}

fn priority_level(doc: &Doc, errors: &mut ErrorList) {
    use fc::priority_level_configuration_spec as s;
    let empty = Struct::new(t::flowcontrol_v1::PRIORITY_LEVEL_CONFIGURATION_SPEC);
    let spec =
        doc.root().and_then(|root| root.child(fc::priority_level_configuration::SPEC)).unwrap_or(&empty);
    let (kind, at) = (spec.str(s::TYPE), SPEC.child("type"));
    if (doc.meta().name() == "exempt") != (kind == "Exempt") {
        errors.invalid(&at, kind, "must be 'Exempt' if and only if `name` is 'exempt'");
    }
    match kind {
        "Exempt" => {
            if present(spec, s::LIMITED) {
                errors.forbidden(&SPEC.child("limited"), "must be nil if the type is not Limited");
            }
            if let Some(exempt) = spec.child(s::EXEMPT) {
                use fc::exempt_priority_level_configuration as e;
                let at = SPEC.child("exempt");
                negative(exempt, e::NOMINAL_CONCURRENCY_SHARES, SHARES, &at, errors);
                percent(exempt, e::LENDABLE_PERCENT, &at, errors);
            }
        }
        "Limited" => {
            if present(spec, s::EXEMPT) {
                errors.forbidden(&SPEC.child("exempt"), "must be nil if the type is Limited");
            }
            let at = SPEC.child("limited");
            match spec.child(s::LIMITED) {
                None => errors.required(&at, "must not be empty when type is Limited"),
                Some(limits) => limited(limits, &at, errors),
            }
        }
        other => errors.not_supported(&at, other, &["Exempt", "Limited"]),
    }
}

fn limited(limits: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use fc::limited_priority_level_configuration as l;
    negative(limits, l::NOMINAL_CONCURRENCY_SHARES, SHARES, path, errors);
    let empty = Struct::new(t::flowcontrol_v1::LIMIT_RESPONSE);
    let response = limits.child(l::LIMIT_RESPONSE).unwrap_or(&empty);
    let at = path.child("limitResponse");
    let queuing = response.child(fc::limit_response::QUEUING);
    match (response.str(fc::limit_response::TYPE), queuing) {
        ("Reject", Some(_)) => {
            let text = "must be nil if limited.limitResponse.type is not Limited";
            errors.forbidden(&at.child("queuing"), text);
        }
        ("Queue", None) => {
            let text = "must not be empty if limited.limitResponse.type is Limited";
            errors.required(&at.child("queuing"), text);
        }
        ("Queue", Some(queues)) => queues_fit(queues, &at.child("queuing"), errors),
        ("Reject", None) => {}
        (other, _) => errors.not_supported(&at.child("type"), other, &["Queue", "Reject"]),
    }
    percent(limits, l::LENDABLE_PERCENT, path, errors);
    let text = "if specified, must be a non-negative integer";
    negative(limits, l::BORROWING_LIMIT_PERCENT, text, path, errors);
}

fn queues_fit(queuing: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use fc::queuing_configuration as q;
    let of = |field| queuing.int(field).unwrap_or(0);
    let (queues, hand) = (of(q::QUEUES), of(q::HAND_SIZE));
    if of(q::QUEUE_LENGTH_LIMIT) <= 0 {
        errors.invalid(&path.child("queueLengthLimit"), of(q::QUEUE_LENGTH_LIMIT), "must be positive");
    }
    if queues <= 0 {
        errors.invalid(&path.child("queues"), queues, "must be positive");
    } else if queues > MOST_QUEUES {
        errors.invalid(&path.child("queues"), queues, "must not be greater than 10000000");
    }
    let at = path.child("handSize");
    if hand <= 0 {
        errors.invalid(&at, hand, "must be positive");
    } else if hand > queues {
        errors.invalid(&at, hand, format!("should not be greater than queues ({queues})"));
    } else if entropy_bits(queues, hand) > 60 {
        let text = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than 60"
        );
        errors.invalid(&at, hand, text);
    }
}

/// How many bits it takes to deal such a hand (upstream: `shufflesharding.RequiredEntropyBits`).
fn entropy_bits(deck: i64, hand: i64) -> u32 {
    ((deck as f64).log2() * hand as f64).ceil() as u32
}

fn negative(s: &Struct, field: Field, text: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if let Some(number) = s.int(field).filter(|number| *number < 0) {
        errors.invalid(&path.child(field.def().json), number, text);
    }
}

fn percent(s: &Struct, field: Field, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if let Some(number) = s.int(field).filter(|number| !(0..=100).contains(number)) {
        errors.invalid(&path.child(field.def().json), number, PERCENT);
    }
}
