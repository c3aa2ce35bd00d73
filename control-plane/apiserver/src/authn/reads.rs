//! What authentication, authorization and admission read of the cluster.

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;

/// Objects by key. The API server backs this with its watch cache and answers no older than the last write it
/// acknowledged: a pod that has just been created must be found when its token is asked for.
pub trait ClusterReads: Send + Sync {
    /// An object's canonical JSON in its storage version (without apiVersion, kind and resourceVersion).
    /// `namespace` is empty for cluster-scoped objects.
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Bytes>;

    /// All objects of a resource in a namespace (all namespaces where it is empty), ordered by key.
    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Bytes>;
}

/// The little of an object that most checks need.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ObjectHead {
    pub metadata: HeadMeta,
}

/// See [`ObjectHead`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HeadMeta {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub deletion_timestamp: Option<Timestamp>,
    pub labels: std::collections::BTreeMap<String, String>,
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// Reads an object as `T`; what does not parse counts as not there, for nothing can be concluded from it.
pub fn read<T: serde::de::DeserializeOwned>(
    reads: &dyn ClusterReads,
    group: &str,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Option<T> {
    let bytes = reads.get(group, resource, namespace, name)?;
    match serde_json::from_slice(&bytes) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::error!(resource, namespace, name, %error, "a stored object cannot be read");
            None
        }
    }
}
