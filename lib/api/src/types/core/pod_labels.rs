//! `matchLabelKeys` and `mismatchLabelKeys` of a new pod become terms of the selectors beside them.

use crate::doc::{Doc, Map, Struct, Value};
use crate::f::core_v1 as c;
use crate::f::meta_v1 as m;
use crate::schema::Field;
use crate::t::meta_v1 as t;
use crate::types::walk::structs_mut;

/// Merges the keys into the selectors, with the values of the pod's own labels.
pub fn merge(doc: &mut Doc) {
    let Some(labels) = doc.meta().labels().cloned() else { return };
    let Some(spec) = doc.root_mut().and_then(|root| root.child_mut(c::pod::SPEC)) else { return };
    if let Some(affinity) = spec.child_mut(c::pod_spec::AFFINITY) {
        for (kind, required, preferred) in [
            (
                c::affinity::POD_AFFINITY,
                c::pod_affinity::REQUIRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION,
                c::pod_affinity::PREFERRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION,
            ),
            (
                c::affinity::POD_ANTI_AFFINITY,
                c::pod_anti_affinity::REQUIRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION,
                c::pod_anti_affinity::PREFERRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION,
            ),
        ] {
            let Some(terms) = affinity.child_mut(kind) else { continue };
            structs_mut(terms, required).for_each(|term| affinity_term(term, &labels));
            structs_mut(terms, preferred)
                .filter_map(|weighted| weighted.child_mut(c::weighted_pod_affinity_term::POD_AFFINITY_TERM))
                .for_each(|term| affinity_term(term, &labels));
        }
    }
    for constraint in structs_mut(spec, c::pod_spec::TOPOLOGY_SPREAD_CONSTRAINTS) {
        use c::topology_spread_constraint as s;
        apply(constraint, s::MATCH_LABEL_KEYS, s::LABEL_SELECTOR, "In", &labels);
    }
}

fn affinity_term(term: &mut Struct, labels: &Map) {
    use c::pod_affinity_term as p;
    apply(term, p::MATCH_LABEL_KEYS, p::LABEL_SELECTOR, "In", labels);
    apply(term, p::MISMATCH_LABEL_KEYS, p::LABEL_SELECTOR, "NotIn", labels);
}

fn apply(of: &mut Struct, keys: Field, selector: Field, operator: &str, labels: &Map) {
    use m::label_selector_requirement as r;
    let found: Vec<(String, String)> = of
        .list(keys)
        .iter()
        .filter_map(|key| Some((key.as_str()?.to_owned(), labels.get_str(key.as_str()?)?.to_owned())))
        .collect();
    let Some(selector) = of.child_mut(selector).filter(|_| !found.is_empty()) else { return };
    let terms = selector.entry_index(m::label_selector::MATCH_EXPRESSIONS.index);
    if *terms == Value::Null {
        *terms = Value::List(Vec::new());
    }
    let Some(terms) = terms.as_list_mut() else { return };
    for (key, value) in found {
        let mut term = Struct::new(t::LABEL_SELECTOR_REQUIREMENT);
        term.set(r::KEY, key);
        term.set(r::OPERATOR, operator);
        term.set(r::VALUES, vec![Value::from(value)]);
        terms.push(Value::Struct(term));
    }
}
