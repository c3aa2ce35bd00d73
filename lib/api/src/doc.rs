//! A parsed API object: a tree whose struct keys are schema field numbers.
//!
//! What always holds:
//! * a [`Struct`]'s fields are in schema order, each at most once, and of the kind the schema says;
//! * a [`Map`]'s keys are sorted and unique;
//! * scalar kinds with a text form (Quantity, Time, Bytes…) are `Value::Str` in that form, canonical after decoding;
//! * opaque JSON (RawExtension, FieldsV1, JSON) is `Value::Raw`: compacted text as it came;
//! * a built-in object's root is a `Struct` that never holds `apiVersion` and `kind` (they are [`Doc::gvk`]); a custom
//!   resource's root is a `Map` without these two keys whose `metadata` is a `Struct` of ObjectMeta.
//!
//! A `Doc` lives inside one request; what is kept is bytes.

use std::collections::HashSet;

use compact_str::CompactString;

use crate::schema::{Field, Kind, TypeId};

mod meta;
mod typed;
mod view;
pub use meta::{MetaMut, MetaView, OwnerRef};
pub use typed::{TypedError, value_to_typed};
pub use view::{from_json_value, to_json_value, value_to_json};

/// A value of the tree.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(CompactString),
    /// Opaque JSON text, compacted.
    Raw(CompactString),
    List(Vec<Value>),
    Struct(Struct),
    Map(Map),
}

impl Value {
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(s) => Some(s),
            _ => None,
        }
    }
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(n) => Some(*n),
            _ => None,
        }
    }
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(items) => Some(items),
            _ => None,
        }
    }
    pub fn as_list_mut(&mut self) -> Option<&mut Vec<Value>> {
        match self {
            Value::List(items) => Some(items),
            _ => None,
        }
    }
    pub fn as_struct(&self) -> Option<&Struct> {
        match self {
            Value::Struct(s) => Some(s),
            _ => None,
        }
    }
    pub fn as_struct_mut(&mut self) -> Option<&mut Struct> {
        match self {
            Value::Struct(s) => Some(s),
            _ => None,
        }
    }
    pub fn as_map(&self) -> Option<&Map> {
        match self {
            Value::Map(m) => Some(m),
            _ => None,
        }
    }
    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        match self {
            Value::Map(m) => Some(m),
            _ => None,
        }
    }
    /// The value below through fields of nested structs.
    pub fn get(&self, path: &[Field]) -> Option<&Value> {
        let mut at = self;
        for field in path {
            at = at.as_struct()?.get(*field)?;
        }
        Some(at)
    }
    /// As [`Value::get`], to change.
    pub fn get_mut(&mut self, path: &[Field]) -> Option<&mut Value> {
        let mut at = self;
        for field in path {
            at = at.as_struct_mut()?.get_mut(*field)?;
        }
        Some(at)
    }
    /// The string below, `""` where there is none.
    pub fn str_at(&self, path: &[Field]) -> &str {
        self.get(path).and_then(Value::as_str).unwrap_or("")
    }
    /// Whether Go would call it empty (`omitempty`): null, false, 0, "", no elements. A struct never is.
    pub fn is_go_empty(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Bool(b) => !b,
            Value::Int(n) => *n == 0,
            Value::Float(n) => *n == 0.0,
            Value::Str(s) => s.is_empty(),
            Value::Raw(s) => s.is_empty(),
            Value::List(items) => items.is_empty(),
            Value::Map(map) => map.is_empty(),
            Value::Struct(_) => false,
        }
    }
}

impl From<bool> for Value {
    fn from(v: bool) -> Value {
        Value::Bool(v)
    }
}
impl From<i32> for Value {
    fn from(v: i32) -> Value {
        Value::Int(v.into())
    }
}
impl From<i64> for Value {
    fn from(v: i64) -> Value {
        Value::Int(v)
    }
}
impl From<f64> for Value {
    fn from(v: f64) -> Value {
        Value::Float(v)
    }
}
impl From<&str> for Value {
    fn from(v: &str) -> Value {
        Value::Str(v.into())
    }
}
impl From<String> for Value {
    fn from(v: String) -> Value {
        Value::Str(v.into())
    }
}
impl From<CompactString> for Value {
    fn from(v: CompactString) -> Value {
        Value::Str(v)
    }
}
impl From<Struct> for Value {
    fn from(v: Struct) -> Value {
        Value::Struct(v)
    }
}
impl From<Map> for Value {
    fn from(v: Map) -> Value {
        Value::Map(v)
    }
}
impl From<Vec<Value>> for Value {
    fn from(v: Vec<Value>) -> Value {
        Value::List(v)
    }
}

/// A struct's present fields, in schema order.
#[derive(Clone, Debug, PartialEq)]
pub struct Struct {
    fields: Vec<(u16, Value)>,
    ty: TypeId,
}

impl Struct {
    pub fn new(ty: TypeId) -> Struct {
        Struct { fields: Vec::new(), ty }
    }
    pub fn ty(&self) -> TypeId {
        self.ty
    }
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
    /// Present fields with their indices, in schema order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u16, &Value)> {
        self.fields.iter().map(|(index, value)| (*index, value))
    }
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (u16, &mut Value)> {
        self.fields.iter_mut().map(|(index, value)| (*index, value))
    }
    /// Keeps the fields the predicate says.
    pub fn retain(&mut self, mut keep: impl FnMut(u16, &mut Value) -> bool) {
        self.fields.retain_mut(|(index, value)| keep(*index, value));
    }

    fn position(&self, index: u16) -> Result<usize, usize> {
        // Decoding and defaulting mostly append.
        match self.fields.last() {
            None => Err(0),
            Some((last, _)) if *last < index => Err(self.fields.len()),
            _ => self.fields.binary_search_by_key(&index, |(i, _)| *i),
        }
    }
    pub fn get_index(&self, index: u16) -> Option<&Value> {
        self.position(index).ok().map(|at| &self.fields[at].1)
    }
    pub fn get_index_mut(&mut self, index: u16) -> Option<&mut Value> {
        self.position(index).ok().map(|at| &mut self.fields[at].1)
    }
    pub fn set_index(&mut self, index: u16, value: Value) -> Option<Value> {
        debug_assert!((index as usize) < self.ty.def().fields.len());
        match self.position(index) {
            Ok(at) => Some(std::mem::replace(&mut self.fields[at].1, value)),
            Err(at) => {
                self.fields.insert(at, (index, value));
                None
            }
        }
    }
    pub fn remove_index(&mut self, index: u16) -> Option<Value> {
        self.position(index).ok().map(|at| self.fields.remove(at).1)
    }
    fn own(&self, field: Field) -> bool {
        debug_assert_eq!(field.ty, self.ty, "a field constant of another struct");
        field.ty == self.ty
    }
    pub fn get(&self, field: Field) -> Option<&Value> {
        if self.own(field) { self.get_index(field.index) } else { None }
    }
    pub fn get_mut(&mut self, field: Field) -> Option<&mut Value> {
        if self.own(field) { self.get_index_mut(field.index) } else { None }
    }
    /// Sets the field; a constant of another struct changes nothing.
    pub fn set(&mut self, field: Field, value: impl Into<Value>) -> Option<Value> {
        if self.own(field) { self.set_index(field.index, value.into()) } else { None }
    }
    pub fn remove(&mut self, field: Field) -> Option<Value> {
        if self.own(field) { self.remove_index(field.index) } else { None }
    }
    pub fn has(&self, field: Field) -> bool {
        self.get(field).is_some()
    }
    pub fn str(&self, field: Field) -> &str {
        self.get(field).and_then(Value::as_str).unwrap_or("")
    }
    pub fn int(&self, field: Field) -> Option<i64> {
        self.get(field).and_then(Value::as_int)
    }
    pub fn bool(&self, field: Field) -> Option<bool> {
        self.get(field).and_then(Value::as_bool)
    }
    /// The elements of the list, none where it is absent.
    pub fn list(&self, field: Field) -> &[Value] {
        self.get(field).and_then(Value::as_list).unwrap_or(&[])
    }
    pub fn map(&self, field: Field) -> Option<&Map> {
        self.get(field).and_then(Value::as_map)
    }
    pub fn child(&self, field: Field) -> Option<&Struct> {
        self.get(field).and_then(Value::as_struct)
    }
    pub fn child_mut(&mut self, field: Field) -> Option<&mut Struct> {
        self.get_mut(field).and_then(Value::as_struct_mut)
    }
    /// The field, made (an empty value of its kind) where it is absent.
    pub fn entry_index(&mut self, index: u16) -> &mut Value {
        let at = match self.position(index) {
            Ok(at) => at,
            Err(at) => {
                let kind = self.ty.def().fields[index as usize].kind;
                self.fields.insert(at, (index, empty_value(kind)));
                at
            }
        };
        &mut self.fields[at].1
    }
    /// Appends in schema order; for decoders.
    pub(crate) fn push(&mut self, index: u16, value: Value) {
        self.set_index(index, value);
    }
}

/// The value an absent field of this kind starts from.
pub fn empty_value(kind: Kind) -> Value {
    match kind {
        Kind::Bool => Value::Bool(false),
        Kind::Int32 | Kind::Int64 => Value::Int(0),
        Kind::Float64 => Value::Float(0.0),
        Kind::Struct(ty) => Value::Struct(Struct::new(ty)),
        Kind::List(_) | Kind::WrappedList(_) => Value::List(Vec::new()),
        Kind::Map(_) => Value::Map(Map::default()),
        Kind::FieldsV1 | Kind::RawExtension | Kind::Json => Value::Raw(CompactString::const_new("null")),
        Kind::Time
        | Kind::MicroTime
        | Kind::SchemaOrArray(_)
        | Kind::SchemaOrBool(_)
        | Kind::SchemaOrStrings(_) => Value::Null,
        Kind::Quantity => Value::Str(CompactString::const_new("0")),
        Kind::IntOrString => Value::Int(0),
        _ => Value::Str(CompactString::const_new("")),
    }
}

/// A map with sorted string keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    entries: Vec<(CompactString, Value)>,
}

impl Map {
    pub fn new() -> Map {
        Map::default()
    }
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&str, &mut Value)> {
        self.entries.iter_mut().map(|(key, value)| (key.as_str(), value))
    }
    fn position(&self, key: &str) -> Result<usize, usize> {
        match self.entries.last() {
            None => Err(0),
            Some((last, _)) if last.as_str() < key => Err(self.entries.len()),
            _ => self.entries.binary_search_by(|(k, _)| k.as_str().cmp(key)),
        }
    }
    pub fn contains_key(&self, key: &str) -> bool {
        self.position(key).is_ok()
    }
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.position(key).ok().map(|at| &self.entries[at].1)
    }
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.position(key).ok().map(|at| &mut self.entries[at].1)
    }
    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
    pub fn insert(
        &mut self,
        key: impl Into<CompactString> + AsRef<str>,
        value: impl Into<Value>,
    ) -> Option<Value> {
        match self.position(key.as_ref()) {
            Ok(at) => Some(std::mem::replace(&mut self.entries[at].1, value.into())),
            Err(at) => {
                self.entries.insert(at, (key.into(), value.into()));
                None
            }
        }
    }
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.position(key).ok().map(|at| self.entries.remove(at).1)
    }
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut Value) -> bool) {
        self.entries.retain_mut(|(key, value)| keep(key, value));
    }
    /// The entries as they are kept, by key.
    pub(crate) fn entries(&self) -> &[(CompactString, Value)] {
        &self.entries
    }
    /// The entries, by key.
    pub fn into_entries(self) -> impl ExactSizeIterator<Item = (CompactString, Value)> {
        self.entries.into_iter()
    }
    /// A map of strings' pairs; values of other types are left out.
    pub fn str_pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().filter_map(|(key, value)| Some((key, value.as_str()?)))
    }
}

/// Collects a map's entries in the order they come; sorting once keeps hostile orders cheap. Of equal keys the last one counts.
#[derive(Default)]
pub(crate) struct MapBuilder {
    entries: Vec<(CompactString, Value)>,
    /// All keys, from the first one on that came out of order.
    seen: Option<HashSet<CompactString>>,
}

impl MapBuilder {
    /// Whether the key was there before.
    pub(crate) fn contains(&mut self, key: &str) -> bool {
        if let Some(seen) = &self.seen {
            return seen.contains(key);
        }
        if self.entries.last().is_none_or(|(last, _)| last.as_str() < key) {
            return false;
        }
        let seen = self.seen.insert(self.entries.iter().map(|(key, _)| key.clone()).collect());
        seen.contains(key)
    }

    pub(crate) fn push(&mut self, key: CompactString, value: Value) {
        // Keeps `contains` true to its word.
        let _ = self.contains(&key);
        if let Some(seen) = &mut self.seen {
            seen.insert(key.clone());
        }
        if self.entries.is_empty() {
            // Many a map has one member; by itself a vector would begin with room for four.
            self.entries.reserve_exact(1);
        }
        self.entries.push((key, value));
    }

    pub(crate) fn finish(mut self) -> Map {
        if self.seen.is_some() {
            // Stable, so the last of equal keys is the one to keep.
            self.entries.sort_by(|a, b| a.0.cmp(&b.0));
            let mut kept: Vec<(CompactString, Value)> = Vec::with_capacity(self.entries.len());
            for entry in self.entries {
                match kept.last_mut() {
                    Some(last) if last.0 == entry.0 => *last = entry,
                    _ => kept.push(entry),
                }
            }
            return Map { entries: kept };
        }
        Map { entries: self.entries }
    }
}

impl<K: Into<CompactString>, V: Into<Value>> FromIterator<(K, V)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Map {
        let mut builder = MapBuilder::default();
        pairs.into_iter().for_each(|(key, value)| builder.push(key.into(), value.into()));
        builder.finish()
    }
}

/// Group, version and kind of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Gvk {
    pub group: CompactString,
    pub version: CompactString,
    pub kind: CompactString,
}

impl Gvk {
    pub fn new(group: &str, version: &str, kind: &str) -> Gvk {
        Gvk { group: group.into(), version: version.into(), kind: kind.into() }
    }
    /// From `apiVersion` and `kind` as objects carry them.
    pub fn from_api_version(api_version: &str, kind: &str) -> Gvk {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Gvk::new(group, version, kind)
    }
    /// `apps/v1`, `v1`.
    pub fn api_version(&self) -> CompactString {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            compact_str::format_compact!("{}/{}", self.group, self.version)
        }
    }
}

/// A parsed object.
#[derive(Clone, Debug, PartialEq)]
pub struct Doc {
    pub root: Value,
    pub gvk: Gvk,
}

impl Doc {
    /// An empty object of a built-in type; `gvk` is the type's first.
    pub fn new(ty: TypeId) -> Doc {
        let gvk =
            ty.def().gvks.first().map(|gvk| Gvk::new(gvk.group, gvk.version, gvk.kind)).unwrap_or_default();
        Doc { root: Value::Struct(Struct::new(ty)), gvk }
    }
    /// An empty custom resource.
    pub fn new_custom(gvk: Gvk) -> Doc {
        Doc { root: Value::Map(Map::new()), gvk }
    }
    /// The built-in type, `None` for a custom resource.
    pub fn ty(&self) -> Option<TypeId> {
        self.root.as_struct().map(Struct::ty)
    }
    /// The root of a built-in object.
    pub fn root(&self) -> Option<&Struct> {
        self.root.as_struct()
    }
    pub fn root_mut(&mut self) -> Option<&mut Struct> {
        self.root.as_struct_mut()
    }
    pub fn get(&self, path: &[Field]) -> Option<&Value> {
        self.root.get(path)
    }
    pub fn get_mut(&mut self, path: &[Field]) -> Option<&mut Value> {
        self.root.get_mut(path)
    }
    pub fn str(&self, path: &[Field]) -> &str {
        self.root.str_at(path)
    }
    pub fn int(&self, path: &[Field]) -> Option<i64> {
        self.get(path).and_then(Value::as_int)
    }
    pub fn bool(&self, path: &[Field]) -> Option<bool> {
        self.get(path).and_then(Value::as_bool)
    }
    pub fn list(&self, path: &[Field]) -> &[Value] {
        self.get(path).and_then(Value::as_list).unwrap_or(&[])
    }
    pub fn map(&self, path: &[Field]) -> Option<&Map> {
        self.get(path).and_then(Value::as_map)
    }
    /// Sets the value at the path, making the structs on the way. A path that does not fit the type changes nothing.
    pub fn set(&mut self, path: &[Field], value: impl Into<Value>) {
        if let Some(at) = self.entry(path) {
            *at = value.into();
        }
    }
    /// The value at the path, made with the structs on the way where absent; `None` if the path does not fit.
    pub fn entry(&mut self, path: &[Field]) -> Option<&mut Value> {
        let mut at = &mut self.root;
        for field in path {
            let within = at.as_struct_mut()?;
            if !within.own(*field) {
                return None;
            }
            at = within.entry_index(field.index);
        }
        Some(at)
    }
    pub fn remove(&mut self, path: &[Field]) -> Option<Value> {
        let (last, parents) = path.split_last()?;
        self.get_mut(parents)?.as_struct_mut()?.remove(*last)
    }
    /// The object's metadata (empty where it has none).
    pub fn meta(&self) -> MetaView<'_> {
        MetaView::of(self)
    }
    /// The object's metadata, made where absent.
    pub fn meta_mut(&mut self) -> MetaMut<'_> {
        MetaMut::of(self)
    }
    /// The object as a `k8s-openapi` struct (or anything that deserializes from the object's JSON).
    pub fn to_typed<T: serde::de::DeserializeOwned>(&self) -> Result<T, TypedError> {
        typed::doc_to_typed(self)
    }
    /// The part below the path, as [`Doc::to_typed`]; `None` where it is absent.
    pub fn part_to_typed<T: serde::de::DeserializeOwned>(
        &self,
        path: &[Field],
    ) -> Result<Option<T>, TypedError> {
        self.get(path).map(typed::value_to_typed).transpose()
    }
    /// Replaces what is at the path by the serialized value, checked by the schema.
    pub fn set_from_typed(
        &mut self,
        path: &[Field],
        value: &impl serde::Serialize,
    ) -> Result<(), TypedError> {
        typed::set_from_typed(self, path, value)
    }
}
