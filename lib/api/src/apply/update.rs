//! How a write moves ownership (structured-merge-diff `merge`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use compact_str::CompactString;

use super::compare::{Comparison, compare};
use super::element::PathElement;
use super::field_set::field_set;
use super::list::ItemError;
use super::managers::{ManagerId, Managers, Owned};
use super::merge::{MergeError, merge};
use super::reconcile::reconcile;
use super::remove::remove;
use super::set::{Filter, Set, path_text};
use super::shape::Shape;
use super::view::{View, same};
use crate::doc::Value;

/// An object of one version.
#[derive(Clone)]
pub struct Typed<'a> {
    pub value: Cow<'a, Value>,
    pub shape: Shape<'a>,
    pub version: CompactString,
}

impl<'a> Typed<'a> {
    pub fn new(value: &'a Value, shape: Shape<'a>, version: &str) -> Typed<'a> {
        Typed { value: Cow::Borrowed(value), shape, version: version.into() }
    }

    pub fn view(&self) -> View<'_> {
        View::Value(&self.value)
    }

    fn with(&self, value: Value) -> Typed<'a> {
        Typed { value: Cow::Owned(value), shape: self.shape, version: self.version.clone() }
    }

    fn fields(&self) -> Result<Set, UpdateError> {
        field_set(self.view(), self.shape).map_err(UpdateError::FieldSet)
    }
}

/// The versions a type has.
pub trait Versions {
    /// The object in a version; `None` where there is no such version any more.
    fn convert<'t>(&'t self, object: &'t Typed<'t>, version: &str)
    -> Result<Option<Typed<'t>>, ConvertError>;
}

/// A conversion failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConvertError(pub String);

/// Another manager holds another value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub manager: ManagerId,
    pub path: Vec<PathElement>,
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "conflict with {}: {}", self.manager.text(), path_text(&self.path))
    }
}

/// Why ownership could not be moved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    #[error("failed to compare objects: {0}")]
    Compare(ItemError),
    #[error("failed to get field set: {0}")]
    FieldSet(ItemError),
    #[error("failed to merge config: {0}")]
    Merge(MergeError),
    #[error("failed to convert the object: {0}")]
    Convert(ConvertError),
    #[error("{} conflicts", .0.len())]
    Conflicts(Vec<Conflict>),
}

/// Moves ownership between managers.
#[derive(Clone, Copy)]
pub struct Updater<'u> {
    pub versions: &'u dyn Versions,
    /// What may be owned, by version.
    pub filter: &'u dyn Fn(&str) -> Option<&'u Filter>,
}

impl Updater<'_> {
    /// After a create, update or patch: `new` is what will be stored, `live` what was (empty on create).
    pub fn update(
        &self,
        live: &Typed<'_>,
        new: &Typed<'_>,
        managers: Managers,
        me: &ManagerId,
    ) -> Result<Managers, UpdateError> {
        let version = new.version.as_str();
        let mut managers = self.reconciled(live, managers)?;
        let changed = self.settle(live, new, &mut managers, me, true)?;
        let known = managers.remove(me);
        let time = known.as_ref().and_then(|owned| owned.time.clone());
        let mut set = known.map(|owned| owned.set).unwrap_or_default();
        if !changed.removed.is_empty() {
            set = set.without(&changed.removed);
        }
        set = set.union(changed.modified).union(changed.added);
        if let Some(filter) = (self.filter)(version) {
            set = filter.apply(set);
        }
        if !set.is_empty() {
            let owned = Owned { set, api_version: version.into(), applied: false, time };
            managers.insert(me.clone(), owned);
        }
        Ok(managers)
    }

    /// Applies a configuration; the object is `None` where nothing changes.
    pub fn apply(
        &self,
        live: &Typed<'_>,
        config: &Typed<'_>,
        managers: Managers,
        me: &ManagerId,
        force: bool,
    ) -> Result<(Option<Value>, Managers), UpdateError> {
        let mut managers = self.reconciled(live, managers)?;
        let merged = merge(live.view(), config.view(), live.shape).map_err(UpdateError::Merge)?;
        let mut new = live.with(merged);
        let mut set = config.fields()?;
        if let Some(filter) = (self.filter)(&config.version) {
            set = filter.apply(set);
        }
        let last = managers.remove(me);
        let time = last.as_ref().and_then(|owned| owned.time.clone());
        // Where all is applied again that was, nothing can go: everything of the last set has an owner.
        let again = |last: &Owned| last.api_version == config.version && last.set.is_subset(&set);
        let last = last.filter(|last| !last.set.is_empty() && !again(last));
        let owned = Owned { set, api_version: config.version.clone(), applied: true, time };
        managers.insert(me.clone(), owned);
        if let Some(last) = last {
            let pruned = self.pruned(&new, &managers, &last, &config.version)?;
            new = live.with(pruned);
        }
        self.settle(live, &new, &mut managers, me, force)?;
        let unchanged = same(live.view(), new.view());
        let value = (!unchanged).then(|| new.value.into_owned());
        Ok((value, managers))
    }

    fn convert<'t>(&'t self, object: &'t Typed<'t>, version: &str) -> Result<Option<Typed<'t>>, UpdateError> {
        self.versions.convert(object, version).map_err(UpdateError::Convert)
    }

    /// Takes what changed from all other managers, or finds the conflicts. Gives what changed.
    fn settle(
        &self,
        live: &Typed<'_>,
        new: &Typed<'_>,
        managers: &mut Managers,
        me: &ManagerId,
        force: bool,
    ) -> Result<Comparison, UpdateError> {
        let compared = |live: &Typed<'_>, new: &Typed<'_>, version: &str| {
            let change = compare(live.view(), new.view(), live.shape).map_err(UpdateError::Compare)?;
            Ok::<Comparison, UpdateError>(change.filtered((self.filter)(version)))
        };
        let mut changes: BTreeMap<CompactString, Comparison> = BTreeMap::new();
        changes.insert(new.version.clone(), compared(live, new, &new.version)?);
        let mut gone = Vec::new();
        let mut conflicts: Vec<(ManagerId, Set)> = Vec::new();
        for (id, owned) in managers.iter() {
            if id == me {
                continue;
            }
            let version = &owned.api_version;
            if !changes.contains_key(version) {
                match (self.convert(live, version)?, self.convert(new, version)?) {
                    (Some(old), Some(new)) => {
                        changes.insert(version.clone(), compared(&old, &new, version)?);
                    }
                    _ => {
                        gone.push(id.clone());
                        continue;
                    }
                }
            }
            let Some(change) = changes.get(version) else { continue };
            if owned.set.intersects(&change.modified) || owned.set.intersects(&change.added) {
                let touched =
                    [&change.modified, &change.added].map(|changed| owned.set.intersection(changed));
                let [modified, added] = touched;
                conflicts.push((id.clone(), modified.union(added)));
            }
        }
        gone.iter().for_each(|id| drop(managers.remove(id)));
        if !force && !conflicts.is_empty() {
            return Err(UpdateError::Conflicts(flattened(conflicts)));
        }
        for (id, set) in &conflicts {
            if let Some(owned) = managers.get_mut(id) {
                owned.set = std::mem::take(&mut owned.set).without(set);
            }
        }
        for (_, owned) in managers.iter_mut().filter(|(id, _)| *id != me) {
            if let Some(change) = changes.get(&owned.api_version)
                && owned.set.intersects(&change.removed)
            {
                owned.set = std::mem::take(&mut owned.set).without(&change.removed);
            }
        }
        managers.retain(|_, owned| !owned.set.is_empty());
        Ok(changes.remove(&new.version).unwrap_or_default())
    }

    /// The merged object without what its manager applied last time and does not now, unless somebody else owns it.
    fn pruned(
        &self,
        merged: &Typed<'_>,
        managers: &Managers,
        last: &Owned,
        version: &str,
    ) -> Result<Value, UpdateError> {
        let Some(at_last) = self.convert(merged, &last.api_version)? else {
            return Ok(merged.value.clone().into_owned());
        };
        let shape = at_last.shape;
        let named = last.set.clone().with_named_fields(Some(shape));
        let pruned = remove(at_last.view(), &named, shape);
        let pruned = self.with_owned_items(&at_last, pruned, managers)?;
        // Only what the manager itself had applied may go. The sets of whole objects are large: one at a time.
        let had = at_last.fields()?.with_named_fields(Some(shape)).intersection(&named);
        let kept = at_last.with(pruned).fields()?.with_named_fields(Some(shape));
        let gone = had.without(&kept);
        drop(kept);
        let pruned = at_last.with(remove(at_last.view(), &gone, shape));
        match self.convert(&pruned, version)? {
            Some(object) => Ok(object.value.into_owned()),
            None => Ok(merged.value.clone().into_owned()),
        }
    }

    /// Puts back what any manager (the one that applies now included) owns.
    fn with_owned_items(
        &self,
        merged: &Typed<'_>,
        mut pruned: Value,
        managers: &Managers,
    ) -> Result<Value, UpdateError> {
        let mut owned: BTreeMap<CompactString, Set> = BTreeMap::new();
        for manager in managers.values() {
            let known = owned.remove(&manager.api_version).unwrap_or_default();
            owned.insert(manager.api_version.clone(), known.union(manager.set.clone()));
        }
        // The pruned version first: what a conversion needs may just have been pruned.
        let first = owned.remove_entry(&merged.version);
        for (version, set) in first.into_iter().chain(owned) {
            let now = merged.with(pruned);
            let (Some(whole), Some(part)) = (self.convert(merged, &version)?, self.convert(&now, &version)?)
            else {
                pruned = now.value.into_owned();
                continue;
            };
            let shape = Some(whole.shape);
            let keep = part.fields()?.with_named_fields(shape).union(set.with_named_fields(shape));
            drop(part);
            pruned = now.value.into_owned();
            let gone = whole.fields()?.with_named_fields(shape).without(&keep);
            let back = whole.with(remove(whole.view(), &gone, whole.shape));
            if let Some(back) = self.convert(&back, &merged.version)? {
                pruned = back.value.into_owned();
            }
        }
        Ok(pruned)
    }

    /// Sets written under an older schema, as the schema is now.
    fn reconciled(&self, live: &Typed<'_>, mut managers: Managers) -> Result<Managers, UpdateError> {
        let mut gone = Vec::new();
        for (id, owned) in &mut managers {
            match self.convert(live, &owned.api_version)? {
                Some(object) => {
                    if let Some(set) = reconcile(&owned.set, object.shape) {
                        owned.set = set;
                    }
                }
                None => gone.push(id.clone()),
            }
        }
        gone.iter().for_each(|id| drop(managers.remove(id)));
        Ok(managers)
    }
}

fn flattened(conflicts: Vec<(ManagerId, Set)>) -> Vec<Conflict> {
    let mut out = Vec::new();
    for (manager, set) in conflicts {
        set.each(|path| out.push(Conflict { manager: manager.clone(), path: path.to_vec() }));
    }
    out
}
