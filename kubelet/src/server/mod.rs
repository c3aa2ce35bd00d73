//! The kubelet's HTTPS server: logs, exec, attach, port-forward, pods, health, metrics, statistics.
//!
//! Every request is authenticated (client certificate or bearer token; anonymous is off) and authorized by the API
//! server; without one nothing is answered. There is no other port.
pub mod auth;
mod forward;
mod logs;
mod metrics;
mod stats;
mod streams;
mod tls;

use crate::config::ServerConfig;
use crate::kubelet::Shared;
use crate::worker::Workers;
use auth::{Access, Identity};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

pub use tls::TlsError;

pub(crate) type Body = BoxBody<Bytes, io::Error>;

/// Connections at the same time; more wait.
const MAX_CONNECTIONS: usize = 512;
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot listen on {address}: {source}")]
    Listen { address: std::net::SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What the handlers use.
pub struct Server {
    pub(crate) kubelet: Shared,
    pub(crate) workers: Workers,
    access: Arc<dyn Access>,
}

/// Opens the port and reads the certificate.
pub async fn bind(config: &ServerConfig) -> Result<(TcpListener, tls::Tls), ServerError> {
    let tls = tls::Tls::load(config)?;
    let listener = TcpListener::bind(config.bind)
        .await
        .map_err(|source| ServerError::Listen { address: config.bind, source })?;
    Ok((listener, tls))
}

/// Serves until dropped.
pub async fn serve(
    kubelet: Shared,
    workers: Workers,
    listener: TcpListener,
    tls: tls::Tls,
    access: Arc<dyn Access>,
) {
    let server = Arc::new(Server { kubelet, workers, access });
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(error = %error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (server, acceptor) = (server.clone(), tls.acceptor());
        tasks.spawn(async move {
            connection(server, stream, acceptor).await;
            drop(permit);
        });
    }
}

async fn connection(server: Arc<Server>, stream: TcpStream, acceptor: tokio_rustls::TlsAcceptor) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = certificate.and_then(|certificate| Identity::of_certificate(certificate));
    let service = hyper::service::service_fn(move |request| {
        let (server, peer) = (server.clone(), peer.clone());
        async move { Ok::<_, Infallible>(server.answer(request, peer).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::trace!(error = %error, "connection ended");
    }
}

pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", text.into().into_bytes())
}

pub(crate) fn json(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(data) => respond(StatusCode::OK, "application/json", data),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

pub(crate) fn respond(status: StatusCode, kind: &'static str, data: Vec<u8>) -> Response<Body> {
    let body = Full::new(Bytes::from(data)).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// A query's parameters, in order.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    fn of(query: Option<&str>) -> Query {
        let pairs = query.unwrap_or("").split('&').filter(|pair| !pair.is_empty());
        Query(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key), decode(value))
                })
                .collect(),
        )
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    pub fn all(&self, key: &str) -> Vec<String> {
        self.0.iter().filter(|(k, _)| k == key).map(|(_, v)| v.clone()).collect()
    }

    pub fn flag(&self, key: &str) -> bool {
        matches!(self.get(key), Some("1" | "true" | "True" | "t"))
    }
}

/// Undoes percent and plus encoding.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = || u8::from_str_radix(text.get(at + 1..at + 3)?, 16).ok();
        match bytes[at] {
            b'+' => out.push(b' '),
            b'%' => match hex() {
                Some(byte) => {
                    out.push(byte);
                    at += 2;
                }
                None => out.push(b'%'),
            },
            byte => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Server {
    async fn answer(&self, request: Request<Incoming>, peer: Option<Identity>) -> Response<Body> {
        let identity = match self.access.authenticate(peer, request.headers()).await {
            Ok(Some(identity)) => identity,
            Ok(None) => return text(StatusCode::UNAUTHORIZED, "Unauthorized"),
            Err(error) => {
                tracing::debug!(error = %error, "request was not authenticated");
                return text(StatusCode::UNAUTHORIZED, "Unauthorized");
            }
        };
        let path = request.uri().path().to_owned();
        let attributes = auth::Attributes::of(request.method(), &path);
        let node = &self.kubelet.config.node_name;
        match self.access.authorize(&identity, &attributes, node).await {
            Ok(true) => {}
            Ok(false) => {
                let message = format!(
                    "Forbidden (user={}, verb={}, resource=nodes, subresource(s)=[{}])",
                    identity.user,
                    attributes.verb,
                    attributes.subresources.join(" ")
                );
                return text(StatusCode::FORBIDDEN, message);
            }
            Err(error) => {
                tracing::warn!(error = %error, user = identity.user, "request was not authorized");
                return text(StatusCode::INTERNAL_SERVER_ERROR, format!("Authorization error: {error}"));
            }
        }
        self.route(request, &path).await
    }

    async fn route(&self, request: Request<Incoming>, path: &str) -> Response<Body> {
        let query = Query::of(request.uri().query());
        let parts: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let get = request.method() == Method::GET;
        match parts.as_slice() {
            ["healthz"] | ["healthz", "ping"] if get => text(StatusCode::OK, "ok"),
            ["pods"] if get => self.pods(),
            ["runningpods"] if get => self.running_pods(),
            ["metrics"] if get => self.metrics(),
            ["metrics", "resource"] if get => self.resource_metrics().await,
            ["stats", "summary"] if get => self.summary().await,
            ["containerLogs", namespace, pod, container] if get => {
                self.container_logs(namespace, pod, container, &query).await
            }
            ["exec" | "attach", namespace, pod, container] => {
                let attach = parts[0] == "attach";
                self.exec_or_attach(request, attach, (namespace, pod, None, container), &query).await
            }
            ["exec" | "attach", namespace, pod, uid, container] => {
                let attach = parts[0] == "attach";
                self.exec_or_attach(request, attach, (namespace, pod, Some(uid), container), &query).await
            }
            ["portForward", namespace, pod] => self.port_forward(request, namespace, pod, None, &query).await,
            ["portForward", namespace, pod, uid] => {
                self.port_forward(request, namespace, pod, Some(uid), &query).await
            }
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    fn pods(&self) -> Response<Body> {
        let items: Vec<_> = self
            .workers
            .views()
            .into_iter()
            .map(|view| {
                let mut pod = (*view.pod).clone();
                pod.status = Some(view.status);
                pod
            })
            .collect();
        json(&serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
    }

    fn running_pods(&self) -> Response<Body> {
        let items: Vec<_> = self
            .workers
            .views()
            .into_iter()
            .filter(|view| view.observed.running().next().is_some())
            .map(|view| {
                let containers: Vec<_> = view
                    .observed
                    .running()
                    .map(|c| serde_json::json!({"name": c.name, "image": c.image, "resources": {}}))
                    .collect();
                let meta = &view.pod.metadata;
                serde_json::json!({
                    "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
                    "spec": {"containers": containers}, "status": {}})
            })
            .collect();
        json(&serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let query = Query::of(Some("command=a+b&command=c%2Fd&tty=1&bad=%zz&empty"));
        assert_eq!(query.all("command"), ["a b", "c/d"]);
        assert!(query.flag("tty") && !query.flag("empty"));
        assert_eq!(query.get("bad"), Some("%zz"));
    }
}
