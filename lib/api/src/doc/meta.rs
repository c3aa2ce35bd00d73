//! Accessors of `metadata`: the same for built-in objects and custom resources.

use super::{Doc, Map, Struct, Value};
use crate::f::meta_v1::{object_meta as om, owner_reference as or};
use crate::schema::Field;
use crate::t;

/// Reads an object's ObjectMeta; a list's ListMeta reads as empty.
#[derive(Clone, Copy)]
pub struct MetaView<'a> {
    meta: Option<&'a Struct>,
}

/// An owner reference, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerRef<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub controller: bool,
    pub block_owner_deletion: bool,
}

/// The index of `metadata` among the root's fields: it always follows `kind` and `apiVersion`.
fn metadata_index(root: &Struct) -> Option<u16> {
    root.ty().def().field_index("metadata")
}

impl<'a> MetaView<'a> {
    pub(super) fn of(doc: &'a Doc) -> MetaView<'a> {
        let meta = match &doc.root {
            Value::Struct(root) => metadata_index(root).and_then(|index| root.get_index(index)),
            Value::Map(root) => root.get("metadata"),
            _ => None,
        };
        MetaView { meta: meta.and_then(Value::as_struct).filter(|meta| meta.ty() == t::meta_v1::OBJECT_META) }
    }
    /// A view of an ObjectMeta that stands elsewhere (a pod template's).
    pub fn from_struct(meta: &'a Struct) -> MetaView<'a> {
        MetaView { meta: (meta.ty() == t::meta_v1::OBJECT_META).then_some(meta) }
    }
    pub fn as_struct(&self) -> Option<&'a Struct> {
        self.meta
    }
    fn str(&self, field: Field) -> &'a str {
        self.meta.map_or("", |meta| meta.str(field))
    }
    fn map(&self, field: Field) -> Option<&'a Map> {
        self.meta.and_then(|meta| meta.map(field))
    }
    pub fn name(&self) -> &'a str {
        self.str(om::NAME)
    }
    pub fn generate_name(&self) -> &'a str {
        self.str(om::GENERATE_NAME)
    }
    pub fn namespace(&self) -> &'a str {
        self.str(om::NAMESPACE)
    }
    pub fn uid(&self) -> &'a str {
        self.str(om::UID)
    }
    pub fn resource_version(&self) -> &'a str {
        self.str(om::RESOURCE_VERSION)
    }
    pub fn generation(&self) -> i64 {
        self.meta.and_then(|meta| meta.int(om::GENERATION)).unwrap_or(0)
    }
    /// RFC 3339, UTC, whole seconds.
    pub fn creation_timestamp(&self) -> Option<&'a str> {
        self.meta.and_then(|meta| meta.get(om::CREATION_TIMESTAMP)).and_then(Value::as_str)
    }
    pub fn deletion_timestamp(&self) -> Option<&'a str> {
        self.meta.and_then(|meta| meta.get(om::DELETION_TIMESTAMP)).and_then(Value::as_str)
    }
    pub fn deletion_grace_period_seconds(&self) -> Option<i64> {
        self.meta.and_then(|meta| meta.int(om::DELETION_GRACE_PERIOD_SECONDS))
    }
    pub fn is_being_deleted(&self) -> bool {
        self.deletion_timestamp().is_some()
    }
    pub fn labels(&self) -> Option<&'a Map> {
        self.map(om::LABELS)
    }
    pub fn label(&self, key: &str) -> Option<&'a str> {
        self.labels().and_then(|labels| labels.get_str(key))
    }
    pub fn annotations(&self) -> Option<&'a Map> {
        self.map(om::ANNOTATIONS)
    }
    pub fn annotation(&self, key: &str) -> Option<&'a str> {
        self.annotations().and_then(|annotations| annotations.get_str(key))
    }
    pub fn finalizers(&self) -> impl Iterator<Item = &'a str> {
        self.meta.map_or(&[][..], |meta| meta.list(om::FINALIZERS)).iter().filter_map(Value::as_str)
    }
    pub fn owner_references(&self) -> impl Iterator<Item = OwnerRef<'a>> {
        let list = self.meta.map_or(&[][..], |meta| meta.list(om::OWNER_REFERENCES));
        list.iter().filter_map(Value::as_struct).map(|owner| OwnerRef {
            api_version: owner.str(or::API_VERSION),
            kind: owner.str(or::KIND),
            name: owner.str(or::NAME),
            uid: owner.str(or::UID),
            controller: owner.bool(or::CONTROLLER).unwrap_or(false),
            block_owner_deletion: owner.bool(or::BLOCK_OWNER_DELETION).unwrap_or(false),
        })
    }
    pub fn managed_fields(&self) -> &'a [Value] {
        self.meta.map_or(&[], |meta| meta.list(om::MANAGED_FIELDS))
    }
}

/// Changes an object's ObjectMeta. On a type without metadata the changes are dropped with it.
pub struct MetaMut<'a> {
    meta: Slot<'a>,
}

enum Slot<'a> {
    Within(&'a mut Struct),
    Nowhere(Box<Struct>),
}

impl std::ops::Deref for Slot<'_> {
    type Target = Struct;
    fn deref(&self) -> &Struct {
        match self {
            Slot::Within(meta) => meta,
            Slot::Nowhere(meta) => meta,
        }
    }
}

impl std::ops::DerefMut for Slot<'_> {
    fn deref_mut(&mut self) -> &mut Struct {
        match self {
            Slot::Within(meta) => meta,
            Slot::Nowhere(meta) => meta,
        }
    }
}

impl<'a> MetaMut<'a> {
    pub(super) fn of(doc: &'a mut Doc) -> MetaMut<'a> {
        let slot = match &mut doc.root {
            Value::Struct(root) => metadata_index(root).map(|index| root.entry_index(index)),
            Value::Map(root) => {
                if root.get("metadata").is_none() {
                    root.insert("metadata", Value::Null);
                }
                root.get_mut("metadata")
            }
            _ => None,
        };
        let nowhere = || MetaMut { meta: Slot::Nowhere(Box::new(Struct::new(t::meta_v1::OBJECT_META))) };
        let Some(slot) = slot else { return nowhere() };
        match slot.as_struct().map(Struct::ty) {
            Some(t::meta_v1::OBJECT_META) => {}
            Some(_) => return nowhere(),
            None => *slot = Value::Struct(Struct::new(t::meta_v1::OBJECT_META)),
        }
        match slot {
            Value::Struct(meta) => MetaMut { meta: Slot::Within(meta) },
            _ => nowhere(),
        }
    }
    pub fn view(&self) -> MetaView<'_> {
        MetaView::from_struct(&self.meta)
    }
    pub fn as_struct(&mut self) -> &mut Struct {
        &mut self.meta
    }
    fn set_str(&mut self, field: Field, value: &str) {
        if value.is_empty() {
            self.meta.remove(field);
        } else {
            self.meta.set(field, value);
        }
    }
    pub fn set_name(&mut self, name: &str) {
        self.set_str(om::NAME, name);
    }
    pub fn set_generate_name(&mut self, name: &str) {
        self.set_str(om::GENERATE_NAME, name);
    }
    pub fn set_namespace(&mut self, namespace: &str) {
        self.set_str(om::NAMESPACE, namespace);
    }
    pub fn set_uid(&mut self, uid: &str) {
        self.set_str(om::UID, uid);
    }
    pub fn set_resource_version(&mut self, version: &str) {
        self.set_str(om::RESOURCE_VERSION, version);
    }
    /// 0 removes it.
    pub fn set_generation(&mut self, generation: i64) {
        if generation == 0 {
            self.meta.remove(om::GENERATION);
        } else {
            self.meta.set(om::GENERATION, generation);
        }
    }
    /// RFC 3339, UTC, whole seconds.
    pub fn set_creation_timestamp(&mut self, at: Option<&str>) {
        self.set_str(om::CREATION_TIMESTAMP, at.unwrap_or(""));
    }
    pub fn set_deletion_timestamp(&mut self, at: Option<&str>) {
        self.set_str(om::DELETION_TIMESTAMP, at.unwrap_or(""));
    }
    pub fn set_deletion_grace_period_seconds(&mut self, seconds: Option<i64>) {
        match seconds {
            Some(seconds) => self.meta.set(om::DELETION_GRACE_PERIOD_SECONDS, seconds),
            None => self.meta.remove(om::DELETION_GRACE_PERIOD_SECONDS),
        };
    }
    fn set_pair(&mut self, field: Field, key: &str, value: &str) {
        if let Value::Map(map) = self.meta.entry_index(field.index) {
            map.insert(key, value);
        }
    }
    fn remove_pair(&mut self, field: Field, key: &str) {
        let empty = match self.meta.get_mut(field) {
            Some(Value::Map(map)) => {
                map.remove(key);
                map.is_empty()
            }
            _ => return,
        };
        if empty {
            self.meta.remove(field);
        }
    }
    pub fn set_label(&mut self, key: &str, value: &str) {
        self.set_pair(om::LABELS, key, value);
    }
    pub fn remove_label(&mut self, key: &str) {
        self.remove_pair(om::LABELS, key);
    }
    pub fn set_annotation(&mut self, key: &str, value: &str) {
        self.set_pair(om::ANNOTATIONS, key, value);
    }
    pub fn remove_annotation(&mut self, key: &str) {
        self.remove_pair(om::ANNOTATIONS, key);
    }
    pub fn set_finalizers<'f>(&mut self, finalizers: impl IntoIterator<Item = &'f str>) {
        let list: Vec<Value> = finalizers.into_iter().map(Value::from).collect();
        if list.is_empty() {
            self.meta.remove(om::FINALIZERS);
        } else {
            self.meta.set(om::FINALIZERS, list);
        }
    }
    pub fn remove_finalizer(&mut self, name: &str) -> bool {
        let keep: Vec<String> = self.view().finalizers().filter(|f| *f != name).map(str::to_owned).collect();
        let removed = keep.len() != self.view().finalizers().count();
        if removed {
            self.set_finalizers(keep.iter().map(String::as_str));
        }
        removed
    }
}
