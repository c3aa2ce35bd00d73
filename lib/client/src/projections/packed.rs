//! Whole objects of the less numerous types, kept as JSON (a typed object costs several times that) and read when a
//! controller works on them.

use std::marker::PhantomData;

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::meta::{HasMeta, Meta};

/// An object without its managed fields.
pub struct Packed<T> {
    pub meta: Meta,
    json: Box<[u8]>,
    object: PhantomData<fn() -> T>,
}

impl<T> std::fmt::Debug for Packed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packed").field("meta", &self.meta).field("bytes", &self.json.len()).finish()
    }
}

impl<T> PartialEq for Packed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

impl<T> HasMeta for Packed<T> {
    fn meta(&self) -> &Meta {
        &self.meta
    }
}

impl<T: Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned> Packed<T> {
    /// Packs an object.
    pub fn new(mut object: T) -> Self {
        object.metadata_mut().managed_fields = None;
        let meta = Meta::new(object.metadata());
        // These types serialize into memory without a way to fail; an empty body would fail in `unpack`, not silently.
        let json = serde_json::to_vec(&object).unwrap_or_default().into_boxed_slice();
        Packed { meta, json, object: PhantomData }
    }

    /// The object again.
    pub fn unpack(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.json)
    }
}

/// An object of which only metadata is read.
pub struct MetaOnly<T> {
    pub meta: Meta,
    object: PhantomData<fn() -> T>,
}

impl<T> MetaOnly<T> {
    /// Keeps `meta` alone.
    pub fn new(meta: &ObjectMeta) -> Self {
        MetaOnly { meta: Meta::new(meta), object: PhantomData }
    }
}

impl<T> std::fmt::Debug for MetaOnly<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.meta.fmt(f)
    }
}

impl<T> HasMeta for MetaOnly<T> {
    fn meta(&self) -> &Meta {
        &self.meta
    }
}
