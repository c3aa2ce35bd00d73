//! A kubelet without an API server over a containerd of its own; pods are handed to its workers directly.
#![allow(dead_code)]
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_daemon::{Context, DrainTrigger};
use keelson_kubelet::config::KubeletConfig;
use keelson_kubelet::host::cgroups::Driver;
use keelson_kubelet::plan::observed::ObservedPod;
use keelson_kubelet::worker::PodView;
use keelson_kubelet::{Running, start};
use keelson_testkit::containerd::{self, Containerd};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub struct Lab {
    pub running: Option<Running>,
    pub containerd: Containerd,
    pub config: KubeletConfig,
    _drain: DrainTrigger,
    context: Context,
}

/// Prints why and answers false where there is nothing to test with.
pub fn possible() -> bool {
    if let Some(reason) = containerd::missing() {
        println!("SKIPPED: {reason}");
        return false;
    }
    true
}

impl Lab {
    pub async fn start() -> Lab {
        Lab::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut KubeletConfig)) -> Lab {
        let containerd = Containerd::start().unwrap();
        let root = containerd.folder().join("kubelet");
        let mut config = KubeletConfig::new("test-node", &root);
        config.cri_socket = containerd.socket();
        config.pod_logs = containerd.folder().join("pod-logs");
        config.seccomp_root = containerd.folder().join("seccomp");
        config.cgroup_root = containerd.cgroup_root.clone();
        config.node_addresses = vec!["192.0.2.7".parse().unwrap()];
        config.cluster_dns = vec!["10.96.0.10".parse().unwrap()];
        config.resync = Duration::from_secs(60);
        if containerd::systemd_driver() {
            config.cgroup_driver = Driver::Systemd;
        }
        std::fs::create_dir_all(&config.seccomp_root).unwrap();
        change(&mut config);
        let (drain, context) = Context::for_tests();
        let mut lab = Lab { running: None, containerd, config, _drain: drain, context };
        lab.start_kubelet().await;
        lab
    }

    pub async fn start_kubelet(&mut self) {
        self.running = Some(start(None, self.config.clone(), self.context.clone()).await.unwrap());
    }

    pub async fn stop_kubelet(&mut self) {
        self.running.take().unwrap().stop().await;
    }

    pub fn kubelet(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Hands a pod to its worker; answers its uid.
    pub fn run(&self, name: &str, spec: Value) -> Handle<'_> {
        let pod = pod(name, spec);
        self.kubelet().workers.want(Arc::new(pod.clone()), None, ObservedPod::default());
        Handle { lab: self, pod }
    }

    /// Ends what is left and fails when anything of the pods stays.
    pub async fn finish(mut self) {
        let running = self.running.take().unwrap();
        for view in running.workers.views() {
            running.workers.gone(view.pod.metadata.uid.as_deref().unwrap());
        }
        let workers = running.workers.clone();
        wait("all workers to end", 60, || workers.is_empty().then_some(())).await;
        assert!(running.kubelet.cri.list_containers(None).await.unwrap().is_empty(), "containers stay");
        assert!(running.kubelet.cri.list_sandboxes(None).await.unwrap().is_empty(), "sandboxes stay");
        let left: Vec<_> =
            std::fs::read_dir(self.config.root.join("pods")).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "pod folders stay: {left:?}");
        let pods = running.kubelet.cgroups.pods().unwrap();
        assert!(pods.is_empty(), "cgroups stay: {pods:?}");
        running.stop().await;
    }
}

pub struct Handle<'a> {
    pub lab: &'a Lab,
    pub pod: Pod,
}

pub fn pod(name: &str, spec: Value) -> Pod {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": {"app": name}},
        "spec": spec}))
    .unwrap()
}

/// A container of the busybox image that runs `script`.
pub fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": containerd::BUSYBOX, "command": ["/bin/sh", "-c", script]})
}

pub fn with(mut base: Value, extra: Value) -> Value {
    let object = base.as_object_mut().unwrap();
    object.extend(extra.as_object().unwrap().clone());
    base
}

pub const STAY: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

/// How much longer than on a machine of its own things may take (`KEELSON_TEST_PATIENCE`, in an emulated guest).
pub fn patience() -> u32 {
    std::env::var("KEELSON_TEST_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

pub async fn wait<T>(what: &str, seconds: u64, mut check: impl FnMut() -> Option<T>) -> T {
    let limit = Instant::now() + Duration::from_secs(seconds) * patience();
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < limit, "waited {seconds} s for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Handle<'_> {
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap()
    }

    pub fn view(&self) -> Option<PodView> {
        self.lab.kubelet().workers.view(self.uid())
    }

    pub async fn until(&self, what: &str, check: impl Fn(&PodView) -> bool) -> PodView {
        let limit = Instant::now() + Duration::from_secs(40) * patience();
        loop {
            let view = self.view();
            if let Some(view) = view.as_ref().filter(|view| check(view)) {
                return view.clone();
            }
            if Instant::now() > limit {
                let status =
                    view.map(|v| serde_json::to_string_pretty(&v.status).unwrap()).unwrap_or_default();
                panic!("pod {} did not become {what}:\n{status}\n{}", self.uid(), self.lab.containerd.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn running(&self) -> PodView {
        self.until("ready", |v| {
            phase(v) == "Running" && v.status.container_statuses.iter().flatten().all(|c| c.ready)
        })
        .await
    }

    pub async fn phase(&self, wanted: &str) -> PodView {
        self.until(wanted, |v| phase(v) == wanted).await
    }

    /// Runs a command in a container; panics when it fails.
    pub async fn exec(&self, container: &str, script: &str) -> String {
        let (code, output) = self.try_exec(container, script).await;
        assert_eq!(code, 0, "{script}: {output}");
        output
    }

    pub async fn try_exec(&self, container: &str, script: &str) -> (i32, String) {
        let view = self.view().unwrap();
        let id = view.observed.latest(container).unwrap().id.clone();
        let command = vec!["/bin/sh".into(), "-c".into(), script.to_owned()];
        let cri = &self.lab.kubelet().kubelet.cri;
        let answer = cri.exec_sync(&id, command, Duration::from_secs(20) * patience()).await.unwrap();
        let mut output = answer.stdout;
        output.extend_from_slice(&answer.stderr);
        (answer.exit_code, String::from_utf8_lossy(&output).trim().to_owned())
    }

    pub async fn log(&self, container: &str) -> String {
        let status = status(&self.view().unwrap(), container);
        let path = self.lab.config.pod_logs.join(format!(
            "default_{}_{}/{container}/{}.log",
            self.pod.metadata.name.as_deref().unwrap(),
            self.uid(),
            status.restart_count
        ));
        keelson_kubelet::logs::read::tail_text(&path, 1000, 1 << 20).trim().to_owned()
    }

    /// A cgroup file of the pod, or of one of its containers: its name with the controller on v1, and on v2.
    pub fn cgroup(&self, class: &str, container: Option<&str>, v1: (&str, &str), v2: &str) -> String {
        let root = &self.lab.config.cgroup_root;
        let uid = self.uid();
        let mut path = std::path::PathBuf::from("/sys/fs/cgroup");
        let unified = path.join("cgroup.controllers").exists();
        if !unified {
            path.push(v1.0);
        }
        let id = container.map(|name| self.view().unwrap().observed.latest(name).unwrap().id.clone());
        if containerd::systemd_driver() {
            // Every dash of a slice's name is a level.
            let name = format!("{root}-{class}-pod{}", uid.replace('-', "_"));
            let levels = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
            levels.for_each(|at| path.push(format!("{}.slice", &name[..at])));
            path.extend(id.map(|id| format!("cri-containerd-{id}.scope")));
        } else {
            path.extend([root, class, &format!("pod{uid}")]);
            path.extend(id);
        }
        path.push(if unified { v2 } else { v1.1 });
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        text.trim().to_owned()
    }

    /// Changes the pod as the API would.
    pub fn update(&mut self, change: impl FnOnce(&mut Pod)) {
        change(&mut self.pod);
        self.lab.kubelet().workers.want(Arc::new(self.pod.clone()), None, ObservedPod::default());
    }

    /// Deletes the pod as the API would: first with a time, then, when the kubelet is done, for good.
    pub async fn delete(mut self, grace: i64) -> Duration {
        let begun = Instant::now();
        self.update(|pod| {
            pod.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
            pod.metadata.deletion_grace_period_seconds = Some(grace);
        });
        self.until("finished", |view| view.finished).await;
        let took = begun.elapsed();
        let workers = &self.lab.kubelet().workers;
        workers.gone(self.uid());
        wait("the worker to end", 20, || (!workers.contains(self.uid())).then_some(())).await;
        took
    }
}

pub fn phase(view: &PodView) -> &str {
    view.status.phase.as_deref().unwrap_or("")
}

pub fn status(view: &PodView, container: &str) -> ContainerStatus {
    let status = &view.status;
    let all = status
        .container_statuses
        .iter()
        .flatten()
        .chain(status.init_container_statuses.iter().flatten())
        .chain(status.ephemeral_container_statuses.iter().flatten());
    all.into_iter().find(|s| s.name == container).cloned().unwrap_or_default()
}

pub fn waiting(view: &PodView, container: &str) -> String {
    let state = status(view, container).state.unwrap_or_default();
    state.waiting.and_then(|w| w.reason).unwrap_or_default()
}

pub fn ended(state: Option<&ContainerState>) -> Option<(i32, String, String)> {
    let end = state?.terminated.as_ref()?;
    Some((end.exit_code, end.reason.clone().unwrap_or_default(), end.message.clone().unwrap_or_default()))
}
