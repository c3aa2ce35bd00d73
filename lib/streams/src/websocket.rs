//! Kubernetes' WebSocket channel protocols (`v5.channel.k8s.io`, `v4.channel.k8s.io` and their base64 forms) towards a
//! SPDY session, and SPDY tunnelled in WebSocket messages for port-forward.
//!
//! Channels: 0 stdin, 1 stdout, 2 stderr, 3 error (a Status), 4 resize. In v5 a message `[255, n]` half-closes channel
//! n. Follows upstream's `k8s.io/streaming` wsstream and KEP-4006.

use crate::session::{Role, Session, Stream, StreamError, StreamReader, StreamWriter};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role as WsRole, WebSocketConfig};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Longest message a client may send.
const MAX_MESSAGE: usize = 1 << 20;
/// How long the client's close frame is waited for after ours.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// A ping keeps intermediaries from cutting a silent connection.
const PING_PERIOD: Duration = Duration::from_secs(30);

/// A protocol that a client may ask for in `Sec-WebSocket-Protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebSocketProtocol {
    /// `v5.channel.k8s.io`: has a close signal per channel.
    V5,
    /// `v4.channel.k8s.io`.
    V4,
    /// `v4.base64.channel.k8s.io`: the channel as a digit, then base64.
    V4Base64,
}

impl WebSocketProtocol {
    /// The first protocol of the client's list that we speak.
    pub fn choose<'a>(offered: impl IntoIterator<Item = &'a str>) -> Option<WebSocketProtocol> {
        offered.into_iter().find_map(|name| match name.trim() {
            "v5.channel.k8s.io" => Some(WebSocketProtocol::V5),
            "v4.channel.k8s.io" => Some(WebSocketProtocol::V4),
            "v4.base64.channel.k8s.io" | "base64.channel.k8s.io" => Some(WebSocketProtocol::V4Base64),
            _ => None,
        })
    }

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            WebSocketProtocol::V5 => "v5.channel.k8s.io",
            WebSocketProtocol::V4 => "v4.channel.k8s.io",
            WebSocketProtocol::V4Base64 => "v4.base64.channel.k8s.io",
        }
    }
}

/// Which streams an exec or attach asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecStreams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE))
}

/// Translates between a WebSocket client and a kubelet that speaks SPDY/3.1 with remotecommand protocol v4. Ends when
/// the command's status has come and its output is through, or when either side is gone.
pub async fn relay_channels<W, S>(
    client: W,
    protocol: WebSocketProtocol,
    kubelet: S,
    asked: ExecStreams,
) -> Result<(), StreamError>
where
    W: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (session, _) = Session::start(kubelet, Role::Client);
    // Upstream's order: error, stdin, stdout, stderr, resize.
    let error = open(&session, "error").await?;
    let stdin = open_if(&session, asked.stdin, "stdin").await?;
    let stdout = open_if(&session, asked.stdout, "stdout").await?;
    let stderr = open_if(&session, asked.stderr && !asked.tty, "stderr").await?;
    let resize = open_if(&session, asked.tty, "resize").await?;
    let socket = WebSocketStream::from_raw_socket(client, WsRole::Server, Some(config())).await;
    let (sink, source) = socket.split();
    let (out, messages) = mpsc::channel(8);
    let sender = tokio::spawn(send_messages(sink, messages));
    let mut readers = tokio::task::JoinSet::new();
    for (channel, stream) in [(STDOUT, stdout), (STDERR, stderr)] {
        if let Some(stream) = stream {
            readers.spawn(forward(channel, protocol, stream.split().0, out.clone()));
        }
    }
    let (mut status, error_writer) = error.split();
    let incoming =
        receive(source, protocol, stdin.map(|s| s.split().1), resize.map(|s| s.split().1), out.clone());
    let outgoing = async {
        // The error channel ends last: its Status must follow the output.
        let status = status.collect(MAX_MESSAGE).await?;
        while readers.join_next().await.is_some() {}
        if !status.is_empty() {
            send(&out, ERROR, protocol, &status).await?;
        }
        Ok(())
    };
    let result = tokio::select! {
        result = outgoing => result,
        result = incoming => result,
    };
    // Nothing is ever written to the error stream; it is held open until here.
    drop((error_writer, out, session));
    readers.shutdown().await;
    if tokio::time::timeout(CLOSE_WAIT, sender).await.is_err() {
        tracing::debug!("the client did not take the last messages in time");
    }
    result
}

async fn open(session: &Session, kind: &str) -> Result<Stream, StreamError> {
    session.open(vec![("streamtype".to_owned(), kind.to_owned())]).await
}

async fn open_if(session: &Session, wanted: bool, kind: &str) -> Result<Option<Stream>, StreamError> {
    if wanted { open(session, kind).await.map(Some) } else { Ok(None) }
}

async fn forward(
    channel: u8,
    protocol: WebSocketProtocol,
    mut reader: StreamReader,
    out: mpsc::Sender<Message>,
) -> Result<(), StreamError> {
    // An error here is the runtime's reset at the end of the command; what came before it is through.
    while let Some(Ok(chunk)) = reader.chunk().await {
        send(&out, channel, protocol, &chunk).await?;
    }
    Ok(())
}

async fn send(
    out: &mpsc::Sender<Message>,
    channel: u8,
    protocol: WebSocketProtocol,
    payload: &[u8],
) -> Result<(), StreamError> {
    let message = match protocol {
        WebSocketProtocol::V4Base64 => {
            Message::text(format!("{}{}", char::from(b'0' + channel), BASE64_STANDARD.encode(payload)))
        }
        WebSocketProtocol::V5 | WebSocketProtocol::V4 => {
            let mut message = BytesMut::with_capacity(payload.len() + 1);
            message.extend_from_slice(&[channel]);
            message.extend_from_slice(payload);
            Message::binary(message.freeze())
        }
    };
    out.send(message).await.map_err(|_| StreamError::Ended)
}

/// Writes what the other tasks send, pings in silence, and closes at the end.
async fn send_messages<IO>(
    mut sink: SplitSink<WebSocketStream<IO>, Message>,
    mut messages: mpsc::Receiver<Message>,
) where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let message = match tokio::time::timeout(PING_PERIOD, messages.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(_) => Message::Ping(Bytes::new()),
        };
        if sink.send(message).await.is_err() {
            return;
        }
    }
    // Clients take any other code for a broken connection.
    let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    if let Err(error) = sink.send(Message::Close(Some(normal))).await {
        tracing::debug!(%error, "cannot close the websocket");
    }
}

/// Hands the client's messages to their streams until the client is gone.
async fn receive<IO>(
    mut source: SplitStream<WebSocketStream<IO>>,
    protocol: WebSocketProtocol,
    mut stdin: Option<StreamWriter>,
    mut resize: Option<StreamWriter>,
    out: mpsc::Sender<Message>,
) -> Result<(), StreamError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = source.next().await {
        let message = match message {
            Ok(Message::Ping(payload)) => {
                out.send(Message::Pong(payload)).await.map_err(|_| StreamError::Ended)?;
                continue;
            }
            Ok(Message::Close(_)) | Err(_) => break,
            Ok(message) => message,
        };
        let Some((channel, payload)) = unpack(protocol, message) else { continue };
        match channel {
            STDIN => {
                if let Some(stdin) = &stdin {
                    stdin.send(payload).await?;
                }
            }
            RESIZE => {
                if let Some(resize) = &resize {
                    resize.send(payload).await?;
                }
            }
            CLOSE if protocol == WebSocketProtocol::V5 => {
                let closed = match payload.first() {
                    Some(&STDIN) => stdin.take(),
                    Some(&RESIZE) => resize.take(),
                    _ => None,
                };
                if let Some(writer) = closed {
                    writer.finish().await?;
                }
            }
            _ => tracing::debug!(channel, "message on a channel that the client may not write"),
        }
    }
    Ok(())
}

fn unpack(protocol: WebSocketProtocol, message: Message) -> Option<(u8, Bytes)> {
    match (protocol, message) {
        (WebSocketProtocol::V4Base64, Message::Text(text)) => {
            let (&digit, rest) = text.as_bytes().split_first()?;
            let channel = digit.checked_sub(b'0')?;
            Some((channel, BASE64_STANDARD.decode(rest).ok()?.into()))
        }
        (WebSocketProtocol::V5 | WebSocketProtocol::V4, Message::Binary(mut payload)) => {
            let channel = *payload.first()?;
            Some((channel, payload.split_off(1)))
        }
        _ => None,
    }
}

/// Relays SPDY bytes tunnelled in binary messages (`SPDY/3.1+portforward.k8s.io`) to the kubelet's SPDY connection.
pub async fn tunnel<W, S>(client: W, kubelet: S) -> Result<(), StreamError>
where
    W: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let socket = WebSocketStream::from_raw_socket(client, WsRole::Server, Some(config())).await;
    let (sink, mut source) = socket.split();
    let (out, messages) = mpsc::channel(8);
    let sender = tokio::spawn(send_messages(sink, messages));
    let (mut reader, mut writer) = tokio::io::split(kubelet);
    let up = async {
        while let Some(message) = source.next().await {
            match message {
                Ok(Message::Binary(payload)) => writer.write_all(&payload).await?,
                Ok(Message::Ping(payload)) => {
                    out.send(Message::Pong(payload)).await.map_err(|_| StreamError::Ended)?;
                }
                Ok(Message::Close(_)) | Err(_) => break,
                Ok(_) => {}
            }
        }
        writer.shutdown().await?;
        Ok(())
    };
    let down = async {
        let mut buffer = BytesMut::with_capacity(64 << 10);
        while reader.read_buf(&mut buffer).await? > 0 {
            let message = Message::binary(buffer.split().freeze());
            out.send(message).await.map_err(|_| StreamError::Ended)?;
            buffer.reserve(32 << 10);
        }
        Ok(())
    };
    let result = tokio::select! {
        result = up => result,
        result = down => result,
    };
    drop(out);
    if tokio::time::timeout(CLOSE_WAIT, sender).await.is_err() {
        tracing::debug!("the client did not take the last messages in time");
    }
    result
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
