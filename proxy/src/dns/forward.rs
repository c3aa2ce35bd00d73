//! Names outside the cluster: relayed to the node's resolvers, as they came.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

/// One resolver is given this long.
const PATIENCE: Duration = Duration::from_secs(2);
/// At most this many resolvers are tried, as stub resolvers do.
const RESOLVERS: usize = 3;
/// The resolver file is looked at again after this long.
const RECHECK: Duration = Duration::from_secs(5);

/// Why a name could not be relayed.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("the node has no resolver for names outside the cluster")]
    NoResolver,
    #[error("resolver {0} did not answer")]
    Silent(SocketAddr),
    #[error("ask resolver {resolver}")]
    Socket { resolver: SocketAddr, source: std::io::Error },
    #[error("resolver {0} answered something else")]
    Mismatch(SocketAddr),
}

/// Where resolvers come from.
#[derive(Debug, Clone)]
pub enum Resolvers {
    Fixed(Vec<SocketAddr>),
    /// A file in resolv.conf's format, read again when it changes.
    File(PathBuf),
}

#[derive(Default)]
struct Cached {
    servers: Vec<SocketAddr>,
    modified: Option<SystemTime>,
    looked: Option<Instant>,
}

/// Relays queries.
pub struct Forwarder {
    resolvers: Resolvers,
    /// Never asked: ourselves.
    own: Vec<IpAddr>,
    cached: Mutex<Cached>,
}

impl Forwarder {
    pub fn new(resolvers: Resolvers, own: Vec<IpAddr>) -> Forwarder {
        Forwarder { resolvers, own, cached: Mutex::default() }
    }

    /// The resolvers in order, without ourselves.
    fn servers(&self) -> Vec<SocketAddr> {
        let mine = |s: &SocketAddr| !self.own.contains(&s.ip());
        let path = match &self.resolvers {
            Resolvers::Fixed(servers) => {
                return servers.iter().copied().filter(mine).take(RESOLVERS).collect();
            }
            Resolvers::File(path) => path,
        };
        let mut cached = self.cached.lock();
        if cached.looked.is_some_and(|at| at.elapsed() < RECHECK) {
            return cached.servers.clone();
        }
        let modified = std::fs::metadata(path).and_then(|m| m.modified()).ok();
        if cached.looked.is_none() || modified != cached.modified {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            cached.servers = nameservers(&text).into_iter().filter(mine).take(RESOLVERS).collect();
            cached.modified = modified;
        }
        cached.looked = Some(Instant::now());
        cached.servers.clone()
    }

    /// Relays a query (the whole message) and returns the answer with the query's own id.
    pub async fn relay(&self, query: &[u8], tcp: bool) -> Result<Vec<u8>, ForwardError> {
        let mut last = ForwardError::NoResolver;
        for server in self.servers() {
            let asked = if tcp { ask_tcp(server, query).await } else { ask_udp(server, query).await };
            match asked {
                Ok(answer) => return Ok(answer),
                Err(e) => last = e,
            }
        }
        Err(last)
    }
}

/// The `nameserver` lines of a resolv.conf.
pub fn nameservers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            if words.next() != Some("nameserver") {
                return None;
            }
            // A scope (fe80::1%eth0) is not spoken.
            let ip: IpAddr = words.next()?.parse().ok()?;
            Some(SocketAddr::new(ip, 53))
        })
        .collect()
}

/// The same question, with an id that an outsider cannot guess.
fn renumbered(query: &[u8]) -> Vec<u8> {
    let mut copy = query.to_vec();
    if let Some(id) = copy.first_chunk_mut::<2>() {
        *id = rand::random::<u16>().to_be_bytes();
    }
    copy
}

/// Whether the answer is one to the question: id, response bit, and the question's bytes.
fn answers(sent: &[u8], got: &[u8]) -> bool {
    let Some(end) = question_end(sent) else { return false };
    got.len() >= end
        && got[..2] == sent[..2]
        && got[2] & 0x80 != 0
        && got[4..6] == sent[4..6]
        && got[12..end].eq_ignore_ascii_case(&sent[12..end])
}

/// The end of the only question's bytes.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        let len = usize::from(*message.get(at)?);
        if len > 63 {
            return None;
        }
        at += 1 + len;
        if len == 0 {
            return (at + 4 <= message.len()).then_some(at + 4);
        }
    }
}

fn restore(query: &[u8], mut answer: Vec<u8>) -> Vec<u8> {
    answer[..2].copy_from_slice(&query[..2]);
    answer
}

async fn ask_udp(server: SocketAddr, query: &[u8]) -> Result<Vec<u8>, ForwardError> {
    let failed = |source| ForwardError::Socket { resolver: server, source };
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await.map_err(failed)?;
    socket.connect(server).await.map_err(failed)?;
    let sent = renumbered(query);
    socket.send(&sent).await.map_err(failed)?;
    let mut buffer = vec![0u8; 4096];
    let receive = async {
        loop {
            let n = socket.recv(&mut buffer).await.map_err(failed)?;
            // A forged or late answer is not the end: the right one may follow.
            if answers(&sent, &buffer[..n]) {
                return Ok(n);
            }
        }
    };
    let n = timeout(PATIENCE, receive).await.map_err(|_| ForwardError::Silent(server))??;
    buffer.truncate(n);
    Ok(restore(query, buffer))
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> Result<Vec<u8>, ForwardError> {
    let failed = |source| ForwardError::Socket { resolver: server, source };
    let sent = renumbered(query);
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        let len = u16::try_from(sent.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        stream.write_all(&len.to_be_bytes()).await?;
        stream.write_all(&sent).await?;
        let len = usize::from(stream.read_u16().await?);
        let mut answer = vec![0u8; len];
        stream.read_exact(&mut answer).await?;
        Ok::<Vec<u8>, std::io::Error>(answer)
    };
    let answer =
        timeout(PATIENCE, exchange).await.map_err(|_| ForwardError::Silent(server))?.map_err(failed)?;
    if !answers(&sent, &answer) {
        return Err(ForwardError::Mismatch(server));
    }
    Ok(restore(query, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolver_files() {
        let text = "# by hand\nsearch example.com\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\n nameserver ::1 x\noptions ndots:5\n";
        let found: Vec<String> = nameservers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.53:53", "[::1]:53"]);
    }

    #[test]
    fn never_ourselves() {
        let servers = ["10.96.0.10:53", "192.0.2.1:53"].map(|s| s.parse().expect("address"));
        let own = vec!["10.96.0.10".parse().expect("ip")];
        let forwarder = Forwarder::new(Resolvers::Fixed(servers.to_vec()), own);
        assert_eq!(forwarder.servers(), [servers[1]]);
    }

    #[test]
    fn only_answers_to_the_question_count() {
        let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x02bc\0\0\x01\0\x01";
        let mut answer = query.to_vec();
        answer[2] |= 0x80;
        assert!(answers(query, &answer));
        assert!(!answers(query, query), "a question is no answer");
        let mut other = answer.clone();
        other[13] = b'x';
        assert!(!answers(query, &other));
        other = answer.clone();
        other[0] = 0;
        assert!(!answers(query, &other));
        assert!(!answers(query, &answer[..14]));
        assert!(!answers(b"short", &answer));
    }
}
