//! Requests that go on to a kubelet or into a pod: logs, exec, attach, port-forward, proxy.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use keelson_api::doc::{Doc, Value};
use keelson_api::f::core_v1 as f;
use keelson_api::status::{GroupResource, Status};
use keelson_base::consts;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::admission::Operation;
use crate::body::{Body, RequestBody, request_body};
use crate::rest::{Loaded, Op};
use crate::{respond, server};

const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How kubelets are reached: with the API server's client certificate, verified against the cluster's authority.
pub struct Kubelets {
    pub tls: arc_swap::ArcSwap<rustls::ClientConfig>,
    /// A place for each exec, attach and port-forward session.
    pub relays: Arc<tokio::sync::Semaphore>,
}

/// Sessions at once.
pub const MAX_RELAYS: usize = 2048;

/// A byte stream to somewhere.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Where a relayed request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub host: IpAddr,
    pub port: u16,
    /// Path and query, starting with a slash.
    pub path: String,
}

/// Serves a streaming subresource.
pub async fn serve(
    op: &Op<'_>,
    subresource: &str,
    parts: &http::request::Parts,
    body: RequestBody,
) -> Result<Response<Body>, Status> {
    match (op.row.plural.as_str(), subresource) {
        ("pods", "log") if *op.call.method == Method::GET => {
            let answer = log(op).await?;
            if crate::socket::asked(&parts.headers) {
                return crate::socket::log(parts, answer, &op.core.stop);
            }
            Ok(answer)
        }
        ("pods", "exec" | "attach" | "portforward")
            if matches!(*op.call.method, Method::GET | Method::POST) =>
        {
            let target = stream_target(op, subresource).await?;
            crate::upgrade::serve(op, target, parts).await
        }
        ("nodes", "proxy") => {
            let target = node_proxy(op).await?;
            relay_https(op, target, parts, body).await
        }
        ("pods" | "services", "proxy") => crate::proxy::serve(op, parts, body).await,
        _ => Err(op.method_not_allowed()),
    }
}

/// Loads the pod a streaming request is about.
async fn pod(op: &Op<'_>) -> Result<Loaded, Status> {
    let name = &op.info().name;
    op.load(name, false).await?.ok_or_else(|| Status::not_found(&op.gr(), name))
}

fn spec_names(doc: &Doc, list: keelson_api::schema::Field, name: keelson_api::schema::Field) -> Vec<String> {
    doc.list(&[f::pod::SPEC, list])
        .iter()
        .filter_map(Value::as_struct)
        .map(|one| one.str(name).to_owned())
        .collect()
}

/// The container a request means: the one it names, or the pod's only one.
fn container(op: &Op<'_>, doc: &Doc) -> Result<String, Status> {
    let main = spec_names(doc, f::pod_spec::CONTAINERS, f::container::NAME);
    let init = spec_names(doc, f::pod_spec::INIT_CONTAINERS, f::container::NAME);
    let ephemeral = spec_names(doc, f::pod_spec::EPHEMERAL_CONTAINERS, f::ephemeral_container::NAME);
    let pod = doc.meta().name();
    if let Some(given) = op.call.query.text("container") {
        let known = main.iter().chain(&init).chain(&ephemeral).any(|name| name == given);
        return if known {
            Ok(given.to_owned())
        } else {
            Err(Status::bad_request(format!("container {given} is not valid for pod {pod}")))
        };
    }
    match main.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {pod}"))),
        several => {
            let mut text = format!(
                "a container name must be specified for pod {pod}, choose one of: [{}]",
                several.join(" ")
            );
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(text))
        }
    }
}

/// Address and port of the kubelet of a node.
pub async fn kubelet_of(op: &Op<'_>, node: &str) -> Result<(IpAddr, u16), Status> {
    let row =
        op.core.table.load().lookup("", "v1", "nodes").cloned().ok_or_else(Status::resource_not_found)?;
    let nodes = op.on(row);
    let Some(loaded) = nodes.load(node, false).await? else {
        return Err(Status::not_found(&GroupResource::new("", "nodes"), node));
    };
    let status = |rest: &[keelson_api::schema::Field]| {
        let mut path = vec![f::node::STATUS];
        path.extend_from_slice(rest);
        loaded.doc.get(&path).cloned()
    };
    let addresses = status(&[f::node_status::ADDRESSES]);
    let host = addresses
        .as_ref()
        .and_then(Value::as_list)
        .unwrap_or(&[])
        .iter()
        .filter_map(Value::as_struct)
        .filter(|address| address.str(f::node_address::TYPE) == "InternalIP")
        .find_map(|address| address.str(f::node_address::ADDRESS).parse().ok())
        .ok_or_else(|| {
            Status::internal(format!("node {node} has no InternalIP yet, so its kubelet cannot be reached"))
        })?;
    let port = status(&[
        f::node_status::DAEMON_ENDPOINTS,
        f::node_daemon_endpoints::KUBELET_ENDPOINT,
        f::daemon_endpoint::PORT,
    ])
    .and_then(|port| port.as_int())
    .and_then(|port| u16::try_from(port).ok())
    .filter(|port| *port != 0)
    .unwrap_or(consts::KUBELET_PORT);
    Ok((host, port))
}

/// One path segment, with what could end it escaped.
fn segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// The query's pairs of these keys, encoded anew.
fn pass_on(op: &Op<'_>, keys: &[&str]) -> String {
    let mut out = String::new();
    for key in keys {
        for value in op.call.query.all(key) {
            out.push(if out.is_empty() { '?' } else { '&' });
            out.push_str(key);
            out.push('=');
            out.push_str(&segment(value));
        }
    }
    out
}

/// GET pods/<name>/log.
async fn log(op: &Op<'_>) -> Result<Response<Body>, Status> {
    check_log_options(op)?;
    let pod = pod(op).await?;
    let container = container(op, &pod.doc)?;
    let node = pod.doc.str(&[f::pod::SPEC, f::pod_spec::NODE_NAME]);
    if node.is_empty() {
        // As upstream: a pod that runs nowhere has an empty log.
        return Ok(respond::text(StatusCode::OK, ""));
    }
    let (host, port) = kubelet_of(op, node).await?;
    let query = pass_on(
        op,
        &[
            "follow",
            "previous",
            "timestamps",
            "sinceSeconds",
            "sinceTime",
            "tailLines",
            "limitBytes",
            "stream",
        ],
    );
    let path = format!(
        "/containerLogs/{}/{}/{}{query}",
        segment(op.namespace()),
        segment(&op.info().name),
        segment(&container)
    );
    let request = Request::builder()
        .method(Method::GET)
        .uri(path.as_str())
        .body(server::empty_request_body())
        .map_err(Status::internal)?;
    let target = Target { host, port, path };
    let response = send_https(&op.core.kubelets, &target, request).await?;
    let (head, body) = response.into_parts();
    if !head.status.is_success() {
        return Err(kubelet_error(head.status, body, &format!("the container's log ({container})")).await);
    }
    let mut answer = Response::new(Body::Relay(request_body(body)));
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    Ok(answer)
}

fn check_log_options(op: &Op<'_>) -> Result<(), Status> {
    use keelson_api::field_errors::{ErrorList, FieldPath};
    let mut errors = ErrorList::new();
    let query = op.call.query;
    for (key, lowest) in [("tailLines", 0), ("sinceSeconds", 1), ("limitBytes", 1)] {
        if let Some(value) = query.integer(key).map_err(Status::bad_request)?
            && value < lowest
        {
            let text =
                if lowest == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
            errors.invalid(&FieldPath::new(key), value, text);
        }
    }
    if query.text("sinceSeconds").is_some() && query.text("sinceTime").is_some() {
        errors
            .forbidden(&FieldPath::new(""), "at most one of `sinceTime` or `sinceSeconds` may be specified");
    }
    if let Some(time) = query.text("sinceTime")
        && time.parse::<jiff::Timestamp>().is_err()
    {
        errors.invalid(&FieldPath::new("sinceTime"), time, "must be an RFC 3339 time");
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid(&GroupResource::new("", "PodLogOptions"), &op.info().name, &errors))
    }
}

/// What a kubelet's refusal says, as a Status.
pub async fn kubelet_error(code: StatusCode, body: hyper::body::Incoming, what: &str) -> Status {
    let text = match crate::body::read_whole(request_body(body)).await {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        Err(_) => String::new(),
    };
    let message =
        if text.is_empty() { format!("the kubelet answered {code} to a request for {what}") } else { text };
    match code.as_u16() {
        400 => Status::bad_request(message),
        404 => Status::other(404, keelson_api::status::Reason::NotFound, message),
        code => Status::other(
            if code < 500 { code } else { 500 },
            keelson_api::status::Reason::InternalError,
            message,
        ),
    }
}

/// The kubelet's path for exec, attach and port-forward.
async fn stream_target(op: &Op<'_>, subresource: &str) -> Result<Target, Status> {
    let attributes = op.admission(Operation::Connect, &op.info().name, subresource, false);
    op.core.admission.validate(None, None, &attributes)?;
    let pod = pod(op).await?;
    let node = pod.doc.str(&[f::pod::SPEC, f::pod_spec::NODE_NAME]).to_owned();
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", op.info().name)));
    }
    let place = format!("{}/{}", segment(op.namespace()), segment(&op.info().name));
    let path = match subresource {
        "portforward" => format!("/portForward/{place}{}", pass_on(op, &["ports"])),
        other => {
            let container = container(op, &pod.doc)?;
            if other == "exec" && op.call.query.text("command").is_none() {
                return Err(Status::bad_request("you must specify at least 1 container command"));
            }
            // The kubelet takes Docker's old names.
            let mut query = String::new();
            for (ours, theirs) in
                [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
            {
                if op.call.query.flag(ours) {
                    query.push_str(&format!("{}{theirs}=1", if query.is_empty() { '?' } else { '&' }));
                }
            }
            for command in op.call.query.all("command") {
                query.push_str(&format!(
                    "{}command={}",
                    if query.is_empty() { '?' } else { '&' },
                    segment(command)
                ));
            }
            format!("/{other}/{place}/{}{query}", segment(&container))
        }
    };
    let (host, port) = kubelet_of(op, &node).await?;
    Ok(Target { host, port, path })
}

async fn node_proxy(op: &Op<'_>) -> Result<Target, Status> {
    let name = op.info().name.clone();
    let (node, wanted) = crate::proxy::split_name(&name)?;
    let (host, port) = kubelet_of(op, &node.name).await?;
    if wanted.is_some_and(|wanted| wanted != port) {
        return Err(Status::bad_request("a node's proxy leads to its kubelet's port only"));
    }
    let path = op.info().rest.as_str();
    let path = if path.is_empty() { "/" } else { path };
    let query = if op.call.raw_query.is_empty() { String::new() } else { format!("?{}", op.call.raw_query) };
    Ok(Target { host, port, path: format!("{path}{query}") })
}

/// Opens a TLS connection to a kubelet.
pub async fn dial(
    kubelets: &Kubelets,
    target: &Target,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Status> {
    let connect = async {
        let stream = TcpStream::connect((target.host, target.port)).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(kubelets.tls.load_full())
            .connect(ServerName::IpAddress(target.host.into()), stream)
            .await
    };
    match tokio::time::timeout(DIAL_TIMEOUT, connect).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(unreachable_kubelet(target, &error.to_string())),
        Err(_) => Err(unreachable_kubelet(target, "no connection in time")),
    }
}

fn unreachable_kubelet(target: &Target, why: &str) -> Status {
    Status::service_unavailable(format!(
        "error trying to reach the kubelet at {}:{}: {why}",
        target.host, target.port
    ))
}

/// Sends a request over any stream, HTTP/1.1.
pub async fn send_over(
    io: impl Io + 'static,
    mut request: Request<RequestBody>,
    host: &str,
) -> Result<Response<hyper::body::Incoming>, Status> {
    let failed =
        |error: hyper::Error| Status::service_unavailable(format!("error trying to reach service: {error}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(failed)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "relayed connection");
        }
    });
    let host = http::HeaderValue::from_str(host).map_err(Status::internal)?;
    request.headers_mut().insert(http::header::HOST, host);
    sender.send_request(request).await.map_err(failed)
}

/// Sends a request to a kubelet.
pub async fn send_https(
    kubelets: &Kubelets,
    target: &Target,
    request: Request<RequestBody>,
) -> Result<Response<hyper::body::Incoming>, Status> {
    let stream = dial(kubelets, target).await?;
    send_over(stream, request, &format!("{}:{}", target.host, target.port)).await
}

/// Headers that belong to one connection, and credentials that must not travel on.
const NOT_PASSED_ON: [&str; 11] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "authorization",
    "host",
    "content-length",
];

/// The headers of a request or an answer that may travel on.
pub fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<String> = headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let mut out = HeaderMap::new();
    for (name, value) in headers {
        if !NOT_PASSED_ON.contains(&name.as_str())
            && !named.iter().any(|other| other == name.as_str())
            && !name.as_str().starts_with("impersonate-")
            && !name.as_str().starts_with("x-remote-")
        {
            out.append(name.clone(), value.clone());
        }
    }
    out
}

/// Relays a plain request to a kubelet.
async fn relay_https(
    op: &Op<'_>,
    target: Target,
    parts: &http::request::Parts,
    body: RequestBody,
) -> Result<Response<Body>, Status> {
    let uri: PathAndQuery =
        target.path.parse().map_err(|_| Status::bad_request("the proxied path is not valid"))?;
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = http::Uri::from(uri);
    *request.headers_mut() = passed_on(&parts.headers);
    let response = send_https(&op.core.kubelets, &target, request).await?;
    Ok(relayed(response))
}

/// An answer from elsewhere as ours. Redirects are passed on, never followed.
pub fn relayed(response: Response<hyper::body::Incoming>) -> Response<Body> {
    let (head, body) = response.into_parts();
    let mut answer = Response::new(Body::Relay(request_body(body)));
    *answer.status_mut() = head.status;
    *answer.headers_mut() = passed_on(&head.headers);
    answer
}
