//! Fields behind feature gates: dropped on write while a gate of theirs is off, unless the old object uses them already.

use std::collections::HashSet;
use std::sync::OnceLock;

use keelson_base::gates::Gates;

use crate::doc::{Doc, Struct, Value};
use crate::schema::TypeId;

/// A gated field, whichever object of its type holds it.
type Place = (TypeId, u16);

/// Drops from the new object what closed gates cover. A field that the old object uses anywhere stays allowed everywhere, as
/// upstream has it: switching a gate off must not break objects that are there.
pub fn drop_disabled(new: &mut Doc, old: Option<&Doc>, gates: &Gates) {
    let Value::Struct(root) = &mut new.root else { return };
    let mut used = None;
    walk_mut(root, &mut |of, index| {
        let field = &of.def().fields[index as usize];
        if field.gates().all(|gate| gates.enabled(gate)) {
            return true;
        }
        used.get_or_insert_with(|| uses(old)).contains(&(of, index))
    });
}

fn uses(old: Option<&Doc>) -> HashSet<Place> {
    let mut used = HashSet::new();
    if let Some(Value::Struct(root)) = old.map(|old| &old.root) {
        walk(root, &mut used);
    }
    used
}

fn walk(of: &Struct, used: &mut HashSet<Place>) {
    let ty = of.ty();
    for &index in steps(ty) {
        let Some(value) = of.get_index(index) else { continue };
        if !ty.def().fields[index as usize].ext.gates.is_empty() {
            used.insert((ty, index));
        }
        each(value, &mut |inner| walk(inner, used));
    }
}

fn each(value: &Value, visit: &mut dyn FnMut(&Struct)) {
    match value {
        Value::Struct(inner) => visit(inner),
        Value::List(items) => items.iter().for_each(|item| each(item, visit)),
        Value::Map(map) => map.iter().for_each(|(_, item)| each(item, visit)),
        _ => {}
    }
}

/// Removes the gated fields for which `keep` says no.
fn walk_mut(of: &mut Struct, keep: &mut dyn FnMut(TypeId, u16) -> bool) {
    let ty = of.ty();
    for &index in steps(ty) {
        if of.get_index(index).is_none() {
            continue;
        }
        if !ty.def().fields[index as usize].ext.gates.is_empty() && !keep(ty, index) {
            of.remove_index(index);
        } else if let Some(value) = of.get_index_mut(index) {
            value_mut(value, keep);
        }
    }
}

fn value_mut(value: &mut Value, keep: &mut dyn FnMut(TypeId, u16) -> bool) {
    match value {
        Value::Struct(inner) => walk_mut(inner, keep),
        Value::List(items) => items.iter_mut().for_each(|item| value_mut(item, keep)),
        Value::Map(map) => map.iter_mut().for_each(|(_, item)| value_mut(item, keep)),
        _ => {}
    }
}

/// Fields that are gated, or under which something may be.
fn steps(ty: TypeId) -> &'static [u16] {
    static STEPS: OnceLock<Vec<Vec<u16>>> = OnceLock::new();
    &STEPS.get_or_init(make_steps)[ty.0 as usize]
}

fn make_steps() -> Vec<Vec<u16>> {
    // Types nest in circles, so the fact grows until it stays.
    let mut reaches = vec![false; TypeId::all().count()];
    loop {
        let mut changed = false;
        for ty in TypeId::all().filter(|ty| !reaches[ty.0 as usize]).collect::<Vec<_>>() {
            let reached = ty.def().fields.iter().any(|field| {
                !field.ext.gates.is_empty()
                    || field.kind.element_struct().is_some_and(|inner| reaches[inner.0 as usize])
            });
            reaches[ty.0 as usize] = reached;
            changed |= reached;
        }
        if !changed {
            break;
        }
    }
    let step = |field: &crate::schema::FieldDef| {
        !field.ext.gates.is_empty()
            || field.kind.element_struct().is_some_and(|inner| reaches[inner.0 as usize])
    };
    TypeId::all()
        .map(|ty| {
            let fields = ty.def().fields.iter().enumerate();
            fields.filter(|(_, field)| step(field)).map(|(index, _)| index as u16).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{self, EncodeOptions, FieldValidation};
    use crate::t;

    fn pod(spec: &str) -> Doc {
        let input = format!("{{\"spec\":{{\"containers\":[{{\"name\":\"a\"}}]{spec}}}}}");
        json::decode(t::core_v1::POD, input.as_bytes(), FieldValidation::Strict).expect("decodes").0
    }

    fn text(doc: &Doc) -> String {
        let mut out = Vec::new();
        json::encode_canonical(doc, EncodeOptions::STORED, &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn a_closed_gate_drops_its_field() {
        let alpha = r#","workloadRef":{"name":"w","podGroup":"g"}"#;
        let mut gates = Gates::default();
        let mut new = pod(alpha);
        drop_disabled(&mut new, None, &gates);
        assert_eq!(text(&new), text(&pod("")), "GenericWorkload is off by default");

        let mut new = pod(alpha);
        drop_disabled(&mut new, Some(&pod(alpha)), &gates);
        assert_eq!(text(&new), text(&pod(alpha)), "the old object uses it");

        gates.set("GenericWorkload", true).expect("a gate");
        let mut new = pod(alpha);
        drop_disabled(&mut new, Some(&pod("")), &gates);
        assert_eq!(text(&new), text(&pod(alpha)), "the gate is on");
    }

    #[test]
    fn fields_without_a_gate_stay() {
        let spec = r#","nodeName":"n","hostUsers":false"#;
        let mut new = pod(spec);
        drop_disabled(&mut new, None, &Gates::default());
        assert_eq!(text(&new), text(&pod(spec)));
    }

    #[test]
    fn every_gate_of_the_table_is_known() {
        let mut gates = Gates::default();
        for field in TypeId::all().flat_map(|ty| ty.def().fields) {
            for gate in field.gates() {
                assert!(gates.set(gate, true).is_ok(), "{gate}");
            }
        }
    }
}
