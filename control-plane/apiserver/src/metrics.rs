//! The server's metrics, under upstream's names, in the Prometheus text format.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use ahash::AHashMap;
use parking_lot::RwLock;

/// Upper bounds of `apiserver_request_duration_seconds` (upstream's).
const BOUNDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

/// One kind of request; the key of its series.
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

#[derive(Default)]
struct RequestSeries {
    count: AtomicU64,
    buckets: [AtomicU64; BOUNDS.len()],
    micros: AtomicU64,
}

/// Everything `/metrics` shows.
#[derive(Default)]
pub struct Metrics {
    requests: RwLock<AHashMap<RequestKey, Arc<RequestSeries>>>,
    pub panics: AtomicU64,
    pub rejected: AtomicU64,
    pub in_flight_reads: AtomicI64,
    pub in_flight_writes: AtomicI64,
    pub watchers: AtomicI64,
    pub watch_events: AtomicU64,
}

/// Kinds of requests beyond this are counted under one name, so that no client can fill the memory with series.
const MAX_SERIES: usize = 20_000;

impl Metrics {
    /// Counts one finished request.
    pub fn request(&self, key: RequestKey, took: Duration) {
        let known = self.requests.read().get(&key).cloned();
        let series = known.unwrap_or_else(|| {
            let mut all = self.requests.write();
            let key = if all.len() >= MAX_SERIES {
                RequestKey {
                    group: String::new(),
                    version: String::new(),
                    resource: "other".to_owned(),
                    subresource: String::new(),
                    ..key
                }
            } else {
                key
            };
            all.entry(key).or_default().clone()
        });
        series.count.fetch_add(1, Ordering::Relaxed);
        let seconds = took.as_secs_f64();
        if let Some(bucket) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            series.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        series.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The text format.
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(64 * 1024);
        let requests: Vec<_> = {
            let all = self.requests.read();
            all.iter().map(|(key, series)| (key.clone(), series.clone())).collect()
        };
        head(&mut out, "apiserver_request_total", "counter", "Requests by verb, resource and code.");
        for (key, series) in &requests {
            let dry_run = if key.dry_run { "All" } else { "" };
            let _ = writeln!(
                out,
                "apiserver_request_total{{code=\"{}\",component=\"apiserver\",dry_run=\"{dry_run}\",group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"}} {}",
                key.code,
                escape(&key.group),
                escape(&key.resource),
                key.scope,
                escape(&key.subresource),
                upper(key.verb),
                escape(&key.version),
                series.count.load(Ordering::Relaxed),
            );
        }
        self.render_durations(&mut out, &requests);
        gauge(
            &mut out,
            "apiserver_current_inflight_requests{request_kind=\"readOnly\"}",
            self.in_flight_reads.load(Ordering::Relaxed),
        );
        let _ = writeln!(
            out,
            "apiserver_current_inflight_requests{{request_kind=\"mutating\"}} {}",
            self.in_flight_writes.load(Ordering::Relaxed)
        );
        gauge(&mut out, "apiserver_longrunning_requests", self.watchers.load(Ordering::Relaxed));
        counter(&mut out, "apiserver_watch_events_total", self.watch_events.load(Ordering::Relaxed));
        counter(&mut out, "apiserver_request_aborts_total", 0);
        counter(
            &mut out,
            "apiserver_flowcontrol_rejected_requests_total",
            self.rejected.load(Ordering::Relaxed),
        );
        counter(&mut out, "keelson_apiserver_panics_total", self.panics.load(Ordering::Relaxed));
        out
    }

    fn render_durations(&self, out: &mut String, requests: &[(RequestKey, Arc<RequestSeries>)]) {
        head(out, "apiserver_request_duration_seconds", "histogram", "Time to answer.");
        for (key, series) in requests {
            if key.verb == "watch" {
                continue;
            }
            let labels = format!(
                "component=\"apiserver\",code=\"{}\",group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"",
                key.code,
                escape(&key.group),
                escape(&key.resource),
                key.scope,
                escape(&key.subresource),
                upper(key.verb),
                escape(&key.version),
            );
            let mut sum = 0;
            for (bound, bucket) in BOUNDS.iter().zip(&series.buckets) {
                sum += bucket.load(Ordering::Relaxed);
                let _ = writeln!(
                    out,
                    "apiserver_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {sum}"
                );
            }
            let count = series.count.load(Ordering::Relaxed);
            let seconds = series.micros.load(Ordering::Relaxed) as f64 / 1e6;
            let _ =
                writeln!(out, "apiserver_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {count}");
            let _ = writeln!(out, "apiserver_request_duration_seconds_sum{{{labels}}} {seconds}");
            let _ = writeln!(out, "apiserver_request_duration_seconds_count{{{labels}}} {count}");
        }
    }
}

fn upper(verb: &str) -> String {
    verb.to_ascii_uppercase()
}

fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn gauge(out: &mut String, series: &str, value: i64) {
    let name = series.split('{').next().unwrap_or(series);
    let _ = writeln!(out, "# TYPE {name} gauge\n{series} {value}");
}

fn counter(out: &mut String, name: &str, value: u64) {
    let _ = writeln!(out, "# TYPE {name} counter\n{name} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_kind() {
        let metrics = Metrics::default();
        let key = RequestKey {
            verb: "get",
            group: String::new(),
            version: "v1".into(),
            resource: "pods".into(),
            subresource: String::new(),
            scope: "resource",
            dry_run: false,
            code: 200,
        };
        metrics.request(key.clone(), Duration::from_millis(3));
        metrics.request(key, Duration::from_millis(30));
        let text = metrics.render();
        assert!(
            text.contains("scope=\"resource\",subresource=\"\",verb=\"GET\",version=\"v1\"} 2"),
            "{text}"
        );
        assert!(text.contains("le=\"0.005\"} 1") && text.contains("le=\"0.05\"} 2"), "{text}");
    }
}
