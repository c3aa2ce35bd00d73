//! The end of a definition: its objects are deleted, and when none is left its finalizer goes (upstream's `crd_finalizer.go`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use keelson_api::doc::Doc;
use keelson_api::json::{self, FieldValidation};
use keelson_api::status::Status;
use keelson_api::table::Resource;
use serde_json::{Value, json};

use super::status::{self, Condition};
use super::{FINALIZER, path, write_status};
use crate::apiserver::LocalService;
use crate::bootstrap::Client;
use crate::core::Core;
use crate::keys;

/// How long objects' own finalizers are waited for before the wait is said and begun anew.
const WAIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
const SLOWEST_LOOK: Duration = Duration::from_secs(2);
/// Before a clean-up that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
const KIND: &str = "Terminating";

/// Deletes a definition's objects and then its finalizer; returns when the definition needs no more of this.
pub async fn run(core: &Arc<Core>, service: LocalService, name: &str) {
    loop {
        match attempt(core, &service, name).await {
            Ok(()) => return,
            Err(status) if status.is_not_found() => return,
            // Somebody else wrote it: at once again.
            Err(status) if status.code == 409 => tokio::time::sleep(LOOK).await,
            Err(status) => {
                tracing::warn!(definition = name, %status, "the end of a definition is not done yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn read(service: &LocalService, name: &str) -> Result<Doc, Status> {
    let found = Client::new(service.clone()).send(Method::GET, &path(name), None).await?;
    let ty = keelson_api::t::apiextensions_v1::CUSTOM_RESOURCE_DEFINITION;
    let bytes = found.to_string();
    json::decode(ty, bytes.as_bytes(), FieldValidation::Ignore).map(|(doc, _)| doc).map_err(Status::internal)
}

async fn note(
    core: &Core,
    service: &LocalService,
    name: &str,
    status: &str,
    reason: &str,
    message: &str,
) -> Result<Doc, Status> {
    let mut doc = read(service, name).await?;
    let before = doc.clone();
    status::set(&mut doc, &Condition { kind: KIND, status, reason, message }, core.clock.now());
    if doc != before {
        write_status(service, &doc).await?;
    }
    read(service, name).await
}

async fn attempt(core: &Arc<Core>, service: &LocalService, name: &str) -> Result<(), Status> {
    let doc = read(service, name).await?;
    let pending = doc.meta().is_being_deleted() && doc.meta().finalizers().any(|one| one == FINALIZER);
    if !pending {
        return Ok(());
    }
    let text = "CustomResource deletion is in progress";
    let doc = note(core, service, name, "True", "InstanceDeletionInProgress", text).await?;
    let rows: Vec<Arc<Resource>> = core
        .table
        .load()
        .rows()
        .iter()
        .filter(|row| row.custom.as_ref().is_some_and(|custom| custom.uid == doc.meta().uid()))
        .cloned()
        .collect();
    let (reason, message) = if !status::is_true(&doc, "Established") {
        ("NeverEstablished", "resource was never established")
    } else {
        // One served version stands for all: objects are the same in each.
        match rows.first() {
            Some(row) => delete_all(core, service, name, row).await?,
            None => delete_unserved(core, &doc).await?,
        }
        ("InstanceDeletionCompleted", "removed all instances")
    };
    let mut doc = read(service, name).await?;
    let condition = Condition { kind: KIND, status: "False", reason, message };
    status::set(&mut doc, &condition, core.clock.now());
    doc.meta_mut().remove_finalizer(FINALIZER);
    write_status(service, &doc).await
}

async fn delete_all(
    core: &Arc<Core>,
    service: &LocalService,
    name: &str,
    row: &Arc<Resource>,
) -> Result<(), Status> {
    let failed = |text: String| async move {
        note(core, service, name, "True", "InstanceDeletionFailed", &text).await.map(|_| ())
    };
    let mut client = Client::new(service.clone());
    let base = format!("/apis/{}/{}", row.group, row.version);
    let collections: BTreeSet<String> = if row.namespaced {
        match client.send(Method::GET, &format!("{base}/{}", row.plural), None).await {
            Ok(list) => list["items"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|item| item["metadata"]["namespace"].as_str())
                .map(|namespace| format!("{base}/namespaces/{namespace}/{}", row.plural))
                .collect(),
            Err(status) => {
                failed(format!("could not list instances: {status}")).await?;
                return Err(status);
            }
        }
    } else {
        BTreeSet::from([format!("{base}/{}", row.plural)])
    };
    for collection in collections {
        let options: Value = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        if let Err(status) = client.send(Method::DELETE, &collection, Some(&options)).await
            && !status.is_not_found()
        {
            failed(format!("could not issue all deletes: {status}")).await?;
            return Err(status);
        }
    }
    let prefix = keys::row_prefix(row);
    if wait_empty(core, &prefix).await? {
        return Ok(());
    }
    let text = "could not confirm zero CustomResources remaining: timed out waiting for the condition";
    note(core, service, name, "True", "InstanceDeletionCheck", text).await?;
    Err(Status::timeout(text, 1))
}

/// Whether nothing is left below the prefix, within the wait.
async fn wait_empty(core: &Core, prefix: &str) -> Result<bool, Status> {
    let deadline = tokio::time::Instant::now() + WAIT;
    let mut pause = LOOK;
    loop {
        let page = core.store.list(prefix, None, 1, None).await.map_err(crate::rest::store_status)?;
        if page.entries.is_empty() {
            return Ok(true);
        }
        if tokio::time::Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(SLOWEST_LOOK);
    }
}

/// Objects of a definition no version of which is served: nobody can reach them, so nobody's finalizers are waited for.
async fn delete_unserved(core: &Core, doc: &Doc) -> Result<(), Status> {
    use keelson_api::f::apiextensions_v1 as x;
    let group = super::group_of(doc);
    let plural = doc.str(&[
        x::custom_resource_definition::SPEC,
        x::custom_resource_definition_spec::NAMES,
        x::custom_resource_definition_names::PLURAL,
    ]);
    let prefix = keys::prefix(group, plural, true);
    loop {
        let page = core.store.list(&prefix, None, 100, None).await.map_err(crate::rest::store_status)?;
        if page.entries.is_empty() {
            return Ok(());
        }
        for entry in page.entries {
            let transaction = keelson_store::Transaction {
                guards: vec![(entry.key.clone(), keelson_store::Expect::Revision(entry.mod_revision))],
                writes: vec![keelson_store::Write::Delete { key: entry.key }],
            };
            // One that was written meanwhile is met again on the next page.
            if let Err(crate::rest::WriteError::Failed(status)) = core.commit(transaction).await {
                return Err(status);
            }
        }
    }
}
