//! The life of one pod: what state it is in, what is done in it, and when it is looked at again.
use super::{Eviction, PodView, Want, Workers, lock};
use crate::cri::{CriError, Known};
use crate::events::Severity;
use crate::images::ImageInfo;
use crate::kubelet::Shared;
use crate::plan::backoff::Backoff;
use crate::plan::observed::ObservedPod;
use crate::plan::status::{self, StatusInput, Waiting};
use crate::plan::{self, SandboxAction, fields, pod};
use crate::probe::PodProbes;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Where a pod is in its life here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It shall run.
    Syncing,
    /// Its containers are being stopped.
    Terminating,
    /// Its containers have ended; volumes and cgroups go next.
    Terminated,
    /// All is gone but its status (and its dead containers, until it is deleted).
    Finished,
}

/// What comes after one step.
pub(super) enum Next {
    /// Look again after this long, or when woken.
    Wait(Duration),
    /// Go on at once: the state changed.
    Again,
}

const RETRY: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(24 * 3600);

/// What the registry of workers and the worker both hold.
pub(super) struct SharedWithWorker {
    pub wake: Arc<Notify>,
    pub view: Arc<Mutex<PodView>>,
    pub evicted: Arc<Mutex<Option<Eviction>>>,
}

pub(super) struct Worker {
    pub kubelet: Shared,
    pub workers: Workers,
    pub pod: Arc<Pod>,
    pub mirror: Option<Arc<Pod>>,
    state: State,
    /// No source has it: nothing of it may stay.
    pub gone: bool,
    pub observed: ObservedPod,
    pub status: PodStatus,
    pub waiting: BTreeMap<String, Waiting>,
    pub backoff: Backoff,
    pub probes: PodProbes,
    pub wake: Arc<Notify>,
    view: Arc<Mutex<PodView>>,
    evicted: Arc<Mutex<Option<Eviction>>>,
    /// Why it is not run, if so.
    refused: Option<fields::Refusal>,
    admitted: bool,
    /// Images that were found for containers that are still to be started.
    pub images: HashMap<String, ImageInfo>,
    /// Volumes were made since this kubelet started.
    pub mounted: bool,
    /// Failures of the sandbox in a row.
    pub failures: u32,
    /// Leave to start a sandbox, while one is being started.
    pub permit: Option<tokio::sync::OwnedSemaphorePermit>,
    /// A first observation is not needed: the runtime was listed and had nothing.
    pub fresh: bool,
}

impl Worker {
    pub fn new(
        kubelet: Shared,
        workers: Workers,
        pod: Arc<Pod>,
        mirror: Option<Arc<Pod>>,
        known: ObservedPod,
        shared: SharedWithWorker,
    ) -> Self {
        let SharedWithWorker { wake, view, evicted } = shared;
        let fresh = known.sandboxes.is_empty() && known.containers.is_empty();
        Worker {
            probes: PodProbes::new(kubelet.probe_tools(), wake.clone()),
            status: mirror.as_ref().unwrap_or(&pod).status.clone().unwrap_or_default(),
            kubelet,
            workers,
            pod,
            mirror,
            state: State::Syncing,
            gone: false,
            observed: known,
            waiting: BTreeMap::new(),
            backoff: Backoff::restarts(),
            wake,
            view,
            evicted,
            refused: None,
            admitted: false,
            images: HashMap::new(),
            mounted: false,
            failures: 0,
            permit: None,
            fresh,
        }
    }

    /// Runs until nothing is left of the pod.
    pub async fn run(mut self, mut want: watch::Receiver<Want>) {
        loop {
            let wanted = want.borrow_and_update().clone();
            self.take(wanted);
            let next = match self.state {
                State::Syncing => self.sync(&want).await,
                State::Terminating => self.terminate(&mut want).await,
                State::Terminated => self.clean_up().await,
                State::Finished => {
                    if self.finish().await {
                        return;
                    }
                    Next::Wait(LONG)
                }
            };
            let Next::Wait(wait) = next else { continue };
            tokio::select! {
                changed = want.changed() => if changed.is_err() { return },
                () = self.wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn take(&mut self, want: Want) {
        match want {
            Want::Run { pod, mirror } => {
                self.pod = pod;
                self.mirror = mirror;
                self.gone = false;
            }
            Want::Gone => self.gone = true,
        }
    }

    /// The pod as the API has it.
    fn api_pod(&self) -> Option<Arc<Pod>> {
        if pod::is_static(&self.pod) { self.mirror.clone() } else { Some(self.pod.clone()) }
    }

    /// Asks the runtime for all of the pod.
    pub async fn observe(&mut self) -> Result<(), CriError> {
        let known = Known::of(&self.observed);
        match self.kubelet.cri.observe(pod::uid(&self.pod), &known).await {
            Ok(seen) => {
                self.kubelet.set_runtime_up(true);
                self.observed = seen.pod;
                Ok(())
            }
            Err(error) => {
                if error.is_unavailable() {
                    self.kubelet.set_runtime_up(false);
                }
                Err(error)
            }
        }
    }

    /// Makes the status anew and hands it on; `terminal`: no container will run again.
    pub fn publish(&mut self, terminal: bool) {
        let results = self.probes.results();
        let mut status = status::generate(&StatusInput {
            pod: &self.pod,
            observed: &self.observed,
            previous: &self.status,
            waiting: &self.waiting,
            probes: &results,
            terminal,
            host_ips: &self.kubelet.host_ips,
            runtime: &self.kubelet.runtime,
            now: self.kubelet.clock.now(),
            kubelet_start: self.kubelet.started_at,
        });
        if let Some(refusal) = &self.refused {
            status.phase = Some("Failed".into());
            status.reason = Some(refusal.reason.into());
            status.message = Some(format!("Pod was rejected: {}", refusal.message));
        }
        if let Some(eviction) = self.eviction() {
            status.phase = Some("Failed".into());
            status.reason = Some("Evicted".into());
            status.message = Some(eviction.message.clone());
            if eviction.node_pressure {
                self.add_disruption(&mut status, eviction.message);
            }
        }
        if self.deadline_passed() {
            status.phase = Some("Failed".into());
            status.reason = Some("DeadlineExceeded".into());
            status.message = Some("Pod was active on the node longer than the specified deadline".into());
        }
        self.set_status(status);
    }

    fn set_status(&mut self, status: PodStatus) {
        let mut shown = status.clone();
        // Shown as finished only when nothing can run any more.
        if matches!(self.state, State::Syncing | State::Terminating) && !self.observed.is_stopped() {
            let shown_before = lock(&self.view).status.clone();
            status::delay_terminal(&mut shown, &shown_before);
        }
        let ending = self.state != State::Syncing || pod::is_deleted(&self.pod) || self.gone;
        self.probes.update(&self.pod, &shown, ending);
        {
            let mut view = lock(&self.view);
            view.pod = self.pod.clone();
            view.status = shown.clone();
            view.observed = self.observed.clone();
            view.finished = self.state == State::Finished;
        }
        self.status = status;
        if !self.gone {
            self.kubelet.statuses.set(&self.pod, self.api_pod().as_deref(), shown);
        }
    }

    /// Why the kubelet ends the pod, if it does.
    pub fn eviction(&self) -> Option<Eviction> {
        lock(&self.evicted).clone()
    }

    fn add_disruption(&self, status: &mut PodStatus, message: String) {
        let before = self.status.conditions.iter().flatten().find(|c| c.type_ == "DisruptionTarget");
        let now = Time(status::seconds(self.kubelet.clock.now()));
        let condition = PodCondition {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
            reason: Some("TerminationByKubelet".into()),
            message: Some(message),
            last_transition_time: before.and_then(|c| c.last_transition_time.clone()).or(Some(now)),
            observed_generation: self.pod.metadata.generation,
            last_probe_time: None,
        };
        let all = status.conditions.get_or_insert_default();
        all.retain(|c| c.type_ != condition.type_);
        all.push(condition);
    }

    fn deadline_passed(&self) -> bool {
        let Some(limit) = pod::spec(&self.pod).active_deadline_seconds else { return false };
        let Some(start) = &self.status.start_time else { return false };
        self.kubelet.clock.now().as_second() - start.0.as_second() >= limit
    }

    fn must_end(&self) -> bool {
        self.gone
            || pod::is_deleted(&self.pod)
            || pod::is_terminal_phase(self.status.phase.as_deref())
            || pod::is_terminal_phase(pod::status(&self.pod).phase.as_deref())
    }

    async fn sync(&mut self, want: &watch::Receiver<Want>) -> Next {
        if !std::mem::take(&mut self.fresh)
            && let Err(error) = self.observe().await
        {
            tracing::debug!(pod = pod::name(&self.pod), error = %error, "pod was not observed");
            return Next::Wait(RETRY);
        }
        if self.must_end() {
            self.state = State::Terminating;
            return Next::Again;
        }
        if pod::is_static(&self.pod) && self.workers.other_of_name(&self.pod) {
            return Next::Wait(RETRY);
        }
        if !self.admitted {
            self.admit();
        }
        let results = self.probes.results();
        let now = self.kubelet.now_nanos();
        let mut plan = plan::plan(&self.pod, &self.observed, &results, &self.backoff, now);
        self.forget_waiting();
        if plan.sandbox == SandboxAction::Stop {
            plan.start.clear();
        }
        self.publish(false);
        if self.must_end() {
            self.state = State::Terminating;
            return Next::Again;
        }
        if plan.sandbox == SandboxAction::Stop {
            self.state = State::Terminating;
            return Next::Again;
        }
        let wait = self.apply(plan, want).await;
        self.publish(false);
        if self.must_end() { Next::Again } else { Next::Wait(self.until_deadline(wait)) }
    }

    /// Containers that run need no reason why they do not.
    fn forget_waiting(&mut self) {
        let observed = &self.observed;
        self.waiting.retain(|name, _| {
            observed.latest(name).is_none_or(|c| c.state != plan::observed::RunState::Running)
        });
    }

    fn until_deadline(&self, wait: Duration) -> Duration {
        let limit = pod::spec(&self.pod).active_deadline_seconds;
        let (Some(limit), Some(start)) = (limit, &self.status.start_time) else { return wait };
        let left = start.0.as_second() + limit - self.kubelet.clock.now().as_second();
        wait.min(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
    }

    /// Checks once whether this node can run the pod as it asks to be run.
    fn admit(&mut self) {
        self.admitted = true;
        // What already runs here was admitted before this kubelet started.
        if !self.observed.containers.is_empty() {
            lock(&self.view).admitted = true;
            return;
        }
        let security = &self.kubelet.node.security;
        let support =
            fields::Support { app_armor: security.app_armor, strict_groups: security.strict_groups };
        let refusal = fields::check(&self.pod)
            .and_then(|()| fields::check_support(&self.pod, support))
            .err()
            .or_else(|| self.selector_mismatch())
            .or_else(|| self.workers.admit(&self.view).err());
        if let Some(refusal) = refusal {
            tracing::warn!(
                pod = pod::name(&self.pod),
                namespace = pod::namespace(&self.pod),
                reason = refusal.reason,
                message = refusal.message,
                "pod refused"
            );
            self.kubelet.events.pod(&self.pod, Severity::Warning, refusal.reason, &*refusal.message);
            self.refused = Some(refusal);
        }
    }

    fn selector_mismatch(&self) -> Option<fields::Refusal> {
        let selector = pod::spec(&self.pod).node_selector.as_ref()?;
        if pod::is_static(&self.pod) {
            return None;
        }
        let labels = crate::node::labels(&self.kubelet.config);
        let matches = selector.iter().all(|(key, value)| {
            // Labels that others put on the node are not known here; only a contradiction refuses.
            labels.get(key).is_none_or(|own| own == value)
        });
        (!matches).then(|| fields::Refusal {
            reason: "NodeAffinity",
            message: "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
                .into(),
        })
    }

    async fn terminate(&mut self, want: &mut watch::Receiver<Want>) -> Next {
        self.publish(false);
        match self.stop_everything(want).await {
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(pod = pod::name(&self.pod), error = %error, "pod was not stopped, trying again");
                return Next::Wait(RETRY);
            }
        }
        if let Err(error) = self.observe().await {
            tracing::debug!(pod = pod::name(&self.pod), error = %error, "pod was not observed");
            return Next::Wait(RETRY);
        }
        if !self.observed.is_stopped() {
            return Next::Wait(RETRY);
        }
        self.state = State::Terminated;
        self.publish(true);
        Next::Again
    }

    async fn clean_up(&mut self) -> Next {
        let uid = pod::uid(&self.pod).to_owned();
        if pod::is_deleted(&self.pod) || self.gone {
            self.remove_containers().await;
        }
        let (volumes, folder_uid) = (self.kubelet.volumes.clone(), uid.clone());
        let removed = tokio::task::spawn_blocking(move || volumes.remove(&folder_uid)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(pod = pod::name(&self.pod), error = %error, "volumes were not removed, trying again");
            return Next::Wait(RETRY);
        }
        if let Err(error) = self.kubelet.cgroups.remove_pod(plan::qos::class(&self.pod), &uid) {
            tracing::debug!(pod = pod::name(&self.pod), error = %error, "cgroup was not removed, trying again");
            return Next::Wait(Duration::from_millis(200));
        }
        self.kubelet.objects.forget(&uid);
        self.kubelet.images.forget_pod(&uid);
        self.state = State::Finished;
        let ended = status::terminated(&self.pod, self.status.clone(), self.kubelet.clock.now());
        self.set_status(ended);
        Next::Again
    }

    /// Deletes the pod from the API when that is asked for; says whether the worker is done.
    async fn finish(&mut self) -> bool {
        if self.gone {
            self.remove_all().await;
            let logs = crate::host::config::log_folder(&self.kubelet.config.pod_logs, &self.pod);
            let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(logs)).await;
            self.kubelet.statuses.forget(pod::uid(&self.pod));
            return true;
        }
        if pod::is_deleted(&self.pod) && !pod::is_static(&self.pod) {
            self.remove_containers().await;
            self.kubelet.statuses.delete(&self.pod);
        }
        false
    }
}
