//! What authentication, authorization and admission read of the cluster, from the watch caches; and the observers that
//! keep the authorizers' own indices current.
//!
//! What always holds: before a write of one of these resources is answered, the caches and indices that decisions read
//! show it (see [`caught_up`]).

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;

use crate::authn::ClusterReads;
use crate::authz::{NodeGraph, PolicyKind, PolicyStore};
use crate::cache::{JsonPaths, Object, Observer, ReadAt, Settings, WatchCache, WatchCaches};
use crate::keys;

/// Resources that decisions read without waiting, so their caches are filled before the server is ready.
pub const READ_BY_DECISIONS: &[(&str, &str, bool)] = &[
    ("", "namespaces", false),
    ("", "nodes", false),
    ("", "pods", true),
    ("", "serviceaccounts", true),
    ("", "secrets", true),
    ("", "limitranges", true),
    ("", "resourcequotas", true),
    ("", "persistentvolumeclaims", true),
    ("", "persistentvolumes", false),
    ("scheduling.k8s.io", "priorityclasses", false),
    ("storage.k8s.io", "storageclasses", false),
    ("storage.k8s.io", "volumeattachments", false),
    ("storage.k8s.io", "csidrivers", false),
    ("node.k8s.io", "runtimeclasses", false),
    ("networking.k8s.io", "ingressclasses", false),
    ("resource.k8s.io", "resourceslices", false),
    ("rbac.authorization.k8s.io", "roles", true),
    ("rbac.authorization.k8s.io", "rolebindings", true),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
];

/// Resources of which decisions only peek at what a watch has brought already: writes of them wait for nothing. The
/// signer's own watch fills the cache of the discovery document.
const PEEKED_AT: &[(&str, &str, bool)] = &[("", "configmaps", true)];

/// The store's prefixes of both, in order: every write asks for several.
static PREFIXES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let all = READ_BY_DECISIONS.iter().chain(PEEKED_AT);
    all.map(|(group, resource, _)| keys::prefix(group, resource, false)).collect()
});

/// Makes the cache of a resource as the pipeline does: same prefix, same selectable fields.
pub type CacheOf = dyn Fn(&str, &str) -> Option<Arc<WatchCache>> + Send + Sync;

/// The caches as [`ClusterReads`].
pub struct CachedReads {
    pub caches: Arc<WatchCaches>,
}

impl CachedReads {
    fn cache(&self, group: &str, resource: &str) -> Option<Arc<WatchCache>> {
        let all = READ_BY_DECISIONS.iter().chain(PEEKED_AT);
        let ((.., namespaced), prefix) =
            // The resource first: groups are alike, and every write asks for several.
            all.zip(PREFIXES.iter()).find(|((g, r, _), _)| *r == resource && *g == group)?;
        // The caches were made with their own settings at start; these are for the case that one was not.
        let settings = || Settings {
            prefix: prefix.clone(),
            namespaced: *namespaced,
            fields: Arc::new(JsonPaths::none()),
        };
        Some(self.caches.resource(prefix, settings))
    }
}

impl ClusterReads for CachedReads {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Bytes> {
        let cache = self.cache(group, resource)?;
        let object =
            if namespace.is_empty() { cache.peek(name) } else { cache.peek(&format!("{namespace}/{name}")) };
        object.map(|object| Bytes::copy_from_slice(object.json()))
    }

    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Bytes> {
        let Some(cache) = self.cache(group, resource) else { return Vec::new() };
        cache.peek_all(namespace).iter().map(|object| Bytes::copy_from_slice(object.json())).collect()
    }
}

/// How long an answer waits for what decisions read; it is behind by microseconds.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Fills the caches that decisions read, and has those of the authorizers' indices show them every change.
pub async fn follow(cache_of: &CacheOf, policy: &Arc<PolicyStore>, graph: &Arc<NodeGraph>) {
    for (group, resource, _) in READ_BY_DECISIONS {
        let Some(cache) = cache_of(group, resource) else { continue };
        // Fills the cache; one that fails fills when the store is back, and shows its objects then.
        if let Err(error) = cache.get("", ReadAt::Newest).await {
            tracing::warn!(group, resource, %error, "what decisions read cannot be read yet");
        }
        if let Some(index) = Index::of(group, resource, policy, graph) {
            cache.observe(Arc::new(index));
        }
    }
}

/// Waits until what decisions read of a resource shows a revision that one of its objects was just written at.
pub async fn caught_up(cache: &WatchCache, revision: u64) {
    // An answer that comes a moment late is no failure of the write.
    let seen = tokio::time::timeout(CATCH_UP, cache.get("", ReadAt::NotOlderThan(revision))).await;
    if seen.is_err() {
        tracing::warn!(revision, "what decisions read is late");
    }
}

/// Which index a resource feeds.
enum Index {
    Policy(PolicyKind, Arc<PolicyStore>),
    Pods(Arc<NodeGraph>),
    Volumes(Arc<NodeGraph>),
    Attachments(Arc<NodeGraph>),
    Slices(Arc<NodeGraph>),
}

impl Index {
    fn of(group: &str, resource: &str, policy: &Arc<PolicyStore>, graph: &Arc<NodeGraph>) -> Option<Index> {
        Some(match (group, resource) {
            ("rbac.authorization.k8s.io", _) => {
                Index::Policy(PolicyKind::from_resource(resource)?, policy.clone())
            }
            ("", "pods") => Index::Pods(graph.clone()),
            ("", "persistentvolumes") => Index::Volumes(graph.clone()),
            ("storage.k8s.io", "volumeattachments") => Index::Attachments(graph.clone()),
            ("resource.k8s.io", "resourceslices") => Index::Slices(graph.clone()),
            _ => return None,
        })
    }
}

impl Observer for Index {
    fn change(&self, key: &str, object: Option<&Object>) {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        let json = object.map(Object::json);
        let outcome = match self {
            Index::Policy(kind, policy) => policy.apply(*kind, namespace, name, json),
            Index::Pods(graph) => graph.pod(namespace, name, json),
            Index::Volumes(graph) => graph.persistent_volume(name, json),
            Index::Attachments(graph) => graph.volume_attachment(name, json),
            Index::Slices(graph) => graph.resource_slice(name, json),
        };
        if let Err(error) = outcome {
            tracing::error!(key, %error, "an object that decisions need cannot be read");
        }
    }
}
