//! Answers that go on over a client's WebSocket: a watch in a message per event, a log in messages of its bytes.
//!
//! The handshake and its refusals are those of upstream's WebSocket library. What the client sends is read and ignored; its
//! end is the answer's end. A client that does not read is given up after [`STALL`].

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use keelson_api::status::Status;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;

use crate::authn::websocket_token;
use crate::body::Body;
use crate::respond;

/// A message that the client does not take for so long ends the answer.
const STALL: Duration = Duration::from_secs(60);
/// What the client's answer to our end may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// The client has nothing to say.
const MAX_MESSAGE: usize = 64 * 1024;

/// How an answer's pieces become messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Messages {
    /// A watch's frames of JSON: a text each.
    Text,
    /// A watch's frames of protobuf: a binary message each, without the length that stands before it elsewhere.
    Frames,
    /// A log: binary messages.
    Binary,
    /// A log: texts of base64.
    Base64,
}

/// Whether a request asks for a WebSocket.
pub fn asked(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or("");
    text(UPGRADE).eq_ignore_ascii_case("websocket")
        && text(CONNECTION).to_ascii_lowercase().contains("upgrade")
}

/// A watch's answer over the client's WebSocket; refusals are answered as upstream words them.
pub fn watch(
    parts: &http::request::Parts,
    answer: Response<Body>,
    messages: Messages,
    stop: &CancellationToken,
) -> Result<Response<Body>, Status> {
    let offered = protocols(&parts.headers);
    let origin = parts.headers.get(ORIGIN).and_then(|value| value.to_str().ok()).unwrap_or("");
    if let Err(text) = key(&parts.headers) {
        return Ok(respond::text(StatusCode::BAD_REQUEST, text));
    }
    // Upstream's server refuses a client that does not say where it comes from, and more protocols than it could echo.
    if origin.is_empty() || origin == "null" {
        return Ok(respond::text(StatusCode::FORBIDDEN, "a watch over a WebSocket needs an Origin header"));
    }
    if offered.len() > 1 {
        let text = "a watch over a WebSocket takes one subprotocol at most";
        return Ok(respond::text(StatusCode::BAD_REQUEST, text));
    }
    serve(parts, answer, messages, offered.first().map(String::as_str), stop)
}

/// A log's answer over the client's WebSocket: in `binary.k8s.io` (also where none is offered) or `base64.binary.k8s.io`.
pub fn log(
    parts: &http::request::Parts,
    answer: Response<Body>,
    stop: &CancellationToken,
) -> Result<Response<Body>, Status> {
    let offered = protocols(&parts.headers);
    if let Err(text) = key(&parts.headers) {
        return Ok(respond::text(StatusCode::BAD_REQUEST, text));
    }
    let known = |name: &String| match name.as_str() {
        "binary.k8s.io" => Some(Messages::Binary),
        "base64.binary.k8s.io" => Some(Messages::Base64),
        _ => None,
    };
    let chosen = offered.iter().find_map(|name| Some((Some(name.as_str()), known(name)?)));
    let (protocol, messages) = match chosen {
        Some(chosen) => chosen,
        None if offered.is_empty() => (None, Messages::Binary),
        None => {
            let offered = offered.join(" ");
            let text = format!(
                "requested protocol(s) are not supported: [{offered}]; supports [binary.k8s.io base64.binary.k8s.io]"
            );
            return Ok(respond::text(StatusCode::FORBIDDEN, text));
        }
    };
    serve(parts, answer, messages, protocol, stop)
}

/// The protocols offered, without the one that is a token.
fn protocols(headers: &HeaderMap) -> Vec<String> {
    let text = headers.get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok()).unwrap_or("");
    let without = websocket_token(text).map(|(_, others)| others);
    let text = without.as_deref().unwrap_or(text);
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn key(headers: &HeaderMap) -> Result<&[u8], &'static str> {
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).filter(|key| !key.is_empty());
    let key = key.ok_or("mismatch challenge/response")?;
    match headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) {
        Some(b"13") => Ok(key),
        _ => Err("missing or bad WebSocket Version"),
    }
}

fn serve(
    parts: &http::request::Parts,
    answer: Response<Body>,
    messages: Messages,
    protocol: Option<&str>,
    stop: &CancellationToken,
) -> Result<Response<Body>, Status> {
    let Some(upgrading) = parts.extensions.get::<OnUpgrade>().cloned() else {
        return Err(Status::bad_request(
            "this connection cannot be upgraded; use HTTP/1.1 over a connection of its own",
        ));
    };
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let accept = derive_accept_key(key(&parts.headers).unwrap_or_default());
    headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&accept).map_err(Status::internal)?);
    if let Some(protocol) = protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(protocol).map_err(Status::internal)?);
    }
    let stop = stop.clone();
    tokio::spawn(async move {
        let relay = async {
            match upgrading.await {
                Ok(upgraded) => send_all(upgraded, answer.into_body(), messages).await,
                Err(error) => tracing::debug!(%error, "a WebSocket did not come about"),
            }
        };
        tokio::select! {
            () = relay => {}
            // The answer ends by itself first, and says so.
            () = async { stop.cancelled().await; tokio::time::sleep(FAREWELL).await } => {}
        }
    });
    Ok(response)
}

/// Sends the body's pieces until either side ends.
async fn send_all(upgraded: Upgraded, mut body: Body, messages: Messages) {
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let (mut sink, mut source) = socket.split();
    // Pings are answered and the client's end is seen by whoever reads.
    let gone = async { while let Some(Ok(_)) = source.next().await {} };
    let sending = async {
        if matches!(messages, Messages::Binary | Messages::Base64) {
            // Upstream's first message of a stream of bytes is empty.
            sink.send(message(Bytes::new(), messages)).await.ok()?;
        }
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.ok()?.into_data() else { continue };
            let sent = tokio::time::timeout(STALL, sink.send(message(piece, messages))).await;
            sent.ok()?.ok()?;
        }
        Some(())
    };
    let ended = tokio::select! {
        ended = sending => ended,
        () = gone => None,
    };
    if ended.is_some() {
        let farewell = async {
            sink.close().await.ok()?;
            while let Some(Ok(_)) = source.next().await {}
            Some(())
        };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }
}

fn message(piece: Bytes, messages: Messages) -> Message {
    match messages {
        // What was encoded as JSON is text.
        Messages::Text => Message::text(String::from_utf8_lossy(&piece).into_owned()),
        Messages::Frames => Message::Binary(piece.slice(4.min(piece.len())..)),
        Messages::Binary => Message::Binary(piece),
        Messages::Base64 => Message::text(BASE64_STANDARD.encode(&piece)),
    }
}
