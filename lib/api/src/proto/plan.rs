//! How a struct's fields lie in its message: ascending numbers, inlined members as messages of their own. Made once per type.

use std::sync::OnceLock;

use crate::schema::{StructDef, TypeId};

/// One message level of a struct.
pub(super) struct Plan {
    /// By ascending number.
    pub(super) entries: Vec<(u32, Item)>,
}

pub(super) enum Item {
    /// Index of the struct's field.
    Field(u16),
    /// An inlined member.
    Embed(Plan),
}

impl Plan {
    pub(super) fn of(ty: TypeId) -> &'static Plan {
        static PLANS: OnceLock<Vec<OnceLock<Plan>>> = OnceLock::new();
        let plans = PLANS.get_or_init(|| TypeId::all().map(|_| OnceLock::new()).collect());
        plans[ty.0 as usize].get_or_init(|| Plan::make(ty.def(), &[]))
    }

    fn make(def: &'static StructDef, level: &[u32]) -> Plan {
        let mut entries = Vec::new();
        for (index, field) in def.fields.iter().enumerate() {
            if field.proto != 0 && field.embed_path(def) == level {
                entries.push((field.proto, Item::Field(index as u16)));
            }
        }
        for embed in def.embeds {
            if let Some((number, above)) = embed.path.split_last()
                && above == level
            {
                entries.push((*number, Item::Embed(Plan::make(def, embed.path))));
            }
        }
        entries.sort_by_key(|(number, _)| *number);
        Plan { entries }
    }

    pub(super) fn item(&self, number: u32) -> Option<&Item> {
        // Numbers are mostly dense from 1.
        match self.entries.get(number as usize - 1) {
            Some((found, item)) if *found == number => Some(item),
            _ => self.entries.binary_search_by_key(&number, |(n, _)| *n).ok().map(|at| &self.entries[at].1),
        }
    }
}
