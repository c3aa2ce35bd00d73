//! CustomResourceDefinitions: their names and conditions, their rows in the table, and the end of their objects.
//!
//! One task follows the definitions (upstream has a controller per condition). What always holds: a definition's rows are in the
//! table before its status says Established, so whoever waits for that is served, and in discovery only after that, so whoever
//! waits for discovery reads that status; rows and watches go when the definition does.
//! Definitions that ask for what this server does not do (CEL rules, conversion webhooks) are never served without it: Established
//! stays False and says why.

mod cleanup;
mod serving;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use keelson_api::doc::{Doc, to_json_value};
use keelson_api::f::apiextensions_v1 as x;
use keelson_api::json::{self, FieldValidation};
use keelson_api::status::Status;
use keelson_api::t::apiextensions_v1::CUSTOM_RESOURCE_DEFINITION;
use keelson_api::table::Resource;
use tokio::sync::mpsc;

use crate::apiserver::LocalService;
use crate::bootstrap::Client;
use crate::cache::{EventKind, ListQuery, Object, ReadAt, Scope, Start, WatchCache, WatchItem, WatchQuery};
use crate::core::Core;
use crate::rest::cache_status;
use serving::Serving;
use status::Claim;

/// The readiness check that says definitions found at start are served; upstream's name.
pub const SYNCED: &str = "poststarthook/crd-informer-synced";
pub const GROUP: &str = "apiextensions.k8s.io";
const PLURAL: &str = "customresourcedefinitions";
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// Between attempts to follow the definitions again.
const RETRY: Duration = Duration::from_millis(100);
/// Before a status that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Clean-ups that have ended and wait to be noted.
const ENDED: usize = 64;

/// The spec of a definition, and one of its names.
fn group_of(doc: &Doc) -> &str {
    doc.str(&[x::custom_resource_definition::SPEC, x::custom_resource_definition_spec::GROUP])
}

fn row(core: &Core) -> Option<Arc<Resource>> {
    core.table.load().lookup(GROUP, "v1", PLURAL).cloned()
}

fn decode(object: &Object) -> Option<Doc> {
    let decoded = json::decode(CUSTOM_RESOURCE_DEFINITION, object.json(), FieldValidation::Ignore);
    match decoded {
        Ok((mut doc, _)) => {
            doc.gvk = keelson_api::doc::Gvk::new(GROUP, "v1", "CustomResourceDefinition");
            doc.meta_mut().set_resource_version(&object.revision().to_string());
            Some(doc)
        }
        Err(error) => {
            tracing::error!(object = object.key(), %error, "a stored definition cannot be read");
            None
        }
    }
}

/// Marks a definition as being deleted: its objects go first. False for other objects, and for one that is marked already.
pub fn mark(doc: &mut Doc, now: jiff::Timestamp) -> bool {
    if doc.ty() != Some(CUSTOM_RESOURCE_DEFINITION) || doc.meta().is_being_deleted() {
        return false;
    }
    let mut finalizers: Vec<String> = doc.meta().finalizers().map(str::to_owned).collect();
    if !finalizers.iter().any(|one| one == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let mut meta = doc.meta_mut();
    meta.set_deletion_timestamp(Some(&keelson_api::types::time_text(now)));
    meta.set_finalizers(finalizers.iter().map(String::as_str));
    let condition = status::Condition {
        kind: "Terminating",
        status: "True",
        reason: "InstanceDeletionPending",
        message: "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    };
    status::set(doc, &condition, now);
    true
}

/// Puts the rows of the definitions that are established already into the table, before the first request.
pub async fn load(core: &Arc<Core>) -> Result<(), Status> {
    let Some(row) = row(core) else { return Ok(()) };
    let query = ListQuery { scope: Scope::All, filter: None, limit: 0, after: None, at: ReadAt::Newest };
    let found = core.cache(&row).list(query).await.map_err(cache_status)?;
    let mut serving = Serving::default();
    for doc in found.objects.iter().filter_map(|object| decode(object)) {
        serving.put(&doc);
    }
    serving.swap(core);
    Ok(())
}

/// Follows the definitions until the server drains.
pub async fn run(core: Arc<Core>, service: LocalService) {
    let Some(row) = row(&core) else { return };
    let (ended, mut endings) = mpsc::channel(ENDED);
    let mut controller = Controller {
        core: core.clone(),
        service,
        cache: core.cache(&row),
        known: BTreeMap::new(),
        serving: Serving::default(),
        dirty: BTreeSet::new(),
        cleaning: BTreeSet::new(),
        ended,
    };
    // The rows that `load` made are this controller's from now on.
    controller.serving.adopt(&core);
    loop {
        controller.follow(&mut endings).await;
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = core.stop.cancelled() => return,
        }
        if core.stop.is_cancelled() {
            return;
        }
    }
}

struct Controller {
    core: Arc<Core>,
    service: LocalService,
    cache: Arc<WatchCache>,
    /// The names each definition has; the definitions themselves stay in the cache.
    known: BTreeMap<String, Claim>,
    serving: Serving,
    /// Definitions whose rows or status may be behind.
    dirty: BTreeSet<String>,
    /// Definitions whose objects are being deleted.
    cleaning: BTreeSet<String>,
    ended: mpsc::Sender<String>,
}

impl Controller {
    async fn follow(&mut self, endings: &mut mpsc::Receiver<String>) {
        let query = WatchQuery {
            scope: Scope::All,
            filter: None,
            start: Start::State { at: ReadAt::Newest, end_bookmark: true },
            bookmarks: false,
        };
        let Ok(mut stream) = self.cache.watch(query).await else { return };
        let mut fresh = Some(BTreeSet::new());
        let stop = self.core.stop.clone();
        loop {
            let waiting = fresh.is_none() && !self.dirty.is_empty();
            let item = tokio::select! {
                biased;
                item = stream.next() => item,
                Some(name) = endings.recv() => {
                    self.cleaning.remove(&name);
                    self.dirty.insert(name);
                    self.settle().await;
                    continue;
                }
                () = tokio::time::sleep(AGAIN), if waiting => {
                    self.settle().await;
                    continue;
                }
                () = stop.cancelled() => return,
            };
            match item {
                Some(Ok(WatchItem::Event(event))) => {
                    let name = event.object().name().to_owned();
                    if event.kind() == EventKind::Deleted {
                        self.remove(&name);
                    } else if let Some(doc) = decode(event.object()) {
                        if let Some(fresh) = &mut fresh {
                            fresh.insert(name.clone());
                        }
                        self.put(name, Claim::of(&doc));
                    }
                }
                Some(Ok(WatchItem::InitialEventsEnd(_))) => {
                    if let Some(fresh) = fresh.take() {
                        let gone: Vec<String> =
                            self.known.keys().filter(|name| !fresh.contains(*name)).cloned().collect();
                        gone.iter().for_each(|name| self.remove(name));
                        self.serving.retain(&self.known);
                    }
                }
                Some(Ok(WatchItem::Bookmark(_))) => {}
                Some(Err(_)) | None => return,
            }
            if fresh.is_none() {
                self.settle().await;
            }
        }
    }

    fn put(&mut self, name: String, claim: Claim) {
        self.dirty.insert(name.clone());
        self.claim(name, claim);
    }

    fn claim(&mut self, name: String, claim: Claim) {
        if self.known.get(&name) != Some(&claim) {
            self.touch_group(&claim.group);
            self.known.insert(name, claim);
        }
    }

    fn remove(&mut self, name: &str) {
        if let Some(claim) = self.known.remove(name) {
            self.touch_group(&claim.group);
        }
        self.dirty.remove(name);
        self.serving.remove(name);
        self.serving.swap(&self.core);
    }

    /// Names are claimed within a group: what one gives up another may get.
    fn touch_group(&mut self, group: &str) {
        let others = self.known.iter().filter(|(_, claim)| claim.group == group);
        self.dirty.extend(others.map(|(name, _)| name.clone()));
    }

    /// Brings rows and statuses to what the definitions ask for. What fails stays dirty.
    async fn settle(&mut self) {
        let names: Vec<String> = std::mem::take(&mut self.dirty).into_iter().collect();
        for name in names {
            // What the cache holds may be newer than the event: then another event follows.
            let Some(doc) = self.cache.peek(&name).and_then(|object| decode(&object)) else { continue };
            let others = self.known.iter().filter(|(other, _)| **other != name).map(|(_, claim)| claim);
            let planned = status::plan(&doc, others, self.core.clock.now());
            let core = self.core.clone();
            let held = planned.is_some().then(|| core.documents.hold());
            self.serving.put(planned.as_ref().unwrap_or(&doc));
            self.serving.swap(&self.core);
            if let Some(planned) = planned {
                match write_status(&self.service, &planned).await {
                    // What was written is what the next one is judged by.
                    Ok(()) => self.claim(name.clone(), Claim::of(&planned)),
                    Err(status) if status.is_not_found() => {}
                    Err(status) => {
                        // What is not in the status yet is not served.
                        self.serving.put(&doc);
                        self.serving.swap(&self.core);
                        if status.code != 409 {
                            tracing::warn!(definition = name, %status, "the status could not be written");
                        }
                        self.dirty.insert(name.clone());
                    }
                }
            }
            drop(held);
            self.clean(&name, &doc);
        }
    }

    /// Starts the end of a definition's objects.
    fn clean(&mut self, name: &str, doc: &Doc) {
        let pending = doc.meta().is_being_deleted() && doc.meta().finalizers().any(|one| one == FINALIZER);
        if !pending || !self.cleaning.insert(name.to_owned()) {
            return;
        }
        let (core, service, ended) = (self.core.clone(), self.service.clone(), self.ended.clone());
        let name = name.to_owned();
        tokio::spawn(async move {
            tokio::select! {
                () = cleanup::run(&core, service, &name) => {}
                () = core.stop.cancelled() => {}
            }
            // With the controller gone nobody waits for the note.
            let _ = ended.send(name).await;
        });
    }
}

/// The path of a definition.
fn path(name: &str) -> String {
    format!("/apis/{GROUP}/v1/{PLURAL}/{name}")
}

/// Writes a definition's status (and its finalizers) at the revision it was read at.
async fn write_status(service: &LocalService, doc: &Doc) -> Result<(), Status> {
    let mut client = Client::new(service.clone());
    let path = format!("{}/status", path(doc.meta().name()));
    client.send(Method::PUT, &path, Some(&to_json_value(doc))).await.map(|_| ())
}
