//! Who else serves this cluster: each server keeps a record that expires, and the endpoints of the `kubernetes` Service
//! are the servers that have one (as upstream's lease endpoint reconciler, with its times).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keelson_api::status::{Reason, Status};
use keelson_store::{Transaction, Write};

use crate::apiserver::ApiServer;
use crate::bootstrap::{self, Client};
use crate::config::ApiServerConfig;
use crate::core::Core;
use crate::rest::{WriteError, store_status};

/// Below it one record a server, by address.
pub(crate) const PREFIX: &str = "/keelson/masters/";
const EVERY: Duration = Duration::from_secs(10);
const LIFE: Duration = Duration::from_secs(15);

/// This server among the others.
pub struct Masters {
    core: Arc<Core>,
    client: Client,
    address: IpAddr,
    port: u16,
}

impl Masters {
    pub fn new(api: &ApiServer, config: &ApiServerConfig) -> Masters {
        Masters {
            core: api.core().clone(),
            client: Client::new(api.own_service()),
            address: config.advertise,
            port: api.address().port(),
        }
    }

    /// Shows this server, and keeps doing so until it stops; then takes it away.
    pub async fn start(mut self) {
        self.turn().await;
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(EVERY) => self.turn().await,
                    () = self.core.stop.cancelled() => break,
                }
            }
            let gone = Write::Delete { key: self.key() };
            if self.commit(gone).await.is_ok() {
                self.show().await;
            }
        });
    }

    fn key(&self) -> String {
        format!("{PREFIX}{}", self.address)
    }

    async fn turn(&mut self) {
        let value = Bytes::from(self.port.to_string());
        let record = Write::Expiring { key: self.key(), value, ttl: LIFE };
        match self.commit(record).await {
            Ok(()) => self.show().await,
            Err(status) => tracing::warn!(error = %status, "this server's record could not be kept"),
        }
    }

    async fn commit(&self, write: Write) -> Result<(), Status> {
        match self.core.commit(Transaction { guards: Vec::new(), writes: vec![write] }).await {
            // There is no guard to conflict with.
            Ok(_) | Err(WriteError::Conflict { .. }) => Ok(()),
            Err(WriteError::Failed(status)) => Err(status),
        }
    }

    async fn show(&mut self) {
        match self.show_all().await {
            Ok(()) => {}
            // Another server shows the same at the same time.
            Err(status) if status.reason == Reason::Conflict => {}
            Err(status) => tracing::warn!(error = %status, "the endpoints of the kubernetes service"),
        }
    }

    async fn show_all(&mut self) -> Result<(), Status> {
        let page = self.core.store.list(PREFIX, None, 0, None).await.map_err(store_status)?;
        let records = page.entries.iter().filter_map(|entry| {
            let address = entry.key.strip_prefix(PREFIX)?.parse().ok()?;
            Some((address, std::str::from_utf8(&entry.value).ok()?.parse().ok()?))
        });
        match shown(records) {
            Some((port, all)) => bootstrap::endpoints(&mut self.client, &all, port).await,
            // The last to leave leaves its address: as upstream, a Service without endpoints helps nobody.
            None => Ok(()),
        }
    }
}

/// The addresses to show. A slice has one port for all its endpoints: the port that most servers have is shown, of
/// several the lowest, so that all servers show the same.
fn shown(records: impl Iterator<Item = (IpAddr, u16)>) -> Option<(u16, Vec<IpAddr>)> {
    let mut by_port: BTreeMap<u16, Vec<IpAddr>> = BTreeMap::new();
    for (address, port) in records {
        by_port.entry(port).or_default().push(address);
    }
    let (port, mut all) = by_port.into_iter().rev().max_by_key(|(_, all)| all.len())?;
    all.sort();
    Some((port, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_servers_show_the_same() {
        let ip = |n: u8| IpAddr::from([192, 0, 2, n]);
        let check = |records: &[(IpAddr, u16)], expected| {
            assert_eq!(shown(records.iter().copied()), expected, "{records:?}");
        };
        check(&[], None);
        check(&[(ip(2), 6443), (ip(1), 6443)], Some((6443, vec![ip(1), ip(2)])));
        check(&[(ip(1), 7000), (ip(2), 6443)], Some((6443, vec![ip(2)])));
        check(&[(ip(1), 7000), (ip(2), 6443), (ip(3), 7000)], Some((7000, vec![ip(1), ip(3)])));
    }
}
