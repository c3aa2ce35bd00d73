//! The listener: accepts connections, does TLS, speaks HTTP/1.1 and HTTP/2, and drains.
//!
//! What always holds: the number of connections, the time for a handshake and for a request head, the size of heads
//! and the number of streams are bounded; a drain ends listeners first, lets requests finish until the deadline, then
//! cuts what is left; every connection's task is joined.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::{Body, RequestBody, request_body};

/// Connections beyond this wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 8192;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// An idle HTTP/1.1 connection and a slow request head end after this.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);
/// One client with many watches needs many streams (upstream's default of 250 starves it).
const MAX_STREAMS: u32 = 2000;
const MAX_HEADER_BYTES: u32 = 64 * 1024;
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long after the drain's start a connection without a request stays.
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);

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
}

impl Server {
    /// Accepts on `listener` until stopped. `config` may be replaced while it runs; new handshakes use the new one.
    pub fn start<H: Handler>(
        listener: TcpListener,
        config: Arc<ArcSwap<rustls::ServerConfig>>,
        handler: Arc<H>,
    ) -> std::io::Result<Server> {
        let server = Server {
            address: listener.local_addr()?,
            stop: CancellationToken::new(),
            force: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let shared = Shared {
            config,
            handler,
            stop: server.stop.clone(),
            force: server.force.clone(),
            tasks: server.tasks.clone(),
            slots: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            http: builder(),
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
    http: auto::Builder<TokioExecutor>,
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES as usize * 2);
    http.http2()
        .timer(TokioTimer::new())
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

async fn accept_loop<H: Handler>(listener: TcpListener, shared: Arc<Shared<H>>) {
    loop {
        let Ok(slot) = shared.slots.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, remote)) => {
                let connection = shared.clone();
                shared.tasks.spawn(async move {
                    connection.run(stream, remote).await;
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
    async fn run(self: Arc<Self>, stream: TcpStream, remote: SocketAddr) {
        // Small answers must not wait for the peer's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let acceptor = TlsAcceptor::from(self.config.load_full());
        let handshake = tokio::select! {
            handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)) => handshake,
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
        let certificates = stream
            .get_ref()
            .1
            .peer_certificates()
            .map(|chain| chain.iter().map(|certificate| certificate.clone().into_owned()).collect())
            .unwrap_or_default();
        let connection = Arc::new(self.handler.connected(ConnectionInfo { remote, certificates }));
        let handler = self.handler.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (handler, connection) = (handler.clone(), connection.clone());
            async move {
                Ok::<_, std::convert::Infallible>(handler.call(connection, request.map(request_body)).await)
            }
        });
        let mut serving = pin!(self.http.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let mut draining = false;
        loop {
            tokio::select! {
                outcome = serving.as_mut() => {
                    if let Err(error) = outcome {
                        tracing::trace!(%remote, %error, "connection ended");
                    }
                    return;
                }
                () = self.stop.cancelled(), if !draining => {
                    draining = true;
                    serving.as_mut().graceful_shutdown();
                }
                () = self.force.cancelled() => return,
            }
        }
    }
}

/// A request body without bytes, for requests made in process.
pub fn empty_request_body() -> RequestBody {
    request_body(http_body_util::Empty::<Bytes>::new())
}
