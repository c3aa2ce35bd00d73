//! Paths that name no resource: health, version, metrics, discovery, OpenAPI, OIDC documents.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, ETAG, HeaderValue, IF_NONE_MATCH, LOCATION, VARY,
};
use http::{Method, Response, StatusCode};
use keelson_api::status::Status;
use keelson_api::table::Table;
use keelson_base::consts;

use crate::authn::{JWKS_PATH, OPENID_CONFIG_PATH};
use crate::body::{Body, RequestBody};
use crate::core::Call;
use crate::documents;
use crate::keys;
use crate::metrics::StoredIn;
use crate::negotiate::{self, JSON, Output};
use crate::{respond, scan};

/// What the health endpoints report on.
#[derive(Default)]
pub struct Health {
    /// Named steps of the start that are still to come; readiness waits for them.
    pending: parking_lot::Mutex<BTreeMap<&'static str, bool>>,
    draining: AtomicBool,
}

impl Health {
    /// Adds a step that must be done before the server is ready.
    pub fn expect(&self, name: &'static str) {
        self.pending.lock().insert(name, false);
    }

    /// The step is done.
    pub fn done(&self, name: &'static str) {
        self.pending.lock().insert(name, true);
    }

    /// From now on `/readyz` fails, so that others stop sending.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn steps(&self) -> Vec<(&'static str, bool)> {
        self.pending.lock().iter().map(|(name, done)| (*name, *done)).collect()
    }
}

/// Serves a request that names no resource.
pub async fn serve(call: &Call<'_>, _body: RequestBody) -> Result<Response<Body>, Status> {
    let path = call.info.path.trim_end_matches('/');
    // Upstream routes GET alone to what it calls web services, and any method to the rest.
    let service = matches!(path, "/version" | OPENID_CONFIG_PATH | JWKS_PATH)
        || ["/api", "/apis"]
            .iter()
            .any(|root| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    if !(*call.method == Method::GET || *call.method == Method::HEAD && !service) {
        return Err(Status::method_not_allowed());
    }
    match path {
        "" => root(call),
        "/version" => Ok(respond::bytes(StatusCode::OK, JSON, version())),
        "/metrics" => Ok(metrics(call).await),
        "/metrics/slis" => {
            let mut text = String::new();
            call.core.metrics.about.render_checks(&mut text);
            Ok(respond::bytes(StatusCode::OK, METRICS, text))
        }
        OPENID_CONFIG_PATH | JWKS_PATH => openid(call, path),
        _ => {
            for kind in [Probe::Live, Probe::Ready, Probe::Health] {
                if let Some(rest) = path.strip_prefix(kind.prefix())
                    && (rest.is_empty() || rest.starts_with('/'))
                {
                    return probe(call, kind, rest.trim_start_matches('/')).await;
                }
            }
            document(call, path).await
        }
    }
}

/// The text format of metrics.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

fn root(call: &Call<'_>) -> Result<Response<Body>, Status> {
    let table = call.core.table.load();
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/apis/",
        "/metrics",
        "/metrics/slis",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/",
        "/openid/v1/jwks",
        "/version",
    ]
    .iter()
    .map(|path| (*path).to_owned())
    .collect();
    for kind in [Probe::Live, Probe::Ready, Probe::Health] {
        let (prefix, checks) = (kind.prefix(), names(call, kind));
        paths.push(prefix.to_owned());
        paths.extend(checks.iter().map(|name| format!("{prefix}/{name}")));
    }
    for group in table.groups().filter(|group| !group.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(table.versions(group).iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.sort();
    let body = serde_json::to_vec_pretty(&serde_json::json!({ "paths": paths })).map_err(Status::internal)?;
    Ok(respond::bytes(StatusCode::OK, JSON, body))
}

/// In the order of upstream's `version.Info`.
fn build() -> [(&'static str, String); 13] {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let minor: u32 = consts::KUBERNETES_MINOR.parse().unwrap_or(1);
    [
        ("major", consts::KUBERNETES_MAJOR.to_owned()),
        ("minor", consts::KUBERNETES_MINOR.to_owned()),
        ("emulationMajor", consts::KUBERNETES_MAJOR.to_owned()),
        ("emulationMinor", consts::KUBERNETES_MINOR.to_owned()),
        ("minCompatibilityMajor", consts::KUBERNETES_MAJOR.to_owned()),
        ("minCompatibilityMinor", (minor - 1).to_string()),
        ("gitVersion", format!("{}+keelson", consts::KUBERNETES_VERSION)),
        ("gitCommit", option_env!("KEELSON_COMMIT").unwrap_or("unknown").to_owned()),
        ("gitTreeState", "clean".to_owned()),
        ("buildDate", "1970-01-01T00:00:00Z".to_owned()),
        ("goVersion", "none".to_owned()),
        ("compiler", "rustc".to_owned()),
        ("platform", format!("{}/{architecture}", std::env::consts::OS)),
    ]
}

fn version() -> Vec<u8> {
    let lines: Vec<String> = build().iter().map(|(name, value)| format!("  {name:?}: {value:?}")).collect();
    format!("{{\n{}\n}}", lines.join(",\n")).into_bytes()
}

/// Whether upstream routes a path to a group that it serves itself: what is not there is then answered with a Status, elsewhere
/// with a text.
pub fn within_a_group(table: &Table, path: &str) -> bool {
    let mut parts = path.trim_start_matches('/').split('/');
    match (parts.next(), parts.next()) {
        (Some("api"), _) => true,
        (Some("apis"), Some(group)) => {
            table.rows().iter().any(|row| row.ty.is_some() && row.group == group) || group.is_empty()
        }
        (Some("apis"), None) => true,
        _ => false,
    }
}

/// What upstream answers where it has no handler.
pub fn no_handler() -> Response<Body> {
    respond::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

async fn metrics(call: &Call<'_>) -> Response<Body> {
    let core = call.core;
    let counts = core.caches.counts();
    let mut resources: Vec<StoredIn> = Vec::new();
    for row in core.table.load().rows() {
        let prefix = keys::row_prefix(row);
        if !resources.iter().any(|known| known.prefix == prefix) {
            let objects = counts.get(&prefix).copied();
            resources.push(StoredIn {
                prefix,
                group: row.group.to_string(),
                resource: row.plural.to_string(),
                objects,
            });
        }
    }
    // A store that does not say how large it is makes no other figure wait.
    let size = core.store.size().await.ok().flatten();
    let mut text = core.metrics.render(&resources, size);
    core.metrics.about.render(&mut text, &build(), &core.gates);
    respond::bytes(StatusCode::OK, METRICS, text)
}

fn openid(call: &Call<'_>, path: &str) -> Result<Response<Body>, Status> {
    let documents = call.core.access.openid.as_ref().ok_or_else(Status::resource_not_found)?;
    let (body, media_type) = if path == JWKS_PATH {
        (documents.keys.clone(), "application/jwk-set+json")
    } else {
        (documents.config.clone(), JSON)
    };
    let mut response = respond::bytes(StatusCode::OK, media_type, body);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    Ok(response)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Probe {
    Live,
    Ready,
    Health,
}

impl Probe {
    fn prefix(self) -> &'static str {
        match self {
            Probe::Live => "/livez",
            Probe::Ready => "/readyz",
            Probe::Health => "/healthz",
        }
    }
}

/// The names of what is checked.
fn names(call: &Call<'_>, kind: Probe) -> Vec<&'static str> {
    let mut names = vec!["ping", "etcd"];
    if kind != Probe::Live {
        names.push("etcd-readiness");
        names.extend(call.core.health.steps().iter().map(|(step, _)| *step));
    }
    if kind == Probe::Ready {
        names.push("shutdown");
    }
    names
}

/// `?verbose`, `?exclude=`, and single checks as sub-paths.
async fn probe(call: &Call<'_>, kind: Probe, single: &str) -> Result<Response<Body>, Status> {
    let prefix = kind.prefix();
    let store = call.core.store.revision().await.map(|_| ()).map_err(|error| error.to_string());
    let steps = call.core.health.steps();
    let draining = call.core.health.draining.load(Ordering::Relaxed);
    let outcome = |name: &'static str| match name {
        "ping" => Ok(()),
        "etcd" | "etcd-readiness" => store.clone(),
        "shutdown" if draining => Err("process is shutting down".to_owned()),
        step if steps.contains(&(step, false)) => Err("not finished".to_owned()),
        _ => Ok(()),
    };
    let checks: Vec<_> = names(call, kind).into_iter().map(|name| (name, outcome(name))).collect();
    for (name, outcome) in &checks {
        call.core.metrics.about.checked(&prefix[1..], name, outcome.is_ok());
    }
    if !single.is_empty() {
        let Some((name, outcome)) = checks.iter().find(|(name, _)| *name == single) else {
            return Err(Status::resource_not_found());
        };
        return Ok(match outcome {
            Ok(()) => respond::text(StatusCode::OK, "ok"),
            Err(why) => respond::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("internal server error: {name}: {why}\n"),
            ),
        });
    }
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    let mut text = String::new();
    let mut failed = false;
    for (name, outcome) in &checks {
        let line = if excluded.contains(name) {
            format!("[+]{name} excluded: ok\n")
        } else if let Err(why) = outcome {
            failed = true;
            tracing::debug!(check = name, why, "health check");
            format!("[-]{name} failed: reason withheld\n")
        } else {
            format!("[+]{name} ok\n")
        };
        text.push_str(&line);
    }
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|name| !checks.iter().any(|(check, _)| check == *name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unknown.is_empty() {
        let names = unknown.join(",");
        text.push_str(&format!("warn: some health checks cannot be excluded: no matches for {names}\n"));
    }
    let what = prefix.trim_start_matches('/');
    Ok(match (failed, call.query.first("verbose").is_some()) {
        (true, _) => respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{text}{what} check failed\n")),
        (false, true) => respond::text(StatusCode::OK, format!("{text}{what} check passed\n")),
        (false, false) => respond::text(StatusCode::OK, "ok"),
    })
}

/// Discovery and OpenAPI documents, with ETag.
async fn document(call: &Call<'_>, path: &str) -> Result<Response<Body>, Status> {
    let accept: Vec<&str> =
        call.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let table = call.core.documents.settled(&call.core.table).await;
    let found = call.core.documents.find(&table, path, &accept.join(","), call.query.first("hash"));
    let document = match found {
        // Upstream's documents are refused without a word.
        Err(status) if status.code == 406 && path.starts_with("/openapi") => {
            let mut response = Response::new(Body::Empty);
            *response.status_mut() = StatusCode::NOT_ACCEPTABLE;
            return Ok(response);
        }
        found => found?,
    };
    if let Some(place) = &document.moved_to {
        let mut response =
            respond::with_body(StatusCode::MOVED_PERMANENTLY, document.media_type, Body::Empty);
        response.headers_mut().insert(LOCATION, HeaderValue::from_str(place).map_err(Status::internal)?);
        return Ok(response);
    }
    if document.media_type.starts_with(JSON) && path.starts_with("/api") {
        // As objects are, and for those who read them with their own eyes.
        if negotiate::pretty(call.headers, call.query, Output::JSON) {
            let mut indented = Vec::new();
            scan::indent(&document.unpacked(), &mut indented);
            return Ok(respond::bytes(StatusCode::OK, document.media_type, indented));
        }
    }
    let known =
        call.headers.get(IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == document.etag.as_bytes());
    let mut response = if known {
        respond::with_body(StatusCode::NOT_MODIFIED, document.media_type, Body::Empty)
    } else if crate::negotiate::accepts_gzip(call.headers) {
        let mut response = respond::bytes(StatusCode::OK, document.media_type, document.packed());
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        respond::bytes(StatusCode::OK, document.media_type, document.unpacked())
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&document.etag) {
        headers.insert(ETAG, etag);
        // Everything else has what every answer has.
        if document.immutable {
            let cache = HeaderValue::from_static("public, max-age=31536000, immutable");
            headers.insert(CACHE_CONTROL, cache);
        } else if document.media_type.contains("as=APIGroupDiscoveryList") {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
        }
    }
    headers.append(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    Ok(response)
}

/// The documents of one state of the table.
pub type Documents = documents::Cache;
