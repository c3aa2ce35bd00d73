//! Informers in, bindings and conditions out. Holds no policy.

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashSet;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use keelson_client::projections::{HasMeta, Meta, PodView, Selector, SharedInformers};
use keelson_client::{EventRecorder, EventType, HandlerScope, ObjectKey};
use keelson_daemon::Context;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;

use crate::core::{Decision, Scheduler, concerns};
use crate::plugins::default_profile;
use crate::preemption::Budget;

/// Bindings and preemptions under way at once.
const PARALLEL_WRITES: usize = 16;

/// Settings.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// The `schedulerName` it serves.
    pub name: String,
    /// Decides ties between nodes.
    pub seed: u64,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        SchedulerConfig { name: "default-scheduler".to_owned(), seed: 0x9e37_79b9_7f4a_7c15 }
    }
}

/// Why the scheduler ended.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// The task that carries decisions out is gone.
    #[error("the scheduler's writer ended")]
    Writer,
}

/// Keys that changed since they were last looked at.
#[derive(Default)]
struct Dirty {
    keys: Mutex<Changed>,
    wake: Notify,
}

#[derive(Default)]
struct Changed {
    pods: AHashSet<ObjectKey>,
    nodes: AHashSet<ObjectKey>,
    namespaces: AHashSet<ObjectKey>,
    budgets: bool,
}

impl Dirty {
    fn mark(&self, change: impl FnOnce(&mut Changed)) {
        change(&mut self.keys.lock());
        self.wake.notify_one();
    }
}

/// What a write task reports back.
enum Report {
    Bound { uid: Box<str>, succeeded: bool },
    PreemptionFailed { uid: Box<str> },
}

/// Schedules until the drain begins.
pub async fn run(
    client: kube::Client,
    config: SchedulerConfig,
    informers: SharedInformers,
    ctx: Context,
) -> Result<(), SchedulerError> {
    let scope = HandlerScope::default();
    let informers = informers.within(&scope);
    let dirty = Arc::new(Dirty::default());
    watch(&informers, &dirty, &config.name);
    let recorder =
        EventRecorder::start(client.clone(), "default-scheduler", ctx.clock.clone(), ctx.drain.clone());
    let (reports, mut incoming) = mpsc::channel(1024);
    let writer = Writer {
        client,
        recorder,
        ctx: ctx.clone(),
        limit: Arc::new(Semaphore::new(PARALLEL_WRITES)),
        reports,
    };
    let mut scheduler = Scheduler::new(default_profile(), &config.name, config.seed);
    let begun = Instant::now();
    let synced = async {
        informers.nodes.synced().await;
        informers.namespaces.synced().await;
        informers.pods.synced().await;
    };
    if ctx.drain.until(synced).await.is_none() {
        return Ok(());
    }
    loop {
        observe(&mut scheduler, &dirty, &informers, begun.elapsed());
        while let Ok(report) = incoming.try_recv() {
            take_in(&mut scheduler, report, begun.elapsed());
        }
        let mut decided = 0;
        while let Some(decision) = scheduler.next(begun.elapsed()) {
            writer.carry_out(decision).await;
            decided += 1;
            if decided % 16 == 0 {
                break; // look at what changed before going on
            }
        }
        if ctx.drain.is_draining() {
            return Ok(());
        }
        let due = scheduler.next_due();
        let wait = async {
            match due {
                Some(due) => tokio::time::sleep_until(begun + due.max(Duration::ZERO)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ctx.drain.drained() => return Ok(()),
            () = dirty.wake.notified() => {}
            report = incoming.recv() => {
                let Some(report) = report else { return Err(SchedulerError::Writer) };
                take_in(&mut scheduler, report, begun.elapsed());
            }
            () = wait => {}
        }
    }
}

fn watch(informers: &SharedInformers, dirty: &Arc<Dirty>, name: &str) {
    let (d, name) = (dirty.clone(), name.to_owned());
    informers.pods.on_change(move |c| {
        // What waits for another scheduler need not wake this one.
        if [&c.old, &c.new].into_iter().flatten().any(|pod| concerns(pod, &name)) {
            d.mark(|k| {
                k.pods.insert(c.key.clone());
            })
        }
    });
    let d = dirty.clone();
    informers.nodes.on_change(move |c| {
        d.mark(|k| {
            k.nodes.insert(c.key.clone());
        })
    });
    let d = dirty.clone();
    informers.namespaces.on_change(move |c| {
        d.mark(|k| {
            k.namespaces.insert(c.key.clone());
        })
    });
    let d = dirty.clone();
    informers.budgets.on_change(move |_| d.mark(|k| k.budgets = true));
}

fn observe(scheduler: &mut Scheduler, dirty: &Dirty, informers: &SharedInformers, now: Duration) {
    let changed = std::mem::take(&mut *dirty.keys.lock());
    for key in &changed.namespaces {
        let labels = informers.namespaces.get(key).map(|n| n.meta.labels.clone());
        scheduler.observe_namespace(&key.name, labels, now);
    }
    if changed.budgets {
        scheduler.set_budgets(budgets(informers));
    }
    for key in &changed.nodes {
        scheduler.observe_node(&key.name, informers.nodes.get(key), now);
    }
    for key in &changed.pods {
        scheduler.observe_pod(key, informers.pods.get(key), now);
    }
}

fn budgets(informers: &SharedInformers) -> Vec<Budget> {
    informers
        .budgets
        .list()
        .iter()
        .filter_map(|packed| {
            let budget = packed.unpack().ok()?;
            let status = budget.status.unwrap_or_default();
            Some(Budget {
                namespace: packed.meta().namespace.clone(),
                selector: Selector::from_label_selector(budget.spec?.selector.as_ref()).ok()?,
                allowed: status.disruptions_allowed,
                disrupted: status.disrupted_pods.into_iter().flatten().map(|(name, _)| name.into()).collect(),
            })
        })
        .collect()
}

fn take_in(scheduler: &mut Scheduler, report: Report, now: Duration) {
    match report {
        Report::Bound { uid, succeeded } => scheduler.bound(&uid, succeeded, now),
        Report::PreemptionFailed { uid } => scheduler.preemption_failed(&uid, now),
    }
}

fn reference(meta: &Meta) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(meta.namespace.to_string()),
        name: Some(meta.name.to_string()),
        uid: Some(meta.uid.to_string()),
        ..ObjectReference::default()
    }
}

#[derive(Clone)]
struct Writer {
    client: kube::Client,
    recorder: EventRecorder,
    ctx: Context,
    limit: Arc<Semaphore>,
    reports: mpsc::Sender<Report>,
}

impl Writer {
    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Starts a write; waits only while too many are under way.
    async fn carry_out(&self, decision: Decision) {
        let Ok(permit) = self.limit.clone().acquire_owned().await else { return };
        let writer = self.clone();
        tokio::spawn(async move {
            match decision {
                Decision::Bind { pod, node } => writer.bind(&pod, &node).await,
                Decision::Unschedulable { pod, message, preempt, clear_nominated } => {
                    writer.explain(&pod, &message, preempt, clear_nominated).await;
                }
            }
            drop(permit);
        });
    }

    async fn bind(&self, pod: &PodView, node: &str) {
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(pod.meta.name.to_string()),
                namespace: Some(pod.meta.namespace.to_string()),
                uid: Some(pod.meta.uid.to_string()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let result = self
            .pods(&pod.meta.namespace)
            .create_subresource::<Binding, serde_json::Value>(
                "binding",
                &pod.meta.name,
                &PostParams::default(),
                &binding,
            )
            .await
            .map(drop);
        match &result {
            Ok(()) => self.recorder.record(
                reference(&pod.meta),
                EventType::Normal,
                "Scheduled",
                format!("Successfully assigned {}/{} to {node}", pod.meta.namespace, pod.meta.name),
            ),
            Err(error) => {
                // Whoever else bound or deleted it: the watch will tell, no event is due.
                if !is_gone_or_changed(error) {
                    tracing::warn!(namespace = %pod.meta.namespace, pod = %pod.meta.name, node, error = %error, "binding failed");
                    self.recorder.record(
                        reference(&pod.meta),
                        EventType::Warning,
                        "FailedScheduling",
                        format!("running Bind plugin \"DefaultBinder\": {error}"),
                    );
                }
            }
        }
        let report = Report::Bound { uid: pod.meta.uid.clone(), succeeded: result.is_ok() };
        let _ = self.reports.send(report).await; // the loop is gone: nobody asks any more
    }

    async fn explain(
        &self,
        pod: &PodView,
        message: &str,
        preempt: Option<(Box<str>, Vec<Arc<PodView>>)>,
        clear_nominated: bool,
    ) {
        let mut status = serde_json::Map::new();
        let same = pod
            .not_scheduled
            .as_ref()
            .is_some_and(|c| &*c.reason == "Unschedulable" && &*c.message == message);
        if !same {
            self.recorder.record(reference(&pod.meta), EventType::Warning, "FailedScheduling", message);
            let mut condition = json!({
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
                "observedGeneration": pod.meta.generation,
            });
            if pod.not_scheduled.is_none() {
                condition["lastTransitionTime"] = json!(Time(self.ctx.clock.now()));
            }
            status.insert("conditions".to_owned(), json!([condition]));
        }
        match &preempt {
            Some((node, _)) => drop(status.insert("nominatedNodeName".to_owned(), json!(node))),
            None if clear_nominated => drop(status.insert("nominatedNodeName".to_owned(), json!(null))),
            None => {}
        }
        if !status.is_empty() {
            let patch = json!({"metadata": {"uid": pod.meta.uid}, "status": status});
            let result = self
                .pods(&pod.meta.namespace)
                .patch_status(&pod.meta.name, &PatchParams::default(), &Patch::Strategic(patch))
                .await;
            if let Err(error) = result
                && !is_gone_or_changed(&error)
            {
                tracing::warn!(namespace = %pod.meta.namespace, pod = %pod.meta.name, error = %error, "condition not written");
            }
        }
        if let Some((node, victims)) = preempt
            && let Err(error) = self.evict(pod, &node, &victims).await
        {
            tracing::warn!(namespace = %pod.meta.namespace, pod = %pod.meta.name, node = %node, error = %error, "preemption failed");
            let _ = self.reports.send(Report::PreemptionFailed { uid: pod.meta.uid.clone() }).await;
        }
    }

    async fn evict(
        &self,
        preemptor: &PodView,
        node: &str,
        victims: &[Arc<PodView>],
    ) -> Result<(), kube::Error> {
        for victim in victims {
            if victim.meta.deleted.is_some() {
                continue;
            }
            let api = self.pods(&victim.meta.namespace);
            let patch = json!({"metadata": {"uid": victim.meta.uid}, "status": {"conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                "message": "default-scheduler: preempting to accommodate a higher priority pod",
                "lastTransitionTime": Time(self.ctx.clock.now()),
            }]}});
            let patched =
                api.patch_status(&victim.meta.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
            if let Err(error) = patched
                && !is_gone_or_changed(&error)
            {
                return Err(error);
            }
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: Some(victim.meta.uid.to_string()),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            match api.delete(&victim.meta.name, &params).await {
                Ok(_) => self.recorder.record(
                    reference(&victim.meta),
                    EventType::Normal,
                    "Preempted",
                    format!("Preempted by pod {} on node {node}", preemptor.meta.uid),
                ),
                Err(error) if is_gone_or_changed(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The object is not there, or is another one by now.
fn is_gone_or_changed(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pods_that_concern_the_scheduler_wake_it() {
        let informers = SharedInformers::detached();
        let dirty = Arc::new(Dirty::default());
        watch(&informers, &dirty, "mine");
        let put = |name: &str, scheduler: &str, node: Option<&str>| {
            let spec = json!({ "containers": [], "schedulerName": scheduler, "nodeName": node });
            let pod = json!({ "metadata": { "namespace": "ns", "name": name, "uid": name }, "spec": spec });
            informers.pods.apply(serde_json::from_value(pod).expect("a pod"));
        };
        let marked = || std::mem::take(&mut *dirty.keys.lock()).pods.len();
        put("a", "other", None);
        assert_eq!(marked(), 0, "it waits for another");
        put("b", "mine", None);
        assert_eq!(marked(), 1);
        put("a", "other", Some("n1"));
        assert_eq!(marked(), 1, "it takes room");
        informers.pods.delete(&ObjectKey::new("ns", "a"));
        assert_eq!(marked(), 1, "the room is free");
        put("c", "other", None);
        informers.pods.delete(&ObjectKey::new("ns", "c"));
        assert_eq!(marked(), 0);
    }
}
