//! port-forward over SPDY/3.1 (`portforward.k8s.io`): per connection of the client one stream of data and one for an
//! error, joined to a connection made inside the pod's network namespace.
//!
//! The kubelet does this itself: containerd's own forwarding cuts a connection a second after the client has said that
//! it will send no more, and does not tell the pod, so a server that answers at the end of its input never answers.
use super::{Body, text};
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use keelson_streams::session::StreamWriter;
use keelson_streams::{Role, Session, Stream, StreamError};
use keelson_sys::netns::Netns;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const SPDY: &str = "SPDY/3.1";
const PROTOCOL: &str = "portforward.k8s.io";
const PROTOCOLS: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const CONNECT: Duration = Duration::from_secs(10);
/// After the pod has ended its side, the client may still send this long.
const LINGER: Duration = Duration::from_secs(10);
const CHUNK: usize = 32 << 10;
/// Streams of one session that wait for their partners.
const MAX_WAITING: usize = 64;

/// Where a pod's network is.
pub(super) enum Place {
    /// The kubelet's own.
    Host,
    Netns(PathBuf),
}

/// Whether the client speaks what is spoken here; others are left to the runtime.
pub(super) fn wanted(request: &Request<Incoming>) -> bool {
    let text = |name: &HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let offered = request.headers().get_all(&PROTOCOLS).iter().filter_map(|value| value.to_str().ok());
    text(&UPGRADE).is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(SPDY))
        && offered.flat_map(|value| value.split(',')).any(|word| word.trim() == PROTOCOL)
}

/// Agrees, and forwards until the client goes.
pub(super) fn serve(mut request: Request<Incoming>, place: Place, pod: String) -> Response<Body> {
    let netns = match place {
        Place::Host => None,
        Place::Netns(path) => match Netns::open(&path) {
            Ok(netns) => Some(netns),
            Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}")),
        },
    };
    let upgrading = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrading.await {
            Ok(upgraded) => session(TokioIo::new(upgraded), netns, &pod).await,
            Err(error) => tracing::debug!(error = %error, "a port-forward did not come about"),
        }
    });
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
    headers.insert(PROTOCOLS, HeaderValue::from_static(PROTOCOL));
    response
}

/// Pairs the client's streams by their request id and serves each pair.
async fn session(io: TokioIo<hyper::upgrade::Upgraded>, netns: Option<Netns>, pod: &str) {
    let (_session, mut streams) = Session::start(io, Role::Server);
    let mut waiting: HashMap<String, Stream> = HashMap::new();
    let mut pairs = tokio::task::JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = streams.recv() => stream,
            Some(_) = pairs.join_next() => continue,
        };
        let Some(stream) = stream else { break };
        let id = stream.header("requestid").unwrap_or_default().to_owned();
        let Some(first) = waiting.remove(&id) else {
            if waiting.len() < MAX_WAITING {
                waiting.insert(id, stream);
            }
            continue;
        };
        let is_error = |stream: &Stream| stream.header("streamtype") == Some("error");
        let (error, data) = if is_error(&first) { (first, stream) } else { (stream, first) };
        let port = data.header("port").and_then(|port| port.parse().ok()).filter(|port: &u16| *port > 0);
        // A namespace handle of its own for the pair, so that none waits for another.
        let netns = netns.as_ref().map(|netns| Netns::open(netns.path()));
        let pod = pod.to_owned();
        pairs.spawn(async move {
            let (_unread, error) = error.split();
            let outcome = match (port, netns.transpose()) {
                (Some(port), Ok(netns)) => join(netns, port, &error, data).await,
                (Some(_), Err(error)) => Err(error.to_string()),
                (None, _) => Err("the stream names no port".to_owned()),
            };
            if let Err(why) = outcome {
                let message =
                    format!("error forwarding port {} to pod {pod}, uid : {why}", port.unwrap_or(0));
                let _ = error.send(message.into()).await;
                let _ = error.finish().await;
            }
        });
    }
}

async fn connect(netns: Option<Netns>, port: u16) -> Result<TcpStream, String> {
    let dial = move || {
        let to = |address: SocketAddr| std::net::TcpStream::connect_timeout(&address, CONNECT);
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        to(v4).or_else(|error| to((Ipv6Addr::LOCALHOST, port).into()).map_err(|_| error))
    };
    let dialled = tokio::task::spawn_blocking(move || match netns {
        Some(netns) => netns.run(dial).map_err(io::Error::other)?,
        None => dial(),
    });
    let stream = dialled.await.map_err(|error| error.to_string())?;
    let stream = stream.and_then(|stream| {
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    });
    stream.map_err(|error| format!("dial tcp4 127.0.0.1:{port}: connect: {error}"))
}

/// Connects, and passes bytes both ways; each direction ends by itself. What fails (connecting, or the connection
/// breaking off) ends the client's data too and is for its error stream: it would wait for ever otherwise.
async fn join(netns: Option<Netns>, port: u16, error: &StreamWriter, data: Stream) -> Result<(), String> {
    let (mut from_client, to_client) = data.split();
    let to_client = &to_client;
    let server = match connect(netns, port).await {
        Ok(server) => server,
        Err(why) => {
            let _ = to_client.finish().await;
            return Err(why);
        }
    };
    let _ = server.set_nodelay(true);
    let (mut from_pod, mut to_pod) = server.into_split();
    let up = async {
        while let Some(chunk) = from_client.chunk().await {
            to_pod.write_all(&chunk?).await?;
        }
        to_pod.shutdown().await?;
        Ok::<(), StreamError>(())
    };
    let down = async {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        while from_pod.read_buf(&mut buffer).await? > 0 {
            let chunk: Bytes = buffer.split().freeze();
            to_client.send(chunk).await?;
            buffer.reserve(CHUNK);
        }
        to_client.finish().await?;
        // Clients wait for the end of the error stream before they close their side.
        error.finish().await
    };
    let outcome = {
        tokio::pin!(up, down);
        tokio::select! {
            outcome = &mut down => {
                let _ = tokio::time::timeout(LINGER, up).await;
                outcome
            }
            outcome = &mut up => match outcome {
                Ok(()) => down.await,
                // The client is gone, or the pod reads no more: the connection goes with it.
                Err(error) => Err(error),
            },
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(error = %error, port, "a forwarded connection broke off");
        let _ = to_client.finish().await;
        return Err(error.to_string());
    }
    Ok(())
}
