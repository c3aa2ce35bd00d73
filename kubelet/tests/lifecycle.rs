//! Pods' lives on a real containerd: start, restart, end, deletion, adoption.
mod common;

use common::*;
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_live_and_die() {
    if !possible() {
        return;
    }
    let lab = Lab::start().await;
    runs_and_is_deleted(&lab).await;
    completes_and_fails(&lab).await;
    init_containers_and_sidecars(&lab).await;
    crash_loop(&lab).await;
    missing_image_and_pull_never(&lab).await;
    messages_hooks_and_grace(&lab).await;
    refusals(&lab).await;
    deadline(&lab).await;
    ephemeral_container(&lab).await;
    storage_limit(&lab).await;
    room_of_the_gone(&lab).await;
    leftovers(&lab).await;
    network_note_cut_short(&lab).await;
    rotation(&lab).await;
    runtime_events(&lab).await;
    lab.finish().await;
}

async fn runs_and_is_deleted(lab: &Lab) {
    let pod = lab.run("plain", json!({"containers": [shell("c", &format!("echo hello; {STAY}"))]}));
    let view = pod.running().await;
    let ip = view.status.pod_ip.clone().unwrap();
    assert!(ip.starts_with("10.213."), "{ip}");
    assert_eq!(view.status.host_ip.as_deref(), Some("192.0.2.7"));
    assert_eq!(view.status.qos_class.as_deref(), Some("BestEffort"));
    let c = status(&view, "c");
    assert!(c.container_id.unwrap().starts_with("containerd://"));
    assert_eq!(c.image, keelson_testkit::containerd::BUSYBOX);
    assert_eq!((c.restart_count, c.started), (0, Some(true)));
    assert_eq!(pod.log("c").await, "hello");
    assert_eq!(pod.exec("c", "hostname").await, "plain");
    assert!(pod.exec("c", "cat /etc/hosts").await.contains(&format!("{ip}\tplain")));
    let resolv = pod.exec("c", "cat /etc/resolv.conf").await;
    assert!(resolv.contains("nameserver 10.96.0.10"), "{resolv}");
    assert!(resolv.contains("search default.svc.cluster.local svc.cluster.local cluster.local"), "{resolv}");
    let took = pod.delete(30).await;
    assert!(took < Duration::from_secs(10), "a container that obeys TERM took {took:?}");
}

async fn completes_and_fails(lab: &Lab) {
    let done = lab.run("done", json!({"restartPolicy": "Never", "containers": [shell("c", "exit 0")]}));
    let view = done.phase("Succeeded").await;
    assert_eq!(ended(status(&view, "c").state.as_ref()), Some((0, "Completed".into(), String::new())));
    let fails = lab.run("fails", json!({"restartPolicy": "Never", "containers": [shell("c", "exit 3")]}));
    let view = fails.phase("Failed").await;
    assert_eq!(ended(status(&view, "c").state.as_ref()), Some((3, "Error".into(), String::new())));
    let view = done.until("finished", |v| v.finished).await;
    assert!(view.observed.sandboxes.iter().all(|s| !s.ready), "a finished pod keeps no sandbox");
    done.delete(30).await;
    fails.delete(30).await;
    let retried = lab.run(
        "retried",
        json!({"restartPolicy": "OnFailure", "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [with(shell("c", "test -e /v/x && exit 0; touch /v/x; exit 1"),
                json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}))]}),
    );
    let view = retried.phase("Succeeded").await;
    let c = status(&view, "c");
    assert_eq!(c.restart_count, 1);
    assert_eq!(ended(c.last_state.as_ref()).unwrap().0, 1);
    retried.delete(30).await;
}

async fn init_containers_and_sidecars(lab: &Lab) {
    let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let pod = lab.run(
        "init",
        json!({"restartPolicy": "Never", "volumes": [{"name": "v", "emptyDir": {}}],
            "initContainers": [
                with(shell("first", "echo one >> /v/log"), mounts.clone()),
                with(with(shell("side", &format!("echo side >> /v/log; {STAY}")), mounts.clone()), json!({"restartPolicy": "Always"})),
                with(shell("second", "grep -q one /v/log && echo two >> /v/log"), mounts.clone())],
            "containers": [with(shell("main", "cat /v/log; sleep 1"), mounts)]}),
    );
    let view = pod.phase("Succeeded").await;
    let order: Vec<String> = pod.log("main").await.lines().map(str::to_owned).collect();
    assert_eq!(
        (order.first().map(String::as_str), order.last().map(String::as_str)),
        (Some("one"), Some("two"))
    );
    assert!(order.contains(&"side".to_owned()), "{order:?}");
    assert!(status(&view, "first").ready, "a completed init container is ready");
    assert!(ended(status(&view, "side").state.as_ref()).is_some(), "a sidecar ends with the pod");
    pod.delete(30).await;
    let fails = lab.run(
        "initfails",
        json!({"restartPolicy": "Never", "initContainers": [shell("i", "exit 9")], "containers": [shell("c", STAY)]}),
    );
    let view = fails.phase("Failed").await;
    assert_eq!(waiting(&view, "c"), "PodInitializing");
    fails.delete(30).await;
}

async fn crash_loop(lab: &Lab) {
    let pod = lab.run("crash", json!({"containers": [shell("c", "exit 7")]}));
    let view = pod.until("in back-off", |v| waiting(v, "c") == "CrashLoopBackOff").await;
    let c = status(&view, "c");
    assert_eq!(phase(&view), "Running");
    assert!(c.restart_count >= 1);
    assert_eq!(ended(c.last_state.as_ref()).unwrap().0, 7);
    let message = c.state.unwrap().waiting.unwrap().message.unwrap();
    assert_eq!(message, "back-off 10s restarting failed container=c pod=crash_default(uid-crash)");
    pod.delete(30).await;
}

async fn missing_image_and_pull_never(lab: &Lab) {
    let never = lab.run(
        "never",
        json!({"containers": [{"name": "c", "image": "test.invalid/none:1", "imagePullPolicy": "Never"}]}),
    );
    never.until("refused", |v| waiting(v, "c") == "ErrImageNeverPull").await;
    never.delete(1).await;
    let missing = lab.run("missing", json!({"containers": [{"name": "c", "image": "127.0.0.1:1/none:1"}]}));
    missing.until("an error", |v| waiting(v, "c") == "ErrImagePull").await;
    let view = missing.until("in back-off", |v| waiting(v, "c") == "ImagePullBackOff").await;
    assert_eq!(phase(&view), "Pending");
    missing.delete(1).await;
}

async fn messages_hooks_and_grace(lab: &Lab) {
    let pod = lab.run(
        "message",
        json!({"restartPolicy": "Never", "containers": [shell("a", "echo -n why > /dev/termination-log; exit 1"),
            with(shell("b", "echo from the log; exit 1"), json!({"terminationMessagePolicy": "FallbackToLogsOnError"}))]}),
    );
    let view = pod.phase("Failed").await;
    assert_eq!(ended(status(&view, "a").state.as_ref()).unwrap().2, "why");
    assert_eq!(ended(status(&view, "b").state.as_ref()).unwrap().2, "from the log\n");
    pod.delete(30).await;
    let hooks = lab.run(
        "hooks",
        json!({"containers": [with(shell("c", "while :; do sleep 0.1; done"), json!({"lifecycle": {
            "postStart": {"exec": {"command": ["/bin/sh", "-c", "echo started > /tmp/post"]}},
            "preStop": {"exec": {"command": ["/bin/sh", "-c", "echo stopping > /proc/1/fd/1"]}}}}))]}),
    );
    hooks.running().await;
    assert_eq!(hooks.exec("c", "cat /tmp/post").await, "started");
    let logs = lab.config.pod_logs.join("default_hooks_uid-hooks/c/0.log");
    let keep = logs.clone();
    let seen = tokio::spawn(async move {
        wait("the pre-stop hook's line", 20, || {
            std::fs::read_to_string(&keep).ok().filter(|text| text.contains("stopping"))
        })
        .await;
    });
    // The shell ignores TERM: the grace passes, then it is killed.
    let took = hooks.delete(2).await;
    seen.await.unwrap();
    assert!(took >= Duration::from_millis(1900) && took < Duration::from_secs(15), "{took:?}");
    let failing = lab.run(
        "hookfails",
        json!({"terminationGracePeriodSeconds": 1, "containers": [with(shell("c", STAY),
            json!({"lifecycle": {"postStart": {"exec": {"command": ["/bin/false"]}}}}))]}),
    );
    failing
        .until("restarted", |v| status(v, "c").restart_count > 0 || waiting(v, "c") == "PostStartHookError")
        .await;
    failing.delete(1).await;
}

async fn refusals(lab: &Lab) {
    let pod = lab.run("refused", json!({"hostUsers": false, "containers": [shell("c", STAY)]}));
    let view = pod.phase("Failed").await;
    assert_eq!(view.status.reason.as_deref(), Some("UnsupportedPodField"));
    assert!(view.status.message.unwrap().contains("spec.hostUsers"));
    assert!(view.observed.sandboxes.is_empty());
    pod.delete(30).await;
}

/// Dead containers are collected but the last, and a sandbox of a pod that nobody has is ended.
async fn leftovers(lab: &Lab) {
    let (kubelet, workers) = (&lab.kubelet().kubelet, &lab.kubelet().workers);
    let pod = lab.run(
        "restarts",
        json!({"terminationGracePeriodSeconds": 1, "containers": [shell("c", STAY), shell("d", STAY)]}),
    );
    pod.running().await;
    let first = pod.view().unwrap().observed.latest("c").unwrap().id.clone();
    kubelet.cri.stop_container(&first, Duration::from_secs(1)).await.unwrap();
    pod.until("restarted once", |v| status(v, "c").restart_count == 1 && status(v, "c").ready).await;
    let second = pod.view().unwrap().observed.latest("c").unwrap().id.clone();
    kubelet.cri.stop_container(&second, Duration::from_secs(1)).await.unwrap();
    pod.until("restarted twice", |v| status(v, "c").restart_count == 2 && status(v, "c").ready).await;
    assert_eq!(kubelet.cri.list_containers(Some(pod.uid())).await.unwrap().len(), 4);
    let collector = keelson_kubelet::gc::Collector::new(
        kubelet.clone(),
        workers.clone(),
        lab.kubelet().sources_ready.clone(),
    );
    collector.collect().await;
    let left: Vec<String> =
        kubelet.cri.list_containers(Some(pod.uid())).await.unwrap().into_iter().map(|c| c.id).collect();
    assert!(left.len() == 3 && !left.contains(&first) && left.contains(&second), "{left:?}");
    let view = pod.running().await;
    assert!(ended(status(&view, "c").last_state.as_ref()).is_some());
    pod.delete(1).await;

    let labels = [("name", "lost"), ("namespace", "default"), ("uid", "uid-lost")];
    let config = keelson_kubelet::cri::api::PodSandboxConfig {
        metadata: Some(keelson_kubelet::cri::api::PodSandboxMetadata {
            name: "lost".into(),
            uid: "uid-lost".into(),
            namespace: "default".into(),
            attempt: 0,
        }),
        labels: labels.map(|(k, v)| (format!("io.kubernetes.pod.{k}"), v.to_owned())).into(),
        linux: Some(Default::default()),
        ..Default::default()
    };
    kubelet.cri.run_sandbox(config, "").await.unwrap();
    let limit = std::time::Instant::now() + Duration::from_secs(40);
    while !kubelet.cri.list_sandboxes(Some("uid-lost")).await.unwrap().is_empty() {
        assert!(std::time::Instant::now() < limit, "the lost sandbox stays");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A log that is too large is renamed, and the container goes on writing into a new one.
/// A power cut leaves what libcni keeps of a sandbox's network empty; the runtime alone can never stop that sandbox.
async fn network_note_cut_short(lab: &Lab) {
    let pod = lab.run("noted", json!({"containers": [shell("c", STAY)]}));
    let view = pod.running().await;
    let of_sandbox = format!("-{}-", view.observed.sandboxes[0].id);
    let folder = std::fs::read_dir(keelson_kubelet::cri::network_notes::FOLDER).unwrap();
    let notes: Vec<_> = folder
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(&of_sandbox))
        .collect();
    assert!(!notes.is_empty(), "the runtime keeps them elsewhere");
    for note in &notes {
        std::fs::write(note, "").unwrap();
    }
    let took = pod.delete(30).await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(notes.iter().all(|note| !note.exists()));
}

async fn rotation(lab: &Lab) {
    let script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done";
    let pod =
        lab.run("chatty", json!({"terminationGracePeriodSeconds": 1, "containers": [shell("c", script)]}));
    let view = pod.running().await;
    let container = view.observed.latest("c").unwrap();
    let path = std::path::PathBuf::from(&container.log_path);
    let size = || std::fs::metadata(&path).map_or(0, |meta| meta.len());
    wait("some lines", 10, || (size() > 500).then_some(())).await;
    let config = keelson_kubelet::config::LogConfig { max_size: 500, max_files: 3 };
    let cri = &lab.kubelet().kubelet.cri;
    assert!(keelson_kubelet::logs::rotate::rotate(cri, &container.id, &path, &config).await.unwrap());
    wait("lines in the new file", 10, || (size() > 0).then_some(())).await;
    let files: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().flatten().collect();
    assert_eq!(files.len(), 2);
    // Nothing was lost between the two.
    let number = |text: String| text.rsplit(' ').next().unwrap().trim().parse::<u64>().unwrap();
    let old = files.iter().find(|f| f.path() != path).unwrap().path();
    let last = number(keelson_kubelet::logs::read::tail_text(&old, 1, 100));
    let fresh = std::fs::read_to_string(&path).unwrap();
    assert_eq!(number(fresh.lines().next().unwrap().to_owned()), last + 1);
    pod.delete(1).await;
}

/// containerd 2 tells of ends over CRI, 1.6 over its own service; a stream stands before anything has happened.
async fn runtime_events(lab: &Lab) {
    use keelson_kubelet::cri::events::{Source, follow};
    let cri = &lab.kubelet().kubelet.cri;
    let version = cri.version().await.unwrap().runtime_version;
    let over_cri = !version.trim_start_matches('v').starts_with("1.");
    println!("containerd {version}: events over {}", if over_cri { "CRI" } else { "its own service" });
    for source in [Source::Cri, Source::Containerd] {
        let (sender, mut events) = tokio::sync::mpsc::channel(100);
        let (live, stands) = tokio::sync::oneshot::channel();
        let own = cri.clone();
        let following =
            tokio::spawn(async move { follow(&own, source, &sender, || live.send(()).unwrap()).await });
        if source == Source::Cri && !over_cri {
            let status = following.await.unwrap().unwrap_err();
            assert_eq!(status.code(), tonic::Code::Unimplemented, "{status:?}");
            continue;
        }
        let limit = Duration::from_secs(10) * patience();
        if tokio::time::timeout(limit, stands).await.expect("the stream stands at once").is_err() {
            panic!("{source:?}: the stream ended: {:?}", following.await);
        }
        let pod = lab.run("ends", json!({"restartPolicy": "Never", "containers": [shell("c", "exit 0")]}));
        let view = pod.phase("Succeeded").await;
        let id = &view.observed.latest("c").unwrap().id;
        let told = async { while events.recv().await.expect("events go on").id != *id {} };
        tokio::time::timeout(limit, told).await.expect("the end is told");
        pod.delete(1).await;
        following.abort();
    }
}

async fn storage_limit(lab: &Lab) {
    let pod = lab.run(
        "greedy",
        json!({"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
            "containers": [with(shell("c", &format!("dd if=/dev/zero of=/v/f bs=1M count=3; {STAY}")),
                json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}))]}),
    );
    let view = pod.phase("Failed").await;
    assert_eq!(view.status.reason.as_deref(), Some("Evicted"));
    assert_eq!(
        view.status.message.as_deref(),
        Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ")
    );
    pod.delete(1).await;
    let huge = lab.run(
        "huge",
        json!({"containers": [with(shell("c", STAY), json!({"resources": {"requests": {"cpu": "5000"}}}))]}),
    );
    assert_eq!(huge.phase("Failed").await.status.reason.as_deref(), Some("OutOfcpu"));
    huge.delete(1).await;
}

/// What was deleted without grace winds down while others take its place: the scheduler knows of it no more.
async fn room_of_the_gone(lab: &Lab) {
    let most = format!("{}m", lab.kubelet().kubelet.capacity.milli_cpu * 3 / 4);
    let run = |name| {
        let requests = json!({"resources": {"requests": {"cpu": most}}});
        let stubborn = shell("c", "trap '' TERM; while :; do sleep 1; done");
        lab.run(name, json!({"terminationGracePeriodSeconds": 3, "containers": [with(stubborn, requests)]}))
    };
    let first = run("first");
    first.running().await;
    let second = run("second");
    assert_eq!(second.phase("Failed").await.status.reason.as_deref(), Some("OutOfcpu"));
    second.delete(1).await;
    lab.kubelet().workers.gone(first.uid());
    let third = run("third");
    third.running().await;
    third.delete(1).await;
    wait("the first to end", 20, || (!lab.kubelet().workers.contains(first.uid())).then_some(())).await;
}

async fn deadline(lab: &Lab) {
    let pod = lab.run(
        "deadline",
        json!({"activeDeadlineSeconds": 2, "terminationGracePeriodSeconds": 1,
        "containers": [shell("c", STAY)]}),
    );
    let view = pod.phase("Failed").await;
    assert_eq!(view.status.reason.as_deref(), Some("DeadlineExceeded"));
    pod.delete(30).await;
}

async fn ephemeral_container(lab: &Lab) {
    let mut pod = lab.run("debug", json!({"containers": [shell("c", STAY)]}));
    pod.running().await;
    pod.update(|pod| {
        let debug = with(shell("dbg", "ps; sleep 60"), json!({"targetContainerName": "c"}));
        pod.spec.as_mut().unwrap().ephemeral_containers = Some(vec![serde_json::from_value(debug).unwrap()]);
    });
    pod.until("debugged", |v| {
        v.status
            .ephemeral_container_statuses
            .iter()
            .flatten()
            .any(|s| s.state.as_ref().is_some_and(|s| s.running.is_some()))
    })
    .await;
    let seen = pod.exec("dbg", "ps").await;
    assert!(seen.contains("trap"), "the target's processes are seen: {seen}");
    pod.delete(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_of_kubelet_and_runtime_leave_containers_alone() {
    if !possible() {
        return;
    }
    let mut lab = Lab::start().await;
    let probe = json!({"readinessProbe": {"exec": {"command": ["/bin/true"]}, "periodSeconds": 1}});
    let spec = json!({"containers": [with(shell("c", STAY), probe), shell("d", STAY)]});
    let first = lab.run("stays", spec.clone());
    let before = first.running().await;
    let pod = {
        let mut pod = first.pod.clone();
        pod.status = Some(before.status.clone());
        pod
    };
    let ids = |view: &keelson_kubelet::worker::PodView| {
        let mut ids: Vec<String> = view.observed.containers.iter().map(|c| c.id.clone()).collect();
        ids.sort();
        (ids, view.observed.sandboxes[0].id.clone())
    };
    let wanted = ids(&before);
    lab.stop_kubelet().await;
    lab.start_kubelet().await;
    let known = Default::default();
    lab.kubelet().workers.want(std::sync::Arc::new(pod.clone()), None, known);
    let handle = Handle { lab: &lab, pod: pod.clone() };
    let after = handle
        .until("seen again", |v| {
            v.observed.containers.len() == 2 && phase(v) == "Running" && status(v, "c").ready
        })
        .await;
    assert_eq!(ids(&after), wanted);
    assert_eq!(status(&after, "c").restart_count, 0);

    lab.containerd.kill();
    lab.containerd.restart().unwrap();
    let begun = std::time::Instant::now();
    let handle = Handle { lab: &lab, pod };
    let next = lab.run("next", json!({"containers": [shell("c", STAY)]}));
    next.running().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "recovery took {:?}", begun.elapsed());
    let after = handle.running().await;
    assert_eq!(ids(&after), wanted);
    // A container's end is noticed over the new connection.
    let id = after.observed.latest("d").unwrap().id.clone();
    lab.kubelet().kubelet.cri.stop_container(&id, Duration::from_secs(1)).await.unwrap();
    handle.until("restarted", |v| status(v, "d").restart_count == 1 && status(v, "d").ready).await;
    lab.finish().await;
}
