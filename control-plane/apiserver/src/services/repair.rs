//! The repair loop: frees addresses and node ports whose Service is gone (a crash between two writes).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use keelson_api::json::{self, FieldValidation};
use keelson_api::status::Status;
use keelson_api::t;
use keelson_store::{Expect, Transaction, Write};

use super::{NODE_PORTS_KEY, Ports, free_address, held, read_ports};
use crate::core::Core;
use crate::keys;
use crate::rest::{WriteError, store_status};

/// How often it looks; idle must be idle.
const EVERY: Duration = Duration::from_secs(600);
/// An address may be claimed for a Service that is about to be written, by another server too: only what two looks see
/// as orphaned is freed. Longer than any request and any commit under it takes.
const GRACE: Duration = Duration::from_secs(90);

/// Runs until the server stops.
pub async fn run(core: Arc<Core>) {
    loop {
        core.documents.sweep();
        if let Err(status) = once(&core).await {
            tracing::warn!(error = %status, "repairing service addresses");
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = core.stop.cancelled() => return,
        }
    }
}

/// One look: frees what is orphaned now and was a moment ago.
pub async fn once(core: &Arc<Core>) -> Result<(), Status> {
    let before = orphans(core).await?;
    if before.addresses.is_empty() && before.ports.is_empty() {
        return Ok(());
    }
    tokio::select! {
        () = tokio::time::sleep(GRACE) => {}
        () = core.stop.cancelled() => return Ok(()),
    }
    let now = orphans(core).await?;
    for (address, revision) in &now.addresses {
        if before.addresses.get(address) == Some(revision) {
            tracing::info!(%address, "freeing a service address whose service is gone");
            free_address(core, *address, *revision).await;
        }
    }
    let gone: BTreeSet<u16> = now.ports.intersection(&before.ports).copied().collect();
    if gone.is_empty() {
        return Ok(());
    }
    // As it was read before the Services: a port that was given since is not taken away.
    let (mut record, expect) = now.record;
    gone.iter().for_each(|port| drop(record.remove(port)));
    let value = serde_json::to_vec(&record).map_err(Status::internal)?.into();
    let transaction = Transaction {
        guards: vec![(NODE_PORTS_KEY.to_owned(), expect)],
        writes: vec![Write::Put { key: NODE_PORTS_KEY.to_owned(), value }],
    };
    match core.commit(transaction).await {
        // Lost to a Service's write: the next look does it.
        Ok(_) | Err(WriteError::Conflict { .. }) => Ok(()),
        Err(WriteError::Failed(status)) => Err(status),
    }
}

struct Orphans {
    addresses: BTreeMap<IpAddr, u64>,
    ports: BTreeSet<u16>,
    record: (Ports, Expect),
}

async fn orphans(core: &Arc<Core>) -> Result<Orphans, Status> {
    // The claims first: a Service written in between is then seen with them.
    let prefix = keys::prefix("networking.k8s.io", "ipaddresses", false);
    let claims = core.store.list(&prefix, None, 0, None).await.map_err(store_status)?;
    let record = read_ports(core).await?;
    let services =
        core.store.list(&keys::prefix("", "services", false), None, 0, None).await.map_err(store_status)?;
    let (mut used, mut used_ports) = (BTreeSet::new(), BTreeSet::new());
    for entry in &services.entries {
        let (doc, _) = json::decode(t::core_v1::SERVICE, &entry.value, FieldValidation::Ignore)
            .map_err(Status::internal)?;
        let (addresses, ports) = held(&doc);
        used.extend(addresses);
        used_ports.extend(ports);
    }
    let addresses = claims
        .entries
        .iter()
        .filter_map(|entry| Some((entry.key.strip_prefix(&prefix)?.parse().ok()?, entry.mod_revision)))
        .filter(|(address, _)| !used.contains(address))
        .collect();
    let ports = record.0.keys().filter(|port| !used_ports.contains(port)).copied().collect();
    Ok(Orphans { addresses, ports, record })
}
