//! What every controller reads of an object's metadata, in as few allocations as possible.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// Sorted string pairs in one allocation (`key\0value\0…`; neither may hold a NUL in Kubernetes).
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels(Box<str>);

impl Labels {
    /// Packs pairs in the map's order.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut packed = String::new();
        for (key, value) in pairs {
            packed.push_str(key);
            packed.push('\0');
            packed.push_str(value);
            packed.push('\0');
        }
        Labels(packed.into_boxed_str())
    }

    /// Packs a map.
    pub fn from_map(map: Option<&BTreeMap<String, String>>) -> Self {
        match map {
            Some(map) => Labels::new(map.iter().map(|(k, v)| (k.as_str(), v.as_str()))),
            None => Labels::default(),
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// All pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut parts = self.0.split_terminator('\0');
        std::iter::from_fn(move || Some((parts.next()?, parts.next().unwrap_or(""))))
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As a map, to be written into an object.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }
}

impl std::fmt::Debug for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// One owner reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub api_version: Box<str>,
    pub kind: Box<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    pub controller: bool,
    pub block_owner_deletion: bool,
}

impl Owner {
    fn new(reference: &OwnerReference) -> Self {
        Owner {
            api_version: reference.api_version.as_str().into(),
            kind: reference.kind.as_str().into(),
            name: reference.name.as_str().into(),
            uid: reference.uid.as_str().into(),
            controller: reference.controller.unwrap_or(false),
            block_owner_deletion: reference.block_owner_deletion.unwrap_or(false),
        }
    }
}

/// Metadata without annotations and managed fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    /// Empty for cluster-scoped objects.
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    /// The resource version as a number; 0 when the server's is not one.
    pub resource_version: u64,
    pub generation: i64,
    pub created: Timestamp,
    pub deleted: Option<Timestamp>,
    pub labels: Labels,
    pub finalizers: Box<[Box<str>]>,
    pub owners: Box<[Owner]>,
}

impl Default for Meta {
    fn default() -> Self {
        Meta::new(&ObjectMeta::default())
    }
}

impl Meta {
    /// Reads what is kept of `meta`.
    pub fn new(meta: &ObjectMeta) -> Self {
        Meta {
            namespace: meta.namespace.as_deref().unwrap_or_default().into(),
            name: meta.name.as_deref().unwrap_or_default().into(),
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            resource_version: meta.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0),
            generation: meta.generation.unwrap_or(0),
            created: meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            deleted: meta.deletion_timestamp.as_ref().map(|t| t.0),
            labels: Labels::from_map(meta.labels.as_ref()),
            finalizers: meta.finalizers.iter().flatten().map(|f| f.as_str().into()).collect(),
            owners: meta.owner_references.iter().flatten().map(Owner::new).collect(),
        }
    }

    /// The owner that controls the object.
    pub fn controller(&self) -> Option<&Owner> {
        self.owners.iter().find(|owner| owner.controller)
    }

    /// Whether `finalizer` is set.
    pub fn has_finalizer(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|f| &**f == finalizer)
    }

    /// `namespace/name`, or the name alone when cluster-scoped.
    pub fn display_name(&self) -> String {
        if self.namespace.is_empty() {
            self.name.to_string()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }
}

/// A projection that keeps [`Meta`].
pub trait HasMeta {
    fn meta(&self) -> &Meta;
}
