//! The rows that definitions have in the table.

use std::collections::BTreeMap;
use std::sync::Arc;

use keelson_api::doc::Doc;
use keelson_api::f::apiextensions_v1 as x;
use keelson_api::structural::custom::{self, is_true};
use keelson_api::table::{Resource, Table};

use crate::core::Core;
use crate::keys;

/// What is served of each definition, by its name.
#[derive(Default)]
pub struct Serving {
    rows: BTreeMap<String, Vec<Arc<Resource>>>,
    changed: bool,
}

impl Serving {
    /// Takes over the rows that are in the table already.
    pub fn adopt(&mut self, core: &Core) {
        for row in core.table.load().rows().iter().filter(|row| row.custom.is_some()) {
            self.rows.entry(row.group_resource().to_string()).or_default().push(row.clone());
        }
    }

    /// Sets the rows of a definition to what its status says is established.
    pub fn put(&mut self, doc: &Doc) {
        let name = doc.meta().name();
        let status = doc.root().and_then(|root| root.child(x::custom_resource_definition::STATUS));
        if !status.is_some_and(|status| is_true(status, "Established")) {
            return self.remove(name);
        }
        let rows = match custom::rows(doc) {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(definition = name, %error, "the schema of a definition cannot be read");
                return self.remove(name);
            }
        };
        // A description of a column or a field is no part of a row's text, and has to be published too.
        let alike = |(a, b): (&Arc<Resource>, &Resource)| {
            format!("{a:?}") == format!("{b:?}") && published(a) == published(b)
        };
        let same = self
            .rows
            .get(name)
            .is_some_and(|known| known.len() == rows.len() && known.iter().zip(&rows).all(alike));
        if !same {
            self.rows.insert(name.to_owned(), rows.into_iter().map(Arc::new).collect());
            self.changed = true;
        }
    }

    pub fn remove(&mut self, name: &str) {
        self.changed |= self.rows.remove(name).is_some();
    }

    /// Forgets definitions that are not known.
    pub fn retain<T>(&mut self, known: &BTreeMap<String, T>) {
        let before = self.rows.len();
        self.rows.retain(|name, _| known.contains_key(name));
        self.changed |= self.rows.len() != before;
    }

    /// Swaps in a table with these rows if anything changed since. Caches whose resource is gone end their watches; those whose
    /// selectable fields changed start anew.
    pub fn swap(&mut self, core: &Core) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let before = core.table.load_full();
        let mut table = Table::clone(&before);
        for row in before.rows().iter().filter(|row| row.custom.is_some()) {
            table.remove(&row.group, &row.version, &row.plural);
        }
        for row in self.rows.values().flatten() {
            if is_taken(&table, row) {
                tracing::warn!(resource = %row.group_resource(), "a built-in group version stands where a definition would be served");
                continue;
            }
            table.add(Resource::clone(row));
        }
        let old: BTreeMap<String, Arc<Resource>> = by_prefix(&before);
        let new: BTreeMap<String, Arc<Resource>> = by_prefix(&table);
        // A request that was on its way when an earlier definition went may have made a cache again.
        new.keys().filter(|prefix| !old.contains_key(*prefix)).for_each(|prefix| core.caches.remove(prefix));
        core.table.store(Arc::new(table));
        for (prefix, row) in old {
            let identity = |row: &Resource| row.custom.as_ref().map(|custom| custom.uid.clone());
            let fields = |row: &Resource| row.custom.as_ref().map(|custom| custom.all_selectable.clone());
            match new.get(&prefix) {
                Some(now) if identity(now) != identity(&row) => core.caches.remove(&prefix),
                Some(now) if fields(now) != fields(&row) || now.namespaced != row.namespaced => {
                    core.caches.restart(&prefix);
                }
                Some(_) => {}
                None => core.caches.remove(&prefix),
            }
        }
    }
}

/// A built-in group version is not shared with definitions, nor are the keys of built-in resources.
fn is_taken(table: &Table, row: &Resource) -> bool {
    table.rows().iter().any(|other| {
        other.custom.is_none()
            && other.group == row.group
            && (other.version == row.version || other.plural == row.plural)
    })
}

fn by_prefix(table: &Table) -> BTreeMap<String, Arc<Resource>> {
    let custom = table.rows().iter().filter(|row| row.custom.is_some());
    custom.map(|row| (keys::row_prefix(row), row.clone())).collect()
}

/// What is published of a row beyond its own text.
fn published(row: &Resource) -> Option<(&Option<Box<[u8]>>, &[custom::CustomColumn])> {
    row.custom.as_ref().map(|one| (&one.written, one.columns.as_slice()))
}
