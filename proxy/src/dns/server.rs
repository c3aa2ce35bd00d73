//! UDP and TCP servers on the DNS service's addresses.
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use keelson_daemon::DrainWatcher;
use keelson_sys::rtnl::Rtnl;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::forward::{ForwardError, Forwarder, Resolvers};
use super::zone::{Answer, TTL, Zone};
use crate::index::Index;

/// UDP answers without EDNS are at most this long.
const PLAIN_LIMIT: usize = 512;
/// With EDNS at most this long, whatever the client offers: no fragments.
const EDNS_LIMIT: usize = 1232;
/// Queries that are being relayed at one time.
const RELAYS: usize = 512;
/// TCP connections at one time.
const CONNECTIONS: usize = 256;
/// A TCP client that says nothing for so long is cut off.
const IDLE: Duration = Duration::from_secs(10);
/// Names that stand for names that stand for names.
const ALIASES: usize = 8;

/// What the server needs to know.
#[derive(Debug, Clone)]
pub struct DnsConfig {
    pub zone: Zone,
    pub port: u16,
    pub resolvers: Resolvers,
}

/// Why DNS is not served.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error(
        "cluster DNS cannot listen on {address}: is another DNS server bound to all addresses? Bind it to its own ones"
    )]
    Listen { address: SocketAddr, source: std::io::Error },
}

struct Server {
    zone: Zone,
    index: Arc<Index>,
    forwarder: Forwarder,
    relays: Semaphore,
    local: Mutex<(Option<Instant>, Vec<IpAddr>)>,
}

/// Binds the zone's addresses and serves until the drain. Returns when listening; the tasks go on.
pub async fn serve(config: DnsConfig, index: Arc<Index>, drain: DrainWatcher) -> Result<(), DnsError> {
    let server = Arc::new(Server {
        forwarder: Forwarder::new(config.resolvers, config.zone.dns_ips.clone()),
        index,
        relays: Semaphore::new(RELAYS),
        local: Mutex::new((None, Vec::new())),
        zone: config.zone,
    });
    for ip in server.zone.dns_ips.clone() {
        let address = SocketAddr::new(ip, config.port);
        let failed = |source| DnsError::Listen { address, source };
        let udp = UdpSocket::bind(address).await.map_err(failed)?;
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let task = (server.clone(), drain.clone());
        tokio::spawn(async move { task.1.until(task.0.udp(Arc::new(udp))).await });
        let task = (server.clone(), drain.clone());
        tokio::spawn(async move { task.1.until(task.0.tcp(tcp)).await });
    }
    Ok(())
}

/// A question on its way: answered from the zone, or to be relayed.
enum Outcome {
    Ready(Message),
    Relay,
    Chase { response: Message, target: Name },
}

impl Server {
    async fn udp(self: Arc<Server>, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0u8; 4096];
        loop {
            let (n, peer) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                // An ICMP error of an earlier answer; the socket is as good as before.
                Err(error) => {
                    tracing::debug!(%error, "DNS receive failed");
                    continue;
                }
            };
            if !self.knows(peer.ip()) {
                continue;
            }
            let Some((request, limit)) = parse(&buffer[..n]) else { continue };
            match self.decide(&request) {
                Outcome::Ready(response) => {
                    if let Some(bytes) = fit(response, limit) {
                        socket.send_to(&bytes, peer).await.ok();
                    }
                }
                outcome => {
                    let (server, socket, query) = (self.clone(), socket.clone(), buffer[..n].to_vec());
                    tokio::spawn(async move {
                        let bytes = server.finish(outcome, &request, &query, false).await;
                        if let Some(bytes) = bytes.and_then(|b| shorten(b, limit)) {
                            socket.send_to(&bytes, peer).await.ok();
                        }
                    });
                }
            }
        }
    }

    async fn tcp(self: Arc<Server>, listener: TcpListener) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) if self.knows(peer.ip()) => {
                    let server = self.clone();
                    tokio::spawn(async move {
                        let _slot = slot;
                        server.connection(stream).await.ok();
                    });
                }
                Ok(_) => {}
                Err(error) => {
                    // Out of descriptors, mostly: give others time to close.
                    tracing::warn!(%error, "DNS accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let len = usize::from(timeout(IDLE, stream.read_u16()).await??);
            let mut query = vec![0u8; len];
            timeout(IDLE, stream.read_exact(&mut query)).await??;
            let Some((request, _)) = parse(&query) else { return Ok(()) };
            let bytes = match self.decide(&request) {
                Outcome::Ready(response) => fit(response, usize::from(u16::MAX)),
                outcome => self.finish(outcome, &request, &query, true).await,
            };
            let Some(bytes) = bytes else { return Ok(()) };
            let len = u16::try_from(bytes.len()).map_err(|_| std::io::ErrorKind::InvalidData)?;
            let mut framed = len.to_be_bytes().to_vec();
            framed.extend_from_slice(&bytes);
            timeout(IDLE, stream.write_all(&framed)).await??;
        }
    }

    /// Pods and the node itself; packet rules say the same, and this holds while they are not in force yet.
    fn knows(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        if peer.is_loopback() || self.zone.pod_cidrs.iter().any(|c| c.contains(peer)) {
            return true;
        }
        let mut local = self.local.lock();
        if local.1.contains(&peer) {
            return true;
        }
        // The node's addresses change rarely: read them anew for an unknown one, at most once a second.
        if local.0.is_some_and(|at| at.elapsed() < Duration::from_secs(1)) {
            return false;
        }
        let read = Rtnl::open().and_then(|mut r| r.addresses());
        local.0 = Some(Instant::now());
        local.1 = read.unwrap_or_default().into_iter().map(|a| a.ip).collect();
        local.1.contains(&peer)
    }

    fn decide(&self, request: &Message) -> Outcome {
        let mut response = skeleton(request);
        let [query] = request.queries.as_slice() else {
            response.metadata.response_code = ResponseCode::FormErr;
            return Outcome::Ready(response);
        };
        if request.metadata.op_code != OpCode::Query {
            response.metadata.response_code = ResponseCode::NotImp;
            return Outcome::Ready(response);
        }
        if request.edns.as_ref().is_some_and(|e| e.version() > 0) {
            response.metadata.response_code = ResponseCode::BADVERS;
            return Outcome::Ready(response);
        }
        if query.query_class() != DNSClass::IN {
            response.metadata.response_code = ResponseCode::Refused;
            return Outcome::Ready(response);
        }
        if matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR) {
            response.metadata.response_code = ResponseCode::Refused;
            return Outcome::Ready(response);
        }
        let mut name = query.name().clone();
        for _ in 0..ALIASES {
            match self.zone.answer(&self.index, &name, query.query_type()) {
                Answer::Elsewhere if response.answers.is_empty() => return Outcome::Relay,
                Answer::Elsewhere => return Outcome::Chase { response, target: name },
                Answer::Alias(target) => {
                    let data = RData::CNAME(CNAME(target.clone()));
                    response.add_answer(Record::from_rdata(name, TTL, data));
                    response.metadata.authoritative = true;
                    name = target;
                }
                answer => return Outcome::Ready(self.settled(response, answer)),
            }
        }
        response.metadata.response_code = ResponseCode::ServFail;
        Outcome::Ready(response)
    }

    fn settled(&self, mut response: Message, answer: Answer) -> Message {
        response.metadata.authoritative = true;
        match answer {
            Answer::Found(mut records) => {
                // Clients take the first: spread them.
                if records.len() > 1 {
                    let start = rand::random::<u32>() as usize % records.len();
                    records.rotate_left(start);
                }
                response.add_answers(records);
            }
            Answer::NoName => {
                response.metadata.response_code = ResponseCode::NXDomain;
                response.add_authority(self.zone.soa());
            }
            _ => {
                response.add_authority(self.zone.soa());
            }
        }
        response
    }

    /// Asks others. None when nothing can be said.
    async fn finish(&self, outcome: Outcome, request: &Message, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let Ok(_slot) = self.relays.try_acquire() else {
            return failure(request, ResponseCode::ServFail);
        };
        match outcome {
            Outcome::Ready(response) => fit(response, usize::from(u16::MAX)),
            Outcome::Relay => match self.forwarder.relay(query, tcp).await {
                Ok(answer) => Some(answer),
                Err(error) => {
                    tracing::debug!(%error, "name outside the cluster not resolved");
                    failure(request, code_of(&error))
                }
            },
            Outcome::Chase { mut response, target } => {
                let kind = request.queries.first().map_or(RecordType::A, Query::query_type);
                match self.chase(&target, kind).await {
                    Ok(records) => {
                        response.add_answers(records);
                    }
                    Err(error) => {
                        tracing::debug!(%error, %target, "external name not resolved");
                        response.metadata.response_code = code_of(&error);
                    }
                }
                fit(response, usize::from(u16::MAX))
            }
        }
    }

    async fn chase(&self, target: &Name, kind: RecordType) -> Result<Vec<Record>, ForwardError> {
        let mut message = Message::new(0, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(target.clone(), kind));
        let Ok(bytes) = message.to_vec() else { return Ok(Vec::new()) };
        let mut answer = self.forwarder.relay(&bytes, false).await?;
        if answer.get(2).is_some_and(|flags| flags & 2 != 0) {
            answer = self.forwarder.relay(&bytes, true).await?;
        }
        Ok(Message::from_vec(&answer).map(|m| m.answers).unwrap_or_default())
    }
}

fn code_of(error: &ForwardError) -> ResponseCode {
    match error {
        // Not a failure that goes away: nobody configured a resolver.
        ForwardError::NoResolver => ResponseCode::Refused,
        _ => ResponseCode::ServFail,
    }
}

/// A query and the length that its client takes over UDP. None for what is no query.
fn parse(bytes: &[u8]) -> Option<(Message, usize)> {
    let request = match Message::from_vec(bytes) {
        Ok(request) => request,
        Err(_) => {
            // An id and a header are enough to say that the rest is malformed.
            let header = bytes.first_chunk::<12>()?;
            let mut request =
                Message::new(u16::from_be_bytes([header[0], header[1]]), MessageType::Query, OpCode::Query);
            if header[2] & 0x80 != 0 {
                return None;
            }
            request.metadata.recursion_desired = header[2] & 1 != 0;
            request
        }
    };
    if request.metadata.message_type != MessageType::Query {
        return None;
    }
    let limit = request
        .edns
        .as_ref()
        .map_or(PLAIN_LIMIT, |e| usize::from(e.max_payload()).clamp(PLAIN_LIMIT, EDNS_LIMIT));
    Some((request, limit))
}

fn skeleton(request: &Message) -> Message {
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.checking_disabled = request.metadata.checking_disabled;
    response.metadata.recursion_available = true;
    response.add_queries(request.queries.iter().cloned());
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(EDNS_LIMIT as u16);
        response.set_edns(edns);
    }
    response
}

fn failure(request: &Message, code: ResponseCode) -> Option<Vec<u8>> {
    let mut response = skeleton(request);
    response.metadata.response_code = code;
    fit(response, usize::from(u16::MAX))
}

/// Encodes a response; what does not fit is left out and the response marked as truncated.
fn fit(mut response: Message, limit: usize) -> Option<Vec<u8>> {
    loop {
        let bytes = response.to_vec().ok()?;
        if bytes.len() <= limit {
            return Some(bytes);
        }
        response.metadata.truncation = true;
        if response.answers.is_empty() {
            if response.authorities.is_empty() {
                return None;
            }
            response.authorities.clear();
        }
        let keep =
            (response.answers.len() * limit / bytes.len()).min(response.answers.len().saturating_sub(1));
        response.answers.truncate(keep);
    }
}

/// A relayed answer that is longer than the client takes.
fn shorten(bytes: Vec<u8>, limit: usize) -> Option<Vec<u8>> {
    if bytes.len() <= limit {
        return Some(bytes);
    }
    fit(Message::from_vec(&bytes).ok()?, limit)
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
