//! The store on etcd, 3.4 and later: several API servers, several machines.
//!
//! Keys and values are those of the other back ends; revisions are etcd's plus a persistent base, so that a migration
//! or a restore never takes them back. One watch over all keys feeds this process ([`watch`]); a read that must be
//! consistent asks the cluster for its newest revision and waits until that watch has brought it ([`read`]).
//!
//! What always holds: an event is told once, in order, whichever member sent it; a commit whose end is unknown is never
//! reported as failed ([`commit`]); answers of another cluster than the first are not believed. It does not know how the
//! cluster is run: members, quotas and defragmentation are its administrator's.

mod commit;
mod compact;
mod convert;
mod lease;
mod members;
mod membership;
mod read;
mod record;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

pub use self::membership::{EtcdMember, EtcdMembership, MembershipError};

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use tokio::sync::{Notify, watch as told};
use tokio_util::sync::CancellationToken;

use self::convert::Base;
use self::members::Members;
use self::record::Record;
use crate::hub::Hub;
use crate::{CommitError, Committed, Entry, Page, Revision, Store, StoreError, Transaction, Watch, hub};

/// The client's side of TLS, PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// Whom the members' certificates are checked against.
    pub ca: Vec<u8>,
    /// Our certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for EtcdTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdTls").field("identity", &self.identity.is_some()).finish_non_exhaustive()
    }
}

/// How the cluster is reached.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// Client addresses of members, `https://host:2379`; those of all members, so that one may be away.
    pub endpoints: Vec<String>,
    pub tls: Option<EtcdTls>,
    /// How long history is kept; `None` where somebody else compacts (etcd's `--auto-compaction-mode`).
    pub compact_every: Option<Duration>,
    /// No revision up to this one is handed out (again): set after a restore or a migration. Raising it makes all
    /// earlier revisions compacted. No other process may have the store open then.
    pub min_revision: Revision,
}

impl EtcdOptions {
    /// Five minutes of history.
    pub fn new(endpoints: Vec<String>, tls: Option<EtcdTls>) -> EtcdOptions {
        EtcdOptions { endpoints, tls, compact_every: Some(Duration::from_secs(300)), min_revision: 0 }
    }
}

/// Why the store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the etcd endpoints or certificates cannot be used: {0}")]
    Options(String),
    #[error("no etcd member answers ({})", reasons.join("; "))]
    Unreachable { reasons: Vec<String> },
    #[error("the etcd member {endpoint} is of version {version}; 3.4 or later is needed")]
    Version { endpoint: String, version: String },
    #[error(
        "the store in etcd has format {found}, this version of keelson knows format {known}: run the version that wrote \
         it, or restore a snapshot taken for this one"
    )]
    Format { found: u32, known: u32 },
    #[error(
        "etcd holds keys that keelson did not write; give keelson a cluster of its own, or remove what is below \"/\""
    )]
    NotOurs,
    #[error(transparent)]
    Store(StoreError),
}

/// What the store, its streams and its tasks share.
struct Shared {
    members: Members,
    base: Base,
    /// The oldest of etcd's revisions that is told to the world.
    floor: i64,
    record: Record,
    hub: Arc<Hub>,
    /// What the hub has published, for those who wait.
    told: told::Sender<Revision>,
    /// The watch is too late: begin it anew elsewhere.
    stalled: Notify,
    rounds: read::Rounds,
    leases: lease::Leases,
    closed: OnceLock<String>,
    stop: CancellationToken,
    runtime: tokio::runtime::Handle,
}

impl Shared {
    fn check_open(&self) -> Result<(), StoreError> {
        match self.closed.get() {
            Some(reason) => Err(StoreError::Closed(reason.clone())),
            None => Ok(()),
        }
    }

    fn close(&self, reason: &str) {
        if self.closed.set(reason.to_owned()).is_ok() {
            self.hub.close(StoreError::Closed(reason.to_owned()));
            self.stop.cancel();
        }
    }
}

/// See the module.
pub struct EtcdStore {
    shared: Arc<Shared>,
}

impl EtcdStore {
    /// Connects, checks what the cluster is and holds, and begins to follow it. In a runtime, whose threads serve it.
    pub async fn open(options: EtcdOptions) -> Result<EtcdStore, OpenError> {
        if options.endpoints.is_empty() {
            return Err(OpenError::Options("no endpoint is named".to_owned()));
        }
        let members = Members::new(&options)
            .await
            .map_err(|failure| OpenError::Options(read::unread(failure).to_string()))?;
        check_members(&members).await?;
        let found = record::prepare(&members, &options).await?;
        let base = Base(found.record.base);
        let newest = base.out(found.revision);
        let shared = Arc::new(Shared {
            members,
            base,
            floor: found.record.floor,
            record: found.record,
            hub: Hub::new(newest),
            told: told::channel(newest).0,
            stalled: Notify::new(),
            rounds: read::Rounds::default(),
            leases: lease::Leases::default(),
            closed: OnceLock::new(),
            stop: CancellationToken::new(),
            runtime: tokio::runtime::Handle::current(),
        });
        tokio::spawn(watch::run(shared.clone(), found.revision));
        if let Some(interval) = options.compact_every {
            tokio::spawn(compact::run(shared.clone(), interval));
        }
        Ok(EtcdStore { shared })
    }

    /// Takes renewed certificates for the connections that are made from now on; those that are open stay.
    pub async fn renew(&self, tls: &EtcdTls) -> Result<(), OpenError> {
        let renewed = self.shared.members.renew(Some(tls)).await;
        renewed.map_err(|failure| OpenError::Options(read::unread(failure).to_string()))
    }
}

/// Asks every member what it is: one must answer, and all that do must be of one cluster and new enough. A cluster that
/// is just electing its leader is given some time.
async fn check_members(members: &Members) -> Result<(), OpenError> {
    const PATIENCE: Duration = Duration::from_secs(15);
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        match ask_members(members).await {
            Err(OpenError::Unreachable { .. }) if tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            answer => return answer,
        }
    }
}

async fn ask_members(members: &Members) -> Result<(), OpenError> {
    const LIMIT: Duration = Duration::from_secs(5);
    let asked = members.all().iter().map(|member| async move {
        let mut client = member.client().maintenance_client();
        match tokio::time::timeout(LIMIT, client.status()).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) => Err(read::unread(members::Failure::of(error)).to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    });
    let answers = futures::future::join_all(asked).await;
    let mut reasons = Vec::new();
    for (member, answer) in members.all().iter().zip(answers) {
        let endpoint = &member.endpoint;
        match answer {
            Ok(status) => {
                let cluster = status.header().map_or(0, etcd_client::ResponseHeader::cluster_id);
                members.check_cluster(cluster).map_err(|failure| OpenError::Store(read::unread(failure)))?;
                if !is_supported(status.version()) {
                    let version = status.version().to_owned();
                    return Err(OpenError::Version { endpoint: endpoint.clone(), version });
                }
            }
            Err(reason) => reasons.push(format!("{endpoint}: {reason}")),
        }
    }
    if reasons.len() == members.len() {
        return Err(OpenError::Unreachable { reasons });
    }
    Ok(())
}

/// How long a member may take to say how large it is.
const SIZE: Duration = Duration::from_secs(2);

fn is_supported(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (3, 4)
}

impl Store for EtcdStore {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<Entry>, Revision), StoreError>> {
        let key = key.to_owned();
        async move { self.shared.get_entry(&key).await }.boxed()
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        async move { self.shared.list_keys(&prefix, after.as_deref(), limit, at).await }.boxed()
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Committed, CommitError>> {
        let shared = self.shared.clone();
        // To its end, even when nobody waits any more: what is in doubt is then at least settled here.
        let commit = self.shared.runtime.spawn(async move { shared.commit(transaction).await });
        async move {
            let ended = || StoreError::Closed("its runtime has ended".to_owned());
            commit.await.unwrap_or_else(|_| Err(ended().into()))
        }
        .boxed()
    }

    fn watch(&self, prefix: &str, after: Revision) -> BoxFuture<'_, Result<Watch, StoreError>> {
        let (prefix, shared) = (prefix.to_owned(), self.shared.clone());
        async move {
            let past = Arc::new(watch::Past(shared.clone()));
            let reach = Arc::new(read::Reacher(shared.clone()));
            hub::watch(shared.hub.clone(), past, Some(reach), &prefix, after).await
        }
        .boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        async move {
            self.shared.check_open()?;
            Ok(self.shared.base.out(self.shared.newest().await?))
        }
        .boxed()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        async move { self.shared.compact(revision).await }.boxed()
    }

    fn size(&self) -> BoxFuture<'_, Result<Option<u64>, StoreError>> {
        async move {
            self.shared.check_open()?;
            let mut client = self.shared.members.pick().1.client().maintenance_client();
            let status = tokio::time::timeout(SIZE, client.status()).await;
            let status = status.map_err(|_| StoreError::Unavailable("no answer in time".to_owned()))?;
            let status = status.map_err(|error| read::unread(members::Failure::of(error)))?;
            Ok(u64::try_from(status.db_size()).ok())
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.shared.close("it was shut down");
        std::future::ready(Ok(())).boxed()
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.shared.close("it was shut down");
    }
}
