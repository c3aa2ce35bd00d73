//! The members of the cluster: which one is asked, and what its errors mean.
//!
//! A request goes to the member that answered last; one that does not answer hands over to the next. Each member has two
//! connections, so that a long watch or list never stands before a commit.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, KvClient, TlsOptions, WatchClient};
use tokio::time::Instant;
use tonic::Code;

use super::{EtcdOptions, EtcdTls};
use crate::StoreError;

/// One attempt of one request at one member.
const ATTEMPT: Duration = Duration::from_secs(5);
/// All attempts of one read.
const READ_BUDGET: Duration = Duration::from_secs(12);
const CONNECT: Duration = Duration::from_secs(3);
/// As upstream's etcd client: a ping after so long without an answer, and how long it may take.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Pages are bounded by their own size; a transaction of the largest values may be larger than gRPC's 4 MiB.
const LARGEST_MESSAGE: usize = 1 << 30;

/// What a failed request means.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing was done; another member, or a later attempt, may do it.
    NotDone(String),
    /// It was sent, and nothing is known of its end.
    InDoubt(String),
    /// `etcdserver: mvcc: required revision has been compacted`
    Compacted,
    /// `etcdserver: mvcc: required revision is a future revision`
    Future,
    /// `etcdserver: requested lease not found`
    NoLease,
    /// Refused for good.
    Final(StoreError),
}

impl Failure {
    pub fn of(error: Error) -> Failure {
        match error {
            Error::GRpcStatus(status) => Failure::of_status(&status),
            Error::TransportError(error) => Failure::NotDone(chain(&error)),
            Error::InvalidArgs(text) => Failure::Final(StoreError::Refused(text)),
            other => Failure::InDoubt(other.to_string()),
        }
    }

    fn of_status(status: &tonic::Status) -> Failure {
        let text = status.message().strip_prefix("etcdserver: ").unwrap_or(status.message()).to_owned();
        match (status.code(), text.as_str()) {
            (Code::OutOfRange, "mvcc: required revision has been compacted") => Failure::Compacted,
            (Code::OutOfRange, "mvcc: required revision is a future revision") => Failure::Future,
            (Code::NotFound, "requested lease not found") => Failure::NoLease,
            (Code::ResourceExhausted, "mvcc: database space exceeded") => Failure::Final(StoreError::Full),
            // Not taken into the log.
            (Code::ResourceExhausted | Code::Unavailable, "too many requests" | "no leader") => {
                Failure::NotDone(text)
            }
            (Code::InvalidArgument, _) if text.contains("auth token") || text.contains("user name") => {
                Failure::denied(&text)
            }
            (Code::InvalidArgument | Code::ResourceExhausted, _) => Failure::Final(StoreError::Refused(text)),
            (Code::PermissionDenied | Code::Unauthenticated | Code::FailedPrecondition, _) => {
                Failure::denied(&text)
            }
            (Code::DataLoss, _) => Failure::Final(StoreError::Database(text)),
            _ if never_sent(status) => Failure::NotDone(chain(status)),
            _ => Failure::InDoubt(if text.is_empty() { chain(status) } else { text }),
        }
    }

    fn denied(text: &str) -> Failure {
        Failure::Final(StoreError::Database(format!(
            "etcd refuses the client's certificate or its user ({text}): it needs a role that may read and write all \
             keys"
        )))
    }

    /// As the end of a read: whether it was done does not matter.
    fn of_read(self) -> Result<String, Failure> {
        match self {
            Failure::NotDone(why) | Failure::InDoubt(why) => Ok(why),
            other => Err(other),
        }
    }
}

/// Whether a connection was never made for the request.
fn never_sent(status: &tonic::Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if parts.last() != Some(&text) {
            parts.push(text);
        }
        source = error.source();
    }
    parts.join(": ")
}

/// One member's connections; what begins after the identity changed uses those of the new one.
pub(super) struct Member {
    pub endpoint: String,
    main: ArcSwap<Client>,
    streams: ArcSwap<Client>,
}

impl Member {
    async fn new(endpoint: &str, tls: Option<&EtcdTls>) -> Result<Member, Failure> {
        Ok(Member {
            endpoint: endpoint.to_owned(),
            main: ArcSwap::from_pointee(connect(endpoint, tls).await?),
            streams: ArcSwap::from_pointee(connect(endpoint, tls).await?),
        })
    }

    async fn renew(&self, tls: Option<&EtcdTls>) -> Result<(), Failure> {
        let renewed = Member::new(&self.endpoint, tls).await?;
        self.main.store(renewed.main.into_inner());
        self.streams.store(renewed.streams.into_inner());
        Ok(())
    }

    pub fn client(&self) -> Client {
        Client::clone(&self.main.load())
    }

    pub fn kv(&self) -> KvClient {
        self.main.load().kv_client().max_decoding_message_size(LARGEST_MESSAGE)
    }

    /// For lists: on the streams' connection.
    pub fn pages(&self) -> KvClient {
        self.streams.load().kv_client().max_decoding_message_size(LARGEST_MESSAGE)
    }

    pub fn watch(&self) -> WatchClient {
        self.streams.load().watch_client().max_decoding_message_size(LARGEST_MESSAGE)
    }
}

/// Makes a client of one member; nothing is sent before the first request.
pub(super) async fn connect(endpoint: &str, tls: Option<&EtcdTls>) -> Result<Client, Failure> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(CONNECT)
        .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
        .with_require_leader(true);
    if let Some(tls) = tls {
        let mut settings = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca));
        if let Some((certificate, key)) = &tls.identity {
            settings = settings.identity(Identity::from_pem(certificate, key));
        }
        options = options.with_tls(settings);
    }
    Client::connect([endpoint], Some(options)).await.map_err(Failure::of)
}

/// All members, and the one in use.
pub(super) struct Members {
    all: Vec<Member>,
    current: AtomicUsize,
    /// The cluster's id; 0 until the first answer.
    cluster: AtomicU64,
}

impl Members {
    pub async fn new(options: &EtcdOptions) -> Result<Members, Failure> {
        let mut all = Vec::with_capacity(options.endpoints.len());
        for endpoint in &options.endpoints {
            all.push(Member::new(endpoint, options.tls.as_ref()).await?);
        }
        Ok(Members { all, current: AtomicUsize::new(0), cluster: AtomicU64::new(0) })
    }

    /// Takes another identity for connections to come; those that are open are not touched.
    pub async fn renew(&self, tls: Option<&EtcdTls>) -> Result<(), Failure> {
        for member in &self.all {
            member.renew(tls).await?;
        }
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn all(&self) -> &[Member] {
        &self.all
    }

    /// The member to ask, with its number for [`Members::leave`].
    pub fn pick(&self) -> (usize, &Member) {
        let index = self.current.load(Ordering::Relaxed) % self.all.len();
        (index, &self.all[index])
    }

    /// The member did not answer: the next one is asked from now on, unless somebody has moved on already.
    pub fn leave(&self, index: usize, why: &str) {
        let next = (index + 1) % self.all.len();
        let moved = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if moved && self.all.len() > 1 {
            let (from, to) = (&self.all[index].endpoint, &self.all[next].endpoint);
            tracing::warn!(%from, %to, why, "an etcd member does not answer; asking the next");
        }
    }

    /// Holds every answer against the cluster that was met first: an endpoint of another cluster must not be believed.
    pub fn check_cluster(&self, id: u64) -> Result<(), Failure> {
        match self.cluster.compare_exchange(0, id, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            Err(known) if known == id => Ok(()),
            Err(known) => Err(Failure::Final(StoreError::Database(format!(
                "an etcd endpoint answers for cluster {id:x}, the others for {known:x}: the endpoints must be members \
                 of one cluster"
            )))),
        }
    }

    /// Reads, from one member after the other until one answers.
    pub async fn read<'m, T, F>(&'m self, ask: impl Fn(&'m Member) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let until = Instant::now() + READ_BUDGET;
        let mut pause = Pause::new(self.len());
        loop {
            let (index, member) = self.pick();
            let why = match tokio::time::timeout(ATTEMPT, ask(member)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => Failure::of(error).of_read()?,
                Err(_) => format!("{} did not answer in time", member.endpoint),
            };
            self.leave(index, &why);
            if Instant::now() >= until {
                return Err(Failure::NotDone(why));
            }
            pause.rest().await;
        }
    }

    /// One attempt of what must not be done twice.
    pub async fn once<'m, T, F>(&'m self, ask: impl FnOnce(&'m Member) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (index, member) = self.pick();
        let failure = match tokio::time::timeout(ATTEMPT, ask(member)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => Failure::of(error),
            Err(_) => Failure::InDoubt(format!("{} did not answer in time", member.endpoint)),
        };
        if let Failure::NotDone(why) | Failure::InDoubt(why) = &failure {
            self.leave(index, why);
        }
        Err(failure)
    }
}

/// The rest between rounds over all members: none within a round, then longer and longer.
pub(super) struct Pause {
    members: usize,
    tried: usize,
}

impl Pause {
    pub fn new(members: usize) -> Pause {
        Pause { members, tried: 0 }
    }

    pub async fn rest(&mut self) {
        self.tried += 1;
        if self.tried.is_multiple_of(self.members) {
            let rounds = (self.tried / self.members).min(4) as u32;
            tokio::time::sleep(Duration::from_millis(25 << rounds)).await;
        }
    }
}
