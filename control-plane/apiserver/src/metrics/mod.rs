//! The server's metrics, under upstream's names and labels, in the Prometheus text format.
//!
//! Upstream: `apiserver/pkg/endpoints/metrics` and `apiserver/pkg/storage/etcd3/metrics`.

mod about;
mod histogram;
mod storage;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use ahash::AHashMap;
use parking_lot::RwLock;

pub use self::about::About;
use self::histogram::{Histogram, escape, head};
pub use self::storage::{Measured, StorageMetrics, StoredIn};
use crate::body::Body;
use crate::request_info::RequestInfo;

/// Upper bounds of request and storage durations in seconds (upstream's).
const SECONDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
/// Upper bounds of durations that objectives are about (upstream's).
const OBJECTIVE_SECONDS: [f64; 21] = [
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
/// Upper bounds of the time until a watch has sent what there is (upstream's).
const WATCH_LIST_SECONDS: [f64; 17] =
    [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
/// Upper bounds of answers' sizes in bytes (upstream's).
const ANSWER_BYTES: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// Upper bounds of watch events' sizes in bytes (upstream's).
const EVENT_BYTES: [f64; 8] = [1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0];

/// One kind of request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey {
    pub verb: &'static str,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub scope: &'static str,
    pub dry_run: bool,
    pub code: u16,
}

impl RequestKey {
    /// The labels that every series of requests has, sorted by name, without the code.
    fn labels(&self) -> String {
        let dry_run = if self.dry_run { "All" } else { "" };
        format!("component=\"apiserver\",dry_run=\"{dry_run}\",{}", self.place())
    }

    fn place(&self) -> String {
        place(self.verb, &self.group, &self.version, &self.resource, &self.subresource, self.scope)
    }
}

fn place(verb: &str, group: &str, version: &str, resource: &str, subresource: &str, scope: &str) -> String {
    format!(
        "group=\"{}\",resource=\"{}\",scope=\"{scope}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"",
        escape(group),
        escape(resource),
        escape(subresource),
        reported(verb),
        escape(version)
    )
}

/// A verb as upstream reports it.
fn reported(verb: &str) -> &'static str {
    match verb {
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "get" | "head" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "patch" => "PATCH",
        "apply" => "APPLY",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "proxy" | "connect" => "CONNECT",
        _ => "other",
    }
}

/// How many requests of a kind there were with each answer, and how long they took.
struct RequestSeries {
    labels: String,
    codes: RwLock<Vec<(u16, AtomicU64)>>,
    took: Histogram,
    /// Watches have no duration.
    timed: bool,
    common: Arc<CommonSeries>,
}

/// What is not told apart by whether a request was a dry run.
struct CommonSeries {
    labels: String,
    /// Without the time in flow control's queue.
    objective: Histogram,
    /// Of what is read.
    bytes: Option<Histogram>,
}

impl RequestSeries {
    fn count(&self, code: u16) {
        if let Some((_, count)) = self.codes.read().iter().find(|(known, _)| *known == code) {
            count.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut codes = self.codes.write();
        match codes.iter().find(|(known, _)| *known == code) {
            Some((_, count)) => drop(count.fetch_add(1, Ordering::Relaxed)),
            None => codes.push((code, AtomicU64::new(1))),
        }
    }
}

impl CommonSeries {
    fn of(key: &RequestKey) -> CommonSeries {
        CommonSeries {
            labels: format!("component=\"apiserver\",{}", key.place()),
            objective: Histogram::new(&OBJECTIVE_SECONDS),
            bytes: matches!(key.verb, "get" | "list").then(|| Histogram::new(&ANSWER_BYTES)),
        }
    }

    /// A body whose bytes are counted.
    fn measured(self: Arc<Self>, body: Body) -> Body {
        let Some(sizes) = &self.bytes else { return body };
        if let Some(length) = body.len() {
            sizes.observe(length as f64);
            return body;
        }
        match body {
            Body::Lazy { pieces, left } => {
                let mut sent = Sent { to: self, bytes: 0 };
                let pieces = pieces.inspect(move |piece| sent.add(piece.len()));
                Body::Lazy { pieces: Box::new(pieces), left }
            }
            // A log, or what another server says: not an answer of the API.
            other => other,
        }
    }
}

/// One resource's watch events.
pub struct WatchSeries {
    labels: String,
    bytes: Histogram,
    count: AtomicU64,
}

impl WatchSeries {
    /// Counts an event that is sent.
    pub fn sent(&self, bytes: usize) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.bytes.observe(bytes as f64);
    }
}

/// How much of an answer was sent; counted when this is dropped.
struct Sent {
    to: Arc<CommonSeries>,
    bytes: usize,
}

impl Sent {
    fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if let Some(sizes) = &self.to.bytes {
            sizes.observe(self.bytes as f64);
        }
    }
}

/// A number that is one less when this is dropped.
pub struct Counted(Arc<AtomicI64>);

impl Counted {
    fn new(gauge: &Arc<AtomicI64>) -> Counted {
        gauge.fetch_add(1, Ordering::Relaxed);
        Counted(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Everything `/metrics` shows.
#[derive(Default)]
pub struct Metrics {
    requests: RwLock<AHashMap<RequestKey, Arc<RequestSeries>>>,
    long_running: RwLock<AHashMap<String, Arc<AtomicI64>>>,
    watched: RwLock<AHashMap<[String; 3], Arc<WatchSeries>>>,
    watch_lists: RwLock<AHashMap<String, Arc<Histogram>>>,
    /// Labels of deprecated resources that were asked for.
    deprecated: RwLock<std::collections::BTreeSet<String>>,
    pub about: About,
    pub storage: Arc<StorageMetrics>,
    pub panics: AtomicU64,
    pub rejected: AtomicU64,
    reads: Arc<AtomicI64>,
    writes: Arc<AtomicI64>,
}

/// Kinds beyond this are counted under one name, so that no client can fill the memory with series.
const MAX_SERIES: usize = 20_000;

impl Metrics {
    /// Counts one finished request, of which it was `waiting` for a place so long. The answer's bytes are counted as they leave.
    pub fn request(&self, mut key: RequestKey, took: Duration, waiting: Duration, body: Body) -> Body {
        let code = std::mem::take(&mut key.code);
        let known = self.requests.read().get(&key).cloned();
        let series = known.unwrap_or_else(|| {
            let mut all = self.requests.write();
            if all.len() >= MAX_SERIES {
                key.group.clear();
                key.version.clear();
                key.subresource.clear();
                "other".clone_into(&mut key.resource);
            }
            let twin = RequestKey { dry_run: !key.dry_run, ..key.clone() };
            let common = all.get(&twin).map(|series| series.common.clone());
            let made = || {
                Arc::new(RequestSeries {
                    labels: key.labels(),
                    codes: RwLock::default(),
                    took: Histogram::new(&SECONDS),
                    timed: key.verb != "watch",
                    common: common.unwrap_or_else(|| Arc::new(CommonSeries::of(&key))),
                })
            };
            all.entry(key.clone()).or_insert_with(made).clone()
        });
        series.count(code);
        if series.timed {
            series.took.observe(took.as_secs_f64());
            series.common.objective.observe(took.saturating_sub(waiting).as_secs_f64());
        }
        series.common.clone().measured(body)
    }

    /// A resource was asked for that is deprecated; `until` is the release that no longer has it.
    pub fn deprecated(&self, info: &RequestInfo, until: &str) {
        let labels = format!(
            "group=\"{}\",removed_release=\"{until}\",resource=\"{}\",subresource=\"{}\",version=\"{}\"",
            escape(&info.group),
            escape(&info.resource),
            escape(&info.subresource),
            escape(&info.version)
        );
        if !self.deprecated.read().contains(&labels) {
            self.deprecated.write().insert(labels);
        }
    }

    /// Where the time is counted that a watch takes to send what there is.
    pub fn watch_list(&self, info: &RequestInfo) -> Arc<Histogram> {
        let labels = format!(
            "group=\"{}\",resource=\"{}\",scope=\"{}\",version=\"{}\"",
            escape(&info.group),
            escape(&info.resource),
            info.scope(),
            escape(&info.version)
        );
        if let Some(known) = self.watch_lists.read().get(&labels) {
            return known.clone();
        }
        let made = || Arc::new(Histogram::new(&WATCH_LIST_SECONDS));
        self.watch_lists.write().entry(labels).or_insert_with(made).clone()
    }

    /// Counts a request as in flight until the answer's head is there; long-running ones are counted apart.
    pub fn in_flight(&self, verb: &str) -> Counted {
        let mutating =
            matches!(verb, "create" | "update" | "patch" | "delete" | "deletecollection" | "post" | "put");
        Counted::new(if mutating { &self.writes } else { &self.reads })
    }

    /// Counts a long-running request as long as the result lives.
    pub fn long_running(&self, info: &RequestInfo) -> Counted {
        let place =
            place(info.verb, &info.group, &info.version, &info.resource, &info.subresource, info.scope());
        let mut all = self.long_running.write();
        let key = if all.len() < MAX_SERIES { place } else { String::new() };
        Counted::new(all.entry(key).or_default())
    }

    /// Where the watch events of a resource are counted.
    pub fn watched(&self, group: &str, version: &str, resource: &str) -> Arc<WatchSeries> {
        let key = [group.to_owned(), resource.to_owned(), version.to_owned()];
        if let Some(known) = self.watched.read().get(&key) {
            return known.clone();
        }
        let labels = format!("group=\"{group}\",resource=\"{resource}\",version=\"{version}\"");
        let made = || {
            Arc::new(WatchSeries { labels, bytes: Histogram::new(&EVENT_BYTES), count: AtomicU64::new(0) })
        };
        self.watched.write().entry(key).or_insert_with(made).clone()
    }

    /// The text format. `resources` names the resources with what is known of their storage, `size` is the database's.
    pub fn render(&self, resources: &[StoredIn], size: Option<u64>) -> String {
        let mut out = String::with_capacity(64 * 1024);
        self.render_requests(&mut out);
        head(
            &mut out,
            "apiserver_current_inflight_requests",
            "gauge",
            "Requests in flight by kind, long-running ones apart.",
        );
        for (kind, gauge) in [("mutating", &self.writes), ("readOnly", &self.reads)] {
            let value = gauge.load(Ordering::Relaxed);
            let _ = writeln!(out, "apiserver_current_inflight_requests{{request_kind=\"{kind}\"}} {value}");
        }
        head(&mut out, "apiserver_longrunning_requests", "gauge", "Long-running requests that are open.");
        for (place, gauge) in self.long_running.read().iter() {
            let value = gauge.load(Ordering::Relaxed);
            let _ =
                writeln!(out, "apiserver_longrunning_requests{{component=\"apiserver\",{place}}} {value}");
        }
        self.render_watches(&mut out);
        counter(
            &mut out,
            "apiserver_flowcontrol_rejected_requests_total",
            "Requests that found no place in flight in time.",
            self.rejected.load(Ordering::Relaxed),
        );
        counter(
            &mut out,
            "keelson_apiserver_panics_total",
            "Requests whose handler panicked.",
            self.panics.load(Ordering::Relaxed),
        );
        self.storage.render(&mut out, resources, size);
        out
    }

    fn render_requests(&self, out: &mut String) {
        let requests: Vec<_> = self.requests.read().values().cloned().collect();
        head(out, "apiserver_request_total", "counter", "Requests by verb, resource and code.");
        for series in &requests {
            for (code, count) in series.codes.read().iter() {
                let count = count.load(Ordering::Relaxed);
                let _ = writeln!(out, "apiserver_request_total{{code=\"{code}\",{}}} {count}", series.labels);
            }
        }
        let name = "apiserver_request_duration_seconds";
        head(out, name, "histogram", "Time to answer, by verb and resource.");
        for series in requests.iter().filter(|series| series.timed) {
            series.took.render(out, name, &series.labels);
        }
        let common: AHashMap<&str, &RequestSeries> =
            requests.iter().map(|series| (series.common.labels.as_str(), &**series)).collect();
        let name = "apiserver_request_sli_duration_seconds";
        head(out, name, "histogram", "Time to answer without that in flow control's queue.");
        for (labels, series) in common.iter().filter(|(_, series)| series.timed) {
            series.common.objective.render(out, name, labels);
        }
        let name = "apiserver_response_sizes";
        head(out, name, "histogram", "Sizes of answers to reads, in bytes.");
        for (labels, series) in &common {
            if let Some(bytes) = &series.common.bytes {
                bytes.render(out, name, labels);
            }
        }
        let name = "apiserver_requested_deprecated_apis";
        head(out, name, "gauge", "Deprecated APIs that were asked for.");
        for labels in self.deprecated.read().iter() {
            let _ = writeln!(out, "{name}{{{labels}}} 1");
        }
    }

    fn render_watches(&self, out: &mut String) {
        let watched: Vec<_> = self.watched.read().values().cloned().collect();
        head(out, "apiserver_watch_events_total", "counter", "Events sent to watchers.");
        for series in &watched {
            let count = series.count.load(Ordering::Relaxed);
            let _ = writeln!(out, "apiserver_watch_events_total{{{}}} {count}", series.labels);
        }
        head(out, "apiserver_watch_events_sizes", "histogram", "Sizes of events sent to watchers, in bytes.");
        for series in &watched {
            series.bytes.render(out, "apiserver_watch_events_sizes", &series.labels);
        }
        let name = "apiserver_watch_list_duration_seconds";
        head(out, name, "histogram", "Time until a watch has sent what there is.");
        for (labels, took) in self.watch_lists.read().iter() {
            took.render(out, name, labels);
        }
    }
}

fn counter(out: &mut String, name: &str, help: &str, value: u64) {
    head(out, name, "counter", help);
    let _ = writeln!(out, "{name} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_kind() {
        let metrics = Metrics::default();
        let key = RequestKey {
            verb: "create",
            group: String::new(),
            version: "v1".into(),
            resource: "pods".into(),
            subresource: String::new(),
            scope: "resource",
            dry_run: false,
            code: 201,
        };
        let count = |key: RequestKey, milliseconds: u64| {
            let took = Duration::from_millis(milliseconds);
            metrics.request(key, took, took / 2, Body::Empty);
        };
        count(key.clone(), 3);
        count(key.clone(), 30);
        count(RequestKey { code: 409, ..key.clone() }, 30);
        // A dry run has series of its own, and shares those that do not tell it apart.
        count(RequestKey { dry_run: true, ..key }, 300);
        let text = metrics.render(&[], None);
        let labels = "component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"pods\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"";
        let common = labels.replace("dry_run=\"\",", "");
        for line in [
            format!("apiserver_request_total{{code=\"201\",{labels}}} 2"),
            format!("apiserver_request_total{{code=\"409\",{labels}}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"0.005\"}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"0.05\"}} 3"),
            format!("apiserver_request_duration_seconds_count{{{labels}}} 3"),
            format!("apiserver_request_sli_duration_seconds_bucket{{{common},le=\"0.05\"}} 3"),
            format!("apiserver_request_sli_duration_seconds_bucket{{{common},le=\"0.2\"}} 4"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn what_is_open_is_counted_while_it_is() {
        let metrics = Metrics::default();
        let held = (metrics.in_flight("get"), metrics.in_flight("patch"));
        let kind = |kind: &str, count: u32| {
            let line = format!("apiserver_current_inflight_requests{{request_kind=\"{kind}\"}} {count}\n");
            assert!(metrics.render(&[], None).contains(&line), "{line}");
        };
        kind("readOnly", 1);
        kind("mutating", 1);
        drop(held);
        kind("readOnly", 0);
        kind("mutating", 0);
    }
}
