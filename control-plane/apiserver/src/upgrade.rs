<<<<<<< HEAD
//! Upgraded connections of exec, attach and port-forward: a client's WebSocket or SPDY/3.1 on one side, the kubelet's
//! SPDY/3.1 on the other.
//!
//! What always holds: the kubelet has agreed before the client is answered, so a refusal reaches the client as a Status;
//! after that only bytes pass, and nothing of the upgraded connection is read as a request again.

use std::time::Duration;

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use keelson_api::status::Status;
use keelson_streams::{ExecStreams, WebSocketProtocol, copy_both, relay_channels, tunnel};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::body::Body;
=======
//! exec, attach and port-forward: the client's upgraded connection is relayed to the kubelet's.
//!
//! Clients speak WebSocket (v5, v4, and SPDY tunnelled for port-forward) or SPDY/3.1; the kubelet speaks SPDY/3.1. The
//! kubelet is asked first, so that its refusal is an answer the client can read; only then is the client upgraded.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use keelson_api::status::Status;
use keelson_streams::{ExecStreams, StreamError, WebSocketProtocol, copy_both, relay_channels, tunnel};
use sha1::Digest as _;

use crate::body::Body;
use crate::core::Core;
>>>>>>> http
use crate::rest::Op;
use crate::server;
use crate::streaming::{Target, kubelet_error, send_https};

const SPDY: &str = "SPDY/3.1";
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
<<<<<<< HEAD
/// What the kubelet is asked for on behalf of a WebSocket client.
const REMOTE_COMMAND: &str = "v4.channel.k8s.io";
const PORT_FORWARD: &str = "portforward.k8s.io";
const TUNNELLED_PORT_FORWARD: &str = "SPDY/3.1+portforward.k8s.io";
/// After one side has ended, the other may still send this long.
const LINGER: Duration = Duration::from_secs(10);

/// What the client speaks.
enum Client {
=======
const WS_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const WS_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const WS_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const PORT_FORWARD: &str = "portforward.k8s.io";
/// After one side has ended, the other has this long to finish.
const LINGER: Duration = Duration::from_secs(30);
/// How long the client may take between our 101 and the upgraded bytes.
const CLIENT_UPGRADE: Duration = Duration::from_secs(10);

/// What the client wants to speak.
enum Client {
    /// SPDY/3.1 itself: bytes pass unread.
>>>>>>> http
    Spdy,
    Channels(WebSocketProtocol),
    Tunnel,
}

<<<<<<< HEAD
/// Connects the client of this request with the kubelet at `target`.
pub async fn serve(op: &Op<'_>, target: Target, parts: &http::request::Parts) -> Result<Response<Body>, Status> {
    let port_forward = op.info().subresource == "portforward";
    let client = client(&parts.headers, port_forward)?;
    let Some(upgrading) = parts.extensions.get::<OnUpgrade>().cloned() else {
        return Err(Status::bad_request("this connection cannot be upgraded; use HTTP/1.1 over a connection of its own"));
    };
    let answer = ask_kubelet(op, &target, &client, &parts.headers, port_forward).await?;
    let response = accept(&client, &parts.headers, answer.headers())?;
    let flag = |name| op.call.query.flag(name);
    let asked = ExecStreams { stdin: flag("stdin"), stdout: flag("stdout"), stderr: flag("stderr"), tty: flag("tty") };
    let stop = op.core.stop.clone();
    tokio::spawn(async move {
        let relay = async {
            let both = async { tokio::try_join!(upgrading, hyper::upgrade::on(answer)) };
            match both.await {
                Ok((near, far)) => relay(client, near, far, asked).await,
                Err(error) => tracing::debug!(%error, "an upgraded connection did not come about"),
            }
        };
        tokio::select! {
            () = relay => {}
            () = stop.cancelled() => {}
        }
=======
/// Relays a request to a kubelet's streaming endpoint.
pub async fn serve(op: &Op<'_>, subresource: &str, target: Target, parts: &http::request::Parts) -> Result<Response<Body>, Status> {
    let client = client(subresource, &parts.headers)?;
    let permit = op.core.kubelets.relays.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Status::too_many_requests("too many exec, attach and port-forward sessions at once", 5))?;
    let mut near = Request::new(());
    *near.extensions_mut() = parts.extensions.clone();
    let near = hyper::upgrade::on(&mut near);
    let offered = match &client {
        Client::Spdy => parts.headers.get_all(&STREAM_PROTOCOL).iter().cloned().collect(),
        Client::Channels(_) => vec![HeaderValue::from_static("v4.channel.k8s.io")],
        Client::Tunnel => vec![HeaderValue::from_static(PORT_FORWARD)],
    };
    let answer = ask_kubelet(op, &target, offered).await?;
    let chosen = answer.headers().get(&STREAM_PROTOCOL).cloned();
    let response = accept(&client, &parts.headers, chosen)?;
    let core = op.core.clone();
    let asked = ExecStreams {
        stdin: op.call.query.flag("stdin"),
        stdout: op.call.query.flag("stdout"),
        stderr: op.call.query.flag("stderr"),
        tty: op.call.query.flag("tty"),
    };
    tokio::spawn(async move {
        let far = hyper::upgrade::on(answer);
        if let Err(error) = relay(&core, client, near, far, asked).await {
            tracing::debug!(%error, "a relayed stream ended");
        }
        drop(permit);
>>>>>>> http
    });
    Ok(response)
}

<<<<<<< HEAD
async fn relay(client: Client, near: Upgraded, far: Upgraded, asked: ExecStreams) {
    let (near, far) = (TokioIo::new(near), TokioIo::new(far));
    let outcome = match client {
        Client::Spdy => copy_both(near, far, LINGER).await.map_err(Into::into),
        Client::Channels(protocol) => relay_channels(near, protocol, far, asked).await,
        Client::Tunnel => tunnel(near, far).await,
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a relayed stream ended");
    }
}

fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    values.into_iter().flat_map(|value| value.split(',')).map(str::trim)
}

fn client(headers: &HeaderMap, port_forward: bool) -> Result<Client, Status> {
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if upgrade.eq_ignore_ascii_case(SPDY) {
        return Ok(Client::Spdy);
    }
    if !upgrade.eq_ignore_ascii_case("websocket") {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let version = headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    if version != Some(b"13") || !headers.contains_key(SEC_WEBSOCKET_KEY) {
        return Err(Status::bad_request("a WebSocket of version 13 with a key is required"));
    }
    let offered: Vec<&str> = words(headers, &SEC_WEBSOCKET_PROTOCOL).collect();
    if port_forward {
        return match offered.contains(&TUNNELLED_PORT_FORWARD) {
            true => Ok(Client::Tunnel),
            false => Err(unspoken(&offered, TUNNELLED_PORT_FORWARD)),
        };
    }
    WebSocketProtocol::choose(offered.iter().copied())
        .map(Client::Channels)
        .ok_or_else(|| unspoken(&offered, "v5.channel.k8s.io, v4.channel.k8s.io or v4.base64.channel.k8s.io"))
}

fn unspoken(offered: &[&str], spoken: &str) -> Status {
    Status::bad_request(format!("none of the WebSocket protocols offered ({}) is spoken here; offer {spoken}", offered.join(", ")))
}

/// Asks the kubelet for its side; its refusal becomes a Status.
async fn ask_kubelet(
    op: &Op<'_>,
    target: &Target,
    client: &Client,
    headers: &HeaderMap,
    port_forward: bool,
) -> Result<Response<hyper::body::Incoming>, Status> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(target.path.as_str())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, SPDY)
        .body(server::empty_request_body())
        .map_err(Status::internal)?;
    let out = request.headers_mut();
    match client {
        Client::Spdy => {
            for value in headers.get_all(&STREAM_PROTOCOL) {
                out.append(STREAM_PROTOCOL, value.clone());
            }
        }
        Client::Channels(_) | Client::Tunnel => {
            let protocol = if port_forward { PORT_FORWARD } else { REMOTE_COMMAND };
            out.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
        }
=======
fn header<'h>(headers: &'h HeaderMap, name: &HeaderName) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn client(subresource: &str, headers: &HeaderMap) -> Result<Client, Status> {
    let upgrade = header(headers, &UPGRADE);
    if upgrade.eq_ignore_ascii_case(SPDY) {
        return Ok(Client::Spdy);
    }
    if !upgrade.eq_ignore_ascii_case("websocket") || header(headers, &WS_KEY).is_empty() {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let lists: Vec<&str> = headers.get_all(&WS_PROTOCOL).iter().filter_map(|value| value.to_str().ok()).collect();
    let offered: Vec<&str> = lists.iter().flat_map(|list| list.split(',')).map(str::trim).collect();
    if subresource == "portforward" {
        if offered.contains(&TUNNEL) {
            return Ok(Client::Tunnel);
        }
        return Err(Status::bad_request(format!("port-forward over WebSocket needs the protocol {TUNNEL}")));
    }
    WebSocketProtocol::choose(offered)
        .map(Client::Channels)
        .ok_or_else(|| Status::bad_request("the WebSocket's protocols must hold v5.channel.k8s.io or v4.channel.k8s.io"))
}

/// Asks the kubelet to upgrade; its answer is a 101.
async fn ask_kubelet(op: &Op<'_>, target: &Target, offered: Vec<HeaderValue>) -> Result<Response<hyper::body::Incoming>, Status> {
    let mut request = Request::new(server::empty_request_body());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.path.parse().map_err(|_| Status::bad_request("the request's path is not valid"))?;
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
    for protocol in offered {
        headers.append(STREAM_PROTOCOL, protocol);
>>>>>>> http
    }
    let answer = send_https(&op.core.kubelets, target, request).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer);
    }
    let (head, body) = answer.into_parts();
    Err(kubelet_error(head.status, body, &op.info().subresource).await)
}

<<<<<<< HEAD
/// The 101 that the client gets.
fn accept(client: &Client, asked: &HeaderMap, agreed: &HeaderMap) -> Result<Response<Body>, Status> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let protocol = match client {
        Client::Spdy => {
            headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
            for value in agreed.get_all(&STREAM_PROTOCOL) {
                headers.append(STREAM_PROTOCOL, value.clone());
=======
/// The 101 for the client.
fn accept(client: &Client, headers: &HeaderMap, chosen: Option<HeaderValue>) -> Result<Response<Body>, Status> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = response.headers_mut();
    out.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let protocol = match client {
        Client::Spdy => {
            out.insert(UPGRADE, HeaderValue::from_static(SPDY));
            if let Some(chosen) = chosen {
                out.insert(STREAM_PROTOCOL, chosen);
>>>>>>> http
            }
            return Ok(response);
        }
        Client::Channels(protocol) => protocol.name(),
<<<<<<< HEAD
        Client::Tunnel => TUNNELLED_PORT_FORWARD,
    };
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    let key = asked.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&derive_accept_key(key)).map_err(Status::internal)?);
    Ok(response)
}
=======
        Client::Tunnel => TUNNEL,
    };
    out.insert(UPGRADE, HeaderValue::from_static("websocket"));
    out.insert(WS_PROTOCOL, HeaderValue::from_static(protocol));
    out.insert(WS_ACCEPT, HeaderValue::from_str(&websocket_accept(header(headers, &WS_KEY))).map_err(Status::internal)?);
    Ok(response)
}

/// RFC 6455, 4.2.2.
fn websocket_accept(key: &str) -> String {
    let mut hash = sha1::Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64::engine::general_purpose::STANDARD.encode(hash.finalize())
}

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error("the client's upgrade: {0}")]
    Near(hyper::Error),
    #[error("the client did not upgrade in time")]
    Late,
    #[error("the kubelet's upgrade: {0}")]
    Far(hyper::Error),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Copy(#[from] std::io::Error),
}

async fn relay(
    core: &Arc<Core>,
    client: Client,
    near: hyper::upgrade::OnUpgrade,
    far: hyper::upgrade::OnUpgrade,
    asked: ExecStreams,
) -> Result<(), RelayError> {
    let near: Upgraded = match tokio::time::timeout(CLIENT_UPGRADE, near).await {
        Ok(upgraded) => upgraded.map_err(RelayError::Near)?,
        Err(_) => return Err(RelayError::Late),
    };
    let far: Upgraded = far.await.map_err(RelayError::Far)?;
    let (near, far) = (TokioIo::new(near), TokioIo::new(far));
    let work = async {
        match client {
            Client::Spdy => copy_both(near, far, LINGER).await.map_err(RelayError::from),
            Client::Channels(protocol) => relay_channels(near, protocol, far, asked).await.map_err(RelayError::from),
            Client::Tunnel => tunnel(near, far).await.map_err(RelayError::from),
        }
    };
    tokio::select! {
        result = work => result,
        () = core.stop.cancelled() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_value_is_the_rfcs() {
        assert_eq!(websocket_accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn clients_are_told_apart() {
        let parse = |subresource: &str, pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            match client(subresource, &headers) {
                Ok(Client::Spdy) => "spdy".to_owned(),
                Ok(Client::Tunnel) => "tunnel".to_owned(),
                Ok(Client::Channels(protocol)) => protocol.name().to_owned(),
                Err(status) => status.code.to_string(),
            }
        };
        let ws = ("upgrade", "websocket");
        let key = ("sec-websocket-key", "x");
        for (subresource, pairs, expected) in [
            ("exec", vec![("upgrade", "SPDY/3.1")], "spdy"),
            ("exec", vec![ws, key, ("sec-websocket-protocol", "v5.channel.k8s.io, v4.channel.k8s.io")], "v5.channel.k8s.io"),
            ("exec", vec![ws, key], "400"),
            ("exec", vec![], "400"),
            ("exec", vec![ws, ("sec-websocket-protocol", "v5.channel.k8s.io")], "400"),
            ("portforward", vec![ws, key, ("sec-websocket-protocol", "SPDY/3.1+portforward.k8s.io")], "tunnel"),
            ("portforward", vec![ws, key, ("sec-websocket-protocol", "v4.channel.k8s.io")], "400"),
        ] {
            assert_eq!(parse(subresource, &pairs), expected);
        }
    }
}
>>>>>>> http
