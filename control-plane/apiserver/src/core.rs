//! What all requests share.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use keelson_api::status::Status;
use keelson_api::table::{Resource, Table};
use keelson_base::gates::Gates;
use keelson_daemon::Clock;
use keelson_store::Store;
use tokio_util::sync::CancellationToken;

use crate::access::{Access, attributes};
use crate::admission::Chain;
use crate::authn::{PeerChain, UserInfo};
use crate::body::{Body, RequestBody};
use crate::cache::{WatchCache, WatchCaches};
use crate::flow::FlowControl;
use crate::metrics::{Metrics, RequestKey};
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::respond::{self, Warnings};
use crate::rest::fields;
use crate::server::{ConnectionInfo, Handler};
use crate::services::cidr::ServiceRange;
use crate::{keys, nonresource, rest, streaming};

/// Longer than this no request runs that is not a watch or a relay.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How a request was received.
#[derive(Clone)]
pub enum Peer {
    /// Over TLS: the connection says who it is, or the request's headers do.
    Connection(Arc<Connection>),
    /// In process: the caller was given an identity when it was started.
    Trusted(Arc<UserInfo>),
}

/// A TLS connection and who it may be.
pub struct Connection {
    pub remote: std::net::SocketAddr,
    /// The client's certificate, whose verdict is kept with it.
    pub peer: Option<PeerChain>,
}

/// The shared state of the server.
pub struct Core {
    pub store: Arc<dyn Store>,
    pub caches: Arc<WatchCaches>,
    /// The rows in service; whoever changes them swaps in a new table.
    pub table: Arc<ArcSwap<Table>>,
    pub gates: Gates,
    pub clock: Clock,
    pub access: Access,
    pub service_range: ServiceRange,
    pub node_ports: (u16, u16),
    pub kubelets: streaming::Kubelets,
    pub admission: Chain,
    pub metrics: Metrics,
    pub flow: FlowControl,
    /// For writers of one object that lost a race.
    pub turns: crate::rest::turns::Turns,
    /// Ends watches and relays when the server drains.
    pub stop: CancellationToken,
    pub documents: nonresource::Documents,
    pub health: nonresource::Health,
    /// How the process' other components are.
    pub components: keelson_daemon::Health,
}

/// One request on its way through the stages.
pub struct Call<'r> {
    pub core: &'r Arc<Core>,
    pub method: &'r Method,
    pub info: &'r RequestInfo,
    pub query: &'r Query<'r>,
    pub raw_query: &'r str,
    pub headers: &'r HeaderMap,
    pub user: Arc<UserInfo>,
    pub warnings: &'r Warnings,
}

impl Core {
    /// The watch cache of a row's resource.
    pub fn cache(&self, row: &Resource) -> Arc<WatchCache> {
        let prefix = keys::row_prefix(row);
        self.caches.resource(&prefix, || crate::cache::Settings {
            prefix: prefix.clone(),
            namespaced: row.namespaced,
            fields: fields::of(row, || self.hub(row)),
        })
    }

    /// The row of a row's storage version (made up where that version itself is not served).
    pub fn hub(&self, row: &Resource) -> Arc<Resource> {
        let table = self.table.load();
        if let Some(hub) = table.lookup(&row.storage_group, &row.storage_version, &row.plural) {
            return hub.clone();
        }
        let mut hub = row.clone();
        hub.ty = row.storage_ty();
        hub.group = row.storage_group.clone();
        hub.version = row.storage_version.clone();
        Arc::new(hub)
    }

    /// Serves one request through all stages. Never panics: what panics below is caught, counted and answered with 500.
    pub async fn serve(self: Arc<Self>, peer: Peer, request: Request<RequestBody>) -> Response<Body> {
        let started = std::time::Instant::now();
        let (parts, body) = request.into_parts();
        let raw_query = parts.uri.query().unwrap_or_default().to_owned();
        let query = Query::parse(&raw_query);
        let info = match RequestInfo::parse(&parts.method, parts.uri.path(), &query) {
            Ok(info) => info,
            Err(_) => {
                let text = format!("unable to determine kind and namespace from url, {}", parts.uri.path());
                return respond::negotiated(&Status::internal(text), &parts.headers, &query);
            }
        };
        let (warnings, waited) = (Warnings::default(), std::sync::OnceLock::new());
        let stages = self.stages(&peer, &parts, &info, &query, &raw_query, body, (&warnings, &waited));
        let outcome = std::panic::AssertUnwindSafe(stages).catch_unwind().await;
        let mut response = match outcome {
            Ok(Ok(response)) => response,
            Ok(Err(status)) if status.is_no_route() && !self.routes(&info.path) => nonresource::no_handler(),
            Ok(Err(status)) => respond::negotiated(&status, &parts.headers, &query),
            Err(_) => {
                self.metrics.panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!(method = %parts.method, path = info.path, "a request's handler panicked");
                let status = Status::internal("the server could not process the request");
                respond::negotiated(&status, &parts.headers, &query)
            }
        };
        warnings.write(&mut response);
        respond::finish(&mut response);
        // Components of this process have no use for it.
        if matches!(peer, Peer::Connection(_)) {
            respond::name_request(&mut response, &parts.headers);
        }
        if parts.method == Method::HEAD {
            *response.body_mut() = Body::Empty;
        }
        let waited = waited.get().copied().unwrap_or_default();
        let body = std::mem::replace(response.body_mut(), Body::Empty);
        let times = (started.elapsed(), waited);
        *response.body_mut() = self.count(&info, &query, &parts.headers, response.status(), times, body);
        response
    }

    fn routes(&self, path: &str) -> bool {
        nonresource::within_a_group(&self.table.load(), path)
    }

    /// Counts a request that took so long and waited so long; the answer's body is counted as it leaves.
    fn count(
        &self,
        info: &RequestInfo,
        query: &Query<'_>,
        headers: &HeaderMap,
        code: StatusCode,
        (took, waited): (Duration, Duration),
        body: Body,
    ) -> Body {
        let applies = info.verb == "patch"
            && crate::negotiate::content_type(headers).starts_with("application/apply-patch");
        let key = RequestKey {
            verb: if applies { "apply" } else { info.verb },
            group: info.group.clone(),
            version: info.version.clone(),
            // Unknown paths and resources must not make series.
            resource: if code == StatusCode::NOT_FOUND && info.name.is_empty() {
                String::new()
            } else {
                info.resource.clone()
            },
            subresource: info.subresource.clone(),
            scope: info.scope(),
            dry_run: query.first("dryRun").is_some(),
            code: code.as_u16(),
        };
        self.metrics.request(key, took, waited, body)
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one request, taken apart once")]
    async fn stages<'r>(
        self: &'r Arc<Self>,
        peer: &'r Peer,
        parts: &'r http::request::Parts,
        info: &'r RequestInfo,
        query: &'r Query<'r>,
        raw_query: &'r str,
        body: RequestBody,
        (warnings, waited): (&'r Warnings, &'r std::sync::OnceLock<Duration>),
    ) -> Result<Response<Body>, Status> {
        let user = match peer {
            Peer::Trusted(user) => user.clone(),
            Peer::Connection(connection) => {
                let user = self.access.authenticate(
                    connection.peer.as_ref(),
                    &parts.headers,
                    &info.path,
                    self.clock.now(),
                );
                user.inspect_err(
                    |_| tracing::debug!(remote = %connection.remote, path = info.path, "no identity"),
                )?
            }
        };
        let user = self.access.impersonate(&parts.headers, user)?;
        let long_running = info.long_running(query);
        // As upstream's exempt level: what repairs a cluster must not stand in the queue that broke it.
        let exempt = long_running || user.in_group(keelson_base::consts::identity::MASTERS);
        let queued = std::time::Instant::now();
        let entered = self.flow.enter(&user.name, info.verb, exempt).await;
        let _ = waited.set(queued.elapsed());
        let Some(seat) = entered else {
            self.metrics.rejected.fetch_add(1, Ordering::Relaxed);
            return Err(Status::too_many_requests("Too many requests, please try again later.", 1));
        };
        let call = Call {
            core: self,
            method: &parts.method,
            info,
            query,
            raw_query,
            headers: &parts.headers,
            user,
            warnings,
        };
        self.access.authorize(&attributes(&call.user, verb_of(&call), info))?;
        let work = async {
            if info.is_resource {
                rest::serve(&call, parts, body).await
            } else {
                nonresource::serve(&call, body).await
            }
        };
        let _in_flight = (!long_running).then(|| self.metrics.in_flight(info.verb));
        let answer = if long_running {
            work.await
        } else {
            match tokio::time::timeout(REQUEST_TIMEOUT, work).await {
                Ok(answer) => answer,
                Err(_) => Err(Status::timeout("request did not complete within the allotted timeout", 0)),
            }
        };
        drop(seat);
        answer
    }
}

/// A WebSocket's GET on exec, attach or port-forward does what a POST does and is authorized as one.
fn verb_of<'a>(call: &Call<'a>) -> &'a str {
    match (call.info.verb, call.info.subresource.as_str()) {
        ("get", "exec" | "attach" | "portforward") if call.info.resource == "pods" => "create",
        (verb, _) => verb,
    }
}

impl Handler for Core {
    type Connection = Connection;

    fn connected(&self, info: ConnectionInfo) -> Connection {
        Connection { remote: info.remote, peer: PeerChain::new(&info.certificates) }
    }

    async fn call(
        self: Arc<Self>,
        connection: Arc<Connection>,
        mut request: Request<RequestBody>,
    ) -> Response<Body> {
        request.extensions_mut().insert(connection.remote);
        self.serve(Peer::Connection(connection), request).await
    }
}
