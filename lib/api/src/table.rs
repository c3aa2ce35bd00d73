//! One row per resource: what discovery, routing, OpenAPI, Table output, RBAC and quota read.
//!
//! Built-in rows come from the generated table and the feature gates; custom resources add rows. A table is a value: whoever
//! changes it makes a new one and swaps it in.

use std::collections::HashMap;
use std::sync::Arc;

use compact_str::CompactString;
use keelson_base::gates::Gates;

use crate::doc::Gvk;
use crate::schema::{ResourceDef, TypeId, Verbs, generated};
use crate::structural::custom::Custom;
use crate::types::{Strategy, columns::Columns};

/// One served resource version.
#[derive(Clone, Debug)]
pub struct Resource {
    pub group: CompactString,
    pub version: CompactString,
    /// The group objects are stored under (`events.k8s.io` events are the core group's).
    pub storage_group: CompactString,
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
    /// What a custom resource's definition says of it.
    pub custom: Option<Arc<Custom>>,
}

impl Resource {
    /// `apps/v1`, `v1`.
    pub fn api_version(&self) -> CompactString {
        api_version(&self.group, &self.version)
    }
    /// The `apiVersion` objects are stored in.
    pub fn storage_api_version(&self) -> CompactString {
        api_version(&self.storage_group, &self.storage_version)
    }
    pub fn gvk(&self) -> Gvk {
        Gvk { group: self.group.clone(), version: self.version.clone(), kind: self.kind.clone() }
    }
    /// The kind objects are stored as; another group version's where this row is not the hub.
    pub fn storage_gvk(&self) -> Gvk {
        Gvk {
            group: self.storage_group.clone(),
            version: self.storage_version.clone(),
            kind: self.kind.clone(),
        }
    }
    /// The type objects are stored as; `None` for custom resources.
    pub fn storage_ty(&self) -> Option<TypeId> {
        self.ty.and_then(|_| TypeId::by_gvk(&self.storage_group, &self.storage_version, &self.kind))
    }
    /// Whether this row's version is the one stored.
    pub fn is_hub(&self) -> bool {
        self.group == self.storage_group && self.version == self.storage_version
    }
    /// `deployments.apps`, `pods`: the resource as messages name it.
    pub fn group_resource(&self) -> CompactString {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            compact_str::format_compact!("{}.{}", self.plural, self.group)
        }
    }
    /// The subresource of this name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }
    /// The rules of the type.
    pub fn strategy(&self) -> &'static Strategy {
        crate::types::strategy(self.ty)
    }
    /// Printer columns of the type.
    pub fn columns(&self) -> &'static Columns {
        self.strategy().columns
    }
}

fn api_version(group: &str, version: &str) -> CompactString {
    if group.is_empty() { version.into() } else { compact_str::format_compact!("{group}/{version}") }
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

/// One served group version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupVersion {
    pub group: CompactString,
    pub version: CompactString,
}

/// All rows in service.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Arc<Resource>>,
    by_plural: HashMap<(CompactString, CompactString, CompactString), Arc<Resource>>,
    by_kind: HashMap<(CompactString, CompactString, CompactString), Arc<Resource>>,
    /// Groups in discovery's order, versions in order of preference.
    groups: Vec<(CompactString, Vec<CompactString>)>,
}

impl Table {
    /// The built-in rows that the gates let through.
    pub fn builtin(gates: &Gates) -> Table {
        Table::with_versions(gates, |_, _| None)
    }

    /// As [`Table::builtin`]; `choose` says of a group version whether the administrator turned it on or off (`None`: the
    /// default stays).
    pub fn with_versions(gates: &Gates, choose: impl Fn(&str, &str) -> Option<bool>) -> Table {
        let open = |gate: &str| gate.is_empty() || (gate != "off" && gates.enabled(gate));
        let mut table = Table::default();
        for group in generated::GROUPS {
            for version in group.versions {
                if !choose(group.name, version.version).unwrap_or_else(|| open(version.gate)) {
                    continue;
                }
                for def in version.resources.iter().filter(|def| open(def.gate)) {
                    table.add(builtin_row(group.name, version.version, def));
                }
            }
        }
        table
    }

    /// Adds a row; one of the same group, version and plural is replaced.
    pub fn add(&mut self, row: Resource) {
        self.remove(&row.group.clone(), &row.version.clone(), &row.plural.clone());
        let row = Arc::new(row);
        let key = |name: &CompactString| (row.group.clone(), row.version.clone(), name.clone());
        self.by_plural.insert(key(&row.plural), row.clone());
        self.by_kind.insert(key(&row.kind), row.clone());
        let at = match self.groups.iter().position(|(name, _)| *name == row.group) {
            Some(at) => at,
            None => {
                self.groups.push((row.group.clone(), Vec::new()));
                self.groups.len() - 1
            }
        };
        let versions = &mut self.groups[at].1;
        if !versions.contains(&row.version) {
            versions.push(row.version.clone());
            if row.ty.is_none() {
                versions.sort_by(|a, b| version_order(b).cmp(&version_order(a)).then_with(|| a.cmp(b)));
            }
        }
        self.rows.push(row);
    }

    /// Removes a row.
    pub fn remove(&mut self, group: &str, version: &str, plural: &str) {
        let Some(row) = self.lookup(group, version, plural).cloned() else { return };
        self.by_plural.remove(&(row.group.clone(), row.version.clone(), row.plural.clone()));
        self.by_kind.remove(&(row.group.clone(), row.version.clone(), row.kind.clone()));
        self.rows.retain(|other| !Arc::ptr_eq(other, &row));
        if !self.rows.iter().any(|other| other.group == row.group && other.version == row.version) {
            for (_, versions) in self.groups.iter_mut().filter(|(name, _)| *name == row.group) {
                versions.retain(|v| *v != row.version);
            }
            self.groups.retain(|(_, versions)| !versions.is_empty());
        }
    }

    pub fn lookup(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.by_plural.get(&(group.into(), version.into(), plural.into()))
    }
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.by_kind.get(&(group.into(), version.into(), kind.into()))
    }
    pub fn rows(&self) -> &[Arc<Resource>] {
        &self.rows
    }
    /// The resource in the group's preferred version.
    pub fn preferred(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.versions(group).iter().find_map(|version| self.lookup(group, version, plural))
    }
    /// Groups in discovery's order (the core group is `""`).
    pub fn groups(&self) -> impl Iterator<Item = &CompactString> {
        self.groups.iter().map(|(name, _)| name)
    }
    /// A group's versions, the preferred one first; none if it is not served.
    pub fn versions(&self, group: &str) -> &[CompactString] {
        self.groups.iter().find(|(name, _)| name == group).map_or(&[], |(_, versions)| versions)
    }
    /// The rows of one group version, in the table's order.
    pub fn rows_of<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.rows.iter().filter(move |row| row.group == group && row.version == version)
    }
    /// Stored resources once each, in the version they are stored in: what the watch cache and garbage collector go over.
    pub fn stored(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.rows.iter().filter(|row| {
            let hub_served = || self.lookup(&row.storage_group, &row.storage_version, &row.plural).is_some();
            row.stored
                && (row.is_hub()
                    || (!hub_served()
                        && self.preferred(&row.group, &row.plural).is_some_and(|p| Arc::ptr_eq(p, row))))
        })
    }
}

/// Kubernetes' version priority: GA over beta over alpha, higher numbers first.
fn version_order(version: &str) -> (u8, u32, u32) {
    let number = |text: &str| text.parse::<u32>().ok();
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    if let Some(major) = number(rest) {
        return (3, major, 0);
    }
    for (rank, word) in [(2, "beta"), (1, "alpha")] {
        if let Some((major, minor)) = rest.split_once(word)
            && let (Some(major), Some(minor)) = (number(major), number(minor))
        {
            return (rank, major, minor);
        }
    }
    (0, 0, 0)
}

/// Compares versions by that priority: the greater one is preferred.
pub fn compare_versions(a: &str, b: &str) -> std::cmp::Ordering {
    version_order(a).cmp(&version_order(b)).then_with(|| b.cmp(a))
}

fn builtin_row(group: &'static str, version: &'static str, def: &'static ResourceDef) -> Resource {
    let text = CompactString::const_new;
    let texts = |all: &'static [&'static str]| all.iter().map(|one| text(one)).collect();
    let subresources = def.subresources.iter().map(|sub| Subresource {
        name: text(sub.name),
        verbs: sub.verbs,
        group: text(sub.group),
        version: text(sub.version),
        kind: text(sub.kind),
        ty: TypeId::by_gvk(sub.group, sub.version, sub.kind),
    });
    // Upstream keeps both groups' events as one, in the core group's form.
    let storage_group = if group == "events.k8s.io" { "" } else { group };
    Resource {
        group: text(group),
        version: text(version),
        storage_group: text(storage_group),
        storage_version: text(def.storage_version),
        kind: text(def.kind),
        list_kind: text(def.list_kind),
        plural: text(def.plural),
        singular: text(def.singular),
        short_names: texts(def.short_names),
        categories: texts(def.categories),
        namespaced: def.namespaced,
        verbs: def.verbs,
        subresources: subresources.collect(),
        acted_on_by: (!def.acted_on_by.is_empty()).then(|| text(def.acted_on_by)),
        stored: def.stored,
        ty: Some(def.ty),
        list_ty: def.list_ty,
        custom: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::builtin(&Gates::default())
    }

    #[test]
    fn every_row_has_its_types() {
        for group in generated::GROUPS {
            for version in group.versions {
                for def in version.resources {
                    let row = builtin_row(group.name, version.version, def);
                    assert_eq!(row.ty.map(|ty| ty.def().go_name()), Some(def.kind), "{}", row.plural);
                    assert!(
                        row.storage_ty().is_some(),
                        "{}/{} {} has no stored type",
                        row.group,
                        row.version,
                        row.plural
                    );
                    assert!(row.subresources.iter().all(|sub| sub.ty.is_some()), "{}", row.plural);
                    assert!(!row.verbs.has(Verbs::LIST) || row.list_ty.is_some(), "{}", row.plural);
                }
            }
        }
    }

    #[test]
    fn gates_and_choices_decide_what_is_served() {
        let served = table();
        assert!(served.lookup("apps", "v1", "deployments").is_some());
        assert!(served.lookup("resource.k8s.io", "v1beta1", "resourceclaims").is_none());
        assert!(served.lookup("scheduling.k8s.io", "v1alpha1", "workloads").is_none());
        assert_eq!(served.versions("certificates.k8s.io"), ["v1"]);
        assert_eq!(served.versions("autoscaling"), ["v2", "v1"]);
        let chosen = Table::with_versions(&Gates::default(), |group, version| {
            (group == "resource.k8s.io" && version == "v1beta1").then_some(true)
        });
        assert_eq!(chosen.versions("resource.k8s.io"), ["v1", "v1beta1"]);
    }

    #[test]
    fn rows_come_and_go() {
        let mut served = table();
        let mut row = Resource::clone(served.lookup("apps", "v1", "deployments").expect("deployments"));
        (row.group, row.storage_group, row.ty, row.list_ty) =
            ("example.com".into(), "example.com".into(), None, None);
        for version in ["v1beta2", "v1", "v1alpha1", "v2"] {
            row.version = version.into();
            served.add(row.clone());
        }
        assert_eq!(served.versions("example.com"), ["v2", "v1", "v1beta2", "v1alpha1"]);
        assert_eq!(served.preferred("example.com", "deployments").map(|r| r.version.as_str()), Some("v2"));
        assert!(served.by_kind("example.com", "v1", "Deployment").is_some());
        for version in ["v1beta2", "v1", "v1alpha1", "v2"] {
            served.remove("example.com", version, "deployments");
        }
        assert!(served.groups().all(|g| g != "example.com"));
    }

    #[test]
    fn events_are_stored_once() {
        let served = table();
        let events: Vec<_> =
            served.stored().filter(|row| row.plural == "events").map(|row| row.api_version()).collect();
        assert_eq!(events, ["v1"]);
        let scalers: Vec<_> = served
            .stored()
            .filter(|row| row.kind == "HorizontalPodAutoscaler")
            .map(|row| row.version.clone())
            .collect();
        assert_eq!(scalers, ["v2"]);
    }
}
