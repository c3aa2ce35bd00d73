//! The way of a node to whichever API server lives: a TCP port on loopback whose connections go to one server, which is
//! asked again and again whether it answers. When it does not, or leaves, its connections are ended, and the next server
//! that answers takes the new ones.
//!
//! A control plane begins with its own server, any other node with one that its own number picks, so that not all are at one.
//!
//! One server at a time: clients keep their connections, and a node asks after one server, not after all. Bytes pass
//! unread: TLS is the client's with the server.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Where it listens.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 6444);
/// How often the server in use is asked whether it lives, and how soon one is sought again when none did.
const EVERY: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(500);
/// How long an answer and a connection may take.
const ANSWER: Duration = Duration::from_secs(2);
/// Servers that are asked at once.
const ASKED: usize = 16;
/// How long a client is kept waiting when no server lives.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once.
const CONNECTIONS: usize = 256;

/// Asks a server whether it lives.
pub trait Probe: Send + Sync + 'static {
    fn lives(&self, server: SocketAddr) -> impl Future<Output = bool> + Send;
}

/// Which server is used at first.
#[derive(Clone, Copy, Debug)]
pub enum First {
    /// This machine's.
    Own(SocketAddr),
    /// One that a number picks.
    Any(usize),
}

impl First {
    fn position(self, all: &[SocketAddr]) -> usize {
        match self {
            First::Own(own) => all.iter().position(|one| *one == own).unwrap_or(0),
            First::Any(number) => number % all.len().max(1),
        }
    }
}

/// The server in use. The token ends its connections.
type Chosen = Option<(SocketAddr, CancellationToken)>;

/// Serves `listener` until dropped. `servers` may change at any time.
pub async fn run(
    listener: TcpListener,
    servers: watch::Receiver<Vec<SocketAddr>>,
    first: First,
    probe: impl Probe,
) {
    let (chosen, choice) = watch::channel(None);
    let doubt = Arc::new(Notify::new());
    tokio::join!(choose(servers, &chosen, &doubt, first, &probe), accept(listener, choice, &doubt));
}

/// Keeps a living server chosen.
async fn choose(
    mut servers: watch::Receiver<Vec<SocketAddr>>,
    chosen: &watch::Sender<Chosen>,
    doubt: &Notify,
    first: First,
    probe: &impl Probe,
) {
    loop {
        let all = servers.borrow_and_update().clone();
        let now = chosen.borrow().as_ref().map(|(server, _)| *server);
        let lives = async |server| timeout(ANSWER, probe.lives(server)).await == Ok(true);
        let keep = match now {
            Some(server) => all.contains(&server) && lives(server).await,
            None => false,
        };
        if !keep {
            if let Some((server, connections)) = chosen.send_replace(None) {
                tracing::warn!(%server, "the API server in use does not answer or has left");
                connections.cancel();
            }
            // All are asked at once and heard in their order: those that hang cost one answer's time together.
            let asked = order(&all, now, first).into_iter();
            let mut heard =
                stream::iter(asked.map(async |server| (server, lives(server).await))).buffered(ASKED);
            while let Some((server, lives)) = heard.next().await {
                if lives {
                    tracing::info!(%server, "this API server is used now");
                    chosen.send_replace(Some((server, CancellationToken::new())));
                    break;
                }
            }
        }
        let wait = if chosen.borrow().is_some() { EVERY } else { AGAIN };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = doubt.notified() => {}
            changed = servers.changed() => if changed.is_err() {
                // Nobody tells of servers any more: those that are known stay.
                tokio::time::sleep(wait).await;
            },
        }
    }
}

/// All servers: the first, or those after the one that failed.
fn order(all: &[SocketAddr], failed: Option<SocketAddr>, first: First) -> Vec<SocketAddr> {
    let at = failed.and_then(|failed| all.iter().position(|one| *one == failed));
    let begin = at.map_or_else(|| first.position(all), |at| at + 1);
    let (before, after) = all.split_at(begin.min(all.len()));
    after.iter().chain(before).copied().collect()
}

async fn accept(listener: TcpListener, choice: watch::Receiver<Chosen>, doubt: &Arc<Notify>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                let (choice, doubt) = (choice.clone(), doubt.clone());
                connections.spawn(async move {
                    let _permit = permit;
                    if let Err(error) = relay(client, choice, &doubt).await {
                        tracing::debug!(%error, "a connection to the API server ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(AGAIN).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn relay(mut client: TcpStream, mut choice: watch::Receiver<Chosen>, doubt: &Notify) -> io::Result<()> {
    let found = timeout(PATIENCE, connect(&mut choice, doubt)).await;
    let Ok((mut server, ended)) = found else { return Err(io::ErrorKind::TimedOut.into()) };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::select! {
        copied = tokio::io::copy_bidirectional(&mut client, &mut server) => copied.map(drop),
        () = ended.cancelled() => Ok(()),
    }
}

/// A connection to the chosen server, whichever that is in the end.
async fn connect(choice: &mut watch::Receiver<Chosen>, doubt: &Notify) -> (TcpStream, CancellationToken) {
    loop {
        let chosen = choice.borrow_and_update().clone();
        if let Some((server, ended)) = chosen {
            if let Ok(Ok(stream)) = timeout(ANSWER, TcpStream::connect(server)).await {
                return (stream, ended);
            }
            doubt.notify_one();
        }
        // Changes, or the same server may have been away for a moment.
        let _ = timeout(AGAIN, choice.changed()).await;
    }
}

#[cfg(test)]
#[path = "balancer_tests.rs"]
mod tests;
