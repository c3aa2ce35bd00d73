//! Namespaces: their own finalizer list, phase, the name label.

use crate::doc::{Doc, Struct, Value};
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::t::core_v1 as t;
use crate::types::walk::{child_entry, default_str, strs};
use crate::types::{Ctx, SelectableFields, Strategy, columns, meta};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const FINALIZER: &str = "kubernetes";
const SPEC: FieldPath<'static> = FieldPath::new("spec");

/// The rules of Namespaces.
pub static STRATEGY: Strategy = Strategy {
    name_rule: names::name_is_label,
    defaults: |doc| {
        let name = doc.meta().name().to_owned();
        if !name.is_empty() {
            doc.meta_mut().set_label(NAME_LABEL, &name);
        }
        let status = doc.root_mut().and_then(|root| child_entry(root, c::namespace::STATUS));
        if let Some(status) = status {
            default_str(status, c::namespace_status::PHASE, "Active");
        }
    },
    prepare_create,
    prepare_update: |new, old, ctx| {
        if ctx.subresource != "finalize" {
            let path = [c::namespace::SPEC, c::namespace_spec::FINALIZERS];
            match old.get(&path) {
                Some(list) => new.set(&path, list.clone()),
                None => {
                    new.remove(&path);
                }
            }
        }
    },
    validate_create: |doc, _, errors| finalizers(doc, false, errors),
    validate_update: |new, _, ctx, errors| finalizers(new, ctx.subresource == "finalize", errors),
    validate_status_update: |new, _, _, errors| {
        let phase = new.str(&[c::namespace::STATUS, c::namespace_status::PHASE]);
        let status = FieldPath::new("status");
        let at = status.child("Phase");
        if new.meta().is_being_deleted() {
            if phase != "Terminating" {
                errors.invalid(&at, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty");
            }
        } else if phase != "Active" {
            errors.invalid(&at, phase, "may only be 'Active' if `deletionTimestamp` is empty");
        }
    },
    selectable: &["metadata.name", "status.phase"],
    selectable_fields: |doc| {
        let phase = doc.str(&[c::namespace::STATUS, c::namespace_status::PHASE]);
        SelectableFields::from_iter([("status.phase", phase.into())])
    },
    columns: &columns::core::NAMESPACE,
    ..Strategy::BASE
};

fn prepare_create(doc: &mut Doc, _: &Ctx<'_>) {
    let name = doc.meta().name().to_owned();
    if !name.is_empty() {
        doc.meta_mut().set_label(NAME_LABEL, &name);
    }
    let mut status = Struct::new(t::NAMESPACE_STATUS);
    status.set(c::namespace_status::PHASE, "Active");
    doc.set(&[c::namespace::STATUS], status);
    let list = doc.entry(&[c::namespace::SPEC, c::namespace_spec::FINALIZERS]);
    if let Some(list) = list.and_then(Value::as_list_mut)
        && !list.iter().any(|one| one.as_str() == Some(FINALIZER))
    {
        list.push(Value::from(FINALIZER));
    }
}

fn finalizers(doc: &Doc, indexed: bool, errors: &mut ErrorList) {
    let Some(spec) = doc.root().and_then(|root| root.child(c::namespace::SPEC)) else { return };
    let list = SPEC.child("finalizers");
    for (i, name) in strs(spec, c::namespace_spec::FINALIZERS) {
        let indexed_path = list.index(i);
        let at = if indexed { &indexed_path } else { &list };
        errors.invalid_each(at, name, names::qualified_name(name));
        meta::finalizer_name(name, at, errors);
    }
}
