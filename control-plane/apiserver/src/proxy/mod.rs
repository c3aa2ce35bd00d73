//! pods/proxy and services/proxy: HTTP into a pod, or to one behind a Service, plain requests and upgraded connections.
//!
//! The rules of headers, redirects and links are those of upstream's upgrade-aware proxy
//! (`apimachinery/pkg/util/proxy`). What always holds: the request goes to a pod's own address ([`target`]) and nowhere
//! else; no redirect is followed; credentials for the API server do not travel on; after an upgrade only bytes pass.
mod links;
mod target;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use keelson_api::status::{Reason, Status};
use keelson_streams::copy_both;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use self::links::Links;
use crate::admission::Operation;
use crate::body::{Body, RequestBody, request_body};
use crate::rest::Op;
use crate::server;
use crate::streaming::{Io, passed_on, send_over};

const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// After one side of an upgraded connection has ended, the other may still send this long.
const LINGER: Duration = Duration::from_secs(10);
/// Pages up to this size have their links led through the proxy; larger ones pass as they are.
const MAX_PAGE: usize = 4 << 20;
/// What a pod says of other origins is not the API server's word.
const CORS: [&str; 4] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
];

/// A name as proxies take it: `[scheme:]name[:port]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyName {
    pub scheme: String,
    pub name: String,
    /// A number or a port's name; empty where none is given.
    pub port: String,
}

/// Takes a proxied name apart; the second part is the port where it is a number.
pub fn split_name(text: &str) -> Result<(ProxyName, Option<u16>), Status> {
    let parts: Vec<&str> = text.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme @ ("http" | "https" | ""), name, port] => (*scheme, *name, *port),
        _ => {
            return Err(Status::bad_request(format!(
                "invalid request {text:?}: must be [scheme:]name[:port]"
            )));
        }
    };
    if name.is_empty() {
        return Err(Status::bad_request(format!("invalid request {text:?}: no name")));
    }
    let number = port.parse().ok();
    Ok((ProxyName { scheme: scheme.to_owned(), name: name.to_owned(), port: port.to_owned() }, number))
}

/// Relays a request into a pod or to a Service.
pub async fn serve(
    op: &Op<'_>,
    parts: &http::request::Parts,
    body: RequestBody,
) -> Result<Response<Body>, Status> {
    let (name, _) = split_name(&op.info().name)?;
    let attributes = op.admission(Operation::Connect, &op.info().name, "proxy", false);
    op.core.admission.validate(None, None, &attributes)?;
    let (host, port) = match op.row.plural.as_str() {
        "pods" => target::pod(op, &name).await?,
        _ => target::service(op, &name).await?,
    };
    let server = SocketAddr::new(host, port);
    let rest = op.info().rest.as_str();
    if is_upgrade(&parts.headers) {
        let request = outgoing(op, parts, rest, server::empty_request_body(), true)?;
        let io = dial(server, name.scheme == "https").await?;
        return upgrade(op, parts, send_over(io, request, &client_host(parts, server)).await?).await;
    }
    if rest.is_empty() && matches!(parts.method, Method::GET | Method::HEAD) {
        return to_the_root(parts);
    }
    let request = outgoing(op, parts, rest, body, false)?;
    let io = dial(server, name.scheme == "https").await?;
    let answer = send_over(io, request, &client_host(parts, server)).await?;
    let own = op.info().path.as_str();
    let links = Links {
        server: server.to_string(),
        client: client_host(parts, server),
        prefix: own.strip_suffix(rest).unwrap_or(own).to_owned(),
    };
    incoming(answer, &links, parts.method == Method::HEAD).await
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    let words = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    words.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"))
        && headers.contains_key(UPGRADE)
}

/// Relative links of a page need the slash at the end of its path.
fn to_the_root(parts: &http::request::Parts) -> Result<Response<Body>, Status> {
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = format!("{}/{query}", parts.uri.path());
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, HeaderValue::from_str(&location).map_err(Status::internal)?);
    Ok(response)
}

/// The host as the client named it: what a server that tells hosts apart is to see.
fn client_host(parts: &http::request::Parts, server: SocketAddr) -> String {
    let named = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let named = named.or_else(|| parts.uri.authority().map(|authority| authority.as_str()));
    named.map_or_else(|| server.to_string(), str::to_owned)
}

/// Escapes what may not stand in a path; slashes stay.
fn escape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'-'
            | b'.'
            | b'_'
            | b'~'
            | b'/'
            | b':'
            | b'@'
            | b'!' => {
                out.push(char::from(byte));
            }
            b'$' | b'&' | b'+' | b',' | b';' | b'=' | b'(' | b')' | b'*' | b'\'' => {
                out.push(char::from(byte))
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn outgoing(
    op: &Op<'_>,
    parts: &http::request::Parts,
    rest: &str,
    body: RequestBody,
    upgrade: bool,
) -> Result<Request<RequestBody>, Status> {
    let query = if op.call.raw_query.is_empty() { String::new() } else { format!("?{}", op.call.raw_query) };
    let path = format!("{}{query}", if rest.is_empty() { "/".to_owned() } else { escape(rest) });
    let uri: PathAndQuery = path.parse().map_err(|_| Status::bad_request("the proxied path is not valid"))?;
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = http::Uri::from(uri);
    let mut headers = passed_on(&parts.headers);
    if upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        for value in parts.headers.get_all(UPGRADE) {
            headers.append(UPGRADE, value.clone());
        }
    } else {
        let forwarded = HeaderValue::from_str(&escape(&op.info().path)).map_err(Status::internal)?;
        headers.insert(HeaderName::from_static("x-forwarded-uri"), forwarded);
    }
    if let Some(address) = parts.extensions.get::<SocketAddr>() {
        let name = HeaderName::from_static("x-forwarded-for");
        let before = headers.get_all(&name).iter().filter_map(|value| value.to_str().ok());
        let all: Vec<String> =
            before.map(str::to_owned).chain([address.ip().to_canonical().to_string()]).collect();
        headers.insert(name, HeaderValue::from_str(&all.join(", ")).map_err(Status::internal)?);
    }
    *request.headers_mut() = headers;
    Ok(request)
}

async fn dial(server: SocketAddr, tls: bool) -> Result<Box<dyn Io>, Status> {
    let failed = |why: &dyn std::fmt::Display| {
        Status::service_unavailable(format!("error trying to reach service: {why}"))
    };
    let connect = async {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        if !tls {
            return Ok(Box::new(stream) as Box<dyn Io>);
        }
        let connector = TlsConnector::from(tls::unverified().map_err(std::io::Error::other)?);
        let name = ServerName::IpAddress(IpAddr::into(server.ip()));
        Ok(Box::new(connector.connect(name, stream).await?) as Box<dyn Io>)
    };
    match tokio::time::timeout(DIAL_TIMEOUT, connect).await {
        Ok(Ok(io)) => Ok(io),
        Ok(Err(error)) => {
            let error: std::io::Error = error;
            Err(failed(&format!("dial tcp {server}: {error}")))
        }
        Err(_) => Err(failed(&format!("dial tcp {server}: i/o timeout"))),
    }
}

/// Joins the client's connection and the server's, once the server has agreed.
async fn upgrade(
    op: &Op<'_>,
    parts: &http::request::Parts,
    answer: Response<hyper::body::Incoming>,
) -> Result<Response<Body>, Status> {
    let status = answer.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        if status.as_u16() < 400 {
            return Err(Status::internal(format!(
                "invalid upgrade response: status code {}",
                status.as_u16()
            )));
        }
        let (head, body) = answer.into_parts();
        return Ok(relayed(&head, Body::Relay(request_body(body))));
    }
    let Some(near) = parts.extensions.get::<OnUpgrade>().cloned() else {
        return Err(Status::bad_request(
            "this connection cannot be upgraded; use HTTP/1.1 over a connection of its own",
        ));
    };
    let place = op.core.kubelets.relays.clone().try_acquire_owned();
    let place = place.map_err(|_| Status::too_many_requests("too many upgraded connections at once", 5))?;
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers().clone();
    let stop = op.core.stop.clone();
    tokio::spawn(async move {
        let _place = place;
        let relay = async {
            let (near, far) = tokio::try_join!(near, hyper::upgrade::on(answer))?;
            copy_both(TokioIo::new(near), TokioIo::new(far), LINGER).await?;
            Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
        };
        tokio::select! {
            outcome = relay => if let Err(error) = outcome {
                tracing::debug!(%error, "a proxied upgraded connection ended");
            },
            () = stop.cancelled() => {}
        }
    });
    Ok(response)
}

/// A server's answer as ours: without what belongs to its connection.
fn relayed(head: &http::response::Parts, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    let mut headers = passed_on(&head.headers);
    CORS.iter().for_each(|name| drop(headers.remove(*name)));
    *response.headers_mut() = headers;
    response
}

async fn incoming(
    answer: Response<hyper::body::Incoming>,
    links: &Links,
    head_only: bool,
) -> Result<Response<Body>, Status> {
    let (head, body) = answer.into_parts();
    let text = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    let html = text(CONTENT_TYPE).and_then(|kind| kind.split(';').next()).map(str::trim) == Some("text/html");
    let encoding = text(CONTENT_ENCODING).unwrap_or_default();
    let location = text(LOCATION).filter(|location| !location.is_empty());
    if head_only || location.is_some() || !html || !matches!(encoding, "" | "identity" | "gzip") {
        let mut response = relayed(&head, Body::Relay(request_body(body)));
        if let Some(location) = location {
            let location = HeaderValue::from_str(&links.follow(location)).map_err(Status::internal)?;
            response.headers_mut().insert(LOCATION, location);
        }
        if let (true, Some(length)) = (head_only, head.headers.get(CONTENT_LENGTH)) {
            response.headers_mut().insert(CONTENT_LENGTH, length.clone());
        }
        return Ok(response);
    }
    let mut response = relayed(&head, Body::Empty);
    let (begin, rest) = page(body).await?;
    let plain = match (encoding, rest.is_none()) {
        ("gzip", true) => unzip(&begin),
        (_, true) => Some(begin.clone()),
        (_, false) => None,
    };
    *response.body_mut() = match (plain, rest) {
        (Some(plain), _) => {
            response.headers_mut().remove(CONTENT_ENCODING);
            Body::full(links.page(&plain))
        }
        (None, None) => Body::full(begin),
        (None, Some(rest)) => {
            let rest = request_body(rest).into_data_stream();
            Body::Stream(futures::stream::iter([Ok(begin)]).chain(rest).boxed())
        }
    };
    Ok(response)
}

/// The body's begin, and what is left of one that is too large.
async fn page(mut body: hyper::body::Incoming) -> Result<(Bytes, Option<hyper::body::Incoming>), Status> {
    let mut begin = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Status::other(502, Reason::InternalError, format!("the proxied answer broke off: {error}"))
        })?;
        if let Ok(data) = frame.into_data() {
            begin.extend_from_slice(&data);
        }
        if begin.len() > MAX_PAGE {
            return Ok((begin.into(), Some(body)));
        }
    }
    Ok((begin.into(), None))
}

/// The text behind gzip, unless it is broken or too large.
fn unzip(data: &[u8]) -> Option<Bytes> {
    use std::io::Read as _;
    let mut plain = Vec::new();
    let limit = MAX_PAGE as u64 + 1;
    flate2::read::GzDecoder::new(data).take(limit).read_to_end(&mut plain).ok()?;
    (plain.len() <= MAX_PAGE).then(|| plain.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxied_names() {
        let split = |text: &str| {
            split_name(text)
                .map(|(name, number)| (name.scheme, name.name, name.port, number))
                .map_err(|status| status.code)
        };
        assert_eq!(split("web"), Ok((String::new(), "web".into(), String::new(), None)));
        assert_eq!(split("web:80"), Ok((String::new(), "web".into(), "80".into(), Some(80))));
        assert_eq!(split("https:web:tls"), Ok(("https".into(), "web".into(), "tls".into(), None)));
        assert_eq!(split("ftp:web:1"), Err(400));
        assert_eq!(split(":80"), Err(400));
    }
}
