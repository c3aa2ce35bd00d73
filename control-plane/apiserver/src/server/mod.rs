//! The listener: accepts connections, does TLS, speaks HTTP/1.1 and HTTP/2, and drains.
//!
//! What always holds: the number of connections, of all and of one address, the time for a handshake, for a request's head and
//! for reading an answer, the size of heads, the number of streams and the rate of frames are bounded; a connection that
//! nobody uses ends; a drain ends listeners first, lets requests finish until the deadline, then cuts what is left; every
//! connection's task is joined.

mod addresses;
mod again;
mod frames;
mod guard;
mod stall;

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::{Body, RequestBody, Unread, request_body};
use addresses::{Addresses, Place};
use again::Again;
use guard::{Guarded, Meter};
use stall::{Activity, Streams, Told, unless_stalled};

/// One client with many watches needs many streams (upstream's default of 250 starves it).
const MAX_STREAMS: u32 = 2000;
const MAX_HEADER_BYTES: u32 = 64 * 1024;
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long after the drain's start a connection without a request stays.
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);
/// What a connection that was asked to end may still take.
const FAREWELL: Duration = Duration::from_secs(10);

/// What connections may cost.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections beyond this wait in the kernel's queue.
    pub connections: usize,
    /// Connections of one address beyond this are closed.
    pub per_address: usize,
    pub handshake: Duration,
    /// For the first request's head.
    pub head: Duration,
    /// A connection without a request ends after this, and one of HTTP/1.1 whose next head is not complete.
    pub idle: Duration,
    /// An answer ends whose client has not read for so long.
    pub stall: Duration,
}

impl Default for Limits {
    /// Heads and idle connections as upstream's server.
    fn default() -> Limits {
        Limits {
            connections: 8192,
            per_address: 2048,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(32),
            idle: Duration::from_secs(90),
            stall: Duration::from_secs(60),
        }
    }
}

/// Where a connection comes from and what it proved.
#[derive(Debug)]
pub struct ConnectionInfo {
    pub remote: SocketAddr,
    /// The client's chain, verified against the client CAs during the handshake; empty without a certificate.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// Answers requests of TLS connections.
pub trait Handler: Send + Sync + 'static {
    /// What the handler keeps per connection.
    type Connection: Send + Sync + 'static;
    /// Called once after the handshake.
    fn connected(&self, info: ConnectionInfo) -> Self::Connection;
    /// Called per request; must not panic (it is the handler's to catch).
    fn call(
        self: Arc<Self>,
        connection: Arc<Self::Connection>,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// A running listener.
pub struct Server {
    pub address: SocketAddr,
    stop: CancellationToken,
    force: CancellationToken,
    tasks: TaskTracker,
    stalled: Arc<AtomicU64>,
}

impl Server {
    /// Accepts on `listener` until stopped. `config` may be replaced while it runs; new handshakes use the new one.
    pub fn start<H: Handler>(
        listener: TcpListener,
        config: Arc<ArcSwap<rustls::ServerConfig>>,
        handler: Arc<H>,
        limits: Limits,
    ) -> std::io::Result<Server> {
        let server = Server {
            address: listener.local_addr()?,
            stop: CancellationToken::new(),
            force: CancellationToken::new(),
            tasks: TaskTracker::new(),
            stalled: Arc::new(AtomicU64::new(0)),
        };
        let shared = Shared {
            config,
            handler,
            stop: server.stop.clone(),
            force: server.force.clone(),
            tasks: server.tasks.clone(),
            slots: Arc::new(Semaphore::new(limits.connections)),
            addresses: Addresses::new(limits.per_address),
            streams: Streams { limit: limits.stall, ended: server.stalled.clone() },
            limits,
        };
        server.tasks.spawn(accept_loop(listener, Arc::new(shared)));
        Ok(server)
    }

    /// Stops accepting, asks connections to finish, and waits for them until the deadline; then cuts them.
    pub async fn drain(&self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(DRAIN_DEADLINE, self.tasks.wait()).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), "cutting connections that did not finish in time");
            self.force.cancel();
            self.tasks.wait().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.force.cancel();
    }
}

struct Shared<H> {
    config: Arc<ArcSwap<rustls::ServerConfig>>,
    handler: Arc<H>,
    stop: CancellationToken,
    force: CancellationToken,
    tasks: TaskTracker,
    slots: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    streams: Streams,
    limits: Limits,
}

async fn accept_loop<H: Handler>(listener: TcpListener, shared: Arc<Shared<H>>) {
    loop {
        let Ok(slot) = shared.slots.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, remote)) => {
                let Some(place) = shared.addresses.enter(remote.ip(), Instant::now()) else {
                    tracing::debug!(%remote, "too many connections of one address");
                    continue;
                };
                let connection = shared.clone();
                shared.tasks.spawn(async move {
                    connection.run(stream, remote, place).await;
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of file descriptors or the like: retrying at once would spin.
                tracing::warn!(%error, "accepting a connection");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(50)) => {}
                    () = shared.stop.cancelled() => return,
                }
            }
        }
    }
}

impl<H: Handler> Shared<H> {
    async fn run(self: Arc<Self>, stream: TcpStream, remote: SocketAddr, mut place: Place) {
        // Small answers must not wait for the peer's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let acceptor = TlsAcceptor::from(self.config.load_full());
        let handshake = async {
            place.wait().await;
            tokio::time::timeout(self.limits.handshake, acceptor.accept(stream)).await
        };
        let handshake = tokio::select! {
            handshake = handshake => handshake,
            () = self.force.cancelled() => return,
        };
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%remote, %error, "TLS handshake");
                return;
            }
            Err(_) => {
                tracing::debug!(%remote, "TLS handshake took too long");
                return;
            }
        };
        let session = stream.get_ref().1;
        let certificates = session
            .peer_certificates()
            .map(|chain| chain.iter().map(|certificate| certificate.clone().into_owned()).collect())
            .unwrap_or_default();
        let http2 = session.alpn_protocol() == Some(b"h2");
        let connection = Arc::new(self.handler.connected(ConnectionInfo { remote, certificates }));
        let (meter, activity) = (Meter::new(http2), Activity::new());
        let stream = TokioIo::new(Guarded::new(stream, meter.clone()));
        let (handler, active) = (self.handler.clone(), activity.clone());
        // Told before the socket closes: who comes back at once is already known.
        let mut failed = {
            let meter = meter.clone();
            move |error: &hyper::Error| {
                if let Some(cause) = meter.cut().or_else(|| excessive(error)) {
                    tracing::info!(%remote, cause, "a connection was cut for what it sent");
                    place.strike(Instant::now());
                }
                tracing::trace!(%remote, %error, "connection ended");
            }
        };
        let service = service_fn(move |request: Request<Incoming>| {
            let (handler, connection, meter) = (handler.clone(), connection.clone(), meter.clone());
            let under_way = active.begin();
            async move {
                let response =
                    handler.call(connection, request.map(|body| request_body(Unread::new(body)))).await;
                if response.status() == StatusCode::UNAUTHORIZED {
                    meter.refused();
                }
                Ok::<_, std::convert::Infallible>(response.map(|body| Told::new(body, under_way)))
            }
        });
        if http2 {
            let serving = self.http2().serve_connection(stream, service);
            self.drive(serving, |serving| serving.graceful_shutdown(), &activity, &mut failed).await;
        } else {
            let serving = self.http1().serve_connection(stream, service).with_upgrades();
            let driven = self.drive(serving, |serving| serving.graceful_shutdown(), &activity, &mut failed);
            if unless_stalled(driven, self.limits.stall).await.is_none() {
                self.streams.ended.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn http1(&self) -> http1::Builder {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.limits.idle)
            .max_buf_size(MAX_HEADER_BYTES as usize * 2);
        http
    }

    fn http2(&self) -> http2::Builder<Streams> {
        let mut http = http2::Builder::new(self.streams.clone());
        http.timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_BYTES)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(4 * 1024 * 1024)
            .max_send_buf_size(256 * 1024)
            .max_pending_accept_reset_streams(200)
            .max_local_error_reset_streams(1024);
        http
    }

    /// Serves a connection until it ends, is idle for too long, or the drain is over. `failed` learns why it ended early
    /// while its socket is still open.
    async fn drive<C>(
        &self,
        serving: C,
        end: impl Fn(Pin<&mut C>),
        activity: &Activity,
        failed: &mut (dyn FnMut(&hyper::Error) + Send),
    ) where
        C: Future<Output = Result<(), hyper::Error>>,
    {
        let mut serving = pin!(serving);
        let mut again = Again::default();
        let (mut draining, mut farewell) = (false, None);
        let mut look = Instant::now() + self.limits.head;
        loop {
            tokio::select! {
                outcome = poll_fn(|context| again.poll(context, serving.as_mut())) => {
                    if let Err(error) = &outcome {
                        failed(error);
                    }
                    return;
                }
                () = self.stop.cancelled(), if !draining => {
                    draining = true;
                    end(serving.as_mut());
                }
                () = self.force.cancelled() => return,
                () = tokio::time::sleep_until(look) => match self.idle(activity, look) {
                    Ok(next) => look = next,
                    Err(()) if farewell.is_some() => return,
                    Err(()) => {
                        end(serving.as_mut());
                        look = *farewell.insert(Instant::now() + self.limits.head.min(FAREWELL));
                    }
                },
            }
        }
    }

    /// When to look again; an error where the connection has been idle for too long.
    fn idle(&self, activity: &Activity, now: Instant) -> Result<Instant, ()> {
        let Some(since) = activity.quiet_since() else { return Ok(now + self.limits.idle) };
        // Without a first request in time there is none to wait for.
        let limit = if activity.is_unused() { self.limits.head } else { self.limits.idle };
        let until = since + limit;
        if until > now { Ok(until) } else { Err(()) }
    }
}

/// Whether the protocol's own limits ended a connection (ENHANCE_YOUR_CALM, which has no type of its own here).
fn excessive(error: &hyper::Error) -> Option<&'static str> {
    let source = std::error::Error::source(error)?;
    source.to_string().contains("excessive load").then_some("excessive load")
}

/// A request body without bytes, for requests made in process.
pub fn empty_request_body() -> RequestBody {
    request_body(http_body_util::Empty::<Bytes>::new())
}
