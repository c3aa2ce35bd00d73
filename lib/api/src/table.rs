//! One row per resource: what discovery, routing, OpenAPI, Table output, RBAC and quota read.

use std::sync::Arc;

use compact_str::CompactString;
use keelson_base::gates::Gates;

use crate::schema::{TypeId, Verbs};

/// One served resource version.
#[derive(Clone, Debug)]
pub struct Resource {
    pub group: CompactString,
    pub version: CompactString,
    /// The hub: objects are stored in this version.
    pub storage_version: CompactString,
    pub kind: CompactString,
    pub list_kind: CompactString,
    pub plural: CompactString,
    pub singular: CompactString,
    pub short_names: Vec<CompactString>,
    pub categories: Vec<CompactString>,
    pub namespaced: bool,
    pub verbs: Verbs,
    pub subresources: Vec<Subresource>,
    /// What acts on it; `None`: stored only, and a create says so in a Warning header.
    pub acted_on_by: Option<CompactString>,
    /// Whether objects of it are kept (reviews, bindings and the like are not).
    pub stored: bool,
    /// `None` for custom resources.
    pub ty: Option<TypeId>,
    pub list_ty: Option<TypeId>,
}

impl Resource {
    /// `apps/v1`, `v1`.
    pub fn api_version(&self) -> CompactString {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            compact_str::format_compact!("{}/{}", self.group, self.version)
        }
    }
    /// The subresource of this name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }
}

/// One subresource of a row.
#[derive(Clone, Debug)]
pub struct Subresource {
    pub name: CompactString,
    pub verbs: Verbs,
    /// The type of its body.
    pub group: CompactString,
    pub version: CompactString,
    pub kind: CompactString,
    pub ty: Option<TypeId>,
}

/// All rows in service.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Arc<Resource>>,
}

impl Table {
    /// The built-in rows that the gates let through.
    pub fn builtin(_gates: &Gates) -> Table {
        Table::default()
    }
    pub fn lookup(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.rows.iter().find(|row| row.plural == plural && row.group == group && row.version == version)
    }
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.rows.iter().find(|row| row.kind == kind && row.group == group && row.version == version)
    }
    pub fn rows(&self) -> &[Arc<Resource>] {
        &self.rows
    }
}
