//! Who belongs to the etcd cluster: for whoever adds a machine to it or takes one out.

use std::time::Duration;

use etcd_client::{Client, GetOptions, MemberAddOptions};

use super::EtcdOptions;
use super::members::connect;

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// A member as etcd lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdMember {
    pub id: u64,
    /// Empty until it has started.
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    /// It follows and does not vote yet.
    pub learner: bool,
}

/// Why the membership could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    #[error("no etcd member answers at {endpoints}")]
    Unreachable { endpoints: String },
    #[error("etcd refuses to {what}: {reason}")]
    Refused { what: &'static str, reason: String },
}

/// The membership of the cluster that the options name.
pub struct EtcdMembership(Client);

impl EtcdMembership {
    /// Connects to the first member that answers.
    pub async fn connect(options: &EtcdOptions) -> Result<EtcdMembership, MembershipError> {
        for endpoint in &options.endpoints {
            let Ok(client) = connect(endpoint, options.tls.as_ref()).await else { continue };
            let asked = tokio::time::timeout(ANSWER, client.cluster_client().member_list()).await;
            if matches!(asked, Ok(Ok(_))) {
                return Ok(EtcdMembership(client));
            }
        }
        Err(MembershipError::Unreachable { endpoints: options.endpoints.join(", ") })
    }

    /// All members.
    pub async fn list(&self) -> Result<Vec<EtcdMember>, MembershipError> {
        let answer = answered("list its members", self.0.cluster_client().member_list()).await?;
        let member = |one: &etcd_client::Member| EtcdMember {
            id: one.id(),
            name: one.name().to_owned(),
            peer_urls: one.peer_urls().to_vec(),
            client_urls: one.client_urls().to_vec(),
            learner: one.is_learner(),
        };
        Ok(answer.members().iter().map(member).collect())
    }

    /// Whether nothing was ever written.
    pub async fn is_empty(&self) -> Result<bool, MembershipError> {
        let options = GetOptions::new().with_all_keys().with_count_only();
        let answer = answered("count its keys", self.0.kv_client().get("", Some(options))).await?;
        Ok(answer.count() == 0)
    }

    /// Whether any key begins so.
    pub async fn holds(&self, prefix: &str) -> Result<bool, MembershipError> {
        let options = GetOptions::new().with_prefix().with_count_only();
        let answer = answered("count its keys", self.0.kv_client().get(prefix, Some(options))).await?;
        Ok(answer.count() > 0)
    }

    /// Adds a member that follows without a vote: one that never starts costs the cluster no majority.
    pub async fn add(&self, peer_url: &str) -> Result<(), MembershipError> {
        let options = MemberAddOptions::new().with_is_learner();
        let mut client = self.0.cluster_client();
        answered("add a member", client.member_add([peer_url.to_owned()], Some(options))).await.map(drop)
    }

    /// Lets a member vote; refused until it has caught up.
    pub async fn promote(&self, id: u64) -> Result<(), MembershipError> {
        answered("let the new member vote", self.0.cluster_client().member_promote(id)).await.map(drop)
    }

    /// Takes a member out.
    pub async fn remove(&self, id: u64) -> Result<(), MembershipError> {
        answered("remove a member", self.0.cluster_client().member_remove(id)).await.map(drop)
    }
}

async fn answered<T>(
    what: &'static str,
    asked: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, MembershipError> {
    let refused = |reason| MembershipError::Refused { what, reason };
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(refused(error.to_string())),
        Err(_) => Err(refused("no answer came in time".to_owned())),
    }
}
