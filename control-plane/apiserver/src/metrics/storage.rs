//! Requests to the store, counted by operation and resource. The names are upstream's `etcd_…`, whatever the store is.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ahash::AHashMap;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use keelson_store::{
    CommitError, Committed, Entry, Expect, Page, Revision, Store, StoreError, Transaction, Watch, WatchItem,
    Write,
};
use parking_lot::RwLock;

use super::histogram::{Histogram, head};
use super::{MAX_SERIES, SECONDS};

/// A resource, the prefix of its keys, and how many objects there are where that is known.
pub struct StoredIn {
    pub prefix: String,
    pub group: String,
    pub resource: String,
    pub objects: Option<usize>,
}

struct Series {
    took: Histogram,
    count: AtomicU64,
    failed: AtomicU64,
}

const OPERATIONS: [&str; 5] = ["create", "delete", "get", "list", "update"];

/// Counts by operation (as in [`OPERATIONS`]) and key prefix.
#[derive(Default)]
pub struct StorageMetrics {
    series: [RwLock<AHashMap<String, Arc<Series>>>; OPERATIONS.len()],
    /// Events that watches of the store brought, by the prefix watched.
    received: RwLock<AHashMap<String, Arc<AtomicU64>>>,
}

impl StorageMetrics {
    fn count(&self, operation: &'static str, key: &str, begun: Instant, failed: bool) {
        let Some(at) = OPERATIONS.iter().position(|known| *known == operation) else { return };
        let prefix = prefix(key);
        let known = self.series[at].read().get(prefix).cloned();
        let series = known.unwrap_or_else(|| {
            let mut all = self.series[at].write();
            let prefix = if all.len() < MAX_SERIES { prefix } else { "" };
            let made = || {
                let took = Histogram::new(&SECONDS);
                Arc::new(Series { took, count: AtomicU64::new(0), failed: AtomicU64::new(0) })
            };
            all.entry(prefix.to_owned()).or_insert_with(made).clone()
        });
        series.count.fetch_add(1, Ordering::Relaxed);
        series.took.observe(begun.elapsed().as_secs_f64());
        if failed {
            series.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn received(&self, under: &str) -> Arc<AtomicU64> {
        let mut all = self.received.write();
        let prefix = if all.len() < MAX_SERIES { prefix(under) } else { "" };
        all.entry(prefix.to_owned()).or_default().clone()
    }

    fn render_received(&self, out: &mut String, named: &AHashMap<&str, &StoredIn>) {
        let name = "apiserver_storage_events_received_total";
        head(out, name, "counter", "Changes that the store told of, by resource.");
        for (prefix, count) in self.received.read().iter() {
            if let Some(stored) = named.get(prefix.as_str()) {
                let labels = format!("group=\"{}\",resource=\"{}\"", stored.group, stored.resource);
                let _ = writeln!(out, "{name}{{{labels}}} {}", count.load(Ordering::Relaxed));
            }
        }
    }

    /// Appends the text format. `size` is what the database takes on its disk.
    pub fn render(&self, out: &mut String, resources: &[StoredIn], size: Option<u64>) {
        let named: AHashMap<&str, &StoredIn> =
            resources.iter().map(|stored| (stored.prefix.as_str(), stored)).collect();
        self.render_received(out, &named);
        if let Some(size) = size {
            let name = "apiserver_storage_size_bytes";
            head(out, name, "gauge", "What the database takes on its disk, in bytes.");
            let _ = writeln!(out, "{name}{{storage_cluster_id=\"etcd-0\"}} {size}");
        }
        let mut all: Vec<(String, Arc<Series>)> = Vec::new();
        for (operation, series) in OPERATIONS.iter().zip(&self.series) {
            for (prefix, series) in series.read().iter() {
                // What no resource has are unserved records, such as the allocators'.
                let (group, resource) = named
                    .get(prefix.as_str())
                    .map_or(("", ""), |stored| (stored.group.as_str(), stored.resource.as_str()));
                let labels = format!("group=\"{group}\",operation=\"{operation}\",resource=\"{resource}\"");
                all.push((labels, series.clone()));
            }
        }
        let duration = "etcd_request_duration_seconds";
        head(out, duration, "histogram", "Time of a request to the store, by operation and resource.");
        all.iter().for_each(|(labels, series)| series.took.render(out, duration, labels));
        head(out, "etcd_requests_total", "counter", "Requests to the store, by operation and resource.");
        for (labels, series) in &all {
            let _ = writeln!(out, "etcd_requests_total{{{labels}}} {}", series.count.load(Ordering::Relaxed));
        }
        head(out, "etcd_request_errors_total", "counter", "Requests to the store that failed.");
        for (labels, series) in &all {
            let failed = series.failed.load(Ordering::Relaxed);
            let _ = writeln!(out, "etcd_request_errors_total{{{labels}}} {failed}");
        }
        head(out, "apiserver_resource_objects", "gauge", "Stored objects, where the cache has them.");
        for stored in resources {
            if let Some(objects) = stored.objects {
                let (group, resource) = (&stored.group, &stored.resource);
                let _ = writeln!(
                    out,
                    "apiserver_resource_objects{{group=\"{group}\",resource=\"{resource}\"}} {objects}"
                );
            }
        }
        head(
            out,
            "apiserver_storage_objects",
            "gauge",
            "Stored objects; apiserver_resource_objects replaces it.",
        );
        for stored in resources {
            if let Some(objects) = stored.objects {
                let dot = if stored.group.is_empty() { "" } else { "." };
                let name = format!("{}{dot}{}", stored.resource, stored.group);
                let _ = writeln!(out, "apiserver_storage_objects{{resource=\"{name}\"}} {objects}");
            }
        }
    }
}

/// The part of a key that names its resource: one segment after the root, two where the first is a group or `services`.
fn prefix(key: &str) -> &str {
    let Some(rest) = key.strip_prefix(crate::keys::ROOT) else { return "" };
    let first = rest.find('/').unwrap_or(rest.len());
    let two = rest[..first].contains('.') || &rest[..first] == "services";
    let end = if two {
        rest[first..].get(1..).and_then(|tail| tail.find('/')).map_or(rest.len(), |at| first + 1 + at)
    } else {
        first
    };
    let end = (crate::keys::ROOT.len() + end + 1).min(key.len());
    &key[..end]
}

/// A store whose requests are counted.
pub struct Measured {
    store: Arc<dyn Store>,
    metrics: Arc<StorageMetrics>,
}

impl Measured {
    pub fn new(store: Arc<dyn Store>, metrics: Arc<StorageMetrics>) -> Measured {
        Measured { store, metrics }
    }
}

/// What upstream calls the operation of a transaction's served write.
fn operation(transaction: &Transaction) -> (&'static str, &str) {
    let served = |write: &Write| match write {
        Write::Put { key, .. } | Write::Expiring { key, .. } | Write::Delete { key } => {
            key.starts_with(crate::keys::ROOT)
        }
    };
    match transaction.writes.iter().find(|write| served(write)).or(transaction.writes.first()) {
        Some(Write::Delete { key }) => ("delete", key),
        Some(Write::Put { key, .. } | Write::Expiring { key, .. }) => {
            let absent = transaction
                .guards
                .iter()
                .any(|(guarded, expect)| guarded == key && matches!(expect, Expect::Absent));
            (if absent { "create" } else { "update" }, key)
        }
        None => ("get", ""),
    }
}

impl Store for Measured {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<Entry>, Revision), StoreError>> {
        let (key, begun) = (key.to_owned(), Instant::now());
        let asked = self.store.get(&key);
        Box::pin(async move {
            let answer = asked.await;
            self.metrics.count("get", &key, begun, answer.is_err());
            answer
        })
    }

    fn list(
        &self,
        under: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        let (key, begun) = (under.to_owned(), Instant::now());
        let asked = self.store.list(under, after, limit, at);
        Box::pin(async move {
            let answer = asked.await;
            self.metrics.count("list", &key, begun, answer.is_err());
            answer
        })
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Committed, CommitError>> {
        let (operation, key) = operation(&transaction);
        let (prefix, begun) = (prefix(key).to_owned(), Instant::now());
        let asked = self.store.commit(transaction);
        Box::pin(async move {
            let answer = asked.await;
            // A lost compare-and-swap is an answer, not a failure.
            let failed = matches!(answer, Err(CommitError::Store(_)));
            self.metrics.count(operation, &prefix, begun, failed);
            answer
        })
    }

    fn watch(&self, under: &str, after: Revision) -> BoxFuture<'_, Result<Watch, StoreError>> {
        let (asked, received) = (self.store.watch(under, after), self.metrics.received(under));
        Box::pin(async move {
            let watch = asked.await?;
            let frontier = watch.frontier();
            let counted = watch.inspect(move |item| {
                if let Ok(WatchItem::Event(_)) = item {
                    received.fetch_add(1, Ordering::Relaxed);
                }
            });
            Ok(Watch::new(counted.boxed(), frontier))
        })
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        self.store.revision()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.compact(revision)
    }

    fn size(&self) -> BoxFuture<'_, Result<Option<u64>, StoreError>> {
        self.store.size()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_their_resource() {
        for (key, expected) in [
            ("/registry/pods/default/a", "/registry/pods/"),
            ("/registry/pods/", "/registry/pods/"),
            ("/registry/namespaces/a", "/registry/namespaces/"),
            ("/registry/services/specs/default/a", "/registry/services/specs/"),
            ("/registry/a.example.com/things/default/x", "/registry/a.example.com/things/"),
            ("/registry/a.example.com/things/", "/registry/a.example.com/things/"),
            ("/registry/a.example.com", "/registry/a.example.com"),
            ("/registry/", "/registry/"),
            ("other", ""),
        ] {
            assert_eq!(prefix(key), expected, "{key}");
        }
    }

    #[tokio::test]
    async fn operations_are_told_apart() {
        let metrics = Arc::new(StorageMetrics::default());
        let store = Measured::new(Arc::new(keelson_store::MemoryStore::new()), metrics.clone());
        let key = "/registry/pods/default/a".to_owned();
        let put = |expect| Transaction {
            guards: vec![(key.clone(), expect)],
            writes: vec![Write::Put { key: key.clone(), value: b"{}".to_vec().into() }],
        };
        let revision = store.commit(put(Expect::Absent)).await.unwrap().revision;
        store.commit(put(Expect::Revision(revision))).await.unwrap();
        store.commit(put(Expect::Absent)).await.unwrap_err();
        store.get(&key).await.unwrap();
        let pods = StoredIn {
            prefix: "/registry/pods/".into(),
            group: String::new(),
            resource: "pods".into(),
            objects: Some(1),
        };
        let mut text = String::new();
        metrics.render(&mut text, &[pods], Some(4096));
        for line in [
            "etcd_requests_total{group=\"\",operation=\"create\",resource=\"pods\"} 2",
            "etcd_requests_total{group=\"\",operation=\"update\",resource=\"pods\"} 1",
            "etcd_requests_total{group=\"\",operation=\"get\",resource=\"pods\"} 1",
            "etcd_request_errors_total{group=\"\",operation=\"create\",resource=\"pods\"} 0",
            "apiserver_storage_objects{resource=\"pods\"} 1",
            "apiserver_storage_size_bytes{storage_cluster_id=\"etcd-0\"} 4096",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
