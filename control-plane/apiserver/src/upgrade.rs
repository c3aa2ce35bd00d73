//! Upgraded connections of exec, attach and port-forward: a client's WebSocket or SPDY/3.1 on one side, the kubelet's
//! SPDY/3.1 on the other.
//!
//! What always holds: the kubelet has agreed before the client is answered, so a refusal reaches the client as a Status;
//! after that only bytes pass, and nothing of the upgraded connection is read as a request again.

use std::time::Duration;

use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use keelson_api::status::Status;
use keelson_streams::{ExecStreams, WebSocketProtocol, copy_both, relay_channels, tunnel};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::body::Body;
use crate::rest::Op;
use crate::server;
use crate::streaming::{Target, kubelet_error, send_https};

const SPDY: &str = "SPDY/3.1";
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// What the kubelet is asked for on behalf of a WebSocket client.
const REMOTE_COMMAND: &str = "v4.channel.k8s.io";
const PORT_FORWARD: &str = "portforward.k8s.io";
const TUNNELLED_PORT_FORWARD: &str = "SPDY/3.1+portforward.k8s.io";
/// After one side has ended, the other may still send this long.
const LINGER: Duration = Duration::from_secs(10);

/// What the client speaks.
enum Client {
    Spdy,
    Channels(WebSocketProtocol),
    Tunnel,
}

/// Connects the client of this request with the kubelet at `target`.
pub async fn serve(
    op: &Op<'_>,
    target: Target,
    parts: &http::request::Parts,
) -> Result<Response<Body>, Status> {
    let port_forward = op.info().subresource == "portforward";
    let client = client(&parts.headers, port_forward)?;
    let Some(upgrading) = parts.extensions.get::<OnUpgrade>().cloned() else {
        return Err(Status::bad_request(
            "this connection cannot be upgraded; use HTTP/1.1 over a connection of its own",
        ));
    };
    let place = op.core.kubelets.relays.clone().try_acquire_owned();
    let place = place.map_err(|_| {
        Status::too_many_requests("too many exec, attach and port-forward sessions at once", 5)
    })?;
    let answer = ask_kubelet(op, &target, &client, &parts.headers, port_forward).await?;
    let response = accept(&client, &parts.headers, answer.headers())?;
    let flag = |name| op.call.query.flag(name);
    let asked = ExecStreams {
        stdin: flag("stdin"),
        stdout: flag("stdout"),
        stderr: flag("stderr"),
        tty: flag("tty"),
    };
    let stop = op.core.stop.clone();
    tokio::spawn(async move {
        let _place = place;
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
    });
    Ok(response)
}

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
    Status::bad_request(format!(
        "none of the WebSocket protocols offered ({}) is spoken here; offer {spoken}",
        offered.join(", ")
    ))
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
    }
    let answer = send_https(&op.core.kubelets, target, request).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer);
    }
    let (head, body) = answer.into_parts();
    Err(kubelet_error(head.status, body, &op.info().subresource).await)
}

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
            }
            return Ok(response);
        }
        Client::Channels(protocol) => protocol.name(),
        Client::Tunnel => TUNNELLED_PORT_FORWARD,
    };
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    let key = asked.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    headers.insert(
        SEC_WEBSOCKET_ACCEPT,
        HeaderValue::from_str(&derive_accept_key(key)).map_err(Status::internal)?,
    );
    Ok(response)
}
