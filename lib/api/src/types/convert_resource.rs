//! Devices and their requests in resource.k8s.io: v1 and v1beta1 lay the same fields at different depths.

use crate::doc::Struct;
use crate::f::resource_v1 as r1;
use crate::f::resource_v1beta1 as beta;
use crate::schema::{Field, TypeId};
use crate::t;
use crate::types::convert::retype_same;

/// What one version holds itself the other holds in a child.
struct Fold {
    flat: TypeId,
    deep: TypeId,
    child: Field,
    child_type: TypeId,
}

const FOLDS: [Fold; 2] = [
    Fold {
        flat: t::resource_v1::DEVICE,
        deep: t::resource_v1beta1::DEVICE,
        child: beta::device::BASIC,
        child_type: t::resource_v1beta1::BASIC_DEVICE,
    },
    Fold {
        flat: t::resource_v1beta1::DEVICE_REQUEST,
        deep: t::resource_v1::DEVICE_REQUEST,
        child: r1::device_request::EXACTLY,
        child_type: t::resource_v1::EXACT_DEVICE_REQUEST,
    },
];

/// Whether objects of these types hold something that is folded.
pub fn has_folds(from: TypeId, to: TypeId) -> bool {
    const OLD: [TypeId; 3] = [
        t::resource_v1beta1::RESOURCE_SLICE,
        t::resource_v1beta1::RESOURCE_CLAIM,
        t::resource_v1beta1::RESOURCE_CLAIM_TEMPLATE,
    ];
    const NEW: [TypeId; 3] = [
        t::resource_v1::RESOURCE_SLICE,
        t::resource_v1::RESOURCE_CLAIM,
        t::resource_v1::RESOURCE_CLAIM_TEMPLATE,
    ];
    OLD.into_iter().zip(NEW).any(|pair| pair == (from, to) || pair == (to, from))
}

/// The struct as the other version lays it; `None` where it is not of those that differ.
pub fn folded(from: &Struct, to: TypeId) -> Option<Struct> {
    let pair = (from.ty(), to);
    let fold = FOLDS.iter().find(|fold| pair == (fold.flat, fold.deep) || pair == (fold.deep, fold.flat))?;
    let mut out = retype_same(from, to);
    if to == fold.deep {
        let child = retype_same(from, fold.child_type);
        if child.iter().next().is_some() {
            out.set(fold.child, child);
        }
    } else if let Some(child) = from.child(fold.child) {
        for (index, value) in retype_same(child, to).iter() {
            out.set_index(index, value.clone());
        }
    }
    Some(out)
}
