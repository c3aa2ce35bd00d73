//! What steers scheduling: tolerations, affinities, topology spread, node selectors; and label selectors of specs.

use crate::doc::{Struct, Value};
use crate::f::core_v1 as c;
use crate::f::meta_v1 as m;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::schema::Field;
use crate::types::core::security::optional_one_of;
use crate::types::walk::{pairs, present, strs, structs};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const VALUES_NEEDED: &str = "must be specified when `operator` is 'In' or 'NotIn'";
const VALUES_UNWANTED: &str = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
const BAD_OPERATOR: &str = "not a valid selector operator";

/// A `metav1.LabelSelector`; nothing where it is absent.
pub fn validate_label_selector(selector: Option<&Struct>, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let Some(selector) = selector else { return };
    let labels = path.child("matchLabels");
    for (key, value) in pairs(selector, m::label_selector::MATCH_LABELS) {
        errors.invalid_each(&labels, key, names::qualified_name(key));
        errors.invalid_each(&labels, value, names::label_value(value));
    }
    let expressions = path.child("matchExpressions");
    for (i, expression) in structs(selector, m::label_selector::MATCH_EXPRESSIONS) {
        let at = expressions.index(i);
        let values = at.child("values");
        let count = expression.list(m::label_selector_requirement::VALUES).len();
        match expression.str(m::label_selector_requirement::OPERATOR) {
            "In" | "NotIn" if count == 0 => errors.required(&values, VALUES_NEEDED),
            "Exists" | "DoesNotExist" if count > 0 => errors.forbidden(&values, VALUES_UNWANTED),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&at.child("operator"), other, BAD_OPERATOR),
        }
        let key = expression.str(m::label_selector_requirement::KEY);
        errors.invalid_each(&at.child("key"), key, names::qualified_name(key));
        for (j, value) in strs(expression, m::label_selector_requirement::VALUES) {
            errors.invalid_each(&values.index(j), value, names::label_value(value));
        }
    }
}

/// Drops what is wrong with the values of a selector that an update leaves as it was: old objects may have such.
pub fn forgive_kept_values(new: Option<&Value>, old: Option<&Value>, errors: &mut ErrorList) {
    if crate::types::walk::same(new, old) {
        errors.retain(|error| {
            !(error.field.starts_with("spec.selector.match")
                && error.detail.starts_with("a valid label must be"))
        });
    }
}

/// Whether a label selector has no terms.
pub fn selector_is_empty(selector: Option<&Struct>) -> bool {
    selector.is_none_or(|selector| {
        selector.map(m::label_selector::MATCH_LABELS).is_none_or(|labels| labels.is_empty())
            && selector.list(m::label_selector::MATCH_EXPRESSIONS).is_empty()
    })
}

/// Whether a label selector of a spec matches labels; invalid operators match nothing.
pub fn selector_matches(selector: &Struct, labels: Option<&crate::doc::Map>) -> bool {
    let label = |key: &str| labels.and_then(|labels| labels.get_str(key));
    pairs(selector, m::label_selector::MATCH_LABELS).all(|(key, value)| label(key) == Some(value))
        && structs(selector, m::label_selector::MATCH_EXPRESSIONS).all(|(_, expression)| {
            let value = label(expression.str(m::label_selector_requirement::KEY));
            let among = value.is_some_and(|value| {
                strs(expression, m::label_selector_requirement::VALUES).any(|(_, one)| one == value)
            });
            match expression.str(m::label_selector_requirement::OPERATOR) {
                "In" => among,
                "NotIn" => !among,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// `tolerations`.
pub fn validate_tolerations(spec: &Struct, comparisons: bool, path: &FieldPath<'_>, errors: &mut ErrorList) {
    validate_toleration_list(spec.list(c::pod_spec::TOLERATIONS), comparisons, path, errors);
}

/// Tolerations, of a pod or of a RuntimeClass.
pub fn validate_toleration_list(
    list: &[Value],
    comparisons: bool,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    use c::toleration as tol;
    for (i, toleration) in list.iter().enumerate().filter_map(|(i, one)| Some((i, one.as_struct()?))) {
        let at = path.index(i);
        let key = toleration.str(tol::KEY);
        let operator = toleration.str(tol::OPERATOR);
        let value = toleration.str(tol::VALUE);
        let effect = toleration.str(tol::EFFECT);
        if !key.is_empty() {
            errors.invalid_each(&at.child("key"), key, names::qualified_name(key));
        } else if operator != "Exists" {
            let text =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&at.child("operator"), operator, text);
        }
        if present(toleration, tol::TOLERATION_SECONDS) && effect != "NoExecute" {
            errors.invalid(
                &at.child("effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        match operator {
            "Equal" | "" => {
                let messages = names::label_value(value);
                if !messages.is_empty() {
                    errors.invalid(&at.child("operator"), value, messages.join(";"));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    errors.invalid(
                        &at.child("operator"),
                        value,
                        "value must be empty when `operator` is 'Exists'",
                    );
                }
            }
            "Lt" | "Gt" if comparisons => {
                if value.parse::<i64>().is_err() {
                    errors.invalid(&at.child("value"), value, "must be a valid integer");
                }
            }
            "Lt" | "Gt" => {
                errors.not_supported(&at.child("operator"), operator, &["Equal", "Exists", "Lt", "Gt"]);
            }
            other => errors.not_supported(&at.child("operator"), other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() && !EFFECTS.contains(&effect) {
            errors.not_supported(&at.child("effect"), effect, &EFFECTS);
        }
    }
}

/// A taint's effect.
pub fn validate_taint_effect(effect: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if effect.is_empty() {
        errors.required(path, "");
    } else if !EFFECTS.contains(&effect) {
        errors.not_supported(path, effect, &EFFECTS);
    }
}

/// `affinity`.
pub fn validate_affinity(affinity: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if let Some(node) = affinity.child(c::affinity::NODE_AFFINITY) {
        node_affinity(node, &path.child("nodeAffinity"), errors);
    }
    if let Some(pod) = affinity.child(c::affinity::POD_AFFINITY) {
        let at = path.child("podAffinity");
        pod_terms(
            pod,
            c::pod_affinity::REQUIRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION,
            c::pod_affinity::PREFERRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION,
            &at,
            errors,
        );
    }
    if let Some(pod) = affinity.child(c::affinity::POD_ANTI_AFFINITY) {
        let at = path.child("podAntiAffinity");
        pod_terms(
            pod,
            c::pod_anti_affinity::REQUIRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION,
            c::pod_anti_affinity::PREFERRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION,
            &at,
            errors,
        );
    }
}

fn node_affinity(affinity: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::node_affinity as na;
    if let Some(selector) = affinity.child(na::REQUIRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION) {
        let at = path.child("requiredDuringSchedulingIgnoredDuringExecution");
        validate_node_selector(selector, &at, errors);
    }
    let at = path.child("preferredDuringSchedulingIgnoredDuringExecution");
    for (i, term) in structs(affinity, na::PREFERRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION) {
        let at = at.index(i);
        weight(term.int(c::preferred_scheduling_term::WEIGHT), &at, errors);
        if let Some(preference) = term.child(c::preferred_scheduling_term::PREFERENCE) {
            node_selector_term(preference, false, &at.child("preference"), errors);
        }
    }
}

fn weight(weight: Option<i64>, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let weight = weight.unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

/// A node selector: at least one term.
pub fn validate_node_selector(selector: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let terms = path.child("nodeSelectorTerms");
    if selector.list(c::node_selector::NODE_SELECTOR_TERMS).is_empty() {
        errors.required(&terms, "must have at least one node selector term");
    }
    for (i, term) in structs(selector, c::node_selector::NODE_SELECTOR_TERMS) {
        node_selector_term(term, true, &terms.index(i), errors);
    }
}

fn node_selector_term(term: &Struct, check_values: bool, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::node_selector_requirement as r;
    let expressions = path.child("matchExpressions");
    for (i, requirement) in structs(term, c::node_selector_term::MATCH_EXPRESSIONS) {
        let at = expressions.index(i);
        let values = at.child("values");
        let count = requirement.list(r::VALUES).len();
        match requirement.str(r::OPERATOR) {
            "In" | "NotIn" if count == 0 => errors.required(&values, VALUES_NEEDED),
            "Exists" | "DoesNotExist" if count > 0 => errors.forbidden(&values, VALUES_UNWANTED),
            "Gt" | "Lt" if count != 1 => {
                errors.required(&values, "must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errors.invalid(&at.child("operator"), other, BAD_OPERATOR),
        }
        let key = requirement.str(r::KEY);
        errors.invalid_each(&at.child("key"), key, names::qualified_name(key));
        if check_values {
            for (j, value) in strs(requirement, r::VALUES) {
                errors.invalid_each(&values.index(j), value, names::label_value(value));
            }
        }
    }
    let fields = path.child("matchFields");
    for (i, requirement) in structs(term, c::node_selector_term::MATCH_FIELDS) {
        let at = fields.index(i);
        let values = at.child("values");
        match requirement.str(r::OPERATOR) {
            "In" | "NotIn" => {
                if requirement.list(r::VALUES).len() != 1 {
                    let text =
                        "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                    errors.required(&values, text);
                }
            }
            other => errors.invalid(&at.child("operator"), other, BAD_OPERATOR),
        }
        let key = requirement.str(r::KEY);
        if key == "metadata.name" {
            for (j, value) in strs(requirement, r::VALUES) {
                errors.invalid_each(&values.index(j), value, names::dns1123_subdomain(value));
            }
        } else {
            errors.invalid(&at.child("key"), key, "not a valid field selector key");
        }
    }
}

fn pod_terms(
    affinity: &Struct,
    required: Field,
    preferred: Field,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    let at = path.child(required.def().json);
    for (i, term) in structs(affinity, required) {
        pod_term(term, &at.index(i), errors);
    }
    let at = path.child(preferred.def().json);
    for (i, weighted) in structs(affinity, preferred) {
        let at = at.index(i);
        weight(weighted.int(c::weighted_pod_affinity_term::WEIGHT), &at, errors);
        let empty = Struct::new(crate::t::core_v1::POD_AFFINITY_TERM);
        let term = weighted.child(c::weighted_pod_affinity_term::POD_AFFINITY_TERM).unwrap_or(&empty);
        pod_term(term, &at.child("podAffinityTerm"), errors);
    }
}

fn pod_term(term: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::pod_affinity_term as p;
    let selector = term.child(p::LABEL_SELECTOR);
    validate_label_selector(selector, &path.child("labelSelector"), errors);
    validate_label_selector(term.child(p::NAMESPACE_SELECTOR), &path.child("namespaceSelector"), errors);
    for (_, name) in strs(term, p::NAMESPACES) {
        errors.invalid_each(&path.child("namespace"), name, names::dns1123_label(name));
    }
    label_keys(term, p::MATCH_LABEL_KEYS, selector, path, errors);
    label_keys(term, p::MISMATCH_LABEL_KEYS, selector, path, errors);
    keys_in_selector(term, p::MATCH_LABEL_KEYS, selector, path, errors);
    let keys = path.child("matchLabelKeys");
    for (i, key) in strs(term, p::MATCH_LABEL_KEYS) {
        if strs(term, p::MISMATCH_LABEL_KEYS).any(|(_, other)| other == key) {
            errors.invalid(&keys.index(i), key, "exists in both matchLabelKeys and mismatchLabelKeys");
        }
    }
    let topology = term.str(p::TOPOLOGY_KEY);
    if topology.is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    }
    errors.invalid_each(&path.child("topologyKey"), topology, names::qualified_name(topology));
}

fn label_keys(
    s: &Struct,
    field: Field,
    selector: Option<&Struct>,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    if s.list(field).is_empty() {
        return;
    }
    let at = path.child(field.def().json);
    if selector.is_none() {
        errors.forbidden(&at, "must not be specified when labelSelector is not set");
        return;
    }
    for (i, key) in strs(s, field) {
        errors.invalid_each(&at.index(i), key, names::qualified_name(key));
    }
}

/// A key both in `matchLabelKeys` and said twice in the selector: once by the merge of the keys, once by the client.
fn keys_in_selector(
    s: &Struct,
    field: Field,
    selector: Option<&Struct>,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    use crate::f::meta_v1 as m;
    let Some(selector) = selector.filter(|_| !s.list(field).is_empty()) else { return };
    let mut seen: Vec<&str> =
        crate::types::walk::pairs(selector, m::label_selector::MATCH_LABELS).map(|(key, _)| key).collect();
    for (_, one) in structs(selector, m::label_selector::MATCH_EXPRESSIONS) {
        let key = one.str(m::label_selector_requirement::KEY);
        let at = strs(s, field).filter(|(_, other)| *other == key).last();
        if let Some((i, _)) = at.filter(|_| seen.contains(&key)) {
            errors.invalid(&path.index(i), key, "exists in both matchLabelKeys and labelSelector");
        }
        seen.push(key);
    }
}

/// `topologySpreadConstraints`.
pub fn validate_topology_spread(spec: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    use c::topology_spread_constraint as tsc;
    let all: Vec<(usize, &Struct)> = structs(spec, c::pod_spec::TOPOLOGY_SPREAD_CONSTRAINTS).collect();
    for (position, (i, constraint)) in all.iter().enumerate() {
        let at = path.index(*i);
        let skew = constraint.int(tsc::MAX_SKEW).unwrap_or(0);
        if skew <= 0 {
            errors.invalid(&at.child("maxSkew"), skew, "must be greater than zero");
        }
        let key = constraint.str(tsc::TOPOLOGY_KEY);
        if key.is_empty() {
            errors.required(&at.child("topologyKey"), "can not be empty");
        }
        let when = constraint.str(tsc::WHEN_UNSATISFIABLE);
        if !matches!(when, "DoNotSchedule" | "ScheduleAnyway") {
            errors.not_supported(&at.child("whenUnsatisfiable"), when, &["DoNotSchedule", "ScheduleAnyway"]);
        }
        let repeated = all[position + 1..].iter().any(|(_, other)| {
            other.str(tsc::TOPOLOGY_KEY) == key && other.str(tsc::WHEN_UNSATISFIABLE) == when
        });
        if repeated {
            let text = format!("{{{key}, {when}}}");
            errors.duplicate(&at.child("{topologyKey, whenUnsatisfiable}"), text);
        }
        if let Some(domains) = constraint.int(tsc::MIN_DOMAINS) {
            if domains <= 0 {
                errors.invalid(&at.child("minDomains"), domains, "must be greater than zero");
            }
            if when != "DoNotSchedule" {
                let text = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
                errors.invalid(&at.child("minDomains"), domains, text);
            }
        }
        for field in [tsc::NODE_AFFINITY_POLICY, tsc::NODE_TAINTS_POLICY] {
            optional_one_of(constraint, field, &["Honor", "Ignore"], &at, errors);
        }
        let selector = constraint.child(tsc::LABEL_SELECTOR);
        label_keys(constraint, tsc::MATCH_LABEL_KEYS, selector, &at, errors);
        keys_in_selector(constraint, tsc::MATCH_LABEL_KEYS, selector, &at, errors);
        validate_label_selector(selector, &at.child("labelSelector"), errors);
    }
}

/// Existing tolerations stay as they are but for their seconds; new ones may join.
pub fn validate_only_added_tolerations(
    new: &Struct,
    old: &Struct,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    let without_seconds = |toleration: &Struct| {
        let mut toleration = toleration.clone();
        toleration.remove(c::toleration::TOLERATION_SECONDS);
        toleration
    };
    let now: Vec<Struct> =
        structs(new, c::pod_spec::TOLERATIONS).map(|(_, toleration)| without_seconds(toleration)).collect();
    for (_, toleration) in structs(old, c::pod_spec::TOLERATIONS) {
        if !now.contains(&without_seconds(toleration)) {
            errors.forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
            return;
        }
    }
}
